"""The format of pi and OpenClaw: the messages of their session files.

Sources: pi `packages/ai/src/types.ts` and `coding-agent/src/core/messages.ts`.
"""

from __future__ import annotations

from typing import Any, Final

from sessiondb.clock import ms_from_iso
from sessiondb.transcript.tokens import content_chars, tokens_of

from .base import ASSISTANT, RESULT, CallId, Format, blocks, call_id, counted, joined_text

_FAILED: Final = ("error", "aborted")


class Pi(Format):
    """Calls are blocks of a reply. Each result is a message of its own."""

    name = "pi"
    bit = 1
    reset_drops = True

    def role(self, item: dict[str, Any]) -> str | None:
        """Return the item's own role. The rules use pi's words."""
        role = item.get("role")
        return role if isinstance(role, str) else None

    def text(self, item: dict[str, Any]) -> str:
        """Return the text of the content, of a summary, or of a command and its output."""
        if item.get("role") == "bashExecution":
            said = (item.get("command"), item.get("output"))
            return "\n".join(part for part in said if isinstance(part, str))
        if item.get("role") in ("branchSummary", "compactionSummary"):
            return joined_text(item.get("summary"))
        return joined_text(item.get("content"), "text")

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
            "role": "compactionSummary",
            "summary": entry.get("summary"),
            "tokensBefore": entry.get("tokensBefore"),
            "timestamp": ms_from_iso(entry.get("timestamp")),
        }


PI: Final = Pi()
