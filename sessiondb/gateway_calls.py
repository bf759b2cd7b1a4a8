"""What a gateway calls: accept messages, run lanes, send replies, follow events, start up.

The part of the façade that a gateway's channel adapters and loops use; `SessionDB` inherits it. As everywhere in the
façade, what can be done before a transaction is done before it, and the rules are elsewhere. So are the loops: `lanes`,
`sending` and `following`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel

from . import events, process
from .backend import Backend, ReadTx, Row, Tx
from .clock import now_ms
from .errors import InvalidInput, SessionDBError
from .gateway import dispatcher, inbox, outbox, recovery, retry, turns, worker
from .gateway.consumer import follow_events
from .gateway.dispatcher import Sender
from .gateway.recovery import Decision, Recovered, ResumePolicy
from .gateway.worker import Handler, LaneSettings, Turn
from .limits import LANE_CHARS_MAX, PAGE_ROWS, RESUME_BUDGET_S, SESSION_KEY_CHARS_MAX
from .maintenance import status
from .models import Accepted, DeadLetter, Event, Holding, Reply
from .transcript import reset_policy
from .transcript.entries import is_large
from .transcript.keys import parse_key
from .transcript.registry import new_session_id
from .transcript.reset_policy import ResetPolicy, StaleReason

T = TypeVar("T")


class GatewayCalls:
    """The calls of a gateway. Mixed into `SessionDB`, which brings `read`, `write` and `backend`."""

    _resumed: tuple[
        tuple[float, int], ...
    ] = ()  # when, by a clock that nobody sets, and how many; of the last hour
    _told_of_breaker = False
    _running_turns: dict[int, Turn]
    """The turns whose handlers this object runs, by number."""

    if TYPE_CHECKING:

        @property
        def backend(self) -> Backend: ...

        async def read(self, op: str, fn: Callable[[ReadTx], T]) -> T: ...

        async def write(
            self, op: str, fn: Callable[[Tx], T], *, size: int = 0, timeout_s: float | None = None
        ) -> T: ...

    # -- inbox ----------------------------------------------------------------------------------------------

    async def accept(
        self,
        channel: str,
        event_id: str,
        key: str,
        message: dict[str, Any] | BaseModel | str,
        *,
        lane: str = "main",
        timeout_s: float | None = None,
    ) -> Accepted:
        """Accept a message from a channel. On disk when it returns: acknowledge it to the channel only then.

        The same (channel, event_id) again gets the first receipt, with `duplicate=True`. `key` says which conversation it
        belongs to; its session is created when new. `message` is a dict, a typed message, or JSON text, with a role.

        Raises:
            SessionBusy: too many messages of the session or the lane wait; NACK, and retry after `retry_after_ms`.
            StoreBusy: the database cannot take it now; likewise.
            NotFound: no such lane.
            InvalidInput: not a message, lane `resume`, which is the resume plan's, or a `channel` or `event_id` that is no text; as
                InvalidKey: outside the grammar `agent:<agentId>:<rest>`. The same call never succeeds.
            SessionEnded: the key's session has ended. `unbind` the key, and the next message begins a new session.
            NotExecuted: `timeout_s` passed before the transaction began.
        """
        text = (
            await anyio.to_thread.run_sync(inbox.message_text, message)
            if is_large(message)
            else inbox.message_text(message)
        )
        args: tuple[tuple[str, object], ...] = (
            ("channel", channel),
            ("event_id", event_id),
        )  # some channels have numbers
        for name, value in args:
            if not isinstance(value, str) or not 0 < len(value) <= SESSION_KEY_CHARS_MAX:
                raise InvalidInput(
                    f"{name} is a text of 1 to {SESSION_KEY_CHARS_MAX} characters, not {value!r:.80}"
                )
        incoming = inbox.Incoming(channel, event_id, parse_key(key), lane, text, new_session_id())
        return await self.write(
            "inbox.accept",
            lambda tx: inbox.accept(tx, incoming),
            size=len(text),
            timeout_s=timeout_s,
        )

    async def dead_letters(self, *, limit: int | None = None) -> AsyncIterator[DeadLetter]:
        """Iterate over messages that were given up, newest first; over `limit` at most, and no more than those are read."""
        before_no, left = 2**62, 2**62 if limit is None else limit
        while left > 0:
            size = min(left, PAGE_ROWS)
            page = await self.read(
                "inbox.dead", partial(inbox.dead_letters, before_no=before_no, limit=size)
            )
            for letter in page:
                yield letter
            if len(page) < size:
                return
            before_no, left = page[-1].inbox_no, left - size

    async def requeue(self, inbox_no: int) -> None:
        """Put a dead letter back into its lane (a resume stays one), its attempts forgotten. Durable.

        Raises:
            NotFound: it is not a dead letter, or not any more.
        """
        await self.write("inbox.requeue", lambda tx: inbox.requeue(tx, inbox_no))

    async def drop(self, inbox_no: int) -> None:
        """Give a dead letter up for good; the same event is still known, and not accepted again. Durable.

        Raises:
            NotFound: it is not a dead letter, or not any more.
        """
        await self.write("inbox.drop", lambda tx: inbox.drop(tx, inbox_no))

    # -- turns ----------------------------------------------------------------------------------------------

    async def set_lane(self, lane: str, *, concurrency: int, priority: int) -> None:
        """Make a lane or change it: how many turns at once in all processes; a lower priority number goes first.

        Durable; may be repeated. Turns that run go on.

        Raises:
            InvalidInput: an empty or too long name, a concurrency below 1, or no number.
        """
        numbers: tuple[object, ...] = (concurrency, priority)
        if (
            not 0 < len(lane) <= LANE_CHARS_MAX
            or not all(isinstance(number, int) for number in numbers)
            or concurrency < 1
        ):
            message = f"a lane needs a name of 1 to {LANE_CHARS_MAX} characters, a concurrency of at least 1, and a number as its priority"
            raise InvalidInput(message)
        await self.write(
            "lane.set",
            lambda tx: tx.run(
                "turns.set_lane", lane=lane, concurrency=concurrency, priority=priority
            ),
        )

    async def run_lane(
        self, lane: str, handler: Handler, *, settings: LaneSettings | None = None
    ) -> None:
        """Run a lane until cancelled: claim messages, hand them to `handler`, record what became of them.

        `handler(turn)` returns an `Answer`; its entries, replies and the end of the turn are one transaction. An exception
        is retried, up to a bound; the turn's deadline cuts it off. Several processes may run the same lane.

        Raises:
            NotFound: there is no such lane.
        """
        await worker.run_lane(self, lane, handler, settings or LaneSettings(), self._running_turns)

    async def abort_turn(self, turn_no: int, reason: str) -> None:
        """Stop a turn on a person's behalf; what it still tries to write is refused. Durable.

        Its handler is cancelled: at once if this object runs the lane, else when its lease is renewed next.

        Raises:
            TurnLost: it had ended.
            NotFound: there is no such turn.
        """
        await self.write("turn.abort", lambda tx: turns.abort(tx, turn_no, reason))
        if turn_no in self._running_turns:
            self._running_turns[turn_no].stop()

    async def held(self) -> list[Holding]:
        """List who holds what, since when, until when, and whether the holder lives."""
        rows = await self.read("held", lambda tx: tx.all("recovery.held"))
        return await anyio.to_thread.run_sync(status.holdings, rows)

    # -- outbox ---------------------------------------------------------------------------------------------

    async def run_outbox(self, sender: Sender, *, lease_s: float = 30.0, at_once: int = 8) -> None:
        """Send replies until cancelled: `sender(reply)` calls the channel and returns its receipt, or None.

        Raising `RefusedBySender` says that nothing was sent; any other exception makes the reply `unknown`, because
        nobody can tell; so does a sender that takes longer than `lease_s`. Replies of one session keep their order; those
        of different sessions are sent side by side, `at_once` at most, so that a slow channel does not hold up the others.
        """
        await dispatcher.run_outbox(self, sender, lease_s=lease_s, at_once=at_once)

    async def replies(
        self,
        state: Literal["pending", "sending", "unknown", "failed", "sent"],
        *,
        limit: int | None = None,
    ) -> AsyncIterator[Reply]:
        """Iterate over replies in a state, oldest first; over `limit` at most, and no more than those are read."""
        after_no, left = 0, 2**62 if limit is None else limit
        while left > 0:
            size = min(left, PAGE_ROWS)
            page = await self.read(
                "outbox.list", partial(outbox.replies, state=state, after_no=after_no, limit=size)
            )
            for reply in page:
                yield reply
            if len(page) < size:
                return
            after_no, left = page[-1].outbox_no, left - size

    async def settle_reply(self, outbox_no: int, state: Literal["sent", "pending"]) -> None:
        """Settle an unknown or failed reply by hand: it was sent, or it is to be sent again. Durable.

        Raises:
            NotFound: it is neither unknown nor failed, or not any more.
        """
        await self.write("outbox.decide", lambda tx: outbox.decide(tx, outbox_no, state))

    # -- events ---------------------------------------------------------------------------------------------

    def events(
        self, consumer: str, *, audience: events.Audience | None = None, from_start: bool = False
    ) -> AsyncIterator[Event]:
        """Iterate over events, now and as they come; never ends by itself.

        Delivered after commit, at least once: `consumer` names the reader, whose position is kept in the database and moves
        past an event when the next one is asked for. A new consumer begins now, or with the oldest (`from_start`).

        Raises:
            InvalidInput: the name of a new consumer is empty or too long.
        """
        return follow_events(self, consumer, audience, from_start=from_start)

    async def forward_event(self, event: Event, consumer: str, target: str, message: Any) -> bool:
        """Put an event into the outbox of its session, as a reply that no turn made, and move `consumer` past it. Durable.

        One transaction, so it is done once however many processes follow under that name; False if it had been done. From
        there it is sent like any reply (`run_outbox`).

        Raises:
            InvalidInput: the event is about no session, or the message is no JSON or too large.
        """
        try:
            (target, payload), size = outbox.encoded_reply(target, message)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"event {event.event_no} cannot be passed on to {target!r:.80}: {error}"
            ) from error
        return await self.write(
            "event.forward",
            lambda tx: outbox.forward_event(tx, event, consumer, target, payload),
            size=size,
        )

    # -- start-up -------------------------------------------------------------------------------------------

    async def recover(self) -> Recovered:
        """Give back what dead processes held: turns, compactions, replies under way. Bounded steps; may be repeated.

        A compaction whose deadline is over is ended too, whoever runs it: its owner may be on another host, or have failed to say so.
        """
        total = Recovered()
        for row in await self._dead_instances():
            total = total.plus(await self._release(row.instance_no, recovery.who(row)))
        return total.plus(await self._expire_compactions())

    async def _dead_instances(self) -> list[Row]:
        """Read the processes that never said good-bye, and keep those that the kernel says are dead."""
        dead: list[Row] = []
        after_no = 0
        while True:
            page = await self.read(
                "recover.look", partial(recovery.open_instances, after_no=after_no)
            )
            dead += await anyio.to_thread.run_sync(_dead_of, page)
            if len(page) < recovery.RECOVER_AT_ONCE:
                return dead
            after_no = page[-1].instance_no

    async def _release(self, instance_no: int, who: str) -> Recovered:
        total, done = Recovered(), False
        while not done:
            part, done = await self.write(
                "recover", partial(recovery.release, instance_no=instance_no, who=who, so_far=total)
            )
            total = total.plus(part)
        return total

    async def _expire_compactions(self) -> Recovered:
        total = Recovered()
        while await self.read(
            "recover.overdue", lambda tx: recovery.overdue_compactions(tx, now_ms())
        ):
            part = await self.write("recover.overdue", recovery.expire_compactions)
            if not part.compactions:  # somebody was faster, or the clock was set back meanwhile
                break
            total = total.plus(part)
        return total

    async def plan_resumes(self, policy: ResumePolicy | None = None) -> list[Decision]:
        """Decide which interrupted messages go on, newest first, and say why; changes nothing.

        What dead processes work on is decided about as if `recover` had been called: held, and their ends counted.
        """
        chosen, at_ms = policy or ResumePolicy(), now_ms()
        dead, instance_no = await self._dead_instances(), self.backend.stats()["instance_no"]
        decisions: list[Decision] = []
        before_no = 2**62
        while True:
            ahead = sum(1 for decision in decisions if decision.action == "resume")
            look = partial(
                recovery.plan,
                policy=chosen,
                now_ms=at_ms,
                spent=self._spent(),
                ahead=ahead,
                before_no=before_no,
                instance_no=instance_no,
                dead=dead,
            )
            page = await self.read("recovery.plan", look)
            decisions += page
            if len(page) < recovery.PLAN_AT_ONCE:
                return decisions
            before_no = page[-1].inbox_no

    async def resume(self, policy: ResumePolicy | None = None) -> list[Decision]:
        """Plan, and carry the plan out, a page per transaction; return its decisions. Durable. May be repeated.

        As resumes end there is room for those that were told `later`, and another process may have died meanwhile:
        `run_resumes` calls `recover` and this now and then.
        """
        chosen = policy or ResumePolicy()
        decisions: list[Decision] = []
        before_no, stopped, full = 2**62, False, False
        while True:
            page, resumed = await self.write("resume", self._resuming(chosen, before_no, full=full))
            full = full or any(decision.action == "later" for decision in page)
            decisions += page
            if resumed:
                self._resumed = (*self._resumed, (time.monotonic(), resumed))
            stopped = stopped or any(decision.action == "breaker" for decision in page)
            self._told_of_breaker = self._told_of_breaker or stopped
            if len(page) < recovery.PLAN_AT_ONCE:
                self._told_of_breaker = stopped
                return decisions
            before_no = page[-1].inbox_no

    def _spent(self) -> int:
        """Return how many resumes this process has queued in the last hour; forget those before."""
        since = time.monotonic() - RESUME_BUDGET_S
        self._resumed = tuple((at, count) for at, count in self._resumed if at > since)
        return sum(count for _, count in self._resumed)

    def _resuming(
        self, policy: ResumePolicy, before_no: int, *, full: bool
    ) -> Callable[[Tx], tuple[list[Decision], int]]:
        spent = self._spent()

        def body(tx: Tx) -> tuple[list[Decision], int]:
            decisions = recovery.plan(
                tx,
                policy,
                tx.now_ms,
                spent=spent,
                before_no=before_no,
                full=full,
                instance_no=tx.instance_no,
            )
            return decisions, recovery.apply(
                tx, decisions, policy, tell_breaker=not self._told_of_breaker
            )

        return body

    async def run_resumes(
        self, policy: ResumePolicy | None = None, *, every_s: float = 5.0
    ) -> None:
        """Recover and resume until cancelled: at once, then every `every_s` seconds.

        Writes only while something was interrupted. The resumes themselves are turns of lane `resume`: somebody runs that lane.
        """
        backoff = retry.Backoff("the resumes")
        while True:
            sleep_s = every_s
            try:
                await self.recover()
                if any(decision.action != "later" for decision in await self.plan_resumes(policy)):
                    await self.resume(policy)
                backoff.reset()
            except SessionDBError as error:
                sleep_s = min(every_s, backoff.next_delay(error))
            await anyio.sleep(sleep_s)

    async def reset_if_due(self, key: str, policy: ResetPolicy) -> StaleReason | None:
        """Reset a conversation that has become stale, before a message for it is accepted; return by which rule, or None.

        Writes only when it is due; durable then. May be repeated. A conversation in which a turn runs or messages wait is
        left alone, and so is one in which nothing was said since it began, and a session that has ended.

        Raises:
            InvalidKey: outside the grammar `agent:<agentId>:<rest>`.
        """
        parsed = parse_key(key)
        chosen, at_ms = policy.for_key(parsed), now_ms()
        if (
            await self.read("reset.look", lambda tx: reset_policy.stale(tx, parsed, chosen, at_ms))
            is None
        ):
            return None
        return await self.write(
            "reset.if_due", lambda tx: reset_policy.reset_if_due(tx, parsed, chosen)
        )


def _dead_of(rows: Sequence[Row]) -> list[Row]:
    """Keep the processes that are certainly dead. Reads /proc: not for the event loop's thread."""
    return [
        row
        for row in rows
        if process.is_alive(row.host, row.boot_id, row.pid, row.pid_started) is False
    ]
