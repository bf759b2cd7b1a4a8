"""The façade: an asynchronous view of the rules, for asyncio and trio.

Every method is one transaction (or one snapshot) over functions that know nothing of threads and loops. What
can be done before a transaction (encoding, reading a span, asking the kernel whether a process lives) is
done before it. This is the only module that picks an engine.

Cancellation. A call that was cancelled by an anyio or trio scope was not executed: if its transaction had
begun, the call returns its result and the cancellation arrives at the next await. asyncio's own
`task.cancel()` is re-raised once the outcome is known; `outcome_of` reads it from the exception.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, Unpack

import anyio
import anyio.to_thread

from .backend import Backend, ReadTx, Row, Tx
from .clock import now_ms
from .errors import InvalidInput
from .gateway.worker import Turn
from .gateway_calls import GatewayCalls
from .limits import PAGE_ROWS, Limits
from .maintenance import status, verify
from .maintenance.retention import RetentionCalls
from .maintenance.status import DatabaseStatus
from .models import (
    CompactionInfo,
    CompactionResult,
    ExportReport,
    ImportReport,
    SessionInfo,
    VerifyReport,
)
from .salvage import pipeline as salvaging
from .salvage.report import SalvageReport
from .transcript import registry
from .transcript.compaction import GivenUp
from .transcript.compaction_job import commit_compaction, give_up_compaction
from .transcript.keys import parse_key
from .transcript.session import Session
from .transfer import exporter, importer
from .transfer.progress import Progress
from .transfer.redaction import Redactor

T = TypeVar("T")
Durability = Literal["full", "normal"]

logger = logging.getLogger("sessiondb")


class OpenOptions(TypedDict, total=False):
    """What `sessiondb.open` and `sessiondb.sync.open` take besides a path; `SessionDB` has the defaults."""

    durability: Durability
    limits: Limits | None
    readonly: bool
    create: bool
    guard: bool | Literal["raise"]
    allow_unsafe_filesystem: bool
    program: str | None


class SessionDB(GatewayCalls, RetentionCalls):
    """One open database. Make it with `sessiondb.open`; use it as an async context manager."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        limits: Limits | None = None,
        readonly: bool = False,
        create: bool = True,
        guard: bool | Literal["raise"] = True,
        allow_unsafe_filesystem: bool = False,
        program: str | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._backend: Backend | None = None
        self._running_turns: dict[int, Turn] = {}
        self._options: dict[str, Any] = {
            "durability": durability,
            "limits": limits or Limits(),
            "readonly": readonly,
            "create": create,
            "guard": guard,
            "allow_unsafe_filesystem": allow_unsafe_filesystem,
            "program": program,
        }

    async def __aenter__(self) -> Self:
        from .sqlite import SqliteBackend

        if self._backend is not None:
            raise InvalidInput(
                f"{self.path} was opened with this object before; make another with sessiondb.open()"
            )
        self._backend = await SqliteBackend.open(self.path, **self._options)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish queued writes, checkpoint and close. May be repeated."""
        if self._backend is not None:
            with anyio.CancelScope(shield=True):
                await self._backend.close()

    @property
    def backend(self) -> Backend:
        """The storage engine, for code that brings its own rules over a transaction.

        Raises:
            InvalidInput: the database is not open.
        """
        if self._backend is None:
            raise InvalidInput(f"{self.path} is not open; use `async with sessiondb.open(...)`")
        return self._backend

    async def read(self, op: str, fn: Callable[[ReadTx], T]) -> T:
        """Run `fn` in one short snapshot, on a reader thread. For code that brings its own rules; see `backend`.

        Raises:
            StoreBusy: every reader is occupied and the queue is full.
            ReadTooLong: it took longer than `Limits.read_age_s_max`; read in pages.
        """
        return await self.backend.read(fn, op=op)

    async def write(
        self, op: str, fn: Callable[[Tx], T], *, size: int = 0, timeout_s: float | None = None
    ) -> T:
        """Run `fn` in a write transaction, on the writer thread; durable on return. See `backend`.

        Raises:
            StoreBusy: the queue is full, or another process holds the write lock; retry after `retry_after_ms`.
            NotExecuted: `timeout_s` (by default `Limits.write_timeout_s`) passed before the transaction began.
            StoreFull, StoreFailed: the disk is full or failed; rolled back.
            OutcomeUnknown: the disk failed in COMMIT. Read again, or retry with the same idempotency key.
            StoreReadOnly: the database was opened for reading.
        """
        return await self.backend.write(fn, op=op, size=size, timeout_s=timeout_s)

    # -- sessions -------------------------------------------------------------------------------------------

    async def session(self, key: str, *, cwd: str | None = None) -> Session:
        """Return the session that a conversation's key is bound to; create and bind one when it is new.

        Durable on return; may be repeated. Processes that race for a new key get the same session.

        Raises:
            InvalidKey: outside the grammar `agent:<agentId>:<rest>`.
        """
        parsed = parse_key(key)
        bound = await self.read(
            "session", lambda tx: tx.first("registry.by_key", session_key=parsed.text)
        )
        if bound is not None:
            return Session(self, registry.Ref(bound.session_no, bound.session_id))
        session_id = registry.new_session_id()
        ref = await self.write(
            "session.create",
            lambda tx: registry.open_by_key(tx, parsed, session_id=session_id, cwd=cwd),
        )
        return Session(self, ref)

    async def create_session(
        self, session_id: str | None = None, *, agent_id: str | None = None, cwd: str | None = None
    ) -> Session:
        """Create a session that no key points at. Durable on return. Each call makes another; one repeated with its id is refused.

        Raises:
            InvalidInput: the id is taken, or cannot be one.
        """
        chosen = (
            registry.check_session_id(session_id)
            if session_id is not None
            else registry.new_session_id()
        )
        return Session(
            self,
            await self.write(
                "session.create", lambda tx: registry.create(tx, chosen, agent_id=agent_id, cwd=cwd)
            ),
        )

    async def session_by_id(self, session_id: str) -> Session:
        """Return a session by its id, a unique prefix of it, or a key that is bound.

        Raises:
            NotFound: none, or more than one.
        """
        return Session(
            self, await self.read("session.find", lambda tx: registry.resolve(tx, session_id))
        )

    async def sessions(
        self, *, agent_id: str | None = None, with_ended: bool = False
    ) -> AsyncIterator[SessionInfo]:
        """Iterate over sessions, last changed first. Holds no snapshot between pages."""
        before: tuple[int, int] | None = None
        while True:
            infos, before = await self.read(
                "sessions", _sessions_page(before, agent_id, with_ended)
            )
            for info in infos:
                yield info
            if before is None:
                return

    async def bind(self, key: str, session: Session) -> None:
        """Point a conversation's key at a session. The one it pointed at before stays. Durable; may be repeated.

        Raises:
            InvalidKey: outside the grammar `agent:<agentId>:<rest>`.
            SessionArchived: its entries are in an archive; `restore` brings them back.
        """
        parsed = parse_key(key)
        await self.write("bind", lambda tx: registry.bind(tx, parsed, session.ref.session_no))

    async def unbind(self, key: str) -> bool:
        """Forget a key; its session stays, and the next message for the key begins a new one. False if it was not bound.

        Durable; may be repeated.

        Raises:
            InvalidKey: outside the grammar `agent:<agentId>:<rest>`.
        """
        parsed = parse_key(key)
        return await self.write("unbind", lambda tx: registry.unbind(tx, parsed))

    # -- compactions ----------------------------------------------------------------------------------------

    async def commit_compaction(
        self,
        compaction_id: str,
        summary: str,
        *,
        details: object = None,
        from_hook: bool | None = None,
    ) -> CompactionResult:
        """Complete a compaction, in time or late. The same id always gets the same answer. Durable on return.

        Raises:
            NotFound: no such compaction.
            InvalidInput: the summary is no text, `details` has no JSON form, or both are too large for one entry.
        """
        return await commit_compaction(
            self, compaction_id, summary, details=details, from_hook=from_hook
        )

    async def fail_compaction(
        self, compaction_id: str, reason: str, *, state: GivenUp = "failed"
    ) -> bool:
        """Give a running job up; False if it was no longer running, or there is none. A later commit is still reconciled.

        Durable; may be repeated. `state` says how: "failed", "cancelled", "expired" or "abandoned".
        """
        return await give_up_compaction(self, compaction_id, state, reason)

    async def compactions(self, session: Session | None = None) -> AsyncIterator[CompactionInfo]:
        """Iterate over compaction jobs, newest first; of one session or of all."""
        before_no = 2**62
        while True:
            rows = await self.read(
                "compactions",
                _compactions_page(session.ref.session_no if session else None, before_no),
            )
            for row in rows:
                yield _compaction_info(row)
            if len(rows) < PAGE_ROWS:
                return
            before_no = rows[-1].compaction_no

    async def verify(self, session: Session | None = None, *, deep: bool = True) -> VerifyReport:
        """Walk the database, or one session, and report every invariant that does not hold. Changes nothing.

        Reads in pages and holds no snapshot between them, so it may run beside a busy gateway. `deep` also decodes
        every stored text and compares every index with its table; without it only the small columns are read.

        Raises:
            StoreBusy: every reader is occupied and the queue is full; start again later.
        """
        return await verify.run(
            self.backend, session.ref.session_no if session is not None else None, deep=deep
        )

    # -- the database ---------------------------------------------------------------------------------------

    async def import_path(
        self,
        path: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        verify: bool = False,
        progress: Progress | None = None,
        redactor: Redactor | None = None,
    ) -> ImportReport:
        """Import a transcript, or a folder of them: pi's or OpenClaw's. Reads only; a receipt for every file.

        Durable on return. May be repeated: the same bytes change nothing, a file that has grown gives what is new,
        and an import that was interrupted goes on. Appends never wait for it. With `verify`, each file is compared
        with its export and its context with an independent reader's. `progress` is called with files done, files in
        all, bytes done, bytes in all, and the current file's name. With a `redactor`, entries are stored without the
        secrets that it finds, for good; the receipts say how many.

        Raises:
            InvalidInput: there is nothing at the path, or it may not be read.
        """
        return await importer.import_path(
            self.backend,
            path,
            dry_run=dry_run,
            verify=verify,
            progress=progress,
            redactor=redactor,
            protect=self._own_files(),
        )

    async def export(
        self,
        dest: str | os.PathLike[str],
        *,
        session: Session | str | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
        redactor: Redactor | None = None,
    ) -> ExportReport:
        """Write every session, or one, as files that pi and OpenClaw read; imported ones under their own names.

        Each file is on disk when it appears. May be repeated. A file that is there already and differs is left alone
        and reported, unless `overwrite`. `session` may be an id, a unique prefix of one, or a key. With a `redactor`, the
        files are without the secrets that it finds; the database is not changed.

        Raises:
            InvalidInput: the destination cannot be made.
            NotFound: no such session.
        """
        if isinstance(session, str):
            session = await self.session_by_id(session)
        session_no = session.ref.session_no if session is not None else None
        return await exporter.export(
            self.backend,
            dest,
            session_no=session_no,
            overwrite=overwrite,
            progress=progress,
            protect=self._own_files(),
            redactor=redactor,
        )

    def _own_files(self) -> list[str]:
        """Return the files that no import may read and no export may touch."""
        return [
            str(self.backend.stats()["path"]) + suffix
            for suffix in ("", "-wal", "-shm", "-journal")
        ]

    async def backup(self, destination: str | os.PathLike[str]) -> int:
        """Copy the database to a new file, complete as of its end, while it is in use; return its size in pages.

        The copy and its name are on disk on return; an unfinished one has another name. Appends never wait for it, and it pins
        no WAL. To be called in the process that writes most: commits of another process make it start over.

        Raises:
            InvalidInput: the destination exists, and a backup never overwrites a file; or its file system has no hard links.
        """
        return await self.backend.backup(destination)

    async def stats(self) -> dict[str, Any]:
        """Return counters and gauges of this process's use of the database; keys carry their units."""
        return self.backend.stats()

    async def status(self) -> DatabaseStatus:
        """Describe the database's condition: counts, running and stuck compactions, who holds what, processes, space.

        One snapshot, so that what it says of turns and what `held` lists agree; liveness is asked of the kernel after it.
        """
        stats, limits, at_ms = self.backend.stats(), self._options["limits"], now_ms()
        wal_bytes = stats["wal_file_bytes"]
        found = await self.read(
            "status",
            lambda tx: status.read_status(
                tx, path=self.path, wal_bytes=wal_bytes, limits=limits, now_ms=at_ms
            ),
        )
        described = await anyio.to_thread.run_sync(status.with_liveness, found)
        return dataclasses.replace(described, concerns=stats["concerns"])


