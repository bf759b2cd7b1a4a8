"""Cases of queries/deletion.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sessiondb.backend import AnyStatement
from tests.sqlite.queries.inbox import hear
from tests.support.statement_cases import Change, Guard, Page, Read
from tests.support.world import Changes, Recorder, World


def owner(w: World, table: str) -> Any:
    """Return the number of the session that has most rows of a table."""
    numbers = [row["session_no"] for _, row in w.rows(table) if row["session_no"] is not None]
    return max(sorted(set(numbers)), key=numbers.count)


def of(table: str, holds: Callable[[Any], bool] = lambda _: True) -> Callable[[World], Changes]:
    """Return the loss of the rows of that session."""
    return lambda w: {
        f"-{label}": {}
        for label, row in w.rows(table)
        if row["session_no"] == owner(w, table) and holds(row)
    }


def delete_all(table: str) -> Callable[[World, Recorder], object]:
    """Ask to delete every row of a table, of one session."""

    def rule(w: World, tx: Recorder) -> None:
        numbers = json.dumps([row[f"{table}_no"] for _, row in w.rows(table)])
        sessions = json.dumps([owner(w, table)])
        tx.run(AnyStatement(f"deletion.delete_{table}"), numbers=numbers, sessions=sessions)

    return rule


def delete_none(w: World, tx: Recorder) -> None:
    """Ask to delete no row of any session."""
    sessions = json.dumps([row["session_no"] for _, row in w.rows("session")])
    for table in ("inbox", "outbox", "event"):
        tx.run(AnyStatement(f"deletion.delete_{table}"), numbers="[]", sessions=sessions)


def drop(statement: str, table: str, state: str) -> Change:
    """Return the deletion of a session's rows, one of whose is in a state."""

    def session_no(w: World) -> int:
        return next(row["session_no"] for _, row in w.rows(table) if row["state"] == state)

    states = {"inbox": ("dead",), "outbox": ("pending", "unknown", "failed")}[table]
    return Change(
        f"deletion.{statement}",
        f"of the session with a row that is {state}",
        lambda w, tx: tx.run(
            AnyStatement(f"deletion.{statement}"), session_no=session_no(w), limit=100
        ),
        lambda w: {
            f"-{label}": {}
            for label, row in w.rows(table)
            if row["session_no"] == session_no(w) and row["state"] in states
        },
    )


def with_pieces(w: World) -> int:
    """Return a session whose imported file has lines that are no entries."""
    files = {row["import_file_no"] for _, row in w.rows("quarantine")}
    return next(
        row["session_no"]
        for _, row in w.rows("import_file")
        if row["import_file_no"] in files and row["session_no"] is not None
    )


def pieces(w: World) -> Changes:
    files = {
        row["import_file_no"]
        for _, row in w.rows("import_file")
        if row["session_no"] == with_pieces(w)
    }
    return {
        label: {"content": b""}
        for label, row in w.rows("quarantine")
        if row["import_file_no"] in files
    }


def forget_keys(w: World, tx: Recorder) -> None:
    for _, row in w.rows("session"):
        tx.run("deletion.forget_keys", session_no=row["session_no"])


CHANGES = [
    *(
        Change(f"deletion.delete_{table}", "of one session", delete_all(table), of(table))
        for table in ("inbox", "outbox", "event")
    ),
    *(
        Change(f"deletion.delete_{table}", "no number, no row", delete_none, {})
        for table in ("inbox", "outbox", "event")
    ),
    drop("drop_dead", "inbox", "dead"),
    *(drop("drop_unsent", "outbox", state) for state in ("pending", "unknown", "failed")),
    Change(
        "deletion.drop_unsent",
        "the oldest of two",
        lambda w, tx: tx.run(
            "deletion.drop_unsent", session_no=w.no("session reply-sending"), limit=1
        ),
        {"-outbox web:behind": {}},
    ),
    Change(
        "deletion.delete_turns",
        "those of a session that do not run",
        lambda w, tx: tx.run("deletion.delete_turns", session_no=owner(w, "turn"), limit=100),
        of("turn", lambda row: row["state"] != "running"),
    ),
    Change(
        "deletion.delete_turns",
        "a running one stays",
        lambda w, tx: tx.run(
            "deletion.delete_turns", session_no=w.row("turn running#1")["session_no"], limit=100
        ),
        {},
    ),
    Change(
        "deletion.empty_pieces",
        "of one session's files",
        lambda w, tx: tx.run("deletion.empty_pieces", session_no=with_pieces(w), limit=100),
        pieces,
    ),
    Change(
        "deletion.begin_dropping",
        "archives that are whole",
        lambda w, tx: [
            tx.run("deletion.begin_dropping", archive_no=row["archive_no"])
            for _, row in w.rows("archive")
        ],
        lambda w: {
            label: {"reason": "deleted on request"}
            for label, row in w.rows("archive")
            if row["state"] == "archived"
        },
    ),
    Change(
        "deletion.forget_keys",
        "not of one whose deletion has not come to its end",
        lambda w, tx: [
            w.connection.execute("UPDATE archive SET finished_at_ms = NULL"),
            tx.run("deletion.forget_keys", session_no=w.no("session deleted")),
        ],
        lambda w: {
            label: {"finished_at_ms": None}
            for label, row in w.rows("archive")
            if row["finished_at_ms"] is not None
        },
    ),
    Change(
        "deletion.forget_keys",
        "of deleted sessions",
        forget_keys,
        lambda w: {
            label: {
                "reason": "deleted on request, to the end",
                **({"session_keys": "[]"} if row["session_keys"] != "[]" else {}),
            }
            for label, row in w.rows("archive")
            if row["state"] == "deleted" and row["finished_at_ms"] is not None
        },
    ),
]
GUARDS: list[Guard] = []
WEST = {"prefix": "agent:west:", "prefix_end": "agent:west:\U0010ffff"}
OLD = {"prefix": "agent:main:old:", "prefix_end": "agent:main:old:\U0010ffff"}
OUTSIDE = {"old": "agent:main:old", "old-too": "agent:main:older", "parent": OLD["prefix_end"]}
ON_REQUEST = ("complete", "deleting", "deleted", "dropped")


