"""The application's use of threads is its own affair: it holds up nothing of the library."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

import sessiondb
from sessiondb.maintenance.retention import RetentionPolicy
from tests import ROOT
from tests.support.core import texts, user
from tests.support.engine import PATIENCE_S
from tests.support.transfer import transcript, write

pytestmark = pytest.mark.anyio

KEY = "agent:main:web:1"
# Long enough to be encoded in a thread.
LARGE = "x" * 100_000


@asynccontextmanager
async def a_full_pool() -> AsyncIterator[None]:
    """Occupy every thread that the application may have, for as long as the block lasts."""
    release = threading.Event()
    limiter = anyio.to_thread.current_default_thread_limiter()
    async with anyio.create_task_group() as group:
        for _ in range(int(limiter.total_tokens)):
            group.start_soon(anyio.to_thread.run_sync, release.wait)
        while limiter.available_tokens:
            await anyio.lowlevel.checkpoint()
        try:
            with anyio.fail_after(PATIENCE_S):
                yield
        finally:
            release.set()


async def test_a_full_thread_pool_of_the_application_holds_nothing_up(
    tmp_db: Path, tmp_path: Path
) -> None:
    folder = write(tmp_path / "sessions", {"s-1.jsonl": transcript(3)})
    async with a_full_pool():
        async with sessiondb.open(tmp_db) as db:
            session = await db.session(KEY)
            await session.append(user(LARGE))
            await db.accept("agent:main:web:2", user(LARGE), channel="web", event_id="1")
            assert texts(await session.context()) == [LARGE]
            assert await db.recover() == sessiondb.Recovered()
            assert await db.held() == []
            assert (await db.status()).sessions == 2
            assert await db.backup(tmp_path / "copy.db") > 0
            assert not (await db.import_path(folder)).damaged
            await db.export(tmp_path / "out")
            report = await db.gc(RetentionPolicy(max_sessions=0, idle_days=0))
            assert report.count("done") == 2, "the third has a message that waits"
            await db.unarchive(session.id)
            assert (await db.verify()).ok
        async with sessiondb.open(tmp_db, readonly=True) as db:
            assert len([info async for info in db.sessions()]) == 2, "one is archived"


async def test_threads_that_all_call_the_library_do_not_wait_for_one_another(tmp_db: Path) -> None:
    """Forty endpoints that are plain functions append at once, as a web framework runs them."""
    number = int(anyio.to_thread.current_default_thread_limiter().total_tokens)
    together = threading.Barrier(number)
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)

        def endpoint() -> None:
            together.wait(PATIENCE_S)
            anyio.from_thread.run(session.append, user(LARGE))

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                for _ in range(number):
                    group.start_soon(anyio.to_thread.run_sync, endpoint)
        assert len(texts(await session.context())) == number


def test_no_module_takes_the_applications_threads() -> None:
    """Those of anyio and asyncio are the application's, and a program's end waits for them."""
    pools = ("to_thread", "run_in_executor", "ThreadPoolExecutor")
    found = {
        f"{path.name} {pool}"
        for path in (ROOT / "sessiondb").rglob("*.py")
        for pool in pools
        if pool in path.read_text()
    }
    assert found == set()
