"""Archive a session and restore it: its rows, compressed and checked, in the same database.

    writing --> complete --> deleting --> archived --> restoring --> restored
       |            |                                                   ^
       `------------'--------- protected meanwhile, or restored --------'
                            deleting --> deleted           without an archive: only when asked for

Each arrow, and each step on the way, is one short transaction; whatever takes time (encoding, compressing, hashing,
comparing) happens between two of them, on a worker thread. The state is the archive's row, so whoever comes next goes
on where a killed process stopped; `finished_at_ms` is NULL as long as there is something to go on with.

* writing: the session has ended, nothing points at it any more, so its rows cannot change. They are read in pages and
  stored as chunks of JSON lines. It can still be read.
* complete: every chunk was read back, its hash compared, and its rows compared with the table's, all of them.
* deleting: from here on the session cannot be read (`archived_at_ms`). Its rows go a few at a time, and other writers
  go in between.
* restoring: rows come back the same way and are compared again; only then can the session be read.

What is archived: the session's row, its bindings, branches, epochs and entries. What stays in its table: compaction
jobs, because a summary that comes late still gets the answer that it always gets; receipts of imports and their
quarantined lines, because they are what keeps an import from bringing the file back; inbox, turns, outbox and events.
So after a restore every row is as it was, and an export is the same bytes.

Invariants: entries are deleted only after the archive was compared with them, in state `deleting`, which every deleting
transaction checks; chunks are deleted only in a state that needs none. Two processes may work on one archive: chunks
have numbers, deletions and insertions may be repeated, and each change of state is one compare-and-set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import anyio
import anyio.to_thread

from sessiondb import events
from sessiondb.backend import Backend, ReadTx, Row, Tx
from sessiondb.batching import BatchSize, last_fitting
from sessiondb.errors import (
    ConstraintFailed,
    InvalidInput,
    InvalidKey,
    NotFound,
    StoreBusy,
    StoreDamaged,
)
from sessiondb.json_text import has_more_values
from sessiondb.limits import (
    ARCHIVE_BINDINGS_MAX,
    ARCHIVE_CHUNK_BYTES,
    ARCHIVE_CHUNK_ROWS,
    ENTRY_VALUES_MAX,
    SEQ_MAX,
    STEP_BYTES,
    STEP_ROWS,
)
from sessiondb.transcript.keys import parse_key
from sessiondb.transcript.paths import entry_number

from . import archive_format
from .archive_format import (
    BINDING,
    BRANCH,
    ENTRY,
    EPOCH,
    KEY,
    SESSION,
    SLICE_PAUSE_S,
    Chunk,
    damaged,
    in_slices,
)

Encoding = Literal["zstd", "zlib", "none"]
PAGED: Final = (BRANCH, EPOCH, ENTRY)
# Beside callers nobody waits for this work: its next step is paced, and comes later than the pauses add up to.
SLICE_PAUSE_BUSY_S: Final = 0.001
# A page of entries is read in pieces of so many rows: SQLite's rows become Python's with the interpreter's lock held.
READ_ROWS: Final = 40
# Comparing takes no steps that could be paced. Beside callers a chunk, some 25 ms of a thread, is followed by so long a pause.
COMPARE_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought back."""

    session_id: str
    entries: int
    keys_bound: tuple[str, ...]
    """Keys that point at the session again."""
    keys_taken: tuple[str, ...]
    """Keys that point at another session by now, and were left so."""
    parents: tuple[str, ...]
    """Sessions that it was forked from and that had to come back with it."""


# -- what may be archived -----------------------------------------------------------------------------------


def protection(tx: ReadTx, session_no: int, *, keep_archive: bool = True) -> str | None:
    """Say what keeps a session from being archived (or, without `keep_archive`, deleted); None if nothing does."""
    row = tx.one("archive.protection", session_no=session_no)
    reasons = (
        (row.pinned, "pinned"),
        (row.turn_running, "a turn of it is running"),
        (row.compaction_running, "a compaction of it is running"),
        (row.inbox_open, "messages of it wait or are being worked on"),
        (row.outbox_open, "replies of it are still to be sent"),
        (row.outbox_unknown, "nobody knows whether a reply of it was sent; settle that first"),
        (row.importing, "an import of it has not come to its end"),
        (row.fork_id, f"session {row.fork_id} was forked from it and uses its entries"),
        (
            row.restorable_id and not keep_archive,
            f"the archived session {row.restorable_id} was forked from it",
        ),
    )
    return next((reason for holds, reason in reasons if holds), None)


