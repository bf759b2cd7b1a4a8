"""Archive sessions that are small: several of them in one transaction.

    look --> pack --> put away

* look: in one snapshot, the rows of as many sessions as one step of background work handles.
* pack: on a worker thread the rows of each become one chunk (`archive_format.WHOLE`). It is read
  back there, and all of its rows are compared.
* put away: in one transaction the rows of those sessions are read again. A session that has other
  rows by now, or is protected, is left out, and the reason is returned. Of the others the chunk
  is stored and the rows are deleted.

So a kill leaves each session as it was, or archived. `archive.py` restores it. A session that is
too large for one step is left to `archive.py`, too.

Invariant: the rows that are deleted are those that were packed. Both were compared, the second
time under the write lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sessiondb import threads
from sessiondb.backend import Backend, ReadTx, Tx
from sessiondb.limits import ARCHIVE_CHUNK_ROWS, STEP_BYTES, STEP_ROWS
from sessiondb.transcript import registry, search_index
from sessiondb.transcript.paths import session_of

from . import archive, archive_format
from .archive_format import BINDING, BRANCH, COLUMNS, ENTRY, EPOCH, OWNER, SESSION, TABLES, Chunk
from .archive_rows import pause_s, store_chunk

CHANGED: Final = "it has just changed"

_AT: Final = {name: index for index, name in enumerate(COLUMNS[SESSION])}
_KEY_AT: Final = [*COLUMNS[BINDING]].index("session_key")

_Rows = dict[str, list[tuple[Any, ...]]]
"""The rows of one session, by table."""


class Wanted(NamedTuple):
    """A session that is to be archived."""

    session_no: int
    reason: str
    updated_at_ms: int | None = None
    """When it had changed last. It is left alone if that is not so any more. None: whenever."""


@dataclass(slots=True)
class Done:
    """What became of the first of the wanted sessions, in their order."""

    outcomes: dict[int, str | None] = field(default_factory=dict)
    """By session: why it was left alone, or None if it is archived."""
    held_ms: float = 0.0
    """How long the step held the write lock."""


@dataclass(frozen=True, slots=True)
class _Packed:
    wanted: Wanted
    rows: _Rows
    chunk: Chunk

    @property
    def session(self) -> tuple[Any, ...]:
        return self.rows[SESSION][0]


async def archive_one(backend: Backend, wanted: Wanted) -> str | None:
    """Archive a session of any size. Return why it was left alone, or None. Durable on return.

    Raises:
        StoreDamaged, StoreBusy: as `archive.advance`.
    """
    done = await archive_some(backend, [wanted])
    if wanted.session_no in done.outcomes:
        return done.outcomes[wanted.session_no]
    archive_no, kept_because = await archive.begin(backend, wanted.session_no, wanted.reason)
    return kept_because if archive_no is None else await archive.end(backend, archive_no)


async def archive_some(
    backend: Backend, wanted: Sequence[Wanted], *, rows_max: int = STEP_ROWS
) -> Done:
    """Archive the first of some sessions: as many as one step handles. Durable on return.

    Together they have `rows_max` rows, or the first one alone has more. Of none if it is too
    large for a step. May be repeated.

    Raises:
        StoreDamaged: a session has rows that no archive can hold.
    """
    done = Done()
    seen = await backend.read(lambda tx: _look(tx, wanted, rows_max, done), op="archive.look")
    if not seen:
        return done
    encoding = archive.best_encoding()
    packed = await threads.run(_pack, seen, encoding, pause_s(backend))
    size = sum(len(one.chunk.content) for one in packed)
    step = await backend.step(
        lambda tx: _put_away(tx, packed, encoding), op="archive.small", size=size
    )
    outcomes = done.outcomes | step.value
    done.outcomes = {one.session_no: outcomes[one.session_no] for one in wanted[: len(outcomes)]}
    done.held_ms = step.held_ms
    return done


# -- look ------------------------------------------------------------------------------


def _look(
    tx: ReadTx, wanted: Sequence[Wanted], rows_max: int, done: Done
) -> list[tuple[Wanted, _Rows]]:
    by_no = {one.session_no: one for one in wanted}
    sessions = {row[0]: row for row in tx.tuples("archive.sessions", session_nos=_list(by_no))}
    few = [no for no, row in sessions.items() if _has_few(row)]
    weights = {row.session_no: row for row in tx.all("archive.weights", session_nos=_list(few))}
    fitting: list[int] = []
    rows = size = 0
    for no, one in by_no.items():
        if one.updated_at_ms not in (None, sessions[no][_AT["updated_at_ms"]]):
            done.outcomes[no] = "it has changed since the plan"
            continue
        weight = weights.get(no)
        if weight is None or weight.rows > ARCHIVE_CHUNK_ROWS or weight.bytes > STEP_BYTES:
            break
        rows, size = rows + weight.rows, size + weight.bytes
        if fitting and (rows > rows_max or size > STEP_BYTES):
            break
        fitting.append(no)
    found = _rows_of(tx, fitting)
    return [(by_no[no], found[no]) for no in fitting]


def _has_few(session: tuple[Any, ...]) -> bool:
    """Return whether a session's rows may be few enough. So those of others are not counted."""
    last_seq, epoch = int(session[_AT["last_seq"]]), int(session[_AT["epoch"]])
    return max(last_seq, epoch) < ARCHIVE_CHUNK_ROWS


