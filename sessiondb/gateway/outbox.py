"""The outbox: replies are rows, written with the end of their turn and sent from there.

A reply that forwards an event is written in a transaction of its own.

    pending --> sending                  before the channel is called
    sending --> sent | failed | pending  the channel took it, or refused it for good, or for now
    sending --> unknown                  the sender died, or could not tell: shown, never
                                         blindly repeated
    pending --> failed                   it cannot be read, or its channel said for a day to wait
    pending --> unknown                  it came from a backup
    unknown --> sent | failed | pending  its sender answered late, or an operator decided
    failed --> sent | pending            an operator decided

"Sending" is committed before the channel is called. After a crash in between, the row says
`sending` by a dead process. Nobody can know whether the person has read the reply, so it
becomes `unknown`. Sending it again is an operator's decision.

Replies of one session to one channel keep their order. The channel is what stands before
the first colon of the target (`discord` of `discord:4711`). Channels do not wait for each
other. `channels.py` has the pauses of those that say when to try again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import InvalidInput, NotFound, StoreDamaged
from sessiondb.json_text import dumps
from sessiondb.limits import (
    ENTRY_BYTES_MAX,
    LEASE_GRACE_MS,
    REPLY_ATTEMPTS_MIN,
    REPLY_PAUSES_S,
    REPLY_RETRY_MS_MAX,
    SESSION_KEY_CHARS_MAX,
    pauses_over,
    retry_pause_ms,
)
from sessiondb.models import Event, Reply

from . import changes, channels
from .details import decoded_details

if TYPE_CHECKING:
    from sessiondb import statements

LATE = "its sender was not heard of in time"


class CannotSend(Exception):
    """A reply that cannot be read, most often because its session's row is damaged."""

    def __init__(self, outbox_no: int, error: Exception) -> None:
        super().__init__(f"it cannot be read: {type(error).__name__}: {error}")
        self.outbox_no = outbox_no


@dataclass(frozen=True, slots=True)
class Sending(Reply):
    """A reply that this process is sending, with what the outbox must know of the attempt."""

    session_no: int
    expires_at_ms: int
    """After this it is `unknown`, unless its outcome is recorded."""
    tries: int
    """Attempts since `asked_at_ms` that count, this one included."""
    asked_at_ms: int
    """When it was created, or when an operator asked for it again."""


def encoded_reply(target: str, message: Any) -> tuple[tuple[str, str], int]:
    """Encode a reply for the outbox. Return it and its bytes.

    Raises:
        InvalidInput: it is too large, or its target is no text.
        TypeError, ValueError: it is no JSON.
    """
    if not isinstance(target, str):
        raise InvalidInput(f"a reply's target is a str, not {type(target).__name__}")
    text = dumps(message)
    size = len(text) if text.isascii() or len(text) > ENTRY_BYTES_MAX else len(text.encode())
    if len(target) > SESSION_KEY_CHARS_MAX or size > ENTRY_BYTES_MAX:
        raise InvalidInput(
            f"a reply of {size:,} bytes to {target[:80]!r}: at most {ENTRY_BYTES_MAX:,} bytes fit"
        )
    return (target, text), size


def encoded_event(event: Event, target: str, message: Any) -> tuple[tuple[str, str], int]:
    """Encode the reply that forwards an event. Return it and its bytes.

    Raises:
        InvalidInput: it is no JSON, or too large.
    """
    try:
        return encoded_reply(target, message)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"event {event.event_no} cannot be forwarded to {target!r:.80}: {error}"
        ) from error


