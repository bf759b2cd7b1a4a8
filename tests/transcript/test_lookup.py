"""Looking entries up: by id, by idempotency key, by type, and the last ones of a context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import InvalidInput, NotFound, SessionArchived, sync
from sessiondb.sqlite import transaction
from sessiondb.transcript import paths
from tests.support.core import reply, result, texts, user
from tests.support.maintenance import archive_session

pytestmark = pytest.mark.one_loop

KEY, OTHER = "agent:main:web:direct:1", "agent:main:web:direct:2"
NOTE = {"type": "custom", "customType": "note", "data": 1}


@pytest.mark.anyio
async def test_an_entry_is_found_on_any_branch_and_in_no_other_session(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, two = await db.session(KEY), await db.session_for("app", "two")
        a, b = await one.append_many([user("a"), user("b")])
        [c] = await two.append_many([user("c")])
        await one.branch(a.entry_id)
        fork = await one.fork()
        [own] = await fork.append_many([user("own")])
        [later] = await one.append_many([user("later")])
        for session, receipt in ((one, a), (one, b), (two, c), (fork, a), (fork, own)):
            entry = await session.entry(receipt.entry_id)
            assert entry.entry_no == receipt.entry_no
            assert entry in await session.all_entries() + await session.entries()
        for session, elsewhere in (
            (one, c.entry_id),
            (two, a.entry_id),
            (fork, later.entry_id),
            (one, own.entry_id),
            (one, a.entry_id[:-1]),
            (one, ""),
        ):
            with pytest.raises(NotFound, match="has no entry"):
                await session.entry(elsewhere)


@pytest.mark.anyio
async def test_an_idempotency_key_tells_what_was_stored(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, two = await db.session(KEY), await db.session_for("app", "two")
        mine = await one.append(user("mine"), idempotency_key="web:1")
        theirs = await two.append(user("theirs"), idempotency_key="web:1")
        for session, receipt in ((one, mine), (two, theirs)):
            found = await session.entry_by_key("web:1")
            assert (found.entry_no, found.idempotency_key) == (receipt.entry_no, "web:1")
        fork = await one.fork()
        for session, key in ((one, "web:2"), (one, "WEB:1"), (one, "web:"), (fork, "web:1")):
            with pytest.raises(NotFound, match=f"no entry under the idempotency key '{key}'"):
                await session.entry_by_key(key)


@pytest.mark.anyio
@pytest.mark.parametrize("at_once", [1, 7, 10_000])
async def test_entries_of_some_types_are_those_of_the_whole_path(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(paths, "TYPED_ENTRIES_LOOKED_AT", at_once)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        one, two = await db.session(KEY), await db.session(OTHER)
        for number in range(4):
            for session in (one, two):
                await session.append_many([user("a"), NOTE, reply("b"), user("c")])
                middle = (await session.entries(last=2))[0]
                if number == 2:
                    await session.branch(middle.entry_id)
        async with one.compact(keep_recent_tokens=0) as job:
            await job.commit("so far")
        fork = await one.fork()
        await fork.append_many([NOTE, user("d"), NOTE])
        for session in (one, two, fork):
            path = await session.entries(limit=1_000)
            for types in ("custom", ["message"], ("compaction", "custom"), {"none"}):
                kinds = {types} if isinstance(types, str) else set(types)
                wanted = [entry for entry in path if entry.type in kinds]
                assert await session.entries(types=types) == wanted
                assert await session.entries(types=types, newest_first=True) == wanted[::-1]
                assert await session.entries(types=types, last=2) == wanted[-2:]
                assert await session.entries(types=types, limit=2) == wanted[:2]
                for at in (path[3], path[len(path) // 2]):
                    before = [each for each in wanted if each.position < at.position]
                    behind = [each for each in wanted if each.position > at.position]
                    assert await session.entries(types=types, before=at, limit=2) == before[-2:]
                    assert await session.entries(types=types, after=at, limit=2) == behind[:2]
        for wrong in ([], [1], ""):
            if wrong == "":
                assert await one.entries(types=wrong) == []
                continue
            with pytest.raises(InvalidInput, match="types are texts"):
                await one.entries(types=wrong)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_search_by_type_reads_a_bounded_number_at_a_time(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "TYPED_ENTRIES_LOOKED_AT", 10)
    spans: list[int] = []
    read = transaction.Snapshot.page

    def noted(self: Any, statement: str, /, **params: Any) -> Any:
        if statement.startswith("transcript.typed"):
            spans.append(params["high_no"] - params["low_no"] + 1)
        return read(self, statement, **params)

    monkeypatch.setattr(transaction.Snapshot, "page", noted)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        one, two = await db.session(KEY), await db.session(OTHER)
        for session in (one, two):
            await session.append_many([NOTE, *[user("x")] * 45])
        assert [entry.type for entry in await one.entries(types="custom")] == ["custom"]
        assert sum(spans) == 46
        assert max(spans) <= 10


@pytest.mark.anyio
async def test_the_last_items_stand_with_their_calls(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, two = await db.session(KEY), await db.session(OTHER)
        for session, name in ((one, "one"), (two, "two")):
            await session.append_many(
                [
                    *[user(f"{name} {number}") for number in range(50)],
                    user("what is there?"),
                    reply("I look", calls=["a", "b"]),
                    result("a"),
                    user("hurry"),
                    result("b"),
                    reply("all is there"),
                ]
            )
            roles = [message["role"] for message in (await session.context(last=2)).messages]
            assert roles == ["user", "assistant", "toolResult", "toolResult", "user", "assistant"]
            assert texts(await session.context(last=1)) == [
                "(The conversation begins here.)",
                "all is there",
            ]
            part = await session.context(last=8)
            assert texts(part)[0] == f"{name} 48"
            assert (part.is_whole, part.tokens_fresh) == (False, False)
            assert 0 < part.tokens < (await session.context()).tokens
            whole = await session.context(last=500)
            assert whole == await session.context()
            assert whole.is_whole
        with pytest.raises(InvalidInput, match="one at least"):
            await one.context(last=0)


@pytest.mark.anyio
async def test_a_part_of_a_past_context_can_be_read(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, OTHER):
            session = await db.session(key)
            await session.append_many([user(f"{number} of {key}") for number in range(9)])
            async with session.compact(keep_recent_tokens=0) as job:
                await job.commit("so far")
            await session.append(user("and on"))
            assert texts(await session.context(epoch=0, last=1)) == [f"8 of {key}"]
            part = await session.context(last=1)
            assert texts(part) == ["and on"]
            assert part.details is None


@pytest.mark.anyio
async def test_a_count_for_a_part_is_not_one_of_the_whole(tmp_db: Path) -> None:
    """A provider that saw two of a hundred messages counted those."""
    async with sessiondb.open(tmp_db) as db:
        for key, last, is_counted in ((KEY, 2, False), (OTHER, None, True)):
            session = await db.session(key)
            await session.append_many([user("a long question " * 50) for _ in range(20)])
            await session.context(last=last)
            await session.append(reply("yes", tokens=70))
            info = await session.info()
            assert (info.context_tokens == 70, info.tokens_fresh) == (is_counted, is_counted)
            await session.context()
            await session.append(reply("yes", tokens=4_000))
            assert (await session.info()).context_tokens == 4_000


@pytest.mark.anyio
async def test_nothing_of_an_archived_session_is_looked_up(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        kept, gone = await db.session_for("app", "kept"), await db.session_for("app", "gone")
        for session in (kept, gone):
            receipt = await session.append(user("a"), idempotency_key="k")
        await archive_session(db, gone)
        for look in (
            gone.entry(receipt.entry_id),
            gone.entry_by_key("k"),
            gone.entries(types="message"),
            gone.context(last=1),
        ):
            with pytest.raises(SessionArchived):
                await look
        assert (await kept.entry_by_key("k")).idempotency_key == "k"


def test_the_synchronous_calls_are_the_same(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        one, two = db.session(KEY), db.session_for("app", "two")
        receipt = one.append(user("a"), idempotency_key="k")
        two.append_many([user("b"), NOTE])
        assert one.entry(receipt.entry_id) == one.entry_by_key("k")
        assert [entry.type for entry in two.entries(types="custom")] == ["custom"]
        assert texts(two.context(last=1)) == ["b"]
