"""Choose the cut of a compaction: the entry up to which its summary covers the context.

Source of the rule: pi `core/compaction/compaction.ts` and OpenClaw's extension of it. The
stricter parts (tool calls, unprocessed messages) are sessiondb's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessiondb.backend import ReadTx
from sessiondb.errors import NothingToCompact
from sessiondb.limits import CUT_SCAN_ROWS, CUT_SCAN_ROWS_FIRST

from .append import State
from .entries import CUT_ROLES, CUT_TYPES
from .paths import Segment, context_start, walk_back

if TYPE_CHECKING:
    from sessiondb import statements


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a summary ends: it covers everything on the path up to `cut_no`."""

    cut_no: int | None
    """None: all of the context is kept, and only the previous summary is written anew."""
    first_kept_no: int | None
    """The next entry that is a message. None: there is none yet."""


def choose_cut(tx: ReadTx, state: State, keep_recent_tokens: int, *, manual: bool) -> Cut:
    """Choose where the summary ends.

    Walks back from the head until `keep_recent_tokens` are kept, then to a place where a context
    may begin: never between a tool call and its result, never past an unanswered user message.
    Reads the small columns of the kept entries, and nothing of the history before them.

    A manual compaction happens even when everything would fit. It then keeps only unanswered
    messages. If the context holds nothing else, it keeps all of them.

    Raises:
        NothingToCompact: the cut would not move forward.
    """
    cut, oldest_no = _search(tx, state, keep_recent_tokens)
    if cut is None and manual:
        cut, oldest_no = _search(tx, state, 0)
        if cut is None and oldest_no is not None:
            cut = Cut(None, oldest_no)
    if cut is None:
        raise NothingToCompact(
            f"session {state.session_id}: its context (about {state.context_tokens:,} tokens) "
            f"holds nothing to summarise before the {keep_recent_tokens:,} tokens that are to be "
            "kept",
            session_id=state.session_id,
        )
    return cut


def _search(tx: ReadTx, state: State, keep_tokens: int) -> tuple[Cut | None, int | None]:
    """Return the cut (None: it would not move forward) and the oldest entry of the context.

    A place between two entries is a candidate when a context may begin there and every unanswered
    message lies after it. The first candidate that keeps enough is chosen. Where the entry that
    reaches the budget is a tool result, the last candidate after it is chosen instead (pi's rule:
    a long result does not overrun the budget).
    """
    start_no = context_start(state.boundary_no, state.first_kept_no)
    kept_tokens, answered, waiting = 0, False, False
    candidate: Cut | None = None
    chosen: Cut | None = None
    newer: statements.CompactionCutPage | None = None
    oldest_no: int | None = None
    for row in _context_rows(tx, state.head_no, start_no):
        if row.role == "assistant" and not answered:
            answered = True
            if not waiting and state.open_calls == 0:
                candidate = Cut(state.head_no, None)
        waiting = waiting or row.role == "user"
        if newer is not None and answered and _may_begin(newer) and row.open_calls == 0:
            candidate = Cut(row.entry_no, newer.entry_no)
        if chosen is None and candidate is not None and kept_tokens >= keep_tokens:
            chosen = candidate
        if row.projection:
            oldest_no = row.entry_no
            if chosen is not None and chosen.cut_no is not None and row.entry_no <= chosen.cut_no:
                return chosen, oldest_no  # there is something before the cut
            kept_tokens += row.tokens
        if (
            chosen is None
            and candidate is not None
            and kept_tokens >= keep_tokens
            and not _may_begin(row)
        ):
            chosen = candidate
        if row.projection:
            newer = row  # a boundary or a setting reaches no model: no context begins with it
    return None, oldest_no


def _may_begin(row: statements.CompactionCutPage) -> bool:
    return row.role in CUT_ROLES or row.type in CUT_TYPES


def _context_rows(
    tx: ReadTx, head_no: int | None, start_no: int | None
) -> Iterator[statements.CompactionCutPage]:
    # The kept part is usually short, and reading ahead happens inside the write transaction. So
    # each page is twice as long as the one before.
    limit = CUT_SCAN_ROWS_FIRST

    def page(segment: Segment, high_no: int) -> list[statements.CompactionCutPage]:
        nonlocal limit
        rows = tx.all(
            "compaction.cut_page",
            branch_no=segment.branch_no,
            low_no=segment.low_no,
            high_no=high_no,
            limit=limit,
        )
        limit = min(2 * limit, CUT_SCAN_ROWS)
        return rows

    return walk_back(tx, head_no, start_no, page)
