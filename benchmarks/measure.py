"""How the benchmarks measure.

Every figure stands beside its raw floor, taken in the same run and interleaved with it.
A round is one block of the floor, then one block of sessiondb (A B A B ...). The ratio
is the median of the rounds' ratios. So a machine that is busy, throttled or slow of
disk moves both sides. Nothing here asserts a time. A target that is missed is printed
as missed, in the table at the end and in `--benchmark-json` (under `extra_info`).

`SESSIONDB_BENCH=smoke` takes the smallest sizes and one short round: it proves that the
benchmarks run. The databases lie in pytest's temporary folder. `ARGS=--basetemp=/path`
puts them on another disk.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, TypeVar

from sessiondb import SessionDB

T = TypeVar("T")
Block = Callable[[], Coroutine[Any, Any, Any]]

SMOKE = os.environ.get("SESSIONDB_BENCH") == "smoke"
HISTORY = (100, 1_000) if SMOKE else (100, 1_000, 10_000, 100_000, 1_000_000)
"""Entries of the sessions that the fixture `history` makes."""


def size(full: int, smoke: int) -> int:
    """Choose between the real size of something and the one that only proves that it runs."""
    return smoke if SMOKE else full


def percentile(samples: list[float], share: float) -> float:
    """Return the sample below which `share` of them lie."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# -- what is said ----------------------------------------------------------------------

_FORMS = {
    "us": "{:,.0f} us",
    "ms": "{:,.2f} ms",
    "/s": "{:,.0f}/s",
    "MB": "{:,.1f} MB",
    "MB/s": "{:,.1f} MB/s",
}


@dataclass(frozen=True)
class Line:
    """One promise and what was measured.

    `target` is a bound on the ratio. Its sign says of which kind.
    """

    what: str
    unit: str
    floor: float
    ours: float
    ratio: float
    target: str
    """"<= 1.5", ">= 5", or "" for a figure that is only reported."""

    @property
    def met(self) -> bool | None:
        if not self.target:
            return None
        sign, bound = self.target.split()
        return self.ratio <= float(bound) if sign == "<=" else self.ratio >= float(bound)

    def cells(self) -> tuple[str, ...]:
        form, met = _FORMS[self.unit], {True: "yes", False: "MISSED", None: ""}[self.met]
        return (
            self.what,
            form.format(self.floor),
            form.format(self.ours),
            f"{self.ratio:.2f} x",
            self.target,
            met,
        )


# -- how it is measured ----------------------------------------------------------------


@dataclass
class Bench:
    """One benchmark's tools: an event loop, and rounds that alternate between two blocks."""

    benchmark: Any
    runner: asyncio.Runner
    lines: list[Line]
    _said: list[dict[str, Any]] = field(default_factory=list)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the benchmark's event loop."""
        return self.runner.run(coroutine)

    def rounds(self, floor: Block, ours: Block, count: int) -> list[tuple[Any, Any]]:
        """Alternate the two blocks `count` times, after one round to warm up.

        Return what they measured, in pairs.
        """
        before: list[Any] = []
        pairs: list[tuple[Any, Any]] = []

        def measure_ours() -> None:
            pairs.append((before.pop(), self.run(ours())))

        self.benchmark.pedantic(
            measure_ours,
            setup=lambda: before.append(self.run(floor())),
            rounds=size(count, 1),
            warmup_rounds=size(1, 0),
        )
        return pairs[size(1, 0) :] or pairs

    def say(
        self, what: str, pairs: list[tuple[float, float]], *, unit: str, target: str = ""
    ) -> None:
        """Report pairs of (floor, ours): medians, and the median of the ratios."""
        line = Line(
            what,
            unit,
            statistics.median(floor for floor, _ in pairs),
            statistics.median(ours for _, ours in pairs),
            statistics.median(ours / floor for floor, ours in pairs),
            target,
        )
        self.lines.append(line)
        self._said.append({**asdict(line), "met": line.met})
        self.benchmark.extra_info["lines"] = self._said


async def latencies(operation: Callable[[], Coroutine[Any, Any, Any]], count: int) -> list[float]:
    """Run an operation one after another and return how long each took, in microseconds."""
    samples = []
    for _ in range(count):
        began = perf_counter()
        await operation()
        samples.append((perf_counter() - began) * 1e6)
    return samples


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have something run beside the block. What it raises is raised."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


# -- what it is measured on ------------------------------------------------------------

_WORDS = (
    "the agent reads the file, finds where the lock is taken and proposes a smaller critical "
    "section with a test "
)
USER_MESSAGE = {"role": "user", "content": (_WORDS * 6)[:600]}
ASSISTANT_MESSAGE = {
    "role": "assistant",
    "content": [{"type": "text", "text": (_WORDS * 6)[:560]}],
    "provider": "example",
    "model": "example-1",
    "stopReason": "stop",
}
ENTRY_PAYLOAD = (
    '{"type":"message","id":"0123456789abcdef","parentId":"0123456789abcdef",'
    '"timestamp":"2026-01-01T00:00:00.000Z",'
    f'"message":{{"role":"user","content":"{USER_MESSAGE["content"]}"}}}}'
)
"""What is stored for USER_MESSAGE: the floor's row, of the same length."""


def history_key(entries: int) -> str:
    """Return the key of the session of that size."""
    return f"agent:main:history:{entries}"


def wordy_messages(rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Make messages of 60 words each, few of them common and many rare."""
    return [
        {
            "role": "user" if number % 2 else "assistant",
            "content": " ".join(f"w{int(rng.paretovariate(0.6)) % 50_000}" for _ in range(60)),
        }
        for number in range(count)
    ]


async def fill_with_words(db: SessionDB, entries: int, sessions: int) -> None:
    """Fill a database with sessions of such messages."""
    rng = random.Random(7)
    for number in range(sessions):
        session = await db.create_session(f"s{number}")
        left = entries // sessions
        while left > 0:
            await session.append_many(wordy_messages(rng, min(left, 500)))
            left -= 500
