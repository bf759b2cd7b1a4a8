"""Checkpoints, backup, giving pages back, and reads that are too long."""

# ruff: noqa: ASYNC240  # tests look at files as they please

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
from sessiondb.errors import InvalidInput, ReadTooLong, StoreBusy, StoreClosed
from sessiondb.limits import KIB, MAINTENANCE_TASKS_MAX, MIB, Limits
from sessiondb.sqlite import SqliteBackend, backup
from sessiondb.sqlite.backup import STEP_PAGES
from sessiondb.sqlite.checkpoint import Checkpointer
from tests.support.engine import (
    PATIENCE_S,
    Hold,
    count,
    held_writer,
    insert,
    names_in,
    opened,
    until,
)

pytestmark = pytest.mark.anyio


def wal_file_bytes(backend: SqliteBackend) -> int:
    return int(backend.stats()["wal_file_bytes"])


async def append_large(backend: SqliteBackend, times: int, size: int = 20_000) -> None:
    for _ in range(times):
        await backend.write(lambda tx: tx.run("test.insert_large", size=size), op="append")


async def test_the_wal_stays_near_its_limit(tmp_db: Path) -> None:
    limits = Limits(wal_bytes_max=MIB)
    async with opened(tmp_db, limits=limits, durability="normal") as backend:
        await append_large(backend, 300)  # six times the limit
        assert backend.stats()["writer"]["checkpoint"]["ok"] >= 4
        assert wal_file_bytes(backend) < 2 * limits.wal_bytes_max


async def test_the_wal_stays_bounded_while_readers_follow_one_another_without_a_gap(
    tmp_db: Path,
) -> None:
    limits = Limits(wal_bytes_max=MIB)
    async with opened(tmp_db, limits=limits, durability="normal") as backend:
        stop = threading.Event()

        def snapshot(tx: Any) -> int:
            first = tx.first("test.count_like", pattern="*").n
            stop.wait(0.005)  # the snapshot is open, and another reader's overlaps with it
            return int(first)

        async def read() -> None:
            while not stop.is_set():
                await backend.read(snapshot, op="snapshot")

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read)
            await append_large(backend, 400)
            largest = wal_file_bytes(backend)
            checkpoint = backend.stats()["writer"]["checkpoint"]
            stop.set()
        assert checkpoint["ok"] >= 4
        assert largest < 4 * limits.wal_bytes_max, (
            checkpoint
        )  # an unbounded WAL would hold all of 8 MB


async def test_a_snapshot_that_outlasts_the_budget_is_reported_as_blocking_and_the_wal_is_reset_after_it(
    tmp_db: Path,
) -> None:
    limits = Limits(wal_bytes_max=64 * KIB, wal_reset_ms_max=5, wal_retry_ms=1)
    async with opened(tmp_db, limits=limits) as backend:
        hold = Hold()
        before = backend.stats()["writer"]["checkpoint"]["ok"]

        def snapshot(tx: Any) -> None:
            tx.first("test.count_like", pattern="*")
            hold(tx)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.read(snapshot, op="snapshot"))
            await until(hold.begun.is_set)
            await append_large(backend, 10)
            await until(
                lambda: backend.stats()["writer"]["checkpoint"]["blocked"] >= 2
            )  # retried without a further write
            assert backend.stats()["writer"]["checkpoint"]["blocked_since_ms"] is not None
            hold.release.set()
        await until(lambda: backend.stats()["writer"]["checkpoint"]["ok"] > before)
        await until(lambda: backend.stats()["writer"]["checkpoint"]["blocked_since_ms"] is None)
        await backend.write(insert("x"), op="append")
        assert backend.stats()["writer"]["wal_bytes"] < limits.wal_bytes_max


def test_attempts_in_a_row_that_are_blocked_pause_the_writer_for_less_and_less() -> None:
    now = 0.0
    waits: list[float] = []

    class Blocked(Checkpointer):
        def _reset(self, connection: apsw.Connection, give_up: float) -> bool:
            waits.append(give_up - now)
            return len(waits) == 7

    limits = Limits(wal_bytes_max=64 * KIB, wal_reset_ms_max=800, wal_retry_ms=1_000)
    checkpoints = Blocked(limits, clock=lambda: now)
    connection = apsw.Connection(":memory:")
    assert checkpoints.due_in_s is None
    checkpoints.on_commit(connection, "main", 100)
    for attempt in range(7):
        assert checkpoints.due_in_s == 0
        assert checkpoints.run_once(connection) is (attempt == 6)
        assert checkpoints.due_in_s == (None if attempt == 6 else 1.0)
        now += 1.0
    assert [round(wait, 6) for wait in waits] == [0.8, 0.4, 0.2, 0.1, 0.1, 0.1, 0.1]
    checkpoints.on_commit(connection, "main", 100)
    checkpoints.run_once(connection)
    assert round(waits[-1], 6) == 0.8  # a success restores the full time


