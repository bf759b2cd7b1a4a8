"""The writer: one thread owns the one connection that writes, and everything that is written goes through it.

A request is a whole transaction body. The thread takes what is queued, runs the bodies one after another inside one
`BEGIN IMMEDIATE ... COMMIT`, and only after COMMIT wakes their callers, once per event loop (group commit). It never
waits for a batch to fill: a lone request is committed at once, and while its COMMIT is syncing the next batch gathers.

What it promises
* A body runs at most once. Its result is delivered only when it is durable.
* A failing body spares its neighbours. The first body of a transaction needs no savepoint (failing, it takes nothing
  with it); each later one has its own.
* The life of a request is `PENDING -> WITHDRAWN` or `PENDING -> BEGUN -> DONE`, decided under one lock. Withdrawn means
  never executed. So a caller that gives up learns which of the two it was, without a gap.
* The queue is bounded in requests and bytes; a put never blocks.
* A step of background work is a transaction of its own, and steps are paced (`throttle.py`): between two of them the
  writer serves everything else that is queued.

What survives a crash: every delivered result, and perhaps the batch that was in COMMIT; never a part of a batch.

After an I/O error the connection is closed and opened again, with growing pauses; until then writes fail typed and
reads go on. If the error came from COMMIT the batch's outcome is unknown: the frame that commits it may be in the WAL,
and a recovery after a crash may find it.

Locks: `_lock` guards the queue and the state of its requests, for a few instructions at a time, never across SQL. The
database's write lock is held from BEGIN to COMMIT. Everything else belongs to the writer thread.

The file is long because it is one state machine: each step's promise rests on what the steps beside it leave behind.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from types import CoroutineType
from typing import Any

import apsw

from sessiondb import process
from sessiondb.clock import now_ms as _now_ms
from sessiondb.errors import (
    ConstraintFailed,
    NotExecuted,
    Outcome,
    OutcomeUnknown,
    SessionDBError,
    StoreBusy,
    StoreClosed,
    StoreFailed,
)
from sessiondb.limits import MAINTENANCE_TASKS_MAX, Limits

from .backup import MaintenanceTask
from .checkpoint import Checkpointer, truncate
from .connection import Durability, close_quietly, connect_writer, jitter, log, when_unlocked
from .files import lock_holder_pid
from .schema import create_or_migrate, is_new
from .throttle import Throttle
from .transaction import SPOILING, WriteTransaction, reraise, translate
from .waiter import Waiter, notify_all

PENDING, CANCELLED, RUNNING, FINISHED = "pending", "cancelled", "running", "finished"

# Pauses between attempts to open a failed connection again.
REOPEN_PAUSE_S = (0.05, 5.0)
# Weight of the newest batch in the measured cost of a request: about the last ten batches count.
DRAIN_WEIGHT = 0.1
# What a refused caller is told to wait, at least and at most.
RETRY_MS = (1, 60_000)
# ... and who asks for a backup or a vacuum when too many are asked for: a vacuum takes about that long, a backup longer.
MAINTENANCE_RETRY_MS = 5_000


class Request:
    """One transaction body on its way through the writer."""

    __slots__ = (
        "deadline",
        "enqueued",
        "error",
        "fn",
        "held_ms",
        "in_background",
        "op",
        "outcome",
        "size",
        "state",
        "task",
        "value",
        "waiter",
    )

    def __init__(
        self,
        fn: Callable[[Any], Any],
        op: str,
        size: int,
        deadline: float,
        waiter: Waiter,
        *,
        in_background: bool = False,
    ) -> None:
        self.fn: Callable[[Any], Any] | None = fn
        self.op = op
        self.size = size
        self.deadline = deadline
        self.waiter = waiter
        self.in_background = in_background
        self.held_ms = 0.0
        """Of a step: how long its transaction took, COMMIT included."""
        self.enqueued = 0.0
        self.state = PENDING
        self.value: Any = None
        self.error: BaseException | None = None
        self.outcome: Outcome = "not_executed"
        self.task: MaintenanceTask | None = None

    def fail(self, error: BaseException, outcome: Outcome = "not_executed") -> None:
        self.error = error
        self.outcome = outcome


@dataclass(slots=True)
class WriterStats:
    """Counts since the database was opened. Written by the writer thread, read by any."""

    commits: int = 0
    requests: int = 0
    requests_failed: int = 0
    requests_expired: int = 0
    requests_refused: int = 0
    requests_undelivered: int = 0
    rollbacks: int = 0
    outcomes_unknown: int = 0
    busy_waits: int = 0
    busy_timeouts: int = 0
    reopened: int = 0
    batch_items_longest: int = 0
    batch_items_last: int = 0
    transaction_ms_last: float = 0.0
    transaction_ms_longest: float = 0.0
    transaction_longest_op: str = ""
    steps: int = 0
    """Transactions of background work; they are counted above too."""
    step_ms_longest: float = 0.0
    step_longest_op: str = ""


@dataclass(slots=True)
class Batch:
    """The requests of one transaction."""

    began: float
    now_ms: int
    succeeded: list[Request] = field(default_factory=list)
    finished: list[Request] = field(default_factory=list)
    """All that are to be delivered, those that succeeded included."""
    size: int = 0
    slowest_ms: float = 0.0
    slowest_op: str = ""
    is_over: bool = False
    in_background: bool = False


class Writer:
    """The writer thread of one open database."""

    def __init__(
        self,
        path: str,
        limits: Limits,
        durability: Durability,
        program: str,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._on_change = on_change
        self.limits = limits
        self.stats = WriterStats()
        self.checkpoints = Checkpointer(limits, path)
        self.instance_no = 0
        self._durability = durability
        self._program = program
        self._lock = threading.Lock()
        self._queue: OrderedDict[Request, None] = OrderedDict()
        self._steps: OrderedDict[Request, None] = (
            OrderedDict()
        )  # of background work: one per job that is under way
        self._queue_bytes = 0  # of both
        self._running = ""  # the operation that is being executed, for error messages
        self._idle = False
        self._closing = False
        self._doorbell = (
            threading.Lock()
        )  # a binary semaphore: acquired by the waiting writer, released by a put
        self._doorbell.acquire()
        self._connection: apsw.Connection | None = None
        self._file_id: tuple[int, int] | None = None
        self._reopen_at = 0.0
        self._reopen_pause_s = 0.0  # the first attempt after a good commit is immediate
        self._reopen_error = ""
        self._batch: Batch | None = None
        self._maintenance: list[Request] = []
        self._maintenance_is_next = False
        self._pacing = Throttle()
        self._data_version = 0
        self._request_cost_s = 0.0005
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="sessiondb-writer", daemon=True)

    # -- called from other threads ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread and wait until the database is open and this process is registered in it."""
        self._thread.start()
        self._ready.result()

    def put(self, request: Request) -> None:
        """Queue a request, or refuse it at once.

        Raises:
            StoreBusy: the queue is full.
            StoreClosed: the database has been closed.
        """
        request.enqueued = time.monotonic()
        queue = self._queue_of(request)
        # Critical section "admission". Invariant: _queue and _steps hold exactly the requests that are PENDING, and
        # _queue_bytes is the sum of their sizes; if the writer is idle and something is queued, its bell has been rung.
        with self._lock:
            if self._closing:
                raise StoreClosed(
                    f"{self.path}: {request.op} came after the database was closed; nothing was changed.",
                    path=self.path,
                )
            full = len(queue) >= self.limits.queue_items_max or (
                self._queue_bytes + request.size > self.limits.queue_bytes_max and len(queue) > 0
            )
            if not full:
                queue[request] = None
                self._queue_bytes += request.size
                if not request.in_background:
                    self._pacing.heard()
                self._ring_if_idle()
                return
            self.stats.requests_refused += 1
            raise self._queue_full(request, queue)

    def try_cancel(self, request: Request) -> bool:
        """Take a queued request back; return whether it is now certain that it never runs. May be repeated."""
        # Critical section "cancel": the only way out of PENDING other than _take(), under the same lock, so that
        # exactly one of them happens. Invariant: WITHDRAWN is final.
        with self._lock:
            if request.state == PENDING:
                request.state = CANCELLED
                request.fn = None  # the payload may be large and the caller may keep the request
                queue = self._queue_of(request)
                if request in queue:
                    del queue[request]
                    self._queue_bytes -= request.size
            return request.state == CANCELLED

    def add_task(self, request: Request) -> None:
        """Queue work that is done in steps between batches. `request.fn(connection)` makes the maintenance task.

        Raises:
            StoreBusy: too many wait.
            StoreClosed: the database has been closed.
        """
        with self._lock:
            if self._closing:
                raise StoreClosed(
                    f"{self.path}: {request.op} came after the database was closed; nothing was done.",
                    path=self.path,
                )
            if len(self._maintenance) >= MAINTENANCE_TASKS_MAX:
                self.stats.requests_refused += 1
                holder = self._maintenance[0].op
                raise StoreBusy(
                    f"{request.op} was refused: {len(self._maintenance)} backups and vacuums are running or waiting "
                    f"(limit {MAINTENANCE_TASKS_MAX}); "
                    f"running: {holder}. Nothing was done; retry in {MAINTENANCE_RETRY_MS} ms.",
                    retry_after_ms=MAINTENANCE_RETRY_MS,
                    queue_items=len(self._maintenance),
                    holder=holder,
                )
            self._maintenance.append(request)
            self._ring_if_idle()

    def abandon_task(self, request: Request) -> bool:
        """Have a maintenance task dropped: now, or before its next step if it has begun. Always succeeds. May be repeated."""
        with self._lock:
            if request.state == PENDING:
                self._maintenance.remove(
                    request
                )  # it has nothing to clean up, and takes no place from others
            if request.state != FINISHED:
                request.state = CANCELLED
        return True

    def stop(self) -> None:
        """Ask the thread to finish what is queued, fold the WAL and close. Does not wait. May be repeated."""
        with self._lock:
            self._closing = True
            self._ring_if_idle()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread to end; return whether it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def snapshot(self) -> dict[str, Any]:
        """Return counters and gauges."""
        with self._lock:
            queued, queued_bytes, running = (
                len(self._queue) + len(self._steps),
                self._queue_bytes,
                self._running,
            )
        return {
            **asdict(self.stats),
            "queue_items": queued,
            "queue_bytes": queued_bytes,
            "running_op": running,
            "connected": self._connection is not None,
            "wal_bytes": self.checkpoints.wal_bytes,
            "checkpoint": asdict(self.checkpoints.stats),
        }

    @property
    def is_busy(self) -> bool:
        """Whether callers, not background work, have written a moment ago."""
        return self._pacing.is_busy

    def _queue_of(self, request: Request) -> OrderedDict[Request, None]:
        return self._steps if request.in_background else self._queue

    def _ring_if_idle(self) -> None:
        if self._idle:
            self._idle = False
            self._doorbell.release()

    def _queue_full(self, request: Request, queue: OrderedDict[Request, None]) -> StoreBusy:
        low, high = RETRY_MS
        retry_after_ms = min(high, max(low, round(len(queue) * self._request_cost_s * 1000)))
        holder = self._running or "nothing"
        waiting = "steps of background work" if request.in_background else "writes"
        return StoreBusy(
            f"{request.op} was refused: {len(queue)} {waiting} are waiting, and {self._queue_bytes} bytes in all (limits "
            f"{self.limits.queue_items_max} and {self.limits.queue_bytes_max}); running: {holder}. "
            f"Nothing was changed; retry in {retry_after_ms} ms.",
            retry_after_ms=retry_after_ms,
            queue_items=len(queue),
            queue_bytes=self._queue_bytes,
            holder=holder,
        )

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._open()
            self._register()
        except BaseException as error:  # noqa: BLE001  # it is raised in start()
            close_quietly(self._connection)
            self._connection = None
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        try:
            while self._wait_for_work():
                self._write_batch(self._queue)
                self._step_in_background()
                self._checkpoint_if_due()
        except BaseException as error:
            log.critical("the writer of %s stopped: %s", self.path, error, exc_info=True)
            raise
        finally:
            self._end()

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; return False when the database is closing and nothing is left."""
        # Critical section "going idle": nothing queued and _idle set are one step, or a put in between would ring nobody.
        with self._lock:
            if self._queue:
                return True
            if self._closing:
                return bool(self._steps)
            # A WAL that readers kept from being reset is tried again even when nobody writes.
            due_in_s = self.checkpoints.due_in_s
            if self._steps or self._maintenance:
                paced_s = self._pacing.due_in_s
                due_in_s = paced_s if due_in_s is None else min(paced_s, due_in_s)
            if due_in_s == 0.0:
                return True
            self._idle = True
        if not self._doorbell.acquire(timeout=-1 if due_in_s is None else due_in_s):
            # Critical section "waking up by myself". Invariant: after it, _idle is off and the bell is silent.
            with self._lock:
                if not self._idle:
                    self._doorbell.acquire()  # rung in between: does not wait
                self._idle = False
        return True

    def _checkpoint_if_due(self) -> None:
        if self._connection is not None and self.checkpoints.due_in_s == 0.0:
            self._running = "checkpoint"
            self.checkpoints.run_once(self._connection)
            self._running = ""

    def _open(self) -> None:
        timeout_s = self.limits.busy_timeout_s
        connection = connect_writer(
            self.path, self._durability, timeout_s, is_new=lambda opened: is_new(opened, self.path)
        )
        try:
            when_unlocked(
                lambda: create_or_migrate(connection, self.path),
                timeout_s=timeout_s,
                what="setting up",
                path=self.path,
            )
            # The hook also switches SQLite's automatic checkpoints off, whose implementation is such a hook.
            connection.set_wal_hook(self.checkpoints.on_commit)
            self._data_version = int(connection.pragma("data_version"))
        except BaseException:
            close_quietly(connection)
            raise
        self._connection = connection
        self._file_id = _file_id(self.path)

    def _register(self) -> None:
        """Write this process's row, before any request: leases and jobs will name it."""
        who = process.identity()

        def insert(tx: WriteTransaction) -> int:
            row = tx.first(
                "instance.insert",
                host=who.host,
                boot_id=who.boot_id,
                pid=who.pid,
                pid_started=who.pid_started,
                program=self._program,
                opened_at_ms=tx.now_ms,
            )
            assert row is not None
            return int(row.instance_no)

        self.instance_no = self._write_alone(insert)

    def _write_alone(self, body: Callable[[WriteTransaction], int]) -> int:
        """Run one transaction of the writer's own, outside the queue: at opening and closing."""
        connection = self._connection
        assert connection is not None
        give_up = time.monotonic() + self.limits.busy_timeout_s
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                break
            except apsw.BusyError as error:
                if time.monotonic() >= give_up:
                    raise self._locked("opening", self.limits.busy_timeout_s) from error
                jitter()
        try:
            value = body(WriteTransaction(connection, _now_ms(), self.instance_no))
            connection.execute("COMMIT")
        except apsw.Error as error:
            self._rollback(connection)
            reraise(error, f"registering this process in {self.path}")
        except BaseException:
            self._rollback(connection)
            raise
        return value

    def _end(self) -> None:
        """Fail what is left (maintenance tasks; requests only after a bug in this thread), sign off, fold the WAL, close."""
        if self._batch is not None:
            for request in self._batch.finished:
                request.fail(
                    OutcomeUnknown(
                        f"{request.op}: the writer of {self.path} stopped in the middle; read again."
                    ),
                    "unknown",
                )
            self._deliver(self._batch.finished)
        with self._lock:
            self._closing = True
            left = [
                request
                for request in (*self._queue, *self._steps, *self._maintenance)
                if request.state != CANCELLED
            ]
            begun = [request for request in self._maintenance if request.task is not None]
            self._queue.clear()
            self._steps.clear()
            self._maintenance.clear()
            self._queue_bytes = 0
            for request in left:
                request.state = FINISHED
        for request in begun:
            _close_task(request)  # its clean-up runs, while the connection is still open
        for request in left:
            request.fail(
                StoreClosed(f"{self.path}: the database was closed before {request.op} was done.")
            )
        self._deliver(left)
        connection = self._connection
        if connection is None:
            return
        try:
            self._write_alone(
                lambda tx: tx.run(
                    "instance.close", closed_at_ms=tx.now_ms, instance_no=self.instance_no
                )
            )
        except (SessionDBError, apsw.Error) as error:
            # The row then looks like that of a process that died, which recover() handles: nothing is lost.
            log.warning("could not sign off from %s: %s", self.path, error)
        truncate(connection)
        close_quietly(connection)
        self._connection = None

    # -- one batch ----------------------------------------------------------------------------------------------------

    def _write_batch(self, queue: OrderedDict[Request, None]) -> None:
        connection = self._begin(queue)
        if connection is None:
            return
        self._batch = batch = Batch(time.monotonic(), _now_ms(), in_background=queue is self._steps)
        while (request := self._take(batch, queue)) is not None:
            self._execute(connection, request, batch)
        self._commit(connection, batch)
        self._measure(batch)
        self._batch = None
        self._deliver(batch.finished)
        if batch.succeeded:
            self._on_change()

    def _begin(self, queue: OrderedDict[Request, None]) -> apsw.Connection | None:
        """Begin a transaction if something is queued; return None when nothing is, or when it could not be begun."""
        if not queue:
            return None
        connection = self._connection or self._reopen()
        if connection is None or not self._is_same_file():
            return None
        try:
            connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            return connection if self._outwait(connection, queue) else None
        except apsw.Error as error:
            self._give_up_connection(error)
            return None
        return connection

    def _is_same_file(self) -> bool:
        """Check that the path still names the file that is open; if not, refuse what is queued.

        SQLite goes on writing into a file that was deleted or replaced, and every commit succeeds; none of it would be
        found again. One stat() per transaction turns that into an error.
        """
        if _file_id(self.path) == self._file_id:
            return True
        self._fail_queued(
            lambda op: StoreFailed(
                f"{op}: {self.path} was moved, deleted or replaced while it was open. Nothing was changed; put the file back, or restart."
            )
        )
        return False

    def _outwait(self, connection: apsw.Connection, queue: OrderedDict[Request, None]) -> bool:
        """Another process holds the write lock: try again until it is ours or nobody waits for it any more.

        The requests stay PENDING meanwhile, so that their callers can cancel them and are told at their deadlines.
        """
        self.stats.busy_waits += 1
        self._running = f"waiting for {self._holder()}, which holds the write lock"
        refuse_from = time.monotonic() + self.limits.busy_timeout_s
        while queue:
            jitter()
            try:
                connection.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:
                if time.monotonic() >= refuse_from:
                    self._refuse_overdue()
            except apsw.Error as error:
                self._give_up_connection(error)
                return False
            else:
                return True
        return False

    def _refuse_overdue(self) -> None:
        """Fail the requests that have waited longer than `busy_timeout_s`."""
        timeout_s = self.limits.busy_timeout_s
        overdue = self._take_queued(enqueued_before=time.monotonic() - timeout_s)
        if not overdue:
            return
        self.stats.busy_timeouts += len(overdue)
        for request in overdue:
            request.fail(self._locked(request.op, timeout_s))
        self._deliver(overdue)

    def _locked(self, op: str, timeout_s: float) -> StoreBusy:
        holder = self._holder()
        return StoreBusy(
            f"{op}: {holder} has held the write lock of {self.path} for over {timeout_s:g} s. Nothing was changed; "
            "retry, or stop that process.",
            retry_after_ms=round(timeout_s * 1000),
            holder=holder,
        )

    def _holder(self) -> str:
        """Name who holds the write lock: the system knows the pid, the instance table knows the program. Best effort."""
        pid = lock_holder_pid(self.path)
        if pid is None or self._connection is None:
            return "another process"
        me = process.identity()
        snapshot = WriteTransaction(self._connection, 0, 0)
        try:
            row = snapshot.first("instance.by_pid", host=me.host, boot_id=me.boot_id, pid=pid)
        except (SessionDBError, apsw.Error) as error:
            log.info("the holder of the write lock of %s cannot be looked up: %s", self.path, error)
            row = None
        return f"pid {pid} ({row.program})" if row is not None and row.program else f"pid {pid}"

    def _take(self, batch: Batch, queue: OrderedDict[Request, None]) -> Request | None:
        """Take the next request into the batch; None when the batch is full or the queue is empty. A step is a batch."""
        limits = self.limits
        now = time.monotonic()
        items_max = 1 if batch.in_background else limits.batch_items_max
        if (
            batch.is_over
            or len(batch.finished) >= items_max
            or (now - batch.began) * 1000 >= limits.batch_ms_max
        ):
            return None
        # Critical section "start": the counterpart of try_cancel(). Invariant: a request leaves PENDING here or there,
        # never both, and what has begun is no longer in the queue.
        with self._lock:
            while queue:
                request = next(iter(queue))
                if batch.succeeded and batch.size + request.size > limits.batch_bytes_max:
                    return None
                del queue[request]
                self._queue_bytes -= request.size
                if request.deadline > now:
                    request.state = RUNNING
                    self._running = request.op
                    batch.size += request.size
                    batch.finished.append(request)
                    return request
                request.state = FINISHED
                request.fail(
                    NotExecuted(
                        f"{request.op}: its deadline passed after {now - request.enqueued:.3f} s in the queue; nothing changed."
                    ),
                )
                self.stats.requests_expired += 1
                batch.finished.append(request)
        return None

    def _take_queued(self, enqueued_before: float) -> list[Request]:
        """Take out, as DONE, every queued request that is older than that; the caller fails and delivers them."""
        with self._lock:
            taken = [
                request
                for queue in (self._queue, self._steps)
                for request in queue
                if request.enqueued <= enqueued_before
            ]
            for request in taken:
                del self._queue_of(request)[request]
                self._queue_bytes -= request.size
                request.state = FINISHED
        return taken

    def _execute(self, connection: apsw.Connection, request: Request, batch: Batch) -> None:
        """Run one body. Afterwards either its changes are part of the transaction or nothing of it is."""
        began = time.monotonic()
        # The first body that succeeds needs no savepoint: until then the transaction holds nothing else to protect.
        nested = bool(batch.succeeded)
        tx = WriteTransaction(connection, batch.now_ms, self.instance_no)
        assert request.fn is not None
        try:
            if nested:
                connection.execute("SAVEPOINT request")
            request.value = _result(request.fn(tx), request.op)
            if (
                tx.failure is not None
            ):  # the body swallowed an error after which nothing can be relied on
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
        """Take back what a failed body did, and no more than that if SQLite still allows it."""
        self.stats.requests_failed += 1
        if nested and failure is None and connection.in_transaction:
            try:
                connection.execute("ROLLBACK TO request")
                connection.execute("RELEASE request")
                return
            except apsw.Error as second:
                failure = second
        # The whole transaction goes: the body was alone in it, or SQLite has rolled everything back (full disk, I/O error).
        # The neighbours ran once and must not run again, so they are told.
        self._rollback(connection)
        batch.is_over = True
        for neighbour in batch.succeeded:
            neighbour.value = None
            neighbour.fail(
                NotExecuted(
                    f"{neighbour.op}: the transaction that it shared was rolled back because {request.op} failed ({request.error}). "
                    "Nothing was changed; retry at once.",
                    retry_after_ms=0,
                )
            )
        batch.succeeded.clear()
        if failure is not None:
            self._give_up_connection(failure)

    def _rollback(self, connection: apsw.Connection) -> None:
        self.stats.rollbacks += 1
        if not connection.in_transaction:
            return
        try:
            connection.execute("ROLLBACK")
        except apsw.Error as error:
            self._give_up_connection(error)

    def _commit(self, connection: apsw.Connection, batch: Batch) -> None:
        """Make the batch durable; only then do its requests count as done."""
        if not batch.succeeded:
            if self._connection is connection and connection.in_transaction:
                self._rollback(connection)
            return
        try:
            connection.execute("COMMIT")
        except apsw.ConstraintError as error:
            # A deferred foreign key: SQLite refuses to commit and says so before it writes anything.
            message = f"COMMIT was refused: {error}. Nothing was changed."
            self._fail_batch(batch, lambda op: ConstraintFailed(f"{op}: {message}"), "not_executed")
            self._rollback(connection)
            return
        except apsw.Error as error:
            cause = "the disk is full" if isinstance(error, apsw.FullError) else "an I/O error"
            message = f"COMMIT reported {cause} ({error}); it may be on disk or not. Read again, or retry with the same idempotency key."
            self.stats.outcomes_unknown += len(batch.succeeded)
            self._fail_batch(batch, lambda op: OutcomeUnknown(f"{op}: {message}"), "unknown")
            self._rollback(connection)
            self._give_up_connection(error)
            return
        for request in batch.succeeded:
            request.outcome = "committed"
        self.stats.commits += 1
        self._reopen_pause_s = 0.0

    def _fail_batch(
        self, batch: Batch, make: Callable[[str], SessionDBError], outcome: Outcome
    ) -> None:
        for request in batch.succeeded:
            request.value = None
            request.fail(make(request.op), outcome)
        batch.succeeded.clear()

    def _measure(self, batch: Batch) -> None:
        took_s = time.monotonic() - batch.began
        stats, items = self.stats, len(batch.finished)
        stats.requests += items
        stats.batch_items_last = items
        stats.batch_items_longest = max(stats.batch_items_longest, items)
        stats.transaction_ms_last = took_s * 1000
        if stats.transaction_ms_last > stats.transaction_ms_longest:
            stats.transaction_ms_longest, stats.transaction_longest_op = (
                stats.transaction_ms_last,
                batch.slowest_op,
            )
        if batch.in_background:
            stats.steps += 1
            if stats.transaction_ms_last > stats.step_ms_longest:
                stats.step_ms_longest, stats.step_longest_op = (
                    stats.transaction_ms_last,
                    batch.slowest_op,
                )
            for request in batch.finished:
                request.held_ms = stats.transaction_ms_last
        elif items:
            self._request_cost_s += DRAIN_WEIGHT * (took_s / items - self._request_cost_s)

    def _deliver(self, requests: list[Request]) -> None:
        """Tell the callers. From here on a request belongs to its task alone."""
        if not requests:
            return
        # Critical section "finish": under the lock, because try_cancel() reads the state.
        with self._lock:
            self._running = ""
            for request in requests:
                request.state = FINISHED
        self.stats.requests_undelivered += notify_all(request.waiter for request in requests)

    # -- when the connection fails ------------------------------------------------------------------------------------

    def _give_up_connection(self, error: apsw.Error) -> None:
        """Close a connection that cannot be trusted any more; it is opened again before the next transaction."""
        if self._connection is None:
            return
        log.error("%s: %s; the connection is opened again", self.path, error)
        self._drop_running_tasks(error)
        close_quietly(self._connection)
        self._connection = None
        self._reopen_error = str(error)
        self._postpone_reopening()

    def _postpone_reopening(self) -> None:
        """Set the time of the next attempt: at once the first time, then with pauses that double until a commit succeeds."""
        self._reopen_at = time.monotonic() + self._reopen_pause_s
        self._reopen_pause_s = min(
            REOPEN_PAUSE_S[1], max(REOPEN_PAUSE_S[0], self._reopen_pause_s * 2)
        )

    def _reopen(self) -> apsw.Connection | None:
        """Open the failed connection again, or fail what is queued with the time of the next attempt."""
        if time.monotonic() >= self._reopen_at:
            try:
                self._open()
            except (SessionDBError, apsw.Error) as error:
                self._reopen_error = str(error)
                self._postpone_reopening()
                log.error("%s cannot be opened again: %s", self.path, error)
            else:
                self.stats.reopened += 1
                return self._connection
        retry_after_ms = max(1, round((self._reopen_at - time.monotonic()) * 1000))
        self._fail_queued(
            lambda op: StoreBusy(
                f"{op}: {self.path} failed and cannot be opened again yet ({self._reopen_error}). Nothing was changed; "
                f"retry in {retry_after_ms} ms, and check the disk.",
                retry_after_ms=retry_after_ms,
            )
        )
        return None

    def _fail_queued(self, make: Callable[[str], SessionDBError]) -> None:
        """Fail everything that is queued, each with an error of its own."""
        waiting = self._take_queued(enqueued_before=time.monotonic())
        for request in waiting:
            request.fail(make(request.op))
        self._deliver(waiting)

    # -- background work ----------------------------------------------------------------------------------------------

    def _step_in_background(self) -> None:
        """Take the next step of background work, if there is one and its time has come."""
        if not (self._steps or self._maintenance) or (
            self._pacing.due_in_s > 0.0 and not self._closing
        ):
            return
        began = time.monotonic()
        beside_processes = self._others_committed()
        # In turns: whichever there is always more of would otherwise keep the other from ever being done.
        self._maintenance_is_next = bool(self._maintenance) and (
            self._maintenance_is_next or not self._steps
        )
        if self._maintenance_is_next:
            self._step_maintenance()
        else:
            self._write_batch(self._steps)
        self._maintenance_is_next = not self._maintenance_is_next
        self._pacing.took(time.monotonic() - began, beside_processes=beside_processes)

    def _others_committed(self) -> bool:
        """Say whether another process has committed since this was asked last."""
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
        with self._lock:
            if not self._maintenance:
                return
            request = self._maintenance[0]
            given_up = request.state == CANCELLED
            if not given_up:
                request.state = RUNNING
                self._running = request.op
        if given_up:
            _close_task(
                request
            )  # before it leaves the list: who sees an empty one sees nothing left behind
            with self._lock:
                self._maintenance.remove(request)
            return
        connection = self._connection or self._reopen()
        failure: apsw.Error | None = None
        try:
            if connection is None:
                message = f"{request.op}: {self.path} failed and cannot be opened again yet ({self._reopen_error}). Nothing was done; "
                raise StoreBusy(
                    message + "retry in 1,000 ms, and check the disk.", retry_after_ms=1_000
                )
            if request.task is None:
                assert request.fn is not None
                request.task = request.fn(connection)
            next(request.task)
            self._running = ""
            return
        except StopIteration as finished:
            request.value = finished.value
            request.outcome = "committed"
        except apsw.Error as error:
            request.fail(translate(error, request.op, path=self.path))
            failure = error if isinstance(error, SPOILING) else None
        except BaseException as error:  # noqa: BLE001  # it is raised in the task that asked
            request.fail(error)
        with self._lock:
            self._maintenance.remove(request)
        self._deliver([request])
        if failure is not None:
            self._give_up_connection(failure)

    def _drop_running_tasks(self, error: apsw.Error) -> None:
        """Fail what works in steps on a connection that is being given up: it cannot continue on another one."""
        with self._lock:
            begun = [request for request in self._maintenance if request.task is not None]
            for request in begun:
                self._maintenance.remove(request)
        for request in begun:
            _close_task(request)
            request.fail(
                StoreFailed(
                    f"{request.op}: the disk failed between two steps ({error}). Check it, then retry."
                )
            )
        self._deliver(begun)


def _result(value: Any, op: str) -> Any:
    if isinstance(value, CoroutineType):
        value.close()
        raise TypeError(
            f"{op}: a transaction body must be a plain function, not a coroutine: nothing may wait inside a transaction"
        )
    return value


def _close_task(request: Request) -> None:
    """Run the clean-up of a maintenance task that is given up. What it has to say changes nothing for anybody, so it is only logged."""
    if request.task is None:
        return
    try:
        request.task.close()
    except (apsw.Error, OSError) as error:
        log.warning("%s: its clean-up failed: %s", request.op, error)


def _file_id(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # once per transaction: no Path objects
    except OSError:
        return None
    return found.st_dev, found.st_ino
