"""What the writer thread does between batches: checkpoints, giving pages back, backup.

**Checkpoints.** The WAL can start again from its beginning only at an instant when no reader uses it. With readers
that follow one another without a gap that instant never comes while the writer keeps committing: each of them
begins on newer pages of the WAL. Measured: one reader with back-to-back 20 ms snapshots took the WAL to a gigabyte
in four seconds, and neither automatic, passive nor TRUNCATE checkpoints on a timer held it. The cure is that the
writer itself pauses. Its first pass copies all that the present readers allow; when they have finished, the next
pass copies the rest; readers that begin after that read the database alone and no longer hold the WAL. So a loop
of RESTART attempts with zero timeout ends after about twice the longest snapshot. `wal_reset_ms_max` bounds the pause;
an attempt that readers outlast is reported as blocked, and each further one in a row gets half the time (down to
an eighth, and every eighth time all of it again), so a snapshot that is simply long costs appends little.

Below the limit nothing is done. PASSIVE passes in between were measured and left out: without readers they made the
longest pause shorter (6 instead of 17 ms at p99.9), but with three such readers they cost 40 % of the throughput, because
each writes and syncs pages that the reset then writes again.

**Maintenance tasks** (`incremental_vacuum`, `backup`) are generators over the writer's connection. Each step is bounded, and the
writer takes one step, then serves its queue, then the next. Backup steps from this connection because SQLite then
carries the writer's own changes along; a commit of any other connection starts the copy over. Beside another process that
writes it would never end, so there it is given up and made from one snapshot instead (`backup_at_once`): that pins the WAL
for as long as the disk takes, a second or two for a gigabyte, and so is not what a single gateway does.

No lock is held between steps. A crash during a backup leaves a partial file under a temporary name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from sessiondb.clock import now_ms
from sessiondb.errors import NotExecuted, StoreBusy
from sessiondb.limits import Limits

from .connection import PAGE_BYTES, drain, log
from .files import make_partial, place, snapshot_holders

# Pages that one step of a maintenance task handles: 1 MiB, a few milliseconds on an ordinary disk.
STEP_PAGES = 256
# A copy that began anew so often will go on doing so: others commit more often than the writer takes a step.
RESTARTS_MAX = 3
# Pages between two looks at whether a copy from one snapshot is still wanted: 16 MiB.
AT_ONCE_PAGES = 4_096
# Between two attempts to reset the WAL: a fraction of an ordinary read, so the first gap is found.
RESET_SLEEP_S = 0.002
# After this many blocked attempts in a row the pause is not halved further ...
HALVINGS_MAX = 3
# ... and every eighth gets the full time again: what blocked the first may be over, and the readers that are left may need more
# than an eighth of it. Without that a WAL that was once blocked for a few seconds grew on for ever. The mean pause is 30 % of the full one.
ATTEMPTS_OF_A_ROUND = 8

_FRAME_BYTES = PAGE_BYTES + 24  # each page in the WAL has a 24-byte header

MaintenanceTask = Generator[None, None, int]


@dataclass(slots=True)
class CheckpointStats:
    """Counts since the database was opened; times in milliseconds."""

    ok: int = 0
    blocked: int = 0
    failed: int = 0
    blocked_since_ms: int | None = None
    blocked_by: str = ""
    """Whose snapshots kept the WAL from being reset at the last attempt, where the system tells it."""
    longest_ms: float = 0.0
    last_error: str = ""


@dataclass(slots=True)
class Checkpointer:
    """Keeps the WAL near its limit. Used by the writer thread only."""

    limits: Limits
    path: str = ""
    """Of the database: to name who holds a snapshot of it."""
    clock: Callable[[], float] = time.monotonic
    stats: CheckpointStats = field(default_factory=CheckpointStats)
    wal_pages: int = 0
    _not_before: float = 0.0
    _blocked_in_a_row: int = 0

    def on_commit(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        """SQLite's WAL hook: told the WAL's length after each commit. It only remembers."""
        self.wal_pages = pages
        return apsw.SQLITE_OK

    @property
    def wal_bytes(self) -> int:
        return self.wal_pages * _FRAME_BYTES

    @property
    def due_in_s(self) -> float | None:
        """Seconds until a reset should be tried; 0 means now, None that the WAL is within its limit."""
        if self.wal_bytes < self.limits.wal_bytes_max:
            return None
        return max(0.0, self._not_before - self.clock())

    def run_once(self, connection: apsw.Connection) -> bool:
        """Pause and reset the WAL, within the time budget; return whether it worked."""
        began = self.clock()
        halvings = min(self._blocked_in_a_row % ATTEMPTS_OF_A_ROUND, HALVINGS_MAX)
        budget_s = self.limits.wal_reset_ms_max / 1000 / 2**halvings
        try:
            done = self._reset(connection, began + budget_s)
        except apsw.Error as error:
            # Not a lock but the disk. Commits still work or will say what is wrong; the checkpoint is tried again.
            self.stats.failed += 1
            self.stats.last_error = str(error)
            log.warning("a checkpoint failed: %s", error)
            done = False
        self._record(done, (self.clock() - began) * 1000)
        return done

    def _reset(self, connection: apsw.Connection, give_up: float) -> bool:
        while True:
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            except apsw.BusyError:
                if self._is_short_again(connection):
                    return True
                if self.clock() >= give_up:
                    return False
                time.sleep(RESET_SLEEP_S)
            else:
                return True

    def _is_short_again(self, connection: apsw.Connection) -> bool:
        """Tell whether another process has reset the WAL while this one paused for that.

        All writing processes see the same WAL grow, so they pause together, and one of them is first. Waiting on after it would
        put them out of step: then some writer is always at work, and nobody's pause ends (measured with eight of them and a
        limit of one MiB: 135 MiB in five seconds, now 1.3).
        """
        try:
            pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        except apsw.BusyError:
            return False  # somebody is just changing what this reads
        return pages * _FRAME_BYTES < self.limits.wal_bytes_max

    def _record(self, done: bool, took_ms: float) -> None:
        self.stats.longest_ms = max(self.stats.longest_ms, took_ms)
        if done:
            self.stats.ok += 1
            self.stats.blocked_since_ms = None
            self.stats.blocked_by = ""
            self._blocked_in_a_row = 0
            self.wal_pages = 0
            return
        self._blocked_in_a_row += 1
        self._not_before = self.clock() + self.limits.wal_retry_ms / 1000
        self.stats.blocked += 1
        self.stats.blocked_by = ", ".join(snapshot_holders(self.path))
        if self.stats.blocked_since_ms is None:
            self.stats.blocked_since_ms = now_ms()
            holders = self.stats.blocked_by or "a reader, or other writers,"
            log.warning(
                "the WAL (%d bytes) could not be reset for %.0f ms: %s held it",
                self.wal_bytes,
                took_ms,
                holders,
            )


def truncate(connection: apsw.Connection) -> None:
    """Fold the WAL into the database and shorten it to nothing, if nobody is reading: for closing. Best effort."""
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.Error as error:
        # A reader elsewhere, or the disk. The WAL is part of the database; the next process to open it reads it.
        log.info("the WAL stays beside the database: %s", error)


def incremental_vacuum(connection: apsw.Connection, pages: int) -> MaintenanceTask:
    """Give up to `pages` free pages back to the file system, in bounded transactions; return how many."""
    freed = 0
    while freed < pages:
        step = min(STEP_PAGES, pages - freed)
        before = connection.pragma("freelist_count")
        # Each row returned is one page moved: left undrained it would free a single page.
        try:
            drain(connection, f"PRAGMA incremental_vacuum({step})")
        except apsw.BusyError as error:
            message = f"incremental_vacuum: another process is writing; {freed} pages were freed so far. Retry."
            raise StoreBusy(message, retry_after_ms=1_000) from error
        moved = before - connection.pragma("freelist_count")
        freed += moved
        if moved <= 0:
            break
        yield
    return freed


class StartedOver(Exception):
    """A copy that is made in steps began anew too often: others write to the database."""


def backup(connection: apsw.Connection, destination: str) -> MaintenanceTask:
    """Copy the whole database to a new file in steps, consistent as of the last one; return its pages.

    Raises:
        StartedOver: it makes no progress, because other connections commit between two steps; nothing is left of it.
    """
    with _copy_of(connection, destination) as steps:
        left, restarts = steps.page_count, 0
        while not steps.done:
            steps.step(STEP_PAGES)
            restarts += 0 < left <= steps.remaining
            if restarts == RESTARTS_MAX:
                raise StartedOver
            left = steps.remaining
            yield
        return steps.page_count


def backup_at_once(
    connection: apsw.Connection, destination: str, abandoned: threading.Event
) -> int:
    """Copy the whole database to a new file from one snapshot of a connection of its own; return its pages.

    Raises:
        NotExecuted: whoever asked for it has gone; nothing is left of it.
    """
    with _copy_of(connection, destination) as steps:
        drain(connection, "BEGIN")
        try:
            drain(
                connection, "SELECT 1 FROM sqlite_schema LIMIT 1"
            )  # here the snapshot begins: nothing starts the copy over
            while not steps.done:
                if abandoned.is_set():
                    raise NotExecuted(
                        "backup: given up before it was complete; nothing is left of it."
                    )
                steps.step(AT_ONCE_PAGES)
        finally:
            drain(connection, "COMMIT")
        return steps.page_count


@contextmanager
def _copy_of(connection: apsw.Connection, destination: str) -> Iterator[apsw.Backup]:
    """Have the copy appear under its name only when it is complete and synced.

    It still names this process as running in `instance`; a gateway that opens it elsewhere, or after this process has ended,
    sees through that.
    """
    partial = make_partial(destination, "backup")
    try:
        copy = apsw.Connection(partial, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            with copy.backup("main", connection, "main") as steps:
                yield steps
        finally:
            copy.close(True)
        place(partial, destination, "backup")  # the content was synced by SQLite
    finally:
        Path(partial).unlink(missing_ok=True)
