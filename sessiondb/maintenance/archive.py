"""Archive a session and restore it: its rows, compressed and checked, in the same database.

    writing --> complete --> deleting --> archived --> restoring --> restored
       |            |                                                   ^
       `------------'--------- protected meanwhile, or restored --------'
                            deleting --> deleted           without an archive: only when asked for

Each arrow, and each step on the way, is one short transaction. Slow work (encoding,
compressing, hashing, comparing) happens between two transactions, on a worker thread. The
state is the archive's row, so the next run continues where a killed process stopped.
`finished_at_ms` is NULL as long as there is something to continue.

* writing: the session has ended and nothing points at it, so its rows cannot change. They
  are read in pages and stored as chunks of JSON lines. The session can still be read.
* complete: every chunk was read back, its hash compared, and all of its rows compared with
  the table's.
* deleting: from here on the session cannot be read (`archived_at_ms`). Its rows are deleted
  a few at a time, and other writers commit in between.
* restoring: the rows come back the same way and are compared again. Only then can the
  session be read.

An archive holds the session's row, its bindings, branches, epochs and entries. All other
rows stay in their tables. Compaction jobs stay because a late summary must get the same
answer as always. Receipts of imports and their quarantined lines stay because they keep an
import from bringing the file back. So do inbox, turns, outbox and events. After a restore
every row is as it was, and an export has the same bytes.

Invariants: entries are deleted only in state `deleting`, after the archive was compared
with them, and every deleting transaction checks that state. Chunks are deleted only in a
state that needs none. Two processes may work on one archive: chunks have numbers, deletions
and insertions may be repeated, and each change of state is one compare-and-set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sessiondb import events, threads
from sessiondb.backend import AnyStatement, Backend, ReadTx, Tx
from sessiondb.batching import BatchSize, last_fitting
from sessiondb.errors import InvalidInput, InvalidKey, NotFound, StoreDamaged
from sessiondb.json_text import has_more_values
from sessiondb.limits import (
    ARCHIVE_BINDINGS_MAX,
    ENTRY_VALUES_MAX,
    SEQ_MAX,
    STEP_BYTES,
    STEP_ROWS,
)
from sessiondb.transcript import registry, search_index
from sessiondb.transcript.keys import parse_key
from sessiondb.transcript.paths import entry_number

from . import archive_format
from .archive_format import BINDING, SESSION, Chunk, damaged
from .archive_rows import (
    check_chunks,
    compare,
    overtaken,
    put_back_rows,
    put_chunk,
    read_chunk,
    require_state,
    write_chunks,
)

if TYPE_CHECKING:
    from sessiondb import statements

Encoding = Literal["zstd", "zlib", "none"]
DeleteRows = Literal[
    "archive.delete_branches", "archive.delete_epochs", "archive.delete_compactions"
]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought back."""

    session_id: str
    entries: int
    keys_bound: tuple[str, ...]
    """Keys that point at the session again."""
    keys_taken: tuple[str, ...]
    """Keys that point at another session by now, and were left alone."""
    parents: tuple[str, ...]
    """Sessions that it was forked from, and that came back with it."""


# -- what may be archived --------------------------------------------------------------


def protection(tx: ReadTx, session_no: int, *, keep_archive: bool = True) -> str | None:
    """Return why a session may not be archived, or None.

    Without `keep_archive`, return why it may not be deleted.
    """
    return _protected_by(_protection(tx, session_no), keep_archive=keep_archive)


def protections(
    tx: ReadTx, session_nos: Iterable[int], *, keep_archive: bool = True
) -> dict[int, str | None]:
    """Return the same as `protection` of some sessions, by session."""
    return {
        row.session_no: _protected_by(row, keep_archive=keep_archive)
        for row in tx.all("archive.protection", session_nos=json.dumps([*session_nos]))
    }


def _protection(tx: ReadTx, session_no: int) -> statements.ArchiveProtection:
    return tx.one("archive.protection", session_nos=json.dumps([session_no]))


def _protected_by(row: statements.ArchiveProtection, *, keep_archive: bool) -> str | None:
    reasons = (
        (row.pinned, "pinned"),
        (row.turn_running, "a turn of it is running"),
        (row.compaction_running, "a compaction of it is running"),
        (row.inbox_open, "it has messages that wait or that a turn works on"),
        (row.inbox_dead, "it has dead letters (requeue or drop them first)"),
        (row.outbox_open, "replies of it are still to be sent"),
        (row.outbox_unknown, "it is unknown whether a reply of it was sent (settle that first)"),
        (row.importing, "an import of it has not finished"),
        (row.fork_id, f"session {row.fork_id} was forked from it and uses its entries"),
        (
            row.restorable_id and not keep_archive,
            f"the archived session {row.restorable_id} was forked from it",
        ),
    )
    return next((reason for holds, reason in reasons if holds), None)


