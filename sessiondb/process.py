"""The identity of this process: what a person is shown of who holds what.

Host, boot, pid and the kernel's start time of that pid tell a person which process it is.
They decide nothing: pids are recycled, and containers number them afresh under host names
of their own. Whether a process lives is known to the lock that it holds
(`Backend.liveness`), and only there.

Where there is no /proc (macOS) the boot and the start time are empty.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

COMMAND_LINE = "sessiondb"
"""The program name of the command line. Gateways have names of their own."""

_PROC = Path("/proc")
# In /proc/<pid>/stat the start time is field 22. The fields after the command's closing
# bracket begin with field 3.
_START_TIME = 22 - 3


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told apart from every other that ever had its pid."""

    host: str
    boot_id: str
    pid: int
    pid_started: int


class Registered(Protocol):
    """A row that names an instance, with what tells whether its process lives."""

    @property
    def instance_no(self) -> int: ...
    @property
    def boot_id(self) -> str: ...
    @property
    def database_file(self) -> str | None: ...
    @property
    def lock_file(self) -> str | None: ...


class Joined(Protocol):
    """A row that may have found no instance in its outer join."""

    @property
    def instance_no(self) -> int | None: ...
    @property
    def program(self) -> str | None: ...
    @property
    def host(self) -> str | None: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def boot_id(self) -> str | None: ...
    @property
    def database_file(self) -> str | None: ...
    @property
    def lock_file(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Owner:
    """A holder in plain values, which outlive the row. A `Registered`, and for a person's eyes."""

    instance_no: int
    program: str
    host: str
    pid: int
    boot_id: str
    database_file: str | None
    lock_file: str | None


def owner(row: Joined) -> Owner | None:
    """Return the holder that a row names. None if the outer join found none."""
    if (
        row.instance_no is None
        or row.program is None
        or row.host is None
        or row.pid is None
        or row.boot_id is None
    ):
        return None
    return Owner(
        row.instance_no,
        row.program,
        row.host,
        row.pid,
        row.boot_id,
        row.database_file,
        row.lock_file,
    )


def identity() -> Identity:
    """Return the identity of this process. Not cached: a forked child has another one."""
    pid = os.getpid()
    return Identity(socket.gethostname(), boot_id(), pid, _started(pid) or 0)


def is_running(pid: int, started: int | None) -> bool:
    """Return whether a process of another program runs, by what its lock file says of it.

    `started` is its start in kernel ticks, if the file says that, too. A pid may have been given
    to another process since.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it is somebody else's
    now = _started(pid)
    return started is None or now is None or now == started


def boot_id() -> str:
    """Return what this start of the machine is called. Empty when the system does not tell."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Return when `pid` began, in kernel ticks since boot. None if the system does not tell."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command name may hold spaces and brackets, so count from its last bracket.
    return int(stat.rpartition(")")[2].split()[_START_TIME])
