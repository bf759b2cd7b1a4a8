"""The writer: one thread owns the one connection that writes, and runs every write on it.

A request is a whole transaction body. Requests wait in `request_queue.py`. The thread
takes what is queued and runs the bodies one after another inside one
`BEGIN IMMEDIATE ... COMMIT`. Only after COMMIT does it wake their callers, once per event
loop (group commit). It never waits for a batch to fill: a lone request is committed at
once, and while its COMMIT is syncing the next batch gathers.

What it promises
* A body runs at most once. Its result is delivered only when it is durable.
* A failing body spares its neighbours. The first body of a transaction needs no savepoint
  (if it fails, nothing else is lost). Each later body has its own savepoint.
* A step of background work is a transaction of its own, and steps are paced
  (`throttle.py`). Between two steps the writer serves everything else that is queued.

What survives a crash: every delivered result, and perhaps the batch that was in COMMIT.
Never a part of a batch.

After an I/O error the connection is closed and opened again, with growing pauses. Until
then writes fail with a typed error and reads continue. If the error came from COMMIT, the
outcome of the batch is unknown: the frame that commits it may be in the WAL, and a
recovery after a crash may find it.

Locks: the queue has its own lock, which this thread holds for a few instructions at a
time, inside the methods of `RequestQueue` only, and never across SQL. The database's
write lock is held from BEGIN to COMMIT. Everything else here belongs to the writer thread.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import apsw

from sessiondb.clock import now_ms as _now_ms
from sessiondb.errors import (
    ConstraintFailed,
    NewerSchema,
    NotExecuted,
    OutcomeUnknown,
    SessionDBError,
    StoreBusy,
    StoreClosed,
    StoreFailed,
)
from sessiondb.limits import Limits

from . import wal_link
from .alive_file import SUFFIX, Hold
from .batch import Batch, WriterStats
from .checkpoint import Checkpointer, truncate
from .connection import Durability, close_quietly, connect_writer, jitter, log, when_unlocked
from .held_files import HeldFiles, changed_while_open
from .instance import hold_again, register, sign_off, write_lock_holder, write_locked
from .request_queue import Pending, Request, RequestQueue
from .schema import create_or_migrate, is_new, refuse_newer
from .transaction import SPOILING, WriteTransaction, plain_result, reraise, translate
from .waiter import notify_all

# Pauses between attempts to open a failed connection again.
REOPEN_PAUSE_S = (0.05, 5.0)


class Writer:
    """The writer thread of one open database."""

    def __init__(
        self,
        path: str,
        limits: Limits,
        durability: Durability,
        program: str,
        on_change: Callable[[], None] = lambda: None,
        *,
        without_lock: bool = False,
    ) -> None:
        self.path = path
        self._on_change = on_change
        self.limits = limits
        self.stats = WriterStats()
        self.checkpoints = Checkpointer(limits, path)
        self._hold: Hold | None = None
        self._without_lock = without_lock
        self.queue = RequestQueue(path, limits)
        self._durability = durability
        self._program = program
        self._connection: apsw.Connection | None = None
        self._files = HeldFiles(path, ())
        self._wal_is_saved = False
        self._reopen_at = 0.0
        self._reopen_pause_s = 0.0  # the first attempt after a good commit is immediate
        self._reopen_error = ""
        self._batch: Batch | None = None
        self._task_is_next = False
        self._is_linked = False  # whether the transaction at hand names its WAL
        self._link_is_due = False  # whether the WAL has begun without its name
        self._data_version = 0
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="sessiondb-writer", daemon=True)

    # -- called from other threads -----------------------------------------------------

    def start(self) -> None:
        """Start the thread. Wait until the database is open and this process is registered."""
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """Ask the thread to finish what is queued, fold the WAL and close.

        Does not wait. May be repeated.
        """
        self.queue.close()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread to end. Return whether it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def files(self) -> HeldFiles:
        """Return the files that the write connection has open."""
        return self._files

    @property
    def instance_no(self) -> int:
        """This process's row in `instance`. 0 before it is registered."""
        return 0 if self._hold is None else self._hold.instance_no

    def snapshot(self) -> dict[str, Any]:
        """Return counters and gauges."""
        return {
            **asdict(self.stats),
            **self.queue.snapshot(),
            "connected": self._connection is not None,
            "wal_bytes": self.checkpoints.wal_bytes,
            "checkpoint": asdict(self.checkpoints.stats),
        }

    # -- the thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._open(HeldFiles.database(self.path))
            self._register()
            self._fold_at_start()
        except BaseException as error:  # noqa: BLE001  # it is raised in start()
            close_quietly(self._connection)
            self._connection = None
            self._release()
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        try:
            while self._wait_for_work():
                self._write_batch(self.queue.writes)
                self._step_in_background()
                self._checkpoint_if_due()
        except BaseException as error:
            log.critical("the writer of %s stopped: %s", self.path, error, exc_info=True)
            raise
        finally:
            self._end()

    def _wait_for_work(self) -> bool:
        return self.queue.wait(self.checkpoints.due_in_s)

    def _checkpoint_if_due(self) -> None:
        if self.checkpoints.due_in_s != 0.0:
            return
        if self._connection is None or self._files.changed() is not None:
            self.checkpoints.postpone()  # or the thread would ask again without a pause
        else:
            self.queue.running = "checkpoint"
            self.checkpoints.run_due(self._connection)
            self.queue.running = ""

    def _open(self, database: HeldFiles) -> None:
        timeout_s = self.limits.busy_timeout_s
        connection = connect_writer(
            self.path,
            self._durability,
            timeout_s,
            is_new=lambda opened: is_new(opened, self.path),
            create=lambda opened: create_or_migrate(opened, self.path),
        )
        try:
            when_unlocked(
                lambda: create_or_migrate(connection, self.path),
                timeout_s=timeout_s,
                what="setting up",
                path=self.path,
            )
            # The hook also switches SQLite's automatic checkpoints off: they are such a hook.
            connection.set_wal_hook(self.checkpoints.on_commit)
            self._data_version = int(connection.pragma("data_version"))
            self._files = database.with_wal()
        except BaseException:
            database.close(connection)
            raise
        self._connection = connection

    def _register(self) -> None:
        """Insert this process's row, before any request: leases and jobs will name it."""
        assert self._connection is not None
        self._hold = register(
            self._connection,
            self.path,
            self._program,
            now_ms=_now_ms,
            timeout_s=self.limits.busy_timeout_s,
            without_lock=self._without_lock,
        )

    def _fold_at_start(self) -> None:
        """Fold what is in the WAL, so that the file alone lacks nothing that came before.

        A large WAL waits for a pause: opening takes no longer because of it.
        """
        assert self._connection is not None
        if self.checkpoints.wal_bytes < self.limits.wal_bytes_max:
            self.checkpoints.fold(self._connection)

    def _keep_alive(self, connection: apsw.Connection) -> None:
        """Lock this process's byte anew when the lock file was moved, deleted or replaced.

        Before each transaction, so before anything is claimed. What cannot be done is tried
        again before the next one. Meanwhile others cannot tell whether this process lives,
        and leave its work to its leases, as they do from the moment the file has gone.
        """
        assert self._hold is not None
        if self._hold.is_named():
            return
        try:
            self._hold = hold_again(connection, self.path, self._hold, now_ms=_now_ms)
        except StoreBusy:
            return
        except (SessionDBError, apsw.Error) as error:
            log.error("%s: its lock file was moved or deleted: %s", self.path, error)
        else:
            log.warning(
                "%s: its lock file was moved or deleted while it was in use. It was made anew",
                self.path + SUFFIX,
            )

    def _end(self) -> None:
        """Fail what is left, sign off, fold the WAL, close.

        What is left are maintenance tasks. Requests are left only after a bug in this thread.
        """
        if self._batch is not None:
            for request in self._batch.finished:
                request.fail(
                    OutcomeUnknown(
                        f"{request.op}: the writer of {self.path} stopped in the middle; "
                        "read again."
                    ),
                    "unknown",
                )
            self._deliver(self._batch.finished)
        left, begun = self.queue.take_all()
        for request in begun:
            request.close_task()  # while the connection is still open
        for request in left:
            request.fail(
                StoreClosed(f"{self.path}: the database was closed before {request.op} was done.")
            )
        self._deliver(left)
        try:
            self._sign_off_and_close()
        finally:
            self._release()

    def _release(self) -> None:
        """Give up this process's byte: its registration is closed, or others will close it."""
        if self._hold is not None:
            self._hold.release()

    def _sign_off_and_close(self) -> None:
        connection = self._connection
        if connection is None:
            self.stats.sign_off_error = f"{self.path}: it failed, and could not be opened again"
            return
        if self._files.changed() is None:
            self._sign_off(connection)
            truncate(connection)
        self._files.spare_others(connection)
        close_quietly(connection)
        self._connection = None

    def _sign_off(self, connection: apsw.Connection) -> None:
        try:
            sign_off(
                connection,
                self.path,
                self.instance_no,
                now_ms=_now_ms,
                timeout_s=self.limits.busy_timeout_s,
            )
        except (SessionDBError, apsw.Error) as error:
            # The row then looks like that of a process that died, which recover() handles:
            # nothing is lost.
            self.stats.sign_off_error = f"could not sign off from {self.path}: {error}"
            log.warning("could not sign off from %s: %s", self.path, error)

    # -- one batch ---------------------------------------------------------------------

    def _write_batch(self, pending: Pending) -> None:
        connection = self._begin(pending)
        if connection is None:
            return
        self._batch = batch = Batch(
            time.monotonic(), _now_ms(), in_background=pending is self.queue.steps
        )
        while (request := self._take(batch, pending)) is not None:
            self._execute(connection, request, batch)
        self._commit(connection, batch)
        self._measure(batch)
        self._batch = None
        self._deliver(batch.finished)
        if batch.succeeded:
            self._on_change()

    def _begin(self, pending: Pending) -> apsw.Connection | None:
        """Begin a transaction for what is queued. None when nothing is, or it cannot begin."""
        if not pending:
            return None
        connection = self._connection or self._reopen()
        if connection is None or not self._has_its_files():
            return None
        self._keep_alive(connection)
        self._is_linked = self._link_is_due or self.checkpoints.starts_over(connection)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            if not self._outwait(connection, pending):
                return None
            self._is_linked = True  # the others may have folded it meanwhile
        except apsw.Error as error:
            self._drop_connection(error)
            return None
        return connection if self._prepare(connection) else None

    def _prepare(self, connection: apsw.Connection) -> bool:
        """Check the schema, and name the WAL if this transaction begins one."""
        if not self._knows_the_schema(connection):
            return False
        try:
            if self._is_linked:
                wal_link.renew(WriteTransaction(connection, 0, self.instance_no))
        except SessionDBError as error:
            self._rollback(connection)
            self._drop_connection(apsw.IOError(str(error)))
            return False
        return True

    def _link_alone(self, connection: apsw.Connection) -> None:
        """Name a WAL that another process's checkpoint let begin before its name was in it."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            wal_link.renew(WriteTransaction(connection, 0, self.instance_no))
            connection.execute("COMMIT")
        except (SessionDBError, apsw.Error) as error:
            # The commit before it is durable, whatever becomes of this one.
            log.info("%s: its WAL is named by the next commit: %s", self.path, error)
            self._rollback(connection)
            self._link_is_due = True

    def _has_its_files(self) -> bool:
        """Check that the names still name the open files. If not, refuse what is queued."""
        name = self._files.changed()
        if name is None:
            return True
        effect = "Nothing was changed."
        if self._save_nameless_wal():
            effect += " What the -wal held is in the database now."
        self._fail_queued(lambda op: changed_while_open(name, op, effect))
        return False

    def _save_nameless_wal(self) -> bool:
        """Fold a -wal that was deleted into the database, as long as this process has it open.

        It holds commits that were acknowledged, and is gone when this process ends.
        Return whether all of it is in the database.
        """
        if not self._wal_is_saved and self._connection is not None:
            if not self._files.may_save_wal():
                return False
            self._wal_is_saved = self.checkpoints.fold(self._connection)
            log.error(
                "%s-wal was deleted while it was open. What it held is %s the database",
                self.path,
                "now in" if self._wal_is_saved else "NOT in",
            )
        return self._wal_is_saved

    def _knows_the_schema(self, connection: apsw.Connection) -> bool:
        """Check that no newer release has migrated the file. If one has, refuse what is queued."""
        try:
            refuse_newer(connection, self.path)
        except NewerSchema as error:
            newer, fields = str(error), error.fields
            self._rollback(connection)
            self._fail_queued(lambda op: NewerSchema(f"{op}: {newer}", **fields))
            return False
        except apsw.Error as error:
            self._rollback(connection)
            self._drop_connection(error)
            return False
        return True

    def _outwait(self, connection: apsw.Connection, pending: Pending) -> bool:
        """Retry BEGIN while another process holds the write lock and requests wait for it.

        The requests stay PENDING meanwhile, so their callers can cancel them, and their
        deadlines hold. Return whether the transaction has begun.
        """
        self.stats.busy_waits += 1
        holder = write_lock_holder(connection, self.path)
        self.queue.running = f"waiting for {holder}, which holds the write lock"
        refuse_from = time.monotonic() + self.limits.busy_timeout_s
        while pending:
            jitter()
            try:
                connection.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:
                if time.monotonic() >= refuse_from:
                    self._refuse_overdue()
            except apsw.Error as error:
                self._drop_connection(error)
                return False
            else:
                return True
        return False

    def _refuse_overdue(self) -> None:
        """Fail the requests that have waited longer than `busy_timeout_s`."""
        timeout_s = self.limits.busy_timeout_s
        overdue = self.queue.take_enqueued_before(time.monotonic() - timeout_s)
        if not overdue:
            return
        self.stats.busy_timeouts += len(overdue)
        for request in overdue:
            holder = write_lock_holder(self._connection, self.path)
            request.fail(write_locked(request.op, self.path, holder, timeout_s))
        self._deliver(overdue)

    def _take(self, batch: Batch, pending: Pending) -> Request | None:
        """Take the next request into the batch. None when it is full or nothing is queued."""
        limits = self.limits
        now = time.monotonic()
        # A step of background work is a batch of its own.
        items_max = 1 if batch.in_background else limits.batch_items_max
        if (
            batch.is_over
            or len(batch.finished) >= items_max
            or (now - batch.began) * 1000 >= limits.batch_ms_max
        ):
            return None
        # Until a request has succeeded in it, a batch takes one of any size.
        size_max = limits.batch_bytes_max - batch.size if batch.succeeded else math.inf
        request = self.queue.start_next(pending, now, size_max, expired=batch.finished)
        if request is not None:
            batch.size += request.size
            batch.finished.append(request)
        return request

    def _execute(self, connection: apsw.Connection, request: Request, batch: Batch) -> None:
        """Run one body. Afterwards either all its changes are in the transaction, or none."""
        began = time.monotonic()
        # No savepoint until a body has succeeded: the transaction holds nothing else to protect.
        nested = bool(batch.succeeded)
        tx = WriteTransaction(connection, batch.now_ms, self.instance_no)
        assert request.fn is not None
        try:
            if nested:
                connection.execute("SAVEPOINT request")
            request.value = plain_result(request.fn(tx), request.op)
            if tx.failure is not None:
                # The body swallowed an error after which the connection cannot be trusted.
                reraise(tx.failure, request.op, path=self.path)
            if not connection.in_transaction:
                raise RuntimeError(
                    f"{request.op}: the body ended the transaction that it was given"
                )
            if nested:
                connection.execute("RELEASE request")
        except BaseException as error:  # noqa: BLE001  # it is raised in the task that asked
            failure = tx.failure or (error if isinstance(error, SPOILING) else None)
            request.fail(
                translate(error, request.op, path=self.path)
                if isinstance(error, apsw.Error)
                else error
            )
            self._undo(connection, request, batch, nested=nested, failure=failure)
        else:
            batch.succeeded.append(request)
        finally:
            tx.end()
            request.fn = None
        took_ms = (time.monotonic() - began) * 1000
        if took_ms > batch.slowest_ms:
            batch.slowest_ms, batch.slowest_op = took_ms, request.op

    def _undo(
        self,
        connection: apsw.Connection,
        request: Request,
        batch: Batch,
        *,
        nested: bool,
        failure: apsw.Error | None,
    ) -> None:
        """Roll back what a failed body did, and only that if SQLite still allows it."""
        self.stats.requests_failed += 1
        if nested and failure is None and connection.in_transaction:
            try:
                connection.execute("ROLLBACK TO request")
                connection.execute("RELEASE request")
                return
            except apsw.Error as second:
                failure = second
        # The whole transaction is rolled back: the body was alone in it, or SQLite has rolled
        # everything back by itself (full disk, I/O error). The neighbours ran once and must
        # not run again, so each gets an error.
        self._rollback(connection)
        batch.is_over = True
        batch.fail(
            lambda op: NotExecuted(
                f"{op}: the transaction that it shared was rolled back because {request.op} "
                f"failed ({request.error}). Nothing was changed. Retry at once.",
                retry_after_ms=0,
            ),
            "not_executed",
        )
        if failure is not None:
            self._drop_connection(failure)

    def _rollback(self, connection: apsw.Connection) -> None:
        self.stats.rollbacks += 1
        if not connection.in_transaction:
            return
        try:
            connection.execute("ROLLBACK")
        except apsw.Error as error:
            self._drop_connection(error)

    def _commit(self, connection: apsw.Connection, batch: Batch) -> None:
        """Make the batch durable. Only then do its requests count as committed."""
        if not batch.succeeded:
            if self._connection is connection and connection.in_transaction:
                self._rollback(connection)
            return
        try:
            connection.execute("COMMIT")
        except apsw.ConstraintError as error:
            # A deferred foreign key: SQLite refuses to commit, before it writes anything.
            message = f"COMMIT was refused: {error}. Nothing was changed."
            batch.fail(lambda op: ConstraintFailed(f"{op}: {message}"), "not_executed")
            self._rollback(connection)
            return
        except apsw.Error as error:
            cause = "the disk is full" if isinstance(error, apsw.FullError) else "an I/O error"
            message = (
                f"COMMIT reported {cause} ({error}). It may be on disk or not. "
                "Read again, or retry with the same idempotency key."
            )
            self.stats.outcomes_unknown += len(batch.succeeded)
            batch.fail(lambda op: OutcomeUnknown(f"{op}: {message}"), "unknown")
            self._rollback(connection)
            self._drop_connection(error)
            return
        name = self._files.changed()
        if name is not None and not self._save_nameless_wal():
            effect = "It was committed meanwhile, perhaps into a file that has no name any more."
            self.stats.outcomes_unknown += len(batch.succeeded)
            batch.fail(
                lambda op: OutcomeUnknown(str(changed_while_open(name, op, effect))), "unknown"
            )
            return
        if self._is_linked:
            self._link_is_due = False
        elif self.checkpoints.has_started_over():
            self._link_alone(connection)
        for request in batch.succeeded:
            request.outcome = "committed"
        self.stats.commits += 1
        self._reopen_pause_s = 0.0

    def _measure(self, batch: Batch) -> None:
        took_s = time.monotonic() - batch.began
        self.stats.note_batch(batch, took_s * 1000)
        if batch.in_background:
            for request in batch.finished:
                request.held_ms = took_s * 1000
        elif batch.finished:
            self.queue.note_cost(took_s / len(batch.finished))

    def _deliver(self, requests: list[Request]) -> None:
        """Wake the callers. From here on a request belongs to its task alone."""
        if not requests:
            return
        self.queue.finish(requests)
        self.stats.requests_undelivered += notify_all(request.waiter for request in requests)

    # -- when the connection fails -----------------------------------------------------

    def _drop_connection(self, error: apsw.Error) -> None:
        """Close a failed connection. It is opened again before the next transaction."""
        if self._connection is None:
            return
        log.error("%s: %s. The connection is opened again", self.path, error)
        self._drop_running_tasks(error)
        self._files.spare_others(self._connection)
        close_quietly(self._connection)
        self._connection = None
        self._reopen_error = str(error)
        self._schedule_reopening()

    def _schedule_reopening(self) -> None:
        """Set the next attempt: at once, then with pauses that double until a commit."""
        self._reopen_at = time.monotonic() + self._reopen_pause_s
        self._reopen_pause_s = min(
            REOPEN_PAUSE_S[1], max(REOPEN_PAUSE_S[0], self._reopen_pause_s * 2)
        )

    def _reopen(self) -> apsw.Connection | None:
        """Open the failed connection again, or fail what is queued until the next attempt.

        Another file that has come to the name meanwhile is not opened: the volume may be
        gone, and an empty folder may be in its place.
        """
        name = self._files.changed_since_closed()
        if name is not None:
            self._fail_queued(lambda op: changed_while_open(name, op, "Nothing was changed."))
            return None
        if time.monotonic() >= self._reopen_at:
            try:
                self._open(self._files.without_wal())
            except (SessionDBError, apsw.Error) as error:
                self._reopen_error = str(error)
                self._schedule_reopening()
                log.error("%s cannot be opened again: %s", self.path, error)
            else:
                self.stats.reopened += 1
                return self._connection
        retry_after_ms = max(1, round((self._reopen_at - time.monotonic()) * 1000))
        self._fail_queued(
            lambda op: StoreBusy(
                f"{op}: {self.path} failed and cannot be opened again yet ({self._reopen_error}). "
                f"Nothing was changed. Retry in {retry_after_ms} ms, and check the disk.",
                retry_after_ms=retry_after_ms,
            )
        )
        return None

    def _fail_queued(self, make: Callable[[str], SessionDBError]) -> None:
        """Fail everything that is queued, each with an error of its own."""
        waiting = self.queue.take_enqueued_before(time.monotonic())
        for request in waiting:
            request.fail(make(request.op))
        self._deliver(waiting)

    # -- background work ---------------------------------------------------------------

    def _step_in_background(self) -> None:
        """Take the next step of background work, if one is due."""
        queue = self.queue
        if not queue.step_is_due:
            return
        began = time.monotonic()
        beside_processes = self._others_committed()
        # Steps and tasks take turns. Otherwise the kind that always has more work would
        # keep the other from ever being done.
        self._task_is_next = bool(queue.tasks) and (self._task_is_next or not queue.steps)
        if self._task_is_next:
            self._step_maintenance()
        else:
            self._write_batch(queue.steps)
        self._task_is_next = not self._task_is_next
        queue.throttle.note_step(time.monotonic() - began, beside_processes=beside_processes)

    def _others_committed(self) -> bool:
        """Return whether another process has committed since the last call."""
        if self._connection is None:
            return False
        try:
            now = int(self._connection.pragma("data_version"))
        except apsw.Error as error:
            log.info("the data version of %s cannot be read: %s", self.path, error)
            return False
        moved, self._data_version = now != self._data_version, now
        return moved

    def _step_maintenance(self) -> None:
        """Take one step of the oldest maintenance task, if there is one."""
        found = self.queue.start_task_step()
        if found is None:
            return
        request, is_wanted = found
        if not is_wanted:
            # The clean-up comes first, so that an empty list means that no file is left behind.
            request.close_task()
            self.queue.remove_task(request)
            return
        connection = self._connection or self._reopen()
        failure: apsw.Error | None = None
        try:
            if connection is None:
                raise StoreBusy(
                    f"{request.op}: {self.path} failed and cannot be opened again yet "
                    f"({self._reopen_error}). Nothing was done. Retry in 1,000 ms, and check "
                    "the disk.",
                    retry_after_ms=1_000,
                )
            if request.task is None:
                assert request.fn is not None
                request.task = request.fn(connection)
            if self.checkpoints.starts_over(connection):
                self._link_alone(connection)
            next(request.task)
            self.queue.running = ""
            return
        except StopIteration as finished:
            request.value = finished.value
            request.outcome = "committed"
        except apsw.Error as error:
            request.fail(translate(error, request.op, path=self.path))
            failure = error if isinstance(error, SPOILING) else None
        except BaseException as error:  # noqa: BLE001  # it is raised in the task that asked
            request.fail(error)
        self.queue.remove_task(request)
        self._deliver([request])
        if failure is not None:
            self._drop_connection(failure)

    def _drop_running_tasks(self, error: apsw.Error) -> None:
        """Fail the maintenance tasks of a failed connection: another cannot continue them."""
        begun = self.queue.take_begun_tasks()
        for request in begun:
            request.close_task()
            request.fail(
                StoreFailed(
                    f"{request.op}: the disk failed between two steps ({error}). "
                    "Check it, then retry."
                )
            )
        self._deliver(begun)
