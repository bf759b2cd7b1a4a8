"""An orderly stop says nothing against a message, and what it could not sign off is said."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb.errors import StoreBusy, StoreFull
from sessiondb.gateway import retry
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.limits import INTERRUPTED_ATTEMPTS_MAX
from tests.support.engine import PATIENCE_S, locked_by_another_process
from tests.support.gateway import (
    answer,
    claimed,
    complete,
    eventually,
    fail,
    hand_over,
    inbox_states,
    interrupt,
    look,
    nothing_open,
    running,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

# The lease lasts, whatever the machine is busy with.
SETTINGS = LaneSettings(lease_s=1_000, timeout_s=10_000)
POLICY = sessiondb.ResumePolicy(max_concurrent_resumes=2, breaker_unclean_starts=1_000)


async def for_ever(turn: Turn) -> Answer:
    await anyio.sleep_forever()
    raise AssertionError


async def run_and_stop(path: Path) -> None:
    """Run a gateway until its two messages are worked on, and stop it in good order."""

    async def both_run() -> bool:
        return [row.state for row in await look(db, "inbox")] == ["claimed", "claimed"]

    async with sessiondb.open(path) as db:
        async with running(
            partial(db.run_lane, "main", for_ever),
            partial(db.run_lane, "resume", for_ever),
            partial(db.run_recovery, POLICY),
        ):
            await eventually(both_run)
        assert db.unsigned() == []
    assert db.unsigned() == []


async def test_a_message_outlives_any_number_of_orderly_stops(tmp_db: Path) -> None:
    stops = INTERRUPTED_ATTEMPTS_MAX + 2
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("resume", concurrency=2, priority=20)
        await say(db, "e1", "agent:main:web:1")
        await say(db, "e2", "agent:main:web:2")
    for _ in range(stops):
        await run_and_stop(tmp_db)
    attempts: list[int] = []

    async def handler(turn: Turn) -> Answer:
        attempts.append(turn.attempt)
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        assert await inbox_states(db) == {"e1": "interrupted", "e2": "interrupted"}
        async with running(
            partial(db.run_lane, "resume", handler), partial(db.run_recovery, POLICY)
        ):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"e1": "done", "e2": "done"}
        assert attempts == [stops + 1] * 2, "each was one, and none of the stops counted"


async def strikes_until_dead(db: sessiondb.SessionDB, *ends: str) -> str:
    """Begin a turn of the one message for each end, resumed in between. Return its state."""
    lane = "main"
    for end in ends:
        started = await claimed(db, lane)
        match end:
            case "stop":
                await interrupt(db, started.turn_no, "it stops", orderly=True)
            case "death":
                await hand_over(db)
                await db.recover()
            case "error":
                await fail(db, started.turn_no)
                await db.write("hurry", lambda tx: tx.run("look.hurry"))
                continue
        lane = "resume"
        await db.resume(POLICY.model_copy(update={"skip_states": frozenset()}))
    [row] = await look(db, "inbox")
    return str(row.state)


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        (["stop"] * 6, "queued"),
        (["death"] * 3, "dead"),
        (["death", "death"], "queued"),
        (["stop", "death", "stop", "death"], "queued"),
        (["stop", "death", "stop", "death", "stop", "death"], "dead"),
        (["death", "death", "stop", "stop"], "queued"),
        (["error"] * 5, "dead"),
        (["error"] * 4, "queued"),
        (["stop", "stop", *["error"] * 4], "queued"),
        (["stop", "stop", *["error"] * 5], "dead"),
    ],
)
async def test_only_deaths_and_errors_count_against_a_message(
    tmp_db: Path, ends: list[str], wanted: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        assert await strikes_until_dead(db, *ends) == wanted
        assert (await db.verify()).ok


async def test_what_a_stop_could_not_sign_off_is_said(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    async def handler(turn: Turn) -> Answer:
        begun.append("turn")
        return await for_ever(turn)

    async def sender(out: sessiondb.Reply) -> None:
        begun.append("reply")
        await anyio.sleep_forever()

    async def both_begun() -> bool:
        return len(begun) == 2

    real = retry.write_with_retry

    async def quick(*args: Any, **options: Any) -> None:
        await real(*args, **{**options, "for_s": 0.1})

    limits = sessiondb.Limits(busy_timeout_s=0.05, write_timeout_s=0.1)
    async with sessiondb.open(tmp_db, limits=limits) as db:
        await say(db, "e0", "agent:main:web:0")
        await complete(db, (await claimed(db)).turn_no, replies=[("web:0", "x")])
        await say(db, "e1")
        with ExitStack() as stack:
            async with running(
                partial(db.run_lane, "main", handler, settings=SETTINGS),
                partial(db.run_outbox, sender, lease_s=1_000),
            ):
                await eventually(both_begun)
                stack.enter_context(locked_by_another_process(tmp_db))
                monkeypatch.setattr("sessiondb.gateway.retry.write_with_retry", quick)
            [turn, reply] = sorted(db.unsigned(), reverse=True)
            assert turn.startswith("turn 2 of session ")
            assert reply.startswith("reply 1 to web:0: ")
            for told in (turn, reply):
                # On a busy machine its time is up before its turn for the lock comes.
                assert "held the write lock" in told or "before it began" in told
            await db.close()
        assert len(db.unsigned()) == 3
        assert "could not sign off from" in db.unsigned()[2]


async def test_an_answer_outlives_a_disk_that_is_full_for_longer_than_a_lease(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else could have taken the turn, or sent the reply again: nothing can be written."""
    settings = LaneSettings(lease_s=0.05)
    refused: Counter[str] = Counter()
    is_full = False

    async def handler(turn: Turn) -> Answer:
        nonlocal is_full
        is_full = turn.turn_no == 1
        return answer(turn)

    async def sender(out: sessiondb.Reply) -> str:
        nonlocal is_full
        is_full = out.outbox_no == 1
        return "receipt"

    async def in_vain(op: str, since: float) -> bool:
        return refused[op] > 2 and anyio.current_time() - since > 5 * settings.lease_s

    async def all_sent() -> bool:
        return [row.state for row in await look(db, "outbox")] == ["sent", "sent"]

    async with sessiondb.open(tmp_db) as db:
        real_write = db.write

        async def write(op: str, *args: Any, **options: Any) -> Any:
            if is_full:
                refused[op] += 1
                raise StoreFull("no space left")
            return await real_write(op, *args, **options)

        monkeypatch.setattr(db, "write", write)
        for event_id in ("e1", "e2"):
            await say(db, event_id)
        loops = (
            ("turn.end", partial(db.run_lane, "main", handler, settings=settings), nothing_open),
            ("outbox.settle", partial(db.run_outbox, sender, lease_s=settings.lease_s), None),
        )
        for op, loop, done in loops:
            async with running(loop):
                await eventually(partial(in_vain, op, anyio.current_time()))
                is_full = False
                await eventually(partial(done, db) if done is not None else all_sent)
        assert {row.state for row in await look(db, "turns")} == {"completed"}
        assert await inbox_states(db) == {"e1": "done", "e2": "done"}
        assert db.unsigned() == []


