"""Walk a database and report every invariant that does not hold.

Each rule is derived a second time here, from the stored rows, without calling the code
that wrote them. Both derivations must agree. A finding says which invariant is broken, at
which entry, and what to do about it.

The walk is a generator of *steps*. A step is a short read of bounded size. Several that are
quick share one snapshot of some milliseconds (`verify_reads.py`). Nothing is held between two
snapshots, so appends, compactions and checkpoints proceed. Three rules keep the result exact,
whatever changes between two steps:

* The moving parts of a session (its pointers, its open epoch, its counters) are read and
  compared in *one* snapshot, S.
* Everything else is immutable once committed: entries, branches, closed epochs, committed
  compactions. Later steps read only those rows of it that existed at S: entries up to S's
  last seq, epochs up to S's epoch.
* A session that was deleted meanwhile is dropped with its findings.

Memory is bounded by a page, a slice of payloads, the capped findings, and one integer per
compaction of a session. Verify repairs nothing and writes nothing. A page of the file that
SQLite cannot read is a finding, and the walk continues with the next session.

A check that could not be finished is no check. Whatever ended it (a read that took too long,
a busy file, an I/O error, a package that is missing, a bug) is a finding `unfinished`, and the
report is not `ok`. The check of the whole file is a single statement, hence a single snapshot.
It ends so if it takes longer than `read_age_s_max`, because it would keep the WAL from being
reset.

This module walks the tables that belong to no single session. `verify_inbox.py` has the
messages, and the rule that each of them ends answered, or somebody is told. The invariants of one
session are in `verify_session.py` (its row, branches and entries), `verify_text.py`,
`verify_epochs.py` and `verify_archives.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from sessiondb.backend import Backend, ReadTx
from sessiondb.limits import SEQ_MAX
from sessiondb.models import Finding, VerifyReport
from sessiondb.transcript.paths import entry_number

from . import verify_inbox, verify_search, verify_steps
from .verify_reads import Reads
from .verify_receipts import IndexWalk, ReceiptWalk
from .verify_session import SessionWalk
from .verify_steps import (
    SessionFindings,
    Severity,
    Steps,
    is_damage,
    pages,
    single,
    why_unfinished,
)
from .verify_tables import Tables

if TYPE_CHECKING:
    from sessiondb import statements

# Beyond these, of each severity, a report only says that there are more.
FINDINGS_MAX: Final = 1_000
# A session may be archived or restored while it is checked. So often it is checked anew.
MOVES_MAX: Final = 3

_REBUILD = (
    "Export the session and import the file into a new database. "
    "The import derives this again from the text."
)
_RESTORE = "Keep the file as it is and restore this session from a backup."
_POINTERS = "Fork the session at its last good entry and continue in the fork."

_OF_SEARCH: Final = re.compile(r"FTS5 table main\.search\b|from table \"search\"")
"""What SQLite says of an index that it cannot read."""

ADVICE: Final[dict[str, str]] = {
    "file": "Keep the file as it is, and run `sessiondb salvage DB NEW` to recover what can be "
    "read, "
    "or restore a backup.",
    "schema": "Some other program changed the file. Run `sessiondb salvage DB NEW`: it puts every "
    "row into a new database, which is as it should be.",
    "foreign_key": "Some other program changed the file. Restore a backup.",
    "rule": "Some other program changed the file. `sessiondb salvage DB NEW` leaves such a row out "
    "or puts it right.",
    "numbers": "Some other program changed the file. Run `sessiondb salvage DB NEW`: it raises the "
    "counter.",
    "wal_link": "Make a backup: `sessiondb backup DB NEW` gives it a proper name, and use that.",
    "lane": "Set it again: db.set_lane().",
    "instance": "Nothing depends on it.",
    "time": "Nothing is ordered by it. A backup has the right one.",
    "fork": "Fork the session again where it was forked, or restore a backup.",
    "binding": "Bind the key again (it gets a new session), or restore a backup.",
    "foreign_id": "Ask for the session by its id, or restore a backup.",
    "orphan": _RESTORE,
    "source": "Import the file again into a new database and compare.",
    "header": _RESTORE,
    "sequence": _RESTORE,
    "tree": _RESTORE,
    "parent": _REBUILD,
    "position": _REBUILD,
    "branch": _REBUILD,
    "tokens": _REBUILD,
    "open_calls": _REBUILD,
    "model": _REBUILD,
    "thinking": _REBUILD,
    "boundary": _REBUILD,
    "first_kept": _REBUILD,
    "projection": _REBUILD,
    "body": _REBUILD,
    "payload": _RESTORE,
    "idempotency_key": _REBUILD,
    "usage": _REBUILD,
    "order": _REBUILD,
    "asked": _REBUILD,
    "name": _REBUILD,
    "head": _POINTERS,
    "pointers": _POINTERS,
    "context_tokens": "The next reply with a provider's count, or the next compaction, "
    "sets it right.",
    "epoch": _RESTORE,
    "compaction": _RESTORE,
    "archive": _RESTORE,
    "inbox": "See `sessiondb inbox DB` and the table `turn`. "
    "Have the sender of a stuck message send it again.",
    "unanswered": "Somebody waits for an answer that does not come. Have its sender send it again.",
    "queue": "Run `sessiondb inbox DB --line-up`: it marks again who waits.",
    "turn": "Its lease ends it: a running lane takes the session over, and so does the next start.",
    "outbox": "See `sessiondb outbox DB`, and settle the reply by hand.",
    "search": "Messages are as they were. Build the index anew: `sessiondb search DB --rebuild`.",
    "event": "Use another name for the consumer, or restore a backup.",
}
"""Every check by name, with what to do when it fails."""


async def run(backend: Backend, session_no: int | None, *, deep: bool) -> VerifyReport:
    """Walk the database, or one session of it. Changes nothing, and may be repeated.

    Raises:
        StoreClosed: the database was closed meanwhile.
        OpenError: a newer release has migrated it meanwhile.
    """
    walk = Walk(session_no, deep=deep)
    for concern in backend.stats().get("concerns", ()) if session_no is None else ():
        # A concern is about the files, not their content: no invariant, so not one of the checks.
        walk.findings.append(
            Finding(
                "access",
                None,
                f"{concern}. Transcripts hold what people said in confidence.",
                "warning",
            )
        )
    await Reads(backend, walk.steps()).run()
    return walk.report()


class Walk:
    """One walk over a database: its counts and findings so far."""

    def __init__(self, session_no: int | None, *, deep: bool) -> None:
        self.deep = deep
        self.sessions = 0
        self.entries = 0
        self.findings: list[Finding] = []
        self._counts: Counter[Severity] = Counter()
        self._only_no = session_no

    def report(self) -> VerifyReport:
        """Return the counts and findings so far."""
        return VerifyReport(
            sessions=self.sessions, entries=self.entries, findings=tuple(self.findings)
        )

    def steps(self) -> Steps:
        """Yield steps. Run each in a snapshot, before asking for the next."""
        if self._only_no is not None:
            yield from self._session(self._only_no)
            if self.deep:
                yield from self._guarded("its receipts", self._receipts_of(self._only_no))
            return
        yield from self._file()
        tables = Tables(self.add)
        for what, look in (
            ("the numbers", tables.numbers),
            ("the name of the file", tables.wal_link),
            ("the lanes", tables.lanes),
            ("the processes", tables.processes),
            ("the pauses of channels", tables.pauses),
        ):
            yield from self._guarded(what, single(look))
        yield from self._guarded("the bindings", tables.bindings())
        yield from self._guarded("the foreign ids", tables.foreign_ids())
        yield from self._guarded("the events", tables.events())
        yield from self._guarded("the archives", tables.archives())
        yield from self._guarded("the receipts of imports", self._sources())
        yield from self._guarded("the owners of entries", self._orphans())
        yield from self._guarded("the inbox", verify_inbox.walk(self.add))
        yield from self._guarded("the turns", self._turns())
        yield from self._guarded("the outbox", self._outbox())
        yield from self._guarded("the consumers of events", single(self._cursors))
        yield from self._guarded("the search index", verify_search.walk(self.add))
        yield from self._guarded("the list of sessions", self._each_session())

    def add(
        self,
        check: str,
        session_id: str | None,
        what: str,
        severity: Severity = "error",
    ) -> None:
        """Record a finding with its advice, unless there are too many already."""
        self._counts[severity] += 1
        if self._counts[severity] <= FINDINGS_MAX:
            advice = "" if severity == "unfinished" else f" {ADVICE[check]}"  # it has its own
            self.findings.append(Finding(check, session_id, f"{what}.{advice}", severity))
        elif self._counts[severity] == FINDINGS_MAX + 1:
            message = f"More than {FINDINGS_MAX:,} findings. The rest is left out."
            self.findings.append(Finding(check, None, message, severity))

    def _guarded(self, what: str, steps: Steps) -> Steps:
        """Run the steps of one part. An unreadable part is a finding, and ends this part only."""
        try:
            yield from steps
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            if is_damage(error):
                self.add("file", None, f"{what} cannot be read: {error}")
                return
            why = why_unfinished(error)
            self.add("file", None, f"the check of {what} was not finished: {why}", "unfinished")

    # -- the file, and what belongs to no session --------------------------------------

    def _file(self) -> Steps:
        broken_rules: list[str] = []

        def check(tx: ReadTx) -> None:
            verify_search.forget_what_was_read(tx)
            for row in tx.all("verify.file_full") if self.deep else tx.all("verify.file_quick"):
                if row.problem.startswith("CHECK constraint failed"):
                    broken_rules.append(row.problem)  # SQLite names the table, and not the row
                elif row.problem != "ok":
                    check = "search" if _OF_SEARCH.search(row.problem) else "file"
                    self.add(check, None, f"SQLite: {row.problem}")

        def rules(tx: ReadTx) -> None:
            # Asked always: SQLite checks no CHECK on a connection that only reads.
            if not Tables(self.add).rules(tx):
                for problem in broken_rules:
                    self.add("file", None, f"SQLite: {problem}")

        def references(tx: ReadTx) -> None:
            for row in tx.all("verify.foreign_keys", limit=verify_steps.SESSION_FINDINGS_MAX):
                # These have their own checks, which can name the key.
                if row.table_name not in ("binding", "foreign_id"):
                    self.add(
                        "foreign_key",
                        None,
                        f"row {row.row_no} of {row.table_name} points at a {row.parent_name} that "
                        "is not there",
                    )

        def layout(tx: ReadTx) -> None:
            for fault in tx.layout_faults():
                self.add("schema", None, fault)

        for what, step in (
            ("the schema", layout),
            ("the file", check),
            ("the references between tables", references),
            ("the rules of the tables", rules),
        ):
            yield from self._guarded(what, single(step))

    def _sources(self) -> Steps:
        """Check every receipt: its counts and, deep, its hash."""
        last_no: int | None = 0
        page: list[statements.VerifyImportFiles] = []

        def step(tx: ReadTx) -> None:
            nonlocal page
            page = tx.all("verify.import_files", after_no=last_no, limit=verify_steps.PAGE_ROWS)
            for row in page:
                self._source(row)

        while last_no is not None:
            yield step
            for row in page if self.deep else ():
                yield from self._content(row)
            last_no = page[-1].import_file_no if len(page) == verify_steps.PAGE_ROWS else None

    def _content(self, row: statements.VerifyImportFiles) -> Steps:
        """Compare a receipt with what an export would write."""
        if row.kind == "index":
            yield from self._walk(None, partial(IndexWalk, row.import_file_no))
        elif row.import_file_no == row.first_import_file_no:
            yield from self._receipts(row.session_no, row.session_id, row.import_file_no)

    def _receipts_of(self, session_no: int) -> Steps:
        found: statements.VerifyFirstReceipt | None = None

        def look(tx: ReadTx) -> None:
            nonlocal found
            found = tx.first("verify.first_receipt", session_no=session_no)

        yield look
        if found is not None:
            yield from self._receipts(session_no, found.session_id, found.import_file_no)

    def _receipts(self, session_no: int | None, session_id: str | None, first_no: int) -> Steps:
        """Compare the receipts of one session, the first of which has the number `first_no`."""
        yield from self._walk(session_id, partial(ReceiptWalk, session_no, first_no))

    def _walk(
        self,
        session_id: str | None,
        walk_with: Callable[[SessionFindings], ReceiptWalk | IndexWalk],
    ) -> Steps:
        """Walk over the bytes of a file, again if it was imported further meanwhile."""
        for _ in range(MOVES_MAX):
            findings = SessionFindings()
            walk = walk_with(findings)
            yield from walk.steps()
            for check, what, severity in findings.found:
                self.add(check, session_id, what, severity)
            if not walk.moved:
                return
        self.add(
            "source",
            session_id,
            "its file was imported further again and again while its receipt was checked, so "
            "that check was not finished. Verify again when no import runs",
            "unfinished",
        )

    def _source(self, row: statements.VerifyImportFiles) -> None:
        if row.found_quarantined != row.quarantined:
            self.add(
                "source",
                row.session_id,
                f"the receipt of {row.path} counts {row.quarantined} quarantined lines, "
                f"but there are {row.found_quarantined}",
            )
        if row.last_line is not None and row.last_line > row.lines:
            self.add(
                "source",
                row.session_id,
                f"line {row.last_line} of {row.path} is quarantined, "
                f"but only {row.lines} lines were read",
            )
        if row.session_last_seq is not None and row.entries > row.session_last_seq:
            self.add(
                "source",
                row.session_id,
                f"{row.entries} entries were read from {row.path}, "
                f"but the last seq of its session is {row.session_last_seq}",
            )
        if row.origin not in (None, "import"):
            self.add(
                "source",
                row.session_id,
                f"it was imported from {row.path}, but its origin is {row.origin}",
                "warning",
            )

    # -- the gateway's tables: each row and its counterpart, in one snapshot -----------

    def _turns(self) -> Steps:
        return pages(
            lambda tx, after, limit: tx.all("verify.turns", after_no=after, limit=limit),
            lambda row: row.turn_no,
            self._turn,
            first=0,
        )

    def _turn(self, _tx: ReadTx, row: statements.VerifyTurns) -> None:
        name = f"turn {row.turn_no} is {row.state}, but"
        if row.state == "running" and (
            row.inbox_state != "claimed" or row.inbox_turn_no != row.turn_no
        ):
            self.add(
                "turn",
                row.session_id,
                f"{name} its inbox item {row.inbox_no} is {row.inbox_state or 'not there'}",
            )
        if row.state == "completed" and row.inbox_state not in ("done", None):
            self.add(
                "inbox",
                row.session_id,
                f"{name} its inbox item {row.inbox_no} is {row.inbox_state}: it would be answered "
                "twice",
            )
        if (row.kind == "resume") != (row.lane == "resume"):
            self.add(
                "turn", row.session_id, f"{name} it is a {row.kind} in lane {row.lane!r}", "warning"
            )
        if row.inbox_session_no not in (None, row.session_no):
            self.add(
                "turn",
                row.session_id,
                f"{name} its inbox item {row.inbox_no} is one of another session",
            )
        if row.expires_at_ms > row.deadline_ms:
            self.add("turn", row.session_id, f"{name} its lease runs past its deadline")
        if row.running > 1:
            self.add(
                "turn",
                row.session_id,
                f"{name} {row.running} turns of its session are running, and only one may",
            )

    def _outbox(self) -> Steps:
        return pages(
            lambda tx, after, limit: tx.all("verify.outbox", after_no=after, limit=limit),
            lambda row: row.outbox_no,
            self._reply,
            first=0,
        )

    def _reply(self, _tx: ReadTx, row: statements.VerifyOutbox) -> None:
        name = f"reply {row.outbox_no} is {row.state}, but"
        # Without a row, its turn was pruned, and the reply still waits to be sent or settled.
        if row.turn_state is not None and (
            row.turn_state != "completed" or row.turn_session_no != row.session_no
        ):
            self.add(
                "outbox",
                row.session_id,
                f"{name} its turn {row.turn_no} is {row.turn_state}, or another session's",
            )
        channel = row.target.partition(":")[0]
        if row.channel != channel:
            self.add(
                "outbox",
                row.session_id,
                f"{name} it waits in channel {row.channel!r} for {row.target!r}",
            )
        if not 0 <= row.attempts_before <= row.attempts:
            self.add(
                "outbox",
                row.session_id,
                f"{name} of {row.attempts} attempts {row.attempts_before} do not count",
                "warning",
            )
        if row.waits_in_vain:
            self.add(
                "queue",
                row.session_id,
                f"{name} it is marked to wait for another reply, and there is none",
            )
        if row.state == "sending" and (row.instance_no is None or row.expires_at_ms is None):
            self.add("outbox", row.session_id, f"{name} nobody is sending it")
        if (row.state in ("pending", "sending")) != (row.finished_at_ms is None):
            self.add(
                "outbox",
                row.session_id,
                f"{name} "
                f"{'it has ended' if row.finished_at_ms is not None else 'it has not ended'}",
            )

    def _cursors(self, tx: ReadTx) -> None:
        for row in tx.all("verify.cursors", limit=verify_steps.SESSION_FINDINGS_MAX):
            self.add(
                "event",
                None,
                f"consumer {row.consumer!r} has handled event {row.event_no}, "
                f"but the last one was {row.last_no}",
            )

    def _orphans(self) -> Steps:
        """Find entries whose session is missing: the entry table has no foreign key."""
        owner_no, last_no = 0, 0

        def bound(tx: ReadTx) -> None:
            nonlocal last_no
            last_no = tx.one("verify.last_owner").owner_no

        def step(tx: ReadTx) -> None:
            nonlocal owner_no
            for _ in range(verify_steps.PAGE_ROWS):
                row = (
                    tx.first("verify.next_owner", after_entry_no=entry_number(owner_no, SEQ_MAX))
                    if owner_no < last_no
                    else None
                )
                if row is None or row.owner_no is None:
                    owner_no = last_no
                    return
                owner_no = row.owner_no
                if tx.first("verify.exists", session_no=owner_no) is None:
                    self.add(
                        "orphan",
                        None,
                        f"there are entries of session number {owner_no}, which is not there",
                    )

        yield bound
        while owner_no < last_no:
            yield step

    def _each_session(self) -> Steps:
        session_no, last_no = 0, 0

        def bound(tx: ReadTx) -> None:
            nonlocal last_no
            # Later sessions are left out: a gateway may create them faster than they are walked.
            last_no = tx.one("verify.last_session").session_no

        def step(tx: ReadTx) -> None:
            nonlocal session_no
            row = tx.first("verify.next_session", after_no=session_no)
            session_no = row.session_no if row is not None else last_no + 1

        yield bound
        while session_no < last_no:
            yield step
            if session_no <= last_no:
                yield from self._session(session_no)

    def _session(self, session_no: int) -> Steps:
        walk = SessionWalk(session_no, deep=self.deep)
        yield from self._whole(walk)
        for _ in range(MOVES_MAX):
            if not walk.moved:
                break
            walk = SessionWalk(session_no, deep=self.deep)
            yield from self._whole(walk)
        if walk.moved:
            walk.findings.add(
                "archive",
                "the session was archived and restored again and again while it was checked, "
                "so its check was not finished. Verify it again",
                "unfinished",
            )
        if not walk.exists:
            return
        self.sessions += 1
        self.entries += walk.entries
        for check, what, severity in walk.findings.found:
            self.add(check, walk.session_id, what, severity)

    def _whole(self, walk: SessionWalk) -> Steps:
        """Run the steps of one session's walk. An error ends them, and is a finding."""
        try:
            yield from walk.steps()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            if is_damage(error):
                walk.findings.add("file", f"the session cannot be read to its end: {error}")
            else:
                walk.findings.unfinished("file", "the session was not checked to its end", error)
