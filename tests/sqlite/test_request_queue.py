"""The queue of the writer: bounds, deadlines, and the states of a request."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import apsw
import pytest

from sessiondb.errors import NotExecuted, StoreBusy, StoreClosed, outcome_of
from sessiondb.limits import MAINTENANCE_TASKS_MAX, Limits
from sessiondb.sqlite import SqliteBackend
from sessiondb.sqlite.request_queue import CANCELLED, FINISHED, RUNNING, Request, RequestQueue
from sessiondb.sqlite.writer import Writer
from sessiondb.waiter import Waiter
from tests.support.engine import (
    DEADLINES_S,
    PATIENCE_S,
    Hold,
    count,
    held_writer,
    insert,
    opened,
    until,
)

pytestmark = pytest.mark.anyio


async def test_a_full_queue_refuses_with_a_time_and_the_holder(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(queue_items_max=3)) as backend:
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for _ in range(3):
                    tasks.start_soon(lambda: backend.write(insert("queued"), op="append"))
                await until(lambda: backend.stats()["writer"]["queue_items"] == 3)
                with pytest.raises(
                    StoreBusy, match=r"append was refused: 3 writes .* running: hold"
                ) as refused:
                    await backend.write(insert("refused"), op="append")
                assert refused.value.retry_after_ms >= 1
                assert (refused.value.queue_items, refused.value.holder) == (3, "hold")
                assert outcome_of(refused.value) == "not_executed"
        assert await count(backend, "queued") == 3
        assert await count(backend, "refused") == 0
        assert backend.stats()["writer"]["requests_refused"] == 1


async def test_the_queue_is_bounded_in_bytes_but_admits_any_one(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(queue_bytes_max=1_000)) as backend:
        await backend.write(insert("alone"), op="append", size=10_000)
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                tasks.start_soon(lambda: backend.write(insert("large"), op="append", size=10_000))
                await until(lambda: backend.stats()["writer"]["queue_bytes"] == 10_000)
                with pytest.raises(StoreBusy):
                    await backend.write(insert("small"), op="append", size=1)
        assert backend.stats()["writer"]["queue_bytes"] == 0
        assert (await count(backend, "alone"), await count(backend, "large")) == (1, 1)


async def test_a_deadline_that_passes_in_the_queue_means_not_executed(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        async with held_writer(backend):
            # The caller gets its error while the writer is still held.
            with pytest.raises(NotExecuted, match="append: its deadline passed") as late:
                await backend.write(insert("late"), op="append", timeout_s=0.02)
            assert outcome_of(late.value) == "not_executed"
            assert backend.stats()["writer"]["queue_items"] == 0
        assert await count(backend, "late") == 0


async def test_a_deadline_after_the_start_waits_for_the_outcome(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        for timeout_s in DEADLINES_S:
            result = await held_past_its_deadline(backend, timeout_s)
            if result == 1:
                break
            assert isinstance(result, NotExecuted)
            assert await count(backend, "slow") == 0
        assert result == 1
        assert await count(backend, "slow") == 1


async def held_past_its_deadline(backend: SqliteBackend, timeout_s: float) -> int | NotExecuted:
    """Write a body that does not end before its time is up. Return what the caller got."""
    hold = Hold(then=insert("slow"))
    report: list[int | NotExecuted] = []

    async def write() -> None:
        try:
            report.append(await backend.write(hold, op="append", timeout_s=timeout_s))
        except NotExecuted as error:
            report.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await until(lambda: hold.begun.is_set() or bool(report))
        if hold.begun.is_set():
            await anyio.sleep(timeout_s)
            assert report == []
        hold.release.set()
    return report[0]


async def test_the_writer_skips_a_request_past_its_deadline(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        writer = backend._parts.writer
        waiter = SilentWaiter()
        async with held_writer(backend):
            request = Request(insert("late"), "append", 0, monotonic() - 1, waiter)
            writer.queue.put(request)
        await until(waiter.notified.is_set)
        assert isinstance(request.error, NotExecuted)
        assert writer.queue.requests_expired == 1
        assert await count(backend, "late") == 0


class SilentWaiter:
    """A waiter without an event loop, for tests that drive the writer from a plain thread."""

    cancellation = None

    def __init__(self) -> None:
        self.notified = threading.Event()
        self.loop = self

    def send(self, waiters: list[Waiter]) -> None:
        for waiter in waiters:
            waiter.notify()

    def notify(self) -> None:
        self.notified.set()

    async def wait(self, timeout_s: float, try_cancel: Any) -> bool:
        raise NotImplementedError


def test_every_request_is_either_cancelled_or_executed(tmp_db: Path) -> None:
    """Cancellations race with the writer, and the rows must agree with the answers."""
    writer = Writer(str(tmp_db), Limits(), "normal", "test")
    tmp_db.touch()
    writer.start()
    lock, cancelled, kept = threading.Lock(), set[int](), set[int]()

    def caller(thread: int) -> None:
        rng = random.Random(thread)
        for number in range(thread * 1_000, thread * 1_000 + 250):
            waiter = SilentWaiter()
            request = Request(insert(f"n {number}"), "append", 1, monotonic() + PATIENCE_S, waiter)
            writer.queue.put(request)
            waiter.notified.wait(
                rng.random() * 0.0005
            )  # about as long as a commit: the race goes either way
            if writer.queue.try_cancel(request):
                assert request.state == CANCELLED
                assert not waiter.notified.is_set()
                with lock:
                    cancelled.add(number)
            else:
                assert waiter.notified.wait(PATIENCE_S)
                assert request.state == FINISHED
                assert (request.outcome, request.error) == ("committed", None)
                with lock:
                    kept.add(number)
            assert writer.queue.try_cancel(request) is (
                number in cancelled
            )  # the answer never changes

    threads = [threading.Thread(target=caller, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.snapshot()["queue_items"] == 0
    assert writer.snapshot()["queue_bytes"] == 0
    writer.stop()
    assert writer.join(PATIENCE_S)
    rows = apsw.Connection(str(tmp_db)).execute(
        "SELECT program FROM instance WHERE program GLOB 'n *'"
    )
    found = {int(row[0].split()[1]) for row in rows}
    assert found == kept
    assert cancelled.isdisjoint(kept)
    assert len(cancelled) + len(kept) == 1_000
    assert cancelled, "the race never went this way; the proof proves nothing"
    assert kept, "the race never went this way; the proof proves nothing"


def test_a_refused_task_names_the_one_that_runs_and_a_queue_begins_at_nothing() -> None:
    queue = RequestQueue("x.db", Limits())
    counts = queue.snapshot()
    assert {name: counts[name] for name in counts if name != "running_op"} == {
        "requests_refused": 0,
        "requests_expired": 0,
        "queue_items": 0,
        "queue_bytes": 0,
    }
    for number in range(MAINTENANCE_TASKS_MAX):
        queue.add_task(Request(None, f"task-{number}", 0, 0.0, SilentWaiter()))
    with pytest.raises(StoreBusy, match=r"running: task-0\. Nothing was done") as refused:
        queue.add_task(Request(None, "one more", 0, 0.0, SilentWaiter()))
    assert (refused.value.holder, refused.value.queue_items) == ("task-0", MAINTENANCE_TASKS_MAX)
    assert queue.snapshot()["requests_refused"] == 1


def test_the_end_fails_what_waits_and_cleans_up_what_has_begun() -> None:
    queue = RequestQueue("x.db", Limits())
    waiting, given_up = (Request(None, name, 5, 0.0, SilentWaiter()) for name in ("a", "b"))
    step = Request(None, "step", 5, 0.0, SilentWaiter(), in_background=True)
    for request in (waiting, given_up, step):
        queue.put(request)
    assert queue.try_cancel(given_up)
    begun, dropped, fresh = (Request(None, name, 0, 0.0, SilentWaiter()) for name in "xyz")
    for task in (begun, dropped, fresh):
        queue.add_task(task)
    for task in (begun, dropped):
        task.state = RUNNING
        task.task = iter(())  # type: ignore[assignment]  # only whether there is one counts
    queue.abandon_task(dropped)
    left, cleaned = queue.take_all()
    assert left == [waiting, step, begun, fresh]
    assert cleaned == [begun, dropped]
    assert {request.state for request in left} == {FINISHED}
    assert (given_up.state, dropped.state) == (CANCELLED, CANCELLED)
    assert (queue.snapshot()["queue_items"], queue.snapshot()["queue_bytes"]) == (0, 0)
    with pytest.raises(StoreClosed):
        queue.put(Request(None, "late", 0, 0.0, SilentWaiter()))
