"""Connections: how a file is opened and set up. One named function per setting, with its reason.

Only three kinds exist: the writer's (one per open database), the readers', and the visitor's (`readonly=True`, the
command line looking at a database that a gateway may have open). Each is used by exactly one thread, because apsw
refuses two, and none survives a fork.

Nothing process-global is touched: apsw's `connection_hooks` and `bestpractice.apply` would change connections of the
host program that are none of our business.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import apsw

from sessiondb.errors import OpenError, StoreBusy, UnsafeSQLite

from .files import lock_holder

T = TypeVar("T")
Durability = Literal["full", "normal"]

log = logging.getLogger("sessiondb.sqlite")

PAGE_BYTES = 4096
# After a reset the WAL file keeps this much, so that the next commits overwrite blocks instead of allocating them.
WAL_KEPT_BYTES = 4 * 1024 * 1024
# Prepared statements kept per connection: more than the named statements there are.
STATEMENT_CACHE = 256
# A reader meets a lock only while another process recovers the WAL or closes as the last one: milliseconds.
READ_LOCKED_S_MAX = 2.0
# Sleep between two attempts at a lock: long enough for the holder's transaction, short enough to notice its end.
RETRY_SLEEP_S = (0.0005, 0.004)


# -- the library ------------------------------------------------------------------------------------------------------


def refuse_unsafe_library(version: str | None = None) -> None:
    """Refuse SQLite with the WAL-reset bug: 3.7.0 to 3.51.2, except 3.50.7+ and 3.44.6+ of their own lines.

    With two connections writing and checkpointing at one instant those lose committed pages, silently; a gateway
    with a writer, readers and a command line is exactly that. See sqlite.org/wal.html#walresetbug.
    """
    version = version or apsw.sqlite_lib_version()
    number = tuple(int(part) for part in version.split(".")[:3])
    line = number[:2]
    fixed = (
        number >= (3, 51, 3)
        or (line == (3, 50) and number >= (3, 50, 7))
        or (line == (3, 44) and number >= (3, 44, 6))
    )
    if not fixed:
        raise UnsafeSQLite(
            f"SQLite {version} has the WAL-reset bug, which loses committed data when several connections write. "
            "Install apsw 3.54.1 or newer from a wheel, which brings its own SQLite.",
            version=version,
        )


# -- retrying ---------------------------------------------------------------------------------------------------------


def jitter() -> None:
    """Sleep for a moment, of random length so that competing processes fall out of step."""
    time.sleep(random.uniform(*RETRY_SLEEP_S))  # noqa: S311  # spread, not secrecy


def when_unlocked(action: Callable[[], T], *, timeout_s: float, what: str, path: str) -> T:
    """Run `action`, again and again while another process holds the lock that it needs.

    Raises:
        StoreBusy: still locked after `timeout_s`; names the holder where the system tells it.
    """
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            return action()
        except (apsw.BusyError, apsw.LockedError) as error:
            if time.monotonic() >= give_up:
                holder = lock_holder(path) or "another process"
                raise StoreBusy(
                    f"{what} {path}: {holder} has held the lock for over {timeout_s:g} s. Retry, or stop that process.",
                    retry_after_ms=1_000,
                    holder=holder,
                ) from error
        jitter()


def drain(connection: apsw.Connection, script: str) -> list[Any]:
    """Run every statement of `script` and return all rows.

    apsw runs a script lazily: it stops at the first statement that returns a row until that row is fetched, so an
    undrained `PRAGMA journal_mode = wal; CREATE ...` never creates anything.
    """
    return connection.execute(script).fetchall()


# -- forks ------------------------------------------------------------------------------------------------------------

# Which databases are open, by the process that opened them: (pid, device, inode). A fork's child inherits the list.
_open_files: list[tuple[int, int, int]] = []


def note_open(path: str) -> tuple[int, int, int] | None:
    """Remember that this process has a database open; return what `note_closed` wants. None: the file has vanished."""
    try:
        found = os.stat(path)  # noqa: PTH116  # no Path objects for one stat()
    except FileNotFoundError:
        return None
    note = (os.getpid(), found.st_dev, found.st_ino)
    _open_files.append(note)
    return note


def note_closed(note: tuple[int, int, int]) -> None:
    """Forget it again, once per `note_open`: every connection has been closed."""
    _open_files.remove(note)


def is_open_here(path: str) -> bool:
    """Tell whether this process has a database open: closing any other descriptor of its files would drop its locks."""
    try:
        found = os.stat(path)  # noqa: PTH116  # as above
    except OSError:
        return False
    return (os.getpid(), found.st_dev, found.st_ino) in _open_files


def refuse_inherited(path: str) -> None:
    """Refuse to open a database that was open in the process of which this one is a fork.

    SQLite keeps a table of the locks that "this process" holds, and a fork's child inherits the table without the locks. A
    connection that it opens there takes part in locks that nobody holds. Reproduced: the parent closes, believes itself
    the last, and deletes the WAL that the child goes on committing into; whoever opens the file next sees none of it.

    Raises:
        OpenError: says how else to get there.
    """
    if all(pid == os.getpid() for pid, _, _ in _open_files):
        return
    try:
        found = os.stat(path)  # noqa: PTH116  # as above
    except FileNotFoundError:
        return
    for pid, device, inode in _open_files:
        if pid != os.getpid() and (device, inode) == (found.st_dev, found.st_ino):
            raise OpenError(
                f"{path} was open in process {pid} when this one ({os.getpid()}) was forked from it, and SQLite would take that process's "
                "locks for its own: what is written here could be lost. Open it in a process that was started afresh (subprocess, "
                "or multiprocessing with 'spawn' or 'forkserver'), or fork before the database is opened."
            )


# -- settings, one per function ---------------------------------------------------------------------------------------


def _page_size(connection: apsw.Connection) -> None:
    """Before auto_vacuum and WAL on a new file: after either of them it is ignored without a word."""
    drain(connection, f"PRAGMA page_size = {PAGE_BYTES}")


def _auto_vacuum(connection: apsw.Connection) -> None:
    """Incremental, so that retention can give space back in small steps; VACUUM would stop the gateway. Before WAL."""
    drain(connection, "PRAGMA auto_vacuum = incremental")


def _wal(connection: apsw.Connection, path: str) -> None:
    """Readers and the writer never wait for each other. Needs the file to itself for a moment when it is new."""
    [(mode,)] = drain(connection, "PRAGMA journal_mode = wal")
    if mode != "wal":
        raise OpenError(
            f"{path}: SQLite answered journal mode {mode!r} instead of WAL; the file system cannot map shared memory. Move it."
        )


def _synchronous(connection: apsw.Connection, durability: Durability) -> None:
    """FULL: the WAL is synced at every COMMIT, so what was acknowledged survives a power cut. NORMAL may lose the
    last commits (never corrupts); only a caller who says so gets it.
    """
    drain(
        connection,
        "PRAGMA synchronous = normal" if durability == "normal" else "PRAGMA synchronous = full",
    )


def _foreign_keys(connection: apsw.Connection) -> None:
    """Off by default in SQLite, per connection."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)


