"""This process's row in the `instance` table: its registration, its sign-off, and its name.

Every lease and job names the process that holds it by this row. The row also gives a
name to the process that holds the write lock. Used by the writer thread, on its own
connection, outside the queue: at opening and at closing.

A crash leaves the row open. `recover` finds it and ends what the process held.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import apsw

from sessiondb import process
from sessiondb.errors import SessionDBError, StoreBusy

from . import wal_link
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
) -> int:
    """Insert this process's row. Return its number. Committed on return.

    Raises:
        StoreBusy: another process held the write lock for over `timeout_s`.
    """
    me = process.identity()

    def insert(tx: WriteTransaction) -> int:
        row = tx.one(
            "instance.insert",
            host=me.host,
            boot_id=me.boot_id,
            pid=me.pid,
            pid_started=me.pid_started,
            program=program,
            opened_at_ms=tx.now_ms,
        )
        return int(row.instance_no)

    return _run_alone(connection, path, 0, insert, now_ms, timeout_s)


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

    def close(tx: WriteTransaction) -> int:
        return tx.run("instance.close", closed_at_ms=tx.now_ms, instance_no=instance_no)

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
        retry_after_ms=round(timeout_s * 1000),
        holder=holder,
    )


def _run_alone(
    connection: apsw.Connection,
    path: str,
    instance_no: int,
    body: Callable[[WriteTransaction], int],
    now_ms: Callable[[], int],
    timeout_s: float,
) -> int:
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            break
        except apsw.BusyError as error:
            if time.monotonic() >= give_up:
                holder = write_lock_holder(connection, path)
                raise write_locked("opening", path, holder, timeout_s) from error
            jitter()
    try:
        refuse_newer(connection, path)
        tx = WriteTransaction(connection, now_ms(), instance_no)
        wal_link.renew(tx)  # it may be the first commit of a WAL
        value = body(tx)
        connection.execute("COMMIT")
    except apsw.Error as error:
        _roll_back(connection, path)
        reraise(error, f"registering this process in {path}")
    except BaseException:
        _roll_back(connection, path)
        raise
    return value


def _roll_back(connection: apsw.Connection, path: str) -> None:
    if not connection.in_transaction:
        return
    try:
        connection.execute("ROLLBACK")
    except apsw.Error as error:
        log.error("%s: a rollback failed: %s", path, error)
