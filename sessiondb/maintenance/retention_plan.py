"""The retention plan: which sessions a policy keeps, which go, and why.

A plan walks the sessions once, last changed first, a page per snapshot. It checks each
session against the limits: its age, the number of sessions, the number of keys of an agent.
Only for a session over a limit it reads more: what protects it, and how many bytes it
holds. If the database is larger than its limit, the plan adds the oldest of the rest until
enough would be freed. So a plan costs one index walk over `session`, and reads of the
sessions that will go. It never reads entries of sessions that stay. Every decision has a
reason, also one that keeps a session that is over a limit.

A plan changes nothing and holds nothing between its pages. `retention.py` carries it out,
and then checks again what protects a session.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from sessiondb.backend import Backend, ReadTx
from sessiondb.limits import PAGE_ROWS, SEQ_MAX
from sessiondb.transcript.paths import entry_number

from . import archive

if TYPE_CHECKING:
    from sessiondb import statements

RetentionAction = Literal["archive", "delete", "drop", "keep"]
"""What retention does with a session. `drop`: with its archive, which is old."""
RetentionOutcome = Literal["planned", "done", "kept", "failed"]
"""What became of a decision."""
RetentionRule = Literal["age", "count", "bindings", "bytes", "archive_age", "none"]
"""The limit that a session is over."""

DAY_MS = 86_400_000
# Entries whose lengths one snapshot reads: a few megabytes of pages.
SIZE_ROWS = 5_000
# The bytes of a row and its index entries without its text, and the share that compression
# leaves of prose. Output of tools leaves less, and a run ends once enough has been freed.
ROW_BYTES = 200
ARCHIVE_RATIO = 0.35
# What an archive takes beside that: its row, the event that ended the session, and the room that
# its chunks leave in their pages. Measured: 600 to 2,650 for sessions of 2 to 30 entries of prose.
ARCHIVE_BYTES = 2_700
# Entries of a session lie side by side, in the order of the sessions' numbers. Those of its
# neighbours keep its first and its last page from being freed: half of each, on average.
# Neighbours that go as well do not.
PAGE_BYTES = 4_096


# -- policy ----------------------------------------------------------------------------


class RetentionPolicy(BaseModel):
    """The limits. None is no limit, and without any limit nothing goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_age_days: float | None = Field(default=None, ge=0)
    """A session that has not changed for longer goes."""
    idle_days: float = Field(default=1.0, ge=0)
    """A session that changed, or was restored, more recently stays, whatever the limits say."""
    max_sessions: int | None = Field(default=None, ge=0)
    """Sessions that are not archived. Those that changed longest ago go first."""
    max_bindings_per_agent: int | None = Field(default=None, ge=0)
    """Keys of one agent's sessions. Sessions that changed longest ago go first."""
    max_bytes: int | None = Field(default=None, ge=1)
    """The size of the database without free pages. Above it, the oldest sessions go.

    They go until the size is `high_water` times this limit.
    """
    high_water: float = Field(default=0.8, gt=0, le=1)
    archive: bool = True
    """False: sessions are deleted without an archive, and cannot be restored."""
    archive_days: float | None = Field(default=None, ge=0)
    """An archive older than this is deleted for good. None keeps archives."""
    prune_days: float | None = Field(default=None, ge=0)
    """Done messages, sent replies, ended turns and events older than this are deleted.

    `pruning.py` says what else ends with them.
    """
    enforce: bool = True
    """False: decide and report, but change nothing."""


# -- decisions -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetentionDecision:
    """The decision about one session, its reason, and its outcome."""

    session_id: str
    session_no: int
    action: RetentionAction
    reason: str
    updated_at_ms: int
    keys: int
    entries: int
    bytes: int = 0
    """The bytes of its texts, if they were measured."""
    outcome: RetentionOutcome = "planned"
    note: str = ""
    """Why it was kept after all, or the error."""
    rule: RetentionRule = "none"
    """The limit that the session is over.

    One of `max_age_days`, `max_sessions`, `max_bindings_per_agent`, `max_bytes`,
    `archive_days`, or none.
    """


