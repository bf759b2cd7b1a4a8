"""The estimate of tokens: pi's rule, and OpenClaw's addition for CJK."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from sessiondb.transcript.formats import PI
from sessiondb.transcript.tokens import text_chars, text_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("abcd", 1),
        ("abcde", 2),
        ("x" * 400, 100),
        ("äöüß", 1),  # not ASCII, but not wide either
        ("日本語", 3),
        ("日本語 ok", 4),
        ("한국어", 3),
        ("🙂", 1),
    ],
)
def test_four_narrow_characters_or_one_wide_make_a_token(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


def test_every_character_from_the_radicals_on_is_wide() -> None:
    for begin in range(0x80, sys.maxunicode + 1, 0x40):  # as many as share the rest of their UTF-8
        chars = [chr(code) for code in range(begin, begin + 0x40)]
        wide = sum(char >= "\u2e80" for char in chars)
        assert text_chars("".join(chars)) == len(chars) + 3 * wide, hex(begin)
        assert text_chars("a" + chars[-1]) == 2 + 3 * (chars[-1] >= "\u2e80"), hex(begin)


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ({"role": "user", "content": "abcdefgh"}, 2),
        (
            {
                "role": "user",
                "content": [{"type": "text", "text": "abcd"}, {"type": "text", "text": "efgh"}],
            },
            2,
        ),
        ({"role": "user", "content": [{"type": "image", "data": "x" * 100_000}]}, 1200),
        ({"role": "assistant", "content": [{"type": "thinking", "thinking": "abcdefgh"}]}, 2),
        (
            {
                "role": "assistant",
                "content": [{"type": "toolCall", "name": "read", "arguments": {"a": 1}}],
            },
            3,
        ),
        ({"role": "toolResult", "content": [{"type": "text", "text": "abcd"}]}, 1),
        ({"role": "bashExecution", "command": "abcd", "output": "efgh", "content": "ignored"}, 2),
        ({"role": "branchSummary", "summary": "abcd"}, 1),
        ({"role": "compactionSummary", "summary": "abcd"}, 1),
        ({"role": "custom", "content": "abcd"}, 1),
        ({"role": "from the future", "content": "abcd"}, 1),
        ({"role": "user"}, 0),
        ({"role": "user", "content": {"text": "not a list"}}, 6),
        (
            {
                "role": "user",
                "content": ["not a block", None, {"type": "text"}, {"type": "text", "text": 5}],
            },
            13,  # what has no known shape weighs its JSON
        ),
        ({}, 0),
    ],
)
def test_a_message_weighs_what_its_role_shows_to_the_model(
    message: dict[str, Any], tokens: int
) -> None:
    assert PI.tokens(message) == tokens


def reply(usage: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "usage": usage, **fields}


@pytest.mark.parametrize(
    ("message", "count"),
    [
        (reply({"totalTokens": 7, "input": 100}), 7),
        (reply({"input": 1, "output": 2, "cacheRead": 3, "cacheWrite": 4}), 10),
        (reply({"totalTokens": 0, "input": 5}), 5),
        (reply({"totalTokens": 7.0}), 7),
        (reply({"totalTokens": True, "input": 5}), 5),
        (reply({"totalTokens": "7"}), None),
        (reply({"totalTokens": -7}), None),
        (reply({"totalTokens": float("inf")}), None),
        (reply({"totalTokens": 2**60}), None),
        (reply({"totalTokens": 0}), None),
        (reply({}), None),
        (reply(None), None),
        (reply([7]), None),
        (reply({"totalTokens": 7}, stopReason="aborted"), None),
        (reply({"totalTokens": 7}, stopReason="error"), None),
        (reply({"totalTokens": 7}, stopReason="stop"), 7),
        (reply({"totalTokens": 7, "contextUsage": {"state": "unavailable"}}), None),
        (reply({"totalTokens": 7, "contextUsage": {"state": "available"}}), 7),
        ({"role": "user", "usage": {"totalTokens": 7}}, None),
    ],
)
def test_a_provider_count_is_used_only_when_it_can_be_right(
    message: dict[str, Any], count: int | None
) -> None:
    assert PI.usage(message) == count
