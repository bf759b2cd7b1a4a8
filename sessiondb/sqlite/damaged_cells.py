"""The rows on the pages of a damaged file.

A long row continues on a chain of pages. A row's number is believed if it fits in between its
neighbours' numbers.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Final

from sessiondb.limits import ENTRY_BYTES_MAX

from .damaged_pages import Pages
from .file_format import (
    INDEX_INTERIOR,
    LEAF,
    BadCell,
    Value,
    cell_places,
    decode_all,
    local_bytes,
    record_sizes,
    signed,
    varint,
)

# The largest text that the library accepts, with room for the other columns.
_ROW_BYTES_MAX: Final = 2 * ENTRY_BYTES_MAX
_DOUBT: Final = "its chain of pages leads into another row's"


class Cells:
    """Reads the rows of a file's pages."""

    def __init__(self, pages: Pages, columns_max: int) -> None:
        self._pages, self._columns_max = pages, columns_max

    def _overflow(self, owner: int, first: int, missing: int) -> tuple[bytes, str]:
        """Read the rest of a row from its chain of pages. Return it, and what is wrong with it.

        The map says for each page of a chain which page comes before it. If it disagrees, the
        map or the chain is damaged. The text itself has to show which.
        """
        parts: list[bytes] = []
        chain: set[int] = set()
        number, before, doubt = first, (3, owner), ""
        while missing > 0:
            page = (
                self._pages.page(number)
                if self._pages.in_range(number) and number not in chain
                else None
            )
            if page is None:
                return b"".join(parts), "its chain of pages is broken"
            if self._pages.pointer(number) not in (None, before):
                doubt = _DOUBT
            chain.add(number)
            part = page[4 : min(self._pages.usable, 4 + missing)]
            parts.append(part)
            missing -= len(part)
            before, number = (4, number), struct.unpack(">I", page[:4])[0]
        if not doubt:
            for number in chain:
                self._pages.seen[number] = 1
        return b"".join(parts), doubt

    def _record(self, page: bytes, number: int, at: int, total: int, *, table: bool) -> list[Value]:
        """Read the record at `at`.

        Raises:
            BadCell: there is no whole record. The error holds what could be read.
        """
        if not 0 < total <= min(_ROW_BYTES_MAX, (self._pages.count + 1) * self._pages.page_size):
            raise BadCell("its length is not that of a row")
        local = local_bytes(self._pages.usable, total, table=table)
        if at + local + (4 if local < total else 0) > self._pages.usable:
            raise BadCell("it runs past the end of its page")
        header, serials = record_sizes(page[: at + local], at, total, self._columns_max)
        data, problem = page[at : at + local], ""
        if local < total:
            [first] = struct.unpack(">I", page[at + local : at + local + 4])
            rest, problem = self._overflow(number, first, total - local)
            data += rest
        values, bad = decode_all(data, header, serials)
        if problem == _DOUBT and not bad and _is_json(values[-1]):
            problem = ""
        if problem or bad:
            raise BadCell(problem or bad, record=values)
        return values

    def _row_cell(self, page: bytes, number: int, at: int) -> tuple[int, list[Value]]:
        """Read a row of a table with row numbers: its number and its columns."""
        total, at = varint(page, at)
        key, at = varint(page, at)
        key = signed(key)
        try:
            return key, self._record(page, number, at, total, table=True)
        except BadCell as error:
            error.key = key
            raise

    def row_leaf(
        self, page: bytes, number: int, low: int | None, high: int | None
    ) -> Iterator[tuple[int | None, list[Value] | BadCell]]:
        """Yield the rows of a leaf in order, each with its number.

        A number that breaks the order is not believed.
        """
        cells: list[tuple[int | None, list[Value] | BadCell]] = []
        for at in cell_places(page, number, self._pages.usable):
            if at < 0:
                cells.append((None, BadCell("its place lies outside of its page")))
                continue
            try:
                cells.append(self._row_cell(page, number, at))
            except BadCell as error:
                cells.append((error.key, error))
        inside = [
            key is not None and (low is None or low < key) and (high is None or key <= high)
            for key, _ in cells
        ]
        # If most rows of a page lie outside of its bounds, then the bounds are wrong.
        if sum(inside) * 2 < len(inside):
            inside = [key is not None for key, _ in cells]
        trusted = _rising(
            [
                key if ok and not isinstance(cell, BadCell) else None
                for (key, cell), ok in zip(cells, inside, strict=True)
            ]
        )
        for index, (key, cell) in enumerate(cells):
            if isinstance(cell, BadCell):
                yield _only_between(cells, trusted, index, key), cell
            elif trusted[index]:
                yield key, cell
            else:
                # If one number is free between its neighbours', it can only be that one.
                yield _only_between(cells, trusted, index, None), cell

    def is_filled(self, page: bytes, number: int) -> bool:
        """Tell whether a page's rows and gaps fill it.

        If not, its count of rows is damaged, and some rows are not found. This is SQLite's own
        rule: behind the place where the rows begin there are only rows, gaps in a chain, and as
        many odd bytes as the header says.
        """
        kind, head = page[0], 12 if page[0] == INDEX_INTERIOR else 8
        [gap, count, content] = struct.unpack(">3H", page[1:7])
        filled = page[7]
        try:
            for at in cell_places(page, number, self._pages.usable):
                filled += self._cell_bytes(page, at, kind)
        except BadCell:
            return True  # the row itself is reported
        for _ in range(self._pages.usable // 4):
            if not 0 < gap <= self._pages.usable - 4:
                break
            gap, size = struct.unpack(">2H", page[gap : gap + 4])
            filled += size
        content = content or 65536
        return bool(filled == self._pages.usable - content and head + 2 * count <= content)

    def _cell_bytes(self, page: bytes, at: int, kind: int) -> int:
        """Return how many bytes of its page a row takes.

        Raises:
            BadCell: the row's length cannot be read.
        """
        if at < 0:
            raise BadCell("its place lies outside of its page")
        start = at
        total, at = varint(page, at + (4 if kind == INDEX_INTERIOR else 0))
        if kind == LEAF:
            _, at = varint(page, at)
        if total < 0:
            raise BadCell("its length is not that of a row")
        local = local_bytes(self._pages.usable, total, table=kind == LEAF)
        return max(4, at - start + local + (4 if local < total else 0))

    def index_cells(self, page: bytes, number: int) -> Iterator[list[Value] | BadCell]:
        """Yield the rows of an index or a WITHOUT ROWID table. Inner pages hold rows, too."""
        inner = page[100 if number == 1 else 0] == INDEX_INTERIOR
        for at in cell_places(page, number, self._pages.usable):
            try:
                if at < 0:
                    raise BadCell("its place lies outside of its page")
                total, start = varint(page, at + (4 if inner else 0))
                yield self._record(page, number, start, total, table=False)
            except BadCell as error:
                yield error

    def children(
        self, page: bytes, number: int, low: int | None, high: int | None, *, table: bool
    ) -> list[tuple[int, int | None, int | None]]:
        """Return the children of an inner page, with the bounds of their keys, in order."""
        head = 100 if number == 1 else 0
        found: list[tuple[int, int | None, int | None]] = []
        for at in cell_places(page, number, self._pages.usable):
            if not 0 <= at <= self._pages.usable - 5:
                continue
            [child] = struct.unpack(">I", page[at : at + 4])
            key: int | None = None
            if table:
                try:
                    key = signed(varint(page, at + 4)[0])
                except BadCell:
                    key = None
            found.append((child, low, key))
            low = key
        found.append((struct.unpack(">I", page[head + 8 : head + 12])[0], low, high))
        return found


def _is_json(value: Value) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


def _rising(keys: list[int | None]) -> list[bool]:
    """Mark the longest rising run of keys. With one key damaged, it is all the others."""
    tails: list[int] = []
    ends: list[int] = []
    previous: list[int] = [-1] * len(keys)
    for index, key in enumerate(keys):
        if key is None:
            continue
        place = bisect_left(tails, key)
        previous[index] = ends[place - 1] if place else -1
        if place == len(tails):
            tails.append(key)
            ends.append(index)
        else:
            tails[place], ends[place] = key, index
    kept = [False] * len(keys)
    at = ends[-1] if ends else -1
    while at >= 0:
        kept[at] = True
        at = previous[at]
    return kept


def _only_between(cells: list[Any], trusted: list[bool], index: int, key: int | None) -> int | None:
    """Return a row's number.

    If its neighbours leave only one number, return that one. Otherwise return its own number,
    or None if that is not between them.
    """
    before = next((n for n in range(index - 1, -1, -1) if trusted[n]), None)
    after = next((n for n in range(index + 1, len(cells)) if trusted[n]), None)
    if before is not None and after is not None:
        low, high = cells[before][0], cells[after][0]
        if high - low == after - before:
            return int(low) + index - before
        return key if key is not None and low < key < high else None
    return key
