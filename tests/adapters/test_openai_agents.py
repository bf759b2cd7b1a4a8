"""The session of the OpenAI Agents SDK. `make adapters` runs these beside the SDK's own tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import sessiondb

from .programs import Program

pytest.importorskip("agents", reason="the OpenAI Agents SDK is not installed: make adapters")

from sessiondb.adapters.openai_agents import SessionDBSession


def says(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def texts(session: SessionDBSession, limit: int | None = None) -> list[str]:
    return [str(item["content"]) for item in await session.get_items(limit)]


def with_two_sessions(
    course: Callable[[SessionDBSession, SessionDBSession], Awaitable[None]],
) -> None:
    """Run a course with two sessions of one database. The second one is not to change."""

    async def run() -> None:
        async with sessiondb.temporary() as db:
            other = SessionDBSession("other", db)
            await other.add_items([says("of the other")])
            await course(SessionDBSession("one", db), SessionDBSession("one", db))
            assert await texts(other) == ["of the other"]

    asyncio.run(run())


def test_an_append_during_openais_compaction_follows_its_result() -> None:
    async def course(session: SessionDBSession, second: SessionDBSession) -> None:
        await session.add_items([says(f"item {number}") for number in range(5)])
        snapshot = await session._get_compaction_snapshot(3)
        assert not snapshot.complete
        await second.add_items([says("late"), says("later")])
        assert await snapshot.replace_suffix(1, [says("compacted")])
        assert await texts(session) == ["item 0", "item 1", "item 2", "compacted", "late", "later"]

    with_two_sessions(course)


@pytest.mark.parametrize("move", ["pop", "clear", "compact"])
def test_a_conversation_that_went_elsewhere_is_not_replaced(move: str) -> None:
    async def course(session: SessionDBSession, second: SessionDBSession) -> None:
        await session.add_items([says(f"item {number} " + "x" * 400) for number in range(5)])
        snapshot = await session._get_compaction_snapshot(9)
        assert snapshot.complete
        if move == "pop":
            await second.pop_item()
        elif move == "clear":
            await second.clear_session()
        else:
            await second.compact(lambda _: asyncio.sleep(0, "short"), keep_recent_tokens=1)
        then = await texts(session)
        assert not await snapshot.replace_suffix(0, [says("compacted")])
        assert await texts(session) == then

    with_two_sessions(course)


def test_items_come_back_as_they_were_added() -> None:
    items = [
        {"role": "user", "content": "a question", "timestamp": 1, "status": None},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"type": "reset", "reason": "of a newer release"},
        {"__enc__": 1, "payload": "of EncryptedSession"},
    ]

    async def course(session: SessionDBSession, second: SessionDBSession) -> None:
        await session.add_items(items)
        assert await second.get_items() == items
        assert [len(await second.get_items(limit)) for limit in (0, 2, 9, 2_000)] == [0, 2, 5, 5]
        assert await second.pop_item() == items[-1]
        assert await session.get_items(1) == items[-2:-1]

    with_two_sessions(course)


def test_the_program_answers_while_its_session_is_compacted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Program("openai_agents", capsys, monkeypatch).has_all_in_its_context()
