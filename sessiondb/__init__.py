"""sessiondb: durable conversation storage for agent gateways, in one SQLite database.

    async with sessiondb.open("gateway.db") as db:
        session = await db.session("agent:main:discord:channel:1")
        await session.append({"role": "user", "content": "hello"}, idempotency_key="discord:1:42")
        context = await session.context()

Appends and compaction are separate short transactions; a compaction commits a summary and the next epoch
atomically; nothing is held while a model thinks. `sessiondb.sync` mirrors the API for scripts.
"""

from importlib.metadata import version as _version

from .context import Context
from .database import SessionDB, open
from .errors import (
    CompactionCoolDown,
    CompactionRefused,
    CompactionRunning,
    CompactionTimeout,
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
    SessionDBError,
    SessionEnded,
    StoreBusy,
    StoreClosed,
    StoreFull,
    UnsafeFilesystem,
    UnsafeSQLite,
    outcome_of,
)
from .handles import CompactionJob, Session
from .limits import Limits
from .models import (
    CompactionInfo,
    CompactionResult,
    Entry,
    EpochInfo,
    ExportedFile,
    ExportReport,
    FileReceipt,
    Finding,
    ImportReport,
    QuarantinedLine,
    Receipt,
    SessionInfo,
    VerifyReport,
)

__all__ = [
    "CompactionCoolDown",
    "CompactionInfo",
    "CompactionJob",
    "CompactionRefused",
    "CompactionResult",
    "CompactionRunning",
    "CompactionTimeout",
    "Context",
    "Entry",
    "EpochInfo",
    "ExportReport",
    "ExportedFile",
    "FileReceipt",
    "Finding",
    "ImportReport",
    "InvalidInput",
    "InvalidKey",
    "Limits",
    "NewerSchema",
    "NotASessionDB",
    "NotExecuted",
    "NotFound",
    "NothingToCompact",
    "NothingToUndo",
    "OpenError",
    "OutcomeUnknown",
    "QuarantinedLine",
    "Receipt",
    "Session",
    "SessionDB",
    "SessionDBError",
    "SessionEnded",
    "SessionInfo",
    "StoreBusy",
    "StoreClosed",
    "StoreFull",
    "UnsafeFilesystem",
    "UnsafeSQLite",
    "VerifyReport",
    "open",
    "outcome_of",
]

__version__ = _version("sessiondb")
