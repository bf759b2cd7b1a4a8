"""A gateway that drains claims no more, finishes what it began, sends it, and its loops return."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import Answer, RefusedBySender
from sessiondb.gateway import outbox
from sessiondb.gateway.draining import Stage
from sessiondb.gateway.running_turn import LaneSettings, Turn
from sessiondb.models import Reply
from sessiondb.sqlite import transaction
from sessiondb.sqlite.transaction import Prepared
from tests.support.core import reply, user
from tests.support.engine import PATIENCE_S
from tests.support.gateway import (
    answer,
    claimed,
    complete,
    eventually,
    inbox_states,
    look,
    running,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

# The lease lasts, whatever the machine is busy with.
SETTINGS = LaneSettings(lease_s=1_000, timeout_s=10_000)
LONG_S = 2 * PATIENCE_S
TALKS = ["agent:main:web:1", "agent:main:web:2", "agent:main:web:3"]

LONG_AGO = {
    "draining.queued": "UPDATE inbox SET queued_at_ms = 0",
    "draining.turns": """
        UPDATE turn SET started_at_ms = 0, finished_at_ms = iif(state = 'running', NULL, 0)""",
}
transaction.statements().update({name: Prepared(name, sql) for name, sql in LONG_AGO.items()})


class Model:
    """A handler that thinks until it is told to answer."""

    def __init__(self) -> None:
        self.thinking: list[str] = []
        self.may_answer = anyio.Event()

    async def __call__(self, turn: Turn) -> Answer:
        self.thinking.append(turn.message["content"])
        await self.may_answer.wait()
        return answer(turn)

    async def thinks(self, *texts: str) -> None:
        async def all_of_them() -> bool:
            return sorted(self.thinking) == sorted(texts)

        await eventually(all_of_them)


class Channel:
    """A sender that remembers what it sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def __call__(self, outgoing: Reply) -> str:
        self.sent.append(json.loads(outgoing.payload))
        return "receipt"

    @property
    def texts(self) -> list[str]:
        return sorted(message["text"] for message in self.sent)


async def is_draining(db: sessiondb.SessionDB) -> bool:
    return any(one.draining_since_ms is not None for one in (await db.status()).processes)


async def drain_in_vain(db: sessiondb.SessionDB) -> sessiondb.Drained:
    """Drain for a moment only, as often as it takes until others see it."""
    while True:
        left = await db.drain(timeout_s=0.01)
        if await is_draining(db):
            return left


async def outbox_states(db: sessiondb.SessionDB) -> list[str]:
    return [row.state for row in await look(db, "outbox")]


async def test_what_runs_is_finished_and_sent_and_the_loops_return(tmp_db: Path) -> None:
    model, channel = Model(), Channel()
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("main", concurrency=2, priority=0)
        for number, key in enumerate(TALKS, 1):
            await say(db, f"e{number}", key)
        reports: list[sessiondb.Drained] = []

        async def stop() -> None:
            reports.append(await db.drain(timeout_s=LONG_S))

        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:  # it ends although nobody cancels it
                group.start_soon(partial(db.run_lane, "main", model, settings=SETTINGS))
                group.start_soon(partial(db.run_lane, "resume", model, settings=SETTINGS))
                group.start_soon(db.run_recovery)
                group.start_soon(db.run_outbox, channel)
                await model.thinks("e1", "e2")
                group.start_soon(stop)
                await eventually(partial(is_draining, db))
                await say(db, "e4", "agent:main:web:4")  # accepted all the same
                model.may_answer.set()
        assert reports == [sessiondb.Drained((), ())]
        assert reports[0].complete
        assert await inbox_states(db) == {
            "e1": "done",
            "e2": "done",
            "e3": "queued",
            "e4": "queued",
        }
        assert channel.texts == ["re e1", "re e2"]
        assert await outbox_states(db) == ["sent", "sent"]
        assert [row.state for row in await look(db, "turns")] == ["completed"] * 2
        with anyio.fail_after(PATIENCE_S):  # a drain is not taken back
            await db.run_lane("main", model)
            await db.run_outbox(channel)
            await db.run_recovery()
            late = [event.kind async for event in db.events("late", from_start=True)]
            # Replies may be sent before the last turn has ended, or after.
            assert late.count("turn_completed") == 2, "it ends, with all that the turns did"
        assert model.thinking == ["e1", "e2"]
    assert db.unsigned() == []


