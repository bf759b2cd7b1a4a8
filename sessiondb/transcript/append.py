"""Append entries to a transcript, and move its head.

A transcript is a tree of immutable entries. It is stored as *branches*: unbroken runs, each entry the parent
of the next. The path from any entry to its root is therefore a short list of ranges over the primary key,
whatever the length of the history (`paths.py` reads along it), and a fork is one branch whose parent lies in another session.

Each entry carries, by inheritance from its parent, what would otherwise need a walk: its position on the
path, the tokens summed along the path, the tool calls still open, the entries that last set the model and the
thinking level, and the boundary in force. So an append reads one session row and its head, and a compaction
of a million entries reads as much as one of a hundred.

Invariants, checked by `verify` over a real database:

* seq is dense per session in order of arrival; position is dense along a branch;
* a session's head is an entry of its own or, just after a fork, of an ancestor;
* every change of the context's pointers closes one epoch and opens the next in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sessiondb.backend import ReadTx, Row, Tx
from sessiondb.errors import NotFound, SessionEnded
from sessiondb.json_text import dumps
from sessiondb.limits import SEQ_MAX
from sessiondb.models import Receipt

from .entries import BOUNDARY_TYPES, OFF_TREE_TYPES, Draft, Projection, new_id
from .paths import entry_number, on_path, require_entries, segments, session_of


@dataclass(slots=True)
class State:
    """Where a session stands inside one transaction: its row, and what its head passes on to the next entry."""

    session_no: int
    session_id: str
    version: int
    ended_at_ms: int | None
    last_seq: int
    epoch: int
    head_no: int | None
    branch_no: int | None
    boundary_no: int | None
    first_kept_no: int | None
    context_tokens: int
    tokens_fresh: int
    name: str | None
    archived_at_ms: int | None
    head_id: str | None = None
    position: int = 0
    tokens_total: int = 0
    open_calls: int = 0
    model_no: int | None = None
    thinking_no: int | None = None
    notes: list[str] = field(
        default_factory=list
    )  # what was odd about imported entries; nothing is refused for it


def load_state(tx: ReadTx, session_no: int) -> State:
    """Read where a session stands.

    Raises:
        NotFound: no such session.
    """
    row = tx.first("transcript.state", session_no=session_no)
    if row is None:
        raise no_session(session_no)
    return State(*row)  # the statement's columns stand in the order of the fields


def no_session(session_no: int) -> NotFound:
    """Return the error that says that there is no such session: sessions are never deleted, so the number is from elsewhere."""
    return NotFound(
        f"there is no session number {session_no} in this database; a session's handle is good for the database that it came from. "
        "List sessions with `sessiondb sessions DB --all`"
    )


def no_entry(session_id: str, entry_id: str, wanted: str = "") -> NotFound:
    """Return the error that says that a session has no such entry, or none where it is wanted."""
    return NotFound(
        f"session {session_id} has no entry {entry_id!r}{wanted}; list its entries with `sessiondb show DB {session_id} --json`",
        session_id=session_id,
        entry_id=entry_id,
    )


def require_live(state: State) -> None:
    """Refuse to continue a session that has ended.

    Raises:
        SessionEnded: it has; as SessionArchived if its entries are in an archive.
    """
    require_entries(state.session_id, state.archived_at_ms)
    if state.ended_at_ms is not None:
        raise SessionEnded(
            f"session {state.session_id} has ended; fork it to go on from it",
            session_id=state.session_id,
        )


def save_state(tx: Tx, state: State) -> None:
    """Write a session's pointers back: one row, once per transaction however many entries were appended."""
    tx.run(
        "transcript.save_state",
        now_ms=tx.now_ms,
        session_no=state.session_no,
        last_seq=state.last_seq,
        epoch=state.epoch,
        head_no=state.head_no,
        branch_no=state.branch_no,
        boundary_no=state.boundary_no,
        first_kept_no=state.first_kept_no,
        context_tokens=state.context_tokens,
        tokens_fresh=state.tokens_fresh,
        name=state.name,
    )


