"""Every context of random conversations is a prompt that its provider takes.

The conversations have calls, parallel calls, results that come late or never, replies that failed,
and people who write in between. Meanwhile they are compacted, reset, branched, undone and forked.
After each step a strict checker of the provider's rules (`tests/support/prompts.py`) reads the
context, and so it does at the end of every epoch. `SESSIONDB_TALKS=2000` tries so many
conversations for each format (`make prompts`). By default there are few.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sessiondb import SessionDB, errors
from sessiondb.backend import Tx
from sessiondb.texts import text_of
from sessiondb.transcript import append, compaction, registry
from sessiondb.transcript.compaction import Summary
from sessiondb.transcript.context import Context, read_context
from sessiondb.transcript.cut import choose_cut
from sessiondb.transcript.entries import draft_entry
from sessiondb.transcript.formats import FORMATS, Format, bits_of
from sessiondb.transcript.formats.prompt import BEGINNING, PROMPTS
from sessiondb.transcript.pairing import Part, in_order
from sessiondb.transcript.state import load_state
from sessiondb.words import (
    MessageFormat,
)
from tests.support.compaction import begin_in
from tests.support.core import one_loop
from tests.support.prompts import CHECKERS
from tests.support.talks import SPEAKERS, random_talk

TALKS = int(os.environ.get("SESSIONDB_TALKS", "60"))
A_BATCH = 50
NOW = "2026-01-01T00:00:00.000Z"
# These refuse a call whose id an earlier one had. The others take what their models say.
NEW_IDS = ("openai-responses", "anthropic")

every_format = pytest.mark.parametrize("message_format", SPEAKERS)


@dataclass
class Course:
    """One conversation, and what becomes of it."""

    tx: Tx
    format: Format
    rng: random.Random
    session_no: int
    entry_ids: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def say(self, item: dict[str, Any]) -> None:
        """Append an item. Some are of messages whose turns have ended long ago."""
        draft = draft_entry(item, now_ms=1)
        if item.get("role") == "user" and self.rng.random() < 0.1:
            draft.idempotency_key = f"inbox:{len(self.entry_ids) + 1}"
        receipt = append.append(self.tx, self.session_no, [draft])[0]
        self.entry_ids.append(receipt.entry_id)

    def move(self) -> None:
        """Do something else than append, or nothing, where it is refused."""
        step = self.rng.choice((self.compact, self.compact, self.reset, self.branch, self.fork,
                                self.undo))  # fmt: skip
        try:
            step()
            self.counts[step.__name__] += 1
        except (errors.CompactionRefused, errors.NothingToUndo, errors.NotFound):
            self.counts["refused"] += 1

    def some_id(self) -> str | None:
        """Return the id of an entry that was appended, or None."""
        return self.rng.choice([None, *self.entry_ids[-12:]])

    def compact(self) -> None:
        job = begin_in(
            self.tx,
            self.session_no,
            trigger=self.rng.choice(("manual", "threshold")),
            keep_recent_tokens=self.rng.choice((0, 10, 60, 200)),
            timeout_ms=60_000,
        )
        span = compaction.read_span(self.tx, job)
        self.check([json.loads(part) for part in span])
        compaction.commit(self.tx, job.compaction_id, Summary.of("So far."), NOW)

    def reset(self) -> None:
        registry.reset(
            self.tx, self.session_no, reason="reset", keep_from=self.some_id(), timestamp=NOW
        )

    def branch(self) -> None:
        registry.branch(self.tx, self.session_no, self.some_id(), NOW)

    def undo(self) -> None:
        compaction.undo(self.tx, self.session_no)

    def fork(self) -> None:
        ref = registry.fork(
            self.tx,
            self.session_no,
            session_id=f"fork-{self.session_no}-{len(self.entry_ids)}-{self.rng.random()}",
            entry=self.some_id(),
            epoch=None,
            key=None,
            cwd=None,
        )
        self.session_no = ref.session_no

    def look(self) -> None:
        """Read the present context, and check it."""
        context = read_context(self.tx, self.session_no)
        raw = read_context(self.tx, self.session_no, raw=True)
        self.check(context.messages)
        self.counts["contexts"] += 1
        self.counts["as stored"] += context.prompt is None
        self._nothing_is_lost(context, raw)
        # What appends have noted is right: decoded and put in order, it is the same.
        parts = [Part(self.format.sendable(message), 0) for message in raw.messages]
        anew = in_order(PROMPTS[self.format.name], parts)
        assert [part.message for part in anew] == context.messages
        self._is_noted()
        self.look_at_the_end(context, raw)

    def look_at_the_end(self, context: Context, raw: Context) -> None:
        """Read the last messages of the present context: its own end, and a prompt by itself."""
        for last in (1, 2, self.rng.randrange(3, 12), 1_000):
            part = read_context(self.tx, self.session_no, last=last)
            self.check(part.messages)
            if part.is_whole:
                assert part == context
                continue
            self.counts["parts"] += 1
            as_stored = read_context(self.tx, self.session_no, last=last, raw=True).messages
            assert len(as_stored) >= last
            assert as_stored == raw.messages[-len(as_stored) :]
            sent = part.messages
            if sent and self._text(sent[0]) == BEGINNING:
                sent = sent[1:]
            whole = context.messages
            if PROMPTS[self.format.name].calls_are_items:
                # Calls that follow each other are one reply. A part may have the last of them.
                rest = iter(whole)
                assert all(any(each == message for each in rest) for message in sent)
            else:
                assert sent == whole[len(whole) - len(sent) :]

    def _is_noted(self) -> None:
        """A cut that begins with what appends have noted is the one that a search finds."""
        noted = load_state(self.tx, self.session_no)
        searched = replace(noted, asked_no=None, ordered_from_no=None)
        keep = self.rng.choice((0, 60))
        cuts = [choose_cut(self.tx, each, keep, manual=False) for each in (noted, searched)]
        assert cuts[0] == cuts[1]
        self.counts["asked noted"] += noted.asked_no is not None

    def look_back(self) -> None:
        """Read the context at the end of every epoch, and check it."""
        last = load_state(self.tx, self.session_no).epoch
        for epoch in range(last + 1):
            self.check(read_context(self.tx, self.session_no, epoch).messages)

    def check(self, messages: list[dict[str, Any]]) -> None:
        CHECKERS[self.format.name](messages)

    def _nothing_is_lost(self, context: Context, raw: Context) -> None:
        """Whatever people and models said is in the prompt, once for each time."""
        said, sent = (
            Counter(text for message in found.messages if (text := self._text(message)))
            for found in (raw, context)
        )
        sent.pop(BEGINNING, None)
        assert said == sent

    def _text(self, message: dict[str, Any]) -> str:
        is_result = self.format.role(message) == "toolResult"
        return "" if is_result else text_of(message).strip()


def run(tx: Tx, message_format: MessageFormat, seed: int) -> Counter[str]:
    """Hold a conversation, and return how often what happened."""
    talk = random_talk(message_format, seed, new_ids=message_format in NEW_IDS)
    ref = registry.create(tx, f"talk-{seed}", may_be=bits_of(message_format))
    spoken = next(each for each in FORMATS if each.name == message_format)
    course = Course(tx, spoken, random.Random(seed), ref.session_no)
    for item in talk.items:
        course.say(item)
        if course.rng.random() < 0.15:
            course.move()
        course.look()
    course.look_back()
    return course.counts


@one_loop
@every_format
async def test_every_context_is_a_prompt(db: SessionDB, message_format: MessageFormat) -> None:
    counts: Counter[str] = Counter()
    for begin in range(0, TALKS, A_BATCH):
        seeds = range(begin, min(begin + A_BATCH, TALKS))

        def write(tx: Tx, seeds: range = seeds) -> Counter[str]:
            return sum((run(tx, message_format, seed) for seed in seeds), Counter())

        counts += await db.backend.write(write, op="test.talks")
    assert (await db.verify()).findings == ()
    print(f"{message_format}: {TALKS} conversations, {dict(counts)}")
    assert counts["contexts"] > 5 * TALKS
    assert counts["parts"] > counts["contexts"], "a part is hardly ever read"
    assert counts["asked noted"] > counts["contexts"] / 4
    assert counts["as stored"] > counts["contexts"] / 10, "a fast way that is never taken"
