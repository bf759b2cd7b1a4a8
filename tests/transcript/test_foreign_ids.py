"""Foreign ids: exact, made once, kept in an archive, and gone when the session is deleted."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb import InvalidInput, NotFound, StoreReadOnly, sync
from sessiondb.limits import EXTERNAL_ID_BYTES_MAX, NAMESPACE_BYTES_MAX
from tests.support.core import query, reply, texts, user
from tests.support.maintenance import archive_session

APP, OTHER = "app", "other app"
# Texts that some programs take for the same. All of them are different ids.
ALIKE = [
    "thread-1",
    "Thread-1",
    "THREAD-1",
    "thread-1 ",
    " thread-1",
    "thread-1\n",
    "thread-1\x00",
    "thread-1\x00b",
    "thread",
    "thread-",
    "thread-11",
    "thread_1",
    "thread%",
    "agent:main:web:direct:1",
    "Agent:main:web:direct:1",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "ß",
    "ss",
    "\u202ethread-1",
    "\U0010ffff",
    "🙂" * 256,
]


@pytest.mark.anyio
async def test_ids_that_look_alike_are_different_sessions(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        made = {}
        for namespace in (APP, OTHER, "App", "app "):
            for external_id in ALIKE:
                session = await db.session_for(namespace, external_id)
                made[namespace, external_id] = session.id
        assert len(set(made.values())) == len(made)
        for (namespace, external_id), session_id in made.items():
            again = await db.session_for(namespace, external_id)
            found = await db.find((namespace, external_id))
            assert found is not None
            assert again.id == found.id == session_id
            info = await again.info()
            assert (info.namespace, info.external_id) == (namespace, external_id)
            assert (await db.session_by_id(session_id)).id == session_id
        for namespace, external_id in ((APP, "threa"), ("ap", "thread-1"), (OTHER, "nobody")):
            assert await db.find((namespace, external_id)) is None
            with pytest.raises(NotFound, match=f"no session has the external id '{external_id}'"):
                await db.session_for(namespace, external_id, create=False)
        assert len([info async for info in db.sessions()]) == len(made), "a look-up made one"
        assert await db.find("thread-1") is None, "an external id alone is not an id"


def test_two_texts_are_one_id_only_if_they_are_equal(tmp_db: Path) -> None:
    parts = st.text(min_size=1, max_size=6)
    with sync.open(tmp_db, durability="normal") as db:

        @settings(max_examples=30)
        @given(namespace=parts, one=parts, other=parts)
        def agree(namespace: str, one: str, other: str) -> None:
            first, second = db.session_for(namespace, one), db.session_for(namespace, other)
            swapped = db.session_for(other, namespace)
            assert (first.id == second.id) == (one == other)
            assert (second.id == swapped.id) == (namespace == other)

        agree()


@pytest.mark.anyio
async def test_a_foreign_id_is_bounded_in_bytes(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        long, longest = "é" * (NAMESPACE_BYTES_MAX // 2), "é" * (EXTERNAL_ID_BYTES_MAX // 2)
        assert (await (await db.session_for(long, longest)).info()).external_id == longest
        refused: list[tuple[object, object, str]] = [
            ("", "a", "a namespace has 1 to 255 bytes of UTF-8, and this one has 0"),
            (APP, "", "an external id has 1 to 1,024 bytes"),
            (f"{long}éé", "a", "this one has 258"),
            (APP, f"{longest}a", "this one has 1,025"),
            (APP, 7, "a text"),
            (None, "a", "a text"),
            (APP, "\ud83d", "half of a surrogate pair"),
        ]
        for namespace, external_id, why in refused:
            for call in (db.session_for, lambda *parts: db.find(parts)):
                with pytest.raises(InvalidInput, match=why):
                    await call(namespace, external_id)  # type: ignore[operator]
        with pytest.raises(InvalidInput, match="a pair"):
            await db.find((APP, "a", "b"))  # type: ignore[arg-type]
        assert len([info async for info in db.sessions()]) == 1


@pytest.mark.anyio
async def test_those_who_ask_at_once_get_one_session(tmp_db: Path) -> None:
    ids: dict[str, set[str]] = {"one": set(), "two": set()}

    async def ask(db: sessiondb.SessionDB, external_id: str) -> None:
        ids[external_id].add((await db.session_for(APP, external_id)).id)

    async with sessiondb.open(tmp_db) as first, sessiondb.open(tmp_db) as second:
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(ask, (first, second)[number % 2], ("one", "two")[number // 20])
    assert [len(found) for found in ids.values()] == [1, 1]
    assert query(tmp_db, "SELECT count(*) FROM session") == [2]


@pytest.mark.anyio
async def test_options_are_of_a_new_session(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one = await db.session_for(APP, "one", agent_id="west", format="anthropic")
        two = await db.session_for(OTHER, "one", agent_id="east", format="pi")
        again = await db.session_for(APP, "one", agent_id="north", format="anthropic")
        infos = [await session.info() for session in (one, two, again)]
        assert [(info.agent_id, info.format) for info in infos] == [
            ("west", "anthropic"),
            ("east", "pi"),
            ("west", "anthropic"),
        ]
        for create in (True, False):
            with pytest.raises(InvalidInput, match="anthropic"):
                await db.session_for(APP, "one", create=create, format="pi")
    async with sessiondb.open(tmp_db, readonly=True) as db:
        assert (await db.session_for(APP, "one")).id == one.id
        with pytest.raises(StoreReadOnly):
            await db.session_for(APP, "three")


@pytest.mark.anyio
async def test_an_archived_session_keeps_its_name_and_a_deleted_one_loses_it(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        kept, deleted, dropped = [await db.session_for(APP, each) for each in ("a", "b", "c")]
        other = await db.session_for(OTHER, "a")
        for session in (kept, deleted, dropped, other):
            await session.append_many([user(f"in {session.id}"), reply("yes")])
        await archive_session(db, kept)
        await archive_session(db, deleted, keep_archive=False)
        assert (await (await db.session_for(APP, "a")).info()).archived_at_ms is not None
        assert (await db.unarchive(kept.id)).session_id == kept.id
        assert texts(await (await db.session_for(APP, "a")).context())[0] == f"in {kept.id}"
        assert await db.find((APP, "b")) is None
        assert (await db.session_for(APP, "b")).id not in (deleted.id, kept.id)
        assert (await db.verify()).findings == ()
    assert query(
        tmp_db, "SELECT external_id FROM foreign_id WHERE namespace = 'app' ORDER BY external_id"
    ) == ["a", "b", "c"]


@pytest.mark.anyio
async def test_a_fork_is_another_session_without_a_foreign_id(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, two = await db.session_for(APP, "one"), await db.session_for(APP, "two")
        await one.append(user("a"))
        await two.append(user("b"))
        fork = await one.fork()
        info = await fork.info()
        assert (info.namespace, info.external_id) == (None, None)
        assert (await db.session_for(APP, "one")).id == one.id


def test_the_synchronous_calls_are_the_same(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        one, two = db.session_for(APP, "one"), db.session_for(OTHER, "one")
        found = db.find((APP, "one"))
        assert isinstance(found, sync.Session)
        assert (found.id, db.find((APP, "two"))) == (one.id, None)
        looks: list[Callable[[], object]] = [
            lambda: db.session_for(APP, "two", create=False),
            lambda: db.session("agent:main:web:direct:1", create=False),
        ]
        for look in looks:
            with pytest.raises(NotFound):
                look()
        assert [info.session_id for info in db.sessions(namespace=OTHER)] == [two.id]
