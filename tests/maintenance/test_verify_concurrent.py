"""`verify` beside writers: a change between two of its steps is no finding."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb.maintenance import verify, verify_steps
from tests.support.core import change, reply, user


class Writer:
    """Changes one session in every way there is, one change a call."""

    def __init__(self, db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
        self.db, self.session, self.number = db, session, 0

    async def change(self, kind: int) -> None:
        self.number += 1
        session = self.session
        match kind:
            case 0:
                await session.append(user("question " * 20))
            case 1:
                await session.append(reply("answer " * 20, tokens=self.number))
            case 2:
                await session.append(
                    {"type": "custom", "customType": "d", "data": {}, "appendMode": "side"}
                )
            case 3:
                await self.compact()
            case 4:
                await self.undo()
            case 5:
                page = await session.entries(last=5)
                await session.branch(page[0].entry_id if page else None)
            case 6:
                await session.reset()
            case 7:
                fork = await session.fork()
                await fork.append(user("in a fork"))
            case 8:
                await self.db.bind("agent:main:any", session)

    async def compact(self) -> None:
        try:
            async with self.session.compact(keep_recent_tokens=1) as job:
                await job.commit("s")
        except sessiondb.CompactionRefused:
            await self.session.append(reply("nothing to compact " * 20))

    async def undo(self) -> None:
        try:
            await self.session.undo_compaction()
        except sessiondb.NothingToUndo:
            await self.session.append(user("nothing to undo " * 20))


@settings(max_examples=20)
@given(kinds=st.lists(st.integers(0, 8), min_size=20, max_size=50))
def test_changes_between_two_steps_are_no_finding(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[int]
) -> None:
    async def main() -> None:
        path = tmp_path_factory.mktemp("verify") / "gateway.db"
        async with sessiondb.open(path, durability="normal") as db:
            writer = Writer(db, await db.session("agent:main:any"))
            waiting = iter(kinds)
            for kind in [0, 1, *kinds[: len(kinds) // 2]]:
                await writer.change(kind)
            walk = verify.Walk(None, deep=True)
            for step in walk.steps():
                await db.backend.read(step, op="verify")
                for kind in waiting:
                    await writer.change(kind)
                    break
            assert walk.report().findings == ()
            assert (await db.verify()).findings == ()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_steps, "PAGE_ROWS", 3)
        anyio.run(main)


@pytest.mark.anyio
async def test_verify_runs_beside_a_writer_that_never_rests(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_steps, "PAGE_ROWS", 5)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        writers = [Writer(db, await db.session(f"agent:main:chat:{number}")) for number in range(4)]
        done = False

        async def hammer(writer: Writer) -> None:
            while not done:
                await writer.change(writer.number * 7 % 10 % 9)

        async with anyio.create_task_group() as tasks:
            for writer in writers:
                tasks.start_soon(hammer, writer)
            while min(writer.number for writer in writers) < 40:
                assert (await db.verify()).findings == ()
            done = True
        report = await db.verify()
    assert report.findings == ()


@pytest.mark.anyio
async def test_a_session_that_is_deleted_meanwhile_is_not_reported(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may delete a whole session."""
    monkeypatch.setattr(verify_steps, "PAGE_ROWS", 2)
    missing = [
        "DELETE FROM quarantine",
        "DELETE FROM compaction",
        "DELETE FROM epoch",
        "DELETE FROM binding",
        "DELETE FROM branch",
        "DELETE FROM entry",
        "DELETE FROM session",
    ]
    async with sessiondb.open(broken) as db:
        walk = verify.Walk(1, deep=True)
        steps = walk.steps()
        for _ in range(4):
            await db.backend.read(next(steps), op="verify")
        await db.close()
    change(broken, *missing)
    async with sessiondb.open(broken) as db:
        for step in steps:
            await db.backend.read(step, op="verify")
    assert walk.report() == sessiondb.VerifyReport(sessions=0, entries=0, findings=())
