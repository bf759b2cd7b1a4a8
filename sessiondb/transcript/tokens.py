"""Estimate how many tokens a message adds to a context.

An estimate is used only where the provider has not counted. It decides how much history a
compaction keeps, and gives the size of a context after one. The rule is pi's (4 characters are
about a token, an image counts as 4,800 characters) with OpenClaw's addition: a CJK character is
about a token of its own. Sources: pi `core/compaction/compaction.ts`, and openclaw
`packages/agent-core/src/harness/compaction`.

The blocks of all message formats are weighed here, because their types have one meaning each. A
block of a type that is not known weighs the length of its JSON, so nothing weighs nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

CHARS_PER_TOKEN = 4
IMAGE_CHARS = 4_800
MEDIA_CHARS_SHARE: Final = 10
"""Of a document or a recording in base64, one character in so many counts. At least an image's."""
# CJK radicals (U+2E80) and everything above: kana, Han, Hangul, full-width forms, emoji. By how
# their UTF-8 begins, because a loop over the characters took a third of the time of `verify`.
_NARROW: Final = bytes(byte for byte in range(256) if not 0xE3 <= byte <= 0xF4)
_RADICALS: Final = tuple(bytes((0xE2, byte)) for byte in range(0xBA, 0xC0))


def text_chars(text: str) -> int:
    """Return the weight of `text` in characters, of which 4 make a token."""
    if text.isascii():
        return len(text)
    encoded = text.encode("utf-8", "surrogatepass")
    wide = len(encoded.translate(None, _NARROW)) + sum(map(encoded.count, _RADICALS))
    return len(text) + wide * (CHARS_PER_TOKEN - 1)


def text_tokens(text: str) -> int:
    """Return the estimated tokens of a plain text, such as a summary."""
    return tokens_of(text_chars(text))


def tokens_of(chars: int) -> int:
    """Return the tokens that so many characters make."""
    return math.ceil(chars / CHARS_PER_TOKEN)


def json_chars(value: Any) -> int:
    """Return the weight of a decoded value by the length of its JSON, however deep it is."""
    chars, stack = 0, [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, str):
            chars += text_chars(inner) + 2
        elif isinstance(inner, dict):
            chars += 2 + sum(map(text_chars, inner)) + 4 * len(inner)
            stack.extend(inner.values())
        elif isinstance(inner, list):
            chars += 2 + len(inner)
            stack.extend(inner)
        else:
            chars += len(json.dumps(inner))
    return chars


def content_chars(content: Any) -> int:
    """Return the weight of a content: a text, or a list of blocks. None weighs nothing."""
    if isinstance(content, str):
        return text_chars(content)
    if isinstance(content, list):
        return sum(map(block_chars, content))
    return _unknown_chars(content)


def _unknown_chars(value: Any) -> int:
    return 0 if value is None else json_chars(value)


def block_chars(block: Any) -> int:
    """Return the weight of a block of a content, by its type."""
    if not isinstance(block, dict):
        return text_chars(block) if isinstance(block, str) else _unknown_chars(block)
    block_type = block.get("type")
    if block_type == "text":
        text = block.get("text")
        return text_chars(text) if isinstance(text, str) else json_chars(block)
    weigh = _WEIGHTS.get(block_type) if isinstance(block_type, str) else None
    return weigh(block) if weigh is not None else json_chars(block)


def _text_in(field: str) -> Callable[[dict[str, Any]], int]:
    def weigh(block: dict[str, Any]) -> int:
        text = block.get(field)
        return text_chars(text) if isinstance(text, str) else json_chars(block)

    return weigh


def _image(_: dict[str, Any]) -> int:
    return IMAGE_CHARS


def _tool_call(block: dict[str, Any]) -> int:
    """Weigh a call of pi's format, as pi does: CJK arguments count as their escapes."""
    arguments = json.dumps(block.get("arguments"), separators=(",", ":"), default=str)
    return content_chars(block.get("name")) + len(arguments)


def _tool_use(block: dict[str, Any]) -> int:
    return content_chars(block.get("name")) + json_chars(block.get("input"))


def _tool_result(block: dict[str, Any]) -> int:
    content = block.get("content")
    if not content:
        return json_chars(block)
    if not isinstance(content, list):
        return content_chars(content)
    # A result in a result is no content of any provider's, and may be nested without an end.
    return sum(
        json_chars(inner) if isinstance(inner, dict) and "content" in inner else block_chars(inner)
        for inner in content
    )


def _document(block: dict[str, Any]) -> int:
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "base64":
        return media_chars(source.get("data"))
    return json_chars(block)


def _file(block: dict[str, Any]) -> int:
    """Weigh a file of OpenAI's formats: in Chat Completions its fields are one level down."""
    inside = block.get("file")
    data = (inside if isinstance(inside, dict) else block).get("file_data")
    return media_chars(data) if data is not None else json_chars(block)


def _audio(block: dict[str, Any]) -> int:
    inside = block.get("input_audio")
    return media_chars(inside.get("data")) if isinstance(inside, dict) else json_chars(block)


def media_chars(data: Any) -> int:
    """Return the weight of a document or a recording in base64."""
    size = len(data) if isinstance(data, str) else 0
    return max(IMAGE_CHARS, size // MEDIA_CHARS_SHARE)


_WEIGHTS: Final[dict[str, Callable[[dict[str, Any]], int]]] = {
    "text": _text_in("text"),
    "input_text": _text_in("text"),
    "output_text": _text_in("text"),
    "thinking": _text_in("thinking"),
    "refusal": _text_in("refusal"),
    "image": _image,
    "image_url": _image,
    "input_image": _image,
    "computer_screenshot": _image,
    "toolCall": _tool_call,
    "tool_use": _tool_use,
    "server_tool_use": _tool_use,
    "mcp_tool_use": _tool_use,
    "tool_result": _tool_result,
    "mcp_tool_result": _tool_result,
    "document": _document,
    "file": _file,
    "input_file": _file,
    "input_audio": _audio,
}
