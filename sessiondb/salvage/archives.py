"""Damaged archives are opened: their readable rows go back into the tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sessiondb.backend import AnyStatement, Row, Tx
from sessiondb.errors import ConstraintFailed, InvalidInput
from sessiondb.maintenance import archive_format

from .workspace import Workspace, batches


def open_archive(work: Workspace, session_no: int, session_id: str) -> None:
    """Put the readable rows of a damaged archive back into their tables.

    Rows are better than an archive that cannot be restored.
    """
    archive = work.first("salvage.archive_of", session_no=session_no)
    work.change("unarchive", session_no=session_no)
    if archive is None:
        work.note_loss(f"session {session_id}: its archive is lost")
        return
    rows = _put_chunks(work, archive.archive_no, session_no, session_id)
    drop_archive(work, archive.archive_no)
    work.note_loss(
        f"session {session_id}: its archive was damaged. "
        f"{rows:,} rows were put back into their tables"
    )


def drop_archive(work: Workspace, archive_no: int) -> None:
    """Delete an archive and its chunks."""
    work.change("drop_chunks", archive_no=archive_no)
    work.change("drop_archive", archive_no=archive_no)


def open_orphaned_chunks(work: Workspace) -> None:
    """Open the archives whose own row is lost."""
    for row in work.owners("next_chunk_owner", "archive_no"):
        if row.found_archive_no is None:
            rows = _put_chunks(work, row.archive_no, None, None)
            work.change("drop_chunks", archive_no=row.archive_no)
            work.note_loss(
                f"archive {row.archive_no}: its row is lost. "
                f"{rows:,} rows were put back into their tables"
            )


def _put_chunks(
    work: Workspace, archive_no: int, session_no: int | None, session_id: str | None
) -> int:
    """Put back the whole rows of an archive that belong to its session.

    If the archive's own row is lost, rows of any session are put back.
    """
    after, count = -1, 0
    while (chunk := work.first("salvage.chunk", archive_no=archive_no, after=after)) is not None:
        after = chunk.chunk_no
        for batch in batches(_sound_rows(work, chunk, session_no, session_id)):
            count += work.write(_put_rows, work, batch)
    return count


def _sound_rows(
    work: Workspace, chunk: Row, session_no: int | None, session_id: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    for what, values in archive_format.rows_of(chunk):
        try:
            archive_format.check_row(what, values, session_no, session_id)
        except archive_format.Wrong as error:
            work.table(what).left_out += 1
            work.note_loss(f"a row of {what} in an archive was left out: it {error}")
        else:
            yield what, dict(zip(archive_format.COLUMNS[what], values, strict=True))


def _put_rows(tx: Tx, work: Workspace, batch: list[tuple[str, dict[str, Any]]]) -> int:
    return sum(_put_row(tx, work, table, values) for table, values in batch)


def _put_row(tx: Tx, work: Workspace, table: str, values: dict[str, Any]) -> int:
    try:
        return tx.run(AnyStatement(f"salvage.put_{table}"), **values)
    except (ConstraintFailed, InvalidInput, LookupError, TypeError) as error:
        work.table(table).left_out += 1
        work.note_loss(f"a row of {table} in an archive was left out: {error}")
        return 0


def note_archived_branches(work: Workspace, archive_no: int) -> None:
    """Note the numbers of branches that a restore would bring back."""
    after = -1
    while (chunk := work.first("salvage.chunk", archive_no=archive_no, after=after)) is not None:
        after = chunk.chunk_no
        if chunk.what not in (archive_format.BRANCH, archive_format.WHOLE):
            continue
        for what, values in archive_format.rows_of(chunk):
            if what == archive_format.BRANCH:
                work.note_number("branch", values[archive_format.KEY[archive_format.BRANCH]])
