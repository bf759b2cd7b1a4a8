"""Appending to a transcript: keys, all or none, branches, side appends, parents, limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import InvalidInput, Item, NotFound, SessionEnded
from sessiondb.limits import (
    APPEND_BYTES_MAX,
    APPEND_ENTRIES_MAX,
    ENTRY_BYTES_MAX,
    IDEMPOTENCY_KEY_CHARS_MAX,
)
from sessiondb.transcript import entries
from sessiondb.transcript.entries import draft_entry
from tests.support.core import change, reply, texts, user, whole_path

pytestmark = pytest.mark.one_loop

SIDE = {"type": "custom", "customType": "note", "data": {}, "appendMode": "side"}


# -- idempotency -----------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_repeated_key_returns_the_first_receipt(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, other = await db.create_session("s"), await db.create_session("other")
        first = await session.append(user("hello"), idempotency_key="k")
        await session.append(reply("hi"))
        before = await session.info()
        again = await session.append({**user("hello"), "timestamp": 7}, idempotency_key="k")
        assert (again.entry_no, again.entry_id, again.duplicate, first.duplicate) == (
            first.entry_no,
            first.entry_id,
            True,
            False,
        )
        assert await session.info() == before
        assert texts(await session.context()) == ["hello", "hi"]
        assert not (await other.append(user("hello"), idempotency_key="k")).duplicate, (
            "keys are per session"
        )


OTHER_ITEMS = [
    user("another text"),
    {"role": "user", "content": "hello", "excludeFromContext": True},
    {"role": "assistant", "content": "hello"},
    {"type": "custom", "customType": "t", "data": "hello"},
    {"type": "message", "message": {"role": "user", "content": ["hello"]}},
]


@pytest.mark.anyio
@pytest.mark.parametrize("item", OTHER_ITEMS, ids=str)
async def test_a_used_key_with_other_content_is_an_error(tmp_db: Path, item: Any) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, other = await db.create_session("s"), await db.create_session("other")
        first = await session.append(user("hello"), idempotency_key="k")
        before = await session.info()
        with pytest.raises(sessiondb.IdentityConflict, match=f"'k' is that of .*{first.entry_id}"):
            await session.append(item, idempotency_key="k")
        with pytest.raises(sessiondb.IdentityConflict):
            await session.append_many([Item(user("new"), key="k2"), Item(item, key="k")])
        assert await session.info() == before, "nothing was changed"
        assert not (await other.append(item, idempotency_key="k")).duplicate


@pytest.mark.anyio
async def test_the_same_entry_in_another_layout_is_a_repetition(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        entry = {"type": "custom", "customType": "t", "data": {"a": 1, "b": [2.0, None]}}
        first = await session.append(entry, idempotency_key="k")
        layouts = [
            '{ "data": {"b": [2.0, null], "a": 1}, "customType": "t", "type": "custom" }',
            {**entry, "id": "mine", "timestamp": "2026-01-01T00:00:00.000Z"},
            {**entry, "parentId": None},
        ]
        for item in layouts:
            again = await session.append(item, idempotency_key="k")
            assert (again.entry_id, again.duplicate) == (first.entry_id, True)


@pytest.mark.anyio
async def test_the_deepest_message_can_be_repeated(tmp_db: Path) -> None:
    deepest = {**user("a"), "content": json.loads("[" * 499 + "]" * 499)}
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        with pytest.raises(sessiondb.InvalidInput, match="nested"):
            await session.append({**deepest, "content": [deepest["content"]]})
        first = await session.append(deepest, idempotency_key="k")
        again = await session.append(deepest, idempotency_key="k")
        assert (again.entry_id, again.duplicate) == (first.entry_id, True)


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["null", "{", "[1]", ""])
async def test_a_repetition_of_a_damaged_entry_says_so(tmp_db: Path, text: str) -> None:
    async with sessiondb.open(tmp_db) as db:
        await (await db.create_session("s")).append(user("a"), idempotency_key="k")
    change(tmp_db, f"UPDATE entry SET payload = '{text}'")
    async with sessiondb.open(tmp_db) as db:
        session = await db.session_by_id("s")
        with pytest.raises(sessiondb.StoreDamaged):
            await session.append(user("a"), idempotency_key="k")


@pytest.mark.anyio
async def test_a_repetition_after_the_end_gets_the_first_receipt(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        first = await session.append(user("a"), idempotency_key="k1")
        await session.append(user("b"), idempotency_key="k2")
        await session.end()
        again = await session.append(user("a"), idempotency_key="k1")
        assert (again.entry_id, again.duplicate) == (first.entry_id, True)
        both = await session.append_many([Item(user("a"), key="k1"), Item(user("b"), key="k2")])
        assert [receipt.duplicate for receipt in both] == [True, True]
        with pytest.raises(sessiondb.SessionEnded):
            await session.append_many([Item(user("a"), key="k1"), Item(user("c"), key="k3")])
        with pytest.raises(sessiondb.IdentityConflict):
            await session.append(user("not a"), idempotency_key="k1")
        with pytest.raises(sessiondb.SessionEnded):
            await session.append(user("a"))


@pytest.mark.anyio
async def test_a_message_can_carry_its_own_key_and_the_argument_wins(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append({**user("a"), "idempotencyKey": "own"})
        assert (await session.append({**user("a"), "idempotencyKey": "own"})).duplicate
        assert not (
            await session.append({**user("c"), "idempotencyKey": "own"}, idempotency_key="argument")
        ).duplicate
        keys = [entry.idempotency_key for entry in await session.entries()]
        assert keys == ["own", "argument"]


@pytest.mark.anyio
async def test_a_retry_of_several_appends_only_what_is_missing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([Item(user(text), key=text) for text in "ab"])
        receipts = await session.append_many([Item(user(text), key=text) for text in "abcc"])
        assert [receipt.duplicate for receipt in receipts] == [True, True, False, True]
        assert texts(await session.context()) == ["a", "b", "c"]
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
@pytest.mark.parametrize("key", ["", "x" * (IDEMPOTENCY_KEY_CHARS_MAX + 1)])
async def test_a_key_has_bounds(tmp_db: Path, key: str) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        with pytest.raises(InvalidInput):
            await session.append(user("x"), idempotency_key=key)
        await session.append(user("x"), idempotency_key="x" * IDEMPOTENCY_KEY_CHARS_MAX)


# -- all or none -----------------------------------------------------------------------


@pytest.mark.anyio
async def test_several_are_appended_all_or_none(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        with pytest.raises(InvalidInput, match="item 1"):
            await session.append_many([user("a"), {"neither": 1}])
        with pytest.raises(NotFound, match="no entry 'nowhere'"):
            await session.append_many([user("a"), {"type": "custom", "parentId": "nowhere"}])
        with pytest.raises(InvalidInput, match="1,001 entries"):
            await session.append_many([user("a")] * (APPEND_ENTRIES_MAX + 1))
        assert (await session.info()).entries == 0
        assert await session.append_many([]) == []
        assert (
            len(await session.append_many([user("a")] * APPEND_ENTRIES_MAX)) == APPEND_ENTRIES_MAX
        )


@pytest.mark.anyio
async def test_an_ended_session_refuses_appends_and_stays_readable(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append(user("a"))
        assert await session.end()
        assert not await session.end()
        for attempt in (
            session.append(user("b")),
            session.branch(None),
            session.reset(),
            session.undo_compaction(),
        ):
            with pytest.raises(SessionEnded):
                await attempt
        assert texts(await session.context()) == ["a"]


# -- branches and parents --------------------------------------------------------------


@pytest.mark.anyio
async def test_a_branch_continues_from_an_earlier_entry(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        a, b, c = await session.append_many([user("a"), user("b"), user("c")])
        assert await session.branch(c.entry_id) == 0, "the head is there already"
        assert await session.branch(a.entry_id) == 1
        assert texts(await session.context()) == ["a"]
        await session.append(user("d"))
        assert texts(await session.context()) == ["a", "d"]
        assert await session.branch(b.entry_id) == 2
        assert texts(await session.context()) == ["a", "b"]
        assert await session.branch(None) == 3
        assert texts(await session.context()) == []
        await session.append(user("e"))
        assert texts(await session.context()) == ["e"]
        assert [texts(await session.context(epoch=epoch)) for epoch in range(4)] == [
            ["a", "b", "c"],
            ["a", "d"],
            ["a", "b"],
            ["e"],
        ]
        with pytest.raises(NotFound):
            await session.branch("nowhere")
        leaf_id = next(
            entry.entry_id for entry in await session.all_entries() if entry.type == "leaf"
        )
        with pytest.raises(NotFound):
            await session.branch(leaf_id)


@pytest.mark.anyio
async def test_an_explicit_parent_moves_the_head(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append({"type": "message", "id": "a", "parentId": None, "message": user("a")})
        await session.append({"type": "message", "id": "b", "parentId": "a", "message": user("b")})
        assert (await session.info()).epoch == 0, "the parent was the head: nothing moved"
        await session.append({"type": "message", "id": "c", "parentId": "a", "message": user("c")})
        assert texts(await session.context()) == ["a", "c"]
        await session.append({"type": "message", "id": "d", "parentId": None, "message": user("d")})
        assert texts(await session.context()) == ["d"]
        assert (await session.info()).epoch == 2
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_side_append_leaves_head_and_context_as_they_were(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        a, _ = await session.append_many([user("a"), reply("b", tokens=50)])
        before = (await session.info(), await session.context())
        kinds = [
            {},
            {"parentId": a.entry_id},
            {"type": "compaction", "summary": "s"},
            {"type": "reset"},
            {"type": "model_change"},
        ]
        for entry in [{**SIDE, **kind} for kind in kinds]:
            await session.append(entry)
        info, context = await session.info(), await session.context()
        assert (info.epoch, info.context_tokens, info.tokens_fresh, info.entries) == (
            0,
            50,
            True,
            before[0].entries + 5,
        )
        assert context == before[1]
        assert len(await whole_path(session)) == 2
        await session.append(user("c"))
        assert texts(await session.context()) == ["a", "b", "c"]
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_repeated_id_means_the_newest(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        for text in ("first", "second", "third"):
            await session.append(
                {"type": "message", "id": "twin" if text != "third" else "c", "message": user(text)}
            )
        await session.branch("twin")
        assert texts(await session.context()) == ["first", "second"]
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_messages_own_key_has_the_same_bounds(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        await session.append({**user("a"), "idempotencyKey": "k" * IDEMPOTENCY_KEY_CHARS_MAX})
        with pytest.raises(InvalidInput, match="has 1 to 512 characters, not 513"):
            await session.append(
                {**user("b"), "idempotencyKey": "k" * (IDEMPOTENCY_KEY_CHARS_MAX + 1)}
            )
        assert (await session.info()).entries == 1


@pytest.mark.anyio
async def test_the_largest_entry_fits_and_a_larger_append_is_refused(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope = draft_entry(user("中" * 1_000), now_ms=0).size - len("中".encode()) * 1_000
    assert 0 < envelope < 1_000, "the size is in bytes"
    assert ENTRY_BYTES_MAX + envelope <= APPEND_BYTES_MAX
    monkeypatch.setattr(entries, "APPEND_BYTES_MAX", 2_000)
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        await session.append(user("x" * 1_500))
        with pytest.raises(InvalidInput, match="bytes in one append; at most 2,000"):
            await session.append_many([user("x" * 1_000), user("x" * 1_000)])
        assert (await session.info()).entries == 1


@pytest.mark.anyio
@pytest.mark.parametrize("parent", ["plain", "été", "日本🙂"])
async def test_a_message_is_found_behind_any_parents_id(tmp_db: Path, parent: str) -> None:
    """Where a message begins in its entry is counted in bytes, and its parent's id is before it."""
    async with sessiondb.open(tmp_db) as db:
        for _ in range(2):
            session = await db.create_session()
            first = {"type": "message", "id": parent, "message": user("one")}
            await session.append_many([first, user("two")])
            await session.append_many([json.dumps(user("three ñ"), ensure_ascii=False)])
            assert texts(await session.context()) == ["one", "two", "three ñ"]
            last = (await session.entries(last=2))[0]
            assert json.loads(last.payload)["parentId"] == parent
