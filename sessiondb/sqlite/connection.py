"""Connections: how a file is opened and set up. One named function per setting, with its reason.

Three kinds exist: the writer's (one per open database), the readers', and the visitor's
(`readonly=True`: the command line, beside a gateway that may have the database open).
Each is used by exactly one thread, because apsw refuses two, and none survives a fork.

Nothing that is global to the process is touched. apsw's `connection_hooks` and
`bestpractice.apply` would change connections of the host program too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import apsw

from sessiondb.clock import monotonic, pause, random_between
from sessiondb.errors import OpenError, StoreBusy, UnsafeSQLite

from .files import lock_holder

T = TypeVar("T")
Durability = Literal["full", "normal"]

log = logging.getLogger("sessiondb.sqlite")

PAGE_BYTES = 4096
# After a reset the WAL file keeps this size, so that the next commits overwrite blocks
# instead of allocating them.
WAL_KEPT_BYTES = 4 * 1024 * 1024
# Prepared statements kept per connection: more than the named statements there are.
STATEMENT_CACHE = 256
# A reader meets a lock only while another process recovers the WAL, or closes as the last
# one. Both take milliseconds.
READ_LOCKED_S_MAX = 2.0
# Sleep between two attempts at a lock: long enough for the holder's transaction, short
# enough to notice its end.
RETRY_SLEEP_S = (0.0005, 0.004)


# -- the library -----------------------------------------------------------------------


def refuse_unsafe_library(version: str | None = None) -> None:
    """Refuse SQLite with the WAL-reset bug.

    That is 3.7.0 to 3.51.2, except 3.50.7 and later of 3.50, and 3.44.6 and later of 3.44.
    When two connections write and checkpoint at one instant, those versions lose
    committed pages without an error. A gateway with a writer, readers and a command line
    does exactly that. See sqlite.org/wal.html#walresetbug.
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
            f"SQLite {version} has the WAL-reset bug, which loses committed data when several "
            "connections write. Install apsw 3.54.1 or newer from a wheel, which brings its own "
            "SQLite.",
            version=version,
        )


# -- retrying --------------------------------------------------------------------------


def jitter() -> None:
    """Sleep for a moment. Its length is random, so that competing processes fall out of step."""
    pause(random_between(*RETRY_SLEEP_S))


def when_unlocked(action: Callable[[], T], *, timeout_s: float, what: str, path: str) -> T:
    """Run `action`. Retry while another process holds the lock that it needs.

    Raises:
        StoreBusy: still locked after `timeout_s`. Names the holder where the system tells it.
    """
    give_up = monotonic() + timeout_s
    while True:
        try:
            return action()
        except (apsw.BusyError, apsw.LockedError) as error:
            if monotonic() >= give_up:
                holder = lock_holder(path) or "another process"
                raise StoreBusy(
                    f"{what} {path}: {holder} has held the lock for over {timeout_s:g} s. "
                    "Retry, or stop that process.",
                    retry_after_ms=1_000,
                    holder=holder,
                ) from error
        jitter()


def drain(connection: apsw.Connection, script: str) -> list[Any]:
    """Run every statement of `script` and return all rows.

    apsw runs a script lazily: it stops at a statement that returns a row until that row is
    fetched. An undrained `PRAGMA journal_mode = wal; CREATE ...` never creates anything.
    """
    return connection.execute(script).fetchall()


# -- forks -----------------------------------------------------------------------------

# An open database, with the process that opened it: pid, device, inode. A fork's child
# inherits the list.
Note = tuple[int, int, int]
_open_files: list[Note] = []


def note_open(path: str) -> Note | None:
    """Note that this process has a database open. Return the argument of `forget`.

    None: the system does not show the file. SQLite, which opens it next, reports why.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  # no Path objects for one stat()
    except OSError:
        return None
    note = (os.getpid(), found.st_dev, found.st_ino)
    _open_files.append(note)
    return note


def forget(note: Note | None) -> None:
    """Forget an open database, once per `note_open`, after every connection was closed."""
    if note is not None:
        _open_files.remove(note)


def is_open_here(path: str) -> bool:
    """Return whether this process has a database open.

    Closing any other descriptor of its files would drop its locks.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  # as above
    except OSError:
        return False
    return (os.getpid(), found.st_dev, found.st_ino) in _open_files


