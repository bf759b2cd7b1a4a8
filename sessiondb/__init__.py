"""sessiondb: durable conversation storage for agent gateways, in one SQLite database.

    async with sessiondb.open("gateway.db") as db:
        session = await db.session("agent:main:discord:channel:1")
        await session.append({"role": "user", "content": "hello"}, idempotency_key="discord:1:42")
        context = await session.context()

An append and a compaction are separate short transactions. A compaction commits its
summary and the next epoch atomically. No lock is held while a model thinks.
`sessiondb.sync` mirrors the API for scripts.

`import sessiondb` imports the errors, and what is done at the program's end. Every other name
is imported when it is first used, so that the command line prints its help without importing
the library.
"""

import importlib
import typing

from . import exits as exits
from .errors import (
    CompactionCoolDown,
    CompactionRefused,
    CompactionRunning,
    CompactionTimeout,
    ConstraintFailed,
    DetailsChanged,
    HeadMoved,
    IdentityConflict,
    InvalidInput,
    InvalidKey,
    NewerSchema,
    NotASessionDB,
    NotExecuted,
    NotFound,
    NothingToCompact,
    NothingToUndo,
    OpenError,
    OutcomeUnknown,
    PartlyStored,
    ReadTooLong,
    SearchDamaged,
    SessionArchived,
    SessionBusy,
    SessionDBError,
    SessionEnded,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreFailed,
    StoreFull,
    StoreReadOnly,
    StrayCancellation,
    TurnLost,
    UnsafeFilesystem,
    UnsafeSQLite,
    WriteOutcome,
    outcome_of,
)

if typing.TYPE_CHECKING:
    from .backend import Backend, ReadTx, Tx
    from .clock import Clock, Timer
    from .database import Durability, OpenOptions, SessionDB, open
    from .gateway.claims import TurnKind
    from .gateway.dispatcher import RefusedBySender, Sender
    from .gateway.recovery import Decision, Recovered, ResumeAction, ResumePolicy, SkipState
    from .gateway.running_turn import Answer, Ask, Asked, Handler, LaneSettings, Turn
    from .lifecycle import shared, temporary
    from .limits import Limits, RetryPauses
    from .maintenance.archive import Restored
    from .maintenance.metrics import Metric, MetricKind
    from .maintenance.retention import RetentionReport
    from .maintenance.retention_plan import (
        RetentionAction,
        RetentionDecision,
        RetentionOutcome,
        RetentionPolicy,
        RetentionRule,
    )
    from .maintenance.status import (
        Alarm,
        ChannelStatus,
        CompactionStatus,
        DatabaseStatus,
        Level,
        ProcessStatus,
        Stuck,
        WorkStatus,
    )
    from .models import (
        ANY_HEAD,
        Accepted,
        AppendedHistory,
        CompactionInfo,
        CompactionResult,
        ContextDiff,
        DeadLetter,
        DeleteReport,
        Details,
        Drained,
        Edited,
        Entry,
        EntryRef,
        EpochInfo,
        Event,
        ExpectedHead,
        ExportedFile,
        ExportReport,
        FileReceipt,
        Finding,
        Holding,
        ImportReport,
        Lane,
        MigrationReport,
        NamedDetails,
        OpenMessage,
        Outcome,
        OutcomeState,
        QuarantinedLine,
        QueryResult,
        Receipt,
        Redacted,
        Reply,
        SearchHit,
        SearchIndexed,
        SearchPage,
        SessionInfo,
        SourceReceipt,
        VerifyReport,
        Withdrawn,
    )
    from .process import Owner
    from .transcript.batch import Batch, Planned
    from .transcript.compaction import GivenUp
    from .transcript.compaction_job import CompactionJob
    from .transcript.context import Context
    from .transcript.entries import Appendable, Item, MessageLike
    from .transcript.keys import SessionKey
    from .transcript.registry import SessionRef
    from .transcript.reset_policy import ConversationKind, ResetMode, ResetPolicy, StaleReason
    from .transcript.session import Session
    from .transfer.progress import Progress
    from .transfer.redaction import LineShape, Redactor
    from .transfer.redaction_rules import AllowedMatch, RedactionRule
    from .words import (
        Audience,
        CompactionOutcome,
        CompactionState,
        Cut,
        EpochReason,
        EventKind,
        ExportFormat,
        ExportStatus,
        FileStatus,
        MessageFormat,
        MessageState,
        Origin,
        ReplyState,
        SourceVerdict,
        TurnState,
    )

    __version__: str

