"""The layout of SQLite's file: numbers, records, pages, and the shapes of sessiondb's rows.

Pure functions over bytes. Sizes are in bytes, places count from the start of a page, and page
numbers from 1. https://sqlite.org/fileformat2.html describes the format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import apsw

from .schema import schema_text

Value = int | float | str | bytes | None

MAGIC: Final = b"SQLite format 3\x00"
# The first byte of a tree's page, and the kinds of page in a pointer map.
LEAF, INTERIOR, INDEX_LEAF, INDEX_INTERIOR = 13, 5, 10, 2
ROOT_PTR, FREE_PTR, BTREE_PTR = 1, 2, 5
# SQLite locks the pending byte, the reserved byte and 510 shared ones. The page that holds
# them is never used.
LOCK_BYTE, LOCK_BYTES = 0x40000000, 512
# The tree of a 140 TB database is no deeper.
DEPTH_MAX: Final = 32


# The order of reading: a row comes after the rows that it refers to, where that is possible.
TABLES: Final = (
    "instance",
    "wal_link",
    "session",
    "binding",
    "foreign_id",
    "session_details",
    "named_details",
    "branch",
    "epoch",
    "entry",
    "compaction",
    "import_file",
    "quarantine",
    "lane",
    "turn",
    "inbox",
    "outbox",
    "channel_pause",
    "event",
    "event_cursor",
    "archive",
    "archive_chunk",
    "sqlite_sequence",
)
# Without a schema, rows are recognised by the types of their columns. Where those of two
# tables are alike, the values that this column may have tell the tables apart.
_TELLING: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "session": ("origin", frozenset({"native", "import", "fork"})),
    "epoch": (
        "reason",
        frozenset({"start", "compaction", "reset", "branch", "undo", "fork", "edit"}),
    ),
    "event": ("audience", frozenset({"operator", "user"})),
    "quarantine": ("severity", frozenset({"blank", "damaged", "early"})),
    "sqlite_sequence": ("name", frozenset(TABLES)),
    "turn": ("kind", frozenset({"message", "resume"})),
    "archive": ("encoding", frozenset({"zstd", "zlib", "none"})),
    "archive_chunk": (
        "what",
        frozenset({"session", "binding", "branch", "epoch", "entry", "whole"}),
    ),
}
# Indexes name rows of a table whose own pages may be lost. These are their columns.
EVIDENCE: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "sqlite_autoindex_session_1": ("session", ("session_id", "session_no")),
    "entry_by_id": ("entry", ("session_no", "entry_id", "entry_no")),
    "sqlite_autoindex_inbox_1": ("inbox", ("channel", "event_id", "inbox_no")),
    "binding_by_session": ("binding", ("session_no", "session_key")),
}
# An index has rows of the same types as these tables. Without a schema the two cannot be
# told apart, so both are left out.
AMBIGUOUS: Final = frozenset({"event_cursor"})


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one table's rows: the columns in the order of the record, with their types."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    required: tuple[bool, ...]
    defaults: tuple[Value, ...]
    key: str | None
    """The column that is the row's number. "": none is. None: it has no number (WITHOUT ROWID)."""

    def fits(self, values: list[Value]) -> bool:
        """Tell whether a record could be a row of this table.

        Columns that were added later may be missing.
        """
        lacking = zip(self.required[len(values) :], self.defaults[len(values) :], strict=True)
        if len(values) > len(self.columns) or any(
            need and default is None for need, default in lacking
        ):
            return False
        for value, column, kind, need in zip(
            values, self.columns, self.types, self.required, strict=False
        ):
            if value is None:
                if need and column != self.key:
                    return False
            elif column == self.key or (kind and not isinstance(value, _PYTHON[kind])):
                return False
        telling = _TELLING.get(self.name)
        if telling is not None:
            at = self.columns.index(telling[0])
            return at < len(values) and values[at] in telling[1]
        return True


_PYTHON: Final[dict[str, type]] = {"INTEGER": int, "TEXT": str, "BLOB": bytes}


def shapes() -> dict[str, Shape]:
    """Return the shape of every table, taken from the present schema."""
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(schema_text()).fetchall()
        without_rowid = {
            name
            for (name, wr) in connection.execute("SELECT name, wr FROM pragma_table_list")
            if wr
        }
        return {
            name: _shape(connection, name, without_rowid=name in without_rowid) for name in TABLES
        }
    finally:
        connection.close(True)


def _shape(connection: apsw.Connection, name: str, *, without_rowid: bool) -> Shape:
    found: list[Any] = connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)', (name,)
    ).fetchall()
    if without_rowid:  # the columns of the key come first, in the order of the key
        found = [
            *sorted((row for row in found if row[4]), key=lambda row: row[4]),
            *(row for row in found if not row[4]),
        ]
    keys = [row[0] for row in found if row[4]]
    # A key of several columns is an index beside the rows, which have numbers of their own.
    key = None if without_rowid else keys[0] if len(keys) == 1 else ""
    return Shape(
        name,
        tuple(row[0] for row in found),
        tuple(row[1] for row in found),
        tuple(bool(row[2]) for row in found),
        tuple(int(row[3]) if row[3] is not None else None for row in found),
        key,
    )


