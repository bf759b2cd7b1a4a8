"""Go back in a conversation: take its last messages off the path, or put others in their place.

Nothing is rewritten. Each of these moves the head to an earlier entry, as `registry.branch` does,
and begins an epoch. What lay behind stays on a branch of its own, and can be gone back to.

What is taken off is chosen in the transaction that moves the head. So a message that another
writer appends meanwhile is either part of the result, or stays on the path. A caller who means
certain messages says `expect_head`.

A result is never left without its call: what stays is a beginning of the path, and calls stand
before their results. What is put in the place of a tail is looked at before (`unpaired`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sessiondb.backend import ReadTx, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.errors import InvalidInput
from sessiondb.json_text import loads, stored_text
from sessiondb.limits import (
    APPEND_BYTES_MAX,
    POP_MESSAGES_MAX,
    REWIND_PAGE_ROWS,
    REWIND_SCAN_ROWS,
    TAIL_REPLIES_MAX,
)
from sessiondb.models import ANY_HEAD, Entry, EntryRef, ExpectedHead, Receipt

from .append import (
    move_head,
    partly_stored,
    place,
    require_head,
    require_named,
    stored_before,
)
from .entries import Draft, Projection
from .formats import Format, spoken
from .formats.base import USER
from .pairing import ties_of
from .paths import Segment, on_path, walk_back
from .registry import live_state
from .state import State, load_state, no_entry, save_state

if TYPE_CHECKING:
    from sessiondb import statements

    from .paths import TreeEntry


def pop(
    tx: Tx, session_no: int, count: int, *, expect_head: ExpectedHead = ANY_HEAD
) -> list[Entry]:
    """Take the last messages off the path. Return them, oldest first.

    A message is what the model is sent, or would be if its author did not exclude it. What is none
    and lies behind the oldest of them leaves the path, too. Messages from before the last reset
    stay: there are fewer then.

    Raises:
        HeadMoved: the head is not `expect_head`.
        InvalidInput: they are too large for one call, or lie too far back.
        SessionEnded: the session has ended.
    """
    state = live_state(tx, session_no)
    require_head(tx, state, expect_head)
    found: list[statements.TranscriptNewestInSpan] = []
    size = 0
    for row in _since_reset(tx, state):
        if row.projection:
            found.append(row)
            size += row.bytes
            if len(found) == count:
                break
    if size > APPEND_BYTES_MAX:
        raise InvalidInput(
            f"session {state.session_id}: its last {len(found)} messages have {size:,} bytes; at "
            f"most {APPEND_BYTES_MAX:,} are taken off at once. Nothing was changed; pop fewer"
        )
    taken = [_whole(tx, row.entry_no, row.branch_no) for row in reversed(found)]
    if found:
        _go_before(tx, state, found[-1].parent_no)
    return taken


def undo_turn(tx: Tx, session_no: int, *, expect_head: ExpectedHead = ANY_HEAD) -> Entry | None:
    """Go back before the last user message. Return it. None: there is none since the last reset.

    One that its author excludes from the context is none.

    Raises:
        HeadMoved: the head is not `expect_head`.
        InvalidInput: it lies too far back.
        SessionEnded: the session has ended.
    """
    state = live_state(tx, session_no)
    require_head(tx, state, expect_head)
    for row in _since_reset(tx, state):
        if row.role == USER and Projection(row.projection).counts:
            taken = _whole(tx, row.entry_no, row.branch_no)
            _go_before(tx, state, row.parent_no)
            return taken
    return None


def rewind(
    tx: Tx, session_no: int, before: EntryRef, *, expect_head: ExpectedHead = ANY_HEAD
) -> int:
    """Go back to right before an entry of the current path. Return the epoch.

    Raises:
        NotFound: it is not on the current path.
        HeadMoved: the head is not `expect_head`.
        SessionEnded: the session has ended.
    """
    state = live_state(tx, session_no)
    require_head(tx, state, expect_head)
    _go_before(tx, state, _on_current_path(tx, state, before).parent_no)
    return state.epoch


def replace_tail(
    tx: Tx,
    session_no: int,
    after: EntryRef | None,
    drafts: Sequence[Draft],
    *,
    expect_head: ExpectedHead = ANY_HEAD,
) -> list[Receipt]:
    """Put drafts in the place of all that follows an entry of the path. None is the root.

    May be repeated if all of them have idempotency keys: the second time returns the first
    receipts and changes nothing.

    Raises:
        NotFound: `after` is not on the current path.
        HeadMoved: the head is not `expect_head`.
        InvalidInput: a draft is an item of another message format than the session's.
        IdentityConflict: a draft's key is that of an entry that says something else.
        PartlyStored: some of the drafts are stored already.
        SessionEnded: the session has ended.
    """
    state = live_state(tx, session_no)
    drafts = [draft.in_session_of(state.formats) for draft in drafts]
    stored = stored_before(tx, state, drafts)
    if len(stored) == len(drafts) > 0:
        return stored
    if stored:
        # An entry that is on another branch cannot stand on this one, too.
        raise partly_stored(state, stored, len(drafts))
    require_head(tx, state, expect_head)
    kept = _on_current_path(tx, state, after) if after is not None else None
    move_head(tx, state, kept, iso_from_ms(tx.stamp_ms))
    placed = [place(tx, state, draft) for draft in drafts]
    save_state(tx, state)
    return placed


def unpaired(
    tx: ReadTx, session_no: int, after: EntryRef | None, drafts: Sequence[Draft]
) -> int | None:
    """Return the index of the first draft with a result whose call is nowhere before it.

    Neither in a draft before it, nor on the path up to `after`. What lies before an entry never
    changes, so this is known before the transaction that appends the drafts.

    Raises:
        NotFound: there is no such entry.
    """
    state = load_state(tx, session_no)
    lacking: dict[str, int] = {}
    called: set[str] = set()
    for at, draft in enumerate(drafts):
        ties = draft.in_session_of(state.formats).ties
        if ties is not None:
            for mark in ties.answered:
                if mark not in called:
                    lacking.setdefault(mark, at)
            called.update(ties.called)
    if lacking and after is not None:
        at_no = require_named(tx, state, after).model_no
        for marks in _calls_before(tx, spoken(state.formats), at_no):
            for mark in marks & lacking.keys():
                del lacking[mark]
            if not lacking:
                break
    return min(lacking.values(), default=None)


def _calls_before(tx: ReadTx, message_format: Format, reply_no: int | None) -> Iterator[set[str]]:
    """Yield the marks of the calls of a reply, and of those before it, newest first."""
    for _ in range(TAIL_REPLIES_MAX):
        if reply_no is None:
            return
        reply = tx.first("compaction.calls", entry_no=reply_no)
        if reply is not None:
            yield _marks(message_format, reply.content)
        reply_no = tx.one("compaction.reply", entry_no=reply_no).model_no


@stored_text()
def _marks(message_format: Format, item: bytes) -> set[str]:
    return set(ties_of(message_format.bit, loads(item)).called)


def _since_reset(tx: ReadTx, state: State) -> Iterator[statements.TranscriptNewestInSpan]:
    """Yield the entries of the path, newest first, down to the last reset.

    Raises:
        InvalidInput: more were asked for than one transaction looks at.
    """

    def page(segment: Segment, high_no: int) -> list[statements.TranscriptNewestInSpan]:
        return tx.all(
            "transcript.newest_in_span",
            branch_no=segment.branch_no,
            low_no=segment.low_no,
            high_no=high_no,
            limit=REWIND_PAGE_ROWS,
        )

    for looked, row in enumerate(walk_back(tx, state.head_no, None, page)):
        if row.type == "reset":
            return
        if looked == REWIND_SCAN_ROWS:
            raise InvalidInput(
                f"session {state.session_id}: what is to be taken off begins more than "
                f"{REWIND_SCAN_ROWS:,} entries before its head. Nothing was changed; name the "
                "entry: session.rewind(before=...)"
            )
        yield row


def _whole(tx: ReadTx, entry_no: int, branch_no: int | None) -> Entry:
    [row] = tx.page(
        "transcript.span_forward",
        branch_no=branch_no,
        low_no=entry_no,
        high_no=entry_no,
        limit=1,
    ).rows
    return Entry(**row._asdict())


def _go_before(tx: Tx, state: State, parent_no: int | None) -> None:
    parent = tx.one("transcript.by_no", entry_no=parent_no) if parent_no is not None else None
    move_head(tx, state, parent, iso_from_ms(tx.stamp_ms))
    save_state(tx, state)


def _on_current_path(tx: ReadTx, state: State, named: EntryRef) -> TreeEntry:
    found = require_named(tx, state, named, " on its current path")
    if state.head_no is None or not on_path(tx, found, state.head_no):
        raise no_entry(state.session_id, found.entry_id, " on its current path")
    return found


def check_pop(count: object) -> None:
    """Refuse a number of messages that one call does not take off.

    Raises:
        InvalidInput: it is none from 1 to the limit.
    """
    if not isinstance(count, int) or not 0 < count <= POP_MESSAGES_MAX:
        raise InvalidInput(
            f"pop() takes off 1 to {POP_MESSAGES_MAX} messages, not {count!r}; "
            "to go back further, name the entry: session.rewind(before=...)"
        )
