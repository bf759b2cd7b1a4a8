"""The loop that sends replies: it takes one, calls the channel, and records its answer.

The row says `sending` before the channel is called. `outbox.py` has the states of a
reply, and says why one may be `unknown`.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.lowlevel

from sessiondb import clock
from sessiondb.backend import Database, ReadTx, Tx
from sessiondb.errors import InvalidInput, OutcomeUnknown, SessionDBError, outcome_of

from . import cancellation, damage, outbox, retry

logger = logging.getLogger("sessiondb")

CHANNELS_SIDE_BY_SIDE = 4
"""A channel gets this part of the calls at once. So three that hang leave room for the others."""

Sender = Callable[[outbox.Outgoing], Awaitable[str | None]]


class RefusedBySender(Exception):
    """Raised by a sender: the channel did not send the reply, for certain.

    `retry` says whether to try again.
    """

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


async def run_outbox(
    db: Database,
    sender: Sender,
    *,
    lease_s: float,
    at_once: int,
    at_once_per_channel: int | None,
    unsigned: list[str],
) -> None:
    """Send replies until cancelled. See `SessionDB.run_outbox`.

    What it cannot sign off when it is stopped is added to `unsigned`.
    """
    room = anyio.Semaphore(at_once)
    channels = _Channels(at_once_per_channel or max(1, at_once // CHANNELS_SIDE_BY_SIDE))
    name = "outbox"
    backoff = retry.Backoff(name)
    watch = cancellation.Watch(unsigned)
    taken: dict[int, outbox.Outgoing] = {}  # by this loop, and not begun yet

    async def send(reply: outbox.Outgoing) -> None:
        del taken[reply.outbox_no]
        try:
            await _send(db, reply, sender, lease_s, channels, watch)
        except anyio.get_cancelled_exc_class() as cancelled:
            if watch.is_asked():
                raise
            # Only this task was cancelled, as in running_turn.run_turn.
            cancellation.forget_cancellation()
            logger.warning("%s: its task was cancelled, and the loop goes on: %s", reply, cancelled)
        finally:
            room.release()

    try:
        with cancellation.strays_raise(name, watch):
            async with anyio.create_task_group() as group:
                with watch.noting_stop():
                    while True:
                        await room.acquire()
                        reply = await _next_reply(db, lease_s, backoff, channels, watch)
                        taken[reply.outbox_no] = reply
                        channels.begin(reply)
                        group.start_soon(send, reply)
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


class _Channels:
    """How many calls of each channel are under way, and which of them take none now.

    A channel that gave no clear answer is probed by one call at a time, until one answers.
    So the calls that hang with it are few, and so are the replies that become `unknown`.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._calls: Counter[str] = Counter()
        self._probed: set[str] = set()

    def full(self) -> str:
        """Return the channels that take no further call now, as a JSON array."""
        return json.dumps(
            [
                channel
                for channel, calls in self._calls.items()
                if calls >= (1 if channel in self._probed else self._at_once)
            ]
        )

    def begin(self, reply: outbox.Outgoing) -> None:
        """Count a call that is about to begin."""
        self._calls[reply.channel] += 1

    def end(self, reply: outbox.Outgoing, *, answered: bool) -> None:
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
    channels: _Channels,
    watch: cancellation.Watch,
) -> outbox.Outgoing:
    """Wait for the next reply, and take it."""
    while True:
        seen = db.backend.change_count
        try:
            full = channels.full()
            overdue, waiting, sleep_s = await db.read("outbox.look", partial(_due_work, full=full))
            if overdue:
                await _give_up_overdue(db)
            reply = await _begin_or_set_aside(db, lease_s, full, watch) if waiting else None
            backoff.reset()
        except SessionDBError as error:
            reply, sleep_s = None, backoff.next_delay(error)
        if reply is not None:
            return reply
        await db.backend.wait_change(seen, sleep_s)


