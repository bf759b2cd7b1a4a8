"""Every view over the populated world, compared with what the tables say, row by row.

A view that joins the wrong rows shows each row many times, and one that filters too little
shows rows of others: the world has two of everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sessiondb.clock import iso_from_ms
from sessiondb.transcript import context
from tests.support.statement_cases import Given, set_columns
from tests.support.world import Recorder, Row, World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def seen(w: World, view: str, *columns: str) -> list[tuple[Any, ...]]:
    rows = w.connection.execute(f"SELECT {', '.join(columns)} FROM {view}").fetchall()
    return sorted(rows, key=repr)


def told(
    w: World,
    table: str,
    tell: Callable[[Row], tuple[Any, ...]],
    holds: Callable[[Row], bool] = lambda _: True,
) -> list[tuple[Any, ...]]:
    return sorted((tell(row) for _, row in w.rows(table) if holds(row)), key=repr)


def session_id(w: World, row: Row) -> str | None:
    number = row["session_no"]
    return None if number is None else w.before.name("session", number)


def owner(w: World, row: Row) -> tuple[str | None, str | None, str | None]:
    """Return the process of a row, as the views name it, its program, and since when it drains."""
    if row["instance_no"] is None:
        return None, None, None
    found = w.before.row("instance", (row["instance_no"],))
    assert found is not None
    return f"{found['pid']}@{found['host']}", found["program"], at(found["draining_at_ms"])


def at(value: int | None) -> str | None:
    return None if value is None else iso_from_ms(value)


def entry_id(w: World, number: int | None) -> Any:
    row = None if number is None else w.before.row("entry", (number,))
    return row and row["entry_id"]


def test_held_shows_who_holds_what(world: World) -> None:
    w = world
    expected = [
        *told(
            w,
            "turn",
            lambda row: ("turn", session_id(w, row), row["turn_no"], *owner(w, row)),
            lambda row: row["state"] == "running",
        ),
        *told(
            w,
            "compaction",
            lambda row: ("compaction", session_id(w, row), row["compaction_no"], *owner(w, row)),
            lambda row: row["state"] == "running",
        ),
        *told(
            w,
            "outbox",
            lambda row: ("reply", session_id(w, row), row["outbox_no"], *owner(w, row)),
            lambda row: row["state"] == "sending",
        ),
    ]
    columns = ("what", "session_id", "number", "owner", "program", "draining_since")
    found = seen(w, "held", *columns)
    assert {row[-1] is None for row in found} == {True, False}
    assert found == sorted(expected, key=repr)


def test_a_session_is_shown_with_its_own_keys_jobs_and_parent(world: World) -> None:
    def tell(row: Row) -> tuple[Any, ...]:
        no = row["session_no"]
        keys = [key["session_key"] for _, key in world.rows("binding") if key["session_no"] == no]
        jobs = [
            job
            for _, job in world.rows("compaction")
            if job["session_no"] == no and job["state"] == "committed"
        ]
        state = "live" if row["ended_at_ms"] is None else "ended"
        parent = row["forked_from_no"]
        return (
            row["session_id"],
            ", ".join(sorted(keys)) or None,
            "archived" if row["archived_at_ms"] is not None else state,
            len(jobs),
            "counted" if row["tokens_fresh"] else "estimated",
            None if parent is None else world.before.name("session", parent),
        )

    columns = ("session_id", "session_keys", "state", "compactions", "tokens_are", "forked_from")
    assert seen(world, "session_overview", *columns) == told(world, "session", tell)


def test_every_entry_is_shown_with_its_own_parent(world: World) -> None:
    expected = told(
        world,
        "entry",
        lambda row: (
            world.before.name("session", row["entry_no"] >> 32),
            row["entry_no"] & 0xFFFFFFFF,
            row["entry_id"],
            entry_id(world, row["parent_no"]),
        ),
    )
    assert seen(world, "transcript", "session_id", "seq", "entry_id", "parent_id") == expected


PARTS = [
    {"type": "text", "text": "a"},
    {"type": "toolCall", "name": "ls", "arguments": {"p": 1}},
    {"type": "toolCall", "name": "pwd"},
    {"type": "image"},
    {"no": "type"},
    "no object",
]


# As OpenAI's two formats and Anthropic's have them.
BLOCKS = [
    {"type": "input_text", "text": "a"},
    {"type": "output_text", "text": "b"},
    {"type": "tool_use", "name": "ls", "input": {"p": 1}},
    {"type": "tool_use", "name": "pwd"},
]
CALLS = [
    {"function": {"name": "ls", "arguments": "{}"}},
    {"custom": {"name": "sh", "input": "pwd"}},
    {"id": "neither"},
    "no object",
]


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"message": {"content": "plain"}}, "plain"),
        ({"message": {"content": BLOCKS}}, 'a\nb\n[call ls {"p":1}]\n[call pwd ]'),
        (
            {"message": {"content": None, "tool_calls": CALLS}},
            "[call ls {}]\n[call sh pwd]\n[call ? ]",
        ),
        ({"message": {"output": "o"}, "content": "c"}, "o"),
        ({"message": {"command": "ls", "output": "o"}}, "ls"),
        ({"message": {"content": PARTS}}, 'a\n[call ls {"p":1}]\n[call pwd ]\n[image]\n[?]'),
        ({"summary": "s", "content": "c", "name": "n"}, "s"),
        ({"message": {"command": "ls"}, "content": "c", "name": "n"}, "ls"),
        ({"content": "c", "name": "n"}, "c"),
        ({"name": "n"}, "n"),
        ({"other": 1}, None),
    ],
)
def test_the_text_of_an_entry_is_what_was_said(
    world: World, payload: dict[str, Any], text: str | None
) -> None:
    number = world.no("entry live/1")
    with world.undone():
        world.connection.execute(
            "UPDATE entry SET payload = ? WHERE entry_no = ?",
            (json.dumps(payload, separators=(",", ":")), number),
        )
        found = world.connection.execute(
            "SELECT text FROM transcript WHERE entry_no = ?", (number,)
        ).fetchall()
    assert found == [(text,)]


@pytest.mark.parametrize(
    ("role", "message", "text"),
    [
        (
            "assistant",
            {"type": "function_call", "name": "ls", "arguments": "{}"},
            "[function_call ls {}]",
        ),
        ("assistant", {"type": "reasoning"}, "[reasoning]"),
        ("assistant", {"type": 7, "output": "o"}, "o"),
        ("toolResult", {"type": "function_call_output", "output": "o"}, "o"),
    ],
)
def test_an_item_without_content_is_named_if_the_model_wrote_it(
    world: World, role: str, message: dict[str, Any], text: str
) -> None:
    with world.undone() as tx:
        payload = json.dumps({"message": message})
        set_columns("entry live/1", role=role, payload=payload)(world, tx)
        found = world.connection.execute(
            "SELECT text FROM transcript WHERE entry_no = ?", (world.no("entry live/1"),)
        ).fetchall()
    assert found == [(text,)]


@pytest.mark.parametrize(
    ("formats", "shown"),
    [
        (1, "pi"),
        (2, "openai-chat"),
        (4, "openai-responses"),
        (8, "anthropic"),
        (3, None),
        (15, None),
    ],
)
def test_the_format_of_a_session_is_shown_once_it_is_decided(
    world: World, formats: int, shown: str | None
) -> None:
    with world.undone() as tx:
        set_columns("session twin", formats=formats)(world, tx)
        found = dict(seen(world, "session_overview", "session_id", "format"))
    assert found["twin"] == shown
    assert len(found) == len(list(world.rows("session")))


def test_each_sessions_live_context_is_its_own(world: World) -> None:
    lengths = {}
    with world.undone() as tx:
        for _, row in world.rows("session"):
            if row["archived_at_ms"] is None:
                read = context.read_context(tx, row["session_no"])
                lengths[row["session_id"]] = len(read.included)
    found = dict(
        world.connection.execute(
            "SELECT session_id, count(*) FROM live_context GROUP BY session_id"
        ).fetchall()
    )
    # Of an archive that is being deleted, the view shows the rows that are left.
    found = {name: length for name, length in found.items() if name in lengths}
    assert found == {name: length for name, length in lengths.items() if length}
    assert len(found) > 20


def keep_where_the_branch_left(w: World, tx: Recorder) -> None:
    """Let a compaction keep entries from exactly the one at which its branch left its parent."""
    summary = w.row("entry twin/10")
    copied = {name: summary[name] for name in ("type", "role", "projection", "payload")}
    set_columns("entry twin/18", **copied, first_kept_no="entry twin/11")(w, tx)
    set_columns("session twin", boundary_no="entry twin/18", first_kept_no="entry twin/11")(w, tx)


def mix_branches(w: World, tx: Recorder) -> None:
    """Let a message of another branch lie between two of the path."""
    set_columns("session twin", head_no="entry twin/15", branch_no="branch twin/1")(w, tx)
    set_columns("entry twin/11", branch_no="branch twin/14")(w, tx)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(keep_where_the_branch_left, [18, 11, 17]), (mix_branches, [10, 9, 13, 15])],
)
def test_a_live_context_is_what_the_model_would_be_sent(
    world: World, given: Given, expected: list[int]
) -> None:
    with world.undone() as tx:
        given(world, tx)
        read = context.read_context(tx, world.no("session twin"))
        shown = world.connection.execute(
            "SELECT entry_id FROM live_context WHERE session_id = 'twin' ORDER BY place"
        ).fetchall()
    assert shown == [(world.row(f"entry twin/{seq}")["entry_id"],) for seq in expected]
    assert len(read.included) == len(expected)


def test_logs_of_jobs_and_epochs_name_what_is_theirs(world: World) -> None:
    w = world
    columns = ("compaction_id", "session_id", "state", "owner", "begun_at", "finished_at")
    assert seen(w, "compaction_log", *columns) == told(
        w,
        "compaction",
        lambda row: (
            row["compaction_id"],
            session_id(w, row),
            row["state"],
            owner(w, row)[0],
            at(row["begun_at_ms"]),
            at(row["finished_at_ms"]),
        ),
    )
    columns = ("session_id", "epoch", "boundary_id", "first_kept_id", "closed_head_id")
    assert seen(w, "epoch_log", *columns) == told(
        w,
        "epoch",
        lambda row: (
            session_id(w, row),
            row["epoch"],
            entry_id(w, row["boundary_no"]),
            entry_id(w, row["first_kept_no"]),
            entry_id(w, row["closed_head_no"]),
        ),
    )


def test_the_gateways_views_name_the_sessions_of_their_rows(world: World) -> None:
    w = world
    for view, table, number, hidden in (
        ("inbox_open", "inbox", "inbox_no", "done"),
        ("outbox_open", "outbox", "outbox_no", "sent"),
    ):
        assert seen(w, view, number, "session_id", "state") == told(
            w,
            table,
            lambda row, number=number: (row[number], session_id(w, row), row["state"]),
            lambda row, hidden=hidden: row["state"] != hidden,
        )
    assert seen(w, "turn_log", "turn_no", "session_id", "owner", "finished_at") == told(
        w,
        "turn",
        lambda row: (
            row["turn_no"],
            session_id(w, row),
            owner(w, row)[0],
            at(row["finished_at_ms"]),
        ),
    )
    assert seen(w, "event_log", "event_no", "session_id", "at") == told(
        w, "event", lambda row: (row["event_no"], session_id(w, row), at(row["at_ms"]))
    )


def test_views_of_files_and_archives_name_what_is_theirs(world: World) -> None:
    w = world
    assert seen(w, "import_log", "path", "session_id", "state") == told(
        w, "import_file", lambda row: (row["path"], session_id(w, row), row["state"])
    )
    paths = {row["import_file_no"]: row["path"] for _, row in w.rows("import_file")}
    assert seen(w, "quarantined", "path", "line", "bytes") == told(
        w,
        "quarantine",
        lambda row: (paths[row["import_file_no"]], row["line"], len(row["content"])),
        lambda row: row["severity"] == "damaged",
    )
    assert seen(w, "archive_log", "session_id", "state", "rows", "finished_at") == told(
        w,
        "archive",
        lambda row: (session_id(w, row), row["state"], row["rows"], at(row["finished_at_ms"])),
    )
