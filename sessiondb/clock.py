"""The clocks. Which of them are the library's own, and which is the application's.

The library's own are real. Leases, deadlines, waits, pauses and liveness go by them, and so do
ids. A host program may stop or move the clock while its tests run (freezegun, time-machine),
before this module is imported or after. Nothing of this may then stand still, or be over at once.
So these functions ask the kernel for a clock by its number, which those tools leave alone. No
other module reads a clock, makes a random number or draws an id by itself (`tests/test_layers.py`).

The application's clock is what `time.time()` tells the application. A transcript has its times:
those in the text of an entry, when a session was created, changed or last heard a person. A test
with a stopped clock finds them stopped, and may move them by a day.

Nothing is ordered by a wall clock: it may be set back or forward.

A database has a `Clock`, which is the kernel's unless its application's tests brought one
(`open(clock=)`). Rules, turns, leases and loops go by it. What concerns the machine does not: a
busy disk, a lock of another process, a read that takes too long, an id.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol, runtime_checkable

# Linux's wall clock as of the last tick, 1 to 10 ms ago. Python has no name for it.
_REALTIME_COARSE = 5 if sys.platform == "linux" else None
_COARSE_NS_MAX = 50_000_000

# Seeded by the kernel. The module's own generator is the application's, which may seed it.
_random = random.SystemRandom()


class Timer(Protocol):
    """A call that is to be made at its time, once."""

    def cancel(self) -> None:
        """Make it never be made, unless it is made just now. May be repeated."""


@runtime_checkable
class Clock(Protocol):
    """The time of one open database. `sessiondb.testing.ManualClock` is one that tests move.

    Any thread may call.
    """

    def monotonic(self) -> float:
        """Return seconds since some moment. Never less than before."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970: for leases, deadlines and pauses."""

    def stamp_ms(self) -> int:
        """Return milliseconds since 1970: for the times of transcripts."""

    def start(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Make a call after some seconds, on any thread. Infinite: never.

        The call neither waits nor takes long.
        """

    def on_move(self, call: Callable[[], object]) -> Callable[[], None]:
        """Make a call, as of `start`, whenever somebody has moved the clock.

        Return what ends that.
        """


# -- the library's own -------------------------------------------------------------------------


def monotonic() -> float:
    """Return seconds since some moment. Nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def pause(seconds: float) -> None:
    """Block this thread. Not by `time.sleep`, which tests replace by nothing."""
    threading.Event().wait(seconds)


def now_ms() -> int:
    """Return the real wall clock: milliseconds since 1970. For leases, deadlines and pauses.

    time-machine puts its own time in the place of the wall clock, and not in that of the coarse
    one. The two are readings of one clock: where they differ, the coarse one is real. Without
    it (macOS) the answer is time-machine's.
    """
    fine = time.clock_gettime_ns(time.CLOCK_REALTIME)
    if _REALTIME_COARSE is not None:
        coarse = time.clock_gettime_ns(_REALTIME_COARSE)
        if not 0 <= fine - coarse <= _COARSE_NS_MAX:
            return coarse // 1_000_000
    return fine // 1_000_000


def new_uuid() -> str:
    """Return a random id, from the kernel. An application's `uuid.uuid4` may be a test's."""
    return str(uuid.UUID(bytes=os.urandom(16), version=4))


def random_bits(bits: int) -> int:
    """Return a random number of so many bits, from the kernel."""
    return _random.getrandbits(bits)


def random_between(low: float, high: float) -> float:
    """Return a random number, from the kernel. Two processes with one seed still differ."""
    return _random.uniform(low, high)


# -- the application's -------------------------------------------------------------------------


def stamp_ms() -> int:
    """Return the application's wall clock: milliseconds since 1970. For the times of transcripts.

    To be read in the task of the caller. freezegun shows a thread the real time.
    """
    return time.time_ns() // 1_000_000


# -- texts -------------------------------------------------------------------------------------


def iso_from_ms(ms: int) -> str:
    """Return the ISO text that transcripts use: UTC, milliseconds, `Z`."""
    return (
        datetime.fromtimestamp(ms / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def ms_from_iso(text: Any) -> int | None:
    """Return milliseconds since 1970 for an ISO text, or None if it is not one.

    Digits behind the milliseconds are cut off, as by JavaScript, whose programs write these texts.
    """
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
