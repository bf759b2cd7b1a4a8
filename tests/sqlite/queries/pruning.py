"""Cases of queries/pruning.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import anyio

from sessiondb.backend import AnyStatement
from sessiondb.maintenance import pruning
from tests.sqlite.queries.inbox import hear, heard_no
from tests.support.statement_cases import Change, Guard, Page, Read, set_columns
from tests.support.world import Changes, Recorder, World
from tests.support.world_build import DAY, NOW

# Before this, finished work of two days ago is old. All of today's is young.
BEFORE = NOW - DAY


def prune(w: World, _tx: Recorder) -> None:
    """Prune, in pages of two rows."""

    async def run() -> None:
        await pruning.prune(w.direct(), before_ms=BEFORE, now_ms=ALL_PAST, dry_run=False)

    with patch.object(pruning, "_PAGE", 2):
        anyio.run(run)


def tells_an_end(w: World, event: Any, *states: str) -> bool:
    """Return whether a message, in one of these states, has the event as that of its end."""
    return any(
        row["told_no"] == event["event_no"] and row["state"] in (states or ("done", "dead"))
        for _, row in w.rows("inbox")
    )


def pruned(w: World) -> Changes:
    old = [
        label
        for label, row in w.rows("event")
        if row["at_ms"] < BEFORE and not tells_an_end(w, row, "dead")
    ]
    old += [f"outbox {name}" for name in ("web:done-old", "telegram:done-old-too")]
    for name in ("done-old", "done-old-too", "aborted-old"):
        old += [f"inbox {name}", f"turn {name}#1"]
    return {f"-{label}": {} for label in old}


def delete_all(statement: str, table: str) -> Callable[[World, Recorder], object]:
    """Ask to delete every row of a table: those that are not finished stay."""
    return lambda w, tx: tx.run(
        AnyStatement(statement),
        numbers=json.dumps([row[f"{table}_no"] for _, row in w.rows(table)]),
    )


def delete_two(statement: str, *labels: str) -> Callable[[World, Recorder], object]:
    return lambda w, tx: tx.run(
        AnyStatement(statement), numbers=json.dumps([w.no(label) for label in labels])
    )


def finished(table: str, holds: Callable[[Any], bool]) -> Callable[[World], Changes]:
    return lambda w: {f"-{label}": {} for label, row in w.rows(table) if holds(row)}


OF_TABLE = {
    "outbox": ("web:done-old", "web:sent", lambda row: row["state"] == "sent"),
    "inbox": ("done", "m-sent", lambda row: row["state"] == "done"),
    "turn": ("done#1", "dead#1", lambda row: row["state"] != "running"),
}

CHANGES = [
    *(Change(statement, "old rows", prune, pruned) for _, statement in pruning.TABLES.values()),
    *(
        Change(
            f"pruning.delete_{table}",
            "finished rows only",
            delete_all(f"pruning.delete_{table}", table),
            finished(table, holds),
        )
        for table, (_, _, holds) in OF_TABLE.items()
    ),
    Change(
        "pruning.delete_event",
        "those that no message has as the event of its end",
        delete_all("pruning.delete_event", "event"),
        lambda w: {f"-{label}": {} for label, row in w.rows("event") if not tells_an_end(w, row)},
    ),
    Change(
        "pruning.delete_event",
        "the named ones only",
        lambda w, tx: tx.run("pruning.delete_event", numbers=json.dumps([3, 5])),
        lambda w: {f"-{label}": {} for label, row in w.rows("event") if row["event_no"] in (3, 5)},
    ),
    *(
        Change(
            f"pruning.delete_{table}",
            "the named rows only",
            delete_two(f"pruning.delete_{table}", f"{table} {first}", f"{table} {second}"),
            {f"-{table} {first}": {}, f"-{table} {second}": {}},
        )
        for table, (first, second, _) in OF_TABLE.items()
    ),
]
GUARDS: list[Guard] = []


def walk(table: str, flag: str, before_ms: int, holds: Callable[[World, Any], bool]) -> Any:
    """Read a whole table, and compare a flag of each row with what it says."""
    return Page(
        f"pruning.{table}",
        {"after_no": 0, "before_ms": before_ms, "now_ms": ALL_PAST},
        lambda row: {"after_no": row.no},
        flag,
        lambda w: [int(holds(w, row)) for _, row in w.rows(table)],
        key=f"{flag} before {before_ms}",
    )


def has_message(w: World, turn: Any) -> bool:
    return any(row["inbox_no"] == turn["inbox_no"] for _, row in w.rows("inbox"))


TIMES = {
    "outbox": "created_at_ms",
    "inbox": "accepted_at_ms",
    "turn": "started_at_ms",
    "event": "at_ms",
}
PRUNABLE: dict[str, Callable[[World, Any], bool]] = {
    "outbox": lambda _, row: row["state"] == "sent",
    "inbox": lambda _, row: row["state"] == "done",
    "turn": lambda w, row: row["state"] != "running" and not has_message(w, row),
    "event": lambda w, row: not tells_an_end(w, row),
}


ALL_PAST = 2**62
"""A time after that of every row."""


def prunable(table: str, before_ms: int) -> Callable[[World, Any], bool]:
    return lambda w, row: row[TIMES[table]] < before_ms and PRUNABLE[table](w, row)


def young(table: str, before_ms: int) -> Callable[[World, Any], bool]:
    return lambda _, row: row[TIMES[table]] >= before_ms


PAGES = [
    walk(table, flag, before_ms, test(table, before_ms))
    for table in TIMES
    for before_ms in (BEFORE, NOW)
    for flag, test in (("prunable", prunable), ("young", young))
]


def forget_message(w: World, tx: Recorder) -> None:
    tx.run("pruning.delete_inbox", numbers=json.dumps([w.no("inbox done-old")]))


def at_the_edge(
    table: str, label: str, given: Callable[[World, Recorder], object] = lambda _w, _tx: None
) -> list[Read]:
    """Return reads of a row at exactly its own time, and a millisecond later."""

    def params(before: int, now: int) -> Callable[[World], Any]:
        def of(w: World) -> Any:
            row = w.row(f"{table} {label}")
            at_ms = row[TIMES[table]]
            return {
                "after_no": row[f"{table}_no"] - 1,
                "before_ms": at_ms + before,
                "now_ms": at_ms + now,
                "limit": 1,
            }

        return of

    return [
        Read(f"pruning.{table}", "at its time", params(0, 0), [{"prunable": 0, "young": 1}], given),
        Read(
            f"pruning.{table}",
            "of the future",
            params(-1, -1),
            [{"prunable": 0, "young": 0}],
            given,
        ),
        Read(f"pruning.{table}", "later", params(1, 1), [{"prunable": 1, "young": 0}], given),
    ]


def forwarded(event_no: int, cursor: int | None) -> Callable[[World, Recorder], object]:
    """Let a sent reply be what forwarded an event, to a reader that has come so far."""

    def given(w: World, tx: Recorder) -> None:
        set_columns("outbox web:sent", event_no=event_no, consumer="a reader")(w, tx)
        for consumer, at in (("a reader", cursor), ("a slow one", event_no - 1)):
            if at is not None:
                w.connection.execute("INSERT INTO event_cursor VALUES (?, ?)", (consumer, at))

    return given


READS = [
    Read(
        "pruning.inbox",
        "what was heard, and is old",
        lambda w: {
            "before_ms": ALL_PAST,
            "now_ms": ALL_PAST,
            "after_no": heard_no(w, -3),
            "limit": 9,
        },
        [{"prunable": 1}] * 3,
        hear,
    ),
    *(
        Read(
            "pruning.outbox",
            f"that forwarded an event, {what}",
            lambda w: {
                "after_no": w.no("outbox web:sent") - 1,
                "before_ms": NOW,
                "now_ms": ALL_PAST,
                "limit": 1,
            },
            [{"prunable": prunable_, "young": 0}],
            forwarded(event_no, cursor),
        )
        for what, event_no, cursor, prunable_ in (
            ("which may come again", 5, 4, 0),
            ("to its reader's cursor", 5, 5, 1),
            ("behind its reader's cursor", 5, 6, 1),
            ("to a reader that has no cursor yet", 5, None, 0),
            ("which was pruned", 100_000, None, 1),
        )
    ),
    *at_the_edge("outbox", "web:done-old"),
    *at_the_edge("inbox", "done-old"),
    *at_the_edge("event", "compaction_started/operator/1"),
    *at_the_edge("turn", "done-old#1", forget_message),
    Read(
        "pruning.turn",
        "whose message is gone, beside one whose message is there",
        {"after_no": 0, "before_ms": NOW, "now_ms": ALL_PAST, "limit": 2},
        [{"prunable": 1, "young": 0}, {"prunable": 0, "young": 0}],
        forget_message,
    ),
]
