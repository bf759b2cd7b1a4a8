"""A database that came from a backup: nothing in it is sent or answered again by itself.

Since the backup was made, a gateway may have answered each message that was open in it, sent
each reply, and passed each event on. The backup cannot know. So `settle` runs before the
restored file gets its name, and leaves all of it to a person:

    messages that were queued or worked on   interrupted, and marked `restored`
    replies that were pending or under way   unknown
    readers of events                        moved to the newest event

A marked message is in no resume plan. `requeue` or `give_up` decides about it. A message
that a channel delivers again after the restore is new to the database if it was accepted after
the backup. Nothing here can tell that it was answered.
"""

from __future__ import annotations

from dataclasses import dataclass

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import NotFound

from . import changes, dead_letters, recovery

REASON = "it was open in a backup that was restored"
PAGE = 200


@dataclass(frozen=True, slots=True)
class Settled:
    """What a restored backup left to a person's decision."""

    messages: int
    replies: int


def settle(tx: Tx) -> Settled:
    """Leave all that would go on by itself to a person. May be repeated.

    One transaction, over a file that nobody else has open. It runs before its rows can be
    looked at by a gateway, so its size does not matter to one.
    """
    _release_all(tx)
    tx.run("restored.suspend_queued")
    messages = tx.run("restored.mark_interrupted", reason=REASON)
    replies = tx.run("restored.lose_replies", now_ms=tx.now_ms, reason=REASON)
    tx.run("restored.end_pauses")
    events.emit(
        tx,
        "backup_restored",
        "operator",
        f"A backup was restored: {messages:,} messages and {replies:,} replies wait for a decision",
        messages=messages,
        replies=replies,
    )
    tx.run("restored.skip_events")
    return Settled(messages, replies)


def _release_all(tx: Tx) -> None:
    """Release what every process held that had the database open when it was copied."""
    after_no = 0
    while page := recovery.open_instances(tx, after_no=after_no):
        for row in page:
            done = row.instance_no == tx.instance_no
            while not done:
                _, done = recovery.release(tx, row.instance_no, recovery.process_name(row))
        after_no = page[-1].instance_no


def waiting(tx: ReadTx, *, after_no: int = 0) -> list[int]:
    """Return a page of the messages that wait for a decision, oldest first."""
    return [row.inbox_no for row in tx.all("inbox.restored", after_no=after_no, limit=PAGE)]


def requeue(tx: Tx, inbox_no: int) -> None:
    """Put a message of a restored backup back into its lane.

    Raises:
        NotFound: it is not one, or not any more.
    """
    if not tx.run("inbox.requeue_restored", inbox_no=inbox_no, now_ms=tx.now_ms):
        raise _not_waiting(inbox_no)
    changes.line_up(tx, tx.one("inbox.notified", inbox_no=inbox_no).session_no)


def give_up(tx: Tx, inbox_no: int) -> None:
    """Make a message of a restored backup a dead letter. Its sender is told.

    Raises:
        NotFound: it is not one, or not any more.
    """
    if inbox_no not in waiting(tx, after_no=inbox_no - 1)[:1]:
        raise _not_waiting(inbox_no)
    session_no = tx.one("inbox.notified", inbox_no=inbox_no).session_no
    dead_letters.dead_letter(tx, inbox_no, session_no, f"given up by an operator: {REASON}")


def _not_waiting(inbox_no: int) -> NotFound:
    return NotFound(
        f"inbox item {inbox_no} is no message of a restored backup that waits for a decision; "
        "`sessiondb stuck DB` lists those"
    )
