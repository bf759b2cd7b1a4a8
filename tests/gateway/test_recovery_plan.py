"""The resume plan: every decision has its reason, and is carried out as planned."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sessiondb
from sessiondb import process
from sessiondb.backend import Tx
from sessiondb.gateway import claims, recovery, turns
from sessiondb.gateway.recovery import Decision, ResumePolicy
from sessiondb.limits import INTERRUPTED_ATTEMPTS_MAX, RESUME_BUDGET_S
from sessiondb.sqlite import writer
from tests.support.core import reply, user
from tests.support.engine import other_process
from tests.support.gateway import (
    KEY,
    Clock,
    claim,
    claimed,
    complete,
    eventually,
    fail,
    hand_over,
    held_message,
    inbox_states,
    interrupt,
    kinds,
    look,
    running,
    say,
)

HOUR_MS = 3_600_000


class Time:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.at_s = 1_000.0

    def monotonic(self) -> float:
        return self.at_s


# -- the plan, as a table -------------------------------------------------------------------


class HeldRow(NamedTuple):
    """What `plan` reads of an interrupted message."""

    inbox_no: int = 1
    session_no: int = 1
    session_id: str = "s"
    updated_at_ms: int = 100 * HOUR_MS
    ended_at_ms: int | None = None
    accepted_at_ms: int = 100 * HOUR_MS
    attempts: int = 9  # all of them. Those that count are the next
    strikes: int = 1
    reason: str = "its process died"
    state_before: str | None = None
    damaged: int = 0
    paused_lane: str | None = None
    holder_no: int | None = None
    restored: int = 0


class Count(NamedTuple):
    starts: int = 0
    resumes: int = 0


class Rows:
    """A snapshot that holds these rows only."""

    def __init__(self, held: list[HeldRow], *, unclean: int = 0, resumes: int = 0) -> None:
        self.held, self.count = held, Count(unclean, resumes)

    def all(self, statement: str, **params: Any) -> list[HeldRow]:
        assert statement == "inbox.interrupted"
        return self.held

    def one(self, statement: str, **params: Any) -> Count:
        return self.count


NOW_MS = 100 * HOUR_MS


TABLE: list[tuple[HeldRow, dict[str, Any], dict[str, Any], str, str]] = [
    # the message, the policy, the circumstances, the action, and part of the reason
    (HeldRow(), {}, {}, "resume", "interrupted 0.0 h ago: its process died"),
    (HeldRow(ended_at_ms=1), {}, {}, "skip", "its session has ended"),
    (HeldRow(strikes=3), {}, {}, "skip", "3 attempts, the most that are made"),
    (HeldRow(strikes=2), {"attempts_max": 2}, {}, "skip", "2 attempts"),
    (HeldRow(accepted_at_ms=NOW_MS - 24 * HOUR_MS), {}, {}, "resume", "24.0 h ago"),
    (
        HeldRow(accepted_at_ms=NOW_MS - 25 * HOUR_MS),
        {},
        {},
        "skip",
        "accepted 25.0 h ago, more than 24 h",
    ),
    (HeldRow(accepted_at_ms=0), {"max_age_hours": 0}, {}, "resume", "100.0 h ago"),
    (HeldRow(updated_at_ms=NOW_MS - 3 * HOUR_MS), {}, {}, "resume", ""),
    (
        HeldRow(updated_at_ms=NOW_MS - 3 * HOUR_MS),
        {"idle_hours": 2},
        {},
        "skip",
        "idle for 3.0 h, more than 2 h",
    ),
    (HeldRow(state_before="failed"), {}, {}, "skip", "turn before this one failed"),
    (HeldRow(state_before="failed"), {"skip_states": frozenset({"damaged"})}, {}, "resume", ""),
    (HeldRow(state_before="completed"), {}, {}, "resume", ""),
    (HeldRow(damaged=1), {}, {}, "skip", "imported with damaged lines"),
    (HeldRow(damaged=1), {"skip_states": frozenset()}, {}, "resume", ""),
    (HeldRow(), {}, {"unclean": 3}, "breaker", "3 unclean ends within 300 s"),
    (HeldRow(), {}, {"unclean": 2}, "resume", ""),
    (HeldRow(), {"breaker_unclean_starts": 1}, {"unclean": 1}, "breaker", "1 unclean"),
    (HeldRow(ended_at_ms=1), {}, {"unclean": 9}, "skip", "ended"),
    (
        HeldRow(),
        {"budget_per_start": 5},
        {"spent": 5},
        "later",
        "the budget of 5 a start, and an hour after it, is spent",
    ),
    (HeldRow(), {"budget_per_start": 0}, {}, "later", "budget of 0"),
    (HeldRow(), {}, {"resumes": 1}, "later", "1 at once are queued or running"),
    (HeldRow(), {"max_concurrent_resumes": 0}, {}, "later", "0 at once"),
    (HeldRow(), {"max_concurrent_resumes": 3}, {"resumes": 2}, "resume", ""),
]


@pytest.mark.parametrize(
    ("row", "policy", "world", "action", "reason"),
    TABLE,
    ids=[f"{action}: {reason}" for *_, action, reason in TABLE],
)
def test_every_decision_has_its_reason(
    row: HeldRow, policy: dict[str, Any], world: dict[str, Any], action: str, reason: str
) -> None:
    rows = Rows([row], unclean=world.get("unclean", 0), resumes=world.get("resumes", 0))
    read: Any = rows
    [decision] = recovery.plan(read, ResumePolicy(**policy), NOW_MS, spent=world.get("spent", 0))
    assert decision.action == action
    assert reason in decision.reason


def test_the_newest_go_first_and_use_up_room_and_budget() -> None:
    held = [HeldRow(inbox_no=number, session_id=str(number)) for number in (9, 7, 5, 3, 1)]
    held[1] = held[1]._replace(ended_at_ms=1)
    policy = ResumePolicy(max_concurrent_resumes=2)
    decisions = recovery.plan(Rows(held), policy, NOW_MS)  # type: ignore[arg-type]
    assert [decision.action for decision in decisions] == [
        "resume",
        "skip",
        "resume",
        "later",
        "later",
    ]
    policy = ResumePolicy(max_concurrent_resumes=9, budget_per_start=4)
    decisions = recovery.plan(Rows(held), policy, NOW_MS, spent=3)  # type: ignore[arg-type]
    assert [decision.action for decision in decisions] == [
        "resume",
        "skip",
        "later",
        "later",
        "later",
    ]


# -- the plan, carried out ------------------------------------------------------------------


def actions(decisions: list[Decision]) -> list[str]:
    return [decision.action for decision in decisions]


@pytest.mark.anyio
async def test_a_plan_changes_nothing_and_is_carried_out_as_it_is(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("main", concurrency=9, priority=0)
        for number in range(4):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")
        await (await db.session("agent:main:web:1")).end()
        planned = await db.plan_resumes()
        assert actions(planned) == ["resume", "later", "skip", "later"]
        assert set((await inbox_states(db)).values()) == {"interrupted"}
        assert await db.resume() == planned
        assert await inbox_states(db) == {
            "e0": "interrupted",
            "e1": "dead",
            "e2": "interrupted",
            "e3": "queued",
        }
        assert (await kinds(db))[-2:] == ["message_dead", "message_dead"]
        assert actions(await db.resume()) == ["later", "later"], (
            "one is queued, so there is no room"
        )
        turn = await claimed(db, "resume")
        assert (turn.kind, turn.attempt) == ("resume", 2)
        assert actions(await db.plan_resumes()) == ["later", "later"], "it runs: still no room"
        await complete(db, turn.turn_no, "went on")
        assert actions(await db.resume()) == ["resume", "later"]


@pytest.mark.anyio
async def test_a_plan_covers_every_interrupted_message_in_pages(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "PLAN_AT_ONCE", 2)
    policy = ResumePolicy(max_concurrent_resumes=3, budget_per_start=9)
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("main", concurrency=9, priority=0)
        for number in range(7):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")
        await (await db.session("agent:main:web:0")).end()
        planned = await db.plan_resumes(policy)
        assert actions(planned) == [
            "resume",
            "resume",
            "resume",
            "later",
            "later",
            "later",
            "skip",
        ], "room is shared by the pages"
        assert await db.resume(policy) == planned
        assert (await inbox_states(db))["e0"] == "dead", (
            "the oldest is decided, whatever waits before it"
        )


@pytest.mark.anyio
async def test_the_breaker_has_one_event_over_all_pages(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "PLAN_AT_ONCE", 1)
    async with sessiondb.open(tmp_db, program="gone") as db:
        for number in range(3):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")
        now_ms = writer._now_ms()
        for _ in range(3):
            await db.write(
                "crash",
                lambda tx: tx.first(
                    "look.dead_process",
                    host="h",
                    boot_id="b",
                    now_ms=now_ms,
                    closed_at_ms=now_ms,
                    unclean=1,
                ),
            )
        assert actions(await db.resume()) == ["breaker"] * 3
        assert actions(await db.resume()) == ["breaker"] * 3
        assert (await kinds(db)).count("crash_loop") == 1


@pytest.mark.anyio
async def test_the_loop_of_resumes_queues_the_next_when_there_is_room(tmp_db: Path) -> None:
    answered: list[str] = []

    async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
        answered.append(turn.message["content"])
        return sessiondb.Answer(entries=[reply("went on")])

    async with sessiondb.open(tmp_db) as db:
        for number in range(3):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")

        async def all_done() -> bool:
            return set((await inbox_states(db)).values()) == {"done"}

        async with running(
            partial(db.run_lane, "resume", handler), partial(db.run_recovery, every_s=0.01)
        ):
            await eventually(all_done)
        assert answered == ["e2", "e1", "e0"], "one at once, the newest first"


@pytest.mark.anyio
async def test_the_loop_of_resumes_writes_nothing_while_idle(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        policy = ResumePolicy(max_concurrent_resumes=0)
        await held_message(db, "e1")
        before = (await db.stats())["writer"]["requests"]
        looked = 0
        read = db.read

        async def counted(op: str, *args: Any) -> Any:
            nonlocal looked
            looked += op == "recovery.plan"
            return await read(op, *args)

        db.read = counted  # type: ignore[method-assign]

        async def three_times() -> bool:
            return looked >= 3

        async with running(partial(db.run_recovery, policy, every_s=0.001)):
            await eventually(three_times)
        assert (await db.stats())["writer"]["requests"] == before


@pytest.mark.anyio
async def test_a_start_resumes_no_more_than_its_budget(tmp_db: Path) -> None:
    policy = ResumePolicy(max_concurrent_resumes=9, budget_per_start=2)
    async with sessiondb.open(tmp_db) as db:
        for number in range(4):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")
        assert actions(await db.resume(policy)) == ["resume", "resume", "later", "later"]
        assert actions(await db.resume(policy)) == ["later", "later"]
    async with sessiondb.open(tmp_db) as db:
        assert actions(await db.resume(policy)) == ["resume", "resume"], (
            "the next start has its own"
        )


@pytest.mark.anyio
async def test_interruptions_four_minutes_apart_are_within_the_budget(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time()
    monkeypatch.setattr("sessiondb.clock.monotonic", clock.monotonic)
    async with sessiondb.open(tmp_db) as db:
        for number in range(ResumePolicy().budget_per_start + 1):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")
            assert actions(await db.plan_resumes()) == ["resume"], (
                f"interruption {number + 1} of one every four minutes"
            )
            assert actions(await db.resume()) == ["resume"]
            await complete(db, (await claimed(db, "resume")).turn_no, "went on")
            clock.at_s += 240


@pytest.mark.anyio
async def test_a_burst_is_bounded_by_the_budget_for_an_hour(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time()
    monkeypatch.setattr("sessiondb.clock.monotonic", clock.monotonic)
    policy = ResumePolicy(max_concurrent_resumes=9, budget_per_start=2)
    async with sessiondb.open(tmp_db) as db:
        for number in range(5):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")
        assert actions(await db.resume(policy)) == ["resume", "resume", "later", "later", "later"]
        clock.at_s += RESUME_BUDGET_S - 1
        [first, *_] = await db.resume(policy)
        assert first.reason == "the budget of 2 a start, and an hour after it, is spent"
        clock.at_s += 1
        assert actions(await db.resume(policy)) == ["resume", "resume", "later"]
        assert actions(await db.resume(policy)) == ["later"]


@pytest.mark.anyio
async def test_a_plan_skips_after_a_failed_turn_or_a_damaged_import(
    tmp_db: Path, tmp_path: Path
) -> None:
    lines = [
        {
            "type": "session",
            "version": 3,
            "id": "damaged",
            "timestamp": "2026-01-01T00:00:00.000Z",
            "cwd": "/",
        },
        {
            "type": "message",
            "id": "a",
            "parentId": None,
            "timestamp": "2026-01-01T00:00:00.000Z",
            "message": user("hello"),
        },
    ]
    folder = tmp_path / "transcripts"
    folder.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"type":"message","torn\n'
    (folder / "2026-01-01T00-00-00-000Z_damaged.jsonl").write_text(text)
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(folder)
        await db.bind("agent:main:web:7", await db.session_by_id("damaged"))
        await held_message(db, "in a damaged one", "agent:main:web:7")
        await say(db, "failed")
        await fail(db, (await claimed(db)).turn_no, retry=False)
        await held_message(db, "after a failure")
        assert [(decision.action, decision.reason) for decision in await db.plan_resumes()] == [
            ("skip", "its session's turn before this one failed"),
            ("skip", "its session was imported with damaged lines"),
        ]
        keep_all = ResumePolicy(skip_states=frozenset(), max_concurrent_resumes=9)
        assert actions(await db.plan_resumes(keep_all)) == ["resume", "resume"]


@pytest.mark.anyio
async def test_a_newer_message_takes_the_place_of_a_queued_resume(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await held_message(db, "old")
        await db.resume()
        await say(db, "new")
        assert await claim(db, "resume") is None, "the person who waits goes first"
        turn = await claimed(db)
        assert await inbox_states(db) == {"old": "queued", "new": "claimed"}
        await complete(db, turn.turn_no, "to both")
        assert await inbox_states(db) == {"old": "done", "new": "done"}
        assert "a newer message" in (await look(db, "inbox"))[0].reason
        assert await claim(db, "resume") is None
        context = await (await db.session(KEY)).context()
    assert [message["content"] for message in context.messages if message["role"] == "user"] == [
        "old",
        "new",
    ]


@pytest.mark.anyio
async def test_a_resume_waits_until_no_user_waits_anywhere(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await held_message(db, "old")
        await db.resume()
        await say(db, "somebody else", "agent:main:web:2")
        assert await claim(db, "resume") is None
        await claimed(db)
        assert (await claimed(db, "resume")).kind == "resume"


@pytest.mark.anyio
async def test_a_resume_continues_its_transcript_in_its_lanes_time(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        await held_message(db, "e1")
        await db.resume(ResumePolicy(deadline_s=60, max_age_hours=0))
        turn = await claimed(db, "resume", timeout_ms=600_000)
        assert (turn.timeout_ms, turn.deadline_ms - clock()) == (600_000, 602_000)
        assert turn.progress_ms == 60_000
        await complete(db, turn.turn_no, "went on")
        assert len(await look(db, "user_entries")) == 1
        await held_message(db, "e2")
        await db.resume(ResumePolicy(deadline_s=60, max_age_hours=0))
        turn = await claimed(db, "resume", timeout_ms=5_000)
        assert (turn.timeout_ms, turn.progress_ms) == (5_000, 60_000)
        await db.write(
            "fail",
            lambda tx: turns.fail(tx, turn.turn_no, "cut off", retry=True, cut_off=True),
        )
        clock.pass_ms(60_000)
        turn = await claimed(db, "resume")
        assert (turn.kind, turn.progress_ms) == ("resume", 120_000)
        await fail(db, turn.turn_no)
        clock.pass_ms(60_000)
        assert (await claimed(db, "resume")).progress_ms == 120_000, "it was not cut off"


@pytest.mark.anyio
async def test_attempts_end_the_resuming_too(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await held_message(db, "e1")
        for state in ("interrupted", "dead"):
            await db.resume(ResumePolicy(skip_states=frozenset()))
            await interrupt(db, (await claimed(db, "resume")).turn_no)
            assert await inbox_states(db) == {"e1": state}


async def unclean(db: sessiondb.SessionDB, count: int, *, ago_ms: int) -> None:
    """Add processes that were opened `ago_ms` ago and died. Their program is "gone"."""

    def body(tx: Tx) -> None:
        for _ in range(count):
            tx.run(
                "look.dead_process",
                host="h",
                boot_id="b",
                now_ms=tx.now_ms - ago_ms,
                closed_at_ms=tx.now_ms,
                unclean=1,
            )

    await db.write("unclean", body)


@pytest.mark.anyio
async def test_repeated_unclean_ends_trip_the_breaker_with_one_event(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db, program="gone") as db:
        await held_message(db, "e1")
        await unclean(db, 5, ago_ms=301_000)
        assert actions(await db.plan_resumes()) == ["resume"], "long ago"
        await unclean(db, 3, ago_ms=10_000)
        for _ in range(3):
            assert actions(await db.resume()) == ["breaker"]
        assert (await kinds(db)).count("crash_loop") == 1
        assert await inbox_states(db) == {"e1": "interrupted"}, "it can be resumed later"
        assert actions(await db.resume(ResumePolicy(breaker_unclean_starts=100))) == ["resume"]


@pytest.mark.anyio
async def test_only_unclean_ends_of_the_same_program_count(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, program="a gateway") as db:
        await held_message(db, "e1")
        await unclean(db, 3, ago_ms=10_000)
        assert actions(await db.plan_resumes()) == ["resume"], (
            "another program dies again and again"
        )
    async with sessiondb.open(tmp_db, readonly=True) as db:
        assert actions(await db.plan_resumes()) == ["breaker"], (
            "a reader foresees what the program that dies most would decide"
        )
    async with sessiondb.open(tmp_db, program=process.COMMAND_LINE) as db:
        assert actions(await db.plan_resumes()) == ["breaker"], (
            "the command line asks on behalf of a gateway"
        )
        await db.write(
            "rename", lambda tx: tx.run("look.rename_processes", program=process.COMMAND_LINE)
        )
        assert actions(await db.plan_resumes()) == ["resume"], (
            "commands that were killed are no crash loop"
        )
    async with sessiondb.open(tmp_db, readonly=True) as db:
        assert actions(await db.plan_resumes()) == ["resume"]


@pytest.mark.anyio
async def test_a_plan_counts_the_turns_of_dead_processes(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "PLAN_AT_ONCE", 2)
    policy = ResumePolicy(max_concurrent_resumes=2, attempts_max=9)
    async with sessiondb.open(tmp_db, program="gone") as db:
        await db.set_lane("main", concurrency=9, priority=0)
        await held_message(db, "held", "agent:main:web:0")
        await held_message(db, "resumed", "agent:main:web:1")
        await db.resume()
        await claimed(db, "resume")
        for number in range(2, 5):
            await say(db, f"e{number}", f"agent:main:web:{number}")
            await claimed(db)
        for _ in range(INTERRUPTED_ATTEMPTS_MAX):
            await say(db, "last", "agent:main:web:5")
            await fail_or_keep(db, await claimed(db))
        await hand_over(db)
        async with sessiondb.open(tmp_db, readonly=True) as reader:
            planned = await reader.plan_resumes(policy)
            assert [(decision.inbox_no, decision.action) for decision in planned] == [
                (6, "skip"),
                (5, "resume"),
                (4, "resume"),
                (3, "later"),
                (2, "later"),
                (1, "later"),
            ], "newest first over both kinds and all pages; a dead process's resume takes no room"
            assert planned[0].reason == "3 attempts, the most that are made", (
                "recovery gives it up, whatever the policy"
            )
            assert "its process (gone, pid 1) died" in planned[1].reason
        assert set((await inbox_states(db)).values()) == {"interrupted", "claimed"}, (
            "a plan changes nothing"
        )
        await db.recover()
        assert (await inbox_states(db))["last"] == "dead"
        carried_out = await db.resume(policy)
        assert [(decision.inbox_no, decision.action) for decision in carried_out] == [
            (decision.inbox_no, decision.action) for decision in planned[1:]
        ]


async def fail_or_keep(db: sessiondb.SessionDB, turn: claims.Started) -> None:
    """Let an attempt fail, but not the last one."""
    if turn.attempt < INTERRUPTED_ATTEMPTS_MAX:
        await fail(db, turn.turn_no)
        await db.write("now", lambda tx: tx.run("look.hurry"))


@pytest.mark.anyio
async def test_a_plan_foresees_the_breaker_before_recovery(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, program="gone") as db:
        await held_message(db, "e1")
        for seconds in (400, 200, 100):
            await hand_over(db, now_ms=writer._now_ms() - seconds * 1000)
        assert actions(await db.plan_resumes()) == ["resume"], "one was opened before the window"
        await hand_over(db, now_ms=writer._now_ms() - 1_000)
        async with sessiondb.open(tmp_db, readonly=True) as reader:
            [decision] = await reader.plan_resumes()
            assert (decision.action, decision.reason[:12]) == ("breaker", "3 unclean en")
        await db.recover()
        assert actions(await db.plan_resumes()) == ["breaker"]


@pytest.mark.anyio
async def test_a_crash_loop_of_real_processes_trips_the_breaker(tmp_db: Path) -> None:
    child_code = """
