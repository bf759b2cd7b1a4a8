"""The façade: an asynchronous view of the rules, for asyncio and trio.

Every method is one transaction (or one snapshot) over functions that know nothing of
threads and event loops. Encoding, reading a span, asking the kernel whether a process
lives: all that can be done before a transaction is done before it. The rules, their
checks and the loops of a gateway are in the packages. This is the only module that
names an engine.

Cancellation. A call that an anyio or trio scope cancelled was not executed. If its
transaction had begun, the call returns its result, and the cancellation arrives at the next
await. asyncio's own `task.cancel()` is re-raised once the outcome is known. `outcome_of`
reads that outcome from the exception.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, TypeVar, Unpack

import anyio
from pydantic import BaseModel

from . import threads
from .arguments import checked, checks_arguments
from .backend import Backend, ReadTx, Tx
from .clock import Clock
from .errors import InvalidInput, before_the_write
from .gateway import (
    clearing,
    dispatcher,
    draining,
    heard,
    inbox,
    lanes,
    outbox,
    outside,
    recovery,
    stopping,
    turns,
    waiting,
    worker,
)
from .gateway import consumer as consuming
from .gateway.dispatcher import Sender
from .gateway.recovery import Decision, Recovered, ResumePolicy
from .gateway.running_turn import Answer, Handler, LaneSettings, Turn
from .limits import (
    QUERY_ANSWER_BYTES,
    QUERY_ANSWER_S,
    QUERY_ROWS,
    QUERY_TIMEOUT_S,
    REPLY_PAUSES_S,
    Limits,
)
from .maintenance import (
    archive,
    archive_reading,
    deletion,
    health,
    metrics,
    retention,
    search_archives,
    status,
    verify,
)
from .maintenance.archive import Restored
from .maintenance.metrics import Metric
from .maintenance.retention import RetentionReport
from .maintenance.retention_plan import RetentionPolicy
from .maintenance.status import DatabaseStatus
from .models import (
    Accepted,
    CompactionInfo,
    CompactionResult,
    DeadLetter,
    DeleteReport,
    Details,
    Drained,
    Edited,
    Event,
    ExportedFile,
    ExportReport,
    Holding,
    ImportReport,
    Lane,
    MigrationReport,
    NamedDetails,
    OpenMessage,
    Outcome,
    QueryResult,
    Receipt,
    Reply,
    SearchIndexed,
    SearchPage,
    SessionInfo,
    VerifyReport,
    Withdrawn,
)
from .paging import read_pages
from .salvage import pipeline as salvaging
from .salvage.report import SalvageReport
from .timers import SYSTEM
from .transcript import (
    compaction,
    foreign_ids,
    formats,
    listing,
    registry,
    reset_policy,
    search,
    search_index,
)
from .transcript import details as details_rules
from .transcript.batch import Batch
from .transcript.compaction import GivenUp
from .transcript.compaction_job import (
    commit_compaction,
    give_up_compaction,
    renew_compaction,
)
from .transcript.entries import Appendable
from .transcript.keys import parse_key
from .transcript.reset_policy import ResetPolicy, StaleReason
from .transcript.session import Session
from .transfer import exporter, importer
from .transfer import migrate as migrating
from .transfer.openclaw_sqlite import ForeignFile
from .transfer.progress import Progress
from .transfer.redaction import Redactor
from .words import (
    Audience,
    ExportFormat,
    MessageFormat,
    ReplyState,
)

if TYPE_CHECKING:
    from .sqlite.backup_file import BackupFile, Restoring

T = TypeVar("T")
Durability = Literal["full", "normal"]
"""`full`: a write that returned survives a power cut. `normal`: a crash of its process."""

logger = logging.getLogger("sessiondb")


class OpenOptions(TypedDict, total=False):
    """The options of `sessiondb.open` and `sessiondb.sync.open`. `SessionDB` has the defaults."""

    durability: Durability
    limits: Limits | None
    readonly: bool
    create: bool
    guard: bool | Literal["raise"]
    allow_unsafe_filesystem: bool
    program: str | None
    clock: Clock | None


@checks_arguments
class SessionDB:
    """One open database. Make it with `sessiondb.open`. Use it as an async context manager."""

    @checked
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        limits: Limits | None = None,
        readonly: bool = False,
        create: bool = True,
        guard: bool | Literal["raise"] = True,
        allow_unsafe_filesystem: bool = False,
        program: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.clock = clock or SYSTEM
        """What rules, turns, leases and loops go by. `sessiondb.testing` has one for tests."""
        self._backend: Backend | None = None
        self._loops = draining.Loops()  # that this object runs
        self._resume_memory = recovery.ResumeMemory(self.clock)
        self._options: dict[str, Any] = {
            "durability": durability,
            "limits": limits or Limits(),
            "readonly": readonly,
            "create": create,
            "guard": guard,
            "allow_unsafe_filesystem": allow_unsafe_filesystem,
            "program": program,
            "clock": self.clock,
        }

    async def __aenter__(self) -> Self:
        self._refuse_second_opening()
        self._backend = await self._open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.close()

    def open_now(self) -> Self:
        """Open on this thread, which waits meanwhile. Return this object.

        For constructors that cannot await. Any event loop and any thread may use the database
        then. Whoever opens it so closes it: with `close_now`, or with `close`.

        Raises:
            InvalidInput: this object was opened before.
            OpenError, StoreBusy, StoreFailed, StoreFull, StoreDamaged: as of `open`.
        """
        self._refuse_second_opening()
        self._backend = self._open_now()
        return self

    async def close(self) -> None:
        """Finish queued writes, checkpoint and close. May be repeated."""
        if self._backend is not None:
            with anyio.CancelScope(shield=True):
                await self._close(self._backend)

    def close_now(self) -> None:
        """Close on this thread, which waits meanwhile. Otherwise like `close`."""
        if self._backend is not None:
            self._close_now(self._backend)

    def _refuse_second_opening(self) -> None:
        if self._backend is not None:
            raise InvalidInput(
                f"{self.path} was opened with this object before; "
                "make another with sessiondb.open()"
            )

    # How it is opened and closed. `lifecycle.py` has other ways.

    async def _open(self) -> Backend:
        from .sqlite import SqliteBackend

        return await SqliteBackend.open(self.path, **self._options)

    def _open_now(self) -> Backend:
        from .sqlite import SqliteBackend

        return SqliteBackend.open_now(self.path, **self._options)

    async def _close(self, backend: Backend) -> None:
        await backend.close()

    def _close_now(self, backend: Backend) -> None:
        backend.close_now()

    def unsigned(self) -> list[str]:
        """Name what a stop could not sign off, each with the reason. Empty after an orderly one.

        These are turns and replies of loops that were cancelled while the database could not
        be written, and the registration of this process after `close`. Their leases end
        them, or the next `recover`, as after a crash.
        """
        stats = self._backend.stats() if self._backend is not None else {}
        unregistered = (stats.get("writer") or {}).get("sign_off_error", "")
        return [*self._loops.unsigned, *([unregistered] if unregistered else [])]

    @property
    def backend(self) -> Backend:
        """The storage engine, for code that brings its own rules over a transaction.

        Raises:
            InvalidInput: the database is not open.
        """
        if self._backend is None:
            raise InvalidInput(f"{self.path} is not open; use `async with sessiondb.open(...)`")
        return self._backend

    async def read(self, op: str, fn: Callable[[ReadTx], T]) -> T:
        """Run `fn` in one short snapshot, on a reader thread.

        For code that brings its own rules. See `backend`.

        Raises:
            StoreBusy: every reader is occupied and the queue is full.
            ReadTooLong: it took longer than `Limits.read_age_s_max`. Read in pages.
        """
        return await self.backend.read(fn, op=op)

    async def write(
        self, op: str, fn: Callable[[Tx], T], *, size: int = 0, timeout_s: float | None = None
    ) -> T:
        """Run `fn` in a write transaction, on the writer thread. Durable on return.

        For code that brings its own rules. See `backend`.

        Raises:
            StoreBusy: the queue is full, or another process holds the write lock. Retry
                after `retry_after_ms`.
            NotExecuted: `timeout_s` (by default `Limits.write_timeout_s`) passed before the
                transaction began.
            StoreFull, StoreFailed: the disk is full or failed. Rolled back.
            OutcomeUnknown: the disk failed in COMMIT. Read again, or retry with the same
                idempotency key.
            StoreReadOnly: the database was opened for reading.
        """
        return await self.backend.write(fn, op=op, size=size, timeout_s=timeout_s)

    async def change_session(
        self,
        op: str,
        session_no: int,
        fn: Callable[[Tx, int | None], T],
        *,
        own_turn_no: int | None = None,
        abort: str | None = None,
        size: int = 0,
    ) -> T:
        """Run `fn` in a write transaction in which no turn of a session runs.

        For code that brings its own rules. See `backend`. A turn that runs is stopped, for the
        reason `abort`, and `fn` gets its number. `own_turn_no` is a turn of the caller's own,
        which may go on.

        Raises:
            SessionBusy: a turn runs, and there is no reason to stop it.
        """
        aborted: int | None = None

        def change(tx: Tx) -> T:
            nonlocal aborted
            aborted = stopping.end_running(tx, session_no, own_turn_no=own_turn_no, reason=abort)
            return fn(tx, aborted)

        result = await self.write(op, change, size=size)
        self._loops.stop(aborted)
        return result

    def batch(self) -> Batch:
        """Return a batch: changes of several sessions that are written in one transaction.

            async with db.batch() as batch:
                noted = batch.append(parent, result)
                batch.append_many(child, [Item(message, key="c:1"), Item(other, key="c:2")])
            receipt = noted.value

        Its block collects the changes, and its end writes all of them or none. Nothing is locked
        inside the block. One that raises writes nothing. Durable when the block has ended. May be
        repeated as each of its changes may.

        Raises (at the end of the block):
            SessionBusy: a turn runs in a session whose head is to be moved.
            HeadMoved: a head is not the one that was expected.
            InvalidInput: an item cannot be stored, or they are too many for one transaction.
            StoreBusy, NotExecuted, NotFound, IdentityConflict, SessionEnded: as of `append`.
        """
        return Batch(self, stopping.require_idle)

    # -- sessions ------------------------------------------------------------------------------

    async def session(
        self,
        key: str,
        *,
        create: bool = True,
        cwd: str | None = None,
        format: MessageFormat | None = None,  # noqa: A002
    ) -> Session:
        """Return the session that a conversation's key is bound to. Create and bind a new one.

        Durable on return. May be repeated. Processes that race for a new key get the same
        session. With `create=False` nothing is made. `format` is the message format of its items.
        None: the first items decide.

        Raises:
            InvalidKey: outside the grammar `agent:<agentId>:<rest>`.
            NotFound: the key is not bound, and `create` is False.
            InvalidInput: the session has another format, or there is no such format.
        """
        parsed, may_be = parse_key(key), formats.bits_of(format)
        with before_the_write():
            bound = await self.read("session", lambda tx: registry.find(tx, parsed))
        if bound is None and not create:
            raise registry.unbound(parsed)
        # A key that lost the case of its id in OpenClaw is given it by the write.
        as_is = bound is not None and (not create or bound.session_key == parsed.text)
        if bound is not None and as_is and bound.formats & may_be == bound.formats:
            return Session(self, registry.SessionRef(bound.session_no, bound.session_id))
        session_id = registry.new_session_id() if create else None
        ref = await self.write(
            "session.create",
            lambda tx: registry.open_by_key(
                tx, parsed, session_id=session_id, cwd=cwd, may_be=may_be
            ),
        )
        return Session(self, ref)

    async def session_for(
        self,
        namespace: str,
        external_id: str,
        *,
        create: bool = True,
        agent_id: str | None = None,
        cwd: str | None = None,
        format: MessageFormat | None = None,  # noqa: A002
    ) -> Session:
        """Return the session that another program knows by an id of its own. Create a new one.

        Both texts are compared byte by byte: no case is folded, nothing is cut off, no prefix
        matches. `namespace` says whose ids these are, a program or a user of it: 1 to 255 bytes.
        An id has 1 to 1,024 bytes, of any characters. A session has one such name at most. An
        archived session keeps it, and a fork has none.

        Durable on return. May be repeated. Processes that race for a new id get the same session.
        With `create=False` nothing is made. `agent_id`, `cwd` and `format` are of a new session.
        `format` is also checked of one that exists.

        Raises:
            NotFound: there is none, and `create` is False.
            InvalidInput: a text is empty, too long or no text, the session has another format,
                or there is no such format.
        """
        wanted = foreign_ids.foreign_id(namespace, external_id)
        may_be = formats.bits_of(format)
        with before_the_write():
            found = await self.read("session.for", lambda tx: foreign_ids.find(tx, wanted))
        if found is not None and found.formats & may_be == found.formats:
            return Session(self, registry.SessionRef(found.session_no, found.session_id))
        if found is None and not create:
            raise foreign_ids.missing(wanted)
        session_id = registry.new_session_id() if create else None
        ref = await self.write(
            "session.create",
            lambda tx: foreign_ids.open_for(
                tx, wanted, session_id=session_id, agent_id=agent_id, cwd=cwd, may_be=may_be
            ),
        )
        return Session(self, ref)

    async def create_session(
        self,
        session_id: str | None = None,
        *,
        agent_id: str | None = None,
        cwd: str | None = None,
        format: MessageFormat | None = None,  # noqa: A002
    ) -> Session:
        """Create a session that no key points at. Durable on return.

        Each call makes another session. A call that is repeated with its id is refused. `format` is
        the message format of its items. None: the first items decide that only one format has.

        Raises:
            InvalidInput: the id is taken, or cannot be one, or there is no such format.
        """
        may_be = formats.bits_of(format)
        if session_id is None:
            session_id = registry.new_session_id()
        chosen = registry.check_session_id(session_id)
        ref = await self.write(
            "session.create",
            lambda tx: registry.create(tx, chosen, agent_id=agent_id, cwd=cwd, may_be=may_be),
        )
        return Session(self, ref)

    async def session_by_id(self, session_id: str) -> Session:
        """Return the session with exactly this id. A prefix of it, or a key, finds none.

        Raises:
            NotFound: there is none.
        """
        ref = await self.read("session.find", lambda tx: registry.by_id(tx, session_id))
        return Session(self, ref)

    async def find(self, ref: str | tuple[str, str]) -> Session | None:
        """Return the session that a key, an id or a foreign id names, or None. Makes nothing.

        Exact: no prefix matches. A foreign id is a pair, `(namespace, external_id)`. A text is a
        key or an id.

        Raises:
            InvalidInput: neither a text nor a pair of texts that can be a foreign id.
        """
        if isinstance(ref, tuple):
            if len(ref) != 2:
                raise InvalidInput(
                    f"a foreign id is a pair (namespace, external_id), not {len(ref)} values"
                )
            wanted = foreign_ids.foreign_id(*ref)
            row = await self.read("session.find", lambda tx: foreign_ids.find(tx, wanted))
            return None if row is None else Session(self, registry.SessionRef(row[0], row[1]))
        found = await self.read("session.find", lambda tx: registry.by_key_or_id(tx, ref))
        return None if found is None else Session(self, found)

    def sessions(
        self,
        *,
        namespace: str | None = None,
        key_prefix: str | None = None,
        agent_id: str | None = None,
        updated_before: int | None = None,
        with_ended: bool = False,
        newest_first: bool = True,
        limit: int | None = None,
    ) -> AsyncIterator[SessionInfo]:
        """Iterate over sessions, last changed first. Holds no snapshot between pages.

        Only those with foreign ids of `namespace`, with a key that begins with `key_prefix`, of
        `agent_id`, and last changed before `updated_before` (milliseconds since 1970), as far as
        these are given. A prefix is compared with keys in their stored form
        (`SessionInfo.keys`). With `newest_first=False` the one that has not changed for longest
        comes first. `limit` at most, and no more rows than those are read.

        Raises:
            InvalidInput: a filter is no text, or no time.
        """
        filters = listing.Filters(
            namespace=namespace,
            key_prefix=key_prefix,
            agent_id=agent_id,
            updated_before=updated_before,
            with_ended=with_ended,
            newest_first=newest_first,
        )
        return read_pages(
            self.read, "sessions", partial(listing.page, filters=filters), limit=limit
        )

    async def bind(self, key: str, session: Session) -> None:
        """Point a conversation's key at a session. The session it pointed at before stays.

        Durable. May be repeated.

        Raises:
            InvalidKey: outside the grammar `agent:<agentId>:<rest>`.
            SessionArchived: its entries are in an archive. `unarchive` brings them back.
        """
        parsed = parse_key(key)
        await self.write("bind", lambda tx: registry.bind(tx, parsed, session.ref.session_no))

    async def unbind(self, key: str) -> bool:
        """Forget a key. Return False if it was not bound.

        The session stays. The next message for the key begins a new one. Durable. May be
        repeated.

        Raises:
            InvalidKey: outside the grammar `agent:<agentId>:<rest>`.
        """
        parsed = parse_key(key)
        return await self.write("unbind", lambda tx: registry.unbind(tx, parsed))

    async def reset_if_due(self, key: str, policy: ResetPolicy) -> StaleReason | None:
        """Reset a conversation that is stale. Return the rule that says so, or None.

        To be called before a message for the conversation is accepted. Writes only when a
        reset is due. Durable then. May be repeated. These conversations are left alone: one
        with a running turn or waiting messages, one without a message since it began, and
        one whose session has ended.

        Raises:
            InvalidKey: outside the grammar `agent:<agentId>:<rest>`.
        """
        parsed = parse_key(key)
        chosen, at_ms = policy.for_key(parsed), self.clock.stamp_ms()
        with before_the_write():
            due = await self.read(
                "reset.look", lambda tx: reset_policy.stale(tx, parsed, chosen, at_ms)
            )
        if not due:
            return None
        return await self.write(
            "reset.if_due", lambda tx: reset_policy.reset_if_due(tx, parsed, chosen)
        )

    # -- details of an application ------------------------------------------------------------

    async def details(self, namespace: str, name: str) -> Details:
        """Return what an application keeps under a name. Nothing: `{}`, of revision 0.

        For state that is of no session: of the application, or of one of its users. Both texts are
        compared byte by byte. `namespace` says whose names these are: 1 to 255 bytes. A name has
        1 to 1,024 bytes. What is kept about a session is `session.details()`.

        Raises:
            InvalidInput: a text is empty, too long or no text.
        """
        of = details_rules.checked_name(namespace, name)
        return await self.read("details", lambda tx: details_rules.read_named(tx, of))

    async def set_details(
        self,
        namespace: str,
        name: str,
        details: Mapping[str, Any],
        *,
        expect: int | None = None,
    ) -> int:
        """Keep a JSON object under a name, in the place of another. Return its revision.

        64 KiB at most. With `expect` it is stored only if the details have this revision (0: if
        there are none yet). No model sees it. Durable. `batch.set_details` writes it in one
        transaction with entries, and with other details.

        Raises:
            DetailsChanged: they have another revision. It is in the error.
            InvalidInput: no object, without a JSON form, or too large. Or no name, as of `details`.
        """
        of, document = details_rules.checked_name(namespace, name), details_rules.encoded(details)
        return await self.write(
            "details.set",
            lambda tx: details_rules.put_named(tx, of, document, expect),
            size=len(document),
        )

    async def delete_details(self, namespace: str, name: str, *, expect: int | None = None) -> bool:
        """Delete what is kept under a name. Return False if nothing is. Durable.

        The next revision is 1 again. `db.delete(namespace=...)` deletes those of a namespace.

        Raises:
            DetailsChanged: they have another revision than `expect`.
            InvalidInput: no name, as of `details`.
        """
        of = details_rules.checked_name(namespace, name)
        return await self.write(
            "details.delete", lambda tx: details_rules.forget_named(tx, of, expect)
        )

    def list_details(
        self, namespace: str, *, limit: int | None = None
    ) -> AsyncIterator[NamedDetails]:
        """Iterate over what is kept in a namespace, in the order of the names, `limit` at most.

        Holds no snapshot between pages.
        """
        page = partial(details_rules.page_named, namespace=namespace)
        return read_pages(self.read, "details.list", page, limit=limit)

    # -- compactions ---------------------------------------------------------------------------

    async def commit_compaction(
        self,
        compaction_id: str,
        summary: str,
        *,
        details: object = None,
        from_hook: bool | None = None,
    ) -> CompactionResult:
        """Complete a compaction, in time or late. Durable on return.

        The same id always gets the same answer.

        Raises:
            NotFound: no such compaction.
            InvalidInput: the summary is no text, `details` has no JSON form, or both are too
                large for one entry.
        """
        return await commit_compaction(
            self, compaction_id, summary, details=details, from_hook=from_hook
        )

    async def renew_compaction(self, compaction_id: str, *, timeout_s: float) -> int:
        """Move a running compaction's deadline to `timeout_s` from now. Return it.

        At most to 10 times the first timeout. For one that was begun without a block
        (`CompactionJob.begin`). Durable. May be repeated.

        Raises:
            NotFound: no such compaction.
            InvalidInput: `timeout_s` is not positive and finite.
            CompactionRefused: the job is no longer running.
        """
        return await renew_compaction(self, compaction_id, timeout_s)

    async def fail_compaction(
        self, compaction_id: str, reason: str, *, state: GivenUp = "failed"
    ) -> bool:
        """Give up a running job. Return False if it was not running, or there is none.

        A later commit is still reconciled. `state` says how it ended: "failed",
        "cancelled", "expired" or "abandoned". Durable. May be repeated.
        """
        return await give_up_compaction(self, compaction_id, state, reason)

    def compactions(self, session: Session | None = None) -> AsyncIterator[CompactionInfo]:
        """Iterate over compaction jobs, newest first. Of one session or of all."""
        session_no = session.ref.session_no if session is not None else None
        return read_pages(self.read, "compactions", partial(compaction.page, session_no=session_no))

    # -- inbox ---------------------------------------------------------------------------------

    async def accept(
        self,
        key: str,
        message: dict[str, Any] | BaseModel | str,
        *,
        channel: str,
        event_id: str,
        lane: str = "main",
        by_person: bool | None = None,
        answer: bool = True,
        details: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Accepted:
        """Accept a message from a channel. Durable on return.

        Acknowledge the message to the channel only after this returns. The same (channel,
        event_id) again gets the first receipt, with `duplicate=True`. `key` says which
        conversation the message belongs to. Its session is created when new. `message` is a
        dict, a typed message, or JSON text, with a role. `by_person` says whether a person
        sent it. None: as the lane's messages are (`set_lane`). Only a person's message
        supersedes an interrupted one, and only if its turn had that in its context.

        With `answer=False` the message is heard and not answered: what others say in a group.
        It is in no queue. The claim of the session's next message appends it in front of that.

        `details`
        is for your handler and sender, and never for a model: `turn.details`, `reply.details`.
        An address, say. A JSON object of at most 16 KiB.

        Raises:
            SessionBusy: too many messages of the session or the lane wait. NACK, and retry
                after `retry_after_ms`.
            StoreBusy: the database cannot take it now. Likewise.
            NotFound: no such lane.
            InvalidInput: not a message, or one of another format than its session's. Lane
                `resume`, which is the resume plan's. Or a `channel` or `event_id` that is no
                text, or details that are no such object. The same call never succeeds.
            InvalidKey: outside the grammar `agent:<agentId>:<rest>`. Likewise.
            IdentityConflict: the channel brought this event before, from another conversation
                or with another text. Likewise. An edited message comes through `edit`.
            SessionEnded: the key's session has ended. `unbind` the key, and the next message
                begins a new session.
            NotExecuted: `timeout_s` passed before the transaction began.
        """
        incoming = await inbox.prepare_incoming(
            channel, event_id, key, message, lane, by_person, details, answer=answer
        )
        return await heard.with_room(
            self,
            "inbox.accept",
            lambda tx: inbox.accept(tx, incoming),
            size=len(incoming.payload),
            timeout_s=timeout_s,
        )

    async def edit(
        self,
        key: str,
        message: dict[str, Any] | BaseModel | str,
        *,
        channel: str,
        event_id: str,
        version: int,
        details: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Edited:
        """Give an accepted message a new text, because its sender edited it. Durable on return.

        `key`, `channel` and `event_id` are those that it was accepted with. `version` grows
        with each edit of a message: the channel's number or time of the edit. May be
        repeated: a version that is no newer changes nothing. Without `details` it keeps those that
        the message has.

        While no turn has read the message, the new text takes the place of the old one, and
        keeps its place in the queue. Otherwise the transcript has the old text, which stays.
        The new one then waits as a message of its own, in the same lane. A turn that works on
        the old text goes on. `abort_turn(edited.answering_turn_no, ...)` stops it.

        Raises:
            NotFound: the channel never brought this event, or its row was pruned. Accept it.
            IdentityConflict: the event came from another conversation.
            InvalidInput: not a message, or a version below 1.
            SessionBusy, StoreBusy, InvalidKey, SessionEnded, NotExecuted: as of `accept`.
        """
        checked = inbox.check_version(version)
        incoming = await inbox.prepare_incoming(
            channel, event_id, key, message, lanes.MAIN_LANE, details=details
        )
        return await heard.with_room(
            self,
            "inbox.edit",
            lambda tx: inbox.edit(tx, incoming, checked),
            size=len(incoming.payload),
            timeout_s=timeout_s,
        )

    async def withdraw(self, channel: str, event_id: str) -> Withdrawn:
        """Take a message back that waits, because its sender did. Durable. May be repeated.

        No turn works on it any more, nor on an edit of it that waits. Its sender is told
        (`message_withdrawn`). The event stays known, and is not accepted again. What a turn had
        read of it before stays in the transcript. A turn that works on it goes on:
        `abort_turn(withdrawn.turn_no, ...)` stops it.
        """
        return await self.write(
            "inbox.withdraw", lambda tx: stopping.withdraw(tx, channel, event_id)
        )

    async def wait(self, inbox_no: int, *, timeout_s: float | None = None) -> Outcome:
        """Wait until an accepted message has ended, in whichever process. Return what became of it.

        Answered, with the entries that its turn appended, or given up, stopped or withdrawn. A
        message that was interrupted or waits for its retry has not ended. Changes nothing, and
        may be repeated. A handler that waits for a message must not hold the room that this
        needs: give such messages a lane of their own.

        Raises:
            NotFound: there is no such message, or it was pruned.
            TimeoutError: it has not ended after `timeout_s`.
        """
        return await waiting.wait(self, inbox_no, timeout_s)

    def inbox(
        self, *, session: Session | None = None, limit: int | None = None
    ) -> AsyncIterator[OpenMessage]:
        """Iterate over accepted messages that are not done, oldest first. Of one session or of all.

        Those that wait, are being worked on, or were interrupted.
        """
        session_no = session.ref.session_no if session is not None else None
        page = partial(inbox.open_messages, session_no=session_no)
        return read_pages(self.read, "inbox.open", page, limit=limit)

    def dead_letters(self, *, limit: int | None = None) -> AsyncIterator[DeadLetter]:
        """Iterate over messages that were given up, newest first, `limit` at most.

        No more rows than those are read.
        """
        return read_pages(self.read, "inbox.dead", inbox.dead_letters, limit=limit)

    async def requeue(self, inbox_no: int) -> None:
        """Put a dead letter back into its lane, its attempts forgotten. Durable.

        A resume is a message of its own lane again, with all of its time.

        Raises:
            NotFound: it is not a dead letter, or not any more.
        """
        await self.write("inbox.requeue", lambda tx: inbox.requeue(tx, inbox_no))

    async def drop(self, inbox_no: int) -> None:
        """Give up a dead letter for good. Durable.

        The same event is still known, and not accepted again.

        Raises:
            NotFound: it is not a dead letter, or not any more.
        """
        await self.write("inbox.drop", lambda tx: inbox.drop(tx, inbox_no))

    # -- turns ---------------------------------------------------------------------------------

    async def set_lane(
        self, lane: str, *, concurrency: int, priority: int, people: bool | None = None
    ) -> None:
        """Create a lane or change it. Durable. May be repeated. Running turns are not stopped.

        `concurrency` bounds the lane's turns in all processes together. Of two lanes the one
        with the lower `priority` goes first. `people` says whether messages of this lane are
        people's, unless `accept` says otherwise. None: as before, and False in a new lane.

        Raises:
            InvalidInput: an empty or too long name, a concurrency below 1, or no number.
        """
        lanes.check_lane(lane, concurrency, priority)
        await self.write(
            "lane.set", lambda tx: lanes.set_lane(tx, lane, concurrency, priority, people)
        )

    async def pause_lane(self, lane: str) -> bool:
        """Let no process claim from a lane. Return False if it was paused. Durable.

        Turns that run go on, and `accept` goes on until the lane is full. Resumes of messages
        that this lane accepted wait, too. A paused lane holds no other lane back, but the
        messages of one session keep their order. May be repeated.

        Raises:
            NotFound: there is no such lane.
        """
        return await self.write("lane.pause", lambda tx: lanes.pause(tx, lane))

    async def resume_lane(self, lane: str) -> bool:
        """Let a paused lane run again. Return False if it was not paused. Durable.

        Raises:
            NotFound: there is no such lane.
        """
        return await self.write("lane.resume", lambda tx: lanes.resume(tx, lane))

    async def set_lane_settings(self, lane: str, settings: LaneSettings | None) -> None:
        """Give a lane other settings while its loops run, in all processes. Durable.

        They hold from the next claim on, in place of those that `run_lane` was given, and stay
        until they are set again. None: each loop goes by its own. May be repeated.

        Raises:
            NotFound: there is no such lane.
        """
        text = settings.model_dump_json() if settings is not None else None
        await self.write("lane.settings", lambda tx: lanes.set_settings(tx, lane, text))

    async def drop_lane(self, lane: str, *, into: str | None = None) -> None:
        """Drop a lane. Its loops return, in all processes, when their turns have ended. Durable.

        Messages that are not done, dead letters among them, go to the lane `into`: in bounded
        steps, and a call that was interrupted is repeated. `accept` refuses the lane from then
        on. `set_lane` makes it anew.

        Raises:
            NotFound: there is no such lane, or no lane `into`.
            InvalidInput: it has messages that are not done, and no `into`. Or it is `main` or
                `resume`, which every database has.
        """
        lanes.check_drop(lane, into)
        while not await self.write("lane.drop", lambda tx: lanes.drop(tx, lane, into)):
            pass

    async def lanes(self) -> list[Lane]:
        """List the lanes with their limits, and how much runs and waits in each."""
        return await self.read("lanes", status.read_lanes)

    async def run_lane(
        self, lane: str, handler: Handler, *, settings: LaneSettings | None = None
    ) -> None:
        """Run a lane: claim messages, call `handler`, record the outcomes.

        Until it is cancelled, or `drain` or `drop_lane` lets it return. `handler(turn)` returns
        an `Answer`. Its entries, its replies and the end of the turn are one transaction. An
        exception is retried, up to a bound. The turn's deadline cuts the handler off. Several
        processes may run the same lane.

        Raises:
            NotFound: there is no such lane.
            StrayCancellation: a cancellation that nobody asked for ended the loop.
        """
        await worker.run_lane(self, lane, handler, settings or LaneSettings(), self._loops)

    async def claim_turn(
        self, lane: str, *, settings: LaneSettings | None = None, claim_id: str | None = None
    ) -> Turn | None:
        """Claim the next message of a lane, for a worker that cannot be called. None: none waits.

        For a server whose clients work on turns. Nobody renews the lease but the worker, with
        `renew_turn`. It ends the turn with `complete_turn`, `fail_turn` or `release_turn`. Each
        takes the turn's number, and may be called through another process, also after a restart.
        If the worker falls silent, its lease ends the turn (`release_expired`), and so does
        `recover` once this process is dead. Durable on return.

        With `claim_id`, an id of this one claim, it may be repeated when its answer was lost. It
        returns the same turn while that runs, its lease renewed, through any process.

        Raises:
            NotFound: there is no such lane, or it was dropped.
            InvalidInput: `claim_id` is empty, or longer than 255 characters.
        """
        return await outside.claim_turn(
            self, lane, settings or LaneSettings(), self._loops, claim_id
        )

    async def renew_turn(
        self, turn_no: int, *, lease_s: float = 30.0, operation: str | None = None
    ) -> int:
        """Renew a claimed turn's lease. Return when it runs out: at the turn's deadline, at most.

        `operation` says what the turn is doing, for `held`. Durable. May be repeated.

        Raises:
            TurnLost: it ended, or was taken over.
            NotFound: there is no such turn.
            InvalidInput: `lease_s` is not above 0.
        """
        return await outside.renew_turn(self, turn_no, lease_s, operation)

    async def append_to_turn(
        self, turn_no: int, item: Appendable, *, asked_epoch: int | None = None
    ) -> Receipt:
        """Append in the name of a claimed turn. Durable. Refused once it was taken over.

        With the key of an `Item` it may be repeated. `asked_epoch` is the epoch of the context
        that a reply was asked for with.

        Raises:
            TurnLost, NotFound: as of `renew_turn`.
            InvalidInput, IdentityConflict, SessionEnded: as of `append`.
        """
        return await outside.append_to_turn(self, turn_no, item, asked_epoch)

    async def note_turn(self, turn_no: int, details: Any) -> None:
        """Note JSON for whoever takes a claimed turn's message over. As `Turn.progress`.

        Raises:
            TurnLost, NotFound: as of `renew_turn`.
            InvalidInput: it is no JSON, or larger than 4,096 bytes.
        """
        await outside.note_turn(self, turn_no, details)

    async def complete_turn(
        self, turn_no: int, answer: Answer, *, asked_epoch: int | None = None
    ) -> list[Receipt]:
        """End a claimed turn with its answer: entries, replies and the end, in one transaction.

        Durable. Repeated it is TurnLost, whose `state` is `completed` then.

        Raises:
            TurnLost, NotFound: as of `renew_turn`. Nothing was written.
            InvalidInput: the answer cannot be stored. The turn goes on.
            SessionBusy, SessionEnded: a message for another conversation cannot be accepted.
        """
        return await outside.complete_turn(self, turn_no, answer, asked_epoch)

    async def fail_turn(self, turn_no: int, reason: str, *, retry: bool = True) -> None:
        """End a claimed turn that failed. Its message is tried again after a pause, or given up.

        Durable. Repeated it is TurnLost.

        Raises:
            TurnLost, NotFound: as of `renew_turn`.
        """
        await outside.fail_turn(self, turn_no, reason, try_again=retry)

    async def release_turn(self, turn_no: int, reason: str) -> None:
        """Give a claimed turn back, because its worker stops. It does not count as an attempt.

        Its message is interrupted, and resumed by the plan (`resume`). Durable. Repeated it is
        TurnLost.

        Raises:
            TurnLost, NotFound: as of `renew_turn`.
        """
        await outside.release_turn(self, turn_no, reason)

    async def abort_turn(self, turn_no: int, reason: str) -> None:
        """Stop a turn on a person's behalf. Whatever it still tries to write is refused. Durable.

        Its handler is cancelled: at once if this object runs the lane, otherwise when a lane of
        its process has looked. `Session.abort` stops whichever turn of a session runs.

        Raises:
            TurnLost: it had ended.
            NotFound: there is no such turn.
        """
        await self.write("turn.abort", lambda tx: turns.abort(tx, turn_no, reason))
        self._loops.stop(turn_no)

    async def drain(self, *, timeout_s: float = 30.0) -> Drained:
        """Let the loops of this object return once their work is done. Say what still runs.

        No turn is claimed and nothing resumed any more. Turns and compactions that run go on
        to their end. Readers of events handle those that there are, and end. Replies that may
        be sent are sent. Then `run_lane`, `run_recovery`, `events` and `run_outbox` have
        returned. Nothing is interrupted, here or after `timeout_s`: then the result names
        what still runs, and the caller waits again or cancels its loops. Other processes take
        what this one did not. `accept` goes on. May be repeated. A drain is not taken back: to
        work on, open the database anew.

        Raises:
            StoreReadOnly: the database was opened for reading.
        """
        instance_no = self.backend.stats()["instance_no"]
        await draining.drain(self, self._loops, instance_no, timeout_s)
        held = await self.read("held", lambda tx: tx.all("recovery.held"))
        own = [row for row in held if row.instance_no == instance_no]
        return Drained(
            tuple(await threads.run(status.holdings, own, self.backend)),
            tuple(self._loops.names()),
        )

    async def held(self) -> list[Holding]:
        """List who holds what, since when, until when, and whether the holder lives."""
        rows = await self.read("held", lambda tx: tx.all("recovery.held"))
        return await threads.run(status.holdings, rows, self.backend)

    # -- outbox --------------------------------------------------------------------------------

    async def run_outbox(
        self,
        sender: Sender,
        *,
        lease_s: float = 30.0,
        at_once: int = 32,
        at_once_per_channel: int | None = None,
        retry_pauses_s: Sequence[float] = REPLY_PAUSES_S,
    ) -> None:
        """Send replies until it is cancelled, or `drain` lets it return.

        `sender(reply)` calls the channel and returns its receipt, or None. If it raises
        `RefusedBySender`, nothing was sent, and with `retry_after_s` no reply of its channel is
        tried before. After any other exception the reply is
        `unknown`, because nobody can tell. Likewise after a sender that takes longer than
        `lease_s`. Replies of one session to one channel keep their order. Others are sent
        side by side: `at_once` at most, and of those `at_once_per_channel` to one channel (by
        default a quarter). So a channel that is slow or down does not hold up the others. The
        channel is what stands before the first colon of a reply's target. A refused reply is
        tried again after `retry_pauses_s`, a minute each at most. The last one repeats.

        Raises:
            InvalidInput: `retry_pauses_s` has none, or one that is no such time. Or another
                number is not above 0.
            StrayCancellation: a cancellation that nobody asked for ended the loop.
        """
        await dispatcher.run_outbox(
            self,
            sender,
            lease_s=lease_s,
            at_once=at_once,
            at_once_per_channel=at_once_per_channel,
            pauses_s=retry_pauses_s,
            loops=self._loops,
        )

    async def claim_reply(
        self, *, lease_s: float = 30.0, full: Sequence[str] = (), claim_id: str | None = None
    ) -> Reply | None:
        """Take the next reply, for a sender that nobody can call. None: none waits. Durable.

        For a server whose clients send. The row says `sending` from here on. The client says how
        it ended within `lease_s`, with `reply_sent` or `reply_refused`, and passes the reply's
        `attempts`. Otherwise the reply is `unknown`. `full` are channels of which none is taken.

        With `claim_id`, an id of this one claim, it may be repeated when its answer was lost. It
        returns the same attempt while nobody has said how that ended, its lease renewed.

        Raises:
            InvalidInput: `lease_s` is not above 0. Or `claim_id` is empty, or longer than 255
                characters.
        """
        return await outside.claim_reply(self, lease_s, full, claim_id)

    async def reply_sent(self, outbox_no: int, attempt: int, *, receipt: str | None = None) -> bool:
        """Record that the channel took a claimed reply. Durable. May be repeated.

        Return False if that, or something else about this attempt, had been recorded. Through
        any process, and also when the reply is `unknown` by then.

        Raises:
            NotFound: there is no such reply, or no such attempt at it.
        """
        return await outside.settle_claimed(
            self, outbox_no, attempt, lambda tx, reply: outbox.sent(tx, reply, receipt)
        )

    async def reply_refused(
        self,
        outbox_no: int,
        attempt: int,
        reason: str,
        *,
        retry: bool = True,
        retry_after_s: float | None = None,
    ) -> bool:
        """Record that the channel did not send a claimed reply, for certain. Durable.

        It is tried again after a pause, or failed without `retry`. With `retry_after_s` the
        channel said when, and no reply of it is tried before. Otherwise like `reply_sent`.

        Raises:
            NotFound: there is no such reply, or no such attempt at it.
            InvalidInput: `retry_after_s` is no such time.
        """
        return await outside.refuse_reply(
            self, outbox_no, attempt, reason, try_again=retry, retry_after_s=retry_after_s
        )

    def replies(
        self,
        state: ReplyState,
        *,
        limit: int | None = None,
    ) -> AsyncIterator[Reply]:
        """Iterate over replies in a state, oldest first, `limit` at most.

        No more rows than those are read.
        """
        return read_pages(
            self.read, "outbox.list", partial(outbox.replies, state=state), limit=limit
        )

    async def settle_reply(self, outbox_no: int, state: Literal["sent", "pending"]) -> None:
        """Settle an unknown or failed reply by hand: it was sent, or is to be sent again. Durable.

        Raises:
            NotFound: it is neither unknown nor failed, or not any more.
        """
        await self.write("outbox.decide", lambda tx: outbox.decide(tx, outbox_no, state))

    # -- events --------------------------------------------------------------------------------

    def events(
        self,
        consumer: str,
        *,
        audience: Audience | None = None,
        from_start: bool = False,
        follow: bool = True,
    ) -> AsyncIterator[Event]:
        """Iterate over events, now and as they come. Ends only when this process drains.

        Without `follow` it ends after the last event that was committed when the first one was
        asked for. Delivered after commit, at least once. `consumer` names the reader. Its
        position is kept in the database, and moves past an event when the next one is asked for.
        A new consumer begins now, or with the oldest event (`from_start`).

        Raises:
            InvalidInput: the name of a new consumer is empty or too long.
            StrayCancellation: a cancellation that nobody asked for ended the loop.
        """
        return consuming.follow_events(
            self, consumer, audience, from_start=from_start, follow=follow, loops=self._loops
        )

    async def forward_event(
        self, event: Event, *, consumer: str, target: str, message: Any
    ) -> bool:
        """Put an event into its session's outbox, once for each `consumer`. Durable.

        It becomes a reply that no turn made, and is sent like any other (`run_outbox`). It
        happens once, however many processes follow under that name, and in whatever order
        they come to it. Return False if it had been done before. The position of `consumer`
        moves when it asks for the next event.

        Raises:
            NotFound: nobody has read events under this name (`events`), so it is misspelt.
            InvalidInput: the event is about no session, or the message is no JSON or too large.
        """
        (target, payload), size = outbox.encoded_event(event, target, message)
        return await self.write(
            "event.forward",
            lambda tx: outbox.forward_event(tx, event, consumer, target, payload),
            size=size,
        )

    # -- start-up ------------------------------------------------------------------------------

    async def recover(self) -> Recovered:
        """Release what dead processes held: turns, compactions, replies under way.

        Bounded steps, each durable. May be repeated. A compaction whose deadline has passed
        is ended too, whichever process runs it: its owner may hang, or have failed to
        say so.
        """
        return await recovery.recover(self)

    async def release_expired(self) -> Recovered:
        """Take over the turns of any process whose lease ran out, and give up such replies.

        As any loop of a gateway does, for a database on which none runs. A process that
        still works on one of them is refused its next write. Bounded steps, each durable.
        May be repeated.
        """
        return await recovery.release_expired(self)

    async def plan_resumes(self, policy: ResumePolicy | None = None) -> list[Decision]:
        """Decide which interrupted messages to resume, newest first, each with its reason.

        Changes nothing. The plan treats messages that dead processes work on as `recover`
        would leave them: interrupted, and the unclean ends counted.
        """
        return await recovery.plan_resumes(self, policy or ResumePolicy(), self._resume_memory)

    async def resume(self, policy: ResumePolicy | None = None) -> list[Decision]:
        """Plan, and carry out the plan, a page per transaction. Return its decisions.

        Durable. May be repeated. As resumes end there is room for those decided as `later`,
        and another process may have died meanwhile: `run_recovery` calls `recover` and this
        every few seconds.
        """
        return await recovery.resume(self, policy or ResumePolicy(), self._resume_memory)

    async def run_recovery(
        self, policy: ResumePolicy | None = None, *, every_s: float = 5.0
    ) -> None:
        """Recover and resume: at once, then every `every_s` seconds.

        Until it is cancelled, or `drain` lets it return. Writes only while there is something
        to release or resume. The resumes themselves are turns of lane `resume`, which somebody
        has to run.

        Raises:
            StrayCancellation: a cancellation that nobody asked for ended the loop.
        """
        chosen = policy or ResumePolicy()
        await recovery.run_recovery(
            self, chosen, self._resume_memory, every_s=every_s, loops=self._loops
        )

    # -- files in and out ----------------------------------------------------------------------

    async def import_path(
        self,
        path: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        verify: bool = False,
        progress: Progress | None = None,
        redactor: Redactor | None = None,
    ) -> ImportReport:
        """Import a transcript, or a folder of them: pi's or OpenClaw's. Durable on return.

        The source is only read. Every file gets a receipt. May be repeated: the same
        bytes change nothing, a file that has grown adds its new lines, and an
        interrupted import continues. Appends never wait for it. With `verify`, each
        file is compared with its export, and its context with an independent reader's.
        `progress` is called with files done, files in all, bytes done, bytes in all,
        and the current file's name. With a `redactor`, entries are stored without the
        secrets that it finds, for good. The receipts say how many.

        Raises:
            InvalidInput: there is nothing at the path, or it may not be read.
        """
        return await importer.import_path(
            self.backend,
            path,
            dry_run=dry_run,
            verify=verify,
            progress=progress,
            redactor=redactor,
            protect=self._own_files(),
            open_foreign=_open_foreign,
        )

    async def migrate(
        self,
        home: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        final: bool = False,
        compare: bool = True,
        progress: Progress | None = None,
        redactor: Redactor | None = None,
    ) -> MigrationReport:
        """Import a home of OpenClaw, compare all of it, and account for every file.

        As `import_path` with `verify`, with a receipt for each transcript and index, and a count
        of all other files by kind. Durable on return. May be interrupted, and repeated beside
        a running gateway: what was imported and found equal is not done again. A `final` run is
        for a stopped gateway. It compares everything again, and its `problems` say what still
        runs or writes there. Nothing is written in the home. With `compare=False` a run only
        imports, and the next one that compares takes up what has changed since.

        Raises:
            InvalidInput: this is no home of OpenClaw, or a final run is to compare nothing.
        """
        return await migrating.migrate(
            self.backend,
            home,
            dry_run=dry_run,
            final=final,
            compare=compare,
            progress=progress,
            redactor=redactor,
            protect=self._own_files(),
            open_foreign=_open_foreign,
        )

    async def export(
        self,
        dest: str | os.PathLike[str],
        *,
        session: Session | str | None = None,
        openclaw: bool = False,
        overwrite: bool = False,
        progress: Progress | None = None,
        redactor: Redactor | None = None,
        format: ExportFormat = "transcript",  # noqa: A002  # the word of the command line
        branch: str | None = None,
        archived: bool = False,
    ) -> ExportReport:
        """Write every session, or one, as files that pi and OpenClaw read.

        With `openclaw`, `dest` becomes a home that OpenClaw takes for its own: every transcript
        under `agents/<agent>/sessions`, and rows of the index that name it and its last time.
        Imported sessions get their own file names. Each file is on disk when it appears. May
        be repeated. A file that is there already and differs is left alone and reported,
        unless `overwrite`. `session` may be an id or a key, too. With a `redactor`, the files are
        without the secrets that it finds. The database is not changed.

        In another `format`, each session is a file for people or their programs: one page of
        "html", "markdown", or a table, "csv", "ndjson" or "parquet", with a row for each entry.
        It has the current path. `branch` is the id of another entry at which the path of the
        one session ends. With `archived`, archived sessions are read out of their archives.
        Nothing is restored for it.

        Raises:
            InvalidInput: the destination cannot be made, there is no such format, or its
                library is not installed. `archived` with transcripts.
            NotFound: no such session, or entry.
        """
        if archived and format == "transcript":
            raise InvalidInput(
                "a transcript is not written out of an archive; bring the session back with "
                "`sessiondb unarchive DB SESSION` or db.unarchive(), or choose another format"
            )
        if isinstance(session, str):
            text = session
            ref = await self.read("session.find", lambda tx: registry.named(tx, text))
            session = Session(self, ref)
        return await exporter.export(
            self.backend,
            dest,
            session_no=session.ref.session_no if session is not None else None,
            openclaw=openclaw,
            overwrite=overwrite,
            progress=progress,
            protect=self._own_files(),
            redactor=redactor,
            format=format,
            branch=branch,
            find_archived=archive_reading.path_of if archived else None,
        )

    async def export_one(
        self,
        session: Session,
        file: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        redactor: Redactor | None = None,
    ) -> ExportedFile:
        """Write one session's transcript to one file. Return its receipt, as `export` gives it.

        The file is complete and on disk when it appears. A name that ends in `.zst` has it
        compressed. May be repeated. A file that is there already and differs is left alone, and
        the receipt says so, unless `overwrite`. The database is not changed.

        Raises:
            InvalidInput: there can be no such file.
        """
        report = await exporter.export(
            self.backend,
            file,
            session_no=session.ref.session_no,
            one_file=True,
            overwrite=overwrite,
            protect=self._own_files(),
            redactor=redactor,
        )
        return report.files[0]

    def _own_files(self) -> list[str]:
        """Return the files that no import may read and no export may touch."""
        path = str(self.backend.stats()["path"])
        return [path + suffix for suffix in ("", "-wal", "-shm", "-journal", "-alive")]

    # -- the database --------------------------------------------------------------------------

    async def gc(
        self, policy: RetentionPolicy, *, dry_run: bool = False, every: bool = False
    ) -> RetentionReport:
        """Archive what a policy does not keep, and free the space.

        The report has every decision with its reason. With `every` also those about
        sessions within every limit. Appends and turns never wait for it. With `dry_run`
        nothing changes. Durable, step by step. May be repeated: an interrupted run is
        continued.

        Raises:
            StoreFull: the disk is full. Completed steps stay. A failure that concerns one
                session only is in the report.
        """
        return await retention.gc(
            self.backend, policy, dry_run=dry_run, every=every, now_ms=self.clock.stamp_ms()
        )

    async def search(
        self,
        words: str,
        *,
        session: Session | None = None,
        agent_id: str | None = None,
        role: str | None = None,
        since_ms: int = 0,
        archived: bool = False,
        before: int | None = None,
        limit: int = 20,
    ) -> SearchPage:
        """Return a page of the entries that have some words: the newest session first.

        An entry has all of the words, in any order. Those in quotes stand side by side. No other
        character means anything. Capitals and accents make no difference. A word is found whole.
        What is not in the index yet is read, newest entries first, and `unread` counts what was
        too much for that. Without an index (`build_search`) that is most of the database.

        A fork shares entries. They are found once, with the session that they were appended to.
        With `session`, also those that it shares. Entries that a session has left by an undo or a
        switch of branches are found, and marked. `role` is that of a message, or the type of
        another entry. `archived` searches
        archived sessions instead, which takes as long as to unpack them. `before` is `next` of the
        page before. A page may have fewer hits than
        `limit`, or none, although `next` says that others follow.

        Raises:
            InvalidInput: there is no word to search for, there are too many, or `limit` is not 1
                to 200.
            SearchDamaged: the index is damaged. `build_search(rebuild=True)` makes it anew.
        """
        filters = search.Filters(
            session_no=session.ref.session_no if session is not None else None,
            agent_id=agent_id,
            role=role,
            since_ms=since_ms,
        )
        if archived:
            return await search_archives.page(self.backend, words, filters, before, limit)
        return await self.read("search", lambda tx: search.page(tx, words, filters, before, limit))

    async def build_search(self, *, rebuild: bool = False) -> SearchIndexed:
        """Build the search index. Return when every entry is in it.

        From then on there is one: `run_recovery` puts new entries there, until `drop_search`. No
        append waits for it. In bounded steps, each durable, beside which others write. A call that
        was interrupted is to be repeated, and goes on. `rebuild` begins anew.

        Raises:
            StoreReadOnly: the database was opened for reading.
            StoreFull: the disk is full. Completed steps stay.
        """
        return await search_index.build(self.backend, rebuild=rebuild)

    async def drop_search(self) -> None:
        """Empty the search index, and stop to fill it. Durable, and may be repeated.

        One transaction. Others that write wait for it, about a second for 500 MB of index.
        """
        await search_index.drop(self.backend)

    async def search_indexed(self) -> SearchIndexed:
        """Return whether there is a search index, and how many entries are not in it yet."""
        return await search_index.indexed(self.backend)

    async def delete(
        self,
        session: Session | None = None,
        *,
        key_prefix: str | None = None,
        namespace: str | None = None,
        archive: bool = False,
        abort_running: bool = False,
    ) -> DeleteReport:
        """Delete a session for good, or all of a key prefix or a namespace. Say what is left.

        Its transcript, messages, replies, turns and events go, and an archive of it. Waiting
        messages are taken back, and their senders are told (`message_withdrawn`). Replies that are
        not sent are never sent. A pinned session goes, too. A session that a fork shares entries
        with is kept, unless the fork goes with it. So is one that is being imported. Receipts of
        its imports stay, so no import brings it back. With a namespace, the details that an
        application keeps in it go, too.

        `archive=True` puts sessions into an archive instead, unless there is open work.
        `abort_running` stops their turns, as `Session.abort` does.

        In bounded steps, each durable, beside which others write. A call that was interrupted is
        to be repeated. The report says what may hold texts after it.

        Raises:
            InvalidInput: not one of a session, a prefix and a namespace, or an empty text.
            NotFound: no key begins with the prefix, or the namespace has neither a session nor
                details.
            SessionBusy: a turn runs, or a reply is being sent at this moment.
            StoreFull: the disk is full. Completed steps stay.
        """
        if sum(one is not None for one in (session, key_prefix, namespace)) != 1 or "" in (
            key_prefix,
            namespace,
        ):
            raise InvalidInput(
                "delete one session, or those of a key prefix or a namespace that is not empty"
            )
        if key_prefix is not None:
            numbers = await deletion.reached_by(self.backend, key_prefix)
            deletion.require_any(numbers, f"a key that begins with {key_prefix!r}")
        elif namespace is not None:
            numbers = await deletion.of_namespace(self.backend, namespace)
            if archive or not await deletion.has_details(self.backend, namespace):
                deletion.require_any(numbers, f"a foreign id of namespace {namespace!r}")
        else:
            assert session is not None, "one of the three is given"
            numbers = [session.ref.session_no]
        return await deletion.delete(
            self,
            numbers,
            clearing.clear,
            keep_archive=archive,
            abort="its conversation was deleted" if abort_running else None,
            namespace=namespace,
        )

    async def unarchive(self, session_id: str) -> Restored:
        """Bring an archived session back exactly as it was. Durable.

        Keys that point elsewhere by now are left so. Sessions that it was forked from are
        restored with it. May be repeated after an interruption.

        Raises:
            NotFound: no such session, or it was deleted without an archive.
            InvalidInput: it is not archived.
            StoreDamaged: the archive is not what was written.
            StoreFull: the disk is full. Another call continues.
        """
        with before_the_write():
            ref = await self.read("restore.find", lambda tx: registry.by_id(tx, session_id))
        return await archive.restore(self.backend, ref.session_no)

    async def verify(self, session: Session | None = None, *, deep: bool = True) -> VerifyReport:
        """Check the database, or one session, and report every broken invariant.

        Changes nothing. Reads in pages and holds no snapshot between them, so it may
        run beside a busy gateway. `deep` also decodes every stored text and compares
        every index with its table. Without it only the small columns are read.

        Raises:
            StoreBusy: every reader is occupied and the queue is full. Start again later.
        """
        session_no = session.ref.session_no if session is not None else None
        return await verify.run(self.backend, session_no, deep=deep)

    async def backup(self, destination: str | os.PathLike[str]) -> int:
        """Copy the database to a new file while it is in use. Return its size in pages.

        Opened for reading it copies from one snapshot, which keeps the WAL meanwhile. The copy
        is complete as of its end. The copy and its name are on disk on return. An
        unfinished copy has another name. Appends never wait for it, and it pins no WAL. To
        be called in the process that writes most: commits of another process make it start
        over.

        Raises:
            InvalidInput: the destination exists, and a backup never overwrites a file, or
                its file system has no hard links.
        """
        return await self.backend.backup(destination)

    async def query(
        self,
        sql: str,
        *parameters: str | float | bytes | None,
        rows_max: int = QUERY_ROWS,
        bytes_max: int = QUERY_ANSWER_BYTES,
        timeout_s: float = QUERY_ANSWER_S,
        allow_cut: bool = False,
    ) -> QueryResult:
        """Run one read-only SQL statement of your own, for a page or a report.

            found = await db.query("SELECT lane, state, count(*) AS messages FROM inbox"
                                   " WHERE accepted_at_ms > ? GROUP BY 1, 2", since_ms)
            page = found.dicts()

        `parameters` are for the `?` of the statement, in order. The views of the schema are made
        for this. All of the answer is one snapshot. Nothing but reading is possible: no write, no
        ATTACH, no temporary table, no PRAGMA that sets something, no extension.

        An answer has `rows_max` rows (100,000 at most) and `bytes_max` bytes of values (65 MiB at
        most), and takes `timeout_s` seconds (60 at most), or the call raises. With `allow_cut` the
        rows that fit are returned, and `cut` says which bound ended them. No value that the
        statement meets may have more than `bytes_max` bytes, and at least 1 MiB is allowed.

        The statement runs on threads that no other call needs: two at once, others wait. A
        cancelled call interrupts it, and so does `close`. While it runs, the WAL is not reset. A
        single call of an SQL function cannot be interrupted. Then the call returns, and its
        thread goes on. A sort spills into a temporary file.

        Raises:
            InvalidInput: not SQL, not one statement, something else than a query, a parameter
                or a bound that cannot be, or more rows or bytes than the bounds allow.
            ReadTooLong: `timeout_s` passed.
            StoreBusy: too many queries wait, or it did not begin within `timeout_s`.
        """
        return await self.backend.query(
            sql,
            parameters,
            rows_max=rows_max,
            bytes_max=bytes_max,
            timeout_s=timeout_s,
            allow_cut=allow_cut,
        )

    async def stats(self) -> dict[str, Any]:
        """Return counters and gauges of this process's use of the database.

        Keys carry their units.
        """
        return self.backend.stats()

    async def metrics(self) -> tuple[Metric, ...]:
        """Return the figures of the database, and of this process's use of it, for a monitor.

        They are those of `status` and `stats`, with names that stay. `sessiondb.monitors` hands
        them to Prometheus and to OpenTelemetry. It costs as much as `status`, and a count of the
        last hour's turns. Any number of monitors may ask.
        """
        described = await self.status()
        numbers = await self.read("metrics", lambda tx: metrics.read_numbers(tx, described.at_ms))
        return metrics.measure(described, numbers, self.backend.stats())

    async def status(self, *, counts: bool = False) -> DatabaseStatus:
        """Describe the database's condition.

        That is: running compactions, what is stuck, who holds what, processes, space. It costs
        the same however many sessions there are. `counts` adds what has to be counted row by
        row: ended sessions, keys, entries, compactions by state, lines of imports that are no
        entries. For a million sessions that takes a moment.
        All of it is one snapshot, so its turns agree with its list of holders. The kernel is
        asked afterwards which processes live.
        """
        stats, at_ms = self.backend.stats(), self.clock.now_ms()
        read = partial(
            status.read_status,
            path=self.path,
            wal_bytes=stats["wal_file_bytes"],
            limits=self._options["limits"],
            now_ms=at_ms,
            counts=counts,
        )
        snapshot = await self.read("status", read)
        described = await threads.run(status.with_liveness, snapshot, self.backend)
        described = dataclasses.replace(described, concerns=stats["concerns"])
        return dataclasses.replace(described, alarms=health.judge(described))


def open(  # noqa: A001  # as `gzip.open`
    path: str | os.PathLike[str], **options: Unpack[OpenOptions]
) -> SessionDB:
    """Open a database, creating it when there is none. Use the result in `async with`.

    `durability`: "full" (the default): what returned is on disk. "normal": a power cut may
    lose the last moments.
    `limits`: other bounds than the defaults of `Limits`.
    `readonly`: neither create nor write. Works beside a live gateway. A write raises
    StoreReadOnly.
    `create`: whether a missing file is created (the default) or is an OpenError.
    `guard`: whether to watch for other code of this process that opens, replaces or removes
    the live files. Such code can drop SQLite's locks, and committed rows with them. True (the
    default): a warning in the log and a count in `stats()`. "raise": a RuntimeError in that
    code, before any harm. False: off. A read-only database is not watched.
    `allow_unsafe_filesystem`: open on a network or shared file system all the same, where
    WAL mode loses data.
    `program`: the name of this process in `held`, in `status` and in errors that name a
    holder. By default the script's name.
    `clock`: what rules, turns, leases and loops go by. By default the kernel's. Tests pass a
    `sessiondb.testing.ManualClock`, and move it.

    Raises (on entering):
        OpenError: not a sessiondb file, a newer one, or one that cannot be used safely here.
        StoreBusy: another process holds the write lock for longer than
            `Limits.busy_timeout_s`.
        StoreFailed, StoreFull, StoreDamaged: the disk failed, is full, or the file is damaged.
    """
    return SessionDB(path, **options)


def query(
    path: str | os.PathLike[str],
    sql: str,
    parameters: Mapping[str, str] | None = None,
    *,
    timeout_s: float = QUERY_TIMEOUT_S,
    is_unwanted: Callable[[], bool] = lambda: False,
) -> AbstractContextManager[tuple[list[str], Iterator[tuple[Any, ...]]]]:
    """Run one read-only statement of a person's own. Yield its columns and its rows.

    For the command line. The statement runs on a connection of this thread. Rows are
    read as they are asked for. The snapshot keeps the WAL from being reset, and is held
    until the last row or until `timeout_s`. So take the rows at once. `is_unwanted` is
    called now and then, from this thread, and stops the statement when it returns True.
    Inside a gateway use `SessionDB.query`.

    Raises:
        InvalidInput: not one statement, not SQL, or something else than a query.
        ReadTooLong: `timeout_s` passed.
    """
    from .sqlite import user_query

    return user_query.query(
        os.path.realpath(path), sql, parameters or {}, timeout_s=timeout_s, is_unwanted=is_unwanted
    )


def _open_foreign(path: str, scratch: str) -> ForeignFile:
    """Open another program's database. The module is loaded when an import meets one."""
    from .sqlite import foreign_file

    return foreign_file.ForeignFile(path, scratch)


