"""An append that is cancelled at any wait leaves nothing behind, and its outcome is the truth.

`tests/support/cancellation.py` says how an operation is cancelled. After each cancellation
another connection gets the write lock at once, the next append takes the ordinary path (one
commit, no refusal, no wait), a compaction can begin, and the caller's outcome is the database's.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

import sessiondb
from sessiondb.errors import NotExecuted, outcome_of
from tests.support.cancellation import (
    STEPS_MAX,
    WHERE,
    Gate,
    cancelled_at,
    nothing_is_left,
    opened,
    sorts,
)
from tests.support.core import user
from tests.support.engine import DEADLINES_S, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("where", WHERE)
async def test_an_append_cancelled_at_any_wait_tells_the_truth(
    tmp_db: Path, gate: Gate, anyio_backend_name: str, where: str
) -> None:
    outcomes: set[str | None] = set()
    async with opened(tmp_db) as db:
        for name, cancel, times in sorts(anyio_backend_name):
            for k in range(STEPS_MAX):
                session = await db.create_session()
                report = await cancelled_at(
                    k,
                    where,
                    lambda s=session: s.append(user("hello")),
                    cancel,
                    gate,
                    db,
                    times=times,
                )
                arrived = [entry.role for entry in await session.entries()]
                note = f"{name}, {where}, wait {k}: {report}"
                if report.outcome == "committed":
                    assert arrived == ["user"], note
                else:
                    assert report.outcome == "not_executed", note
                    assert arrived == [], note
                await nothing_is_left(db, session)
                if not report.was_reached:
                    assert report.error is None
                    assert k > 0, "an append waits at least once"
                    break
                outcomes.add(f"{name}: {report.outcome}")
            else:
                pytest.fail("the append never ended")
    asynchronous = (
        ["task: committed", "task, three times: committed"]
        if anyio_backend_name == "asyncio"
        else []
    )
    if where == "queued":
        assert "scope: not_executed" in outcomes
    else:
        assert outcomes.issuperset(["scope: committed", *asynchronous])


@pytest.mark.parametrize("where", ["queued", "begun"])
async def test_an_append_whose_time_is_up_tells_the_truth(
    tmp_db: Path, gate: Gate, where: str
) -> None:
    async with opened(tmp_db) as db:
        for timeout_s in DEADLINES_S:
            session = await db.create_session()  # `nothing_is_left` appends to it
            outcome = await held_past_its_deadline(gate, where, session, timeout_s)
            arrived = [entry.role for entry in await session.entries()]
            if isinstance(outcome, NotExecuted):
                assert outcome_of(outcome) == "not_executed"
                assert arrived == []
            else:
                assert where == "begun"
                assert arrived == ["user"]
            await nothing_is_left(db, session)
            if where == "queued" or arrived:
                break
        else:
            pytest.fail("every deadline passed before the append began")


async def held_past_its_deadline(
    gate: Gate, where: str, session: sessiondb.Session, timeout_s: float
) -> NotExecuted | sessiondb.Receipt:
    """Append while the writer is held, until the time is up. Return what the caller got."""
    report: list[NotExecuted | sessiondb.Receipt] = []

    async def append() -> None:
        try:
            report.append(await session.append(user("hello"), timeout_s=timeout_s))
        except NotExecuted as error:
            report.append(error)

    gate.close(where)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(append)
        await until(lambda: gate.reached.is_set() or bool(report))
        if where == "queued":
            await until(lambda: bool(report))  # it does not wait for the writer
        elif gate.reached.is_set():
            await anyio.sleep(timeout_s)
            assert report == [], "it waits for the writer"
        gate.open()
    return report[0]
