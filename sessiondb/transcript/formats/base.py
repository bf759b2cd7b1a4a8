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

from sessiondb.transcript.tokens import tokens_of
from sessiondb.words import (
    MessageFormat,
)

CallId = Hashable
"""The id that ties a tool call to its result, as a key of a dict or set."""

USER: Final = "user"
ASSISTANT: Final = "assistant"
RESULT: Final = "toolResult"

SUMMARY_INTRODUCTION: Final = (
    "The conversation up to here was replaced by this summary, to make room for more of it:"
)
"""What a summary says of itself, in a format that has no message for summaries."""

OWN_FIELDS: Final = frozenset({"idempotencyKey", "excludeFromContext", "timestamp"})
"""Fields of a message that sessiondb or its callers add. No provider's format has them."""


class Format(ABC):
    """One message format. It holds no state: each question is about one item."""

    name: ClassVar[MessageFormat]
    bit: ClassVar[int]
    """Its bit in `session.formats`."""
    reply_in_parts: ClassVar[bool] = False
    """True: what a model says at once may be several items that follow each other."""
    result_roles: ClassVar[frozenset[str]] = frozenset({RESULT})
    """The roles (those of the rules) of items that may hold results of calls."""
    reset_drops: ClassVar[bool] = False
    """True: of what a reset keeps, only what users, models and tools said is sent."""

    @abstractmethod
    def role(self, item: dict[str, Any]) -> str | None:
        """Return who speaks, in the words of the rules: `user`, `assistant`, `toolResult`, ...

        A role that the rules do not know is returned as it is.
        """

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

    def goes_on(self, item: dict[str, Any]) -> bool:
        """Tell whether a reply without open calls is a part that the model's next item follows.

        Asked only if `reply_in_parts`.
        """
        del item
        return False

    @abstractmethod
    def usage(self, item: dict[str, Any]) -> int | None:
        """Return the provider's count of the context after a reply. None: it has no usable one."""

    @abstractmethod
    def chars(self, item: dict[str, Any]) -> int:
        """Return the weight of an item in characters, of which 4 make a token."""

    def tokens(self, item: dict[str, Any]) -> int:
        """Return the estimated tokens of an item: at least one."""
        return max(1, tokens_of(self.chars(item)))

    def sendable(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item as its provider takes it: without fields that are for others."""
        return item

    def summary(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return the item that stands for a compaction entry: a user message."""
        return {"role": USER, "content": summary_text(entry)}

    def edited(self, item: dict[str, Any], content: Any) -> dict[str, Any]:
        """Return an item with another content. Itself, if its format gives it none."""
        return {**item, "content": content} if "content" in item else item

    def opening(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the items with which a context begins at a compaction entry."""
        return [self.summary(entry)]


def summary_text(entry: dict[str, Any]) -> str:
    """Return the text of a summary for a format that has no message for summaries."""
    return f"{SUMMARY_INTRODUCTION}\n\n<summary>\n{entry.get('summary') or ''}\n</summary>"


def without(item: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return an item without some of its fields: itself, if it has none of them."""
    if names.isdisjoint(item):
        return item
    return {name: value for name, value in item.items() if name not in names}


def call_id(value: Any) -> CallId:
    """Return an id that can be a key: of one that is no plain value, its JSON text."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def blocks(item: dict[str, Any], name: str = "content") -> list[dict[str, Any]]:
    """Return the blocks of a content that is a list. A content that is a text has none."""
    content = item.get(name)
    if not isinstance(content, list):
        return []
    return [block for block in content if isinstance(block, dict)]


def count(value: Any) -> int:
    """Return a count of tokens that a provider reported. 0: it is no count."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 < value < 2**53 else 0  # NaN is in no range


def counted(item: dict[str, Any], total: str | None, parts: tuple[str, ...]) -> int | None:
    """Return what the field `usage` of an item says: its total, or else the sum of its parts."""
    usage = item.get("usage")
    if not isinstance(usage, dict):
        return None
    whole = count(usage.get(total)) if total is not None else 0
    return whole or sum(count(usage.get(part)) for part in parts) or None
