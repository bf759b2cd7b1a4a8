"""A long list, read a page at a time. Each page is a short snapshot. None is held between two."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from .backend import Database, ReadTx
from .limits import PAGE_ROWS

T = TypeVar("T")
C = TypeVar("C")

Page = Callable[[ReadTx, C | None, int], tuple[list[T], C | None]]
"""A rule that reads one page: (tx, cursor, limit) to items and the next cursor, None at the end."""


async def read_pages(
    db: Database, op: str, page: Page[C, T], *, limit: int | None = None
) -> AsyncIterator[T]:
    """Yield the items of a list, `limit` at most. Read no more rows than are wanted."""
    cursor: C | None = None
    wanted = limit
    while wanted is None or wanted > 0:
        rows = PAGE_ROWS if wanted is None else min(wanted, PAGE_ROWS)
        items, cursor = await db.read(op, _reading(page, cursor, rows))
        for item in items:
            yield item
        if cursor is None:
            return
        if wanted is not None:
            wanted -= rows


def _reading(
    page: Page[C, T], cursor: C | None, limit: int
) -> Callable[[ReadTx], tuple[list[T], C | None]]:
    return lambda tx: page(tx, cursor, limit)
