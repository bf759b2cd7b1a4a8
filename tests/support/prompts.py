"""Strict checkers: would a provider take this list of messages?

One checker for each message format. It validates every message with the types of the
provider's own SDK, where an unknown field is refused too, and then the list by the
provider's public rules. A list that is refused raises `Refused` with the rule.

A checker knows nothing of sessiondb, and repairs nothing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pydantic

Message = dict[str, Any]
Checker = Callable[[Sequence[Message]], None]


class Refused(AssertionError):
    """The provider would answer 400. The message says which rule is broken, and where."""


def _refuse_unless(holds: object, rule: str, at: int, message: object) -> None:
    if not holds:
        raise Refused(f"message {at}: {rule}: {json.dumps(message)[:400]}")


# -- the SDKs' types -------------------------------------------------------------------

# Imported when they are first used: each process of pytest collects all tests, and the SDKs
# took a quarter of the time of that.


@functools.cache
def _chat() -> pydantic.TypeAdapter[Any]:
    from openai.types.chat import ChatCompletionMessageParam

    return pydantic.TypeAdapter(ChatCompletionMessageParam)


@functools.cache
def _responses() -> pydantic.TypeAdapter[Any]:
    from openai.types.responses.response_input_item_param import ResponseInputItemParam

    return pydantic.TypeAdapter(ResponseInputItemParam)


@functools.cache
def _anthropic() -> pydantic.TypeAdapter[Any]:
    from anthropic.types import MessageParam

    return pydantic.TypeAdapter(MessageParam)


def _typed(adapter: pydantic.TypeAdapter[Any], at: int, message: Message) -> None:
    """Refuse a message that is none of the SDK's types, or has a field that they do not know."""
    try:
        known = _settled(adapter.validate_python(message, strict=True))
    except pydantic.ValidationError as error:
        raise Refused(f"message {at} is of no known type: {str(error)[:400]}") from error
    _refuse_unless(known == message, f"has unknown fields, beside {known}", at, message)


def _settled(value: Any) -> Any:
    """Return a validated value with its lists read. (Of an Iterable pydantic reads none ahead.)"""
    if isinstance(value, pydantic.BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, dict):
        return {name: _settled(inner) for name, inner in value.items()}
    if isinstance(value, str | bytes | int | float) or value is None:
        return value
    return [_settled(inner) for inner in value]


def _filled(content: Any) -> bool:
    """Tell whether a content says something: a text that is not blank, or a list of blocks."""
    return bool(content.strip()) if isinstance(content, str) else bool(content)


# -- OpenAI chat -----------------------------------------------------------------------


def check_chat(messages: Sequence[Message]) -> None:
    """Refuse what OpenAI's chat completions do not take.

    * "An assistant message with 'tool_calls' must be followed by tool messages responding to
      each 'tool_call_id'" (QwenLM/qwen-code#606, BerriAI/litellm#28995).
    * "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
      (FoundationAgents/OpenManus#744).
    * `content` is required, unless `tool_calls` is given (`ChatCompletionAssistantMessageParam`),
      and `tool_calls` is not empty.
    * Arguments are JSON, which strict endpoints parse. Each id is answered once.
    """
    waiting: list[str] = []
    for at, message in enumerate(messages):
        _typed(_chat(), at, message)
        if message["role"] == "tool":
            _refuse_unless(
                message["tool_call_id"] in waiting, "answers no call before it", at, message
            )
            waiting.remove(message["tool_call_id"])
            continue
        _refuse_unless(not waiting, f"comes before the results of {waiting}", at, message)
        if message["role"] == "assistant" and "tool_calls" in message:
            _refuse_unless(message["tool_calls"], "has no tool calls", at, message)
            waiting = [call["id"] for call in message["tool_calls"]]
            for call in message["tool_calls"]:
                if call["type"] == "function":
                    _refuse_unless(
                        _is_json(call["function"]["arguments"]), "arguments are JSON", at, message
                    )
        else:
            _refuse_unless(
                _filled(message.get("content") or message.get("refusal") or ""),
                "says nothing",
                at,
                message,
            )
    _refuse_unless(not waiting, f"no results of {waiting}", len(messages), None)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


# -- OpenAI Responses ------------------------------------------------------------------

