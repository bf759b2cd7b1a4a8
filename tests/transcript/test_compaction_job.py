"""A compaction job, however its block is left: cancelled, out of time, by an error, or in order.

`tests/support/cancellation.py` says how an operation is cancelled at each of its waits. After
each end no job is running, another connection gets the write lock at once, the next append takes
the ordinary path (one commit, no refusal, no wait), another compaction can begin, and the
caller's outcome is the database's.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import clock
from sessiondb.errors import (
    CompactionRunning,
    CompactionTimeout,
    InvalidInput,
    outcome_of,
)
from sessiondb.transcript.compaction import Summary
from tests.support.cancellation import (
    STEPS_MAX,
    WHERE,
    Gate,
    Report,
    add_turns,
    cancelled_at,
    nothing_is_left,
    opened,
    sorts,
)
from tests.support.compaction import begin, jobs, say, seen, talk
from tests.support.core import reply, user
from tests.support.engine import PATIENCE_S, other_process

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "options",
    [
        {"keep_recent_tokens": -1},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": math.inf},
        {"timeout_s": math.nan},
    ],
)
async def test_impossible_options_are_refused(
    db: sessiondb.SessionDB, options: dict[str, Any]
) -> None:
    session = await talk(db)
    with pytest.raises(InvalidInput):
        session.compact(**options)
    session.compact(keep_recent_tokens=0, timeout_s=0.5)


BEGIN = """
import sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1], guard=False, program="victim") as db:
        session = await db.session_by_id(sys.argv[2])
        async with session.compact(trigger="threshold", keep_recent_tokens=50) as job:
            print(job.id, flush=True)
            await anyio.sleep_forever()
