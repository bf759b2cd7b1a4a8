"""Processes that die, exit or fork without closing: what is on disk, and what is refused."""

from __future__ import annotations

import gc
import signal
from pathlib import Path

import apsw
import pytest

from sessiondb.errors import StoreClosed
from sessiondb.sqlite import SqliteBackend
from tests.support.engine import PATIENCE_S, count, insert, opened, other_process, run_python

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


@pytest.mark.parametrize(
    "ending", ["return", "raise SystemExit(0)", "del backend; import gc; gc.collect()"]
)
def test_a_program_that_never_closes_exits_cleanly(tmp_db: Path, ending: str) -> None:
    code = f"""
import sys, anyio, warnings
warnings.simplefilter("ignore", ResourceWarning)
from tests.support.engine import insert
from sessiondb.sqlite import SqliteBackend
kept = []
async def main():
    backend = await SqliteBackend.open(sys.argv[1])
    await backend.write(insert("x"), op="append")
    await backend.read(lambda tx: None, op="read")
    if {ending!r} == "return":
        kept.append(backend)
    {ending}
anyio.run(main)
"""
    answer = run_python(code, tmp_db)
    assert (answer.returncode, answer.stderr) == (0, "")
    found = apsw.Connection(str(tmp_db))
    # It signed off too, unless it was collected without anyone to wait for it.
    assert found.execute("SELECT count(*) FROM instance WHERE program = 'x'").fetchall() == [(1,)]
    if ending == "return":
        assert found.execute("SELECT count(closed_at_ms) FROM instance").fetchall() == [(1,)]
        assert sorted(
            file.name
            for file in tmp_db.parent.iterdir()
            if "-wal" not in file.name and "-shm" not in file.name
        ) == [tmp_db.name, f"{tmp_db.name}-alive"]


def test_writes_that_are_queued_at_exit_are_still_done(tmp_db: Path) -> None:
    code = """
import asyncio, sys, threading
from tests.support.engine import insert
from sessiondb.sqlite import SqliteBackend
release = threading.Event()
async def main():
    backend = await SqliteBackend.open(sys.argv[1])
    loop = asyncio.get_running_loop()
    began = threading.Event()
    hold = lambda tx: (began.set(), release.wait(30))
    tasks = [asyncio.create_task(backend.write(hold, op="hold"))]
    while not began.is_set():
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(backend.write(insert("queued"), op="append")) for _ in range(10)]
    while backend.stats()["writer"]["queue_items"] < 10:
        await asyncio.sleep(0.001)
    for task in tasks:
        task._log_destroy_pending = False
    return backend, tasks
loop = asyncio.new_event_loop()
kept = loop.run_until_complete(main())
loop.close()
import atexit
atexit.register(release.set)
"""
    answer = run_python(code, tmp_db)
    assert answer.returncode == 0, answer.stderr
    found = apsw.Connection(str(tmp_db))
    assert found.execute("SELECT count(*) FROM instance WHERE program = 'queued'").fetchall() == [
        (10,)
    ]


async def test_a_backend_that_is_dropped_warns_and_ends_its_threads(tmp_db: Path) -> None:
    backend = await SqliteBackend.open(tmp_db)
    parts = backend._parts
    # The last reference must be dropped inside.
    with pytest.warns(ResourceWarning, match="was not closed"):  # noqa: PT031
        del backend
        gc.collect()
    assert parts.writer is not None
    assert parts.writer.join(PATIENCE_S)
    assert parts.readers.join(PATIENCE_S)


def test_a_forked_child_is_refused_and_harms_no_parent(tmp_db: Path) -> None:
    # The event loop runs in another thread (as under the synchronous façade), because a fork
    # shares a loop's own files.
    code = """
import asyncio, os, sys, warnings
from anyio.from_thread import start_blocking_portal
warnings.simplefilter("ignore", DeprecationWarning)
from tests.support.engine import count, insert
from sessiondb.errors import StoreClosed
from sessiondb.sqlite import SqliteBackend, guard

async def child(backend):
    refused = 0
    write = lambda: backend.write(insert("child"), op="append")
    async def stats():
        backend.stats()
    for call in (write, lambda: count(backend, "before"), stats, backend.close):
        try:
            await call()
        except StoreClosed as error:
            assert "before a fork" in str(error)
            refused += 1
    return refused

with start_blocking_portal() as portal:
    backend = portal.call(SqliteBackend.open, sys.argv[1])
    portal.call(lambda: backend.write(insert("before"), op="append"))
    portal.call(count, backend, "before")
    # What a thread of the parent may hold at the moment of the fork.
    held = [backend._parts.writer.queue._lock, backend._parts.readers.lock, guard._lock]
    for lock in held:
        lock.acquire()
    pid = os.fork()
    if pid:
        for lock in held:
            lock.release()
    if pid == 0:
        import gc
        with guard._lock:
            pass
        refused = asyncio.run(child(backend))
        portal = None
        del backend
        gc.collect()
        import atexit
        # What an ordinary exit does, without waiting for the portal's thread: it is not here.
        atexit._run_exitfuncs()
        os._exit(10 + refused)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status))
    assert os.path.exists(sys.argv[1] + "-wal")
    portal.call(lambda: backend.write(insert("after"), op="append"))
    print(portal.call(count, backend, "after"))
    portal.call(backend.close)
"""
    answer = run_python(code, tmp_db)
    assert (answer.returncode, answer.stdout) == (0, "14\n1\n"), answer.stderr
    found = apsw.Connection(str(tmp_db))
    assert found.execute(
        "SELECT program FROM instance WHERE host = 'h' ORDER BY instance_no"
    ).fetchall() == [("before",), ("after",)]
    assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_use_after_a_fork_says_which_process_opened_it(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        backend._parts.pid += 1
        with pytest.raises(
            StoreClosed, match="Open the database in a process that was started afresh"
        ):
            await backend.write(insert("x"), op="append")
        backend._parts.pid -= 1
