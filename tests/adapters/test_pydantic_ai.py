"""The conversation store of Pydantic AI. `make adapters` runs these.

The framework ships no tests of its stores, so each course is run on its own store in memory, too,
and both must say the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import sessiondb

from .programs import Program

pytest.importorskip("pydantic_ai", reason="Pydantic AI is not installed: make adapters")

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RunUsage

from sessiondb.adapters.pydantic_ai import SessionDBConversationStore

Course = Callable[[ConversationStore], Awaitable[Any]]


def turn(number: int) -> list[Any]:
    """Return a turn, with a call and its result."""
    return [
        ModelRequest(parts=[UserPromptPart(f"question {number} " + "x" * 400)]),
        ModelResponse(
            parts=[
                ThinkingPart("hm", signature="s"),
                ToolCallPart("look", {"at": number}, tool_call_id=f"c{number}"),
            ]
        ),
        ModelRequest(parts=[ToolReturnPart("look", {"found": 1}, tool_call_id=f"c{number}")]),
        ModelResponse(parts=[TextPart(f"answer {number}")]),
    ]


def texts(conversation: Conversation | None) -> list[str]:
    assert conversation is not None
    return [
        str(part.content)[:11]
        for message in conversation.messages
        for part in message.parts
        if part.part_kind in ("user-prompt", "text")
    ]


async def saved(store: ConversationStore, name: str, turns: int, **more: Any) -> Conversation:
    conversation = Conversation(conversation_id=name)
    for number in range(turns):
        conversation.messages.extend(turn(number))
        await store.save(conversation, **more)
    return conversation


async def a_history_grows(store: ConversationStore) -> Any:
    await saved(store, "other", 1, scope="b")
    conversation = await saved(store, "one", 3, scope="a")
    conversation.usage = RunUsage(requests=3, input_tokens=7)
    await store.save(conversation)
    loaded = await store.load("one")
    assert loaded is not None
    assert loaded.messages == conversation.messages
    window = await store.load("one", limit=5)
    records = await store.list_conversations()
    return (
        texts(loaded),
        texts(window),
        loaded.usage,
        await store.load("one", scope="b"),
        [record.conversation_id for record in records],
        [record.scope for record in await store.list_conversations(scope="a", limit=1)],
    )


async def a_window_is_saved(store: ConversationStore) -> Any:
    await saved(store, "one", 3)
    window = await store.load("one", limit=2)
    assert window is not None
    window.messages.extend(turn(8))
    await store.save(window)
    return texts(await store.load("one"))


async def a_save_of_an_old_copy_is_refused(store: ConversationStore) -> Any:
    await saved(store, "one", 1)
    first, second = await store.load("one"), await store.load("one")
    assert first is not None
    assert second is not None
    first.messages.extend(turn(1))
    second.messages.extend(turn(2))
    await store.save(first)
    with pytest.raises(ConversationConflict):
        await store.save(second)
    with pytest.raises(ConversationConflict):
        await store.save(Conversation(conversation_id="one"))
    return texts(await store.load("one"))


async def it_branches_and_goes_back(store: ConversationStore) -> Any:
    conversation = await saved(store, "one", 3)
    entries = await store.load_entries("one")
    assert entries is not None
    again = await store.branch("one", at=4, expected_revision=conversation.revision)
    again.messages.extend(turn(7))
    await store.save(again)
    branched = texts(await store.load("one"))
    back = await store.branch("one", from_entry=entries[-1].id, expected_revision=again.revision)
    nothing = await store.branch("one", at=0, expected_revision=back.revision)
    nothing.messages.extend(turn(9))
    await store.save(nothing)
    [record] = await store.list_conversations()
    return branched, texts(back), texts(await store.load("one")), len(record.branches)


async def a_rewritten_history_is_a_branch(store: ConversationStore) -> Any:
    conversation = await saved(store, "one", 3)
    rewritten = Conversation(
        messages=[*conversation.messages[:4], *turn(6)],
        conversation_id="one",
        revision=conversation.revision,
    )
    await store.save(rewritten)
    [record] = await store.list_conversations()
    return texts(await store.load("one")), len(record.branches)


async def a_fork_shares_and_outlives(store: ConversationStore) -> Any:
    await saved(store, "one", 3)
    fork = await store.fork("one", at=8, new_conversation_id="two")
    empty = await store.fork("one", at=0, new_conversation_id="none")
    fork.messages.extend(turn(5))
    await store.save(fork)
    await store.delete("one")
    again = await store.fork("two", new_conversation_id="three")
    return (
        await store.load("one"),
        texts(await store.load("two")),
        texts(empty),
        texts(again),
        sorted(record.conversation_id for record in await store.list_conversations()),
    )


async def errors_are_the_frameworks(store: ConversationStore) -> Any:
    await saved(store, "one", 1, scope="a")
    await store.delete("one", scope="b")
    assert await store.load("one") is not None
    for wrong in (store.fork("none"), store.fork("one", at=9), store.load("one", limit=-1)):
        with pytest.raises(UserError):
            await wrong
    with pytest.raises(ConversationConflict):
        await store.branch("one", at=0, expected_revision="of another")
    await store.delete("one")
    await saved(store, "one", 2)
    return texts(await store.load("one"))


@pytest.mark.parametrize(
    "course",
    [
        a_history_grows,
        a_window_is_saved,
        a_save_of_an_old_copy_is_refused,
        it_branches_and_goes_back,
        a_rewritten_history_is_a_branch,
        a_fork_shares_and_outlives,
        errors_are_the_frameworks,
    ],
)
def test_it_says_what_the_frameworks_own_store_says(course: Course) -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            assert await course(SessionDBConversationStore(db)) == await course(
                InMemoryConversationStore()
            )

    asyncio.run(run())


def test_a_save_during_a_compaction_follows_it_and_the_log_stays_whole() -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            store = SessionDBConversationStore(db)
            conversation = await saved(store, "one", 4)

            async def summarize(messages: list[dict[str, Any]]) -> str:
                conversation.messages.extend(turn(4))
                await store.save(conversation)
                return "a summary"

            await store.compact("one", summarize, keep_recent_tokens=100)
            summary, recent = await store.load_compacted("one")
            assert "a summary" in str(summary)
            assert recent is not None
            assert 8 <= len(recent.messages) < 20
            recent.messages.extend(turn(5))
            await store.save(recent)
            assert len((await store.load("one") or recent).messages) == 24
            again, later = await store.load_compacted("one")
            assert again == summary
            assert later is not None
            assert later.messages == recent.messages

    asyncio.run(run())


def test_the_program_answers_while_its_session_is_compacted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Program("pydantic_ai", capsys, monkeypatch).has_all_in_its_context()
