"""`db.query`: an application's own SQL in a gateway's process, bounded and read-only.

What no statement may do is in tests/security/test_query.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.errors import InvalidInput, ReadTooLong, StoreBusy, StoreClosed
from sessiondb.limits import Limits
from sessiondb.sqlite import engine, parts
from tests.support.attacks import ENDLESS
from tests.support.engine import DEADLINES_S, until

pytestmark = pytest.mark.anyio

KEYS = ("agent:main:web:direct:jo", "agent:main:web:direct:mia")
COUNT = ENDLESS + "select count(*) from c"
NUMBERS = ENDLESS + "select n from c limit ?"


async def fill(db: sessiondb.SessionDB) -> None:
    """Give two conversations two entries each."""
    for key in KEYS:
        session = await db.session(key)
        for text in ("hello", "and good-bye"):
            await session.append({"role": "user", "content": text})


def running(db: sessiondb.SessionDB) -> int:
    """Return how many queries run at this moment."""
    queries = db.backend.stats()["queries"]
    return 0 if queries is None else int(queries["running"])


async def test_a_query_returns_columns_rows_and_dicts(tmp_db: Path) -> None:
    bound = apsw.hard_heap_limit(-1)
    async with sessiondb.open(tmp_db) as db:
        await fill(db)
        found = await db.query(
            "select role, count(*) as entries, ? as given from entry"
            " where role = ? group by role; -- of people",
            b"\x00",
            "user",
        )
        assert (found.columns, found.rows, found.cut) == (
            ("role", "entries", "given"),
            (("user", 4, b"\x00"),),
            None,
        )
        assert found.dicts() == [{"role": "user", "entries": 4, "given": b"\x00"}]
        twice = await db.query("select 1 as x, 2 as x")
        assert twice.rows == ((1, 2),)
        with pytest.raises(InvalidInput, match="two columns are named 'x'"):
            twice.dicts()
    assert apsw.hard_heap_limit(-1) == bound  # the process belongs to the application


async def test_an_answer_that_does_not_fit_raises_or_says_that_it_was_cut(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        assert len((await db.query(NUMBERS, 1_000)).rows) == 1_000
        with pytest.raises(InvalidInput, match=r"more than 1,000 rows \(rows_max\). Add a LIMIT"):
            await db.query(NUMBERS, 1_001)
        assert (await db.query(NUMBERS, 1_000_000, rows_max=3, allow_cut=True)) == (
            sessiondb.QueryResult(("n",), ((1,), (2,), (3,)), "rows")
        )
        assert (await db.query(NUMBERS, 3, rows_max=3, allow_cut=True)).cut is None
        texts = ENDLESS + "select hex(zeroblob(500)) from c limit 5"
        assert len((await db.query(texts, bytes_max=5_000)).rows) == 5
        with pytest.raises(InvalidInput, match=r"4,999 bytes \(bytes_max\), after 4 rows"):
            await db.query(texts, bytes_max=4_999)
        cut = await db.query(texts, bytes_max=4_999, allow_cut=True)
        assert (len(cut.rows), cut.cut) == (4, "bytes")
        with pytest.raises(InvalidInput, match="first row has more than 999 bytes"):
            await db.query(texts, bytes_max=999, allow_cut=True)


async def test_a_value_that_no_answer_has_room_for_is_not_made(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        apsw.memory_high_water(True)
        before = apsw.memory_used()
        with pytest.raises(InvalidInput, match=r"than 4,194,304 bytes.*raise bytes_max"):
            await db.query("select randomblob(900000000)")
        with pytest.raises(InvalidInput, match="too many columns"):
            await db.query(f"select {', '.join(['zeroblob(4000000)'] * 101)}")
        assert apsw.memory_high_water() - before < 20_000_000
        blob = (await db.query("select zeroblob(5000000)", bytes_max=6_000_000)).rows[0][0]
        assert blob == bytes(5_000_000)


REFUSED: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("select ?", []), {}, "parameter 1 is a list"),
    (("select ?, ?", 1, {}), {}, "parameter 2 is a dict"),
    (("select ?",), {}, "uses 1 and there are 0 supplied"),
    (("select ?", 2**64), {}, "SQLite does not accept"),
    (("select ?", "\ud800"), {}, "SQLite does not accept"),
    (("select '\ud800'",), {}, "SQLite does not accept"),
    (("select 1\0",), {}, "SQLite does not accept"),
    (("selct 1",), {}, "syntax error"),
    (("select * from entri",), {}, "no such table: entri"),
    (("",), {}, "returns no rows"),
    (("select 1; select 2",), {}, "one statement at a time"),
    ((b"select 1",), {}, "sql is a bytes"),
    (("select 1",), {"rows_max": 0}, "rows_max is 0. It is above 0 and at most 100,000"),
    (("select 1",), {"rows_max": 100_001}, "rows_max is 100001"),
    (("select 1",), {"bytes_max": 2**40}, "bytes_max is"),
    (("select 1",), {"timeout_s": float("nan")}, "timeout_s is nan"),
    (("select 1",), {"timeout_s": "5"}, "timeout_s is '5'"),
]


async def test_what_cannot_be_a_query_is_named(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for arguments, options, words in REFUSED:
            with pytest.raises(InvalidInput) as refused:
                await db.query(*arguments, **options)
            assert words in str(refused.value).encode(errors="replace").decode()


async def test_an_endless_query_ends_and_says_at_which_time(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for sql in (COUNT, ENDLESS + "select n from c where n < 0"):
            for timeout_s in DEADLINES_S:
                with pytest.raises((ReadTooLong, StoreBusy)) as ended:
                    await db.query(sql, timeout_s=timeout_s)
                if isinstance(ended.value, ReadTooLong):
                    break
            assert f"stopped after {timeout_s:g} s" in str(ended.value)
            assert "or raise timeout_s" in str(ended.value)
        assert running(db) == 0


async def test_queries_hold_up_no_read_and_no_append_until_they_are_cancelled(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db, limits=Limits(readers=1)) as db:
        await fill(db)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: db.query(COUNT, timeout_s=60))
            tasks.start_soon(lambda: db.query(COUNT, timeout_s=60))
            await until(lambda: running(db) == 2)
            session = await db.session(KEYS[1])
            await session.append({"role": "user", "content": "one more"})
            assert (await session.context()).messages[-1]["content"] == "one more"
            assert running(db) == 2
            tasks.cancel_scope.cancel()
        await until(lambda: running(db) == 0)
        assert (await db.query("select count(*) from entry where role = 'user'")).rows == ((5,),)


async def test_a_query_reads_one_snapshot_beside_appends(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEYS[0])
        stop = anyio.Event()

        async def write() -> None:
            while not stop.is_set():
                await session.append({"role": "user", "content": "x"})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            before = 0
            for _ in range(20):
                [(first, again)] = (
                    await db.query(
                        "select (select count(*) from entry), count(*) from entry, "
                        "(select max(entry_no) from entry)"
                    )
                ).rows
                assert (first, first >= before) == (again, True)
                before = int(str(first))
            stop.set()


async def test_closing_ends_queries_that_run_and_refuses_others(
    tmp_db: Path, nothing_left: None
) -> None:
    db = sessiondb.open(tmp_db)
    await db.__aenter__()
    errors: list[StoreClosed] = []

    async def query() -> None:
        try:
            await db.query(COUNT, timeout_s=60)
        except StoreClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(parts.QUERIES_AT_ONCE + 1):  # the last one waits
            tasks.start_soon(query)
        await until(lambda: running(db) == parts.QUERIES_AT_ONCE)
        await until(lambda: db.backend.stats()["queries"]["queue_items"] == 1)
        await db.close()
    assert len(errors) == parts.QUERIES_AT_ONCE + 1
    assert "closed before the query had ended" in str(errors[0])
    with pytest.raises(StoreClosed):
        await db.query("select 1")


async def test_queries_that_are_too_many_are_refused(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "QUERIES_AT_ONCE", 1)
    monkeypatch.setattr(parts, "QUERIES_WAITING_MAX", 1)
    monkeypatch.setattr(engine, "QUERY_STOP_S", 0.0)
    async with sessiondb.open(tmp_db) as db:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: db.query(COUNT, timeout_s=60))
            await until(lambda: running(db) == 1)
            with pytest.raises(StoreBusy, match=r"did not begin within its 0\.01 s"):
                await db.query("select 1", timeout_s=0.01)
            tasks.start_soon(lambda: db.query("select 1"))
            await until(lambda: db.backend.stats()["queries"]["queue_items"] == 1)
            with pytest.raises(StoreBusy, match=r"query was refused: 1 reads wait"):
                await db.query("select 1")
            tasks.cancel_scope.cancel()


def held_function(db: sessiondb.SessionDB) -> Callable[[], None]:
    """Give queries a function `held()` that ends when the returned function is called."""
    readers = db.backend._parts.readers  # type: ignore[attr-defined]
    released, connect = threading.Event(), readers.connect

    def connect_with_function(path: str) -> apsw.Connection:
        connection: apsw.Connection = connect(path)
        connection.create_scalar_function("held", lambda: str(released.wait()), 0)
        return connection

    readers.connect = connect_with_function
    return released.set


async def test_a_function_that_cannot_be_stopped_holds_up_nobody(
    tmp_db: Path, nothing_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "QUERY_STOP_S", 0.01)
    monkeypatch.setattr(parts, "QUERY_STOP_S", 0.01)
    db = sessiondb.open(tmp_db)
    async with db:
        release = held_function(db)
        for timeout_s in DEADLINES_S:
            with pytest.raises((ReadTooLong, StoreBusy)) as ended:
                await db.query("select held()", timeout_s=timeout_s)
            if isinstance(ended.value, ReadTooLong):
                break
        assert "could not be stopped after" in str(ended.value)
        await fill(db)
        assert (await db.query("select count(*) from session")).rows == ((2,),)
    release()
    queries = db.backend._parts.queries  # type: ignore[attr-defined]
    assert queries.join()
    async with sessiondb.open(tmp_db, readonly=True) as reader:
        assert (await reader.query("select count(*) from session")).rows == ((2,),)


def test_the_synchronous_twin_queries_too(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        db.session(KEYS[0])
        assert db.query("select count(*) as n from session").dicts() == [{"n": 1}]
        with pytest.raises(InvalidInput, match="does more than read"):
            db.query("delete from session returning 1")
