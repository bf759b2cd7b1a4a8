"""The bytes of an imported index: a short one on its receipt, a long one in pieces.

A piece is a row of `quarantine`: its bytes are no entry. The pieces of one content have a range
of byte offsets of their own, below those of any line. The receipt names the range that counts
(`import_file.head_byte`), and is written last. So an import that ends in between leaves the
content as it was, and pieces that nothing names. The receipt says `reading` until then. The next
import of the index deletes such pieces and begins anew.

No transaction stores or deletes more than a piece, and none reads more than a page of them.
Earlier releases kept every index on its receipt. It is read whole, and is in pieces once it is
imported again with another content.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from sessiondb.backend import Backend, ReadTx, Tx
from sessiondb.clock import random_bits
from sessiondb.errors import StoreBusy
from sessiondb.limits import IMPORT_BATCH_BYTES, INDEX_RANGE_BYTES, PAGE_ROWS

from .import_run import ImportRun
from .source import Overtaken

if TYPE_CHECKING:
    from sessiondb import statements

PIECE_BYTES: Final = IMPORT_BATCH_BYTES
READS_MAX: Final = 100
RETRY_AFTER_MS: Final = 1_000
_RANGE_BITS: Final = 30
_REASON: Final = "a piece of an index"


@dataclass(frozen=True, slots=True)
class IndexReceipt:
    """What the receipt of an index says about its file."""

    path: str
    name: str
    agent_id: str
    bytes: int
    lines: int
    entries: int
    sha256: str | None
    inode: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """An index as an earlier import has stored it."""

    content: bytes | None
    """None: its first import has not come to its end."""
    sha256: str | None
    note: str | None
    is_unfinished: bool
    """A later import of it has ended early, or has left pieces that do not count."""


async def load(backend: Backend, path: str, *, op: str) -> StoredIndex | None:
    """Return an index as it is stored, or None. It is read in pages.

    Raises:
        StoreBusy: it was imported anew again and again meanwhile.
    """
    for _ in range(READS_MAX):
        found = await backend.read(partial(_begin_reading, path=path), op=op)
        if found is None:
            return None
        row, content = found
        if row.head_byte is not None:
            content = await _pieces(backend, path, row.head_byte, op=op)
            if content is None:
                continue
        is_unfinished = row.state == "reading" or bool(row.has_leftovers)
        return StoredIndex(content, row.sha256, row.note, is_unfinished)
    raise StoreBusy(
        f"{path}: this index was imported anew again and again while it was read. "
        "Try again when no import runs",
        retry_after_ms=RETRY_AFTER_MS,
    )


def _begin_reading(tx: ReadTx, path: str) -> tuple[statements.ImportFileIndex, bytes | None] | None:
    """Return the receipt of an index, and its content if that is not in pieces."""
    row = tx.first("import_file.index", path=path)
    if row is None:
        return None
    return row, tx.one("import_file.index_content", path=path).content


async def _pieces(backend: Backend, path: str, head_byte: int, *, op: str) -> bytes | None:
    """Return the content of some pieces. None: they are not those of the index any more."""
    content: list[bytes] = []
    after_offset = head_byte - 1
    while True:
        page = await backend.read(
            partial(_page, path=path, head_byte=head_byte, after_offset=after_offset), op=op
        )
        if page is None:
            return None
        if not page:
            return b"".join(content)
        content += [piece.content for piece in page]
        after_offset = page[-1].byte_offset


def _page(
    tx: ReadTx, *, path: str, head_byte: int, after_offset: int
) -> list[statements.ImportFileIndexPieces] | None:
    row = tx.one("import_file.index", path=path)
    if row.head_byte != head_byte:
        return None
    return tx.page(
        "import_file.index_pieces",
        import_file_no=row.import_file_no,
        after_offset=after_offset,
        end_offset=head_byte + INDEX_RANGE_BYTES,
        limit=PAGE_ROWS,
    ).rows


async def save(run: ImportRun, content: bytes, receipt: IndexReceipt) -> None:
    """Store an index with its receipt, and delete the pieces that it had before.

    Raises:
        Overtaken: another import stores the index, too.
    """
    if len(content) > PIECE_BYTES:
        pieces = await _store_pieces(run, content, receipt)
        await run.write(partial(_name_pieces, pieces=pieces, receipt=receipt))
    else:
        await run.write(
            partial(_save, receipt=receipt, content=content, head_byte=None), size=len(content)
        )
    await tidy(run, receipt.path)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The pieces of one content: whose they are, where they begin, and how many there are."""

    import_file_no: int
    head_byte: int
    count: int


