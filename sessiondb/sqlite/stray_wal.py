"""Whether the -wal beside a database belongs to it: looked at before SQLite opens either.

SQLite believes the names. A -wal that lies beside a database is replayed over it, and one
that lies beside an empty file is deleted. A database whose -wal is missing is opened as
it was at the last checkpoint. So a move, a copy or a restore of one file without the
others loses commits that were acknowledged, and nothing says so. Here such a case is
refused, with the name of the file and what to do. Nothing is ever deleted or repaired.

* A -wal without a database, or beside an empty file: the database was moved away, and the
  -wal has its last commits.
* A -wal that continues another file, or another state of this one (`wal_link.py`).
* A -wal that is missing although the -shm, which is the index of it, says that it had
  commits which were not in the database.

Only the first connection of a process looks: closing a descriptor of the -shm would drop
the locks of another one.
"""

from __future__ import annotations

import os
import struct
import threading

from sessiondb.errors import OpenError

from . import connection
from .files import file_status, reread_wal
from .wal_link import refuse_foreign_wal

# The -shm begins with two copies of its header (mxFrame at byte 16). Behind them is the
# number of frames that are in the database already. https://sqlite.org/walformat.html
_SHM = struct.Struct("=I4xIB3xI28x48xI")
_SHM_VERSION = 3007000
# A header is read again while another process is changing it: this takes nanoseconds.
_READS_MAX = 100
_READ_SHM = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_looking = threading.Lock()


def refuse_lone_wal(path: str) -> None:
    """Refuse a -wal whose database is missing or empty. Before the database is created.

    Raises:
        OpenError: names the -wal.
    """
    # The -wal first: another process that creates the database writes to it last.
    wal = file_status(path + "-wal")
    database = file_status(path)
    if wal is None or wal.st_size == 0 or (database is not None and database.st_size > 0):
        return
    what = "is empty" if database is not None else "is not there"
    raise OpenError(
        f"{path}-wal has {wal.st_size:,} bytes of commits, and its database {path} {what}. "
        "Nothing was changed. Put the database back beside its -wal. To begin with a new "
        "database, move the -wal to where the old one is: it may be the only copy of its last "
        "commits."
    )


def look_beside(path: str) -> None:
    """Refuse a database whose -wal is not its own. Does nothing if it is open in this process.

    Raises:
        OpenError: names the file, and says what to do.
    """
    # Critical section "first". Lock: _looking. Invariant: no connection of this process has
    # the files open while their descriptors are closed here.
    with _looking:
        _look(path)


def look_and_note(path: str) -> connection.Note | None:
    """Look as `look_beside` does. Note that this process is opening the database."""
    with _looking:
        _look(path)
        return connection.note_open(path)


def _look(path: str) -> None:
    if connection.is_open_here(path):
        return
    connection.refuse_inherited(path)  # before a descriptor of the parent's files is opened
    reread_wal(path)
    _refuse_missing_wal(path)
    refuse_foreign_wal(path)


def _refuse_missing_wal(path: str) -> None:
    try:
        descriptor = os.open(path + "-shm", _READ_SHM)
    except OSError:
        return  # there is none. Or SQLite, which opens it next, reports the error
    try:
        pages = _unfolded_pages(descriptor)
        wal = file_status(path + "-wal")
        # The last process that closes deletes the -shm first, and then the -wal. So the -wal is
        # missing if this -shm is still there now. There may be a new one, of a process that opens.
        if pages == 0 or (wal is not None and wal.st_size > 0) or not _is_at(path, descriptor):
            return
    finally:
        os.close(descriptor)
    raise OpenError(
        f"{path}-wal is missing. According to {path}-shm it had {pages} pages of commits that "
        f"are not in {path} yet. Nothing was changed. Put it back. If {path} is a backup that "
        "you have put in place of the old database, remove the -shm, which belongs to the old "
        f"one. If the -wal is lost, `sessiondb salvage {path} NEW` gets out what the database has."
    )


def _is_at(path: str, descriptor: int) -> bool:
    """Return whether an open -shm still has its name. While it is open, no other has its inode."""
    now, opened = file_status(path + "-shm"), os.fstat(descriptor)
    return now is not None and (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino)


def _unfolded_pages(shm: int) -> int:
    """Return how many pages of the -wal its index has, less those in the database. 0: none."""
    for _ in range(_READS_MAX):
        header = os.pread(shm, _SHM.size, 0)
        if len(header) < _SHM.size:
            return 0
        if header[:48] == header[48:96]:
            break
    else:
        return 0
    version, _, is_set, frames, folded = _SHM.unpack(header)
    return frames - folded if version == _SHM_VERSION and is_set and frames > folded else 0
