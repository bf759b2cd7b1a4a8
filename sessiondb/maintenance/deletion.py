"""Delete sessions for good: one, or those that keys with a prefix reach.

    look --> clear --> begin --> delete the rows --> forget the rest

* look: a fork that shares the history, or an import that is at work, keeps a session. Nothing is
  changed then, and the report says why. Forks that are deleted by the same call go first.
* clear: what is open of it ends (`gateway/clearing.py`).
* begin: it ends, its keys are unbound, and it can be read no more. One transaction.
* its entries, branches, epochs and compactions are deleted, as by retention without an archive
  (`archive.py`). If it was archived, its archive is.
* forget: its messages, replies, turns, events, the texts of its imported files that are no
  entries, and the keys that its tombstone names. The events of the deletion itself stay, for
  those who wait for an answer.

Each arrow is in steps of background work, and each step is durable. A killed call is repeated:
the tombstone says that it is not at its end, and the next call of this kind ends it. What stays is
the session's row without its name, and the receipts of its imports, which keep an import from
bringing it back.

With an archive the session goes into one, as by retention. Work that is open keeps it then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from sessiondb.backend import AnyStatement, Backend, Database, ReadTx, Tx
from sessiondb.batching import BatchSize
from sessiondb.errors import NotFound
from sessiondb.json_text import dumps
from sessiondb.limits import DELETE_TRIES_MAX, PAGE_ROWS, STEP_ROWS
from sessiondb.models import DeleteReport
from sessiondb.transcript import search_index

from . import archive, archive_small, retention
from .retention_plan import measure

if TYPE_CHECKING:
    from sessiondb import statements

Clear = Callable[[Tx, int], bool]
"""End what is open of a session in which no turn runs. True: there is more."""

REASON: Final = "deleted on request"

# Tables that are walked by number, because they have no index by session.
_WALKED: Final = {
    "inbox": ("deletion.inbox", "deletion.delete_inbox"),
    "outbox": ("deletion.outbox", "deletion.delete_outbox"),
    "event": ("deletion.event", "deletion.delete_event"),
}
_OF_SESSION: Final = {"turn": "deletion.delete_turns", "quarantine": "deletion.empty_pieces"}
_PAGE: Final = 1_000
_NOTHING: Final = "\U0010ffff"
"""No key begins with this."""
_INDEXES_SHOWN: Final = 20
# Of 64 KiB each at most.
DETAILS_STEP_ROWS: Final = 8


async def delete(
    db: Database,
    session_nos: Sequence[int],
    clear: Clear,
    *,
    keep_archive: bool,
    abort: str | None,
    namespace: str | None = None,
) -> DeleteReport:
    """Delete sessions. See `SessionDB.delete`. Durable, step by step, and may be repeated."""
    backend = db.backend
    last = await backend.read(lambda tx: tx.one("deletion.last_event"), op="delete.look")
    gone: list[int] = []
    kept: list[tuple[str, str]] = []
    if not keep_archive:
        # Words of one that is archived left the index when it was. Those of others ask themselves.
        await search_index.ask_purge(backend)
    names = await backend.read(lambda tx: _names(tx, session_nos), op="delete.look")
    # A fork has the higher number, so it is deleted before the session that it shares entries with.
    for session_no in sorted(names, reverse=True):
        why = (
            await _archive(backend, session_no)
            if keep_archive
            else await _delete(db, session_no, clear, abort)
        )
        if why is None:
            gone.append(session_no)
        else:
            kept.append((names[session_no], why))
    rows: dict[str, int] = {}
    if gone and not keep_archive:
        rows = await _forget(backend, gone, last.event_no)
    if namespace is not None and not keep_archive:
        rows["named_details"] = await _forget_details(backend, namespace)
    indexed: tuple[str, ...] = ()
    if gone and not keep_archive:
        indexed = await search_index.left(backend)
    await retention.free_pages(backend)
    done = tuple(names[session_no] for session_no in reversed(gone))
    left = (*await _left(backend, keep_archive), *indexed) if gone or rows else ()
    return DeleteReport(
        deleted=() if keep_archive else done,
        archived=done if keep_archive else (),
        kept=tuple(reversed(kept)),
        rows=rows,
        left=left,
    )


async def of_namespace(backend: Backend, namespace: str) -> list[int]:
    """Return the sessions of a namespace of foreign ids, also archived ones."""
    found: list[int] = []
    after_id = ""

    def page(tx: ReadTx) -> list[statements.DeletionInNamespace]:
        return tx.all(
            "deletion.in_namespace", namespace=namespace, after_id=after_id, limit=PAGE_ROWS
        )

    while rows := await backend.read(page, op="delete.find"):
        found += [row.session_no for row in rows]
        after_id = rows[-1].external_id
    return sorted({*found, *await reached_by(backend, _NOTHING)})


async def reached_by(backend: Backend, key_prefix: str) -> list[int]:
    """Return the sessions that keys with a prefix reach, or reached when they were archived.

    With those whose deletion was begun by a call that did not end: it had taken their names.
    """
    found: set[int] = set()
    end = key_prefix + "\U0010ffff"
    after_key, after_no = "", 0

    def bound(tx: ReadTx) -> list[statements.DeletionByKey]:
        return tx.all(
            "deletion.by_key",
            after_key=after_key,
            prefix=key_prefix,
            prefix_end=end,
            limit=PAGE_ROWS,
        )

    def archived(tx: ReadTx) -> list[statements.DeletionArchived]:
        return tx.all(
            "deletion.archived",
            after_no=after_no,
            prefix=key_prefix,
            prefix_end=end,
            limit=PAGE_ROWS,
        )

    while keys := await backend.read(bound, op="delete.find"):
        found.update(row.session_no for row in keys)
        after_key = keys[-1].session_key
    while archives := await backend.read(archived, op="delete.find"):
        found.update(row.session_no for row in archives if row.has_key or row.begun)
        after_no = archives[-1].archive_no
    return sorted(found)


def _names(tx: ReadTx, session_nos: Sequence[int]) -> dict[int, str]:
    return {
        session_no: tx.one("archive.session", session_no=session_no).session_id
        for session_no in session_nos
    }


# -- one session -----------------------------------------------------------------------


async def _archive(backend: Backend, session_no: int) -> str | None:
    """Archive a session. Return why it was left alone."""
    found = await backend.read(
        lambda tx: tx.first("archive.of_session", session_no=session_no), op="delete.look"
    )
    if found is not None:
        return await archive.end(backend, found.archive_no)
    return await archive_small.archive_one(backend, archive_small.Wanted(session_no, REASON))


async def _delete(db: Database, session_no: int, clear: Clear, abort: str | None) -> str | None:
    """Delete a session's transcript, wherever it is by now. Return why it was left alone."""
    backend = db.backend
    why: str | None = None
    for _ in range(DELETE_TRIES_MAX):
        found = await backend.read(
            lambda tx: tx.first("archive.of_session", session_no=session_no), op="delete.look"
        )
        if found is None:
            why = await backend.read(lambda tx: archive.needed_by(tx, session_no), op="delete.look")
            if why is not None:
                return why
            await _clear(db, session_no, clear, abort)
            # A message that came meanwhile protects it, and is taken back by the next try.
            _, why = await archive.begin(backend, session_no, REASON, keep_archive=False)
        elif found.finished_at_ms is None:
            await archive.advance(backend, found.archive_no)
        elif found.state == "archived":
            why = await _drop(backend, found.archive_no)
            if why is not None:
                return why
        else:
            return None
    return why or "other work on it came in between again and again"


