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
without a change. Fields carry the data that the message names, for programs. `outcome_of`
returns the outcome of a write for any exception that it raised, cancellation included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

Outcome = Literal["not_executed", "committed", "unknown"]

_OUTCOME = "_sessiondb_outcome"


class SessionDBError(Exception):
    """Something went wrong in sessiondb."""

    retry: ClassVar[bool] = False
    outcome: ClassVar[Outcome] = "not_executed"

    def __init__(self, message: str | None = None, **fields: Any) -> None:
        # `python -OO` has no docstrings. The name of the class says the same, shorter.
        told = message or type(self).__doc__ or type(self).__name__
        super().__init__(" ".join(told.split()) if message is None else message)
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), str(self), self.fields))


def _rebuild(cls: type[SessionDBError], message: str, fields: dict[str, Any]) -> SessionDBError:
    return cls(message, **fields)


class StoreBusy(SessionDBError):
    """The database cannot take this request now. Nothing was changed. Retry after
    retry_after_ms.
    """

    retry = True

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_ms: int,
        holder: str = "unknown",
        **fields: Any,
    ) -> None:
        # Both fields always exist, so a handler can use them without a check: when to
        # retry, and who is in the way.
        super().__init__(message, retry_after_ms=retry_after_ms, holder=holder, **fields)


class NotExecuted(SessionDBError):
    """The deadline passed before the transaction began. Nothing was changed."""

    retry = True


class OutcomeUnknown(SessionDBError):
    """The write may or may not be on disk. Read again, or retry with the same idempotency key."""

    retry = True
    outcome = "unknown"


class StoreClosed(SessionDBError):
    """The database has been closed. Nothing was changed."""


class StoreFull(SessionDBError):
    """The disk is full. The transaction was rolled back. Free space, then retry."""

    retry = True


class StoreFailed(SessionDBError):
    """The disk reported an I/O error. The transaction was rolled back. Check the disk and retry."""

    retry = True


class StoreDamaged(SessionDBError):
    """The database file is damaged. Nothing was changed. `sessiondb salvage DB NEW` gets out what
    can be read.
    """


class StoreReadOnly(SessionDBError):
    """The database was opened for reading only. Nothing was changed."""


class ReadTooLong(SessionDBError):
    """The read was interrupted because its snapshot passed the maximum age. Read in smaller
    pages.
    """


class ConstraintFailed(SessionDBError):
    """A constraint of the schema refused the change. Nothing was changed."""


class OpenError(SessionDBError):
    """The database cannot be opened."""


class NotASessionDB(OpenError):
    """The file is not a sessiondb database, or it is damaged."""


class NewerSchema(OpenError):
    """The file was written by a newer sessiondb. Upgrade sessiondb to open it."""


class UnsafeFilesystem(OpenError):
    """The file lies on a network or shared file system, where SQLite's WAL mode loses data. Move it
    to a local disk.
    """


class UnsafeSQLite(OpenError):
    """This SQLite library cannot be used safely here."""


class NotFound(SessionDBError):
    """There is no such thing in this database."""


class HeadMoved(SessionDBError):
    """The session's head is not the one that was expected. Nothing was changed. Read the entries
    since, and decide again.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        session_id: str = "",
        expected: str | None = None,
        head: str | None = None,
        **fields: Any,
    ) -> None:
        # The ids of the entry that was expected as the head and of the one that was found. None:
        # the transcript's root.
        super().__init__(message, session_id=session_id, expected=expected, head=head, **fields)


class InvalidInput(SessionDBError):
    """The input cannot be stored. Nothing was changed."""


class InvalidKey(InvalidInput):
    """The session key is outside the grammar `agent:<agentId>:<rest>`."""


class IdentityConflict(InvalidInput):
    """The event id or the idempotency key was used before, for something else. Nothing was
    changed.
    """


class PartlyStored(IdentityConflict):
    """Some of the items are stored already, and others are not. Nothing was changed. Append the
    others alone, or all of them with new idempotency keys.
    """


class SessionBusy(StoreBusy):
    """Too many messages of this session, or in its lane, are waiting, or too many replies to its
    channel: this one was not accepted. NACK it. Or a turn runs in the session that is to be
    changed.
    """


class TurnLost(SessionDBError):
    """The turn is not running any more: it ended, or was taken over. Nothing was written in its
    name.
    """


class StrayCancellation(SessionDBError):
    """A cancellation that nobody asked for came out of a loop, a handler or a sender. A loop that
    it ended is to be started again.
    """


class SessionEnded(SessionDBError):
    """The session has ended. It accepts no append. Fork it to go on from it, or unbind its key to
    begin a new one.
    """


class SessionArchived(SessionEnded):
    """The session is archived. Bring it back with `sessiondb unarchive DB SESSION`, or
    `db.unarchive(session_id)`.
    """


class CompactionRefused(SessionDBError):
    """The compaction was refused. Nothing was changed."""


class CompactionRunning(CompactionRefused):
    """Another compaction of this session is running."""

    retry = True


class CompactionCoolDown(CompactionRefused):
    """Repeated compactions of this session made no progress. It is in cool-down."""

    retry = True


class NothingToCompact(CompactionRefused):
    """No entry lies before what must be kept."""


class NothingToUndo(CompactionRefused):
    """The context does not begin at a compaction."""


class CompactionTimeout(CompactionRefused, TimeoutError):
    """The compaction's deadline passed. The session goes on. A late commit is still reconciled."""


def mark_outcome(error: BaseException, outcome: Outcome) -> None:
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


def outcome_of(error: BaseException) -> Outcome | None:
    """Return the outcome of the write that raised `error`: "not_executed", "committed", "unknown".

    Works for every `SessionDBError`, for a cancellation that passed through a sessiondb
    call, and for the TimeoutError that `asyncio.timeout` or `anyio.fail_after` makes of it.
    None means that the exception did not come from a write.
    """
    marked: Outcome | None = getattr(error, _OUTCOME, None)
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
