"""The loop that runs a lane: it claims messages, and starts a task for each turn.

`run_lane` claims messages while its lane has room. Each turn runs in a task of its own
(`running_turn.py`), and its end is recorded before the next message of that session is
claimed. The loop returns when its process drains (`draining.py`) and its turns have ended.
When it is cancelled it interrupts the turns that it holds, so that another process, or the
next start, takes them over at once.

`claims.py`, `leases.py` and `turns.py` say what a claim, a lease and an end are in the database.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from pydantic import ValidationError

from sessiondb.backend import Database, ReadTx, Tx
from sessiondb.clock import Clock
from sessiondb.errors import (
    InvalidInput,
    OutcomeUnknown,
    SessionDBError,
    StoreDamaged,
    outcome_of,
)
from sessiondb.limits import duration_ms
from sessiondb.transcript.entries import prepare_decoded
from sessiondb.transcript.registry import SessionRef
from sessiondb.transcript.session import Session

from . import (
    cancellation,
    claims,
    damage,
    dead_letters,
    draining,
    heard,
    inbox,
    leases,
    retry,
    stopping,
    turns,
)
from .lanes import require_lane, was_dropped
from .running_turn import (
    STOPPING,
    Handler,
    LaneSettings,
    Turn,
    interrupt,
    is_owned,
    note_unsigned,
    run_turn,
)

logger = logging.getLogger("sessiondb")


async def run_lane(
    db: Database,
    lane: str,
    handler: Handler,
    settings: LaneSettings,
    loops: draining.Loops,
) -> None:
    """Run a lane until it is cancelled, or its process drains. See `SessionDB.run_lane`.

    A lane takes over no turn that this process still owns.
    """
    name = f"lane {lane}"
    backoff = retry.Backoff(name)
    watch = cancellation.Watch(loops.unsigned)
    tasks = cancellation.Tasks()
    running = loops.running
    claimed: dict[int, Turn] = {}  # by this loop, and not begun yet
    drained = False

    async def work(turn: Turn) -> None:
        with tasks.counted():
            await run_turn(turn, handler, claimed, running)

    try:
        with (
            loops.entered(db, draining.Stage.TURNS, name),
            cancellation.strays_raise(name, watch),
        ):
            async with anyio.create_task_group() as group:
                with watch.noting_stop():
                    while turn := await _wait_for_turn(db, lane, settings, loops, backoff, watch):
                        # Here, because its task begins only after the next read has been
                        # requested.
                        running[turn.turn_no] = claimed[turn.turn_no] = turn
                        tasks.add()
                        group.start_soon(work, turn)
                    await tasks.all_ended()
                    drained = True
            if not drained:
                cancellation.must_not_end(name, watch)
    except ExceptionGroup as group_error:
        raise retry.unwrap_group(group_error) from group_error
    finally:
        # asyncio drops a task that is cancelled before its first step, as `asyncio.run`
        # does with all that are left.
        for turn in claimed.values():
            await interrupt(turn)
            running.pop(turn.turn_no, None)
            note_unsigned(turn)


async def _wait_for_turn(
    db: Database,
    lane: str,
    settings: LaneSettings,
    loops: draining.Loops,
    backoff: retry.Backoff,
    watch: cancellation.Watch,
) -> Turn | None:
    """Wait for the next turn, and claim it. None: the process drains, or the lane was dropped."""
    while True:
        seen = db.backend.change_count
        if loops.ends(draining.Stage.TURNS):
            return None
        try:
            turn, sleep_s = await next_turn(db, lane, settings, loops, watch)
            backoff.reset()
        except LaneDropped:
            return None
        except SessionDBError as error:
            turn, sleep_s = None, backoff.next_delay(error)
        if turn is not None:
            return turn
        await db.backend.wait_change(seen, sleep_s)


class LaneDropped(Exception):
    """The lane is none any more. Its loop returns when its turns have ended."""


async def next_turn(
    db: Database,
    lane: str,
    settings: LaneSettings,
    loops: draining.Loops,
    watch: cancellation.Watch,
    claim_id: str | None = None,
) -> tuple[Turn | None, float]:
    """Do what is due in a lane, and claim its next message. Also return how long to sleep.

    With `claim_id` the claim may be repeated. See `claims.claim`.

    Raises:
        NotFound: there is no such lane.
    """
    owned = _owned(loops.running)
    look = partial(
        _due_work,
        clock=db.clock,
        lane=lane,
        settings=settings,
        owned=owned,
        working=loops.working(),
    )
    work = await db.read("lane.look", look)
    for turn_no in work.ended:
        loops.stop(turn_no)
    damaged: StoreDamaged | None = None
    try:
        await _do_upkeep(db, lane, work, work.settings, partial(_owned, loops.running))
    except StoreDamaged as error:
        damaged = error  # it may be of one session, so the others go first
    try:
        if work.stuck is not None:
            raise work.stuck
        turn = (
            await _claim(db, lane, work.candidate, work.settings, watch, claim_id)
            if work.candidate is not None
            else None
        )
    except claims.CannotBegin as stuck:
        await damage.set_aside_message(db, stuck)
        return None, 0.0
    if turn is None and damaged is not None:
        raise damaged
    return turn, work.sleep_s


def _owned(running: dict[int, Turn]) -> str:
    """Return the turns that this process still owns, as a JSON array."""
    return json.dumps([number for number, turn in running.copy().items() if is_owned(turn)])


# -- what is due ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _DueWork:
    """All that a lane's loop acts upon, read in one snapshot."""

    ended: list[int]
    """Turns whose handlers still work here, although somebody has stopped or taken them."""
    settings: LaneSettings
    """Those that the lane has, or else those that its loop was given."""
    has_expired: bool
    has_late: bool
    candidate: claims.Candidate | None
    stuck: claims.CannotBegin | None
    """The next message, if no turn can begin with it."""
    sleep_s: float
    """Until something is due without any commit: a retry, a lease that runs out, a notice."""