# -- how it is encoded ---------------------------------------------------------------------------------------


def best_encoding() -> Encoding:
    """Return how new archives are compressed here: zstd where it is installed."""
    try:
        import zstandard  # noqa: F401
    except ImportError:
        return "zlib"
    return "zstd"


def _pause_s(backend: Backend) -> float:
    return SLICE_PAUSE_BUSY_S if backend.is_busy else SLICE_PAUSE_S


# -- pages of a session's rows ------------------------------------------------------------------------------


def _first(what: str, session_no: int) -> int:
    """Return what stands before a table's first row."""
    return {BRANCH: 0, EPOCH: -1, ENTRY: entry_number(session_no, 0) - 1}[what]


def _page(tx: ReadTx, what: str, session_no: int, after: int, pause_s: float) -> list[Row]:
    """Read the next rows of a table, bounded in number and bytes: the same ones whenever it is asked."""
    if what != ENTRY:
        statement = "archive.branches" if what == BRANCH else "archive.epochs"
        return tx.all(statement, session_no=session_no, after_no=after, limit=ARCHIVE_CHUNK_ROWS)
    low_no, high_no = after + 1, entry_number(session_no, SEQ_MAX)
    sizes = tx.all(
        "import_file.entry_sizes", low_no=low_no, high_no=high_no, limit=ARCHIVE_CHUNK_ROWS
    )
    if not sizes:
        return []
    last_no = last_fitting(sizes, ARCHIVE_CHUNK_BYTES).entry_no
    numbers, rows = [size.entry_no for size in sizes if size.entry_no <= last_no], list[Row]()
    for at in range(0, len(numbers), READ_ROWS):
        if rows:
            time.sleep(pause_s)
        piece = numbers[at : at + READ_ROWS]
        rows += tx.all("archive.entries", low_no=piece[0], high_no=piece[-1])
    return rows


# -- begin --------------------------------------------------------------------------------------------------


async def begin(
    backend: Backend, session_no: int, reason: str, *, keep_archive: bool = True
) -> tuple[int | None, str | None]:
    """Begin to archive a session: end it, and have nothing point at it. Return the archive's number, or why not.

    Without `keep_archive` it is deleted without one. `advance` does the rest.
    """

    def look(tx: ReadTx) -> tuple[Row, list[Row]]:
        return tx.one("archive.session", session_no=session_no), tx.all(
            "archive.bindings", session_no=session_no
        )

    encoding = best_encoding() if keep_archive else "none"
    session, bindings = await backend.read(look, op="archive.look")
    if keep_archive and len(bindings) > ARCHIVE_BINDINGS_MAX:
        return (
            None,
            f"{len(bindings):,} keys point at it; an archive holds {ARCHIVE_BINDINGS_MAX:,}",
        )

    def encode() -> list[Chunk]:
        return [
            archive_format.encode(what, rows, encoding)
            for what, rows in ((SESSION, [session]), (BINDING, bindings))
            if rows
        ]

    created = await anyio.to_thread.run_sync(encode) if keep_archive else []
    keys = json.dumps([row.session_key for row in bindings], ensure_ascii=False)

    def body(tx: Tx) -> tuple[int | None, str | None]:
        # Invariant: what was encoded is what is there. Whatever moved the session moved its row or its bindings.
        now, now_bound = look(tx)
        if now != session or now_bound != bindings:
            return None, "it has moved just now"
        held = protection(tx, session_no, keep_archive=keep_archive)
        if held is not None:
            return None, held
        open_row = tx.first("archive.of_session", session_no=session_no)
        if open_row is not None:
            return None, f"its archive is {open_row.state} already"
        tx.run("archive.end_session", session_no=session_no, now_ms=tx.now_ms)
        tx.run("archive.unbind", session_no=session_no)
        state = "writing" if keep_archive else "deleting"
        row = tx.one(
            "archive.insert",
            session_no=session_no,
            state=state,
            reason=reason,
            encoding=encoding,
            now_ms=tx.now_ms,
            session_keys=keys,
        )
        for chunk in created:
            _put_chunk(tx, row.archive_no, chunk)
        if not keep_archive:
            tx.run("archive.hide_session", session_no=session_no, now_ms=tx.now_ms)
            tx.run("archive.forget_name", session_no=session_no)
        return int(row.archive_no), None

    return (
        await backend.step(
            body, op="archive.begin", size=sum(len(chunk.content) for chunk in created)
        )
    ).value


