"""What a person would read of an entry, as the view `search_text` of the schema has it.

For entries that are in no table: those of an archive. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

TEXT_CHARS_MAX: Final = 100_000
_TEXTS: Final = ("text", "input_text", "output_text")


def searched_text(kind: str, entry: dict[str, Any]) -> str:
    """Return the text of an entry of this type, or "" if there is none to read."""
    read = _READ.get(kind)
    text = read(entry) if read is not None else ""
    return text[:TEXT_CHARS_MAX].encode(errors="replace").decode()


def _message(entry: dict[str, Any]) -> str:
    message = entry.get("message")
    if not isinstance(message, dict):
        return ""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return _joined(map(_block, content)) or ""
    command, output = message.get("command"), message.get("output")
    parts = (
        f"{command}\n" if isinstance(command, str) else "",
        _texts_in(output, ("input_text",)),
        message.get("refusal"),
    )
    return "".join(part for part in parts if isinstance(part, str))


def _block(block: Any) -> str | None:
    """Return the text of a block of a message. None: it has none."""
    if isinstance(block, str):
        return block
    if not isinstance(block, dict):
        return None
    kind = block.get("type")
    if kind in _TEXTS:
        return _string(block.get("text"))
    if kind == "refusal":
        return _string(block.get("refusal"))
    return _texts_in(block.get("content"), ("text",)) if kind == "tool_result" else None


def _texts_in(content: Any, kinds: tuple[str, ...]) -> str | None:
    """Return a content that is a text, or the texts of its blocks of these types."""
    if not isinstance(content, list):
        return _string(content)
    return _joined(
        _string(block.get("text"))
        for block in content
        if isinstance(block, dict) and block.get("type") in kinds
    )


def _joined(texts: Iterable[str | None]) -> str | None:
    """Join the texts that there are, a line each. None: there is none."""
    found = [text for text in texts if text is not None]
    return "\n".join(found) if found else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


_READ: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "message": _message,
    "compaction": lambda entry: _string(entry.get("summary")) or "",
    "branch_summary": lambda entry: _string(entry.get("summary")) or "",
    "custom_message": lambda entry: _texts_in(entry.get("content"), ("text",)) or "",
    "session_info": lambda entry: _string(entry.get("name")) or "",
}
