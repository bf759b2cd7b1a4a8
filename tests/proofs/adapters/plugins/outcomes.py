"""A plugin of pytest: writes what became of each test, as JSON, for the program that runs it.

It runs in a framework's environment, beside the framework's own package `tests`. So it imports
nothing of ours.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of a test's set-up, call and tear-down."""
    if report.failed:
        _outcomes[report.nodeid] = "failed"
    elif report.skipped:
        _outcomes.setdefault(report.nodeid, "skipped")
    elif report.when == "call":
        _outcomes.setdefault(report.nodeid, "passed")


def pytest_sessionfinish() -> None:
    """Write them, if somebody asked."""
    if path := os.environ.get("OUTCOMES"):
        Path(path).write_text(json.dumps(_outcomes), encoding="utf-8")
