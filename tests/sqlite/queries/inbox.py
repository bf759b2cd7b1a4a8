"""Cases of queries/inbox.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal
from unittest.mock import ANY

import pytest

from sessiondb.backend import AnyStatement
from sessiondb.errors import StoreDamaged
from sessiondb.gateway import claims, inbox, recovery, turns
from sessiondb.gateway.recovery import Decision, ResumePolicy
from sessiondb.transcript.content import digest
from sessiondb.transcript.entries import draft_decoded
from sessiondb.transcript.keys import parse_key
from tests.support.core import user
from tests.support.statement_cases import (
    Change,
    Given,
    Guard,
    Page,
    Read,
    nothing,
    set_columns,
)
from tests.support.world import Changes, Recorder, World
from tests.support.world_build import DAY, NOW, SECOND

OPEN = ("queued", "claimed", "interrupted")


def incoming(channel: str, event_id: str, key: str, text: str, lane: str) -> inbox.Incoming:
    message = user(text)
    return inbox.Incoming(
        channel,
        event_id,
        parse_key(key),
        lane,
        json.dumps(message),
        digest(message),
        "not used",
    )


def accept(w: World, tx: Recorder) -> None:
    inbox.accept(tx, incoming("telegram", "new", "agent:west:chat:done-too", "new", "slow"))


def edit(event_id: str, session_id: str, **fields: Any) -> Any:
    key = f"agent:main:chat:{session_id}"
    message = replace(incoming("web", event_id, key, "edited", "not used"), **fields)
    return lambda w, tx: inbox.edit(tx, message, 7)


def hear(_w: World, tx: Recorder) -> None:
    """Let one session hear two messages, and another one a third."""
    for event_id, session_id in (("h1", "untold"), ("h2", "untold"), ("h3", "untold-too")):
        message = incoming("web", event_id, f"agent:main:chat:{session_id}", event_id, "main")
        inbox.accept(tx, replace(message, heard=True))


def of_another_type(w: World, _tx: Recorder) -> None:
    """Let the entry of a message of the inbox be of another type, as in a damaged file."""
    w.connection.execute(
        "UPDATE entry SET type = 'custom' WHERE entry_no = ?", (w.no("entry held/1"),)
    )


def superseded(w: World, tx: Recorder) -> None:
    """Let a message have ended with another one's turn."""
    set_columns("inbox cut", superseded_by="inbox m-sent", told_no=1, state="done")(w, tx)


def by_name(event_id: str) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"inbox_no": w.no(f"inbox {event_id}")}


def heard_no(w: World, count: int) -> int:
    """Return the number that the message of that count gets."""
    last = w.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'inbox'").get
    return int(last) + count


def end_heard(statement: Literal["append_heard", "drop_heard"], **values: Any) -> Any:
    def rule(w: World, tx: Recorder) -> None:
        first = heard_no(w, 1)
        hear(w, tx)
        name = AnyStatement(f"inbox.{statement}")
        tx.run(name, inbox_no=first, **values)
        with pytest.raises(StoreDamaged):
            tx.run(name, inbox_no=first, **values)  # only once
        found = w.connection.execute(
            "SELECT event_id, state, payload IS NULL FROM inbox WHERE heard"
        )
        moved = statement == "append_heard"
        reasons = w.connection.execute("SELECT reason FROM inbox WHERE heard ORDER BY event_id")
        assert reasons.fetchall() == [(values.get("reason"),), (None,), (None,)]
        assert found.fetchall() == [("h1", "done", moved), ("h2", "heard", 0), ("h3", "heard", 0)]

    return rule


def claim(tx: Recorder, lane: str = "main", claim_id: str | None = None) -> claims.Started:
    candidate = claims.peek(tx, lane, NOW)
    assert candidate is not None
    draft, _ = draft_decoded(candidate.payload, now_ms=NOW)
    started = claims.claim(
        tx, lane, candidate, draft, lease_ms=30_000, timeout_ms=60_000, claim_id=claim_id
    )
    assert started is not None
    return started


def answer_newer(w: World, tx: Recorder) -> None:
    """Claim and answer a person's message behind an interrupted one."""
    turn = claim(tx)
    turns.complete(tx, turn.turn_no, [], [], incomplete=False, reason=None)


def resume(w: World, tx: Recorder) -> None:
    """Resume a message that had a pause once: it has none now."""
    set_columns("inbox cut-too", available_at_ms=5)(w, tx)
    decision = Decision(w.no("inbox cut-too"), "cut-too", "resume", "", 0, 1)
    recovery.apply(tx, [decision], ResumePolicy(deadline_s=7))


def mark(w: World, waits: int, *names: str) -> None:
    """Mark queued messages, or all of them."""
    w.connection.execute(
        "UPDATE inbox SET waits = ? WHERE state = 'queued' "
        "AND (? = '[]' OR event_id IN (SELECT value FROM json_each(?)))",
        (waits, json.dumps(names), json.dumps(names)),
    )


def replace_text_of_a_dead_letter(w: World, tx: Recorder) -> None:
    inbox_no = w.no("inbox untold")
    tx.run("inbox.dead_letter", inbox_no=inbox_no, reason="why", told_no=1)
    new = {"payload": "{}", "digest": "d", "details": None}
    assert tx.run("inbox.replace_text", inbox_no=inbox_no, **new) == 0


def requeue_after_stops(w: World, tx: Recorder) -> None:
    """Requeue a message that stops had sent back before. None of them counts any more."""
    inbox_no = w.no("inbox dead-resume")
    set_columns("inbox dead-resume", stops=3, available_at_ms=5, waits=1)(w, tx)
    inbox.requeue(tx, inbox_no)


def edit_twice(w: World, _tx: Recorder) -> None:
    """Make two edits of one message, which other sessions have."""
    for name in ("running-next", "cron-next"):
        w.connection.execute(
            "UPDATE inbox SET edit_of = ? WHERE inbox_no = ?",
            (w.no("inbox retried"), w.no(f"inbox {name}")),
        )


