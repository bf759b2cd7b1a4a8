"""Judge: verify each session. A whole one stays as it was read, a damaged one is rebuilt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sessiondb.backend import Row, Tx
from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.maintenance.verify_session import SessionWalk
from sessiondb.maintenance.verify_steps import UNREADABLE

from . import archives
from .rebuild import Rebuild
from .report import NO_HEADER_KNOWN, SessionReport
from .workspace import BATCH_ROWS, Workspace


def judge_sessions(work: Workspace) -> None:
    """Verify every session, and rebuild those that are damaged."""
    after_no = 0
    while rows := work.all("salvage.sessions", after_no=after_no, limit=BATCH_ROWS):
        for row in rows:
            if row.forked_from_no is not None and row.found_forked_from_no is None:
                work.change("lose_parent", session_no=row.session_no)
                work.note_loss(
                    f"session {row.session_id}: the session that it was forked from is lost"
                )
            _judge_session(work, row)
        after_no = rows[-1].session_no


def _judge_session(work: Workspace, row: Row) -> None:
    outcome = "rebuilt"
    if row.archived_at_ms is not None:
        if not _errors(work, row.session_no):
            return
        archives.open_archive(work, row.session_no, row.session_id)
        outcome = "archive opened"
    seen, missing = _gaps(work, row)
    expected = seen + sum(high - low + 1 for low, high in missing)
    work.entries_expected += expected
    inputs = {no for no in work.lost_inputs if no >> SEQ_BITS == row.session_no}
    inputs |= {
        row.session_no << SEQ_BITS | seq
        for seq in work.lost_entries.get(row.session_no, ())
        if _is_possible(work, row, seq)
    }
    if outcome == "rebuilt" and not missing and not _errors(work, row.session_no):
        work.report.entries += seen
        return
    rebuild = Rebuild(work, row.session_no, inputs)
    notes = rebuild.run()
    if rebuild.damaged:
        seen, missing = seen - len(rebuild.damaged), _with(missing, rebuild.damaged)
    if (
        row.origin == "import"
        and any(low <= 1 for low, _ in missing)
        and not work.had_header(row.session_no)
    ):
        notes = [NO_HEADER_KNOWN, *notes]
    if errors := _errors(work, row.session_no):
        _leave_out(work, row)
        outcome, notes = "left out", [*notes, *errors[:10]]
    else:
        work.report.entries += seen
    work.report.damaged_sessions.append(
        SessionReport(
            row.session_no,
            row.session_id,
            expected,
            seen,
            tuple(missing),
            outcome,
            tuple(notes[:20]),
        )
    )


def _errors(work: Workspace, session_no: int) -> list[str]:
    """Verify a session. Return a sentence for each error."""
    walk = SessionWalk(session_no, deep=True)
    try:
        work.verify(walk.steps())
    except UNREADABLE as error:
        walk.findings.add("file", f"{type(error).__name__}: {error}")
    return [
        f"{check}: {what}" for check, what, severity in walk.findings.found if severity == "error"
    ]


def _gaps(work: Workspace, row: Row) -> tuple[int, list[tuple[int, int]]]:
    """Return how many entries a session has, and the ranges of seq that are missing.

    Entries that only the session's counter or an index knows of are missing, too.
    """
    seen, missing = 0, []
    due = -1 if row.origin == "import" and not work.had_header(row.session_no) else 0
    low_no, high_no = row.session_no << SEQ_BITS, row.session_no << SEQ_BITS | SEQ_MAX
    while True:
        page = work.all("salvage.numbers", low_no=low_no, high_no=high_no, limit=BATCH_ROWS)
        for entry in page:
            seq = entry.entry_no & SEQ_MAX
            if due == -1:
                due = min(seq, 1)
            if seq > due:
                missing.append((due, seq - 1))
            seen, due = seen + 1, seq + 1
        if len(page) < BATCH_ROWS:
            break
        low_no = page[-1].entry_no + 1
    last = max(
        row.last_seq,
        *(seq for seq in work.lost_entries.get(row.session_no, ()) if _is_possible(work, row, seq)),
        0,
    )
    if last >= max(due, 1):
        missing.append((max(due, 1) if due == -1 else due, last))
    elif due == 0:
        missing.append((0, 0))
    return seen, missing


def _is_possible(work: Workspace, row: Any, seq: int) -> bool:
    """Tell whether a number from an index can have been assigned.

    The index may be damaged itself.
    """
    return seq <= row.last_seq or (
        row.session_no in work.recreated_sessions and seq <= work.gap_max
    )


def _leave_out(work: Workspace, row: Row) -> None:
    """Delete a session's entries, and keep its row."""
    low_no, high_no = row.session_no << SEQ_BITS, row.session_no << SEQ_BITS | SEQ_MAX

    def body(tx: Tx) -> None:
        tx.run("salvage.drop_entries", low_no=low_no, high_no=high_no)
        tx.run("salvage.drop_compactions", session_no=row.session_no)
        tx.run("salvage.drop_branches", session_no=row.session_no)
        tx.run("salvage.drop_epochs", session_no=row.session_no)
        tx.run(
            "salvage.restart",
            session_no=row.session_no,
            head_no=None,
            boundary_no=None,
            first_kept_no=None,
        )

    work.write(body)
    Rebuild(work, row.session_no, []).run()


def _with(ranges: list[tuple[int, int]], numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Add single numbers to ranges. Return the ranges in order, joined where they touch."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted([*ranges, *((number, number) for number in numbers)]):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined
