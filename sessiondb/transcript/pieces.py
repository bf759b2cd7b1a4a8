"""What an entry says to a person, piece by piece, in any of the message formats.

The commands `show` and `diff` and the exports that are for reading go by the same pieces. Each
is text that a person, a model or a tool wrote, so whoever prints one escapes it. Nothing is
shortened here.

An entry of any shape has pieces: what is not as its type says is left out or shown as JSON, and
a stored text that is no JSON is one piece of kind `damaged`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from sessiondb.clock import ms_from_iso
from sessiondb.json_text import DamagedLine, decode_object
from sessiondb.models import Entry

Kind = Literal[
    "text", "thinking", "call", "image", "summary", "command", "error", "note", "other", "damaged"
]

YEAR_9999_MS: Final = 253_370_764_800_000
_FRAME: Final = frozenset({"type", "id", "parentId", "timestamp"})
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.ASCII)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of what an entry says."""

    kind: Kind
    text: str
    name: str = ""
    """Of a call: the tool. Of an image: its MIME type. Of another block: its type."""
    of_result: bool = False
    """It is a part of what a tool returned."""
    data: str | None = None
    """Of an image: its bytes as base64. None: they are elsewhere, and the text says where."""

    @property
    def data_bytes(self) -> int:
        """About how many bytes an image has."""
        return len(self.data or "") * 3 // 4


_DAMAGED: dict[str, Any] = {}
"""Stands for a text that is not JSON any more. The file is damaged there."""


# Title, time and text of one entry are asked for one after the other.
@functools.lru_cache(maxsize=1)
def _decoded(payload: str) -> dict[str, Any]:
    try:
        fields, _ = decode_object(payload)
    except DamagedLine:
        return _DAMAGED
    return fields


def pieces_of(entry: Entry) -> Iterator[Piece]:
    """Yield what an entry says, in order."""
    fields = _decoded(entry.payload)
    if fields is _DAMAGED:
        yield Piece("damaged", entry.payload)
        return
    match entry.type:
        case "message":
            yield from _of_message(fields.get("message"))
        case "custom_message":
            yield from _of_content(fields.get("content"))
        case "compaction" | "branch_summary":
            yield Piece("summary", str(fields.get("summary") or ""))
        case "context_edit":
            yield from _of_edit(fields)
        case "model_change":
            yield Piece("note", f"{fields.get('provider')}/{fields.get('modelId')}")
        case "thinking_level_change":
            yield Piece("note", str(fields.get("thinkingLevel")))
        case "session_info":
            yield Piece("note", str(fields.get("name") or ""))
        case "label":
            yield Piece("note", f"{fields.get('label') or '(removed)'} on {fields.get('targetId')}")
        case "leaf":
            yield Piece("note", f"the head moves to {fields.get('targetId') or 'the root'}")
        case "reset":
            yield Piece("note", str(fields.get("reason") or ""))
        case _:
            shown = (
                fields["data"]
                if "data" in fields
                else {name: value for name, value in fields.items() if name not in _FRAME}
            )
            yield Piece("other", json.dumps(shown, ensure_ascii=False))


def _of_edit(fields: dict[str, Any]) -> Iterator[Piece]:
    replacement = fields.get("replacement")
    target = fields.get("targetId")
    if not isinstance(replacement, dict):
        yield Piece("note", f"from here on the model is sent nothing of {target}")
        return
    yield Piece("note", f"from here on the model is sent this instead of {target}:")
    yield from _of_content(replacement.get("content"))


def _of_message(message: Any) -> Iterator[Piece]:
    if not isinstance(message, dict):
        return
    if message.get("role") == "bashExecution":
        yield Piece("command", str(message.get("command")))
        yield Piece("text", str(message.get("output") or ""), of_result=True)
        return
    item_type = message.get("type")
    if isinstance(item_type, str) and item_type != "message":
        yield from _of_item(item_type, message)
        return
    if message.get("role") in ("toolResult", "tool", "function"):
        yield from _of_result(message.get("content"))
        return
    if isinstance(message.get("reasoning_content"), str):
        yield Piece("thinking", message["reasoning_content"])
    yield from _of_content(message.get("content", message.get("summary")))
    for call in message.get("tool_calls") or ():
        yield _call(call.get("function") or call.get("custom") if isinstance(call, dict) else None)
    if isinstance(message.get("function_call"), dict):
        yield _call(message["function_call"])
    if message.get("refusal"):
        yield Piece("error", str(message["refusal"]))
    if message.get("errorMessage"):
        yield Piece("error", str(message["errorMessage"]))


def _of_item(item_type: str, item: dict[str, Any]) -> Iterator[Piece]:
    """Yield the pieces of an item of OpenAI's Responses that is no message."""
    if item_type == "reasoning":
        said = [*_texts(item.get("summary")), *_texts(item.get("content"))]
        if said:
            yield Piece("thinking", "\n".join(said))
            return
    if item_type == "image_generation_call" and isinstance(item.get("result"), str):
        yield Piece("image", "", "image/png", data=item["result"])
    elif "output" in item and item_type.endswith("_output"):
        yield from _of_result(item["output"])
    elif item_type.endswith("_call"):
        yield _call(item)
        if "output" in item:
            yield from _of_result(item["output"])
    else:
        yield Piece("other", "", item_type)