# -- appending ----------------------------------------------------------------------------------------------


def append(tx: Tx, session_no: int, drafts: Sequence[Draft]) -> list[Receipt]:
    """Append drafts in order at the head (or where they say); all or none of them.

    Durable once the surrounding transaction commits. May be repeated for drafts that carry an idempotency key:
    the second time returns the first receipt and changes nothing.

    Raises:
        NotFound: no such session, or a parent that a caller named is not in the transcript.
        SessionEnded: the session has ended; fork it to go on. As SessionArchived: restore it first.
    """
    state = load_state(tx, session_no)
    require_live(state)
    placed = [place(tx, state, draft) for draft in drafts]
    if not all(receipt.duplicate for receipt in placed):
        save_state(tx, state)
    return placed


def place(tx: Tx, state: State, draft: Draft, *, lenient: bool = False) -> Receipt:
    """Store one entry and move `state` past it; the caller saves the state.

    `lenient` is the importer's reading: a parent that is not there starts a new root, with a note, because a
    damaged transcript must not keep its good entries out.
    """
    if draft.idempotency_key is not None:
        known = tx.first(
            "transcript.by_idempotency_key",
            session_no=state.session_no,
            idempotency_key=draft.idempotency_key,
        )
        if known is not None and not lenient:
            return Receipt(
                known.entry_no,
                known.entry_id,
                known.position,
                state.epoch,
                known.tokens,
                known.appended_at_ms,
                True,
            )
        if known is not None:
            # A file that holds one key twice is imported whole; the key stays with the first.
            state.notes.append(
                f"entry {draft.entry_id}: idempotency key {draft.idempotency_key!r} was used before"
            )
            draft.idempotency_key = None
    if draft.type in OFF_TREE_TYPES:
        return _place_off_tree(tx, state, draft)
    return _place_in_tree(tx, state, draft, lenient=lenient)


def _place_in_tree(tx: Tx, state: State, draft: Draft, *, lenient: bool) -> Receipt:
    side_of = _Tip.of(state) if draft.side else None
    if not (draft.fills_parent or draft.linear or draft.parent_id == state.head_id):
        parent = _named_parent(tx, state, draft, lenient=lenient)
        if draft.side:
            _inherit(tx, state, parent)
        else:
            _switch_head(tx, state, parent)
    is_boundary = draft.type in BOUNDARY_TYPES and not draft.side
    parent_no = state.head_no
    entry_no = _next_number(state)
    if state.branch_no is None or draft.side or parent_no is None:
        state.branch_no = _open_branch(tx, state.session_no, parent_no, entry_no)
    state.position += 1
    if draft.projection.counts:
        state.tokens_total += draft.tokens
    state.open_calls = _open_calls(state.open_calls, draft)
    if draft.type == "thinking_level_change":
        state.thinking_no = entry_no
    elif draft.type == "model_change" or draft.role == "assistant":
        state.model_no = entry_no
    elif draft.type == "session_info":
        state.name = draft.name
    first_kept_no = None
    if is_boundary:
        first_kept_no = _first_kept(tx, state, draft)
        # The epoch that ends here ends before this entry: close it at the parent, then count the boundary in.
        advance_epoch(tx, state, draft.type, entry_no, first_kept_no)
    payload, body_at = _payload(draft, state.head_id)
    tx.run(
        "transcript.insert_entry",
        entry_no=entry_no,
        branch_no=state.branch_no,
        parent_no=parent_no,
        position=state.position,
        type=draft.type,
        role=draft.role,
        projection=int(draft.projection),
        tokens=draft.tokens,
        tokens_total=state.tokens_total,
        usage_tokens=draft.usage_tokens,
        open_calls=state.open_calls,
        boundary_no=state.boundary_no,
        first_kept_no=first_kept_no,
        model_no=state.model_no,
        thinking_no=state.thinking_no,
        body_at=body_at,
        body_bytes=draft.body_bytes,
        appended_at_ms=tx.now_ms,
        entry_id=draft.entry_id,
        idempotency_key=draft.idempotency_key,
        payload=payload,
    )
    state.head_no, state.head_id = entry_no, draft.entry_id
    position = state.position
    if is_boundary:
        state.context_tokens, state.tokens_fresh = estimate_context(tx, state), 0
        if draft.type == "compaction" and not draft.by_job:
            _record_compaction(tx, state, draft, entry_no, first_kept_no)
    elif draft.usage_tokens is not None:
        state.context_tokens, state.tokens_fresh = draft.usage_tokens, 1
    elif draft.projection.counts:
        state.context_tokens += draft.tokens
    if side_of is not None:
        side_of.restore(state)
    return Receipt(entry_no, draft.entry_id, position, state.epoch, draft.tokens, tx.now_ms, False)