async def test_the_other_process_takes_what_was_not_claimed(tmp_db: Path) -> None:
    old, new, channel = Model(), Model(), Channel()
    new.may_answer.set()
    async with sessiondb.open(tmp_db) as first, sessiondb.open(tmp_db) as second:
        await first.set_lane("main", concurrency=2, priority=0)
        for number, key in enumerate([*TALKS, TALKS[0]], 1):
            await say(first, f"e{number}", key)
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(first.run_lane, "main", old, settings=SETTINGS))
                group.start_soon(first.run_outbox, channel)
                await old.thinks("e1", "e2")
                group.start_soon(partial(first.drain, timeout_s=LONG_S))
                await eventually(partial(is_draining, second))
                async with running(partial(second.run_lane, "main", new, settings=SETTINGS)):
                    old.may_answer.set()
                    await new.thinks("e3", "e4")  # e4 behind e1, of the same conversation
                    await eventually(partial(all_done, second))
        assert old.thinking == ["e1", "e2"]
        assert all(turn.state == "completed" for turn in await look(second, "turns"))
        await second.drain(timeout_s=LONG_S)


async def all_done(db: sessiondb.SessionDB) -> bool:
    return set((await inbox_states(db)).values()) == {"done"}


async def test_after_its_time_what_still_runs_is_named(tmp_db: Path) -> None:
    model, channel = Model(), Channel()
    async with sessiondb.open(tmp_db, program="gateway") as db, sessiondb.open(tmp_db) as other:
        receipt = await say(db, "e1", TALKS[0])
        await say(other, "e2", TALKS[1])
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(db.run_lane, "main", model, settings=SETTINGS))
                group.start_soon(db.run_outbox, channel)
                await model.thinks("e1", "e2")
                left = await drain_in_vain(db)
                assert not left.complete
                assert left.loops == ("lane main", "outbox")
                assert {held.what for held in left.held} == {"turn"}
                assert receipt.session_id in {held.session_id for held in left.held}
                assert all(held.alive and held.draining_since_ms for held in left.held)
                assert [turn.state for turn in await look(db, "turns")] == ["running"] * 2
                assert not (await other.drain(timeout_s=LONG_S)).held, "they are not its own"
                model.may_answer.set()
                left = await db.drain(timeout_s=LONG_S)
        assert left.complete
        assert channel.texts == ["re e1", "re e2"]


async def test_replies_that_stand_behind_others_are_sent_and_those_of_others_are_not_awaited(
    tmp_db: Path,
) -> None:
    """Another process writes one more reply each time that one is sent: there is no end of it."""
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        numbers = iter(range(1_000_000))
        sent: list[str] = []

        async def answer_one() -> None:
            number = next(numbers)
            await say(other, f"e{number}", TALKS[0])
            started = await claimed(other)
            await complete(other, started.turn_no, "yes", replies=[("web:1", f"r{number}")])

        async def send(outgoing: Reply) -> None:
            await answer_one()
            sent.append(json.loads(outgoing.payload))

        for _ in range(3):
            await answer_one()
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(db.run_outbox, send)
                assert (await db.drain(timeout_s=LONG_S)).complete
        assert sent[:3] == ["r0", "r1", "r2"]
        states = await outbox_states(db)
        assert "sending" not in states
        assert states.count("pending") == 3, "one stands behind the other, so as many as before"


async def test_a_reply_that_waits_for_a_time_is_left_to_the_next_start(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pause that no clock of this test reaches the end of. `quick_retries` makes it 1 ms, which
    # is over before a busy machine looks again.
    monkeypatch.setattr(outbox, "retry_pause_ms", lambda *_: 50_000)
    sent: list[str] = []

    async def send(outgoing: Reply) -> None:
        if outgoing.target == "telegram:1":
            raise RefusedBySender("429", retry_after_s=3_600)
        if outgoing.target == "slack:1":
            raise RefusedBySender("it is not connected")
        sent.append(outgoing.target)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", TALKS[0])
        targets = ["telegram:1", "slack:1", "web:1"]
        started = await claimed(db)
        await complete(db, started.turn_no, "yes", replies=[(one, "hello") for one in targets])
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(db.run_outbox, send, retry_pauses_s=(50,)))
                assert (await db.drain(timeout_s=LONG_S)).complete
        assert sent == ["web:1"]
        assert await outbox_states(db) == ["pending", "pending", "sent"]


