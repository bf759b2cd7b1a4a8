"""`migrate`: what it prints, the report's files, exit codes, and where it refuses to begin."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest

from tests.support.command_line import EVIL, fails, ok, run
from tests.support.openclaw_home import FOREIGN, OTHERS, make_home

SESSIONS = "agents/main/sessions"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def test_the_inventory_names_every_kind_and_makes_no_database(home: Path, tmp_db: Path) -> None:
    shown = ok("migrate", home, tmp_db, "--dry-run")
    assert not tmp_db.exists()
    assert [line.split()[:2] for line in shown.splitlines()[2:5]] == [
        ["index", "2"],
        ["live", "4"],
        ["reset", "1"],
    ]
    for kind, count in OTHERS.items():
        assert f"{count} {kind}" in shown
    assert "7 sources, of which 7 would be imported" in shown


def test_a_home_moves_in_and_the_last_run_says_that_it_is_over(home: Path, tmp_db: Path) -> None:
    assert "7 sources, 5 of them found equal. 18 new entries" in ok("migrate", home, tmp_db)
    again = ok("migrate", home, tmp_db)
    assert "5 of them found equal. 0 new entries" in again
    assert "any more" not in again
    assert "nothing changes there any more" in ok("migrate", home, tmp_db, "--final")


def test_the_report_is_markdown_and_json(home: Path, tmp_db: Path, tmp_path: Path) -> None:
    shown = run("migrate", home, tmp_db, "--report", tmp_path / "moved", "--json")
    assert shown.exit_code == 0
    report = json.loads(shown.stdout)
    assert json.loads((tmp_path / "moved.json").read_text()) == report
    assert report["ok"] is True
    assert report["others"] == OTHERS
    text = (tmp_path / "moved.md").read_text()
    for source in report["sources"]:
        assert source["sha256"] in text
        path = home / source["path"]
        if path.is_file():
            assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    for kind, count in OTHERS.items():
        assert f"- {count} {kind}" in text
    assert stat.S_IMODE((tmp_path / "moved.md").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_one_kind_of_report_is_written_again(home: Path, tmp_db: Path, tmp_path: Path) -> None:
    for _ in range(2):
        ok("migrate", home, tmp_db, "--report", tmp_path / "one.md")
    assert sorted(path.name for path in tmp_path.glob("one.*")) == ["one.md"]


def test_what_is_not_imported_sets_the_exit_code(home: Path, tmp_db: Path, tmp_path: Path) -> None:
    (home / SESSIONS / "claude.jsonl").write_text(FOREIGN)
    for options in ((), ("--dry-run",), ("--final",)):
        result = run("migrate", home, tmp_db, "--report", tmp_path / "r.md", *options)
        assert result.exit_code == 1, result.output
        assert f"{SESSIONS}/claude.jsonl: a transcript of Claude Code" in result.stdout
        assert "not imported: 1 Claude Code" in result.stdout
        assert "## Not imported" in (tmp_path / "r.md").read_text()


def test_one_file_of_a_kind_is_no_plural(home: Path, tmp_db: Path, tmp_path: Path) -> None:
    (home / SESSIONS / "b.trajectory.jsonl").write_text("{}\n")
    for name in ("sessions.json.bak", "sessions.json.bak.1"):
        (home / SESSIONS / name).write_text("{}")
    shown = " ".join(ok("migrate", home, tmp_db, "--report", tmp_path / "r").split())
    told = "2 other files, 2 trajectories, 2 workspace files"
    assert (
        f"1 Codex rollout, 2 copies of an index, 1 cron run log, 1 lock file, 1 log, {told}"
    ) in shown
    assert "- 2 other files\n" in (tmp_path / "r.md").read_text()


def test_damaged_lines_set_the_exit_code(home: Path, tmp_db: Path) -> None:
    with (home / SESSIONS / "a.jsonl").open("a") as file:
        file.write("torn {\n")
    for _ in range(2):
        result = run("migrate", home, tmp_db)
        assert result.exit_code == 1
        assert f"{SESSIONS}/a.jsonl: 1 damaged line" in result.stdout


def test_keys_that_point_at_nothing_are_named(home: Path, tmp_db: Path) -> None:
    index = json.loads((home / SESSIONS / "sessions.json").read_text())
    index |= {f"agent:main:lost{at}": {"sessionId": f"lost{at}"} for at in range(25)}
    (home / SESSIONS / "sessions.json").write_text(json.dumps(index))
    shown = ok("migrate", home, tmp_db)
    assert "agent:main:lost0: not bound: OpenClaw has no transcript lost0.jsonl" in shown
    assert "and 5 more; --report has them" in shown


def test_a_name_by_strangers_is_shown_and_not_obeyed(
    home: Path, tmp_db: Path, tmp_path: Path
) -> None:
    (home / SESSIONS / f"{EVIL}|x.jsonl").write_text(FOREIGN)
    shown = run("migrate", home, tmp_db, "--report", tmp_path / "r").stdout
    assert "\x1b" not in shown + (tmp_path / "r.md").read_text()
    assert "\\|x.jsonl" in (tmp_path / "r.md").read_text()


def test_it_refuses_before_it_begins(home: Path, tmp_db: Path, tmp_path: Path) -> None:
    assert "nothing is written" in fails(2, "migrate", home, tmp_db, "--report", home / "r.md")
    assert "Make it first" in fails(2, "migrate", home, tmp_db, "--report", tmp_path / "no" / "r")
    assert "Choose one" in fails(2, "migrate", home, tmp_db, "--dry-run", "--final")
    assert "no home of OpenClaw" in fails(1, "migrate", home / "agents" / "main", tmp_db)
    assert not (tmp_path / "no").exists()


def test_the_database_may_come_from_the_environment(
    home: Path, tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONDB", str(tmp_db))
    assert "5 of them found equal" in ok("migrate", home)
    assert tmp_db.exists()


def test_a_home_comes_back(home: Path, tmp_db: Path, tmp_path: Path) -> None:
    ok("migrate", home, tmp_db)
    ok("export", tmp_db, tmp_path / "back", "--openclaw")
    rows = json.loads((tmp_path / "back" / SESSIONS / "sessions.json").read_text())
    assert {row["sessionFile"] for row in rows.values()} == {"a.jsonl", "b.jsonl"}
    assert "5 of them found equal. 18 new" in ok("migrate", tmp_path / "back", tmp_path / "2.db")
