"""Processes that freeze and processes that fork lose nothing and write nothing twice.

A frozen process (SIGSTOP: a debugger, a closed lid, a container that is paused) keeps
what it held. That may be SQLite's write lock in the middle of a transaction, the
checkpoint or the recovery of the WAL, or the lease of a turn. Others are told which
process they wait for and when to retry. They continue to read. When the frozen process
is killed or continues, so do they.

A fork's child inherits connections without their locks. Its every use of them is
refused. Neither its end nor its garbage collection touches its parent's work. It cannot
open the same file anew either.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb.errors import StoreBusy
from sessiondb.limits import Limits
from sessiondb.sqlite.files import lock_holder_pid
from tests.proofs.crash.child import GATEWAY_MESSAGES, GATEWAY_TALKS
from tests.proofs.crash.harness import Templates, World, Zygote, zygote
from tests.support.core import query, user
from tests.support.engine import other_process

pytestmark = pytest.mark.slow

# So short that a test waits a moment for its end, and nothing depends on how long that moment is.
LIMITS = Limits(busy_timeout_s=0.2, wal_bytes_max=64 * 1024, wal_retry_ms=0, wal_reset_ms_max=5)


@pytest.fixture(name="zygote")
def first_zygote() -> Zygote:
    return zygote()


@pytest.fixture
def second_zygote() -> Zygote:
    return zygote(1)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("templates"))


def freeze(zygote: Zygote, world: World, step: str, nth: int = 1, **order: Any) -> None:
    """Start a child. On return it stands still at a step."""
    zygote.start(world.order(step, nth, how="SIGSTOP", **order))
    zygote.until("stopped")


# -- frozen ----------------------------------------------------------------------------


async def _with_a_frozen_writer(world: World, zygote: Zygote, end: signal.Signals) -> None:
    async with sessiondb.open(world.path, limits=LIMITS, program="the other") as db:
        mine = await db.session("agent:main:other:1")
        await mine.append(user("before"))
        freeze(zygote, world, "before COMMIT of append", 3)
        assert lock_holder_pid(str(world.path)) == zygote.pid

        with pytest.raises(
            StoreBusy, match=rf"pid {zygote.pid} \(crash talk\) has held the write lock"
        ) as busy:
            await mine.append(user("refused"))
        assert busy.value.retry_after_ms > 0
        assert [entry.role for entry in await mine.entries(last=20)] == ["user"], (
            "what is committed can be read"
        )
        with pytest.raises(StoreBusy, match=f"pid {zygote.pid}"):
            async with sessiondb.open(world.path, limits=LIMITS):
                pytest.fail("it was opened for writing without the lock")
        async with sessiondb.open(world.path, readonly=True) as visitor:
            assert [info.session_id async for info in visitor.sessions()]

        refused = db.backend.stats()["writer"]["busy_timeouts"]
        zygote.signal(end)
        if end is signal.SIGKILL:
            world.hear(zygote.end().require())
            await mine.append(user("after"))
            assert db.backend.stats()["writer"]["busy_timeouts"] == refused, (
                "the lock died with its holder"
            )
        else:
            world.hear(zygote.end().require())
            await mine.append(user("after"))
        texts = [(await mine.context()).messages[at]["content"] for at in range(2)]
        assert texts == ["before", "after"], "what was refused is not there"


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_beside_a_process_frozen_in_a_transaction_others_read(
    end: signal.Signals, templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    world = templates.world("talk", tmp_path / "world")
    anyio.run(_with_a_frozen_writer, world, zygote, end)
    world.check()
    world.hear(zygote.live(world.order()))
    world.check_end()


def test_beside_a_process_frozen_in_a_checkpoint_others_read(
    templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    """A reset of the WAL pauses writers by design.

    It holds SQLite's write lock, and so does whoever freezes in it.
    """
    world = templates.world("talk", tmp_path / "world")

    async def wait_for_it() -> None:
        async with sessiondb.open(world.path, limits=LIMITS) as db:
            mine = await db.session("agent:main:other:1")
            await mine.append(user("before"))
            # The first is of the fold at opening, which holds up nobody.
            freeze(zygote, world, "sync main", 2)
            with pytest.raises(StoreBusy, match=rf"pid {zygote.pid} \(crash talk\)"):
                await mine.append(user("refused"))
            assert len((await mine.context()).messages) == 1
            zygote.signal(signal.SIGKILL)
            world.hear(zygote.end().require())
            for number in range(40):
                await mine.append(user(f"{number} {'x' * 4000}"))
            assert len((await mine.context()).messages) == 41
            assert db.backend.stats()["writer"]["checkpoint"]["ok"] > 0, (
                "the checkpoint died with its holder"
            )

    anyio.run(wait_for_it)
    world.check()


def test_a_process_frozen_in_the_wals_recovery_is_named(
    templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    world = templates.world("talk", tmp_path / "world")
    assert world.hear(
        zygote.live(world.order("after COMMIT of append", 3))
    ).killed  # it leaves a WAL without a reader's index
    freeze(zygote, world, "read wal", 3)

    async def opened(**options: bool) -> None:
        async with sessiondb.open(world.path, limits=LIMITS, **options):
            pytest.fail("it was opened although the WAL is being recovered")

    for options in ({}, {"readonly": True}):
        with pytest.raises(StoreBusy, match=f"pid {zygote.pid}") as busy:
            anyio.run(lambda options=options: opened(**options))
        assert busy.value.retry_after_ms > 0
    zygote.signal(signal.SIGKILL)
    world.hear(zygote.end().require())
    world.check()
    world.hear(zygote.live(world.order()))
    world.check_end()


def _wake_after_a_take_over(
    templates: Templates,
    zygote: Zygote,
    second_zygote: Zygote,
    folder: Path,
    *,
    lease_s: float,
    clock_s: float = 0.0,
    broken: str = "",
) -> World:
    """Freeze a gateway in the middle of a turn.

    Another takes it over and answers. Then it wakes up and finishes, too.
    """
    world = templates.world("gateway", folder)
    options = {"lease_s": lease_s, "dawdle": True}
    # Between two batches: it holds no lock of SQLite's, only its turns.
    freeze(zygote, world, "between two batches in a turn", broken=broken, options=options)
    world.hear(second_zygote.live(world.order(options={**options, "clock_s": clock_s})))
    zygote.signal(signal.SIGCONT)
    world.hear(zygote.end().require())
    return world


# A lease that runs out by itself, and one that ends by the clock of whoever takes it over.
TAKE_OVERS = [(0.8, 0.0), (3_600.0, 86_400.0)]


@pytest.mark.parametrize("broken", ["", "works_on_in_a_turn_that_has_ended"])
@pytest.mark.parametrize(("lease_s", "clock_s"), TAKE_OVERS)
def test_a_frozen_process_loses_its_turn_and_its_late_write(
    lease_s: float,
    clock_s: float,
    broken: str,
    templates: Templates,
    zygote: Zygote,
    second_zygote: Zygote,
    tmp_path: Path,
) -> None:
    """When its lease has run out.

    Or when the other's clock, which was set forward, says so: wrong, and still each is
    answered once. Its lane stops its handler when it sees that. The fence alone is enough.
    """
    world = _wake_after_a_take_over(
        templates,
        zygote,
        second_zygote,
        tmp_path / "world",
        lease_s=lease_s,
        clock_s=clock_s,
        broken=broken,
    )
    counted = world.check_end()
    assert counted["turns interrupted"] >= 1
    assert counted["messages"] == GATEWAY_TALKS * GATEWAY_MESSAGES


def test_a_frozen_sender_may_be_late_with_what_was_lost_track_of(
    templates: Templates, zygote: Zygote, second_zygote: Zygote, tmp_path: Path
) -> None:
    """Its reply is the only one that may come behind those that were accepted later."""
    world = templates.world("gateway", tmp_path / "world")
    options = {"dawdle in a call": True}
    freeze(zygote, world, "between two batches in a call", options=options)
    world.hear(second_zygote.live(world.order(options={"clock_s": 86_400.0})))
    zygote.signal(signal.SIGCONT)
    world.hear(zygote.end().require())
    assert world.check_end()["replies late"] >= 1


@pytest.mark.parametrize(("lease_s", "clock_s"), TAKE_OVERS)
def test_a_build_that_ignores_the_fence_of_a_turn_is_caught(
    lease_s: float,
    clock_s: float,
    templates: Templates,
    zygote: Zygote,
    second_zygote: Zygote,
    tmp_path: Path,
) -> None:
    world = _wake_after_a_take_over(
        templates,
        zygote,
        second_zygote,
        tmp_path / "world",
        lease_s=lease_s,
        clock_s=clock_s,
        broken="completes_without_looking_at_its_fence",
    )
    with pytest.raises(AssertionError, match=r"reply \d+ is \w+, but its turn \d+ is interrupted"):
        world.check_end()


# -- forked ----------------------------------------------------------------------------

FORK = """
import gc, os, subprocess, sys, threading
import anyio
from anyio.from_thread import start_blocking_portal
import sessiondb
from sessiondb.sqlite import transaction
from sessiondb.sqlite.transaction import Prepared

