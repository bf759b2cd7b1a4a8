"""Notify waiting tasks of commits, from this process or another, without polling in either.

A task that found nothing to do waits here. A commit of this process wakes it at once,
from the writer thread, with one crossing per event loop, as for any result. A commit of
another process moves `PRAGMA data_version` on a connection that does nothing else. A
thread reads it every `FOREIGN_POLL_S` (2 us of work), and only while a task waits. With
no task waiting the thread sleeps, and the writer pays one test of an empty list per batch.

Lost wakeups: a waiter names the change that it has seen. `wait` compares under the lock,
so a commit between the waiter's read of the database and its call here wakes it.

Locks: `_lock`, a condition, guards the count and the list of waiters, for a few
instructions at a time. Nothing here survives a crash, or needs to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import apsw

from sessiondb.errors import SessionDBError, StoreFailed
from sessiondb.waiter import Waiter, new_waiter, notify_all

from .connection import log
from .held_files import HeldFiles

FOREIGN_POLL_S = 0.05
# While reading the version fails, pauses double up to this.
FAILED_PAUSE_S_MAX = 5.0


class Notifier:
    """Counts commits, and wakes the tasks that wait for one."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        files: Callable[[], HeldFiles] = lambda: HeldFiles("", ()),
    ) -> None:
        self._connect = connect
        self._files = files
        self._lock = threading.Condition()
        self._count = 0
        self._waiters: list[Waiter] = []
        self._closing = False
        self._pause_s = FOREIGN_POLL_S  # of the thread
        self._thread = threading.Thread(target=self._watch, name="sessiondb-changes", daemon=True)

    def start(self) -> None:
        """Start watching for commits of other processes."""
        self._thread.start()

    def stop(self) -> None:
        """Wake every task and end the thread. Does not wait for it. May be repeated."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self.notify()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread to end. Return whether it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def count(self) -> int:
        """How many changes there have been. Only good for comparing."""
        return self._count

    def notify(self) -> None:
        """Count a commit and wake the waiting tasks.

        Called by the writer thread after each batch, and by the watching thread.
        """
        # Critical section "change". Lock: _lock. Invariant: every waiter in the list has
        # seen the present count.
        with self._lock:
            self._count += 1
            waiters, self._waiters = self._waiters, []
        if waiters:
            notify_all(waiters)

    async def wait(self, seen: int, timeout_s: float) -> None:
        """Return once the count differs from `seen`, or after `timeout_s`.

        A cancellation has no effect on anything else.
        """
        waiter = new_waiter()
        # Critical section "wait". Lock: _lock. Invariant: as in notify. The comparison and
        # the entry in the list are one step, so no change is missed.
        with self._lock:
            if self._count != seen or self._closing:
                return
            self._waiters.append(waiter)
            self._lock.notify_all()
        await waiter.wait(timeout_s, lambda: self._forget(waiter))

    def _forget(self, waiter: Waiter) -> bool:
        # Critical section "leave". Lock: _lock. It may come after `notify` took the list.
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True

    # -- the thread --------------------------------------------------------------------

    def _watch(self) -> None:
        connection: apsw.Connection | None = None
        known, message = 0, ""
        try:
            while self._sleep():
                try:
                    self._refuse_changed()
                    if connection is None:
                        connection = self._connect()
                    version = connection.pragma("data_version")
                except (SessionDBError, apsw.Error) as error:
                    if str(error) != message:
                        message = str(error)
                        log.warning(
                            "watching for other processes' commits failed (%s). Trying again.",
                            error,
                        )
                    self._files().close(connection)
                    # A version number means something on its own connection only. With the
                    # first answer of the next one, everything may have changed.
                    connection, known = None, 0
                    self._pause_s = min(FAILED_PAUSE_S_MAX, self._pause_s * 2)
                    continue
                message, self._pause_s = "", FOREIGN_POLL_S
                if version != known:
                    known = version
                    self.notify()
        finally:
            self._files().close(connection)

    def _refuse_changed(self) -> None:
        """Refuse to watch another file. Those who wait are woken: they read, and meet the error."""
        try:
            self._files().refuse_changed("waiting for a commit", "Nothing was read.")
        except StoreFailed:
            self.notify()
            raise

    def _sleep(self) -> bool:
        """Sleep: for a pause while a task waits, else until one does. False when closing."""
        with self._lock:
            if not self._waiters:
                self._lock.wait_for(lambda: self._closing or bool(self._waiters))
            self._lock.wait_for(lambda: self._closing, timeout=self._pause_s)
            return not self._closing