def some_on_request(w: World, _tx: Recorder) -> None:
    """Let archives in each state be of a deletion on request, and three have keys beside `OLD`."""
    for name in ON_REQUEST:
        w.connection.execute(
            "UPDATE archive SET reason = 'deleted on request' WHERE session_no = ?",
            (w.no(f"session {name}"),),
        )
    for name, key in OUTSIDE.items():
        w.connection.execute(
            "UPDATE archive SET session_keys = json_array(?) WHERE session_no = ?",
            (key, w.no(f"session {name}")),
        )


PAGES = [
    *(
        Page(
            f"deletion.{table}",
            {"after_no": 0, **({"last_no": 10**9} if table == "event" else {})},
            lambda row: {"after_no": row.no},
            "session_no",
            lambda w, table=table: [  # type: ignore[misc]
                w.before.shown("session_no", row["session_no"]) for _, row in w.rows(table)
            ],
        )
        for table in ("inbox", "outbox", "event")
    ),
    Page(
        "deletion.by_key",
        {"after_key": "", **WEST},
        lambda row: {"after_key": row.session_key},
        "session_key",
        lambda w: sorted(
            row["session_key"]
            for _, row in w.rows("binding")
            if row["session_key"].startswith("agent:west:")
        ),
    ),
    Page(
        "deletion.in_namespace",
        lambda w: {"namespace": namespace(w), "after_id": ""},
        lambda row: {"after_id": row.external_id},
        "external_id",
        lambda w: sorted(
            row["external_id"]
            for _, row in w.rows("foreign_id")
            if row["namespace"] == namespace(w)
        ),
    ),
    Page(
        "deletion.archived",
        {"after_no": 0, **OLD},
        lambda row: {"after_no": row.archive_no},
        ("session_no", "has_key", "begun"),
        lambda w: [
            (
                name := w.before.name("session", row["session_no"]),
                int('"agent:main:old:' in row["session_keys"] and name not in OUTSIDE),
                int(row["state"] in {"deleting", "deleted"} and name in ON_REQUEST),
            )
            for _, row in w.rows("archive")
            if row["state"] != "restored"
        ],
        given=some_on_request,
    ),
]
READS = [
    Read(
        "deletion.waiting",
        "what no turn works on",
        lambda w: {"session_no": w.row("inbox running")["session_no"], "limit": 10},
        lambda w: [
            {"inbox_no": label.removeprefix("inbox ")}
            for label, row in w.rows("inbox")
            if row["session_no"] == w.row("inbox running")["session_no"]
            and row["state"] in ("queued", "interrupted")
        ],
    ),
    Read(
        "deletion.waiting",
        "and what waits for a decision",
        lambda w: {"session_no": w.no("session cut"), "limit": 10},
        [{"inbox_no": "cut", "state": "interrupted"}, {"inbox_no": "cut-next", "state": "queued"}],
    ),
    Read(
        "deletion.indexes",
        "all, up to a limit",
        {"limit": 2},
        [{"path": f"/imports/{agent}/sessions.json"} for agent in ("main", "west")],
    ),
    Read(
        "deletion.waiting",
        "what one of two sessions heard",
        lambda w: {"session_no": w.no("session untold-too"), "limit": 10},
        [{"state": "queued"}, {"state": "heard"}],
        hear,
    ),
    Read(
        "deletion.event",
        "up to one, and it",
        lambda w: {"after_no": 0, "last_no": newest(w) - 1, "limit": 500},
        lambda w: [
            {"session_no": w.before.shown("session_no", row["session_no"])}
            for _, row in w.rows("event")
            if row["event_no"] < newest(w)
        ],
    ),
    Read(
        "deletion.last_event",
        "the newest",
        {},
        lambda w: [{"event_no": w.before.shown("event_no", newest(w))}],
    ),
]


def namespace(w: World) -> str:
    """Return the namespace that has most foreign ids."""
    names = [str(row["namespace"]) for _, row in w.rows("foreign_id")]
    return max(sorted(set(names)), key=names.count)


def newest(w: World) -> int:
    return max(int(row["event_no"]) for _, row in w.rows("event"))
