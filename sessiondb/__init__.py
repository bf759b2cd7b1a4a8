"""sessiondb: durable conversation storage for agent gateways, in one SQLite database.

    async with sessiondb.open("gateway.db") as db:
        session = await db.session("agent:main:discord:channel:1") await
        session.append({"role": "user", "content": "hello"},
        idempotency_key="discord:1:42") context = await session.context()

Appends and compaction are separate short transactions. A compaction commits a summary
and the next epoch atomically. Nothing is held while a model thinks. `sessiondb.sync`
mirrors the API for scripts.
"""

from importlib.metadata import version as _version

from .database import OpenOptions, SessionDB, open
from .errors import (
    CompactionCoolDown,
    CompactionRefused,
    CompactionRunning,
    CompactionTimeout,
    ConstraintFailed,
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
    TurnLost,
    UnsafeFilesystem,
    UnsafeSQLite,
    outcome_of,
)
from .gateway.dispatcher import RefusedBySender
from .gateway.outbox import Outgoing
from .gateway.recovery import Decision, Recovered, ResumePolicy
from .gateway.running_turn import Answer, LaneSettings, Turn
from .limits import Limits
from .maintenance.archive import Restored
from .maintenance.retention import RetentionReport
from .maintenance.retention_plan import RetentionDecision, RetentionPolicy
from .models import (
    Accepted,
    CompactionInfo,
    CompactionResult,
    DeadLetter,
    Entry,
    EpochInfo,
    Event,
    ExportedFile,
    ExportReport,
    FileReceipt,
    Finding,
    Holding,
    ImportReport,
    QuarantinedLine,
    Receipt,
    Reply,
    SessionInfo,
    VerifyReport,
)
from .transcript.compaction_job import CompactionJob
from .transcript.context import Context
from .transcript.reset_policy import ResetPolicy
from .transcript.session import Session
from .transfer.redaction import Redactor

__all__ = [
    "Accepted",
    "Answer",
    "CompactionCoolDown",
    "CompactionInfo",
    "CompactionJob",
    "CompactionRefused",
    "CompactionResult",
    "CompactionRunning",
    "CompactionTimeout",
    "ConstraintFailed",
    "Context",
    "DeadLetter",
    "Decision",
    "Entry",
    "EpochInfo",
    "Event",
    "ExportReport",
    "ExportedFile",
    "FileReceipt",
    "Finding",
    "Holding",
    "ImportReport",
    "InvalidInput",
    "InvalidKey",
    "LaneSettings",
    "Limits",
    "NewerSchema",
    "NotASessionDB",
    "NotExecuted",
    "NotFound",
    "NothingToCompact",
    "NothingToUndo",
    "OpenError",
    "OpenOptions",
    "OutcomeUnknown",
    "Outgoing",
    "QuarantinedLine",
    "ReadTooLong",
    "Receipt",
    "Recovered",
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
    "Turn",
    "TurnLost",
    "UnsafeFilesystem",
    "UnsafeSQLite",
    "VerifyReport",
    "open",
    "outcome_of",
]

__version__ = _version("sessiondb")
