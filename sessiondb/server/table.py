"""The table of routes. It drives the routing, the checks of requests, and the OpenAPI document.

A route's function gets a `Call`. It returns a record, a list or a dict, which become JSON, or a
response of its own. What it raises becomes a status by `failures.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel

from sessiondb.errors import NotFound, SessionDBError

from .failures import refused

if TYPE_CHECKING:
    from starlette.requests import Request

    from sessiondb.database import SessionDB
    from sessiondb.transcript.session import Session

    from .state import State

B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked, for the function of its route."""

    db: SessionDB
    state: State
    request: Request
    path: dict[str, str]
    query_model: BaseModel | None
    body_model: BaseModel | None

    def body(self, kind: type[B]) -> B:
        """Return the body, which has the class that the table names."""
        return _known(self.body_model, kind)

    def query(self, kind: type[B]) -> B:
        """Return the query's parameters, likewise."""
        return _known(self.query_model, kind)

    async def session(self) -> Session:
        """Return the session that the path names, by its id or its key.

        Raises:
            NotFound: there is none.
        """
        return await find_session(self.db, self.path["session"])


def _known(model: BaseModel | None, kind: type[B]) -> B:
    if not isinstance(model, kind):
        raise TypeError(f"the table names another class than {kind.__name__}")
    return model


async def find_session(db: SessionDB, named: str) -> Session:
    """Return the session with an id or a key.

    Raises:
        NotFound: there is none.
    """
    found = await db.find(named)
    if found is None:
        raise NotFound(
            f"no session has the id or the key {named!r:.200}; make one with POST /v1/sessions, "
            "or list them with GET /v1/sessions",
            session=named,
        )
    return found


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table."""

    method: str
    path: str
    does: str
    """One line: what it does."""
    handler: Handler
    answer: Any
    """The class of what it returns, for the document. None: it says so in `media`."""
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    errors: Sequence[type[SessionDBError]] = ()
    """Those of its own. Every route may also be refused, and meet a busy or failing database."""
    status: int = 200
    also: dict[int, str] = field(default_factory=dict)
    """Other successful statuses, without a body, and what each means."""
    media: str = "application/json"
    tag: str = ""

    @property
    def segments(self) -> tuple[str, ...]:
        """The path, cut at its slashes."""
        return tuple(self.path.split("/")[1:])

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the path's parameters."""
        return tuple(each[1:-1] for each in self.segments if each.startswith("{"))


TABLE: list[Route] = []


def route(method: str, path: str, **rest: Any) -> Callable[[Handler], Handler]:
    """Put a function into the table. Its docstring's first line is what the route does."""

    def put(handler: Handler) -> Handler:
        does = (handler.__doc__ or "").strip().partition("\n")[0]
        TABLE.append(Route(method, path, does, handler, **rest))
        return handler

    return put


class Router:
    """Finds the route of a request in the table."""

    def __init__(self, table: Sequence[Route]) -> None:
        self._by_length: dict[int, list[Route]] = {}
        for each in table:
            self._by_length.setdefault(len(each.segments), []).append(each)
        for routes in self._by_length.values():
            # A word goes before a parameter: `entries/batch` is not an entry's id.
            routes.sort(key=lambda each: [part.startswith("{") for part in each.segments])

    def find(self, method: str, raw_path: bytes) -> tuple[Route, dict[str, str]]:
        """Return the route of a path as it was sent, and the path's parameters.

        A slash inside of a parameter is sent as `%2F`, so the path is cut before it is decoded.

        Raises:
            Refused: no route has this path, or the method.
        """
        try:
            given = [unquote_to_bytes(each).decode() for each in raw_path.split(b"/")[1:]]
        except UnicodeDecodeError:
            raise refused("MalformedRequest", "the path is not UTF-8, percent-encoded") from None
        others: list[str] = []
        for each in self._by_length.get(len(given), ()):
            found = _matched(each, given)
            if found is None:
                continue
            if each.method == method:
                return each, found
            others.append(each.method)
        shown = raw_path.decode("ascii", "replace")[:200]
        if others:
            allowed = ", ".join(sorted(set(others)))
            raise refused(
                "MethodNotAllowed", f"{shown} takes {allowed}, not {method[:20]}", allowed=allowed
            )
        raise refused(
            "NoSuchRoute", f"there is no route {shown}; GET /v1/openapi.json lists them all"
        )


def _matched(route: Route, given: Sequence[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for wanted, part in zip(route.segments, given, strict=True):
        if wanted.startswith("{"):
            if not part:
                return None
            found[wanted[1:-1]] = part
        elif wanted != part:
            return None
    return found
