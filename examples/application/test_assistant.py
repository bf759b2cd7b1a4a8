"""The assistant's tests. None waits, and none has a stand-in for the database.

python -m pytest examples/application
"""

from __future__ import annotations

from typing import Any

import pytest

from sessiondb import SessionDB
from sessiondb.testing import ManualClock, run_until_idle

from .assistant import Assistant, ChannelAway

pytestmark = pytest.mark.anyio


class World:
    """A model and a channel, of which a test says how often they fail."""

    def __init__(self) -> None:
        self.model_fails = self.channel_fails = 0
        self.heard: list[tuple[str, str]] = []

    async def model(self, messages: list[dict[str, Any]]) -> str:
        if self.model_fails:
            self.model_fails -= 1
            raise ConnectionError("the model is away")
        return f"answer to {len(messages)} messages"

    async def channel(self, visitor: str, text: str) -> None:
        if self.channel_fails:
            self.channel_fails -= 1
            raise ChannelAway("the page is closed")
        self.heard.append((visitor, text))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def assistant(sessiondb_db: SessionDB, world: World) -> Assistant:
    return Assistant(sessiondb_db, world.model, world.channel)


async def test_each_visitor_has_a_conversation(
    sessiondb_db: SessionDB, assistant: Assistant, world: World
) -> None:
    for visitor, event in (("ann", "1"), ("bob", "2"), ("ann", "1")):  # one comes twice
        await assistant.hear(visitor, event, "hello")
    sent = await run_until_idle(sessiondb_db, assistant.answer, assistant.send)
    assert len(sent) == 2
    assert sorted(world.heard) == [("ann", "answer to 1 messages"), ("bob", "answer to 1 messages")]


async def test_a_model_that_is_away_for_a_minute_delays_the_answer(
    sessiondb_db: SessionDB, sessiondb_clock: ManualClock, assistant: Assistant, world: World
) -> None:
    world.model_fails = 4
    await assistant.hear("ann", "1", "hello")
    await run_until_idle(sessiondb_db, assistant.answer, assistant.send)
    assert world.heard == [("ann", "answer to 1 messages")]
    assert sessiondb_clock.monotonic() == 1 + 4 + 16 + 60


async def test_a_model_that_stays_away_makes_a_dead_letter(
    sessiondb_db: SessionDB, assistant: Assistant, world: World
) -> None:
    world.model_fails = 99
    await assistant.hear("ann", "1", "hello")
    assert await run_until_idle(sessiondb_db, assistant.answer, assistant.send) == []
    assert [dead.event_id async for dead in sessiondb_db.dead_letters()] == ["1"]


async def test_a_page_that_is_closed_gets_its_answer_later(
    sessiondb_db: SessionDB, assistant: Assistant, world: World
) -> None:
    world.channel_fails = 3
    await assistant.hear("ann", "1", "hello")
    [reply] = await run_until_idle(sessiondb_db, assistant.answer, assistant.send)
    assert reply.attempts == 4


async def test_a_conversation_begins_anew_each_day(
    sessiondb_db: SessionDB, sessiondb_clock: ManualClock, assistant: Assistant, world: World
) -> None:
    for number in range(2):
        await assistant.hear("ann", f"monday-{number}", "hello")
        await run_until_idle(sessiondb_db, assistant.answer, assistant.send)
    sessiondb_clock.move(24 * 3_600)
    await assistant.hear("ann", "tuesday", "hello")
    await run_until_idle(sessiondb_db, assistant.answer, assistant.send)
    assert [text for _, text in world.heard] == [
        "answer to 1 messages",
        "answer to 3 messages",
        "answer to 1 messages",
    ]
