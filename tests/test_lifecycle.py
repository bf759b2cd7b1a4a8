"""Databases that a process shares, that are opened without a loop, or are gone at their end."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import lifecycle
from sessiondb.errors import InvalidInput, NotASessionDB, StoreClosed
from sessiondb.gateway.running_turn import Answer, Turn
from sessiondb.testing import ManualClock
from tests.support.core import query, user
from tests.support.gateway import eventually, inbox_states, running, say

KEY, OTHER = "agent:main:web:one", "agent:main:web:two"


async def nothing(_turn: Turn) -> Answer:
    return Answer()


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sessiondb-writer"]


def places() -> list[str]:
    return [path for path, place in lifecycle._places._by_path.items() if not place.is_over]


# -- shared ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_all_who_share_a_path_have_one_engine_and_the_last_closes_it(tmp_db: Path) -> None:
    async with sessiondb.shared(tmp_db) as one:
        async with sessiondb.shared(tmp_db) as two, sessiondb.shared(tmp_db) as three:
            assert one.backend is two.backend is three.backend
            await (await one.session(KEY)).append(user("hello"))
            assert (await (await two.session(KEY)).info()).entries == 1
        await (await one.session(KEY)).append(user("still here"))
    assert places() == []
    assert query(tmp_db, "SELECT count(*) FROM instance") == [1]
    async with sessiondb.shared(tmp_db) as again:
        assert (await (await again.session(KEY)).info()).entries == 2


@pytest.mark.anyio
async def test_an_object_that_was_closed_is_refused_and_the_others_go_on(tmp_db: Path) -> None:
    async with sessiondb.shared(tmp_db) as one:
        async with sessiondb.shared(tmp_db) as two:
            session = await two.session(KEY)
        with pytest.raises(StoreClosed, match="this object was closed"):
            await session.append(user("late"))
        with pytest.raises(InvalidInput, match="was opened with this object before"):
            await two.__aenter__()
        await two.close()
        two.close_now()
        await (await one.session(KEY)).append(user("in time"))


@pytest.mark.anyio
async def test_two_paths_are_two_databases_and_two_names_of_a_file_are_one(tmp_db: Path) -> None:
    link = tmp_db.parent / "link"
    link.symlink_to(tmp_db.parent, target_is_directory=True)
    async with (
        sessiondb.shared(tmp_db) as one,
        sessiondb.shared(link / tmp_db.name) as same,
        sessiondb.shared(tmp_db.with_name("other.db")) as other,
        sessiondb.open(tmp_db) as own,
    ):
        assert one.backend is same.backend
        assert len({id(db.backend) for db in (one, other, own)}) == 3


@pytest.mark.anyio
async def test_a_drain_of_one_object_leaves_the_loops_of_the_others(tmp_db: Path) -> None:
    async with sessiondb.shared(tmp_db) as one, sessiondb.shared(tmp_db) as two:
        async with running(partial(one.run_lane, "main", nothing)):
            async with anyio.create_task_group() as group:
                group.start_soon(two.run_lane, "cron", nothing)
                assert (await two.drain(timeout_s=60)).complete
            await say(two, "e1", KEY)
            await eventually(partial(all_done, one))


async def all_done(db: sessiondb.SessionDB) -> bool:
    return set((await inbox_states(db)).values()) == {"done"}


@pytest.mark.anyio
async def test_other_options_are_refused_by_name(tmp_db: Path) -> None:
    async with sessiondb.shared(tmp_db, durability="normal", program="first"):
        with pytest.raises(InvalidInput, match="with durability='normal', and cannot be shared"):
            await sessiondb.shared(tmp_db).__aenter__()
        with pytest.raises(InvalidInput, match="readonly=False, and cannot"):
            sessiondb.shared(tmp_db, durability="normal", readonly=True).open_now()
        with pytest.raises(InvalidInput, match="clock="):
            sessiondb.shared(tmp_db, durability="normal", clock=ManualClock()).open_now()
        async with sessiondb.shared(tmp_db, durability="normal", program="two", create=False):
            pass
    async with sessiondb.shared(tmp_db) as db:
        await db.session(KEY)


@pytest.mark.anyio
async def test_an_opening_that_fails_leaves_nothing_open(tmp_db: Path) -> None:
    await anyio.Path(tmp_db).write_bytes(b"something else " * 100)
    for _ in range(2):
        with pytest.raises(NotASessionDB):
            await sessiondb.shared(tmp_db).__aenter__()
    assert places() == []
    await anyio.Path(tmp_db).unlink()
    async with sessiondb.shared(tmp_db) as db:
        await db.session(KEY)


@pytest.mark.anyio
async def test_an_object_that_is_dropped_leaves_by_itself(tmp_db: Path) -> None:
    async with sessiondb.shared(tmp_db) as kept:
        dropped = await sessiondb.shared(tmp_db).__aenter__()
        assert dropped.backend is kept.backend
        del dropped
        gc.collect()
    assert places() == []
    assert writers() == []


def test_a_last_object_that_is_dropped_warns_as_any_database(tmp_db: Path) -> None:
    def drop() -> None:
        sessiondb.shared(tmp_db).open_now()
        gc.collect()

    with pytest.warns(ResourceWarning, match="was not closed"):
        drop()
    with sessiondb.sync.shared(tmp_db) as db:
        db.session(KEY)


def test_many_threads_that_open_at_once_have_one_engine(tmp_db: Path) -> None:
    begin = threading.Barrier(8)

    def work(number: int) -> int:
        begin.wait()
        with sessiondb.sync.shared(tmp_db) as db:
            begin.wait()  # all are in
            db.session(KEY).append(user(f"thread {number}"))
            return int((db.stats())["instance_no"])

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(8))) == {1}
    assert query(tmp_db, "SELECT count(*) FROM instance") == [1]
    assert query(tmp_db, "SELECT count(*) FROM entry WHERE role = 'user'") == [8]


def test_asyncio_trio_and_a_script_share_one_database_at_once(tmp_db: Path) -> None:
    begin = threading.Barrier(3)

    async def on_a_loop(name: str) -> int:
        async with sessiondb.shared(tmp_db) as db:
            await anyio.to_thread.run_sync(begin.wait)
            session = await db.session(KEY)
            for number in range(20):
                await session.append(user(f"{name} {number}"))
            await anyio.to_thread.run_sync(begin.wait)  # nobody has left before all are done
            return (await session.info()).entries

    def in_a_script() -> int:
        with sessiondb.sync.shared(tmp_db) as db:
            begin.wait()
            session = db.session(KEY)
            for number in range(20):
                session.append(user(f"script {number}"))
            begin.wait()
            return session.info().entries

    with ThreadPoolExecutor(3) as pool:
        found = [
            pool.submit(anyio.run, on_a_loop, "asyncio", backend="asyncio"),
            pool.submit(anyio.run, on_a_loop, "trio", backend="trio"),
            pool.submit(in_a_script),
        ]
        assert [one.result() for one in found] == [60, 60, 60]
    assert query(tmp_db, "SELECT count(*) FROM instance") == [1]


def test_a_forks_child_shares_nothing_with_its_parent(tmp_db: Path) -> None:
    with sessiondb.sync.shared(tmp_db) as parent:
        parent.session(KEY).append(user("parent"))
        old = sessiondb.shared(tmp_db).open_now()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _in_the_child(tmp_db, old)
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        parent.session(KEY).append(user("parent again"))
        old.close_now()
    assert query(tmp_db, "SELECT count(*) FROM entry WHERE role = 'user'") == [2]
    assert query(tmp_db, "SELECT count(*) FROM instance WHERE closed_at_ms IS NULL") == [0]


def _in_the_child(path: Path, old: sessiondb.SessionDB) -> int:
    for use in (old.close_now, partial(anyio.run, old.session, KEY)):
        try:
            use()
        except StoreClosed:
            continue
        return 2
    with pytest.raises(sessiondb.OpenError, match="was forked"):  # its locks would be the parent's
        sessiondb.shared(path).open_now()
    with sessiondb.sync.shared(path.with_name("child.db")) as db:
        db.session(OTHER).append(user("child"))
    return 0 if places() == [] else 3


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_cancels_an_opening_and_nothing_stays_open(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    open_now = sessiondb.SessionDB._open_now

    def slowly(db: sessiondb.SessionDB) -> object:
        begun.set()
        assert go_on.wait(60)
        return open_now(db)

    monkeypatch.setattr(sessiondb.SessionDB, "_open_now", slowly)
    task = asyncio.create_task(sessiondb.shared(tmp_db).__aenter__())
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert writers() == []
    async with sessiondb.shared(tmp_db) as db:
        await db.session(KEY)


# -- without a loop -------------------------------------------------------------------------


class Store:
    """A class whose constructor is synchronous, as a framework's often is."""

    def __init__(self, path: Path) -> None:
        self.db = sessiondb.open(path).open_now()

    async def add(self, text: str) -> None:
        await (await self.db.session(KEY)).append(user(text))


