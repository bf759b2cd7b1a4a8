"""delete: its output as text and as JSON, its exit codes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import sync
from tests.support.command_line import fails, ok, run

KEYS = ("agent:main:web:guest:1", "agent:main:web:guest:2", "agent:main:web:other")


@pytest.fixture
def db(tmp_db: Path) -> Path:
    with sync.open(tmp_db) as opened:
        for key in KEYS:
            opened.session(key).append({"role": "user", "content": f"hello from {key}"})
    return tmp_db


def test_one_session_is_deleted_and_what_is_left_is_printed(db: Path) -> None:
    result = run("delete", db, "--session", KEYS[0])
    assert result.exit_code == 0
    assert result.stdout.endswith(" is deleted\n")
    assert "1 session deleted" in result.stderr
    assert "Backups and copies" in result.stderr
    assert KEYS[0] not in ok("sessions", db, "--all")
    assert KEYS[1] in ok("sessions", db, "--all")


def test_a_prefix_deletes_all_that_it_reaches(db: Path) -> None:
    report = json.loads(ok("delete", db, "--prefix", "agent:main:web:guest:", "--json"))
    assert (len(report["deleted"]), report["ok"]) == (2, True)
    assert KEYS[2] in ok("sessions", db)
    assert "Nothing was deleted" in fails(3, "delete", db, "--prefix", "agent:main:web:guest:")


def test_what_is_kept_is_a_problem_with_its_reason(db: Path) -> None:
    with sync.open(db) as opened:
        opened.session(KEYS[0]).fork()
    result = run("delete", db, "--session", KEYS[0])
    assert result.exit_code == 1
    assert "is kept: session " in result.stdout


def test_an_archive_is_kept_if_it_is_asked_for(db: Path) -> None:
    assert ok("delete", db, "--session", KEYS[0], "--archive").endswith(" is archived\n")


@pytest.mark.parametrize("options", [(), ("--session", "x", "--prefix", "y")])
def test_neither_and_both_are_refused(db: Path, options: tuple[str, ...]) -> None:
    assert "either --session or --prefix or --namespace" in fails(2, "delete", db, *options)
