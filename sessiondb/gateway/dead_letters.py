"""Dead letters: messages that are given up, each with its events.

    queued | claimed | interrupted --> dead

A message that is done or dead stays so: what is open no more is given up by nobody. The
user who waits for the answer is notified, and so is the operator, in the transaction that
gives the message up. The row names the user's event (`told_no`).
"""

from __future__ import annotations

from sessiondb import events
from sessiondb.backend import Tx

from . import changes, progress

OPEN = ("queued", "claimed", "interrupted")


def refuse(tx: Tx, inbox_no: int, session_no: int | None, reason: str) -> bool:
    """Give up a waiting message that no turn can work on. False if it is not waiting any more.

    Without `session_no` its events are about no session.
    """
    if tx.first("inbox.waiting", inbox_no=inbox_no) is None:
        return False
    dead_letter(tx, inbox_no, session_no, reason)
    return True


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
    changes.line_up(tx, tx.one("turns.session_of", turn_no=turn_no).session_no)
    return True


def dead_letter(tx: Tx, inbox_no: int, session_no: int | None, reason: str) -> None:
    """Give up a message: a dead letter, an event for the user who waits, one for the operator."""
    given_up = _give_up(tx, inbox_no, session_no, reason)
    changes.require_one(int(given_up), f"inbox item {inbox_no} was open")


def _give_up(tx: Tx, inbox_no: int, session_no: int | None, reason: str) -> bool:
    """Give up a message that is open. False if it is not: nobody is told then."""
    message = tx.first("inbox.notified", inbox_no=inbox_no)
    if message is None or message.state not in OPEN:
        return False
    told_no = notify_dead(tx, inbox_no, session_no)
    changed = tx.run("inbox.dead_letter", inbox_no=inbox_no, reason=reason, told_no=told_no)
    changes.require_one(changed, f"inbox item {inbox_no} was open")
    if message.state == "queued":  # those behind it wait for it no more
        changes.line_up(tx, message.session_no)
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
        **progress.last_noted(tx, inbox_no),
    )
