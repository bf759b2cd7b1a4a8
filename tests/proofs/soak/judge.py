"""The bounds of a soak.

Pure functions over what was collected, so that each bound can be tested without a soak.

A trend compares the second quarter of the load with its last. The first quarter is
warm-up. Counts are compared by the *lowest* value of a quarter: a leak lifts it, and
objects that come and go do not. Memory is compared by the median.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from .lag import LAG_STEP_S
from .plan import MIB, Plan
from .troubles import ENOUGH, Met, expected
from .watch import Sample, Series

# Tables that keep a row of everything that ever was, by design: the tombstones of
# sessions and archives. What else only grows is reported in the table, with its rate.
TOMBSTONES = ("session", "archive")
# What retention takes away. From the second quarter to the last these may not grow by
# more than half, and a little.
RETAINED = (
    "entry",
    "branch",
    "epoch",
    "binding",
    "archive_chunk",
    "turn",
    "inbox",
    "outbox",
    "event",
)
RETAINED_FACTOR, RETAINED_SLACK = 1.5, 500
QUEUE_FACTOR, QUEUE_SLACK = 3.0, 50
LAG_STEP_TENTHS = round(LAG_STEP_S * 10_000)


@dataclass(frozen=True)
class Broken:
    """A bound that did not hold."""

    bound: str
    when_s: float
    what: str


@dataclass(frozen=True)
class Reader:
    """A snapshot that was held, or a command that may have held one."""

    began_s: float
    ended_s: float
    what: str


def quarters(began_s: float, ended_s: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the second and the last quarter."""
    quarter_s = (ended_s - began_s) / 4
    return (began_s + quarter_s, began_s + 2 * quarter_s), (ended_s - quarter_s, ended_s + 1e-9)


def judge_wal(plan: Plan, series: Series, readers: list[Reader]) -> list[Broken]:
    """Twice its limit.

    While somebody holds a snapshot, and a little longer, by the snapshot's age as well.
    """
    for when_s, size in series.values.get("wal_bytes", []):
        age_s = max(
            (
                min(when_s, reader.ended_s) - reader.began_s
                for reader in readers
                if _weighs(plan, reader, when_s)
            ),
            default=None,
        )
        allowed = 2 * plan.wal_bytes_max + (
            0 if age_s is None else round((age_s + 1) * plan.wal_bytes_per_s)
        )
        if size > allowed:
            held = (
                "nobody held a snapshot"
                if age_s is None
                else f"a snapshot was held for {age_s:.1f} s"
            )
            return [
                Broken("wal", when_s, f"{size / MIB:.1f} MiB, {allowed / MIB:.1f} allowed; {held}")
            ]
    return []


def _weighs(plan: Plan, reader: Reader, when_s: float) -> bool:
    return reader.began_s <= when_s <= reader.ended_s + plan.wal_grace_s


def judge_processes(plan: Plan, series: Series, began_s: float, ended_s: float) -> list[Broken]:
    """No trend in what the gateway that lives all the time holds."""
    found: list[Broken] = []
    second, last = quarters(began_s, ended_s)
    for what, slack, typical in (
        ("memory", plan.rss_growth_max, median),
        ("descriptors", plan.descriptor_growth_max, min),
        ("threads", plan.thread_growth_max, min),
    ):
        name = f"elder {'rss' if what == 'memory' else what}"
        before, after = series.of(name, *second), series.of(name, *last)
        if before and after and typical(after) - typical(before) > slack:
            shown = [
                f"{value / MIB:.1f} MiB" if what == "memory" else f"{value:g}"
                for value in (typical(before), typical(after))
            ]
            found.append(
                Broken(what, ended_s, f"{shown[0]} in the second quarter, {shown[1]} in the last")
            )
    return found


