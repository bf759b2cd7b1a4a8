"""Cases of queries/restored.sql: every row in a state goes, and no other one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sessiondb.gateway.restored import REASON
from tests.support.statement_cases import Change, run
from tests.support.world import Changes, Row, World
from tests.support.world_build import NOW


def each(
    table: str, holds: Callable[[Row], bool], after: dict[str, Any]
) -> Callable[[World], Changes]:
    """Return what becomes of the rows of a table for which `holds` is true."""

    def changes(world: World) -> Changes:
        found = {
            label: {name: value for name, value in after.items() if row[name] != value}
            for label, row in world.rows(table)
            if holds(row)
        }
        assert len(found) > 1, "the world has two of everything"
        return found

    return changes


CHANGES = [
    Change(
        "restored.suspend_queued",
        "every message that is queued",
        run("restored.suspend_queued"),
        each(
            "inbox",
            lambda row: row["state"] == "queued",
            {"state": "interrupted", "waits": 0, "available_at_ms": 0},
        ),
    ),
    Change(
        "restored.mark_interrupted",
        "every message that is interrupted",
        run("restored.mark_interrupted", reason=REASON),
        each(
            "inbox",
            lambda row: row["state"] == "interrupted",
            {"restored": 1, "reason": REASON},
        ),
    ),
    Change(
        "restored.lose_replies",
        "every reply that is to be sent",
        run("restored.lose_replies", now_ms=NOW, reason=REASON),
        each(
            "outbox",
            lambda row: row["state"] in ("pending", "sending"),
            {
                "state": "unknown",
                "waits": 0,
                "expires_at_ms": None,
                "instance_no": None,
                "finished_at_ms": NOW,
                "reason": REASON,
            },
        ),
    ),
    Change(
        "restored.skip_events",
        "every reader that is behind",
        run("restored.skip_events"),
        lambda world: {
            label: {"event_no": newest(world)}
            for label, row in world.rows("event_cursor")
            if row["event_no"] < newest(world)
        },
    ),
    Change(
        "restored.skip_events",
        "no reader that is ahead, as of a damaged file",
        lambda w, tx: [
            w.connection.execute(
                "UPDATE event_cursor SET event_no = 100000 WHERE consumer = 'web'"
            ),
            tx.run("restored.skip_events"),
        ],
        lambda world: {
            "event_cursor pager": {"event_no": newest(world)},
            "event_cursor web": {"event_no": 100_000},
        },
    ),
    Change(
        "restored.end_pauses",
        "every pause of a channel",
        run("restored.end_pauses"),
        lambda world: {f"-{label}": {} for label, _ in world.rows("channel_pause")},
    ),
]


def newest(world: World) -> int:
    """Return the number of the newest event."""
    return max(int(row["event_no"]) for _, row in world.rows("event"))
