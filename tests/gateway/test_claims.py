"""Claims: which message is next, and that its turn finds it as its question."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.backend import Tx
from sessiondb.clock import stamp_ms
from sessiondb.gateway import claims
from sessiondb.limits import PRIORITY_WAIT_MS_MAX
from sessiondb.sqlite import transaction, writer
from sessiondb.transcript.entries import prepare
from tests.support.core import reply, texts, user
from tests.support.gateway import (
    KEY,
    Clock,
    append_another,
    claim,
    claimed,
    compact,
    complete,
    fail,
    held_message,
    inbox_states,
    interrupt,
    look,
    reset_context,
    said,
    say,
    switch_branch,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]
OTHER = "agent:main:web:2"


async def test_a_claim_appends_and_starts_the_turn_or_does_nothing(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")

        def broken(*args: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            original = claims.append_entries
            patch.setattr(
                claims,
                "append_entries",
                lambda tx, no, drafts: (original(tx, no, drafts), broken()),
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


async def test_messages_are_served_in_the_order_of_their_arrival_by_any_clock(
    tmp_db: Path, clock: Clock
) -> None:
    """A retry that is due again is the older message. No message waits for a clock."""
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("main", concurrency=9, priority=0)
        await say(db, "retried")
        await say(db, "before the clock was set back", "agent:main:web:2")
        await fail(db, (await claimed(db)).turn_no)
        clock.pass_ms(1_000)
        assert (await claimed(db)).inbox_no == 1, "it came first, and its pause is over"
        for set_back_ms in (1, 20_000, 60_000, 60_001, 86_400_000):
            clock.pass_ms(-set_back_ms)
            await say(db, f"after {set_back_ms}", f"agent:main:web:after:{set_back_ms}")
        assert [(await claimed(db)).inbox_no for _ in range(6)] == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("set_back_ms", [1, 1_000, 30_000, 60_000, 86_400_000])
async def test_nothing_that_was_queued_waits_for_a_clock_that_was_set_back(
    tmp_db: Path, clock: Clock, set_back_ms: int
) -> None:
    """Not an accepted message, not one that waited behind it, no resume, and no dead letter."""
    async with sessiondb.open(tmp_db) as db:
        dead = []
        for number in (1, 2):
            key = f"agent:main:web:{number}"
            await held_message(db, f"resumed {number}", key)
            dead.append((await say(db, f"dead {number}", f"{key}:dead")).inbox_no)
            await fail(db, (await claimed(db)).turn_no, retry=False)
        for number, inbox_no in zip((1, 2), dead, strict=True):
            key = f"agent:main:web:{number}"
            await db.requeue(inbox_no)
            await say(db, f"first {number}", f"{key}:new")
            await say(db, f"behind {number}", f"{key}:new")
            await say(db, f"cron {number}", f"agent:main:cron:{number}", lane="cron")
        await db.resume(sessiondb.ResumePolicy(max_concurrent_resumes=2))
        clock.pass_ms(-set_back_ms)
        ran: dict[str, list[str]] = {"main": [], "cron": [], "resume": []}
        for lane, names in ran.items():
            while (started := await claim(db, lane)) is not None:
                await complete(db, started.turn_no, "answered")
                names += [
                    r.event_id for r in await look(db, "inbox") if r.turn_no == started.turn_no
                ]
        assert ran == {
            "main": ["dead 1", "dead 2", "first 1", "behind 1", "first 2", "behind 2"],
            "cron": ["cron 1", "cron 2"],
            "resume": ["resumed 1", "resumed 2"],
        }


@pytest.mark.parametrize("set_back_ms", [500, 30_000, 59_000, 3_600_000])
async def test_a_retry_waits_a_minute_at_most_when_the_clock_is_set_back(
    tmp_db: Path, clock: Clock, set_back_ms: int
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2):
            await say(db, f"retried {number}", f"agent:main:web:{number}")
        for _ in range(2):
            await fail(db, (await claimed(db)).turn_no)
        clock.pass_ms(-set_back_ms)
        waited_ms = 0
        while len(await look(db, "turns")) < 4:
            if await claim(db) is None:
                clock.pass_ms(500)
                waited_ms += 500
        assert waited_ms == (1_000 + set_back_ms if set_back_ms <= 59_000 else 0)


async def test_a_lane_is_held_back_for_two_minutes_at_most_when_the_clock_is_set_back(
    tmp_db: Path, clock: Clock
) -> None:
    """A minute before somebody set the clock back, and another one after that."""
    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2):
            await say(db, f"cron {number}", f"agent:main:cron:{number}", lane="cron")
        await say(db, "always ready")
        clock.pass_ms(59_000)
        assert await claim(db, "cron") is None
        clock.pass_ms(-59_000)
        assert await claim(db, "cron") is None
        clock.pass_ms(60_000)
        assert (await claimed(db, "cron")).inbox_no == 1
    async with sessiondb.open(tmp_db.with_name("ahead.db")) as db:
        await say(db, "cron", lane="cron")
        await say(db, "always ready", "agent:main:web:2")
        clock.pass_ms(-60_001)
        assert (await claimed(db, "cron")).inbox_no == 1, "it has waited since before that"


async def test_what_waits_behind_a_retry_is_not_looked_at_before_it(
    tmp_db: Path, clock: Clock
) -> None:
    async def marked() -> list[str]:
        return [row.event_id for row in await look(db, "inbox") if row.waits]

    async with sessiondb.open(tmp_db) as db:
        for event in ("e1", "e2", "e3"):
            await say(db, event)
        other = await say(db, "other", "agent:main:web:2")
        await fail(db, (await claimed(db)).turn_no)
        assert await marked() == ["e2", "e3"]
        assert (await claimed(db)).inbox_no == other.inbox_no
        clock.pass_ms(1_000)
        again = await claimed(db)
        assert again.inbox_no == 1
        await fail(db, again.turn_no, retry=False)
        assert await marked() == ["e3"], "what is dead holds nothing up"
        assert (await claimed(db)).inbox_no == 2


async def test_a_lane_with_another_priority_changes_who_waits(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2):
            key = f"agent:main:web:{number}"
            await say(db, f"cron {number}", key, lane="cron")
            await say(db, f"main {number}", key)
        await db.set_lane("main", concurrency=4, priority=20)
        assert await claim(db) is None, "cron goes before it now"
        await db.set_lane("cron", concurrency=4, priority=30)
        assert [(await claimed(db)).inbox_no for _ in range(2)] == [2, 4]
        assert await claim(db, "cron") is None


async def test_a_message_that_was_edited_since_it_was_read_is_not_claimed_with_its_old_text(
    tmp_db: Path,
) -> None:
    """The claim's text was read before, outside of its transaction."""
    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2):
            await say(db, f"e{number}", f"agent:main:web:{number}", text="old")
        seen = await db.read("peek", lambda tx: claims.peek(tx, "main", writer._now_ms()))
        assert seen is not None
        draft = await prepare(seen.payload, now_ms=stamp_ms())
        edited = await db.edit(
            "agent:main:web:1", user("new"), channel="web", event_id="e1", version=1
        )
        assert edited.outcome == "replaced"
        assert (
            await db.write(
                "claim", lambda tx: claims.claim(tx, "main", seen, draft, lease_ms=1, timeout_ms=1)
            )
            is None
        )
        await claimed(db)
        session = await db.session("agent:main:web:1")
        assert texts(await session.context()) == ["new"]


