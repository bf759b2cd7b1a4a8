"""A database that was moved, copied or restored without its -wal, or beside another one."""

# ruff: noqa: ASYNC240  # tests look at files as they please

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from sessiondb.errors import InvalidInput, NotASessionDB, OpenError
from sessiondb.limits import MIB, Limits
from sessiondb.sqlite import stray_wal, user_query, wal_link
from sessiondb.sqlite.checkpoint import Checkpointer
from sessiondb.sqlite.connection import drain
from tests.support.core import one_loop
from tests.support.engine import PATIENCE_S, count, insert, names_in, opened, run_python, until

pytestmark = pytest.mark.anyio

SUFFIXES = ["", "-wal", "-shm"]

# A process that writes rows, and dies without closing. `program` tells its rows from others.
KILLED = """
import os, sys, anyio
from sessiondb.limits import MIB, Limits
from sessiondb.sqlite import SqliteBackend
from tests.support.engine import insert
async def main(path, program, rows, backup):
    backend = await SqliteBackend.open(path, limits=Limits(wal_fold_s=3600))
    for number in range(int(rows)):
        await backend.write(insert(f"{program} {number}"), op="append")
        if backup and number == 2:
            await backend.backup(backup)
    os._exit(9)
anyio.run(main, *sys.argv[1:])
"""


COPY = "import shutil, sys; shutil.copy(*sys.argv[1:])"


def killed(path: Path, program: str = "row", rows: int = 5, backup: object = "") -> None:
    done = run_python(KILLED, path, program, rows, backup)
    assert done.returncode == 9, done.stderr


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names_in(folder)}


async def look(path: Path) -> None:
    with user_query.query(
        str(path), "SELECT 1", {}, timeout_s=PATIENCE_S, is_unwanted=lambda: False
    ) as (_, rows):
        list(rows)


async def write(path: Path) -> None:
    async with opened(path):
        pass