def add(tx: Tx, session_no: int, turn_no: int, replies: Sequence[tuple[str, str]]) -> None:
    """Add the replies (target, JSON) of a turn that ends.

    Those to a channel that has no room are failed, each with an event. The answer is in the
    transcript, and an operator may send them again.
    """
    no_room = {
        channel: channels.no_room(tx, channel)
        for channel in {channels.channel_of(target) for target, _ in replies}
    }
    for target, payload in replies:
        reason = no_room[channels.channel_of(target)]
        added = tx.one(
            "outbox.add",
            session_no=session_no,
            turn_no=turn_no,
            target=target,
            now_ms=tx.now_ms,
            reason=reason,
            payload=payload,
        )
        if reason is not None:
            events.emit(
                tx,
                "reply_failed",
                "operator",
                f"Reply {added.outbox_no} to {target} failed: {reason}",
                session_no=session_no,
                outbox_no=added.outbox_no,
            )


def next_no(tx: ReadTx, now_ms: int, closed: str = "[]") -> int | None:
    """Return the number of the reply to be sent now. None if there is none.

    `closed` is a JSON array of channels that take no reply now.

    Only a retry waits for a time. The oldest reply that may be sent goes first. Of those whose
    pause is over, the one that waited first is compared with the rest.
    """
    found = [
        tx.first("outbox.next", low_ms=low_ms, high_ms=high_ms, full=closed)
        for low_ms, high_ms in pauses_over(now_ms)
    ]
    return min((row.outbox_no for row in found if row is not None), default=None)


def forward_event(tx: Tx, event: Event, consumer: str, target: str, payload: str) -> bool:
    """Add a reply that forwards an event for a consumer, once.

    However many processes follow, in whatever order they come to it. Return False if it was
    added before: by another process, or before a crash. The consumer's position is left
    alone. It moves when the next event is asked for.

    If its channel has no room the reply is failed. There is no event then, because a reader
    of such events would forward that, too, and so on for ever.

    Raises:
        NotFound: there is no such consumer. Under a misspelt name the event would be sent again.
        InvalidInput: the event is about no session.
    """
    if event.session_id is None:
        raise InvalidInput(
            f"event {event.event_no} ({event.kind}) is about no session, "
            "so there is nobody to send it to"
        )
    if events.cursor(tx, consumer) is None:
        raise NotFound(
            f"event {event.event_no} ({event.kind}) was not forwarded: nobody reads events under "
            f"the name {consumer!r:.80}. Pass the name that db.events() was given",
            consumer=consumer,
        )
    added = tx.run(
        "outbox.forward",
        session_no=tx.one("registry.by_id", session_id=event.session_id).session_no,
        target=target,
        now_ms=tx.now_ms,
        event_no=event.event_no,
        consumer=consumer,
        reason=channels.no_room(tx, channels.channel_of(target)),
        payload=payload,
    )
    return added == 1


@dataclass(frozen=True, slots=True)
class Seen:
    """The next reply, as a look saw it, with its text: that is not read under the write lock."""

    outbox_no: int
    payload: str | None
    """None: it cannot be read. `begin_sending` finds that out again, and says so."""


def peek(tx: ReadTx, now_ms: int, closed: str = "[]") -> Seen | None:
    """Read the reply to be sent now. None if there is none."""
    outbox_no = next_no(tx, now_ms, closed)
    if outbox_no is None:
        return None
    try:
        return Seen(outbox_no, tx.one("outbox.payload", outbox_no=outbox_no).payload)
    except StoreDamaged:
        return Seen(outbox_no, None)


