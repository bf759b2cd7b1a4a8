"""A running turn: the object that its handler works with, and the task that runs it to its end.

The task calls the handler, renews the lease while the handler works, and cuts it off at
the turn's deadline. Then it records the outcome: an answer, an exception, the deadline,
a cancellation, or the loss of the lease. Nothing but a cancellation of the lane's loop
leaves the task. `worker.py` starts it. `turns.py` and `leases.py` say what each of these
writes is in the database.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
from pydantic import BaseModel, ConfigDict, Field

from sessiondb import clock
from sessiondb.arguments import checks_arguments
from sessiondb.backend import Database, Tx
from sessiondb.errors import InvalidInput, SessionDBError, StoreClosed, TurnLost
from sessiondb.json_text import loads
from sessiondb.limits import (
    INBOX_ATTEMPTS_MAX,
    INBOX_PAUSES_S,
    INTERRUPTED_ATTEMPTS_MAX,
    LEASE_GRACE_MS,
    RetryPauses,
    duration_ms,
)
from sessiondb.models import Receipt
from sessiondb.texts import text_of
from sessiondb.transcript.entries import (
    LARGE_ITEMS,
    Appendable,
    Draft,
    check_append,
    is_large,
    off_loop,
    prepare,
    prepare_all,
)
from sessiondb.transcript.registry import check_reset_reason
from sessiondb.transcript.session import Session
from sessiondb.waiter import Deadline, Home, sleep

from . import cancellation, claims, inbox, leases, progress, retry, turns
from .outbox import encoded_reply

logger = logging.getLogger("sessiondb")

STOPPING = "its gateway is stopping"
"""The reason of a turn that is interrupted because its loop is cancelled."""
ASK_CHANNEL = "agent"
"""The channel of a message that a turn has for another conversation."""
_STRAY = "its task was cancelled, by nobody who may stop its lane"


class LaneSettings(BaseModel):
    """How a lane's turns are run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_s: float = Field(default=30.0, gt=0)
    """A turn whose process falls silent is taken over after this. Renewed every third of it."""
    timeout_s: float = Field(default=600.0, gt=0)
    """A turn is cut off after this. Its lease cannot be renewed much longer.

    A resume that makes no progress is cut off sooner, by its policy's `deadline_s`."""
    delayed_after_s: float = Field(default=10.0, gt=0)
    """A message without an answer after this long gets one `message_delayed` event.

    It makes no difference whether the message waits or is being worked on."""
    attempts_max: int = Field(default=INBOX_ATTEMPTS_MAX, ge=1)
    """A message whose turn fails is tried this often. Then it is a dead letter.

    A message whose turn is cut off or interrupted is tried three times at most. A turn that an
    orderly stop interrupted does not count."""
    retry_pauses_s: RetryPauses = INBOX_PAUSES_S
    """The pauses between the attempts, a minute each at most. The last one repeats."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A message that a turn has for a conversation, accepted when it completes (`Answer.accept`).

    A program's message: it supersedes nobody's. Its channel is `agent`, and its event id names
    the turn. Raises as `accept` does: then the turn has failed, or while a session is full is
    completed later.
    """

    key: str
    message: dict[str, Any] | BaseModel | str
    lane: str = "main"
    details: Mapping[str, Any] | None = None


Asked = tuple[str, dict[str, Any] | BaseModel | str] | Ask
"""A key and a message, or an `Ask`."""


@dataclass(slots=True)
class Answer:
    """The result of a handler: entries for the transcript and replies for the outbox.

    Both are written when the turn completes. `replies` are (target, message) pairs.
    `incomplete` says that there is no usable answer, and why. The user is notified. `accept`
    are messages for other conversations, or for this one: (key, message) pairs, or `Ask`. They
    are accepted in the same transaction.
    """

    entries: Sequence[Appendable] = ()
    replies: Sequence[tuple[str, Any]] = ()
    incomplete: str | None = None
    accept: Sequence[Asked] = ()


