"""Verify the receipts of imported files: what an export would write has their hash.

The bytes of a file are put together here a second time, from its session's entries and the
pieces that are no entries, and hashed. A receipt has the SHA-256 of so many bytes, the lines
among them, the last entry, and whether they end in a line end. Two names of one file share a
session. After an interrupted import the receipt of one may lag behind, so each is compared with
as many bytes as it counts.

Not comparable are a file that was imported with `--redact`, whose receipt has the hash of what
is not stored, and one of which a salvage found only a part. Its hash is NULL, and its note says
so. Their counts are compared all the same, where they are of what is stored.

An index has no session. Its bytes are on its receipt, or are pieces.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sessiondb.backend import ReadTx
from sessiondb.limits import INDEX_RANGE_BYTES, PAGE_ROWS
from sessiondb.models import BEHIND_ENTRY, BYTES_OF_ENTRY, REDACTED, SALVAGED
from sessiondb.transcript.paths import entry_number, seq_of

from .verify_steps import SessionFindings, Steps, single

if TYPE_CHECKING:
    from hashlib import _Hash

    from sessiondb import statements

_BLANK: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
# A line that is longer than an entry may be is kept in pieces, and each is called damaged.
_SHORT_BYTES: Final = 64 * 1024


@dataclass(slots=True)
class _Prefix:
    """The first bytes of a file: their number, hash, line ends, last byte and last entry."""

    size: int
    digest: _Hash
    line_ends: int
    ends_in_newline: bool
    last_seq: int

    @property
    def lines(self) -> int:
        return self.line_ends + (self.size > 0 and not self.ends_in_newline)

    def add(self, content: bytes) -> None:
        """Go on with further bytes."""
        self.size += len(content)
        self.digest.update(content)
        self.line_ends += content.count(b"\n")
        if content:
            self.ends_in_newline = content.endswith(b"\n")


def _nothing() -> _Prefix:
    return _Prefix(0, hashlib.sha256(), 0, True, 0)


class ReceiptWalk:
    """The walk over the bytes of one session's file, or of a file without an entry.

    `moved` is True if an import went on, or the session was archived, meanwhile. Then the walk
    says nothing: make another.
    """

    def __init__(
        self, session_no: int | None, import_file_no: int, findings: SessionFindings
    ) -> None:
        """Take the receipt that has the pieces: the first one of the session."""
        self._session_no = session_no
        self._import_file_no = import_file_no
        self._findings = findings
        self.moved = False
        self._receipts: list[statements.VerifyReceipts] = []
        self._found: dict[int, _Prefix] = {}  # by receipt
        self._seen = _nothing()
        self._entries: deque[tuple[int, bytes]] = deque()
        self._pieces: deque[statements.VerifyPieces] = deque()
        self._next_no = self._last_no = 0
        self._after_offset = -1
        self._no_more_entries = self._no_more_pieces = False
        self._line: tuple[bytes, int] | None = None
        self._has_early = False

    def steps(self) -> Steps:
        """Yield the steps."""
        yield from single(self._begin)
        if not self._receipts:
            return
        while not self._is_read:
            yield self._page
        yield self._end

    @property
    def _is_read(self) -> bool:
        return not (
            self._entries or self._pieces or not self._no_more_entries or not self._no_more_pieces
        )

    @property
    def _owner(self) -> statements.VerifyReceipts:
        return self._receipts[0]

    def _read_receipts(self, tx: ReadTx) -> list[statements.VerifyReceipts]:
        return tx.all(
            "verify.receipts", session_no=self._session_no, import_file_no=self._import_file_no
        )

    def _end(self, tx: ReadTx) -> None:
        # An import that goes on deletes the last piece, and an archive the entries.
        self._end_line(ends=bool(self._owner.final_newline))
        self.moved = self._read_receipts(tx) != self._receipts
        if self.moved:
            self._findings.found.clear()
        else:
            self._judge()

    def _begin(self, tx: ReadTx) -> None:
        self._receipts = self._read_receipts(tx)
        if not self._receipts or self._owner.archived_at_ms is not None:
            # An export writes no archived session. Its chunks have hashes of their own.
            self._receipts = []
            return
        if self._session_no is None:
            self._no_more_entries = True
            return
        self._next_no = entry_number(self._session_no, 0)
        self._last_no = entry_number(self._session_no, self._owner.entries)

    # -- putting the file together -----------------------------------------------------

    def _page(self, tx: ReadTx) -> None:
        if not self._entries and not self._no_more_entries:
            self._read_entries(tx)
        if not self._pieces and not self._no_more_pieces:
            self._read_pieces(tx)
        while (self._entries or self._no_more_entries) and (self._pieces or self._no_more_pieces):
            if self._pieces and (
                not self._entries or self._pieces[0].after_seq < self._entries[0][0]
            ):
                self._take_piece(self._pieces.popleft())
            elif self._entries:
                self._take_entry(*self._entries.popleft())
            else:
                return

    def _read_entries(self, tx: ReadTx) -> None:
        page = tx.page(
            "import_file.payloads",
            low_no=self._next_no,
            high_no=self._last_no,
            import_file_no=self._import_file_no,
            limit=PAGE_ROWS,
        )
        self._entries.extend((seq_of(row.entry_no), row.content) for row in page.rows)
        self._no_more_entries = not page.more
        if page.rows:
            self._next_no = page.rows[-1].entry_no + 1

    def _read_pieces(self, tx: ReadTx) -> None:
        page = tx.page(
            "verify.pieces",
            import_file_no=self._import_file_no,
            after_offset=self._after_offset,
            limit=PAGE_ROWS,
        )
        self._pieces.extend(page.rows)
        self._no_more_pieces = not page.more
        if page.rows:
            self._after_offset = page.rows[-1].byte_offset

    def _take_entry(self, seq: int, content: bytes) -> None:
        self._end_line(ends=True)
        piece = self._pieces[0] if self._pieces else None
        reason = piece.reason if piece is not None and piece.after_seq == seq else ""
        if reason.startswith(BYTES_OF_ENTRY):
            self._seen.last_seq = seq  # the piece is what the file has in the place of the text
            return
        self._line = (content, seq)

    def _end_line(self, *, ends: bool) -> None:
        """Take the last entry. Only what comes behind it tells whether its line ends."""
        if self._line is not None:
            content, seq = self._line
            self._line = None
            self._take(content + b"\n" if ends else content, seq)

    def _take_piece(self, piece: statements.VerifyPieces) -> None:
        self._end_line(ends=piece.reason != BEHIND_ENTRY)
        where = f"the quarantined piece of {self._owner.path} at byte {piece.byte_offset}"
        if _is_salvaged(self._owner):
            if piece.severity == "early":
                self._line = (piece.content, piece.entry_seq or 0)
            else:
                self._take(piece.content, None)
            return
        if piece.line != self._seen.line_ends + 1:
            self._findings.add(
                "source",
                f"{where} is said to be of line {piece.line}, "
                f"but it is of line {self._seen.line_ends + 1}",
            )
        if piece.byte_offset != self._seen.size and not _is_incomparable(self._owner):
            self._findings.add("source", f"{where} lies at byte {self._seen.size}")
        if piece.severity == "early":
            self._take_early(piece, where)
            return
        # A byte order mark is one at the beginning of a file, and a damaged line anywhere else.
        is_mark = self._seen.size == 0 and piece.content == _BOM
        is_blank = is_mark or not piece.content.strip(_BLANK)
        # Of a long line that is kept in pieces, all are called damaged, whatever one holds.
        is_whole = self._seen.ends_in_newline and len(piece.content) < _SHORT_BYTES
        if piece.severity != ("blank" if is_blank else "damaged") and (is_whole or not is_blank):
            self._findings.add(
                "source",
                f"{where} is called {piece.severity}, "
                f"but it is {'blank' if is_blank else 'not blank'}",
            )
        self._take(piece.content, None)

    def _take_early(self, piece: statements.VerifyPieces, where: str) -> None:
        """Go on with an entry that stands before its parent in the file."""
        self._has_early = True
        self._line = (piece.content, piece.entry_seq or 0)
        if (piece.entry_id is None) == (piece.entry_seq is None):
            self._findings.add("source", f"{where} neither waits for its parent nor is an entry")

    def _take(self, content: bytes, seq: int | None) -> None:
        """Add bytes to the file, and note the prefixes of it that receipts count."""
        seen = self._seen
        if seq is not None:
            seen.last_seq = max(seen.last_seq, seq)
        for receipt in self._receipts:
            if seen.size < receipt.bytes <= seen.size + len(content):
                prefix = replace(seen, digest=seen.digest.copy())
                prefix.add(content[: receipt.bytes - seen.size])
                self._found[receipt.import_file_no] = prefix
        seen.add(content)

    # -- comparing ---------------------------------------------------------------------

    def _judge(self) -> None:
        for receipt in self._receipts:
            if _is_incomparable(receipt) or _is_incomparable(self._owner):
                continue
            if receipt.sha256 is None:
                self._add(receipt, "has no hash")
                continue
            prefix = self._found.get(receipt.import_file_no) if receipt.bytes else _nothing()
            if prefix is None or (receipt is self._owner and receipt.bytes != self._seen.size):
                self._add(
                    receipt,
                    f"counts {receipt.bytes} bytes, but an export would write {self._seen.size}",
                )
            elif prefix.digest.hexdigest() != receipt.sha256:
                self._add(receipt, "has another hash than what an export would write")
            else:
                self._judge_counts(receipt, prefix)

    def _judge_counts(self, receipt: statements.VerifyReceipts, prefix: _Prefix) -> None:
        counts = [("lines", receipt.lines, prefix.lines)]
        if receipt is self._owner or not self._has_early:
            # An early line has its number from a later time than the bytes around it.
            last_seq = max(prefix.last_seq, receipt.placed_seq)
            counts.append(("entries", receipt.entries, last_seq))
        for what, stored, due in counts:
            if stored != due:
                self._add(receipt, f"counts {stored} {what}, but there are {due}")
        if bool(receipt.final_newline) != prefix.ends_in_newline:
            says = "ends" if receipt.final_newline else "does not end"
            self._add(receipt, f"says that it {says} in a line end, which is not so")

    def _add(self, receipt: statements.VerifyReceipts, what: str) -> None:
        self._findings.add("source", f"the receipt of {receipt.path} {what}")


class IndexWalk:
    """The walk over the bytes of an imported index.

    `moved` is True if it was imported anew meanwhile. Then the walk says nothing: make another.
    """

    def __init__(self, import_file_no: int, findings: SessionFindings) -> None:
        self._import_file_no = import_file_no
        self._findings = findings
        self.moved = False
        self._row: statements.VerifyIndex | None = None
        self._seen = _nothing()
        self._next_offset: int | None = None  # of its pieces. None: nothing is left to read
        self._has_gap = False

    def steps(self) -> Steps:
        """Yield the steps."""
        yield from single(self._begin)
        while self._next_offset is not None:
            yield self._page
        if self._row is not None and not self.moved:
            fault = self._fault(self._row)
            if fault is not None:
                self._findings.add("source", f"the receipt of {self._row.path} {fault}")

    def _read_row(self, tx: ReadTx) -> statements.VerifyIndex | None:
        return tx.first("verify.index", import_file_no=self._import_file_no)

    def _begin(self, tx: ReadTx) -> None:
        self._row = self._read_row(tx)
        if self._row is not None:
            self._seen.add(self._row.content or b"")
            self._next_offset = self._row.head_byte

    def _page(self, tx: ReadTx) -> None:
        """Read a page of pieces, in the snapshot that says that they still count."""
        row, next_offset = self._row, self._next_offset
        assert row is not None, "it has pieces"
        assert row.head_byte is not None, "it has pieces"
        assert next_offset is not None, "there is more to read"
        self._next_offset = None
        if self._read_row(tx) != row:
            self.moved = True
            return
        for piece in tx.page(
            "import_file.index_pieces",
            import_file_no=self._import_file_no,
            after_offset=next_offset - 1,
            end_offset=row.head_byte + INDEX_RANGE_BYTES,
            limit=PAGE_ROWS,
        ).rows:
            self._has_gap |= piece.byte_offset != row.head_byte + self._seen.size
            self._seen.add(piece.content)
            self._next_offset = piece.byte_offset + 1

    def _fault(self, row: statements.VerifyIndex) -> str | None:
        """Return how the receipt differs from its content, or None."""
        seen = self._seen
        if row.content is None and row.head_byte is None:
            # The pieces of an index that is imported for the first time come before.
            return "has no content" if row.state != "reading" else None
        if _is_salvaged(row):
            return None
        if self._has_gap:
            return "names pieces of its content that are not there"
        if (row.note or "").startswith(REDACTED):
            return None
        if row.size != seen.size:
            return f"counts {row.size} bytes, but its content has {seen.size}"
        if row.sha256 != seen.digest.hexdigest():
            return "has another hash than its content"
        if row.lines != seen.line_ends:
            return f"counts {row.lines} lines, but its content has {seen.line_ends}"
        return None


def _is_incomparable(receipt: statements.VerifyReceipts) -> bool:
    """Tell whether a receipt's bytes are not those that are stored."""
    return (receipt.note or "").startswith(REDACTED) or _is_salvaged(receipt)


def _is_salvaged(receipt: statements.VerifyReceipts | statements.VerifyIndex) -> bool:
    return receipt.sha256 is None and (receipt.note or "").startswith(SALVAGED)
