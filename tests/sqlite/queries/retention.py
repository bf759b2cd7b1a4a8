"""Cases of queries/retention.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.support.statement_cases import Change, Guard, Page, Read, set_columns
from tests.support.world import Recorder, World

SIZED = ("twin", "live", "old")
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


def session(
    name: str,
    keys: int,
    agent_id: str,
    restored: str | None = None,
    *,
    at: str = "finished_at_ms",
    given: Callable[[World, Recorder], object] = lambda _world, _tx: None,
) -> list[Read]:
    """Return reads of one session in either order."""
    what = f"{name} {restored or ''}".strip()

    def rows(w: World) -> list[dict[str, Any]]:
        restored_at_ms = w.row(f"archive {restored}")[at] if restored else None
        row = {"session_id": name, "keys": keys, "agent_id": agent_id}
        return [row | {"restored_at_ms": restored_at_ms}]

    def beside(names: tuple[str, str], by: int) -> Callable[[World], dict[str, Any]]:
        def params(w: World) -> dict[str, Any]:
            row = w.row(f"session {name}")
            at = (row["updated_at_ms"], row["session_no"] + by)
            return dict(zip(names, at, strict=True)) | {"limit": 1}

        return params

    return [
        Read("retention.newest", what, beside(("before_ms", "before_no"), 1), rows, given),
        Read("retention.oldest", what, beside(("after_ms", "after_no"), -1), rows, given),
    ]


def restore_again(w: World, tx: Recorder) -> None:
    """Give up the second archive of a session, whose work is not finished yet."""
    archive_no = w.row("archive old-too/4")["archive_no"]
    tx.run("archive.move", archive_no=archive_no, from_state="archived", to_state="restored")


READS = [
    *session("live", 2, "main"),
    *session("twin", 3, "main"),  # by its keys, not by its own row
    *session("twin-fork", 1, "main"),
    *session("twin-ended", 1, "west"),
    *session("twin-undone", 0, "main"),
    # Archived again since, its agent known from its own row only.
    *session("old-too", 0, "main", restored="old-too/2"),
    *session("old-too", 0, "main", "old-too/4", at="begun_at_ms", given=restore_again),
    *session("parent", 0, "main"),
    Read(
        "retention.sizes",
        "up to the last number of a session",
        lambda w: {"session_nos": json.dumps([w.no("session job-tired")])},
        lambda w: [
            {
                "bytes": sum(
                    len(row["payload"].encode())
                    for label, row in w.rows("entry")
                    if label.startswith("entry job-tired/")
                )
            }
        ],
        lambda w, tx: set_columns(
            "entry job-tired/4", entry_no=w.no("session job-tired") << 32 | 0xFFFFFFFF
        )(w, tx),
    ),
    Read(
        "retention.sizes",
        "of two sessions, and of one without entries",
        lambda w: {"session_nos": json.dumps([w.no(f"session {name}") for name in SIZED])},
        lambda w: [
            {
                "session_no": name,
                "bytes": sum(
                    len(row["payload"].encode())
                    for label, row in w.rows("entry")
                    if label.startswith(f"entry {name}/")
                ),
            }
            for name in SIZED
        ],
    ),
]
