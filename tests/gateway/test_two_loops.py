"""One database object on two event loops: each in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

import sessiondb
from sessiondb.gateway import worker
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from tests.support.engine import PATIENCE_S
from tests.support.gateway import inbox_states, look, say

pytestmark = pytest.mark.anyio

# A lease that lasts: no renewal tells the handler that its turn has ended.
SETTINGS = LaneSettings(lease_s=1_000, timeout_s=10_000)


@pytest.fixture(params=["asyncio", "trio"])
def other_loop(request: pytest.FixtureRequest) -> Iterator[anyio.from_thread.BlockingPortal]:
    """Run another event loop, in a thread."""
    with anyio.from_thread.start_blocking_portal(request.param) as portal:
        yield portal


async def test_a_turn_is_aborted_from_another_event_loop(
    tmp_db: Path, other_loop: anyio.from_thread.BlockingPortal
) -> None:
    begun: list[str] = []
    ended: Future[str] = Future()

    async def handler(turn: Turn) -> Answer:
        begun.append(turn.message["content"])
        try:
            await anyio.sleep_forever()
        finally:
            if turn.message["content"] == "e1":
                ended.set_result(turn.message["content"])
        raise AssertionError

    async def lane() -> None:
        await db.run_lane("main", handler, settings=SETTINGS)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", "agent:main:web:1")
        await say(db, "e2", "agent:main:web:2")
        # From a thread: a loop does not wait for another.
        future = await anyio.to_thread.run_sync(other_loop.start_task_soon, lane)
        with anyio.fail_after(PATIENCE_S):
            while len(begun) < 2:  # noqa: ASYNC110  # of another loop
                await anyio.sleep(0.005)
            await db.abort_turn(1, "asked to stop")
            assert await anyio.to_thread.run_sync(partial(ended.result, PATIENCE_S)) == "e1"
            assert [row.state for row in await look(db, "turns")] == ["aborted", "running"]
            await anyio.to_thread.run_sync(future.cancel)
            while (await inbox_states(db))["e2"] != "interrupted":  # noqa: ASYNC110
                await anyio.sleep(0.005)
        assert await inbox_states(db) == {"e1": "done", "e2": "interrupted"}


def test_the_turns_that_a_process_owns_may_change_while_they_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another event loop's lane claims and ends turns in between."""
    running: dict[int, Any] = dict.fromkeys((1, 2, 3))

    def owned(turn: object) -> bool:
        running.pop(2, None)
        running[len(running) + 10] = None
        return True

    monkeypatch.setattr(worker, "is_owned", owned)
    assert worker._owned(running) == "[1, 2, 3]"
