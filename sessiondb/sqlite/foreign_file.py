"""Another program's database, read without disturbing that program.

What it promises. The file is never written, and no file is created beside it or deleted. The
rows are those of one moment. A program that writes the file meanwhile waits for nothing: the
snapshot of a reader delays at most the reset of its WAL, while the file is copied.

How, by what lies beside the file:

* A -shm: a program has it open, or was killed. Another reader is what SQLite's locks are for.
  The file is copied with SQLite's backup into a scratch folder, in one snapshot, and the copy is
  read.
* A -wal with content and no -shm: nobody has it open. Opening it there would create a -shm. So
  both are copied as files, and the copy is opened.
* A -journal with content: a commit is under way, or was cut off. It is waited for, and refused
  after a second.
* Otherwise the file is all there is, and nobody has it open. It is read in place, as immutable,
  which takes no lock and looks for no other file. That it stayed as it was is checked after each
  read.

A copy of the main file alone is never taken: without its -wal it is older than it looks.

The SQL of such files stands in `foreign/*.sql`. It is not among the statements of `queries/`,
which are prepared against this project's own schema. Its tables are another program's, so they
are asked about by shape, and views or triggers of the file run nothing (`trusted_schema`).
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import apsw

from sessiondb.backend import Row, SqlValue, load_statements
from sessiondb.clock import monotonic, pause
from sessiondb.errors import OpenError
from sessiondb.limits import ENTRY_BYTES_MAX

from .transaction import Prepared

BUSY_S_MAX: Final = 5.0
JOURNAL_S_MAX: Final = 1.0
# Of a value in such a file. An archived transcript is one value.
VALUE_BYTES_MAX: Final = 4 * ENTRY_BYTES_MAX


class ForeignFile:
    """A database of another program, at one moment.

    Raises:
        OpenError: it cannot be opened. The message says what to do.
    """

    is_database = True
    """SQLite takes it for a database. Otherwise it has no tables."""
    tables: dict[str, frozenset[str]]
    """The columns of each table."""

    def __init__(self, path: str, scratch: str) -> None:
        self.path = path
        self._in_place: tuple[Any, ...] | None = None
        self.tables = {}
        try:
            self._connection = self._open(scratch)
            self._connection.pragma("query_only", True)
            self._connection.pragma("trusted_schema", False)
            self._connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            self._connection.limit(apsw.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
            self.tables = self._shape()
        except apsw.NotADBError:
            self.is_database = False
        except (apsw.Error, OSError) as error:
            raise OpenError(_about(path, error), path=path) from error

    def all(self, statement: str, /, **params: SqlValue) -> list[Row]:
        """Return the rows of a statement of `foreign/*.sql`.

        Raises:
            OpenError: they cannot be read, or the file has changed since it was opened.
        """
        prepared = _statements()[statement]
        try:
            cursor = self._connection.execute(prepared.sql, params)
            found: list[Row] = []
            for values in cursor:
                if prepared.make_row is None:
                    prepared.describe(cursor)
                assert prepared.make_row is not None, "made above"
                found.append(prepared.make_row(values))
        except (apsw.Error, UnicodeDecodeError) as error:
            if isinstance(error, apsw.NotADBError):
                raise
            raise OpenError(_about(self.path, error), path=self.path) from error
        if self._in_place is not None and self._in_place != _state(self.path):
            raise OpenError(
                f"{self.path}: a program has begun to write it. Import again.", path=self.path
            )
        return found

    def close(self) -> None:
        self._connection.close()

    def _shape(self) -> dict[str, frozenset[str]]:
        """Return the columns of each table."""
        columns: dict[str, set[str]] = {}
        for row in self.all("shape.columns"):
            columns.setdefault(row.table_name, set()).add(row.column_name)
        return {table: frozenset(names) for table, names in columns.items()}

    def _open(self, scratch: str) -> apsw.Connection:
        for _ in range(3):
            before = _state(self.path)
            _wait_for_commit(self.path)
            if _size(f"{self.path}-shm") is not None:
                return _backed_up(self.path, _copy_in(scratch, self.path))
            if not _size(f"{self.path}-wal"):
                self._in_place = _state(self.path)
                return _connect(self.path, "mode=ro&immutable=1")
            copy = _copy_in(scratch, self.path)
            for suffix in ("", "-wal"):
                # The copy of a file that a connection of this process has open would drop
                # that connection's locks. This one is read by nobody, as the lack of a -shm
                # says.
                shutil.copyfile(self.path + suffix, copy + suffix)
            if before == _state(self.path):
                return _connect(copy, "mode=rw")
        raise OpenError(
            f"{self.path}: it changed three times while it was copied. Import again.",
            path=self.path,
        )


@functools.cache
def _statements() -> Mapping[str, Prepared]:
    return {
        name: Prepared(name, found.sql)
        for name, found in load_statements("sessiondb.sqlite.foreign").items()
    }


def _size(path: str) -> int | None:
    try:
        return Path(path).lstat().st_size
    except FileNotFoundError:
        return None


def _state(path: str) -> tuple[Any, ...]:
    """Return what changes when anybody writes the database, or opens it for writing."""
    found = Path(path).lstat()
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return (identity, *(_size(path + suffix) or 0 for suffix in ("-wal", "-shm", "-journal")))


def _wait_for_commit(path: str) -> None:
    """Wait for the end of a commit that keeps its old pages in a -journal."""
    give_up = monotonic() + JOURNAL_S_MAX
    while _size(f"{path}-journal"):
        if monotonic() > give_up:
            raise OpenError(
                f"{path}: beside it lies a -journal, so a commit was cut off. "
                "Start the program that wrote it, stop it again, and import again.",
                path=path,
            )
        pause(0.02)


def _copy_in(scratch: str, path: str) -> str:
    """Return a free name in the scratch folder."""
    return str(Path(scratch) / f"{len(list(Path(scratch).iterdir()))}-{Path(path).name}")


def _connect(path: str, options: str) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_URI | (
        apsw.SQLITE_OPEN_READONLY if "mode=ro" in options else apsw.SQLITE_OPEN_READWRITE
    )
    connection = apsw.Connection(f"file:{quote(path)}?{options}", flags=flags)
    connection.set_busy_timeout(round(BUSY_S_MAX * 1000))
    return connection


def _backed_up(path: str, copy: str) -> apsw.Connection:
    """Copy a database that others may be writing, in one snapshot."""
    source = _connect(path, "mode=ro")
    try:
        target = apsw.Connection(copy)
        with target.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(-1)
    finally:
        source.close()
    return target


def _about(path: str, error: Exception) -> str:
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return f"{path}: another program has locked it for over {BUSY_S_MAX:g} s. Import again."
    if isinstance(error, (apsw.FullError, OSError)):
        return (
            f"{path}: it cannot be copied in order to be read: {error}. "
            "Make room, or name another folder in TMPDIR, and import again."
        )
    if isinstance(error, apsw.CorruptError):
        return f"{path}: the database is damaged ({error}). Restore it from a backup."
    return f"{path}: it cannot be read: {error}"
