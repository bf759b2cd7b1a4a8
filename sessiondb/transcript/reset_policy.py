"""When a conversation is stale: daily and idle resets.

A conversation *began* with its session, its last reset or its fork, and was last *heard of* when a
person's message was appended. A daily policy makes it stale when the chosen hour of the local day
has passed since it began. An idle policy does so when no person has been heard for so long. With
both, the first one counts. Entries that programs append (replies, tool results, messages of lane
`cron`) keep no conversation alive, and a compaction begins none.

`reset_due` is arithmetic over four times, without a database and without a clock. `reset_if_due`
calls it and resets in one transaction, so two processes that call it at once reset once. It is
meant for the moment before a message is accepted. It resets no conversation in which a turn runs,
or messages wait or were interrupted: their answers would lose their questions.

The local day is that of `time_zone`, by default the machine's. Where a clock change skips the
hour, the day turns when the hour would have come by the clock before the change. Where it repeats
the hour, the day turns at the first of the two.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sessiondb.backend import ReadTx, Tx
from sessiondb.clock import iso_from_ms

from . import registry
from .keys import SessionKey
from .state import load_state

ResetMode = Literal["none", "daily", "idle"]
"""When a conversation is stale: never, at an hour of each day, or after a silence."""
ConversationKind = Literal["direct", "group", "thread"]
"""What kind of conversation a key stands for."""
StaleReason = Literal["daily", "idle"]
"""The rule by which a conversation is stale."""


class ResetPolicy(BaseModel):
    """When a conversation begins anew. `by_channel` precedes `by_type`, and both the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: ResetMode = "none"
    """`daily` resets at `at_hour`, and after `idle_minutes` if given. `idle`: only after those."""
    at_hour: int = Field(default=4, ge=0, le=23)
    """The hour of the local day at which a new conversation begins."""
    idle_minutes: float | None = Field(default=None, gt=0)
    time_zone: str | None = None
    """An IANA name such as `Europe/Vienna`. None: the machine's local time."""
    by_type: dict[ConversationKind, ResetPolicy] = Field(default_factory=dict)
    by_channel: dict[str, ResetPolicy] = Field(default_factory=dict)

    @field_validator("time_zone")
    @classmethod
    def _time_zone_exists(cls, name: str | None) -> str | None:
        try:
            return name if name is None else ZoneInfo(name).key
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(
                f"there is no time zone {name!r} on this machine; "
                "a name such as Europe/Vienna, or install tzdata"
            ) from error

    @model_validator(mode="after")
    def _idle_has_minutes(self) -> ResetPolicy:
        if self.mode == "idle" and self.idle_minutes is None:
            raise ValueError("mode idle needs idle_minutes")
        return self

    def for_key(self, key: SessionKey) -> ResetPolicy:
        """Return the policy of a conversation: its channel's, its type's, or this one."""
        channel = channel_of(key)
        if channel is not None and channel in self.by_channel:
            return self.by_channel[channel]
        return self.by_type.get(conversation_of(key), self)


def conversation_of(key: SessionKey) -> ConversationKind:
    """Return which of the three types of conversation a key addresses."""
    kind = key.kind
    if kind == "thread":
        return "thread"
    return "group" if kind in ("group", "channel", "room") else "direct"


def channel_of(key: SessionKey) -> str | None:
    """Return the channel that a key names, if any: `discord` in `agent:main:discord:channel:1`."""
    parts = key.rest.split(":")
    names_one = len(parts) >= 3 and {"direct", "group", "channel", "room"} & set(parts[1:3])
    return parts[0] if names_one else None


# -- the rule --------------------------------------------------------------------------


def reset_due(
    policy: ResetPolicy, *, began_at_ms: int, heard_at_ms: int, now_ms: int
) -> StaleReason | None:
    """Return the rule by which a conversation is stale at a given time. None if it is fresh.

    Pure. Pass the policy that holds for the conversation (`ResetPolicy.for_key`). If both rules
    hold, it is `daily`.
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
    # Without a zone the times are naive, and Python applies the machine's rules to each of them.
    now = datetime.fromtimestamp(now_ms / 1000, zone)
    began = now.replace(hour=policy.at_hour, minute=0, second=0, microsecond=0, fold=0)
    began_ms = round(began.timestamp() * 1000)
    if began_ms > now_ms:
        began_ms = round((began - timedelta(days=1)).timestamp() * 1000)
    return began_ms


# -- in the database -------------------------------------------------------------------


def stale(tx: ReadTx, key: SessionKey, policy: ResetPolicy, now_ms: int) -> StaleReason | None:
    """Return the rule by which a key's conversation is stale and may be reset, or None.

    Changes nothing.
    """
    bound = registry.find(tx, key)
    if bound is None or bound.ended_at_ms is not None or policy.mode == "none":
        return None
    session_no = bound.session_no
    state = load_state(tx, session_no)
    began = tx.one("registry.began", session_no=session_no)
    is_empty = state.head_no is None or state.head_no == began.boundary_no
    if is_empty or tx.first("inbox.open_in_session", session_no=session_no) is not None:
        return None
    heard_at_ms = state.heard_at_ms if state.heard_at_ms is not None else began.opened_at_ms
    return reset_due(policy, began_at_ms=began.opened_at_ms, heard_at_ms=heard_at_ms, now_ms=now_ms)


def reset_if_due(tx: Tx, key: SessionKey, policy: ResetPolicy) -> StaleReason | None:
    """Reset a key's conversation if it is stale. Return by which rule, or None. May be repeated."""
    reason = stale(tx, key, policy, tx.stamp_ms)
    if reason is not None:
        bound = registry.take_over(tx, key)
        assert bound is not None, "it was stale in this transaction"
        registry.reset(
            tx, bound.session_no, reason=reason, keep_from=None, timestamp=iso_from_ms(tx.stamp_ms)
        )
    return reason
