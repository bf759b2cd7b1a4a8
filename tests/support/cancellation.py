"""Cancel an operation at each of its waits, with the writer stopped where a test wants it.

An operation is driven through `Steps`, which counts the places where it waits. `cancelled_at`
cancels it at its k-th wait. If the wait is for the writer, the truth depends on what the writer
has done by then. So each wait is tried with the writer stopped in each of three places (`WHERE`):
before it takes the request, before COMMIT, and after COMMIT but before any caller is notified.
Ways to cancel: a cancel scope (asyncio and trio), asyncio's own `task.cancel()`, and the same
three times in a row.

A plugin (tests/conftest.py names it), so that the fixture `gate` is there for every test.
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
from sessiondb.errors import outcome_of
from sessiondb.sqlite.writer import Writer
from tests.support.core import reply, user
from tests.support.engine import PATIENCE_S, until

WHERE = ("queued", "begun", "done")


class Gate:
    """Stops the writer where a test wants it: before it takes a request, or before it commits."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.where = ""
        self.opened = threading.Event()
        self.opened.set()
        self.reached = threading.Event()
        begin, commit = Writer._begin, Writer._commit

        def held_begin(writer: Writer, queue: Any) -> Any:
            if writer.queue.writes:
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
    """An awaitable that runs a coroutine and reports at which of its waits it is.

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
        send = _sender(inner, None)
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
class Report:
    """What the caller of a cancelled operation got."""

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
) -> Report:
    """Run an operation and cancel it at its k-th wait, with the writer stopped at `where`."""
    report = Report()
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
        except BaseException as error:  # noqa: BLE001  examined; a scope ends its own cancellation
            report.error = error
        finally:
            gate.open()
            at_wait.set()
            ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await at_wait.wait()
        if report.was_reached:
            _bring_writer_to(where, gate, db)
            for _ in range(times):
                cancel(scope, tasks[0] if tasks else None)
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
            gate.open()
        with anyio.fail_after(PATIENCE_S):
            await ended.wait()
    return report


def _bring_writer_to(where: str, gate: Gate, db: sessiondb.SessionDB) -> None:
    """Let the writer get to `where`. This blocks the event loop, so no task is notified."""
    writer: Writer = db.backend._parts.writer  # type: ignore[attr-defined]
    if where == "done":
        gate.open()
    patience = threading.Event()
    for _ in range(int(PATIENCE_S * 1000)):
        if writer.queue._idle or gate.reached.is_set():
            return
        patience.wait(0.001)
    raise AssertionError("the writer neither stopped at the gate nor came to rest")


Sort = tuple[str, Cancel, int]


def sorts(loop: str) -> list[Sort]:
    """Return the ways to cancel: name, function, number of times."""
    found: list[Sort] = [("scope", by_scope, 1)]
    if loop == "asyncio":
        found += [("task", by_task, 1), ("task, three times", by_task, 3)]
    return found


STEPS_MAX = 100


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[sessiondb.SessionDB]:
    async with sessiondb.open(path, guard=False) as db:
        yield db


async def add_turns(session: sessiondb.Session, turns: int = 3) -> None:
    for turn in range(turns):
        await session.append(user(f"question {turn} " + "x" * 80))
        await session.append(reply(f"answer {turn} " + "x" * 80))


async def nothing_is_left(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    """Assert that no job, transaction or lock is left, and that append and compact still work."""
    writer: Writer = db.backend._parts.writer  # type: ignore[attr-defined]
    await until(lambda: writer.queue._idle)
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