def lined_up(
    what: str, session_id: str, moved: Changes, marked: int, given: Given = nothing
) -> list[Change]:
    """Return the cases of one message that has come into a session, and had the wrong mark."""
    [(label, columns)] = moved.items()

    def place(w: World, tx: Recorder) -> None:
        given(w, tx)
        to_session = {"session_no": f"session {session_id}"}
        set_columns(label, **columns, **to_session, waits=1 - marked)(w, tx)

    def line_up(w: World, tx: Recorder) -> None:
        place(w, tx)
        tx.run("inbox.line_up", session_no=w.no(f"session {session_id}"))

    def line_up_all(w: World, tx: Recorder) -> None:
        place(w, tx)
        inbox.line_up_all(tx)

    def rows(w: World) -> Changes:
        with w.undone() as tx:
            given(w, tx)
            set_columns(label, **columns, session_no=f"session {session_id}", waits=marked)(w, tx)
            return w.changed()

    return [
        Change("inbox.line_up", what, line_up, rows),
        Change("inbox.line_up_all", what, line_up_all, rows),
    ]


def behind_a_resume(w: World, tx: Recorder) -> None:
    """Leave a resume alone in its session, and put lane slow behind that of resumes."""
    set_columns("inbox resumed-next", session_no="session live")(w, tx)
    w.connection.execute("UPDATE lane SET priority = 30 WHERE lane = 'slow'")


def accept_behind_a_resume(w: World, tx: Recorder) -> None:
    behind_a_resume(w, tx)
    inbox.accept(tx, incoming("web", "new", "agent:main:chat:resumed", "new", "slow"))


def wait_behind(session_id: str, writes: int, given: Given) -> Callable[[World, Recorder], None]:
    """Return the rule over a session. It writes so many rows."""

    def rule(w: World, tx: Recorder) -> None:
        given(w, tx)
        session_no = w.no(f"session {session_id}")
        assert tx.run("inbox.wait_behind", session_no=session_no) == writes

    return rule


def mark_restored(w: World, tx: Recorder) -> None:
    """Mark three of the interrupted messages, and one that has another state by now."""
    numbers = [w.no(f"inbox {name}") for name in ("cut", "cut-too", "cut-failed", "dead")]
    w.connection.execute(
        "UPDATE inbox SET restored = 1 WHERE inbox_no IN (?, ?, ?, ?)", numbers
    ).fetchall()


def requeue_restored(w: World, tx: Recorder) -> None:
    w.connection.execute(
        "UPDATE inbox SET restored = 1 WHERE inbox_no IN (?, ?)",
        [w.no("inbox cut"), w.no("inbox cut-too")],
    ).fetchall()
    given = {"lane": "resume", "lane_before": "cron", "available_at_ms": 5, "timeout_ms": 9}
    set_columns("inbox cut", **given)(w, tx)
    tx.run("inbox.requeue_restored", inbox_no=w.no("inbox cut"), now_ms=NOW)


def requeue_others(w: World, tx: Recorder) -> None:
    dead = w.no("inbox dead")
    w.connection.execute("UPDATE inbox SET restored = 1 WHERE inbox_no = ?", [dead]).fetchall()
    for number in (w.no("inbox cut"), dead):
        tx.run("inbox.requeue_restored", inbox_no=number, now_ms=NOW)


