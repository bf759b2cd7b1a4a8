"""The guard sees code that touches a live database's files in this process, and no other."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from sessiondb.sqlite import guard
from tests.support.engine import count, insert, opened

# The old and blocking ways to touch a file are the subject.
# ruff: noqa: ASYNC230, PTH104, PTH107, PTH116, PTH123, SIM115

pytestmark = pytest.mark.anyio


def read_with_sqlite3(path: Path) -> None:
    sqlite3.connect(path).close()


def read_with_sqlite3_uri(path: Path) -> None:
    sqlite3.connect(f"file:{path}?mode=ro", uri=True).close()


def read_bytes(path: Path) -> None:
    path.read_bytes()


def open_wal(path: Path) -> None:
    with open(f"{path}-wal", "rb"):
        pass


def open_shm_at_low_level(path: Path) -> None:
    os.close(os.open(os.fsencode(f"{path}-shm"), os.O_RDONLY))


def copy(path: Path) -> None:
    shutil.copy(path, path.with_name("copy.db"))


def open_through_a_link(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    link.read_bytes()


def open_through_a_hard_link(path: Path) -> None:
    link = path.with_name("hard.db")
    os.link(path, link)
    link.read_bytes()


def move_away(path: Path) -> None:
    os.rename(path, path.with_name("moved.db"))


def delete_wal(path: Path) -> None:
    os.remove(f"{path}-wal")


def delete_the_lock_file(path: Path) -> None:
    os.remove(f"{path}-alive")


CULPRITS = [
    read_with_sqlite3,
    read_with_sqlite3_uri,
    read_bytes,
    open_wal,
    open_shm_at_low_level,
    copy,
    open_through_a_link,
    open_through_a_hard_link,
    move_away,
    delete_wal,
    delete_the_lock_file,
]


@pytest.mark.parametrize("culprit", CULPRITS, ids=lambda culprit: culprit.__name__)
async def test_a_culprit_is_stopped_where_it_stands(
    tmp_db: Path, culprit: Callable[[Path], None]
) -> None:
    async with opened(tmp_db, guard="raise") as backend:
        with pytest.raises(
            RuntimeError, match="belongs to a sessiondb database that is open in this process"
        ) as caught:
            culprit(tmp_db)
        assert any(entry.name == culprit.__name__ for entry in caught.traceback)
        assert backend.stats()["guard_violations"] == 1
        await backend.write(insert("x"), op="append")
        assert await count(backend, "x") == 1


async def test_by_default_it_warns_with_the_stack_and_counts(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_db) as backend:
        with caplog.at_level(logging.WARNING, "sessiondb.guard"):
            os.stat(tmp_db)
            assert caplog.records == []
            read_with_sqlite3(tmp_db)
        [record] = caplog.records
        assert "sqlite3.connect" in record.getMessage()
        assert "read_with_sqlite3" in (record.stack_info or "")
        assert backend.stats()["guard_violations"] == 1


async def test_innocent_files_and_our_own_work_are_not_reported(tmp_db: Path) -> None:
    other = tmp_db.with_name("other.txt")
    async with opened(tmp_db, guard="raise") as backend, opened(tmp_db, guard="raise"):
        other.write_text("x")
        other.rename(other.with_name("gateway.db.txt"))
        sqlite3.connect(":memory:").close()
        sqlite3.connect(tmp_db.with_name("theirs.db")).close()
        with pytest.raises(FileNotFoundError):
            open(tmp_db.with_name("absent"))
        with pytest.raises(ValueError, match="null"):
            open("a\0b")
        os.close(os.dup(1))
        await backend.write(insert("x"), op="append")
        await backend.backup(tmp_db.with_name("copy.db"))
        assert await count(backend, "x") == 1
        assert backend.stats()["guard_violations"] == 0


async def test_it_ends_with_the_database_and_can_be_switched_off(tmp_db: Path) -> None:
    async with opened(tmp_db, guard="raise"):
        pass
    read_with_sqlite3(tmp_db)
    async with opened(tmp_db, guard=False) as backend:
        os.stat(tmp_db)
        assert backend.stats()["guard_violations"] == 0
        assert str(tmp_db) not in [watched.path for watched in guard._watched]


async def test_an_event_that_is_not_in_the_table_costs_one_lookup(tmp_db: Path) -> None:
    """The hook runs for every audited event of the process, so other events cost one lookup."""
    async with opened(tmp_db, guard="raise"):
        calls: list[str] = []

        def trace(frame: FrameType, event: str, argument: object) -> None:
            if event == "call" and frame.f_code.co_filename == guard.__file__:
                calls.append(frame.f_code.co_name)

        sys.setprofile(trace)
        try:
            guard._hook("import", ("module",))
            guard._hook("object.__getattr__", ())
            before = list(calls)
            guard._hook("open", (3, "r", 0))
        finally:
            sys.setprofile(None)
        assert before == ["_hook", "_hook"]
        assert len(calls) > len(before) + 1  # ... and it is the table that decides
