"""Cases of queries/listing.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.support.statement_cases import Page, Read
from tests.support.world import World

FOREVER = 2**62
ALL: dict[str, Any] = {
    "agent_id": None,
    "with_ended": 1,
    "namespace": None,
    "keys_from": None,
    "keys_before": None,
}
OF_APP = {"live", "twin", "live-ended"}
WEB = {"keys_from": "agent:main:web:", "keys_before": "agent:main:web:\U0010ffff"}


def keys_of(w: World, session_no: int) -> list[str]:
    return [row["session_key"] for _, row in w.rows("binding") if row["session_no"] == session_no]


def in_order(holds: Callable[[World, Any], bool], *, newest: bool) -> Callable[[World], list[str]]:
    def ids(w: World) -> list[str]:
        rows = [row for _, row in w.rows("session") if holds(w, row)]
        rows.sort(key=lambda row: (row["updated_at_ms"], row["session_no"]), reverse=newest)
        return [row["session_id"] for row in rows]

    return ids


def middle(w: World) -> int:
    """Return a time before which some of the sessions were last changed."""
    times = sorted(row["updated_at_ms"] for _, row in w.rows("session"))
    return int(times[len(times) // 2])


# What a list has, by its filters.
LISTS: dict[str, tuple[dict[str, Any], Callable[[World, Any], bool]]] = {
    "all": ({}, lambda w, row: True),
    "live": ({"with_ended": 0}, lambda w, row: row["ended_at_ms"] is None),
    "of an agent": ({"agent_id": "west"}, lambda w, row: row["agent_id"] == "west"),
    "of a namespace": ({"namespace": "app"}, lambda w, row: row["session_id"] in OF_APP),
    "with a key of some": (
        WEB,
        lambda w, row: any(
            key.startswith("agent:main:web:") for key in keys_of(w, row["session_no"])
        ),
    ),
}


def walk(statement: str, name: str, start: dict[str, Any], *, newest: bool) -> Page:
    filters, holds = LISTS[name]
    return Page(
        f"listing.{statement}",
        {**start, **ALL, **filters},
        lambda row: {"past_ms": row.updated_at_ms, "past_no": row.session_no},
        "session_no",
        in_order(holds, newest=newest),
        name,
    )


OLDEST = {"past_ms": -FOREVER, "past_no": -1}
PAGES = [
    *(walk("newest", name, {"past_ms": FOREVER, "past_no": -1}, newest=True) for name in LISTS),
    *(walk("oldest", name, {**OLDEST, "updated_before": FOREVER}, newest=False) for name in LISTS),
    Page(
        "listing.oldest",
        lambda w: {**OLDEST, **ALL, "updated_before": middle(w)},
        lambda row: {"past_ms": row.updated_at_ms, "past_no": row.session_no},
        "session_no",
        lambda w: in_order(lambda w, row: row["updated_at_ms"] < middle(w), newest=False)(w),
        "before a time",
    ),
    *(
        Page(
            f"listing.{statement}",
            {**start, **ALL, "keys_from": first, "keys_before": end},
            lambda row: {"past_ms": row.updated_at_ms, "past_no": row.session_no},
            "session_no",
            in_order(
                lambda w, row, first=first, end=end: any(
                    first <= key < end for key in keys_of(w, row["session_no"])
                ),
                newest=statement == "newest",
            ),
            "with a key from one to another",
        )
        for statement, start in (
            ("newest", {"past_ms": FOREVER, "past_no": -1}),
            ("oldest", {**OLDEST, "updated_before": FOREVER}),
        )
        for first, end in (("agent:main:job:busy", "agent:main:web:live-reset"),)
    ),
]


def among(name: str, updated_before: Callable[[World], int] | None = None) -> Read:
    filters, holds = LISTS[name]
    few = ("live", "twin", "live-ended", "twin-ended", "live-fork", "kept", "job-tired")

    def params(w: World) -> dict[str, Any]:
        return {
            "among": json.dumps([w.no(f"session {each}") for each in few]),
            "updated_before": updated_before(w) if updated_before else FOREVER,
            **ALL,
            **filters,
        }

    def rows(w: World) -> list[dict[str, Any]]:
        before = updated_before(w) if updated_before else FOREVER
        found = [
            row
            for _, row in w.rows("session")
            if row["session_id"] in few and holds(w, row) and row["updated_at_ms"] < before
        ]
        assert 0 < len(found) < len(few) or (name == "all" and updated_before is None)
        found.sort(key=lambda row: row["session_no"])
        return [
            {"session_no": row["session_id"], "updated_at_ms": row["updated_at_ms"]}
            for row in found
        ]

    return Read("listing.among", name if updated_before is None else "before a time", params, rows)


def bound_to_web(w: World) -> list[dict[str, Any]]:
    rows = [row for _, row in w.rows("binding") if row["session_key"].startswith("agent:main:web:")]
    rows.sort(key=lambda row: row["session_key"])
    return [{"session_no": w.before.shown("session_no", row["session_no"])} for row in rows]


READS = [
    *(among(name) for name in LISTS),
    among(
        "all",
        lambda w: max(
            w.row("session live")["updated_at_ms"], w.row("session twin")["updated_at_ms"]
        ),
    ),
    Read("listing.of_keys", "some", {**WEB, "limit": 100}, bound_to_web),
    Read(
        "listing.of_keys",
        "not what the end itself names",
        {
            "keys_from": "agent:main:web:live",
            "keys_before": "agent:main:web:live",
            "limit": 100,
        },
        [],
    ),
    Read(
        "listing.of_keys",
        "what its beginning names",
        {"keys_from": "agent:main:web:live", "keys_before": "agent:main:web:live0", "limit": 100},
        [{"session_no": "live"}, {"session_no": "live-reset"}],
    ),
    Read(
        "listing.of_keys", "some, up to a limit", {**WEB, "limit": 1}, lambda w: bound_to_web(w)[:1]
    ),
    Read(
        "listing.of_namespace",
        "one of two",
        {"namespace": "other app", "limit": 2},
        [{"session_no": "live-fork"}],
    ),
    Read(
        "listing.of_namespace",
        "up to a limit",
        {"namespace": "app", "limit": 2},
        [{"session_no": "twin"}, {"session_no": "live"}],
    ),
    Read(
        "listing.of_agent",
        "up to a limit",
        {"agent_id": "west", "limit": 1},
        [{"session_no": "live-ended"}],
    ),
    Read(
        "listing.of_agent",
        "one of several",
        {"agent_id": "west", "limit": 500},
        lambda w: [
            {"session_no": row["session_id"]}
            for row in sorted(
                (row for _, row in w.rows("session") if row["agent_id"] == "west"),
                key=lambda row: row["session_no"],
            )
        ],
    ),
]
