"""Every view over the populated world, compared with what the tables say, row by row.

A view that joins the wrong rows shows each row many times, and one that filters too little
shows rows of others: the world has two of everything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sessiondb.clock import iso_from_ms
from sessiondb.transcript import context, registry
from sessiondb.transcript.keys import parse_key
from tests.support.statement_cases import Given, set_columns, without
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
    assert seen(w, "quarantine_log", "path", "line", "bytes") == told(
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


# -- conversations, messages, usage --------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "address"),
    [
        ("main", (None, None, None, None)),
        ("main:heartbeat", (None, None, "heartbeat", None)),
        ("plain", (None, None, None, None)),
        ("web:42", ("web", None, "42", None)),
        ("web:direct:42", ("web", None, "42", None)),
        ("web:direct:4:2", ("web", None, "4:2", None)),
        ("web:direct:42:thread:7", ("web", None, "42", "7")),
        ("web:direct:42:thread:7:8", ("web", None, "42", "7:8")),
        ("telegram:bot1:group:-100", ("telegram", "bot1", "-100", None)),
        ("slack:channel:c1:thread:1.5", ("slack", None, "c1", "1.5")),
        ("matrix:acct:room:!x:host", ("matrix", "acct", "!x:host", None)),
        ("direct:42", (None, None, "42", None)),
        ("cron:nightly", (None, None, "nightly", None)),
        ("subagent:a:b", (None, None, "a:b", None)),
        ("hook:h1", (None, None, "h1", None)),
        ("acp:a1", (None, None, "a1", None)),
        ("explicit:e1", (None, None, "e1", None)),
        ("global", (None, None, None, None)),
        ("unknown", (None, None, None, None)),
        ("global:42", (None, None, "42", None)),
        ("unknown:42", (None, None, "42", None)),
        ("dm:42", (None, None, "42", None)),
        ("group:42", (None, None, "42", None)),
        ("channel:42", (None, None, "42", None)),
        ("room:42", (None, None, "42", None)),
        ("web:dm:42", ("web", None, "42", None)),
        ("web:group:42", ("web", None, "42", None)),
        ("web:channel:42", ("web", None, "42", None)),
        ("web:room:42", ("web", None, "42", None)),
        ("web:acct:direct:42", ("web", "acct", "42", None)),
        ("web:acct:dm:42", ("web", "acct", "42", None)),
        ("web:acct:channel:42", ("web", "acct", "42", None)),
        ("main:thread:9", (None, None, None, "9")),
        ("web:thread:9", ("web", None, None, "9")),
        ("web:thread", ("web", None, "thread", None)),
        ('web:direct:it\'s "100\\%"', ("web", None, 'it\'s "100\\%"', None)),
    ],
)
def test_a_conversation_shows_the_parts_of_its_key(
    world: World, rest: str, address: tuple[str | None, ...]
) -> None:
    key = parse_key(f"agent:west:{rest}")
    with world.undone() as tx:
        registry.bind(tx, key, world.no("session twin"))
        found = world.connection.execute(
            "SELECT session_id, agent_id, kind, channel, account, peer, thread"
            " FROM conversation WHERE session_key = ?",
            (key.text,),
        ).fetchall()
    assert found == [("twin", "west", key.kind, *address)]


def test_a_conversation_is_one_row_for_each_key(world: World) -> None:
    def state(row: Row) -> str:
        session = world.before.row("session", (row["session_no"],))
        assert session is not None
        if session["archived_at_ms"] is not None:
            return "archived"
        return "live" if session["ended_at_ms"] is None else "ended"

    found = seen(world, "conversation", "session_key", "session_id", "state")
    assert found == told(
        world, "binding", lambda row: (row["session_key"], session_id(world, row), state(row))
    )
    assert {row[-1] for row in found} >= {"live", "ended"}


def test_a_key_outside_the_grammar_has_a_row(world: World) -> None:
    with world.undone():
        for label, odd in (("web:live", ":"), ("web:twin", ""), ("telegram:live", "agent::")):
            world.connection.execute(
                "UPDATE binding SET session_key = ? WHERE session_key = ?",
                (odd, f"agent:main:{label}"),
            )
        found = seen(world, "conversation", "session_key", "channel", "peer")
    assert {("", None, None), (":", None, None), ("agent::", None, None)} <= set(found)


ORDER = ("failed", "unknown", "pending", "sending", "sent")


def message_row(w: World, row: Row) -> tuple[Any, ...]:
    """Return what `message_log` says of a message, by the tables."""
    other = w.before.row("inbox", (row["superseded_by"],)) if row["superseded_by"] else None
    turn_no = (other or row)["turn_no"]
    turn = w.before.row("turn", (turn_no,)) if turn_no is not None else None
    replies = [
        reply
        for _, reply in w.rows("outbox")
        if turn_no is not None and reply["turn_no"] == turn_no
    ]
    states = sorted((reply["state"] for reply in replies), key=ORDER.index)
    are_sent = bool(replies) and set(states) == {"sent"}
    return (
        row["inbox_no"],
        session_id(w, row),
        row["event_id"],
        row["lane_before"] or row["lane"],
        at(row["accepted_at_ms"]),
        turn and at(turn["started_at_ms"]),
        turn and at(turn["finished_at_ms"]),
        at(max(reply["finished_at_ms"] for reply in replies)) if are_sent else None,
        turn and turn["state"],
        len(replies),
        row["reason"] or (turn and turn["reason"]) or first_reason(replies),
        states[0] if states else None,
    )


def first_reason(replies: Sequence[Row]) -> str | None:
    """Return the reason of the reply that needs a person most."""
    ordered = sorted(replies, key=lambda reply: ORDER.index(reply["state"]))
    return ordered[0]["reason"] if ordered else None


MESSAGE = (
    *("inbox_no", "session_id", "event_id", "lane", "accepted_at", "started_at", "finished_at"),
    *("sent_at", "turn_state", "replies", "reason", "reply_state"),
)


def test_a_message_is_one_row_from_accepted_to_sent(world: World) -> None:
    found = seen(world, "message_log", *MESSAGE)
    assert found == told(world, "inbox", lambda row: message_row(world, row))
    assert {row[-1] for row in found} == {None, *ORDER}
    assert sum(row[7] is not None for row in found) >= 2
    assert len({row[3] for row in found}) >= 4


def test_a_superseded_message_has_the_times_of_its_answer(world: World) -> None:
    with world.undone() as tx:
        set_columns("inbox cut", superseded_by=world.no("inbox m-sent"), told_no=0, state="done")(
            world, tx
        )
        found = {row[2]: row for row in seen(world, "message_log", *MESSAGE)}
    cut, answered = found["cut"], found["m-sent"]
    assert cut[5:10] == answered[5:10]
    assert cut[:5] != answered[:5]
    assert cut[7] is not None


def test_a_reply_that_waits_keeps_its_message_unsent(world: World) -> None:
    with world.undone() as tx:
        set_columns("outbox web:behind", state="sent", finished_at_ms=1)(world, tx)
        found = {row[2]: row for row in seen(world, "message_log", *MESSAGE)}
    assert found["m-reply-sending"][7] is None


def test_a_turn_is_shown_with_its_message(world: World) -> None:
    def tell(row: Row) -> tuple[Any, ...]:
        message = world.before.row("inbox", (row["inbox_no"],)) or {}
        return row["turn_no"], row["inbox_no"], message.get("channel"), message.get("event_id")

    with world.undone() as tx:
        columns = ("turn_no", "inbox_no", "channel", "event_id")
        assert seen(world, "turn_log", *columns) == told(world, "turn", tell)
        without("inbox")(world, tx)
        pruned = seen(world, "turn_log", *columns)
    assert len(pruned) == len(told(world, "turn", tell))
    assert {row[2:] for row in pruned} == {(None, None)}


COUNTS = ("input", "cacheRead", "output", "totalTokens", "cost")


def usage_of(world: World, message: object, role: str = "assistant") -> list[tuple[Any, ...]]:
    """Return the row of one reply that says this, as `usage_log` shows it."""
    with world.undone() as tx:
        payload = json.dumps({"message": message}, separators=(",", ":"))
        set_columns("entry live/1", role=role, payload=payload)(world, tx)
        return world.connection.execute(
            "SELECT provider, model, tokens_in, tokens_cached, tokens_out, tokens_total, cost"
            " FROM usage_log WHERE session_id = 'live' AND entry_id = ?",
            (world.row("entry live/1")["entry_id"],),
        ).fetchall()


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        pytest.param(
            {
                "input": 100,
                "output": 20,
                "cacheRead": 60,
                "cacheWrite": 5,
                "totalTokens": 185,
                "cost": {"input": 1, "total": 0.25},
            },
            (165, 60, 20, 185, 0.25),
            id="pi",
        ),
        pytest.param(
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_tokens_details": {"cached_tokens": 60},
            },
            (100, 60, 20, 120, None),
            id="openai-chat",
        ),
        pytest.param(
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "total_tokens": 120,
                "input_tokens_details": {"cached_tokens": 60},
            },
            (100, 60, 20, 120, None),
            id="openai-responses",
        ),
        pytest.param(
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 5,
            },
            (165, 60, 20, None, None),
            id="anthropic",
        ),
        pytest.param({"totalTokens": 7}, (None, None, None, 7, None), id="only a sum"),
        pytest.param({"input": 1, "cost": 2.5}, (1, None, None, None, 2.5), id="a plain cost"),
        pytest.param({"input": -1, "output": "9"}, (None,) * 5, id="no counts"),
        *(
            pytest.param(dict.fromkeys(COUNTS, value), counted, id=f"all are {value!r}")
            for value, counted in (
                (0, (0, 0, 0, 0, 0)),
                (1.5, (3, 1, 1, 1, 1.5)),
                (10**12, (10**12,) * 5),
                (10**12 + 1, (None,) * 5),
                (-1, (None,) * 5),
                (True, (None,) * 5),
            )
        ),
        pytest.param(
            {
                "cacheRead": 9,
                "details": {"cached_tokens": 1},
                "output": 2,
                "completion_tokens": 8,
                "totalTokens": 7,
                "total_tokens": 3,
            },
            (9, 9, 8, 7, None),
            id="under two names",
        ),
        pytest.param({"input": 1e300, "cost": [1]}, (None,) * 5, id="too much"),
        pytest.param({}, (None,) * 5, id="nothing"),
    ],
)
def test_usage_is_what_the_provider_counted(
    world: World, usage: dict[str, Any], counted: tuple[Any, ...]
) -> None:
    message = {"role": "assistant", "provider": "p", "model": "m", "usage": usage}
    assert usage_of(world, message) == [("p", "m", *counted)]
    nameless = {"role": "assistant", "provider": 1, "model": ["m"], "usage": usage}
    assert usage_of(world, nameless) == [(None, None, *counted)]


@pytest.mark.parametrize("message", [{"usage": 7}, {"usage": None}, {}, [], "usage", None])
def test_a_reply_without_usage_has_no_row(world: World, message: object) -> None:
    assert usage_of(world, message) == []


def test_the_last_number_of_a_session_is_its_own(world: World) -> None:
    number = world.no("session live") << 32 | 0xFFFFFFFF
    with world.undone() as tx:
        payload = '{"message":{"usage":{"input":1}}}'
        set_columns("entry live/18", role="assistant", entry_no=number, payload=payload)(world, tx)
        for view in ("transcript", "usage_log"):
            found = world.connection.execute(
                f"SELECT session_id FROM {view} WHERE entry_id = ?",  # from above
                (world.row("entry live/18")["entry_id"],),
            )
            assert found.fetchall() == [("live",)], view


def test_what_no_model_wrote_has_no_usage(world: World) -> None:
    assert usage_of(world, {"usage": {"input": 1}}, role="user") == []
    assert len(usage_of(world, {"usage": {"input": 1}})) == 1


# -- paths, lanes, processes, sizes ----------------------------------------------------------


def test_what_is_on_the_path_are_the_parents_of_the_head(world: World) -> None:
    expected = []
    for _, row in world.rows("session"):
        at_no = row["head_no"]
        while row["archived_at_ms"] is None and at_no is not None:
            entry = world.before.row("entry", (at_no,))
            assert entry is not None
            if at_no >> 32 == row["session_no"]:
                expected.append((row["session_id"], at_no & 0xFFFFFFFF))
            at_no = entry["parent_no"]
    found = world.connection.execute(
        "SELECT t.session_id, t.seq FROM transcript AS t JOIN session AS s"
        " ON s.session_id = t.session_id WHERE t.on_path AND s.archived_at_ms IS NULL"
    ).fetchall()
    assert sorted(found) == sorted(expected)
    beside = world.connection.execute(
        "SELECT count(*) FROM transcript WHERE NOT on_path AND type = 'message'"
    ).fetchall()
    assert beside[0][0] > 2


def test_a_circle_of_branches_ends(world: World) -> None:
    """A damaged file: a branch that leaves itself."""
    with world.undone() as tx:
        for label in ("branch twin/1", "branch twin/17"):
            set_columns(label, parent_branch_no="branch twin/17", fork_no="entry twin/18")(
                world, tx
            )
        for view in ("transcript", "live_context"):
            world.connection.execute(f"SELECT * FROM {view} WHERE session_id = 'twin'").fetchall()


def test_a_lane_shows_its_load(world: World) -> None:
    def tell(row: Row) -> tuple[Any, ...]:
        lane = row["lane"]
        queued = [
            item
            for _, item in world.rows("inbox")
            if (item["lane"], item["state"]) == (lane, "queued")
        ]
        running = [
            turn
            for _, turn in world.rows("turn")
            if (turn["lane"], turn["state"]) == (lane, "running")
        ]
        ready = [item for item in queued if not item["waits"] and item["inbox_no"] % 2]
        retrying = [item for item in queued if not item["waits"] and not item["inbox_no"] % 2]
        oldest = min(queued, key=lambda item: item["inbox_no"], default=None)
        return (
            lane,
            len(running),
            len(queued),
            len(ready),
            len(retrying),
            oldest and at(oldest["accepted_at_ms"]),
        )

    with world.undone():
        world.connection.execute(
            "UPDATE inbox SET available_at_ms = iif(inbox_no % 2, 5, 9000000000000)"
        )
        columns = ("lane", "running", "queued", "ready", "retrying", "oldest_at")
        found = seen(world, "lane_load", *columns)
    assert found == told(world, "lane", tell)
    for column in (2, 3, 4):
        assert sum(row[column] > 0 for row in found) >= 2


def test_a_lane_counts_the_turns_of_the_last_hour_only(world: World) -> None:
    now_ms = int(time.time() * 1000)
    with world.undone() as tx:
        world.connection.execute("UPDATE turn SET started_at_ms = ?", (now_ms - 2 * 3_600_000,))
        for label in ("m-sent#1", "m-sent-too#1"):
            set_columns(f"turn {label}", started_at_ms=now_ms, finished_at_ms=now_ms + 1500)(
                world, tx
            )
        found = dict(seen(world, "lane_load", "lane", "turns_last_hour"))
        took = dict(seen(world, "lane_load", "lane", "took_avg_s"))
    assert {lane: count for lane, count in found.items() if count} == {"main": 2}
    assert took["main"] == 1.5


def test_a_process_shows_how_it_ended(world: World) -> None:
    assert dict(seen(world, "process_log", "program", "state")) == {
        "finished": "closed",
        "killed": "died",
        "dying": "open",
        "dying-too": "open",
        "gateway": "open",
        "other": "draining",
        "remote": "open",
        "sessiondb": "closed",
    }
    assert seen(world, "process_log", "owner", "program", "draining_since") == told(
        world, "instance", lambda row: owner(world, row)
    )


def test_a_session_shows_the_bytes_of_its_payloads(world: World) -> None:
    def tell(row: Row) -> tuple[Any, ...]:
        no = row["session_no"]
        sizes = [
            len(entry["payload"].encode())
            for _, entry in world.rows("entry")
            if entry["entry_no"] >> 32 == no
        ]
        archived = [
            archive["bytes_stored"]
            for _, archive in world.rows("archive")
            if archive["session_no"] == no and archive["state"] != "restored"
        ]
        return row["session_id"], sum(sizes) or sum(archived)

    found = seen(world, "session_overview", "session_id", "bytes")
    assert found == told(world, "session", tell)
    with world.undone() as tx:
        set_columns("entry twin/1", payload="\u20ac" * 100)(world, tx)
        grown = dict(seen(world, "session_overview", "session_id", "bytes"))
    text = world.row("entry twin/1")["payload"]
    assert grown["twin"] - dict(found)["twin"] == 300 - len(text.encode())
