"""Early lines: entries that stand before their parents in a file.

pi and OpenClaw read a whole file and then look for parents, so the order of its lines does not
matter to them. An import reads a file once, in steps. A line whose parent is not an entry yet is
kept in quarantine, as its bytes, and so is what follows such a line. Once the parent is an entry,
the line becomes one, too, behind it. At the end of the file what is left becomes roots, as for
these readers, in the order of the file.

The head of a transcript is its last line, wherever that is placed. While early lines are placed
the session's head moves with them. `import_file` says where it goes afterwards.

Memory: one page of lines. What waits, and for what, are rows, so an import that was killed goes
on where it stopped. Each line is written twice at most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sessiondb.backend import ReadTx, Tx
from sessiondb.json_text import stored_text
from sessiondb.limits import IMPORT_BATCH_BYTES, IMPORT_BATCH_ENTRIES
from sessiondb.models import EARLY
from sessiondb.transcript.append import find_entry, in_tree, switch_head
from sessiondb.transcript.entries import OFF_TREE_TYPES, Draft, parse_line
from sessiondb.transcript.paths import entry_number, on_path, seq_of
from sessiondb.transcript.replay import names_head, replay, replay_after
from sessiondb.transcript.state import State, load_state

from .jsonl_reader import Kept, Links
from .own_times import OwnTimes

if TYPE_CHECKING:
    from sessiondb import statements

ROOT: Final = 0
NO_PARENT: Final = -1
"""The `parent_seq` of a line whose parent does not come."""
CIRCLE: Final = -2
"""The `parent_seq` of a line whose parent follows it."""
BEHIND_ALL: Final = 1 << 62
"""The number of a line behind all that wait."""


# -- while a file is read --------------------------------------------------------------------------


class EarlyLines:
    """The early lines of a file, in the transaction that stores a batch of it."""

    def __init__(self, tx: Tx, import_file_no: int) -> None:
        self._tx = tx
        self._import_file_no = import_file_no
        row = tx.one("early_lines.of_file", import_file_no=import_file_no)
        self.waiting, self._missing = bool(row.waiting), bool(row.missing)
        self.being_placed = row.head_seq is not None
        self._head_byte, self._head_id = row.head_byte, row.head_id
        self._head_was = row.head_byte
        self._behind_last = not self.waiting
        self._cursor = self._cursor_was = row.cursor_id
        """What the next line may name, and mean the head: see `replay.names_head`."""

    def put(
        self, state: State, draft: Draft, place: tuple[int, int], kept: Kept | None, odd: list[str]
    ) -> bool:
        """Store an entry, or let it wait. Return True if it waits.

        `place` is its line and its first byte. `kept` has its bytes, if those are not its text.
        """
        if self._cursor is not None and draft.parent_id == self._cursor and not draft.side:
            draft.follows_head = True
        waits_for = self._waits_for(state, draft)
        line, byte_offset = place
        if waits_for is None:
            self._store(state, draft, line, odd)
            return False
        self._tx.run(
            "import_file.keep",
            import_file_no=self._import_file_no,
            line=line,
            byte_offset=byte_offset,
            after_seq=state.last_seq,
            reason=EARLY if kept is None else f"{EARLY} ({kept.reason})",
            severity="early",
            content=draft.before.encode() if kept is None else kept.content.removesuffix(b"\n"),
            entry_id=draft.entry_id,
            waits_for=waits_for,
        )
        self.waiting, self._behind_last = True, False
        self._cursor = _cursor_behind(draft)
        if not draft.side:
            self._head_byte, self._head_id = byte_offset, draft.entry_id
        return True

    def _store(self, state: State, draft: Draft, line: int, odd: list[str]) -> None:
        oddities, cursor = len(odd), _cursor_behind(draft)
        if draft.append_parent_id is not None and self._is_waiting(draft.append_parent_id):
            draft.append_parent_id = None  # it is in the file before the record
        entry_no = replay(self._tx, state, draft, odd, behind_last=self._behind_last)
        self._behind_last = True
        is_ignored = draft.type == "leaf" and len(odd) > oddities
        self._cursor = cursor if not is_ignored else None
        if not self.waiting and not self._missing:
            return
        _found(self._tx, self._import_file_no, draft.entry_id, line, seq_of(entry_no))
        is_control = draft.type in OFF_TREE_TYPES and draft.type != "leaf"
        if not (draft.side or is_ignored or is_control):
            self._head_byte = None

    def _waits_for(self, state: State, draft: Draft) -> str | None:
        """Return the id of the entry that has to be there first. None: the entry can be stored."""
        if draft.type == "leaf":
            return self._target_that_waits(state, draft)
        if draft.type in OFF_TREE_TYPES:
            return None
        means_head = draft.follows_head or (
            self._behind_last and names_head(self._tx, state, draft)
        )
        if means_head:
            return self._head_id if self._head_byte is not None else None
        parent_id = draft.parent_id
        if parent_id is None or parent_id == state.head_id:
            return None
        return parent_id if find_entry(self._tx, state, parent_id) is None else None

    def _target_that_waits(self, state: State, draft: Draft) -> str | None:
        """Return the target of a leaf record, if that waits. A record is ignored if it is unknown.

        OpenClaw looks for it among the lines before the record, and nowhere else.
        """
        target_id, appends_to = draft.target_id, draft.append_parent_id
        if not self.waiting or target_id is None or find_entry(self._tx, state, target_id):
            return None
        knows = appends_to is None or find_entry(self._tx, state, appends_to) is not None
        if not self._is_waiting(target_id) or not (knows or self._is_waiting(str(appends_to))):
            return None
        return target_id

    def _is_waiting(self, entry_id: str) -> bool:
        row = self._tx.first(
            "early_lines.waiting", import_file_no=self._import_file_no, entry_id=entry_id
        )
        return row is not None

    def pass_over(self, state: State | None, links: Links) -> None:
        """Let the lines that wait for a damaged line wait for what that one follows."""
        if state is None or not (self.waiting or self._missing):
            return
        for entry_id, parent_id in links.items():
            parent = find_entry(self._tx, state, parent_id) if parent_id is not None else None
            if parent is not None or parent_id is None:
                seq = seq_of(parent.entry_no) if parent is not None else ROOT
                _found(self._tx, self._import_file_no, entry_id, BEHIND_ALL, seq)
            else:
                self._tx.run(
                    "early_lines.wait_for_another",
                    import_file_no=self._import_file_no,
                    entry_id=entry_id,
                    parent_id=parent_id,
                )

    def is_open(self) -> bool:
        """Return whether lines wait for their parents, or have found them."""
        if not self.waiting and not self._missing:
            return False
        row = self._tx.one("early_lines.of_file", import_file_no=self._import_file_no)
        return bool(row.waiting or row.ready)

    def save(self) -> None:
        """Note which of the lines will be the head, and what the next one may name."""
        if self._head_byte != self._head_was:
            _set_head(self._tx, self._import_file_no, None, self._head_byte)
        if self._cursor != self._cursor_was:
            self._tx.run(
                "early_lines.set_cursor",
                import_file_no=self._import_file_no,
                cursor_id=self._cursor,
            )


def _found(tx: Tx, import_file_no: int, entry_id: str, line: int, seq: int) -> None:
    """Let the lines that wait for an entry follow it, unless a later line of its id waits.

    pi and OpenClaw keep the last one of an id (`byId.set`).
    """
    tx.run(
        "early_lines.found", import_file_no=import_file_no, entry_id=entry_id, line=line, seq=seq
    )


def _cursor_behind(draft: Draft) -> str | None:
    """Return what the line behind this one may name, and mean the head. None: only the head."""
    return draft.entry_id if draft.side else draft.append_parent_id


def _set_head(tx: Tx, import_file_no: int, head_seq: int | None, head_byte: int | None) -> None:
    tx.run(
        "early_lines.set_head",
        import_file_no=import_file_no,
        head_seq=head_seq,
        head_byte=head_byte,
    )


# -- between two batches, and at the end of a file -------------------------------------------------


@dataclass(slots=True)
class Lines:
    """A page of lines that may be placed, each behind its parent."""

    import_file_no: int
    entries: int
    """What the receipt counted when they were read."""
    version: int
    formats: int
    rows: list[statements.EarlyLinesNext]


def next_lines(tx: ReadTx, path: str) -> Lines | None:
    """Return the next lines of a file that may be placed. None: there are none."""
    row = tx.first("import_file.by_path", path=path)
    if row is None or row.session_no is None:
        return None
    page = tx.page(
        "early_lines.next",
        import_file_no=row.import_file_no,
        session_no=row.session_no,
        limit=IMPORT_BATCH_ENTRIES,
        bytes_max=IMPORT_BATCH_BYTES,
    )
    state = load_state(tx, row.session_no)
    return (
        Lines(row.import_file_no, row.entries, state.version, state.formats, page.rows)
        if page.rows
        else None
    )


@dataclass(slots=True)
class Roots:
    """Lines of a file whose parents do not come, by their first bytes."""

    import_file_no: int
    parent_seq: int
    byte_offsets: list[int]


def next_roots(tx: ReadTx, path: str, before: Roots | None) -> Roots | None:
    """Return lines that become roots, at the end of a file, behind those `before`.

    None: no line waits. Of lines that wait for one another the first one in the file is the root.
    """
    row = tx.first("import_file.by_path", path=path)
    if row is None:
        return None
    number = row.import_file_no
    after_offset = before.byte_offsets[-1] if before is not None else -1
    if before is None or before.parent_seq == NO_PARENT:
        found = tx.all(
            "early_lines.without_parent",
            import_file_no=number,
            after_offset=after_offset,
            limit=IMPORT_BATCH_ENTRIES,
        )
        if found:
            return Roots(number, NO_PARENT, [line.byte_offset for line in found])
        after_offset = -1
    first = tx.first("early_lines.in_a_circle", import_file_no=number, after_offset=after_offset)
    return Roots(number, CIRCLE, [first.byte_offset]) if first is not None else None


def become_roots(tx: Tx, roots: Roots) -> None:
    """Let lines be placed at the root."""
    tx.run(
        "early_lines.become_roots",
        import_file_no=roots.import_file_no,
        parent_seq=roots.parent_seq,
        byte_offsets=json.dumps(roots.byte_offsets),
    )


@stored_text()
def parse(lines: Lines) -> list[Draft]:
    """Parse a page of lines: outside of any transaction."""
    drafts = []
    for row in lines.rows:
        text = row.content.decode(errors="replace")
        draft = parse_line(text, lines.version, lines.formats)
        draft.entry_id = row.entry_id or draft.entry_id
        if draft.type == "leaf":
            draft.target_id = row.waits_for
        if row.byte_offset < 0:
            draft.idempotency_key = None  # the first one has it
        drafts.append(draft)
    return drafts


def place(
    tx: Tx,
    state: State,
    lines: Lines,
    drafts: Sequence[Draft],
    odd: list[str],
    times: OwnTimes,
) -> None:
    """Store a page of lines as entries behind their parents. The caller saves the state.

    The page has been read at the present state of the receipt.
    """
    row = tx.one("early_lines.of_file", import_file_no=lines.import_file_no)
    head_seq, head_byte = row.head_seq, row.head_byte
    if head_seq is None and head_byte is None:
        head_seq = _head_of(state)
    seqs: dict[str, int] = {}
    placed: set[int] = set()
    for line, draft in zip(lines.rows, drafts, strict=True):
        if line.byte_offset in placed:  # two lines of one id have what follows both of them
            continue
        placed.add(line.byte_offset)
        times.stamp(draft)
        waits_for = line.waits_for or ""
        parent_seq = line.parent_seq if line.parent_seq is not None else seqs[waits_for]
        if parent_seq in (NO_PARENT, CIRCLE):
            why = "is not in the transcript" if parent_seq == NO_PARENT else "follows it"
            odd.append(
                f"entry {draft.entry_id}: its parent {waits_for!r} {why}; it starts a new root"
            )
        parent_no = entry_number(state.session_no, parent_seq) if parent_seq > ROOT else None
        seq = seq_of(replay_after(tx, state, draft, parent_no, odd))
        seqs[draft.entry_id] = seq
        tx.run(
            "early_lines.placed",
            import_file_no=lines.import_file_no,
            byte_offset=line.byte_offset,
            seq=seq,
            reason=EARLY,
        )
        _found(tx, lines.import_file_no, draft.entry_id, line.line, seq)
        if line.byte_offset == head_byte:
            head_seq, head_byte = _head_of(state), None
    _set_head(tx, lines.import_file_no, head_seq, head_byte)


def _head_of(state: State) -> int:
    return seq_of(state.head_no) if state.head_no is not None else ROOT


def restore_head(tx: Tx, state: State, import_file_no: int) -> None:
    """Move the head to where the file's last line says. The caller saves the state."""
    row = tx.one("early_lines.of_file", import_file_no=import_file_no)
    if row.head_seq is None:
        return
    target = (
        tx.one("transcript.by_no", entry_no=entry_number(state.session_no, row.head_seq))
        if row.head_seq != ROOT
        else None
    )
    switch_head(tx, state, target)
    _set_head(tx, import_file_no, None, row.head_byte)


