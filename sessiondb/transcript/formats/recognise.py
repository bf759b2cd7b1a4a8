"""Which formats an item may have, by its shape.

Many messages are valid in several formats: `{"role": "user", "content": "hello"}` in all
four. So the answer is a set of formats, as a number with a bit for each. What an item says is the
same in each of the formats that it may have, so the rules may ask any of them.
"""

from __future__ import annotations

from typing import Any, Final

from .anthropic import ANTHROPIC, CALLS, OTHERS, RESULTS
from .openai_chat import OPENAI_CHAT
from .openai_responses import KINDS, OPENAI_RESPONSES
from .pi import PI

_PI, _CHAT, _RESPONSES, _ANTHROPIC = (
    PI.bit,
    OPENAI_CHAT.bit,
    OPENAI_RESPONSES.bit,
    ANTHROPIC.bit,
)
ANY: Final = _PI | _CHAT | _RESPONSES | _ANTHROPIC

_ROLES: Final = {
    "user": ANY,
    "assistant": ANY,
    "system": ANY,
    "developer": _CHAT | _RESPONSES,
    "tool": _CHAT,
    "function": _CHAT,
}
"""Who speaks. Any other role is one of pi's, whose programs add roles of their own."""

_REPLY_FIELDS: Final = {
    "tool_calls": _CHAT,
    "function_call": _CHAT,
    "refusal": _CHAT,
    "annotations": _CHAT,
    "finish_reason": _CHAT,
    "reasoning_content": _CHAT,
    "stop_reason": _ANTHROPIC,
    "stop_sequence": _ANTHROPIC,
    "errorMessage": _PI,
    "providerReplay": _PI,
}
"""Fields that only the replies of one format have."""
_REPLY_FIELD_NAMES: Final = _REPLY_FIELDS.keys()

_USAGE_FIELDS: Final = {
    "input": _PI,
    "totalTokens": _PI,
    "prompt_tokens": _CHAT,
    "input_tokens": _RESPONSES | _ANTHROPIC,
    "cache_read_input_tokens": _ANTHROPIC,
    "cache_creation_input_tokens": _ANTHROPIC,
    "total_tokens": _CHAT | _RESPONSES,
}

_BLOCKS: Final[dict[str, int]] = {
    **dict.fromkeys(CALLS | RESULTS | OTHERS, _ANTHROPIC),
    "toolCall": _PI,
    "image_url": _CHAT,
    "file": _CHAT,
    "input_audio": _CHAT,
    "refusal": _CHAT | _RESPONSES,
    "input_text": _RESPONSES,
    "output_text": _RESPONSES,
    "input_image": _RESPONSES,
    "input_file": _RESPONSES,
    "text": _PI | _CHAT | _ANTHROPIC,
    "image": _PI | _ANTHROPIC,
    "thinking": _PI | _ANTHROPIC,
}
"""Blocks of a content. A type that is not known may be of any format."""

_SHARED_BLOCKS: Final = ("text", "image", "thinking")
_BLOCK_FIELDS: Final = {
    "textSignature": _PI,
    "thinkingSignature": _PI,
    "redacted": _PI,
    "mimeType": _PI,
    "signature": _ANTHROPIC,
    "citations": _ANTHROPIC,
    "cache_control": _ANTHROPIC | _CHAT,
    "source": _ANTHROPIC,
}
"""Fields of those, which fewer formats have."""
_BLOCK_FIELD_NAMES: Final = _BLOCK_FIELDS.keys()


def is_item(fields: dict[str, Any]) -> bool:
    """Tell whether an object is an item of a format, and not an entry of a transcript.

    Entries have a type. So have the items of OpenAI's Responses API, and Anthropic's replies.
    """
    entry_type = fields.get("type")
    if entry_type is None and "type" not in fields:
        return isinstance(fields.get("role"), str)
    if entry_type == "message":
        return isinstance(fields.get("role"), str) and "content" in fields
    if entry_type == "compaction":
        return "encrypted_content" in fields
    return isinstance(entry_type, str) and entry_type in KINDS


def recognise(item: dict[str, Any]) -> int:
    """Return the formats that an item may have: a bit for each. 0: it has marks of several."""
    entry_type = item.get("type")
    if entry_type is not None:
        return _recognise_message(item) if entry_type == "message" else _RESPONSES
    role = item.get("role")
    found = _ROLES.get(role, _PI) if isinstance(role, str) else _PI
    if found & (found - 1) == 0:
        return found
    if role == "assistant":
        if "stopReason" in item:  # almost every reply of pi's, and no other
            return _PI
        found &= _by_reply(item)
    content = item.get("content")
    if isinstance(content, list):
        found &= _by_blocks(content)
    return found


def _recognise_message(item: dict[str, Any]) -> int:
    """Tell a message item of OpenAI's from a reply of Anthropic's. Both have this type."""
    if not item.keys().isdisjoint(("stop_reason", "stop_sequence", "model")):
        return _ANTHROPIC
    content = item.get("content")
    found = _by_blocks(content) if isinstance(content, list) else ANY
    return _RESPONSES if found & _RESPONSES else found & _ANTHROPIC


def _by_reply(item: dict[str, Any]) -> int:
    found = ANY
    for name in item.keys() & _REPLY_FIELD_NAMES:
        found &= _REPLY_FIELDS[name]
    usage = item.get("usage")
    if isinstance(usage, dict):
        for name, formats in _USAGE_FIELDS.items():
            if name in usage:
                found &= formats
    return found


def _by_blocks(content: list[Any]) -> int:
    found = ANY
    for block in content:
        if not isinstance(block, dict):
            continue
        block_type = block.get("type")
        formats = _BLOCKS.get(block_type, ANY) if isinstance(block_type, str) else ANY
        found &= formats
        if block_type in _SHARED_BLOCKS and (len(block) > 2 or block_type == "image"):
            for name in block.keys() & _BLOCK_FIELD_NAMES:
                found &= _BLOCK_FIELDS[name]
    return found
