"""The readers: a few threads, each with its own read-only connection, fed by one bounded queue.

The reader that became idle last is woken first. Each connection has a page cache of its
own, so the reads of a lone caller find their pages in it. With round robin a read of 200
messages cost 1.5 times as much.

A read is one snapshot: BEGIN, the body, END. It is always ended, whatever the body does,
because a snapshot that stays open pins the WAL. Readers buy isolation from one slow read,
not throughput (building rows holds the GIL).

A watchdog thread interrupts a snapshot older than `read_age_s_max`. A caller that is
cancelled or out of time has its statement interrupted, and does not wait for it, because
a read leaves nothing behind. An interrupt that arrives between two statements is lost, so
the handle is marked too and refuses its next statement.

Locks: `lock` guards the queue, its count, and which request each reader runs, so an
interrupt can never hit the next request on the same connection. It is never held while a
body runs. Nothing here survives a crash, or needs to.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import apsw

from sessiondb.clock import monotonic
from sessiondb.errors import NewerSchema, StoreBusy, StoreClosed, StoreFailed
from sessiondb.limits import Limits
from sessiondb.waiter import Waiter, notify_all

from .connection import READ_LOCKED_S_MAX, explain_cannot_open, jitter, log
from .held_files import HeldFiles
from .schema import refuse_newer
from .slow_log import slow_read
from .transaction import Snapshot, reraise


@dataclass(slots=True, eq=False)
class ReadRequest:
    """One read on its way through a reader."""

    fn: Callable[[Any], Any] | None
    """None once it has run, or never will: the body may be large."""
    op: str
    waiter: Waiter
    value: Any = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)
    taken: bool = field(default=False, init=False)
    abandoned: bool = field(default=False, init=False)
    enqueued: float = field(default=0.0, init=False)
    waited_ms: float = field(default=0.0, init=False)
    """How long it waited for a free reader."""
    took_ms: float = field(default=0.0, init=False)
    """How long its snapshot was open."""
    slow: bool = field(default=False, init=False)
    """Over `limits.slow_ms`, waiting included."""
    began: float = field(default=0.0, init=False)
    reader: _Reader | None = field(default=None, init=False)
    snapshot: Snapshot | None = field(default=None, init=False)

    def take_value(self) -> Any:
        """Return the value once. A reader that waits still holds its last request."""
        value, self.value = self.value, None
        return value


class Readers:
    """The reader threads of one open database."""

    def __init__(
        self,
        path: str,
        limits: Limits,
        connect: Callable[[str], apsw.Connection],
        files: Callable[[], HeldFiles],
    ) -> None:
        self.path = path
        self.limits = limits
        self.connect = connect
        self.files = files
        self.lock = threading.Lock()
        self.queue: OrderedDict[ReadRequest, None] = OrderedDict()
        self.idle: list[_Reader] = []  # the last one became idle last
        self.waiting = 0
        self.reads = 0
        self.slow = 0
        self.wait_ms_total = 0.0
        self.read_ms_total = 0.0
        self.refused = 0
        self.interrupted = 0
        self.abandoned = 0
        self.undelivered = 0
        self.snapshot_ms_longest = 0.0
        self.snapshot_longest_op = ""
        self.current: dict[_Reader, ReadRequest] = {}
        self._closing = False
        self._alive = limits.readers
        self._all_ended = threading.Event()
        self._readers = [_Reader(self) for _ in range(limits.readers)]
        self._threads = [
            threading.Thread(target=reader.run, name=f"sessiondb-reader-{number}", daemon=True)
            for number, reader in enumerate(self._readers)
        ]
        self._watchdog = threading.Thread(
            target=self._watch, name="sessiondb-watchdog", daemon=True
        )

    def start(self) -> None:
        """Start the threads: all of them, or none if the system cannot start one."""
        try:
            for thread in (*self._threads, self._watchdog):
                thread.start()
        except BaseException:
            self.stop()
            self.join()
            raise

    def put(self, request: ReadRequest) -> None:
        """Queue a read, or refuse it at once.

        Raises:
            StoreBusy: every reader is occupied and the queue is full.
            StoreClosed: the database has been closed.
        """
        request.enqueued = monotonic()
        # Critical section "admission". Lock: lock. Invariants: `waiting` counts the requests
        # that no reader has taken and no caller has abandoned. A request is in the queue
        # only while no reader is idle.
        with self.lock:
            if self._closing:
                raise StoreClosed(
                    f"{self.path}: {request.op} came after the database was closed.", path=self.path
                )
            if self.waiting >= self.limits.read_queue_max:
                self.refused += 1
                running = (
                    ", ".join(sorted(current.op for current in self.current.values()))
                    or "reads that are just beginning"
                )
                raise StoreBusy(
                    f"{request.op} was refused: {self.waiting} reads wait "
                    f"(limit {self.limits.read_queue_max}); running: {running}. Retry.",
                    retry_after_ms=100,
                    queue_items=self.waiting,
                    holder=running,
                )
            self.waiting += 1
            if self.idle:
                self.idle.pop().wakeup.put(request)
            else:
                self.queue[request] = None

    def next(self, reader: _Reader) -> ReadRequest | None:
        """Return the next request of a reader, the oldest first. None: the reader is to end.

        Waits for a request when none is queued.
        """
        # Critical section "going idle". Lock: lock. Invariant: the check that the queue is
        # empty and the entry in the idle list are one step, so a put in between wakes it.
        with self.lock:
            if self.queue:
                return self.queue.popitem(last=False)[0]
            if self._closing:
                return None
            self.idle.append(reader)
        return reader.wakeup.get()

    def abandon(self, request: ReadRequest) -> bool:
        """Abandon a read: take it from the queue, or interrupt its statement.

        Always succeeds. May be repeated.
        """
        # Critical section "interruption". Lock: lock. Invariant: `request.reader` is the
        # reader that runs this request now, so the interrupt hits no other request.
        with self.lock:
            if request.abandoned:
                return True
            request.abandoned = True
            self.abandoned += 1
            if not request.taken:
                self.waiting -= 1
                request.fn = None
                self.queue.pop(request, None)  # missing when a reader has been woken for it
            elif request.reader is not None:
                self._interrupt(request, f"{request.op}: its caller gave up")
        return True

    def stop(self) -> None:
        """Ask the threads to finish what is queued and close. Does not wait. May be repeated."""
        with self.lock:
            if self._closing:
                return
            self._closing = True
            while self.idle:
                self.idle.pop().wakeup.put(None)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the threads to end. Return whether all did."""
        give_up = None if timeout_s is None else monotonic() + timeout_s
        for thread in (*self._threads, self._watchdog):
            if thread.ident is None:
                continue  # it could not be started
            thread.join(None if give_up is None else max(0.0, give_up - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def snapshot(self) -> dict[str, Any]:
        """Return counters and gauges."""
        with self.lock:
            ages = [monotonic() - request.began for request in self.current.values()]
            return {
                "reads": self.reads,
                "slow": self.slow,
                "wait_ms_total": self.wait_ms_total,
                "read_ms_total": self.read_ms_total,
                "queue_items": self.waiting,
                "requests_refused": self.refused,
                "requests_abandoned": self.abandoned,
                "requests_undelivered": self.undelivered,
                "interrupted": self.interrupted,
                "running": len(ages),
                "snapshot_age_ms_oldest": max(ages, default=0.0) * 1000,
                "snapshot_ms_longest": self.snapshot_ms_longest,
                "snapshot_longest_op": self.snapshot_longest_op,
            }

    def _watch(self) -> None:
        """Interrupt snapshots that are too old, until the last reader has ended.

        Closing waits for the readers, so it needs the watchdog to the end.
        """
        age_s_max = self.limits.read_age_s_max
        # Four checks per greatest age, so a snapshot lives at most 25 % longer than allowed.
        while not self._all_ended.wait(age_s_max / 4):
            # Critical section "too old". Lock: lock. Invariant: as in "interruption".
            with self.lock:
                for request in self.current.values():
                    if monotonic() - request.began > age_s_max:
                        self.interrupted += 1
                        self._interrupt(
                            request,
                            f"{request.op}: its snapshot is older than {age_s_max:g} s "
                            "(limit read_age_s_max) and was interrupted, because it keeps the WAL "
                            "from being reset. Read in smaller pages",
                        )

    def reader_ended(self) -> None:
        with self.lock:
            self._alive -= 1
            if self._alive == 0:
                self._all_ended.set()

    def _interrupt(self, request: ReadRequest, why: str) -> None:
        """Stop the running body at its current or next statement. The caller holds the lock."""
        if request.snapshot is not None:
            request.snapshot.interrupted = why
        if request.reader is not None and request.reader.connection is not None:
            request.reader.connection.interrupt()


class _Reader:
    """One reader thread and its connection."""

    def __init__(self, readers: Readers) -> None:
        self.readers = readers
        self.wakeup: SimpleQueue[ReadRequest | None] = SimpleQueue()
        self.connection: apsw.Connection | None = None

    def run(self) -> None:
        while (request := self.readers.next(self)) is not None:
            if self._take(request):
                self._read(request)
        self._close()
        self.readers.reader_ended()

    def _take(self, request: ReadRequest) -> bool:
        # Critical section "start". Lock: lock. Invariant: a request leaves `waiting` once,
        # here or in `abandon`.
        with self.readers.lock:
            if request.abandoned:
                return False
            request.taken = True
            request.waited_ms = (monotonic() - request.enqueued) * 1000
            self.readers.waiting -= 1
            return True

    def _read(self, request: ReadRequest) -> None:
        try:
            self._refuse_changed(request)
            if self.connection is None:
                self.connection = self._connect()
            self._in_snapshot(self.connection, request)
        except BaseException as error:  # noqa: BLE001  # it is raised in the task that asked
            request.error = error
        request.fn = None
        # From here on the request belongs to its task. The line is written after the caller is
        # woken: a handler of logs may be slow.
        slow, told = request.slow, (request.op, request.waited_ms, request.took_ms)
        lost = notify_all([request.waiter])
        if lost:
            with self.readers.lock:
                self.readers.undelivered += lost
        if slow:
            slow_read(self.readers.path, *told)

    def _refuse_changed(self, request: ReadRequest) -> None:
        """Refuse to read files that are not those of their names any more.

        Before it connects as well: a connection would make a new -wal where one is missing.

        While the writer's connection has failed, the -wal and the -shm may go in good order: with
        the last connection that closes. The next write may come late, and reads do not wait for
        it. Once they have gone each read connects anew, until the writer has: a connection from
        before may be to a -wal that has no name any more.
        """
        files = self.readers.files()
        if files.is_closed and files.changed() is not None:
            if self.connection is not None:
                self._close()
            files.refuse_others(request.op, "Nothing was read.")
        else:
            files.refuse_changed(request.op, "Nothing was read.")

    def _close(self) -> None:
        connection, self.connection = self.connection, None
        self.readers.files().close(connection)

    def _connect(self) -> apsw.Connection:
        path = self.readers.path
        try:
            return self.readers.connect(path)
        except apsw.CantOpenError as error:
            raise _cannot_open_now(path, error) from error
        except apsw.Error as error:
            reraise(error, f"opening {path} for reading")

    def _in_snapshot(self, connection: apsw.Connection, request: ReadRequest) -> None:
        """Run the body in one transaction, and end the transaction whatever happens."""
        snapshot = Snapshot(connection)
        assert request.fn is not None
        self._begin(connection, request, snapshot)
        try:
            request.value = request.fn(snapshot)
        finally:
            self._finish(request)
            snapshot.end()
            self._end_snapshot(connection, snapshot)

    def _end_snapshot(self, connection: apsw.Connection, snapshot: Snapshot) -> None:
        """End the snapshot. A connection that fails to, or met a failing disk, is dropped."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error as error:
            snapshot.failure = error
        if snapshot.failure is not None:
            log.warning(
                "%s: a reading connection is opened again after: %s",
                self.readers.path,
                snapshot.failure,
            )
            self._close()

    def _begin(self, connection: apsw.Connection, request: ReadRequest, snapshot: Snapshot) -> None:
        """Take the snapshot now. BEGIN alone takes it at the first statement, and may be locked."""
        give_up = monotonic() + READ_LOCKED_S_MAX
        while True:
            try:
                connection.execute("BEGIN")
                refuse_newer(connection, self.readers.path)
                break
            except NewerSchema as error:
                connection.execute("ROLLBACK")
                raise error.told_by(request.op) from error
            except apsw.Error as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, apsw.CantOpenError):
                    raise _cannot_open_now(self.readers.path, error) from error
                if (
                    not isinstance(error, (apsw.BusyError, apsw.LockedError))
                    or monotonic() >= give_up
                ):
                    reraise(error, f"{request.op}: beginning a read", path=self.readers.path)
            jitter()
        # Critical section "begin". Lock: lock. Invariant: a request that was abandoned before
        # this is stopped at its first statement, one abandoned later by an interrupt.
        with self.readers.lock:
            request.began = monotonic()
            request.snapshot = snapshot
            request.reader = self
            self.readers.current[self] = request
            if request.abandoned:
                snapshot.interrupted = f"{request.op}: its caller gave up"

    def _finish(self, request: ReadRequest) -> None:
        # Critical section "finish". Lock: lock. Invariant: after it no interrupt meant for
        # this request can reach the connection.
        readers = self.readers
        with readers.lock:
            readers.current.pop(self, None)
            request.reader = None
            readers.reads += 1
            request.took_ms = took_ms = (monotonic() - request.began) * 1000
            readers.wait_ms_total += request.waited_ms
            readers.read_ms_total += took_ms
            slow_ms = readers.limits.slow_ms
            request.slow = slow_ms is not None and request.waited_ms + took_ms >= slow_ms
            readers.slow += request.slow
            if took_ms > readers.snapshot_ms_longest:
                readers.snapshot_ms_longest, readers.snapshot_longest_op = took_ms, request.op


def _cannot_open_now(path: str, error: apsw.Error) -> StoreFailed:
    """Return why a reader cannot open a database that is open, as an error.

    Unlike at opening, the cause may pass: open files, memory, a mount.
    """
    return StoreFailed(
        f"{explain_cannot_open(path)} Or too many files are open (ulimit -n). "
        f"Nothing was read ({error}). Retry."
    )