@dataclass(frozen=True, slots=True)
class Size:
    """The size of the database, in bytes."""

    bytes: int
    free: int

    @property
    def used(self) -> int:
        """Bytes without the free pages."""
        return self.bytes - self.free


async def measure(backend: Backend) -> Size:
    """Measure the database."""
    row = await backend.read(lambda tx: tx.one("status.file"), op="retention.size")
    return Size(row.pages * row.page_bytes, row.pages_free * row.page_bytes)


# -- the plan --------------------------------------------------------------------------


@dataclass(slots=True)
class Walk:
    """A plan in the making: its counts and decisions so far, newest session first."""

    policy: RetentionPolicy
    now_ms: int
    every: bool
    sessions: int = 0
    bound: Counter[str | None] = field(default_factory=Counter)
    decisions: dict[int, RetentionDecision] = field(default_factory=dict)

    def visit(self, tx: ReadTx, rows: Sequence[statements.RetentionNewest]) -> None:
        """Decide about the next sessions."""
        over: list[tuple[statements.RetentionNewest, RetentionRule, str]] = []
        for row in rows:
            if row.archived_at_ms is not None:
                continue
            self.sessions += 1
            self.bound[row.agent_id] += row.keys
            rule, why = self._over(row)
            if rule != "none":
                over.append((row, rule, why))
            elif self.every:
                self.decisions[row.session_no] = _decision(row, "keep", why, "kept", rule)
        if over:
            self.decide(tx, over)

    def decide(
        self,
        tx: ReadTx,
        over: Sequence[tuple[statements.RetentionNewest, RetentionRule, str]],
    ) -> None:
        """Decide about sessions that are over a limit: they go, unless something protects them."""
        keep_archive = self.policy.archive
        reasons = {row.session_no: self._too_new(row) for row, _, _ in over}
        old = [number for number, reason in reasons.items() if reason is None]
        reasons |= archive.protections(tx, old, keep_archive=keep_archive)
        for row, rule, why in over:
            reason = reasons[row.session_no]
            if reason is not None:
                decision = _decision(row, "keep", f"{why}, but {reason}", "kept", rule)
            else:
                action: RetentionAction = "archive" if keep_archive else "delete"
                decision = _decision(row, action, why, "planned", rule)
            self.decisions[row.session_no] = decision

    def _over(self, row: statements.RetentionNewest) -> tuple[RetentionRule, str]:
        """Return the first limit that a session is over, and the reason in words."""
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
            newer = f"agent {row.agent_id} has more than {policy.max_bindings_per_agent:,} keys"
            return "bindings", f"{newer} that were used later"
        return "none", "within every limit"

    def _too_new(self, row: statements.RetentionNewest) -> str | None:
        """Return why a session stays whatever the limits say, by its times, or None."""
        idle_ms = self.policy.idle_days * DAY_MS
        if self.now_ms - row.updated_at_ms < idle_ms:
            return f"it changed within {_in_days(self.policy.idle_days)}"
        if row.restored_at_ms is not None and self.now_ms - row.restored_at_ms < idle_ms:
            return f"it was restored within {_in_days(self.policy.idle_days)}"
        return None


def _in_days(days: float) -> str:
    return f"{days:g} day{'' if days == 1 else 's'}"


