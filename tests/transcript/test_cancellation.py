"""Cancelled at every await point, append and compact leave nothing behind, and say what became of the write.

An operation is driven through `Steps`, which counts the places where it waits. For k = 0, 1, 2, ... it is cancelled at
its k-th wait, until it ends without having got that far. Where a wait is for the writer, what the writer has done by then
decides what is true, so each wait is tried with the writer held in each of three places (`WHERE`): before it takes the
request, before COMMIT, and after COMMIT but before anybody was told. Cancelled how: by a cancel scope (asyncio and
trio), by asyncio's own `task.cancel()`, by the same three times in a row, and by the job's deadline.

Afterwards, each time: no job is running, another connection gets the write lock at once, the next append takes the
ordinary path (one commit, nothing refused, nothing waited for), another compaction can begin, and what the caller was
told is what the database says.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import apsw
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.errors import CompactionTimeout, NotExecuted, outcome_of
from sessiondb.sqlite.writer import Writer
from tests.support.core import reply, user
from tests.support.engine import PATIENCE_S, until

pytestmark = pytest.mark.anyio

WHERE = ("queued", "begun", "done")
STEPS_MAX = 100
KEEP = 10
# Long enough for a deadline to be noticed while it "thinks".
SUMMARISER_WAITS = 8


class Gate:
    """Holds the writer where a test wants it: before it takes a request, or before it commits."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.where = ""
        self.opened = threading.Event()
        self.opened.set()
        self.reached = threading.Event()
        begin, commit = Writer._begin, Writer._commit

        def held_begin(writer: Writer, queue: Any) -> Any:
            if writer._queue:
                self.stop("queued")
            return begin(writer, queue)

        def held_commit(writer: Writer, connection: Any, batch: Any) -> None:
            if batch.succeeded:
                self.stop("begun")
            commit(writer, connection, batch)

        patch.setattr(Writer, "_begin", held_begin)
        patch.setattr(Writer, "_commit", held_commit)

    def stop(self, where: str) -> None:
        if where == self.where and not self.opened.is_set():
            self.reached.set()
            assert self.opened.wait(PATIENCE_S), "the test never opened the gate"

    def close(self, where: str) -> None:
        self.where = where
        self.reached.clear()
        self.opened.clear()

    def open(self) -> None:
        self.opened.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


