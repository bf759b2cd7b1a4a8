"""The gateway of the soak: the tests' gateway child, with what an hour needs.

    python -m tests.proofs.soak.gateway DATABASE SETTINGS

It does what `support/gateway_child.py` does, and more. It runs retention, recovers the
work of dead processes, follows events, and takes backups on command. It summarises
well, slowly, badly, late or not at all. Every second it reports on its event loop and
its writer.

A message may tell the model what to do: !flaky (raise at the first attempt), !slow
(take seconds), !empty (no answer). Of some calls a share gives trouble (`troubles.py`).

`broken` names what is wrong with this gateway on purpose, for the tests of the harness:

    descriptors, threads, memory     each turn leaves one behind (of memory: 4 MiB)
    checkpoints                      the WAL is never reset
    acknowledgement                  every tenth message is acknowledged and not accepted
    reply                            every tenth reply is sent twice
    loop                             every tenth turn blocks the event loop
    transaction                      every tenth turn writes with a body that takes its time
    silence                          of a message that is given up only operators hear
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from zlib import crc32

import anyio

import sessiondb
from sessiondb import CompactionRefused, Limits, NotFound, Session, StoreBusy, events
from sessiondb.backend import Tx
from sessiondb.errors import CompactionTimeout, NotExecuted, SessionEnded
from sessiondb.gateway import dead_letters
from sessiondb.gateway.dispatcher import RefusedBySender
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.maintenance.retention import RetentionPolicy, gc
from sessiondb.models import Reply
from sessiondb.sqlite.checkpoint import Checkpointer
from sessiondb.sqlite.writer import Writer
from tests.support.gateway_child import (
    KEEP_TOKENS,
    Child,
    Settings,
    assistant,
    commands,
    say,
)

from .lag import measure
from .trouble_makers import NO_ANSWERS, NO_RECEIPTS, disturb, fill_pool, stray
from .troubles import (
    ATTIC_LANE,
    DEAD_CHANNEL,
    FULL_POOL,
    PARKED_LANE,
    STRAY_HANDLER,
    STRAY_SENDER,
    UNPARKED,
    WRONG_ANSWER,
    WRONG_RECEIPT,
)

DAY_S = 86_400.0
# The bound of one write transaction (design, section 10). A longer one is reported with
# its operation.
TRANSACTION_MS_MAX = 25.0
LEFT_BEHIND_BYTES = 4 * 1024 * 1024
# For how long a gateway that is broken blocks its loop, or holds a transaction. Twice
# what `short` plans allow.
BLOCKS_S = 2.5
# What becomes of a compaction, and how often.
SUMMARIES = {"quick": 50, "slow": 15, "failing": 10, "timing out": 10, "late": 10, "empty": 5}


@dataclass
class SoakSettings(Settings):
    """As for the child, and more. Seconds."""

    name: str = "gateway"
    loop: str = "asyncio"
    slow_s: tuple[float, float] = (2.0, 6.0)
    compact_at_tokens: int = 1_500
    retention_s: float = 20.0
    max_age_s: float = 60.0
    idle_age_s: float = 30.0
    prune_age_s: float = 240.0
    pulse_s: float = 1.0
    care_s: float = 2.0
    wal_bytes_max: int = 4 * 1024 * 1024
    broken: list[str] = field(default_factory=list)
    parked_priority: int = 30
    dead_channel: bool = False
    shares: dict[str, float] = field(default_factory=dict)
    """Of which calls a part gives trouble, and how large it is."""


# A quarter of the conversations is led through a channel that is down now and then.
PIGEONS, WIRE = "pigeons", "wire"


def channel_of(session_id: str) -> str:
    return PIGEONS if crc32(session_id.encode()) % 4 == 0 else WIRE


class Slow:
    """What held the writer's thread for longer than the bound, noted from that thread."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float]] = []
        self.longest: tuple[str, float] = ("", 0.0)
        self.held: tuple[str, float] = ("", 0.0)
        """The longest transaction without its COMMIT: from when the write lock was
        ours, to where only the disk is waited for.
        """

    def note(self, op: str, took_ms: float) -> None:
        if took_ms > self.longest[1]:
            self.longest = (op, took_ms)
        if took_ms > TRANSACTION_MS_MAX:
            self.found.append((op, round(took_ms, 1)))

    def watch(self) -> None:
        """Measure the transactions and maintenance steps of every writer."""
        commit, measure, step = Writer._commit, Writer._measure, Writer._step_maintenance

        def committed(writer: Writer, connection: Any, batch: Any) -> None:
            took_ms = (time.monotonic() - batch.began) * 1000
            if took_ms > self.held[1]:
                self.held = (batch.slowest_op or "nothing", round(took_ms, 1))
            commit(writer, connection, batch)

        def measured(writer: Writer, batch: Any) -> None:
            measure(writer, batch)
            self.note(batch.slowest_op or "nothing", writer.stats.transaction_ms_last)

        def stepped(writer: Writer) -> None:
            task = writer.queue.tasks[0].op if writer.queue.tasks else ""
            began = time.monotonic()
            step(writer)
            if task:
                self.note(f"a step of {task}", (time.monotonic() - began) * 1000)

        Writer._commit = committed  # type: ignore[method-assign]
        Writer._measure = measured  # type: ignore[method-assign]
        Writer._step_maintenance = stepped  # type: ignore[method-assign]


