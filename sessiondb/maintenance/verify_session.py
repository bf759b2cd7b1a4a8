"""Verify one session: its row, branches and entries, and in their turn the rest.

The rest is in modules of its own: texts, epochs and compactions, or the archive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessiondb.backend import ReadTx
from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.transcript.entries import OFF_TREE_TYPES
from sessiondb.transcript.paths import entry_number

from . import verify_steps
from .verify_archives import archive_steps
from .verify_asked import AskedCheck
from .verify_epochs import EpochWalk
from .verify_order import OrderCheck
from .verify_steps import SessionFindings, Step, Steps, at, is_on_path, pages
from .verify_text import TextCheck, check_open_calls, slices

if TYPE_CHECKING:
    from sessiondb import statements

# The search for a provider's count reads at most this many entries in one snapshot.
USAGE_SCAN_ENTRIES: Final = 5_000


class SessionWalk:
    """The walk over one session.

    `exists` is False if it was deleted meanwhile, or never was. `moved` is True if its entries
    moved into an archive or out of it meanwhile. Then the walk says nothing: make another.
    """

    def __init__(self, session_no: int, *, deep: bool) -> None:
        self.session_no = session_no
        self.deep = deep
        self.session_id = ""
        self.exists = False
        self.moved = False
        self.entries = 0
        self.findings = SessionFindings()
        self._low_no, self._high_no = entry_number(session_no, 0), entry_number(session_no, SEQ_MAX)
        self._row: statements.VerifySession  # of `_read_row`, if the session is there
        self._texts: TextCheck  # of the session's row
        self._order: OrderCheck  # likewise
        self._asked: AskedCheck
        self._was_heard = False  # a user's message is of the time when a person was last heard
        self._boundaries = 0  # compaction and reset entries that began a context
        self._aside = 0  # of these, those that were appended aside: no epoch began. By their texts

    def steps(self) -> Steps:
        """Yield the steps of this session: its row first, which bounds all later steps."""
        yield self._read_row
        if not self.exists:
            return
        if self._row.archived_at_ms is not None:
            yield from archive_steps(
                self.session_no, self.session_id, self.findings, deep=self.deep
            )
            yield self._still_there
            return
        if self._row.forked_from_no is not None:
            yield self._forked_at
        yield from self._usage()
        yield from self._branches()
        if self.deep:
            yield from self._order.steps()
            yield from self._asked.steps()
        yield from self._entries()
        if self._row.heard_at_ms is not None and not self._was_heard:
            self.findings.add(
                "time",
                f"a person was last heard at {self._row.heard_at_ms} ms, "
                "but no message of a user is of that time",
                "warning",
            )
        most = self._boundaries - self._aside
        epochs = EpochWalk(self._row, range(most if self.deep else 0, most + 1), self.findings)
        yield from epochs.steps()
        yield self._still_there

    def _still_there(self, tx: ReadTx) -> None:
        row = tx.first("verify.exists", session_no=self.session_no)
        self.exists = row is not None
        if row is not None and (row.archived_at_ms is None) != (self._row.archived_at_ms is None):
            self.moved = True
            self.findings.found.clear()

    # -- the session's row -------------------------------------------------------------

    def _read_row(self, tx: ReadTx) -> None:
        # Invariant: all moving parts of the session are compared here, in one snapshot.
        row = tx.first(
            "verify.session", session_no=self.session_no, low_no=self._low_no, high_no=self._high_no
        )
        if row is None:
            return
        self.exists, self.session_id, self._row = True, row.session_id, row
        self._texts = TextCheck(row, self.findings)
        self._order = OrderCheck(row, self.findings)
        self._asked = AskedCheck(row, self.findings)
        if row.archived_at_ms is not None:
            return
        self._header(row)
        self._head(tx, row)
        self._origin(tx, row)
        self._pointers(tx, row)
        if not row.tokens_fresh:
            self._estimate(row)
        if row.running > 1:
            self.findings.add(
                "compaction", f"{row.running} compactions are running, and only one may"
            )

    def _header(self, row: statements.VerifySession) -> None:
        # An imported file may have no header.
        if row.header_type is None and row.origin != "import":
            self.findings.add("header", "entry 0, the header, is not there")
        elif row.header_type not in (None, "session"):
            self.findings.add("header", f"entry 0 is a {row.header_type!r}, not the header")
        last_seq = 0 if row.last_no is None else row.last_no & SEQ_MAX
        if last_seq != row.last_seq:
            self.findings.add(
                "sequence",
                f"the session's last seq is {row.last_seq}, but its last entry has {last_seq}",
            )

        # Both are written in the transaction that creates the session. An import dates its own.
        if row.origin != "import" and row.header_at_ms not in (None, row.created_at_ms):
            self.findings.add(
                "time",
                f"the session says that it was created at {row.created_at_ms} ms, "
                f"and its header that this was at {row.header_at_ms} ms",
                "warning",
            )
        if row.header_type == "session" and (row.header_version or 1) != row.version:
            self.findings.add(
                "header",
                f"the session has format version {row.version}, "
                f"but its header says {row.header_version}",
                "warning",
            )

    def _origin(self, tx: ReadTx, row: statements.VerifySession) -> None:
        """Check where a fork comes from."""
        if row.forked_from_no is None:
            if row.forked_at_no is not None or row.forked_epoch is not None:
                self.findings.add(
                    "fork",
                    f"the session is no fork, but it was forked at entry {at(row.forked_at_no)}",
                    "warning",
                )
            return
        if row.origin != "fork" or row.forked_from_no >= row.session_no:
            self.findings.add(
                "fork",
                f"the session is of origin {row.origin}, "
                f"and was forked from session number {row.forked_from_no}",
                "warning",
            )
        if row.forked_at_no is not None and not self._comes_from(tx, row.forked_at_no):
            self.findings.add(
                "fork",
                f"the session was forked at entry {at(row.forked_at_no)}, "
                "which belongs to a session that it does not come from",
                "warning",
            )
        if row.origin_epoch is not None and not 0 <= (row.forked_epoch or 0) <= row.origin_epoch:
            self.findings.add(
                "fork",
                f"the session was forked in epoch {row.forked_epoch} of its origin, "
                f"which is at epoch {row.origin_epoch}",
                "warning",
            )

    def _comes_from(self, tx: ReadTx, entry_no: int) -> bool:
        """Tell whether an entry is of this session, or of one that it was forked from."""
        owner_no = entry_no >> SEQ_BITS
        return owner_no == self.session_no or (
            tx.first("verify.comes_from", session_no=self.session_no, origin_no=owner_no)
            is not None
        )

    def _forked_at(self, tx: ReadTx) -> None:
        """Check where a fork was forked: where its first context's path leaves the session."""
        row = self._row
        first = tx.first("verify.first_head", session_no=self.session_no)
        if row.forked_from_no is None or first is None or first.head_no is None:
            return
        place_no: int | None = first.head_no
        branch_no: int | None = first.branch_no
        while place_no is not None and place_no >> SEQ_BITS == self.session_no:
            branch = tx.first("transcript.branch", branch_no=branch_no) if branch_no else None
            if branch is None or (branch.fork_no or 0) >= place_no:
                return  # reported with the branches
            place_no, branch_no = branch.fork_no, branch.parent_branch_no
        if place_no != row.forked_at_no:
            self.findings.add(
                "fork",
                f"the session was forked at entry {at(row.forked_at_no)}, "
                f"but its first context leaves it at {at(place_no)}",
                "warning",
            )

    def _head(self, tx: ReadTx, row: statements.VerifySession) -> None:
        if row.head_no is None:
            if row.branch_no is not None:
                self.findings.add("head", f"the session has branch {row.branch_no} but no head")
            return
        if row.found_head_no is None:
            self.findings.add("head", f"the head, entry {at(row.head_no)}, is not there")
        elif row.head_branch_no is None:
            self.findings.add(
                "head",
                f"the head, entry {at(row.head_no)}, is a control record and no part of the tree",
            )
        elif row.branch_no is not None and row.head_branch_no != row.branch_no:
            self.findings.add(
                "head",
                f"the head, entry {at(row.head_no)}, is on branch {row.head_branch_no}, "
                f"the session on {row.branch_no}",
            )
        elif row.after_head_no is not None:
            self.findings.add(
                "head",
                f"the head, entry {at(row.head_no)}, is followed by entry {at(row.after_head_no)} "
                "on its branch",
            )
        if not self._comes_from(tx, row.head_no):
            self.findings.add(
                "head",
                f"the head, entry {at(row.head_no)}, belongs to a session that this one was not "
                "forked from",
            )

    def _pointers(self, tx: ReadTx, row: statements.VerifySession) -> None:
        if row.last_epoch != row.epoch:
            self.findings.add(
                "epoch",
                f"the session is at epoch {row.epoch}, but its last one is {row.last_epoch}",
            )
        if row.open_epoch is None:
            return  # reported with the epochs
        if row.open_closed_at_ms is not None:
            self.findings.add("epoch", f"the session's epoch {row.epoch} is closed")
        if (row.boundary_no, row.first_kept_no) != (row.open_boundary_no, row.open_first_kept_no):
            self.findings.add(
                "pointers",
                f"the session's context begins at {at(row.boundary_no)} and keeps from "
                f"{at(row.first_kept_no)}, "
                f"but its epoch {row.epoch} at {at(row.open_boundary_no)} and from "
                f"{at(row.open_first_kept_no)}",
            )
        elif (
            row.found_boundary_no is not None
            and row.boundary_no != row.head_boundary_no
            and not self._leads_to_head(tx, row)
        ):
            self.findings.add(
                "pointers",
                f"the context begins at entry {at(row.boundary_no)}, "
                "which is not on the path to the head",
            )

    def _leads_to_head(self, tx: ReadTx, row: statements.VerifySession) -> bool:
        if row.head_branch_no is None or row.head_no is None or row.found_boundary_no is None:
            return True  # reported with the head, or with the boundary
        return is_on_path(
            tx, row.found_boundary_no, row.boundary_branch_no, row.head_branch_no, row.head_no
        )

    def _estimate(self, row: statements.VerifySession) -> None:
        """Check an estimate of the context's tokens.

        It is the sum along the path, minus the part before the context, plus the
        boundary's own summary.
        """
        expected = row.head_tokens_total or 0
        if row.boundary_no is not None:
            if (
                row.boundary_tokens is None  # with the other columns of the boundary
                or row.boundary_tokens_total is None
                or (row.first_kept_no is not None and row.found_kept_no is None)
            ):
                return  # reported with the epochs
            cut = (
                row.boundary_tokens_total
                if row.first_kept_no is None
                else (row.before_kept_tokens_total or 0)
            )
            expected += row.boundary_tokens - cut
        if expected != row.context_tokens:
            self.findings.add(
                "context_tokens",
                f"the session counts {row.context_tokens} tokens in its context, "
                f"but the entries add up to {expected}",
            )

    def _usage(self) -> Steps:
        """Check a count that rests on a provider's.

        It is the provider's last count on the path, never from before the boundary, plus
        the estimates of later entries.
        """
        row = self._row
        if not row.tokens_fresh or row.head_branch_no is None:
            return
        if row.head_no is None or row.head_tokens_total is None:
            return  # never: they come with the head's branch
        place: tuple[int | None, int] = (row.head_branch_no, row.head_no)
        lowest_no = row.boundary_no or 0
        counted: statements.VerifyLastUsage | None = None

        def step(tx: ReadTx) -> None:
            nonlocal place, counted
            branch_no, high_no = place
            branch = tx.first("transcript.branch", branch_no=branch_no)
            if branch is None:
                place = (None, 0)
                return
            low_no = max(branch.first_no, lowest_no, high_no - USAGE_SCAN_ENTRIES + 1)
            counted = tx.first(
                "verify.last_usage",
                branch_no=branch_no,
                low_no=low_no,
                high_no=high_no,
                boundary_no=row.boundary_no,
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
            self.findings.add(
                "context_tokens",
                "the session's tokens rest on a provider's count, "
                "but no entry of the context carries one",
            )
            return
        assert counted.usage_tokens is not None, "the statement asks for entries that have it"
        expected = counted.usage_tokens + row.head_tokens_total - counted.tokens_total
        if expected != row.context_tokens:
            self.findings.add(
                "context_tokens",
                f"the session counts {row.context_tokens} tokens in its context, "
                f"but entry {at(counted.entry_no)} and those after it make {expected}",
            )

    # -- branches ----------------------------------------------------------------------

    def _branches(self) -> Steps:
        return pages(
            lambda tx, after, limit: tx.all(
                "verify.branches", session_no=self.session_no, after_no=after, limit=limit
            ),
            lambda row: row.branch_no,
            self._branch,
            first=0,
        )

    def _branch(self, tx: ReadTx, row: statements.VerifyBranches) -> None:
        if row.first_no >> SEQ_BITS != self.session_no or row.first_branch_no != row.branch_no:
            self.findings.add(
                "branch",
                f"branch {row.branch_no} begins at entry {at(row.first_no)}, which is not on it",
            )
        elif row.first_parent_no != row.fork_no:
            self.findings.add(
                "branch",
                f"branch {row.branch_no} left its parent at entry {at(row.fork_no)}, "
                f"but its first entry {at(row.first_no)} follows {at(row.first_parent_no)}",
            )
        if row.parent_branch_no is None:
            return
        # A parent is always older, so there are no cycles.
        if row.parent_branch_no >= row.branch_no:
            self.findings.add(
                "branch",
                f"branch {row.branch_no} has the later branch {row.parent_branch_no} as its parent",
            )
        elif row.found_parent_branch_no is None:
            self.findings.add(
                "branch",
                f"branch {row.branch_no} has the parent {row.parent_branch_no}, which is not there",
            )
        elif row.found_fork_no is None or row.fork_branch_no != row.parent_branch_no:
            self.findings.add(
                "branch",
                f"branch {row.branch_no} left {row.parent_branch_no} at entry {at(row.fork_no)}, "
                "which is not on that branch",
            )
        elif not self._comes_from(tx, row.found_fork_no):
            self.findings.add(
                "branch",
                f"branch {row.branch_no} left its parent at entry {at(row.fork_no)}, "
                "which belongs to a session that this one was not forked from",
            )

    # -- entries -----------------------------------------------------------------------

    def _entries(self) -> Steps:
        low_no, high_no = self._low_no, entry_number(self.session_no, self._row.last_seq)
        page: list[statements.VerifyEntries] = []

        def read_page(tx: ReadTx) -> None:
            nonlocal page
            page = tx.all(
                "verify.entries", low_no=low_no, high_no=high_no, limit=verify_steps.PAGE_ROWS
            )
            for row in page:
                self._entry(tx, row)

        def check_texts(rows: list[statements.VerifyEntries]) -> Step:
            def step(tx: ReadTx) -> None:
                texts = dict(
                    tx.tuples("verify.payloads", low_no=rows[0].entry_no, high_no=rows[-1].entry_no)
                )
                for row in rows:
                    # Else it was deleted with its session: `_still_there` notices.
                    if row.entry_no in texts:
                        draft = self._texts.check(tx, row, texts[row.entry_no])
                        self._order.add(row.entry_no, row.branch_no, draft)
                        self._asked.add(row, draft)
                        if draft is not None and draft.side:
                            self._aside += row.boundary_no == row.entry_no

            return step

        expected_seq = 1 if self._row.header_type is None else 0
        while True:
            yield read_page
            for row in page:
                seq = row.entry_no & SEQ_MAX
                if seq != expected_seq:
                    self.findings.add(
                        "sequence", f"entries {expected_seq} to {seq - 1} are missing"
                    )
                expected_seq = seq + 1
            self.entries += len(page)
            if self.deep:
                yield from (check_texts(rows) for rows in slices(page))
            if len(page) < verify_steps.PAGE_ROWS:
                break
            low_no = page[-1].entry_no + 1
        if not self.deep:
            return
        self._order.end()
        self._asked.end()
        self._texts.end()
        if self._texts.name != self._row.name:
            self.findings.add(
                "name",
                f"the session is named {self._row.name!r}, "
                f"but its last session_info entry says {self._texts.name!r}",
            )

    def _entry(self, tx: ReadTx, row: statements.VerifyEntries) -> None:
        if row.role == "user" and row.appended_at_ms == self._row.heard_at_ms:
            self._was_heard = True
        if row.branch_no is None:
            self._control_record(row)
            return
        if row.type in OFF_TREE_TYPES:
            self.findings.of(
                row, "tree", f"is a {row.type!r} record, but lies on branch {row.branch_no}"
            )
            return
        if row.found_branch_no is None:
            self.findings.of(row, "branch", f"lies on branch {row.branch_no}, which is not there")
        elif row.branch_session_no != self.session_no:
            self.findings.of(
                row,
                "branch",
                f"lies on branch {row.branch_no} of session number {row.branch_session_no}",
            )
        elif row.first_no is not None and row.entry_no < row.first_no:
            self.findings.of(
                row,
                "branch",
                f"lies before the beginning {at(row.first_no)} of its branch {row.branch_no}",
            )
        if not self._parent(row):
            return
        self._sums(row)
        self._inheritance(row)
        self._boundary(tx, row)

    def _control_record(self, row: statements.VerifyEntries) -> None:
        carried = (
            row.position,
            row.projection,
            row.tokens,
            row.tokens_total,
            row.open_calls,
            row.body_bytes,
        )
        inherited = (row.boundary_no, row.first_kept_no, row.model_no, row.thinking_no)
        if row.type not in OFF_TREE_TYPES:
            self.findings.of(row, "tree", f"is a {row.type!r}, but lies on no branch")
        elif any(carried) or any(number is not None for number in inherited):
            self.findings.of(
                row, "tree", f"is a {row.type!r} record outside the tree, but has a place in it"
            )

    def _parent(self, row: statements.VerifyEntries) -> bool:
        """Check an entry's parent.

        Return False when that is wrong: then there is no parent to compare the rest with.
        """
        if row.parent_no is None:
            if row.found_branch_no is not None and row.entry_no != row.first_no:
                self.findings.of(row, "parent", "has no parent, but is not the first of its branch")
                return False
            return True
        if row.found_parent_no is None:
            self.findings.of(
                row, "parent", f"follows entry {at(row.parent_no)}, which is not there"
            )
            return False
        if row.parent_no >= row.entry_no:
            self.findings.of(row, "parent", f"follows entry {at(row.parent_no)}, which came later")
            return False
        if row.parent_branch_no is None:
            self.findings.of(
                row, "parent", f"follows entry {at(row.parent_no)}, a record outside the tree"
            )
            return False
        if (
            row.first_no is not None
            and row.entry_no > row.first_no
            and row.parent_no != row.previous_no
        ):
            # _branch compares the first entry of a branch with the branch's row.
            self.findings.of(
                row,
                "parent",
                f"follows entry {at(row.parent_no)}, but the entry before it on its branch is "
                f"{at(row.previous_no)}",
            )
            return False
        return True

    def _sums(self, row: statements.VerifyEntries) -> None:
        position = (row.parent_position or 0) + 1
        if row.position != position:
            self.findings.of(row, "position", f"has position {row.position} instead of {position}")
        counts = row.projection in (1, 3, 4)
        total = (row.parent_tokens_total or 0) + (row.tokens if counts else 0)
        if row.tokens_total != total:
            self.findings.of(
                row, "tokens", f"sums the path up to {row.tokens_total} tokens instead of {total}"
            )
        if row.type != "message":  # the calls and results of a message are in its text
            check_open_calls(self.findings, row, row.parent_open_calls or 0)
        if row.projection in (1, 2, 4) and not row.body_bytes:
            self.findings.of(row, "projection", "is part of contexts but has no body")

    def _inheritance(self, row: statements.VerifyEntries) -> None:
        sets_model = row.role == "assistant" or row.type == "model_change"
        model_no = row.entry_no if sets_model else row.parent_model_no
        if row.model_no != model_no:
            self.findings.of(
                row, "model", f"has its model from {at(row.model_no)} instead of {at(model_no)}"
            )
        thinking_no = (
            row.entry_no if row.type == "thinking_level_change" else row.parent_thinking_no
        )
        if row.thinking_no != thinking_no:
            self.findings.of(
                row,
                "thinking",
                f"has its thinking level from {at(row.thinking_no)} instead of {at(thinking_no)}",
            )

    def _boundary(self, tx: ReadTx, row: statements.VerifyEntries) -> None:
        """Check where an entry's context begins.

        At itself, if it is a boundary. Otherwise the entry inherits its parent's boundary,
        unless an undo or a fork moved the boundary before the entry was appended.
        """
        if row.boundary_no == row.entry_no and row.type in ("compaction", "reset"):
            self._boundaries += 1
            self._first_kept(tx, row)
            return
        if row.first_kept_no is not None:
            self.findings.of(
                row,
                "first_kept",
                f"keeps entries from {at(row.first_kept_no)}, but no context begins at it",
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
            self.findings.of(
                row,
                "boundary",
                f"was appended to a context that begins at {at(row.boundary_no)} instead of "
                f"{at(row.parent_boundary_no)}",
            )

    def _first_kept(self, tx: ReadTx, row: statements.VerifyEntries) -> None:
        if row.first_kept_no is None:
            return
        kept = tx.first("verify.place", entry_no=row.first_kept_no)
        if kept is None:
            self.findings.of(
                row,
                "first_kept",
                f"keeps entries from {at(row.first_kept_no)}, which is not there",
            )
        elif row.parent_no is None or not is_on_path(
            tx, kept.entry_no, kept.branch_no, row.parent_branch_no, row.parent_no
        ):
            self.findings.of(
                row,
                "first_kept",
                f"keeps entries from {at(row.first_kept_no)}, which is not on the path to it",
            )