Handler = Callable[["Turn"], Awaitable[Answer]]
"""Works on a turn. Returns its answer. See `run_lane`."""


@checks_arguments
@dataclass(slots=True)
class Turn:
    """A turn in progress, as its handler holds it."""

    session: Session
    """Its conversation. Read with it, and write with the turn: `append` and `reset`."""
    message: dict[str, Any]
    """The message to be answered, decoded."""
    _started: claims.Started
    _origin: claims.Origin
    _db: Database
    _settings: LaneSettings
    _watch: cancellation.Watch
    _stopped: bool = False
    """True: it was aborted or taken over. Nothing can be written in its name any more."""
    _alive_until: float = field(init=False)
    """Until then the lease holds in this process, whatever the wall clock says.

    By the machine's clock. A process whose test moves the clock far is still alive."""
    _ending: bool = False
    """True: its work is over, and its end is being written.

    This process does not take it over meanwhile."""
    _unsigned: str = "its end was not written"
    """Why its end is not in the database. Empty once it is."""
    _ended: bool = False  # its outcome is written, or was given up
    _ends: float = field(init=False)
    _scope: anyio.CancelScope | None = None
    _home: Home | None = None
    _deadline: Deadline | None = None
    _time_up: float = 0.0  # by the monotonic clock

    def __post_init__(self) -> None:
        self._ends = clock.monotonic() + (self._started.timeout_ms + LEASE_GRACE_MS) / 1000
        self._extend()

    def _extend(self) -> None:
        self._alive_until = min(clock.monotonic() + self._settings.lease_s, self._ends)

    def _begin_time(self) -> Deadline:
        """Return the block that cuts the handler off: at its time's end, or without progress."""
        timeout_s = self._started.timeout_ms / 1000
        self._time_up = self._db.clock.monotonic() + timeout_s
        self._deadline = Deadline(timeout_s, by=self._db.clock)
        self._note_progress()
        return self._deadline

    def _note_progress(self) -> None:
        if self._deadline is not None and self._started.progress_ms is not None:
            soon = self._db.clock.monotonic() + self._started.progress_ms / 1000
            self._deadline.move(min(soon, self._time_up))

    def _cut_off_reason(self) -> str:
        progress_ms, timeout_ms = self._started.progress_ms, self._started.timeout_ms
        if progress_ms is not None and self._db.clock.monotonic() < self._time_up:
            return f"cut off after {progress_ms / 1000:g} s without progress"
        return f"cut off at its deadline of {timeout_ms / 1000:g} s"

    def __str__(self) -> str:
        return f"turn {self.turn_no} of session {self.session.id}"

    @property
    def text(self) -> str:
        """What a person would read of the message. Empty: nothing, of a picture for instance."""
        return text_of(self.message)

    @property
    def turn_no(self) -> int:
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
    def channel(self) -> str:
        """The adapter that brought the message, as `accept` got it."""
        return self._origin.channel

    @property
    def event_id(self) -> str:
        """The channel's own id of the message. Of an edit that waited: with ` edit VERSION`."""
        return self._origin.event_id

    @property
    def details(self) -> dict[str, Any]:
        """What the adapter gave to `accept` for the handler, and no model reads. Empty without any.

        The turn's replies have it, too, for their sender.
        """
        return self._origin.details

    @property
    def lane(self) -> str:
        """The lane that accepted the message. A resume (`kind`) runs in another one."""
        return self._origin.lane

    @property
    def key(self) -> str | None:
        """The conversation's key. None: it was accepted before the database kept them."""
        return self._origin.key

    @property
    def agent_id(self) -> str | None:
        """The agent that the key names. None: likewise."""
        return self._origin.agent_id

    @property
    def accepted_at_ms(self) -> int:
        """When the message was accepted."""
        return self._started.accepted_at_ms

    @property
    def expires_at_ms(self) -> int:
        """When its lease runs out, as of the claim. Each renewal moves that."""
        return self._started.expires_at_ms

    @property
    def deadline_ms(self) -> int:
        """When its time is over. Its lease cannot be renewed past it."""
        return self._started.deadline_ms

    @property
    def edit_of(self) -> int | None:
        """The message that this one edits, which is in the context already. None: no edit.

        An edit that was reported before any turn had read the message is no turn of its own.
        """
        return self._started.edit_of

    @property
    def kind(self) -> claims.TurnKind:
        """`message`, or `resume`: it continues what another turn of this message had begun."""
        return self._started.kind

    async def append(self, item: Appendable) -> Receipt:
        """Append to the session in the name of this turn. Durable on return.

        Raises:
            TurnLost: the turn was taken over. Nothing was written.
        """
        draft = await prepare(item, now_ms=self._db.clock.stamp_ms())
        draft.asked_epoch = self.session.asked_epoch
        receipts = await self._db.write(
            "turn.append", lambda tx: turns.append(tx, self.turn_no, [draft]), size=draft.size
        )
        self._note_progress()
        return receipts[0]

    @property
    def previous(self) -> Any:
        """What an earlier attempt at this message noted last by `progress`. None: nothing.

        The attempt's process may have died, or its lease run out, or its handler failed.
        """
        return loads(self._started.progress) if self._started.progress is not None else None

    async def progress(self, details: Any) -> None:
        """Note JSON for whoever takes this message over: the next attempt's `turn.previous`.

        Durable on return, and replaced by the next note. For the id of a message that the channel
        shows already, say, so that no crash leaves it orphaned. None takes a note back. 4,096
        bytes at most. If nobody takes the message over, the event for its sender has it.

        Raises:
            InvalidInput: it is no JSON, or too large.
            TurnLost: the turn was taken over. Nothing was noted.
        """
        text = progress.encode(self.turn_no, details)
        await self._db.write(
            "turn.progress", lambda tx: turns.note_progress(tx, self.turn_no, text), size=len(text)
        )
        self._note_progress()

    async def reset(self, reason: str = "reset", *, keep_from: str | None = None) -> int:
        """Begin a new context in the name of this turn, as for `/new`. Return its epoch.

        Durable on return. All that the turn appends or answers from here on belongs to the
        new context. Otherwise like `Session.reset`.

        Raises:
            TurnLost: the turn was taken over. Nothing was changed.
        """
        check_reset_reason(reason)
        epoch = await self._db.write(
            "turn.reset",
            lambda tx: turns.reset(tx, self.turn_no, reason=reason, keep_from=keep_from),
        )
        self._note_progress()
        return epoch

    async def renew(self, operation: str | None = None) -> None:
        """Renew the lease now, and say what the turn is doing (shown in `held`, 2,000 characters).

        The lease is renewed without this, too. A resume says with it that it makes progress.

        Raises:
            TurnLost: the turn was taken over.
        """
        await self._renew_lease(operation)
        self._note_progress()

    async def _renew_lease(self, operation: str | None = None) -> None:
        lease_ms = duration_ms(self._settings.lease_s)
        shown = operation[: retry.REASON_CHARS_MAX] if operation is not None else None
        await self._db.write(
            "turn.renew",
            lambda tx: leases.renew(tx, self.turn_no, lease_ms=lease_ms, operation=shown),
        )
        self._extend()


