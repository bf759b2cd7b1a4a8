"""Read a database file that SQLite may refuse to read, page by page: the source of every salvage.

SQLite stops at the first page that contradicts another. Here each page is believed as far as
possible. The leaves of a table are found along its tree. Pages that no tree leads to are
recognised by the pointer map, which says for each page whose child it is. Without a map, they
are recognised by the shape of their rows. So one bad page costs only its own rows, a destroyed
first page costs only the free list, and a lost schema is found again on its other pages.

The WAL is part of the database. Its frames are taken as SQLite takes them: those of whole
transactions, up to the first one whose checksum fails. Frames behind that point may never have
been part of the database, so they supply only rows that are found nowhere else. The -shm file
is never touched.

The file is opened once, locked against every other process (`exclusive_file.py`), and never
written. Memory holds one page, one row, two bytes per page of the file and one offset per page of
the WAL. No claim in the file is believed before it is compared with the file's size: a row cannot
be longer than all pages, a chain of pages that comes back to itself ends, and a tree visits a page
once.

Not modelled: text encodings other than UTF-8, and a rollback journal (sessiondb's files are in
WAL mode from the start). A flipped bit inside a text leaves it a text. SQLite's pages carry no
checksum, so this cannot be detected.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from sessiondb.errors import NewerSchema, NotASessionDB, OpenError, StoreFailed

from .connection import is_open_here
from .damaged_cells import Cells
from .damaged_pages import Pages, page_size_of
from .damaged_wal import Wal, read_wal
from .exclusive_file import ExclusiveFile
from .file_format import (
    AMBIGUOUS,
    BTREE_PTR,
    DEPTH_MAX,
    EVIDENCE,
    INDEX,
    INDEX_INTERIOR,
    INDEX_LEAF,
    INTERIOR,
    LEAF,
    MAGIC,
    TABLES,
    BadCell,
    Shape,
    Value,
    name_values,
    shapes,
)
from .schema import APPLICATION_ID, SCHEMA_VERSION
from .wal_link import is_foreign_wal

_MISFIT: Final = "its columns are not those of its table"
# Pages that are reported one by one. More are only counted.
_SPOTS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Found:
    """A row that could be read."""

    table: str
    values: dict[str, Value]
    stray: bool
    """On a page that no tree leads to, or in the WAL behind its damage. Rows of trees go first."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that could not be read whole."""

    table: str
    page: int
    reason: str
    key: int | None
    values: dict[str, Value]
    """The columns that could be read."""


@dataclass(frozen=True, slots=True)
class Known:
    """A row that an index names."""

    table: str
    values: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Spot:
    """A page that could not be read. It may have held rows after `low`, up to `high`."""

    page: int
    table: str | None
    low: int | None
    high: int | None
    reason: str


@dataclass(slots=True)
class _Tree:
    """One table's tree while it is walked."""

    shape: Shape | None
    root: int


def _continues_another(path: str) -> bool:
    """Tell whether the WAL's names say that it is another database's."""
    try:
        return not is_open_here(path) and is_foreign_wal(path)
    except (OpenError, StoreFailed):
        return False  # the names cannot be read. First process and first session may tell


