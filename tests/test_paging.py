"""A page is bounded in rows and in bytes, and the next one begins right behind it."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sessiondb
from sessiondb import events, paging, sync
from sessiondb.backend import load_statements
from sessiondb.gateway import dead_letters, inbox
from sessiondb.limits import MIB, PAGE_BYTES
from sessiondb.models import Entry, Event
from sessiondb.paging import Page
from sessiondb.transcript.paths import entry_number
from tests import ROOT
from tests.support.gateway import read_as
from tools import typed_rows

KEY = "agent:main:web:direct:1"
OTHER = "agent:main:web:direct:2"
# The first two fill a page together, the fourth does alone.
SIZES = [1_500_000, 2_800_000, 10, 4_500_000, 10, 10, 2_000_000]


def user(size: int) -> dict[str, Any]:
    return {"role": "user", "content": "x" * size}


def sizes_of(pages: list[list[Any]], text: Callable[[Any], str]) -> list[list[int]]:
    """Return the sizes of the texts of each page, and check that none is larger than allowed."""
    found = [[len(text(row)) for row in page] for page in pages]
    for sizes in found:
        assert sum(sizes[:-1]) < PAGE_BYTES, "the page had been full before its last row"
    assert any(len(sizes) > 1 for sizes in found)
    assert any(len(sizes) < 200 for sizes in found[:-1]), "no page was ended by its bytes"
    return found


# -- the rule --------------------------------------------------------------------------------------

rows_of_sizes = st.lists(
    st.sampled_from([0, 10, 500, 999, 1_000, 1_001, 5_000]).map(lambda size: (b"x" * size,)),
    max_size=30,
)


@given(rows=rows_of_sizes, limit=st.integers(1, 8))
def test_pages_in_a_row_are_the_whole_list(rows: list[tuple[bytes]], limit: int) -> None:
    taken: list[tuple[bytes]] = []
    more = True
    while more:
        rest = rows[len(taken) :]
        page, more = paging.fill(iter(rest[:limit]), limit, 1_000)
        taken += page
        assert len(page) <= limit
        assert page or not rest, "a page has one row at least"
        assert sum(map(paging.memory_of, page[:-1])) < 1_000
        assert more or len(taken) == len(rows), "the end was said too early"
    assert taken == rows


@given(
    spans=st.lists(rows_of_sizes, max_size=6), limit=st.integers(1, 8), room=st.integers(1, 3_000)
)
def test_a_page_of_several_spans_has_one_budget(
    spans: list[list[tuple[bytes]]], limit: int, room: int
) -> None:
    def read(span: list[tuple[bytes]], rows: int, bytes_max: int) -> Page[tuple[bytes]]:
        assert min(rows, bytes_max) > 0, "a full page asks for more"
        return paging.fill(iter(span[:rows]), rows, bytes_max)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "PAGE_BYTES", room)
        page, more = paging.fill_from(spans, read, limit)
    together = [row for span in spans for row in span]
    assert page == together[: len(page)]
    assert more or page == together
    assert len(page) <= limit
    assert sum(map(paging.memory_of, page[:-1])) < room


# -- what a session holds --------------------------------------------------------------------------

Reader = Callable[[Any, Entry | None], Any]
READERS: dict[str, Reader] = {
    "entries": lambda session, last: session.entries(after=last, limit=200),
    "newest first": lambda session, last: session.entries(
        before=last, limit=200, newest_first=True
    ),
    "all entries": lambda session, last: session.all_entries(
        after=entry_number(session.ref.session_no, 0) if last is None else last, limit=200
    ),
}


async def written(db: sessiondb.SessionDB) -> sessiondb.Session:
    """Return a session with entries of many sizes beside another one's."""
    session, other = await db.session(KEY), await db.session(OTHER)
    for size in SIZES:
        await session.append(user(size))
        await other.append(user(1_000))
    return session


