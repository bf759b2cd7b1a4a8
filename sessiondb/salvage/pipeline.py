"""Get every readable entry out of a damaged file into a new database, and report what is missing.

    read      rows from every page that can be read, into the tables of a new database
              (intake.py, from the reader in sqlite/damaged_file.py)
    mend      lost rows that others refer to are created again, as far as the others tell
              (repair.py)
    judge     each session is verified, and a whole one stays as it was read (judge.py)
    rebuild   a damaged session is rebuilt by replaying its entries through the normal
              append code (rebuild.py)
    settle    each message, turn, reply and receipt gets the state that the remaining rows
              allow (repair.py)
    verify    the whole new database, which gets its name only then

Session and entry numbers, ids, the exact texts and the order of arrival are kept. A lost
entry is replaced by a `custom` entry. Its id is the lost one's if a later entry names it, and
it holds the part of the text that could be read. So the path of its successors is unbroken,
and a reader of the transcript sees the gap. Such an entry never reaches a model.

An accepted message is never dropped, whatever else of its session is lost. If need be, a
session is created for it. One whose text was in a lost entry has none: if it was open, it is a
dead letter now. Numbers that were assigned (to turns, to messages) are not assigned again.

Derived data is never salvaged. Sums, positions, branches, epochs and counters of a rebuilt
session come from its texts alone. A compaction that was undone stays undone if its epochs
could be read.

A crash leaves the temporary file of the new database and nothing else. The damaged file is
never written. Memory holds one transaction's rows, the report (bounded), and the ids of
entries that an index has and the table has not.
"""

from __future__ import annotations

from collections.abc import Callable

from sessiondb.errors import NotASessionDB
from sessiondb.maintenance import verify

from . import intake, judge, repair
from .report import SalvageReport
from .workspace import Source, Target, Workspace


def run(
    source: Source, target: Target, *, progress: Callable[[str], None] = lambda _: None
) -> SalvageReport:
    """Build the new database and report what is in it.

    `progress` is called with the name of each step. On return the database is complete, on
    disk and under its name. After an error the call may be repeated.

    Raises:
        NotASessionDB: no row in the file could have been written by sessiondb.
    """
    work = Workspace(source, target)
    progress("reading pages")
    intake.read_source(work)
    if not any(
        table.found for name, table in work.tables.items() if name not in ("lane", "instance")
    ):
        raise NotASessionDB(
            f"{source.path}: no row that sessiondb wrote was found in this file. "
            "No database was made. Check the path."
        )
    progress("mending references")
    repair.mend_references(work)
    progress("checking sessions")
    repair.raise_numbers(work)  # rebuilding a session creates branches
    judge.judge_sessions(work)
    progress("settling messages, turns and replies")
    repair.settle_states(work)
    repair.raise_numbers(work)
    if count := work.change("cap_cursors"):
        work.note_loss(
            f"{count} consumers of events had handled events that were never written. "
            "They continue with the next event"
        )
    progress("verifying the new database")
    _verify(work)
    _complete_report(work)
    target.finish()
    return work.report


def _verify(work: Workspace) -> None:
    walk = verify.Walk(None, deep=True)
    work.verify(walk.steps())
    found = walk.report()
    work.report.findings = list(found.errors)
    work.report.sessions = found.sessions
    work.unfinished = [finding.message for finding in found.unfinished]


def _complete_report(work: Workspace) -> None:
    report, source = work.report, work.source
    report.pages, report.page_size = source.count, source.page_size
    report.wal, report.wal_frames = source.wal.state, source.wal.frames
    report.notes = [*source.notes, *work.unfinished]
    if source.wal.state == "torn":
        report.notes.append(
            "the WAL is damaged, or ends inside a transaction: "
            "behind that point, only whole rows were taken"
        )
    if source.wal.state == "unusable":
        report.notes.append(
            "the WAL beside the file cannot be read: "
            "transactions that were committed and not yet checkpointed are lost"
        )
    work.table("entry").expected = work.entries_expected
    report.tables = list(work.tables.values())