async def read(path: Path) -> None:
    async with opened(path, readonly=True):
        pass


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run on one event loop: what belongs to which file does not depend on it."""
    return "asyncio"


DOORS = pytest.mark.parametrize("door", [write, read, look], ids=lambda door: door.__name__)


async def rows_of(path: Path, program: str = "row") -> int:
    async with opened(path) as backend:
        return await backend.read(
            lambda tx: int(tx.first("test.count_like", pattern=f"{program} *").n), op="count"
        )


# -- a -wal without its database -------------------------------------------------------


@DOORS
@pytest.mark.parametrize("put_there", ["nothing", "an empty file"])
async def test_a_wal_is_kept_when_its_database_was_moved_away(
    tmp_db: Path, put_there: str, door: Any
) -> None:
    killed(tmp_db)
    moved = tmp_db.rename(tmp_db.with_name("moved.db"))
    if put_there == "an empty file":
        tmp_db.touch()
    before = content(tmp_db.parent)
    with pytest.raises(OpenError, match=rf"{tmp_db.name}-wal has [\d,]+ bytes of commits"):
        await door(tmp_db)
    assert content(tmp_db.parent) == before
    moved.replace(tmp_db)
    assert await rows_of(tmp_db) == 5


async def test_nothing_new_is_put_beside_a_wal_of_another_database(tmp_db: Path) -> None:
    wal = tmp_db.with_name("copy.db-wal")
    wal.write_bytes(b"the last commits of a database that was here")
    async with opened(tmp_db) as backend:
        with pytest.raises(InvalidInput, match=r"copy\.db-wal: there is a file already"):
            await backend.backup(tmp_db.with_name("copy.db"))
    assert names_in(tmp_db.parent) == ["copy.db-wal", tmp_db.name, f"{tmp_db.name}-alive"]


# -- a database without its -wal -------------------------------------------------------


@DOORS
@pytest.mark.parametrize("how", ["removed", "emptied"])
async def test_a_wal_that_is_missing_is_named_if_it_had_commits(
    tmp_db: Path, how: str, door: Any
) -> None:
    killed(tmp_db)
    wal = beside(tmp_db, "-wal")
    kept = wal.rename(tmp_db.with_name("kept"))
    if how == "emptied":
        wal.touch()
    before = content(tmp_db.parent)
    with pytest.raises(OpenError, match=rf"{tmp_db.name}-wal is missing.* pages of commits"):
        await door(tmp_db)
    assert content(tmp_db.parent) == before
    kept.replace(wal)
    assert await rows_of(tmp_db) == 5


async def test_a_wal_that_others_have_just_folded_is_not_missing(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks the last process closes, and another one begins to open."""
    killed(tmp_db)
    real, folded = stray_wal.file_status, []

    def file_status(path: str) -> os.stat_result | None:
        if path.endswith("-wal") and stray_wal._looking.locked() and not folded:
            with closing(apsw.Connection(str(tmp_db))) as other:
                folded.extend(other.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
            assert not beside(tmp_db, "-shm").exists()
            beside(tmp_db, "-shm").touch()
        return real(path)

    monkeypatch.setattr(stray_wal, "file_status", file_status)
    assert await rows_of(tmp_db) == 5
    assert folded


async def test_a_wal_that_is_missing_beside_a_live_gateway_is_named_to_others(
    tmp_db: Path,
) -> None:
    async with opened(tmp_db, guard=False, limits=Limits(wal_fold_s=3600)) as backend:
        await backend.write(insert("row 0"), op="append")
        beside(tmp_db, "-wal").unlink()
        done = run_python(KILLED, tmp_db, "other", 1, "")
        assert "gateway.db-wal is missing" in done.stderr
        assert not beside(tmp_db, "-wal").exists()


async def test_without_its_shm_a_database_lacks_nothing(tmp_db: Path) -> None:
    killed(tmp_db)
    beside(tmp_db, "-shm").unlink()
    assert await rows_of(tmp_db) == 5


async def test_a_wal_that_was_folded_may_be_missing(tmp_db: Path) -> None:
    killed(tmp_db)
    other = apsw.Connection(str(tmp_db))
    reader = apsw.Connection(str(tmp_db), flags=apsw.SQLITE_OPEN_READONLY)
    for connection in (reader, other):
        drain(connection, "SELECT * FROM instance")
    other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    for suffix in ("", "-shm"):  # as after a kill: both connections are still open
        shutil.copy(beside(tmp_db, suffix), beside(tmp_db.with_name("copy.db"), suffix))
    reader.close()
    other.close()
    assert await rows_of(tmp_db.with_name("copy.db")) == 5


async def test_an_idle_gateway_folds_its_wal_into_the_file(tmp_db: Path) -> None:
    """A copy of the one file, which many take for a backup, then has what was written."""
    async with opened(tmp_db, guard=False, limits=Limits(wal_fold_s=0.05)) as backend:
        for burst in range(3):
            for number in range(5):
                await backend.write(insert(f"row {burst} {number}"), op="append")
            copy, found = tmp_db.with_name("copy.db"), 0
            with anyio.fail_after(PATIENCE_S):
                while found < 5 * (burst + 1):
                    # In another process: a copy by this one would drop the locks.
                    done = run_python(
                        "import shutil, sys; shutil.copy(*sys.argv[1:])", tmp_db, copy
                    )
                    assert done.returncode == 0, done.stderr
                    found = await rows_of(copy)


async def test_a_busy_gateway_is_not_interrupted_to_fold(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(wal_fold_s=3600)) as backend:
        for number in range(20):
            await backend.write(insert(f"row {number}"), op="append")
        assert backend.stats()["writer"]["checkpoint"]["folded"] == 1, "the one at the start"


async def test_a_fold_that_a_reader_prevents_is_tried_again(tmp_db: Path) -> None:
    limits = Limits(wal_fold_s=0.01, wal_retry_ms=10)
    async with opened(tmp_db, limits=limits) as backend:
        await backend.write(insert("row 0"), op="append")
        await until(lambda: backend.stats()["writer"]["checkpoint"]["folded"] == 2)
        other = apsw.Connection(str(tmp_db), flags=apsw.SQLITE_OPEN_READONLY)
        drain(other, "BEGIN; SELECT count(*) FROM instance")
        await backend.write(insert("row 1"), op="append")
        await until(lambda: backend.stats()["writer"]["checkpoint"]["folds_blocked"] >= 2)
        drain(other, "COMMIT")
        other.close()
        await until(lambda: backend.stats()["writer"]["checkpoint"]["folded"] >= 3)


async def test_a_copy_of_the_file_alone_is_never_called_empty(tmp_db: Path) -> None:
    """From the first moment on: the schema is in the file before the first -wal."""
    killed(tmp_db, rows=1)
    for suffix in ("-wal", "-shm"):
        beside(tmp_db, suffix).unlink()
    async with opened(tmp_db, readonly=True):
        pass


@DOORS
async def test_a_file_that_lost_even_its_schema_is_not_made_anew(tmp_db: Path, door: Any) -> None:
    """Other programs, and earlier versions, create the tables in the -wal."""
    other = apsw.Connection(str(tmp_db))
    drain(other, "PRAGMA journal_mode = wal")
    other.close()
    before = content(tmp_db.parent)
    if door is look:
        await door(tmp_db)
    else:
        with pytest.raises(NotASessionDB, match=r"empty and in WAL mode.*gateway\.db-wal"):
            await door(tmp_db)
    assert content(tmp_db.parent) == before


async def test_a_creation_that_is_killed_is_begun_again(tmp_db: Path) -> None:
    """At each step of it: before the schema, before WAL is set, before the first row."""
    for step in ("schema_text", "_wal", "register"):
        code = f"""
import os, sys, anyio
from sessiondb.sqlite import SqliteBackend, connection, schema, write_connection
for module in (connection, schema, write_connection):
    if hasattr(module, {step!r}):
        setattr(module, {step!r}, lambda *a, **o: os._exit(9))
anyio.run(SqliteBackend.open, sys.argv[1])
"""
        path = tmp_db.with_name(f"{step}.db")
        assert run_python(code, path).returncode == 9
        killed(path)
        assert await rows_of(path) == 5


def test_opening_reads_no_helper_file_of_a_database_that_is_open_here(tmp_db: Path) -> None:
    """Closing its descriptor would drop the locks of the first connection."""

    async def main() -> None:
        async with opened(tmp_db, guard="raise") as first:
            await first.write(insert("row 0"), op="append")
            async with opened(tmp_db, guard=False), opened(tmp_db, readonly=True):
                pass
            assert first.stats()["guard_violations"] == 0
            assert await count(first, "row 0") == 1

    anyio.run(main)
    assert names_in(tmp_db.parent) == [tmp_db.name, f"{tmp_db.name}-alive"]


# -- a -wal of another state -----------------------------------------------------------


PUT = {
    "cp over": lambda backup, path: shutil.copy(backup, path),
    "mv over": lambda backup, path: backup.replace(path),
}


def foreign(path: Path) -> str:
    return rf"{path.name}-wal: this WAL does not belong to .*{path.name}"


@DOORS
@pytest.mark.parametrize("how", PUT)
@pytest.mark.parametrize("rows", [5, 400])
async def test_a_backup_beside_the_wal_of_what_it_replaces_is_refused(
    tmp_db: Path, rows: int, how: str, door: Any
) -> None:
    backup = tmp_db.with_name("backup.db")
    killed(tmp_db, rows=rows, backup=backup)
    if how == "mv over":
        tmp_db.rename(tmp_db.with_name("old.db"))
    else:
        shutil.copy(tmp_db, tmp_db.with_name("old.db"))
    shutil.copy(backup, tmp_db.with_name("again.db"))
    PUT[how](backup, tmp_db)
    before = content(tmp_db.parent)
    with pytest.raises(OpenError, match=foreign(tmp_db)):
        await door(tmp_db)
    assert content(tmp_db.parent) == before
    # What the message says: both are whole, each with its own files.
    for suffix in ("-wal", "-shm"):
        beside(tmp_db, suffix).rename(beside(tmp_db.with_name("old.db"), suffix))
    assert await rows_of(tmp_db) == 3
    assert await rows_of(tmp_db.with_name("old.db")) == rows


@pytest.mark.parametrize("kind", ["a copy of the closed file", "one by the shell", "another's"])
async def test_any_other_state_beside_a_wal_is_refused_too(tmp_db: Path, kind: str) -> None:
    copy = tmp_db.with_name("copy.db")
    async with opened(tmp_db) as backend:
        await backend.write(insert("row 0"), op="append")
    if kind == "another's":
        async with opened(copy):
            pass
    elif kind == "one by the shell":
        other = apsw.Connection(str(tmp_db))
        drain(other, f"VACUUM INTO '{copy}'")
        other.close()
    else:
        shutil.copy(tmp_db, copy)
    killed(tmp_db)
    copy.replace(tmp_db)
    with pytest.raises(OpenError, match=foreign(tmp_db)):
        await write(tmp_db)


@one_loop
async def test_a_wal_is_taken_for_its_own_whenever_the_gateway_dies(tmp_db: Path) -> None:
    """Also after folds, resets, a backup, another writer, and in the middle of a checkpoint."""
    code = """
import contextlib, os, random, sys, anyio, apsw
from sessiondb.limits import MIB, Limits
from sessiondb.sqlite import SqliteBackend
from tests.support.engine import insert
async def main(path, seed):
    dice = random.Random(seed)
    limits = Limits(wal_bytes_max=65_536, wal_fold_s=dice.choice([0.0, 0.01, 3600]))
    backend = await SqliteBackend.open(path, limits=limits)
    other = apsw.Connection(path)
    other.set_busy_timeout(30_000)
    for number in range(dice.randrange(60)):
        await backend.write(insert(f"{seed} {number} " + "x" * dice.choice([1, 5000])), op="append")
        print("row", flush=True)
        step = dice.randrange(8)
        if step == 0:
            with contextlib.suppress(apsw.BusyError):
                other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        elif step == 1:
            other.execute("UPDATE instance SET program = 'x' WHERE instance_no = 1").fetchall()
        elif step == 2:
            await backend.incremental_vacuum(10)
        elif step == 3:
            await anyio.sleep(0.01)
    os._exit(9)
anyio.run(main, sys.argv[1], sys.argv[2])
"""
    rows = 0
    for seed in range(12):
        done = run_python(code, tmp_db, seed)
        assert done.returncode == 9, done.stderr
        rows += done.stdout.count("row\n")
        async with opened(tmp_db, readonly=True) as backend:
            assert rows == await backend.read(
                lambda tx: int(tx.first("test.count_like", pattern="[0-9]* *").n), op="count"
            )


def folding_behind(patch: pytest.MonkeyPatch, other: apsw.Connection) -> None:
    """Fold the WAL from elsewhere, just after the writer has looked whether it is folded."""
    foresee = Checkpointer.starts_over

    def fold_behind(self: Checkpointer, connection: apsw.Connection) -> bool:
        foreseen = foresee(self, connection)
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        return foreseen

    patch.setattr(Checkpointer, "starts_over", fold_behind)


def pages(other: apsw.Connection) -> int:
    return other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]