async def test_readers_of_events_handle_what_there_is_and_it_is_sent(tmp_db: Path) -> None:
    """A turn that fails for good says so by an event, which a reader puts into the outbox."""
    channel, model = Channel(), Model()

    async def fail(turn: Turn) -> Answer:
        await model(turn)
        raise RuntimeError("no luck")

    async with sessiondb.open(tmp_db) as db:
        handled: list[str] = []

        async def tell_people() -> None:
            async for event in db.events("notices", audience="user", from_start=True):
                await db.forward_event(
                    event, consumer="notices", target="web:1", message={"text": event.kind}
                )
                handled.append(event.kind)

        async def look_after() -> None:
            async for _ in db.events("log", audience="operator"):
                pass

        await say(db, "e1", TALKS[0])
        once = SETTINGS.model_copy(update={"attempts_max": 1})
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(db.run_lane, "main", fail, settings=once))
                group.start_soon(db.run_outbox, channel)
                group.start_soon(tell_people)
                group.start_soon(look_after)
                await model.thinks("e1")
                group.start_soon(partial(db.drain, timeout_s=LONG_S))
                await eventually(partial(is_draining, db))
                model.may_answer.set()
        assert handled == ["message_dead"]
        assert channel.texts == ["message_dead"]


async def test_a_reader_that_drains_leaves_later_events_to_others(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        numbers = iter(range(1_000_000))
        handled: list[int] = []

        async def abort_one() -> None:
            await say(other, f"e{next(numbers)}", TALKS[0])
            await other.abort_turn((await claimed(other)).turn_no, "one more event")

        async def follow() -> None:
            async for event in db.events("notices", audience="user", from_start=True):
                await abort_one()
                handled.append(event.event_no)

        await abort_one()
        await abort_one()
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                left = await db.drain(timeout_s=LONG_S)
        assert left.complete
        known = [row.event_no for row in await look(db, "events") if row.audience == "user"]
        assert len(handled) >= 2
        assert handled == known[: len(handled)], "none was skipped, and none came twice"
        assert len(known) > len(handled)


async def test_a_drain_waits_for_the_compactions_of_its_process(tmp_db: Path) -> None:
    summarise = anyio.Event()
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(TALKS[0])
        for number in range(4):
            await session.append(user(f"question {number}"))
            await session.append(reply("long talk " * 400))

        async def compact() -> None:
            async with session.compact(keep_recent_tokens=1) as job:
                await summarise.wait()
                await job.commit("they talked")

        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(compact)
                await eventually(partial(holds, db, "compaction"))
                left = await db.drain(timeout_s=0.01)
                assert [held.what for held in left.held] == ["compaction"]
                group.start_soon(partial(db.drain, timeout_s=LONG_S))
                summarise.set()
        assert [job.state async for job in db.compactions()] == ["committed"]


async def test_a_drain_waits_for_a_compaction_that_begins_while_replies_are_sent(
    tmp_db: Path,
) -> None:
    called, may_send, summarise = anyio.Event(), anyio.Event(), anyio.Event()
    reports: list[sessiondb.Drained] = []

    async def channel(outgoing: Reply) -> str:
        called.set()
        await may_send.wait()
        return "receipt"

    async with sessiondb.open(tmp_db) as db:
        session = await db.session(TALKS[0])
        for number in range(4):
            await session.append(user(f"question {number}"))
            await session.append(reply("long talk " * 400))
        await say(db, "e1", TALKS[1])
        await complete(db, (await claimed(db)).turn_no, "an answer", replies=[("web", "sent")])

        async def compact() -> None:
            async with session.compact(keep_recent_tokens=1) as job:
                await summarise.wait()
                await job.commit("they talked")

        async def send() -> None:
            await db.run_outbox(channel)
            for _ in range(5):  # the loop has returned, and the drain waits all the same
                assert await holds(db, "compaction")
            summarise.set()

        async def stop() -> None:
            reports.append(await db.drain(timeout_s=LONG_S))

        async def sends_only() -> bool:
            return db._loops.ends(Stage.REPLIES)

        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(send)
                await called.wait()
                group.start_soon(stop)
                await eventually(sends_only)
                group.start_soon(compact)
                await eventually(partial(holds, db, "compaction"))
                may_send.set()
        assert reports == [sessiondb.Drained((), ())]
        assert [job.state async for job in db.compactions()] == ["committed"]


async def holds(db: sessiondb.SessionDB, what: str) -> bool:
    return any(held.what == what for held in await db.held())


async def test_loops_that_are_cancelled_while_they_drain_are_interrupted_as_ever(
    tmp_db: Path,
) -> None:
    model = Model()
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", TALKS[0])
        with anyio.fail_after(LONG_S):
            async with running(partial(db.run_lane, "main", model, settings=SETTINGS)):
                await model.thinks("e1")
                assert (await db.drain(timeout_s=0.01)).loops == ("lane main",)
        assert await inbox_states(db) == {"e1": "interrupted"}
        assert (await db.drain(timeout_s=LONG_S)).complete
    assert db.unsigned() == []


async def test_everybody_sees_that_a_process_drains(tmp_db: Path) -> None:
    model = Model()
    async with sessiondb.open(tmp_db, program="gateway") as db, sessiondb.open(tmp_db) as other:
        await db.set_lane("main", concurrency=2, priority=0)
        await say(db, "e1", TALKS[0])
        with anyio.fail_after(LONG_S):
            async with running(partial(db.run_lane, "main", model, settings=SETTINGS)):
                await model.thinks("e1")
                await drain_in_vain(db)
                await say(other, "e2", TALKS[1])
                [turn] = await other.held()
                assert turn.draining_since_ms is not None
                drains = {
                    one.program: one.draining_since_ms is not None
                    for one in (await other.status()).processes
                }
                assert drains.pop("gateway")
                assert list(drains.values()) == [False]
                assert "One drains, and claims no more: gateway, pid " in await why_idle(other)
    async with sessiondb.open(tmp_db) as db:
        assert "drains" not in await why_idle(db), "it has ended"


async def why_idle(db: sessiondb.SessionDB) -> str:
    """Return why no turn of lane main has begun for long."""
    await db.write("wait", lambda tx: [tx.run(one) for one in LONG_AGO])
    [why] = [one.why for one in (await db.status()).stuck if (one.what, one.name) == LANE]
    return why


LANE = ("lane", "main")


async def test_a_database_that_cannot_be_written_drains_all_the_same(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", TALKS[0])
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(db.run_lane, "main", model, settings=SETTINGS))
                await model.thinks("e1")
                write = db.backend.write

                async def full(fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
                    if op == "drain":
                        raise sessiondb.StoreFull
                    return await write(fn, op=op, **options)

                monkeypatch.setattr(db.backend, "write", full)
                model.may_answer.set()
                assert (await db.drain(timeout_s=LONG_S)).complete
        assert await inbox_states(db) == {"e1": "done"}


async def test_an_end_is_written_however_long_the_disk_is_full(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that is cancelled tries for as long as its lease. One that drains has no such end."""
    model, lease_s = Model(), 0.3
    begun: list[float] = []
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", TALKS[0])
        write = db.backend.write

        async def full(fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
            if op == "turn.end":
                begun.append(time.monotonic())
                if begun[-1] < begun[0] + 3 * lease_s:
                    raise sessiondb.StoreFull
            return await write(fn, op=op, **options)

        monkeypatch.setattr(db.backend, "write", full)
        settings = LaneSettings(lease_s=lease_s, timeout_s=10_000)
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(db.run_lane, "main", model, settings=settings))
                await model.thinks("e1")
                group.start_soon(partial(db.drain, timeout_s=LONG_S))
                await eventually(partial(is_draining, db))
                model.may_answer.set()
        assert await inbox_states(db) == {"e1": "done"}
    assert db.unsigned() == []


async def test_a_database_for_reading_refuses_to_drain(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db):
        pass
    async with sessiondb.open(tmp_db, readonly=True) as db:
        with pytest.raises(sessiondb.StoreReadOnly):
            await db.drain(timeout_s=LONG_S)


def test_a_thread_that_follows_events_ends_when_another_one_drains(tmp_db: Path) -> None:
    handled: queue.Queue[int] = queue.Queue()
    with sessiondb.sync.open(tmp_db) as db:

        def follow() -> None:
            for event in db.events("notices", from_start=True):
                handled.put(event.event_no)

        reader = threading.Thread(target=follow, daemon=True)
        reader.start()
        db.write("test", lambda tx: sessiondb.events.emit(tx, "crash_loop", "operator", "look"))
        assert handled.get(timeout=PATIENCE_S) == 1
        assert db.drain(timeout_s=LONG_S).complete
        reader.join(PATIENCE_S)
        assert not reader.is_alive()
