"""Which instances live: a lock on one byte of a small file, released by the kernel alone.

Beside a database `x.db` lies `x.db-alive`, an empty file. The process of instance 7 has
an exclusive lock on byte 7 of it, from before its registration can be read until after
that is closed. Nothing else ends the lock but the end of the process. So whoever wants
to know whether an instance lives asks the kernel about its byte. The answer is the same
in every PID namespace and container, under every host name, and after a reboot. It needs
no pid, so a recycled one cannot be mistaken for its predecessor.

**It is a file of its own**, never the database, its WAL or its shm. SQLite has locks on
those, and closing any descriptor of them would drop SQLite's. The bytes lie beyond the
file's end, which takes no space.

**Two kinds of lock.** On Linux the lock belongs to the open file description (F_OFD_*):
no other descriptor that this process opens and closes ends it. Elsewhere, and in a
sandbox without them, it is the classic kind, which belongs to the process. That one is
lost when *any* descriptor of the file is closed. So a process has one descriptor of a
lock file, which is closed with the last byte that it holds.

**Forks.** A description is shared with a fork's child, which would keep its parent alive
after the parent's death. So the child closes the descriptor at once. The descriptor is
also close-on-exec. Limit: C code that forks without Python's knowledge, and executes
nothing, keeps its parent's instances alive for as long as the child lives. Their work
then waits for its leases. Nothing is taken from a process that lives.

**The file is known by device and inode**, which each registration records. A process
that lives pins its inode. So a byte is asked about only in the very file in which it was
locked. If the registration names a file that has gone, the answer is "unknown", and the
lease decides (`judged`). A gateway whose lock file was moved or deleted notices that
before its next transaction, and locks its byte in the file that now has the name. The
file is never deleted by sessiondb.

Locks: `_lock` guards the table of descriptors, and is held for a few system calls, never
across SQL. Order: the database's write lock first, then `_lock`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from sessiondb import process
from sessiondb.errors import OpenError, UnsafeFilesystem
from sessiondb.process import Registered

from .files import file_id
from .filesystem import mount_here

SUFFIX = "-alive"

_HAS_OFD = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")
# struct flock of Linux, with 64-bit offsets: type, whence, start, length, pid. The pid of an
# OFD lock must be 0. The padding at its end is part of it on 64-bit systems.
_FLOCK = struct.Struct("@hhqqi4x")
_TAKEN = (errno.EAGAIN, errno.EACCES)
# A lock file that was replaced while it was being locked is locked again, so often at most.
_REPLACED_MAX = 10


class Hold:
    """One instance's byte, held by this process until `release`."""

    def __init__(self, path: str, instance_no: int, lock_file: str | None) -> None:
        self.instance_no = instance_no
        self.lock_file = lock_file
        """The file that has the lock, as its registration records it. None: locks do not work
        here, which the caller has accepted."""
        self._path = path

    def is_named(self) -> bool:
        """Tell whether the lock file still has its name. One stat()."""
        return self.lock_file is None or name_of(self._path + SUFFIX) == self.lock_file

    def release(self) -> None:
        """Give up the byte, and only that. May be repeated. Nothing in a fork's child."""
        with _lock:
            file = _files.get(self.lock_file or "")
            if file is not None:
                file.give_up(self.instance_no)
                _close_unused()


