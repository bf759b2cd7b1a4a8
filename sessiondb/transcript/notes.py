"""What each append notes in its session's row, so that a later read need not decode the context.

A note is a function of the path to the head. It may always be "not known", for example after a
switch to another path. Then the read works it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessiondb.backend import ReadTx

from .formats import spoken
from .formats.base import ASSISTANT, RESULT
from .formats.prompt import PROMPTS
from .pairing import NOTHING_OPEN, UNKNOWN, Open, follow, open_at_head

if TYPE_CHECKING:
    from .entries import Draft
    from .state import State


def note_order(
    tx: ReadTx,
    state: State,
    draft: Draft,
    entry_no: int,
    begins_context: bool,
    first_kept_no: int | None,
) -> None:
    """Note which calls are open after an entry, and whether it stands where a prompt may have it.

    Without that every context would have to be decoded, to see whether it is in order.
    """
    before = _open_before(state)
    if begins_context and first_kept_no is None:
        # Only a context that begins here is free of what is open: an undo brings that back.
        if before.is_open or state.ordered_from_no is None:
            state.ordered_from_no = entry_no
        state.open_marks = NOTHING_OPEN.column
        return
    after, stands_well = before, True
    if first_kept_no is not None:
        stands_well = not _cuts_calls(tx, state, before, first_kept_no)
        if before.is_open and not stands_well:
            after = UNKNOWN
    elif draft.ties is not None:
        # Until the format is decided, it is taken for the first: see `narrow_formats`.
        after, stands_well = follow(before, draft.ties, spoken(state.formats).bit)
    # Disorder among calls and results ends when all of those calls have results.
    goes_on = before.is_open and state.ordered_from_no == (state.head_no or 0) + 1
    if state.ordered_from_no is None or goes_on or not stands_well:
        state.ordered_from_no = entry_no + 1
    state.open_marks = after.column


def _open_before(state: State) -> Open:
    return open_at_head(state.formats, state.head_no, state.open_marks, state.open_calls)


def _cuts_calls(tx: ReadTx, state: State, before: Open, first_kept_no: int) -> bool:
    """Tell whether a boundary may keep, or get, results of calls that it does not keep."""
    if before.is_open and PROMPTS[spoken(state.formats).name].calls_are_items:
        return True  # an entry counts the calls of its own item, and some may lie further back
    kept = tx.one("transcript.by_no", entry_no=first_kept_no)
    if kept.role == RESULT:
        return True
    before_no = kept.parent_no
    return before_no is not None and bool(tx.one("transcript.by_no", entry_no=before_no).open_calls)


# -- what waits for an answer ----------------------------------------------------------

ANSWERED: Final = 0
"""Nothing behind the last answer may wait, and neither does anything before the first entry."""
_ANSWERED_AT_LAST: Final = -1
"""The last entry may be an answer. What waits if it is none is not known."""


def note_asked(state: State, draft: Draft, entry_no: int) -> None:
    """Note the first entry behind the last answer that may wait for one.

    A compaction begins its search there, however many replies have failed since.
    """
    in_parts = spoken(state.formats).reply_in_parts
    is_next_part = in_parts and state.head_no is not None and state.model_no == state.head_no
    before = _open_before(state)
    state.asked_no = asked_after(
        state.asked_no,
        draft,
        entry_no,
        in_parts=in_parts,
        may_follow_call=is_next_part and before.may_have_calls,
    )


def asked_after(
    asked_no: int | None, draft: Draft, entry_no: int, *, in_parts: bool, may_follow_call: bool
) -> int | None:
    """Return the note behind an entry. None is not known.

    A number below zero says that the entry is an answer, unless more of its reply follows. Then
    what waited before still waits. A part of a reply behind a call of the same reply is none, and
    which calls are of the same reply is not noted.
    """
    if draft.role != ASSISTANT:
        after = ANSWERED if asked_no is not None and asked_no < 0 else asked_no
        waits = draft.projection.counts and draft.role != RESULT
    elif draft.answers:
        if not in_parts:
            return ANSWERED
        if may_follow_call:
            return None
        return _ANSWERED_AT_LAST if asked_no is None else -abs(asked_no)
    else:
        after = abs(asked_no) if asked_no not in (None, _ANSWERED_AT_LAST) else None
        waits = draft.projection.counts and (draft.calls > 0 or draft.goes_on)
    return entry_no if after == ANSWERED and waits else after
