"""The SQLite engine as the rules see it: `SqliteBackend`, a `sessiondb.backend.Backend`.

It joins the parts (`parts.py`): one writer thread (`writer.py`), a few readers
(`readers.py`), and waiting on the event loop (`waiter.py`). The event loop's own share of
a write is to make a request, put it in the queue and be woken: no SQL, no lock that is
ever held across SQL, no file access. Opening (`opening.py`) and closing block for a while,
and so run on a helper thread.

A fork's child inherits the object, but neither the threads nor the locks. Every use of it
there is refused. Its connections are left alone, because closing them would act on the
parent's files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import anyio.lowlevel
import apsw

from sessiondb import threads
from sessiondb.backend import ReadTx, SqlValue, Step, Tx
from sessiondb.clock import Clock, monotonic
from sessiondb.errors import (
    NotExecuted,
    ReadTooLong,
    StoreClosed,
    StoreReadOnly,
    before_the_write,
    mark_outcome,
)
from sessiondb.limits import QUERY_STOP_S
from sessiondb.models import QueryResult
from sessiondb.process import Registered
from sessiondb.timers import SYSTEM
from sessiondb.waiter import new_waiter

from . import alive_file, backup, user_query
from . import guard as guarding
from .backup import MaintenanceTask
from .connection import close_quietly, connect_reader, log
from .opening import Settings, SettingsOptions, resolve, settings_of, start, start_here
from .parts import Parts, end_with
from .permissions import concerns
from .readers import ReadRequest
from .request_queue import Request
from .schema import SCHEMA_VERSION
from .transaction import Snapshot, translate
from .writer import Writer

T = TypeVar("T")

# A backup or a vacuum may take this long, its time in the queue included.
MAINTENANCE_S_MAX = 24 * 3600.0


class SqliteBackend:
    """One open SQLite database. Made by `open`."""

    def __init__(self, parts: Parts, clock: Clock = SYSTEM) -> None:
        self._parts = parts
        self._clock = clock
        # A loop that waits looks again, so a time that it waits for is noticed.
        self._clock_ends = clock.on_move(parts.changes.notify)
        end_with(self, parts)

    # -- opening and closing -----------------------------------------------------------

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        guard: bool | guarding.Mode = True,
        **options: Unpack[SettingsOptions],
    ) -> Self:
        """Open a database: create a new one, migrate an older one.

        `readonly` neither creates nor writes, and works beside a live gateway. `program`
        names this process to others. `guard` watches for other code that touches the files
        (`guard.py`): True warns, "raise" raises, False is off.

        Raises:
            OpenError: and its subclasses. Each says what the file is and what to do.
            StoreBusy: another process held the lock for longer than `busy_timeout_s`.
            StoreFailed, StoreFull, StoreDamaged: the disk failed, the disk is full, or the
                file is damaged.
        """
        settings = settings_of(**options)
        parts = await start(path, settings)
        try:
            return cls._begun(parts, settings, guard)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await threads.run(parts.close)
            raise

    @classmethod
    def open_now(
        cls,
        path: str | os.PathLike[str],
        *,
        guard: bool | guarding.Mode = True,
        **options: Unpack[SettingsOptions],
    ) -> Self:
        """Open a database on this thread, which waits meanwhile. Otherwise as `open`."""
        settings = settings_of(**options)
        parts = start_here(path, settings)
        try:
            return cls._begun(parts, settings, guard)
        except BaseException:
            parts.close()
            raise

    @classmethod
    def _begun(cls, parts: Parts, settings: Settings, guard: bool | guarding.Mode) -> Self:
        if not settings.readonly:
            _warn_of_concerns(parts.path)
            parts.watch(guard)
        return cls(parts, settings.clock)

    async def close(self) -> None:
        """Finish queued writes, fold the WAL into the database, and close.

        May be repeated, and from several tasks.
        """
        self._refuse_after_fork()
        with anyio.CancelScope(shield=True):
            await threads.run(self.close_now)

    def close_now(self) -> None:
        """Close on this thread, which waits meanwhile. Otherwise as `close`."""
        self._refuse_after_fork()
        self._clock_ends()
        self._parts.close()

    # -- the seam ----------------------------------------------------------------------

    async def write(
        self, fn: Callable[[Tx], T], *, op: str, size: int = 0, timeout_s: float | None = None
    ) -> T:
        """Run `fn` in a write transaction. Return once it is committed and durable.

        See `backend.Backend.write`.
        """
        writer = self._writer(op)
        with before_the_write():
            await anyio.lowlevel.checkpoint_if_cancelled()
        timeout_s = writer.limits.write_timeout_s if timeout_s is None else timeout_s
        request = Request(
            fn, op, size, monotonic() + timeout_s, new_waiter(), stamp_ms=self._clock.stamp_ms()
        )
        writer.queue.put(request)
        return await self._outcome(writer, request, timeout_s)  # type: ignore[no-any-return]

    async def step(self, fn: Callable[[Tx], T], *, op: str, size: int = 0) -> Step[T]:
        """Run `fn` as one step of background work. See `backend.Backend.step`."""
        writer = self._writer(op)
        with before_the_write():
            await anyio.lowlevel.checkpoint_if_cancelled()
        timeout_s = writer.limits.write_timeout_s
        request = Request(
            fn,
            op,
            size,
            monotonic() + timeout_s,
            new_waiter(),
            in_background=True,
            stamp_ms=self._clock.stamp_ms(),
        )
        writer.queue.put(request)
        return Step(await self._outcome(writer, request, timeout_s), request.held_ms)

    async def read(self, fn: Callable[[ReadTx], T], *, op: str) -> T:
        """Run `fn` in one short snapshot on a reader thread. See `backend.Backend.read`."""
        self._refuse_after_fork()
        await anyio.lowlevel.checkpoint_if_cancelled()
        readers = self._parts.readers
        request = ReadRequest(fn, op, new_waiter())
        readers.put(request)
        # The watchdog ends a read that runs too long. This bound ends one that also waited in
        # the queue.
        timeout_s = readers.limits.write_timeout_s + readers.limits.read_age_s_max
        if not await request.waiter.wait(timeout_s, lambda: readers.abandon(request)):
            raise ReadTooLong(
                f"{op}: no answer within {timeout_s:g} s. The readers are occupied. "
                "Retry, or raise Limits.readers."
            )
        if request.error is not None:
            raise request.error
        return request.take_value()  # type: ignore[no-any-return]

    async def query(
        self,
        sql: str,
        parameters: Sequence[SqlValue],
        *,
        rows_max: int,
        bytes_max: int,
        timeout_s: float,
        allow_cut: bool,
    ) -> QueryResult:
        """Run a statement of the application's own. See `backend.Backend.query`."""
        self._refuse_after_fork()
        await anyio.lowlevel.checkpoint_if_cancelled()
        user_query.check(sql, parameters, rows_max, bytes_max, timeout_s)
        parts, give_up = self._parts, monotonic() + timeout_s
        bounds = user_query.answer_bounds(parts.path, timeout_s, bytes_max, lambda: parts.closed)

        def read(snapshot: Snapshot) -> QueryResult:
            return user_query.answer(
                snapshot,
                sql,
                parameters,
                bounds,
                give_up=give_up,
                rows_max=rows_max,
                bytes_max=bytes_max,
                allow_cut=allow_cut,
            )

        readers = parts.start_queries()
        request = ReadRequest(read, "query", new_waiter())
        readers.put(request)
        # The statement ends itself at its time. This bound ends the wait for one that cannot.
        notified = await request.waiter.wait(
            timeout_s + QUERY_STOP_S, lambda: readers.abandon(request)
        )
        if not notified:
            raise (
                user_query.unstoppable(sql, timeout_s)
                if request.taken
                else user_query.not_begun(timeout_s)
            )
        if request.error is not None:
            raise request.error
        return request.take_value()  # type: ignore[no-any-return]

    @property
    def is_busy(self) -> bool:
        """Whether callers of this process wrote a moment ago. See `backend.Backend.is_busy`."""
        return self._parts.writer is not None and self._parts.writer.queue.is_busy

    @property
    def change_count(self) -> int:
        """How many commits of any process have been noticed. Only good for comparing."""
        return self._parts.changes.count

    async def wait_change(self, seen: int, timeout_s: float) -> None:
        """Return once there is a commit since `seen`, or after `timeout_s`.

        See `backend.Backend.wait_change`.
        """
        self._refuse_after_fork()
        await anyio.lowlevel.checkpoint_if_cancelled()
        await self._parts.changes.wait(seen, timeout_s)

    def wake(self) -> None:
        """Wake whoever waits for a commit. See `backend.Backend.wake`."""
        self._parts.changes.notify()

    def liveness(self, registrations: Sequence[Registered]) -> list[bool | None]:
        """Tell whether these instances' processes live. See `backend.Backend.liveness`."""
        self._refuse_after_fork()
        return alive_file.liveness(self._parts.path, registrations)

    def stats(self) -> dict[str, Any]:
        """Return counters and gauges, keys with their units. Cheap, and never waits for SQL.

        Refused after a fork: a lock that another thread held then is held for ever in the child.
        """
        self._refuse_after_fork()
        parts = self._parts
        return {
            "path": parts.path,
            "sqlite_version": apsw.sqlite_lib_version(),
            "schema_version": SCHEMA_VERSION,
            "instance_no": parts.writer.instance_no if parts.writer is not None else None,
            "database_file_bytes": _file_bytes(parts.path),
            "wal_file_bytes": _file_bytes(parts.path + "-wal"),
            "concerns": concerns(parts.path),
            "guard_violations": parts.guard.violations if parts.guard is not None else 0,
            "writer": parts.writer.snapshot() if parts.writer is not None else None,
            "readers": parts.readers.snapshot(),
            "queries": parts.queries.snapshot() if parts.queries is not None else None,
        }

    # -- maintenance -------------------------------------------------------------------

    async def backup(self, destination: str | os.PathLike[str]) -> int:
        """Copy the database to a new file while it is in use. Return its size in pages.

        The copy is complete and synced when it appears under its name. A repetition needs
        another name.

        Raises:
            InvalidInput: the destination exists, or its file system has no hard links.
            StoreBusy: `MAINTENANCE_TASKS_MAX` backups and vacuums are running or waiting.
        """
        target = resolve(destination)
        if self._parts.writer is None:  # opened for reading: there is nobody's pace to keep
            return await self._backup_at_once(target)
        try:
            return await self._maintain(
                "backup", lambda connection: backup.backup(connection, target)
            )
        except backup.StartedOver:
            log.info(
                "backup of %s: other processes write to it, so it is made from one snapshot, "
                "which keeps the WAL meanwhile",
                self._parts.path,
            )
        return await self._backup_at_once(target)

    async def _backup_at_once(self, target: str) -> int:
        """Copy from one snapshot, on a thread that ends before this returns, also if cancelled."""
        path, abandoned, outcome = self._parts.path, threading.Event(), Future[int]()
        writer = self._parts.writer
        files = writer.files() if writer is not None else None

        def run() -> None:
            try:
                if files is not None:
                    files.refuse_changed("backup", "Nothing was copied.")
                connection = connect_reader(path)
                try:
                    pages = backup.backup_at_once(connection, target, abandoned)
                finally:
                    close_quietly(connection)
            except BaseException as error:  # noqa: BLE001  # it is raised in the task that asked
                outcome.set_exception(
                    translate(error, "backup", path=path)
                    if isinstance(error, apsw.Error)
                    else error
                )
            else:
                outcome.set_result(pages)

        # Not a worker thread of anyio: cancelled just now, it might never begin, and then
        # `outcome` would never be set.
        threading.Thread(target=run, name="sessiondb-backup", daemon=True).start()
        try:
            return await threads.run(outcome.result, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            abandoned.set()
            with anyio.CancelScope(shield=True):
                await threads.run(outcome.exception)
            raise

    async def incremental_vacuum(self, pages: int) -> int:
        """Return up to `pages` free pages to the file system, in small steps. Return how many.

        May be repeated.
        """
        return await self._maintain(
            "incremental_vacuum",
            lambda connection: backup.incremental_vacuum(connection, pages),
        )

    async def _maintain(self, op: str, make: Callable[[apsw.Connection], MaintenanceTask]) -> int:
        writer = self._writer(op)
        await anyio.lowlevel.checkpoint_if_cancelled()
        request = Request(make, op, 0, monotonic() + MAINTENANCE_S_MAX, new_waiter())
        writer.queue.add_task(request)
        notified = await request.waiter.wait(
            MAINTENANCE_S_MAX, lambda: writer.queue.abandon_task(request)
        )
        if not notified:
            raise NotExecuted(
                f"{op}: not finished after {MAINTENANCE_S_MAX:g} s. Abandoned between two steps."
            )
        if request.error is not None:
            raise request.error
        assert isinstance(request.value, int)
        return request.value

    # -- inside ------------------------------------------------------------------------

    async def _outcome(self, writer: Writer, request: Request, timeout_s: float) -> Any:
        """Wait for a request. Return its value, or raise its error marked with the outcome."""
        waiter = request.waiter
        try:
            notified = await waiter.wait(timeout_s, lambda: writer.queue.try_cancel(request))
        except BaseException as cancelled:
            mark_outcome(
                cancelled, "not_executed" if writer.queue.try_cancel(request) else "unknown"
            )
            raise
        if not notified:
            raise NotExecuted(
                f"{request.op}: its deadline passed after {timeout_s:g} s, before it began; "
                "nothing was changed. Retry."
            )
        if waiter.cancellation is not None:
            mark_outcome(waiter.cancellation, request.outcome)
            raise waiter.cancellation
        if request.error is not None:
            mark_outcome(request.error, request.outcome)
            raise request.error
        return request.value

    def _writer(self, op: str) -> Writer:
        self._refuse_after_fork()
        writer = self._parts.writer
        if writer is None:
            raise StoreReadOnly(
                f"{op}: {self._parts.path} was opened with readonly=True. Open it for writing."
            )
        return writer

    def _refuse_after_fork(self) -> None:
        if os.getpid() != self._parts.pid:
            raise StoreClosed(
                f"{self._parts.path} was opened by process {self._parts.pid}, before a fork; "
                "SQLite's connections and locks do not survive one. Open the database in a process "
                "that was started afresh, or fork before opening it. This one is "
                f"{os.getpid()}."
            )


def _warn_of_concerns(path: str) -> None:
    for concern in concerns(path):
        log.warning("%s", concern)


def _file_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
