"""Typed messages: the fields that were set are stored, and the samples survive the models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import sessiondb
from sessiondb.messages import (
    AssistantMessage,
    Cost,
    OtherMessage,
    Text,
    ToolCall,
    ToolResultMessage,
    Usage,
    UserMessage,
    message_json,
    parse_message,
)


def test_only_what_was_set_is_stored_under_the_names_on_disk() -> None:
    reply = AssistantMessage(
        content=[Text(text="let me look"), ToolCall(id="c1", name="read", arguments={"path": "a"})],
        stop_reason="toolUse",
        usage=Usage(input=1, output=2, total_tokens=3),
    )
    assert json.loads(message_json(reply)) == {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "let me look"},
            {"type": "toolCall", "id": "c1", "name": "read", "arguments": {"path": "a"}},
        ],
        "stopReason": "toolUse",
        "usage": {"input": 1, "output": 2, "totalTokens": 3},
    }


def test_what_a_provider_does_not_count_is_nothing() -> None:
    usage = Usage(input=7, output=2, cost=Cost(total=0.5))
    assert (usage.cache_read, usage.cache_write, usage.total_tokens) == (0, 0, None)
    assert usage.cost is not None
    assert usage.cost.model_dump() == {
        "input": 0,
        "output": 0,
        "cache_read": 0,
        "cache_write": 0,
        "total": 0.5,
    }
    result = ToolResultMessage(tool_call_id="c", tool_name="ls", content=[])
    assert (result.is_error, result.details) == (False, None)


def test_unknown_fields_and_roles_are_kept() -> None:
    message = {
        "role": "user",
        "content": "hi",
        "__openclaw": {"senderIsOwner": True},
        "idempotencyKey": "k",
    }
    assert json.loads(message_json(parse_message(message))) == message
    odd = {"role": "narrator", "content": {"any": ["thing"]}, "extra": None}
    assert isinstance(parse_message(odd), OtherMessage)
    assert json.loads(message_json(parse_message(odd))) == odd


def test_a_known_role_without_a_needed_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="toolCallId"):
        parse_message({"role": "toolResult", "toolName": "read", "content": []})


def test_every_message_of_a_real_transcript_survives_the_models(sample: Path) -> None:
    seen = 0
    for file in sorted(sample.rglob("*.jsonl")):
        for line in file.read_bytes().split(b"\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the damaged samples
            if entry.get("type") == "message" and entry["message"]["role"] != "hookMessage":
                seen += 1
                assert json.loads(message_json(parse_message(entry["message"]))) == entry["message"]
    assert seen > 150, "the sample holds that many"


@pytest.mark.anyio
async def test_typed_messages_can_be_appended(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:main")
        await session.append(UserMessage(content="hello"))
        await session.append_many(
            [
                AssistantMessage(
                    content=[ToolCall(id="c", name="ls", arguments={})],
                    usage=Usage(input=5, output=5, total_tokens=10),
                ),
                ToolResultMessage(tool_call_id="c", tool_name="ls", content=[Text(text="a b")]),
            ]
        )
        context = await session.context()
        assert [message["role"] for message in context.messages] == [
            "user",
            "assistant",
            "toolResult",
        ]
        assert context.messages[2]["toolCallId"] == "c"
        assert (context.tokens, context.tokens_fresh) == (11, True)
