"""Inbox, turns, leases and resumes beside a model that is obviously right, on both event loops.

The model is `proofs/models/gateway.py`. A hypothesis state machine accepts new events
and repeated ones, until a session is full. It chooses and claims, completes, fails,
aborts and renews. It lets time pass and takes over expired leases. It lets the process
die and recovers, resumes, requeues and drops, and ends a session. Lanes are paused, dropped,
and made anew, and a drop may be killed in the middle. A candidate may be stale when
it is claimed. Now and then a turn that has lost its session tries to write all the
same. Replies are begun, sent, refused, lost, overdue, settled by hand and sent again,
by senders that may be too late. Two handles are open on the file, and either may take
any step. After every step the states of all messages, turns and replies, every
transcript and every event must equal the model's. At the end `verify` finds nothing.

`make models` runs 1,000 examples of 60 steps for each event loop, and every broken rule.
`test_a_broken_rule_is_noticed` breaks one rule at a time, and expects a failure.
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import sessiondb
from sessiondb import process
from sessiondb.gateway import (
    channels,
    claims,
    dead_letters,
    heard,
    inbox,
    leases,
    outbox,
    recovery,
    stopping,
    turns,
)
from sessiondb.gateway import lanes as lane_rules
from sessiondb.maintenance import verify_inbox
from sessiondb.transcript import context, registry
from sessiondb.transcript.entries import prepare
from tests.proofs.models.gateway import (
    BAN_MS,
    DROPPABLE,
    HEARD_MAX,
    LANES,
    WAITING_MAX,
    Conflict,
    Gateway,
    Message,
    Reply,
    Turn,
    channel_of,
)
from tests.proofs.models.machine import FIRST_FAILURE, LONG, NOTICED, broken, courses, run
from tests.support.core import user
from tests.support.engine import set_clock
from tests.support.gateway import (
    Clock,
    change_statement,
    claim,
    complete,
    fail,
    inbox_states,
    look,
    put_statement,
)

EXAMPLES, STEPS = (1_000, 60) if LONG else (10, 40)
SESSIONS = 3
MOVED_AT_ONCE = 2
LEASE_MS, TIMEOUT_MS = 5_000, 20_000
OPEN_REPLIES = ("pending", "sending")

# What a sender reports.
OUTCOMES = ["sent", "refused", "refused with a time", "refused for good", "lost"]

numbers = st.integers(min_value=0, max_value=1_000_000)
lanes = st.sampled_from(["main", "main", "main", "side", "cron", "resume", "resume"])


class Machine(RuleBasedStateMachine):
    """The database and the model, side by side."""

    loop = "asyncio"

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.patch = pytest.MonkeyPatch()
        set_clock(self.patch, self.clock)
        self.patch.setattr(inbox, "SESSION_WAITING_MAX", WAITING_MAX)
        self.patch.setattr(inbox, "HEARD_WAITING_MAX", HEARD_MAX)
        self.patch.setattr(lane_rules, "MOVED_AT_ONCE", MOVED_AT_ONCE)
        self.folder = tempfile.TemporaryDirectory(prefix="sessiondb-gateway-")
        self.portal_manager = anyio.from_thread.start_blocking_portal(backend=self.loop)
        self.portal = self.portal_manager.__enter__()
        self.model = Gateway()
        self.deaths = 0
        self.db: Any = None
        self.handles: list[Any] = []
        self.chosen: list[tuple[str, Any, Any]] = []
        """Candidates that were read and not claimed yet: lane, candidate, what the model saw."""
        self.sending: list[tuple[Any, outbox.Sending, Reply]] = []
        """Replies that senders believe they are sending: the handle, the reply, the model's."""

    def call(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        async def run() -> Any:
            return await fn(*args, **options)

        return self.portal.call(run)

    def write(self, body: Callable[[Any], Any]) -> Any:
        return self.call(self.db.write, "test", body)

    @initialize()
    def start(self) -> None:
        for _ in range(2):
            self.handles.append(
                sessiondb.open(
                    Path(self.folder.name) / "gateway.db", durability="normal", guard=False
                )
            )
            self.call(self.handles[-1].__aenter__)
        self.db = self.handles[0]
        for lane, (concurrency, priority) in LANES.items():
            self.call(self.db.set_lane, lane, concurrency=concurrency, priority=priority)
        for number in range(SESSIONS):  # so that session numbers are those of the model
            self.call(self.db.session, f"agent:main:web:{number + 1}")

    @rule(which=st.integers(0, 1))
    def change_sides(self, which: int) -> None:
        """Continue with the other handle: another connection, writer and instance."""
        self.db = self.handles[which]

    def some_turn(self, pick: int, *, ended: bool = False) -> Turn:
        of = [turn for turn in self.model.turns if (turn.state != "running") == ended]
        return of[pick % len(of)]

    # -- rules -------------------------------------------------------------------------------

    @rule(pick=numbers, lane=st.sampled_from(["main", "main", "main", "side", "cron"]))
    def accept(self, pick: int, lane: str) -> None:
        event = f"e{len(self.model.messages)}"
        self._accept(event, pick % SESSIONS + 1, lane)

    @rule(picks=st.lists(st.integers(1, SESSIONS), min_size=1, max_size=4), asks=st.booleans())
    def hear(self, picks: list[int], asks: bool) -> None:
        """A group talks among itself, and perhaps somebody asks the agent then."""
        for session in picks:
            self._accept(f"e{len(self.model.messages)}", session, "main", is_heard=True)
        if asks:
            self._accept(f"e{len(self.model.messages)}", picks[-1], "main")
            self._claim("main")

    @rule(pick=numbers)
    @precondition(lambda self: self.model.messages)
    def accept_again(self, pick: int) -> None:
        message = self.model.messages[pick % len(self.model.messages)]
        self._accept(message.event, message.session, message.lane)

    @rule(pick=numbers, session=st.integers(1, SESSIONS), text=st.sampled_from(["", "other"]))
    @precondition(lambda self: self.model.messages)
    def accept_something_else(self, pick: int, session: int, text: str) -> None:
        """A channel numbers its messages per conversation, or gives a number out again."""
        message = self.model.messages[pick % len(self.model.messages)]
        self._accept(message.event, session, message.lane, text or message.text)

    @rule(pick=numbers, version=st.integers(1, 4), changes=st.booleans())
    @precondition(lambda self: self.model.messages)
    def edit(self, pick: int, version: int, changes: bool) -> None:
        """A sender edits a message, in any state, and edits come in any order, and again."""
        message = self.model.messages[pick % len(self.model.messages)]
        self._edit(message, version, f"{message.event} v{version}" if changes else message.text)

    @rule(pick=numbers)
    @precondition(lambda self: self.model.messages)
    def withdraw(self, pick: int) -> None:
        """A sender takes a message back, in any state, and again."""
        message = self.model.messages[pick % len(self.model.messages)]
        found = self.call(self.db.withdraw, "web", message.event)
        assert (found.outcome, found.turn_no) == self.model.withdraw(message)
        assert found.inbox_no == message.number

    @rule(session=st.integers(1, SESSIONS))
    def abort_whatever_runs(self, session: int) -> None:
        """A person stops their conversation, whether or not a turn of it runs."""
        running = self.model.running(session=session)
        for turn in running:
            self.model.abort(turn)
        handle = self.call(self.db.session, f"agent:main:web:{session}")
        assert self.call(handle.abort, "stop") == bool(running)

    @rule(session=st.integers(1, SESSIONS))
    @precondition(lambda self: self.model.running())
    def reset_under_a_turn(self, session: int) -> None:
        """Nobody resets a conversation while its turn runs."""
        if self.model.running(session=session):
            handle = self.call(self.db.session, f"agent:main:web:{session}")
            with pytest.raises(sessiondb.SessionBusy):
                self.call(handle.reset)

    def _edit(self, message: Message, version: int, text: str) -> None:
        call = partial(
            self.call,
            self.db.edit,
            f"agent:main:web:{message.session}",
            user(text),
            channel="web",
            event_id=message.event,
            version=version,
        )
        known = len(self.model.messages)
        wanted, how = self.model.edit(message, message.session, text, version, self.clock())
        if wanted is None:
            with pytest.raises(sessiondb.SessionBusy):
                call()
        elif len(self.model.messages) > known and message.session in self.model.ended:
            self.model.messages.pop()  # it would have waited as a message
            message.edited = 0
            with pytest.raises(sessiondb.SessionEnded):
                call()
        else:
            edited = call()
            assert (edited.inbox_no, edited.duplicate) == (wanted.number, how == "known")
            assert how in ("known", edited.outcome)

    def _accept(
        self, event: str, session: int, lane: str, text: str = "", *, is_heard: bool = False
    ) -> None:
        known = self.model.known(event)
        text = text or (known.text if known is not None else event)
        accept = partial(
            self.call,
            self.db.accept,
            f"agent:main:web:{session}",
            user(text),
            channel="web",
            event_id=event,
            lane=lane,
            answer=not is_heard,
        )
        if lane in self.model.dropped and known is None:
            with pytest.raises(sessiondb.NotFound):
                accept()
            return
        if session in self.model.ended and known is None:
            with pytest.raises(sessiondb.SessionEnded):
                accept()
            return
        try:
            message, duplicate = self.model.accept(
                event, session, lane, self.clock(), text, is_heard=is_heard
            )
        except Conflict:
            with pytest.raises(sessiondb.IdentityConflict):
                accept()
            return
        if message is None:
            with pytest.raises(sessiondb.SessionBusy) as busy:
                accept()
            assert busy.value.retry_after_ms > 0
            return
        accepted = accept()
        assert (accepted.inbox_no, accepted.duplicate, accepted.state) == (
            message.number,
            duplicate,
            message.state,
        )

    @rule(lane=lanes)
    def claim(self, lane: str) -> None:
        self._claim(lane)

    @rule(lane=lanes)
    def choose(self, lane: str) -> None:
        self._choose(lane)

    def _choose(self, lane: str) -> None:
        wanted = self.model.next(lane, self.clock())
        candidate = self.call(self.db.read, "peek", lambda tx: claims.peek(tx, lane, self.clock()))
        assert (candidate and candidate.inbox_no) == (wanted and wanted.number)
        if candidate is not None:
            self.chosen.append((lane, candidate, self.model.seen(wanted)))

    @rule(pick=numbers)
    @precondition(lambda self: self.chosen)
    def claim_what_was_chosen(self, pick: int) -> None:
        self._claim_chosen(pick % len(self.chosen))

    def _claim(self, lane: str) -> None:
        known = len(self.chosen)
        self._choose(lane)
        if len(self.chosen) > known:
            self._claim_chosen(known)

    def _claim_chosen(self, index: int) -> None:
        lane, candidate, seen = self.chosen.pop(index)
        wanted = self.model.claim(lane, seen, self.clock(), LEASE_MS, TIMEOUT_MS)
        draft = self.call(prepare, candidate.payload, now_ms=self.clock())
        in_front = self.call(heard.prepare_all, candidate.heard, now_ms=self.clock())
        started = self.write(
            lambda tx: claims.claim(
                tx, lane, candidate, draft, in_front, lease_ms=LEASE_MS, timeout_ms=TIMEOUT_MS
            )
        )
        assert (started is None) == (wanted is None)
        if wanted is not None:
            found = (
                started.turn_no,
                started.inbox_no,
                started.kind,
                started.attempt,
                started.expires_at_ms,
                started.deadline_ms,
                started.progress_ms,
            )
            assert found == (
                wanted.number,
                wanted.message.number,
                wanted.kind,
                wanted.attempt,
                wanted.expires_ms,
                wanted.deadline_ms,
                wanted.progress_ms,
            )

    @rule(picks=st.lists(st.integers(1, SESSIONS), min_size=1, max_size=4))
    def work(self, picks: list[int]) -> None:
        """Messages arrive, and every lane takes what it may."""
        for session in picks:
            self._accept(f"e{len(self.model.messages)}", session, "main")
        for lane in LANES:
            self._claim(lane)
            self._claim(lane)

    # -- lanes -------------------------------------------------------------------------------

    @rule(lane=lanes)
    def pause_lane(self, lane: str) -> None:
        self._pause(lane, "pause_lane", self.model.paused.add, was=False)

    @rule(lane=lanes)
    @precondition(lambda self: self.model.paused)
    def resume_lane(self, lane: str) -> None:
        self._pause(lane, "resume_lane", self.model.paused.discard, was=True)

    @rule(lane=st.sampled_from(["main", "side"]))
    def pause_a_lane_in_use(self, lane: str) -> None:
        """A message is to be resumed, and another waits, when somebody pauses their lane."""
        self._accept(f"e{len(self.model.messages)}", 1, lane)
        self._claim(lane)
        if self.model.running(session=1):
            self._crash()
            self._resume(at_once=2, age_s=10_000, deadline_s=3)
        self._accept(f"e{len(self.model.messages)}", 2, lane)
        self._pause(lane, "pause_lane", self.model.paused.add, was=False)
        self._accept(f"e{len(self.model.messages)}", 3, "cron")
        for other in ("cron", "resume", lane):
            self._claim(other)

    @rule(into=st.sampled_from(["main", "side"]))
    def drop_a_lane_in_use(self, into: str) -> None:
        """One of its messages has its turn, and another waits, when somebody drops a lane."""
        self._accept(f"e{len(self.model.messages)}", 1, "cron")
        self._claim("cron")
        self._accept(f"e{len(self.model.messages)}", 2, "cron")
        self._accept(f"e{len(self.model.messages)}", 2, "side")
        self._drop("cron", into)
        for turn in self.model.running(session=1):
            self._end(turn, "fail")

    def _pause(self, lane: str, name: str, change: Callable[[str], None], *, was: bool) -> None:
        call = partial(self.call, getattr(self.db, name), lane)
        if lane in self.model.dropped:
            with pytest.raises(sessiondb.NotFound):
                call()
            return
        assert call() == ((lane in self.model.paused) == was)
        change(lane)

    @rule(
        lane=st.sampled_from(DROPPABLE),
        into=st.sampled_from([None, "main", *DROPPABLE]),
        killed=st.booleans(),
    )
    def drop_lane(self, lane: str, into: str | None, killed: bool) -> None:
        """Somebody drops a lane, and may die after the first step."""
        if killed and into is not None and not {lane, into} & self.model.dropped and lane != into:
            self._drop_in_part(lane, into)
        else:
            self._drop(lane, into)

    def _drop(self, lane: str, into: str | None) -> None:
        outcome = self.model.drop_lane(lane, into)
        call = partial(self.call, self.db.drop_lane, lane, into=into)
        if outcome == "dropped":
            call()
        else:
            error = sessiondb.NotFound if outcome == "no such lane" else sessiondb.InvalidInput
            with pytest.raises(error):
                call()

    def _drop_in_part(self, lane: str, into: str) -> None:
        """Take one step of a drop. Whichever messages it moves, it moves so many."""
        left = self.model.open_in(lane)
        ended = self.write(lambda tx: lane_rules.drop(tx, lane, into))
        rows = {row.inbox_no: row for row in self.call(look, self.db, "inbox")}
        moved = [
            message
            for message in left
            if (rows[message.number].lane_before or rows[message.number].lane) == into
        ]
        assert len(moved) == min(MOVED_AT_ONCE, len(left))
        for message in moved:
            self.model.move(message, into)
        assert ended == (len(left) < MOVED_AT_ONCE)
        if ended:
            assert self.model.drop_lane(lane, into) == "dropped"

    @rule(lane=st.sampled_from(DROPPABLE))
    @precondition(lambda self: self.model.dropped)
    def make_lane_anew(self, lane: str) -> None:
        concurrency, priority = LANES[lane]
        self.call(self.db.set_lane, lane, concurrency=concurrency, priority=priority)
        self.model.dropped.discard(lane)

    @rule(
        pick=numbers,
        how=st.sampled_from(
            [
                "complete",
                "complete",
                "incomplete",
                "fail",
                "fail",
                "fail for good",
                "abort",
                "renew",
            ]
        ),
    )
    @precondition(lambda self: self.model.running())
    def go_on(self, pick: int, how: str) -> None:
        """A turn ends or is renewed. Then the lanes continue."""
        self._end(self.some_turn(pick), how)

    def _end(self, turn: Turn, how: str) -> None:
        if how in ("complete", "incomplete"):
            self._complete(turn, incomplete=how == "incomplete")
        elif how == "abort":
            self.model.abort(turn)
            self.call(self.db.abort_turn, turn.number, "stop")
        elif how == "renew":
            self.model.renew(turn, self.clock(), LEASE_MS)
            until = self.write(
                lambda tx: leases.renew(tx, turn.number, lease_ms=LEASE_MS, operation=None)
            )
            assert until == turn.expires_ms
        else:
            self.model.fail(turn, self.clock(), retry=how == "fail")
            self.call(fail, self.db, turn.number, retry=how == "fail")

    @rule(pick=numbers, what=st.sampled_from(["complete", "fail", "renew", "append"]))
    @precondition(lambda self: any(turn.state != "running" for turn in self.model.turns))
    def write_too_late(self, pick: int, what: str) -> None:
        """A holder that was taken over wakes up. The invariant sees that nothing has changed."""
        number = self.some_turn(pick, ended=True).number
        late: dict[str, Callable[[], Any]] = {
            "complete": lambda: self.call(
                complete, self.db, number, "late", replies=[("web", "late")]
            ),
            "fail": lambda: self.call(fail, self.db, number),
            "renew": lambda: self.write(
                lambda tx: leases.renew(tx, number, lease_ms=LEASE_MS, operation=None)
            ),
            "append": lambda: self.write(lambda tx: turns.append(tx, number, [])),
        }
        with pytest.raises(sessiondb.TurnLost):
            late[what]()

    @rule(session=st.integers(1, SESSIONS), and_then=st.sampled_from(["", "a newer message"]))
    def die_when_all_is_quiet(self, session: int, and_then: str) -> None:
        """Answer all that waits. Then accept one more, whose process dies, and resume it."""
        self.clock.pass_ms(60_000)
        while True:
            for turn in self.model.running():
                self._complete(turn)
            for lane in LANES:
                self._claim(lane)
            if not self.model.running():
                break
        self._accept(f"e{len(self.model.messages)}", session, "main")
        self._claim("main")
        if not self.model.running():
            return  # its session has ended
        self._crash()
        self._resume(at_once=2, age_s=10_000, deadline_s=3)
        if and_then:
            self._accept(f"e{len(self.model.messages)}", session, "main")
            self._claim("main")
        self._claim("resume")

    @rule(
        session=st.integers(1, SESSIONS),
        lane=st.sampled_from(["main", "cron"]),
        how=st.sampled_from(["complete", "incomplete", "fail", "abort"]),
    )
    def be_interrupted_and_go_on(self, session: int, lane: str, how: str) -> None:
        """A person's message is interrupted. Then another one of its session has its turn."""
        self._accept(f"e{len(self.model.messages)}", session, "main")
        self._claim("main")
        if self.model.running(session=session):
            self._crash()
            self._accept(f"e{len(self.model.messages)}", session, lane)
            self._claim(lane)
            for turn in self.model.running(session=session):
                self._end(turn, how)

    def _complete(self, turn: Turn, *, incomplete: bool = False) -> None:
        message = f"re {turn.message.event}"
        self.model.complete(turn, f'"{message}"', self.clock(), incomplete=incomplete)
        self.call(
            complete,
            self.db,
            turn.number,
            message,
            replies=[(f"{channel_of(turn.message.session)}:1", message)],
            incomplete="no answer" if incomplete else None,
        )

    # -- replies -----------------------------------------------------------------------------

    @rule()
    @precondition(lambda self: any(reply.state == "pending" for reply in self.model.replies))
    def begin_sending(self) -> None:
        self._begin_sending()

    def _begin_sending(self) -> None:
        wanted = self.model.begin_sending(self.clock(), LEASE_MS)
        begun = self.write(lambda tx: outbox.begin_sending(tx, lease_ms=LEASE_MS))
        assert (begun and (begun.outbox_no, begun.attempts)) == (
            wanted and (wanted.number, wanted.attempts)
        )
        if begun is not None and wanted is not None:
            self.sending.append((self.db, begun, wanted))

    @rule(
        session=st.integers(1, SESSIONS),
        how=st.sampled_from([*OUTCOMES, "too late"]),
    )
    @precondition(lambda self: not self.model.ended)
    def answer_and_send(self, session: int, how: str) -> None:
        """A message is answered, and a sender takes the oldest reply that waits."""
        self._accept(f"e{len(self.model.messages)}", session, "main")
        self._claim("main")
        for turn in self.model.running():
            self._complete(turn)
        known = len(self.sending)
        self._begin_sending()
        if len(self.sending) == known:
            return
        if how == "too late":
            # It is given up, and an operator has it sent again, before the first sender
            # reports.
            reply = self.sending[known][2]
            self._give_up_overdue(LEASE_MS + 2_000)
            self._settle_by_hand(reply, "pending")
            self._begin_sending()
            how = "sent"
        self._settle(known, how)

    @rule(pick=numbers, how=st.sampled_from(["sent", *OUTCOMES]))
    @precondition(lambda self: self.sending)
    def settle(self, pick: int, how: str) -> None:
        """A sender reports its outcome.

        By now the reply may have been given up, settled, or taken by another sender.
        """
        self._settle(pick % len(self.sending), how)

    def _settle(self, index: int, how: str) -> None:
        handle, begun, reply = self.sending.pop(index)
        wanted = self.model.settle(reply, begun.attempts, how, self.clock())
        ends: dict[str, Callable[[Any], bool]] = {
            "sent": lambda tx: outbox.sent(tx, begun, "a receipt"),
            "refused": lambda tx: outbox.refused(tx, begun, "busy", retry=True),
            "refused with a time": lambda tx: outbox.refused(
                tx, begun, "429", retry=True, retry_after_ms=BAN_MS
            ),
            "refused for good": lambda tx: outbox.refused(tx, begun, "never", retry=False),
            "lost": lambda tx: outbox.lost(tx, begun, "no answer"),
        }
        assert self.call(handle.write, "test", ends[how]) == wanted

    @rule(ms=st.sampled_from([0, LEASE_MS + 2_000]))
    @precondition(lambda self: any(reply.state == "sending" for reply in self.model.replies))
    def give_up_overdue(self, ms: int) -> None:
        self._give_up_overdue(ms)

    def _give_up_overdue(self, ms: int) -> None:
        self.clock.pass_ms(ms)
        assert self.write(outbox.give_up_overdue) == self.model.give_up_overdue(self.clock())

    @rule(pick=numbers, state=st.sampled_from(["sent", "pending"]))
    @precondition(lambda self: self.model.replies)
    def settle_by_hand(self, pick: int, state: Any) -> None:
        self._settle_by_hand(self.model.replies[pick % len(self.model.replies)], state)

    def _settle_by_hand(self, reply: Reply, state: Any) -> None:
        if self.model.decide(reply, state, self.clock()):
            self.call(self.db.settle_reply, reply.number, state)
        else:
            with pytest.raises(sessiondb.NotFound):
                self.call(self.db.settle_reply, reply.number, state)

    @rule(ms=st.sampled_from([500, 1_000, 2_000, 4_900, 20_000, 3_600_000, -2_000, -40_000]))
    def time_passes(self, ms: int) -> None:
        """Let it pass, or have somebody set the clock back."""
        self.clock.pass_ms(ms)

    @precondition(lambda self: self.model.running())
    @rule(ms=st.sampled_from([0, 0, 4_900, 5_000, 22_000]))
    def take_over(self, ms: int) -> None:
        self.clock.pass_ms(ms)
        wanted = self.model.take_over(self.clock())
        assert self.write(lambda tx: leases.take_over_expired(tx)) == wanted

    @rule()
    @precondition(lambda self: self.model.running())
    def crash(self) -> None:
        self._crash()

    def _crash(self) -> None:
        """Make a dead process the holder of everything that runs, and recover."""
        lost = self.model.crash()
        me = process.identity()

        def die(tx: Any) -> None:
            row = tx.one(
                "look.dead_process",
                host=me.host,
                boot_id="another boot",
                now_ms=0,
                closed_at_ms=None,
                unclean=0,
            )
            for turn in tx.all("look.turns"):
                if turn.state == "running":
                    tx.run("look.move_turn", turn_no=turn.turn_no, instance_no=row.instance_no)

        self.write(die)
        assert self.call(self.db.recover) == sessiondb.Recovered(instances=1, turns=lost)
        assert self.call(self.db.recover) == sessiondb.Recovered(), (
            "a second time there is nothing to do"
        )

    @precondition(
        lambda self: any(message.state == "interrupted" for message in self.model.messages)
    )
    @rule(
        at_once=st.integers(0, 2),
        age_s=st.sampled_from([10, 10_000]),
        deadline_s=st.sampled_from([3, 100]),
    )
    def resume(self, at_once: int, age_s: int, deadline_s: int) -> None:
        self._resume(at_once=at_once, age_s=age_s, deadline_s=deadline_s)
        self._claim("resume")

    def _resume(self, *, at_once: int, age_s: int, deadline_s: int) -> None:
        policy = sessiondb.ResumePolicy(
            max_concurrent_resumes=at_once,
            max_age_hours=age_s / 3600,
            deadline_s=deadline_s,
            budget_per_start=1_000_000,
        )
        wanted = self.model.resume(
            self.clock(), at_once=at_once, max_age_ms=age_s * 1000, deadline_ms=deadline_s * 1000
        )
        found = self.call(self.db.resume, policy)
        assert [(decision.inbox_no, decision.action) for decision in found] == wanted

    @rule(pick=numbers, drop=st.booleans())
    @precondition(lambda self: any(message.state == "dead" for message in self.model.messages))
    def decide(self, pick: int, drop: bool) -> None:
        dead = [message for message in self.model.messages if message.state == "dead"]
        message: Message = dead[pick % len(dead)]
        if drop:
            self.model.drop(message)
            self.call(self.db.drop, message.number)
        elif message.session in self.model.ended:
            with pytest.raises(sessiondb.SessionEnded):
                self.call(self.db.requeue, message.number)
        else:
            self.model.requeue(message, self.clock())
            self.call(self.db.requeue, message.number)

    @rule(sure=st.integers(0, 9))
    @precondition(lambda self: not self.model.ended and not self.model.running(session=3))
    def end(self, sure: int) -> None:
        if sure == 0:
            self.write(lambda tx: registry.end(tx, 3))
            self.model.ended.add(3)

    # -- the comparison ----------------------------------------------------------------------

    @invariant()
    def both_agree(self) -> None:
        if self.db is not None:
            self.call(self._compare)

    async def _compare(self) -> None:
        model = self.model
        assert await inbox_states(self.db) == {
            message.event: message.state for message in model.messages
        }
        found = [
            (
                row.attempts,
                row.turn_no,
                row.lane,
                row.lane_before or row.lane,
                row.available_at_ms,
                row.queued_at_ms,
                row.superseded_by,
            )
            for row in await look(self.db, "inbox")
        ]
        assert found == [
            (
                message.attempts,
                message.turn,
                message.lane,
                message.lane_accepted,
                message.available_ms,
                message.queued_ms,
                message.superseded_by,
            )
            for message in model.messages
        ]
        marked = {row.event_id for row in await look(self.db, "inbox") if row.waits}
        queued = [message for message in model.messages if message.state == "queued"]
        assert marked & {message.event for message in queued} == {
            message.event
            for message in queued
            if message.lane != "resume" and model.waits_behind(message)
        }
        rows = await look(self.db, "turns")
        assert [
            (row.state, row.inbox_no, bool(row.incomplete), row.expires_at_ms) for row in rows
        ] == [
            (turn.state, turn.message.number, turn.incomplete, turn.expires_ms)
            for turn in model.turns
        ]
        assert [bool(row.told_no) for row in await look(self.db, "inbox")] == [
            message.is_told for message in model.messages
        ]
        said: dict[int, list[int]] = {}
        for row in await look(self.db, "user_entries"):
            found = re.fullmatch(r"inbox:(\d+)(:\d+)?", row.idempotency_key)
            assert found is not None, "it was appended with another key"
            number = int(found[1])
            content = json.loads(row.payload)["message"]["content"]
            assert content == model.messages[number - 1].text
            said.setdefault(row.session_no, []).append(number)
        assert said == model.said
        found = [
            (row.session_no, row.payload, row.state, row.attempts, row.available_at_ms)
            for row in await look(self.db, "outbox")
        ]
        assert found == [
            (reply.session, reply.payload, reply.state, reply.attempts, reply.available_ms)
            for reply in model.replies
        ]
        assert [tuple(row) for row in await look(self.db, "pauses")] == sorted(
            (channel, pause.pauses, pause.until_ms) for channel, pause in model.pauses.items()
        )
        open_ones = [row for row in await look(self.db, "outbox") if row.state in OPEN_REPLIES]
        for row in open_ones:
            is_behind = any(
                other.session_no == row.session_no and other.outbox_no < row.outbox_no
                for other in open_ones
            )
            assert row.state == "sending" or bool(row.waits) == is_behind
        assert [row.kind for row in await look(self.db, "events")] == model.events
        await self._nobody_waits_in_vain()

    async def _nobody_waits_in_vain(self) -> None:
        """Let `verify` judge each message: it is open, answered, or its sender was told."""
        found: list[str] = []

        def judge(tx: Any) -> None:
            for step in verify_inbox.walk(lambda check, session_id, what: found.append(what)):
                step(tx)

        await self.db.read("verify", judge)
        assert found == []

    def let_all_end(self) -> None:
        """Run every lane, as often as it takes. No message may be left that never ends."""
        for lane in self.model.paused:
            self.call(self.db.resume_lane, lane)
        for _ in range(20 * len(self.model.messages) + 20):
            self.clock.pass_ms(61_000)
            self.call(self.db.write, "test", leases.take_over_expired)
            self.call(self.db.resume, sessiondb.ResumePolicy(budget_per_start=10**6))
            for lane in LANES:
                started = self.call(claim, self.db, lane)
                if started is not None:
                    self.call(complete, self.db, started.turn_no, "at last")
            if set(self.call(inbox_states, self.db).values()) <= {"done", "dead", "heard"}:
                return
        left = self.call(inbox_states, self.db)
        raise AssertionError(f"messages wait for ever: {left}")

    def teardown(self) -> None:
        try:
            if self.db is not None:
                self.let_all_end()
                report = self.call(self.db.verify)
                assert report.findings == (), report.findings
        finally:
            for handle in self.handles:
                self.call(handle.close)
            self.portal_manager.__exit__(None, None, None)
            self.folder.cleanup()
            self.patch.undo()


@pytest.mark.slow
def test_the_gateways_tables_do_what_the_model_does(anyio_backend: str) -> None:
    run(
        Machine,
        anyio_backend,
        max_examples=courses(EXAMPLES, anyio_backend),
        stateful_step_count=STEPS,
    )


# -- teeth ----------------------------------------------------------------------------------


def _fence_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        turns, "require_running", lambda tx, turn_no: tx.one("turns.get", turn_no=turn_no)
    )