def _due_work(
    tx: ReadTx,
    *,
    clock: Clock,
    lane: str,
    settings: LaneSettings,
    owned: str,
    working: list[int],
) -> _DueWork:
    if was_dropped(tx, lane):
        raise LaneDropped
    now_ms = clock.now_ms()
    expiry_ms = tx.one("turns.next_expiry", alive=owned).at_ms
    settings = _stored(require_lane(tx, lane).settings) or settings
    after_ms = duration_ms(settings.delayed_after_s)
    notice_ms = inbox.next_notice_ms(tx, lane, now_ms, after_ms=after_ms)
    candidate = stuck = None
    try:
        candidate = claims.peek(tx, lane, now_ms)
    except claims.CannotBegin as error:
        stuck = error
    due_ms = [expiry_ms, notice_ms, tx.one("inbox.due", lane=lane, now_ms=now_ms).at_ms]
    return _DueWork(
        settings=settings,
        ended=stopping.ended(tx, json.dumps(working)) if working else [],
        has_expired=expiry_ms is not None and expiry_ms <= now_ms,
        has_late=notice_ms is not None and notice_ms <= now_ms,
        candidate=candidate,
        stuck=stuck,
        sleep_s=retry.sleep_s(now_ms, due_ms),
    )


@functools.lru_cache(maxsize=64)
def _stored(text: str | None) -> LaneSettings | None:
    """Return the settings that a lane's row has. None: it has none that this version knows."""
    if text is None:
        return None
    try:
        return LaneSettings.model_validate_json(text)
    except ValidationError as error:
        logger.error("a lane's stored settings are not used: %s", error)  # noqa: TRY400
        return None


async def _do_upkeep(
    db: Database, lane: str, work: _DueWork, settings: LaneSettings, owned: Callable[[], str]
) -> None:
    """Take over turns whose lease ran out, and notify senders of delays. Write only if needed."""
    if work.has_expired:
        await take_over(db, owned)
    if work.has_late:
        after_ms = duration_ms(settings.delayed_after_s)
        await db.write("lane.delayed", lambda tx: inbox.notify_delayed(tx, lane, after_ms=after_ms))


async def take_over(db: Database, owned: Callable[[], str]) -> int:
    """Interrupt turns of any lane whose lease ran out. Return how many. A bounded part of them.

    `owned` is asked when the write begins. A turn that was claimed a moment before is known then.
    """
    try:
        return await db.write(
            "lane.take_over", lambda tx: leases.take_over_expired(tx, alive=owned())
        )
    except StoreDamaged:
        expired = await db.read(
            "lane.expired", partial(leases.expired, now_ms=db.clock.now_ms(), alive=owned())
        )
        taken = 0
        for row in expired:
            end = partial(leases.take_over, turn_no=row.turn_no)
            taken += await damage.end_turn(db, row.turn_no, row.inbox_no, end, leases.LEASE_OVER)
        return taken


