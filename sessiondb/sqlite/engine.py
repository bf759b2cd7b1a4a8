"""The SQLite engine as the rules see it: `SqliteBackend`, a `sessiondb.backend.Backend`.

It joins the parts: one writer thread (`writer.py`), a few readers (`readers.py`), and
waiting on the event loop (`waiter.py`). The event loop's own share of a write is to make
a request, put it in the queue and be woken: no SQL, no lock that is ever held across SQL,
no file access. Opening and closing block for a while, and so run on a helper thread.

A database that is not closed is still shut down in good order. If the program drops it,
it is closed when it is collected (with a ResourceWarning). At the interpreter's exit an
`atexit` function waits for queued writes. The threads are daemons, so nothing can keep
the interpreter from exiting. A crash needs no closing at all.

A fork's child inherits the object, but neither the threads nor the locks. Every use of it
there is refused. Its connections are left alone, because closing them would act on the
parent's files.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any, Self, TypeVar

import anyio.lowlevel
import anyio.to_thread
import apsw

from sessiondb.backend import ReadTx, Step, Tx
from sessiondb.errors import (
    NewerSchema,
    NotASessionDB,
    NotExecuted,
    OpenError,
    ReadTooLong,
    StoreClosed,
    StoreReadOnly,
    before_the_write,
    mark_outcome,
)
from sessiondb.limits import Limits
from sessiondb.process import Registered

from . import alive_file, backup
from . import guard as guarding
from .backup import MaintenanceTask
from .connection import (
    Durability,
    Note,
    close_quietly,
    connect_reader,
    connect_visitor,
    explain_cannot_open,
    forget,
    log,
    refuse_unsafe_library,
    when_unlocked,
)
from .files import make_file, resolved
from .filesystem import refuse_second_place, refuse_unsafe_filesystem
from .held_files import HeldFiles
from .notifier import Notifier
from .permissions import concerns, refuse_planted
from .readers import Readers, ReadRequest
from .request_queue import Request
from .schema import SCHEMA_VERSION, is_new
from .stray_wal import look_and_note, refuse_lone_wal
from .transaction import reraise, translate
from .waiter import new_waiter
from .writer import Writer

T = TypeVar("T")

# At exit the queued writes get this long. A disk that takes longer will not recover meanwhile.
EXIT_S_MAX = 10.0
# A backup or a vacuum may take this long, its time in the queue included.
MAINTENANCE_S_MAX = 24 * 3600.0


class _Parts:
    """What an open database consists of.

    Apart from the backend object, so that it can outlive it by one clean-up.
    """

    def __init__(
        self,
        path: str,
        limits: Limits,
        writer: Writer | None,
        readers: Readers,
        changes: Notifier,
        note: Note | None,
        visit: tuple[apsw.Connection, HeldFiles] | None = None,
    ) -> None:
        self.path = path
        self.limits = limits
        self.writer = writer
        self.readers = readers
        self.changes = changes
        self.guard: guarding.Guard | None = None
        # Of a database that was opened for reading: a connection that keeps its -wal and -shm
        # in place while its readers have none.
        self.visit = visit
        self.pid = os.getpid()
        self.closed = False
        # A database dropped without close() stays noted: the end of its connections is unknown.
        self.note = note

    def stop(self) -> None:
        """Ask every thread to finish. Does not wait. May be repeated."""
        self.closed = True
        self.changes.stop()
        self.readers.stop()
        if self.writer is not None:
            self.writer.stop()
        self._end_visit()

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish queued work and close. Return whether all threads ended in time.

        May be repeated.
        """
        self.closed = True
        # Readers first: once the last snapshot has ended, the writer can fold the whole WAL.
        self.changes.stop()
        self.readers.stop()
        done = self.readers.join(timeout_s)
        done = self.changes.join(timeout_s) and done
        if self.writer is not None:
            self.writer.stop()
            done = self.writer.join(timeout_s) and done
        self._end_visit()
        if self.guard is not None:
            guarding.unwatch(self.guard)
        if done:
            forget(self.note)
            self.note = None
        return done

    def _end_visit(self) -> None:
        visit, self.visit = self.visit, None
        if visit is not None:
            connection, files = visit
            files.close(connection)


