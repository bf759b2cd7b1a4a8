"""The engine as its callers see it: reading beside a gateway, files that change, a fork."""

# ruff: noqa: ASYNC240  # tests look at files as they please

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from sessiondb.errors import StoreClosed, StoreFailed, StoreReadOnly
from tests.support.engine import count, insert, names_in, opened, run_python

pytestmark = pytest.mark.anyio


async def test_a_reader_beside_a_gateway_sees_commits_only(tmp_db: Path) -> None:
    async with opened(tmp_db) as gateway, opened(tmp_db, readonly=True) as visitor:
        await gateway.write(insert("x"), op="append")
        assert await count(visitor, "x") == 1
        with pytest.raises(StoreReadOnly, match="readonly=True"):
            await visitor.write(insert("y"), op="append")
        with pytest.raises(apsw.ReadOnlyError):
            await visitor.read(lambda tx: tx.all("test.insert_returning", program="y"), op="sneak")
        assert visitor.stats()["writer"] is None
        rows = await visitor.read(lambda tx: tx.first("test.count_like", pattern="*").n, op="count")
        assert rows == 2  # the gateway and the row: a visitor registers nowhere
        assert tmp_db.with_name("gateway.db-wal").exists()


async def test_a_reader_of_a_closed_database_leaves_no_file_behind(tmp_db: Path) -> None:
    async with opened(tmp_db) as gateway:
        await gateway.write(insert("x"), op="append")
    before = tmp_db.read_bytes()
    async with opened(tmp_db, readonly=True) as visitor:
        assert await count(visitor, "x") == 1
    assert names_in(tmp_db.parent) == [tmp_db.name, f"{tmp_db.name}-alive"], "the gateway's"
    assert tmp_db.read_bytes() == before


async def test_a_file_that_is_moved_or_replaced_is_noticed_in_time(tmp_db: Path) -> None:
    moved = tmp_db.with_name("moved.db")
    async with opened(tmp_db, guard=False) as backend:
        await backend.write(insert("before"), op="append")
        tmp_db.rename(moved)
        with pytest.raises(
            StoreFailed, match=r"append: .* was moved, deleted or replaced while it was open"
        ):
            await backend.write(insert("lost"), op="append")
        tmp_db.touch()
        with pytest.raises(StoreFailed):
            await backend.write(insert("lost"), op="append")
        moved.replace(tmp_db)
        await backend.write(insert("after"), op="append")
        assert [await count(backend, name) for name in ("before", "lost", "after")] == [1, 0, 1]


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
