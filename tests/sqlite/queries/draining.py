"""Cases of queries/draining.sql."""

from __future__ import annotations

from sessiondb.gateway import draining
from tests.support.statement_cases import Change, Guard, Read, without
from tests.support.world_build import NOW

CHANGES = [
    Change(
        "draining.mark",
        "the process that drains, and no other",
        lambda _w, tx: draining._mark(tx),
        {"instance gateway": {"draining_at_ms": NOW}},
    ),
]
GUARDS = [
    Guard(
        "draining.mark",
        "instance",
        lambda row: {"instance_no": row["instance_no"], "now_ms": NOW},
        lambda row: row["closed_at_ms"] is None and row["draining_at_ms"] is None,
    ),
]
READS = [
    Read("draining.last", "the newest of all", {}, [{"outbox_no": "telegram:ahead"}]),
    Read("draining.last", "none", {}, [{"outbox_no": "no 0"}], without("outbox")),
]
