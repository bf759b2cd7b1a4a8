"""The slow-operation log: who waited, what for, and not a word of a message.

A line is written after its caller is woken, so each test reads the lines of a closed database.
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import pytest

from sessiondb import sync
from sessiondb.limits import Limits
from sessiondb.sqlite.batch import Batch
from sessiondb.sqlite.request_queue import Request
from sessiondb.sqlite.slow_log import WriterLog
from tests.sqlite.test_request_queue import SilentWaiter
from tests.support.engine import Hold, insert, opened, until

SECRET = "a secret of a person"
OTHER_SECRET = "what another person said"


def slow_lines(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.name == "sessiondb.slow"]


@pytest.mark.anyio
async def test_a_slow_write_names_who_waited_and_who_held(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hold = Hold()
    async with opened(tmp_db, limits=Limits(slow_ms=0)) as backend:
        async with anyio.create_task_group() as tasks:
            asked = monotonic()
            tasks.start_soon(lambda: backend.write(hold, op="hold.for_long"))
            await until(hold.begun.is_set)
            holder_waited_s_max = monotonic() - asked
            tasks.start_soon(lambda: backend.write(insert(SECRET), op="append"))
            # The writer is inside the body, so what is queued stays queued.
            await until(lambda: backend.stats()["writer"]["queue_items"] == 1)
            # The append has waited for longer than the holder did, whatever the machine does.
            queued = monotonic()
            await until(lambda: monotonic() - queued > holder_waited_s_max)
            hold.release.set()
        counted = backend.stats()["writer"]["slow"]
    lines = slow_lines(caplog)
    assert counted == len(lines) >= 1
    [line] = [line for line in lines if line.operation == "append"]
    # It shares the holder's transaction or is in the next one: the machine's speed decides.
    assert "hold.for_long" in {line.slowest_operation, line.before_operation}
    assert line.waited_ms > 0
    said = f"{line.getMessage()} {vars(line)}"
    assert "append waited" in said
    assert "hold.for_long" in line.getMessage()
    assert str(tmp_db) in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("enqueued", "before"),
    [
        (0.5, ("step", 2_000)),  # it met all of the step, and the end of the hold
        (4.0, ("checkpoint", 250)),
        (4.5, (None, 0)),
    ],
)
def test_the_line_names_what_held_for_most_of_the_wait(
    caplog: pytest.LogCaptureFixture, enqueued: float, before: tuple[str | None, float]
) -> None:
    log = WriterLog("a.db", slow_ms=0)
    for op, began, ended in (("hold", 0, 1), ("step", 2, 4), ("checkpoint", 4.0, 4.25)):
        log.note_hold(op, began, ended)
    requests = []
    for op, waited_ms in (("append", 3_000.0), ("claim", 1.0)):
        requests.append(Request(None, op, 1, 0.0, SilentWaiter()))
        requests[-1].enqueued, requests[-1].waited_ms = enqueued, waited_ms
    batch = Batch(5.0, 0, slowest_op="claim", slowest_ms=40.0, finished=requests)
    write = log.line(batch, 5.5)
    assert write is not None
    write()
    [line] = slow_lines(caplog)
    assert (line.before_operation, round(line.before_ms)) == before
    assert (line.operation, line.slowest_operation, round(line.held_ms)) == ("append", "claim", 500)


@pytest.mark.anyio
async def test_a_slow_read_is_a_line_and_counted(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hold = Hold(then=lambda tx: SECRET)
    async with opened(tmp_db, limits=Limits(slow_ms=0, readers=1)) as backend:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: backend.read(hold, op="export"))
            await until(hold.begun.is_set)
            tasks.start_soon(lambda: backend.read(lambda tx: OTHER_SECRET, op="messages"))
            await until(lambda: backend.stats()["readers"]["queue_items"] == 1)
            hold.release.set()
        counted = backend.stats()["readers"]
    lines = {line.operation: line for line in slow_lines(caplog) if hasattr(line, "took_ms")}
    assert counted["slow"] == counted["reads"] == len(lines) == 2
    assert lines["messages"].waited_ms > 0
    assert counted["wait_ms_total"] >= lines["messages"].waited_ms
    assert counted["read_ms_total"] >= lines["export"].took_ms > 0
    said = "\n".join(f"{line.getMessage()} {vars(line)}" for line in lines.values())
    assert "export took" in said
    assert SECRET not in said
    assert OTHER_SECRET not in said


@pytest.mark.parametrize("slow_ms", [None, 600_000.0])
def test_nothing_is_logged_of_what_is_fast_or_not_asked_for(
    tmp_db: Path, caplog: pytest.LogCaptureFixture, slow_ms: float | None
) -> None:
    with sync.open(tmp_db, limits=Limits(slow_ms=slow_ms)) as db:
        session = db.session("agent:main:main")
        session.append({"role": "user", "content": SECRET})
        session.context()
        stats = db.stats()
        assert (stats["writer"]["slow"], stats["readers"]["slow"]) == (0, 0)
    assert slow_lines(caplog) == []
