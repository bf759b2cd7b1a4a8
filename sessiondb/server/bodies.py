"""What a request may say: bodies and queries, each a class that the document shows.

They say what has which type. What a value may be is the library's to say, in its own words.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sessiondb.gateway.running_turn import Answer
from sessiondb.limits import (
    APPEND_ENTRIES_MAX,
    KEEP_RECENT_TOKENS,
    PAGE_ENTRIES_MAX,
    SEARCH_HITS_MAX,
)
from sessiondb.models import ANY_HEAD, ExpectedHead
from sessiondb.transcript.entries import Item
from sessiondb.words import Audience, MessageFormat

from .state import WAIT_S_MAX

Number = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Body(BaseModel):
    """A JSON object. A field that is not known is refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Query(BaseModel):
    """The parameters of a path's query. Texts, so numbers are read from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


MessageOrText = Annotated[
    dict[str, Any] | str,
    Field(
        description="A message (with a role) or an entry (with a type). As an object, or as its "
        "JSON text, which is stored byte by byte."
    ),
]


class Append(Body):
    """One item to append."""

    item: MessageOrText
    idempotency_key: str | None = None
    """Repeated with it, the item is not stored a second time."""
    asked_epoch: Number | None = None
    """The epoch of the context that a reply was asked for with, if it has a count of tokens."""


class BatchItem(Body):
    """One of several items."""

    item: MessageOrText
    idempotency_key: str | None = None
    at_ms: Number | None = None
    """When it was said, if that was not now."""

    def taken(self) -> Item:
        """Return it as the library takes it."""
        return Item(self.item, key=self.idempotency_key, at_ms=self.at_ms)


class AppendBatch(Body):
    """Several items, in one transaction."""

    items: list[BatchItem] = Field(max_length=APPEND_ENTRIES_MAX)
    expect_head: str | None = Field(
        default=None,
        description="Append only if this entry's id is the head. null: if there is no entry yet. "
        "Left out: whatever the head is.",
    )
    all_or_nothing: bool = False
    asked_epoch: Number | None = None

    @property
    def expected(self) -> ExpectedHead:
        """The head that the client expects. One that it left out is not null."""
        return self.expect_head if "expect_head" in self.model_fields_set else ANY_HEAD


class OpenSession(Body):
    """Which session: by a key, by a foreign id, or a new one."""

    key: str | None = None
    namespace: str | None = None
    external_id: str | None = None
    session_id: str | None = None
    """Of a new session that no key points at."""
    create: bool = True
    """False: nothing is made, and a session that is not there is a 404."""
    agent_id: str | None = None
    cwd: str | None = None
    format: MessageFormat | None = None


class SessionsQuery(Query):
    """Which sessions, and which page of them."""

    cursor: str | None = None
    """`next` of the page before."""
    limit: int = Field(default=100, ge=1, le=1_000)
    agent_id: str | None = None
    namespace: str | None = None
    key_prefix: str | None = None
    updated_before: int | None = None
    with_ended: bool = False
    newest_first: bool = True


class EntriesQuery(Query):
    """Which entries of the current path."""

    after: int | None = None
    before: int | None = None
    limit: int = Field(default=100, ge=1, le=PAGE_ENTRIES_MAX)
    newest_first: bool = False
    types: str | None = None
    """Types of entries, with commas between them."""


class ContextQuery(Query):
    """Which context."""

    epoch: int | None = None
    last: int | None = None
    raw: bool = False


class SearchQuery(Query):
    """What to search for, and where."""

    words: str
    session: str | None = None
    agent_id: str | None = None
    role: str | None = None
    since_ms: int = 0
    before: int | None = None
    limit: int = Field(default=20, ge=1, le=SEARCH_HITS_MAX)


class StatusQuery(Query):
    """How much of the status."""

    counts: bool = False


class Accept(Body):
    """A message from a channel."""

    key: str
    message: MessageOrText
    channel: str
    event_id: str
    """The channel's own id of it: the same one again is the same message."""
    lane: str = "main"
    by_person: bool | None = None
    answer: bool = True
    """False: it is heard, and not answered."""
    details: dict[str, Any] | None = None
    """For the worker and the sender, and never for a model."""


class Edit(Body):
    """A new text of a message that was accepted."""

    key: str
    message: MessageOrText
    channel: str
    event_id: str
    version: Number
    details: dict[str, Any] | None = None


