"""A provider's count of tokens is good for the context that its reply was asked with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import sessiondb
from tests.support.core import reply, user
from tests.support.gateway import eventually, nothing_open, running

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

KEY = "agent:main:web:1"
LONG = "x" * 4_000  # a message of 1,000 tokens
CLAIMED = 81_000


def counted(tokens: int) -> dict[str, Any]:
    """Return a reply of 10 tokens with the provider's count."""
    return reply("a" * 40, tokens=tokens)


async def talk(db: sessiondb.SessionDB, key: str = KEY) -> sessiondb.Session:
    session = await db.session(key)
    for number in range(20):
        await session.append_many([user(LONG), counted(2_000 * (number + 1))])
    await session.append(user("and now?"))
    return session


async def compacts(session: sessiondb.Session) -> None:
    async with session.compact(trigger="threshold", keep_recent_tokens=3_000) as job:
        await job.commit("S" * 40)


async def resets(session: sessiondb.Session) -> None:
    await session.reset()


async def branches(session: sessiondb.Session) -> None:
    await session.branch((await session.entries(limit=2))[1].entry_id)


async def undoes(session: sessiondb.Session) -> None:
    await session.undo_compaction()


Move = Callable[[sessiondb.Session], Awaitable[None]]


async def size(session: sessiondb.Session) -> tuple[int, bool]:
    info = await session.info()
    return info.context_tokens, info.tokens_fresh


@pytest.mark.parametrize("then", [[], [user("meanwhile")]], ids=["at once", "after a message"])
@pytest.mark.parametrize("move", [compacts, resets, branches, undoes])
async def test_a_reply_that_was_asked_for_before_does_not_count(
    db: sessiondb.SessionDB, move: Move, then: list[dict[str, Any]]
) -> None:
    """The model is at work while the context changes, and people write."""
    session, other = await talk(db), await talk(db, "agent:main:web:2")
    if move is undoes:
        await compacts(await db.session(KEY))
    await session.context()
    await move(await db.session(KEY))
    await (await db.session(KEY)).append_many(then)
    before, fresh = await size(session)
    await session.append(counted(CLAIMED))
    assert await size(session) == (before + 10, fresh)
    assert (await session.entries(last=1))[0].usage_tokens is None
    # The next one is asked with the present context, and counts.
    await session.context()
    await session.append(counted(777))
    assert await size(session) == (777, True)
    assert await size(other) == (40_002, True), "another session stays"


async def test_a_turn_knows_what_it_asked_with(db: sessiondb.SessionDB) -> None:
    """Nothing is called but what the README's gateway calls."""
    session = await talk(db)
    sizes = []

    async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
        asked = await turn.session.context()
        if len(sizes) == 0:  # beside the turn, and faster than it
            await compacts(await db.session(KEY))
        await turn.append(counted(asked.tokens))
        await turn.append(user("a person writes in between"))
        sizes.append(await size(session))
        return sessiondb.Answer(entries=[counted(asked.tokens + 1)])

    for number in range(2):
        await db.accept(KEY, user("a question"), channel="web", event_id=str(number))
        async with running(lambda: db.run_lane("main", handler)):
            await eventually(lambda: nothing_open(db))
        sizes.append(await size(session))
    assert [fresh for _, fresh in sizes] == [False, False, True, True]
    assert all(3_000 < tokens < 4_000 for tokens, _ in sizes), "the compacted context"


@pytest.mark.parametrize("known", [False, True], ids=["nobody says", "the handle read it"])
async def test_a_reply_right_after_the_boundary_was_asked_for_before(
    db: sessiondb.SessionDB, known: bool
) -> None:
    """Nobody says with which context it was asked, unless the handle read the new one."""
    session = await talk(db)
    await compacts(session)
    if known:
        await session.context()
    await session.append(counted(CLAIMED))
    assert (await size(session) == (CLAIMED, True)) == known


async def test_below_a_counted_reply_the_count_is_the_providers(db: sessiondb.SessionDB) -> None:
    session = await db.create_session()
    ids = []
    for number in range(3):
        ids.append((await session.append(user("q" * 40))).entry_id)
        ids.append((await session.append(counted(500 * (number + 1)))).entry_id)
    failed = {**reply("no"), "stopReason": "error"}
    ids.append((await session.append(failed)).entry_id)
    for at, tokens, fresh in (
        (0, 10, False),
        (1, 500, True),
        (2, 510, True),
        (3, 1_000, True),
        (6, 1_501, True),
    ):
        fork = await session.fork(entry=ids[at])
        assert await size(fork) == (tokens, fresh)
        await session.branch(ids[at])
        assert await size(session) == (tokens, fresh)
    await session.append(user("q" * 40))
    assert await size(session) == (1_511, True)
    assert (await db.verify()).findings == ()


async def test_an_undo_goes_back_to_the_count_before(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    before = await size(session)
    await compacts(session)
    await session.append(user("q" * 40))
    await session.append(counted(300))
    assert await size(session) == (300, True)
    at = (await session.entries(last=1))[0].entry_id
    await session.undo_compaction()
    assert await size(session) == (before[0] + 20, True)
    assert await size(await session.fork()) == (before[0] + 20, True)
    assert (await session.entries(last=1))[0].entry_id == at
    assert (await db.verify()).findings == ()
