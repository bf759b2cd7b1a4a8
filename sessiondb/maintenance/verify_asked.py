"""Verify what a session's row notes of what waits for an answer (`asked_no`).

A compaction keeps everything from there on. A wrong note is an unanswered question that is
summarised away, or a context that cannot be compacted. Here the session's own entries on the
path to its head are followed again. Behind what a fork inherited that is known from its first
answer on. "Not known" is never wrong, only slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessiondb.backend import ReadTx
from sessiondb.limits import SEQ_BITS
from sessiondb.transcript.entries import Draft
from sessiondb.transcript.formats import ANY, spoken
from sessiondb.transcript.notes import ANSWERED, asked_after
from sessiondb.transcript.pairing import NOTHING_OPEN, UNKNOWN, Open, follow
from sessiondb.transcript.paths import Segment

from .verify_steps import SessionFindings, Steps, at, is_part, path_to

if TYPE_CHECKING:
    from sessiondb import statements


class AskedCheck:
    """Follows the session's own entries on the path to its head.

    `add` is told all of its entries, in the order of their arrival.
    """

    def __init__(self, session: statements.VerifySession, findings: SessionFindings) -> None:
        self._session = session
        self._findings = findings
        self._path: list[Segment] = []
        self._reached_no: int | None = None
        self._asked_no: int | None = None
        self._open: Open = UNKNOWN

    def steps(self) -> Steps:
        """Yield a step that finds the path."""
        if self._session.asked_no is not None and 0 < self._session.formats <= ANY:
            yield self._find_path

    def add(self, row: statements.VerifyEntries, draft: Draft | None) -> None:
        """Follow an entry, if it is on the path. `draft` is None if its text is damaged."""
        if not is_part(self._path, row.branch_no, row.entry_no):
            return
        if draft is None:
            self._path = []  # nobody knows what follows it
            return
        self._reached_no = row.entry_no
        message_format = spoken(self._session.formats)
        is_next_part = (
            message_format.reply_in_parts
            and row.parent_no is not None
            and row.parent_model_no == row.parent_no
        )
        self._asked_no = asked_after(
            self._asked_no,
            draft,
            row.entry_no,
            in_parts=message_format.reply_in_parts,
            may_follow_call=is_next_part and self._open.may_have_calls,
        )
        if draft.ties is not None:
            self._open, _ = follow(self._open, draft.ties, message_format.bit)

    def end(self) -> None:
        """Compare the note, where it is known what it should be."""
        noted_no, asked_no = self._session.asked_no, self._asked_no
        if noted_no is None or asked_no is None or self._reached_no != self._session.head_no:
            return
        if max(noted_no, ANSWERED) != max(asked_no, ANSWERED):
            self._findings.add(
                "asked",
                f"the session says that its entry {at(noted_no)} waits for an answer first, "
                f"but by its entries that is {at(asked_no)}",
            )

    def _find_path(self, tx: ReadTx) -> None:
        row = self._session
        path = path_to(tx, row.head_branch_no, row.head_no or 0)
        own = [part for part in path if part.high_no >> SEQ_BITS == row.session_no]
        self._path = own
        if len(own) == len(path):  # it begins at the root
            self._asked_no, self._open = ANSWERED, NOTHING_OPEN