class SoakGateway(Child):
    """What runs between the first line and the last."""

    settings: SoakSettings

    def __init__(self, db: sessiondb.SessionDB, settings: SoakSettings, slow: Slow) -> None:
        super().__init__(db, settings)
        self.slow = slow
        self.lags_us: list[int] = []
        self.left_behind: list[Any] = []
        self.counted = self.turns = 0

    async def obey(self) -> None:
        assert self.group is not None
        for work in (self.pulse, self.care, self.retain, self.follow):
            self.group.start_soon(work)
        self.group.start_soon(measure, self.lags_us)
        lanes = LaneSettings(lease_s=self.settings.lease_s, timeout_s=60.0, delayed_after_s=2.0)
        cron = partial(self.db.run_lane, "cron", self.think, settings=lanes)
        self.group.start_soon(self.unending, cron)
        await self.db.set_lane(
            PARKED_LANE, concurrency=2, priority=self.settings.parked_priority, people=False
        )
        await self.db.set_lane(ATTIC_LANE, concurrency=1, priority=40, people=False)
        async for line in commands():
            command = json.loads(line)
            work = {
                "accept": self.accept,
                "decide": self.decide,
                "backup": self.take_backup,
                "drop": self.drop_archives,
                "run": self.run_for_a_while,
                "channel": self.set_channel,
                "fill": self.fill_pool,
            }.get(command["do"])
            if work is not None:
                self.group.start_soon(work, command)
            else:
                self.group.start_soon(self.settle)

    # -- what people and operators ask for ---------------------------------------------

    async def accept(self, command: dict[str, Any]) -> None:
        key = f"agent:{command['agent']}:soak:channel:{command['talk']}"
        self.counted += 1
        if "acknowledgement" in self.settings.broken and self.counted % 10 == 0:
            say(
                "accepted",
                id=command["id"],
                session=(await self.db.session(key)).id,
                duplicate=False,
            )
            return
        message = {"role": "user", "content": command["text"]}
        try:
            receipt = await self.db.accept(
                key, message, channel="soak", event_id=command["id"], lane=command["lane"]
            )
        except (StoreBusy, NotExecuted, SessionEnded) as error:
            say("refused", id=command["id"], reason=type(error).__name__)
        else:
            say(
                "accepted",
                id=command["id"],
                session=receipt.session_id,
                duplicate=receipt.duplicate,
            )

    async def decide(self, command: dict[str, Any]) -> None:
        """Do what an operator decided about a reply or a dead letter.

        Another one may have been quicker.
        """
        what, number = command["what"], command["number"]
        try:
            if what in ("sent", "pending"):
                await self.db.settle_reply(number, what)
            elif what == "requeue":
                await self.db.requeue(number)
            else:
                await self.db.drop(number)
        except (NotFound, StoreBusy, NotExecuted) as error:
            say("not decided", what=what, number=number, reason=str(error))
        else:
            say("decided by hand", what=what, number=number)

    async def take_backup(self, command: dict[str, Any]) -> None:
        try:
            pages = await self.db.backend.backup(command["to"])
        except (StoreBusy, NotExecuted) as error:
            say("backed up", to=command["to"], pages=0, reason=str(error))
        else:
            say("backed up", to=command["to"], pages=pages)

    async def drop_archives(self, command: dict[str, Any]) -> None:
        """Delete the archives that were finished before a moment, and nothing else."""
        try:
            report = await gc(
                self.db.backend,
                RetentionPolicy(archive_days=0.0),
                now_ms=command["archived_before_ms"],
            )
        except (StoreBusy, NotExecuted) as error:
            say("busy", op="drop", reason=str(error))
        else:
            say(
                "dropped",
                done=sum(
                    created.action == "drop" and created.outcome == "done"
                    for created in report.decisions
                ),
            )

    async def run_for_a_while(self, command: dict[str, Any]) -> None:
        """Run a lane that nobody runs otherwise."""
        lanes = LaneSettings(lease_s=self.settings.lease_s, timeout_s=60.0)
        say("met", trouble=UNPARKED)
        with anyio.move_on_after(command["s"]):
            await self.db.run_lane(command["lane"], self.think, settings=lanes)

    async def fill_pool(self, command: dict[str, Any]) -> None:
        """Have the application block all of its threads for a while."""

        async def use() -> None:
            await self.db.recover()
            await self.db.held()
            await self.db.status()
            session = await self.db.session("agent:main:soak:pool")
            await session.pin()  # or retention may end it right now
            await session.append({"role": "user", "content": "x" * 100_000})
            await session.context()
            await session.reset()

        if await fill_pool(command["s"], use):
            say("met", trouble=FULL_POOL)
        else:
            say("waits for the pool")

    async def set_channel(self, command: dict[str, Any]) -> None:
        self.settings.dead_channel = command["dead"]

    # -- the model, the summariser, the channel ----------------------------------------

    async def think(self, turn: Turn) -> Any:
        text = turn.message["content"]
        self.leave_something_behind()
        await self.take_its_time()
        say("turn", id=text.split(maxsplit=1)[0], kind=turn.kind, attempt=turn.attempt)
        context = await turn.session.context()
        if "!flaky" in text and turn.attempt == 1:
            raise RuntimeError("the script says !flaky")
        await self.pause(self.settings.slow_s if "!slow" in text else self.settings.model_s)
        if "!empty" in text:
            return Answer(incomplete="the script says !empty")
        if self.random.random() < 0.3:
            await turn.append(assistant(f"looking into {text[:40]}"))
            await self.pause(self.settings.model_s)
        if (
            context.tokens > self.settings.compact_at_tokens
            and turn.session.id not in self.compacting
        ):
            assert self.group is not None
            self.compacting.add(turn.session.id)
            self.group.start_soon(self.compact, turn.session)
        if self.comes(STRAY_HANDLER):
            await stray(self.random)
        if self.comes(WRONG_ANSWER):
            return self.random.choice(NO_ANSWERS)()
        return Answer(
            [assistant(f"an answer to {text}")],
            [(f"{channel_of(turn.session.id)}:{turn.session.id}", {"re": turn.inbox_no})],
        )

    def comes(self, trouble: str) -> bool:
        """Tell whether a trouble comes now, and say so."""
        comes = self.random.random() < self.settings.shares.get(trouble, 0.0)
        if comes:
            say("met", trouble=trouble)
        return comes

    async def compact(self, session: Session) -> None:
        kind = self.random.choices(list(SUMMARIES), list(SUMMARIES.values()))[0]
        timeout_s = self.settings.summary_s[1] / 4 if kind in ("timing out", "late") else 180.0
        job = session.compact(
            trigger="threshold", keep_recent_tokens=KEEP_TOKENS, timeout_s=timeout_s
        )
        try:
            async with job:
                say("compacting", kind=kind)
                await self.pause(self.settings.summary_s)
                if kind == "slow":
                    await self.pause(self.settings.slow_s)
                elif kind == "failing":
                    raise RuntimeError("the summariser failed")
                elif kind in ("timing out", "late"):
                    await anyio.sleep_forever()
                await job.commit("" if kind == "empty" else "They talked.")
        except CompactionTimeout:
            await self.finish_late(session, job.id, kind)
        except CompactionRefused as error:
            say("not compacted", reason=type(error).__name__)
        except RuntimeError as error:
            say("not compacted", reason=str(error))
        else:
            assert job.result is not None
            say("compacted", outcome=job.result.outcome, late=False)
        finally:
            self.compacting.discard(session.id)

    async def finish_late(self, session: Session, compaction_id: str, kind: str) -> None:
        if kind == "late":
            await self.pause(self.settings.slow_s)
            result = await self.db.commit_compaction(compaction_id, "They talked, it turns out.")
            say("compacted", outcome=result.outcome, late=True)
        else:
            say("not compacted", reason="timed out")

    async def deliver(self, reply: Reply) -> Any:
        if reply.channel == PIGEONS and self.settings.dead_channel:
            await self.fly_in_vain()
        if self.random.random() < 0.5 and self.comes(STRAY_SENDER):
            await stray(self.random)
        receipt = await super().deliver(reply)
        if "reply" in self.settings.broken and reply.outbox_no % 10 == 0:
            os.write(
                self.channel,
                (
                    json.dumps(
                        {"outbox_no": reply.outbox_no, "target": reply.target, "again": True}
                    )
                    + "\n"
                ).encode(),
            )
        if self.comes(STRAY_SENDER):
            await stray(self.random)
        return self.random.choice(NO_RECEIPTS)() if self.comes(WRONG_RECEIPT) else receipt

    async def fly_in_vain(self) -> None:
        """Give no answer, a refusal or an error, as a channel does that is down."""
        say("met", trouble=DEAD_CHANNEL)
        how = self.random.choice(["hangs", "refuses", "fails"])
        if how == "hangs":
            await self.pause(self.settings.slow_s)
        if how == "refuses":
            raise RefusedBySender("the pigeons do not fly")
        raise ConnectionError("no pigeon came back")

    async def resume(self, policy: ResumePolicy) -> None:
        """Resume interrupted messages, after somebody has come between."""
        seed, shares = self.random.getrandbits(32), self.settings.shares
        looked, done = await self.db.write("disturb", lambda tx: disturb(tx, seed, shares))
        if shares:
            say("disturbed", looked=looked, done=done)
        await super().resume(policy)

    # -- what goes on beside -----------------------------------------------------------

    async def care(self) -> None:
        """Give back what the other gateway held when it was killed."""
        while True:
            await anyio.sleep(self.settings.care_s)
            try:
                recovered = await self.db.recover()
            except (StoreBusy, NotExecuted) as error:
                say("busy", op="recover", reason=str(error))
                continue
            if recovered.instances:
                say(
                    "recovered",
                    instances=recovered.instances,
                    turns=recovered.turns,
                    replies=recovered.replies,
                )

    async def retain(self) -> None:
        settings = self.settings
        policy = RetentionPolicy(
            max_age_days=settings.max_age_s / DAY_S,
            idle_days=settings.idle_age_s / DAY_S,
            prune_days=settings.prune_age_s / DAY_S,
        )
        while True:
            await self.pause((0.5 * self.settings.retention_s, 1.5 * self.settings.retention_s))
            began = time.monotonic()
            try:
                report = await self.db.gc(policy)
            except (StoreBusy, NotExecuted) as error:
                say("busy", op="gc", reason=str(error))
                continue
            failed = [created.note for created in report.decisions if created.outcome == "failed"]
            took_s, pruned = time.monotonic() - began, sum(report.pruned.values())
            say("retained", done=report.count("done"), failed=failed, pruned=pruned, took_s=took_s)

    async def follow(self) -> None:
        last = 0
        async for event in self.db.events(f"soak {self.settings.name}"):
            if event.event_no <= last:
                say("event out of order", event_no=event.event_no, after=last)
            last = event.event_no

    async def pulse(self) -> None:
        while True:
            await anyio.sleep(self.settings.pulse_s)
            lags = self.lags_us.copy()
            self.lags_us.clear()
            slow, self.slow.found = self.slow.found, []
            writer = self.db.backend.stats()["writer"]
            say(
                "pulse",
                lags_us=lags,
                slow=slow,
                longest=self.slow.longest,
                held=self.slow.held,
                queue=writer["queue_items"],
                commits=writer["commits"],
                busy_waits=writer["busy_waits"],
                busy_timeouts=writer["busy_timeouts"],
                resets=writer["checkpoint"]["ok"],
                resets_blocked=writer["checkpoint"]["blocked"],
                reset_ms=writer["checkpoint"]["longest_ms"],
            )

    # -- wrong on purpose --------------------------------------------------------------

    def leave_something_behind(self) -> None:
        if "descriptors" in self.settings.broken:
            self.left_behind.append(os.open(os.devnull, os.O_RDONLY))
        if "threads" in self.settings.broken:
            thread = threading.Thread(target=threading.Event().wait, daemon=True)
            thread.start()
            self.left_behind.append(thread)
        if "memory" in self.settings.broken:
            self.left_behind.append(b"x" * LEFT_BEHIND_BYTES)

    async def take_its_time(self) -> None:
        self.turns += 1
        if self.turns % 10:
            return
        if "loop" in self.settings.broken:
            time.sleep(BLOCKS_S)  # noqa: ASYNC251  # that is what is wrong with it
        if "transaction" in self.settings.broken:
            await self.db.write("dawdle", lambda tx: time.sleep(BLOCKS_S))


