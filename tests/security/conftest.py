"""The database that is attacked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.attacks import fill


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a closed database. Tests copy it, and leave it as it is."""
    path = tmp_path_factory.mktemp("filled") / "gateway.db"
    fill(path)
    return path


@pytest.fixture
def db(filled: Path, tmp_path: Path) -> Path:
    """Return a closed database for one test, in a folder of its own."""
    path = tmp_path / "home" / "gateway.db"
    path.parent.mkdir(mode=0o700)
    shutil.copyfile(filled, path)
    path.chmod(0o600)
    return path