OUTPUT_OF: Final = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "local_shell_call": "local_shell_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "mcp_approval_request": "mcp_approval_response",
}


def check_responses(items: Sequence[Message]) -> None:
    """Refuse what OpenAI's Responses API, or an endpoint like it, does not take as `input`.

    * "No tool output found for function call": each call has its output, and not before it.
    * "No tool call found for function call output" (continuedev/continue#11785).
    * Nothing but calls and outputs stands between a call and its output. OpenAI itself pairs
      them anywhere, but DeepSeek's endpoint does not
      (deepseek-ai/awesome-deepseek-integration#740).
    * "Duplicate 'call_id'" (earendil-works/pi#9057), and "Duplicate item found with id"
      (vercel/ai#7883).
    * "Item of type 'reasoning' was provided without its required following item": a message
      or a call of the model (vercel/ai#7099).
    """
    waiting: dict[tuple[str, str], int] = {}
    called: set[str] = set()
    ids: set[str] = set()
    reasoned: int | None = None
    for at, item in enumerate(items):
        _typed(_responses(), at, item)
        kind = item.get("type", "message")
        if item.get("id") is not None and kind != "item_reference":
            _refuse_unless(item["id"] not in ids, "repeats an id", at, item)
            ids.add(item["id"])
        if kind == "reasoning":
            _refuse_unless(not waiting, f"comes before the outputs of {list(waiting)}", at, item)
            reasoned = at
            continue
        if reasoned is not None:
            _refuse_unless(_by_model(kind, item), "follows a reasoning, and is not its", at, item)
            reasoned = None
        if kind in OUTPUT_OF:
            call_id = _call_id(at, item)
            _refuse_unless(call_id not in called, "repeats a call_id", at, item)
            called.add(call_id)
            waiting[OUTPUT_OF[kind], call_id] = at
        elif kind in OUTPUT_OF.values():
            answered = kind, _call_id(at, item)
            _refuse_unless(answered in waiting, "has no call before it", at, item)
            del waiting[answered]
        else:
            _refuse_unless(not waiting, f"comes before the outputs of {list(waiting)}", at, item)
            if kind == "message":
                _refuse_unless(_filled(item["content"]), "says nothing", at, item)
    _refuse_unless(not waiting, f"no outputs of {list(waiting)}", len(items), None)
    _refuse_unless(reasoned is None, "a reasoning is last", len(items), None)


def _by_model(kind: str, item: Message) -> bool:
    return kind in OUTPUT_OF or kind.endswith("_call") or item.get("role") == "assistant"


def _call_id(at: int, item: Message) -> str:
    names = {"mcp_approval_request": "id", "mcp_approval_response": "approval_request_id"}
    found = item.get(names.get(item["type"], "call_id"))
    _refuse_unless(found, "has no call_id", at, item)  # the SDK's newest types leave it out
    return str(found)


# -- Anthropic -------------------------------------------------------------------------


def check_anthropic(messages: Sequence[Message]) -> None:
    """Refuse what Anthropic's Messages API does not take.

    * 'first message must use the "user" role' (langchain4j/langchain4j#940).
    * "`tool_use` ids were found without `tool_result` blocks immediately after. Each `tool_use`
      block must have a corresponding `tool_result` block in the next message"
      (anthropics/claude-code#3632). In that message results come first, and any text after them
      (platform.claude.com, "Handle tool calls").
    * "unexpected `tool_use_id` found in `tool_result` blocks", and each result is given once.
    * "`tool_use` ids must be unique", in all messages (BerriAI/litellm#23510).
    * "all messages must have non-empty content except for the optional final assistant message"
      (anthropics/claude-code#6774) and "text content blocks must be non-empty"
      (anthropics/claude-code#59812).
    """
    waiting: list[str] = []
    used: set[str] = set()
    for at, message in enumerate(messages):
        _typed(_anthropic(), at, message)
        _refuse_unless(at or message["role"] == "user", "the first is a user's", at, message)
        _refuse_unless(_filled(message["content"]), "says nothing", at, message)
        blocks = message["content"] if isinstance(message["content"], list) else []
        for block in blocks:
            _refuse_unless(
                block["type"] != "text" or block["text"].strip(), "a text is empty", at, message
            )
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        _refuse_unless(
            sorted(results) == sorted(waiting), f"its results must be those of {waiting}", at,
            message,
        )  # fmt: skip
        _refuse_unless(
            all(block["type"] == "tool_result" for block in blocks[: len(results)]),
            "results come first",
            at,
            message,
        )
        _refuse_unless(not results or message["role"] == "user", "is no user's", at, message)
        waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
        _refuse_unless(not waiting or message["role"] == "assistant", "is no reply", at, message)
        _refuse_unless(
            len({*waiting, *used}) == len(waiting) + len(used), "repeats an id", at, message
        )
        used.update(waiting)
    _refuse_unless(not waiting, f"no results of {waiting}", len(messages), None)