def _put_chunk(tx: Tx, archive_no: int, chunk: Chunk) -> None:
    chunk_no = tx.one("archive.next_chunk", archive_no=archive_no).chunk_no
    tx.run(
        "archive.put_chunk",
        archive_no=archive_no,
        chunk_no=chunk_no,
        what=chunk.what,
        rows=chunk.rows,
        sha256=chunk.sha256,
        content=chunk.content,
    )
    tx.run(
        "archive.count_chunk",
        archive_no=archive_no,
        rows=chunk.rows,
        bytes=chunk.size,
        bytes_stored=len(chunk.content),
    )


# -- going on -----------------------------------------------------------------------------------------------


async def advance(backend: Backend, archive_no: int) -> Row:
    """Bring an archive to the end of what was begun; return its row. May be repeated, and interrupted at any point.

    Raises:
        StoreDamaged: what was written is not what is there. An archive in the making is given up; the session is as before.
        StoreBusy: another process works on it, or on the database.
    """
    while True:
        row = await backend.read(
            lambda tx: tx.one("archive.get", archive_no=archive_no), op="archive.get"
        )
        if row.finished_at_ms is not None:
            return row
        if row.state == "writing":
            await _write(backend, row)
        elif row.state == "complete":
            await _release(backend, row)
        elif row.state == "deleting":
            await _delete(backend, row)
        elif row.state == "restoring":
            await _put_back(backend, row)
        else:
            await _forget_chunks(backend, row)


async def _write(backend: Backend, row: Row) -> None:
    """Write the chunks that are missing, compare them all, and say that the archive is complete."""
    try:
        await _write_chunks(backend, row)
        await _compare(backend, row)
    except StoreDamaged:
        await _give_up(backend, row)
        raise
    await backend.step(lambda tx: _move(tx, row, "complete"), op="archive.complete")


async def _write_chunks(backend: Backend, row: Row) -> None:
    what, after, chunk_no = await _where(backend, row)
    for table in PAGED[PAGED.index(what) :]:
        after = after if table == what else _first(table, row.session_no)
        while page := await backend.read(
            _reading(backend, table, row.session_no, after), op="archive.read"
        ):
            chunk = await anyio.to_thread.run_sync(
                archive_format.encode, table, page, row.encoding, _pause_s(backend)
            )
            await backend.step(
                _storing(row, chunk_no, chunk), op="archive.chunk", size=len(chunk.content)
            )
            chunk_no, after = chunk_no + 1, page[-1][KEY[table]]


def _reading(backend: Backend, what: str, session_no: int, after: int) -> Any:
    return lambda tx: _page(tx, what, session_no, after, _pause_s(backend))


def _storing(row: Row, chunk_no: int, chunk: Chunk) -> Any:
    def body(tx: Tx) -> None:
        # Two processes at one archive: the one that comes second finds that its chunk is not the next.
        state = tx.one("archive.get", archive_no=row.archive_no).state
        if (
            state != row.state
            or tx.one("archive.next_chunk", archive_no=row.archive_no).chunk_no != chunk_no
        ):
            raise _overtaken(row)
        _put_chunk(tx, row.archive_no, chunk)

    return body


async def _where(backend: Backend, row: Row) -> tuple[str, int, int]:
    """Return where writing goes on: the table, the key of its last row that was stored, the number of the next chunk."""

    def last(tx: ReadTx) -> tuple[int, Row | None]:
        chunk_no = tx.one("archive.next_chunk", archive_no=row.archive_no).chunk_no
        return chunk_no, tx.first("archive.chunk", archive_no=row.archive_no, chunk_no=chunk_no - 1)

    chunk_no, chunk = await backend.read(last, op="archive.where")
    if chunk is None or chunk.what not in PAGED:
        return PAGED[0], _first(PAGED[0], row.session_no), chunk_no
    _, rows = await anyio.to_thread.run_sync(
        archive_format.decode, chunk, row.encoding, row.session_no, row.session_id
    )
    return chunk.what, rows[-1][KEY[chunk.what]], chunk_no


