"""What the tests of the engine share: statements, ways to hold the engine, other processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sessiondb import clock
from sessiondb.sqlite import SqliteBackend, transaction, writer
from sessiondb.sqlite.transaction import Prepared
from tests import ROOT as CHECKOUT
from tests.support import warm
from tests.support.warm import QUIET_FORKS

# No test waits this long unless it fails. It turns a deadlock into a failure.
PATIENCE_S = 30.0

# Deadlines for one that is to pass after an operation began. On a busy machine a short one passes
# before that, and the next is tried.
DEADLINES_S = (0.02, 0.2, 2.0, 20.0)

COLUMNS = "host, boot_id, pid, pid_started, program, opened_at_ms"
STATEMENTS = {
    "test.insert": f"""
INSERT INTO instance ({COLUMNS}) VALUES ('h', 'b', 0, 0, :program, 0)""",
    "test.insert_at": f"""
INSERT INTO instance (instance_no, {COLUMNS}) VALUES (:instance_no, 'h', 'b', 0, 0, :program, 0)""",
    "test.insert_large": f"""
INSERT INTO instance ({COLUMNS}) VALUES ('large', 'b', 0, 0, hex(randomblob(:size / 2)), 0)""",
    "test.insert_returning": f"""
INSERT INTO instance ({COLUMNS}) VALUES ('h', 'b', 0, 0, :program, 0)
RETURNING instance_no, program""",
    "test.delete_large": "DELETE FROM instance WHERE host = 'large'",
    "test.rename": "UPDATE instance SET program = :after WHERE program = :before",
    "test.count": "SELECT count(*) AS n FROM instance WHERE program = :program",
    "test.count_like": "SELECT count(*) AS n FROM instance WHERE program GLOB :pattern",
    "test.programs": "SELECT program FROM instance WHERE host = 'h' ORDER BY instance_no",
    "test.nameless": "SELECT count(*) FROM instance",
    "test.spin": """
WITH RECURSIVE step (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM step WHERE x < :n)
SELECT max(x) AS n FROM step""",
}


def add_statements() -> None:
    """Make the statements above known to the engine of this process."""
    transaction.statements().update({name: Prepared(name, sql) for name, sql in STATEMENTS.items()})


add_statements()


def set_clock(patch: pytest.MonkeyPatch, now_ms: Callable[[], int]) -> None:
    """Put a wall clock in the place of the writer's, and of the application's."""
    patch.setattr(writer, "_now_ms", now_ms)
    patch.setattr(clock, "stamp_ms", now_ms)


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteBackend]:
    """Open a database and close it again."""
    backend = await SqliteBackend.open(path, **options)
    try:
        yield backend
    finally:
        await backend.close()


def insert(program: str) -> Callable[[Any], int]:
    """Return a body that inserts one row."""
    return lambda tx: int(tx.run("test.insert", program=program))


async def count(backend: SqliteBackend, program: str) -> int:
    return await backend.read(lambda tx: int(tx.first("test.count", program=program).n), op="count")


class Hold:
    """A body that occupies its thread until released, so that a test knows the engine's state."""

    def __init__(self, then: Callable[[Any], Any] = lambda tx: None) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()
        self.then = then

    def __call__(self, tx: Any) -> Any:
        self.begun.set()
        assert self.release.wait(PATIENCE_S), "the test never released the held body"
        return self.then(tx)


@asynccontextmanager
async def held_writer(backend: SqliteBackend) -> AsyncIterator[Hold]:
    """Keep the writer inside a body for the length of the block."""
    hold = Hold()
    async with anyio.create_task_group() as tasks:

        async def occupy() -> None:
            await backend.write(hold, op="hold")

        tasks.start_soon(occupy)
        try:
            await until(hold.begun.is_set)
            yield hold
        finally:
            hold.release.set()


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another thread or process brings about."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # threads and processes set no event of this loop
            await anyio.sleep(0.001)


@contextmanager
def other_process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in another process, which prints a line where the test is to continue."""
    child = warm.Popen(
        [sys.executable, *QUIET_FORKS, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def run_python(
    code: str, *arguments: object, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run Python code in another process to its end."""
    return warm.run(
        [sys.executable, *QUIET_FORKS, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=timeout,
        check=False,
    )


LOCK = """
import sys, apsw
other = apsw.Connection(sys.argv[1])
other.set_busy_timeout(60_000)  # a gateway may be in the middle of a write
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
other.execute("ROLLBACK")
print("unlocked", flush=True)
sys.stdin.readline()
"""


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the write lock from another process. Yields the function that releases it."""
    with other_process(LOCK, path) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        stdin, stdout = child.stdin, child.stdout

        def unlock() -> None:
            stdin.write("\n")
            stdin.flush()
            assert stdout.readline() == "unlocked\n"

        unlock.pid = child.pid  # type: ignore[attr-defined]
        yield unlock
