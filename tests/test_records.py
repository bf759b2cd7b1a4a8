"""Records: what they decode of their stored text, and what they say when that is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.errors import StoreDamaged
from sessiondb.models import DeadLetter, Entry, Event, Reply

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

MESSAGE = {"role": "user", "content": [{"type": "text", "text": "hello"}]}
DAMAGED = ["{", "", "5", "[1]", "null", '"text"', "[" * 100_000]


def entry(payload: str, entry_type: str = "message") -> Entry:
    return Entry(1, "e1", None, 1, entry_type, "user", 1, None, 0, None, payload)


def event(payload: str) -> Event:
    return Event(7, "message_dead", "user", "s", 0, "text", payload)


def letter(payload: str) -> DeadLetter:
    return DeadLetter(3, "web", "e", "s", "main", 0, 1, "why", {}, payload)


def reply(payload: str) -> Reply:
    return Reply(4, "s", 1, "web:1", "sent", 1, 0, None, {}, payload)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"role": "user", "content": "pi"}, "pi"),
        (MESSAGE, "hello"),
        ({"role": "bashExecution", "command": "ls", "output": "a\nb"}, "ls\na\nb"),
        ({"role": "compactionSummary", "summary": "before"}, "before"),
        ({"role": "toolResult", "content": [{"type": "text", "text": "done"}]}, "done"),
        ({"role": "assistant", "content": None, "refusal": "no"}, "no"),
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, ""),
        ({"type": "function_call_output", "call_id": "1", "output": "found"}, "found"),
        (
            {"type": "message", "content": [{"type": "output_text", "text": "a"}, MESSAGE]},
            "a",
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "content": "hidden"},
                    {"type": "text", "text": "one"},
                    {"type": "image", "source": {}},
                    {"type": "text", "text": "two"},
                ],
            },
            "one\ntwo",
        ),
        ({"role": "user", "content": {"odd": 1}}, ""),
    ],
)
async def test_an_entry_has_the_text_that_a_person_reads(item: dict[str, Any], text: str) -> None:
    stored = entry(json.dumps({"type": "message", "id": "e1", "message": item}))
    assert (stored.message, stored.text) == (item, text)


async def test_a_stored_entry_a_letter_and_a_reply_are_decoded(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:web:1")
        await session.append_many(
            [
                MESSAGE,
                {"type": "custom", "customType": "state", "data": {"text": "none"}},
                {"type": "custom_message", "customType": "note", "content": "noted"},
            ]
        )
        said, state, note = await session.entries()
        assert (said.message, said.text) == (MESSAGE, "hello")
        assert (state.message, state.text) == (None, "")
        assert (note.message, note.text) == (None, "noted")
        said.message["content"] = "changed by its reader"  # type: ignore[index]
        assert said.message == MESSAGE, "nobody changes a record"
        [header] = await session.all_entries(limit=1)
        assert (header.message, header.text) == (None, "")


async def test_an_event_a_letter_and_a_reply_are_decoded() -> None:
    assert event('{"inbox_no": 5}').data == {"inbox_no": 5}
    assert letter(json.dumps(MESSAGE)).message == MESSAGE
    assert [reply(text).message for text in ('"a"', "[1]", "null")] == ["a", [1], None]


@pytest.mark.parametrize("payload", DAMAGED, ids=lambda text: text[:9])
async def test_damage_says_whose_text_it_is(payload: str) -> None:
    for whose, read in (
        ("entry e1", lambda: entry(payload).message),
        ("entry e1", lambda: entry(payload).text),
        ("entry e1", lambda: entry(payload, "compaction").text),
        ("event 7", lambda: event(payload).data),
        ("inbox item 3 of session s", lambda: letter(payload).message),
    ):
        with pytest.raises(StoreDamaged, match=rf"{whose}.*sessiondb verify"):
            read()
    assert entry(payload, "compaction").message is None
    if payload[:1] in ("{", "") or len(payload) > 100:
        with pytest.raises(StoreDamaged, match="reply 4 to web:1"):
            reply(payload).message  # noqa: B018


async def test_an_entry_of_a_message_without_one_is_damaged() -> None:
    for payload in ("{}", '{"message": 5}'):
        with pytest.raises(StoreDamaged, match="it has no message"):
            entry(payload).message  # noqa: B018
