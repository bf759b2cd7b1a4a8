"""Every context of random conversations is a prompt that its provider takes.

The conversations have calls, parallel calls, results that come late or never, replies that failed,
and people who write in between. Some of their messages come through the inbox and are given up:
dead, aborted or without a usable answer, and some are only heard. Meanwhile they are compacted,
reset, branched, undone and forked.
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
from sessiondb.gateway import claims, inbox, turns
from sessiondb.gateway.heard import Prepared
from sessiondb.texts import text_of
from sessiondb.transcript import append, compaction, registry
from sessiondb.transcript.compaction import Summary
from sessiondb.transcript.context import Context, read_context
from sessiondb.transcript.cut import choose_cut
from sessiondb.transcript.entries import Draft, draft_entry
from sessiondb.transcript.formats import FORMATS, Format, bits_of
from sessiondb.transcript.formats.prompt import BEGINNING, PROMPTS
from sessiondb.transcript.keys import parse_key
from sessiondb.transcript.pairing import Part, in_order
from sessiondb.transcript.state import load_state
from sessiondb.words import (
    MessageFormat,
)
from tests.support.compaction import begin_in
from tests.support.core import one_loop
from tests.support.prompts import CHECKERS
from tests.support.talks import SPEAKERS, random_talk

TALKS = int(os.environ.get("SESSIONDB_TALKS", "20"))
A_BATCH = 20
PRUNED = 10**9
NOW = "2026-01-01T00:00:00.000Z"
# These refuse a call whose id an earlier one had. The others take what their models say.
NEW_IDS = ("openai-responses", "anthropic")

every_format = pytest.mark.parametrize("message_format", SPEAKERS)


def draft_of(payload: str | None, key: str | None = None) -> Draft:
    """Decode a message of the inbox. That of a claim has its key from the claim."""
    assert payload is not None
    draft = draft_entry(payload, now_ms=1)
    draft.idempotency_key = key
    return draft


@dataclass
class Course:
    """One conversation, and what becomes of it."""

    tx: Tx
    format: Format
    rng: random.Random
    session_no: int
    name: str
    accepted: int = 0
    given_up: set[str] = field(default_factory=set)
    """Entries of messages that are dead, or whose turns ended without an answer."""
    entry_ids: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def say(self, item: dict[str, Any]) -> None:
        """Append an item. Some of what people say comes through the inbox, and some came once."""
        draft = draft_entry(item, now_ms=1)
        if item.get("role") == "user":
            if isinstance(item["content"], str) and self.rng.random() < 0.4:
                self.accept(json.dumps(item))
                return
            if self.rng.random() < 0.1:  # its row is pruned, long ago
                draft.idempotency_key = f"inbox:{PRUNED + len(self.entry_ids)}"
        receipt = append.append(self.tx, self.session_no, [draft])[0]
        self.entry_ids.append(receipt.entry_id)

    def accept(self, payload: str) -> None:
        """Accept a message. A turn claims it, and ends in one of the ways that turns end.

        What the talk goes on with is what the turn has left behind, or somebody else's.
        """
        self.accepted += 1
        key = parse_key(f"agent:main:web:{self.name}")
        registry.bind(self.tx, key, self.session_no)
        heard = self.rng.random() < 0.2
        event_id = f"{self.name}-{self.accepted}"
        inbox.accept(
            self.tx, inbox.Incoming("web", event_id, key, "main", payload, "d", "", heard=heard)
        )
        if heard:
            self.counts["heard"] += 1
            return
        candidate = claims.peek(self.tx, "main", self.tx.now_ms)
        assert candidate is not None
        in_front = [
            Prepared(one, draft_of(one.payload, f"inbox:{one.inbox_no}"), None)
            for one in candidate.heard
        ]
        started = claims.claim(
            self.tx,
            "main",
            candidate,
            draft_of(payload),
            in_front,
            lease_ms=60_000,
            timeout_ms=60_000,
        )
        assert started is not None
        self.entry_ids.append(started.entry_id)
        ending = self.rng.choice(("dead", "aborted", "incomplete", "answered"))
        match ending:
            case "dead":
                turns.fail(self.tx, started.turn_no, "the prompt is too long", retry=False)
            case "aborted":
                turns.abort(self.tx, started.turn_no, "a person said stop")
            case _:
                usable = ending == "answered"
                reason = None if usable else "nothing usable came back"
                turns.complete(
                    self.tx, started.turn_no, [], [], incomplete=not usable, reason=reason
                )
        self.counts[ending] += 1
        if ending != "answered":
            self.given_up.add(started.entry_id)

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
        first_no = load_state(self.tx, self.session_no).first_kept_no
        if job.cut_no is not None and first_no is not None:
            first = self.tx.one("transcript.by_no", entry_no=first_no)
            assert first.entry_id not in self.given_up, "a context begins with what was given up"

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
    course = Course(tx, spoken, random.Random(seed), ref.session_no, f"{message_format}-{seed}")
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
    for ending in ("dead", "aborted", "incomplete", "answered", "heard"):
        assert counts[ending] > TALKS / 20, ending
    assert counts["asked noted"] > counts["contexts"] / 4
    assert counts["as stored"] > counts["contexts"] / 10, "a fast way that is never taken"
