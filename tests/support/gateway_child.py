"""The smallest gateway process, for tests that kill it.

    python tests/support/gateway_child.py DATABASE SETTINGS

It speaks JSON lines: commands on stdin, events on stdout. The pipe's content survives
the process, so its reader may count on each line. `SETTINGS` (JSON, see `Settings`) say
how long the model and the summariser think.

    {"do": "accept", "id": ..., "talk": ..., "text": ...}
        -> {"saw": "accepted", ...} once `accept` has returned, {"saw": "full", ...} if too many
           messages of its conversation wait
    {"do": "settle"}
        -> {"saw": "settled"} once nothing is waiting or under way, but in lane `attic`, which
           no gateway of the tests runs
    {"do": "drain", "timeout_s": ...}
        -> {"saw": "drained", "held": [...], "loops": [...]}: what the drain has left
    (end of input)
        -> it stops as a gateway does on SIGTERM

The channel is a file outside the process: delivering is one `write` at its end, which a
killed process cannot take back. A message may tell the model what to do: "hang" (think
until killed), "hang once" (only at the first attempt).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

import sessiondb
from sessiondb import CompactionRefused, Session, SessionBusy
from sessiondb.gateway.dispatcher import RefusedBySender
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.models import Reply
from sessiondb.sqlite import transaction
from sessiondb.sqlite.transaction import Prepared
from sessiondb.waiter import running_trio

COMPACT_AT_TOKENS = 400
KEEP_TOKENS = 100

STATEMENTS = {
    "child.inbox_open": """SELECT inbox_no FROM inbox
                           WHERE state IN ('queued', 'claimed', 'interrupted')
                             AND lane <> 'attic' LIMIT 1""",
    "child.outbox_open": """SELECT outbox_no FROM outbox
                            WHERE state IN ('pending', 'sending') LIMIT 1""",
}
transaction.statements().update({name: Prepared(name, sql) for name, sql in STATEMENTS.items()})


@dataclass
class Settings:
    """How the child behaves. Seconds are (least, most)."""

    channel: str  # the file that is the channel
    seed: int = 0
    model_s: tuple[float, float] = (0.0, 0.02)
    summary_s: tuple[float, float] = (0.02, 0.2)
    send_s: tuple[float, float] = (0.0, 0.005)
    refuse: float = 0.05  # how often the channel says that it did not send
    in_parts: float = 0.3  # how often a turn appends something before its answer
    lease_s: float = 5.0
    concurrency: int = 3
    recover: bool = True
    compact: bool = True
    policy: dict[str, Any] = field(default_factory=dict)


def say(saw: str, **fields: Any) -> None:
    """Tell the test, at once."""
    os.write(1, (json.dumps({"saw": saw, **fields}) + "\n").encode())


async def commands() -> AsyncIterator[bytes]:
    """Iterate over the lines of standard input, under asyncio and trio.

    Not by a thread's readline: that could not be cancelled, and would keep a failing gateway
    alive and silent.
    """
    trio = running_trio()
    if trio is not None:
        rest = b""
        async for part in trio.lowlevel.FdStream(os.dup(0)):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line
        return
    reader = asyncio.StreamReader(limit=2**24)  # a message is a line
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async for line in reader:
        yield line


class Child:
    """What runs between the first line and the last."""

    def __init__(self, db: sessiondb.SessionDB, settings: Settings) -> None:
        self.db = db
        self.settings = settings
        self.random = random.Random(settings.seed)
        self.channel = os.open(settings.channel, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.compacting: set[str] = set()
        self.draining = False
        self.group: anyio.abc.TaskGroup | None = None

    async def pause(self, between: tuple[float, float]) -> None:
        await anyio.sleep(self.random.uniform(*between))

    async def run(self) -> None:
        say("opened", pid=os.getpid())
        await self.db.set_lane("main", concurrency=self.settings.concurrency, priority=0)
        if self.settings.recover:
            recovered = await self.db.recover()
            say(
                "recovered",
                instances=recovered.instances,
                turns=recovered.turns,
                replies=recovered.replies,
            )
        lanes = LaneSettings(lease_s=self.settings.lease_s, timeout_s=60.0, delayed_after_s=1.0)
        async with anyio.create_task_group() as group:
            self.group = group
            for loop in (
                partial(self.db.run_lane, "main", self.think, settings=lanes),
                partial(self.db.run_lane, "resume", self.think, settings=lanes),
                partial(self.db.run_outbox, self.deliver, lease_s=self.settings.lease_s),
                self.keep_resuming,
            ):
                group.start_soon(self.unending, loop)
            say("ready")
            await self.obey()
            group.cancel_scope.cancel()

    async def unending(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop of the gateway, which returns only when it drains."""
        await loop()
        assert self.draining, f"a loop of the gateway returned: {loop}"

    async def drain(self, command: dict[str, Any]) -> None:
        self.draining = True
        left = await self.db.drain(timeout_s=command["timeout_s"])
        held = [f"{one.what} {one.name}" for one in left.held]
        say("drained", held=held, loops=left.loops)

    async def obey(self) -> None:
        assert self.group is not None
        async for line in commands():
            command = json.loads(line)
            if command["do"] == "accept":
                self.group.start_soon(self.accept, command)
            elif command["do"] == "drain":
                self.group.start_soon(self.drain, command)
            else:
                self.group.start_soon(self.settle)

    async def accept(self, command: dict[str, Any]) -> None:
        try:
            receipt = await self.db.accept(
                f"agent:main:fake:channel:{command['talk']}",
                {"role": "user", "content": command["text"]},
                channel="fake",
                event_id=command["id"],
            )
        except SessionBusy:
            say("full", id=command["id"], talk=command["talk"])
            return
        say(
            "accepted",
            id=command["id"],
            talk=command["talk"],
            inbox_no=receipt.inbox_no,
            duplicate=receipt.duplicate,
        )

    async def settle(self) -> None:
        """Wait until no message waits or is worked on and no reply waits.

        Dead letters and unknown replies are an end, too.
        """
        while True:
            seen = self.db.backend.change_count
            waiting, unsent = await self.db.read(
                "settle", lambda tx: (tx.first("child.inbox_open"), tx.first("child.outbox_open"))
            )
            if waiting is None and unsent is None and not self.compacting:
                say("settled")
                return
            await self.db.backend.wait_change(seen, 0.5)

    async def keep_resuming(self) -> None:
        """Look at interrupted messages at the start and whenever something changed.

        Write only when there is something to do.
        """
        policy = ResumePolicy(**self.settings.policy)
        while True:
            seen = self.db.backend.change_count
            if any(
                decision.action in ("resume", "skip")
                for decision in await self.db.plan_resumes(policy)
            ):
                await self.resume(policy)
            await self.db.backend.wait_change(seen, 1.0)

    async def resume(self, policy: ResumePolicy) -> None:
        for decision in await self.db.resume(policy):
            say(
                "decided",
                inbox_no=decision.inbox_no,
                action=decision.action,
                reason=decision.reason,
            )

    # -- the model, the summariser, the channel ----------------------------------------

    async def think(self, turn: Turn) -> Answer:
        lane = "resume" if turn.kind == "resume" else "main"
        running = await self.db.read("look", lambda tx: tx.one("turns.lane", lane=lane).running)
        text = turn.message["content"]
        say(
            "turn",
            turn=turn.turn_no,
            inbox_no=turn.inbox_no,
            attempt=turn.attempt,
            kind=turn.kind,
            text=text,
            running=running,
        )
        context = await turn.session.context()
        if "hang once" in text:
            if turn.attempt == 1:
                await anyio.sleep_forever()
        elif "hang" in text:
            await anyio.sleep_forever()
        await self.pause(self.settings.model_s)
        if self.random.random() < self.settings.in_parts:
            await turn.append(assistant(f"looking into {text}"))
            await self.pause(self.settings.model_s)
        if (
            self.settings.compact
            and context.tokens > COMPACT_AT_TOKENS
            and turn.session.id not in self.compacting
        ):
            assert self.group is not None
            self.compacting.add(turn.session.id)
            self.group.start_soon(self.compact, turn.session)
        return Answer(
            [assistant(f"an answer to {text}")],
            [(turn.session.id, {"re": turn.inbox_no, "text": text})],
        )

    async def compact(self, session: Session) -> None:
        try:
            async with session.compact(trigger="threshold", keep_recent_tokens=KEEP_TOKENS) as job:
                say("compacting", session=session.id)
                await self.pause(self.settings.summary_s)
                result = await job.commit("They talked.")
            say("compacted", session=session.id, outcome=result.outcome)
        except CompactionRefused as error:
            say("not compacted", session=session.id, reason=str(error))
        finally:
            self.compacting.discard(session.id)

    async def deliver(self, reply: Reply) -> str:
        if self.random.random() < self.settings.refuse:
            raise RefusedBySender("the channel is over its rate")
        await self.pause(self.settings.send_s)
        line = (
            json.dumps(
                {
                    "outbox_no": reply.outbox_no,
                    "target": reply.target,
                    "pid": os.getpid(),
                    **json.loads(reply.payload),
                }
            )
            + "\n"
        )
        os.write(self.channel, line.encode())
        say("delivered", outbox_no=reply.outbox_no)
        await self.pause(self.settings.send_s)
        return f"receipt {reply.outbox_no}"


def assistant(text: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "provider": "scripted",
        "model": "none",
        "stopReason": "stop",
    }


async def main(path: str, settings: Settings) -> None:
    say("started", pid=os.getpid())
    async with sessiondb.open(path, program="gateway_child") as db:
        await Child(db, settings).run()
    say("stopped")


if __name__ == "__main__":
    try:
        anyio.run(main, sys.argv[1], Settings(**json.loads(sys.argv[2])))
    except Exception as error:
        # In one write each: whoever kills it now must not see half a reason.
        say("failed", error=repr(error))
        os.write(2, "".join(traceback.format_exception(error)).encode())
        raise SystemExit(1) from error
