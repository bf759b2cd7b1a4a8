"""Old rows of finished work are pruned. Unfinished work stays, whatever its age."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import events
from sessiondb.backend import Tx
from sessiondb.gateway import inbox, outbox
from sessiondb.maintenance import pruning, retention
from sessiondb.maintenance.retention import DAY_MS, RetentionPolicy
from tests.support.command_line import ok, run
from tests.support.engine import set_clock
from tests.support.gateway import KEY, Clock, claimed, complete, fail, held_message, look, say
from tests.support.maintenance import Dying, Killed

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

POLICY = RetentionPolicy(prune_days=30)
PAGE = pruning._PAGE


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    set_clock(monkeypatch, clock)
    return clock


async def answered(db: sessiondb.SessionDB, event_id: str, key: str = KEY) -> None:
    """Accept a message, answer it, and send its reply."""
    await say(db, event_id, key)
    await complete(db, (await claimed(db)).turn_no, "yes", replies=[("web:1", {"text": "yes"})])
    sending = await db.write("send", lambda tx: outbox.begin_sending(tx, lease_ms=1_000))
    assert sending is not None
    assert await db.write("sent", lambda tx: outbox.sent(tx, sending, None))


async def prune(db: sessiondb.SessionDB, clock: Clock, *, dry_run: bool = False) -> dict[str, int]:
    report = await retention.gc(db.backend, POLICY, dry_run=dry_run, now_ms=clock.at_ms)
    return report.pruned


async def rows(db: sessiondb.SessionDB) -> dict[str, int]:
    return {
        table: len(await look(db, name))
        for table, name in (
            ("outbox", "outbox"),
            ("inbox", "inbox"),
            ("turn", "turns"),
            ("event", "facts"),
        )
    }


async def test_old_rows_of_finished_work_go_and_transcripts_stay(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(5):
            await answered(db, f"old {number}")
        clock.pass_ms(31 * DAY_MS)
        await answered(db, "new")
        message = await (await db.session(KEY)).all_entries(limit=100)
        assert await prune(db, clock, dry_run=True) == {
            "outbox": 5,
            "inbox": 5,
            "turn": 0,
            "event": 15,  # that each began, was answered and was sent
        }, "turns follow their messages"
        assert await rows(db) == {"outbox": 6, "inbox": 6, "turn": 6, "event": 18}
        assert await prune(db, clock) == {"outbox": 5, "inbox": 5, "turn": 5, "event": 15}
        assert await rows(db) == {"outbox": 1, "inbox": 1, "turn": 1, "event": 3 + 1}, (
            "the last event says what was done"
        )
        assert await prune(db, clock) == dict.fromkeys(pruning.TABLES, 0)
        assert await (await db.session(KEY)).all_entries(limit=100) == message
        assert (await db.verify()).findings == ()


async def test_unfinished_work_stays_whatever_its_age(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("main", concurrency=9, priority=0)
        await say(db, "dead", "agent:main:web:2")
        await fail(db, (await claimed(db)).turn_no, retry=False)
        await held_message(db, "held", "agent:main:web:3")
        await say(db, "unknown", "agent:main:web:4")
        await complete(db, (await claimed(db)).turn_no, "yes", replies=[("web:4", {})])
        sending = await db.write("send", lambda tx: outbox.begin_sending(tx, lease_ms=1_000))
        assert sending is not None
        await db.write("lost", lambda tx: outbox.lost(tx, sending, "nobody knows"))
        await say(db, "pending", "agent:main:web:5")
        await complete(db, (await claimed(db)).turn_no, "yes", replies=[("web:5", {})])
        await say(db, "running", "agent:main:web:6")
        running = await claimed(db)
        await say(db, "waiting", "agent:main:web:6")
        clock.pass_ms(400 * DAY_MS)
        pruned = await prune(db, clock)
        # The messages `unknown` and `pending` are done, but not their replies.
        assert {row.event_id for row in await look(db, "inbox")} == {
            "dead",
            "held",
            "running",
            "waiting",
        }
        assert {row.state for row in await look(db, "outbox")} == {"unknown", "pending"}
        assert (pruned["inbox"], pruned["outbox"], pruned["turn"]) == (2, 0, 2)
        assert (await db.verify()).findings == ()
        await complete(db, running.turn_no, "at last")
        assert (await db.verify()).findings == ()


async def test_numbers_of_pruned_rows_are_never_reused(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        await answered(db, "old")
        clock.pass_ms(31 * DAY_MS)
        await prune(db, clock)
        again = await say(db, "old")
        assert not again.duplicate, "its receipt was pruned: after so long it is a new message"
        assert again.inbox_no == 2
        assert (await claimed(db)).turn_no == 2
        texts = [
            json.loads(entry.payload)["message"]["content"] async for entry in _user_entries(db)
        ]
        assert texts == ["old", "old"], (
            "the number is in the entry's idempotency key, so the second one is an entry of its own"
        )


async def _user_entries(db: sessiondb.SessionDB) -> Any:
    for row in await look(db, "user_entries"):
        yield row


async def test_killed_after_any_step_the_next_run_prunes_the_rest(
    tmp_path: Path, clock: Clock
) -> None:
    for steps in range(20):
        async with sessiondb.open(tmp_path / f"{steps}.db") as db:
            for number in range(3):
                await answered(db, f"old {number}")
            clock.pass_ms(31 * DAY_MS)
            try:
                await retention.gc(Dying(db.backend, steps), POLICY, now_ms=clock.at_ms)
            except Killed:
                assert (await db.verify()).findings == ()
                await prune(db, clock)
            else:
                assert steps > 2, "outbox, inbox and turns are a step each"
                return
            finally:
                assert (await db.verify()).findings == ()
            assert {**await rows(db), "event": 0} == {
                "outbox": 0,
                "inbox": 0,
                "turn": 0,
                "event": 0,
            }
    pytest.fail("pruning three messages takes no 20 steps")


async def test_a_message_requeued_meanwhile_is_not_pruned(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "dropped")
        turn = await claimed(db)
        await fail(db, turn.turn_no, retry=False)
        await db.drop(1)
        clock.pass_ms(31 * DAY_MS)

        class Interleaved(Dying):
            async def step(self, fn: Any, *, op: str, **options: Any) -> Any:
                # As if an operator had requeued it between the look and the step.
                await db.write("undo", lambda tx: tx.run("look.requeue"))
                return await self.backend.step(fn, op=op, **options)

        report = await retention.gc(Interleaved(db.backend, -1), POLICY, now_ms=clock.at_ms)
        assert report.pruned["inbox"] == 0
        assert [row.state for row in await look(db, "inbox")] == ["queued"]


async def test_dead_letters_can_be_requeued_however_old_they_are(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "dead")
        await fail(db, (await claimed(db)).turn_no, retry=False)
        clock.pass_ms(400 * DAY_MS)
        await prune(db, clock)
        await db.write("requeue", lambda tx: inbox.requeue(tx, 1))
        await complete(db, (await claimed(db)).turn_no, "at last")
        assert (await db.verify()).findings == ()


def test_the_command_prunes_and_says_so(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        for number in range(3):
            db.accept(
                KEY, {"role": "user", "content": "hello"}, channel="web", event_id=f"e{number}"
            )
    result = run("gc", tmp_db, "--prune", "0", "--dry-run")
    assert result.exit_code == 0
    assert (
        "rows of finished work that would go: replies 0, messages 0, turns 0, events 0"
        in result.stderr
    )
    result = run("gc", tmp_db)
    assert "finished work" not in result.stderr, "without a limit nothing goes"
    assert json.loads(ok("gc", tmp_db, "--prune", "30d", "--json"))["pruned"] == dict.fromkeys(
        pruning.TABLES, 0
    )


async def test_rows_dated_in_the_future_do_not_end_the_walk(tmp_db: Path, clock: Clock) -> None:
    """A clock that was ahead for a while leaves such rows in front of others."""

    def emit(tx: Tx) -> None:
        for number in range(PAGE + 1):
            events.emit(tx, "test", "operator", f"number {number}")

    async with sessiondb.open(tmp_db) as db:
        now_ms = clock.at_ms
        for at_ms in (now_ms + 300 * DAY_MS, now_ms - 60 * DAY_MS):
            clock.at_ms = at_ms
            await db.write("test.emit", emit)
        clock.at_ms = now_ms
        assert (await prune(db, clock, dry_run=True))["event"] == PAGE + 1
        assert (await prune(db, clock))["event"] == PAGE + 1
        left = [row for row in await look(db, "facts") if row.kind == "test"]
        assert len(left) == PAGE + 1
