"""Cases of queries/outbox.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

from sessiondb.gateway import outbox, turns
from sessiondb.gateway.outbox import Sending
from sessiondb.models import Event
from tests.support.statement_cases import Change, Guard, Page, Read, run, set_columns
from tests.support.world import Recorder, World
from tests.support.world_build import DAY, NOW, SECOND

Rule = Callable[[World, Recorder], object]


def outgoing(w: World, target: str) -> Sending:
    """Return a reply as its sender holds it."""
    row = w.row(f"outbox {target}")
    return Sending(
        outbox_no=row["outbox_no"],
        session_id="",
        turn_no=row["turn_no"],
        target=target,
        state="sending",
        attempts=row["attempts"],
        created_at_ms=row["created_at_ms"],
        reason=row["reason"],
        payload="",
        session_no=row["session_no"],
        expires_at_ms=row["expires_at_ms"],
        tries=1,
        asked_at_ms=NOW,
        details={},
    )


def answer(w: World, tx: Recorder) -> None:
    turns.complete(
        tx,
        w.no("turn running#1"),
        [],
        [("web:new", '"a"'), ("telegram:new", '"b"')],
        incomplete=False,
        reason=None,
    )


def forward(w: World, tx: Recorder) -> None:
    event = Event(90, "k", "user", "twin", NOW, "text", "{}")
    outbox.forward_event(tx, event, "pager", "telegram:forwarded", '"text"')


NEW = {
    "session_no": "running",
    "turn_no": "running#1",
    "state": "pending",
    "created_at_ms": NOW,
    "available_at_ms": 0,
    "details": '{"of": "running"}',
}

LATER = {
    "session_no": "reply-retried",
    "state": "pending",
    "created_at_ms": NOW,
    "available_at_ms": 0,
    "payload": "0",
}


def mark(w: World, waits: int, *targets: str) -> None:
    """Mark pending replies, or all of them."""
    w.connection.execute(
        "UPDATE outbox SET waits = ? WHERE state = 'pending' "
        "AND (? = '[]' OR target IN (SELECT value FROM json_each(?)))",
        (waits, json.dumps(targets), json.dumps(targets)),
    )


def decide_in_front_and_behind(w: World, tx: Recorder) -> None:
    first, last = w.no("outbox web:failed"), w.no("outbox web:behind-too")
    w.connection.execute(
        "UPDATE outbox SET session_no = ? WHERE outbox_no = ?",
        (w.no("session reply-retried"), first),
    )
    w.connection.execute(
        "UPDATE outbox SET state = 'failed', waits = 0 WHERE outbox_no = ?", (last,)
    )
    for outbox_no in (first, last):
        outbox.decide(tx, outbox_no, "pending")


def retry_behind(w: World, tx: Recorder) -> None:
    outbox_no, instance_no = w.no("outbox web:behind-too"), w.no("instance other")
    w.connection.execute(
        "UPDATE outbox SET state = 'unknown', waits = 0, instance_no = ? WHERE outbox_no = ?",
        (instance_no, outbox_no),
    )
    changed = tx.run(
        "outbox.retry",
        outbox_no=outbox_no,
        instance_no=instance_no,
        attempt=0,
        available_at_ms=NOW,
        uncounted=0,
        reason="refused",
    )
    assert changed == 1


def beside_another_channel(w: World, tx: Recorder) -> None:
    """Put a reply to telegram behind one to web, in one session. It has a wrong mark."""
    set_columns("outbox telegram:ahead", session_no="session done-old", waits=1)(w, tx)


def add_to(session_id: str) -> Rule:
    return lambda w, tx: tx.run(
        "outbox.add",
        session_no=w.no(f"session {session_id}"),
        turn_no=None,
        target="web:later",
        now_ms=NOW,
        reason=None,
        payload="0",
    )


def forward_to(session_id: str) -> Rule:
    event = Event(90, "k", "user", session_id, NOW, "text", "{}")
    return lambda w, tx: outbox.forward_event(tx, event, "pager", "web:later", "0")


CHANGES = [
    *(
        Change(
            statement,
            "the first to its channel, behind one to another",
            lambda w, tx, statement=statement, params=params: [
                beside_another_channel(w, tx),
                tx.run(statement, **params(w)),
            ],
            {"outbox telegram:ahead": {"session_no": "done-old"}},
        )
        for statement, params in (
            ("outbox.line_up", lambda w: {"outbox_no": w.no("outbox telegram:ahead")}),
            ("outbox.line_up_all", lambda _: {}),
        )
    ),
    *(
        Change(
            statement,
            f"behind one that is {'being sent' if waits else 'sent'}",
            rule(session_id),
            {
                "+outbox web:later": LATER
                | {"session_no": session_id, "target": "web:later", "channel": "web"}
                | event
                | waits
            },
        )
        for statement, rule, event in (
            ("outbox.add", add_to, {}),
            ("outbox.forward", forward_to, {"event_no": 90, "consumer": "pager"}),
        )
        for session_id, waits in (("sent", {}), ("reply-held", {"waits": 1}))
    ),
    Change(
        "outbox.line_up",
        "nothing that is being sent",
        lambda w, tx: [
            set_columns("outbox web:pending-too", state="sending", waits=0)(w, tx),
            tx.run("outbox.line_up", outbox_no=w.no("outbox web:pending")),
        ],
        {"outbox web:pending-too": {"state": "sending", "waits": 0}},
    ),
    Change(
        "outbox.line_up_all",
        "nothing that an operator is to decide",
        lambda w, tx: [
            set_columns("outbox web:pending-too", state="failed", waits=0)(w, tx),
            outbox.line_up_all(tx),
        ],
        {"outbox web:pending-too": {"state": "failed", "waits": 0}},
    ),
    Change(
        "outbox.add",
        "the replies of a turn",
        answer,
        {
            "turn running#1": ANY,
            "inbox running": ANY,
            "inbox running-next": ANY,
            "+event turn_completed/operator": ANY,
            "+outbox web:new": NEW | {"target": "web:new", "channel": "web", "payload": '"a"'},
            "+outbox telegram:new": NEW
            | {"target": "telegram:new", "channel": "telegram", "payload": '"b"'},
        },
    ),
    Change(
        "outbox.add",
        "a reply that has no room, as failed",
        run(
            "outbox.add",
            session_no="session running",
            turn_no="turn running#1",
            target="web:new",
            now_ms=NOW,
            reason="full",
            payload="0",
        ),
        {
            "+outbox web:new": NEW
            | {
                "target": "web:new",
                "channel": "web",
                "state": "failed",
                "finished_at_ms": NOW,
                "reason": "full",
                "payload": "0",
            }
        },
    ),
    Change(
        "outbox.forward",
        "an event that has no room, as failed",
        run(
            "outbox.forward",
            session_no="session running",
            target="web:new",
            now_ms=NOW,
            event_no=90,
            consumer="pager",
            reason="full",
            payload="0",
        ),
        {
            "+outbox web:new": {
                **{
                    name: value for name, value in NEW.items() if name not in ("turn_no", "details")
                },
                "target": "web:new",
                "channel": "web",
                "state": "failed",
                "finished_at_ms": NOW,
                "event_no": 90,
                "consumer": "pager",
                "reason": "full",
                "payload": "0",
            }
        },
    ),
    Change(
        "outbox.forward",
        "an event, for its consumer",
        forward,
        {
            "+outbox telegram:forwarded": {
                "session_no": "twin",
                "target": "telegram:forwarded",
                "channel": "telegram",
                "event_no": 90,
                "consumer": "pager",
                "state": "pending",
                "created_at_ms": NOW,
                "available_at_ms": 0,
                "payload": '"text"',
            },
        },
    ),
    Change(
        "outbox.begin_sending",
        "the next reply, not one behind a reply that is being sent",
        lambda w, tx: outbox.begin_sending(tx, lease_ms=9_000),
        {
            "outbox web:pending": {
                "state": "sending",
                "attempts": 1,
                "instance_no": "gateway",
                "expires_at_ms": NOW + 11_000,
            }
        },
    ),
    Change(
        "outbox.begin_sending",
        "for a claim that may be repeated",
        lambda w, tx: outbox.begin_sending(tx, lease_ms=9_000, claim_id="claim of pending"),
        {
            "outbox web:pending": {
                "state": "sending",
                "attempts": 1,
                "instance_no": "gateway",
                "expires_at_ms": NOW + 11_000,
                "claim_id": "claim of pending",
            }
        },
    ),
    Change(
        "outbox.send_longer",
        "the reply of a claim, in another process's name",
        lambda w, tx: outbox.take_again(tx, lease_ms=9_000, claim_id="claim of reply-sending-too"),
        {"outbox telegram:sending": {"instance_no": "gateway", "expires_at_ms": NOW + 11_000}},
    ),
    Change(
        "outbox.set_aside",
        "one pending reply of several, without its channel having been called",
        run(
            "outbox.set_aside",
            outbox_no="outbox web:pending",
            now_ms=NOW,
            reason="it cannot be read",
        ),
        {
            "outbox web:pending": {
                "state": "failed",
                "finished_at_ms": NOW,
                "reason": "it cannot be read",
            }
        },
    ),
    Change(
        "outbox.settle",
        "one reply of several",
        lambda w, tx: outbox.sent(tx, outgoing(w, "web:sending"), "42"),
        {
            "outbox web:sending": {"state": "sent", "finished_at_ms": NOW, "receipt": "42"},
            "outbox web:behind": {"waits": 0},
            "+event reply_sent/operator": ANY,
        },
    ),
    Change(
        "outbox.settle",
        "as failed, with its reason",
        lambda w, tx: outbox.refused(tx, outgoing(w, "web:sending"), "no", retry=False),
        {
            "outbox web:sending": {"state": "failed", "finished_at_ms": NOW, "reason": "no"},
            "outbox web:behind": {"waits": 0},
            "+event reply_failed/operator": ANY,
        },
    ),
    Change(
        "outbox.adopt",
        "one reply that another instance began to send, by its attempt",
        lambda w, tx: [
            set_columns("outbox web:sending", instance_no="instance other")(w, tx),
            outbox.adopt(
                tx,
                w.no("outbox web:sending"),
                w.row("outbox web:sending")["attempts"],
            ),
            set_columns("outbox web:sending", attempts=9)(w, tx),
        ],
        {"outbox web:sending": {"attempts": 9}},
    ),
    Change(
        "outbox.retry",
        "one reply. Those of its session stay behind it",
        lambda w, tx: outbox.refused(tx, outgoing(w, "web:sending"), "later", retry=True),
        {
            "outbox web:sending": {
                "state": "pending",
                "available_at_ms": NOW + SECOND,
                "reason": "later",
            },
        },
    ),
    Change(
        "outbox.retry",
        "of a reply that was unknown",
        lambda w, tx: tx.run(
            "outbox.retry",
            outbox_no=w.no("outbox telegram:unknown"),
            instance_no=w.no("instance other"),
            attempt=1,
            available_at_ms=NOW,
            uncounted=0,
            reason="refused",
        ),
        {
            "outbox telegram:unknown": {
                "state": "pending",
                "available_at_ms": NOW,
                "waits": 1,
                "finished_at_ms": None,
                "reason": "refused",
            }
        },
    ),
    Change(
        "outbox.retry",
        "in its place, not counted, when its channel waits",
        lambda w, tx: outbox.refused(
            tx, outgoing(w, "web:sending"), "429", retry=True, retry_after_ms=40 * SECOND
        ),
        {
            "outbox web:sending": {"state": "pending", "attempts_before": 1, "reason": "429"},
            "+channel_pause web": ANY,
            "-channel_pause sms": {},
            "+event reply_delayed/operator": ANY,
        },
    ),
    Change(
        "outbox.decide",
        "one in front of another, and one behind two others",
        decide_in_front_and_behind,
        {
            "outbox web:failed": ANY,
            "outbox web:retried": {"waits": 1},
            "outbox web:behind-too": {"reason": "decided by an operator", "asked_at_ms": NOW},
        },
    ),
    Change(
        "outbox.retry",
        "one that was unknown, behind two others",
        retry_behind,
        {
            "outbox web:behind-too": {
                "instance_no": "other",
                "available_at_ms": NOW,
                "reason": "refused",
            }
        },
    ),
    Change(
        "outbox.line_up",
        "the first two: one that is sent holds up the next, and one that may be sent does not",
        lambda w, tx: [
            mark(w, 0, "web:behind", "web:behind-too", "web:pending-too"),
            mark(w, 1, "web:retried", "telegram:pending"),
            *(
                tx.run("outbox.line_up", outbox_no=w.no(f"outbox {target}"))
                for target in ("web:behind-too", "web:pending", "web:retried-behind")
            ),
        ],
        {
            "outbox web:behind-too": {"waits": 0},  # the third
            "outbox telegram:pending": {"waits": 1},  # of another session
        },
    ),
    *(
        Change(
            "outbox.line_up_all",
            f"the marks of all, after all were {waits}",
            lambda w, tx, waits=waits: [mark(w, waits), outbox.line_up_all(tx)],
            {},
        )
        for waits in (0, 1)
    ),
    Change(
        "outbox.add",
        "behind one that is open, of its channel only",
        lambda w, tx: [
            later_reply(w, tx),
            later_reply_elsewhere(w, tx),
        ],
        {
            "+outbox web:later": LATER | {"target": "web:later", "channel": "web", "waits": 1},
            "+outbox mail:later": LATER | {"target": "mail:later", "channel": "mail"},
        },
    ),
    *(
        Change(
            "outbox.forward",
            f"to {channel}, behind one that is open to web",
            lambda w, tx, channel=channel: outbox.forward_event(
                tx,
                Event(90, "k", "user", "reply-retried", NOW, "text", "{}"),
                *("pager", f"{channel}:f", "0"),
            ),
            {
                f"+outbox {channel}:f": {
                    "session_no": "reply-retried",
                    "target": f"{channel}:f",
                    "channel": channel,
                    "event_no": 90,
                    "consumer": "pager",
                    "state": "pending",
                    "created_at_ms": NOW,
                    "available_at_ms": 0,
                    "payload": "0",
                }
                | waits
            },
        )
        for channel, waits in (("web", {"waits": 1}), ("mail", {}))
    ),
    Change(
        "outbox.lose_track",
        "the replies whose lease ran out, of any process",
        lambda w, tx: outbox.give_up_overdue(tx),
        {
            f"outbox {name}": {
                "state": "unknown",
                "finished_at_ms": NOW,
                "reason": "its sender was not heard of in time",
            }
            for name in ("web:late", "telegram:late")
        }
        | {f"+event reply_unknown/operator{number}": ANY for number in ("", " 2")},
    ),
    Change(
        "outbox.decide",
        "one unknown reply of several, as sent",
        lambda w, tx: outbox.decide(tx, w.no("outbox telegram:unknown"), "sent"),
        {
            "outbox telegram:unknown": {
                "state": "sent",
                "finished_at_ms": NOW,
                "reason": "decided by an operator",
            },
            "+event reply_sent/operator": ANY,
        },
    ),
    Change(
        "outbox.decide",
        "one failed reply of several, to be sent again",
        lambda w, tx: [
            set_columns("outbox web:failed", available_at_ms=5)(w, tx),
            outbox.decide(tx, w.no("outbox web:failed"), "pending"),
        ],
        {
            "outbox web:failed": {
                "state": "pending",
                "finished_at_ms": None,
                "asked_at_ms": NOW,
                "attempts_before": 1,
                "reason": "decided by an operator",
            }
        },
    ),
]


def state(*states: str) -> Any:
    return lambda row: row["state"] in states


def attempt(row: Any) -> dict[str, Any]:
    return {
        "outbox_no": row["outbox_no"],
        "instance_no": row["instance_no"],
        "attempt": row["attempts"],
        "reason": "why",
    }


GUARDS = [
    Guard(
        "outbox.set_aside",
        "outbox",
        lambda row: {"outbox_no": row["outbox_no"], "now_ms": NOW, "reason": "why"},
        state("pending"),
    ),
    Guard(
        "outbox.begin_sending",
        "outbox",
        lambda row: {
            "outbox_no": row["outbox_no"],
            "instance_no": 1,
            "expires_at_ms": NOW,
            "claim_id": "new",
        },
        state("pending"),
    ),
    Guard(
        "outbox.send_longer",
        "outbox",
        lambda row: {"outbox_no": row["outbox_no"], "instance_no": 1, "expires_at_ms": NOW},
        state("sending"),
    ),
    Guard(
        "outbox.settle",
        "outbox",
        lambda row: attempt(row) | {"state": "sent", "now_ms": NOW, "receipt": "r"},
        state("sending", "unknown"),
        fences=("instance_no", "attempt"),
    ),
    Guard(
        "outbox.adopt",
        "outbox",
        lambda row: {
            "outbox_no": row["outbox_no"],
            "instance_no": 1,
            "attempt": row["attempts"],
        },
        state("sending", "unknown"),
        fences=("attempt",),
    ),
    Guard(
        "outbox.retry",
        "outbox",
        lambda row: attempt(row) | {"available_at_ms": NOW, "uncounted": 1},
        state("sending", "unknown"),
        fences=("instance_no", "attempt"),
    ),
    Guard(
        "outbox.lose_track",
        "outbox",
        lambda row: {
            "outbox_no": row["outbox_no"],
            "attempt": row["attempts"],
            "now_ms": NOW,
            "reason": "why",
        },
        state("sending"),
        fences=("attempt",),
    ),
    Guard(
        "outbox.decide",
        "outbox",
        lambda row: {
            "outbox_no": row["outbox_no"],
            "state": "pending",
            "now_ms": NOW,
            "reason": "why",
        },
        state("unknown", "failed"),
    ),
]


def page(state: str, *targets: str) -> Page:
    return Page(
        "outbox.list",
        {"state": state, "after_no": 0},
        lambda row: {"after_no": row.outbox_no},
        "target",
        targets,
        key=state,
    )


PAGES = [
    page("unknown", "web:unknown", "telegram:unknown", "telegram:unknown-too"),
    page(
        "pending",
        *("web:behind", "web:behind-too", "telegram:behind", "telegram:behind-too"),
        *("web:retried", "web:retried-behind", "telegram:retried", "telegram:retried-behind"),
        *("web:pending", "web:pending-too", "telegram:pending", "telegram:pending-too"),
        *("web:ahead", "telegram:ahead"),
    ),
    Page(
        "outbox.list_sent",
        {"after_no": 0},
        lambda row: {"after_no": row.outbox_no},
        "target",
        ["web:done-old", "telegram:done-old-too", "web:sent", "telegram:sent"],
    ),
]


def of_attempt(target: str, **other: int) -> Any:
    return lambda w: {
        "outbox_no": w.no(f"outbox {target}"),
        "instance_no": w.row(f"outbox {target}")["instance_no"],
        "attempt": 1,
        "expires_at_ms": w.row(f"outbox {target}")["expires_at_ms"],
        **other,
    }


def of_target(*targets: str) -> list[Any]:
    return [{"outbox_no": target} for target in targets]


def later_reply(w: World, tx: Recorder) -> None:
    """Add a reply behind one that waits for its retry."""
    tx.run(
        "outbox.add",
        session_no=w.no("session reply-retried"),
        turn_no=None,
        target="web:later",
        now_ms=NOW,
        reason=None,
        payload="0",
    )


def later_reply_elsewhere(w: World, tx: Recorder) -> None:
    """Add a reply of the same session to another channel."""
    tx.run(
        "outbox.add",
        session_no=w.no("session reply-retried"),
        turn_no=None,
        target="mail:later",
        now_ms=NOW,
        reason=None,
        payload="0",
    )


def between(low_ms: int, high_ms: int, *full: str) -> dict[str, Any]:
    return {"low_ms": low_ms, "high_ms": high_ms, "full": json.dumps(full)}


def after(now_ms: int, *full: str) -> dict[str, Any]:
    return {"now_ms": now_ms, "full": json.dumps(full)}


def due_while_sending(w: World, _tx: Recorder) -> None:
    w.connection.execute(
        "UPDATE outbox SET available_at_ms = ? WHERE target = 'web:sending'", (NOW + 100,)
    )


def same_lease(w: World, _tx: Recorder) -> None:
    """Give two replies of one process the same lease."""
    w.connection.execute(
        "UPDATE outbox SET expires_at_ms = ? WHERE target IN ('telegram:late', 'telegram:sending')",
        (NOW,),
    )


def retried_at(at_ms: int, *targets: str) -> Any:
    """Give replies a pause that ends at a time."""
    return lambda w, _tx: [
        w.connection.execute(
            "UPDATE outbox SET available_at_ms = ? WHERE outbox_no = ?",
            (at_ms, w.no(f"outbox {target}")),
        )
        for target in targets
    ]


READS = [
    *(
        Read(
            "outbox.ready",
            f"{target} at {now_ms} without {full}",
            lambda w, target=target, now_ms=now_ms, full=full: {
                "outbox_no": w.no(f"outbox {target}"),
                "now_ms": now_ms,
                "full": json.dumps(full),
            },
            [{"ready": 1}] if ready else [],
        )
        for target, now_ms, full, ready in (
            ("web:pending", NOW, ["mail"], True),
            ("web:pending", NOW, ["mail", "web"], False),
            ("web:pending-too", NOW, [], False),  # behind it
            ("web:sending", NOW, [], False),
            ("web:behind", NOW, [], False),  # behind one that is being sent
            ("web:failed", NOW, [], False),
            ("web:retried", NOW, [], False),
            ("web:retried", NOW + 349, [], False),
            ("web:retried", NOW + 350, [], True),
            ("web:retried", NOW + 350 - 60 * SECOND, [], False),
            ("web:retried", NOW + 349 - 60 * SECOND, [], True),  # its clock was set back since
        )
    ),
    Read(
        "outbox.ready",
        "behind one to another channel",
        lambda w: {"outbox_no": w.no("outbox telegram:ahead"), "now_ms": NOW, "full": "[]"},
        [{"ready": 1}],
        beside_another_channel,
    ),
    *(
        Read(
            "outbox.claimed_as",
            str(claim_id),
            lambda _w, claim_id=claim_id: {"claim_id": claim_id},
            [{"outbox_no": target}] if target else [],
        )
        for claim_id, target in (
            ("claim of reply-sending", "web:sending"),
            ("claim of reply-sending-too", "telegram:sending"),
            ("claim of sent", None),  # it has ended
            (None, None),
        )
    ),
    Read(
        "outbox.payload",
        "its text",
        lambda w: {"outbox_no": w.no("outbox web:pending")},
        [{"payload": '{"text": "web:pending"}'}],
    ),
    Read(
        "outbox.next",
        "the first in its order, although no mark is there",
        between(0, 0, "telegram"),
        of_target("web:pending"),
        lambda w, _: mark(w, 0),
    ),
    Read(
        "outbox.next",
        "none that is marked",
        between(0, 0, "telegram"),
        of_target("web:ahead"),
        lambda w, _: mark(w, 1, "web:pending"),
    ),
    Read(
        "outbox.due",
        "none that is marked",
        after(NOW, "telegram"),
        [{"at_ms": NOW + 350}],
        set_columns("outbox web:retried-behind", available_at_ms=NOW + 100),
    ),
    Read("outbox.next", "behind a retry", between(NOW, NOW), [], later_reply),
    Read(
        "outbox.next",
        "of one session to another channel",
        between(0, 0, "web", "telegram"),
        [{"outbox_no": ANY}],
        later_reply_elsewhere,
    ),
    Read(
        "outbox.next",
        "not of a full channel",
        between(0, NOW, "web", "mail"),
        of_target("telegram:pending"),
    ),
    Read("outbox.next", "not of any", between(0, 2**62, "web", "telegram"), []),
    Read("outbox.next", "to the ms", between(NOW + 350, NOW + 350), of_target("web:retried")),
    Read(
        "outbox.next",
        "the older of two channels' that became available at once",
        between(1, NOW),
        of_target("web:pending"),
        retried_at(NOW - DAY, "web:pending", "telegram:pending"),
    ),
    *(
        Read(
            "outbox.next",
            f"{first} before {second}, although it is younger",
            between(1, NOW),
            of_target(first),
            lambda w, tx, first=first, second=second: [
                retried_at(NOW - 2, first)(w, tx),
                retried_at(NOW - 1, second)(w, tx),
            ],
        )
        for first, second in (("telegram:pending", "web:pending"), ("web:ahead", "web:pending"))
    ),
    Read(
        "outbox.next",
        "of the second of three channels",
        between(0, NOW, "matrix", "web"),
        of_target("telegram:pending"),
        set_columns("outbox web:pending", channel="matrix"),
    ),
    Read(
        "outbox.next",
        "the older of two of one channel that became available at once",
        between(0, NOW, "telegram"),
        of_target("web:pending"),
        lambda w, tx: [
            set_columns(f"outbox web:{name}", available_at_ms=NOW - DAY)(w, tx)
            for name in ("pending", "ahead")
        ],
    ),
    Read(
        "outbox.due",
        "of the second of three channels",
        after(NOW, "matrix", "web"),
        [{"at_ms": NOW + 650}],
        set_columns("outbox web:pending", channel="matrix"),
    ),
    Read(
        "outbox.due",
        "the first of two of one channel",
        after(NOW, "telegram"),
        [{"at_ms": NOW + 350}],
        set_columns("outbox web:pending", available_at_ms=NOW + 500),
    ),
    Read("outbox.due", "not sending", after(NOW), [{"at_ms": NOW + 350}], due_while_sending),
    Read("outbox.due", "not of a full channel", after(NOW, "web"), [{"at_ms": NOW + 650}]),
    Read("outbox.due", "not of any", after(NOW, "web", "telegram"), [{"at_ms": None}]),
    Read(
        "outbox.begun",
        "one of two attempts that are alike",
        of_attempt("telegram:late", expires_at_ms=NOW),
        of_target("telegram:late"),
        same_lease,
    ),
    Read(
        "outbox.overdue",
        "at the end of its lease",
        {"now_ms": NOW, "limit": 9},
        of_target("telegram:sending", "web:late", "telegram:late"),
        same_lease,
    ),
    Read(
        "outbox.candidate",
        "that an operator asked for again",
        lambda w: {"outbox_no": w.no("outbox web:failed")},
        [{"outbox_no": "web:failed", "attempts_before": 1, "asked_at_ms": NOW}],
        lambda w, tx: outbox.decide(tx, w.no("outbox web:failed"), "pending"),
    ),
    Read(
        "outbox.candidate",
        "that was never asked for again",
        lambda w: {"outbox_no": w.no("outbox web:failed")},
        lambda w: [{"asked_at_ms": w.row("outbox web:failed")["created_at_ms"]}],
    ),
    *(
        Read(
            "outbox.next",
            f"between {low_ms} and {high_ms}",
            between(low_ms, high_ms),
            of_target(*targets),
        )
        for low_ms, high_ms, targets in (
            (0, NOW, ["web:pending"]),
            (0, 0, ["web:pending"]),
            (1, NOW, []),
            (1, NOW + 350, ["web:retried"]),
            (NOW, NOW + 349, []),
            (NOW, NOW + 350, ["web:retried"]),
            (NOW + 351, NOW + SECOND, ["telegram:retried"]),
            (NOW + 61 * SECOND, 2**62, []),
        )
    ),
    Read(
        "outbox.next",
        "a pause that seems to end in days",
        between(NOW + 61 * SECOND, 2**62),
        of_target("telegram:retried"),
        retried_at(NOW + 2 * DAY, "telegram:retried"),
    ),
    Read(
        "outbox.candidate",
        "one reply",
        lambda w: {"outbox_no": w.no("outbox telegram:behind")},
        [
            {
                "outbox_no": "telegram:behind",
                "session_id": "reply-sending-too",
                "session_no": "reply-sending-too",
                "target": "telegram:behind",
                "attempts": 0,
                "attempts_before": 0,
            }
        ],
    ),
    *(
        Read("outbox.due", f"after {now_ms}", after(now_ms), [{"at_ms": at_ms}])
        for now_ms, at_ms in (
            (NOW, NOW + 350),
            (NOW + 349, NOW + 350),
            (NOW + 350, NOW + 650),
            (NOW + 650, None),
            (NOW + 350 - 60 * SECOND, NOW + 350),
            (NOW + 349 - 60 * SECOND, None),
        )
    ),
    Read("outbox.begun", "this attempt", of_attempt("web:sending"), of_target("web:sending")),
    Read("outbox.begun", "left unknown", of_attempt("web:unknown"), of_target("web:unknown")),
    Read("outbox.begun", "another attempt", of_attempt("web:sending", attempt=2), []),
    Read("outbox.begun", "another process", of_attempt("web:sending", instance_no=1), []),
    Read("outbox.begun", "another time", of_attempt("web:sending", expires_at_ms=1), []),
    Read("outbox.begun", "failed", of_attempt("web:failed"), []),
    *(
        Read(
            "outbox.overdue",
            f"{limit} at {now_ms}",
            {"now_ms": now_ms, "limit": limit},
            of_target(*targets),
        )
        for now_ms, limit, targets in (
            (NOW, 9, ["web:late", "telegram:late"]),
            (NOW, 1, ["web:late"]),
            (
                NOW + 2 * DAY,
                9,
                [
                    *("web:held", "telegram:held", "web:sending", "telegram:sending"),
                    *("web:late", "telegram:late"),
                ],
            ),
        )
    ),
    *(
        Read(
            "outbox.of_instance",
            f"{limit} of {program}",
            lambda w, program=program, limit=limit: {
                "instance_no": w.no(f"instance {program}"),
                "limit": limit,
            },
            of_target(*targets),
        )
        for program, limit, targets in (
            ("other", 9, ["telegram:sending", "telegram:late"]),
            ("other", 1, ["telegram:sending"]),
            ("dying", 9, ["web:held"]),
            ("killed", 9, []),
        )
    ),
]
