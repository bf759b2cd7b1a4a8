"""Databases that are not closed: the program ends, or drops them."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from sessiondb.sqlite import SqliteBackend, parts
from tests.support.engine import PATIENCE_S, run_python

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "ending", ["return", "raise SystemExit(0)", "del backend; import gc; gc.collect()"]
)
def test_a_program_that_never_closes_exits_cleanly(tmp_db: Path, ending: str) -> None:
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
        ) == [tmp_db.name, f"{tmp_db.name}-alive"]


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
    hold = lambda tx: (began.set(), release.wait(30))
    tasks = [asyncio.create_task(backend.write(hold, op="hold"))]
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


async def test_a_backend_that_is_dropped_warns_and_ends_its_threads(tmp_db: Path) -> None:
    backend = await SqliteBackend.open(tmp_db)
    parts = backend._parts
    # The last reference must be dropped inside.
    with pytest.warns(ResourceWarning, match="was not closed"):  # noqa: PT031
        del backend
        gc.collect()
    assert parts.writer is not None
    assert parts.writer.join(PATIENCE_S)
    assert parts.readers.join(PATIENCE_S)


def test_at_the_exit_only_what_this_process_has_open_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []

    def parts_of(name: str, *, pid: int = os.getpid(), is_closed: bool = False) -> SimpleNamespace:
        def close(timeout_s: float) -> bool:
            assert timeout_s == parts.EXIT_S_MAX
            closed.append(name)
            return name != "slow"

        return SimpleNamespace(path=name, pid=pid, closed=is_closed, close=close)

    found = [
        parts_of("open"),
        parts_of("closed", is_closed=True),
        parts_of("parent's", pid=1),
        parts_of("slow"),
    ]
    monkeypatch.setattr(parts, "_open", found)
    parts._close_all()
    assert closed == ["open", "slow"]
    assert [record.message.split(":")[0] for record in caplog.records] == ["slow"]
