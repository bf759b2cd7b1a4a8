"""Tell who waits that the database has changed, by this process or another, without polling in either.

A task that found nothing to do waits here. A commit of this process wakes it at once, from the writer thread, with
the same single crossing per event loop as any result. A commit of another process moves `PRAGMA data_version` on a
connection that does nothing else: a thread asks for it every `FOREIGN_POLL_S` (2 microseconds of work), and only while
somebody waits. With nobody waiting the thread sleeps and the writer pays one test of an empty list per batch.

Lost wake-ups: a waiter says which change it has seen. `wait` compares under the lock, so a commit between the waiter's
look at the database and its call here is not slept through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import apsw

from sessiondb.errors import SessionDBError

from .connection import close_quietly, log
from .waiter import Waiter, new_waiter, notify_all

FOREIGN_POLL_S = 0.05
# While it cannot be asked, pauses double up to this.
FAILED_PAUSE_S_MAX = 5.0


class Notifier:
    """Counts commits, and wakes those who wait for one."""

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
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
        """Wake everybody and end the thread. May be repeated."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self.notify()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread to end; return whether it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def count(self) -> int:
        """How many changes there have been; only good for comparing."""
        return self._count

    def notify(self) -> None:
        """Say that something was committed. Called by the writer thread after each batch, and by the watcher."""
        # Critical section "change". Invariant: a waiter in the list has seen the present count.
        with self._lock:
            self._count += 1
            waiters, self._waiters = self._waiters, []
        if waiters:
            notify_all(waiters)

    async def wait(self, seen: int, timeout_s: float) -> None:
        """Return when the count is not `seen` any more, or after `timeout_s`. Cancelling it is free."""
        waiter = new_waiter()
        with self._lock:
            if self._count != seen or self._closing:
                return
            self._waiters.append(waiter)
            self._lock.notify_all()
        await waiter.wait(timeout_s, lambda: self._forget(waiter))

    def _forget(self, waiter: Waiter) -> bool:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        connection: apsw.Connection | None = None
        known, message = 0, ""
        try:
            while self._sleep():
                try:
                    if connection is None:
                        connection = self._connect()
                    version = connection.pragma("data_version")
                except (SessionDBError, apsw.Error) as error:
                    if str(error) != message:
                        message = str(error)
                        log.warning(
                            "watching for other processes' commits failed (%s); trying again", error
                        )
                    close_quietly(connection)
                    # A connection's numbers are its own: with the next one's first answer everything may have changed.
                    connection, known = None, 0
                    self._pause_s = min(FAILED_PAUSE_S_MAX, self._pause_s * 2)
                    continue
                message, self._pause_s = "", FOREIGN_POLL_S
                if version != known:
                    known = version
                    self.notify()
        finally:
            close_quietly(connection)

    def _sleep(self) -> bool:
        """Sleep: a moment while somebody waits, else until somebody does. False when closing."""
        with self._lock:
            if not self._waiters:
                self._lock.wait_for(lambda: self._closing or bool(self._waiters))
            self._lock.wait_for(lambda: self._closing, timeout=self._pause_s)
            return not self._closing
