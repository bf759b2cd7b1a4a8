"""Messages that are heard and not addressed to the agent: what others say in a group.

    accept(..., answer=False) --> heard --> done    appended before the next claimed message

No turn answers them, so they are in no lane's queue, count no attempt and are not resumed. The
claim of the session's next message appends those before it, in order of arrival and in its own
transaction. At that moment no turn of the session runs, so none stands between a call and its
result.

In a group that nobody asks anything they would pile up. So `accept` appends those that wait when
they are too many, or too large together, and then takes the new one. It does that in a transaction
of its own, and never while a turn runs: then the session is busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sessiondb.backend import Database, ReadTx, Tx
from sessiondb.errors import InvalidInput, SessionBusy, StoreDamaged
from sessiondb.limits import APPEND_ENTRIES_MAX, HEARD_BYTES_MAX, HEARD_WAITING_MAX
from sessiondb.transcript.append import append as append_entries
from sessiondb.transcript.entries import Draft, prepare

from . import inbox

R = TypeVar("R")

EVERY = 2**62
"""Before this number are all messages."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message that waits to be appended, as a look saw it."""

    inbox_no: int
    digest: str | None
    by_person: int
    payload: str | None
    """None: it cannot be read."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Such a message, decoded outside of the transaction."""

    seen: Heard
    draft: Draft | None
    reason: str | None
    """Why it is given up. None: it is appended."""

    @property
    def size(self) -> int:
        """Its bytes in the transaction."""
        return self.draft.size if self.draft is not None else 0


def peek(tx: ReadTx, session_no: int, before_no: int) -> tuple[Heard, ...]:
    """Read what a session has heard before a message, with the texts."""
    return tuple(
        Heard(row.inbox_no, row.digest, row.by_person, _text(tx, row.inbox_no))
        for row in tx.all(
            "inbox.heard", session_no=session_no, before_no=before_no, limit=APPEND_ENTRIES_MAX
        )
    )


def _text(tx: ReadTx, inbox_no: int) -> str | None:
    try:
        return tx.one("inbox.payload", inbox_no=inbox_no).payload
    except StoreDamaged:
        return None


async def prepare_all(seen: Sequence[Heard], *, now_ms: int) -> list[Prepared]:
    """Decode what was heard. A text that is no message is given up: it holds up nobody's turn."""
    return [await _prepare(one, now_ms) for one in seen]


async def _prepare(seen: Heard, now_ms: int) -> Prepared:
    if seen.payload is None:
        return Prepared(seen, None, "its text cannot be read")
    try:
        draft = await prepare(seen.payload, now_ms=now_ms)
    except InvalidInput as error:
        return Prepared(seen, None, f"not a message: {error}")
    draft.idempotency_key = f"inbox:{seen.inbox_no}"
    draft.by_program = not seen.by_person
    return Prepared(seen, draft, None)


def is_current(tx: ReadTx, session_no: int, before_no: int, prepared: Sequence[Prepared]) -> bool:
    """Tell whether this is still what a session has heard: none more, none edited or taken back."""
    rows = tx.all(
        "inbox.heard", session_no=session_no, before_no=before_no, limit=APPEND_ENTRIES_MAX
    )
    return [(row.inbox_no, row.digest) for row in rows] == [
        (one.seen.inbox_no, one.seen.digest) for one in prepared
    ]


def append(tx: Tx, session_no: int, prepared: Sequence[Prepared]) -> None:
    """Append what a session has heard. The caller has seen that it is current."""
    said = [(one.seen.inbox_no, one.draft) for one in prepared if one.draft is not None]
    if said:
        receipts = append_entries(tx, session_no, [draft for _, draft in said])
        for (inbox_no, _), receipt in zip(said, receipts, strict=True):
            tx.run("inbox.append_heard", inbox_no=inbox_no, entry_no=receipt.entry_no)
    for one in prepared:
        if one.draft is None:
            tx.run("inbox.drop_heard", inbox_no=one.seen.inbox_no, reason=one.reason)


async def make_room(db: Database, session_no: int) -> None:
    """Append all that a session has heard, without a claim. Nothing if it has changed meanwhile.

    Raises:
        SessionBusy: a turn of the session runs.
        SessionEnded: the session has ended.
    """
    seen = await db.read("inbox.heard", lambda tx: peek(tx, session_no, EVERY))
    prepared = await prepare_all(seen, now_ms=db.clock.stamp_ms())

    def body(tx: Tx) -> None:
        running = tx.first("turns.running_of_session", session_no=session_no)
        if running is not None:
            raise _busy(tx, session_no, running.turn_no)
        if is_current(tx, session_no, EVERY, prepared):
            append(tx, session_no, prepared)

    await db.write("inbox.append_heard", body, size=sum(one.size for one in prepared))


def _busy(tx: Tx, session_no: int, turn_no: int) -> SessionBusy:
    turn = tx.one("turns.get", turn_no=turn_no)
    running = tx.one("turns.running_of_session", session_no=session_no)
    retry_after_ms = inbox.until_a_place_ms(tx, session_no, turn.lane, running)
    holder = f"{turn.operation} (turn {turn_no}, pid {running.pid} on {running.host})"
    return SessionBusy(
        f"session {turn.session_id} has heard {HEARD_WAITING_MAX} messages, or "
        f"{HEARD_BYTES_MAX:,} bytes, since its turn began, and it is busy with {holder}. "
        f"Not accepted; retry in {retry_after_ms} ms.",
        session_id=turn.session_id,
        holder=holder,
        retry_after_ms=retry_after_ms,
    )


async def with_room(
    db: Database, op: str, body: Callable[[Tx], R], *, size: int, timeout_s: float | None
) -> R:
    """Write what may add to what a session has heard. Make room for it when there is none."""
    while True:
        try:
            return await db.write(op, body, size=size, timeout_s=timeout_s)
        except inbox.HeardFull as full:
            await make_room(db, full.session_no)
