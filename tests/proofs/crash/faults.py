"""A disk that fails at chosen calls, for tests that sweep over all of them.

`FaultyVFS` is an apsw VFS over "unix", and the default one. So all that SQLite does to
any file of this process passes through `Disk`. It counts calls by kind and decides
which of them fails, and how:

* One call fails (`once`), or all calls from the nth on until `heal()`, as on a disk
  that stays bad for a while.
* The codes are SQLite's own, as the real VFS would give them: I/O error, disk full,
  cannot open, read-only.
* A write that fails may have written its first half. A short read of the WAL returns
  half of the bytes. (In the database that would be no fault to SQLite, which takes
  missing bytes for zeros behind the end of the file.)
* A full disk lets files be overwritten and lets none grow. A read-only disk refuses
  every change and opens files for reading only, as Linux does after
  `mount -o remount,ro`.

A VFS written in Python cannot override xShmMap and xShmLock: apsw passes them through in
C. So they are replaced below it. A connection hook asks SQLite for the open file's
`sqlite3_file` (SQLITE_FCNTL_FILE_POINTER), whose first word points at its table of
methods. The hook puts a copy of that table there, in which these two are ours. Unlocking
never fails here. In the real VFS it cannot fail without leaving the lock held, which no
program can repair.

`Kernel` goes one level down, to the system calls of the "unix" VFS, which fail with an
errno. So SQLite's own VFS chooses the codes, and no Python stands in between. fsync is
not among the calls that can be replaced. There are also reads and writes that do a
third of their work, and interruptions by signals. POSIX allows both at any time, and
nothing may notice.

Not modelled: a disk that lies (the power-loss simulator has that), one that hangs, and
damage of bytes that were read without an error.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apsw

Level = Literal["vfs", "memory", "kernel"]
Kind = Literal[
    "open",
    "read",
    "write",
    "sync",
    "truncate",
    "delete",
    "size",
    "access",
    "shm_map",
    "shm_lock",
    "open()",
    "pread()",
    "pwrite()",
    "ftruncate()",
    "unlink()",
    "fstat()",
    "mmap()",
]
How = Literal[
    "io", "full", "half", "short", "readonly", "EIO", "ENOSPC", "EDQUOT", "EMFILE", "ENOMEM"
]

_IO_CODES: dict[str, int] = {
    "open": apsw.SQLITE_CANTOPEN,
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "size": apsw.SQLITE_IOERR_FSTAT,
    "access": apsw.SQLITE_IOERR_ACCESS,
    "shm_map": apsw.SQLITE_IOERR_SHMMAP,
    "shm_lock": apsw.SQLITE_IOERR_SHMLOCK,
}


@dataclass(frozen=True)
class Fault:
    """The nth call of a kind fails (and, if it lasts, every later one until the disk is healed)."""

    kind: Kind
    nth: int
    how: How = "io"
    lasting: bool = False
    threads: str = ""
    """Only calls of threads whose name begins so. Counted among themselves."""

    def __str__(self) -> str:
        who = f" of {self.threads}" if self.threads else ""
        return f"{self.how} at {self.kind} {self.nth}{who}{' and on' if self.lasting else ''}"

    def error(self) -> apsw.Error:
        """Return what the VFS raises, as apsw would have made it from SQLite's code."""
        makers: dict[How, tuple[type[apsw.Error], int]] = {
            "io": (
                apsw.CantOpenError if self.kind == "open" else apsw.IOError,
                _IO_CODES[self.kind],
            ),
            "half": (apsw.IOError, _IO_CODES[self.kind]),
            "full": (apsw.FullError, apsw.SQLITE_FULL),
            "readonly": (apsw.ReadOnlyError, apsw.SQLITE_READONLY),
        }
        make, code = makers[self.how]
        return _error(make, code, f"injected: {self}")


def _error(make: type[apsw.Error], code: int, message: str) -> apsw.Error:
    error = make(message)
    error.extendedresult = code
    error.result = code & 0xFF
    return error


