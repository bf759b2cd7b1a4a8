"""Compaction: its two write transactions, whatever the history's length."""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import Any

import pytest
from measure import HISTORY, SMOKE, Bench, history_key, size

from sessiondb import Session, SessionDB
from sessiondb.transcript import compaction

# About thirteen of the history's messages: what a cut search reads is what is kept, not
# what is summarised.
OPTIONS: dict[str, Any] = {"trigger": "manual", "keep_recent_tokens": 2_000}
# A group to which the agent listens, and answers nobody.
WAITING = (100, 1_000) if SMOKE else (100, 10_000, 1_000_000)


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


@pytest.mark.parametrize("waiting", WAITING[1:], ids="{:,}".format)
def test_a_cut_is_chosen_as_fast_behind_many_unanswered_messages(
    bench: Bench, history_db: SessionDB, waiting: int
) -> None:
    """The floor is the same with few of them: a read that chooses, and a write that begins."""
    few = bench.run(_listening(history_db, WAITING[0]))
    many = bench.run(_listening(history_db, waiting))
    cycles = size(20, 2)
    pairs = bench.rounds(lambda: _begins(few, cycles), lambda: _begins(many, cycles), 5)
    for index, step in enumerate(("choose", "begin")):
        bench.say(
            f"compaction {step}, {waiting:,} unanswered to {WAITING[0]}",
            [(floor[index], ours[index]) for floor, ours in pairs],
            unit="ms",
            target="<= 1.5",
        )


async def _listening(db: SessionDB, waiting: int) -> Session:
    """Return a session with messages that nobody answered behind some that were."""
    session = await db.session(f"agent:main:listening:{waiting}")
    stored = (await session.info()).entries
    question = {"role": "user", "content": "a question of ordinary length " * 10}
    answer = {
        "role": "assistant",
        "content": [{"type": "text", "text": "an answer of ordinary length " * 10}],
        "stopReason": "stop",
    }
    if stored == 0:
        await session.append_many([question, answer] * 20)
        for _ in range(waiting // 100):
            await session.append_many([question] * 100)
    return session


async def _begins(session: Session, count: int) -> tuple[float, float]:
    """Choose and begin `count` times. Return the median of each, in milliseconds."""
    db, session_no = session.db, session.ref.session_no
    took: dict[str, list[float]] = {"choose": [], "begin": []}
    for _ in range(count):
        began = time.perf_counter()
        choice = await db.read(
            "bench.choose",
            partial(
                compaction.choose,
                session_no=session_no,
                trigger="threshold",
                keep_recent_tokens=2_000,
            ),
        )
        took["choose"].append((time.perf_counter() - began) * 1000)
        job = await db.write(
            "bench.begin", partial(compaction.begin, choice=choice, timeout_ms=60_000)
        )
        assert job is not None, "nobody else writes"
        took["begin"].append(db.backend.stats()["writer"]["transaction_ms_last"])
        await db.write(
            "bench.give_up",
            partial(
                compaction.give_up,
                compaction_id=job.compaction_id,
                state="cancelled",
                reason="measured",
            ),
        )
    return median(took["choose"]), median(took["begin"])


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
