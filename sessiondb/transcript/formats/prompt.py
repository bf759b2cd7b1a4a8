"""How items stand in a prompt, for each message format: what its provider takes, and what not.

`pairing.py` puts a context in order by these answers. They are about one item each. An item is
never changed: what is left out, split or joined is a new one.

Sources: the SDKs' types, and the errors that providers give. `tests/support/prompts.py` has the
rules of each provider, with where they are said.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from .base import ASSISTANT, RESULT, USER, CallId, blocks, call_id

Item = dict[str, Any]

BEGINNING: Final = "(The conversation begins here.)"
"""What a user is made to say where a provider wants a user's message first, and there is none."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool that the application must answer."""

    key: CallId
    id: Any
    tool: str


class Prompt(ABC):
    """The prompts of one format."""

    user_first: ClassVar[bool] = False
    """True: the provider refuses a prompt that begins with a reply."""
    calls_are_items: ClassVar[bool] = False
    """True: each call of a reply is an item of its own. Those that follow each other are one."""
    results_are_joined: ClassVar[bool] = False
    """True: the results of a reply's calls stand in one message."""

    @abstractmethod
    def taken(self, item: Item) -> Item | None:
        """Return what the provider takes of an item: itself, if that is all of it. None: nothing.

        Providers refuse messages that say nothing, although models make them.
        """

    @abstractmethod
    def calls(self, item: Item) -> list[Call]:
        """Return the calls that an item makes, in order."""

    @abstractmethod
    def results(self, item: Item) -> list[tuple[CallId, Item]]:
        """Return the results in an item, each as an item of its own, by the ids of their calls."""

    def rest(self, item: Item) -> Item | None:
        """Return an item that has results without them. None: it has nothing else."""
        del item
        return None

    def joined(self, results: Sequence[Item]) -> list[Item]:
        """Return the results of a reply as they stand behind it."""
        return list(results)

    @abstractmethod
    def closing(self, call: Call, text: str, reply: Item) -> Item | None:
        """Return a result that says what became of a call. None: the call has to be left out."""

    def leads(self, item: Item) -> bool:
        """Tell whether an item is nothing without the model's next one."""
        del item
        return False

    def by_model(self, item: Item) -> bool:
        """Tell whether the model made an item."""
        return item.get("role") == ASSISTANT

    def beginning(self) -> Item:
        """Return a user's message for a prompt that must begin with one."""
        return {"role": USER, "content": BEGINNING}


def _is_blank(content: Any) -> bool:
    """Tell whether a content says nothing."""
    if not isinstance(content, list):
        return not content or (isinstance(content, str) and not content.strip())
    return all(map(_is_blank_text, content))


def _is_blank_text(block: Any) -> bool:
    return (
        isinstance(block, dict)
        and block.get("type") == "text"
        and isinstance(block.get("text"), str)
        and not block["text"].strip()
    )


def _name(value: Any) -> str:
    return value if isinstance(value, str) and value else "unknown"


# -- pi --------------------------------------------------------------------------------


class _Pi(Prompt):
    """pi leaves a reply that failed or was aborted out of a prompt, with its calls.

    Here its text stays, because a person may have read it. Its calls were never carried out.
    """

    user_first = True  # Anthropic's rule, and no other provider minds

    def taken(self, item: Item) -> Item | None:
        role = item.get("role")
        if role == ASSISTANT and item.get("stopReason") in ("error", "aborted"):
            said = [block for block in blocks(item) if block.get("type") in ("text", "image")]
            content = item.get("content")
            if isinstance(content, list) and len(said) < len(content):
                item = {**item, "content": said}
        if role in (USER, ASSISTANT, "custom") and _is_blank(item.get("content")):
            return None
        return item

    def calls(self, item: Item) -> list[Call]:
        if item.get("role") != ASSISTANT:
            return []
        return [
            Call(call_id(block.get("id")), block.get("id"), _name(block.get("name")))
            for block in blocks(item)
            if block.get("type") == "toolCall"
        ]

    def results(self, item: Item) -> list[tuple[CallId, Item]]:
        if item.get("role") != RESULT:
            return []
        return [(call_id(item.get("toolCallId")), item)]

    def closing(self, call: Call, text: str, reply: Item) -> Item:
        return {
            "role": RESULT,
            "toolCallId": call.id,
            "toolName": call.tool,
            "content": [{"type": "text", "text": text}],
            "isError": True,
            "timestamp": reply.get("timestamp", 0),
        }

    def beginning(self) -> Item:
        return {**super().beginning(), "timestamp": 0}


# -- OpenAI chat -----------------------------------------------------------------------


