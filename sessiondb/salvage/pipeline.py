"""Get every readable entry out of a damaged file, into a new database, and say what is missing.

    read       rows as they lie, from whatever pages can be read (`sqlite/damaged_file.py`), into the tables of a new database
    mend       rows that others refer to and that are lost are made again, as far as the others tell
    judge      each session is verified; one that is whole stays exactly as it was read
    rebuild    one that is not is told again from the texts of its entries, by the code that appends and imports
    settle     messages, turns, replies, receipts: each gets the state that what is left allows
    verify     the new database, all of it; only then it gets its name

What is kept: session and entry numbers, ids, the exact texts, order of arrival. Where an entry is lost, a `custom` entry
stands in its place, with its id if a later entry names it and whatever could be read of its text: so the path of its successors
holds together, and whoever reads the transcript sees the gap. Such an entry never reaches a model. A lost user message
that the inbox still has is told from there.

An accepted message is never dropped, whatever else of its session is lost: a session is made for it, if need be. Numbers
that were given out (of turns, of messages) are not given out again.

Nothing is added up that could be derived: sums, positions, branches, epochs and counters of a rebuilt session come from its
texts alone. A compaction that was undone stays undone if its epochs could be read.

A crash leaves the temporary file of the new database and nothing else; the damaged file is never written. In memory are a
transaction's rows, what is reported (bounded), and the ids of entries that the index has and the table has not.
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
    """Build the new database and say what is in it. `progress` hears what is being done.

    Raises:
        NotASessionDB: there is not one row in the file that sessiondb could have written.
    """
    work = Workspace(source, target)
    progress("reading pages")
    intake.read_source(work)
    if not any(
        table.found for name, table in work.tables.items() if name not in ("lane", "instance")
    ):
        raise NotASessionDB(
            f"{source.path}: no row that sessiondb wrote was found in this file. Nothing was made."
        )
    progress("mending references")
    repair.mend_references(work)
    progress("checking sessions")
    repair.raise_numbers(work)  # before branches are made again
    judge.judge_sessions(work)
    progress("settling messages, turns and replies")
    repair.settle_states(work)
    repair.raise_numbers(work)
    if count := work.change("cap_cursors"):
        work.lose(
            f"{count} consumers of events had handled events that were never written; they go on with the next one"
        )
    progress("verifying the new database")
    _verify(work)
    _complete_report(work)
    target.finish()
    return work.report


def _verify(work: Workspace) -> None:
    walk = verify.Walk(None, deep=True)
    work.verify(walk.steps())
    work.report.findings = [finding for finding in walk.findings if finding.severity == "error"]
    work.report.sessions = walk.sessions


def _complete_report(work: Workspace) -> None:
    report, source = work.report, work.source
    report.pages, report.page_size = source.count, source.page_size
    report.wal, report.wal_frames = source.wal.state, source.wal.frames
    report.notes = list(source.notes)
    if source.wal.state == "torn":
        report.notes.append(
            "the WAL is damaged, or ends inside a transaction: only whole rows were taken from behind that"
        )
    if source.wal.state == "unusable":
        report.notes.append(
            "the WAL beside the file cannot be read: what was committed and not yet checkpointed is lost"
        )
    work.table("entry").expected = work.entries_expected
    report.tables = list(work.tables.values())
