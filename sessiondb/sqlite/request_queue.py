"""The queue in front of the writer thread: admission, the states of a request, cancellation.

A request is a whole transaction body, or a maintenance task that runs in steps. Callers
put requests here from any thread. The writer thread (`writer.py`) takes them out.

What it promises
* The life of a request is `PENDING -> CANCELLED` or `PENDING -> RUNNING -> FINISHED`,
  decided under one lock. CANCELLED means never executed. So a caller that gives up learns
  which of the two happened, without a gap. (A maintenance task has no such instant: it
  may be CANCELLED while RUNNING, and the writer then drops it before its next step.)
* The queue is bounded in requests and bytes. `put` never blocks: a full queue refuses with
  `StoreBusy`, which names the running operation and the time to retry.
* Three kinds of work wait apart, each with a bound of its own: writes of callers, steps of
  background work, maintenance tasks. So neither kind of background work can fill the
  queue of the callers.
* A request whose deadline passes in the queue is never executed.

Locks: `_lock` guards the queue, the state of its requests and the idle flag, for a few
instructions at a time. It is never held across SQL, a file or a callback, and nothing
waits under it. (`_wakeup`, a semaphore, is released under it, and acquired under it only
where it is known to be free.) Nothing here survives a crash, or needs to: what is queued
was never acknowledged.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import apsw

from sessiondb import clock
from sessiondb.clock import monotonic
from sessiondb.errors import NotExecuted, StoreBusy, StoreClosed, WriteOutcome
from sessiondb.limits import MAINTENANCE_TASKS_MAX, Limits
from sessiondb.waiter import Waiter

from .backup import MaintenanceTask
from .connection import log
from .throttle import Throttle

PENDING, CANCELLED, RUNNING, FINISHED = "pending", "cancelled", "running", "finished"

# Weight of the newest batch in the measured cost of a request: about the last ten batches count.
DRAIN_WEIGHT = 0.1
# Bounds of the time to retry that a refused caller is given.
RETRY_MS = (1, 60_000)
# The same for a refused backup or vacuum: a vacuum takes about that long, a backup longer.
MAINTENANCE_RETRY_MS = 5_000


@dataclass(slots=True, eq=False)
class Request:
    """One transaction body, or one maintenance task, on its way through the writer."""

    fn: Callable[[Any], Any] | None
    """None once it has run, or never will: the payload may be large."""
    op: str
    size: int
    deadline: float
    waiter: Waiter
    in_background: bool = field(default=False, kw_only=True)
    """A step of background work, not a write of a caller."""
    stamp_ms: int = field(default_factory=lambda: clock.stamp_ms(), kw_only=True)
    """The application's wall clock, read in its task (`clock.py`)."""
    enqueued: float = field(default=0.0, init=False)
    state: str = field(default=PENDING, init=False)
    value: Any = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)
    outcome: WriteOutcome = field(default="not_executed", init=False)
    waited_ms: float = field(default=0.0, init=False)
    """How long it was in the queue before its body ran."""
    held_ms: float = field(default=0.0, init=False)
    """Of a step: how long its transaction took, COMMIT included."""
    task: MaintenanceTask | None = field(default=None, init=False)
    """Of a maintenance task that has begun."""

    def fail(self, error: BaseException, outcome: WriteOutcome = "not_executed") -> None:
        self.error = error
        self.outcome = outcome

    def close_task(self) -> None:
        """Run the clean-up of a maintenance task that is dropped, if it has begun.

        An error of the clean-up changes no outcome, so it is only logged.
        """
        if self.task is None:
            return
        try:
            self.task.close()
        except (apsw.Error, OSError) as error:
            log.warning("%s: its clean-up failed: %s", self.op, error)


Pending = OrderedDict[Request, None]
"""An ordered set of requests, the oldest first."""