def _message_appended_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(context, "is_last_user_message", lambda tx, session_no, entry_no: False)


def _question_stays_buried(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(context, "is_last_user_message", lambda tx, session_no, entry_no: True)


def _supersedes_without_an_answer(patch: pytest.MonkeyPatch) -> None:
    complete = turns.complete

    def as_answered(tx: Any, turn_no: int, *args: Any, **options: Any) -> Any:
        turn = tx.one("turns.get", turn_no=turn_no)
        ended = complete(tx, turn_no, *args, **options)
        turns._supersede(tx, turn, "anyway")
        return ended

    patch.setattr(turns, "complete", as_answered)


def _interrupted_message_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(turns, "INTERRUPTED_ATTEMPTS_MAX", 1)


def _take_over_too_early(patch: pytest.MonkeyPatch) -> None:
    class Later:
        def __init__(self, tx: Any) -> None:
            self._tx = tx
            self.now_ms = tx.now_ms + 1_000_000

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

    take_over = leases.take_over_expired
    patch.setattr(leases, "take_over_expired", lambda tx: take_over(Later(tx)))


def _resumes_without_a_limit(patch: pytest.MonkeyPatch) -> None:
    decide = recovery._decide

    def unlimited(*args: Any, room: int, **options: Any) -> Any:
        return decide(*args, room=9, **options)

    patch.setattr(recovery, "_decide", unlimited)


def _stale_candidate_is_claimed(patch: pytest.MonkeyPatch) -> None:
    choose = claims._choose

    def same(tx: Any, lane: str, now_ms: int) -> Any:
        """The transaction of a claim compares nothing: it takes the candidate as it is."""
        found = choose(tx, lane, now_ms)
        if found is None or not hasattr(tx, "run"):
            return found
        return found._replace(inbox_no=_AnyNumber(found.inbox_no), digest=_AnyDigest())

    patch.setattr(claims, "_choose", same)


def _text_before_an_edit_is_claimed(patch: pytest.MonkeyPatch) -> None:
    choose = claims._choose

    def any_text(tx: Any, lane: str, now_ms: int) -> Any:
        """The transaction of a claim looks at the number only."""
        found = choose(tx, lane, now_ms)
        if found is None or not hasattr(tx, "run"):
            return found
        return found._replace(digest=_AnyDigest())

    patch.setattr(claims, "_choose", any_text)


class _AnyNumber(int):
    """A number that equals every number it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class _AnyDigest:
    """The digest of every text."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


def _late_sender_has_the_last_word(patch: pytest.MonkeyPatch) -> None:
    settle = outbox._settle

    def last_word(tx: Any, reply: outbox.Sending, state: str, **how: Any) -> bool:
        row = tx.first("look.reply", outbox_no=reply.outbox_no)
        return settle(tx, replace(reply, attempts=row.attempts), state, **how)

    patch.setattr(outbox, "_settle", last_word)


def _unknown_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox, "lost", lambda tx, reply, reason: outbox.release(tx, reply, reason))


