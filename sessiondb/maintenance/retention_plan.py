"""The retention plan: what a policy keeps, which sessions go, and why.

A plan walks the sessions once, last changed first, a page per snapshot, and asks of each which limit it is over: age,
how many sessions there may be, how many an agent may have bound. Only those are looked at further: what protects them,
how much they hold. If the database is larger than it may be, the oldest of the rest are added until enough would
be freed. So a plan costs one index walk over `session`, and reads of those that will go; entries of sessions that stay
are never read. Every decision says its reason, also that something over a limit is kept, and why.

A plan changes nothing and holds nothing between its pages; `retention.py` carries it out, and asks again what protects a
session when it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sessiondb.backend import Backend, ReadTx, Row
from sessiondb.limits import PAGE_ROWS, SEQ_MAX
from sessiondb.transcript.paths import entry_number

from . import archive

Action = Literal["archive", "delete", "drop", "keep"]
Outcome = Literal["planned", "done", "kept", "failed"]
Rule = Literal["age", "count", "bindings", "bytes", "archive_age", "none"]

DAY_MS = 86_400_000
# What one snapshot weighs of a session's entries: it reads lengths, a few megabytes of pages.
WEIGH_ROWS = 5_000
# What a row and its index entries take beside its text; and what compression leaves of a text, as transcripts usually go.
ROW_BYTES = 200
ARCHIVE_RATIO = 0.25


# -- policy -------------------------------------------------------------------------------------------------


class RetentionPolicy(BaseModel):
    """What is kept. A limit of None is no limit; with none at all nothing goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_age_days: float | None = Field(default=None, ge=0)
    """A session that has not changed for longer goes."""
    idle_days: float = Field(default=1.0, ge=0)
    """One that changed, or was restored, more recently is left alone whatever a limit says."""
    max_sessions: int | None = Field(default=None, ge=0)
    """Sessions that are not archived; those that changed longest ago go first."""
    max_bindings_per_agent: int | None = Field(default=None, ge=0)
    """Keys that one agent's sessions may be reached by; likewise."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Of the database, without free pages. Over it, the oldest go until it is at `high_water` of that."""
    high_water: float = Field(default=0.8, gt=0, le=1)
    archive: bool = True
    """False: what goes is deleted, without an archive, and cannot be restored."""
    archive_days: float | None = Field(default=None, ge=0)
    """An archive older than this is deleted for good; None keeps archives."""
    prune_days: float | None = Field(default=None, ge=0)
    """Done messages, sent replies, ended turns and events older than this are deleted (`pruning.py` says what ends with them)."""
    enforce: bool = True
    """False: decide and report, change nothing."""


# -- decisions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetentionDecision:
    """What is to become of one session, and why; and what became of it."""

    session_id: str
    session_no: int
    action: Action
    reason: str
    updated_at_ms: int
    keys: int
    entries: int
    bytes: int = 0
    """Its texts, when they were weighed."""
    outcome: Outcome = "planned"
    note: str = ""
    """Why it was kept after all, or what went wrong."""
    rule: Rule = "none"
    """Which limit asks for it: `max_age_days`, `max_sessions`, `max_bindings_per_agent`, `max_bytes`, `archive_days`, or none."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large the database is."""

    bytes: int
    free: int

    @property
    def used(self) -> int:
        """Without the pages that are free for what comes next."""
        return self.bytes - self.free


async def measure(backend: Backend) -> Size:
    """Measure the database."""
    row = await backend.read(lambda tx: tx.one("status.file"), op="retention.size")
    return Size(row.pages * row.page_bytes, row.pages_free * row.page_bytes)


