"""The database that most tests of commands read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import fill


@pytest.fixture
def db(tmp_db: Path) -> Path:
    """Return a database with a compacted, an ended and a hostile conversation."""
    fill(tmp_db)
    return tmp_db
