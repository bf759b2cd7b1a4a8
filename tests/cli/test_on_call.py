"""The table of `docs/how-to/on-call.md`: each task has one command, whatever the database is like.

`SESSIONDB_ON_CALL` is how many entries the large database has. `make on-call` takes a million.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import click
import pytest

from sessiondb import sync
from sessiondb.cli import program
from sessiondb.cli.program import BUG, PROBLEMS, UNFINISHED
from sessiondb.cli.terminal import cells
from tests import ROOT
from tests.support.command_line import fill
from tests.support.gateway_commands import accept, claim
from tests.support.openclaw_home import make_home

PAGE = ROOT / "docs" / "how-to" / "on-call.md"
ENTRIES = int(os.environ.get("SESSIONDB_ON_CALL", "600"))
ROW = re.compile(r"^\| [^|]+ \| `(sessiondb [^`]+)` \|$", re.MULTILINE)
OF_A_SESSION = {"show", "export", "diff", "undo", "fork"}
"""Commands about one conversation, which an empty database does not have."""


def commands() -> list[list[str]]:
    """Return the commands of the table. One that would never end is left to its own tests."""
    found = [shlex.split(line)[1:] for line in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    assert len(found) > 20
    return [words for words in found if "--watch" not in words and words[0] != "top"]


class Terminal(io.TextIOWrapper):
    """A terminal that keeps what it is sent."""

    def __init__(self) -> None:
        self.got = io.BytesIO()
        super().__init__(self.got, encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True


def on_screen(words: list[str]) -> tuple[int, str, str]:
    """Run a command for a terminal. Return its code, what it printed, and its complaint."""
    screen, complaint = Terminal(), io.StringIO()
    with redirect_stdout(screen), redirect_stderr(complaint), pytest.raises(SystemExit) as ended:
        program.main(words, "sessiondb")
    return int(ended.value.code or 0), screen.got.getvalue().decode(), complaint.getvalue()


def too_wide(shown: str) -> list[str]:
    """Return the lines that a terminal would break. A command is whole, so that it is copied."""
    lines = click.unstyle(shown).splitlines()
    return [line for line in lines if cells(line) > 80 and "sessiondb " not in line]


# -- the databases ---------------------------------------------------------------------


def empty(path: Path) -> None:
    with sync.open(path):
        pass


def large(path: Path) -> None:
    fill(path)
    with sync.open(path, durability="normal") as db:
        left, number = ENTRIES, 0
        while left > 0:
            session = db.session(f"agent:main:web:direct:{number}")
            count = min(left, 200)
            texts = (f"question {number} and {one} " * 5 for one in range(count))
            session.append_many([{"role": "user", "content": text} for text in texts])
            left, number = left - count, number + 1
        db.build_search()


def damaged(path: Path) -> None:
    """Overwrite a page of the entries, and one of an index."""
    fill(path)
    with sync.open(path, readonly=True) as db:
        pages = db.query(
            "SELECT rootpage FROM sqlite_schema WHERE name IN ('entry', 'session_by_id')"
        )
        size = db.query("PRAGMA page_size").rows[0][0]
    with path.open("r+b") as file:
        for (number,) in pages.rows:
            file.seek((number - 1) * size)
            file.write(b"\xa5" * size)


MAY_NOT_END = {("verify", UNFINISHED), ("doctor", PROBLEMS)}
"""The check of a large file may take longer than one read beside a gateway may. Both say so."""

WORLDS = {"empty": empty, "small": fill, "large": large, "damaged": damaged}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with all that the commands name, but for the database."""
    (tmp_path / "backups").mkdir()
    make_home(tmp_path / "openclaw")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    fill(tmp_path / "copy.db")
    return tmp_path


@contextmanager
def running_gateway(path: Path) -> Iterator[None]:
    """Keep the database open for writing, with a turn that runs."""
    accept(path, "are you there?", key="agent:main:web:other")
    with sync.open(path, program="gateway") as db:
        claim(db)
        yield


@pytest.mark.parametrize("world", [*WORLDS, "beside a gateway"])
def test_each_task_has_one_command(folder: Path, world: str) -> None:
    beside = world == "beside a gateway"
    path = folder / "gateway.db"
    WORLDS.get(world, fill)(path)
    ended: dict[str, int] = {}
    with running_gateway(path) if beside else contextlib.nullcontext():
        for words in commands():
            code, shown, complaint = on_screen(words)
            said = f"{words}: {code}\n{shown}{complaint}"
            unfinished = world == "large" and "was not finished" in " ".join(shown.split())
            ended[words[0]] = 0 if unfinished and (words[0], code) in MAY_NOT_END else code
            assert code != BUG, said
            assert shown.strip() or complaint.strip(), said
            assert "--json" in words or too_wide(shown) == [], said
            assert "Traceback" not in shown + complaint
            assert "\x1b" not in click.unstyle(shown)
    wrong = {name: code for name, code in ended.items() if code}
    if world == "empty":
        assert wrong == dict.fromkeys(OF_A_SESSION, 3)
    elif world == "damaged":
        assert {"doctor", "verify"} <= wrong.keys()
    elif beside:
        # On a slow machine the turn's lease passes meanwhile, and both say so.
        assert wrong.items() <= {("stuck", 1), ("doctor", 1)}
    else:
        assert wrong == {}
