"""Errors that pass, and cancellation at any point, leave no turn running and no reply being sent.

asyncio's `task.cancel()` passes through a shield, so a claim that was committed loses its
result. `support/cancellation.py` says how an operation is cancelled at its k-th wait
with the writer held in each of three places.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb.errors import OutcomeUnknown, StoreBusy
from sessiondb.gateway import claims, dispatcher, retry, worker
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.timers import SYSTEM
from tests.support.cancellation import WHERE, Gate, by_scope, by_task, cancelled_at
from tests.support.core import reply
from tests.support.gateway import claimed, complete, eventually, inbox_states, look, running, say

pytestmark = pytest.mark.anyio

# asyncio's warning about a task that it drops.
dropped = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
# The waits of a lane: for its first read, the claim, the next read, the sleep, and a read again.
WAITS = 5


@pytest.fixture
def reported_here() -> Iterator[None]:
    """Free the coroutines that a test dropped while its own filter of warnings holds.

    Python warns when it frees them. It would do so in the middle of another test.
    """
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def quick(quick_retries: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that sleeps gets to its next wait."""
    monkeypatch.setattr(retry, "SLEEP_S_MAX", 0.02)


async def for_ever(turn: Turn) -> Answer:
    await anyio.sleep_forever()
    raise AssertionError


async def check_nothing_is_held(db: sessiondb.SessionDB) -> None:
    assert [row.state for row in await look(db, "turns") if row.state == "running"] == []
    assert db._loops.running == {}
    assert await db.held() == []


async def reply_waits(db: sessiondb.SessionDB, number: int) -> None:
    await say(db, f"e{number}", f"agent:main:web:{number}")
    await complete(db, (await claimed(db)).turn_no, replies=[(f"web:{number}", "hello")])


@pytest.mark.parametrize("where", WHERE)
async def test_a_lane_cancelled_at_any_wait_leaves_no_turn_running(
    tmp_db: Path,
    gate: Gate,
    anyio_backend_name: str,
    where: str,
) -> None:
    ways = (
        [(by_scope, 1)]
        if anyio_backend_name == "trio"
        else [(by_scope, 1), (by_task, 1), (by_task, 3)]
    )
    async with sessiondb.open(tmp_db, guard=False) as db:
        number = 0
        for cancel, times in ways:
            for k in range(WAITS):
                number += 1
                await say(db, f"e{number}", f"agent:main:web:{number}")
                report = await cancelled_at(
                    k, where, lambda: db.run_lane("main", for_ever), cancel, gate, db, times=times
                )
                assert report.was_reached
                await check_nothing_is_held(db)
                assert set((await inbox_states(db)).values()) <= {"queued", "interrupted"}
        assert "interrupted" in (await inbox_states(db)).values(), "some were claimed"


@pytest.mark.parametrize("where", WHERE)
async def test_an_outbox_cancelled_at_any_wait_knows_what_it_sent(
    tmp_db: Path,
    gate: Gate,
    anyio_backend_name: str,
    where: str,
) -> None:
    ways = (
        [(by_scope, 1)]
        if anyio_backend_name == "trio"
        else [(by_scope, 1), (by_task, 1), (by_task, 3)]
    )
    called: set[int] = set()

    async def sender(out: sessiondb.Reply) -> None:
        called.add(out.outbox_no)
        await anyio.sleep_forever()

    async with sessiondb.open(tmp_db, guard=False) as db:
        number = 0
        for cancel, times in ways:
            for k in range(WAITS):
                number += 1
                await reply_waits(db, number)
                report = await cancelled_at(
                    k, where, lambda: db.run_outbox(sender), cancel, gate, db, times=times
                )
                assert report.was_reached
                states = {row.outbox_no: row.state for row in await look(db, "outbox")}
                assert states == {no: "unknown" if no in called else "pending" for no in states}