# -- a parent that comes with a later import -------------------------------------------------------


@dataclass(slots=True)
class Late:
    """A line that became a root, and whose parent has come since, with all that follows it.

    Entries never change. So these are placed once more, behind the parent, and the older ones stay
    as a branch that nothing leads to.
    """

    import_file_no: int
    session_no: int
    line: statements.EarlyLinesFoundLate
    stays: bool
    """The parent follows the line, or stands for the root."""
    branches: set[int]
    next_no: int
    last_no: int

    def is_over(self) -> bool:
        """Return whether all entries were looked at."""
        return self.stays or self.next_no > self.last_no


def next_late(tx: ReadTx, path: str) -> Late | None:
    """Return a line whose parent has come late. None: there is none."""
    row = tx.first("import_file.by_path", path=path)
    if row is None or row.session_no is None:
        return None
    line = tx.first("early_lines.found_late", import_file_no=row.import_file_no)
    if line is None:
        return None
    root_no = entry_number(row.session_no, line.entry_seq or 0)
    root = tx.one("transcript.by_no", entry_no=root_no)
    parent_no = entry_number(row.session_no, line.parent_seq or ROOT)
    named = tx.first("transcript.by_no", entry_no=parent_no)
    parent = in_tree(tx, named) if named is not None else None
    return Late(
        row.import_file_no,
        row.session_no,
        line,
        parent is None or on_path(tx, root, parent.entry_no),
        {root.branch_no or 0},
        root_no + 1,
        entry_number(row.session_no, row.entries),
    )


