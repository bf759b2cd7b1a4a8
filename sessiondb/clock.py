"""What time it is, for rows and for people. Nothing is ordered by it: the clock may be set back or forward."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return the wall clock: milliseconds since 1970."""
    return time.time_ns() // 1_000_000
