"""A message's text is in one place: in the inbox until it is appended, and then in its entry."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

import sessiondb
from tests.support.core import query, user
from tests.support.gateway import KEY, claimed, complete, fail, interrupt, say

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

OTHER = "agent:main:web:2"
SIZE = 400_000
COPIES_MAX = 2.2  # the inbox writes it once, the transcript once. The rest are headers of pages


def size_of(path: Path) -> int:
    return path.stat().st_size


def wal_bytes(path: Path) -> int:
    return size_of(path.with_name(path.name + "-wal"))


async def course(db: sessiondb.SessionDB, path: Path, name: str, size: int) -> int:
    """Let a message wait, fail, be interrupted, resumed, requeued and answered.

    Return the bytes that all of it wrote.
    """
    await say(db, f"before {name}")
    before = wal_bytes(path)
    await db.accept(KEY, user(name + "x" * size), channel="web", event_id=name)
    await complete(db, (await claimed(db)).turn_no, "the one before")
    await interrupt(db, (await claimed(db)).turn_no)
    await db.resume()
    turn = await claimed(db, "resume")
    await fail(db, turn.turn_no, retry=False)
    [letter] = [one async for one in db.dead_letters()]
    assert letter.message["content"] == name + "x" * size
    await db.requeue(turn.inbox_no)
    await complete(db, (await claimed(db)).turn_no, "re")
    return wal_bytes(path) - before


async def heard(db: sessiondb.SessionDB, path: Path, name: str, size: int) -> int:
    """Let a message that is not for the agent be heard, and appended. Return the bytes."""
    before = wal_bytes(path)
    message = user(name + "x" * size)
    await db.accept(OTHER, message, channel="web", event_id=name, answer=False)
    await say(db, f"behind {name}", OTHER)
    await complete(db, (await claimed(db)).turn_no, "re")
    return wal_bytes(path) - before


@pytest.mark.parametrize("way", [course, heard])
async def test_a_message_is_written_once_by_the_inbox_and_once_by_the_transcript(
    way, tmp_db: Path
) -> None:
    """Whatever becomes of it. What a small message costs as well is no matter of its size."""
    async with sessiondb.open(tmp_db) as db:
        # A reader that stays keeps the WAL from being reset: its size is what was written.
        with closing(apsw.Connection(str(tmp_db), flags=apsw.SQLITE_OPEN_READONLY)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM inbox").fetchall()
            await way(db, tmp_db, "first", 1)
            small = await way(db, tmp_db, "small", 1)
            large = await way(db, tmp_db, "large", SIZE)
            reader.execute("COMMIT")
        assert (await db.verify()).findings == ()
    assert SIZE < large - small < COPIES_MAX * SIZE


async def test_a_file_holds_each_text_once(tmp_db: Path) -> None:
    """The place of a text in the inbox is that of the next one."""
    async with sessiondb.open(tmp_db) as db:
        empty = size_of(tmp_db)
        for number in range(8):
            await db.accept(KEY, user("x" * SIZE), channel="web", event_id=str(number))
            await complete(db, (await claimed(db)).turn_no, "re")
    assert 8 * SIZE < size_of(tmp_db) - empty < 9.2 * SIZE
    assert query(tmp_db, "SELECT count(*) FROM inbox WHERE payload IS NOT NULL") == [0]


async def test_each_reader_finds_the_text_where_it_is(tmp_db: Path) -> None:
    """Before the claim and after it, of a plain text and of one that is not ASCII."""
    async with sessiondb.open(tmp_db) as db:
        for key, text in ((KEY, "plain"), (OTHER, "grüße 🎈")):
            await db.accept(key, user(text), channel="web", event_id=text)
        begins = "SELECT begins_with FROM {} ORDER BY inbox_no"
        queued = query(tmp_db, begins.format("inbox_open"))
        assert ["plain" in text for text in queued] == [True, False]
        assert "🎈" in queued[1]
        turns = [await claimed(db), await claimed(db)]
        for view in ("inbox_open", "message_log"):
            assert query(tmp_db, begins.format(view)) == queued
        for turn in turns:
            await fail(db, turn.turn_no, retry=False)
        said = [one.message["content"] async for one in db.dead_letters()]
        assert said == ["grüße 🎈", "plain"]
        assert [one.payload async for one in db.dead_letters()] == queued[::-1]
