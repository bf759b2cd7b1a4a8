"""How many rows one step of background work handles: as many as take a few milliseconds here and now."""

from __future__ import annotations

from dataclasses import dataclass

from .limits import STEP_MS, STEP_ROWS, STEP_ROWS_FIRST, STEP_ROWS_MIN


@dataclass(slots=True)
class Pace:
    """Learns from each step how large the next one may be, so that others wait no longer than that."""

    rows: int = STEP_ROWS_FIRST

    def learn(self, held_ms: float) -> None:
        """Learn from how long a step held the write lock."""
        if held_ms > STEP_MS:
            self.rows = max(STEP_ROWS_MIN, self.rows // 2)
        elif held_ms < STEP_MS / 2:
            self.rows = min(STEP_ROWS, self.rows * 2)