CHANGES = [
    *lined_up("before a message of a later lane", "cron-session", {"inbox told": {}}, 0),
    *lined_up(
        "behind one of another lane with its priority",
        "slow-session",
        {"inbox told": {"lane": "slower"}},
        1,
    ),
    *lined_up(
        "a resume lets a message go first", "resumed", {"inbox slow-next": {}}, 0, behind_a_resume
    ),
    *(
        Change(
            statement,
            "a resume beside a turn has no mark",
            lambda w, tx, statement=statement, params=params: [
                set_columns("inbox resumed", session_no="session running")(w, tx),
                tx.run(statement, **params(w)),
            ],
            {"inbox resumed": {"session_no": "running"}},
        )
        for statement, params in (
            ("inbox.line_up", lambda w: {"session_no": w.no("session running")}),
            ("inbox.line_up_all", lambda _: {}),
        )
    ),
    Change(
        "inbox.accept",
        "a resume lets it go first",
        accept_behind_a_resume,
        {
            "inbox resumed-next": {"session_no": "live"},
            "lane slow": {"priority": 30},
            "+inbox new": {
                "channel": "web",
                "event_id": "new",
                "session_no": "resumed",
                "session_key": "agent:main:chat:resumed",
                "digest": digest(user("new")),
                "lane": "slow",
                "state": "queued",
                "accepted_at_ms": NOW,
                "available_at_ms": 0,
                "queued_at_ms": NOW,
                "payload": '{"role": "user", "content": "new"}',
            },
        },
    ),
    Change(
        "inbox.wait_behind",
        "no resume behind another one",
        wait_behind(
            "resumed", 0, set_columns("inbox resumed-next", lane="resume", lane_before="main")
        ),
        {"inbox resumed-next": {"lane": "resume", "lane_before": "main"}},
    ),
    Change(
        "inbox.wait_behind",
        "no message that does not wait",
        wait_behind(
            "told",
            0,
            set_columns("inbox untold-too", state="interrupted", session_no="session told"),
        ),
        {"inbox untold-too": {"state": "interrupted", "session_no": "told"}},
    ),
    Change(
        "inbox.wait_behind",
        "none of another session",
        wait_behind("told", 0, lambda w, _: mark(w, 0, "retried-behind", "retried-too-behind")),
        {"inbox retried-behind": {"waits": 0}, "inbox retried-too-behind": {"waits": 0}},
    ),
    Change("inbox.wait_behind", "no row that has its mark", wait_behind("retried", 0, nothing), {}),
    Change(
        "inbox.accept",
        "a message is one new row",
        accept,
        {
            "+inbox new": {
                "channel": "telegram",
                "event_id": "new",
                "session_no": "done-too",
                "session_key": "agent:west:chat:done-too",
                "digest": digest(user("new")),
                "lane": "slow",
                "state": "queued",
                "accepted_at_ms": NOW,
                "available_at_ms": 0,
                "queued_at_ms": NOW,
                "payload": '{"role": "user", "content": "new"}',
            }
        },
    ),
    Change(
        "inbox.replace_text",
        "an edit of a message that no turn has read",
        edit("untold", "untold"),
        {
            "inbox untold": {
                "edited": 7,
                "digest": digest(user("edited")),
                "payload": '{"role": "user", "content": "edited"}',
            }
        },
    ),
    *(
        Change(
            statement,
            what,
            rule,
            {"+inbox h1": ANY, "+inbox h2": ANY, "+inbox h3": ANY},
        )
        for statement, what, rule in (
            ("inbox.hear", "in its session, and in no queue", hear),
            ("inbox.append_heard", "one of two", end_heard("append_heard", entry_no=1)),
            ("inbox.drop_heard", "one of two", end_heard("drop_heard", reason="why")),
        )
    ),
    Change(
        "inbox.replace_text",
        "with details of its own",
        edit("untold", "untold", details='{"its": "own"}'),
        {
            "inbox untold": {
                "edited": 7,
                "digest": digest(user("edited")),
                "details": '{"its": "own"}',
                "payload": '{"role": "user", "content": "edited"}',
            }
        },
    ),
    Change(
        "inbox.replace_text",
        "not of a dead letter, which no turn has read either",
        replace_text_of_a_dead_letter,
        {"inbox untold": {"state": "dead", "reason": "why", "told_no": ANY}},
    ),
    Change(
        "inbox.note_edit",
        "an edit of a message that a turn has read",
        edit("retried", "retried"),
        {"inbox retried": {"edited": 7}, "+inbox retried edit 7": ANY},
    ),
    Change(
        "inbox.claim",
        "the next message, and not the one that it continues",
        lambda w, tx: claim(tx),
        {
            "inbox cut-next": {
                "state": "claimed",
                "attempts": 1,
                "turn_no": "cut-next#1",
                "entry_no": "cut/2",
                "payload": None,
            },
            "+turn cut-next#1": ANY,
            "+entry cut/2": ANY,
            "+event turn_started/operator": ANY,
            "session cut": ANY,
        },
    ),
    Change(
        "inbox.supersede",
        "an interrupted message that the context of an answer had",
        answer_newer,
        {
            "inbox cut-next": {
                "state": "done",
                "attempts": 1,
                "turn_no": "cut-next#1",
                "entry_no": "cut/2",
                "payload": None,
            },
            "inbox cut": {"state": "done", "superseded_by": ANY, "told_no": ANY, "reason": ANY},
            "+turn cut-next#1": ANY,
            "+entry cut/2": ANY,
            "+event turn_started/operator": ANY,
            "+event turn_completed/operator": ANY,
            "+event message_superseded/user": ANY,
            "session cut": ANY,
        },
    ),
    Change(
        "inbox.finish",
        "an aborted turn finishes its own message",
        lambda w, tx: turns.abort(tx, w.no("turn running#1"), "stop"),
        {
            "turn running#1": ANY,
            "inbox running": {"state": "done", "reason": "stop", "told_no": ANY},
            "inbox running-next": {"waits": 0},
            "+event turn_aborted/user": ANY,
            "+event turn_aborted/operator": ANY,
        },
    ),
    Change(
        "inbox.retry",
        "a failed turn. Those behind its own wait for it",
        lambda w, tx: turns.fail(tx, w.no("turn running#1"), "again", retry=True),
        {
            "turn running#1": ANY,
            "inbox running": {
                "state": "queued",
                "available_at_ms": NOW + SECOND,
                "queued_at_ms": NOW + SECOND,
                "reason": "again",
            },
            "+event turn_failed/operator": ANY,
        },
    ),
    Change(
        "inbox.retry",
        "a message of a turn, which waits for no newer one",
        lambda w, tx: tx.run(
            "inbox.retry",
            inbox_no=w.no("inbox running"),
            turn_no=w.no("turn running#1"),
            available_at_ms=NOW,
            more_time=2,
            reason="again",
        ),
        {
            "inbox running": {
                "state": "queued",
                "available_at_ms": NOW,
                "queued_at_ms": NOW,
                "reason": "again",
            }
        },
    ),
    Change(
        "inbox.retry",
        "a message, which waits for no older one that has ended, or is of another lane",
        lambda w, tx: [
            set_columns("inbox cut-failed", state="claimed")(w, tx),
            set_columns("inbox resumed", session_no="session cut-failed")(w, tx),
            tx.run(
                "inbox.retry",
                inbox_no=w.no("inbox cut-failed"),
                turn_no=w.no("turn cut-failed#1"),
                available_at_ms=NOW,
                more_time=2,
                reason="again",
            ),
        ],
        {
            "inbox cut-failed": {
                "state": "queued",
                "available_at_ms": NOW,
                "queued_at_ms": NOW,
                "reason": "again",
            },
            "inbox resumed": {"session_no": "cut-failed"},
        },
    ),
    Change(
        "inbox.retry",
        "a resume, with more time",
        lambda w, tx: tx.run(
            "inbox.retry",
            inbox_no=w.no("inbox resuming"),
            turn_no=w.no("turn resuming#2"),
            available_at_ms=NOW,
            more_time=2,
            reason="again",
        ),
        {
            "inbox resuming": {
                "state": "queued",
                "available_at_ms": NOW,
                "queued_at_ms": NOW,
                "timeout_ms": 180_000,
                "reason": "again",
            }
        },
    ),
    *(
        Change(
            "inbox.accept",
            f"into lane {lane} of session {name}, {'marked' if 'waits' in waits else 'not marked'}",
            lambda w, tx, name=name, lane=lane: inbox.accept(
                tx, incoming("web", "new", f"agent:main:chat:{name}", "new", lane)
            ),
            {
                "+inbox new": {
                    "channel": "web",
                    "event_id": "new",
                    "session_no": name,
                    "session_key": f"agent:main:chat:{name}",
                    "digest": digest(user("new")),
                    "lane": lane,
                    "state": "queued",
                    "accepted_at_ms": NOW,
                    "available_at_ms": 0,
                    "queued_at_ms": NOW,
                    "payload": '{"role": "user", "content": "new"}',
                }
                | waits
            },
        )
        for name, lane, waits in (
            # behind a turn of another lane, a message, and one in a lane before its own
            ("running-too", "main", {"by_person": 1, "waits": 1}),
            ("cut", "main", {"by_person": 1, "waits": 1}),
            ("cut", "cron", {"waits": 1}),
            # the other one's lane goes behind, and an interrupted message lets it go first
            ("cron-session", "main", {"by_person": 1}),
            ("cut-too", "main", {"by_person": 1}),
        )
    ),
    Change(
        "inbox.wait_behind",
        "those behind another one of their lane, and no resume",
        lambda w, tx: [
            mark(w, 0),
            *(
                tx.run("inbox.wait_behind", session_no=w.no(f"session {name}"))
                for name in ("retried", "resumed", "running", "retried-too")
            ),
        ],
        {
            f"inbox {name}": {"waits": 0}
            for name in (
                *("running-next", "running-later", "resuming-next"),
                *("retried-last", "retried-too-last"),
            )
        },
    ),
    Change(
        "inbox.line_up",
        "the first of each lane that waits for a turn, or for a lane before its own",
        lambda w, tx: [
            mark(w, 0),
            *(
                tx.run("inbox.line_up", session_no=w.no(f"session {name}"))
                for name in ("running", "resuming", "resumed", "retried")
            ),
        ],
        {
            f"inbox {name}": {"waits": 0}
            for name in (
                *("retried-behind", "retried-ahead", "retried-too-behind", "retried-too-last"),
            )
        },
    ),
    Change(
        "inbox.line_up",
        "no mark of the first that may run, nor of one that other lanes go behind",
        lambda w, tx: [
            mark(w, 1, "retried", "cut-next"),
            *(
                tx.run("inbox.line_up", session_no=w.no(f"session {name}"))
                for name in ("retried", "cut")
            ),
        ],
        {},
    ),
    *(
        Change(
            "inbox.line_up_all",
            f"the marks of all, after all were {waits}",
            lambda w, tx, waits=waits: [mark(w, waits), inbox.line_up_all(tx)],
            {},
        )
        for waits in (0, 1)
    ),
    Change(
        "inbox.suspend",
        "the message of an interrupted turn",
        lambda w, tx: turns.interrupt(tx, w.no("turn held#1"), "it died"),
        {
            "turn held#1": ANY,
            "inbox held": {"state": "interrupted", "reason": "it died"},
            "+event turn_interrupted/user": ANY,
            "+event turn_interrupted/operator": ANY,
        },
    ),
    Change(
        "inbox.suspend",
        "given back by a gateway that stops",
        lambda w, tx: turns.interrupt(tx, w.no("turn held#1"), "a stop", orderly=True),
        {
            "turn held#1": ANY,
            "inbox held": {"state": "interrupted", "reason": "a stop", "stops": 1},
            "+event turn_interrupted/user": ANY,
            "+event turn_interrupted/operator": ANY,
        },
    ),
    Change(
        "inbox.dead_letter",
        "the message of a turn that failed for good",
        lambda w, tx: turns.fail(tx, w.no("turn silent#1"), "never", retry=False),
        {
            "turn silent#1": ANY,
            "inbox silent": {"state": "dead", "reason": "never", "told_no": ANY},
            "+event turn_failed/operator": ANY,
            "+event message_dead/user": ANY,
            "+event message_dead/operator": ANY,
        },
    ),
    Change(
        "inbox.resume",
        "one interrupted message of several",
        resume,
        {
            "inbox cut-too": {
                "state": "queued",
                "lane_before": "main",
                "lane": "resume",
                "queued_at_ms": NOW,
                "timeout_ms": 7_000,
                "delayed": 1,
            }
        },
    ),
    Change(
        "inbox.resume",
        "a message that was resumed before",
        lambda w, tx: [
            turns.interrupt(tx, w.no("turn resuming#2"), "it died again"),
            tx.run("inbox.resume", inbox_no=w.no("inbox resuming"), now_ms=NOW, timeout_ms=5_000),
        ],
        {
            "turn resuming#2": ANY,
            "inbox resuming": {
                "state": "queued",
                "queued_at_ms": NOW,
                "timeout_ms": 5_000,
                "reason": "it died again",
            },
            "inbox resuming-next": {"waits": 0},
            "+event turn_interrupted/user": ANY,
            "+event turn_interrupted/operator": ANY,
        },
    ),
    Change(
        "inbox.mark_delayed",
        "a notice to each sender of the lane that waits and was not told",
        lambda w, tx: inbox.notify_delayed(tx, "main", after_ms=SECOND),
        {
            f"inbox {name}": {"delayed": 1}
            for name in (
                *("running-next", "cut-next", "resumed-next", "resuming-next", "dead-next"),
                *("untold", "untold-too", "ahead"),
            )
        }
        | {
            f"+event message_delayed/user{number}": ANY
            for number in ("", *(f" {count}" for count in range(2, 9)))
        },
    ),
    Change(
        "inbox.requeue",
        "one dead letter of several",
        requeue_after_stops,
        {
            "inbox dead-resume": {
                "state": "queued",
                "lane": "main",
                "lane_before": None,
                "timeout_ms": None,
                "attempts": 0,
                "queued_at_ms": NOW,
                "told_no": None,
                "reason": "requeued by an operator",
            }
        },
    ),
    Change(
        "inbox.requeue_restored",
        "one message of a restored backup, of several",
        requeue_restored,
        {
            "inbox cut": {
                "state": "queued",
                "lane": "cron",
                "queued_at_ms": NOW,
                "reason": "requeued by an operator",
            },
            "inbox cut-too": {"restored": 1},
        },
    ),
    Change(
        "inbox.requeue_restored",
        "no message that is of no backup, and none that is dead",
        requeue_others,
        {"inbox dead": {"restored": 1}},
    ),
    Change(
        "inbox.drop",
        "one dead letter of several",
        lambda w, tx: inbox.drop(tx, w.no("inbox dead-too")),
        {"inbox dead-too": {"state": "done", "reason": "dropped by an operator"}},
    ),
]


