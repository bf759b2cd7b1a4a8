"""The loops that a gateway runs: take claims from a lane, send replies, follow events.

`run_lane` claims messages while its lane has room and hands each to a handler in a task of its own. While the
handler works the loop renews the turn's lease; the turn's deadline cuts it off; whatever happens to it (a result, an
exception, the deadline, a cancellation, the loss of the lease) is recorded before the next message of that session is
claimed. The loop itself ends only when it is cancelled, and then interrupts the turns it holds, so that another
process, or the next start, takes them over at once.

Waiting does not poll: a commit of this process wakes the loop at once, a commit of another within 100 ms, and
otherwise it sleeps until the next retry, lease or notice is due.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from . import events, inbox, outbox, turns
from .backend import ReadTx, Tx
from .entries import LARGE_ITEMS, Draft, decode_object, draft_entry, dumps, is_large
from .errors import InvalidInput, OutcomeUnknown, ReadTooLong, SessionDBError, StoreClosed, StoreDamaged, TurnLost, outcome_of
from .handles import Item, Session, check_append, prepare, prepare_all
from .limits import ENTRY_BYTES_MAX, INBOX_ATTEMPTS_MAX, INTERRUPTED_ATTEMPTS_MAX, LEASE_GRACE_MS, SESSION_KEY_CHARS_MAX
from .messages import message_json
from .models import Event, Receipt
from .resume import ResumePolicy
from .sessions import Ref, check_reset_reason

if TYPE_CHECKING:
    from .database import SessionDB

logger = logging.getLogger("sessiondb")

# The longest that a loop sleeps without looking, whatever it was told.
LOOK_S = 5.0
# What a loop waits before it tries again when the database could not take its request.
BUSY_PAUSE_S = 0.2


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
Sender = Callable[["outbox.Outgoing"], Awaitable[str | None]]


class RefusedBySender(Exception):
    """Raised by a sender: the channel did not send the reply, for certain. `retry` says whether to try again."""

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


@dataclass(slots=True)
class Turn:
    """A turn in progress, as its handler holds it."""

    db: SessionDB
    session: Session
    started: turns.Started
    message: dict[str, Any]
    settings: LaneSettings
    stopped: bool = False
    """True: it was aborted or taken over; nothing can be written in its name any more."""
    alive_until: float = 0.0
    """On this process's own clock, which nobody sets: until then its lease holds here, whatever the wall clock says."""
    ending: bool = False
    """True: its work is over and its end is being written. This process does not take it over meanwhile."""
    _ended: bool = False  # what became of it is written, or was given up
    _ends: float = 0.0
    _scope: anyio.CancelScope | None = None

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + (self.started.timeout_ms + LEASE_GRACE_MS) / 1000
        self._hold()

    def _hold(self) -> None:
        self.alive_until = min(time.monotonic() + self.settings.lease_s, self._ends)

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
        return self.started.turn_no

    @property
    def attempt(self) -> int:
        """1 at the first attempt at this message."""
        return self.started.attempt

    async def append(self, item: Item) -> Receipt:
        """Append to the session in the name of this turn; durable on return.

        Raises:
            TurnLost: the turn was taken over; nothing was written.
        """
        draft = await prepare(item)
        receipts = await self.db.write("turn.append", lambda tx: turns.append(tx, self.number, [draft]), size=draft.size)
        return receipts[0]

    async def reset(self, reason: str = "reset", *, keep_from: str | None = None) -> int:
        """Begin the session's context anew in the name of this turn, as for `/new`; return the new epoch. Durable on return.

        What the turn appends or answers from here on belongs to the new context. Otherwise like `Session.reset`.

        Raises:
            TurnLost: the turn was taken over; nothing was changed.
        """
        check_reset_reason(reason)
        return await self.db.write("turn.reset", lambda tx: turns.reset(tx, self.number, reason=reason, keep_from=keep_from))

    async def renew(self, operation: str | None = None) -> None:
        """Renew the lease now, and say what the turn is doing (shown in `held`).

        Raises:
            TurnLost: the turn was taken over.
        """
        lease_ms = round(self.settings.lease_s * 1000)
        await self.db.write("turn.renew", lambda tx: turns.renew(tx, self.number, lease_ms=lease_ms, operation=operation))
        self._hold()