def stop(turn: Turn) -> None:
    """Cancel a turn's handler, because it has ended in the database. From any thread."""
    turn._stopped = True
    if turn._scope is not None and turn._home is not None:
        turn._home.call_soon(turn._scope.cancel)


def is_ending(turn: Turn) -> bool:
    """Tell whether the handler of a turn has ended, and its end is being written."""
    return turn._ending


def is_owned(turn: Turn) -> bool:
    """Tell whether this process still owns a turn.

    True while its lease is valid by the monotonic clock, or its end is being written.
    """
    return turn._ending or clock.monotonic() < turn._alive_until


async def run_turn(
    turn: Turn,
    handler: Handler,
    claimed: dict[int, Turn],
    running: dict[int, Turn],
) -> None:
    """Run a handler and record the outcome. Only a cancellation of the loop is raised.

    Until its end is written the turn belongs to this process, and its lease is renewed,
    also while the loop is being cancelled.
    """
    watch = turn._watch
    del claimed[turn.turn_no]
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
                # asyncio's task.cancel() passes through shields: it may have ended the
                # encoding of an answer. If the end was written after all, this changes
                # nothing.
                if not turn._ended:
                    await _end_cancelled(turn, asked=watch.is_asked())
                raise
            finally:
                keeping.cancel()
    except anyio.get_cancelled_exc_class() as cancelled:
        if watch.is_asked():
            raise
        # Only this task was cancelled, by nobody who may stop the loop. The end is written.
        cancellation.forget_cancellation()
        logger.warning("%s: its task was cancelled, and its lane goes on: %s", turn, cancelled)
    finally:
        del running[turn.turn_no]
        note_unsigned(turn)


