"""The identity of this process, and whether another process is still alive.

A pid alone proves nothing: pids are recycled, containers number them afresh, and a reboot
reuses them all. So an identity is host, boot, pid and the kernel's start time of that pid. On
the same boot of the same host the answer is exact. About any other host nothing can be known
from here, and the caller goes by expiry.

Where there is no /proc (macOS) the boot and the start time are empty, and a pid that
exists counts as alive. The answer errs towards "alive", so a lease is released late
rather than taken from its owner.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

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


def recorded(
    host: str | None, boot_id: str | None, pid: int | None, pid_started: int | None
) -> Identity | None:
    """Return the process that a row names. None if the outer join found none."""
    if host is None or boot_id is None or pid is None or pid_started is None:
        return None
    return Identity(host, boot_id, pid, pid_started)


def identity() -> Identity:
    """Return the identity of this process. Not cached: a forked child has another one."""
    pid = os.getpid()
    return Identity(socket.gethostname(), _boot_id(), pid, _started(pid) or 0)


def is_alive(host: str, boot_id: str, pid: int, pid_started: int) -> bool | None:
    """Tell whether that process still runs. None when it is on another host."""
    if host != socket.gethostname():
        return None
    if boot_id != _boot_id():
        return False
    if not _has_proc():
        return _pid_exists(pid)
    return _started(pid) == pid_started


def _has_proc() -> bool:
    return (_PROC / "self" / "stat").exists()


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Return the start time of `pid` in kernel ticks since boot. None if it does not run."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command name may hold spaces and brackets, so count from its last bracket.
    state, *rest = stat.rpartition(")")[2].split()
    if state in "ZX":  # a zombie keeps its pid until its parent waits, but holds nothing any more
        return None
    return int(rest[_START_TIME - 1])


def _pid_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
