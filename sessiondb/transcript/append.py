"""Append entries to a transcript, and move its head.

A transcript is a tree of immutable entries. It is stored as *branches*: unbroken runs, each entry
the parent of the next. So the path from any entry to its root is a short list of ranges over the
primary key, whatever the length of the history (`paths.py` reads along it). A fork is one branch
whose parent lies in another session.

Each entry inherits from its parent everything that would otherwise need a walk. That is its
position on the path, the tokens summed along the path and the tool calls still open. It is also
the entries that last set the model and the thinking level, and the boundary in force. So an
append reads one session row and its head, and a compaction of a million entries reads as much
as one of a hundred.

`place` stores an entry where its text says, and `attach` is the primitive under it. Entries of a
transcript that exists already (an import, a rebuilt session) come through `replay.py`.

Invariants, checked by `verify` over a real database:

* A seq is dense per session in order of arrival, and position along a branch.
* A session's head is an entry of its own or, just after a fork, of an ancestor.
* Every change of the context's pointers closes one epoch and opens the next, in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol, Unpack

from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import (
    HeadMoved,
    IdentityConflict,
    InvalidInput,
    PartlyStored,
    StoreDamaged,
)
from sessiondb.json_text import dumps, loads
from sessiondb.limits import SEQ_MAX, USAGE_REPLIES_MAX
from sessiondb.models import ANY_HEAD, AnyHead, Entry, EntryRef, ExpectedHead, Receipt

from .content import says_the_same
from .entries import BOUNDARY_TYPES, OFF_TREE_TYPES, Draft, EntryRow, Gap, id_or_none, new_id
from .notes import note_asked, note_order
from .pairing import open_behind
from .paths import entry_number, on_path, segments, session_of
from .state import (
    State,
    agreed_formats,
    load_state,
    narrow_formats,
    no_entry,
    require_live,
    save_state,
)

if TYPE_CHECKING:
    from sessiondb import statements

    from .paths import TreeEntry


# -- appending -------------------------------------------------------------------------


def append(
    tx: Tx,
    session_no: int,
    drafts: Sequence[Draft],
    *,
    expect_head: ExpectedHead = ANY_HEAD,
    all_or_nothing: bool = False,
) -> list[Receipt]:
    """Append drafts in order, each at the head or after the parent that it names. All or none.

    Durable once the surrounding transaction commits. May be repeated for drafts that carry an
    idempotency key: the second time returns the first receipt and changes nothing, also when the
    session has ended or its head has moved meanwhile.

    Raises:
        NotFound: no such session, or the transcript has no such parent.
        HeadMoved: the head is not `expect_head`.
        InvalidInput: a draft is an item of another message format than the session's.
        IdentityConflict: a draft's key is that of an entry that says something else.
        PartlyStored: with `all_or_nothing`, some of the drafts are stored already.
        SessionEnded: the session has ended: fork it. As SessionArchived: restore it first.
    """
    state = load_state(tx, session_no)
    drafts = [draft.in_session_of(state.formats) for draft in drafts]
    is_conditional = expect_head is not ANY_HEAD or all_or_nothing
    if state.ended_at_ms is not None or is_conditional:
        repeated = stored_before(tx, state, drafts)
        if len(repeated) == len(drafts) > 0:
            return repeated
        if repeated and all_or_nothing:
            raise partly_stored(state, repeated, len(drafts))
    require_live(state)
    require_head(tx, state, expect_head)
    placed = [place(tx, state, draft) for draft in drafts]
    if not all(receipt.duplicate for receipt in placed):
        save_state(tx, state)
    return placed


def stored_before(tx: ReadTx, state: State, drafts: Sequence[Draft]) -> list[Receipt]:
    """Return the first receipts of the drafts whose keys are known.

    Raises:
        IdentityConflict: an entry with such a key says something else.
    """
    return [receipt for draft in drafts if (receipt := _repeated(tx, state, draft))]


def partly_stored(state: State, stored: Sequence[Receipt], count: int) -> PartlyStored:
    """Return the error for items of all or nothing of which only some are stored."""
    return PartlyStored(
        f"session {state.session_id}: {len(stored)} of {count} items are stored already (the first "
        f"as entry {stored[0].entry_id}), and the others are not. Its head is {head_text(state)}. "
        "Nothing was changed; append the others alone, or all of them with new idempotency keys",
        session_id=state.session_id,
        stored=[receipt.entry_id for receipt in stored],
        head=state.head_id,
    )


def place(tx: Tx, state: State, draft: Draft) -> Receipt:
    """Store one entry and move `state` past it. The caller saves the state.

    Raises:
        NotFound: the transcript has no such parent.
        IdentityConflict: the draft's key is that of an entry that says something else.
    """
    repeated = _repeated(tx, state, draft)
    if repeated is not None:
        return repeated
    if state.formats & draft.formats != state.formats:
        agreed = agreed_formats(
            state.session_id, state.formats, draft.formats, f"this {draft.role or draft.type} item"
        )
        narrow_formats(state, agreed)
    if draft.follows_head or draft.parent_id == state.head_id:
        return place_at_head(tx, state, draft)
    return place_after(tx, state, draft, _named_parent(tx, state, draft.parent_id))


def _repeated(tx: ReadTx, state: State, draft: Draft) -> Receipt | None:
    """Return the first receipt of a draft whose key is known. None if it is new.

    Raises:
        IdentityConflict: the entry with that key says something else.
    """
    if draft.idempotency_key is None:
        return None
    known = find_by_key(tx, state, draft.idempotency_key)
    if known is None:
        return None
    if not says_the_same(known.payload, _payload(draft, None)[0]):
        raise IdentityConflict(
            f"session {state.session_id}: the idempotency key {draft.idempotency_key!r} is that of "
            f"entry {known.entry_id}, which says something else than this {draft.type}. Nothing "
            "was changed; append it with a key of its own",
            session_id=state.session_id,
            idempotency_key=draft.idempotency_key,
            entry_id=known.entry_id,
        )
    return Receipt(
        known.entry_no,
        known.entry_id,
        known.position,
        state.epoch,
        known.tokens,
        known.appended_at_ms,
        True,
    )


def place_at_head(tx: Tx, state: State, draft: Draft) -> Receipt:
    """Store one entry as a child of the head. It becomes the head unless it is a side append."""
    if draft.side:
        return _place_aside(tx, state, replace(state), draft)
    if draft.type == "context_edit":
        advance_epoch(tx, state, "edit", state.boundary_no, state.first_kept_no)
    if draft.type not in BOUNDARY_TYPES:
        return attach(tx, state, draft)
    first_kept_no = _first_kept(tx, state, draft)
    receipt = attach(tx, state, draft, begins_context=True, first_kept_no=first_kept_no)
    if draft.type == "compaction":
        _record_compaction(tx, state, draft, receipt.entry_no)
    return receipt


def place_after(tx: Tx, state: State, draft: Draft, parent: TreeEntry | None) -> Receipt:
    """Store one entry as a child of another than the head. A parent of None is the root."""
    if draft.side:
        tip = replace(state)
        _inherit(tx, tip, parent)
        return _place_aside(tx, state, tip, draft)
    switch_head(tx, state, parent)
    return place_at_head(tx, state, draft)


def _place_aside(tx: Tx, state: State, tip: State, draft: Draft) -> Receipt:
    """Store a side append: after `tip`, on a branch of its own. The head and the context stay.

    A compaction or a reset begins no epoch here. It is the boundary of what follows it.
    """
    tip.branch_no = None
    first_kept_no = None
    if draft.type in BOUNDARY_TYPES:
        first_kept_no = _first_kept(tx, tip, draft)
        tip.boundary_no = entry_number(tip.session_no, tip.last_seq + 1)
    receipt = attach(tx, tip, draft, first_kept_no=first_kept_no)
    state.last_seq, state.name, state.heard_at_ms = tip.last_seq, tip.name, tip.heard_at_ms
    return receipt


class _EntryWriter(Protocol):
    """A `Tx` as `attach` uses it: a column left out, misspelt or mistyped is a type error."""

    def run(
        self, statement: Literal["transcript.insert_entry"], /, **row: Unpack[EntryRow]
    ) -> int: ...


def attach(
    tx: Tx,
    state: State,
    draft: Draft,
    begins_context: bool = False,
    first_kept_no: int | None = None,
) -> Receipt:
    """Store one entry as a child of the head, make it the head, and count it into the context.

    The primitive under every append, and a compaction's commit. With `begins_context` the context
    begins anew at the entry, and `first_kept_no` is what it keeps of the path before it.
    """
    entry_no, parent_no = next_number(state), state.head_no
    if state.branch_no is None or parent_no is None:
        state.branch_no = _open_branch(tx, state.session_no, parent_no, entry_no)
    state.position += 1
    if draft.projection.counts:
        state.tokens_total += draft.tokens
    note_asked(state, draft, entry_no)
    note_order(tx, state, draft, entry_no, begins_context, first_kept_no)
    state.open_calls = _open_calls(state.open_calls, draft)
    if draft.type == "thinking_level_change":
        state.thinking_no = entry_no
    elif draft.type == "model_change" or draft.role == "assistant":
        state.model_no = entry_no
    elif draft.type == "session_info":
        state.name = draft.name
    elif draft.role == "user" and not draft.by_program:
        state.heard_at_ms = tx.stamp_ms
    if begins_context:
        # The epoch that ends here ends before this entry: close it at the parent, then insert.
        advance_epoch(tx, state, draft.type, entry_no, first_kept_no)
    usage_tokens = _usage_here(tx, state, draft)
    payload, body_at = _payload(draft, state.head_id)
    writer: _EntryWriter = tx
    writer.run(
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
        usage_tokens=usage_tokens,
        open_calls=state.open_calls,
        boundary_no=state.boundary_no,
        first_kept_no=first_kept_no,
        model_no=state.model_no,
        thinking_no=state.thinking_no,
        body_at=body_at,
        body_bytes=draft.body_bytes,
        appended_at_ms=tx.stamp_ms,
        entry_id=draft.entry_id,
        idempotency_key=draft.idempotency_key,
        payload=payload,
    )
    state.head_no, state.head_id = entry_no, draft.entry_id
    if begins_context:
        state.context_tokens, state.tokens_fresh = estimate_context(tx, state), 0
    elif usage_tokens is not None:
        state.context_tokens, state.tokens_fresh = usage_tokens, 1
    elif draft.projection.counts:
        state.context_tokens += draft.tokens
    return Receipt(
        entry_no, draft.entry_id, state.position, state.epoch, draft.tokens, tx.stamp_ms, False
    )


def insert_control_record(
    tx: Tx, draft: Draft, entry_no: int, target_no: int | None = None
) -> None:
    """Insert a header or a leaf record. It has a number and no place in the tree."""
    tx.run(
        "transcript.insert_control_record",
        entry_no=entry_no,
        parent_no=target_no,
        type=draft.type,
        appended_at_ms=tx.stamp_ms,
        entry_id=draft.entry_id,
        idempotency_key=draft.idempotency_key,
        payload=draft.before,
    )


# -- moving the head -------------------------------------------------------------------


def move_head(tx: Tx, state: State, target: TreeEntry | None, timestamp: str) -> None:
    """Make another entry the head: the next append becomes its child. None is the root.

    Recorded as a `leaf` entry. OpenClaw's reader follows its target and pi's its parent, so both
    programs find the same head in an export. Moving to the present head changes nothing.
    """
    target_no = target.entry_no if target is not None else None
    if target_no == state.head_no:
        return
    leaf_id = new_id()
    target_json = dumps(target.entry_id if target is not None else None)
    text = (
        f'{{"type":"leaf","id":"{leaf_id}","parentId":{target_json},'
        f'"timestamp":"{timestamp}","targetId":{target_json}}}'
    )
    leaf = Draft(type="leaf", before=text, entry_id=leaf_id)
    insert_control_record(tx, leaf, next_number(state), target_no)
    switch_head(tx, state, target)


def advance_epoch(
    tx: Tx, state: State, reason: str, boundary_no: int | None, first_kept_no: int | None
) -> None:
    """Close the current epoch at the current head and open the next with the given pointers."""
    closed = tx.run(
        "transcript.close_epoch",
        session_no=state.session_no,
        epoch=state.epoch,
        head_no=state.head_no,
        now_ms=tx.stamp_ms,
    )
    if closed != 1:
        raise StoreDamaged(
            f"session {state.session_id}: its epoch {state.epoch} is not the open one. Nothing was "
            "changed. Run `sessiondb verify DB`."
        )
    state.epoch += 1
    state.boundary_no, state.first_kept_no = boundary_no, first_kept_no
    tx.run(
        "transcript.open_epoch",
        session_no=state.session_no,
        epoch=state.epoch,
        reason=reason,
        now_ms=tx.stamp_ms,
        boundary_no=boundary_no,
        first_kept_no=first_kept_no,
    )


def _usage_here(tx: ReadTx, state: State, draft: Draft) -> int | None:
    """Return the provider's count that a reply carries, if it is one of the present context.

    Not if the reply was asked for in another epoch. Where nobody says in which, a reply that
    follows the boundary, with nothing in between that a model is sent, was asked for before it.
    """
    if draft.usage_tokens is None:
        return None
    if draft.asked_epoch is not None:
        return draft.usage_tokens if draft.asked_epoch == state.epoch else None
    if state.boundary_no is None:
        return draft.usage_tokens
    # `state` counts the reply itself already.
    before = state.tokens_total - (draft.tokens if draft.projection.counts else 0)
    boundary = tx.one("transcript.by_no", entry_no=state.boundary_no)
    return draft.usage_tokens if before > boundary.tokens_total else None


def count_context(tx: ReadTx, state: State) -> tuple[int, int]:
    """Count the tokens of the context anew. Return them, and 1 if they rest on a provider's count.

    The count of the last reply that was appended to this context, plus estimates for what
    follows it. It is looked for among the last replies: the caller holds the write lock.
    """
    reply_no = state.model_no
    for _ in range(USAGE_REPLIES_MAX):
        if reply_no is None or reply_no <= (state.boundary_no or 0):
            break
        reply = tx.one("transcript.usage", entry_no=reply_no)
        if reply.usage_tokens is not None and reply.boundary_no == state.boundary_no:
            return reply.usage_tokens + state.tokens_total - reply.tokens_total, 1
        reply_no = reply.model_no
    return estimate_context(tx, state), 0


def estimate_context(tx: ReadTx, state: State) -> int:
    """Estimate the tokens of the context from sums along the path: at most 3 lookups."""
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


def _record_compaction(tx: Tx, state: State, draft: Draft, entry_no: int) -> None:
    """Log a compaction that another program made, so that counters stay counts of rows."""
    tx.run(
        "compaction.record",
        compaction_id=new_id(),
        session_no=state.session_no,
        base_epoch=state.epoch - 1,
        epoch=state.epoch,
        entry_no=entry_no,
        first_kept_no=state.first_kept_no,
        tokens_before=draft.tokens_before,
        tokens_after=state.context_tokens,
        now_ms=tx.stamp_ms,
    )


def next_number(state: State) -> int:
    """Take the next entry number of a session."""
    if state.last_seq >= SEQ_MAX:
        raise InvalidInput(
            f"session {state.session_id} has {SEQ_MAX:,} entries, the most that one holds; "
            "go on in a fork, or in a new session"
        )
    state.last_seq += 1
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
    """Count tool calls without a result: a new reply abandons the old ones, a result closes one.

    Whichever it is of. Which calls are open is told by `State.open_marks`.
    """
    return draft.calls if draft.role == "assistant" else max(0, before - draft.results)


def _payload(draft: Draft, head_id: str | None) -> tuple[str, int]:
    """Return the text to store, and where its message begins, in bytes."""
    if not draft.after:
        return draft.before, draft.body_at
    front = draft.before + dumps(head_id)
    front_bytes = len(front) if front.isascii() else len(front.encode())
    return front + draft.after, front_bytes + draft.body_at


def _first_kept(tx: ReadTx, state: State, draft: Draft) -> int | None:
    """Find what a boundary keeps: an entry on its own path, before it. Any other keeps nothing."""
    kept: TreeEntry | None = None
    if draft.first_kept_gap is not None:
        kept = _behind_gap(tx, state, draft.first_kept_gap)
    elif draft.first_kept_id is not None:
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
    return kept.entry_no


def _behind_gap(tx: ReadTx, state: State, gap: Gap) -> TreeEntry | None:
    """Return the entry on the path to the head that follows a gap of damaged lines."""
    before = find_entry(tx, state, gap.after_id) if gap.after_id is not None else None
    before_no = before.entry_no if before is not None else None
    if state.head_no is None or (before is not None and not on_path(tx, before, state.head_no)):
        return None
    for segment in segments(tx, state.head_no, stop_no=before_no):
        low_no = segment.low_no + (segment.low_no == before_no)
        found = tx.first(
            "transcript.first_in_span",
            branch_no=segment.branch_no,
            low_no=low_no,
            high_no=segment.high_no,
        )
        if found is not None:
            text = tx.one("context.boundary", entry_no=found.entry_no).payload
            follows_gap = id_or_none(loads(text).get("parentId")) in gap.ids
            return tx.one("transcript.by_no", entry_no=found.entry_no) if follows_gap else None
    return None


def _named_parent(tx: ReadTx, state: State, parent_id: str | None) -> TreeEntry | None:
    """Find the parent that an entry names. None is the root.

    Raises:
        NotFound: the transcript has no such entry.
    """
    if parent_id is None:
        return None
    parent = find_entry(tx, state, parent_id)
    if parent is None:
        raise no_entry(state.session_id, parent_id, " to append to")
    return in_tree(tx, parent)


def in_tree(tx: ReadTx, found: TreeEntry) -> TreeEntry | None:
    """Return what stands in the tree for a row: itself, a leaf record's target, or the root (None).

    The root stands for a header. Older appenders named a leaf record as parent, and the visible
    ancestry continues at its target. Nor may a leaf record be another's target: the head is
    never a control record.
    """
    if found.type not in OFF_TREE_TYPES:
        return found
    return (
        tx.one("transcript.by_no", entry_no=found.parent_no)
        if found.parent_no is not None
        else None
    )


def switch_head(tx: Tx, state: State, target: TreeEntry | None) -> None:
    """Move the head to an entry, or to the root (None).

    The context begins where it began for that entry, unless that compaction was undone.
    """
    if (target.entry_no if target is not None else None) == state.head_no:
        return
    boundary_no = boundary_in_force(tx, state, target) if target is not None else None
    kept_no = kept_by(tx, boundary_no)
    ordered_from_no = _ordered_up_to(tx, state, target)
    advance_epoch(tx, state, "branch", boundary_no, kept_no)
    _inherit(tx, state, target)
    state.ordered_from_no = ordered_from_no
    state.asked_no = 0 if target is None else None
    state.boundary_no, state.first_kept_no = boundary_no, kept_no
    state.context_tokens, state.tokens_fresh = count_context(tx, state)


def _ordered_up_to(tx: ReadTx, state: State, target: TreeEntry | None) -> int | None:
    """Return from where on the path to an entry is in order. None: it is not known."""
    if target is None or state.head_no is None or state.ordered_from_no is None:
        return 0 if target is None else None
    goes_back = state.ordered_from_no <= target.entry_no and on_path(tx, target, state.head_no)
    return state.ordered_from_no if goes_back else None


def _inherit(tx: ReadTx, state: State, target: TreeEntry | None) -> None:
    """Take over what an entry passes on to the next one."""
    state.branch_no = None  # the next append opens one: the old tip stays a tip of its own
    state.head_no = target.entry_no if target is not None else None
    state.head_id = target.entry_id if target is not None else None
    state.position = target.position if target is not None else 0
    state.tokens_total = target.tokens_total if target is not None else 0
    state.open_calls = target.open_calls if target is not None else 0
    # Which calls are open is not stored with entries.
    state.open_marks = open_behind(state.formats, state.head_no, state.open_calls).column
    state.ordered_from_no = state.asked_no = None
    state.model_no = target.model_no if target is not None else None
    state.thinking_no = target.thinking_no if target is not None else None
    state.boundary_no = target.boundary_no if target is not None else None
    state.first_kept_no = kept_by(tx, state.boundary_no)


def boundary_in_force(tx: ReadTx, state: State, entry: TreeEntry) -> int | None:
    """Return the boundary at which a context that ends at an entry begins. None is the root.

    The entry's own, unless that compaction was undone. Then the one before it.
    """
    boundary_no = entry.boundary_no
    while boundary_no is not None:
        owner_no = session_of(boundary_no)
        job = tx.first("compaction.by_entry", session_no=owner_no, entry_no=boundary_no)
        if (
            job is None
            or job.epoch is None
            or not tx.first(
                "transcript.undone",
                session_no=owner_no,
                boundary_no=boundary_no,
                epoch=job.epoch,
                last_epoch=_last_epoch_of(tx, state, owner_no),
            )
        ):
            break
        before = tx.one("transcript.epoch", session_no=owner_no, epoch=job.epoch - 1)
        boundary_no = before.boundary_no
    return boundary_no


def _last_epoch_of(tx: ReadTx, state: State, owner_no: int) -> int:
    """Return the last epoch of a session that a session has a part in: of an origin, the fork's."""
    session_no: int | None = state.session_no
    epoch = state.epoch
    while session_no is not None and session_no != owner_no:
        origin = tx.one("transcript.origin", session_no=session_no)
        session_no, epoch = origin.forked_from_no, origin.forked_epoch or 0
    return epoch


