"""Cases of queries/instance.sql."""

from __future__ import annotations

from tests.support.statement_cases import Change, Guard, Page, Read
from tests.support.world import Recorder, World
from tests.support.world_build import NOW

PROCESS = {
    "host": "h",
    "boot_id": "b",
    "pid": 7,
    "pid_started": 8,
    "program": "new",
    "opened_at_ms": NOW,
}


def hold_and_close(_w: World, tx: Recorder) -> None:
    """Register under a number that no row had, and close the registration of that number."""
    row = tx.one("instance.insert", **PROCESS)
    tx.run(
        "instance.hold",
        instance_no=row.instance_no,
        held_no=4711,
        database_file="1:2",
        lock_file=None,
    )
    tx.run("instance.close", instance_no=4711, closed_at_ms=NOW)


# `register` and `sign_off` need a connection of their own, so the statements run by themselves.
CHANGES = [
    Change(
        "instance.insert",
        "one new row",
        lambda w, tx: tx.one("instance.insert", **PROCESS),
        {"+instance new": PROCESS},
    ),
    Change(
        "instance.hold",
        "one process of several, whose registration was closed",
        lambda w, tx: tx.run(
            "instance.hold",
            instance_no=w.no("instance killed"),
            held_no=w.no("instance killed"),
            database_file="1:2",
            lock_file="1:3",
        ),
        {
            "instance killed": {
                "closed_at_ms": None,
                "unclean": 0,
                "database_file": "1:2",
                "lock_file": "1:3",
            }
        },
    ),
    Change(
        "instance.hold",
        "another number than the one that was free",
        hold_and_close,
        {"+instance new": PROCESS | {"database_file": "1:2", "closed_at_ms": NOW}},
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
