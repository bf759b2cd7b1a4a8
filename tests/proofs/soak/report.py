"""What a soak found: a table of 80 columns for people, JSON with every series for programs."""

from __future__ import annotations

from typing import Any

from .judge import RETAINED, TOMBSTONES, as_felt, growth, only_grows, percentile
from .load import Soak
from .plan import MIB
from .troubles import expected

WIDTH = 80


def table(soak: Soak) -> str:
    """Draw the figures."""
    series = soak.series
    load_s = max(1e-9, soak.load_ended_s - soak.load_began_s)
    lines = [f"soak: {load_s / 60:.1f} min of load, seed {soak.plan.seed}", "=" * WIDTH]
    lines += _section("conversations", _conversations(soak, load_s))
    lines += _section("bounds", _bounds(soak))
    lines += _section(
        "time (judged: lag and longest transaction, generously: the machine is shared)",
        _times(soak),
    )
    lines += _section("tables: rows at the end of each quarter", _tables(soak))
    lines += _section("commands (name and exit code)", sorted(_counts(soak.commands.codes)))
    lines += _section("troubles", _troubles(soak))
    lines += _section("what happened", sorted(_counts(soak.counted)))
    lines.append("=" * WIDTH)
    if soak.broken:
        lines += [
            _cut(f"BROKEN {broken.bound} at {broken.when_s:.1f} s: {broken.what}", 1_200)
            for broken in soak.broken
        ]
    else:
        lines.append(f"ok: every bound held ({len(series.of('wal_bytes')):,} samples)")
    return "\n".join(lines) + "\n"


def _section(title: str, rows: list[tuple[str, str]]) -> list[str]:
    return [title, *(_row(name, value) for name, value in rows), ""]


def _row(name: str, value: str) -> str:
    room = WIDTH - 4 - len(value)
    return f"  {_cut(name, room):<{room}}  {value}"