async def test_a_stop_ends_though_the_disk_stays_full(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: Counter[str] = Counter()

    async def handler(turn: Turn) -> Answer:
        return answer(turn)

    async def in_vain() -> bool:
        return refused["turn.end"] > 2

    async with sessiondb.open(tmp_db) as db:
        real_write = db.write

        async def write(op: str, *args: Any, **options: Any) -> Any:
            if op.startswith("turn."):
                refused[op] += 1
                raise StoreFull("no space left")
            return await real_write(op, *args, **options)

        monkeypatch.setattr(db, "write", write)
        await say(db, "e1")
        with anyio.fail_after(PATIENCE_S):
            async with running(
                partial(db.run_lane, "main", handler, settings=LaneSettings(lease_s=0.05))
            ):
                await eventually(in_vain)
        assert [told.endswith("no space left") for told in db.unsigned()] == [True]


async def test_a_lane_that_goes_on_leaves_nothing_unsigned(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the turn later by itself, or takes it over."""
    failures = [StoreBusy("locked", retry_after_ms=1)] * 3

    async def handler(turn: Turn) -> Answer:
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        real_write = db.write

        async def write(op: str, *args: Any, **options: Any) -> Any:
            if op == "turn.end" and failures:
                raise failures.pop()
            return await real_write(op, *args, **options)

        monkeypatch.setattr(db, "write", write)
        await say(db, "e1")
        async with running(
            partial(db.run_lane, "main", handler),
            partial(db.run_lane, "resume", handler),
            partial(db.run_recovery, POLICY),
        ):
            await eventually(partial(nothing_open, db))
        assert db.unsigned() == []
