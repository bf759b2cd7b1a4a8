"""Lanes: settings that any process may change, checked before they are stored."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.gateway import lanes
from sessiondb.limits import LANE_CHARS_MAX
from tests.support.core import query, user
from tests.support.engine import PATIENCE_S, other_process
from tests.support.gateway import (
    KEY,
    claim,
    claimed,
    complete,
    eventually,
    fail,
    held_message,
    inbox_states,
    interrupt,
    look,
    running,
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


# -- paused, dropped, and given other settings ------------------------------------------------


async def changes(db: sessiondb.SessionDB) -> list[str]:
    """Return what happened to lanes."""
    rows = [row for row in await look(db, "facts") if row.kind == "lane_changed"]
    return [f"{data['lane']} {data['change']}" for data in (json.loads(row.data) for row in rows)]


async def test_from_a_paused_lane_no_process_claims_and_the_rest_goes_on(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        await say(db, "running")
        turn = await claimed(db)
        assert [await db.pause_lane("main"), await other.pause_lane("main")] == [True, False]
        await say(other, "accepted", OTHER)
        await say(other, "of cron", "agent:main:web:3", lane="cron")
        for opened in (db, other):
            assert await claim(opened) is None
        assert (await claimed(other, "cron")).attempt == 1, "a paused lane holds back no other"
        await complete(db, turn.turn_no, "its turn went on")
        assert {lane.lane for lane in await other.lanes() if lane.paused_at_ms} == {"main"}
        [stuck] = [one for one in (await db.status()).stuck if one.what == "lane"]
        assert (stuck.name, stuck.problem) == ("main", "paused")
        assert [await other.resume_lane("main"), await db.resume_lane("main")] == [True, False]
        assert (await claimed(db)).inbox_no == 2
        assert await changes(db) == ["main paused", "main resumed"]
        with pytest.raises(sessiondb.NotFound, match="no lane 'nowhere'"):
            await db.pause_lane("nowhere")
        assert (await db.verify()).ok


async def test_a_resume_waits_while_the_lane_that_accepted_it_is_paused(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await held_message(db, "interrupted")
        await say(db, "of cron", OTHER, lane="cron")
        await interrupt(db, (await claimed(db, "cron")).turn_no)
        policy = sessiondb.ResumePolicy(max_concurrent_resumes=1)
        await db.pause_lane("main")
        planned = [(one.inbox_no, one.action) for one in await db.resume(policy)]
        assert planned == [(2, "resume"), (1, "paused")]
        await complete(db, (await claimed(db, "resume")).turn_no, "resumed")
        await db.resume_lane("main")
        await db.resume(policy)
        await db.pause_lane("main")
        assert await claim(db, "resume") is None, "it was queued before its lane was paused"
        await say(db, "of cron, too", "agent:main:web:3", lane="cron")
        await interrupt(db, (await claimed(db, "cron")).turn_no)
        assert [one.action for one in await db.resume(policy)] == ["resume"], "it takes no place"
        assert (await claimed(db, "resume")).inbox_no == 3
        [stuck] = [one for one in (await db.status()).stuck if one.what == "lane"]
        assert (stuck.name, stuck.problem) == ("main", "paused")
        await db.set_lane("resume", concurrency=2, priority=20)
        await db.resume_lane("main")
        assert (await claimed(db, "resume")).inbox_no == 1


async def test_a_loop_goes_by_the_settings_that_any_process_gives_its_lane(tmp_db: Path) -> None:
    async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
        raise RuntimeError("no luck")

    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        async with running(
            partial(db.run_lane, "main", handler), partial(db.run_lane, "cron", handler)
        ):
            await other.set_lane_settings("main", sessiondb.LaneSettings(attempts_max=1))
            await say(db, "once")
            await say(db, "twice", OTHER, lane="cron")

            async def is_dead() -> bool:
                return (await inbox_states(db))["once"] == "dead"

            await eventually(is_dead)
        by_name = {lane.lane: lane.settings for lane in await db.lanes()}
        assert by_name["main"] is not None
        assert by_name["main"]["attempts_max"] == 1
        assert by_name["cron"] is None
        await db.set_lane_settings("main", None)
        assert {lane.settings is None for lane in await db.lanes()} == {True}
        assert await changes(db) == ["main changed", "main changed"]
        attempts = [row.attempts for row in await look(db, "inbox") if row.event_id == "once"]
        assert attempts == [1]


async def test_a_lane_with_messages_is_dropped_only_with_another_for_them(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOVED_AT_ONCE", 2)
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        for name in ("old", "new"):
            await db.set_lane(name, concurrency=9, priority=5)
        for number in range(5):
            await say(db, f"e{number}", f"agent:main:web:{number}", lane="old")
        await say(db, "of cron", "agent:main:web:9", lane="cron")
        held, dead, works = [await claimed(db, "old") for _ in range(3)]
        await interrupt(db, held.turn_no)
        await fail(db, dead.turn_no, retry=False)
        for into in ("old", "resume"):
            with pytest.raises(sessiondb.InvalidInput, match="cannot go to lane"):
                await db.drop_lane("old", into=into)
        for lane in ("main", "resume"):
            with pytest.raises(sessiondb.InvalidInput, match="pause it instead"):
                await db.drop_lane(lane, into="new")
        with pytest.raises(sessiondb.NotFound, match="no lane 'nowhere'"):
            await db.drop_lane("old", into="nowhere")
        with pytest.raises(sessiondb.InvalidInput, match="has messages that are not done"):
            await db.drop_lane("old")
        assert not await db.write("a part", lambda tx: lanes.drop(tx, "old", "new"))
        assert (await db.verify()).ok, "killed between two steps, it is a lane like any other"
        await other.drop_lane("old", into="new")
        assert "old" not in {lane.lane for lane in await db.lanes()}
        for late in (
            partial(say, db, "late", OTHER, lane="old"),
            partial(db.pause_lane, "old"),
            partial(db.drop_lane, "old"),
        ):
            with pytest.raises(sessiondb.NotFound):
                await late()
        await complete(db, works.turn_no, "its turn went on")
        assert [row.lane for row in await look(db, "inbox")] == ["new"] * 5 + ["cron"]
        await db.requeue(dead.inbox_no)
        assert [(await claimed(db, "new")).inbox_no for _ in range(3)] == [2, 4, 5]
        assert (await db.verify()).ok
        await db.set_lane("old", concurrency=1, priority=0)
        assert (await changes(db))[2:] == ["old dropped", "old created"]


async def test_a_turn_of_a_lane_that_was_dropped_before_goes_where_the_next_drop_says(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for name in ("first", "second"):
            await db.set_lane(name, concurrency=1, priority=5)
        await say(db, "e1", lane="first")
        turn = await claimed(db, "first")
        await db.drop_lane("first", into="second")
        await db.drop_lane("second", into="cron")
        await fail(db, turn.turn_no)
        assert [(row.lane, row.state) for row in await look(db, "inbox")] == [("cron", "queued")]
        assert (await db.verify()).ok


async def test_a_turn_that_fails_waits_for_older_messages_that_a_drop_put_before_it(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("late", concurrency=1, priority=5)
        await say(db, "older", lane="late")
        await say(db, "of another", OTHER, lane="late")
        await say(db, "newer")
        newer = await claimed(db, "main")
        await db.drop_lane("late", into="main")
        await fail(db, newer.turn_no)
        assert [(row.event_id, row.waits) for row in await look(db, "inbox")] == [
            ("older", 0),
            ("of another", 0),
            ("newer", 1),
        ]
        assert [(await claimed(db, "main")).inbox_no for _ in range(2)] == [1, 2]


async def test_a_turn_that_fails_does_not_wait_for_an_older_message_of_another_lane(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("late", concurrency=1, priority=5)
        await say(db, "answered")
        await complete(db, (await claimed(db, "main")).turn_no, "an answer")
        await say(db, "older", lane="late")
        await say(db, "newer")
        await fail(db, (await claimed(db, "main")).turn_no)
        found = [(row.event_id, row.waits) for row in await look(db, "inbox")]
        assert found == [("answered", 0), ("older", 0), ("newer", 0)]


async def test_an_edit_of_a_message_whose_lane_was_dropped_goes_into_main(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for name in ("old", "other"):
            await db.set_lane(name, concurrency=1, priority=5)
            await say(db, f"of {name}", f"agent:main:web:{name}", lane=name)
            await complete(db, (await claimed(db, name)).turn_no, "an answer")
        await db.drop_lane("old")
        for name in ("old", "other"):
            edited = await db.edit(
                f"agent:main:web:{name}",
                user("the newer text"),
                channel="web",
                event_id=f"of {name}",
                version=1,
            )
            assert edited.outcome == "queued"
        assert [row.lane for row in await look(db, "inbox")][2:] == ["main", "other"]


async def test_a_lane_that_was_dropped_is_none_for_a_loop_that_begins(tmp_db: Path) -> None:
    async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
        raise AssertionError("nothing waits")

    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("old", concurrency=1, priority=5)
        await db.drop_lane("old")
        with anyio.fail_after(PATIENCE_S):
            await db.run_lane("old", handler)
            with pytest.raises(sessiondb.NotFound, match="no lane 'nowhere'"):
                await db.run_lane("nowhere", handler)


async def test_the_loops_of_a_dropped_lane_return_when_their_turns_have_ended(
    tmp_db: Path,
) -> None:
    begun, may_end = anyio.Event(), anyio.Event()

    async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
        begun.set()
        await may_end.wait()
        return sessiondb.Answer()

    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        await db.set_lane("old", concurrency=1, priority=5)
        await say(db, "e1", lane="old")
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(db.run_lane, "old", handler)
                await begun.wait()
                await other.drop_lane("old", into="main")
                may_end.set()
        assert await inbox_states(db) == {"e1": "done"}
        assert [row.state for row in await look(db, "turns")] == ["completed"]
        assert (await db.verify()).ok


# -- another process, through `sync` ------------------------------------------------------------

GATEWAY = """
import sys, anyio, sessiondb