async def _chunk(
    backend: Backend, row: Row, chunk_no: int
) -> tuple[str, list[str], list[list[Any]]] | None:
    """Return a chunk, decoded and checked: the table, its columns, its rows. None behind the last one."""
    chunk = await backend.read(
        lambda tx: tx.first("archive.chunk", archive_no=row.archive_no, chunk_no=chunk_no),
        op="archive.chunk",
    )
    if chunk is None:
        return None
    columns, rows = await anyio.to_thread.run_sync(
        archive_format.decode,
        chunk,
        row.encoding,
        row.session_no,
        row.session_id,
        _pause_s(backend),
    )
    return chunk.what, columns, rows


async def _compare(backend: Backend, row: Row) -> None:
    """Compare the archive with the tables, row by row.

    Raises:
        StoreDamaged: they differ.
    """
    after = {what: _first(what, row.session_no) for what in PAGED}
    total = chunk_no = 0
    while (found := await _chunk(backend, row, chunk_no)) is not None:
        what, columns, rows = found
        total, chunk_no = total + len(rows), chunk_no + 1
        if what not in PAGED:
            continue
        page = await backend.read(
            _reading(backend, what, row.session_no, after[what]), op="archive.compare"
        )
        if not await anyio.to_thread.run_sync(_same, columns, rows, page, _pause_s(backend)):
            raise _differs(row, f"rows of {what} after {after[what]}")
        after[what] = rows[-1][KEY[what]]
        if backend.is_busy:
            await anyio.sleep(COMPARE_PAUSE_S)
    for what in PAGED:
        if await backend.read(
            _reading(backend, what, row.session_no, after[what]), op="archive.compare"
        ):
            raise _differs(
                row, f"there are rows of {what} after {after[what]} that it does not hold"
            )
    counted = await backend.read(
        lambda tx: tx.one("archive.get", archive_no=row.archive_no).rows, op="archive.compare"
    )
    if counted != total:
        raise _differs(row, f"it counts {counted} rows and holds {total}")


def _same(columns: list[str], rows: list[list[Any]], page: Sequence[Row], pause_s: float) -> bool:
    if len(page) != len(rows) or list(page[0]._fields) != columns:
        return False
    return all(
        list(found) == row for found, row in in_slices(zip(page, rows, strict=True), pause_s)
    )


def _differs(row: Row, what: str) -> StoreDamaged:
    return StoreDamaged(
        f"the archive of session {row.session_id} is not what the tables hold: {what}. Run `sessiondb verify`."
    )


async def _release(backend: Backend, row: Row) -> None:
    """The archive is complete: let the rows go, unless something holds the session by now; then it is as before."""
    session, _ = await _tombstone(backend, row)

    def body(tx: Tx) -> bool:
        # Invariant: from the moment at which entries may be missing nothing can read them. So both are one transaction.
        now = tx.one("archive.session", session_no=row.session_no)
        moved = any(
            getattr(now, name) != value for name, value in session.items() if name != "ended_at_ms"
        )
        if (
            moved
            or tx.all("archive.bindings", session_no=row.session_no)
            or protection(tx, row.session_no) is not None
        ):
            return False
        _move(tx, row, "deleting")
        tx.run("archive.hide_session", session_no=row.session_no, now_ms=tx.now_ms)
        return True

    if not (await backend.step(body, op="archive.release")).value:
        await _give_up(backend, row)


async def _tombstone(backend: Backend, row: Row) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the session's row as it was before it was archived, and its bindings."""
    first, second = await _chunk(backend, row, 0), await _chunk(backend, row, 1)
    if first is None or first[0] != SESSION:
        raise damaged(row.session_id, f"the archive of session {row.session_id} has no first chunk")
    _, columns, [values] = first
    bindings: list[dict[str, Any]] = []
    if second is not None and second[0] == BINDING:
        bindings = [dict(zip(second[1], bound, strict=True)) for bound in second[2]]
    return dict(zip(columns, values, strict=True)), bindings