def needed_by(tx: ReadTx, session_no: int) -> str | None:
    """Return why a session cannot be deleted whatever ends before: its entries are in use."""
    row = _protection(tx, session_no)
    if row.importing:
        return "an import of it has not finished"
    fork_id = row.fork_id or row.restorable_id
    return f"session {fork_id} was forked from it and shares its entries" if fork_id else None


# -- how it is encoded -----------------------------------------------------------------


def best_encoding() -> Encoding:
    """Return how new archives are compressed here: zstd where it is installed."""
    try:
        import zstandard  # noqa: F401
    except ImportError:
        return "zlib"
    return "zstd"


# -- begin -----------------------------------------------------------------------------


async def begin(
    backend: Backend, session_no: int, reason: str, *, keep_archive: bool = True
) -> tuple[int | None, str | None]:
    """Begin to archive a session: end it, and unbind its keys.

    Return the archive's number, or why the session was left alone. Without `keep_archive`
    the session will be deleted. `advance` does the rest. Durable on return.
    """

    def read(tx: ReadTx) -> tuple[statements.ArchiveSession, list[statements.ArchiveBindings]]:
        return tx.one("archive.session", session_no=session_no), tx.all(
            "archive.bindings", session_no=session_no
        )

    encoding = best_encoding() if keep_archive else "none"
    session, bindings = await backend.read(read, op="archive.look")
    if keep_archive and len(bindings) > ARCHIVE_BINDINGS_MAX:
        reached_by = f"{len(bindings):,} keys point at it"
        return None, f"{reached_by}, and an archive holds {ARCHIVE_BINDINGS_MAX:,}"

    def encode() -> list[Chunk]:
        found = [archive_format.encode(SESSION, [session], encoding)]
        if bindings:
            found.append(archive_format.encode(BINDING, bindings, encoding))
        return found

    chunks = await threads.run(encode) if keep_archive else []
    keys = json.dumps([row.session_key for row in bindings], ensure_ascii=False)

    def body(tx: Tx) -> tuple[int | None, str | None]:
        # Invariant: the chunks hold what the tables hold. Any change to the session changed
        # its row or its bindings.
        now, now_bound = read(tx)
        if now != session or now_bound != bindings:
            return None, "it has just changed"
        protected = protection(tx, session_no, keep_archive=keep_archive)
        if protected is not None:
            return None, protected
        open_row = tx.first("archive.of_session", session_no=session_no)
        if open_row is not None:
            return None, f"its archive is {open_row.state} already"
        registry.end(tx, session_no, why="archived" if keep_archive else "deleted")
        tx.run("archive.unbind", session_no=session_no)
        state = "writing" if keep_archive else "deleting"
        row = tx.one(
            "archive.insert",
            session_no=session_no,
            state=state,
            reason=reason,
            encoding=encoding,
            now_ms=tx.stamp_ms,
            session_keys=keys,
        )
        for chunk in chunks:
            put_chunk(tx, row.archive_no, chunk)
        if not keep_archive:
            tx.run("archive.hide_session", session_no=session_no, now_ms=tx.stamp_ms)
            _forget_names(tx, session_no)
        return row.archive_no, None

    size = sum(len(chunk.content) for chunk in chunks)
    return (await backend.step(body, op="archive.begin", size=size)).value


async def end(backend: Backend, archive_no: int) -> str | None:
    """As `advance`. Return why the session was left alone after all, or None."""
    row = await advance(backend, archive_no)
    return None if row.state in ("archived", "deleted") else "it became protected meanwhile"


# -- advance ---------------------------------------------------------------------------


