"""A caller learns the outcome of its request, whenever it is cancelled.

Cancel scopes (anyio on either event loop): "cancelled" always means "not executed".
asyncio's own `task.cancel()` cannot be put off, so there the exception has the outcome.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sessiondb.errors import ConstraintFailed, outcome_of
from sessiondb.limits import Limits
from sessiondb.sqlite import SqliteBackend
from tests.support.engine import PATIENCE_S, Hold, count, held_writer, insert, opened, until

pytestmark = pytest.mark.anyio


async def test_a_scope_cancelled_before_the_call_executes_nothing(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await backend.write(insert("x"), op="append")
        assert scope.cancelled_caught
        with anyio.CancelScope() as scope:
            scope.cancel()
            await backend.read(lambda tx: None, op="read")
        assert scope.cancelled_caught
        assert await count(backend, "x") == 0


async def test_a_scope_cancelled_while_queued_means_not_executed(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        outcomes: list[Any] = []

        async def write(scope: anyio.CancelScope) -> None:
            with scope:
                try:
                    await backend.write(insert("x"), op="append")
                except anyio.get_cancelled_exc_class() as cancelled:
                    outcomes.append(outcome_of(cancelled))
                    raise

        async with anyio.create_task_group() as tasks, held_writer(backend):
            scope = anyio.CancelScope()
            tasks.start_soon(write, scope)
            await until(lambda: backend.stats()["writer"]["queue_items"] == 1)
            scope.cancel()
            await until(lambda: bool(outcomes))  # at once, although the writer is still held
            assert backend.stats()["writer"]["queue_items"] == 0
        assert outcomes == ["not_executed"]
        assert await count(backend, "x") == 0


async def test_a_scope_cancelled_after_the_start_gets_its_result(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        hold = Hold(then=insert("x"))
        steps: list[Any] = []
        scope = anyio.CancelScope()

        async def write() -> None:
            with scope:
                steps.append(await backend.write(hold, op="append"))
                await anyio.lowlevel.checkpoint()
                steps.append("not cancelled")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await until(hold.begun.is_set)
            scope.cancel()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert steps == []  # it waits for the outcome
            hold.release.set()
        assert steps == [1]
        assert scope.cancelled_caught
        assert await count(backend, "x") == 1


async def test_a_timeout_after_the_start_does_not_lose_the_result(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        hold = Hold(then=insert("x"))
        results: list[int] = []

        async def write() -> None:
            with anyio.fail_after(0.01):
                results.append(await backend.write(hold, op="append"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await until(hold.begun.is_set)
            past_it = anyio.current_time() + 0.03
            await until(lambda: anyio.current_time() > past_it)
            hold.release.set()
        assert results == [1]


async def test_a_cancelled_body_that_fails_reports_its_error(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        hold = Hold(then=lambda tx: tx.run("test.insert", program=None))
        errors: list[BaseException] = []
        scope = anyio.CancelScope()

        async def write() -> None:
            with scope:
                try:
                    await backend.write(hold, op="append")
                except ConstraintFailed as error:
                    errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await until(hold.begun.is_set)
            scope.cancel()
            hold.release.set()
        assert [outcome_of(error) for error in errors] == ["not_executed"]


async def test_a_cancelled_read_ends_and_its_statement_is_interrupted(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1)) as backend:
        scope = anyio.CancelScope()

        async def read() -> None:
            with scope:
                await backend.read(lambda tx: tx.first("test.spin", n=10**12), op="spin")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await until(lambda: backend.stats()["readers"]["running"] == 1)
            scope.cancel()
        assert scope.cancelled_caught
        assert await count(backend, "x") == 0  # the only reader is free again
        assert backend.stats()["readers"]["requests_abandoned"] == 1


async def test_a_read_cancelled_in_the_queue_never_runs(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1)) as backend:
        hold, ran = Hold(), list[Any]()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.read(hold, op="hold"))
            await until(hold.begun.is_set)
            with anyio.move_on_after(0.01) as scope:
                await backend.read(ran.append, op="read")
            assert scope.cancelled_caught
            assert backend.stats()["readers"]["queue_items"] == 0
            hold.release.set()
        await count(backend, "x")
        assert ran == []


async def test_cancelling_at_any_moment_agrees_with_what_is_stored(tmp_db: Path) -> None:
    """Sweep the moment of the cancellation across the whole life of a request."""
    async with opened(tmp_db) as backend:
        results: dict[int, str] = {}

        async def write(number: int) -> None:
            with anyio.CancelScope(deadline=anyio.current_time() + number * 0.00001):
                try:
                    await backend.write(insert(f"row {number}"), op="append")
                    results[number] = "committed"
                except anyio.get_cancelled_exc_class() as cancelled:
                    # None: cancelled at the first checkpoint, before there was a write.
                    results[number] = outcome_of(cancelled) or "not_executed"
                    raise

        async with anyio.create_task_group() as tasks:
            for number in range(150):
                tasks.start_soon(write, number)
        stored = {
            int(row[0].split()[1])
            for row in await backend.read(lambda tx: tx.tuples("test.programs"), op="read")
        }
        assert stored == {number for number, result in results.items() if result == "committed"}
        assert set(results.values()) <= {"committed", "not_executed"}
        await backend.write(insert("row 999"), op="append")


class TestNativeCancellation:
    """asyncio's `task.cancel()`, without any scope."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_while_queued_it_propagates_marked_not_executed(self, tmp_db: Path) -> None:
        async with opened(tmp_db) as backend:
            async with held_writer(backend):
                task = asyncio.create_task(backend.write(insert("x"), op="append"))
                await until(lambda: backend.stats()["writer"]["queue_items"] == 1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError) as cancelled:
                    await task
            assert outcome_of(cancelled.value) == "not_executed"
            assert await count(backend, "x") == 0

    @pytest.mark.parametrize("times", [1, 3])
    async def test_after_the_start_it_waits_and_is_marked_committed(
        self, tmp_db: Path, times: int
    ) -> None:
        async with opened(tmp_db) as backend:
            hold = Hold(then=insert("x"))
            task = asyncio.create_task(backend.write(hold, op="append"))
            await until(hold.begun.is_set)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert not task.done()
            hold.release.set()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await task
            assert outcome_of(cancelled.value) == "committed"
            assert "sessiondb: the write was committed" in cancelled.value.__notes__
            assert await count(backend, "x") == 1

    async def test_asyncio_timeout_can_still_be_asked_for_the_outcome(self, tmp_db: Path) -> None:
        async with opened(tmp_db) as backend:
            hold = Hold(then=insert("x"))
            asyncio.get_running_loop().call_later(0.05, hold.release.set)
            with pytest.raises(TimeoutError) as late:
                async with asyncio.timeout(0.01):
                    await backend.write(hold, op="append")
            assert outcome_of(late.value) == "committed"
            assert await count(backend, "x") == 1

    async def test_an_event_loop_that_dies_harms_no_other_caller(self, tmp_db: Path) -> None:
        backend = await SqliteBackend.open(tmp_db)
        hold, tasks = Hold(then=insert("orphan")), list[Any]()

        def other_loop() -> None:
            async def leave() -> None:
                tasks.append(asyncio.create_task(backend.write(hold, op="append")))
                await until(hold.begun.is_set)

            loop = asyncio.new_event_loop()
            loop.run_until_complete(leave())
            tasks[0]._log_destroy_pending = False  # destroying it is the point
            loop.close()

        await anyio.to_thread.run_sync(other_loop)
        hold.release.set()
        with anyio.fail_after(PATIENCE_S):
            await backend.write(insert("next"), op="append")
        assert await count(backend, "orphan") == 1
        await until(lambda: backend.stats()["writer"]["requests_undelivered"] == 1)
        await backend.close()
