"""Changes of state: one that finds no row writes nothing, and says what it expected."""

from __future__ import annotations

from pathlib import Path

import pytest

import sessiondb
from sessiondb.errors import StoreDamaged
from sessiondb.gateway import changes
from tests.support.gateway import (
    claimed,
    complete,
    fail,
    inbox_states,
    interrupt,
    look,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]
OTHER = "agent:main:web:2"


async def test_a_change_of_state_that_finds_no_row_is_damage(
    tmp_db: Path,
) -> None:
    """Some other program made the message wait while its turn runs."""
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        await db.write("spoil", lambda tx: tx.run("look.requeue"))
        message = f"inbox item 1 was claimed by turn {turn.turn_no}"
        with pytest.raises(StoreDamaged, match=message):
            await complete(db, turn.turn_no, "answer")
        with pytest.raises(StoreDamaged, match=message):
            await fail(db, turn.turn_no)
        with pytest.raises(StoreDamaged, match=message):
            await db.abort_turn(turn.turn_no, "stop")
        assert [row.state for row in await look(db, "turns")] == ["running"]
        assert await interrupt(db, turn.turn_no), (
            "the operator is notified, and the take-over goes on"
        )
        assert [(row.kind, row.audience) for row in await look(db, "events")] == [
            ("turn_interrupted", "operator")
        ]
        assert "is not claimed by it" in (await look(db, "events"))[0].text
        assert await inbox_states(db) == {"e1": "queued"}


@pytest.mark.parametrize("changed", [0, 2])
def test_a_change_finds_one_row_and_no_other_number(changed: int) -> None:
    changes.require_one(1, "turn 7 was running")
    with pytest.raises(StoreDamaged, match="turn 7 was running, as the turn's rules require"):
        changes.require_one(changed, "turn 7 was running")
