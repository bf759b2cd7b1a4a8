"""Under load: full-speed appends beside three readers that never pause.

What becomes of the WAL, of throughput, and of the event loop that all of it shares.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from measure import USER_MESSAGE, Bench, percentile, size

from sessiondb import Session, SessionDB
from sessiondb.backend import ReadTx
from sessiondb.limits import Limits

CALLERS = 64
READERS = 3
SNAPSHOT_S = 0.02
TICK_S = 0.005


@dataclass
class Watch:
    """What was seen while a load ran."""

    appended: int = 0
    seconds: float = 0.0
    wal_bytes: int = 0
    lags_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.appended / self.seconds


def test_busy_readers_neither_grow_the_wal_nor_starve_appends(
    bench: Bench, db: SessionDB, tmp_path: Path
) -> None:
    """The floor: the configured limit. The throughput without readers. The lag of an idle loop."""
    wal = tmp_path / "gateway.db-wal"
    sessions = [bench.run(db.session(f"agent:main:load:{number}")) for number in range(CALLERS)]
    idle = bench.run(_idle(wal, size(5, 1)))
    pairs: list[tuple[Watch, Watch]] = bench.rounds(
        lambda: _appends(wal, sessions, size(15, 1)),
        lambda: _appends(wal, sessions, size(15, 2), db=db),
        4,
    )
    limit_mb = Limits().wal_bytes_max / 1e6
    longest = max(ours.wal_bytes for _, ours in pairs) / 1e6
    bench.say(
        f"WAL at most, {READERS} readers without pause",
        [(limit_mb, longest)],
        unit="MB",
        target="<= 2",
    )
    rates = [(alone.rate, beside.rate) for alone, beside in pairs]
    bench.say(f"append throughput beside {READERS} readers", rates, unit="/s", target=">= 0.7")
    idle_p99 = percentile(idle.lags_ms, 0.99)
    bench.say(
        "event-loop lag p99, that load to idle",
        [(idle_p99, percentile(ours.lags_ms, 0.99)) for _, ours in pairs],
        unit="ms",
    )
    bench.say(
        "event-loop lag p99, appends alone to idle",
        [(idle_p99, percentile(alone.lags_ms, 0.99)) for alone, _ in pairs],
        unit="ms",
    )


async def _idle(wal: Path, seconds: float) -> Watch:
    async with _watched(wal) as watch:
        await asyncio.sleep(seconds)
    return watch


async def _appends(
    wal: Path, sessions: list[Session], seconds: float, *, db: SessionDB | None = None
) -> Watch:
    """Append as fast as it goes. With `db`, beside readers of it."""
    stop_at = perf_counter() + seconds

    async def append(session: Session) -> int:
        count = 0
        while perf_counter() < stop_at:
            await session.append(USER_MESSAGE)
            count += 1
        return count

    async def read(db: SessionDB, session: Session) -> int:
        while perf_counter() < stop_at:
            await db.read("bench.snapshot", lambda tx: _hold_snapshot(tx, session.ref.session_no))
        return 0

    work: list[Coroutine[Any, Any, int]] = [append(session) for session in sessions]
    if db is not None:
        work += [read(db, session) for session in sessions[:READERS]]
    async with _watched(wal) as watch:
        watch.appended = sum(await asyncio.gather(*work))
    return watch


def _hold_snapshot(tx: ReadTx, session_no: int) -> None:
    tx.first("context.pointers", session_no=session_no)
    time.sleep(SNAPSHOT_S)  # on a reader thread: what a slow read does to the WAL


@asynccontextmanager
async def _watched(wal: Path) -> AsyncIterator[Watch]:
    """Tick while the block runs: how late each tick is, and how long the WAL is."""
    watch, began = Watch(), perf_counter()
    task = asyncio.create_task(_tick(watch, wal))
    try:
        yield watch
    finally:
        watch.seconds = perf_counter() - began
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _tick(watch: Watch, wal: Path) -> None:
    while True:
        due = perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        watch.lags_ms.append((perf_counter() - due) * 1000)
        watch.wal_bytes = max(watch.wal_bytes, os.stat(wal).st_size)  # noqa: PTH116
