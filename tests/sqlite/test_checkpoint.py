"""Checkpoints: the WAL stays near its limit, with readers and other writers beside it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from sessiondb.limits import KIB, MIB, Limits
from sessiondb.sqlite import SqliteBackend
from sessiondb.sqlite.checkpoint import Checkpointer
from tests.support.engine import Hold, insert, opened, until

pytestmark = pytest.mark.anyio


def wal_file_bytes(backend: SqliteBackend) -> int:
    return int(backend.stats()["wal_file_bytes"])


async def append_large(backend: SqliteBackend, times: int, size: int = 20_000) -> None:
    for _ in range(times):
        await backend.write(lambda tx: tx.run("test.insert_large", size=size), op="append")


async def test_the_wal_stays_near_its_limit(tmp_db: Path) -> None:
    limits = Limits(wal_bytes_max=MIB)
    async with opened(tmp_db, limits=limits, durability="normal") as backend:
        await append_large(backend, 300)  # six times the limit
        assert backend.stats()["writer"]["checkpoint"]["ok"] >= 4
        assert wal_file_bytes(backend) < 2 * limits.wal_bytes_max


async def test_the_wal_stays_bounded_under_gapless_readers(tmp_db: Path) -> None:
    limits = Limits(wal_bytes_max=MIB)
    async with opened(tmp_db, limits=limits, durability="normal") as backend:
        stop = threading.Event()

        def snapshot(tx: Any) -> int:
            first = tx.first("test.count_like", pattern="*").n
            stop.wait(0.005)  # the snapshot is open, and another reader's overlaps with it
            return int(first)

        async def read() -> None:
            while not stop.is_set():
                await backend.read(snapshot, op="snapshot")

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read)
            await append_large(backend, 400)
            largest = wal_file_bytes(backend)
            checkpoint = backend.stats()["writer"]["checkpoint"]
            stop.set()
        assert checkpoint["ok"] >= 4
        assert largest < 4 * limits.wal_bytes_max, (
            checkpoint
        )  # an unbounded WAL would hold all of 8 MB


async def test_a_long_snapshot_blocks_a_reset_and_is_reported(tmp_db: Path) -> None:
    limits = Limits(wal_bytes_max=64 * KIB, wal_reset_ms_max=5, wal_retry_ms=1)
    async with opened(tmp_db, limits=limits) as backend:
        hold = Hold()
        before = backend.stats()["writer"]["checkpoint"]["ok"]

        def snapshot(tx: Any) -> None:
            tx.first("test.count_like", pattern="*")
            hold(tx)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.read(snapshot, op="snapshot"))
            await until(hold.begun.is_set)
            await append_large(backend, 10)
            await until(
                lambda: backend.stats()["writer"]["checkpoint"]["blocked"] >= 2
            )  # retried without a further write
            assert backend.stats()["writer"]["checkpoint"]["blocked_since_ms"] is not None
            hold.release.set()
        await until(lambda: backend.stats()["writer"]["checkpoint"]["ok"] > before)
        await until(lambda: backend.stats()["writer"]["checkpoint"]["blocked_since_ms"] is None)
        await backend.write(insert("x"), op="append")
        assert backend.stats()["writer"]["wal_bytes"] < limits.wal_bytes_max


def test_blocked_attempts_in_a_row_pause_for_less_and_less() -> None:
    now = 0.0
    waits: list[float] = []

    class Blocked(Checkpointer):
        def _reset(self, connection: apsw.Connection, give_up: float) -> bool:
            waits.append(give_up - now)
            return len(waits) == 7

    limits = Limits(wal_bytes_max=64 * KIB, wal_reset_ms_max=800, wal_retry_ms=1_000)
    checkpoints = Blocked(limits, clock=lambda: now)
    connection = apsw.Connection(":memory:")
    assert checkpoints.due_in_s is None
    checkpoints.on_commit(connection, "main", 100)
    for attempt in range(7):
        assert checkpoints.due_in_s == 0
        assert checkpoints.run_once(connection) is (attempt == 6)
        assert checkpoints.due_in_s == (None if attempt == 6 else 1.0)
        now += 1.0
    assert [round(wait, 6) for wait in waits] == [0.8, 0.4, 0.2, 0.1, 0.1, 0.1, 0.1]
    checkpoints.on_commit(connection, "main", 100)
    checkpoints.run_once(connection)
    assert round(waits[-1], 6) == 0.8  # a success restores the full time


def test_a_pause_ends_when_another_process_resets_the_wal(tmp_db: Path) -> None:
    """Otherwise the processes fall out of step: one always writes, and no pause ends."""
    first, second = apsw.Connection(str(tmp_db)), apsw.Connection(str(tmp_db))
    first.execute(
        "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(100000))"
    ).fetchall()
    limits = Limits(wal_bytes_max=64 * KIB, wal_reset_ms_max=2_000)
    checkpoints = Checkpointer(limits)
    checkpoints.on_commit(first, "main", 100)  # what this process knows: 400 KiB
    assert checkpoints.due_in_s == 0
    second.execute("SELECT count(*) FROM t").fetchall()
    second.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    second.execute("INSERT INTO t VALUES (1); BEGIN IMMEDIATE").fetchall()
    # The other connection writes again, so a reset by this one finds the lock taken. It
    # would wait for two seconds, and fail.
    assert checkpoints.run_once(first) is True
    assert (checkpoints.stats.ok, checkpoints.stats.blocked, checkpoints.due_in_s) == (1, 0, None)
    second.execute("ROLLBACK")


def test_a_reset_blocked_for_long_gets_its_full_time_again() -> None:
    """Readers that need half the time must not block a reset for ever after a long block."""
    waits: list[float] = []
    now = 0.0

    class Blocked(Checkpointer):
        def _reset(self, connection: apsw.Connection, give_up: float) -> bool:
            waits.append(give_up - now)
            return (
                len(waits) > 4 and waits[-1] > 0.4
            )  # the obstacle went after the fourth attempt; what is left needs half

    checkpoints = Blocked(
        Limits(wal_bytes_max=64 * KIB, wal_reset_ms_max=800, wal_retry_ms=1_000), clock=lambda: now
    )
    connection = apsw.Connection(":memory:")
    checkpoints.on_commit(connection, "main", 100)
    while not checkpoints.run_once(connection):
        now += 1.0
        assert len(waits) < 100, "it never gets enough time"
    assert len(waits) == 9
    assert sum(waits) / len(waits) < 0.4


class Passing:
    """A connection whose passive checkpoint does what a test wants."""

    def __init__(self, *outcomes: tuple[int, int] | apsw.Error) -> None:
        self.outcomes = list(outcomes)

    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]:
        assert mode == apsw.SQLITE_CHECKPOINT_PASSIVE
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, apsw.Error):
            raise outcome
        return outcome


def test_an_idle_database_is_folded_and_tried_again_after_a_pause() -> None:
    """A reader, another process and a disk that fails: each is counted, and none is final."""
    now = 100.0
    limits = Limits(wal_bytes_max=64 * KIB, wal_fold_s=5.0, wal_retry_ms=2_000)
    checkpoints = Checkpointer(limits, clock=lambda: now)
    assert (checkpoints.due_in_s, checkpoints.wal_bytes) == (None, 0)
    stats = checkpoints.stats
    assert (stats.ok, stats.folded, stats.folds_blocked, stats.blocked, stats.failed) == (0,) * 5
    connection: Any = Passing((3, 2), apsw.BusyError("x"), apsw.IOError("disk"), (3, 3))
    checkpoints.on_commit(connection, "main", 3)
    assert checkpoints.wal_bytes == 3 * (4096 + 24)
    assert checkpoints.due_in_s == 5.0
    now += 6.0
    assert checkpoints.due_in_s == 0
    for blocked in (1, 2, 3):
        checkpoints.run_due(connection)
        assert (stats.folds_blocked, stats.folded) == (blocked, 0)
        assert checkpoints.due_in_s == 2.0
        now += 1.5
        assert checkpoints.due_in_s == 0.5
        now += 0.5
    assert (stats.failed, stats.last_error) == (1, "disk")
    checkpoints.run_due(connection)
    assert (stats.folded, stats.folds_blocked, checkpoints.due_in_s) == (1, 3, None)


def test_what_cannot_be_done_now_is_postponed() -> None:
    now = 100.0
    limits = Limits(wal_bytes_max=64 * KIB, wal_fold_s=1.0, wal_retry_ms=3_000)
    for pages in (3, 100):  # below the limit and above it
        checkpoints = Checkpointer(limits, clock=lambda: now)
        checkpoints.on_commit(apsw.Connection(":memory:"), "main", pages)
        checkpoints.postpone()
        assert checkpoints.due_in_s == 3.0
