"""The wall clock of all processes of a soak, which somebody sets again and again.

`everywhere/sitecustomize.py` has the other half.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

EVERYWHERE = Path(__file__).parent / "everywhere"


class SharedClock:
    """A file that every process of the soak adds to the machine's time. Seconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset_s = 0.0

    def step(self, seconds: float, *, within_s: float) -> float:
        """Set the clock, at most so far from the machine's. Return by how much it was set."""
        before = self.offset_s
        self.offset_s = max(-within_s, min(within_s, before + seconds))
        self.write()
        return self.offset_s - before

    def write(self) -> None:
        """Have the file say what the clock is. Eight bytes in one call: never half a number."""
        with self.path.open("r+b" if self.path.exists() else "xb", buffering=0) as file:
            file.write(struct.pack("<d", self.offset_s))

    def now_s(self) -> float:
        return time.time() + self.offset_s
