"""The routes of a gateway's queue: messages, turns and lanes, and replies to send."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from sessiondb import errors
from sessiondb.errors import InvalidInput, NotFound, SessionDBError
from sessiondb.gateway.running_turn import LaneSettings, Turn
from sessiondb.models import Accepted, Edited, Lane, Outcome, Receipt, Withdrawn

from . import bodies
from .polling import is_gone, poll
from .sessions import Receipts
from .table import Call, route

logger = logging.getLogger("sessiondb")

MESSAGES, TURNS, OUTBOX = "messages", "turns", "outbox"
_LARGEST: Final = 2**63 - 1
_NONE = {204: "There is none."}
_OF_A_MESSAGE = (
    errors.SessionBusy,
    errors.NotFound,
    errors.InvalidKey,
    errors.IdentityConflict,
    errors.SessionEnded,
)
_OF_A_TURN = (errors.NotFound, errors.TurnLost)


def numbered(call: Call, name: str) -> int:
    """Return a number of the path.

    Raises:
        InvalidInput: it is none.
    """
    text = call.path[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= _LARGEST):
        raise InvalidInput(f"{name} in the path is {text!r:.60}, and must be a number")
    return int(text)


# -- messages ---------------------------------------------------------------------------------


@route(
    "POST",
    "/v1/messages",
    body=bodies.Accept,
    answer=Accepted,
    errors=_OF_A_MESSAGE,
    tag=MESSAGES,
)
async def accept(call: Call) -> Accepted:
    """Accept a message from a channel. On disk when it is answered. Repeat it with its event id."""
    asked = call.body(bodies.Accept)
    return await call.db.accept(
        asked.key,
        asked.message,
        channel=asked.channel,
        event_id=asked.event_id,
        lane=asked.lane,
        by_person=asked.by_person,
        answer=asked.answer,
        details=asked.details,
    )


@route(
    "POST",
    "/v1/messages/edit",
    body=bodies.Edit,
    answer=Edited,
    errors=_OF_A_MESSAGE,
    tag=MESSAGES,
)
async def edit(call: Call) -> Edited:
    """Give a message a new text, because its sender edited it. Repeat it with its version."""
    asked = call.body(bodies.Edit)
    return await call.db.edit(
        asked.key,
        asked.message,
        channel=asked.channel,
        event_id=asked.event_id,
        version=asked.version,
        details=asked.details,
    )


@route("POST", "/v1/messages/withdraw", body=bodies.Withdraw, answer=Withdrawn, tag=MESSAGES)
async def withdraw(call: Call) -> Withdrawn:
    """Take a message back that waits, because its sender did. May be repeated."""
    asked = call.body(bodies.Withdraw)
    return await call.db.withdraw(asked.channel, asked.event_id)


@route(
    "GET",
    "/v1/messages/{inbox_no}/outcome",
    query=bodies.WaitQuery,
    answer=Outcome,
    errors=(errors.NotFound,),
    also={202: "It has not ended yet. Ask again."},
    tag=MESSAGES,
)
async def outcome(call: Call) -> Outcome | Response:
    """Wait until an accepted message has ended. Return what became of it."""
    inbox_no = numbered(call, "inbox_no")

    async def look() -> Outcome | None:
        try:
            return await call.db.wait(inbox_no, timeout_s=0)
        except TimeoutError:
            return None

    found = await poll(call, call.query(bodies.WaitQuery).wait_s, look)
    return Response(None, 202) if found is None else found


# -- turns ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClaimedTurn:
    """A message to work on. Its number is the fencing token of all that is written about it."""

    turn_no: int
    session_id: str
    key: str | None
    message: dict[str, Any]
    attempt: int
    kind: str
    """`message`, or `resume`: it continues what another turn had begun."""
    inbox_no: int
    channel: str
    event_id: str
    details: dict[str, Any]
    previous: Any
    """What an earlier attempt noted last. null: nothing."""
    accepted_at_ms: int
    expires_at_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Renewed:
    """Until when a lease holds."""

    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """That something has ended, and is on disk."""

    turn_no: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Whether a call recorded what became of a reply, or it had been recorded before."""

    outbox_no: int
    recorded: bool


@dataclass(frozen=True, slots=True)
class ClaimedReply:
    """A reply to send."""

    outbox_no: int
    attempts: int
    """With the number, what names this attempt: pass it on as `attempt`."""
    session_id: str
    turn_no: int | None
    target: str
    channel: str
    message: Any
    details: dict[str, Any]
    """Those of the message that it answers."""
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Lanes:
    """The lanes, those that go first first."""

    lanes: tuple[Lane, ...]


