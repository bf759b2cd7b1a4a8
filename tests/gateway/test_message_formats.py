"""A gateway of any message format: its turns append, answer and are refused by the same rules."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import sessiondb
from sessiondb.gateway.running_turn import Answer, Turn
from tests.support.gateway import KEY, eventually, inbox_states, nothing_open, running
from tests.support.talks import Item

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries"), pytest.mark.one_loop]

QUESTION: Item = {"role": "user", "content": "Read it."}
CALL: Item = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "t1", "name": "read", "input": {}}],
}
RESULT: Item = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "the file"}],
}
ANSWER: Item = {"role": "assistant", "content": [{"type": "text", "text": "It says: the file."}]}
FOREIGN: Item = {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"}


async def test_a_turn_of_anthropics_format_is_answered(tmp_db: Path) -> None:
    seen: list[list[Item]] = []

    async def handler(turn: Turn) -> Answer:
        await turn.append(CALL)
        await turn.append(RESULT)
        seen.append((await turn.session.context()).messages)
        return Answer(entries=[ANSWER], replies=[("web:1", {"text": "the file"})])

    async with sessiondb.open(tmp_db) as db:
        await db.session(KEY, format="anthropic")
        await db.accept(KEY, QUESTION, channel="web", event_id="e1")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert seen == [[QUESTION, CALL, RESULT]]
        session = await db.session(KEY)
        assert (await session.context()).messages == [QUESTION, CALL, RESULT, ANSWER]
        assert await inbox_states(db) == {"e1": "done"}


async def test_an_answer_of_another_format_is_refused_and_its_sender_is_told(tmp_db: Path) -> None:
    async def handler(turn: Turn) -> Answer:
        return Answer(entries=[ANSWER, FOREIGN])

    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY, format="anthropic")
        await db.accept(KEY, QUESTION, channel="web", event_id="e1")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"e1": "dead"}
        [dead] = [each async for each in db.dead_letters()]
        assert dead.reason is not None
        assert "openai-responses" in dead.reason
        assert (await session.context()).messages == [QUESTION]
