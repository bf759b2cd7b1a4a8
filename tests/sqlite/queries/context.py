"""Cases of queries/context.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sessiondb.json_text import dumps
from tests.support.statement_cases import Change, Guard, Page, Read, set_columns, without
from tests.support.world import Recorder, World

CHANGES: list[Change] = []
GUARDS: list[Guard] = []


def of_session(name: str, **more: Any) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"session_no": w.no(f"session {name}"), **more}


def payload(w: World, entry: str | None) -> str | None:
    return w.row(f"entry {entry}")["payload"] if entry else None


def at(
    statement: str,
    what: str,
    params: Callable[[World], dict[str, Any]],
    *,
    head: str,
    model: str | None,
    thinking: str | None,
    **columns: Any,
) -> Read:
    """Return a read of where a context begins and ends, and of the settings at its head."""
    return Read(
        statement,
        what,
        params,
        lambda w: [
            {
                "head_no": head,
                "head_id": w.row(f"entry {head}")["entry_id"],
                "model_entry": payload(w, model),
                "thinking_entry": payload(w, thinking),
                **columns,
            }
        ],
    )


def span(branch: str, low: int, high: int, *rows: tuple[str, int, str]) -> Read:
    """Return a read of messages: their entry, how they are projected, and their content."""

    def params(w: World) -> dict[str, int]:
        low_no = w.no(f"session {branch.partition('/')[0]}") << 32
        found = {"low_no": low_no | low, "high_no": low_no | high, "system_after_no": 0}
        return found | {"branch_no": w.no(f"branch {branch}")}

    def content(w: World, entry: str, projection: int) -> bytes:
        text = payload(w, entry)
        assert text is not None
        if projection == 3:
            return text.encode()
        # Its message as it is in the text: what `json` writes is what was appended.
        message = dumps(json.loads(text)["message"])
        assert message in text
        return message.encode()

    return Read(
        "context.span",
        f"{branch} from {low} to {high}",
        params,
        lambda w: [
            {"entry_no": entry, "projection": projection, "content": content(w, entry, projection)}
            for entry, projection in rows
        ],
    )


def edited_span(
    statement: str,
    system_after: int | None,
    rows: list[tuple[str, int]],
    gone: str | None = None,
    first: int = 5,
) -> Read:
    """Return a read of entries `first` to 8 of `live`: 6 is an edit, and 8 a system message."""
    at_8 = gone is not None and system_after == 8
    found = [row for row in rows if row[0] != "live/8"] if at_8 else rows
    if gone is not None and not at_8:
        found = [*rows, (gone, 1)]

    def params(w: World) -> dict[str, int]:
        low_no = w.no("session live") << 32
        span_ = {
            "low_no": low_no | first,
            "high_no": low_no | 8,
            "branch_no": w.no("branch live/1"),
        }
        return span_ if system_after is None else span_ | {"system_after_no": low_no | system_after}

    def give(w: World, _tx: Recorder) -> None:
        w.connection.execute(
            "UPDATE entry SET type = 'context_edit', role = NULL, projection = 0 "
            "WHERE entry_no = ?",
            (w.no("entry live/6"),),
        )
        w.connection.execute(
            "UPDATE entry SET role = 'system' WHERE entry_no = ?", (w.no("entry live/8"),)
        )

    return Read(
        statement,
        f"with an edit and a system message, from {first} after {system_after}",
        params,
        [
            {"entry_no": entry, "projection": projection}
            if statement == "context.span"
            else {"entry_no": entry}
            for entry, projection in found
        ],
        give,
    )


def span_of_live(w: World) -> dict[str, int]:
    low_no = w.no("session live") << 32
    found = {"low_no": low_no | 3, "high_no": low_no | 15}
    return found | {"branch_no": w.no("branch live/1")}


def projected(w: World) -> list[str]:
    """Return the entries of `span_of_live` that a context may show, newest first."""
    labels = [f"live/{seq}" for seq in (15, *range(13, 2, -1))]
    return [label for label in labels if w.row(f"entry {label}")["projection"] > 0]


PAGES = [
    Page(
        "context.span_backward",
        span_of_live,
        lambda row: {"high_no": row.entry_no - 1},
        "entry_no",
        projected,
    )
]


def sent(w: World, place: str) -> bytes:
    """Return what is sent of an entry: a message, or all of it."""
    row = w.row(f"entry {place}")
    text = row["payload"].encode()
    if row["projection"] == 3:
        return bytes(text)
    return bytes(text[row["body_at"] : row["body_at"] + row["body_bytes"]])


def last_of_user(low: int, high: int, found: int | None) -> Read:
    """Return a search on the first branch of `live`. Entry 7 is excluded, and 17 is elsewhere."""

    def params(w: World) -> dict[str, int]:
        low_no = w.no("session live") << 32
        span_ = {"low_no": low_no | low, "high_no": low_no | high}
        return span_ | {"branch_no": w.no("branch live/1")}

    rows = [] if found is None else [{"entry_no": f"live/{found}"}]
    return Read("context.last_user_message", f"from {low} to {high}", params, rows)


LAST_SEQ = 2**32 - 1


def working(
    message: int, since: int, found: int | None, *, of: str = "running", last: int | None = None
) -> Read:
    """Return a search behind the message of a running turn, which began when an entry came.

    The entries are those of a session of three, and `last` of them has the last number that a
    session can have.
    """

    def give(w: World, _tx: Recorder) -> None:
        w.connection.execute("PRAGMA defer_foreign_keys = on")
        w.connection.execute(
            "UPDATE inbox SET entry_no = ? WHERE inbox_no = ?",
            (w.no(f"entry cut-failed/{message}"), w.no("inbox running")),
        )
        w.connection.execute(
            "UPDATE turn SET started_at_ms = ? WHERE turn_no = ?",
            (w.row(f"entry cut-failed/{since}")["appended_at_ms"], w.no("turn running#1")),
        )
        if last is not None:
            w.connection.execute(
                "UPDATE entry SET entry_no = ? WHERE entry_no = ?",
                (
                    w.no("session cut-failed") << 32 | LAST_SEQ,
                    w.no(f"entry cut-failed/{last}"),
                ),
            )

    return Read(
        "context.working_from",
        f"{of}, behind {message}, since {since}" + (f", with the last number {last}" * bool(last)),
        of_session(of),
        [] if found is None else [{"entry_no": f"cut-failed/{found}"}],
        give,
    )


READS = [
    *(
        Read(
            "context.span_backward",
            what,
            lambda w, place=place: {
                "low_no": w.no(f"entry {place}"),
                "high_no": w.no(f"entry {place}"),
                "branch_no": w.no("branch live/1"),
                "limit": 9,
            },
            lambda w, place=place: [{"entry_no": place, "content": sent(w, place)}],
        )
        for what, place in (("the message of an entry", "live/4"), ("a whole entry", "live/13"))
    ),
    working(1, 2, 2),
    working(1, 3, 3),
    working(2, 1, 3),
    working(3, 1, None),
    working(2, 3, LAST_SEQ, last=3),
    working(1, 2, None, of="done-old"),
    last_of_user(1, 18, 11),
    last_of_user(11, 18, 11),
    last_of_user(9, 11, 11),
    last_of_user(3, 7, 3),
    last_of_user(4, 7, None),
    Read(
        "context.instructions",
        "of one branch of two",
        lambda w: {
            "low_no": w.no("entry live/15"),
            "high_no": w.no("entry live/18"),
            "branch_no": w.no("branch live/1"),
        },
        [{"entry_no": "live/15"}],
        lambda w, tx: [set_columns(f"entry live/{seq}", role="system")(w, tx) for seq in (15, 17)],
    ),
    Read(
        "context.span_backward",
        "of one branch of two",
        lambda w: {
            "low_no": w.no("entry live/15"),
            "high_no": w.no("entry live/18"),
            "branch_no": w.no("branch live/1"),
            "limit": 9,
        },
        [{"entry_no": "live/15"}],
    ),
    Read(
        "context.then",
        "whose entries are lost",
        of_session("twin", epoch=1),
        [{"epoch": 1, "head_no": "twin/15", "head_id": None, "branch_no": None}],
        without("entry"),
    ),
    Read(
        "context.pointers",
        "of one session",
        of_session("twin"),
        [
            {
                "session_no": "twin",
                "session_id": "twin",
                "version": 3,
                "epoch": 2,
                "head_no": "twin/18",
                "boundary_no": "twin/10",
                "first_kept_no": "twin/9",
                "context_tokens": 801,
                "tokens_fresh": 1,
            }
        ],
    ),
    at(
        "context.now",
        "at a head on a branch",
        of_session("twin"),
        head="twin/18",
        model="twin/18",
        thinking="twin/1",
        session_id="twin",
        epoch=2,
        boundary_no="twin/10",
        first_kept_no="twin/9",
        context_tokens=801,
        tokens_fresh=1,
        archived_at_ms=None,
        branch_no="twin/17",
        first_no="twin/17",
        parent_branch_no="twin/1",
    ),
    at(
        "context.now",
        "of a fork",
        of_session("twin-fork"),
        head="twin-fork/1",
        model="twin/18",
        thinking="twin/1",
        session_id="twin-fork",
        branch_no="twin-fork/1",
        parent_branch_no="twin/17",
    ),
    at(
        "context.now",
        "without a thinking level",
        of_session("twin-undone"),
        head="twin-undone/6",
        model="twin-undone/4",
        thinking=None,
        boundary_no=None,
        parent_branch_no=None,
    ),
    at(
        "context.now",
        "with an open call at its head",
        of_session("twin-reset"),
        head="twin-reset/7",
        model="twin-reset/3",
        thinking=None,
        open_calls=1,
    ),
    Read(
        "context.now",
        "without an entry",
        of_session("twin-ended"),
        [
            {
                "session_id": "twin-ended",
                "head_no": None,
                "head_id": None,
                "branch_no": None,
                "open_calls": 0,
            }
        ],
    ),
    at(
        "context.then",
        "at the end of a past epoch",
        of_session("twin", epoch=1),
        head="twin/15",
        model="twin/15",
        thinking="twin/1",
        session_id="twin",
        epoch=1,
        boundary_no="twin/10",
        first_kept_no="twin/9",
        context_tokens=None,
        tokens_fresh=0,
        branch_no="twin/1",
        first_no="twin/1",
        parent_branch_no=None,
    ),
    at(
        "context.then",
        "at the end of the first epoch",
        of_session("twin-reset", epoch=0),
        head="twin-reset/3",
        model="twin-reset/3",
        thinking=None,
        boundary_no=None,
        first_kept_no=None,
    ),
    Read("context.then", "not of the open epoch", of_session("twin", epoch=2), []),
    span(
        "live/1",
        5,
        15,
        *(("live/5", 1), ("live/6", 1), ("live/7", 2), ("live/8", 1), ("live/9", 1)),
        *(("live/11", 1), ("live/13", 3), ("live/15", 1)),
    ),
    span("live/17", 5, 18, ("live/17", 1), ("live/18", 1)),
    edited_span("context.span", 0, [("live/5", 1), ("live/6", 5), ("live/7", 2), ("live/8", 1)]),
    edited_span("context.span", 7, [("live/5", 1), ("live/6", 5), ("live/7", 2)], "live/8"),
    edited_span("context.span", 8, [("live/5", 1), ("live/6", 5), ("live/7", 2)], "live/8"),
    edited_span("context.ids", None, [("live/5", 1), ("live/7", 2), ("live/8", 1)]),
    edited_span("context.instructions", None, [("live/6", 5), ("live/8", 1)]),
    edited_span("context.instructions", None, [("live/8", 1)], first=8),
    Read(
        "context.boundary",
        "one entry",
        lambda w: {"entry_no": w.no("entry twin/10")},
        lambda w: [{"entry_no": "twin/10", "type": "compaction", "payload": payload(w, "twin/10")}],
    ),
]
