"""The search index: what is in it, and how it is filled, emptied and kept clean.

The index is made from entries and holds nothing of its own. A database that nobody searches has
an empty one, and pays nothing. Once a person has built it, `run_recovery` of a gateway keeps it
filled. No append does: what was appended last is searched without it (`search.py`).

    invariant: an entry is in the index if and only if it has words, and its number is behind
    `after_no` and up to `indexed_no` of its session's row in `search_session`

    invariant: `indexed_no` of a session that is not marked (`session.search_behind`) is its last
    entry, or it has none

Sessions that are marked are found by an index. So a search of a million entries reads no row of
the others. Whatever gives a session another entry marks it (`save_state`), once: the mark stays
until a step has put all of its entries there.

Each step is a short transaction of background work. It puts the words of entries there and moves
`indexed_no` with them, so a killed process continues, and two processes may fill one index. The
parts of which SQLite's FTS5 makes an index are merged in such steps as well, never within an
append, a deletion or a redaction.

Words that are taken out are not found from that transaction on. Their bytes are still in the
older parts then, as in a page that SQLite has not written over. So a redaction and a deletion ask
for a *purge*: the parts are merged to a single one, which has no such word. FTS5's own
`secure-delete` would do so at once, but no SQLite before 3.42 can read such an index, and a
distribution's shell is to.

An index that is damaged harms no message. What takes words out of it empties it instead, and it
is built anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sessiondb.backend import Backend, ReadTx, Tx
from sessiondb.batching import BatchSize, last_fitting
from sessiondb.errors import SearchDamaged, SessionDBError
from sessiondb.limits import (
    SEARCH_MERGE_PAGES,
    SEARCH_PURGE_STEPS,
    SEARCH_SESSIONS_AT_ONCE,
    STEP_BYTES,
    STEP_ROWS,
)
from sessiondb.models import SearchIndexed

from .paths import entry_number, session_of

if TYPE_CHECKING:
    from sessiondb import statements

_LEFT: Final = (
    "Older parts of the search index hold its words, which no search finds. The upkeep of a "
    "gateway (`run_recovery`) merges them away, and so does `sessiondb search DB --build`."
)
_Body = Callable[[Tx], int]
logger = logging.getLogger("sessiondb")


@dataclass(frozen=True, slots=True)
class _Range:
    """Entries of one session: those behind the first number, up to the last."""

    session_no: int
    after_no: int
    last_no: int
    bytes: int


# -- within a transaction of others ----------------------------------------------------


def take_out(tx: Tx, entry_no: int) -> bool:
    """Take the words of an entry out of the index, before the entry changes. Ask for a purge.

    Return whether its new words are to be put there.
    """
    row = tx.one("search.indexed", session_no=session_of(entry_no))
    if row.after_no is None or row.indexed_no is None:
        return False
    if not row.after_no < entry_no <= row.indexed_no:
        return False
    if not _take_out(tx, entry_no - 1, entry_no):
        return False
    tx.run("search.ask_purge")
    return True


def forget_now(tx: Tx, session_nos: Sequence[int]) -> None:
    """Take the words of sessions out of the index, in the transaction that archives them.

    Their entries are as many as one step handles.
    """
    for row in tx.all("search.indexed_of", session_nos=json.dumps(session_nos)):
        if not _take_out(tx, row.after_no, row.indexed_no):
            return
        tx.run("search.forget_session", session_no=row.session_no)


def put_back(tx: Tx, entry_no: int) -> None:
    """Put the words of an entry that has changed into the index."""
    tx.run("search.put", after_no=entry_no - 1, last_no=entry_no)


def _take_out(tx: Tx, after_no: int, last_no: int) -> bool:
    """Take a range of entries out of the index. False: it is damaged, and was emptied instead."""
    try:
        tx.run("search.take_out", after_no=after_no, last_no=last_no)
    except SearchDamaged:
        _empty(tx)
        return False
    return True


def _empty(tx: Tx) -> None:
    tx.run("search.empty")
    tx.run("search.forget_sessions")
    tx.run("search.mark_all_behind")


# -- sessions that go ------------------------------------------------------------------


async def forget_session(backend: Backend, session_no: int) -> None:
    """Take the words of an archived session out of the index. In steps, and may be repeated.

    Nothing puts them there meanwhile: an archived session is not indexed.
    """
    batch_size = BatchSize()
    while (found := await _next_in(backend, session_no, batch_size.rows)) is not None:
        step = await backend.step(_forgetting(found), op="search.forget")
        batch_size.learn(step.held_ms)


async def _next_in(backend: Backend, session_no: int, limit: int) -> _Range | None:
    def look(tx: ReadTx) -> _Range | None:
        row = tx.one("search.indexed", session_no=session_no)
        if row.indexed_no is None or row.after_no is None:
            return None
        return _bounded(tx, session_no, row.after_no, row.indexed_no, limit)

    return await backend.read(look, op="search.look")


def _forgetting(found: _Range) -> _Body:
    def body(tx: Tx) -> int:
        row = tx.one("search.indexed", session_no=found.session_no)
        if row.after_no != found.after_no or row.indexed_no is None:
            return 0  # another process has done so
        if not _take_out(tx, found.after_no, found.last_no):
            return 0
        if found.last_no == row.indexed_no:
            return tx.run("search.forget_session", session_no=found.session_no)
        return tx.run("search.retreat", session_no=found.session_no, after_no=found.last_no)

    return body


async def ask_purge(backend: Backend) -> None:
    """Ask for a purge, unless there is no index."""
    state = await backend.read(lambda tx: tx.first("search.state"), op="search.look")
    if state is not None and not state.purging:
        await backend.step(lambda tx: tx.run("search.ask_purge"), op="search.ask_purge")


async def purge(backend: Backend, *, steps_max: int) -> bool:
    """Merge the index until no word that was taken out is in it. False: not after all steps."""
    for _ in range(steps_max):
        state = await backend.read(lambda tx: tx.first("search.state"), op="search.look")
        if state is None or not state.purging:
            return True
        await _step(backend, _purge)
    return False


async def left(backend: Backend) -> tuple[str, ...]:
    """Purge the index for a while. Say what may still have words that were deleted.

    What was deleted is deleted, whatever happens here, so an error is only told.
    """
    try:
        if await purge(backend, steps_max=SEARCH_PURGE_STEPS):
            return ()
    except SessionDBError as error:
        logger.warning("purging the search index: %s", error)
    return (_LEFT,)


def _purge(tx: Tx) -> int:
    tx.run("search.merge_all", pages=SEARCH_MERGE_PAGES)
    if tx.one("search.parts").parts > 1:
        return 0
    return tx.run("search.end_purge")


# -- filling ---------------------------------------------------------------------------


async def build(backend: Backend, *, rebuild: bool = False) -> SearchIndexed:
    """Build the index: from now on there is one. Return when every entry is in it.

    In steps, each durable. May be interrupted, and repeated. `rebuild` begins anew.
    """
    if rebuild:
        await drop(backend)
    await backend.step(_begin, op="search.begin")
    while not await fill(backend, steps_max=STEP_ROWS):
        pass
    return await indexed(backend)


def _begin(tx: Tx) -> int:
    if not tx.run("search.begin", now_ms=tx.stamp_ms):
        return 0
    return tx.run("search.merge_by_hand")


async def drop(backend: Backend) -> None:
    """Empty the index: there is none any more. One transaction. May be repeated."""

    def body(tx: Tx) -> int:
        _empty(tx)
        return tx.run("search.end")

    await backend.step(body, op="search.drop")


async def indexed(backend: Backend) -> SearchIndexed:
    """Return whether there is an index, and how many entries are not in it yet."""

    def look(tx: ReadTx) -> SearchIndexed:
        state = tx.first("search.state")
        entries = tx.one("search.count_entries").entries
        return SearchIndexed(
            built=state is not None,
            purging=state is not None and state.purging == 1,
            entries=entries,
            behind=tx.one("search.count_behind").behind,
        )

    return await backend.read(look, op="search.look")


async def fill(backend: Backend, *, steps_max: int) -> bool:
    """Put entries into the index, if there is one. True: nothing was left to do.

    Bounded: so many steps at most. Writes only while there is something to do.
    """
    batch_size = BatchSize()
    for _ in range(steps_max):
        state, ranges = await backend.read(_looking(batch_size.rows), op="search.look")
        if state is None:
            return True
        if state.purging:
            # Parts that are made meanwhile would never let it end, so nothing is put there.
            await _step(backend, _purge)
            continue
        if not ranges:
            return True
        batch_size.learn(await _step(backend, _filling(ranges)))
    return False


def _looking(
    rows: int,
) -> Callable[[ReadTx], tuple[statements.SearchState | None, list[_Range]]]:
    def look(tx: ReadTx) -> tuple[statements.SearchState | None, list[_Range]]:
        state = tx.first("search.state")
        if state is None or state.purging:
            return state, []
        return state, list(_next_ranges(tx, rows))

    return look


def _next_ranges(tx: ReadTx, rows: int) -> Iterator[_Range]:
    """Yield what the next step puts into the index: entries of some sessions, bounded."""
    left, room = rows, STEP_BYTES
    for row in tx.all("search.behind", limit=SEARCH_SESSIONS_AT_ONCE):
        last_no = entry_number(row.session_no, row.last_seq)
        found = _bounded(tx, row.session_no, row.indexed_no, last_no, left)
        yield found
        left, room = left - (found.last_no - found.after_no), room - found.bytes
        if left <= 0 or room <= 0 or found.last_no < last_no:
            return


def _bounded(tx: ReadTx, session_no: int, after_no: int, last_no: int, limit: int) -> _Range:
    """Return the beginning of a range of entries, bounded in rows and bytes."""
    sizes = tx.all(
        "import_file.entry_sizes", low_no=after_no + 1, high_no=last_no, limit=max(limit, 1)
    )
    if not sizes:
        return _Range(session_no, after_no, last_no, 0)
    fitting = last_fitting(sizes, STEP_BYTES).entry_no
    size = sum(row.bytes for row in sizes if row.entry_no <= fitting)
    whole = fitting == sizes[-1].entry_no and len(sizes) < limit
    return _Range(session_no, after_no, last_no if whole else fitting, size)


def _filling(ranges: Sequence[_Range]) -> _Body:
    def body(tx: Tx) -> int:
        state = tx.first("search.state")
        if state is None or state.purging:
            return 0
        for one in ranges:
            _put(tx, one)
        return tx.run("search.merge", pages=SEARCH_MERGE_PAGES)

    return body


def _put(tx: Tx, found: _Range) -> None:
    row = tx.one("search.indexed", session_no=found.session_no)
    indexed_no = row.indexed_no or entry_number(found.session_no, 0)
    # Invariant: no entry is put there twice, and none of an archived session.
    if indexed_no != found.after_no or row.archived_at_ms is not None:
        return
    tx.run("search.put", after_no=found.after_no, last_no=found.last_no)
    tx.run(
        "search.advance",
        session_no=found.session_no,
        after_no=entry_number(found.session_no, 0),
        indexed_no=found.last_no,
    )
    tx.run("search.mark_whole", session_no=found.session_no, indexed_no=found.last_no)


async def _step(backend: Backend, body: _Body) -> float:
    """Run a step on the index. One that is damaged is emptied, and built anew by later steps."""
    try:
        return (await backend.step(body, op="search.fill")).held_ms
    except SearchDamaged as error:
        logger.warning("%s It is built anew.", error)
        await backend.step(lambda tx: _empty(tx), op="search.empty")
        return 0.0