def _claimed(turn: Turn) -> ClaimedTurn:
    return ClaimedTurn(
        turn_no=turn.turn_no,
        session_id=turn.session.id,
        key=turn.key,
        message=turn.message,
        attempt=turn.attempt,
        kind=turn.kind,
        inbox_no=turn.inbox_no,
        channel=turn.channel,
        event_id=turn.event_id,
        details=turn.details,
        previous=turn.previous,
        accepted_at_ms=turn.accepted_at_ms,
        expires_at_ms=turn.expires_at_ms,
        deadline_ms=turn.deadline_ms,
    )


@route(
    "POST",
    "/v1/lanes/{lane}/claim",
    body=bodies.ClaimTurn,
    answer=ClaimedTurn,
    errors=(errors.NotFound,),
    also=_NONE,
    tag=TURNS,
)
async def claim_turn(call: Call) -> ClaimedTurn | Response:
    """Claim a lane's next message, and wait for one. Renew it in time. Repeat it by `claim_id`."""
    asked = call.body(bodies.ClaimTurn)
    settings = LaneSettings(lease_s=asked.lease_s, timeout_s=asked.timeout_s)
    lane, claim_id = call.path["lane"], asked.claim_id
    turn = await poll(
        call,
        asked.wait_s,
        lambda: call.db.claim_turn(lane, settings=settings, claim_id=claim_id),
    )
    if turn is None:
        return Response(None, 204)
    if claim_id is None and await is_gone(call):  # with an id it comes again, perhaps has come
        await _give_back(call, turn)
    return _claimed(turn)


async def _give_back(call: Call, turn: Turn) -> None:
    """Release a turn whose worker went away before it was told. Its lease ends it otherwise."""
    try:
        await call.db.release_turn(turn.turn_no, "its worker was gone when it was claimed")
    except SessionDBError as error:
        logger.info("turn %d could not be released, and its lease ends it: %s", turn.turn_no, error)


@route(
    "POST",
    "/v1/turns/{turn_no}/renew",
    body=bodies.RenewTurn,
    answer=Renewed,
    errors=_OF_A_TURN,
    tag=TURNS,
)
async def renew_turn(call: Call) -> Renewed:
    """Renew a turn's lease, and say what it is doing. May be repeated."""
    asked = call.body(bodies.RenewTurn)
    return Renewed(
        await call.db.renew_turn(
            numbered(call, "turn_no"), lease_s=asked.lease_s, operation=asked.operation
        )
    )


@route(
    "POST",
    "/v1/turns/{turn_no}/entries",
    body=bodies.Append,
    answer=Receipt,
    errors=(*_OF_A_TURN, errors.IdentityConflict, errors.SessionEnded),
    tag=TURNS,
)
async def append_to_turn(call: Call) -> Receipt:
    """Append in the name of a turn. Refused once it was taken over. Repeat it with its key."""
    asked = call.body(bodies.Append)
    item = bodies.BatchItem(item=asked.item, idempotency_key=asked.idempotency_key).taken()
    return await call.db.append_to_turn(
        numbered(call, "turn_no"), item, asked_epoch=asked.asked_epoch
    )


@route(
    "PUT",
    "/v1/turns/{turn_no}/note",
    body=bodies.NoteTurn,
    answer=Ended,
    errors=_OF_A_TURN,
    tag=TURNS,
)
async def note_turn(call: Call) -> Ended:
    """Note JSON for whoever takes the turn's message over. May be repeated."""
    turn_no = numbered(call, "turn_no")
    await call.db.note_turn(turn_no, call.body(bodies.NoteTurn).details)
    return Ended(turn_no)


@route(
    "POST",
    "/v1/turns/{turn_no}/complete",
    body=bodies.CompleteTurn,
    answer=Receipts,
    errors=(*_OF_A_TURN, errors.IdentityConflict, errors.SessionEnded),
    tag=TURNS,
)
async def complete_turn(call: Call) -> Receipts:
    """End a turn with its answer: entries, replies and the end, in one transaction."""
    asked = call.body(bodies.CompleteTurn)
    found = await call.db.complete_turn(
        numbered(call, "turn_no"), asked.answer(), asked_epoch=asked.asked_epoch
    )
    return Receipts(tuple(found))


@route(
    "POST",
    "/v1/turns/{turn_no}/fail",
    body=bodies.FailTurn,
    answer=Ended,
    errors=_OF_A_TURN,
    tag=TURNS,
)
async def fail_turn(call: Call) -> Ended:
    """End a turn that failed. Its message is tried again after a pause, or given up."""
    asked, turn_no = call.body(bodies.FailTurn), numbered(call, "turn_no")
    await call.db.fail_turn(turn_no, asked.reason, retry=asked.retry)
    return Ended(turn_no)


