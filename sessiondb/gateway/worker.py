"""The loop that takes claims from a lane, and the turns that it runs.

`run_lane` claims messages while its lane has room and hands each to a handler in a task of its own. While the
handler works the loop renews the turn's lease; the turn's deadline cuts it off; whatever happens to it (a result, an
exception, the deadline, a cancellation, the loss of the lease) is recorded before the next message of that session is
claimed. The loop itself ends only when it is cancelled, and then interrupts the turns it holds, so that another
process, or the next start, takes them over at once.

What a claim, a lease and an end are in the database is in `turns.py`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from sessiondb import clock
from sessiondb.backend import Database, ReadTx, Tx
from sessiondb.errors import (
    InvalidInput,
    OutcomeUnknown,
    SessionDBError,
    StoreClosed,
    TurnLost,
    outcome_of,
)
from sessiondb.limits import INBOX_ATTEMPTS_MAX, INTERRUPTED_ATTEMPTS_MAX, LEASE_GRACE_MS
from sessiondb.models import Receipt
from sessiondb.transcript.entries import (
    LARGE_ITEMS,
    Draft,
    Item,
    check_append,
    is_large,
    prepare,
    prepare_all,
    prepare_decoded,
)
from sessiondb.transcript.registry import Ref, check_reset_reason
from sessiondb.transcript.session import Session

from . import inbox, retry, turns
from .outbox import encoded_reply

logger = logging.getLogger("sessiondb")


class LaneSettings(BaseModel):
    """How a lane's turns are run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_s: float = Field(default=30.0, gt=0)
    """A turn whose process falls silent is taken over after this; renewed every third of it."""
    timeout_s: float = Field(default=600.0, gt=0)
    """A turn is cut off after this; its lease cannot be renewed much longer. A resume brings a limit of its own."""
    delayed_after_s: float = Field(default=10.0, gt=0)
    """A message without an answer after this long gets a `message_delayed` event, once, whether it waits or is being worked on."""
    attempts_max: int = Field(default=INBOX_ATTEMPTS_MAX, ge=1)
    """A message whose turn fails is tried this often, after pauses of 1, 4, 16 and then 60 s; then it is a dead letter.

    One whose turn is cut off or interrupted: three times at most."""


@dataclass(slots=True)
class Answer:
    """What a handler returns: entries for the transcript and replies for the outbox, written when the turn completes.

    `replies` are (target, message) pairs. `incomplete` says that there is no usable answer, and why; the user is told.
    """

    entries: Sequence[Item] = ()
    replies: Sequence[tuple[str, Any]] = ()
    incomplete: str | None = None


Handler = Callable[["Turn"], Awaitable[Answer | None]]