def _session_is_never_full(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inbox, "_refuse_when_full", lambda tx, ref, incoming: 0)


def _chatter_comes_too_late(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "inbox.heard", "AND inbox_no < :before_no", "AND :before_no > 2e9")


def _heartbeat_supersedes(patch: pytest.MonkeyPatch) -> None:
    put_statement(
        patch,
        "inbox.of_turn",
        "SELECT 1 AS is_persons, e.entry_no, e.boundary_no FROM inbox AS i "
        "JOIN entry AS e ON e.entry_no = i.entry_no WHERE i.inbox_no = :inbox_no",
    )


def _superseded_in_silence(patch: pytest.MonkeyPatch) -> None:
    def silent(tx: Any, turn: Any, inbox_no: int, text: str) -> None:
        tx.run(
            "inbox.supersede",
            inbox_no=inbox_no,
            superseded_by=turn.inbox_no,
            told_no=0,
            reason=text,
        )

    patch.setattr(turns, "_supersede_one", silent)


def _dead_in_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dead_letters, "notify_dead", lambda tx, inbox_no, session_no: 0)


def _other_conversation_is_a_duplicate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inbox, "_refuse_other_conversation", lambda known, incoming: None)


def _other_text_is_a_duplicate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inbox, "_refuse_other_text", lambda known, incoming: None)


