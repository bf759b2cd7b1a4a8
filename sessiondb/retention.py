"""Retention: which sessions are archived, why, and when space is given back.

A plan walks the sessions once, last changed first, a page per snapshot, and asks of each which limit it is over: age,
how many sessions there may be, how many an agent may have bound. Only those are looked at further: what protects them,
how much they hold. If the database is larger than it may be, the oldest of the rest are added until enough would
be freed. So a plan costs one index walk over `session`, and reads of those that will go; entries of sessions that stay
are never read. Every decision says its reason, also that something over a limit is kept, and why.

Nothing protected goes: pinned, moved within `idle_days` (or restored then), with a running turn or compaction, with
messages or replies that are not done, still being imported, or the parent of a fork that uses its entries. That is
asked when planning, again in the transaction that begins an archive, and again in the one after which entries go.

`gc` first goes on with what an earlier one began and did not finish (`archive.py` says how), then carries the plan out,
one session after the other, then gives free pages back to the file system in bounded steps. No step holds a lock
across another; appends and turns go in between. Killed at any point it leaves nothing held and nothing half readable.
Names and meaning of OpenClaw's settings: openclaw docs, `session.maintenance`.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import archive, events, pruning, sessions
from .archive import Restored
from .backend import Backend, ReadTx, Row, Tx
from .errors import InvalidInput, SessionDBError, StoreBusy, StoreClosed, StoreFull, StoreReadOnly
from .limits import SEQ_MAX
from .transcript import entry_number

T = TypeVar("T")
Action = Literal["archive", "delete", "drop", "keep"]
Outcome = Literal["planned", "done", "kept", "failed"]
Rule = Literal["age", "count", "bindings", "bytes", "archive_age", "none"]

logger = logging.getLogger("sessiondb")

DAY_MS = 86_400_000
PAGE = 200
# What one snapshot weighs of a session's entries: it reads lengths, a few megabytes of pages.
WEIGH_ROWS = 5_000
# What a row and its index entries take beside its text; and what compression leaves of a text, as transcripts usually go.
ROW_BYTES = 200
ARCHIVE_RATIO = 0.25
# Pages given back per call, in steps of a megabyte between which the writer serves its queue.
VACUUM_PAGES = 4_096
# These end a run: the next session would meet them too.
_FATAL = (StoreClosed, StoreFull, StoreReadOnly)


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

    @classmethod
    def from_openclaw(cls, settings: Mapping[str, Any]) -> Self:
        """Make a policy from OpenClaw's settings: the whole object, or its `session` part.

        `session.maintenance`: mode, pruneAfter, maxEntries, maxDiskBytes, highWaterBytes, resetArchiveRetention,
        preserveRecent. A limit that is false or 0 is off. archiveDashboardAfter and rotateBytes have no counterpart.

        Raises:
            InvalidInput: a value that cannot be meant; the message names its key.
        """
        session = settings.get("session", settings)
        found = session.get("maintenance") if isinstance(session, Mapping) else None
        if found is None:
            return cls()
        if not isinstance(found, Mapping):
            raise InvalidInput(f"{_PREFIX} is an object, not {type(found).__name__}")
        unknown = sorted(found.keys() - _OPENCLAW)
        if unknown:
            raise InvalidInput(f"{_PREFIX}.{unknown[0]}: there is no such setting; {', '.join(sorted(_OPENCLAW))} are")
        if found.get("mode", "enforce") not in ("enforce", "warn"):
            raise InvalidInput(f'{_PREFIX}.mode is "enforce" or "warn", not {found["mode"]!r}')
        fields: dict[str, Any] = {
            "enforce": found.get("mode", "enforce") == "enforce",
            "max_age_days": _days(found, "pruneAfter"),
            "prune_days": _days(found, "pruneAfter"),
            "archive_days": _days(found, "resetArchiveRetention"),
            "max_sessions": _limit(found, "maxEntries"),
            "max_bytes": _bytes(found, "maxDiskBytes"),
        }
        if "preserveRecent" in found:
            fields["idle_days"] = _days(found, "preserveRecent") or 0.0
        if found.get("highWaterBytes") is not None and fields["max_bytes"] is not None:
            fields["high_water"] = _high_water(found["highWaterBytes"], fields["max_bytes"])
        try:
            return cls(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise InvalidInput(f"{_PREFIX}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error


_PREFIX = "session.maintenance"
_OPENCLAW = frozenset(
    {"mode", "pruneAfter", "maxEntries", "maxDiskBytes", "highWaterBytes", "resetArchiveRetention", "preserveRecent",
     "archiveDashboardAfter", "rotateBytes"}
)  # fmt: skip
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z%]*)\s*", re.IGNORECASE)
_DURATIONS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_SIZES = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3, "tb": 1024**4}


def parse_days(text: str, name: str = "duration") -> float:
    """Read a length of time such as 30d, 12h or 90m; a bare number is days.

    Raises:
        InvalidInput: not a number with a known unit.
    """
    return _amount(text, name, {**_DURATIONS, "": DAY_MS}, "ms, s, m, h, d, w", "30d") / DAY_MS


def parse_bytes(text: str, name: str = "size") -> int:
    """Read a size such as 10gb or 500mb; a bare number is bytes, and a kb has 1024 of them.

    Raises:
        InvalidInput: not a number with a known unit.
    """
    return int(_amount(text, name, {**_SIZES, "": 1}, "b, kb, mb, gb, tb", "10gb"))


def _amount(text: str, name: str, units: Mapping[str, int], known: str, such_as: str) -> float:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{name}: {text!r} is not a number with a unit; {known} are known, as in {such_as!r}")
    unit = match[2].lower()
    if unit not in units:
        raise InvalidInput(f"{name}: the unit {match[2]!r} of {text!r} is not known; {known} are")
    return float(match[1]) * units[unit]


def _off(value: Any) -> bool:
    return value is None or value is False or value == 0


def _days(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    if _off(value):
        return None
    return parse_days(_said(value, f"{_PREFIX}.{key}"), f"{_PREFIX}.{key}") or None


def _bytes(found: Mapping[str, Any], key: str) -> int | None:
    value = found.get(key)
    if _off(value):
        return None
    return parse_bytes(_said(value, f"{_PREFIX}.{key}"), f"{_PREFIX}.{key}") or None


def _limit(found: Mapping[str, Any], key: str) -> int | None:
    value = found.get(key)
    if _off(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{_PREFIX}.{key} is a number of sessions, not {value!r}")
    return value


def _high_water(value: Any, max_bytes: int) -> float:
    name = f"{_PREFIX}.highWaterBytes"
    text = _said(value, name)
    share = float(text.strip()[:-1]) / 100 if re.fullmatch(r"\s*\d+(\.\d+)?%\s*", text) else parse_bytes(text, name) / max_bytes
    if not 0 < share <= 1:
        raise InvalidInput(f"{name}: {value!r} is not between 0 and maxDiskBytes ({max_bytes:,} bytes)")
    return share


def _said(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"{name} is a text such as '30d' or '10gb', or a number, not {value!r}")
    return str(value)


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
class RetentionReport:
    """What a run decided and did."""

    decisions: tuple[RetentionDecision, ...]
    """Sessions that go, and those over a limit that are kept; with `every`, all."""
    sessions: int
    """That are not archived, before."""
    kept: int
    """Of them, within every limit or protected."""
    carried_on: int
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


@dataclass(frozen=True, slots=True)
class _Size:
    bytes: int
    free: int

    @property
    def used(self) -> int:
        return self.bytes - self.free


async def _size(backend: Backend) -> _Size:
    row = await backend.read(lambda tx: tx.must("status.file"), op="retention.size")
    return _Size(row.pages * row.page_bytes, row.pages_free * row.page_bytes)


# -- the plan -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Walk:
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
        action: Action = "keep" if held is not None else "archive" if self.policy.archive else "delete"
        reason = f"{why}, but {held}" if held is not None else why
        self.decisions[row.session_no] = _decision(row, action, reason, "kept" if held is not None else "planned", rule)

    def _over(self, row: Row) -> tuple[Rule, str]:
        """Return the first limit that a session is over, and the reason to give."""
        policy, age_days = self.policy, (self.now_ms - row.updated_at_ms) / DAY_MS
        if policy.max_age_days is not None and age_days > policy.max_age_days:
            return "age", f"has not changed for {_in_days(round(age_days))} (limit {policy.max_age_days:g})"
        if policy.max_sessions is not None and self.sessions > policy.max_sessions:
            return "count", f"it is number {self.sessions:,} by last change (limit {policy.max_sessions:,})"
        if policy.max_bindings_per_agent is not None and row.keys and self.bound[row.agent_id] > policy.max_bindings_per_agent:
            return "bindings", f"agent {row.agent_id} has more than {policy.max_bindings_per_agent:,} keys that were used later"
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


def _decision(row: Row, action: Action, reason: str, outcome: Outcome, rule: Rule) -> RetentionDecision:
    return RetentionDecision(
        row.session_id, row.session_no, action, reason, row.updated_at_ms, row.keys, row.entries, outcome=outcome, rule=rule
    )


async def _plan(backend: Backend, policy: RetentionPolicy, now_ms: int, *, every: bool) -> tuple[_Walk, list[RetentionDecision]]:
    """Decide about every session; return the walk, and decisions in the order in which they are carried out: oldest first."""
    walk = _Walk(policy, now_ms, every)
    before: tuple[int, int] | None = (2**62, 2**62)

    def page(tx: ReadTx) -> tuple[int, int] | None:
        assert before is not None
        rows = tx.all("retention.newest", before_ms=before[0], before_no=before[1], limit=PAGE)
        for row in rows:
            walk.look(tx, row)
        return (rows[-1].updated_at_ms, rows[-1].session_no) if len(rows) == PAGE else None

    while before is not None:
        before = await backend.read(page, op="retention.plan")
    for number, decision in walk.decisions.items():
        if decision.outcome == "planned":
            walk.decisions[number] = replace(decision, bytes=await _weigh(backend, number))
    if policy.max_bytes is not None:
        await _plan_bytes(backend, walk, policy.max_bytes)
    dropped = await _plan_archives(backend, policy, now_ms) if policy.archive_days is not None else []
    return walk, [*sorted(walk.decisions.values(), key=lambda made: (made.updated_at_ms, made.session_no)), *dropped]


async def _weigh(backend: Backend, session_no: int) -> int:
    """Return how many bytes of text a session holds; a few thousand entries per snapshot."""
    low_no, high_no, total = entry_number(session_no, 0), entry_number(session_no, SEQ_MAX), 0

    def weigh(tx: ReadTx) -> list[tuple[int, int]]:
        return tx.tuples("source.entry_sizes", low_no=low_no, high_no=high_no, limit=WEIGH_ROWS)

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


async def _plan_bytes(backend: Backend, walk: _Walk, max_bytes: int) -> None:
    """Add the oldest sessions until the database would be small enough."""
    used = (await _size(backend)).used
    if used <= max_bytes:
        return
    policy, target = walk.policy, walk.policy.high_water * max_bytes
    left = used - target - sum(_freed(made, policy) for made in walk.decisions.values() if made.outcome == "planned")
    why = f"the database holds {used:,} bytes (limit {max_bytes:,})"
    after: tuple[int, int] | None = (-(2**62), 0)

    def page(tx: ReadTx) -> list[Row]:
        assert after is not None
        return tx.all("retention.oldest", after_ms=after[0], after_no=after[1], limit=PAGE)

    while left > 0 and after is not None:
        rows = await backend.read(page, op="retention.plan")
        for row in rows:
            made = walk.decisions.get(row.session_no)
            if left <= 0:
                return
            if row.archived_at_ms is not None or (made is not None and made.rule != "none"):
                continue
            await backend.read(_deciding(walk, row, why), op="retention.plan")
            made = walk.decisions[row.session_no]
            if made.outcome == "planned":
                made = walk.decisions[row.session_no] = replace(made, bytes=await _weigh(backend, row.session_no))
                left -= _freed(made, policy)
        after = (rows[-1].updated_at_ms, rows[-1].session_no) if len(rows) == PAGE else None


def _deciding(walk: _Walk, row: Row, why: str) -> Callable[[ReadTx], None]:
    return lambda tx: walk.decide(tx, row, "bytes", why)


async def _plan_archives(backend: Backend, policy: RetentionPolicy, now_ms: int) -> list[RetentionDecision]:
    """Find archives that have been kept for long enough."""
    assert policy.archive_days is not None
    found: list[RetentionDecision] = []
    after_no = 0

    def page(tx: ReadTx) -> list[Row]:
        return tx.all("archive.kept", after_no=after_no, limit=PAGE)

    while rows := await backend.read(page, op="retention.archives"):
        for row in rows:
            age_days = (now_ms - row.finished_at_ms) / DAY_MS
            if age_days > policy.archive_days:
                reason = f"archived {_in_days(round(age_days))} ago (limit {policy.archive_days:g})"
                made = RetentionDecision(row.session_id, row.session_no, "drop", reason, row.updated_at_ms, 0, row.entries)
                found.append(replace(made, bytes=row.bytes_stored, rule="archive_age"))
        after_no = rows[-1].archive_no
    return found


# -- carrying it out ----------------------------------------------------------------------------------------


async def gc(
    backend: Backend, policy: RetentionPolicy, *, dry_run: bool = False, every: bool = False, now_ms: int | None = None
) -> RetentionReport:
    """Decide, and unless it is a dry run carry it out. May be repeated, and interrupted at any point.

    `every` lists sessions within every limit too. `now_ms` is the time that ages are measured at: the present.

    Raises:
        StoreFull: the disk is full. What was done stays done.
    """
    chosen_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    dry_run = dry_run or not policy.enforce
    before = await _size(backend)
    pruned: dict[str, int] = {}
    if policy.prune_days is not None:  # first: it is soon done, and archiving may take hours
        pruned = await pruning.prune(backend, before_ms=chosen_ms - round(policy.prune_days * DAY_MS), dry_run=dry_run)
    carried_on, failed = (0, []) if dry_run else await finish(backend)
    walk, decisions = await _plan(backend, policy, chosen_ms, every=every)
    if not dry_run:
        for index, decision in enumerate(decisions):
            if decision.outcome == "planned":
                decisions[index] = await _carry_out(backend, policy, decision)
        await give_space_back(backend)
    after = before if dry_run else await _size(backend)
    gone = sum(1 for made in decisions if made.action in ("archive", "delete") and made.outcome in ("planned", "done"))
    report = RetentionReport(
        (*failed, *decisions), walk.sessions, walk.sessions - gone, carried_on, before.bytes, after.bytes, after.free, pruned, dry_run
    )
    if not dry_run and (carried_on or report.count("done") or report.count("failed") or any(pruned.values())):
        await backend.step(lambda tx: _report(tx, report), op="retention.report")
    return report


async def _carry_out(backend: Backend, policy: RetentionPolicy, decision: RetentionDecision) -> RetentionDecision:
    """Archive one session, or drop one archive; whatever stands in its way is said, and the next one's turn comes."""
    try:
        held = await (_drop(backend, decision) if decision.action == "drop" else _archive(backend, policy, decision))
    except _FATAL:
        raise
    except SessionDBError as error:
        return replace(decision, outcome="failed", note=str(error))
    return replace(decision, outcome="done") if held is None else replace(decision, outcome="kept", note=held)


