"""The bytes of a session's file: of an imported one, of a native one, of a fork.

They are read in pages of bounded size. Each page has a snapshot of its own, and nothing is held
between two pages. Entries never change, so pages of different moments fit together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sessiondb.backend import Backend, ReadTx
from sessiondb.json_text import dumps_again, loads, stored_text
from sessiondb.limits import ENTRY_BYTES_MAX, PAGE_ROWS, SEQ_MAX
from sessiondb.models import BEHIND_ENTRY, BYTES_OF_ENTRY, EARLY
from sessiondb.paging import Page, handed_on
from sessiondb.transcript.paths import entry_number, segments, seq_of, session_of

if TYPE_CHECKING:
    from sessiondb import statements


@dataclass(frozen=True, slots=True)
class _Kept:
    byte_offset: int
    after_seq: int
    content: bytes
    reason: str


async def imported_bytes(
    backend: Backend,
    import_file_no: int,
    session_no: int | None,
    last_seq: int,
    *,
    final_newline: bool,
) -> AsyncIterator[bytes]:
    """Yield the bytes of an imported file as they were.

    Entries and kept pieces are merged by their places. A line end follows an entry, with two
    exceptions: the file ended there, or the next piece began right behind it. The reason of such
    a piece says so, because after a redaction no length would. So does that of a piece that has
    the bytes of the entry before it, which are not its text. An entry that stood before its
    parent is among the pieces.
    """
    line: bytes | None = None  # an entry whose line end depends on what comes next
    async for content, reason in _lines(backend, import_file_no, session_no, last_seq):
        if line is not None:
            yield line if reason == BEHIND_ENTRY else line + b"\n"
        line = content if reason is None or reason.startswith(EARLY) else None
        if line is None:
            yield content
    if line is not None:
        yield line + b"\n" if final_newline else line


async def _lines(
    backend: Backend, import_file_no: int, session_no: int | None, last_seq: int
) -> AsyncIterator[tuple[bytes, str | None]]:
    """Yield entries and kept pieces in the order of the file, each piece with its reason."""
    kept = _KeptPages(backend, import_file_no)
    piece = await kept.next()
    async for seq, content in (
        own_entries(backend, session_no, 0, last_seq, import_file_no)
        if session_no is not None
        else _nothing()
    ):
        while piece is not None and piece.after_seq < seq:
            yield piece.content, piece.reason
            piece = await kept.next()
        reason = piece.reason if piece is not None and piece.after_seq == seq else ""
        if not reason.startswith(BYTES_OF_ENTRY):
            yield content, None
    while piece is not None:
        yield piece.content, piece.reason
        piece = await kept.next()


async def kept_lines(backend: Backend, import_file_no: int) -> AsyncIterator[bytes]:
    """Yield the lines of an imported file that are no entries, in their order.

    Not those that are kept beside their entry, nor those that become one.

    A line that is stored in pieces is put together. Of one that is longer than an entry may be,
    each part of that length is yielded by itself.
    """
    kept = _KeptPages(backend, import_file_no)
    line = bytearray()
    while (piece := await kept.next()) is not None:
        if piece.reason.startswith((BYTES_OF_ENTRY, EARLY)):
            continue
        line += piece.content
        if line.endswith(b"\n") or len(line) >= ENTRY_BYTES_MAX:
            yield bytes(line)
            line.clear()
    if line:
        yield bytes(line)


class _KeptPages:
    """The kept pieces of a file, in order, read in pages of bounded size."""

    def __init__(self, backend: Backend, import_file_no: int) -> None:
        self._backend = backend
        self._import_file_no = import_file_no
        self._after = -1
        self._page: list[_Kept] = []
        self._done = False

    async def next(self) -> _Kept | None:
        if not self._page and not self._done:
            self._page = (await self._backend.read(self._read, op="export.kept"))[::-1]
            self._done = not self._page
            if self._page:
                self._after = self._page[0].byte_offset
        return self._page.pop() if self._page else None

    def _read(self, tx: ReadTx) -> list[_Kept]:
        page = tx.page(
            "import_file.kept",
            import_file_no=self._import_file_no,
            after_offset=self._after,
            limit=PAGE_ROWS,
        )
        return [_Kept(*row) for row in page.rows]


async def own_entries(
    backend: Backend,
    session_no: int,
    first_seq: int,
    last_seq: int,
    import_file_no: int | None = None,
) -> AsyncIterator[tuple[int, bytes]]:
    """Yield a session's own entries in order of arrival.

    With the number of its file: without those that stood before their parents there.
    """
    low_no, high_no = entry_number(session_no, first_seq), entry_number(session_no, last_seq)
    while low_no <= high_no:
        rows, more = await backend.read(
            _entry_page(low_no, high_no, import_file_no), op="export.entries"
        )
        if not rows:
            return
        low_no = rows[-1].entry_no + 1
        for row in handed_on(rows):
            yield seq_of(row.entry_no), row.content
        if not more:
            return


def _entry_page(
    low_no: int, high_no: int, import_file_no: int | None
) -> Callable[[ReadTx], Page[statements.ImportFilePayloads]]:
    return lambda tx: tx.page(
        "import_file.payloads",
        low_no=low_no,
        high_no=high_no,
        import_file_no=import_file_no,
        limit=PAGE_ROWS,
    )


async def _nothing() -> AsyncIterator[tuple[int, bytes]]:
    return
    yield


async def appended_lines(backend: Backend, session_no: int, after_seq: int) -> AsyncIterator[bytes]:
    """Yield the lines of a session's own entries: all that come behind the imported ones."""
    async for _, content in own_entries(backend, session_no, after_seq + 1, SEQ_MAX):
        yield content + b"\n"


