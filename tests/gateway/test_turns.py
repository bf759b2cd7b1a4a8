"""Turns: claimed with their message, fenced by their number, taken over after their lease."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
from sessiondb.backend import Tx
from sessiondb.errors import StoreDamaged
from sessiondb.gateway import turns
from sessiondb.limits import INBOX_ATTEMPTS_MAX, PRIORITY_WAIT_MS_MAX
from sessiondb.sqlite import schema, writer
from sessiondb.sqlite.connection import drain
from sessiondb.transcript.entries import prepare
from tests.support.core import reply, user
from tests.support.gateway import (
    KEY,
    Clock,
    claim,
    claimed,
    complete,
    fail,
    inbox_states,
    interrupt,
    kinds,
    look,
    say,
)

pytestmark = pytest.mark.anyio
OTHER = "agent:main:web:2"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    return clock


async def test_a_claim_appends_and_starts_the_turn_or_does_nothing(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")

        def broken(*args: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            original = turns.append_entries
            patch.setattr(
                turns, "append_entries", lambda tx, no, drafts: (original(tx, no, drafts), broken())
            )
            with pytest.raises(ZeroDivisionError):
                await claim(db)
        assert await look(db, "turns") == []
        assert await look(db, "user_entries") == []
        assert await inbox_states(db) == {"e1": "queued"}
        turn = await claimed(db)
        [row] = await look(db, "inbox")
        assert (row.state, row.turn_no, row.attempts) == ("claimed", turn.turn_no, 1)
        [entry] = await look(db, "user_entries")
        assert (entry.idempotency_key, json.loads(entry.payload)["id"]) == (
            "inbox:1",
            turn.entry_id,
        )


async def test_a_message_is_appended_once_however_often_it_is_tried(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        for pause_ms in (1_000, 4_000):
            turn = await claimed(db)
            await fail(db, turn.turn_no)
            clock.pass_ms(pause_ms - 1)
            assert await claim(db) is None
            clock.pass_ms(1)
        await complete(db, (await claimed(db)).turn_no, "at last")
        context = await (await db.session(KEY)).context()
    assert [message["role"] for message in context.messages] == ["user", "assistant"]


async def test_after_its_last_attempt_a_message_is_dead_with_events(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        pauses = []
        for _ in range(INBOX_ATTEMPTS_MAX):
            await fail(db, (await claimed(db)).turn_no, "the model is down")
            [row] = await look(db, "inbox")
            pauses.append(row.available_at_ms - clock())
            clock.at_ms = max(clock(), row.available_at_ms)
        assert pauses[:-1] == [1_000, 4_000, 16_000, 60_000]
        assert await inbox_states(db) == {"e1": "dead"}
        user_event, operator_event = await look(db, "events")
    assert (user_event.kind, user_event.audience) == ("message_dead", "user")
    assert "could not be answered" in user_event.text
    assert (operator_event.kind, operator_event.audience) == ("message_dead", "operator")
    assert "the model is down" in operator_event.text


async def test_a_lane_runs_at_most_its_concurrency(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("main", concurrency=2, priority=0)
        for number in range(4):
            await say(db, f"e{number}", f"agent:main:web:{number}")
        first, _second = await claimed(db), await claimed(db)
        assert await claim(db) is None
        await complete(db, first.turn_no, "x")
        assert await claim(db) is not None
        assert await claim(db) is None


async def test_a_lane_waits_while_one_of_higher_priority_has_work(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "cron", "agent:main:cron:1", lane="cron")
        await say(db, "chat")
        assert await claim(db, "cron") is None
        turn = await claimed(db)
        await say(db, "behind")  # of the busy session: it cannot run now
        cron = await claimed(db, "cron")
        await complete(db, cron.turn_no, "x")
        await fail(db, turn.turn_no)
        await say(db, "cron 2", "agent:main:cron:1", lane="cron")
        assert await claim(db, "cron") is not None, (
            "what waits for a retry, and what waits behind it, could not run"
        )


async def test_a_lane_below_a_busy_one_waits_a_bounded_time(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "cron", "agent:main:cron:1", lane="cron")
        await say(db, "cron 2", "agent:main:cron:2", lane="cron")
        for number in range(6):
            await say(db, f"chat {number}", f"agent:main:web:{number}")
            await complete(db, (await claimed(db)).turn_no, "x")
            await say(db, f"waits {number}", f"agent:main:web:{number}")
            assert await claim(db, "cron") is None, "main always has something that could run"
            clock.pass_ms(PRIORITY_WAIT_MS_MAX // 6)
        cron = await claimed(db, "cron")
        assert cron.inbox_no == 1
        assert await claim(db, "cron") is None, "its own concurrency still holds"
        assert await claim(db) is not None


async def test_a_message_waits_for_older_ones_in_lanes_at_or_before_its_own(
    tmp_db: Path,
) -> None:
    """Nobody runs lane cron, or it has a long backlog: people of these sessions go on."""
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("main", concurrency=9, priority=0)
        await db.set_lane("beside", concurrency=9, priority=10)
        await db.set_lane("cron", concurrency=9, priority=10)
        for number in (1, 2):
            key = f"agent:main:web:{number}"
            for beat in range(3):
                await say(db, f"beat {beat} of {number}", key, lane="cron")
            accepted = await say(db, f"person of {number}", key)
            assert accepted.ahead == 0, "none of these goes before it"
            assert (await say(db, f"again of {number}", key)).ahead == 1
            assert (await say(db, f"beside {number}", key, lane="beside")).ahead == 5
        firsts = [await claimed(db) for _ in range(2)]
        assert [turn.inbox_no for turn in firsts] == [4, 10], "no heartbeat holds them up"
        assert await claim(db, "cron") is None, "one turn of a session at a time"
        for turn in firsts:
            await complete(db, turn.turn_no, "at once")
        assert [(await claimed(db)).inbox_no for _ in range(2)] == [5, 11]
        assert await claim(db, "cron") is await claim(db, "beside") is None


async def test_a_retry_holds_up_only_what_waits_for_it(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, OTHER):
            await say(db, f"beat {key}", key, lane="cron")
        await say(db, "next beat", KEY, lane="cron")
        for key in (KEY, OTHER):
            await say(db, f"person {key}", key)
        clock.pass_ms(PRIORITY_WAIT_MS_MAX)
        for _ in range(2):
            await fail(db, (await claimed(db, "cron")).turn_no)
        assert await claim(db, "cron") is None, "the next beat waits for the retry"
        assert [(await claimed(db)).inbox_no for _ in range(2)] == [4, 5], "people do not"


async def test_a_resume_has_the_place_of_the_lane_that_accepted_it(tmp_db: Path) -> None:
    """A heartbeat that nobody runs does not hold up a person's interrupted question."""
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, OTHER):
            await say(db, f"person {key}", key)
            await say(db, f"beat {key}", key, lane="cron")
        for _ in range(2):
            await interrupt(db, (await claimed(db)).turn_no)
        await db.resume(sessiondb.ResumePolicy(max_concurrent_resumes=2))
        await db.write("hurry", lambda tx: tx.run("look.hurry"))
        assert {(await claimed(db, "resume")).inbox_no for _ in range(2)} == {1, 3}