async def run_lane(db: SessionDB, lane: str, handler: Handler, settings: LaneSettings) -> None:
    """Run a lane until cancelled. See `SessionDB.run_lane`."""
    known = False
    trouble = _Trouble(f"lane {lane}")
    claimed: dict[int, Turn] = {}  # by this loop, and not begun yet
    try:
        async with anyio.create_task_group() as group:
            while True:
                seen = db.backend.change_count
                alive = _alive(db)
                try:
                    if not known:
                        await db.read("lane", lambda tx: turns.require_lane(tx, lane))
                        known = True
                    look = await db.read("lane.look", partial(_look, lane=lane, settings=settings, alive=alive))
                    await _look_after(db, lane, look, settings, alive)
                    turn = await _claim(db, lane, look.candidate, settings) if look.candidate is not None else None
                    sleep_s = look.sleep_s
                    trouble.is_over()
                except SessionDBError as error:
                    turn, sleep_s = None, trouble.pause_after(error)
                if turn is not None:
                    # Here: its task begins only after the next look has been asked for.
                    db.running_turns[turn.number] = claimed[turn.number] = turn
                    group.start_soon(_run_turn, turn, handler, claimed)
                else:
                    await db.backend.wait_change(seen, sleep_s)
    except ExceptionGroup as group_error:
        raise _innermost(group_error) from group_error
    finally:
        # asyncio throws a task away that is cancelled before its first step, as `asyncio.run` does with all that are left.
        for turn in claimed.values():
            await _record(turn, _stopping(turn))
            db.running_turns.pop(turn.number, None)


async def run_resumes(db: SessionDB, policy: ResumePolicy, *, every_s: float) -> None:
    """Recover and resume until cancelled. See `SessionDB.run_resumes`."""
    trouble = _Trouble("the resumes")
    while True:
        sleep_s = every_s
        try:
            await db.recover()
            if any(decision.action != "later" for decision in await db.plan_resumes(policy)):
                await db.resume(policy)
            trouble.is_over()
        except SessionDBError as error:
            sleep_s = min(every_s, trouble.pause_after(error))
        await anyio.sleep(sleep_s)


class _Trouble:
    """What goes wrong in a loop: said once, not at each attempt, and waited out longer each time, up to `LOOK_S`."""

    def __init__(self, who: str) -> None:
        self.who = who
        self._said = ""
        self._pause_s = 0.0

    def is_over(self) -> None:
        """Note that an attempt succeeded."""
        self._said, self._pause_s = "", 0.0

    def pause_after(self, error: SessionDBError) -> float:
        """Say how long to wait before trying again after an error that passes; raise any other.

        A page that cannot be read looks like damage, and may be read the next time; and if it is damage, the other sessions go on.
        """
        is_damage = isinstance(error, StoreDamaged)
        if not is_damage and not error.retry and not isinstance(error, ReadTooLong):
            raise error
        if str(error) != self._said:
            self._said = str(error)
            logger.log(logging.ERROR if is_damage else logging.WARNING, "%s: %s", self.who, error)
        self._pause_s = LOOK_S if is_damage else min(LOOK_S, max(BUSY_PAUSE_S, self._pause_s * 2))
        return self._pause_s


@dataclass(frozen=True, slots=True)
class _Look:
    """What a lane's loop finds in one snapshot: all that it acts upon."""

    expired: bool
    late: bool
    candidate: turns.Candidate | None
    sleep_s: float
    """Until something is due without any commit: a retry, a lease that runs out, a notice."""


def _alive(db: SessionDB) -> str:
    """List the turns whose leases this process itself has renewed in time, by a clock that is never set, or whose end it is writing."""
    now = time.monotonic()
    return json.dumps([number for number, turn in db.running_turns.items() if turn.ending or now < turn.alive_until])


