"""A message that was given up does not wedge its conversation: a compaction may cover it.

The largest message of each conversation here is too long for any model. Its turns ended without
an answer, one way or another, and people go on writing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.errors import NothingToCompact
from sessiondb.gateway import turns
from tests.support.compaction import seen
from tests.support.core import result
from tests.support.gateway import claimed, complete, fail, interrupt, say

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

ONE, OTHER = "agent:main:web:1", "agent:main:web:2"
GIANT = "giant ".ljust(8_000, "g")
KEEP = 500


@pytest.fixture
async def db(tmp_db: Path) -> AsyncIterator[sessiondb.SessionDB]:
    async with sessiondb.open(tmp_db) as opened:
        yield opened


async def is_dead(db: sessiondb.SessionDB, turn_no: int) -> None:
    await fail(db, turn_no, "the prompt is too long", retry=False)


async def is_aborted(db: sessiondb.SessionDB, turn_no: int) -> None:
    await db.write("abort", lambda tx: turns.abort(tx, turn_no, "a person said stop"))


async def is_incomplete(db: sessiondb.SessionDB, turn_no: int) -> None:
    await complete(db, turn_no, incomplete="nothing usable came back")


async def is_retried(db: sessiondb.SessionDB, turn_no: int) -> None:
    await fail(db, turn_no, "the model is busy")


async def is_interrupted(db: sessiondb.SessionDB, turn_no: int) -> None:
    await interrupt(db, turn_no)


async def is_at_work(db: sessiondb.SessionDB, turn_no: int) -> None:
    """Leave the turn running."""


GIVEN_UP = [is_dead, is_aborted, is_incomplete]
OPEN = [is_retried, is_interrupted, is_at_work]
End = Callable[[sessiondb.SessionDB, int], Awaitable[None]]


async def conversation(
    db: sessiondb.SessionDB, key: str, end: End, *left_behind: dict[str, Any]
) -> sessiondb.Session:
    """Say something that is answered, then the giant, and end its turn."""
    await say(db, f"{key} small", key, text="small")
    await complete(db, (await claimed(db)).turn_no, "answered")
    await say(db, f"{key} giant", key, text=GIANT)
    turn = await claimed(db)
    session = await db.session(key)
    await session.append_many(list(left_behind))
    await end(db, turn.turn_no)
    return session


def short(texts: list[str]) -> list[str]:
    return [text[:5] for text in texts]


@pytest.mark.parametrize("trigger", ["threshold", "manual"])
@pytest.mark.parametrize("end", GIVEN_UP)
async def test_it_is_summarised(db: sessiondb.SessionDB, end: End, trigger: str) -> None:
    sessions = [await conversation(db, key, end) for key in (ONE, OTHER)]
    for key in (ONE, OTHER):  # a person writes again, and that one waits
        await say(db, f"{key} again", key, text="again")
        await claimed(db)
    for session in sessions:
        async with session.compact(trigger=trigger, keep_recent_tokens=KEEP) as job:
            result = await job.commit("S")
        assert result.outcome == "committed"
        assert short(await seen(session)) == ["<S>", "again"]
        assert (await session.info()).context_tokens < 100


async def test_it_is_summarised_where_the_context_begins_with_it(db: sessiondb.SessionDB) -> None:
    """It was kept while its turn was at work, and nothing is left before it."""
    session = await conversation(db, ONE, is_at_work)
    other = await conversation(db, OTHER, is_at_work)
    for kept in (session, other):
        async with kept.compact(trigger="threshold", keep_recent_tokens=KEEP) as job:
            await job.commit("S1")
        assert short(await seen(kept)) == ["<S1>", "giant"]
    await is_dead(db, 2)
    await say(db, "again", ONE, text="again")
    await claimed(db)
    async with session.compact(trigger="threshold", keep_recent_tokens=KEEP) as job:
        await job.commit("S2")
    assert short(await seen(session)) == ["<S2>", "again"]
    with pytest.raises(NothingToCompact):  # its turn is still at work
        async with other.compact(trigger="threshold", keep_recent_tokens=KEEP):
            pass


@pytest.mark.parametrize("end", OPEN)
async def test_one_that_may_still_be_answered_stays(db: sessiondb.SessionDB, end: End) -> None:
    sessions = [await conversation(db, ONE, end), await conversation(db, OTHER, is_dead)]
    async with sessions[0].compact(trigger="threshold", keep_recent_tokens=KEEP) as job:
        await job.commit("S")
    assert short(await seen(sessions[0])) == ["<S>", "giant"]
    with pytest.raises(NothingToCompact):
        async with sessions[0].compact(trigger="threshold", keep_recent_tokens=KEEP):
            pass


@pytest.mark.parametrize("end", GIVEN_UP)
async def test_what_its_turn_left_behind_waits_for_nothing(
    db: sessiondb.SessionDB, end: End
) -> None:
    """A call that died with its turn, a giant result of a tool, a reply that failed."""
    call = {
        "role": "assistant",
        "content": [{"type": "toolCall", "id": "c", "name": "read", "arguments": {}}],
    }
    failed = {"role": "assistant", "content": [], "stopReason": "error"}
    for key, left_behind in (
        (ONE, [call]),
        (OTHER, [call, result("c", "r" * 8_000), failed]),
    ):
        session = await conversation(db, key, end, *left_behind)
        await say(db, f"{key} again", key, text="again")
        await claimed(db)
        async with session.compact(trigger="threshold", keep_recent_tokens=1) as job:
            await job.commit("S")
        assert short(await seen(session)) == ["<S>", "again"]


async def test_several_in_a_row_do_not_either(db: sessiondb.SessionDB) -> None:
    session = await conversation(db, ONE, is_dead)
    other = await conversation(db, OTHER, is_dead)
    for number, end in enumerate((*GIVEN_UP, is_dead)):
        await say(db, f"more {number}", ONE, text=f"more {number}")
        await end(db, (await claimed(db)).turn_no)
    async with session.compact(trigger="threshold", keep_recent_tokens=KEEP) as job:
        await job.commit("S")
    # Nothing waits, so nothing must stay, however small the rest is.
    assert short(await seen(session)) == ["<S>"]
    assert short(await seen(other)) == ["small", "answe", "giant"], "another conversation stays"


async def test_a_compaction_by_hand_that_shortens_nothing_says_so(db: sessiondb.SessionDB) -> None:
    await say(db, "waits", ONE, text=GIANT)
    await claimed(db)
    session = await db.session(ONE)
    async with session.compact() as job:
        assert job.keeps_all
        result = await job.commit("S")
    assert result.tokens_after is not None
    assert result.tokens_after >= result.tokens_before
    texts = [event.text for event in await session.events()]
    assert "The conversation has been compacted." not in texts
    assert "no shorter" in texts[-1]
