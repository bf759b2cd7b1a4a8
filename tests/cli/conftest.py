"""The database that most tests of commands read, and gateways beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import fill
from tests.support.gateway_commands import GatewayStart, gateways


@pytest.fixture
def db(tmp_db: Path) -> Path:
    """Return a database with a compacted, an ended and a hostile conversation."""
    fill(tmp_db)
    return tmp_db


@pytest.fixture
def gateway(tmp_db: Path) -> Iterator[GatewayStart]:
    """Start gateways on `tmp_db`."""
    with gateways(tmp_db) as start:
        yield start