def _place_off_tree(tx: Tx, state: State, draft: Draft) -> Receipt:
    """Store a header or a leaf record. A leaf record moves the head; neither becomes a parent.

    Only a null names the root. A leaf record whose target is no entry is ignored, as by OpenClaw's session reader: a header is none,
    and neither is a leaf record of the root, which nothing here tells from one that was ignored itself. Of the two mistakes, keeping
    a context is the better one.
    """
    target, known_leaf = None, draft.type == "leaf" and not draft.side
    if draft.type == "leaf" and draft.target_id is not None:
        found = find_entry(tx, state, draft.target_id)
        target = _in_tree(tx, found) if found is not None else None
        if target is None:
            why = "is not in the transcript" if found is None else "is no entry of the tree"
            state.notes.append(
                f"leaf {draft.entry_id}: its target {draft.target_id!r} {why}; ignored"
            )
            known_leaf = False
    header_no = entry_number(state.session_no, 0)
    is_header = draft.type == "session" and state.last_seq == 0 and state.head_no is None
    is_header = (
        is_header and tx.first("transcript.by_no", entry_no=header_no) is None
    )  # a damaged file may begin with two
    entry_no = header_no if is_header else _next_number(state)
    payload, _ = _payload(draft, state.head_id)
    tx.run(
        "transcript.insert_entry",
        entry_no=entry_no,
        branch_no=None,
        parent_no=target.entry_no if target is not None else None,
        position=0,
        type=draft.type,
        role=None,
        projection=int(Projection.NONE),
        tokens=0,
        tokens_total=0,
        usage_tokens=None,
        open_calls=0,
        boundary_no=None,
        first_kept_no=None,
        model_no=None,
        thinking_no=None,
        body_at=0,
        body_bytes=0,
        appended_at_ms=tx.now_ms,
        entry_id=draft.entry_id,
        idempotency_key=draft.idempotency_key,
        payload=payload,
    )
    if known_leaf:
        _switch_head(tx, state, target)
    return Receipt(entry_no, draft.entry_id, 0, state.epoch, 0, tx.now_ms, False)


def move_head(tx: Tx, state: State, entry_id: str | None, timestamp: str) -> None:
    """Make another entry the head: the next append becomes its child. None is the root, before every entry.

    Recorded as a `leaf` entry, which OpenClaw's reader follows by its target and pi's by its parent: both
    programs find the same head in an export. Moving to where the head is already changes nothing.

    Raises:
        NotFound: no such entry in this transcript.
    """
    if entry_id == state.head_id:
        return
    target = None
    if entry_id is not None:
        target = find_entry(tx, state, entry_id)
        if target is None or target.type in OFF_TREE_TYPES:
            raise no_entry(state.session_id, entry_id)
    target_json, leaf_id = dumps(entry_id), new_id()
    text = f'{{"type":"leaf","id":"{leaf_id}","parentId":{target_json},"timestamp":"{timestamp}","targetId":{target_json}}}'
    _place_off_tree(
        tx, state, Draft(type="leaf", before=text, entry_id=leaf_id, target_id=entry_id)
    )


