"""Cases of queries/details.sql."""

from __future__ import annotations

from sessiondb.transcript import details
from tests.support.statement_cases import Change, Read, run
from tests.support.world_build import NOW

CHANGES = [
    Change(
        "details.set",
        "in the place of others",
        lambda w, tx: details.put(tx, w.no("session twin"), '{"a":1}', 1),
        {
            "session_details twin": {
                "revision": 2,
                "changed_at_ms": NOW,
                "document": '{"a":1}',
            }
        },
    ),
    Change(
        "details.set",
        "where there were none",
        lambda w, tx: details.put(tx, w.no("session twin-undone"), '{"a":1}', 0),
        {
            "+session_details twin-undone": {
                "revision": 1,
                "changed_at_ms": NOW,
                "document": '{"a":1}',
            }
        },
    ),
    Change(
        "details.forget",
        "those of one session",
        run("details.forget", session_no="session twin"),
        {"-session_details twin": {}},
    ),
]
READS = [
    Read(
        "details.of_session",
        "one of several",
        lambda w: {"session_no": w.no("session twin")},
        [{"revision": 1, "document": '{"of":"twin"}'}],
    ),
    Read(
        "details.of_session",
        "a session without",
        lambda w: {"session_no": w.no("session twin-undone")},
        [],
    ),
]