async def pages_of(read: Reader, session: Any) -> list[list[Entry]]:
    pages: list[list[Entry]] = []
    while page := await read(session, pages[-1][-1] if pages else None):
        pages.append(page)
    return pages


@pytest.mark.anyio
async def test_pages_of_entries_end_in_bytes_and_lose_nothing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await written(db)
        all_of_them = [row.entry_no for row in await entries_one_by_one(session)]
        assert len(all_of_them) == len(SIZES)
        for name, read in READERS.items():
            pages = await pages_of(read, session)
            sizes_of(pages, lambda entry: entry.payload)
            found = [entry.entry_no for page in pages for entry in page]
            assert found == (all_of_them[::-1] if name == "newest first" else all_of_them), name


async def entries_one_by_one(session: sessiondb.Session) -> list[Entry]:
    found: list[Entry] = []
    [last] = await session.all_entries(limit=1)  # the header
    while page := await session.all_entries(after=last, limit=1):
        found += page
        [last] = page
    return found


@pytest.mark.anyio
async def test_a_path_of_many_branches_has_pages_of_one_budget(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await db.session(KEY)
        kept = []
        for size in SIZES:
            receipt = await session.append(user(size))
            kept.append(receipt.entry_no)
            await session.append(user(5))
            await session.branch(receipt.entry_id)
        pages = await pages_of(READERS["entries"], session)
        backward = await pages_of(READERS["newest first"], session)
    for found in (pages, backward):
        sizes_of(found, lambda entry: entry.payload)
    assert [entry.entry_no for page in pages for entry in page] == kept
    assert [entry.entry_no for page in backward for entry in page] == kept[::-1]


@pytest.mark.anyio
async def test_a_tail_is_the_newest_that_fit(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await written(db)
        tail = await session.entries(last=1_000)
        small = await session.entries(last=2)
    [seqs] = [[entry.seq for entry in tail]]
    assert seqs == list(range(seqs[0], len(SIZES) + 1)), "the newest, oldest first"
    assert 2 <= len(tail) < len(SIZES)
    assert [entry.seq for entry in small] == [len(SIZES) - 1, len(SIZES)]


def test_pages_of_the_synchronous_calls_are_the_same(tmp_db: Path) -> None:
    with sync.open(tmp_db, durability="normal") as db:
        session = db.session(KEY)
        for size in SIZES:
            session.append(user(size))
        for name, read in READERS.items():
            pages: list[list[Entry]] = []
            while page := read(session, pages[-1][-1] if pages else None):
                pages.append(page)
            sizes_of(pages, lambda entry: entry.payload)
            seqs = [entry.seq for page in pages for entry in page]
            assert sorted(seqs) == list(range(1, len(SIZES) + 1)), name


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """Return the most memory, in bytes, that was in use since the last call."""
    tracemalloc.start()

    def since() -> int:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        return most

    yield since
    tracemalloc.stop()


@pytest.mark.anyio
async def test_a_page_of_large_entries_takes_the_memory_of_a_page(
    tmp_db: Path, peak: Callable[[], int]
) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await db.session(KEY)
        for _ in range(12):
            await session.append(user(MIB))
        before = tracemalloc.get_traced_memory()[0]
        for name, read in READERS.items():
            last: Entry | None = None
            for _ in range(2):
                peak()
                page = await read(session, last)
                used = peak() - before
                assert used < PAGE_BYTES + 2 * MIB + MIB // 2, f"{name}: {used:,} bytes"
                last = page[-1]
                del page
            # The entry that bounds the next page.
            assert last is not None
            assert last.seq not in (1, 12)
            del last


# -- lists over the database -----------------------------------------------------------------------


async def pages_read(
    db: sessiondb.SessionDB,
    patch: pytest.MonkeyPatch,
    listing: Callable[[sessiondb.SessionDB], AsyncIterator[Any]],
) -> list[list[Any]]:
    """Return what a list yields, by the reads that it came from."""
    pages: list[list[Any]] = []
    read = sessiondb.SessionDB.read

    async def noted(self: sessiondb.SessionDB, op: str, fn: Callable[[Any], Any]) -> Any:
        pages.append([])
        return await read(self, op, fn)

    with patch.context() as patched:
        patched.setattr(sessiondb.SessionDB, "read", noted)
        async for item in listing(db):
            pages[-1].append(item)
    return [page for page in pages if page]


async def emit(db: sessiondb.SessionDB, size: int, key: str = KEY) -> int:
    session = await db.session(key)
    return await db.write(
        "emit",
        lambda tx: events.emit(tx, "note", "user", "x" * size, session_no=session.ref.session_no),
    )


async def some_events(db: sessiondb.SessionDB) -> list[int]:
    numbers = []
    for size in SIZES:
        numbers.append(await emit(db, size))
        await db.write("emit", lambda tx: events.emit(tx, "other", "operator", "y"))
    return numbers


async def followed(db: sessiondb.SessionDB, count: int) -> list[int]:
    """Return the numbers of the first events that a reader of users' events is given."""
    found: list[int] = []
    async with aclosing(db.events("reader", audience="user", from_start=True)) as given:
        async for event in given:
            found.append(event.event_no)
            if len(found) == count:
                break
    return found


@pytest.mark.anyio
async def test_pages_of_events_end_in_bytes_and_lose_nothing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        numbers = await some_events(db)
        pages: list[list[Event]] = []
        seen, more = 0, True
        while more:
            page, more = await db.read(
                "events", lambda tx, at=seen: events.after(tx, event_no=at, audience="user")
            )
            pages.append(page)
            seen = page[-1].event_no if page else seen
        sizes_of(pages, lambda event: event.text)
        assert [event.event_no for page in pages for event in page] == numbers

        assert await followed(db, len(numbers)) == numbers

        newest = await (await db.session(KEY)).events(limit=200)
        assert [event.event_no for event in newest] == numbers[-len(newest) :]
        assert 2 <= len(newest) < len(numbers)


@pytest.mark.anyio
async def test_a_follower_moves_past_events_behind_a_full_page(tmp_db: Path) -> None:
    """What follows a page that its bytes ended is not taken for another audience's."""
    async with sessiondb.open(tmp_db, durability="normal") as db:
        first = await emit(db, PAGE_BYTES)
        second = await emit(db, 10)
        assert await followed(db, 2) == [first, second]


Fill = Callable[[sessiondb.SessionDB], Awaitable[list[int]]]


async def some_replies(db: sessiondb.SessionDB) -> list[int]:
    session = await db.session(KEY)
    number = await emit(db, 1)
    event = Event(number, "note", "user", session.id, 0, "x", "{}")
    for place, size in enumerate(SIZES):
        await read_as(db, f"reader {place}")
        assert await db.forward_event(
            event, consumer=f"reader {place}", target="web:1", message={"text": "x" * size}
        )
    return list(range(1, len(SIZES) + 1))


async def some_dead_letters(db: sessiondb.SessionDB) -> list[int]:
    numbers = []
    for place, size in enumerate(SIZES):
        accepted = await db.accept(KEY, user(size), channel="web", event_id=str(place))
        numbers.append(accepted.inbox_no)
        await db.write(
            "refuse",
            lambda tx, number=accepted.inbox_no: dead_letters.refuse(tx, number, None, "refused"),
        )
    return numbers[::-1]


async def some_compactions(db: sessiondb.SessionDB) -> list[int]:
    session = await db.session(KEY)
    for _ in range(3):
        await session.append(user(400))
        await session.append({"role": "assistant", "content": [{"type": "text", "text": "y"}]})
    for size in SIZES:
        async with session.compact(keep_recent_tokens=0) as job:
            await db.fail_compaction(job.id, "x" * size)
    return list(range(len(SIZES), 0, -1))


LISTS: dict[str, tuple[Fill, Callable[[Any], Any], Callable[[Any], str], Callable[[Any], int]]] = {
    "replies": (
        some_replies,
        lambda db: db.replies("pending"),
        lambda reply: reply.payload,
        lambda reply: reply.outbox_no,
    ),
    "dead letters": (
        some_dead_letters,
        lambda db: db.dead_letters(),
        lambda letter: letter.payload,
        lambda letter: letter.inbox_no,
    ),
    "compactions": (
        some_compactions,
        lambda db: db.compactions(),
        lambda job: job.reason,
        lambda job: 0,
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", LISTS)
async def test_pages_of_a_list_end_in_bytes_and_lose_nothing(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fill, read, text, number = LISTS[name]
    async with sessiondb.open(tmp_db, durability="normal") as db:
        expected = await fill(db)
        pages = await pages_read(db, monkeypatch, read)
    sizes = [size for page in sizes_of(pages, text) for size in page]
    wanted = SIZES if name == "replies" else SIZES[::-1]
    assert [size // 100 for size in sizes] == pytest.approx([size // 100 for size in wanted], abs=1)
    if name != "compactions":
        assert [number(row) for page in pages for row in page] == expected


@pytest.mark.anyio
@pytest.mark.parametrize("wanted", [1, 2, 5, len(SIZES) - 1, len(SIZES), 50])
async def test_a_list_ends_at_its_limit_whatever_ended_its_pages(tmp_db: Path, wanted: int) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        numbers = await some_dead_letters(db)
        found = [letter.inbox_no async for letter in db.dead_letters(limit=wanted)]
    assert found == numbers[:wanted]


@pytest.mark.anyio
async def test_a_list_holds_no_more_than_a_page(tmp_db: Path, peak: Callable[[], int]) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        for place in range(12):
            accepted = await db.accept(KEY, user(MIB), channel="web", event_id=str(place))
            await db.write(
                "refuse",
                lambda tx, no=accepted.inbox_no: dead_letters.refuse(tx, no, None, "refused"),
            )
        before = tracemalloc.get_traced_memory()[0]
        peak()
        count = 0
        async for letter in db.dead_letters():
            count += 1
            del letter
        used = peak() - before
    assert count == 12
    assert used < PAGE_BYTES + 2 * MIB + MIB // 2, f"{used:,} bytes"


@pytest.mark.anyio
async def test_open_messages_are_listed_in_pages(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        for place in range(5):
            await db.accept(KEY, user(10), channel="web", event_id=str(place))
        page = partial(inbox.open_messages, session_no=None)
        first, after_no = await db.read("open", partial(page, after_no=None, limit=3))
        rest, end = await db.read("open", partial(page, after_no=after_no, limit=3))
    assert (len(first), after_no, len(rest), end) == (3, first[-1].inbox_no, 2, None)


# -- everybody -------------------------------------------------------------------------------------

TEXTS = {"payload", "text", "data", "content", "details", "summary"}


def test_every_page_of_texts_is_read_by_the_rule() -> None:
    """A statement with a limit, whose rows have texts of any size, is not read whole."""
    connection = typed_rows.new_database()
    stored = typed_rows.stored_types(connection)
    statements = load_statements("sessiondb.sqlite.queries")
    paged = {
        name
        for name, statement in statements.items()
        if ":limit" in statement.sql
        and TEXTS
        & {one.name for one in typed_rows.signature(connection, stored, statement).columns}
    }
    connection.close()
    assert {"transcript.span_forward", "events.after", "outbox.list", "inbox.dead"} <= paged
    whole = re.compile(r"\.(?:all|tuples)\(\s*\"(?P<name>[a-z_.]+)\"")
    read_whole = {
        (path.name, match["name"])
        for path in (ROOT / "sessiondb").rglob("*.py")
        for match in whole.finditer(path.read_text("utf-8"))
        if match["name"] in paged
    }
    assert read_whole == {("search.py", "search.matches")}, "its texts are snippets of 32 words"
