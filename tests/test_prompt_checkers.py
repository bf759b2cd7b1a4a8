"""The strict checkers of prompts take what providers take, and refuse what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.prompts import CHECKERS, Refused

Message = dict[str, Any]


def user(text: Any = "hello") -> Message:
    return {"role": "user", "content": text}


# -- pi


def reply(*calls: str, text: str = "well", **fields: Any) -> Message:
    said = [{"type": "text", "text": text}] if text else []
    asked = [{"type": "toolCall", "id": one, "name": "ls", "arguments": {}} for one in calls]
    return {"role": "assistant", "content": [*said, *asked], **fields}


def result(call_id: str, text: str = "done", **fields: Any) -> Message:
    content = [{"type": "text", "text": text}]
    return {
        "role": "toolResult", "toolCallId": call_id, "toolName": "ls", "content": content,
        "isError": False, **fields,
    }  # fmt: skip


# -- OpenAI chat


def chat(*calls: str, text: str | None = None, arguments: str = "{}") -> Message:
    asked = [
        {"id": one, "type": "function", "function": {"name": "ls", "arguments": arguments}}
        for one in calls
    ]
    return {"role": "assistant", "content": text, **({"tool_calls": asked} if calls else {})}


def tool(call_id: str) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": "done"}


# -- OpenAI Responses


def call(call_id: str, **fields: Any) -> Message:
    return {"type": "function_call", "call_id": call_id, "name": "ls", "arguments": "{}", **fields}


def output(call_id: str) -> Message:
    return {"type": "function_call_output", "call_id": call_id, "output": "done"}


def said(text: str = "well") -> Message:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "type": "message", "id": f"msg_{text}", "role": "assistant", "status": "completed",
        "content": content,
    }  # fmt: skip


REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}


# -- Anthropic


def uses(*calls: str, text: str = "well") -> Message:
    said = [{"type": "text", "text": text}] if text else []
    asked = [{"type": "tool_use", "id": one, "name": "ls", "input": {}} for one in calls]
    return {"role": "assistant", "content": [*said, *asked]}


def results(*calls: str, then: str = "", first: str = "") -> Message:
    blocks = [{"type": "tool_result", "tool_use_id": one, "content": "done"} for one in calls]
    before = [{"type": "text", "text": first}] if first else []
    after = [{"type": "text", "text": then}] if then else []
    return user([*before, *blocks, *after])


GOOD: list[tuple[str, list[Message]]] = [
    ("pi", [user(), reply("a", "b"), result("b"), result("a"), user(), reply()]),
    ("pi", [user(), reply("a", stopReason="aborted"), user()]),
    ("pi", [user(), reply("a"), result("a"), reply("a"), result("a")]),
    ("pi", [{"role": "compactionSummary", "summary": "so far", "tokensBefore": 1}, reply()]),
    ("openai-chat", [chat(text="hello"), user(), chat("a", "b"), tool("b"), tool("a"), user()]),
    ("openai-chat", [{"role": "system", "content": "be brief"}, user([{"type": "text",
                                                                        "text": "x"}])]),
    ("openai-responses", [user(), REASONING, call("a"), call("b"), output("b"), output("a")]),
    ("openai-responses", [user(), call("a"), output("a"), said(), user()]),
    ("openai-responses", [user(), {"type": "custom_tool_call", "call_id": "c", "name": "n",
                                   "input": "i"},
                          {"type": "custom_tool_call_output", "call_id": "c", "output": "o"}]),
    ("anthropic", [user(), uses("a", "b"), results("b", "a", then="and?"), uses(), user()]),
    ("anthropic", [user(), user([{"type": "text", "text": "two in a row"}]), uses("a", text=""),
                   results("a")]),
]  # fmt: skip

BAD: list[tuple[str, str, list[Message]]] = [
    ("pi", "comes before the results", [user(), reply("a"), user(), result("a")]),
    ("pi", "no results of", [user(), reply("a")]),
    ("pi", "answers no call", [user(), result("a")]),
    ("pi", "answers no call", [user(), reply("a"), result("a"), result("a")]),
    ("pi", "answers no call", [user(), reply("a", stopReason="error"), result("a")]),
    ("pi", "comes before the results", [user(), reply("a", "b"), result("a"), reply()]),
    ("pi", "the first is a user's", [reply(), user()]),
    ("pi", "no role of pi", [user(), {"role": "tool", "content": "x"}]),
    ("pi", "needs", [user(), reply("a"), {"role": "toolResult", "toolCallId": "a"}]),
    ("openai-chat", "comes before the results", [user(), chat("a"), user(), tool("a")]),
    ("openai-chat", "comes before the results", [chat("a", "b"), tool("a"), chat("c"), tool("b")]),
    ("openai-chat", "no results of", [user(), chat("a")]),
    ("openai-chat", "answers no call", [user(), tool("a")]),
    ("openai-chat", "answers no call", [chat("a"), tool("a"), tool("a")]),
    ("openai-chat", "says nothing", [user(), chat(text="")]),
    ("openai-chat", "arguments are JSON", [chat("a", arguments="{"), tool("a")]),
    ("openai-chat", "has no tool calls", [{**chat(text="x"), "tool_calls": []}]),
    ("openai-chat", "unknown fields", [{**user(), "timestamp": 1}]),
    ("openai-chat", "no known type", [reply("a")]),
    ("openai-chat", "no known type", [user(), {"role": "tool", "content": "x"}]),
    ("openai-responses", "no outputs of", [user(), call("a")]),
    ("openai-responses", "has no call", [user(), output("a")]),
    ("openai-responses", "has no call", [output("a"), call("a")]),
    ("openai-responses", "has no call", [call("a"), output("a"), output("a")]),
    ("openai-responses", "comes before the outputs", [call("a"), user(), output("a")]),
    ("openai-responses", "comes before the outputs", [call("a"), REASONING, output("a"), said()]),
    ("openai-responses", "repeats a call_id", [call("a"), output("a"), call("a"), output("a")]),
    ("openai-responses", "repeats an id", [user(), said(), said()]),
    ("openai-responses", "is not its", [REASONING, user(), said()]),
    ("openai-responses", "reasoning is last", [user(), REASONING]),
    ("openai-responses", "says nothing", [user("")]),
    ("openai-responses", "unknown fields", [{**user(), "timestamp": 1}]),
    ("openai-responses", "has no call_id", [{"type": "function_call_output", "output": "x"}]),
    ("openai-responses", "no known type", [reply("a")]),
    ("anthropic", "the first is a user's", [uses(), user()]),
    ("anthropic", "its results", [user(), uses("a"), user(), results("a")]),
    ("anthropic", "its results", [user(), uses("a", "b"), results("a"), results("b")]),
    ("anthropic", "its results", [user(), results("a")]),
    ("anthropic", "its results", [user(), uses("a"), results("a", "a")]),
    ("anthropic", "no results of", [user(), uses("a")]),
    ("anthropic", "results come first", [user(), uses("a"), results("a", first="here")]),
    ("anthropic", "repeats an id", [user(), uses("a"), results("a"), uses("a"), results("a")]),
    ("anthropic", "says nothing", [user(""), uses()]),
    ("anthropic", "says nothing", [user([]), uses()]),
    ("anthropic", "a text is empty", [user([{"type": "text", "text": ""}])]),
    ("anthropic", "unknown fields", [{**user(), "timestamp": 1}]),
    ("anthropic", "no known type", [user(), reply("a")]),
    ("anthropic", "no known type", [{"role": "tool", "content": "x"}]),
]


@pytest.mark.parametrize(("name", "messages"), GOOD)
def test_what_a_provider_takes_is_taken(name: str, messages: list[Message]) -> None:
    CHECKERS[name](messages)


@pytest.mark.parametrize(("name", "rule", "messages"), BAD)
def test_what_a_provider_refuses_is_refused(name: str, rule: str, messages: list[Message]) -> None:
    check: Callable[..., None] = CHECKERS[name]
    with pytest.raises(Refused, match=rule):
        check(messages)