def state(*states: str) -> Any:
    return lambda row: row["state"] in states


def by_turn(row: Any) -> dict[str, Any]:
    return {"inbox_no": row["inbox_no"], "turn_no": row["turn_no"], "reason": "why"}


GUARDS = [
    Guard(
        "inbox.claim",
        "inbox",
        lambda row: {"inbox_no": row["inbox_no"], "turn_no": 1, "entry_no": 1},
        state("queued"),
    ),
    Guard(
        "inbox.finish",
        "inbox",
        lambda row: by_turn(row) | {"told_no": None},
        state("claimed"),
        fences=("turn_no",),
    ),
    Guard(
        "inbox.retry",
        "inbox",
        lambda row: by_turn(row) | {"available_at_ms": NOW, "more_time": 2},
        state("claimed"),
        fences=("turn_no",),
    ),
    Guard(
        "inbox.supersede",
        "inbox",
        lambda row: {
            "inbox_no": row["inbox_no"],
            "superseded_by": 1,
            "told_no": 1,
            "reason": "why",
        },
        state("queued", "interrupted"),
    ),
    Guard(
        "inbox.suspend",
        "inbox",
        lambda row: by_turn(row) | {"stops": 1},
        state("claimed"),
        fences=("turn_no",),
    ),
    Guard(
        "inbox.dead_letter",
        "inbox",
        lambda row: {"inbox_no": row["inbox_no"], "reason": "why", "told_no": 1},
        state(*OPEN),
    ),
    Guard(
        "inbox.replace_text",
        "inbox",
        lambda row: {"inbox_no": row["inbox_no"], "payload": "{}", "digest": "d", "details": None},
        lambda row: row["state"] == "queued" and row["entry_no"] is None,
    ),
    Guard(
        "inbox.resume",
        "inbox",
        lambda row: {"inbox_no": row["inbox_no"], "now_ms": NOW, "timeout_ms": 1},
        state("interrupted"),
    ),
    Guard(
        "inbox.mark_delayed",
        "inbox",
        lambda row: {"inbox_no": row["inbox_no"]},
        lambda row: row["delayed"] == 0,
    ),
    Guard(
        "inbox.requeue",
        "inbox",
        lambda row: {"inbox_no": row["inbox_no"], "now_ms": NOW},
        state("dead"),
    ),
    Guard("inbox.drop", "inbox", lambda row: {"inbox_no": row["inbox_no"]}, state("dead")),
]