def _no_mmap(connection: apsw.Connection) -> None:
    """Measured: no gain; and an I/O error in a mapped page is a SIGBUS that kills the gateway."""
    drain(connection, "PRAGMA mmap_size = 0")


def _defensive(connection: apsw.Connection) -> None:
    """The file is data, not code: no writes to shadow tables or the schema table, no functions with side effects called
    from a schema that somebody else may have written, and a "misspelt column" is an error, not a string.
    """
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)


def _no_triggers(connection: apsw.Connection) -> None:
    """The schema has none. One that is there was put there by somebody else, and would change rows behind our statements."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)


def _cell_size_check(connection: apsw.Connection) -> None:
    """Notices a damaged page when it is read, before its damage is copied elsewhere. One pass over the cell pointers."""
    drain(connection, "PRAGMA cell_size_check = on")


def _no_autocheckpoint(connection: apsw.Connection) -> None:
    """The writer decides when: an automatic checkpoint runs inside somebody's COMMIT and never resets the WAL while one
    reader after another is busy (measured: a gigabyte of WAL in four seconds).
    """
    connection.wal_autocheckpoint(0)


def _journal_size_limit(connection: apsw.Connection) -> None:
    """Without it a WAL that once grew stays that size on disk for ever."""
    drain(connection, f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")


def _secure_delete(connection: apsw.Connection) -> None:
    """Deleted text is overwritten where that costs no further write: without it one in a hundred could still be read in
    pages that were kept (measured). It costs only deletes.
    """
    drain(connection, "PRAGMA secure_delete = fast")


def _no_busy_timeout(connection: apsw.Connection) -> None:
    """We wait ourselves: SQLite's wait cannot be interrupted, ends without naming the holder, and would block a
    checkpoint attempt for its whole length.
    """
    connection.set_busy_timeout(0)


def _stable_plans(connection: apsw.Connection) -> None:
    """A plan depends on the statement and not on its parameters. Otherwise SQLite, built with STAT4, prepares a join anew
    whenever a parameter is bound (measured: 14 us instead of 2 for the two lookups of an append), and a value could
    change the plan that a test has pinned.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def _query_only(connection: apsw.Connection) -> None:
    """A body that was given to read() must not write, whatever statement it names."""
    drain(connection, "PRAGMA query_only = on")