async def _give_up_overdue(db: Database) -> None:
    try:
        await db.write("outbox.overdue", outbox.give_up_overdue)
    except damage.OF_ONE_SESSION:
        for row in await db.read("outbox.overdue", lambda tx: outbox.overdue(tx, clock.now_ms())):
            await damage.lose_reply(db, row.outbox_no, row.session_no, row.attempts, outbox.LATE)


async def _begin_or_set_aside(
    db: Database, lease_s: float, full: str, watch: cancellation.Watch
) -> outbox.Outgoing | None:
    try:
        return await _begin_sending(db, lease_s, full, watch)
    except outbox.CannotSend as stuck:
        reason = retry.text_of(stuck)
        logger.error("reply %s is set aside: %s", stuck.outbox_no, reason)  # noqa: TRY400
        await db.write(
            "outbox.set_aside", partial(outbox.set_aside, outbox_no=stuck.outbox_no, reason=reason)
        )
        return None


def _due_work(tx: ReadTx, full: str) -> tuple[bool, bool, float]:
    """Return whether a sender is overdue, whether a reply may be sent, and how long to sleep.

    That is until a reply may be sent without any commit before it.
    """
    now_ms = clock.now_ms()
    overdue, waiting = (
        tx.all("outbox.overdue", now_ms=now_ms, limit=1),
        outbox.next_no(tx, now_ms, full),
    )
    at_ms = tx.one("outbox.due", now_ms=now_ms, full=full).at_ms
    return bool(overdue), waiting is not None, retry.sleep_s(now_ms, [at_ms])


async def _begin_sending(
    db: Database, lease_s: float, full: str, watch: cancellation.Watch
) -> outbox.Outgoing | None:
    created: outbox.Outgoing | None = None

    def begin(tx: Tx) -> outbox.Outgoing | None:
        nonlocal created  # as in worker._claim
        created = outbox.begin_sending(tx, lease_ms=round(lease_s * 1000), full=full)
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


async def _send(
    db: Database,
    reply: outbox.Outgoing,
    sender: Sender,
    lease_s: float,
    channels: _Channels,
    watch: cancellation.Watch,
) -> None:
    """Call the channel. Record its answer. Anything but a clear answer is `unknown`."""
    answered = False
    try:
        settle, answered = await _call(db, reply, sender, lease_s, watch)
    finally:
        channels.end(reply, answered=answered)
    await _settle(db, reply, settle, lease_s, watch)


async def _call(
    db: Database,
    reply: outbox.Outgoing,
    sender: Sender,
    lease_s: float,
    watch: cancellation.Watch,
) -> tuple[Callable[[Tx], object], bool]:
    """Call the channel. Return what is to be recorded, and whether it answered clearly."""
    try:
        await anyio.lowlevel.checkpoint_if_cancelled()
    except anyio.get_cancelled_exc_class():
        not_sent = partial(outbox.release, reply=reply, reason=_NOT_SENT)
        await _settle(db, reply, not_sent, lease_s, watch)
        raise
    lost = partial(outbox.lost, reply=reply, reason=_WHILE_SENDING)
    try:
        with anyio.fail_after(lease_s):
            receipt = _checked_receipt(await cancellation.call(sender, reply, watch))
    except RefusedBySender as error:
        why = retry.text_of(error)
        return partial(outbox.refused, reply=reply, reason=why, retry=error.retry), True
    except anyio.get_cancelled_exc_class():
        await _settle(db, reply, lost, lease_s, watch)
        raise
    except Exception as error:
        message = retry.described(error)
        logger.warning("%s: %s", reply, message, exc_info=error)
        return partial(outbox.lost, reply=reply, reason=message), False
    except BaseExceptionGroup as mixed:  # trio, as in running_turn._work
        await _settle(db, reply, lost, lease_s, watch)
        await retry.reraise_cancellation(mixed, str(reply))
        return lost, False
    return partial(outbox.sent, reply=reply, receipt=receipt), True


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
    reply: outbox.Outgoing,
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
