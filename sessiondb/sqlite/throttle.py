"""When background work may take its next step: import, retention, restore, vacuum, backup.

Background work is cut into steps of a few milliseconds. While no caller writes, one step
follows the other.

While callers of this process are active, background work gets 0.5 % of the writer's time:
a 2 ms step is followed by a 398 ms pause. A caller meets a step when it comes while one
runs, or begins its own write just before one. Of 400 back-to-back 0.7 ms writes, about
three meet a step. The median of the callers does not move, and their 99th percentile is
1.2 times an idle gateway's (docs/benchmarks.md). With 2 % it was more than twice.

A step is never put off for longer than the pause, so the work always ends. Work that has
met callers for minutes gets more: its share doubles every 90 s, up to 8 %. It keeps that
share when it starts again within a minute. Otherwise retention would fall behind for good
on a machine that is slow, or busy all day.

Commits of another process are seen too, but a caller's commit looks like one of
background work, and two imports must not hold each other up. Beside another process the
share is 25 %.

The pause follows from what is known now: when the callers are quiet, a step that was
waiting begins.
"""

from __future__ import annotations

from collections.abc import Callable

from sessiondb.clock import monotonic

# A caller wrote less than this ago: more writes will follow. People write seconds apart,
# the writes of one turn come together.
QUIET_S = 0.25
SHARE_BESIDE_CALLERS = 0.005
SHARE_BESIDE_CALLERS_MAX = 0.08
SHARE_DOUBLES_IN_S = 90.0
# Steps that are further apart than this belong to different pieces of work. Work that
# starts again sooner has not caught up.
STRETCH_GAP_S = 60.0
SHARE_BESIDE_PROCESSES = 0.25
# The longest pause, also after a step on a slow disk or one that waited for another process.
PAUSE_S_MAX = 2.0


class Throttle:
    """Paces the steps. Used by the writer thread.

    `note_caller` may come from any thread: it is one assignment.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._caller_at = -QUIET_S
        self._ended_at = 0.0
        self._took_s = 0.0
        self._beside_processes = False
        self._beside_s = 0.0  # how long the present work has had callers beside it

    @property
    def is_busy(self) -> bool:
        """Whether a caller wrote a moment ago."""
        return self._clock() - self._caller_at < QUIET_S

    def note_caller(self) -> None:
        """Note that a caller asks for a write, now."""
        self._caller_at = self._clock()

    def note_step(self, seconds: float, *, beside_processes: bool) -> None:
        """Note that a step has ended, now.

        `beside_processes`: another process committed since the step before.
        """
        now = self._clock()
        since_s = now - self._ended_at
        if since_s > STRETCH_GAP_S:
            self._beside_s = 0.0
        elif self.is_busy:
            self._beside_s += since_s
        self._ended_at, self._took_s, self._beside_processes = now, seconds, beside_processes

    @property
    def due_in_s(self) -> float:
        """Seconds until the next step may begin. 0 means now."""
        now = self._clock()
        quiet_in_s = self._caller_at + QUIET_S - now
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