async def test_a_read_that_is_too_long_is_interrupted_and_says_so(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1, read_age_s_max=0.1)) as backend:
        with pytest.raises(
            ReadTooLong,
            match=r"spin: its snapshot is older than 0\.1 s .*\(during statement test\.spin\)",
        ):
            await backend.read(lambda tx: tx.first("test.spin", n=10**12), op="spin")
        assert await count(backend, "x") == 0
        assert backend.stats()["readers"]["interrupted"] >= 1


async def test_closing_waits_for_a_read_but_not_for_one_that_is_too_long(tmp_db: Path) -> None:
    backend = await SqliteBackend.open(tmp_db, limits=Limits(readers=1, read_age_s_max=0.1))
    errors: list[ReadTooLong] = []

    async def read() -> None:
        try:
            await backend.read(lambda tx: tx.first("test.spin", n=10**12), op="spin")
        except ReadTooLong as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await until(lambda: backend.stats()["readers"]["running"] == 1)
        with anyio.fail_after(30):
            await backend.close()
    assert len(errors) == 1


async def test_a_read_that_is_too_long_between_two_statements_is_stopped_at_the_next(
    tmp_db: Path,
) -> None:
    async with opened(tmp_db, limits=Limits(readers=1, read_age_s_max=0.1)) as backend:

        def dawdle(tx: Any) -> None:
            while not tx.interrupted:
                threading.Event().wait(0.01)
            tx.all("test.programs")

        with pytest.raises(ReadTooLong, match=r"before statement test\.programs"):
            await backend.read(dawdle, op="dawdle")
        assert await count(backend, "x") == 0


async def test_reads_are_refused_when_every_reader_is_occupied_and_the_queue_is_full(
    tmp_db: Path,
) -> None:
    async with opened(tmp_db, limits=Limits(readers=1, read_queue_max=1)) as backend:
        hold = Hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.read(hold, op="slow"))
            await until(hold.begun.is_set)
            tasks.start_soon(count, backend, "x")
            await until(lambda: backend.stats()["readers"]["queue_items"] == 1)
            with pytest.raises(
                StoreBusy, match=r"count was refused: 1 reads wait \(limit 1\); running: slow"
            ) as busy:
                await count(backend, "y")
            assert busy.value.retry_after_ms > 0
            hold.release.set()


async def test_a_read_that_was_given_up_leaves_the_queue_at_once(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1)) as backend:
        hold, readers = Hold(), backend._parts.readers
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.read(hold, op="slow"))
            await until(hold.begun.is_set)
            with anyio.CancelScope() as given_up:
                async with anyio.create_task_group() as waiting:
                    for name in ("x", "y"):
                        waiting.start_soon(count, backend, name)
                    await until(lambda: len(readers.queue) == 2)
                    given_up.cancel()
            assert (len(readers.queue), readers.waiting) == (0, 0)
            hold.release.set()
        assert await count(backend, "x") == 0
        assert backend.stats()["readers"]["queue_items"] == 0


