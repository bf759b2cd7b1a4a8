"""The loop that runs a lane: it claims in order, goes on after any error, and shares its lane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessiondb
from sessiondb.errors import OutcomeUnknown, StoreBusy
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from tests.support.core import reply
from tests.support.engine import PATIENCE_S, other_process
from tests.support.gateway import (
    KEY,
    answer,
    eventually,
    held_message,
    inbox_states,
    kinds,
    look,
    nothing_open,
    running,
    say,
    was_notified,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]


async def test_messages_are_answered_in_order(tmp_db: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def handler(turn: Turn) -> Answer:
        seen.append((turn.session.id, turn.message["content"]))
        await turn.append(reply("thinking"))
        await anyio.lowlevel.checkpoint()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        async with running(partial(db.run_lane, "main", handler)):
            for number in range(12):
                await say(db, f"e{number}", f"agent:main:web:{number % 3}")
            await eventually(partial(nothing_open, db))
        for number in range(3):
            session = await db.session(f"agent:main:web:{number}")
            context = await session.context()
            wanted = [[f"e{n}", "thinking", f"re e{n}"] for n in range(number, 12, 3)]
            message = [
                found["content"] if found["role"] == "user" else found["content"][0]["text"]
                for found in context.messages
            ]
            assert message == [text for one in wanted for text in one]
            assert [text for where, text in seen if where == session.id] == [
                one[0] for one in wanted
            ]
        assert len(await look(db, "outbox")) == 12
        assert (await db.verify()).ok


async def test_a_number_too_long_for_the_interpreter_stops_no_lane(tmp_db: Path) -> None:
    """`accept` takes it, because it is JSON. So the claim must, too."""
    numbers: list[float] = []

    async def handler(turn: Turn) -> Answer:
        numbers.append(turn.message["number"])
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        for event_id, zeros in (("long", 5_000), ("short", 300)):
            text = f'{{"role":"user","content":"x","number":1{"0" * zeros}}}'
            await db.accept(KEY, text, channel="web", event_id=event_id)
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"long": "done", "short": "done"}
    assert numbers == [float("inf"), 10**300]


async def test_a_cancelled_lane_interrupts_its_turns_at_once(tmp_db: Path) -> None:
    begun = anyio.Event()

    async def handler(turn: Turn) -> Answer:
        begun.set()
        await anyio.sleep_forever()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler)):
            with anyio.fail_after(30):
                await begun.wait()
        assert await inbox_states(db) == {"e1": "interrupted"}
        [turn] = await look(db, "turns")
        assert (turn.state, turn.reason) == ("interrupted", "its gateway is stopping")
        assert await db.held() == []


async def test_a_busy_database_stops_no_lane_and_loses_no_end(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {"lane.claim": 2, "turn.end": 3, "outbox.begin": 2, "outbox.settle": 2}
    sent: list[str] = []

    async def handler(turn: Turn) -> Answer:
        return answer(turn)

    async def sender(out: sessiondb.Reply) -> None:
        sent.append(out.payload)

    async with sessiondb.open(tmp_db) as db:
        real_write = db.write

        async def write(op: str, *args: Any, **options: Any) -> Any:
            if failures.get(op, 0) > 0:
                failures[op] -= 1
                raise (
                    StoreBusy("full", retry_after_ms=1)
                    if failures[op]
                    else OutcomeUnknown("who knows")
                )
            return await real_write(op, *args, **options)

        monkeypatch.setattr(db, "write", write)
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler), partial(db.run_outbox, sender)):
            await eventually(partial(nothing_open, db))
            await eventually(partial(_sent, db))
        assert failures == dict.fromkeys(failures, 0)
        assert len(sent) == 1
        assert [row.state for row in await look(db, "turns")] == ["completed"]


async def _sent(db: sessiondb.SessionDB) -> bool:
    return [row.state for row in await look(db, "outbox")] == ["sent"]


async def test_a_row_that_is_no_message_is_dead_and_the_lane_goes_on(tmp_db: Path) -> None:
    """`accept` refuses such a message, but another program may have written the row."""

    async def handler(turn: Turn) -> Answer:
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "bad")
        await say(db, "good")
        with pytest.MonkeyPatch.context() as patch:
            from sessiondb.sqlite import transaction
            from sessiondb.sqlite.transaction import Prepared

            spoil = "UPDATE inbox SET payload = '{broken' WHERE event_id = 'bad'"
            patch.setitem(transaction.statements(), "test.spoil", Prepared("test.spoil", spoil))
            await db.write("spoil", lambda tx: tx.run("test.spoil"))
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"bad": "dead", "good": "done"}


async def test_a_lane_that_does_not_exist_is_an_error(tmp_db: Path) -> None:
    async def handler(turn: Turn) -> Answer:
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(sessiondb.NotFound, match="no lane 'fast'"):
            await db.run_lane("fast", handler)


async def test_a_message_that_waits_long_gets_a_notice_of_the_loop(tmp_db: Path) -> None:
    release = anyio.Event()

    async def handler(turn: Turn) -> Answer:
        await release.wait()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await say(db, "e2")
        async with running(
            partial(db.run_lane, "main", handler, settings=LaneSettings(delayed_after_s=0.05))
        ):
            await eventually(partial(was_notified, db, 2))
            release.set()
            await eventually(partial(nothing_open, db))
        assert set(await kinds(db)) == {"message_delayed"}


async def test_a_resume_that_hangs_is_cut_off_and_tried_again_within_its_attempts(
    tmp_db: Path,
) -> None:
    kinds_seen: list[str] = []

    async def handler(turn: Turn) -> Answer:
        kinds_seen.append(turn.kind)
        await anyio.sleep_forever()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        begun = anyio.Event()

        async def first(turn: Turn) -> Answer:
            begun.set()
            return await handler(turn)

        async with running(partial(db.run_lane, "main", first)):
            with anyio.fail_after(30):
                await begun.wait()
        [decision] = await db.resume(sessiondb.ResumePolicy(deadline_s=0.1))
        assert decision.action == "resume"
        async with running(partial(db.run_lane, "resume", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"e1": "dead"}
        assert kinds_seen == ["message", *["resume"] * 3], "the stop of the first did not count"
        assert [(row.kind, row.state, row.reason) for row in (await look(db, "turns"))[1:]] == [
            ("resume", "failed", "cut off after 0.1 s without progress"),
            ("resume", "failed", "cut off after 0.2 s without progress"),
            ("resume", "failed", "cut off after 0.4 s without progress"),
        ]


async def test_a_resume_that_was_cut_off_is_answered_when_it_is_quick_enough(
    tmp_db: Path,
) -> None:
    begun = anyio.Event()

    async def handler(turn: Turn) -> Answer:
        begun.set()
        if turn.attempt <= (2 if turn.message["content"] == "long" else 1):
            await anyio.sleep_forever()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        for event_id, key in (("long", "agent:main:web:1"), ("short", "agent:main:web:2")):
            begun = anyio.Event()
            await say(db, event_id, key)
            async with running(partial(db.run_lane, "main", handler)):
                with anyio.fail_after(30):
                    await begun.wait()
        policy = sessiondb.ResumePolicy(deadline_s=0.1, max_concurrent_resumes=2)
        assert [decision.action for decision in await db.resume(policy)] == ["resume", "resume"]
        async with running(partial(db.run_lane, "resume", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"long": "done", "short": "done"}


async def test_progress_moves_the_deadline_of_a_resume_up_to_its_lanes_time(tmp_db: Path) -> None:
    moved: list[tuple[str, float, float]] = []

    async def handler(turn: Turn) -> Answer:
        begun = turn._deadline
        assert begun is not None
        what: dict[str, Callable[[], Awaitable[Any]]] = {
            "lease": turn._renew_lease,
            "renew": turn.renew,
            "append": lambda: turn.append(reply("thinking")),
            "reset": turn.reset,
        }
        for name, step in what.items():
            before = begun.at
            await anyio.sleep(0.01)
            await step()
            moved.append((f"{turn.kind} {name}", begun.at - before, turn._time_up))
        turn._time_up = begun.at
        await turn.renew()
        moved.append((f"{turn.kind} bound", begun.at - turn._time_up, turn._time_up))
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await held_message(db, "e1")
        await db.resume(sessiondb.ResumePolicy(deadline_s=300))
        async with running(partial(db.run_lane, "resume", handler)):
            await eventually(partial(nothing_open, db))
        await say(db, "e2")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
    later = [name for name, by_s, _ in moved if by_s > 0]
    assert later == ["resume renew", "resume append", "resume reset"]


# -- two processes --------------------------------------------------------------------------


CHILD = """
import sys, anyio, sessiondb
from sessiondb import Answer
async def handler(turn):
    running = await turn._db.read("count", lambda tx: tx.one("turns.lane", lane="main").running)
    print(f"{running} {turn.message['content']}", flush=True)
    await anyio.sleep(0.01)
    return Answer(replies=[("web:1", turn.message["content"])])
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        print("open", flush=True)
        sys.stdin.readline()
        async with anyio.create_task_group() as group:
            group.start_soon(db.run_lane, "main", handler)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            group.cancel_scope.cancel()