# -- claiming ---------------------------------------------------------------------------------


async def _claim(
    db: Database,
    lane: str,
    candidate: claims.Candidate,
    settings: LaneSettings,
    watch: cancellation.Watch,
    claim_id: str | None,
) -> Turn | None:
    try:
        draft, message = await prepare_decoded(candidate.payload, now_ms=db.clock.stamp_ms())
    except InvalidInput as error:
        # `accept` would have refused it, so another program wrote it. It must not stop its lane.
        reason = f"not a message: {error}"
        await db.write(
            "lane.refuse",
            lambda tx: dead_letters.refuse(tx, candidate.inbox_no, candidate.session_no, reason),
        )
        return None
    origin = claims.origin(candidate)
    in_front = await heard.prepare_all(candidate.heard, now_ms=db.clock.stamp_ms())

    created: claims.Started | None = None

    def claim(tx: Tx) -> claims.Started | None:
        # Kept here, too: the caller may be cancelled while this commits, and must then
        # release the turn.
        nonlocal created
        created = claims.claim(
            tx,
            lane,
            candidate,
            draft,
            in_front,
            lease_ms=duration_ms(settings.lease_s),
            timeout_ms=duration_ms(settings.timeout_s),
            claim_id=claim_id,
        )
        return created

    # A scope's cancellation waits until a claim that has begun is known. Its turn is
    # then interrupted at once, and not only when its lease runs out. asyncio's
    # task.cancel() passes through the shield, and takes the result with it.
    try:
        with anyio.CancelScope(shield=True):
            started = await db.write(
                "lane.claim", claim, size=draft.size + sum(one.size for one in in_front)
            )
    except anyio.get_cancelled_exc_class() as cancelled:
        if created is not None and outcome_of(cancelled) != "not_executed":
            await _release(db, created, settings, watch)
        raise
    except OutcomeUnknown:
        started = await _find_claim(db, created, settings, watch) if created is not None else None
        if started is None:
            raise
    if started is None:
        return None
    return as_turn(db, started, message, origin, settings, watch)


def as_turn(
    db: Database,
    started: claims.Started,
    message: dict[str, Any],
    origin: claims.Origin,
    settings: LaneSettings,
    watch: cancellation.Watch,
) -> Turn:
    """Return a turn as its handler, or its worker, holds it."""
    session = Session(db, SessionRef(started.session_no, started.session_id))
    session.turn_no = started.turn_no
    return Turn(session, message, started, origin, db, settings, watch)


async def _release(
    db: Database, created: claims.Started, settings: LaneSettings, watch: cancellation.Watch
) -> None:
    """Interrupt a turn that was claimed and never begun, if its claim was committed."""
    name = f"turn {created.turn_no} of session {created.session_id}"

    def release(tx: Tx) -> None:
        if claims.was_committed(tx, created):
            turns.interrupt(tx, created.turn_no, STOPPING, orderly=True)

    try:
        await retry.write_with_retry(db, "lane.release", release, for_s=settings.lease_s, name=name)
    except SessionDBError as error:
        logger.error(  # noqa: TRY400  # nothing to trace
            "%s: it was claimed and not begun, and cannot be released (%s); its lease ends it",
            name,
            error,
        )
        watch.note_unsigned(f"{name}: {error}")


async def _find_claim(
    db: Database, created: claims.Started, settings: LaneSettings, watch: cancellation.Watch
) -> claims.Started | None:
    """After a claim whose outcome is unknown: return it if it was committed, None if not.

    The question is a write: its success says that the disk took what it saw.
    """
    found: list[claims.Started] = []

    def find(tx: Tx) -> None:
        found.clear()
        if claims.was_committed(tx, created):
            leases.renew(
                tx, created.turn_no, lease_ms=duration_ms(settings.lease_s), operation=None
            )
            found.append(created)

    try:
        await retry.write_with_retry(
            db,
            "lane.find",
            find,
            for_s=settings.lease_s,
            name=f"turn {created.turn_no} of session {created.session_id}",
        )
    except anyio.get_cancelled_exc_class():
        await _release(db, created, settings, watch)
        raise
    return found[0] if found else None