def next_branches(tx: ReadTx, late: Late, after_no: int) -> int | None:
    """Add the branches that follow the line. Return the last one, or None if there are no more."""
    rows = tx.all(
        "early_lines.branches",
        session_no=late.session_no,
        after_no=after_no,
        limit=IMPORT_BATCH_ENTRIES,
    )
    # A parent is older than its branches.
    late.branches.update(row.branch_no for row in rows if row.parent_branch_no in late.branches)
    return rows[-1].branch_no if rows else None


def repeat(tx: Tx, late: Late) -> None:
    """Let the next entries that follow the line be placed once more, and the line at the end."""
    if late.stays:
        _end_late(tx, late)
        return
    rows = tx.all(
        "early_lines.entries",
        low_no=late.next_no,
        high_no=late.last_no,
        limit=IMPORT_BATCH_ENTRIES,
    )
    for row in rows:
        if row.branch_no in late.branches:
            _repeat(tx, late, seq_of(row.entry_no), row.entry_id, row.parent_id, None)
    late.next_no = rows[-1].entry_no + 1 if rows else late.last_no + 1
    if not late.is_over():
        return
    seq = late.line.entry_seq or 0
    root = tx.one("transcript.by_no", entry_no=entry_number(late.session_no, seq))
    _repeat(tx, late, seq, root.entry_id, late.line.waits_for, late.line.parent_seq)
    row_of_file = tx.one("early_lines.of_file", import_file_no=late.import_file_no)
    head_seq = row_of_file.head_seq
    if head_seq is None and row_of_file.head_byte is None:
        head_seq = _head_of(load_state(tx, late.session_no))
    if head_seq is not None and head_seq != ROOT:
        head = tx.one("transcript.by_no", entry_no=entry_number(late.session_no, head_seq))
        if head.branch_no in late.branches:
            _set_head(tx, late.import_file_no, None, -head_seq)
    _end_late(tx, late)


def _repeat(
    tx: Tx, late: Late, seq: int, entry_id: str, parent_id: str | None, parent_seq: int | None
) -> None:
    tx.run(
        "early_lines.repeat",
        import_file_no=late.import_file_no,
        seq=seq,
        reason=EARLY,
        entry_id=entry_id,
        waits_for=parent_id,
        parent_seq=parent_seq,
    )


def _end_late(tx: Tx, late: Late) -> None:
    tx.run(
        "early_lines.not_missing",
        import_file_no=late.import_file_no,
        byte_offset=late.line.byte_offset,
    )
