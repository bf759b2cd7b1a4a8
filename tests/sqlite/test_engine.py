"""Opening, closing, dying: what is on disk, who may see it, and what a crash leaves."""

# ruff: noqa: ASYNC240  # tests look at files as they please

from __future__ import annotations

import asyncio
import gc
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import apsw
import pytest

from sessiondb import process
from sessiondb.errors import (
    NewerSchema,
    NotASessionDB,
    OpenError,
    StoreClosed,
    StoreFailed,
    StoreReadOnly,
    UnsafeFilesystem,
    UnsafeSQLite,
)
from sessiondb.sqlite import SqliteBackend, engine, guard
from sessiondb.sqlite.connection import is_open_here, refuse_unsafe_library
from sessiondb.sqlite.filesystem import mount_of, refuse_unsafe_filesystem
from sessiondb.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION
from tests.support.engine import (
    CHECKOUT,
    PATIENCE_S,
    count,
    insert,
    names_in,
    opened,
    other_process,
    until,
)


def run_python(
    code: str, *arguments: object, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=timeout,
        check=False,
    )


async def still_registered(backend: SqliteBackend) -> int:
    """Return how many openings of this database have not signed off."""
    sql = "SELECT count(*) FROM instance WHERE closed_at_ms IS NULL"
    return int(await backend.read(lambda tx: tx._connection.execute(sql).get, op="look"))  # type: ignore[attr-defined]


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_new_database_has_the_settings_that_it_must_have(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:

        def settings(tx: object) -> dict[str, object]:
            connection = tx._connection  # type: ignore[attr-defined]
            names = [
                "page_size",
                "auto_vacuum",
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "mmap_size",
                "trusted_schema",
            ]
            names += [
                "application_id",
                "user_version",
                "wal_autocheckpoint",
                "query_only",
                "journal_size_limit",
            ]
            return {name: connection.pragma(name) for name in names}

        writing = await backend.write(settings, op="settings")
        reading = await backend.read(settings, op="settings")
    expected = {
        "page_size": 4096,
        "auto_vacuum": 2,
        "journal_mode": "wal",
        "mmap_size": 0,
        "trusted_schema": 0,
    }
    expected |= {"application_id": APPLICATION_ID, "user_version": SCHEMA_VERSION}
    assert expected.items() <= writing.items()
    assert expected.items() <= reading.items()
    assert (writing["synchronous"], writing["foreign_keys"], writing["query_only"]) == (2, 1, 0)
    assert 0 < writing["journal_size_limit"] < 100_000_000
    assert reading["query_only"] == 1


@pytest.mark.anyio
async def test_normal_durability_is_an_explicit_choice(tmp_db: Path) -> None:
    async with opened(tmp_db, durability="normal") as backend:
        assert (
            await backend.write(lambda tx: tx._connection.pragma("synchronous"), op="settings") == 1
        )
    with pytest.raises(OpenError, match=r"durability is 'off'\. Choose"):
        await SqliteBackend.open(tmp_db, durability="off")  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_files_belong_to_their_owner_alone_and_so_does_a_folder_that_we_make(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "deep" / "gateway.db"
    mask = os.umask(0)
    try:
        async with opened(path) as backend:
            await backend.write(insert("x"), op="append")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert modes == {"gateway.db": 0o600, "gateway.db-wal": 0o600, "gateway.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "gateway.db"
    ]  # close() folds the WAL away


def test_eight_processes_that_open_a_new_path_at_once_all_succeed(tmp_path: Path) -> None:
    code = """
import sys, anyio
from tests.support.engine import insert, opened
print("ready", flush=True)
sys.stdin.readline()
async def main():
    async with opened(sys.argv[1]) as backend:
        await backend.write(insert("child"), op="append")
        print(backend.stats()["instance_no"])
anyio.run(main)
"""
    for attempt in range(2):
        path = tmp_path / f"{attempt}" / "gateway.db"
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code, path],
                cwd=CHECKOUT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for _ in range(8)
        ]
        for child in children:
            assert child.stdout.readline() == "ready\n"  # type: ignore[union-attr]
        for child in children:
            child.stdin.write("\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
        answers = [child.communicate(timeout=60) for child in children]
        assert [err[-600:] for _, err in answers if err] == []
        assert [child.returncode for child in children] == [0] * 8
        # Each has a number of its own: the schema was made once, and no registration was lost.
        assert len({out for out, _ in answers}) == 8
        found = apsw.Connection(str(path))
        assert found.execute(
            "SELECT count(*) FROM instance WHERE program = 'child'"
        ).fetchall() == [(8,)]
        assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found.close()


# -- files that are not ours ------------------------------------------------------------------------------------------


def make_database(path: Path, script: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(script).fetchall()
    connection.close()


@pytest.mark.anyio
@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "CREATE TABLE person (name); CREATE TABLE pet (name)",
            "a SQLite database of another program with the tables person, pet",
        ),
        ("PRAGMA application_id = 252006674; CREATE TABLE blob (x)", "a SQLite database of Fossil"),
        ("PRAGMA application_id = 77", r"another program \(application_id 0x4d\)"),
        ("PRAGMA user_version = 3", "a SQLite database of another program"),
    ],
)
async def test_another_programs_database_is_named_and_left_alone(
    tmp_db: Path, script: str, says: str, readonly: bool
) -> None:
    make_database(tmp_db, script)
    before = tmp_db.read_bytes()
    with pytest.raises(NotASessionDB, match=says):
        await SqliteBackend.open(tmp_db, readonly=readonly)
    assert tmp_db.read_bytes() == before
    assert names_in(tmp_db.parent) == [tmp_db.name]


