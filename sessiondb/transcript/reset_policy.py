"""When a conversation is stale: daily and idle resets.

A conversation *began* with its session, its last reset or its fork, and was last *heard of* when a person's message was
appended. A daily policy makes it stale when the chosen hour of the local day has passed since it began, an idle
policy when nobody has been heard for so long; with both, whichever comes first. What the machinery appends by
itself (replies, tool results, messages of lane `cron`) keeps nothing alive, and a compaction begins nothing.

Whether something is stale is arithmetic over four times, without a database and without a clock (`reset_due`).
`reset_if_due` asks it and resets in one transaction, so two processes that ask at once reset once. It is meant for the
moment before a message is accepted, and leaves a conversation alone in which a turn runs or messages wait: their
answers would lose their questions.

The local day is that of `time_zone`, by default the machine's. Where a clock change skips the hour, the day turns when
the hour would have come by the clock before the change; where it repeats the hour, at the first of the two.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sessiondb.backend import ReadTx, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.limits import SEQ_BITS, SEQ_MAX

from . import append, registry
from .keys import SessionKey

Mode = Literal["none", "daily", "idle"]
Conversation = Literal["direct", "group", "thread"]
StaleReason = Literal["daily", "idle"]

# How far back the last message of a person is looked for; behind that, the conversation counts as silent since it began.
_LOOK_BACK_ROWS = 1_000


class ResetPolicy(BaseModel):
    """When a conversation is to begin anew. `by_channel` goes before `by_type`, and both before the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "none"
    """`daily` resets at `at_hour`, and after `idle_minutes` too if they are given; `idle` only after those."""
    at_hour: int = Field(default=4, ge=0, le=23)
    """The hour of the local day at which a new one begins."""
    idle_minutes: float | None = Field(default=None, gt=0)
    time_zone: str | None = None
    """An IANA name such as `Europe/Vienna`; None: the machine's local time."""
    by_type: dict[Conversation, ResetPolicy] = Field(default_factory=dict)
    by_channel: dict[str, ResetPolicy] = Field(default_factory=dict)

    @field_validator("time_zone")
    @classmethod
    def _time_zone_exists(cls, name: str | None) -> str | None:
        try:
            return name if name is None else ZoneInfo(name).key
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(
                f"there is no time zone {name!r} on this machine; a name such as Europe/Vienna, or install tzdata"
            ) from error

    @model_validator(mode="after")
    def _idle_says_how_long(self) -> ResetPolicy:
        if self.mode == "idle" and self.idle_minutes is None:
            raise ValueError("mode idle needs idle_minutes")
        return self

    def for_key(self, key: SessionKey) -> ResetPolicy:
        """Return the policy that holds for a conversation: its channel's, its type's, or this one."""
        channel = channel_of(key)
        if channel is not None and channel in self.by_channel:
            return self.by_channel[channel]
        return self.by_type.get(conversation_of(key), self)


def conversation_of(key: SessionKey) -> Conversation:
    """Say which of the three types of conversation a key addresses."""
    kind = key.kind
    return (
        "thread"
        if kind == "thread"
        else "group"
        if kind in ("group", "channel", "room")
        else "direct"
    )


def channel_of(key: SessionKey) -> str | None:
    """Return the channel that a key names (`discord` in `agent:main:discord:channel:1`), if it names one."""
    parts = key.rest.split(":")
    return (
        parts[0]
        if len(parts) >= 3 and {"direct", "group", "channel", "room"} & set(parts[1:3])
        else None
    )


# -- the rule -----------------------------------------------------------------------------------------------


def reset_due(
    policy: ResetPolicy, *, began_at_ms: int, heard_at_ms: int, now_ms: int
) -> StaleReason | None:
    """Say whether a conversation is stale at a given time, and by which rule; None if it is fresh.

    Pure. Pass the policy that holds for the conversation (`ResetPolicy.for_key`). If both rules hold it is `daily`.
    """
    if policy.mode == "none":
        return None
    if policy.mode == "daily" and began_at_ms < day_began_at_ms(policy, now_ms):
        return "daily"
    if (
        policy.idle_minutes is not None
        and now_ms - max(heard_at_ms, began_at_ms) > policy.idle_minutes * 60_000
    ):
        return "idle"
    return None


def day_began_at_ms(policy: ResetPolicy, now_ms: int) -> int:
    """Return when the local day that holds now began, by the policy's hour and time zone."""
    zone = ZoneInfo(policy.time_zone) if policy.time_zone is not None else None
    # Without a zone the times are naive: Python then asks the machine's own rules about each of them, not about now.
    now = datetime.fromtimestamp(now_ms / 1000, zone)
    began = now.replace(hour=policy.at_hour, minute=0, second=0, microsecond=0, fold=0)
    began_ms = round(began.timestamp() * 1000)
    if began_ms > now_ms:
        began_ms = round((began - timedelta(days=1)).timestamp() * 1000)
    return began_ms


# -- in the database ----------------------------------------------------------------------------------------


def stale(tx: ReadTx, key: SessionKey, policy: ResetPolicy, now_ms: int) -> StaleReason | None:
    """Say whether a key's conversation is stale now and may be reset; changes nothing."""
    bound = tx.first("registry.by_key", session_key=key.text)
    if bound is None or bound.ended_at_ms is not None or policy.mode == "none":
        return None
    session_no = bound.session_no
    state = append.load_state(tx, session_no)
    began = tx.one("registry.began", session_no=session_no)
    nothing_said = state.head_no is None or state.head_no == began.boundary_no
    if nothing_said or tx.one("inbox.waiting_in_session", session_no=session_no, limit=1).waiting:
        return None
    first_no = session_no << SEQ_BITS
    heard = tx.first(
        "registry.heard", low_no=first_no, high_no=first_no + SEQ_MAX, limit=_LOOK_BACK_ROWS
    )
    heard_at_ms = heard.appended_at_ms if heard is not None else began.opened_at_ms
    return reset_due(policy, began_at_ms=began.opened_at_ms, heard_at_ms=heard_at_ms, now_ms=now_ms)


def reset_if_due(tx: Tx, key: SessionKey, policy: ResetPolicy) -> StaleReason | None:
    """Reset a key's conversation if it is stale; return by which rule, or None. May be repeated."""
    reason = stale(tx, key, policy, tx.now_ms)
    if reason is not None:
        session_no = tx.one("registry.by_key", session_key=key.text).session_no
        registry.reset(
            tx, session_no, reason=reason, keep_from=None, timestamp=iso_from_ms(tx.now_ms)
        )
    return reason
