"""Leases: renewed until the deadline, and the turn taken over once when they are over."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

import sessiondb
from sessiondb.gateway import leases
from tests.support.gateway import (
    KEY,
    Clock,
    claim,
    claimed,
    complete,
    inbox_states,
    look,
    say,
)

pytestmark = pytest.mark.anyio
OTHER = "agent:main:web:2"


async def test_any_lane_takes_over_a_turn_of_a_lane_that_nobody_runs(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("cron", concurrency=2, priority=10)
        for key in (KEY, OTHER):
            await say(db, f"nightly {key}", key, lane="cron")
            await claimed(db, "cron", lease_ms=1_000)
            await say(db, f"person {key}", key)
        assert await claim(db) is None
        clock.pass_ms(1_000)
        assert await db.write("take", lambda tx: leases.take_over_expired(tx)) == 2
        assert [(await claimed(db)).inbox_no for _ in range(2)] == [2, 4]


async def test_a_lease_is_renewed_at_most_until_the_deadline(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db, lease_ms=10_000, timeout_ms=25_000)
        begun_ms = clock()
        assert (turn.expires_at_ms - begun_ms, turn.timeout_ms) == (10_000, 25_000)
        until = []
        for _ in range(5):
            clock.pass_ms(8_000)
            renewed = await db.write(
                "renew",
                lambda tx: leases.renew(tx, turn.turn_no, lease_ms=10_000, operation="still at it"),
            )
            until.append(renewed - begun_ms)
        assert until == [18_000, 26_000, 27_000, 27_000, 27_000], (
            "the timeout, and a moment to write how it ended"
        )
        [holding] = await db.held()
        assert (holding.operation, holding.until_ms, holding.alive) == (
            "still at it",
            begun_ms + 27_000,
            True,
        )
        assert await db.write("take", lambda tx: leases.take_over_expired(tx)) == 1, (
            "renewing does not keep it for ever"
        )


async def test_an_expired_lease_that_nobody_took_is_still_renewable(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db, lease_ms=1_000)
        clock.pass_ms(1_500)
        await complete(db, turn.turn_no, "in time after all")
        assert await db.write("take", lambda tx: leases.take_over_expired(tx)) == 0
        assert await inbox_states(db) == {"e1": "done"}


async def test_racing_take_overs_and_completions_leave_one_end(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(10):
            await say(db, f"e{number}", f"agent:main:web:{number}")
        await db.set_lane("main", concurrency=10, priority=0)
        started = [await claimed(db, lease_ms=1_000) for _ in range(10)]
        clock.pass_ms(1_000)
        outcomes: list[str] = []

        async def finish(turn_no: int) -> None:
            try:
                await complete(db, turn_no, "answer", replies=[("web", "answer")])
            except sessiondb.TurnLost:
                outcomes.append("lost")
            else:
                outcomes.append("completed")

        async with anyio.create_task_group() as group:
            for turn in started[:5]:
                group.start_soon(finish, turn.turn_no)
            group.start_soon(db.write, "take", lambda tx: leases.take_over_expired(tx))
            for turn in started[5:]:
                group.start_soon(finish, turn.turn_no)
        rows = await look(db, "turns")
        assert sorted(row.state for row in rows) == sorted(
            {"lost": "interrupted", "completed": "completed"}[one] for one in outcomes
        )
        assert len(await look(db, "outbox")) == outcomes.count("completed")
        assert (await db.verify()).ok
