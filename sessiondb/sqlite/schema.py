"""The schema of a file: recognised, created or brought up to date.

A new database is made from schema.sql. An older one goes through the numbered migrations.
Each is one transaction under `BEGIN IMMEDIATE` that checks again once it holds the lock.
So any number of processes may open one new path at once: one of them creates the schema,
and the others find it done. A crash in the middle leaves the previous version.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import apsw

from sessiondb.errors import NewerSchema, NotASessionDB

from .connection import drain

APPLICATION_ID = 0x53455344  # "SESD", also in schema.sql
SCHEMA_VERSION = 4
"""What this release reads and writes: the number of the last migration."""

_MIGRATION = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")

# Application ids of other programs that a person may meet here. Others are shown as a number.
_KNOWN_PROGRAMS = {
    0x0F055112: "Fossil",
    0x47504B47: "GeoPackage",
    0x4D504258: "MBTiles",
    0x42656462: "Bentley",
}


def schema_text() -> str:
    """Return schema.sql: it is inside an installed package, beside it in a checkout."""
    packaged = resources.files("sessiondb") / "schema.sql"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).resolve().parents[2] / "schema.sql").read_text(encoding="utf-8")


def migrations() -> list[tuple[int, str]]:
    """Return (version, script) of every migration, in order."""
    files = resources.files("sessiondb.sqlite.migrations").iterdir()
    found = [
        (int(match[1]), file.read_text(encoding="utf-8"))
        for file in files
        if (match := _MIGRATION.match(file.name))
    ]
    return sorted(found)


def is_new(connection: apsw.Connection, path: str) -> bool:
    """Inspect a file before anything is changed in it. Return True when it is empty.

    Raises:
        NotASessionDB: it belongs to another program. The message names it where possible.
        NewerSchema: a newer sessiondb wrote it.
    """
    try:
        # Three reads without a snapshot: another process may create the schema between
        # them. Then application_id, which is read first, is still 0 although there are
        # tables, so it is read again at the end.
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        tables = _tables(connection)
        if application == 0 and tables:
            application, version = (
                _pragma(connection, "application_id"),
                _pragma(connection, "user_version"),
            )
    except apsw.NotADBError as error:
        raise NotASessionDB(
            f"{path}: this is not a SQLite file, or its beginning is destroyed. Check the path; "
            f"if it was a database, `sessiondb salvage {path} NEW` gets out what can be read."
        ) from error
    except apsw.CorruptError as error:
        raise NotASessionDB(
            f"{path}: this SQLite file is damaged ({error}). Keep it, and run "
            f"`sessiondb salvage {path} NEW`, or restore a backup."
        ) from error
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise NewerSchema(
                f"{path}: written by a newer sessiondb: its schema is {version}, and this one "
                f"knows up to {SCHEMA_VERSION}. Upgrade sessiondb.",
                found=version,
                known=SCHEMA_VERSION,
            )
        return False
    if application == 0 and version == 0 and not tables:
        _refuse_emptied(connection, path)
        return True
    raise NotASessionDB(
        f"{path}: this is {_describe(application, tables)}, not a sessiondb database. "
        "Choose another path."
    )


def _refuse_emptied(connection: apsw.Connection, path: str) -> None:
    """Refuse an empty file in WAL mode: the schema of ours is there before that mode is."""
    if _mode(connection) == "wal":
        raise NotASessionDB(
            f"{path}: the file is empty and in WAL mode, so what was written to it is in "
            f"{path}-wal, which is missing or belongs to another file. Put the right one back. "
            "To begin with a new database, move this file away."
        )


def _mode(connection: apsw.Connection) -> str:
    return str(connection.pragma("journal_mode"))


def refuse_newer(connection: apsw.Connection, path: str) -> None:
    """Refuse a file that a newer release has migrated while it was open here.

    Inside a transaction: the answer holds until its end.

    Raises:
        NewerSchema: rows that this release writes would break rules that it does not know.
    """
    # In every read and every write. apsw's pragma() costs 8 us more, a tenth of a short read.
    version = connection.execute("PRAGMA user_version").get
    if version > SCHEMA_VERSION:
        raise NewerSchema(
            f"{path}: a newer sessiondb has migrated it to schema {version} while it was open "
            f"here, and this one knows up to {SCHEMA_VERSION}. Nothing was changed. "
            "Restart this process with the newer release.",
            found=version,
            known=SCHEMA_VERSION,
        )


def create_or_migrate(connection: apsw.Connection, path: str) -> None:
    """Bring the file to `SCHEMA_VERSION`. Committed on return.

    May be repeated, and by any number of processes at once.

    Raises:
        apsw.BusyError: another process is doing the same. Retry.
    """
    while (version := _pragma(connection, "user_version")) < SCHEMA_VERSION:
        drain(connection, "BEGIN IMMEDIATE")
        try:
            # Critical section "migrate". Lock: the database's write lock. Invariant: a script
            # runs only on the version just below its own.
            if is_new(connection, path):
                drain(connection, schema_text())
            elif (version := _pragma(connection, "user_version")) < SCHEMA_VERSION:
                drain(
                    connection,
                    next(script for number, script in migrations() if number == version + 1),
                )
            drain(connection, "COMMIT")
        except BaseException:
            if connection.in_transaction:
                drain(connection, "ROLLBACK")
            raise


def _pragma(connection: apsw.Connection, name: str) -> int:
    value = connection.pragma(name)
    assert isinstance(value, int)
    return value


def _tables(connection: apsw.Connection) -> list[str]:
    return [
        name
        for (name,) in drain(
            connection, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid LIMIT 4"
        )
    ]


def _describe(application: int, tables: list[str]) -> str:
    if application in _KNOWN_PROGRAMS:
        return f"a SQLite database of {_KNOWN_PROGRAMS[application]}"
    owner = "a SQLite database of another program" + (
        f" (application_id {application:#x})" if application else ""
    )
    return f"{owner} with the tables {', '.join(tables)}" if tables else owner
