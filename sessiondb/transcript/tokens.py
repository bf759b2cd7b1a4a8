"""Estimate how many tokens a message adds to a context.

An estimate is used only where the provider has not counted. It decides how much history a
compaction keeps, and gives the size of a context after one. The rule is pi's (4 characters are
about a token, an image counts as 4,800 characters) with OpenClaw's addition: a CJK character is
about a token of its own. Sources: pi `core/compaction/compaction.ts`, and openclaw
`packages/agent-core/src/harness/compaction`.
"""

from __future__ import annotations

import json
import math
from typing import Any

CHARS_PER_TOKEN = 4
IMAGE_CHARS = 4_800
# CJK radicals and everything above: kana, Han, Hangul, full-width forms, emoji.
_CJK_FROM = "\u2e80"


def text_chars(text: str) -> int:
    """Return the weight of `text` in characters, of which 4 make a token."""
    if text.isascii():
        return len(text)
    wide = sum(1 for char in text if char >= _CJK_FROM)
    return len(text) + wide * (CHARS_PER_TOKEN - 1)


def text_tokens(text: str) -> int:
    """Return the estimated tokens of a plain text, such as a summary."""
    return math.ceil(text_chars(text) / CHARS_PER_TOKEN)


def message_tokens(message: dict[str, Any]) -> int:
    """Return the estimated tokens of one message, of any role: by default those of its content."""
    role = message.get("role")
    if role == "bashExecution":
        chars = _chars(message.get("command")) + _chars(message.get("output"))
    elif role in ("branchSummary", "compactionSummary"):
        chars = _chars(message.get("summary"))
    else:
        chars = _chars(message.get("content"))
    return math.ceil(chars / CHARS_PER_TOKEN)


def usage_tokens(message: dict[str, Any]) -> int | None:
    """Return the provider's count of the context that produced a reply, or None if it is unusable.

    A reply that was aborted or failed carries no valid count, and OpenClaw marks some as
    unavailable.
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
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 < value < 2**53 else 0  # NaN is in no range


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
