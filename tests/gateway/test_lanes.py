"""Lanes: settings that any process may change, checked before they are stored."""

from __future__ import annotations

from pathlib import Path

import pytest

import sessiondb
from sessiondb.gateway import lanes
from sessiondb.limits import LANE_CHARS_MAX
from tests.support.gateway import (
    claimed,
    say,
)

pytestmark = pytest.mark.anyio
OTHER = "agent:main:web:2"


@pytest.mark.parametrize(
    ("lane", "concurrency", "priority"),
    [
        ("", 1, 0),
        ("x" * (LANE_CHARS_MAX + 1), 1, 0),
        ("slow", 0, 0),
        ("slow", 1.5, 0),
        ("slow", "2", 0),
        ("slow", 1, "first"),
        ("slow", 1, None),
    ],
)
def test_a_lane_without_sound_settings_is_refused(
    lane: str, concurrency: object, priority: object
) -> None:
    with pytest.raises(sessiondb.InvalidInput, match="a lane needs a name of 1 to"):
        lanes.check_lane(lane, concurrency, priority)


@pytest.mark.parametrize("lane", ["x", "x" * LANE_CHARS_MAX])
@pytest.mark.parametrize("priority", [-1, 0, 9])
def test_a_lane_needs_no_more_than_a_name_and_two_numbers(lane: str, priority: int) -> None:
    lanes.check_lane(lane, 1, priority)


async def test_a_lane_changes_and_its_running_turns_go_on(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for lane in ("fast", "slow"):
            await db.set_lane(lane, concurrency=2, priority=5)
            for number in range(2):
                await say(db, f"{lane} {number}", f"agent:main:{lane}:{number}", lane=lane)
                await claimed(db, lane)
        await db.set_lane("slow", concurrency=1, priority=7)

        async def settings(lane: str) -> tuple[int, int]:
            row = await db.read("lane", lambda tx: lanes.require_lane(tx, lane))
            return row.concurrency, row.running

        assert [await settings(lane) for lane in ("fast", "slow")] == [(2, 2), (1, 2)]


async def test_a_lane_that_nobody_made_is_named_with_what_makes_it(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(sessiondb.NotFound, match=r"no lane 'fast'; make it with db\.set_lane"):
            await db.read("lane", lambda tx: lanes.require_lane(tx, "fast"))
