"""The floors: the same work with apsw alone.

A ratio then says what sessiondb adds, and not how fast the disk is.

A `Raw` is what one would write by hand: one thread with one connection, fed from a
queue, answering on the event loop. It has the settings that matter for cost (4 KiB
pages, WAL, `synchronous=FULL`, the same checkpoint size) and one table with a text in
it. It has no keys, no tree, no batching, no cancellation and no deadlines.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import apsw

from sessiondb.limits import Limits

PAGE_BYTES = 4096


class SlowSync(apsw.VFS):
    """The system's files, with a sync that takes a minimum of time.

    That is a disk that really writes before it answers.

    Virtual machines often answer a sync from memory in a tenth of a millisecond, where
    an SSD with a power-loss guarantee takes one or two and a hard disk ten. While it
    exists it is the default for every connection of the process.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.base = apsw.vfs_names()[
            0
        ]  # the default so far. By name, because "" would soon mean this one
        super().__init__("slow-sync", base=self.base, makedefault=True)

    def xOpen(  # noqa: N802  # SQLite's name
        self, name: apsw.URIFilename | str | None, flags: list[int]
    ) -> apsw.VFSFile:
        return _SlowFile(self, name, flags)


class _SlowFile(apsw.VFSFile):
    def __init__(
        self, vfs: SlowSync, name: apsw.URIFilename | str | None, flags: list[int]
    ) -> None:
        self._seconds = vfs.seconds
        super().__init__(vfs.base, name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802  # SQLite's name
        time.sleep(self._seconds)
        super().xSync(flags)


class Raw:
    """One thread, one connection, one table."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: SimpleQueue[
            tuple[Callable[[apsw.Connection], Any], asyncio.Future[Any]] | None
        ] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="floor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        connection = connect(self._path)
        while (job := self._jobs.get()) is not None:
            work, future = job
            value = work(connection)
            future.get_loop().call_soon_threadsafe(future.set_result, value)
        connection.close()

    async def run(self, work: Callable[[apsw.Connection], Any]) -> Any:
        """Run `work` on the thread and return its result: one hop there and one back."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, future))
        return await future

    async def append(self, payload: str) -> None:
        """One row, one durable transaction."""
        await self.run(lambda connection: insert_one(connection, payload))


def connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    for pragma in (f"page_size = {PAGE_BYTES}", "journal_mode = wal", "synchronous = full"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.wal_autocheckpoint(Limits().wal_bytes_max // PAGE_BYTES)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS message (message_no INTEGER PRIMARY KEY, payload TEXT NOT NULL)"
    )
    return connection


def insert_one(connection: apsw.Connection, payload: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO message (payload) VALUES (?)", (payload,))
    connection.execute("COMMIT")


def read_last(connection: apsw.Connection, count: int) -> list[str]:
    """The payloads of the last rows, in one snapshot, oldest first."""
    connection.execute("BEGIN")
    rows = connection.execute(
        (
            "SELECT payload FROM message WHERE message_no > (SELECT max(message_no) FROM "
            "message) - ? ORDER BY message_no"
        ),
        (count,),
    ).fetchall()
    connection.execute("END")
    return [payload for (payload,) in rows]
