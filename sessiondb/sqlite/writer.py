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

After an I/O error the connection is closed and opened again (`write_connection.py`). Until
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
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import apsw

from sessiondb.clock import monotonic
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
from sessiondb.waiter import notify_all

from .batch import Batch, WriterStats
from .connection import Durability, jitter, log
from .held_files import HeldFiles, changed_while_open
from .instance import write_lock_holder, write_locked
from .request_queue import Pending, Request, RequestQueue
from .schema import refuse_newer
from .slow_log import WriterLog
from .transaction import SPOILING, WriteTransaction, plain_result, reraise, translate
from .write_connection import WriteConnection


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
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self.path = path
        self._now_ms = now_ms or (lambda: _now_ms())
        self._on_change = on_change
        self.limits = limits
        self.stats = WriterStats()
        self.queue = RequestQueue(path, limits)
        self._log = WriterLog(path, limits.slow_ms)
        self._connection = WriteConnection(
            path,
            limits,
            durability,
            program,
            self.stats,
            now_ms=self._now_ms,
            on_loss=self._drop_running_tasks,
            without_lock=without_lock,
        )
        self.checkpoints = self._connection.checkpoints
        self._batch: Batch | None = None
        self._task_is_next = False
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
        return self._connection.files

    @property
    def instance_no(self) -> int:
        """This process's row in `instance`. 0 before it is registered."""
        return self._connection.instance_no

    def snapshot(self) -> dict[str, Any]:
        """Return counters and gauges."""
        return {
            **asdict(self.stats),
            **self.queue.snapshot(),
            "connected": self._connection.live is not None,
            "wal_bytes": self.checkpoints.wal_bytes,
            "checkpoint": asdict(self.checkpoints.stats),
        }

    # -- the thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._connection.start()
        except BaseException as error:  # noqa: BLE001  # it is raised in start()
            self._connection.give_up()
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
        connection = self._connection.live
        if connection is None or self._connection.files.changed() is not None:
            self.checkpoints.postpone()  # or the thread would ask again without a pause
        else:
            began = monotonic()
            self.queue.running = "checkpoint"
            self.checkpoints.run_due(connection)
            self.queue.running = ""
            self._log.note_hold("checkpoint", began, monotonic())

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
        self._connection.end()

    # -- one batch ---------------------------------------------------------------------

    def _write_batch(self, pending: Pending) -> None:
        connection = self._begin(pending)
        if connection is None:
            return
        # Critical section "transaction". Lock: the database's write lock, from _begin to
        # _commit. Invariants: until its end the schema is one that this release knows. A body
        # runs once, and its changes are in the transaction wholly or not at all. No caller is
        # woken inside.
        self._batch = batch = Batch(
            monotonic(), self._now_ms(), in_background=pending is self.queue.steps
        )
        while (request := self._take(batch, pending)) is not None:
            self._execute(connection, request, batch)
        self._commit(connection, batch)
        log_it = self._measure(batch)
        self._batch = None
        self._deliver(batch.finished)
        if log_it is not None:
            log_it()  # a handler of logs may be slow, and keeps no caller waiting
        if batch.succeeded:
            self._on_change()

    def _begin(self, pending: Pending) -> apsw.Connection | None:
        """Begin a transaction for what is queued. None when nothing is, or it cannot begin."""
        if not pending:
            return None
        connection = self._connection.live or self._reopen()
        if connection is None or not self._has_its_files():
            return None
        self._connection.keep_alive(connection)
        self._connection.foresee_wal(connection)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            if not self._outwait(connection, pending):
                return None
            self._connection.has_waited()
        except apsw.Error as error:
            self._connection.drop(error)
            return None
        return connection if self._prepare(connection) else None

    def _prepare(self, connection: apsw.Connection) -> bool:
        """Check the schema, and name the WAL if this transaction begins one."""
        if not self._knows_the_schema(connection):
            return False
        try:
            self._connection.name_wal(connection)
        except SessionDBError as error:
            self._connection.roll_back(connection)
            self._connection.drop(apsw.IOError(str(error)))
            return False
        return True

    def _has_its_files(self) -> bool:
        """Check that the names still name the open files. If not, refuse what is queued."""
        refusal = self._connection.refusal()
        if refusal is not None:
            self._fail_queued(refusal)
        return refusal is None

    def _knows_the_schema(self, connection: apsw.Connection) -> bool:
        """Check that no newer release has migrated the file. If one has, refuse what is queued."""
        try:
            refuse_newer(connection, self.path)
        except NewerSchema as error:
            refusal = error
            self._connection.roll_back(connection)
            self._fail_queued(refusal.told_by)
            return False
        except apsw.Error as error:
            self._connection.roll_back(connection)
            self._connection.drop(error)
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
        began = monotonic()
        refuse_from = began + self.limits.busy_timeout_s
        while pending:
            jitter()
            try:
                connection.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:
                if monotonic() >= refuse_from:
                    self._refuse_overdue()
            except apsw.Error as error:
                self._connection.drop(error)
                return False
            else:
                self._log.note_hold(holder, began, monotonic())
                return True
        return False

    def _refuse_overdue(self) -> None:
        """Fail the requests that have waited longer than `busy_timeout_s`."""
        timeout_s = self.limits.busy_timeout_s
        overdue = self.queue.take_enqueued_before(monotonic() - timeout_s)
        if not overdue:
            return
        self.stats.busy_timeouts += len(overdue)
        for request in overdue:
            holder = write_lock_holder(self._connection.live, self.path)
            request.fail(write_locked(request.op, self.path, holder, timeout_s))
        self._deliver(overdue)

    def _take(self, batch: Batch, pending: Pending) -> Request | None:
        """Take the next request into the batch. None when it is full or nothing is queued."""
        limits = self.limits
        now = monotonic()
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
        began = monotonic()
        request.waited_ms = (began - request.enqueued) * 1000
        # No savepoint until a body has succeeded: the transaction holds nothing else to protect.
        nested = bool(batch.succeeded)
        tx = WriteTransaction(connection, batch.now_ms, self.instance_no, request.stamp_ms)
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
        took_ms = (monotonic() - began) * 1000
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
        self._connection.roll_back(connection)
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
            self._connection.drop(failure)

    def _commit(self, connection: apsw.Connection, batch: Batch) -> None:
        """Make the batch durable. Only then do its requests count as committed."""
        if not batch.succeeded:
            if self._connection.live is connection and connection.in_transaction:
                self._connection.roll_back(connection)
            return
        try:
            connection.execute("COMMIT")
        except apsw.ConstraintError as error:
            # A deferred foreign key: SQLite refuses to commit, before it writes anything.
            message = f"COMMIT was refused: {error}. Nothing was changed."
            batch.fail(lambda op: ConstraintFailed(f"{op}: {message}"), "not_executed")
            self._connection.roll_back(connection)
            return
        except apsw.Error as error:
            cause = "the disk is full" if isinstance(error, apsw.FullError) else "an I/O error"
            message = (
                f"COMMIT reported {cause} ({error}). It may be on disk or not. "
                "Read again, or retry with the same idempotency key."
            )
            self.stats.outcomes_unknown += len(batch.succeeded)
            batch.fail(lambda op: OutcomeUnknown(f"{op}: {message}"), "unknown")
            self._connection.roll_back(connection)
            self._connection.drop(error)
            return
        # Critical section "acknowledgement". Lock: none, because a name has none. Invariant:
        # nothing is acknowledged that lies in a file without a name. So this look comes after
        # COMMIT and before any caller is woken, and each commit has a look of its own.
        name = self._connection.lost_in()
        if name is not None:
            effect = "It was committed meanwhile, perhaps into a file that has no name any more."
            self.stats.outcomes_unknown += len(batch.succeeded)
            batch.fail(
                lambda op: OutcomeUnknown(str(changed_while_open(name, op, effect))), "unknown"
            )
            return
        self._connection.note_commit(connection)
        for request in batch.succeeded:
            request.outcome = "committed"
        self.stats.commits += 1

    def _measure(self, batch: Batch) -> Callable[[], None] | None:
        """Count a transaction. Return what logs it, if a caller of it waited for long."""
        ended = monotonic()
        took_s = ended - batch.began
        self.stats.note_batch(batch, took_s * 1000)
        if batch.in_background:
            for request in batch.finished:
                request.held_ms = took_s * 1000
        elif batch.finished:
            self.queue.note_cost(took_s / len(batch.finished))
        log_it = self._log.line(batch, ended)
        self._log.note_hold(batch.slowest_op, batch.began, ended)
        if log_it is not None:
            self.stats.slow += 1
        return log_it

    def _deliver(self, requests: list[Request]) -> None:
        """Wake the callers. From here on a request belongs to its task alone."""
        if not requests:
            return
        self.queue.finish(requests)
        self.stats.requests_undelivered += notify_all(request.waiter for request in requests)

    def _reopen(self) -> apsw.Connection | None:
        """Open the failed connection again, or fail what is queued until the next attempt."""
        refusal = self._connection.reopen()
        if refusal is not None:
            self._fail_queued(refusal)
        return self._connection.live

    def _fail_queued(self, make: Callable[[str], SessionDBError]) -> None:
        """Fail everything that is queued, each with an error of its own."""
        waiting = self.queue.take_enqueued_before(monotonic())
        for request in waiting:
            request.fail(make(request.op))
        self._deliver(waiting)

    # -- background work ---------------------------------------------------------------

    def _step_in_background(self) -> None:
        """Take the next step of background work, if one is due."""
        queue = self.queue
        if not queue.step_is_due:
            return
        began = monotonic()
        beside_processes = self._connection.others_committed()
        # Steps and tasks take turns. Otherwise the kind that always has more work would
        # keep the other from ever being done.
        self._task_is_next = bool(queue.tasks) and (self._task_is_next or not queue.steps)
        if self._task_is_next:
            self._connection.before_step()
            self._step_maintenance()
            self._connection.after_step()
        else:
            self._write_batch(queue.steps)
        self._task_is_next = not self._task_is_next
        queue.throttle.note_step(monotonic() - began, beside_processes=beside_processes)

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
        connection = self._connection.live or self._reopen()
        failure: apsw.Error | None = None
        began = monotonic()
        try:
            if connection is None:
                raise StoreBusy(
                    f"{request.op}: {self.path} failed and cannot be opened again yet "
                    f"({self._connection.error}). Nothing was done. Retry in 1,000 ms, and check "
                    "the disk.",
                    retry_after_ms=1_000,
                )
            if request.task is None:
                assert request.fn is not None
                request.task = request.fn(connection)
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
        finally:
            self._log.note_hold(request.op, began, monotonic())
        self.queue.remove_task(request)
        self._deliver([request])
        if failure is not None:
            self._connection.drop(failure)

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
