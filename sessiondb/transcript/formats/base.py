"""What each message format says of an item: the shared protocol.

An item is one decoded message, as an application appends it and as its provider takes it
back. The rules (the cut, the reset, the estimates) know no format. They ask these
questions, and an item of any format has an answer to each.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, ClassVar, Final

CallId = Hashable
"""The id that ties a tool call to its result, as a key of a dict or set."""

USER: Final = "user"
ASSISTANT: Final = "assistant"
RESULT: Final = "toolResult"


class Format(ABC):
    """One message format. It holds no state: each question is about one item."""

    name: ClassVar[str]

    @abstractmethod
    def role(self, item: dict[str, Any]) -> str | None:
        """Return who speaks, in the words of the rules: `user`, `assistant`, `toolResult`, ...

        A role that the rules do not know is returned as it is.
        """

    @abstractmethod
    def text(self, item: dict[str, Any]) -> str:
        """Return what a person would read of an item: its texts, without calls and images."""

    @abstractmethod
    def opens(self, item: dict[str, Any]) -> list[CallId]:
        """Return the ids of the tool calls that an item makes, in order."""

    @abstractmethod
    def closes(self, item: dict[str, Any]) -> list[CallId]:
        """Return the ids of the tool calls whose results an item holds, in order."""

    @abstractmethod
    def is_usable(self, item: dict[str, Any]) -> bool:
        """Tell whether a reply neither failed nor was aborted. With no open call it is an answer.

        Asked only about items of role `assistant`.
        """


def call_id(value: Any) -> CallId:
    """Return an id that can be a key: of one that is no plain value, its JSON text."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def blocks(item: dict[str, Any], name: str = "content") -> list[dict[str, Any]]:
    """Return the blocks of a content that is a list. A content that is a text has none."""
    content = item.get(name)
    if not isinstance(content, list):
        return []
    return [block for block in content if isinstance(block, dict)]


def joined_text(content: Any, *types: str) -> str:
    """Return a content's text: itself, or that of its blocks of these types, a line each."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (
        block.get("text")
        for block in content
        if isinstance(block, dict) and block.get("type") in types
    )
    return "\n".join(text for text in texts if isinstance(text, str))