async def _clear(db: Database, session_no: int, clear: Clear, abort: str | None) -> None:
    more = True
    while more:
        more = await db.change_session(
            "delete.clear", session_no, lambda tx, _: clear(tx, session_no), abort=abort
        )


async def _drop(backend: Backend, archive_no: int) -> str | None:
    row = await backend.read(
        lambda tx: tx.one("archive.get", archive_no=archive_no), op="delete.look"
    )
    await backend.step(
        lambda tx: tx.run("deletion.begin_dropping", archive_no=archive_no), op="delete.drop"
    )
    return await archive.drop(backend, row)


# -- the rest --------------------------------------------------------------------------


async def _forget(
    backend: Backend, session_nos: Sequence[int], last_event_no: int
) -> dict[str, int]:
    """Delete what other tables hold of deleted sessions. Return the rows by table."""
    rows = {
        table: await _walk(backend, *statements, set(session_nos), last_event_no)
        for table, statements in _WALKED.items()
    }
    for table, statement in _OF_SESSION.items():
        rows[table] = 0
        for session_no in session_nos:
            rows[table] += await _delete_all(backend, statement, session_no)
    for session_no in session_nos:
        await backend.step(_forgetting_keys(session_no), op="delete.forget")
    return rows


async def _walk(
    backend: Backend, walk: str, delete: str, session_nos: set[int], last_event_no: int
) -> int:
    deleted = after_no = 0
    sessions = dumps(sorted(session_nos))
    bounds = {"last_no": last_event_no} if walk == "deletion.event" else {}

    def page(tx: ReadTx) -> list[statements.DeletionInbox]:
        return tx.all(AnyStatement(walk), after_no=after_no, limit=_PAGE, **bounds)

    while found := await backend.read(page, op="delete.look"):
        numbers = [row.no for row in found if row.session_no in session_nos]
        for part in _parts(numbers):
            deleted += (
                await backend.step(_deleting(delete, part, sessions), op="delete.rows")
            ).value
        after_no = found[-1].no
    return deleted


