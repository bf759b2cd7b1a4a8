"""Where a summary ends: a table of cuts, and what holds for any conversation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sessiondb
import sessiondb.sync
from sessiondb.errors import (
    NothingToCompact,
)
from sessiondb.transcript import compaction
from tests.proofs.models.transcript import message
from tests.support.compaction import asked, begin, say, seen, span_of, talk

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


# One letter is a message of 10 tokens: q question, a reply, e reply that failed, x reply that was
# aborted. c is a reply that calls a tool, r its result, R the result of the call before the last
# one. n is a note of a program, h is excluded from the context (no tokens), s is a setting. The
# context begins at the bar afterwards. Without one there is nothing to compact.
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
    # A result reaches the budget: cut after it, so that a long one does not overrun it (pi's rule).
    ("qcra", 11, "qcr|a"),
    ("qcra", 20, "qcr|a"),
    ("qcrcra", 20, "qcrcr|a"),
    # Everything between a call and its result stays with them.
    ("qcnra", 25, "qcnr|a"),
    ("qcqra", 30, "qcqr|a"),
    ("qcqra", 40, "q|cqra"),
    # Results are told apart by their ids: in parallel, crossed, late, and repeated.
    ("qccRra", 40, "qccRr|a"),
    ("qccRra", 50, "q|ccRra"),
    ("qcqcRqra", 30, "qcqcRqr|a"),
    ("qcqcRqra", 70, "q|cqcRqra"),
    ("qcaqcRra", 60, "qcaqcRr|a"),
    ("qcraqcra", 40, "qcra|qcra"),
    ("qcarqa", 40, "qcar|qa"),
    ("qcrarqa", 30, "qcrar|qa"),
    ("qcaqcrRaqa", 70, "qcaqcrR|aqa"),
    # A result without a call in the context separates nothing.
    ("rqaqa", 20, "rqa|qa"),
    ("rqa", 30, "r|qa"),
    # A call that nobody answered any more does not stay for good.
    ("qcaqa", 20, "qca|qa"),
    # The working turn stays: a call is no answer, whether or not its result is there.
    ("qaqc", 0, "qa|qc"),
    ("qaqc", 1, "qa|qc"),
    ("qaqcr", 0, "qa|qcr"),
    ("qcqr", 0, "qcqr"),
    ("qacr", 10, "qa|cr"),
    ("c", 0, "c"),
    # Neither is a reply that failed or was aborted.
    ("qaqe", 0, "qa|qe"),
    ("qaqx", 0, "qa|qx"),
    ("qaqeqx", 0, "qa|qeqx"),
    ("qaqcre", 0, "qa|qcre"),
    ("qe", 0, "qe"),
    ("qaqea", 0, "qaqea|"),
    ("qae", 0, "qae|"),
    ("qae", 10, "qa|e"),
    # No cut passes an unanswered question, however small the budget.
    ("qaq", 0, "qa|q"),
    ("qaq", 10, "qa|q"),
    ("qaq", 11, "q|aq"),
    ("qaqq", 0, "qa|qq"),
    ("qaqnq", 0, "qa|qnq"),
    ("q", 0, "q"),
    ("qqq", 10, "qqq"),
    # A program's note after the reply stays: its answer may be on the way.
    ("qan", 0, "qa|n"),
    ("qann", 10, "qa|nn"),
    # Settings and excluded messages have no tokens, and a setting in between hides no place.
    ("qasq", 0, "qas|q"),
    ("qsasqsa", 10, "qsasqs|a"),
    ("qahqa", 20, "qah|qa"),
    ("qahqa", 21, "q|ahqa"),
]


KINDS = {
    "q": "user",
    "a": "assistant",
    "e": "error",
    "x": "aborted",
    "c": "call",
    "r": "result",
    "R": "result",
    "n": "note",
    "h": "hidden",
    "s": "setting",
}


def call_of(letters: str, number: int) -> int | None:
    """Return the number of the call that a result answers."""
    calls = [at for at in range(number) if letters[at] == "c"]
    back = 2 if letters[number] == "R" else 1
    return calls[-back] if len(calls) >= back else None


def written(letters: str) -> list[dict[str, Any]]:
    """Return letters as messages of 10 tokens each, numbered."""
    found = []
    for number, letter in enumerate(letters):
        text = str(number).ljust(36 if letter == "c" else 40)
        call = number if letter == "c" else call_of(letters, number)
        found.append(message(KINDS[letter], text, call_id=f"call-{call}"))
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
        assert numbers(await span_of(job)) == [number for number in shown if number < at]
        await job.commit("S")
    context = (await session.context(raw=True)).messages
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
        ("qaqc", "qa|qc"),
        ("qaqe", "qa|qe"),
    ],
)
async def test_a_manual_compaction_takes_everything_it_can(
    db: sessiondb.SessionDB, letters: str, wanted: str
) -> None:
    """With only unanswered messages, the summariser gets all of them, and all of them stay."""
    session = await db.create_session()
    await session.append_many(written(letters))
    async with session.compact(keep_recent_tokens=20_000) as job:
        assert job.keeps_all == wanted.startswith("|")
        whole = (await session.context(raw=True)).messages
        assert numbers(whole if job.keeps_all else await span_of(job)) == list(
            range(wanted.index("|") or len(letters))
        )
        await session.append({"role": "user", "content": "meanwhile"})
        assert (await job.commit("S")).outcome == "committed"
    context = (await session.context(raw=True)).messages
    assert context[0]["summary"] == "S"
    assert numbers(context[1:-1]) == list(range(wanted.index("|"), len(letters)))
    assert context[-1]["content"] == "meanwhile"


async def test_a_manual_compaction_drops_no_kept_tail(
    db: sessiondb.SessionDB,
) -> None:
    session = await talk(db)
    await db.commit_compaction(await begin(session, 100), "S1")
    await say(session, "q4")
    async with session.compact(keep_recent_tokens=20_000) as job:
        assert asked(job) == ["S1", "q2", "a2", "q3", "a3"]
        await job.commit("S2")
    assert await seen(session) == ["<S2>", "q4"]


# A turn: a question or a note, then calls with their results. Some calls are abandoned, and some
# have a steering question inside.
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
        "qccRra",
        "qcqcRqra",
        "qccrqRa",
        "qcaR",
        "qcrar",
        "qe",
        "qcrx",
        "rqa",
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


def test_every_message_is_summarised_or_present(
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
            before = numbers(_messages(session))
            try:
                with session.compact(trigger=trigger, keep_recent_tokens=keep) as job:
                    covered = sync_db._loop.call(partial(span_of, job._peer))
                    span = [found for found in covered if found["role"] != "compactionSummary"]
                    had_summary = len(span) < len(covered)
                    span = [] if job.keeps_all else span
                    letters = _said(session, letters, meanwhile)
                    assert job.commit("S").outcome == "committed"
            except NothingToCompact:
                continue
            compacted += 1
            assert had_summary == has_summary
            has_summary = True
            present = numbers(_messages(session))
            shown = [number for number, letter in enumerate(letters) if letter not in "hs"]
            # Of all messages, in this and earlier spans: none is missing, none is twice, in order.
            assert (
                shown[shown.index(gone_to) + 1 :] == numbers(span) + present
                if (gone_to := _last(shown, missing)) is not None
                else (shown == numbers(span) + present)
            )
            missing += len(span)
            _nothing_is_separated(letters, before, present)
            _unanswered_stay(letters, present)

    check()
    assert compacted > 20, "the examples hardly ever compacted anything"


def _said(session: sessiondb.sync.Session, letters: str, message: list[str]) -> str:
    longer = letters + "".join(message)
    session.append_many(written(longer)[len(letters) :])
    return longer


def _last(shown: list[int], missing: int) -> int | None:
    return shown[missing - 1] if missing else None


def _messages(session: sessiondb.sync.Session) -> list[dict[str, Any]]:
    return [
        item for item in session.context(raw=True).messages if item["role"] != "compactionSummary"
    ]


def _nothing_is_separated(letters: str, before: list[int], present: list[int]) -> None:
    for number in before:
        call = call_of(letters, number) if letters[number] in "rR" else None
        if call in before:
            assert (call in present) == (number in present), (
                f"{letters}: result {number} and call {call} are separated"
            )


def _unanswered_stay(letters: str, present: list[int]) -> None:
    for number in range(letters.rfind("a") + 1, len(letters)):
        if letters[number] == "q":
            assert number in present, f"{letters}: question {number} is unanswered and gone"


async def test_a_cut_may_fall_inside_the_kept_tail(db: sessiondb.SessionDB) -> None:
    session = await talk(db)
    await db.commit_compaction(await begin(session, 150), "S1")
    assert await seen(session) == ["<S1>", "q1", "a1", "q2", "a2", "q3", "a3"]
    await say(session, "q4", "a4")
    async with session.compact(trigger="threshold", keep_recent_tokens=100) as job:
        assert asked(job) == ["S1", "q1", "a1", "q2", "a2"]
        await job.commit("S2")
    assert await seen(session) == ["<S2>", "q3", "a3", "q4", "a4"]


# What may happen between the read that chooses a cut and the write that begins the job. The
# letters before the bar were there, those after it arrive.
@pytest.mark.parametrize(
    ("letters", "holds"),
    [
        ("qaqa|", True),
        ("qaqa|qaqe", True),
        ("qaqa|qcr", True),
        ("qaqaqc|rcr", True),
        ("qcaqaqa|r", False),
    ],
)
async def test_a_cut_is_checked_when_its_job_begins(
    db: sessiondb.SessionDB, letters: str, holds: bool
) -> None:
    before, _, after = letters.partition("|")
    sessions = [await db.create_session() for _ in range(2)]
    for session in sessions:
        await session.append_many(written(before))
    session, other = sessions
    session_no = session.ref.session_no

    def choose(tx: Any) -> compaction.Choice:
        return compaction.choose(tx, session_no, trigger="threshold", keep_recent_tokens=20)

    choice = await db.read("choose", choose)
    await other.append_many(written(before + "qcr")[len(before) :])
    await other.reset()
    if after:
        await session.append_many(written(before + after)[len(before) :])
    job = await db.write("begin", lambda tx: compaction.begin(tx, choice, timeout_ms=60_000))
    assert (job is not None) == holds
    if job is None:
        async with session.compact(trigger="threshold", keep_recent_tokens=20) as again:
            before_it = numbers(again.messages)
            await again.commit("S")
        present = [item for item in (await session.context()).messages if "summary" not in item]
        _nothing_is_separated(before + after, before_it + numbers(present), numbers(present))


async def test_a_cut_of_another_epoch_is_chosen_again(db: sessiondb.SessionDB) -> None:
    session = await db.create_session()
    await session.append_many(written("qaqa"))
    session_no = session.ref.session_no
    choice = await db.read(
        "choose",
        lambda tx: compaction.choose(tx, session_no, trigger="threshold", keep_recent_tokens=0),
    )
    await session.reset()
    assert await db.write("begin", lambda tx: compaction.begin(tx, choice, timeout_ms=1)) is None


# The reply is not over: its call is open, and the last item that the fork has calls nothing.
WORKING: list[dict[str, Any]] = [
    {"role": "user", "content": "an earlier question"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
    {"role": "user", "content": "a question"},
    {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "so"}]},
]
GOES_ON = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "wait"}],
}


@pytest.mark.parametrize("keep_recent_tokens", [0, 2])
async def test_a_fork_of_a_working_turn_keeps_all_of_it(
    db: sessiondb.SessionDB, keep_recent_tokens: int
) -> None:
    origin, other = await db.create_session(), await db.create_session()
    for session in (origin, other):
        entries = await session.append_many(WORKING)
    await other.append({"type": "reasoning", "id": "rs_2", "summary": []})
    forks = {
        "of the whole": await origin.fork(),
        "at an entry": await origin.fork(entry=(await origin.entries())[-1].entry_id),
        "at an entry that is not the head": await other.fork(entry=entries[-1].entry_id),
        "of an epoch": await origin.fork(epoch=0),
    }
    summarised = {}
    for name, session in {"not forked": origin, **forks}.items():
        await session.append(GOES_ON)
        async with session.compact(
            trigger="threshold", keep_recent_tokens=keep_recent_tokens
        ) as job:
            summarised[name] = list(job.messages)
            await job.commit("S")
    assert summarised == dict.fromkeys(summarised, WORKING[:2])