@dataclass(slots=True)
class Turn:
    """A turn in progress, as its handler holds it."""

    db: Database
    session: Session
    _started: turns.Started
    message: dict[str, Any]
    _settings: LaneSettings
    stopped: bool = False
    """True: it was aborted or taken over; nothing can be written in its name any more."""
    _alive_until: float = 0.0
    """On this process's own clock, which nobody sets: until then its lease holds here, whatever the wall clock says."""
    ending: bool = False
    """True: its work is over and its end is being written. This process does not take it over meanwhile."""
    _ended: bool = False  # what became of it is written, or was given up
    _ends: float = 0.0
    _scope: anyio.CancelScope | None = None

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + (self._started.timeout_ms + LEASE_GRACE_MS) / 1000
        self._hold()

    def _hold(self) -> None:
        self._alive_until = min(time.monotonic() + self._settings.lease_s, self._ends)

    def __str__(self) -> str:
        return f"turn {self.number} of session {self.session.id}"

    def stop(self) -> None:
        """Cancel the handler, because the turn has ended in the database."""
        self.stopped = True
        if self._scope is not None:
            self._scope.cancel()

    @property
    def number(self) -> int:
        """The turn's number: its fencing token."""
        return self._started.turn_no

    @property
    def attempt(self) -> int:
        """1 at the first attempt at this message."""
        return self._started.attempt

    @property
    def inbox_no(self) -> int:
        """The message's number, as `accept` returned it."""
        return self._started.inbox_no

    @property
    def kind(self) -> turns.Kind:
        """`message`, or `resume`: it goes on with what another turn of this message had begun."""
        return self._started.kind

    async def append(self, item: Item) -> Receipt:
        """Append to the session in the name of this turn; durable on return.

        Raises:
            TurnLost: the turn was taken over; nothing was written.
        """
        draft = await prepare(item)
        receipts = await self.db.write(
            "turn.append", lambda tx: turns.append(tx, self.number, [draft]), size=draft.size
        )
        return receipts[0]

    async def reset(self, reason: str = "reset", *, keep_from: str | None = None) -> int:
        """Begin the session's context anew in the name of this turn, as for `/new`; return the new epoch. Durable on return.

        What the turn appends or answers from here on belongs to the new context. Otherwise like `Session.reset`.

        Raises:
            TurnLost: the turn was taken over; nothing was changed.
        """
        check_reset_reason(reason)
        return await self.db.write(
            "turn.reset",
            lambda tx: turns.reset(tx, self.number, reason=reason, keep_from=keep_from),
        )

    async def renew(self, operation: str | None = None) -> None:
        """Renew the lease now, and say what the turn is doing (shown in `held`).

        Raises:
            TurnLost: the turn was taken over.
        """
        lease_ms = round(self._settings.lease_s * 1000)
        await self.db.write(
            "turn.renew",
            lambda tx: turns.renew(tx, self.number, lease_ms=lease_ms, operation=operation),
        )
        self._hold()


async def run_lane(
    db: Database, lane: str, handler: Handler, settings: LaneSettings, running: dict[int, Turn]
) -> None:
    """Run a lane until cancelled. See `SessionDB.run_lane`.

    `running` is what all lanes of this process have in hand, by the turn's number: a lane takes over no turn that is in it and alive.
    """
    known = False
    backoff = retry.Backoff(f"lane {lane}")
    claimed: dict[int, Turn] = {}  # by this loop, and not begun yet
    try:
        async with anyio.create_task_group() as group:
            while True:
                seen = db.backend.change_count
                alive = _alive(running)
                try:
                    if not known:
                        await db.read("lane", lambda tx: turns.require_lane(tx, lane))
                        known = True
                    look = await db.read(
                        "lane.look", partial(_look, lane=lane, settings=settings, alive=alive)
                    )
                    await _look_after(db, lane, look, settings, alive)
                    turn = (
                        await _claim(db, lane, look.candidate, settings)
                        if look.candidate is not None
                        else None
                    )
                    sleep_s = look.sleep_s
                    backoff.reset()
                except SessionDBError as error:
                    turn, sleep_s = None, backoff.next_delay(error)
                if turn is not None:
                    # Here: its task begins only after the next look has been asked for.
                    running[turn.number] = claimed[turn.number] = turn
                    group.start_soon(_run_turn, turn, handler, claimed, running)
                else:
                    await db.backend.wait_change(seen, sleep_s)
    except ExceptionGroup as group_error:
        raise retry.unwrap_group(group_error) from group_error
    finally:
        # asyncio throws a task away that is cancelled before its first step, as `asyncio.run` does with all that are left.
        for turn in claimed.values():
            await _record(turn, _stopping(turn))
            running.pop(turn.number, None)


@dataclass(frozen=True, slots=True)
class _Look:
    """What a lane's loop finds in one snapshot: all that it acts upon."""

    expired: bool
    late: bool
    candidate: turns.Candidate | None
    sleep_s: float
    """Until something is due without any commit: a retry, a lease that runs out, a notice."""


def _alive(running: dict[int, Turn]) -> str:
    """List the turns whose leases this process itself has renewed in time, by a clock that is never set, or whose end it is writing."""
    now = time.monotonic()
    return json.dumps(
        [number for number, turn in running.items() if turn.ending or now < turn._alive_until]
    )


