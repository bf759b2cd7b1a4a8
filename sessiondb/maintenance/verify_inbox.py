"""The inbox: each message beside its turn, its entry, the event of its end and its successor.

The rule that all of it serves: every accepted message ends answered, or dead with an event
that its sender can see, or superseded by a turn whose context contains it, with an event.

* Answered: a turn of it completed.
* Heard (`accept(answer=False)`): nobody waits for an answer, so no event tells of its end.
* Dead, dropped, withdrawn or stopped: `told_no` is an event for its sender, of the kind that
  belongs to that end, and the event exists. Pruning keeps such events as long as their
  messages.
* Superseded: the other message is a later one of the same session, and a turn answered or a
  person stopped it. The context of that turn contained this message's entry. This is derived
  from the two entries alone, which never change, whatever has become of the context since.

Beside it: a message that is marked to wait (`inbox.waits`) does wait for another one. No look
would read it otherwise.

What was pruned or archived is not missed. A message that ended before schema 4 has 0 where the
event's number stands: its event is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sessiondb.backend import ReadTx
from sessiondb.limits import SEQ_BITS

from .verify_steps import Severity, Steps, at, is_on_path, pages

if TYPE_CHECKING:
    from sessiondb import statements

Add = Callable[[str, str | None, str, Severity], None]

OPEN: Final = ("queued", "claimed", "interrupted")
_ENDED: Final = ("completed", "aborted")


def walk(add: Add) -> Steps:
    """Yield the steps of a walk over the inbox. `add` takes a check, a session and a finding."""
    return pages(
        lambda tx, after, limit: tx.all("verify.inbox", after_no=after, limit=limit),
        lambda row: row.inbox_no,
        lambda tx, row: _Message(tx, row, add).check(),
        first=0,
    )


class _Message:
    """One message and its counterparts, of one snapshot."""

    def __init__(self, tx: ReadTx, row: statements.VerifyInbox, add: Add) -> None:
        self.tx = tx
        self.row = row
        self._add = add

    def check(self) -> None:
        """Report everything that does not hold for this message."""
        if self.row.waits_in_vain:
            self.add("it is marked to wait for another message, and there is none", "queue")
        self._check_turn()
        self._check_counts()
        self._check_entry()
        self._check_end()
        if self.row.superseded_by and self.row.state != "done":
            self.add(f"item {self.row.superseded_by} superseded it", "unanswered")
        for fault in (fault_of_event(self.row), fault_of_successor(self.tx, self.row)):
            if fault is not None:
                self.add(fault, "unanswered")

    def add(self, what: str, check: str = "inbox", severity: Severity = "error") -> None:
        """Report that the message is in its state, but something is not so."""
        name = f"inbox item {self.row.inbox_no} is {self.row.state}, but"
        self._add(check, self.row.session_id, f"{name} {what}", severity)

    def _check_turn(self) -> None:
        row = self.row
        if row.state == "claimed" and row.turn_state != "running":
            self.add(f"its turn {row.turn_no} is {row.turn_state or 'not there'}")
        if row.state != "claimed" and row.turn_state == "running":
            self.add(f"its turn {row.turn_no} is running")
        if row.turn_state is not None and (
            row.turn_inbox_no != row.inbox_no or row.turn_session_no != row.session_no
        ):
            self.add(f"its turn {row.turn_no} worked on item {row.turn_inbox_no}")

    def _check_counts(self) -> None:
        """Check what counts its attempts, and where it came from."""
        row = self.row
        own_turn = row.turn_inbox_no == row.inbox_no and row.state != "queued"
        if not 0 <= row.stops <= row.attempts or (own_turn and row.attempts != row.turn_attempt):
            self.add(
                f"it counts {row.attempts} attempts, of which {row.stops} were stopped in order, "
                f"and its turn was number {row.turn_attempt}",
                severity="warning",
            )
        if row.dropped_lane is not None and row.state in (*OPEN, "dead"):
            self.add(f"its lane {row.dropped_lane!r} was dropped, so no loop claims it", "lane")
        if row.lane_before is None:
            return
        if row.found_lane_before is None:
            self.add(f"it came from lane {row.lane_before!r}, which is not there")
        elif row.lane != "resume":
            self.add(f"it came from lane {row.lane_before!r}, and is no resume", severity="warning")

    def _check_entry(self) -> None:
        row = self.row
        if row.has_text and not row.is_json and row.state in (*OPEN, "heard"):
            self.add("its text is not JSON, so no turn can work on it")
        if row.state == "heard" and (row.entry_no is not None or row.attempts):
            self.add("it was appended before, or a turn worked on it")
        begun = row.state == "claimed" or (row.state == "interrupted" and not row.restored)
        if begun and (row.entry_no is None or row.attempts < 1):
            self.add("it counts no attempt, or has no entry")
        if row.entry_no is None:
            return
        if row.found_type != "message" and row.archived_at_ms is None:
            self.add(f"its entry {at(row.entry_no)} is not in the transcript")
        if row.found_type == "message" and row.has_text:
            self.add(f"its entry {at(row.entry_no)} has its text as well", severity="warning")
        key, own = row.idempotency_key or "", f"inbox:{row.inbox_no}"
        if row.found_type == "message" and key != own and not key.startswith(f"{own}:"):
            self.add(
                f"its entry {at(row.entry_no)} has the idempotency key {row.idempotency_key!r}",
                severity="warning",
            )
        if row.entry_no >> SEQ_BITS != row.session_no:
            self.add(f"its entry {at(row.entry_no)} lies in another session")

    def _check_end(self) -> None:
        """Check that a message that ended was answered, or somebody was told."""
        row = self.row
        if row.state in OPEN:
            if row.told_no is not None or row.superseded_by is not None:
                self.add("its sender was told that it ended", "unanswered")
            if row.archived_at_ms is not None:
                self.add("its session is archived, so no turn can work on it", "unanswered")
        elif row.state == "dead" and row.archived_at_ms is not None and row.told_no:
            self.add("its session is archived, so nobody can requeue it", "unanswered")
        if row.heard and (row.told_no is not None or row.superseded_by is not None):
            self.add("it is not for the agent, and its sender was told of an end", "unanswered")
        if row.told_no is not None or row.state in OPEN or row.heard:
            return
        if row.state == "dead":
            self.add("no event told its sender", "unanswered")
        elif row.turn_state != "completed":
            self.add(
                f"its turn {row.turn_no} is {row.turn_state or 'not there'}, "
                "and no event told its sender",
                "unanswered",
            )


def fault_of_event(row: statements.VerifyInbox) -> str | None:
    """Return why the event of an end is not there, not this message's, or not for its sender."""
    if not row.told_no:
        return None
    if row.told_kind is None:
        return f"event {row.told_no}, which told its sender, is not there"
    if (
        row.told_kind in _kinds_of_end(row)
        and row.told_audience == "user"
        and row.told_inbox_no == row.inbox_no
        and row.told_session_no in (None, row.session_no)
    ):
        return None
    return (
        f"event {row.told_no}, which is to have told its sender, is {row.told_kind} for "
        f"{row.told_audience} about item {row.told_inbox_no}"
    )