def begin_sending(
    tx: Tx,
    *,
    lease_ms: int,
    full: Sequence[str] = (),
    seen: Seen | None = None,
    claim_id: str | None = None,
) -> Sending | None:
    """Take the reply that was `seen`, or else the next, and commit to sending it. None if none may.

    If another process was faster, the next one's text is read here, under the write lock.
    `full` are channels of which the caller takes no reply now. Another process may have
    learned meanwhile that a channel waits, so that is read here again. Nor is one taken if an
    earlier claim with `claim_id` is sending one: that one is the caller's.

    Raises:
        CannotSend: it cannot be read.
    """
    if claim_id is not None and is_taken(tx, claim_id):
        return None
    closed = channels.closed(channels.in_force(tx, tx.now_ms), full)
    if seen is None or not tx.first(
        "outbox.ready", outbox_no=seen.outbox_no, now_ms=tx.now_ms, full=closed
    ):
        next_one = next_no(tx, tx.now_ms, closed)
        if next_one is None:
            return None
        seen = Seen(next_one, None)
    outbox_no, text = seen.outbox_no, seen.payload  # a reply's text never changes
    try:
        row = tx.one("outbox.candidate", outbox_no=outbox_no)
        if text is None:
            text = tx.one("outbox.payload", outbox_no=outbox_no).payload
        details = decoded_details(row.details)
    except StoreDamaged as error:
        raise CannotSend(outbox_no, error) from error
    expires_at_ms = tx.now_ms + lease_ms + LEASE_GRACE_MS
    taken = tx.run(
        "outbox.begin_sending",
        outbox_no=outbox_no,
        instance_no=tx.instance_no,
        expires_at_ms=expires_at_ms,
        claim_id=claim_id,
    )
    changes.require_one(taken, f"reply {outbox_no} was pending")
    return _sending(row, text, details, row.attempts + 1, expires_at_ms)


def is_taken(tx: ReadTx, claim_id: str) -> bool:
    """Tell whether a reply is being sent since a claim with this id."""
    return tx.first("outbox.claimed_as", claim_id=claim_id) is not None


def take_again(tx: Tx, *, lease_ms: int, claim_id: str) -> Sending | None:
    """Take the reply again that a claim with this id took, its lease renewed. None: it has ended.

    It is the same attempt. The claim's answer was lost, so nobody has called the channel.
    """
    found = tx.first("outbox.claimed_as", claim_id=claim_id)
    if found is None:
        return None
    expires_at_ms = tx.now_ms + lease_ms + LEASE_GRACE_MS
    longer = tx.run(
        "outbox.send_longer",
        outbox_no=found.outbox_no,
        instance_no=tx.instance_no,
        expires_at_ms=expires_at_ms,
    )
    changes.require_one(longer, f"reply {found.outbox_no} was being sent")
    row = tx.one("outbox.candidate", outbox_no=found.outbox_no)
    text = tx.one("outbox.payload", outbox_no=found.outbox_no).payload
    return _sending(row, text, decoded_details(row.details), row.attempts, expires_at_ms)


def _sending(
    row: statements.OutboxCandidate,
    text: str,
    details: dict[str, Any],
    attempts: int,
    expires_at_ms: int,
) -> Sending:
    return Sending(
        outbox_no=row.outbox_no,
        session_id=row.session_id,
        turn_no=row.turn_no,
        target=row.target,
        state="sending",
        attempts=attempts,
        created_at_ms=row.created_at_ms,
        reason=row.reason,
        payload=text,
        session_no=row.session_no,
        expires_at_ms=expires_at_ms,
        tries=attempts - row.attempts_before,
        asked_at_ms=row.asked_at_ms,
        details=details,
    )


def adopt(tx: Tx, outbox_no: int, attempt: int) -> Sending | None:
    """Let this process speak for an attempt that perhaps another one began. None: it has ended.

    For a sender that is in no process of this library. Its text and details are left out, because
    the sender has them.

    Raises:
        NotFound: there is no such reply, or no such attempt at it.
    """
    row = tx.first("outbox.candidate", outbox_no=outbox_no)
    if row is None or not 1 <= attempt <= row.attempts:
        raise NotFound(
            f"there is no attempt {attempt} at a reply {outbox_no}; claim one, and pass its "
            "`attempts`",
            outbox_no=outbox_no,
        )
    adopted = tx.run(
        "outbox.adopt", outbox_no=outbox_no, attempt=attempt, instance_no=tx.instance_no
    )
    return _sending(row, "null", {}, attempt, tx.now_ms) if adopted else None


