"""The format of pi and OpenClaw: the messages of their session files.

Sources: pi `packages/ai/src/types.ts` and `coding-agent/src/core/messages.ts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sessiondb.clock import ms_from_iso
from sessiondb.texts import text_of
from sessiondb.transcript.tokens import content_chars, tokens_of

from .base import ASSISTANT, RESULT, CallId, Format, blocks, call_id, counted

SUMMARY: Final = "compactionSummary"
SYSTEM: Final = "system"
_FAILED: Final = ("error", "aborted")
EDITABLE: Final = ("user", ASSISTANT, RESULT, "custom")
"""Roles whose content an edit replaces. A message of any other may be left out."""
_WITH_CONTENT: Final = ("user", ASSISTANT, RESULT, "system")
_DATE_MS_MAX: Final = 8_640_000_000_000_000


class Pi(Format):
    """Calls are blocks of a reply. Each result is a message of its own."""

    name = "pi"
    bit = 1
    reset_drops = True

    def role(self, item: dict[str, Any]) -> str | None:
        """Return the item's own role. The rules use pi's words."""
        role = item.get("role")
        return role if isinstance(role, str) else None

    def opens(self, item: dict[str, Any]) -> list[CallId]:
        """Return the ids of a reply's `toolCall` blocks."""
        if item.get("role") != ASSISTANT:
            return []
        return [
            call_id(block.get("id")) for block in blocks(item) if block.get("type") == "toolCall"
        ]

    def closes(self, item: dict[str, Any]) -> list[CallId]:
        """Return the one id of a `toolResult` message."""
        return [call_id(item.get("toolCallId"))] if item.get("role") == RESULT else []

    def is_usable(self, item: dict[str, Any]) -> bool:
        """Tell whether a reply's `stopReason` is neither `error` nor `aborted`."""
        return item.get("stopReason") not in _FAILED

    def usage(self, item: dict[str, Any]) -> int | None:
        """Return `totalTokens`, or the sum of its parts. OpenClaw marks some as unavailable."""
        if item.get("role") != ASSISTANT or not self.is_usable(item):
            return None
        usage = item.get("usage")
        state = usage.get("contextUsage") if isinstance(usage, dict) else None
        if isinstance(state, dict) and state.get("state") == "unavailable":
            return None
        return counted(item, "totalTokens", ("input", "output", "cacheRead", "cacheWrite"))

    def chars(self, item: dict[str, Any]) -> int:
        """Weigh the content, of a command and its output both, of a summary its text."""
        role = item.get("role")
        if role == "bashExecution":
            return content_chars(item.get("command")) + content_chars(item.get("output"))
        if role in ("branchSummary", "compactionSummary"):
            return content_chars(item.get("summary"))
        return content_chars(item.get("content"))

    def tokens(self, item: dict[str, Any]) -> int:
        """Return the estimate of pi. A message with nothing in it weighs nothing, as there."""
        return tokens_of(self.chars(item))

    def summary(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return a `compactionSummary` message."""
        return {
            "role": SUMMARY,
            **present(entry, "summary", "tokensBefore"),
            "timestamp": entry_ms(entry),
        }

    def edited(self, item: dict[str, Any], content: Any) -> dict[str, Any]:
        """Return an item with another content. What is summarised, or instructs, has none."""
        if item.get("role") not in EDITABLE:
            return item
        if isinstance(content, str) and item["role"] in (ASSISTANT, RESULT):
            content = [{"type": "text", "text": content}]
        return {**item, "content": content}

    def opening(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a compaction's summary, and what else it keeps in its own entry.

        That is a system message in front, and in the files of pi's SDK the tail behind.
        """
        system = entry.get("systemMessage")
        return [
            *([{**system, "role": SYSTEM}] if isinstance(system, dict) else []),
            self.summary(entry),
            *(item for item in blocks(entry, "retainedTail") if "role" in item),
        ]

    def instructions(self, messages: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return one system message that says what several do, in their order. None: nothing.

        Texts stand one behind the other. Of sections and tools of one name the last counts, and
        one that was taken back is left out (pi-ai `getCurrentSystemMessage`).
        """
        texts: list[str] = []
        sections: dict[str, Any] = {}
        tools: dict[Any, Any] = {}
        for message in messages:
            text = text_of(message)
            texts += [text] if text else []
            for name, section in _fields(message.get("sections")).items():
                sections.pop(name, None) if section is None else sections.update({name: section})
            for tool in blocks(message, "toolsRemoved"):
                tools.pop(call_id(tool.get("name")), None)
            for tool in blocks(message, "toolsAdded"):
                tools[call_id(tool.get("name"))] = tool
        if not messages:
            return None
        return {
            "role": "system",
            "content": "\n\n".join(texts),
            **({"sections": sections} if sections else {}),
            **({"toolsAdded": list(tools.values())} if tools else {}),
        }


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def message_of(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the message that a decoded entry stands for, if it is not its body as it is stored.

    A field that the entry does not have is none of the message's either.
    """
    if entry["type"] == "custom_message":
        content = entry.get("content")
        return {
            "role": "custom",
            **present(entry, "customType"),
            "content": [] if content is None else content,
            **present(entry, "display", "details"),
            "timestamp": entry_ms(entry),
        }
    if entry["type"] == "branch_summary":
        return {
            "role": "branchSummary",
            **present(entry, "summary", "fromId"),
            "timestamp": entry_ms(entry),
        }
    message: dict[str, Any] = entry["message"]
    if message.get("role") == "hookMessage":  # of version 1 or 2
        return {**message, "role": "custom"}
    return mended(message)


def needs_mending(message: dict[str, Any]) -> bool:
    """Tell whether a message has a content that its readers replace by another."""
    content, role = message.get("content"), message.get("role")
    if content is None:
        return role in _WITH_CONTENT
    if isinstance(content, list):
        return False
    return (isinstance(content, str) and role in (ASSISTANT, RESULT)) or (
        isinstance(content, dict) and role == RESULT
    )


def mended(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with a content as its role has one: none of it, a text or a block.

    A message may lack its content, also of a version that wrote some without (pi
    `sessionEntryToContextMessages`). Where a list belongs, OpenClaw puts a text or a block into
    one (`normalizeLoadedFileEntry`).
    """
    if not needs_mending(message):
        return message
    content = message.get("content")
    if content is None:
        content = "" if message["role"] == "system" else []
    else:
        content = [{"type": "text", "text": content} if isinstance(content, str) else content]
    return {**message, "content": content}


def entry_ms(entry: dict[str, Any]) -> int | None:
    """Return an entry's time in milliseconds as JavaScript's `Date` reads it. None: it cannot."""
    value = entry.get("timestamp", "")
    if value is None:
        return 0
    if isinstance(value, int | float):
        return int(value) if abs(value) <= _DATE_MS_MAX else None
    return ms_from_iso(value)


def present(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return those of the named fields that an entry has."""
    return {name: entry[name] for name in names if name in entry}


PI: Final = Pi()
