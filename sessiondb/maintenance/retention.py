"""Retention: sessions that a policy does not keep are archived, and their space is given back.

`retention_plan.py` decides; here is how a plan is carried out.

Nothing protected goes: pinned, moved within `idle_days` (or restored then), with a running turn or compaction, with
messages or replies that are not done, still being imported, or the parent of a fork that uses its entries. That is
asked when planning, again in the transaction that begins an archive, and again in the one after which entries go.

`gc` first goes on with what an earlier one began and did not finish (`archive.py` says how), then carries the plan out,
one session after the other, then gives free pages back to the file system in bounded steps. No step holds a lock
across another; appends and turns go in between. Killed at any point it leaves nothing held and nothing half readable.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from sessiondb import clock, events
from sessiondb.backend import Backend, ReadTx, Row, Tx
from sessiondb.errors import SessionDBError, StoreBusy, StoreClosed, StoreFull, StoreReadOnly
from sessiondb.limits import PAGE_ROWS

from . import archive, pruning
from .retention_plan import DAY_MS, Outcome, RetentionDecision, RetentionPolicy, make_plan, measure

logger = logging.getLogger("sessiondb")

# Pages given back per call, in steps of a megabyte between which the writer serves its queue.
VACUUM_PAGES = 4_096
# These end a run: the next session would meet them too.
_FATAL = (StoreClosed, StoreFull, StoreReadOnly)


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What a run decided and did."""

    decisions: tuple[RetentionDecision, ...]
    """Sessions that go, and those over a limit that are kept; with `every`, all."""
    sessions: int
    """That are not archived, before."""
    kept: int
    """Of them, within every limit or protected."""
    resumed_archives: int
    """Archives that an earlier run had begun, brought to their end."""
    bytes_before: int
    bytes_after: int
    """The database's size; equal in a dry run."""
    bytes_free: int
    """Of that, pages free for what comes next."""
    pruned: dict[str, int]
    """Rows of finished work that were deleted, or in a dry run would be, by table; empty without `prune_days`."""
    dry_run: bool

    def count(self, outcome: Outcome) -> int:
        """Return how many decisions ended so."""
        return sum(1 for decision in self.decisions if decision.outcome == outcome)

    @property
    def ok(self) -> bool:
        """True when nothing failed."""
        return not self.count("failed")


# -- carrying it out ----------------------------------------------------------------------------------------


