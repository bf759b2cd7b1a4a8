"""Cases of queries/session_list.sql."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.statement_cases import Change, Given, Guard, Page, Read, set_columns
from tests.support.world import World
from tests.support.world_build import NOW

CHANGES: list[Change] = []
GUARDS: list[Guard] = []
ALL = {
    "before": 2**62,
    "before_no": 2**62,
    "since_ms": 0,
    "agent_id": None,
    "checkpoints": 1,
    "state": "any",
}
OPEN = ("queued", "claimed", "interrupted")


def busy(w: World, table: str, *states: str) -> set[int]:
    return {row["session_no"] for _, row in w.rows(table) if row["state"] in states}


def copies(w: World) -> set[int]:
    return {row["session_no"] for _, row in w.rows("import_file") if row["kind"] == "checkpoint"}


def chosen(value: str, holds: Callable[[World, Any], bool]) -> Callable[[World], list[str]]:
    def ids(w: World) -> list[int]:
        rows = [row for _, row in w.rows("session") if holds(w, row)]
        rows.sort(key=lambda row: (row[value], row["session_no"]), reverse=True)
        return [w.before.name("session", row["session_no"]) for row in rows]

    return ids


CHOICES: dict[str, tuple[dict[str, Any], Callable[[World, Any], bool]]] = {
    "all": ({}, lambda _w, _row: True),
    "of an agent": ({"agent_id": "west"}, lambda _w, row: row["agent_id"] == "west"),
    "lately": (
        {"since_ms": NOW - 3_600_000},
        lambda _w, row: row["updated_at_ms"] >= NOW - 3_600_000,
    ),
    "live": ({"state": "live"}, lambda _w, row: row["ended_at_ms"] is None),
    "ended": (
        {"state": "ended"},
        lambda _w, row: row["ended_at_ms"] is not None and row["archived_at_ms"] is None,
    ),
    "archived": ({"state": "archived"}, lambda _w, row: row["archived_at_ms"] is not None),
    "running": (
        {"state": "running"},
        lambda w, row: row["session_no"] in busy(w, "turn", "running"),
    ),
    "waiting": (
        {"state": "waiting"},
        lambda w, row: row["session_no"] in busy(w, "inbox", *OPEN) - busy(w, "turn", "running"),
    ),
}


def copied(w: World, tx: Any) -> None:
    """Let one of two imported files be a checkpoint, and another session's a plain one."""
    set_columns("import_file main/clean.jsonl", kind="checkpoint")(w, tx)


def page(statement: str, value: str, key: str, *, given: Given | None = None, **more: Any) -> Page:
    params, holds = CHOICES.get(key, ({}, CHOICES["all"][1]))
    return Page(
        f"session_list.{statement}",
        ALL | params | more,
        lambda row: {"before": row.place, "before_no": row.session_no},
        "session_no",
        chosen(value, holds),
        f"{key}, by {value}",
        **({} if given is None else {"given": given}),
    )


def without_copies(statement: str, value: str, **more: Any) -> Page:
    shown = page(statement, value, "all", given=copied, checkpoints=0, **more)

    def rows(w: World) -> list[str]:
        copy = w.before.name("session", w.row("import_file main/clean.jsonl")["session_no"])
        return [name for name in chosen(value, CHOICES["all"][1])(w) if name != copy]

    return Page(
        shown.statement, shown.params, shown.cursor, shown.column, rows, f"no copy {value}", copied
    )


SORTS = (("entries", "last_seq"), ("tokens", "context_tokens"), ("created", "created_at_ms"))
PAGES = [
    *(page("by_update", "updated_at_ms", key) for key in CHOICES),
    *(page("by_value", value, key, sort=sort) for key in CHOICES for sort, value in SORTS),
    without_copies("by_update", "updated_at_ms"),
    without_copies("by_value", "last_seq", sort="entries"),
]


def about(name: str, *, look: int = 50, given: Given | None = None, **columns: Any) -> Read:
    return Read(
        "session_list.about",
        f"{name} {columns}",
        lambda w: {"session_no": w.no(f"session {name}"), "look": look},
        [columns],
        **({} if given is None else {"given": given}),
    )


def by_a_program(w: World, tx: Any) -> None:
    set_columns("inbox held", by_person=0)(w, tx)


def asked(label: str) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"entry_no": w.no(label), "chars": 3}


READS = [
    about("live", is_running=0, first_message_no="live/3", last_message_no="live/18"),
    about(
        "live", look=2, is_running=0, is_waiting=0, first_message_no=None, last_message_no="live/18"
    ),
    about("twin", is_running=0, is_waiting=0, first_message_no="twin/3", last_message_no="twin/18"),
    about(
        "running",
        is_running=1,
        is_waiting=1,
        first_message_no="running/1",
        last_message_no="running/1",
    ),
    about("told", is_running=0, is_waiting=1, first_message_no=None, last_message_no=None),
    about("cut-failed", is_running=0, is_waiting=1),
    about("dead", is_running=0, is_waiting=1),
    about("done", is_running=0, is_waiting=0),
    about("live", look=3, first_message_no="live/3", last_message_no="live/18"),
    about("held", first_message_no="held/1", last_message_no="held/1"),
    about("held", given=by_a_program, first_message_no=None, last_message_no="held/1"),
    Read(
        "session_list.text",
        "three characters",
        asked("entry twin/3"),
        [{"content": b"twi", "role": "user"}],
    ),
    Read(
        "session_list.text",
        "of a reply",
        asked("entry twin/4"),
        [{"content": b"two", "role": "assistant"}],
    ),
]
