"""What an open database consists of, and how it ends: closed, dropped, or left at the exit.

A database that is not closed is still shut down in good order. If the program drops it,
it is closed when it is collected (with a ResourceWarning). At the program's end it is closed
as well, after everything that still uses it (`exits.py`). The threads are daemons, so nothing can
keep the interpreter from exiting. A crash needs no closing at all.

A fork's child inherits the parts, but neither the threads nor the locks, and leaves them
alone: closing them would act on the parent's files. The connections of the threads are never
closed there, because no thread is there to leave its frames. The one of a reading database that
belongs to no thread may be collected, and is kept from folding and deleting a -wal then.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref

import apsw

from sessiondb.errors import StoreClosed
from sessiondb.exits import at_exit, expect_exit
from sessiondb.limits import (
    QUERIES_AT_ONCE,
    QUERIES_WAITING_MAX,
    QUERY_ANSWER_S_MAX,
    QUERY_STOP_S,
)

from . import guard as guarding
from .connection import Note, forget, log
from .held_files import HeldFiles
from .notifier import Notifier
from .readers import Readers
from .writer import Writer

# At exit the queued writes get this long. A disk that takes longer will not recover meanwhile.
EXIT_S_MAX = 10.0


class Parts:
    """What an open database consists of.

    Apart from the backend object, so that it can outlive it by one clean-up.
    """

    def __init__(
        self,
        path: str,
        writer: Writer | None,
        readers: Readers,
        changes: Notifier,
        note: Note | None,
        visit: tuple[apsw.Connection, HeldFiles] | None = None,
    ) -> None:
        self.path = path
        self.writer = writer
        self.readers = readers
        self.queries: Readers | None = None  # since the first query
        self._starting = threading.Lock()
        self.changes = changes
        self.guard: guarding.Guard | None = None
        # Of a database that was opened for reading: a connection that keeps its -wal and -shm
        # in place while its readers have none.
        self.visit = visit
        self.pid = os.getpid()
        self.closed = False
        # A database dropped without close() stays noted: the end of its connections is unknown.
        self.note = note

    def watch(self, guard: bool | guarding.Mode) -> None:
        """Have a guard look for other code that touches the files. See `SqliteBackend.open`."""
        if guard is not False:
            self.guard = guarding.watch(self.path, "warn" if guard is True else guard)

    def start_queries(self) -> Readers:
        """Return the readers of an application's own queries. Start them at the first one.

        Others than those of the gateway's own reads, which never wait for a query.

        Raises:
            StoreClosed: the database has been closed.
        """
        # Critical section "first query". Lock: _starting. Invariant: `close` sees these threads, or
        # they are never started.
        with self._starting:
            if self.closed:
                raise StoreClosed(
                    f"{self.path}: a query came after the database was closed.", path=self.path
                )
            if self.queries is None:
                limits = self.readers.limits.model_copy(
                    update={
                        "readers": QUERIES_AT_ONCE,
                        "read_queue_max": QUERIES_WAITING_MAX,
                        "read_age_s_max": QUERY_ANSWER_S_MAX + QUERY_STOP_S,
                    }
                )
                queries = Readers(self.path, limits, self.readers.connect, self.readers.files)
                queries.start()
                self.queries = queries
            return self.queries

    def stop(self) -> None:
        """Ask every thread to finish. Does not wait. May be repeated."""
        self._stop_queries()
        self.changes.stop()
        self.readers.stop()
        if self.writer is not None:
            self.writer.stop()
        self._end_visit()

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish queued work and close. Return whether all threads ended in time.

        May be repeated.
        """
        queries = self._stop_queries()
        # Readers first: once the last snapshot has ended, the writer can fold the whole WAL.
        self.changes.stop()
        self.readers.stop()
        done = self.readers.join(timeout_s)
        if queries is not None and not queries.join(QUERY_STOP_S):
            log.warning(
                "%s: a query goes on after the database was closed, because a single call of a "
                "function cannot be stopped. The WAL is folded when the file is opened next",
                self.path,
            )
            done = False
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

    def _stop_queries(self) -> Readers | None:
        """Have queries end: one that runs looks at `closed` now and then. Return their readers."""
        with self._starting:
            self.closed = True
        if self.queries is not None:
            self.queries.stop()
        return self.queries

    def _end_visit(self) -> None:
        visit, self.visit = self.visit, None
        if visit is not None:
            connection, files = visit
            files.close(connection)


_open: weakref.WeakSet[Parts] = weakref.WeakSet()


def end_with(owner: object, parts: Parts) -> None:
    """Have parts stopped when their owner is collected, and closed when the program ends."""
    _open.add(parts)
    expect_exit()
    finalizer = weakref.finalize(owner, _dropped, parts)
    # At exit _close_all does this instead, and waits.
    finalizer.atexit = False


def _close_all() -> None:
    for parts in list(_open):
        if parts.pid == os.getpid() and not parts.closed and not parts.close(EXIT_S_MAX):
            log.error(
                "%s: still writing %g s after the program ended. Acknowledged writes are safe",
                parts.path,
                EXIT_S_MAX,
            )


at_exit(_close_all)


def _dropped(parts: Parts) -> None:
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


def _spare_files_of_parent() -> None:
    """Keep connections that this child of a fork may collect from touching the parent's files.

    SQLite would fold and delete the -wal as the last process that has the file open. The parent
    may have died meanwhile, and the next process may have its commits in that -wal.
    """
    for parts in list(_open):
        if parts.visit is None:
            continue
        try:
            parts.visit[0].config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        except apsw.Error as error:
            log.warning("%s: its connection in a fork's child: %s", parts.path, error)


os.register_at_fork(after_in_child=_spare_files_of_parent)
