"""Append a history of any length, in steps.

Each step is a transaction of its own, of at most `IMPORT_BATCH_ENTRIES` entries, and gives way to
other writers. A step expects the head that the step before it left, so nobody's message gets into
the middle of the history. What is durable after an interruption is a beginning of it, in whole
steps. Every item has an idempotency key, so the same call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile

from sessiondb import threads
from sessiondb.backend import Database, Tx
from sessiondb.errors import before_the_write
from sessiondb.limits import IMPORT_BATCH_BYTES, IMPORT_BATCH_ENTRIES
from sessiondb.models import AppendedHistory, ExpectedHead, Receipt

from .append import partly_stored, place, require_head, stored_before
from .entries import Appendable, Draft, prepare_now
from .state import load_state, require_live, save_state


async def append_history(
    db: Database,
    session_no: int,
    items: Iterable[Appendable],
    *,
    key: str,
    expect_head: ExpectedHead,
) -> AppendedHistory:
    """Append items in order, in steps. See `Session.append_history`."""
    numbered = enumerate(items)
    entries = stored = 0
    head, last = expect_head, None
    try:
        while True:
            with before_the_write():
                take = partial(_take, numbered, key, db.clock.stamp_ms())
                drafts = await threads.run(take)
            if not drafts:
                return AppendedHistory(entries, stored, last)
            size = sum(draft.size for draft in drafts)
            step = await db.backend.step(
                _appending(session_no, drafts, head), op="append.history", size=size
            )
            receipts = step.value
            entries += len(receipts)
            stored += sum(not receipt.duplicate for receipt in receipts)
            head = last = receipts[-1]
    except BaseException as error:
        error.add_note(
            f"sessiondb: of the history {key!r} the first {entries:,} items are on disk; "
            "the same call goes on behind them"
        )
        raise


def _take(numbered: Iterator[tuple[int, Appendable]], key: str, now_ms: int) -> list[Draft]:
    """Encode the next items: as many as one step takes, and one at least."""
    drafts: list[Draft] = []
    size = 0
    for at, item in islice(numbered, IMPORT_BATCH_ENTRIES):
        draft = prepare_now(item, now_ms, at)
        if draft.idempotency_key is None:
            draft = replace(draft, idempotency_key=f"{key}:{at}")
        drafts.append(draft)
        size += draft.size
        if size >= IMPORT_BATCH_BYTES:
            break
    return drafts


def _appending(
    session_no: int, drafts: Sequence[Draft], expect_head: ExpectedHead
) -> Callable[[Tx], list[Receipt]]:
    def body(tx: Tx) -> list[Receipt]:
        state = load_state(tx, session_no)
        fitted = [draft.in_session_of(state.formats) for draft in drafts]
        found = (stored_before(tx, state, [draft]) for draft in fitted)
        receipts = [receipt for [receipt] in takewhile(bool, found)]
        new = fitted[len(receipts) :]
        if not new:
            return receipts
        again = stored_before(tx, state, new)
        if again:
            raise partly_stored(state, again, len(new))
        require_live(state)
        require_head(tx, state, receipts[-1] if receipts else expect_head)
        receipts += [place(tx, state, draft) for draft in new]
        save_state(tx, state)
        return receipts

    return body
