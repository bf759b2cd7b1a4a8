"""Verify what a session's row notes about the order of calls and results in its context.

`ordered_from_no` says from where on every item stands where a prompt may have it, and
`open_marks` which calls are open behind the last one. A context for which they say so is sent as
it is stored, so a wrong note is a prompt that its provider refuses. Here the items of the
present context are followed again, as their appends followed them.

A note that says less than it could is not wrong: then the context is decoded and put in order.
Nor is a note compared where it says nothing about the present context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessiondb.backend import ReadTx
from sessiondb.limits import SEQ_BITS
from sessiondb.transcript.entries import Draft, parse_line
from sessiondb.transcript.formats import ANY, spoken
from sessiondb.transcript.pairing import NOTHING_OPEN, Open, follow, open_at_head
from sessiondb.transcript.paths import Segment, context_start

from . import verify_steps
from .verify_steps import SessionFindings, Steps, at, is_part, path_to

if TYPE_CHECKING:
    from sessiondb import statements


class OrderCheck:
    """Follows the items of a session's present context, from where they are said to be in order.

    `add` is told the session's own entries, in the order of their arrival.
    """

    def __init__(self, session: statements.VerifySession, findings: SessionFindings) -> None:
        self._session = session
        self._findings = findings
        self._path: list[Segment] = []
        self._stands: Open | None = None
        """What is open behind the entry that was followed last. None: nothing is followed."""
        self._reached_no: int | None = None

    def steps(self) -> Steps:
        """Yield steps that find the path, and follow what a fork inherited."""
        row = self._session
        if row.ordered_from_no is None or not 0 < row.formats <= ANY:
            return  # nothing is said, or in no known format: a rule of the table is broken
        if row.ordered_from_no > (row.head_no or 0) + 1:
            self._findings.add(
                "order",
                f"the session says that its context is in order from entry "
                f"{at(row.ordered_from_no)} on, which lies behind its head {at(row.head_no)}",
            )
            return
        start_no = context_start(row.boundary_no, row.first_kept_no) or 0
        low_no = max(start_no, row.ordered_from_no)
        if row.head_no is None or low_no > row.head_no:
            return
        yield lambda tx: self._find_path(tx, low_no)
        inherited = [part for part in self._path if not self._is_own(part.high_no)]
        for part in inherited:
            yield from self._inherited(part)

    def add(self, entry_no: int, branch_no: int | None, draft: Draft | None) -> None:
        """Follow an entry, if it is of the context. `draft` is None if its text is damaged."""
        if self._stands is None or not is_part(self._path, branch_no, entry_no):
            return
        self._reached_no = entry_no
        if draft is None:
            self._stands = None  # nobody knows what follows it
        elif draft.ties is not None:
            bit = spoken(self._session.formats).bit
            self._stands, stands_well = follow(self._stands, draft.ties, bit)
            if not stands_well:
                self._stands = None
                self._findings.add(
                    "order",
                    f"the session says that its context is in order from entry "
                    f"{at(self._session.ordered_from_no)} on, but entry {at(entry_no)} does not "
                    "stand where a prompt may have it",
                )

    def end(self) -> None:
        """Compare the calls that are open behind the head, once everything was followed."""
        row = self._session
        noted = open_at_head(row.formats, row.head_no, row.open_marks, row.head_open_calls or 0)
        if self._stands is None or not noted.is_known or noted == self._stands:
            return
        if self._reached_no != row.head_no:
            return  # an entry is missing, which is reported
        self._findings.add(
            "order",
            f"the session marks the calls {noted.column!r} as open at its head "
            f"{at(row.head_no)}, but its entries leave {self._stands.column!r} open",
        )

    def _is_own(self, entry_no: int) -> bool:
        return entry_no >> SEQ_BITS == self._session.session_no

    def _find_path(self, tx: ReadTx, low_no: int) -> None:
        row = self._session
        self._path = path_to(tx, row.head_branch_no, row.head_no or 0, low_no)
        if self._path:
            self._stands = NOTHING_OPEN

    def _inherited(self, part: Segment) -> Steps:
        row, low_no = self._session, part.low_no

        def step(tx: ReadTx) -> None:
            nonlocal low_no
            page = tx.page(
                "verify.path_payloads",
                branch_no=part.branch_no,
                low_no=low_no,
                high_no=part.high_no,
                limit=verify_steps.PAGE_ROWS,
            )
            for found in page.rows:
                try:
                    text = found.payload.decode()
                    draft = parse_line(text, row.version, row.formats, is_dated=False)
                except ValueError:  # reported with the session that it is of
                    draft = None
                self.add(found.entry_no, part.branch_no, draft)
            low_no = page.rows[-1].entry_no + 1 if page.more else part.high_no + 1

        while low_no <= part.high_no:
            yield step
