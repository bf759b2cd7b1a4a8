"""The new database gets its name when it is complete, or leaves no file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import sessiondb
from sessiondb.errors import InvalidInput
from sessiondb.salvage import pipeline, repair
from tests.support.damage import (
    salvaged,
)


def test_a_taken_name_is_refused_and_no_file_is_left(broken: Path, new: Path) -> None:
    new.write_text("mine")
    with pytest.raises(InvalidInput, match="there is a file already"):
        sessiondb.database.salvage(broken, new)
    assert new.read_text() == "mine"
    new.unlink()
    new.with_name(new.name + ".partial").write_text("another run's")
    with pytest.raises(InvalidInput, match="interrupted"):
        sessiondb.database.salvage(broken, new)
    assert sorted(file.name for file in new.parent.iterdir()) == ["broken.db", "new.db.partial"]


def test_a_file_system_without_hard_links_is_refused_first(
    broken: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(pipeline, "run", None)
    with pytest.raises(InvalidInput, match="no hard links; choose another destination"):
        sessiondb.database.salvage(broken, new)
    assert list(new.parent.glob("new*")) == []


def test_a_name_taken_during_a_salvage_is_left_alone(broken: Path, new: Path) -> None:
    def take(_: str) -> None:
        new.write_text("mine")

    with pytest.raises(InvalidInput, match="there is a file already"):
        sessiondb.database.salvage(broken, new, progress=take)
    assert new.read_text() == "mine"
    assert [file.name for file in new.parent.glob("new*")] == ["new.db"]


def test_a_salvage_that_fails_leaves_no_file(
    broken: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(repair, "settle_states", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        salvaged(broken, new)
    assert [file.name for file in new.parent.iterdir()] == ["broken.db"]