def kept_by(tx: ReadTx, boundary_no: int | None) -> int | None:
    """Return the first entry before a boundary that its context keeps."""
    if boundary_no is None:
        return None
    return tx.one("transcript.by_no", entry_no=boundary_no).first_kept_no


# -- finding ---------------------------------------------------------------------------


def head_text(state: State) -> str:
    """Return a session's head as an error names it."""
    return f"entry {state.head_id}" if state.head_id is not None else "the root"


def require_head(tx: ReadTx, state: State, expected: ExpectedHead) -> None:
    """Refuse a change whose caller expected another head.

    Raises:
        HeadMoved: it did. The error names both.
    """
    if isinstance(expected, AnyHead):
        return
    found = find_named(tx, state, expected) if expected is not None else None
    if (expected is None or found is not None) and state.head_no == (
        found.entry_no if found is not None else None
    ):
        return
    expected_id = expected if isinstance(expected, str | None) else expected.entry_id
    raise HeadMoved(
        f"session {state.session_id}: its head is {head_text(state)}, and not "
        f"{f'entry {expected_id}' if expected_id is not None else 'the root'}, as was expected. "
        "Nothing was changed; read the entries since with session.entries(after=...), "
        "and decide again",
        session_id=state.session_id,
        expected=expected_id,
        head=state.head_id,
    )


