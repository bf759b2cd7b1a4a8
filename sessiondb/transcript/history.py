"""What changed between two epochs of a session: the entries that left the context, and came.

A compaction removes entries from the context, and puts a summary there. Nothing of them is
deleted, so both contexts can be read again. They are compared by the numbers of their
entries. Memory is bounded by these numbers and by the entries that differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sessiondb.backend import ReadTx
from sessiondb.errors import NotFound
from sessiondb.limits import PAGE_ENTRIES_MAX
from sessiondb.models import ContextDiff, Entry

from .paths import context_start, require_entries, segments
from .state import no_session

if TYPE_CHECKING:
    from sessiondb import statements

    Pointers = statements.ContextNow | statements.ContextThen


def diff(tx: ReadTx, session_no: int, before: int, after: int) -> ContextDiff:
    """Compare the contexts at the ends of two epochs, in one snapshot.

    Raises:
        NotFound: no such session or epoch.
        SessionArchived: its entries are in an archive.
    """
    old = _entries_at(tx, _pointers(tx, session_no, before))
    new = _entries_at(tx, _pointers(tx, session_no, after))
    return ContextDiff(
        before=before,
        after=after,
        removed=_read(tx, (old[number] for number in sorted(old.keys() - new.keys()))),
        added=_read(tx, (new[number] for number in sorted(new.keys() - old.keys()))),
        kept=len(old.keys() & new.keys()),
    )


def _pointers(tx: ReadTx, session_no: int, epoch: int) -> Pointers:
    now = tx.first("context.now", session_no=session_no)
    if now is None:
        raise no_session(session_no)
    require_entries(now.session_id, now.archived_at_ms)
    if epoch == now.epoch:
        return now
    then = tx.first("context.then", session_no=session_no, epoch=epoch)
    if then is None:
        raise NotFound(
            f"session {now.session_id} has no epoch {epoch}; its current epoch is {now.epoch}",
            session_id=now.session_id,
            epoch=epoch,
        )
    return then


Place = tuple[int, int]
"""An entry's branch and its number."""


def _entries_at(tx: ReadTx, at: Pointers) -> dict[int, Place]:
    """Return the entries of a context, by number: what reaches the model, and its boundary."""
    found: dict[int, Place] = {}
    start_no = context_start(at.boundary_no, at.first_kept_no)
    for segment in segments(tx, at.head_no, stop_no=start_no):
        low_no = segment.low_no
        while True:
            rows = tx.all(
                "history.in_context",
                branch_no=segment.branch_no,
                low_no=low_no,
                high_no=segment.high_no,
                boundary_no=at.boundary_no,
                limit=PAGE_ENTRIES_MAX,
            )
            found |= {row.entry_no: (segment.branch_no, row.entry_no) for row in rows}
            if len(rows) < PAGE_ENTRIES_MAX:
                break
            low_no = rows[-1].entry_no + 1
    return found


def _read(tx: ReadTx, places: Iterable[Place]) -> tuple[Entry, ...]:
    return tuple(
        Entry(**row._asdict())
        for branch_no, entry_no in places
        for row in tx.page(
            "transcript.span_forward",
            branch_no=branch_no,
            low_no=entry_no,
            high_no=entry_no,
            limit=1,
        ).rows
    )
