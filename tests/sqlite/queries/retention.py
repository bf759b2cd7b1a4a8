"""Cases of queries/retention.sql."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.statement_cases import Change, Guard, Page, Read
from tests.support.world import World

CHANGES: list[Change] = []
GUARDS: list[Guard] = []


def in_order(*, newest: bool) -> Callable[[World], list[str]]:
    def ids(w: World) -> list[str]:
        rows = [row for _, row in w.rows("session")]
        rows.sort(key=lambda row: (row["updated_at_ms"], row["session_no"]), reverse=newest)
        return [row["session_id"] for row in rows]

    return ids


PAGES = [
    Page(
        "retention.newest",
        {"before_ms": 2**62, "before_no": 2**62},
        lambda row: {"before_ms": row.updated_at_ms, "before_no": row.session_no},
        "session_id",
        in_order(newest=True),
    ),
    Page(
        "retention.oldest",
        {"after_ms": 0, "after_no": 0},
        lambda row: {"after_ms": row.updated_at_ms, "after_no": row.session_no},
        "session_id",
        in_order(newest=False),
    ),
]


def session(name: str, keys: int, agent_id: str, restored: str | None = None) -> list[Read]:
    """Return reads of one session in either order."""

    def rows(w: World) -> list[dict[str, Any]]:
        restored_at_ms = w.row(f"archive {restored}")["finished_at_ms"] if restored else None
        row = {"session_id": name, "keys": keys, "agent_id": agent_id}
        return [row | {"restored_at_ms": restored_at_ms}]

    def beside(names: tuple[str, str], by: int) -> Callable[[World], dict[str, Any]]:
        def params(w: World) -> dict[str, Any]:
            row = w.row(f"session {name}")
            at = (row["updated_at_ms"], row["session_no"] + by)
            return dict(zip(names, at, strict=True)) | {"limit": 1}

        return params

    return [
        Read("retention.newest", name, beside(("before_ms", "before_no"), 1), rows),
        Read("retention.oldest", name, beside(("after_ms", "after_no"), -1), rows),
    ]


READS = [
    *session("live", 2, "main"),
    *session("twin", 3, "main"),  # by its keys, not by its own row
    *session("twin-fork", 1, "main"),
    *session("twin-ended", 1, "work"),
    *session("twin-undone", 0, "main"),
    # Archived again since, its agent known from its own row only.
    *session("old-too", 0, "main", restored="old-too/2"),
    *session("parent", 0, "main"),
]
