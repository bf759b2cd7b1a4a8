"""The loop that sends replies: it takes one, calls the channel, and records its answer.

The row says `sending` before the channel is called. `outbox.py` has the states of a
reply, and says why one may be `unknown`.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from sessiondb.backend import Database, ReadTx, Tx
from sessiondb.clock import Clock
from sessiondb.errors import InvalidInput, OutcomeUnknown, SessionDBError, outcome_of
from sessiondb.limits import CHANNEL_PAUSE_MS_MAX, duration_ms
from sessiondb.models import Reply
from sessiondb.waiter import Deadline

from . import cancellation, channels, damage, draining, outbox, retry

if TYPE_CHECKING:
    from sessiondb import statements

logger = logging.getLogger("sessiondb")

CHANNELS_SIDE_BY_SIDE = 4
"""A channel gets this part of the calls at once. So three that hang leave room for the others."""

Sender = Callable[[Reply], Awaitable[str | None]]
"""Hands a reply to its channel. Returns the channel's id of it, or None. See `run_outbox`."""


class RefusedBySender(Exception):
    """Raised by a sender: the channel did not send the reply, for certain.

    `retry` says whether to try again. `retry_after_s` is how long the channel said to wait (429
    with `retry_after`). No reply of this channel is tried before, and this attempt does not
    count. None: the channel did not say so, and the reply alone waits.
    """

    def __init__(
        self, message: str, *, retry: bool = True, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.retry = retry
        self.retry_after_s = retry_after_s


def _check_numbers(lease_s: float, at_once: int, at_once_per_channel: int | None) -> None:
    """Refuse numbers with which no reply would ever be sent.

    Raises:
        InvalidInput: names the number.
    """
    for name, given in (
        ("lease_s", lease_s),
        ("at_once", at_once),
        ("at_once_per_channel", at_once_per_channel),
    ):
        if given is not None and (given <= 0 or given == math.inf):
            raise InvalidInput(f"run_outbox: {name} is {given}, and must be above 0")


async def run_outbox(
    db: Database,
    sender: Sender,
    *,
    lease_s: float,
    at_once: int,
    at_once_per_channel: int | None,
    pauses_s: Sequence[float],
    loops: draining.Loops,
) -> None:
    """Send replies until it is cancelled, or its process drains. See `SessionDB.run_outbox`."""
    pauses_s = retry.checked_pauses(pauses_s)
    _check_numbers(lease_s, at_once, at_once_per_channel)
    room = anyio.Semaphore(at_once)
    calls = _Calls(at_once_per_channel or max(1, at_once // CHANNELS_SIDE_BY_SIDE), db.clock)
    name = "outbox"
    backoff = retry.Backoff(name)
    watch = cancellation.Watch(loops.unsigned)
    tasks = cancellation.Tasks()
    taken: dict[int, outbox.Sending] = {}  # by this loop, and not begun yet
    drained = False

    async def send(reply: outbox.Sending) -> None:
        with tasks.counted():
            await work(reply)

    async def work(reply: outbox.Sending) -> None:
        del taken[reply.outbox_no]
        try:
            await _send(db, reply, sender, lease_s, pauses_s, calls, watch)
        except anyio.get_cancelled_exc_class() as cancelled:
            if watch.is_asked():
                raise
            # Only this task was cancelled, as in running_turn.run_turn.
            cancellation.forget_cancellation()
            logger.warning("%s: its task was cancelled, and the loop goes on: %s", reply, cancelled)
        finally:
            room.release()

    try:
        with (
            loops.entered(db, draining.Stage.REPLIES, name),
            cancellation.strays_raise(name, watch),
        ):
            async with anyio.create_task_group() as group:
                with watch.noting_stop():
                    await room.acquire()
                    while reply := await _next_reply(db, lease_s, backoff, calls, watch, loops):
                        taken[reply.outbox_no] = reply
                        calls.begin(reply)
                        tasks.add()
                        group.start_soon(send, reply)
                        await room.acquire()
                    await tasks.all_ended()
                    drained = True
            if not drained:
                cancellation.must_not_end(name, watch)
    except ExceptionGroup as group_error:
        raise retry.unwrap_group(group_error) from group_error
    finally:
        for reply in taken.values():  # as in worker.run_lane
            await _settle(
                db, reply, partial(outbox.release, reply=reply, reason=_NOT_SENT), lease_s, watch
            )


_NOT_SENT = "the gateway stopped before it was sent"
_WHILE_SENDING = "the gateway stopped while it was being sent"


class _Calls:
    """How many calls of each channel are under way, and which of them take none now.

    A channel that gave no clear answer, or said when to try again, is probed by one call at
    a time, until one answers. So the calls that hang with it are few, and so are the replies
    that become `unknown`, and the calls into a ban that goes on.
    """

    def __init__(self, at_once: int, clock: Clock) -> None:
        self._clock = clock
        self._at_once = at_once
        self._calls: Counter[str] = Counter()
        self._probed: set[str] = set()
        self._ends: dict[statements.ChannelsInForce, float] = {}
        self.examined: frozenset[statements.ChannelsInForce] = frozenset()
        """Pauses during which nothing is left that has waited for a day when they began."""

    def full(self) -> list[str]:
        """Return the channels that take no further call now."""
        return [
            channel
            for channel, calls in self._calls.items()
            if calls >= (1 if channel in self._probed else self._at_once)
        ]

    def note_pauses(
        self, pauses: Sequence[statements.ChannelsInForce], now_ms: int
    ) -> list[statements.ChannelsInForce]:
        """Note which channels wait. Return the pauses that have lasted as long as they should.

        By a clock that nobody sets, from when this loop saw the pause first. By the clock of
        the rows they would go on, because that was set back meanwhile.
        """
        now = self._clock.monotonic()
        self._ends = {
            row: self._ends.get(row, now + (row.until_ms - now_ms) / 1000) for row in pauses
        }
        self._probed.update(row.channel for row in pauses)
        return [row for row, at in self._ends.items() if at <= now]

    def begin(self, reply: outbox.Sending) -> None:
        """Count a call that is about to begin."""
        self._calls[reply.channel] += 1

    def end(self, reply: outbox.Sending, *, answered: bool) -> None:
        """Count a call that ended.

        Before its outcome is written: that commit wakes the loop, which finds room then.
        """
        self._calls[reply.channel] -= 1
        if not self._calls[reply.channel]:
            del self._calls[reply.channel]
        if answered:
            self._probed.discard(reply.channel)
        else:
            self._probed.add(reply.channel)


async def _next_reply(
    db: Database,
    lease_s: float,
    backoff: retry.Backoff,
    calls: _Calls,
    watch: cancellation.Watch,
    loops: draining.Loops,
) -> outbox.Sending | None:
    """Wait for the next reply, and take it. None: the process drains, and none is to be sent.

    Replies that wait for a time are left to others, or to the next start. Those behind a reply
    that this process is sending are not: they may be sent when it is.
    """
    while True:
        seen = db.backend.change_count
        ends = loops.ends(draining.Stage.REPLIES)
        try:
            full = calls.full()
            own_no = db.backend.stats()["instance_no"] if ends else None
            work = await db.read(
                "outbox.look",
                partial(_due_work, db.clock, full=full, examined=calls.examined, own_no=own_no),
            )
            await _do_upkeep(db, work, calls.note_pauses(work.pauses, work.now_ms))
            if not work.outwaited:
                calls.examined = frozenset(work.pauses)
            waiting = work.waiting
            if ends and (waiting is None or waiting.outbox_no > loops.last_reply_no):
                if not work.sending:
                    return None
                waiting = None
            reply = (
                await _begin_or_set_aside(db, lease_s, full, waiting, watch)
                if waiting is not None
                else None
            )
            sleep_s = work.sleep_s
            backoff.reset()
        except SessionDBError as error:
            reply, sleep_s = None, backoff.next_delay(error)
        if reply is not None:
            return reply
        await db.backend.wait_change(seen, sleep_s)


async def _do_upkeep(
    db: Database, work: _DueWork, over: Sequence[statements.ChannelsInForce]
) -> None:
    """Write what is due beside the next reply. Write only if needed."""
    if work.overdue:
        await give_up_overdue(db)
    if over:
        await db.write("outbox.end_pauses", partial(channels.end_pauses, over=over))
    if work.outwaited:
        await db.write("outbox.outwaited", channels.give_up_outwaited)


async def give_up_overdue(db: Database) -> int:
    """Make replies `unknown` whose lease ran out. Return how many. A bounded part of them."""
    try:
        return await db.write("outbox.overdue", outbox.give_up_overdue)
    except damage.OF_ONE_SESSION:
        given_up = 0
        now_ms = db.clock.now_ms()
        for row in await db.read("outbox.overdue", lambda tx: outbox.overdue(tx, now_ms)):
            given_up += await damage.lose_reply(
                db, row.outbox_no, row.session_no, row.attempts, outbox.LATE
            )
        return given_up


async def take_next(
    db: Database, lease_s: float, full: list[str], claim_id: str | None = None
) -> outbox.Sending | None:
    """Take the next reply for a worker that settles it by a call of its own. None: none waits.

    `full` are channels of which the worker takes none now. With `claim_id` the claim may be
    repeated. See `outbox.begin_sending`.
    """
    look = partial(_due_work, db.clock, full=full, examined=frozenset(), own_no=None)
    work = await db.read("outbox.look", look)
    await _do_upkeep(db, work, ())
    if work.waiting is None:
        return None
    watch = cancellation.Watch()
    return await _begin_or_set_aside(db, lease_s, full, work.waiting, watch, claim_id)


async def _begin_or_set_aside(
    db: Database,
    lease_s: float,
    full: list[str],
    seen: outbox.Seen,
    watch: cancellation.Watch,
    claim_id: str | None = None,
) -> outbox.Sending | None:
    try:
        return await _begin_sending(db, lease_s, full, seen, watch, claim_id)
    except outbox.CannotSend as stuck:
        reason = retry.text_of(stuck)
        logger.error("reply %s is set aside: %s", stuck.outbox_no, reason)  # noqa: TRY400
        await db.write(
            "outbox.set_aside", partial(outbox.set_aside, outbox_no=stuck.outbox_no, reason=reason)
        )
        return None


@dataclass(frozen=True, slots=True)
class _DueWork:
    """All that the loop acts upon, read in one snapshot."""

    now_ms: int
    overdue: bool
    """A sender is."""
    outwaited: bool
    """Replies have waited for their channel for a day."""
    waiting: outbox.Seen | None
    """A reply that may be sent."""
    sending: bool
    """This process is sending one. It is asked only while the process drains."""
    pauses: list[statements.ChannelsInForce]
    sleep_s: float
    """Until a reply may be sent without any commit before it."""


def _due_work(
    clock: Clock,
    tx: ReadTx,
    full: list[str],
    examined: frozenset[statements.ChannelsInForce],
    own_no: int | None,
) -> _DueWork:
    now_ms = clock.now_ms()
    pauses = channels.in_force(tx, now_ms)
    new = [row for row in pauses if row not in examined]  # once a pause: it reads all that waits
    closed = channels.closed(pauses, full)
    due_ms = [tx.one("outbox.due", now_ms=now_ms, full=closed).at_ms]
    return _DueWork(
        now_ms=now_ms,
        overdue=bool(tx.all("outbox.overdue", now_ms=now_ms, limit=1)),
        outwaited=bool(channels.outwaited(tx, now_ms, new, limit=1)),
        waiting=outbox.peek(tx, now_ms, closed),
        sending=own_no is not None
        and tx.first("outbox.of_instance", instance_no=own_no, limit=1) is not None,
        pauses=pauses,
        sleep_s=retry.sleep_s(now_ms, [*due_ms, *(row.until_ms for row in pauses)]),
    )


async def _begin_sending(
    db: Database,
    lease_s: float,
    full: list[str],
    seen: outbox.Seen,
    watch: cancellation.Watch,
    claim_id: str | None,
) -> outbox.Sending | None:
    lease_ms = duration_ms(lease_s)
    created: outbox.Sending | None = None

    def begin(tx: Tx) -> outbox.Sending | None:
        nonlocal created  # as in worker._claim
        created = outbox.begin_sending(
            tx, lease_ms=lease_ms, full=full, seen=seen, claim_id=claim_id
        )
        return created

    # If it is cancelled once it has begun, it is still known which reply was taken: the
    # reply is pending again, and not unknown.
    try:
        with anyio.CancelScope(shield=True):
            reply = await db.write("outbox.begin", begin)
    except (OutcomeUnknown, anyio.get_cancelled_exc_class()) as error:
        if created is not None and outcome_of(error) != "not_executed":
            reason = (
                _NOT_SENT
                if outcome_of(error) == "committed"
                else "whether it was taken was unknown for a moment; it was not sent"
            )
            await _settle(
                db,
                created,
                partial(outbox.release_if_taken, reply=created, reason=reason),
                lease_s,
                watch,
                patient=False,
            )
        raise
    return reply


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a call of a channel came to."""

    settle: Callable[[Tx], object]
    answered: bool
    """The channel answered clearly, and did not say when to try again."""
    waits: bool = False
    """It said when to try again."""


async def _send(
    db: Database,
    reply: outbox.Sending,
    sender: Sender,
    lease_s: float,
    pauses_s: Sequence[float],
    calls: _Calls,
    watch: cancellation.Watch,
) -> None:
    """Call the channel. Record its answer. Anything but a clear answer is `unknown`."""
    outcome = None
    try:
        outcome = await _call(db, reply, sender, lease_s, pauses_s, watch)
        if outcome.waits:  # before the call counts as ended: none may begin in between
            await _settle(db, reply, outcome.settle, lease_s, watch)
    finally:
        calls.end(reply, answered=outcome is not None and outcome.answered)
    if not outcome.waits:
        await _settle(db, reply, outcome.settle, lease_s, watch)


async def _call(
    db: Database,
    reply: outbox.Sending,
    sender: Sender,
    lease_s: float,
    pauses_s: Sequence[float],
    watch: cancellation.Watch,
) -> _Outcome:
    """Call the channel. Return what is to be recorded."""
    try:
        await anyio.lowlevel.checkpoint_if_cancelled()
    except anyio.get_cancelled_exc_class():
        not_sent = partial(outbox.release, reply=reply, reason=_NOT_SENT)
        await _settle(db, reply, not_sent, lease_s, watch)
        raise
    lost = partial(outbox.lost, reply=reply, reason=_WHILE_SENDING)
    try:
        with Deadline(lease_s, by=db.clock) as deadline:
            receipt = _checked_receipt(await cancellation.call(sender, reply, watch))
        if deadline.cancelled_caught:
            raise TimeoutError
    except RefusedBySender as error:
        return _refused(reply, error, pauses_s)
    except anyio.get_cancelled_exc_class():
        await _settle(db, reply, lost, lease_s, watch)
        raise
    except Exception as error:
        message = retry.described(error)
        logger.warning("%s: %s", reply, message, exc_info=error)
        return _Outcome(partial(outbox.lost, reply=reply, reason=message), answered=False)
    except BaseExceptionGroup as mixed:  # trio, as in running_turn._work
        await _settle(db, reply, lost, lease_s, watch)
        await retry.reraise_cancellation(mixed, str(reply))
        return _Outcome(lost, answered=False)
    return _Outcome(partial(outbox.sent, reply=reply, receipt=receipt), answered=True)


def _refused(reply: outbox.Sending, error: RefusedBySender, pauses_s: Sequence[float]) -> _Outcome:
    """Return what a refusal comes to.

    A `retry_after_s` that is no time is a mistake of the sender. It is said and not used: that
    the channel did not send the reply is certain all the same.
    """
    why = retry.text_of(error)
    said: object = error.retry_after_s
    refuse = partial(outbox.refused, reply=reply, retry=error.retry, pauses_s=pauses_s)
    if said is None:
        return _Outcome(partial(refuse, reason=why), answered=True)
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said < math.inf:
        wrong = f"retry_after_s is {_shown(said)}, and must be a number of seconds, 0 or more"
        logger.error("%s: %s; it was not used", reply, wrong)
        return _Outcome(partial(refuse, reason=f"{why} ({wrong}; not used)"), answered=True)
    longest_s = CHANNEL_PAUSE_MS_MAX // 1000
    if said > longest_s:
        why += f" (it said {_shown(said)} s, and is asked again after {longest_s:,} s)"
    retry_after_ms = math.ceil(min(said, longest_s) * 1000)
    return _Outcome(
        partial(refuse, reason=why, retry_after_ms=retry_after_ms), answered=False, waits=True
    )


def _shown(value: object) -> str:
    """Return a value as a short text. Objects are somebody else's, and show their type only."""
    if isinstance(value, int) and abs(value) > _SHOWN_MAX:
        return f"an int beyond {_SHOWN_MAX:,}"
    if isinstance(value, int | float | str):
        return f"{value!r:.80}"
    return type(value).__name__


_SHOWN_MAX = 10**15


def _checked_receipt(returned: object) -> str | None:
    """Return what a sender returned, if it is a receipt.

    Raises:
        InvalidInput: it is not. The channel has been called, so nobody knows what it did.
    """
    if returned is None:
        return None
    if not isinstance(returned, str):
        raise InvalidInput(
            f"the sender returned {type(returned).__name__}, and must return the channel's id of "
            "the message as a str, or None"
        )
    return retry.storable(returned)


async def _settle(
    db: Database,
    reply: outbox.Sending,
    body: Callable[[Tx], object],
    lease_s: float,
    watch: cancellation.Watch,
    *,
    patient: bool = True,
) -> None:
    """Write a reply's outcome. A `patient` task retries until its loop stops, and a while longer.

    The loop itself is not: while it waits, it does not stop.
    """
    try:
        await retry.write_with_retry(
            db,
            "outbox.settle",
            body,
            for_s=lease_s,
            name=str(reply),
            watch=watch if patient else None,
        )
    except SessionDBError as error:
        # The row says `sending` by this process: it becomes unknown when its time is
        # up, or at the next start.
        # There is nothing to trace: the error says where it came from.
        logger.error("%s: its outcome could not be written: %s", reply, error)  # noqa: TRY400
        watch.note_unsigned(f"{reply}: {error}")
