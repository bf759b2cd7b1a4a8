"""Compaction: every row of the outcome table, what `begin` refuses, where it cuts, and what undo and time do.

Time is the writer's clock, which these tests move; nothing sleeps. What survives in every test: a message is either in
the summary's span or in the context, never in both and never in neither.
"""

from __future__ import annotations

import hashlib
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sessiondb
import sessiondb.sync
from sessiondb import process
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
    COOL_DOWN_AFTER_REJECTIONS,
    COOL_DOWN_MS,
    MANUAL_SUMMARY_TOKENS_FLOOR,
)
from sessiondb.sqlite import writer
from sessiondb.transcript.compaction import Summary
from tests.proofs.models.transcript import message
from tests.support.core import change, query, reply, result, texts, user
from tests.support.engine import other_process

pytestmark = pytest.mark.anyio

GIVEN_UP = ("failed", "cancelled", "expired", "abandoned")
MINUTE_MS = 60_000


class Clock:
    """The writer's clock."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(writer, "_now_ms", lambda: found.now_ms)
    return found


@pytest.fixture
async def db(tmp_db: Path, anyio_backend: str) -> AsyncIterator[sessiondb.SessionDB]:
    async with sessiondb.open(tmp_db, guard=False) as opened:
        yield opened


async def talk(db: sessiondb.SessionDB, turns: int = 4) -> sessiondb.Session:
    """Return a session of q0 a0 q1 a1 ...; each message has 25 tokens."""
    session = await db.create_session()
    for turn in range(turns):
        await say(session, f"q{turn}", f"a{turn}")
    return session


async def say(session: sessiondb.Session, question: str, answer: str | None = None) -> None:
    await session.append(user(question.ljust(100)))
    if answer is not None:
        await session.append(reply(answer.ljust(100)))


async def seen(session: sessiondb.Session, epoch: int | None = None) -> list[str]:
    return [text.strip() for text in texts(await session.context(epoch=epoch))]


def asked(job: sessiondb.CompactionJob) -> list[str]:
    found = []
    for item in job.messages:
        content = item.get("content", item.get("summary"))
        found.append((content if isinstance(content, str) else content[0]["text"]).strip())
    return found


async def begin(session: sessiondb.Session, keep: int = 50, *, trigger: str = "threshold") -> str:
    """Begin a job that nobody is inside of; return its id."""
    job = session.compact(trigger=trigger, keep_recent_tokens=keep)
    await job.__aenter__()
    job._scope.__exit__(None, None, None)
    return job.id


async def jobs(session: sessiondb.Session) -> list[tuple[str, bool, str | None]]:
    return [(job.state, job.late, job.reason) async for job in session.db.compactions(session)]


async def rows_of(session: sessiondb.Session) -> dict[str, Any]:
    """Everything that a commit could change."""
    return {
        "info": await session.info(),
        "epochs": await session.epochs(),
        "arrivals": await session.arrivals(limit=1000),
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
    assert (await session.tail(1))[0].entry_id == done.entry_id
    assert await jobs(session) == [("committed", False, None)]


async def test_the_same_id_again_gets_the_same_result_and_changes_nothing(
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


async def test_a_committed_result_stays_the_same_after_everything_else_has_changed(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    compaction_id = await begin(session)
    first = await db.commit_compaction(compaction_id, "S1")
    await say(session, "q4", "a4")
    await session.reset()
    assert await db.commit_compaction(compaction_id, "S1") == first


@pytest.mark.parametrize("state", GIVEN_UP)
async def test_a_commit_after_the_job_was_given_up_is_late_but_not_lost(
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


async def test_a_commit_overtaken_by_a_cut_one_message_lower_is_late_too(
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


async def test_a_commit_overtaken_by_a_lower_cut_is_late_and_the_cut_moves_forward(
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
async def test_a_commit_overtaken_by_a_cut_that_covers_as_much_is_superseded(
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
    head = (await session.tail(1))[0].entry_id
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
    assert (after["info"], after["context"], after["arrivals"]) == (
        before["info"],
        before["context"],
        before["arrivals"],
    )


async def test_a_summary_that_is_no_shorter_is_rejected(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    before = await session.info()
    rejected = await db.commit_compaction(await begin(session, 100), "x" * 400)
    assert rejected.outcome == "rejected"
    assert rejected.reason == "the summary has about 100 tokens and would replace 100"
    assert await session.info() == before
    assert (await db.commit_compaction(await begin(session, 100), "x" * 396)).outcome == "committed"


async def test_by_hand_a_short_conversation_may_get_a_longer_summary_up_to_a_bound(
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


async def test_with_everything_kept_a_new_summary_replaces_the_one_before(
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


async def test_repeated_rejection_starts_a_cool_down_that_is_visible_and_expires(
    db: sessiondb.SessionDB, clock: Clock
) -> None:
    session = await talk(db)
    for _ in range(COOL_DOWN_AFTER_REJECTIONS):
        assert (await db.commit_compaction(await begin(session), "")).outcome == "rejected"
    clock.now_ms += COOL_DOWN_MS // 2
    with pytest.raises(CompactionCoolDown, match=session.id) as refused:
        await begin(session)
    assert refused.value.retry
    assert refused.value.until_ms == clock.now_ms + COOL_DOWN_MS // 2
    assert refused.value.retry_after_ms == COOL_DOWN_MS // 2
    assert [state for state, _, _ in await jobs(session)] == [
        "rejected"
    ] * COOL_DOWN_AFTER_REJECTIONS
    await say(session, "q4")  # it never concerns an append
    clock.now_ms = refused.value.until_ms - 1
    with pytest.raises(CompactionCoolDown):
        await begin(session)
    clock.now_ms = refused.value.until_ms
    assert (await db.commit_compaction(await begin(session), "S1")).outcome == "committed"


async def test_a_cool_down_survives_a_restart_and_is_shown_in_stuck_until_it_expires(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await talk(db)
        for _ in range(COOL_DOWN_AFTER_REJECTIONS):
            await db.commit_compaction(await begin(session), "")
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await db.session_by_id(session.id)
        with pytest.raises(CompactionCoolDown):
            await begin(session)
        assert [(line.session_id, line.what) for line in (await db.status()).stuck] == [
            (session.id, "compaction cool-down")
        ]
    # The view's clock has whole seconds: it may show a cool-down for up to one more.
    change(tmp_db, f"UPDATE compaction SET finished_at_ms = finished_at_ms - {COOL_DOWN_MS} - 1000")
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await db.session_by_id(session.id)
        assert (await db.status()).stuck == ()
        await begin(session)


async def test_a_cool_down_lasts_from_the_last_rejection_whichever_job_that_was(
    db: sessiondb.SessionDB, clock: Clock
) -> None:
    session = await talk(db)
    slow = await begin(session)
    await db.fail_compaction(slow, "slow")
    for _ in range(COOL_DOWN_AFTER_REJECTIONS - 1):
        await db.commit_compaction(await begin(session), "")
    clock.now_ms += MINUTE_MS
    await db.commit_compaction(slow, "")
    with pytest.raises(CompactionCoolDown) as refused:
        await begin(session)
    assert refused.value.until_ms == clock.now_ms + COOL_DOWN_MS


async def test_a_cool_down_concerns_one_session_and_one_epoch_only(db: sessiondb.SessionDB) -> None:
    session, other = await talk(db), await talk(db)
    for _ in range(COOL_DOWN_AFTER_REJECTIONS):
        await db.commit_compaction(await begin(session), "")
    with pytest.raises(CompactionCoolDown):
        await begin(session)
    await begin(other)
    await session.branch((await session.tail(3))[1].entry_id)
    await begin(session)


@pytest.mark.parametrize("between", ["committed", "failed"])
async def test_only_rejections_in_a_row_count(db: sessiondb.SessionDB, between: str) -> None:
    session = await talk(db, 8)
    for number in range(COOL_DOWN_AFTER_REJECTIONS + 1):
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


async def test_a_commit_of_an_unknown_job_is_not_found(db: sessiondb.SessionDB) -> None:
    with pytest.raises(NotFound, match="nonesuch"):
        await db.commit_compaction("nonesuch", "S1")


async def test_a_summary_that_is_no_text_is_refused_before_anything_happens(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    compaction_id = await begin(session)
    with pytest.raises(InvalidInput, match="a summary is a text"):
        await db.commit_compaction(compaction_id, None)  # type: ignore[arg-type]
    assert [state for state, _, _ in await jobs(session)] == ["running"]


# -- begin -----------------------------------------------------------------------------


async def test_a_second_job_is_refused_and_told_whose_the_first_is(
    db: sessiondb.SessionDB, clock: Clock
) -> None:
    session = await talk(db)
    compaction_id = await begin(session)
    clock.now_ms += MINUTE_MS
    with pytest.raises(CompactionRunning, match="has been running for 60 s") as refused:
        await begin(session, trigger="manual")
    assert refused.value.compaction_id == compaction_id
    assert refused.value.retry_after_ms == 2 * MINUTE_MS
    assert refused.value.owner == process.identity(), "plain values, no row of the database"
    assert f"pid {refused.value.owner.pid}" in str(refused.value)
    again = pickle.loads(pickle.dumps(refused.value))  # our own bytes
    assert (str(again), again.fields) == (str(refused.value), refused.value.fields)
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


@pytest.mark.parametrize("options", [{"keep_recent_tokens": -1}, {"timeout_s": 0}])
async def test_impossible_options_are_refused(
    db: sessiondb.SessionDB, options: dict[str, Any]
) -> None:
    session = await talk(db)
    with pytest.raises(InvalidInput):
        session.compact(**options)


BEGIN = """
import sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1], guard=False, program="victim") as db:
        session = await db.session_by_id(sys.argv[2])
        async with session.compact(trigger="threshold", keep_recent_tokens=50) as job:
            print(job.id, flush=True)
            await anyio.sleep_forever()
