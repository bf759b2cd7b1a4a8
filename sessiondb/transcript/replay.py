"""Place the entries of a transcript that exists already: of an import, or of a damaged session.

The transcript is history, so its entries are placed leniently. An oddity is noted, and never a
reason to keep good entries out: a parent or a leaf record's target that is missing, an
idempotency key that was used before. Control records, which no caller may append, are read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessiondb.backend import ReadTx, Tx
from sessiondb.json_text import loads, stored_text

from .append import (
    find_by_key,
    find_entry,
    in_tree,
    insert_control_record,
    next_number,
    place_after,
    place_at_head,
    switch_head,
)
from .entries import OFF_TREE_TYPES, Draft, id_or_none
from .paths import entry_number
from .state import State, narrow_formats

if TYPE_CHECKING:
    from .paths import TreeEntry


def replay(
    tx: Tx, state: State, draft: Draft, notes: list[str], *, behind_last: bool = True
) -> int:
    """Store one entry as its text says and move `state` past it. The caller saves the state.

    Return its number. `behind_last` tells whether the session's last record is the one before it.

    Each oddity of the entry is added to `notes` as one sentence.
    """
    _begin(tx, state, draft, notes)
    if draft.type == "leaf":
        return _replay_leaf(tx, state, draft, notes)
    if draft.type in OFF_TREE_TYPES:
        return _replay_header(tx, state, draft, behind_last=behind_last)
    if (
        draft.follows_head
        or draft.parent_id == state.head_id
        or (behind_last and names_head(tx, state, draft))
    ):
        return place_at_head(tx, state, draft).entry_no
    return place_after(tx, state, draft, _parent(tx, state, draft, notes)).entry_no


def replay_after(
    tx: Tx, state: State, draft: Draft, parent_no: int | None, notes: list[str]
) -> int:
    """As `replay`, for an entry whose parent is known by its number. None is the root.

    The parent of a leaf record is its target.
    """
    _begin(tx, state, draft, notes)
    if draft.type == "leaf":
        return _replay_leaf(tx, state, draft, notes)
    parent = (
        in_tree(tx, tx.one("transcript.by_no", entry_no=parent_no))
        if parent_no is not None
        else None
    )
    if (parent.entry_no if parent is not None else None) == state.head_no:
        return place_at_head(tx, state, draft).entry_no
    return place_after(tx, state, draft, parent).entry_no


def _begin(tx: Tx, state: State, draft: Draft, notes: list[str]) -> None:
    """Take over what an entry says of the session's format, and leave out a key that is known."""
    # A session whose format is known keeps it. For others, as for one that is salvaged, the first
    # items decide that only one format has.
    narrow_formats(state, state.formats & draft.formats or state.formats)
    key = draft.idempotency_key
    if key is not None and find_by_key(tx, state, key) is not None:
        # A file that holds one key twice is imported whole. The key stays with the first.
        notes.append(f"entry {draft.entry_id}: idempotency key {key!r} was used before")
        draft.idempotency_key = None


def names_head(tx: ReadTx, state: State, draft: Draft) -> bool:
    """Tell whether an entry names the record before it as its parent, and means the head.

    OpenClaw's next entry names the last thing that was appended, also where that is not the head:
    a side append, or what a leaf record says (`appendParentId`). It follows the head all the same
    (`scanSessionTranscriptTree`).
    """
    last_no = entry_number(state.session_no, state.last_seq)
    return (
        not draft.side and last_no != state.head_no and names_record(tx, draft.parent_id, last_no)
    )


@stored_text()
def names_record(tx: ReadTx, parent_id: str | None, record_no: int) -> bool:
    """Tell whether a parent's id stands for the place at which a record leaves off appending."""
    record = tx.first("context.boundary", entry_no=record_no)
    if record is None or parent_id is None:
        return False
    if record.type == "leaf":
        return id_or_none(loads(record.payload).get("appendParentId")) == parent_id
    # What else is not the head may be an entry that stood elsewhere in its file.
    return (
        record.entry_id == parent_id
        and record.type not in OFF_TREE_TYPES
        and loads(record.payload).get("appendMode") == "side"
    )


def _parent(tx: ReadTx, state: State, draft: Draft, notes: list[str]) -> TreeEntry | None:
    """Find the parent that an entry names. None is the root, also for a parent that is missing."""
    if draft.parent_id is None:
        return None
    parent = find_entry(tx, state, draft.parent_id)
    if parent is None:
        notes.append(
            f"entry {draft.entry_id}: its parent {draft.parent_id!r} is not in the transcript; "
            "it starts a new root"
        )
        return None
    return in_tree(tx, parent)


def _replay_header(tx: Tx, state: State, draft: Draft, *, behind_last: bool) -> int:
    """Store a header: as entry 0 when it comes first. A damaged file may begin with two.

    Other records that are no entries come likewise.
    """
    entry_no = entry_number(state.session_no, 0)
    is_first = draft.type == "session" and state.last_seq == 0 and state.head_no is None
    if (
        not (is_first and behind_last)
        or tx.first("transcript.by_no", entry_no=entry_no) is not None
    ):
        entry_no = next_number(state)
    insert_control_record(tx, draft, entry_no)
    if draft.name is not None:
        state.name = draft.name
    return entry_no


def _replay_leaf(tx: Tx, state: State, draft: Draft, notes: list[str]) -> int:
    """Store a leaf record and move the head to its target. Only a null names the root.

    A leaf record whose target is no entry is ignored, as by OpenClaw's session reader. A header
    is no entry. Neither is a leaf record of the root: nothing here tells it from one that was
    ignored itself. Of the two mistakes, keeping a context is the better one.
    """
    target, moves_head = None, True
    if draft.target_id is not None:
        found = find_entry(tx, state, draft.target_id)
        target = in_tree(tx, found) if found is not None else None
        if target is None:
            why = "is not in the transcript" if found is None else "is no entry of the tree"
            notes.append(f"leaf {draft.entry_id}: its target {draft.target_id!r} {why}; ignored")
            moves_head = False
    appends_to = draft.append_parent_id
    if moves_head and appends_to is not None and find_entry(tx, state, appends_to) is None:
        notes.append(
            f"leaf {draft.entry_id}: its appendParentId {appends_to!r} is not in the transcript; "
            "ignored"
        )
        moves_head = False
    entry_no = next_number(state)
    insert_control_record(tx, draft, entry_no, target.entry_no if target is not None else None)
    if moves_head:
        switch_head(tx, state, target)
    return entry_no
