"""Walk a real database and report every invariant that does not hold.

Each rule is derived here a second time, from the rows as they lie, and not by calling the code that wrote them:
the two must agree. A finding says what is wrong, at which entry, and what to do about it.

The walk is a generator of *steps*. A step is one short snapshot of bounded size; nothing is held between two of
them, so appends, compactions and checkpoints go on. What makes the result exact all the same:

* a session's moving parts (its pointers, its open epoch, its counters) are read and compared in *one* snapshot, S;
* everything else is immutable once committed (entries, branches, closed epochs, committed compactions), so later
  steps look at it at leisure, but only at what already existed at S: entries up to S's last seq, epochs up to S's;
* a session that was deleted meanwhile is dropped with its findings.

Memory is bounded by a page, a slice of payloads, the capped findings, and one integer per compaction of a session.
Verify repairs nothing and writes nothing. A page of the file that SQLite cannot read is a finding, and the walk goes
on with the next session. The check of the whole file is a single statement, hence a single snapshot: one that takes
longer than `read_age_s_max` is given up with a warning, because it would keep the WAL from being reset.

The file is long and one idea: the invariants of one session, each a few lines, in the order of the schema's tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, Literal

from sessiondb.backend import Backend, ReadTx, Row
from sessiondb.errors import InvalidInput, ReadTooLong, StoreDamaged
from sessiondb.json_text import has_more_values, int_or_float, storable
from sessiondb.limits import ENTRY_VALUES_MAX, SEQ_BITS, SEQ_MAX
from sessiondb.models import Finding, VerifyReport

from . import archive, archive_format

Step = Callable[[ReadTx], None]
Steps = Generator[Step, None, None]

PAGE_ROWS: Final = 256
# Texts are decoded a slice at a time: one step then holds a reader, and in C code the GIL, for a millisecond or two.
SLICE_BYTES: Final = 256 * 1024
# The search for a provider's count reads at most this many entries in one snapshot.
USAGE_SCAN_ENTRIES: Final = 5_000
# A database that is broken all over must not fill the memory with findings that say the same.
SESSION_FINDINGS_MAX: Final = 100
FINDINGS_MAX: Final = 1_000

_REBUILD = "Export the session and import the file into a new database: this is worked out again from the text."
_RESTORE = "Keep the file as it is and restore this session from a backup."
_POINTERS = "Fork the session at its last good entry and go on in the fork."

# What reading a damaged page can raise. Tables are STRICT, so a value of another type than its column's is damage too: a page
# that was overwritten with one of another table.
UNREADABLE: Final = (
    StoreDamaged,
    UnicodeDecodeError,
    TypeError,
    ValueError,
    RecursionError,
    MemoryError,
)

ADVICE: Final[dict[str, str]] = {
    "file": "Keep the file as it is, and run `sessiondb salvage DB NEW` to get out what can be read, or restore a backup.",
    "foreign_key": "Some other program changed the file; restore a backup.",
    "binding": "Bind the key again (it gets a new session), or restore a backup.",
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
    "name": _REBUILD,
    "head": _POINTERS,
    "pointers": _POINTERS,
    "context_tokens": "The next reply with a provider's count, or the next compaction, sets it right.",
    "epoch": _RESTORE,
    "compaction": _RESTORE,
    "archive": _RESTORE,
    "inbox": "Look at `sessiondb inbox DB` and the table `turn`; a message that is stuck is sent again by whoever sent it.",
    "turn": "Its lease ends it: a lane that runs takes the session over, and so does the next start.",
    "outbox": "Look at `sessiondb outbox DB`, and settle the reply by hand.",
    "event": "Use another name for the consumer, or restore a backup.",
}
"""Every check by name, with what to do when it fails."""


async def run(backend: Backend, session_no: int | None, *, deep: bool) -> VerifyReport:
    """Walk the database, or one session of it. May be repeated; changes nothing.

    Raises:
        StoreBusy: every reader is occupied and the queue is full; start again later.
    """
    walk = Walk(session_no, deep=deep)
    for concern in backend.stats().get("concerns", ()) if session_no is None else ():
        # Of the files, not of what is in them: no invariant, so it is none of the checks.
        walk.findings.append(
            Finding(
                "access",
                None,
                f"{concern}. Transcripts hold what people said in confidence.",
                "warning",
            )
        )
    steps = walk.steps()
    failure: Exception | None = None
    while True:
        try:
            step = steps.throw(failure) if failure is not None else next(steps)
        except StopIteration:
            return walk.report()
        failure = None
        try:
            await backend.read(step, op="verify")
        except (*UNREADABLE, ReadTooLong) as error:
            failure = error  # handed to the walk, which knows what it was about to read


class Walk:
    """One walk over a database: what it has seen and found so far."""

    def __init__(self, session_no: int | None, *, deep: bool) -> None:
        self.deep = deep
        self.sessions = 0
        self.entries = 0
        self.findings: list[Finding] = []
        self._only_no = session_no

    def report(self) -> VerifyReport:
        """Return what was found."""
        return VerifyReport(
            sessions=self.sessions, entries=self.entries, findings=tuple(self.findings)
        )

    def steps(self) -> Steps:
        """Yield functions to run, each in a snapshot of its own and before the next is asked for."""
        if self._only_no is not None:
            yield from self._session(self._only_no)
            return
        yield from self._file()
        yield from self._guarded("the bindings", self._bindings())
        yield from self._guarded("the receipts of imports", self._sources())
        yield from self._guarded("the owners of entries", self._orphans())
        yield from self._guarded(
            "the inbox", self._pages("verify.inbox", "inbox_no", self._inbox_item)
        )
        yield from self._guarded("the turns", self._pages("verify.turns", "turn_no", self._turn))
        yield from self._guarded(
            "the outbox", self._pages("verify.outbox", "outbox_no", self._reply)
        )
        yield from self._guarded("the consumers of events", _single(self._cursors))
        yield from self._guarded("the list of sessions", self._each_session())

    def add(
        self,
        check: str,
        session_id: str | None,
        what: str,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Record a finding, unless there are too many already."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(check, session_id, f"{what}. {ADVICE[check]}", severity))
        elif len(self.findings) == FINDINGS_MAX:
            self.findings.append(
                Finding(check, None, f"More than {FINDINGS_MAX:,} findings; the rest is left out.")
            )

    def _guarded(self, what: str, steps: Steps) -> Steps:
        """Run steps; a part that cannot be read is a finding and ends these steps, not the walk."""
        try:
            yield from steps
        except UNREADABLE as error:
            self.add("file", None, f"{what} cannot be read: {error}")
        except ReadTooLong as error:
            self.add("file", None, f"{what} could not be checked in time: {error}", "warning")

    # -- the file, and what belongs to no session -----------------------------------------------------------

    def _file(self) -> Steps:
        def check(tx: ReadTx) -> None:
            for row in tx.all("verify.file_full" if self.deep else "verify.file_quick"):
                if row.problem != "ok":
                    self.add("file", None, f"SQLite: {row.problem}")

        def references(tx: ReadTx) -> None:
            for row in tx.all("verify.foreign_keys", limit=SESSION_FINDINGS_MAX):
                if row.table_name != "binding":  # has a check of its own, which can name the key
                    self.add(
                        "foreign_key",
                        None,
                        f"row {row.row_no} of {row.table_name} points at a {row.parent_name} that is not there",
                    )

        for what, step in (("the file", check), ("the references between tables", references)):
            yield from self._guarded(what, _single(step))

    def _bindings(self) -> Steps:
        after_key: str | None = ""

        def step(tx: ReadTx) -> None:
            nonlocal after_key
            rows = tx.all("verify.lost_bindings", after_key=after_key, limit=PAGE_ROWS)
            for row in rows:
                self.add(
                    "binding",
                    None,
                    f"key {row.session_key!r} is bound to session number {row.session_no}, which is not there",
                )
            after_key = rows[-1].session_key if len(rows) == PAGE_ROWS else None

        while after_key is not None:
            yield step

    def _sources(self) -> Steps:
        after_no: int | None = 0

        def step(tx: ReadTx) -> None:
            nonlocal after_no
            rows = tx.all("verify.import_files", after_no=after_no, limit=PAGE_ROWS)
            for row in rows:
                self._source(row)
            after_no = rows[-1].import_file_no if len(rows) == PAGE_ROWS else None

        while after_no is not None:
            yield step

    def _source(self, row: Row) -> None:
        if row.found_quarantined != row.quarantined:
            self.add(
                "source",
                row.session_id,
                f"the receipt of {row.path} counts {row.quarantined} quarantined lines; there are {row.found_quarantined}",
            )
        if row.last_line is not None and row.last_line > row.lines:
            self.add(
                "source",
                row.session_id,
                f"line {row.last_line} of {row.path} is quarantined, but only {row.lines} lines were read",
            )
        if (
            row.session_last_seq is not None and row.entries > row.session_last_seq + 1
        ):  # and the header
            self.add(
                "source",
                row.session_id,
                f"{row.entries} entries were read from {row.path}; its session has {row.session_last_seq}",
            )

    # -- the gateway's tables: each row beside what it must agree with, in one snapshot ----------------------

    def _pages(self, statement: str, number: str, check: Callable[[Row], None]) -> Steps:
        after_no: int | None = 0

        def step(tx: ReadTx) -> None:
            nonlocal after_no
            rows = tx.all(statement, after_no=after_no, limit=PAGE_ROWS)
            for row in rows:
                check(row)
            after_no = getattr(rows[-1], number) if len(rows) == PAGE_ROWS else None

        while after_no is not None:
            yield step

    def _inbox_item(self, row: Row) -> None:
        name = f"inbox item {row.inbox_no} is {row.state}, but"
        if not row.is_json and row.state not in ("done", "dead"):
            self.add(
                "inbox", row.session_id, f"{name} its text is not JSON: no turn can work on it"
            )
        if row.state == "claimed" and row.turn_state != "running":
            self.add(
                "inbox",
                row.session_id,
                f"{name} its turn {row.turn_no} is {row.turn_state or 'not there'}",
            )
        if row.state != "claimed" and row.turn_state == "running":
            self.add("inbox", row.session_id, f"{name} its turn {row.turn_no} is running")
        if row.turn_state is not None and (
            row.turn_inbox_no != row.inbox_no or row.turn_session_no != row.session_no
        ):
            self.add(
                "inbox",
                row.session_id,
                f"{name} its turn {row.turn_no} worked on item {row.turn_inbox_no}",
            )
        if row.state in ("claimed", "interrupted") and (row.entry_no is None or row.attempts < 1):
            self.add("inbox", row.session_id, f"{name} it counts no attempt, or has no entry")
        if (
            row.entry_no is not None
            and row.found_role != "user"
            and row.archived_at_ms is None
            and row.is_users
        ):
            self.add(
                "inbox",
                row.session_id,
                f"{name} its entry {_at(row.entry_no)} is not in the transcript",
            )
        if row.entry_no is not None and row.entry_no >> SEQ_BITS != row.session_no:
            self.add(
                "inbox",
                row.session_id,
                f"{name} its entry {_at(row.entry_no)} lies in another session",
            )

    def _turn(self, row: Row) -> None:
        name = f"turn {row.turn_no} is {row.state}, but"
        if row.state == "running" and (
            row.inbox_state != "claimed" or row.inbox_turn_no != row.turn_no
        ):
            self.add(
                "turn",
                row.session_id,
                f"{name} its inbox item {row.inbox_no} is {row.inbox_state or 'not there'}",
            )
        if row.expires_at_ms > row.deadline_ms:
            self.add("turn", row.session_id, f"{name} its lease runs past its deadline")
        if row.running > 1:
            self.add(
                "turn",
                row.session_id,
                f"{name} {row.running} turns of its session are running; there can be one",
            )

    def _reply(self, row: Row) -> None:
        name = f"reply {row.outbox_no} is {row.state}, but"
        # No row of its turn: that was pruned, and the reply still waits to be sent or settled.
        if row.turn_state is not None and (
            row.turn_state != "completed" or row.turn_session_no != row.session_no
        ):
            self.add(
                "outbox",
                row.session_id,
                f"{name} its turn {row.turn_no} is {row.turn_state}, or another session's",
            )
        if row.state == "sending" and (row.instance_no is None or row.expires_at_ms is None):
            self.add("outbox", row.session_id, f"{name} nobody is sending it")
        if (row.state in ("pending", "sending")) != (row.finished_at_ms is None):
            self.add(
                "outbox",
                row.session_id,
                f"{name} {'it has ended' if row.finished_at_ms is not None else 'it has not ended'}",
            )

    def _cursors(self, tx: ReadTx) -> None:
        for row in tx.all("verify.cursors", limit=SESSION_FINDINGS_MAX):
            self.add(
                "event",
                None,
                f"consumer {row.consumer!r} has handled event {row.event_no}, but the last one was {row.last_no}",
            )

    def _orphans(self) -> Steps:
        """Look for entries of sessions that are not there; the entry table has no foreign key to say so."""
        owner_no, last_no = 0, 0

        def bound(tx: ReadTx) -> None:
            nonlocal last_no
            last_no = tx.one("verify.last_owner").owner_no

        def step(tx: ReadTx) -> None:
            nonlocal owner_no
            for _ in range(PAGE_ROWS):
                row = (
                    tx.first("verify.next_owner", after_entry_no=_number(owner_no, SEQ_MAX))
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
            # Sessions made after this are not looked at: a gateway may make them faster than they are walked.
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
        try:
            yield from walk.steps()
        except UNREADABLE as error:
            walk.add("file", f"the session cannot be read to its end: {error}")
        except ReadTooLong as error:
            walk.add("file", f"the session could not be checked to its end: {error}", "warning")
        if not walk.there:
            return
        self.sessions += 1
        self.entries += walk.entries
        for check, what, severity in walk.found:
            self.add(check, walk.session_id, what, severity)


def _single(step: Step) -> Steps:
    yield step


def _number(session_no: int, seq: int) -> int:
    return session_no << SEQ_BITS | seq


def _at(entry_no: int | None) -> str:
    """Name an entry for a person: its seq, and its session where that may be another one."""
    return "none" if entry_no is None else f"{entry_no >> SEQ_BITS}/{entry_no & SEQ_MAX}"


class SessionWalk:
    """The walk over one session."""

    def __init__(self, session_no: int, *, deep: bool) -> None:
        self.session_no = session_no
        self.deep = deep
        self.session_id = ""
        self.there = False
        self.entries = 0
        self.found: list[tuple[str, str, Literal["error", "warning"]]] = []
        self._low_no, self._high_no = _number(session_no, 0), _number(session_no, SEQ_MAX)
        self._row: Any = None
        self._name: str | None = None  # of the last session_info entry
        self._boundaries = 0  # compaction and reset entries that began a context

    def add(self, check: str, what: str, severity: Literal["error", "warning"] = "error") -> None:
        """Record a finding, unless the session has too many already."""
        if len(self.found) < SESSION_FINDINGS_MAX:
            self.found.append((check, what, severity))
        elif len(self.found) == SESSION_FINDINGS_MAX:
            self.found.append(
                (
                    check,
                    f"more than {SESSION_FINDINGS_MAX} findings in this session; the rest is left out",
                    severity,
                )
            )

    def _of(self, row: Row, check: str, what: str) -> None:
        self.add(check, f"entry {_at(row.entry_no)} {what}")

    def steps(self) -> Steps:
        """Yield the steps of this session: its row first, which bounds everything after it."""
        yield self._read_row
        if not self.there:
            return
        if self._row.archived_at_ms is not None:
            yield from self._archive()
            return
        yield from self._usage()
        yield from self._branches()
        yield from self._entries()
        yield from self._epochs()
        yield from self._compactions()
        yield self._still_there

    def _still_there(self, tx: ReadTx) -> None:
        row = tx.first("verify.exists", session_no=self.session_no)
        self.there = row is not None
        if row is not None and row.archived_at_ms is not None:
            self.found.clear()  # its entries went into an archive while they were looked at

    def _archive(self) -> Steps:
        """The entries are in an archive, or on the way into it or out of it: it is there, and whole."""
        chunk_no: int | None = None  # the next one to look at
        order, seen = archive_format.Order(), 0

        def count(tx: ReadTx) -> None:
            nonlocal chunk_no
            row = tx.first("verify.archive", session_no=self.session_no)
            archived = (
                tx.one("verify.exists", session_no=self.session_no).archived_at_ms is not None
            )
            if not archived:
                return  # restored since
            if row is None or row.state in ("writing", "complete"):
                self.add(
                    "archive",
                    f"the session is marked as archived, but its archive is {'not there' if row is None else row.state}",
                )
            elif row.state != "deleted" and row.found_rows != row.rows:
                self.add(
                    "archive", f"its archive counts {row.rows} rows and holds {row.found_rows}"
                )
            elif row.state != "deleted":
                try:
                    archive.keys_of(row.session_keys, self.session_id)
                except StoreDamaged as error:
                    self.add("archive", str(error).partition(". ")[0])
                chunk_no = 0 if self.deep else None

        def look(tx: ReadTx) -> None:
            nonlocal chunk_no, seen
            row = tx.first("verify.archive", session_no=self.session_no)
            chunk = (
                tx.first("archive.chunk", archive_no=row.archive_no, chunk_no=chunk_no)
                if row is not None
                else None
            )
            if row is None or chunk is None:
                if (
                    row is not None and row.state != "deleted" and seen != row.found_rows
                ):  # else it was restored or dropped meanwhile
                    self.add(
                        "archive",
                        f"chunk {chunk_no} of its archive is not there; {row.found_rows - seen} rows are behind it",
                    )
                chunk_no = None
                return
            try:
                found = archive_format.damage(
                    chunk, row.encoding, self.session_no, self.session_id, order
                )
            except InvalidInput as error:
                self.add("archive", f"its archive cannot be checked here: {error}", "warning")
                chunk_no = None
                return
            chunk_no, seen = chunk.chunk_no + 1, seen + chunk.rows
            if found is not None:
                self.add("archive", found)

        def look_for_branches(tx: ReadTx) -> None:
            if tx.first("verify.archive_of_parent", session_no=self.session_no) is not None:
                return  # they are in that archive, or not; a restore brings it back first, and looks then
            for branch_no in archive.missing_branches(tx, order):
                self.add(
                    "archive",
                    f"a branch in its archive leaves from branch {branch_no}, which is not there",
                )

        yield count
        while chunk_no is not None:
            yield look
        for low, high in order.gaps:
            self.add("archive", f"entries {low} to {high} are missing in its archive")
        if order.branches_elsewhere:
            yield look_for_branches

    # -- the session's row ----------------------------------------------------------------------------------

    def _read_row(self, tx: ReadTx) -> None:
        # Critical section, as far as a reader has one: all that moves is compared here, in one snapshot.
        row = tx.first(
            "verify.session", session_no=self.session_no, low_no=self._low_no, high_no=self._high_no
        )
        if row is None:
            return
        self.there, self.session_id, self._row = True, row.session_id, row
        if row.archived_at_ms is not None:
            return
        self._header(row)
        self._head(row)
        self._pointers(tx, row)
        if not row.tokens_fresh:
            self._estimate(row)
        if row.running > 1:
            self.add("compaction", f"{row.running} compactions are running; there can be one")

    def _header(self, row: Row) -> None:
        if (
            row.header_type is None and row.origin != "import"
        ):  # an imported file may have come without one
            self.add("header", "entry 0, the header, is not there")
        elif row.header_type not in (None, "session"):
            self.add("header", f"entry 0 is a {row.header_type!r}, not the header")
        last_seq = 0 if row.last_no is None else row.last_no & SEQ_MAX
        if last_seq != row.last_seq:
            self.add(
                "sequence",
                f"the session's last seq is {row.last_seq}, but its last entry has {last_seq}",
            )

    def _head(self, row: Row) -> None:
        if row.head_no is None:
            if row.branch_no is not None:
                self.add("head", f"the session has branch {row.branch_no} but no head")
            return
        if row.found_head_no is None:
            self.add("head", f"the head, entry {_at(row.head_no)}, is not there")
        elif row.head_branch_no is None:
            self.add(
                "head",
                f"the head, entry {_at(row.head_no)}, is a control record and no part of the tree",
            )
        elif row.branch_no is not None and row.head_branch_no != row.branch_no:
            self.add(
                "head",
                f"the head, entry {_at(row.head_no)}, is on branch {row.head_branch_no}, the session on {row.branch_no}",
            )
        elif row.after_head_no is not None:
            self.add(
                "head",
                f"the head, entry {_at(row.head_no)}, is followed by entry {_at(row.after_head_no)} on its branch",
            )
        owner_no = row.head_no >> SEQ_BITS
        if owner_no != row.session_no and (row.forked_from_no is None or owner_no > row.session_no):
            self.add(
                "head",
                f"the head, entry {_at(row.head_no)}, belongs to a session that this one was not forked from",
            )

    def _pointers(self, tx: ReadTx, row: Row) -> None:
        if row.last_epoch != row.epoch:
            self.add(
                "epoch",
                f"the session is at epoch {row.epoch}, but its last one is {row.last_epoch}",
            )
        if row.open_epoch is None:
            return  # reported with the epochs
        if row.open_closed_at_ms is not None:
            self.add("epoch", f"the session's epoch {row.epoch} is closed")
        if (row.boundary_no, row.first_kept_no) != (row.open_boundary_no, row.open_first_kept_no):
            self.add(
                "pointers",
                f"the session's context begins at {_at(row.boundary_no)} and keeps from {_at(row.first_kept_no)}, "
                f"but its epoch {row.epoch} at {_at(row.open_boundary_no)} and from {_at(row.open_first_kept_no)}",
            )
        elif (
            row.found_boundary_no is not None
            and row.boundary_no != row.head_boundary_no
            and not self._leads_to_head(tx, row)
        ):
            self.add(
                "pointers",
                f"the context begins at entry {_at(row.boundary_no)}, which is not on the path to the head",
            )

    def _leads_to_head(self, tx: ReadTx, row: Row) -> bool:
        if row.head_branch_no is None:
            return True  # reported as what it is
        return _on_path(
            tx, row.found_boundary_no, row.boundary_branch_no, row.head_branch_no, row.head_no
        )

    def _estimate(self, row: Row) -> None:
        """Not fresh: the sums along the path, less what lies before the context, plus the boundary's own summary."""
        expected = row.head_tokens_total or 0
        if row.boundary_no is not None:
            if row.found_boundary_no is None or (
                row.first_kept_no is not None and row.found_kept_no is None
            ):
                return  # reported with the epochs
            cut = (
                row.boundary_tokens_total
                if row.first_kept_no is None
                else (row.before_kept_tokens_total or 0)
            )
            expected += row.boundary_tokens - cut
        if expected != row.context_tokens:
            self.add(
                "context_tokens",
                f"the context is said to have {row.context_tokens} tokens; its entries add up to {expected}",
            )

    def _usage(self) -> Steps:
        """Fresh: the last count of a provider on the path, plus what came after it; never from before the boundary."""
        row = self._row
        if not row.tokens_fresh or row.head_branch_no is None:
            return
        place: tuple[int | None, int] = (row.head_branch_no, row.head_no)
        lowest_no = row.boundary_no or 0
        counted: Row | None = None

        def step(tx: ReadTx) -> None:
            nonlocal place, counted
            branch_no, high_no = place
            branch = tx.first("transcript.branch", branch_no=branch_no)
            if branch is None:
                place = (None, 0)
                return
            low_no = max(branch.first_no, lowest_no, high_no - USAGE_SCAN_ENTRIES + 1)
            counted = tx.first(
                "verify.last_usage", branch_no=branch_no, low_no=low_no, high_no=high_no
            )
            if low_no > branch.first_no:
                place = (branch_no, low_no - 1)
            elif branch.fork_no is not None and branch.fork_no < high_no:
                place = (branch.parent_branch_no, branch.fork_no)
            else:
                place = (None, 0)

        while place[0] is not None and place[1] >= lowest_no and counted is None:
            yield step
        if counted is None:
            self.add(
                "context_tokens",
                "the tokens are said to rest on a provider's count, but no entry of the context carries one",
            )
            return
        expected = counted.usage_tokens + row.head_tokens_total - counted.tokens_total
        if expected != row.context_tokens:
            self.add(
                "context_tokens",
                f"the context is said to have {row.context_tokens} tokens; entry {_at(counted.entry_no)} and what follows make {expected}",
            )

    # -- branches -------------------------------------------------------------------------------------------

    def _branches(self) -> Steps:
        after_no: int | None = 0

        def step(tx: ReadTx) -> None:
            nonlocal after_no
            rows = tx.all(
                "verify.branches", session_no=self.session_no, after_no=after_no, limit=PAGE_ROWS
            )
            for row in rows:
                self._branch(row)
            after_no = rows[-1].branch_no if len(rows) == PAGE_ROWS else None

        while after_no is not None:
            yield step

    def _branch(self, row: Row) -> None:
        if row.first_no >> SEQ_BITS != self.session_no or row.first_branch_no != row.branch_no:
            self.add(
                "branch",
                f"branch {row.branch_no} begins at entry {_at(row.first_no)}, which is not on it",
            )
        elif row.first_parent_no != row.fork_no:
            self.add(
                "branch",
                f"branch {row.branch_no} left its parent at entry {_at(row.fork_no)}, "
                f"but its first entry {_at(row.first_no)} follows {_at(row.first_parent_no)}",
            )
        if row.parent_branch_no is None:
            return
        if (
            row.parent_branch_no >= row.branch_no
        ):  # a parent is always older: that there are no cycles follows
            self.add(
                "branch",
                f"branch {row.branch_no} has the later branch {row.parent_branch_no} as its parent",
            )
        elif row.found_parent_branch_no is None:
            self.add(
                "branch",
                f"branch {row.branch_no} has the parent {row.parent_branch_no}, which is not there",
            )
        elif row.found_fork_no is None or row.fork_branch_no != row.parent_branch_no:
            self.add(
                "branch",
                f"branch {row.branch_no} left {row.parent_branch_no} at entry {_at(row.fork_no)}, which is not on that",
            )

    # -- entries --------------------------------------------------------------------------------------------

    def _entries(self) -> Steps:
        low_no, high_no = self._low_no, _number(self.session_no, self._row.last_seq)
        page: list[Row] = []

        def read_page(tx: ReadTx) -> None:
            nonlocal page
            page = tx.all("verify.entries", low_no=low_no, high_no=high_no, limit=PAGE_ROWS)
            for row in page:
                self._entry(tx, row)

        def check_texts(rows: list[Row]) -> Step:
            def step(tx: ReadTx) -> None:
                texts = dict(
                    tx.tuples("verify.payloads", low_no=rows[0].entry_no, high_no=rows[-1].entry_no)
                )
                for row in rows:
                    if (
                        row.entry_no in texts
                    ):  # else deleted with its whole session, which is noticed at the end
                        self._text(tx, row, texts[row.entry_no])

            return step

        expected_seq = 1 if self._row.header_type is None else 0
        while True:
            yield read_page
            for row in page:
                seq = row.entry_no & SEQ_MAX
                if seq != expected_seq:
                    self.add("sequence", f"entries {expected_seq} to {seq - 1} are missing")
                expected_seq = seq + 1
            self.entries += len(page)
            if self.deep:
                yield from (check_texts(rows) for rows in _slices(page))
            if len(page) < PAGE_ROWS:
                break
            low_no = page[-1].entry_no + 1
        if self.deep and self._name != self._row.name:
            self.add(
                "name",
                f"the session is named {self._row.name!r}, but its last session_info entry says {self._name!r}",
            )

    def _entry(self, tx: ReadTx, row: Row) -> None:
        if row.branch_no is None:
            self._control_record(row)
            return
        if row.type in ("session", "leaf"):
            self._of(row, "tree", f"is a {row.type!r} record, but lies on branch {row.branch_no}")
            return
        if row.found_branch_no is None:
            self._of(row, "branch", f"lies on branch {row.branch_no}, which is not there")
        elif row.branch_session_no != self.session_no:
            self._of(
                row,
                "branch",
                f"lies on branch {row.branch_no} of session number {row.branch_session_no}",
            )
        elif row.entry_no < row.first_no:
            self._of(
                row,
                "branch",
                f"lies before the beginning {_at(row.first_no)} of its branch {row.branch_no}",
            )
        if not self._parent(row):
            return
        self._sums(row)
        self._inheritance(row)
        self._boundary(tx, row)

    def _control_record(self, row: Row) -> None:
        carried = (
            row.position,
            row.projection,
            row.tokens,
            row.tokens_total,
            row.open_calls,
            row.body_bytes,
        )
        inherited = (row.boundary_no, row.first_kept_no, row.model_no, row.thinking_no)
        if row.type not in ("session", "leaf"):
            self._of(row, "tree", f"is a {row.type!r}, but lies on no branch")
        elif any(carried) or any(number is not None for number in inherited):
            self._of(
                row, "tree", f"is a {row.type!r} record outside the tree, but has a place in it"
            )

    def _parent(self, row: Row) -> bool:
        """Check where an entry hangs; False when that is wrong, and there is no parent to compare the rest with."""
        if row.parent_no is None:
            if row.found_branch_no is not None and row.entry_no != row.first_no:
                self._of(row, "parent", "has no parent, but is not the first of its branch")
                return False
            return True
        if row.found_parent_no is None:
            self._of(row, "parent", f"follows entry {_at(row.parent_no)}, which is not there")
            return False
        if row.parent_no >= row.entry_no:
            self._of(row, "parent", f"follows entry {_at(row.parent_no)}, which came later")
            return False
        if row.parent_branch_no is None:
            self._of(
                row, "parent", f"follows entry {_at(row.parent_no)}, a record outside the tree"
            )
            return False
        if (
            row.found_branch_no is not None
            and row.entry_no > row.first_no
            and row.parent_no != row.previous_no
        ):
            # The first of a branch is compared with its branch's row, in _branch.
            self._of(
                row,
                "parent",
                f"follows entry {_at(row.parent_no)}, but before it on its branch comes {_at(row.previous_no)}",
            )
            return False
        return True

    def _sums(self, row: Row) -> None:
        position = (row.parent_position or 0) + 1
        if row.position != position:
            self._of(row, "position", f"has position {row.position} instead of {position}")
        counts = row.projection in (1, 3, 4)
        total = (row.parent_tokens_total or 0) + (row.tokens if counts else 0)
        if row.tokens_total != total:
            self._of(
                row, "tokens", f"sums the path up to {row.tokens_total} tokens instead of {total}"
            )
        if row.role != "assistant":  # what a reply calls is in its text
            before = row.parent_open_calls or 0
            self._open_calls(row, max(0, before - 1) if row.role == "toolResult" else before)
        if row.projection in (1, 2, 4) and not row.body_bytes:
            self._of(row, "projection", "is part of contexts but has no body")

    def _open_calls(self, row: Row, expected: int) -> None:
        if row.open_calls != expected:
            self._of(
                row, "open_calls", f"leaves {row.open_calls} tool calls open instead of {expected}"
            )

    def _inheritance(self, row: Row) -> None:
        sets_model = row.role == "assistant" or row.type == "model_change"
        model_no = row.entry_no if sets_model else row.parent_model_no
        if row.model_no != model_no:
            self._of(
                row, "model", f"has its model from {_at(row.model_no)} instead of {_at(model_no)}"
            )
        thinking_no = (
            row.entry_no if row.type == "thinking_level_change" else row.parent_thinking_no
        )
        if row.thinking_no != thinking_no:
            self._of(
                row,
                "thinking",
                f"has its thinking level from {_at(row.thinking_no)} instead of {_at(thinking_no)}",
            )

    def _boundary(self, tx: ReadTx, row: Row) -> None:
        """A boundary begins a context at itself; any other entry inherits, or was appended where undo or fork moved it."""
        if row.boundary_no == row.entry_no and row.type in ("compaction", "reset"):
            self._boundaries += 1
            self._first_kept(tx, row)
            return
        if row.first_kept_no is not None:
            self._of(
                row,
                "first_kept",
                f"keeps entries from {_at(row.first_kept_no)}, but no context begins at it",
            )
        if row.boundary_no == row.parent_boundary_no:
            return
        moved = tx.first(
            "verify.reopened_at",
            session_no=self.session_no,
            head_no=row.parent_no,
            boundary_no=row.boundary_no,
        )
        if moved is None:
            self._of(
                row,
                "boundary",
                f"was appended to a context that begins at {_at(row.boundary_no)} instead of {_at(row.parent_boundary_no)}",
            )

    def _first_kept(self, tx: ReadTx, row: Row) -> None:
        if row.first_kept_no is None:
            return
        kept = tx.first("verify.place", entry_no=row.first_kept_no)
        if kept is None:
            self._of(
                row,
                "first_kept",
                f"keeps entries from {_at(row.first_kept_no)}, which is not there",
            )
        elif row.parent_no is None or not _on_path(
            tx, kept.entry_no, kept.branch_no, row.parent_branch_no, row.parent_no
        ):
            self._of(
                row,
                "first_kept",
                f"keeps entries from {_at(row.first_kept_no)}, which is not on the path to it",
            )

    # -- texts ----------------------------------------------------------------------------------------------

    def _text(self, tx: ReadTx, row: Row, payload: bytes) -> None:
        try:
            fields = _decode(payload)
        except RecursionError:
            self.add(
                "payload",
                f"the text of entry {_at(row.entry_no)} is nested too deeply to be checked",
                "warning",
            )
            return
        except ValueError as error:
            self.add("payload", f"the text of entry {_at(row.entry_no)} is not JSON: {error}")
            return
        if not isinstance(fields, dict):
            self.add("payload", f"the text of entry {_at(row.entry_no)} is not an object")
            return
        self._columns(tx, row, fields)
        if row.type == "session_info":
            self._name = _text(fields.get("name"))
        if row.branch_no is not None:
            self._body(row, fields, payload)
            self._side(row, fields)

    def _columns(self, tx: ReadTx, row: Row, fields: dict[str, Any]) -> None:
        entry_type, entry_id, parent_id = (
            _text(fields.get("type")),
            _text(fields.get("id")),
            _text(fields.get("parentId")),
        )
        if entry_type != row.type:
            self._of(row, "payload", f"is stored as {row.type!r}, but its text says {entry_type!r}")
        if entry_id and entry_id != row.entry_id:
            self._of(
                row,
                "payload",
                f"is stored with id {row.entry_id!r}, but its text says {entry_id!r}",
            )
        if row.parent_id is None or row.branch_no is None or parent_id in (None, "", row.parent_id):
            return
        if (
            tx.first("verify.control_record", session_no=self.session_no, entry_id=parent_id)
            is None
        ):
            self._of(row, "parent", f"follows {row.parent_id!r}, but its text says {parent_id!r}")

    def _body(self, row: Row, fields: dict[str, Any], payload: bytes) -> None:
        message = fields.get("message")
        if row.type != "message" or not isinstance(message, dict):
            if row.projection in (1, 2, 4):
                self._of(row, "projection", "is part of contexts with its message, but has none")
        else:
            self._message(row, message)
        if not row.body_bytes:
            return  # an entry of another type need not mark its message; one that is projected must: see _sums
        body = payload[row.body_at : row.body_at + row.body_bytes]
        try:
            agrees = isinstance(message, dict) and _decode(body) == message
        except ValueError:
            agrees = False
        if not agrees:
            span = f"{row.body_at} to {row.body_at + row.body_bytes}"
            self.add("body", f"bytes {span} of entry {_at(row.entry_no)} are not its message")

    def _message(self, row: Row, message: dict[str, Any]) -> None:
        text = _text(message.get("role"))
        renamed = row.role == "custom" and text == "hookMessage"
        if not renamed and row.role != text:
            self._of(
                row, "payload", f"is stored with role {row.role!r}, but its text says {text!r}"
            )
        excluded = message.get("excludeFromContext") is True
        allowed = (2,) if excluded else (3,) if renamed else (1, 4)
        if row.projection not in allowed:
            self._of(row, "projection", f"has projection {row.projection} instead of {allowed[0]}")
        if row.role == "assistant":
            content = message.get("content")
            blocks = content if isinstance(content, list) and not excluded else []
            self._open_calls(
                row,
                sum(
                    1
                    for block in blocks
                    if isinstance(block, dict) and block.get("type") == "toolCall"
                ),
            )

    def _side(self, row: Row, fields: dict[str, Any]) -> None:
        if row.type not in ("compaction", "reset"):
            return
        begins = fields.get("appendMode") != "side"
        if begins != (row.boundary_no == row.entry_no):
            self._of(
                row,
                "boundary",
                f"is a {row.type} but begins no context"
                if begins
                else "is a side append but begins a context",
            )

    # -- epochs ---------------------------------------------------------------------------------------------

    def _epochs(self) -> Steps:
        low_epoch, previous, seen = 0, None, 0
        self._compacted: set[int] = set()
        page: list[Row] = []

        def step(tx: ReadTx) -> None:
            nonlocal page
            page = tx.all(
                "verify.epochs",
                session_no=self.session_no,
                low_epoch=low_epoch,
                high_epoch=self._row.epoch,
                limit=PAGE_ROWS,
            )
            for row in page:
                self._epoch_path(tx, row)

        while True:
            yield step
            for row in page:
                expected = previous.epoch + 1 if previous is not None else 0
                if row.epoch != expected:
                    self.add("epoch", f"epoch {expected} is missing before epoch {row.epoch}")
                self._epoch(row, previous if row.epoch == expected else None)
                seen += row.reason in ("compaction", "reset")
                previous = row
            if len(page) < PAGE_ROWS:
                break
            low_epoch = page[-1].epoch + 1
        if previous is None or previous.epoch < self._row.epoch:
            self.add("epoch", f"the session is at epoch {self._row.epoch}, which is not there")
        if seen != self._boundaries:
            self.add(
                "epoch",
                f"{self._boundaries} compaction and reset entries begin a context, but {seen} epochs say that one does",
            )

    def _epoch(self, row: Row, previous: Row | None) -> None:
        if row.epoch < self._row.epoch and row.closed_at_ms is None:
            self.add(
                "epoch", f"epoch {row.epoch} is open, but the session is at epoch {self._row.epoch}"
            )
        if (row.epoch == 0) != (row.reason in ("start", "fork")):
            self.add("epoch", f"epoch {row.epoch} cannot have begun with a {row.reason}")
        if row.boundary_no is not None and row.found_boundary_no is None:
            self.add(
                "epoch",
                f"epoch {row.epoch} begins at entry {_at(row.boundary_no)}, which is not there",
            )
            return
        if row.boundary_no is not None and row.boundary_type not in ("compaction", "reset"):
            self.add(
                "epoch",
                f"epoch {row.epoch} begins at entry {_at(row.boundary_no)}, a {row.boundary_type!r}",
            )
        elif row.first_kept_no != row.boundary_kept_no:
            self.add(
                "epoch",
                f"epoch {row.epoch} keeps entries from {_at(row.first_kept_no)}, its boundary from {_at(row.boundary_kept_no)}",
            )
        if row.reason not in ("compaction", "reset"):
            return
        if row.reason == "compaction":
            self._compacted.add(row.epoch)
        if (
            row.boundary_no is None
            or row.boundary_no >> SEQ_BITS != self.session_no
            or row.boundary_type != row.reason
        ):
            self.add(
                "epoch",
                f"epoch {row.epoch} began with a {row.reason}, but {_at(row.boundary_no)} is none of this session",
            )
        elif previous is not None and previous.closed_head_no != row.boundary_parent_no:
            self.add(
                "epoch",
                f"epoch {previous.epoch} ended at entry {_at(previous.closed_head_no)}, "
                f"but the next began after entry {_at(row.boundary_parent_no)}",
            )

    def _epoch_path(self, tx: ReadTx, row: Row) -> None:
        """The head that an epoch was closed at is an entry of the tree, and the epoch's boundary lies on its path."""
        if row.closed_head_no is None:
            return
        if row.found_head_no is None or row.head_branch_no is None:
            self.add(
                "epoch",
                f"epoch {row.epoch} ended at entry {_at(row.closed_head_no)}, which is no entry of the tree",
            )
            return
        if row.found_boundary_no is None or row.boundary_no == row.head_boundary_no:
            return  # what an entry inherits is on its path: checked entry by entry
        place = tx.first("verify.place", entry_no=row.boundary_no)
        if place is not None and not _on_path(
            tx, place.entry_no, place.branch_no, row.head_branch_no, row.closed_head_no
        ):
            self.add(
                "epoch",
                f"epoch {row.epoch} ended at entry {_at(row.closed_head_no)}; its boundary {_at(row.boundary_no)} is not on the path there",
            )

    # -- compactions ----------------------------------------------------------------------------------------

    def _compactions(self) -> Steps:
        after_no: int | None = 0
        committed: set[int] = set()

        def step(tx: ReadTx) -> None:
            nonlocal after_no
            rows = tx.all(
                "verify.compactions", session_no=self.session_no, after_no=after_no, limit=PAGE_ROWS
            )
            for row in rows:
                self._compaction(row)
                if (
                    row.state == "committed" and row.epoch <= self._row.epoch
                ):  # later ones came after S
                    if row.epoch in committed:
                        self.add(
                            "compaction",
                            f"two compactions say that they began epoch {row.epoch}; one is {row.compaction_id}",
                        )
                    committed.add(row.epoch)
            after_no = rows[-1].compaction_no if len(rows) == PAGE_ROWS else None

        while after_no is not None:
            yield step
        for epoch in sorted(self._compacted - committed):
            self.add(
                "compaction",
                f"epoch {epoch} began with a compaction, but no committed compaction says so",
            )

    def _compaction(self, row: Row) -> None:
        name = f"compaction {row.compaction_id}"
        if row.base_epoch > row.session_epoch:
            self.add(
                "compaction",
                f"{name} began at epoch {row.base_epoch}; the session is at {row.session_epoch}",
            )
        if row.cut_no is not None and row.cut_branch_no is None:
            self.add(
                "compaction",
                f"{name} covers everything up to entry {_at(row.cut_no)}, which is no entry of the tree",
            )
        if row.state != "committed":
            return
        if (
            row.found_entry_no is None
            or row.entry_no >> SEQ_BITS != self.session_no
            or row.entry_type != "compaction"
        ):
            self.add(
                "compaction",
                f"{name} is committed, but its entry {_at(row.entry_no)} is no compaction of this session",
            )
        elif row.epoch_reason != "compaction" or row.epoch_boundary_no != row.entry_no:
            self.add(
                "compaction",
                f"{name} is committed, but epoch {row.epoch} does not begin at its entry {_at(row.entry_no)}",
            )
        elif row.base_epoch >= row.epoch or (row.base_epoch < row.epoch - 1 and not row.late):
            self.add(
                "compaction",
                f"{name} went from epoch {row.base_epoch} to {row.epoch} and is not marked late",
            )


