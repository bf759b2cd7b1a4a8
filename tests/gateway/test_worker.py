"""The loop that runs a lane: whatever a handler does, what became of its turn is recorded, and the lane goes on."""

from __future__ import annotations

import json
import logging
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessiondb
from sessiondb import limits
from sessiondb.errors import OutcomeUnknown, StoreBusy
from sessiondb.gateway import inbox, outbox, retry, running_turn, turns, worker
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.transcript import entries
from tests.support.core import reply
from tests.support.engine import PATIENCE_S, other_process
from tests.support.gateway import (
    KEY,
    eventually,
    held_message,
    inbox_states,
    kinds,
    look,
    running,
    say,
)

pytestmark = pytest.mark.anyio

QUICK = LaneSettings(lease_s=0.3, timeout_s=0.2)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Failures are on purpose here: they fill no log, and are tried again at once."""
    caplog.set_level(logging.CRITICAL, "sessiondb")
    monkeypatch.setattr(limits, "RETRY_PAUSE_MS", 1)
    monkeypatch.setattr(retry, "BUSY_PAUSE_S", 0.01)


async def nothing_open(db: sessiondb.SessionDB) -> bool:
    return set((await inbox_states(db)).values()) <= {"done", "dead"}


def answer(turn: Turn) -> Answer:
    message = f"re {turn.message['content']}"
    return Answer(entries=[reply(message)], replies=[("web:1", {"text": message})])


async def test_messages_are_answered_in_order_and_the_answer_is_in_the_transcript_and_in_the_outbox(
    tmp_db: Path,
) -> None:
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


async def test_a_handler_is_told_which_message_it_works_on(tmp_db: Path) -> None:
    report: list[tuple[int, str, int]] = []

    async def handler(turn: Turn) -> Answer:
        report.append((turn.inbox_no, turn.kind, turn.attempt))
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        accepted = [await say(db, "e1"), await say(db, "e2")]
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        numbers = [row.inbox_no for row in await look(db, "inbox")]
        assert len(accepted) == len(numbers) == 2
        assert report == [(number, "message", 1) for number in numbers]


async def test_a_number_too_long_for_the_interpreter_stops_no_lane(tmp_db: Path) -> None:
    """`accept` takes it, because it is JSON; so the claim must, too."""
    numbers: list[float] = []

    async def handler(turn: Turn) -> Answer:
        numbers.append(turn.message["number"])
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        for event_id, zeros in (("long", 5_000), ("short", 300)):
            text = f'{{"role":"user","content":"x","number":1{"0" * zeros}}}'
            await db.accept("web", event_id, KEY, text)
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"long": "done", "short": "done"}
    assert numbers == [float("inf"), 10**300]


async def test_a_handler_that_raises_is_tried_again_and_then_the_message_is_dead(
    tmp_db: Path,
) -> None:
    attempts: list[int] = []

    async def handler(turn: Turn) -> Answer:
        attempts.append(turn.attempt)
        raise ValueError("the model is down")

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert attempts == [1, 2, 3, 4, 5]
        assert [(row.state, row.reason) for row in await look(db, "turns")] == [
            ("failed", "ValueError: the model is down")
        ] * 5
        assert await kinds(db) == ["message_dead", "message_dead"]
        await say(db, "e2")
        async with running(
            partial(db.run_lane, "main", handler, settings=LaneSettings(attempts_max=2))
        ):
            await eventually(partial(nothing_open, db))
        assert attempts[5:] == [1, 2]


async def test_a_handler_that_hangs_is_cut_off_at_its_deadline(tmp_db: Path) -> None:
    async def handler(turn: Turn) -> Answer:
        if turn.attempt == 1:
            await anyio.sleep_forever()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler, settings=QUICK)):
            await eventually(partial(nothing_open, db))
        assert [(row.state, row.reason) for row in await look(db, "turns")] == [
            ("failed", "cut off at its deadline of 0.2 s"),
            ("completed", None),
        ]


async def test_a_handler_that_always_hangs_is_not_tried_for_long(tmp_db: Path) -> None:
    attempts: list[int] = []

    async def handler(turn: Turn) -> None:
        attempts.append(turn.attempt)
        await anyio.sleep_forever()

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(
            partial(db.run_lane, "main", handler, settings=LaneSettings(timeout_s=0.02))
        ):
            await eventually(partial(nothing_open, db))
        assert attempts == [1, 2, 3]


async def test_a_handler_that_returns_nothing_leaves_an_incomplete_turn_that_the_person_is_told_of(
    tmp_db: Path,
) -> None:
    async def handler(turn: Turn) -> None:
        await anyio.lowlevel.checkpoint()

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        [turn] = await look(db, "turns")
        assert (turn.state, turn.incomplete, turn.reason) == (
            "completed",
            1,
            "the handler returned nothing",
        )
        assert await kinds(db, "user") == ["turn_incomplete"]


@pytest.mark.parametrize(
    "bad",
    [
        Answer(entries=[{"no": "role"}]),
        Answer(entries=["{not json"]),
        Answer(replies=[("web:1", float("nan"))]),
        Answer(replies=[("web:1", object())]),
        Answer(replies=[("\ud800", "x")]),
    ],
)
async def test_an_answer_that_cannot_be_stored_fails_the_turn_once_and_the_lane_goes_on(
    tmp_db: Path, bad: Answer
) -> None:
    async def handler(turn: Turn) -> Answer:
        return bad if turn.message["content"] == "bad" else answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "bad")
        await say(db, "good")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"bad": "dead", "good": "done"}
        assert "its answer cannot be stored" in (await look(db, "turns"))[0].reason
        assert len(await look(db, "outbox")) == 1


async def test_a_session_that_ends_meanwhile_fails_the_turn_and_the_lane_goes_on(
    tmp_db: Path,
) -> None:
    async def handler(turn: Turn) -> Answer:
        if turn.message["content"] == "bad":
            await turn.session.end()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "bad")
        await say(db, "good", "agent:main:web:2")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"bad": "dead", "good": "done"}


async def test_a_lane_that_is_stopped_interrupts_its_turns_at_once(tmp_db: Path) -> None:
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


async def test_a_handler_or_a_sender_that_raises_while_it_is_stopped_leaves_nothing_running(
    tmp_db: Path,
) -> None:
    begun = anyio.Event()

    async def untidy() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("on the way out")

    async def handler(turn: Turn) -> Answer:
        if turn.message["content"] == "e2":
            await untidy()
        return answer(turn)

    async def sender(out: sessiondb.gateway.outbox.Outgoing) -> None:
        await untidy()

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        for text, loop in (
            ("e2", partial(db.run_lane, "main", handler)),
            ("", partial(db.run_outbox, sender)),
        ):
            if text:
                await say(db, text)
            begun = anyio.Event()
            async with running(loop):
                with anyio.fail_after(30):
                    await begun.wait()
            assert await db.held() == []
        assert (await look(db, "turns"))[1].state in ("interrupted", "failed")
        assert [row.state for row in await look(db, "outbox")] == ["unknown"]


async def test_an_aborted_turns_handler_is_cancelled_at_once(tmp_db: Path) -> None:
    begun, cancelled = anyio.Event(), anyio.Event()

    async def handler(turn: Turn) -> Answer:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler)):
            with anyio.fail_after(30):
                await begun.wait()
                await db.abort_turn(1, "asked to stop")
                await cancelled.wait()
            await say(db, "e2")
            await eventually(partial(_running_turn, db, 2))
            assert [row.state for row in await look(db, "turns")] == ["aborted", "running"]
            assert await inbox_states(db) == {"e1": "done", "e2": "claimed"}


async def test_a_handler_begins_a_new_conversation_in_the_name_of_its_turn(tmp_db: Path) -> None:
    async def handler(turn: Turn) -> Answer:
        with pytest.raises(sessiondb.InvalidInput, match="is not a reason"):
            await turn.reset("because")
        assert await turn.reset("new") == 1
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append({"role": "user", "content": "long ago"})
        await say(db, "/new")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"/new": "done"}
        assert [message["role"] for message in (await session.context()).messages] == ["assistant"]


async def _running_turn(db: sessiondb.SessionDB, turn_no: int) -> bool:
    return turn_no in db._running_turns


async def test_a_handler_whose_turn_was_taken_over_is_cancelled_and_writes_nothing(
    tmp_db: Path,
) -> None:
    begun, cancelled = anyio.Event(), anyio.Event()

    async def handler(turn: Turn) -> Answer:
        if turn.attempt > 1:
            return answer(turn)
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        return Answer(entries=[reply("too late")])

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(
            partial(db.run_lane, "main", handler, settings=LaneSettings(lease_s=0.1))
        ):
            with anyio.fail_after(30):
                await begun.wait()
                await db.write(
                    "take", lambda tx: turns.interrupt(tx, 1, "somebody thought it was dead")
                )
                await cancelled.wait()
            assert await inbox_states(db) == {"e1": "interrupted"}
        assert [row.state for row in await look(db, "turns")] == ["interrupted"]
        assert (await (await db.session(KEY)).info()).entries == 1


async def test_a_handler_that_holds_up_the_loop_past_its_lease_loses_the_turn(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody renews, so the lane itself takes it over when it runs out; what the handler returns then is refused."""
    release = anyio.Event()

    async def no_renewal(turn: Turn) -> None:
        await anyio.sleep_forever()

    async def handler(turn: Turn) -> Answer:
        await release.wait()
        return answer(turn)

    monkeypatch.setattr(running_turn, "_keep_lease", no_renewal)
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(
            partial(db.run_lane, "main", handler, settings=LaneSettings(lease_s=0.1))
        ):
            await eventually(partial(_is, db, {"e1": "interrupted"}))
            release.set()
            await eventually(partial(_no_turns, db))
        [turn] = await look(db, "turns")
        assert (turn.state, turn.reason) == ("interrupted", "its lease ran out")
        assert await look(db, "outbox") == []
        assert await inbox_states(db) == {"e1": "interrupted"}


