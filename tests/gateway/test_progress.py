"""Progress: what a turn notes, found by whoever takes its message over, whatever ended the turn."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb.gateway import progress, turns
from sessiondb.gateway.running_turn import Answer, Turn
from sessiondb.limits import TURN_PROGRESS_BYTES_MAX
from tests.support.engine import PATIENCE_S, other_process
from tests.support.gateway import (
    KEY,
    claimed,
    complete,
    eventually,
    fail,
    inbox_states,
    interrupt,
    look,
    nothing_open,
    running,
    say,
)

pytestmark = pytest.mark.anyio
OTHER = "agent:main:web:2"


async def note(db: sessiondb.SessionDB, turn_no: int, details: Any) -> None:
    text = progress.encode(turn_no, details)
    await db.write("note", lambda tx: turns.note_progress(tx, turn_no, text))


async def again(db: sessiondb.SessionDB) -> Any:
    """Return what the next attempt at a message that waits finds, and interrupt it."""
    await db.write("hurry", lambda tx: tx.run("look.hurry"))
    turn = await claimed(db)
    assert turn.attempt > 1
    await interrupt(db, turn.turn_no)
    return json.loads(turn.progress) if turn.progress is not None else None


async def test_the_next_attempt_finds_the_last_note_of_its_own_message(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, OTHER):
            await say(db, f"of {key}", key)
        one, other = await claimed(db), await claimed(db)
        assert one.progress is other.progress is None
        for number in range(3):
            await note(db, one.turn_no, {"message_id": number})
        await note(db, other.turn_no, "another one")
        await fail(db, one.turn_no)
        assert await again(db) == {"message_id": 2}, "after a failure"
        await db.write("resume", lambda tx: tx.run("look.requeue_interrupted"))
        assert await again(db) == {"message_id": 2}, "after an attempt that noted nothing"


async def test_a_note_taken_back_is_none(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        await note(db, turn.turn_no, {"message_id": 1})
        await note(db, turn.turn_no, None)
        await fail(db, turn.turn_no)
        assert await again(db) is None


async def test_a_turn_that_was_taken_over_notes_nothing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        await note(db, turn.turn_no, "mine")
        await interrupt(db, turn.turn_no)
        with pytest.raises(sessiondb.TurnLost):
            await note(db, turn.turn_no, "too late")
        with pytest.raises(sessiondb.NotFound):
            await note(db, 99, "no such turn")
        await db.write("resume", lambda tx: tx.run("look.requeue_interrupted"))
        assert await again(db) == "mine"


@pytest.mark.parametrize(
    "details", [object(), float("nan"), {"a": {1, 2}}, "x" * (TURN_PROGRESS_BYTES_MAX - 1)]
)
def test_what_is_no_json_or_too_large_is_refused(details: Any) -> None:
    with pytest.raises(sessiondb.InvalidInput, match="the progress of turn 7"):
        progress.encode(7, details)


@pytest.mark.parametrize("letter", ["x", "\u00e4", "\u20ac"])
async def test_a_note_of_the_greatest_size_is_kept(tmp_db: Path, letter: str) -> None:
    count, rest = divmod(TURN_PROGRESS_BYTES_MAX - 2, len(letter.encode()))
    text = letter * count + "x" * rest
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        await note(db, turn.turn_no, text)
        with pytest.raises(sessiondb.InvalidInput):
            await note(db, turn.turn_no, text + "x")
        await fail(db, turn.turn_no)
        assert await again(db) == text


async def test_an_end_that_nobody_takes_over_tells_what_was_noted(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:

        async def noted(event_id: str, key: str = KEY) -> int:
            await say(db, event_id, key)
            turn = await claimed(db)
            await note(db, turn.turn_no, {"of": event_id})
            return turn.turn_no

        await db.abort_turn(await noted("stopped"), "enough")
        await fail(db, await noted("dead"), retry=False)
        await interrupt(db, await noted("withdrawn"))
        await db.withdraw("web", "withdrawn")
        await interrupt(db, await noted("earlier", OTHER))
        await say(db, "later", OTHER)
        await complete(db, (await claimed(db)).turn_no, "both")
        found = {
            row.kind: json.loads(row.data)["progress"]["of"]
            for row in await look(db, "events")
            if row.audience == "user" and row.kind != "turn_interrupted"
        }
        assert found == {
            "turn_aborted": "stopped",
            "message_dead": "dead",
            "message_withdrawn": "withdrawn",
            "message_superseded": "earlier",
        }
        assert (await db.verify()).ok


async def test_a_handler_notes_and_its_next_attempt_goes_on(tmp_db: Path) -> None:
    seen: list[Any] = []

    async def handler(turn: Turn) -> Answer:
        seen.append(turn.previous)
        if turn.attempt == 1:
            await turn.progress({"message_id": 4711})
            raise RuntimeError("no luck")
        with pytest.raises(sessiondb.InvalidInput):
            await turn.progress(object())
        return Answer()

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        with anyio.fail_after(PATIENCE_S):
            async with running(partial(db.run_lane, "main", handler)):
                while not await nothing_open(db):
                    await db.write("hurry", lambda tx: tx.run("look.hurry"))
                    await anyio.sleep(0.01)
        assert seen == [None, {"message_id": 4711}]


CHILD = """
import sys, anyio, sessiondb
async def handler(turn):
    await turn.progress({"message_id": turn.message["content"]})
    print("shown", flush=True)
    await anyio.sleep_forever()
async def main():
    async with sessiondb.open(sys.argv[1], program="the old gateway") as db:
        for number in (1, 2):
            message = {"role": "user", "content": f"m{number}"}
            key, event = f"agent:main:web:{number}", f"e{number}"
            await db.accept(key, message, channel="web", event_id=event)
        await db.run_lane("main", handler)
anyio.run(main, backend=sys.argv[2])
"""


async def test_a_kill_orphans_no_placeholder(tmp_db: Path, anyio_backend: str) -> None:
    found: dict[str, Any] = {}

    async def handler(turn: Turn) -> Answer:
        found[turn.message["content"]] = turn.previous
        return Answer()

    with other_process(CHILD, tmp_db, anyio_backend) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(2)] == ["shown\n"] * 2
        child.kill()
        child.wait()
    async with sessiondb.open(tmp_db) as db:
        with anyio.fail_after(PATIENCE_S):
            async with running(db.run_recovery, partial(db.run_lane, "resume", handler)):
                await eventually(partial(nothing_open, db))
        assert set((await inbox_states(db)).values()) == {"done"}
    assert found == {"m1": {"message_id": "m1"}, "m2": {"message_id": "m2"}}
