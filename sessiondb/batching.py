"""How many rows a step of background work handles.

As many as take a few milliseconds on this machine now, and fit in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .limits import STEP_MS, STEP_ROWS, STEP_ROWS_FIRST, STEP_ROWS_MIN


class _Sized(Protocol):
    """A row with the size of what a step would read."""

    @property
    def bytes(self) -> int: ...


R = TypeVar("R", bound=_Sized)


@dataclass(slots=True)
class BatchSize:
    """The rows of the next step: fewer after a long step, so that no caller waits long."""

    rows: int = STEP_ROWS_FIRST

    def learn(self, held_ms: float) -> None:
        """Halve or double the rows, by how long a step held the write lock."""
        if held_ms > STEP_MS:
            self.rows = max(STEP_ROWS_MIN, self.rows // 2)
        elif held_ms < STEP_MS / 2:
            self.rows = min(STEP_ROWS, self.rows * 2)


def last_fitting(sizes: Sequence[R], bytes_max: int) -> R:
    """Return the last row up to which the `bytes` add up to at most `bytes_max`, or the first."""
    last, total = sizes[0], sizes[0].bytes
    for row in sizes[1:]:
        total += row.bytes
        if total > bytes_max:
            break
        last = row
    return last