async def _store_pieces(run: ImportRun, content: bytes, receipt: IndexReceipt) -> _Pieces:
    # A range that no other import of the index has. One that began with the next free number would
    # take that of an import whose pieces were deleted meanwhile, and would mix with it.
    head_byte = -(1 + random_bits(_RANGE_BITS)) * INDEX_RANGE_BYTES
    pieces = _Pieces(0, head_byte, 0)
    for at in range(0, len(content), PIECE_BYTES):
        piece = content[at : at + PIECE_BYTES]
        keep = partial(_keep, pieces=pieces, receipt=receipt, at=head_byte + at, piece=piece)
        pieces = await run.write(keep, size=len(piece))
    return pieces


def _begin(tx: Tx, receipt: IndexReceipt) -> int:
    """Begin to store an index, and return the number of its receipt."""
    return tx.one(
        "import_file.begin_index",
        path=receipt.path,
        name=receipt.name,
        agent_id=receipt.agent_id,
        inode=receipt.inode,
        now_ms=tx.stamp_ms,
    ).import_file_no


def _keep(tx: Tx, pieces: _Pieces, receipt: IndexReceipt, at: int, piece: bytes) -> _Pieces:
    """Store one more piece."""
    if pieces.count:
        _check(tx, pieces)
    else:
        pieces = replace(pieces, import_file_no=_begin(tx, receipt))
    tx.run(
        "import_file.keep",
        import_file_no=pieces.import_file_no,
        line=0,
        byte_offset=at,
        after_seq=-1,
        reason=_REASON,
        severity="blank",
        content=piece,
        entry_id=None,
        waits_for=None,
    )
    return replace(pieces, count=pieces.count + 1)


def _check(tx: Tx, pieces: _Pieces) -> None:
    """Refuse to go on with pieces that are not all there.

    Another import of the index deletes those that its receipt does not name.
    """
    found = tx.one(
        "import_file.count_pieces",
        import_file_no=pieces.import_file_no,
        first_offset=pieces.head_byte,
        end_offset=pieces.head_byte + INDEX_RANGE_BYTES,
    )
    if found.pieces != pieces.count:
        raise Overtaken("another import is storing it too; import again when that is done")


def _name_pieces(tx: Tx, pieces: _Pieces, receipt: IndexReceipt) -> None:
    _check(tx, pieces)
    _save(tx, receipt, None, pieces.head_byte)


def _save(tx: Tx, receipt: IndexReceipt, content: bytes | None, head_byte: int | None) -> None:
    tx.run(
        "import_file.save_index",
        now_ms=tx.stamp_ms,
        content=content,
        head_byte=head_byte,
        path=receipt.path,
        name=receipt.name,
        agent_id=receipt.agent_id,
        bytes=receipt.bytes,
        lines=receipt.lines,
        entries=receipt.entries,
        sha256=receipt.sha256,
        inode=receipt.inode,
        note=receipt.note,
    )


async def tidy(run: ImportRun, path: str) -> None:
    """Delete the pieces of an index that do not count, one in each step. May be repeated."""

    def drop(tx: Tx) -> bool:
        tx.run("import_file.drop_piece", path=path)
        return bool(tx.one("import_file.index", path=path).has_leftovers)

    row = await run.backend.read(
        lambda tx: tx.one("import_file.index", path=path), op="import.index"
    )
    has_leftovers = bool(row.has_leftovers)
    while has_leftovers:
        has_leftovers = await run.write(drop)
    if row.state == "reading":
        await run.write(lambda tx: tx.run("import_file.end_index", path=path))