def before(row: Any) -> dict[str, Any]:
    return {"before_no": row.inbox_no}


def after(row: Any) -> dict[str, Any]:
    return {"after_no": row.inbox_no}


PAGES = [
    Page(
        "inbox.interrupted",
        {"before_no": 2**62},
        before,
        "inbox_no",
        ["cut-blank", "cut-damaged", "cut-failed", "cut-too", "cut"],
    ),
    Page(
        "inbox.interrupted_by",
        lambda w: {
            "before_no": 2**62,
            "instances": json.dumps([w.no("instance dying"), w.no("instance other")]),
        },
        before,
        "inbox_no",
        ["resuming", "silent", "held", "running-too"],
    ),
    Page(
        "inbox.restored",
        {"after_no": 0},
        after,
        "inbox_no",
        ["cut", "cut-too", "cut-failed"],
        given=mark_restored,
    ),
    Page(
        "inbox.dead",
        {"before_no": 2**62},
        before,
        "event_id",
        ["failed-before", "dead-resume", "dead-too", "dead", "dead-old-too", "dead-old"],
    ),
    Page(
        "inbox.open_of_session",
        lambda w: {"after_no": 0, "session_no": w.no("session running")},
        after,
        "event_id",
        ["running", "running-next", "running-later"],
    ),
    Page(
        "inbox.open_of_session",
        lambda w: {"after_no": 0, "session_no": w.no("session untold")},
        after,
        "event_id",
        ["untold", "h1", "h2"],
        "with what it has heard",
        hear,
    ),
    Page(
        "inbox.open",
        {"after_no": 0},
        after,
        "event_id",
        [
            *("running", "running-too", "held", "held-too", "silent", "resuming", "resumed"),
            *("cut", "cut-too", "cut-failed", "cut-damaged", "cut-blank"),
            *("running-next", "running-later", "cut-next", "resumed-next", "resuming-next"),
            *(
                "dead-next",
                "cron-next",
                "slow-next",
                "told",
                "untold",
                "untold-too",
                "retried",
                "retried-too",
            ),
            *("retried-behind", "retried-last", "retried-too-behind", "retried-too-last"),
            *("ahead", "ahead-too", "retried-ahead"),
        ],
    ),
]


def next_in(
    lane: str,
    name: str | None,
    low_ms: int = 0,
    high_ms: int = NOW,
    *,
    given: Given = nothing,
    what: str = "",
) -> Read:
    params = {"lane": lane, "low_ms": low_ms, "high_ms": high_ms}
    rows = [] if name is None else [{"inbox_no": name}]
    return Read("inbox.next", f"{lane} between {low_ms} and {high_ms}{what}", params, rows, given)


def resume_in_a_late_lane(w: World, tx: Recorder) -> None:
    """Leave one resume alone in its session, and put the lane that accepted it behind all."""
    set_columns("inbox resumed-next", session_no="session live")(w, tx)
    w.connection.execute("UPDATE lane SET priority = 30 WHERE lane = 'main'")


def retried_now(name: str, *, runs: bool) -> Read:
    """Give a message of lane main a pause that ends now. Only it is in the range."""
    return Read(
        "inbox.next",
        f"{name}, whose pause ends now",
        {"lane": "main", "low_ms": NOW, "high_ms": NOW},
        [{"inbox_no": name, "queued_at_ms": NOW - 5}] if runs else [],
        set_columns(f"inbox {name}", available_at_ms=NOW, queued_at_ms=NOW - 5),
    )


def of(name: str) -> Any:
    return lambda w: {"inbox_no": w.no(f"inbox {name}")}


def in_session(name: str, limit: int, lane: str) -> Any:
    return lambda w: {"session_no": w.no(f"session {name}"), "lane": lane, "limit": limit}


def imports_of_running(w: World, _tx: Recorder) -> None:
    """Give sessions whose turns run an import each, and one of them earlier turns."""
    for name, session_id in (("main/odd.jsonl", "silent"), ("main/blank.jsonl", "running-too")):
        w.connection.execute(
            "UPDATE import_file SET session_no = ? WHERE name = ?",
            (w.no(f"session {session_id}"), name),
        )
    w.connection.execute("UPDATE inbox SET state = 'queued' WHERE event_id = 'held'")
    for name in ("done#1", "dead#1"):
        w.connection.execute(
            "UPDATE turn SET session_no = ? WHERE turn_no = ?",
            (w.no("session resuming"), w.no(f"turn {name}")),
        )


