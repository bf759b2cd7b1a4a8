"""Turns and replies by their numbers: a worker in no process of ours, and what it may lose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.errors import InvalidInput, NotFound, TurnLost
from sessiondb.gateway.running_turn import Answer, LaneSettings
from sessiondb.testing import ManualClock
from tests.support.core import reply
from tests.support.gateway import look, say

pytestmark = pytest.mark.anyio


async def test_a_claim_is_ended_by_its_number_alone(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        for event_id in ("e1", "e2"):
            await say(db, event_id)
        assert await db.claim_turn("resume") is None
        turn = await db.claim_turn("main")
        assert turn is not None
        assert await other.claim_turn("main") is None, "one turn of a session runs at once"
        until_ms = await other.renew_turn(turn.turn_no, lease_s=10_000, operation="thinking")
        assert until_ms == turn.deadline_ms > turn.expires_at_ms
        assert [each.operation for each in await db.held()] == ["thinking"]
        await other.note_turn(turn.turn_no, {"shown": 1})
        item = sessiondb.Item(reply("one moment"), key="step")
        first = await other.append_to_turn(turn.turn_no, item)
        assert (await db.append_to_turn(turn.turn_no, item)).entry_id == first.entry_id
        done = Answer(entries=[reply("done")], replies=[("web:1", "a"), ("web:1", "b")])
        await other.complete_turn(turn.turn_no, done)
        for call in _writes(db, turn.turn_no):
            with pytest.raises(TurnLost) as lost:
                await call()
            assert lost.value.state == "completed"
        second = await other.claim_turn("main")
        assert second is not None
        assert second.turn_no > turn.turn_no
        await db.release_turn(second.turn_no, "its worker stops")
        assert [row.state for row in await look(db, "inbox")] == ["done", "interrupted"]
        assert [one.payload for one in [each async for each in db.replies("pending")]] == [
            '"a"',
            '"b"',
        ]


def _writes(db: sessiondb.SessionDB, turn_no: int) -> list[Callable[[], Awaitable[Any]]]:
    return [
        lambda: db.renew_turn(turn_no),
        lambda: db.append_to_turn(turn_no, reply("late")),
        lambda: db.note_turn(turn_no, 1),
        lambda: db.complete_turn(turn_no, Answer()),
        lambda: db.fail_turn(turn_no, "late"),
        lambda: db.release_turn(turn_no, "late"),
    ]


async def test_what_cannot_be_is_refused_and_the_turn_goes_on(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        with pytest.raises(NotFound):
            await db.claim_turn("nobody's")
        for call in _writes(db, 99):
            with pytest.raises(NotFound):
                await call()
        turn = await db.claim_turn("main")
        assert turn is not None
        with pytest.raises(InvalidInput):
            await db.renew_turn(turn.turn_no, lease_s=0)
        with pytest.raises(InvalidInput):
            await db.complete_turn(turn.turn_no, Answer(entries=[{"no": "role"}]))
        await db.complete_turn(turn.turn_no, Answer())
        assert [row.state for row in await look(db, "inbox")] == ["done"]


async def test_a_failed_turn_is_tried_again_or_given_up(tmp_db: Path) -> None:
    clock = ManualClock()
    async with sessiondb.open(tmp_db, clock=clock) as db:
        await say(db, "e1")
        turn = await db.claim_turn("main")
        assert turn is not None
        await db.fail_turn(turn.turn_no, "no luck")
        assert await db.claim_turn("main") is None, "its pause is not over"
        clock.move(60)
        again = await db.claim_turn("main")
        assert again is not None
        assert again.attempt == 2
        await db.fail_turn(again.turn_no, "no luck", retry=False)
        assert [row.state for row in await look(db, "inbox")] == ["dead"]


async def test_a_silent_workers_lease_ends_its_turn(tmp_db: Path) -> None:
    clock = ManualClock()
    async with sessiondb.open(tmp_db, clock=clock) as db:
        await say(db, "e1")
        turn = await db.claim_turn("main", settings=LaneSettings(lease_s=10, timeout_s=60))
        assert turn is not None
        clock.move(9)
        await db.renew_turn(turn.turn_no, lease_s=10)
        clock.move(9)
        assert (await db.release_expired()).turns == 0
        clock.move(2)
        assert (await db.release_expired()).turns == 1
        with pytest.raises(TurnLost):
            await db.complete_turn(turn.turn_no, Answer())


async def test_an_attempt_at_a_reply_is_settled_once_by_any_process(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        for event_id, channel in (("e1", "web"), ("e2", "mail")):
            await say(db, event_id)
            turn = await db.claim_turn("main")
            assert turn is not None
            await db.complete_turn(turn.turn_no, Answer(replies=[(f"{channel}:1", channel)]))
        one = await db.claim_reply(full=["mail"])
        assert one is not None
        assert one.target == "web:1"
        assert await db.claim_reply(full=["mail"]) is None
        assert await other.reply_refused(one.outbox_no, one.attempts, "later", retry_after_s=3600)
        assert not await other.reply_sent(one.outbox_no, one.attempts), "that attempt has ended"
        two = await other.claim_reply()
        assert two is not None
        assert two.target == "mail:1", "its channel waits"
        assert await db.reply_sent(two.outbox_no, two.attempts, receipt="m1")
        assert not await db.reply_sent(two.outbox_no, two.attempts, receipt="m1")
        for attempt in (0, two.attempts + 1):
            with pytest.raises(NotFound):
                await db.reply_sent(two.outbox_no, attempt)
        with pytest.raises(NotFound):
            await db.reply_sent(99, 1)
        with pytest.raises(InvalidInput):
            await db.reply_refused(one.outbox_no, 1, "x", retry_after_s=-1.0)
        assert [each.target async for each in db.replies("sent")] == ["mail:1"]
        assert [each.target async for each in db.replies("pending")] == ["web:1"]