@pytest.mark.anyio
@pytest.mark.parametrize("readonly", [False, True])
async def test_a_file_that_is_no_database_is_named_and_left_alone(
    tmp_db: Path, readonly: bool
) -> None:
    tmp_db.write_text('{"type":"session","version":3}\n' * 100)
    before = tmp_db.read_bytes()
    with pytest.raises(NotASessionDB, match="not a SQLite file"):
        await SqliteBackend.open(tmp_db, readonly=readonly)
    assert tmp_db.read_bytes() == before


@pytest.mark.anyio
@pytest.mark.parametrize("readonly", [False, True])
async def test_a_newer_file_is_refused(tmp_db: Path, readonly: bool) -> None:
    async with opened(tmp_db):
        pass
    make_database(tmp_db, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(
        NewerSchema,
        match=rf"schema is {SCHEMA_VERSION + 1}, and this one knows up to {SCHEMA_VERSION}",
    ):
        await SqliteBackend.open(tmp_db, readonly=readonly)


@pytest.mark.anyio
async def test_paths_that_cannot_be_a_database_are_refused(tmp_path: Path) -> None:
    for path in ("", ":memory:", "file:x.db?mode=memory"):
        with pytest.raises(OpenError, match="is not the path of a file"):
            await SqliteBackend.open(path)
    with pytest.raises(OpenError, match="not a plain file"):
        await SqliteBackend.open(tmp_path)
    with pytest.raises(OpenError, match="there is no such file"):
        await SqliteBackend.open(tmp_path / "absent.db", create=False)
    with pytest.raises(OpenError, match="there is no such file"):
        await SqliteBackend.open(tmp_path / "absent.db", readonly=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
async def test_an_empty_file_becomes_a_database_but_not_for_a_reader(tmp_db: Path) -> None:
    tmp_db.touch()
    with pytest.raises(NotASessionDB, match="the file is empty"):
        await SqliteBackend.open(tmp_db, readonly=True)
    async with opened(tmp_db) as backend:
        await backend.write(insert("x"), op="append")


# -- reading only -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_reader_beside_a_live_gateway_sees_its_commits_and_cannot_write(
    tmp_db: Path,
) -> None:
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


@pytest.mark.anyio
async def test_a_reader_of_a_closed_database_leaves_no_file_behind(tmp_db: Path) -> None:
    async with opened(tmp_db) as gateway:
        await gateway.write(insert("x"), op="append")
    before = tmp_db.read_bytes()
    async with opened(tmp_db, readonly=True) as visitor:
        assert await count(visitor, "x") == 1
    assert names_in(tmp_db.parent) == [tmp_db.name]
    assert tmp_db.read_bytes() == before


@pytest.mark.anyio
async def test_a_reader_after_a_crash_reads_the_wal_and_leaves_it_for_the_next_gateway(
    tmp_db: Path,
) -> None:
    crash_after(tmp_db, acknowledged=5)
    wal = tmp_db.with_name("gateway.db-wal")
    size = wal.stat().st_size
    assert size > 0
    async with opened(tmp_db, readonly=True) as visitor:
        assert await count(visitor, "acknowledged") >= 5
    assert wal.stat().st_size == size


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs another user's rights, which only root can give up"
)
def test_a_reader_that_may_not_make_the_helper_files_is_told_what_to_do() -> None:
    code = """
import os, sys, anyio
from sessiondb.errors import OpenError
from sessiondb.sqlite import SqliteBackend
async def main():
    backend = await SqliteBackend.open(sys.argv[1])
    await backend.close()
    os.chmod(sys.argv[1], 0o644)
    os.setuid(65534)
    try:
        await SqliteBackend.open(sys.argv[1], readonly=True)
    except OpenError as error:
        print(error)
anyio.run(main)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        assert "this user may not look into" in run_python(code, Path(folder, "gateway.db")).stdout
        Path(folder).chmod(0o755)
        answer = run_python(code, Path(folder, "gateway.db"))
        assert "no process has the database open" in answer.stdout, answer.stderr
        assert "copy the closed file" in answer.stdout


@pytest.mark.anyio
async def test_a_file_that_is_moved_away_or_replaced_is_noticed_before_anything_is_lost(
    tmp_db: Path,
) -> None:
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


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_an_opening_that_is_cancelled_leaves_no_thread(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release, created = threading.Event(), threading.Event(), []
    start = engine._start

    def slow_start(*arguments: object, **options: object) -> object:
        begun.set()
        assert release.wait(PATIENCE_S)
        created.append(start(*arguments, **options))  # type: ignore[arg-type]
        return created[0]

    monkeypatch.setattr(engine, "_start", slow_start)
    task = asyncio.create_task(SqliteBackend.open(tmp_db))
    await until(begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await until(lambda: bool(created))
    assert created[0].writer.join(PATIENCE_S)
    assert created[0].readers.join(PATIENCE_S)


# -- dying ------------------------------------------------------------------------------------------------------------

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
        # Not communicate(): it reads past what readline() has buffered, and those lines were told too.
        return acknowledged + child.stdout.read().count("acknowledged\n")


@pytest.mark.anyio
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
def test_a_program_that_forgets_to_close_exits_cleanly_and_its_writes_are_there(
    tmp_db: Path, ending: str
) -> None:
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
        ) == [tmp_db.name]


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
    tasks = [asyncio.create_task(backend.write(lambda tx: (began.set(), release.wait(30)), op="hold"))]
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


@pytest.mark.anyio
@pytest.mark.parametrize("missing", ["writer", "reader-0", "reader-2", "watchdog", "changes"])
async def test_an_opening_that_gets_too_few_threads_ends_those_that_it_has(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == f"sessiondb-{missing}":
            raise RuntimeError("can't start new thread")
        start(thread)

    async with opened(tmp_db):
        pass
    for readonly in (False, True):
        if readonly and missing == "writer":
            continue
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await SqliteBackend.open(tmp_db, readonly=readonly)
        assert [
            thread.name for thread in threading.enumerate() if thread.name.startswith("sessiondb")
        ] == []
        assert not is_open_here(str(tmp_db))
    async with opened(tmp_db) as backend:
        assert await still_registered(backend) == 1


@pytest.mark.anyio
async def test_an_opening_that_cannot_be_guarded_closes_again(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no more hooks")

    with monkeypatch.context() as patch:
        patch.setattr(guard, "_installed", False)
        patch.setattr(guard.sys, "addaudithook", refuse)
        with pytest.raises(RuntimeError, match="no more hooks"):
            await SqliteBackend.open(tmp_db)
    assert [
        thread.name for thread in threading.enumerate() if thread.name.startswith("sessiondb")
    ] == []
    assert guard._watched == ()
    assert not is_open_here(str(tmp_db))
    async with opened(tmp_db) as backend:
        assert await still_registered(backend) == 1


@pytest.mark.anyio
async def test_a_backend_that_is_dropped_warns_and_ends_its_threads(tmp_db: Path) -> None:
    backend = await SqliteBackend.open(tmp_db)
    parts = backend._parts
    with pytest.warns(ResourceWarning, match="was not closed"):  # noqa: PT031  # the last reference must go inside
        del backend
        gc.collect()
    assert parts.writer is not None
    assert parts.writer.join(PATIENCE_S)
    assert parts.readers.join(PATIENCE_S)


def test_a_forked_child_is_refused_and_does_not_disturb_its_parent(tmp_db: Path) -> None:
    # The event loop runs in another thread (as under the synchronous facade), because a fork shares a loop's own files.
    code = """
