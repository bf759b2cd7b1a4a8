"""Cases of queries/foreign_ids.sql."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

from sessiondb.transcript import foreign_ids
from tests.support.statement_cases import Change, Read, run
from tests.support.world import Recorder, World
from tests.support.world_build import NOW


def open_new(_: World, tx: Recorder) -> None:
    wanted = foreign_ids.foreign_id("app", "THREAD 1")
    foreign_ids.open_for(tx, wanted, session_id="new", agent_id="west")


CHANGES = [
    Change(
        "foreign_ids.add",
        "a session with its name",
        open_new,
        {
            "+session new": ANY,
            "+epoch new/0": ANY,
            "+entry new/0": ANY,
            "+foreign_id app/THREAD 1": {
                "session_no": "new",
                "named_at_ms": NOW,
            },
        },
    ),
    Change(
        "foreign_ids.forget",
        "that of one session",
        run("foreign_ids.forget", session_no="session twin"),
        {"-foreign_id app/Thread 1": {}},
    ),
    Change(
        "foreign_ids.forget",
        "of a session without one",
        run("foreign_ids.forget", session_no="session twin-undone"),
        {},
    ),
]


def found(namespace: str, external_id: str, rows: list[dict[str, Any]]) -> Read:
    return Read(
        "foreign_ids.find",
        f"{external_id!r} of {namespace}",
        {"namespace": namespace, "external_id": external_id},
        rows,
    )


READS = [
    found("app", "thread 1", [{"session_no": "live", "session_id": "live", "formats": 1}]),
    found("app", "Thread 1", [{"session_no": "twin"}]),
    found("app", "thread 1 ", [{"session_no": "live-ended"}]),
    found("other app", "thread 1", [{"session_no": "live-fork"}]),
    found("app", "thread", []),
    found("other app", "Thread 1", []),
]
