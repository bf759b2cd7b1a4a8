"""A sound database of every shape, and a copy of it to break."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio
import pytest

from tests.support.every_shape import fill


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a closed database of every shape. Copy it, and do not change it."""
    path = tmp_path_factory.mktemp("sound") / "gateway.db"
    anyio.run(fill, path)
    return path


@pytest.fixture
def broken(sound: Path, tmp_db: Path) -> Path:
    """Return a copy of the sound database, to break."""
    # Closing the database made its file whole.
    assert not sound.with_name("gateway.db-wal").exists()
    shutil.copy(sound, tmp_db)
    return tmp_db