import asyncio, os, sys, warnings
from anyio.from_thread import start_blocking_portal
warnings.simplefilter("ignore", DeprecationWarning)
from tests.support.engine import count, insert
from sessiondb.errors import StoreClosed
from sessiondb.sqlite import SqliteBackend

async def child(backend):
    refused = 0
    for call in (lambda: backend.write(insert("child"), op="append"), lambda: count(backend, "before"), backend.close):
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
    pid = os.fork()
    if pid == 0:
        import gc
        refused = asyncio.run(child(backend))
        portal = None
        del backend
        gc.collect()
        import atexit
        atexit._run_exitfuncs()  # what an ordinary exit does, less waiting for the portal's thread, which is not here
        os._exit(10 + refused)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status))
    assert os.path.exists(sys.argv[1] + "-wal")
    portal.call(lambda: backend.write(insert("after"), op="append"))
    print(portal.call(count, backend, "after"))
    portal.call(backend.close)
"""
    answer = run_python(code, tmp_db)
    assert (answer.returncode, answer.stdout) == (0, "13\n1\n"), answer.stderr
    found = apsw.Connection(str(tmp_db))
    assert found.execute(
        "SELECT program FROM instance WHERE host = 'h' ORDER BY instance_no"
    ).fetchall() == [("before",), ("after",)]
    assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.anyio
async def test_use_after_a_fork_says_which_process_opened_it(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        backend._parts.pid += 1
        with pytest.raises(
            StoreClosed, match="Open the database in a process that was started afresh"
        ):
            await backend.write(insert("x"), op="append")
        backend._parts.pid -= 1


# -- who is who -------------------------------------------------------------------------------------------------------


def test_a_process_is_alive_until_it_has_gone_and_a_recycled_pid_does_not_fool_us() -> None:
    me = process.identity()
    assert process.is_alive(me.host, me.boot_id, me.pid, me.pid_started) is True
    assert process.is_alive(me.host, me.boot_id, me.pid, me.pid_started + 1) is False
    assert process.is_alive(me.host, "another boot", me.pid, me.pid_started) is False
    assert process.is_alive("another host", me.boot_id, me.pid, me.pid_started) is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process._started(child.pid)
    assert started is not None
    assert process.is_alive(me.host, me.boot_id, child.pid, started) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has died, and is left as a zombie
    assert (
        process.is_alive(me.host, me.boot_id, child.pid, started) is False
    )  # a zombie holds nothing
    child.communicate()
    assert process.is_alive(me.host, me.boot_id, child.pid, started) is False


def test_without_proc_a_pid_that_exists_counts_as_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_PROC", tmp_path)
    me = process.identity()
    assert (me.boot_id, me.pid_started) == ("", 0)
    assert process.is_alive(me.host, "", me.pid, 0) is True
    assert process.is_alive(me.host, "", 2**22 + 1, 0) is False


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.7.0", False),
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.45.1", False),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.0", False),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.53.0", True),
        ("3.54.1", True),
        ("4.0.0", True),
    ],
)
def test_sqlite_with_the_wal_reset_bug_is_refused(version: str, safe: bool) -> None:
    if safe:
        refuse_unsafe_library(version)
    else:
        with pytest.raises(UnsafeSQLite, match=rf"SQLite {version} has the WAL-reset bug"):
            refuse_unsafe_library(version)


MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:30 / /mnt/nfs rw,relatime shared:1 - nfs4 server:/export rw,vers=4.2
31 27 0:31 / /mnt/c rw,noatime - 9p C:\134 rw
32 27 0:32 / /mnt/share rw - cifs //server/share rw
33 27 0:33 / /mnt/host rw - virtiofs myfs rw
34 27 0:34 / /mnt/ssh rw - fuse.sshfs user@host:/ rw
35 27 0:35 / /mnt/usb rw - fuseblk /dev/sdb1 rw
36 27 0:36 / /mnt/layers rw - overlay overlay rw
37 27 0:37 / /mnt/memory rw - tmpfs tmpfs rw
38 30 254:0 /x /mnt/nfs/local rw - ext4 /dev/vda rw
39 27 0:39 / /mnt/with\040blank rw - nfs server:/a rw
40 27 0:40 / /mnt/twice rw - ext4 /dev/vdb rw
41 40 0:41 / /mnt/twice rw - glusterfs cluster:/v rw
42 27 0:42 / /mnt/mac rw - fuse.grpcfuse grpcfuse rw
43 27 0:43 / /mnt/rootless rw - fuse.fuse-overlayfs fuse-overlayfs rw
this line is damaged
"""


