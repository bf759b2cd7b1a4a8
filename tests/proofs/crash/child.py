"""Processes to be killed: one is forked for each order.

It lives one scenario.

    python tests/proofs/crash/child.py

Orders (JSON lines, see `Order`) come on stdin. Events go to stdout.

This process itself never opens a database and has no threads. So a fork of it is as
good as a new process and costs 1 % of one. A child reports its acknowledgements line by
line, at once. The pipe's content survives it, so its reader may count on each line.
When a child has ended, the parent of all children reports how. No line of the child
comes after that.

A scenario may be run again whatever became of the run before: each of its steps can be
repeated, and running it to its end always leads to the same contents.
`proofs/crash/steps.py` says at which steps a child can be made to die.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio

import sessiondb
from sessiondb import InvalidInput, StoreBusy, process
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.limits import Limits
from sessiondb.maintenance import archive
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.models import Reply
from sessiondb.sqlite import transaction
from sessiondb.sqlite.transaction import Prepared
from tests.proofs.crash.breakage import break_build, spoke
from tests.proofs.crash.steps import Steps, install
from tests.support.gateway_child import assistant

# Beside those of gateway_child.py.
STATEMENTS = {"child.accepted": "SELECT count(*) AS n FROM inbox WHERE event_id GLOB :events"}
transaction.statements().update({name: Prepared(name, sql) for name, sql in STATEMENTS.items()})

PR_SET_PDEATHSIG = 1  # Linux's number
# Small, so that a scenario of a few dozen appends resets its WAL.
WAL_BYTES = 64 * 1024
PADDING = "and so on, " * 250
TALKS, MESSAGES = 3, 6
GATEWAY_TALKS, GATEWAY_MESSAGES = 3, 2
# How long a loop sleeps although nothing was committed: a process that dies commits nothing.
LOOK_AGAIN_S = 0.1


@dataclass
class Order:
    """What a child is to do, and where it is to end."""

    path: str
    scenario: str
    step: str = ""  # none: it lives to the end of the scenario
    nth: int = 1
    how: str = "SIGKILL"
    broken: str = ""  # a build that does not keep its promises, see crash_breakage.py
    prefix: str = "c"  # keeps apart what several children do in one database
    life: int = 0
    options: dict[str, Any] = field(default_factory=dict)


def say(saw: str, **fields: Any) -> None:
    """Tell the test, at once."""
    os.write(1, (json.dumps({"saw": saw, **fields}) + "\n").encode())
    spoke.set()


@dataclass
class Life:
    """What a scenario has at hand."""

    order: Order
    steps: Steps

    @property
    def folder(self) -> Path:
        return Path(self.order.path).parent

    def key(self, talk: int) -> str:
        """Return a conversation's key, as tests/support/gateway_process.py expects it."""
        return f"agent:main:fake:channel:{self.order.prefix}{talk}"

    def open(self) -> sessiondb.SessionDB:
        limits = Limits(
            wal_bytes_max=WAL_BYTES, busy_timeout_s=self.order.options.get("busy_timeout_s", 20.0)
        )
        return sessiondb.open(
            self.order.path, limits=limits, program=f"crash {self.order.scenario}"
        )


# -- scenarios -------------------------------------------------------------------------


async def create(life: Life) -> None:
    """Make a database, or find it made. Or bring an older one up to date."""
    async with life.open():
        say("opened")


async def talk(life: Life) -> None:
    """Append to several sessions at once. Compact, reset, branch and fork."""
    async with life.open() as db:
        await db.recover()
        async with anyio.create_task_group() as group:
            for number in range(TALKS):
                group.start_soon(_append_all, life, db, number)
        await _compact(life, db, 0)
        await _reset(life, db, 1)
        await _branch(life, db, 2)
        await _fork(life, db, 2)
    say("closed")


def talk_text(prefix: str, talk: int, number: int) -> str:
    return f"message {number} of {prefix}{talk} {PADDING}"


async def _append_all(life: Life, db: sessiondb.SessionDB, number: int) -> None:
    session = await db.session(life.key(number))
    for at in range(MESSAGES):
        text = talk_text(life.order.prefix, number, at)
        await session.append({"role": "user", "content": text}, idempotency_key=f"{number}:{at}")
        say("appended", key=life.key(number), text=text)


async def _reasons(session: sessiondb.Session) -> set[str]:
    return {epoch.reason for epoch in await session.epochs()}


