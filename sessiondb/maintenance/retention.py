"""Retention: archive the sessions that a policy does not keep, and free their space.

`retention_plan.py` decides. Here a plan is carried out.

Protected sessions stay: pinned, changed or restored within `idle_days`, with a running turn
or compaction, with unfinished messages or replies, still being imported, or the parent of a
fork that uses its entries. The plan checks that, the transaction that begins an archive
checks it again, and so does the one after which entries are deleted.

`gc` first finishes what an earlier run began (`archive.py` says how). Then it carries the
plan out, one session after the other, and several small ones in one step
(`archive_small.py`). Then it returns free pages to the file system in bounded steps. No
step holds a lock across another, so appends and turns commit in between. A kill at any
point leaves no lock held and no session half readable.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from sessiondb import clock, events
from sessiondb.backend import Backend, ReadTx, Tx
from sessiondb.batching import BatchSize
from sessiondb.errors import SessionDBError, StoreBusy, StoreClosed, StoreFull, StoreReadOnly
from sessiondb.limits import PAGE_ROWS

from . import archive, archive_small, pruning
from .retention_plan import (
    DAY_MS,
    RetentionDecision,
    RetentionOutcome,
    RetentionPolicy,
    make_plan,
    measure,
)

if TYPE_CHECKING:
    from sessiondb import statements

logger = logging.getLogger("sessiondb")

# Pages freed per call, in steps of 1 MB between which the writer serves its queue.
VACUUM_PAGES = 4_096
# Sessions in a row that a run for space archives although the database does not become smaller.
# One alone may free no whole page.
IN_VAIN_MAX = 20
# Sessions that are looked at for one step. As many small ones as it handles are archived.
SMALL_AT_ONCE = 100
# These errors end a run, because the next session would meet them too.
_FATAL = (StoreClosed, StoreFull, StoreReadOnly)


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """The decisions and the effects of one run."""

    decisions: tuple[RetentionDecision, ...]
    """Sessions that go, and those over a limit that are kept. With `every`, all sessions."""
    sessions: int
    """Sessions that were not archived before the run."""
    kept: int
    """Sessions of those that are within every limit or protected."""
    resumed_archives: int
    """Archives that an earlier run had begun, and this one finished."""
    bytes_before: int
    bytes_after: int
    """The size of the database. A dry run changes nothing, so both are equal."""
    bytes_free: int
    """Bytes of that in free pages, which later writes use."""
    pruned: dict[str, int]
    """Rows of finished work that were deleted, by table. Empty without `prune_days`.

    In a dry run, rows that would be deleted.
    """
    dry_run: bool

    def count(self, outcome: RetentionOutcome) -> int:
        """Return the number of decisions with this outcome."""
        return sum(1 for decision in self.decisions if decision.outcome == outcome)

    @property
    def ok(self) -> bool:
        """True when nothing failed."""
        return not self.count("failed")


# -- carrying it out -------------------------------------------------------------------


async def gc(
    backend: Backend,
    policy: RetentionPolicy,
    *,
    dry_run: bool = False,
    every: bool = False,
    now_ms: int | None = None,
) -> RetentionReport:
    """Make a plan, and carry it out unless this is a dry run. Durable, step by step.

    May be interrupted at any point, and repeated. `every` also lists the sessions that are
    within every limit. Ages are measured at `now_ms`, by default the
    present of the application.

    Raises:
        StoreFull: the disk is full. Finished steps stay done.
    """
    chosen_ms = clock.stamp_ms() if now_ms is None else now_ms
    dry_run = dry_run or not policy.enforce
    before = await measure(backend)
    pruned: dict[str, int] = {}
    if policy.prune_days is not None:  # first, because it is short and archiving may take hours
        pruned = await pruning.prune(
            backend,
            before_ms=chosen_ms - round(policy.prune_days * DAY_MS),
            now_ms=chosen_ms,
            dry_run=dry_run,
        )
    resumed_archives, failed = (0, []) if dry_run else await finish(backend)
    walk, decisions = await make_plan(backend, policy, chosen_ms, every=every)
    if not dry_run:
        await _carry_out_all(backend, policy, decisions, _Space(policy, before.used))
        await free_pages(backend)
    after = before if dry_run else await measure(backend)
    gone = sum(
        1
        for decision in decisions
        if decision.action in ("archive", "delete") and decision.outcome in ("planned", "done")
    )
    report = RetentionReport(
        (*failed, *decisions),
        walk.sessions,
        walk.sessions - gone,
        resumed_archives,
        before.bytes,
        after.bytes,
        after.free,
        pruned,
        dry_run,
    )
    if not dry_run and (
        resumed_archives or report.count("done") or report.count("failed") or any(pruned.values())
    ):
        await backend.step(lambda tx: _report(tx, report), op="retention.report")
    return report


class _Space:
    """Whether a run for space goes on: until it is enough, or while it helps.

    A plan estimates. Where an archive frees less than it takes, each further one makes the
    database larger, and a limit of bytes would archive everything and free nothing.
    """

    def __init__(self, policy: RetentionPolicy, used: int) -> None:
        self.wanted = policy.high_water * (policy.max_bytes or 0)
        self._least = used
        self._in_vain = 0

    def ends_because(self, used: int) -> str | None:
        """Return why no further session goes for space. `used` is what the database holds now."""
        if used <= self.wanted:
            return "enough space has been freed"
        self._in_vain = self._in_vain + 1 if used >= self._least else 0
        self._least = min(used, self._least)
        if self._in_vain > IN_VAIN_MAX:
            return "the sessions before it freed no space"
        return None


async def _carry_out_all(
    backend: Backend, policy: RetentionPolicy, decisions: list[RetentionDecision], space: _Space
) -> None:
    """Carry out what is planned, and put what became of it into the list.

    Small sessions that follow one another go in one step.
    """
    planned = deque(at for at, decision in enumerate(decisions) if decision.outcome == "planned")
    batch_size = BatchSize()
    while planned:
        next_ones = [decisions[at] for at in islice(planned, SMALL_AT_ONCE)]
        outcomes = await _archive_some(backend, [*takewhile(_may_share, next_ones)], batch_size)
        for _ in outcomes:
            at = planned.popleft()
            decisions[at] = _ended(decisions[at], outcomes[decisions[at].session_no])
        if not outcomes:
            at = planned.popleft()
            decisions[at] = await _carry_out(backend, policy, decisions[at], space)


def _may_share(decision: RetentionDecision) -> bool:
    """Return whether a session may be archived in one step with others.

    One that goes for space goes alone: it may be enough.
    """
    return decision.action == "archive" and decision.rule != "bytes"


async def _archive_some(
    backend: Backend, decisions: list[RetentionDecision], batch_size: BatchSize
) -> dict[int, str | None]:
    """Archive the first of some sessions in one step. Return why each was kept, or None.

    Nothing is returned where the first one is too large for that, or the step failed. Then it is
    tried by itself, and an error is that session's.
    """
    if not decisions:
        return {}
    try:
        done = await archive_small.archive_some(
            backend, [_wanted(decision) for decision in decisions], rows_max=batch_size.rows
        )
    except _FATAL:
        raise
    except SessionDBError as error:
        logger.info("retention: %s", error)
        return {}
    if done.held_ms:
        batch_size.learn(done.held_ms)
    return done.outcomes


def _wanted(decision: RetentionDecision) -> archive_small.Wanted:
    return archive_small.Wanted(decision.session_no, decision.reason, decision.updated_at_ms)


async def _carry_out(
    backend: Backend, policy: RetentionPolicy, decision: RetentionDecision, space: _Space
) -> RetentionDecision:
    """Archive one session, or drop one archive.

    What prevents that is noted in the decision, and the run continues with the next.
    """
    try:
        kept_because = await (
            _drop(backend, decision)
            if decision.action == "drop"
            else _archive(backend, policy, decision, space)
        )
    except _FATAL:
        raise
    except SessionDBError as error:
        return replace(decision, outcome="failed", note=str(error))
    return _ended(decision, kept_because)


def _ended(decision: RetentionDecision, kept_because: str | None) -> RetentionDecision:
    return (
        replace(decision, outcome="done")
        if kept_because is None
        else replace(decision, outcome="kept", note=kept_because)
    )


async def _archive(
    backend: Backend, policy: RetentionPolicy, decision: RetentionDecision, space: _Space
) -> str | None:
    if decision.rule == "bytes":
        ends_because = space.ends_because((await measure(backend)).used)
        if ends_because is not None:
            return ends_because
    if policy.archive:
        return await archive_small.archive_one(backend, _wanted(decision))
    archive_no, kept_because = await archive.begin(
        backend, decision.session_no, decision.reason, keep_archive=False
    )
    return kept_because if archive_no is None else await archive.end(backend, archive_no)


async def _drop(backend: Backend, decision: RetentionDecision) -> str | None:
    def read(tx: ReadTx) -> statements.ArchiveGet | None:
        kept = tx.first("archive.of_session", session_no=decision.session_no)
        return (
            tx.one("archive.get", archive_no=kept.archive_no)
            if kept is not None and kept.state == "archived"
            else None
        )

    row = await backend.read(read, op="retention.look")
    return await archive.drop(backend, row) if row is not None else "it was restored meanwhile"


async def finish(backend: Backend) -> tuple[int, list[RetentionDecision]]:
    """Finish the archives that an earlier run began. May be repeated.

    Return how many were finished, and decisions about those that failed.
    """
    done = after_no = 0
    failed: list[RetentionDecision] = []

    def page(tx: ReadTx) -> list[statements.ArchiveUnfinished]:
        return tx.all("archive.unfinished", after_no=after_no, limit=PAGE_ROWS)

    while rows := await backend.read(page, op="retention.unfinished"):
        for row in rows:
            try:
                await archive.advance(backend, row.archive_no)
                done += 1
            except _FATAL:
                raise
            except SessionDBError as error:
                failed.append(
                    await backend.read(_failed(row.archive_no, str(error)), op="retention.failed")
                )
        after_no = rows[-1].archive_no
    return done, failed


def _failed(archive_no: int, note: str) -> Callable[[ReadTx], RetentionDecision]:
    def decision(tx: ReadTx) -> RetentionDecision:
        row = tx.one("archive.get", archive_no=archive_no)
        session = tx.one("archive.session", session_no=row.session_no)
        reason = f"begun by an earlier run, and still {row.state}"
        return RetentionDecision(
            row.session_id,
            row.session_no,
            "archive",
            reason,
            session.updated_at_ms,
            0,
            session.last_seq,
            outcome="failed",
            note=note,
        )

    return decision


async def free_pages(backend: Backend) -> int:
    """Return free pages to the file system, and return their number.

    In bounded steps, between which other writers commit.
    """
    freed = 0
    try:
        while (step := await backend.incremental_vacuum(VACUUM_PAGES)) == VACUUM_PAGES:
            freed += step
    except StoreBusy as error:
        # Archived sessions stay archived. Later writes use the pages, or the next run frees them.
        logger.info("retention: %s", error)
        return freed
    return freed + step


def _report(tx: Tx, report: RetentionReport) -> None:
    done = Counter(decision.action for decision in report.decisions if decision.outcome == "done")
    actions = ", ".join(f"{count:,} {_DONE[action]}" for action, count in done.items())
    events.emit(
        tx,
        "retention_done",
        "operator",
        f"Retention: {actions or 'nothing archived'}, {report.count('failed')} failed; "
        f"{report.bytes_before:,} bytes before, {report.bytes_after:,} after",
        done=dict(done),
        failed=report.count("failed"),
        resumed_archives=report.resumed_archives,
        pruned=report.pruned,
        bytes_before=report.bytes_before,
        bytes_after=report.bytes_after,
    )


_DONE = {"archive": "archived", "delete": "deleted", "drop": "archives dropped", "keep": "kept"}
