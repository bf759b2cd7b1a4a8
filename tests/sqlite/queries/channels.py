"""Cases of queries/channels.sql."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

from sessiondb.gateway import channels
from tests.support.statement_cases import Change, Guard, Page, Read, run
from tests.support.world import Recorder, World
from tests.support.world_build import DAY, HOUR, NOW, SECOND


def pause(channel: str, wait_ms: int) -> Any:
    return lambda _w, tx: channels.pause(tx, channel, wait_ms, "429")


def end(**other: int) -> Any:
    return lambda w, tx: tx.run(
        "channels.end_pause",
        **{
            "channel": "signal",
            "begun_at_ms": w.row("channel_pause signal")["begun_at_ms"],
            "until_ms": w.row("channel_pause signal")["until_ms"],
            **other,
        },
    )


def alike(w: World) -> None:
    """Let two channels wait from and until the same times."""
    row = w.row("channel_pause signal")
    w.connection.execute(
        "UPDATE channel_pause SET begun_at_ms = ?, until_ms = ? WHERE channel = 'matrix'",
        (row["begun_at_ms"], row["until_ms"]),
    )


WAITS = {"begun_at_ms": NOW, "reason": "429"}
OLD_IS_FORGOTTEN: dict[str, Any] = {"-channel_pause sms": {}}
TOLD = {"+event reply_delayed/operator": ANY}

CHANGES = [
    Change(
        "channels.put_pause",
        "of one more channel",
        pause("web", 40 * SECOND),
        {
            "+channel_pause web": {
                "refused_since_ms": NOW,
                "pauses": 1,
                "begun_at_ms": NOW,
                "until_ms": NOW + 40 * SECOND,
                "reason": "429",
            },
            **OLD_IS_FORGOTTEN,
            **TOLD,
        },
    ),
    Change(
        "channels.put_pause",
        "a longer one in the place of one in force, without another event",
        pause("matrix", 40 * SECOND),
        {
            "channel_pause matrix": {"until_ms": NOW + 40 * SECOND, "reason": "429"},
            **OLD_IS_FORGOTTEN,
        },
    ),
    Change(
        "channels.put_pause",
        "behind one that is over, with an event",
        pause("irc", 40 * SECOND),
        {
            "channel_pause irc": WAITS | {"pauses": 4, "until_ms": NOW + 40 * SECOND},
            **OLD_IS_FORGOTTEN,
            **TOLD,
        },
    ),
    Change(
        "channels.put_pause",
        "of a channel that refused long ago: a new row of refusals",
        pause("sms", 40 * SECOND),
        {
            "channel_pause sms": WAITS
            | {"refused_since_ms": NOW, "pauses": 1, "until_ms": NOW + 40 * SECOND},
            **TOLD,
        },
    ),
    Change(
        "channels.put_pause",
        "a clock was set back: likewise",
        pause("fax", 40 * SECOND),
        {
            "channel_pause fax": WAITS
            | {"refused_since_ms": NOW, "pauses": 1, "until_ms": NOW + 40 * SECOND},
            **OLD_IS_FORGOTTEN,
            **TOLD,
        },
    ),
    Change(
        "channels.end_pause",
        "one of several",
        end(),
        lambda w: {
            "channel_pause signal": {"until_ms": w.row("channel_pause signal")["begun_at_ms"]}
        },
    ),
    Change(
        "channels.end_pause",
        "one of two that are alike",
        lambda w, tx: [alike(w), end()(w, tx)],
        lambda w: {
            "channel_pause signal": {"until_ms": w.row("channel_pause signal")["begun_at_ms"]},
            "channel_pause matrix": {
                name: w.row("channel_pause signal")[name] for name in ("begun_at_ms", "until_ms")
            },
        },
    ),
    Change("channels.end_pause", "not one that was prolonged since", end(until_ms=NOW), {}),
    Change("channels.end_pause", "not one that began since", end(begun_at_ms=NOW), {}),
    *(
        Change(
            "channels.forget",
            f"{channel}, which is not in force",
            run("channels.forget", channel=channel, now_ms=NOW),
            {f"-channel_pause {channel}": {}},
        )
        for channel in ("irc", "sms", "fax")
    ),
    *(
        Change(
            "channels.forget",
            f"not {channel}, which is in force",
            run("channels.forget", channel=channel, now_ms=NOW),
            {},
        )
        for channel in ("signal", "matrix")
    ),
    Change(
        "channels.forget_old",
        "those that ended before a time",
        run("channels.forget_old", before_ms=NOW + 1),
        {"-channel_pause irc": {}, "-channel_pause sms": {}},
    ),
    Change(
        "channels.forget_old",
        "not at it",
        run("channels.forget_old", before_ms=NOW - HOUR),
        {},
    ),
]
GUARDS: list[Guard] = []
PAGES: list[Page] = []


def waiting_since(channel: str, asked_before_ms: int, limit: int = 9) -> dict[str, Any]:
    return {"channel": channel, "asked_before_ms": asked_before_ms, "limit": limit}


def asked_again(w: World, _tx: Recorder) -> None:
    """An operator asked for one of two again."""
    w.connection.execute(
        "UPDATE outbox SET asked_at_ms = ? WHERE outbox_no = ?", (NOW, w.no("outbox web:pending"))
    )


def pending_at(w: World) -> int:
    return int(w.row("outbox web:pending-too")["created_at_ms"])


READS = [
    *(
        Read(
            "channels.full",
            f"{channel}, {fewer} fewer",
            {"channel": channel, "fewer": fewer},
            [{"full": 1}] if full else [],
        )
        for channel, fewer, full in (
            ("web", 0, True),
            ("web", 6, True),
            ("web", 7, False),
            ("signal", 0, False),
        )
    ),
    Read(
        "channels.next_try",
        "the first",
        {"channel": "web"},
        lambda w: [{"at_ms": w.row("outbox web:behind")["available_at_ms"]}],
    ),
    Read(
        "channels.next_try",
        "of those that wait",
        {"channel": "web"},
        [{"at_ms": 5}],
        lambda w, _tx: w.connection.execute(
            "UPDATE outbox SET available_at_ms = 5 WHERE state = 'pending'"
        ),
    ),
    Read(
        "channels.next_try",
        "of those without a mark",
        {"channel": "web"},
        [{"at_ms": 6}],
        lambda w, _tx: w.connection.execute(
            "UPDATE outbox SET available_at_ms = 6 - waits WHERE state = 'pending'"
        ),
    ),
    Read("channels.next_try", "none waits", {"channel": "signal"}, [{"at_ms": None}]),
    Read(
        "channels.in_force",
        "not one that is over, nor one that begins later",
        {"now_ms": NOW},
        lambda w: [
            {
                "channel": channel,
                "refused_since_ms": w.row(f"channel_pause {channel}")["refused_since_ms"],
                "begun_at_ms": w.row(f"channel_pause {channel}")["begun_at_ms"],
                "until_ms": w.row(f"channel_pause {channel}")["until_ms"],
                "reason": f"429 of {channel}",
            }
            for channel in ("matrix", "signal")
        ],
    ),
    Read(
        "channels.pause_of",
        "one that is over",
        {"channel": "irc"},
        [{"pauses": 3, "until_ms": NOW, "begun_at_ms": NOW - SECOND}],
    ),
    Read("channels.pause_of", "none", {"channel": "web"}, []),
    Read(
        "channels.outwaited",
        "of one channel, oldest first",
        lambda w: waiting_since("web", pending_at(w)),
        [
            {"outbox_no": f"web:{name}", "session_no": session, "target": f"web:{name}"}
            for name, session in (
                ("behind", "reply-sending"),
                ("behind-too", "reply-sending"),
                ("retried", "reply-retried"),
                ("retried-behind", "reply-retried"),
                ("pending", "done-old"),
                ("pending-too", "done-old"),
            )
        ],
    ),
    Read(
        "channels.outwaited",
        "the first",
        lambda w: waiting_since("web", pending_at(w), limit=1),
        [{"target": "web:behind"}],
    ),
    Read(
        "channels.outwaited",
        "not one that is asked for again",
        lambda w: waiting_since("web", pending_at(w)),
        [
            {"target": f"web:{name}"}
            for name in ("behind", "behind-too", "retried", "retried-behind", "pending-too")
        ],
        asked_again,
    ),
    Read("channels.outwaited", "younger", waiting_since("web", NOW - 2 * DAY), []),
]
