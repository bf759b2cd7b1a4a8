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
    outcome_of,
)

if typing.TYPE_CHECKING:
    from .clock import Clock
    from .database import OpenOptions, SessionDB, open
    from .gateway.dispatcher import RefusedBySender
    from .gateway.recovery import Decision, Recovered, ResumePolicy
    from .gateway.running_turn import Answer, Ask, LaneSettings, Turn
    from .lifecycle import shared, temporary
    from .limits import Limits
    from .maintenance.archive import Restored
    from .maintenance.retention import RetentionReport
    from .maintenance.retention_plan import RetentionDecision, RetentionPolicy
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
        OpenMessage,
        Outcome,
        QuarantinedLine,
        Receipt,
        Redacted,
        Reply,
        SessionInfo,
        VerifyReport,
        Withdrawn,
    )
    from .transcript.batch import Batch, Planned
    from .transcript.compaction_job import CompactionJob
    from .transcript.context import Context
    from .transcript.entries import Appendable, Item, MessageLike
    from .transcript.reset_policy import ResetPolicy
    from .transcript.session import Session
    from .transfer.redaction import Redactor

    __version__: str

__all__ = [
    "ANY_HEAD",
    "Accepted",
    "Answer",
    "Appendable",
    "AppendedHistory",
    "Ask",
    "Batch",
    "Clock",
    "CompactionCoolDown",
    "CompactionInfo",
    "CompactionJob",
    "CompactionRefused",
    "CompactionResult",
    "CompactionRunning",
    "CompactionTimeout",
    "ConstraintFailed",
    "Context",
    "ContextDiff",
    "DeadLetter",
    "Decision",
    "DeleteReport",
    "Details",
    "DetailsChanged",
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
    "HeadMoved",
    "Holding",
    "IdentityConflict",
    "ImportReport",
    "InvalidInput",
    "InvalidKey",
    "Item",
    "Lane",
    "LaneSettings",
    "Limits",
    "MessageLike",
    "NewerSchema",
    "NotASessionDB",
    "NotExecuted",
    "NotFound",
    "NothingToCompact",
    "NothingToUndo",
    "OpenError",
    "OpenMessage",
    "OpenOptions",
    "Outcome",
    "OutcomeUnknown",
    "PartlyStored",
    "Planned",
    "QuarantinedLine",
    "ReadTooLong",
    "Receipt",
    "Recovered",
    "Redacted",
    "Redactor",
    "RefusedBySender",
    "Reply",
    "ResetPolicy",
    "Restored",
    "ResumePolicy",
    "RetentionDecision",
    "RetentionPolicy",
    "RetentionReport",
    "Session",
    "SessionArchived",
    "SessionBusy",
    "SessionDB",
    "SessionDBError",
    "SessionEnded",
    "SessionInfo",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreFailed",
    "StoreFull",
    "StoreReadOnly",
    "StrayCancellation",
    "Turn",
    "TurnLost",
    "UnsafeFilesystem",
    "UnsafeSQLite",
    "VerifyReport",
    "Withdrawn",
    "open",
    "outcome_of",
    "shared",
    "temporary",
]

# The names that are imported when they are first used, by module. Type checkers read the
# imports above instead. A test compares the two.
_MODULES = {
    "sessiondb.clock": ("Clock",),
    "sessiondb.database": ("OpenOptions", "SessionDB", "open"),
    "sessiondb.gateway.dispatcher": ("RefusedBySender",),
    "sessiondb.gateway.recovery": ("Decision", "Recovered", "ResumePolicy"),
    "sessiondb.gateway.running_turn": ("Answer", "Ask", "LaneSettings", "Turn"),
    "sessiondb.lifecycle": ("shared", "temporary"),
    "sessiondb.limits": ("Limits",),
    "sessiondb.maintenance.archive": ("Restored",),
    "sessiondb.maintenance.retention": ("RetentionReport",),
    "sessiondb.maintenance.retention_plan": ("RetentionDecision", "RetentionPolicy"),
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
        "ExportedFile",
        "ExportReport",
        "FileReceipt",
        "Finding",
        "Holding",
        "ImportReport",
        "Lane",
        "OpenMessage",
        "Outcome",
        "QuarantinedLine",
        "Receipt",
        "Redacted",
        "Reply",
        "SessionInfo",
        "VerifyReport",
        "Withdrawn",
    ),
    "sessiondb.transcript.batch": ("Batch", "Planned"),
    "sessiondb.transcript.context": ("Context",),
    "sessiondb.transcript.entries": ("Appendable", "Item", "MessageLike"),
    "sessiondb.transcript.reset_policy": ("ResetPolicy",),
    "sessiondb.transcript.compaction_job": ("CompactionJob",),
    "sessiondb.transcript.session": ("Session",),
    "sessiondb.transfer.redaction": ("Redactor",),
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
