"""Events: notices for operators and users, written with the change that they report.

An event is a row in the transaction of its change. So there is no change without its
event, and no event without its change. Readers follow a cursor: `event_no` is assigned
under the one write lock, so a later commit never carries a lower number. A consumer
that has handled everything up to n never finds a new event below n. (A server with
concurrent writers would not promise that.) Each consumer's cursor is kept in the
database. An event is delivered at least once: again if the consumer died before it
moved its cursor.

The text of an event for a *user* is a message to the person in the channel. The text of an
event for an *operator* says what to check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .backend import ReadTx, Tx
from .errors import InvalidInput, NotFound
from .json_text import dumps
from .limits import CONSUMER_CHARS_MAX
from .models import (
    Event,
)
from .paging import Page
from .words import (
    Audience,
    EventKind,
)

if TYPE_CHECKING:
    from . import statements

PAGE = 200
# A session's events have no index of their own. They are searched among the newest of
# their audience, by number, which takes a few milliseconds.
LOOK_BACK = 5_000


def emit(
    tx: Tx,
    kind: EventKind,
    audience: Audience,
    text: str,
    *,
    session_no: int | None = None,
    **data: Any,
) -> int:
    """Record an event, and return its number.

    It is delivered after the surrounding transaction has committed.
    """
    return tx.one(
        "events.emit",
        kind=kind,
        audience=audience,
        session_no=session_no,
        now_ms=tx.now_ms,
        text=text,
        data=dumps(data),
    ).event_no


def after(
    tx: ReadTx, *, event_no: int, audience: Audience | None, limit: int = PAGE
) -> Page[Event]:
    """Read a page of the events behind a cursor, oldest first."""
    if audience is None:
        rows, more = tx.page("events.after", after_no=event_no, limit=limit)
    else:
        rows, more = tx.page("events.after_for", after_no=event_no, audience=audience, limit=limit)
    return Page([_event(row) for row in rows], more)


def of_session(tx: ReadTx, session_no: int, *, audience: Audience, limit: int) -> list[Event]:
    """Read a session's newest events, oldest first: one page of them.

    Only the newest `LOOK_BACK` events of that audience, of all sessions, are searched.
    """
    newest = tx.page(
        "events.of_session", session_no=session_no, audience=audience, among=LOOK_BACK, limit=limit
    )
    return [_event(row) for row in reversed(newest.rows)]


def _event(row: statements.EventsAfter | statements.EventsOfSession) -> Event:
    return Event(
        row.event_no,
        cast("EventKind", row.kind),  # only `emit` writes one
        row.audience,
        row.session_id,
        row.at_ms,
        row.text,
        row.data,
    )


def cursor(tx: ReadTx, consumer: str) -> int | None:
    """Return the last event that a consumer has handled. None for a new consumer."""
    row = tx.first("events.cursor", consumer=consumer)
    return row.event_no if row is not None else None


def last(tx: ReadTx) -> int:
    """Return the newest event's number, 0 if there is none."""
    return tx.one("events.last").event_no or 0


def before_last(tx: ReadTx, *, count: int, audience: Audience | None) -> int:
    """Return the number after which the last `count` events begin."""
    if count == 0:
        return last(tx)
    if audience is None:
        row = tx.first("events.nth_last", skipped=count - 1)
    else:
        row = tx.first("events.nth_last_for", audience=audience, skipped=count - 1)
    return row.event_no - 1 if row is not None else 0


def move_cursor(tx: Tx, *, consumer: str, event_no: int) -> None:
    """Record that a consumer has handled everything up to an event.

    May be repeated. Never goes back.

    Raises:
        InvalidInput: the name cannot be a consumer's.
    """
    check_consumer(consumer)
    tx.run("events.move_cursor", consumer=consumer, event_no=event_no)


def forget(tx: Tx, consumer: str) -> None:
    """Forget the position of a consumer under whose name nobody reads any more.

    Raises:
        NotFound: there is no such consumer.
    """
    if not tx.run("events.forget", consumer=consumer):
        raise NotFound(
            f"there is no consumer {consumer!r}, so nothing was forgotten; `sessiondb stuck DB` "
            "names those that are behind",
            consumer=consumer,
        )


def check_consumer(consumer: str) -> None:
    """Check the name of a reader.

    Raises:
        InvalidInput: it cannot be one.
    """
    if not 0 < len(consumer) <= CONSUMER_CHARS_MAX:
        raise InvalidInput(
            f"the name of a consumer has 1 to {CONSUMER_CHARS_MAX} characters, not {len(consumer)}"
        )
