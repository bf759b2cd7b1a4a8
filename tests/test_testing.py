"""`sessiondb.testing`: a clock that a test moves, and a gateway that runs until it is idle."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import tomllib
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

import sessiondb
from sessiondb import timers
from sessiondb.errors import InvalidInput, NotFound
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.maintenance.retention_plan import RetentionPolicy
from sessiondb.models import Reply
from sessiondb.testing import ManualClock, run_until_idle
from tests import ROOT
from tests.support.core import reply, user
from tests.support.gateway import claimed, inbox_states, kinds, running, say

KEY, OTHER = "agent:main:web:one", "agent:main:web:two"
START_MS = 1_767_225_600_000  # 2026-01-01


async def answers(turn: Turn) -> Answer:
    text = f"to {turn.message['content']}"
    return Answer(entries=[reply(text)], replies=[("web:1", {"text": text})])


async def happened(db: sessiondb.SessionDB, kind: str) -> None:
    """Wait for an event of a kind."""
    async with aclosing(db.events(f"until {kind}", from_start=True)) as events:
        async for event in events:
            if event.kind == kind:
                return


async def nothing(_turn: Turn) -> Answer:
    return Answer(entries=[reply("done")])


# -- the clock ------------------------------------------------------------------------------


def test_a_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock()
    assert (clock.monotonic(), clock.now_ms(), clock.stamp_ms()) == (0.0, START_MS, START_MS)
    clock.move(1.5)
    assert (clock.monotonic(), clock.now_ms()) == (1.5, START_MS + 1_500)
    for _ in range(10):
        clock.move(0.1)
    assert clock.monotonic() == 2.5
    assert repr(clock) == "ManualClock('2026-01-01T00:00:02.500000+00:00')"


@pytest.mark.parametrize(
    "start", ["2020-05-01T12:00:00Z", datetime(2020, 5, 1, 12, tzinfo=UTC), "2020-05-01T12:00:00"]
)
def test_a_clock_starts_when_the_test_says(start: str | datetime) -> None:
    assert ManualClock(start).now_ms() == 1_588_334_400_000


@pytest.mark.parametrize("start", ["soon", "", 5])
def test_a_clock_refuses_a_start_that_is_no_time(start: str) -> None:
    with pytest.raises(InvalidInput, match="a clock starts at a datetime or an ISO text"):
        ManualClock(start)


@pytest.mark.parametrize("seconds", [-1, -0.001, math.inf, math.nan])
def test_a_clock_never_goes_back_nor_to_no_time(seconds: float) -> None:
    clock = ManualClock()
    with pytest.raises(InvalidInput, match="moved by seconds, 0 or more"):
        clock.move(seconds)
    assert clock.monotonic() == 0


def test_timers_fire_in_their_order_when_their_time_has_come() -> None:
    clock, fired = ManualClock(), list[str]()
    clock.start(2, partial(fired.append, "second"))
    clock.start(1, partial(fired.append, "first"))
    clock.start(1, partial(fired.append, "cancelled")).cancel()
    clock.start(math.inf, partial(fired.append, "never"))
    clock.start(0, partial(fired.append, "at once"))
    assert fired == ["at once"]
    clock.move(0.999)
    assert fired == ["at once"]
    clock.move(0.001)
    assert fired == ["at once", "first"]
    clock.move(10**9)
    assert fired == ["at once", "first", "second"]


def test_a_fraction_of_a_millisecond_waits_for_the_next_one() -> None:
    clock, fired = ManualClock(), list[str]()
    clock.start(0.0004, partial(fired.append, "one"))
    assert fired == []
    clock.move(0.001)
    assert fired == ["one"]


def test_whoever_watches_the_clock_hears_of_each_move_until_it_ends() -> None:
    clock, heard = ManualClock(), list[float]()
    end = clock.on_move(lambda: heard.append(clock.monotonic()))
    clock.move(1)
    clock.move(0)
    end()
    end()
    clock.move(1)
    assert heard == [1.0, 1.0]


def test_threads_may_move_one_clock() -> None:
    clock = ManualClock()

    def move() -> None:
        for _ in range(200):
            clock.move(0.001)

    threads = [threading.Thread(target=move) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic() == 0.8


# -- a database with a clock ----------------------------------------------------------------


@pytest.mark.anyio
async def test_without_a_clock_a_database_has_the_kernels(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        assert db.clock is timers.SYSTEM


@pytest.mark.anyio
async def test_a_transcript_has_the_times_of_the_clock(tmp_db: Path) -> None:
    clock = ManualClock()
    async with sessiondb.open(tmp_db, clock=clock) as db:
        session = await db.session(KEY)
        clock.move(60)
        await session.append(user("hello"))
        await session.append_many([user("and"), reply("yes")])
        clock.move(60)
        await say(db, "e1", OTHER)
        await run_until_idle(db, answers)
        info = await session.info()
        assert (info.created_at_ms, info.updated_at_ms) == (START_MS, START_MS + 60_000)
        assert {e.appended_at_ms for e in await session.entries()} == {START_MS + 60_000}
        texts = await (await db.session(OTHER)).entries()
        assert {entry.appended_at_ms for entry in texts} == {START_MS + 120_000}
        assert all('"2026-01-01T00:02:00.000Z"' in entry.payload for entry in texts)


@pytest.mark.anyio
async def test_retention_goes_by_the_clock(tmp_db: Path) -> None:
    clock = ManualClock()
    async with sessiondb.open(tmp_db, clock=clock) as db:
        await (await db.session(KEY)).append(user("old"))
        clock.move(timedelta(days=29).total_seconds())
        await (await db.session(OTHER)).append(user("new"))
        policy = RetentionPolicy(max_age_days=30)
        assert (await db.gc(policy)).count("done") == 0
        clock.move(timedelta(days=2).total_seconds())
        assert (await db.gc(policy)).count("done") == 1


@pytest.mark.anyio
async def test_a_compaction_is_given_up_when_the_clock_passes_its_deadline(tmp_db: Path) -> None:
    clock = ManualClock()
    async with sessiondb.open(tmp_db, clock=clock) as db:
        session = await db.session(KEY)
        await session.append_many([user("long " * 50) for _ in range(20)])
        with pytest.raises(sessiondb.CompactionTimeout):  # noqa: PT012
            async with session.compact(keep_recent_tokens=10, timeout_s=3_600):
                clock.move(3_601)
                await anyio.sleep_forever()


# -- loops that wait ------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_move_wakes_a_lane_for_its_retry_and_a_sender_for_its_reply(tmp_db: Path) -> None:
    """Nobody moves it but the test, and no real time is waited for."""
    clock, tried, sent = ManualClock(), list[int](), list[str]()
    answered, arrived = anyio.Event(), anyio.Event()

    async def handler(turn: Turn) -> Answer:
        tried.append(clock.now_ms())
        if turn.attempt == 1:
            raise ConnectionError
        answered.set()
        return await answers(turn)

    async def sender(outgoing: Reply) -> None:
        if outgoing.attempts == 1:
            raise sessiondb.RefusedBySender("slowly", retry_after_s=1_000)
        sent.append(outgoing.payload)
        arrived.set()

    async with sessiondb.open(tmp_db, clock=clock) as db:
        settings = LaneSettings(retry_pauses_s=(50,), delayed_after_s=10_000)
        async with running(
            partial(db.run_lane, "main", handler, settings=settings),
            partial(db.run_outbox, sender),
        ):
            await say(db, "e1", KEY)
            await happened(db, "turn_failed")
            clock.move(49)
            assert len(tried) == 1
            clock.move(1)
            await answered.wait()
            await happened(db, "reply_delayed")
            clock.move(1_000)
            await arrived.wait()
    assert tried == [START_MS, START_MS + 50_000]
    assert [json.loads(payload) for payload in sent] == [{"text": "to e1"}]


@pytest.mark.anyio
async def test_a_handler_that_takes_long_keeps_its_turn_and_its_sender_is_told(
    tmp_db: Path,
) -> None:
    clock = ManualClock()

    async def handler(turn: Turn) -> Answer:
        clock.move(300)  # ten leases
        await happened(db, "message_delayed")
        return await answers(turn)

    async with sessiondb.open(tmp_db, clock=clock) as db:
        await say(db, "e1", KEY)
        assert len(await run_until_idle(db, handler)) == 1
        assert await kinds(db, "user") == ["message_delayed"]


@pytest.mark.anyio
async def test_a_turn_is_cut_off_when_the_clock_passes_its_deadline(tmp_db: Path) -> None:
    clock, attempts = ManualClock(), list[int]()

    async def handler(turn: Turn) -> Answer:
        attempts.append(turn.attempt)
        clock.move(600)
        await anyio.sleep_forever()
        raise AssertionError

    async with sessiondb.open(tmp_db, clock=clock) as db:
        await say(db, "e1", KEY)
        assert await run_until_idle(db, handler) == []
        assert attempts == [1, 2, 3]
        assert await inbox_states(db) == {"e1": "dead"}


@pytest.mark.anyio
async def test_a_lease_that_the_clock_outlives_is_taken_over_by_another_process(
    tmp_db: Path,
) -> None:
    clock = ManualClock()
    async with (
        sessiondb.open(tmp_db, clock=clock) as silent,
        sessiondb.open(tmp_db, clock=clock) as other,
    ):
        await say(silent, "e1", KEY)
        await claimed(silent, lease_ms=30_000)
        async with running(partial(other.run_lane, "main", answers)):
            clock.move(29)
            assert await inbox_states(other) == {"e1": "claimed"}
            clock.move(10)
            await happened(other, "turn_interrupted")
        assert await inbox_states(other) == {"e1": "interrupted"}


# -- until idle -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_it_returns_what_was_sent_in_order(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(6):
            await say(db, f"e{number}", (KEY, OTHER)[number % 2])
        sent = await run_until_idle(db, answers)
        assert [outgoing.target for outgoing in sent] == ["web:1"] * 6
        assert [outgoing.outbox_no for outgoing in sent] == sorted(o.outbox_no for o in sent)
        assert set((await inbox_states(db)).values()) == {"done"}
        assert await run_until_idle(db, answers) == []
        await say(db, "later", KEY)
        [last] = await run_until_idle(db, answers)
        assert "to later" in last.payload


@pytest.mark.anyio
async def test_pauses_cost_no_real_time_under_a_clock(tmp_db: Path) -> None:
    """81 s of a failing provider, an hour of a channel's ban, and replies that are refused."""
    clock, tried = ManualClock(), list[int]()

    async def fails(turn: Turn) -> Answer:
        tried.append(clock.now_ms() - START_MS)
        if turn.attempt < 5:
            raise ConnectionError
        return await answers(turn)

    async def bans(outgoing: Reply) -> str:
        if outgoing.attempts == 1:
            raise sessiondb.RefusedBySender("no", retry_after_s=3_600)
        if outgoing.attempts < 4:
            raise sessiondb.RefusedBySender("no")
        return "receipt"

    async with sessiondb.open(tmp_db, clock=clock) as db:
        await say(db, "e1", KEY)
        [sent] = await run_until_idle(db, fails, bans)
        assert tried == [0, 1_000, 5_000, 21_000, 81_000]
        assert sent.attempts == 4
        assert clock.monotonic() == 81 + 3_600 + 1 + 2


