"""Search: the first page beside a raw query of the same index, and appends beside its building."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import apsw
import pytest
from floor import Raw, connect
from measure import (
    Bench,
    fill_with_words,
    latencies,
    percentile,
    running,
    size,
    wordy_messages,
)

import sessiondb

ENTRIES = size(1_000_000, 400)
SESSIONS = size(2_000, 4)
Query = Callable[[apsw.Connection], list[Any]]
HITS = 20
# What one would write by hand for such a list.
RAW = """SELECT s.session_id, e.entry_id, e.role, e.appended_at_ms, s.agent_id,
       snippet(search, 0, char(2), char(3), '...', 32)
FROM gateway.search JOIN gateway.entry AS e ON e.entry_no = search.rowid
JOIN gateway.session AS s ON s.session_no = e.entry_no >> 32
WHERE search MATCH ? ORDER BY search.rowid DESC LIMIT 20"""
# A word of nearly every entry, one of some, two of which few have both, and two side by side: what
# a person types, and what FTS5 takes.
WORDS = {
    "a common word": ("w1", '"w1"'),
    "a rare word": ("w400", '"w400"'),
    "two words": ("w20 w400", '"w20" AND "w400"'),
    "a phrase": ('"w1 w2"', '"w1 w2"'),
}


def test_the_first_hits_come_as_soon_as_those_of_a_raw_query(
    bench: Bench, raw: Raw, db: sessiondb.SessionDB, tmp_path: Path
) -> None:
    """Also with entries that are not in the index, which are read for each search."""
    bench.run(fill_with_words(db, ENTRIES, SESSIONS))
    bench.run(db.build_search())
    bench.run(_behind(db))

    def attach(connection: apsw.Connection) -> None:
        connection.execute("ATTACH ? AS gateway", (str(tmp_path / "gateway.db"),))

    bench.run(raw.run(attach))
    # One connection on whichever thread of anyio's pool is free: what an application does that
    # has no thread of its own for its database.
    free = connect(tmp_path / "floor of anyio.db")
    attach(free)
    count = size(50, 3)
    for what, (typed, words) in WORDS.items():

        def query(connection: apsw.Connection, words: str = words) -> list[Any]:
            return connection.execute(RAW, (words,)).fetchall()

        async def floor(query: Query = query) -> None:
            await raw.run(query)

        async def floor_of_anyio(query: Query = query) -> None:
            await anyio.to_thread.run_sync(query, free)

        async def ours(typed: str = typed) -> None:
            await db.search(typed, limit=HITS)

        rounds = [
            [bench.run(latencies(one, count)) for one in (floor, floor_of_anyio, ours)]
            for _ in range(size(10, 1))
        ]
        medians = [[percentile(one, 0.5) for one in found] for found in rounds]
        bench.say(
            f"search of {ENTRIES:,} entries, {what}",
            [(one, other) for one, _, other in medians],
            unit="us",
            target="<= 1.5",
        )
        bench.say(
            f"the same, floor through anyio.to_thread, {what}",
            [(one, other) for _, one, other in medians],
            unit="us",
        )
    free.close()
    bench.benchmark.pedantic(lambda: None, rounds=1)


async def _behind(db: sessiondb.SessionDB) -> None:
    session = await db.session_by_id("s0")
    await session.append_many(wordy_messages(random.Random(8), 10))


@pytest.mark.parametrize("share", [0.5, 0.99], ids=["p50", "p99"])
def test_an_append_beside_the_building_of_the_index(
    bench: Bench, db: sessiondb.SessionDB, share: float
) -> None:
    """The floor is the same append while nothing is built."""
    # So many that the index is being built all the time.
    bench.run(fill_with_words(db, size(100_000, 400), size(200, 4)))
    session = bench.run(db.create_session("appended to"))
    count = size(400, 5)

    async def append() -> None:
        await session.append({"role": "user", "content": "w1 w2 w3"})

    async def idle() -> list[float]:
        return await latencies(append, count)

    async def beside() -> list[float]:
        async with running(_build(db)):
            return await latencies(append, count)

    pairs = bench.rounds(idle, beside, 10)
    found = [(percentile(one, share), percentile(other, share)) for one, other in pairs]
    bench.say(
        f"append {share:.0%} beside the building of the index", found, unit="us", target="<= 1.2"
    )


async def _build(db: sessiondb.SessionDB) -> None:
    while True:
        await db.build_search(rebuild=True)
