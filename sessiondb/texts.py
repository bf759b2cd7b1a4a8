"""Stored JSON as its readers see it: decoded, or as the text that a person would read.

A text that is not what it should be is damage of the file: only JSON is ever stored. The error
says whose text it is, and a list with one such record is still a list.
"""

from __future__ import annotations

from typing import Any, Final

from .errors import StoreDamaged
from .json_text import loads

_TEXT_TYPES: Final = ("text", "input_text", "output_text")
# Where the message formats keep what was said. An item has one of these.
_FIELDS: Final = ("content", "summary", "output", "refusal")


def decoded(payload: str, what: str) -> Any:
    """Decode a stored JSON text.

    Raises:
        StoreDamaged: it is not JSON any more.
    """
    try:
        return loads(payload)
    except StoreDamaged as error:
        raise StoreDamaged(f"{what}: {error}") from error


def decoded_object(payload: str, what: str) -> dict[str, Any]:
    """Decode a stored JSON object.

    Raises:
        StoreDamaged: it is none any more.
    """
    value = decoded(payload, what)
    if not isinstance(value, dict):
        raise StoreDamaged(
            f"{what}: its stored text is damaged: a JSON {type(value).__name__}, not an object. "
            "Run `sessiondb verify DB`; then `sessiondb salvage DB NEW`."
        )
    return value


def text_of(item: dict[str, Any]) -> str:
    """Return what a person would read of a message of any format: no calls, no images.

    Of a summary that, of a command that and its output.
    """
    if item.get("role") == "bashExecution":
        said = (item.get("command"), item.get("output"))
        return "\n".join(part for part in said if isinstance(part, str))
    texts = (_joined(item.get(name)) for name in _FIELDS)
    return next((text for text in texts if text), "")


def _joined(content: Any) -> str:
    """Return a content's text: itself, or that of its blocks, a line each."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (
        block.get("text")
        for block in content
        if isinstance(block, dict) and block.get("type") in _TEXT_TYPES
    )
    return "\n".join(text for text in texts if isinstance(text, str))
