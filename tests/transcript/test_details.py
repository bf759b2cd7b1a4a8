"""Details of a session: bounded, with a revision, stored with entries, and listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb import DetailsChanged, InvalidInput, Item, SessionArchived, SessionEnded, sync
from sessiondb.limits import KEPT_DETAILS_BYTES_MAX, TITLE_BYTES_MAX
from tests.support.core import query, user
from tests.support.maintenance import archive_session

KEY = "agent:main:web:direct:1"


async def two(db: sessiondb.SessionDB) -> tuple[sessiondb.Session, sessiondb.Session]:
    return await db.session(KEY), await db.session_for("app", "two")


@pytest.mark.anyio
async def test_details_have_a_revision_that_a_writer_may_expect(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, other = await two(db)
        empty = await one.details()
        assert (empty.document, empty.revision, empty.changed_at_ms) == ({}, 0, None)
        assert await one.set_details({"step": 1}, expect=0) == 1
        assert await other.set_details({"step": "é"}) == 1
        assert await one.set_details({"step": 2}, expect=1) == 2
        for expect in (0, 1, 3):
            with pytest.raises(DetailsChanged, match="have revision 2") as caught:
                await one.set_details({"step": 9}, expect=expect)
            assert (caught.value.expected, caught.value.revision) == (expect, 2)
        assert await one.set_details({}) == 3
        assert [(await each.details()).document for each in (one, other)] == [{}, {"step": "é"}]
        assert (await other.details()).revision == 1
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_of_two_writers_that_expect_the_same_one_is_refused(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as first, sessiondb.open(tmp_db) as second:
        handles = [await two(first), await two(second)]
        refused: list[int] = []

        async def count(handle: sessiondb.Session) -> None:
            for _ in range(10):
                while True:
                    found = await handle.details()
                    document = {"count": found.document.get("count", 0) + 1}
                    try:
                        await handle.set_details(document, expect=found.revision)
                        break
                    except DetailsChanged as changed:
                        refused.append(changed.revision)

        async with anyio.create_task_group() as tasks:
            for pair in handles:
                for handle in pair:
                    tasks.start_soon(count, handle)
        for handle in handles[0]:
            found = await handle.details()
            assert (found.document, found.revision) == ({"count": 20}, 20)


@pytest.mark.anyio
async def test_entries_and_details_are_one_transaction(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for session in await two(db):
            items = [Item(user("a"), key="a"), Item(user("b"), key="b")]
            await session.append_many(items, details={"said": 2}, expect_details=0)
            assert (await session.details()).document == {"said": 2}
            with pytest.raises(DetailsChanged):
                await session.append_many([user("c")], details={"said": 3}, expect_details=0)
            with pytest.raises(InvalidInput):
                await session.append_many([user("c")], details={"said": {1}})
            assert (await session.info()).entries == 2, "an entry was stored without its details"
            repeated = await session.append_many(items, details={"said": 2}, expect_details=0)
            assert [receipt.duplicate for receipt in repeated] == [True, True]
            assert (await session.details()).revision == 1
            await session.end()
            with pytest.raises(SessionEnded):
                await session.append_many([user("c")], details={"said": 3})
            assert (await session.details()).document == {"said": 2}


@pytest.mark.anyio
async def test_details_are_bounded_json_objects(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, other = await two(db)
        frame = len('{"a":""}')
        most = {"a": "é" * ((KEPT_DETAILS_BYTES_MAX - frame) // 2)}
        assert await one.set_details(most) == 1
        bad: list[Any] = [
            {"a": "x" * (KEPT_DETAILS_BYTES_MAX - frame + 1)},
            [],
            None,
            "{}",
            {"a": float("nan")},
            {"a": object()},
        ]
        for details in bad:
            with pytest.raises(InvalidInput):
                await one.set_details(details)
        assert (await one.details()).document == most
        assert (await other.details()).revision == 0


@pytest.mark.anyio
async def test_details_are_listed_and_follow_the_session(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, other = await two(db)
        for session, number in ((one, 1), (other, 2)):
            await session.append_many([user("a"), user("b")], details={"number": number})
        listed = {info.session_id: info async for info in db.sessions()}
        assert [listed[each.id].details for each in (one, other)] == [{"number": 1}, {"number": 2}]
        assert listed[one.id].details_revision == 1
        fork = await one.fork()
        assert (await fork.details()).revision == 0
        fork_row = await archive_session(db, fork)
        assert not isinstance(fork_row, str)
        await archive_session(db, other)
        assert (await other.details()).document == {"number": 2}
        with pytest.raises(SessionArchived):
            await other.set_details({})
        await db.unarchive(other.id)
        assert await other.set_details({"number": 3}, expect=1) == 2
        await archive_session(db, other, keep_archive=False)
        assert (await other.details()).revision == 0
        assert (await db.verify()).findings == ()
    assert query(tmp_db, "SELECT document FROM session_details") == ['{"number":1}']


@pytest.mark.anyio
async def test_a_title_is_an_entry(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, other = await two(db)
        await one.rename("Plans for May")
        await other.rename("x" * TITLE_BYTES_MAX)
        await one.rename("Plans for June")
        assert (await one.info()).name == "Plans for June"
        assert [entry.type for entry in await one.entries()] == ["session_info"] * 2
        bad: list[Any] = ["", None, 7, "\ud83d", "x" * (TITLE_BYTES_MAX + 1)]
        for title in bad:
            with pytest.raises(InvalidInput, match="title"):
                await other.rename(title)
        assert (await other.info()).name == "x" * TITLE_BYTES_MAX


def test_the_synchronous_calls_are_the_same(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        one, other = db.session(KEY), db.session_for("app", "two")
        assert one.set_details({"a": 1}, expect=0) == 1
        with pytest.raises(DetailsChanged):
            one.set_details({"a": 2}, expect=0)
        other.append_many([user("a")], details={"b": 1})
        other.rename("two")
        assert (one.details().document, other.details().document) == ({"a": 1}, {"b": 1})
        assert other.info().name == "two"


# -- of a name -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_details_of_a_name_have_revisions_and_are_exact(db: sessiondb.SessionDB) -> None:
    assert await db.details("app", "user:1") == sessiondb.Details({}, 0, None)
    assert await db.set_details("app", "user:1", {"a": 1}, expect=0) == 1
    assert await db.set_details("app", "User:1", {"b": 1}) == 1
    assert await db.set_details("app 2", "user:1", {"c": 1}) == 1
    assert await db.set_details("app", "user:1", {"a": 2}, expect=1) == 2
    with pytest.raises(DetailsChanged, match="'user:1' in namespace 'app'") as changed:
        await db.set_details("app", "user:1", {"a": 3}, expect=1)
    assert (changed.value.namespace, changed.value.name) == ("app", "user:1")
    assert (changed.value.expected, changed.value.revision) == (1, 2)
    found = [(one.name, one.document, one.revision) async for one in db.list_details("app")]
    assert found == [("User:1", {"b": 1}, 1), ("user:1", {"a": 2}, 2)]
    assert [one.name async for one in db.list_details("app", limit=1)] == ["User:1"]
    with pytest.raises(DetailsChanged):
        await db.delete_details("app", "user:1", expect=1)
    assert await db.delete_details("app", "user:1", expect=2)
    assert not await db.delete_details("app", "user:1")
    assert (await db.details("app", "user:1")).revision == 0
    assert (await db.details("app 2", "user:1")).document == {"c": 1}
    assert (await db.verify()).ok


@pytest.mark.anyio
async def test_details_of_a_name_that_cannot_be_stored_are_refused(db: sessiondb.SessionDB) -> None:
    large = {"a": "x" * KEPT_DETAILS_BYTES_MAX}
    bad: list[Any] = [{"a": object()}, large, {"a": float("nan")}]
    for document in bad:
        with pytest.raises(InvalidInput):
            await db.set_details("app", "a", document)
    for namespace, name in (("", "a"), ("app", ""), ("x" * 256, "a"), ("app", "x" * 1_025)):
        with pytest.raises(InvalidInput, match="bytes of UTF-8"):
            await db.set_details(namespace, name, {})
    assert [one async for one in db.list_details("app")] == []


@pytest.mark.anyio
async def test_a_batch_writes_details_and_entries_or_nothing(db: sessiondb.SessionDB) -> None:
    one, two = await db.create_session("one"), await db.create_session("two")
    await db.set_details("app", "taken", {})
    with pytest.raises(DetailsChanged):  # noqa: PT012  # at the end of the block
        async with db.batch() as batch:
            batch.append_many(one, [user("hello")], details={"s": 1}, expect_details=0)
            batch.set_details("app", "state", {"n": 1})
            batch.set_details("app", "taken", {"n": 2}, expect=0)
    assert (await one.entries(), (await one.details()).revision) == ([], 0)
    assert (await db.details("app", "state")).revision == 0
    async with db.batch() as batch:
        planned = batch.set_details("app", "taken", {"n": 2}, expect=1)
        batch.append_many(one, [user("hello")], details={"s": 1}, expect_details=0)
        batch.append(two, user("hello"))
    assert planned.value == 2
    assert ((await one.details()).document, len(await one.entries())) == ({"s": 1}, 1)
    assert (await two.details()).revision == 0


@pytest.mark.anyio
async def test_a_deleted_namespace_takes_its_details(db: sessiondb.SessionDB) -> None:
    await db.session_for("user:1", "thread")
    for namespace in ("user:1", "user:2", "user:10"):
        for number in range(10):
            await db.set_details(namespace, str(number), {"of": namespace})
    report = await db.delete(namespace="user:1")
    assert (len(report.deleted), report.rows["named_details"]) == (1, 10)
    assert (await db.delete(namespace="user:2")).rows["named_details"] == 10
    left = [one.namespace async for one in db.list_details("user:10")]
    assert left == ["user:10"] * 10
    with pytest.raises(sessiondb.NotFound, match="user:2"):
        await db.delete(namespace="user:2")
    assert (await db.verify()).ok


def test_details_of_a_name_in_the_synchronous_calls(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        with db.batch() as batch:
            batch.set_details("app", "a", {"x": 1})
        assert db.details("app", "a").document == {"x": 1}
        assert [one.name for one in db.list_details("app")] == ["a"]
        assert db.delete_details("app", "a")