BLOCKS = 400
transaction.statements().update({
    name: Prepared(name, sql)
    for name, sql in {
        "fork.table": "CREATE TABLE ballast (n INTEGER PRIMARY KEY, content BLOB)",
        "fork.insert": "INSERT INTO ballast (content) VALUES (randomblob(20000))",
        "fork.count": "SELECT count(*) AS n, sum(length(content)) AS bytes FROM ballast",
    }.items()
})
path = sys.argv[1]
begun, go_on = threading.Event(), threading.Event()

def body(tx):
    # More than the page cache holds: half of it is in the WAL before COMMIT, and found by
    # the index in the shared memory.
    tx.run("fork.table")
    for _ in range(BLOCKS):
        tx.run("fork.insert")
    begun.set()
    go_on.wait()
    for _ in range(BLOCKS):
        tx.run("fork.insert")
    return tx.one("fork.count").n

async def refused(call):
    try:
        await call()
    except (sessiondb.StoreClosed, sessiondb.OpenError) as error:
        assert "fork" in str(error) and "started afresh" in str(error), str(error)
        return 1
    return 0

async def child(db):
    async def anew(**options):
        async with sessiondb.open(path, **options):
            pass
    async def ask():
        with sessiondb.database.query(path, "SELECT 1"):
            pass
    calls = [
        lambda: db.write("x", lambda tx: None),
        lambda: db.read("x", lambda tx: None),
        lambda: db.backend.backup(path + ".copy"),
        db.close, lambda: db.session("agent:main:web:1"), anew, lambda: anew(readonly=True), ask,
    ]
    return sum([await refused(call) for call in calls])

