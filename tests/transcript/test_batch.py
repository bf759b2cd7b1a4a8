"""Changes of several sessions in one transaction, and items with a key and a time of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import Batch, HeadMoved, InvalidInput, Item, Planned, SessionBusy
from tests.support.core import texts, user, whole_path
from tests.support.gateway import claimed, complete
from tests.support.gateway import say as accept

pytestmark = pytest.mark.anyio

KEY = "agent:main:web:1"


async def seen(session: sessiondb.Session) -> list[str]:
    return texts(await session.context())


async def write(db: sessiondb.SessionDB, *changes: Callable[[Batch], object]) -> None:
    async with db.batch() as batch:
        for change in changes:
            change(batch)


async def test_a_batch_writes_all_of_its_changes(db: sessiondb.SessionDB) -> None:
    parent, child, other = [await db.create_session(name) for name in ("p", "c", "o")]
    first, second = await parent.append_many([user("a"), user("b")])
    await other.append(user("apart"))
    async with db.batch() as batch:
        one = batch.append(parent, user("result"), expect_head=second)
        many = batch.append_many(child, [Item(user("x"), key="x"), user("y")])
        went = batch.rewind(parent, before=second)
        batch.branch(parent, first)
        batch.bind(KEY, child)
        ended = batch.end(other)
        assert await seen(parent) == ["a", "b"], "nothing is written before the end"
        for planned in (one, many, went, ended):
            with pytest.raises(InvalidInput, match="is not written"):
                assert planned.value
    assert await seen(parent) == ["a"]
    assert await seen(child) == ["x", "y"]
    assert [receipt.position for receipt in many.value] == [1, 2]
    assert (one.value.position, went.value, ended.value) == (3, 1, True)
    assert (await db.session(KEY)).id == "c"
    assert await seen(other) == ["apart"]
    assert (await db.verify()).findings == ()


async def test_a_batch_of_which_one_change_is_refused_writes_nothing(
    db: sessiondb.SessionDB,
) -> None:
    one, two = await db.create_session("one"), await db.create_session("two")
    await two.append(user("there"))
    planned: list[Planned[Any]] = []
    with pytest.raises(HeadMoved):
        await write(
            db,
            lambda batch: planned.append(batch.append(one, user("x"))),
            lambda batch: batch.append(two, user("y"), expect_head=None),
        )
    with pytest.raises(InvalidInput, match="item 1"):
        await write(
            db,
            lambda batch: batch.append(one, user("x")),
            lambda batch: batch.append(two, "no JSON"),
        )
    with pytest.raises(InvalidInput, match=r"batch.append\(\) of session one is not written"):
        assert planned[0].value
    assert (await seen(one), await seen(two)) == ([], ["there"])


async def test_a_block_that_raises_or_is_cancelled_writes_nothing(db: sessiondb.SessionDB) -> None:
    session, _ = await db.create_session("s"), await db.create_session("t")
    with pytest.raises(ZeroDivisionError):
        await write(db, lambda batch: batch.append(session, user("x")), lambda _: 1 // 0)
    with anyio.CancelScope() as scope:
        async with db.batch() as batch:
            batch.append(session, user("x"))
            scope.cancel()
            await anyio.sleep_forever()
    assert await seen(session) == []


async def test_nothing_is_locked_while_a_block_waits(tmp_db: Path) -> None:
    """Both databases write in the middle of the block, and another batch is whole meanwhile."""
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        session = await db.create_session("s")
        elsewhere = await other.session_by_id("s")
        async with db.batch() as batch:
            batch.append(session, user("late"))
            await elsewhere.append(user("meanwhile"))
            async with other.batch() as second:
                second.append(elsewhere, user("in another batch"))
            await session.append(user("by itself"))
        assert await seen(session) == ["meanwhile", "in another batch", "by itself", "late"]


async def test_a_batch_moves_no_head_under_a_turn(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await accept(db, "question", KEY)
        session, other = await db.session(KEY), await db.create_session("o")
        started = await claimed(db)
        [question] = await whole_path(session)
        moves: list[Callable[[Batch], object]] = [
            lambda batch: batch.branch(session, None),
            lambda batch: batch.rewind(session, before=question),
        ]
        for move in moves:
            with pytest.raises(SessionBusy, match=f"turn {started.turn_no}"):
                await write(db, lambda batch: batch.append(other, user("x")), move)
        async with db.batch() as batch:
            batch.append(session, user("x"))
        await complete(db, started.turn_no, "yes")
        assert await seen(other) == []
        assert (await db.verify()).findings == ()


async def test_a_batch_is_for_its_block_and_its_database(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "a.db") as db, sessiondb.open(tmp_path / "b.db") as other:
        session, foreign = await db.create_session("s"), await other.create_session("s")
        batch = db.batch()
        with pytest.raises(InvalidInput, match="for the block"):
            batch.append(session, user("x"))
        async with batch:
            with pytest.raises(InvalidInput, match="another open database"):
                batch.append(foreign, user("x"))
            batch.append(session, user("x"))
        with pytest.raises(InvalidInput, match="entered once"):
            await batch.__aenter__()
        with pytest.raises(InvalidInput, match="for the block"):
            batch.append(session, user("x"))
        async with db.batch():
            pass
        assert (await seen(session), await seen(foreign)) == (["x"], [])


async def test_a_batch_is_bounded_like_one_append(db: sessiondb.SessionDB) -> None:
    one, two = await db.create_session("one"), await db.create_session("two")
    with pytest.raises(InvalidInput, match="1,001 entries"):
        await write(
            db,
            lambda batch: batch.append_many(one, [user("x")] * 1_000),
            lambda batch: batch.append(two, user("y")),
        )
    async with db.batch() as batch:
        for _ in range(1_000):
            batch.end(two)
        with pytest.raises(InvalidInput, match="at most 1,000 changes"):
            batch.end(one)
    assert await seen(one) == []


def test_the_synchronous_face_has_batches(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        one, two = db.create_session("one"), db.create_session("two")
        with db.batch() as batch:
            first = batch.append(one, user("a"))
            batch.append_many(two, [Item(user("b"), key="b")])
        with db.batch() as batch:
            batch.branch(one, None, expect_head=first.value)
            batch.bind(KEY, one)
        refused = db.batch()
        refused.__enter__()
        refused.end(two)
        refused.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        with db.batch() as batch:
            batch.rewind(two, before=two.entries()[0])
            assert db.session(KEY).id == "one"
            ended = batch.end(two)
        assert ended.value
        assert (texts(one.context()), texts(two.context())) == ([], [])
        report = one.append_history((user(str(n)) for n in range(250)), key="old")
        assert (report.entries, report.stored) == (250, 250)


# -- items -----------------------------------------------------------------------------------


async def test_an_item_has_its_key_and_its_own_time(db: sessiondb.SessionDB) -> None:
    session, other = await db.create_session("s"), await db.create_session("t")
    said_ms = 1_000_000_000_123
    typed: dict[str, Any] = {"type": "custom", "customType": "note", "data": {}}
    items = [
        Item(user("a"), key="a", at_ms=said_ms),
        Item('{"role":"user","content":"b"}', at_ms=said_ms + 1),
        Item(typed, at_ms=said_ms + 2),
        user("now"),
    ]
    receipts = await session.append_many(items)
    entries = await session.entries()
    times = [json.loads(entry.payload)["timestamp"] for entry in entries]
    assert times[:3] == [f"2001-09-09T01:46:40.{ms}Z" for ms in (123, 124, 125)]
    assert times[3] > "2020"
    assert all(entry.appended_at_ms > said_ms + 10**9 for entry in entries)
    assert entries[0].idempotency_key == "a"
    again = await session.append(Item(user("a"), key="a", at_ms=said_ms + 5))
    assert (again.duplicate, again.entry_no) == (True, receipts[0].entry_no)
    assert await seen(other) == []


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (Item(user("x"), at_ms=-1), "not -1"),
        (Item(user("x"), at_ms=10**15), "year 9999"),
        (Item(user("x"), at_ms="now"), "not 'now'"),  # type: ignore[arg-type]
        (Item(user("x"), key=7), "is a text, not int"),  # type: ignore[arg-type]
        (Item(user("x"), key="inbox:7"), "reserved"),
        (Item(Item(user("x"))), "not another Item"),  # type: ignore[arg-type]
        (Item(7), "not int"),  # type: ignore[arg-type]
    ],
)
async def test_an_item_that_cannot_be_stored_says_why(
    db: sessiondb.SessionDB, item: Item, why: str
) -> None:
    session = await db.create_session("s")
    with pytest.raises(InvalidInput, match=f"item 1: .*{why}"):
        await session.append_many([user("a"), item])
    with pytest.raises(InvalidInput, match="one of both"):
        await session.append(Item(user("x"), key="a"), idempotency_key="b")
    assert await seen(session) == []


# -- histories -------------------------------------------------------------------------------

LENGTH = 730


def history() -> list[Item]:
    return [Item(user(f"m{number}"), at_ms=number * 1_000) for number in range(LENGTH)]


WHOLE = [f"m{number}" for number in range(LENGTH)]


async def test_a_long_history_is_appended_in_one_call_and_once(db: sessiondb.SessionDB) -> None:
    session, other = await db.create_session("s"), await db.create_session("t")
    report = await session.append_history(iter(history()), key="old", expect_head=None)
    [last] = await session.entries(last=1)
    assert (report.entries, report.stored) == (LENGTH, LENGTH)
    assert report.last is not None
    assert report.last.entry_id == last.entry_id
    await session.append(user("since"))
    again = await session.append_history(history(), key="old", expect_head=None)
    assert (again.entries, again.stored) == (LENGTH, 0)
    assert await seen(session) == [*WHOLE, "since"]
    assert await seen(other) == []
    nothing = await other.append_history([], key="old")
    assert (nothing.entries, nothing.last) == (0, None)
    assert (await db.verify()).findings == ()


async def test_an_interrupted_history_is_a_beginning_and_goes_on(db: sessiondb.SessionDB) -> None:
    session, _ = await db.create_session("s"), await db.create_session("t")
    torn: list[Any] = history()
    torn[350] = "no JSON"
    with pytest.raises(InvalidInput, match="item 350") as interrupted:
        await session.append_history(torn, key="old")
    assert "the first 300 items are on disk" in str(interrupted.value.__notes__)
    assert await seen(session) == WHOLE[:300]
    await session.append_history(history(), key="old")
    assert await seen(session) == WHOLE
    assert (await db.verify()).findings == ()


async def test_a_cancelled_history_is_a_beginning_in_whole_steps(
    db: sessiondb.SessionDB,
) -> None:
    session = await db.create_session("s")

    async def stop(scope: anyio.CancelScope) -> None:
        while not await session.entries(limit=1):  # of a worker thread
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(stop, group.cancel_scope)
        await session.append_history(history(), key="old")
    found = await seen(session)
    assert found == WHOLE[: len(found)]
    assert len(found) in (*range(100, LENGTH, 100), LENGTH)
    await session.append_history(history(), key="old")
    assert await seen(session) == WHOLE


APPENDER = """
import sys, sessiondb.sync
from sessiondb import Item
with sessiondb.sync.open(sys.argv[1]) as db:
    items = (Item({"role": "user", "content": f"m{n}"}, at_ms=n * 1_000) for n in range(730))
    print("ready", flush=True)
    db.session_by_id("s").append_history(items, key="old")