def _rows_of(tx: ReadTx, session_nos: Sequence[int]) -> dict[int, _Rows]:
    """Return all rows of some sessions that an archive takes."""
    found: dict[int, _Rows] = {no: {table: [] for table in TABLES} for no in session_nos}
    numbers = _list(session_nos)
    for row in tx.tuples("archive.sessions", session_nos=numbers):
        found[row[OWNER[SESSION]]][SESSION].append(row)
    for row in tx.tuples("archive.bindings_of", session_nos=numbers):
        found[row[OWNER[BINDING]]][BINDING].append(row)
    for row in tx.tuples("archive.branches_of", session_nos=numbers):
        found[row[OWNER[BRANCH]]][BRANCH].append(row)
    for row in tx.tuples("archive.epochs_of", session_nos=numbers):
        found[row[OWNER[EPOCH]]][EPOCH].append(row)
    for row in tx.tuples("archive.entries_of", session_nos=numbers):
        found[session_of(row[0])][ENTRY].append(row)
    return found


def _list(session_nos: Iterable[int]) -> str:
    return json.dumps([*session_nos])


# -- pack ------------------------------------------------------------------------------


def _pack(
    seen: Sequence[tuple[Wanted, _Rows]], encoding: archive.Encoding, pause: float
) -> list[_Packed]:
    return [
        _Packed(wanted, rows, _chunk(wanted.session_no, rows, encoding, pause))
        for wanted, rows in seen
    ]


def _chunk(session_no: int, rows: _Rows, encoding: archive.Encoding, pause: float) -> Chunk:
    """Return the chunk of a session, read back and compared."""
    session_id = rows[SESSION][0][_AT["session_id"]]
    chunk = archive_format.encode_whole(rows, encoding, pause)
    stored = _Stored(0, chunk.what, chunk.rows, chunk.sha256, chunk.content)
    back = {
        section.what: [tuple(row) for row in section.rows]
        for section in archive_format.decode(stored, encoding, session_no, session_id, pause)
    }
    for what in TABLES:
        if back.get(what, []) != rows[what]:
            raise archive_format.damaged(
                session_id, f"an archive of session {session_id} does not hold its rows of {what}"
            )
    return chunk


class _Stored(NamedTuple):
    """A chunk as it is read from its table."""

    chunk_no: int
    what: str
    rows: int
    sha256: str
    content: bytes


# -- put away --------------------------------------------------------------------------


def _put_away(
    tx: Tx, packed: Sequence[_Packed], encoding: archive.Encoding
) -> dict[int, str | None]:
    """Archive those sessions that are as they were, and return what became of each."""
    numbers = [one.wanted.session_no for one in packed]
    now = _rows_of(tx, numbers)
    protected = archive.protections(tx, numbers)
    begun = {
        row.session_no: row.state for row in tx.all("archive.open_of", session_nos=_list(numbers))
    }
    outcomes: dict[int, str | None] = {}
    for one in packed:
        no = one.wanted.session_no
        if no in begun:
            outcomes[no] = f"its archive is {begun[no]} already"
        else:
            outcomes[no] = CHANGED if now[no] != one.rows else protected[no]
    going = [one for one in packed if outcomes[one.wanted.session_no] is None]
    for one in going:
        if one.session[_AT["ended_at_ms"]] is None:
            registry.tell_ended(
                tx, one.wanted.session_no, one.session[_AT["session_id"]], "archived"
            )
        _store(tx, one, encoding)
    gone = [one.wanted.session_no for one in going]
    search_index.forget_now(tx, gone)
    gone_list = _list(gone)
    tx.run("archive.hide_sessions", session_nos=gone_list, now_ms=tx.stamp_ms)
    tx.run("archive.unbind_all", session_nos=gone_list)
    tx.run("archive.delete_entries_of", session_nos=gone_list)
    tx.run("archive.delete_branches_of", session_nos=gone_list)
    tx.run("archive.delete_epochs_of", session_nos=gone_list)
    return outcomes


def _store(tx: Tx, one: _Packed, encoding: archive.Encoding) -> None:
    keys = [row[_KEY_AT] for row in one.rows[BINDING]]
    archive_no = tx.one(
        "archive.insert_whole",
        session_no=one.wanted.session_no,
        reason=one.wanted.reason,
        encoding=encoding,
        now_ms=tx.stamp_ms,
        rows=one.chunk.rows,
        bytes=one.chunk.size,
        bytes_stored=len(one.chunk.content),
        session_keys=json.dumps(keys, ensure_ascii=False),
    ).archive_no
    store_chunk(tx, archive_no, 0, one.chunk)
