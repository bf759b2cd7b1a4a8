"""A sound database, a copy to break, and a free name for what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.damage import Truth, copy_of, make


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """Return a sound database and its content."""
    return Truth.of(make(tmp_path_factory.mktemp("sound") / "sound.db"))


@pytest.fixture
def broken(sound: Truth, tmp_path: Path) -> Path:
    """Return a copy to break."""
    return copy_of(sound.path, tmp_path / "broken.db")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Return the name for the new database."""
    return tmp_path / "new.db"