__all__ = [
    "ANY_HEAD",
    "Accepted",
    "Alarm",
    "AllowedMatch",
    "Answer",
    "Appendable",
    "AppendedHistory",
    "Ask",
    "Asked",
    "Audience",
    "Backend",
    "Batch",
    "ChannelStatus",
    "Clock",
    "CompactionCoolDown",
    "CompactionInfo",
    "CompactionJob",
    "CompactionOutcome",
    "CompactionRefused",
    "CompactionResult",
    "CompactionRunning",
    "CompactionState",
    "CompactionStatus",
    "CompactionTimeout",
    "ConstraintFailed",
    "Context",
    "ContextDiff",
    "ConversationKind",
    "Cut",
    "DatabaseStatus",
    "DeadLetter",
    "Decision",
    "DeleteReport",
    "Details",
    "DetailsChanged",
    "Drained",
    "Durability",
    "Edited",
    "Entry",
    "EntryRef",
    "EpochInfo",
    "EpochReason",
    "Event",
    "EventKind",
    "ExpectedHead",
    "ExportFormat",
    "ExportReport",
    "ExportStatus",
    "ExportedFile",
    "FileReceipt",
    "FileStatus",
    "Finding",
    "GivenUp",
    "Handler",
    "HeadMoved",
    "Holding",
    "IdentityConflict",
    "ImportReport",
    "InvalidInput",
    "InvalidKey",
    "Item",
    "Lane",
    "LaneSettings",
    "Level",
    "Limits",
    "LineShape",
    "MessageFormat",
    "MessageLike",
    "MessageState",
    "Metric",
    "MetricKind",
    "MigrationReport",
    "NamedDetails",
    "NewerSchema",
    "NotASessionDB",
    "NotExecuted",
    "NotFound",
    "NothingToCompact",
    "NothingToUndo",
    "OpenError",
    "OpenMessage",
    "OpenOptions",
    "Origin",
    "Outcome",
    "OutcomeState",
    "OutcomeUnknown",
    "Owner",
    "PartlyStored",
    "Planned",
    "ProcessStatus",
    "Progress",
    "QuarantinedLine",
    "QueryResult",
    "ReadTooLong",
    "ReadTx",
    "Receipt",
    "Recovered",
    "Redacted",
    "RedactionRule",
    "Redactor",
    "RefusedBySender",
    "Reply",
    "ReplyState",
    "ResetMode",
    "ResetPolicy",
    "Restored",
    "ResumeAction",
    "ResumePolicy",
    "RetentionAction",
    "RetentionDecision",
    "RetentionOutcome",
    "RetentionPolicy",
    "RetentionReport",
    "RetentionRule",
    "RetryPauses",
    "SearchDamaged",
    "SearchHit",
    "SearchIndexed",
    "SearchPage",
    "Sender",
    "Session",
    "SessionArchived",
    "SessionBusy",
    "SessionDB",
    "SessionDBError",
    "SessionEnded",
    "SessionInfo",
    "SessionKey",
    "SessionRef",
    "SkipState",
    "SourceReceipt",
    "SourceVerdict",
    "StaleReason",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreFailed",
    "StoreFull",
    "StoreReadOnly",
    "StrayCancellation",
    "Stuck",
    "Timer",
    "Turn",
    "TurnKind",
    "TurnLost",
    "TurnState",
    "Tx",
    "UnsafeFilesystem",
    "UnsafeSQLite",
    "VerifyReport",
    "Withdrawn",
    "WorkStatus",
    "WriteOutcome",
    "open",
    "outcome_of",
    "shared",
    "temporary",
]

