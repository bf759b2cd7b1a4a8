"""A disk that is full or fails, by a VFS that fails on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from sessiondb.errors import (
    NotExecuted,
    OutcomeUnknown,
    StoreFailed,
    StoreFull,
    outcome_of,
)
from sessiondb.limits import Limits
from sessiondb.sqlite.checkpoint import Checkpointer
from tests.support.disk import Faults
from tests.support.engine import count, held_writer, insert, opened, until

pytestmark = pytest.mark.anyio

# A batch takes what is queued, however long the test holds it: that bound is not the subject.
PATIENT = Limits(batch_ms_max=60_000)


async def test_a_failed_sync_at_commit_means_outcome_unknown(tmp_db: Path, faults: Faults) -> None:
    async with opened(tmp_db) as backend:
        await backend.write(insert("before"), op="append")
        faults.sync = apsw.IOError
        with pytest.raises(OutcomeUnknown, match="append: COMMIT reported an I/O error") as unknown:
            await backend.write(insert("during"), op="append")
        assert outcome_of(unknown.value) == "unknown"
        assert backend.stats()["writer"]["outcomes_unknown"] == 1
        faults.heal()
        await backend.write(insert("after"), op="append")
        stats = backend.stats()["writer"]
        assert (stats["reopened"], stats["connected"]) == (1, True)
        assert [await count(backend, name) for name in ("before", "after")] == [1, 1]
        assert await count(backend, "during") in (0, 1)


async def test_every_request_of_a_failed_batch_is_outcome_unknown(
    tmp_db: Path, faults: Faults
) -> None:
    async with opened(tmp_db, limits=PATIENT) as backend:
        outcomes: list[Any] = []

        async def write() -> None:
            try:
                await backend.write(insert("x"), op="append")
            except OutcomeUnknown as error:
                outcomes.append(outcome_of(error))

        held: list[OutcomeUnknown] = []
        async with anyio.create_task_group() as tasks:
            try:
                async with held_writer(backend):
                    for _ in range(5):
                        tasks.start_soon(write)
                    await until(lambda: backend.stats()["writer"]["queue_items"] == 5)
                    faults.sync = apsw.IOError
            except* OutcomeUnknown as group:  # the held body was the first of that transaction
                held.extend(group.exceptions)  # type: ignore[arg-type]
        assert [outcome_of(error) for error in held] == ["unknown"]
        assert outcomes == ["unknown"] * 5


async def test_a_full_disk_inside_a_body_rolls_back_and_says_so(tmp_db: Path) -> None:
    def fill(tx: Any) -> None:
        tx._connection.pragma("max_page_count", tx._connection.pragma("page_count") + 8)
        try:
            tx.run("test.insert", program="small")
            tx.run("test.insert_large", size=1_000_000)
        finally:
            tx._connection.pragma("max_page_count", 1_000_000)

    async with opened(tmp_db) as backend:
        with pytest.raises(StoreFull, match=r"test\.insert_large: the disk is full") as full:
            await backend.write(fill, op="append")
        assert outcome_of(full.value) == "not_executed"
        await backend.write(insert("next"), op="append")
        assert [await count(backend, name) for name in ("small", "next")] == [0, 1]


async def test_when_a_whole_transaction_rolls_back_neighbours_fail(tmp_db: Path) -> None:
    def lose_everything(tx: Any) -> None:
        tx._connection.execute("ROLLBACK")  # what SQLite does by itself on some full disks
        raise ValueError("the disk is full, say")

    async with opened(tmp_db, limits=PATIENT) as backend:
        errors: list[NotExecuted] = []

        async def write(name: str) -> None:
            try:
                await backend.write(insert(name), op="append")
            except NotExecuted as error:
                errors.append(error)

        async def lose() -> None:
            with pytest.raises(ValueError, match="say"):
                await backend.write(lose_everything, op="lose")

        async with anyio.create_task_group() as tasks:
            occupied = held_writer(backend)
            try:
                async with occupied:
                    tasks.start_soon(write, "neighbour")
                    await until(lambda: backend.stats()["writer"]["queue_items"] == 1)
                    tasks.start_soon(lose)
                    await until(lambda: backend.stats()["writer"]["queue_items"] == 2)
                    tasks.start_soon(write, "afterwards")
                    await until(lambda: backend.stats()["writer"]["queue_items"] == 3)
            except* NotExecuted as group:  # the held body was the first of that transaction
                errors.extend(group.exceptions)  # type: ignore[arg-type]
        assert len(errors) == 2
        assert all(
            "because lose failed" in str(error) and error.retry_after_ms == 0 for error in errors
        )
        assert [await count(backend, name) for name in ("neighbour", "afterwards")] == [0, 1]


async def test_a_body_that_swallows_a_disk_error_does_not_commit(
    tmp_db: Path, faults: Faults
) -> None:
    def swallow(tx: Any) -> str:
        tx.run("test.insert", program="half")
        tx._connection.cache_flush()
        faults.read = apsw.IOError
        tx._connection.execute("PRAGMA shrink_memory")
        try:
            tx.all("test.programs")
        except StoreFailed:
            faults.heal()
            return "went on"
        return "read from the cache"

    async with opened(tmp_db) as backend:
        for number in range(300):
            await backend.write(insert(f"{number}" * 50), op="append")
        with pytest.raises(StoreFailed, match="I/O error from the disk"):
            await backend.write(swallow, op="append")
        await backend.write(insert("next"), op="append")
        assert [await count(backend, name) for name in ("half", "next")] == [0, 1]
        assert backend.stats()["writer"]["reopened"] == 1


async def test_a_checkpoint_that_fails_is_reported_and_harms_no_write(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Checkpointer, connection: apsw.Connection, give_up: float) -> bool:
        raise apsw.IOError("the disk of the database, not of the WAL")

    async with opened(tmp_db, limits=Limits(wal_bytes_max=65_536, wal_retry_ms=0)) as backend:
        with monkeypatch.context() as patch:
            patch.setattr(Checkpointer, "_reset", fail)
            for number in range(40):
                await backend.write(insert(f"{number}" * 500), op="append")
            assert backend.stats()["writer"]["checkpoint"]["failed"] >= 1
            assert "not of the WAL" in backend.stats()["writer"]["checkpoint"]["last_error"]
        await backend.write(insert("next"), op="append")
        await until(lambda: backend.stats()["writer"]["checkpoint"]["ok"] >= 1)
