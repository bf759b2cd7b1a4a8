"""A database file that SQLite may refuse to read, read page by page: what `sessiondb salvage` gets its rows from.

SQLite stops at the first page that contradicts another. Here each page is believed as far as it goes: the leaves of a table
are found along its tree; pages that no tree leads to are recognised by the pointer map (which says for each page whose child
it is) or, without one, by the shape of their rows. So one bad page costs its own rows and no others, a destroyed
first page costs nothing but the free list, and a lost schema is found again on its other pages.

The WAL is part of the database. Its frames are taken as SQLite takes them: those of whole transactions, up to the
first one whose checksum fails. What stands behind that point was perhaps never part of the database, so it is only
asked for rows that are found nowhere else. The -shm file is never touched.

The file is opened once, locked against every other process (`_Lock`), and never written. Bounds: one page, one row and one byte
per page of the file are in memory. No claim in the file is believed before it is compared with the file's size: a row
cannot be longer than the pages there are, a chain of pages that comes back to itself ends, a tree visits a page once.

Not modelled: other text encodings than UTF-8, and a rollback journal (sessiondb's files are in WAL mode from the start).
A bit that flips inside a text leaves it a text: SQLite's pages carry no checksum, and nobody can tell.

The file is long and one idea: the file format of SQLite, bottom up.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import apsw

from sessiondb.errors import NewerSchema, NotASessionDB, OpenError, StoreBusy
from sessiondb.limits import ENTRY_BYTES_MAX

from .connection import is_open_here
from .schema import APPLICATION_ID, SCHEMA_VERSION, schema_text

Value = int | float | str | bytes | None

_MAGIC: Final = b"SQLite format 3\x00"
_LEAF, _INTERIOR, _INDEX_LEAF, _INDEX_INTERIOR = 13, 5, 10, 2
_ROOT_PTR, _FREE_PTR, _BTREE_PTR = 1, 2, 5
# SQLite's locks: the pending byte, the reserved byte and 510 shared ones. The page that holds them is never used.
_LOCK_BYTE, _LOCK_BYTES = 0x40000000, 512
# A tree of a 140 TB database is no deeper.
_DEPTH_MAX: Final = 32
# The largest text that the library accepts, and room for the other columns.
_ROW_BYTES_MAX: Final = 2 * ENTRY_BYTES_MAX
_MISFIT: Final = "its columns are not those of its table"
_DOUBT: Final = "its chain of pages leads into another row's"
# Of what is reported page by page; beyond that pages are only counted.
_SPOTS_MAX: Final = 10_000

# In the order in which they are read: a row comes after those that it refers to, as far as that goes.
TABLES: Final = (
    "instance",
    "session",
    "binding",
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
    "event",
    "event_cursor",
    "archive",
    "archive_chunk",
    "sqlite_sequence",
)
# Rows of a lost schema are recognised by their types; where two kinds of rows have the same, by what this column may say.
_TELLING: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "session": ("origin", frozenset({"native", "import", "fork"})),
    "epoch": ("reason", frozenset({"start", "compaction", "reset", "branch", "undo", "fork"})),
    "event": ("audience", frozenset({"operator", "user"})),
    "quarantine": ("severity", frozenset({"blank", "damaged"})),
    "sqlite_sequence": ("name", frozenset(TABLES)),
    "turn": ("kind", frozenset({"message", "resume"})),
    "archive": ("encoding", frozenset({"zstd", "zlib", "none"})),
    "archive_chunk": ("what", frozenset({"session", "binding", "branch", "epoch", "entry"})),
}
# What an index says of the rows of its table, whose own pages may be lost: the columns of its records.
_EVIDENCE: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "sqlite_autoindex_session_1": ("session", ("session_id", "session_no")),
    "entry_by_id": ("entry", ("session_no", "entry_id", "entry_no")),
    "sqlite_autoindex_inbox_1": ("inbox", ("channel", "event_id", "inbox_no")),
    "binding_by_session": ("binding", ("session_no", "session_key")),
}
# An index has rows of the same types as these: without a schema they are not told apart, and left out.
_AMBIGUOUS: Final = frozenset({"event_cursor"})


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rows of one table look like: the columns in the order of the record, each with its type."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    required: tuple[bool, ...]
    defaults: tuple[Value, ...]
    key: str | None
    """The column that is the row's number; None: the table is an index of its own (WITHOUT ROWID)."""

    def fits(self, values: list[Value]) -> bool:
        """Tell whether a record could be a row of this table. Columns that were added later may be missing."""
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
    """Return the shape of every table of the present schema, from the schema itself."""
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
    if without_rowid:  # the key's columns come first, in the key's order
        found = [
            *sorted((row for row in found if row[4]), key=lambda row: row[4]),
            *(row for row in found if not row[4]),
        ]
    key = None if without_rowid else next((row[0] for row in found if row[4]), "")
    return Shape(
        name,
        tuple(row[0] for row in found),
        tuple(row[1] for row in found),
        tuple(bool(row[2]) for row in found),
        tuple(int(row[3]) if row[3] is not None else None for row in found),
        key,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A row that could be read."""

    table: str
    values: dict[str, Value]
    stray: bool
    """True: on a page that no tree leads to, or in the WAL behind its damage. A row of the tree goes first."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that is there and could not be read whole."""

    table: str
    page: int
    reason: str
    key: int | None
    values: dict[str, Value]
    """What could be read of it."""


@dataclass(frozen=True, slots=True)
class Known:
    """A row that an index knows of."""

    table: str
    values: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Spot:
    """A page that could not be read, and which rows it may have held: those after `low`, up to `high`."""

    page: int
    table: str | None
    low: int | None
    high: int | None
    reason: str


class BadCell(Exception):
    """A row or page is not what its neighbours say."""

    def __init__(self, reason: str, *, record: list[Value] | None = None) -> None:
        super().__init__(reason)
        self.key: int | None = None
        self.record = record


# -- one process at a time -------------------------------------------------------------------------------------------


def holders(path: str) -> list[str]:
    """Name the processes that hold a lock on a database or its -shm, this one included; empty where the system does not tell."""
    inodes = set()
    for name in (path, path + "-shm"):
        try:
            found = Path(name).stat()
        except OSError:
            continue
        inodes.add(f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}")
    try:
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    # "1: POSIX  ADVISORY  READ 4711 fe:00:1234 128 128"; a waiting request has "->" as its second field.
    pids = {
        int(fields[4])
        for fields in map(str.split, locks)
        if len(fields) == 8 and fields[5] in inodes
    }
    return [_name_of(pid) for pid in sorted(pids)]


def _name_of(pid: int) -> str:
    try:
        return f"pid {pid} ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        return f"pid {pid}"


class _Lock:
    """The file, open for reading, and locked the way SQLite locks it, so that nobody else opens it meanwhile."""

    def __init__(self, path: str) -> None:
        try:
            mode = Path(path).stat().st_mode
        except OSError as error:
            raise OpenError(
                f"{path}: {(error.strerror or str(error)).lower()}. Check the path and who may read it."
            ) from error
        if not stat.S_ISREG(
            mode
        ):  # before it is opened: opening a pipe waits for somebody to write to it
            raise OpenError(
                f"{path}: this is not a plain file, so there is no database in it. Check the path."
            )
        held = [_name_of(os.getpid())] if is_open_here(path) else holders(path)
        if held:  # by this process too: its own locks would go when the file is closed here
            raise self._busy(path, held)
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self.fd = self._open_readonly(path)
            return
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _LOCK_BYTE)
        except OSError as error:
            os.close(self.fd)
            raise self._busy(path, holders(path)) from error

    @staticmethod
    def _open_readonly(path: str) -> int:
        """Without the right to write there is no lock to be had; /proc/locks has said already that nobody holds one."""
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OpenError(
                f"{path}: {reason}. Run as the file's owner, or give this user the right to read it."
            ) from error

    @staticmethod
    def _busy(path: str, held: list[str]) -> StoreBusy:
        who = ", ".join(held) or "another process"
        return StoreBusy(
            f"{path}: {who} has the database open. Stop that process, and run this again.",
            retry_after_ms=1_000,
            holder=who,
        )

    def close(self) -> None:
        os.close(self.fd)


