from __future__ import annotations

import logging

import pytest

from sessiondb.gateway import outbox, retry, turns
from tests.support.engine import set_clock
from tests.support.gateway import Clock


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Failures are on purpose: they fill no log, and are retried at once."""
    caplog.set_level(logging.CRITICAL, "sessiondb")
    for module in (turns, outbox):
        monkeypatch.setattr(module, "retry_pause_ms", lambda *_: 1)
    monkeypatch.setattr(retry, "BUSY_PAUSE_S", 0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put a clock that a test moves in the place of the writer's."""
    clock = Clock()
    set_clock(monkeypatch, clock)
    return clock
