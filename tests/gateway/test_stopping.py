"""A person stops a turn, takes a message back, or changes a conversation under a turn."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import Answer, SessionBusy
from sessiondb.gateway.running_turn import LaneSettings, Turn
from tests.support.core import reply, texts, user
from tests.support.engine import PATIENCE_S
from tests.support.gateway import (
    answer,
    claim,
    claimed,
    complete,
    eventually,
    fail,
    held_message,
    inbox_states,
    interrupt,
    kinds,
    look,
    nothing_open,
    running,
    said,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

# No lease is renewed in the time of a test.
SETTINGS = LaneSettings(lease_s=10_000, timeout_s=100_000)
ONE, TWO = "agent:main:web:1", "agent:main:web:2"


async def is_whole(db: sessiondb.SessionDB) -> bool:
    return (await db.verify()).findings == ()


# -- a turn ----------------------------------------------------------------------------------


class Model:
    """A handler that thinks until it is cancelled, or its texts say otherwise."""

    def __init__(self) -> None:
        self.thinks_of: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, turn: Turn) -> Answer:
        text = turn.message["content"]
        self.thinks_of.append(text)
        if "quick" in text:
            return answer(turn)
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(text)
            raise
        raise AssertionError

    async def thinks(self, *texts: str) -> None:
        await eventually(partial(self._has, "thinks_of", texts))

    async def was_stopped(self, *texts: str) -> None:
        await eventually(partial(self._has, "cancelled", texts))

    async def _has(self, name: str, texts: tuple[str, ...]) -> bool:
        return sorted(getattr(self, name)) == sorted(texts)


@pytest.mark.parametrize("whose", ["this process", "another process"])
async def test_abort_stops_the_turn_of_one_conversation(tmp_db: Path, whose: str) -> None:
    """At once, long before the lease is renewed."""
    model = Model()
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        await say(db, "one", ONE)
        await say(db, "two", TWO)
        await say(db, "quick", ONE)
        with anyio.fail_after(2 * PATIENCE_S):
            async with running(partial(db.run_lane, "main", model, settings=SETTINGS)):
                await model.thinks("one", "two")
                session = await (db if whose == "this process" else other).session(ONE)
                assert await session.abort("its user said stop")
                await model.was_stopped("one")
                await model.thinks("one", "two", "quick")  # the next one of the conversation

                async def answered() -> bool:
                    return (await inbox_states(db))["quick"] == "done"

                await eventually(answered)
                assert not await session.abort("again")
        assert [(turn.state, turn.reason) for turn in await look(db, "turns")] == [
            ("aborted", "its user said stop"),
            ("interrupted", "its gateway is stopping"),
            ("completed", None),
        ]
        assert "turn_aborted" in await kinds(db, "user")
        assert await is_whole(db)


async def test_abort_ends_no_turn_of_a_session_that_is_idle(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", ONE)
        assert not await (await db.session(ONE)).abort("nothing runs yet")
        assert await inbox_states(db) == {"e1": "queued"}
        assert await look(db, "events") == []


def test_abort_of_the_synchronous_face(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        session = db.session(ONE)
        assert not session.abort("nothing runs")
        assert db.withdraw("web", "e1").outcome == "unknown"
        db.accept(ONE, user("hello"), channel="web", event_id="e1")
        db.accept(TWO, user("hello"), channel="web", event_id="e2")
        assert [one.event_id for one in db.inbox(session=session)] == ["e1"]
        assert [one.event_id for one in db.inbox()] == ["e1", "e2"]
        assert [one.event_id for one in db.inbox(limit=1)] == ["e1"]
        assert db.withdraw("web", "e1").outcome == "withdrawn"
        assert [one.event_id for one in db.inbox()] == ["e2"]


# -- a message that waits --------------------------------------------------------------------


async def withdraw(db: sessiondb.SessionDB, event_id: str) -> tuple[str, int | None]:
    found = await db.withdraw("web", event_id)
    return found.outcome, found.turn_no


async def test_a_message_that_waits_is_taken_back_and_the_next_one_runs(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2, 3):
            await say(db, f"e{number}", ONE)
        await say(db, "e4", TWO)
        assert await withdraw(db, "e1") == ("withdrawn", None)
        assert await inbox_states(db) == {
            "e1": "done",
            "e2": "queued",
            "e3": "queued",
            "e4": "queued",
        }
        assert (await claimed(db)).inbox_no == 2, "nothing waits behind it any more"
        assert await withdraw(db, "e3") == ("withdrawn", None)
        assert await said(db, ONE) == ["e2"]
        assert await kinds(db) == ["message_withdrawn"] * 2
        about = [json.loads(event.data)["inbox_no"] for event in await look(db, "events")]
        assert about == [1, 3]
        assert await is_whole(db)


async def test_a_message_is_taken_back_once_and_not_accepted_again(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        first = await say(db, "e1", ONE)
        assert await withdraw(db, "e1") == ("withdrawn", None)
        assert await withdraw(db, "e1") == ("done", None)
        again = await say(db, "e1", ONE)
        assert (again.duplicate, again.state, again.inbox_no) == (True, "done", first.inbox_no)
        assert await kinds(db) == ["message_withdrawn"]


async def test_a_message_that_a_turn_works_on_is_left_to_it(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", ONE)
        started = await claimed(db)
        assert await withdraw(db, "e1") == ("running", started.turn_no)
        await complete(db, started.turn_no, "yes")
        assert await withdraw(db, "e1") == ("done", None)
        assert await db.withdraw("web", "e0") == sessiondb.Withdrawn("unknown", None, None, None)
        assert await db.withdraw("slack", "e1") == sessiondb.Withdrawn("unknown", None, None, None)


async def test_a_message_between_two_attempts_is_taken_back(tmp_db: Path) -> None:
    """Its text is in the transcript, and stays there."""
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", ONE)
        await fail(db, (await claimed(db)).turn_no)
        await held_message(db, "e2", TWO)
        assert await withdraw(db, "e1") == ("withdrawn", None)
        assert await withdraw(db, "e2") == ("withdrawn", None)
        assert await db.resume() == []
        await db.write("hurry", lambda tx: tx.run("look.hurry"))
        assert await claim(db) is None
        assert await said(db, ONE) == ["e1"]
        assert await is_whole(db)


async def test_a_dead_letter_has_ended_and_stays(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", ONE)
        await fail(db, (await claimed(db)).turn_no, retry=False)
        assert await withdraw(db, "e1") == ("done", None)
        assert await inbox_states(db) == {"e1": "dead"}


async def test_an_edit_goes_with_its_message(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", ONE)
        await complete(db, (await claimed(db)).turn_no, "yes")
        await db.edit(ONE, user("better"), channel="web", event_id="e1", version=1)
        await say(db, "e2", ONE)
        assert await withdraw(db, "e1") == ("withdrawn", None)
        assert list((await inbox_states(db)).values()) == ["done", "done", "queued"]
        await db.edit(ONE, user("best"), channel="web", event_id="e1", version=2)
        started = await claimed(db)
        assert started.edit_of is None
        await complete(db, started.turn_no, "yes")
        edited = await claimed(db)
        assert await withdraw(db, "e1") == ("running", edited.turn_no)


async def test_the_inbox_of_one_session_has_its_open_messages_oldest_first(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for event_id, key in (("a", ONE), ("b", TWO), ("c", ONE), ("d", TWO), ("e", ONE)):
            await say(db, event_id, key)
        await complete(db, (await claimed(db)).turn_no, "yes")
        await claimed(db)
        one, two = await db.session(ONE), await db.session(TWO)
        assert [row.event_id async for row in db.inbox(session=one)] == ["c", "e"]
        found = [(row.event_id, row.state) async for row in db.inbox(session=two)]
        assert found == [("b", "claimed"), ("d", "queued")]
        assert [row.event_id async for row in db.inbox(session=one, limit=1)] == ["c"]
        assert [row.event_id async for row in db.inbox()] == ["b", "c", "d", "e"]


async def test_an_open_message_is_decoded_as_it_is_now(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        details = {"chat": 7}
        await db.accept(ONE, user("old"), channel="web", event_id="a", details=details)
        await say(db, "b", TWO)
        await db.edit(ONE, user("new"), channel="web", event_id="a", version=1)
        found = [(row.message, row.details) async for row in db.inbox()]
        assert found == [(user("new"), details), (user("b"), {})]


# -- changes under a turn --------------------------------------------------------------------


async def go_back(session: sessiondb.Session, **options: Any) -> None:
    [first] = await session.entries(limit=1)
    await session.branch(first.entry_id, **options)


async def rewind(session: sessiondb.Session, **options: Any) -> None:
    await session.rewind(before=(await session.entries(last=2))[0], **options)


async def pop(session: sessiondb.Session, **options: Any) -> None:
    await session.pop(2, **options)


async def undo_turn(session: sessiondb.Session, **options: Any) -> None:
    await session.undo_turn(**options)


async def replace_tail(session: sessiondb.Session, **options: Any) -> None:
    [first] = await session.entries(limit=1)
    await session.replace_tail([user("instead")], after=first, **options)


async def begin_anew(session: sessiondb.Session, **options: Any) -> None:
    await session.reset("new", **options)


async def undo(session: sessiondb.Session, **options: Any) -> None:
    await session.undo_compaction(**options)


CHANGES = [go_back, rewind, pop, undo_turn, replace_tail, begin_anew, undo]
Change = Callable[..., Awaitable[None]]


async def compacted(db: sessiondb.SessionDB) -> sessiondb.Session:
    """Return a session that has been compacted."""
    session = await db.session(ONE)
    for number in range(3):
        await session.append(user(f"question {number}"))
        await session.append(reply("long talk " * 400))
    async with session.compact(keep_recent_tokens=1) as job:
        await job.commit("they talked")
    return session


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_from_outside_is_refused_while_a_turn_runs(
    tmp_db: Path, change: Change
) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        session = await compacted(db)
        await say(db, "e1", ONE)
        started = await claimed(db)
        before = texts(await session.context())
        with pytest.raises(SessionBusy, match=f"turn {started.turn_no}, pid ") as busy:
            await change(await other.session(ONE))
        assert busy.value.retry_after_ms > 0
        assert texts(await session.context()) == before
        await complete(db, started.turn_no, "yes")
        await change(await other.session(ONE))  # nothing runs any more
        assert texts(await session.context()) != [*before, "yes"]
        assert await is_whole(db)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_stops_the_turn_if_it_is_to(tmp_db: Path, change: Change) -> None:
    model = Model()
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        session = await compacted(db)
        await say(db, "e1", ONE)
        with anyio.fail_after(2 * PATIENCE_S):
            async with running(partial(db.run_lane, "main", model, settings=SETTINGS)):
                await model.thinks("e1")
                await change(await other.session(ONE), abort_running=True)
                await model.was_stopped("e1")
        assert [turn.state for turn in await look(db, "turns")] == ["aborted"]
        assert "turn_aborted" in await kinds(db, "user")
        await say(db, "e2", ONE)
        await complete(db, (await claimed(db)).turn_no, "an answer to e2")
        assert texts(await session.context())[-2:] == ["e2", "an answer to e2"]
        assert await is_whole(db)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_that_is_refused_stops_no_turn(tmp_db: Path, change: Change) -> None:
    """One transaction: there is nothing to go back to, so nothing happens."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(ONE)
        await say(db, "e1", ONE)
        await claimed(db)
        await session.end()
        with pytest.raises(sessiondb.SessionDBError):
            await change(session, abort_running=True)
        assert [turn.state for turn in await look(db, "turns")] == ["running"]
        assert await kinds(db) == []


