"""Compaction: every row of the outcome table, the refusals of `begin`, renewals, undo and time.

These tests move the writer's clock, and nothing sleeps. One thing holds in every test: a message
is either in the summary's span or in the context, never in both and never in neither.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import process
from sessiondb.clock import now_ms
from sessiondb.errors import (
    CompactionCoolDown,
    CompactionRefused,
    CompactionRunning,
    InvalidInput,
    NotFound,
    NothingToCompact,
    NothingToUndo,
    SessionEnded,
)
from sessiondb.limits import (
    COMPACTION_RENEWAL_FACTOR,
    COOL_DOWN_AFTER,
    COOL_DOWN_MS,
    MANUAL_SUMMARY_TOKENS_FLOOR,
)
from sessiondb.transcript import compaction
from sessiondb.transcript.compaction import Job
from tests.support.compaction import Clock, asked, begin, begin_in, jobs, say, seen, talk
from tests.support.core import change, query, reply, result
from tests.support.world import World, make_world
from tests.support.world_build import NOW

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

GIVEN_UP = ("failed", "cancelled", "expired", "abandoned")
MINUTE_MS = 60_000


async def rows_of(session: sessiondb.Session) -> dict[str, Any]:
    """Everything that a commit could change."""
    return {
        "info": await session.info(),
        "epochs": await session.epochs(),
        "all entries": await session.all_entries(limit=1000),
        "context": (await session.context()).as_json(),
        "jobs": [job async for job in session.db.compactions(session)],
    }


async def summary_on_the_row(session: sessiondb.Session, compaction_id: str) -> str | None:
    return await session.db.backend.read(
        lambda tx: _summary(session.db.path, compaction_id), op="test"
    )


def _summary(path: str, compaction_id: str) -> str | None:
    found: str | None = query(
        Path(path), "SELECT summary FROM compaction WHERE compaction_id = ?", compaction_id
    )[0]
    return found


# -- the outcome table -----------------------------------------------------------------


async def test_a_commit_in_time_begins_the_next_epoch(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    before = await session.info()
    async with session.compact(trigger="threshold", keep_recent_tokens=50) as job:
        assert asked(job) == ["q0", "a0", "q1", "a1", "q2", "a2"]
        assert (job.base_epoch, job.tokens_before) == (0, before.context_tokens)
        done = await job.commit("S1", details={"by": "test"}, from_hook=False)
    assert (done.outcome, done.epoch, done.late, done.reason) == ("committed", 1, False, None)
    assert await seen(session) == ["<S1>", "q3", "a3"]
    after = await session.info()
    assert (after.epoch, after.compactions, after.entries) == (1, 1, before.entries + 1)
    assert done.tokens_before == before.context_tokens == 200
    assert done.tokens_after == after.context_tokens == 51
    assert [epoch.reason for epoch in await session.epochs()] == ["start", "compaction"]
    assert (await session.entries(last=1))[0].entry_id == done.entry_id
    assert await jobs(session) == [("committed", False, None)]


async def test_a_repeated_commit_returns_the_same_result(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    compaction_id = await begin(session)
    first = await db.commit_compaction(compaction_id, "S1")
    rows = await rows_of(session)
    assert await db.commit_compaction(compaction_id, "S1") == first
    assert await db.commit_compaction(compaction_id, "another summary") == first
    assert await db.commit_compaction(compaction_id, "") == first
    assert await rows_of(session) == rows


async def test_a_committed_result_outlives_later_changes(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    compaction_id = await begin(session)
    first = await db.commit_compaction(compaction_id, "S1")
    await say(session, "q4", "a4")
    await session.reset()
    assert await db.commit_compaction(compaction_id, "S1") == first


@pytest.mark.parametrize("state", GIVEN_UP)
async def test_a_commit_after_giving_up_is_late_but_not_lost(
    db: sessiondb.SessionDB, state: Any
) -> None:
    session = await talk(db)
    compaction_id = await begin(session)
    assert await db.fail_compaction(compaction_id, "gone", state=state)
    assert not await db.fail_compaction(compaction_id, "gone again", state=state)
    await say(session, "q4")
    done = await db.commit_compaction(compaction_id, "S1")
    assert (done.outcome, done.late, done.epoch, done.reason) == ("committed", True, 1, "gone")
    assert await seen(session) == ["<S1>", "q3", "a3", "q4"]
    assert await db.commit_compaction(compaction_id, "S1") == done
    assert (await session.info()).compactions == 1


async def test_a_commit_overtaken_by_one_message_less_is_late(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    higher = await begin(session, 50)
    await db.fail_compaction(higher, "slow")
    await db.commit_compaction(await begin(session, 75), "low")
    assert await seen(session) == ["<low>", "a2", "q3", "a3"]
    done = await db.commit_compaction(higher, "high")
    assert (done.outcome, done.late) == ("committed", True)
    assert await seen(session) == ["<high>", "q3", "a3"]


async def test_a_commit_overtaken_by_a_lower_cut_moves_it_forward(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    higher = await begin(session, 50)
    await db.fail_compaction(higher, "slow")
    lower = await begin(session, 100)
    assert (await db.commit_compaction(lower, "low")).outcome == "committed"
    assert await seen(session) == ["<low>", "q2", "a2", "q3", "a3"]
    await say(session, "q4")
    done = await db.commit_compaction(higher, "high")
    assert (done.outcome, done.late, done.epoch) == ("committed", True, 2)
    assert await seen(session) == ["<high>", "q3", "a3", "q4"]
    assert await seen(session, 1) == ["<low>", "q2", "a2", "q3", "a3", "q4"]


@pytest.mark.parametrize(
    ("first", "then"), [(100, 100), (100, 50), (50, 0)], ids=["equal", "higher", "all of it"]
)
async def test_a_commit_overtaken_by_an_equal_cut_is_superseded(
    db: sessiondb.SessionDB, first: int, then: int
) -> None:
    session = await talk(db)
    overtaken = await begin(session, first)
    await db.fail_compaction(overtaken, "slow")
    assert (await db.commit_compaction(await begin(session, then), "S1")).outcome == "committed"
    await _superseded(session, overtaken, "a compaction that covers as much began epoch 1")


async def _superseded(session: sessiondb.Session, compaction_id: str, reason: str) -> None:
    """The summary is kept on the job's row, and nothing else changes."""
    before = await rows_of(session)
    done = await session.db.commit_compaction(compaction_id, "kept for later")
    assert (done.outcome, done.late, done.reason) == ("superseded", False, reason)
    assert done.epoch == before["info"].epoch
    assert await summary_on_the_row(session, compaction_id) == "kept for later"
    after = await rows_of(session)
    assert {name: rows for name, rows in after.items() if name != "jobs"} == {
        name: rows for name, rows in before.items() if name != "jobs"
    }
    assert len(after["jobs"]) == len(before["jobs"])
    assert await session.db.commit_compaction(compaction_id, "again") == done
    assert await summary_on_the_row(session, compaction_id) == "kept for later"


