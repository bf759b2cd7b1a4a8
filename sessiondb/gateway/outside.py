"""Turns and replies by their numbers, for workers that are in no process of this library.

`run_lane` and `run_outbox` own what they claim: their process renews it, and ends it. A worker
behind a server cannot be called. It claims, renews and ends by calls of its own, each a short
transaction. So nothing is held in memory between two of them, and the worker may make them
through another process than the one that claimed, after a restart for instance.

The rules are those of the loops (`turns.py`, `leases.py`, `outbox.py`). A turn's number is its
fencing token, and so are the number and the attempt of a reply. A worker that falls silent loses
what it holds when its lease runs out.

The answer of a claim may be lost, with the server that claimed for instance. A claim with an id is
therefore repeated with that id, and takes again what it took: while its turn runs, or its reply is
being sent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from sessiondb.backend import Database, Tx
from sessiondb.errors import InvalidInput, NotFound, TurnLost
from sessiondb.limits import CHANNEL_PAUSE_MS_MAX, CLAIM_ID_CHARS_MAX, duration_ms
from sessiondb.models import Receipt
from sessiondb.transcript.entries import Appendable, prepare, prepare_decoded

from . import (
    cancellation,
    claims,
    dispatcher,
    draining,
    leases,
    outbox,
    progress,
    retry,
    turns,
    worker,
)
from .running_turn import Answer, LaneSettings, Turn, encoded_end

_SET_ASIDE_MAX = 10
"""A claim sets so many damaged messages aside before it says that there is none to claim."""


# -- turns ------------------------------------------------------------------------------------


async def claim_turn(
    db: Database,
    lane: str,
    settings: LaneSettings,
    loops: draining.Loops,
    claim_id: str | None,
) -> Turn | None:
    """Claim the next message of a lane. See `SessionDB.claim_turn`."""
    _check_claim_id(claim_id)
    watch = cancellation.Watch()
    for _ in range(_SET_ASIDE_MAX):
        if loops.ends(draining.Stage.TURNS):
            return None
        if claim_id is not None:
            turn = await _claimed_before(db, lane, settings, watch, claim_id)
            if turn is not None:
                return turn
        try:
            turn, sleep_s = await worker.next_turn(db, lane, settings, loops, watch, claim_id)
        except worker.LaneDropped:
            raise NotFound(
                f"lane {lane} was dropped; make it anew with set_lane, or claim from another one",
                lane=lane,
            ) from None
        if turn is not None:
            return turn
        if sleep_s > 0:
            break
    # The first one of two equal claims may have been faster.
    return await _claimed_before(db, lane, settings, watch, claim_id) if claim_id else None


async def _claimed_before(
    db: Database, lane: str, settings: LaneSettings, watch: cancellation.Watch, claim_id: str
) -> Turn | None:
    """Return the turn that a claim with this id began, its lease renewed. None: none runs."""
    held = await db.read("turn.claimed_before", lambda tx: claims.held(tx, lane, claim_id))
    if held is None:
        return None
    turn_no, lease_ms = held.started.turn_no, duration_ms(settings.lease_s)
    _, message = await prepare_decoded(held.candidate.payload, now_ms=db.clock.stamp_ms())
    try:
        expires_at_ms = await db.write(
            "turn.renew", lambda tx: leases.renew(tx, turn_no, lease_ms=lease_ms, operation=None)
        )
    except TurnLost:  # meanwhile. The caller's next claim is a new one
        return None
    started = dataclasses.replace(held.started, expires_at_ms=expires_at_ms)
    return worker.as_turn(db, started, message, claims.origin(held.candidate), settings, watch)


def _check_claim_id(claim_id: str | None) -> None:
    if claim_id is not None and not 1 <= len(claim_id) <= CLAIM_ID_CHARS_MAX:
        raise InvalidInput(
            f"claim_id has {len(claim_id)} characters, and must have 1 to {CLAIM_ID_CHARS_MAX}"
        )


async def renew_turn(db: Database, turn_no: int, lease_s: float, operation: str | None) -> int:
    """Renew a turn's lease. See `SessionDB.renew_turn`."""
    lease_ms = checked_lease_ms(lease_s)
    shown = operation[: retry.REASON_CHARS_MAX] if operation is not None else None
    return await db.write(
        "turn.renew",
        lambda tx: leases.renew(tx, turn_no, lease_ms=lease_ms, operation=shown),
    )