# -- the WAL ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Wal:
    """Which pages the WAL has newer versions of, and where."""

    fd: int | None = None
    state: Literal["none", "empty", "whole", "torn", "unusable", "foreign", "ignored"] = "none"
    frames: int = 0
    pages: dict[int, int] = field(default_factory=dict)
    size: int | None = None
    """Pages of the database after the last transaction in it."""
    loose: list[int] = field(default_factory=list)
    """Offsets of pages behind the damage."""


_M32 = 0xFFFFFFFF


def _checksum(order: str, data: bytes, seed: tuple[int, int]) -> tuple[int, int]:
    """The WAL's checksum: two sums that each feed the other."""
    a, b = seed
    numbers = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(numbers[::2], numbers[1::2], strict=True):
        a = (a + first + b) & _M32
        b = (b + second + a) & _M32
    return a, b


def read_wal(path: str, page_size: int) -> Wal:
    """Index the WAL: the newest version of each page that a whole transaction wrote, up to the first damage.

    SQLite's rule, with one difference: a damaged header does not void the frames, whose checksums are chained to
    each other and whose salts agree.
    """
    try:
        fd = os.open(path + "-wal", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return Wal()
    except OSError:
        return Wal(state="unusable")
    wal = Wal(fd=fd)
    size = os.fstat(fd).st_size
    if not stat.S_ISREG(os.fstat(fd).st_mode) or size < 32 + 24 + page_size:
        wal.state = (
            "unusable"
            if not stat.S_ISREG(os.fstat(fd).st_mode)
            else "torn"
            if size > 32
            else "empty"
        )
        return wal
    _read_frames(wal, size, page_size)
    return wal


def _bits_apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def _read_frames(wal: Wal, size: int, page_size: int) -> None:
    assert wal.fd is not None
    header = os.pread(wal.fd, 32, 0)
    order = ">" if header[:4] == b"\x37\x7f\x06\x83" else "<"
    seed = _checksum(order, header[:24], (0, 0))
    sound = header[:3] == b"\x37\x7f\x06" and struct.unpack(">2I", header[24:]) == seed
    sound = sound and struct.unpack(">I", header[8:12]) == (page_size,)
    salts = header[16:24] if sound else os.pread(wal.fd, 8, 32 + 8)
    pending: dict[int, int] = {}
    broken = ended = False
    step = 24 + page_size
    for number, offset in enumerate(range(32, size - step + 1, step)):
        frame = os.pread(wal.fd, step if not ended else 24, offset)
        if frame[8:16] != salts and _bits_apart(frame[8:16], salts) > 3:
            ended = True  # left from an earlier round; the newer ones end here, unless this is damage and more of them follow
            continue
        if ended or len(frame) < step:
            ended, broken = False, True
            wal.loose.append(offset + 24)
            continue
        stored = struct.unpack(">2I", frame[16:24])
        page, commit = struct.unpack(">2I", frame[:8])
        intact = stored == _checksum(order, frame[:8] + frame[24:], seed) or (
            number == 0 and not sound
        )
        seed = stored
        if broken or not intact or not 0 < page <= _M32:
            broken = True
            wal.loose.append(offset + 24)
            continue
        wal.frames += 1
        pending[page] = offset + 24
        if commit:
            wal.pages |= pending
            wal.size = commit
            pending = {}
    wal.loose = [*pending.values(), *wal.loose] if broken else wal.loose
    wal.state = "torn" if broken or not sound else "whole" if wal.pages else "empty"


# -- numbers and records ---------------------------------------------------------------------------------------------


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read SQLite's variable-length number; return it and where the next byte is.

    Raises:
        BadCell: the data end in the middle of it.
    """
    value = 0
    for step in range(9):
        if at >= len(data):
            raise BadCell("a number runs past the end of its page")
        byte = data[at]
        at += 1
        if step == 8:
            return _signed(value << 8 | byte), at
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    raise AssertionError("a number has nine bytes at most")


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


_FIXED: Final = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}


def record_sizes(data: bytes, at: int, total: int, columns_max: int) -> tuple[int, list[int]]:
    """Read a record's header; return where the values begin, and their serial types.

    Raises:
        BadCell: the types do not add up to `total` bytes, or there are more than a table here has.
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
            raise BadCell("a row's header names a type that there is not")
        serials.append(serial)
        size += _FIXED[serial] if serial < 12 else (serial - 12) // 2
    if at_type != end or size != total:
        raise BadCell("a row's columns do not add up to its length")
    return end - at, serials


def decode(data: bytes, at: int, serial: int) -> tuple[Value, int]:
    """Decode one value; return it and where the next one begins.

    Raises:
        UnicodeDecodeError: a text that is not UTF-8.
    """
    if serial >= 12:
        end = at + (serial - 12) // 2
        return (data[at:end].decode() if serial & 1 else data[at:end]), end
    if serial == 7:
        return struct.unpack(">d", data[at : at + 8])[0], at + 8
    if serial in (8, 9):
        return serial - 8, at
    size = _FIXED[serial]
    return (int.from_bytes(data[at : at + size], "big", signed=True) if serial else None), at + size


# -- the file --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tree:
    """One table's tree while it is walked."""

    shape: Shape | None
    root: int


class DamagedFile:
    """A database file, whatever its state. Use it as a context manager."""

    def __init__(self, path: str, *, use_wal: bool = True) -> None:
        self.path = path
        self.notes: list[str] = []
        self.spots: list[Spot] = []
        self.spots_more = 0
        self._lock = _Lock(path)
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
        """Let go of the files. May be repeated."""
        wal, lock = getattr(self, "wal", None), self.__dict__.pop("_lock", None)
        if wal is not None and wal.fd is not None:
            os.close(wal.fd)
            wal.fd = None
        if lock is not None:
            lock.close()

    def _open(self, *, use_wal: bool) -> None:
        self._fd = self._lock.fd
        self.bytes = os.fstat(self._fd).st_size
        self.shapes = shapes()
        header = os.pread(self._fd, 100, 0)
        self.page_size = self._page_size(header)
        self.usable = self.page_size - (
            header[20] if header[:16] == _MAGIC and header[20] <= 32 else 0
        )
        self.wal = read_wal(self.path, self.page_size) if use_wal else Wal(state="ignored")
        in_file = self.bytes // self.page_size
        # No page number can be larger than all pages there are, in the file and in the WAL, whatever the WAL says.
        most = in_file + self.wal.frames
        self.wal.pages = {page: offset for page, offset in self.wal.pages.items() if page <= most}
        self.count = min(self.wal.size, most) if self.wal.size is not None else in_file
        if self.count == 0 and not self.wal.loose:
            raise NotASessionDB(
                f"{self.path}: the file holds not one whole page ({self.bytes} bytes); there is nothing to get out of it."
            )
        if self.bytes % self.page_size and self.wal.size is None:
            self.notes.append(f"the file ends in the middle of page {in_file + 1}; it was cut off")
        self._first = self.page(1)
        self._columns_max = max(len(shape.columns) for shape in self.shapes.values())
        self._seen, self._free = bytearray(self.count + 1), bytearray(self.count + 1)
        self._sound_maps: dict[int, bool] = {}
        self._has_map = self._looks_like_map()
        self._mark_free()
        self._roots = self._read_schema()
        self._refuse_strangers()
        if self._is_foreign_wal():
            self._leave_wal_out()
            return
        self._tables = {self._roots[name]: name for name in TABLES if name in self._roots}

    def _page_size(self, header: bytes) -> int:
        if header[:16] == _MAGIC and len(header) >= 18:
            [size] = struct.unpack(">H", header[16:18])
            size = 65536 if size == 1 else size
            if size >= 512 and size & (size - 1) == 0:
                return int(size)
        return self._guessed_page_size()

    def _guessed_page_size(self) -> int:
        """Return the size at which most of the first pages look like pages; ours is asked first and wins a draw."""
        best, best_score = 4096, -1.0
        for size in (4096, 1024, 2048, 8192, 16384, 32768, 65536, 512):
            pages = max(0, self.bytes // size - 1)
            sample = range(1, pages + 1, max(1, pages // 256))
            looks = sum(
                _plausible(os.pread(self._fd, size, number * size), size) for number in sample
            )
            score = looks / len(sample) if len(sample) else 0.0
            if score > best_score + 0.2:
                best, best_score = size, score
        self.notes.append(f"the file's header is destroyed; its pages seem to have {best} bytes")
        return best

    def _is_older(self) -> bool:
        """Tell whether an older sessiondb wrote the file: it lacks tables that came later."""
        return (
            self._first is not None
            and 0 < int.from_bytes(self._first[60:64], "big") < SCHEMA_VERSION
        )

    def _refuse_strangers(self) -> None:
        """A sound header of another program, or of a newer sessiondb, is not damage."""
        first = self._first
        if first is None or first[:16] != _MAGIC:
            return
        version, application = (
            struct.unpack(">I", first[60:64])[0],
            struct.unpack(">I", first[68:72])[0],
        )
        if application == APPLICATION_ID:
            if SCHEMA_VERSION < version < SCHEMA_VERSION + 1_000:
                message = f"{self.path}: written by a newer sessiondb (schema {version}; this one knows up to {SCHEMA_VERSION})"
                raise NewerSchema(
                    f"{message}. Upgrade sessiondb.", found=version, known=SCHEMA_VERSION
                )
            return
        if self._roots and not {"session", "entry"} & self._roots.keys():
            names = ", ".join(sorted(self._roots)[:4])
            raise NotASessionDB(
                f"{self.path}: this is a SQLite database of another program, with the tables {names}. Check the path."
            )

    def _is_foreign_wal(self) -> bool:
        """Tell whether the WAL came from another database: its first process and its first session are not the file's."""
        pages = self.wal.pages
        if not pages:
            return False
        with_wal = self._identity()
        self.wal.pages = {}
        without = self._identity()
        self.wal.pages = pages
        # One that differs may be damaged, and so may one of another kind; by chance no two of them are.
        return (
            sum(
                None not in pair and pair[0] != pair[1]
                for pair in zip(with_wal, without, strict=True)
            )
            >= 2
        )

    def _identity(self) -> tuple[Value, ...]:
        """Return what tells databases apart and never changes in one: who opened it first and when, and its first session."""
        first = self._first_row("instance") or {}
        session = self._first_row("session") or {}
        if first.get("instance_no") != 1:
            first = {}
        opened = (first.get("pid"), first.get("pid_started"), first.get("opened_at_ms"))
        return (*opened, session.get("session_id"), session.get("created_at_ms"))

    def _first_row(self, name: str) -> dict[str, Value] | None:
        number = self._roots.get(name, 0)
        for _ in range(_DEPTH_MAX):
            page = self.page(number) if self._in_range(number) else None
            if page is None or page[0] not in (_LEAF, _INTERIOR):
                return None
            if page[0] == _LEAF:
                cells = self._row_leaf(page, number, None, None)
                rows = (
                    _named(self.shapes[name], key, cell)
                    for key, cell in cells
                    if not isinstance(cell, BadCell)
                )
                return next(rows, None)
            number = self._children(page, number, None, None, table=True)[0][0]
        return None

    def _leave_wal_out(self) -> None:
        """Begin again without the WAL."""
        assert self.wal.fd is not None
        os.close(self.wal.fd)
        self.notes = [
            "the -wal beside the file is another database's: its first process and first session are not this one's; left out"
        ]
        self.spots.clear()
        self._open(use_wal=False)
        self.wal.state = "foreign"

    # -- pages

    def page(self, number: int) -> bytes | None:
        """Return a page as of the last transaction; None if the file is too short, or the disk cannot read it."""
        offset = self.wal.pages.get(number)
        fd, offset = (
            (self._fd, (number - 1) * self.page_size) if offset is None else (self.wal.fd, offset)
        )
        assert fd is not None
        try:
            data = os.pread(fd, self.page_size, offset)
        except OSError:
            return None  # the disk's own damage: one page less
        return data if len(data) == self.page_size else None

    def _in_range(self, number: int) -> bool:
        return 1 < number <= self.count

    # -- the pointer map: for each page, what it is and whose child

    def _looks_like_map(self) -> bool:
        if self._first is not None and self._first[:16] == _MAGIC and self._sound_header():
            return self._first[52:56] != b"\0\0\0\0"
        page = self.page(2) if self.count >= 2 else None
        if page is None:
            return False
        entries = min(50, self.count - 2, self.usable // 5)
        return entries > 0 and sum(1 <= page[5 * n] <= 5 for n in range(entries)) >= 0.9 * entries

    def _sound_header(self) -> bool:
        return (
            self._first is not None
            and self._first[:16] == _MAGIC
            and self._first[21:24] == b"\x40\x20\x20"
        )

    def _map_page(self, number: int) -> int:
        group = self.usable // 5 + 1
        page = (number - 2) // group * group + 2
        return page + 1 if page == _LOCK_BYTE // self.page_size + 1 else page

    def pointer(self, number: int) -> tuple[int, int] | None:
        """Return what the pointer map says of a page: its kind and its parent; None if there is no map, or it cannot be read."""
        if not self._has_map or number < 3:
            return None
        at = self._map_page(number)
        offset = 5 * (number - at - 1)
        if at == number or not 0 <= offset <= self.usable - 5 or not self._is_sound_map(at):
            return None
        page = self.page(at)
        assert page is not None
        kind, parent = page[offset], struct.unpack(">I", page[offset + 1 : offset + 5])[0]
        return (kind, parent) if 1 <= kind <= 5 else None

    def _is_sound_map(self, at: int) -> bool:
        """Tell whether a page of the map is one: nearly all of what it says must be possible. Looked at once."""
        if at not in self._sound_maps:
            page, sound = self.page(at) or b"", 0
            entries = min(len(page) // 5, self.usable // 5, max(0, self.count - at))
            for offset in range(0, 5 * entries, 5):
                kind, parent = page[offset], struct.unpack(">I", page[offset + 1 : offset + 5])[0]
                sound += 1 <= kind <= 5 and parent <= self.count
            self._sound_maps[at] = bool(page) and sound >= 0.9 * entries
        return self._sound_maps[at]

    def _root_by_map(self, number: int) -> int | None:
        for _ in range(_DEPTH_MAX):
            pointer = self.pointer(number)
            if pointer is None:
                return None
            if pointer[0] == _ROOT_PTR:
                return number
            if pointer[0] != _BTREE_PTR or not self._in_range(pointer[1]):
                return 1 if pointer == (_BTREE_PTR, 1) else None
            number = pointer[1]
        return None

    def _mark_free(self) -> None:
        """Note which pages the free list names: their rows were deleted. A page that a tree leads to is none of them."""
        first = self._first
        trunk = (
            struct.unpack(">I", first[32:36])[0]
            if first is not None and self._sound_header()
            else 0
        )
        for _ in range(self.count):
            if not self._in_range(trunk) or self._free[trunk]:
                return
            page = self.page(trunk)
            self._free[trunk] = 1
            if page is None:
                return
            trunk, leaves = struct.unpack(">2I", page[:8])
            if leaves > self.usable // 4 - 2:
                return
            for leaf in struct.unpack(f">{leaves}I", page[8 : 8 + 4 * leaves]):
                if self._in_range(leaf):
                    self._free[leaf] = 1

    def _is_free(self, number: int) -> bool:
        pointer = self.pointer(number)
        return bool(self._free[number]) if pointer is None else pointer[0] == _FREE_PTR

    # -- cells

    def _cells(self, page: bytes, number: int) -> Iterator[int]:
        """Yield where each row of a page begins, as far as its pointers stay inside the page."""
        head = 100 if number == 1 else 0
        first = head + (12 if page[head] in (_INTERIOR, _INDEX_INTERIOR) else 8)
        [count] = struct.unpack(">H", page[head + 3 : head + 5])
        for index in range(min(count, (self.usable - first) // 2)):
            [at] = struct.unpack(">H", page[first + 2 * index : first + 2 * index + 2])
            yield at if first <= at < self.usable else -1

    def _local(self, total: int, *, table: bool) -> int:
        """Return how much of a row of `total` bytes lies on its own page."""
        usable = self.usable
        most = usable - 35 if table else (usable - 12) * 64 // 255 - 23
        if total <= most:
            return total
        least = (usable - 12) * 32 // 255 - 23
        local = least + (total - least) % (usable - 4)
        return local if local <= most else least

    def _overflow(self, owner: int, first: int, missing: int) -> tuple[bytes, str]:
        """Read the rest of a row from its chain of pages; return what is there, and what is wrong with it.

        The map says for each page of a chain which page comes before it. Where it disagrees, the map or the chain is
        damaged: the text itself has to show which.
        """
        parts: list[bytes] = []
        chain: set[int] = set()
        number, before, doubt = first, (3, owner), ""
        while missing > 0:
            page = self.page(number) if self._in_range(number) and number not in chain else None
            if page is None:
                return b"".join(parts), "its chain of pages is broken"
            if self.pointer(number) not in (None, before):
                doubt = _DOUBT
            chain.add(number)
            part = page[4 : min(self.usable, 4 + missing)]
            parts.append(part)
            missing -= len(part)
            before, number = (4, number), struct.unpack(">I", page[:4])[0]
        if not doubt:
            for number in chain:
                self._seen[number] = 1
        return b"".join(parts), doubt

    def _record(self, page: bytes, number: int, at: int, total: int, *, table: bool) -> list[Value]:
        """Read the record at `at`.

        Raises:
            BadCell: it is not one. What could be read is in the error.
        """
        if not 0 < total <= min(_ROW_BYTES_MAX, (self.count + 1) * self.page_size):
            raise BadCell("its length is not that of a row")
        local = self._local(total, table=table)
        if at + local + (4 if local < total else 0) > self.usable:
            raise BadCell("it runs past the end of its page")
        header, serials = record_sizes(page[: at + local], at, total, self._columns_max)
        data, problem = page[at : at + local], ""
        if local < total:
            [first] = struct.unpack(">I", page[at + local : at + local + 4])
            rest, problem = self._overflow(number, first, total - local)
            data += rest
        values, bad = self._values(data, header, serials)
        if problem == _DOUBT and not bad and _is_json(values[-1]):
            problem = ""
        if problem or bad:
            raise BadCell(problem or bad, record=values)
        return values

    @staticmethod
    def _values(data: bytes, at: int, serials: list[int]) -> tuple[list[Value], str]:
        """Decode the columns; what ends too early or is no text comes as bytes, with the reason."""
        values: list[Value] = []
        bad = ""
        for serial in serials:
            end = at + (_FIXED[serial] if serial < 12 else (serial - 12) // 2)
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

    def _row_cell(self, page: bytes, number: int, at: int) -> tuple[int, list[Value]]:
        """Read a row of an ordinary table: its number and its columns."""
        total, at = varint(page, at)
        key, at = varint(page, at)
        key = _signed(key)
        try:
            return key, self._record(page, number, at, total, table=True)
        except BadCell as error:
            error.key = key
            raise

    # -- leaves

    def _row_leaf(
        self, page: bytes, number: int, low: int | None, high: int | None
    ) -> Iterator[tuple[int | None, list[Value] | BadCell]]:
        """Yield the rows of an ordinary table's leaf, in its order; a number that breaks the order is not believed."""
        cells: list[tuple[int | None, list[Value] | BadCell]] = []
        for at in self._cells(page, number):
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
        # If most of a page lies outside of its bounds then it is the bounds that are wrong.
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
                # With one number free between its neighbours' it can only be that one.
                yield _only_between(cells, trusted, index, None), cell

    def _is_filled(self, page: bytes, number: int) -> bool:
        """Tell whether a page's rows and gaps fill it: if not, its count of rows is damaged, and some are not found.

        SQLite's own rule: from where the rows begin to the end of the page there is nothing but rows, gaps in a chain, and
        as many odd bytes as the header says.
        """
        kind, head = page[0], 12 if page[0] == _INDEX_INTERIOR else 8
        [gap, count, content] = struct.unpack(">3H", page[1:7])
        filled = page[7]
        try:
            for at in self._cells(page, number):
                filled += self._cell_bytes(page, at, kind)
        except BadCell:
            return True  # reported with its row
        for _ in range(self.usable // 4):
            if not 0 < gap <= self.usable - 4:
                break
            gap, size = struct.unpack(">2H", page[gap : gap + 4])
            filled += size
        content = content or 65536
        return bool(filled == self.usable - content and head + 2 * count <= content)

    def _cell_bytes(self, page: bytes, at: int, kind: int) -> int:
        """Return how many bytes of its page a row takes.

        Raises:
            BadCell: it has no length that can be read.
        """
        if at < 0:
            raise BadCell("its place lies outside of its page")
        start = at
        total, at = varint(page, at + (4 if kind == _INDEX_INTERIOR else 0))
        if kind == _LEAF:
            _, at = varint(page, at)
        if total < 0:
            raise BadCell("its length is not that of a row")
        local = self._local(total, table=kind == _LEAF)
        return max(4, at - start + local + (4 if local < total else 0))

    def _index_cells(self, page: bytes, number: int) -> Iterator[list[Value] | BadCell]:
        """Yield the rows of a WITHOUT ROWID table's page; inner pages hold rows too."""
        inner = page[100 if number == 1 else 0] == _INDEX_INTERIOR
        for at in self._cells(page, number):
            try:
                if at < 0:
                    raise BadCell("its place lies outside of its page")
                total, start = varint(page, at + (4 if inner else 0))
                yield self._record(page, number, start, total, table=False)
            except BadCell as error:
                yield error

    # -- trees

    def _children(
        self, page: bytes, number: int, low: int | None, high: int | None, *, table: bool
    ) -> list[tuple[int, int | None, int | None]]:
        """Return the children of an inner page, with the bounds of their keys, in order."""
        head = 100 if number == 1 else 0
        found: list[tuple[int, int | None, int | None]] = []
        for at in self._cells(page, number):
            if not 0 <= at <= self.usable - 5:
                continue
            [child] = struct.unpack(">I", page[at : at + 4])
            key: int | None = None
            if table:
                try:
                    key = _signed(varint(page, at + 4)[0])
                except BadCell:
                    key = None
            found.append((child, low, key))
            low = key
        found.append((struct.unpack(">I", page[head + 8 : head + 12])[0], low, high))
        return found

    def _leaves(self, tree: _Tree) -> Iterator[tuple[int, bytes, int | None, int | None]]:
        """Yield the pages of a tree that hold rows, in order, each once; note those that cannot be read."""
        name = tree.shape.name if tree.shape is not None else None
        table = tree.shape is None or tree.shape.key is not None
        stack: list[tuple[int, int | None, int | None, int]] = [(tree.root, None, None, 0)]
        while stack:
            number, low, high, parent = stack.pop()
            if not self._in_range(number) and (number, parent) != (1, 0):
                self._spot(number, name, low, high, "the number of no page")
                continue
            if self._seen[number]:
                self._spot(number, name, low, high, "it belongs to another tree")
                continue
            page = self.page(number)
            kind = page[100 if number == 1 else 0] if page is not None else None
            wanted = (_LEAF, _INTERIOR) if table else (_INDEX_LEAF, _INDEX_INTERIOR)
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
            self._seen[number] = 1
            if kind in (_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
                yield number, page, low, high
            if kind in (_INTERIOR, _INDEX_INTERIOR):
                children = self._children(page, number, low, high, table=table)
                stack += [(child, first, last, number) for child, first, last in reversed(children)]

    def _foreign(
        self, page: bytes, number: int, parent: int, low: int | None, high: int | None
    ) -> bool:
        """Tell whether a page belongs elsewhere, because its parent's pointer to it is damaged.

        The map says whose child it is. If it disagrees, the map may be the damaged one: the page's own keys decide.
        """
        pointer = self.pointer(number)
        if pointer is None or parent == 0 or pointer == (_BTREE_PTR, parent):
            return False
        if page[0] == _LEAF and (low is not None or high is not None):
            keys = [key for key, _ in self._row_leaf(page, number, None, None) if key is not None]
            inside = sum(
                (low is None or low < key) and (high is None or key <= high) for key in keys
            )
            return inside * 2 <= len(keys)
        return pointer[0] != _BTREE_PTR or self._root_by_map(number) != self._root_by_map(parent)

    def _spot(
        self, page: int, table: str | None, low: int | None, high: int | None, reason: str
    ) -> None:
        if len(self.spots) < _SPOTS_MAX:
            self.spots.append(Spot(page, table, low, high, reason))
        else:
            self.spots_more += 1

    # -- the schema

    def _read_schema(self) -> dict[str, int]:
        """Return the first page of every table and index that the schema names: by its tree, else from wherever its rows are."""
        roots: dict[str, int] = {}
        if self._first is not None and self._first[100] in (_LEAF, _INTERIOR):
            for number, page, low, high in self._leaves(_Tree(None, 1)):
                cells = [cell for _, cell in self._row_leaf(page, number, low, high)]
                for cell in cells:
                    self._add_root(roots, cell)
                if not any(not isinstance(cell, BadCell) and len(cell) == 5 for cell in cells):
                    self._seen[number] = (
                        0  # a page of the schema was overwritten with one that leads into another tree
                    )
        self.spots.clear()
        if roots.keys() >= set(TABLES) or (
            self._sound_header() and self._is_older() and {"session", "entry"} <= roots.keys()
        ):
            return roots
        self.notes.append(
            "the schema cannot be read to its end; what is left of it was looked for on every page"
        )
        for number in range(2, self.count + 1):
            stray = self._stray(number)
            if stray is not None and stray[0] == _LEAF:
                found = dict(roots)
                for _, cell in self._row_leaf(stray, number, None, None):
                    self._add_root(found, cell)
                if len(found) > len(roots):
                    roots = found | roots
                    self._seen[number] = 1
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
        if self._in_range(root) and (sql is None or isinstance(sql, str)):
            roots.setdefault(name, root)

    def _stray(self, number: int) -> bytes | None:
        """Return a page that no tree has led to and that is not free, nor the map's."""
        if (
            self._seen[number]
            or self._is_free(number)
            or (self._has_map and number >= 2 and self._map_page(number) == number)
        ):
            return None
        return self.page(number)

    # -- rows

    def rows(self) -> Iterator[Found | Broken]:
        """Yield every row of the known tables: along the trees, then from pages that no tree leads to, then from the WAL's rest."""
        for name in TABLES:
            if name in self._roots:
                yield from self._tree_rows(name)
        spots, more = list(self.spots), self.spots_more
        for name, root in self._roots.items():
            if name not in self.shapes and not self._seen[root]:
                self._mark_index(root)
        self.spots, self.spots_more = spots, more  # an index is made again, whatever its state
        for number in range(2, self.count + 1):
            stray = self._stray(number)
            if stray is not None:
                yield from self._stray_rows(stray, number)
        for offset in self.wal.loose:
            assert self.wal.fd is not None
            loose = os.pread(self.wal.fd, self.page_size, offset)
            if len(loose) == self.page_size:
                yield from self._rows_by_shape(loose)

    def evidence(self) -> Iterator[Known]:
        """Yield what the indexes say of rows, whether or not those could be read. Single records of them may be damaged."""
        spots, more, seen = list(self.spots), self.spots_more, self._seen
        for name, (table, columns) in _EVIDENCE.items():
            if name not in self._roots:
                continue
            self._seen = bytearray(self.count + 1)
            for number, page, _, _ in self._leaves(_Tree(_INDEX, self._roots[name])):
                for cell in self._index_cells(page, number):
                    if not isinstance(cell, BadCell) and len(cell) == len(columns):
                        yield Known(table, dict(zip(columns, cell, strict=True)))
        self.spots, self.spots_more, self._seen = spots, more, seen

    def _tree_rows(self, name: str) -> Iterator[Found | Broken]:
        shape = self.shapes[name]
        for number, page, low, high in self._leaves(_Tree(shape, self._roots[name])):
            rows = list(self._page_rows(shape, page, number, low, high, stray=False))
            if not self._is_filled(page, number):
                self._spot(
                    number,
                    name,
                    low,
                    high,
                    "its rows do not fill it, so there may be more than it says",
                )
            if sum(isinstance(row, Broken) and row.reason == _MISFIT for row in rows) * 2 > len(
                rows
            ):
                # An inner page was overwritten with one of another tree, and leads here: whose page it is will come for it.
                self._seen[number] = 0
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
        in_index = ((None, cell) for cell in self._index_cells(page, number))
        for key, cell in (
            self._row_leaf(page, number, low, high) if shape.key is not None else in_index
        ):
            if isinstance(cell, BadCell):
                yield Broken(
                    shape.name, number, str(cell), key, _named(shape, key, cell.record or [])
                )
            elif shape.key is not None and key is None:
                yield Broken(
                    shape.name,
                    number,
                    "its number is not between its neighbours'",
                    None,
                    _named(shape, None, cell),
                )
            elif not shape.fits(cell):
                yield Broken(shape.name, number, _MISFIT, key, _named(shape, key, cell))
            else:
                yield Found(shape.name, _named(shape, key, cell), stray)

    def _mark_index(self, root: int) -> None:
        """Visit an index, so that its pages are not taken for those of a table."""
        kind = (self.page(root) or b"\0")[0]
        shape = None if kind in (_LEAF, _INTERIOR) else _INDEX
        for number, page, _, _ in self._leaves(_Tree(shape, root)):
            if shape is not None:
                for _ in self._index_cells(page, number):
                    pass  # reading a long key marks the pages of its chain

    def _stray_rows(self, page: bytes, number: int) -> Iterator[Found | Broken]:
        root = self._root_by_map(number)
        name = self._tables.get(root) if root is not None else None
        if name is None:
            # The map may be damaged itself, so a page that it gives to an index is believed only if its rows are an index's.
            if root is None or root not in self._roots.values():
                yield from self._rows_by_shape(page)
            return
        shape = self.shapes[name]
        leaf = _LEAF if shape.key is not None else _INDEX_LEAF
        if page[0] in (_LEAF, _INTERIOR, _INDEX_LEAF, _INDEX_INTERIOR):
            if page[0] == leaf or (shape.key is None and page[0] == _INDEX_INTERIOR):
                yield from self._page_rows(shape, page, number, None, None, stray=True)
            return
        # The map says what it is, its first byte denies it: a leaf, if it reads as one.
        found = list(
            self._page_rows(shape, bytes([leaf]) + page[1:], number, None, None, stray=True)
        )
        if sum(isinstance(row, Found) for row in found) * 2 > len(found):
            yield from found

    def _rows_by_shape(self, page: bytes) -> Iterator[Found | Broken]:
        """Yield the rows of a page that nothing says the table of: those that can only be one table's."""
        if page[0] == _LEAF:
            cells = list(self._row_leaf(page, 0, None, None))
        elif page[0] in (_INDEX_LEAF, _INDEX_INTERIOR):
            cells = [(None, cell) for cell in self._index_cells(page, 0)]
        else:
            return
        good = [
            (key, cell)
            for key, cell in cells
            if not isinstance(cell, BadCell) and (key is not None or page[0] != _LEAF)
        ]
        candidates = [
            shape for shape in self.shapes.values() if (shape.key is not None) == (page[0] == _LEAF)
        ]
        fitting = [
            shape
            for shape in candidates
            if shape.name not in _AMBIGUOUS and good and all(shape.fits(cell) for _, cell in good)
        ]
        # Rows of an older schema are shorter: of several tables, the one whose rows are all there.
        whole = [
            shape for shape in fitting if all(len(cell) == len(shape.columns) for _, cell in good)
        ]
        chosen = whole or fitting
        if len(chosen) == 1 and not _is_index(chosen[0], [cell for _, cell in good]):
            for key, cell in good:
                yield Found(chosen[0].name, _named(chosen[0], key, cell), True)


_INDEX: Final = Shape("an index", (), (), (), (), None)


def _is_index(shape: Shape, cells: list[list[Value]]) -> bool:
    """Indexes that begin with a lane or a state look like the table of lanes: but they end with a row's number, twice or large."""
    return shape.name == "lane" and (
        all(cell[1] == cell[2] for cell in cells) or any(_wide(cell[1]) for cell in cells)
    )


def _wide(value: Value) -> bool:
    return isinstance(value, int) and value > 1_000_000


def _named(shape: Shape, key: int | None, record: list[Value]) -> dict[str, Value]:
    """Name a record's values; the columns that it lacks get their defaults."""
    values = dict(zip(shape.columns, [*record, *shape.defaults[len(record) :]], strict=False))
    if shape.key:
        values[shape.key] = key
    return values


def _is_json(value: Value) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


def _plausible(page: bytes, size: int) -> bool:
    """Tell whether bytes could be a page of a tree."""
    if len(page) < size or page[0] not in (_LEAF, _INTERIOR, _INDEX_LEAF, _INDEX_INTERIOR):
        return False
    count, content = struct.unpack(">2H", page[3:7])
    first = 12 if page[0] in (_INTERIOR, _INDEX_INTERIOR) else 8
    if not (0 < count <= (size - first) // 2 and first + 2 * count <= (content or 65536) <= size):
        return False
    places = struct.unpack(f">{count}H", page[first : first + 2 * count])
    # Rows are laid down from the end of a page: in one that is really smaller they all lie in its first half.
    return bool(min(places) >= first + 2 * count and size // 2 <= max(places) < size)


def _rising(keys: list[int | None]) -> list[bool]:
    """Mark the longest run of keys that rises from first to last: with one key damaged it is all the others."""
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
    """Return the number that a row must have because its neighbours leave no other; else what it says itself."""
    before = next((n for n in range(index - 1, -1, -1) if trusted[n]), None)
    after = next((n for n in range(index + 1, len(cells)) if trusted[n]), None)
    if before is not None and after is not None:
        low, high = cells[before][0], cells[after][0]
        if high - low == after - before:
            return int(low) + index - before
        return key if key is not None and low < key < high else None
    return key