# -- the plan -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Walk:
    """A plan in the making: what it has counted so far, newest first."""

    policy: RetentionPolicy
    now_ms: int
    every: bool
    sessions: int = 0
    bound: Counter[str | None] = field(default_factory=Counter)
    decisions: dict[int, RetentionDecision] = field(default_factory=dict)

    def look(self, tx: ReadTx, row: Row) -> None:
        """Decide about the next session."""
        if row.archived_at_ms is not None:
            return
        self.sessions += 1
        self.bound[row.agent_id] += row.keys
        rule, why = self._over(row)
        if rule != "none":
            self.decide(tx, row, rule, why)
        elif self.every:
            self.decisions[row.session_no] = _decision(row, "keep", why, "kept", rule)

    def decide(self, tx: ReadTx, row: Row, rule: Rule, why: str) -> None:
        """A limit asks for a session: it goes, unless something protects it."""
        held = self.protected(tx, row)
        action: Action = (
            "keep" if held is not None else "archive" if self.policy.archive else "delete"
        )
        reason = f"{why}, but {held}" if held is not None else why
        self.decisions[row.session_no] = _decision(
            row, action, reason, "kept" if held is not None else "planned", rule
        )

    def _over(self, row: Row) -> tuple[Rule, str]:
        """Return the first limit that a session is over, and the reason to give."""
        policy, age_days = self.policy, (self.now_ms - row.updated_at_ms) / DAY_MS
        if policy.max_age_days is not None and age_days > policy.max_age_days:
            return (
                "age",
                f"has not changed for {_in_days(round(age_days))} (limit {policy.max_age_days:g})",
            )
        if policy.max_sessions is not None and self.sessions > policy.max_sessions:
            return (
                "count",
                f"it is number {self.sessions:,} by last change (limit {policy.max_sessions:,})",
            )
        if (
            policy.max_bindings_per_agent is not None
            and row.keys
            and self.bound[row.agent_id] > policy.max_bindings_per_agent
        ):
            return (
                "bindings",
                f"agent {row.agent_id} has more than {policy.max_bindings_per_agent:,} keys that were used later",
            )
        return "none", "within every limit"

    def protected(self, tx: ReadTx, row: Row) -> str | None:
        idle_ms = self.policy.idle_days * DAY_MS
        if self.now_ms - row.updated_at_ms < idle_ms:
            return f"it changed within {_in_days(self.policy.idle_days)}"
        if row.restored_at_ms is not None and self.now_ms - row.restored_at_ms < idle_ms:
            return f"it was restored within {_in_days(self.policy.idle_days)}"
        return archive.protection(tx, row.session_no, keep_archive=self.policy.archive)


def _in_days(days: float) -> str:
    return f"{days:g} day{'' if days == 1 else 's'}"


def _decision(
    row: Row, action: Action, reason: str, outcome: Outcome, rule: Rule
) -> RetentionDecision:
    return RetentionDecision(
        row.session_id,
        row.session_no,
        action,
        reason,
        row.updated_at_ms,
        row.keys,
        row.last_seq,
        outcome=outcome,
        rule=rule,
    )


async def make_plan(
    backend: Backend, policy: RetentionPolicy, now_ms: int, *, every: bool
) -> tuple[Walk, list[RetentionDecision]]:
    """Decide about every session; return the walk, and decisions in the order in which they are carried out: oldest first."""
    walk = Walk(policy, now_ms, every)
    before: tuple[int, int] | None = (2**62, 2**62)

    def page(tx: ReadTx) -> tuple[int, int] | None:
        assert before is not None
        rows = tx.all("retention.newest", before_ms=before[0], before_no=before[1], limit=PAGE_ROWS)
        for row in rows:
            walk.look(tx, row)
        return (rows[-1].updated_at_ms, rows[-1].session_no) if len(rows) == PAGE_ROWS else None

    while before is not None:
        before = await backend.read(page, op="retention.plan")
    for number, decision in walk.decisions.items():
        if decision.outcome == "planned":
            walk.decisions[number] = replace(decision, bytes=await _weigh(backend, number))
    if policy.max_bytes is not None:
        await _plan_bytes(backend, walk, policy.max_bytes)
    dropped = (
        await _plan_archives(backend, policy, now_ms) if policy.archive_days is not None else []
    )
    return walk, [
        *sorted(
            walk.decisions.values(), key=lambda created: (created.updated_at_ms, created.session_no)
        ),
        *dropped,
    ]


