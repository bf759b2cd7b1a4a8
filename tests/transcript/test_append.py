"""Appending to a transcript and reading it back: keys, branches, side appends, parents, pages, limits."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb import Entry, InvalidInput, NotFound, SessionEnded
from sessiondb.limits import (
    APPEND_BYTES_MAX,
    APPEND_ENTRIES_MAX,
    ENTRY_BYTES_MAX,
    IDEMPOTENCY_KEY_CHARS_MAX,
    PAGE_ENTRIES_MAX,
)
from sessiondb.messages import UserMessage
from sessiondb.transcript import entries
from sessiondb.transcript import session as session_module
from sessiondb.transcript.entries import draft_entry
from tests.support.core import ids_of, load_lines, reply, texts, user

SIDE = {"type": "custom", "customType": "note", "data": {}, "appendMode": "side"}

# -- the readers of the two programs, over exported lines ------------------------------


def walk(lines: Sequence[dict[str, Any]], head_id: str | None) -> list[str]:
    """Follow parents from a head to its root, and return the ids, root first."""
    by_id = {line["id"]: line for line in lines if line["type"] != "session"}
    path: list[str] = []
    while head_id is not None:
        path.append(head_id)
        head_id = by_id[head_id]["parentId"]
    return [entry_id for entry_id in reversed(path) if by_id[entry_id]["type"] != "leaf"]


def pi_path(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return the path as pi finds it: from the last line. A leaf record is an entry like any other, that shows nothing."""
    last = lines[-1]
    return walk(lines, None if last["type"] == "session" else last["id"])