def note_unsigned(turn: Turn) -> None:
    """Note a turn whose end could not be written before its lane stopped."""
    if turn._unsigned:
        turn._watch.note_unsigned(f"{turn}: {turn._unsigned}")


async def _work(turn: Turn, handler: Handler) -> None:
    watch = turn._watch
    returned: list[object] = []
    failure: str | None = None
    cut_off, attempts_max = False, turn._settings.attempts_max
    try:
        async with anyio.create_task_group() as group:
            turn._home, turn._scope = Home(), group.cancel_scope
            if turn._stopped:
                group.cancel_scope.cancel()
            if turn._started.kind == "message" and not turn._started.notified:
                group.start_soon(_notify_delay, turn)
            with turn._begin_time() as deadline:
                returned.append(await cancellation.call(handler, turn, watch))
            if deadline.cancelled_caught:
                failure, cut_off = turn._cut_off_reason(), True
                attempts_max = min(attempts_max, INTERRUPTED_ATTEMPTS_MAX)
            group.cancel_scope.cancel()
    except anyio.get_cancelled_exc_class():
        # The loop is being cancelled. An answer that exists already is not thrown away.
        turn._ending = True
        asked = watch.is_asked()
        with anyio.CancelScope(shield=True):
            if returned:
                await _complete(turn, returned[0])
            else:
                await _end_cancelled(turn, asked=asked)
        raise
    except Exception as error:
        failure = retry.described(retry.unwrap_group(error))
        if not turn._stopped:
            logger.warning("%s failed: %s", turn, failure, exc_info=retry.unwrap_group(error))
    except BaseExceptionGroup as mixed:
        # trio: the loop is being cancelled, and the handler raised something else on
        # its way out.
        turn._ending = True
        await interrupt(turn)
        await retry.reraise_cancellation(mixed, str(turn))
        return
    if turn._stopped:
        logger.info("%s was stopped: it has ended, or was taken over", turn)
        turn._unsigned = ""
        return
    if not returned and failure is None:
        failure = _STRAY
    # A cancellation that arrives from here on waits until the end is written: one
    # transaction.
    turn._ending = True
    with anyio.CancelScope(shield=True):
        if failure is not None:
            await _fail(turn, failure, attempts_max=attempts_max, cut_off=cut_off)
        else:
            await _complete(turn, returned[0])


async def _keep_lease(turn: Turn) -> None:
    """Renew a turn's lease until cancelled. Stop the turn when this process has lost it."""
    while True:
        await sleep(turn._settings.lease_s / 3, by=turn._db.clock)
        try:
            await turn._renew_lease()
        except (TurnLost, StoreClosed) as error:
            if not turn._ended:
                logger.warning("%s", error)
                stop(turn)
            return
        except SessionDBError as error:
            logger.warning("%s: its lease was not renewed: %s", turn, error)


