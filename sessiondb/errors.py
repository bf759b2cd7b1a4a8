"""Every error that sessiondb raises.

    SessionDBError
    |-- StoreBusy                  full or locked: not executed. Retry after `retry_after_ms`
    |   `-- SessionBusy            ... because too much waits, or a turn runs in its session
    |-- TurnLost                   the turn ended or was taken over. It can write no more
    |-- StrayCancellation          a cancellation that nobody asked for ended a loop: start it again
    |-- NotExecuted                the deadline passed before the transaction began
    |-- OutcomeUnknown             an I/O error at COMMIT: read again, or retry with the key
    |-- StoreClosed                the database was closed. Not executed
    |-- StoreFull                  the disk is full: rolled back. Free space and retry
    |-- StoreFailed                an I/O error before COMMIT: rolled back. It reconnects
    |-- StoreDamaged               the file fails its own checks: salvage it, or restore a backup
    |   `-- SearchDamaged          ... in its search index only: messages are as they were
    |-- StoreReadOnly              a write to a database that was opened for reading
    |-- ReadTooLong                a snapshot passed its maximum age: read in pages
    |-- ConstraintFailed           a rule of the schema refused the change. Its name is in the error
    |-- OpenError                  the file cannot be opened
    |   |-- NotASessionDB          some other file, or damaged
    |   |-- NewerSchema            written by a newer sessiondb
    |   |-- UnsafeFilesystem       network or shared file system: WAL would corrupt it
    |   `-- UnsafeSQLite           a SQLite with the WAL-reset bug, or a second one loaded
    |-- NotFound                   no such session, key, entry, epoch or compaction
    |-- HeadMoved                  the head is not the one that the caller expected: it is named
    |-- DetailsChanged             details have another revision than the caller expected
    |-- InvalidInput               what was passed cannot be stored. Nothing was changed
    |   |-- InvalidKey             a session key outside the grammar
    |   `-- IdentityConflict       an event id or idempotency key that stands for something else
    |       `-- PartlyStored       some items of an append of all or nothing are stored already
    |-- SessionEnded               an ended transcript accepts no append
    |   `-- SessionArchived        its entries are in an archive: `unarchive` brings them back
    `-- CompactionRefused
        |-- CompactionRunning      a live job exists: its owner, operation and age are in the error
        |-- CompactionCoolDown     repeated compactions made no progress. Try after `until_ms`
        |-- NothingToCompact       no entry lies before what must be kept
        |-- NothingToUndo          the context does not begin at a compaction
        `-- CompactionTimeout      the job's deadline passed (also a TimeoutError)

The docstring is the default message. `retry` says whether the same call can succeed later
without a change. Attributes carry the data that the message names, for programs. None in one
says that it does not apply. `outcome_of` returns the outcome of a write for any exception that
it raised, cancellation included.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from .process import Owner
    from .words import (
        CompactionState,
        MessageFormat,
        TurnState,
    )

WriteOutcome = Literal["not_executed", "committed", "unknown"]
"""What became of a write."""

_OUTCOME = "_sessiondb_outcome"


@dataclass(eq=False, repr=False)
class SessionDBError(Exception):
    """Something went wrong in sessiondb."""

    message: str = ""
    """What happened, to which session or file, and what to do next."""

    retry: ClassVar[bool] = False
    outcome: ClassVar[WriteOutcome] = "not_executed"

    def __post_init__(self) -> None:
        if not self.message:
            # `python -OO` has no docstrings. The name of the class says the same, shorter.
            has_none = sys.flags.optimize > 1
            told = type(self).__name__ if has_none else type(self).__doc__ or type(self).__name__
            self.message = " ".join(told.split())
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.__dict__))


def _rebuild(cls: type[SessionDBError], attributes: dict[str, Any]) -> SessionDBError:
    # Not by a call: what an exception collects later (its notes, its outcome) is no parameter.
    error = cls.__new__(cls)
    error.__dict__.update(attributes)
    error.__post_init__()
    return error


@dataclass(kw_only=True, eq=False, repr=False)
class StoreBusy(SessionDBError):
    """The database cannot take this request now. Nothing was changed. Retry after
    retry_after_ms.
    """

    retry = True

    retry_after_ms: int
    """When to try again."""
    holder: str = "unknown"
    """Who is in the way."""
    session_id: str | None = None
    """The session that is busy. None: the database is."""
    queue_items: int | None = None
    """How many requests wait. None: the queue is not what is full."""
    queue_bytes: int | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class NotExecuted(SessionDBError):
    """The deadline passed before the transaction began. Nothing was changed."""

    retry = True

    retry_after_ms: int = 0


class OutcomeUnknown(SessionDBError):
    """The write may or may not be on disk. Read again, or retry with the same idempotency key."""

    retry = True
    outcome = "unknown"


@dataclass(kw_only=True, eq=False, repr=False)
class StoreClosed(SessionDBError):
    """The database has been closed. Nothing was changed."""

    path: str | None = None


class StoreFull(SessionDBError):
    """The disk is full. The transaction was rolled back. Free space, then retry."""

    retry = True


class StoreFailed(SessionDBError):
    """The disk reported an I/O error. The transaction was rolled back. Check the disk and retry."""

    retry = True


@dataclass(kw_only=True, eq=False, repr=False)
class StoreDamaged(SessionDBError):
    """The database file is damaged. Nothing was changed. `sessiondb salvage DB NEW` gets out what
    can be read.
    """

    session_id: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class SearchDamaged(StoreDamaged):
    """The search index is damaged. Messages are as they were. Build the index anew with
    `sessiondb search DB --rebuild`.
    """


class StoreReadOnly(SessionDBError):
    """The database was opened for reading only. Nothing was changed."""


class ReadTooLong(SessionDBError):
    """The read was interrupted because its snapshot passed the maximum age. Read in smaller
    pages.
    """


@dataclass(kw_only=True, eq=False, repr=False)
class ConstraintFailed(SessionDBError):
    """A constraint of the schema refused the change. Nothing was changed."""

    constraint: str | None = None
    """Its name in schema.sql. None: SQLite did not say which."""


@dataclass(kw_only=True, eq=False, repr=False)
class OpenError(SessionDBError):
    """The database cannot be opened."""

    path: str | None = None


class NotASessionDB(OpenError):
    """The file is not a sessiondb database, or it is damaged."""


@dataclass(kw_only=True, eq=False, repr=False)
class NewerSchema(OpenError):
    """The file was written by a newer sessiondb. Upgrade sessiondb to open it."""

    found: int
    """The version of the file's schema."""
    known: int
    """The newest that this release knows."""

    def told_by(self, op: str) -> NewerSchema:
        """Return the same error, as an operation that met it tells it."""
        return NewerSchema(
            f"{op}: {self.message}", path=self.path, found=self.found, known=self.known
        )