class _LockFile:
    """This process's descriptor of one lock file, and the bytes that it holds there."""

    def __init__(self, descriptor: int, *, writable: bool) -> None:
        self.descriptors = [descriptor]
        self.writable = writable
        self.held: set[int] = set()
        self._has_ofd = _HAS_OFD

    def add(self, descriptor: int, *, writable: bool) -> None:
        """Take over a second descriptor. The first stays open, because of the classic kind."""
        self.descriptors.append(descriptor)
        self.writable = writable

    def take(self, number: int) -> bool:
        """Lock a byte. Return False when it is taken, by this process or another."""
        if number in self.held or not self._lock(fcntl.F_WRLCK, number):
            return False
        self.held.add(number)
        return True

    def give_up(self, number: int) -> None:
        if number in self.held:
            self._lock(fcntl.F_UNLCK, number)
            self.held.discard(number)

    def is_taken(self, number: int) -> bool:
        """Tell whether any process holds a byte. Asks, and changes nothing for anybody.

        It asks for a shared lock, so only an exclusive one is an answer. That takes the right
        to write to the file.
        """
        if number <= 0:
            return False  # a file that another program wrote: no instance has such a number
        if number in self.held:
            return True
        if not self._has_ofd:
            # Python does not know the classic question on every system, so it is tried. Two
            # shared locks do not disturb one another. `held` has kept our own from being given up.
            if not self._lock(fcntl.F_RDLCK, number):
                return True
            self._lock(fcntl.F_UNLCK, number)
            return False
        try:
            return self._asked(self.descriptors[-1], number)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._has_ofd = False
            return self.is_taken(number)

    def proves_itself(self, number: int, path: str) -> bool:
        """Tell whether another description of the file is refused a byte that is held.

        Not for the classic kind: within one process it cannot be seen to work.
        """
        if not self._has_ofd:
            return True
        second = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _name(os.fstat(second)) != _name(os.fstat(self.descriptors[-1])):
                return True  # it was replaced this moment. The caller compares the names next
            return self._asked(second, number)
        finally:
            os.close(second)

    @staticmethod
    def _asked(descriptor: int, number: int) -> bool:
        question = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, number, 1, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def _lock(self, kind: int, number: int) -> bool:
        """Lock or unlock a byte without waiting. Return False when another holder keeps it."""
        descriptor = self.descriptors[-1]
        try:
            if self._has_ofd:
                wish = _FLOCK.pack(kind, os.SEEK_SET, number, 1, 0)
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wish)
            else:
                command = {
                    fcntl.F_WRLCK: fcntl.LOCK_EX | fcntl.LOCK_NB,
                    fcntl.F_RDLCK: fcntl.LOCK_SH | fcntl.LOCK_NB,
                    fcntl.F_UNLCK: fcntl.LOCK_UN,
                }[kind]
                fcntl.lockf(descriptor, command, 1, number)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            if error.errno == errno.EINVAL and self._has_ofd and not self.held:
                # A sandbox that has only the classic kind. Nothing is held by the other yet.
                self._has_ofd = False
                return self._lock(kind, number)
            raise
        return True


# -- the table of descriptors ----------------------------------------------------------

# Critical section "descriptors". Lock: _lock, which a fork takes, too. Invariants: outside of it
# every open descriptor of a lock file is in this table, so a fork's child finds and closes each.
# And the table has one entry for a file, whose descriptors are closed together, when no byte is
# held there. So no close() drops a lock of the classic kind. It may be entered again by the
# thread that is inside (RLock): an audit hook or a signal handler may fork there.
_lock = threading.RLock()
_files: dict[str, _LockFile] = {}


def _close_unused() -> None:
    """Close what holds no byte. Inside the critical section."""
    for name in [name for name, file in _files.items() if not file.held]:
        for descriptor in _files.pop(name).descriptors:
            os.close(descriptor)


def _forget_in_child() -> None:
    """Close what a fork's child has inherited. The locks stay with the parent.

    Closing is not unlocking: the parent's description is still open there.
    """
    for file in _files.values():
        for descriptor in file.descriptors:
            os.close(descriptor)
    _files.clear()
    _lock.release()


os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget_in_child
)


def _opened(path: str, *, writable: bool) -> tuple[str, _LockFile]:
    """Return the lock file of that name, opened if need be. Inside the critical section.

    For writing it is created when it is missing. Then the caller has the database's write
    lock (critical section "creation", in `hold`).
    """
    name = name_of(path)
    file = _files.get(name)
    if file is not None and (file.writable or not writable):
        return name, file
    # O_NONBLOCK: another user's pipe of that name would keep the open from returning.
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    flags |= os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
    descriptor = os.open(path, flags, 0o600)
    name = _name(os.fstat(descriptor))  # it may have been replaced since it was looked at
    if name in _files:
        _files[name].add(descriptor, writable=writable)
    else:
        _files[name] = _LockFile(descriptor, writable=writable)
    return name, _files[name]


def _name(found: os.stat_result) -> str:
    return f"{found.st_dev}:{found.st_ino}"


def name_of(path: str) -> str:
    """Return what identifies a file: its device and inode. Empty when it is missing."""
    found = file_id(path)
    return "" if found is None else f"{found[0]}:{found[1]}"


# -- holding ---------------------------------------------------------------------------