class DamagedFile:
    """A database file, whatever its state. Use it as a context manager."""

    def __init__(self, path: str, *, use_wal: bool = True) -> None:
        self.path = path
        self.notes: list[str] = []
        self.spots: list[Spot] = []
        self.spots_more = 0
        self.shapes = shapes()
        # Before the lock, which SQLite's descriptor would take along when it is closed.
        self._wal_continues_another = _continues_another(path)
        self._lock = ExclusiveFile(path)
        try:
            self._open(use_wal=use_wal)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. May be repeated."""
        wal, lock = getattr(self, "wal", None), self.__dict__.pop("_lock", None)
        if wal is not None and wal.fd is not None:
            os.close(wal.fd)
            wal.fd = None
        if lock is not None:
            lock.close()

    def _open(self, *, use_wal: bool) -> None:
        self.bytes = os.fstat(self._lock.fd).st_size
        self.page_size = page_size_of(self._lock.fd, self.bytes, self.notes)
        self.wal = read_wal(self.path, self.page_size) if use_wal else Wal(state="ignored")
        self._pages = Pages(self._lock.fd, self.bytes, self.page_size, self.wal)
        self.count = self._pages.count
        if self.count == 0 and not self.wal.loose:
            raise NotASessionDB(
                f"{self.path}: the file holds no whole page ({self.bytes} bytes), "
                "so there is nothing to salvage. Check the path."
            )
        if self.bytes % self.page_size and self.wal.size is None:
            in_file = self.bytes // self.page_size
            self.notes.append(f"the file ends in the middle of page {in_file + 1}: it was cut off")
        columns_max = max(len(shape.columns) for shape in self.shapes.values())
        self._cells = Cells(self._pages, columns_max)
        self._roots = self._read_schema()
        self._refuse_strangers()
        if self._is_foreign_wal():
            self._leave_wal_out()
            return
        self._tables = {self._roots[name]: name for name in TABLES if name in self._roots}

    def _is_older(self) -> bool:
        """Tell whether an older sessiondb wrote the file. It lacks tables that came later."""
        return (
            self._pages.first is not None
            and 0 < int.from_bytes(self._pages.first[60:64], "big") < SCHEMA_VERSION
        )

    def _refuse_strangers(self) -> None:
        """Refuse a file with a sound header of another program, or of a newer sessiondb."""
        first = self._pages.first
        if first is None or first[:16] != MAGIC:
            return
        version, application = (
            struct.unpack(">I", first[60:64])[0],
            struct.unpack(">I", first[68:72])[0],
        )
        if application == APPLICATION_ID:
            if SCHEMA_VERSION < version < SCHEMA_VERSION + 1_000:
                raise NewerSchema(
                    f"{self.path}: written by a newer sessiondb (schema {version}, and this one "
                    f"knows up to {SCHEMA_VERSION}). Upgrade sessiondb.",
                    found=version,
                    known=SCHEMA_VERSION,
                )
            return
        if self._roots and not {"session", "entry"} & self._roots.keys():
            names = ", ".join(sorted(self._roots)[:4])
            raise NotASessionDB(
                f"{self.path}: this is a SQLite database of another program, "
                f"with the tables {names}. Check the path."
            )

    def _is_foreign_wal(self) -> bool:
        """Tell whether the WAL came from another database.

        Then its name does not occur in it (`wal_link.py`). Or its first process and its
        first session are not the file's.
        """
        if self._wal_continues_another:
            return bool(self.wal.pages)
        pages = self.wal.pages
        if not pages:
            return False
        with_wal = self._identity()
        self.wal.pages = {}
        without = self._identity()
        self.wal.pages = pages
        # One value that differs may be damaged. Two are not damaged by chance.
        return (
            sum(
                None not in pair and pair[0] != pair[1]
                for pair in zip(with_wal, without, strict=True)
            )
            >= 2
        )

    def _identity(self) -> tuple[Value, ...]:
        """Return values that differ between databases and never change in one.

        They are the process that opened it first, when it did, and the first session.
        """
        first = self._first_row("instance") or {}
        session = self._first_row("session") or {}
        if first.get("instance_no") != 1:
            first = {}
        opened = (first.get("pid"), first.get("pid_started"), first.get("opened_at_ms"))
        return (*opened, session.get("session_id"), session.get("created_at_ms"))

    def _first_row(self, name: str) -> dict[str, Value] | None:
        number = self._roots.get(name, 0)
        for _ in range(DEPTH_MAX):
            page = self._pages.page(number) if self._pages.in_range(number) else None
            if page is None or page[0] not in (LEAF, INTERIOR):
                return None
            if page[0] == LEAF:
                cells = self._cells.row_leaf(page, number, None, None)
                rows = (
                    name_values(self.shapes[name], key, cell)
                    for key, cell in cells
                    if not isinstance(cell, BadCell)
                )
                return next(rows, None)
            number = self._cells.children(page, number, None, None, table=True)[0][0]
        return None

    def _leave_wal_out(self) -> None:
        """Open again without the WAL."""
        assert self.wal.fd is not None
        os.close(self.wal.fd)
        note = (
            "the -wal beside the file is another database's, so it was left out: it does not "
            "continue this file, or its first process and its first session are not this one's"
        )
        self.notes = [note]
        self.spots.clear()
        self._open(use_wal=False)
        self.wal.state = "foreign"

    # -- trees

    def _leaves(self, tree: _Tree) -> Iterator[tuple[int, bytes, int | None, int | None]]:
        """Yield the pages of a tree that hold rows, in order, each once.

        Pages that cannot be read are reported.
        """
        name = tree.shape.name if tree.shape is not None else None
        table = tree.shape is None or tree.shape.key is not None
        stack: list[tuple[int, int | None, int | None, int]] = [(tree.root, None, None, 0)]
        while stack:
            number, low, high, parent = stack.pop()
            if not self._pages.in_range(number) and (number, parent) != (1, 0):
                self._spot(number, name, low, high, "the number of no page")
                continue
            if self._pages.seen[number]:
                self._spot(number, name, low, high, "it belongs to another tree")
                continue
            page = self._pages.page(number)
            kind = page[100 if number == 1 else 0] if page is not None else None
            wanted = (LEAF, INTERIOR) if table else (INDEX_LEAF, INDEX_INTERIOR)
            if page is None or kind not in wanted or self._foreign(page, number, parent, low, high):
                self._spot(
                    number,
                    name,
                    low,
                    high,
                    "it cannot be read"
                    if page is None
                    else f"it is not a page of {name or 'this tree'}",
                )
                continue
            self._pages.seen[number] = 1
            if kind in (LEAF, INDEX_LEAF, INDEX_INTERIOR):
                yield number, page, low, high
            if kind in (INTERIOR, INDEX_INTERIOR):
                children = self._cells.children(page, number, low, high, table=table)
                stack += [(child, first, last, number) for child, first, last in reversed(children)]

    def _foreign(
        self, page: bytes, number: int, parent: int, low: int | None, high: int | None
    ) -> bool:
        """Tell whether a page belongs to another tree, because its parent's pointer is damaged.

        The map says whose child a page is. If it disagrees, the map may be the damaged one. Then
        the page's own keys decide.
        """
        pointer = self._pages.pointer(number)
        if pointer is None or parent == 0 or pointer == (BTREE_PTR, parent):
            return False
        if page[0] == LEAF and (low is not None or high is not None):
            keys = [
                key for key, _ in self._cells.row_leaf(page, number, None, None) if key is not None
            ]
            inside = sum(
                (low is None or low < key) and (high is None or key <= high) for key in keys
            )
            return inside * 2 <= len(keys)
        return pointer[0] != BTREE_PTR or self._pages.root_of(number) != self._pages.root_of(parent)

    def _spot(
        self, page: int, table: str | None, low: int | None, high: int | None, reason: str
    ) -> None:
        if len(self.spots) < _SPOTS_MAX:
            self.spots.append(Spot(page, table, low, high, reason))
        else:
            self.spots_more += 1

    # -- the schema

    def _read_schema(self) -> dict[str, int]:
        """Return the first page of every table and index that the schema names.

        The schema is read along its tree. If that is incomplete, its rows are searched for on
        every page.
        """
        roots: dict[str, int] = {}
        if self._pages.first is not None and self._pages.first[100] in (LEAF, INTERIOR):
            for number, page, low, high in self._leaves(_Tree(None, 1)):
                cells = [cell for _, cell in self._cells.row_leaf(page, number, low, high)]
                for cell in cells:
                    self._add_root(roots, cell)
                if not any(not isinstance(cell, BadCell) and len(cell) == 5 for cell in cells):
                    # A page of the schema was overwritten with one that leads into another tree.
                    self._pages.seen[number] = 0
        self.spots.clear()
        if roots.keys() >= set(TABLES) or (
            self._pages.has_sound_header()
            and self._is_older()
            and {"session", "entry"} <= roots.keys()
        ):
            return roots
        self.notes.append(
            "the schema cannot be read to its end, so the rest of it was searched for on every page"
        )
        for number in range(2, self.count + 1):
            stray = self._pages.stray(number)
            if stray is not None and stray[0] == LEAF:
                found = dict(roots)
                for _, cell in self._cells.row_leaf(stray, number, None, None):
                    self._add_root(found, cell)
                if len(found) > len(roots):
                    roots = found | roots
                    self._pages.seen[number] = 1
        return roots

    def _add_root(self, roots: dict[str, int], cell: list[Value] | BadCell) -> None:
        if isinstance(cell, BadCell) or len(cell) != 5:
            return
        kind, name, owner, root, sql = cell
        if (
            kind not in ("table", "index")
            or not isinstance(name, str)
            or not isinstance(owner, str)
            or not isinstance(root, int)
        ):
            return
        if self._pages.in_range(root) and (sql is None or isinstance(sql, str)):
            roots.setdefault(name, root)

    # -- rows

    def rows(self) -> Iterator[Found | Broken]:
        """Yield every row of the known tables.

        They come along the trees first, then from pages that no tree leads to, then from the
        rest of the WAL.
        """
        for name in TABLES:
            if name in self._roots:
                yield from self._tree_rows(name)
        spots, more = list(self.spots), self.spots_more
        for name, root in self._roots.items():
            if name not in self.shapes and not self._pages.seen[root]:
                self._mark_index(root)
        self.spots, self.spots_more = (
            spots,
            more,
        )  # indexes are built anew, so damage to one is no loss
        for number in range(2, self.count + 1):
            stray = self._pages.stray(number)
            if stray is not None:
                yield from self._stray_rows(stray, number)
        for offset in self.wal.loose:
            assert self.wal.fd is not None
            loose = os.pread(self.wal.fd, self.page_size, offset)
            if len(loose) == self.page_size:
                yield from self._rows_by_shape(loose)

    def evidence(self) -> Iterator[Known]:
        """Yield the rows that indexes name, read or not. Single records may be damaged."""
        spots, more, seen = list(self.spots), self.spots_more, self._pages.seen
        for name, (table, columns) in EVIDENCE.items():
            if name not in self._roots:
                continue
            self._pages.seen = bytearray(self.count + 1)
            for number, page, _, _ in self._leaves(_Tree(INDEX, self._roots[name])):
                for cell in self._cells.index_cells(page, number):
                    if not isinstance(cell, BadCell) and len(cell) == len(columns):
                        yield Known(table, dict(zip(columns, cell, strict=True)))
        self.spots, self.spots_more, self._pages.seen = spots, more, seen

    def _tree_rows(self, name: str) -> Iterator[Found | Broken]:
        shape = self.shapes[name]
        for number, page, low, high in self._leaves(_Tree(shape, self._roots[name])):
            rows = list(self._page_rows(shape, page, number, low, high, stray=False))
            if not self._cells.is_filled(page, number):
                self._spot(
                    number,
                    name,
                    low,
                    high,
                    "its rows do not fill it, so there may be more than it counts",
                )
            if sum(isinstance(row, Broken) and row.reason == _MISFIT for row in rows) * 2 > len(
                rows
            ):
                # An inner page was overwritten with one of another tree, and leads here. The page
                # is read again along its own tree.
                self._pages.seen[number] = 0
                self._spot(number, name, low, high, "its rows are another table's")
            else:
                yield from rows

    def _page_rows(
        self,
        shape: Shape,
        page: bytes,
        number: int,
        low: int | None,
        high: int | None,
        *,
        stray: bool,
    ) -> Iterator[Found | Broken]:
        in_index = ((None, cell) for cell in self._cells.index_cells(page, number))
        for key, cell in (
            self._cells.row_leaf(page, number, low, high) if shape.key is not None else in_index
        ):
            if isinstance(cell, BadCell):
                yield Broken(
                    shape.name, number, str(cell), key, name_values(shape, key, cell.record or [])
                )
            elif shape.key is not None and key is None:
                yield Broken(
                    shape.name,
                    number,
                    "its number is not between its neighbours'",
                    None,
                    name_values(shape, None, cell),
                )
            elif not shape.fits(cell):
                yield Broken(shape.name, number, _MISFIT, key, name_values(shape, key, cell))
            else:
                yield Found(shape.name, name_values(shape, key, cell), stray)

    def _mark_index(self, root: int) -> None:
        """Mark the pages of an index, so that they are not taken for a table's."""
        kind = (self._pages.page(root) or b"\0")[0]
        shape = None if kind in (LEAF, INTERIOR) else INDEX
        for number, page, _, _ in self._leaves(_Tree(shape, root)):
            if shape is not None:
                for _ in self._cells.index_cells(page, number):
                    pass  # reading a long key also marks the pages of its chain

    def _stray_rows(self, page: bytes, number: int) -> Iterator[Found | Broken]:
        root = self._pages.root_of(number)
        name = self._tables.get(root) if root is not None else None
        if name is None:
            # A page of an index that the schema names has no rows of its own. Any other page is
            # judged by its rows, because the map may be damaged itself.
            if root is None or root not in self._roots.values():
                yield from self._rows_by_shape(page)
            return
        shape = self.shapes[name]
        leaf = LEAF if shape.key is not None else INDEX_LEAF
        if page[0] in (LEAF, INTERIOR, INDEX_LEAF, INDEX_INTERIOR):
            if page[0] == leaf or (shape.key is None and page[0] == INDEX_INTERIOR):
                yield from self._page_rows(shape, page, number, None, None, stray=True)
            return
        # By the map it is a table's page, and its first byte denies it. It is a leaf, if most of
        # it reads as one.
        found = list(
            self._page_rows(shape, bytes([leaf]) + page[1:], number, None, None, stray=True)
        )
        if sum(isinstance(row, Found) for row in found) * 2 > len(found):
            yield from found

    def _rows_by_shape(self, page: bytes) -> Iterator[Found | Broken]:
        """Yield the rows of a page whose table is unknown, if only one table can have such rows."""
        if page[0] == LEAF:
            cells = list(self._cells.row_leaf(page, 0, None, None))
        elif page[0] in (INDEX_LEAF, INDEX_INTERIOR):
            cells = [(None, cell) for cell in self._cells.index_cells(page, 0)]
        else:
            return
        good = [
            (key, cell)
            for key, cell in cells
            if not isinstance(cell, BadCell) and (key is not None or page[0] != LEAF)
        ]
        candidates = [
            shape for shape in self.shapes.values() if (shape.key is not None) == (page[0] == LEAF)
        ]
        fitting = [
            shape
            for shape in candidates
            if shape.name not in AMBIGUOUS and good and all(shape.fits(cell) for _, cell in good)
        ]
        # Rows of an older schema are shorter. Of several tables, choose one whose rows are whole.
        whole = [
            shape for shape in fitting if all(len(cell) == len(shape.columns) for _, cell in good)
        ]
        chosen = whole or fitting
        if len(chosen) == 1 and (
            chosen[0].name != "lane" or _are_lanes([cell for _, cell in good])
        ):
            for key, cell in good:
                yield Found(chosen[0].name, name_values(chosen[0], key, cell), True)


def _are_lanes(cells: list[list[Value]]) -> bool:
    """Tell whether rows that look like lanes are lanes.

    Indexes that begin with a lane or a channel have the same types. A lane has all columns, a
    place at least, and a flag at the end. Those of older releases have no flag. Nothing tells
    them from an index's rows, so both are left out: the places that a new lane has are better
    than a session's number.
    """
    return all(
        len(cell) == 4 and isinstance(cell[1], int) and cell[1] >= 1 and cell[3] in (0, 1)
        for cell in cells
    )