async def advance(backend: Backend, archive_no: int) -> statements.ArchiveGet:
    """Finish what was begun with an archive, and return its row. Durable, step by step.

    May be interrupted at any point, and repeated.

    Raises:
        StoreDamaged: an archive is not what was written, or differs from the tables. If
            nothing was deleted yet, the archive is abandoned and the session is as before.
        StoreBusy: another process works on this archive, or on the database.
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
            await _drop_chunks(backend, row)


async def _write(backend: Backend, row: statements.ArchiveGet) -> None:
    """Write the missing chunks, compare all of them with the tables, mark the archive complete."""
    try:
        await write_chunks(backend, row)
        await compare(backend, row)
    except StoreDamaged:
        await _abandon(backend, row)
        raise
    await backend.step(lambda tx: _move(tx, row, "complete"), op="archive.complete")


async def _release(backend: Backend, row: statements.ArchiveGet) -> None:
    """Begin to delete the rows of a complete archive, or abandon it if the session is protected."""
    session, _ = await _tombstone(backend, row)

    def body(tx: Tx) -> bool:
        # Invariant: once entries may be missing, nothing can read them. So the change of
        # state and `archived_at_ms` are one transaction.
        now = tx.one("archive.session", session_no=row.session_no)
        changed = any(
            getattr(now, name) != value for name, value in session.items() if name != "ended_at_ms"
        )
        if (
            changed
            or tx.all("archive.bindings", session_no=row.session_no)
            or protection(tx, row.session_no) is not None
        ):
            return False
        _move(tx, row, "deleting")
        tx.run("archive.hide_session", session_no=row.session_no, now_ms=tx.stamp_ms)
        return True

    if not (await backend.step(body, op="archive.release")).value:
        await _abandon(backend, row)


async def _tombstone(
    backend: Backend, row: statements.ArchiveGet
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the session's row and its bindings as they were before the archive."""
    # The two are the first chunks, or in the first one.
    found = [one for number in (0, 1) for one in await read_chunk(backend, row, number) or ()]
    named = {
        one.what: [dict(zip(one.columns, values, strict=True)) for values in one.rows]
        for one in found
        if one.what in (SESSION, BINDING)
    }
    if not found or found[0].what != SESSION or len(named[SESSION]) != 1:
        raise damaged(row.session_id, f"the archive of session {row.session_id} has no first chunk")
    return named[SESSION][0], named.get(BINDING, [])


async def _abandon(backend: Backend, row: statements.ArchiveGet) -> None:
    """Abandon an archive before anything was deleted. The session is as it was."""
    session, bindings = await _tombstone(backend, row)
    await backend.step(lambda tx: _reopen(tx, row, session, bindings), op="archive.give_up")


