"""Rows move into an archive and back in bounded steps, compared before they are deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
import sessiondb.sync
from sessiondb.limits import ARCHIVE_CHUNK_ROWS, STEP_BYTES, STEP_ROWS
from sessiondb.maintenance import archive, archive_rows, archive_small, retention
from sessiondb.maintenance.archive_format import ENTRY
from sessiondb.maintenance.retention_plan import RetentionPolicy
from sessiondb.transcript.paths import entry_number
from tests.support.core import change, query, user
from tests.support.maintenance import (
    EVERYTHING,
    KEY,
    Dying,
    Killed,
    dump,
    eventful_session,
)

pytestmark = pytest.mark.one_loop


@pytest.mark.anyio
async def test_an_archive_that_differs_from_the_tables_is_abandoned(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_small, "ARCHIVE_CHUNK_ROWS", 0)  # it goes in many steps
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(Killed):
            await retention.gc(Dying(db.backend, 4), EVERYTHING)
        assert query(tmp_db, "SELECT state FROM archive") == ["writing"]
    change(tmp_db, "UPDATE archive_chunk SET rows = rows + 1 WHERE what = 'epoch'")
    async with sessiondb.open(tmp_db) as db:
        report = await db.gc(RetentionPolicy())
        assert (report.ok, report.decisions[0].session_id) == (False, session.id)
        await db.gc(RetentionPolicy())
        assert (await db.verify()).findings == ()
    assert dump(tmp_db) == before


@pytest.mark.anyio
async def test_each_transaction_moves_few_rows_and_bytes(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        for _ in range(3):
            await session.append_many([user("x" * 100)] * 500)
        await session.append_many([user("y" * 300_000)] * 5)
        changed: dict[str, list[tuple[int, int]]] = {}

        class Counting(Dying):
            async def step(self, fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
                def counting(tx: Any) -> Any:
                    connection = tx._connection
                    low = session.ref.session_no << 32
                    held = (
                        "SELECT count(*), coalesce(sum(length(payload)), 0) FROM entry "
                        "WHERE entry_no >= ?"
                    )
                    [before] = connection.execute(held, (low,)).fetchall()
                    value = fn(tx)
                    [after] = connection.execute(held, (low,)).fetchall()
                    changed.setdefault(op, []).append(
                        (abs(after[0] - before[0]), abs(after[1] - before[1]))
                    )
                    return value

                return await self.backend.step(counting, op=op, **options)

        counting = Counting(db.backend, -1)
        archive_no, _ = await archive.begin(counting, session.ref.session_no, "for the test")
        assert archive_no is not None
        await archive.advance(counting, archive_no)
        await archive.restore(counting, session.ref.session_no)
    for op, total in (("archive.delete", 1_506), ("restore.rows", 1_506)):
        assert sum(rows for rows, _ in changed[op]) == total
        assert max(rows for rows, _ in changed[op]) <= STEP_ROWS
        assert max(size for _, size in changed[op]) <= STEP_BYTES
    assert all(
        rows == 0
        for op, counts in changed.items()
        if op not in ("archive.delete", "restore.rows")
        for rows, _ in counts
    )


class Beside:
    """A backend that says whether callers are active."""

    def __init__(self, backend: Any, *, is_busy: bool) -> None:
        self.backend = backend
        self.is_busy = is_busy

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


@pytest.mark.anyio
@pytest.mark.parametrize("is_busy", [True, False])
async def test_a_comparison_pauses_between_chunks_beside_callers_only(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    """It takes no steps that could be throttled, and reads 5,000 pages for a million entries."""
    pauses: list[float] = []
    sleep = archive_rows.sleep

    async def noting(delay: float) -> None:
        pauses.append(delay)
        await sleep(0 if delay == archive_rows.COMPARE_PAUSE_S else delay)

    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append_many([user(f"{number}") for number in range(700)])
        backend: Any = Beside(db.backend, is_busy=is_busy)
        archive_no, _ = await archive.begin(backend, session.ref.session_no, "old")
        assert archive_no is not None
        row = await db.read("get", lambda tx: tx.one("archive.get", archive_no=archive_no))
        await archive_rows.write_chunks(backend, row)
        chunks = query(tmp_db, "SELECT what FROM archive_chunk")
        assert chunks.count(ENTRY) == 4
        monkeypatch.setattr(archive_rows, "sleep", noting)
        await archive_rows.compare(backend, row)
        compared = sum(what in archive_rows.PAGED for what in chunks)
        assert pauses.count(archive_rows.COMPARE_PAUSE_S) == (compared if is_busy else 0)
        monkeypatch.undo()
        await archive.advance(db.backend, archive_no)
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_page_read_in_pieces_equals_one_read(tmp_db: Path) -> None:
    """Converting SQLite's rows holds the interpreter's lock: 200 at once delayed every accept."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append_many([user(f"{number}") for number in range(300)])
        number = session.ref.session_no
        first = entry_number(number, 0)

        def read(tx: Any) -> tuple[list[Any], list[Any], list[int]]:
            counted: list[int] = []

            class Counting:
                def all(self, statement: str, **params: Any) -> list[Any]:
                    rows: list[Any] = tx.all(statement, **params)
                    if statement == "archive.entries":
                        counted.append(len(rows))
                    return rows

            counting: Any = Counting()
            page = archive_rows.read_page(counting, ENTRY, number, first - 1, 0.0)
            return (
                page,
                tx.all("archive.entries", low_no=page[0].entry_no, high_no=page[-1].entry_no),
                counted,
            )

        page, at_once, counted = await db.read("look", read)
        assert page == at_once
        assert len(page) == ARCHIVE_CHUNK_ROWS
        assert max(counted) == archive_rows.READ_ROWS
