"""A database whose files are moved, deleted or replaced while it is open: nothing is lost in them.

What was acknowledged is found again by the next process. What comes after the change is
refused, by every connection, with the name of the file.
"""

# ruff: noqa: ASYNC240  # tests look at files as they please

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from sessiondb.errors import NewerSchema, StoreFailed, outcome_of
from sessiondb.limits import Limits
from sessiondb.sqlite import SqliteBackend, schema
from sessiondb.sqlite.checkpoint import Checkpointer
from sessiondb.sqlite.connection import drain
from tests.support.engine import count, held_writer, insert, opened, other_process, until

pytestmark = pytest.mark.anyio

SUFFIXES = ["", "-wal", "-shm"]

# Another process with the same database: "kill" ends it at once, "close" in good order, and
# anything else inserts a row of that name.
OTHER = """
import os, sys, anyio
from tests.support.engine import SqliteBackend, insert
async def main():
    backend = await SqliteBackend.open(sys.argv[1])
    print("open", flush=True)
    for line in sys.stdin:
        if line == "kill\\n":
            os._exit(9)
        if line == "close\\n":
            break
        await backend.write(insert(line.strip()), op="append")
        print("written", flush=True)
    await backend.close()
    print("closed", flush=True)
anyio.run(main)
"""


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def delete(file: Path) -> None:
    file.unlink()


def move(file: Path) -> None:
    file.rename(file.with_name("moved" + file.name))


def replace(file: Path) -> None:
    other = file.with_name("other" + file.name)
    shutil.copy(file, other)
    other.replace(file)


WAYS = [delete, move, replace]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("suffix", SUFFIXES)
async def test_after_a_change_writes_and_reads_fail_and_name_the_file(
    tmp_db: Path, suffix: str, way: Any
) -> None:
    async with (
        opened(tmp_db, guard=False) as backend,
        opened(tmp_db, readonly=True) as visitor,
    ):
        await backend.write(insert("before"), op="append")
        assert [await count(each, "before") for each in (backend, visitor)] == [1, 1]
        way(beside(tmp_db, suffix))
        gone = rf"{tmp_db.name}{suffix} was moved, deleted or replaced while it was open"
        with pytest.raises(StoreFailed, match=f"append: .*{gone}.*Nothing was changed") as refused:
            await backend.write(insert("refused"), op="append")
        assert outcome_of(refused.value) == "not_executed"
        for each in (backend, visitor):
            for _ in range(8):  # readers that have no connection yet must not make one
                with pytest.raises(StoreFailed, match=f"count: .*{gone}.*Nothing was read"):
                    await count(each, "before")


@pytest.mark.parametrize("suffixes", [["-wal"], ["-shm"], ["-wal", "-shm"]])
async def test_what_was_acknowledged_is_there_after_its_wal_was_deleted(
    tmp_db: Path, suffixes: list[str]
) -> None:
    async with opened(tmp_db, guard=False) as backend:
        for number in range(5):
            await backend.write(insert(f"before {number}"), op="append")
        for suffix in suffixes:
            beside(tmp_db, suffix).unlink()
        with pytest.raises(StoreFailed):
            await backend.write(insert("refused"), op="append")
    async with opened(tmp_db) as again:
        assert [await count(again, f"before {number}") for number in range(5)] == [1] * 5
        assert await count(again, "refused") == 0


async def test_what_is_committed_into_a_deleted_wal_is_not_acknowledged_or_saved(
    tmp_db: Path,
) -> None:
    """The -wal goes between BEGIN and COMMIT, so only a look after COMMIT can notice."""
    async with opened(tmp_db, guard=False) as backend:
        await backend.write(insert("before"), op="append")
        async with held_writer(backend) as hold:
            hold.then = insert("during")
            beside(tmp_db, "-wal").unlink()
        with pytest.raises(StoreFailed):
            await backend.write(insert("after"), op="append")
    async with opened(tmp_db) as again:  # it was acknowledged, because it was saved
        assert [await count(again, name) for name in ("before", "during", "after")] == [1, 1, 0]


async def test_a_commit_into_a_database_that_was_deleted_is_unknown(tmp_db: Path) -> None:
    async with opened(tmp_db, guard=False) as backend:
        await backend.write(insert("before"), op="append")
        with pytest.raises(BaseExceptionGroup) as group:
            async with held_writer(backend):
                tmp_db.unlink()
        [error] = group.value.exceptions
        assert outcome_of(error) == "unknown"
        assert "has no name any more" in str(error)


