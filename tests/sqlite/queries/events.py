"""Cases of queries/events.sql."""

from __future__ import annotations

from typing import Any

from sessiondb import events
from tests.support.statement_cases import Change, Guard, Page, Read
from tests.support.world import World
from tests.support.world_build import NOW


def last(w: World) -> int:
    """Return the newest event's number."""
    return max(row["event_no"] for _, row in w.rows("event"))


def move(consumer: str, by: int) -> Any:
    return lambda w, tx: events.move_cursor(tx, consumer=consumer, event_no=5 + by)


CHANGES = [
    Change(
        "events.emit",
        "one new row",
        lambda w, tx: events.emit(
            tx, "k", "user", "text", session_no=w.no("session twin"), count=1
        ),
        {
            "+event k/user": {
                "kind": "k",
                "audience": "user",
                "session_no": "twin",
                "at_ms": NOW,
                "text": "text",
                "data": '{"count":1}',
            }
        },
    ),
    Change(
        "events.move_cursor",
        "one consumer of several",
        move("web", 1),
        {"event_cursor web": {"event_no": 6}},
    ),
    Change(
        "events.forget",
        "one consumer of several",
        lambda w, tx: events.forget(tx, "web"),
        {"-event_cursor web": {}},
    ),
    Change("events.move_cursor", "never back", move("web", -1), {}),
    Change(
        "events.move_cursor",
        "a new consumer",
        move("new", 2),
        {"+event_cursor new": {"event_no": 7}},
    ),
]
GUARDS: list[Guard] = []

# The newest events: what `Builder.consumers` wrote, and the turns that were answered before.
NEWEST = ["turn_completed", "turn_completed", "crash_loop", "note", "note", "note", "note"]


def behind(row: Any) -> dict[str, Any]:
    return {"after_no": row.event_no}


PAGES = [
    Page("events.after", lambda w: {"after_no": last(w) - 7}, behind, "kind", NEWEST),
    Page(
        "events.after_for",
        lambda w: {"after_no": last(w) - 7, "audience": "user"},
        behind,
        "session_id",
        ["cut", None, "cut-too"],
    ),
    Page(
        "events.after_for",
        lambda w: {"after_no": last(w) - 7, "audience": "operator"},
        behind,
        "kind",
        ["turn_completed", "turn_completed", "crash_loop", "note"],
        key="operator",
    ),
]


def of_session(name: str, audience: str, among: int, limit: int, *kinds: str) -> Read:
    return Read(
        "events.of_session",
        f"{limit} for the {audience} of {name} among {among}",
        lambda w: {
            "session_no": w.no(f"session {name}"),
            "audience": audience,
            "among": among,
            "limit": limit,
        },
        [{"kind": kind, "audience": audience, "session_id": name} for kind in kinds],
    )


def numbers(back: int) -> Any:
    """Return the event that is so many before the newest."""
    return lambda w: [{"event_no": last(w) - back}]


READS = [
    Read(
        "events.after",
        "with the session, if there is one",
        lambda w: {"after_no": last(w) - 5, "limit": 2},
        [
            {"kind": "crash_loop", "audience": "operator", "session_id": None},
            {"kind": "note", "audience": "user", "session_id": "cut"},
        ],
    ),
    of_session("cut", "user", 99, 9, "note", "turn_interrupted"),
    of_session("cut", "operator", 99, 9, "note", "turn_interrupted", "turn_started"),
    of_session("cut", "user", 99, 1, "note"),
    of_session("cut", "user", 3, 9, "note"),
    of_session("cut", "user", 2, 9),
    Read("events.nth_last", "the newest", {"skipped": 0}, numbers(0)),
    Read("events.nth_last", "the third from the end", {"skipped": 2}, numbers(2)),
    Read("events.nth_last", "more than there are", {"skipped": 999}, []),
    *(
        Read(
            "events.nth_last_for",
            f"{audience} {skipped}",
            {"audience": audience, "skipped": skipped},
            numbers(back),
        )
        for audience, skipped, back in (("user", 0, 0), ("user", 2, 3), ("operator", 1, 4))
    ),
    Read("events.last", "the newest", {}, numbers(0)),
    Read("events.cursor", "of this consumer", {"consumer": "pager"}, [{"event_no": 3}]),
    Read("events.cursor", "of a new one", {"consumer": "new"}, []),
]