async def _weigh(backend: Backend, session_no: int) -> int:
    """Return how many bytes of text a session holds; a few thousand entries per snapshot."""
    low_no, high_no, total = entry_number(session_no, 0), entry_number(session_no, SEQ_MAX), 0

    def weigh(tx: ReadTx) -> list[tuple[int, int]]:
        return tx.tuples(
            "import_file.entry_sizes", low_no=low_no, high_no=high_no, limit=WEIGH_ROWS
        )

    while True:
        sizes = await backend.read(weigh, op="retention.weigh")
        total += sum(size for _, size in sizes)
        if len(sizes) < WEIGH_ROWS:
            return total
        low_no = sizes[-1][0] + 1


def _freed(decision: RetentionDecision, policy: RetentionPolicy) -> float:
    """Estimate what archiving a session frees."""
    held = decision.bytes + ROW_BYTES * decision.entries
    return held - ARCHIVE_RATIO * decision.bytes if policy.archive else held


async def _plan_bytes(backend: Backend, walk: Walk, max_bytes: int) -> None:
    """Add the oldest sessions until the database would be small enough."""
    used = (await measure(backend)).used
    if used <= max_bytes:
        return
    policy, target = walk.policy, walk.policy.high_water * max_bytes
    left = (
        used
        - target
        - sum(
            _freed(created, policy)
            for created in walk.decisions.values()
            if created.outcome == "planned"
        )
    )
    why = f"the database holds {used:,} bytes (limit {max_bytes:,})"
    after: tuple[int, int] | None = (-(2**62), 0)

    def page(tx: ReadTx) -> list[Row]:
        assert after is not None
        return tx.all("retention.oldest", after_ms=after[0], after_no=after[1], limit=PAGE_ROWS)

    while left > 0 and after is not None:
        rows = await backend.read(page, op="retention.plan")
        for row in rows:
            created = walk.decisions.get(row.session_no)
            if left <= 0:
                return
            if row.archived_at_ms is not None or (created is not None and created.rule != "none"):
                continue
            await backend.read(_deciding(walk, row, why), op="retention.plan")
            created = walk.decisions[row.session_no]
            if created.outcome == "planned":
                created = walk.decisions[row.session_no] = replace(
                    created, bytes=await _weigh(backend, row.session_no)
                )
                left -= _freed(created, policy)
        after = (rows[-1].updated_at_ms, rows[-1].session_no) if len(rows) == PAGE_ROWS else None


def _deciding(walk: Walk, row: Row, why: str) -> Callable[[ReadTx], None]:
    return lambda tx: walk.decide(tx, row, "bytes", why)


async def _plan_archives(
    backend: Backend, policy: RetentionPolicy, now_ms: int
) -> list[RetentionDecision]:
    """Find archives that have been kept for long enough."""
    assert policy.archive_days is not None
    found: list[RetentionDecision] = []
    after_no = 0

    def page(tx: ReadTx) -> list[Row]:
        return tx.all("archive.kept", after_no=after_no, limit=PAGE_ROWS)

    while rows := await backend.read(page, op="retention.archives"):
        for row in rows:
            age_days = (now_ms - row.finished_at_ms) / DAY_MS
            if age_days > policy.archive_days:
                reason = f"archived {_in_days(round(age_days))} ago (limit {policy.archive_days:g})"
                created = RetentionDecision(
                    row.session_id,
                    row.session_no,
                    "drop",
                    reason,
                    row.updated_at_ms,
                    0,
                    row.last_seq,
                )
                found.append(replace(created, bytes=row.bytes_stored, rule="archive_age"))
        after_no = rows[-1].archive_no
    return found
