"""What the formats of OpenAI and Anthropic say of their items."""

from __future__ import annotations

from typing import Any

import pytest

from sessiondb.transcript.formats import ANTHROPIC, OPENAI_CHAT, OPENAI_RESPONSES, Format
from sessiondb.transcript.tokens import IMAGE_CHARS

PNG = "iVBORw0KGgo" * 10_000
USE = {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a"}}
SERVER_USE = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
SERVER_RESULT = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "the file"}
TEXT = {"type": "text", "text": "hello"}


def reply(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks), **fields}


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


@pytest.mark.parametrize(
    ("message_format", "item", "role", "opens", "closes"),
    [
        (OPENAI_CHAT, {"role": "user", "content": "x"}, "user", [], []),
        (
            OPENAI_CHAT,
            {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}, {"id": "b"}]},
            "assistant",
            ["a", "b"],
            [],
        ),
        (OPENAI_CHAT, {"role": "tool", "tool_call_id": "a"}, "toolResult", [], ["a"]),
        (
            OPENAI_CHAT,
            {"role": "assistant", "function_call": {"name": "f"}},
            "assistant",
            ["function f"],
            [],
        ),
        (OPENAI_CHAT, {"role": "function", "name": "f"}, "toolResult", [], ["function f"]),
        (ANTHROPIC, said(TEXT), "user", [], []),
        (ANTHROPIC, reply(TEXT, USE), "assistant", ["t1"], []),
        (ANTHROPIC, said(RESULT), "toolResult", [], ["t1"]),
        (ANTHROPIC, said(RESULT, {**RESULT, "tool_use_id": "t2"}), "toolResult", [], ["t1", "t2"]),
        (ANTHROPIC, said(RESULT, TEXT), "user", [], ["t1"]),
        (ANTHROPIC, reply(SERVER_USE, SERVER_RESULT, TEXT), "assistant", [], []),
        (ANTHROPIC, reply(SERVER_USE, stop_reason="pause_turn"), "assistant", ["s1"], []),
        (ANTHROPIC, reply(SERVER_RESULT, TEXT), "assistant", [], ["s1"]),
        (OPENAI_RESPONSES, {"type": "function_call", "call_id": "c"}, "assistant", ["c"], []),
        (
            OPENAI_RESPONSES,
            {"type": "function_call_output", "call_id": "c"},
            "toolResult",
            [],
            ["c"],
        ),
        (
            OPENAI_RESPONSES,
            {"type": "function_call_output", "call_id": None, "id": "fco"},
            "toolResult",
            [],
            [],
        ),
        (
            OPENAI_RESPONSES,
            {"type": "local_shell_call_output", "id": "c"},
            "toolResult",
            [],
            ["c"],
        ),
        (OPENAI_RESPONSES, {"type": "mcp_approval_request", "id": "m"}, "assistant", ["m"], []),
        (
            OPENAI_RESPONSES,
            {"type": "mcp_approval_response", "id": "x", "approval_request_id": "m"},
            "toolResult",
            [],
            ["m"],
        ),
        (OPENAI_RESPONSES, {"type": "tool_search_call", "call_id": None}, "assistant", [], []),
        (OPENAI_RESPONSES, {"type": "mcp_call", "id": "m"}, "assistant", [], []),
        (OPENAI_RESPONSES, {"type": "reasoning", "id": "r"}, "assistant", [], []),
        (OPENAI_RESPONSES, {"type": "message", "role": "developer"}, "developer", [], []),
        (OPENAI_RESPONSES, {"type": "of-a-newer-release"}, "assistant", [], []),
    ],
)
def test_who_speaks_and_which_calls_are_opened_and_closed(
    message_format: Format,
    item: dict[str, Any],
    role: str,
    opens: list[str],
    closes: list[str],
) -> None:
    assert message_format.role(item) == role
    assert message_format.opens(item) == opens
    assert message_format.closes(item) == closes


@pytest.mark.parametrize(
    ("message_format", "item", "usable"),
    [
        (OPENAI_CHAT, {"role": "assistant", "content": "x"}, True),
        (OPENAI_CHAT, {"role": "assistant", "content": "x", "finish_reason": "length"}, True),
        (OPENAI_CHAT, {"role": "assistant", "content": "", "refusal": "no"}, False),
        (OPENAI_CHAT, reply({"type": "refusal", "refusal": "no"}), False),
        (OPENAI_CHAT, {"role": "assistant", "finish_reason": "content_filter"}, False),
        (ANTHROPIC, reply(TEXT), True),
        (ANTHROPIC, reply(TEXT, stop_reason="max_tokens"), True),
        (ANTHROPIC, reply(TEXT, stop_reason="refusal"), False),
        (OPENAI_RESPONSES, {"role": "assistant", "content": "x"}, True),
        (OPENAI_RESPONSES, reply(type="message", status="completed"), True),
        (OPENAI_RESPONSES, reply(type="message", status="incomplete"), False),
        (OPENAI_RESPONSES, reply(type="message", phase="commentary"), False),
        (OPENAI_RESPONSES, reply({"type": "refusal", "refusal": "no"}, type="message"), False),
        (OPENAI_RESPONSES, {"type": "reasoning"}, False),
        (OPENAI_RESPONSES, {"type": "item_reference", "id": "msg"}, False),
    ],
)
def test_which_reply_may_be_an_answer(
    message_format: Format, item: dict[str, Any], usable: bool
) -> None:
    assert message_format.is_usable(item) is usable


