"""Every accepted message ends answered, or its sender is told: `verify` says where that is broken.

The rules that spoilt rows break are in the table of `test_verify.py`. Here an old rule is put
back, and what it leaves behind is a finding. What pruning and archives leave behind is none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import events
from sessiondb.gateway import dead_letters, turns
from sessiondb.maintenance import retention
from sessiondb.maintenance.retention import DAY_MS, RetentionPolicy
from sessiondb.transcript import context
from tests.support.engine import set_clock
from tests.support.gateway import (
    Clock,
    change_statement,
    claimed,
    complete,
    fail,
    held_message,
    interrupt,
    look,
    put_statement,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

OTHER = "agent:main:web:2"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    set_clock(monkeypatch, clock)
    return clock


async def every_end(db: sessiondb.SessionDB) -> None:
    """Leave a message of each end: answered, superseded, stopped, dead, dropped."""
    await held_message(db, "superseded")
    await say(db, "answered")
    await complete(db, (await claimed(db)).turn_no, "both")
    await say(db, "stopped", OTHER)
    await db.abort_turn((await claimed(db)).turn_no, "stop")
    for name in ("dropped", "dead"):
        await say(db, name, OTHER)
        await fail(db, (await claimed(db)).turn_no, retry=False)
    await db.drop((await say(db, "dropped", OTHER)).inbox_no)


async def unanswered(db: sessiondb.SessionDB) -> list[str]:
    report = await db.verify()
    assert {finding.check for finding in report.findings} <= {"unanswered"}, report.findings
    return [finding.message for finding in report.findings]


async def test_every_end_is_sound_and_has_its_event(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await every_end(db)
        assert await unanswered(db) == []
        kinds = {event.event_no: event.kind for event in await look(db, "events")}
        told = {row.event_id: kinds.get(row.told_no) for row in await look(db, "inbox")}
    assert told == {
        "superseded": "message_superseded",
        "answered": None,
        "stopped": "turn_aborted",
        "dropped": "message_dead",
        "dead": "message_dead",
    }


async def test_pruned_and_archived_messages_leave_nothing_to_find(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await every_end(db)
        clock.pass_ms(40 * DAY_MS)
        await say(db, "young", "agent:main:web:3")
        await complete(db, (await claimed(db)).turn_no, "yes")
        await retention.gc(db.backend, RetentionPolicy(prune_days=30), now_ms=clock.at_ms)
        assert [row.event_id for row in await look(db, "inbox")] == ["dead", "young"]
        kept = [row for row in await look(db, "events") if row.kind == "message_dead"]
        assert [row.audience for row in kept] == ["user"], "its sender can see it"
        assert await unanswered(db) == []
        [dead] = [letter async for letter in db.dead_letters()]
        await db.drop(dead.inbox_no)
        await retention.gc(db.backend, RetentionPolicy(prune_days=30), now_ms=clock.at_ms)
        assert "message_dead" not in {row.kind for row in await look(db, "events")}
        assert await unanswered(db) == []


async def test_a_superseded_message_of_an_archived_session_is_sound(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await held_message(db, "superseded")
        answered = await say(db, "answered")
        await complete(db, (await claimed(db)).turn_no, "both")
        clock.pass_ms(40 * DAY_MS)
        policy = RetentionPolicy(max_age_days=30)
        report = await retention.gc(db.backend, policy, now_ms=clock.at_ms)
        assert [decision.action for decision in report.decisions] == ["archive"]
        assert await unanswered(db) == []
        await db.unarchive(answered.session_id)
        assert await unanswered(db) == []


# -- old rules put back -----------------------------------------------------------------------


def a_dead_letter_is_silent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dead_letters, "notify_dead", lambda tx, inbox_no, session_no: 0 * inbox_no + 999)


def only_the_operator_is_told(patch: pytest.MonkeyPatch) -> None:
    emit = events.emit
    patch.setattr(
        events,
        "emit",
        lambda tx, kind, audience, text, **data: emit(tx, kind, "operator", text, **data),
    )


def another_sender_is_told(patch: pytest.MonkeyPatch) -> None:
    notify = dead_letters.notify_dead
    patch.setattr(
        dead_letters, "notify_dead", lambda tx, inbox_no, session_no: notify(tx, 1, session_no)
    )


def a_stop_is_silent(patch: pytest.MonkeyPatch) -> None:
    finish = turns._finish_message
    patch.setattr(
        turns,
        "_finish_message",
        lambda tx, turn, reason, *, told_no: finish(tx, turn, reason, told_no=None),
    )


def an_interrupted_message_is_done(patch: pytest.MonkeyPatch) -> None:
    """The rule of before: what a newer message overtakes is done, and nobody is told."""
    put_statement(
        patch,
        "inbox.suspend",
        "UPDATE inbox SET state = 'done', reason = :reason WHERE inbox_no = :inbox_no "
        "AND turn_no = :turn_no",
    )


def a_failed_message_is_done(patch: pytest.MonkeyPatch) -> None:
    put_statement(
        patch,
        "inbox.retry",
        "UPDATE inbox SET state = 'done', reason = :reason WHERE inbox_no = :inbox_no "
        "AND turn_no = :turn_no",
    )


async def some_work(db: sessiondb.SessionDB) -> None:
    await say(db, "first")
    await complete(db, (await claimed(db)).turn_no, "yes")
    await say(db, "failed", OTHER)
    await fail(db, (await claimed(db)).turn_no)
    await say(db, "dead", "agent:main:web:3")
    await fail(db, (await claimed(db)).turn_no, retry=False)
    await say(db, "stopped", "agent:main:web:4")
    await db.abort_turn((await claimed(db)).turn_no, "stop")
    await say(db, "cut", "agent:main:web:5")
    await interrupt(db, (await claimed(db)).turn_no)


async def test_the_same_work_by_the_rules_is_sound(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await some_work(db)
        assert await unanswered(db) == []


@pytest.mark.parametrize(
    ("old_rule", "says"),
    [
        (a_dead_letter_is_silent, "event 999, which told its sender, is not there"),
        (only_the_operator_is_told, "is message_dead for operator"),
        (another_sender_is_told, "is message_dead for user about item 1"),
        (a_stop_is_silent, "is aborted, and no event told its sender"),
        (an_interrupted_message_is_done, "is interrupted, and no event told its sender"),
        (a_failed_message_is_done, "is failed, and no event told its sender"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_an_old_rule_put_back_is_found(
    tmp_db: Path,
    monkeypatch: pytest.MonkeyPatch,
    old_rule: Callable[[pytest.MonkeyPatch], None],
    says: str,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        old_rule(monkeypatch)
        await some_work(db)
        found: Any = await unanswered(db)
        assert any(says in message for message in found), found


async def test_a_question_that_the_answer_did_not_see_is_found(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule of before: a newer message ends an interrupted one, whatever lies between."""
    async with sessiondb.open(tmp_db) as db:
        for number in range(2):
            key = f"agent:main:web:{number}"
            await held_message(db, f"before {number}", key)
            await (await db.session(key)).reset()
            if number == 1:
                monkeypatch.setattr(context, "preceded", lambda *_: True)
                monkeypatch.setattr(context, "contains", lambda *_: True)
            await say(db, f"after {number}", key)
            await complete(db, (await claimed(db)).turn_no, "an answer to the second one")
            found = await unanswered(db)
            assert bool(found) == (number == 1), found
    assert "did not have it in its context" in found[0]


async def test_a_dead_letter_in_an_archive_is_found(
    tmp_db: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule of before: a dead letter does not keep its session from being archived."""
    policy = RetentionPolicy(max_age_days=30)
    async with sessiondb.open(tmp_db) as db:
        await say(db, "dead")
        await fail(db, (await claimed(db)).turn_no, retry=False)
        clock.pass_ms(40 * DAY_MS)
        await retention.gc(db.backend, policy, now_ms=clock.at_ms)
        assert await unanswered(db) == []
        change_statement(
            monkeypatch, "archive.protection", "AND d.state = 'dead'", "AND d.state = ''"
        )
        await retention.gc(db.backend, policy, now_ms=clock.at_ms)
        [found] = await unanswered(db)
    assert "its session is archived, so nobody can requeue it" in found