async def _archive(backend: Backend, policy: RetentionPolicy, decision: RetentionDecision) -> str | None:
    for_space = decision.rule == "bytes" and policy.max_bytes is not None
    if for_space and (await _size(backend)).used <= policy.high_water * (policy.max_bytes or 0):
        return "enough has been freed by now"
    moved = await backend.read(lambda tx: tx.must("archive.session", session_no=decision.session_no), op="retention.look")
    if moved.updated_at_ms != decision.updated_at_ms:
        return "it has moved since"
    archive_no, held = await archive.begin(backend, decision.session_no, decision.reason, keep_archive=policy.archive)
    if archive_no is None:
        return held
    row = await archive.carry_on(backend, archive_no)
    return None if row.state in ("archived", "deleted") else "something took hold of it meanwhile"


async def _drop(backend: Backend, decision: RetentionDecision) -> str | None:
    def look(tx: ReadTx) -> Row | None:
        kept = tx.one("archive.of_session", session_no=decision.session_no)
        return tx.must("archive.get", archive_no=kept.archive_no) if kept is not None and kept.state == "archived" else None

    row = await backend.read(look, op="retention.look")
    return await archive.drop(backend, row) if row is not None else "it was restored meanwhile"


async def finish(backend: Backend) -> tuple[int, list[RetentionDecision]]:
    """Bring what an earlier run began to its end; return how many archives that were, and those that failed. May be repeated."""
    done = after_no = 0
    failed: list[RetentionDecision] = []

    def page(tx: ReadTx) -> list[Row]:
        return tx.all("archive.unfinished", after_no=after_no, limit=PAGE)

    while rows := await backend.read(page, op="retention.unfinished"):
        for row in rows:
            try:
                await archive.carry_on(backend, row.archive_no)
                done += 1
            except _FATAL:
                raise
            except SessionDBError as error:
                failed.append(await backend.read(_failing(row.archive_no, str(error)), op="retention.failed"))
        after_no = rows[-1].archive_no
    return done, failed


