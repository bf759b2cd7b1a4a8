"""Rebuild: replay a damaged session's entries through the normal append code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from sessiondb.backend import Row
from sessiondb.clock import iso_from_ms
from sessiondb.errors import StoreDamaged
from sessiondb.json_text import DamagedLine, dumps
from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.paging import handed_on
from sessiondb.transcript import append, paths, registry
from sessiondb.transcript.entries import OFF_TREE_TYPES, Draft, key_trouble, new_id, parse_line
from sessiondb.transcript.replay import replay, replay_after
from sessiondb.transcript.state import load_state, save_state

from .workspace import BATCH_ROWS, FRAGMENT_CHARS, Workspace, batches, decode_object

# How many entries after a lost one are searched for its child.
LOOK_AHEAD: Final = 1_000

MARK: Final = "sessiondb.salvage"
"""The `customType` of the entry that stands for a lost one. It is stored, so it never changes."""


class Rebuild:
    """One session, rebuilt from the texts of its entries, each under its own number."""

    def __init__(self, work: Workspace, session_no: int, inputs: Iterable[int]) -> None:
        self.work = work
        self.session_no = session_no
        self.low_no, self.high_no = session_no << SEQ_BITS, session_no << SEQ_BITS | SEQ_MAX
        self.inputs = sorted(inputs)
        self.notes: list[str] = []
        self.oddities: list[str] = []
        # By seq: entries that were read, and whose text is damaged.
        self.damaged: list[int] = []
        self.session: Any = None
        self.state: Any = None
        self.undone: list[int] = []
        self.has_early_lines = False
        self.stand_ins: set[str] = set()
        """Ids by which an entry of OpenClaw may mean the head: see `replay.names_head`."""

    def run(self) -> list[str]:
        """Rebuild the session. Return notes about odd entries."""
        self.work.write(self._begin)
        for batch in batches(self._places()):
            self.work.write(self._place_all, batch)
        self.work.write(self._finish)
        if self.undone:
            self.notes.append(
                f"{len(self.undone)} undone compactions are in force again: "
                "where they were undone is lost"
            )
        return [*self.notes, *self.oddities]

    # -- before the first entry

    def _begin(self, tx: Any) -> None:
        session_no = self.session_no
        self.session = tx.one("salvage.session", session_no=session_no)
        receipt = tx.first("verify.first_receipt", session_no=session_no)
        self.has_early_lines = receipt is not None and receipt.placed_seq > 0
        self.undone = [
            row.closed_head_no
            for row in tx.all("salvage.undone_at", session_no=session_no)
            if row.closed_head_no is not None
        ]
        head, boundary = self._fork_point(tx)
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
        tx.stamp_ms = self.session.created_at_ms
        reason = "fork" if head is not None else "start"
        tx.run(
            "transcript.open_epoch",
            session_no=session_no,
            epoch=0,
            reason=reason,
            now_ms=tx.stamp_ms,
            **pointers,
        )
        self.state = load_state(tx, session_no)
        tx.run(
            "salvage.set_tokens",
            session_no=session_no,
            context_tokens=append.estimate_context(tx, self.state),
        )
        self.state = load_state(tx, session_no)

    def _fork_point(self, tx: Any) -> tuple[Any, Any]:
        """Return the entry that a fork continues, and the boundary of its first context.

        Both are None if the session is no fork, or if that entry is lost.
        """
        session = self.session
        point = tx.first("salvage.fork_point", session_no=self.session_no, low_no=self.low_no)
        if session.forked_from_no is None and (
            point is None or self.session_no not in self.work.recreated_sessions
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
            self.notes.append("the entry that it was forked from is lost. It is no fork any more")
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
        origin_no = head.entry_no >> SEQ_BITS
        if session.forked_from_no is None or not tx.first(
            "verify.comes_from", session_no=self.session_no, origin_no=origin_no
        ):
            tx.run(
                "salvage.set_origin",
                session_no=self.session_no,
                forked_from_no=origin_no,
            )
        return head, boundary

    # -- entry by entry

    def _places(self) -> Iterator[tuple[int, Any]]:
        """Yield each seq that was assigned, in order, with the row that was read, or None."""
        due = 0
        inputs = list(self.inputs)
        for row in self._rows_aside():
            while inputs and inputs[0] < row.entry_no:
                yield from self._lost_places(due, inputs[0] & SEQ_MAX)
                due = max(due, (inputs.pop(0) & SEQ_MAX) + 1)
            seq = row.entry_no & SEQ_MAX
            beyond = (
                seq > max(due, self.session.last_seq)
                and self.session_no not in self.work.recreated_sessions
            )
            if beyond or seq - due > self.work.gap_max:
                self.work.table("entry").left_out += 1
                self.notes.append(
                    f"an entry with seq {seq} was left out: "
                    f"the last one had at most {max(due - 1, self.session.last_seq)}"
                )
                continue
            yield from self._lost_places(due, seq - 1)
            yield seq, row
            due = seq + 1
        for number in inputs:
            yield from self._lost_places(due, number & SEQ_MAX)
            due = max(due, (number & SEQ_MAX) + 1)
        if due == 0:
            yield 0, None  # only the session's row is left, and a header can be made from it

    def _lost_places(self, due: int, last: int) -> Iterator[tuple[int, Any]]:
        if last - due > self.work.gap_max:
            return
        for seq in range(due, last + 1):
            yield seq, None

    def _rows_aside(self) -> Iterator[Row]:
        high_no, more = -self.low_no, True
        while more:
            rows, more = self.work.page(
                "salvage.aside", low_no=-self.high_no, high_no=high_no, limit=BATCH_ROWS
            )
            if rows:
                high_no = -rows[-1].entry_no - 1
            yield from handed_on(rows)

    def _place_all(self, tx: Any, batch: list[tuple[int, Any]]) -> None:
        for seq, row in batch:
            if seq == 0:
                self._place_header(tx, row)
            else:
                self._place(tx, seq, row)
        tx.stamp_ms = self.session.updated_at_ms
        save_state(tx, self.state)

    def _place_header(self, tx: Any, row: Any) -> None:
        draft = self._draft(tx, row) if row is not None else None
        if draft is not None and draft.type == "session":
            tx.stamp_ms = row.appended_at_ms
        elif (
            row is None
            and self.session.origin == "import"
            and not self.work.had_header(self.session_no)
        ):
            return  # a file may be imported without a header
        else:
            if row is not None:
                self.damaged.append(0)
            tx.stamp_ms = self.session.created_at_ms
            draft = self._new_header()
        # A fork's head lies in its ancestor, and the header is still seq 0.
        head_no, self.state.head_no = self.state.head_no, None
        replay(tx, self.state, draft, self.oddities)
        self.state.head_no = head_no

    def _new_header(self) -> Draft:
        version, at = self.session.version, iso_from_ms(self.session.created_at_ms)
        fields = {
            "type": "session",
            "version": version,
            "id": self.session.session_id,
            "timestamp": at,
            "cwd": "",
            **registry.header_fields(self.session.formats),
        }
        self.work.table("entry").created += 1
        return parse_line(dumps(fields), version)

    def _place(self, tx: Any, seq: int, row: Any) -> None:
        state, number = self.state, self.low_no | seq
        draft = self._draft(tx, row) if row is not None else None
        if draft is None:
            if row is not None:
                self.damaged.append(seq)
            draft = self._replacement(tx, number, row)
        first = draft.type == "session" and state.last_seq == 0 and state.head_no is None
        if first and tx.first("transcript.by_no", entry_no=self.low_no) is None:
            # Without a header before it, this entry would be taken for the header.
            replay(tx, state, self._new_header(), self.oddities)
        tx.stamp_ms = row.appended_at_ms if row is not None else tx.stamp_ms
        placed_no = self._replay(tx, draft, row)
        if placed_no != number:
            raise StoreDamaged(
                f"session {self.session.session_id}: entry {number} got number {placed_no}. "
                "This is a bug of sessiondb: report this message. The damaged file was not changed."
            )
        while self.undone and state.head_no == self.undone[0]:
            self.undone.pop(0)
            self._replay_undo(tx)

    def _replay(self, tx: Any, draft: Draft, row: Any) -> int:
        """Store an entry. Return its number.

        Where early lines were placed, entries are in another order than in the file. Then the
        head of now is not that of the file, and the column has the parent.
        """
        if row is None or not self.has_early_lines:
            return replay(tx, self.state, draft, self.oddities)
        appends_to = draft.append_parent_id
        if appends_to is not None:
            self.stand_ins.add(appends_to)
            aside_no = -self.session_no - 1
            if tx.first("salvage.aside_by_id", aside_no=aside_no, entry_id=appends_to) is not None:
                draft.append_parent_id = None  # it was in the file before the record
        if draft.side:
            self.stand_ins.add(draft.entry_id)
        if draft.type not in OFF_TREE_TYPES and self._is_parent(tx, row.parent_no, draft):
            return replay_after(tx, self.state, draft, row.parent_no, self.oddities)
        return replay(tx, self.state, draft, self.oddities)

    def _is_parent(self, tx: Any, parent_no: int | None, draft: Draft) -> bool:
        """Tell whether an entry's text may mean the parent that its column has."""
        parent = tx.first("transcript.by_no", entry_no=parent_no)
        if (
            parent is None
            or parent.branch_no is None
            or parent.entry_no >> SEQ_BITS != self.session_no
        ):
            return False
        return (
            parent.entry_id == draft.parent_id
            or draft.follows_head
            or draft.parent_id in self.stand_ins
            or self._is_ahead(tx, draft.parent_id)
        )

    def _is_ahead(self, tx: Any, entry_id: str | None) -> bool:
        """Tell whether an entry of this id is there, and behind this one."""
        if entry_id is None or append.find_entry(tx, self.state, entry_id) is not None:
            return False
        aside_no = -self.session_no - 1
        found = tx.first("salvage.aside_by_id", aside_no=aside_no, entry_id=entry_id)
        return found is not None

    def _restore_head(self, tx: Any) -> None:
        """Move the head to where the session had it, if its last entry does not say that."""
        head_no = self.session.head_no
        head = tx.first("transcript.by_no", entry_no=head_no)
        if head is not None and head.branch_no is not None and head_no != self.state.head_no:
            tx.stamp_ms = self.session.updated_at_ms
            append.switch_head(tx, self.state, append.in_tree(tx, head))
            save_state(tx, self.state)

    def _replay_undo(self, tx: Any) -> None:
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
        state.context_tokens, state.tokens_fresh = append.count_context(tx, state)

    def _draft(self, tx: Any, row: Any) -> Draft | None:
        """Parse an entry's text. Return None if it is damaged."""
        try:
            draft = parse_line(row.payload, self.session.version, self.session.formats)
        except DamagedLine:
            return None
        own_id = decode_object(row.payload).get("id")
        if not (isinstance(own_id, str) and own_id):
            draft.entry_id = row.entry_id
        elif (
            draft.entry_id != row.entry_id
            and self._named_by_child(tx, row.entry_no) == row.entry_id
        ):
            return None  # the child agrees with the column, so the text is the damaged one
        if row.idempotency_key is not None or key_trouble(draft.idempotency_key) is not None:
            draft.idempotency_key = row.idempotency_key
        return draft

    def _named_by_child(self, tx: Any, number: int) -> str | None:
        """Return the id by which the text of an entry's child names it."""
        low_no = max(-self.high_no, -number - LOOK_AHEAD)
        child = tx.first(
            "salvage.aside_child", low_no=low_no, high_no=-number - 1, parent_no=number
        )
        parent_id = decode_object(child.payload).get("parentId") if child is not None else None
        return parent_id if isinstance(parent_id, str) and parent_id else None

    # -- the replacement of a lost entry

    def _replacement(self, tx: Any, number: int, row: Any) -> Draft:
        """Return the mark that replaces a lost entry."""
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
            "timestamp": iso_from_ms(self._time_of(row)),
        }
        return self._mark(head, row, known)

    def _time_of(self, row: Any) -> int:
        at_ms = row.appended_at_ms if row is not None else self.session.created_at_ms
        return int(at_ms) if 0 <= at_ms < 253_000_000_000_000 else 0

    def _is_taken(self, tx: Any, entry_id: str, number: int) -> bool:
        found = tx.first("salvage.aside_by_id", aside_no=-self.session_no - 1, entry_id=entry_id)
        return found is not None and found.entry_no != -number

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

    def _finish(self, tx: Any) -> None:
        if self.has_early_lines:
            self._restore_head(tx)
        for job in tx.all("salvage.jobs_aside", session_no=self.session_no):
            self._restore_job(tx, job)
        tx.run("salvage.forget_aside", low_no=-self.high_no, high_no=-self.low_no)
        tx.run(
            "salvage.set_updated",
            session_no=self.session_no,
            updated_at_ms=self.session.updated_at_ms,
        )

    def _restore_job(self, tx: Any, job: Any) -> None:
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
        values = {name: getattr(job, name) for name in _JOB_COLUMNS}
        if not tx.run(
            "salvage.name_job", session_no=self.session_no, entry_no=job.entry_no, **values
        ):
            self.work.table("compaction").left_out += 1
            self.notes.append(
                f"compaction {job.compaction_id} is lost: its summary could not be read"
            )


_JOB_COLUMNS: Final = (
    "compaction_id",
    "trigger",
    "instance_no",
    "begun_at_ms",
    "deadline_ms",
    "deadline_max_ms",
    "finished_at_ms",
    "reason",
)