def advance_epoch(
    tx: Tx, state: State, reason: str, boundary_no: int | None, first_kept_no: int | None
) -> None:
    """Close the current epoch at the current head and open the next with the given pointers."""
    closed = tx.run(
        "transcript.close_epoch",
        session_no=state.session_no,
        epoch=state.epoch,
        head_no=state.head_no,
        now_ms=tx.now_ms,
    )
    assert closed == 1, f"epoch {state.epoch} of session {state.session_id} was not the open one"
    state.epoch += 1
    state.boundary_no, state.first_kept_no = boundary_no, first_kept_no
    tx.run(
        "transcript.open_epoch",
        session_no=state.session_no,
        epoch=state.epoch,
        reason=reason,
        now_ms=tx.now_ms,
        boundary_no=boundary_no,
        first_kept_no=first_kept_no,
    )


def estimate_context(tx: ReadTx, state: State) -> int:
    """Estimate the tokens of the current context from sums along the path: at most three lookups."""
    if state.boundary_no is None:
        return state.tokens_total
    boundary = tx.one("transcript.by_no", entry_no=state.boundary_no)
    tokens_cut = boundary.tokens_total
    if state.first_kept_no is not None:
        kept = tx.one("transcript.by_no", entry_no=state.first_kept_no)
        before = (
            tx.one("transcript.by_no", entry_no=kept.parent_no)
            if kept.parent_no is not None
            else None
        )
        tokens_cut = before.tokens_total if before is not None else 0
    return int(boundary.tokens + state.tokens_total - tokens_cut)


def _record_compaction(
    tx: Tx, state: State, draft: Draft, entry_no: int, first_kept_no: int | None
) -> None:
    """Log a compaction that some other program made, so that counters stay what they are: counts of rows."""
    tx.run(
        "compaction.record",
        compaction_id=new_id(),
        session_no=state.session_no,
        base_epoch=state.epoch - 1,
        epoch=state.epoch,
        entry_no=entry_no,
        first_kept_no=first_kept_no,
        tokens_before=draft.tokens_before,
        tokens_after=state.context_tokens,
        now_ms=tx.now_ms,
    )


@dataclass(slots=True)
class _Tip:
    """What a side entry must leave as it was: the head, and everything that the head passes on."""

    values: dict[str, Any]

    @classmethod
    def of(cls, state: State) -> _Tip:
        passed_on = (
            "position",
            "tokens_total",
            "open_calls",
            "model_no",
            "thinking_no",
            "boundary_no",
            "first_kept_no",
        )
        names = ("head_no", "head_id", "branch_no", *passed_on, "context_tokens", "tokens_fresh")
        return cls({name: getattr(state, name) for name in names})

    def restore(self, state: State) -> None:
        for name, value in self.values.items():
            setattr(state, name, value)


def _next_number(state: State) -> int:
    state.last_seq += 1
    assert state.last_seq <= SEQ_MAX, "a session holds at most 2^32 - 1 entries"
    return entry_number(state.session_no, state.last_seq)


def _open_branch(tx: Tx, session_no: int, parent_no: int | None, first_no: int) -> int:
    parent_branch_no = None
    if parent_no is not None:
        parent_branch_no = tx.one("transcript.by_no", entry_no=parent_no).branch_no
    row = tx.one(
        "transcript.insert_branch",
        session_no=session_no,
        parent_branch_no=parent_branch_no,
        fork_no=parent_no,
        first_no=first_no,
    )
    return int(row.branch_no)


def _open_calls(before: int, draft: Draft) -> int:
    """Count tool calls without a result: a new reply abandons the old ones, a result closes one."""
    if draft.role == "assistant":
        return draft.calls
    return max(0, before - 1) if draft.role == "toolResult" else before


def _payload(draft: Draft, head_id: str | None) -> tuple[str, int]:
    if not draft.fills_parent:
        return draft.before, draft.body_at
    front = draft.before + dumps(head_id)
    return front + draft.after, (
        len(front) if front.isascii() else len(front.encode())
    ) + draft.body_at


