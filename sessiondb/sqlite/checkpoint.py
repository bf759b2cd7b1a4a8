"""Checkpoints: what the writer thread does between batches to keep the WAL near its limit.

The WAL can start over only at an instant when no reader uses it. With readers that follow
one another without a gap, that instant never comes while the writer keeps committing:
each reader begins on newer pages of the WAL. Measured: one reader with back-to-back 20 ms
snapshots took the WAL to a gigabyte in 4 s. Neither automatic nor passive checkpoints nor
TRUNCATE on a timer bounded it.

So the writer itself pauses. Its first pass copies all that the present readers allow.
When they have finished, the next pass copies the rest. Readers that begin after that read
the main file alone and no longer use the WAL. A loop of RESTART attempts with zero
timeout therefore ends after about twice the longest snapshot. `wal_reset_ms_max` bounds
the pause. An attempt that readers outlast is counted as blocked. Each further attempt in
a row gets half the time, down to 1/8, and every eighth attempt gets all of it again. So a
snapshot that is simply long costs appends little.

Below the limit nothing is done. PASSIVE passes in between were measured and left out.
Without readers they made the longest pause shorter (6 ms instead of 17 at p99.9). With
three such readers they cost 40 % of the throughput, because each pass writes and syncs
pages that the reset then writes again.

An idle database is another case. After `wal_fold_s` without a commit one PASSIVE pass
folds the WAL into the file. People copy the one file and leave the -wal behind. Such a
copy then lacks the last seconds, and not everything since the last reset.

Locks: none. Everything here belongs to the writer thread. A crash between two passes
loses nothing: the WAL still holds every commit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import apsw

from sessiondb.clock import monotonic, now_ms, pause
from sessiondb.limits import Limits

from .connection import PAGE_BYTES, log
from .files import snapshot_holders

# Between two attempts to reset the WAL: a fraction of an ordinary read, so the first gap is found.
RESET_SLEEP_S = 0.002
# After this many blocked attempts in a row the pause is not halved further.
HALVINGS_MAX = 3
# Every eighth attempt gets the full time again. The reader that blocked the first attempt
# may have ended, and the readers that are left may need more than 1/8 of the time. Without
# this rule a WAL that was once blocked for a few seconds grew for ever. The mean pause is
# 30 % of the full one.
ATTEMPTS_OF_A_ROUND = 8

_FRAME_BYTES = PAGE_BYTES + 24  # each page in the WAL has a 24-byte header


@dataclass(slots=True)
class CheckpointStats:
    """Counts since the database was opened. Times in milliseconds."""

    ok: int = 0
    folded: int = 0
    folds_blocked: int = 0
    blocked: int = 0
    failed: int = 0
    blocked_since_ms: int | None = None
    blocked_by: str = ""
    """Processes whose snapshots blocked the last attempt. Empty where the system does not tell."""
    longest_ms: float = 0.0
    last_error: str = ""


@dataclass(slots=True)
class Checkpointer:
    """Keeps the WAL near its limit. Used by the writer thread only."""

    limits: Limits
    path: str = ""
    """Of the database: to name the processes that hold a snapshot of it."""
    clock: Callable[[], float] = monotonic
    stats: CheckpointStats = field(default_factory=CheckpointStats)
    wal_pages: int = 0
    _not_before: float = 0.0
    _is_folded: bool = True
    _fold_from: float = 0.0
    _pages_before: int = 0
    _blocked_in_a_row: int = 0

    def on_commit(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        """Note the WAL's length: SQLite's WAL hook, called after each commit."""
        self.wal_pages = pages
        self._is_folded = False
        self._fold_from = self.clock() + self.limits.wal_fold_s
        return apsw.SQLITE_OK

    @property
    def wal_bytes(self) -> int:
        return self.wal_pages * _FRAME_BYTES

    @property
    def due_in_s(self) -> float | None:
        """Seconds until the next checkpoint: 0 means now, None that there is nothing to do."""
        if self.wal_bytes < self.limits.wal_bytes_max:
            return None if self._is_folded else max(0.0, self._fold_from - self.clock())
        return max(0.0, self._not_before - self.clock())

    def postpone(self) -> None:
        """Let nothing be due for `wal_retry_ms`: nothing can be done now."""
        self._not_before = self._fold_from = self.clock() + self.limits.wal_retry_ms / 1000

    def run_due(self, connection: apsw.Connection) -> None:
        """Reset a WAL that has reached its limit, or fold that of an idle database."""
        if self.wal_bytes >= self.limits.wal_bytes_max:
            self.run_once(connection)
        else:
            self.fold(connection)

    def starts_over(self, connection: apsw.Connection) -> bool:
        """Return whether the next commit may be the first of a new WAL: all of this one is folded.

        Outside a transaction. The WAL's length is noted for `has_started_over`, which
        notices a checkpoint of another process that comes between the two.
        """
        connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)
        try:
            self._pages_before, folded = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        except apsw.Error:
            # Another process is changing the WAL's header just now. Or the disk fails, and
            # the transaction reports it.
            return True
        return folded == self._pages_before

    def has_started_over(self, connection: apsw.Connection) -> bool:
        """Return whether the WAL has started over since `starts_over`, foreseen or not.

        If it has not, then it is as long as it was, and longer by what has been committed.
        A commit puts no more pages there than SQLite has written for it, so the answer is
        never wrongly no. Wrongly yes, for a page that was written twice, costs a commit.
        """
        written, _ = connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)
        return written > 0 and self.wal_pages - written < self._pages_before

    def run_once(self, connection: apsw.Connection) -> bool:
        """Pause and reset the WAL within the time budget. Return whether it was reset."""
        began = self.clock()
        halvings = min(self._blocked_in_a_row % ATTEMPTS_OF_A_ROUND, HALVINGS_MAX)
        budget_s = self.limits.wal_reset_ms_max / 1000 / 2**halvings
        try:
            done = self._reset(connection, began + budget_s)
        except apsw.Error as error:
            # The disk, not a lock. Commits still work, or report the error themselves. The
            # checkpoint is tried again.
            self.stats.failed += 1
            self.stats.last_error = str(error)
            log.warning("a checkpoint failed: %s", error)
            done = False
        self._record(done, (self.clock() - began) * 1000)
        return done

    def fold(self, connection: apsw.Connection) -> bool:
        """Copy the WAL into the database without waiting. Return whether all of it was copied.

        The WAL stays as it is. The next commit starts it over if no reader uses it. What a
        reader or another process prevents is tried again after `wal_retry_ms`.
        """
        try:
            pages, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            pages, copied = 1, 0  # another process is at it
        except apsw.Error as error:
            self.stats.failed += 1
            self.stats.last_error = str(error)
            log.warning("a checkpoint failed: %s", error)
            pages, copied = 1, 0
        self._is_folded = copied == pages
        if self._is_folded:
            self.stats.folded += 1
        else:
            self.stats.folds_blocked += 1
            self._fold_from = self.clock() + self.limits.wal_retry_ms / 1000
        return self._is_folded

    def _reset(self, connection: apsw.Connection, give_up: float) -> bool:
        while True:
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            except apsw.BusyError:
                if self._is_short_again(connection):
                    return True
                if self.clock() >= give_up:
                    return False
                pause(RESET_SLEEP_S)
            else:
                return True

    def _is_short_again(self, connection: apsw.Connection) -> bool:
        """Return whether another process has reset the WAL while this one paused.

        All writing processes see the same WAL grow, so they pause together, and one of
        them resets it first. A process that kept waiting would fall out of step with the
        others. Some process would then always be writing, and no pause would end.
        Measured with eight processes and a limit of 1 MiB: 135 MiB in 5 s, now 1.3 MiB.
        """
        try:
            pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        except apsw.BusyError:
            return False  # another process is changing the WAL's header just now
        return pages * _FRAME_BYTES < self.limits.wal_bytes_max

    def _record(self, done: bool, took_ms: float) -> None:
        self.stats.longest_ms = max(self.stats.longest_ms, took_ms)
        if done:
            self.stats.ok += 1
            self.stats.blocked_since_ms = None
            self.stats.blocked_by = ""
            self._blocked_in_a_row = 0
            self.wal_pages = 0
            self._is_folded = True
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
    """Fold the WAL into the database and cut it to nothing: for closing.

    Best effort: it has no effect while a reader is active.
    """
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.Error as error:
        # A reader in another process, or the disk. The WAL is part of the database: the
        # next process that opens the database reads it.
        log.info("the WAL stays beside the database: %s", error)