@route(
    "POST",
    "/v1/turns/{turn_no}/release",
    body=bodies.ReleaseTurn,
    answer=Ended,
    errors=_OF_A_TURN,
    tag=TURNS,
)
async def release_turn(call: Call) -> Ended:
    """Give a turn back, because its worker stops. It is resumed, and no attempt is counted."""
    turn_no = numbered(call, "turn_no")
    await call.db.release_turn(turn_no, call.body(bodies.ReleaseTurn).reason)
    return Ended(turn_no)


@route("GET", "/v1/lanes", answer=Lanes, tag=TURNS)
async def lanes(call: Call) -> Lanes:
    """List the lanes with their limits, and how much runs and waits in each."""
    return Lanes(tuple(await call.db.lanes()))


@route("PUT", "/v1/lanes/{lane}", body=bodies.SetLane, answer=Lane, tag=TURNS)
async def set_lane(call: Call) -> Lane:
    """Create a lane, or change its limits. May be repeated."""
    asked, name = call.body(bodies.SetLane), call.path["lane"]
    await call.db.set_lane(
        name, concurrency=asked.concurrency, priority=asked.priority, people=asked.people
    )
    found = [lane for lane in await call.db.lanes() if lane.lane == name]
    if not found:
        raise NotFound(f"lane {name} was dropped at this moment", lane=name)
    return found[0]


# -- outbox -----------------------------------------------------------------------------------


@route(
    "POST", "/v1/outbox/claim", body=bodies.ClaimReply, answer=ClaimedReply, also=_NONE, tag=OUTBOX
)
async def claim_reply(call: Call) -> ClaimedReply | Response:
    """Claim the next reply, and wait for one. Say in time how it ended. Repeat it by `claim_id`."""
    asked = call.body(bodies.ClaimReply)
    reply = await poll(
        call,
        asked.wait_s,
        lambda: call.db.claim_reply(
            lease_s=asked.lease_s, full=asked.full, claim_id=asked.claim_id
        ),
    )
    if reply is None:
        return Response(None, 204)
    if asked.claim_id is None and await is_gone(call):  # as of a turn
        await call.db.reply_refused(
            reply.outbox_no, reply.attempts, "its sender was gone when it was claimed"
        )
    return ClaimedReply(
        outbox_no=reply.outbox_no,
        attempts=reply.attempts,
        session_id=reply.session_id,
        turn_no=reply.turn_no,
        target=reply.target,
        channel=reply.channel,
        message=reply.message,
        details=reply.details,
        created_at_ms=reply.created_at_ms,
    )


@route(
    "POST",
    "/v1/outbox/{outbox_no}/sent",
    body=bodies.ReplySent,
    answer=Settled,
    errors=(errors.NotFound,),
    tag=OUTBOX,
)
async def reply_sent(call: Call) -> Settled:
    """Record that the channel took a claimed reply. May be repeated."""
    asked, outbox_no = call.body(bodies.ReplySent), numbered(call, "outbox_no")
    return Settled(
        outbox_no, await call.db.reply_sent(outbox_no, asked.attempt, receipt=asked.receipt)
    )


@route(
    "POST",
    "/v1/outbox/{outbox_no}/failed",
    body=bodies.ReplyRefused,
    answer=Settled,
    errors=(errors.NotFound,),
    tag=OUTBOX,
)
async def reply_failed(call: Call) -> Settled:
    """Record that the channel did not send a claimed reply, for certain. May be repeated."""
    asked, outbox_no = call.body(bodies.ReplyRefused), numbered(call, "outbox_no")
    recorded = await call.db.reply_refused(
        outbox_no,
        asked.attempt,
        asked.reason,
        retry=asked.retry,
        retry_after_s=asked.retry_after_s,
    )
    return Settled(outbox_no, recorded)


@route(
    "POST",
    "/v1/outbox/{outbox_no}/settle",
    body=bodies.SettleReply,
    answer=Settled,
    errors=(errors.NotFound,),
    tag=OUTBOX,
)
async def settle_reply(call: Call) -> Settled:
    """Settle a reply by hand that is unknown or failed: it was sent, or is to be sent again."""
    outbox_no = numbered(call, "outbox_no")
    await call.db.settle_reply(outbox_no, call.body(bodies.SettleReply).state)
    return Settled(outbox_no, True)