@pytest.mark.parametrize("size", [1_000, 1_000_000])
@pytest.mark.parametrize("rows", [5, 60])
async def test_a_wal_that_another_checkpoint_let_begin_is_named_at_once(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, rows: int, size: int
) -> None:
    """The writer foresees that its commit starts the WAL over. Otherwise it notices.

    It does so however long the WAL was, and however long the commit is.
    """
    async with opened(tmp_db, limits=Limits(wal_fold_s=3600)) as backend:
        for number in range(rows):
            await backend.write(insert(f"row {number}"), op="append")
        other = apsw.Connection(str(tmp_db))
        drain(other, "SELECT * FROM instance")
        [(before,)] = drain(other, "SELECT current FROM wal_link")
        long = pages(other)
        with monkeypatch.context() as patch:
            folding_behind(patch, other)
            await backend.write(lambda tx: tx.run("test.insert_large", size=size), op="append")
        assert drain(other, "SELECT previous FROM wal_link") == [(before,)]
        assert pages(other) < long + size // 4096, "the WAL has started over"
        [(named,)] = drain(other, "SELECT current FROM wal_link")
        await backend.write(insert("row"), op="append")
        assert drain(other, "SELECT current FROM wal_link") == [(named,)], "once is enough"
        other.close()


async def test_a_vacuum_that_begins_a_wal_behind_a_checkpoint_leaves_it_a_name(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_db, limits=Limits(wal_fold_s=3600)) as backend:
        await backend.write(lambda tx: tx.run("test.insert_large", size=MIB), op="append")
        await backend.write(lambda tx: tx.run("test.delete_large"), op="delete")
        other = apsw.Connection(str(tmp_db))
        drain(other, "SELECT * FROM instance")
        [(before,)] = drain(other, "SELECT current FROM wal_link")
        long = pages(other)
        with monkeypatch.context() as patch:
            folding_behind(patch, other)
            assert await backend.incremental_vacuum(10) == 10
        assert pages(other) < long, "the WAL has started over"
        assert drain(other, "SELECT current FROM wal_link") != [(before,)]
        other.close()


