"""The handle of a compaction in progress, as its owner holds it.

A `CompactionJob` holds a deadline and the duty to say how its job ended. Whatever way its
block is left, the job's row is given an end, and nothing else waits for it.
"""

from __future__ import annotations

import logging
import math
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

import anyio

from sessiondb import threads
from sessiondb.arguments import checks_arguments
from sessiondb.backend import Database, ReadTx, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.errors import (
    CompactionRunning,
    CompactionTimeout,
    InvalidInput,
    SessionDBError,
    StoreBusy,
    outcome_of,
)
from sessiondb.limits import CUT_CHOICES_MAX, CUT_RETRY_AFTER_MS, duration_ms
from sessiondb.models import CompactionResult
from sessiondb.waiter import Deadline

from . import compaction
from .compaction import Choice, GivenUp, Job, Summary
from .context import decode_messages
from .entries import is_large, off_loop
from .registry import SessionRef

logger = logging.getLogger("sessiondb")


class SessionHandle(Protocol):
    """What a job asks of its session. `Session` is one, and imports this module."""

    db: Database
    ref: SessionRef

    @property
    def id(self) -> str:
        """The session's id."""


@checks_arguments
class CompactionJob(AbstractAsyncContextManager["CompactionJob"]):
    """A compaction in progress, by its owner's handle."""

    def __init__(
        self,
        session: SessionHandle,
        *,
        trigger: str,
        keep_recent_tokens: int,
        threshold_tokens: int | None,
        timeout_s: float,
    ) -> None:
        if keep_recent_tokens < 0 or not 0 < timeout_s < math.inf:
            raise InvalidInput(
                "keep_recent_tokens cannot be negative, and timeout_s must be positive and finite"
            )
        if threshold_tokens is not None and threshold_tokens < 0:
            raise InvalidInput("threshold_tokens cannot be negative")
        self.session = session
        self._trigger = trigger
        self._keep_recent_tokens = keep_recent_tokens
        self._threshold_tokens = threshold_tokens
        self._timeout_s = timeout_s
        self._job: Job | None = None
        self._span: list[bytes] = []
        self._deadline = Deadline(math.inf)
        self.result: CompactionResult | None = None

    @property
    def _begun(self) -> Job:
        """The job, as its row describes it.

        Raises:
            InvalidInput: the block has not been entered.
        """
        if self._job is None:
            raise InvalidInput(
                "a compaction begins when its block is entered: "
                "`async with session.compact() as job`"
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
        """Return the messages to summarise as one JSON array, without decoding them."""
        return b"[" + b",".join(self._span) + b"]"

    @property
    def keeps_all(self) -> bool:
        """True: a manual compaction of nothing but what still waits for an answer.

        `messages` are the whole context, and all of it stays.
        """
        return self._begun.cut_no is None

    messages: list[dict[str, Any]]
    """The messages to summarise: the previous summary, if any, then all up to the cut."""

    @property
    def deadline_ms(self) -> int:
        """When it ends without a commit, as of its begin. Each renewal moves that."""
        return self._begun.deadline_ms

    async def begin(self) -> Self:
        """Begin without a block, for a summariser that is in no process of the library.

        Nobody ends the job but a call by its id, `db.commit_compaction` or `db.fail_compaction`, or
        its deadline, which `db.renew_compaction` moves. Durable on return.

        Raises:
            SessionEnded, CompactionRunning, CompactionCoolDown, NothingToCompact, StoreBusy: as on
                entering the block (`Session.compact`).
        """
        if self._job is not None:
            raise InvalidInput(
                "a compaction job's block is entered once; call session.compact() again"
            )
        try:
            self._job = await self._begin()
            await self._read_span(self._job)
        except BaseException as error:
            # No job: nothing was begun. Otherwise the job is given up, also when asyncio's
            # task.cancel() cancelled its begin after the transaction had begun.
            if self._job is not None:
                if isinstance(error, anyio.get_cancelled_exc_class()):
                    await self._give_up(
                        "cancelled", "it was cancelled before its block began", error
                    )
                else:
                    await self._give_up("failed", f"it could not begin: {error!r}", error)
            raise
        return self

    async def __aenter__(self) -> Self:
        await self.begin()
        self._deadline = Deadline(self._timeout_s, by=self.session.db.clock)
        self._deadline.__enter__()
        return self

    async def _begin(self) -> Job:
        db = self.session.db

        def choose(tx: ReadTx) -> Choice:
            return compaction.choose(
                tx,
                self.session.ref.session_no,
                trigger=self._trigger,
                keep_recent_tokens=self._keep_recent_tokens,
            )

        def begin(tx: Tx, choice: Choice) -> Job | None:
            self._job = None
            job = compaction.begin(
                tx,
                choice,
                timeout_ms=duration_ms(self._timeout_s),
                threshold_tokens=self._threshold_tokens,
            )
            # Set here and not only by the caller: a caller that is cancelled while this commits
            # must give the job up. If COMMIT fails, giving up a missing job changes nothing.
            self._job = job
            return job

        choices = 0
        while choices < CUT_CHOICES_MAX:
            choice = await db.read("compaction.choose", choose)
            try:
                job = await db.write("compaction.begin", partial(begin, choice=choice))
                if job is not None:
                    return job
                choices += 1
            except CompactionRunning as running:
                # Asking the kernel is I/O, so it happens outside the transaction. That is safe
                # because give_up is a compare-and-set.
                owner = running.owner
                if owner is None:
                    raise
                [alive] = await threads.run(db.backend.liveness, [owner])
                if alive is not False:
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

        raise StoreBusy(
            f"session {self.session.id}: its context changed each of {choices} times that a cut "
            "was chosen. Nothing was begun. Retry when it is quieter",
            retry_after_ms=CUT_RETRY_AFTER_MS,
            session_id=self.session.id,
        )

    async def _read_span(self, job: Job) -> None:
        def read(tx: ReadTx) -> tuple[list[bytes], list[dict[str, Any]]]:
            span = (
                compaction.read_kept(tx, job) if self.keeps_all else compaction.read_span(tx, job)
            )
            return span, decode_messages(span)

        self._span, self.messages = await self.session.db.read("compaction.span", read)

    async def renew(self, timeout_s: float) -> None:
        """Move the deadline to `timeout_s` from now, at most to 10 times the first timeout.

        Durable, and may be repeated.

        Raises:
            InvalidInput: `timeout_s` is not positive and finite, or the block has not been entered.
            CompactionRefused: the job is no longer running.
        """
        deadline_ms = await renew_compaction(self.session.db, self.id, timeout_s)
        clock = self.session.db.clock
        self._deadline.move(clock.monotonic() + (deadline_ms - clock.now_ms()) / 1000)

    async def commit(
        self, summary: str, *, details: object = None, from_hook: bool | None = None
    ) -> CompactionResult:
        """Complete the job. Durable on return. See `SessionDB.commit_compaction`."""
        # The deadline ends here: it must not cancel the block after its commit.
        at = self._deadline.at
        self._deadline.move(math.inf)
        try:
            self.result = await commit_compaction(
                self.session.db, self.id, summary, details=details, from_hook=from_hook
            )
        finally:
            if self.result is None:
                self._deadline.move(at)
        return self.result

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        timed_out = self._deadline.has_passed
        swallowed = self._deadline.__exit__(exc_type, exc, tb)
        if self.result is not None:
            return swallowed
        if timed_out:
            await self._give_up("expired", f"no commit within {self._timeout_s:g} s", exc)
            error = CompactionTimeout(
                f"session {self.session.id}: compaction {self.id} made no commit within "
                f"{self._timeout_s:g} s; the session goes on, and a late db.commit_compaction() "
                "is still reconciled",
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
        """Record that the job ended. If that cannot be written either, its deadline ends it.

        The error of the block, its cause, takes precedence over one of writing.
        """
        interrupted: BaseException | None = None
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    await give_up_compaction(self.session.db, self.id, state, reason)
                break
            except SessionDBError as error:
                raised = interrupted or cause
                if raised is None:
                    raise
                raised.add_note(
                    f"sessiondb: compaction {self.id} could not be marked {state} ({error}); "
                    "it expires at its deadline"
                )
                break
            except anyio.get_cancelled_exc_class() as cancelled:
                # asyncio's task.cancel() passes through a shield, once per call. A write that was
                # not executed is repeated.
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
    # Only encoding shows the size of `details`, and a compaction can afford a thread.
    prepared = await off_loop(encode) if details is not None or is_large(summary) else encode()
    return await db.write(
        "compaction.commit",
        lambda tx: compaction.commit(tx, compaction_id, prepared, iso_from_ms(tx.stamp_ms)),
        size=len(prepared.text_json),
    )


async def renew_compaction(db: Database, compaction_id: str, timeout_s: float) -> int:
    """Move a running job's deadline. See `SessionDB.renew_compaction`."""
    if not 0 < timeout_s < math.inf:
        raise InvalidInput("timeout_s must be positive and finite")
    return await db.write(
        "compaction.renew",
        lambda tx: compaction.renew(tx, compaction_id, duration_ms(timeout_s)),
    )


async def give_up_compaction(db: Database, compaction_id: str, state: GivenUp, reason: str) -> bool:
    """Give a running job up. See `SessionDB.fail_compaction`."""
    return await db.write(
        "compaction.fail", lambda tx: compaction.give_up(tx, compaction_id, state, reason)
    )