async def cancel_all_behind(
    module: ModuleType,
    step: str,
    loop: Callable[[], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run a loop, and cancel all its tasks when the task that follows a step has just been made.

    `asyncio.run` does the same at its end.
    """
    before = asyncio.all_tasks()
    real = getattr(module, step)

    def cancel_all() -> None:
        for task in asyncio.all_tasks() - before:
            task.cancel()

    async def stepped(*args: Any) -> Any:
        result = await real(*args)
        asyncio.get_running_loop().call_soon(cancel_all)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(module, step, stepped)
        await asyncio.gather(asyncio.ensure_future(loop()), return_exceptions=True)


@only_asyncio
@dropped
@pytest.mark.usefixtures("reported_here")
async def test_a_task_cancelled_before_its_first_step_is_released(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Any) -> Any:
        raise AssertionError("it is never called")

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await cancel_all_behind(worker, "_claim", partial(db.run_lane, "main", never), monkeypatch)
        await check_nothing_is_held(db)
        assert await inbox_states(db) == {"e1": "interrupted"}
        await reply_waits(db, 2)
        await cancel_all_behind(
            dispatcher, "_next_reply", partial(db.run_outbox, never), monkeypatch
        )
        assert [row.state for row in await look(db, "outbox")] == ["pending"]


@only_asyncio
@dropped
@pytest.mark.usefixtures("reported_here")
async def test_a_lane_cancelled_after_any_step_leaves_no_turn_running(
    tmp_db: Path,
) -> None:
    """How far the lane gets depends on the machine. The ends of turns are cancelled, too."""

    async def handler(turn: Turn) -> Answer:
        await turn.append(reply("thinking"))
        return Answer(entries=[reply("x" * 100_000)], replies=[("web:1", "x" * 100_000)])

    async with sessiondb.open(tmp_db) as db:
        for steps in range(60):
            before = asyncio.all_tasks()
            await say(db, f"e{steps}", f"agent:main:web:{steps}")
            task = asyncio.create_task(db.run_lane("main", handler))
            for _ in range(steps):
                await asyncio.sleep(0.0001)
            for each in asyncio.all_tasks() - before:
                each.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await check_nothing_is_held(db)


# -- an outcome that is unknown -------------------------------------------------------------


def unknown_after(
    db: sessiondb.SessionDB, op: str, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> list[str]:
    """Make the first write of an operation end with OutcomeUnknown, committed or rolled back."""
    met: list[str] = []
    real_write = db.write

    class RolledBackError(Exception):
        pass

    async def write(called: str, fn: Any, **options: Any) -> Any:
        if called != op or met:
            return await real_write(called, fn, **options)

        def body(tx: Any) -> Any:
            if fn(tx) is not None and not committed:
                raise RolledBackError

        met.append(op)
        try:
            await real_write(called, body, **options)
        except RolledBackError:
            pass
        raise OutcomeUnknown("who knows")

    monkeypatch.setattr(db, "write", write)
    return met


@pytest.mark.parametrize("committed", [True, False])
async def test_a_claim_whose_outcome_is_unknown_leaves_no_orphan(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    async def handler(turn: Turn) -> Answer:
        await anyio.lowlevel.checkpoint()
        return Answer(replies=[("web:1", "hello")])

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        met = unknown_after(db, "lane.claim", monkeypatch, committed=committed)
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(_done, db))
        assert met == ["lane.claim"]
        assert [(row.state, row.attempt) for row in await look(db, "turns")] == [("completed", 1)]
        await check_nothing_is_held(db)


async def _done(db: sessiondb.SessionDB) -> bool:
    return set((await inbox_states(db)).values()) == {"done"}


@pytest.mark.parametrize("committed", [True, False])
async def test_a_reply_taken_with_an_unknown_outcome_is_sent_once(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    sent: list[str] = []

    async def sender(out: sessiondb.Reply) -> None:
        sent.append(json.loads(out.payload))

    async with sessiondb.open(tmp_db) as db:
        await reply_waits(db, 1)
        met = unknown_after(db, "outbox.begin", monkeypatch, committed=committed)
        async with running(partial(db.run_outbox, sender)):
            await eventually(partial(_sent, db))
        assert (met, sent) == (["outbox.begin"], ["hello"])


async def _sent(db: sessiondb.SessionDB) -> bool:
    return [row.state for row in await look(db, "outbox")] == ["sent"]


async def test_another_claims_turn_of_the_same_number_is_not_ours(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        started = await claimed(db)
        later = dataclasses.replace(started, deadline_ms=started.deadline_ms + 1)
        assert await db.read(
            "ask", lambda tx: [claims.was_committed(tx, started), claims.was_committed(tx, later)]
        ) == [True, False]


# -- back-off -------------------------------------------------------------------------------


def test_a_repeated_error_is_logged_once_with_growing_delays(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "sessiondb")
    monkeypatch.setattr(retry, "SLEEP_S_MAX", 5.0)
    backoff = retry.Backoff("lane main")
    busy = StoreBusy("the disk is busy", retry_after_ms=1)
    pauses = [backoff.next_delay(busy) for _ in range(12)]
    assert pauses[:3] == [0.01, 0.02, 0.04]
    assert pauses[-1] == 5.0
    assert caplog.messages == ["lane main: the disk is busy"]
    backoff.next_delay(OutcomeUnknown("who knows"))
    assert caplog.messages[1:] == ["lane main: who knows"]
    backoff.reset()
    assert backoff.next_delay(busy) == 0.01
    assert len(caplog.messages) == 3
    with pytest.raises(sessiondb.InvalidInput):
        backoff.next_delay(sessiondb.InvalidInput("no"))


@pytest.mark.parametrize(
    ("due_ms", "seconds"),
    [
        ([], 5.0),
        ([None, None], 5.0),
        ([4_000, None, 3_000], 3.0),
        ([4_999], 4.999),
        ([5_001, 90_000], 5.0),
        ([11], 0.011),
        ([9, 3_000], 0.01),
        ([-60_000], 0.01),
    ],
)
def test_a_loop_sleeps_until_the_first_time_within_its_bounds(
    due_ms: list[int | None], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "SLEEP_S_MAX", 5.0)
    now_ms = 1_800_000_000_000
    due = [at_ms if at_ms is None else now_ms + at_ms for at_ms in due_ms]
    assert retry.sleep_s(now_ms, due) == seconds


class _Writes:
    """A database whose writes end as given: with an error, or at all."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.ends = [*ends]

    async def write(self, op: str, body: Any, *, size: int = 0) -> None:
        end = self.ends.pop(0)
        if end is not None:
            raise end


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio's do not pass a shield
@pytest.mark.parametrize(
    ("ends", "slept"),
    [
        (["busy", "busy", None], [0.01, 0.02]),
        (["cancelled", None], []),
        (["busy", "cancelled", None], [0.01]),
        (["cancelled", "busy", None], [0.01]),
    ],
)
async def test_a_write_that_was_cancelled_is_tried_again_at_once(
    monkeypatch: pytest.MonkeyPatch, ends: list[Any], slept: list[float]
) -> None:
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    kinds = {
        "busy": lambda: StoreBusy("the disk is busy", retry_after_ms=1),
        "cancelled": asyncio.CancelledError,
        None: lambda: None,
    }
    db: Any = _Writes(*(kinds[end]() for end in ends))
    monkeypatch.setattr(retry, "sleep", sleep)
    write = partial(retry.write_with_retry, db, "op", lambda tx: None, for_s=60, name="a turn")
    if "cancelled" in ends:
        with pytest.raises(asyncio.CancelledError):
            await write()
    else:
        await write()
    assert (found, db.ends) == (slept, [])


class _Bodies:
    """A database whose write runs its body, and then ends with an error."""

    clock = SYSTEM

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def write(self, op: str, body: Any, *, size: int = 0) -> None:
        assert body(None) is None
        raise self.error


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # its cancellations can be made
@pytest.mark.parametrize("error", [asyncio.CancelledError(), OutcomeUnknown("who knows")])
async def test_nothing_is_released_where_another_process_was_faster(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The write took nothing. It was cancelled, or its outcome is unknown, all the same."""
    nothing: Any = None
    db: Any = _Bodies(error)
    monkeypatch.setattr(claims, "claim", lambda *_, **__: None)
    monkeypatch.setattr(dispatcher.outbox, "begin_sending", lambda *_, **__: None)
    payload = json.dumps({"role": "user", "content": "hello"})
    candidate: Any = SimpleNamespace(
        inbox_no=1,
        session_no=1,
        channel="web",
        event_id="e1",
        lane="main",
        lane_before=None,
        session_key=None,
        details=None,
        heard=(),
        payload=payload,
    )
    with pytest.raises(type(error)):
        await worker._claim(db, "main", candidate, LaneSettings(), nothing, claim_id=None)
    with pytest.raises(type(error)):
        await dispatcher._begin_sending(db, 1.0, [], nothing, watch=nothing, claim_id=None)
