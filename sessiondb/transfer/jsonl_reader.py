"""Read a transcript file: bytes to lines, lines to entries, with nothing lost between them.

A file is cut at line feeds only, so a carriage return stays with its line. A line that is an
entry becomes a `Draft` whose text is the line. Everything else (blank, torn, not UTF-8, not JSON,
too long, a byte order mark) becomes a `Kept`: its exact bytes, with its own line end if it has
one. Entries and kept bytes, put one behind the other by their offsets, are the file again.

Memory: one line at a time, and at most `ENTRY_BYTES_MAX` of it. A longer line is kept in pieces.

Reading can begin at any recorded `Place`. So a file that has grown, or whose import was
interrupted, is parsed from there on. The recorded part is only hashed, to see that it is
unchanged. Files are opened for reading only, without following a symbolic link, and read up to
their size at that moment. The next import reads what arrives later.

Runs in worker threads. Holds no lock and knows no database.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from sessiondb.clock import ms_from_iso
from sessiondb.json_text import DamagedLine, decode_object, leading_fields, storable
from sessiondb.limits import (
    ENTRY_BYTES_MAX,
    ENTRY_VALUES_MAX,
    HOLE_BYTES_MAX,
    IMPORT_BATCH_BYTES,
    IMPORT_BATCH_ENTRIES,
    KIB,
    MIB,
)
from sessiondb.models import BEHIND_ENTRY, BYTES_OF_ENTRY
from sessiondb.transcript.entries import Draft, Gap, id_or_none, parse_line
from sessiondb.transcript.formats import PI
from sessiondb.transcript.formats.pi import entry_ms
from sessiondb.transcript.pi_sdk import as_pi
from sessiondb.transcript.registry import formats_in_header

from .redaction import Redactor

if TYPE_CHECKING:
    from hashlib import _Hash

BLOCK_BYTES: Final = MIB
PIECE_BYTES: Final = IMPORT_BATCH_BYTES
# A compressed file that unpacks to more than this is a mistake or an attack. If it is meant, its
# owner can unpack it first. Compression makes a transcript 10 times smaller, one with an image
# several hundred times, and a bomb 10,000 times.
UNPACKED_BYTES_MAX: Final = 4 * 1024 * MIB
UNPACKED_BYTES_FREE: Final = 16 * MIB
UNPACKED_RATIO_MAX: Final = 200
VERSION_MAX: Final = 4
# So much of a line above a limit is looked at for its id and parent. Every known program writes
# these first.
_LEADING_BYTES: Final = 4 * KIB

BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t\r\n"

Severity = Literal["blank", "damaged"]


class Stream(Protocol):
    """The bytes of a file, unpacked if it was compressed."""

    def read(self, count: int, /) -> bytes:
        """Return up to `count` bytes, and none at the end."""


Opener = Callable[[int], AbstractContextManager[Stream]]
"""Opens a transcript for reading from a byte on."""


Links = Mapping[str, str | None]
"""The ids of damaged lines, each with its parent. What follows such a line follows that."""


class UnreadableFile(Exception):
    """A file that cannot be read as a transcript. The message says why and what to do."""


@dataclass(slots=True)
class Kept:
    """Bytes of a file that are not an entry. With a redactor they are without their secrets."""

    line: int
    byte_offset: int
    reason: str
    severity: Severity
    content: bytes
    links: Links = field(default_factory=dict)
    """Of a damaged line: its id, with its parent."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file says about itself: from its header or, without one, from its first entry."""

    version: int
    header_id: str | None
    created_at_ms: int | None
    notes: tuple[str, ...] = ()
    formats: int = PI.bit
    """The message format of its items, by its header. Every transcript of another program is pi's.
    """


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file has been read, and from where on it is read again."""

    bytes: int = 0
    lines: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    resume_at: int = 0
    """Where reading continues: at `bytes`, or at the beginning of a last line that was torn."""
    resume_lines: int = 0
    mid_line: bool = False
    """The bytes at `resume_at` belong to the line of the last entry."""
    ends_in_bytes: bool = False
    """Of that entry the bytes are kept, so its line end is kept behind them."""
    version: int | None = None
    """The transcript's version, when it is known already."""
    formats: int = PI.bit
    final_newline: bool = True
    finished: bool = False
    """The file was read up to its end at that time."""


