"""The rules of a gateway's inbox, turns and resumes, as plainly as possible: lists that are walked.

The model compares no leases, uses no index and bounds nothing: each time it walks over
everything. Numbers are assigned in the order of acceptance and of claims, as in the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

ATTEMPTS_MAX, INTERRUPTED_ATTEMPTS_MAX = 5, 3
PAUSES_MS = (1_000, 4_000, 16_000, 60_000)
PAUSE_MS_MAX = PRIORITY_WAIT_MS = 60_000
GRACE_MS = 2_000
SENDS_MIN, SENDS_FOR_MS = 8, 24 * 3_600_000
BAN_MS, QUIET_MS = 40_000, 600_000
"""How long a channel says to wait. If nobody calls it for so long after that, it begins anew."""
WAITING_MAX = 5
"""Messages of a session that may wait. The test lowers the real limit to it, to reach it."""
LANES = {"main": (2, 0), "side": (1, 5), "cron": (1, 10), "resume": (1, 20)}
"""Of each lane: its concurrency and its priority."""
DROPPABLE = ("side", "cron")
HEARD_MAX = 2
"""Messages of a session that were heard and may wait. Likewise."""


@dataclass
class Message:
    """A message that was accepted."""

    number: int
    event: str
    session: int
    lane: str
    accepted_ms: int
    queued_ms: int
    lane_accepted: str
    available_ms: int = 0
    """When its pause ends. 0: it waits for no time."""
    state: str = "queued"
    attempts: int = 0
    turn: int | None = None
    timeout_ms: int | None = None
    by_person: bool = False
    superseded_by: int | None = None
    text: str = ""
    edited: int = 0
    edit_of: int | None = None
    is_heard: bool = False
    """It is not for the agent."""
    is_told: bool = False
    """Its sender was told that it ended without an answer."""


@dataclass
class Turn:
    """One run over a message."""

    number: int
    message: Message
    lane: str
    kind: str
    attempt: int
    expires_ms: int
    deadline_ms: int
    state: str = "running"
    incomplete: bool = False
    progress_ms: int | None = None
    """For so long a resume may be without progress."""


@dataclass
class Reply:
    """A reply in the outbox."""

    number: int
    session: int
    payload: str
    asked_ms: int
    available_ms: int = 0
    state: str = "pending"
    attempts: int = 0
    attempts_before: int = 0
    expires_ms: int | None = None

    @property
    def tries(self) -> int:
        return self.attempts - self.attempts_before

    @property
    def channel(self) -> str:
        return channel_of(self.session)


def channel_of(session: int) -> str:
    """Return the channel that the replies of a session go to. There are two."""
    return "telegram" if session % 2 else "web"


@dataclass
class Pause:
    """A channel said when to try again."""

    since_ms: int
    pauses: int
    begun_ms: int
    until_ms: int

    def is_in_force(self, now_ms: int) -> bool:
        return self.begun_ms <= now_ms < self.until_ms


def is_over(available_ms: int, now_ms: int) -> bool:
    """Tell whether nobody waits for a time: a later one is of a clock that was set back."""
    return available_ms <= now_ms or available_ms > now_ms + PAUSE_MS_MAX


T = TypeVar("T", Message, Reply)


def oldest(ready: list[T], now_ms: int) -> T | None:
    """Return the oldest, with one only of those whose pause is over: that ended first."""
    kinds: dict[int, list[T]] = {}
    for one in ready:
        kind = 0 if one.available_ms == 0 else 1 if one.available_ms <= now_ms else 2
        kinds.setdefault(kind, []).append(one)
    firsts = [min(kind, key=lambda one: (one.available_ms, one.number)) for kind in kinds.values()]
    return min(firsts, key=lambda one: one.number, default=None)


class Conflict(Exception):
    """The event is known, and is another message."""


@dataclass
class Gateway:
    """The whole gateway."""

    messages: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    said: dict[int, list[int]] = field(default_factory=dict)
    """Per session, the numbers of the messages in its transcript, in order."""
    replies: list[Reply] = field(default_factory=list)
    pauses: dict[str, Pause] = field(default_factory=dict)
    """Of each channel that has said when to try again, and taken no reply since."""
    events: list[str] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    resumes_at_once: int = LANES["resume"][0]
    """The most that a resume plan has asked for."""
    paused: set[str] = field(default_factory=set)
    """Lanes that nothing is claimed from."""
    dropped: set[str] = field(default_factory=set)
    """Lanes that are none at the moment."""

    # -- inbox -------------------------------------------------------------------------------

    def known(self, event: str) -> Message | None:
        return next((message for message in self.messages if message.event == event), None)

    def accept(
        self, event: str, session: int, lane: str, now_ms: int, text: str, *, is_heard: bool = False
    ) -> tuple[Message | None, bool]:
        """Return the message and whether it was known. None if its session is full."""
        known = self.known(event)
        if known is not None:
            if known.session != session or (not known.edited and known.text != text):
                raise Conflict
            return known, True
        if is_heard:
            if len(self.heard(session)) >= HEARD_MAX:
                if self.running(session=session):
                    return None, False
                if session not in self.ended:
                    self.append_heard(session)
        elif self.is_full(session, lane):
            return None, False
        message = Message(len(self.messages) + 1, event, session, lane, now_ms, now_ms, lane)
        message.by_person, message.text = lane == "main", text
        if is_heard:
            message.is_heard, message.state, message.queued_ms = True, "heard", 0
        self.messages.append(message)
        return message, False

    def heard(self, session: int, before: int = 2**62) -> list[Message]:
        """Return what a session has heard before a message, and is not appended yet."""
        return [
            message
            for message in self.messages
            if message.session == session and message.state == "heard" and message.number < before
        ]

    def append_heard(self, session: int, before: int = 2**62) -> None:
        for message in self.heard(session, before):
            message.state = "done"
            self.said.setdefault(session, []).append(message.number)

    def seen(self, message: Message) -> tuple[int, str, list[tuple[int, str]]]:
        """Return what a look sees of a message: it, and what is put in front of it."""
        heard = self.heard(message.session, message.number)
        return message.number, message.text, [(one.number, one.text) for one in heard]

    def edit(
        self, known: Message, session: int, text: str, version: int, now_ms: int
    ) -> tuple[Message | None, str]:
        """Return the message with the newest text, and what became of the edit. None: full."""
        if known.session != session:
            raise Conflict
        edits = [message for message in self.messages if message.edit_of == known.number]
        newest = [known, *edits][-1]
        if version <= known.edited:
            return newest, "known"
        if text == newest.text:
            return newest, "unchanged"
        if newest.state == "heard" or (newest.state == "queued" and newest.turn is None):
            known.edited, newest.text = version, text
            return newest, "replaced"
        event, lane = f"{known.event} edit {version}", known.lane_accepted
        lane = "main" if lane in self.dropped else lane
        follower, _ = self.accept(event, session, lane, now_ms, text, is_heard=known.is_heard)
        if follower is None:
            return None, "full"
        known.edited, follower.edit_of = version, known.number
        follower.by_person = known.by_person
        return follower, "queued"

    def withdraw(self, known: Message) -> tuple[str, int | None]:
        """Take a message back, with its edits. Return the outcome, and the turn in the way."""
        parts = [known, *(other for other in self.messages if other.edit_of == known.number)]
        states = ("queued", "interrupted", "heard")
        waiting = [message for message in parts if message.state in states]
        for message in waiting:
            message.state, message.is_told = "done", not message.is_heard
            if not message.is_heard:
                self.events.append("message_withdrawn")
        claimed = [message.turn for message in parts if message.state == "claimed"]
        if claimed:
            return "running", claimed[0]
        return ("withdrawn" if waiting else "done"), None

    def is_full(self, session: int, lane: str) -> bool:
        waiting = [
            message
            for message in self.messages
            if message.session == session
            and message.lane_accepted == lane
            and message.state in ("queued", "claimed")
        ]
        return len(waiting) >= WAITING_MAX

    def running(self, session: int | None = None, lane: str | None = None) -> list[Turn]:
        return [
            turn
            for turn in self.turns
            if turn.state == "running"
            and (session is None or turn.message.session == session)
            and (lane is None or turn.lane == lane)
        ]

    def waits_behind(self, message: Message) -> bool:
        """Tell whether a queued message waits for a turn, or for another message."""
        if self.running(session=message.session):
            return True
        others = [
            other
            for other in self.messages
            if other is not message
            and other.session == message.session
            and other.state in ("queued", "claimed")
            and other.lane != "resume"
            and LANES[other.lane][1] <= LANES[message.lane_accepted][1]
        ]
        if message.lane == "resume":
            return bool(others)
        return any(other.number < message.number for other in others)

    def may_run(self, message: Message, now_ms: int) -> bool:
        return (
            message.state == "queued"
            and message.lane_accepted not in self.paused
            and is_over(message.available_ms, now_ms)
            and not self.waits_behind(message)
        )

    def next(self, lane: str, now_ms: int) -> Message | None:
        concurrency, priority = LANES[lane]
        concurrency = self.resumes_at_once if lane == "resume" else concurrency
        closed = self.paused | self.dropped
        if lane in closed or len(self.running(lane=lane)) >= concurrency:
            return None
        before = [
            name for name, (_, other) in LANES.items() if other < priority and name not in closed
        ]
        ready = [message for message in self.messages if self.may_run(message, now_ms)]
        found = oldest([message for message in ready if message.lane == lane], now_ms)
        if found is None or not any(message.lane in before for message in ready):
            return found
        return found if abs(now_ms - found.queued_ms + 0.5) > PRIORITY_WAIT_MS else None

    def claim(
        self,
        lane: str,
        candidate: tuple[int, str, list[tuple[int, str]]] | None,
        now_ms: int,
        lease_ms: int,
        timeout_ms: int,
    ) -> Turn | None:
        """Claim the candidate, if it would still be chosen and no edit has replaced its text.

        Nor a text of those that it is appended behind.
        """
        message = self.next(lane, now_ms)
        if message is None or candidate is None:
            return None
        if (message.number, message.text) != candidate[:2]:
            return None
        if message.session in self.ended:
            self.dead_letter(message)
            return None
        if self.seen(message) != candidate:
            return None
        self.append_heard(message.session, message.number)
        message.state, message.attempts = "claimed", message.attempts + 1
        kind = "resume" if lane == "resume" else "message"
        deadline_ms = now_ms + timeout_ms + GRACE_MS
        turn = Turn(
            len(self.turns) + 1,
            message,
            lane,
            kind,
            message.attempts,
            min(now_ms + lease_ms, deadline_ms),
            deadline_ms,
        )
        message.turn = turn.number
        turn.progress_ms = message.timeout_ms if kind == "resume" else None
        self.turns.append(turn)
        said = self.said.setdefault(message.session, [])
        if said[-1:] != [message.number]:
            said.append(message.number)
        return turn

    def supersede(self, turn: Turn) -> None:
        """A person's turn has ended: it was for what was interrupted before it, too."""
        for other in self.messages:
            waits_for_resume = other.state == "interrupted" or (
                other.state == "queued" and other.lane == "resume"
            )
            if (
                other.session == turn.message.session
                and other.number < turn.message.number
                and waits_for_resume
                and other.by_person
                and turn.message.by_person
            ):
                other.state, other.superseded_by = "done", turn.message.number
                other.is_told = True
                self.events.append("message_superseded")

    # -- ends --------------------------------------------------------------------------------

    def complete(self, turn: Turn, reply: str, now_ms: int, *, incomplete: bool) -> None:
        turn.state, turn.message.state, turn.incomplete = "completed", "done", incomplete
        self.replies.append(Reply(len(self.replies) + 1, turn.message.session, reply, now_ms))
        if incomplete:
            self.events.append("turn_incomplete")
        else:
            self.supersede(turn)

    def fail(self, turn: Turn, now_ms: int, *, retry: bool) -> None:
        turn.state = "failed"
        self.events.append("turn_failed")
        if retry and turn.attempt < ATTEMPTS_MAX:
            turn.message.state = "queued"
            turn.message.available_ms = now_ms + PAUSES_MS[turn.attempt - 1]
            turn.message.queued_ms = turn.message.available_ms
        else:
            self.dead_letter(turn.message)

    def interrupt(self, turn: Turn) -> None:
        turn.state = "interrupted"
        if turn.attempt < INTERRUPTED_ATTEMPTS_MAX:
            turn.message.state = "interrupted"
            self.events.append("turn_interrupted")
        else:
            self.dead_letter(turn.message)
        self.events.append("turn_interrupted")

    def abort(self, turn: Turn) -> None:
        turn.state, turn.message.state, turn.message.is_told = "aborted", "done", True
        self.events += ["turn_aborted", "turn_aborted"]
        self.supersede(turn)

    def renew(self, turn: Turn, now_ms: int, lease_ms: int) -> None:
        turn.expires_ms = min(now_ms + lease_ms, turn.deadline_ms)

    def take_over(self, now_ms: int) -> int:
        expired = sorted(
            (turn for turn in self.running() if turn.expires_ms <= now_ms),
            key=lambda turn: turn.expires_ms,
        )
        for turn in expired:
            self.interrupt(turn)
        return len(expired)

    def crash(self) -> int:
        """The process dies, and the next one recovers."""
        lost = self.running()
        for turn in lost:
            self.interrupt(turn)
        self.events.append("recovery_done")
        return len(lost)

    def dead_letter(self, message: Message) -> None:
        message.state, message.is_told = "dead", True
        self.events += ["message_dead", "message_dead"]

    # -- replies -----------------------------------------------------------------------------

    def next_reply(self, now_ms: int) -> Reply | None:
        open_ones = [reply for reply in self.replies if reply.state in ("pending", "sending")]
        firsts = [
            next(other for other in open_ones if other.session == session)
            for session in {reply.session for reply in open_ones}
        ]
        due = [
            reply
            for reply in firsts
            if reply.state == "pending"
            and is_over(reply.available_ms, now_ms)
            and not self.is_paused(reply.channel, now_ms)
        ]
        return oldest(due, now_ms)

    def is_paused(self, channel: str, now_ms: int) -> bool:
        return channel in self.pauses and self.pauses[channel].is_in_force(now_ms)

    def pause(self, channel: str, wait_ms: int, now_ms: int) -> int:
        """Let a channel wait. Return since when it has refused."""
        before = self.pauses.get(channel)
        waits = before is not None and before.is_in_force(now_ms)
        since_ms, pauses = now_ms, 1
        if before is not None and before.begun_ms <= now_ms <= before.until_ms + QUIET_MS:
            since_ms, pauses = before.since_ms, before.pauses + (not waits)
        until_ms = now_ms + max(wait_ms, min(100 * 2 ** (pauses - 1), 60_000))
        if before is None or not waits or before.until_ms < until_ms:
            self.pauses = {
                name: pause
                for name, pause in self.pauses.items()
                if pause.until_ms >= now_ms - QUIET_MS
            }
            self.pauses[channel] = Pause(since_ms, pauses, now_ms, until_ms)
        if not waits:
            self.events.append("reply_delayed")
        return since_ms

    def begin_sending(self, now_ms: int, lease_ms: int) -> Reply | None:
        reply = self.next_reply(now_ms)
        if reply is not None:
            reply.state, reply.attempts, reply.expires_ms = (
                "sending",
                reply.attempts + 1,
                now_ms + lease_ms + GRACE_MS,
            )
        return reply

    def settle(self, reply: Reply, attempt: int, how: str, now_ms: int) -> bool:
        """Record the outcome of an attempt. False if it was settled otherwise meanwhile."""
        refused_since_ms = 0
        if how == "refused with a time":
            refused_since_ms = self.pause(reply.channel, BAN_MS, now_ms)
        elif how == "sent" and not self.is_paused(reply.channel, now_ms):
            self.pauses.pop(reply.channel, None)
        if reply.attempts != attempt or reply.state not in (
            ("sending",) if how == "lost" else ("sending", "unknown")
        ):
            return False
        if how == "sent":
            reply.state = "sent"
        elif how == "lost":
            reply.state = "unknown"
            self.events.append("reply_unknown")
        elif how == "refused with a time" and (
            now_ms - max(refused_since_ms, reply.asked_ms) < SENDS_FOR_MS
        ):
            reply.state, reply.available_ms = "pending", 0
            reply.attempts_before += 1
        elif how == "refused" and (
            reply.tries < SENDS_MIN or now_ms - reply.asked_ms < SENDS_FOR_MS
        ):
            reply.state, reply.available_ms = (
                "pending",
                now_ms + min(1_000 * 2 ** (reply.tries - 1), 60_000),
            )
        else:
            reply.state = "failed"
            self.events.append("reply_failed")
        return True

    def give_up_overdue(self, now_ms: int) -> int:
        overdue = [
            reply
            for reply in self.replies
            if reply.state == "sending" and (reply.expires_ms or 0) <= now_ms
        ]
        return sum(self.settle(reply, reply.attempts, "lost", now_ms) for reply in overdue)

    def decide(self, reply: Reply, state: str, now_ms: int) -> bool:
        if reply.state not in ("unknown", "failed"):
            return False
        reply.state, reply.available_ms = state, 0
        if state == "pending":
            reply.asked_ms, reply.attempts_before = now_ms, reply.attempts
        return True

    # -- resuming ----------------------------------------------------------------------------

    def resume(
        self, now_ms: int, *, at_once: int, max_age_ms: int, deadline_ms: int
    ) -> list[tuple[int, str]]:
        room = at_once - len(self.running(lane="resume"))
        room -= sum(
            message.state == "queued"
            and message.lane == "resume"
            and message.lane_accepted not in self.paused
            for message in self.messages
        )
        decisions = []
        for message in reversed(self.messages):
            if message.state != "interrupted":
                continue
            before = [
                turn
                for turn in self.turns
                if turn.message.session == message.session
                and turn.message is not message
                and turn.number < (message.turn or 0)
            ]
            too_old = now_ms - message.accepted_ms > max_age_ms
            failed_before = bool(before) and before[-1].state == "failed"
            if (
                message.session in self.ended
                or message.attempts >= INTERRUPTED_ATTEMPTS_MAX
                or too_old
                or failed_before
            ):
                action = "skip"
            elif message.lane_accepted in self.paused:
                action = "paused"
            elif room <= 0:
                action = "later"
            else:
                action, room = "resume", room - 1
            decisions.append((message, action))
        if any(action == "resume" for _, action in decisions):
            self.resumes_at_once = max(self.resumes_at_once, at_once)
        for message, action in decisions:
            if action == "skip":
                self.dead_letter(message)
            elif action == "resume":
                message.state, message.lane, message.timeout_ms = "queued", "resume", deadline_ms
                message.available_ms, message.queued_ms = 0, now_ms
        return [(message.number, action) for message, action in decisions]

    def requeue(self, message: Message, now_ms: int) -> None:
        message.state, message.attempts, message.available_ms = "queued", 0, 0
        message.queued_ms = now_ms
        message.is_told = False
        message.lane, message.timeout_ms = message.lane_accepted, None

    def drop(self, message: Message) -> None:
        message.state = "done"

    # -- lanes -------------------------------------------------------------------------------

    def open_in(self, lane: str) -> list[Message]:
        """Return what a lane accepted and is not done."""
        states = ("queued", "claimed", "interrupted", "dead")
        return [
            message
            for message in self.messages
            if message.lane_accepted == lane and message.state in states
        ]

    def move(self, message: Message, lane: str) -> None:
        message.lane = lane if message.lane == message.lane_accepted else message.lane
        message.lane_accepted = lane

    def drop_lane(self, lane: str, into: str | None) -> str:
        """Drop a lane, or say why not."""
        if into == lane:
            return "no lane for them"
        if {lane, into} & self.dropped:
            return "no such lane"
        if into is None and self.open_in(lane):
            return "has messages"
        for message in self.open_in(lane):
            self.move(message, into or "")
        self.dropped.add(lane)
        self.paused.discard(lane)
        return "dropped"