@pytest.mark.anyio
async def test_what_is_dead_unknown_or_interrupted_is_left(tmp_db: Path) -> None:
    async def handler(turn: Turn) -> Answer:
        if turn.message["content"] == "fails":
            raise ValueError("no")
        return await answers(turn)

    async def sender(outgoing: Reply) -> None:
        if outgoing.session_id == lost.session_id:
            raise ConnectionResetError

    async with sessiondb.open(tmp_db, clock=ManualClock()) as db:
        await say(db, "fails", KEY)
        lost = await say(db, "lost", OTHER)
        await say(db, "good", "agent:main:web:three")
        [sent] = await run_until_idle(db, handler, sender)
        assert "good" in sent.payload
        assert await inbox_states(db) == {"fails": "dead", "lost": "done", "good": "done"}
        assert [row.target async for row in db.replies("unknown")] == ["web:1"]


@pytest.mark.anyio
async def test_each_lane_may_have_a_handler_and_others_do_not_run(tmp_db: Path) -> None:
    ran: list[str] = []

    async def main(_turn: Turn) -> Answer:
        ran.append("main")
        return Answer()

    async def cron(_turn: Turn) -> Answer:
        ran.append("cron")
        return Answer()

    async with sessiondb.open(tmp_db, clock=ManualClock()) as db:
        for lane in ("main", "cron"):
            await say(db, lane, KEY, lane=lane)
        await run_until_idle(db, {"main": main})
        assert ran == ["main"]
        await run_until_idle(db, {"main": main, "cron": cron})
        assert ran == ["main", "cron"]
        with pytest.raises(NotFound, match="no lane 'night'"):
            await run_until_idle(db, {"night": main})


