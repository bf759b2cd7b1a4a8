"""The command `sessions`: a screen that says what each session is about and what it does."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from sessiondb import sync
from sessiondb.cli.terminal import cells
from sessiondb.errors import StoreDamaged
from sessiondb.maintenance import session_list
from sessiondb.maintenance.session_list import FIRST, Choice
from sessiondb.sqlite.schema import schema_text
from sessiondb.sqlite.transaction import WriteTransaction
from tests.support.command_line import KEY, fails, ok, on_terminal, run, session_id
from tests.support.gateway_commands import accept
from tests.support.transfer import transcript, write
from tests.support.world import make_world
from tests.test_costs import counted


def listed(db: Path, *options: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ok("sessions", db, "--json", *options))
    return found


def test_sessions_lists_live_ones_and_with_all_the_ended_too(db: Path) -> None:
    assert KEY in ok("sessions", db)
    assert "ended-one" not in ok("sessions", db)
    assert "ended-one" in ok("sessions", db, "--all")
    assert {info["session_id"] for info in listed(db, "--all")} == {
        session_id(db),
        session_id(db, "agent:main:evil"),
        "ended-one",
    }
    assert len(listed(db, "-n", "1")) == 1
    assert listed(db, "--agent", "nobody") == []


def test_a_session_is_shown_by_its_name_or_its_first_words(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        for number, name in ((1, None), (2, "the invoice")):
            session = opened.session(f"agent:main:web:direct:{number}")
            session.append({"role": "user", "content": f"where is\n  order {number}?"})
            session.append({"role": "assistant", "content": f"on its way, {number}"})
            if name is not None:
                session.append({"type": "session_info", "name": name})
    two, one = listed(tmp_db)
    assert (two["title"], two["last_message"], two["last_role"]) == (
        *("the invoice", "on its way, 2", "assistant"),
    )
    assert (one["title"], one["state"]) == ("where is\n  order 1?", "idle")
    text = ok("sessions", tmp_db)
    assert "where is order 1?" in text
    assert "the invoice" in text
    assert "order 2" not in text


def test_a_key_stands_where_nobody_has_written(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        opened.session("agent:main:web:direct:7").append({"role": "assistant", "content": "hello"})
    (shown,) = listed(tmp_db)
    assert (shown["title"], shown["last_message"]) == (None, "hello")
    lines, _ = on_terminal("sessions", tmp_db, columns=80)
    assert "agent:main:we" in lines


def test_what_a_session_does_is_its_state(tmp_db: Path) -> None:
    accept(tmp_db, "one", "two")
    with sync.open(tmp_db) as opened:
        opened.create_session("quiet").append({"role": "user", "content": "x"})
        opened.create_session("over").end()
    states = {one["session_id"]: one["state"] for one in listed(tmp_db, "--all")}
    assert (states["quiet"], states["over"]) == ("idle", "ended")
    assert sorted(states.values()).count("waiting") >= 1
    waiting = listed(tmp_db, "--state", "waiting")
    assert {one["state"] for one in waiting} == {"waiting"}
    assert [one["session_id"] for one in listed(tmp_db, "--state", "ended")] == ["over"]
    assert listed(tmp_db, "--state", "archived") == []


def test_the_newest_fifty_are_listed_unless_all_are_asked_for(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        for number in range(53):
            opened.create_session(f"s{number:02}")
    assert [one["session_id"] for one in listed(tmp_db)] == [f"s{n:02}" for n in range(52, 2, -1)]
    assert len(listed(tmp_db, "--all")) == len(listed(tmp_db, "-n", "60")) == 53
    assert "The first 50." in ok("sessions", tmp_db)
    for options in (["--all"], ["-n", "50"], ["--agent", "nobody"]):
        assert "The first" not in run("sessions", tmp_db, *options).stdout


def test_other_orders_put_the_largest_first(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        for name, texts in (("many", ["x"] * 5), ("large", ["y" * 4000]), ("new", [])):
            session = opened.create_session(name)
            session.append_many([{"role": "user", "content": text} for text in texts])
        opened.session_by_id("many").append({"role": "user", "content": "last"})
    first = {
        sort: listed(tmp_db, "--sort", sort)[0]["session_id"]
        for sort in ("updated", "created", "entries", "tokens")
    }
    assert first == {"updated": "many", "created": "new", "entries": "many", "tokens": "large"}


def test_active_ones_changed_in_that_time(db: Path) -> None:
    assert len(listed(db, "--active", "1h")) == 2
    with closing(apsw.Connection(str(db))) as other:
        other.execute(
            "UPDATE session SET updated_at_ms = 5 WHERE session_id <> ?", [session_id(db)]
        )
    assert [one["session_id"] for one in listed(db, "--active", "7d")] == [session_id(db)]
    assert len(listed(db, "--all")) == 3
    assert "not a length of time" in fails(2, "sessions", db, "--active", "soon")


def test_a_checkpoint_is_listed_when_asked_for(tmp_path: Path, tmp_db: Path) -> None:
    copy = "live.checkpoint.0b1d3c5e-1111-4222-8333-444455556666"
    write(
        tmp_path / "folder",
        {
            "live.jsonl": transcript(2, "live"),
            f"{copy}.jsonl": transcript(2, "live", "twin"),
            "old.jsonl.reset.2026-01-01T00-00-00.000Z": transcript(2, "old"),
        },
    )
    ok("import", tmp_db, tmp_path / "folder")

    def ids(*options: str) -> set[str]:
        return {one["session_id"] for one in listed(tmp_db, *options)}

    ended = ids("--state", "ended")
    assert copy not in ended
    assert ended
    assert ids("--state", "ended", "--checkpoints") == ended | {copy}
    assert copy in ids("--all")


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_the_table_fits_and_keeps_what_matters(db: Path, columns: int) -> None:
    output, code = on_terminal("sessions", db, "--all", columns=columns)
    assert code == 0
    assert max(map(cells, output.splitlines())) <= columns
    titles = output.splitlines()[0].split()
    assert {"session", "title", "last", "message", "age", "entries", "state"} <= set(titles)
    assert ("key" in titles) == (columns > 80)


def test_a_damaged_entry_hides_no_session(db: Path) -> None:
    with closing(apsw.Connection(str(db))) as other:
        other.execute("UPDATE entry SET payload = CAST(x'7b22ff' AS TEXT) WHERE role IS NOT NULL")
    shown = {one["session_id"]: one for one in listed(db, "--all")}
    assert len(shown) == 3
    assert shown[session_id(db)]["title"].startswith('{"')


@pytest.mark.parametrize(
    ("session", "title"), [("live", "name of live"), ("live-undone", session_list.DAMAGED)]
)
def test_what_cannot_be_read_is_shown_as_damaged(
    monkeypatch: pytest.MonkeyPatch, session: str, title: str
) -> None:
    def fail(*_: object) -> None:
        raise StoreDamaged("a page of the file")

    monkeypatch.setattr(session_list, "_text", fail)
    world = make_world()
    with world.undone() as tx:
        shown = session_list.listed(tx, world.no(f"session {session}"))
    assert (shown.title, shown.last_message) == (title, session_list.DAMAGED)


# -- what it costs -------------------------------------------------------------------------


def many_sessions(rows: int) -> apsw.Connection:
    """Return a database of so many sessions, each of 60 entries of several agents."""
    connection = apsw.Connection(":memory:")
    connection.execute(schema_text()).fetchall()
    connection.execute(
        "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO session (session_no, session_id, agent_id, origin, version, created_at_ms,"
        "   updated_at_ms, last_seq, head_no, branch_no)"
        " SELECT i, 's' || i, 'a' || (i % 2), 'native', 3, i, i, 60, (i << 32) + 60, i FROM n",
        (rows,),
    )
    for session_no in range(rows - 60, rows + 1):
        connection.execute(
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 60)"
            " INSERT INTO entry (entry_no, branch_no, position, type, role, projection,"
            "   appended_at_ms, entry_id, payload)"
            " SELECT (:s << 32) + i, :s, i, 'message', iif(i % 2, 'user', 'assistant'), 1, i,"
            "   'e' || i, '{\"message\":{\"content\":\"' || i || '\"}}' FROM n",
            {"s": session_no},
        )
    return connection


def steps_of_a_page(connection: apsw.Connection, choice: Choice) -> tuple[int, int]:
    """Return the instructions of a first page of fifty, and how many it found."""

    def read() -> int:
        tx = WriteTransaction(connection, 0, 0)
        places = session_list.numbers(tx, choice, FIRST, 50)
        return len(session_list.page(tx, places))

    counted(connection, read)  # prepares the statements
    return counted(connection, read)


def test_a_page_costs_the_same_among_a_hundred_thousand() -> None:
    costs = {}
    for rows in (200, 100_000):
        with closing(many_sessions(rows)) as connection:
            for choice in (
                Choice(),
                Choice(agent_id="a1"),
                Choice(since_ms=1),
                Choice(state="any"),
            ):
                steps, found = steps_of_a_page(connection, choice)
                assert found == 50
                costs[rows, choice] = steps
            ordered, _ = steps_of_a_page(connection, Choice(sort="entries"))
            costs[rows, "ordered"] = ordered
    for (rows, what), steps in costs.items():
        if what != "ordered":
            assert steps <= costs[200, what] * 1.05, (rows, what, steps)
    # Another order reads the row of each session, and no more of it than that.
    assert costs[100_000, "ordered"] - costs[200, "ordered"] < 60 * 100_000
