"""A kill at any point of an archive or a restore loses nothing, and the next run continues."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import sessiondb
import sessiondb.sync
from sessiondb.maintenance import archive, archive_small, retention
from tests import ROOT
from tests.support import warm
from tests.support.core import one_loop, query, user
from tests.support.maintenance import (
    EVERYTHING,
    KEY,
    Dying,
    Killed,
    archive_session,
    dump,
    eventful_session,
)

pytestmark = pytest.mark.one_loop


@pytest.fixture
def in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every session archived in many steps, as a large one is."""
    monkeypatch.setattr(archive_small, "ARCHIVE_CHUNK_ROWS", 0)


@pytest.mark.anyio
@pytest.mark.usefixtures("in_steps")
@one_loop
async def test_killed_after_any_write_the_next_run_ends_the_archive(
    tmp_path: Path,
) -> None:
    ops: list[str] = []
    for writes in range(200):
        path = tmp_path / f"{writes}.db"
        async with sessiondb.open(path) as db:
            session = await eventful_session(db, length=4)
        before = dump(path)
        async with sessiondb.open(path) as db:
            dying = Dying(db.backend, writes)
            try:
                await retention.gc(dying, EVERYTHING)
                finished = True
            except Killed:
                finished = False
        async with sessiondb.open(path) as db:
            assert (await db.verify()).findings == (), (writes, dying.ops)
            report = await retention.gc(db.backend, EVERYTHING)
            ended = report.sessions - report.kept + report.resumed_archives
            assert (report.ok, ended) == (True, int("archive.finish" not in dying.ops)), (
                writes,
                dying.ops,
            )
            assert query(path, "SELECT state, finished_at_ms IS NULL FROM archive") == [
                ("archived", 0)
            ]
            assert query(path, "SELECT count(*) FROM entry") == [0]
            assert (await db.verify()).findings == ()
            await db.unarchive(session.id)
        assert dump(path) == before, writes
        if finished:
            break
        ops = dying.ops
    else:
        pytest.fail("it never came to its end")
    assert {
        "archive.begin",
        "archive.chunk",
        "archive.complete",
        "archive.release",
        "archive.delete",
        "archive.finish",
    } <= set(ops)


@pytest.mark.anyio
@one_loop
async def test_killed_after_any_write_the_next_run_ends_the_restore(
    tmp_path: Path,
) -> None:
    for writes in range(200):
        path = tmp_path / f"{writes}.db"
        async with sessiondb.open(path) as db:
            session = await eventful_session(db, length=4)
        before = dump(path)
        async with sessiondb.open(path) as db:
            await archive_session(db, session)
            dying = Dying(db.backend, writes)
            try:
                await archive.restore(dying, session.ref.session_no)
                finished = True
            except Killed:
                finished = False
        async with sessiondb.open(path) as db:
            assert (await db.verify()).findings == (), (writes, dying.ops)
            is_back = query(path, "SELECT count(*) FROM session WHERE archived_at_ms IS NULL") == [
                1
            ]
            if writes % 2 and "restore.begin" in dying.ops:
                await retention.finish(db.backend)
            elif not is_back:
                await db.unarchive(session.id)
            await retention.finish(db.backend)
            assert query(path, "SELECT count(*) FROM archive_chunk") == [0]
        assert dump(path) == before, (writes, dying.ops)
        if finished:
            break
    else:
        pytest.fail("it never came to its end")
    assert {"restore.begin", "restore.rows", "restore.finish", "archive.forget"} <= set(dying.ops)


@pytest.mark.anyio
@pytest.mark.usefixtures("in_steps")
@pytest.mark.parametrize("writes", [1, 2, 4, 5, 6, 7])
async def test_an_unfinished_archive_can_be_restored_at_any_point(
    tmp_db: Path, writes: int
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=4)
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(Killed):
            await retention.gc(Dying(db.backend, writes), EVERYTHING)
        await db.unarchive(session.id)
        assert (await db.verify()).findings == ()
    assert dump(tmp_db) == before


CHILD = """
import os, sys, anyio, sessiondb
from sessiondb.maintenance import retention
from sessiondb.maintenance.retention import RetentionPolicy
path, writes = sys.argv[1], int(sys.argv[2])
class Dying:
    def __init__(self, backend): self.backend, self.left = backend, writes
    def __getattr__(self, name): return getattr(self.backend, name)
    async def step(self, fn, **options):
        if not self.left: os.kill(os.getpid(), 9)
        self.left -= 1
        return await self.backend.step(fn, **options)
async def main():
    async with sessiondb.open(path) as db:
        await retention.gc(Dying(db.backend), RetentionPolicy(max_sessions=0, idle_days=0))
anyio.run(main)
"""


@pytest.mark.parametrize("writes", [1, 3, 5, 7])
def test_a_process_killed_while_archiving_leaves_nothing_held(tmp_db: Path, writes: int) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        session = db.session(KEY)
        session.append_many([user(f"{number}") for number in range(600)])
    before = dump(tmp_db)
    child = warm.run([sys.executable, "-c", CHILD, str(tmp_db), str(writes)], cwd=ROOT, check=False)
    assert child.returncode == -9
    with sessiondb.sync.open(tmp_db) as db:
        assert db.verify().findings == ()
        db.session("agent:main:web:new").append(user("nothing waits"))
        db.unarchive(session.id)
        assert db.verify().findings == ()
    after = dump(tmp_db)
    assert [
        entry for entry in after["entry"] if entry[0] >> 32 == session.ref.session_no
    ] == before["entry"]
    assert set(before["session"]) <= set(after["session"])
