"""Maintenance tasks of the writer thread: copy the database, return free pages.

A maintenance task is a generator over the writer's connection. Each step is bounded. The
writer takes one step, then serves its queue, then takes the next step. No lock is held
between steps. A crash during a backup leaves a partial file under a temporary name.

**Backup** steps from the writer's connection, because SQLite then carries the writer's
own changes along. A commit of any other connection starts the copy over. Beside another
process that writes, the copy would never end. It is then abandoned and made from one
snapshot instead (`backup_at_once`). That snapshot pins the WAL for as long as the disk
takes, 1 to 2 s for a gigabyte, so a gateway alone on its file does not do it.

**Incremental vacuum** moves free pages to the end of the file and cuts them off.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from sessiondb.errors import NotExecuted, StoreBusy

from . import wal_link
from .connection import drain
from .files import make_partial, place
from .transaction import WriteTransaction

# Pages of one step: 1 MiB, a few milliseconds on an ordinary disk.
STEP_PAGES = 256
# A copy that started over so often will start over again: others commit more often than
# the writer takes a step.
RESTARTS_MAX = 3
# Pages of a copy from one snapshot between two checks for a cancellation: 16 MiB.
AT_ONCE_PAGES = 4_096

MaintenanceTask = Generator[None, None, int]
"""Each `next` is one step. The return value is the result."""


def incremental_vacuum(connection: apsw.Connection, pages: int) -> MaintenanceTask:
    """Return up to `pages` free pages to the file system, in bounded transactions.

    The result is how many pages were returned.

    Raises:
        StoreBusy: another process is writing. The pages returned so far stay returned.
    """
    freed = 0
    while freed < pages:
        step = min(STEP_PAGES, pages - freed)
        before = connection.pragma("freelist_count")
        # Each row is one page moved. A statement left undrained would free a single page.
        try:
            drain(connection, f"PRAGMA incremental_vacuum({step})")
        except apsw.BusyError as error:
            message = (
                "incremental_vacuum: another process is writing; "
                f"{freed} pages were freed so far. Retry."
            )
            raise StoreBusy(message, retry_after_ms=1_000) from error
        moved = before - connection.pragma("freelist_count")
        freed += moved
        if moved <= 0:
            break
        yield
    return freed


class StartedOver(Exception):
    """A copy in steps started over too often: other connections write to the database."""


def backup(connection: apsw.Connection, destination: str) -> MaintenanceTask:
    """Copy the whole database to a new file in steps, consistent as of the last step.

    The result is the number of pages. A failed or closed task leaves no file behind.

    Raises:
        StartedOver: the copy makes no progress, because other connections commit between
            two steps.
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
    """Copy the whole database to a new file from one snapshot. Return its pages.

    `connection` is the copy's own. A failed or abandoned copy leaves no file behind.

    Raises:
        NotExecuted: `abandoned` was set, because the caller was cancelled.
    """
    with _copy_of(connection, destination) as steps:
        drain(connection, "BEGIN")
        try:
            # The snapshot begins with the first read. From here on nothing starts the copy over.
            drain(connection, "SELECT 1 FROM sqlite_schema LIMIT 1")
            while not steps.done:
                if abandoned.is_set():
                    raise NotExecuted(
                        "backup: cancelled before it was complete. No file was left behind."
                    )
                steps.step(AT_ONCE_PAGES)
        finally:
            drain(connection, "COMMIT")
        return steps.page_count


@contextmanager
def _copy_of(connection: apsw.Connection, destination: str) -> Iterator[apsw.Backup]:
    """Build a copy under a temporary name. Give it its own name once complete and synced.

    The copy's `instance` table still says that this process is running. A gateway that
    opens the copy on another host, or after this process has ended, recognises that.
    """
    partial = make_partial(destination, "backup")
    try:
        copy = apsw.Connection(partial, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            with copy.backup("main", connection, "main") as steps:
                yield steps
            _name(copy)
        finally:
            copy.close(True)
        place(partial, destination, "backup")  # SQLite has synced the content
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(partial + suffix).unlink(missing_ok=True)


def _name(copy: apsw.Connection) -> None:
    """Give a copy a name of its own, so that no -wal of the database is taken for the copy's."""
    drain(copy, "BEGIN IMMEDIATE")
    wal_link.renew(WriteTransaction(copy, 0, 0))
    drain(copy, "COMMIT")
