"""Steps of background work: transactions of their own, paced beside callers, never starved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from sessiondb.errors import StoreBusy, StoreClosed, outcome_of
from sessiondb.limits import Limits
from sessiondb.sqlite import SqliteBackend
from sessiondb.sqlite.throttle import (
    PAUSE_S_MAX,
    QUIET_S,
    SHARE_BESIDE_CALLERS,
    SHARE_BESIDE_CALLERS_MAX,
    SHARE_BESIDE_PROCESSES,
    STRETCH_GAP_S,
    Throttle,
)
from tests.support.engine import count, held_writer, insert, opened, until


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def _paced(clock: Clock, backend: SqliteBackend) -> Throttle:
    """Give the writer a throttle on the test's clock, as it is after a caller and a step."""
    throttle = backend._parts.writer.queue.throttle = Throttle(clock)
    throttle.note_caller()
    throttle.note_step(0.002, beside_processes=False)
    return throttle


# -- the arithmetic --------------------------------------------------------------------


def test_steps_follow_one_another_while_no_caller_writes() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    assert throttle.due_in_s == 0
    throttle.note_step(0.010, beside_processes=False)
    assert throttle.due_in_s == 0


def test_beside_callers_a_pause_in_proportion_follows_a_step() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    throttle.note_caller()
    throttle.note_step(0.001, beside_processes=False)
    assert throttle.due_in_s == pytest.approx(0.001 * (1 / SHARE_BESIDE_CALLERS - 1))
    clock.now += 0.199
    assert throttle.due_in_s == pytest.approx(0.0, abs=1e-9)


def test_work_that_lasts_for_minutes_gets_a_larger_share() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    pauses = []
    for _ in range(900):  # a step each second, callers all the time
        clock.now += 1.0
        throttle.note_caller()
        throttle.note_step(0.001, beside_processes=False)
        pauses.append(round(throttle.due_in_s, 6))
    assert pauses[0] == pytest.approx(0.001 * (1 / SHARE_BESIDE_CALLERS - 1))
    assert pauses == sorted(pauses, reverse=True)
    assert pauses[-1] == pytest.approx(0.001 * (1 / SHARE_BESIDE_CALLERS_MAX - 1))
    clock.now += STRETCH_GAP_S / 2  # it ended, and starts again: it had not caught up
    throttle.note_caller()
    throttle.note_step(0.001, beside_processes=False)
    assert throttle.due_in_s == pytest.approx(pauses[-1], abs=1e-6)
    clock.now += STRETCH_GAP_S + 1.0
    throttle.note_caller()
    throttle.note_step(0.001, beside_processes=False)
    assert throttle.due_in_s == pytest.approx(pauses[0])


def test_the_share_does_not_grow_without_callers() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(900):
        clock.now += 1.0
        throttle.note_step(0.001, beside_processes=False)
    throttle.note_caller()
    assert throttle.due_in_s == pytest.approx(0.001 * (1 / SHARE_BESIDE_CALLERS - 1))


def test_the_pause_ends_when_the_callers_are_quiet() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    throttle.note_caller()
    throttle.note_step(0.020, beside_processes=False)
    assert throttle.due_in_s == pytest.approx(
        QUIET_S
    )  # shorter than 199 times 20 ms, and than the longest pause
    clock.now += QUIET_S + 1e-6
    assert throttle.due_in_s == 0


def test_beside_another_process_the_pause_has_its_own_length() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    throttle.note_step(0.300, beside_processes=True)
    pause_s = 0.300 * (1 / SHARE_BESIDE_PROCESSES - 1)
    assert throttle.due_in_s == pytest.approx(pause_s)
    clock.now += pause_s + 1e-6
    assert throttle.due_in_s == 0


def test_no_pause_is_longer_than_its_bound() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    throttle.note_step(60.0, beside_processes=True)
    for _ in range(100):  # callers come all the time
        throttle.note_caller()
        assert throttle.due_in_s <= PAUSE_S_MAX
        clock.now += PAUSE_S_MAX / 100
    assert throttle.due_in_s == pytest.approx(0.0, abs=1e-9)


# -- in the writer ---------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_step_is_alone_in_its_transaction(tmp_db: Path) -> None:
    # A batch takes what is queued, however long the test holds the writer.
    async with opened(tmp_db, limits=Limits(batch_ms_max=60_000)) as backend:
        before = backend.stats()["writer"]["commits"]
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for number in range(3):
                    tasks.start_soon(
                        lambda n=number: backend.write(insert(f"caller {n}"), op="append")
                    )
                    tasks.start_soon(
                        lambda n=number: backend.step(insert(f"step {n}"), op="import")
                    )
                await until(lambda: backend.stats()["writer"]["queue_items"] == 6)
        after = backend.stats()["writer"]
        assert after["commits"] - before == 1 + 3, "the callers share one, each step has its own"
        assert after["steps"] == 3
        assert after["step_ms_longest"] > 0