def _on_path(
    tx: ReadTx, entry_no: int, entry_branch_no: int | None, branch_no: int | None, high_no: int
) -> bool:
    """Tell whether an entry lies on the path that ends at `high_no` on `branch_no`."""
    while branch_no is not None and entry_no <= high_no:  # numbers only grow along a path
        if branch_no == entry_branch_no:
            return True
        branch = tx.first("transcript.branch", branch_no=branch_no)
        if branch is None or branch.fork_no is None or branch.fork_no >= high_no:
            return False
        branch_no, high_no = branch.parent_branch_no, branch.fork_no
    return False


def _slices(rows: list[Row]) -> Iterator[list[Row]]:
    """Cut a page into runs whose texts together stay small; a single large text is a run of its own."""
    run: list[Row] = []
    size = 0
    for row in rows:
        if run and size + row.bytes > SLICE_BYTES:
            yield run
            run, size = [], 0
        run.append(row)
        size += row.bytes
    if run:
        yield run


def _text(value: Any) -> str | None:
    """Return a field as its column can hold it."""
    return storable(value) if isinstance(value, str) else None


def _decode(text: bytes) -> Any:
    """Decode JSON as strictly as the format is: no NaN; integers past the interpreter's limit become floats."""
    message = text.decode()
    if has_more_values(message, ENTRY_VALUES_MAX):
        raise ValueError(f"it is made of too many values: more than {ENTRY_VALUES_MAX:,}")
    try:
        return json.loads(message, parse_constant=_no_constant)
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise
    return json.loads(message, parse_constant=_no_constant, parse_int=int_or_float)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