async def test_any_lane_takes_over_a_turn_of_a_lane_that_nobody_runs(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("cron", concurrency=2, priority=10)
        for key in (KEY, OTHER):
            await say(db, f"nightly {key}", key, lane="cron")
            await claimed(db, "cron", lease_ms=1_000)
            await say(db, f"person {key}", key)
        assert await claim(db) is None
        clock.pass_ms(1_000)
        assert await db.write("take", lambda tx: turns.take_over_expired(tx)) == 2
        assert [(await claimed(db)).inbox_no for _ in range(2)] == [2, 4]


async def test_a_lane_that_nobody_runs_delays_others_a_bounded_time(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("urgent", concurrency=1, priority=-1)
        await say(db, "for nobody", "agent:main:web:2", lane="urgent")
        await say(db, "a person's")
        assert await claim(db) is None
        clock.pass_ms(PRIORITY_WAIT_MS_MAX - 1)
        assert await claim(db) is None
        clock.pass_ms(1)
        assert await claim(db) is not None


async def test_a_resume_waits_from_when_it_was_queued(tmp_db: Path, clock: Clock) -> None:
    """In the burst after a restart people come first, however old what was interrupted is."""
    async with sessiondb.open(tmp_db) as db:
        await say(db, "old")
        await interrupt(db, (await claimed(db)).turn_no)
        for number in range(3):
            await say(db, f"waited over the restart {number}", f"agent:main:web:{10 + number}")
        clock.pass_ms(10 * PRIORITY_WAIT_MS_MAX)
        await db.resume()
        for _ in range(3):
            assert await claim(db, "resume") is None
            await complete(db, (await claimed(db)).turn_no, "x")
        assert (await claimed(db, "resume")).kind == "resume"


async def test_messages_are_served_as_they_become_due_by_any_clock(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "retried")
        await say(db, "before the clock was set back", "agent:main:web:2")
        await fail(db, (await claimed(db)).turn_no)
        clock.pass_ms(1_000)
        assert (await claimed(db)).inbox_no == 2, "it has waited for longer"
        await say(db, "also before", "agent:main:web:3")
        clock.pass_ms(-86_400_000)
        await say(db, "after", "agent:main:web:4")
        assert [(await claimed(db)).inbox_no for _ in range(3)] == [1, 3, 4], (
            "first come, first served"
        )


async def test_what_waits_behind_a_retry_is_not_looked_at_before_it(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for event in ("e1", "e2", "e3"):
            await say(db, event)
        other = await say(db, "other", "agent:main:web:2")
        await fail(db, (await claimed(db)).turn_no)
        waits = {row.event_id: row.available_at_ms - clock() for row in await look(db, "inbox")}
        assert waits == {"e1": 1_000, "e2": 1_000, "e3": 1_000, "other": 0}
        assert (await claimed(db)).inbox_no == other.inbox_no
        clock.pass_ms(1_000)
        again = await claimed(db)
        assert again.inbox_no == 1
        await fail(db, again.turn_no, retry=False)
        assert (await claimed(db)).inbox_no == 2, "what is dead holds nothing up"


async def test_the_claim_looks_again_at_what_was_seen(tmp_db: Path) -> None:
    """Before the claim, another process may have taken the message or the lane's last place."""
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await say(db, "cron", "agent:main:cron:1", lane="cron")
        seen = await db.read("peek", lambda tx: turns.peek(tx, "main", writer._now_ms()))
        assert seen is not None
        await claimed(db)
        draft = await prepare(seen.payload)
        assert (
            await db.write(
                "claim", lambda tx: turns.claim(tx, "main", seen, draft, lease_ms=1, timeout_ms=1)
            )
            is None
        )
        seen_cron = await db.read("peek", lambda tx: turns.peek(tx, "cron", writer._now_ms()))
        assert seen_cron is not None
        await say(db, "e2", "agent:main:web:2")
        draft_cron = await prepare(seen_cron.payload)
        late = await db.write(
            "claim",
            lambda tx: turns.claim(tx, "cron", seen_cron, draft_cron, lease_ms=1, timeout_ms=1),
        )
        assert late is None, "a message of a lane that goes first has arrived since"
        assert len(await look(db, "turns")) == 1


async def test_a_turn_that_was_taken_over_can_write_nothing(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        old = await claimed(db, lease_ms=5_000)
        clock.pass_ms(5_000)
        assert await db.write("take", lambda tx: turns.take_over_expired(tx)) == 1
        assert await db.write("take", lambda tx: turns.take_over_expired(tx)) == 0, (
            "compare-and-set: once"
        )
        assert not await interrupt(db, old.turn_no)
        draft = await prepare(user("late"))
        writes = [
            lambda tx: turns.append(tx, old.turn_no, [draft]),
            lambda tx: turns.reset(tx, old.turn_no, reason="new", keep_from=None),
            lambda tx: turns.renew(tx, old.turn_no, lease_ms=5_000, operation="late"),
            lambda tx: turns.complete(
                tx, old.turn_no, [draft], [("web", "{}")], incomplete=False, reason=None
            ),
            lambda tx: turns.fail(tx, old.turn_no, "late", retry=True),
            lambda tx: turns.abort(tx, old.turn_no, "late"),
        ]
        for write in writes:
            with pytest.raises(sessiondb.TurnLost, match="is interrupted") as caught:
                await db.write("late", write)
            assert caught.value.turn_no == old.turn_no
        assert await inbox_states(db) == {"e1": "interrupted"}
        assert await look(db, "outbox") == []
        assert len(await look(db, "user_entries")) == 1
        assert await kinds(db, "operator") == await kinds(db, "user") == ["turn_interrupted"]
        assert len(await (await db.session(KEY)).epochs()) == 1, "nor begin its context anew"


async def test_a_lease_is_renewed_at_most_until_the_deadline(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db, lease_ms=10_000, timeout_ms=25_000)
        begun_ms = clock()
        assert (turn.expires_at_ms - begun_ms, turn.timeout_ms) == (10_000, 25_000)
        until = []
        for _ in range(5):
            clock.pass_ms(8_000)
            renewed = await db.write(
                "renew",
                lambda tx: turns.renew(tx, turn.turn_no, lease_ms=10_000, operation="still at it"),
            )
            until.append(renewed - begun_ms)
        assert until == [18_000, 26_000, 27_000, 27_000, 27_000], (
            "the timeout, and a moment to write how it ended"
        )
        [holding] = await db.held()
        assert (holding.operation, holding.until_ms, holding.alive) == (
            "still at it",
            begun_ms + 27_000,
            True,
        )
        assert await db.write("take", lambda tx: turns.take_over_expired(tx)) == 1, (
            "renewing does not keep it for ever"
        )


async def test_an_expired_lease_that_nobody_took_is_still_renewable(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db, lease_ms=1_000)
        clock.pass_ms(1_500)
        await complete(db, turn.turn_no, "in time after all")
        assert await db.write("take", lambda tx: turns.take_over_expired(tx)) == 0
        assert await inbox_states(db) == {"e1": "done"}


async def test_racing_take_overs_and_completions_leave_one_end(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(10):
            await say(db, f"e{number}", f"agent:main:web:{number}")
        await db.set_lane("main", concurrency=10, priority=0)
        started = [await claimed(db, lease_ms=1_000) for _ in range(10)]
        clock.pass_ms(1_000)
        outcomes: list[str] = []

        async def finish(turn_no: int) -> None:
            try:
                await complete(db, turn_no, "answer", replies=[("web", "answer")])
            except sessiondb.TurnLost:
                outcomes.append("lost")
            else:
                outcomes.append("completed")

        async with anyio.create_task_group() as group:
            for turn in started[:5]:
                group.start_soon(finish, turn.turn_no)
            group.start_soon(db.write, "take", lambda tx: turns.take_over_expired(tx))
            for turn in started[5:]:
                group.start_soon(finish, turn.turn_no)
        rows = await look(db, "turns")
        assert sorted(row.state for row in rows) == sorted(
            {"lost": "interrupted", "completed": "completed"}[one] for one in outcomes
        )
        assert len(await look(db, "outbox")) == outcomes.count("completed")
        assert (await db.verify()).ok


async def test_what_a_turn_produces_and_its_end_are_one_transaction(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)

        def broken(tx: Tx, *args: Any, **options: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(turns, "_finish", broken)
            with pytest.raises(ZeroDivisionError):
                await complete(db, turn.turn_no, "answer", replies=[("web", "answer")])
        assert await look(db, "outbox") == []
        assert (await (await db.session(KEY)).info()).entries == 1
        await complete(db, turn.turn_no, "answer", replies=[("web", "answer")])
        assert (await (await db.session(KEY)).info()).entries == 2


async def test_an_incomplete_answer_is_recorded_with_an_event(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await complete(db, (await claimed(db)).turn_no, incomplete="the stream ended early")
        [turn] = await look(db, "turns")
        [event] = await look(db, "events")
    assert (turn.state, turn.incomplete, turn.reason) == ("completed", 1, "the stream ended early")
    assert (event.kind, event.audience) == ("turn_incomplete", "user")


async def test_an_aborted_turns_message_is_done(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        await db.abort_turn(turn.turn_no, "asked to stop")
        assert await inbox_states(db) == {"e1": "done"}
        with pytest.raises(sessiondb.TurnLost, match="asked to stop"):
            await db.abort_turn(turn.turn_no, "again")
        with pytest.raises(sessiondb.NotFound):
            await db.abort_turn(99, "which?")


async def test_the_schema_refuses_a_second_running_turn_of_a_session(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line of defence, should a statement forget to look."""
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await say(db, "e2")
        turn = await claimed(db)

        def second(tx: Tx) -> None:
            tx.run(
                "turns.start",
                session_no=turn.session_no,
                lane="main",
                kind="message",
                inbox_no=2,
                attempt=1,
                operation="x",
                instance_no=tx.instance_no,
                now_ms=1,
                expires_at_ms=1,
                deadline_ms=1,
            )

        with pytest.raises(sessiondb.errors.ConstraintFailed):
            await db.write("second", second)


async def test_the_idempotency_keys_of_claims_are_reserved(tmp_db: Path) -> None:
    """Otherwise the message's own append would count as a repetition, and be lost."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        own = {**user("hello"), "idempotencyKey": "inbox:1"}
        with pytest.raises(sessiondb.InvalidInput, match="reserved"):
            await session.append(user("hello"), idempotency_key="inbox:1")
        with pytest.raises(sessiondb.InvalidInput, match="reserved"):
            await session.append(own)
        with pytest.raises(sessiondb.InvalidInput, match=r"item 1: .*reserved"):
            await session.append_many([user("a"), user("b")], idempotency_keys=[None, "inbox:007"])
        with pytest.raises(sessiondb.InvalidInput, match="reserved"):
            await db.accept("web", "e0", KEY, own)
        for free in ("inbox:", "inbox:1a", "my inbox:1"):
            await session.append(user(free), idempotency_key=free)
        await say(db, "e1")
        turn = await claimed(db)
        assert [row.idempotency_key for row in await look(db, "user_entries")][
            -1
        ] == f"inbox:{turn.inbox_no}"
        assert (await session.tail(1))[0].entry_id == turn.entry_id


async def test_a_change_of_state_that_finds_no_row_is_damage(
    tmp_db: Path,
) -> None:
    """Some other program made the message wait while its turn runs."""
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        await db.write("spoil", lambda tx: tx.run("look.requeue"))
        message = f"inbox item 1 was claimed by turn {turn.turn_no}"
        with pytest.raises(StoreDamaged, match=message):
            await complete(db, turn.turn_no, "answer")
        with pytest.raises(StoreDamaged, match=message):
            await fail(db, turn.turn_no)
        with pytest.raises(StoreDamaged, match=message):
            await db.abort_turn(turn.turn_no, "stop")
        assert [row.state for row in await look(db, "turns")] == ["running"]
        assert await interrupt(db, turn.turn_no), (
            "the operator is notified, and the take-over goes on"
        )
        assert [(row.kind, row.audience) for row in await look(db, "events")] == [
            ("turn_interrupted", "operator")
        ]
        assert "is not claimed by it" in (await look(db, "events"))[0].text
        assert await inbox_states(db) == {"e1": "queued"}


# -- what a turn's handler finds in its context ------------------------------------------------


async def _users(db: sessiondb.SessionDB, key: str) -> list[str]:
    context = await (await db.session(key)).context()
    return [message["content"] for message in context.messages if message["role"] == "user"]


async def _reset(db: sessiondb.SessionDB, key: str) -> None:
    await (await db.session(key)).reset("new")


async def _switch_branch(db: sessiondb.SessionDB, key: str) -> None:
    session = await db.session(key)
    [first] = await session.entries(limit=1)
    await session.branch(first.entry_id)


async def _append_another(db: sessiondb.SessionDB, key: str) -> None:
    await (await db.session(key)).append(user("another"))


async def _compact(db: sessiondb.SessionDB, key: str) -> None:
    session = await db.session(key)
    await session.append(reply("long talk " * 4_000))
    async with session.compact(keep_recent_tokens=1) as job:
        await job.commit("they talked")


async def _retried(db: sessiondb.SessionDB, turn: turns.Started) -> str:
    await fail(db, turn.turn_no)
    await db.write("hurry", lambda tx: tx.run("look.hurry"))
    return "main"


async def _resumed(db: sessiondb.SessionDB, turn: turns.Started) -> str:
    await interrupt(db, turn.turn_no)
    await db.resume(sessiondb.ResumePolicy(skip_states=frozenset(), max_concurrent_resumes=9))
    return "resume"


async def _requeued(db: sessiondb.SessionDB, turn: turns.Started) -> str:
    await fail(db, turn.turn_no, retry=False)
    await db.requeue(turn.inbox_no)
    return "main"


@pytest.mark.parametrize("again", [_retried, _resumed, _requeued])
@pytest.mark.parametrize("move", [_reset, _switch_branch, _append_another, _compact])
async def test_a_turns_message_is_the_last_user_message_of_its_context(
    tmp_db: Path, move: Any, again: Any
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, OTHER):
            session = await db.session(key)
            await session.append_many([user("old talk"), reply("old answer")])
            await say(db, f"question in {key}", key)
        first, second = await claimed(db), await claimed(db)
        lanes = {await again(db, turn) for turn in (first, second)}
        await move(db, KEY)
        for lane in lanes:
            for turn in (await claimed(db, lane), await claimed(db, lane)):
                key = KEY if turn.inbox_no == first.inbox_no else OTHER
                said = await _users(db, key)
                assert said[-1] == f"question in {key}"
                assert said.count(f"question in {key}") == (
                    2 if (move, key) == (_append_another, KEY) else 1
                )
                await complete(db, turn.turn_no, "answer")
                assert (await _users(db, key))[-1] == f"question in {key}"
        assert len(await look(db, "user_entries")) == 5 + (move is _append_another), (
            "only the message whose context had moved is there again"
        )
        assert set((await inbox_states(db)).values()) == {"done"}
        assert (await db.verify()).ok


async def test_what_a_message_is_appended_under_again_is_reserved(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        with pytest.raises(sessiondb.InvalidInput, match="reserved"):
            await session.append(user("hello"), idempotency_key="inbox:1:2")


# -- what supersedes what ----------------------------------------------------------------------


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("main", "cron"),
        ("main", "subagent"),
        ("cron", "main"),
        ("cron", "cron"),
        ("subagent", "cron"),
        ("main", "hook"),
    ],
)
async def test_only_a_persons_message_supersedes_a_persons(
    tmp_db: Path, first: str, second: str, queued: bool
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("subagent", concurrency=2, priority=5)
        for key in (KEY, OTHER):
            await db.accept("web", f"first {key}", key, user("first"), lane=first)
        for _ in range(1 if first == "cron" else 2):
            await interrupt(db, (await claimed(db, first)).turn_no)
        if first == "cron":
            await interrupt(db, (await claimed(db, first)).turn_no)
        policy = sessiondb.ResumePolicy(max_concurrent_resumes=9)
        if queued:
            await db.resume(policy)
        by_person = False if second == "hook" else None
        lane = "main" if second == "hook" else second
        await db.accept("x", "second", KEY, user("second"), lane=lane, by_person=by_person)
        await complete(db, (await claimed(db, lane)).turn_no, "to the second")
        states = await inbox_states(db)
        assert states[f"first {KEY}"] == ("queued" if queued else "interrupted")
        await db.resume(policy)
        for _ in range(2):
            turn = await claimed(db, "resume")
            assert (await _users(db, KEY if turn.inbox_no == 1 else OTHER))[-1] == "first"
            await complete(db, turn.turn_no, "to the first")
        assert set((await inbox_states(db)).values()) == {"done"}
        assert "message_superseded" not in await kinds(db)


@pytest.mark.parametrize("queued", [False, True])
async def test_a_persons_message_supersedes_what_its_context_has_with_an_event(
    tmp_db: Path, queued: bool
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2):
            await say(db, f"first of {number}", f"agent:main:web:{number}")
        for _ in range(2):
            await interrupt(db, (await claimed(db)).turn_no)
        if queued:
            await db.resume(sessiondb.ResumePolicy(max_concurrent_resumes=9))
        waits = "queued" if queued else "interrupted"
        later = await say(db, "second of 1")
        turn = await claimed(db)
        assert (await inbox_states(db))["first of 1"] == waits, "nothing is answered yet"
        await fail(db, turn.turn_no)
        assert (await inbox_states(db))["first of 1"] == waits, "nor was it now"
        await db.write("hurry", lambda tx: tx.run("look.hurry"))
        await complete(db, (await claimed(db)).turn_no, "to both")
        assert await inbox_states(db) == {
            "first of 1": "done",
            "first of 2": waits,
            "second of 1": "done",
        }
        [told] = [row for row in await look(db, "events") if row.kind == "message_superseded"]
        assert (told.audience, told.session_no) == ("user", 1)
        assert json.loads(told.data)["inbox_no"] == 1
        [row, *_] = await look(db, "inbox")
        assert row.superseded_by == later.inbox_no


@pytest.mark.parametrize("move", [_reset, _switch_branch, _compact])
async def test_what_the_context_does_not_have_is_not_superseded(tmp_db: Path, move: Any) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append_many([user("old talk"), reply("old answer")])
        await say(db, "first")
        await interrupt(db, (await claimed(db)).turn_no)
        await move(db, KEY)
        await say(db, "second")
        await complete(db, (await claimed(db)).turn_no, "to the second")
        assert await inbox_states(db) == {"first": "interrupted", "second": "done"}
        await db.resume()
        turn = await claimed(db, "resume")
        assert (await _users(db, KEY))[-1] == "first"
        await complete(db, turn.turn_no, "to the first")
        assert set((await inbox_states(db)).values()) == {"done"}


async def test_a_turn_without_an_answer_supersedes_nothing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "first")
        await interrupt(db, (await claimed(db)).turn_no)
        await say(db, "second")
        await complete(db, (await claimed(db)).turn_no, incomplete="the model said nothing")
        assert await inbox_states(db) == {"first": "interrupted", "second": "done"}


async def test_a_person_who_stops_a_turn_stops_what_it_continued(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "first")
        await interrupt(db, (await claimed(db)).turn_no)
        await say(db, "second")
        await db.abort_turn((await claimed(db)).turn_no, "stop")
        assert await inbox_states(db) == {"first": "done", "second": "done"}
        assert "message_superseded" in await kinds(db, "user")


def test_an_older_file_knows_the_messages_of_main_as_peoples() -> None:
    connection = apsw.Connection(":memory:")
    scripts = dict(schema.migrations())
    for number in (1, 2, 3):
        drain(connection, scripts[number])
    drain(
        connection,
        """
        INSERT INTO session (session_no, session_id, origin, version, created_at_ms, updated_at_ms)
        VALUES (1, 'one', 'native', 3, 1, 2);
        INSERT INTO inbox (inbox_no, channel, event_id, session_no, lane, lane_before, state,
                           accepted_at_ms, available_at_ms, payload)
        VALUES (3, 'web', 'e1', 1, 'main', NULL, 'queued', 5, 6, '{}'),
               (4, 'web', 'e2', 1, 'resume', 'main', 'queued', 5, 6, '{}'),
               (5, 'cron', 'e3', 1, 'resume', 'cron', 'queued', 5, 6, '{}'),
               (6, 'cron', 'e4', 1, 'cron', NULL, 'interrupted', 5, 6, '{}');
        """,
    )
    drain(connection, scripts[4])
    assert drain(connection, "SELECT inbox_no FROM inbox WHERE by_person") == [(3,), (4,)]
