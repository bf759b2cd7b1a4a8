"""What a person stops: a turn, a message that waits, or a turn in the way of a change.

    queued | interrupted | heard --> done    withdrawn: its sender took it back, with an event

A turn is stopped in the database, by whichever process, and can write no more (`turns.abort`).
The process that runs it sees that at once: its lanes look after every commit.

Critical section "change". Lock: the database's write lock. Invariant: a branch, a reset or an
undo from outside and a turn of the session do not cross. So no answer stands on a path, or in
a context, without its question. The change is refused while a turn runs, or ends the turn in
the same transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import NotFound, SessionBusy
from sessiondb.models import Withdrawn

from . import changes, inbox, progress, turns

if TYPE_CHECKING:
    from sessiondb import statements


WAITING = ("queued", "interrupted", "heard")
"""The states of a message that may be taken back."""


def end_running(
    tx: Tx, session_no: int, *, own_turn_no: int | None, reason: str | None
) -> int | None:
    """See to it that no turn of a session runs, but for the caller's own.

    With a `reason` the one that runs is stopped, on a person's behalf. Return its number, None
    if none ran.

    Raises:
        SessionBusy: one runs, and there is no reason to stop it.
    """
    running = tx.first("turns.running_of_session", session_no=session_no)
    if running is None or running.turn_no == own_turn_no:
        return None
    if reason is not None:
        turns.abort(tx, running.turn_no, reason)
        return running.turn_no
    turn = tx.one("turns.get", turn_no=running.turn_no)
    retry_after_ms = inbox.until_a_place_ms(tx, session_no, turn.lane, running)
    holder = f"{running.operation} (turn {running.turn_no}, pid {running.pid} on {running.host})"
    raise SessionBusy(
        f"session {turn.session_id} is busy with {holder}, whose answer would stand without its "
        f"question. Nothing was changed. Retry in {retry_after_ms} ms, or stop the turn with "
        "abort_running=True",
        session_id=turn.session_id,
        holder=holder,
        retry_after_ms=retry_after_ms,
    )


def require_idle(tx: Tx, session_no: int, own_turn_no: int | None) -> None:
    """Refuse a change while a turn of a session runs, other than the caller's own.

    Raises:
        SessionBusy: one does.
    """
    end_running(tx, session_no, own_turn_no=own_turn_no, reason=None)


def ended(tx: ReadTx, numbers: str) -> list[int]:
    """Return those turns of a JSON array that run no more: somebody else has ended them."""
    return [row.turn_no for row in tx.all("stopping.ended", turns=numbers)]


# -- messages that wait ------------------------------------------------------------------------


def withdraw(tx: Tx, channel: str, event_id: str) -> Withdrawn:
    """Take a message back, with its edits. May be repeated. See `SessionDB.withdraw`."""
    known = tx.first("inbox.by_event", channel=channel, event_id=event_id)
    if known is None:
        return Withdrawn("unknown", None, None, None)
    texts = tx.all("stopping.texts", inbox_no=known.inbox_no)
    taken = [row for row in texts if row.state in WAITING]
    for row in taken:
        withdraw_row(tx, row)
    turn_no = next((row.turn_no for row in texts if row.state == "claimed"), None)
    outcome: Literal["running", "withdrawn", "done"] = (
        "running" if turn_no is not None else "withdrawn" if taken else "done"
    )
    return Withdrawn(outcome, known.inbox_no, known.session_id, turn_no)


def withdraw_one(tx: Tx, inbox_no: int) -> None:
    """Take a message back by its number, for an operator.

    Raises:
        NotFound: it does not wait.
    """
    row = tx.first("stopping.text", inbox_no=inbox_no)
    if row is None or row.state not in WAITING:
        raise NotFound(
            f"inbox item {inbox_no} does not wait (it is {row.state if row else 'not there'}); "
            "list those that do with `sessiondb inbox DB`",
            inbox_no=inbox_no,
        )
    withdraw_row(tx, row)


def withdraw_row(
    tx: Tx, row: statements.StoppingTexts | statements.StoppingText | statements.DeletionWaiting
) -> None:
    """Take back a message that waits. Its sender is told, if that waits for an answer."""
    told_no = None
    if row.state != "heard":  # nobody waits for an answer to that
        told_no = events.emit(
            tx,
            "message_withdrawn",
            "user",
            "Your message was taken back. It will not be answered.",
            session_no=row.session_no,
            inbox_no=row.inbox_no,
            **progress.last_noted(tx, row.inbox_no),
        )
    withdrawn = tx.run("stopping.withdraw", inbox_no=row.inbox_no, told_no=told_no)
    changes.require_one(withdrawn, f"inbox item {row.inbox_no} waited")
    changes.line_up(tx, row.session_no)