async def _give_up(backend: Backend, row: Row) -> None:
    """Give up an archive before anything was deleted: the session goes on as it was."""
    session, bindings = await _tombstone(backend, row)
    await backend.step(lambda tx: _reopen(tx, row, session, bindings), op="archive.give_up")


def _reopen(tx: Tx, row: Row, session: dict[str, Any], bindings: list[dict[str, Any]]) -> None:
    """The session is whole: say so, and have what pointed at it point at it again."""
    _move(tx, row, "restored")
    tx.run("archive.reopen_session", session_no=row.session_no, ended_at_ms=session["ended_at_ms"])
    for binding in bindings:
        tx.run("archive.rebind", **binding)
    # Keys that an import has brought since it was archived are in its row only.
    known = {binding["session_key"] for binding in bindings}
    for key in keys_of(row.session_keys, row.session_id):
        if key not in known:
            agent_id = parse_key(key).agent_id
            tx.run(
                "archive.rebind",
                session_key=key,
                session_no=row.session_no,
                agent_id=agent_id,
                bound_at_ms=tx.now_ms,
                details=None,
            )


def keys_of(session_keys: str, session_id: str) -> list[str]:
    """Return the keys that pointed at an archived session, from the text in its archive's row.

    Raises:
        StoreDamaged: it is no list of session keys.
    """
    try:
        keys = (
            json.loads(session_keys)
            if not has_more_values(session_keys, ENTRY_VALUES_MAX)
            else None
        )
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("it is not a list of texts")
        for key in keys:
            parse_key(key)
    except (ValueError, RecursionError, InvalidKey) as error:
        raise damaged(
            session_id,
            f"the list of keys in the archive of session {session_id} is damaged ({error})",
        ) from error
    return keys


def _move(tx: Tx, row: Row, to_state: str) -> None:
    if not tx.run(
        "archive.move", archive_no=row.archive_no, from_state=row.state, to_state=to_state
    ):
        raise _overtaken(row)


def _overtaken(row: Row) -> StoreBusy:
    message = f"session {row.session_id} is being archived or restored by another process; nothing was changed"
    return StoreBusy(message, retry_after_ms=5_000)


# -- deleting -----------------------------------------------------------------------------------------------


async def _delete(backend: Backend, row: Row) -> None:
    """Delete the rows that the archive holds, a few at a time; then it is done."""
    low_no, high_no = entry_number(row.session_no, 0), entry_number(row.session_no, SEQ_MAX)

    batch_size = BatchSize()

    def sizes(tx: ReadTx) -> list[Row]:
        return tx.all(
            "import_file.entry_sizes", low_no=low_no, high_no=high_no, limit=batch_size.rows
        )

    while found := await backend.read(sizes, op="archive.sizes"):
        step = await backend.step(
            _deleting_entries(row, low_no, last_fitting(found, STEP_BYTES).entry_no),
            op="archive.delete",
        )
        batch_size.learn(step.held_ms)
    small = ["archive.delete_branches", "archive.delete_epochs"]
    small += ["archive.delete_compactions"] if row.encoding == "none" else []
    for statement in small:
        await _delete_all(backend, row, statement)
    last = "deleted" if row.encoding == "none" else "archived"

    def finish(tx: Tx) -> None:
        if not tx.run(
            "archive.finish",
            archive_no=row.archive_no,
            from_state="deleting",
            to_state=last,
            now_ms=tx.now_ms,
        ):
            raise _overtaken(row)

    await backend.step(finish, op="archive.finish")


def _deleting_entries(row: Row, low_no: int, high_no: int) -> Any:
    def body(tx: Tx) -> None:
        _require_state(tx, row)
        tx.run("archive.delete_entries", low_no=low_no, high_no=high_no)

    return body


async def _delete_all(backend: Backend, row: Row, statement: str) -> None:
    while (await backend.step(_deleting(row, statement), op="archive.delete")).value == STEP_ROWS:
        pass


def _deleting(row: Row, statement: str) -> Any:
    def body(tx: Tx) -> int:
        _require_state(tx, row)
        return tx.run(statement, session_no=row.session_no, limit=STEP_ROWS)

    return body