anyio.run(main)
"""


async def test_only_a_killed_process_loses_its_job(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    with other_process(BEGIN, db.path, session.id) as child:
        assert child.stdout is not None
        victims = child.stdout.readline().strip()
        with pytest.raises(CompactionRunning, match=f"victim, pid {child.pid} "):
            await begin(session)
        child.send_signal(signal.SIGKILL)
        child.wait()
    await say(session, "q4", "a4")
    mine = await begin(session, 100)
    assert [state for state, _, _ in await jobs(session)] == ["running", "abandoned"]
    assert (await jobs(session))[1][2] == f"its process (pid {child.pid}) died"
    # Both summaries arrive after all, the victim's through another process. Nothing is lost, and
    # the cut moves forward.
    assert (await db.commit_compaction(mine, "mine")).outcome == "committed"
    late = await db.commit_compaction(victims, "victim's")
    assert late.outcome == "superseded"
    assert await seen(session) == ["<mine>", "q3", "a3", "q4", "a4"]


async def test_a_job_of_a_killed_process_can_still_be_committed(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    with other_process(BEGIN, db.path, session.id) as child:
        assert child.stdout is not None
        victims = child.stdout.readline().strip()
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (await db.commit_compaction(victims, "victim's")).outcome == "committed"
    assert await seen(session) == ["<victim's>", "q3", "a3"]


async def test_a_job_reads_the_same_span_after_later_changes(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    async with session.compact(keep_recent_tokens=100) as job:
        before = job.as_json()
        await say(session, "q4")
        await session.branch((await session.entries(limit=1))[0].entry_id)
        await say(session, "elsewhere")
        await session.reset()
        await job._read_span(job._begun)
        assert job.as_json() == before
        await job.commit("S1")


async def test_a_summary_that_is_no_text_changes_nothing(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    compaction_id = await begin(session)
    with pytest.raises(InvalidInput, match=r"summary is .* text"):
        await db.commit_compaction(compaction_id, None)  # type: ignore[arg-type]
    assert [state for state, _, _ in await jobs(session)] == ["running"]


@pytest.mark.parametrize(
    ("text", "details"), [("s" * 2_000_000, None), ("short", {"files": ["a"] * 100_000})]
)
async def test_a_large_summary_is_encoded_off_the_event_loop(
    db: sessiondb.SessionDB, monkeypatch: pytest.MonkeyPatch, text: str, details: object
) -> None:
    encoded_in: list[int] = []
    of = Summary.of

    def noting(text: str, details: object = None, *, from_hook: bool | None = None) -> Summary:
        encoded_in.append(threading.get_ident())
        return of(text, details, from_hook=from_hook)

    monkeypatch.setattr(Summary, "of", noting)
    session = await talk(db)
    job_id = await begin(session)
    assert (await db.commit_compaction(job_id, "short")).outcome == "committed"
    assert encoded_in == [threading.get_ident()], "a short one is not worth the way"
    assert (await db.commit_compaction(job_id, text, details=details)).outcome == "committed", (
        "the same answer again"
    )
    assert encoded_in[1] != threading.get_ident()


async def test_a_deadline_does_not_cancel_a_block_after_its_commit(
    tmp_db: Path,
) -> None:
    reached: list[str] = []
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        for _ in range(3):
            await session.append(user("question " + "x" * 80))
            await session.append(reply("answer " + "x" * 80))
        async with session.compact(keep_recent_tokens=10) as job:
            deadline = job._deadline.at
            with pytest.raises(sessiondb.InvalidInput):
                await job.commit(None)  # type: ignore[arg-type]
            assert job._deadline.at == deadline, "without a commit it holds"
            job._deadline.move(clock.monotonic() + 0.02)
            assert (await job.commit("they talked")).outcome == "committed"
            await anyio.sleep(0.05)
            reached.append("the end")
    assert reached == ["the end"]


KEEP = 10


# Long enough for a deadline to be noticed while it "thinks".
SUMMARISER_WAITS = 8


@dataclass
class Compaction:
    """A compaction as a gateway runs it, with its result and its error."""

    session: sessiondb.Session
    job: sessiondb.CompactionJob | None = None
    result: sessiondb.CompactionResult | None = None
    commit_error: BaseException | None = None

    async def run(self) -> None:
        async with self.session.compact(keep_recent_tokens=KEEP) as self.job:
            for _ in range(SUMMARISER_WAITS):
                await anyio.lowlevel.checkpoint()
            try:
                self.result = await self.job.commit("summary")
            except BaseException as error:
                self.commit_error = error
                raise


async def agrees_with_the_row(
    db: sessiondb.SessionDB, report: Report, run: Compaction, note: str
) -> str | None:
    """Compare the caller's report with the job's row. Return the job's state."""
    jobs = [job async for job in db.compactions(run.session)]
    assert len(jobs) <= 1, note
    if not jobs:
        assert run.result is None, note
        assert report.error is not None, note
        return None
    state = jobs[0].state
    context = await run.session.context()
    assert (context.messages[0]["role"] == "compactionSummary") == (state == "committed"), note
    if run.result is not None:
        assert run.result.outcome == state == "committed", note
    elif run.commit_error is not None:
        assert outcome_of(run.commit_error) in ("committed", "not_executed", None), note
        assert (outcome_of(run.commit_error) == "committed") == (state == "committed"), note
    else:
        assert state in ("failed", "cancelled", "expired"), note
    assert (await run.session.info()).epoch == (state == "committed"), note
    return state


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERE)
async def test_a_compaction_cancelled_at_any_wait_tells_the_truth(
    tmp_db: Path, gate: Gate, anyio_backend_name: str, where: str
) -> None:
    async with opened(tmp_db) as db:
        for name, cancel, times in sorts(anyio_backend_name):
            states: set[str | None] = set()
            for k in range(STEPS_MAX):
                session = await db.create_session()
                await add_turns(session)
                run = Compaction(session)
                report = await cancelled_at(k, where, run.run, cancel, gate, db, times=times)
                note = f"{name}, {where}, wait {k}: {report} {run}"
                states.add(await agrees_with_the_row(db, report, run, note))
                await nothing_is_left(db, session)
                if not report.was_reached:
                    assert report.error is None, note
                    assert run.result is not None, note
                    assert k >= SUMMARISER_WAITS + 3, (
                        "begin, span and commit wait at least once each"
                    )
                    break
            else:
                pytest.fail("the compaction never ended")
            # The sweep saw each of the ends, or it did not sweep.
            assert {"cancelled", "committed"} <= states, (name, states)
            if where == "queued":
                assert None in states, (
                    "cancelled before its begin was executed, a compaction leaves no row at all"
                )


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERE)
async def test_a_deadline_that_passes_at_any_wait_tells_the_truth(
    tmp_db: Path, gate: Gate, where: str
) -> None:
    """Move the deadline into the past at the k-th wait: summarising, committing, giving up."""
    states: set[str | None] = set()
    async with opened(tmp_db) as db:
        for k in range(STEPS_MAX):
            session = await db.create_session()
            await add_turns(session)
            run = Compaction(session)

            def pass_deadline(scope: anyio.CancelScope, task: Any, run: Compaction = run) -> None:
                if run.job is not None:
                    run.job._deadline.move(clock.monotonic() - 1)

            report = await cancelled_at(k, where, run.run, pass_deadline, gate, db)
            note = f"{where}, wait {k}: {report} {run}"
            state = await agrees_with_the_row(db, report, run, note)
            states.add(state)
            if state == "expired":
                assert isinstance(report.error, CompactionTimeout), note
                assert isinstance(report.error, TimeoutError), note
            else:
                assert state == "committed", note
            if report.error is not None:
                assert run.job is not None
                late = await db.commit_compaction(run.job.id, "late but not lost")
                assert (late.outcome, late.late) == ("committed", True), note
            await nothing_is_left(db, session)
            if not report.was_reached:
                break
        else:
            pytest.fail("the compaction never ended")
    assert states == {"expired", "committed"}


