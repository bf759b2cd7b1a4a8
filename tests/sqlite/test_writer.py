"""The writer: group commit, failures that spare their neighbours, durable results, closing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from sessiondb.errors import StoreClosed, outcome_of
from sessiondb.limits import Limits
from sessiondb.sqlite import SqliteBackend
from sessiondb.sqlite.connection import connect_reader
from tests.support.engine import Hold, count, held_writer, insert, opened, until

pytestmark = pytest.mark.anyio


async def test_requests_that_wait_together_share_one_commit(tmp_db: Path) -> None:
    async with opened(tmp_db, limits=Limits(batch_ms_max=60_000)) as backend:
        before = backend.stats()["writer"]["commits"]
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for number in range(50):
                    tasks.start_soon(
                        lambda n=number: backend.write(insert(f"row {n}"), op="append")
                    )
                await until(lambda: backend.stats()["writer"]["queue_items"] == 50)
        after = backend.stats()["writer"]
        # The held body and those 50 are one transaction: a batch takes requests until the
        # queue is empty or a bound is met.
        assert after["commits"] - before == 1
        assert (
            await backend.read(
                lambda tx: tx.first("test.count_like", pattern="row *").n, op="count"
            )
            == 50
        )


async def test_a_batch_ends_at_its_bounds(tmp_db: Path) -> None:
    async with opened(
        tmp_db, limits=Limits(batch_items_max=10, batch_bytes_max=1_000, batch_ms_max=10_000)
    ) as backend:
        writer = backend._parts.writer
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for number in range(35):
                    tasks.start_soon(
                        lambda n=number: backend.write(insert(f"row {n}"), op="append", size=1)
                    )
                await until(lambda: writer.snapshot()["queue_items"] == 35)
        assert writer.stats.batch_items_longest == 10
        before = writer.stats.commits
        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for number in range(8):
                    tasks.start_soon(
                        lambda n=number: backend.write(insert(f"wide {n}"), op="append", size=600)
                    )
                await until(lambda: writer.snapshot()["queue_items"] == 8)
        assert writer.stats.commits - before >= 8  # two of 600 bytes are more than 1,000


async def test_a_failing_body_spares_its_neighbours(tmp_db: Path) -> None:
    def failing(tx: Any) -> None:
        tx.run("test.insert", program="half done")
        raise ValueError("no")

    async with opened(tmp_db) as backend:
        errors: list[BaseException] = []

        async def fail() -> None:
            try:
                await backend.write(failing, op="fail")
            except ValueError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            async with held_writer(backend):
                for number in range(9):
                    # Failures first, in the middle and last.
                    tasks.start_soon(fail) if number % 4 == 0 else tasks.start_soon(
                        lambda: backend.write(insert("kept"), op="append")
                    )
                await until(lambda: backend.stats()["writer"]["queue_items"] == 9)
        assert await count(backend, "kept") == 6
        assert await count(backend, "half done") == 0
        assert [outcome_of(error) for error in errors] == ["not_executed"] * 3


async def test_a_body_that_fails_alone_leaves_no_transaction_behind(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        with pytest.raises(ZeroDivisionError):
            await backend.write(lambda tx: tx.run("test.insert", program="x") / 0, op="fail")
        assert await count(backend, "x") == 0
        await backend.write(insert("y"), op="append")
        assert await count(backend, "y") == 1


async def test_a_result_arrives_once_other_connections_see_the_row(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        other = connect_reader(str(tmp_db))
        seen: list[int] = []

        def visible() -> int:
            return other.execute("SELECT count(*) FROM instance WHERE program = 'z'").fetchall()[0][
                0
            ]

        class Looks(Hold):
            def __call__(self, tx: Any) -> Any:
                result = super().__call__(tx)
                seen.append(
                    visible()
                )  # inside the transaction, after the insert: nobody else sees it
                return result

        looks = Looks(then=insert("z"))
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                await backend.write(looks, op="append")
                seen.append(visible())

            tasks.start_soon(write)
            await until(looks.begun.is_set)
            seen.append(visible())
            looks.release.set()
        assert seen == [0, 0, 1]
        other.close()


async def test_close_finishes_what_is_queued_and_refuses_the_rest(tmp_db: Path) -> None:
    backend = await SqliteBackend.open(tmp_db)
    hold = Hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: backend.write(hold, op="hold"))
        await until(hold.begun.is_set)
        for _ in range(5):
            tasks.start_soon(lambda: backend.write(insert("queued"), op="append"))
        await until(lambda: backend.stats()["writer"]["queue_items"] == 5)
        tasks.start_soon(backend.close)
        tasks.start_soon(backend.close)
        await until(lambda: backend._parts.closed)
        hold.release.set()
    with pytest.raises(StoreClosed, match="append came after the database was closed"):
        await backend.write(insert("late"), op="append")
    with pytest.raises(StoreClosed):
        await backend.read(lambda tx: None, op="read")
    await backend.close()
    async with opened(tmp_db) as again:
        assert await count(again, "queued") == 5
    rows = (
        apsw.Connection(str(tmp_db))
        .execute("SELECT count(*), count(closed_at_ms) FROM instance WHERE host <> 'h'")
        .fetchall()
    )
    assert rows == [(2, 2)]  # both openings signed on, and off
