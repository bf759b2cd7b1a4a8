"""One write transaction: the requests that share it, and what the writer counts of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sessiondb.errors import SessionDBError, WriteOutcome

from .request_queue import Request


@dataclass(slots=True)
class Batch:
    """The requests of one transaction. Used by the writer thread only."""

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

    def fail(self, make: Callable[[str], SessionDBError], outcome: WriteOutcome) -> None:
        """Fail the requests that succeeded so far, each with an error of its own."""
        for request in self.succeeded:
            request.value = None
            request.fail(make(request.op), outcome)
        self.succeeded.clear()


@dataclass(slots=True)
class WriterStats:
    """Counts since the database was opened. Written by the writer thread, read by any."""

    commits: int = 0
    requests: int = 0
    requests_failed: int = 0
    requests_undelivered: int = 0
    rollbacks: int = 0
    outcomes_unknown: int = 0
    busy_waits: int = 0
    busy_timeouts: int = 0
    slow: int = 0
    """Transactions over `limits.slow_ms`."""
    wait_ms_total: float = 0.0
    """How long requests of callers were in the queue before they ran, all together."""
    transaction_ms_total: float = 0.0
    reopened: int = 0
    batch_items_longest: int = 0
    batch_items_last: int = 0
    transaction_ms_last: float = 0.0
    transaction_ms_longest: float = 0.0
    transaction_longest_op: str = ""
    steps: int = 0
    """Transactions of background work. They are counted above too."""
    sign_off_error: str = ""
    """Why the row of this process could not be marked as closed."""
    step_ms_longest: float = 0.0
    step_longest_op: str = ""

    def note_batch(self, batch: Batch, took_ms: float) -> None:
        """Count a batch whose transaction took so long."""
        items = len(batch.finished)
        self.requests += items
        self.transaction_ms_total += took_ms
        if not batch.in_background:  # a step waits by itself, for callers to go first
            self.wait_ms_total += sum(request.waited_ms for request in batch.finished)
        self.batch_items_last = items
        self.batch_items_longest = max(self.batch_items_longest, items)
        self.transaction_ms_last = took_ms
        if took_ms > self.transaction_ms_longest:
            self.transaction_ms_longest, self.transaction_longest_op = took_ms, batch.slowest_op
        if batch.in_background:
            self.steps += 1
            if took_ms > self.step_ms_longest:
                self.step_ms_longest, self.step_longest_op = took_ms, batch.slowest_op
