"""The tests, in packages like those of `sessiondb`.

`support/` has shared helpers. `proofs/` has the tests that run long.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""
TESTS = ROOT / "tests"
