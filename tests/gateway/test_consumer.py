"""A follower gets every event once and in order, however many pages lie between."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

import sessiondb
from sessiondb import events
from tests.support.engine import PATIENCE_S
from tests.support.world import make_world, world_file

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("audience", [None, "user", "operator"])
async def test_a_reader_with_several_full_pages_unread_skips_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audience: events.Audience | None
) -> None:
    monkeypatch.setattr(events, "PAGE", 2)
    monkeypatch.setattr(events.after, "__kwdefaults__", {"limit": 2})
    expected = [
        row["event_no"]
        for _, row in make_world().rows("event")
        if audience in (None, row["audience"])
    ]
    found: list[int] = []
    async with sessiondb.open(world_file(tmp_path / "world.db")) as db:
        following = db.events("new", audience=audience, from_start=True)
        with anyio.fail_after(PATIENCE_S):
            async with aclosing(following):
                async for event in following:
                    found.append(event.event_no)
                    if event.event_no == expected[-1]:
                        break
    assert found == expected
