"""`outcome_of` knows the outcome of a write for whatever the write raised.

A cancel scope may be over before the call, or end it while an item is encoded on a worker
thread, while a verb reads what it is about to change, or in the queue. Each time the write
was not executed, and the exception says so, also as the TimeoutError that it became.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb import outcome_of
from tests.support.cancellation import STEPS_MAX, Gate, by_scope, cancelled_at
from tests.support.core import user
from tests.support.gateway import KEY, claimed, say

pytestmark = pytest.mark.anyio

LARGE = user("x" * 200_000)


async def prepared(db: sessiondb.SessionDB) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return the verbs that are one write, each on a row of its own."""
    session, other = await db.create_session("one"), await db.create_session("other")
    await say(db, "e1")
    turn_no = (await claimed(db)).turn_no
    await say(db, "e2")
    compacted = await db.create_session("compacted")
    await compacted.append_many([user("a " * 300), user("b " * 300), user("c")])
    job = compacted.compact(keep_recent_tokens=1)
    compaction_id = (await job.__aenter__()).id
    return {
        "append": lambda: session.append(user("x")),
        "append large": lambda: session.append(LARGE),
        "append_many": lambda: session.append_many([user("x"), LARGE]),
        "end": other.end,
        "session": lambda: db.session("agent:main:new"),
        "create_session": db.create_session,
        "bind": lambda: db.bind("agent:main:bound", session),
        "accept": lambda: db.accept(KEY, user("x"), channel="web", event_id="e3"),
        "accept large": lambda: db.accept(KEY, LARGE, channel="web", event_id="e4"),
        "edit": lambda: db.edit(KEY, LARGE, channel="web", event_id="e2", version=1),
        "commit_compaction": lambda: db.commit_compaction(compaction_id, "s" * 200_000),
        "abort_turn": lambda: db.abort_turn(turn_no, "stop"),
        "set_lane": lambda: db.set_lane("new", concurrency=1, priority=1),
    }


async def test_a_verb_in_a_cancelled_scope_was_not_executed(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for name, verb in (await prepared(db)).items():
            caught: list[BaseException] = []
            with anyio.CancelScope() as scope:
                scope.cancel()
                try:
                    await verb()
                except BaseException as error:
                    caught.append(error)
                    raise
            assert [outcome_of(error) for error in caught] == ["not_executed"], name


async def test_a_verb_that_is_cancelled_at_any_wait_tells_its_outcome(
    tmp_db: Path, gate: Gate
) -> None:
    async with sessiondb.open(tmp_db, guard=False) as db:
        gate.open()
        for name, verb in (await prepared(db)).items():
            for k in range(STEPS_MAX):
                report = await cancelled_at(k, "queued", verb, by_scope, gate, db)
                if not report.was_reached:
                    assert report.error is None, name
                    break
                assert report.outcome in ("not_executed", "committed"), f"{name}, wait {k}"
                if report.error is None:
                    break
            else:
                pytest.fail(f"{name} never ended")


async def test_the_timeout_that_a_cancellation_becomes_tells_the_outcome(
    tmp_db: Path, anyio_backend_name: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        for item in (user("x"), LARGE):
            with pytest.raises(TimeoutError) as caught:
                with anyio.fail_after(0):
                    await session.append(item)
            assert outcome_of(caught.value) == "not_executed"
            if anyio_backend_name == "asyncio":  # its own timeout may come after the start
                before = len(await session.entries())
                with pytest.raises(TimeoutError) as caught:
                    async with asyncio.timeout(0):
                        await session.append(item)
                executed = len(await session.entries()) > before
                assert outcome_of(caught.value) == ("committed" if executed else "not_executed")
        with pytest.raises(TimeoutError) as caught:
            with anyio.fail_after(0):
                await anyio.sleep(1)
        assert outcome_of(caught.value) is None, "nothing was written"


async def test_an_error_while_another_is_handled_has_no_outcome_of_it(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        await session.end()
        with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012  # the context matters
            try:
                await session.append(user("x"))
            except sessiondb.SessionEnded:
                raise ZeroDivisionError  # noqa: B904  # its context is what is tested
        assert outcome_of(caught.value) is None