INDEX: Final = Shape("an index", (), (), (), (), None)


class BadCell(Exception):
    """A row or a page contradicts its neighbours."""

    def __init__(self, reason: str, *, record: list[Value] | None = None) -> None:
        super().__init__(reason)
        self.key: int | None = None
        self.record = record


# -- numbers and records


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read SQLite's variable-length number. Return it and the place of the next byte.

    Raises:
        BadCell: the data end inside the number.
    """
    value = 0
    for step in range(9):
        if at >= len(data):
            raise BadCell("a number runs past the end of its page")
        byte = data[at]
        at += 1
        if step == 8:
            return signed(value << 8 | byte), at
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    raise AssertionError("a number has nine bytes at most")


def signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


FIXED: Final = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}


def record_sizes(data: bytes, at: int, total: int, columns_max: int) -> tuple[int, list[int]]:
    """Read a record's header. Return the place of the first value, and all serial types.

    Raises:
        BadCell: the types do not add up to `total` bytes, or there are more than `columns_max`.
    """
    header_bytes, at_type = varint(data, at)
    end = at + header_bytes
    if not at < end <= min(len(data), at + total):
        raise BadCell("a row's header runs past the row")
    serials: list[int] = []
    size = header_bytes
    while at_type < end:
        serial, at_type = varint(data, at_type)
        if serial in (10, 11) or serial < 0 or len(serials) >= columns_max:
            raise BadCell("a row's header names a type that does not exist")
        serials.append(serial)
        size += FIXED[serial] if serial < 12 else (serial - 12) // 2
    if at_type != end or size != total:
        raise BadCell("a row's columns do not add up to its length")
    return end - at, serials


def decode(data: bytes, at: int, serial: int) -> tuple[Value, int]:
    """Decode one value. Return it and the place of the next one.

    Raises:
        UnicodeDecodeError: the value is a text that is not UTF-8.
    """
    if serial >= 12:
        end = at + (serial - 12) // 2
        return (data[at:end].decode() if serial & 1 else data[at:end]), end
    if serial == 7:
        return struct.unpack(">d", data[at : at + 8])[0], at + 8
    if serial in (8, 9):
        return serial - 8, at
    size = FIXED[serial]
    return (int.from_bytes(data[at : at + size], "big", signed=True) if serial else None), at + size


def decode_all(data: bytes, at: int, serials: list[int]) -> tuple[list[Value], str]:
    """Decode the columns of a record. Return them, and what is wrong with the first bad one.

    A value that ends too early, or a text that is not UTF-8, is returned as bytes.
    """
    values: list[Value] = []
    bad = ""
    for serial in serials:
        end = at + (FIXED[serial] if serial < 12 else (serial - 12) // 2)
        if end > len(data):
            values.append(data[at:])
            at, bad = len(data), bad or "it ends too early"
            continue
        try:
            value, at = decode(data, at, serial)
        except UnicodeDecodeError:
            value, at, bad = data[at:end], end, bad or "a text of it is not UTF-8"
        values.append(value)
    return values, bad


def name_values(shape: Shape, key: int | None, record: list[Value]) -> dict[str, Value]:
    """Return a record's values by column. Columns that it lacks get their defaults."""
    values = dict(zip(shape.columns, [*record, *shape.defaults[len(record) :]], strict=False))
    if shape.key:
        values[shape.key] = key
    return values


# -- pages


def cell_places(page: bytes, number: int, usable: int) -> Iterator[int]:
    """Yield the place of each row of a page, or -1 for a place outside of the page."""
    head = 100 if number == 1 else 0
    first = head + (12 if page[head] in (INTERIOR, INDEX_INTERIOR) else 8)
    [count] = struct.unpack(">H", page[head + 3 : head + 5])
    for index in range(min(count, (usable - first) // 2)):
        [at] = struct.unpack(">H", page[first + 2 * index : first + 2 * index + 2])
        yield at if first <= at < usable else -1


def local_bytes(usable: int, total: int, *, table: bool) -> int:
    """Return how many of a row's `total` bytes lie on its own page."""
    most = usable - 35 if table else (usable - 12) * 64 // 255 - 23
    if total <= most:
        return total
    least = (usable - 12) * 32 // 255 - 23
    local = least + (total - least) % (usable - 4)
    return local if local <= most else least


def is_plausible_page(page: bytes, size: int) -> bool:
    """Tell whether bytes could be a page of a tree."""
    if len(page) < size or page[0] not in (LEAF, INTERIOR, INDEX_LEAF, INDEX_INTERIOR):
        return False
    count, content = struct.unpack(">2H", page[3:7])
    first = 12 if page[0] in (INTERIOR, INDEX_INTERIOR) else 8
    if not (0 < count <= (size - first) // 2 and first + 2 * count <= (content or 65536) <= size):
        return False
    places = struct.unpack(f">{count}H", page[first : first + 2 * count])
    # Rows are laid down from the end of a page. If the page is really smaller, they all lie in
    # the first half of these bytes.
    return bool(min(places) >= first + 2 * count and size // 2 <= max(places) < size)