def _decision(
    row: statements.RetentionNewest,
    action: RetentionAction,
    reason: str,
    outcome: RetentionOutcome,
    rule: RetentionRule,
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
    """Decide about every session.

    Return the walk, and the decisions in the order in which they are carried out, oldest
    session first. Changes nothing.
    """
    walk = Walk(policy, now_ms, every)
    before: tuple[int, int] | None = (2**62, 2**62)

    def page(tx: ReadTx) -> tuple[int, int] | None:
        assert before is not None
        rows = tx.all("retention.newest", before_ms=before[0], before_no=before[1], limit=PAGE_ROWS)
        walk.visit(tx, rows)
        return (rows[-1].updated_at_ms, rows[-1].session_no) if len(rows) == PAGE_ROWS else None

    while before is not None:
        before = await backend.read(page, op="retention.plan")
    sizes = await _sizes(
        backend,
        [decision for decision in walk.decisions.values() if decision.outcome == "planned"],
    )
    for number, size in sizes.items():
        walk.decisions[number] = replace(walk.decisions[number], bytes=size)
    if policy.max_bytes is not None:
        await _plan_bytes(backend, walk, policy.max_bytes)
    dropped = (
        await _plan_archives(backend, policy, now_ms) if policy.archive_days is not None else []
    )
    return walk, [
        *sorted(
            walk.decisions.values(),
            key=lambda decision: (decision.updated_at_ms, decision.session_no),
        ),
        *dropped,
    ]


async def _sizes(backend: Backend, decisions: Sequence[RetentionDecision]) -> dict[int, int]:
    """Return the bytes of the texts of some sessions, many small ones in one snapshot."""
    found: dict[int, int] = {}
    small: list[int] = []
    entries = 0

    async def weigh() -> None:
        numbers = json.dumps(small)
        rows = await backend.read(
            lambda tx: tx.all("retention.sizes", session_nos=numbers), op="retention.weigh"
        )
        found.update((row.session_no, row.bytes) for row in rows)
        small.clear()

    for decision in decisions:
        if decision.entries >= SIZE_ROWS:
            found[decision.session_no] = await _size_of(backend, decision.session_no)
            continue
        if entries + decision.entries > SIZE_ROWS or len(small) == PAGE_ROWS:
            await weigh()
            entries = 0
        small.append(decision.session_no)
        entries += decision.entries
    if small:
        await weigh()
    return found


async def _size_of(backend: Backend, session_no: int) -> int:
    """Return the bytes of a session's texts, read from a few thousand entries per snapshot."""
    low_no, high_no, total = entry_number(session_no, 0), entry_number(session_no, SEQ_MAX), 0

    def sizes(tx: ReadTx) -> list[tuple[int, int]]:
        return tx.tuples("import_file.entry_sizes", low_no=low_no, high_no=high_no, limit=SIZE_ROWS)

    while True:
        page = await backend.read(sizes, op="retention.weigh")
        total += sum(size for _, size in page)
        if len(page) < SIZE_ROWS:
            return total
        low_no = page[-1][0] + 1


def _freed(decision: RetentionDecision, policy: RetentionPolicy) -> float:
    """Estimate the bytes that a decision frees, if the sessions beside it go as well.

    Below 0, an archive takes more than it frees.
    """
    total = decision.bytes + ROW_BYTES * decision.entries
    if not policy.archive:
        return total
    return total - ARCHIVE_RATIO * decision.bytes - ARCHIVE_BYTES


class _Neighbours:
    """The sessions that a plan takes for space: only together with enough of their neighbours.

    A small session alone may free nothing, because the pages at its edges stay. It waits until
    the sessions beside it go as well, and together they free more than the edges of all of them.
    """

    def __init__(self, policy: RetentionPolicy) -> None:
        self._policy = policy
        self._gone: set[int] = set()
        self._waiting: dict[int, float] = {}

    def note_gone(self, session_no: int) -> None:
        """Note a session without entries: an archived one."""
        self._gone.add(session_no)

    def add(self, decision: RetentionDecision) -> float:
        """Take a session that goes in any case. Return what that frees."""
        freed = _freed(decision, self._policy) - self._edges(decision.session_no)
        self._gone.add(decision.session_no)
        return freed

    def offer(self, decision: RetentionDecision) -> tuple[list[int], float]:
        """Return the sessions that go, now that this one may, and what that frees."""
        number, freed = decision.session_no, _freed(decision, self._policy)
        if freed <= 0:
            return [], 0.0
        self._waiting[number] = freed
        first = last = number
        while first - 1 in self._waiting:
            first -= 1
        while last + 1 in self._waiting:
            last += 1
        together = range(first, last + 1)
        freed = sum(self._waiting[one] for one in together) - self._edges(first, last)
        if freed <= 0:
            return [], 0.0
        for one in together:
            del self._waiting[one]
            self._gone.add(one)
        return [*together], freed

    def _edges(self, first: int, last: int | None = None) -> float:
        """Return the bytes of pages that stay. Below 0: the edge of a neighbour goes, too."""
        if not self._policy.archive:
            return 0.0
        last = first if last is None else last
        return PAGE_BYTES * (1 - (first - 1 in self._gone) - (last + 1 in self._gone))


async def _plan_bytes(backend: Backend, walk: Walk, max_bytes: int) -> None:
    """Add the oldest sessions until enough would be freed."""
    used = (await measure(backend)).used
    if used <= max_bytes:
        return
    policy, target = walk.policy, walk.policy.high_water * max_bytes
    neighbours = _Neighbours(policy)
    left = used - target
    for planned in walk.decisions.values():
        if planned.outcome == "planned":
            left -= neighbours.add(planned)
    why = f"the database holds {used:,} bytes (limit {max_bytes:,})"
    after: tuple[int, int] | None = (-(2**62), 0)

    def page(tx: ReadTx) -> list[statements.RetentionNewest]:
        assert after is not None
        return tx.all("retention.oldest", after_ms=after[0], after_no=after[1], limit=PAGE_ROWS)

    while left > 0 and after is not None:
        rows = await backend.read(page, op="retention.plan")
        for row in rows:
            decision = walk.decisions.get(row.session_no)
            if left <= 0:
                return
            if row.archived_at_ms is not None:
                neighbours.note_gone(row.session_no)
                continue
            if decision is not None and decision.rule != "none":
                continue
            await backend.read(_deciding(walk, row, why), op="retention.plan")
            decision = walk.decisions[row.session_no]
            if decision.outcome == "planned":
                decision = replace(decision, bytes=await _size_of(backend, row.session_no))
                go, freed = neighbours.offer(decision)
                # It goes with a neighbour that comes later, or stays.
                walk.decisions[row.session_no] = replace(
                    decision,
                    action="keep",
                    outcome="kept",
                    reason=f"{why}, but an archive of it would free nothing: it is small",
                )
                for number in go:
                    walk.decisions[number] = replace(
                        walk.decisions[number],
                        action=decision.action,
                        outcome=decision.outcome,
                        reason=decision.reason,
                    )
                left -= freed
        after = (rows[-1].updated_at_ms, rows[-1].session_no) if len(rows) == PAGE_ROWS else None


def _deciding(walk: Walk, row: statements.RetentionNewest, why: str) -> Callable[[ReadTx], None]:
    return lambda tx: walk.decide(tx, [(row, "bytes", why)])


async def _plan_archives(
    backend: Backend, policy: RetentionPolicy, now_ms: int
) -> list[RetentionDecision]:
    """Find the archives that are older than the policy keeps them."""
    assert policy.archive_days is not None
    found: list[RetentionDecision] = []
    after_no = 0

    def page(tx: ReadTx) -> list[statements.ArchiveKept]:
        return tx.all("archive.kept", after_no=after_no, limit=PAGE_ROWS)

    while rows := await backend.read(page, op="retention.archives"):
        for row in rows:
            assert row.finished_at_ms is not None, "it is archived"
            age_days = (now_ms - row.finished_at_ms) / DAY_MS
            if age_days > policy.archive_days:
                reason = f"archived {_in_days(round(age_days))} ago (limit {policy.archive_days:g})"
                decision = RetentionDecision(
                    row.session_id,
                    row.session_no,
                    "drop",
                    reason,
                    row.updated_at_ms,
                    0,
                    row.last_seq,
                )
                found.append(replace(decision, bytes=row.bytes_stored, rule="archive_age"))
        after_no = rows[-1].archive_no
    return found