@pytest.mark.anyio
async def test_a_message_that_other_lanes_hold_back_goes_after_its_minute(tmp_db: Path) -> None:
    """Lane `main` goes first, and nobody runs it here."""
    clock = ManualClock()
    async with sessiondb.open(tmp_db, clock=clock) as db:
        await db.set_lane("later", concurrency=1, priority=99)
        await say(db, "e1", KEY)
        await say(db, "e2", OTHER, lane="later")
        await run_until_idle(db, {"later": nothing})
        assert await inbox_states(db) == {"e1": "queued", "e2": "done"}
        assert 60 <= clock.monotonic() <= 70


@pytest.mark.anyio
async def test_what_a_handler_accepts_is_answered_too(tmp_db: Path) -> None:
    async def handler(turn: Turn) -> Answer:
        if turn.message["content"] == "parent":
            await say(db, "child", OTHER)
        return await answers(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "parent", KEY)
        assert len(await run_until_idle(db, handler)) == 2


@pytest.mark.anyio
async def test_a_handler_that_hangs_is_named_when_the_time_is_up(tmp_db: Path) -> None:
    async def hangs(_turn: Turn) -> Answer:
        await anyio.sleep_forever()
        raise AssertionError

    async with sessiondb.open(tmp_db, clock=ManualClock()) as db:
        await say(db, "e1", KEY)
        with pytest.raises(TimeoutError, match=r"was not idle after 0\.3 s"):
            await run_until_idle(db, hangs, timeout_s=0.3)
        assert await inbox_states(db) == {"e1": "interrupted"}


