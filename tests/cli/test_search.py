"""search: what it prints fits a terminal, and its index is built, shown and dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import sync
from tests.support.command_line import fails, ok, run

LONG = "nothing of it is found here, " * 20


@pytest.fixture
def db(tmp_db: Path) -> Path:
    with sync.open(tmp_db) as opened:
        for name in ("one", "two"):
            session = opened.session(f"agent:{name}:web:1")
            session.append({"role": "user", "content": f"{LONG} the red\nlamp\x1b[2J {LONG}"})
            session.append({"role": "assistant", "content": "lamp and lamp: red"})
    return tmp_db


def test_hits_fit_80_columns_and_have_the_words(db: Path) -> None:
    for _ in range(2):
        lines = ok("search", db, "red lamp").splitlines()
        assert len(lines) == 4
        assert max(map(len, lines)) <= 80
        assert all("red lamp" in line and "\x1b" not in line for line in lines[1::2])
        assert len(ok("search", db, "red", "lamp", "--agent", "one").splitlines()) == 4
        assert len(ok("search", db, "red", "lamp", "--role", "user").splitlines()) == 4
        assert len(ok("search", db, "lamp", "--session", "agent:two:web:1").splitlines()) == 4
        found = json.loads(ok("search", db, "lamp", "--since", "1h", "-n", "3", "--json"))
        assert (len(found["hits"]), found["unread"]) == (3, 0)
        assert isinstance(found["next"], int)
        assert "Nothing was found" in run("search", db, "'zebra OR").stderr
        ok("search", db, "--build")


def test_the_index_is_shown_built_and_dropped(db: Path) -> None:
    assert "There is no search index" in ok("search", db)
    assert "has 4 of 4 entries" in ok("search", db, "--build")
    assert json.loads(ok("search", db, "--json"))["behind"] == 0
    assert "has 4 of 4 entries" in ok("search", db, "--rebuild")
    assert "There is no search index" in ok("search", db, "--drop")
    assert "no words" in fails(2, "search", db, "lamp", "--build")
    assert "no word to search for" in fails(1, "search", db, "!")