def open(path: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> SessionDB:  # noqa: A001  `sessiondb.open`, as `gzip.open`
    """Open a database, creating it when there is none; use the result in `async with`.

    `durability`: "full" (the default): what returned is on disk; "normal": a power cut may lose the last moments.
    `limits`: other bounds than the defaults of `Limits`.
    `readonly`: neither create nor write; works beside a live gateway. A write raises StoreReadOnly.
    `create`: whether a file that is not there is made (the default) or is an OpenError.
    `guard`: whether to watch for other code of this process that opens, replaces or removes the live files, because that can take
    SQLite's locks away, and committed rows with them. True (the default): a warning in the log and a count in `stats()`; "raise": a
    RuntimeError in that code, before any harm; False: off. A read-only database is not watched.
    `allow_unsafe_filesystem`: open on a network or shared file system all the same, where WAL mode loses data.
    `program`: what this process is called in `held`, `status` and in errors that name a holder; by default the script's name.

    Raises (on entering):
        OpenError: not a sessiondb file, a newer one, or one that cannot be used safely here.
        StoreBusy: another process holds the write lock for longer than `Limits.busy_timeout_s`.
        StoreFailed, StoreFull, StoreDamaged: the disk failed, is full, or the file is damaged.
    """
    return SessionDB(path, **options)


def _sessions_page(
    before: tuple[int, int] | None, agent_id: str | None, with_ended: bool
) -> Callable[[ReadTx], tuple[list[SessionInfo], tuple[int, int] | None]]:
    return lambda tx: registry.page(
        tx, before=before, limit=PAGE_ROWS, agent_id=agent_id, with_ended=with_ended
    )


def _compactions_page(session_no: int | None, before_no: int) -> Callable[[ReadTx], list[Row]]:
    if session_no is None:
        return lambda tx: tx.all("compaction.list", before_no=before_no, limit=PAGE_ROWS)
    return lambda tx: tx.all(
        "compaction.list_of_session", session_no=session_no, before_no=before_no, limit=PAGE_ROWS
    )


def _compaction_info(row: Row) -> CompactionInfo:
    return CompactionInfo(
        compaction_id=row.compaction_id,
        session_id=row.session_id,
        state=row.state,
        trigger=row.trigger,
        base_epoch=row.base_epoch,
        epoch=row.epoch,
        late=bool(row.late),
        tokens_before=row.tokens_before,
        tokens_after=row.tokens_after,
        owner=row.owner,
        begun_at_ms=row.begun_at_ms,
        deadline_ms=row.deadline_ms,
        finished_at_ms=row.finished_at_ms,
        reason=row.reason,
    )


def query(
    path: str | os.PathLike[str],
    sql: str,
    parameters: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 60.0,
    is_unwanted: Callable[[], bool] = lambda: False,
) -> AbstractContextManager[tuple[list[str], Iterator[tuple[Any, ...]]]]:
    """Run one statement of a person's own, read-only, on a connection of this thread; yield its columns and its rows.

    For the command line. Rows are read as they are asked for, and the snapshot, which keeps the WAL from being reset,
    is held until the last one or until `timeout_s`; so take them at once. `is_unwanted` is asked now and then, from this
    thread, and stops the statement when it says so. Inside a gateway use `SessionDB.read`.

    Raises:
        InvalidInput: not one statement, not SQL, or something else than a query.
        ReadTooLong: `timeout_s` passed.
    """
    from .sqlite import user_query

    return user_query.query(
        os.path.realpath(path), sql, parameters or {}, timeout_s=timeout_s, is_unwanted=is_unwanted
    )


def salvage(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    use_wal: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> SalvageReport:
    """Get every readable entry out of a damaged file, into a new database, and say what is missing. Blocks until done.

    The file is read page by page and never written; nobody else may have it open. The new database appears under its
    name when it is complete and verified. `progress` hears what is being done.

    Raises:
        OpenError: the file cannot be read, or nothing in it is sessiondb's.
        StoreBusy: a process has it open.
        InvalidInput: the destination exists, or its file system has no hard links.
    """
    from .sqlite import damaged_file, new_database

    with damaged_file.DamagedFile(os.path.realpath(path), use_wal=use_wal) as source:
        with new_database.NewDatabase(os.path.realpath(destination)) as target:
            return salvaging.run(source, target, progress=progress)


def bound_query_memory(limit_bytes: int) -> None:
    """Bound what `query` may take, and everything else that the engine does in this process. For a process of one's own."""
    from .sqlite import user_query

    user_query.bound_memory(limit_bytes)


def versions() -> dict[str, str]:
    """Return the versions of the engine's parts."""
    from .sqlite import user_query

    return user_query.versions()