@pytest.mark.parametrize(
    ("path", "filesystem"),
    [
        ("/mnt/nfs/a/gateway.db", "nfs4"),
        ("/mnt/c/Users/me/gateway.db", "9p"),
        ("/mnt/share/gateway.db", "cifs"),
        ("/mnt/host/gateway.db", "virtiofs"),
        ("/mnt/ssh/gateway.db", "fuse.sshfs"),
        ("/mnt/mac/gateway.db", "fuse.grpcfuse"),
        ("/mnt/with blank/gateway.db", "nfs"),
        ("/mnt/twice/gateway.db", "glusterfs"),
    ],
)
def test_shared_and_network_file_systems_are_refused_by_name(path: str, filesystem: str) -> None:
    with pytest.raises(UnsafeFilesystem, match="WAL mode loses data there") as refused:
        refuse_unsafe_filesystem(path, MOUNTINFO)
    assert refused.value.filesystem == filesystem
    assert refused.value.mount in str(refused.value)
    assert "local disk" in str(refused.value)


@pytest.mark.parametrize(
    "path",
    [
        "/home/me/gateway.db",
        "/mnt/nfsx/gateway.db",
        "/mnt/nfs/local/gateway.db",
        "/mnt/usb/gateway.db",
        "/mnt/layers/gateway.db",
        "/mnt/memory/gateway.db",
        "/mnt/rootless/gateway.db",
    ],
)
def test_local_file_systems_pass(path: str) -> None:
    refuse_unsafe_filesystem(path, MOUNTINFO)
    assert mount_of(path, MOUNTINFO) is not None


@pytest.mark.anyio
async def test_opening_looks_at_the_file_system_unless_told_not_to(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_db.with_name("mountinfo")
    table.write_text("27 1 254:0 / / rw,relatime - nfs server:/ rw\n")
    monkeypatch.setattr("sessiondb.sqlite.filesystem._MOUNTINFO", table)
    with pytest.raises(UnsafeFilesystem):
        await SqliteBackend.open(tmp_db)
    assert not tmp_db.exists()
    async with opened(tmp_db, allow_unsafe_filesystem=True) as backend:
        await backend.write(insert("x"), op="append")