@pytest.mark.anyio
async def test_loops_of_the_database_go_on_beside_it_and_afterwards(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        async with running(partial(db.run_lane, "cron", nothing)):
            await say(db, "e1", KEY)
            await run_until_idle(db, {"main": nothing})
            await say(db, "e2", KEY, lane="cron")
            await run_until_idle(db, {"main": nothing, "cron": nothing})
            assert set((await inbox_states(db)).values()) == {"done"}


# -- retry pauses ---------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_pauses_of_a_lane_and_of_a_sender_can_be_set(tmp_db: Path) -> None:
    clock, tried, asked = ManualClock(), list[float](), list[float]()

    async def fails(_turn: Turn) -> Answer:
        tried.append(clock.monotonic())
        raise ConnectionError

    async def refuses(outgoing: Reply) -> None:
        asked.append(clock.monotonic())
        if outgoing.attempts < 4:
            raise sessiondb.RefusedBySender("no")

    async with sessiondb.open(tmp_db, clock=clock) as db:
        await say(db, "e1", KEY)
        settings = LaneSettings(retry_pauses_s=(2, 0, 7), attempts_max=5)
        await run_until_idle(db, {"main": fails}, settings=settings)
        assert tried == [0, 2, 2, 9, 16]
        begun = clock.monotonic()
        await say(db, "e2", OTHER)
        await run_until_idle(db, answers, refuses, retry_pauses_s=(3, 5))
        assert [at - begun for at in asked] == [0, 3, 8, 13]


@pytest.mark.parametrize("pauses", [(), (-1,), (60.001,), ("soon",), 5, None, (math.nan,)])
@pytest.mark.anyio
async def test_pauses_that_are_none_are_refused(tmp_db: Path, pauses: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="retry_pauses_s"):
        LaneSettings(retry_pauses_s=pauses)
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(InvalidInput, match=r"retry_pauses_s is .* (numbers of seconds|a list)"):
            await db.run_outbox(lambda _reply: anyio.lowlevel.checkpoint(), retry_pauses_s=pauses)


# -- the fixtures ---------------------------------------------------------------------------


PROJECT = """
import pytest
from sessiondb import Answer
from sessiondb.testing import run_until_idle

async def handler(turn):
    if turn.attempt < 3:
        raise ConnectionError
    return Answer(replies=[("chat:1", {"text": "hello"})])

@pytest.mark.anyio
@pytest.mark.parametrize("name", ["a", "b"])
async def test_an_application(sessiondb_db, sessiondb_clock, sessiondb_path, name):
    assert sessiondb_path.exists()
    message = {"role": "user", "content": name}
    await sessiondb_db.accept("agent:main:chat:1", message, channel="chat", event_id="1")
    [sent] = await run_until_idle(sessiondb_db, handler)
    assert sent.target == "chat:1"
    assert sessiondb_clock.monotonic() == 5

def test_a_path_alone(sessiondb_path):
    assert not sessiondb_path.exists()
"""


def test_pytest_finds_the_fixtures_by_the_entry_point(tmp_path: Path) -> None:
    """A project's own tests, in a process of its own, under asyncio and trio."""
    (tmp_path / "test_app.py").write_text(PROJECT, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    plugins = "".join(
        f"{name} = {module}\n" for name, module in project["entry-points"]["pytest11"].items()
    )
    about = tmp_path / "lib" / "application-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: application\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[pytest11]\n{plugins}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path / 'lib'}:{ROOT}", "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_the_plugin_imports_nothing_of_the_library_before_it_is_used() -> None:
    code = (
        "import sys, sessiondb.pytest_plugin\n"
        "print(*sorted(n for n in sys.modules if n.startswith('sessiondb')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [
        "sessiondb",
        "sessiondb.errors",
        "sessiondb.exits",
        "sessiondb.pytest_plugin",
    ]


@pytest.mark.anyio
async def test_what_waits_in_a_paused_lane_is_left_there(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.pause_lane("cron")
        await say(db, "e1")
        await say(db, "e2", OTHER, lane="cron")
        await run_until_idle(db, nothing)
        assert await inbox_states(db) == {"e1": "done", "e2": "queued"}