def _parts(numbers: list[int]) -> Iterator[str]:
    rows = BatchSize().rows
    for at in range(0, len(numbers), rows):
        yield dumps(numbers[at : at + rows])


def _deleting(statement: str, numbers: str, sessions: str) -> Callable[[Tx], int]:
    return lambda tx: tx.run(AnyStatement(statement), numbers=numbers, sessions=sessions)


async def _delete_all(backend: Backend, statement: str, session_no: int) -> int:
    def body(tx: Tx) -> int:
        return tx.run(AnyStatement(statement), session_no=session_no, limit=STEP_ROWS)

    deleted = 0
    while step := (await backend.step(body, op="delete.rows")).value:
        deleted += step
    return deleted


def _forgetting_keys(session_no: int) -> Callable[[Tx], int]:
    return lambda tx: tx.run("deletion.forget_keys", session_no=session_no)


async def _forget_details(backend: Backend, namespace: str) -> int:
    """Delete what an application keeps in a namespace. Return how many."""

    def body(tx: Tx) -> int:
        return tx.run("details.forget_namespace", namespace=namespace, limit=DETAILS_STEP_ROWS)

    deleted = 0
    while step := (await backend.step(body, op="delete.details")).value:
        deleted += step
    return deleted


async def has_details(backend: Backend, namespace: str) -> bool:
    """Return whether an application keeps something in a namespace."""

    def first(tx: ReadTx) -> bool:
        rows = tx.all("details.in_namespace", namespace=namespace, after_name="", limit=1)
        return bool(rows)

    return await backend.read(first, op="delete.find")


# -- what is left ----------------------------------------------------------------------


async def _left(backend: Backend, keep_archive: bool) -> tuple[str, ...]:
    """Say what still holds texts of what was deleted, a sentence each."""
    after = await measure(backend)
    indexes = await backend.read(
        lambda tx: tx.all("deletion.indexes", limit=_INDEXES_SHOWN), op="delete.look"
    )
    return tuple(
        _left_behind(
            int(backend.stats()["wal_file_bytes"]),
            after.free,
            [row.path for row in indexes],
            keep_archive=keep_archive,
        )
    )


def _left_behind(
    wal_bytes: int, free_bytes: int, indexes: Sequence[str], *, keep_archive: bool
) -> Iterator[str]:
    if keep_archive:
        yield "The archives hold everything, and `unarchive` brings it back."
    yield (
        f"The WAL file ({wal_bytes:,} bytes) holds older pages until it is written over. Closing "
        "the database in every process removes it."
    )
    if free_bytes:
        yield (
            f"{free_bytes:,} bytes of free pages are still in the file. SQLite overwrites deleted "
            "texts in pages that it keeps (`secure_delete=fast`), but not in free pages: `gc` "
            "returns those to the file system."
        )
    yield "Backups and copies of the database from before hold everything. So do exported files."
    yield "The files that were imported, and the logs of your channels, are as they were."
    if indexes and not keep_archive:
        shown = ", ".join(indexes)
        yield f"The texts of imported index files are kept whole, and name their keys: {shown}."
    if not keep_archive:
        yield "A row without texts stays of each session: its id, its agent, times and sizes."


def require_any(session_nos: Sequence[int], what: str) -> None:
    """Refuse a prefix or a namespace that reaches nothing: it is a mistake most often.

    Raises:
        NotFound: it reaches no session.
    """
    if not session_nos:
        raise NotFound(
            f"no session has {what}, bound or archived. Nothing was deleted; "
            "list sessions with `sessiondb sessions DB --all`"
        )