def _look(tx: ReadTx, *, lane: str, settings: LaneSettings, alive: str) -> _Look:
    now_ms = _now_ms()
    expiry_ms = tx.must("turns.next_expiry", lane=lane, alive=alive).at_ms
    notices_ms = [
        row.accepted_at_ms + round(settings.delayed_after_s * 1000)
        for row in tx.all("inbox.late", lane=lane, accepted_before_ms=2**62, limit=1)
    ]
    due_ms = [expiry_ms, tx.must("inbox.due", lane=lane, now_ms=now_ms).at_ms, *notices_ms]
    return _Look(
        expired=expiry_ms is not None and expiry_ms <= now_ms,
        late=any(notice_ms <= now_ms for notice_ms in notices_ms),
        candidate=turns.peek(tx, lane, now_ms),
        sleep_s=min([LOOK_S, *(max(0.01, (time_ms - now_ms) / 1000) for time_ms in due_ms if time_ms is not None)]),
    )


async def _look_after(db: SessionDB, lane: str, look: _Look, settings: LaneSettings, alive: str) -> None:
    """Take over turns whose lease ran out, and tell those who wait; a write only when there is something to do."""
    if look.expired:
        await db.write("lane.take_over", lambda tx: turns.take_over_expired(tx, lane, alive=alive))
    if look.late:
        await db.write("lane.delayed", lambda tx: inbox.tell_delayed(tx, lane, after_ms=round(settings.delayed_after_s * 1000)))


async def _claim(db: SessionDB, lane: str, candidate: turns.Candidate, settings: LaneSettings) -> Turn | None:
    try:
        draft = await prepare(candidate.payload)
        message = await _decode(candidate.payload)
    except InvalidInput as error:
        # `accept` would have refused it, so it was put there by somebody else. It must not stop its lane.
        reason = f"not a message: {error}"
        await db.write("lane.refuse", lambda tx: turns.refuse(tx, candidate.inbox_no, candidate.session_no, reason))
        return None

    lease_ms = round(settings.lease_s * 1000)
    made: turns.Started | None = None

    def claim(tx: Tx) -> turns.Started | None:
        # Kept here and not only by the caller, who may be cancelled while this commits and must then give the turn back.
        nonlocal made
        made = turns.claim(tx, lane, candidate, draft, lease_ms=lease_ms, timeout_ms=round(settings.timeout_s * 1000))
        return made

    # Cancelled by a scope once it has begun, the claim is still known: its turn is interrupted at once, not when its lease runs out.
    # asyncio's task.cancel() passes through the shield, and takes the result with it.
    try:
        with anyio.CancelScope(shield=True):
            started = await db.write("lane.claim", claim, size=draft.size)
    except anyio.get_cancelled_exc_class() as cancelled:
        if made is not None and outcome_of(cancelled) != "not_executed":
            await _give_back(db, made, settings)
        raise
    except OutcomeUnknown:
        started = await _find_claim(db, made, settings) if made is not None else None
        if started is None:
            raise
    if started is None:
        return None
    session = Session(db, Ref(started.session_no, started.session_id))
    return Turn(db, session, started, message, settings)


async def _give_back(db: SessionDB, made: turns.Started, settings: LaneSettings) -> None:
    """Interrupt a turn that was claimed and never begun, if it is there."""
    who = f"turn {made.turn_no} of session {made.session_id}"

    def give_back(tx: Tx) -> None:
        if turns.is_there(tx, made):
            turns.interrupt(tx, made.turn_no, _STOPPING)

    try:
        await _write_surely(db, "lane.give_back", give_back, for_s=settings.lease_s, who=who)
    except SessionDBError as error:
        logger.error("%s: it was claimed and not begun, and cannot be given back (%s); its lease ends it", who, error)  # noqa: TRY400  # as below


async def _find_claim(db: SessionDB, made: turns.Started, settings: LaneSettings) -> turns.Started | None:
    """After a claim whose outcome is unknown: go on with its turn if it is there after all; None if it is not.

    It is asked in a write, whose success says that the disk took what it saw.
    """
    found: list[turns.Started] = []

    def find(tx: Tx) -> None:
        found.clear()
        if turns.is_there(tx, made):
            turns.renew(tx, made.turn_no, lease_ms=round(settings.lease_s * 1000), operation=None)
            found.append(made)

    try:
        await _write_surely(db, "lane.find", find, for_s=settings.lease_s, who=f"turn {made.turn_no} of session {made.session_id}")
    except anyio.get_cancelled_exc_class():
        await _give_back(db, made, settings)
        raise
    return found[0] if found else None