async def gc(
    backend: Backend,
    policy: RetentionPolicy,
    *,
    dry_run: bool = False,
    every: bool = False,
    now_ms: int | None = None,
) -> RetentionReport:
    """Decide, and unless it is a dry run carry it out. May be repeated, and interrupted at any point.

    `every` lists sessions within every limit too. `now_ms` is the time that ages are measured at: the present.

    Raises:
        StoreFull: the disk is full. What was done stays done.
    """
    chosen_ms = clock.now_ms() if now_ms is None else now_ms
    dry_run = dry_run or not policy.enforce
    before = await measure(backend)
    pruned: dict[str, int] = {}
    if policy.prune_days is not None:  # first: it is soon done, and archiving may take hours
        pruned = await pruning.prune(
            backend, before_ms=chosen_ms - round(policy.prune_days * DAY_MS), dry_run=dry_run
        )
    resumed_archives, failed = (0, []) if dry_run else await finish(backend)
    walk, decisions = await make_plan(backend, policy, chosen_ms, every=every)
    if not dry_run:
        for index, decision in enumerate(decisions):
            if decision.outcome == "planned":
                decisions[index] = await _carry_out(backend, policy, decision)
        await give_space_back(backend)
    after = before if dry_run else await measure(backend)
    missing = sum(
        1
        for created in decisions
        if created.action in ("archive", "delete") and created.outcome in ("planned", "done")
    )
    report = RetentionReport(
        (*failed, *decisions),
        walk.sessions,
        walk.sessions - missing,
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


async def _carry_out(
    backend: Backend, policy: RetentionPolicy, decision: RetentionDecision
) -> RetentionDecision:
    """Archive one session, or drop one archive; whatever stands in its way is said, and the next one's turn comes."""
    try:
        held = await (
            _drop(backend, decision)
            if decision.action == "drop"
            else _archive(backend, policy, decision)
        )
    except _FATAL:
        raise
    except SessionDBError as error:
        return replace(decision, outcome="failed", note=str(error))
    return (
        replace(decision, outcome="done")
        if held is None
        else replace(decision, outcome="kept", note=held)
    )


async def _archive(
    backend: Backend, policy: RetentionPolicy, decision: RetentionDecision
) -> str | None:
    for_space = decision.rule == "bytes" and policy.max_bytes is not None
    if for_space and (await measure(backend)).used <= policy.high_water * (policy.max_bytes or 0):
        return "enough has been freed by now"
    moved = await backend.read(
        lambda tx: tx.one("archive.session", session_no=decision.session_no), op="retention.look"
    )
    if moved.updated_at_ms != decision.updated_at_ms:
        return "it has moved since"
    archive_no, held = await archive.begin(
        backend, decision.session_no, decision.reason, keep_archive=policy.archive
    )
    if archive_no is None:
        return held
    row = await archive.advance(backend, archive_no)
    return None if row.state in ("archived", "deleted") else "something took hold of it meanwhile"


async def _drop(backend: Backend, decision: RetentionDecision) -> str | None:
    def look(tx: ReadTx) -> Row | None:
        kept = tx.first("archive.of_session", session_no=decision.session_no)
        return (
            tx.one("archive.get", archive_no=kept.archive_no)
            if kept is not None and kept.state == "archived"
            else None
        )

    row = await backend.read(look, op="retention.look")
    return await archive.drop(backend, row) if row is not None else "it was restored meanwhile"


async def finish(backend: Backend) -> tuple[int, list[RetentionDecision]]:
    """Bring what an earlier run began to its end; return how many archives that were, and those that failed. May be repeated."""
    done = after_no = 0
    failed: list[RetentionDecision] = []

    def page(tx: ReadTx) -> list[Row]:
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
                    await backend.read(_failing(row.archive_no, str(error)), op="retention.failed")
                )
        after_no = rows[-1].archive_no
    return done, failed


def _failing(archive_no: int, note: str) -> Callable[[ReadTx], RetentionDecision]:
    def look(tx: ReadTx) -> RetentionDecision:
        row = tx.one("archive.get", archive_no=archive_no)
        session = tx.one("archive.session", session_no=row.session_no)
        reason = f"begun by an earlier run, and still {row.state}"
        created = RetentionDecision(
            row.session_id,
            row.session_no,
            "archive",
            reason,
            session.updated_at_ms,
            0,
            session.last_seq,
        )
        return replace(created, outcome="failed", note=note)

    return look


async def give_space_back(backend: Backend) -> int:
    """Give free pages back to the file system, in bounded steps between which others write; return how many."""
    freed = 0
    try:
        while (step := await backend.incremental_vacuum(VACUUM_PAGES)) == VACUUM_PAGES:
            freed += step
    except StoreBusy as error:
        # What was archived stays so; the pages are used for what comes next, or given back by the next run.
        logger.info("retention: %s", error)
        return freed
    return freed + step


def _report(tx: Tx, report: RetentionReport) -> None:
    done = Counter(created.action for created in report.decisions if created.outcome == "done")
    message = (
        ", ".join(f"{count:,} {_DONE[action]}" for action, count in done.items())
        or "nothing archived"
    )
    events.emit(
        tx,
        "retention_done",
        "operator",
        f"Retention: {message}; {report.count('failed')} failed; {report.bytes_before:,} bytes before, {report.bytes_after:,} after",
        done=dict(done),
        failed=report.count("failed"),
        resumed_archives=report.resumed_archives,
        pruned=report.pruned,
        bytes_before=report.bytes_before,
        bytes_after=report.bytes_after,
    )


_DONE = {"archive": "archived", "delete": "deleted", "drop": "archives dropped", "keep": "kept"}
