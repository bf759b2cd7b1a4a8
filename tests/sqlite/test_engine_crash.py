"""Processes that die without closing: what is on disk."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.engine import count, opened, other_process

pytestmark = pytest.mark.anyio


async def test_a_reader_after_a_crash_reads_the_wal_and_leaves_it(tmp_db: Path) -> None:
    crash_after(tmp_db, acknowledged=5)
    wal = tmp_db.with_name("gateway.db-wal")
    size = wal.stat().st_size
    assert size > 0
    async with opened(tmp_db, readonly=True) as visitor:
        assert await count(visitor, "acknowledged") >= 5
    assert wal.stat().st_size == size


WRITER = """
import sys, anyio
from tests.support.engine import insert, opened
async def main():
    async with opened(sys.argv[1]) as backend:
        while True:
            await backend.write(insert("acknowledged"), op="append")
            print("acknowledged", flush=True)
anyio.run(main)
"""


def crash_after(path: Path, acknowledged: int) -> int:
    """Kill a process that writes without pause; return how many writes it had acknowledged."""
    with other_process(WRITER, path) as child:
        assert child.stdout is not None
        for _ in range(acknowledged):
            assert child.stdout.readline() == "acknowledged\n"
        child.send_signal(signal.SIGKILL)
        # Not communicate(): it skips lines that readline() has buffered already.
        return acknowledged + child.stdout.read().count("acknowledged\n")


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_db: Path) -> None:
    report = sum(crash_after(tmp_db, acknowledged) for acknowledged in (1, 10, 50, 200))
    async with opened(tmp_db) as backend:
        found = await count(backend, "acknowledged")
        # At most the one that was in COMMIT at each kill may be there without its caller knowing.
        assert report <= found <= report + 4, (report, found)
        check = await backend.read(lambda tx: tx._connection.pragma("integrity_check"), op="check")
        assert check == "ok"
