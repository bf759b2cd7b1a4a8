"""Timers by a clock that nobody stops: one thread of the process, which calls back when it is time.

An event loop's own timers go by a clock that a test can stop (freezegun). While it stands still
they do not fire. Those that were set before fire at once, and those that are set meanwhile fire
in fifty years. So every wait and every deadline of the library is one of these.

A timer costs what a timer of asyncio costs. Nearly all are cancelled before their time, and the
thread never sees those: `start` leaves a timer in `_new`, and wakes the thread only for one that
is due before everything else.

Locks: none. A signal handler may interrupt `start` on any thread, and wait for another thread
that calls it. `_new` is a deque, of which two ends may be used at once. The heap is the thread's
own. Lost wakeups: `start` puts the timer into `_new` before it reads `_sleeps_until`, and the
thread writes `_sleeps_until` before it looks into `_new`.

Nothing here survives a fork: the child has timers of its own, and those of its parent never fire.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from . import clock
from .clock import monotonic

logger = logging.getLogger("sessiondb")

# The thread is also woken for so many timers that it has not seen, to forget the cancelled ones.
NEW_MAX = 1000


class Timer:
    """A call that is to be made at its time, once."""

    __slots__ = ("_call", "_number", "at")

    def __init__(self, at: float, number: int, call: Callable[[], object]) -> None:
        self.at = at
        self._number = number
        self._call: Callable[[], object] | None = call

    def __lt__(self, other: Timer) -> bool:
        return (self.at, self._number) < (other.at, other._number)

    @property
    def is_cancelled(self) -> bool:
        return self._call is None

    def cancel(self) -> None:
        """Make it never fire, unless it fires just now. May be repeated."""
        self._call = None

    def fire(self) -> None:
        """Call, once. The event loop that the call would wake may have been closed."""
        call, self._call = self._call, None
        if call is None:
            return
        try:
            with suppress(RuntimeError):  # asyncio's "loop is closed", and trio.RunFinishedError
                call()
        except Exception:
            logger.exception("a timer's call failed")


class _Timers:
    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._new: deque[Timer] = deque()
        self._heap: list[Timer] = []
        self._sleeps_until = -math.inf  # of the thread. -inf: it is awake
        self._wakeup: SimpleQueue[None] = SimpleQueue()
        self._thread: dict[str, threading.Thread] = {}

    def start(self, seconds: float, call: Callable[[], object]) -> Timer:
        timer = Timer(monotonic() + seconds, next(self._numbers), call)
        if seconds == math.inf:
            return timer
        self._new.append(timer)
        if not self._thread:
            self._begin()
        if timer.at < self._sleeps_until or len(self._new) > NEW_MAX:
            self._wakeup.put(None)
        return timer

    def _begin(self) -> None:
        thread = threading.Thread(target=self._run, name="sessiondb-timers", daemon=True)
        if self._thread.setdefault("thread", thread) is thread:
            thread.start()

    def _run(self) -> None:
        while True:
            self._sleeps_until = -math.inf
            self._take_new()
            self._fire_due()
            self._sleeps_until = self._heap[0].at if self._heap else math.inf
            if not self._new:
                self._sleep()

    def _take_new(self) -> None:
        while self._new:
            timer = self._new.popleft()
            if not timer.is_cancelled:
                heapq.heappush(self._heap, timer)

    def _fire_due(self) -> None:
        now = monotonic()
        while self._heap and (self._heap[0].at <= now or self._heap[0].is_cancelled):
            heapq.heappop(self._heap).fire()

    def _sleep(self) -> None:
        seconds = self._sleeps_until - monotonic()
        with suppress(Empty):
            self._wakeup.get(timeout=None if seconds == math.inf else max(0.0, seconds))


_timers = _Timers()


def _start_afresh() -> None:
    global _timers  # one per process
    _timers = _Timers()


os.register_at_fork(after_in_child=_start_afresh)


def start(seconds: float, call: Callable[[], object]) -> Timer:
    """Make a call after some seconds, on the thread of the timers. Infinite: never.

    The call must neither wait nor take long. To be called from any thread.
    """
    return _timers.start(seconds, call)


class SystemClock:
    """The clock of a database that was given none: the kernel's, and these timers."""

    def monotonic(self) -> float:
        return clock.monotonic()

    def now_ms(self) -> int:
        return clock.now_ms()

    def stamp_ms(self) -> int:
        return clock.stamp_ms()

    def start(self, seconds: float, call: Callable[[], object]) -> Timer:
        return start(seconds, call)

    def on_move(self, _call: Callable[[], object]) -> Callable[[], None]:
        """Nobody moves it: who waits for a time of it has a timer."""
        return lambda: None


SYSTEM = SystemClock()