@pytest.mark.parametrize("change", CHANGES)
async def test_a_handler_changes_its_own_session(tmp_db: Path, change: Change) -> None:
    async with sessiondb.open(tmp_db) as db:
        await compacted(db)
        await say(db, "e1", ONE)

        async def handler(turn: Turn) -> Answer:
            await change(turn.session)
            return Answer(entries=[reply("done")])

        with anyio.fail_after(2 * PATIENCE_S):
            async with running(partial(db.run_lane, "main", handler, settings=SETTINGS)):
                await eventually(partial(nothing_open, db))
        assert [turn.state for turn in await look(db, "turns")] == ["completed"]


async def test_a_handler_whose_turn_was_taken_over_is_outside(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        handles: list[sessiondb.Session] = []

        async def handler(turn: Turn) -> Answer:
            handles.append(turn.session)
            return answer(turn)

        await say(db, "e1", ONE)
        with anyio.fail_after(2 * PATIENCE_S):
            async with running(partial(db.run_lane, "main", handler, settings=SETTINGS)):
                await eventually(partial(nothing_open, db))
        await say(db, "e2", ONE)
        started = await claimed(db)
        with pytest.raises(SessionBusy):
            await handles[0].reset()
        await interrupt(db, started.turn_no)
        await handles[0].reset()
