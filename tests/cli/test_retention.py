"""gc, restore, pin and unpin: their output as text and as JSON, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import sync
from tests.support.command_line import fails, ok, run
from tests.support.maintenance import ALL_TABLES, dump

KEY = "agent:main:web:1"


@pytest.fixture
def db(tmp_db: Path) -> Path:
    """Make a database with two conversations, one of them pinned."""
    with sync.open(tmp_db) as opened:
        for number in (1, 2):
            session = opened.session(f"agent:main:web:{number}")
            session.append({"role": "user", "content": "hello"})
            session.append({"role": "assistant", "content": "hello to you"})
        session.pin()
    return tmp_db


def test_a_dry_run_prints_decisions_and_changes_nothing(db: Path) -> None:
    before = dump(db, *ALL_TABLES)
    result = run("gc", db, "--dry-run", "--max-sessions", 0, "--idle", "0")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["action", "session"]
    assert lines[2].startswith("archive")
    assert lines[2].endswith("it is number 2 by last change (limit 0)")
    assert lines[3].startswith("keep")
    assert lines[3].endswith("it is number 1 by last change (limit 0), but pinned")
    assert "2 sessions: 1 would go, 1 kept" in result.stderr
    assert "nothing was changed" in result.stderr
    assert dump(db, *ALL_TABLES) == before


def test_gc_archives_and_restore_brings_back(db: Path) -> None:
    result = run("gc", db, "--max-sessions", 0, "--idle", "0")
    assert result.exit_code == 0
    assert "1 done, 1 kept" in result.stderr
    with sync.open(db, readonly=True) as opened:
        [archived] = [
            info for info in opened.sessions(with_ended=True) if info.archived_at_ms is not None
        ]
    assert f"sessiondb unarchive DB {archived.session_id}" in fails(
        1, "show", db, archived.session_id
    )
    assert "archived" in ok("sessions", db, "--all")
    assert f"{archived.session_id} is back: 2 entries, reached by {KEY}" in ok(
        "unarchive", db, archived.session_id[:10]
    )
    assert "hello to you" in ok("show", db, KEY)
    assert "is not archived" in fails(1, "unarchive", db, archived.session_id)
    assert "changed within 1 day" in ok("gc", db, "--max-sessions", 0)
    ok("verify", db)


def test_both_speak_json(db: Path) -> None:
    report = json.loads(ok("gc", db, "--max-sessions", 0, "--idle", "0", "--json"))
    assert report["ok"]
    assert [created["outcome"] for created in report["decisions"]] == ["done", "kept"]
    session_id = report["decisions"][0]["session_id"]
    assert json.loads(ok("unarchive", db, session_id, "--json"))["keys_bound"] == [KEY]
    assert json.loads(ok("pin", db, session_id, "--json")) == {
        "session_id": session_id,
        "pinned": True,
    }


def test_restore_names_a_key_that_is_taken(db: Path) -> None:
    session_id = json.loads(ok("gc", db, "--max-sessions", 0, "--idle", "0", "--json"))[
        "decisions"
    ][0]["session_id"]
    ok("append", db, KEY, "--create", stdin=b'{"role": "user", "content": "anew"}\n')
    result = run("unarchive", db, session_id)
    assert f"{KEY} points at another session by now" in result.stderr


def test_without_a_limit_nothing_goes(db: Path) -> None:
    result = run("gc", db)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no limit asks for any session" in result.stderr
    assert ok("gc", db, "--all").count("within every limit") == 2


def test_a_pinned_session_stays_until_it_is_unpinned(db: Path) -> None:
    assert "is pinned" in ok("pin", db, KEY)
    assert "archive" not in ok("gc", db, "--max-sessions", 0, "--idle", "0")
    assert "no longer pinned" in ok("unpin", db, KEY)
    assert "archive" in ok("gc", db, "--max-sessions", 0, "--idle", "0")
    assert "no key is bound" in fails(3, "pin", db, KEY)


def test_a_deleted_session_cannot_be_restored(db: Path) -> None:
    report = json.loads(ok("gc", db, "--max-sessions", 0, "--idle", "0", "--delete", "--json"))
    assert [created["action"] for created in report["decisions"]] == ["delete", "keep"]
    assert "cannot be restored" in fails(3, "unarchive", db, report["decisions"][0]["session_id"])


def test_options_override_limits_of_openclaws_settings(db: Path, tmp_path: Path) -> None:
    file = tmp_path / "openclaw.json"
    file.write_text(
        json.dumps(
            {"session": {"maintenance": {"mode": "warn", "maxEntries": 1, "preserveRecent": False}}}
        )
    )
    result = run("gc", db, "--openclaw", file)
    assert "1 would go" in result.stderr  # mode warn
    assert "no limit" in run("gc", db, "--openclaw", file, "--max-sessions", 2).stderr
    file.write_text(json.dumps({"session": {"maintenance": {"pruneAfter": "30 moons"}}}))
    assert "session.maintenance.pruneAfter" in fails(1, "gc", db, "--openclaw", file)
    file.write_text("{")
    assert "is not JSON" in fails(2, "gc", db, "--openclaw", file)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--max-age", "30 moons"), ("--max-bytes", "10 gallons"), ("--high-water", "2")],
)
def test_an_impossible_option_is_wrong_usage(db: Path, option: str, value: str) -> None:
    assert option in fails(2, "gc", db, option, value)
