"""The path from head to root: as pi's and OpenClaw's readers find it, in pages of any size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb import Entry, InvalidInput, NotFound
from sessiondb.limits import (
    PAGE_ENTRIES_MAX,
)
from tests.support.core import ids_of, user, whole_path

pytestmark = pytest.mark.one_loop

SIDE = {"type": "custom", "customType": "note", "data": {}, "appendMode": "side"}


def walk(lines: Sequence[dict[str, Any]], head_id: str | None) -> list[str]:
    """Follow parents from a head to its root, and return the ids, root first."""
    by_id = {line["id"]: line for line in lines if line["type"] != "session"}
    path: list[str] = []
    while head_id is not None:
        path.append(head_id)
        head_id = by_id[head_id]["parentId"]
    return [entry_id for entry_id in reversed(path) if by_id[entry_id]["type"] != "leaf"]


def pi_path(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return the path as pi finds it: from the last line. A leaf record is an empty entry."""
    last = lines[-1]
    return walk(lines, None if last["type"] == "session" else last["id"])


def openclaw_path(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return the path as OpenClaw finds it: a leaf record moves the head, a side append never."""
    head_id: str | None = None
    for line in lines:
        if line["type"] == "leaf":
            head_id = line["targetId"]
        elif line["type"] != "session" and line.get("appendMode") != "side":
            head_id = line["id"]
    return walk(lines, head_id)


async def all_lines(session: sessiondb.Session) -> list[dict[str, Any]]:
    """Return everything a session holds, decoded."""
    found: list[Entry] = []
    while page := await session.all_entries(
        after=found[-1] if found else None, limit=PAGE_ENTRIES_MAX
    ):
        found += page
    return [json.loads(entry.payload) for entry in found]


async def check_pages(session: sessiondb.Session, sizes: Sequence[int]) -> None:
    """Read the path with every page size, from both ends. Positions are dense."""
    path = await whole_path(session)
    assert [entry.position for entry in path] == list(range(1, len(path) + 1))
    for size in sizes:
        forward: list[Entry] = []
        while page := await session.entries(after=forward[-1] if forward else None, limit=size):
            assert len(page) <= size
            assert page[0] not in forward, "each page continues where the last one ended"
            forward += page
        backward: list[Entry] = []
        while page := await session.entries(
            before=backward[-1] if backward else None, limit=size, newest_first=True
        ):
            assert page[0] not in backward
            backward += page
        assert forward == path
        assert backward == path[::-1]


steps = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "branch", "parent", "root", "side", "fork"]),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=30)
@given(steps=steps)
def test_every_reader_and_page_size_finds_the_same_path(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
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
                        session = await session.fork(session_id=f"s{number + 1}", entry=chosen)
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

    anyio.run(main)


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
        assert ids_of(await session.entries(before=d)) == [a.entry_id, b.entry_id]
        assert ids_of(await session.entries(before=d, limit=1)) == [b.entry_id], "just before it"
        assert ids_of(await session.entries(after=a, limit=1)) == [b.entry_id], "just behind it"
        assert await session.entries(limit=0) == []
        assert ids_of(await session.entries(last=2)) == [b.entry_id, d.entry_id]
        assert ids_of(await session.entries(last=2, before=d)) == [a.entry_id, b.entry_id]
        for misused in ({"after": a}, {"newest_first": True}):
            with pytest.raises(InvalidInput, match="takes `before` only"):
                await session.entries(last=2, **misused)


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
        assert len(await session.entries(limit=PAGE_ENTRIES_MAX)) == PAGE_ENTRIES_MAX
        assert len(await session.all_entries(limit=PAGE_ENTRIES_MAX)) == PAGE_ENTRIES_MAX
        for number in (-1, PAGE_ENTRIES_MAX + 1):
            for attempt in (
                session.entries(limit=number),
                session.entries(last=number),
                session.entries(limit=number, types="message"),
                session.all_entries(limit=number),
                session.context(last=number),
            ):
                with pytest.raises(InvalidInput, match=f"cannot hold {number} entries"):
                    await attempt


@pytest.mark.anyio
async def test_all_entries_are_shown_in_the_order_it_came(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, neighbour = await db.create_session("s"), await db.create_session("t")
        a = await session.append(user("a"))
        strange = await neighbour.append(user("not mine"))
        await session.append(SIDE)
        await session.branch(None)
        await session.append(user("b"))
        entries = await session.all_entries()
        assert [entry.seq for entry in entries] == [0, 1, 2, 3, 4]
        assert [entry.type for entry in entries] == [
            "session",
            "message",
            "custom",
            "leaf",
            "message",
        ]
        for bound in (a, entries[1], a.entry_no):
            assert await session.all_entries(after=bound, limit=2) == entries[2:4]
        assert await session.all_entries(after=entries[-1]) == []
        for of_another in (strange, strange.entry_no, 2**60, -1):
            with pytest.raises(NotFound, match="is of another session"):
                await session.all_entries(after=of_another)
