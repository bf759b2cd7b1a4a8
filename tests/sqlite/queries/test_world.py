"""The populated world itself: it is sound, and a change in it is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

import sessiondb
from tests.support.world import World, world_file


@pytest.mark.anyio
async def test_the_world_is_a_sound_database(tmp_path: Path) -> None:
    async with sessiondb.open(world_file(tmp_path / "world.db")) as db:
        assert (await db.verify(deep=True)).findings == ()


def test_every_table_has_several_rows(world: World) -> None:
    assert [name for name, rows in world.before.values.items() if len(rows) < 2] == [
        "wal_link",  # these have one row by their nature
        "search_state",
    ]


def test_a_changed_a_new_and_a_lost_row_are_seen(world: World) -> None:
    with world.undone():
        world.connection.execute("""
            UPDATE inbox SET attempts = 9, turn_no = NULL WHERE event_id = 'held';
            UPDATE inbox SET attempts = attempts WHERE event_id = 'held-too';
            INSERT INTO event_cursor VALUES ('new', 7);
            DELETE FROM lane WHERE lane = 'slower'""")
        assert world.changed() == {
            "inbox held": {"attempts": 9, "turn_no": None},
            "+event_cursor new": {"event_no": 7},
            "-lane slower": {},
        }
    assert world.changed() == {}


def test_new_rows_with_one_label_are_all_seen(world: World) -> None:
    with world.undone() as tx:
        for _ in range(2):
            tx.run(
                "events.emit",
                kind="k",
                audience="user",
                session_no=None,
                now_ms=tx.now_ms,
                text="",
                data="{}",
            )
        assert list(world.changed()) == ["+event k/user", "+event k/user 2"]
