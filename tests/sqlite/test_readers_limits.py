"""The bounds of a read: its age, the queue, cancellation, one snapshot that always ends."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from sessiondb.errors import ReadTooLong, SessionBusy, StoreBusy
from sessiondb.limits import Limits
from sessiondb.sqlite import SqliteBackend
from sessiondb.sqlite.connection import connect_reader
from tests.support.engine import PATIENCE_S, Hold, count, insert, opened, until

pytestmark = pytest.mark.anyio


async def test_a_read_that_is_too_long_is_interrupted_and_says_so(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1, read_age_s_max=0.1)) as backend:
        with pytest.raises(
            ReadTooLong,
            match=r"spin: its snapshot is older than 0\.1 s .*\(during statement test\.spin\)",
        ):
            await backend.read(lambda tx: tx.first("test.spin", n=10**12), op="spin")
        assert await count(backend, "x") == 0
        assert backend.stats()["readers"]["interrupted"] >= 1


async def test_closing_waits_for_a_read_unless_it_is_too_long(tmp_db: Path) -> None:
    backend = await SqliteBackend.open(tmp_db, limits=Limits(readers=1, read_age_s_max=0.1))
    errors: list[ReadTooLong] = []

    async def read() -> None:
        try:
            await backend.read(lambda tx: tx.first("test.spin", n=10**12), op="spin")
        except ReadTooLong as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await until(lambda: backend.stats()["readers"]["running"] == 1)
        with anyio.fail_after(30):
            await backend.close()
    assert len(errors) == 1


async def test_a_long_read_is_stopped_at_its_next_statement(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1, read_age_s_max=0.1)) as backend:

        def dawdle(tx: Any) -> None:
            while not tx.interrupted:
                threading.Event().wait(0.01)
            tx.all("test.programs")

        with pytest.raises(ReadTooLong, match=r"before statement test\.programs"):
            await backend.read(dawdle, op="dawdle")
        assert await count(backend, "x") == 0


async def test_reads_are_refused_when_readers_and_queue_are_full(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1, read_queue_max=1)) as backend:
        hold = Hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.read(hold, op="slow"))
            await until(hold.begun.is_set)
            tasks.start_soon(count, backend, "x")
            await until(lambda: backend.stats()["readers"]["queue_items"] == 1)
            with pytest.raises(
                StoreBusy, match=r"count was refused: 1 reads wait \(limit 1\); running: slow"
            ) as busy:
                await count(backend, "y")
            assert busy.value.retry_after_ms > 0
            hold.release.set()


async def test_an_abandoned_read_leaves_the_queue_at_once(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1)) as backend:
        hold, readers = Hold(), backend._parts.readers
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.read(hold, op="slow"))
            await until(hold.begun.is_set)
            with anyio.CancelScope() as given_up:
                async with anyio.create_task_group() as waiting:
                    for name in ("x", "y"):
                        waiting.start_soon(count, backend, name)
                    await until(lambda: len(readers.queue) == 2)
                    given_up.cancel()
            assert (len(readers.queue), readers.waiting) == (0, 0)
            hold.release.set()
        assert await count(backend, "x") == 0
        assert backend.stats()["readers"]["queue_items"] == 0


async def test_a_read_is_one_snapshot_that_always_ends(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(readers=1)) as backend:
        counted, go_on = threading.Event(), threading.Event()

        def twice(tx: Any) -> tuple[int, int]:
            first = tx.first("test.count", program="x").n
            counted.set()
            assert go_on.wait(30)
            return first, tx.first("test.count", program="x").n

        results: list[Any] = []

        async def read() -> None:
            results.append(await backend.read(twice, op="twice"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await until(counted.is_set)
            await backend.write(insert("x"), op="append")
            go_on.set()
        assert results == [(0, 0)]
        with pytest.raises(ZeroDivisionError):
            await backend.read(lambda tx: tx.first("test.count", program="x").n / 0, op="fail")
        assert await count(backend, "x") == 1  # a snapshot left open would still say 0


async def test_a_refused_read_names_what_runs_also_before_a_snapshot(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting, go_on = threading.Event(), threading.Event()

    def connect(path: str) -> apsw.Connection:
        connecting.set()
        assert go_on.wait(PATIENCE_S)
        return connect_reader(path)

    async with opened(tmp_db, limits=Limits(readers=1, read_queue_max=1)) as backend:
        monkeypatch.setattr(backend._parts.readers, "connect", connect)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count, backend, "x")
            await until(connecting.is_set)
            tasks.start_soon(count, backend, "y")
            await until(lambda: backend.stats()["readers"]["queue_items"] == 1)
            with pytest.raises(StoreBusy, match="running: reads that are just beginning") as busy:
                await count(backend, "z")
            assert busy.value.holder == "reads that are just beginning"
            go_on.set()


def test_every_refusal_has_a_time_and_a_holder() -> None:
    for kind in (StoreBusy, SessionBusy):
        error = pickle.loads(pickle.dumps(kind("full", retry_after_ms=5)))
        assert (error.retry_after_ms, error.holder) == (5, "unknown")
    assert StoreBusy("full", retry_after_ms=5, holder="pid 1").holder == "pid 1"