class Disk:
    """What the disk does wrong at the moment, and how often it was asked for what."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.stutters: Counter[str] = Counter()
        self.injected = 0
        self.fault: Fault | None = None
        self.is_full = False
        self.is_readonly = False

    def heal(self) -> None:
        """Let everything succeed from now on."""
        with self._lock:
            self.fault, self.is_full, self.is_readonly = None, False, False

    @property
    def is_ill(self) -> bool:
        """True while some call may still fail."""
        fault = self.fault
        waits = fault is not None and (fault.lasting or self.calls[_counted(fault)] < fault.nth)
        return waits or self.is_full or self.is_readonly

    def strike(self, kind: Kind) -> Fault | None:
        """Count a call. Return the fault if this is one that is to fail."""
        with self._lock:
            self.calls[kind] += 1
            fault = self.fault
            if fault is None or fault.kind != kind:
                return None
            count = self.calls[kind]
            if fault.threads:
                if not threading.current_thread().name.startswith(fault.threads):
                    return None
                self.calls[_counted(fault)] += 1
                count = self.calls[_counted(fault)]
            if count == fault.nth or (fault.lasting and count > fault.nth):
                self.injected += 1
                return fault
            return None

    def call(self, kind: Kind) -> None:
        """Count a call, and raise what it is to fail with."""
        fault = self.strike(kind)
        if fault is not None:
            raise fault.error()

    def change(self, what: str) -> None:
        """Raise if the disk is read-only: every change of a file fails then."""
        if self.is_readonly:
            with self._lock:
                self.injected += 1
            raise _error(
                apsw.IOError, apsw.SQLITE_IOERR_WRITE, f"injected: read-only file system at {what}"
            )

    def grow(self, what: str) -> None:
        """Raise if the disk is full: no file grows then."""
        if self.is_full:
            with self._lock:
                self.injected += 1
            raise _error(apsw.FullError, apsw.SQLITE_FULL, f"injected: no space left at {what}")


def _counted(fault: Fault) -> str:
    return f"{fault.kind} of {fault.threads}" if fault.threads else fault.kind


class FaultyVFS(apsw.VFS):
    """The default VFS while it is registered."""

    def __init__(self, disk: Disk, name: str = "faulty") -> None:
        self.disk = disk
        super().__init__(name, "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802  # apsw's name
        self.disk.call("open")
        if self.disk.is_readonly and flags[0] & apsw.SQLITE_OPEN_READWRITE:
            if flags[0] & apsw.SQLITE_OPEN_CREATE and not _exists(name):
                raise _error(
                    apsw.CantOpenError,
                    apsw.SQLITE_CANTOPEN,
                    "injected: read-only file system at open",
                )
            flags[0] = (
                flags[0] & ~(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
                | apsw.SQLITE_OPEN_READONLY
            )
            flags[1] = flags[0]
        return FaultyFile(self.disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.disk.call("delete")
        self.disk.change("delete")
        super().xDelete(filename, syncdir)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        self.disk.call("access")
        return super().xAccess(pathname, flags)


def _exists(name: Any) -> bool:
    text = name.filename() if isinstance(name, apsw.URIFilename) else name
    return text is not None and Path(text).exists()


class FaultyFile(apsw.VFSFile):
    """One open file."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        self.is_wal = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        present = self.disk.fault
        if present is not None and present.how == "short" and not self.is_wal:
            return super().xRead(amount, offset)
        fault = self.disk.strike("read")
        if fault is None:
            return super().xRead(amount, offset)
        if fault.how == "short":
            return super().xRead(amount, offset)[: amount // 2]
        raise fault.error()

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        fault = self.disk.strike("write")
        if fault is not None:
            if fault.how == "half":
                super().xWrite(bytes(data[: len(data) // 2]), offset)
            raise fault.error()
        self.disk.change("write")
        if self.disk.is_full:
            room = max(0, super().xFileSize() - offset)
            if room < len(data):
                # As a real file system does: what fits is written.
                if room:
                    super().xWrite(bytes(data[:room]), offset)
                self.disk.grow("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.call("sync")
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self.disk.call("truncate")
        self.disk.change("truncate")
        super().xTruncate(newsize)

    def xFileSize(self) -> int:  # noqa: N802
        self.disk.call("size")
        return super().xFileSize()


# -- shared memory ---------------------------------------------------------------------

# sqlite3_io_methods, part of SQLite's binary interface: iVersion, then 18 function pointers.
_METHODS = 19
_SHM_MAP, _SHM_LOCK = 13, 14
_SHM_UNLOCK = 1
_MAP = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_void_p),
)
_LOCK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int)

_present: Disk | None = None
# By the address of the original: a table is used for as long as any file is open, so
# none is ever freed.
_tables: dict[int, Any] = {}
_kept: list[Any] = []


def _table_over(original: int) -> Any:
    words = (ctypes.c_void_p * _METHODS).from_address(original)
    table = (ctypes.c_void_p * _METHODS)(*words)
    real_map, real_lock = _MAP(words[_SHM_MAP] or 0), _LOCK(words[_SHM_LOCK] or 0)

    def shm_map(file: int, page: int, size: int, extend: int, into: Any) -> int:
        disk = _present
        if disk is not None and disk.strike("shm_map") is not None:
            into[0] = None
            return apsw.SQLITE_IOERR_SHMMAP
        return real_map(file, page, size, extend, into)

    def shm_lock(file: int, offset: int, n: int, flags: int) -> int:
        disk = _present
        if disk is not None and not flags & _SHM_UNLOCK and disk.strike("shm_lock") is not None:
            return apsw.SQLITE_IOERR_SHMLOCK
        return real_lock(file, offset, n, flags)

    ours = (_MAP(shm_map), _LOCK(shm_lock))
    for index, function in zip((_SHM_MAP, _SHM_LOCK), ours, strict=True):
        table[index] = ctypes.cast(function, ctypes.c_void_p)
    _kept.append((ours, real_map, real_lock))
    return table


def reach_shared_memory(connection: apsw.Connection) -> None:
    """Put our two methods under a connection's main file: a connection hook of apsw."""
    file = ctypes.c_void_p()
    connection.file_control("main", apsw.SQLITE_FCNTL_FILE_POINTER, ctypes.addressof(file))
    if not file.value:
        return
    slot = ctypes.c_void_p.from_address(file.value)
    original = slot.value
    if (
        not original
        or ctypes.c_int.from_address(original).value < 2
        or any(ctypes.addressof(t) == original for t in _tables.values())
    ):
        return  # a file without shared memory (a temporary one)
    if original not in _tables:
        _tables[original] = _table_over(original)
    slot.value = ctypes.addressof(_tables[original])


@contextmanager
def _reaching_shared_memory(disk: Disk) -> Iterator[None]:
    global _present
    _present = disk
    apsw.connection_hooks.append(reach_shared_memory)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(reach_shared_memory)
        _present = None


# -- system calls ----------------------------------------------------------------------

_INT, _SIZE, _OFFSET, _TEXT, _POINTER = (
    ctypes.c_int,
    ctypes.c_size_t,
    ctypes.c_longlong,
    ctypes.c_char_p,
    ctypes.c_void_p,
)
_SIGNATURES: dict[str, Any] = {
    "open": ctypes.CFUNCTYPE(_INT, _TEXT, _INT, _INT, use_errno=True),
    "pread": ctypes.CFUNCTYPE(ctypes.c_ssize_t, _INT, _POINTER, _SIZE, _OFFSET, use_errno=True),
    "pwrite": ctypes.CFUNCTYPE(ctypes.c_ssize_t, _INT, _POINTER, _SIZE, _OFFSET, use_errno=True),
    "ftruncate": ctypes.CFUNCTYPE(_INT, _INT, _OFFSET, use_errno=True),
    "unlink": ctypes.CFUNCTYPE(_INT, _TEXT, use_errno=True),
    "fstat": ctypes.CFUNCTYPE(_INT, _INT, _POINTER, use_errno=True),
    "mmap": ctypes.CFUNCTYPE(_POINTER, _POINTER, _SIZE, _INT, _INT, _INT, _OFFSET, use_errno=True),
}
_MAP_FAILED = ctypes.c_void_p(-1).value


class Kernel:
    """The system calls of the "unix" VFS, made to fail by a `Disk`.

    They may also do less than they were asked for, as POSIX allows.
    """

    def __init__(self, disk: Disk, *, stutters_every: int = 0) -> None:
        self.disk = disk
        self.stutters_every = stutters_every

    def _wrap(self, real: Any, name: str) -> Any:
        kind: Any = f"{name}()"

        def call(*arguments: Any) -> Any:
            fault = self.disk.strike(kind)
            if fault is not None:
                ctypes.set_errno(getattr(errno, fault.how))
                return _MAP_FAILED if name == "mmap" else -1
            if self.stutters_every and name in ("pread", "pwrite"):
                return self._stutter(real, name, *arguments)
            return real(*arguments)

        return _SIGNATURES[name](call)

    def _stutter(self, real: Any, name: str, fd: int, buffer: int, amount: int, offset: int) -> Any:
        self.disk.stutters[name] += 1
        turn = self.disk.stutters[name] % (2 * self.stutters_every)
        if turn == self.stutters_every:
            self.disk.stutters[f"{name} interrupted"] += 1
            ctypes.set_errno(errno.EINTR)
            return -1
        if turn == 0 and amount > 1:
            self.disk.stutters[f"{name} cut short"] += 1
            amount = max(1, amount // 3)
        return real(fd, buffer, amount, offset)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the calls for the length of the block."""
        vfs = apsw.VFS("kernel", "unix")
        replaced: list[tuple[str, int, Any]] = []
        try:
            for name in _SIGNATURES:
                for spelling in (name, f"{name}64"):
                    address = vfs.xGetSystemCall(spelling)
                    if address:
                        ours = self._wrap(_SIGNATURES[name](address), name)
                        replaced.append((spelling, address, ours))
                        vfs.xSetSystemCall(spelling, ctypes.cast(ours, ctypes.c_void_p).value)
            yield
        finally:
            for spelling, address, _ in replaced:
                vfs.xSetSystemCall(spelling, address)
            vfs.unregister()


# -- all of it -------------------------------------------------------------------------


@contextmanager
def faulty_disk(level: Level = "vfs", *, stutters_every: int = 0) -> Iterator[Disk]:
    """Make the disk of this process fail, at one level.

    It holds for connections that are opened within the block.

    Not at several: what a VFS written in Python raises is pending, in the thread that
    called SQLite, until SQLite returns, and ctypes cannot call Python meanwhile.
    """
    disk = Disk()
    try:
        if level == "vfs":
            with _registered(FaultyVFS(disk)):
                yield disk
        elif level == "memory":
            with _registered(FaultyVFS(disk)), _reaching_shared_memory(disk):
                yield disk
        else:
            with Kernel(disk, stutters_every=stutters_every).installed():
                yield disk
    finally:
        disk.heal()


@contextmanager
def _registered(vfs: FaultyVFS) -> Iterator[None]:
    try:
        yield
    finally:
        vfs.unregister()
