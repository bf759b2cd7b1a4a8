"""Turns: fenced by their number, and ended once, together with their message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
from sessiondb.backend import Tx
from sessiondb.clock import stamp_ms
from sessiondb.gateway import leases, turns
from sessiondb.sqlite import schema
from sessiondb.sqlite.connection import drain
from sessiondb.transcript.entries import prepare
from tests.support.core import reply, user
from tests.support.gateway import (
    KEY,
    Clock,
    claimed,
    compact,
    complete,
    fail,
    inbox_states,
    interrupt,
    kinds,
    look,
    reset_context,
    said,
    say,
    switch_branch,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]
OTHER = "agent:main:web:2"


async def test_a_turn_that_was_taken_over_can_write_nothing(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        old = await claimed(db, lease_ms=5_000)
        clock.pass_ms(5_000)
        assert await db.write("take", lambda tx: leases.take_over_expired(tx)) == 1
        assert await db.write("take", lambda tx: leases.take_over_expired(tx)) == 0, (
            "compare-and-set: once"
        )
        assert not await interrupt(db, old.turn_no)
        draft = await prepare(user("late"), now_ms=stamp_ms())
        writes = [
            lambda tx: turns.append(tx, old.turn_no, [draft]),
            lambda tx: turns.reset(tx, old.turn_no, reason="new", keep_from=None),
            lambda tx: leases.renew(tx, old.turn_no, lease_ms=5_000, operation="late"),
            lambda tx: turns.complete(
                tx, old.turn_no, [draft], [("web", "{}")], incomplete=False, reason=None
            ),
            lambda tx: turns.fail(tx, old.turn_no, "late", retry=True),
            lambda tx: turns.abort(tx, old.turn_no, "late"),
        ]
        for write in writes:
            with pytest.raises(sessiondb.TurnLost, match="is interrupted") as caught:
                await db.write("late", write)
            assert caught.value.turn_no == old.turn_no
        assert await inbox_states(db) == {"e1": "interrupted"}
        assert await look(db, "outbox") == []
        assert len(await look(db, "user_entries")) == 1
        assert await kinds(db, "operator") == await kinds(db, "user") == ["turn_interrupted"]
        assert len(await (await db.session(KEY)).epochs()) == 1, "nor begin its context anew"


async def test_what_a_turn_produces_and_its_end_are_one_transaction(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)

        def broken(tx: Tx, *args: Any, **options: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(turns, "_finish", broken)
            with pytest.raises(ZeroDivisionError):
                await complete(db, turn.turn_no, "answer", replies=[("web", "answer")])
        assert await look(db, "outbox") == []
        assert (await (await db.session(KEY)).info()).entries == 1
        await complete(db, turn.turn_no, "answer", replies=[("web", "answer")])
        assert (await (await db.session(KEY)).info()).entries == 2


async def test_an_incomplete_answer_is_recorded_with_an_event(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await complete(db, (await claimed(db)).turn_no, incomplete="the stream ended early")
        [turn] = await look(db, "turns")
        [event] = await look(db, "events")
    assert (turn.state, turn.incomplete, turn.reason) == ("completed", 1, "the stream ended early")
    assert (event.kind, event.audience) == ("turn_incomplete", "user")


async def test_an_aborted_turns_message_is_done(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        await db.abort_turn(turn.turn_no, "asked to stop")
        assert await inbox_states(db) == {"e1": "done"}
        with pytest.raises(sessiondb.TurnLost, match="asked to stop"):
            await db.abort_turn(turn.turn_no, "again")
        with pytest.raises(sessiondb.NotFound):
            await db.abort_turn(99, "which?")


# -- what supersedes what ----------------------------------------------------------------------


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("main", "cron"),
        ("main", "subagent"),
        ("cron", "main"),
        ("cron", "cron"),
        ("subagent", "cron"),
        ("main", "hook"),
    ],
)
async def test_only_a_persons_message_supersedes_a_persons(
    tmp_db: Path, first: str, second: str, queued: bool
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("subagent", concurrency=2, priority=5)
        for key in (KEY, OTHER):
            await db.accept(key, user("first"), channel="web", event_id=f"first {key}", lane=first)
        for _ in range(1 if first == "cron" else 2):
            await interrupt(db, (await claimed(db, first)).turn_no)
        if first == "cron":
            await interrupt(db, (await claimed(db, first)).turn_no)
        policy = sessiondb.ResumePolicy(max_concurrent_resumes=9)
        if queued:
            await db.resume(policy)
        by_person = False if second == "hook" else None
        lane = "main" if second == "hook" else second
        await db.accept(
            KEY, user("second"), channel="x", event_id="second", lane=lane, by_person=by_person
        )
        await complete(db, (await claimed(db, lane)).turn_no, "to the second")
        states = await inbox_states(db)
        assert states[f"first {KEY}"] == ("queued" if queued else "interrupted")
        await db.resume(policy)
        for _ in range(2):
            turn = await claimed(db, "resume")
            assert (await said(db, KEY if turn.inbox_no == 1 else OTHER))[-1] == "first"
            await complete(db, turn.turn_no, "to the first")
        assert set((await inbox_states(db)).values()) == {"done"}
        assert "message_superseded" not in await kinds(db)


@pytest.mark.parametrize("queued", [False, True])
async def test_a_persons_message_supersedes_what_its_context_has_with_an_event(
    tmp_db: Path, queued: bool
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2):
            await say(db, f"first of {number}", f"agent:main:web:{number}")
        for _ in range(2):
            await interrupt(db, (await claimed(db)).turn_no)
        if queued:
            await db.resume(sessiondb.ResumePolicy(max_concurrent_resumes=9))
        waits = "queued" if queued else "interrupted"
        later = await say(db, "second of 1")
        turn = await claimed(db)
        assert (await inbox_states(db))["first of 1"] == waits, "nothing is answered yet"
        await fail(db, turn.turn_no)
        assert (await inbox_states(db))["first of 1"] == waits, "nor was it now"
        await db.write("hurry", lambda tx: tx.run("look.hurry"))
        await complete(db, (await claimed(db)).turn_no, "to both")
        assert await inbox_states(db) == {
            "first of 1": "done",
            "first of 2": waits,
            "second of 1": "done",
        }
        [told] = [row for row in await look(db, "events") if row.kind == "message_superseded"]
        assert (told.audience, told.session_no) == ("user", 1)
        assert json.loads(told.data)["inbox_no"] == 1
        [row, *_] = await look(db, "inbox")
        assert row.superseded_by == later.inbox_no


@pytest.mark.parametrize("move", [reset_context, switch_branch, compact])
async def test_what_the_context_does_not_have_is_not_superseded(tmp_db: Path, move: Any) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append_many([user("old talk"), reply("old answer")])
        await say(db, "first")
        await interrupt(db, (await claimed(db)).turn_no)
        await move(db, KEY)
        await say(db, "second")
        await complete(db, (await claimed(db)).turn_no, "to the second")
        assert await inbox_states(db) == {"first": "interrupted", "second": "done"}
        await db.resume()
        turn = await claimed(db, "resume")
        assert (await said(db, KEY))[-1] == "first"
        await complete(db, turn.turn_no, "to the first")
        assert set((await inbox_states(db)).values()) == {"done"}


async def test_a_turn_without_an_answer_supersedes_nothing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "first")
        await interrupt(db, (await claimed(db)).turn_no)
        await say(db, "second")
        await complete(db, (await claimed(db)).turn_no, incomplete="the model said nothing")
        assert await inbox_states(db) == {"first": "interrupted", "second": "done"}


async def test_a_person_who_stops_a_turn_stops_what_it_continued(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "first")
        await interrupt(db, (await claimed(db)).turn_no)
        await say(db, "second")
        await db.abort_turn((await claimed(db)).turn_no, "stop")
        assert await inbox_states(db) == {"first": "done", "second": "done"}
        assert "message_superseded" in await kinds(db, "user")


def test_an_older_file_knows_the_messages_of_main_as_peoples() -> None:
    connection = apsw.Connection(":memory:")
    scripts = dict(schema.migrations())
    for number in (1, 2, 3):
        drain(connection, scripts[number])
    drain(
        connection,
        """
        INSERT INTO session (session_no, session_id, origin, version, created_at_ms, updated_at_ms)
        VALUES (1, 'one', 'native', 3, 1, 2);
        INSERT INTO inbox (inbox_no, channel, event_id, session_no, lane, lane_before, state,
                           accepted_at_ms, available_at_ms, payload)
        VALUES (3, 'web', 'e1', 1, 'main', NULL, 'queued', 5, 6, '{}'),
               (4, 'web', 'e2', 1, 'resume', 'main', 'queued', 5, 6, '{}'),
               (5, 'cron', 'e3', 1, 'resume', 'cron', 'queued', 5, 6, '{}'),
               (6, 'cron', 'e4', 1, 'cron', NULL, 'interrupted', 5, 6, '{}');
        """,
    )
    drain(connection, scripts[4])
    assert drain(connection, "SELECT inbox_no FROM inbox WHERE by_person") == [(3,), (4,)]


async def test_only_an_end_without_an_answer_is_incomplete(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(5):
            await say(db, f"e{number}", f"agent:main:web:{number}")
        await complete(db, (await claimed(db)).turn_no, "answer")
        await fail(db, (await claimed(db)).turn_no, retry=False)
        await interrupt(db, (await claimed(db)).turn_no)
        await db.abort_turn((await claimed(db)).turn_no, "stop")
        await complete(db, (await claimed(db)).turn_no, incomplete="the model said nothing")
        assert [(row.state, row.incomplete) for row in await look(db, "turns")] == [
            ("completed", 0),
            ("failed", 0),
            ("interrupted", 0),
            ("aborted", 0),
            ("completed", 1),
        ]
