"""The folder that is imported repeatedly.

Sample transcripts stay as they are. Files of our own grow.

A file grows by whole lines and sometimes by a torn one, whose other half comes with the
next round, as when a folder is read while its gateway writes. Each round may also add a
file.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.support.engine import CHECKOUT
from tests.support.transfer import header, message

SAMPLES = (
    CHECKOUT / "tests/sample/pi-0.74.2/sessions",
    CHECKOUT / "tests/sample/openclaw-2026.5.18/agents",
)


class GrowingFolder:
    """A folder of transcripts."""

    def __init__(self, folder: Path, seed: int, files_max: int) -> None:
        self.folder, self.files_max = folder, files_max
        self.chance = random.Random(seed)
        self.lines: dict[Path, int] = {}
        self.torn: dict[Path, bytes] = {}
        for sample in SAMPLES:
            shutil.copytree(sample, folder / sample.parent.name / sample.name)

    def grow(self) -> None:
        """Add something to most of the files, and perhaps a file."""
        if len(self.lines) < self.files_max:
            number = len(self.lines)
            path = self.folder / "grown" / f"grown-{number}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes((header(f"grown-{number}") + "\n").encode())
            self.lines[path] = 0
        for path in self.lines:
            if self.chance.random() < 0.7:
                self._grow(path)

    def _grow(self, path: Path) -> None:
        with path.open("ab") as file:
            file.write(self.torn.pop(path, b""))
            for _ in range(self.chance.randint(1, 30)):
                file.write(self._line(path))
            if self.chance.random() < 0.3:
                line = self._line(path)
                cut = self.chance.randrange(1, len(line) - 1)
                file.write(line[:cut])
                self.torn[path] = line[cut:]

    def mend(self) -> None:
        """Complete what is torn: nothing more comes."""
        for path, rest in self.torn.items():
            with path.open("ab") as file:
                file.write(rest)
        self.torn.clear()

    def _line(self, path: Path) -> bytes:
        number = self.lines[path]
        self.lines[path] = number + 1
        text = f"line {number} of {path.name} " + "漢字 🙂 text " * self.chance.randint(1, 20)
        return (message(f"m{number}", f"m{number - 1}" if number else None, text) + "\n").encode()
