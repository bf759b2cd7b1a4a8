"""The loop that follows events: it yields each one, and moves its reader's position past it.

`events.py` says which events there are, and for whom.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from sessiondb import events
from sessiondb.backend import Database, ReadTx
from sessiondb.errors import SessionDBError
from sessiondb.models import (
    Event,
)
from sessiondb.paging import Page
from sessiondb.waiter import sleep
from sessiondb.words import (
    Audience,
)

from . import cancellation, draining, retry


async def follow_events(
    db: Database,
    consumer: str,
    audience: Audience | None,
    *,
    from_start: bool,
    follow: bool = True,
    loops: draining.Loops,
) -> AsyncIterator[Event]:
    """Yield events, now and as they come, until the process drains. See `SessionDB.events`.

    Without `follow` only those that were committed when the first one was asked for.
    """
    name = f"events for {consumer}"
    backoff, moving = retry.Backoff(name), retry.Backoff(f"the cursor of {consumer}")
    with loops.entered(db, draining.Stage.READERS, name):
        with cancellation.strays_raise(name):
            at = saved = await _first_position(db, consumer, from_start=from_start)
            end = None if follow else await db.read("events.last", events.last)
        while True:
            with cancellation.strays_raise(name):
                seen, ends = db.backend.change_count, loops.ends(draining.Stage.READERS)
                try:
                    page, last = await db.read(
                        "events", partial(_events_page, event_no=at, audience=audience)
                    )
                except SessionDBError as error:
                    await sleep(backoff.next_delay(error))
                    continue
                backoff.reset()
            for event in page.rows:
                if ends and event.event_no > loops.last_event_no:
                    return  # of other processes, which have readers of their own
                if end is not None and event.event_no > end:
                    return
                yield event
                # A reader that asks for the next event has handled this one.
                at = saved = event.event_no
                with cancellation.strays_raise(name):
                    await _move_cursor(db, consumer, at, moving)
            if not page.rows and (ends or end is not None):
                if end is not None and end > at:  # for another audience
                    await _move_cursor(db, consumer, end, moving)
                return
            with cancellation.strays_raise(name):
                if not page.more:
                    # Events in between are for another audience. They are not read again. Now
                    # and then the position is saved past them, so that they are not kept for
                    # this reader either.
                    at = max(at, last)
                    if at - saved >= events.PAGE:
                        saved = at
                        await _move_cursor(db, consumer, at, moving)
                if not page.rows:
                    await db.backend.wait_change(seen, retry.SLEEP_S_MAX)


async def _first_position(db: Database, consumer: str, *, from_start: bool) -> int:
    """Return a consumer's position. Save that of a new one."""
    known, last = await db.read(
        "events.cursor", lambda tx: (events.cursor(tx, consumer), events.last(tx))
    )
    if known is not None:
        return known
    at = 0 if from_start else last
    await db.write("events.cursor", partial(events.move_cursor, consumer=consumer, event_no=at))
    return at


async def _move_cursor(db: Database, consumer: str, event_no: int, backoff: retry.Backoff) -> None:
    try:
        await db.write(
            "events.cursor", partial(events.move_cursor, consumer=consumer, event_no=event_no)
        )
        backoff.reset()
    except SessionDBError as error:
        # The cursor moves with the next event. After a crash, handled events come
        # again: at least once.
        backoff.next_delay(error)


def _events_page(
    tx: ReadTx, *, event_no: int, audience: Audience | None
) -> tuple[Page[Event], int]:
    return events.after(tx, event_no=event_no, audience=audience), events.last(tx)
