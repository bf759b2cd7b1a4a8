"""The format of pi and OpenClaw: the messages of their session files.

Sources: pi `packages/ai/src/types.ts` and `coding-agent/src/core/messages.ts`.
"""

from __future__ import annotations

from typing import Any, Final

from .base import ASSISTANT, RESULT, CallId, Format, blocks, call_id, joined_text

_FAILED: Final = ("error", "aborted")


class Pi(Format):
    """Calls are blocks of a reply. Each result is a message of its own."""

    name = "pi"

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


PI: Final = Pi()