@pytest.mark.parametrize(
    ("message_format", "usage", "tokens"),
    [
        (OPENAI_CHAT, {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, 10),
        (OPENAI_CHAT, {"prompt_tokens": 7, "completion_tokens": 3}, 10),
        (OPENAI_RESPONSES, {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}, 10),
        (
            ANTHROPIC,
            {
                "input_tokens": 1,
                "cache_creation_input_tokens": 2,
                "cache_read_input_tokens": 4,
                "output_tokens": 3,
            },
            10,
        ),
        (ANTHROPIC, {"input_tokens": None, "output_tokens": True}, None),
        (OPENAI_CHAT, None, None),
    ],
)
def test_the_providers_count_of_the_context(
    message_format: Format, usage: Any, tokens: int | None
) -> None:
    assert message_format.usage({"role": "assistant", "content": "x", "usage": usage}) == tokens


IMAGES = [
    (OPENAI_CHAT, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}),
    (OPENAI_RESPONSES, {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}),
    (ANTHROPIC, {"type": "image", "source": {"type": "base64", "data": PNG}}),
    (ANTHROPIC, {**RESULT, "content": [{"type": "image", "source": {"data": PNG}}]}),
]


@pytest.mark.parametrize(("message_format", "block"), IMAGES)
def test_an_image_has_a_fixed_weight(message_format: Format, block: dict[str, Any]) -> None:
    assert message_format.tokens(said(block)) == IMAGE_CHARS // 4


@pytest.mark.parametrize(
    ("message_format", "item", "least"),
    [
        (ANTHROPIC, said({"type": "of-a-newer-release", "data": "x" * 400}), 100),
        (ANTHROPIC, said({**RESULT, "content": {"unknown": "x" * 400}}), 100),
        (OPENAI_CHAT, {"role": "assistant", "content": "", "reasoning_content": "x" * 400}, 100),
        (OPENAI_RESPONSES, {"type": "of-a-newer-release", "data": "x" * 400}, 100),
        (OPENAI_RESPONSES, {"type": "mcp_call", "output": "x" * 400}, 100),
        (OPENAI_RESPONSES, {"type": "function_call_output", "call_id": "c", "output": ""}, 1),
        (OPENAI_CHAT, {"role": "tool", "tool_call_id": "c", "content": ""}, 1),
    ],
)
def test_what_is_not_known_weighs_its_json(
    message_format: Format, item: dict[str, Any], least: int
) -> None:
    assert least <= message_format.tokens(item) <= least + 20


def test_the_result_of_an_image_generation_is_an_image() -> None:
    item = {"type": "image_generation_call", "id": "i", "result": PNG, "status": "completed"}
    assert OPENAI_RESPONSES.tokens(item) == IMAGE_CHARS // 4


def test_a_document_is_not_weighed_as_its_base64() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": PNG}
    assert len(PNG) // 80 < ANTHROPIC.tokens(said({"type": "document", "source": source}))
    assert ANTHROPIC.tokens(said({"type": "document", "source": source})) < len(PNG) // 20


@pytest.mark.parametrize(
    ("message_format", "item", "sent"),
    [
        (OPENAI_CHAT, {"role": "user", "content": "x", "timestamp": 5}, {"role", "content"}),
        (
            OPENAI_CHAT,
            {"role": "assistant", "content": "x", "usage": {}, "reasoning_content": "y"},
            {"role", "content", "reasoning_content"},
        ),
        (
            ANTHROPIC,
            reply(TEXT, id="m", type="message", model="c", stop_reason="end_turn", usage={}),
            {"role", "content"},
        ),
        (
            OPENAI_RESPONSES,
            reply(type="message", id="m", status="completed", usage={}),
            {"role", "content", "type", "id", "status"},
        ),
    ],
)
def test_what_belongs_to_a_response_is_not_sent(
    message_format: Format, item: dict[str, Any], sent: set[str]
) -> None:
    assert message_format.sendable(item).keys() == sent
    bare = message_format.sendable(item)
    assert message_format.sendable(bare) is bare
