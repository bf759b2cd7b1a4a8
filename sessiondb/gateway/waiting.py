"""Waiting for what becomes of a message: its answer, or the reason why there is none.

The waiter reads the message's row, and sleeps until a commit of this process or of another one.
It keeps nothing: a waiter that dies may wait again, also in another process.

What answered a message are the entries behind its own, up to the next message of the queue. A
message that a newer one superseded was answered by that one's turn.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sessiondb.backend import Database, ReadTx
from sessiondb.errors import NotFound, SessionDBError
from sessiondb.limits import PAGE_ROWS, SEQ_BITS, SEQ_MAX
from sessiondb.models import Entry, Outcome, OutcomeState

from . import retry

if TYPE_CHECKING:
    from sessiondb import statements

LOOK_AGAIN_S = 60.0
"""A waiter looks at least so often. Commits wake it, so this is for a lost one only."""
_OPEN = ("queued", "claimed", "interrupted", "heard")


async def wait(db: Database, inbox_no: int, timeout_s: float | None) -> Outcome:
    """Wait until a message has ended. See `SessionDB.wait`."""
    until = db.clock.monotonic() + timeout_s if timeout_s is not None else None
    backoff = retry.Backoff(f"waiting for inbox item {inbox_no}")
    while True:
        seen, pause_s = db.backend.change_count, LOOK_AGAIN_S
        try:
            ended = await db.read("inbox.outcome", lambda tx: _ended(tx, inbox_no))
            if ended is not None:
                return replace(ended, entries=tuple(await _entries(db, inbox_no)))
        except SessionDBError as error:
            pause_s = backoff.next_delay(error)
        left_s = until - db.clock.monotonic() if until is not None else pause_s
        if left_s <= 0:
            raise TimeoutError(
                f"inbox item {inbox_no} has not ended after {timeout_s:g} s. Nothing was changed; "
                "wait again, or see `sessiondb inbox DB`"
            )
        await db.backend.wait_change(seen, min(left_s, pause_s))


def _ended(tx: ReadTx, inbox_no: int) -> Outcome | None:
    row = tx.first("inbox.outcome", inbox_no=inbox_no)
    if row is None:
        raise NotFound(
            f"there is no inbox item {inbox_no}: it was never accepted, or it was pruned",
            inbox_no=inbox_no,
        )
    if row.state in _OPEN:
        return None
    return Outcome(inbox_no, row.session_id, _state(row), row.reason, row.superseded_by or None, ())


def _state(row: statements.InboxOutcome) -> OutcomeState:
    if row.heard:
        return "heard" if row.entry_no is not None else "withdrawn"
    if row.superseded_by is not None:
        return "answered" if row.turn_state != "aborted" else "stopped"
    if row.told_kind == "message_withdrawn":
        return "withdrawn"
    if row.state == "dead" or row.told_kind == "message_dead":
        return "given_up"
    if row.turn_state == "aborted":
        return "stopped"
    if row.turn_state == "completed":
        return "incomplete" if row.incomplete else "answered"
    return "given_up"


async def _entries(db: Database, inbox_no: int) -> list[Entry]:
    """Read what answered a message, a page at a time."""
    found: list[Entry] = []
    after_no: int | None = None
    while True:
        look = partial(_page, inbox_no=inbox_no, after_no=after_no)
        page, after_no = await db.read("inbox.answer", look)
        found += page
        if after_no is None:
            return found


def _page(tx: ReadTx, inbox_no: int, after_no: int | None) -> tuple[list[Entry], int | None]:
    """Return a page of the entries behind a message's own. Also the cursor, None at the end."""
    own = tx.first("inbox.answered_at", inbox_no=inbox_no)
    if own is None or own.entry_no is None or own.branch_no is None:
        return [], None  # it has no entry, or that is archived
    rows, more = tx.page(
        "transcript.span_forward",
        low_no=(after_no or own.entry_no) + 1,
        high_no=own.entry_no >> SEQ_BITS << SEQ_BITS | SEQ_MAX,
        branch_no=own.branch_no,
        limit=PAGE_ROWS,
    )
    found: list[Entry] = []
    for row in rows:
        if (row.idempotency_key or "").startswith("inbox:"):
            return found, None
        found.append(Entry(**row._asdict()))
    return found, rows[-1].entry_no if more else None
