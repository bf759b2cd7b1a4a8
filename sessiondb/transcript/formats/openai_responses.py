"""The items of OpenAI's Responses API: input and output items alike.

Source: the official SDK's `openai.types.responses.ResponseInputItemParam` and
`ResponseOutputItem`. A test fails when one of them is not in the table below.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sessiondb.transcript.tokens import IMAGE_CHARS, content_chars, json_chars

from .base import (
    ASSISTANT,
    OWN_FIELDS,
    RESULT,
    USER,
    CallId,
    Format,
    blocks,
    call_id,
    counted,
    summary_text,
    without,
)

_UNSENT: Final = OWN_FIELDS | {"usage"}
_NULL_IS_SENT: Final = {"result", "code", "outputs"}
"""Fields that some items must have, even if they say nothing."""


class Kind(NamedTuple):
    """What the rules must know of one type of item."""

    role: str
    opens: tuple[str, ...] = ()
    """The fields that may have the id of a call that it makes: the first that is set counts."""
    closes: tuple[str, ...] = ()
    """The fields that may have the id of a call whose result it is. Likewise."""


_CALL: Final = Kind(ASSISTANT, opens=("call_id",))
_OUTPUT: Final = Kind(RESULT, closes=("call_id",))
_OF_THE_REPLY: Final = Kind(ASSISTANT)
"""A part of a reply that neither calls the application nor is the answer."""
_SETTING: Final = Kind("developer")

KINDS: Final[dict[str, Kind]] = {
    "function_call": _CALL,
    "function_call_output": _OUTPUT,
    "custom_tool_call": _CALL,
    "custom_tool_call_output": _OUTPUT,
    "computer_call": _CALL,
    "computer_call_output": _OUTPUT,
    "local_shell_call": _CALL,
    "local_shell_call_output": Kind(RESULT, closes=("call_id", "id")),
    "shell_call": _CALL,
    "shell_call_output": _OUTPUT,
    "apply_patch_call": _CALL,
    "apply_patch_call_output": _OUTPUT,
    "program": _CALL,
    "program_output": _OUTPUT,
    # A search that the provider runs has no call id, and no result of the application's.
    "tool_search_call": Kind(ASSISTANT, opens=("call_id",)),
    "tool_search_output": Kind(RESULT, closes=("call_id",)),
    "mcp_approval_request": Kind(ASSISTANT, opens=("id",)),
    "mcp_approval_response": Kind(RESULT, closes=("approval_request_id",)),
    # What the provider did itself has its result inside.
    "mcp_call": _OF_THE_REPLY,
    "mcp_list_tools": _OF_THE_REPLY,
    "web_search_call": _OF_THE_REPLY,
    "file_search_call": _OF_THE_REPLY,
    "code_interpreter_call": _OF_THE_REPLY,
    "image_generation_call": _OF_THE_REPLY,
    "reasoning": _OF_THE_REPLY,
    "compaction": _OF_THE_REPLY,
    # It may stand for anything that the provider keeps. So it answers nothing.
    "item_reference": _OF_THE_REPLY,
    "additional_tools": _SETTING,
    "configuration_update": _SETTING,
    "compaction_trigger": _SETTING,
}
"""Every type of item but `message`."""

# An item of a type that is not known, in a session of this format: a part of a reply.
_UNKNOWN: Final = _OF_THE_REPLY


class OpenAIResponses(Format):
    """A reply is several items: reasoning, messages, calls. So is each result."""

    name = "openai-responses"
    bit = 4
    reply_in_parts = True

    def role(self, item: dict[str, Any]) -> str | None:
        """Return the role of a message. Of other items: whether the model or a tool made it."""
        if is_message(item):
            role = item.get("role")
            return role if isinstance(role, str) else None
        return _kind(item).role

    def opens(self, item: dict[str, Any]) -> list[CallId]:
        """Return the one id of a call that the application must answer."""
        return [] if is_message(item) else _ids(item, _kind(item).opens)

    def closes(self, item: dict[str, Any]) -> list[CallId]:
        """Return the one id of the call that an output answers."""
        return [] if is_message(item) else _ids(item, _kind(item).closes)

    def is_usable(self, item: dict[str, Any]) -> bool:
        """Tell whether an item is a message that is complete, no refusal and no commentary."""
        return (
            is_message(item)
            and item.get("status") in (None, "completed")
            and item.get("phase") != "commentary"
            and not any(block.get("type") == "refusal" for block in blocks(item))
        )

    def goes_on(self, item: dict[str, Any]) -> bool:
        """Tell whether an item is reasoning, a search or the like, or a commentary."""
        if item.get("status") not in (None, "completed"):
            return False
        return not is_message(item) or item.get("phase") == "commentary"

    def usage(self, item: dict[str, Any]) -> int | None:
        """Return the response's `total_tokens`, where its last item has them in `usage`."""
        if self.role(item) != ASSISTANT:
            return None
        return counted(item, "total_tokens", ("input_tokens", "output_tokens"))

    def chars(self, item: dict[str, Any]) -> int:
        """Weigh the content of a message, a call's input, an output. Of others, the JSON."""
        if is_message(item):
            return content_chars(item.get("content"))
        match item.get("type"):
            case "function_call":
                return content_chars(item.get("name")) + content_chars(item.get("arguments"))
            case "custom_tool_call":
                return content_chars(item.get("name")) + content_chars(item.get("input"))
            case "function_call_output" | "custom_tool_call_output":
                return content_chars(item.get("output"))
            case "computer_call_output":
                return IMAGE_CHARS
            case "image_generation_call":
                return IMAGE_CHARS if item.get("result") else json_chars(item)
        return json_chars(without(item, _UNSENT))

    def sendable(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item without what belongs to the response around it, or is not set."""
        unset = {name for name, value in item.items() if value is None} - _NULL_IS_SENT
        return without(item, _UNSENT | unset)

    def summary(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return a user message item."""
        content = [{"type": "input_text", "text": summary_text(entry)}]
        return {"type": "message", "role": USER, "content": content}


def is_message(item: dict[str, Any]) -> bool:
    """Tell whether an item is a message. Its type may be left out."""
    return bool(item.get("type", "message") == "message")


def _kind(item: dict[str, Any]) -> Kind:
    kind = item.get("type")
    return KINDS.get(kind, _UNKNOWN) if isinstance(kind, str) else _UNKNOWN


def _ids(item: dict[str, Any], names: tuple[str, ...]) -> list[CallId]:
    return [call_id(item[name]) for name in names if item.get(name) is not None][:1]


OPENAI_RESPONSES: Final = OpenAIResponses()
