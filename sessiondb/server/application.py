"""From a request to its route, and from what the route returns to bytes.

A request is refused in this order: who asks (TCP), which route, what it says. Nothing has been
read of its body until the first two are decided.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from sessiondb import threads
from sessiondb.database import SessionDB
from sessiondb.errors import InvalidInput
from sessiondb.json_text import LINE_NESTING_MAX, DamagedLine, decode_object, dumps
from sessiondb.transcript.entries import LARGE_ITEM_CHARS
from sessiondb.waiter import Deadline

from .failures import RETRY_MS, plain, refused, response_to
from .state import State
from .table import Call, Route, Router

LOCAL: Final = "sessiondb.local"
"""In a request's scope: whether it came through the unix socket. TCP if it is not there."""
HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
# A message may be nested as deeply as a line of a transcript, and lies this deep in a body.
_LEVELS_MAX: Final = LINE_NESTING_MAX + 4
_FAULTS_SHOWN: Final = 5
_LARGE_ANSWER: Final = 200
"""Records of a list that take a thread to encode. A page of entries may have megabytes."""


class ClientGone(Exception):
    """The client has closed its connection, so nobody waits for an answer."""


class Application:
    """The ASGI application of one server."""

    def __init__(self, db: SessionDB, state: State, table: list[Route]) -> None:
        self._db = db
        self._state = state
        self._router = Router(table)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        with self._counted() as taken:
            try:
                response = await self._answer(Request(scope, receive), taken)
            except ClientGone:
                return
            except Exception as error:  # noqa: BLE001  each becomes an answer, or a line of the log
                response = response_to(error)
        await response(scope, receive, send)

    @contextmanager
    def _counted(self) -> Iterator[list[int]]:
        """Count the bytes of a body while it is received and worked on."""
        taken: list[int] = []
        try:
            yield taken
        finally:
            self._state.body_bytes -= sum(taken)

    async def _answer(self, request: Request, taken: list[int]) -> Response:
        self._check_sender(request)
        route, path = self._router.find(request.method, request.scope["raw_path"])
        if self._state.stopping:
            raise refused(
                "ServerBusy",
                "the server stops; connect again when it has been started",
                retry_after_ms=RETRY_MS,
            )
        query = _query(request, route)
        body = await self._body(request, route, taken)
        call = Call(self._db, self._state, request, path, query, body)
        return await _response(route, await route.handler(call))

    def _check_sender(self, request: Request) -> None:
        """Let the unix socket's clients in: its folder is its owner's. Ask TCP's for the token.

        Raises:
            Refused: the token is missing or wrong, or a page of another site asks.
        """
        if request.scope.get(LOCAL) is True:
            return
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in HOSTS:
            raise refused(
                "WrongHost", f"the Host header is {host!r:.100}, and must name this machine"
            )
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        token = self._state.token
        if (
            token is None
            or scheme.lower() != "bearer"
            or not hmac.compare_digest(given.strip().encode(), token)
        ):
            raise refused(
                "Unauthorized",
                "send the token of the server's token file: Authorization: Bearer TOKEN",
            )

    async def _body(self, request: Request, route: Route, taken: list[int]) -> BaseModel | None:
        """Receive the body, count it, and check it.

        Raises:
            Refused: too large, too slow, too much with the others, or not one JSON object.
            InvalidInput: it has not what the route takes.
        """
        if route.body is None:
            return None
        received = await self._received(request, taken)
        if len(received) > LARGE_ITEM_CHARS:
            found = await threads.run(_decoded, received)
        else:
            found = _decoded(received)
        return _checked(route.body, found, "the body")

    async def _received(self, request: Request, taken: list[int]) -> bytes:
        bounds = self._state.bounds
        declared = request.headers.get("content-length", "")
        too_large = refused(
            "BodyTooLarge",
            f"the body has more than {bounds.body_bytes:,} bytes, which is all that one append "
            "may have; send less at once",
        )
        if declared.isdecimal() and int(declared[:20]) > bounds.body_bytes:
            raise too_large
        pieces: list[bytes] = []
        size = 0
        with Deadline(bounds.body_s) as deadline:
            while True:
                message: Message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece: bytes = message.get("body", b"")
                size += len(piece)
                if size > bounds.body_bytes:
                    raise too_large
                self._take(len(piece), taken)
                pieces.append(piece)
                if not message.get("more_body", False):
                    break
        if deadline.has_passed and (not pieces or message.get("more_body", False)):
            raise refused(
                "BodyTooSlow", f"the body did not arrive within {bounds.body_s:g} s; send it again"
            )
        return b"".join(pieces)

    def _take(self, count: int, taken: list[int]) -> None:
        """Count bytes that were received.

        Raises:
            Refused: those of all connections together are too many.
        """
        if self._state.body_bytes + count > self._state.bounds.bodies_bytes:
            raise refused(
                "ServerBusy",
                "too many bytes of requests are under way; send it again",
                retry_after_ms=RETRY_MS,
            )
        self._state.body_bytes += count
        taken.append(count)


def _decoded(text: bytes) -> dict[str, Any]:
    """Decode a body, or refuse it."""
    try:
        return decode_object(text.decode(), levels_max=_LEVELS_MAX)[0]
    except (UnicodeDecodeError, DamagedLine, ValueError, RecursionError) as error:
        raise refused(
            "MalformedRequest", f"the body is not one JSON object: {str(error)[:200]}"
        ) from None


def _query(request: Request, route: Route) -> BaseModel | None:
    given = request.query_params
    if route.query is None:
        if given:
            raise InvalidInput(f"this route takes no query parameter, and got {min(given)!r}")
        return None
    return _checked(route.query, dict(given), "the query")


def _checked(kind: type[BaseModel], found: dict[str, Any], what: str) -> BaseModel:
    """Return what was sent as its class.

    Raises:
        InvalidInput: it is not. The message names the fields.
    """
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        named = [f"{'.'.join(map(str, fault['loc'])) or what}: {fault['msg']}" for fault in faults]
        shown = "; ".join(named[:_FAULTS_SHOWN])
        raise InvalidInput(f"{what} is not what this route takes ({shown})") from None


async def _response(route: Route, found: Any) -> Response:
    """Encode what a route returned. A long list in a thread, because it takes long."""
    if isinstance(found, Response):
        return found
    text = await threads.run(_encoded, found) if _is_large(found) else _encoded(found)
    return Response(text, route.status, media_type="application/json")


def _encoded(found: Any) -> str:
    return dumps(plain(found))


def _is_large(found: Any) -> bool:
    """Tell whether a page is long, or its texts are."""
    for name in ("entries", "hits", "sessions"):
        page = getattr(found, name, None)
        if isinstance(page, tuple):
            size = sum(len(getattr(each, "payload", "")) for each in page)
            return len(page) > _LARGE_ANSWER or size > LARGE_ITEM_CHARS
    return False


async def wait_gone(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        await anyio.lowlevel.checkpoint()
