"""The database that `sessiondb salvage` builds. It gets its own name when it is complete.

One thread builds it under a temporary name. No other process can have it open, so it needs none
of the engine's threads and locks, and it is synced only at the end. A crash leaves the temporary
file, and the next run refuses to overwrite it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import apsw

from .connection import PAGE_BYTES, close_quietly, drain, refuse_unsafe_library
from .files import make_partial, place, resolved
from .filesystem import refuse_unsafe_filesystem
from .schema import create_or_migrate
from .transaction import Snapshot, WriteTransaction, reraise

T = TypeVar("T")


class NewDatabase:
    """A database that is being built. Use it as a context manager.

    Without `finish`, leaving it removes the file.
    """

    def __init__(self, path: str) -> None:
        path = resolved(path)
        refuse_unsafe_library()
        refuse_unsafe_filesystem(path)
        self.path = path
        self._partial = make_partial(path, "salvage")
        self._connection: apsw.Connection | None = None

    def __enter__(self) -> Self:
        try:
            self._connection = apsw.Connection(self._partial, flags=apsw.SQLITE_OPEN_READWRITE)
            for setting in (
                f"page_size = {PAGE_BYTES}",
                "auto_vacuum = incremental",
                "locking_mode = exclusive",
                "synchronous = off",
            ):
                drain(self._connection, f"PRAGMA {setting}")
            create_or_migrate(self._connection, self._partial)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._remove()

    @property
    def _open(self) -> apsw.Connection:
        assert self._connection is not None, "the database is finished, or was not entered"
        return self._connection

    def write(self, fn: Callable[[WriteTransaction], T], *, now_ms: int) -> T:
        """Run `fn` in a transaction. It is durable after `finish`, not before."""
        connection = self._open
        tx = WriteTransaction(connection, now_ms, 0)
        try:
            drain(connection, "BEGIN IMMEDIATE")
            value = fn(tx)
            drain(connection, "COMMIT")
        except apsw.Error as error:
            self._roll_back()
            reraise(error, "salvage")
        except BaseException:
            self._roll_back()
            raise
        finally:
            tx.end()
        return value

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            drain(self._connection, "ROLLBACK")

    def read(self, fn: Callable[[Any], T]) -> T:
        """Run `fn` over the database as it is."""
        tx = Snapshot(self._open)
        try:
            return fn(tx)
        finally:
            tx.end()

    def raise_sequence(self, table: str, number: int) -> None:
        """Never assign numbers up to this one again."""
        connection, values = self._open, {"name": table, "number": number}
        connection.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, :number) WHERE name = :name", values
        ).fetchall()
        if connection.changes() == 0 and number > 0:
            connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :number)", values
            ).fetchall()

    def finish(self) -> None:
        """Sync the database, and give it its name.

        On return it is on disk under that name.

        Raises:
            InvalidInput: a file with that name exists.
        """
        connection = self._open
        drain(connection, "PRAGMA incremental_vacuum")
        drain(connection, "PRAGMA locking_mode = normal")
        drain(connection, "PRAGMA synchronous = full")
        drain(connection, "PRAGMA journal_mode = wal")
        connection.close(True)
        self._connection = None
        fd = os.open(self._partial, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        place(self._partial, self.path, "salvage")

    def _remove(self) -> None:
        close_quietly(self._connection)
        self._connection = None
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(self._partial + suffix).unlink(missing_ok=True)