async def test_the_deadline_ends_a_summariser_that_never_answers(tmp_db: Path) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await add_turns(session)
        with pytest.raises(CompactionTimeout) as timeout:
            async with session.compact(keep_recent_tokens=KEEP, timeout_s=0.02):
                await anyio.sleep_forever()
        assert isinstance(timeout.value, TimeoutError)
        assert [job.state async for job in db.compactions(session)] == ["expired"]
        late = await db.commit_compaction(timeout.value.compaction_id, "at last")
        assert (late.outcome, late.late, late.epoch) == ("committed", True, 1)
        await nothing_is_left(db, session)


async def test_an_outer_cancellation_is_not_taken_for_the_deadline(
    tmp_db: Path,
) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await add_turns(session)
        with anyio.CancelScope() as scope:
            async with session.compact(keep_recent_tokens=KEEP):
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert [(job.state, job.reason) async for job in db.compactions(session)] == [
            ("cancelled", "its block was cancelled")
        ]
        await nothing_is_left(db, session)


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt and SystemExit, which would end the test runner."""


@pytest.mark.parametrize(
    "error",
    [ValueError("the model said no"), Interrupt("ctrl-c")],
    ids=lambda error: type(error).__name__,
)
async def test_an_exception_in_the_block_fails_the_job(tmp_db: Path, error: BaseException) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await add_turns(session)
        with pytest.raises(type(error)) as raised:
            async with session.compact(keep_recent_tokens=KEEP):
                raise error
        assert raised.value is error
        assert [(job.state, job.reason) async for job in db.compactions(session)] == [
            ("failed", f"{type(error).__name__}: {error}")
        ]
        await nothing_is_left(db, session)


async def test_an_exception_after_the_commit_changes_nothing(tmp_db: Path) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await add_turns(session)
        with pytest.raises(ValueError, match="too late"):  # noqa: PT012  of the whole block
            async with session.compact(keep_recent_tokens=KEEP) as job:
                await job.commit("summary")
                raise ValueError("too late to matter")
        assert [job.state async for job in db.compactions(session)] == ["committed"]
        await nothing_is_left(db, session)


async def test_a_block_without_a_commit_fails_the_job(tmp_db: Path) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await add_turns(session)
        async with session.compact(keep_recent_tokens=KEEP) as job:
            pass
        assert [(job.state, job.reason) async for job in db.compactions(session)] == [
            ("failed", "its block was left without a commit")
        ]
        assert (await db.commit_compaction(job.id, "after all")).late
        await nothing_is_left(db, session)


async def test_a_job_cancelled_with_the_whole_group_is_given_up(tmp_db: Path) -> None:
    """A neighbour that fails in its task group cancels a summariser: most jobs end so."""
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await add_turns(session)
        begun = anyio.Event()

        async def compact() -> None:
            async with session.compact(keep_recent_tokens=KEEP):
                begun.set()
                await anyio.sleep_forever()

        with pytest.raises(BaseExceptionGroup) as group:  # noqa: PT012  of the whole block
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(compact)
                await begun.wait()
                raise ValueError("neighbour")
        assert group.group_contains(ValueError)
        assert [job.state async for job in db.compactions(session)] == ["cancelled"]
        await nothing_is_left(db, session)


def sync_talk(session: sessiondb.sync.Session) -> None:
    for turn in range(3):
        session.append(user(f"question {turn} " + "x" * 80))
        session.append(reply(f"answer {turn} " + "x" * 80))


def sync_jobs(
    db: sessiondb.sync.SessionDB, session: sessiondb.sync.Session
) -> list[tuple[str, str | None]]:
    return [(job.state, job.reason) for job in db.compactions(session)]


def nothing_is_left_in_sync(db: sessiondb.sync.SessionDB, session: sessiondb.sync.Session) -> None:
    assert [state for state, _ in sync_jobs(db, session) if state == "running"] == []
    assert session.append(user("next")).duplicate is False
    session.append(reply("and its answer"))
    with session.compact(keep_recent_tokens=0) as job:
        assert job.commit("the end").outcome == "committed"


@pytest.mark.parametrize(
    "error",
    [ValueError("the model said no"), KeyboardInterrupt(), Interrupt("exit")],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_in_a_synchronous_block_fails_the_job(
    tmp_db: Path, error: BaseException
) -> None:
    with sessiondb.sync.open(tmp_db, guard=False) as db:
        session = db.session("agent:main:test:channel:1")
        sync_talk(session)
        with pytest.raises(type(error)) as raised, session.compact(keep_recent_tokens=KEEP):
            raise error
        assert raised.value is error
        assert sync_jobs(db, session) == [("failed", f"{type(error).__name__}: {error}")]
        nothing_is_left_in_sync(db, session)


def test_a_synchronous_block_without_a_commit_fails_the_job(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db, guard=False) as db:
        session = db.session("agent:main:test:channel:1")
        sync_talk(session)
        with session.compact(keep_recent_tokens=KEEP) as job:
            pass
        assert sync_jobs(db, session) == [("failed", "its block was left without a commit")]
        assert db.commit_compaction(job.id, "after all").late
        nothing_is_left_in_sync(db, session)


def until_in_sync(condition: Callable[[], bool]) -> None:
    patience = threading.Event()
    for _ in range(int(PATIENCE_S * 200)):
        if condition():
            return
        patience.wait(0.005)
    raise AssertionError("it never came true")


def test_the_deadline_ends_a_job_inside_its_synchronous_block(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db, guard=False) as db:
        session = db.session("agent:main:test:channel:1")
        sync_talk(session)
        with (
            pytest.raises(CompactionTimeout),
            session.compact(keep_recent_tokens=KEEP, timeout_s=0.02) as job,
        ):
            until_in_sync(lambda: sync_jobs(db, session)[0][0] == "expired")
        late = db.commit_compaction(job.id, "at last")
        assert (late.outcome, late.late) == ("committed", True)
        nothing_is_left_in_sync(db, session)


def test_a_synchronous_commit_after_the_deadline_is_late(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db, guard=False) as db:
        session = db.session("agent:main:test:channel:1")
        sync_talk(session)
        with session.compact(keep_recent_tokens=KEEP, timeout_s=0.02) as job:
            until_in_sync(lambda: sync_jobs(db, session)[0][0] == "expired")
            result = job.commit("at last")
        assert (result.outcome, result.late, result.epoch) == ("committed", True, 1)
        nothing_is_left_in_sync(db, session)
