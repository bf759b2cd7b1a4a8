"""The messages of Anthropic's Messages API.

Source: the official SDK's `anthropic.types.MessageParam` and `anthropic.types.Message`, and
their beta forms. A test fails when a type of block is in none of the tables below.
"""

from __future__ import annotations

from typing import Any, Final

from sessiondb.transcript.tokens import content_chars

from .base import (
    ASSISTANT,
    RESULT,
    USER,
    CallId,
    Format,
    blocks,
    call_id,
    counted,
)

CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
RESULTS: Final = frozenset(
    {
        "tool_result",
        "mcp_tool_result",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "advisor_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
    }
)
OTHERS: Final = frozenset(
    {
        "text",
        "image",
        "document",
        "search_result",
        "thinking",
        "redacted_thinking",
        "container_upload",
        "compaction",
        "fallback",
        "mcp_tool_listing",
        "tool_addition",
        "tool_removal",
    }
)
"""Blocks that neither call a tool nor hold a result."""

_UNFINISHED: Final = ("refusal", "pause_turn", "compaction", "error", "aborted")
_SENT: Final = frozenset({"role", "content"})


class Anthropic(Format):
    """Calls are blocks of a reply, and results are blocks of the user message after it.

    That message may have a person's text beside its results. A program may append a reply in
    parts: the provider joins replies that follow each other, and likewise user messages.
    """

    name = "anthropic"
    bit = 8
    reply_in_parts = True
    # A reply that goes on after `pause_turn` begins with the result of the provider's own tool.
    result_roles = frozenset({RESULT, USER, ASSISTANT})

    def role(self, item: dict[str, Any]) -> str | None:
        """Return the role. A user message that has only results is none of a person."""
        role = item.get("role")
        if role == USER:
            inside = blocks(item)
            if inside and all(block.get("type") in RESULTS for block in inside):
                return RESULT
        return role if isinstance(role, str) else None

    def opens(self, item: dict[str, Any]) -> list[CallId]:
        """Return the ids of a reply's calls whose results it does not hold itself."""
        if item.get("role") != ASSISTANT:
            return []
        called, answered = _ids(item)
        return [call for call in called if call not in answered]

    def closes(self, item: dict[str, Any]) -> list[CallId]:
        """Return the ids of the results whose calls the item does not make itself."""
        called, answered = _ids(item)
        return [call for call in answered if call not in called]

    def is_usable(self, item: dict[str, Any]) -> bool:
        """Tell whether a reply's `stop_reason` is none that leaves it unfinished."""
        return item.get("stop_reason") not in _UNFINISHED

    def goes_on(self, item: dict[str, Any]) -> bool:
        """Tell whether the provider paused, and goes on when it is sent the reply."""
        return item.get("stop_reason") in ("pause_turn", "compaction")

    def usage(self, item: dict[str, Any]) -> int | None:
        """Return the sum of what was read, written to and read from the cache, and said."""
        if item.get("role") != ASSISTANT:
            return None
        cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
        return counted(item, None, ("input_tokens", "output_tokens", *cached))

    def chars(self, item: dict[str, Any]) -> int:
        """Weigh the content."""
        return content_chars(item.get("content"))

    def sendable(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return role and content. The provider refuses any other field of a response."""
        if item.keys() <= _SENT:
            return item
        return {name: item[name] for name in ("role", "content") if name in item}


def _ids(item: dict[str, Any]) -> tuple[list[CallId], list[CallId]]:
    """Return the ids of the calls and of the results in an item."""
    called: list[CallId] = []
    answered: list[CallId] = []
    for block in blocks(item):
        if block.get("type") in CALLS:
            called.append(call_id(block.get("id")))
        elif block.get("type") in RESULTS:
            answered.append(call_id(block.get("tool_use_id")))
    return called, answered


ANTHROPIC: Final = Anthropic()
