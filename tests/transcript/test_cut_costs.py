"""Choosing a cut costs the same however much waits, failed or was given up behind the answer.

The cost is counted in instructions of SQLite's machine, which runs once for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import apsw
import pytest

from sessiondb.models import MessageFormat
from sessiondb.sqlite.schema import schema_text
from sessiondb.sqlite.transaction import WriteTransaction
from sessiondb.transcript import append, compaction, cut, registry
from sessiondb.transcript.compaction import Summary
from sessiondb.transcript.context import read_context
from sessiondb.transcript.entries import Draft, draft_entry, new_id
from sessiondb.transcript.formats import bits_of
from sessiondb.transcript.state import load_state, save_state
from tests.support.core import reply, user

NOW_MS = 1_800_000_000_000
FEW, MANY = 300, 3_000
KEEP = 40
"""What a compaction keeps here, in entries and in tokens."""
FAILED = reply("half a", stopReason="error")
ABORTED = {"role": "assistant", "content": [], "stopReason": "aborted"}

Items = Iterator[tuple[dict[str, Any], str | None]]


class Talk:
    """A session in memory, and one beside it with the same beginning."""

    def __init__(self, connection: apsw.Connection, message_format: MessageFormat) -> None:
        connection.execute(schema_text()).fetchall()
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.execute(
            "INSERT INTO instance (instance_no, host, boot_id, pid, pid_started, program, "
            "opened_at_ms) VALUES (1, 'h', 'b', 1, 1, 'p', 1)"
        ).fetchall()
        self.connection = connection
        self.tx = WriteTransaction(connection, NOW_MS, 1)
        may_be = bits_of(message_format)
        self.other, self.session_no = (
            registry.create(self.tx, name, may_be=may_be).session_no for name in ("other", "s")
        )
        self.drafts: dict[str, Draft] = {}
        first = [(user("question " * 40), None), (reply_of(message_format), None)]
        for session_no in (self.other, self.session_no):
            self.say(session_no, iter(first))

    def say(self, session_no: int, items: Items) -> None:
        """Append items by the rules. Equal ones are prepared once."""
        state = load_state(self.tx, session_no)
        for item, key in items:
            known = self.drafts.get(str(item))
            if known is None:
                known = self.drafts[str(item)] = draft_entry(item, now_ms=NOW_MS)
            append.place(self.tx, state, replace(known, entry_id=new_id(), idempotency_key=key))
        save_state(self.tx, state)

    def message(self, number: int, state: str) -> str:
        """Insert a message of the inbox. Return its key in the transcript."""
        told = 0 if state == "dead" else None
        self.connection.execute(
            "INSERT INTO inbox (inbox_no, channel, event_id, session_no, lane, state, "
            "accepted_at_ms, available_at_ms, told_no, payload) "
            "VALUES (?1, 'web', ?1, ?2, 'main', ?3, 1, 1, ?4, '{}')",
            (number, self.session_no, state, told),
        ).fetchall()
        return f"inbox:{number}"

    def steps(self, body: Callable[[], object]) -> int:
        """Return how many instructions something takes, once its statements are prepared."""
        body()
        count = 0

        def step() -> bool:
            nonlocal count
            count += 1
            return False

        self.connection.set_progress_handler(step, 1)
        body()
        self.connection.set_progress_handler(None)
        return count

    def choose(self) -> compaction.Choice:
        return compaction.choose(
            self.tx, self.session_no, trigger="threshold", keep_recent_tokens=KEEP
        )


def reply_of(message_format: MessageFormat) -> dict[str, Any]:
    if message_format == "pi":
        return reply("answer " * 40)
    return {"role": "assistant", "content": "answer " * 40}


def failed(talk: Talk, rows: int) -> Items:
    """A question whose every reply failed."""
    yield user("why?"), None
    yield from ((FAILED, None) for _ in range(rows))


def failed_silently(talk: Talk, rows: int) -> Items:
    """Replies that failed, say nothing and weigh nothing. Nobody asked."""
    yield from ((ABORTED, None) for _ in range(rows))


def given_up(talk: Talk, rows: int) -> Items:
    """Messages that are dead, with what their turns left behind, and one that waits."""
    for number in range(1, rows):
        yield user("hello?"), talk.message(number, "dead")
        yield FAILED, None
    yield user("hello again?"), talk.message(rows, "claimed")


def ambient(talk: Talk, rows: int) -> Items:
    """Messages that nobody was to answer, and a person of no channel who waits."""
    for number in range(1, rows):
        yield user("hm"), talk.message(number, "done")
    yield user("and me?"), None


def pruned(talk: Talk, rows: int) -> Items:
    """Messages that ended so long ago that their rows are gone. Nothing waits."""
    for number in range(1, rows):
        yield user("hm"), f"inbox:{number}"


def waiting(talk: Talk, rows: int) -> Items:
    """Messages of people, whom nobody answers."""
    yield from ((user("anybody?"), None) for _ in range(rows))


Shape = Callable[[Talk, int], Items]
SHAPES: list[tuple[Shape, MessageFormat]] = [
    (failed, "pi"),
    (failed_silently, "pi"),
    (given_up, "pi"),
    (ambient, "pi"),
    (pruned, "pi"),
    (waiting, "pi"),
    (ambient, "anthropic"),
    (waiting, "anthropic"),
    (waiting, "openai-chat"),
    (waiting, "openai-responses"),
]


@pytest.fixture
def _few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "CUT_KEPT_ENTRIES_MAX", KEEP)


@pytest.mark.usefixtures("_few_are_kept")
@pytest.mark.parametrize(
    ("shape", "message_format"), SHAPES, ids=[f"{one.__name__}-{two}" for one, two in SHAPES]
)
def test_a_choice_costs_the_same_behind_few_and_many(
    shape: Shape, message_format: MessageFormat
) -> None:
    costs = []
    for rows in (FEW, MANY):
        with closing(apsw.Connection(":memory:")) as connection:
            talk = Talk(connection, message_format)
            talk.say(talk.session_no, shape(talk, rows))
            costs.append(talk.steps(talk.choose))
            assert talk.choose().cut is not None, "nothing would be summarised"
            # What was noted is what a search finds.
            state = load_state(talk.tx, talk.session_no)
            searched = replace(state)
            searched.asked_no = searched.ordered_from_no = None
            found = partial(cut.choose_cut, talk.tx, keep_recent_tokens=KEEP, manual=False)
            assert found(state=state) == found(state=searched)
    few, many = costs
    assert many <= 1.1 * few + 200, costs


def test_a_talk_of_20_000_failed_replies_can_be_compacted() -> None:
    with closing(apsw.Connection(":memory:")) as connection:
        talk = Talk(connection, "pi")
        talk.say(talk.session_no, failed(talk, 20_000))
        steps = talk.steps(talk.choose)
        job = compaction.begin(talk.tx, talk.choose(), timeout_ms=60_000)
        assert job is not None
        done = compaction.commit(talk.tx, job.compaction_id, Summary.of("So far."), "2026-01-01")
        assert done.outcome == "committed"
        context = read_context(talk.tx, talk.session_no)
        assert len(context.parts) == 2 + 20_000, "the summary, the question and its replies"
        assert steps < 20_000