@dataclass(slots=True)
class FileBatch:
    """A part of a file that is stored in one transaction."""

    before: Place
    items: list[Draft | Kept] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    """The line of each item, and its first byte in the file."""
    bytes: int = 0
    lines: int = 0
    sha256: str = ""
    final_newline: bool = True
    identity: Identity | None = None
    size: int = 0
    last: bool = False
    redacted: Counter[str] | None = None
    """How many secrets were replaced in it, per rule. None: there was no redactor."""
    rules: str | None = None
    """Which rules those of the redactor are."""


class PrefixChanged(Exception):
    """The part of a file that was imported before has changed. The message says how."""


# -- opening ---------------------------------------------------------------------------------------


@contextmanager
def open_transcript(path: str, *, at: int = 0, packed: bool = False) -> Iterator[Stream]:
    """Open a regular file for reading from a byte on. Unpack it if its name ends in `.zst`.

    With `packed` its bytes are those on the disk, whatever its name is.

    Raises:
        UnreadableFile: not a regular file, mostly holes, or compressed while the extra `zstd` is
            missing.
        OSError: it has vanished, or may not be read.
    """
    with held_open(path, packed=packed) as open_at, open_at(at) as stream:
        yield stream


@contextmanager
def held_open(path: str, *, packed: bool = False, inode: str | None = None) -> Iterator[Opener]:
    """Open a file once, and return what reads it from a byte on, as often as wanted, one at a time.

    `inode` is that of the file which was listed at the path. All that is read is of one file, up
    to the size that it has now, whatever takes its name meanwhile.

    Raises:
        UnreadableFile: as `open_transcript`, or another file is at the path now.
        OSError: it has vanished, or may not be read.
    """
    # O_NONBLOCK: opening a named pipe must not block. The pipe is refused below, like everything
    # else that is not a regular file.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        # By hand: no file object can be made of a folder, and the attempt leaves it open.
        os.close(descriptor)
        raise UnreadableFile("not a regular file; it was left alone")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if inode not in (None, f"{found.st_dev}:{found.st_ino}"):
            raise UnreadableFile("another file took its place while the import ran; import again")
        _refuse_holes(descriptor, found.st_size)

        @contextmanager
        def open_at(at: int) -> Iterator[Stream]:
            if packed or not path.endswith(".zst"):
                file.seek(at)
                yield _Bounded(file, found.st_size - at)
                return
            file.seek(0)
            with unpacked(_Bounded(file, found.st_size), found.st_size) as stream:
                while at and (skipped := stream.read(min(at, BLOCK_BYTES))):
                    at -= len(skipped)
                yield stream

        yield open_at