@pytest.mark.parametrize("suffix", SUFFIXES)
async def test_closing_leaves_what_another_process_has_put_there(tmp_db: Path, suffix: str) -> None:
    backend = await SqliteBackend.open(tmp_db, guard=False)
    for number in range(3):
        await backend.write(insert(f"mine {number}"), op="append")
    for other_suffix in SUFFIXES if suffix == "" else [suffix]:
        beside(tmp_db, other_suffix).unlink()
    if suffix == "-wal":  # noticed, and saved: another process does not open it before
        with pytest.raises(StoreFailed):
            await backend.write(insert("refused"), op="append")
        beside(tmp_db, "-shm").unlink()
    with other_process(OTHER, tmp_db) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        child.stdin.write("theirs\nkill\n")
        child.stdin.flush()
        assert child.stdout.readline() == "written\n"
        assert child.wait(30) == 9
    await backend.close()
    async with opened(tmp_db) as again:
        assert await count(again, "theirs") == 1
        mine = [await count(again, f"mine {number}") for number in range(3)]
        assert mine == ([0] * 3 if suffix == "" else [1] * 3)


@pytest.mark.parametrize("put_there", ["an empty file", "a copy"])
async def test_after_an_io_error_no_other_file_is_adopted(tmp_db: Path, put_there: str) -> None:
    def fail(tx: Any) -> None:
        raise apsw.IOError("the volume is gone")

    async with opened(tmp_db, guard=False) as backend:
        await backend.write(insert("before"), op="append")
        assert await count(backend, "before") == 1
        with pytest.raises(StoreFailed, match="the volume is gone"):
            await backend.write(fail, op="append")
        for suffix in SUFFIXES:
            move(beside(tmp_db, suffix))
        if put_there == "a copy":
            shutil.copy(tmp_db.with_name("moved" + tmp_db.name), tmp_db)
        else:
            tmp_db.touch()
        content = tmp_db.read_bytes()
        for _ in range(3):
            with pytest.raises(StoreFailed, match="was moved, deleted or replaced"):
                await backend.write(insert("lost"), op="append")
        with pytest.raises(StoreFailed, match="was moved, deleted or replaced"):
            await count(backend, "before")
        assert tmp_db.read_bytes() == content
        for suffix in SUFFIXES:
            moved = beside(tmp_db, suffix)
            moved.with_name("moved" + moved.name).replace(moved)
        await backend.write(insert("after"), op="append")
        assert [await count(backend, name) for name in ("before", "lost", "after")] == [1, 0, 1]


async def test_after_an_io_error_a_database_that_others_closed_is_opened_again(
    tmp_db: Path,
) -> None:
    """Without a connection here the last other process deletes the -wal, in good order."""

    def fail(tx: Any) -> None:
        raise apsw.IOError("a cable")

    async with opened(tmp_db) as backend:
        await backend.write(insert("before"), op="append")
        with other_process(OTHER, tmp_db) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            with pytest.raises(StoreFailed, match="a cable"):
                await backend.write(fail, op="append")
            child.stdin.write("close\n")
            child.stdin.flush()
            assert child.stdout.readline() == "closed\n"
        assert not beside(tmp_db, "-wal").exists()
        await backend.write(insert("after"), op="append")
        assert [await count(backend, name) for name in ("before", "after")] == [1, 1]


async def test_after_an_io_error_reads_wait_for_no_write(tmp_db: Path) -> None:
    """The last connection that closes takes the -wal along. Nobody has moved anything."""

    def fail(tx: Any) -> None:
        raise apsw.IOError("a cable")

    def fail_to_read(tx: Any) -> None:
        tx.failure = apsw.IOError("a cable")
        raise tx.failure

    async with opened(tmp_db, limits=Limits(readers=1)) as backend:
        await backend.write(insert("before"), op="append")
        with other_process(OTHER, tmp_db) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            with pytest.raises(StoreFailed, match="a cable"):
                await backend.write(fail, op="append")
            assert await count(backend, "before") == 1
            with pytest.raises(apsw.IOError, match="a cable"):
                await backend.read(fail_to_read, op="count")
            for line, answer in (("theirs", "written"), ("close", "closed")):
                child.stdin.write(f"{line}\n")
                child.stdin.flush()
                assert child.stdout.readline() == f"{answer}\n"
        assert not beside(tmp_db, "-wal").exists()
        for _ in range(2):
            assert [await count(backend, name) for name in ("before", "theirs")] == [1, 1]
        assert not backend.stats()["writer"]["connected"]
        await backend.write(insert("after"), op="append")
        assert [await count(backend, name) for name in ("before", "theirs", "after")] == [1] * 3


async def test_a_release_that_has_the_file_open_stops_when_a_newer_one_migrates_it(
    tmp_db: Path,
) -> None:
    newer = schema.SCHEMA_VERSION + 1
    async with (
        opened(tmp_db) as backend,
        opened(tmp_db, readonly=True) as visitor,
    ):
        await backend.write(insert("before"), op="append")
        other = apsw.Connection(str(tmp_db))
        drain(other, f"PRAGMA user_version = {newer}")
        migrated = f"migrated it to schema {newer} while it was open here"
        for _ in range(2):
            with pytest.raises(NewerSchema, match=f"append: .*{migrated}") as refused:
                await backend.write(insert("refused"), op="append")
            assert outcome_of(refused.value) == "not_executed"
            assert (refused.value.found, refused.value.known) == (newer, schema.SCHEMA_VERSION)
        for each in (backend, visitor):
            with pytest.raises(NewerSchema, match=f"count: .*{migrated}"):
                await count(each, "before")
        [(rows,)] = drain(other, "SELECT count(*) FROM instance WHERE program = 'refused'")
        other.close()
    assert rows == 0


