"""The same API for scripts and threads: `with sessiondb.sync.open("gateway.db") as db: ...`

Each open database has one event loop in a thread of its own. Every call here is that call
there, and waits for it. There is no second copy of any rule or signature: one of the small
functions below makes a method from its asynchronous counterpart, and type checkers derive its
parameters from there. An async iterator becomes an iterator, and an async context manager a
context manager. The objects that come back (`Session`, `CompactionJob`) are wrapped in the
classes of this module.

Any thread may call, also several at once. Each waits for its own call only. Ctrl-C (or
any exception that a signal handler raises) in a waiting thread cancels the call. It
waits for the call's outcome, which takes at most one transaction, and is then raised.
`outcome_of` reads the write's outcome from it. A second Ctrl-C does not wait.

A gateway's loops (`run_lane`, `run_outbox`, `run_recovery`) are calls that return when the
database drains, or when another thread closes it. Then their turns are interrupted, as when the
task of an asynchronous loop is cancelled. Ctrl-C in the waiting thread does the same. Handlers
and senders are plain functions. Each call of one has a thread of the library's own
(`threads.Foreign`), and may use this API. Nothing can interrupt a thread: a handler whose turn
has ended meanwhile, or whose time is up, is left behind, and what it writes with its turn is
refused.

A compaction's block runs in the caller's thread, which nothing can interrupt from
outside. So when its deadline passes, the job is given up at that moment, and
`CompactionTimeout` is raised where the block ends. A commit in between is late, is
reconciled as always, and then counts.

A database that was not closed is closed when the program ends (`sqlite/parts.py`), and keeps
no interpreter from its end. An `atexit` function that was registered after `import sessiondb`
may still use it. A fork's child has no loop: calls there raise `StoreClosed`, and so do calls
to a loop that something has ended.

Nothing here is held across calls, and nothing survives a crash or needs to.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import logging
import os
import sys
import threading
import weakref
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, overload

import anyio

from . import database, lifecycle, threads
from .backend import ReadTx, Tx
from .database import OpenOptions
from .errors import CompactionTimeout, InvalidInput, StoreClosed, mark_outcome, outcome_of
from .gateway.claims import TurnKind
from .gateway.dispatcher import RefusedBySender
from .gateway.running_turn import Answer, LaneSettings
from .gateway.running_turn import Turn as AsyncTurn
from .limits import REPLY_PAUSES_S
from .models import (
    ANY_HEAD,
    CompactionInfo,
    CompactionResult,
    DeleteReport,
    EntryRef,
    ExpectedHead,
    ExportedFile,
    ExportReport,
    OpenMessage,
    Receipt,
    Reply,
    SearchPage,
    VerifyReport,
)
from .transcript.batch import Batch as AsyncBatch
from .transcript.batch import Planned
from .transcript.compaction_job import CompactionJob as AsyncCompactionJob
from .transcript.entries import Appendable
from .transcript.registry import SessionRef
from .transcript.session import Session as AsyncSession
from .transfer.progress import Progress
from .transfer.redaction import Redactor
from .waiter import name_library
from .words import ExportFormat

__all__ = [
    "Batch",
    "CompactionJob",
    "Handler",
    "Sender",
    "Session",
    "SessionDB",
    "Turn",
    "open",
    "shared",
    "temporary",
]

T = TypeVar("T")
A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., object])
P = ParamSpec("P")

logger = logging.getLogger("sessiondb")


# -- the loop ---------------------------------------------------------------------------------


class _Call(Generic[T]):
    """One call on the loop. Only the loop's thread touches anything but its future.

    The future is made before the call is handed to the loop, because an interrupt can come
    between the two.
    """

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self.make = make
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.scope: anyio.CancelScope | None = None
        self.stopped_by: BaseException | None = None

    async def run(self) -> None:
        if self.future.done():
            return  # it was cancelled before it began
        try:
            result = await self._run()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                _fail(self.future, error)  # a body or a callback raised it
            # Otherwise the loop ends, and the thread says so to all who wait.
        except BaseException as error:  # noqa: BLE001  # handed to the caller's thread
            # Not raised on the loop: a SystemExit, of a body for example, would end it for
            # everybody.
            _fail(self.future, error)
        else:
            if not self.future.done():
                self.future.set_result(result)

    async def _run(self) -> T:
        with anyio.CancelScope() as self.scope:
            try:
                return await self.make()
            except anyio.get_cancelled_exc_class() as cancelled:
                self.stopped_by = cancelled
                raise
        raise _Cancelled

    def cancel(self) -> None:
        """Cancel the call. One that has not begun by now never does."""
        if self.scope is not None:
            self.scope.cancel()
        else:
            _fail(self.future, _Cancelled())


class _Cancelled(Exception):
    """A call was given up because its caller was interrupted. It never leaves this module."""


def _fail(future: concurrent.futures.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class _Thread:
    """An event loop in a thread of its own, and who waits for it.

    The thread is a daemon, so that it keeps no interpreter from its end. It holds no reference
    to a handle, so that a handle that is dropped can end it.

    Whoever waits does so on a future that the thread knows (`expect`). So nobody waits for ever
    when the loop ends, however that comes. Locks: none. A future is added before it is looked
    at whether the loop has ended. The thread notes the end before it fails the futures.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.why = ""
        """Why the loop has ended. Empty while it runs."""
        self._awaited: set[concurrent.futures.Future[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps no task alive
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="sessiondb-loop", daemon=True)

    def start(self) -> None:
        """Start the thread. Wait until the loop runs."""
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """Ask the loop to end once its calls have ended. Does not wait. May be repeated."""
        self.call_soon(lambda: self._stopping.set())

    def join(self) -> None:
        """Wait for the thread's end, unless this is the thread."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def ident(self) -> int | None:
        """The thread's number."""
        return self._thread.ident

    def expect(self, future: concurrent.futures.Future[Any]) -> None:
        """Have a future fail when the loop ends before it is done.

        Raises:
            StoreClosed: the loop has ended.
        """
        self._awaited.add(future)
        future.add_done_callback(self._awaited.discard)
        if self.why:
            raise StoreClosed(self._what_happened())

    def begin(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a coroutine on the loop. Does not wait. The loop has ended: no effect."""

        def begin() -> None:
            name_library("asyncio")  # this is the context of the caller, which may be trio's
            task = self._loop.create_task(make())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.call_soon(begin)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop's thread. The loop has ended: no effect."""
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(function)

    def _run(self) -> None:
        why = "it was closed"
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  # told to all who wait
            why = f"its event loop ended ({type(error).__name__}: {error})"
            logger.critical("%s: %s. Close it and open it again", self.path, why)
        self.why = why
        _fail(self._ready, self._ended())
        for future in list(self._awaited):
            _fail(future, self._ended())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set_result(None)
        await self._stopping.wait()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self) -> StoreClosed:
        """Return the error of a call that was under way. It may have begun its transaction."""
        error = StoreClosed(f"{self._what_happened()} What the call came to is not known.")
        mark_outcome(error, "unknown")
        return error

    def _what_happened(self) -> str:
        return f"{self.path}: {self.why}. Close it and open it again."


class _Loop:
    """The event loop of one handle, and who may use it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pid = os.getpid()
        self._thread: _Thread | None = None
        self._serving: set[_Call[None]] = set()
        """The gateway's loops that threads wait for."""

    def start(self) -> None:
        if self._thread is not None:
            raise InvalidInput(
                f"{self._path} is open already; call sessiondb.sync.open again to open it twice"
            )
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        thread = _Thread(self._path)
        thread.start()
        self._thread = thread
        # Dropped without close(): the engine says so, and ends its own threads.
        weakref.finalize(self, _stop, thread, self._pid).atexit = False

    def stop(self) -> None:
        """End the loop. Calls in flight finish first, but a gateway's loops. May be repeated."""
        thread, self._thread = self._thread, None
        if thread is not None and os.getpid() == self._pid:
            for call in self._serving.copy():
                thread.call_soon(call.cancel)
            thread.stop()
            thread.join()

    @property
    def is_open(self) -> bool:
        """Whether it was started, in this process, and not stopped.

        Not while the interpreter takes itself apart: then no other thread runs any more.
        """
        return self._thread is not None and os.getpid() == self._pid and not sys.is_finalizing()

    @property
    def runs(self) -> bool:
        return self.is_open and self._thread is not None and not self._thread.why

    def revive(self) -> None:
        """Start another loop if this one has ended by itself: the database is to be closed."""
        if self.is_open and not self.runs:
            self._start()

    def thread(self) -> _Thread:
        if self._thread is None:
            raise StoreClosed(
                f"{self._path} is not open; use it inside `with sessiondb.sync.open(...) as db`"
            )
        if os.getpid() != self._pid:
            raise StoreClosed(
                f"{self._path} was opened by process {self._pid}, before a fork; "
                "open it in one that was started afresh"
            )
        if sys.is_finalizing():
            raise StoreClosed(
                f"{self._path} was closed, because the program ends; "
                "use it in an atexit function at the latest"
            )
        if threading.get_ident() == self._thread.ident:
            raise InvalidInput(
                f"a callback called {self._path}, and would wait for itself; "
                "call when the callback is over"
            )
        return self._thread

    def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine on the loop and wait for it."""
        return self._wait(_Call(make), one_write=True)

    def serve(self, make: Callable[[], Awaitable[None]]) -> None:
        """Run a gateway's loop, and wait for its end: by itself, or by `end_serving`."""
        call = _Call(make)
        self._serving.add(call)
        try:
            self._wait(call, one_write=False)
        except _Cancelled:
            pass  # the database is being closed
        finally:
            self._serving.discard(call)

    def end_serving(self) -> None:
        """Cancel the gateway's loops that threads wait for, and wait until they have ended.

        One that begins meanwhile finds the database closed.
        """
        calls = [call for call in self._serving.copy() if not call.future.done()]
        for call in calls:
            self.thread().call_soon(call.cancel)
        concurrent.futures.wait([call.future for call in calls])

    def _wait(self, call: _Call[T], *, one_write: bool) -> T:
        thread = self.thread()
        try:
            thread.expect(call.future)
            thread.begin(call.run)
            return call.future.result()
        except StoreClosed:
            _end_with_the_program()
            raise
        except BaseException as error:
            if not _came_from(call.future, error):
                self._cancel(thread, call)
                if one_write:  # a loop's many have no one outcome
                    _note_outcome(call, error)
            raise

    def post(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a coroutine on the loop without waiting for it. Also from the loop's own thread."""
        if self._thread is not None:
            self._thread.begin(make)

    def _cancel(self, thread: _Thread, call: _Call[Any]) -> None:
        """Cancel a call whose waiting thread was interrupted, and wait until it has ended."""
        with suppress(StoreClosed):  # then the future has failed, or never does anything
            thread.expect(call.future)
        thread.call_soon(call.cancel)
        if thread.why:
            call.cancel()
        call.future.exception()


def _note_outcome(call: _Call[Any], interruption: BaseException) -> None:
    """Mark an interruption with what the call came to."""
    error = call.future.exception()
    if error is None:
        mark_outcome(interruption, "committed")
    elif isinstance(error, _Cancelled):
        stopped_by = call.stopped_by
        mark_outcome(
            interruption,
            (outcome_of(stopped_by) if stopped_by is not None else None) or "not_executed",
        )
    elif (outcome := outcome_of(error)) is not None:
        mark_outcome(interruption, outcome)


def _stop(thread: _Thread, pid: int) -> None:
    if os.getpid() == pid:
        thread.stop()


def _end_with_the_program() -> None:
    """End a daemon thread that called when the program was ending already, without a traceback.

    The interpreter waits for no daemon, and would stop this one anywhere a moment later. The
    databases are closed before that, so the thread would report an error that is none.
    """
    if not threading.main_thread().is_alive() and threading.current_thread().daemon:
        raise SystemExit


def _came_from(future: concurrent.futures.Future[Any], error: BaseException) -> bool:
    return future.done() and not future.cancelled() and future.exception() is error


class _Proxy(Generic[A]):
    """An object of the asynchronous API, and the loop that it lives on."""

    def __init__(self, loop: _Loop, peer: A) -> None:
        self._loop = loop
        self._peer = peer


def _call(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """Make a blocking method from a coroutine method."""

    @functools.wraps(method)
    def call(self: _Proxy[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.call(lambda: method(self._peer, *args, **kwargs))

    return call


def _serve(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[Any, P], None]:
    """Make a blocking method from a gateway's loop."""

    @functools.wraps(method)
    def call(self: _Proxy[A], /, *args: P.args, **kwargs: P.kwargs) -> None:
        self._loop.serve(lambda: method(self._peer, *args, **kwargs))

    return call


def _refuse_async(function: Callable[..., object], what: str) -> None:
    """Check that a function is plain.

    Raises:
        InvalidInput: it is not. Its coroutine would be taken for what it returned.
    """
    if not callable(function):
        raise InvalidInput(
            f"sessiondb.sync: {what} is an {type(function).__name__}, and must be a function. "
            "Nothing was done"
        )
    if inspect.iscoroutinefunction(function):
        raise InvalidInput(
            f"the {what} is an `async def`, and sessiondb.sync calls plain functions: write "
            "`def`, or open the database with sessiondb.open"
        )


def _session(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, AsyncSession]],
) -> Callable[Concatenate[Any, P], Session]:
    """Make a blocking method that returns a session."""

    @functools.wraps(method)
    def call(self: SessionDB | Session, /, *args: P.args, **kwargs: P.kwargs) -> Session:
        peer: Any = self._peer
        db = self if isinstance(self, SessionDB) else self.db
        return Session(db, self._loop.call(lambda: method(peer, *args, **kwargs)))

    return call


def _iterator(
    method: Callable[Concatenate[A, P], AsyncIterator[T]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """Make a method that returns an iterator from an async generator."""

    @functools.wraps(method)
    def call(self: _Proxy[A], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return _iterate(self._loop, lambda: method(self._peer, *args, **kwargs))

    return call


def _mirrors(method: Callable[..., object]) -> Callable[[F], F]:
    """Give a method written by hand the name, signature and docstring of its counterpart.

    Type checkers see its own.
    """

    def mirror(created: F) -> F:
        functools.update_wrapper(created, method)
        return created

    return mirror


def _iterate(loop: _Loop, make: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
    source: Any = make()
    thread = threading.get_ident()
    try:
        while True:
            thread = threading.get_ident()
            try:
                item = loop.call(source.__anext__)
            except StopAsyncIteration:
                return
            yield item
    finally:
        # A loop that has ended has closed its generators. An abandoned generator is
        # closed on the thread that the garbage collector happens to run on. If that is
        # the loop's thread, or one that the loop waits for, waiting here would never
        # end.
        if loop.runs and threading.get_ident() == thread:
            loop.call(source.aclose)
        elif loop.runs:
            loop.post(source.aclose)


def _job(
    method: Callable[Concatenate[AsyncSession, P], AsyncCompactionJob],
) -> Callable[Concatenate[Any, P], CompactionJob]:
    """Make a method that returns a compaction job.

    The job is made on the loop, where its deadline belongs.
    """

    @functools.wraps(method)
    def call(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> CompactionJob:
        async def make() -> AsyncCompactionJob:
            return method(self._peer, *args, **kwargs)

        return CompactionJob(self, self._loop.call(make))

    return call


class _Host:
    """One task on the loop that enters and leaves a compaction's block.

    It is one task because a cancel scope must not change tasks. The caller's thread
    passes in the exception that its block ended with, and gets the one that came out.
    """

    def __init__(self, loop: _Loop, job: AsyncCompactionJob) -> None:
        self._loop = loop
        self._job = job
        self._entered: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._ended: concurrent.futures.Future[BaseException | None] = concurrent.futures.Future()
        self._leave: anyio.Event | None = None
        self._exc: BaseException | None = None

    async def _run(self) -> None:
        if self._ended.done():
            return  # an interrupt came before it began
        self._leave = anyio.Event()
        try:
            async with self._job:
                if not self._entered.done():
                    self._entered.set_result(None)
                await self._leave.wait()
                if self._exc is not None:
                    raise self._exc
        except BaseException as error:  # noqa: BLE001  # handed to the caller's thread
            # Not raised on the loop, which a KeyboardInterrupt of the caller's block
            # would end.
            _fail(self._entered, error)
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if not self._ended.done():
            self._ended.set_result(error)

    def enter(self) -> None:
        thread = self._loop.thread()
        try:
            thread.expect(self._entered)
            thread.expect(self._ended)
            thread.begin(self._run)
            self._entered.result()
        except BaseException as error:
            if not _came_from(self._entered, error):
                self.leave(error)
            raise

    def leave(self, exc: BaseException | None) -> BaseException | None:
        """End the block. Return the exception that came out of it, or None.

        Recording a failed job takes one short transaction.
        """
        self._exc = exc
        if not self._ended.done():
            thread = self._loop.thread()
            thread.expect(self._ended)
            thread.call_soon(self._wake)
        return self._ended.result()

    def _wake(self) -> None:
        if self._leave is not None:
            self._leave.set()
        else:
            # An interrupt came before the task was handed to the loop (see `_Call.cancel`).
            self._end(None)


# -- the API ----------------------------------------------------------------------------------


class SessionDB(_Proxy[database.SessionDB]):
    """One open database. Make it with `sessiondb.sync.open`. Use it as a context manager."""

    def __init__(self, path: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> None:
        peer = database.SessionDB(path, **options)
        super().__init__(_Loop(peer.path), peer)

    @classmethod
    def _of(cls, peer: database.SessionDB) -> Self:
        made = cls.__new__(cls)
        _Proxy.__init__(made, _Loop(peer.path), peer)
        return made

    def __enter__(self) -> Self:
        self._loop.start()
        try:
            self._loop.call(self._peer.__aenter__)
        except BaseException:
            self._loop.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish queued writes, checkpoint and close. May be repeated."""
        if self._loop.is_open:
            self._loop.revive()
            try:
                self._loop.end_serving()
                self._loop.call(self._peer.close)
            finally:
                self._loop.stop()

    @property
    def path(self) -> str:
        """Where the database is."""
        return self._peer.path

    session = _session(database.SessionDB.session)
    create_session = _session(database.SessionDB.create_session)
    session_for = _session(database.SessionDB.session_for)
    session_by_id = _session(database.SessionDB.session_by_id)
    sessions = _iterator(database.SessionDB.sessions)
    unbind = _call(database.SessionDB.unbind)
    details = _call(database.SessionDB.details)
    set_details = _call(database.SessionDB.set_details)
    delete_details = _call(database.SessionDB.delete_details)
    list_details = _iterator(database.SessionDB.list_details)
    commit_compaction = _call(database.SessionDB.commit_compaction)
    renew_compaction = _call(database.SessionDB.renew_compaction)
    fail_compaction = _call(database.SessionDB.fail_compaction)
    query = _call(database.SessionDB.query)
    stats = _call(database.SessionDB.stats)
    metrics = _call(database.SessionDB.metrics)
    status = _call(database.SessionDB.status)
    import_path = _call(database.SessionDB.import_path)
    migrate = _call(database.SessionDB.migrate)
    backup = _call(database.SessionDB.backup)
    gc = _call(database.SessionDB.gc)
    build_search = _call(database.SessionDB.build_search)
    drop_search = _call(database.SessionDB.drop_search)
    search_indexed = _call(database.SessionDB.search_indexed)
    unarchive = _call(database.SessionDB.unarchive)

    run_recovery = _serve(database.SessionDB.run_recovery)
    accept = _call(database.SessionDB.accept)
    edit = _call(database.SessionDB.edit)
    withdraw = _call(database.SessionDB.withdraw)
    wait = _call(database.SessionDB.wait)
    dead_letters = _iterator(database.SessionDB.dead_letters)
    requeue = _call(database.SessionDB.requeue)
    drop = _call(database.SessionDB.drop)
    set_lane = _call(database.SessionDB.set_lane)
    pause_lane = _call(database.SessionDB.pause_lane)
    resume_lane = _call(database.SessionDB.resume_lane)
    set_lane_settings = _call(database.SessionDB.set_lane_settings)
    drop_lane = _call(database.SessionDB.drop_lane)
    lanes = _call(database.SessionDB.lanes)
    renew_turn = _call(database.SessionDB.renew_turn)
    append_to_turn = _call(database.SessionDB.append_to_turn)
    note_turn = _call(database.SessionDB.note_turn)
    complete_turn = _call(database.SessionDB.complete_turn)
    fail_turn = _call(database.SessionDB.fail_turn)
    release_turn = _call(database.SessionDB.release_turn)
    abort_turn = _call(database.SessionDB.abort_turn)
    drain = _call(database.SessionDB.drain)
    held = _call(database.SessionDB.held)
    replies = _iterator(database.SessionDB.replies)
    claim_reply = _call(database.SessionDB.claim_reply)
    reply_sent = _call(database.SessionDB.reply_sent)
    reply_refused = _call(database.SessionDB.reply_refused)
    settle_reply = _call(database.SessionDB.settle_reply)
    events = _iterator(database.SessionDB.events)
    forward_event = _call(database.SessionDB.forward_event)
    recover = _call(database.SessionDB.recover)
    release_expired = _call(database.SessionDB.release_expired)
    plan_resumes = _call(database.SessionDB.plan_resumes)
    resume = _call(database.SessionDB.resume)
    reset_if_due = _call(database.SessionDB.reset_if_due)

    # The rest is generic, or takes a Session of this module instead of an asynchronous one.

    @_mirrors(database.SessionDB.read)
    def read(self, op: str, fn: Callable[[ReadTx], T]) -> T:
        return self._loop.call(lambda: self._peer.read(op, fn))

    @_mirrors(database.SessionDB.write)
    def write(
        self, op: str, fn: Callable[[Tx], T], *, size: int = 0, timeout_s: float | None = None
    ) -> T:
        return self._loop.call(lambda: self._peer.write(op, fn, size=size, timeout_s=timeout_s))

    @_mirrors(database.SessionDB.batch)
    def batch(self) -> Batch:
        return Batch(self._loop, self._peer.batch())

    @_mirrors(database.SessionDB.find)
    def find(self, ref: str | tuple[str, str]) -> Session | None:
        found = self._loop.call(lambda: self._peer.find(ref))
        return None if found is None else Session(self, found)

    @_mirrors(database.SessionDB.claim_turn)
    def claim_turn(
        self, lane: str, *, settings: LaneSettings | None = None, claim_id: str | None = None
    ) -> Turn | None:
        claimed = self._loop.call(
            lambda: self._peer.claim_turn(lane, settings=settings, claim_id=claim_id)
        )
        return None if claimed is None else Turn(self, claimed)

    @_mirrors(database.SessionDB.run_lane)
    def run_lane(
        self, lane: str, handler: Handler, *, settings: LaneSettings | None = None
    ) -> None:
        _refuse_async(handler, "handler")
        foreign = threads.Foreign(f"handler of lane {lane}", RuntimeError)

        async def answer(turn: AsyncTurn) -> Answer:
            return await foreign.call(handler, Turn(self, turn))

        self._loop.serve(lambda: self._peer.run_lane(lane, answer, settings=settings))

    @_mirrors(database.SessionDB.run_outbox)
    def run_outbox(
        self,
        sender: Sender,
        *,
        lease_s: float = 30.0,
        at_once: int = 32,
        at_once_per_channel: int | None = None,
        retry_pauses_s: Sequence[float] = REPLY_PAUSES_S,
    ) -> None:
        _refuse_async(sender, "sender")
        foreign = threads.Foreign("sender", RefusedBySender)  # it was not called, so nothing left

        async def send(reply: Reply) -> str | None:
            return await foreign.call(sender, reply)

        self._loop.serve(
            lambda: self._peer.run_outbox(
                send,
                lease_s=lease_s,
                at_once=at_once,
                at_once_per_channel=at_once_per_channel,
                retry_pauses_s=retry_pauses_s,
            )
        )

    @_mirrors(database.SessionDB.bind)
    def bind(self, key: str, session: Session) -> None:
        self._loop.call(lambda: self._peer.bind(key, _peer_of(session)))

    @_mirrors(database.SessionDB.compactions)
    def compactions(self, session: Session | None = None) -> Iterator[CompactionInfo]:
        return _iterate(self._loop, lambda: self._peer.compactions(_peer_of(session)))

    @_mirrors(database.SessionDB.inbox)
    def inbox(
        self, *, session: Session | None = None, limit: int | None = None
    ) -> Iterator[OpenMessage]:
        return _iterate(
            self._loop, lambda: self._peer.inbox(session=_peer_of(session), limit=limit)
        )

    @_mirrors(database.SessionDB.export)
    def export(
        self,
        dest: str | os.PathLike[str],
        *,
        session: Session | str | None = None,
        openclaw: bool = False,
        overwrite: bool = False,
        progress: Progress | None = None,
        redactor: Redactor | None = None,
        format: ExportFormat = "transcript",  # noqa: A002  # the word of the command line
        branch: str | None = None,
        archived: bool = False,
    ) -> ExportReport:
        chosen = session if isinstance(session, str) else _peer_of(session)
        return self._loop.call(
            lambda: self._peer.export(
                dest,
                session=chosen,
                openclaw=openclaw,
                overwrite=overwrite,
                progress=progress,
                redactor=redactor,
                format=format,
                branch=branch,
                archived=archived,
            )
        )

    @_mirrors(database.SessionDB.delete)
    def delete(
        self,
        session: Session | None = None,
        *,
        key_prefix: str | None = None,
        namespace: str | None = None,
        archive: bool = False,
        abort_running: bool = False,
    ) -> DeleteReport:
        return self._loop.call(
            lambda: self._peer.delete(
                _peer_of(session),
                key_prefix=key_prefix,
                namespace=namespace,
                archive=archive,
                abort_running=abort_running,
            )
        )

    @_mirrors(database.SessionDB.search)
    def search(
        self,
        words: str,
        *,
        session: Session | None = None,
        agent_id: str | None = None,
        role: str | None = None,
        since_ms: int = 0,
        archived: bool = False,
        before: int | None = None,
        limit: int = 20,
    ) -> SearchPage:
        return self._loop.call(
            lambda: self._peer.search(
                words,
                session=_peer_of(session),
                agent_id=agent_id,
                role=role,
                since_ms=since_ms,
                archived=archived,
                before=before,
                limit=limit,
            )
        )

    @_mirrors(database.SessionDB.export_one)
    def export_one(
        self,
        session: Session,
        file: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        redactor: Redactor | None = None,
    ) -> ExportedFile:
        peer = _peer_of(session)
        return self._loop.call(
            lambda: self._peer.export_one(peer, file, overwrite=overwrite, redactor=redactor)
        )

    @_mirrors(database.SessionDB.verify)
    def verify(self, session: Session | None = None, *, deep: bool = True) -> VerifyReport:
        return self._loop.call(lambda: self._peer.verify(_peer_of(session), deep=deep))


class Session(_Proxy[AsyncSession]):
    """One transcript. A handle: it holds no state, so it never disagrees with the database."""

    def __init__(self, db: SessionDB, peer: AsyncSession) -> None:
        super().__init__(_loop_of(db), peer)
        self.db = db

    def __repr__(self) -> str:
        return repr(self._peer)

    @property
    def ref(self) -> SessionRef:
        """The session's number and id."""
        return self._peer.ref

    @property
    def id(self) -> str:
        """The session's id."""
        return self._peer.id

    info = _call(AsyncSession.info)
    append = _call(AsyncSession.append)
    append_many = _call(AsyncSession.append_many)
    details = _call(AsyncSession.details)
    set_details = _call(AsyncSession.set_details)
    rename = _call(AsyncSession.rename)
    append_history = _call(AsyncSession.append_history)
    context = _call(AsyncSession.context)
    entries = _call(AsyncSession.entries)
    entry = _call(AsyncSession.entry)
    entry_by_key = _call(AsyncSession.entry_by_key)
    all_entries = _call(AsyncSession.all_entries)
    epochs = _call(AsyncSession.epochs)
    diff = _call(AsyncSession.diff)
    events = _call(AsyncSession.events)
    abort = _call(AsyncSession.abort)
    branch = _call(AsyncSession.branch)
    rewind = _call(AsyncSession.rewind)
    pop = _call(AsyncSession.pop)
    undo_turn = _call(AsyncSession.undo_turn)
    replace_tail = _call(AsyncSession.replace_tail)
    edit = _call(AsyncSession.edit)
    reset = _call(AsyncSession.reset)
    fork = _session(AsyncSession.fork)
    redact = _call(AsyncSession.redact)
    end = _call(AsyncSession.end)
    pin = _call(AsyncSession.pin)
    unpin = _call(AsyncSession.unpin)
    undo_compaction = _call(AsyncSession.undo_compaction)

    compact = _job(AsyncSession.compact)


class Turn(_Proxy[AsyncTurn]):
    """A turn in progress, as its handler holds it: a plain function, in a thread of its own."""

    def __init__(self, db: SessionDB, peer: AsyncTurn) -> None:
        super().__init__(_loop_of(db), peer)
        self._session = Session(db, peer.session)

    @property
    def session(self) -> Session:
        """Its conversation. Read with it, and write with the turn: `append` and `reset`."""
        return self._session

    def __str__(self) -> str:
        return str(self._peer)

    append = _call(AsyncTurn.append)
    progress = _call(AsyncTurn.progress)
    reset = _call(AsyncTurn.reset)
    renew = _call(AsyncTurn.renew)

    @property
    def message(self) -> dict[str, Any]:
        """The message to be answered, decoded."""
        return self._peer.message

    @property
    def text(self) -> str:
        """What a person would read of the message. Empty: nothing, of a picture for instance."""
        return self._peer.text

    @property
    def turn_no(self) -> int:
        """The turn's number: its fencing token."""
        return self._peer.turn_no

    @property
    def attempt(self) -> int:
        """1 at the first attempt at this message."""
        return self._peer.attempt

    @property
    def inbox_no(self) -> int:
        """The message's number, as `accept` returned it."""
        return self._peer.inbox_no

    @property
    def channel(self) -> str:
        """The adapter that brought the message, as `accept` got it."""
        return self._peer.channel

    @property
    def event_id(self) -> str:
        """The channel's own id of the message. Of an edit that waited: with ` edit VERSION`."""
        return self._peer.event_id

    @property
    def details(self) -> dict[str, Any]:
        """What the adapter gave to `accept` for the handler, and no model reads."""
        return self._peer.details

    @property
    def lane(self) -> str:
        """The lane that accepted the message. A resume (`kind`) runs in another one."""
        return self._peer.lane

    @property
    def key(self) -> str | None:
        """The conversation's key. None: it was accepted before the database kept them."""
        return self._peer.key

    @property
    def agent_id(self) -> str | None:
        """The agent that the key names. None: likewise."""
        return self._peer.agent_id

    @property
    def accepted_at_ms(self) -> int:
        """When the message was accepted."""
        return self._peer.accepted_at_ms

    @property
    def expires_at_ms(self) -> int:
        """When its lease runs out, as of the claim. Each renewal moves that."""
        return self._peer.expires_at_ms

    @property
    def deadline_ms(self) -> int:
        """When its time is over. Its lease cannot be renewed past it."""
        return self._peer.deadline_ms

    @property
    def edit_of(self) -> int | None:
        """The message that this one edits, which is in the context already. None: no edit."""
        return self._peer.edit_of

    @property
    def kind(self) -> TurnKind:
        """`message`, or `resume`: it continues what another turn of this message had begun."""
        return self._peer.kind

    @property
    def previous(self) -> Any:
        """What an earlier attempt at this message noted last by `progress`. None: nothing."""
        return self._peer.previous


Handler = Callable[[Turn], Answer]
Sender = Callable[[Reply], str | None]


class Batch(_Proxy[AsyncBatch]):
    """Changes that are written together. `db.batch()` makes one."""

    def __enter__(self) -> Self:
        self._loop.call(self._peer.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._loop.call(lambda: self._peer.__aexit__(exc_type, exc, tb))

    @_mirrors(AsyncBatch.append)
    def append(
        self, session: Session, item: Appendable, *, expect_head: ExpectedHead = ANY_HEAD
    ) -> Planned[Receipt]:
        return self._peer.append(_peer_of(session), item, expect_head=expect_head)

    @_mirrors(AsyncBatch.append_many)
    def append_many(
        self,
        session: Session,
        items: Sequence[Appendable],
        *,
        expect_head: ExpectedHead = ANY_HEAD,
        all_or_nothing: bool = False,
        details: Mapping[str, Any] | None = None,
        expect_details: int | None = None,
    ) -> Planned[list[Receipt]]:
        return self._peer.append_many(
            _peer_of(session),
            items,
            expect_head=expect_head,
            all_or_nothing=all_or_nothing,
            details=details,
            expect_details=expect_details,
        )

    @_mirrors(AsyncBatch.set_details)
    def set_details(
        self,
        namespace: str,
        name: str,
        details: Mapping[str, Any],
        *,
        expect: int | None = None,
    ) -> Planned[int]:
        return self._peer.set_details(namespace, name, details, expect=expect)

    @_mirrors(AsyncBatch.branch)
    def branch(
        self, session: Session, entry: EntryRef | None, *, expect_head: ExpectedHead = ANY_HEAD
    ) -> Planned[int]:
        return self._peer.branch(_peer_of(session), entry, expect_head=expect_head)

    @_mirrors(AsyncBatch.rewind)
    def rewind(
        self, session: Session, *, before: EntryRef, expect_head: ExpectedHead = ANY_HEAD
    ) -> Planned[int]:
        return self._peer.rewind(_peer_of(session), before=before, expect_head=expect_head)

    @_mirrors(AsyncBatch.bind)
    def bind(self, key: str, session: Session) -> Planned[None]:
        return self._peer.bind(key, _peer_of(session))

    @_mirrors(AsyncBatch.end)
    def end(self, session: Session) -> Planned[bool]:
        return self._peer.end(_peer_of(session))


class CompactionJob(_Proxy[AsyncCompactionJob]):
    """A compaction in progress, as its owner holds it."""

    def __init__(self, session: Session, peer: AsyncCompactionJob) -> None:
        super().__init__(_loop_of(session), peer)
        self.session = session
        self._host: _Host | None = None

    def __enter__(self) -> Self:
        if self._host is not None:
            raise InvalidInput(
                "a compaction job's block is entered once; call session.compact() again"
            )
        self._host = _Host(self._loop, self._peer)
        self._host.enter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._host is not None, "a block is left after it was entered"
        raised = self._host.leave(exc)
        if raised is None or raised is exc:
            return  # an exception of the block propagates by itself
        if isinstance(raised, CompactionTimeout) and (exc is not None or self.result is not None):
            # The deadline passed while the block ran. The block committed, late; or it
            # failed for a reason of its own.
            if exc is not None:
                exc.add_note(f"sessiondb: {raised}")
            return
        raise raised

    @_mirrors(AsyncCompactionJob.begin)
    def begin(self) -> Self:
        self._loop.call(self._peer.begin)
        return self

    @property
    def deadline_ms(self) -> int:
        """When it ends without a commit, as of its begin. Each renewal moves that."""
        return self._peer.deadline_ms

    @property
    def id(self) -> str:
        """The job's id, for `db.commit_compaction` from elsewhere."""
        return self._peer.id

    @property
    def base_epoch(self) -> int:
        """The epoch whose context is summarised."""
        return self._peer.base_epoch

    @property
    def keeps_all(self) -> bool:
        """True: started by hand, and all of it still waits for an answer.

        `messages` are the whole context, and all of it stays.
        """
        return self._peer.keeps_all

    @property
    def tokens_before(self) -> int:
        """Tokens of the context when the job began."""
        return self._peer.tokens_before

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages to summarise: the previous summary, if any, and all up to the cut."""
        return self._peer.messages

    @property
    def result(self) -> CompactionResult | None:
        """The outcome of the commit. None before it."""
        return self._peer.result

    @_mirrors(AsyncCompactionJob.as_json)
    def as_json(self) -> bytes:
        return self._peer.as_json()

    renew = _call(AsyncCompactionJob.renew)
    commit = _call(AsyncCompactionJob.commit)


def open(path: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> SessionDB:
    """Open a database, creating it when there is none. Use the result in `with`.

    Options and errors are those of `sessiondb.open`.

    Raises (on entering):
        OpenError: not a sessiondb file, a newer one, or one that cannot be used safely here.
    """
    return SessionDB(path, **options)


def shared(path: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> SessionDB:
    """Return an object of the database at a path, which all of this process share.

    With those of `sessiondb.shared`, which says more. Use it in `with`.

    Raises (on entering):
        InvalidInput: the database is open here with other options.
    """
    return SessionDB._of(lifecycle.shared(path, **options))  # noqa: SLF001  # of this module


def temporary(**options: Unpack[OpenOptions]) -> SessionDB:
    """Return a database in a folder of its own, which is removed when it is closed.

    Use it in `with`. Its `path` is known once it is open.
    """
    return SessionDB._of(lifecycle.temporary(**options))  # noqa: SLF001  # of this module


@overload
def _peer_of(session: Session) -> AsyncSession: ...
@overload
def _peer_of(session: Session | None) -> AsyncSession | None: ...
def _peer_of(session: Session | None) -> AsyncSession | None:
    # What is no session of this module is refused by the call that gets it.
    return session._peer if isinstance(session, Session) else session  # noqa: SLF001


def _loop_of(proxy: SessionDB | Session) -> _Loop:
    return proxy._loop  # noqa: SLF001  # of this module's own classes
