"""When background work may take its next step: import, retention, restore, vacuum and backup.

Such work is cut into steps of a few milliseconds. While nobody else writes, one follows the other. Beside callers of
this process it takes a two-hundredth of the writer's time: after a step of 2 ms it pauses for 398. A caller meets a step
when it comes while one runs, or begins its own write just before one: of writes of 0.7 ms, one after the other without a
gap, 2.7 in 400. Their median does not move, and their 99th percentile is 1.2 times an idle gateway's
(docs/benchmarks.md); at a fiftieth it was more than two. A step is never put off for longer than the pause, so the work
always comes to its end. Work that has been kept waiting like this for minutes gets more, doubled every 90 s up to a
twelfth, and keeps that when it comes again within a minute: otherwise retention would fall behind for good on a machine
that is slow, or busy all day.

Commits of another process are seen too, but nobody can tell its callers from its background work, and two imports must
not hold each other up: beside them it takes a quarter.

The pause follows from what is known now: when the callers have gone, a step that was to wait begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# A caller was here less than this ago: there will be more. People write seconds apart, the writes of one turn come together.
QUIET_S = 0.25
SHARE_BESIDE_CALLERS = 0.005
SHARE_BESIDE_CALLERS_MAX = 0.08
SHARE_DOUBLES_IN_S = 90.0
# Steps that are further apart than this belong to different pieces of work. One that comes again sooner has not caught up.
STRETCH_GAP_S = 60.0
SHARE_BESIDE_PROCESSES = 0.25
# A step on a slow disk, or one that waited for another process, does not stop the work for longer than this.
PAUSE_S_MAX = 2.0


class Throttle:
    """Used by the writer thread, but for `heard`, which is one assignment and may come from any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard_at = -QUIET_S
        self._ended_at = 0.0
        self._took_s = 0.0
        self._beside_processes = False
        self._beside_s = 0.0  # how long the work that is going on has had callers beside it

    @property
    def is_busy(self) -> bool:
        """Whether a caller was here a moment ago."""
        return self._clock() - self._heard_at < QUIET_S

    def heard(self) -> None:
        """A caller asks for a write."""
        self._heard_at = self._clock()

    def took(self, seconds: float, *, beside_processes: bool) -> None:
        """A step has ended; another process committed since the one before, or not."""
        now = self._clock()
        since_s = now - self._ended_at
        if since_s > STRETCH_GAP_S:
            self._beside_s = 0.0
        elif self.is_busy:
            self._beside_s += since_s
        self._ended_at, self._took_s, self._beside_processes = now, seconds, beside_processes

    @property
    def due_in_s(self) -> float:
        """Seconds until the next step may begin; 0 means now."""
        now = self._clock()
        quiet_in_s = self._heard_at + QUIET_S - now
        alone_s = (
            self._pause_s(SHARE_BESIDE_PROCESSES if self._beside_processes else 1.0)
            + self._ended_at
            - now
        )
        if quiet_in_s <= 0:
            return max(0.0, alone_s)
        beside_s = self._pause_s(self._share()) + self._ended_at - now
        return max(0.0, min(beside_s, max(quiet_in_s, alone_s)))

    def _share(self) -> float:
        doubled = int(self._beside_s // SHARE_DOUBLES_IN_S)
        return min(SHARE_BESIDE_CALLERS_MAX, SHARE_BESIDE_CALLERS * 2.0 ** min(doubled, 10))

    def _pause_s(self, share: float) -> float:
        return min(PAUSE_S_MAX, self._took_s * (1 / share - 1))
