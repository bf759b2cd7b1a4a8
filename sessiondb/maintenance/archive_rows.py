"""Move the rows of a session into an archive and back.

Rows are read in pages, stored as chunks, compared with the chunks, and put back. A page is
bounded in rows and bytes, and reading it again gives the same rows, so a chunk that was
written can be found and compared after a kill. Each writing transaction first checks that
the archive's state is still the one that the caller read (`require_state`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from sessiondb import threads
from sessiondb.backend import AnyStatement, Backend, ReadTx, Row, Tx
from sessiondb.batching import BatchSize, last_fitting
from sessiondb.clock import pause
from sessiondb.errors import ConstraintFailed, InvalidInput, StoreBusy, StoreDamaged
from sessiondb.limits import ARCHIVE_CHUNK_BYTES, ARCHIVE_CHUNK_ROWS, SEQ_MAX, STEP_BYTES
from sessiondb.transcript.paths import entry_number
from sessiondb.waiter import sleep

from . import archive_format
from .archive_format import (
    BRANCH,
    ENTRY,
    EPOCH,
    KEY,
    SLICE_PAUSE_S,
    Chunk,
    Section,
    damaged,
    in_slices,
)

if TYPE_CHECKING:
    from sessiondb import statements

PAGED: Final = (BRANCH, EPOCH, ENTRY)
# While callers are active nothing waits for this work: its next step is throttled, and comes
# later than these pauses add up to.
SLICE_PAUSE_BUSY_S: Final = 0.001
# A page of entries is read in pieces of so many rows: converting SQLite's rows to Python's
# holds the interpreter's lock.
READ_ROWS: Final = 40
# A comparison takes no steps that could be throttled. While callers are active, each chunk
# (25 ms of a thread) is followed by a pause of this length.
COMPARE_PAUSE_S: Final = 0.2


# -- pages of a table ------------------------------------------------------------------


def pause_s(backend: Backend) -> float:
    """Return how long work on a thread pauses between two slices."""
    return SLICE_PAUSE_BUSY_S if backend.is_busy else SLICE_PAUSE_S


def _first(what: str, session_no: int) -> int:
    """Return a key that sorts before a table's first row."""
    return {BRANCH: 0, EPOCH: -1, ENTRY: entry_number(session_no, 0) - 1}[what]


def read_page(tx: ReadTx, what: str, session_no: int, after: int, pause_s: float) -> list[Row]:
    """Read the next rows of a table, bounded in number and bytes, the same ones every time.

    They are rows of any of the tables in `PAGED`: they are stored and compared by column.
    """
    if what != ENTRY:
        statement = AnyStatement("archive.branches" if what == BRANCH else "archive.epochs")
        return tx.all(statement, session_no=session_no, after_no=after, limit=ARCHIVE_CHUNK_ROWS)
    low_no, high_no = after + 1, entry_number(session_no, SEQ_MAX)
    sizes = tx.all(
        "import_file.entry_sizes", low_no=low_no, high_no=high_no, limit=ARCHIVE_CHUNK_ROWS
    )
    if not sizes:
        return []
    last_no = last_fitting(sizes, ARCHIVE_CHUNK_BYTES).entry_no
    numbers, rows = [size.entry_no for size in sizes if size.entry_no <= last_no], list[Row]()
    for at in range(0, len(numbers), READ_ROWS):
        if rows:
            pause(pause_s)
        piece = numbers[at : at + READ_ROWS]
        rows += tx.all("archive.entries", low_no=piece[0], high_no=piece[-1])
    return rows


def _reading(backend: Backend, what: str, session_no: int, after: int) -> Any:
    return lambda tx: read_page(tx, what, session_no, after, pause_s(backend))


# -- chunks ----------------------------------------------------------------------------


def put_chunk(tx: Tx, archive_no: int, chunk: Chunk) -> None:
    """Store a chunk behind the others, and count it in the archive's row."""
    store_chunk(tx, archive_no, tx.one("archive.next_chunk", archive_no=archive_no).chunk_no, chunk)
    tx.run(
        "archive.count_chunk",
        archive_no=archive_no,
        rows=chunk.rows,
        bytes=chunk.size,
        bytes_stored=len(chunk.content),
    )


def store_chunk(tx: Tx, archive_no: int, chunk_no: int, chunk: Chunk) -> None:
    """Store a chunk under its number. The archive's row counts it already."""
    tx.run(
        "archive.put_chunk",
        archive_no=archive_no,
        chunk_no=chunk_no,
        what=chunk.what,
        rows=chunk.rows,
        sha256=chunk.sha256,
        content=chunk.content,
    )


