"""Which -wal belongs to which database file. Both carry names that nobody else has.

SQLite takes the -wal beside a database for the database's own. After a restore, the -wal
of the old file may still be there. SQLite then undoes the restore in silence, or mixes
the pages of two states.

So the database has a name, in the one row of `wal_link`. Each WAL begins with a commit
that gives it a new name, `current`, and keeps the one that it continues, `previous`. The
database file has the old name until that page is folded into it, and then the new one. A
-wal in which the file's name does not occur belongs to another file. A backup gets a name
of its own when it is made, so no -wal but its own continues it.

Who writes the name: the writer, in the transaction that will start the WAL over. It
knows that beforehand (all of the WAL is in the file), or notices it after the commit,
and adds the name at once. Another program that writes (`sqlite3`) adds none.

Limits, in which a -wal is taken as SQLite takes it:
* A -wal in which no name is found: no writer of sessiondb began it.
* A copy by another program, made while the WAL at hand was being written, has the same
  name as the file that it was copied from. The -wal then continues the copy, too, and
  SQLite arrives at what was written last.
* A file whose row cannot be read.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from urllib.parse import quote

import apsw

from sessiondb.errors import NotASessionDB, OpenError, StoreDamaged

from .connection import close_quietly, explain_cannot_open
from .damaged_wal import checksum
from .files import file_status
from .transaction import Snapshot, WriteTransaction, reraise

# Of a file from before there were names.
NO_NAME = "0" * 32
SINCE_SCHEMA = 4
# Names that differ in so few characters are one name, and damage: two random names agree in
# one character of sixteen.
DAMAGED_CHARS_MAX = 4
# Another process that changes the WAL between two reads is met once or twice, not ten times.
READS_MAX = 10

_NAME = re.compile(r"[0-9a-f]{32}")
# The cell of the row: 68 bytes of record, row 1, a header of 4 bytes (NULL and two texts of
# 32 characters).
_CELL = re.compile(rb"\x44\x01\x04\x00MM([0-9a-f]{32})([0-9a-f]{32})")
_LEAF_WITH_ONE_ROW = re.compile(rb"\x0d..\x00\x01", re.DOTALL)
_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_READ_BYTES = 1024 * 1024


def renew(tx: WriteTransaction) -> None:
    """Give the database a new name, and keep the one that it continues."""
    tx.run("wal_link.renew", current=os.urandom(16).hex())


def refuse_foreign_wal(path: str) -> None:
    """Refuse a database beside the -wal of another one. No connection of this process is open.

    Raises:
        OpenError: names the -wal, and says what to do with it.
    """
    if is_foreign_wal(path):
        raise OpenError(
            f"{path}-wal: this WAL does not belong to {path}. It continues another database, or "
            "another state of this one. SQLite would mix the two. Nothing was changed. If you have "
            f"put a backup in place, move {path}-wal and {path}-shm to where the old database is: "
            "they may be the only copy of its last commits. Otherwise put the database back "
            "that belongs to them."
        )


def is_foreign_wal(path: str) -> bool:
    """Tell whether the -wal beside a database belongs to another file. Opens no pipe or device."""
    status = file_status(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return False  # what opens it next says so
    seen: tuple[str, list[tuple[str, str]]] | None = None
    for _ in range(READS_MAX):
        name = _name_of(path)
        if name is None:
            return False
        found: list[tuple[str, str]] = []
        for names in _names_in(path + "-wal"):
            if any(_is_same(name, other) for other in names):
                return False
            found.append(names)
        # Both are read again. A process that has the files open may have folded one WAL and
        # begun the next. A frame that it was writing at that moment looks damaged, and its
        # names are missed: those of later frames alone do not tell.
        if not found or seen == (name, found):
            return bool(found)
        seen = name, found
    return False


def _is_same(name: str, other: str) -> bool:
    differing = sum(a != b for a, b in zip(name, other, strict=True))
    return differing <= DAMAGED_CHARS_MAX


def _name_of(path: str) -> str | None:
    """Return the name in a database file itself, without its -wal. None: it cannot be read.

    The connection takes no lock and opens no -wal (`immutable`). So it may see a file that
    was left in the middle of a checkpoint, and anything that does not look right is None.

    Raises:
        OpenError, StoreFailed: the file cannot be opened or read.
    """
    connection = None
    try:
        connection = apsw.Connection(
            f"file:{quote(path, errors='surrogateescape')}?immutable=1",
            flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        )
        if int(connection.pragma("user_version")) < SINCE_SCHEMA:
            return NO_NAME
        row = Snapshot(connection).first("wal_link.current")
    except apsw.CantOpenError as error:
        raise explain_cannot_open(path) from error
    except apsw.IOError as error:
        reraise(error, f"opening {path}")
    except (StoreDamaged, NotASessionDB, apsw.Error):
        return None  # damaged, or another program's: opening it says so
    finally:
        close_quietly(connection)
    return row.current if row is not None and _NAME.fullmatch(str(row.current)) else None


def _names_in(wal: str) -> Iterator[tuple[str, str]]:
    """Yield the names in a WAL, in its order: the one it continues, and its own."""
    try:
        descriptor = os.open(wal, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # there is none. Or SQLite, which opens it next, reports the error
    try:
        header = os.pread(descriptor, _HEADER_BYTES, 0)
        if len(header) < _HEADER_BYTES or header[:3] != b"\x37\x7f\x06":
            return
        order = ">" if header[3] & 1 else "<"
        seed = struct.unpack(">2I", header[24:])
        for frame in _frames(descriptor, header):
            names = _names_on(frame[_FRAME_HEADER_BYTES:])
            stored = struct.unpack(">2I", frame[16:24])
            if names and stored == checksum(order, frame[:8] + frame[24:], seed):
                yield names
            seed = stored
    finally:
        os.close(descriptor)


def _frames(descriptor: int, header: bytes) -> Iterator[bytes]:
    """Yield the frames that belong to the WAL of this header, up to those of an earlier one."""
    (page_bytes,) = struct.unpack(">I", header[8:12])
    if not 512 <= page_bytes <= 65536:
        return
    step = _FRAME_HEADER_BYTES + page_bytes
    at, count = _HEADER_BYTES, max(1, _READ_BYTES // step)
    while True:
        read = os.pread(descriptor, step * count, at)
        for start in range(0, len(read) - step + 1, step):
            frame = read[start : start + step]
            if frame[8:16] != header[16:24]:
                return
            yield frame
        if len(read) < step * count:
            return
        at += len(read)


def _names_on(page: bytes) -> tuple[str, str] | None:
    if not _LEAF_WITH_ONE_ROW.match(page):
        return None
    cell = _CELL.match(page, int.from_bytes(page[8:10], "big"))
    return (cell[1].decode(), cell[2].decode()) if cell else None