def judge_space(plan: Plan, series: Series, began_s: float, ended_s: float) -> list[Broken]:
    """Free pages are given back, retained tables do not grow, the queue does not either."""
    found: list[Broken] = []
    second, last = quarters(began_s, ended_s)
    free = series.of("free_bytes", *last)
    if free and min(free) > plan.free_bytes_max:
        found.append(
            Broken(
                "free pages", ended_s, f"never under {min(free) / MIB:.1f} MiB in the last quarter"
            )
        )
    # Before the first rows are old enough, retention takes nothing away.
    for table in RETAINED if second[1] - second[0] >= plan.prune_age_s else ():
        before, after = series.of(f"rows {table}", *second), series.of(f"rows {table}", *last)
        if before and after and median(after) > RETAINED_FACTOR * max(before) + RETAINED_SLACK:
            found.append(
                Broken(
                    "rows",
                    ended_s,
                    (
                        f"{table}: {max(before):,.0f} in the second quarter, "
                        f"{median(after):,.0f} in the last"
                    ),
                )
            )
    before, after = series.of("waiting", *second), series.of("waiting", *last)
    if before and after and median(after) > QUEUE_FACTOR * median(before) + QUEUE_SLACK:
        found.append(
            Broken(
                "queue",
                ended_s,
                f"{median(before):g} messages in the second quarter, {median(after):g} in the last",
            )
        )
    return found


def as_felt(lags: dict[int, int]) -> Counter[int]:
    """Return what callbacks waited that became due at any moment.

    `lags` (tenths of a millisecond) has one value for each sleep.

    A loop that is blocked for a second is late once by a second, says one sleep.
    Whatever became due meanwhile waited, too.
    """
    felt: Counter[int] = Counter(lags)
    for late, times in lags.items():
        for left in range(late - LAG_STEP_TENTHS, 0, -LAG_STEP_TENTHS):
            felt[left] += times
    return felt


def judge_lag(
    plan: Plan, load: dict[int, int], idle: dict[int, int], ended_s: float
) -> list[Broken]:
    """Judge how late the gateways' event loops were.

    They are compared with a loop that does nothing on the same machine in the same
    time.
    """
    lag_ms, idle_ms = (percentile(as_felt(lags), 0.99) / 10 for lags in (load, idle))
    allowed_ms = max(plan.lag_ms_max, plan.lag_factor_max * idle_ms)
    if lag_ms <= allowed_ms:
        return []
    return [
        Broken(
            "lag",
            ended_s,
            f"p99 {lag_ms:.0f} ms, {allowed_ms:.0f} allowed; in an idle process {idle_ms:.0f} ms",
        )
    ]


def judge_transactions(
    plan: Plan, held: tuple[str, float], idle: dict[int, int], ended_s: float
) -> list[Broken]:
    """No transaction holds the write lock for long before it commits."""
    op, took_ms = held
    allowed_ms = plan.transaction_ms_max + 2 * max(idle, default=0) / 10
    if took_ms <= allowed_ms:
        return []
    return [
        Broken(
            "transaction",
            ended_s,
            (
                f"{op} held the write lock for {took_ms:.0f} ms before its COMMIT, "
                f"{allowed_ms:.0f} allowed"
            ),
        )
    ]


def judge_alive(found_dead: int, ended: int, ended_s: float) -> list[Broken]:
    """No process is taken for dead that lives, in whatever namespace or on whatever clock."""
    if found_dead <= ended:
        return []
    return [Broken("alive", ended_s, f"{found_dead} processes found dead, and {ended} had ended")]


def judge_troubles(plan: Plan, met: Met, ended_s: float) -> list[Broken]:
    """Tell which trouble was never met by a course that was long enough for it."""
    return [
        Broken("never met", ended_s, f"{name}: {often:.0f} times, says the plan")
        for name, often in expected(plan, met).items()
        if often >= ENOUGH and not met.times[name] and name not in met.not_here
    ]


def growth(
    series: Series, table: str, began_s: float, ended_s: float
) -> tuple[float, float, float, float]:
    """Return a table's rows at the end of each quarter of the load."""
    quarter_s = (ended_s - began_s) / 4
    ends = [
        series.of(f"rows {table}", 0, began_s + number * quarter_s + 1e-9)[-1:] or [0.0]
        for number in (1, 2, 3, 4)
    ]
    return ends[0][0], ends[1][0], ends[2][0], ends[3][0]


def only_grows(rows: tuple[float, float, float, float]) -> bool:
    """True when each quarter ended with at least a few more rows than the one before."""
    return all(after > before for before, after in pairwise(rows)) and rows[3] > 1.2 * rows[1] > 0


def percentile(counted: dict[int, int], share: float) -> int:
    """Return a percentile of values that were counted."""
    left = share * sum(counted.values())
    for value in sorted(counted):
        left -= counted[value]
        if left <= 0:
            return value
    return 0


def shown_bytes(sample: Sample) -> str:
    return f"{sample[1] / MIB:.1f} MiB"