"""


def test_a_history_whose_process_was_killed_goes_on(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        session = db.create_session("s")
        child = [sys.executable, "-c", APPENDER, str(tmp_db)]
        with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as appender:
            assert appender.stdout is not None
            assert appender.stdout.readline() == "ready\n"
            while not session.entries(limit=1) and appender.poll() is None:
                pass
            appender.kill()
        found = texts(session.context())
        assert found
        assert found == WHOLE[: len(found)]
        report = session.append_history(history(), key="old")
        assert (report.entries, report.stored) == (LENGTH, LENGTH - len(found))
        assert texts(session.context()) == WHOLE
        assert db.verify().findings == ()


async def test_nobody_gets_into_the_middle_of_a_history(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        session = await db.create_session("s")
        elsewhere = await other.session_by_id("s")
        with pytest.raises(HeadMoved):
            await session.append_history(history(), key="old", expect_head="nowhere")
        refused: list[HeadMoved] = []

        async def interrupt() -> None:
            while len(await elsewhere.entries(limit=300)) < 200:
                await anyio.lowlevel.checkpoint()
            await elsewhere.append(user("in between"))

        async with anyio.create_task_group() as group:
            group.start_soon(interrupt)
            try:
                await session.append_history(history(), key="old")
            except HeadMoved as moved:
                refused.append(moved)
        found = await seen(session)
        at = found.index("in between")
        assert found[:at] == WHOLE[:at]
        assert len(refused) == (at < LENGTH)
        assert all("the first " in str(moved.__notes__) for moved in refused)
        assert found[at + 1 :] == []
