"""This process's row in the `instance` table: its registration, its sign-off, and its name.

Every lease and job names the process that holds it by this row. The row also gives a
name to the process that holds the write lock. Used by the writer thread, on its own
connection, outside the queue: at opening and at closing.

Critical section "registration". Locks: the database's write lock, and one byte of the lock
file (`alive_file.py`). Invariant: while a registration can be read as open, its process
holds its byte in the file that the row names, or is dead. So the byte is locked before
the row is committed, and given up after the row is closed, and both are tested by looking
from another process in between.

A crash leaves the row open. `recover` finds it and ends what the process held.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from sessiondb import process
from sessiondb.clock import monotonic
from sessiondb.errors import OpenError, SessionDBError, StoreBusy, UnsafeFilesystem
from sessiondb.limits import duration_ms

from . import wal_link
from .alive_file import Hold, hold, name_of
from .connection import jitter, log
from .files import lock_holder_pid
from .schema import refuse_newer
from .transaction import WriteTransaction, reraise


def register(
    connection: apsw.Connection,
    path: str,
    program: str,
    *,
    now_ms: Callable[[], int],
    timeout_s: float,
    without_lock: bool,
) -> Hold:
    """Insert this process's row, and lock its byte. Committed on return.

    `without_lock` accepts a file system that has no locks. Then nobody can tell whether
    this process lives, and its leases alone decide.

    Raises:
        StoreBusy: another process held the write lock for over `timeout_s`.
        OpenError: the lock file cannot be used.
        UnsafeFilesystem: the file system has no locks that work.
    """
    me = process.identity()
    held: list[Hold] = []

    def insert(tx: WriteTransaction) -> None:
        row = tx.one(
            "instance.insert",
            host=me.host,
            boot_id=me.boot_id,
            pid=me.pid,
            pid_started=me.pid_started,
            program=program,
            opened_at_ms=tx.now_ms,
        )
        held.append(_hold(path, row.instance_no, without_lock=without_lock))
        _record(tx, path, row.instance_no, held[0])

    try:
        _run_alone(connection, path, 0, insert, now_ms, timeout_s)
    except BaseException:
        for taken in held:
            taken.release()
        raise
    return held[0]


def hold_again(
    connection: apsw.Connection, path: str, lost: Hold, *, now_ms: Callable[[], int]
) -> Hold:
    """Lock this process's byte in the file that has the lock file's name now.

    Its number stays, because its leases name it. Until this is committed others go by the
    leases. Committed on return.

    Raises:
        StoreBusy: another process has the write lock.
        OpenError: the lock file cannot be used, or another process has this number in it.
    """
    held: list[Hold] = []

    def record(tx: WriteTransaction) -> None:
        found = hold(path, lost.instance_no)
        if found is None and lost.is_named():
            return  # the file that has this process's lock came back under its name meanwhile
        if found is None:
            raise OpenError(
                f"{path}: its lock file was replaced by one in which another process is instance "
                f"{lost.instance_no}. Put the file back, or restart this process."
            )
        held.append(found)
        _record(tx, path, lost.instance_no, found)

    try:
        _run_alone(connection, path, lost.instance_no, record, now_ms, 0.0)
    except BaseException:
        for taken in held:
            taken.release()
        raise
    if not held:
        return lost
    lost.release()
    return held[0]


def _hold(path: str, instance_no: int, *, without_lock: bool) -> Hold:
    """Lock the byte of a new instance, or of the first number after it that is free.

    A number is taken when an older copy was put in the place of a database whose gateway
    still runs: both count in one lock file.
    """
    try:
        while (held := hold(path, instance_no)) is None:
            instance_no += 1
    except UnsafeFilesystem as error:
        if not without_lock:
            raise
        log.warning("%s Nobody can tell whether this process lives: its leases decide", error)
        return Hold(path, instance_no, None)
    return held


def _record(tx: WriteTransaction, path: str, instance_no: int, held: Hold) -> None:
    tx.run(
        "instance.hold",
        instance_no=instance_no,
        held_no=held.instance_no,
        database_file=name_of(path),
        lock_file=held.lock_file,
    )


def sign_off(
    connection: apsw.Connection,
    path: str,
    instance_no: int,
    *,
    now_ms: Callable[[], int],
    timeout_s: float,
) -> None:
    """Mark this process's row as closed. Committed on return. May be repeated.

    Raises:
        StoreBusy: another process held the write lock for over `timeout_s`.
    """

    def close(tx: WriteTransaction) -> None:
        tx.run("instance.close", closed_at_ms=tx.now_ms, instance_no=instance_no)

    _run_alone(connection, path, instance_no, close, now_ms, timeout_s)


def write_lock_holder(connection: apsw.Connection | None, path: str) -> str:
    """Name the holder of the write lock. Best effort.

    The system knows its pid, the instance table knows its program.
    """
    pid = lock_holder_pid(path)
    if pid is None or connection is None:
        return "another process"
    me = process.identity()
    snapshot = WriteTransaction(connection, 0, 0)
    try:
        row = snapshot.first("instance.by_pid", host=me.host, boot_id=me.boot_id, pid=pid)
    except (SessionDBError, apsw.Error) as error:
        log.info("the holder of the write lock of %s cannot be looked up: %s", path, error)
        row = None
    return f"pid {pid} ({row.program})" if row is not None and row.program else f"pid {pid}"


def write_locked(op: str, path: str, holder: str, timeout_s: float) -> StoreBusy:
    """Return the error of an operation that another process's write lock kept from beginning."""
    return StoreBusy(
        f"{op}: {holder} has held the write lock of {path} for over {timeout_s:g} s. "
        "Nothing was changed. Retry, or stop that process.",
        retry_after_ms=duration_ms(timeout_s),
        holder=holder,
    )


def _run_alone(
    connection: apsw.Connection,
    path: str,
    instance_no: int,
    body: Callable[[WriteTransaction], None],
    now_ms: Callable[[], int],
    timeout_s: float,
) -> None:
    give_up = monotonic() + timeout_s
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            break
        except apsw.BusyError as error:
            if monotonic() >= give_up:
                holder = write_lock_holder(connection, path)
                raise write_locked("opening", path, holder, timeout_s) from error
            jitter()
    try:
        refuse_newer(connection, path)
        tx = WriteTransaction(connection, now_ms(), instance_no)
        wal_link.renew(tx)  # it may be the first commit of a WAL
        body(tx)
        connection.execute("COMMIT")
    except apsw.Error as error:
        _roll_back(connection, path)
        reraise(error, f"registering this process in {path}")
    except BaseException:
        _roll_back(connection, path)
        raise


def _roll_back(connection: apsw.Connection, path: str) -> None:
    if not connection.in_transaction:
        return
    try:
        connection.execute("ROLLBACK")
    except apsw.Error as error:
        log.error("%s: a rollback failed: %s", path, error)