async def test_a_wal_is_named_once_and_not_by_each_commit(tmp_db: Path) -> None:
    """Another page in each commit of a short WAL would be written and synced for nothing."""
    async with opened(tmp_db, limits=Limits(wal_fold_s=3600)) as backend:
        await backend.write(insert("row 0"), op="append")
        other = apsw.Connection(str(tmp_db))
        [(named,)] = drain(other, "SELECT current FROM wal_link")
        for number in range(3):
            await backend.write(insert(f"row {number}"), op="append")
            assert drain(other, "SELECT current FROM wal_link") == [(named,)]
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        await backend.write(insert("row 4"), op="append")
        assert drain(other, "SELECT previous FROM wal_link") == [(named,)]
        other.close()


@one_loop
async def test_a_checkpoint_that_was_cut_off_leaves_a_wal_that_is_its_own(tmp_db: Path) -> None:
    """Whichever of its pages had reached the file."""
    killed(tmp_db, rows=30)
    whole = content(tmp_db.parent)
    sizes = len(whole[tmp_db.name]) // 4096
    folded = tmp_db.with_name("folded.db")
    for suffix in SUFFIXES:
        shutil.copy(beside(tmp_db, suffix), beside(folded, suffix))
    other = apsw.Connection(str(folded))
    drain(other, "SELECT * FROM instance")
    other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    new = folded.read_bytes()
    other.close()
    seen: set[bytes] = set()  # most pages are the same in both
    for number in range(sizes):
        for first, rest in ((whole[tmp_db.name], new), (new, whole[tmp_db.name])):
            mixed = first[: number * 4096] + rest[number * 4096 :]
            if mixed in seen:
                continue
            seen.add(mixed)
            torn = tmp_db.with_name(f"torn{number}.db")
            torn.write_bytes(mixed)
            beside(torn, "-wal").write_bytes(whole[f"{tmp_db.name}-wal"])
            assert not wal_link.is_foreign_wal(str(torn)), number
            assert await rows_of(torn) == 30


