"""Verify the archive of one session: it exists, and a restore could put all of it back."""

from __future__ import annotations

from sessiondb.backend import ReadTx
from sessiondb.errors import InvalidInput, StoreDamaged

from . import archive, archive_format
from .archive_rows import missing_branches
from .verify_steps import SessionFindings, Steps


def archive_steps(
    session_no: int, session_id: str, findings: SessionFindings, *, deep: bool
) -> Steps:
    """Yield the steps for a session whose entries are in an archive or on the way there or back."""
    chunk_no: int | None = None  # the next one to check
    order, seen = archive_format.Order(), 0

    def count(tx: ReadTx) -> None:
        nonlocal chunk_no
        row = tx.first("verify.archive", session_no=session_no)
        archived = tx.one("verify.exists", session_no=session_no).archived_at_ms is not None
        if not archived:
            return  # restored since
        if row is None or row.state in ("writing", "complete"):
            findings.add(
                "archive",
                "the session is marked as archived, but its archive is "
                f"{'not there' if row is None else row.state}",
            )
        elif row.state != "deleted" and row.found_rows != row.rows:
            findings.add(
                "archive", f"its archive counts {row.rows} rows and holds {row.found_rows}"
            )
        elif row.state != "deleted":
            try:
                archive.keys_of(row.session_keys, session_id)
            except StoreDamaged as error:
                findings.add("archive", str(error).partition(". ")[0])
            chunk_no = 0 if deep else None

    def check_chunk(tx: ReadTx) -> None:
        nonlocal chunk_no, seen
        row = tx.first("verify.archive", session_no=session_no)
        chunk = (
            tx.first("archive.chunk", archive_no=row.archive_no, chunk_no=chunk_no)
            if row is not None
            else None
        )
        if row is None or chunk is None:
            # Without a row, or deleted: it was restored or dropped meanwhile.
            if row is not None and row.state != "deleted" and seen != row.found_rows:
                findings.add(
                    "archive",
                    f"chunk {chunk_no} of its archive is not there, "
                    f"and {row.found_rows - seen} rows follow it",
                )
            chunk_no = None
            return
        try:
            found = archive_format.damage(chunk, row.encoding, session_no, session_id, order)
        except InvalidInput as error:
            findings.unfinished("archive", "its archive cannot be checked here", error)
            chunk_no = None
            return
        chunk_no, seen = chunk.chunk_no + 1, seen + chunk.rows
        if found is not None:
            findings.add("archive", found)

    def find_branches(tx: ReadTx) -> None:
        if tx.first("verify.archive_of_parent", session_no=session_no) is not None:
            return  # a restore brings the parent back first, and looks for the branches then
        for branch_no in missing_branches(tx, order):
            findings.add(
                "archive",
                f"a branch in its archive leaves from branch {branch_no}, which is not there",
            )

    yield count
    while chunk_no is not None:
        yield check_chunk
    for low, high in order.gaps:
        findings.add("archive", f"entries {low} to {high} are missing in its archive")
    if order.branches_elsewhere:
        yield find_branches
