"""A long list, read a page at a time. Each page is a short snapshot. None is held between two.

A page ends at a number of rows, or where its rows have `PAGE_BYTES` of memory, whichever comes
first. It has one row at least. So a page takes no more memory than that and one row, and a list
of large texts has pages of few rows. The next page begins right behind the last row. A page that
is shorter than its limit is therefore not the last one: `Page.more` tells.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from .limits import PAGE_BYTES, PAGE_ROWS

T = TypeVar("T")
C = TypeVar("C")
S = TypeVar("S")
X = TypeVar("X")
R = TypeVar("R", bound=Sequence[Any])


class Page(NamedTuple, Generic[T]):
    """The rows of one page, and whether others may follow them."""

    rows: list[T]
    more: bool
    """False: nothing follows. True: the page was full, and the next one may be empty."""


def fill(rows: Iterator[R], limit: int, bytes_max: int) -> Page[R]:
    """Take rows until a page is full. `rows` yields `limit` at most, each read when asked for."""
    taken: list[R] = []
    size = 0
    for row in rows:
        taken.append(row)
        size += memory_of(row)
        if size >= bytes_max:
            return Page(taken, more=True)
    return Page(taken, more=0 < limit <= len(taken))


def memory_of(row: Sequence[Any]) -> int:
    """Return the bytes of memory that a row's values take.

    A text takes one byte for each character if all are Latin letters, else two or four.
    """
    return sum(map(sys.getsizeof, row))


def fill_from(spans: Iterable[S], read: Callable[[S, int, int], Page[R]], limit: int) -> Page[R]:
    """Fill one page from several spans, one after the other.

    `read` reads a page of one of them: the span, a number of rows and a number of bytes.
    """
    taken: list[R] = []
    room = PAGE_BYTES
    for span in spans:
        rows, full = read(span, limit - len(taken), room)
        taken += rows
        if full:
            return Page(taken, more=True)
        room -= sum(map(memory_of, rows))
    return Page(taken, more=False)


def handed_on(items: list[T]) -> Iterator[T]:
    """Yield the items of a page, and hold none of those that were yielded."""
    items.reverse()
    while items:
        yield items.pop()


async def read_pages(
    read: Callable[[str, Callable[[X], tuple[list[T], C | None]]], Awaitable[Any]],
    op: str,
    page: Callable[[X, C | None, int], tuple[list[T], C | None]],
    *,
    limit: int | None = None,
) -> AsyncIterator[T]:
    """Yield the items of a list, `limit` at most. Read no more rows than are wanted.

    `page` reads one page: a cursor (None: from the start) and a number of rows to its items and
    the next cursor, which is None at the end. `read` runs it in a snapshot (`SessionDB.read`).
    """
    cursor: C | None = None
    wanted = limit
    while wanted is None or wanted > 0:
        rows = PAGE_ROWS if wanted is None else min(wanted, PAGE_ROWS)
        items, cursor = await read(op, _reading(page, cursor, rows))
        if wanted is not None:
            wanted -= len(items)
        for item in handed_on(items):
            yield item
        if cursor is None:
            return


def _reading(
    page: Callable[[X, C | None, int], tuple[list[T], C | None]], cursor: C | None, limit: int
) -> Callable[[X], tuple[list[T], C | None]]:
    return lambda tx: page(tx, cursor, limit)