def _require_state(tx: ReadTx, row: Row) -> None:
    """The fence before each change: the archive is still where this process believes it to be."""
    if tx.one("archive.get", archive_no=row.archive_no).state != row.state:
        raise _overtaken(row)


# -- restoring ----------------------------------------------------------------------------------------------


async def restore(backend: Backend, session_no: int) -> Restored:
    """Bring an archived session back, exactly as it was; its parents first, if it is a fork.

    Durable on return. May be repeated after an interruption, and goes on then.

    Raises:
        InvalidInput: it is not archived.
        NotFound: it was deleted without an archive.
        StoreDamaged: the archive is not what was written.
    """
    chain = await backend.read(lambda tx: _to_restore(tx, session_no), op="restore.look")
    if not chain or chain[0].session_no != session_no:
        session = await backend.read(
            lambda tx: tx.one("archive.session", session_no=session_no), op="restore.look"
        )
        raise InvalidInput(
            f"session {session.session_id} is not archived; there is nothing to restore",
            session_id=session.session_id,
        )
    for row in chain:
        keys_of(
            row.session_keys, row.session_id
        )  # needed last; a list that cannot be read is better found first
    for row in reversed(chain):
        await _restore_one(backend, row)
    return await backend.read(lambda tx: _restored(tx, chain), op="restore.look")


def _to_restore(tx: ReadTx, session_no: int) -> list[Row]:
    """Return the archives of a session and of those that it was forked from, itself first."""
    found: list[Row] = []
    at_no: int | None = session_no
    while at_no is not None:
        open_row = tx.first("archive.of_session", session_no=at_no)
        if open_row is not None:
            found.append(tx.one("archive.get", archive_no=open_row.archive_no))
        at_no = tx.one("archive.session", session_no=at_no).forked_from_no
    return found


async def _restore_one(backend: Backend, row: Row) -> None:
    if row.encoding == "none" or row.state == "deleted":
        message = f"session {row.session_id} has no archive any more, or never had one ({row.reason}); it cannot be restored"
        raise NotFound(message, session_id=row.session_id)
    if row.state in ("writing", "complete"):
        await _give_up(backend, row)
    elif row.state in ("deleting", "archived"):
        if row.state == "archived":
            await _look_through(backend, row)
        await backend.step(lambda tx: _begin_restoring(tx, row), op="restore.begin")
    await advance(backend, row.archive_no)


async def _look_through(backend: Backend, row: Row) -> None:
    """Look at the whole archive before a row is put back: what cannot be restored stays `archived`, and nobody tries it again and again.

    Not while its rows are being deleted: then a restore that begins, even one that fails, keeps those that are left.

    Raises:
        StoreDamaged: the archive is not what was written.
    """
    order, total, chunk_no = archive_format.Order(), 0, 0
    while (found := await _chunk(backend, row, chunk_no)) is not None:
        _follow(order, row, chunk_no, found)
        total, chunk_no = total + len(found[2]), chunk_no + 1
    if total != row.rows:
        raise damaged(
            row.session_id,
            f"the archive of session {row.session_id} counts {row.rows} rows and holds {total}",
        )
    for branch_no in await backend.read(lambda tx: missing_branches(tx, order), op="restore.look"):
        message = f"the archive of session {row.session_id} has a branch that leaves from branch {branch_no}, which is not there"
        raise damaged(row.session_id, message)


def _follow(
    order: archive_format.Order,
    row: Row,
    chunk_no: int,
    found: tuple[str, list[str], list[list[Any]]],
) -> None:
    what, _, rows = found
    try:
        order.take(what, rows)
    except archive_format.Wrong as error:
        raise damaged(
            row.session_id, f"chunk {chunk_no} of the archive of session {row.session_id} {error}"
        ) from error


def missing_branches(tx: ReadTx, order: archive_format.Order) -> list[int]:
    """Return the branches that those in an archive leave from and that are nowhere: its parent has been restored, or never was archived."""
    return [
        branch_no
        for branch_no in sorted(order.branches_elsewhere)
        if tx.first("archive.branch", branch_no=branch_no) is None
    ]


