"""Verify the epochs and compactions of one session against each other and its entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessiondb.backend import ReadTx
from sessiondb.limits import SEQ_BITS

from . import verify_steps
from .verify_steps import SessionFindings, Steps, at, is_on_path, pages

if TYPE_CHECKING:
    from sessiondb import statements


class EpochWalk:
    """The walk over one session's epochs, then over its compactions."""

    def __init__(
        self, session: statements.VerifySession, boundaries: range, findings: SessionFindings
    ) -> None:
        """Take what the session's snapshot said.

        `boundaries` says how many of its compaction and reset entries may have begun an epoch.
        Which of them were appended aside, and began none, is known where texts were read.
        """
        self._session = session
        self._session_no = session.session_no
        self._epoch_no = session.epoch
        self._boundaries = boundaries
        self._findings = findings
        self._compacted: set[int] = set()  # epochs that began with a compaction
        self._committed: set[int] = set()  # epochs that a committed compaction began

    def steps(self) -> Steps:
        """Yield the steps."""
        yield from self._epochs()
        yield from self._compactions()

    def _epochs(self) -> Steps:
        low_epoch, seen = 0, 0
        previous: statements.VerifyEpochs | None = None
        page: list[statements.VerifyEpochs] = []

        def step(tx: ReadTx) -> None:
            nonlocal page
            page = tx.all(
                "verify.epochs",
                session_no=self._session_no,
                low_epoch=low_epoch,
                high_epoch=self._epoch_no,
                limit=verify_steps.PAGE_ROWS,
            )
            for row in page:
                self._epoch_path(tx, row)
                if row.reason == "undo":
                    self._undo(tx, row)
                elif row.reason == "branch":
                    self._switch(tx, row)

        while True:
            yield step
            for row in page:
                expected = previous.epoch + 1 if previous is not None else 0
                if row.epoch != expected:
                    self._findings.add(
                        "epoch", f"epoch {expected} is missing before epoch {row.epoch}"
                    )
                self._epoch(row, previous if row.epoch == expected else None)
                seen += row.reason in ("compaction", "reset")
                previous = row
            if len(page) < verify_steps.PAGE_ROWS:
                break
            low_epoch = page[-1].epoch + 1
        if previous is None or previous.epoch < self._epoch_no:
            self._findings.add(
                "epoch", f"the session is at epoch {self._epoch_no}, which is not there"
            )
        if seen not in self._boundaries:
            self._findings.add(
                "epoch",
                f"{self._boundaries[-1]} compaction and reset entries begin a context, "
                f"but {seen} epochs say so",
            )

    def _undo(self, tx: ReadTx, row: statements.VerifyEpochs) -> None:
        """Check that an undo went back to the context before the compaction that it undid."""
        before = tx.first("transcript.epoch", session_no=self._session_no, epoch=row.epoch - 1)
        undone = (
            tx.first(
                "verify.before_compaction",
                session_no=self._session_no,
                entry_no=before.boundary_no,
            )
            if before is not None
            else None
        )
        if undone is None or (undone.boundary_no, undone.first_kept_no) != (
            row.boundary_no,
            row.first_kept_no,
        ):
            self._findings.add(
                "epoch", f"epoch {row.epoch} began with an undo, but it undoes no compaction"
            )

    def _switch(self, tx: ReadTx, row: statements.VerifyEpochs) -> None:
        """Check that a switch of branches left the entry at which the epoch before it ended.

        That was the tip of its branch if the epoch had begun with an entry of its own. What
        follows it on the branch was then appended without a switch.
        """
        is_open, session = row.epoch == self._epoch_no, self._session
        head_no = session.head_no if is_open else row.closed_head_no
        branch_no = session.head_branch_no if is_open else row.head_branch_no
        after = tx.first(
            "verify.after_epoch",
            session_no=self._session_no,
            epoch=row.epoch - 1,
            head_no=head_no,
        )
        if after is None or head_no is None:
            return
        if after.closed_head_no == head_no or (
            after.next_no is not None
            and is_on_path(tx, after.next_no, after.branch_no, branch_no, head_no)
        ):
            self._findings.add(
                "epoch",
                f"epoch {row.epoch} began with a switch of branches, "
                f"but it went on where epoch {row.epoch - 1} ended",
            )

    def _moved(self, row: statements.VerifyEpochs, previous: statements.VerifyEpochs) -> None:
        """Check that an epoch began when the one before it ended."""
        if previous.closed_at_ms not in (None, row.opened_at_ms):
            self._findings.add(
                "time",
                f"epoch {previous.epoch} ended at {previous.closed_at_ms} ms, "
                f"and the next began at {row.opened_at_ms} ms",
                "warning",
            )

    def _epoch(
        self, row: statements.VerifyEpochs, previous: statements.VerifyEpochs | None
    ) -> None:
        if row.epoch < self._epoch_no and row.closed_at_ms is None:
            self._findings.add(
                "epoch", f"epoch {row.epoch} is open, but the session is at epoch {self._epoch_no}"
            )
        if previous is not None:
            self._moved(row, previous)
        elif (
            row.epoch == 0
            and self._session.origin != "import"
            and (row.opened_at_ms != self._session.created_at_ms)
        ):
            self._findings.add(
                "time",
                f"epoch 0 began at {row.opened_at_ms} ms, "
                f"but the session at {self._session.created_at_ms} ms",
                "warning",
            )
        if (row.epoch == 0) != (row.reason in ("start", "fork")):
            self._findings.add("epoch", f"epoch {row.epoch} cannot have begun with a {row.reason}")
        if row.boundary_no is not None and row.found_boundary_no is None:
            self._findings.add(
                "epoch",
                f"epoch {row.epoch} begins at entry {at(row.boundary_no)}, which is not there",
            )
            return
        if row.boundary_no is not None and row.boundary_type not in ("compaction", "reset"):
            self._findings.add(
                "epoch",
                f"epoch {row.epoch} begins at entry {at(row.boundary_no)}, a {row.boundary_type!r}",
            )
        elif row.first_kept_no != row.boundary_kept_no:
            self._findings.add(
                "epoch",
                f"epoch {row.epoch} keeps entries from {at(row.first_kept_no)}, "
                f"its boundary from {at(row.boundary_kept_no)}",
            )
        if (
            row.reason == "edit"
            and previous is not None
            and (row.boundary_no, row.first_kept_no)
            != (previous.boundary_no, previous.first_kept_no)
        ):
            self._findings.add(
                "epoch", f"epoch {row.epoch} began with an edit, but in another context"
            )
        if row.reason not in ("compaction", "reset"):
            return
        if row.reason == "compaction":
            self._compacted.add(row.epoch)
        if (
            row.boundary_no is None
            or row.boundary_no >> SEQ_BITS != self._session_no
            or row.boundary_type != row.reason
        ):
            self._findings.add(
                "epoch",
                f"epoch {row.epoch} began with a {row.reason}, "
                f"but {at(row.boundary_no)} is none of this session",
            )
        elif previous is not None and previous.closed_head_no != row.boundary_parent_no:
            self._findings.add(
                "epoch",
                f"epoch {previous.epoch} ended at entry {at(previous.closed_head_no)}, "
                f"but the next began after entry {at(row.boundary_parent_no)}",
            )

    def _epoch_path(self, tx: ReadTx, row: statements.VerifyEpochs) -> None:
        """Check that an epoch's last head is in the tree, with the boundary on its path."""
        if row.closed_head_no is None:
            return
        if row.found_head_no is None or row.head_branch_no is None:
            self._findings.add(
                "epoch",
                f"epoch {row.epoch} ended at entry {at(row.closed_head_no)}, "
                "which is no entry of the tree",
            )
            return
        if row.found_boundary_no is None or row.boundary_no == row.head_boundary_no:
            return  # an inherited boundary is on the path: the walk over the entries checks that
        place = tx.first("verify.place", entry_no=row.boundary_no)
        if place is not None and not is_on_path(
            tx, place.entry_no, place.branch_no, row.head_branch_no, row.closed_head_no
        ):
            self._findings.add(
                "epoch",
                f"epoch {row.epoch} ended at entry {at(row.closed_head_no)}, "
                f"but its boundary {at(row.boundary_no)} is not on the path there",
            )

    def _compactions(self) -> Steps:
        yield from pages(
            lambda tx, after, limit: tx.all(
                "verify.compactions", session_no=self._session_no, after_no=after, limit=limit
            ),
            lambda row: row.compaction_no,
            self._compaction,
            first=0,
        )
        for epoch in sorted(self._compacted - self._committed):
            self._findings.add(
                "compaction",
                f"epoch {epoch} began with a compaction, but no committed compaction says so",
            )

    def _compaction(self, _tx: ReadTx, row: statements.VerifyCompactions) -> None:
        name = f"compaction {row.compaction_id}"
        if row.base_epoch > row.session_epoch:
            self._findings.add(
                "compaction",
                f"{name} began at epoch {row.base_epoch}, "
                f"but the session is at {row.session_epoch}",
            )
        if row.cut_no is not None and row.cut_branch_no is None:
            self._findings.add(
                "compaction",
                f"{name} covers everything up to entry {at(row.cut_no)}, "
                "which is no entry of the tree",
            )
        self._labels(row, name)
        if row.state != "committed":
            return
        if row.epoch is None or row.entry_no is None:  # a CHECK forbids it
            self._findings.add(
                "compaction", f"{name} is committed, but has no epoch or no entry of its own"
            )
            return
        if (
            row.found_entry_no is None
            or row.entry_no >> SEQ_BITS != self._session_no
            or row.entry_type != "compaction"
        ):
            self._findings.add(
                "compaction",
                f"{name} is committed, but its entry {at(row.entry_no)} is no compaction of this "
                "session",
            )
        elif row.epoch_reason != "compaction" or row.epoch_boundary_no != row.entry_no:
            self._findings.add(
                "compaction",
                f"{name} is committed, but epoch {row.epoch} does not begin at its entry "
                f"{at(row.entry_no)}",
            )
        elif row.base_epoch >= row.epoch or (row.base_epoch < row.epoch - 1 and not row.late):
            self._findings.add(
                "compaction",
                f"{name} went from epoch {row.base_epoch} to {row.epoch} and is not marked late",
            )
        if row.epoch > self._epoch_no:  # it came after the session's snapshot
            return
        if row.epoch in self._committed:
            self._findings.add(
                "compaction",
                f"two compactions say that they began epoch {row.epoch}, "
                f"one of them {row.compaction_id}",
            )
        self._committed.add(row.epoch)

    def _labels(self, row: statements.VerifyCompactions, name: str) -> None:
        """Check what a job's row says beside its outcome."""
        said = []
        if row.deadline_ms > row.deadline_max_ms:
            said.append("its deadline lies behind the last one that it may have")
        if row.state != "committed" and row.in_vain != (row.state == "rejected"):
            said.append(f"it is marked as {row.in_vain} for in vain")
        given_up = row.reason is not None and row.state == "committed"
        overtaken = row.epoch is not None and row.base_epoch < row.epoch - 1
        if row.late and not (given_up or overtaken):
            said.append("it is marked late, and came in time")
        if row.cut_no is not None and row.cut_no >> SEQ_BITS > self._session_no:
            said.append(f"it covers entry {at(row.cut_no)} of a later session")
        for what in said:
            self._findings.add("compaction", f"{name} is {row.state}, but {what}", "warning")
