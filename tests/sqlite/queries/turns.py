"""Cases of queries/turns.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

from sessiondb.backend import AnyStatement
from sessiondb.gateway import lanes, leases, turns
from tests.support.statement_cases import (
    Change,
    Given,
    Guard,
    Page,
    Read,
    nothing,
    set_columns,
)
from tests.support.world import Recorder, World
from tests.support.world_build import HOUR, NOW

from .inbox import claim


def renew(name: str, *, lease_ms: int = 9_000, operation: str | None = None) -> Any:
    return lambda w, tx: leases.renew(
        tx, w.no(f"turn {name}"), lease_ms=lease_ms, operation=operation
    )


RESUMED = {
    "session_no": "resumed",
    "lane": "resume",
    "kind": "resume",
    "state": "running",
    "inbox_no": "resumed",
    "attempt": 2,
    "operation": "resume from web",
    "instance_no": "gateway",
    "started_at_ms": NOW,
    "renewed_at_ms": NOW,
    "expires_at_ms": NOW + 30_000,
    "deadline_ms": NOW + 62_000,
    "claim_id": "claim 1",
}


def run_resume(w: World, tx: Any) -> None:
    """Finish what goes before the resume, and claim it."""
    turns.fail(tx, w.no("turn resuming#2"), "never", retry=False)
    tx.run("inbox.dead_letter", inbox_no=w.no("inbox resumed-next"), reason="never", told_no=1)
    claim(tx, "resume", "claim 1")


def twice(statement: str, **params: Any) -> Any:
    """Return a statement that is run twice, and changes a row once."""

    def rule(_: World, tx: Recorder) -> None:
        assert [tx.run(AnyStatement(statement), **params) for _ in range(2)] == [1, 0]

    return rule


CHANGES = [
    Change(
        "turns.set_lane_settings",
        "what it has already is no change",
        twice("turns.set_lane_settings", lane="slow", settings='{"lease_s":5}'),
        {"lane slow": {"settings": '{"lease_s":5}'}},
    ),
    Change(
        "turns.set_lane_settings",
        "not of a lane that is dropped",
        lambda w, tx: [
            w.connection.execute("UPDATE lane SET dropped_at_ms = 5 WHERE lane = 'slow'"),
            tx.run("turns.set_lane_settings", lane="slow", settings="{}"),
        ],
        {"lane slow": {"dropped_at_ms": 5}},
    ),
    Change(
        "turns.drop_lane",
        "one that is dropped stays as it is",
        twice("turns.drop_lane", lane="slower", now_ms=NOW),
        {"lane slower": {"dropped_at_ms": NOW}},
    ),
    Change(
        "turns.set_lane",
        "whether people write in a lane",
        lambda w, tx: lanes.set_lane(tx, "slow", 2, 5, people=True),
        {"lane slow": {"people": 1}, "+event lane_changed/operator": ANY},
    ),
    Change(
        "turns.pause_lane",
        "one lane of several, once",
        lambda w, tx: [lanes.pause(tx, "slow") for _ in range(2)],
        {"lane slow": {"paused_at_ms": NOW}, "+event lane_changed/operator": ANY},
    ),
    Change(
        "turns.pause_lane",
        "a lane that runs is not resumed",
        lambda w, tx: [tx.run("turns.pause_lane", lane="slow", at_ms=None)],
        {},
    ),
    Change(
        "turns.set_lane_settings",
        "one lane of several",
        lambda w, tx: lanes.set_settings(tx, "slow", '{"lease_s":5}'),
        {"lane slow": {"settings": '{"lease_s":5}'}, "+event lane_changed/operator": ANY},
    ),
    Change(
        "turns.move_messages",
        "what waits in one lane, and what a turn works on or an operator decides about",
        lambda w, tx: [
            tx.run(
                "turns.move_messages",
                lane="wide",
                into="slow",
                numbers=json.dumps([w.no("inbox retried"), w.no("inbox cron-next")]),
            ),
        ],
        {"inbox retried": {"lane": "slow"}},
    ),
    Change(
        "turns.move_messages",
        "the lane that a resume came from",
        lambda w, tx: tx.run(
            "turns.move_messages",
            lane="main",
            into="slow",
            numbers=json.dumps([w.no("inbox resumed"), w.no("inbox held-too")]),
        ),
        {"inbox resumed": {"lane_before": "slow"}},
    ),
    Change(
        "turns.drop_lane",
        "one lane, whose messages had gone",
        lambda w, tx: [
            tx.run("turns.set_lane", lane="new", concurrency=1, priority=1, people=None),
            lanes.drop(tx, "new", None),
        ],
        {
            "+lane new": {"concurrency": 1, "priority": 1, "dropped_at_ms": NOW},
            "+event lane_changed/operator": ANY,
        },
    ),
    Change(
        "turns.set_lane",
        "a lane that was dropped, anew",
        lambda w, tx: [
            w.connection.execute(
                "UPDATE lane SET dropped_at_ms = 5, paused_at_ms = 5, settings = '{}', people = 1"
                " WHERE lane = 'slow'"
            ),
            lanes.set_lane(tx, "slow", 7, 6),
        ],
        {"lane slow": {"concurrency": 7, "priority": 6}, "+event lane_changed/operator": ANY},
    ),
    Change(
        "turns.make_room",
        "for more turns at once than one lane has",
        lambda w, tx: [
            tx.run("turns.make_room", lane=lane, concurrency=4) for lane in ("slow", "wide", "main")
        ],
        {"lane slow": {"concurrency": 4}},
    ),
    Change(
        "turns.set_lane",
        "one lane of several",
        lambda w, tx: lanes.set_lane(tx, "slow", 7, 6),
        {"lane slow": {"concurrency": 7, "priority": 6}, "+event lane_changed/operator": ANY},
    ),
    Change(
        "turns.set_lane",
        "a new lane, of people",
        lambda w, tx: lanes.set_lane(tx, "new", 7, 6, people=True),
        {
            "+lane new": {"concurrency": 7, "priority": 6, "people": 1},
            "+event lane_changed/operator": ANY,
        },
    ),
    Change(
        "turns.set_lane",
        "a new lane",
        lambda w, tx: lanes.set_lane(tx, "new", 7, 6),
        {"+lane new": {"concurrency": 7, "priority": 6}, "+event lane_changed/operator": ANY},
    ),
    Change(
        "turns.start",
        "the turn of a claim",
        run_resume,
        {
            "+turn resumed#2": RESUMED,
            "+event turn_started/operator": ANY,
            "inbox resumed": {
                "state": "claimed",
                "attempts": 2,
                "turn_no": "resumed#2",
            },
            "inbox resuming": ANY,
            "inbox resumed-next": ANY,
            "inbox resuming-next": ANY,
            "turn resuming#2": ANY,
            "+event turn_failed/operator": ANY,
            "+event message_dead/user": ANY,
            "+event message_dead/operator": ANY,
        },
    ),
    Change(
        "turns.renew",
        "one lease of several, and its operation",
        renew("silent#1", operation="thinks"),
        {
            "turn silent#1": {
                "operation": "thinks",
                "renewed_at_ms": NOW,
                "expires_at_ms": NOW + 9_000,
            }
        },
    ),
    Change(
        "turns.renew",
        "at most to its deadline",
        renew("silent#1", lease_ms=10_000 * HOUR),
        {
            "turn silent#1": {
                "renewed_at_ms": NOW,
                "expires_at_ms": NOW + 9 * 24 * HOUR + 21 * HOUR + 17_000,
            }
        },
    ),
    Change(
        "turns.note_progress",
        "one running turn of several",
        lambda w, tx: turns.note_progress(tx, w.no("turn running#1"), '{"id":1}'),
        {"turn running#1": {"progress": '{"id":1}'}},
    ),
    Change(
        "turns.finish",
        "one running turn of several",
        lambda w, tx: turns.complete(
            tx, w.no("turn running#1"), [], [], incomplete=True, reason="it is empty"
        ),
        {
            "turn running#1": {
                "state": "completed",
                "finished_at_ms": NOW,
                "incomplete": 1,
                "reason": "it is empty",
            },
            "inbox running": {"state": "done", "reason": "it is empty"},
            "inbox running-next": {"waits": 0},
            "+event turn_completed/operator": ANY,
            "+event turn_incomplete/user": ANY,
        },
    ),
    Change(
        "turns.finish",
        "the expired turns of all lanes",
        lambda w, tx: leases.take_over_expired(tx, alive=json.dumps([w.no("turn held#1")])),
        {
            "turn silent#1": {
                "state": "interrupted",
                "finished_at_ms": NOW,
                "reason": "its lease ran out",
            },
            "inbox silent": {"state": "interrupted", "reason": "its lease ran out"},
            "+event turn_interrupted/user": ANY,
            "+event turn_interrupted/operator": ANY,
            "turn resuming#2": {
                "state": "interrupted",
                "finished_at_ms": NOW,
                "reason": "its lease ran out",
            },
            "inbox resuming": {"state": "interrupted", "reason": "its lease ran out"},
            "inbox resuming-next": {"waits": 0},
            "+event turn_interrupted/user 2": ANY,
            "+event turn_interrupted/operator 2": ANY,
        },
    ),
]


def running(row: Any) -> bool:
    return row["state"] == "running"


GUARDS = [
    Guard(
        "turns.renew",
        "turn",
        lambda row: {
            "turn_no": row["turn_no"],
            "now_ms": NOW,
            "expires_at_ms": NOW,
            "operation": None,
        },
        running,
    ),
    Guard(
        "turns.note_progress",
        "turn",
        lambda row: {"turn_no": row["turn_no"], "progress": "1"},
        running,
    ),
    Guard(
        "turns.finish",
        "turn",
        lambda row: {
            "turn_no": row["turn_no"],
            "state": "aborted",
            "now_ms": NOW,
            "incomplete": 0,
            "reason": None,
        },
        running,
    ),
]
PAGES: list[Page] = []


def lane(name: str, concurrency: int, priority: int, running: int) -> Read:
    row = {"lane": name, "concurrency": concurrency, "priority": priority, "running": running}
    return Read("turns.lane", name, {"lane": name}, [row])


def numbers(w: World, names: tuple[str, ...]) -> str:
    return json.dumps([w.no(f"turn {name}") for name in names])


def expired(now_ms: int, alive: tuple[str, ...], limit: int, *rows: str) -> Read:
    return Read(
        "turns.expired",
        f"{limit} at {now_ms} without {alive}",
        lambda w: {"now_ms": now_ms, "alive": numbers(w, alive), "limit": limit},
        [{"turn_no": name} for name in rows],
    )


def nothing_waits(w: World, _tx: Recorder) -> None:
    w.connection.execute(
        "UPDATE inbox SET lane = 'slower' WHERE state = 'queued' AND lane <> 'resume'"
    )


def open_in(name: str, given: Given = nothing) -> Read:
    """Return a read of what a lane accepted and is not done, of each kind the oldest first."""

    def numbers(w: World) -> list[dict[str, Any]]:
        rows = [(label.partition(" ")[2], row) for label, row in w.rows("inbox")]
        rows.sort(key=lambda one: one[1]["inbox_no"])
        kinds: tuple[Callable[[Any], bool], ...] = (
            lambda row: row["state"] == "queued" and row["lane"] == name,
            lambda row: row["state"] == "queued" and row["lane"] == "resume" and was_in(row),
            lambda row: row["state"] == "dead" and was_in(row),
            lambda row: row["state"] == "interrupted" and was_in(row),
            lambda row: row["state"] == "claimed" and was_in(row),
        )
        if given is nothing_waits:
            kinds = kinds[1:]
        return [{"inbox_no": label} for holds in kinds for label, row in rows if holds(row)]

    def was_in(row: Any) -> bool:
        return bool((row["lane_before"] or row["lane"]) == name)

    return Read("turns.open_in_lane", name, {"lane": name, "limit": 99}, numbers, given)


RENEWED = ("running#1", "running-too#1", "held-too#1")
"""The turns that run, in the order in which their leases end."""

# What each turn of a session took, in their order. A clock was set back during the second.
TOOK = {"aborted-before": 1_000, "failed-before": -500, "cut-failed": 30}
NO_TURN = {"turns": 0, "took_ms": 0}


def took(w: World, turn: str, ms: int) -> None:
    """Let a turn that ended have taken so long."""
    w.connection.execute(
        "UPDATE turn SET finished_at_ms = started_at_ms + ? WHERE turn_no = ?", (ms, w.no(turn))
    )


def pace_of_wide(w: World, _tx: Recorder) -> None:
    labels = [label for label, row in w.rows("turn") if row["lane"] == "wide"]
    for label, ms in zip(labels, (7, -5, 7, 7), strict=True):
        took(w, label, ms)


READS = [
    Read(
        "turns.progress_of_message",
        "that of its own turn",
        lambda w: {"inbox_no": w.no("inbox running-too")},
        [{"progress": "2"}],
        lambda w, tx: [
            set_columns(f"turn {name}#1", progress=noted)(w, tx)
            for name, noted in (("running", "1"), ("running-too", "2"), ("silent", "3"))
        ],
    ),
    *(open_in(name) for name in ("cron", "slow")),
    open_in("main", nothing_waits),
    Read(
        "turns.session_of",
        "its own",
        lambda w: {"turn_no": w.no("turn held-too#1")},
        [{"session_no": "held-too"}],
    ),
    lane("main", 4, 0, 3),
    lane("cron", 1, 10, 1),
    lane("resume", 1, 20, 1),
    lane("wide", 9, -1, 0),
    *(
        Read("turns.lanes_before", name, {"lane": name}, [{"lane": row} for row in rows])
        for name, rows in (
            ("wide", []),
            ("main", ["wide"]),
            ("slow", ["wide", "main"]),
            ("cron", ["wide", "main", "slow", "slower"]),
        )
    ),
    Read(
        "turns.get",
        "one turn",
        lambda w: {"turn_no": w.no("turn resuming#2")},
        [
            {
                "turn_no": "resuming#2",
                "session_no": "resuming",
                "session_id": "resuming",
                "lane": "resume",
                "kind": "resume",
                "state": "running",
                "inbox_no": "resuming",
                "attempt": 2,
                "instance_no": "other",
            }
        ],
    ),
    Read(
        "turns.running_of_session",
        "the one that runs",
        lambda w: {"session_no": w.no("session resuming")},
        [{"turn_no": "resuming#2", "operation": "resume from web"}],
    ),
    Read(
        "turns.running_of_session",
        "of an idle session",
        lambda w: {"session_no": w.no("session cut")},
        [],
    ),
    Read(
        "turns.running_of_session",
        "with its process",
        lambda w: {"session_no": w.no("session held-too")},
        [{"turn_no": "held-too#1", "pid": 14}],
    ),
    *(
        Read(
            "turns.claimed_as",
            f"{claim_id} of lane {lane}",
            lambda _w, lane=lane, claim_id=claim_id: {"lane": lane, "claim_id": claim_id},
            [found] if found else [],
        )
        for lane, claim_id, found in (
            ("main", "claim 1", {"turn_no": "running#1", "inbox_no": "running", "attempt": 1}),
            ("cron", "claim 1", {"turn_no": "running-too#1", "inbox_no": "running-too"}),
            ("slow", "claim 1", None),
            ("main", "claim 3", None),  # it has ended
            ("main", None, None),
        )
    ),
    expired(NOW, (), 9, "held#1", "silent#1", "resuming#2"),
    expired(NOW, (), 1, "held#1"),
    expired(NOW, ("held#1",), 9, "silent#1", "resuming#2"),
    *(
        Read(
            "turns.expired",
            what,
            lambda w, early=early: {
                "now_ms": w.row("turn running-too#1")["expires_at_ms"] - early,
                "alive": numbers(
                    w, ("held#1", "silent#1", "resuming#2", "running#1", "held-too#1")
                ),
                "limit": 9,
            },
            [{"turn_no": name} for name in names],
        )
        for what, early, names in (
            ("at the end of a lease", 0, ["running-too#1"]),
            ("before its end", 1, []),
        )
    ),
    expired(NOW + 2 * HOUR, ("held#1", "silent#1", "resuming#2"), 9, *RENEWED),
    *(
        Read(
            "turns.of_instance",
            f"{limit} of {program}",
            lambda w, program=program, limit=limit: {
                "instance_no": w.no(f"instance {program}"),
                "limit": limit,
            },
            [{"turn_no": name} for name in rows],
        )
        for program, limit, rows in (
            ("other", 9, ["running-too#1", "silent#1", "resuming#2"]),
            ("other", 2, ["running-too#1", "silent#1"]),
            ("dying", 9, ["held#1"]),
            ("killed", 9, []),
        )
    ),
    *(
        Read(
            "turns.next_expiry",
            f"without {alive}",
            lambda w, alive=alive: {"alive": numbers(w, alive)},
            lambda w, next_name=next_name: [
                {"at_ms": w.row(f"turn {next_name}")["expires_at_ms"] if next_name else None}
            ],
        )
        for alive, next_name in (
            ((), "held#1"),
            (("held#1",), "silent#1"),
            (("held#1", "silent#1"), "resuming#2"),
            (("held#1", "silent#1", "resuming#2"), "running#1"),
            (("held#1", "silent#1", "resuming#2", *RENEWED), None),
        )
    ),
    *(
        Read(
            "turns.pace_of_session",
            f"{count} of {name}",
            lambda w, name=name, count=count: {
                "session_no": w.no(f"session {name}"),
                "turns": count,
            },
            [{"turns": turns}],
        )
        for name, count, turns in (("cut-failed", 9, 3), ("cut-failed", 2, 2), ("running", 9, 0))
    ),
    *(
        Read(
            "turns.pace_of_lane",
            f"{lane} of {count}",
            {"lane": lane, "turns": count},
            [{"turns": turns}],
        )
        for lane, count, turns in (("wide", 999, 4), ("wide", 1, 1), ("slow", 999, 0))
    ),
    *(
        Read(
            "turns.pace_of_session",
            f"the time of the last {count}",
            lambda w, count=count: {"session_no": w.no("session cut-failed"), "turns": count},
            [{"turns": count, "took_ms": took_ms}],
            lambda w, _tx: [took(w, f"turn {name}#1", ms) for name, ms in TOOK.items()],
        )
        for count, took_ms in ((3, 1_030), (2, 30), (1, 30))
    ),
    Read(
        "turns.pace_of_session",
        "no time of none",
        lambda w: {"session_no": w.no("session running"), "turns": 9},
        [{"turns": 0, "took_ms": 0}],
    ),
    Read(
        "turns.pace_of_lane",
        "the time of its turns, one of which a clock that was set back ended",
        {"lane": "wide", "turns": 999},
        [{"turns": 4, "took_ms": 21}],
        pace_of_wide,
    ),
    Read("turns.pace_of_lane", "no time of none", {"lane": "slow", "turns": 999}, [NO_TURN]),
]