@pytest.mark.anyio
async def test_a_step_says_how_long_it_held_the_write_lock(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        step = await backend.step(insert("row"), op="import")
        assert step.value == 1
        assert step.held_ms == backend.stats()["writer"]["step_ms_longest"]


@pytest.mark.anyio
async def test_callers_go_first_until_a_pause_is_over(tmp_db: Path) -> None:
    clock = Clock()
    async with opened(tmp_db) as backend:
        _paced(clock, backend)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.step(insert("step"), op="import"))
            for number in range(50):
                await backend.write(insert(f"caller {number}"), op="append")
            assert await count(backend, "step") == 0
            assert backend.stats()["writer"]["queue_items"] == 1
            clock.now += PAUSE_S_MAX
        assert await count(backend, "step") == 1


@pytest.mark.anyio
async def test_callers_without_a_gap_cannot_keep_a_step_out(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        done = anyio.Event()

        async def work() -> None:
            for number in range(5):
                await backend.step(insert(f"step {number}"), op="import")
            done.set()

        written = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            while not done.is_set():
                async with anyio.create_task_group() as callers:
                    for number in range(10):
                        callers.start_soon(
                            lambda n=written + number: backend.write(
                                insert(f"caller {n}"), op="append"
                            )
                        )
                written += 10
        assert (
            await backend.read(
                lambda tx: tx.first("test.count_like", pattern="step *").n, op="count"
            )
            == 5
        )
        assert (
            await backend.read(
                lambda tx: tx.first("test.count_like", pattern="caller *").n, op="count"
            )
            == written
        )


@pytest.mark.anyio
async def test_a_step_that_is_cancelled_while_it_waits_is_not_executed(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        _paced(Clock(), backend)
        seen: list[BaseException] = []

        async def step() -> None:
            try:
                await backend.step(insert("step"), op="import")
            except BaseException as error:
                seen.append(error)
                raise

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step)
            await until(lambda: backend.stats()["writer"]["queue_items"] == 1)
            tasks.cancel_scope.cancel()
        assert [outcome_of(error) for error in seen] == ["not_executed"]
        await backend.write(insert("after"), op="append")
        assert await count(backend, "step") == 0
        assert backend.stats()["writer"]["queue_bytes"] == 0


@pytest.mark.anyio
async def test_closing_finishes_steps_without_their_pauses(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        _paced(Clock(), backend)  # it never moves: a pause would last for ever
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.step(insert("step"), op="import"))
            await until(lambda: backend.stats()["writer"]["queue_items"] == 1)
            await backend.close()
    async with opened(tmp_db) as backend:
        assert await count(backend, "step") == 1
    with pytest.raises(StoreClosed):
        await backend.step(insert("late"), op="import")


@pytest.mark.anyio
async def test_a_failing_step_leaves_callers_alone(tmp_db: Path) -> None:
    def failing(tx: Any) -> None:
        tx.run("test.insert", program="half done")
        raise ValueError("a bug of the job")

    async with opened(tmp_db) as backend:
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                tasks.start_soon(lambda: backend.write(insert("caller"), op="append"))

                async def fail() -> None:
                    with pytest.raises(ValueError, match="a bug of the job"):
                        await backend.step(failing, op="import")

                tasks.start_soon(fail)
                await until(lambda: backend.stats()["writer"]["queue_items"] == 2)
        assert await count(backend, "caller") == 1
        assert await count(backend, "half done") == 0


@pytest.mark.anyio
async def test_steps_have_a_bound_of_their_own(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(queue_items_max=2)) as backend:
        clock = Clock()
        _paced(clock, backend)
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(lambda n=number: backend.step(insert(f"step {n}"), op="import"))
            await until(lambda: backend.stats()["writer"]["queue_items"] == 2)
            with pytest.raises(
                StoreBusy, match="import was refused: 2 steps of background work are waiting"
            ) as refused:
                await backend.step(insert("one too many"), op="import")
            assert refused.value.retry_after_ms >= 1
            assert refused.value.queue_items == 2
            await backend.write(insert("caller"), op="append")  # whose queue is empty
            clock.now += PAUSE_S_MAX


@pytest.mark.anyio
async def test_vacuum_and_backup_are_paced_too(tmp_db: Path, tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_db) as backend:
        await backend.write(lambda tx: tx.run("test.insert_large", size=4_000_000), op="append")
        _paced(clock, backend)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.backup, tmp_path / "copy.db")
            await until(lambda: bool(backend._parts.writer.queue.tasks))
            for number in range(20):
                await backend.write(insert(f"caller {number}"), op="append")
            assert not (tmp_path / "copy.db.partial").exists()
            clock.now += PAUSE_S_MAX
            await until(lambda: (tmp_path / "copy.db.partial").exists())
            backend._parts.writer.queue.throttle = Throttle()
        assert (tmp_path / "copy.db").exists()
