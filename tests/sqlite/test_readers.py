"""Readers that stay: abandoned snapshots, endless reads, other programs beside a gateway.

A snapshot in another process cannot be ended from here. So the WAL grows meanwhile, which
is reported, and writes continue. When the reader has ended, in whatever way, the WAL is
reset. A snapshot of sessiondb's own is cut off at its greatest age. What a program leaves
half way (an iterator, a page) holds no snapshot.

The programs are those that people use: the sqlite3 shell, sqlite-utils, Python's sqlite3,
datasette. Each runs in a process of its own, as it must. It may not change a file, take a
lock away, or lose data when it is the last to close.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import sessiondb.sync
from sessiondb.errors import ReadTooLong
from sessiondb.limits import KIB, MIB, Limits
from tests.sqlite.test_views import VIEWS, a_bit_of_everything
from tests.support.core import reply, user
from tests.support.engine import PATIENCE_S, held_writer, opened, other_process, until

pytestmark = pytest.mark.anyio


# Other programs are started and asked while the event loop has nothing else to do.
# ruff: noqa: ASYNC220

SHELL = shutil.which("sqlite3")


SQLITE_UTILS = Path(sys.executable).with_name("sqlite-utils")


DATASETTE = os.environ.get("SESSIONDB_DATASETTE") or shutil.which("datasette")


SMALL = Limits(wal_bytes_max=64 * KIB, wal_reset_ms_max=5, wal_retry_ms=10)


needs_shell = pytest.mark.skipif(SHELL is None, reason="no sqlite3 shell on this machine")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Use one loop: other processes are the subject."""
    return "asyncio"


# -- a gateway at work, and a shell beside it ------------------------------------------

GATEWAY = """
import sys, anyio, sessiondb
from sessiondb.limits import KIB, Limits
async def main():
    limits = Limits(wal_bytes_max=256 * KIB)
    async with sessiondb.open(sys.argv[1], program="gateway", limits=limits) as db:
        session = await db.session("agent:main:live")
        number = 0
        while True:
            number += 1
            message = {"role": "user", "content": f"message {number} " + "x" * 500}
            await session.append(message, idempotency_key=str(number))
            print(number, flush=True)
anyio.run(main)
"""


class Gateway:
    """A gateway in a process of its own that appends without a pause.

    `acknowledged` is the number of the last append that returned.
    """

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.acknowledged = 0
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if line.endswith("\n"):  # the last one may be torn
                with self._grown:
                    self.acknowledged = int(line)
                    self._grown.notify_all()

    def goes_on(self, count: int = 30) -> None:
        """Wait for `count` further acknowledged appends. The pipe may hold more."""
        self.reaches(self.acknowledged + count)

    def reaches(self, number: int) -> None:
        """Wait until this append was acknowledged."""
        with self._grown:
            assert self._grown.wait_for(lambda: self.acknowledged >= number, PATIENCE_S), (
                f"it stands still at {self.acknowledged}"
            )

    def kill(self) -> None:
        self.child.send_signal(signal.SIGKILL)
        self.child.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)


@contextmanager
def gateway_at_work(path: Path) -> Iterator[Gateway]:
    with other_process(GATEWAY, path) as child:
        gateway = Gateway(child)
        gateway.goes_on(1)
        yield gateway


class Shell:
    """An open `sqlite3 -readonly` with a person at its prompt."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child

    def ask(self, sql: str) -> list[str]:
        """Run a statement. Return its lines."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(f"{sql};\n.print done\n")
        self.child.stdin.flush()
        lines = []
        while (line := self.child.stdout.readline()) not in ("done\n", ""):
            lines.append(line.rstrip("\n"))
        return lines

    def quit(self) -> None:
        out, err = self.child.communicate(".quit\n", timeout=PATIENCE_S)
        assert (out, err, self.child.returncode) == ("", "", 0)