async def test_a_claim_reads_no_text_under_the_write_lock(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be tens of megabytes. Each transaction says which statements it ran."""
    ran: list[str] = []
    start = transaction.Snapshot._start

    def noting(self: Any, statement: str, params: Any) -> Any:
        if isinstance(self, transaction.WriteTransaction):
            ran.append(statement)
        return start(self, statement, params)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        monkeypatch.setattr(transaction.Snapshot, "_start", noting)
        turn = await claimed(db)
        await complete(db, turn.turn_no, "x", replies=[("web:1", "y")])
    reads_a_text = re.compile(r"\bpayload\b.*\bFROM (inbox|outbox)\b", re.DOTALL)
    known = transaction.statements()
    assert "inbox.candidate" in ran
    reads = [name for name in ran if known[name].sql.lstrip().startswith("SELECT")]
    assert [name for name in reads if reads_a_text.search(known[name].sql)] == []


async def test_the_claim_looks_again_at_what_was_seen(tmp_db: Path) -> None:
    """Before the claim, another process may have taken the message or the lane's last place."""
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await say(db, "cron", "agent:main:cron:1", lane="cron")
        seen = await db.read("peek", lambda tx: claims.peek(tx, "main", writer._now_ms()))
        assert seen is not None
        await claimed(db)
        draft = await prepare(seen.payload, now_ms=stamp_ms())
        assert (
            await db.write(
                "claim", lambda tx: claims.claim(tx, "main", seen, draft, lease_ms=1, timeout_ms=1)
            )
            is None
        )
        seen_cron = await db.read("peek", lambda tx: claims.peek(tx, "cron", writer._now_ms()))
        assert seen_cron is not None
        await say(db, "e2", "agent:main:web:2")
        draft_cron = await prepare(seen_cron.payload, now_ms=stamp_ms())
        late = await db.write(
            "claim",
            lambda tx: claims.claim(tx, "cron", seen_cron, draft_cron, lease_ms=1, timeout_ms=1),
        )
        assert late is None, "a message of a lane that goes first has arrived since"
        assert len(await look(db, "turns")) == 1


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
                claim_id=None,
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
            await session.append_many([user("a"), sessiondb.Item(user("b"), key="inbox:007")])
        with pytest.raises(sessiondb.InvalidInput, match="reserved"):
            await db.accept(KEY, own, channel="web", event_id="e0")
        for free in ("inbox:", "inbox:1a", "my inbox:1"):
            await session.append(user(free), idempotency_key=free)
        await say(db, "e1")
        turn = await claimed(db)
        assert [row.idempotency_key for row in await look(db, "user_entries")][
            -1
        ] == f"inbox:{turn.inbox_no}"
        assert (await session.entries(last=1))[0].entry_id == turn.entry_id


# -- what a turn's handler finds in its context ------------------------------------------------


async def _retried(db: sessiondb.SessionDB, turn: claims.Started) -> str:
    await fail(db, turn.turn_no)
    await db.write("hurry", lambda tx: tx.run("look.hurry"))
    return "main"


async def _resumed(db: sessiondb.SessionDB, turn: claims.Started) -> str:
    await interrupt(db, turn.turn_no)
    await db.resume(sessiondb.ResumePolicy(skip_states=frozenset(), max_concurrent_resumes=9))
    return "resume"


async def _requeued(db: sessiondb.SessionDB, turn: claims.Started) -> str:
    await fail(db, turn.turn_no, retry=False)
    await db.requeue(turn.inbox_no)
    return "main"


@pytest.mark.parametrize("again", [_retried, _resumed, _requeued])
@pytest.mark.parametrize("move", [reset_context, switch_branch, append_another, compact])
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
                asked = await said(db, key)
                assert asked[-1] == f"question in {key}"
                assert asked.count(f"question in {key}") == (
                    2 if (move, key) == (append_another, KEY) else 1
                )
                await complete(db, turn.turn_no, "answer")
                assert (await said(db, key))[-1] == f"question in {key}"
        assert len(await look(db, "user_entries")) == 5 + (move is append_another), (
            "only the message whose context had moved is there again"
        )
        assert set((await inbox_states(db)).values()) == {"done"}
        assert (await db.verify()).ok


async def test_what_a_message_is_appended_under_again_is_reserved(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        with pytest.raises(sessiondb.InvalidInput, match="reserved"):
            await session.append(user("hello"), idempotency_key="inbox:1:2")