@pytest.mark.parametrize("running", [True, False], ids=["running", "given up"])
@pytest.mark.parametrize("what", ["reset", "branch", "undo", "end"])
async def test_a_reset_branch_undo_or_end_supersedes(
    db: sessiondb.SessionDB, what: str, running: bool
) -> None:
    session = await talk(db)
    await db.commit_compaction(await begin(session, 100), "S1")
    await say(session, "q4", "a4")
    compaction_id = await begin(session, 50)
    if not running:
        await db.fail_compaction(compaction_id, "gone")
    if what == "reset":
        await session.reset()
        reason = "reset began epoch 2"
    elif what == "branch":
        await session.branch((await session.entries(limit=2))[0].entry_id)
        reason = "branch began epoch 2"
    elif what == "undo":
        await session.undo_compaction()
        reason = "undo began epoch 2"
    else:
        await session.end()
        reason = "the session has ended"
    await _superseded(session, compaction_id, reason)


async def test_leaving_and_coming_back_supersedes_too(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    head = (await session.entries(last=1))[0].entry_id
    compaction_id = await begin(session)
    await session.branch((await session.entries(limit=1))[0].entry_id)
    await session.branch(head)
    await _superseded(session, compaction_id, "branch began epoch 1")


@pytest.mark.parametrize("summary", ["", " ", "\n\t  \n", "\u00a0\u3000"])
async def test_an_empty_summary_is_rejected(db: sessiondb.SessionDB, summary: str) -> None:
    session = await talk(db)
    before = await rows_of(session)
    done = await db.commit_compaction(await begin(session), summary)
    assert (done.outcome, done.reason, done.epoch) == ("rejected", "the summary is empty", 0)
    after = await rows_of(session)
    assert (after["info"], after["context"], after["all entries"]) == (
        before["info"],
        before["context"],
        before["all entries"],
    )


async def test_a_summary_that_is_no_shorter_is_rejected(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    before = await session.info()
    rejected = await db.commit_compaction(await begin(session, 100), "x" * 400)
    assert rejected.outcome == "rejected"
    assert rejected.reason == "the summary has about 100 tokens and would replace 100"
    assert await session.info() == before
    assert (await db.commit_compaction(await begin(session, 100), "x" * 396)).outcome == "committed"


async def test_a_manual_summary_may_be_longer_up_to_a_bound(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    too_long = await begin(session, 100, trigger="manual")
    assert (
        await db.commit_compaction(too_long, "x" * 4 * MANUAL_SUMMARY_TOKENS_FLOOR)
    ).outcome == "rejected"
    allowed = await begin(session, 100, trigger="manual")
    assert (
        await db.commit_compaction(allowed, "x" * 4 * (MANUAL_SUMMARY_TOKENS_FLOOR - 1))
    ).outcome == "committed"


async def test_with_all_kept_a_summary_replaces_the_one_before(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db, 20)
    await db.commit_compaction(await begin(session, 0), "x" * 4 * 800)
    await say(session, "unanswered")
    too_long = await db.commit_compaction(await begin(session, trigger="manual"), "x" * 4 * 800)
    assert (too_long.outcome, too_long.reason) == (
        "rejected",
        "the summary has about 800 tokens and would replace 800",
    )
    assert (
        await db.commit_compaction(await begin(session, trigger="manual"), "x" * 4 * 799)
    ).outcome == "committed"
    assert (await seen(session))[1:] == ["unanswered"]


async def test_repeated_rejection_starts_a_cool_down_that_expires(
    db: sessiondb.SessionDB, clock: Clock
) -> None:
    session = await talk(db)
    for _ in range(COOL_DOWN_AFTER):
        assert (await db.commit_compaction(await begin(session), "")).outcome == "rejected"
    clock.now_ms += COOL_DOWN_MS // 2
    with pytest.raises(CompactionCoolDown, match=session.id) as refused:
        await begin(session)
    assert refused.value.retry
    assert refused.value.until_ms == clock.now_ms + COOL_DOWN_MS // 2
    assert refused.value.retry_after_ms == COOL_DOWN_MS // 2
    assert [state for state, _, _ in await jobs(session)] == ["rejected"] * COOL_DOWN_AFTER
    await say(session, "q4")  # it never concerns an append
    clock.now_ms = refused.value.until_ms - 1
    with pytest.raises(CompactionCoolDown):
        await begin(session)
    clock.now_ms = refused.value.until_ms
    assert (await db.commit_compaction(await begin(session), "S1")).outcome == "committed"


async def test_a_cool_down_survives_a_restart_and_is_shown_as_stuck(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await talk(db)
        for _ in range(COOL_DOWN_AFTER):
            await db.commit_compaction(await begin(session), "")
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await db.session_by_id(session.id)
        with pytest.raises(CompactionCoolDown):
            await begin(session)
        assert [(line.session_id, line.problem) for line in (await db.status()).stuck] == [
            (session.id, "in cool-down")
        ]
    # The view's clock has whole seconds: it may show a cool-down for up to one more.
    change(tmp_db, f"UPDATE compaction SET finished_at_ms = finished_at_ms - {COOL_DOWN_MS} - 1000")
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await db.session_by_id(session.id)
        assert (await db.status()).stuck == ()
        await begin(session)


async def test_a_cool_down_lasts_from_the_last_rejection(
    db: sessiondb.SessionDB, clock: Clock
) -> None:
    session = await talk(db)
    slow = await begin(session)
    await db.fail_compaction(slow, "slow")
    for _ in range(COOL_DOWN_AFTER - 1):
        await db.commit_compaction(await begin(session), "")
    clock.now_ms += MINUTE_MS
    await db.commit_compaction(slow, "")
    with pytest.raises(CompactionCoolDown) as refused:
        await begin(session)
    assert refused.value.until_ms == clock.now_ms + COOL_DOWN_MS


async def test_a_cool_down_concerns_one_session_and_epoch(db: sessiondb.SessionDB) -> None:
    session, other = await talk(db), await talk(db)
    for _ in range(COOL_DOWN_AFTER):
        await db.commit_compaction(await begin(session), "")
    with pytest.raises(CompactionCoolDown):
        await begin(session)
    await begin(other)
    await session.branch((await session.entries(last=3))[1].entry_id)
    await begin(session)


@pytest.mark.parametrize("between", ["committed", "failed"])
async def test_only_rejections_in_a_row_count(db: sessiondb.SessionDB, between: str) -> None:
    session = await talk(db, 8)
    for number in range(COOL_DOWN_AFTER + 1):
        if number == 1:
            middle = await begin(session, 300)
            await (
                db.commit_compaction(middle, "S1")
                if between == "committed"
                else db.fail_compaction(middle, "gone")
            )
        else:
            await db.commit_compaction(await begin(session, 100), "")
    await begin(session)


# A context of 1,000 tokens in vain: what is kept, the summary, and the caller's threshold.
IN_VAIN = [
    (850, 120, None),  # it saves 30 of 1,000 tokens
    (960, 1, None),  # it saves 90 of 1,050, a bit less than a tenth
    (300, 300, 500),  # it saves 400, and the next one is due at once
]


@pytest.mark.parametrize(("kept", "summary", "threshold"), IN_VAIN)
async def test_a_summary_for_every_message_ends_after_three(
    db: sessiondb.SessionDB, clock: Clock, kept: int, summary: int, threshold: int | None
) -> None:
    """A summariser that always writes about as much, and an agent that compacts by itself."""
    clock.now_ms = now_ms()  # the view `stuck` asks SQLite's clock
    session, other = await talk(db, 20), await talk(db, 20)
    options = {"trigger": "threshold", "keep_recent_tokens": kept, "threshold_tokens": threshold}
    paid = refused = 0
    for number in range(12):
        await say(session, f"more {number}", "and more")
        try:
            async with session.compact(**options) as job:
                paid += 1
                assert (await job.commit("S" * 4 * summary)).outcome == "committed"
        except CompactionCoolDown:
            refused += 1
    assert (paid, refused) == (COOL_DOWN_AFTER, 12 - COOL_DOWN_AFTER)
    assert [(line.session_id, line.what) for line in (await db.status()).stuck] == [
        (session.id, "compaction")
    ]
    await begin(other, 100)
    clock.now_ms += COOL_DOWN_MS
    async with session.compact(**options):
        pass


async def test_a_compaction_that_saves_a_tenth_or_that_a_person_asked_for_is_not_in_vain(
    db: sessiondb.SessionDB,
) -> None:
    for trigger, keep, text in (("threshold", 100, "S"), ("manual", 100, "S" * 400)):
        session = await talk(db, 8)
        for number in range(COOL_DOWN_AFTER + 2):
            await say(session, f"more {number}", "and more")
            async with session.compact(
                trigger=trigger, keep_recent_tokens=keep, threshold_tokens=1_000
            ) as job:
                assert (await job.commit(text)).outcome == "committed"


async def test_what_arrives_meanwhile_makes_no_compaction_vain(db: sessiondb.SessionDB) -> None:
    session = await talk(db, 8)
    for _ in range(COOL_DOWN_AFTER + 1):
        async with session.compact(trigger="threshold", keep_recent_tokens=100) as job:
            for number in range(8):
                await say(session, f"meanwhile {number}", "and more")
            result = await job.commit("S")
        assert result.tokens_after is not None
        assert result.tokens_after > result.tokens_before * 0.9


async def test_a_commit_of_an_unknown_job_is_not_found(db: sessiondb.SessionDB) -> None:
    with pytest.raises(NotFound, match="nonesuch"):
        await db.commit_compaction("nonesuch", "S1")


# -- begin -----------------------------------------------------------------------------


async def test_a_second_job_is_refused_and_names_the_first_owner(
    db: sessiondb.SessionDB, clock: Clock
) -> None:
    session = await talk(db)
    compaction_id = await begin(session)
    clock.now_ms += MINUTE_MS
    with pytest.raises(CompactionRunning, match="has been running for 60 s") as refused:
        await begin(session, trigger="manual")
    assert refused.value.compaction_id == compaction_id
    assert refused.value.retry_after_ms == 2 * MINUTE_MS
    owner = refused.value.owner
    assert isinstance(owner, process.Owner), "plain values, no row of the database"
    assert (owner.host, owner.pid) == (process.identity().host, process.identity().pid)
    assert db.backend.liveness([owner]) == [True]
    assert f"pid {owner.pid}" in str(refused.value)
    again = pickle.loads(pickle.dumps(refused.value))  # our own bytes
    assert (str(again), vars(again)) == (str(refused.value), vars(refused.value))
    assert [state for state, _, _ in await jobs(session)] == ["running"]


async def test_a_job_past_its_deadline_makes_way_for_the_next(
    db: sessiondb.SessionDB, clock: Clock
) -> None:
    session = await talk(db)
    first = await begin(session, 100)
    clock.now_ms += 3 * MINUTE_MS
    second = await begin(session, 50)
    assert await jobs(session) == [
        ("running", False, None),
        ("expired", False, "its deadline passed"),
    ]
    assert (await db.commit_compaction(first, "first")).late
    assert (await db.commit_compaction(second, "second")).late
    assert await seen(session) == ["<second>", "q3", "a3"]


async def test_an_ended_session_has_nothing_to_compact(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    await session.end()
    with pytest.raises(SessionEnded, match=session.id):
        await begin(session)


async def test_an_automatic_trigger_does_nothing_when_everything_fits(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    with pytest.raises(NothingToCompact, match="200 tokens"):
        await begin(session, 10_000)
    with pytest.raises(NothingToCompact):
        await begin(await db.create_session(), 0)
    with pytest.raises(NothingToCompact):
        await begin(await db.create_session(), 0, trigger="manual")
    assert await jobs(session) == []


# -- renew -----------------------------------------------------------------------------


async def test_a_deadline_can_be_renewed_up_to_its_bound(
    db: sessiondb.SessionDB, clock: Clock
) -> None:
    session = await talk(db)

    async def deadline_ms() -> int:
        found = [job.deadline_ms async for job in db.compactions(session)]
        return found[0]

    async with session.compact(keep_recent_tokens=50, timeout_s=60) as job:
        begun_ms = clock.now_ms
        assert await deadline_ms() == begun_ms + MINUTE_MS
        clock.now_ms += MINUTE_MS // 2
        await job.renew(60)
        assert await deadline_ms() == clock.now_ms + MINUTE_MS
        clock.now_ms += MINUTE_MS
        await job.renew(1_000_000)
        assert await deadline_ms() == begun_ms + COMPACTION_RENEWAL_FACTOR * MINUTE_MS
        await job.renew(0.5)
        assert await deadline_ms() == clock.now_ms + 500
        for impossible in (0, -1, math.inf, math.nan):
            with pytest.raises(InvalidInput, match=r"positive and finite|timeout_s is nan"):
                await job.renew(impossible)
        assert await deadline_ms() == clock.now_ms + 500
        await job.renew(1_000_000)
        with pytest.raises(CompactionRunning):
            await begin(session)
        clock.now_ms = begun_ms + COMPACTION_RENEWAL_FACTOR * MINUTE_MS
        await job.renew(60)
        assert await deadline_ms() == clock.now_ms, "the bound stays, and it has been reached"
        await begin(session)  # so another may begin
        done = await job.commit("S1")
    assert (done.outcome, done.late) == ("committed", True)


@pytest.mark.parametrize("state", GIVEN_UP)
async def test_a_job_that_was_given_up_cannot_be_renewed(
    db: sessiondb.SessionDB, state: Any
) -> None:
    session = await talk(db)
    async with session.compact(keep_recent_tokens=50) as job:
        await db.fail_compaction(job.id, "gone", state=state)
        with pytest.raises(CompactionRefused, match=f"is {state}, not running"):
            await job.renew(60)
        assert (await job.commit("S1")).late


# -- building on an earlier compaction -------------------------------------------------


async def test_the_next_summary_begins_at_the_kept_tail(
    db: sessiondb.SessionDB,
) -> None:
    """Starting after the compaction entry instead would lose the kept tail."""
    session = await talk(db)
    await db.commit_compaction(await begin(session, 100), "S1")
    await say(session, "q4", "a4")
    await say(session, "q5", "a5")
    async with session.compact(keep_recent_tokens=50) as job:
        assert asked(job) == ["S1", "q2", "a2", "q3", "a3", "q4", "a4"]
        await job.commit("S2")
    assert await seen(session) == ["<S2>", "q5", "a5"]


async def test_messages_that_arrive_between_begin_and_commit_stay(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    compaction_id = await begin(session, 0)
    await session.append(reply("call", calls=["c1"]))
    await session.append(result("c1"))
    await say(session, "q4")
    await db.commit_compaction(compaction_id, "S1")
    assert await seen(session) == ["<S1>", "call", "done", "q4"]


async def test_a_reset_keeps_only_entries_of_its_path(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    elsewhere = (await session.entries(last=1))[0].entry_id
    await session.branch((await session.entries(limit=1))[0].entry_id)
    with pytest.raises(NotFound, match="on its current path"):
        await session.reset(keep_from=elsewhere)
    leaf = next(entry for entry in await session.all_entries(limit=1000) if entry.type == "leaf")
    with pytest.raises(NotFound, match="on its current path"):
        await session.reset(keep_from=leaf.entry_id)
    assert (await session.info()).epoch == 1


# -- undo ------------------------------------------------------------------------------


async def test_undo_restores_the_context_and_keeps_new_entries(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    before = await seen(session)
    await db.commit_compaction(await begin(session), "S1")
    await say(session, "q4")
    assert await session.undo_compaction() == 2
    assert await seen(session) == [*before, "q4"]
    assert (await session.info()).compactions == 1
    assert [epoch.reason for epoch in await session.epochs()] == ["start", "compaction", "undo"]


async def test_undo_twice_goes_back_twice_and_then_refuses(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    await db.commit_compaction(await begin(session, 150), "S1")
    await db.commit_compaction(await begin(session, 50), "S2")
    assert await seen(session) == ["<S2>", "q3", "a3"]
    await session.undo_compaction()
    assert await seen(session) == ["<S1>", "q1", "a1", "q2", "a2", "q3", "a3"]
    await session.undo_compaction()
    assert await seen(session) == ["q0", "a0", "q1", "a1", "q2", "a2", "q3", "a3"]
    with pytest.raises(NothingToUndo, match=session.id):
        await session.undo_compaction()


async def test_a_compaction_after_an_undo_starts_from_the_old_context(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    await db.commit_compaction(await begin(session, 150), "S1")
    await db.commit_compaction(await begin(session, 50), "bad")
    await session.undo_compaction()
    await say(session, "q4", "a4")
    async with session.compact(trigger="threshold", keep_recent_tokens=100) as job:
        assert asked(job) == ["S1", "q1", "a1", "q2", "a2"]
        assert (await job.commit("good")).outcome == "committed"
    assert await seen(session) == ["<good>", "q3", "a3", "q4", "a4"]
    await session.undo_compaction()
    assert await seen(session) == ["<S1>", "q1", "a1", "q2", "a2", "q3", "a3", "q4", "a4"]


async def test_a_fork_cannot_undo_its_ancestors_compaction(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    await db.commit_compaction(await begin(session), "S1")
    fork = await session.fork()
    assert await seen(fork) == ["<S1>", "q3", "a3"]
    with pytest.raises(NothingToUndo):
        await fork.undo_compaction()
    await say(fork, "q4", "a4")
    await db.commit_compaction(await begin(fork, 50), "S2")
    await fork.undo_compaction()
    assert await seen(fork) == ["<S1>", "q3", "a3", "q4", "a4"]
    assert await seen(session) == ["<S1>", "q3", "a3"]


async def test_no_past_epoch_ever_changes(db: sessiondb.SessionDB) -> None:
    """Hash the context of every closed epoch after every operation, and again at the end."""
    session = await talk(db)
    known: dict[int, str] = {}

    async def check() -> None:
        for epoch in range((await session.info()).epoch):
            context = await session.context(epoch=epoch)
            found = hashlib.sha256(context.as_pi_json() + str(context.head_id).encode()).hexdigest()
            assert known.setdefault(epoch, found) == found, f"epoch {epoch} changed"

    async def compact(keep: int, summary: str) -> None:
        await db.commit_compaction(await begin(session, keep), summary)

    early = (await session.entries(limit=3))[2].entry_id
    late = await begin(session, 60)
    await db.fail_compaction(late, "slow")
    operations: list[Callable[[], Any]] = [
        lambda: compact(150, "S1"),
        lambda: db.commit_compaction(late, "overtaken"),
        lambda: say(session, "q4", "a4"),
        lambda: session.undo_compaction(),
        lambda: say(session, "q5", "a5"),
        lambda: compact(50, "S2"),
        lambda: session.fork(epoch=1),
        lambda: session.branch(early),
        lambda: say(session, "branched", "a6"),
        lambda: session.reset(keep_from=early),
        lambda: say(session, "q7", "a7"),
        lambda: compact(0, "S3"),
        lambda: say(session, "q8", "a8"),
        lambda: session.undo_compaction(),
        lambda: session.branch(None),
        lambda: say(session, "root", "a9"),
        lambda: compact(0, "S4"),
        lambda: session.end(),
    ]
    for operation in operations:
        await operation()
        await check()
    await check()
    assert len(known) == (await session.info()).epoch == 10
    assert (await db.verify()).findings == ()


def job_of(world: World, cut: str | None) -> Job:
    """Return a job over the first epoch of a session that has an excluded message."""
    no = world.no("session live")
    cut_no = world.no(f"entry {cut}") if cut is not None else None
    return Job("id", no, "live", "manual", 0, cut_no, world.no("entry live/9"), 1, NOW)


def test_what_its_author_excluded_is_neither_summarised_nor_kept() -> None:
    """`read_span` and `read_kept` are twins: what holds for one holds for the other."""
    world = make_world()
    tx = world.tx()
    whole = [3, 4, 5, 6, 8, 9]  # of these, 7 is excluded
    for read, job, seqs in (
        (compaction.read_kept, job_of(world, None), whole),
        (compaction.read_span, job_of(world, "live/9"), whole),
        (compaction.read_span, job_of(world, "live/8"), whole[:-1]),
    ):
        found = read(tx, job)
        texts = [world.row(f"entry live/{seq}")["payload"] for seq in seqs]
        assert len(found) == len(texts)
        assert all(part.decode() in text for part, text in zip(found, texts, strict=True))


def test_a_third_rejection_cools_down_whatever_came_before_it() -> None:
    """An older job that failed does not count, and neither do another session's."""
    world = make_world()
    ended = world.row("compaction tired-too-rejected-2")["finished_at_ms"]
    for at_ms, session_id, cools in (
        (ended + 1, "job-tired-too", True),
        (ended + COOL_DOWN_MS - 1, "job-tired-too", True),
        (ended + COOL_DOWN_MS, "job-tired-too", False),
        (ended + 1, "twin", False),
    ):
        world.now_ms = at_ms
        with world.undone() as tx, pytest.raises(CompactionCoolDown) if cools else nullcontext():
            begin_in(
                tx,
                world.no(f"session {session_id}"),
                trigger="threshold",
                keep_recent_tokens=1,
                timeout_ms=1_000,
            )
