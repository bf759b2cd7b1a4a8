"""A database without a guard, and the writer's clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import sessiondb
from tests.support.compaction import Clock
from tests.support.engine import set_clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    set_clock(monkeypatch, lambda: found.now_ms)
    return found


@pytest.fixture
async def db(tmp_db: Path, anyio_backend: str) -> AsyncIterator[sessiondb.SessionDB]:
    async with sessiondb.open(tmp_db, guard=False) as opened:
        yield opened
