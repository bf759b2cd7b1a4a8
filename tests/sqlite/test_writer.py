"""The writer: group commit, isolation of failures, bounds, deadlines."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import apsw
import pytest

from sessiondb.errors import ConstraintFailed, NotExecuted, StoreBusy, StoreClosed, outcome_of
from sessiondb.limits import Limits
from sessiondb.sqlite import SqliteBackend
from sessiondb.sqlite.connection import connect_reader
from sessiondb.sqlite.request_queue import CANCELLED, FINISHED, Request
from sessiondb.sqlite.waiter import Waiter
from sessiondb.sqlite.writer import Writer
from tests.support.engine import PATIENCE_S, Hold, count, held_writer, insert, opened, until

pytestmark = pytest.mark.anyio


async def test_requests_that_wait_together_share_one_commit(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(batch_ms_max=60_000)) as backend:
        before = backend.stats()["writer"]["commits"]
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for number in range(50):
                    tasks.start_soon(
                        lambda n=number: backend.write(insert(f"row {n}"), op="append")
                    )
                await until(lambda: backend.stats()["writer"]["queue_items"] == 50)
        after = backend.stats()["writer"]
        # The held body and those 50 are one transaction, because the queue is drained until it is empty or a bound is met.
        assert after["commits"] - before == 1
        assert (
            await backend.read(
                lambda tx: tx.first("test.count_like", pattern="row *").n, op="count"
            )
            == 50
        )


async def test_a_batch_ends_at_its_bounds(tmp_db: Path) -> None:
    async with opened(
        tmp_db, limits=Limits(batch_items_max=10, batch_bytes_max=1_000, batch_ms_max=10_000)
    ) as backend:
        writer = backend._parts.writer
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for number in range(35):
                    tasks.start_soon(
                        lambda n=number: backend.write(insert(f"row {n}"), op="append", size=1)
                    )
                await until(lambda: writer.snapshot()["queue_items"] == 35)
        assert writer.stats.batch_items_longest == 10
        before = writer.stats.commits
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for number in range(8):
                    tasks.start_soon(
                        lambda n=number: backend.write(insert(f"wide {n}"), op="append", size=600)
                    )
                await until(lambda: writer.snapshot()["queue_items"] == 8)
        assert writer.stats.commits - before >= 8  # two of 600 bytes are more than 1,000


async def test_a_failing_body_takes_only_itself_along(tmp_db: Path) -> None:
    def failing(tx: Any) -> None:
        tx.run("test.insert", program="half done")
        raise ValueError("no")

    async with opened(tmp_db) as backend:
        errors: list[BaseException] = []

        async def fail() -> None:
            try:
                await backend.write(failing, op="fail")
            except ValueError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for number in range(9):
                    # Failures first, in the middle and last.
                    tasks.start_soon(fail) if number % 4 == 0 else tasks.start_soon(
                        lambda: backend.write(insert("kept"), op="append")
                    )
                await until(lambda: backend.stats()["writer"]["queue_items"] == 9)
        assert await count(backend, "kept") == 6
        assert await count(backend, "half done") == 0
        assert [outcome_of(error) for error in errors] == ["not_executed"] * 3


async def test_a_body_that_fails_alone_leaves_no_transaction_behind(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        with pytest.raises(ZeroDivisionError):
            await backend.write(lambda tx: tx.run("test.insert", program="x") / 0, op="fail")
        assert await count(backend, "x") == 0
        await backend.write(insert("y"), op="append")
        assert await count(backend, "y") == 1


async def test_a_result_arrives_only_when_other_connections_see_the_row(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        other = connect_reader(str(tmp_db))
        seen: list[int] = []

        def visible() -> int:
            return other.execute("SELECT count(*) FROM instance WHERE program = 'z'").fetchall()[0][
                0
            ]

        class Looks(Hold):
            def __call__(self, tx: Any) -> Any:
                result = super().__call__(tx)
                seen.append(
                    visible()
                )  # inside the transaction, after the insert: nobody else sees it
                return result

        looks = Looks(then=insert("z"))
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                await backend.write(looks, op="append")
                seen.append(visible())

            tasks.start_soon(write)
            await until(looks.begun.is_set)
            seen.append(visible())
            looks.release.set()
        assert seen == [0, 0, 1]
        other.close()


async def test_a_full_queue_refuses_with_the_time_to_retry_and_who_is_in_the_way(
    tmp_db: Path,
) -> None:
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


async def test_the_queue_is_bounded_in_bytes_but_admits_one_request_of_any_size(
    tmp_db: Path,
) -> None:
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
            # The caller is told while the writer is still stuck.
            with pytest.raises(NotExecuted, match="append: its deadline passed") as late:
                await backend.write(insert("late"), op="append", timeout_s=0.02)
            assert outcome_of(late.value) == "not_executed"
            assert backend.stats()["writer"]["queue_items"] == 0
        assert await count(backend, "late") == 0


async def test_a_deadline_that_passes_after_the_beginning_waits_for_the_outcome(
    tmp_db: Path,
) -> None:
    async with opened(tmp_db) as backend:
        hold = Hold(then=insert("slow"))
        results: list[int] = []

        async def write() -> None:
            results.append(await backend.write(hold, op="append", timeout_s=0.2))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await until(hold.begun.is_set)
            deadline = monotonic() + 0.25
            await until(lambda: monotonic() > deadline)
            assert results == []
            hold.release.set()
        assert results == [1]
        assert await count(backend, "slow") == 1


async def test_the_writer_itself_skips_a_request_whose_deadline_has_passed(tmp_db: Path) -> None:
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


def test_every_request_is_either_withdrawn_or_executed_never_both_and_never_neither(
    tmp_db: Path,
) -> None:
    """The proof of the state machine: withdrawals race with the writer, and the rows must agree with the answers."""
    writer = Writer(str(tmp_db), Limits(), "normal", "test")
    tmp_db.touch()
    writer.start()
    lock, withdrawn, kept = threading.Lock(), set[int](), set[int]()

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
                    withdrawn.add(number)
            else:
                assert waiter.notified.wait(PATIENCE_S)
                assert request.state == FINISHED
                assert (request.outcome, request.error) == ("committed", None)
                with lock:
                    kept.add(number)
            assert writer.queue.try_cancel(request) is (
                number in withdrawn
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
    assert withdrawn.isdisjoint(kept)
    assert len(withdrawn) + len(kept) == 1_000
    assert withdrawn, "the race never went this way; the proof proves nothing"
    assert kept, "the race never went this way; the proof proves nothing"


async def test_a_handle_is_void_after_its_body(tmp_db: Path) -> None:
    kept: list[Any] = []
    async with opened(tmp_db) as backend:
        await backend.write(kept.append, op="keep")
        await backend.read(kept.append, op="keep")
        for tx in kept:
            with pytest.raises(RuntimeError, match="the transaction has ended"):
                tx.all("test.programs")
        with pytest.raises(RuntimeError, match="the transaction has ended"):
            kept[0].run("test.insert", program="stowaway")


async def test_an_async_body_is_refused(tmp_db: Path) -> None:
    async def body(tx: Any) -> None:
        tx.run("test.insert", program="x")

    async with opened(tmp_db) as backend:
        with pytest.raises(TypeError, match="must be a plain function"):
            await backend.write(body, op="append")
        assert await count(backend, "x") == 0


async def test_a_broken_rule_of_the_schema_is_named_and_the_body_may_go_on(tmp_db: Path) -> None:
    def body(tx: Any) -> str:
        tx.run("test.insert_at", instance_no=50, program="first")
        try:
            tx.run("test.insert_at", instance_no=50, program="second")
        except ConstraintFailed as error:
            return str(error.constraint)
        return "accepted"

    async with opened(tmp_db) as backend:
        assert await backend.write(body, op="append") == "instance.instance_no"
        assert (await count(backend, "first"), await count(backend, "second")) == (1, 0)
        with pytest.raises(ConstraintFailed, match=r"test\.insert_at.*instance\.instance_no"):
            await backend.write(
                lambda tx: tx.run("test.insert_at", instance_no=50, program="x"), op="append"
            )


async def test_statements_are_checked(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        with pytest.raises(LookupError, match=r"no statement named 'test\.absent'"):
            await backend.read(lambda tx: tx.all("test.absent"), op="read")
        with pytest.raises(TypeError, match=r"test\.count has no parameter programme"):
            await backend.read(
                lambda tx: tx.all("test.count", program="x", programme="x"), op="read"
            )
        with pytest.raises(KeyError, match="program"):
            await backend.read(lambda tx: tx.all("test.count"), op="read")
        with pytest.raises(ValueError, match=r"test\.nameless: a column needs a name"):
            await backend.read(lambda tx: tx.all("test.nameless"), op="read")


async def test_rows_have_names_tuples_do_not_and_run_counts_changes(tmp_db: Path) -> None:
    def body(tx: Any) -> Any:
        first = tx.first("test.insert_returning", program="a")
        assert tx.run("test.insert_returning", program="b") == 1
        assert tx.run("test.rename", before="a", after="b") == 1
        assert tx.run("test.rename", before="b", after="c") == 2
        assert tx.run("test.rename", before="nobody", after="c") == 0
        assert tx.first("test.count", program="nobody").n == 0
        return (
            first.program,
            first.instance_no,
            tx.tuples("test.programs"),
            tx.all("test.programs")[1].program,
        )

    async with opened(tmp_db) as backend:
        program, number, tuples, last = await backend.write(body, op="append")
        assert (program, tuples, last) == ("a", [("c",), ("c",)], "c")
        assert number > 1


async def test_close_finishes_what_is_queued_and_refuses_the_rest(tmp_db: Path) -> None:
    backend = await SqliteBackend.open(tmp_db)
    hold = Hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: backend.write(hold, op="hold"))
        await until(hold.begun.is_set)
        for _ in range(5):
            tasks.start_soon(lambda: backend.write(insert("queued"), op="append"))
        await until(lambda: backend.stats()["writer"]["queue_items"] == 5)
        tasks.start_soon(backend.close)
        tasks.start_soon(backend.close)
        await until(lambda: backend._parts.closed)
        hold.release.set()
    with pytest.raises(StoreClosed, match="append came after the database was closed"):
        await backend.write(insert("late"), op="append")
    with pytest.raises(StoreClosed):
        await backend.read(lambda tx: None, op="read")
    await backend.close()
    async with opened(tmp_db) as again:
        assert await count(again, "queued") == 5
    rows = (
        apsw.Connection(str(tmp_db))
        .execute("SELECT count(*), count(closed_at_ms) FROM instance WHERE host <> 'h'")
        .fetchall()
    )
    assert rows == [(2, 2)]  # both openings signed on, and off