async def _is(db: sessiondb.SessionDB, wanted: dict[str, str]) -> bool:
    return await inbox_states(db) == wanted


async def _no_turns(db: sessiondb.SessionDB) -> bool:
    return not db._running_turns


async def test_a_lease_is_renewed_while_the_work_goes_on(tmp_db: Path) -> None:
    renewals: list[int] = []

    async def handler(turn: Turn) -> Answer:
        while len(renewals) < 4:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        original = turns.renew

        def counted(*args: Any, **options: Any) -> int:
            renewals.append(original(*args, **options))
            return renewals[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(turns, "renew", counted)
            await say(db, "e1")
            async with running(
                partial(db.run_lane, "main", handler, settings=LaneSettings(lease_s=0.2))
            ):
                await eventually(partial(nothing_open, db))
    assert renewals == sorted(set(renewals))


async def test_a_busy_database_stops_no_lane_and_loses_no_end(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {"lane.claim": 2, "turn.end": 3, "outbox.begin": 2, "outbox.settle": 2}
    sent: list[str] = []

    async def handler(turn: Turn) -> Answer:
        return answer(turn)

    async def sender(out: sessiondb.gateway.outbox.Outgoing) -> None:
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


async def test_a_message_that_is_none_is_dead_and_the_lane_goes_on(tmp_db: Path) -> None:
    """`accept` refuses such a thing; but some other program may have written the row."""

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


async def test_a_lane_that_is_not_there_is_said_so(tmp_db: Path) -> None:
    async def handler(turn: Turn) -> Answer:
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(sessiondb.NotFound, match="no lane 'fast'"):
            await db.run_lane("fast", handler)


async def test_a_message_that_has_waited_long_gets_its_notice_from_the_loop(tmp_db: Path) -> None:
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
            await eventually(partial(_was_told, db, 2))
            release.set()
            await eventually(partial(nothing_open, db))
        assert set(await kinds(db)) == {"message_delayed"}


async def _was_told(db: sessiondb.SessionDB, inbox_no: int) -> bool:
    return any(json.loads(event.data)["inbox_no"] == inbox_no for event in await look(db, "events"))


async def test_a_resume_gets_the_policys_deadline_and_is_not_tried_again_when_it_hangs(
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
        resumed = (await look(db, "turns"))[1]
        assert kinds_seen == ["message", "resume"]
        assert (resumed.kind, resumed.state, resumed.reason) == (
            "resume",
            "failed",
            "cut off at its deadline of 0.1 s",
        )


async def test_a_turn_is_this_processs_and_its_lease_is_renewed_until_its_end_is_written(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals: list[str] = []
    at_the_end: list[int] = []
    protected: list[str] = []

    async def keep(turn: Turn) -> None:
        while True:
            renewals.append(str(turn))
            await anyio.sleep(0.001)

    async def handler(turn: Turn) -> Answer:
        turn._alive_until = 0.0  # no renewal has got through for long
        return answer(turn)

    monkeypatch.setattr(running_turn, "_keep_lease", keep)
    async with sessiondb.open(tmp_db) as db:
        real_write = db.write

        async def write(op: str, *args: Any, **options: Any) -> Any:
            if op == "turn.end":
                protected.append(worker._owned(db._running_turns))
                at_the_end.append(len(renewals))
                if len(renewals) < at_the_end[0] + 3:
                    raise StoreBusy("full", retry_after_ms=1)
            return await real_write(op, *args, **options)

        monkeypatch.setattr(db, "write", write)
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert [row.state for row in await look(db, "turns")] == ["completed"]
        assert set(protected) == {"[1]"}
        assert db._running_turns == {}


@pytest.mark.parametrize("what", ["entries", "replies", "bytes"])
async def test_an_answer_that_is_too_much_for_one_transaction_fails_the_turn_once(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    bad = {
        "entries": Answer(entries=[reply("x")] * 1_001),
        "replies": Answer(entries=[reply("x")] * 500, replies=[("web:1", "x")] * 501),
        "bytes": Answer(entries=[reply("x" * 600)], replies=[("web:1", "\u4e2d" * 200)]),
    }[what]
    if what == "bytes":
        monkeypatch.setattr(entries, "APPEND_BYTES_MAX", 1_200)

    async def handler(turn: Turn) -> Answer:
        return bad if turn.message["content"] == "bad" else answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "bad")
        await say(db, "good")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"bad": "dead", "good": "done"}
        assert "in one append; at most" in (await look(db, "turns"))[0].reason
        assert len(await look(db, "outbox")) == 1


async def test_the_queue_is_told_how_large_an_answer_is(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    async def handler(turn: Turn) -> Answer:
        return Answer(entries=[reply("x" * 1_000)], replies=[("web:1", "\u4e2d" * 1_000)])

    async with sessiondb.open(tmp_db) as db:
        real_write = db.write

        async def write(op: str, *args: Any, **options: Any) -> Any:
            if op == "turn.end":
                sizes.append(options["size"])
            return await real_write(op, *args, **options)

        monkeypatch.setattr(db, "write", write)
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        assert 4_000 < sizes[0] < 5_000


async def test_a_large_answer_is_encoded_off_the_event_loop(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    real = outbox.dumps

    def noted(value: Any) -> str:
        threads.add(threading.get_ident())
        return real(value)

    async def handler(turn: Turn) -> Answer:
        return Answer(replies=[("web:1", {"nested": {"text": "x" * 100_000}})])

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        monkeypatch.setattr(outbox, "dumps", noted)
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
    assert threads
    assert threading.get_ident() not in threads


async def test_whoever_waits_for_a_long_answer_is_told_once_and_nobody_of_a_resume(
    tmp_db: Path,
) -> None:
    release = anyio.Event()
    settings = LaneSettings(delayed_after_s=0.02)

    async def handler(turn: Turn) -> Answer:
        await release.wait()
        return answer(turn)

    async def quick(turn: Turn) -> Answer:
        await anyio.sleep(0.1)
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler, settings=settings)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    inbox, "notify_delayed", lambda *_, **__: 0
                )  # it may have to wait on a busy machine
                await eventually(partial(_was_told, db, 1))
            assert await inbox_states(db) == {"e1": "claimed"}
            await say(db, "e2")  # is told while it waits, and not again while it is worked on
            await eventually(partial(_was_told, db, 2))
            release.set()
            await eventually(partial(nothing_open, db))
        async with running(partial(db.run_lane, "main", quick, settings=settings)):
            await say(db, "e3")
            await eventually(partial(nothing_open, db))
        assert [json.loads(event.data)["inbox_no"] for event in await look(db, "events")] == [
            1,
            2,
            3,
        ]
        await held_message(db, "e4")
        before = len(await look(db, "events"))
        await db.resume(sessiondb.ResumePolicy())
        async with running(partial(db.run_lane, "resume", quick, settings=settings)):
            await eventually(partial(nothing_open, db))
        assert not any(
            "being worked on" in event.text for event in (await look(db, "events"))[before:]
        )


def test_the_same_trouble_is_said_once_and_waited_out_longer_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "sessiondb")
    backoff = retry.Backoff("lane main")
    busy = StoreBusy("the disk is busy", retry_after_ms=1)
    pauses = [backoff.next_delay(busy) for _ in range(12)]
    assert pauses[:3] == [0.01, 0.02, 0.04]
    assert pauses[-1] == retry.SLEEP_S_MAX
    assert caplog.messages == ["lane main: the disk is busy"]
    backoff.next_delay(OutcomeUnknown("who knows"))
    assert caplog.messages[1:] == ["lane main: who knows"]
    backoff.reset()
    assert backoff.next_delay(busy) == 0.01
    assert len(caplog.messages) == 3
    with pytest.raises(sessiondb.InvalidInput):
        backoff.next_delay(sessiondb.InvalidInput("no"))


# -- two processes ------------------------------------------------------------------------------------------


CHILD = """
import sys, anyio, sessiondb
from sessiondb import Answer
async def handler(turn):
    running = await turn.db.read("count", lambda tx: tx.one("turns.lane", lane="main").running)
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


async def test_two_processes_share_a_lane_and_no_message_is_claimed_twice(
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