async def _compact(life: Life, db: sessiondb.SessionDB, number: int) -> None:
    session = await db.session(life.key(number))
    if "compaction" not in await _reasons(session):
        async with session.compact(trigger="manual", keep_recent_tokens=20) as job:
            life.steps.arrive("compacting")
            result = await job.commit("They talked.")
        assert result.outcome == "committed", result
        say("moved", key=life.key(number), reason="compaction", epoch=result.epoch)


async def _reset(life: Life, db: sessiondb.SessionDB, number: int) -> None:
    session = await db.session(life.key(number))
    if "reset" not in await _reasons(session):
        say("moved", key=life.key(number), reason="reset", epoch=await session.reset())


async def _branch(life: Life, db: sessiondb.SessionDB, number: int) -> None:
    session = await db.session(life.key(number))
    if "branch" not in await _reasons(session):
        first = (await session.all_entries(limit=3))[1]
        say(
            "moved",
            key=life.key(number),
            reason="branch",
            epoch=await session.branch(first.entry_id),
        )


async def _fork(life: Life, db: sessiondb.SessionDB, number: int) -> None:
    session, fork_id = await db.session(life.key(number)), f"fork-of-{life.order.prefix}{number}"
    try:
        fork = await session.fork(session_id=fork_id)
    except InvalidInput:  # the id is taken: it was forked before
        fork = await db.session_by_id(fork_id)
    await fork.append({"role": "user", "content": "elsewhere"}, idempotency_key="elsewhere")
    say("forked", session=fork_id)


def gateway_text(prefix: str, talk: int, number: int) -> str:
    return f"message {number} of {prefix}{talk}"


