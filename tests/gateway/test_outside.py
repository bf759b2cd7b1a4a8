"""Turns and replies by their numbers: a worker in no process of ours, and what it may lose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb.backend import Tx
from sessiondb.errors import InvalidInput, NotFound, TurnLost
from sessiondb.gateway import claims, outbox
from sessiondb.gateway.running_turn import Answer, LaneSettings
from sessiondb.testing import ManualClock
from sessiondb.transcript.entries import prepare
from tests.support.core import reply, user
from tests.support.gateway import KEY, look, say

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


async def test_a_claim_is_repeated_by_its_id_while_its_turn_runs(tmp_db: Path) -> None:
    clock = ManualClock()
    settings = LaneSettings(lease_s=10, timeout_s=60)
    async with (
        sessiondb.open(tmp_db, clock=clock) as db,
        sessiondb.open(tmp_db, clock=clock) as other,
    ):
        for event_id, key in (("e1", "agent:main:chat:1"), ("e2", "agent:main:chat:2")):
            await db.accept(
                key, user(event_id), channel="web", event_id=event_id, details={"of": event_id}
            )
        first = await db.claim_turn("main", settings=settings, claim_id="a")
        assert first is not None
        clock.move(9)
        again = await other.claim_turn("main", settings=settings, claim_id="a")
        assert again is not None
        assert again.expires_at_ms == first.expires_at_ms + 9_000, "its lease is renewed"
        for name in (
            *("turn_no", "message", "key", "attempt", "kind", "inbox_no", "channel", "event_id"),
            *("details", "previous", "accepted_at_ms", "deadline_ms"),
        ):
            assert getattr(again, name) == getattr(first, name), name
        assert (again.session.id, again.session.turn_no) == (first.session.id, first.turn_no)
        assert await db.claim_turn("resume", claim_id="a") is None, "an id belongs to its lane"
        second = await db.claim_turn("main", settings=settings, claim_id="b")
        assert second is not None
        assert second.event_id == "e2"
        await other.complete_turn(first.turn_no, Answer())
        assert await other.claim_turn("main", claim_id="a") is None, "it has ended, and none waits"
        clock.move(12)
        assert await db.claim_turn("main", settings=settings, claim_id="b") is not None, (
            "a lease that ran out, and that nobody has taken, is still its holder's"
        )
        clock.move(12)
        assert (await other.release_expired()).turns == 1
        assert await db.claim_turn("main", settings=settings, claim_id="b") is None
        assert [row.state for row in await look(db, "inbox")] == ["done", "interrupted"]


async def test_the_claim_of_a_resume_is_repeated_too(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.accept(KEY, user("e1"), channel="web", event_id="e1", details={"of": "e1"})
        first = await db.claim_turn("main", claim_id="a")
        assert first is not None
        await db.note_turn(first.turn_no, {"shown": 1})
        await db.release_turn(first.turn_no, "its worker stops")
        await db.resume()
        resumed = await db.claim_turn("resume", claim_id="a")
        assert resumed is not None
        again = await db.claim_turn("resume", claim_id="a")
        assert again is not None
        for turn in (resumed, again):
            assert (turn.kind, turn.attempt, turn.lane) == ("resume", 2, "main")
            assert (turn.previous, turn.details) == ({"shown": 1}, {"of": "e1"})
        assert again.turn_no == resumed.turn_no


async def test_two_equal_claims_at_once_take_one_message(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        for event_id, key in (("e1", "agent:main:chat:1"), ("e2", "agent:main:chat:2")):
            await say(db, event_id, key=key)
        found: list[int | None] = []

        async def claim(one: sessiondb.SessionDB) -> None:
            turn = await one.claim_turn("main", claim_id="a")
            found.append(turn and turn.turn_no)

        async with anyio.create_task_group() as group:
            for one in (db, other, db, other):
                group.start_soon(claim, one)
        assert len(set(found)) == 1
        assert [row.state for row in await look(db, "inbox")] == ["claimed", "queued"]


async def test_a_reply_is_claimed_again_by_the_id_of_its_claim(tmp_db: Path) -> None:
    clock = ManualClock()
    async with (
        sessiondb.open(tmp_db, clock=clock) as db,
        sessiondb.open(tmp_db, clock=clock) as other,
    ):
        for event_id, channel in (("e1", "web"), ("e2", "mail")):
            await db.accept(
                KEY, user("hi"), channel="web", event_id=event_id, details={"of": event_id}
            )
            turn = await db.claim_turn("main")
            assert turn is not None
            await db.complete_turn(turn.turn_no, Answer(replies=[(f"{channel}:1", channel)]))
        first = await db.claim_reply(lease_s=10, claim_id="a")
        second = await other.claim_reply(lease_s=10, claim_id="b")
        assert first is not None
        assert second is not None
        assert (first.target, second.target) == ("web:1", "mail:1")
        clock.move(9)
        again = await other.claim_reply(lease_s=10, claim_id="a")
        assert again is not None
        assert (again.outbox_no, again.attempts) == (first.outbox_no, first.attempts) == (1, 1)
        assert (again.message, again.details) == ("web", {"of": "e1"})
        clock.move(9)
        assert (await db.release_expired()).replies == 1, "the other one's lease was not renewed"
        assert [one.target async for one in db.replies("unknown")] == ["mail:1"]
        assert await db.claim_reply(claim_id="b") is None, "nobody knows whether that was sent"
        assert await db.reply_sent(again.outbox_no, again.attempts)
        assert await other.claim_reply(claim_id="a") is None


@pytest.mark.parametrize("claim_id", ["", "x" * 256])
async def test_an_id_of_a_claim_is_bounded(tmp_db: Path, claim_id: str) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        with pytest.raises(InvalidInput, match="1 to 255"):
            await db.claim_turn("main", claim_id=claim_id)
        with pytest.raises(InvalidInput, match="1 to 255"):
            await db.claim_reply(claim_id=claim_id)
        assert await db.claim_turn("main", claim_id="x" * 255) is not None


async def test_a_time_that_is_too_long_in_milliseconds_is_a_century(tmp_db: Path) -> None:
    """As a request of `sessiondb serve` may say: JSON has such numbers."""
    huge = 1e308
    century_ms = 100 * 365 * 86_400_000
    settings = LaneSettings(lease_s=huge, timeout_s=huge, delayed_after_s=huge)
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await db.claim_turn("main", settings=settings)
        assert turn is not None
        assert turn.expires_at_ms >= century_ms
        assert turn.deadline_ms >= await db.renew_turn(turn.turn_no, lease_s=huge) >= century_ms
        await db.complete_turn(turn.turn_no, Answer(replies=[("web:1", "a")]))
        one = await db.claim_reply(lease_s=huge)
        assert one is not None
        assert await db.reply_refused(one.outbox_no, one.attempts, "later", retry_after_s=huge)
        policy = sessiondb.ResumePolicy(deadline_s=huge, breaker_window_s=huge)
        assert await db.resume(policy) == []
        async with (await db.session(KEY)).compact(keep_recent_tokens=0, timeout_s=huge) as job:
            await job.commit("a summary")


async def test_under_the_write_lock_one_id_takes_once(tmp_db: Path) -> None:
    """Two equal claims may both have looked before either took anything."""
    async with sessiondb.open(tmp_db) as db:
        for event_id, key in (("e1", "agent:main:chat:1"), ("e2", "agent:main:chat:2")):
            await say(db, event_id, key=key)
        first = await db.claim_turn("main", claim_id="a")
        assert first is not None
        await say(db, "e3", key="agent:main:chat:3")
        candidate = await db.read("peek", lambda tx: claims.peek(tx, "main", db.clock.now_ms()))
        assert candidate is not None
        draft = await prepare(candidate.payload, now_ms=db.clock.stamp_ms())

        def claim(tx: Tx, claim_id: str) -> bool:
            times = {"lease_ms": 9_000, "timeout_ms": 9_000}
            return bool(claims.claim(tx, "main", candidate, draft, claim_id=claim_id, **times))

        assert not await db.write("claim", partial(claim, claim_id="a"))
        assert await db.write("claim", partial(claim, claim_id="b"))
        answer = Answer(replies=[("web:1", "a"), ("mail:1", "b")])
        await db.complete_turn(first.turn_no, answer)
        begin = partial(outbox.begin_sending, lease_ms=9_000)
        taken = [await db.write("begin", partial(begin, claim_id=one)) for one in ("a", "a", "b")]
        assert [one and one.target for one in taken] == ["web:1", None, "mail:1"]