def test_a_constructor_opens_what_any_loop_uses(tmp_db: Path) -> None:
    store = Store(tmp_db)
    anyio.run(store.add, "asyncio", backend="asyncio")
    anyio.run(store.add, "trio", backend="trio")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(partial(anyio.run, store.add), ["a", "b", "c", "d"]))
    store.db.close_now()
    store.db.close_now()
    assert query(tmp_db, "SELECT count(*) FROM entry WHERE role = 'user'") == [6]
    with pytest.raises(StoreClosed):
        anyio.run(store.add, "late")


@pytest.mark.anyio
async def test_it_may_be_opened_and_closed_while_a_loop_runs(tmp_db: Path) -> None:
    db = sessiondb.open(tmp_db).open_now()
    with pytest.raises(InvalidInput, match="was opened with this object before"):
        db.open_now()
    await db.session(KEY)
    await db.close()
    db.close_now()
    assert writers() == []


def test_an_opening_without_a_loop_that_fails_leaves_nothing(tmp_db: Path) -> None:
    tmp_db.write_bytes(b"something else " * 100)
    with pytest.raises(NotASessionDB):
        sessiondb.open(tmp_db).open_now()
    assert writers() == []


def test_what_was_never_opened_may_be_closed(tmp_db: Path) -> None:
    for db in (sessiondb.open(tmp_db), sessiondb.shared(tmp_db), sessiondb.temporary()):
        db.close_now()
        anyio.run(db.close)


# -- temporary ------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_temporary_database_is_gone_at_its_end() -> None:
    async with sessiondb.temporary() as one, sessiondb.temporary() as two:
        folders = [Path(db.path).parent for db in (one, two)]
        await (await one.session(KEY)).append(user("hello"))
        assert [info async for info in two.sessions()] == []
        assert [folder.exists() for folder in folders] == [True, True]
    assert [folder.exists() for folder in folders] == [False, False]


def test_a_temporary_database_of_a_script_and_of_a_constructor_is_gone(tmp_path: Path) -> None:
    with sessiondb.sync.temporary(clock=ManualClock()) as db:
        path = Path(db.path)
        db.session(KEY)
        assert path.exists()
    assert not path.parent.exists()
    held = sessiondb.temporary().open_now()
    path = Path(held.path)
    assert path.exists()
    held.close_now()
    held.close_now()
    assert not path.parent.exists()


@pytest.mark.anyio
async def test_a_temporary_database_that_cannot_be_opened_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(sessiondb.OpenError):
        await sessiondb.temporary(create=False).__aenter__()
    with pytest.raises(sessiondb.OpenError):
        sessiondb.temporary(create=False).open_now()
    assert [found async for found in anyio.Path(tmp_path).iterdir()] == []
