"""`--watch`: a command again and again, drawn over itself on a terminal, until Ctrl-C.

Nothing waits here: what the pause between two runs does is the test's.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from sessiondb import clock, sync
from sessiondb.cli import program
from sessiondb.cli.program import Command
from tests.support.command_line import fails, run
from tests.support.gateway_commands import accept

OTHER = "agent:main:web:direct:2"
Pauses = Callable[..., list[float]]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Return what lets each pause do one thing, and then presses Ctrl-C."""

    def does(*things: Callable[[], object]) -> list[float]:
        left, asked = list(things), list[float]()

        def pause(seconds: float) -> None:
            asked.append(seconds)
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        monkeypatch.setattr(clock, "pause", pause)
        return asked

    return does


def test_elsewhere_one_run_follows_the_other(tmp_db: Path, pauses: Pauses) -> None:
    accept(tmp_db, "one")
    asked = pauses(lambda: accept(tmp_db, "two", key=OTHER), lambda: None)
    result = run("inbox", tmp_db, "--watch", "2.5")
    assert (result.exit_code, result.stderr) == (130, "")
    assert asked == [2.5] * 3
    runs = result.stdout.split("== ")[1:]
    assert [block.splitlines()[0][-17:] for block in runs] == [" UTC, every 2.5 s"] * 3
    assert ["one" in block for block in runs] == [True] * 3
    assert ["two" in block for block in runs] == [False, True, True]
    assert "\x1b" not in result.stdout


def test_json_documents_follow_one_another(tmp_db: Path, pauses: Pauses) -> None:
    accept(tmp_db, "one")
    pauses(lambda: accept(tmp_db, "two", key=OTHER))
    text = run("inbox", tmp_db, "--json", "--watch", 1).stdout
    counts = []
    while text.strip():
        document, end = json.JSONDecoder().raw_decode(text.lstrip())
        counts.append(len(document))
        text = text.lstrip()[end:]
    assert counts == [1, 2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[list[str], int]:
    """Run a command on a terminal of 10 lines. Return its drawings, and the exit code."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "10")
    with pytest.raises(SystemExit) as ended:
        program.main([str(arg) for arg in args], "sessiondb")
    before, *drawings = screen.getvalue().split("\x1b[H")
    assert before == ""
    return drawings, int(ended.value.code or 0)


def test_a_terminal_is_drawn_anew_and_never_scrolls(
    tmp_db: Path, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(tmp_db, "one")
    pauses(
        lambda: accept(tmp_db, *(f"number {number}" for number in range(30)), key=OTHER),
        lambda: None,
    )
    drawings, code = on_a_terminal(monkeypatch, "inbox", tmp_db, "--watch", 1)
    assert code == 130
    assert len(drawings) == 3
    for drawing in drawings:
        assert drawing.endswith("\x1b[J")
        lines = drawing.removesuffix("\x1b[J").splitlines()
        assert len(lines) <= 9
        assert all(line.endswith("\x1b[K") for line in lines)
        assert max(len(line.removesuffix("\x1b[K")) for line in lines) <= 60
    assert "more lines" not in drawings[0]
    assert "(27 more lines)" in drawings[1]


def test_what_a_command_says_of_nothing_is_drawn_too(
    tmp_db: Path, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sync.open(tmp_db):
        pass
    pauses()
    drawings, _ = on_a_terminal(monkeypatch, "dead", tmp_db, "--watch", 1)
    assert "no dead letters" in drawings[0]


def test_an_error_ends_it_and_leaves_the_last_drawing(
    tmp_db: Path, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(tmp_db, "one")
    pauses(tmp_db.unlink)
    drawings, code = on_a_terminal(monkeypatch, "inbox", tmp_db, "--watch", 1)
    assert code == 4
    assert len(drawings) == 1


def watchable() -> list[Command]:
    found = (program.commands[name] for name in sorted(program.commands))
    return [
        one
        for one in found
        if isinstance(one, Command) and any(param.name == "watch" for param in one.params)
    ]


def test_what_changes_something_is_not_repeated(tmp_db: Path) -> None:
    [number] = accept(tmp_db, "one")
    for name, option in (("inbox", "--withdraw"), ("dead", "--drop"), ("outbox", "--sent")):
        complaint = fails(2, name, tmp_db, option, number, "--watch", 1)
        assert f"{option} asks for" in complaint
    assert "--pause asks" in fails(2, "lanes", tmp_db, "--pause", "main", "--watch", 1)
    with sync.open(tmp_db, readonly=True) as db:
        assert [message.state for message in db.inbox()] == ["queued"]
        assert all(lane.paused_at_ms is None for lane in db.lanes())


def test_every_option_of_a_watched_command_looks_or_is_refused() -> None:
    """A new option that changes something is to be named in `watch_without`."""
    looks = {
        *("agent", "active", "state", "sort", "limit", "checkpoints", "everything", "session"),
        *("check", "counts", "watch", "as_json"),
    }
    names = {one.name for one in watchable()}
    assert names == {
        *("status", "sessions", "compactions", "held", "stuck", "inbox", "dead", "outbox", "lanes"),
    }
    for one in watchable():
        options = {param.name for param in one.params if isinstance(param, click.Option)}
        assert options - looks - {"debug", "help"} == set(one.changing), one.name


@pytest.mark.parametrize("seconds", ["0", "0.4", "nan", "inf", "-1", "often"])
def test_a_time_that_is_none_is_refused(tmp_db: Path, seconds: str) -> None:
    assert "--watch" in fails(2, "status", tmp_db, "--watch", seconds)