class Withdraw(Body):
    """A message that its sender took back."""

    channel: str
    event_id: str


class WaitQuery(Query):
    """How long to wait."""

    wait_s: float = Field(default=0, ge=0, le=WAIT_S_MAX, allow_inf_nan=False)


class ClaimTurn(Body):
    """How to claim a turn."""

    lease_s: Seconds = 30.0
    """Renew it, or end the turn, before this has passed."""
    timeout_s: Seconds = 600.0
    """The turn's time: its lease cannot be renewed past it."""
    wait_s: float = Field(default=0, ge=0, le=WAIT_S_MAX, allow_inf_nan=False)
    """How long to wait for a message, if none waits."""
    claim_id: str | None = None
    """An id of this claim. Repeated with it, the claim takes again what it took."""


class RenewTurn(Body):
    """A turn that its worker still works on."""

    lease_s: Seconds = 30.0
    operation: str | None = None
    """What it is doing, for an operator."""


class NoteTurn(Body):
    """JSON for whoever takes the message over."""

    details: Any


class TurnReply(Body):
    """A reply of a turn, for the outbox."""

    target: str
    """The channel and the address: `telegram:42`. The channel ends at the first colon."""
    message: Any


class CompleteTurn(Body):
    """What a turn came to."""

    entries: list[BatchItem] = Field(default=[], max_length=APPEND_ENTRIES_MAX)
    replies: list[TurnReply] = Field(default=[], max_length=APPEND_ENTRIES_MAX)
    incomplete: str | None = None
    """Why there is no usable answer."""
    asked_epoch: Number | None = None

    def answer(self) -> Answer:
        """Return it as the library takes it."""
        return Answer(
            entries=[each.taken() for each in self.entries],
            replies=[(each.target, each.message) for each in self.replies],
            incomplete=self.incomplete,
        )


class FailTurn(Body):
    """A turn that failed."""

    reason: str
    retry: bool = True
    """False: the message is given up at once."""


class ReleaseTurn(Body):
    """A turn that its worker gives back."""

    reason: str = "its worker stopped"


class SetLane(Body):
    """The limits of a lane."""

    concurrency: Number
    priority: int = Field(ge=-(2**63), lt=2**63)
    people: bool | None = None


class ClaimReply(Body):
    """How to claim a reply."""

    lease_s: Seconds = 30.0
    """Say how it ended before this has passed, or nobody knows whether it was sent."""
    full: list[str] = Field(default=[], max_length=100)
    """Channels of which none is taken now."""
    wait_s: float = Field(default=0, ge=0, le=WAIT_S_MAX, allow_inf_nan=False)
    claim_id: str | None = None
    """An id of this claim. Repeated with it, the claim takes again what it took."""


class ReplySent(Body):
    """A reply that its channel took."""

    attempt: Number
    """`attempts` of the reply, as it was claimed."""
    receipt: str | None = None
    """The channel's own id of it."""


class ReplyRefused(Body):
    """A reply that its channel did not send, for certain."""

    attempt: Number
    reason: str
    retry: bool = True
    retry_after_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """The channel said how long to wait."""


class SettleReply(Body):
    """What an operator decided about a reply that nobody knows about."""

    state: Literal["sent", "pending"]


class BeginCompaction(Body):
    """How to begin a compaction."""

    client_id: str = Field(min_length=1, max_length=255)
    """Who asks. A client that lost its job, or the answer, begins anew under the same name."""
    lease_s: Seconds = 60.0
    """Renew it, or commit, before this has passed. It can be renewed to ten times this."""
    trigger: str = "manual"
    keep_recent_tokens: Number = KEEP_RECENT_TOKENS
    threshold_tokens: Number | None = None


class RenewCompaction(Body):
    """A compaction whose summariser still works."""

    lease_s: Seconds = 60.0


class CommitCompaction(Body):
    """A summary."""

    summary: str
    details: Any = None


class FailCompaction(Body):
    """A compaction that is given up."""

    reason: str
    state: Literal["failed", "cancelled", "abandoned"] = "failed"


class CompactionsQuery(Query):
    """How many."""

    limit: int = Field(default=20, ge=1, le=1_000)


class EventsQuery(Query):
    """Which events."""

    audience: Audience | None = None
    after: int | None = Field(default=None, ge=0, lt=2**63)
    """Begin behind this event. `Last-Event-ID` goes before it. Without either: with the next."""