def find_named(tx: ReadTx, state: State, named: EntryRef) -> TreeEntry | None:
    """Find the entry of a tree that a caller names, as `find_entry` does. None: there is none."""
    if isinstance(named, str):
        found: TreeEntry | None = find_entry(tx, state, named)
    elif isinstance(named, Entry | Receipt):
        found = tx.first("transcript.by_no", entry_no=named.entry_no)
        if found is not None and not (
            found.entry_id == named.entry_id and _is_reachable(tx, state, found)
        ):
            return None
    else:
        raise InvalidInput(
            f"an entry is named by itself, its receipt or its id, not by {type(named).__name__}"
        )
    return found if found is not None and found.type not in OFF_TREE_TYPES else None


def require_named(tx: ReadTx, state: State, named: EntryRef, wanted: str = "") -> TreeEntry:
    """As `find_named`, for an entry that has to be there.

    Raises:
        NotFound: the transcript has no such entry.
    """
    found = find_named(tx, state, named)
    if found is None:
        raise no_entry(
            state.session_id, named if isinstance(named, str) else named.entry_id, wanted
        )
    return found


def _is_reachable(tx: ReadTx, state: State, entry: TreeEntry) -> bool:
    """Tell whether an entry is a session's own, or lies on the path to where it was forked."""
    if session_of(entry.entry_no) == state.session_no:
        return True
    forked_at_no = state.forked_at_no
    return forked_at_no is not None and on_path(tx, entry, forked_at_no)


def find_by_key(
    tx: ReadTx, state: State, idempotency_key: str
) -> statements.TranscriptByIdempotencyKey | None:
    """Find the entry that an earlier append with the same idempotency key stored."""
    return tx.first(
        "transcript.by_idempotency_key",
        session_no=state.session_no,
        idempotency_key=idempotency_key,
    )


def find_entry(tx: ReadTx, state: State, entry_id: str) -> statements.TranscriptById | None:
    """Find an entry by id in a session or, for a fork, on the path to where it was forked."""
    found = tx.first("transcript.by_id", session_no=state.session_no, entry_id=entry_id)
    forked_at_no = state.forked_at_no
    if found is not None or forked_at_no is None:
        return found
    for session_no in _sessions_on_path(tx, forked_at_no):
        found = tx.first("transcript.by_id", session_no=session_no, entry_id=entry_id)
        if found is not None and found.branch_no is not None and on_path(tx, found, forked_at_no):
            return found
    return None


def _sessions_on_path(tx: ReadTx, head_no: int) -> list[int]:
    found: list[int] = []
    for segment in reversed(segments(tx, head_no)):
        session_no = session_of(segment.high_no)
        if session_no not in found:
            found.append(session_no)
    return found
