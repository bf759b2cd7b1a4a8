"""A small agent gateway with a scripted model and a slow summariser.

    python -m examples.demo_gateway DATABASE

It speaks JSON lines: commands on stdin, events on stdout. It is the child process of
the demo, which kills it without warning. Its whole promise is the order of two lines: a
message is acknowledged after `append` returned.

One task per conversation takes messages in order, as gateways do. Compactions run
beside them, each in its own task. The model and the summariser are `sleep`. The demo
shows what happens to a conversation meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import sessiondb
from sessiondb import CompactionRefused, Receipt, Session, SessionDB

COMPACT_AT_TOKENS = 2_500
KEEP_TOKENS = 600
STATS_EVERY_S = 0.5


def emit(event: str, **fields: Any) -> None:
    """Tell the client, at once: what is in the pipe survives this process."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


@dataclass
class Conversation:
    """One conversation's session, its messages in order, and what is known of its size."""

    name: str
    session: Session
    inbox: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    tokens: int = 0
    compacting: bool = False


class Gateway:
    """What runs between the first command and the last."""

    def __init__(self, db: SessionDB, seed: int) -> None:
        self.db = db
        self.conversations: dict[str, Conversation] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.may_compact = False
        self.summariser_s = (2.0, 4.0)
        self.fault = ""
        self.random = random.Random(seed)
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def spawn(self, work: Any) -> None:
        """Start a task. If it fails, this process fails with it."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            emit("failed", error=repr(task.exception()))

    async def conversation(self, name: str) -> Conversation:
        """Return the conversation of that name.

        Its key finds its session, in this life of the process or the next.
        """
        async with self._opening[name]:
            if name not in self.conversations:
                session = await self.db.session(f"agent:main:demo:channel:{name}")
                found = self.conversations[name] = Conversation(
                    name, session, tokens=(await session.info()).context_tokens
                )
                self.spawn(self._talk(found))
            return self.conversations[name]

    async def _talk(self, conversation: Conversation) -> None:
        while True:
            message = await conversation.inbox.get()
            await self._store(
                conversation, {"role": "user", "content": message["text"]}, message["id"]
            )
            reply = {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": f"<{message['id']}:reply> {message['reply']}"}
                ],
            }
            await self._store(conversation, reply, f"{message['id']}:reply")
            if (
                self.may_compact
                and conversation.tokens > COMPACT_AT_TOKENS
                and not conversation.compacting
            ):
                self.spawn(self.compact(conversation, self.random.uniform(*self.summariser_s)))

    async def _store(
        self, conversation: Conversation, message: dict[str, Any], message_id: str
    ) -> None:
        if self.fault == "lose" and message_id.endswith("7"):
            receipt_tokens, duplicate, took_ms = (
                0,
                False,
                0.0,
            )  # acknowledged and never stored: the demo must notice
        else:
            began = perf_counter()
            receipt: Receipt = await conversation.session.append(
                message, idempotency_key=message_id
            )
            took_ms = (perf_counter() - began) * 1000
            receipt_tokens, duplicate = receipt.tokens, receipt.duplicate
            if self.fault == "duplicate" and message_id.endswith("7"):
                await conversation.session.append(message)  # stored twice: the demo must notice
        conversation.tokens += receipt_tokens
        anywhere = any(other.compacting for other in self.conversations.values())
        emit(
            "ack",
            id=message_id,
            conversation=conversation.name,
            ms=took_ms,
            duplicate=duplicate,
            compacting="same" if conversation.compacting else "other" if anywhere else "none",
        )

    async def compact(
        self, conversation: Conversation, summariser_s: float, *, fail: bool = False
    ) -> None:
        """Compact one conversation while its messages keep arriving."""
        conversation.compacting = True
        name, job_id = conversation.name, ""
        try:
            async with conversation.session.compact(
                trigger="threshold", keep_recent_tokens=KEEP_TOKENS
            ) as job:
                job_id = job.id
                emit(
                    "begun",
                    compaction=job_id,
                    conversation=name,
                    seconds=summariser_s,
                    messages=len(job.messages),
                )
                await asyncio.sleep(summariser_s)  # the summariser thinks. Nothing is held
                if fail:
                    raise ModelOverloadedError
                result = await job.commit(
                    f"Summary of {len(job.messages)} messages: the agent fixed a lock and tested "
                    "it."
                )
            emit(
                "finished",
                compaction=job_id,
                conversation=name,
                outcome=result.outcome,
                late=result.late,
                epoch=result.epoch,
            )
        except ModelOverloadedError:
            emit(
                "finished",
                compaction=job_id,
                conversation=name,
                outcome="failed",
                late=False,
                epoch=None,
            )
        except CompactionRefused as refused:
            emit("refused", conversation=name, error=str(refused))
        finally:
            conversation.compacting = False
            conversation.tokens = (await conversation.session.info()).context_tokens

    async def obey(self, command: dict[str, Any]) -> None:
        """Carry out one command."""
        match command["do"]:
            case "message":
                (await self.conversation(command["conversation"])).inbox.put_nowait(command)
            case "settings":
                self.may_compact, self.fault = command["compact"], command["fault"]
                self.summariser_s = tuple(command["summariser_s"])
            case "compact":
                conversation = await self.conversation(command["conversation"])
                self.spawn(self.compact(conversation, command["seconds"], fail=command["fail"]))
            case "commit":
                result = await self.db.commit_compaction(command["compaction"], command["summary"])
                known = {
                    "compaction": result.compaction_id,
                    "conversation": command["conversation"],
                }
                emit("late-commit", **known, outcome=result.outcome, late=result.late)

    async def report(self) -> None:
        """Tell the counters now and then.

        The last ones before a kill are what is known of that life.
        """
        while True:
            writer = (await self.db.stats())["writer"]
            emit(
                "stats",
                longest_ms=writer["transaction_ms_longest"],
                longest_op=writer["transaction_longest_op"],
            )
            await asyncio.sleep(STATS_EVERY_S)


class ModelOverloadedError(Exception):
    """The summariser's provider refused."""


async def serve(path: str) -> None:
    """Open the database and obey until stdin ends."""
    began = perf_counter()
    async with sessiondb.open(path, program="demo gateway") as db:
        gateway = Gateway(db, seed=7)
        reporting = asyncio.get_running_loop().create_task(gateway.report())
        emit("ready", ms=(perf_counter() - began) * 1000)
        lines = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
        )
        while line := await lines.readline():
            await gateway.obey(json.loads(line))
        unfinished = [reporting, *gateway.tasks]
        for task in unfinished:
            # A cancelled compaction gives its job up, shielded, before the database
            # closes
            task.cancel()
        await asyncio.wait(unfinished)
    emit("closed")


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
