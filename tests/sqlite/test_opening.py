"""Opening: settings, files that are not ours, reading only, too few threads."""

# ruff: noqa: ASYNC240  # tests look at files as they please

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from sessiondb.errors import NewerSchema, NotASessionDB, OpenError
from sessiondb.sqlite import SqliteBackend, guard, opening
from sessiondb.sqlite.connection import is_open_here
from sessiondb.sqlite.parts import Parts
from sessiondb.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION
from tests.support import warm
from tests.support.engine import (
    CHECKOUT,
    PATIENCE_S,
    insert,
    names_in,
    opened,
    run_python,
    until,
)
from tests.support.leaks import our_threads

pytestmark = pytest.mark.anyio


async def still_registered(backend: SqliteBackend) -> int:
    """Return how many openings of this database have not signed off."""
    sql = "SELECT count(*) FROM instance WHERE closed_at_ms IS NULL"

    def count_open(tx: Any) -> int:
        return int(tx._connection.execute(sql).get)

    return await backend.read(count_open, op="look")


# -- the file --------------------------------------------------------------------------


async def test_a_new_database_has_the_settings_that_it_must_have(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:

        def settings(tx: object) -> dict[str, object]:
            connection = tx._connection  # type: ignore[attr-defined]
            names = [
                "page_size",
                "auto_vacuum",
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "mmap_size",
                "trusted_schema",
            ]
            names += [
                "application_id",
                "user_version",
                "wal_autocheckpoint",
                "query_only",
                "journal_size_limit",
            ]
            return {name: connection.pragma(name) for name in names}

        writing = await backend.write(settings, op="settings")
        reading = await backend.read(settings, op="settings")
    expected = {
        "page_size": 4096,
        "auto_vacuum": 2,
        "journal_mode": "wal",
        "mmap_size": 0,
        "trusted_schema": 0,
    }
    expected |= {"application_id": APPLICATION_ID, "user_version": SCHEMA_VERSION}
    assert expected.items() <= writing.items()
    assert expected.items() <= reading.items()
    assert (writing["synchronous"], writing["foreign_keys"], writing["query_only"]) == (2, 1, 0)
    assert 0 < writing["journal_size_limit"] < 100_000_000
    assert reading["query_only"] == 1


async def test_normal_durability_is_an_explicit_choice(tmp_db: Path) -> None:
    async with opened(tmp_db, durability="normal") as backend:
        assert (
            await backend.write(lambda tx: tx._connection.pragma("synchronous"), op="settings") == 1
        )
    with pytest.raises(OpenError, match=r"durability is 'off'\. Choose"):
        await SqliteBackend.open(tmp_db, durability="off")  # type: ignore[arg-type]


async def test_new_files_and_folders_belong_to_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deep" / "gateway.db"
    mask = os.umask(0)
    try:
        async with opened(path) as backend:
            await backend.write(insert("x"), op="append")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert modes == {f"gateway.db{suffix}": 0o600 for suffix in ("", "-wal", "-shm", "-alive")}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "gateway.db",
        "gateway.db-alive",
    ]  # close() folds the WAL away, and leaves the lock file, which is empty