def _cut(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def _counts(counted: dict[str, int]) -> list[tuple[str, str]]:
    return [(name, f"{count:,}") for name, count in counted.items()]


def _conversations(soak: Soak, load_s: float) -> list[tuple[str, str]]:
    people, chosen = soak.people, sorted(soak.people.accept_ms) or [0.0]
    acknowledged = people.counted["acknowledged"]
    rows = [
        ("acknowledged messages (per second)", f"{acknowledged:,} ({acknowledged / load_s:.1f})"),
        ("conversations, sessions", f"{len(people.talks):,}, {len(people.ledger.acknowledged):,}"),
        (
            "accept, with the pipe: p50 / p99 / longest",
            " / ".join(f"{_at(chosen, share):.1f}" for share in (0.5, 0.99, 1.0)) + " ms",
        ),
    ]
    return rows + [
        (name, f"{count:,}")
        for name, count in sorted(people.counted.items())
        if name != "acknowledged"
    ]


def _at(chosen: list[float], share: float) -> float:
    return chosen[min(len(chosen) - 1, int(share * len(chosen)))]


def _bounds(soak: Soak) -> list[tuple[str, str]]:
    series, plan = soak.series, soak.plan
    rows = []
    when_s, highest = series.highest("wal_bytes")
    rows.append(
        (
            f"WAL: highest, limit {plan.wal_bytes_max / MIB:g} MiB",
            f"{highest / MIB:.1f} MiB at {when_s:.0f} s",
        )
    )
    for what, unit in (("rss", MIB), ("descriptors", 1), ("threads", 1)):
        for name in ("elder", "mortal"):
            values = series.of(f"{name} {what}", soak.load_began_s, soak.load_ended_s)
            shown = [series.of(f"{name} {what}", *span) for span in _quarters(soak)]
            means = " ".join(
                f"{sum(part) / len(part) / unit:.0f}" if part else "-" for part in shown
            )
            label = f"{name}: {what}{' (MiB)' if unit == MIB else ''}, mean per quarter; highest"
            rows.append((label, f"{means}; {max(values or [0]) / unit:.0f}"))
    for what in ("bytes", "free_bytes"):
        shown = [series.of(what, *span) for span in _quarters(soak)]
        ends = " ".join(f"{part[-1] / MIB:.1f}" if part else "-" for part in shown)
        label = (
            f"{'database' if what == 'bytes' else 'free pages'} (MiB), end of each quarter; highest"
        )
        rows.append((label, f"{ends}; {series.highest(what)[1] / MIB:.1f}"))
    for what in ("waiting", "oldest_s", "unsent"):
        shown = [series.of(what, *span) for span in _quarters(soak)]
        rows.append(
            (
                f"{what}: mean per quarter; highest",
                _means(shown) + f"; {series.highest(what)[1]:.1f}",
            )
        )
    return rows


def _quarters(soak: Soak) -> list[tuple[float, float]]:
    quarter_s = (soak.load_ended_s - soak.load_began_s) / 4
    return [
        (soak.load_began_s + at * quarter_s, soak.load_began_s + (at + 1) * quarter_s)
        for at in range(4)
    ]


def _means(parts: list[list[float]]) -> str:
    return " ".join(f"{sum(part) / len(part):.1f}" if part else "-" for part in parts)


def _times(soak: Soak) -> list[tuple[str, str]]:
    rows = []
    for phase, counted in soak.lags.items():
        shown = " / ".join(f"{percentile(counted, share) / 10:.1f}" for share in (0.5, 0.99, 1.0))
        rows.append((f"event loop's lag, {phase}: p50 / p99 / longest", f"{shown} ms"))
    load, control = (
        percentile(as_felt(soak.lags.get(phase, {})), 0.99) / 10 for phase in ("load", "control")
    )
    rows.append(
        ("lag at any moment of the load: p99, of an idle process", f"{load:.1f}, {control:.1f} ms")
    )
    took_s = sorted(soak.gc_s) or [0.0]
    rows.append(
        ("gc in a gateway: median, longest", f"{_at(took_s, 0.5):.1f} s, {took_s[-1]:.1f} s")
    )
    commits = sum(life.get("commits", 0) for life in soak.lives.values())
    resets = sum(life.get("resets", 0) for life in soak.lives.values())
    blocked = sum(life.get("resets_blocked", 0) for life in soak.lives.values())
    rows.append(("commits of both gateways", f"{commits:,}"))
    pause_ms = max((life["reset_ms"] for life in soak.lives.values()), default=0)
    rows.append(
        ("WAL resets, blocked; longest pause", f"{resets:,}, {blocked:,}; {pause_ms:.0f} ms")
    )
    rows.append(
        (
            "waits for the other process's write lock; given up",
            f"{_sum(soak, 'busy_waits'):,}; {_sum(soak, 'busy_timeouts'):,}",
        )
    )
    rows.append(
        (
            "longest transaction or step, with its sync",
            f"{soak.longest[1]:.0f} ms, {soak.longest[0]}",
        )
    )
    rows.append(("longest transaction before its COMMIT", f"{soak.held[1]:.0f} ms, {soak.held[0]}"))
    rows.append(("transactions and maintenance steps over 25 ms", f"{sum(soak.slow.values()):,}"))
    rows += [
        (f"  {op}: how many, longest", f"{count:,}, {soak.slow_ms[op]:.0f} ms")
        for op, count in soak.slow.most_common(8)
    ]
    return rows


def _sum(soak: Soak, name: str) -> int:
    return sum(int(life.get(name, 0)) for life in soak.lives.values())


def _tables(soak: Soak) -> list[tuple[str, str]]:
    rows = []
    for name in soak.series.names("rows "):
        table_name = name.removeprefix("rows ")
        counts = growth(soak.series, table_name, soak.load_began_s, soak.load_ended_s)
        kind = (
            ", retained"
            if table_name in RETAINED
            else ", tombstones"
            if table_name in TOMBSTONES
            else ""
        )
        grows = "  ONLY GROWS" if only_grows(counts) else ""
        rows.append((table_name + kind + grows, " ".join(f"{count:>9,.0f}" for count in counts)))
    return rows


def _troubles(soak: Soak) -> list[tuple[str, str]]:
    met = soak.met
    rows = []
    for name, often in expected(soak.plan, met).items():
        shown = f"met {met.times[name]:,} times" if met.times[name] else "NEVER MET"
        rows.append((name, met.not_here.get(name, f"{shown}; planned: {often:.0f}")))
    return rows


def record(soak: Soak) -> dict[str, Any]:
    """Return everything, for a JSON file."""
    return {
        "seed": soak.plan.seed,
        "load_began_s": soak.load_began_s,
        "load_ended_s": soak.load_ended_s,
        "broken": [
            {"bound": broken.bound, "when_s": broken.when_s, "what": broken.what}
            for broken in soak.broken
        ],
        "counted": dict(soak.counted),
        "people": dict(soak.people.counted),
        "troubles": dict(soak.met.times),
        "commands": dict(soak.commands.codes),
        "slow": {
            op: {"times": count, "longest_ms": soak.slow_ms[op]} for op, count in soak.slow.items()
        },
        "longest": soak.longest,
        "held": soak.held,
        "lag_tenths_of_ms": {
            phase: dict(sorted(counted.items())) for phase, counted in soak.lags.items()
        },
        "readers": [
            {"what": reader.what, "began_s": reader.began_s, "ended_s": reader.ended_s}
            for reader in soak.readers
        ],
        "lives": soak.lives,
        "series": soak.series.values,
    }