class _OpenAIChat(Prompt):
    def taken(self, item: Item) -> Item | None:
        says = ("refusal", "audio", "tool_calls", "function_call")
        if item.get("role") in ("tool", "function") or any(item.get(name) for name in says):
            return item
        return None if _is_blank(item.get("content")) else item

    def calls(self, item: Item) -> list[Call]:
        if item.get("role") != ASSISTANT:
            return []
        found = []
        for call in blocks(item, "tool_calls"):
            inside = call.get("custom" if call.get("type") == "custom" else "function")
            name = inside.get("name") if isinstance(inside, dict) else None
            found.append(Call(call_id(call.get("id")), call.get("id"), _name(name)))
        function = item.get("function_call")
        if isinstance(function, dict):
            found.append(Call(_function(function), None, _name(function.get("name"))))
        return found

    def results(self, item: Item) -> list[tuple[CallId, Item]]:
        if item.get("role") == "tool":
            return [(call_id(item.get("tool_call_id")), item)]
        return [(_function(item), item)] if item.get("role") == "function" else []

    def closing(self, call: Call, text: str, reply: Item) -> Item:
        del reply
        if call.id is None:
            return {"role": "function", "name": call.tool, "content": text}
        return {"role": "tool", "tool_call_id": call.id, "content": text}


def _function(named: Item) -> CallId:
    """Return the key of a call without an id, of the time before `tool_calls`."""
    return f"function {named.get('name')}"


# -- OpenAI Responses ------------------------------------------------------------------

_OUTPUTS: Final = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "local_shell_call": "local_shell_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "program": "program_output",
    "tool_search_call": "tool_search_output",
    "mcp_approval_request": "mcp_approval_response",
}


class _OpenAIResponses(Prompt):
    calls_are_items = True

    def taken(self, item: Item) -> Item | None:
        is_message = item.get("type", "message") == "message"
        return None if is_message and _is_blank(item.get("content")) else item

    def calls(self, item: Item) -> list[Call]:
        kind = item.get("type")
        if kind not in _OUTPUTS:
            return []
        found = _first(item, *(("id",) if kind == "mcp_approval_request" else ("call_id", "id")))
        if found is None or (kind == "tool_search_call" and item.get("call_id") is None):
            return []  # a search that the provider runs has no result of the application's
        return [Call(call_id(found), found, _name(item.get("name") or kind))]

    def results(self, item: Item) -> list[tuple[CallId, Item]]:
        if item.get("type") not in _OUTPUTS.values():
            return []
        found = _first(item, "approval_request_id", "call_id", "id")
        return [(call_id(found), item)] if found is not None else []

    def closing(self, call: Call, text: str, reply: Item) -> Item | None:
        match reply.get("type"):
            case "function_call" | "custom_tool_call":
                kind = _OUTPUTS[reply["type"]]
                return {"type": kind, "call_id": call.id, "output": text}
            case "local_shell_call":
                return {"type": "local_shell_call_output", "id": call.id, "output": text}
            case "shell_call":
                outcome = {"type": "timeout"}
                output = [{"stdout": "", "stderr": text, "outcome": outcome}]
                return {"type": "shell_call_output", "call_id": call.id, "output": output}
            case "apply_patch_call":
                kind, status = "apply_patch_call_output", "failed"
                return {"type": kind, "call_id": call.id, "status": status, "output": text}
            case "mcp_approval_request":
                kind = "mcp_approval_response"
                return {"type": kind, "approval_request_id": call.id, "approve": False,
                        "reason": text}  # fmt: skip
        return None  # its result would be a picture, or something that only the tool can make

    def leads(self, item: Item) -> bool:
        return item.get("type") == "reasoning"

    def by_model(self, item: Item) -> bool:
        kind = item.get("type", "message")
        if kind == "message":
            return item.get("role") == ASSISTANT
        return kind not in _OUTPUTS.values()


def _first(item: Item, *names: str) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


# -- Anthropic -------------------------------------------------------------------------


class _Anthropic(Prompt):
    """Only `tool_use` is answered by the application. The provider answers its own tools."""

    user_first = True
    results_are_joined = True

    def taken(self, item: Item) -> Item | None:
        content = item.get("content")
        if not isinstance(content, list):
            return None if _is_blank(content) else item
        results = [block for block in content if _is_result(block)]
        others = [block for block in content if not _is_result(block) and not _is_blank_text(block)]
        if [*results, *others] == content:
            return item if content else None
        return {**item, "content": [*results, *others]} if results or others else None

    def calls(self, item: Item) -> list[Call]:
        if item.get("role") != ASSISTANT:
            return []
        return [
            Call(call_id(block.get("id")), block.get("id"), _name(block.get("name")))
            for block in blocks(item)
            if block.get("type") == "tool_use"
        ]

    def results(self, item: Item) -> list[tuple[CallId, Item]]:
        return [
            (call_id(block.get("tool_use_id")), {**item, "content": [block]})
            for block in blocks(item)
            if _is_result(block)
        ]

    def rest(self, item: Item) -> Item | None:
        others = [block for block in item["content"] if not _is_result(block)]
        return {**item, "content": others} if others else None

    def joined(self, results: Sequence[Item]) -> list[Item]:
        if not results:
            return []
        content = [block for result in results for block in result["content"]]
        return [{**results[0], "content": content}]

    def closing(self, call: Call, text: str, reply: Item) -> Item:
        del reply
        result = {"type": "tool_result", "tool_use_id": call.id, "content": text, "is_error": True}
        return {"role": USER, "content": [result]}


def _is_result(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "tool_result"


PROMPTS: Final[dict[str, Prompt]] = {
    "pi": _Pi(),
    "openai-chat": _OpenAIChat(),
    "openai-responses": _OpenAIResponses(),
    "anthropic": _Anthropic(),
}
"""The prompts of each format, by its name."""
