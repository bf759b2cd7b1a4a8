"""What a request means that leaves a field out: clients rely on it."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel

from sessiondb.server import bodies

DEFAULTS: dict[str, dict[str, Any]] = {
    "Accept": {"lane": "main", "answer": True},
    "AppendBatch": {"all_or_nothing": False},
    "BeginCompaction": {"lease_s": 60.0, "trigger": "manual", "keep_recent_tokens": 20_000},
    "ClaimReply": {"lease_s": 30.0, "full": [], "wait_s": 0},
    "ClaimTurn": {"lease_s": 30.0, "timeout_s": 600.0, "wait_s": 0},
    "CompactionsQuery": {"limit": 20},
    "CompleteTurn": {"entries": [], "replies": []},
    "ContextQuery": {"raw": False},
    "EntriesQuery": {"limit": 100, "newest_first": False},
    "FailCompaction": {"state": "failed"},
    "FailTurn": {"retry": True},
    "OpenSession": {"create": True},
    "ReleaseTurn": {"reason": "its worker stopped"},
    "RenewCompaction": {"lease_s": 60.0},
    "RenewTurn": {"lease_s": 30.0},
    "ReplyRefused": {"retry": True},
    "SearchQuery": {"since_ms": 0, "limit": 20},
    "SessionsQuery": {"limit": 100, "with_ended": False, "newest_first": True},
    "StatusQuery": {"counts": False},
    "WaitQuery": {"wait_s": 0},
}
"""The fields that may be left out, by class. Those without a value are None, and not listed."""


def test_a_field_that_is_left_out_means_this() -> None:
    found: dict[str, dict[str, Any]] = {}
    for name, kind in inspect.getmembers(bodies, inspect.isclass):
        if issubclass(kind, BaseModel) and kind.__module__ == bodies.__name__:
            own = {field: kind.model_fields[field] for field in kind.__annotations__}
            values = {
                field: about.default for field, about in own.items() if not about.is_required()
            }
            if named := {field: value for field, value in values.items() if value is not None}:
                found[name] = named
    assert found == DEFAULTS
