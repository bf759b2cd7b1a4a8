"""The three files of an open database, and whether their names still name them.

SQLite keeps writing into a file that was deleted, moved or replaced: the database, its
-wal or its -shm. Every commit succeeds, and nobody finds it again. A process that opens
the name meanwhile even takes locks of its own. So each connection remembers the device
and inode of what it opened, and they are compared before a read, and before and after a
write. A comparison is one stat() a file: three for a read, six for a write transaction.

No file that is held can change in good order. SQLite deletes the -wal and the -shm only
when the last connection closes.

Fewer looks were tried. A descriptor knows how many names its file has, and so notices a
deletion, but not a move. The folder's time of change would say at one stat() that nothing
has changed, but the root folder of a FAT disk has none, and elsewhere two changes in one
tick look alike. The look before a write cannot rest on the one after the last write: a
caller may move a file in between, and is told that nothing was changed.

Limits: a file that is overwritten in place keeps its inode, so nothing is noticed.
"""

from __future__ import annotations

from typing import Self

import apsw

from sessiondb.errors import StoreFailed

from .connection import close_quietly, log
from .files import file_id, file_status

FileId = tuple[int, int] | None


class HeldFiles:
    """The files that a connection has open, or had open until it failed."""

    __slots__ = ("_held", "_modified_ns", "is_closed", "path")

    def __init__(
        self, path: str, held: tuple[tuple[str, FileId], ...], *, is_closed: bool = False
    ) -> None:
        self.path = path
        self.is_closed = is_closed
        """The connection failed, and was closed. It will be opened again."""
        self._held = held
        self._modified_ns = -1
        """When the database was written last, as of the last look that found all as it was."""

    @classmethod
    def database(cls, path: str) -> Self:
        """Return the database alone: before a connection has opened its -wal and -shm."""
        return cls(path, ((path, file_id(path)),))

    def with_wal(self) -> Self:
        """Return the same database with the -wal and -shm that a connection has just opened.

        Raises:
            StoreFailed: one of the three has been removed meanwhile.
        """
        beside = tuple((name, file_id(name)) for name in (self.path + "-wal", self.path + "-shm"))
        found = type(self)(self.path, (self._held[0], *beside))
        for name, known in beside:
            if known is None:
                raise changed_while_open(name, "opening", "Nothing was changed.")
        found.refuse_changed("opening", "Nothing was changed.")
        return found

    def without_wal(self) -> Self:
        """Return the same database alone."""
        return type(self)(self.path, self._held[:1])

    def closed(self) -> Self:
        """Return the same files, without the connection that had them open."""
        return type(self)(self.path, self._held, is_closed=True)

    def changed(self) -> str | None:
        """Return the first name that names another file now, or none. None: all are the same."""
        modified_ns = -1
        for name, known in self._held:
            found = file_status(name)
            if found is None or (found.st_dev, found.st_ino) != known:
                return name
            if modified_ns < 0:
                modified_ns = found.st_mtime_ns
        self._modified_ns = modified_ns
        return None

    def changed_since_closed(self) -> str | None:
        """Return the first name that a connection must not be opened to again. None: it may.

        Without a connection another process may have been the last to close, and have
        deleted the -wal and the -shm. Both together are new then, or gone.
        """
        database, *beside = self._held
        if file_id(database[0]) != database[1]:
            return database[0]
        changed = [name for name, known in beside if file_id(name) != known]
        return changed[0] if len(changed) == 1 else None

    def refuse_changed(self, op: str, effect: str) -> None:
        """Refuse an operation whose files are not those of their names any more.

        Raises:
            StoreFailed: names the file. `effect` says what the operation did.
        """
        name = self.changed()
        if name is not None:
            raise changed_while_open(name, op, effect)

    def refuse_others(self, op: str, effect: str) -> None:
        """Refuse a new connection, unless it is to the database that was open.

        Raises:
            StoreFailed: names the file. `effect` says what the operation did.
        """
        name = self.changed_since_closed()
        if name is not None:
            raise changed_while_open(name, op, effect)

    def may_save_wal(self) -> bool:
        """Return whether a -wal that has lost its name may still be folded into the database.

        Not if another process has written to the database since: its pages would be
        replaced by older ones. While the -shm is the same, all processes share their
        locks, and none has closed as the last one. Without a -shm the time at which the
        database was written last tells.
        """
        (database, known), *beside = self._held
        found = file_status(database)
        if not beside or found is None or (found.st_dev, found.st_ino) != known:
            return False
        (wal, _), (shm, known_shm) = beside
        if file_id(wal) is not None:
            return False
        shm_id = file_id(shm)
        return shm_id == known_shm or (shm_id is None and found.st_mtime_ns == self._modified_ns)

    def close(self, connection: apsw.Connection | None) -> None:
        """Close a connection, and spare what has the names of its files."""
        self.spare_others(connection)
        close_quietly(connection)

    def spare_others(self, connection: apsw.Connection | None) -> None:
        """If a file has changed, have a connection close without a checkpoint.

        The last connection that closes folds its -wal into the database and deletes it.
        Another process may have done so since with a -wal of its own, and older pages
        would be written over its pages.
        """
        name = self.changed()
        if connection is not None and name is not None:
            log.warning("%s: closed without a checkpoint, because %s has changed", self.path, name)
            try:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            except apsw.Error as error:
                log.warning("closing a connection failed: %s", error)


def changed_while_open(name: str, op: str, effect: str) -> StoreFailed:
    """Return the error of an operation that met another file, or none. `effect`: what it did."""
    return StoreFailed(
        f"{op}: {name} was moved, deleted or replaced while it was open. {effect} "
        "Put the file back, or restart."
    )
