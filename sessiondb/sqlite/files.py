"""The database's files: made with the right permissions, and who holds their lock.

Never open(), copy or hash the files of a live database in this process, not even to read: closing any descriptor of
a file drops every POSIX lock that the process holds on it, SQLite's included, without an error anywhere. What is
learnt here is learnt by os.stat() and from /proc.
"""

from __future__ import annotations

import os
from pathlib import Path

from sessiondb.errors import OpenError

# SQLite locks byte 120 of the -shm file while it writes to the WAL (WAL_WRITE_LOCK, part of its file format).
_WRITE_LOCK_BYTE = 120


def make_file(path: str, *, create: bool) -> bool:
    """Create an empty file for nobody but its owner, and its folder if that is missing; return False when it was there.

    -wal and -shm inherit the mode. The descriptor is opened and closed only when the file is new, so no lock
    can hang on it.

    Raises:
        OpenError: there is no such file and `create` is off, it is not a plain file, or its folder cannot be made.
    """
    file = Path(path)
    try:
        is_there = file.exists()
    except OSError as error:
        raise OpenError(f"{path}: this user may not look into {file.parent}: {error.strerror}. Run as the file's owner.") from error
    if is_there:
        if not file.is_file():
            raise OpenError(f"{path}: this is not a plain file; a database needs a file of its own.")
        return False
    if not create:
        raise OpenError(f"{path}: there is no such file. Check the path, or open it for writing to create it.")
    try:
        if not file.parent.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False  # another process opening the same new path came first
    except OSError as error:
        raise OpenError(f"{path}: the file cannot be created: {error.strerror}. Check the folder and its permissions.") from error
    return True


def lock_holder(path: str) -> str | None:
    """Name the process that holds the write lock, as "pid 123 (python)"; None when the system does not tell.

    /proc/locks lists the lock by the -shm file's device and inode, so nothing of the database is opened.
    """
    pid = lock_holder_pid(path)
    if pid is None:
        return None
    try:
        return f"pid {pid} ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        return f"pid {pid}"


def lock_holder_pid(path: str) -> int | None:
    """Return the pid of the process that holds the WAL write lock; None when nobody does or the system does not tell."""
    try:
        shm = Path(path + "-shm").stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    inode = f"{os.major(shm.st_dev):02x}:{os.minor(shm.st_dev):02x}:{shm.st_ino}"
    for line in locks.splitlines():
        # "1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 120 120"; a waiting request has "->" as its second field.
        fields = line.split()
        if len(fields) == 8 and fields[3] == "WRITE" and fields[5] == inode and int(fields[6]) <= _WRITE_LOCK_BYTE <= _last(fields[7]):
            return int(fields[4])
    return None


def _last(field: str) -> float:
    return float("inf") if field == "EOF" else int(field)
