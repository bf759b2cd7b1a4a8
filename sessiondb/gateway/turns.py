"""Turns: one run of the agent over one claimed message, with a lease and a fencing token.

    claim --> running --> completed     entries, replies and the end, in one transaction
                 |------> failed        the message is retried after a pause, or dead
                 |------> aborted       a person stopped it
                 `------> interrupted   its process died or fell silent. The resume plan decides

Claiming a message, appending it to the transcript and starting the turn is one transaction.
There is no moment at which a message is neither waiting nor being worked on.

Invariants, enforced by the database and so across processes:

* One running turn per session (a partial unique index).
* A lane runs at most its concurrency, counted from rows under the write lock.
* A turn's number only grows, and is its fencing token. Every write of a turn checks, in its
  own transaction, that the turn is still running. A holder that was taken over cannot
  write, however late it wakes up.

The lease is a promise to renew it in time. It is renewed while the work goes on, and
never past the turn's deadline: a holder that only renews cannot keep a session for
ever. Taking over is one compare-and-set on the turn's row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.errors import InvalidInput, NotFound, SessionDBError, StoreDamaged, TurnLost
from sessiondb.limits import (
    INBOX_ATTEMPTS_MAX,
    INBOX_PAUSE_GROWTH,
    INTERRUPTED_ATTEMPTS_MAX,
    LANE_CHARS_MAX,
    LEASE_GRACE_MS,
    OUTBOX_WAITING_MAX,
    PRIORITY_WAIT_MS_MAX,
    RESUME_TIME_GROWTH,
    RETRY_PAUSE_MS_MAX,
    retry_pause_ms,
)
from sessiondb.models import Receipt
from sessiondb.transcript import context, registry
from sessiondb.transcript.append import append as append_entries
from sessiondb.transcript.entries import Draft

if TYPE_CHECKING:
    from sessiondb import statements

Ended = Literal["completed", "failed", "aborted", "interrupted"]
Kind = Literal["message", "resume"]

OPEN = ("queued", "claimed", "interrupted")
TAKE_OVER_AT_ONCE = 50
LEASE_OVER = "its lease ran out"
MAIN_LANE, RESUME_LANE = "main", "resume"
"""A turn in this lane is a resume. Only the resume plan puts messages there."""


class CannotBegin(Exception):
    """No turn can begin with a message, whatever the rest of the database is like.

    Most often its session is damaged. Its message is set aside, and its lane goes on.
    """

    def __init__(self, inbox_no: int, session_no: int | None, error: SessionDBError) -> None:
        super().__init__(f"no turn can begin with it: {type(error).__name__}: {error}")
        self.inbox_no = inbox_no
        self.session_no = session_no
        """None: its session's row cannot be read either."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message that could be claimed.

    It is read before the claim, so that its JSON is decoded outside of the transaction.
    """

    inbox_no: int
    session_no: int
    session_id: str
    channel: str
    event_id: str
    attempts: int
    timeout_ms: int | None
    entry_no: int | None
    ended_at_ms: int | None
    edit_of: int | None
    payload: str


@dataclass(frozen=True, slots=True)
class Started:
    """A claimed message and the turn that works on it."""

    turn_no: int
    session_no: int
    session_id: str
    inbox_no: int
    entry_id: str
    attempt: int
    kind: Kind
    expires_at_ms: int
    deadline_ms: int
    timeout_ms: int
    """The work is cut off after this.

    The lease can be renewed for a moment longer, to write how it ended."""
    progress_ms: int | None
    """Of a resume: the work is cut off after this long without progress, too."""
    accepted_at_ms: int
    edit_of: int | None
    """The message whose text this one replaces, although a turn had read that already."""
    notified: bool
    """True: the sender has been notified that the answer takes longer."""


# -- lanes ------------------------------------------------------------------------------------


def check_lane(lane: str, concurrency: object, priority: object) -> None:
    """Check a lane's settings.

    Raises:
        InvalidInput: an empty or too long name, a concurrency below 1, or no number.
    """
    if (
        not 0 < len(lane) <= LANE_CHARS_MAX
        or not isinstance(concurrency, int)
        or not isinstance(priority, int)
        or concurrency < 1
    ):
        raise InvalidInput(
            f"a lane needs a name of 1 to {LANE_CHARS_MAX} characters, a concurrency of at least "
            "1, and a number as its priority"
        )


def set_lane(
    tx: Tx, lane: str, concurrency: int, priority: int, people: bool | None = None
) -> None:
    """Create a lane or change it. May be repeated."""
    tx.run("turns.set_lane", lane=lane, concurrency=concurrency, priority=priority, people=people)


def require_lane(tx: ReadTx, lane: str) -> statements.TurnsLane:
    """Return a lane's settings, and how many of its turns run.

    Raises:
        NotFound: there is no such lane.
    """
    row = tx.first("turns.lane", lane=lane)
    if row is None:
        raise NotFound(f"there is no lane {lane!r}; make it with db.set_lane()", lane=lane)
    return row


# -- starting ---------------------------------------------------------------------------------


def peek(tx: ReadTx, lane: str, now_ms: int) -> Candidate | None:
    """Read the next message of a lane that may run, if the lane has room and the outbox too.

    While a lane of higher priority has a message that could run, only a message that has
    waited for `PRIORITY_WAIT_MS_MAX` may.

    Raises:
        CannotBegin: the message or its session's row cannot be read.
    """
    room = require_lane(tx, lane)
    if (
        room.running >= room.concurrency
        or tx.first("outbox.full", fewer=OUTBOX_WAITING_MAX - 1) is not None
    ):
        return None
    held_back = any(
        _next_no(tx, row.lane, now_ms) is not None
        for row in tx.all("turns.lanes_before", lane=lane)
    )
    inbox_no = _next_no(tx, lane, now_ms, waited_ms=PRIORITY_WAIT_MS_MAX if held_back else 0)
    if inbox_no is None:
        return None
    try:
        return Candidate(**tx.one("inbox.candidate", inbox_no=inbox_no)._asdict())
    except StoreDamaged as error:
        raise CannotBegin(inbox_no, None, error) from error


def _next_no(tx: ReadTx, lane: str, now_ms: int, *, waited_ms: int = 0) -> int | None:
    """Return the number of a lane's next message among those that have waited for `waited_ms`.

    None if there is none. A pause is a minute at most. A time further ahead is of a clock
    that has been set back since, and is not waited for. The older message goes first then,
    because every later one seems to have been due before it.
    """
    ranges = ((0, now_ms - waited_ms), (now_ms + RETRY_PAUSE_MS_MAX + 1, 2**62))
    found = [
        tx.first("inbox.next", lane=lane, low_ms=low_ms, high_ms=high_ms)
        for low_ms, high_ms in ranges
    ]
    return min((row.inbox_no for row in found if row is not None), default=None)


def claim(
    tx: Tx, lane: str, candidate: Candidate, draft: Draft, *, lease_ms: int, timeout_ms: int
) -> Started | None:
    """Claim a message: append it to its transcript and start the turn. None if it must not run now.

    Another process may have been faster. Or its session has ended meanwhile: then the
    message is dead, with events. A message that a turn had appended before is not appended
    again if it is still the last user message of the context.

    Raises:
        CannotBegin: nothing can be appended to its session.
    """
    # Critical section "claim". Invariant: what `peek` saw still holds. So a lane never
    # runs more than its concurrency, and a session's messages keep their order,
    # whatever other processes did since.
    now = peek(tx, lane, tx.now_ms)
    if now is None or now.inbox_no != candidate.inbox_no:
        return None
    if now.ended_at_ms is not None:
        dead_letter(tx, now.inbox_no, now.session_no, "its session has ended")
        return None
    kind: Kind = "resume" if lane == RESUME_LANE else "message"
    deadline_ms = tx.now_ms + timeout_ms + LEASE_GRACE_MS
    expires_at_ms = min(tx.now_ms + lease_ms, deadline_ms)
    turn = tx.one(
        "turns.start",
        session_no=candidate.session_no,
        lane=lane,
        kind=kind,
        inbox_no=candidate.inbox_no,
        attempt=now.attempts + 1,
        operation=f"{kind} from {candidate.channel}",
        instance_no=tx.instance_no,
        now_ms=tx.now_ms,
        expires_at_ms=expires_at_ms,
        deadline_ms=deadline_ms,
    )
    with _damage_of(candidate):
        entry_no, entry_id = _place_message(tx, now, draft, turn.turn_no)
    claimed = tx.run(
        "inbox.claim", inbox_no=candidate.inbox_no, turn_no=turn.turn_no, entry_no=entry_no
    )
    require_one(claimed, f"inbox item {candidate.inbox_no} was queued")
    notified = tx.one("inbox.notified", inbox_no=candidate.inbox_no)
    return Started(
        turn_no=turn.turn_no,
        session_no=candidate.session_no,
        session_id=candidate.session_id,
        inbox_no=candidate.inbox_no,
        entry_id=entry_id,
        attempt=now.attempts + 1,
        kind=kind,
        expires_at_ms=expires_at_ms,
        deadline_ms=deadline_ms,
        timeout_ms=timeout_ms,
        progress_ms=now.timeout_ms if kind == "resume" else None,
        accepted_at_ms=notified.accepted_at_ms,
        edit_of=now.edit_of,
        notified=bool(notified.delayed),
    )


@contextmanager
def _damage_of(candidate: Candidate) -> Iterator[None]:
    """Tell the damage of one session from that of the whole file.

    Only the append reads the session's own rows. What repetition does not mend there
    concerns this message alone.

    Raises:
        CannotBegin: an error came out of the block that repetition does not mend.
    """
    try:
        yield
    except SessionDBError as error:
        if error.retry:
            raise
        raise CannotBegin(candidate.inbox_no, candidate.session_no, error) from error


def _place_message(tx: Tx, now: Candidate, draft: Draft, turn_no: int) -> tuple[int, str]:
    """Make a message the last user message of the context that its handler will read.

    Return its entry's number and id. Since an earlier turn appended it, a reset, a switch of
    branches, a compaction or later messages may have come between. Then it is appended again.
    """
    if now.entry_no is not None and context.is_last_user_message(tx, now.session_no, now.entry_no):
        return now.entry_no, tx.one("transcript.by_no", entry_no=now.entry_no).entry_id
    draft.idempotency_key = f"inbox:{now.inbox_no}"
    receipt = append_entries(tx, now.session_no, [draft])[0]
    if receipt.duplicate and not context.is_last_user_message(tx, now.session_no, receipt.entry_no):
        draft.idempotency_key += f":{turn_no}"
        receipt = append_entries(tx, now.session_no, [draft])[0]
    return receipt.entry_no, receipt.entry_id


def was_committed(tx: ReadTx, created: Started) -> bool:
    """Tell whether a claim whose outcome is unknown was committed, and its turn is still running.

    The turn's number alone does not say so: if the claim was not committed, another
    turn may have the number by now.
    """
    row = tx.first("turns.get", turn_no=created.turn_no)
    if row is None or row.state != "running":
        return False
    return (row.inbox_no, row.attempt, row.deadline_ms) == (
        created.inbox_no,
        created.attempt,
        created.deadline_ms,
    )


# -- while it runs ----------------------------------------------------------------------------


def require_running(tx: ReadTx, turn_no: int) -> statements.TurnsGet:
    """Return a turn's row. The fence before each of its writes.

    Raises:
        TurnLost: it is not running any more. Nothing may be written in its name.
        NotFound: there is no such turn.
    """
    turn = tx.first("turns.get", turn_no=turn_no)
    if turn is None:
        raise NotFound(
            f"there is no turn {turn_no}; list those that run with `sessiondb held DB`",
            turn_no=turn_no,
        )
    if turn.state != "running":
        raise TurnLost(
            f"turn {turn_no} of session {turn.session_id} is {turn.state} "
            f"({turn.reason or 'finished'}); it can write no more",
            turn_no=turn_no,
            session_id=turn.session_id,
            state=turn.state,
        )
    return turn


def append(tx: Tx, turn_no: int, drafts: Sequence[Draft]) -> list[Receipt]:
    """Append in the name of a turn. Refused once the turn was taken over.

    Raises:
        TurnLost: the turn is not running any more.
    """
    return append_entries(tx, require_running(tx, turn_no).session_no, drafts)


def reset(tx: Tx, turn_no: int, *, reason: str, keep_from: str | None) -> int:
    """Begin a new context in the name of a turn. Refused once it was taken over. Return the epoch.

    Raises:
        TurnLost: the turn is not running any more.
    """
    session_no = require_running(tx, turn_no).session_no
    return registry.reset(
        tx, session_no, reason=reason, keep_from=keep_from, timestamp=iso_from_ms(tx.now_ms)
    )


def renew(tx: Tx, turn_no: int, *, lease_ms: int, operation: str | None) -> int:
    """Renew the lease. Return when it runs out. Never past the deadline.

    Raises:
        TurnLost: the turn is not running any more.
    """
    row = tx.first(
        "turns.renew",
        turn_no=turn_no,
        now_ms=tx.now_ms,
        expires_at_ms=tx.now_ms + lease_ms,
        operation=operation,
    )
    if row is None:
        require_running(tx, turn_no)
    return tx.one("turns.get", turn_no=turn_no).expires_at_ms


def notify_delayed(tx: Tx, turn_no: int) -> None:
    """Emit an event, once for a message, because the answer takes long.

    Raises:
        TurnLost: the turn is not running any more.
    """
    turn = require_running(tx, turn_no)
    if tx.run("inbox.mark_delayed", inbox_no=turn.inbox_no):  # zero: notified while it waited
        waited_ms = tx.now_ms - tx.one("inbox.notified", inbox_no=turn.inbox_no).accepted_at_ms
        events.emit(
            tx,
            "message_delayed",
            "user",
            "Your message is being worked on; the answer takes longer than usual.",
            session_no=turn.session_no,
            inbox_no=turn.inbox_no,
            turn_no=turn_no,
            waited_ms=waited_ms,
        )


# -- ending -----------------------------------------------------------------------------------


def complete(
    tx: Tx,
    turn_no: int,
    drafts: Sequence[Draft],
    replies: Sequence[tuple[str, str]],
    *,
    incomplete: bool,
    reason: str | None,
) -> list[Receipt]:
    """End a turn with its results: entries, replies and the end itself, all or nothing.

    `replies` are (target, JSON). `incomplete` says that there is no usable answer. The user is
    notified.

    Raises:
        TurnLost: the turn was taken over. Nothing is written.
    """
    turn = require_running(tx, turn_no)
    receipts = append_entries(tx, turn.session_no, drafts) if drafts else []
    for target, payload in replies:
        tx.run(
            "outbox.add",
            session_no=turn.session_no,
            turn_no=turn_no,
            target=target,
            now_ms=tx.now_ms,
            payload=payload,
        )
    _finish(tx, turn, "completed", reason, incomplete=incomplete)
    _finish_message(tx, turn, reason, told_no=None)
    if incomplete:
        # No answer, so what it would have answered beside its own message is still to be resumed.
        events.emit(
            tx,
            "turn_incomplete",
            "user",
            "No usable answer came back. Please ask again.",
            session_no=turn.session_no,
            turn_no=turn_no,
            reason=reason,
        )
    else:
        _supersede(tx, turn, "Your earlier message is answered together with a later one of yours.")
    return receipts


def _supersede(tx: Tx, turn: statements.TurnsGet, text: str) -> None:
    """Finish interrupted messages that people sent before this turn's, and that it had in context.

    Only if a person sent this turn's, too: a heartbeat answers nobody's question. `text` tells
    their sender. A message whose entry the context did not have, or has no more, waits for its
    resume.
    """
    own = tx.first("inbox.of_turn", inbox_no=turn.inbox_no)
    if own is None or not own.is_persons:
        return
    for before in tx.all(
        "inbox.interrupted_before", session_no=turn.session_no, inbox_no=turn.inbox_no
    ):
        entry = tx.one("transcript.by_no", entry_no=before.entry_no)
        if context.preceded(tx, entry, own.entry_no, own.boundary_no) and context.contains(
            tx, turn.session_no, entry
        ):
            _supersede_one(tx, turn, before.inbox_no, text)


def _supersede_one(tx: Tx, turn: statements.TurnsGet, inbox_no: int, text: str) -> None:
    told_no = events.emit(
        tx,
        "message_superseded",
        "user",
        text,
        session_no=turn.session_no,
        inbox_no=inbox_no,
        superseded_by=turn.inbox_no,
        turn_no=turn.turn_no,
    )
    superseded = tx.run(
        "inbox.supersede",
        inbox_no=inbox_no,
        superseded_by=turn.inbox_no,
        told_no=told_no,
        reason=f"turn {turn.turn_no} of a newer message, {turn.inbox_no}, had it in its context",
    )
    require_one(superseded, f"inbox item {inbox_no} was interrupted")


def fail(
    tx: Tx,
    turn_no: int,
    reason: str,
    *,
    retry: bool,
    attempts_max: int = INBOX_ATTEMPTS_MAX,
    cut_off: bool = False,
) -> None:
    """End a turn that failed. Its message is retried after a pause, or dead after the last attempt.

    A resume that was `cut_off` gets twice the time at its next attempt. So one that makes no
    progress before its answer is there ends within its attempts, if its lane gives it the time.

    Raises:
        TurnLost: the turn is not running any more.
    """
    turn = require_running(tx, turn_no)
    _finish(tx, turn, "failed", reason)
    strikes = tx.one("inbox.notified", inbox_no=turn.inbox_no).strikes
    if retry and strikes < attempts_max:
        at_ms = tx.now_ms + retry_pause_ms(strikes, INBOX_PAUSE_GROWTH)
        put = tx.run(
            "inbox.retry",
            inbox_no=turn.inbox_no,
            turn_no=turn_no,
            available_at_ms=at_ms,
            more_time=RESUME_TIME_GROWTH if cut_off else 1,
            reason=reason,
        )
        require_one(put, _claimed_by(turn))
        if turn.kind == "message":  # a resume holds nothing up
            tx.run(
                "inbox.wait_behind",
                session_no=turn.session_no,
                inbox_no=turn.inbox_no,
                lane=turn.lane,
                available_at_ms=at_ms,
            )
    else:
        dead_letter(tx, turn.inbox_no, turn.session_no, reason)


def abort(tx: Tx, turn_no: int, reason: str) -> None:
    """End a turn because a person stopped it. Its message is done.

    Raises:
        TurnLost: the turn is not running any more.
    """
    turn = require_running(tx, turn_no)
    _finish(tx, turn, "aborted", reason)
    told_no = events.emit(
        tx,
        "turn_aborted",
        "user",
        "The work on your message was stopped. It will not be answered.",
        session_no=turn.session_no,
        turn_no=turn_no,
        inbox_no=turn.inbox_no,
        reason=reason,
    )
    _finish_message(tx, turn, reason, told_no=told_no)
    _supersede(tx, turn, "The work on your earlier message was stopped, too.")


def interrupt(tx: Tx, turn_no: int, reason: str, *, orderly: bool = False) -> bool:
    """Take a turn away from a dead or silent holder: one compare-and-set. False if it had ended.

    With `orderly` its holder gives it back because its gateway is stopping. That says
    nothing against the message, so it does not count as an attempt.
    """
    turn = tx.one("turns.get", turn_no=turn_no)
    if turn.state != "running":
        return False
    _finish(tx, turn, "interrupted", reason)
    text = f"Turn {turn_no} of session {turn.session_id} was interrupted: {reason}"
    message = tx.first("inbox.notified", inbox_no=turn.inbox_no)
    if message is None or (message.state, message.turn_no) != ("claimed", turn_no):
        # Another program did that. An error here would keep a lane, or a start, from
        # all other turns, so the operator is notified instead.
        text += (
            f". Inbox item {turn.inbox_no} is not claimed by it, as the turn's rules require; "
            "run `sessiondb verify DB`"
        )
    elif orderly or message.strikes < INTERRUPTED_ATTEMPTS_MAX:
        suspended = tx.run(
            "inbox.suspend",
            inbox_no=turn.inbox_no,
            turn_no=turn_no,
            stops=int(orderly),
            reason=reason,
        )
        require_one(suspended, _claimed_by(turn))
        events.emit(
            tx,
            "turn_interrupted",
            "user",
            "The work on your message was interrupted. "
            "It may go on by itself; if you write again, it goes on at once.",
            session_no=turn.session_no,
            turn_no=turn_no,
        )
    else:
        dead_letter(
            tx,
            turn.inbox_no,
            turn.session_no,
            f"{reason}; attempt {message.strikes} of {INTERRUPTED_ATTEMPTS_MAX}",
        )
    events.emit(
        tx,
        "turn_interrupted",
        "operator",
        text,
        session_no=turn.session_no,
        turn_no=turn_no,
        attempt=turn.attempt,
    )
    return True


def refuse(tx: Tx, inbox_no: int, session_no: int | None, reason: str) -> bool:
    """Give up a waiting message that no turn can work on. False if it is not waiting any more.

    Without `session_no` its events are about no session.
    """
    if tx.first("inbox.waiting", inbox_no=inbox_no) is None:
        return False
    dead_letter(tx, inbox_no, session_no, reason)
    return True


def take_over_expired(tx: Tx, *, alive: str = "[]") -> int:
    """Interrupt turns of any lane whose lease ran out, `TAKE_OVER_AT_ONCE` at most.

    Return how many. Any loop does so, because nobody may run the lane of a turn any more, and its
    session would stay blocked. `alive` is a JSON array of turns that the caller knows to be alive
    by another clock than that of the leases.
    """
    rows = expired(tx, tx.now_ms, alive)
    return sum(interrupt(tx, row.turn_no, LEASE_OVER) for row in rows)


def expired(tx: ReadTx, now_ms: int, alive: str = "[]") -> list[statements.TurnsExpired]:
    """Read the turns of any lane whose lease ran out, `TAKE_OVER_AT_ONCE` at most."""
    return tx.all("turns.expired", now_ms=now_ms, alive=alive, limit=TAKE_OVER_AT_ONCE)


def take_over(tx: Tx, turn_no: int) -> bool:
    """Interrupt one turn if its lease ran out. False if it did not, or the turn has ended."""
    turn = tx.one("turns.get", turn_no=turn_no)
    return turn.expires_at_ms <= tx.now_ms and interrupt(tx, turn_no, LEASE_OVER)


def set_aside(tx: Tx, turn_no: int, inbox_no: int, reason: str) -> bool:
    """End a running turn, and give up its message, without its session's rows.

    They are damaged. False if the turn had ended. Its events are about no session.
    """
    if not tx.run(
        "turns.finish",
        turn_no=turn_no,
        state="interrupted",
        now_ms=tx.now_ms,
        incomplete=0,
        reason=reason,
    ):
        return False
    _give_up(tx, inbox_no, None, reason)
    return True


def dead_letter(tx: Tx, inbox_no: int, session_no: int | None, reason: str) -> None:
    """Give up a message: a dead letter, an event for the user who waits, one for the operator."""
    given_up = _give_up(tx, inbox_no, session_no, reason)
    require_one(int(given_up), f"inbox item {inbox_no} was open")


def _give_up(tx: Tx, inbox_no: int, session_no: int | None, reason: str) -> bool:
    """Give up a message that is open. False if it is not: nobody is told then."""
    message = tx.first("inbox.notified", inbox_no=inbox_no)
    if message is None or message.state not in OPEN:
        return False
    told_no = notify_dead(tx, inbox_no, session_no)
    changed = tx.run("inbox.dead_letter", inbox_no=inbox_no, reason=reason, told_no=told_no)
    require_one(changed, f"inbox item {inbox_no} was open")
    events.emit(
        tx,
        "message_dead",
        "operator",
        f"Inbox item {inbox_no} is dead: {reason}",
        session_no=session_no,
        inbox_no=inbox_no,
    )
    return True


def notify_dead(tx: Tx, inbox_no: int, session_no: int | None) -> int:
    """Tell the sender of a message that it was given up. Return the event's number."""
    return events.emit(
        tx,
        "message_dead",
        "user",
        "Your message could not be answered. Please send it again.",
        session_no=session_no,
        inbox_no=inbox_no,
    )