def _common(connection: apsw.Connection) -> None:
    _no_busy_timeout(connection)
    _no_mmap(connection)
    _defensive(connection)
    _no_triggers(connection)
    _cell_size_check(connection)
    _stable_plans(connection)


# -- the three kinds --------------------------------------------------------------------------------------------------


def connect_writer(
    path: str,
    durability: Durability,
    timeout_s: float,
    *,
    is_new: Callable[[apsw.Connection], bool],
) -> apsw.Connection:
    """Open the connection that writes. The file exists; `is_new` looks at it and refuses one that is not ours.

    It is looked at before anything is changed: setting WAL on another program's database would change that file.
    """

    def set_up(connection: apsw.Connection) -> None:
        _common(connection)
        if is_new(connection):
            _page_size(connection)
            _auto_vacuum(connection)
        _wal(connection, path)
        _synchronous(connection, durability)
        _foreign_keys(connection)
        _no_autocheckpoint(connection)
        _journal_size_limit(connection)
        _secure_delete(connection)

    return _connect(path, apsw.SQLITE_OPEN_READWRITE, set_up, timeout_s)


def connect_reader(path: str) -> apsw.Connection:
    """Open a reading connection beside a live writer of this process, whose presence keeps the WAL and its index alive."""

    def set_up(connection: apsw.Connection) -> None:
        _common(connection)
        _query_only(connection)

    return _connect(path, apsw.SQLITE_OPEN_READONLY, set_up, READ_LOCKED_S_MAX)


def connect_visitor(path: str) -> apsw.Connection:
    """Open a database for reading that a gateway may or may not have open.

    A read-only handle of SQLite leaves an empty -wal and -shm behind in a folder where there were none. So when the
    WAL is absent or empty, the handle could write but may not (`query_only`): it removes both files when it closes, and
    has nothing to checkpoint. When the WAL holds something, somebody is alive or died: a read-only handle then, which
    neither checkpoints nor deletes what recovery may need.
    """

    def set_up(connection: apsw.Connection) -> None:
        _common(connection)
        _query_only(connection)

    flags = apsw.SQLITE_OPEN_READONLY if _has_content(path + "-wal") else apsw.SQLITE_OPEN_READWRITE
    return _connect(path, flags, set_up, READ_LOCKED_S_MAX)


def _connect(
    path: str, flags: int, set_up: Callable[[apsw.Connection], None], timeout_s: float
) -> apsw.Connection:
    """Open a connection and set it up.

    Even a setting may need to read the file, and meet the lock of a process that is just making or recovering it. Every
    setting can be repeated, so they are repeated together until the lock is gone.
    """
    refuse_inherited(path)
    connection = apsw.Connection(path, flags=flags, statementcachesize=STATEMENT_CACHE)
    try:
        when_unlocked(lambda: set_up(connection), timeout_s=timeout_s, what="opening", path=path)
    except BaseException:
        connection.close(True)
        raise
    return connection


def explain_cannot_open(path: str) -> OpenError:
    """Say why SQLite could not open a file that is there."""
    folder = Path(path).parent
    if not os.access(path, os.R_OK):
        return OpenError(
            f"{path}: this user may not read the file (it belongs to the gateway's user). Run as that user."
        )
    if not os.access(folder, os.W_OK) and not Path(path + "-shm").exists():
        return OpenError(
            f"{path}: no process has the database open, and reading it needs two helper files (-wal, -shm) beside it, but this user "
            f"may not write to {folder}. Run as the gateway's user, or copy the closed file to a folder of your own and open the copy."
        )
    return OpenError(
        f"{path}: SQLite cannot open the file or its -wal and -shm beside it. Check their owner and permissions."
    )


def _has_content(path: str) -> bool:
    try:
        return Path(path).stat().st_size > 0
    except FileNotFoundError:
        return False


def close_quietly(connection: apsw.Connection | None) -> None:
    """Close a connection that is being given up; what it has to say no longer changes anything, so it is only logged."""
    if connection is None:
        return
    try:
        connection.close(True)
    except apsw.Error as error:
        log.warning("closing a connection failed: %s", error)
