"""A guard against a second SQLite library, and against open(), on a live database's files.

POSIX locks belong to the process, not to the descriptor. When any code closes any
descriptor of a file, every lock that the process holds on it is gone. SQLite works around
that within one library, by a table of its own. A second library (the standard `sqlite3`,
and with it aiosqlite, SQLAlchemy, datasette) or a plain open(), copy or hash of the file
knows nothing of that table. Reproduced: apsw is inside BEGIN IMMEDIATE, `sqlite3` merely
opens and reads the file, another process gets the write lock, apsw's COMMIT succeeds, and
its row is gone. integrity_check reports ok. Opening the -shm file does the same.

So an audit hook watches the few events by which that happens, and reports the code that
did it: a warning with the stack and a count in `stats()`, or with `guard="raise"` a
RuntimeError where it happens, before any harm.

Python cannot remove an audit hook, and calls it for every audited event of the process.
So it is installed once, with the first guarded database. For an event that is not in the
table it is one dictionary lookup (0.3 us measured, nearly all of it the interpreter's
call), and it does nothing when no database is open. An open() of any other file costs 4
stat() calls (6 us). Names are compared by device and inode, so links are seen through.

Limits: some ways raise no event. C code may open the file by itself (apsw does, and so
would a second copy of SQLite in another extension). ATTACH may go through a connection to
another file. `os.open(name, dir_fd=...)` has an event with the name but not its folder.

Locks: `_lock` guards the replacement of the watch list. The hook reads without it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

Mode = Literal["warn", "raise"]

log = logging.getLogger("sessiondb.guard")

_SUFFIXES = ("", "-wal", "-shm")
# Its locks belong to its descriptor, so opening it does no harm. Without it nobody can tell
# whether this process lives.
_LOCK_FILE = "-alive"
_TAKES_THE_NAME = frozenset({"os.remove", "os.rename"})

# Audit event -> its arguments that are paths, each with the argument that is its folder
# (`dir_fd`, or -1: none). shutil.rmtree() names files by their folder. Opening and
# replacing do harm. stat() and listing do not.
_EVENTS: Mapping[str, tuple[tuple[int, int | None], ...]] = {
    "open": ((0, None),),
    "sqlite3.connect": ((0, None),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.truncate": ((0, None),),
}


class Guard:
    """One open database's entry in the watch list."""

    def __init__(self, path: str, mode: Mode) -> None:
        self.path = path
        self.mode = mode
        self.violations = 0
        self.files = [path + suffix for suffix in _SUFFIXES]
        self.named = [*self.files, path + _LOCK_FILE]


_lock = threading.Lock()
_watched: tuple[Guard, ...] = ()


def _unlock_after_fork() -> None:
    """Give a fork's child a lock of its own: the thread that held this one is not there."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock_after_fork)
_installed = False


def watch(path: str, mode: Mode) -> Guard:
    """Watch the files of a database that is open in this process."""
    global _watched, _installed
    guard = Guard(path, mode)
    # Critical section "watch list". Lock: _lock. Invariant: the tuple is replaced, never
    # changed, so the hook reads it without a lock.
    with _lock:
        if not _installed:
            sys.addaudithook(_hook)  # raises when another hook forbids it: nothing is watched then
            _installed = True
        _watched = (*_watched, guard)
    return guard


def unwatch(guard: Guard) -> None:
    """Stop watching the files of a database that has been closed. May be repeated."""
    global _watched
    with _lock:
        _watched = tuple(other for other in _watched if other is not guard)


def _hook(
    event: str,
    arguments: tuple[Any, ...],
    *,
    events: Mapping[str, tuple[tuple[int, int | None], ...]] = _EVENTS,
) -> None:
    positions = events.get(event)
    if positions is not None and _watched:
        for position, folder in positions:
            _check(event, arguments[position], -1 if folder is None else arguments[folder])


def _check(event: str, argument: object, folder: int) -> None:
    path = _path_of(event, argument)
    if path is None or (opened := _inode(path, folder)) is None:
        return
    for guard in _watched:
        files = guard.named if event in _TAKES_THE_NAME else guard.files
        if any(_inode(file) == opened for file in files):
            _report(guard, event, path)


def _path_of(event: str, argument: object) -> str | None:
    """Return the path that an event names. None for a descriptor or a memory database."""
    if isinstance(argument, os.PathLike):
        argument = os.fspath(argument)
    if isinstance(argument, bytes):
        argument = os.fsdecode(argument)
    if not isinstance(argument, str) or not argument:
        return None
    if event == "sqlite3.connect":
        if argument == ":memory:":
            return None
        if argument.startswith("file:"):
            return unquote(urlsplit(argument).path) or None
    return argument


def _inode(path: str, folder: int = -1) -> tuple[int, int] | None:
    """Return what identifies a file under any name. None when it is missing or misnamed."""
    try:
        # No Path objects: this runs at every open() of the process.
        found = os.stat(path, dir_fd=None if folder == -1 else folder)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _report(
    guard: Guard, event: str, path: str, *, warn: Callable[..., None] = log.warning
) -> None:
    guard.violations += 1
    message = (
        f"{event}: {path} belongs to a sessiondb database that is open in this process. "
        "Touching it with anything but sessiondb drops the locks that keep its data safe, "
        "without any error. Use sessiondb's own read or backup, or another process."
    )
    if guard.mode == "raise":
        raise RuntimeError(message)
    warn("%s", message, stack_info=True)
