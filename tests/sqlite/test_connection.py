"""The SQLite library that a connection may use, and the settings of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import apsw
import pytest

from sessiondb.errors import UnsafeSQLite
from sessiondb.sqlite import connection
from sessiondb.sqlite.connection import refuse_unsafe_library


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.7.0", False),
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.45.1", False),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.0", False),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.53.0", True),
        ("3.54.1", True),
        ("4.0.0", True),
    ],
)
def test_sqlite_with_the_wal_reset_bug_is_refused(version: str, safe: bool) -> None:
    if safe:
        refuse_unsafe_library(version)
    else:
        with pytest.raises(UnsafeSQLite, match=rf"SQLite {version} has the WAL-reset bug"):
            refuse_unsafe_library(version)


CONFIGS = {
    "DEFENSIVE": 1,
    "TRUSTED_SCHEMA": 0,
    "DQS_DML": 0,
    "DQS_DDL": 0,
    "ENABLE_TRIGGER": 0,
    "ENABLE_QPSG": 1,
}
COMMON = {"mmap_size": 0, "cell_size_check": 1, "busy_timeout": 0}
OF_WRITER = {
    "page_size": 4096,
    "auto_vacuum": 2,
    "journal_mode": "wal",
    "synchronous": 2,
    "foreign_keys": 1,
    "wal_autocheckpoint": 0,
    "journal_size_limit": 4 * 1024 * 1024,
    "secure_delete": 2,
    "query_only": 0,
}


def settings_of(found: apsw.Connection, names: Iterable[str]) -> dict[str, object]:
    return {name: found.pragma(name) for name in names}


def test_each_kind_of_connection_has_its_settings(tmp_db: Path) -> None:
    tmp_db.touch()

    def create(new: apsw.Connection) -> None:
        new.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)").fetchall()

    writer = connection.connect_writer(
        str(tmp_db), "full", 1.0, is_new=lambda _: True, create=create
    )
    reader = connection.connect_reader(str(tmp_db))
    visitor = connection.connect_visitor(str(tmp_db))
    try:
        assert settings_of(writer, OF_WRITER) == OF_WRITER
        for found in (reader, visitor):
            assert found.pragma("query_only") == 1
            with pytest.raises(apsw.ReadOnlyError):
                found.execute("INSERT INTO t VALUES (2)").fetchall()
        for found in (writer, reader, visitor):
            assert settings_of(found, COMMON) == COMMON
            for name, value in CONFIGS.items():
                number = getattr(apsw, f"SQLITE_DBCONFIG_{name}")
                assert found.config(number, -1) == value, name
            with pytest.raises(apsw.SQLError, match="no such column"):
                found.execute('SELECT "misspelt" FROM t').fetchall()
    finally:
        for found in (visitor, reader, writer):
            found.close()


def test_less_durability_is_for_who_asks_for_it(tmp_db: Path) -> None:
    tmp_db.touch()
    found = connection.connect_writer(
        str(tmp_db), "normal", 1.0, is_new=lambda _: False, create=lambda _: None
    )
    try:
        assert found.pragma("synchronous") == 1
    finally:
        found.close()


def test_a_file_is_open_here_until_each_that_opened_it_forgets_it(tmp_path: Path) -> None:
    one, two = (str(tmp_path / name) for name in ("one", "two"))
    Path(one).touch()
    Path(two).touch()
    notes = [connection.note_open(one), connection.note_open(one), connection.note_open(two)]
    try:
        assert connection.is_open_here(one)
        connection.forget(notes.pop(0))
        assert connection.is_open_here(one), "the second still has it open"
        connection.forget(notes.pop(0))
        assert not connection.is_open_here(one)
        assert connection.is_open_here(two)
    finally:
        for note in notes:
            connection.forget(note)
    assert not connection.is_open_here(two)
    assert connection.note_open(str(tmp_path / "missing")) is None