async def append_to_turn(
    db: Database, turn_no: int, item: Appendable, asked_epoch: int | None
) -> Receipt:
    """Append in a turn's name. See `SessionDB.append_to_turn`."""
    draft = await prepare(item, now_ms=db.clock.stamp_ms())
    draft.asked_epoch = asked_epoch
    receipts = await db.write(
        "turn.append", lambda tx: turns.append(tx, turn_no, [draft]), size=draft.size
    )
    return receipts[0]


async def note_turn(db: Database, turn_no: int, details: Any) -> None:
    """Note JSON for the next attempt. See `SessionDB.note_turn`."""
    text = progress.encode(turn_no, details)
    await db.write(
        "turn.progress", lambda tx: turns.note_progress(tx, turn_no, text), size=len(text)
    )


async def complete_turn(
    db: Database, turn_no: int, answer: Answer, asked_epoch: int | None
) -> list[Receipt]:
    """End a turn with its answer. See `SessionDB.complete_turn`."""
    complete, size = await encoded_end(
        turn_no, answer, now_ms=db.clock.stamp_ms(), asked_epoch=asked_epoch
    )
    return await db.write("turn.end", complete, size=size)


async def fail_turn(db: Database, turn_no: int, reason: str, *, try_again: bool) -> None:
    """End a turn that failed. See `SessionDB.fail_turn`."""
    shown = reason[: retry.REASON_CHARS_MAX]
    await db.write("turn.end", lambda tx: turns.fail(tx, turn_no, shown, retry=try_again))


async def release_turn(db: Database, turn_no: int, reason: str) -> None:
    """Give a turn back. See `SessionDB.release_turn`."""
    shown = reason[: retry.REASON_CHARS_MAX]

    def release(tx: Tx) -> None:
        turns.require_running(tx, turn_no)
        turns.interrupt(tx, turn_no, shown, orderly=True)

    await db.write("turn.end", release)


# -- replies ----------------------------------------------------------------------------------


async def claim_reply(
    db: Database, lease_s: float, full: Sequence[str], claim_id: str | None
) -> outbox.Sending | None:
    """Take the next reply. See `SessionDB.claim_reply`."""
    lease_ms = checked_lease_ms(lease_s)
    _check_claim_id(claim_id)
    if claim_id is None:
        return await dispatcher.take_next(db, lease_s, list(full))
    reply = await _taken_before(db, lease_ms, claim_id)
    if reply is None:
        reply = await dispatcher.take_next(db, lease_s, list(full), claim_id)
    # The first one of two equal claims may have been faster.
    return reply or await _taken_before(db, lease_ms, claim_id)


async def _taken_before(db: Database, lease_ms: int, claim_id: str) -> outbox.Sending | None:
    """Return the reply that a claim with this id took, its lease renewed. None: none is sent."""
    if not await db.read("outbox.taken", lambda tx: outbox.is_taken(tx, claim_id)):
        return None
    return await db.write(
        "outbox.take_again",
        lambda tx: outbox.take_again(tx, lease_ms=lease_ms, claim_id=claim_id),
    )


async def settle_claimed(
    db: Database, outbox_no: int, attempt: int, settle: Callable[[Tx, outbox.Sending], bool]
) -> bool:
    """Record what an attempt came to, whichever process took the reply for it.

    Return False if it has been recorded, or somebody else has settled the reply.

    Raises:
        NotFound: there is no such reply, or no such attempt at it.
    """

    def body(tx: Tx) -> bool:
        reply = outbox.adopt(tx, outbox_no, attempt)
        return reply is not None and settle(tx, reply)

    return await db.write("outbox.settle", body)


async def refuse_reply(
    db: Database,
    outbox_no: int,
    attempt: int,
    reason: str,
    *,
    try_again: bool,
    retry_after_s: float | None,
) -> bool:
    """Record that the channel did not send a reply. See `SessionDB.reply_refused`."""
    retry_after_ms = None
    if retry_after_s is not None:
        if not 0 <= retry_after_s < math.inf:
            raise InvalidInput(f"retry_after_s is {retry_after_s}, and must be 0 or more, finite")
        retry_after_ms = math.ceil(min(retry_after_s, CHANNEL_PAUSE_MS_MAX // 1000) * 1000)
    shown = reason[: retry.REASON_CHARS_MAX]
    return await settle_claimed(
        db,
        outbox_no,
        attempt,
        lambda tx, reply: outbox.refused(
            tx, reply, shown, retry=try_again, retry_after_ms=retry_after_ms
        ),
    )


def checked_lease_ms(lease_s: float) -> int:
    """Return a lease in milliseconds.

    Raises:
        InvalidInput: it is none.
    """
    if not 0.001 <= lease_s < math.inf:
        raise InvalidInput(f"lease_s is {lease_s}, and must be above 0 and finite")
    return duration_ms(lease_s)
