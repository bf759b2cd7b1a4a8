"""Compaction: its two write transactions, whatever the history's length."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import pytest
from measure import HISTORY, Bench, history_key, size

from sessiondb import SessionDB
from sessiondb.transcript import compaction

# About thirteen of the history's messages: what a cut search reads is what is kept, not
# what is summarised.
OPTIONS: dict[str, Any] = {"trigger": "manual", "keep_recent_tokens": 2_000}


@pytest.mark.parametrize("entries", HISTORY[1:], ids="{:,}".format)
def test_begin_and_commit_take_as_long_in_a_long_history(
    bench: Bench, history_db: SessionDB, entries: int
) -> None:
    """The floor is the same in the shortest history.

    Each transaction is timed from BEGIN to the end of COMMIT.
    """
    cycles = size(20, 2)
    pairs = bench.rounds(
        lambda: _cycles(history_db, HISTORY[0], cycles),
        lambda: _cycles(history_db, entries, cycles),
        5,
    )
    for index, step in enumerate(("begin", "commit")):
        bench.say(
            f"compaction {step}, {entries:,} entries to {HISTORY[0]}",
            [(floor[index], ours[index]) for floor, ours in pairs],
            unit="ms",
            target="<= 1.5",
        )


async def _cycles(db: SessionDB, entries: int, count: int) -> tuple[float, float]:
    """Begin and commit `count` times.

    Return the median transaction of begin and of commit, in milliseconds.

    Each time in a new fork of the whole history, which copies nothing: a second
    compaction of one session would find a short context.
    """
    whole = await db.session(history_key(entries))
    took: dict[str, list[float]] = {"begin": [], "commit": []}
    for _ in range(count):
        session_no = (await whole.fork(epoch=0)).ref.session_no
        choice = await db.read(
            "bench.choose", partial(compaction.choose, session_no=session_no, **OPTIONS)
        )
        job = await db.write(
            "bench.begin", partial(compaction.begin, choice=choice, timeout_ms=60_000)
        )
        assert job is not None, "nobody else writes"
        took["begin"].append((await db.stats())["writer"]["transaction_ms_last"])
        result = await db.commit_compaction(
            job.compaction_id, "A short summary of what was said so far."
        )
        took["commit"].append((await db.stats())["writer"]["transaction_ms_last"])
        assert result.outcome == "committed"
    return median(took["begin"]), median(took["commit"])