def _failing(archive_no: int, note: str) -> Callable[[ReadTx], RetentionDecision]:
    def look(tx: ReadTx) -> RetentionDecision:
        row = tx.must("archive.get", archive_no=archive_no)
        session = tx.must("archive.session", session_no=row.session_no)
        reason = f"begun by an earlier run, and still {row.state}"
        made = RetentionDecision(row.session_id, row.session_no, "archive", reason, session.updated_at_ms, 0, session.entries)
        return replace(made, outcome="failed", note=note)

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
    done = Counter(made.action for made in report.decisions if made.outcome == "done")
    said = ", ".join(f"{count:,} {_DONE[action]}" for action, count in done.items()) or "nothing archived"
    events.emit(
        tx,
        "retention_done",
        "operator",
        f"Retention: {said}; {report.count('failed')} failed; {report.bytes_before:,} bytes before, {report.bytes_after:,} after",
        done=dict(done),
        failed=report.count("failed"),
        carried_on=report.carried_on,
        pruned=report.pruned,
        bytes_before=report.bytes_before,
        bytes_after=report.bytes_after,
    )


_DONE = {"archive": "archived", "delete": "deleted", "drop": "archives dropped", "keep": "kept"}


# -- the façade's part --------------------------------------------------------------------------------------


class RetentionCalls:
    """The calls about keeping and letting go. Mixed into `SessionDB`, which brings `read`, `write` and `backend`."""

    if TYPE_CHECKING:

        @property
        def backend(self) -> Backend: ...

        async def read(self, op: str, fn: Callable[[ReadTx], T]) -> T: ...

    async def gc(self, policy: RetentionPolicy, *, dry_run: bool = False, every: bool = False) -> RetentionReport:
        """Archive what a policy does not keep, and give the space back; report every decision with its reason.

        Appends and turns never wait for it. With `dry_run` nothing changes; with `every` the report also lists what no limit
        asks for. Durable, step by step. May be repeated: what was interrupted goes on.

        Raises:
            StoreFull: the disk is full; what was done stays done. What fails for one session only is in the report.
        """
        return await gc(self.backend, policy, dry_run=dry_run, every=every)

    async def restore(self, session_id: str) -> Restored:
        """Bring an archived session back exactly as it was; keys that point elsewhere by now are left so. Durable.

        `session_id` may be a unique prefix. What it was forked from comes back with it. May be repeated after an interruption.

        Raises:
            NotFound: no such session, or it was deleted without an archive.
            InvalidInput: it is not archived.
            StoreDamaged: the archive is not what was written.
            StoreFull: the disk is full; called again it goes on.
        """
        ref = await self.read("restore.find", lambda tx: sessions.resolve(tx, session_id))
        return await archive.restore(self.backend, ref.session_no)


def pin(tx: Tx, session_no: int) -> None:
    """Have retention leave a session alone. May be repeated."""
    tx.run("retention.pin", session_no=session_no, now_ms=tx.now_ms)


def unpin(tx: Tx, session_no: int) -> None:
    """Let retention have a session again. May be repeated."""
    tx.run("retention.unpin", session_no=session_no)
