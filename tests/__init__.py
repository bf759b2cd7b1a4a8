"""The tests, in packages as those of `sessiondb`.

`support/` is what they share, `proofs/` is what runs long.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""
TESTS = ROOT / "tests"
