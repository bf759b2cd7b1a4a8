"""No cut separates a call from its result, in any format, and nothing weighs nothing.

The conversations are random. Their maker knows what belongs together, and asks sessiondb nothing.
`SESSIONDB_TALKS=2000` tries so many of each format (`make prompts`). By default there are few.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from sessiondb import Session, SessionDB
from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import CompactionRefused
from sessiondb.limits import SEQ_MAX
from sessiondb.transcript import append, registry
from sessiondb.transcript.cut import Cut, choose_cut
from sessiondb.transcript.entries import draft_entry
from sessiondb.transcript.formats import bits_of
from sessiondb.transcript.state import load_state
from sessiondb.words import (
    MessageFormat,
)
from tests.support.core import one_loop, reply, result, user
from tests.support.talks import SPEAKERS, Talk, random_talk

TALKS = int(os.environ.get("SESSIONDB_TALKS", "300"))
A_BATCH = 100
KEEPS = (0, 10, 60, 200, 800)

every_format = pytest.mark.parametrize("message_format", SPEAKERS)


@dataclass(frozen=True)
class Stored:
    """A conversation in the database. The item at a place has seq place + 1."""

    session_no: int
    talk: Talk
    tokens: list[int]


def store(tx: Tx, talk: Talk, name: str) -> Stored:
    """Store a conversation in a session of its format."""
    bits = bits_of(talk.format)
    session_no = registry.create(tx, name, may_be=bits).session_no
    drafts = [draft_entry(item, now_ms=1) for item in talk.items]
    receipts = append.append(tx, session_no, drafts) if drafts else []
    assert [receipt.seq - 1 for receipt in receipts] == list(range(len(talk.items)))
    return Stored(session_no, talk, [receipt.tokens for receipt in receipts])


def first_kept(stored: Stored, cut: Cut) -> int:
    """Return the place of the first item that stays."""
    if cut.cut_no is None:
        return 0
    assert cut.first_kept_no is None or cut.first_kept_no > cut.cut_no
    return cut.cut_no & SEQ_MAX


def check_cut(stored: Stored, cut: Cut) -> None:
    """Check that a cut keeps together what belongs together, and keeps what waits."""
    talk, kept = stored.talk, first_kept(stored, cut)
    parted = [(one, other) for one, other in talk.pairs if (one < kept) != (other < kept)]
    assert not parted, (kept, parted, talk.items)
    assert kept not in talk.results, (kept, talk.items)
    lost = [place for place in talk.unanswered if place < kept]
    assert not lost, (kept, lost, talk.items)


@one_loop
@every_format
async def test_a_cut_separates_nothing_and_keeps_what_waits(
    db: SessionDB, message_format: MessageFormat
) -> None:
    cuts = 0
    for begin in range(0, TALKS, A_BATCH):
        talks = {seed: random_talk(message_format, seed) for seed in range(begin, begin + A_BATCH)}

        def write(tx: Tx, talks: dict[int, Talk] = talks) -> list[Stored]:
            return [store(tx, talk, f"talk-{seed}") for seed, talk in talks.items()]

        stored = await db.backend.write(write, op="test.talks")

        def read(tx: ReadTx, stored: list[Stored] = stored) -> list[tuple[Stored, Cut]]:
            found = []
            for each in stored:
                state = load_state(tx, each.session_no)
                for keep in KEEPS:
                    cut = choose_cut(tx, state, keep, manual=False)
                    if cut is not None:
                        found.append((each, cut))
            return found

        for each, cut in await db.backend.read(read, op="test.cuts"):
            check_cut(each, cut)
            cuts += 1
        for each in stored:
            weighed = zip(each.talk.items, each.tokens, strict=True)
            assert not [item for item, tokens in weighed if not tokens]
    assert cuts > TALKS, "most conversations can be compacted"


@one_loop
@every_format
async def test_contexts_after_many_compactions_have_the_summary_first_and_whole_pairs(
    db: SessionDB, message_format: MessageFormat
) -> None:
    for seed in range(TALKS // 10):
        talk = random_talk(message_format, seed)
        session = await db.create_session(format=message_format)
        for place, item in enumerate(talk.items):
            await session.append(item)
            if place % 5 == 4:
                await _compact(session, keep=(place * 7) % 120)
        context = await session.context(raw=True)
        if context.summary_entry is not None:
            assert "THE SUMMARY" in str(context.messages[0])
            assert all("THE SUMMARY" not in str(message) for message in context.messages[1:])
        kept = context.messages[context.summary_entry is not None :]
        assert kept == talk.items[len(talk.items) - len(kept) :], "a tail, as it was appended"
        for one, other in talk.pairs:
            first = len(talk.items) - len(kept)
            assert (one < first) == (other < first), (first, one, other, talk.items)
    report = await db.verify()
    assert report.ok, report.findings[:5]


async def _compact(session: Session, *, keep: int) -> None:
    try:
        async with session.compact(trigger="threshold", keep_recent_tokens=keep) as job:
            assert job.messages
            await job.commit("THE SUMMARY")
    except CompactionRefused:
        pass


async def test_a_summary_covers_all_up_to_what_stays_also_what_no_model_is_sent(
    db: SessionDB,
) -> None:
    session = await db.create_session()
    state = {"type": "custom", "customType": "state", "data": {}}
    before = [user("q" * 400), reply("", calls=["c1"]), result("c1", "r" * 4000), state, state]
    receipts = await session.append_many([*before, user("next"), reply("a" * 40)])
    async with session.compact(trigger="threshold", keep_recent_tokens=100) as job:
        await job.commit("S")
    cut = await db.read("test.cut", lambda tx: tx.one("compaction.by_id", compaction_id=job.id))
    assert (cut.cut_no, cut.first_kept_no) == (receipts[4].entry_no, receipts[5].entry_no)
    assert (await db.verify()).findings == ()