def _late_edit_wins(patch: pytest.MonkeyPatch) -> None:
    edit, versions = inbox.edit, itertools.count(1_000)
    patch.setattr(inbox, "edit", lambda tx, incoming, _: edit(tx, incoming, next(versions)))


def _edit_changes_what_was_read(patch: pytest.MonkeyPatch) -> None:
    put_statement(
        patch,
        "inbox.replace_text",
        "UPDATE inbox SET payload = :payload, digest = :digest WHERE inbox_no = :inbox_no",
    )


def _every_older_message_goes_first(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "inbox.next", "AND before.priority <= own.priority", "")


def _accepted_messages_wait_for_the_clock(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "inbox.accept", "'queued', :now_ms, 0,", "'queued', :now_ms, :now_ms,")


def _replies_wait_for_the_clock(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "outbox.add", "END, :now_ms, 0,", "END, :now_ms, :now_ms,")


def _a_ban_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Each reply waits for its own pause, and calls into the ban."""
    refused = outbox.refused

    def by_itself(*args: Any, retry_after_ms: int | None = None, **how: Any) -> bool:
        return refused(*args, **how)

    patch.setattr(outbox, "refused", by_itself)


def _a_ban_is_everybodys(patch: pytest.MonkeyPatch) -> None:
    def closed(pauses: Any, full: Any = ()) -> str:
        return json.dumps(["web", "telegram"] if pauses else [*full])

    patch.setattr(channels, "closed", closed)


def _a_call_that_began_before_it_ends_a_ban(patch: pytest.MonkeyPatch) -> None:
    change_statement(
        patch,
        "channels.forget",
        "AND (begun_at_ms > :now_ms OR until_ms <= :now_ms)",
        "AND :now_ms = :now_ms",
    )


def _nobody_is_called_up(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "inbox.line_up", "first.waits <> (", "0 AND first.waits <> (")


def _nobody_lines_up(patch: pytest.MonkeyPatch) -> None:
    change_statement(
        patch, "inbox.accept", "EXISTS (SELECT 1 FROM turn", "0 AND EXISTS (SELECT 1 FROM turn"
    )


def _requeued_goes_before_those_that_are_not_marked(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "inbox.wait_behind", "AND waits = 0", "AND waits = 2")


def _no_reply_is_called_up(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "outbox.line_up", "WHERE place.waits <> place.is_behind", "WHERE 0")


def _no_reply_lines_up(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "outbox.add", "EXISTS (", "0 AND EXISTS (")


def _limits_count_all_lanes(patch: pytest.MonkeyPatch) -> None:
    lane = "AND coalesce(lane_before, lane) = :lane"
    change_statement(patch, "inbox.waiting_in_session", lane, "")


def _a_resume_has_a_minute_in_all(patch: pytest.MonkeyPatch) -> None:
    claim = claims.claim

    def as_before(tx: Any, lane: str, candidate: Any, *args: Any, **times: int) -> Any:
        if lane == "resume":
            times["timeout_ms"] = candidate.timeout_ms
        return claim(tx, lane, candidate, *args, **times)

    patch.setattr(claims, "claim", as_before)


def _a_resume_has_no_minute(patch: pytest.MonkeyPatch) -> None:
    claim = claims.claim

    def without(*args: Any, **times: int) -> Any:
        started = claim(*args, **times)
        return started and replace(started, progress_ms=None)

    patch.setattr(claims, "claim", without)


def _only_its_own_lane_takes_over(patch: pytest.MonkeyPatch) -> None:
    running = "state = 'running'"
    change_statement(patch, "turns.expired", running, f"{running} AND lane = 'main'")


def _taken_back_in_silence(patch: pytest.MonkeyPatch) -> None:
    told = "told_no = :told_no"
    change_statement(patch, "stopping.withdraw", told, "told_no = nullif(:told_no, :told_no)")


def _an_edit_stays_when_its_message_goes(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "stopping.texts", "edit_of = :inbox_no", "edit_of = -:inbox_no")


def _a_conversation_is_reset_under_its_turn(patch: pytest.MonkeyPatch) -> None:
    end_running = stopping.end_running

    def lenient(tx: Any, session_no: int, *, reason: str | None, **own: Any) -> Any:
        return end_running(tx, session_no, reason=reason, **own) if reason else None

    patch.setattr(stopping, "end_running", lenient)


def _a_paused_lane_is_claimed_from(patch: pytest.MonkeyPatch) -> None:
    find_lane = lane_rules.find_lane

    def as_running(tx: Any, lane: str) -> Any:
        found = find_lane(tx, lane)
        return found and found._replace(paused_at_ms=None)

    patch.setattr(claims, "find_lane", as_running)
    change_statement(patch, "inbox.next", "AND own.paused_at_ms IS NULL", "")


def _what_a_paused_lane_accepted_is_resumed(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "inbox.next", "AND own.paused_at_ms IS NULL", "")


def _a_paused_lane_takes_the_room_of_resumes(patch: pytest.MonkeyPatch) -> None:
    change_statement(
        patch, "inbox.running_resumes", "l.paused_at_ms IS NOT NULL", "l.paused_at_ms < 0"
    )


def _a_paused_lane_holds_back_the_others(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "turns.lanes_before", "AND l.paused_at_ms IS NULL", "")
    change_statement(patch, "inbox.next", "AND own.paused_at_ms IS NULL", "")


def _a_drop_leaves_what_runs(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "turns.open_in_lane", "c.state = 'claimed'", "c.state = 'queued'")


def _a_drop_moves_nothing_behind_what_waits(patch: pytest.MonkeyPatch) -> None:
    change_statement(patch, "inbox.line_up_all", "WHERE state = 'queued'", "WHERE 0")


# Among all rules it may take hundreds of examples until the few that show the defect come in a
# row. So these machines have no other.
ENOUGH_RULES = {
    _late_sender_has_the_last_word: ("answer_and_send", "begin_sending", "settle"),
    _a_ban_is_ignored: ("answer_and_send", "begin_sending", "settle"),
    _a_ban_is_everybodys: ("answer_and_send", "begin_sending", "settle"),
    _a_call_that_began_before_it_ends_a_ban: ("answer_and_send", "begin_sending", "settle", "work"),
    _resumes_without_a_limit: ("work", "crash", "resume"),
    _heartbeat_supersedes: ("be_interrupted_and_go_on",),
    _supersedes_without_an_answer: ("be_interrupted_and_go_on",),
    _superseded_in_silence: ("be_interrupted_and_go_on",),
    _every_older_message_goes_first: ("accept", "claim"),
    _limits_count_all_lanes: ("accept", "claim"),
    _a_resume_has_a_minute_in_all: ("die_when_all_is_quiet",),
    _a_resume_has_no_minute: ("die_when_all_is_quiet",),
    _stale_candidate_is_claimed: ("accept", "choose", "claim", "claim_what_was_chosen", "go_on"),
    _text_before_an_edit_is_claimed: ("accept", "choose", "edit", "claim_what_was_chosen"),
    _a_paused_lane_is_claimed_from: ("pause_a_lane_in_use", "resume_lane"),
    _what_a_paused_lane_accepted_is_resumed: ("pause_a_lane_in_use", "resume_lane"),
    _a_paused_lane_takes_the_room_of_resumes: ("pause_a_lane_in_use", "resume_lane", "crash"),
    _a_paused_lane_holds_back_the_others: ("pause_a_lane_in_use", "resume_lane"),
    _a_drop_leaves_what_runs: ("drop_a_lane_in_use", "make_lane_anew"),
    _a_drop_moves_nothing_behind_what_waits: ("drop_a_lane_in_use", "make_lane_anew"),
}


RARE = {
    _fence_forgotten,
    _message_appended_again,
    _question_stays_buried,
    _unknown_is_sent_again,
    _heartbeat_supersedes,
    _dead_in_silence,
    _a_paused_lane_takes_the_room_of_resumes,
    _resumes_without_a_limit,
    _take_over_too_early,
    _stale_candidate_is_claimed,
    _text_before_an_edit_is_claimed,
    _late_sender_has_the_last_word,
    _session_is_never_full,
    _chatter_comes_too_late,
    _other_conversation_is_a_duplicate,
    _other_text_is_a_duplicate,
    _late_edit_wins,
    _edit_changes_what_was_read,
    _every_older_message_goes_first,
    _a_ban_is_ignored,
    _a_ban_is_everybodys,
    _a_call_that_began_before_it_ends_a_ban,
    _nobody_is_called_up,
    _nobody_lines_up,
    _requeued_goes_before_those_that_are_not_marked,
    _no_reply_is_called_up,
    _no_reply_lines_up,
    _limits_count_all_lanes,
    _only_its_own_lane_takes_over,
    _taken_back_in_silence,
    _an_edit_stays_when_its_message_goes,
}


@pytest.mark.slow
@broken(
    [
        _fence_forgotten,
        _message_appended_again,
        _question_stays_buried,
        _supersedes_without_an_answer,
        _interrupted_message_is_lost,
        _take_over_too_early,
        _resumes_without_a_limit,
        _stale_candidate_is_claimed,
        _text_before_an_edit_is_claimed,
        _late_sender_has_the_last_word,
        _unknown_is_sent_again,
        _session_is_never_full,
        _chatter_comes_too_late,
        _heartbeat_supersedes,
        _superseded_in_silence,
        _dead_in_silence,
        _other_conversation_is_a_duplicate,
        _other_text_is_a_duplicate,
        _late_edit_wins,
        _edit_changes_what_was_read,
        _every_older_message_goes_first,
        _accepted_messages_wait_for_the_clock,
        _replies_wait_for_the_clock,
        _a_ban_is_ignored,
        _a_ban_is_everybodys,
        _a_call_that_began_before_it_ends_a_ban,
        _nobody_is_called_up,
        _nobody_lines_up,
        _requeued_goes_before_those_that_are_not_marked,
        _no_reply_is_called_up,
        _no_reply_lines_up,
        _limits_count_all_lanes,
        _a_resume_has_a_minute_in_all,
        _a_resume_has_no_minute,
        _only_its_own_lane_takes_over,
        _taken_back_in_silence,
        _an_edit_stays_when_its_message_goes,
        _a_conversation_is_reset_under_its_turn,
        _a_paused_lane_is_claimed_from,
        _what_a_paused_lane_accepted_is_resumed,
        _a_paused_lane_takes_the_room_of_resumes,
        _a_paused_lane_holds_back_the_others,
        _a_drop_leaves_what_runs,
        _a_drop_moves_nothing_behind_what_waits,
    ],
    rare=RARE,
)
def test_a_broken_rule_is_noticed(
    monkeypatch: pytest.MonkeyPatch, break_rule: Callable[[pytest.MonkeyPatch], None]
) -> None:
    break_rule(monkeypatch)
    with pytest.raises((*NOTICED, claims.CannotBegin)):
        run(
            Machine,
            "asyncio",
            ENOUGH_RULES.get(break_rule, ()),
            max_examples=500,
            stateful_step_count=40,
            **FIRST_FAILURE,
        )