async def gateway(life: Life) -> None:
    """Accept messages, answer them, send the answers, resume what was cut off.

    Until nothing is open.
    """
    async with life.open() as db:
        recovered = await db.recover()
        say(
            "recovered",
            turns=recovered.turns,
            replies=recovered.replies,
            compactions=recovered.compactions,
        )
        await _resume(db)
        channel = os.open(life.folder / "channel.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        lanes = LaneSettings(lease_s=life.order.options.get("lease_s", 20.0), timeout_s=60.0)

        async def think(turn: Turn) -> Answer:
            life.steps.arrive("handler began")
            if turn.turn_no % 2:
                await turn.append(assistant(f"looking into {turn.message['content']}"))
            if life.order.options.get("dawdle"):
                life.steps.turns += 1
                await db.write("dawdle", lambda tx: None)
                life.steps.turns -= 1
            life.steps.arrive("handler ends")
            reply = {"re": turn.inbox_no, "text": turn.message["content"]}
            return Answer(
                [assistant(f"an answer to {turn.message['content']}")], [(turn.session.id, reply)]
            )

        async def deliver(reply: Reply) -> str:
            line = {
                "outbox_no": reply.outbox_no,
                "target": reply.target,
                **json.loads(reply.payload),
            }
            # Of each talk the first reply, which another one follows. The writer may be slower
            # than one write's caller, and not than twenty. The call cannot be taken back.
            if life.order.options.get("dawdle in a call") and line["text"].startswith("message 0"):
                life.steps.calls += 1
                with anyio.CancelScope(shield=True):
                    for _ in range(20):
                        await db.write("dawdle", lambda tx: None)
                life.steps.calls -= 1
            life.steps.arrive("before the channel")
            os.write(channel, (json.dumps(line) + "\n").encode())
            life.steps.arrive("after the channel")
            return f"receipt {reply.outbox_no}"

        async with anyio.create_task_group() as group:
            for lane in ("main", "resume"):
                group.start_soon(_run_lane, db, lane, think, lanes)
            group.start_soon(partial(db.run_outbox, deliver, lease_s=lanes.lease_s))
            group.start_soon(_keep_resuming, db)
            if life.order.options.get("accept", True):
                for talk_number in range(GATEWAY_TALKS):
                    group.start_soon(_accept_all, life, db, talk_number)
            await _settle(life, db)
            group.cancel_scope.cancel()
    say("closed")


async def _run_lane(
    db: sessiondb.SessionDB, lane: str, handler: Any, settings: LaneSettings
) -> None:
    await db.run_lane(lane, handler, settings=settings)


async def _accept_all(life: Life, db: sessiondb.SessionDB, number: int) -> None:
    for at in range(GATEWAY_MESSAGES):
        text = gateway_text(life.order.prefix, number, at)
        event_id = f"{life.order.prefix}{number}:{at + 1}"
        receipt = await db.accept(
            life.key(number), {"role": "user", "content": text}, channel="fake", event_id=event_id
        )
        say("accepted", id=event_id, talk=f"{life.order.prefix}{number}", inbox_no=receipt.inbox_no)


# Nothing is too old: a life may have a clock that is days ahead.
POLICY = ResumePolicy(
    breaker_unclean_starts=1_000_000,
    budget_per_start=1_000,
    max_concurrent_resumes=2,
    max_age_hours=0,
)


async def _keep_resuming(db: sessiondb.SessionDB) -> None:
    """Give back what others held when they died, and resume.

    Writes only when there is something to do.
    """
    while True:
        seen = db.backend.change_count
        await db.recover()
        await _resume(db)
        await db.backend.wait_change(seen, LOOK_AGAIN_S)


async def _resume(db: sessiondb.SessionDB) -> None:
    if any(decision.action in ("resume", "skip") for decision in await db.plan_resumes(POLICY)):
        await db.resume(POLICY)


async def _settle(life: Life, db: sessiondb.SessionDB) -> None:
    """Wait until all messages of this process are accepted and settled."""
    expected = GATEWAY_TALKS * GATEWAY_MESSAGES if life.order.options.get("accept", True) else 0
    events = f"{life.order.prefix}*"
    while True:
        seen = db.backend.change_count
        accepted, waiting, unsent = await db.read(
            "settle",
            lambda tx: (
                tx.one("child.accepted", events=events).n,
                tx.first("child.inbox_open"),
                tx.first("child.outbox_open"),
            ),
        )
        # Also what this process believes to be working on, whatever has become of it meanwhile.
        if accepted >= expected and waiting is None and unsent is None and not db._loops.running:
            return
        await db.backend.wait_change(seen, LOOK_AGAIN_S)


async def hold(life: Life) -> None:
    """Hold one of everything, then wait to be killed at step "holding".

    Everything: turns, a compaction, a reply that is being sent.
    """
    async with life.open() as db:
        await db.set_lane("main", concurrency=GATEWAY_TALKS, priority=0)
        holding = anyio.Event()
        turns: list[int] = []

        async def think(turn: Turn) -> Answer:
            if turn.message["content"] == gateway_text(life.order.prefix, 0, 0):
                return Answer(
                    [assistant("yes")], [(turn.session.id, {"re": turn.inbox_no, "text": "yes"})]
                )
            turns.append(turn.turn_no)
            await anyio.sleep_forever()
            raise AssertionError("it sleeps for ever")

        async def deliver(reply: Reply) -> str:
            holding.set()
            await anyio.sleep_forever()
            return ""

        lanes = LaneSettings(lease_s=60.0)
        async with anyio.create_task_group() as group:
            group.start_soon(_run_lane, db, "main", think, lanes)
            group.start_soon(db.run_outbox, deliver)
            for number in range(GATEWAY_TALKS):
                await _accept_all(life, db, number)
            await holding.wait()
            session = await db.session(life.key(0))
            job = session.compact(trigger="manual", keep_recent_tokens=0)
            await job.__aenter__()
            say("compacting", job=job.id)
            while len(turns) < GATEWAY_TALKS:
                await db.backend.wait_change(db.backend.change_count, LOOK_AGAIN_S)
            say("holding", turns=turns, pid=os.getpid())
            life.steps.arrive("holding")
            await anyio.sleep_forever()


async def recover(life: Life) -> None:
    """Start up over what a dead process left: give it back, and resume."""
    async with life.open() as db:
        recovered = await db.recover()
        say(
            "recovered",
            turns=recovered.turns,
            replies=recovered.replies,
            compactions=recovered.compactions,
        )
        decisions = await db.resume(POLICY)
        say("resumed", messages=[decision.inbox_no for decision in decisions])
    say("closed")


async def maintain(life: Life) -> None:
    """Import, back up, export, archive, restore, delete, give pages back."""
    options = life.order.options
    async with life.open() as db:
        await db.recover()
        report = await db.import_path(options["import"])
        assert report.ok, report
        say("imported", entries=sum(file.entries for file in report.files))
        await _delete(db, options["trash"])
        say("deleted", session=options["trash"])
        copy = life.folder / f"copy-{life.order.life}.db"
        await insist(lambda: db.backend.backup(copy))  # type: ignore[attr-defined]
        say("backed up", path=str(copy))
        exported = await db.export(life.folder / "out", overwrite=True)
        # What is archived is reported as such. Whatever is exported is there whole.
        wrong = [
            file
            for file in exported.files
            if file.status not in ("written", "unchanged") and "is archived" not in file.note
        ]
        assert not wrong, wrong
        say("exported", files=len(exported.files))
        await insist(lambda: _archive_all(db))
        say("archived", sessions=options["old"])
        await _restore(db, options["old"][0])
        say("restored", session=options["old"][0])
        await insist(lambda: db.backend.incremental_vacuum(1_000))
    say("closed")


async def insist(step: Callable[[], Awaitable[object]]) -> None:
    """Take a step of maintenance.

    When somebody else writes just then it is maintenance that waits.
    """
    while True:
        try:
            await step()
            return
        except StoreBusy as busy:
            await anyio.sleep(min(busy.retry_after_ms, 50) / 1000)


async def _archive_all(db: sessiondb.SessionDB) -> None:
    report = await db.gc(RetentionPolicy(max_sessions=2, idle_days=0, prune_days=0))
    assert report.ok, report


async def _restore(db: sessiondb.SessionDB, session_id: str) -> None:
    """Restore a session from its archive, unless an earlier run did.

    Then it can be read.
    """
    try:
        await db.unarchive(session_id)
    except InvalidInput as error:
        if "is not archived" not in str(error):
            raise
    assert await (await db.session_by_id(session_id)).entries(limit=1)


async def _delete(db: sessiondb.SessionDB, session_id: str) -> None:
    """Delete a session for good, without an archive. Go on with it when that was begun."""
    session = await db.session_by_id(session_id)
    archive_no, held = await archive.begin(
        db.backend, session.ref.session_no, "nobody wants it", keep_archive=False
    )
    if archive_no is None:
        row = await db.read(
            "trash", lambda tx: tx.first("archive.of_session", session_no=session.ref.session_no)
        )
        assert row is not None, held
        archive_no = row.archive_no
    await archive.advance(db.backend, archive_no)


SCENARIOS: dict[str, Callable[[Life], Awaitable[None]]] = {
    "create": create,
    "talk": talk,
    "gateway": gateway,
    "hold": hold,
    "recover": recover,
    "maintain": maintain,
}


# -- processes -------------------------------------------------------------------------


def set_clock(offset_s: float) -> None:
    """Set this process's wall clock forwards or backwards.

    What happened before was told by another clock. The library reads the wall clock by its
    number, the coarse one as well. All that a process waits for goes by the monotonic clock.
    """
    offset_ns = round(offset_s * 1_000_000_000)
    real, real_ns, real_clock_ns = time.time, time.time_ns, time.clock_gettime_ns
    time.time = lambda: real() + offset_s
    time.time_ns = lambda: real_ns() + offset_ns
    time.clock_gettime_ns = lambda number: (
        real_clock_ns(number) + (0 if number == time.CLOCK_MONOTONIC else offset_ns)
    )


def set_boot(boot_id: str) -> None:
    """Have this process run after another start of the machine. Nothing for no name."""
    if boot_id:
        process.boot_id = lambda: boot_id  # type: ignore[assignment]


def live(order: Order) -> int:
    """Be a child: live a scenario, and die where the order says so.

    Returns the exit code of one that survives.
    """
    steps = Steps(order.step, order.nth, order.how)
    try:
        install(steps)
        break_build(order.broken)
        set_clock(order.options.get("clock_s", 0.0))
        set_boot(order.options.get("boot", ""))
        anyio.run(SCENARIOS[order.scenario], Life(order, steps))
    except Exception as error:  # noqa: BLE001  # the test is told, whatever it is
        # In one write: whoever kills it now must not see half a reason.
        say("failed", error=repr(error), trace="".join(traceback.format_exception(error))[-3_000:])
        return 1
    say("steps", counts=steps.counts)
    return 0


def die_with_parent() -> None:
    """Leave nobody behind, frozen or busy, when the test is itself killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Fork a child for each order, and say how it ended."""
    die_with_parent()
    for line in sys.stdin:
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            die_with_parent()
            os._exit(live(order))
        say("born", pid=pid)
        while True:
            _, status = os.waitpid(pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                say("stopped", pid=pid)
                continue
            break
        code = os.waitstatus_to_exitcode(status)
        say("ended", code=code, signal=signal.Signals(-code).name if code < 0 else "")


if __name__ == "__main__":
    main()