def _look(tx: ReadTx, *, lane: str, settings: LaneSettings, alive: str) -> _Look:
    now_ms = clock.now_ms()
    expiry_ms = tx.one("turns.next_expiry", lane=lane, alive=alive).at_ms
    notices_ms = [
        row.accepted_at_ms + round(settings.delayed_after_s * 1000)
        for row in tx.all("inbox.late", lane=lane, accepted_before_ms=2**62, limit=1)
    ]
    due_ms = [expiry_ms, tx.one("inbox.due", lane=lane, now_ms=now_ms).at_ms, *notices_ms]
    return _Look(
        expired=expiry_ms is not None and expiry_ms <= now_ms,
        late=any(notice_ms <= now_ms for notice_ms in notices_ms),
        candidate=turns.peek(tx, lane, now_ms),
        sleep_s=min(
            [
                retry.LOOK_S,
                *(
                    max(0.01, (time_ms - now_ms) / 1000)
                    for time_ms in due_ms
                    if time_ms is not None
                ),
            ]
        ),
    )


async def _look_after(
    db: Database, lane: str, look: _Look, settings: LaneSettings, alive: str
) -> None:
    """Take over turns whose lease ran out, and tell those who wait; a write only when there is something to do."""
    if look.expired:
        await db.write("lane.take_over", lambda tx: turns.take_over_expired(tx, lane, alive=alive))
    if look.late:
        await db.write(
            "lane.delayed",
            lambda tx: inbox.tell_delayed(
                tx, lane, after_ms=round(settings.delayed_after_s * 1000)
            ),
        )


async def _claim(
    db: Database, lane: str, candidate: turns.Candidate, settings: LaneSettings
) -> Turn | None:
    try:
        draft, message = await prepare_decoded(candidate.payload)
    except InvalidInput as error:
        # `accept` would have refused it, so it was put there by somebody else. It must not stop its lane.
        reason = f"not a message: {error}"
        await db.write(
            "lane.refuse",
            lambda tx: turns.refuse(tx, candidate.inbox_no, candidate.session_no, reason),
        )
        return None

    lease_ms = round(settings.lease_s * 1000)
    created: turns.Started | None = None

    def claim(tx: Tx) -> turns.Started | None:
        # Kept here and not only by the caller, who may be cancelled while this commits and must then give the turn back.
        nonlocal created
        created = turns.claim(
            tx,
            lane,
            candidate,
            draft,
            lease_ms=lease_ms,
            timeout_ms=round(settings.timeout_s * 1000),
        )
        return created

    # Cancelled by a scope once it has begun, the claim is still known: its turn is interrupted at once, not when its lease runs out.
    # asyncio's task.cancel() passes through the shield, and takes the result with it.
    try:
        with anyio.CancelScope(shield=True):
            started = await db.write("lane.claim", claim, size=draft.size)
    except anyio.get_cancelled_exc_class() as cancelled:
        if created is not None and outcome_of(cancelled) != "not_executed":
            await _release(db, created, settings)
        raise
    except OutcomeUnknown:
        started = await _find_claim(db, created, settings) if created is not None else None
        if started is None:
            raise
    if started is None:
        return None
    session = Session(db, Ref(started.session_no, started.session_id))
    return Turn(db, session, started, message, settings)


async def _release(db: Database, created: turns.Started, settings: LaneSettings) -> None:
    """Interrupt a turn that was claimed and never begun, if it is there."""
    who = f"turn {created.turn_no} of session {created.session_id}"

    def release(tx: Tx) -> None:
        if turns.is_there(tx, created):
            turns.interrupt(tx, created.turn_no, _STOPPING)

    try:
        await retry.write_with_retry(db, "lane.release", release, for_s=settings.lease_s, who=who)
    except SessionDBError as error:
        logger.error(  # noqa: TRY400  # as below
            "%s: it was claimed and not begun, and cannot be given back (%s); its lease ends it",
            who,
            error,
        )