async def test_a_read_is_one_snapshot_and_ends_even_when_its_body_fails(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1)) as backend:
        counted, go_on = threading.Event(), threading.Event()

        def twice(tx: Any) -> tuple[int, int]:
            first = tx.first("test.count", program="x").n
            counted.set()
            assert go_on.wait(30)
            return first, tx.first("test.count", program="x").n

        results: list[Any] = []

        async def read() -> None:
            results.append(await backend.read(twice, op="twice"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await until(counted.is_set)
            await backend.write(insert("x"), op="append")
            go_on.set()
        assert results == [(0, 0)]
        with pytest.raises(ZeroDivisionError):
            await backend.read(lambda tx: tx.first("test.count", program="x").n / 0, op="fail")
        assert await count(backend, "x") == 1  # a snapshot left open would still say 0


# -- backup and vacuum ------------------------------------------------------------------------------------------------


async def test_a_backup_is_complete_and_consistent_while_appends_go_on(tmp_db: Path) -> None:
    copy = tmp_db.with_name("copy.db")
    async with opened(tmp_db) as backend:
        await append_large(backend, 200)  # more than ten steps
        done = anyio.Event()
        during = 0

        async def append() -> None:
            nonlocal during
            while not done.is_set():
                await backend.write(insert("during"), op="append")
                during += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append)
            pages = await backend.backup(copy)
            done.set()
        assert pages > 4 * STEP_PAGES
        assert during > 1  # the steps left room for others
        with pytest.raises(InvalidInput, match="A backup never overwrites"):
            await backend.backup(copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(names_in(tmp_db.parent)) == ["copy.db", "gateway.db"]
    async with opened(copy) as restored:
        assert (
            await restored.read(lambda tx: tx._connection.pragma("integrity_check"), op="check")
            == "ok"
        )
        assert (
            await restored.read(
                lambda tx: tx.first("test.count_like", pattern="???????*").n, op="count"
            )
            >= 200
        )


async def test_a_backup_comes_to_its_end_beside_another_connection_that_never_stops_writing(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit of another process starts a copy in steps over, and one comes between any two steps."""
    copy = tmp_db.with_name("copy.db")
    monkeypatch.setattr(backup, "STEP_PAGES", 1)  # a thousand steps
    async with opened(tmp_db) as backend, opened(tmp_db) as other:
        await append_large(backend, 200)
        done = anyio.Event()
        began = anyio.Event()

        async def append() -> None:
            while not done.is_set():
                await other.write(insert("during"), op="append")
                began.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append)
            await began.wait()
            with anyio.fail_after(PATIENCE_S):
                assert await backend.backup(copy) > 1_000
            done.set()
    async with opened(copy) as restored:
        assert (
            await restored.read(lambda tx: tx._connection.pragma("integrity_check"), op="check")
            == "ok"
        )
        assert (
            await restored.read(
                lambda tx: tx.first("test.count_like", pattern="???????*").n, op="count"
            )
            >= 200
        )


async def test_a_copy_in_steps_that_others_start_over_is_given_up_and_leaves_nothing_behind(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "STEP_PAGES", 8)
    copy = tmp_db.with_name("copy.db")
    async with opened(tmp_db) as backend:
        await append_large(backend, 50)
        connection = apsw.Connection(str(tmp_db))
        try:
            steps = backup.backup(connection, str(copy))
            with pytest.raises(backup.StartedOver):  # noqa: PT012  # at one of its next steps
                for _ in range(2 * backup.RESTARTS_MAX):
                    next(steps)
                    await backend.write(insert("by another connection"), op="append")
        finally:
            connection.close()
        assert not [name for name in names_in(tmp_db.parent) if name.startswith("copy")]


async def test_a_backup_from_one_snapshot_that_is_cancelled_leaves_nothing_behind(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "AT_ONCE_PAGES", 1)
    async with opened(tmp_db) as backend:
        await append_large(backend, 200)
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                await until(lambda: "copy.db.partial" in names_in(tmp_db.parent))
                scope.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel)
                await backend._backup_at_once(str(tmp_db.with_name("copy.db")))
        assert not [name for name in names_in(tmp_db.parent) if name.startswith("copy")]


async def test_a_backup_from_one_snapshot_that_is_cancelled_before_it_begins_ends_at_once(
    tmp_db: Path,
) -> None:
    async with opened(tmp_db) as backend:
        await append_large(backend, 50)
        with anyio.fail_after(PATIENCE_S), anyio.CancelScope() as scope:
            scope.cancel()
            await backend._backup_at_once(str(tmp_db.with_name("copy.db")))
        assert scope.cancelled_caught
        assert not [name for name in names_in(tmp_db.parent) if name.startswith("copy.db.p")]


async def test_a_backup_gets_its_turns_beside_work_that_always_has_a_next_step(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "STEP_PAGES", 8)
    async with opened(tmp_db) as backend:
        await append_large(backend, 200)
        done = anyio.Event()
        steps = 0

        async def work() -> None:
            nonlocal steps
            while not done.is_set():
                await backend.step(insert("step"), op="work")
                steps += 1

        async with anyio.create_task_group() as tasks:
            for _ in range(3):  # one is always queued
                tasks.start_soon(work)
            with anyio.fail_after(PATIENCE_S):
                pages = await backend.backup(tmp_db.with_name("copy.db"))
            done.set()
        assert steps < 1.5 * pages / 8, "between two steps of the backup there was one of the work"


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
async def test_a_backup_to_a_file_system_without_hard_links_is_refused_before_a_page_is_copied(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    async with opened(tmp_db) as backend:
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", refuse)
            patch.setattr(apsw, "Connection", None)  # what the copy would be opened with
            with pytest.raises(InvalidInput, match="no hard links; choose another destination"):
                await backend.backup(tmp_db.with_name("copy.db"))
        assert not [name for name in names_in(tmp_db.parent) if name.startswith("copy")]
        assert await backend.backup(tmp_db.with_name("copy.db")) > 0


async def test_a_backup_whose_name_is_taken_while_it_runs_is_refused_and_leaves_the_file_alone(
    tmp_db: Path,
) -> None:
    copy = tmp_db.with_name("copy.db")
    async with opened(tmp_db) as backend:
        await append_large(backend, 50)
        task = backup.backup(backend._parts.writer._connection, str(copy))
        next(task)
        copy.write_text("mine")
        with pytest.raises(InvalidInput, match="A backup never overwrites"):
            list(task)
        assert copy.read_text() == "mine"
        assert not copy.with_name("copy.db.partial").exists()


async def test_backups_are_refused_beyond_a_limit_and_one_that_is_given_up_makes_room(
    tmp_db: Path,
) -> None:
    async with opened(tmp_db) as backend:
        writer = backend._parts.writer
        async with held_writer(backend), anyio.create_task_group() as tasks:
            for number in range(MAINTENANCE_TASKS_MAX):
                tasks.start_soon(backend.backup, tmp_db.with_name(f"copy{number}.db"))
            await until(lambda: len(writer.queue.tasks) == MAINTENANCE_TASKS_MAX)
            with pytest.raises(
                StoreBusy,
                match=r"incremental_vacuum was refused: 16 backups .* \(limit 16\); running: backup",
            ) as busy:
                await backend.incremental_vacuum(1)
            assert (busy.value.queue_items, busy.value.holder) == (MAINTENANCE_TASKS_MAX, "backup")
            assert busy.value.retry_after_ms > 0
            assert writer.queue.requests_refused == 1
            tasks.cancel_scope.cancel()
        assert writer.queue.tasks == []
        assert await backend.incremental_vacuum(1) == 0


async def test_a_cancelled_backup_leaves_nothing_behind(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        await append_large(backend, 50)
        async with anyio.create_task_group() as tasks:

            async def cancelled() -> None:
                await backend.backup(tmp_db.with_name("copy.db"))

            async with held_writer(backend):
                tasks.start_soon(cancelled)
                await until(lambda: len(backend._parts.writer.queue.tasks) == 1)
                tasks.cancel_scope.cancel()
        await backend.write(insert("next"), op="append")
        await until(lambda: not backend._parts.writer.queue.tasks)
        assert not [name for name in names_in(tmp_db.parent) if name.startswith("copy")]


async def test_closing_during_a_backup_ends_it_typed_and_cleans_up(tmp_db: Path) -> None:
    backend = await SqliteBackend.open(tmp_db)
    await append_large(backend, 200)
    errors: list[Exception] = []

    async def back_up() -> None:
        try:
            await backend.backup(tmp_db.with_name("copy.db"))
        except StoreClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        hold = Hold()
        tasks.start_soon(lambda: backend.write(hold, op="hold"))
        await until(hold.begun.is_set)
        tasks.start_soon(back_up)
        await until(lambda: len(backend._parts.writer.queue.tasks) == 1)
        backend._parts.writer.stop()
        hold.release.set()
    await backend.close()
    assert ["backup was done" in str(error) for error in errors] == [True]
    assert names_in(tmp_db.parent) == [tmp_db.name]


async def test_free_pages_are_given_back_in_steps(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        await append_large(backend, 200)
        await backend.write(lambda tx: tx.run("test.delete_large"), op="delete")
        free = await backend.read(lambda tx: tx._connection.pragma("freelist_count"), op="free")
        assert free > 3 * STEP_PAGES
        commits = backend.stats()["writer"]["wal_bytes"]
        assert commits > 0
        assert await backend.incremental_vacuum(10) == 10
        assert (
            await backend.read(lambda tx: tx._connection.pragma("freelist_count"), op="free")
            == free - 10
        )
        assert await backend.incremental_vacuum(10**6) == free - 10
        assert await backend.incremental_vacuum(10**6) == 0
    assert tmp_db.stat().st_size < 80 * 4096, "what is left is the empty tables of the schema"


async def test_a_database_is_copied_through_the_front_door_while_it_is_written(
    tmp_db: Path, tmp_path: Path
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:web:1")
        await session.append({"role": "user", "content": "before"})
        assert await db.backup(tmp_path / "copy.db") > 0
        await session.append({"role": "user", "content": "after"})
        with pytest.raises(sessiondb.InvalidInput, match="never overwrites"):
            await db.backup(tmp_path / "copy.db")
    async with sessiondb.open(tmp_path / "copy.db") as copy:
        context = await (await copy.session("agent:main:web:1")).context()
        assert [message["content"] for message in context.messages] == ["before"]
        assert (await copy.verify()).ok
