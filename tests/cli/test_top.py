"""`top`: what it shows, and that it harms neither a terminal nor a gateway.

Textual's own pilot presses the keys. A test looks when it says so (r), and waits for that look.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from sessiondb import sync
from sessiondb.cli import top, top_look
from sessiondb.errors import InvalidInput
from tests.support.command_line import EVIL, KEY, fails, fill, ok
from tests.support.engine import PATIENCE_S
from tests.support.gateway_commands import accept, claim

NEVER_S = 3_600.0
MARKUP = "[bold]not bold[/bold] [/nothing]"


def test_json_is_one_look_and_needs_no_extra(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_db)
    for name in ("textual", *(name for name in sys.modules if name.startswith("textual."))):
        monkeypatch.setitem(sys.modules, name, None)
    found = json.loads(ok("top", tmp_db, "--json"))
    assert found["status"]["verdict"] == "green"
    keys = {key for one in found["sessions"] for key in one["info"]["keys"]}
    assert {KEY, "agent:main:evil"} <= keys


def test_without_a_terminal_it_is_refused(tmp_db: Path) -> None:
    fill(tmp_db)
    assert "top needs a terminal" in fails(2, "top", tmp_db)


def test_without_textual_the_error_names_the_extra(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_db)
    for name in ("textual", *(name for name in sys.modules if name.startswith("textual."))):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "sessiondb.cli.top_app", raising=False)
    with (
        sync.open(tmp_db, readonly=True) as db,
        pytest.raises(InvalidInput, match=r"pip install 'sessiondb\[tui\]'"),
    ):
        top.run_app(db, str(tmp_db), NEVER_S)


def test_what_is_shown_of_a_session_is_safe_and_short(tmp_db: Path) -> None:
    fill(tmp_db)
    with sync.open(tmp_db, readonly=True) as db:
        evil = db.session("agent:main:evil")
        found = top_look.read_conversation(db, evil.id)
    lines = list(found.lines())
    said = "\n".join(lines)
    assert "\x1b" not in said
    assert "\\x1b[31mred" in said
    assert "-> bash" in said
    assert "line 3" in said
    assert "line 50" not in said
    assert "    ... 96 more lines" in lines


# -- drawn, with textual ---------------------------------------------------------------


async def until(pilot: Any, condition: Callable[[], bool]) -> None:
    """Wait until something is drawn. It stays so: the next look comes when a test asks for it."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await pilot.pause(0.01)


def shown(app: Any, name: str) -> str:
    """Return the text of a part of the present screen."""
    return str(app.screen.query_one(f"#{name}").render())


def cells(app: Any) -> list[list[str]]:
    """Return the rows of the list of sessions."""
    table = app.screen.query_one("#sessions")
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


def test_it_lists_sessions_opens_one_and_goes_back(tmp_db: Path) -> None:
    pytest.importorskip("textual", reason="it is part of the extra tui")
    from sessiondb.cli.top_app import TopApp

    fill(tmp_db)
    accept(tmp_db, f"are you there? {MARKUP} {EVIL}", key="agent:main:web:other")

    async def drive() -> None:
        with (
            sync.open(tmp_db, program="gateway") as gateway,
            sync.open(tmp_db, readonly=True) as db,
        ):
            app = TopApp(db, str(tmp_db), NEVER_S)
            async with app.run_test(size=(120, 40)) as pilot:
                await until(pilot, lambda: "1 waiting" in shown(app, "health"))
                before = cells(app)
                assert {row[0][:14] for row in before} >= {"question 0 que"}
                # What another process does is seen at the next look.
                claim(gateway)
                await pilot.press("r")
                await until(pilot, lambda: "1 running" in shown(app, "health"))
                titles = [row[0] for row in cells(app)]
                row = next(
                    number for number, title in enumerate(titles) if title.startswith("are you")
                )
                assert MARKUP[:20] in titles[row]
                app.screen.query_one("#sessions").move_cursor(row=row)
                await pilot.press("enter")
                await until(pilot, lambda: bool(app.screen.query("#transcript")))
                await until(pilot, lambda: shown(app, "transcript") != "")
                assert "agent:main:web:other" in shown(app, "facts")
                assert "epoch 0, begun by start" in shown(app, "facts")
                said = shown(app, "transcript")
                assert MARKUP in said
                assert "\\x1b[31mred" in said
                assert "\x1b" not in said
                await pilot.press("escape")
                await until(pilot, lambda: bool(app.screen.query("#sessions")))
                assert len(cells(app)) == len(before)
                # The cursor stays on its session.
                assert app.screen.query_one("#sessions").cursor_row == row

    anyio.run(drive)


def test_a_look_that_fails_is_a_line_and_the_next_is_tried(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("textual", reason="it is part of the extra tui")
    from sessiondb.cli import top_app

    fill(tmp_db)

    def refuse(_opened: object) -> None:
        raise InvalidInput(f"the disk is {EVIL} busy")

    async def drive() -> None:
        with sync.open(tmp_db, readonly=True) as db:
            app = top_app.TopApp(db, str(tmp_db), NEVER_S)
            async with app.run_test() as pilot:
                await until(pilot, lambda: bool(cells(app)))
                assert shown(app, "trouble") == ""
                with monkeypatch.context() as patch:
                    patch.setattr(top_app, "look", refuse)
                    await pilot.press("r")
                    await until(pilot, lambda: shown(app, "trouble") != "")
                assert "cannot be read now: the disk is" in shown(app, "trouble")
                assert "\x1b" not in shown(app, "trouble")
                assert cells(app)
                await pilot.press("r")
                await until(pilot, lambda: shown(app, "trouble") == "")

    anyio.run(drive)
