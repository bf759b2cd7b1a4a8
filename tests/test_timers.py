"""Timers, sleeps and deadlines by a clock that nobody stops."""

from __future__ import annotations

import math
import os
import threading

import anyio
import anyio.lowlevel
import pytest

from sessiondb import clock, timers, waiter
from tests.support.engine import PATIENCE_S, until


def test_timers_fire_in_the_order_of_their_times() -> None:
    fired: list[str] = []
    done = threading.Event()
    timers.start(0.06, done.set)
    timers.start(0.04, lambda: fired.append("second"))
    timers.start(0.02, lambda: fired.append("first"))
    assert done.wait(PATIENCE_S)
    assert fired == ["first", "second"]


def test_a_timer_never_fires_before_its_time() -> None:
    done = threading.Event()
    began, ended = clock.monotonic(), []
    timers.start(0.03, lambda: (ended.append(clock.monotonic()), done.set()))
    assert done.wait(PATIENCE_S)
    assert ended[0] - began >= 0.03


def test_a_cancelled_timer_and_one_without_an_end_never_fire() -> None:
    fired: list[str] = []
    done = threading.Event()
    timers.start(0.01, lambda: fired.append("cancelled")).cancel()
    timers.start(math.inf, lambda: fired.append("infinite"))
    timers.start(0.03, done.set)
    assert done.wait(PATIENCE_S)
    assert fired == []


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_a_call_that_fails_stops_no_other_timer(error: type[Exception]) -> None:
    def fail() -> None:
        raise error("of this call alone")

    done = threading.Event()
    timers.start(0.0, fail)
    timers.start(0.0, done.set)
    assert done.wait(PATIENCE_S)


def test_cancelled_timers_are_forgotten_long_before_their_time() -> None:
    for _ in range(10 * timers.NEW_MAX):
        timers.start(3_600.0, lambda: None).cancel()
    done = threading.Event()
    timers.start(0.0, done.set)
    assert done.wait(PATIENCE_S)
    assert len(timers._timers._new) + len(timers._timers._heap) <= 2 * timers.NEW_MAX


def test_a_forks_child_has_timers_of_its_own() -> None:
    timers.start(3_600.0, lambda: None).cancel()  # the thread runs
    child = os.fork()
    if child == 0:
        done, code = threading.Event(), 1
        try:
            timers.start(0.01, done.set)
            code = 0 if done.wait(PATIENCE_S) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.anyio
async def test_a_sleep_is_over_after_its_time_and_can_be_cancelled() -> None:
    began = clock.monotonic()
    await waiter.sleep(0.02)
    assert clock.monotonic() - began >= 0.02
    await waiter.sleep(0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await waiter.sleep(3_600.0)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_a_deadline_cancels_its_block_and_no_other() -> None:
    with waiter.Deadline(3_600.0) as around, waiter.Deadline(0.01) as deadline:
        await anyio.sleep_forever()
    assert (deadline.has_passed, deadline.cancelled_caught) == (True, True)
    assert (around.has_passed, around.cancelled_caught) == (False, False)


@pytest.mark.anyio
async def test_a_deadline_is_moved_away_and_back() -> None:
    with waiter.Deadline(0.01) as deadline:
        deadline.move(math.inf)
        await waiter.sleep(0.03)
        await anyio.lowlevel.checkpoint()
        deadline.move(clock.monotonic() + 0.01)
        await anyio.sleep_forever()
    assert deadline.cancelled_caught


@pytest.mark.anyio
async def test_a_deadline_that_is_moved_into_the_past_passes_at_once() -> None:
    with waiter.Deadline(3_600.0) as deadline:
        deadline.move(clock.monotonic() - 1)
        await anyio.lowlevel.checkpoint()
        raise AssertionError("it was cancelled")
    assert deadline.cancelled_caught


@pytest.mark.anyio
async def test_a_deadline_that_fires_after_its_block_cancels_nothing() -> None:
    with waiter.Deadline(0.0) as deadline:
        timer = deadline._timer
        assert timer is not None
        await until(lambda: timer.is_cancelled)
        # The call is on its way to this event loop, or has been made.
    await anyio.lowlevel.checkpoint()