with start_blocking_portal() as portal:
    db = sessiondb.open(path, program="parent")
    portal.call(db.__aenter__)
    result = portal.start_task_soon(db.write, "long", body)
    begun.wait()
    for end in ("exits", "is killed"):
        pid = os.fork()
        if pid == 0:
            count = anyio.run(child, db)
            del result, db
            portal = None
            gc.collect()
            print(end, count, flush=True)
            if end == "exits":
                import atexit
                atexit._run_exitfuncs()
                gc.collect()
                os._exit(0)
            os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
    # The lock is still the parent's: nobody else gets it.
    script = "import apsw, sys; apsw.Connection(sys.argv[1]).execute('BEGIN IMMEDIATE')"
    other = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    print("BusyError" in other.stderr, flush=True)
    go_on.set()
    print(result.result(), flush=True)
    portal.call(db.close)
"""


def test_a_parents_transaction_survives_its_forks(
    tmp_db: Path,
) -> None:
    with other_process(FORK, tmp_db) as parent:
        out, err = parent.communicate(timeout=120)
    assert (parent.returncode, out.splitlines()) == (
        0,
        ["exits 8", "is killed 8", "True", "800"],
    ), err
    assert query(tmp_db, "SELECT count(*), sum(length(content)) FROM ballast") == [
        (800, 800 * 20000)
    ]
    assert query(tmp_db, "PRAGMA integrity_check") == ["ok"]


REOPEN = """
import os, sys
import anyio
import sessiondb

async def say(text):
    async with sessiondb.open(sys.argv[1]) as db:
        await (await db.session("agent:main:web:1")).append({"role": "user", "content": text})

anyio.run(say, "parent, before")
pid = os.fork()
if pid == 0:
    anyio.run(say, "child")
    os._exit(0)
os.waitpid(pid, 0)
anyio.run(say, "parent, after")
"""


def test_a_fork_made_while_the_database_is_closed_may_open_it(tmp_db: Path) -> None:
    with other_process(REOPEN, tmp_db) as parent:
        _, err = parent.communicate(timeout=60)
    assert (parent.returncode, err) == (0, "")
    found = query(
        tmp_db,
        "SELECT payload ->> '$.message.content' FROM entry WHERE role = 'user' ORDER BY entry_no",
    )
    assert found == ["parent, before", "child", "parent, after"]


INHERIT = """
import os, sys
import anyio
from anyio.from_thread import start_blocking_portal
import sessiondb
from sessiondb.sqlite import connection

broken = sys.argv[2] == "broken"
to_child, to_parent = os.pipe(), os.pipe()

async def child():
    async with sessiondb.open(sys.argv[1]) as db:
        session = await db.session("agent:main:web:1")
        os.write(to_parent[1], b"x")
        os.read(to_child[0], 1)
        await session.append({"role": "user", "content": "child"})
        print("acknowledged", flush=True)
        os.kill(os.getpid(), 9)

with start_blocking_portal() as portal:
    db = sessiondb.open(sys.argv[1])
    portal.call(db.__aenter__)
    portal.call(db.session, "agent:main:web:1")
    pid = os.fork()
    if pid == 0:
        if broken:
            connection.refuse_inherited = lambda path: None
        try:
            anyio.run(child)
        except sessiondb.OpenError as error:
            print("refused:", error, flush=True)
            os.write(to_parent[1], b"x")
        except sessiondb.StoreFailed as error:
            print("not acknowledged:", error, flush=True)
        os._exit(0)
    os.close(to_parent[1])  # a child that ends otherwise is noticed
    os.read(to_parent[0], 1)
    portal.call(db.close)  # it believes that nobody else has the file open, and removes the WAL
    os.write(to_child[1], b"x")
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("build", ["broken", "whole"])
def test_a_fork_may_not_open_what_its_parent_has_open(build: str, tmp_db: Path) -> None:
    with other_process(INHERIT, tmp_db, build) as parent:
        out, err = parent.communicate(timeout=60)
    found = query(tmp_db, "SELECT payload ->> '$.message.content' FROM entry WHERE role = 'user'")
    assert (parent.returncode, found) == (0, [])
    if build == "broken":
        # SQLite's inherited table of locks let the parent delete the -wal that the child has. The
        # next wall: nothing is acknowledged into a file without a name.
        assert out.startswith("not acknowledged: ")
        assert "-wal was moved, deleted or replaced while it was open" in out
    else:
        assert err == ""
        assert out.startswith("refused: ")
        assert "started afresh" in out