@dataclass(kw_only=True, eq=False, repr=False)
class UnsafeFilesystem(OpenError):
    """The file lies on a network or shared file system, where SQLite's WAL mode loses data. Move it
    to a local disk.
    """

    mount: str = ""
    """Where it is mounted."""
    filesystem: str = ""
    """What it is."""


@dataclass(kw_only=True, eq=False, repr=False)
class UnsafeSQLite(OpenError):
    """This SQLite library cannot be used safely here."""

    version: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class NotFound(SessionDBError):
    """There is no such thing in this database."""

    session: str | None = None
    """What was taken for a session's id or a key."""
    session_id: str | None = None
    entry_id: str | None = None
    entry_no: int | None = None
    epoch: int | None = None
    compaction_id: str | None = None
    channel: str | None = None
    event_id: str | None = None
    inbox_no: int | None = None
    lane: str | None = None
    turn_no: int | None = None
    outbox_no: int | None = None
    consumer: str | None = None
    key: str | None = None
    namespace: str | None = None
    external_id: str | None = None
    idempotency_key: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class DetailsChanged(SessionDBError):
    """Details have another revision than was expected. Nothing was changed. Read them again, and
    decide anew.
    """

    session_id: str | None = None
    """The session whose details these are. None: they are of a name."""
    namespace: str | None = None
    name: str | None = None
    expected: int
    revision: int
    """The revision that they have."""


@dataclass(kw_only=True, eq=False, repr=False)
class HeadMoved(SessionDBError):
    """The session's head is not the one that was expected. Nothing was changed. Read the entries
    since, and decide again.
    """

    session_id: str
    expected: str | None
    """The id of the entry that was expected as the head. None: the transcript's root."""
    head: str | None
    """The id of the entry that is the head. None: the transcript's root."""


@dataclass(kw_only=True, eq=False, repr=False)
class InvalidInput(SessionDBError):
    """The input cannot be stored. Nothing was changed."""

    session_id: str | None = None
    format: MessageFormat | None = None
    """The message format that the session has."""
    lane: str | None = None
    path: str | None = None
    line: int | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class InvalidKey(InvalidInput):
    """The session key is outside the grammar `agent:<agentId>:<rest>`."""

    key: str
    """What was given, or the beginning of it."""


