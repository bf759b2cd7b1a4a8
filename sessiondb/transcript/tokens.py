"""Estimate how many tokens a message adds to a context.

An estimate is used only where the provider has not counted: it decides how much history a compaction keeps
and what a context weighs after one. The rule is pi's (a token is about four characters, an image 4,800
characters) with one addition that OpenClaw made: a CJK character is about a token of its own.
Sources: pi `core/compaction/compaction.ts`; openclaw `packages/agent-core/src/harness/compaction`.
"""

from __future__ import annotations

import json
import math
from typing import Any

CHARS_PER_TOKEN = 4
IMAGE_CHARS = 4_800
_CJK_FROM = (
    "\u2e80"  # CJK radicals and everything above: kana, Han, Hangul, full-width forms, emoji
)


def text_chars(text: str) -> int:
    """Return the weight of `text` in characters of which four make a token."""
    if text.isascii():
        return len(text)
    wide = sum(1 for char in text if char >= _CJK_FROM)
    return len(text) + wide * (CHARS_PER_TOKEN - 1)


def text_tokens(text: str) -> int:
    """Return the estimated tokens of a plain text, such as a summary."""
    return math.ceil(text_chars(text) / CHARS_PER_TOKEN)


def message_tokens(message: dict[str, Any]) -> int:
    """Return the estimated tokens of one message, of any role; an unknown role weighs its content."""
    role = message.get("role")
    if role == "bashExecution":
        chars = _chars(message.get("command")) + _chars(message.get("output"))
    elif role in ("branchSummary", "compactionSummary"):
        chars = _chars(message.get("summary"))
    else:
        chars = _chars(message.get("content"))
    return math.ceil(chars / CHARS_PER_TOKEN)


def usage_tokens(message: dict[str, Any]) -> int | None:
    """Return the provider's own count of the context that produced an assistant message, if it is usable.

    A reply that was aborted or failed carries no valid count, and OpenClaw marks some as unavailable.
    """
    usage = message.get("usage")
    if (
        message.get("role") != "assistant"
        or message.get("stopReason") in ("aborted", "error")
        or not isinstance(usage, dict)
    ):
        return None
    if (
        isinstance(usage.get("contextUsage"), dict)
        and usage["contextUsage"].get("state") == "unavailable"
    ):
        return None
    total = _count(usage.get("totalTokens")) or sum(
        _count(usage.get(part)) for part in ("input", "output", "cacheRead", "cacheWrite")
    )
    return total or None


def _count(value: Any) -> int:
    if (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**53
    ):  # NaN is not, either
        return 0
    return int(value)


def _chars(content: Any) -> int:
    if isinstance(content, str):
        return text_chars(content)
    if not isinstance(content, list):
        return 0
    return sum(_block_chars(block) for block in content if isinstance(block, dict))


def _block_chars(block: dict[str, Any]) -> int:
    match block.get("type"):
        case "text":
            return _chars(block.get("text"))
        case "thinking":
            return _chars(block.get("thinking"))
        case "image":
            return IMAGE_CHARS
        case "toolCall":
            return _chars(block.get("name")) + len(
                json.dumps(block.get("arguments"), separators=(",", ":"), default=str)
            )
    return 0
