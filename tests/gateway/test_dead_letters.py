"""Dead letters: a message is given up once, and the people who wait for it are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sessiondb
from sessiondb.errors import StoreDamaged
from sessiondb.gateway import claims, dead_letters
from sessiondb.limits import INBOX_ATTEMPTS_MAX
from tests.support.gateway import (
    KEY,
    Clock,
    claimed,
    complete,
    fail,
    inbox_states,
    kinds,
    look,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]
OTHER = "agent:main:web:2"


async def test_after_its_last_attempt_a_message_is_dead_with_events(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        pauses = []
        for _ in range(INBOX_ATTEMPTS_MAX):
            await fail(db, (await claimed(db)).turn_no, "the model is down")
            [row] = await look(db, "inbox")
            pauses.append(row.available_at_ms - clock())
            clock.at_ms = max(clock(), row.available_at_ms)
        assert pauses[:-1] == [1_000, 4_000, 16_000, 60_000]
        assert await inbox_states(db) == {"e1": "dead"}
        *failed, user_event, operator_event = await look(db, "events")
    assert [(event.kind, event.audience) for event in failed] == [("turn_failed", "operator")] * 5
    told = [json.loads(event.data) for event in failed]
    assert [one["attempt"] for one in told] == [1, 2, 3, 4, 5]
    assert told[-1]["retry_at_ms"] is None
    assert "the model is down. Its message is tried again after 16 s" in failed[2].text
    assert "the model is down. Its message is given up" in failed[4].text
    assert (user_event.kind, user_event.audience) == ("message_dead", "user")
    assert "could not be answered" in user_event.text
    assert (operator_event.kind, operator_event.audience) == ("message_dead", "operator")
    assert "the model is down" in operator_event.text


async def test_only_a_waiting_message_is_refused(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, OTHER):
            await say(db, key, key)
        turn = await claimed(db)

        async def refuse(inbox_no: int) -> bool:
            return await db.write(
                "refuse", lambda tx: dead_letters.refuse(tx, inbox_no, None, "no message")
            )

        assert not await refuse(turn.inbox_no), "a turn works on it"
        assert await refuse(2)
        assert not await refuse(2), "once"
        assert await inbox_states(db) == {KEY: "claimed", OTHER: "dead"}
        assert [row.session_no for row in await look(db, "events")] == [None, None]


async def test_a_turn_is_set_aside_once_with_its_message(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, OTHER):
            await say(db, key, key)
        first, second = await claimed(db), await claimed(db)
        await complete(db, second.turn_no, "done")

        async def set_aside(turn: claims.Started) -> bool:
            return await db.write(
                "set aside",
                lambda tx: dead_letters.set_aside(tx, turn.turn_no, turn.inbox_no, "damaged"),
            )

        assert [await set_aside(turn) for turn in (first, first, second)] == [True, False, False]
        assert await inbox_states(db) == {KEY: "dead", OTHER: "done"}
        assert [(row.state, row.reason) for row in await look(db, "turns")] == [
            ("interrupted", "damaged"),
            ("completed", None),
        ]
        assert await kinds(db) == ["message_dead", "message_dead"]


async def test_a_message_that_is_open_no_more_is_no_dead_letter(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await complete(db, (await claimed(db)).turn_no, "answer")
        with pytest.raises(StoreDamaged, match="inbox item 1 was open"):
            await db.write("dead letter", lambda tx: dead_letters.dead_letter(tx, 1, 1, "given up"))
        assert await inbox_states(db) == {"e1": "done"}
        assert await kinds(db) == []
