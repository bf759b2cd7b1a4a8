"""The outbox: replies, written in the transaction that completes their turn, sent from rows.

    pending --> sending --> sent
       ^           |------> failed     the channel refused it for good
       |-- retry --|------> unknown    the sender died, or could not tell: shown, never blindly repeated

"Sending" is committed before the channel is called. So after a crash in between, the row says `sending` by a process
that is gone: nobody can know whether the person has read it, and it becomes `unknown`. Sending it again is an
operator's decision. Replies of one session keep their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import events
from .backend import ReadTx, Tx
from .errors import NotFound
from .limits import LEASE_GRACE_MS, OUTBOX_ATTEMPTS_MAX, RETRY_PAUSE_MS, RETRY_PAUSE_MS_MAX
from .models import Reply


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A reply that this process is sending."""

    outbox_no: int
    session_no: int
    session_id: str
    target: str
    attempt: int
    payload: str


def begin_sending(tx: Tx, *, lease_ms: int) -> Outgoing | None:
    """Take the next reply and commit to sending it; None if there is none."""
    row = tx.one("outbox.next", now_ms=tx.now_ms)
    if row is None:
        return None
    taken = tx.run(
        "outbox.begin_sending", outbox_no=row.outbox_no, instance_no=tx.instance_no, expires_at_ms=tx.now_ms + lease_ms + LEASE_GRACE_MS
    )
    assert taken == 1, "the reply was pending a moment ago, in this transaction"
    return Outgoing(row.outbox_no, row.session_no, row.session_id, row.target, row.attempts + 1, row.payload)


def sent(tx: Tx, reply: Outgoing, receipt: str | None) -> bool:
    """Record that the channel took a reply; False if somebody decided about it meanwhile."""
    return _settle(tx, reply, "sent", receipt=receipt, reason=None)


def refused(tx: Tx, reply: Outgoing, reason: str, *, retry: bool) -> bool:
    """Record that the channel did not send a reply: it is tried again after a pause, or failed for good."""
    if retry and reply.attempt < OUTBOX_ATTEMPTS_MAX:
        pause_ms = min(RETRY_PAUSE_MS * 2 ** (reply.attempt - 1), RETRY_PAUSE_MS_MAX)
        return put_back(tx, reply, reason, pause_ms=pause_ms)
    if not _settle(tx, reply, "failed", receipt=None, reason=reason):
        return False
    events.emit(
        tx, "reply_failed", "operator", f"Reply {reply.outbox_no} to {reply.target} failed: {reason}",
        session_no=reply.session_no, outbox_no=reply.outbox_no,
    )  # fmt: skip
    return True


def put_back(tx: Tx, reply: Outgoing, reason: str, *, pause_ms: int = 0) -> bool:
    """Make a reply that was certainly not sent wait again; False if somebody decided about it meanwhile."""
    put = tx.run(
        "outbox.retry",
        outbox_no=reply.outbox_no,
        instance_no=tx.instance_no,
        attempt=reply.attempt,
        available_at_ms=tx.now_ms + pause_ms,
        reason=reason,
    )
    return put == 1


def lost(tx: Tx, reply: Outgoing, reason: str) -> bool:
    """Record that nobody knows whether the channel took a reply; False if that is recorded already."""
    return lose_track(tx, reply.outbox_no, reply.session_no, reason, attempt=reply.attempt)


def lose_track(tx: Tx, outbox_no: int, session_no: int, reason: str, *, attempt: int) -> bool:
    """Make a reply whose sender is gone `unknown`; False if it had been settled."""
    if not tx.run("outbox.lose_track", outbox_no=outbox_no, attempt=attempt, now_ms=tx.now_ms, reason=reason):
        return False
    events.emit(
        tx, "reply_unknown", "operator", f"Nobody knows whether reply {outbox_no} was sent ({reason}); look, then settle it by hand",
        session_no=session_no, outbox_no=outbox_no,
    )  # fmt: skip
    return True


def give_up_overdue(tx: Tx, *, limit: int = 50) -> int:
    """Make replies `unknown` whose sender has not been heard of in time; a bounded number at a time."""
    rows = tx.all("outbox.overdue", now_ms=tx.now_ms, limit=limit)
    late = "its sender was not heard of in time"
    return sum(lose_track(tx, row.outbox_no, row.session_no, late, attempt=row.attempts) for row in rows)


def decide(tx: Tx, outbox_no: int, state: Literal["sent", "pending"]) -> None:
    """Settle an unknown or failed reply by hand: it was sent, or it is to be sent again.

    Raises:
        NotFound: there is no unknown or failed reply of that number.
    """
    if not tx.run("outbox.decide", outbox_no=outbox_no, state=state, now_ms=tx.now_ms, reason="decided by an operator"):
        raise NotFound(f"reply {outbox_no} is neither unknown nor failed; list them with `sessiondb outbox DB`", outbox_no=outbox_no)


def replies(tx: ReadTx, *, state: str, after_no: int, limit: int) -> list[Reply]:
    """List replies in a state, oldest first."""
    if state == "sent":
        rows = tx.all("outbox.list_sent", after_no=after_no, limit=limit)
    else:
        rows = tx.all("outbox.list", state=state, after_no=after_no, limit=limit)
    return [Reply(**row._asdict()) for row in rows]


def _settle(tx: Tx, reply: Outgoing, state: str, *, receipt: str | None, reason: str | None) -> bool:
    settled = tx.run(
        "outbox.settle",
        outbox_no=reply.outbox_no,
        instance_no=tx.instance_no,
        attempt=reply.attempt,
        state=state,
        now_ms=tx.now_ms,
        receipt=receipt,
        reason=reason,
    )
    return settled == 1