async def read_chunk(
    backend: Backend, row: statements.ArchiveGet, chunk_no: int
) -> list[Section] | None:
    """Return a chunk's rows by table, decoded and checked, or None after the last one."""
    chunk = await backend.read(
        lambda tx: tx.first("archive.chunk", archive_no=row.archive_no, chunk_no=chunk_no),
        op="archive.chunk",
    )
    if chunk is None:
        return None
    return await threads.run(
        archive_format.decode,
        chunk,
        row.encoding,
        row.session_no,
        row.session_id,
        pause_s(backend),
    )


def _follow(
    order: archive_format.Order,
    row: statements.ArchiveGet,
    chunk_no: int,
    section: Section,
) -> None:
    try:
        order.take(section.what, section.rows)
    except archive_format.Wrong as error:
        raise damaged(
            row.session_id, f"chunk {chunk_no} of the archive of session {row.session_id} {error}"
        ) from error


# -- writing ---------------------------------------------------------------------------


async def write_chunks(backend: Backend, row: statements.ArchiveGet) -> None:
    """Store the chunks that are missing, one per transaction. May be repeated."""
    what, after, chunk_no = await _resume_at(backend, row)
    for table in PAGED[PAGED.index(what) :]:
        after = after if table == what else _first(table, row.session_no)
        while page := await backend.read(
            _reading(backend, table, row.session_no, after), op="archive.read"
        ):
            chunk = await threads.run(
                archive_format.encode, table, page, row.encoding, pause_s(backend)
            )
            await backend.step(
                _storing(row, chunk_no, chunk), op="archive.chunk", size=len(chunk.content)
            )
            chunk_no, after = chunk_no + 1, page[-1][KEY[table]]


def _storing(row: statements.ArchiveGet, chunk_no: int, chunk: Chunk) -> Any:
    def body(tx: Tx) -> None:
        # Of two processes at one archive, the second finds that its chunk is not the next.
        state = tx.one("archive.get", archive_no=row.archive_no).state
        if (
            state != row.state
            or tx.one("archive.next_chunk", archive_no=row.archive_no).chunk_no != chunk_no
        ):
            raise overtaken(row)
        put_chunk(tx, row.archive_no, chunk)

    return body


async def _resume_at(backend: Backend, row: statements.ArchiveGet) -> tuple[str, int, int]:
    """Return where writing continues.

    That is the table, the key of its last stored row, and the number of the next chunk.
    """

    def last(tx: ReadTx) -> tuple[int, statements.ArchiveChunk | None]:
        chunk_no = tx.one("archive.next_chunk", archive_no=row.archive_no).chunk_no
        return chunk_no, tx.first("archive.chunk", archive_no=row.archive_no, chunk_no=chunk_no - 1)

    chunk_no, chunk = await backend.read(last, op="archive.where")
    if chunk is None or chunk.what not in PAGED:
        return PAGED[0], _first(PAGED[0], row.session_no), chunk_no
    [section] = await threads.run(
        archive_format.decode, chunk, row.encoding, row.session_no, row.session_id
    )
    return chunk.what, section.rows[-1][KEY[chunk.what]], chunk_no


# -- comparing -------------------------------------------------------------------------


async def compare(backend: Backend, row: statements.ArchiveGet) -> None:
    """Compare the archive with the tables, row by row.

    Raises:
        StoreDamaged: the two differ.
    """
    after = {what: _first(what, row.session_no) for what in PAGED}
    total = chunk_no = 0
    while (found := await read_chunk(backend, row, chunk_no)) is not None:
        chunk_no += 1
        for what, columns, rows in found:
            total += len(rows)
            if what not in PAGED or not rows:
                continue
            page = await backend.read(
                _reading(backend, what, row.session_no, after[what]), op="archive.compare"
            )
            if not await threads.run(_same, columns, rows, page, pause_s(backend)):
                raise _differs(row, f"rows of {what} after {after[what]}")
            after[what] = rows[-1][KEY[what]]
            if backend.is_busy:
                await sleep(COMPARE_PAUSE_S)
    for what in PAGED:
        if await backend.read(
            _reading(backend, what, row.session_no, after[what]), op="archive.compare"
        ):
            raise _differs(
                row, f"there are rows of {what} after {after[what]} that it does not hold"
            )
    counted = await backend.read(
        lambda tx: tx.one("archive.get", archive_no=row.archive_no).rows, op="archive.compare"
    )
    if counted != total:
        raise _differs(row, f"it counts {counted} rows and holds {total}")