def _begin_restoring(tx: Tx, row: Row) -> None:
    if (
        row.forked_from_no is not None
        and tx.first("archive.of_session", session_no=row.forked_from_no) is not None
    ):
        raise _overtaken(row)  # its parent went into an archive again meanwhile
    _move(tx, row, "restoring")


def _restored(tx: ReadTx, chain: Sequence[Row]) -> Restored:
    own, *parents = chain
    session = tx.one("archive.session", session_no=own.session_no)
    keys = keys_of(own.session_keys, own.session_id)
    bound = {key.session_key for key in tx.all("archive.bindings", session_no=own.session_no)}
    return Restored(
        session.session_id,
        session.last_seq,
        tuple(key for key in keys if key in bound),
        tuple(key for key in keys if key not in bound),
        tuple(row.session_id for row in parents),
    )


async def _put_back(backend: Backend, row: Row) -> None:
    """Put the rows back, compare them with the archive, and open the session again."""
    chunk_no, batch_size, order = 0, BatchSize(), archive_format.Order()
    while (found := await _chunk(backend, row, chunk_no)) is not None:
        what, columns, rows = found
        _follow(order, row, chunk_no, found)
        chunk_no, done = chunk_no + 1, 0
        while what in PAGED and done < len(rows):
            step = rows[done : done + _step(what, rows, done, batch_size.rows)]
            try:
                written = await backend.step(_putting(row, what, columns, step), op="restore.rows")
            except (ConstraintFailed, InvalidInput) as error:
                where = f"chunk {chunk_no - 1} of the archive of session {row.session_id}"
                raise damaged(row.session_id, f"{where} cannot be put back: {error}") from error
            batch_size.learn(written.held_ms)
            done += len(step)
    await _compare(backend, row)
    session, bindings = await _tombstone(backend, row)

    def finish(tx: Tx) -> None:
        _reopen(tx, row, session, bindings)
        events.emit(
            tx,
            "session_restored",
            "operator",
            f"Session {row.session_id} was restored",
            session_no=row.session_no,
            rows=row.rows,
        )

    await backend.step(finish, op="restore.finish")


def _step(what: str, rows: list[list[Any]], first: int, rows_max: int) -> int:
    """Return how many rows from `first` on one transaction puts back; at least one."""
    size = 0
    for count, row in enumerate(rows[first : first + rows_max]):
        size += len(row[-1]) if what == ENTRY else 0
        if count and size > STEP_BYTES:
            return count
    return min(rows_max, len(rows) - first)


def _putting(row: Row, what: str, columns: list[str], rows: list[list[Any]]) -> Any:
    statement = {
        BRANCH: "archive.put_branch",
        EPOCH: "archive.put_epoch",
        ENTRY: "archive.put_entry",
    }[what]
    prepared = [dict(zip(columns, values, strict=True)) for values in rows]

    def body(tx: Tx) -> None:
        _require_state(tx, row)
        for values in prepared:
            tx.run(statement, **values)

    return body


# -- chunks that nobody needs any more ----------------------------------------------------------------------


async def drop(backend: Backend, row: Row) -> str | None:
    """Delete an archive for good; return why not, if something needs it. `row` is its row in state `archived`."""

    def body(tx: Tx) -> str | None:
        child = tx.one("archive.protection", session_no=row.session_no).restorable_id
        if child is not None:
            return f"the archived session {child} was forked from it"
        _move(tx, row, "deleted")
        tx.run("archive.forget_name", session_no=row.session_no)
        return None

    held = (await backend.step(body, op="archive.drop")).value
    if held is None:
        await advance(backend, row.archive_no)
    return held


async def _forget_chunks(backend: Backend, row: Row) -> None:
    """Delete an archive's chunks, one per transaction."""
    if row.state == "deleted":
        await _delete_all(backend, row, "archive.delete_compactions")

    def body(tx: Tx) -> bool:
        _require_state(tx, row)
        if tx.run("archive.drop_chunk", archive_no=row.archive_no):
            return True
        tx.run("archive.empty", archive_no=row.archive_no)
        tx.run(
            "archive.finish",
            archive_no=row.archive_no,
            from_state=row.state,
            to_state=row.state,
            now_ms=tx.now_ms,
        )
        return False

    while (await backend.step(body, op="archive.forget")).value:
        pass
