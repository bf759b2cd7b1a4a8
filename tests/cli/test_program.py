"""The group of commands: how errors end, `--debug`, `--help` and `--version`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sessiondb import sync
from sessiondb.cli import program
from sessiondb.errors import (
    CompactionRunning,
    ConstraintFailed,
    InvalidInput,
    InvalidKey,
    NewerSchema,
    NotFound,
    OpenError,
    SessionEnded,
    StoreBusy,
    StoreDamaged,
    StoreFull,
)
from tests.support.command_line import KEY, fails, ok, run


def test_each_failure_has_its_code_and_its_one_line(db: Path, tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("not a database, and long enough to have a header " * 10)
    assert "--help" in fails(2, "show", db)
    assert "nonsense" in fails(2, "nonsense")
    fails(2, "sessions", db, "--nonsense")
    fails(2, "sessions", db, "-n", "0")
    assert "'nobody'" in fails(3, "show", db, "nobody")
    assert "agent:main:nobody" in fails(3, "tail", db, "agent:main:nobody")
    assert "epoch 7" in fails(3, "context", db, KEY, "--epoch", "7")
    for command in (["sessions"], ["show", KEY], ["query", "select 1"], ["status"], ["verify"]):
        assert "no such file" in fails(4, command[0], tmp_path / "none.db", *command[1:])
        assert "not a SQLite file" in fails(4, command[0], tmp_path / "other.db", *command[1:])
    assert list(tmp_path.glob("none*")) == []


def test_a_prefix_that_fits_two_sessions_names_both(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        opened.create_session("same-one")
        opened.create_session("same-two")
    message = fails(3, "show", tmp_db, "same")
    assert "same-one" in message
    assert "same-two" in message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("x"), 3),
        (OpenError("x"), 4),
        (NewerSchema("x", found=9, known=1), 4),
        (StoreDamaged("x"), 4),
        (StoreBusy("x", retry_after_ms=5), 5),
        (StoreFull("x"), 5),
        (CompactionRunning("x", session_id="s", compaction_id="c", retry_after_ms=5), 5),
        (InvalidKey("x", key="k"), 2),
        (InvalidInput("x"), 1),
        (SessionEnded("x", session_id="s"), 1),
        (ConstraintFailed("x"), 1),
        (OSError("x"), 1),
        (ZeroDivisionError("x"), 70),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_every_kind_of_error_has_an_exit_code(
    db: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(sync.SessionDB, "status", fail)
    result = run("status", db)
    assert result.exit_code == code
    assert result.stderr.count("\n") <= 1
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback_in_either_place(db: Path) -> None:
    assert "Traceback" in run("--debug", "show", db, "nobody").stderr
    assert "Traceback" in run("show", db, "nobody", "--debug").stderr


def test_the_message_of_an_error_cannot_drive_the_terminal(db: Path) -> None:
    result = run("show", db, "no\x1b[31mbody")
    assert result.exit_code == 3
    assert "\x1b" not in result.stderr


def test_help_has_the_exit_codes_and_every_command_has_help() -> None:
    text = ok("--help")
    for code in (0, 1, 2, 3, 4, 5, 70, 130, 141):
        assert f" {code}  " in text
    for name in program.commands:
        assert ok(name, "--help").splitlines()[2].strip()
        assert "--json" in ok(name, "--help") or name == "mcp"  # which speaks a protocol of its own
        shown = CliRunner().invoke(program, [name, "--help"], terminal_width=80).stdout
        assert max(map(len, shown.splitlines())) <= 80, name
    names = (
        "import migrate export append sessions show context tail compactions query verify status "
        "events held abort inbox dead outbox resume stuck gc unarchive pin unpin salvage "
        "delete redact backup restore-backup lanes epochs diff undo reset branch fork "
        "metrics doctor search disk top serve follow mcp"
    )
    assert sorted(program.commands) == sorted(names.split())


def test_version_names_all_three() -> None:
    words = ok("--version").split()
    assert words[0] == "sessiondb"
    assert "apsw" in words
    assert "SQLite" in words
