"""The wall clock, for rows and for people.

Nothing is ordered by it: it may be set back or forward.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any


def now_ms() -> int:
    """Return the wall clock: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def iso_from_ms(ms: int) -> str:
    """Return the ISO text that transcripts use: UTC, milliseconds, `Z`."""
    return (
        datetime.fromtimestamp(ms / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def ms_from_iso(text: Any) -> int | None:
    """Return milliseconds since 1970 for an ISO text, or None if it is not one."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
