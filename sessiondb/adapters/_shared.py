"""What several adapters do: read entries in pages, have them summarised, show them.

A framework's message is kept as it is, in a field of a message of Anthropic's format that says the
same. So calls and results stay together in a compaction, and a list or a search shows the text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from sessiondb import CompactionResult, Entry, Session

__all__ = ["PAGE", "summarised", "text", "tool_result", "tool_use", "walk"]

PAGE = 1_000  # entries, and items of an `append_many`: the most of each
T = TypeVar("T")


async def walk(
    session: Session,
    *,
    types: str | None = None,
    after: Entry | None = None,
    newest_first: bool = False,
    page: int = PAGE,
) -> AsyncIterator[Entry]:
    """Yield the entries of the current path: those behind `after`, or all, newest first."""
    last = after
    while found := await session.entries(
        after=None if newest_first else last,
        before=last if newest_first else None,
        types=types,
        limit=page,
        newest_first=newest_first,
    ):
        for entry in found:
            yield entry
        last = found[-1]


async def summarised(
    session: Session,
    summarize: Callable[[list[T]], Awaitable[str]],
    of: Callable[[dict[str, Any]], T],
    options: dict[str, Any],
) -> CompactionResult:
    """Compact a session. `of` makes the framework's messages of those that are stored."""
    async with session.compact(**options) as job:
        return await job.commit(await summarize([of(message) for message in job.messages]))


def text(said: object) -> dict[str, Any]:
    """Return a block with a text."""
    return {"type": "text", "text": said}


def tool_use(call_id: object, name: object, arguments: object) -> dict[str, Any]:
    """Return a block with a call."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def tool_result(call_id: object, result: str) -> dict[str, Any]:
    """Return a block with the result of a call."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": result}