def refuse_inherited(path: str) -> None:
    """Refuse to open a database that was open in the process that this one was forked from.

    SQLite keeps a table of the locks that "this process" holds. A fork's child inherits
    the table without the locks, so a connection that it opens relies on locks that no
    process holds. Reproduced: the parent closes, takes itself for the last process, and
    deletes the WAL that the child keeps committing into. The next process to open the
    file sees none of those commits.

    Raises:
        OpenError: says what to do instead.
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
                f"{path} was open in process {pid} when this one ({os.getpid()}) was forked from "
                "it, and SQLite would take that process's locks for its own: what is written here "
                "could be lost. Open it in a process that was started afresh (subprocess, or "
                "multiprocessing with 'spawn' or 'forkserver'), or fork before the database is "
                "opened."
            )


# -- settings, one per function --------------------------------------------------------


def _page_size(connection: apsw.Connection) -> None:
    """Set before auto_vacuum and WAL, on a new file. After either it is silently ignored."""
    drain(connection, f"PRAGMA page_size = {PAGE_BYTES}")


def _auto_vacuum(connection: apsw.Connection) -> None:
    """Incremental, so that retention can return space in small steps. Set before WAL.

    VACUUM would stop the gateway.
    """
    drain(connection, "PRAGMA auto_vacuum = incremental")


def _wal(connection: apsw.Connection, path: str) -> None:
    """WAL: readers and the writer never wait for each other.

    On a new file this needs the file to itself for a moment.
    """
    [(mode,)] = drain(connection, "PRAGMA journal_mode = wal")
    if mode != "wal":
        raise OpenError(
            f"{path}: SQLite answered journal mode {mode!r} instead of WAL. The file system "
            "cannot map shared memory. Move the database to a local disk."
        )


def _synchronous(connection: apsw.Connection, durability: Durability) -> None:
    """FULL: the WAL is synced at every COMMIT, so acknowledged writes survive a power cut.

    NORMAL may lose the last commits, and never corrupts. Only a caller that asks for it
    gets it.
    """
    drain(
        connection,
        "PRAGMA synchronous = normal" if durability == "normal" else "PRAGMA synchronous = full",
    )


def _foreign_keys(connection: apsw.Connection) -> None:
    """On: SQLite's default is off, per connection."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)


def _no_mmap(connection: apsw.Connection) -> None:
    """No memory mapping. Measured: no gain.

    An I/O error in a mapped page is a SIGBUS that kills the gateway.
    """
    drain(connection, "PRAGMA mmap_size = 0")


def _defensive(connection: apsw.Connection) -> None:
    """The file is data, not code.

    No statement writes to shadow tables or to the schema table. A schema that another
    program wrote calls no function with side effects. A "misspelt column" is an error,
    not a string.
    """
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)


def _no_triggers(connection: apsw.Connection) -> None:
    """No triggers: the schema has none.

    A trigger that another program added would change rows behind our statements.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)


def _cell_size_check(connection: apsw.Connection) -> None:
    """Find a damaged page when it is read, before its damage is copied elsewhere.

    It costs one pass over the page's cell pointers.
    """
    drain(connection, "PRAGMA cell_size_check = on")


def _no_autocheckpoint(connection: apsw.Connection) -> None:
    """The writer decides when to checkpoint.

    An automatic checkpoint runs inside a caller's COMMIT, and never resets the WAL while
    one reader after another is busy (measured: a gigabyte of WAL in 4 s).
    """
    connection.wal_autocheckpoint(0)


def _journal_size_limit(connection: apsw.Connection) -> None:
    """Cut the WAL file at a reset. Without it a WAL that once grew keeps its size for ever."""
    drain(connection, f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")


def _secure_delete(connection: apsw.Connection) -> None:
    """Overwrite deleted text where that costs no further write.

    Measured without it: 1 % of deleted texts could still be read in pages that were kept.
    It costs only deletes.
    """
    drain(connection, "PRAGMA secure_delete = fast")


def _no_busy_timeout(connection: apsw.Connection) -> None:
    """No wait inside SQLite: `when_unlocked` and the writer wait instead.

    SQLite's wait cannot be interrupted, ends without naming the holder, and would block a
    checkpoint attempt for its whole length.
    """
    connection.set_busy_timeout(0)


def _stable_plans(connection: apsw.Connection) -> None:
    """A plan depends on the statement and not on its parameters.

    Otherwise SQLite, built with STAT4, prepares a join anew whenever a parameter is bound
    (measured: 14 us instead of 2 for the two lookups of an append), and a value could
    change the plan that a test has pinned.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def _query_only(connection: apsw.Connection) -> None:
    """Refuse writes: a body passed to read() must not write, whatever statement it names."""
    drain(connection, "PRAGMA query_only = on")