def salvage(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    use_wal: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> SalvageReport:
    """Copy every readable entry of a damaged file into a new database. Report what is missing.

    Blocks until done. The file is read page by page and never written. Nobody else may have
    it open. The new database appears under its name when it is complete and verified.
    `progress` is called with each step.

    Raises:
        OpenError: the file cannot be read, or nothing in it is sessiondb's.
        StoreBusy: a process has it open.
        InvalidInput: the destination exists, or its file system has no hard links.
    """
    from .sqlite import damaged_file, new_database

    with damaged_file.DamagedFile(os.path.realpath(path), use_wal=use_wal) as source:
        with new_database.NewDatabase(os.path.realpath(destination)) as target:
            return salvaging.run(source, target, progress=progress)


def backup_file(path: str | os.PathLike[str], *, compress: bool = False) -> BackupFile:
    """Begin a backup: a context manager with the name for the copy, and `finish`.

    For the command line. Fill `copy` with `SessionDB.backup`, verify it, then `finish`.

    Raises:
        InvalidInput: the name is taken, or its file system has no hard links. Or zstd is
            not installed.
    """
    from .sqlite import backup_file as files

    return files.BackupFile(os.fspath(path), compress=compress)


def restoring(backup: str | os.PathLike[str], path: str | os.PathLike[str]) -> Restoring:
    """Begin a restore: a context manager with the copy of a backup, and `finish`.

    For the command line. Verify `copy`, settle what is open in it, then `finish`.

    Raises:
        InvalidInput: there is no such backup, it is torn, or the database's name is taken.
    """
    from .sqlite import backup_file as files

    return files.Restoring(os.fspath(backup), os.fspath(path))


def backup_name(folder: str, path: str, *, compress: bool) -> str:
    """Return the path of a new backup in a folder: the database's name and the time, UTC."""
    from .sqlite import backup_file as files

    return files.name_in(folder, path, compress=compress)


def old_backups(folder: str, path: str, keep: int) -> list[Path]:
    """Return the backups of a database in a folder beyond the newest `keep`, by their names."""
    from .sqlite import backup_file as files

    return files.beyond_newest(folder, path, keep)


def bound_query_memory(limit_bytes: int) -> None:
    """Bound the memory of `query`, and of all else that the engine does in this process.

    For a process of one's own.
    """
    from .sqlite import user_query

    user_query.bound_memory(limit_bytes)


def versions() -> dict[str, str]:
    """Return the versions of the engine's parts."""
    from .sqlite import user_query

    return user_query.versions()