def _reopen(
    tx: Tx, row: statements.ArchiveGet, session: dict[str, Any], bindings: list[dict[str, Any]]
) -> None:
    """Open a session whose rows are all in their tables, and bind its keys again."""
    _move(tx, row, "restored")
    tx.run("archive.reopen_session", session_no=row.session_no, ended_at_ms=session["ended_at_ms"])
    for binding in bindings:
        tx.run(AnyStatement("archive.rebind"), **binding)  # a row as it was archived
    # Keys that an import brought while it was archived are in the archive's row only.
    known = {binding["session_key"] for binding in bindings}
    for key in keys_of(row.session_keys, row.session_id):
        if key not in known:
            agent_id = parse_key(key).agent_id
            tx.run(
                "archive.rebind",
                session_key=key,
                session_no=row.session_no,
                agent_id=agent_id,
                bound_at_ms=tx.stamp_ms,
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


def _move(tx: Tx, row: statements.ArchiveGet, to_state: str) -> None:
    if not tx.run(
        "archive.move", archive_no=row.archive_no, from_state=row.state, to_state=to_state
    ):
        raise overtaken(row)


# -- deleting --------------------------------------------------------------------------


async def _delete(backend: Backend, row: statements.ArchiveGet) -> None:
    """Delete the rows that the archive holds, a few at a time."""
    # Its words come out of the search index by the entries that have them.
    await search_index.forget_session(backend, row.session_no)
    if row.encoding == "none":
        await search_index.ask_purge(backend)
    low_no, high_no = entry_number(row.session_no, 0), entry_number(row.session_no, SEQ_MAX)
    batch_size = BatchSize()

    def sizes(tx: ReadTx) -> list[statements.ImportFileEntrySizes]:
        return tx.all(
            "import_file.entry_sizes", low_no=low_no, high_no=high_no, limit=batch_size.rows
        )

    while found := await backend.read(sizes, op="archive.sizes"):
        step = await backend.step(
            _deleting_entries(row, low_no, last_fitting(found, STEP_BYTES).entry_no),
            op="archive.delete",
        )
        batch_size.learn(step.held_ms)
    await _delete_all(backend, row, "archive.delete_branches")
    await _delete_all(backend, row, "archive.delete_epochs")
    if row.encoding == "none":
        await _delete_all(backend, row, "archive.delete_compactions")
    last = "deleted" if row.encoding == "none" else "archived"

    def finish(tx: Tx) -> None:
        if not tx.run(
            "archive.finish",
            archive_no=row.archive_no,
            from_state="deleting",
            to_state=last,
            now_ms=tx.stamp_ms,
        ):
            raise overtaken(row)

    await backend.step(finish, op="archive.finish")


def _deleting_entries(row: statements.ArchiveGet, low_no: int, high_no: int) -> Any:
    def body(tx: Tx) -> None:
        require_state(tx, row)
        tx.run("archive.delete_entries", low_no=low_no, high_no=high_no)

    return body


async def _delete_all(backend: Backend, row: statements.ArchiveGet, statement: DeleteRows) -> None:
    while (await backend.step(_deleting(row, statement), op="archive.delete")).value == STEP_ROWS:
        pass


def _deleting(row: statements.ArchiveGet, statement: DeleteRows) -> Any:
    def body(tx: Tx) -> int:
        require_state(tx, row)
        return tx.run(AnyStatement(statement), session_no=row.session_no, limit=STEP_ROWS)

    return body


# -- restoring -------------------------------------------------------------------------


async def restore(backend: Backend, session_no: int) -> Restored:
    """Restore an archived session exactly as it was, and first the parents of a fork.

    Durable on return. May be repeated: a call after an interruption continues.

    Raises:
        InvalidInput: the session is not archived.
        NotFound: the session was deleted without an archive, or its archive was dropped.
        StoreDamaged: the archive is not what was written. Nothing was put back.
    """
    chain = await backend.read(lambda tx: _to_restore(tx, session_no), op="restore.look")
    if not chain or chain[0].session_no != session_no:
        session = await backend.read(
            lambda tx: tx.one("archive.session", session_no=session_no), op="restore.look"
        )
        raise InvalidInput(
            f"session {session.session_id} is not archived, so there is nothing to restore",
            session_id=session.session_id,
        )
    for row in chain:
        # A restore needs the keys last, but damage in the list must be found first.
        keys_of(row.session_keys, row.session_id)
    for row in reversed(chain):
        await _restore_one(backend, row)
    return await backend.read(lambda tx: _restored(tx, chain), op="restore.look")


def _to_restore(tx: ReadTx, session_no: int) -> list[statements.ArchiveGet]:
    """Return the archives of a session and of its ancestors, its own first."""
    found: list[statements.ArchiveGet] = []
    at_no: int | None = session_no
    while at_no is not None:
        open_row = tx.first("archive.of_session", session_no=at_no)
        if open_row is not None:
            found.append(tx.one("archive.get", archive_no=open_row.archive_no))
        at_no = tx.one("archive.session", session_no=at_no).forked_from_no
    return found


async def _restore_one(backend: Backend, row: statements.ArchiveGet) -> None:
    if row.encoding == "none" or row.state == "deleted":
        raise NotFound(
            f"session {row.session_id} cannot be restored: its archive was deleted, "
            "or there was none "
            f"({row.reason})",
            session_id=row.session_id,
        )
    if row.state in ("writing", "complete"):
        await _abandon(backend, row)
    elif row.state in ("deleting", "archived"):
        if row.state == "archived":
            await check_chunks(backend, row)
        await search_index.forget_session(backend, row.session_no)
        await backend.step(lambda tx: _begin_restoring(tx, row), op="restore.begin")
    await advance(backend, row.archive_no)


def _begin_restoring(tx: Tx, row: statements.ArchiveGet) -> None:
    if (
        row.forked_from_no is not None
        and tx.first("archive.of_session", session_no=row.forked_from_no) is not None
    ):
        raise overtaken(row)  # its parent was archived again meanwhile
    _move(tx, row, "restoring")


def _restored(tx: ReadTx, chain: Sequence[statements.ArchiveGet]) -> Restored:
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


async def _put_back(backend: Backend, row: statements.ArchiveGet) -> None:
    """Put the rows back, compare them with the archive, and open the session."""
    await put_back_rows(backend, row)
    await compare(backend, row)
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


# -- deleting an archive ---------------------------------------------------------------


async def drop(backend: Backend, row: statements.ArchiveGet) -> str | None:
    """Delete an archive for good, or return why something needs it.

    `row` is the archive's row in state `archived`.
    """

    def body(tx: Tx) -> str | None:
        child = _protection(tx, row.session_no).restorable_id
        if child is not None:
            return f"the archived session {child} was forked from it"
        _move(tx, row, "deleted")
        _forget_names(tx, row.session_no)
        return None

    needed_by = (await backend.step(body, op="archive.drop")).value
    if needed_by is None:
        await advance(backend, row.archive_no)
    return needed_by


def _forget_names(tx: Tx, session_no: int) -> None:
    """Delete what a session's row is known by, but for its id: the tombstone has nothing else."""
    tx.run("archive.forget_name", session_no=session_no)
    tx.run("foreign_ids.forget", session_no=session_no)
    tx.run("details.forget", session_no=session_no)


async def _drop_chunks(backend: Backend, row: statements.ArchiveGet) -> None:
    """Delete an archive's chunks, one per transaction."""
    if row.state == "deleted":
        await _delete_all(backend, row, "archive.delete_compactions")

    def body(tx: Tx) -> bool:
        require_state(tx, row)
        if tx.run("archive.drop_chunk", archive_no=row.archive_no):
            return True
        tx.run("archive.empty", archive_no=row.archive_no)
        tx.run(
            "archive.finish",
            archive_no=row.archive_no,
            from_state=row.state,
            to_state=row.state,
            now_ms=tx.stamp_ms,
        )
        return False

    while (await backend.step(body, op="archive.forget")).value:
        pass
