"""Another process holds the write lock."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sessiondb.errors import NotExecuted, StoreBusy, outcome_of
from sessiondb.limits import Limits
from sessiondb.sqlite import SqliteBackend
from sessiondb.sqlite.files import lock_holder_pid
from tests.support.engine import (
    count,
    insert,
    locked_by_another_process,
    names_in,
    opened,
    other_process,
    until,
)
from tests.support.leaks import our_threads

pytestmark = pytest.mark.anyio


async def test_a_write_waits_for_another_process_and_then_goes_through(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        with locked_by_another_process(tmp_db) as unlock:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: backend.write(insert("x"), op="append"))
                await until(lambda: backend.stats()["writer"]["busy_waits"] == 1)
                assert await count(backend, "x") == 0  # reads go on
                unlock()
        assert await count(backend, "x") == 1
        assert backend.stats()["writer"]["busy_timeouts"] == 0


async def test_after_the_busy_timeout_waiting_writes_name_the_holder(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(busy_timeout_s=0.1)) as backend:
        with locked_by_another_process(tmp_db) as unlock:
            errors: list[StoreBusy] = []

            async def write() -> None:
                try:
                    await backend.write(insert("x"), op="append")
                except StoreBusy as error:
                    errors.append(error)

            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(write)
            assert [outcome_of(error) for error in errors] == ["not_executed"] * 3
            pid = unlock.pid  # type: ignore[attr-defined]
            assert lock_holder_pid(str(tmp_db)) == pid
            assert f"pid {pid} has held the write lock" in str(errors[0])
            assert errors[0].retry_after_ms == 100
            assert backend.stats()["writer"]["busy_timeouts"] == 3
            unlock()
        await backend.write(insert("y"), op="append")
        assert (await count(backend, "x"), await count(backend, "y")) == (0, 1)


async def test_a_holder_that_uses_sessiondb_is_named_by_its_program(tmp_db: Path) -> None:
    code = """
import sys, anyio
from sessiondb.sqlite import SqliteBackend
def hold_lock(tx):
    print("locked", flush=True)
    sys.stdin.readline()
async def main():
    async def hold():
        backend = await SqliteBackend.open(sys.argv[1], program="other gateway")
        await backend.write(hold_lock, op="hold")
        await backend.close()
    await hold()
anyio.run(main)
"""
    async with opened(tmp_db, limits=Limits(busy_timeout_s=0.1)) as backend:
        with other_process(code, tmp_db) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            assert other.stdout.readline() == "locked\n"
            with pytest.raises(
                StoreBusy, match=rf"pid {other.pid} \(other gateway\) has held the write lock"
            ):
                await backend.write(insert("x"), op="append")
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.wait(30) == 0


async def test_deadlines_and_cancellations_hold_during_the_wait(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        with locked_by_another_process(tmp_db) as unlock:
            with pytest.raises(NotExecuted):
                await backend.write(insert("late"), op="append", timeout_s=0.02)
            with anyio.move_on_after(0.02) as scope:
                await backend.write(insert("cancelled"), op="append")
            assert scope.cancelled_caught
            assert backend.stats()["writer"]["queue_items"] == 0
            unlock()
        await backend.write(insert("next"), op="append")
        assert [await count(backend, name) for name in ("late", "cancelled", "next")] == [0, 0, 1]


async def test_an_opening_that_stays_locked_leaves_no_thread(tmp_db: Path) -> None:
    async with opened(tmp_db):
        pass
    # The lock needs a WAL that stays, and so a connection. The child's own is enough.
    with locked_by_another_process(tmp_db) as unlock:
        with pytest.raises(StoreBusy, match="opening: pid"):
            await SqliteBackend.open(tmp_db, limits=Limits(busy_timeout_s=0.05))
        unlock()
    assert our_threads() == set()


async def test_two_backends_of_one_process_share_a_file(tmp_db: Path) -> None:
    async with opened(tmp_db) as one, opened(tmp_db) as two:

        async def many(backend: SqliteBackend, name: str) -> None:
            for _ in range(50):
                await backend.write(insert(name), op="append")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(many, one, "one")
            tasks.start_soon(many, two, "two")
        assert [await count(one, "two"), await count(two, "one")] == [50, 50]
        assert one.stats()["instance_no"] != two.stats()["instance_no"]


async def test_several_processes_append_at_once_and_nothing_is_lost(tmp_db: Path) -> None:
    code = """
import sys, anyio
from tests.support.engine import insert, opened
async def main():
    async with opened(sys.argv[1]) as backend:
        for _ in range(100):
            await backend.write(insert(sys.argv[2]), op="append")
anyio.run(main)
"""
    with (
        other_process(code, tmp_db, "a") as a,
        other_process(code, tmp_db, "b") as b,
        other_process(code, tmp_db, "c") as c,
    ):
        for child in (a, b, c):
            _, err = child.communicate(timeout=60)
            assert (child.returncode, err) == (0, "")
    async with opened(tmp_db) as backend:
        assert [await count(backend, name) for name in "abc"] == [100, 100, 100]
    assert names_in(tmp_db.parent) == [tmp_db.name, f"{tmp_db.name}-alive"]
