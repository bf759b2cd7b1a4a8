"""The database's files: created with the right permissions, and which process holds their lock.

Never open(), copy or hash the files of a live database in this process, not even to read.
Closing any descriptor of a file drops every POSIX lock that the process holds on it,
SQLite's included, without an error anywhere. So this module learns from os.stat() and
/proc only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sessiondb.durable_files import NO_LINKS, lacks_links, make_folder, sync_folder
from sessiondb.errors import InvalidInput, OpenError

# SQLite locks byte 120 of the -shm file while it writes to the WAL (WAL_WRITE_LOCK, part of
# its file format).
_WRITE_LOCK_BYTE = 120
# A snapshot holds one of these bytes (WAL_READ_LOCK 0 to 4) for as long as it lives. It holds the
# first if all of the WAL was in the database when it began: then nothing more may be copied
# there, and so the WAL cannot be reset either.
_SNAPSHOT_BYTES = (123, 127)


def resolved(path: str) -> str:
    """Return a path without links, as SQLite can be given it.

    Raises:
        OpenError: the path holds a NUL or is not UTF-8.
    """
    try:
        found = os.path.realpath(path)
        found.encode()
    except ValueError as error:
        raise OpenError(
            f"{path!r}: a database's path is UTF-8 without NUL. This one is not ({error}). "
            "Rename it or its folder."
        ) from error
    return found


def file_id(path: str) -> tuple[int, int] | None:
    """Return what identifies a file under any name. None when it is missing."""
    found = file_status(path)
    return None if found is None else (found.st_dev, found.st_ino)


def file_status(path: str) -> os.stat_result | None:
    """Return what the system knows of a file. None when it is missing."""
    try:
        return os.stat(path)  # noqa: PTH116  # many times per transaction: no Path objects
    except OSError:
        return None


def make_file(path: str, *, create: bool) -> bool:
    """Create an empty file that only its owner may use. Return False when it exists.

    A missing folder is created too. -wal and -shm inherit the mode. The descriptor is
    opened and closed only when the file is new, so no lock can depend on it. SQLite syncs
    the file's name, with the WAL's. May be repeated.

    Raises:
        OpenError: the file is missing and `create` is off, it is not a plain file, or its
            folder cannot be created.
    """
    file = Path(path)
    try:
        is_there = file.exists()
    except OSError as error:
        raise OpenError(
            f"{path}: this user may not look into {file.parent}: {error.strerror}. "
            "Run as the file's owner."
        ) from error
    if is_there:
        if not file.is_file():
            raise OpenError(
                f"{path}: this is not a plain file. A database needs a file of its own."
            )
        return False
    if not create:
        raise OpenError(
            f"{path}: there is no such file. Check the path, or open it for writing to create it."
        )
    try:
        make_folder(file.parent)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False  # another process opening the same new path came first
    except OSError as error:
        raise OpenError(
            f"{path}: the file cannot be created: {error.strerror}. "
            "Check the folder and its permissions."
        ) from error
    return True


def make_partial(path: str, what: str) -> str:
    """Create the empty file in which a new database is built before it gets its name.

    `what` names the operation that builds it. Whether `place` can give the file its name
    is tested here, before the file has any content.

    Returns:
        The temporary path.

    Raises:
        InvalidInput: the name is taken, or that of its -wal. Or an earlier run left its
            temporary file, or the file system has no hard links.
    """
    if os.path.lexists(path):
        raise _taken(path, what)
    wal = file_status(path + "-wal")
    if wal is not None and wal.st_size > 0:
        raise InvalidInput(
            f"{path}-wal: there is a file already. It belongs to another database, and would be "
            f"read as a part of this {what}. Move it away, or choose another name."
        )
    partial = path + ".partial"
    if not make_file(partial, create=True):
        raise InvalidInput(
            f"{partial}: left by a {what} that was interrupted, or being written. "
            f"Remove it if no {what} is running."
        )
    try:
        _try_link(partial, path)
    except BaseException:
        Path(partial).unlink()
        raise
    return partial


def _try_link(partial: str, path: str) -> None:
    probe = Path(path + ".link")
    try:
        probe.hardlink_to(partial)
    except FileExistsError:
        # A run that was killed here has left it, so the file system has links. If it is
        # another program's file, `place` finds out.
        return
    except OSError as error:
        _refuse_without_links(path, error)
        raise
    probe.unlink()


def place(partial: str, path: str, what: str) -> None:
    """Rename a finished and synced file to its own name. On disk when this returns.

    Raises:
        InvalidInput: the name was taken meanwhile, or the file system has no hard links.
    """
    try:
        Path(path).hardlink_to(partial)  # unlike a rename this fails when the name is taken
    except FileExistsError as error:
        raise _taken(path, what) from error
    except OSError as error:
        _refuse_without_links(path, error)
        raise
    Path(partial).unlink()
    sync_folder(Path(path).parent)


def _taken(path: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path}: there is a file already. A {what} never overwrites one. Choose another name."
    )


def _refuse_without_links(path: str, error: OSError) -> None:
    if lacks_links(error):
        raise InvalidInput(f"{path}: {NO_LINKS}. Nothing is left of it.") from error


def reread_wal(path: str) -> None:
    """Make the system read a leftover WAL from its disk again, not from memory.

    Called before this process opens the database. When a sync fails, Linux may take what
    it could not write for written, and keep showing it. A process that is killed then
    leaves a commit that is in memory only. The next process would find it, build on it,
    and lose it with everything after it in a power cut. Pages that merely wait to be
    written stay. The WAL carries no locks, but a second opening of the database in one
    process skips this all the same.
    """
    if sys.platform != "linux":
        return
    try:
        descriptor = os.open(
            path + "-wal", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
    except OSError:
        return  # there is no WAL. Or SQLite, which opens it next, reports the error
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def lock_holder(path: str) -> str | None:
    """Return the process that holds the write lock, as "pid 123 (python)".

    None: no process holds it, or the system does not tell.
    """
    pid = lock_holder_pid(path)
    return None if pid is None else _name(pid)


def lock_holder_pid(path: str) -> int | None:
    """Return the pid of the process that holds the write lock.

    None: no process holds it, or the system does not tell.
    """
    for pid, kind, first, last in _wal_locks(path):
        if kind == "WRITE" and first <= _WRITE_LOCK_BYTE <= last:
            return pid
    return None


def snapshot_holders(path: str) -> list[str]:
    """Return the processes whose snapshots keep the WAL from being reset.

    Empty when the system does not tell.
    """
    first_byte, last_byte = _SNAPSHOT_BYTES
    pids = {
        pid
        for pid, kind, first, last in _wal_locks(path)
        if kind == "READ" and first <= last_byte and last >= first_byte
    }
    return ["this process" if pid == os.getpid() else _name(pid) for pid in sorted(pids)]


def _wal_locks(path: str) -> list[tuple[int, str, int, float]]:
    """Return the locks on a database's -shm file: pid, READ or WRITE, first and last byte.

    /proc/locks lists them by device and inode, so no file of the database is opened.
    """
    try:
        shm = Path(path + "-shm").stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return []
    inode = f"{os.major(shm.st_dev):02x}:{os.minor(shm.st_dev):02x}:{shm.st_ino}"
    found = []
    for line in locks.splitlines():
        # "1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 120 120". A waiting request has "->" as
        # its second field.
        fields = line.split()
        if len(fields) == 8 and fields[5] == inode:
            found.append((int(fields[4]), fields[3], int(fields[6]), _last(fields[7])))
    return found


def _name(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return f"pid {pid}"
    return f"pid {pid} ({name})"


def _last(field: str) -> float:
    return float("inf") if field == "EOF" else int(field)