def paused_lane(event_id: str = "", **columns: str) -> Given:
    """Return the pause of lane slow, which accepted a message, too."""

    def pause(w: World, _tx: Recorder) -> None:
        w.connection.execute("UPDATE lane SET paused_at_ms = 5 WHERE lane = 'slow'")
        for column, lane in columns.items():
            w.connection.execute(
                f"UPDATE inbox SET {column} = ? WHERE event_id = ?", (lane, event_id)
            )

    return pause


AHEAD = NOW + 60 * SECOND


def accepted(name: str) -> Callable[[World], int]:
    return lambda w: int(w.row(f"inbox {name}")["accepted_at_ms"])


def late_of(low: Any, high: Any, *names: str) -> Read:
    """Return the read of messages of lane main that were accepted outside of a range."""

    def at(w: World, end: Any) -> int:
        return int(end(w) if callable(end) else end)

    return Read(
        "inbox.late",
        f"accepted at an end of a range: {len(names)}",
        lambda w: {"lane": "main", "low_ms": at(w, low), "high_ms": at(w, high), "limit": 9},
        [{"inbox_no": name} for name in names],
    )


READS = [
    next_in("slow", "slow-next"),
    next_in(
        "slow",
        None,
        what=" while it is paused",
        given=lambda w, _: w.connection.execute(
            "UPDATE lane SET paused_at_ms = 5 WHERE lane = 'slow'"
        ),
    ),
    Read(
        "inbox.heard",
        "of one session, before a message",
        lambda w: {
            "session_no": w.no("session untold"),
            "before_no": w.connection.execute(
                "SELECT inbox_no FROM inbox WHERE event_id = 'h2'"
            ).get,
            "limit": 9,
        },
        [{"digest": digest(user("h1"))}],
        hear,
    ),
    Read(
        "inbox.heard",
        "of one session, up to a limit",
        lambda w: {"session_no": w.no("session untold"), "before_no": 2**62, "limit": 1},
        [{"digest": digest(user("h1"))}],
        hear,
    ),
    *(
        Read(
            "inbox.heard_weight",
            f"of one session, up to {limit}",
            lambda w, limit=limit: {"session_no": w.no("session untold"), "limit": limit},
            [{"messages": count, "bytes": count * len(json.dumps(user("h1")))}],
            hear,
        )
        for limit, count in ((1, 1), (2, 2), (9, 2))
    ),
    *(
        Read(f"inbox.{statement}", f"{what}: {name}", by_name(name), rows, given)
        for what, name, given, of_outcome, entry in (
            (
                "by its own turn",
                "dead",
                nothing,
                {"state": "dead", "turn_state": "failed", "superseded_by": None},
                "dead/1",
            ),
            (
                "by that of another",
                "cut",
                superseded,
                {"state": "done", "turn_state": "completed", "superseded_by": "m-sent"},
                "sent/1",
            ),
            (
                "by none",
                "told",
                nothing,
                {"state": "queued", "turn_state": None, "superseded_by": None},
                None,
            ),
        )
        for statement, rows in (
            ("outcome", [of_outcome]),
            ("answered_at", [] if entry is None else [{"entry_no": entry}]),
        )
    ),
    Read(
        "inbox.open_of_session",
        "whose entry is no message",
        lambda w: {"after_no": 0, "session_no": w.no("session held"), "limit": 9},
        [{"event_id": "held", "payload": ""}],
        of_another_type,
    ),
    Read(
        "inbox.open",
        "whose entry is no message",
        lambda w: {"after_no": w.no("inbox held") - 1, "limit": 1},
        [{"event_id": "held", "payload": ""}],
        of_another_type,
    ),
    Read(
        "inbox.open_of_session",
        "behind two that have ended",
        lambda w: {"after_no": 0, "session_no": w.no("session cut-failed"), "limit": 9},
        [{"event_id": "cut-failed", "state": "interrupted"}],
    ),
    late_of(accepted("running-next"), 2**62),
    late_of(
        *(0, accepted("cut-next")),
        *("resumed-next", "resuming-next", "dead-next", "untold", "untold-too", "ahead"),
    ),
    Read(
        "inbox.by_event",
        "of its channel",
        {"channel": "telegram", "event_id": "done-too"},
        [
            {
                "inbox_no": "done-too",
                "session_id": "done-too",
                "session_key": "agent:west:chat:done-too",
                "state": "done",
                "edited": 0,
            }
        ],
    ),
    Read("inbox.by_event", "of another", {"channel": "web", "event_id": "done-too"}, []),
    Read(
        "inbox.newest_text",
        "its own",
        lambda w: {"inbox_no": w.no("inbox retried")},
        [{"inbox_no": "retried", "session_id": "retried", "state": "queued"}],
    ),
    Read(
        "inbox.newest_text",
        "that of its last edit",
        lambda w: {"inbox_no": w.no("inbox retried")},
        [{"inbox_no": "cron-next", "session_id": "cron-session", "state": "queued"}],
        edit_twice,
    ),
    *(
        Read(
            "inbox.waiting_in_session",
            f"{name} in {lane} up to {limit}",
            in_session(name, limit, lane),
            [{"waiting": waiting}],
        )
        for name, lane, limit, waiting in (
            ("running", "main", 9, 2),
            ("running", "main", 1, 1),
            ("running", "cron", 9, 1),
            ("cut", "main", 9, 1),
            ("resumed", "main", 9, 2),
            ("resumed", "resume", 9, 0),
            ("dead-too", "main", 9, 0),
            ("dead", "main", 9, 1),
        )
    ),
    *(
        Read(
            "inbox.ahead",
            f"of one of {lane} in {name} up to {limit}",
            in_session(name, limit, lane),
            [{"messages": messages}],
        )
        for name, lane, limit, messages in (
            ("running", "main", 9, 2),
            ("running", "main", 1, 1),
            ("running", "wide", 9, 1),
            ("running", "cron", 9, 3),
            ("running-too", "main", 9, 1),
            ("resumed", "cron", 9, 1),
            ("cut", "wide", 9, 0),
            ("cut", "main", 9, 1),
            ("resumed", "resume", 9, 1),
        )
    ),
    *(
        Read(
            "inbox.waiting_in_lane",
            f"{lane} up to {limit}",
            {"lane": lane, "limit": limit},
            [{"waiting": waiting}],
        )
        for lane, limit, waiting in (("main", 99, 9), ("main", 3, 3), ("cron", 99, 5))
    ),
    # Behind a running turn, and behind an older message, nothing runs.
    next_in("main", "cut-next"),
    next_in("main", "cut-next", 0, 0),
    next_in("main", None, 1, NOW),
    next_in("main", "resumed-next", given=lambda w, _: mark(w, 1, "cut-next"), what=", not marked"),
    Read(
        "inbox.next",
        "a message without a mark, beside a turn of a later lane",
        {"lane": "main", "low_ms": NOW, "high_ms": NOW},
        [],
        set_columns("inbox told", session_no="session running-too", available_at_ms=NOW),
    ),
    Read(
        "inbox.payload",
        "its text",
        lambda w: {"inbox_no": w.no("inbox told")},
        [{"payload": '{"role": "user", "content": "told"}'}],
    ),
    *(
        Read(
            "inbox.payload",
            f"what its entry says, {what}",
            lambda w: {"inbox_no": w.no("inbox held")},
            [{"payload": text}],
            given,
        )
        for what, text, given in (
            ("of two messages", '{"role":"user","content":"held"}', nothing),
            (
                "in a text that is not ASCII",
                '"ü"',
                set_columns("entry held/1", payload='é{"ü"}', body_at=3, body_bytes=4),
            ),
            ("if that is a message", "", set_columns("entry held/1", type="custom")),
            ("if it is there", "", set_columns("inbox held", entry_no=5)),
        )
    ),
    Read(
        "inbox.dead",
        "its own text, or what its entry says",
        lambda w: {"before_no": w.no("inbox dead-too") + 1, "limit": 2},
        [
            {"event_id": "dead-too", "payload": '"own"'},
            {"event_id": "dead", "payload": '{"role":"user","content":"dead"}'},
        ],
        set_columns("inbox dead-too", payload='"own"'),
    ),
    Read(
        "inbox.due",
        "none that is marked, and none that a turn works on",
        {"lane": "wide", "now_ms": NOW},
        [{"at_ms": NOW + 400}],
        lambda w, tx: [
            set_columns("inbox retried-behind", available_at_ms=NOW + 100)(w, tx),
            set_columns("inbox running", available_at_ms=NOW + 200, lane="wide")(w, tx),
        ],
    ),
    next_in("wide", None, given=lambda w, _: mark(w, 0), what=", although no mark is there"),
    retried_now("resumed-next", runs=True),
    retried_now("running-next", runs=False),
    retried_now("resuming-next", runs=False),  # behind a resume that runs
    retried_now("dead-next", runs=True),
    next_in("cron", "cron-next", 0, 0),
    next_in("cron", None, 1, NOW + SECOND),
    next_in("wide", None),
    next_in("wide", "retried", 0, NOW + SECOND),
    next_in("wide", "retried-too", NOW + 401, NOW + SECOND),
    next_in(
        "main",
        "cut-next",
        given=set_columns("inbox running-later", session_no="session cut"),
        what=", behind an older one of a later lane",
    ),
    next_in(
        "resume",
        "resumed",
        given=set_columns("inbox resumed-next", lane="cron"),
        what=", before a newer one of a later lane than accepted it",
    ),
    next_in("resume", "resumed", given=resume_in_a_late_lane, what=", which does not wait for it"),
    # A resume lets every other message of its session go first.
    next_in("resume", None),
    # Pauses of a clock that has been set back since.
    next_in("main", None, AHEAD, 2**62),
    Read(
        "inbox.next",
        "a pause that seems to end in days",
        {"lane": "wide", "low_ms": AHEAD, "high_ms": 2**62},
        [{"inbox_no": "retried-too"}],
        set_columns("inbox retried-too", available_at_ms=NOW + 2 * DAY),
    ),
    Read(
        "inbox.candidate",
        "one message",
        of("retried-too"),
        [
            {
                "inbox_no": "retried-too",
                "session_no": "retried-too",
                "session_id": "retried-too",
                "channel": "web",
                "event_id": "retried-too",
                "attempts": 1,
                "timeout_ms": None,
                "ended_at_ms": None,
                "edit_of": None,
                "by_person": 0,
            }
        ],
    ),
    *(
        Read(
            "inbox.due", f"{lane} after {now_ms}", {"lane": lane, "now_ms": now_ms}, [{"at_ms": at}]
        )
        for lane, now_ms, at in (
            ("wide", NOW, NOW + 400),
            ("wide", NOW + 399, NOW + 400),
            ("wide", NOW + 400, NOW + 700),
            ("wide", NOW + 700, None),
            ("wide", NOW + 400 - 60 * SECOND, NOW + 400),
            ("wide", NOW + 399 - 60 * SECOND, None),
            ("main", NOW, None),
        )
    ),
    *(
        Read(
            "inbox.interrupted_before",
            f"people's in session {name}",
            lambda w, name=name: {
                "session_no": w.no(f"session {name}"),
                "inbox_no": w.no(f"inbox {name}-next"),
            },
            [{"inbox_no": found} for found in before],
        )
        for name, before in (("cut", ["cut"]), ("resumed", ["resumed"]), ("running", []))
    ),
    *(
        Read(
            "inbox.interrupted_before",
            what,
            lambda w: {"session_no": w.no("session cut"), "inbox_no": w.no("inbox cut-next")},
            [{"inbox_no": found} for found in before],
            set_columns(label, **columns),
        )
        for what, label, columns, before in (
            ("not a program's", "inbox cut", {"by_person": 0}, []),
            ("not what is no message", "entry cut/1", {"role": "custom"}, []),
            ("not one under way", "inbox cut", {"state": "claimed", "lane": "resume"}, []),
            ("not one that is retried", "inbox cut", {"state": "queued"}, []),
            (
                "in their order",
                "inbox running",
                {"state": "interrupted", "session_no": "session cut"},
                ["running", "cut"],
            ),
        )
    ),
    Read(
        "inbox.of_turn",
        "that is no message",
        of("running"),
        [{"is_persons": 0, "entry_no": "running/1"}],
        set_columns("entry running/1", role="custom"),
    ),
    Read(
        "inbox.interrupted_before",
        "no newer one",
        lambda w: {"session_no": w.no("session cut"), "inbox_no": w.no("inbox cut")},
        [],
    ),
    *(
        Read("inbox.of_turn", name, of(name), [{"is_persons": persons, "entry_no": f"{name}/1"}])
        for name, persons in (("running", 1), ("running-too", 0))
    ),
    *(
        Read(
            "inbox.open_in_session",
            name,
            lambda w, name=name: {"session_no": w.no(f"session {name}")},
            rows,
        )
        for name, rows in (
            ("held", [{"inbox_no": "held"}]),
            ("cut-too", [{"inbox_no": "cut-too"}]),
            ("untold", [{"inbox_no": "untold"}]),
            ("dead-too", []),
            ("done", []),
        )
    ),
    Read("inbox.waiting", "queued", of("told"), [{"inbox_no": "told"}]),
    Read("inbox.waiting", "claimed", of("held"), []),
    Read(
        "inbox.interrupted",
        "with the turn before, and the state of the import",
        {"before_no": 2**62, "limit": 9},
        [
            {"session_id": "import-blank", "state_before": None, "damaged": 0, "holder_no": None},
            {"session_id": "import-odd", "state_before": None, "damaged": 1, "holder_no": None},
            {"session_id": "cut-failed", "state_before": "failed", "damaged": 0, "holder_no": None},
            {"session_id": "cut-too", "state_before": None, "damaged": 0, "holder_no": None},
            {"session_id": "cut", "state_before": None, "damaged": 0, "holder_no": None},
        ],
    ),
    Read(
        "inbox.interrupted",
        "with the lane that accepted it, if it is paused",
        {"before_no": 2**62, "limit": 3},
        [
            {"session_id": name, "paused_lane": lane}
            for name, lane in (("import-blank", None), ("import-odd", "slow"), ("cut-failed", None))
        ],
        paused_lane("cut-damaged", lane="slow"),
    ),
    Read(
        "inbox.interrupted",
        "not with a turn that came later",
        {"before_no": 2**62, "limit": 9},
        [
            {"session_id": name, "state_before": "failed" if name == "cut-failed" else None}
            for name in ("import-blank", "import-odd", "cut-failed", "cut-too", "cut")
        ],
        set_columns("turn m-sent#1", session_no="session cut-too"),
    ),
    Read(
        "inbox.interrupted",
        "not with an earlier turn for the same message",
        {"before_no": 2**62, "limit": 3},
        [
            {"session_id": "import-blank", "state_before": None},
            {"session_id": "import-odd", "state_before": None},
            {"session_id": "cut-failed", "state_before": "aborted"},
        ],
        set_columns("turn failed-before#1", inbox_no="inbox cut-failed"),
    ),
    Read(
        "inbox.interrupted_by",
        "of one process that ended a turn whose message another one has",
        lambda w: {
            "before_no": 2**62,
            "limit": 9,
            "instances": json.dumps([w.no("instance gateway")]),
        },
        [{"inbox_no": "running"}],
    ),
    Read(
        "inbox.interrupted_by",
        "of one process",
        lambda w: {
            "before_no": 2**62,
            "limit": 9,
            "instances": json.dumps([w.no("instance dying-too")]),
        },
        [
            {
                "session_id": "held-too",
                "attempts": 1,
                "state_before": None,
                "damaged": 0,
                "paused_lane": "slow",
            }
        ],
        paused_lane(),
    ),
    Read(
        "inbox.interrupted_by",
        "of imports, and of a message that is not claimed",
        lambda w: {
            "before_no": 2**62,
            "limit": 9,
            "instances": json.dumps([w.no(f"instance {name}") for name in ("dying", "other")]),
        },
        [
            {"inbox_no": "resuming", "state_before": "failed", "damaged": 0},
            {"inbox_no": "silent", "state_before": None, "damaged": 1},
            {"inbox_no": "running-too", "state_before": None, "damaged": 0},
        ],
        imports_of_running,
    ),
    *(
        Read(
            "inbox.running_resumes",
            f"without those of {dead}",
            lambda w, dead=dead: {"dead": json.dumps([w.no(f"instance {name}") for name in dead])},
            [{"resumes": resumes}],
        )
        for dead, resumes in (((), 2), (("dying",), 2), (("dying", "other"), 1))
    ),
    Read(
        "inbox.running_resumes",
        "although another lane is paused",
        {"dead": "[]"},
        [{"resumes": 2}],
        lambda w, _: w.connection.execute("UPDATE lane SET paused_at_ms = 5 WHERE lane = 'slower'"),
    ),
    Read(
        "inbox.running_resumes",
        "without those that a paused lane keeps back",
        {"dead": "[]"},
        [{"resumes": 1}],
        paused_lane("resumed", lane_before="slow"),
    ),
    *(
        Read(
            "inbox.late",
            f"{limit} of {lane} not from {low_ms} to {high_ms}",
            {"lane": lane, "low_ms": low_ms, "high_ms": high_ms, "limit": limit},
            [{"inbox_no": name, "session_id": session_id} for name, session_id in rows],
        )
        for lane, low_ms, high_ms, limit, rows in (
            ("main", NOW - 298 * SECOND, 2**62, 9, [("running-next", "running")]),
            (
                *("main", NOW - 297 * SECOND + 1, 2**62, 9),
                [("running-next", "running"), ("cut-next", "cut")],
            ),
            ("main", 1, 0, 1, [("running-next", "running")]),
            ("main", 0, 2**62, 9, []),
            ("main", 0, NOW + DAY, 9, [("ahead", "ahead")]),
            ("slow", 1, 0, 9, [("slow-next", "slow-session")]),
            ("resume", 1, 0, 9, []),
        )
    ),
    Read(
        "inbox.notified",
        "one message",
        of("resuming"),
        [{"delayed": 1, "state": "claimed", "turn_no": "resuming#2"}],
    ),
]