# The names that are imported when they are first used, by module. Type checkers read the
# imports above instead. A test compares the two.
_MODULES = {
    "sessiondb.backend": ("Backend", "ReadTx", "Tx"),
    "sessiondb.clock": ("Clock", "Timer"),
    "sessiondb.database": ("Durability", "OpenOptions", "SessionDB", "open"),
    "sessiondb.gateway.claims": ("TurnKind",),
    "sessiondb.gateway.dispatcher": ("RefusedBySender", "Sender"),
    "sessiondb.gateway.recovery": (
        "Decision",
        "Recovered",
        "ResumeAction",
        "ResumePolicy",
        "SkipState",
    ),
    "sessiondb.gateway.running_turn": ("Answer", "Ask", "Asked", "Handler", "LaneSettings", "Turn"),
    "sessiondb.lifecycle": ("shared", "temporary"),
    "sessiondb.limits": ("Limits", "RetryPauses"),
    "sessiondb.maintenance.archive": ("Restored",),
    "sessiondb.maintenance.metrics": ("Metric", "MetricKind"),
    "sessiondb.maintenance.retention": ("RetentionReport",),
    "sessiondb.maintenance.retention_plan": (
        "RetentionAction",
        "RetentionDecision",
        "RetentionOutcome",
        "RetentionPolicy",
        "RetentionRule",
    ),
    "sessiondb.maintenance.status": (
        "Alarm",
        "ChannelStatus",
        "CompactionStatus",
        "DatabaseStatus",
        "Level",
        "ProcessStatus",
        "Stuck",
        "WorkStatus",
    ),
    "sessiondb.models": (
        "ANY_HEAD",
        "Accepted",
        "AppendedHistory",
        "CompactionInfo",
        "CompactionResult",
        "ContextDiff",
        "DeadLetter",
        "DeleteReport",
        "Details",
        "Drained",
        "Edited",
        "Entry",
        "EntryRef",
        "EpochInfo",
        "Event",
        "ExpectedHead",
        "ExportReport",
        "ExportedFile",
        "FileReceipt",
        "Finding",
        "Holding",
        "ImportReport",
        "Lane",
        "MigrationReport",
        "NamedDetails",
        "OpenMessage",
        "Outcome",
        "OutcomeState",
        "QuarantinedLine",
        "QueryResult",
        "Receipt",
        "Redacted",
        "Reply",
        "SearchHit",
        "SearchIndexed",
        "SearchPage",
        "SessionInfo",
        "SourceReceipt",
        "VerifyReport",
        "Withdrawn",
    ),
    "sessiondb.process": ("Owner",),
    "sessiondb.transcript.batch": ("Batch", "Planned"),
    "sessiondb.transcript.compaction": ("GivenUp",),
    "sessiondb.transcript.compaction_job": ("CompactionJob",),
    "sessiondb.transcript.context": ("Context",),
    "sessiondb.transcript.entries": ("Appendable", "Item", "MessageLike"),
    "sessiondb.transcript.keys": ("SessionKey",),
    "sessiondb.transcript.registry": ("SessionRef",),
    "sessiondb.transcript.reset_policy": (
        "ConversationKind",
        "Cut",
        "ResetMode",
        "ResetPolicy",
        "StaleReason",
    ),
    "sessiondb.transcript.session": ("Session",),
    "sessiondb.transfer.progress": ("Progress",),
    "sessiondb.transfer.redaction": ("LineShape", "Redactor"),
    "sessiondb.transfer.redaction_rules": ("AllowedMatch", "RedactionRule"),
    "sessiondb.words": (
        "Audience",
        "CompactionOutcome",
        "CompactionState",
        "Cut",
        "EpochReason",
        "EventKind",
        "ExportFormat",
        "ExportStatus",
        "FileStatus",
        "MessageFormat",
        "MessageState",
        "Origin",
        "ReplyState",
        "SourceVerdict",
        "TurnState",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not typing.TYPE_CHECKING:  # a type checker would take every misspelt name for one of these

    def __getattr__(name):
        """Import a name when it is first used (PEP 562), and keep it."""
        if name == "__version__":
            from importlib.metadata import version

            value = version("sessiondb")
        elif name in _MODULE_OF:
            value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, "__version__"})
