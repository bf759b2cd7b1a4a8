"""Reading a context: its own rows and nothing of the history before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import pytest
from floor import Raw, insert_one, read_last
from measure import HISTORY, Bench, history_key, latencies, percentile, size

from sessiondb import Session, SessionDB
from sessiondb.transcript.context import read_context
from tests.support.compaction import begin_in

LAST = 200
SHORTEST = HISTORY[1]  # of those longer than what is read


@pytest.mark.parametrize("entries", HISTORY[2:] or HISTORY[1:], ids="{:,}".format)
def test_the_last_200_entries_of_a_long_history_are_as_near(
    bench: Bench, history_db: SessionDB, entries: int
) -> None:
    """The floor is the same context in the shortest history."""
    near, far = (
        bench.run(_keep_last(history_db, SHORTEST)),
        bench.run(_keep_last(history_db, entries)),
    )
    count = size(50, 3)
    pairs = bench.rounds(
        lambda: latencies(near.context, count), lambda: latencies(far.context, count), 20
    )
    bench.say(
        f"context of the last {LAST}, {entries:,} entries to {SHORTEST:,}",
        _p50(pairs),
        unit="us",
        target="<= 1.2",
    )


def test_as_json_costs_little_more_than_joining_raw_rows(
    bench: Bench, raw: Raw, history_db: SessionDB
) -> None:
    session = bench.run(_keep_last(history_db, HISTORY[-1]))
    bench.run(_copy(session, raw))
    count = size(50, 3)

    async def ours() -> bytes:
        return (await session.context(decode=False)).as_json()

    pairs = bench.rounds(
        lambda: latencies(
            lambda: raw.run(lambda connection: f"[{','.join(read_last(connection, LAST))}]"), count
        ),
        lambda: latencies(ours, count),
        20,
    )
    assert json.loads(bench.run(ours())) == bench.run(session.context()).messages
    bench.say(f"context of {LAST} as JSON text", _p50(pairs), unit="us", target="<= 1.5")


def test_objects_cost_little_more_than_raw_rows_and_one_decode(
    bench: Bench, raw: Raw, history_db: SessionDB
) -> None:
    session = bench.run(_keep_last(history_db, HISTORY[-1]))
    bench.run(_copy(session, raw))
    count = size(50, 3)
    pairs = bench.rounds(
        lambda: latencies(
            lambda: raw.run(
                lambda connection: json.loads(f"[{','.join(read_last(connection, LAST))}]")
            ),
            count,
        ),
        lambda: latencies(session.context, count),
        20,
    )
    bench.say(f"context of {LAST} as objects", _p50(pairs), unit="us", target="<= 1.3")


def test_as_json_on_the_readers_own_thread(bench: Bench, raw: Raw, history_db: SessionDB) -> None:
    """The JSON text once more, on both sides without the way to the thread and back."""
    session = bench.run(_keep_last(history_db, HISTORY[-1]))
    bench.run(_copy(session, raw))
    count, session_no = size(50, 3), session.ref.session_no

    async def floor() -> float:
        return await raw.run(
            lambda connection: _timed(lambda: f"[{','.join(read_last(connection, LAST))}]", count)
        )

    async def ours() -> float:
        return await history_db.read(
            "bench.inside", lambda tx: _timed(lambda: read_context(tx, session_no).as_json(), count)
        )

    bench.say(
        f"context of {LAST} as JSON text, without the hop", bench.rounds(floor, ours, 20), unit="us"
    )


def _timed(operation: Callable[[], object], count: int) -> float:
    """Return the median of how long `operation` takes on this thread, in microseconds."""
    samples = []
    for _ in range(count):
        began = perf_counter()
        operation()
        samples.append((perf_counter() - began) * 1e6)
    return median(samples)


def _p50(pairs: list[tuple[list[float], list[float]]]) -> list[tuple[float, float]]:
    return [(percentile(floor, 0.5), percentile(ours, 0.5)) for floor, ours in pairs]


async def _keep_last(db: SessionDB, entries: int) -> Session:
    """Return a session of the history whose context is a summary and its last 199 messages."""
    session = await db.session(history_key(entries))
    if (await session.info()).epoch == 0:
        # The tokens of the last 198, and one more: the 199th is the message that fills the budget.
        newest = await session.entries(limit=LAST - 2, newest_first=True)
        options = {
            "trigger": "threshold",
            "keep_recent_tokens": sum(entry.tokens for entry in newest) + 1,
            "timeout_ms": 60_000,
        }
        job = await db.write(
            "bench.begin", lambda tx: begin_in(tx, session.ref.session_no, **options)
        )
        await db.commit_compaction(job.compaction_id, "A short summary of what was said so far.")
    assert len((await session.context()).messages) == LAST
    return session


async def _copy(session: Session, raw: Raw) -> None:
    """Give the floor the same messages, without any structure.

    Reading them back is what is compared.
    """
    messages: list[Any] = (await session.context()).messages

    def fill(connection: Any) -> None:
        for message in messages:
            insert_one(connection, json.dumps(message, separators=(",", ":")))

    await raw.run(fill)