async def _decode(payload: str) -> dict[str, Any]:
    message: dict[str, Any] = await anyio.to_thread.run_sync(json.loads, payload) if is_large(payload) else json.loads(payload)
    return message


_STOPPING = "its gateway is stopping"


def _stopping(turn: Turn) -> Callable[[Tx], object]:
    return lambda tx: turns.interrupt(tx, turn.number, _STOPPING)


async def _run_turn(turn: Turn, handler: Handler, claimed: dict[int, Turn]) -> None:
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
                if not turn._ended:  # noqa: SLF001
                    await _record(turn, _stopping(turn))
                raise
            finally:
                keeping.cancel()
    finally:
        del turn.db.running_turns[turn.number]


async def _work(turn: Turn, handler: Handler) -> None:
    answer: Answer | None = None
    failure: str | None = None
    retry, attempts_max = True, turn.settings.attempts_max
    try:
        async with anyio.create_task_group() as group:
            turn._scope = group.cancel_scope  # noqa: SLF001  # of this module's own class
            if turn.stopped:
                group.cancel_scope.cancel()
            if turn.started.kind == "message" and not turn.started.told:
                group.start_soon(_tell_delay, turn)
            with anyio.move_on_after(turn.started.timeout_ms / 1000) as deadline:
                answer = await handler(turn)
            if deadline.cancelled_caught:
                failure, retry = f"cut off at its deadline of {turn.started.timeout_ms / 1000:g} s", turn.started.kind != "resume"
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
        failure = f"{type(_innermost(error)).__name__}: {_innermost(error)}"
        if not turn.stopped:
            logger.warning("%s failed: %s", turn, failure, exc_info=_innermost(error))
    except BaseExceptionGroup as mixed:
        # trio: the loop is being cancelled, and the handler raised something else on its way out.
        turn.ending = True
        await _record(turn, _stopping(turn))
        await _go_on_cancelling(mixed, str(turn))
        return
    if turn.stopped:
        logger.info("%s was stopped: it has ended, or was taken over", turn)
        return
    # A cancellation that arrives from here on waits until the end is written: that takes one transaction.
    turn.ending = True
    with anyio.CancelScope(shield=True):
        if failure is not None:
            end = partial(turns.fail, turn_no=turn.number, reason=failure, retry=retry, attempts_max=attempts_max)
            await _record(turn, end)
        else:
            await _complete(turn, answer or Answer(incomplete="the handler returned nothing"))


async def _keep_lease(turn: Turn) -> None:
    """Renew a turn's lease until cancelled; stop the turn when it is not ours any more."""
    while True:
        await anyio.sleep(turn.settings.lease_s / 3)
        try:
            await turn.renew()
        except (TurnLost, StoreClosed) as error:
            if not turn._ended:  # noqa: SLF001
                logger.warning("%s", error)
                turn.stop()
            return
        except SessionDBError as error:
            logger.warning("%s: its lease was not renewed: %s", turn, error)


async def _tell_delay(turn: Turn) -> None:
    """Tell the sender, once, when the answer takes longer than `delayed_after_s` since the message was accepted."""
    delayed_after_s = turn.settings.delayed_after_s
    waited_s = (_now_ms() - turn.started.accepted_at_ms) / 1000
    await anyio.sleep(min(max(0.0, delayed_after_s - waited_s), delayed_after_s))
    trouble = _Trouble(f"{turn}: its sender cannot be told that it takes longer")
    while True:
        try:
            await turn.db.write("turn.delayed", lambda tx: turns.tell_delayed(tx, turn.number))
        except TurnLost:
            return
        except SessionDBError as error:
            if not error.retry:
                logger.warning("%s: %s", trouble.who, error)
                return
            await anyio.sleep(trouble.pause_after(error))
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
            tx, turn.number, drafts, replies, incomplete=answer.incomplete is not None, reason=answer.incomplete
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
    encoded = await anyio.to_thread.run_sync(_encoded_replies, messages) if large else _encoded_replies(messages)
    size = sum(draft.size for draft in drafts) + sum(reply_bytes for _, reply_bytes in encoded)
    check_append(len(drafts) + len(encoded), size)
    return drafts, [reply for reply, _ in encoded], size