class Steps:
    """An awaitable that runs a coroutine and tells at which of its waits it is.

    `on_wait(n)` is called before the n-th wait, `on_resume()` after each.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[Any]],
        on_wait: Callable[[int], None],
        on_resume: Callable[[], None],
    ) -> None:
        self.make, self.on_wait, self.on_resume = make, on_wait, on_resume
        self.count = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self.make().__await__()
        send: Callable[[], Any] = lambda: inner.send(None)  # noqa: E731  replaced by each resumption
        while True:
            try:
                waits_for = send()
            except StopIteration as stop:
                return stop.value
            self.on_wait(self.count)
            self.count += 1
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001  handed to the coroutine, which decides
                send = _thrower(inner, error)
            else:
                send = _sender(inner, value)
            self.on_resume()


def _thrower(inner: Generator[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: inner.throw(error)


def _sender(inner: Generator[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: inner.send(value)


@dataclass
class Told:
    """What the caller of a cancelled operation learnt."""

    result: Any = None
    error: BaseException | None = None
    was_reached: bool = False
    """False: the operation ended before its k-th wait."""

    @property
    def outcome(self) -> str | None:
        return outcome_of(self.error) if self.error is not None else "committed"


Cancel = Callable[[anyio.CancelScope, Any], None]


def by_scope(scope: anyio.CancelScope, task: Any) -> None:
    scope.cancel()


def by_task(scope: anyio.CancelScope, task: asyncio.Task[Any]) -> None:
    task.cancel()


async def cancelled_at(
    k: int,
    where: str,
    operation: Callable[[], Awaitable[Any]],
    cancel: Cancel,
    gate: Gate,
    db: sessiondb.SessionDB,
    *,
    times: int = 1,
) -> Told:
    """Run an operation, cancel it at its k-th wait with the writer held there, and return what it was told."""
    report = Told()
    at_wait = anyio.Event()
    ended = anyio.Event()
    scope = anyio.CancelScope()
    tasks: list[Any] = []
    waits = 0

    def on_wait(n: int) -> None:
        nonlocal waits
        waits = n + 1
        if n < k:
            gate.open()
        elif n == k:
            report.was_reached = True
            at_wait.set()

    def on_resume() -> None:
        if waits <= k:
            gate.close(where)  # before the next request is made

    async def run() -> None:
        if cancel is by_task:
            tasks.append(asyncio.current_task())
        try:
            with scope:
                gate.close(where)
                try:
                    report.result = await Steps(operation, on_wait, on_resume)
                except BaseException as error:
                    report.error = error
                    raise
        except BaseException as error:  # noqa: BLE001  it is what is examined; a scope's own cancellation ends in the scope
            report.error = error
        finally:
            gate.open()
            at_wait.set()
            ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await at_wait.wait()
        if report.was_reached:
            _hold_until(where, gate, db)
            for _ in range(times):
                cancel(scope, tasks[0] if tasks else None)
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
            gate.open()
        with anyio.fail_after(PATIENCE_S):
            await ended.wait()
    return report


def _hold_until(where: str, gate: Gate, db: sessiondb.SessionDB) -> None:
    """Let the writer get where the test wants it, while the event loop (this thread) is kept from hearing about it."""
    writer: Writer = db.backend._parts.writer  # type: ignore[attr-defined]
    if where == "done":
        gate.open()
    patience = threading.Event()
    for _ in range(int(PATIENCE_S * 1000)):
        if writer._idle or gate.reached.is_set():
            return
        patience.wait(0.001)
    raise AssertionError("the writer neither stopped at the gate nor came to rest")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[sessiondb.SessionDB]:
    async with sessiondb.open(path, guard=False) as db:
        yield db


async def talk(session: sessiondb.Session, turns: int = 3) -> None:
    for turn in range(turns):
        await session.append(user(f"question {turn} " + "x" * 80))
        await session.append(reply(f"answer {turn} " + "x" * 80))


async def nothing_is_left(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    """No running job, no open transaction, no lock; the next append and the next compaction go the ordinary way."""
    writer: Writer = db.backend._parts.writer  # type: ignore[attr-defined]
    await until(lambda: writer._idle)
    assert [job.state async for job in db.compactions(session) if job.state == "running"] == []
    with closing(
        apsw.Connection(db.path)
    ) as other:  # it does not wait: a lock that is held is an error
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    before = writer.snapshot()
    assert before["queue_items"] == before["queue_bytes"] == 0
    await session.append(user("next"))
    after = writer.snapshot()
    assert after["commits"] == before["commits"] + 1
    for counter in (
        "busy_waits",
        "busy_timeouts",
        "requests_refused",
        "requests_expired",
        "rollbacks",
        "reopened",
    ):
        assert after[counter] == before[counter], counter
    await session.append(reply("and its answer"))
    async with session.compact(keep_recent_tokens=0) as job:
        assert (await job.commit("the end")).outcome == "committed"


Sort = tuple[str, Cancel, int]


def sorts(loop: str) -> list[Sort]:
    """How something is cancelled: name, how, how many times."""
    found: list[Sort] = [("scope", by_scope, 1)]
    if loop == "asyncio":
        found += [("task", by_task, 1), ("task, three times", by_task, 3)]
    return found


# -- append ----------------------------------------------------------------------------


@pytest.mark.parametrize("where", WHERE)
async def test_an_append_cancelled_at_any_wait_leaves_nothing_and_tells_the_truth(
    tmp_db: Path, gate: Gate, anyio_backend_name: str, where: str
) -> None:
    outcomes: set[str | None] = set()
    async with opened(tmp_db) as db:
        for name, cancel, times in sorts(anyio_backend_name):
            for k in range(STEPS_MAX):
                session = await db.create_session()
                report = await cancelled_at(
                    k,
                    where,
                    lambda s=session: s.append(user("hello")),
                    cancel,
                    gate,
                    db,
                    times=times,
                )
                arrived = [entry.role for entry in await session.entries()]
                note = f"{name}, {where}, wait {k}: {report}"
                if report.outcome == "committed":
                    assert arrived == ["user"], note
                else:
                    assert report.outcome in ("not_executed", None), note
                    assert arrived == [], note
                await nothing_is_left(db, session)
                if not report.was_reached:
                    assert report.error is None
                    assert k > 0, "an append waits at least once"
                    break
                outcomes.add(f"{name}: {report.outcome}")
            else:
                pytest.fail("the append never ended")
    asynchronous = (
        ["task: committed", "task, three times: committed"]
        if anyio_backend_name == "asyncio"
        else []
    )
    if where == "queued":
        assert "scope: not_executed" in outcomes
    else:
        assert outcomes.issuperset(["scope: committed", *asynchronous])


@pytest.mark.parametrize("where", ["queued", "begun"])
async def test_an_append_whose_time_is_up_tells_the_truth(
    tmp_db: Path, gate: Gate, where: str
) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        report: list[BaseException | sessiondb.Receipt] = []

        async def append() -> None:
            try:
                report.append(await session.append(user("hello"), timeout_s=0.02))
            except NotExecuted as error:
                report.append(error)

        gate.close(where)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append)
            await until(gate.reached.is_set)
            if where == "queued":
                await until(lambda: bool(report))  # it does not wait for the writer
            gate.open()
        arrived = [entry.role for entry in await session.entries()]
        if isinstance(report[0], NotExecuted):
            assert outcome_of(report[0]) == "not_executed"
            assert arrived == []
        else:
            assert where == "begun"
            assert arrived == ["user"]
        await nothing_is_left(db, session)


# -- compact ---------------------------------------------------------------------------


@dataclass
class Compaction:
    """A compaction as a gateway runs it; remembers what it was told on the way."""

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


async def the_story_is_true(
    db: sessiondb.SessionDB, report: Told, run: Compaction, note: str
) -> str | None:
    """Compare what the caller was told with the job's row; return the job's state."""
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
async def test_a_compaction_cancelled_at_any_wait_leaves_nothing_and_tells_the_truth(
    tmp_db: Path, gate: Gate, anyio_backend_name: str, where: str
) -> None:
    async with opened(tmp_db) as db:
        for name, cancel, times in sorts(anyio_backend_name):
            states: set[str | None] = set()
            for k in range(STEPS_MAX):
                session = await db.create_session()
                await talk(session)
                run = Compaction(session)
                report = await cancelled_at(k, where, run.run, cancel, gate, db, times=times)
                note = f"{name}, {where}, wait {k}: {report} {run}"
                states.add(await the_story_is_true(db, report, run, note))
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
async def test_a_compaction_whose_deadline_passes_at_any_wait_leaves_nothing_and_tells_the_truth(
    tmp_db: Path, gate: Gate, where: str
) -> None:
    """The deadline is moved into the past at the k-th wait: while summarising, while committing, while giving up."""
    states: set[str | None] = set()
    async with opened(tmp_db) as db:
        for k in range(STEPS_MAX):
            session = await db.create_session()
            await talk(session)
            run = Compaction(session)

            def pass_deadline(scope: anyio.CancelScope, task: Any, run: Compaction = run) -> None:
                if run.job is not None:
                    run.job._scope.deadline = anyio.current_time() - 1

            report = await cancelled_at(k, where, run.run, pass_deadline, gate, db)
            note = f"{where}, wait {k}: {report} {run}"
            state = await the_story_is_true(db, report, run, note)
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


async def test_a_summariser_that_never_answers_is_ended_by_the_deadline(tmp_db: Path) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await talk(session)
        with pytest.raises(CompactionTimeout) as timeout:
            async with session.compact(keep_recent_tokens=KEEP, timeout_s=0.02):
                await anyio.sleep_forever()
        assert isinstance(timeout.value, TimeoutError)
        assert [job.state async for job in db.compactions(session)] == ["expired"]
        late = await db.commit_compaction(timeout.value.compaction_id, "at last")
        assert (late.outcome, late.late, late.epoch) == ("committed", True, 1)
        await nothing_is_left(db, session)


async def test_a_cancellation_from_outside_the_block_is_not_mistaken_for_the_deadline(
    tmp_db: Path,
) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await talk(session)
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
    """Stands for KeyboardInterrupt and SystemExit, which test runners take personally."""


@pytest.mark.parametrize(
    "error",
    [ValueError("the model said no"), Interrupt("ctrl-c")],
    ids=lambda error: type(error).__name__,
)
async def test_an_exception_in_the_block_fails_the_job_and_goes_on(
    tmp_db: Path, error: BaseException
) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await talk(session)
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
        await talk(session)
        with pytest.raises(ValueError, match="too late to matter"):  # noqa: PT012  what the block raises is the point
            async with session.compact(keep_recent_tokens=KEEP) as job:
                await job.commit("summary")
                raise ValueError("too late to matter")
        assert [job.state async for job in db.compactions(session)] == ["committed"]
        await nothing_is_left(db, session)


async def test_leaving_the_block_without_a_commit_fails_the_job(tmp_db: Path) -> None:
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await talk(session)
        async with session.compact(keep_recent_tokens=KEEP) as job:
            pass
        assert [(job.state, job.reason) async for job in db.compactions(session)] == [
            ("failed", "its block was left without a commit")
        ]
        assert (await db.commit_compaction(job.id, "after all")).late
        await nothing_is_left(db, session)


async def test_a_job_cancelled_with_the_whole_group_is_given_up(tmp_db: Path) -> None:
    """A failing neighbour in the same task group cancels the summariser: the usual way in which jobs die."""
    async with opened(tmp_db) as db:
        session = await db.create_session()
        await talk(session)
        begun = anyio.Event()

        async def compact() -> None:
            async with session.compact(keep_recent_tokens=KEEP):
                begun.set()
                await anyio.sleep_forever()

        with pytest.raises(BaseExceptionGroup) as group:  # noqa: PT012  what the group raises is the point
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(compact)
                await begun.wait()
                raise ValueError("neighbour")
        assert group.group_contains(ValueError)
        assert [job.state async for job in db.compactions(session)] == ["cancelled"]
        await nothing_is_left(db, session)


# -- the synchronous façade ------------------------------------------------------------


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
def test_an_exception_in_a_synchronous_block_fails_the_job_and_goes_on(
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


def test_leaving_a_synchronous_block_without_a_commit_fails_the_job(tmp_db: Path) -> None:
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


def test_the_deadline_ends_a_job_while_its_synchronous_block_goes_on(tmp_db: Path) -> None:
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


def test_a_synchronous_commit_after_the_deadline_is_late_and_counts(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db, guard=False) as db:
        session = db.session("agent:main:test:channel:1")
        sync_talk(session)
        with session.compact(keep_recent_tokens=KEEP, timeout_s=0.02) as job:
            until_in_sync(lambda: sync_jobs(db, session)[0][0] == "expired")
            result = job.commit("at last")
        assert (result.outcome, result.late, result.epoch) == ("committed", True, 1)
        nothing_is_left_in_sync(db, session)
