"""The stream of events, as server-sent events: resumed at `Last-Event-ID`, which is an event_no.

The server keeps no position. A client that connects again with the last id that it has seen
misses none, and sees none twice. Events are deleted by `gc` in the end, so one that was away for
longer than they are kept begins with the oldest.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from starlette.responses import StreamingResponse

from sessiondb import events as event_rules
from sessiondb.backend import ReadTx
from sessiondb.errors import InvalidInput, SessionDBError
from sessiondb.json_text import dumps
from sessiondb.models import Event
from sessiondb.paging import Page
from sessiondb.words import Audience

from . import bodies
from .failures import plain
from .table import Call, route

logger = logging.getLogger("sessiondb")

TAG = "events"
BEAT_S: Final = 15.0
"""A stream says nothing for so long at most, so that both sides notice when it is cut."""
RETRY_MS: Final = 1_000
_LARGEST: Final = 2**63 - 1


@route(
    "GET",
    "/v1/events",
    query=bodies.EventsQuery,
    answer=str,
    media="text/event-stream",
    tag=TAG,
)
async def follow_events(call: Call) -> StreamingResponse:
    """Stream events, now and as they come. `id` is the cursor, and `data` the event as JSON."""
    asked = call.query(bodies.EventsQuery)
    at = _cursor(call.request.headers.get("last-event-id"), asked.after)
    if at is None:
        at = await call.db.read("events.last", event_rules.last)
    return StreamingResponse(
        _stream(call, at, asked.audience),
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        media_type="text/event-stream",
    )


def _cursor(header: str | None, after: int | None) -> int | None:
    """Return the event behind which a stream begins. None: behind the newest.

    Raises:
        InvalidInput: the header is no event's number.
    """
    if header is None or header == "":
        return after
    if not (header.isascii() and header.isdecimal() and len(header) <= 19):
        raise InvalidInput("Last-Event-ID is no `id` of an event of this stream; leave it out")
    return min(int(header), _LARGEST)


async def _stream(call: Call, at: int, audience: Audience | None) -> AsyncIterator[bytes]:
    # With the cursor: a client that is cut before the first event comes again behind it.
    yield f"retry: {RETRY_MS}\nid: {at}\n\n".encode()
    while not call.state.stopping:
        seen = call.db.backend.change_count
        try:
            page, last = await call.db.read(
                "events", partial(_page, event_no=at, audience=audience)
            )
        except SessionDBError as error:
            logger.warning("serve: a stream of events ends, its client comes again: %s", error)
            return
        for event in page.rows:
            yield _sent(event)
            at = event.event_no
        if page.more:
            continue
        at = max(at, last)
        before = call.db.backend.change_count
        await call.db.backend.wait_change(seen, BEAT_S)
        if not page.rows and call.db.backend.change_count == before:
            yield b":\n\n"


def _page(tx: ReadTx, *, event_no: int, audience: Audience | None) -> tuple[Page[Event], int]:
    return event_rules.after(tx, event_no=event_no, audience=audience), event_rules.last(tx)


def _sent(event: Event) -> bytes:
    return f"id: {event.event_no}\nevent: {event.kind}\ndata: {dumps(plain(event))}\n\n".encode()
