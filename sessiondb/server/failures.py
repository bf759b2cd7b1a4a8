"""Every error as an HTTP status, and as one JSON object: what a client is told.

The object is the same for errors of the library, of a request, and of this program:

    type             the name of the class, for programs
    message          what happened, to which session or file, and what to do next
    retry_after_ms   when the same request may succeed. null: not by itself
    outcome          of a write: "not_executed", "committed", "unknown"
    data             what the message names, for programs
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any, Final

from starlette.responses import Response

from sessiondb import errors
from sessiondb.errors import SessionDBError, outcome_of
from sessiondb.json_text import dumps

logger = logging.getLogger("sessiondb")

# A class is listed although its base has the same status: a test wants each of them, so that a
# new error is given its status by a person.
STATUS: Final[dict[type[SessionDBError], int]] = {
    SessionDBError: 500,
    errors.StoreBusy: 503,
    errors.SessionBusy: 503,
    errors.TurnLost: 409,
    errors.StrayCancellation: 500,
    errors.NotExecuted: 503,
    errors.OutcomeUnknown: 500,
    errors.StoreClosed: 503,
    errors.StoreFull: 507,
    errors.StoreFailed: 500,
    errors.StoreDamaged: 500,
    errors.SearchDamaged: 500,
    errors.StoreReadOnly: 403,
    errors.ReadTooLong: 422,
    errors.ConstraintFailed: 409,
    errors.OpenError: 500,
    errors.NotASessionDB: 500,
    errors.NewerSchema: 500,
    errors.UnsafeFilesystem: 500,
    errors.UnsafeSQLite: 500,
    errors.NotFound: 404,
    errors.HeadMoved: 409,
    errors.DetailsChanged: 409,
    errors.InvalidInput: 422,
    errors.InvalidKey: 422,
    errors.IdentityConflict: 409,
    errors.PartlyStored: 409,
    errors.SessionEnded: 409,
    errors.SessionArchived: 409,
    errors.CompactionRefused: 409,
    errors.CompactionRunning: 409,
    errors.CompactionCoolDown: 409,
    errors.NothingToCompact: 409,
    errors.NothingToUndo: 409,
    errors.CompactionTimeout: 409,
}

RETRY_MS: Final = 1_000
"""When to try again after an error that says so without a time: a full disk, a closing server."""


class Refused(Exception):
    """A request that no route takes: it never reached the database."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        retry_after_ms: int | None,
        allowed: str | None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.allowed = allowed
        """The methods that the path has, if it has another one. RFC 9110 wants them in a header."""


REFUSALS: Final[dict[str, tuple[int, str]]] = {
    "MalformedRequest": (400, "The body is not one JSON object, or the path is no path."),
    "Unauthorized": (401, "TCP only: the token is missing or wrong."),
    "WrongHost": (403, "TCP only: the Host header names another machine."),
    "NoSuchRoute": (404, "No route has this path."),
    "MethodNotAllowed": (405, "The route has other methods."),
    "BodyTooSlow": (408, "The body did not arrive in time."),
    "BodyTooLarge": (413, "The body has more bytes than the server takes."),
    "InternalError": (500, "A bug. The server's log has the traceback."),
    "ServerBusy": (503, "Too many bytes of bodies are under way, or the server stops."),
}
"""The refusals of this program, by type: the status, and what it means."""


def refused(
    kind: str, message: str, *, retry_after_ms: int | None = None, allowed: str | None = None
) -> Refused:
    """Return a refusal of one of the known types."""
    return Refused(REFUSALS[kind][0], kind, message, retry_after_ms=retry_after_ms, allowed=allowed)


def status_of(error: SessionDBError) -> int:
    """Return the status of an error: that of its class, or of the nearest base that has one."""
    return next(STATUS[base] for base in type(error).__mro__ if base in STATUS)


def response_to(error: Exception) -> Response:
    """Return what a client is told of an error. Log it if the client can do nothing about it."""
    if isinstance(error, Refused):
        headers = {"connection": "close"} if error.status in (408, 413) else {}
        if error.allowed is not None:
            headers["allow"] = error.allowed
        return _response(
            error.status,
            error.kind,
            error.message,
            retry_after_ms=error.retry_after_ms,
            outcome="not_executed",
            data={},
            headers=headers,
        )
    if isinstance(error, SessionDBError):
        status = status_of(error)
        if status >= 500 and not error.retry:
            logger.error("serve: %s: %s", type(error).__name__, error)
        return _response(
            status,
            type(error).__name__,
            error.message,
            retry_after_ms=_retry_after_ms(error),
            outcome=outcome_of(error),
            data=_data(error),
            headers={},
        )
    logger.error("serve: a bug: %r", error, exc_info=error)
    return _response(
        500,
        "InternalError",
        "the server met a bug, and its log has the traceback. Whether a write was executed is "
        "not known: repeat it with the same idempotency key, or read again",
        retry_after_ms=None,
        outcome="unknown",
        data={},
        headers={},
    )


def _retry_after_ms(error: SessionDBError) -> int | None:
    after_ms: int | None = getattr(error, "retry_after_ms", None)
    return RETRY_MS if after_ms is None and error.retry else after_ms


def _data(error: SessionDBError) -> dict[str, Any]:
    """Return what an error names, as far as it applies."""
    found = {
        field.name: getattr(error, field.name, None)
        for field in dataclasses.fields(error)
        if field.name not in ("message", "retry_after_ms")
    }
    return {name: plain(value) for name, value in found.items() if value is not None}


def plain(value: Any) -> Any:
    """Return a value as JSON has it. A record is an object of its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    return value


def _response(
    status: int,
    kind: str,
    message: str,
    *,
    retry_after_ms: int | None,
    outcome: str | None,
    data: dict[str, Any],
    headers: dict[str, str],
) -> Response:
    told = {
        "type": kind,
        "message": message,
        "retry_after_ms": retry_after_ms,
        "outcome": outcome,
        "data": data,
    }
    if retry_after_ms is not None and status in (503, 507):
        headers = {**headers, "retry-after": str(max(1, math.ceil(retry_after_ms / 1000)))}
    if status == 401:
        headers = {**headers, "www-authenticate": "Bearer"}
    return Response(dumps(told), status, headers, "application/json")
