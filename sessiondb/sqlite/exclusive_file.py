"""A database file that is opened without SQLite: for reading, and locked as SQLite locks it."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from sessiondb.errors import OpenError, StoreBusy

from .connection import is_open_here
from .file_format import LOCK_BYTE, LOCK_BYTES


def holders(path: str) -> list[str]:
    """Name the processes that hold a lock on a database or its -shm, this one included.

    Empty where the system has no /proc/locks.
    """
    inodes = set()
    for name in (path, path + "-shm"):
        try:
            found = Path(name).stat()
        except OSError:
            continue
        inodes.add(f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}")
    try:
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    # "1: POSIX  ADVISORY  READ 4711 fe:00:1234 128 128". A waiting request has "->" as its
    # second field, and so one more.
    pids = {
        int(fields[4])
        for fields in map(str.split, locks)
        if len(fields) == 8 and fields[5] in inodes
    }
    return [_name_of(pid) for pid in sorted(pids)]


def _name_of(pid: int) -> str:
    try:
        comm = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
        return f"pid {pid} ({comm.strip()})"
    except OSError:
        return f"pid {pid}"


class ExclusiveFile:
    """A file that is open for reading, and locked so that no other process opens it meanwhile."""

    def __init__(self, path: str) -> None:
        try:
            mode = Path(path).stat().st_mode
        except OSError as error:
            raise OpenError(
                f"{path}: {(error.strerror or str(error)).lower()}. "
                "Check the path and who may read it."
            ) from error
        if not stat.S_ISREG(mode):
            # Checked before it is opened: opening a pipe waits for its writer.
            raise OpenError(
                f"{path}: this is not a plain file, so there is no database in it. Check the path."
            )
        held = [_name_of(os.getpid())] if is_open_here(path) else holders(path)
        if held:
            # This process counts, too: closing the file here would release its own locks.
            raise self._busy(path, held)
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self.fd = self._open_readonly(path)
            return
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_BYTES, LOCK_BYTE)
        except OSError as error:
            os.close(self.fd)
            raise self._busy(path, holders(path)) from error

    @staticmethod
    def _open_readonly(path: str) -> int:
        """Open without a lock, which needs the right to write. /proc/locks has named no holder."""
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OpenError(
                f"{path}: {reason}. "
                "Run as the file's owner, or give this user the right to read it."
            ) from error

    @staticmethod
    def _busy(path: str, held: list[str]) -> StoreBusy:
        who = ", ".join(held) or "another process"
        return StoreBusy(
            f"{path}: {who} has the database open. Stop that process, and run this again.",
            retry_after_ms=1_000,
            holder=who,
        )

    def close(self) -> None:
        os.close(self.fd)
