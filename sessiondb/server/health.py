"""The routes about the database and the server: health, status, the document, search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from sessiondb import errors
from sessiondb.json_text import dumps
from sessiondb.maintenance.status import DatabaseStatus
from sessiondb.models import SearchPage

from . import bodies, openapi
from .table import TABLE, Call, find_session, route

TAG = "database"


@dataclass(frozen=True, slots=True)
class Health:
    """That the server reads and the database answers."""

    ok: bool
    verdict: str
    """`green`, `yellow` or `red`: the worst of `alarms` in the status."""
    at_ms: int


@route("GET", "/v1/health", answer=Health, tag=TAG)
async def health(call: Call) -> Health:
    """Tell whether the database answers, and how it is. For a supervisor."""
    found = await call.db.status()
    return Health(True, found.verdict, found.at_ms)


@route("GET", "/v1/status", query=bodies.StatusQuery, answer=DatabaseStatus, tag=TAG)
async def status(call: Call) -> DatabaseStatus:
    """Describe the database: what waits, what is stuck, who holds what, space, alarms."""
    return await call.db.status(counts=call.query(bodies.StatusQuery).counts)


@route(
    "GET",
    "/v1/search",
    query=bodies.SearchQuery,
    answer=SearchPage,
    errors=(errors.NotFound, errors.SearchDamaged),
    tag=TAG,
)
async def search(call: Call) -> SearchPage:
    """Return a page of the entries that have some words, the newest session first."""
    asked = call.query(bodies.SearchQuery)
    session = await find_session(call.db, asked.session) if asked.session is not None else None
    return await call.db.search(
        asked.words,
        session=session,
        agent_id=asked.agent_id,
        role=asked.role,
        since_ms=asked.since_ms,
        before=asked.before,
        limit=asked.limit,
    )


@route("GET", "/v1/openapi.json", answer=dict[str, Any], tag=TAG)
async def document(_call: Call) -> Response:
    """Return this description of all routes, as an OpenAPI document."""
    return Response(dumps(openapi.document(TABLE)), media_type="application/json")