def _first_kept(tx: ReadTx, state: State, draft: Draft) -> int | None:
    """Resolve what a boundary keeps: an entry on its own path, before it; anything else keeps nothing."""
    if draft.first_kept_no is not None:
        return draft.first_kept_no
    kept = None
    if draft.first_kept_id is not None:
        kept = find_entry(tx, state, draft.first_kept_id)
    elif draft.first_kept_seq is not None and draft.first_kept_seq <= state.last_seq:
        kept = tx.first(
            "transcript.by_no", entry_no=entry_number(state.session_no, draft.first_kept_seq)
        )
    if (
        kept is None
        or state.head_no is None
        or kept.branch_no is None
        or not on_path(tx, kept, state.head_no)
    ):
        return None
    return int(kept.entry_no)


def _named_parent(tx: ReadTx, state: State, draft: Draft, *, lenient: bool) -> Row | None:
    """Find the parent that an entry names; None is the root."""
    if draft.parent_id is None:
        return None
    parent = find_entry(tx, state, draft.parent_id)
    if parent is None and not lenient:
        raise no_entry(state.session_id, draft.parent_id, " to append to")
    if parent is None:
        state.notes.append(
            f"entry {draft.entry_id}: its parent {draft.parent_id!r} is not in the transcript; it starts a new root"
        )
    return _in_tree(tx, parent) if parent is not None else None


def _in_tree(tx: ReadTx, found: Row) -> Row | None:
    """Return what stands in the tree for an entry: itself; a leaf record's target; for a header the root, None.

    Older appenders named a leaf record as parent; the visible ancestry goes on at its target. Neither may a leaf
    record's target be one: the head is never a control record.
    """
    if found.type not in OFF_TREE_TYPES:
        return found
    return (
        tx.one("transcript.by_no", entry_no=found.parent_no)
        if found.parent_no is not None
        else None
    )


def _switch_head(tx: Tx, state: State, target: Row | None) -> None:
    """Move the head to an entry (None: the root); the context begins where it began for that entry."""
    if (target.entry_no if target is not None else None) == state.head_no:
        return
    boundary_no = target.boundary_no if target is not None else None
    advance_epoch(tx, state, "branch", boundary_no, _kept_by(tx, boundary_no))
    _inherit(tx, state, target)
    state.context_tokens, state.tokens_fresh = estimate_context(tx, state), 0


def _inherit(tx: ReadTx, state: State, target: Row | None) -> None:
    """Take over what an entry passes on to the next one."""
    state.branch_no = None  # the next append opens one: the old tip stays a tip of its own
    state.head_no = target.entry_no if target is not None else None
    state.head_id = target.entry_id if target is not None else None
    state.position = target.position if target is not None else 0
    state.tokens_total = target.tokens_total if target is not None else 0
    state.open_calls = target.open_calls if target is not None else 0
    state.model_no = target.model_no if target is not None else None
    state.thinking_no = target.thinking_no if target is not None else None
    state.boundary_no = target.boundary_no if target is not None else None
    state.first_kept_no = _kept_by(tx, state.boundary_no)


def _kept_by(tx: ReadTx, boundary_no: int | None) -> int | None:
    if boundary_no is None:
        return None
    kept_no: int | None = tx.one("transcript.by_no", entry_no=boundary_no).first_kept_no
    return kept_no


# -- finding ------------------------------------------------------------------------------------------------


def find_entry(tx: ReadTx, state: State, entry_id: str) -> Row | None:
    """Find an entry by id in a session or, if it is a fork, on the path that it was forked from."""
    found = tx.first("transcript.by_id", session_no=state.session_no, entry_id=entry_id)
    if found is not None or state.head_no is None:
        return found
    for session_no in _sessions_on_path(tx, state.head_no):
        found = tx.first("transcript.by_id", session_no=session_no, entry_id=entry_id)
        if found is not None and found.branch_no is not None and on_path(tx, found, state.head_no):
            return found
    return None


def _sessions_on_path(tx: ReadTx, head_no: int) -> list[int]:
    found: list[int] = []
    for segment in reversed(segments(tx, head_no)):
        session_no = session_of(segment.high_no)
        if session_no not in found:
            found.append(session_no)
    return found
