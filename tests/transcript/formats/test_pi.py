"""The format of pi: what it says of each kind of message."""

from __future__ import annotations

from typing import Any

import pytest

from sessiondb.texts import text_of
from sessiondb.transcript.formats import PI

CALL = {"type": "toolCall", "id": "c1", "name": "read", "arguments": {"path": "a"}}
OTHER = {"type": "toolCall", "id": "c2", "name": "read", "arguments": {"path": "b"}}
TEXT = {"type": "text", "text": "hello"}
THOUGHT = {"type": "thinking", "thinking": "hm"}


@pytest.mark.parametrize(
    ("item", "role", "text", "opens", "closes"),
    [
        ({"role": "user", "content": "hi"}, "user", "hi", [], []),
        (
            {"role": "user", "content": [TEXT, {"type": "image"}, TEXT]},
            "user",
            "hello\nhello",
            [],
            [],
        ),
        ({"role": "assistant", "content": [THOUGHT, TEXT]}, "assistant", "hello", [], []),
        (
            {"role": "assistant", "content": [CALL, TEXT, OTHER]},
            "assistant",
            "hello",
            ["c1", "c2"],
            [],
        ),
        (
            {"role": "toolResult", "toolCallId": "c1", "content": [TEXT]},
            "toolResult",
            "hello",
            [],
            ["c1"],
        ),
        ({"role": "user", "content": [CALL]}, "user", "", [], []),
        (
            {"role": "bashExecution", "command": "ls", "output": "a"},
            "bashExecution",
            "ls\na",
            [],
            [],
        ),
        ({"role": "compactionSummary", "summary": "S"}, "compactionSummary", "S", [], []),
        ({"role": "custom", "content": "c"}, "custom", "c", [], []),
        ({"role": 7, "content": None}, None, "", [], []),
    ],
)
def test_what_it_says_of_a_message(
    item: dict[str, Any], role: str | None, text: str, opens: list[str], closes: list[str]
) -> None:
    assert PI.role(item) == role
    assert text_of(item) == text
    assert PI.opens(item) == opens
    assert PI.closes(item) == closes


def test_an_id_that_is_no_plain_value_is_its_text() -> None:
    call = {"role": "assistant", "content": [{"type": "toolCall", "id": {"a": [1]}}]}
    assert PI.opens(call) == PI.closes({"role": "toolResult", "toolCallId": {"a": [1]}})


@pytest.mark.parametrize(
    ("reason", "usable"),
    [("stop", True), ("length", True), (None, True), ("error", False), ("aborted", False)],
)
def test_a_reply_that_failed_or_was_aborted_is_not_usable(reason: str | None, usable: bool) -> None:
    assert PI.is_usable({"role": "assistant", "content": [], "stopReason": reason}) is usable
