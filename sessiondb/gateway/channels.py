"""Channels: what waits for one of them is no concern of the others.

One that says when to try again (429 with `retry_after`) is not called before.

    takes replies --> refuses with a time --> waits --> is called once: takes it, or waits again

The pause is a row, so a restart keeps it, and every process. It is the channel's, not the
reply's. No other reply of the channel is tried into it, none loses its place or an attempt, and
other channels do not notice. The reply itself waits behind nothing but the pause.

A pause ends at its time. It ends sooner if a clock that nobody can set says that it has lasted
as long as it should (`dispatcher.py`), or if the clock is before its begin, because then it was
set back. A channel that has refused for a day without a break gives up what has waited for a
day. Nobody knows when it would end.

A channel for which too many replies wait takes no further message: its senders are told when
it is accepted, so that every accepted message is still answered. Nothing else stops. Replies
that other messages have for it (a cron job's, a forwarded event's) are taken up to twice as
many. Beyond that they are rows, too, but failed ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.limits import (
    CHANNEL_PAUSE_GROWTH,
    CHANNEL_PAUSE_MS_MAX,
    CHANNEL_PAUSE_MS_MIN,
    CHANNEL_QUIET_MS,
    OUTBOX_CHANNEL_MAX,
    OUTBOX_WAITING_MAX,
    REPLY_RETRY_MS_MAX,
    RETRY_PAUSE_MS,
    RETRY_PAUSE_MS_MAX,
)

from . import changes

if TYPE_CHECKING:
    from sessiondb import statements

GIVEN_UP_AT_ONCE = 50


def in_force(tx: ReadTx, now_ms: int) -> list[statements.ChannelsInForce]:
    """Read the pauses that are in force."""
    return tx.all("channels.in_force", now_ms=now_ms)


def closed(pauses: Sequence[statements.ChannelsInForce], full: Sequence[str] = ()) -> str:
    """Return the channels that take no reply, as a JSON array: those that wait, and `full`.

    `pauses` are those in force.
    """
    return json.dumps([*full, *(row.channel for row in pauses)])


def pause(tx: Tx, channel: str, retry_after_ms: int, reason: str) -> int:
    """Make a channel wait, because it said so. Return since when it has refused without a break.

    Calls that were under way together are refused together: the longest wait counts, and the
    event is emitted once.
    """
    now_ms = tx.now_ms
    before = tx.first("channels.pause_of", channel=channel)
    is_waiting = before is not None and before.begun_at_ms <= now_ms < before.until_ms
    if before is None or not (before.begun_at_ms <= now_ms <= before.until_ms + CHANNEL_QUIET_MS):
        refused_since_ms, pauses = now_ms, 1
    else:
        refused_since_ms, pauses = before.refused_since_ms, before.pauses + (not is_waiting)
    wait_ms = min(max(retry_after_ms, _shortest_ms(pauses)), CHANNEL_PAUSE_MS_MAX)
    until_ms = now_ms + wait_ms
    if before is not None and is_waiting and before.until_ms >= until_ms:
        return refused_since_ms
    tx.run("channels.forget_old", before_ms=now_ms - CHANNEL_QUIET_MS)
    tx.run(
        "channels.put_pause",
        channel=channel,
        refused_since_ms=refused_since_ms,
        pauses=pauses,
        now_ms=now_ms,
        until_ms=until_ms,
        reason=reason,
    )
    if not is_waiting:
        events.emit(
            tx,
            "reply_delayed",
            "operator",
            f"Channel {channel} takes no reply until {iso_from_ms(until_ms)}, because it said so: "
            f"{reason}. Its replies wait; those to other channels do not",
            channel=channel,
            until_ms=until_ms,
            refused_since_ms=refused_since_ms,
        )
    return refused_since_ms


def _shortest_ms(pauses: int) -> int:
    grown: int = CHANNEL_PAUSE_MS_MIN * CHANNEL_PAUSE_GROWTH ** min(pauses - 1, 16)
    return min(grown, RETRY_PAUSE_MS_MAX)


def took_a_reply(tx: Tx, channel: str) -> None:
    """Note that a channel takes replies again."""
    tx.run("channels.forget", channel=channel, now_ms=tx.now_ms)


def end_pauses(tx: Tx, over: Sequence[statements.ChannelsInForce]) -> None:
    """End pauses before their time. Others that began since stay."""
    for row in over:
        tx.run(
            "channels.end_pause",
            channel=row.channel,
            begun_at_ms=row.begun_at_ms,
            until_ms=row.until_ms,
        )


def outwaited(
    tx: ReadTx,
    now_ms: int,
    pauses: Sequence[statements.ChannelsInForce],
    *,
    limit: int = GIVEN_UP_AT_ONCE,
) -> list[tuple[str, statements.ChannelsOutwaited]]:
    """Read replies that have waited for a day for a channel that has refused for a day.

    Each with the reason of its channel. `pauses` are those to examine.
    """
    before_ms = now_ms - REPLY_RETRY_MS_MAX
    return [
        (refusing.reason, row)
        for refusing in pauses
        if refusing.refused_since_ms <= before_ms
        for row in tx.all(
            "channels.outwaited",
            channel=refusing.channel,
            asked_before_ms=before_ms,
            limit=limit,
        )
    ]


def give_up_outwaited(tx: Tx) -> int:
    """Make replies `failed` whose channel has refused for a day. Some at a time. Return how many.

    None of them is tried once more, because each call into a ban may prolong it.
    """
    found = outwaited(tx, tx.now_ms, in_force(tx, tx.now_ms))
    for reason, row in found:
        why = f"its channel has said for a day to try again later: {reason}"
        tx.run("outbox.set_aside", outbox_no=row.outbox_no, now_ms=tx.now_ms, reason=why)
        changes.line_up_replies(tx, row.outbox_no)
        events.emit(
            tx,
            "reply_failed",
            "operator",
            f"Reply {row.outbox_no} to {row.target} failed: {why}",
            session_no=row.session_no,
            outbox_no=row.outbox_no,
        )
    return len(found)


# -- too many replies ---------------------------------------------------------------------------


def channel_of(address: str) -> str:
    """Return the channel of a target, or of an adapter: all before its first colon."""
    return address.partition(":")[0]


def full_for_ms(tx: ReadTx, channel: str, now_ms: int) -> int | None:
    """Return when to offer a channel's message again, because its outbox is full. None: it is not.

    That is when the channel said, or when its first reply is tried next.
    """
    if tx.first("channels.full", channel=channel, fewer=OUTBOX_WAITING_MAX - 1) is None:
        return None
    waits = next((row.until_ms for row in in_force(tx, now_ms) if row.channel == channel), None)
    if waits is not None:
        return max(RETRY_PAUSE_MS, waits - now_ms)
    at_ms = tx.one("channels.next_try", channel=channel).at_ms or now_ms
    return min(max(RETRY_PAUSE_MS, at_ms - now_ms), RETRY_PAUSE_MS_MAX)


def no_room(tx: ReadTx, channel: str) -> str | None:
    """Return why a channel takes no reply at all, also of a turn that ends. None: it does."""
    if tx.first("channels.full", channel=channel, fewer=OUTBOX_CHANNEL_MAX - 1) is None:
        return None
    return f"{OUTBOX_CHANNEL_MAX:,} replies wait for channel {channel}, which is the limit"
