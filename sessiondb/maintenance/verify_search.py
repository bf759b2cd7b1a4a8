"""Verify the search index: it has the entries that it says it has, and no others.

    an entry is in the index if and only if it has words, and its number is behind `after_no` and
    up to `indexed_no` of its session's row in `search_session`

    `indexed_no` of a session that is not marked (`search_behind`) is its last entry

SQLite checks the rest of it, where it checks the file: that each part can be read, and agrees with
the others. No message depends on the index, so a fault is a warning. A search may miss an entry
then, until the index is built anew.

Each step is a snapshot of its own, and the rule holds in each, whatever fills the index meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from sessiondb.backend import ReadTx
from sessiondb.errors import SearchDamaged
from sessiondb.transcript.paths import entry_number

from .verify_steps import PAGE_ROWS, Severity, Steps

if TYPE_CHECKING:
    from sessiondb import statements

Add = Callable[[str, str | None, str, Severity], None]


def walk(add: Add) -> Steps:
    """Yield the steps of the whole index."""
    yield from _documents(add)
    yield from _sessions(add)


def forget_what_was_read(tx: ReadTx) -> None:
    """Let SQLite read the parts of the index anew before it checks them.

    A connection that has searched before keeps a list of them. A search compares it with the file,
    and the check of the file does not: it would take parts that were merged for damaged ones.
    """
    # What cannot be read is found by the check itself.
    with suppress(SearchDamaged):
        tx.all("search.any_match", words='"x"')


def _documents(add: Add) -> Steps:
    """Compare each number in the index with its entry."""
    after_no: int | None = 0

    def step(tx: ReadTx) -> None:
        nonlocal after_no
        page = tx.all("search.documents", after_no=after_no, limit=PAGE_ROWS)
        for row in page:
            fault = _document_fault(row)
            if fault is not None:
                add(
                    "search",
                    None,
                    f"the search index has number {row.document_no}, {fault}",
                    "warning",
                )
        after_no = page[-1].document_no if len(page) == PAGE_ROWS else None

    while after_no is not None:
        yield step


def _document_fault(row: statements.SearchDocuments) -> str | None:
    if row.entry_no is None:
        return "but there is no entry with it"
    counted = (
        row.after_no is not None
        and row.indexed_no is not None
        and row.after_no < row.document_no <= row.indexed_no
    )
    return None if counted else "but does not count it as one of its session"


def _sessions(add: Add) -> Steps:
    """Look for entries of each session that should be in the index."""
    after_no: int | None = 0
    page: list[statements.SearchCursors] = []

    def step(tx: ReadTx) -> None:
        nonlocal after_no, page
        page = tx.all("search.cursors", after_session_no=after_no, limit=PAGE_ROWS)
        for row in page:
            fault = _progress_fault(row)
            if fault is not None:
                add("search", row.session_id, fault, "warning")
        after_no = page[-1].session_no if len(page) == PAGE_ROWS else None

    while after_no is not None:
        yield step
        for row in page:
            if row.after_no is not None and row.indexed_no is not None:
                yield from _entries(add, row, row.after_no, row.indexed_no)


def _progress_fault(row: statements.SearchCursors) -> str | None:
    first_no, last_no = entry_number(row.session_no, 0), entry_number(row.session_no, row.last_seq)
    indexed_no = row.indexed_no or first_no
    if indexed_no > last_no:
        return "the search index says that it is further than the last entry"
    if indexed_no < last_no and row.search_behind != 1:
        return (
            f"no search finds its last {last_no - indexed_no:,} entries: they are not in the "
            "search index, which says that all are"
        )
    return None


def _entries(add: Add, session: statements.SearchCursors, after_no: int, indexed_no: int) -> Steps:
    at_no: int | None = after_no

    def step(tx: ReadTx) -> None:
        nonlocal at_no
        assert at_no is not None
        now = tx.one("search.indexed", session_no=session.session_no)
        if now.after_no is None or now.indexed_no is None or now.archived_at_ms is not None:
            at_no = None
            return
        low_no = max(at_no, now.after_no)
        high_no = min(low_no + PAGE_ROWS, now.indexed_no, indexed_no)
        for row in tx.all("search.missing", after_no=low_no, last_no=high_no, limit=PAGE_ROWS):
            add(
                "search",
                session.session_id,
                f"entry number {row.entry_no} is not in the search index, which says that it is",
                "warning",
            )
        at_no = high_no if high_no < indexed_no else None

    while at_no is not None:
        yield step