# -- pi --------------------------------------------------------------------------------


def check_pi(messages: Sequence[Message]) -> None:
    """Refuse what pi would send, and Anthropic or an OpenAI endpoint would not take.

    What pi sends is made by its `convertToLlm` and `transformMessages`: replies that failed
    or were aborted are left out, with their calls. Its own repair of missing results is not
    done here. Nor are ids that come again made different, which pi leaves to the model.
    """
    for at, message in enumerate(messages):
        _refuse_unless(message.get("role") in _PI_ROLES, "has no role of pi", at, message)
        if message["role"] == "toolResult":
            fields = {"toolCallId", "toolName", "content", "isError"}
            _refuse_unless(fields <= message.keys(), f"needs {fields}", at, message)
    sent = [message for message in messages if message.get("stopReason") not in _PI_LEAVES_OUT]
    check_chat(list(_pi_as_chat(sent)))
    check_anthropic(list(_pi_as_anthropic(sent)))


_PI_LEAVES_OUT: Final = ("error", "aborted")
_PI_ROLES: Final = frozenset(
    {
        "user",
        "assistant",
        "toolResult",
        "custom",
        "bashExecution",
        "branchSummary",
        "compactionSummary",
    }
)


def _pi_text(message: Message) -> str:
    if message["role"] == "bashExecution":
        return f"Ran `{message['command']}`\n{message['output'] or '(no output)'}"
    content = message.get("summary") or message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


def _pi_calls(message: Message) -> list[Message]:
    content = message["content"]
    return [block for block in content if block["type"] == "toolCall"] if content else []


def _pi_as_chat(messages: Sequence[Message]) -> Iterator[Message]:
    for message in messages:
        text = _pi_text(message)
        if message["role"] == "toolResult":
            yield {"role": "tool", "tool_call_id": message["toolCallId"], "content": text or " "}
        elif message["role"] == "assistant":
            calls = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
                }
                for call in _pi_calls(message)
            ]
            if text or calls:
                yield {
                    "role": "assistant",
                    "content": text or None,
                    **({"tool_calls": calls} if calls else {}),
                }
        elif text.strip():
            yield {"role": "user", "content": text}


def _pi_as_anthropic(messages: Sequence[Message]) -> Iterator[Message]:
    """Convert as pi does: results that follow one another become one message."""
    results: list[Message] = []
    renamed: dict[str, str] = {}
    for number, message in enumerate(messages):
        text = _pi_text(message)
        if message["role"] == "toolResult":
            results.append(
                {
                    "type": "tool_result",
                    "tool_use_id": renamed.get(message["toolCallId"], message["toolCallId"]),
                    "content": [{"type": "text", "text": text or " "}],
                    "is_error": message["isError"],
                }
            )
            continue
        if results:
            yield {"role": "user", "content": results}
            results = []
        if message["role"] == "assistant":
            calls = _pi_calls(message)
            renamed = {call["id"]: f"{call['id']}-{number}" for call in calls}
            blocks: list[Message] = [{"type": "text", "text": text}] if text.strip() else []
            blocks += [
                {
                    "type": "tool_use",
                    "id": renamed[call["id"]],
                    "name": call["name"],
                    "input": call["arguments"],
                }
                for call in calls
            ]
            if blocks:
                yield {"role": "assistant", "content": blocks}
        elif text.strip():
            yield {"role": "user", "content": text}
    if results:
        yield {"role": "user", "content": results}


CHECKERS: Final[dict[str, Checker]] = {
    "pi": check_pi,
    "openai-chat": check_chat,
    "openai-responses": check_responses,
    "anthropic": check_anthropic,
}
