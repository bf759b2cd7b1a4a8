"""Turns: one run of the agent over one claimed message, with a fencing token, until its end.

    running --> completed     entries, replies and the end, in one transaction
    running --> failed        the message is retried after a pause, or dead
    running --> aborted       a person stopped it
    running --> interrupted   its process died or fell silent. The resume plan decides

`claims.py` starts a turn, and `leases.py` says how long it may be silent.

Invariants, enforced by the database and so across processes:

* A turn's number only grows, and is its fencing token. Every write of a turn checks, in its
  own transaction, that the turn is still running. A holder that was taken over cannot
  write, however late it wakes up.
* A turn ends once, together with what its end says of the message: done, waiting for its
  retry or its resume, or dead.
* A message is answered once. An answer finishes the interrupted messages that it had in its
  context, and their senders are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.errors import NotFound, TurnLost
from sessiondb.limits import (
    INBOX_ATTEMPTS_MAX,
    INBOX_PAUSES_S,
    INTERRUPTED_ATTEMPTS_MAX,
    RESUME_TIME_GROWTH,
    retry_pause_ms,
)
from sessiondb.models import Receipt
from sessiondb.transcript import context, registry
from sessiondb.transcript.append import append as append_entries
from sessiondb.transcript.entries import Draft

from . import changes, dead_letters, inbox, outbox, progress

if TYPE_CHECKING:
    from sessiondb import statements

Ended = Literal["completed", "failed", "aborted", "interrupted"]

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
        tx, session_no, reason=reason, keep_from=keep_from, timestamp=iso_from_ms(tx.stamp_ms)
    )


def note_progress(tx: Tx, turn_no: int, text: str) -> None:
    """Note JSON in the place of what was noted before, for the next attempt at the message.

    Raises:
        TurnLost: the turn is not running any more. Nothing was noted.
    """
    if not tx.run("turns.note_progress", turn_no=turn_no, progress=text):
        require_running(tx, turn_no)


def notify_delayed(tx: Tx, turn_no: int) -> None:
    """Emit an event, once for a message, because the answer takes long.

    Raises:
        TurnLost: the turn is not running any more.
    """
    turn = require_running(tx, turn_no)
    if tx.run("inbox.mark_delayed", inbox_no=turn.inbox_no):  # zero: notified while it waited
        accepted_at_ms = tx.one("inbox.notified", inbox_no=turn.inbox_no).accepted_at_ms
        events.emit(
            tx,
            "message_delayed",
            "user",
            "Your message is being worked on; the answer takes longer than usual.",
            session_no=turn.session_no,
            inbox_no=turn.inbox_no,
            turn_no=turn_no,
            waited_ms=max(0, tx.now_ms - accepted_at_ms),
        )


# -- ending -----------------------------------------------------------------------------------


def complete(
    tx: Tx,
    turn_no: int,
    drafts: Sequence[Draft],
    replies: Sequence[tuple[str, str]],
    asks: Sequence[inbox.Incoming] = (),
    *,
    incomplete: bool,
    reason: str | None,
) -> list[Receipt]:
    """End a turn with its results: entries, replies, questions to others and the end itself.

    All or nothing. `replies` are (target, JSON). `incomplete` says that there is no usable
    answer. The user is notified.

    Raises:
        TurnLost: the turn was taken over. Nothing is written.
        SessionBusy, SessionEnded, NotFound, InvalidInput: one of `asks` cannot be accepted.
            Likewise.
    """
    turn = require_running(tx, turn_no)
    receipts = append_entries(tx, turn.session_no, drafts) if drafts else []
    for ask in asks:
        inbox.accept(tx, ask)
    outbox.add(tx, turn.session_no, turn_no, replies)
    _finish(tx, turn, "completed", reason, incomplete=incomplete)
    _finish_message(tx, turn, reason, told_no=None)
    events.emit(
        tx,
        "turn_completed",
        "operator",
        f"Turn {turn_no} of session {turn.session_id} completed"
        + (", without a usable answer" if incomplete else ""),
        session_no=turn.session_no,
        turn_no=turn_no,
        inbox_no=turn.inbox_no,
        attempt=turn.attempt,
        took_ms=max(0, tx.now_ms - turn.started_at_ms),
        incomplete=incomplete,
        replies=len(replies),
    )
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
    changes.line_up(tx, turn.session_no)
    return receipts


def fail(
    tx: Tx,
    turn_no: int,
    reason: str,
    *,
    retry: bool,
    attempts_max: int = INBOX_ATTEMPTS_MAX,
    pauses_s: Sequence[float] = INBOX_PAUSES_S,
    cut_off: bool = False,
) -> None:
    """End a turn that failed. Its message is retried after a pause, or dead after the last attempt.

    An operator is told each time: a provider that fails is seen at once, and not when the last
    attempt has failed, too.

    A resume that was `cut_off` gets twice the time at its next attempt. So one that makes no
    progress before its answer is there ends within its attempts, if its lane gives it the time.

    Raises:
        TurnLost: the turn is not running any more.
    """
    turn = require_running(tx, turn_no)
    _finish(tx, turn, "failed", reason)
    strikes = tx.one("inbox.notified", inbox_no=turn.inbox_no).strikes
    again = retry and strikes < attempts_max
    at_ms = tx.now_ms + retry_pause_ms(strikes, pauses_s)
    after = f"tried again after {(at_ms - tx.now_ms) / 1000:g} s" if again else "given up"
    events.emit(
        tx,
        "turn_failed",
        "operator",
        f"Turn {turn_no} of session {turn.session_id} failed: {reason}. Its message is {after}",
        session_no=turn.session_no,
        turn_no=turn_no,
        inbox_no=turn.inbox_no,
        attempt=turn.attempt,
        retry_at_ms=at_ms if again else None,
    )
    if again:
        put = tx.run(
            "inbox.retry",
            inbox_no=turn.inbox_no,
            turn_no=turn_no,
            available_at_ms=at_ms,
            more_time=RESUME_TIME_GROWTH if cut_off else 1,
            reason=reason,
        )
        changes.require_one(put, _claimed_by(turn))
    else:
        dead_letters.dead_letter(tx, turn.inbox_no, turn.session_no, reason)
    changes.line_up(tx, turn.session_no)


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
        **progress.last_noted(tx, turn.inbox_no),
    )
    events.emit(
        tx,
        "turn_aborted",
        "operator",
        f"Turn {turn_no} of session {turn.session_id} was stopped: {reason}",
        session_no=turn.session_no,
        turn_no=turn_no,
        inbox_no=turn.inbox_no,
        attempt=turn.attempt,
    )
    _finish_message(tx, turn, reason, told_no=told_no)
    _supersede(tx, turn, "The work on your earlier message was stopped, too.")
    changes.line_up(tx, turn.session_no)


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
        changes.require_one(suspended, _claimed_by(turn))
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
        dead_letters.dead_letter(
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
    changes.line_up(tx, turn.session_no)
    return True


# -- what an end finishes beside its own message ------------------------------------------------


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
        **progress.last_noted(tx, inbox_no),
    )
    superseded = tx.run(
        "inbox.supersede",
        inbox_no=inbox_no,
        superseded_by=turn.inbox_no,
        told_no=told_no,
        reason=f"turn {turn.turn_no} of a newer message, {turn.inbox_no}, had it in its context",
    )
    changes.require_one(superseded, f"inbox item {inbox_no} was interrupted")


# -- rows -----------------------------------------------------------------------------------------


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
    changes.require_one(finished, f"turn {turn.turn_no} was running")


def _finish_message(
    tx: Tx, turn: statements.TurnsGet, reason: str | None, *, told_no: int | None
) -> None:
    finished = tx.run(
        "inbox.finish", inbox_no=turn.inbox_no, turn_no=turn.turn_no, reason=reason, told_no=told_no
    )
    changes.require_one(finished, _claimed_by(turn))


def _claimed_by(turn: statements.TurnsGet) -> str:
    return (
        f"inbox item {turn.inbox_no} was claimed by turn {turn.turn_no} "
        f"of session {turn.session_id}"
    )