async def _notify_delay(turn: Turn) -> None:
    """Notify the sender, once, when the answer takes longer than `delayed_after_s`.

    The time counts from when the message was accepted.
    """
    delayed_after_s = turn._settings.delayed_after_s
    waited_s = (turn._db.clock.now_ms() - turn._started.accepted_at_ms) / 1000
    left_s = min(max(0.0, delayed_after_s - waited_s), delayed_after_s)
    await sleep(left_s, by=turn._db.clock)
    backoff = retry.Backoff(f"{turn}: its sender cannot be notified of the delay")
    while True:
        try:
            await turn._db.write("turn.delayed", lambda tx: turns.notify_delayed(tx, turn.turn_no))
        except TurnLost:
            return
        except SessionDBError as error:
            if not error.retry:
                logger.warning("%s: %s", backoff.name, error)
                return
            await sleep(backoff.next_delay(error))
        else:
            return


async def _complete(turn: Turn, returned: object) -> None:
    """Write a turn's answer and its end. If the answer cannot be stored, the turn has failed."""
    try:
        complete, size = await encoded_end(
            turn.turn_no,
            _checked_answer(returned),
            now_ms=turn._db.clock.stamp_ms(),
            asked_epoch=turn.session.asked_epoch,
        )
    except Exception as error:  # noqa: BLE001  # a handler's own objects may raise anything
        await _refuse_answer(turn, error)
        return
    refused = await _record(turn, complete, size=size)
    if refused is not None:
        await _refuse_answer(turn, refused)


async def encoded_end(
    turn_no: int, answer: Answer, *, now_ms: int, asked_epoch: int | None
) -> tuple[Callable[[Tx], list[Receipt]], int]:
    """Encode an answer. Return what writes it with the end of its turn, and its bytes.

    Raises:
        InvalidInput: it cannot be stored, or not in one transaction.
    """
    drafts, replies, size = await _encoded_answer(answer, now_ms)
    asks = await _encoded_asks(turn_no, answer.accept)
    size += sum(len(ask.payload) for ask in asks)
    check_append(len(drafts) + len(replies) + len(asks), size)
    for draft in drafts:
        draft.asked_epoch = asked_epoch

    def complete(tx: Tx) -> list[Receipt]:
        return turns.complete(
            tx,
            turn_no,
            drafts,
            replies,
            asks,
            incomplete=answer.incomplete is not None,
            reason=answer.incomplete,
        )

    return complete, size


def _checked_answer(returned: object) -> Answer:
    """Return what a handler returned, if it is an answer.

    Raises:
        InvalidInput: it is not, or its fields are not what they must be.
    """
    if not isinstance(returned, Answer):
        raise InvalidInput(
            f"the handler returned {_shown(returned)}, and must return a sessiondb.Answer: "
            "Answer(entries=[...], replies=[(target, message)]), or Answer(incomplete=why) if "
            "there is none"
        )
    if not isinstance(returned.incomplete, str | None):
        raise InvalidInput(
            f"Answer.incomplete is {_shown(returned.incomplete)}, and must be a text that says "
            "why there is no usable answer, or None"
        )
    return returned


def _shown(value: object) -> str:
    """Return a value's type, and its beginning if it is a text or a number."""
    name = type(value).__name__
    return f"{name} {value!r:.80}" if isinstance(value, str | int | float) else name


