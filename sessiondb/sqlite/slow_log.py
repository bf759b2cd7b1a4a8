"""The slow-operation log: a line for each caller that waited for long, and what it waited for.

A line names operations and times. It has no key, no id and no text of anybody.

Of a transaction the line names the caller that waited longest until its own body began, the
slowest body of that transaction, and what held the writer before. The last is needed, because
a caller that comes while the writer is held may share the holder's transaction or be in the
next one. Both are legal, and both lines name the holder.

A line is counted before its callers are woken, and written afterwards: a handler of logs may
be slow, and keeps no caller waiting. So a caller may run before its line is in the log. A
closed database has written all of its lines.

Used by the writer thread only, but for `slow_read`, which keeps nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .batch import Batch

slow_log = logging.getLogger("sessiondb.slow")

# A caller waits for the longest of the last few holds. More of them are short ones.
HOLDS_KEPT = 32


@dataclass(frozen=True, slots=True)
class Hold:
    """What had the writer to itself, from when to when by the monotonic clock."""

    op: str
    began: float
    ended: float

    def ms_within(self, since: float, until: float) -> float:
        """Return how many milliseconds of it are between two instants."""
        return max(0.0, min(self.ended, until) - max(self.began, since)) * 1000


class WriterLog:
    """What a writer did lately, and the line of a transaction that came late."""

    def __init__(self, path: str, slow_ms: float | None) -> None:
        self.path = path
        self.slow_ms = slow_ms
        self._holds: deque[Hold] = deque(maxlen=HOLDS_KEPT)

    def note_hold(self, op: str, began: float, ended: float) -> None:
        """Note what held the writer: a transaction, a step, a checkpoint, another process."""
        if self.slow_ms is not None:
            self._holds.append(Hold(op, began, ended))

    def line(self, batch: Batch, ended: float) -> Callable[[], None] | None:
        """Return what logs a transaction in which a caller waited for long. None: it was quick.

        Call it before the transaction itself is noted as a hold.
        """
        if self.slow_ms is None or batch.in_background or not batch.finished:
            return None
        oldest = min(request.enqueued for request in batch.finished)
        if (ended - oldest) * 1000 < self.slow_ms:
            return None
        longest = max(batch.finished, key=lambda request: request.waited_ms)
        held_ms = (ended - batch.began) * 1000
        slowest = batch.slowest_op or longest.op
        before, before_ms = self._longest_hold(longest.enqueued, batch.began)
        text = f" Before it, {before} held the writer for {before_ms:.0f} ms." if before else ""
        return partial(
            slow_log.warning,
            "%s: %s waited %.0f ms for the writer. Its transaction of %d operations held the "
            "writer for %.0f ms, of which %s took %.0f ms.%s",
            self.path,
            longest.op,
            longest.waited_ms,
            len(batch.finished),
            held_ms,
            slowest,
            batch.slowest_ms,
            text,
            extra={
                "operation": longest.op,
                "waited_ms": longest.waited_ms,
                "held_ms": held_ms,
                "slowest_operation": slowest,
                "slowest_ms": batch.slowest_ms,
                "before_operation": before,
                "before_ms": before_ms,
            },
        )

    def _longest_hold(self, since: float, until: float) -> tuple[str | None, float]:
        """Return what held the writer for most of the time between two instants, and how long.

        None: nothing did.
        """
        within = [(hold.ms_within(since, until), hold.op) for hold in self._holds]
        longest_ms, op = max(within, default=(0.0, ""))
        return (op, longest_ms) if longest_ms > 0 else (None, 0.0)


def slow_read(path: str, op: str, waited_ms: float, took_ms: float) -> None:
    """Log a read that took long, its wait for a free reader included."""
    slow_log.warning(
        "%s: %s took %.0f ms to read, after it had waited %.0f ms for a free reader.",
        path,
        op,
        took_ms,
        waited_ms,
        extra={"operation": op, "waited_ms": waited_ms, "took_ms": took_ms},
    )