def set_aside(tx: Tx, outbox_no: int, reason: str) -> bool:
    """Give up a waiting reply that cannot be read. False if it is not waiting any more.

    Its event is about no session.
    """
    if not tx.run("outbox.set_aside", outbox_no=outbox_no, now_ms=tx.now_ms, reason=reason):
        return False
    changes.line_up_replies(tx, outbox_no)
    events.emit(
        tx,
        "reply_failed",
        "operator",
        f"Reply {outbox_no} was not sent: {reason}",
        outbox_no=outbox_no,
    )
    return True


def sent(tx: Tx, reply: Sending, receipt: str | None) -> bool:
    """Record that the channel took a reply. False if it was settled otherwise meanwhile."""
    channels.took_a_reply(tx, reply.channel)
    if not _settle(tx, reply, "sent", receipt=receipt, reason=None):
        return False
    _notify_sent(tx, reply.outbox_no, receipt=receipt, by_operator=False)
    return True


def _notify_sent(tx: Tx, outbox_no: int, *, receipt: str | None, by_operator: bool) -> None:
    """Emit the event of a reply that was sent. None for one that forwards an event.

    A reader that forwards events of this kind would forward that one's, too, and so on for ever.
    """
    row = tx.one("outbox.origin", outbox_no=outbox_no)
    if row.event_no is not None:
        return
    events.emit(
        tx,
        "reply_sent",
        "operator",
        f"Reply {outbox_no} to {row.target} was sent"
        + (", as an operator decided" if by_operator else ""),
        session_no=row.session_no,
        outbox_no=outbox_no,
        turn_no=row.turn_no,
        target=row.target,
        receipt=receipt,
        by_operator=by_operator,
    )


def refused(
    tx: Tx,
    reply: Sending,
    reason: str,
    *,
    retry: bool,
    retry_after_ms: int | None = None,
    pauses_s: Sequence[float] = REPLY_PAUSES_S,
) -> bool:
    """Record that the channel did not send a reply: retry it after a pause, or fail it for good.

    A channel that is away is no reason to give up. The reply is tried for a day, and a few
    times however old it is. With `retry_after_ms` the channel waits, and this attempt does not
    count. Then the day begins when the channel began to refuse, if that is later.
    """
    if retry_after_ms is not None:
        refused_since_ms = channels.pause(tx, reply.channel, retry_after_ms, reason)
        waits_since_ms = max(refused_since_ms, reply.asked_at_ms)
        if retry and tx.now_ms - waits_since_ms < REPLY_RETRY_MS_MAX:
            return release(tx, reply, reason, counts=False)
    elif retry and (
        reply.tries < REPLY_ATTEMPTS_MIN or tx.now_ms - reply.asked_at_ms < REPLY_RETRY_MS_MAX
    ):
        return release(tx, reply, reason, pause_ms=retry_pause_ms(reply.tries, pauses_s))
    if not _settle(tx, reply, "failed", receipt=None, reason=reason):
        return False
    events.emit(
        tx,
        "reply_failed",
        "operator",
        f"Reply {reply.outbox_no} to {reply.target} failed: {reason}",
        session_no=reply.session_no,
        outbox_no=reply.outbox_no,
    )
    return True


def release(tx: Tx, reply: Sending, reason: str, *, pause_ms: int = 0, counts: bool = True) -> bool:
    """Make a reply pending again that was certainly not sent. False if it was settled meanwhile.

    Without a pause it keeps its place. `counts` says whether the attempt does.
    """
    released = tx.run(
        "outbox.retry",
        outbox_no=reply.outbox_no,
        instance_no=tx.instance_no,
        attempt=reply.attempts,
        available_at_ms=tx.now_ms + pause_ms if pause_ms else 0,
        uncounted=int(not counts),
        reason=reason,
    )
    if released:
        changes.line_up_replies(tx, reply.outbox_no)
    return released == 1