@pytest.mark.parametrize("when", ["before BEGIN", "while it waits", "before the WAL is named"])
async def test_no_commit_follows_a_migration_whenever_it_comes(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Not even one that only names the WAL."""
    newer = schema.SCHEMA_VERSION + 1
    foresee, notice = Checkpointer.starts_over, Checkpointer.has_started_over
    seen: list[object] = []

    def migrate() -> None:
        drain(other, f"PRAGMA user_version = {newer}")
        drain(other, "UPDATE instance SET program = 'migrated' WHERE program = 'one'")
        seen.extend(drain(other, "PRAGMA data_version"))  # moves when another one commits

    def before_begin(self: Checkpointer, connection: apsw.Connection) -> bool:
        foreseen = foresee(self, connection)
        if when == "before BEGIN" and not seen:
            migrate()
        return foreseen

    def after_commit(self: Checkpointer, connection: apsw.Connection) -> bool:
        started_over = notice(self, connection)
        if when == "before the WAL is named" and not seen:
            migrate()
            return True
        return started_over

    async with opened(tmp_db, limits=Limits(wal_fold_s=3_600)) as backend:
        for name in ("one", "two"):
            await backend.write(insert(name), op="append")
        other = apsw.Connection(str(tmp_db))
        drain(other, "SELECT * FROM instance")
        with monkeypatch.context() as patch:
            patch.setattr(Checkpointer, "starts_over", before_begin)
            patch.setattr(Checkpointer, "has_started_over", after_commit)
            if when == "while it waits":
                drain(other, "BEGIN IMMEDIATE")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(refused_by_a_newer_schema, backend, newer)
                    await until(lambda: backend.stats()["writer"]["busy_waits"] > 0)
                    migrate()
                    drain(other, "COMMIT")
            elif when == "before BEGIN":
                await refused_by_a_newer_schema(backend, newer)
            else:
                await backend.write(insert("three"), op="append")
        for _ in range(2):
            await refused_by_a_newer_schema(backend, newer)
        assert drain(other, "PRAGMA data_version") == seen
    other.close()


async def refused_by_a_newer_schema(backend: SqliteBackend, newer: int) -> None:
    with pytest.raises(NewerSchema, match=f"append: .*migrated it to schema {newer}") as refused:
        await backend.write(insert("refused"), op="append")
    assert outcome_of(refused.value) == "not_executed"


async def test_a_waiting_follower_is_woken_when_its_file_is_replaced(tmp_db: Path) -> None:
    async with opened(tmp_db, guard=False) as backend:
        await backend.write(insert("before"), op="append")
    async with opened(tmp_db, readonly=True) as follower:
        await follower.wait_change(0, 30)  # its first look at the version
        seen = follower.change_count
        replace(tmp_db)
        await follower.wait_change(seen, 600)
        with pytest.raises(StoreFailed, match="was moved, deleted or replaced"):
            await count(follower, "before")


async def test_the_write_path_looks_at_each_file_twice_a_transaction(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    real = os.stat

    def counting(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_db)):
            looks.append(str(path)[len(str(tmp_db)) :])
        return real(path, *args, **options)

    async with opened(tmp_db, guard=False) as backend:
        await backend.write(insert("before"), op="append")
        await until(lambda: not backend.stats()["writer"]["running_op"])
        with monkeypatch.context() as patch:
            patch.setattr("sessiondb.sqlite.files.os.stat", counting)
            await backend.write(insert("x"), op="append")
        assert looks == [*SUFFIXES, "-alive", *SUFFIXES]


async def test_a_fold_that_cannot_run_is_due_later_and_not_at_once(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(wal_fold_s=3_600, wal_retry_ms=60_000)) as backend:
        await backend.write(insert("before"), op="append")
        writer, moved = backend._parts.writer, tmp_db.with_name("elsewhere")
        assert writer is not None
        beside(tmp_db, "-wal").rename(moved)
        writer.checkpoints._fold_from = 0.0
        assert writer.checkpoints.due_in_s == 0.0
        writer._checkpoint_if_due()  # its thread would ask again without a pause
        due_in_s = writer.checkpoints.due_in_s
        assert due_in_s is not None
        assert due_in_s > 0.0
        moved.rename(beside(tmp_db, "-wal"))
        assert writer.checkpoints.due_in_s != 0.0
        assert await count(backend, "before") == 1
