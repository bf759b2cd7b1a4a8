"""A damaged session sets its own message, turn or reply aside. Everybody else is served."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
from sessiondb.gateway import outbox
from sessiondb.gateway.running_turn import Answer, Turn
from tests.support.core import reply, user
from tests.support.gateway import (
    answer,
    claimed,
    complete,
    eventually,
    hand_over,
    inbox_states,
    kinds,
    look,
    nothing_open,
    running,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.damaged_values, pytest.mark.one_loop]

BAD, GOOD = "agent:main:web:direct:bad", "agent:main:web:direct:good"


@pytest.fixture(autouse=True)
def quiet(quick_retries: None, caplog: pytest.LogCaptureFixture) -> None:
    """Damage is on purpose: it fills no log."""
    caplog.set_level(logging.CRITICAL)


def change(path: Path, sql: str, *bindings: Any) -> None:
    """Change a database as damage would: without its rules."""
    connection = apsw.Connection(str(path))
    connection.pragma("foreign_keys", 0)
    connection.execute(sql, bindings)
    connection.close()


def head_is_lost(path: Path, session_no: int) -> None:
    change(
        path,
        "UPDATE session SET head_no = head_no + 5, branch_no = NULL WHERE session_no = ?",
        session_no,
    )


def row_is_lost(path: Path, session_no: int) -> None:
    change(path, "DELETE FROM session WHERE session_no = ?", session_no)


DAMAGES = [head_is_lost, row_is_lost]
Damage = Callable[[Path, int], None]


async def two_sessions(path: Path) -> int:
    """Make two sessions with a message and an answer each. Return the number of the first."""
    async with sessiondb.open(path) as db:
        for key in (BAD, GOOD):
            session = await db.session(key)
            await session.append(user("hello"))
            await session.append(reply("hello"))
        return (await db.session(BAD)).ref.session_no


async def handler(turn: Turn) -> Answer:
    await turn.session.context()
    return answer(turn)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_message_of_a_damaged_session_is_set_aside(tmp_db: Path, damage: Damage) -> None:
    session_no = await two_sessions(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        await say(db, "bad", BAD)
        await say(db, "bad too", BAD)
        for number in range(3):
            await say(db, f"good {number}", GOOD)
    damage(tmp_db, session_no)
    async with sessiondb.open(tmp_db) as db:
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        states = await inbox_states(db)
        assert states == {
            "bad": "dead",
            "bad too": "dead",
            **{f"good {number}": "done" for number in range(3)},
        }
        reasons = [row.reason for row in await look(db, "inbox") if row.state == "dead"]
        assert all(reason.startswith("no turn can begin with it: ") for reason in reasons)
        told = [event for event in await look(db, "events") if event.kind == "message_dead"]
        assert [event.audience for event in told] == ["user", "operator"] * 2
        assert [json.loads(event.data)["inbox_no"] for event in told] == [1, 1, 2, 2]
        # Without its row there is no session that an event could be about.
        about = None if damage is row_is_lost else session_no
        assert {event.session_no for event in told} == {about}


async def test_damage_that_is_of_no_session_gives_up_no_message(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged page of the turns is met with every message, and is no reason to give up all."""
    async with sessiondb.open(tmp_db) as db:
        await say(db, "good", GOOD)
        failures = 2
        real_write = db.write

        async def write(op: str, *args: Any, **options: Any) -> Any:
            nonlocal failures
            if op == "lane.claim" and failures:
                failures -= 1
                raise sessiondb.StoreDamaged("a page of all")
            return await real_write(op, *args, **options)

        monkeypatch.setattr(db, "write", write)
        monkeypatch.setattr("sessiondb.gateway.retry.SLEEP_S_MAX", 0.01)
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert failures == 0
        assert await inbox_states(db) == {"good": "done"}


async def turns_of_both(db: sessiondb.SessionDB) -> None:
    """Begin a turn of each session. Each has a lease that has run out."""
    for event_id, key in (("bad", BAD), ("good", GOOD)):
        await say(db, event_id, key)
        await claimed(db, lease_ms=-60_000)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_turn_of_a_damaged_session_holds_up_no_take_over(
    tmp_db: Path, damage: Damage
) -> None:
    session_no = await two_sessions(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        await turns_of_both(db)
    damage(tmp_db, session_no)
    async with sessiondb.open(tmp_db) as db:
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(_no_turn_runs, db))
        await check_both_ended(db, damage)


async def _no_turn_runs(db: sessiondb.SessionDB) -> bool:
    return {row.state for row in await look(db, "turns")} == {"interrupted"}


async def check_both_ended(db: sessiondb.SessionDB, damage: Damage) -> None:
    """Check that the good turn waits for its resume, and what could be done for the other."""
    states = await inbox_states(db)
    assert states["good"] == "interrupted"
    assert states["bad"] == ("dead" if damage is row_is_lost else "interrupted")
    wanted = {"turn_interrupted"} | ({"message_dead"} if damage is row_is_lost else set())
    assert set(await kinds(db, "user")) == wanted


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_session_of_a_dead_process_holds_up_no_recovery(
    tmp_db: Path, damage: Damage
) -> None:
    """And so no start: what the process held of other sessions is released."""
    session_no = await two_sessions(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db)
        for _ in range(2):
            await db.write("begin", partial(outbox.begin_sending, lease_ms=30_000))
        for key, event_id in ((BAD, "bad"), (GOOD, "good")):
            await say(db, event_id, key)
            await claimed(db)
        await hand_over(db)
    damage(tmp_db, session_no)
    async with sessiondb.open(tmp_db) as db:
        recovered = await db.recover()
        assert (recovered.instances, recovered.turns, recovered.replies) == (1, 2, 2)
        await check_both_ended(db, damage)
        assert [row.state for row in await look(db, "outbox")] == ["unknown", "unknown"]
        assert (await kinds(db, "operator")).count("reply_unknown") == 2


async def write_replies(db: sessiondb.SessionDB) -> None:
    for key in (BAD, GOOD):
        await say(db, f"for a reply to {key}", key)
        await complete(db, (await claimed(db)).turn_no, replies=[(key, key)])


async def test_a_reply_of_a_damaged_session_holds_up_no_other(tmp_db: Path) -> None:
    sent: list[str] = []

    async def sender(out: sessiondb.Reply) -> None:
        sent.append(out.target)

    async def settled() -> bool:
        return {row.state for row in await look(db, "outbox")} == {"failed", "sent"}

    session_no = await two_sessions(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db)
    row_is_lost(tmp_db, session_no)
    async with sessiondb.open(tmp_db) as db:
        async with running(partial(db.run_outbox, sender)):
            await eventually(settled)
        assert sent == [GOOD]
        assert [row.state for row in await look(db, "outbox")] == ["failed", "sent"]
        assert await kinds(db, "operator") == ["reply_failed"]


async def test_an_overdue_reply_of_a_damaged_session_holds_up_no_other(tmp_db: Path) -> None:
    async def sender(out: sessiondb.Reply) -> None:
        raise AssertionError(out)

    async def settled() -> bool:
        return {row.state for row in await look(db, "outbox")} == {"unknown"}

    session_no = await two_sessions(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db)
        for _ in range(2):
            await db.write("begin", partial(outbox.begin_sending, lease_ms=-60_000))
    row_is_lost(tmp_db, session_no)
    async with sessiondb.open(tmp_db) as db:
        async with running(partial(db.run_outbox, sender)):
            await eventually(settled)
        assert await kinds(db, "operator") == ["reply_unknown", "reply_unknown"]
