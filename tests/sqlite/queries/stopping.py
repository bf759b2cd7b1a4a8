"""Cases of queries/stopping.sql."""

from __future__ import annotations

import json
from unittest.mock import ANY

from sessiondb.gateway import stopping
from tests.support.statement_cases import Change, Guard, Read
from tests.support.world import Recorder, World


def withdraw(w: World, tx: Recorder) -> None:
    stopping.withdraw_one(tx, w.no("inbox cut"))


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