def release_if_taken(tx: Tx, reply: Sending, reason: str) -> bool:
    """Make a reply pending again whose sender was not called. False if it was not taken.

    For a `begin_sending` whose outcome is unknown. If it was not committed, another loop of
    this process may take the same attempt. The time tells the two apart.
    """
    taken = tx.first(
        "outbox.begun",
        outbox_no=reply.outbox_no,
        instance_no=tx.instance_no,
        attempt=reply.attempts,
        expires_at_ms=reply.expires_at_ms,
    )
    return taken is not None and release(tx, reply, reason)


def lost(tx: Tx, reply: Sending, reason: str) -> bool:
    """Record that nobody knows whether the channel took a reply. False if it was settled."""
    return lose_track(tx, reply.outbox_no, reply.session_no, reason, attempt=reply.attempts)


def lose_track(
    tx: Tx, outbox_no: int, session_no: int | None, reason: str, *, attempt: int
) -> bool:
    """Make a reply `unknown` whose sender died or is late. False if it had been settled."""
    if not tx.run(
        "outbox.lose_track", outbox_no=outbox_no, attempt=attempt, now_ms=tx.now_ms, reason=reason
    ):
        return False
    changes.line_up_replies(tx, outbox_no)
    events.emit(
        tx,
        "reply_unknown",
        "operator",
        f"Nobody knows whether reply {outbox_no} was sent ({reason}); look, then settle it by hand",
        session_no=session_no,
        outbox_no=outbox_no,
    )
    return True


def give_up_overdue(tx: Tx, *, limit: int = 50) -> int:
    """Make replies `unknown` whose sender's lease ran out. `limit` at a time. Return how many."""
    rows = overdue(tx, tx.now_ms, limit=limit)
    return sum(
        lose_track(tx, row.outbox_no, row.session_no, LATE, attempt=row.attempts) for row in rows
    )


def overdue(tx: ReadTx, now_ms: int, *, limit: int = 50) -> list[statements.OutboxOverdue]:
    """Read replies whose sender's lease ran out, `limit` at most."""
    return tx.all("outbox.overdue", now_ms=now_ms, limit=limit)


def decide(tx: Tx, outbox_no: int, state: Literal["sent", "pending"]) -> None:
    """Settle an unknown or failed reply by hand: it was sent, or it is to be sent again.

    Raises:
        NotFound: there is no unknown or failed reply of that number.
    """
    if not tx.run(
        "outbox.decide",
        outbox_no=outbox_no,
        state=state,
        now_ms=tx.now_ms,
        reason="decided by an operator",
    ):
        raise NotFound(
            f"reply {outbox_no} is neither unknown nor failed; "
            "list them with `sessiondb outbox DB`",
            outbox_no=outbox_no,
        )
    if state == "sent":
        _notify_sent(tx, outbox_no, receipt=None, by_operator=True)
    changes.line_up_replies(tx, outbox_no)


def line_up_all(tx: Tx) -> int:
    """Mark again which replies wait for others. Return how many marks were wrong."""
    return tx.run("outbox.line_up_all")


def replies(
    tx: ReadTx, after_no: int | None, limit: int, *, state: str
) -> tuple[list[Reply], int | None]:
    """List replies in a state, oldest first.

    Also return the next page's cursor, None at the end.
    """
    after_no = after_no or 0
    if state == "sent":
        rows, more = tx.page("outbox.list_sent", after_no=after_no, limit=limit)
    else:
        rows, more = tx.page("outbox.list", state=state, after_no=after_no, limit=limit)
    found = [Reply(**{**row._asdict(), "details": decoded_details(row.details)}) for row in rows]
    return found, found[-1].outbox_no if more else None


def _settle(tx: Tx, reply: Sending, state: str, *, receipt: str | None, reason: str | None) -> bool:
    settled = tx.run(
        "outbox.settle",
        outbox_no=reply.outbox_no,
        instance_no=tx.instance_no,
        attempt=reply.attempts,
        state=state,
        now_ms=tx.now_ms,
        receipt=receipt,
        reason=reason,
    )
    if settled:
        changes.line_up_replies(tx, reply.outbox_no)
    return settled == 1
