"""The words of states, reasons and kinds, as types.

Those that a column holds are in the rules of `schema.sql`, too. `statements.pyi` has them from
there, so mypy compares the two.
"""

from __future__ import annotations

from typing import Literal

Audience = Literal["operator", "user"]
"""Whom an event is for."""

CompactionOutcome = Literal["committed", "superseded", "rejected"]
"""What a commit of a compaction came to."""

CompactionState = Literal[
    "running",
    "committed",
    "superseded",
    "rejected",
    "failed",
    "cancelled",
    "expired",
    "abandoned",
]
"""The state of a compaction: it runs, a commit ended it, or it was given up."""

Cut = Literal["rows", "bytes"]
"""The bound at which the answer to a query was cut."""

EpochReason = Literal["start", "compaction", "reset", "branch", "undo", "fork", "edit"]
"""Why an epoch of a context began."""

EventKind = Literal[
    "backup_restored",
    "compaction_committed",
    "compaction_failed",
    "compaction_late",
    "compaction_rejected",
    "compaction_started",
    "compaction_superseded",
    "crash_loop",
    "lane_changed",
    "message_dead",
    "message_delayed",
    "message_superseded",
    "message_withdrawn",
    "recovery_done",
    "reply_delayed",
    "reply_failed",
    "reply_sent",
    "reply_unknown",
    "retention_done",
    "session_ended",
    "session_reset",
    "session_restored",
    "turn_aborted",
    "turn_completed",
    "turn_failed",
    "turn_incomplete",
    "turn_interrupted",
    "turn_started",
]
"""What an event reports."""

ExportFormat = Literal["transcript", "html", "markdown", "csv", "ndjson", "parquet"]
"""How an export writes a session. `transcript` is what pi and OpenClaw read, and an import."""

ExportStatus = Literal["written", "unchanged", "refused", "failed"]
"""What an export did with a file."""

FileStatus = Literal[
    "imported", "unchanged", "grown", "changed", "skipped", "foreign", "failed", "would-import"
]
"""What an import did with a file."""

MessageFormat = Literal["pi", "openai-chat", "openai-responses", "anthropic"]
"""The message format of a session: how its items look, and those of its context."""

MessageState = Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
"""The state of an accepted message."""

Origin = Literal["native", "import", "fork"]
"""Where a session comes from."""

ReplyState = Literal["pending", "sending", "unknown", "failed", "sent"]
"""The state of a reply in the outbox."""

SourceVerdict = Literal["equal", "kept", "differs", "not-imported", "would-import"]
"""What a migration found of a source."""

TurnState = Literal["running", "completed", "failed", "aborted", "interrupted"]
"""The state of a turn."""
