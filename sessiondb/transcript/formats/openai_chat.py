"""The messages of OpenAI's Chat Completions, which many other providers speak.

Source: the official SDK's `openai.types.chat.ChatCompletionMessageParam`.
"""

from __future__ import annotations

from typing import Any, Final

from sessiondb.transcript.tokens import IMAGE_CHARS, content_chars, json_chars

from .base import (
    ASSISTANT,
    OWN_FIELDS,
    RESULT,
    CallId,
    Format,
    blocks,
    call_id,
    counted,
    without,
)

_ROLES: Final = {"tool": RESULT, "function": RESULT}
# Fields of a response, some of them stored beside the message. No request has them.
_UNSENT: Final = OWN_FIELDS | {"usage", "finish_reason", "annotations"}
_SENT_IF_SET: Final = ("tool_calls", "function_call", "audio")
_WEIGHED: Final = frozenset({"role", "content", "name", "tool_call_id", "tool_calls", "audio"})


class OpenAIChat(Format):
    """Calls are a field of the reply. Each result is a message of its own, of role `tool`."""

    name = "openai-chat"
    bit = 2

    def role(self, item: dict[str, Any]) -> str | None:
        """Return the role. Results have `tool` or, in older programs, `function`."""
        role = item.get("role")
        return _ROLES.get(role, role) if isinstance(role, str) else None

    def opens(self, item: dict[str, Any]) -> list[CallId]:
        """Return the ids in `tool_calls`. The older `function_call` is known by its name."""
        if item.get("role") != ASSISTANT:
            return []
        found = [call_id(call.get("id")) for call in blocks(item, "tool_calls")]
        function = item.get("function_call")
        return [*found, _named(function)] if isinstance(function, dict) else found

    def closes(self, item: dict[str, Any]) -> list[CallId]:
        """Return the one id of a `tool` message, or the name of a `function` message."""
        if item.get("role") == "tool":
            return [call_id(item.get("tool_call_id"))]
        return [_named(item)] if item.get("role") == "function" else []

    def is_usable(self, item: dict[str, Any]) -> bool:
        """Tell whether a reply is neither refused nor filtered: the last if that is stored."""
        refused = item.get("refusal") or any(b.get("type") == "refusal" for b in blocks(item))
        return not refused and item.get("finish_reason") not in ("content_filter", "error")

    def usage(self, item: dict[str, Any]) -> int | None:
        """Return the completion's `total_tokens`, where it is stored in a field `usage`."""
        if item.get("role") != ASSISTANT:
            return None
        return counted(item, "total_tokens", ("prompt_tokens", "completion_tokens"))

    def chars(self, item: dict[str, Any]) -> int:
        """Weigh the content, the calls, and any other field that is sent."""
        chars = content_chars(item.get("content"))
        for call in blocks(item, "tool_calls"):
            chars += _call_chars(call)
        if item.get("audio") is not None:
            chars += IMAGE_CHARS
        for name, value in item.items():
            if value and name not in _WEIGHED and name not in _UNSENT:
                chars += content_chars(value) if isinstance(value, str) else json_chars(value)
        return chars

    def sendable(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return a message without what belongs to the response around it."""
        empty = {name for name in _SENT_IF_SET if name in item and not item[name]}
        sent = without(item, _UNSENT | empty)
        audio = sent.get("audio")
        # Of a recording that the provider made, a request has only the id.
        if isinstance(audio, dict) and audio.keys() > {"id"}:
            return {**sent, "audio": {"id": audio["id"]}}
        return sent


def _named(function: dict[str, Any]) -> CallId:
    return f"function {function.get('name')}"


def _call_chars(call: dict[str, Any]) -> int:
    for kind, argument in (("function", "arguments"), ("custom", "input")):
        inside = call.get(kind)
        if isinstance(inside, dict):
            return content_chars(inside.get("name")) + content_chars(inside.get(argument))
    return json_chars(call)


OPENAI_CHAT: Final = OpenAIChat()
