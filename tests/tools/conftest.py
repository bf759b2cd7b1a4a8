"""The tools are scripts in a folder that is no package: their tests import them by name.

Not by pytest's `pythonpath`, because `benchmarks/` has a `measure` of its own.
"""

from __future__ import annotations

import sys

from tests import ROOT

sys.path.insert(0, str(ROOT / "tools"))
