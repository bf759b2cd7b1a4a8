"""The routes of sessions: open, list, read, append."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response

from sessiondb import errors
from sessiondb.errors import InvalidInput
from sessiondb.models import Entry, Receipt, SessionInfo
from sessiondb.transcript import listing

from . import bodies
from .table import Call, route

TAG = "sessions"


@dataclass(frozen=True, slots=True)
class SessionsPage:
    """A page of sessions."""

    sessions: tuple[SessionInfo, ...]
    next: str | None
    """The next page's `cursor`. null: this was the last one."""


@dataclass(frozen=True, slots=True)
class EntriesPage:
    """A page of a transcript."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Receipts:
    """What was appended."""

    receipts: tuple[Receipt, ...]


@route(
    "POST",
    "/v1/sessions",
    body=bodies.OpenSession,
    answer=SessionInfo,
    errors=(errors.InvalidKey, errors.NotFound),
    tag=TAG,
)
async def open_session(call: Call) -> SessionInfo:
    """Return the session of a key or a foreign id, or a new one. May be repeated with either."""
    asked = call.body(bodies.OpenSession)
    named = [asked.key is not None, asked.namespace is not None or asked.external_id is not None]
    if sum(named) > 1 or (asked.session_id is not None and any(named)):
        raise InvalidInput(
            "open a session by its key, by namespace and external_id, or make one, with a "
            "session_id or without. Not several of these at once"
        )
    if asked.key is not None:
        if asked.agent_id is not None:
            raise InvalidInput("a key names its agent itself; leave agent_id out")
        session = await call.db.session(
            asked.key, create=asked.create, cwd=asked.cwd, format=asked.format
        )
    elif named[1]:
        if asked.namespace is None or asked.external_id is None:
            raise InvalidInput("a foreign id has both, namespace and external_id")
        session = await call.db.session_for(
            asked.namespace,
            asked.external_id,
            create=asked.create,
            agent_id=asked.agent_id,
            cwd=asked.cwd,
            format=asked.format,
        )
    elif not asked.create:
        raise InvalidInput("name the session that is not to be made: its key, or its foreign id")
    else:
        session = await call.db.create_session(
            asked.session_id, agent_id=asked.agent_id, cwd=asked.cwd, format=asked.format
        )
    return await session.info()


@route("GET", "/v1/sessions", query=bodies.SessionsQuery, answer=SessionsPage, tag=TAG)
async def list_sessions(call: Call) -> SessionsPage:
    """List sessions, last changed first, a page at a time."""
    asked = call.query(bodies.SessionsQuery)
    filters = listing.Filters(
        agent_id=asked.agent_id,
        namespace=asked.namespace,
        key_prefix=asked.key_prefix,
        updated_before=asked.updated_before,
        with_ended=asked.with_ended,
        newest_first=asked.newest_first,
    )
    read = partial(listing.page, past=_cursor(asked.cursor), limit=asked.limit, filters=filters)
    infos, past = await call.db.read("sessions", read)
    return SessionsPage(
        tuple(infos), None if past is None else f"{past.updated_at_ms}-{past.session_no}"
    )


def _cursor(text: str | None) -> listing.Cursor | None:
    """Return where a page begins.

    Raises:
        InvalidInput: no page has said so.
    """
    if text is None:
        return None
    at, dash, number = text.rpartition("-")
    if not (dash and number.isdecimal() and at.removeprefix("-").isdecimal() and len(text) < 40):
        raise InvalidInput("cursor is no `next` of a page of sessions; begin without one")
    return listing.Cursor(min(int(at), 2**62), min(int(number), 2**31))


@route(
    "GET",
    "/v1/sessions/{session}",
    answer=SessionInfo,
    errors=(errors.NotFound,),
    tag=TAG,
)
async def session_info(call: Call) -> SessionInfo:
    """Describe a session, also an ended or archived one."""
    return await (await call.session()).info()


@route(
    "GET",
    "/v1/sessions/{session}/entries",
    query=bodies.EntriesQuery,
    answer=EntriesPage,
    errors=(errors.NotFound, errors.SessionArchived),
    tag=TAG,
)
async def entries(call: Call) -> EntriesPage:
    """Read a page of the current path. For the next, `after` is the last `entry_no` of this."""
    asked = call.query(bodies.EntriesQuery)
    session = await call.session()
    found = await session.entries(
        after=asked.after,
        before=asked.before,
        types=asked.types.split(",") if asked.types is not None else None,
        limit=asked.limit,
        newest_first=asked.newest_first,
    )
    return EntriesPage(tuple(found))


@route(
    "GET",
    "/v1/sessions/{session}/entries/{entry_id}",
    answer=Entry,
    errors=(errors.NotFound, errors.SessionArchived),
    tag=TAG,
)
async def entry(call: Call) -> Entry:
    """Read one entry by its id, on whichever branch it is."""
    return await (await call.session()).entry(call.path["entry_id"])


@route(
    "GET",
    "/v1/sessions/{session}/keys/{idempotency_key}",
    answer=Entry,
    errors=(errors.NotFound, errors.SessionArchived),
    tag=TAG,
)
async def entry_by_key(call: Call) -> Entry:
    """Read the entry that was stored under an idempotency key: what became of an append."""
    return await (await call.session()).entry_by_key(call.path["idempotency_key"])


@route(
    "POST",
    "/v1/sessions/{session}/entries",
    body=bodies.Append,
    answer=Receipt,
    errors=(errors.NotFound, errors.IdentityConflict, errors.SessionEnded),
    tag=TAG,
)
async def append(call: Call) -> Receipt:
    """Append a message or an entry. On disk when it is answered. Repeat it with its key."""
    asked = call.body(bodies.Append)
    session = await call.session()
    session.asked_epoch = asked.asked_epoch
    return await session.append(asked.item, idempotency_key=asked.idempotency_key)


@route(
    "POST",
    "/v1/sessions/{session}/entries/batch",
    body=bodies.AppendBatch,
    answer=Receipts,
    errors=(
        errors.NotFound,
        errors.IdentityConflict,
        errors.PartlyStored,
        errors.HeadMoved,
        errors.SessionEnded,
    ),
    tag=TAG,
)
async def append_batch(call: Call) -> Receipts:
    """Append several items in one transaction, all or none. Repeat it with their keys."""
    asked = call.body(bodies.AppendBatch)
    session = await call.session()
    session.asked_epoch = asked.asked_epoch
    found = await session.append_many(
        [each.taken() for each in asked.items],
        expect_head=asked.expected,
        all_or_nothing=asked.all_or_nothing,
    )
    return Receipts(tuple(found))


@route(
    "GET",
    "/v1/sessions/{session}/context",
    query=bodies.ContextQuery,
    answer=list[dict[str, Any]],
    errors=(errors.NotFound, errors.SessionArchived),
    also={304: "The context is the one that If-None-Match names."},
    tag=TAG,
)
async def context(call: Call) -> Response:
    """Read the context for the model: one JSON array, cut out of the stored bytes."""
    asked = call.query(bodies.ContextQuery)
    session = await call.session()
    found = await session.context(epoch=asked.epoch, last=asked.last, raw=asked.raw, decode=False)
    text = found.as_json()
    tag = f'"{hashlib.sha256(text).hexdigest()[:32]}"'
    headers = {
        "etag": tag,
        "cache-control": "no-cache",
        "sessiondb-session": found.session_id.encode("ascii", "backslashreplace").decode(),
        "sessiondb-epoch": str(found.epoch),
        "sessiondb-tokens": str(found.tokens),
        "sessiondb-tokens-fresh": str(found.tokens_fresh).lower(),
        "sessiondb-format": found.format or "",
    }
    known = call.request.headers.get("if-none-match", "")
    if tag in [each.strip().removeprefix("W/") for each in known.split(",")]:
        return Response(None, 304, headers)
    return Response(text, 200, headers, "application/json")
