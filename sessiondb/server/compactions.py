"""The routes of compactions: begin, renew, commit, fail. Nothing is locked between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from sessiondb import errors
from sessiondb.errors import CompactionRunning
from sessiondb.json_text import dumps
from sessiondb.models import CompactionInfo, CompactionResult
from sessiondb.transcript import compaction
from sessiondb.transcript.compaction_job import CompactionJob

from . import bodies
from .queue import Renewed
from .table import Call, route

TAG = "compactions"
_CLIENTS_MAX: Final = 10_000
"""Jobs whose client is known. Of an older one nobody takes his own over: its lease ends it."""


@dataclass(frozen=True, slots=True)
class BegunCompaction:
    """A compaction that runs, and what is to be summarised."""

    compaction_id: str
    session_id: str
    base_epoch: int
    tokens_before: int
    keeps_all: bool
    """True: all of the context stays, because it still waits for an answer."""
    expires_at_ms: int
    messages: list[dict[str, Any]]
    """The previous summary, if any, then all up to the cut: cut out of the stored bytes."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Whether a compaction ran, and was given up by this call."""

    compaction_id: str
    recorded: bool


@dataclass(frozen=True, slots=True)
class Compactions:
    """Compactions of a session, newest first."""

    compactions: tuple[CompactionInfo, ...]


@route(
    "POST",
    "/v1/sessions/{session}/compactions",
    body=bodies.BeginCompaction,
    answer=BegunCompaction,
    errors=(
        errors.NotFound,
        errors.SessionEnded,
        errors.CompactionRunning,
        errors.CompactionCoolDown,
        errors.NothingToCompact,
    ),
    status=201,
    tag=TAG,
)
async def begin_compaction(call: Call) -> Response:
    """Begin a compaction, and return what to summarise. A client's own job is begun anew."""
    asked = call.body(bodies.BeginCompaction)
    session = await call.session()
    clients = call.state.clients

    def job() -> CompactionJob:
        return session.compact(
            trigger=asked.trigger,
            keep_recent_tokens=asked.keep_recent_tokens,
            threshold_tokens=asked.threshold_tokens,
            timeout_s=asked.lease_s,
        )

    try:
        begun = await job().begin()
    except CompactionRunning as running:
        if clients.get(running.compaction_id) != asked.client_id:
            raise
        await call.db.fail_compaction(
            running.compaction_id, "its client began it anew", state="abandoned"
        )
        begun = await job().begin()
    clients[begun.id] = asked.client_id
    if len(clients) > _CLIENTS_MAX:
        del clients[next(iter(clients))]
    head = dumps(
        {
            "compaction_id": begun.id,
            "session_id": session.id,
            "base_epoch": begun.base_epoch,
            "tokens_before": begun.tokens_before,
            "keeps_all": begun.keeps_all,
            "expires_at_ms": begun.deadline_ms,
        }
    )
    text = head[:-1].encode() + b',"messages":' + begun.as_json() + b"}"
    return Response(text, 201, media_type="application/json")


@route(
    "GET",
    "/v1/sessions/{session}/compactions",
    query=bodies.CompactionsQuery,
    answer=Compactions,
    errors=(errors.NotFound,),
    tag=TAG,
)
async def list_compactions(call: Call) -> Compactions:
    """List the compactions of a session, newest first."""
    limit, session_no = (
        call.query(bodies.CompactionsQuery).limit,
        (await call.session()).ref.session_no,
    )
    found, _ = await call.db.read(
        "compactions", lambda tx: compaction.page(tx, None, limit, session_no=session_no)
    )
    return Compactions(tuple(found))


@route(
    "POST",
    "/v1/compactions/{compaction_id}/renew",
    body=bodies.RenewCompaction,
    answer=Renewed,
    errors=(errors.NotFound, errors.CompactionRefused),
    tag=TAG,
)
async def renew_compaction(call: Call) -> Renewed:
    """Renew a compaction's lease. May be repeated."""
    lease_s = call.body(bodies.RenewCompaction).lease_s
    return Renewed(await call.db.renew_compaction(call.path["compaction_id"], timeout_s=lease_s))


@route(
    "POST",
    "/v1/compactions/{compaction_id}/commit",
    body=bodies.CommitCompaction,
    answer=CompactionResult,
    errors=(errors.NotFound,),
    tag=TAG,
)
async def commit_compaction(call: Call) -> CompactionResult:
    """Commit a summary, in time or late. The same id always gets the same answer."""
    asked, compaction_id = call.body(bodies.CommitCompaction), call.path["compaction_id"]
    found = await call.db.commit_compaction(compaction_id, asked.summary, details=asked.details)
    call.state.clients.pop(compaction_id, None)
    return found


@route(
    "POST",
    "/v1/compactions/{compaction_id}/fail",
    body=bodies.FailCompaction,
    answer=Failed,
    tag=TAG,
)
async def fail_compaction(call: Call) -> Failed:
    """Give a compaction up. A commit that comes later is still reconciled. May be repeated."""
    asked, compaction_id = call.body(bodies.FailCompaction), call.path["compaction_id"]
    recorded = await call.db.fail_compaction(compaction_id, asked.reason, state=asked.state)
    call.state.clients.pop(compaction_id, None)
    return Failed(compaction_id, recorded)