def _kinds_of_end(row: statements.VerifyInbox) -> tuple[str, ...]:
    if row.superseded_by is not None:
        return ("message_superseded",)
    if row.turn_state == "aborted":
        return ("turn_aborted",)
    return ("message_dead",) if row.state == "dead" else ("message_dead", "message_withdrawn")


def fault_of_successor(tx: ReadTx, row: statements.VerifyInbox) -> str | None:
    """Return why the message that superseded this one has not ended with it in its context."""
    other_no = row.superseded_by
    other = tx.first("verify.successor", inbox_no=other_no) if other_no else None
    if not other_no or other is None:  # not superseded, not known any more, or pruned
        return None
    if other_no <= row.inbox_no or other.session_no != row.session_no:
        return f"item {other_no}, which superseded it, is no later one of its session"
    if other.state != "done" or other.turn_state not in _ENDED:
        return (
            f"item {other_no}, which superseded it, is {other.state}, and its turn "
            f"{other.turn_no} is {other.turn_state or 'not there'}"
        )
    if row.archived_at_ms is None and not _was_in_context(tx, row, other):
        return f"the turn of item {other_no}, which superseded it, did not have it in its context"
    return None


def _was_in_context(
    tx: ReadTx, row: statements.VerifyInbox, other: statements.VerifySuccessor
) -> bool:
    """Tell whether the context that ended with another message's entry contained this one's."""
    if row.entry_no is None or other.entry_no is None or row.entry_no >= other.entry_no:
        return False
    if not is_on_path(tx, row.entry_no, row.entry_branch_no, other.branch_no, other.entry_no):
        return False
    if other.boundary_no is None or row.entry_no > other.boundary_no:
        return True
    return other.first_kept_no is not None and row.entry_no >= other.first_kept_no