async def test_a_flipped_bit_in_a_name_is_damage_and_not_another_file(tmp_db: Path) -> None:
    killed(tmp_db)
    database = bytearray(tmp_db.read_bytes())
    at = database.index(str(wal_link._name_of(str(tmp_db))).encode())
    database[at] ^= 1
    tmp_db.write_bytes(database)
    assert await rows_of(tmp_db) == 5


async def test_a_frame_that_is_being_written_makes_no_wal_foreign(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its names are missed. Those of later commits alone would be of another file."""
    async with opened(tmp_db):
        pass
    other = apsw.Connection(str(tmp_db))
    other.pragma("wal_autocheckpoint", 0)
    for name in ("a" * 32, "b" * 32):
        drain(other, f"UPDATE wal_link SET previous = current, current = '{name}'")
    real, torn = os.pread, 0

    def pread(descriptor: int, length: int, at: int) -> bytes:
        """Read the frames once as they are before the page of the first name is there."""
        nonlocal torn
        data = real(descriptor, length, at)
        if at > 0 and torn == 0 and b"a" * 32 in data:
            torn += 1
            return data.replace(b"a" * 32, bytes(32), 1)
        return data

    monkeypatch.setattr("sessiondb.sqlite.wal_link.os.pread", pread)
    assert not wal_link.is_foreign_wal(str(tmp_db))
    assert torn == 1
    other.close()