_open_parts: weakref.WeakSet[_Parts] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for parts in list(_open_parts):
        if parts.pid == os.getpid() and not parts.closed and not parts.close(EXIT_S_MAX):
            log.error(
                "%s: still writing %g s after the program ended. Acknowledged writes are safe",
                parts.path,
                EXIT_S_MAX,
            )


def _dropped(parts: _Parts) -> None:
    """Stop the threads of a backend that was collected without close(). Does not wait."""
    if parts.pid == os.getpid() and not parts.closed:
        parts.stop()
        if parts.guard is not None:
            guarding.unwatch(parts.guard)
        warnings.warn(
            f"the database {parts.path} was not closed. Use `async with` or call close()",
            ResourceWarning,
            stacklevel=2,
        )


class SqliteBackend:
    """One open SQLite database. Made by `open`."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        _open_parts.add(parts)
        self._finalizer = weakref.finalize(self, _dropped, parts)
        # At exit _close_all does this instead, and waits.
        self._finalizer.atexit = False

    # -- opening and closing -----------------------------------------------------------

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        limits: Limits | None = None,
        durability: Durability = "full",
        readonly: bool = False,
        create: bool = True,
        guard: bool | guarding.Mode = True,
        program: str = "",
        allow_unsafe_filesystem: bool = False,
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
        limits = limits or Limits()
        if durability not in ("full", "normal"):
            raise OpenError(
                f"durability is {durability!r}. Choose 'full' (survives a power cut) or 'normal' "
                "(may lose the last commits)."
            )

        def start() -> _Parts:
            name = _resolve(path)
            refuse_planted(os.fspath(path), name)
            refuse_unsafe_library()
            refuse_second_place(name)
            if not allow_unsafe_filesystem:
                refuse_unsafe_filesystem(name)
            try:
                return (
                    _start_visit(name, limits)
                    if readonly
                    else _start(
                        name,
                        limits,
                        durability,
                        program or _program(),
                        create=create,
                        without_lock=allow_unsafe_filesystem,
                    )
                )
            except apsw.CantOpenError as error:
                raise explain_cannot_open(name) from error
            except apsw.ReadOnlyError as error:
                if readonly:
                    raise explain_cannot_open(name) from error
                raise OpenError(
                    f"{name}: this user may not write to it. Run as its owner, or open it with "
                    "readonly=True."
                ) from error
            except apsw.Error as error:
                reraise(error, f"opening {name}")

        started: list[_Parts] = []
        abandoned = threading.Event()

        def run() -> None:
            started.append(start())
            if abandoned.is_set():
                started[0].stop()

        try:
            await anyio.to_thread.run_sync(run)
        except BaseException:
            # Cancelled: no caller will get the backend. The helper thread may still be opening
            # it. Each side does its part before it checks the other's, so whichever comes
            # second stops the threads.
            abandoned.set()
            for parts in started:
                parts.stop()
            raise
        parts = started[0]
        try:
            if not readonly:
                for concern in concerns(parts.path):
                    log.warning("%s", concern)
            if guard is not False and not readonly:
                parts.guard = guarding.watch(parts.path, "warn" if guard is True else guard)
            return cls(parts)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(parts.close)
            raise

    async def close(self) -> None:
        """Finish queued writes, fold the WAL into the database, and close.

        May be repeated, and from several tasks.
        """
        self._refuse_after_fork()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._parts.close)

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
        request = Request(fn, op, size, monotonic() + timeout_s, new_waiter())
        writer.queue.put(request)
        return await self._outcome(writer, request, timeout_s)  # type: ignore[no-any-return]

    async def step(self, fn: Callable[[Tx], T], *, op: str, size: int = 0) -> Step[T]:
        """Run `fn` as one step of background work. See `backend.Backend.step`."""
        writer = self._writer(op)
        with before_the_write():
            await anyio.lowlevel.checkpoint_if_cancelled()
        timeout_s = writer.limits.write_timeout_s
        request = Request(fn, op, size, monotonic() + timeout_s, new_waiter(), in_background=True)
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
        return request.value  # type: ignore[no-any-return]

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
        target = _resolve(destination)
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
        files = self._writer("backup").files()

        def run() -> None:
            try:
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
            return await anyio.to_thread.run_sync(outcome.result, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            abandoned.set()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(outcome.exception)
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


def _start(
    path: str,
    limits: Limits,
    durability: Durability,
    program: str,
    *,
    create: bool,
    without_lock: bool,
) -> _Parts:
    refuse_lone_wal(path)
    make_file(path, create=create)
    note = look_and_note(path)
    try:
        return _start_threads(path, limits, durability, program, note, without_lock=without_lock)
    except BaseException:
        forget(note)
        raise


def _start_threads(
    path: str,
    limits: Limits,
    durability: Durability,
    program: str,
    note: Note | None,
    *,
    without_lock: bool,
) -> _Parts:
    writer = Writer(
        path, limits, durability, program, lambda: changes.notify(), without_lock=without_lock
    )
    changes = Notifier(lambda: connect_reader(path), writer.files)
    readers = Readers(path, limits, connect_reader, writer.files)
    with ExitStack() as started:
        _start_one(started, writer)
        _start_one(started, readers)
        _start_one(started, changes)
        parts = _Parts(path, limits, writer, readers, changes, note)
        started.pop_all()
    return parts


def _start_one(started: ExitStack, part: Writer | Readers | Notifier) -> None:
    """Start a part's threads, and have them end if a later part cannot be started.

    Threads that were left would hold the file open. A system out of memory or at a limit
    starts no further thread.
    """
    part.start()
    started.callback(part.join)
    started.callback(part.stop)


def _start_visit(path: str, limits: Limits) -> _Parts:
    """Open for reading: check the file on a connection of its own, then start the readers."""
    refuse_lone_wal(path)
    make_file(path, create=False)
    note = look_and_note(path)
    try:
        return _start_visiting(path, limits, note)
    except BaseException:
        forget(note)
        raise


def _start_visiting(path: str, limits: Limits, note: Note | None) -> _Parts:
    database = HeldFiles.database(path)
    connection = connect_visitor(path)
    try:
        if when_unlocked(
            lambda: is_new(connection, path),
            timeout_s=limits.busy_timeout_s,
            what="opening",
            path=path,
        ):
            raise NotASessionDB(
                f"{path}: the file is empty. Open it for writing first. That creates the database."
            )
        version = connection.pragma("user_version")
        if version != SCHEMA_VERSION:
            raise NewerSchema(
                f"{path}: schema {version} is older than this sessiondb reads ({SCHEMA_VERSION}). "
                "Open it for writing once."
            )
        files = database.with_wal()
    except BaseException:
        database.close(connection)
        raise
    readers = Readers(path, limits, connect_visitor, lambda: files)
    changes = Notifier(lambda: connect_visitor(path), lambda: files)
    with ExitStack() as started:
        started.callback(files.close, connection)
        _start_one(started, readers)
        _start_one(started, changes)
        parts = _Parts(path, limits, None, readers, changes, note, (connection, files))
        started.pop_all()
    return parts


def _resolve(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not text or text == ":memory:" or text.startswith("file:"):
        raise OpenError(
            f"{text!r} is not the path of a file. Sessiondb keeps its data in a file that other "
            "processes can read."
        )
    return resolved(text)


def _program() -> str:
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"


def _file_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