def _encoded_replies(messages: Sequence[tuple[str, Any]]) -> list[tuple[tuple[str, str], int]]:
    return [encoded_reply(target, message) for target, message in messages]


def encoded_reply(target: str, message: Any) -> tuple[tuple[str, str], int]:
    """Encode what the outbox is to send; return it and its bytes.

    Raises:
        InvalidInput: it is too large.
        TypeError, ValueError: it is no JSON.
    """
    text = dumps(message)
    size = len(text) if text.isascii() or len(text) > ENTRY_BYTES_MAX else len(text.encode())
    if len(target) > SESSION_KEY_CHARS_MAX or size > ENTRY_BYTES_MAX:
        raise InvalidInput(f"a reply of {size:,} bytes to {target[:80]!r}: at most {ENTRY_BYTES_MAX:,} bytes fit")
    return (target, text), size


async def _refuse_answer(turn: Turn, error: Exception) -> None:
    said = f"its answer cannot be stored: {error}"
    logger.warning("%s: %s", turn, said)
    refused = await _record(turn, lambda tx: turns.fail(tx, turn.number, said, retry=False))
    if refused is not None:
        logger.error("%s: its end cannot be written (%s); its lease ends it", turn, refused)


async def _record(turn: Turn, body: Callable[[Tx], object], *, size: int = 0) -> SessionDBError | None:
    """Write a turn's end; shielded, and tried again while that may help, until its lease has run out.

    Returns the error if the database refuses it for good: for what it says, not for the moment.
    """
    try:
        await _write_surely(turn.db, "turn.end", body, size=size, for_s=turn.settings.lease_s, who=str(turn))
    except TurnLost as error:
        logger.warning("%s", error)
    except StoreClosed as error:
        logger.error("%s: its end could not be written (%s); its lease ends it", turn, error)  # noqa: TRY400  # nothing to trace
    except SessionDBError as error:
        if not error.retry:
            return error
        logger.error("%s: its end could not be written (%s); its lease ends it", turn, error)  # noqa: TRY400  # nothing to trace
    turn._ended = True  # noqa: SLF001
    return None


async def _write_surely(db: SessionDB, op: str, body: Callable[[Tx], object], *, for_s: float, who: str, size: int = 0) -> None:
    """Write what has happened already; shielded, and tried again for a while after errors that pass.

    The body may run again after it was committed. asyncio's task.cancel() passes through a shield, once per call: what was not
    executed is tried again, and the cancellation goes on when that is done.
    """
    give_up = time.monotonic() + for_s
    trouble = _Trouble(who)
    cancelled: BaseException | None = None
    pause_s = 0.0
    with anyio.CancelScope(shield=True):
        while True:
            try:
                if pause_s:
                    await anyio.sleep(pause_s)
                await db.write(op, body, size=size)
                break
            except SessionDBError as error:
                if not error.retry or time.monotonic() >= give_up:
                    if cancelled is None:
                        raise
                    logger.warning("%s: while it was being cancelled: %s", who, error)
                    break
                pause_s = trouble.pause_after(error)
            except anyio.get_cancelled_exc_class() as again:
                cancelled, pause_s = again, 0.0
                if outcome_of(again) == "committed":
                    break
    if cancelled is not None:
        raise cancelled


async def _go_on_cancelling(mixed: BaseExceptionGroup[BaseException], who: str) -> None:
    """Let a cancellation go on that came with errors of the one who was cancelled; they are logged, and stop nobody."""
    _, others = mixed.split(anyio.get_cancelled_exc_class())
    if others is not None and not isinstance(others, Exception):
        raise mixed
    logger.warning("%s: while it was being cancelled: %s", who, others and _innermost(others), exc_info=others)
    await anyio.lowlevel.checkpoint()


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


# -- replies ------------------------------------------------------------------------------------------------