@dataclass(kw_only=True, eq=False, repr=False)
class IdentityConflict(InvalidInput):
    """The event id or the idempotency key was used before, for something else. Nothing was
    changed.
    """

    idempotency_key: str | None = None
    entry_id: str | None = None
    """The entry that has the key."""
    channel: str | None = None
    event_id: str | None = None
    inbox_no: int | None = None
    """The message that has the event id."""
    session_key: str | None = None
    """The conversation from which that message came."""


@dataclass(kw_only=True, eq=False, repr=False)
class PartlyStored(IdentityConflict):
    """Some of the items are stored already, and others are not. Nothing was changed. Append the
    others alone, or all of them with new idempotency keys.
    """

    session_id: str
    stored: list[str]
    """The ids of the entries that are stored."""
    head: str | None
    """The id of the entry that is the head. None: the transcript's root."""


class SessionBusy(StoreBusy):
    """Too many messages of this session, or in its lane, are waiting, or too many replies to its
    channel: this one was not accepted. NACK it. Or a turn runs in the session that is to be
    changed.
    """


@dataclass(kw_only=True, eq=False, repr=False)
class TurnLost(SessionDBError):
    """The turn is not running any more: it ended, or was taken over. Nothing was written in its
    name.
    """

    turn_no: int
    session_id: str
    state: TurnState
    """How it ended."""


class StrayCancellation(SessionDBError):
    """A cancellation that nobody asked for came out of a loop, a handler or a sender. A loop that
    it ended is to be started again.
    """


@dataclass(kw_only=True, eq=False, repr=False)
class SessionEnded(SessionDBError):
    """The session has ended. It accepts no append. Fork it to go on from it, or unbind its key to
    begin a new one.
    """

    session_id: str


class SessionArchived(SessionEnded):
    """The session is archived. Bring it back with `sessiondb unarchive DB SESSION`, or
    `db.unarchive(session_id)`.
    """


@dataclass(kw_only=True, eq=False, repr=False)
class CompactionRefused(SessionDBError):
    """The compaction was refused. Nothing was changed."""

    session_id: str | None = None
    compaction_id: str | None = None
    state: CompactionState | None = None
    """How the job ended."""


@dataclass(kw_only=True, eq=False, repr=False)
class CompactionRunning(CompactionRefused):
    """Another compaction of this session is running."""

    retry = True

    session_id: str
    compaction_id: str
    owner: Owner | None = None
    """The process that runs it."""
    retry_after_ms: int
    """When its deadline is."""


@dataclass(kw_only=True, eq=False, repr=False)
class CompactionCoolDown(CompactionRefused):
    """Repeated compactions of this session made no progress. It is in cool-down."""

    retry = True

    session_id: str
    until_ms: int
    """When the next may begin."""
    retry_after_ms: int


class NothingToCompact(CompactionRefused):
    """No entry lies before what must be kept."""


class NothingToUndo(CompactionRefused):
    """The context does not begin at a compaction."""


class CompactionTimeout(CompactionRefused, TimeoutError):
    """The compaction's deadline passed. The session goes on. A late commit is still reconciled."""


def mark_outcome(error: BaseException, outcome: WriteOutcome) -> None:
    """Attach the outcome of a write to the exception that its caller will see."""
    setattr(error, _OUTCOME, outcome)
    message = (
        "the write's outcome is unknown"
        if outcome == "unknown"
        else f"the write was {outcome.replace('_', ' ')}"
    )
    error.add_note(f"sessiondb: {message}")


@contextmanager
def before_the_write() -> Iterator[None]:
    """Mark what is raised before a write is requested, a cancellation above all: not executed."""
    try:
        yield
    except BaseException as error:
        if outcome_of(error) is None:
            mark_outcome(error, "not_executed")
        raise


def outcome_of(error: BaseException) -> WriteOutcome | None:
    """Return the outcome of the write that raised `error`: "not_executed", "committed", "unknown".

    Works for every `SessionDBError`, for a cancellation that passed through a sessiondb
    call, and for the TimeoutError that `asyncio.timeout` or `anyio.fail_after` makes of it.
    None means that the exception did not come from a write.
    """
    marked: WriteOutcome | None = getattr(error, _OUTCOME, None)
    if marked is None and isinstance(error, SessionDBError):
        return error.outcome
    if marked is None and error.__cause__ is not None:
        # asyncio.timeout() turns the cancellation that carries the mark into a
        # TimeoutError.
        return outcome_of(error.__cause__)
    if marked is None and not isinstance(error.__context__, SessionDBError):
        # So do the scopes of anyio and trio, without naming it as the cause.
        return getattr(error.__context__, _OUTCOME, None)
    return marked