async def _encoded_answer(
    answer: Answer, now_ms: int
) -> tuple[list[Draft], list[tuple[str, str]], int]:
    """Encode an answer, off the event loop when it is large.

    Return its entries, its replies and their bytes.

    Raises:
        InvalidInput: it cannot be stored, or not in one transaction.
    """
    entries, messages = list(answer.entries), list(answer.replies)
    check_append(len(entries) + len(messages), 0)
    drafts = await prepare_all(entries, now_ms=now_ms)
    large = len(messages) > LARGE_ITEMS or any(is_large(message) for _, message in messages)
    encoded = (
        await off_loop(partial(_encoded_replies, messages)) if large else _encoded_replies(messages)
    )
    size = sum(draft.size for draft in drafts) + sum(reply_bytes for _, reply_bytes in encoded)
    check_append(len(drafts) + len(encoded), size)
    return drafts, [reply for reply, _ in encoded], size


def _encoded_replies(messages: Sequence[tuple[str, Any]]) -> list[tuple[tuple[str, str], int]]:
    return [encoded_reply(target, message) for target, message in messages]


async def _encoded_asks(turn_no: int, asks: Sequence[Asked]) -> list[inbox.Incoming]:
    """Encode the messages that an answer has for other conversations.

    Raises:
        InvalidInput: one of them is no message, or for no conversation.
    """
    check_append(len(asks), 0)
    return [await _encoded_ask(turn_no, count, asked) for count, asked in enumerate(asks, 1)]


async def _encoded_ask(turn_no: int, count: int, asked: Asked) -> inbox.Incoming:
    ask = asked if isinstance(asked, Ask) else Ask(*asked)
    event_id = f"turn {turn_no} ask {count}"
    return await inbox.prepare_incoming(
        ASK_CHANNEL, event_id, ask.key, ask.message, ask.lane, by_person=False, details=ask.details
    )


async def _refuse_answer(turn: Turn, error: Exception) -> None:
    message = f"its answer cannot be stored: {retry.described(error)}"
    logger.warning("%s: %s", turn, message)
    await _fail(turn, message, retry=False)


async def _fail(
    turn: Turn,
    reason: str,
    *,
    retry: bool = True,
    attempts_max: int = INBOX_ATTEMPTS_MAX,
    cut_off: bool = False,
) -> None:
    end = partial(
        turns.fail,
        turn_no=turn.turn_no,
        reason=reason,
        retry=retry,
        attempts_max=attempts_max,
        pauses_s=turn._settings.retry_pauses_s,
        cut_off=cut_off,
    )
    refused = await _record(turn, end)
    if refused is not None:
        logger.error("%s: its end cannot be written (%s); its lease ends it", turn, refused)


async def interrupt(turn: Turn) -> None:
    """Record that a turn is interrupted because its gateway is stopping."""
    await _record(turn, lambda tx: turns.interrupt(tx, turn.turn_no, STOPPING, orderly=True))


async def _end_cancelled(turn: Turn, *, asked: bool) -> None:
    """Record the end of a turn that a cancellation ended: of its loop (`asked`), or a stray one."""
    if asked:
        await interrupt(turn)
    else:
        await _fail(turn, _STRAY, attempts_max=turn._settings.attempts_max)


async def _record(
    turn: Turn, body: Callable[[Tx], object], *, size: int = 0
) -> SessionDBError | None:
    """Write a turn's end. Shielded, and retried while that may help.

    Until the turn is lost, or for as long as its lease once its lane stops.

    Return the error if the database refuses the end itself, so that a retry cannot help.
    """
    try:
        await retry.write_with_retry(
            turn._db,
            "turn.end",
            body,
            size=size,
            for_s=turn._settings.lease_s,
            name=str(turn),
            watch=turn._watch,
        )
    except TurnLost as error:
        logger.warning("%s", error)
        turn._unsigned = ""
    except SessionDBError as error:
        turn._unsigned = str(error)
        if not error.retry and not isinstance(error, StoreClosed):
            return error
        # There is nothing to trace: the error says where it came from.
        message = "%s: its end could not be written (%s); its lease ends it"
        logger.error(message, turn, error)  # noqa: TRY400
    else:
        turn._unsigned = ""
    turn._ended = True
    return None
