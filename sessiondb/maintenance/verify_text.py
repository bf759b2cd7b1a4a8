"""Verify the text of an entry: it must say the same as the entry's columns.

The text is classified as an append classifies it (`entries.parse_line`), because the question is
whether columns and text agree. What an entry inherits, and every sum, is derived a second time
elsewhere.

Not every column can be told from the text. A caller may append under an idempotency key that the
text does not name. A provider's count is left out if the reply was asked for in another epoch,
which is not stored. So a NULL there is a finding only where no other reason is possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sessiondb.backend import ReadTx
from sessiondb.json_text import loads, storable
from sessiondb.limits import PAGE_ROWS, SEQ_MAX
from sessiondb.transcript.entries import (
    BOUNDARY_TYPES,
    Draft,
    Projection,
    key_trouble,
    parse_line,
)
from sessiondb.transcript.formats import ANY
from sessiondb.transcript.pi_sdk import RECORD_TYPE
from sessiondb.transcript.replay import names_record

from .verify_steps import SessionFindings, at, is_on_path

if TYPE_CHECKING:
    from sessiondb import statements

# Texts are decoded a slice at a time: a step then holds a reader, and in C code the GIL,
# for 1 to 2 ms.
SLICE_BYTES: Final = 256 * 1024

STAND_INS_MAX: Final = 10_000
"""Of a session with more side entries and leaf records, parents that they explain are not known."""
UNEXPLAINED_MAX: Final = 100


class TextCheck:
    """The check of a session's texts, entry by entry."""

    def __init__(self, session: statements.VerifySession, findings: SessionFindings) -> None:
        self._session = session
        self._findings = findings
        self._damaged: list[bytes] | None = None
        self._all_damaged = True
        self._unexplained: list[tuple[statements.VerifyEntries, str]] = []
        self._stand_ins: set[str] = set()
        """Ids by which an entry may mean the head: see `replay.names_head`."""
        self.name: str | None = None
        """The session's name by the last `session_info` entry so far."""

    def check(self, tx: ReadTx, row: statements.VerifyEntries, payload: bytes) -> Draft | None:
        """Check the text of one entry. Return what it says, or None if it is damaged."""
        try:
            text = payload.decode()
            draft = parse_line(text, self._session.version, self._session.formats, is_dated=False)
        except ValueError as error:
            self._findings.add(
                "payload", f"the text of entry {at(row.entry_no)} is damaged: {error}"
            )
            return None
        self._names(tx, row, draft, text)
        stand_in = draft.entry_id if draft.side else draft.append_parent_id
        if stand_in is not None and len(self._stand_ins) < STAND_INS_MAX:
            self._stand_ins.add(stand_in)
        self._key(tx, row, draft)
        if draft.type == "session_info" or (draft.type == RECORD_TYPE and draft.name is not None):
            self.name = draft.name
        if row.branch_no is None:
            return draft
        self._projection(row, draft)
        self._counts(row, draft)
        if draft.type in BOUNDARY_TYPES:
            self._boundary(tx, row, draft)
        return draft

    def _names(self, tx: ReadTx, row: statements.VerifyEntries, draft: Draft, text: str) -> None:
        """Compare the type, the role and the ids."""
        said = (("as", draft.type, row.type), ("with role", draft.role, row.role))
        for what, expected, stored in said:
            if stored != expected and not (row.branch_no is None and what == "with role"):
                self._findings.of(
                    row,
                    "payload",
                    f"is stored {what} {stored!r}, but its text says {expected!r}",
                )
        if draft.entry_id != row.entry_id and (own_id := _own_id(text)) is not None:
            self._findings.of(
                row,
                "payload",
                f"is stored with id {row.entry_id!r}, but its text says {own_id!r}",
            )
        if row.branch_no is None or row.parent_id is None:
            return
        if draft.parent_id not in (None, row.parent_id) and not tx.first(
            "verify.control_record",
            session_no=self._session.session_no,
            entry_id=draft.parent_id,
        ):
            if self._is_damaged_line(tx, draft.parent_id):
                return
            if not draft.side and names_record(tx, draft.parent_id, row.entry_no - 1):
                return  # and it follows the head of then, as OpenClaw's next entry does
            if self._has_early_lines(tx):
                # The record before it in the file is not the one before it here.
                if len(self._unexplained) < UNEXPLAINED_MAX:
                    self._unexplained.append((row, draft.parent_id))
                return
            self._odd_parent(row, draft.parent_id)

    def _has_early_lines(self, tx: ReadTx) -> bool:
        """Return whether entries of the session stand elsewhere in its file."""
        receipt = tx.first("verify.first_receipt", session_no=self._session.session_no)
        return receipt is not None and receipt.placed_seq > 0

    def end(self) -> None:
        """Report parents that no record of the session explains: see `replay.names_head`."""
        for row, parent_id in self._unexplained:
            if parent_id not in self._stand_ins and len(self._stand_ins) < STAND_INS_MAX:
                self._odd_parent(row, parent_id)

    def _odd_parent(self, row: statements.VerifyEntries, parent_id: str) -> None:
        self._findings.of(
            row, "parent", f"follows {row.parent_id!r}, but its text says {parent_id!r}"
        )

    def _is_damaged_line(self, tx: ReadTx, entry_id: str) -> bool:
        """Return whether an id is that of a damaged line of the session's file.

        What follows such a line follows what that line follows.
        """
        receipt = tx.first("verify.first_receipt", session_no=self._session.session_no)
        if receipt is None:
            return False
        if self._damaged is None:
            page = tx.page(
                "verify.pieces",
                import_file_no=receipt.import_file_no,
                after_offset=-1,
                limit=PAGE_ROWS,
            )
            self._damaged = [row.content for row in page.rows if row.severity == "damaged"]
            # A finding would be a guess, where not all of these lines are looked at.
            self._all_damaged = not page.more
        named = entry_id.encode("utf-8", "surrogatepass")
        return not self._all_damaged or any(named in content for content in self._damaged)

    def _key(self, tx: ReadTx, row: statements.VerifyEntries, draft: Draft) -> None:
        """Check that an idempotency key is known, unless it is that of an earlier entry."""
        key = draft.idempotency_key
        if row.idempotency_key is not None or key is None or key_trouble(key) is not None:
            return
        if not tx.first(
            "verify.key_owner",
            session_no=self._session.session_no,
            idempotency_key=key,
            before_no=row.entry_no,
        ):
            self._findings.of(
                row, "idempotency_key", f"has no idempotency key, but its text says {key!r}"
            )

    def _projection(self, row: statements.VerifyEntries, draft: Draft) -> None:
        """Compare how an entry reaches the model, and where its message lies in the text."""
        due = int(draft.projection)
        if row.projection != due and not self._had_no_format(row, draft):
            self._findings.of(
                row, "projection", f"has projection {row.projection} instead of {due}"
            )
        if not row.body_bytes:
            return  # only a projected entry must mark its message: `SessionWalk._sums` checks that
        if (row.body_at, row.body_bytes) != (draft.body_at, draft.body_bytes):
            span = f"{row.body_at} to {row.body_at + row.body_bytes}"
            self._findings.add(
                "body", f"bytes {span} of entry {at(row.entry_no)} are not its message"
            )

    def _had_no_format(self, row: statements.VerifyEntries, draft: Draft) -> bool:
        """Tell whether an entry is stored as an item of a session without a format of its own.

        Then it may be of any, and its content is no other than it was appended with.
        """
        return (
            draft.projection is Projection.MADE
            and row.projection == parse_line(draft.before, self._session.version, ANY).projection
        )

    def _counts(self, row: statements.VerifyEntries, draft: Draft) -> None:
        if row.tokens != draft.tokens:
            self._findings.of(
                row, "tokens", f"counts {row.tokens} tokens instead of {draft.tokens}"
            )
        if row.role == "assistant":
            check_open_calls(self._findings, row, draft.calls)
        elif row.type == "message":
            before = row.parent_open_calls or 0
            check_open_calls(self._findings, row, max(0, before - draft.results))
        # In its first epoch, a session's replies can have been asked for in no other, but for
        # those behind a boundary that was appended aside.
        is_first = self._session.epoch == 0 and row.boundary_no is None
        missing = row.usage_tokens is None and not is_first
        if row.usage_tokens != draft.usage_tokens and not missing:
            self._findings.of(
                row,
                "usage",
                f"carries a provider's count of {row.usage_tokens} tokens, "
                f"but its text says {draft.usage_tokens}",
            )

    def _boundary(self, tx: ReadTx, row: statements.VerifyEntries, draft: Draft) -> None:
        """Check that a compaction or reset entry begins a context, and what that keeps.

        One that was appended aside begins that of what follows it, and has no job.
        """
        if row.boundary_no != row.entry_no:
            self._findings.of(row, "boundary", f"is a {row.type} but begins no context")
            return
        self._kept(tx, row, draft)
        if row.type == "compaction" and not draft.side:
            self._job(tx, row, draft)

    def _kept(self, tx: ReadTx, row: statements.VerifyEntries, draft: Draft) -> None:
        named = draft.first_kept_id
        if row.first_kept_no is not None:
            kept = tx.first("verify.place", entry_no=row.first_kept_no)
            agrees = (
                kept is None  # `SessionWalk._first_kept` reports that
                or (named is not None and kept.entry_id == named)
                or (named is None and kept.entry_no & SEQ_MAX == draft.first_kept_seq)
                or (named is not None and self._is_damaged_line(tx, named))
            )
        else:
            agrees = not self._could_keep(tx, row, named)
        if not agrees:
            self._findings.of(
                row,
                "first_kept",
                f"keeps entries from {at(row.first_kept_no)}, but its text says "
                f"{named or draft.first_kept_seq!r}",
            )

    def _could_keep(self, tx: ReadTx, row: statements.VerifyEntries, named: str | None) -> bool:
        """Tell whether a boundary that keeps nothing names an entry that it could keep."""
        if named is None or row.parent_no is None or named == row.entry_id:
            return False
        if self._session.version < 2:
            return False  # an imported line of version 1 names an id that nothing has any more
        kept = tx.first(
            "verify.named_before",
            session_no=self._session.session_no,
            entry_id=named,
            before_no=row.entry_no,
        )
        return kept is not None and is_on_path(
            tx, kept.entry_no, kept.branch_no, row.parent_branch_no, row.parent_no
        )

    def _job(self, tx: ReadTx, row: statements.VerifyEntries, draft: Draft) -> None:
        """Compare the job behind a compaction with its entry."""
        job = tx.first(
            "verify.job_of_entry", session_no=self._session.session_no, entry_no=row.entry_no
        )
        if job is None:
            return  # reported with the compactions
        name = f"compaction {job.compaction_id}"
        if job.tokens_before != draft.tokens_before:
            self._findings.add(
                "compaction",
                f"{name} began with {job.tokens_before} tokens, "
                f"but its entry {at(row.entry_no)} says {draft.tokens_before}",
            )
        if row.first_kept_no is None:
            after = row.tokens
        elif job.found_kept_no is None:
            return  # reported with the entry
        else:
            after = row.tokens + row.tokens_total - (job.before_kept_tokens_total or 0)
        if job.tokens_after != after:
            self._findings.add(
                "compaction",
                f"{name} left {job.tokens_after} tokens, but its entry {at(row.entry_no)} and what "
                f"it kept make {after}",
            )
        if job.first_kept_no not in (None, row.first_kept_no):
            self._findings.add(
                "compaction",
                f"{name} keeps entries from {at(job.first_kept_no)}, "
                f"but its entry from {at(row.first_kept_no)}",
            )
        if job.cut_no is None:
            return
        last_no = row.parent_no if row.first_kept_no is None else job.before_kept_no
        if job.cut_no != last_no:
            self._findings.add(
                "compaction",
                f"{name} covers everything up to entry {at(job.cut_no)}, "
                f"but what its entry keeps begins behind {at(last_no)}",
            )


def check_open_calls(
    findings: SessionFindings, row: statements.VerifyEntries, expected: int
) -> None:
    """Compare an entry's count of open tool calls."""
    if row.open_calls != expected:
        findings.of(
            row, "open_calls", f"leaves {row.open_calls} tool calls open instead of {expected}"
        )


def slices(rows: list[statements.VerifyEntries]) -> Iterator[list[statements.VerifyEntries]]:
    """Cut a page into runs whose texts together stay small. A large text is a run of its own."""
    run: list[statements.VerifyEntries] = []
    size = 0
    for row in rows:
        if run and size + row.bytes > SLICE_BYTES:
            yield run
            run, size = [], 0
        run.append(row)
        size += row.bytes
    if run:
        yield run


def _own_id(text: str) -> str | None:
    """Return the id that an entry's text gives it, as its column stores it."""
    own_id = loads(text).get("id")
    return storable(own_id) if isinstance(own_id, str) and own_id else None
