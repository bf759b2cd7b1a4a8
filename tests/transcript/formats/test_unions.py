"""Each member of the official SDKs' unions is classified. A new one fails here."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
import typing_extensions

from sessiondb.transcript.formats import ANTHROPIC, OPENAI_CHAT, OPENAI_RESPONSES, recognise
from sessiondb.transcript.formats.anthropic import CALLS, OTHERS, RESULTS
from sessiondb.transcript.formats.openai_responses import KINDS
from sessiondb.transcript.tokens import block_chars


class Types:
    """A module of an SDK, imported by the first test that needs it: it takes a second."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.module), name)


anthropic_types, anthropic_beta = Types("anthropic.types"), Types("anthropic.types.beta")
chat_types, responses_types = Types("openai.types.chat"), Types("openai.types.responses")


def members(union: Any) -> Iterator[Any]:
    """Yield the classes of a union, of unions in it, and of lists of them."""
    if isinstance(union, type):
        yield union
        return
    for inner in typing.get_args(union):
        if not isinstance(inner, str) and (isinstance(inner, type) or typing.get_args(inner)):
            yield from members(inner)


def literals(of: type, name: str) -> set[str]:
    """Return the values that a class allows for a field."""
    if issubclass(of, pydantic.BaseModel):
        found = of.model_fields[name].annotation if name in of.model_fields else None
    else:
        found = typing_extensions.get_type_hints(of).get(name)
    values: set[str] = set()
    stack = [found]
    while stack:
        inner = stack.pop()
        for value in typing.get_args(inner):
            if isinstance(value, str):
                values.add(value)
            else:
                stack.append(value)
    return values


def values_of(name: str, *unions: Any) -> set[str]:
    """Return the values that a field may have in the members of unions."""
    found = {value for union in unions for each in members(union) for value in literals(each, name)}
    assert found
    return found


def test_every_item_of_openai_responses_is_classified() -> None:
    types = values_of(
        "type",
        responses_types.ResponseInputItemParam,
        responses_types.ResponseOutputItem,
        responses_types.ResponseItem,
    )
    assert types == {*KINDS, "message"}


def test_every_block_of_anthropic_is_classified() -> None:
    types = values_of(
        "type",
        anthropic_types.ContentBlock,
        anthropic_types.ContentBlockParam,
        anthropic_beta.BetaContentBlock,
        anthropic_beta.BetaContentBlockParam,
    )
    assert types == CALLS | RESULTS | OTHERS


def test_every_stop_reason_of_anthropic_is_classified() -> None:
    usable = {
        reason: ANTHROPIC.is_usable({"role": "assistant", "content": "", "stop_reason": reason})
        for reason in typing.get_args(anthropic_beta.BetaStopReason)
    }
    assert usable == {
        "end_turn": True,
        "max_tokens": True,
        "model_context_window_exceeded": True,
        "stop_sequence": True,
        "tool_use": True,
        "compaction": False,
        "pause_turn": False,
        "refusal": False,
    }


def test_every_role_of_the_chat_formats_is_recognised() -> None:
    chat = values_of("role", chat_types.ChatCompletionMessageParam)
    assert {role: OPENAI_CHAT.role({"role": role}) for role in chat} == {
        "assistant": "assistant",
        "developer": "developer",
        "function": "toolResult",
        "system": "system",
        "tool": "toolResult",
        "user": "user",
    }
    assert all(recognise({"role": role, "content": ""}) & OPENAI_CHAT.bit for role in chat)
    roles = values_of("role", anthropic_types.MessageParam, anthropic_beta.BetaMessageParam)
    assert roles == {"assistant", "system", "user"}
    assert all(recognise({"role": role, "content": ""}) & ANTHROPIC.bit for role in roles)


def test_every_call_of_chat_is_opened_and_weighed() -> None:
    types = values_of("type", chat_types.ChatCompletionMessageToolCallUnionParam)
    assert types == {"function", "custom"}
    for call_type in types:
        inside = {"name": "n", "arguments": "x" * 40, "input": "x" * 40}
        call = {"id": "c", "type": call_type, call_type: inside}
        item = {"role": "assistant", "content": None, "tool_calls": [call]}
        assert OPENAI_CHAT.opens(item) == ["c"]
        assert OPENAI_CHAT.tokens(item) == 11


def test_every_block_of_a_message_is_recognised_as_its_formats_own() -> None:
    chat = values_of(
        "type",
        chat_types.ChatCompletionContentPartParam,
        chat_types.ChatCompletionContentPartRefusalParam,
    )
    for block_type in chat:
        assert recognise({"role": "user", "content": [{"type": block_type}]}) & OPENAI_CHAT.bit
    responses = values_of(
        "type",
        responses_types.ResponseInputContentParam,
        responses_types.ResponseOutputTextParam,
        responses_types.ResponseOutputRefusalParam,
    )
    for block_type in responses:
        item = {"type": "message", "role": "user", "content": [{"type": block_type}]}
        assert recognise(item) == OPENAI_RESPONSES.bit


@pytest.mark.parametrize(
    "union",
    [
        anthropic_beta.BetaContentBlockParam,
        chat_types.ChatCompletionContentPartParam,
        responses_types.ResponseInputContentParam,
    ],
)
def test_no_block_weighs_nothing(union: Any) -> None:
    for block_type in values_of("type", union):
        assert block_chars({"type": block_type}) > 0


def test_no_item_of_openai_responses_weighs_nothing() -> None:
    for item_type in KINDS:
        assert OPENAI_RESPONSES.tokens({"type": item_type}) > 0