async def _find_claim(
    db: Database, created: turns.Started, settings: LaneSettings
) -> turns.Started | None:
    """After a claim whose outcome is unknown: go on with its turn if it is there after all; None if it is not.

    It is asked in a write, whose success says that the disk took what it saw.
    """
    found: list[turns.Started] = []

    def find(tx: Tx) -> None:
        found.clear()
        if turns.is_there(tx, created):
            turns.renew(
                tx, created.turn_no, lease_ms=round(settings.lease_s * 1000), operation=None
            )
            found.append(created)

    try:
        await retry.write_with_retry(
            db,
            "lane.find",
            find,
            for_s=settings.lease_s,
            who=f"turn {created.turn_no} of session {created.session_id}",
        )
    except anyio.get_cancelled_exc_class():
        await _release(db, created, settings)
        raise
    return found[0] if found else None


_STOPPING = "its gateway is stopping"


def _stopping(turn: Turn) -> Callable[[Tx], object]:
    return lambda tx: turns.interrupt(tx, turn.number, _STOPPING)


async def _run_turn(
    turn: Turn, handler: Handler, claimed: dict[int, Turn], running: dict[int, Turn]
) -> None:
    """Run a handler and record what became of it. Nothing escapes but a cancellation of the loop.

    Until its end is written the turn is this process's and its lease is renewed, also while the loop is being cancelled.
    """
    del claimed[turn.number]
    keeping = anyio.CancelScope(shield=True)

    async def keep_lease() -> None:
        with keeping:
            await _keep_lease(turn)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(keep_lease)
            try:
                await _work(turn, handler)
            except anyio.get_cancelled_exc_class():
                # asyncio's task.cancel() passes through shields: it may have ended the encoding of an answer. If the end is written
                # after all, this changes nothing.
                if not turn._ended:
                    await _record(turn, _stopping(turn))
                raise
            finally:
                keeping.cancel()
    finally:
        del running[turn.number]


async def _work(turn: Turn, handler: Handler) -> None:
    answer: Answer | None = None
    failure: str | None = None
    again, attempts_max = True, turn._settings.attempts_max
    try:
        async with anyio.create_task_group() as group:
            turn._scope = group.cancel_scope
            if turn.stopped:
                group.cancel_scope.cancel()
            if turn._started.kind == "message" and not turn._started.notified:
                group.start_soon(_tell_delay, turn)
            with anyio.move_on_after(turn._started.timeout_ms / 1000) as deadline:
                answer = await handler(turn)
            if deadline.cancelled_caught:
                failure, again = (
                    f"cut off at its deadline of {turn._started.timeout_ms / 1000:g} s",
                    turn._started.kind != "resume",
                )
                attempts_max = min(attempts_max, INTERRUPTED_ATTEMPTS_MAX)
            group.cancel_scope.cancel()
    except anyio.get_cancelled_exc_class():
        # The loop is being cancelled. An answer that is there already is not thrown away.
        turn.ending = True
        with anyio.CancelScope(shield=True):
            if answer is not None:
                await _complete(turn, answer)
            else:
                await _record(turn, _stopping(turn))
        raise
    except Exception as error:
        failure = f"{type(retry.unwrap_group(error)).__name__}: {retry.unwrap_group(error)}"
        if not turn.stopped:
            logger.warning("%s failed: %s", turn, failure, exc_info=retry.unwrap_group(error))
    except BaseExceptionGroup as mixed:
        # trio: the loop is being cancelled, and the handler raised something else on its way out.
        turn.ending = True
        await _record(turn, _stopping(turn))
        await retry.reraise_cancellation(mixed, str(turn))
        return
    if turn.stopped:
        logger.info("%s was stopped: it has ended, or was taken over", turn)
        return
    # A cancellation that arrives from here on waits until the end is written: that takes one transaction.
    turn.ending = True
    with anyio.CancelScope(shield=True):
        if failure is not None:
            end = partial(
                turns.fail,
                turn_no=turn.number,
                reason=failure,
                retry=again,
                attempts_max=attempts_max,
            )
            await _record(turn, end)
        else:
            await _complete(turn, answer or Answer(incomplete="the handler returned nothing"))


