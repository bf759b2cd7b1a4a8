"""A chunk of an archive: rows as JSON lines, compressed and hashed.

A large session has chunks of one table each. The first line names the columns, each further line
is a row. The chunks of one table follow one another, and their keys only grow.

A small session is one chunk, which is `whole`: the rows of every table, one table after the other.
A JSON object stands before the rows of each and names the table and its columns. Such a chunk is
too short for a compressor to learn from, so it is compressed with a fixed dictionary
(`archive_dictionary.py`). It needs no other archive to be read, and goes with its own.

A chunk is untrusted data, like the rest of a database that comes from elsewhere: a right
hash only says that the author of the chunk wrote the hash, too. So the size of its text is
bounded by what an archive can hold, and the values of a line by what an entry can hold (a
list in a list takes 3 bytes of text and 70 of memory). A row must be one that a restore can
put back: these columns, these types, keys of this session. Everything else is damage, and
the error names the session. Nothing here touches the database.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple, Protocol, TypeVar, get_type_hints

from sessiondb.backend import Row
from sessiondb.clock import pause
from sessiondb.errors import InvalidInput, StoreDamaged
from sessiondb.json_text import has_more_values
from sessiondb.limits import (
    ARCHIVE_BINDINGS_MAX,
    ARCHIVE_CHUNK_ROWS,
    ARCHIVE_PAGE_BYTES_MAX,
    ARCHIVE_ROW_BYTES_MAX,
    ARCHIVE_WINDOW_BYTES_MAX,
    ENTRY_VALUES_MAX,
    SEQ_BITS,
    SEQ_MAX,
)
from sessiondb.transcript.entries import EntryRow
from sessiondb.transcript.formats import PI

from .archive_dictionary import DICTIONARY

T = TypeVar("T")

# In the order in which tables are written and put back: a row comes after those it refers to.
SESSION, BINDING, BRANCH, EPOCH, ENTRY = "session", "binding", "branch", "epoch", "entry"
TABLES: Final = (SESSION, BINDING, BRANCH, EPOCH, ENTRY)
# A chunk that holds the rows of all of them.
WHOLE = "whole"
# The index of the column that orders a table's rows.
KEY: Final = {SESSION: 0, BINDING: 0, BRANCH: 0, EPOCH: 1, ENTRY: 0}
# The index of the column that holds the session's number. An entry has it in its own number.
OWNER: Final = {SESSION: 0, BINDING: 1, BRANCH: 1, EPOCH: 0}
# Worker threads share the interpreter's lock with the event loop. After so many rows they
# release it for a moment.
SLICE_ROWS: Final = 10
SLICE_PAUSE_S: Final = 0.00005

_ROWS_MAX: Final = {
    SESSION: 1,
    BINDING: ARCHIVE_BINDINGS_MAX,
    **dict.fromkeys((BRANCH, EPOCH, ENTRY, WHOLE), ARCHIVE_CHUNK_ROWS),
}
_GAPS_MAX: Final = 100
# Idempotency keys, and branches, that are remembered of one archive: some 9 MB of each.
_NOTED_MAX: Final = 100_000
_READ_BYTES: Final = 256 * 1024
# Small, so that everything before the break of a damaged stream is read.
_FED_BYTES: Final = 256
_WAY_OUT: Final = (
    "Keep the file as it is, and run `sessiondb salvage DB NEW` to recover what can be read, "
    "or restore a backup."
)
_EPOCH_REASONS: Final = frozenset(
    {"start", "compaction", "reset", "branch", "undo", "fork", "edit"}
)


def _columns(text: str) -> dict[str, str]:
    return dict(word.split(":") for word in text.split())


def _columns_of(row: type) -> dict[str, str]:
    kinds = {int: "INTEGER", int | None: "INTEGER?", str: "TEXT", str | None: "TEXT?"}
    return {name: kinds[kind] for name, kind in get_type_hints(row).items()}


COLUMNS: Final[dict[str, dict[str, str]]] = {
    SESSION: _columns("""
        session_no:INTEGER session_id:TEXT agent_id:TEXT? origin:TEXT version:INTEGER
        created_at_ms:INTEGER updated_at_ms:INTEGER ended_at_ms:INTEGER? name:TEXT?
        last_seq:INTEGER epoch:INTEGER head_no:INTEGER? branch_no:INTEGER? boundary_no:INTEGER?
        first_kept_no:INTEGER? context_tokens:INTEGER tokens_fresh:INTEGER
        forked_from_no:INTEGER? pinned_at_ms:INTEGER? archived_at_ms:INTEGER?
        forked_at_no:INTEGER? forked_epoch:INTEGER? heard_at_ms:INTEGER? formats:INTEGER
        ordered_from_no:INTEGER? open_marks:TEXT? asked_no:INTEGER?
    """),
    BINDING: _columns("""
        session_key:TEXT session_no:INTEGER agent_id:TEXT bound_at_ms:INTEGER details:TEXT?
    """),
    BRANCH: _columns("""
        branch_no:INTEGER session_no:INTEGER parent_branch_no:INTEGER? fork_no:INTEGER?
        first_no:INTEGER
    """),
    EPOCH: _columns("""
        session_no:INTEGER epoch:INTEGER reason:TEXT opened_at_ms:INTEGER boundary_no:INTEGER?
        first_kept_no:INTEGER? closed_head_no:INTEGER? closed_at_ms:INTEGER?
    """),
    ENTRY: _columns_of(EntryRow),
}
"""The columns of each table in the order in which they are archived, with the types of the schema.

