"""Claims: a message that waits becomes a turn that runs.

    peek (no write lock) --> decode its JSON --> claim: append it, start its turn

Claiming a message, appending it to the transcript and starting the turn is one transaction.
There is no moment at which a message is neither waiting nor being worked on.

Invariants, enforced by the database and so across processes:

* One running turn per session (a partial unique index).
* A lane runs at most its concurrency, counted from rows under the write lock.
* The message of a turn is the last user message of the context that its handler reads.

What keeps one message from being claimed, and no other, is CannotBegin. Its lane goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import SessionDBError, StoreDamaged
from sessiondb.limits import (
    LEASE_GRACE_MS,
    PRIORITY_WAIT_MS_MAX,
    pauses_over,
)
from sessiondb.transcript import context
from sessiondb.transcript.append import append as append_entries
from sessiondb.transcript.entries import Draft
from sessiondb.transcript.keys import parse_key

from . import changes, dead_letters
from . import heard as heard_rules
from .details import decoded_details
from .lanes import RESUME_LANE, find_lane

if TYPE_CHECKING:
    from sessiondb import statements

TurnKind = Literal["message", "resume"]
"""A turn works on a message, or resumes one."""


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
    by_person: int
    digest: str | None
    lane: str
    lane_before: str | None
    session_key: str | None
    details: str | None
    payload: str
    heard: tuple[heard_rules.Heard, ...]
    """What its session has heard before it, and is appended in front of it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message came from, for its handler."""

    channel: str
    event_id: str
    lane: str
    """The lane that accepted it. A resume runs in another one."""
    key: str | None
    agent_id: str | None
    details: dict[str, Any]


def origin(candidate: Candidate) -> Origin:
    """Decode where a message came from.

    Raises:
        CannotBegin: another program wrote its details, or its key.
    """
    key = candidate.session_key
    with _damage_of(candidate.inbox_no, candidate.session_no):
        return Origin(
            candidate.channel,
            candidate.event_id,
            candidate.lane_before or candidate.lane,
            key,
            parse_key(key).agent_id if key is not None else None,
            decoded_details(candidate.details),
        )


@dataclass(frozen=True, slots=True)
class Started:
    """A claimed message and the turn that works on it."""

    turn_no: int
    session_no: int
    session_id: str
    inbox_no: int
    entry_id: str
    attempt: int
    kind: TurnKind
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
    progress: str | None
    """What an earlier attempt at the message noted last, as JSON. None: nothing."""
    notified: bool
    """True: the sender has been notified that the answer takes longer."""


def peek(tx: ReadTx, lane: str, now_ms: int) -> Candidate | None:
    """Read the next message of a lane that may run, if the lane has room.

    While a lane of higher priority has a message that could run, it may only when it has
    waited for `PRIORITY_WAIT_MS_MAX`.

    Raises:
        CannotBegin: the message or its session's row cannot be read.
    """
    row = _choose(tx, lane, now_ms)
    if row is None:
        return None
    with _damage_of(row.inbox_no, None, only=StoreDamaged):
        payload = tx.one("inbox.payload", inbox_no=row.inbox_no).payload
        heard = heard_rules.peek(tx, row.session_no, row.inbox_no)
    return Candidate(**row._asdict(), payload=payload, heard=heard)


def _choose(tx: ReadTx, lane: str, now_ms: int) -> statements.InboxCandidate | None:
    """Choose the next message of a lane. Its text, which may be large, is not read."""
    room = find_lane(tx, lane)
    if room is None or room.paused_at_ms is not None or room.running >= room.concurrency:
        return None
    found = _next(tx, lane, now_ms)
    if found is None or _is_held_back(tx, lane, found, now_ms):
        return None
    with _damage_of(found.inbox_no, None, only=StoreDamaged):
        return tx.one("inbox.candidate", inbox_no=found.inbox_no)


def _next(tx: ReadTx, lane: str, now_ms: int) -> statements.InboxNext | None:
    """Return the next message of a lane: of those that may run, the oldest goes first.

    Only a retry waits for a time. Of those whose pause is over, the one that waited first is
    compared with the rest.
    """
    found = [
        tx.first("inbox.next", lane=lane, low_ms=low_ms, high_ms=high_ms)
        for low_ms, high_ms in pauses_over(now_ms)
    ]
    return min(
        (row for row in found if row is not None), key=lambda row: row.inbox_no, default=None
    )


def _is_held_back(tx: ReadTx, lane: str, found: statements.InboxNext, now_ms: int) -> bool:
    """Tell whether lanes before a message's own hold it back: for a minute at most.

    If it seems to have been queued more than a minute from now, the clock was set back since.
    Then it has waited enough.
    """
    since_ms, until_ms = now_ms - PRIORITY_WAIT_MS_MAX, now_ms + PRIORITY_WAIT_MS_MAX
    return since_ms < found.queued_at_ms <= until_ms and any(
        _next(tx, row.lane, now_ms) is not None for row in tx.all("turns.lanes_before", lane=lane)
    )


def claim(
    tx: Tx,
    lane: str,
    candidate: Candidate,
    draft: Draft,
    heard: Sequence[heard_rules.Prepared] = (),
    *,
    lease_ms: int,
    timeout_ms: int,
    claim_id: str | None = None,
) -> Started | None:
    """Claim a message: append it to its transcript and start the turn. None if it must not run now.

    `heard` is what its session has heard before it. That goes in front. Nor is anything claimed
    if a turn runs since an earlier claim with `claim_id`: that one is the caller's.

    Another process may have been faster. Or its session has ended meanwhile: then the
    message is dead, with events. A message that a turn had appended before is not appended
    again if it is still the last user message of the context.

    Raises:
        CannotBegin: nothing can be appended to its session.
    """
    # Critical section "claim". Invariant: what `peek` saw still holds. So a lane never
    # runs more than its concurrency, and a session's messages keep their order,
    # whatever other processes did since. A claim that is repeated starts no second turn.
    if claim_id is not None and tx.first("turns.claimed_as", lane=lane, claim_id=claim_id):
        return None
    now = _choose(tx, lane, tx.now_ms)
    if now is None or (now.inbox_no, now.digest) != (candidate.inbox_no, candidate.digest):
        return None  # another message is next, or its sender has edited this one
    if not heard_rules.is_current(tx, now.session_no, now.inbox_no, heard):
        return None  # likewise of those in front of it
    if now.ended_at_ms is not None:
        dead_letters.dead_letter(tx, now.inbox_no, now.session_no, "its session has ended")
        return None
    kind: TurnKind = "resume" if lane == RESUME_LANE else "message"
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
        claim_id=claim_id,
    )
    with _damage_of(candidate.inbox_no, candidate.session_no):
        heard_rules.append(tx, now.session_no, heard)
        entry_no, entry_id = _place_message(tx, now, draft, turn.turn_no)
    claimed = tx.run(
        "inbox.claim", inbox_no=candidate.inbox_no, turn_no=turn.turn_no, entry_no=entry_no
    )
    changes.require_one(claimed, f"inbox item {candidate.inbox_no} was queued")
    events.emit(
        tx,
        "turn_started",
        "operator",
        f"Turn {turn.turn_no} of session {candidate.session_id} began in lane {lane}",
        session_no=candidate.session_no,
        turn_no=turn.turn_no,
        inbox_no=candidate.inbox_no,
        lane=lane,
        turn_kind=kind,
        attempt=now.attempts + 1,
    )
    changes.line_up(tx, candidate.session_no)
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
        progress=turn.progress,
        notified=bool(notified.delayed),
    )


@dataclass(frozen=True, slots=True)
class Held:
    """A claim that is repeated: its message, and the turn that works on it."""

    candidate: Candidate
    started: Started


def held(tx: ReadTx, lane: str, claim_id: str) -> Held | None:
    """Read what an earlier claim with this id took from a lane. None: no such turn runs."""
    turn = tx.first("turns.claimed_as", lane=lane, claim_id=claim_id)
    if turn is None:
        return None
    row = tx.one("inbox.candidate", inbox_no=turn.inbox_no)
    payload = tx.one("inbox.payload", inbox_no=turn.inbox_no).payload
    notified = tx.one("inbox.notified", inbox_no=turn.inbox_no)
    kind: TurnKind = "resume" if lane == RESUME_LANE else "message"
    started = Started(
        turn_no=turn.turn_no,
        session_no=row.session_no,
        session_id=row.session_id,
        inbox_no=turn.inbox_no,
        entry_id=tx.one("transcript.by_no", entry_no=row.entry_no).entry_id,
        attempt=turn.attempt,
        kind=kind,
        expires_at_ms=turn.expires_at_ms,
        deadline_ms=turn.deadline_ms,
        timeout_ms=turn.deadline_ms - turn.started_at_ms - LEASE_GRACE_MS,
        progress_ms=row.timeout_ms if kind == "resume" else None,
        accepted_at_ms=notified.accepted_at_ms,
        edit_of=row.edit_of,
        progress=turn.progress,
        notified=bool(notified.delayed),
    )
    return Held(Candidate(**row._asdict(), payload=payload, heard=()), started)


@contextmanager
def _damage_of(
    inbox_no: int, session_no: int | None, *, only: type[SessionDBError] = SessionDBError
) -> Iterator[None]:
    """Tell the damage of one message and its session from that of the whole file.

    The block reads their own rows only. What repetition does not mend there concerns this
    message alone.

    Raises:
        CannotBegin: an error came out of the block that repetition does not mend.
    """
    try:
        yield
    except only as error:
        if error.retry:
            raise
        raise CannotBegin(inbox_no, session_no, error) from error


def _place_message(
    tx: Tx, now: statements.InboxCandidate, draft: Draft, turn_no: int
) -> tuple[int, str]:
    """Make a message the last user message of the context that its handler will read.

    Return its entry's number and id. Since an earlier turn appended it, a reset, a switch of
    branches, a compaction or later messages may have come between. Then it is appended again.
    """
    if now.entry_no is not None and context.is_last_user_message(tx, now.session_no, now.entry_no):
        return now.entry_no, tx.one("transcript.by_no", entry_no=now.entry_no).entry_id
    draft.idempotency_key = f"inbox:{now.inbox_no}"
    draft.by_program = not now.by_person
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