async def _keep_lease(turn: Turn) -> None:
    """Renew a turn's lease until cancelled; stop the turn when it is not ours any more."""
    while True:
        await anyio.sleep(turn._settings.lease_s / 3)
        try:
            await turn.renew()
        except (TurnLost, StoreClosed) as error:
            if not turn._ended:
                logger.warning("%s", error)
                turn.stop()
            return
        except SessionDBError as error:
            logger.warning("%s: its lease was not renewed: %s", turn, error)


async def _tell_delay(turn: Turn) -> None:
    """Tell the sender, once, when the answer takes longer than `delayed_after_s` since the message was accepted."""
    delayed_after_s = turn._settings.delayed_after_s
    waited_s = (clock.now_ms() - turn._started.accepted_at_ms) / 1000
    await anyio.sleep(min(max(0.0, delayed_after_s - waited_s), delayed_after_s))
    backoff = retry.Backoff(f"{turn}: its sender cannot be told that it takes longer")
    while True:
        try:
            await turn.db.write("turn.delayed", lambda tx: turns.tell_delayed(tx, turn.number))
        except TurnLost:
            return
        except SessionDBError as error:
            if not error.retry:
                logger.warning("%s: %s", backoff.who, error)
                return
            await anyio.sleep(backoff.next_delay(error))
        else:
            return


async def _complete(turn: Turn, answer: Answer) -> None:
    """Write a turn's answer and its end; if the answer cannot be stored, the turn has failed."""
    try:
        drafts, replies, size = await _encoded_answer(answer)
    except (SessionDBError, TypeError, ValueError) as error:
        await _refuse_answer(turn, error)
        return

    def complete(tx: Tx) -> list[Receipt]:
        return turns.complete(
            tx,
            turn.number,
            drafts,
            replies,
            incomplete=answer.incomplete is not None,
            reason=answer.incomplete,
        )

    refused = await _record(turn, complete, size=size)
    if refused is not None:
        await _refuse_answer(turn, refused)


async def _encoded_answer(answer: Answer) -> tuple[list[Draft], list[tuple[str, str]], int]:
    """Encode an answer, off the event loop when it is large; return its entries, its replies and their bytes.

    Raises:
        InvalidInput: it cannot be stored, or not in one transaction.
    """
    entries, messages = list(answer.entries), list(answer.replies)
    check_append(len(entries) + len(messages), 0)
    drafts = await prepare_all(entries)
    large = len(messages) > LARGE_ITEMS or any(is_large(message) for _, message in messages)
    encoded = (
        await anyio.to_thread.run_sync(_encoded_replies, messages)
        if large
        else _encoded_replies(messages)
    )
    size = sum(draft.size for draft in drafts) + sum(reply_bytes for _, reply_bytes in encoded)
    check_append(len(drafts) + len(encoded), size)
    return drafts, [reply for reply, _ in encoded], size


def _encoded_replies(messages: Sequence[tuple[str, Any]]) -> list[tuple[tuple[str, str], int]]:
    return [encoded_reply(target, message) for target, message in messages]


async def _refuse_answer(turn: Turn, error: Exception) -> None:
    message = f"its answer cannot be stored: {error}"
    logger.warning("%s: %s", turn, message)
    refused = await _record(turn, lambda tx: turns.fail(tx, turn.number, message, retry=False))
    if refused is not None:
        logger.error("%s: its end cannot be written (%s); its lease ends it", turn, refused)


async def _record(
    turn: Turn, body: Callable[[Tx], object], *, size: int = 0
) -> SessionDBError | None:
    """Write a turn's end; shielded, and tried again while that may help, until its lease has run out.

    Returns the error if the database refuses it for good: for what it says, not for the moment.
    """
    try:
        await retry.write_with_retry(
            turn.db, "turn.end", body, size=size, for_s=turn._settings.lease_s, who=str(turn)
        )
    except TurnLost as error:
        logger.warning("%s", error)
    except StoreClosed as error:
        logger.error("%s: its end could not be written (%s); its lease ends it", turn, error)  # noqa: TRY400  # nothing to trace
    except SessionDBError as error:
        if not error.retry:
            return error
        logger.error("%s: its end could not be written (%s); its lease ends it", turn, error)  # noqa: TRY400  # nothing to trace
    turn._ended = True
    return None
