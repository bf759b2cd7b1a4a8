"""Cases of queries/instance.sql."""

from __future__ import annotations

from tests.support.statement_cases import Change, Guard, Page, Read
from tests.support.world import World
from tests.support.world_build import NOW

PROCESS = {
    "host": "h",
    "boot_id": "b",
    "pid": 7,
    "pid_started": 8,
    "program": "new",
    "opened_at_ms": NOW,
}

# `register` and `sign_off` need a connection of their own, so the statements run by themselves.
CHANGES = [
    Change(
        "instance.insert",
        "one new row",
        lambda w, tx: tx.one("instance.insert", **PROCESS),
        {"+instance new": PROCESS},
    ),
    Change(
        "instance.close",
        "one process of several",
        lambda w, tx: tx.run(
            "instance.close", instance_no=w.no("instance other"), closed_at_ms=NOW
        ),
        {"instance other": {"closed_at_ms": NOW}},
    ),
]
GUARDS = [
    Guard(
        "instance.close",
        "instance",
        lambda row: {"instance_no": row["instance_no"], "closed_at_ms": NOW},
        lambda row: row["closed_at_ms"] is None,
    )
]
PAGES: list[Page] = []


def by_pid(what: str, program: str, *found: str, **other: object) -> Read:
    def params(w: World) -> dict[str, object]:
        row = w.row(f"instance {program}")
        return {name: row[name] for name in ("host", "boot_id", "pid")} | other

    return Read("instance.by_pid", what, params, [{"program": name} for name in found])


READS = [
    by_pid("the newest of two", "gateway", "other"),
    by_pid("of its own pid", "dying", "dying"),
    by_pid("closed", "killed"),
    by_pid("of another host", "dying", host="?"),
    by_pid("of another boot", "dying", boot_id="?"),
    by_pid("of another pid", "dying", pid=99),
]