async def run_outbox(db: SessionDB, sender: Sender, *, lease_s: float, at_once: int) -> None:
    """Send replies until cancelled. See `SessionDB.run_outbox`."""
    room = anyio.Semaphore(at_once)
    trouble = _Trouble("outbox")
    taken: dict[int, outbox.Outgoing] = {}  # by this loop, and not begun yet

    async def send(reply: outbox.Outgoing) -> None:
        del taken[reply.outbox_no]
        try:
            await _send(db, reply, sender, lease_s)
        finally:
            room.release()

    try:
        async with anyio.create_task_group() as group:
            while True:
                await room.acquire()
                reply = await _next_reply(db, lease_s, trouble)
                taken[reply.outbox_no] = reply
                group.start_soon(send, reply)
    except ExceptionGroup as group_error:
        raise _innermost(group_error) from group_error
    finally:
        for reply in taken.values():  # as in run_lane
            await _settle(db, reply, partial(outbox.put_back, reply=reply, reason=_NOT_SENT), lease_s)


_NOT_SENT = "the gateway stopped before it was sent"


async def _next_reply(db: SessionDB, lease_s: float, trouble: _Trouble) -> outbox.Outgoing:
    """Wait for the next reply, and commit to sending it."""
    while True:
        seen = db.backend.change_count
        try:
            overdue, waiting, sleep_s = await db.read("outbox.look", _look_at_outbox)
            if overdue:
                await db.write("outbox.overdue", outbox.give_up_overdue)
            reply = await _begin_sending(db, lease_s) if waiting else None
            trouble.is_over()
        except SessionDBError as error:
            reply, sleep_s = None, trouble.pause_after(error)
        if reply is not None:
            return reply
        await db.backend.wait_change(seen, sleep_s)


def _look_at_outbox(tx: ReadTx) -> tuple[bool, bool, float]:
    """Return whether a sender is overdue, whether a reply may be sent, and how long until one may without any commit."""
    now_ms = _now_ms()
    overdue, waiting = tx.all("outbox.overdue", now_ms=now_ms, limit=1), outbox.next_no(tx, now_ms)
    at_ms = tx.must("outbox.due", now_ms=now_ms).at_ms
    sleep_s = LOOK_S if at_ms is None else min(LOOK_S, max(0.01, (at_ms - now_ms) / 1000))
    return bool(overdue), waiting is not None, sleep_s


async def _begin_sending(db: SessionDB, lease_s: float) -> outbox.Outgoing | None:
    made: outbox.Outgoing | None = None

    def begin(tx: Tx) -> outbox.Outgoing | None:
        nonlocal made  # as in _claim
        made = outbox.begin_sending(tx, lease_ms=round(lease_s * 1000))
        return made

    # Cancelled once it has begun, it is still known which reply was taken: it waits again, and is not unknown.
    try:
        with anyio.CancelScope(shield=True):
            reply = await db.write("outbox.begin", begin)
    except (OutcomeUnknown, anyio.get_cancelled_exc_class()) as error:
        if made is not None and outcome_of(error) != "not_executed":
            reason = _NOT_SENT if outcome_of(error) == "committed" else "whether it was taken was unknown for a moment; it was not sent"
            await _settle(db, made, partial(outbox.put_back_unsent, reply=made, reason=reason), lease_s)
        raise
    return reply


async def _send(db: SessionDB, reply: outbox.Outgoing, sender: Sender, lease_s: float) -> None:
    """Call the channel; record what it said. Anything but a clear answer is `unknown`."""
    settle: Callable[[Tx], object]
    try:
        await anyio.lowlevel.checkpoint_if_cancelled()
    except anyio.get_cancelled_exc_class():
        await _settle(db, reply, partial(outbox.put_back, reply=reply, reason=_NOT_SENT), lease_s)
        raise
    try:
        with anyio.fail_after(lease_s):
            receipt = await sender(reply)
        settle = partial(outbox.sent, reply=reply, receipt=receipt)
    except RefusedBySender as error:
        settle = partial(outbox.refused, reply=reply, reason=str(error), retry=error.retry)
    except anyio.get_cancelled_exc_class():
        await _settle(db, reply, partial(outbox.lost, reply=reply, reason="the gateway stopped while it was being sent"), lease_s)
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        logger.warning("reply %s to %s: %s", reply.outbox_no, reply.target, said, exc_info=error)
        settle = partial(outbox.lost, reply=reply, reason=said)
    except BaseExceptionGroup as mixed:  # trio, as above
        await _settle(db, reply, partial(outbox.lost, reply=reply, reason="the gateway stopped while it was being sent"), lease_s)
        await _go_on_cancelling(mixed, f"reply {reply.outbox_no} to {reply.target}")
        return
    await _settle(db, reply, settle, lease_s)


