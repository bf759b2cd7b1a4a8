"""Back and forth: in a fork as in the session it came from, and an undo that stays undone."""

from __future__ import annotations

import pytest

import sessiondb
from sessiondb.errors import NotFound
from tests.support.compaction import begin, say, seen, talk

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


async def ids(session: sessiondb.Session) -> list[str]:
    return [entry.entry_id for entry in await session.entries(last=100)]


async def test_a_fork_goes_back_and_forth_like_its_origin(db: sessiondb.SessionDB) -> None:
    origin, other = await talk(db, 2), await talk(db, 2)
    places = await ids(origin)
    fork = await origin.fork()
    again = await fork.fork(entry=places[2])
    for session, last in ((origin, 3), (fork, 3), (again, 2)):
        for at in (1, last, None, last, 0, last):
            await session.branch(places[at] if at is not None else None)
            wanted = ["q0", "a0", "q1", "a1"][: at + 1 if at is not None else 0]
            assert await seen(session) == wanted
        await say(session, "on", "and on")
        own = (await ids(session))[-1]
        await session.branch(places[0])
        await session.branch(own)
        assert (await seen(session))[-2:] == ["on", "and on"]
    with pytest.raises(NotFound):  # what came after the place that it was forked at
        await again.branch(places[3])
    with pytest.raises(NotFound):  # what its origin said since
        await fork.branch((await ids(origin))[-1])
    with pytest.raises(NotFound):
        await fork.branch((await ids(other))[0])
    assert (await db.verify()).findings == ()


async def undone(db: sessiondb.SessionDB) -> tuple[sessiondb.Session, str]:
    """Return a session whose compaction was undone, and its head: an entry that came between."""
    session = await talk(db)
    await db.commit_compaction(await begin(session, 50), "S")
    await say(session, "q4", "a4")
    head = (await ids(session))[-1]
    await session.undo_compaction()
    return session, head


WHOLE = ["q0", "a0", "q1", "a1", "q2", "a2", "q3", "a3", "q4", "a4"]


async def test_an_undo_stays_undone_wherever_the_head_goes(db: sessiondb.SessionDB) -> None:
    session, head = await undone(db)
    twin = await talk(db)
    await db.commit_compaction(await begin(twin, 50), "S")
    assert await seen(session) == WHOLE
    places = await ids(session)
    for place in (places[0], None, places[-2]):
        await session.branch(place)
        await session.branch(head)
        assert await seen(session) == WHOLE
    for fork in (await session.fork(), await session.fork(entry=head)):
        assert await seen(fork) == WHOLE
        await fork.branch(places[0])
        await fork.branch(head)
        assert await seen(fork) == WHOLE
    await say(session, "q5", "a5")
    assert await seen(session) == [*WHOLE, "q5", "a5"]
    assert (await seen(twin))[0] == "<S>", "another session's compaction is in force"
    assert (await db.verify()).findings == ()


async def test_what_is_undone_later_stays_in_a_fork_of_before(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    await db.commit_compaction(await begin(session, 50), "S")
    await say(session, "q4", "a4")
    head, first = (await ids(session))[-1], (await ids(session))[0]
    before = await session.fork()
    epoch = (await session.info()).epoch
    await session.undo_compaction()
    at_epoch, after = await session.fork(epoch=epoch), await session.fork()
    for fork, compacted in ((before, True), (at_epoch, True), (after, False)):
        await fork.branch(first)
        await fork.branch(head)
        assert (await seen(fork))[0] == ("<S>" if compacted else "q0")
        of_fork = await fork.fork(entry=head)
        assert (await seen(of_fork))[0] == ("<S>" if compacted else "q0")
    assert (await db.verify()).findings == ()


async def test_an_undo_behind_an_undo(db: sessiondb.SessionDB) -> None:
    session = await talk(db, 6)
    await db.commit_compaction(await begin(session, 200), "S1")
    await say(session, "q6", "a6")
    between = (await ids(session))[-1]
    await db.commit_compaction(await begin(session, 100), "S2")
    await say(session, "q7", "a7")
    head, first = (await ids(session))[-1], (await ids(session))[0]
    await session.undo_compaction()
    await session.branch(first)
    await session.branch(head)
    assert (await seen(session))[0] == "<S1>"
    await session.undo_compaction()
    for place, last in ((between, "a6"), (head, "a7")):
        await session.branch(first)
        await session.branch(place)
        assert [(await seen(session))[0], (await seen(session))[-1]] == ["q0", last]