anyio.run(main)
"""


async def test_a_job_of_a_living_process_is_respected_and_of_a_killed_one_taken_over(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    with other_process(BEGIN, db.path, session.id) as child:
        assert child.stdout is not None
        victims = child.stdout.readline().strip()
        with pytest.raises(CompactionRunning, match=f"victim, pid {child.pid} "):
            await begin(session)
        child.send_signal(signal.SIGKILL)
        child.wait()
    await say(session, "q4", "a4")
    mine = await begin(session, 100)
    assert [state for state, _, _ in await jobs(session)] == ["running", "abandoned"]
    assert (await jobs(session))[1][2] == f"its process (pid {child.pid}) died"
    # Both summaries come after all, the victim's through somebody who found it: nothing is lost, the cut moves forward.
    assert (await db.commit_compaction(mine, "mine")).outcome == "committed"
    late = await db.commit_compaction(victims, "victim's")
    assert late.outcome == "superseded"
    assert await seen(session) == ["<mine>", "q3", "a3", "q4", "a4"]


async def test_a_job_of_a_killed_process_can_still_be_committed(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    with other_process(BEGIN, db.path, session.id) as child:
        assert child.stdout is not None
        victims = child.stdout.readline().strip()
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (await db.commit_compaction(victims, "victim's")).outcome == "committed"
    assert await seen(session) == ["<victim's>", "q3", "a3"]


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


# -- the cut ---------------------------------------------------------------------------

# One letter a message of ten tokens: q question, a reply, c reply that calls a tool, r its result, n note of a program,
# h excluded from the context (it weighs nothing), s a setting. The bar is where the context begins afterwards; without
# one there is nothing to compact.
CUTS = [
    ("qaqa", 0, "qaqa|"),
    ("qaqa", 1, "qaq|a"),
    ("qaqa", 10, "qaq|a"),
    ("qaqa", 11, "qa|qa"),
    ("qaqa", 20, "qa|qa"),
    ("qaqa", 30, "q|aqa"),
    ("qaqa", 40, "qaqa"),
    ("qaqa", 999, "qaqa"),
    # Never between a call and its result.
    ("qcra", 10, "qcr|a"),
    ("qcra", 30, "q|cra"),
    ("qcrcra", 30, "qcr|cra"),
    # A result reaches the budget: the place after it, so that a long result does not overrun it (pi's rule).
    ("qcra", 11, "qcr|a"),
    ("qcra", 20, "qcr|a"),
    ("qcrcra", 20, "qcrcr|a"),
    ("qacr", 10, "qacr|"),
    # Whatever stands between a call and its result stays with them.
    ("qcnra", 25, "qcnr|a"),
    ("qcqra", 30, "qcqr|a"),
    ("qcqra", 40, "q|cqra"),
    ("qcqr", 0, "q|cqr"),
    # A call that waits for its result is not summarised.
    ("qaqc", 0, "qaq|c"),
    ("qaqc", 1, "qaq|c"),
    ("c", 0, "c"),
    # A question that nobody has answered is not passed; however small the budget.
    ("qaq", 0, "qa|q"),
    ("qaq", 10, "qa|q"),
    ("qaq", 11, "q|aq"),
    ("qaqq", 0, "qa|qq"),
    ("qaqnq", 0, "qa|qnq"),
    ("q", 0, "q"),
    ("qqq", 10, "qqq"),
    # What a program said after the reply stays: it may be about to be answered.
    ("qan", 0, "qa|n"),
    ("qann", 10, "qa|nn"),
    # Settings and excluded messages weigh nothing, and a setting in between hides no place.
    ("qasq", 0, "qas|q"),
    ("qsasqsa", 10, "qsasqs|a"),
    ("qahqa", 20, "qah|qa"),
    ("qahqa", 21, "q|ahqa"),
]
KINDS = {
    "q": "user",
    "a": "assistant",
    "c": "call",
    "r": "result",
    "n": "note",
    "h": "hidden",
    "s": "setting",
}


def written(letters: str) -> list[dict[str, Any]]:
    """Write letters as messages of ten tokens each, numbered so that they can be told apart."""
    found = []
    for number, letter in enumerate(letters):
        text = str(number).ljust(36 if letter == "c" else 40)
        last_call = max((at for at in range(number) if letters[at] == "c"), default=None)
        call_id = f"call-{number if letter == 'c' else last_call}"
        found.append(message(KINDS[letter], text, call_id=call_id))
    return found


def numbers(messages: Sequence[dict[str, Any]]) -> list[int]:
    found = []
    for item in messages:
        content = item.get("content", item.get("command"))
        found.append(int(content if isinstance(content, str) else content[0]["text"]))
    return found


@pytest.mark.parametrize(
    ("letters", "keep", "wanted"), CUTS, ids=[f"{letters}-{keep}" for letters, keep, _ in CUTS]
)
async def test_a_cut_falls_where_a_context_may_begin(
    db: sessiondb.SessionDB, letters: str, keep: int, wanted: str
) -> None:
    session = await db.create_session()
    await session.append_many(written(letters))
    if "|" not in wanted:
        with pytest.raises(NothingToCompact):
            await begin(session, keep)
        return
    at = wanted.index("|")
    shown = [number for number, letter in enumerate(letters) if letter not in "hs"]
    async with session.compact(trigger="threshold", keep_recent_tokens=keep) as job:
        assert numbers(job.messages) == [number for number in shown if number < at]
        await job.commit("S")
    context = (await session.context()).messages
    assert context[0]["summary"] == "S"
    assert numbers(context[1:]) == [number for number in shown if number >= at]


@pytest.mark.parametrize(
    ("letters", "wanted"),
    [
        ("qaqa", "qaqa|"),
        ("qaq", "qa|q"),
        ("q", "|q"),
        ("qq", "|qq"),
        ("c", "|c"),
        ("qaqc", "qaq|c"),
    ],
)
async def test_by_hand_everything_is_compacted_that_can_be(
    db: sessiondb.SessionDB, letters: str, wanted: str
) -> None:
    """With nothing but unanswered messages the summariser is shown them, and all of them stay."""
    session = await db.create_session()
    await session.append_many(written(letters))
    async with session.compact(keep_recent_tokens=20_000) as job:
        assert job.keeps_all == wanted.startswith("|")
        assert numbers(job.messages) == list(range(wanted.index("|") or len(letters)))
        await session.append({"role": "user", "content": "meanwhile"})
        assert (await job.commit("S")).outcome == "committed"
    context = (await session.context()).messages
    assert context[0]["summary"] == "S"
    assert numbers(context[1:-1]) == list(range(wanted.index("|"), len(letters)))
    assert context[-1]["content"] == "meanwhile"


async def test_by_hand_what_an_earlier_compaction_kept_is_not_dropped(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    await db.commit_compaction(await begin(session, 100), "S1")
    await say(session, "q4")
    async with session.compact(keep_recent_tokens=20_000) as job:
        assert asked(job) == ["S1", "q2", "a2", "q3", "a3"]
        await job.commit("S2")
    assert await seen(session) == ["<S2>", "q4"]


# A turn: a question or a note, then calls with their results (some abandoned, some with a steering question inside).
turns = st.sampled_from(
    [
        "qa",
        "qcra",
        "qcrcra",
        "qcrcrcra",
        "na",
        "qhna",
        "qc",
        "qcqra",
        "qcqr",
        "qcnra",
        "qq",
        "q",
        "sqa",
        "a",
    ]
)
rounds = st.lists(
    st.tuples(st.lists(turns, max_size=4), st.integers(0, 90), st.lists(turns, max_size=2)),
    min_size=1,
    max_size=4,
)


@pytest.fixture
def sync_db(tmp_db: Path) -> Any:
    with sessiondb.sync.open(tmp_db, durability="normal", guard=False) as opened:
        yield opened


def test_every_message_is_summarised_or_present_and_no_result_is_orphaned(
    sync_db: sessiondb.sync.SessionDB,
) -> None:
    compacted = 0

    @given(rounds, st.sampled_from(["threshold", "manual"]))
    def check(plan: list[tuple[list[str], int, list[str]]], trigger: str) -> None:
        nonlocal compacted
        session = sync_db.create_session()
        letters, missing, has_summary = "", 0, False
        for item, keep, meanwhile in plan:
            letters = _said(session, letters, item)
            try:
                with session.compact(trigger=trigger, keep_recent_tokens=keep) as job:
                    span = [found for found in job.messages if found["role"] != "compactionSummary"]
                    had_summary = len(span) < len(job.messages)
                    span = [] if job.keeps_all else span
                    letters = _said(session, letters, meanwhile)
                    assert job.commit("S").outcome == "committed"
            except NothingToCompact:
                continue
            compacted += 1
            assert had_summary == has_summary
            has_summary = True
            present = numbers(session.context().messages[1:])
            shown = [number for number, letter in enumerate(letters) if letter not in "hs"]
            # Union complete, intersection empty, order kept: of all that was ever shown, in this and earlier spans.
            assert (
                shown[shown.index(gone_to) + 1 :] == numbers(span) + present
                if (gone_to := _last(shown, missing)) is not None
                else (shown == numbers(span) + present)
            )
            missing += len(span)
            _no_orphans(letters, present)
            _unanswered_stay(letters, present)

    check()
    assert compacted > 20, "the examples hardly ever compacted anything"


def _said(session: sessiondb.sync.Session, letters: str, message: list[str]) -> str:
    longer = letters + "".join(message)
    session.append_many(written(longer)[len(letters) :])
    return longer


def _last(shown: list[int], missing: int) -> int | None:
    return shown[missing - 1] if missing else None


def _no_orphans(letters: str, present: list[int]) -> None:
    for number in present:
        if letters[number] == "r":
            assert letters.rindex("c", 0, number) in present, (
                f"{letters}: result {number} is without its call"
            )


def _unanswered_stay(letters: str, present: list[int]) -> None:
    last_reply = max(letters.rfind("a"), letters.rfind("c"))
    for number in range(last_reply + 1, len(letters)):
        if letters[number] == "q":
            assert number in present, f"{letters}: question {number} is unanswered and gone"


# -- building on an earlier compaction -------------------------------------------------


async def test_the_next_summary_begins_at_what_the_last_compaction_kept(
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


async def test_a_cut_may_fall_inside_what_the_last_compaction_kept(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    await db.commit_compaction(await begin(session, 150), "S1")
    assert await seen(session) == ["<S1>", "q1", "a1", "q2", "a2", "q3", "a3"]
    await say(session, "q4", "a4")
    async with session.compact(trigger="threshold", keep_recent_tokens=100) as job:
        assert asked(job) == ["S1", "q1", "a1", "q2", "a2"]
        await job.commit("S2")
    assert await seen(session) == ["<S2>", "q3", "a3", "q4", "a4"]


async def test_messages_that_arrive_between_begin_and_commit_stay(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    compaction_id = await begin(session, 0)
    await session.append(reply("call", calls=["c1"]))
    await session.append(result("c1"))
    await say(session, "q4")
    await db.commit_compaction(compaction_id, "S1")
    assert await seen(session) == ["<S1>", "call", "done", "q4"]


async def test_a_job_reads_the_same_span_whatever_has_happened_since(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    async with session.compact(keep_recent_tokens=100) as job:
        before = job.as_json()
        await say(session, "q4")
        await session.branch((await session.entries(limit=1))[0].entry_id)
        await say(session, "elsewhere")
        await session.reset()
        await job._read_span(job._begun)
        assert job.as_json() == before
        await job.commit("S1")


async def test_a_reset_keeps_nothing_that_is_not_on_its_path(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    elsewhere = (await session.tail(1))[0].entry_id
    await session.branch((await session.entries(limit=1))[0].entry_id)
    with pytest.raises(NotFound, match="on its current path"):
        await session.reset(keep_from=elsewhere)
    leaf = next(entry for entry in await session.arrivals(limit=1000) if entry.type == "leaf")
    with pytest.raises(NotFound, match="on its current path"):
        await session.reset(keep_from=leaf.entry_id)
    assert (await session.info()).epoch == 1


@pytest.mark.parametrize(
    ("text", "details"), [("s" * 2_000_000, None), ("short", {"files": ["a"] * 100_000})]
)
async def test_a_large_summary_is_encoded_off_the_event_loop(
    db: sessiondb.SessionDB, monkeypatch: pytest.MonkeyPatch, text: str, details: object
) -> None:
    encoded_in: list[int] = []
    of = Summary.of

    def noting(text: str, details: object = None, *, from_hook: bool | None = None) -> Summary:
        encoded_in.append(threading.get_ident())
        return of(text, details, from_hook=from_hook)

    monkeypatch.setattr(Summary, "of", noting)
    session = await talk(db)
    job_id = await begin(session)
    assert (await db.commit_compaction(job_id, "short")).outcome == "committed"
    assert encoded_in == [threading.get_ident()], "a short one is not worth the way"
    assert (await db.commit_compaction(job_id, text, details=details)).outcome == "committed", (
        "the same answer again"
    )
    assert encoded_in[1] != threading.get_ident()


# -- undo ------------------------------------------------------------------------------


async def test_undo_brings_back_what_was_and_keeps_what_arrived_since(
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


async def test_after_an_undo_a_compaction_starts_from_what_was(db: sessiondb.SessionDB) -> None:
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
    """The context of every epoch that was closed is hashed after every operation, and once more at the end."""
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


async def test_what_a_block_does_after_its_commit_is_not_cut_off_by_the_deadline(
    tmp_db: Path,
) -> None:
    reached: list[str] = []
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        for _ in range(3):
            await session.append(user("question " + "x" * 80))
            await session.append(reply("answer " + "x" * 80))
        async with session.compact(keep_recent_tokens=10) as job:
            deadline = job._scope.deadline
            with pytest.raises(sessiondb.InvalidInput):
                await job.commit(None)  # type: ignore[arg-type]
            assert job._scope.deadline == deadline, "without a commit it holds"
            job._scope.deadline = anyio.current_time() + 0.02
            assert (await job.commit("they talked")).outcome == "committed"
            await anyio.sleep(0.05)
            reached.append("the end")
    assert reached == ["the end"]
