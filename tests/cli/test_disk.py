"""disk: the parts are the whole file, and each says what frees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import sync
from sessiondb.maintenance import disk
from sessiondb.maintenance.disk import Plan
from tests.support.command_line import ok


@pytest.fixture
def db(tmp_db: Path) -> Path:
    with sync.open(tmp_db) as opened:
        for name in ("one", "two"):
            session = opened.session(f"agent:{name}:web:1")
            for _ in range(20):
                session.append({"role": "user", "content": f"lamp of {name} " * 400})
        opened.build_search()
    return tmp_db


def test_the_parts_are_the_whole_file(db: Path) -> None:
    parts = {part["what"]: part for part in json.loads(ok("disk", db, "--json"))["parts"]}
    assert sum(part["bytes"] for part in parts.values()) == db.stat().st_size
    assert parts["messages"]["bytes"] >= 2 * 20 * 400 * len("lamp of one ")
    assert parts["search index"]["frees"].endswith("--drop")
    assert not parts["messages"]["estimated"]
    assert parts["messages"]["bytes"] < 3 * 20 * 400 * len("lamp of one ")
    freed = parts["search index"]["bytes"]
    ok("search", db, "--drop")
    after = {part["what"]: part["bytes"] for part in json.loads(ok("disk", db, "--json"))["parts"]}
    assert after["search index"] < freed
    assert after["messages"] == parts["messages"]["bytes"]


def test_it_fits_80_columns_and_names_commands(db: Path) -> None:
    lines = ok("disk", db).splitlines()
    assert lines[-1].endswith(" in all")
    assert any(line.startswith("messages ") and "--dry-run" in line for line in lines)


def test_estimates_are_marked(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "plan", lambda _tx: Plan(can_count=False, objects=()))
    text = ok("disk", db)
    assert "~" in text
    assert "lacks dbstat" in text
    parts = json.loads(ok("disk", db, "--json"))["parts"]
    assert sum(part["bytes"] for part in parts) == db.stat().st_size