def openclaw_path(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return the path as OpenClaw finds it: a leaf record names the head, and a side append does not move it."""
    head_id: str | None = None
    for line in lines:
        if line["type"] == "leaf":
            head_id = line["targetId"]
        elif line["type"] != "session" and line.get("appendMode") != "side":
            head_id = line["id"]
    return walk(lines, head_id)


async def all_lines(session: sessiondb.Session) -> list[dict[str, Any]]:
    """Return everything a session holds, decoded."""
    found: list[dict[str, Any]] = []
    while page := await session.arrivals(after_seq=len(found) - 1, limit=PAGE_ENTRIES_MAX):
        found += [json.loads(entry.payload) for entry in page]
    return found


async def whole_path(session: sessiondb.Session) -> list[Entry]:
    """Return the current path in one page."""
    return await session.entries(limit=PAGE_ENTRIES_MAX)


async def check_pages(session: sessiondb.Session, sizes: Sequence[int]) -> None:
    """Read the path with every page size, from both ends; positions are dense."""
    path = await whole_path(session)
    assert [entry.position for entry in path] == list(range(1, len(path) + 1))
    for size in sizes:
        forward: list[Entry] = []
        while page := await session.entries(after=forward[-1] if forward else None, limit=size):
            assert len(page) <= size
            assert page[0] not in forward, "each page goes on where the last one ended"
            forward += page
        backward: list[Entry] = []
        while page := await session.entries(
            before=backward[-1] if backward else None, limit=size, newest_first=True
        ):
            assert page[0] not in backward
            backward += page
        assert forward == path
        assert backward == path[::-1]


# -- idempotency -----------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_same_key_again_returns_the_first_receipt_and_changes_nothing(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, other = await db.create_session("s"), await db.create_session("other")
        first = await session.append(user("hello"), idempotency_key="k")
        await session.append(reply("hi"))
        before = await session.info()
        again = await session.append(user("something else"), idempotency_key="k")
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


@pytest.mark.anyio
async def test_a_message_can_carry_its_own_key_and_the_argument_wins(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append({**user("a"), "idempotencyKey": "own"})
        assert (await session.append({**user("b"), "idempotencyKey": "own"})).duplicate
        assert not (
            await session.append({**user("c"), "idempotencyKey": "own"}, idempotency_key="argument")
        ).duplicate
        assert [entry.idempotency_key for entry in await session.tail()] == ["own", "argument"]


@pytest.mark.anyio
async def test_a_retry_of_several_appends_only_what_is_missing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([user("a"), user("b")], idempotency_keys=["a", "b"])
        receipts = await session.append_many(
            [user("a"), user("b"), user("c"), user("c")], idempotency_keys=["a", "b", "c", "c"]
        )
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
        with pytest.raises(InvalidInput, match="2 entries but 1 idempotency keys"):
            await session.append_many([user("a"), user("b")], idempotency_keys=["k"])
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
        leaf_id = next(entry.entry_id for entry in await session.arrivals() if entry.type == "leaf")
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
async def test_a_side_append_is_stored_and_leaves_everything_else_as_it_was(tmp_db: Path) -> None:
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
async def test_an_imported_entry_without_its_parent_starts_a_root_and_leaves_a_note(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, notes = await load_lines(
            db,
            "s",
            [
                '{"type":"session","version":3,"id":"s","timestamp":"t","cwd":"/"}',
                '{"type":"message","id":"a","parentId":"lost","message":{"role":"user","content":"a"}}',
                '{"type":"leaf","id":"l","parentId":"a","targetId":"lost too"}',
                '{"type":"message","id":"b","parentId":"l","message":{"role":"user","content":"b"}}',
            ],
        )
        assert texts(await session.context()) == ["b"]
        assert [note.split(":")[0] for note in notes] == ["entry a", "leaf l"]
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("first", "second", "context", "ignored"),
    [
        ('"a"', "l1", ["a", "c"], []),
        ('"a"', "b", ["a", "b", "c"], []),
        ('"a"', "s", ["a", "c"], ["leaf l2"]),
        ("null", "l1", ["c"], ["leaf l2"]),
        ('"lost"', "l1", ["a", "b", "c"], ["leaf l1", "leaf l2"]),
        ('"s"', "l1", ["a", "b", "c"], ["leaf l1", "leaf l2"]),
    ],
)
async def test_a_leaf_record_never_makes_a_control_record_the_head_and_only_a_null_empties_a_context(
    tmp_db: Path, first: str, second: str, context: list[str], ignored: list[str]
) -> None:
    """One that names another leaf means what that one names; one that names no entry (a header is none), or such a record, nothing."""
    async with sessiondb.open(tmp_db) as db:
        session, notes = await load_lines(
            db,
            "s",
            [
                '{"type":"session","version":3,"id":"s","timestamp":"t","cwd":"/"}',
                '{"type":"message","id":"a","parentId":null,"message":{"role":"user","content":"a"}}',
                '{"type":"message","id":"b","parentId":"a","message":{"role":"user","content":"b"}}',
                f'{{"type":"leaf","id":"l1","parentId":"b","targetId":{first}}}',
                f'{{"type":"leaf","id":"l2","parentId":"b","targetId":"{second}"}}',
            ],
        )
        assert [note.split(":")[0] for note in notes] == ignored
        await session.append(user("c"))
        assert texts(await session.context()) == context
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_version_1_file_is_a_line(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, _ = await load_lines(
            db,
            "s",
            [
                '{"type":"session"}',
                *(
                    f'{{"type":"message","message":{{"role":"user","content":"{n}"}}}}'
                    for n in range(3)
                ),
            ],
        )
        assert texts(await session.context()) == ["0", "1", "2"]
        path = await whole_path(session)
        assert [entry.parent_no for entry in path] == [None, path[0].entry_no, path[1].entry_no]


# -- any history -----------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "branch", "parent", "root", "side", "fork"]),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=25,
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=30)
@given(steps=steps)
def test_every_reader_finds_the_same_path_and_every_page_size_reads_it(
    tmp_path_factory: pytest.TempPathFactory, backend: str, steps: list[tuple[str, int]]
) -> None:
    async def main() -> None:
        async with sessiondb.open(
            tmp_path_factory.mktemp("transcript") / "gateway.db", durability="normal"
        ) as db:
            session = await db.create_session("s0")
            inherited: list[
                dict[str, Any]
            ] = []  # lines of the sessions that this one was forked from
            for number, (kind, choice) in enumerate(steps):
                path = await whole_path(session)
                chosen = path[choice % len(path)].entry_id if path else None
                match kind:
                    case "append":
                        await session.append(user(f"{number}"))
                    case "branch":
                        await session.branch(chosen)
                    case "root":
                        await session.branch(None)
                    case "parent":
                        await session.append(
                            {"type": "message", "parentId": chosen, "message": user(f"{number}")}
                        )
                    case "side":
                        await session.append({**SIDE, "parentId": chosen})
                    case "fork":
                        inherited += (await all_lines(session))[1:]
                        session = await session.fork(session_id=f"s{number + 1}", entry_id=chosen)
                        # What an export writes to say where the fork begins.
                        inherited.append(
                            {
                                "type": "leaf",
                                "id": f"fork{number}",
                                "parentId": chosen,
                                "targetId": chosen,
                            }
                        )
            lines = inherited + (await all_lines(session))[1:]
            path = ids_of(await whole_path(session))
            assert path == (openclaw_path(lines) if lines else [])
            if lines and not any(
                line.get("appendMode") == "side" for line in lines
            ):  # which pi does not know
                assert path == pi_path(lines)
            await check_pages(session, [1, 2, 3, 7, 100])
            assert (await db.verify()).findings == ()

    anyio.run(main, backend=backend)


# -- pages -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_pages_across_branches_and_forks_have_no_seams(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        for generation in range(4):
            receipts = await session.append_many([user(f"{generation}.{n}") for n in range(5)])
            await session.append(SIDE)
            await session.branch(receipts[2].entry_id)
            session = await session.fork(session_id=f"fork{generation}")
        await session.append_many([user("own"), user("own")])
        assert len(await whole_path(session)) == 14
        await check_pages(session, range(1, 16))


@pytest.mark.anyio
async def test_a_page_lies_strictly_between_its_bounds(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        a, b, _ = await session.append_many([user("a"), user("b"), user("c")])
        await session.branch(b.entry_id)
        [d] = await session.append_many([user("d")])
        assert ids_of(await session.entries(after=a, before=d)) == [b.entry_id]
        assert ids_of(
            await session.entries(after=a.entry_no, before=d.entry_no, newest_first=True)
        ) == [b.entry_id]
        assert await session.entries(after=d, before=a) == []
        assert await session.entries(after=b, before=b) == []
        assert await session.entries(after=d) == []
        assert await session.entries(before=a) == []
        assert await session.entries(limit=0) == []
        assert ids_of(await session.tail(2)) == [b.entry_id, d.entry_id]


@pytest.mark.anyio
async def test_a_bound_off_the_path_is_refused(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        a, b = await session.append_many([user("a"), user("b")])
        await session.branch(a.entry_id)
        for bound in ({"after": b}, {"before": b}, {"after": 12345}):
            with pytest.raises(NotFound, match="not on the current path"):
                await session.entries(**bound)
        with pytest.raises(InvalidInput):
            await session.entries(after=2**70)


@pytest.mark.anyio
async def test_a_page_is_bounded_and_never_negative(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([user("x")] * 1000)
        await session.append_many([user("x")] * 5)
        assert len(await session.entries(limit=5_000)) == PAGE_ENTRIES_MAX
        assert len(await session.arrivals(limit=5_000)) == PAGE_ENTRIES_MAX
        for attempt in (session.entries(limit=-1), session.tail(-1), session.arrivals(limit=-1)):
            with pytest.raises(InvalidInput, match="-1 entries"):
                await attempt


@pytest.mark.anyio
async def test_arrivals_show_everything_in_the_order_it_came(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, neighbour = await db.create_session("s"), await db.create_session("t")
        a = await session.append(user("a"))
        await neighbour.append(user("not mine"))
        await session.append(SIDE)
        await session.branch(None)
        await session.append(user("b"))
        entries = await session.arrivals()
        assert [entry.seq for entry in entries] == [0, 1, 2, 3, 4]
        assert [entry.type for entry in entries] == [
            "session",
            "message",
            "custom",
            "leaf",
            "message",
        ]
        assert await session.arrivals(after_seq=a.seq, limit=2) == entries[2:4]
        assert await session.arrivals(after_seq=4) == []


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
async def test_a_messages_own_idempotency_key_is_as_long_as_one_that_is_given(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        await session.append({**user("a"), "idempotencyKey": "k" * IDEMPOTENCY_KEY_CHARS_MAX})
        with pytest.raises(InvalidInput, match="has 1 to 512 characters, not 513"):
            await session.append(
                {**user("b"), "idempotencyKey": "k" * (IDEMPOTENCY_KEY_CHARS_MAX + 1)}
            )
        assert (await session.info()).entries == 1


@pytest.mark.anyio
async def test_an_append_of_too_many_bytes_is_refused_and_the_largest_entry_fits(
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
async def test_a_large_typed_message_is_encoded_and_a_page_is_made_off_the_event_loop(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"encode": set(), "page": set()}
    encode, page = entries.message_json, session_module._entries

    def noted(what: str, call: Any) -> Any:
        def run(*args: Any) -> Any:
            threads[what].add(threading.get_ident())
            return call(*args)

        return run

    monkeypatch.setattr(entries, "message_json", noted("encode", encode))
    monkeypatch.setattr(session_module, "_entries", noted("page", page))
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        await session.append(UserMessage(content="x" * 100_000))
        await session.append_many([UserMessage(content="x")] * 30)
        assert len(await session.entries()) == len(await session.arrivals(after_seq=0)) == 31
    for found in threads.values():
        assert found
        assert threading.get_ident() not in found