def never_reset(checkpointer: Checkpointer, connection: object) -> bool:
    """Stand in for `Checkpointer.run_once` where checkpoints are broken."""
    checkpointer._not_before = checkpointer.clock() + 3600.0
    return False


def tell_operators(tx: Tx, inbox_no: int, session_no: int | None) -> int:
    """Stand in for `dead_letters.notify_dead` where senders are not told."""
    return events.emit(tx, "message_dead", "operator", "", session_no=session_no, inbox_no=inbox_no)


async def main(path: str, settings: SoakSettings) -> None:
    slow = Slow()
    slow.watch()
    if "checkpoints" in settings.broken:
        Checkpointer.run_once = never_reset  # type: ignore[method-assign]
    if "silence" in settings.broken:
        dead_letters.notify_dead = tell_operators
    say("started", pid=os.getpid(), host=socket.gethostname())
    async with sessiondb.open(
        path, program=f"soak {settings.name}", limits=Limits(wal_bytes_max=settings.wal_bytes_max)
    ) as db:
        await SoakGateway(db, settings, slow).run()
    say("stopped", unsigned=len(db.unsigned()))


if __name__ == "__main__":
    logging.basicConfig(
        stream=sys.stderr, level=logging.ERROR, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        settings = SoakSettings(**json.loads(sys.argv[2]))
        anyio.run(main, sys.argv[1], settings, backend=settings.loop)
    except Exception as error:
        say("failed", error=repr(error))
        os.write(2, "".join(traceback.format_exception(error)).encode())
        raise SystemExit(1) from error
