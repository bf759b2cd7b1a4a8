"""Rebuild: a session is told again from the texts of its entries, by the code that appends and imports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from sessiondb.backend import Row
from sessiondb.clock import iso_from_ms
from sessiondb.json_text import DamagedLine, dumps
from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.transcript import append, paths
from sessiondb.transcript.entries import Draft, new_id, parse_line

from .workspace import BATCH_ROWS, FRAGMENT_CHARS, Workspace, batches, decode_object

# How far behind a lost entry its successor is looked for.
LOOK_AHEAD: Final = 1_000

MARK: Final = "sessiondb.salvage"
"""The `customType` of the entry that stands for a lost one. It is stored, so it never changes."""


class Rebuild:
    """Tells a session again from the texts of its entries, each under its number."""

    def __init__(self, work: Workspace, session_no: int, inputs: Iterable[int]) -> None:
        self.work = work
        self.session_no = session_no
        self.low_no, self.high_no = session_no << SEQ_BITS, session_no << SEQ_BITS | SEQ_MAX
        self.inputs = sorted(inputs)
        self.notes: list[str] = []
        # By seq: entries that were read, and whose text is not what it was.
        self.damaged: list[int] = []
        self.session: Any = None
        self.state: Any = None
        self.undone: list[int] = []

    def run(self) -> list[str]:
        """Do it; return what was odd."""
        self.work.write(self._begin)
        for batch in batches(self._places()):
            self.work.write(self._place_all, batch)
        self.work.write(self._end)
        if self.undone:
            self.notes.append(
                f"{len(self.undone)} undone compactions are in force again: where they were undone is lost"
            )
        return [*self.notes, *self.state.notes]

    # -- before the first entry

    def _begin(self, tx: Any) -> None:
        session_no = self.session_no
        self.session = tx.one("salvage.session", session_no=session_no)
        self.undone = [
            row.closed_head_no
            for row in tx.all("salvage.undone_at", session_no=session_no)
            if row.closed_head_no is not None
        ]
        head, boundary = self._fork(tx)
        tx.run("salvage.set_aside_entries", low_no=self.low_no, high_no=self.high_no)
        tx.run("salvage.set_aside_compactions", session_no=session_no)
        tx.run("salvage.drop_branches", session_no=session_no)
        tx.run("salvage.drop_epochs", session_no=session_no)
        kept_no = boundary.first_kept_no if boundary is not None else None
        pointers = {
            "boundary_no": boundary.entry_no if boundary is not None else None,
            "first_kept_no": kept_no,
        }
        tx.run(
            "salvage.restart",
            session_no=session_no,
            head_no=head.entry_no if head is not None else None,
            **pointers,
        )
        tx.now_ms = self.session.created_at_ms
        reason = "fork" if head is not None else "start"
        tx.run(
            "transcript.open_epoch",
            session_no=session_no,
            epoch=0,
            reason=reason,
            now_ms=tx.now_ms,
            **pointers,
        )
        self.state = append.load_state(tx, session_no)
        tx.run(
            "salvage.set_tokens",
            session_no=session_no,
            context_tokens=append.estimate_context(tx, self.state),
        )
        self.state = append.load_state(tx, session_no)

    def _fork(self, tx: Any) -> tuple[Any, Any]:
        """Return where a fork left its origin, and where its context began; None if it is none, or that is lost."""
        session = self.session
        point = tx.first("salvage.fork_point", session_no=self.session_no, low_no=self.low_no)
        if session.forked_from_no is None and (
            point is None or self.session_no not in self.work.made_sessions
        ):
            return None, None
        head_no = (
            point.fork_no
            if point is not None
            else session.head_no
            if (session.head_no or self.low_no) < self.low_no
            else None
        )
        head = tx.first("transcript.by_no", entry_no=head_no) if head_no is not None else None
        if head is None or head.branch_no is None:
            self.notes.append("where it was forked from is lost; it stands alone")
            return None, None
        epoch = tx.first("salvage.fork_epoch", session_no=self.session_no)
        boundary_no = epoch.boundary_no if epoch is not None else head.boundary_no
        boundary = (
            tx.first("transcript.by_no", entry_no=boundary_no) if boundary_no is not None else None
        )
        if boundary is not None and not (
            boundary.type in ("compaction", "reset") and paths.on_path(tx, boundary, head.entry_no)
        ):
            boundary = None
        if session.forked_from_no is None:
            tx.run(
                "salvage.set_origin",
                session_no=self.session_no,
                forked_from_no=head.entry_no >> SEQ_BITS,
            )
        return head, boundary

    # -- entry by entry

    def _places(self) -> Iterator[tuple[int, Any]]:
        """Yield each number that an entry had, in order, with what was read of it; None where it is lost."""
        due = 0
        inputs = list(self.inputs)
        for row in self._aside():
            while inputs and inputs[0] < row.entry_no:
                yield from self._up_to(due, inputs[0] & SEQ_MAX)
                due = max(due, (inputs.pop(0) & SEQ_MAX) + 1)
            seq = row.entry_no & SEQ_MAX
            beyond = (
                seq > max(due, self.session.last_seq)
                and self.session_no not in self.work.made_sessions
            )
            if beyond or seq - due > self.work.gap_max:
                self.work.table("entry").left_out += 1
                self.notes.append(
                    f"an entry with seq {seq} was left out: the last one can have had {max(due - 1, self.session.last_seq)}"
                )
                continue
            yield from self._up_to(due, seq - 1)
            yield seq, row
            due = seq + 1
        for number in inputs:
            yield from self._up_to(due, number & SEQ_MAX)
            due = max(due, (number & SEQ_MAX) + 1)
        if due == 0:
            yield 0, None  # nothing is left but the session's row; a header can be made from that

    def _up_to(self, due: int, last: int) -> Iterator[tuple[int, Any]]:
        if last - due > self.work.gap_max:
            return
        for seq in range(due, last + 1):
            yield seq, None

    def _aside(self) -> Iterator[Row]:
        high_no = -self.low_no
        while True:
            page = self.work.all(
                "salvage.aside", low_no=-self.high_no, high_no=high_no, limit=BATCH_ROWS
            )
            yield from page
            if len(page) < BATCH_ROWS:
                return
            high_no = -page[-1].entry_no - 1

    def _place_all(self, tx: Any, batch: list[tuple[int, Any]]) -> None:
        for seq, row in batch:
            if seq == 0:
                self._place_header(tx, row)
            else:
                self._place(tx, seq, row)
        tx.now_ms = self.session.updated_at_ms
        append.save_state(tx, self.state)

    def _place_header(self, tx: Any, row: Any) -> None:
        draft = self._draft(tx, row) if row is not None else None
        if draft is not None and draft.type == "session":
            tx.now_ms = row.appended_at_ms
        elif (
            row is None
            and self.session.origin == "import"
            and not self.work.had_header(self.session_no)
        ):
            return  # an imported file may have come without one
        else:
            if row is not None:
                self.damaged.append(0)
            tx.now_ms = self.session.created_at_ms
            draft = self._made_header()
        # A fork's head lies in its ancestor: the header still is seq 0.
        head_no, self.state.head_no = self.state.head_no, None
        append.place(tx, self.state, draft, lenient=True)
        self.state.head_no = head_no

    def _made_header(self) -> Draft:
        version, at = self.session.version, iso_from_ms(self.session.created_at_ms)
        fields = {
            "type": "session",
            "version": version,
            "id": self.session.session_id,
            "timestamp": at,
            "cwd": "",
        }
        self.work.table("entry").created += 1
        return parse_line(dumps(fields), version)

    def _place(self, tx: Any, seq: int, row: Any) -> None:
        state, number = self.state, self.low_no | seq
        draft = self._draft(tx, row) if row is not None else None
        if draft is None:
            if row is not None:
                self.damaged.append(seq)
            draft = self._made(tx, number, row)
        first = draft.type == "session" and state.last_seq == 0 and state.head_no is None
        if (
            first and tx.first("transcript.by_no", entry_no=self.low_no) is None
        ):  # it would be taken for the header
            append.place(tx, state, self._made_header(), lenient=True)
        tx.now_ms = row.appended_at_ms if row is not None else tx.now_ms
        receipt = append.place(tx, state, draft, lenient=True)
        assert receipt.entry_no == number, f"entry {number} was given number {receipt.entry_no}"
        while self.undone and state.head_no == self.undone[0]:
            self.undone.pop(0)
            self._undo(tx)

    def _undo(self, tx: Any) -> None:
        state = self.state
        if state.boundary_no is None:
            return
        job = tx.first(
            "compaction.by_entry", session_no=self.session_no, entry_no=state.boundary_no
        )
        if job is None:
            return
        before = tx.one("transcript.epoch", session_no=self.session_no, epoch=job.epoch - 1)
        append.advance_epoch(tx, state, "undo", before.boundary_no, before.first_kept_no)
        state.context_tokens, state.tokens_fresh = append.estimate_context(tx, state), 0

    def _draft(self, tx: Any, row: Any) -> Draft | None:
        """Read an entry's text again; None when it is damaged."""
        try:
            draft = parse_line(row.payload, self.session.version)
        except DamagedLine:
            return None
        message = decode_object(row.payload).get("id")
        if not (isinstance(message, str) and message):
            draft.entry_id = row.entry_id
        elif (
            draft.entry_id != row.entry_id
            and self._named_by_child(tx, row.entry_no) == row.entry_id
        ):
            return None  # the text is the damaged one of the two
        draft.idempotency_key = row.idempotency_key
        return draft

    def _named_by_child(self, tx: Any, number: int) -> str | None:
        """Return the id that the text of an entry's successor calls it by."""
        low_no = max(-self.high_no, -number - LOOK_AHEAD)
        child = tx.first(
            "salvage.aside_child", low_no=low_no, high_no=-number - 1, parent_no=number
        )
        message = decode_object(child.payload).get("parentId") if child is not None else None
        return message if isinstance(message, str) and message else None

    # -- what stands for an entry that is lost

    def _made(self, tx: Any, number: int, row: Any) -> Draft:
        """Return the entry that takes a lost one's place: the message from the inbox, or a mark."""
        self.work.table("entry").created += 1
        known = self.work.fragments.get(number, {})
        indexed = self.work.lost_entries.get(self.session_no, {}).get(number & SEQ_MAX)
        wanted = (
            indexed
            or self._named_by_child(tx, number)
            or (row.entry_id if row is not None else known.get("id"))
        )
        taken = wanted is None or self._is_taken(tx, wanted, number)
        entry_id = new_id() if wanted is None or taken else wanted
        head = {
            "id": entry_id,
            "parentId": self.state.head_id,
            "timestamp": iso_from_ms(self._at_ms(row)),
        }
        return self._from_inbox(tx, number, head) or self._mark(head, row, known)

    def _at_ms(self, row: Any) -> int:
        at_ms = row.appended_at_ms if row is not None else self.session.created_at_ms
        return int(at_ms) if 0 <= at_ms < 253_000_000_000_000 else 0

    def _is_taken(self, tx: Any, entry_id: str, number: int) -> bool:
        found = tx.first("salvage.aside_by_id", aside_no=-self.session_no - 1, entry_id=entry_id)
        return found is not None and found.entry_no != -number

    def _from_inbox(self, tx: Any, number: int, head: dict[str, Any]) -> Draft | None:
        inbox_no = self.work.lost_inputs.get(number)
        row = tx.first("salvage.inbox_payload", inbox_no=inbox_no) if inbox_no is not None else None
        if row is None or "role" not in decode_object(row.payload):
            return None
        text = dumps({"type": "message", **head})[:-1] + ',"message":' + row.payload.strip() + "}"
        try:
            draft = parse_line(text, self.session.version)
        except DamagedLine:
            return None
        draft.idempotency_key = f"inbox:{inbox_no}"
        self.notes.append(
            f"the user message with seq {number & SEQ_MAX} was told again from the inbox"
        )
        return draft

    def _mark(self, head: dict[str, Any], row: Any, known: dict[str, Any]) -> Draft:
        data = {
            "missing": True,
            "reason": known.get("reason")
            or ("its text is damaged" if row is not None else "it could not be read"),
        }
        text = row.payload[:FRAGMENT_CHARS] if row is not None else known.get("text")
        if text:
            data["text"] = text
        return parse_line(
            dumps({"type": "custom", **head, "customType": MARK, "data": data}),
            self.session.version,
        )

    # -- after the last entry

    def _end(self, tx: Any) -> None:
        for job in tx.all("salvage.jobs_aside", session_no=self.session_no):
            self._job(tx, job)
        tx.run("salvage.forget_aside", low_no=-self.high_no, high_no=-self.low_no)
        tx.run(
            "salvage.set_updated",
            session_no=self.session_no,
            updated_at_ms=self.session.updated_at_ms,
        )

    def _job(self, tx: Any, job: Any) -> None:
        if job.state != "committed":
            cut = tx.first("verify.place", entry_no=job.cut_no) if job.cut_no is not None else None
            cut_no = job.cut_no if cut is not None and cut.branch_no is not None else None
            tx.run(
                "salvage.put_job_back",
                compaction_no=job.compaction_no,
                epoch=self.state.epoch,
                cut_no=cut_no,
            )
            return
        tx.run("salvage.forget_job", compaction_no=job.compaction_no)
        values = {name: getattr(job, name) for name in _JOB}
        if not tx.run(
            "salvage.name_job", session_no=self.session_no, entry_no=job.entry_no, **values
        ):
            self.work.table("compaction").left_out += 1
            self.notes.append(
                f"compaction {job.compaction_id} is lost: its summary could not be read"
            )


_JOB: Final = (
    "compaction_id",
    "trigger",
    "tokens_before",
    "instance_no",
    "begun_at_ms",
    "deadline_ms",
    "deadline_max_ms",
    "finished_at_ms",
    "reason",
)
