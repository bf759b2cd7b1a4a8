"""Appending: what a durable append costs, alone, in a crowd, and while a compaction runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from time import perf_counter
from typing import Any

import pytest
from floor import Raw, SlowSync
from measure import ENTRY_PAYLOAD, USER_MESSAGE, Bench, latencies, percentile, running, size

from sessiondb import Session, SessionDB

CALLERS = 64
# Shorter than any real one takes, so that there are several compactions in a round.
SUMMARISER_S = 0.5
# Something new to summarise, answered, because a cut never passes a message that nobody
# has answered.
NEWS = [USER_MESSAGE, {"role": "assistant", "content": "noted"}] * 10
SYNC_S = 0.002


def test_one_caller_waits_hardly_longer_than_for_raw_sqlite(
    bench: Bench, raw: Raw, db: SessionDB
) -> None:
    session = bench.run(db.session("agent:main:bench:one"))
    count = size(200, 20)
    pairs = bench.rounds(
        lambda: latencies(lambda: raw.append(ENTRY_PAYLOAD), count),
        lambda: latencies(lambda: session.append(USER_MESSAGE), count),
        25,
    )
    bench.say("append, one caller, p50", _at(pairs, 0.5), unit="us", target="<= 1.5")
    bench.say("append, one caller, p99", _at(pairs, 0.99), unit="us")


def test_one_caller_where_a_sync_takes_a_disk(
    bench: Bench, slow_sync: None, raw: Raw, db: SessionDB
) -> None:
    """Append with a sync of 2 ms.

    What sessiondb adds is computing. It does not grow with the disk's time.
    """
    session = bench.run(db.session("agent:main:bench:one"))
    count = size(50, 5)
    pairs = bench.rounds(
        lambda: latencies(lambda: raw.append(ENTRY_PAYLOAD), count),
        lambda: latencies(lambda: session.append(USER_MESSAGE), count),
        10,
    )
    bench.say(
        f"append, one caller, sync of {SYNC_S * 1000:.0f} ms, p50",
        _at(pairs, 0.5),
        unit="us",
        target="<= 1.5",
    )


@pytest.mark.parametrize("into", ["64 sessions", "one session"])
def test_many_callers_share_commits(bench: Bench, raw: Raw, db: SessionDB, into: str) -> None:
    """The floor: as many callers, each of whose rows is a transaction of its own."""
    pairs = _many_callers(bench, raw, db, 1 if into == "one session" else CALLERS, size(40, 2))
    bench.say(f"append, {CALLERS} callers, {into}", pairs, unit="/s", target=">= 5")


def test_many_callers_share_commits_where_a_sync_takes_a_disk(
    bench: Bench, slow_sync: None, raw: Raw, db: SessionDB
) -> None:
    """The same, with a sync that takes 2 ms: what sharing a commit saves is syncs."""
    pairs = _many_callers(bench, raw, db, CALLERS, size(6, 2))
    bench.say(
        f"append, {CALLERS} callers, sync of {SYNC_S * 1000:.0f} ms",
        pairs,
        unit="/s",
        target=">= 5",
    )


@pytest.mark.parametrize("which", ["another session", "the same session"])
def test_a_running_compaction_does_not_slow_appends(
    bench: Bench, db: SessionDB, which: str
) -> None:
    """Measure the floor: the same appends, without a compaction.

    The same messages arrive in the other place.
    """
    session = bench.run(db.session("agent:main:bench:busy"))
    other = (
        session if which == "the same session" else bench.run(db.session("agent:main:bench:other"))
    )
    count = size(3_000, 30)

    async def beside(work: Callable[[Session], Coroutine[Any, Any, None]]) -> list[float]:
        async with running(work(other)):
            return await latencies(lambda: session.append(USER_MESSAGE), count)

    pairs = bench.rounds(lambda: beside(_feed), lambda: beside(_feed_and_compact), 10)
    bench.say(f"append p99 while {which} compacts", _at(pairs, 0.99), unit="us", target="<= 1.3")
    bench.say(f"append p50 while {which} compacts", _at(pairs, 0.5), unit="us")


@pytest.fixture
def slow_sync() -> Iterator[None]:
    disk = SlowSync(SYNC_S)
    yield
    disk.unregister()


def _many_callers(
    bench: Bench, raw: Raw, db: SessionDB, conversations: int, each: int
) -> list[tuple[float, float]]:
    sessions = [
        bench.run(db.session(f"agent:main:bench:{number % conversations}"))
        for number in range(CALLERS)
    ]
    return bench.rounds(
        lambda: _throughput([lambda: raw.append(ENTRY_PAYLOAD)] * CALLERS, each),
        lambda: _throughput([_appending(session) for session in sessions], each),
        15,
    )


def _at(pairs: list[tuple[list[float], list[float]]], share: float) -> list[tuple[float, float]]:
    return [(percentile(floor, share), percentile(ours, share)) for floor, ours in pairs]


def _appending(session: Session) -> Callable[[], Awaitable[object]]:
    return lambda: session.append(USER_MESSAGE)


async def _throughput(callers: list[Callable[[], Awaitable[object]]], each: int) -> float:
    """Return operations per second of concurrent callers.

    Every caller makes `each`, one after another.
    """

    async def call(operation: Callable[[], Awaitable[object]]) -> None:
        for _ in range(each):
            await operation()

    began = perf_counter()
    await asyncio.gather(*(call(operation) for operation in callers))
    return len(callers) * each / (perf_counter() - began)


async def _feed(session: Session) -> None:
    while True:
        await session.append_many(NEWS)
        await asyncio.sleep(SUMMARISER_S)


async def _feed_and_compact(session: Session) -> None:
    """Compact back to back, each time with a summariser that sleeps."""
    while True:
        await session.append_many(NEWS)
        async with session.compact(trigger="threshold", keep_recent_tokens=500) as job:
            await asyncio.sleep(SUMMARISER_S)
            await job.commit("A short summary of what was said so far.")
