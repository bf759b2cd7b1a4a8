"""An id that a terminal shows is one that every command takes, twins included."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sessiondb import NotFound, sync
from sessiondb.cli.session_ids import session_named
from sessiondb.cli.terminal import cells
from tests.support.command_line import ok, on_terminal

LONG = "0193ab12-3f4c-7a1e-9d53-8a7b6c5d4e3f"
# Twins differ late, or one is the beginning of the other.
TWINS = [LONG, f"{LONG[:-1]}e", f"{LONG}.checkpoint", "0193ab", "ended-0193ab12"]
KEY = "agent:main:discord:channel:1"


@pytest.fixture
def db(tmp_db: Path) -> Path:
    """Make sessions whose ids begin alike, each with waiting and dead messages and replies."""
    with sync.open(tmp_db) as opened:
        for number, session_id in enumerate(TWINS):
            session = opened.create_session(session_id)
            session.append({"role": "user", "content": f"in {session_id}"})
            opened.bind(f"agent:main:web:direct:{number}", session)
            message = {"role": "user", "content": "hello there"}
            opened.accept(
                f"agent:main:web:direct:{number}", message, channel="web", event_id=str(number)
            )
            for text in ("one", "two"):
                session.append({"role": "user", "content": text * 100})
                session.append({"role": "assistant", "content": "yes"})
            with session.compact(keep_recent_tokens=0) as job:
                job.commit(f"a summary of {session_id}")
    return tmp_db


def shown_ids(output: str, title: str = "session") -> list[str]:
    """Return the column of a table with this title."""
    head, rule, *rows = output.splitlines()
    spans = [match.span() for match in re.finditer(r"-+", rule)]
    start, end = next(span for span in spans if head[slice(*span)].strip() == title)
    return [row[start:end].strip() for row in rows]


@pytest.mark.parametrize("columns", [80, 100, 160])
@pytest.mark.parametrize("command", [["sessions"], ["inbox"], ["compactions"]])
def test_a_shown_id_names_its_session(db: Path, command: list[str], columns: int) -> None:
    output, code = on_terminal(command[0], db, *command[1:], columns=columns)
    assert code == 0
    assert max(map(cells, output.splitlines())) <= columns
    found = shown_ids(output)
    assert len(found) == len(TWINS)
    with sync.open(db, readonly=True) as opened:
        assert {session_named(opened, text).id for text in found} == set(TWINS)


def test_a_session_is_named_by_its_id_a_prefix_or_a_key(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        for session_id in ("abc-1", "abc-2", "abd", "abd-longer", "日本", "%", "a_"):
            opened.create_session(session_id)
        bound = opened.session(KEY)
        for text, found in {
            "abc-1": "abc-1",
            "abc-2": "abc-2",
            "abd": "abd",
            "abd-": "abd-longer",
            "日": "日本",
            "%": "%",
            "a_": "a_",
            KEY: bound.id,
            KEY.upper(): bound.id,
            bound.id[:13]: bound.id,
        }.items():
            assert session_named(opened, text).id == found
        with pytest.raises(
            NotFound, match="more than one session id begins with 'abc', such as abc-1 and abc-2"
        ):
            session_named(opened, "abc")
        for text in ("", "nope", "abc-11", "agent:main:nobody", "not:a:key", "a:"):
            with pytest.raises(NotFound):
                session_named(opened, text)


def test_an_id_of_no_twin_stays_short(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        for _ in range(3):
            opened.session(KEY).append({"role": "user", "content": "hello"})
            opened.unbind(KEY)
    narrow, _ = on_terminal("sessions", tmp_db, columns=60)
    assert {len(text) for text in shown_ids(narrow)} == {8}


def test_elsewhere_ids_are_whole(db: Path) -> None:
    assert set(shown_ids(ok("sessions", db))) == set(TWINS)
    assert {info["session_id"] for info in json.loads(ok("sessions", db, "--json"))} == set(TWINS)


def test_compactions_of_one_moment_have_ids_one_can_tell_apart(db: Path) -> None:
    output, _ = on_terminal("compactions", db)
    assert len(set(shown_ids(output, "id"))) == len(TWINS)
