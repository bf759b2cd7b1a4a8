"""Backup and incremental vacuum: complete copies beside writers, bounded steps, no rest."""

# ruff: noqa: ASYNC240  # tests look at files as they please

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import anyio
import apsw
import pytest

import sessiondb
from sessiondb.errors import InvalidInput, StoreBusy, StoreClosed
from sessiondb.limits import MAINTENANCE_TASKS_MAX
from sessiondb.sqlite import SqliteBackend, backup
from sessiondb.sqlite.backup import STEP_PAGES
from tests.support.engine import PATIENCE_S, Hold, held_writer, insert, names_in, opened, until

pytestmark = pytest.mark.anyio


async def append_large(backend: SqliteBackend, times: int, size: int = 20_000) -> None:
    for _ in range(times):
        await backend.write(lambda tx: tx.run("test.insert_large", size=size), op="append")


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
    assert sorted(names_in(tmp_db.parent)) == ["copy.db", "gateway.db", "gateway.db-alive"]
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


async def test_a_backup_ends_beside_a_connection_that_always_writes(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit of another process starts a copy over, and one comes between any two steps."""
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


async def test_a_copy_that_starts_over_is_abandoned_without_a_trace(
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


async def test_a_cancelled_copy_of_one_snapshot_leaves_no_file(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is held once its file exists, until the cancellation has reached it."""
    real_copy, real_partial = backup.backup_at_once, backup.make_partial
    begun, cancelled = threading.Event(), list[threading.Event]()

    def copy(connection: apsw.Connection, destination: str, abandoned: threading.Event) -> int:
        cancelled.append(abandoned)
        return real_copy(connection, destination, abandoned)

    def make_partial(path: str, what: str) -> str:
        partial = real_partial(path, what)
        begun.set()
        assert cancelled[0].wait(PATIENCE_S)
        return partial

    monkeypatch.setattr(backup, "backup_at_once", copy)
    monkeypatch.setattr(backup, "make_partial", make_partial)
    async with opened(tmp_db) as backend:
        await append_large(backend, 200)
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                await until(begun.is_set)
                assert "copy.db.partial" in names_in(tmp_db.parent)
                scope.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel)
                await backend._backup_at_once(str(tmp_db.with_name("copy.db")))
        assert scope.cancelled_caught
        assert not [name for name in names_in(tmp_db.parent) if name.startswith("copy")]


async def test_a_copy_cancelled_before_it_begins_ends_at_once(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        await append_large(backend, 50)
        with anyio.fail_after(PATIENCE_S), anyio.CancelScope() as scope:
            scope.cancel()
            await backend._backup_at_once(str(tmp_db.with_name("copy.db")))
        assert scope.cancelled_caught
        assert not [name for name in names_in(tmp_db.parent) if name.startswith("copy.db.p")]


async def test_a_backup_takes_turns_with_work_that_never_ends(
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
async def test_a_backup_without_hard_links_is_refused_at_once(
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


async def test_a_backup_leaves_a_file_that_took_its_name_alone(tmp_db: Path) -> None:
    copy = tmp_db.with_name("copy.db")
    async with opened(tmp_db) as backend:
        await append_large(backend, 50)
        task = backup.backup(backend._parts.writer._connection.live, str(copy))
        next(task)
        copy.write_text("mine")
        with pytest.raises(InvalidInput, match="A backup never overwrites"):
            list(task)
        assert copy.read_text() == "mine"
        assert not copy.with_name("copy.db.partial").exists()


async def test_backups_have_a_limit_and_an_abandoned_one_makes_room(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        writer = backend._parts.writer
        async with held_writer(backend), anyio.create_task_group() as tasks:
            for number in range(MAINTENANCE_TASKS_MAX):
                tasks.start_soon(backend.backup, tmp_db.with_name(f"copy{number}.db"))
            await until(lambda: len(writer.queue.tasks) == MAINTENANCE_TASKS_MAX)
            with pytest.raises(
                StoreBusy,
                match=r"vacuum was refused: 16 backups .* \(limit 16\); running: backup",
            ) as busy:
                await backend.incremental_vacuum(1)
            assert (busy.value.queue_items, busy.value.holder) == (MAINTENANCE_TASKS_MAX, "backup")
            assert busy.value.retry_after_ms > 0
            assert writer.queue.requests_refused == 1
            tasks.cancel_scope.cancel()
        assert writer.queue.tasks == []
        assert await backend.incremental_vacuum(1) == 0


async def test_a_cancelled_backup_leaves_no_file(tmp_db: Path) -> None:
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
    assert names_in(tmp_db.parent) == [tmp_db.name, f"{tmp_db.name}-alive"]


async def test_free_pages_are_returned_in_steps(tmp_db: Path) -> None:
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
    assert tmp_db.stat().st_size < 120 * 4096, "what is left is the empty tables of the schema"


async def test_a_database_in_use_is_copied_through_the_front_door(
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