def hold(path: str, instance_no: int) -> Hold | None:
    """Lock an instance's byte in the lock file of a database. None: another process holds it.

    Critical section "creation". Lock: the database's write lock, which the caller has.
    Invariant: a lock file has the database's mode and owner before another process locks a
    byte in it. So a command of root does not keep the gateway's user from its own file.

    Raises:
        OpenError: this user may not write to the lock file, or it is no plain file.
        UnsafeFilesystem: the file system has no such locks.
    """
    lock_path = path + SUFFIX
    for _ in range(_REPLACED_MAX):
        with _lock, _explained(lock_path):
            name, file = _opened(lock_path, writable=True)
            try:
                _protect(file.descriptors[-1], path)
                if not file.take(instance_no):
                    return None
                if not file.proves_itself(instance_no, lock_path):
                    file.give_up(instance_no)
                    raise _useless(lock_path, "a lock that is held is not seen")
                # The name is compared after the lock: whoever reads the registration looks for
                # the file under its name.
                if name_of(lock_path) == name:
                    return Hold(path, instance_no, name)
                file.give_up(instance_no)
            finally:
                _close_unused()
    raise OpenError(
        f"{lock_path}: this file is replaced again and again while it is being locked. Find out "
        "what does that, and stop it."
    )


@contextmanager
def _explained(lock_path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise _useless(lock_path, error.strerror or str(error)) from error
        if error.errno == errno.ELOOP:
            raise OpenError(
                f"{lock_path}: this is a symbolic link, and sessiondb keeps a file of its own "
                "under this name. Find out who made it."
            ) from error
        raise OpenError(
            f"{lock_path}: this file, in which each process locks a byte to show that it lives, "
            f"cannot be used: {error.strerror}. Give it the owner and mode of the database."
        ) from error


def _useless(lock_path: str, reason: str) -> UnsafeFilesystem:
    mount = mount_here(lock_path)
    where = f" ({mount.point}, {mount.type})" if mount is not None else ""
    return UnsafeFilesystem(
        f"{lock_path}: its file system{where} has no file locks that work: {reason}. Such locks "
        "tell which process lives, and keep SQLite's writers apart. Move the database to a local "
        "disk. If you know that only one process on one machine will ever open it, "
        "allow_unsafe_filesystem=True accepts the risk.",
        mount=mount.point if mount is not None else "",
        filesystem=mount.type if mount is not None else "",
    )


def _protect(descriptor: int, path: str) -> None:
    """Give a lock file the database's mode, and root gives it the database's owner, as SQLite does.

    Each time, so that what a crash left undone is done by the next process.
    """
    lock, database = os.fstat(descriptor), os.stat(path)  # noqa: PTH116  # no Path objects here
    if lock.st_size or not stat.S_ISREG(lock.st_mode):
        raise OpenError(
            f"{path + SUFFIX}: sessiondb keeps an empty file of its own under this name, and this "
            "is another. Find out who made it, and move it away."
        )
    if os.geteuid() == 0 and (lock.st_uid, lock.st_gid) != (database.st_uid, database.st_gid):
        os.fchown(descriptor, database.st_uid, database.st_gid)
    mode = stat.S_IMODE(database.st_mode) & 0o666
    if os.geteuid() in (0, lock.st_uid) and stat.S_IMODE(lock.st_mode) != mode:
        os.fchmod(descriptor, mode)


# -- asking ----------------------------------------------------------------------------


def liveness(path: str, registrations: Sequence[Registered]) -> list[bool | None]:
    """Tell of each registration of a database whether its process lives. None: unknown.

    Asks the kernel, once for each, so it is for a thread and not for the event loop.
    """
    if not registrations:
        return []
    with _lock:
        # Without the file, because it is missing or this user may not read it, `_judged` goes by
        # what the registrations say.
        named = ""
        with suppress(OSError):
            named, _ = _opened(path + SUFFIX, writable=False)
        database = name_of(path)
        try:
            return [_judged(row, named, database) for row in registrations]
        finally:
            _close_unused()


def _judged(row: Registered, named: str, database: str) -> bool | None:
    """Judge one registration. Inside the critical section.

    `named` is the lock file that has the name now, and `database` the database.
    """
    lock_file = row.lock_file or ""
    if lock_file and lock_file == named:
        return _files[lock_file].is_taken(row.instance_no)
    # Its lock file is not there: it was moved, deleted or replaced. Or this is a copy.
    if database and row.database_file and row.database_file != database:
        return False  # its process opened another file, of which this is a copy
    if lock_file in _files:
        return _files[lock_file].is_taken(row.instance_no)  # one that this process still holds
    boot_id = process.boot_id()
    if boot_id and row.boot_id and row.boot_id != boot_id:
        return False
    return None
