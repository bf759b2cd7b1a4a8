"""Handles: one session, and one compaction in progress, as a caller holds them.

A `Session` holds no state, so it never disagrees with the database. A `CompactionJob` holds a deadline and the duty to
say how its job ended: whatever way its block is left, the job's row is given an end, and nothing else waits for it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread

from sessiondb import events, process
from sessiondb.backend import Database, ReadTx, Row, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.errors import (
    CompactionRunning,
    CompactionTimeout,
    InvalidInput,
    SessionDBError,
    outcome_of,
)
from sessiondb.events import Audience
from sessiondb.limits import COMPACTION_TIMEOUT_S, KEEP_RECENT_TOKENS, PAGE_ENTRIES_MAX
from sessiondb.models import CompactionResult, Entry, EpochInfo, Event, Receipt, SessionInfo

from . import append, compaction, paths, registry
from .compaction import GivenUp, Job, Summary
from .context import Context, decode_messages, read_context
from .entries import Draft, Item, check_append, is_large, prepare, prepare_all
from .keys import parse_key

logger = logging.getLogger("sessiondb")

_EPOCHS_PAGE = 200


class Session:
    """One transcript. A handle: it holds no state, so it never disagrees with the database."""

    def __init__(self, db: Database, ref: registry.Ref) -> None:
        self.db = db
        self.ref = ref
        """The session's number and id (`session_no`, `session_id`): the number is what names it in the tables."""

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    @property
    def id(self) -> str:
        """The session's id."""
        return self.ref.session_id

    async def info(self) -> SessionInfo:
        """Describe the session: its keys, sizes and times, as of one snapshot. For one that has ended or is archived too."""
        return await self.db.read("session.info", lambda tx: registry.info(tx, self.ref.session_no))

    # -- append and read ------------------------------------------------------------------------------------

    async def append(
        self, item: Item, *, idempotency_key: str | None = None, timeout_s: float | None = None
    ) -> Receipt:
        """Append a message, a typed entry, or the JSON text of either, after the head.

        On disk when it returns. With an idempotency key it may be repeated: the second time returns the first
        receipt with `duplicate=True`. Never waits for a compaction or an import; a slow
        reader costs it at most `Limits.wal_reset_ms_max`, while the WAL is reset.

        Raises:
            InvalidInput: not JSON, or neither a message (with a role) nor an entry (with a type).
            StoreBusy: the queue is full; retry after `retry_after_ms`.
            NotExecuted: `timeout_s` passed before the transaction began.
            NotFound: the entry names a parent that is not in the transcript.
            SessionEnded: the session has ended; fork it to go on. As SessionArchived: restore it first.
        """
        return (await self._append([await prepare(item, idempotency_key)], timeout_s))[0]

    async def append_many(
        self,
        items: Sequence[Item],
        *,
        idempotency_keys: Sequence[str | None] | None = None,
        timeout_s: float | None = None,
    ) -> list[Receipt]:
        """Append several in order: all of them or none. Otherwise like `append`.

        Raises:
            InvalidInput: one of them cannot be stored (its index is in the message), or too many at once.
            StoreBusy, NotExecuted, NotFound, SessionEnded: as of `append`; none of them was stored.
        """
        check_append(len(items), 0)
        keys = idempotency_keys if idempotency_keys is not None else [None] * len(items)
        if len(keys) != len(items):
            raise InvalidInput(f"{len(items)} entries but {len(keys)} idempotency keys")
        drafts = await prepare_all(items, keys)
        return await self._append(drafts, timeout_s) if drafts else []

    async def _append(self, drafts: list[Draft], timeout_s: float | None) -> list[Receipt]:
        size = sum(draft.size for draft in drafts)
        check_append(len(drafts), size)
        return await self.db.write(
            "append",
            lambda tx: append.append(tx, self.ref.session_no, drafts),
            size=size,
            timeout_s=timeout_s,
        )

    async def context(self, *, epoch: int | None = None, decode: bool = True) -> Context:
        """Read what the model is sent now or, with `epoch`, was sent at the end of that epoch.

        Messages are decoded on a reader thread; `decode=False` leaves that out, for callers of `as_json()`.

        Raises:
            NotFound: no such epoch.
            SessionArchived: its entries are in an archive; `db.restore` brings them back.
        """

        def read(tx: ReadTx) -> Context:
            context = read_context(tx, self.ref.session_no, epoch)
            if decode:
                context.messages  # noqa: B018  decoded here, on the reader thread, and kept
            return context

        return await self.db.read("context", read)

    async def entries(
        self,
        *,
        after: Entry | Receipt | int | None = None,
        before: Entry | Receipt | int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[Entry]:
        """Read one page of the current path: oldest first, or newest first.

        `after` and `before` are entries (or their `entry_no`) that bound the page; both are left out of it. To
        page on, pass the last entry of a page as `after` (or as `before`, newest first). At most 1,000 a page.

        Raises:
            NotFound: a bound is not on the current path (the head has moved to another branch).
            SessionArchived: its entries are in an archive; `db.restore` brings them back.
        """
        after_no, before_no = _entry_no(after), _entry_no(before)

        def read(tx: ReadTx) -> list[Entry]:
            state = append.load_state(tx, self.ref.session_no)
            paths.require_entries(state.session_id, state.archived_at_ms)
            rows = paths.read_path(
                tx,
                state.head_no,
                after_no=after_no,
                before_no=before_no,
                limit=limit,
                backward=newest_first,
            )
            return _entries(rows)

        return await self.db.read("entries", read)

    async def tail(self, count: int = 20) -> list[Entry]:
        """Read the last entries of the current path, oldest first; at most 1,000. Raises SessionArchived, as `entries`."""
        newest = await self.entries(limit=min(count, PAGE_ENTRIES_MAX), newest_first=True)
        return newest[::-1]

    async def arrivals(self, *, after_seq: int = -1, limit: int = 100) -> list[Entry]:
        """Read one page of everything in order of arrival: all branches, control records, and the header (seq 0).

        To page on, pass the last entry's `seq`. At most 1,000 a page.

        Raises:
            SessionArchived: its entries are in an archive; `db.restore` brings them back.
        """
        return await self.db.read(
            "arrivals",
            lambda tx: _entries(
                paths.read_arrivals(tx, self.ref.session_no, after_seq=after_seq, limit=limit)
            ),
        )

    async def epochs(self) -> list[EpochInfo]:
        """List the generations of the context, oldest first.

        Raises:
            SessionArchived: its entries are in an archive; `db.restore` brings them back.
        """
        found: list[EpochInfo] = []
        while True:
            rows = await self.db.read("epochs", _epochs_page(self.ref.session_no, len(found)))
            found += [
                EpochInfo(row.epoch, row.reason, row.opened_at_ms, row.closed_at_ms) for row in rows
            ]
            if len(rows) < _EPOCHS_PAGE:
                return found

    async def events(self, *, audience: Audience = "user", limit: int = 50) -> list[Event]:
        """Read the session's newest events, oldest first: for a page that is opened late. Bounded: old ones are not looked for."""
        return await self.db.read(
            "session.events",
            lambda tx: events.of_session(tx, self.ref.session_no, audience=audience, limit=limit),
        )

    # -- moving ---------------------------------------------------------------------------------------------

    async def branch(self, entry_id: str | None) -> int:
        """Make another entry the head, so that the next append follows it; return the epoch. None is the root.

        Durable; moving to the present head changes nothing.

        Raises:
            NotFound: no such entry.
            SessionEnded: the session has ended; `fork(entry_id=...)` goes on from there.
        """
        return await self.db.write(
            "branch",
            lambda tx: registry.branch(tx, self.ref.session_no, entry_id, iso_from_ms(tx.now_ms)),
        )

    async def reset(self, reason: str = "reset", *, keep_from: str | None = None) -> int:
        """Begin the context anew in the same session; return the new epoch. Durable. Each call begins another epoch.

        With `keep_from` (an entry id) the conversation from there on stays in the context.

        Raises:
            NotFound: no such entry on the current path.
            InvalidInput: an unknown reason.
            SessionEnded: the session has ended.
        """
        registry.check_reset_reason(reason)
        return await self.db.write(
            "reset",
            lambda tx: registry.reset(
                tx,
                self.ref.session_no,
                reason=reason,
                keep_from=keep_from,
                timestamp=iso_from_ms(tx.now_ms),
            ),
        )

    async def fork(
        self,
        *,
        entry_id: str | None = None,
        epoch: int | None = None,
        key: str | None = None,
        session_id: str | None = None,
        cwd: str | None = None,
    ) -> Session:
        """Create a session that goes on from here, from an entry, or from the end of an epoch. Copies no entry.

        Durable on return. Each call makes another; one repeated with its `session_id` is refused. `key` is bound to it. A
        session that has ended can be forked.

        Raises:
            NotFound: no such entry or epoch.
            InvalidInput: both an entry and an epoch, or the id is taken; as InvalidKey: `key` is not a session key.
            SessionArchived: its entries are in an archive; `db.restore` brings them back.
        """
        if entry_id is not None and epoch is not None:
            raise InvalidInput("fork at an entry or at an epoch, not at both")
        parsed = parse_key(key) if key is not None else None
        chosen = (
            registry.check_session_id(session_id)
            if session_id is not None
            else registry.new_session_id()
        )
        ref = await self.db.write(
            "fork",
            lambda tx: registry.fork(
                tx,
                self.ref.session_no,
                session_id=chosen,
                entry_id=entry_id,
                epoch=epoch,
                key=parsed,
                cwd=cwd,
            ),
        )
        return Session(self.db, ref)

    async def end(self) -> bool:
        """End the session: it stays readable and can be forked, but accepts no append. False if it had ended.

        Durable; may be repeated. Its keys stay bound, so messages for them are refused until `db.unbind`.
        """
        return await self.db.write("session.end", lambda tx: registry.end(tx, self.ref.session_no))

    async def pin(self) -> None:
        """Have retention leave the session alone. Durable; may be repeated."""
        await self.db.write("pin", lambda tx: registry.pin(tx, self.ref.session_no))

    async def unpin(self) -> None:
        """Let retention have the session again. Durable; may be repeated."""
        await self.db.write("unpin", lambda tx: registry.unpin(tx, self.ref.session_no))

    # -- compaction -----------------------------------------------------------------------------------------

    def compact(
        self,
        *,
        trigger: str = "manual",
        keep_recent_tokens: int = KEEP_RECENT_TOKENS,
        timeout_s: float = COMPACTION_TIMEOUT_S,
    ) -> CompactionJob:
        """Return a compaction job, to be used as an async context manager.

        Inside the block nothing is held: `job.messages` is what to summarise, `job.commit(summary)` completes it.
        Leaving the block without a commit gives the job up, whatever the reason.

        Raises (on entering):
            SessionEnded: the session has ended.
            CompactionRunning: another job of this session is alive; a dead owner's is taken over.
            CompactionCoolDown: the last ones made no progress.
            NothingToCompact: nothing lies before what is to be kept.
        """
        return CompactionJob(
            self, trigger=trigger, keep_recent_tokens=keep_recent_tokens, timeout_s=timeout_s
        )

    async def undo_compaction(self) -> int:
        """Return to the context as it was before the last compaction, plus what arrived since; return the new epoch.

        Durable. Repeated, it undoes the compaction before that one.

        Raises:
            SessionEnded: the session has ended.
            NothingToUndo: the context does not begin at a compaction of this session.
        """
        return await self.db.write(
            "compaction.undo", lambda tx: compaction.undo(tx, self.ref.session_no)
        )


class CompactionJob(AbstractAsyncContextManager["CompactionJob"]):
    """A compaction in progress, as its owner holds it."""

    def __init__(
        self, session: Session, *, trigger: str, keep_recent_tokens: int, timeout_s: float
    ) -> None:
        if keep_recent_tokens < 0 or not 0 < timeout_s < math.inf:
            raise InvalidInput(
                "keep_recent_tokens cannot be negative, and timeout_s must be positive and finite"
            )
        self.session = session
        self._trigger = trigger
        self._keep_recent_tokens = keep_recent_tokens
        self._timeout_s = timeout_s
        self._job: Job | None = None
        self._span: list[bytes] = []
        self._scope = anyio.CancelScope()
        self.result: CompactionResult | None = None

    @property
    def _begun(self) -> Job:
        """What the job's row says.

        Raises:
            InvalidInput: the block has not been entered.
        """
        if self._job is None:
            raise InvalidInput(
                "a compaction begins when its block is entered: `async with session.compact() as job`"
            )
        return self._job

    @property
    def id(self) -> str:
        """The job's id, for `db.commit_compaction` from elsewhere."""
        return self._begun.compaction_id

    @property
    def base_epoch(self) -> int:
        """The epoch whose context is summarised."""
        return self._begun.base_epoch

    @property
    def tokens_before(self) -> int:
        """Tokens of the context when the job began."""
        return self._begun.tokens_before

    def as_json(self) -> bytes:
        """Return what to summarise as one JSON array, without decoding it."""
        return b"[" + b",".join(self._span) + b"]"

    @property
    def keeps_all(self) -> bool:
        """True: by hand, and nothing but unanswered messages. `messages` are the whole context, and all of it stays."""
        return self._begun.cut_no is None

    messages: list[dict[str, Any]]
    """What to summarise: the previous summary, if there is one, then every message up to the cut."""

    async def __aenter__(self) -> Self:
        if self._job is not None:
            raise InvalidInput(
                "a compaction job's block is entered once; call session.compact() again"
            )
        try:
            self._job = await self._begin()
            await self._read_span(self._job)
        except BaseException as error:
            # No job: nothing was begun. Otherwise the job is given up, also one whose begin was cancelled by
            # asyncio's task.cancel() after its transaction had begun.
            if self._job is not None:
                if isinstance(error, anyio.get_cancelled_exc_class()):
                    await self._give_up(
                        "cancelled", "it was cancelled before its block began", error
                    )
                else:
                    await self._give_up("failed", f"it could not begin: {error!r}", error)
            raise
        self._scope = anyio.CancelScope(deadline=anyio.current_time() + self._timeout_s)
        self._scope.__enter__()
        return self

    async def _begin(self) -> Job:
        db = self.session.db

        def begin(tx: Tx) -> Job:
            self._job = None
            job = compaction.begin(
                tx,
                self.session.ref.session_no,
                trigger=self._trigger,
                keep_recent_tokens=self._keep_recent_tokens,
                timeout_ms=round(self._timeout_s * 1000),
            )
            # Set here and not only by the caller, who may be cancelled while this commits and must then give the job up.
            # If COMMIT fails there is no such job, and giving it up changes nothing.
            self._job = job
            return job

        while True:
            try:
                return await db.write("compaction.begin", begin)
            except CompactionRunning as running:
                # Asking the kernel is I/O, so it happens here and not in the transaction; give_up is a compare-and-set.
                owner = running.owner
                if (
                    owner is None
                    or process.is_alive(owner.host, owner.boot_id, owner.pid, owner.pid_started)
                    is not False
                ):
                    raise
                logger.warning(
                    "session %s: compaction %s was abandoned by pid %s",
                    self.session.id,
                    running.compaction_id,
                    owner.pid,
                )
                await give_up_compaction(
                    db, running.compaction_id, "abandoned", f"its process (pid {owner.pid}) died"
                )

    async def _read_span(self, job: Job) -> None:
        def read(tx: ReadTx) -> tuple[list[bytes], list[dict[str, Any]]]:
            span = (
                compaction.read_kept(tx, job) if self.keeps_all else compaction.read_span(tx, job)
            )
            return span, decode_messages(span)

        self._span, self.messages = await self.session.db.read("compaction.span", read)

    async def renew(self, timeout_s: float) -> None:
        """Move the deadline to `timeout_s` from now, at most to ten times what was asked for at first. Durable; may be repeated.

        Raises:
            InvalidInput: `timeout_s` is not positive and finite, or the block has not been entered.
            CompactionRefused: the job is no longer running.
        """
        if not 0 < timeout_s < math.inf:
            raise InvalidInput("timeout_s must be positive and finite")
        deadline_ms = await self.session.db.write(
            "compaction.renew", lambda tx: compaction.renew(tx, self.id, round(timeout_s * 1000))
        )
        self._scope.deadline = anyio.current_time() + deadline_ms / 1000 - time.time()

    async def commit(
        self, summary: str, *, details: object = None, from_hook: bool | None = None
    ) -> CompactionResult:
        """Complete the job; durable on return. See `SessionDB.commit_compaction`."""
        # From here on there is no deadline: what the block does after its commit is its own business, and not to be cut off.
        deadline, self._scope.deadline = self._scope.deadline, math.inf
        try:
            self.result = await commit_compaction(
                self.session.db, self.id, summary, details=details, from_hook=from_hook
            )
        finally:
            if self.result is None:
                self._scope.deadline = deadline
        return self.result

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        timed_out = self._scope.cancel_called
        swallowed = self._scope.__exit__(exc_type, exc, tb)
        if self.result is not None:
            return swallowed
        if timed_out:
            await self._give_up("expired", f"no commit within {self._timeout_s:g} s", exc)
            error = CompactionTimeout(
                f"session {self.session.id}: compaction {self.id} made no commit within {self._timeout_s:g} s; the session goes on, "
                "and a late db.commit_compaction() is still reconciled",
                session_id=self.session.id,
                compaction_id=self.id,
            )
            if exc is None or swallowed:
                raise error
            return swallowed
        if exc is None:
            await self._give_up("failed", "its block was left without a commit", None)
        elif isinstance(exc, anyio.get_cancelled_exc_class()):
            await self._give_up("cancelled", "its block was cancelled", exc)
        else:
            await self._give_up("failed", f"{type(exc).__name__}: {exc}", exc)
        return swallowed

    async def _give_up(self, state: GivenUp, reason: str, cause: BaseException | None) -> None:
        """Record that the job ended. If even that cannot be written, its deadline ends it; the cause goes first."""
        interrupted: BaseException | None = None
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    await give_up_compaction(self.session.db, self.id, state, reason)
                break
            except SessionDBError as error:
                shown = interrupted or cause
                if shown is None:
                    raise
                shown.add_note(
                    f"sessiondb: compaction {self.id} could not be marked {state} ({error}); it expires at its deadline"
                )
                break
            except anyio.get_cancelled_exc_class() as cancelled:
                # asyncio's task.cancel() passes through a shield, once per call. What was not executed is tried again.
                interrupted = cancelled
                if outcome_of(cancelled) != "not_executed":
                    break
        if interrupted is not None:
            raise interrupted


async def commit_compaction(
    db: Database,
    compaction_id: str,
    summary: str,
    *,
    details: object = None,
    from_hook: bool | None = None,
) -> CompactionResult:
    """Complete a compaction. See `SessionDB.commit_compaction`."""
    if not isinstance(summary, str):
        raise InvalidInput(f"a summary is a text, not {type(summary).__name__}")
    encode = partial(Summary.of, summary, details, from_hook=from_hook)
    # What `details` hold is not known before they are encoded; a compaction can afford the way to a thread.
    prepared = (
        await anyio.to_thread.run_sync(encode)
        if details is not None or is_large(summary)
        else encode()
    )
    return await db.write(
        "compaction.commit",
        lambda tx: compaction.commit(tx, compaction_id, prepared, iso_from_ms(tx.now_ms)),
        size=len(prepared.text_json),
    )


async def give_up_compaction(db: Database, compaction_id: str, state: GivenUp, reason: str) -> bool:
    """Give a running job up. See `SessionDB.fail_compaction`."""
    return await db.write(
        "compaction.fail", lambda tx: compaction.give_up(tx, compaction_id, state, reason)
    )


def _entries(rows: Sequence[Row]) -> list[Entry]:
    """Make a page's entries, on the reader thread."""
    return [Entry(**row._asdict()) for row in rows]


def _entry_no(bound: Entry | Receipt | int | None) -> int | None:
    entry_no = bound.entry_no if isinstance(bound, Entry | Receipt) else bound
    if entry_no is not None and not isinstance(entry_no, int):
        raise InvalidInput(
            f"a page is bounded by an entry or its number, not by {type(entry_no).__name__}"
        )
    return entry_no


def _epochs_page(session_no: int, epoch: int) -> Callable[[ReadTx], list[Row]]:
    def page(tx: ReadTx) -> list[Row]:
        paths.require_readable(tx, session_no)
        return tx.all("transcript.epochs", session_no=session_no, epoch=epoch, limit=_EPOCHS_PAGE)

    return page