@contextmanager
def shell(path: Path) -> Iterator[Shell]:
    assert SHELL is not None
    child = subprocess.Popen(
        [SHELL, "-readonly", "-batch", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Shell(child)
    finally:
        child.kill()
        child.communicate()


# Another process that opens a snapshot with Python's own sqlite3 and never ends it.
ABANDONED = """
import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
connection.execute("BEGIN")
print(connection.execute("SELECT count(*) FROM entry").fetchone()[0], flush=True)
sys.stdin.readline()
"""


def identities(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the inode, mode and owner of the three files."""
    found = {}
    for file in sorted(path.parent.glob(path.name + "*")):
        about = file.stat()
        found[file.name] = (about.st_ino, about.st_mode, about.st_uid, about.st_gid)
    return found


def contents(path: Path) -> dict[str, str]:
    """Hash the database and its WAL, while no process has them open for writing."""
    files = [path, path.with_name(path.name + "-wal")]
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()
    }


async def append(session: sessiondb.Session, times: int, size: int = 4_000) -> None:
    for _ in range(times):
        await session.append(user("x" * size))


def checkpoints(db: sessiondb.SessionDB) -> dict[str, Any]:
    found: dict[str, Any] = db.backend.stats()["writer"]["checkpoint"]
    return found


def wal_file_bytes(db: sessiondb.SessionDB) -> int:
    return int(db.backend.stats()["wal_file_bytes"])


@asynccontextmanager
async def live(
    path: Path, limits: Limits = SMALL
) -> AsyncIterator[tuple[sessiondb.SessionDB, sessiondb.Session]]:
    """Open a gateway's database in this process, with something in it."""
    async with sessiondb.open(path, limits=limits, guard="raise") as db:
        session = await db.session("agent:main:live")
        await append(session, 3)
        yield db, session


async def is_reset(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    """Append, and wait until the WAL has been reset."""
    ok = checkpoints(db)["ok"]
    await append(session, 40)
    await until(lambda: checkpoints(db)["ok"] > ok and checkpoints(db)["blocked_since_ms"] is None)


# -- abandoned, in another process -----------------------------------------------------


@pytest.mark.parametrize("end", ["it is killed", "it ends by itself"])
async def test_an_abandoned_snapshot_stops_no_write_and_is_reported(tmp_db: Path, end: str) -> None:
    async with live(tmp_db) as (db, session):
        with other_process(ABANDONED, tmp_db) as reader:
            assert reader.stdout is not None
            entries = int(reader.stdout.readline())
            await append(session, 120, 8_000)  # none of them waits for the reader: each returns
            await until(lambda: checkpoints(db)["blocked"] >= 3)
            since = checkpoints(db)["blocked_since_ms"]
            assert since is not None
            assert checkpoints(db)["blocked_by"].startswith(f"pid {reader.pid} (python")
            grown = wal_file_bytes(db)
            assert grown > 10 * SMALL.wal_bytes_max
            status = await db.status()
            assert (status.wal_bytes, status.wal_bytes_max) == (grown, SMALL.wal_bytes_max)
            await append(session, 10)
            assert checkpoints(db)["blocked_since_ms"] == since, (
                "since when, not since the last attempt"
            )
            assert (await session.info()).entries == entries - 1 + 130

            ok = checkpoints(db)["ok"]
            reader.kill() if end == "it is killed" else reader.communicate("\n", timeout=PATIENCE_S)
            await until(
                lambda: checkpoints(db)["ok"] > ok and checkpoints(db)["blocked_since_ms"] is None
            )
        # It starts over at its beginning, and the file is cut to what is kept of it.
        await append(session, 1)
        assert db.backend.stats()["writer"]["wal_bytes"] < SMALL.wal_bytes_max
        assert wal_file_bytes(db) <= 4 * MIB
        assert (await db.verify()).ok


# -- without an end, in this process ---------------------------------------------------


async def test_an_endless_read_is_cut_off_at_its_greatest_age(tmp_db: Path) -> None:
    assert Limits().read_age_s_max == 10.0
    async with live(tmp_db, SMALL.model_copy(update={"read_age_s_max": 2.0})) as (db, session):
        errors: list[ReadTooLong] = []
        blockers: set[str] = set()

        def runaway(tx: Any) -> Any:
            tx.first("status.totals")
            return tx.first("test.spin", n=10**12)  # hours

        async def read() -> None:
            try:
                await db.read("report", runaway)
            except ReadTooLong as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await until(lambda: db.backend.stats()["readers"]["running"] == 1)
            while not errors:
                await append(session, 5)  # writes go on, whoever reads
                blockers |= {checkpoints(db)["blocked_by"]} - {""}
        assert checkpoints(db)["blocked"] > 0
        assert blockers == {"this process"}
        assert (
            "report: its snapshot is older than 2 s (limit read_age_s_max) and was interrupted"
            in str(errors[0])
        )
        assert db.backend.stats()["readers"]["running"] == 0
        await is_reset(db, session)
        assert (
            await session.info()
        ).entries > 0  # ... and the reader that was interrupted reads on


async def test_an_iterator_left_half_way_holds_no_snapshot(tmp_db: Path) -> None:
    async with live(tmp_db) as (db, session):
        for number in range(3):
            other = await db.session(f"agent:main:{number}")
            await other.append(user("x" * 400))
            await other.append(reply("y" * 400))
            async with other.compact(keep_recent_tokens=0) as job:
                await job.commit("S")
            await db.accept(f"agent:main:{number}", user("x"), channel="web", event_id=str(number))

        left = [db.sessions(), db.compactions(), db.events("somebody", from_start=True)]
        for iterator in left:
            await anext(iterator)
        pages = [await session.entries(limit=1), await session.all_entries(limit=1)]
        context = await session.context(decode=False)
        # Each of them is half way, and alive.
        assert db.backend.stats()["readers"]["running"] == 0
        await is_reset(db, session)
        assert [await anext(iterator) for iterator in left[:2]]
        assert all(pages)
        assert context.messages
        for iterator in left:
            await iterator.aclose()  # type: ignore[attr-defined]


async def test_a_command_that_follows_holds_no_snapshot(tmp_db: Path) -> None:
    async with live(tmp_db) as (db, session):
        await db.accept("agent:main:web", user("hello"), channel="web", event_id="1")
        follow = "import sys\nfrom sessiondb.__main__ import main\nsys.exit(main())"
        with other_process(follow, "tail", tmp_db, session.id, "-f") as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline()
            for _ in range(2):
                await is_reset(db, session)
            assert follower.poll() is None, "it follows still"


# -- other programs beside it ----------------------------------------------------------

READ_ONLY = """
import sqlite3, sys
for view in sys.argv[2:]:
    connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
    connection.execute(f"SELECT * FROM {view}").fetchall()
"""


def ask_the_shell(path: Path, views: Sequence[str]) -> list[str]:
    assert SHELL is not None
    return [SHELL, "-readonly", "-json", str(path), *(f"SELECT * FROM {view};" for view in views)]


def ask_sqlite_utils(path: Path, views: Sequence[str]) -> list[str]:
    union = " UNION ALL ".join(
        f"SELECT '{view}' AS view, count(*) AS rows FROM {view}" for view in views
    )
    return [str(SQLITE_UTILS), "query", str(path), union]


def ask_pythons_sqlite3(path: Path, views: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", READ_ONLY, str(path), *views]


PROGRAMS = [
    program
    for program in (ask_the_shell, ask_sqlite_utils, ask_pythons_sqlite3)
    if SHELL or program is not ask_the_shell
]


async def test_every_view_answers_beside_a_gateway_at_work(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await a_bit_of_everything(db)
    with gateway_at_work(tmp_db) as gateway:
        before = identities(tmp_db)
        assert set(before) == {
            f"{tmp_db.name}{suffix}" for suffix in ("", "-wal", "-shm", "-alive")
        }
        for program in PROGRAMS:
            message = await anyio.run_process(program(tmp_db, VIEWS))
            assert message.stderr == b"", program.__name__
            gateway.goes_on()
            assert identities(tmp_db) == before, program.__name__
        gateway.kill()
    async with sessiondb.open(tmp_db) as db:
        assert (await (await db.session("agent:main:live")).info()).entries >= gateway.acknowledged
        assert (await db.verify()).ok


async def test_a_program_that_reads_takes_no_lock_from_the_gateway(tmp_db: Path) -> None:
    probe = (
        "import sys, apsw\n"
        "try: apsw.Connection(sys.argv[1]).execute('BEGIN IMMEDIATE')\n"
        "except apsw.BusyError: print('busy')"
    )
    async with opened(tmp_db) as backend:
        async with held_writer(backend):
            for program in PROGRAMS:
                await anyio.run_process(program(tmp_db, ["session_overview"]))
                assert (
                    await anyio.run_process([sys.executable, "-c", probe, str(tmp_db)])
                ).stdout == b"busy\n", program.__name__
        assert backend.stats()["guard_violations"] == 0


@needs_shell
def test_writes_and_resets_continue_beside_an_open_shell(tmp_db: Path) -> None:
    with gateway_at_work(tmp_db) as gateway, shell(tmp_db) as prompt:
        before = int(prompt.ask("SELECT entries FROM session_overview")[0])
        # 75 KB and their pages: more than the WAL may hold, so it is reset beside the prompt.
        gateway.reaches(before + 150)
        now = int(prompt.ask("SELECT entries FROM session_overview")[0])
        assert now >= before + 150
        wal = tmp_db.with_name(tmp_db.name + "-wal")
        assert wal.stat().st_size < 2 * MIB
        prompt.ask("BEGIN")
        seen = int(prompt.ask("SELECT entries FROM session_overview")[0])
        gateway.reaches(seen + 50)
        assert int(prompt.ask("SELECT entries FROM session_overview")[0]) == seen, "one snapshot"
        prompt.ask("END")
        assert int(prompt.ask("SELECT entries FROM session_overview")[0]) >= seen + 50
        prompt.quit()


@needs_shell
def test_a_shell_that_closes_last_after_a_kill_changes_nothing(tmp_db: Path) -> None:
    with shell(tmp_db) as prompt:
        with gateway_at_work(tmp_db) as gateway:
            gateway.goes_on(100)
            assert int(prompt.ask("SELECT entries FROM session_overview")[0]) > 0
            gateway.kill()
        before = contents(tmp_db)
        assert set(before) == {f"{tmp_db.name}{suffix}" for suffix in ("", "-wal")}
        seen = int(prompt.ask("SELECT entries FROM session_overview")[0])
        assert seen >= gateway.acknowledged
        prompt.quit()
    assert contents(tmp_db) == before
    # A shell that comes when no other process is there changes nothing either.
    subprocess.run(ask_the_shell(tmp_db, VIEWS), check=True, capture_output=True)
    assert contents(tmp_db) == before
    assert everything_is_there(tmp_db, gateway.acknowledged)


def test_a_writer_that_closes_last_after_a_kill_loses_nothing(tmp_db: Path) -> None:
    """sqlite-utils has no read-only mode: it may do only what the next gateway would do."""
    with gateway_at_work(tmp_db) as gateway:
        gateway.goes_on(100)
        gateway.kill()
    message = subprocess.run(
        [str(SQLITE_UTILS), "tables", str(tmp_db), "--counts"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert message.stderr == ""
    assert not tmp_db.with_name(tmp_db.name + "-wal").exists()
    assert everything_is_there(tmp_db, gateway.acknowledged)


def everything_is_there(path: Path, acknowledged: int) -> bool:
    with sessiondb.sync.open(path) as db:
        session = db.session("agent:main:live")
        keys: list[str | None] = []
        [last] = session.all_entries(limit=1)  # the header
        while page := session.all_entries(after=last, limit=1_000):
            keys += [entry.idempotency_key for entry in page]
            last = page[-1]
        # One more may have been committed at the kill, without being acknowledged.
        assert keys in (
            [str(number) for number in range(1, acknowledged + extra + 1)] for extra in (0, 1)
        )
        return bool(db.verify().ok)


@pytest.mark.skipif(
    DATASETTE is None, reason="no datasette here (SESSIONDB_DATASETTE=/path/to/datasette names one)"
)
async def test_datasette_serves_every_view_and_keeps_no_snapshot(tmp_db: Path) -> None:
    async with live(tmp_db) as (db, session):
        await a_bit_of_everything(db)
        before = identities(tmp_db)
        async with serving(tmp_db) as client:
            for view in VIEWS:
                answer = await client.get(
                    f"/{tmp_db.stem}/{view}.json", params={"_shape": "array", "_size": "max"}
                )
                assert answer.status_code == 200, f"{view}: {answer.text}"
                assert isinstance(answer.json(), list)
                await append(session, 2)
            page = await client.get(f"/{tmp_db.stem}/entry")
            assert page.status_code == 200
            refused = await client.get(f"/{tmp_db.stem}.json", params={"sql": "DELETE FROM event"})
            assert refused.status_code == 400
            # datasette stays, with its connections open, and the WAL is reset all the same.
            for _ in range(3):
                await is_reset(db, session)
            assert identities(tmp_db) == before
        await append(session, 2)
        assert (await db.verify()).ok


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run datasette on a database in a process of its own."""
    assert DATASETTE is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = subprocess.Popen(
        [
            DATASETTE,
            "serve",
            str(path),
            "--port",
            str(port),
            "--setting",
            "sql_time_limit_ms",
            "20000",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False
        ) as client:

            async def answers() -> bool:
                try:
                    return (await client.get("/-/versions.json")).status_code == 200
                except httpx.TransportError:
                    assert child.poll() is None, child.stderr and child.stderr.read()
                    return False

            with anyio.fail_after(PATIENCE_S):
                # Another process sets no event of this loop.
                while not await answers():  # noqa: ASYNC110
                    await anyio.sleep(0.05)
            yield client
    finally:
        child.terminate()
        child.communicate(timeout=PATIENCE_S)