anyio.run(main, backend=sys.argv[2])
"""


async def test_two_processes_share_a_lane_without_a_double_claim(
    tmp_db: Path, anyio_backend: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("main", concurrency=3, priority=0)
        for number in range(60):
            await say(db, f"e{number}", f"agent:main:web:{number % 10}")
        with (
            other_process(CHILD, tmp_db, anyio_backend) as one,
            other_process(CHILD, tmp_db, anyio_backend) as other,
        ):
            for child in (one, other):
                assert child.stdout is not None
                assert child.stdout.readline() == "open\n"
            for child in (one, other):
                assert child.stdin is not None
                child.stdin.write("go\n")
                child.stdin.flush()
            total = 60
            with anyio.fail_after(PATIENCE_S):
                while len({turn.instance_no for turn in await look(db, "turns")}) < 2:
                    await say(
                        db, f"e{total}", f"agent:main:web:{total % 10}"
                    )  # until both have had a share
                    total += 1
            await eventually(partial(nothing_open, db))
            outs = [child.communicate("stop\n", timeout=60)[0] for child in (one, other)]
        lines = [line.split() for out in outs for line in out.splitlines()]
        assert max(int(count) for count, _ in lines) <= 3, "the limit holds in sum"
        assert sorted(event for _, event in lines) == sorted(
            f"e{number}" for number in range(total)
        ), "each was handled once"
        by_session: dict[int, list[int]] = {}
        for row in await look(db, "turns"):
            by_session.setdefault(row.session_no, []).append(row.inbox_no)
        assert all(numbers == sorted(numbers) for numbers in by_session.values()), (
            "first come, first served"
        )
        assert len(await look(db, "outbox")) == total
        assert (await db.verify()).ok