def _finish(
    tx: Tx, turn: statements.TurnsGet, state: Ended, reason: str | None, *, incomplete: bool = False
) -> None:
    finished = tx.run(
        "turns.finish",
        turn_no=turn.turn_no,
        state=state,
        now_ms=tx.now_ms,
        incomplete=int(incomplete),
        reason=reason,
    )
    require_one(finished, f"turn {turn.turn_no} was running")


def _finish_message(
    tx: Tx, turn: statements.TurnsGet, reason: str | None, *, told_no: int | None
) -> None:
    finished = tx.run(
        "inbox.finish", inbox_no=turn.inbox_no, turn_no=turn.turn_no, reason=reason, told_no=told_no
    )
    require_one(finished, _claimed_by(turn))


def _claimed_by(turn: statements.TurnsGet) -> str:
    return (
        f"inbox item {turn.inbox_no} was claimed by turn {turn.turn_no} "
        f"of session {turn.session_id}"
    )


def require_one(changed: int, what: str) -> None:
    """Check that a change of state found its one row.

    This transaction has seen the row, or the schema's rules require it.

    Raises:
        StoreDamaged: it did not. Nothing is written.
    """
    if changed != 1:
        raise StoreDamaged(
            f"{what}, as the turn's rules require, and is not: the file is damaged, or was changed "
            "by another program. Nothing was written. Run `sessiondb verify DB`; then "
            "`sessiondb salvage DB NEW`."
        )