def _texts(content: Any) -> list[str]:
    blocks = content if isinstance(content, list) else ()
    texts = [block.get("text") for block in blocks if isinstance(block, dict)]
    return [text for text in texts if isinstance(text, str)]


def _of_result(content: Any) -> Iterator[Piece]:
    for piece in _of_content([content] if isinstance(content, dict) else content):
        yield replace(piece, of_result=True)


def _call(call: Any) -> Piece:
    """Return the piece of a call of any format: the tool, and what it is given."""
    fields = call if isinstance(call, dict) else {}
    given: Any = next(
        (fields[name] for name in ("arguments", "input", "action") if name in fields), {}
    )
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return Piece("call", text, str(fields.get("name") or fields.get("type")))


def _of_content(content: Any) -> Iterator[Piece]:
    if isinstance(content, str):
        yield Piece("text", content)
        return
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        match block.get("type"):
            case "text" | "input_text" | "output_text" | "summary_text":
                yield Piece("text", str(block.get("text", "")))
            case "thinking":
                said = block.get("thinking") or "(not shown by the provider)"
                yield Piece("thinking", str(said))
            case "toolCall" | "tool_use" | "server_tool_use" | "mcp_tool_use":
                yield _call(block)
            case "tool_result" | "mcp_tool_result":
                yield from _of_result(block.get("content"))
            case "refusal":
                yield Piece("error", str(block.get("refusal") or ""))
            case "image" | "image_url" | "input_image" | "computer_screenshot":
                yield _image(block)
            case other:
                yield Piece("other", "", str(other))


def _image(block: dict[str, Any]) -> Piece:
    """Return an image of any format: pi's own fields, Anthropic's source, OpenAI's URL."""
    source = block.get("source")
    fields = source if isinstance(source, dict) else block
    if isinstance(fields.get("data"), str):
        mime_type = fields.get("mimeType") or fields.get("media_type") or ""
        return Piece("image", "", str(mime_type), data=fields["data"])
    url = block.get("image_url", fields.get("url"))
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str):
        return Piece("image", str(block.get("file_id") or ""))
    match = _DATA_URL.match(url)
    if match is not None:
        return Piece("image", "", match[1], data=url[match.end() :])
    return Piece("image", url)


def plain_text(entry: Entry) -> str:
    """Return all that an entry says, without its images, as one text."""
    texts = (
        f"{piece.name} {piece.text}".strip() if piece.kind == "call" else piece.text
        for piece in pieces_of(entry)
    )
    return "\n".join(text for text in texts if text)


def title_of(entry: Entry) -> str:
    """Return an entry's author or type, in a few words."""
    if entry.type != "message":
        return entry.type.replace("_", " ")
    message = _decoded(entry.payload).get("message")
    message = message if isinstance(message, dict) else {}
    role = str(entry.role or message.get("role") or "message")
    match role:
        case "assistant":
            title = f"assistant  {message.get('model') or ''}".rstrip()
            ended = message.get("stopReason")
            return f"{title}  ({ended})" if ended in ("error", "aborted", "length") else title
        case "toolResult":
            return f"tool result  {message.get('toolName') or ''}".rstrip() + (
                "  (error)" if message.get("isError") else ""
            )
        case "bashExecution":
            code = message.get("exitCode")
            return f"shell  (exit code {code})" if code else "shell"
        case "custom":
            return f"custom  {message.get('customType') or ''}".rstrip()
    return role + (
        "  (excluded from the context)" if message.get("excludeFromContext") is True else ""
    )


def written_at_ms(entry: Entry) -> int:
    """Return when an entry was written: by its own timestamp, else when it was stored.

    An imported entry was stored long after it was written.
    """
    stamp = _decoded(entry.payload).get("timestamp")
    stamped_at_ms = ms_from_iso(stamp) if isinstance(stamp, str) else None
    if stamped_at_ms is not None and 0 < stamped_at_ms < YEAR_9999_MS:
        return stamped_at_ms
    return entry.appended_at_ms


def entry_json(entry: Entry) -> str:
    """Encode an entry with its place. The payload is the stored text itself, not a new encoding."""
    place = {
        "seq": entry.seq,
        "entry_no": entry.entry_no,
        "entry_id": entry.entry_id,
        "parent_no": entry.parent_no,
        "position": entry.position,
        "type": entry.type,
        "role": entry.role,
        "tokens": entry.tokens,
        "usage_tokens": entry.usage_tokens,
        "appended_at_ms": entry.appended_at_ms,
        "idempotency_key": entry.idempotency_key,
    }
    return f'{json.dumps(place, ensure_ascii=False)[:-1]}, "payload": {entry.payload}}}'
