"""Cases of queries/stopping.sql."""

from __future__ import annotations

import json
from unittest.mock import ANY

from sessiondb.gateway import stopping
from tests.sqlite.queries.inbox import hear, heard_no
from tests.support.statement_cases import Change, Guard, Read
from tests.support.world import Recorder, World


def withdraw(w: World, tx: Recorder) -> None:
    stopping.withdraw_one(tx, w.no("inbox cut"))


HEARD = {"+inbox h1": ANY, "+inbox h2": ANY, "+inbox h3": ANY}


def withdraw_heard(w: World, tx: Recorder) -> None:
    first = heard_no(w, 1)
    hear(w, tx)
    stopping.withdraw_one(tx, first)
    found = w.connection.execute("SELECT event_id, state FROM inbox WHERE heard ORDER BY event_id")
    assert found.fetchall() == [("h1", "done"), ("h2", "heard"), ("h3", "heard")]


def edit_once(w: World, _tx: Recorder) -> None:
    """Make an edit of one message, which another session has."""
    w.connection.execute(
        "UPDATE inbox SET edit_of = ? WHERE inbox_no = ?",
        (w.no("inbox running-next"), w.no("inbox slow-next")),
    )


def ended(*turns: str) -> Read:
    listed = ("running#1", "aborted-before#1", "held#1", "cut#1")
    return Read(
        "stopping.ended",
        f"of {listed}",
        lambda w: {"turns": json.dumps([w.no(f"turn {name}") for name in listed])},
        [{"turn_no": name} for name in turns],
    )


CHANGES = [
    Change(
        "stopping.withdraw",
        "one message of several of its session",
        withdraw,
        {
            "inbox cut": {"state": "done", "told_no": ANY, "reason": "its sender took it back"},
            "+event message_withdrawn/user": ANY,
        },
    ),
    Change("stopping.withdraw", "one of three that were heard", withdraw_heard, HEARD),
]
GUARDS = [
    Guard(
        "stopping.withdraw",
        "inbox",
        lambda row: {"inbox_no": row["inbox_no"], "told_no": 1},
        lambda row: row["state"] in ("queued", "interrupted"),
    ),
]
READS = [
    ended("cut#1", "aborted-before#1"),
    Read(
        "stopping.texts",
        "a message without edits",
        lambda w: {"inbox_no": w.no("inbox running")},
        [{"inbox_no": "running", "session_no": "running", "state": "claimed"}],
    ),
    Read(
        "stopping.texts",
        "a message and its edit",
        lambda w: {"inbox_no": w.no("inbox running-next")},
        [
            {"inbox_no": "running-next", "session_no": "running", "turn_no": None},
            {"inbox_no": "slow-next", "session_no": "slow-session", "turn_no": None},
        ],
        edit_once,
    ),
    Read(
        "stopping.text",
        "an edit by itself",
        lambda w: {"inbox_no": w.no("inbox slow-next")},
        [{"inbox_no": "slow-next", "state": "queued"}],
        edit_once,
    ),
]