`?` says that a value may be NULL.
"""

_RENAMED: Final = {"entries": "last_seq"}
"""Columns that have another name in older archives, by that name."""
_ADDED: Final[dict[str, list[Any]]] = {SESSION: [None, None, None, PI.bit, None, None]}
"""The values of a table's last columns for an older archive, which does not have them."""

_IDEMPOTENCY_KEY: Final = list(COLUMNS[ENTRY]).index("idempotency_key")
_TYPES: Final[dict[str, set[type]]] = {
    "INTEGER": {int},
    "INTEGER?": {int, type(None)},
    "TEXT": {str},
    "TEXT?": {str, type(None)},
}
_ALLOWED: Final = {
    table: [_TYPES[kind] for kind in columns.values()] for table, columns in COLUMNS.items()
}


class Wrong(ValueError):
    """A chunk or a row is not what was written.

    The message is a predicate. The caller prepends the subject.
    """


class Stored(Protocol):
    """A chunk as its table has it."""

    @property
    def chunk_no(self) -> int: ...
    @property
    def what(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def content(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as it is stored: `what` is the table or `whole`, `size` the bytes of its text."""

    what: str
    rows: int
    size: int
    sha256: str
    content: bytes


class Section(NamedTuple):
    """Rows of one table in a chunk."""

    what: str
    columns: list[str]
    rows: list[list[Any]]


# -- writing ---------------------------------------------------------------------------


_line = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def in_slices(items: Iterable[T], pause_s: float = SLICE_PAUSE_S) -> Iterator[T]:
    """Yield items, with pauses that let other threads run. They would wait for 5 ms otherwise."""
    for index, item in enumerate(items, 1):
        yield item
        if index % SLICE_ROWS == 0:
            pause(pause_s)


def encode(what: str, rows: Sequence[Row], encoding: str, pause_s: float = SLICE_PAUSE_S) -> Chunk:
    """Make a chunk of rows of one table: each is a named tuple of its columns."""
    return _chunk(what, len(rows), [rows[0]._fields, *rows], encoding, pause_s)


def encode_whole(
    tables: Mapping[str, Sequence[tuple[Any, ...]]],
    encoding: str,
    pause_s: float = SLICE_PAUSE_S,
) -> Chunk:
    """Make one chunk of all rows of a session, by table: each is a tuple of its columns."""
    lines: list[Any] = []
    for what in TABLES:
        if tables[what]:
            lines += [{what: [*COLUMNS[what]]}, *tables[what]]
    return _chunk(WHOLE, sum(map(len, tables.values())), lines, encoding, pause_s)


def _chunk(what: str, rows: int, lines: list[Any], encoding: str, pause_s: float) -> Chunk:
    text = "".join(f"{_line(value)}\n" for value in in_slices(lines, pause_s)).encode()
    content = _compressed(text, encoding, _dictionary_of(what))
    return Chunk(what, rows, len(text), hashlib.sha256(text).hexdigest(), content)


def _dictionary_of(what: str) -> bytes:
    return DICTIONARY if what == WHOLE else b""


def _compressed(text: bytes, encoding: str, dictionary: bytes) -> bytes:
    if encoding == "zlib":
        packer = zlib.compressobj(6, zdict=dictionary) if dictionary else zlib.compressobj(6)
        return packer.compress(text) + packer.flush()
    import zstandard

    return zstandard.ZstdCompressor(level=6, dict_data=_zstd_dictionary(dictionary)).compress(text)


@cache
def _zstd_dictionary(dictionary: bytes) -> Any:
    import zstandard

    if not dictionary:
        return None
    return zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


# -- reading ---------------------------------------------------------------------------


def decode(
    chunk: Stored,
    encoding: str,
    session_no: int,
    session_id: str,
    pause_s: float = SLICE_PAUSE_S,
) -> list[Section]:
    """Return a chunk's rows, table by table.

    Raises:
        StoreDamaged: the chunk is not what was written, or a restore could not put it back.
        InvalidInput: the chunk is compressed with a module that is not installed here.
    """
    try:
        return _decode(chunk, encoding, session_no, session_id, pause_s)
    except Wrong as error:
        raise damaged(session_id, f"{_name(chunk, session_id)} {error}") from error


def damaged(session_id: str, what: str) -> StoreDamaged:
    """Return the error for a damaged archive. `what` is a sentence without its full stop."""
    return StoreDamaged(f"{what}. {_WAY_OUT}", session_id=session_id)


def damage(
    chunk: Stored, encoding: str, session_no: int, session_id: str, order: Order
) -> str | None:
    """Return how a chunk differs from what was written, or None.

    `order` has taken the chunks before it, and takes this one.

    Raises:
        InvalidInput: the chunk is compressed with a module that is not installed here.
    """
    try:
        for section in _decode(chunk, encoding, session_no, session_id, SLICE_PAUSE_S):
            order.take(section.what, section.rows)
    except Wrong as error:
        order.skip()
        return f"{_name(chunk, session_id)} {error}"
    return None


def _name(chunk: Stored, session_id: str) -> str:
    return f"chunk {chunk.chunk_no} of the archive of session {session_id}"


def _decode(
    chunk: Stored, encoding: str, session_no: int, session_id: str, pause_s: float
) -> list[Section]:
    """Decode a chunk. Raises Wrong."""
    if chunk.what not in _ROWS_MAX:
        raise Wrong(f"holds rows of {chunk.what[:40]!r}, which is no table that is archived")
    if not 1 <= chunk.rows <= _ROWS_MAX[chunk.what]:
        raise Wrong(
            f"claims {chunk.rows:,} rows of {chunk.what}, "
            f"and can have 1 to {_ROWS_MAX[chunk.what]:,}"
        )
    try:
        text = _unpacked(
            chunk.content,
            encoding,
            bytes_max(chunk.what, chunk.rows),
            _dictionary_of(chunk.what),
        )
    except Wrong as error:
        raise Wrong(f"cannot be decompressed ({error})") from error
    if hashlib.sha256(text).hexdigest() != chunk.sha256:
        raise Wrong("is not what was written: its hash differs")
    found = text.count(b"\n") - _heads(chunk.what, text)
    if found != chunk.rows or not text.endswith(b"\n"):
        raise Wrong(f"has {max(0, found)} rows instead of {chunk.rows}")
    sections: list[Section] = []
    missing: list[Any] = []
    for number, line in enumerate(in_slices(_lines(text), pause_s)):
        try:
            if number == 0 or _is_head(chunk.what, line):
                what, missing = _head(chunk.what, line)
                sections.append(Section(what, [*COLUMNS[what]], []))
                continue
            values = _values(line) + missing
            check_row(sections[-1].what, values, session_no, session_id)
        except Wrong as error:
            raise Wrong(f"is not what was written: its line {number + 1} {error}") from error
        sections[-1].rows.append(values)
    return sections


def _is_head(chunk_what: str, line: bytearray) -> bool:
    """Return whether a line names a table, in a chunk of several. A row is a list."""
    return chunk_what == WHOLE and line.startswith(b"{")


def _heads(chunk_what: str, text: bytearray) -> int:
    """Return how many lines of a chunk are no rows: those that `_is_head` tells, and the first."""
    return 1 + text.count(b"\n{") if chunk_what == WHOLE else 1


def _head(chunk_what: str, line: bytearray) -> tuple[str, list[Any]]:
    """Return the table whose rows follow, and the values of columns that they do not have.

    Raises:
        Wrong: the line does not name a table and its columns.
    """
    if chunk_what != WHOLE:
        return chunk_what, _missing(chunk_what, _values(line))
    named = _decoded(line)
    if not isinstance(named, dict) or len(named) != 1:
        raise Wrong("does not name a table")
    [(what, names)] = named.items()
    if what not in TABLES or not isinstance(names, list):
        raise Wrong("does not name a table that is archived")
    return what, _missing(what, names)


def bytes_max(what: str, rows: int) -> int:
    """Return how long the text of a chunk can be.

    It holds a single row, a page that `archive_rows.read_page` bounds, or a small session.
    """
    return (
        ARCHIVE_ROW_BYTES_MAX
        if rows <= 1 or what in (SESSION, BINDING, WHOLE)
        else ARCHIVE_PAGE_BYTES_MAX
    )


def _lines(text: bytearray) -> Iterator[bytearray]:
    """Yield lines, one copy at a time: a chunk may be one line of 100 MB."""
    start = 0
    while (end := text.find(b"\n", start)) >= 0:
        yield text[start:end]
        start = end + 1


def _values(line: bytearray) -> list[Any]:
    """Decode one line. Raises Wrong if it is no list, or has too many values."""
    values = _decoded(line)
    if not isinstance(values, list):
        raise Wrong("is not a list")
    return values


def _decoded(line: bytearray) -> Any:
    """Decode one line. Raises Wrong if it is not JSON, or has too many values."""
    try:
        text = line.decode()
        if has_more_values(text, ENTRY_VALUES_MAX):
            raise Wrong(f"is made of too many values: more than {ENTRY_VALUES_MAX:,}")
        return json.loads(text)
    except Wrong:
        raise
    except RecursionError:
        raise Wrong("is nested too deeply") from None
    except ValueError as error:
        raise Wrong(f"is not JSON ({error})") from None


def _missing(what: str, names: list[Any]) -> list[Any]:
    """Return the values of the columns that a chunk does not have, by its first line.

    Raises:
        Wrong: the line is not the names of the table's columns, today's or those of before.
    """
    columns = list(COLUMNS[what])
    missing, added = len(columns) - len(names), _ADDED.get(what, [])
    known = [_RENAMED.get(name, name) if isinstance(name, str) else name for name in names]
    if known != columns[: len(names)] or missing > len(added):
        raise Wrong(f"does not begin with the columns of {what}")
    return added[len(added) - missing :]


def rows_of(chunk: Stored) -> Iterator[tuple[str, list[Any]]]:
    """Yield the rows that are left of a damaged chunk, each with its table.

    These are the lines before the point where decompression fails, as long as they are
    lists of the right length. `check_row` judges the values. Memory is bounded as in
    `decode`.

    Raises:
        InvalidInput: the chunk is compressed with a module that is not installed here.
    """
    if chunk.what not in _ROWS_MAX:
        return
    text = _unpacked_until_damage(
        bytes(chunk.content), bytes_max(chunk.what, chunk.rows), _dictionary_of(chunk.what)
    )
    text += b"\n"
    what, missing = "", list[Any]()
    for line in _lines(text):
        if not what or _is_head(chunk.what, line):
            try:
                what, missing = _head(chunk.what, line)
            except Wrong:
                return
            continue
        try:
            values = _values(line) + missing
        except Wrong:
            continue
        if len(values) == len(COLUMNS[what]):
            yield what, values


# -- decompressing ---------------------------------------------------------------------


def _unpacked(content: bytes, encoding: str, size_max: int, dictionary: bytes = b"") -> bytearray:
    """Decompress a whole chunk. Raises Wrong."""
    out = bytearray()
    try:
        for part in _parts(content, encoding, dictionary):
            out += part
            if len(out) > size_max:
                raise Wrong(f"it unpacks to more than {size_max:,} bytes")
    except zlib.error as error:
        raise Wrong(str(error)) from error
    return out


def _unpacked_until_damage(content: bytes, size_max: int, dictionary: bytes) -> bytearray:
    """Decompress a chunk up to its damage. Its encoding may be lost, so the first bytes decide."""
    encoding = "zstd" if content[:4] == b"\x28\xb5\x2f\xfd" else "zlib"
    out = bytearray()
    try:
        for part in _parts(content, encoding, dictionary):
            out += part[: size_max - len(out)]
            if len(out) >= size_max:
                break
    except (Wrong, zlib.error):
        pass  # the bytes before the damage are in `out`
    return out


def _parts(content: bytes, encoding: str, dictionary: bytes = b"") -> Iterator[bytes]:
    """Yield a chunk's text in small parts. No memory is allocated for the size that it claims."""
    parts = _zlib_parts if encoding == "zlib" else _zstd_parts
    return parts(content, dictionary)


def _zlib_parts(content: bytes, dictionary: bytes) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(zdict=dictionary)
    for start in range(0, len(content), _FED_BYTES):
        waiting = content[start : start + _FED_BYTES]
        while waiting and not unpacker.eof:
            yield unpacker.decompress(waiting, _READ_BYTES)
            waiting = unpacker.unconsumed_tail
    while not unpacker.eof and (part := unpacker.decompress(b"", _READ_BYTES)):
        yield part
    if not unpacker.eof:
        raise Wrong("it ends too early")


def _zstd_parts(content: bytes, dictionary: bytes) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise InvalidInput(
            "an archive in it is compressed with zstd. To read it, install the extra: "
            "pip install 'sessiondb[zstd]'"
        ) from error
    try:
        unpacker = zstandard.ZstdDecompressor(
            max_window_size=ARCHIVE_WINDOW_BYTES_MAX, dict_data=_zstd_dictionary(dictionary)
        )
        with unpacker.stream_reader(content) as stream:
            while part := stream.read(_READ_BYTES):
                yield part
    except zstandard.ZstdError as error:
        raise Wrong(str(error)) from error


# -- rows ------------------------------------------------------------------------------


def check_row(what: str, values: list[Any], session_no: int | None, session_id: str | None) -> None:
    """Raise Wrong unless a restore can put this row back.

    With `session_no` and `session_id` the row must also belong to that session.
    """
    if len(values) != len(COLUMNS[what]):
        raise Wrong(f"has {len(values)} values for {len(COLUMNS[what])} columns")
    for value, allowed, name in zip(values, _ALLOWED[what], COLUMNS[what], strict=True):
        kind = type(value)
        if kind not in allowed:
            raise Wrong(f"has a value of the wrong type for {name}")
        if kind is int and not -(1 << 63) <= value < 1 << 63:
            raise Wrong(f"has a number for {name} that has more than 64 bits")
        if kind is str and not value.isascii():
            _check_text(name, value)
    owner_no = values[KEY[what]] >> SEQ_BITS if what == ENTRY else values[OWNER[what]]
    if session_no is not None and owner_no != session_no:
        raise Wrong("belongs to another session")
    _check_rules(what, values, session_id)


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Wrong(f"has a text for {name} that is not Unicode") from None


def _check_rules(what: str, values: list[Any], session_id: str | None) -> None:
    """Apply the named rules of the schema. They would refuse the row in the middle of a restore."""
    if what == SESSION and session_id is not None and values[1] != session_id:
        raise Wrong("names another session")
    if what == BINDING and values[4] is not None and not _is_json(values[4]):
        raise Wrong("has details that are not JSON")
    if what == BRANCH and (values[0] < 1 or (values[2] is None) != (values[3] is None)):
        raise Wrong("is a branch without a number, or with half a parent")
    if what == EPOCH and (values[1] < 0 or values[2] not in _EPOCH_REASONS):
        raise Wrong("is an epoch with an impossible number or reason")
    if what == ENTRY and not 0 <= values[6] <= 4:
        raise Wrong(f"has projection {values[6]}")


def _is_json(text: str) -> bool:
    if has_more_values(text, ENTRY_VALUES_MAX):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class Order:
    """The order of one archive's chunks: tables follow one another, and keys only grow.

    An idempotency key may come once, and a branch only after the one that it leaves from. A
    restore could not put anything else back.
    """

    def __init__(self) -> None:
        self._table = -1
        self._last: Any = None
        self._skipped = False
        self._keys: set[bytes] = set()  # hashes, because a planted key may be long
        self._branches: set[int] = set()
        self._knows_branches = True
        self.branches_elsewhere: set[int] = set()
        """Branches that others leave from and that are not in the archive.

        They belong to the session that this one was forked from, or do not exist.
        """
        self.gaps: list[tuple[int, int]] = []
        """Missing entries: ranges of seq, both ends included.

        The rest can be restored without them.
        """

    def take(self, what: str, rows: Sequence[list[Any]]) -> None:
        """Take the next chunk. Raises Wrong if it cannot follow the others."""
        table = TABLES.index(what)
        if (
            table < self._table
            or (table == self._table and what in (SESSION, BINDING))
            or (self._table == -1 and what != SESSION)
        ):
            raise Wrong(
                f"holds rows of {what}, which cannot come "
                f"{'first' if self._table == -1 else 'here'}"
            )
        if table != self._table:
            self._table, self._last = table, None
        for values in rows:
            key = values[KEY[what]]
            if self._last is not None and key <= self._last:
                raise Wrong(
                    f"is out of order: {_number(what, key)} comes after {_number(what, self._last)}"
                )
            if what == ENTRY:
                self._note_gap(key)
                self._note_key(values)
            elif what == BRANCH:
                self._note_branch(values[0], values[2])
            self._last, self._skipped = key, False

    def skip(self) -> None:
        """Pass a damaged chunk. Its rows are unknown, so gaps and branches after it are, too."""
        self._table, self._last, self._skipped = max(self._table, 0), None, True
        self._knows_branches = False

    def _note_key(self, values: list[Any]) -> None:
        text = values[_IDEMPOTENCY_KEY]
        if text is None or len(self._keys) >= _NOTED_MAX:
            return
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key in self._keys:
            raise Wrong(
                f"has an idempotency key twice: {_number(ENTRY, values[0])} has that of an entry "
                "before it"
            )
        self._keys.add(key)

    def _note_branch(self, branch_no: int, parent_no: int | None) -> None:
        if len(self._branches) >= _NOTED_MAX:
            self._knows_branches = False
        if not self._knows_branches:
            return
        if (
            parent_no is not None
            and parent_no not in self._branches
            and len(self.branches_elsewhere) < _GAPS_MAX
        ):
            self.branches_elsewhere.add(parent_no)
        self._branches.add(branch_no)

    def _note_gap(self, entry_no: int) -> None:
        seq, due = entry_no & SEQ_MAX, 0 if self._last is None else (self._last & SEQ_MAX) + 1
        # An imported file may have no header.
        if seq > max(due, self._last is None) and not self._skipped and len(self.gaps) < _GAPS_MAX:
            self.gaps.append((due, seq - 1))


def _number(what: str, key: Any) -> str:
    return f"{what} {key & SEQ_MAX if what == ENTRY else repr(key)[:80]}"