class RequestQueue:
    """What waits for the writer thread of one open database.

    Invariants, each kept by every critical section below (all of them under `_lock`):

    1. `writes` and `steps` hold exactly the requests that are PENDING, and `_bytes` is the
       sum of their sizes.
    2. A request leaves PENDING once. CANCELLED and FINISHED are final.
    3. If the writer is idle and something is queued, its wakeup has been released.

    The writer thread also reads without the lock whether `writes`, `steps` or `tasks` is
    empty, and whether the queue is closing. An outdated answer costs one further turn of
    its loop. It writes `running` without the lock: one assignment, read for messages only.
    """

    def __init__(self, path: str, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self.throttle = Throttle()
        self.writes: Pending = OrderedDict()
        self.steps: Pending = OrderedDict()  # one per background job that is under way
        self.tasks: list[Request] = []
        self.running = ""  # the operation that the writer executes, for error messages
        self.requests_refused = 0
        self.requests_expired = 0
        self._lock = threading.Lock()
        self._bytes = 0
        self._idle = False
        self._closing = False
        # A binary semaphore: acquired by the waiting writer, released by what wakes it.
        self._wakeup = threading.Lock()
        self._wakeup.acquire()
        self._request_cost_s = 0.0005

    # -- called from any thread --------------------------------------------------------

    def put(self, request: Request) -> None:
        """Queue a request, or refuse it at once.

        Raises:
            StoreBusy: the queue is full.
            StoreClosed: the database has been closed.
        """
        request.enqueued = monotonic()
        pending = self._pending_of(request)
        # Critical section "admission". Lock: _lock. Invariants 1 and 3: the check of the
        # bounds, the insertion and the wakeup are one step.
        with self._lock:
            self._refuse_if_closing(request, "nothing was changed")
            full = len(pending) >= self.limits.queue_items_max or (
                self._bytes + request.size > self.limits.queue_bytes_max and len(pending) > 0
            )
            if not full:
                pending[request] = None
                self._bytes += request.size
                if not request.in_background:
                    self.throttle.note_caller()
                self._wake_if_idle()
                return
            self.requests_refused += 1
            raise self._full(request, pending)

    def try_cancel(self, request: Request) -> bool:
        """Take a queued request back. Return whether it is now certain that it never runs.

        May be repeated: the answer never changes.
        """
        # Critical section "cancel". Lock: _lock. Invariant 2: of the ways out of PENDING
        # (here, start_next, take_enqueued_before, take_all) exactly one happens.
        with self._lock:
            if request.state == PENDING:
                request.state = CANCELLED
                request.fn = None  # the payload may be large and the caller may keep the request
                if request in self._pending_of(request):
                    self._remove(request)
            return request.state == CANCELLED

    def add_task(self, request: Request) -> None:
        """Queue a maintenance task. `request.fn(connection)` makes its generator.

        Raises:
            StoreBusy: too many tasks are queued.
            StoreClosed: the database has been closed.
        """
        # Critical section "admission of a task". Lock: _lock. Invariant 3, and: `tasks`
        # never holds more than MAINTENANCE_TASKS_MAX.
        with self._lock:
            self._refuse_if_closing(request, "nothing was done")
            if len(self.tasks) >= MAINTENANCE_TASKS_MAX:
                self.requests_refused += 1
                holder = self.tasks[0].op
                raise StoreBusy(
                    f"{request.op} was refused: {len(self.tasks)} backups and vacuums are "
                    f"running or waiting (limit {MAINTENANCE_TASKS_MAX}); running: {holder}. "
                    f"Nothing was done. Retry in {MAINTENANCE_RETRY_MS} ms.",
                    retry_after_ms=MAINTENANCE_RETRY_MS,
                    queue_items=len(self.tasks),
                    holder=holder,
                )
            self.tasks.append(request)
            self._wake_if_idle()

    def abandon_task(self, request: Request) -> bool:
        """Drop a maintenance task: now, or before its next step if it has begun.

        Always succeeds. May be repeated.
        """
        # Critical section "cancel of a task". Lock: _lock. Invariant: a task that has
        # begun stays in `tasks` until the writer has run its clean-up.
        with self._lock:
            if request.state == PENDING:
                self.tasks.remove(request)  # nothing to clean up, so it frees its place now
            if request.state != FINISHED:
                request.state = CANCELLED
        return True

    def close(self) -> None:
        """Refuse new requests, and wake the writer to finish what is queued. May be repeated."""
        # Critical section "closing". Lock: _lock. Invariant: after it nothing is admitted.
        with self._lock:
            self._closing = True
            self._wake_if_idle()

    def snapshot(self) -> dict[str, Any]:
        """Return counters and gauges."""
        # Critical section "gauges". Lock: _lock. They are of one instant.
        with self._lock:
            return {
                "requests_refused": self.requests_refused,
                "requests_expired": self.requests_expired,
                "queue_items": len(self.writes) + len(self.steps),
                "queue_bytes": self._bytes,
                "running_op": self.running,
            }

    @property
    def is_busy(self) -> bool:
        """Whether callers, not background work, have written a moment ago."""
        return self.throttle.is_busy

    # -- called by the writer thread ---------------------------------------------------

    def wait(self, checkpoint_due_in_s: float | None) -> bool:
        """Sleep until there is work. Return False when closing and nothing is left.

        Args:
            checkpoint_due_in_s: when the WAL is to be reset. A reset that readers blocked
                is tried again even when no caller writes.
        """
        # Critical section "going idle". Lock: _lock. Invariant 3: the check that nothing
        # is queued and the setting of _idle are one step. Otherwise a put in between
        # would not wake the writer.
        with self._lock:
            if self.writes:
                return True
            if self._closing:
                return bool(self.steps)
            due_in_s = checkpoint_due_in_s
            if self.steps or self.tasks:
                step_s = self.throttle.due_in_s
                due_in_s = step_s if due_in_s is None else min(step_s, due_in_s)
            if due_in_s == 0.0:
                return True
            self._idle = True
        if not self._wakeup.acquire(timeout=-1 if due_in_s is None else due_in_s):
            # Critical section "timed out". Lock: _lock. Invariant: after it _idle is off
            # and _wakeup is taken, so the next wakeup is a new one.
            with self._lock:
                if not self._idle:
                    self._wakeup.acquire()  # released in between: this does not wait
                self._idle = False
        return True

    def start_next(
        self, pending: Pending, now: float, size_max: float, expired: list[Request]
    ) -> Request | None:
        """Start the oldest request. None when none is left or it is larger than `size_max`.

        Requests whose deadline has passed are failed on the way and added to `expired`.
        """
        # Critical section "start". Lock: _lock. Invariants 1 and 2: the counterpart of
        # try_cancel. A request that is RUNNING is no longer queued.
        with self._lock:
            while pending:
                request = next(iter(pending))
                if request.size > size_max:
                    return None
                self._remove(request)
                if request.deadline > now:
                    request.state = RUNNING
                    self.running = request.op
                    return request
                request.state = FINISHED
                request.fail(
                    NotExecuted(
                        f"{request.op}: its deadline passed after {now - request.enqueued:.3f} s "
                        "in the queue. Nothing changed."
                    )
                )
                self.requests_expired += 1
                expired.append(request)
        return None

    def take_enqueued_before(self, enqueued_before: float) -> list[Request]:
        """Take out, as FINISHED, every request that is older. The caller fails them."""
        # Critical section "refuse". Lock: _lock. Invariants 1 and 2.
        with self._lock:
            taken = [
                request
                for pending in (self.writes, self.steps)
                for request in pending
                if request.enqueued <= enqueued_before
            ]
            for request in taken:
                self._remove(request)
                request.state = FINISHED
        return taken

    def finish(self, requests: list[Request]) -> None:
        """Mark requests as FINISHED. From here on a request belongs to its task alone."""
        # Critical section "finish". Lock: _lock, because try_cancel reads the state.
        with self._lock:
            self.running = ""
            for request in requests:
                request.state = FINISHED

    def take_all(self) -> tuple[list[Request], list[Request]]:
        """Close, and take out everything, as FINISHED: at the end of the writer thread.

        Returns:
            The requests and tasks to be failed (those not CANCELLED), and the tasks that
            have begun, whose clean-up is to be run.
        """
        # Critical section "end". Lock: _lock. Invariants 1 and 2. Nothing is admitted
        # after it, so nothing can be left behind.
        with self._lock:
            self._closing = True
            left = [
                request
                for request in (*self.writes, *self.steps, *self.tasks)
                if request.state != CANCELLED
            ]
            begun = [request for request in self.tasks if request.task is not None]
            self.writes.clear()
            self.steps.clear()
            self.tasks.clear()
            self._bytes = 0
            for request in left:
                request.state = FINISHED
        return left, begun

    @property
    def step_is_due(self) -> bool:
        """Whether background work waits and may take its next step now.

        Closing finishes it without its pauses.
        """
        return bool(self.steps or self.tasks) and (self._closing or self.throttle.due_in_s <= 0.0)

    def start_task_step(self) -> tuple[Request, bool] | None:
        """Return the oldest maintenance task, and whether to take its next step.

        False: its caller abandoned it. The writer runs its clean-up, then removes it.
        """
        # Critical section "step of a task". Lock: _lock. Invariant: a task is RUNNING
        # before its first step, so abandon_task no longer removes it by itself.
        with self._lock:
            if not self.tasks:
                return None
            request = self.tasks[0]
            if request.state == CANCELLED:
                return request, False
            request.state = RUNNING
            self.running = request.op
            return request, True

    def remove_task(self, request: Request) -> None:
        """Remove a maintenance task that has ended. Its clean-up has run."""
        # Critical section "end of a task". Lock: _lock. Invariant: as in abandon_task.
        with self._lock:
            self.tasks.remove(request)

    def take_begun_tasks(self) -> list[Request]:
        """Remove and return the maintenance tasks that have begun: their connection failed."""
        # Critical section "failed tasks". Lock: _lock. Invariant: a task that has not begun
        # stays queued, for the next connection.
        with self._lock:
            begun = [request for request in self.tasks if request.task is not None]
            for request in begun:
                self.tasks.remove(request)
        return begun

    def note_cost(self, seconds: float) -> None:
        """Note what a request of the newest batch took. Written by the writer thread only."""
        self._request_cost_s += DRAIN_WEIGHT * (seconds - self._request_cost_s)

    # -- inside, where the caller holds the lock ---------------------------------------

    def _pending_of(self, request: Request) -> Pending:
        return self.steps if request.in_background else self.writes

    def _remove(self, request: Request) -> None:
        del self._pending_of(request)[request]
        self._bytes -= request.size

    def _wake_if_idle(self) -> None:
        if self._idle:
            self._idle = False
            self._wakeup.release()

    def _refuse_if_closing(self, request: Request, harmless: str) -> None:
        if self._closing:
            raise StoreClosed(
                f"{self.path}: {request.op} came after the database was closed; {harmless}.",
                path=self.path,
            )

    def _full(self, request: Request, pending: Pending) -> StoreBusy:
        low, high = RETRY_MS
        retry_after_ms = min(high, max(low, round(len(pending) * self._request_cost_s * 1000)))
        holder = self.running or "nothing"
        kind = "steps of background work" if request.in_background else "writes"
        return StoreBusy(
            f"{request.op} was refused: {len(pending)} {kind} are waiting, and {self._bytes} "
            f"bytes in all (limits {self.limits.queue_items_max} and "
            f"{self.limits.queue_bytes_max}); running: {holder}. "
            f"Nothing was changed. Retry in {retry_after_ms} ms.",
            retry_after_ms=retry_after_ms,
            queue_items=len(pending),
            queue_bytes=self._bytes,
            holder=holder,
        )