import os, signal, sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        await db.recover()
        print([decision.action for decision in await db.resume()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main)
"""
    async with sessiondb.open(tmp_db) as db:
        for number in range(3):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")
    message = []
    for _ in range(4):
        with other_process(child_code, tmp_db) as child:
            message.append(child.communicate(timeout=60)[0].strip())
    assert message == [
        "['resume', 'later', 'later']",
        "['later', 'later']",
        "['later', 'later']",
        "['breaker', 'breaker']",
    ]
    async with sessiondb.open(tmp_db) as db:
        assert (await db.recover()).instances == 1, "each found the one before it"
        assert await kinds(db) == ["turn_interrupted"] * 6 + ["recovery_done"] * 3 + [
            "crash_loop",
            "recovery_done",
        ]


@pytest.mark.anyio
async def test_room_made_between_two_pages_changes_no_order(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "PLAN_AT_ONCE", 2)
    async with sessiondb.open(tmp_db) as db:
        for number in range(5):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")
        await db.resume()
        running = await claimed(db, "resume")
        pages = 0
        plan = recovery.plan

        def spy(tx: Any, *args: Any, **options: Any) -> list[sessiondb.Decision]:
            nonlocal pages
            pages += 1
            if pages == 2:  # the running one ends between the first page and the second
                turns.abort(tx, running.turn_no, "stopped")
            return plan(tx, *args, **options)

        monkeypatch.setattr(recovery, "plan", spy)
        assert [decision.action for decision in await db.resume()] == ["later"] * 4
        monkeypatch.undo()
        assert [decision.action for decision in await db.resume()] == [
            "resume",
            "later",
            "later",
            "later",
        ], "the newest of them"
