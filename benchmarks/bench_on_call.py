"""What an operator does costs a gateway nothing: its appends, beside commands of other processes.

Each command runs as a person runs it, `top` on a terminal of its own. The floor is the same
append while no command runs.
"""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import perf_counter

import pytest
from measure import Bench, fill_with_words, percentile, size

import sessiondb

COMMAND = [sys.executable, "-m", "sessiondb"]
ENTRIES, SESSIONS = size(100_000, 400), size(200, 4)
APPENDS = size(400, 5)


@asynccontextmanager
async def again_and_again(*arguments: str) -> AsyncIterator[None]:
    """Run a command, and once more when it ends, until the block does."""
    loop = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", 'while "$@"; do :; done', "sh", *COMMAND, *arguments),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert loop.stdout is not None
    try:
        await loop.stdout.readline()  # it has begun to work
        reading = asyncio.create_task(loop.stdout.read())
        yield
        assert loop.returncode is None, f"{arguments[0]} failed with code {loop.returncode}"
    finally:
        os.killpg(loop.pid, signal.SIGKILL)
        await loop.wait()
    await reading


@asynccontextmanager
async def on_a_terminal(*arguments: str) -> AsyncIterator[None]:
    """Run a command that draws on a terminal, which somebody reads."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="80", LINES="24")
        os.execv(sys.executable, [*COMMAND, *arguments])
    drawn = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(terminal, lambda: drawn.set() if os.read(terminal, 65_536) else None)
    try:
        await drawn.wait()
        yield
        drawn.clear()
        await drawn.wait()  # it is still at work
    finally:
        loop.remove_reader(terminal)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222  # it is dead
        os.close(terminal)


Work = Callable[[Path], AbstractAsyncContextManager[None]]
WORK: dict[str, Work] = {
    "top": lambda path: on_a_terminal("top", str(path), "--every", "0.5"),
    "status --watch": lambda path: again_and_again("status", str(path), "--watch", "1"),
    "a backup": lambda path: again_and_again("backup", str(path), f"{path}-backups", "--keep", "1"),
    "the building of the index": lambda path: again_and_again("search", str(path), "--rebuild"),
}


@pytest.mark.parametrize("work", WORK)
def test_an_append_beside_a_command_of_an_operator(
    bench: Bench, db: sessiondb.SessionDB, tmp_path: Path, work: str
) -> None:
    path = tmp_path / "gateway.db"
    (tmp_path / "gateway.db-backups").mkdir()
    bench.run(fill_with_words(db, ENTRIES, SESSIONS))
    session = bench.run(db.create_session("appended to"))

    async def idle() -> list[float]:
        """Return how long appends took, in microseconds."""
        samples = []
        for _ in range(APPENDS):
            began = perf_counter()
            await session.append({"role": "user", "content": "w1 w2 w3"})
            samples.append((perf_counter() - began) * 1e6)
            await asyncio.sleep(0.002)  # people write now and then
        return samples

    async def ours() -> list[float]:
        async with WORK[work](path):
            return await idle()

    pairs = bench.rounds(idle, ours, 10)
    for share in (0.5, 0.99):
        bench.say(
            f"append p{share * 100:.0f} beside {work}",
            [(percentile(floor, share), percentile(ours, share)) for floor, ours in pairs],
            unit="us",
            target="<= 1.2" if share > 0.9 else "",
        )