async def handler(turn):
    print(turn.event_id, flush=True)
    return sessiondb.Answer()

async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        print("ready", flush=True)
        await db.run_lane("old", handler)
    print("returned", flush=True)

anyio.run(main, backend=sys.argv[2])
"""

DYING = """
import sys, anyio, sessiondb
from sessiondb.gateway import lanes
from tests.proofs.crash.steps import Steps, install

lanes.MOVED_AT_ONCE = 2
install(Steps(sys.argv[2], int(sys.argv[3])))

async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        await db.drop_lane("old", into="new")

anyio.run(main)
"""


def test_what_is_said_of_a_lane_holds_in_another_process(
    tmp_db: Path, anyio_backend_name: str
) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        db.set_lane("old", concurrency=1, priority=5)

        def accept(event_id: str) -> None:
            db.accept(KEY, user("go on"), channel="web", event_id=event_id, lane="old")

        with other_process(GATEWAY, tmp_db, anyio_backend_name) as gateway:
            assert gateway.stdout is not None
            heard = iter(gateway.stdout.readline, "")
            assert next(heard) == "ready\n"
            accept("before")
            assert next(heard) == "before\n"
            db.pause_lane("old")
            accept("while it is paused")
            db.set_lane_settings("old", sessiondb.LaneSettings(timeout_s=77))
            with pytest.raises(sessiondb.InvalidInput, match="not done"):
                db.drop_lane("old")
            assert [lane.waiting for lane in db.lanes() if lane.lane == "old"] == [1]
            db.resume_lane("old")
            assert next(heard) == "while it is paused\n"
            db.drop_lane("old", into="main")
            assert next(heard) == "returned\n"
            assert gateway.wait(PATIENCE_S) == 0
        assert query(tmp_db, "SELECT deadline_ms - started_at_ms FROM turn ORDER BY turn_no") == [
            602_000,
            79_000,
        ]


@pytest.mark.parametrize(
    ("step", "nth", "moved"),
    [("statement turns.move_messages", 1, 0), ("after COMMIT of lane.drop", 2, 4)],
)
def test_a_drop_that_is_killed_in_the_middle_is_repeated(
    tmp_db: Path, step: str, nth: int, moved: int
) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        for name in ("old", "new"):
            db.set_lane(name, concurrency=1, priority=5)
        for number in range(5):
            key = f"agent:main:web:{number}"
            db.accept(key, user("go on"), channel="web", event_id=f"e{number}", lane="old")
        with other_process(DYING, tmp_db, step, nth) as dying:
            assert dying.wait(PATIENCE_S) == -signal.SIGKILL
        waiting = {lane.lane: lane.waiting for lane in db.lanes()}
        assert (waiting["old"], waiting["new"]) == (5 - moved, moved), "it is a lane like any other"
        assert db.verify().ok
        db.drop_lane("old", into="new")
        assert {lane.lane: lane.waiting for lane in db.lanes()}["new"] == 5
        with pytest.raises(sessiondb.NotFound):
            db.drop_lane("old")
        assert db.verify().ok