def _refuse_holes(descriptor: int, size: int) -> None:
    """Refuse a file with large holes: they would be stored as the zeros that they are read as."""
    at = holes = 0
    while at < size and holes <= HOLE_BYTES_MAX:
        begin = os.lseek(descriptor, at, os.SEEK_HOLE)
        if begin >= size:
            return
        try:
            at = os.lseek(descriptor, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            at = size  # nothing but the hole is left
        holes += at - begin
    if holes > HOLE_BYTES_MAX:
        raise UnreadableFile(
            f"a sparse file: of its {size:,} bytes at least {holes:,} were never written, and "
            "nothing of it was imported. Restore it from a backup, or import a copy of the part "
            "that was written"
        )


class _Bounded:
    """A file up to the size that it had when it was opened."""

    def __init__(self, file: io.FileIO, left: int) -> None:
        self._file = file
        self._left = left

    def read(self, count: int = BLOCK_BYTES, /) -> bytes:
        data = self._file.read(max(0, min(count, self._left))) or b""
        self._left -= len(data)
        return data


@contextmanager
def unpacked(file: Stream, packed_bytes: int, *, bytes_max: int | None = None) -> Iterator[Stream]:
    """Unpack a zstd stream of so many bytes, up to a bound.

    Raises:
        UnreadableFile: the extra `zstd` is missing. Reading it raises the same for damage, and
            for what unpacks to too much.
    """
    most = UNPACKED_BYTES_MAX if bytes_max is None else bytes_max
    limit = min(most, UNPACKED_BYTES_FREE + UNPACKED_RATIO_MAX * packed_bytes)
    try:
        import zstandard
    except ImportError as error:
        raise UnreadableFile(
            "compressed; to read it, install the extra: pip install 'sessiondb[zstd]'"
        ) from error
    packed: Any = file  # the reader only calls read()
    with zstandard.ZstdDecompressor().stream_reader(
        packed, read_across_frames=True, closefd=False
    ) as stream:
        yield _Unpacked(stream, zstandard.ZstdError, limit)


class _Unpacked:
    """An unpacked stream of bounded size. Damage in it raises `UnreadableFile`."""

    def __init__(self, stream: Stream, error: type[Exception], limit: int) -> None:
        self._stream = stream
        self._error = error
        self._limit = limit
        self._total = 0

    def read(self, count: int, /) -> bytes:
        try:
            data = self._stream.read(count)
        except self._error as error:
            raise UnreadableFile(
                f"its compression is damaged ({error}); "
                "restore it from a backup, or repair it with zstd"
            ) from error
        self._total += len(data)
        if self._total > self._limit:
            raise UnreadableFile(
                f"it unpacks to more than {self._limit:,} bytes; "
                "if that is meant, unpack it and import the result"
            )
        return data


# -- reading ---------------------------------------------------------------------------------------


def read_batches(
    path: str,
    known: Place,
    redactor: Redactor | None = None,
    *,
    opened: Opener | None = None,
    links: Links | None = None,
) -> Iterator[FileBatch]:
    """Yield the part of a file behind a place, in batches that fit one transaction each.

    `opened` opens what is read, if that is not the file at the path. `links` are those of the
    damaged lines before the place.

    The last batch is marked `last`. A file with nothing new yields nothing. Using a place costs
    hashing the part before it. With a redactor the items come without their secrets, and places,
    sizes and hashes still describe the file.

    Raises:
        PrefixChanged: the known part is no longer the same.
        UnreadableFile, OSError: see `open_transcript`.
    """
    open_at = opened or (lambda at: open_transcript(path, at=at))
    with open_at(0) as stream:
        digest, has_more = _check_prefix(stream, known)
    if not has_more:
        # New and empty, or interrupted after its last byte: it still has to be marked as done.
        if not known.finished:
            yield _end_at(known, redactor)
        return
    with open_at(known.resume_at) as stream:
        yield from _Reader(stream, known, digest, redactor, links or {}).batches()


def _end_at(known: Place, redactor: Redactor | None) -> FileBatch:
    whole = replace(known, resume_at=known.bytes)
    redacted = Counter[str]() if redactor is not None else None
    end = FileBatch(
        whole,
        bytes=known.bytes,
        lines=known.lines,
        sha256=known.sha256,
        final_newline=known.final_newline,
        redacted=redacted,
        rules=redactor.fingerprint if redactor is not None else None,
    )
    end.last = True
    return end


def _check_prefix(stream: Stream, known: Place) -> tuple[_Hash, bool]:
    """Hash the known part. Return the hash where reading continues, and whether there is more."""
    digest = hashlib.sha256()
    _hash_bytes(stream, digest, known.resume_at)
    resumed = digest.copy()
    _hash_bytes(stream, digest, known.bytes - known.resume_at)
    if digest.hexdigest() != known.sha256:
        raise PrefixChanged(
            f"its first {known.bytes:,} bytes are no longer those that were imported"
        )
    return resumed, bool(stream.read(1))


def _hash_bytes(stream: Stream, digest: _Hash, count: int) -> None:
    while count:
        block = stream.read(min(count, BLOCK_BYTES))
        if not block:
            raise PrefixChanged(
                f"it has become shorter: {count:,} of the bytes that were imported are gone"
            )
        digest.update(block)
        count -= len(block)


def raw_lines(
    read: Callable[[int], bytes], line_bytes_max: int = ENTRY_BYTES_MAX
) -> Iterator[tuple[bytes, bool, bool]]:
    """Cut a stream at line feeds.

    Yield (bytes with their line feed, whether they begin a line, whether they are a whole line
    that fits). A line above the limit comes in pieces: only the first begins it, none is whole.
    """
    waiting = bytearray()
    begins, fits = True, True
    while block := read(BLOCK_BYTES):
        start = 0
        while (end := block.find(b"\n", start) + 1) > 0:
            line = block[start:end] if not waiting else bytes(waiting) + block[start:end]
            waiting.clear()
            start = end
            yield line, begins, fits and len(line) <= line_bytes_max
            begins = fits = True
        waiting += block[start:] if start else block
        if len(waiting) > line_bytes_max or (waiting and not fits):
            fits = False
            with memoryview(waiting) as view:
                for at in range(0, len(view), PIECE_BYTES):
                    yield bytes(view[at : at + PIECE_BYTES]), begins, False
                    begins = False
            waiting.clear()
    if waiting:
        yield bytes(waiting), begins, fits


class _Reader:
    """Turns one stream into batches."""

    def __init__(
        self,
        stream: Stream,
        known: Place,
        digest: _Hash,
        redactor: Redactor | None,
        links: Links,
    ) -> None:
        self.links = dict(links)
        self.stream = stream
        self.digest = digest
        self.redactor = redactor
        self.redacted: Counter[str] = Counter()
        self.version = known.version
        self.formats = known.formats
        self.identity: Identity | None = None
        self.line = known.resume_lines
        self.offset = known.resume_at
        self.mid_line = known.mid_line
        self.ends_in_bytes = known.ends_in_bytes
        self.batch = FileBatch(before=known)
        self.final_newline = True

    def batches(self) -> Iterator[FileBatch]:
        for raw, begins, fits in raw_lines(self.stream.read):
            if begins and not self.mid_line:
                self.line += 1
            for item, content in self._items(raw, begins=begins, fits=fits):
                if item is not None:
                    self.batch.items.append(item)
                    self.batch.places.append((self.line, self.offset))
                    self.batch.size += len(content)
                self.digest.update(content)
                self.offset += len(content)
                self.final_newline = content.endswith(b"\n") or not content
                # What has no bytes of its own is followed by them, in the same transaction.
                if content and (
                    len(self.batch.items) >= IMPORT_BATCH_ENTRIES
                    or self.batch.size >= IMPORT_BATCH_BYTES
                ):
                    yield self._finish(last=False)
            self.mid_line = self.mid_line and not self.final_newline
        yield self._finish(last=True)

    def _finish(self, *, last: bool) -> FileBatch:
        batch = self.batch
        batch.bytes, batch.lines, batch.sha256 = self.offset, self.line, self.digest.hexdigest()
        batch.final_newline, batch.identity, batch.last = self.final_newline, self.identity, last
        if self.redactor is not None:
            batch.redacted, self.redacted = self.redacted, Counter()
            batch.rules = self.redactor.fingerprint
        # The next batch expects exactly this place: of two imports of one file only one continues.
        self.batch = FileBatch(
            Place(batch.bytes, batch.lines, batch.sha256, batch.bytes, batch.lines)
        )
        return batch

    def _items(
        self, raw: bytes, *, begins: bool, fits: bool
    ) -> Iterator[tuple[Draft | Kept | None, bytes]]:
        """Yield each item with its bytes in the file. Together these are `raw`."""
        if self.mid_line:
            if begins and raw == b"\n" and not self.ends_in_bytes:
                yield None, raw  # the line end that was missing behind the last entry
                return
            yield from self._kept(
                raw, BEHIND_ENTRY, "blank" if not raw.strip(_BLANK) else "damaged"
            )
            return
        if begins and self.offset == 0 and raw.startswith(BOM):
            yield from self._kept(BOM, "a byte order mark", "blank")
            raw = raw[len(BOM) :]
        if not fits:
            reason = f"longer than {ENTRY_BYTES_MAX:,} bytes, the most that an entry may have"
            links = _leading_link(raw) if begins else {}
            yield from self._damaged(raw, reason, links)
        elif not raw.strip(_BLANK):
            yield from self._kept(raw, "blank", "blank")
        else:
            yield from self._entry(raw)

    def _without_secrets(self, raw: bytes) -> bytes:
        return self.redactor.line(raw, self.redacted) if self.redactor is not None else raw

    def _entry(self, raw: bytes) -> Iterator[tuple[Draft | Kept, bytes]]:
        whole = raw.endswith(b"\n")
        stored = self._without_secrets(raw)
        not_utf8: UnicodeDecodeError | None = None
        try:
            try:
                text = (stored[:-1] if whole else stored).decode()
            except UnicodeDecodeError as error:
                not_utf8 = error
                text = (stored[:-1] if whole else stored).decode(errors="replace")
            draft = self._draft(text)
        except (DamagedLine, UnicodeDecodeError, RecursionError) as error:
            reason = _reason(not_utf8 or error)
            reason = reason if whole else f"torn: the file ends inside this line ({reason})"
            yield from self._damaged(raw, reason, link_of(raw) if whole else {}, stored=stored)
            return
        if not_utf8 is None:
            yield draft, raw
            return
        # Read as its own program reads it. An export writes the bytes, and not the entry.
        yield draft, b""
        reason = f"{BYTES_OF_ENTRY} ({_reason(not_utf8)})"
        yield Kept(self.line, self.offset, reason, "damaged", stored), raw

    def _draft(self, text: str) -> Draft:
        """Parse a line. The first one says what the file is.

        Raises:
            DamagedLine, RecursionError: it is no entry.
        """
        if self.version is None:
            self.identity = identify(text)
            self.version = self.identity.version
            self.formats = self.identity.formats
        draft = parse_line(text, self.version, self.formats)
        if self.version < 2:
            # pi's reader gives these entries other ids. An own compaction of the session, which
            # is appended and not imported, names those that they have here.
            draft.first_kept_id = None
        self._link(draft)
        return draft

    def _link(self, draft: Draft) -> None:
        """Let an entry follow what a damaged line before it followed."""
        self.links.pop(draft.entry_id, None)
        draft.parent_id = _past_damage(draft.parent_id, self.links)
        if draft.type == "leaf":
            draft.target_id = _past_damage(draft.target_id, self.links)
        if draft.first_kept_id in self.links:
            draft.first_kept_gap = _gap_at(draft.first_kept_id, self.links)

    def _damaged(
        self, raw: bytes, reason: str, links: Links, *, stored: bytes | None = None
    ) -> Iterator[tuple[Kept, bytes]]:
        """Keep a line that is no entry, or a part of one, with its links."""
        self.links |= links
        for kept, piece in self._kept(raw, reason, "damaged", stored=stored):
            kept.links, links = links, {}
            yield kept, piece

    def _kept(
        self, raw: bytes, reason: str, severity: Severity, *, stored: bytes | None = None
    ) -> Iterator[tuple[Kept, bytes]]:
        """Keep bytes as they are, or as `stored`.

        Long ones are kept in pieces, so that no transaction holds more than one piece.
        """
        if stored is None:
            stored = self._without_secrets(raw)
        # The stored bytes have as many pieces as the file's, because a piece is named by its
        # place in the file.
        count = -(-len(raw) // PIECE_BYTES)
        size = PIECE_BYTES if stored is raw else -(-len(stored) // count)
        for at in range(count):
            piece = raw[at * PIECE_BYTES : (at + 1) * PIECE_BYTES]
            yield (
                Kept(self.line, self.offset, reason, severity, stored[at * size : (at + 1) * size]),
                piece,
            )


def link_of(line: bytes) -> Links:
    """Return the id of a line that is no entry, with its parent, if both can be read."""
    # Decoded, a line of too many values would take 25 times its size.
    values = sum(line.count(mark) for mark in (b"[", b"{", b","))
    if len(line) >= ENTRY_BYTES_MAX or values > ENTRY_VALUES_MAX:
        return _leading_link(line)
    try:
        return _link_in(json.loads(line.decode(errors="replace")))
    except RecursionError:
        return _leading_link(line)
    except ValueError:
        return {}


def _leading_link(line: bytes) -> Links:
    """Return the link with which a line begins, whatever follows it."""
    try:
        return _link_in(leading_fields(line[:_LEADING_BYTES].decode(errors="replace")))
    except ValueError:
        return {}


def _link_in(fields: Any) -> Links:
    entry_id = id_or_none(fields.get("id")) if isinstance(fields, dict) else None
    return {entry_id: id_or_none(fields.get("parentId"))} if entry_id is not None else {}


def _past_damage(entry_id: str | None, links: Links) -> str | None:
    """Return an id, or if it is that of a damaged line, the nearest one before that is not."""
    seen = set()
    while entry_id is not None and entry_id in links and entry_id not in seen:
        seen.add(entry_id)
        entry_id = links[entry_id]
    return entry_id


def _gap_at(named_id: str, links: Links) -> Gap:
    """Return the gap that begins at a damaged line."""
    children: dict[str | None, list[str]] = {}
    for entry_id, parent_id in links.items():
        children.setdefault(parent_id, []).append(entry_id)
    ids, waiting = set[str](), [named_id]
    while waiting:
        entry_id = waiting.pop()
        if entry_id not in ids:
            ids.add(entry_id)
            waiting += children.get(entry_id, ())
    return Gap(_past_damage(named_id, links), frozenset(ids))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start} of the line)"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)


def identify(text: str) -> Identity:
    """Return what a file's first good line says about the file.

    Raises:
        DamagedLine: not a line of a transcript.
    """
    fields = as_pi(decode_object(text)[0])
    if not isinstance(fields.get("type"), str) or not fields["type"]:
        # The rule of `entries.parse_line`: a line that is set aside says nothing about the others.
        raise DamagedLine("no entry type")
    if fields["type"] != "session":
        version = 3 if isinstance(fields.get("id"), str) else 1
        return Identity(
            version,
            None,
            ms_from_iso(fields.get("timestamp")),
            (f"it has no header; read as version {version}",),
        )
    header_id = (
        storable(fields["id"]) if isinstance(fields.get("id"), str) and fields["id"] else None
    )
    version, note = _version(fields.get("version"))
    return Identity(
        version,
        header_id,
        entry_ms(fields) or None,
        (note,) if note else (),
        formats_in_header(fields) or PI.bit,
    )


def _version(value: object) -> tuple[int, str | None]:
    """Return a version and a note on an odd one. pi compares it with numbers, as JavaScript does.

    So 3.0 and "3" are 3, and what is no number is not older than any.
    """
    if value is None:
        return 1, None
    number: float | None = None
    if isinstance(value, str | int | float):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = None
    if number is None or number != number:
        return 3, f"its version is {str(value)[:40]!r}; read as version 3"
    version = max(1, int(min(number, VERSION_MAX)))
    if number > VERSION_MAX:
        return version, f"its version is {value!r}, newer than any known; read as version {version}"
    if version != value or isinstance(value, bool | float):
        return version, f"its version is {str(value)[:40]!r}; read as version {version}"
    return version, None
