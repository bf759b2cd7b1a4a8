"""The history provider of Microsoft Agent Framework. `make adapters` runs these."""

from __future__ import annotations

import asyncio

import pytest

import sessiondb

from .programs import Program

pytest.importorskip("agent_framework", reason="Agent Framework is not installed: make adapters")

from agent_framework import Content, Message

from sessiondb.adapters.agent_framework import SessionDBHistoryProvider


def turns(count: int) -> list[Message]:
    """Return turns, each with a call and its result."""
    found = []
    for number in range(count):
        call = Content.from_function_call(f"c{number}", "look", arguments={"at": number})
        found += [
            Message("user", [f"question {number} " + "x" * 400]),
            Message("assistant", [Content.from_text("a moment"), call], message_id=f"m{number}"),
            Message("tool", [Content.from_function_result(f"c{number}", result="found")]),
            Message("assistant", ["it is there"]),
        ]
    return [*found, Message("user", [Content.from_uri("https://x/y.png", media_type="image/png")])]


def test_messages_come_back_as_they_were_saved() -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            provider, second = SessionDBHistoryProvider(db), SessionDBHistoryProvider(db)
            saved = turns(3)
            await provider.save_messages("one", saved[:5])
            await provider.save_messages("other", saved[:1])
            await second.save_messages("one", saved[5:])
            read = await second.get_messages("one")
            assert [each.to_dict() for each in read] == [each.to_dict() for each in saved]
            assert len(await second.get_messages("other")) == 1
            assert await second.get_messages("neither") == []
            assert await db.find(("agent-framework", "neither")) is None  # a read makes nothing

    asyncio.run(run())


def test_a_summary_takes_calls_with_their_results_and_messages_are_saved_meanwhile() -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            provider = SessionDBHistoryProvider(db)
            await provider.save_messages("one", turns(4))
            asked: list[Message] = []

            async def summarize(messages: list[Message]) -> str:
                asked.extend(messages)
                await provider.save_messages("one", [Message("user", ["late"])])
                return "a summary"

            await provider.compact("one", summarize, keep_recent_tokens=100)
            read = await provider.get_messages("one")
            assert "a summary" in read[0].text
            assert read[-1].text == "late"
            calls = {each.call_id for message in read for each in message.contents if each.call_id}
            taken = {each.call_id for message in asked for each in message.contents if each.call_id}
            assert calls | taken == {"c0", "c1", "c2", "c3"}
            assert not calls & taken
            assert taken

    asyncio.run(run())


def test_the_program_answers_while_its_session_is_compacted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Program("agent_framework", capsys, monkeypatch).has_all_in_its_context()