def _common(connection: apsw.Connection) -> None:
    _no_busy_timeout(connection)
    _no_mmap(connection)
    _defensive(connection)
    _no_triggers(connection)
    _cell_size_check(connection)
    _stable_plans(connection)


# -- the three kinds -------------------------------------------------------------------


def connect_writer(
    path: str,
    durability: Durability,
    timeout_s: float,
    *,
    is_new: Callable[[apsw.Connection], bool],
    create: Callable[[apsw.Connection], None],
) -> apsw.Connection:
    """Open the connection that writes. The file exists.

    `is_new` inspects the file, and refuses one that is not a sessiondb database. It runs
    before anything is changed: setting WAL on another program's database would change it.
    `create` makes the schema. It does so before WAL is set, so that the file alone says
    what it is, whatever becomes of its -wal.
    """

    def set_up(connection: apsw.Connection) -> None:
        _common(connection)
        if is_new(connection):
            _page_size(connection)
            _auto_vacuum(connection)
            create(connection)
        _wal(connection, path)
        _synchronous(connection, durability)
        _foreign_keys(connection)
        _no_autocheckpoint(connection)
        _journal_size_limit(connection)
        _secure_delete(connection)

    return _connect(path, apsw.SQLITE_OPEN_READWRITE, set_up, timeout_s)


def connect_reader(path: str) -> apsw.Connection:
    """Open a reading connection beside a live writer of this process.

    The writer's connection keeps the WAL and its index alive.
    """

    def set_up(connection: apsw.Connection) -> None:
        _common(connection)
        _query_only(connection)

    return _connect(path, apsw.SQLITE_OPEN_READONLY, set_up, READ_LOCKED_S_MAX)


def connect_visitor(path: str) -> apsw.Connection:
    """Open a database for reading that a gateway may or may not have open.

    A read-only handle of SQLite leaves an empty -wal and -shm behind in a folder that had
    neither. So when the WAL is missing or empty, the handle is one that could write, with
    `query_only`: it removes both files when it closes, and has nothing to checkpoint.
    When the WAL has content, a gateway is alive or has died. Then the handle is read-only:
    it neither checkpoints nor deletes what a recovery may need.
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

    Even a setting may read the file, and meet the lock of a process that is creating or
    recovering it. Every setting can be repeated, so all are repeated until the lock is
    released.
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
    """Return why SQLite could not open an existing file, as an error."""
    folder = Path(path).parent
    if not os.access(path, os.R_OK):
        return OpenError(
            f"{path}: this user may not read the file (it belongs to the gateway's user). "
            "Run as that user."
        )
    if not os.access(folder, os.W_OK) and not Path(path + "-shm").exists():
        return OpenError(
            f"{path}: no process has the database open, and reading it needs two helper files "
            f"(-wal, -shm) beside it, but this user may not write to {folder}. Run as the "
            "gateway's user, or copy the closed file to a folder of your own and open the copy."
        )
    return OpenError(
        f"{path}: SQLite cannot open the file or its -wal and -shm beside it. "
        "Check their owner and permissions."
    )


def _has_content(path: str) -> bool:
    try:
        return Path(path).stat().st_size > 0
    except FileNotFoundError:
        return False


def close_quietly(connection: apsw.Connection | None) -> None:
    """Close a connection that is dropped. An error changes no outcome, so it is only logged."""
    if connection is None:
        return
    try:
        connection.close(True)
    except apsw.Error as error:
        log.warning("closing a connection failed: %s", error)