def _same(columns: list[str], rows: list[list[Any]], page: Sequence[Row], pause_s: float) -> bool:
    if len(page) != len(rows) or list(page[0]._fields) != columns:
        return False
    return all(
        list(found) == row for found, row in in_slices(zip(page, rows, strict=True), pause_s)
    )


def _differs(row: statements.ArchiveGet, what: str) -> StoreDamaged:
    return StoreDamaged(
        f"the archive of session {row.session_id} is not what the tables hold: {what}. "
        "Run `sessiondb verify`."
    )


async def check_chunks(backend: Backend, row: statements.ArchiveGet) -> None:
    """Check the whole archive before a row is put back.

    So an archive that cannot be restored stays `archived`, and no run tries it again and
    again. Not for an archive in state `deleting`: there a restore that begins, even one that
    fails, keeps the rows that are left.

    Raises:
        StoreDamaged: the archive is not what was written.
    """
    order, total, chunk_no = archive_format.Order(), 0, 0
    while (found := await read_chunk(backend, row, chunk_no)) is not None:
        for section in found:
            _follow(order, row, chunk_no, section)
            total += len(section.rows)
        chunk_no += 1
    if total != row.rows:
        raise damaged(
            row.session_id,
            f"the archive of session {row.session_id} counts {row.rows} rows and holds {total}",
        )
    for branch_no in await backend.read(lambda tx: missing_branches(tx, order), op="restore.look"):
        raise damaged(
            row.session_id,
            f"the archive of session {row.session_id} has a branch that leaves from branch "
            f"{branch_no}, which is not there",
        )


def missing_branches(tx: ReadTx, order: archive_format.Order) -> list[int]:
    """Return the branches that an archive's branches leave from and that do not exist.

    Call it when the session's parent is not archived: its branches must be in their table.
    """
    return [
        branch_no
        for branch_no in sorted(order.branches_elsewhere)
        if tx.first("archive.branch", branch_no=branch_no) is None
    ]


# -- putting back ----------------------------------------------------------------------


async def put_back_rows(backend: Backend, row: statements.ArchiveGet) -> None:
    """Put the archive's rows back into their tables, a few per transaction. May be repeated.

    Raises:
        StoreDamaged: a chunk is not what was written, or the tables refuse its rows.
    """
    chunk_no, batch_size, order = 0, BatchSize(), archive_format.Order()
    while (found := await read_chunk(backend, row, chunk_no)) is not None:
        for section in found:
            _follow(order, row, chunk_no, section)
            if section.what not in PAGED:
                continue
            try:
                await _put_back_section(backend, row, section, batch_size)
            except (ConstraintFailed, InvalidInput) as error:
                where = f"chunk {chunk_no} of the archive of session {row.session_id}"
                raise damaged(row.session_id, f"{where} cannot be put back: {error}") from error
        chunk_no += 1


async def _put_back_section(
    backend: Backend, row: statements.ArchiveGet, section: Section, batch_size: BatchSize
) -> None:
    what, columns, rows = section
    done = 0
    while done < len(rows):
        step = rows[done : done + _step(what, rows, done, batch_size.rows)]
        written = await backend.step(_putting(row, what, columns, step), op="restore.rows")
        batch_size.learn(written.held_ms)
        done += len(step)


def _step(what: str, rows: list[list[Any]], first: int, rows_max: int) -> int:
    """Return how many rows from `first` on one transaction puts back: at least one."""
    size = 0
    for count, row in enumerate(rows[first : first + rows_max]):
        size += len(row[-1]) if what == ENTRY else 0
        if count and size > STEP_BYTES:
            return count
    return min(rows_max, len(rows) - first)


def _putting(
    row: statements.ArchiveGet, what: str, columns: list[str], rows: list[list[Any]]
) -> Any:
    put = {BRANCH: "archive.put_branch", EPOCH: "archive.put_epoch", ENTRY: "archive.put_entry"}
    statement = AnyStatement(put[what])
    prepared = [dict(zip(columns, values, strict=True)) for values in rows]

    def body(tx: Tx) -> None:
        require_state(tx, row)
        for values in prepared:
            tx.run(statement, **values)

    return body


# -- the fence -------------------------------------------------------------------------


def require_state(tx: ReadTx, row: statements.ArchiveGet) -> None:
    """Raise StoreBusy unless the archive is still in the state that this process has read."""
    if tx.one("archive.get", archive_no=row.archive_no).state != row.state:
        raise overtaken(row)


def overtaken(row: statements.ArchiveGet) -> StoreBusy:
    """Return the error for an archive that another process works on."""
    return StoreBusy(
        f"session {row.session_id} is being archived or restored by another process. "
        "Nothing was changed. Retry in 5 seconds.",
        retry_after_ms=5_000,
    )