async def _settle(db: SessionDB, reply: outbox.Outgoing, body: Callable[[Tx], object], lease_s: float) -> None:
    who = f"reply {reply.outbox_no} to {reply.target}"
    try:
        await _write_surely(db, "outbox.settle", body, for_s=lease_s, who=who)
    except SessionDBError as error:
        # The row says `sending` by this process: it becomes unknown when its time is up, or at the next start.
        logger.error("%s: what became of it could not be written: %s", who, error)  # noqa: TRY400  # nothing to trace


# -- events -------------------------------------------------------------------------------------------------


async def follow_events(db: SessionDB, consumer: str, audience: events.Audience | None, *, from_start: bool) -> AsyncIterator[Event]:
    """Yield events, now and as they come. See `SessionDB.events`."""
    known, last = await db.read("events.cursor", lambda tx: (events.cursor(tx, consumer), events.last(tx)))
    at = known if known is not None else 0 if from_start else last
    if known is None:
        await db.write("events.cursor", partial(events.move_cursor, consumer=consumer, event_no=at))
    saved = at
    trouble, moving = _Trouble(f"events for {consumer}"), _Trouble(f"the cursor of {consumer}")
    while True:
        seen = db.backend.change_count
        try:
            page, last = await db.read("events", partial(_events_page, event_no=at, audience=audience))
        except SessionDBError as error:
            await anyio.sleep(trouble.pause_after(error))
            continue
        trouble.is_over()
        for event in page:
            yield event
            # Coming back for the next one says that this one has been handled.
            at = saved = event.event_no
            await _move_cursor(db, consumer, at, moving)
        if len(page) < events.PAGE:
            # What lies between is for another audience: it is not read again, and now and then not kept for us any longer.
            at = max(at, last)
            if at - saved >= events.PAGE:
                saved = at
                await _move_cursor(db, consumer, at, moving)
        if not page:
            await db.backend.wait_change(seen, LOOK_S)


async def _move_cursor(db: SessionDB, consumer: str, event_no: int, trouble: _Trouble) -> None:
    try:
        await db.write("events.cursor", partial(events.move_cursor, consumer=consumer, event_no=event_no))
        trouble.is_over()
    except SessionDBError as error:
        # The cursor moves with the next event, or what was handled comes again after a crash: at least once.
        trouble.pause_after(error)


def _events_page(tx: ReadTx, *, event_no: int, audience: events.Audience | None) -> tuple[list[Event], int]:
    return events.after(tx, event_no=event_no, audience=audience), events.last(tx)


# -- messages -----------------------------------------------------------------------------------------------


async def message_text(message: dict[str, Any] | BaseModel | str) -> str:
    """Encode a message for the inbox, off the event loop when it is large.

    Raises:
        InvalidInput: not a message with a role, or the transcript could not store it.
    """
    if not isinstance(message, dict | str | BaseModel):
        raise InvalidInput(f"a message is a dict, a typed message, or JSON text, not {type(message).__name__}")
    return await anyio.to_thread.run_sync(_message_text, message) if is_large(message) else _message_text(message)


def _message_text(message: dict[str, Any] | BaseModel | str) -> str:
    item = message_json(message) if isinstance(message, BaseModel) else message
    text = dumps(item) if isinstance(item, dict) else item.strip()
    draft_entry(text, now_ms=0)  # whatever a transcript would refuse is refused here, while the sender can be told
    fields, _ = decode_object(text)
    if "type" in fields or not isinstance(fields.get("role"), str):
        raise InvalidInput('a message has a "role" and no "type"; other entries are appended to their session, not accepted')
    return text


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