def test_eight_processes_may_open_a_new_path_at_once(tmp_path: Path) -> None:
    code = """
import sys, anyio
from tests.support.engine import insert, opened
print("ready", flush=True)
sys.stdin.readline()
async def main():
    async with opened(sys.argv[1]) as backend:
        await backend.write(insert("child"), op="append")
        print(backend.stats()["instance_no"])
anyio.run(main)
"""
    for attempt in range(2):
        path = tmp_path / f"{attempt}" / "gateway.db"
        children = [
            warm.Popen(
                [sys.executable, "-c", code, path],
                cwd=CHECKOUT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for _ in range(8)
        ]
        for child in children:
            assert child.stdout.readline() == "ready\n"  # type: ignore[union-attr]
        for child in children:
            child.stdin.write("\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
        answers = [child.communicate(timeout=60) for child in children]
        assert [err[-600:] for _, err in answers if err] == []
        assert [child.returncode for child in children] == [0] * 8
        # Each has a number of its own: the schema was made once, and no registration was lost.
        assert len({out for out, _ in answers}) == 8
        found = apsw.Connection(str(path))
        assert found.execute(
            "SELECT count(*) FROM instance WHERE program = 'child'"
        ).fetchall() == [(8,)]
        assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found.close()


# -- files that are not ours -----------------------------------------------------------


def make_database(path: Path, script: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(script).fetchall()
    connection.close()


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "CREATE TABLE person (name); CREATE TABLE pet (name)",
            "a SQLite database of another program with the tables person, pet",
        ),
        ("PRAGMA application_id = 252006674; CREATE TABLE blob (x)", "a SQLite database of Fossil"),
        ("PRAGMA application_id = 77", r"another program \(application_id 0x4d\)"),
        ("PRAGMA user_version = 3", "a SQLite database of another program"),
    ],
)
async def test_another_programs_database_is_named_and_left_alone(
    tmp_db: Path, script: str, says: str, readonly: bool
) -> None:
    make_database(tmp_db, script)
    before = tmp_db.read_bytes()
    with pytest.raises(NotASessionDB, match=says):
        await SqliteBackend.open(tmp_db, readonly=readonly)
    assert tmp_db.read_bytes() == before
    assert names_in(tmp_db.parent) == [tmp_db.name]


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_file_that_is_no_database_is_named_and_left_alone(
    tmp_db: Path, readonly: bool
) -> None:
    tmp_db.write_text('{"type":"session","version":3}\n' * 100)
    before = tmp_db.read_bytes()
    with pytest.raises(NotASessionDB, match="not a SQLite file"):
        await SqliteBackend.open(tmp_db, readonly=readonly)
    assert tmp_db.read_bytes() == before


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_newer_file_is_refused(tmp_db: Path, readonly: bool) -> None:
    async with opened(tmp_db):
        pass
    make_database(tmp_db, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(
        NewerSchema,
        match=rf"schema is {SCHEMA_VERSION + 1}, and this one knows up to {SCHEMA_VERSION}",
    ):
        await SqliteBackend.open(tmp_db, readonly=readonly)


async def test_paths_that_cannot_be_a_database_are_refused(tmp_path: Path) -> None:
    for path in ("", ":memory:", "file:x.db?mode=memory"):
        with pytest.raises(OpenError, match="is not the path of a file"):
            await SqliteBackend.open(path)
    with pytest.raises(OpenError, match="not a plain file"):
        await SqliteBackend.open(tmp_path)
    with pytest.raises(OpenError, match="there is no such file"):
        await SqliteBackend.open(tmp_path / "absent.db", create=False)
    with pytest.raises(OpenError, match="there is no such file"):
        await SqliteBackend.open(tmp_path / "absent.db", readonly=True)
    assert list(tmp_path.iterdir()) == []


async def test_an_empty_file_becomes_a_database_but_not_for_a_reader(tmp_db: Path) -> None:
    tmp_db.touch()
    with pytest.raises(NotASessionDB, match="the file is empty"):
        await SqliteBackend.open(tmp_db, readonly=True)
    async with opened(tmp_db) as backend:
        await backend.write(insert("x"), op="append")


# -- reading only ----------------------------------------------------------------------


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs another user's rights, which only root can give up"
)
def test_a_reader_without_helper_files_is_told_what_to_do() -> None:
    code = """
import os, sys, anyio
from sessiondb.errors import OpenError
from sessiondb.sqlite import SqliteBackend
async def main():
    backend = await SqliteBackend.open(sys.argv[1])
    await backend.close()
    os.chmod(sys.argv[1], 0o644)
    os.setuid(65534)
    try:
        await SqliteBackend.open(sys.argv[1], readonly=True)
    except OpenError as error:
        print(error)
anyio.run(main)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        assert "this user may not look into" in run_python(code, Path(folder, "gateway.db")).stdout
        Path(folder).chmod(0o755)
        answer = run_python(code, Path(folder, "gateway.db"))
        assert "no process has the database open" in answer.stdout, answer.stderr
        assert "copy the closed file" in answer.stdout


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_opening_that_is_cancelled_leaves_no_thread(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release, created = threading.Event(), threading.Event(), []
    start = opening._start

    def slow_start(*arguments: object, **options: object) -> object:
        begun.set()
        assert release.wait(PATIENCE_S)
        created.append(start(*arguments, **options))  # type: ignore[arg-type]
        return created[0]

    monkeypatch.setattr(opening, "_start", slow_start)
    task = asyncio.create_task(SqliteBackend.open(tmp_db))
    await until(begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await until(lambda: bool(created))
    assert created[0].writer.join(PATIENCE_S)
    assert created[0].readers.join(PATIENCE_S)


@pytest.mark.parametrize("missing", ["writer", "reader-0", "reader-2", "watchdog", "changes"])
async def test_an_opening_without_enough_threads_ends_those_it_has(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == f"sessiondb-{missing}":
            raise RuntimeError("can't start new thread")
        start(thread)

    async with opened(tmp_db):
        pass
    for readonly in (False, True):
        if readonly and missing == "writer":
            continue
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await SqliteBackend.open(tmp_db, readonly=readonly)
        assert our_threads() == set()
        assert not is_open_here(str(tmp_db))
    async with opened(tmp_db) as backend:
        assert await still_registered(backend) == 1


async def test_an_opening_that_cannot_be_guarded_closes_again(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no more hooks")

    with monkeypatch.context() as patch:
        patch.setattr(guard, "_installed", False)
        patch.setattr(guard.sys, "addaudithook", refuse)
        with pytest.raises(RuntimeError, match="no more hooks"):
            await SqliteBackend.open(tmp_db)
    assert our_threads() == set()
    assert guard._watched == ()
    assert not is_open_here(str(tmp_db))
    async with opened(tmp_db) as backend:
        assert await still_registered(backend) == 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["/opt/bin/gateway", "run"], "gateway"), (["-c"], "-c"), ([""], "python"), ([], "python")],
)
def test_a_process_is_known_by_the_name_of_its_program(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], name: str
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    assert opening.program_name() == name


async def test_a_visit_ends_with_its_parts(tmp_db: Path) -> None:
    async with opened(tmp_db):
        pass
    for end in (Parts.stop, Parts.close):
        backend = await SqliteBackend.open(tmp_db, readonly=True)
        parts = backend._parts
        assert parts.visit is not None
        connection, _ = parts.visit
        end(parts)
        assert parts.visit is None
        with pytest.raises(apsw.ConnectionClosedError):
            connection.pragma("user_version")
        await backend.close()
