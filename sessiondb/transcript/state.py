"""A session's row inside one transaction: what an append must know, and what it moves.

It is read once and written back once, for any number of entries.
"""

from __future__ import annotations

from dataclasses import dataclass

from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import InvalidInput, NotFound, SessionEnded

from .formats import known, named, spoken
from .paths import require_entries


@dataclass(slots=True)
class State:
    """A session inside one transaction: its row, and what its head passes on to the next entry."""

    session_no: int
    session_id: str
    version: int
    ended_at_ms: int | None
    last_seq: int
    epoch: int
    head_no: int | None
    branch_no: int | None
    boundary_no: int | None
    first_kept_no: int | None
    context_tokens: int
    tokens_fresh: int
    name: str | None
    archived_at_ms: int | None
    forked_at_no: int | None
    heard_at_ms: int | None
    formats: int
    ordered_from_no: int | None
    open_marks: str | None
    asked_no: int | None
    search_behind: int
    head_id: str | None = None
    position: int = 0
    tokens_total: int = 0
    open_calls: int = 0
    model_no: int | None = None
    thinking_no: int | None = None


def load_state(tx: ReadTx, session_no: int) -> State:
    """Read a session's state.

    Raises:
        NotFound: no such session.
    """
    row = tx.first("transcript.state", session_no=session_no)
    if row is None:
        raise no_session(session_no)
    return State(*row)  # the statement's columns stand in the order of the fields


def no_session(session_no: int) -> NotFound:
    """Return the error for a session number that is not in this database.

    Sessions are never deleted, so the number comes from another database.
    """
    return NotFound(
        f"there is no session number {session_no} in this database; a session's handle is good "
        "for the database that it came from. List sessions with `sessiondb sessions DB --all`"
    )


def no_entry(session_id: str, entry_id: str, wanted: str = "") -> NotFound:
    """Return the error for an entry that a session does not have, or not where it is wanted."""
    return NotFound(
        f"session {session_id} has no entry {entry_id!r}{wanted}; "
        f"list its entries with `sessiondb show DB {session_id} --json`",
        session_id=session_id,
        entry_id=entry_id,
    )


def require_live(state: State) -> None:
    """Refuse to continue a session that has ended.

    Raises:
        SessionEnded: it has. As SessionArchived if its entries are in an archive.
    """
    require_entries(state.session_id, state.archived_at_ms)
    if state.ended_at_ms is not None:
        raise SessionEnded(
            f"session {state.session_id} has ended; fork it to go on from it",
            session_id=state.session_id,
        )


def save_state(tx: Tx, state: State) -> None:
    """Write a session's pointers back: one row, once per transaction for any number of entries."""
    tx.run(
        "transcript.save_state",
        now_ms=tx.stamp_ms,
        session_no=state.session_no,
        last_seq=state.last_seq,
        epoch=state.epoch,
        head_no=state.head_no,
        branch_no=state.branch_no,
        boundary_no=state.boundary_no,
        first_kept_no=state.first_kept_no,
        context_tokens=state.context_tokens,
        tokens_fresh=state.tokens_fresh,
        name=state.name,
        heard_at_ms=state.heard_at_ms,
        formats=state.formats,
        ordered_from_no=state.ordered_from_no,
        open_marks=state.open_marks,
        asked_no=state.asked_no,
    )
    # Apart, because the statement above would write a page of its index each time.
    if state.search_behind != 1:
        tx.run("search.mark_behind", session_no=state.session_no)
        state.search_behind = 1


def narrow_formats(state: State, formats: int) -> None:
    """Leave a session only these of its formats."""
    if state.head_no is not None and spoken(formats) is not spoken(state.formats):
        # What came before was taken for another format.
        state.ordered_from_no = state.asked_no = None
    state.formats = formats


def agreed_formats(session_id: str, had: int, may_be: int, what: str) -> int:
    """Return the formats that a session's items may have, if `what` may have these.

    Raises:
        InvalidInput: none is left.
    """
    agreed = had & may_be
    if agreed:
        return agreed
    seems = f"is of {named(may_be)}" if may_be else "has marks of formats that no provider mixes"
    raise InvalidInput(
        f"session {session_id} holds messages of the format {named(had)}, and {what} {seems}. "
        "Nothing was changed. Convert the message, or begin another session for its format: "
        "db.create_session(format=...), or another key",
        session_id=session_id,
        format=known(had),
    )