async def shared_lines(backend: Backend, session_no: int) -> AsyncIterator[bytes]:
    """Yield the lines that a fork shares with its ancestors: every path its own entries hang on."""
    spans = await backend.read(lambda tx: _shared_spans(tx, session_no), op="export.shared")
    for branch_no, low_no, high_no in spans:
        while low_no <= high_no:
            rows = await backend.read(_shared_page(branch_no, low_no, high_no), op="export.shared")
            if not rows:
                break
            low_no = rows[-1].entry_no + 1
            for row in handed_on(rows):
                yield _as_current(row) + b"\n"


def _shared_spans(tx: ReadTx, session_no: int) -> list[tuple[int, int, int]]:
    """Return ranges of ancestors' entries, in an order in which parents come before children."""
    head_no = tx.one("context.pointers", session_no=session_no).head_no
    low_no, high_no = entry_number(session_no, 0), entry_number(session_no, SEQ_MAX)
    ends = [
        row.parent_no
        for row in tx.all(
            "import_file.foreign_parents", low_no=low_no, high_no=high_no, session_no=session_no
        )
    ]
    reach: dict[int, tuple[int, int]] = {}
    for end_no in [
        *ends,
        *([head_no] if head_no is not None and session_of(head_no) != session_no else []),
    ]:
        for part in segments(tx, end_no):
            low, high = reach.get(part.branch_no, (part.low_no, part.high_no))
            reach[part.branch_no] = (min(low, part.low_no), max(high, part.high_no))
    return sorted(
        ((branch_no, low, high) for branch_no, (low, high) in reach.items()),
        key=lambda span: span[1],
    )


def _shared_page(
    branch_no: int, low_no: int, high_no: int
) -> Callable[[ReadTx], list[statements.ImportFileSharedEntries]]:
    return lambda tx: (
        tx.page(
            "import_file.shared_entries",
            branch_no=branch_no,
            low_no=low_no,
            high_no=high_no,
            limit=PAGE_ROWS,
        ).rows
    )


@stored_text()
def _as_current(row: statements.ImportFileSharedEntries) -> bytes:
    """Return an entry's line in the current version. Only lines of version 1 and 2 change."""
    content = row.content
    entry: dict[str, Any] = loads(content)
    message = entry.get("message")
    old_role = isinstance(message, dict) and message.get("role") == "hookMessage"
    if (
        "id" in entry
        and "parentId" in entry
        and not old_role
        and "firstKeptEntryIndex" not in entry
    ):
        return content.rstrip(b"\r")
    entry = {**entry, "id": row.entry_id, "parentId": row.parent_id}
    if old_role:
        entry["message"] = {**entry["message"], "role": "custom"}
    if entry.pop("firstKeptEntryIndex", None) is not None and row.first_kept_id is not None:
        entry["firstKeptEntryId"] = row.first_kept_id
    return dumps_again(entry).encode()
