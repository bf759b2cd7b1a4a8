"""Fixtures for the tests of an application. pytest loads this module, where sessiondb is installed.

`sessiondb_clock` is a clock that stands still until the test moves it. `sessiondb_path` is the path
of a database that does not exist yet. `sessiondb_db` is a database there, open, with that clock.
It is opened and closed without an event loop, so that any plugin for asynchronous tests will do.

Nothing of sessiondb is imported before a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .database import SessionDB
    from .testing import ManualClock


@pytest.fixture
def sessiondb_clock() -> ManualClock:
    """Return a clock that stands still until the test moves it."""
    from .testing import ManualClock

    return ManualClock()


@pytest.fixture
def sessiondb_path(tmp_path: Path) -> Path:
    """Return the path of a database that does not exist yet, in the test's own folder."""
    return tmp_path / "sessiondb.db"


@pytest.fixture
def sessiondb_db(sessiondb_path: Path, sessiondb_clock: ManualClock) -> Iterator[SessionDB]:
    """Return an open database with the clock. It is closed after the test."""
    import sessiondb

    db = sessiondb.open(sessiondb_path, clock=sessiondb_clock).open_now()
    yield db
    db.close_now()
