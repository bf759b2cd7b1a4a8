"""A running turn: whatever its handler does, the outcome is recorded."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessiondb
from sessiondb.errors import StoreBusy
from sessiondb.gateway import inbox, leases, outbox, running_turn, turns, worker
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.transcript import entries
from tests.support.core import reply
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

QUICK = LaneSettings(lease_s=1.5, timeout_s=1.0)


async def test_a_handler_knows_the_message_that_it_works_on(tmp_db: Path) -> None:
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


async def test_a_message_whose_handler_always_raises_is_dead(
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
        assert await kinds(db) == [*["turn_failed"] * 5, "message_dead", "message_dead"]
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
            ("failed", "cut off at its deadline of 1 s"),
            ("completed", None),
        ]


async def test_a_handler_that_always_hangs_is_not_tried_for_long(tmp_db: Path) -> None:
    attempts: list[int] = []

    async def handler(turn: Turn) -> Answer:
        attempts.append(turn.attempt)
        await anyio.sleep_forever()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(
            partial(db.run_lane, "main", handler, settings=LaneSettings(timeout_s=0.02))
        ):
            await eventually(partial(nothing_open, db))
        assert attempts == [1, 2, 3]


async def test_a_handler_without_a_usable_answer_leaves_an_incomplete_turn(
    tmp_db: Path,
) -> None:
    async def handler(turn: Turn) -> Answer:
        return Answer(incomplete="the model said nothing")

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        [turn] = await look(db, "turns")
        assert (turn.state, turn.incomplete, turn.reason) == (
            "completed",
            1,
            "the model said nothing",
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
async def test_an_answer_that_cannot_be_stored_fails_the_turn_once(
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


async def test_a_session_that_ends_meanwhile_fails_the_turn(
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


async def test_a_handler_that_raises_while_cancelled_holds_nothing(
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

    async def sender(out: sessiondb.Reply) -> None:
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


async def test_a_handler_resets_its_session_in_the_name_of_its_turn(tmp_db: Path) -> None:
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
        kept = (await session.context(raw=True)).messages
        assert [message["role"] for message in kept] == ["assistant"]


async def _running_turn(db: sessiondb.SessionDB, turn_no: int) -> bool:
    return turn_no in db._loops.running


async def test_a_handler_whose_turn_was_taken_over_is_cancelled(
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


async def test_a_handler_that_blocks_past_its_lease_loses_the_turn(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without renewals the lane itself takes the turn over. A late answer is refused."""
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
    return not db._loops.running


async def test_a_lease_is_renewed_while_the_work_goes_on(tmp_db: Path) -> None:
    renewals: list[int] = []

    async def handler(turn: Turn) -> Answer:
        while len(renewals) < 4:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        original = leases.renew

        def counted(*args: Any, **options: Any) -> int:
            renewals.append(original(*args, **options))
            return renewals[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "renew", counted)
            await say(db, "e1")
            async with running(
                partial(db.run_lane, "main", handler, settings=LaneSettings(lease_s=0.2))
            ):
                await eventually(partial(nothing_open, db))
    assert renewals == sorted(set(renewals))


async def test_a_turn_is_owned_and_renewed_until_its_end_is_written(
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
                protected.append(worker._owned(db._loops.running))
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
        assert db._loops.running == {}


@pytest.mark.parametrize("what", ["entries", "replies", "bytes"])
async def test_an_answer_too_large_for_a_transaction_fails_the_turn(
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


async def test_the_queue_knows_the_size_of_an_answer(
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


async def test_a_slow_answer_is_announced_once_and_a_resume_never(
    tmp_db: Path,
) -> None:
    release = anyio.Event()
    settings = LaneSettings(delayed_after_s=0.02)

    async def handler(turn: Turn) -> Answer:
        await release.wait()
        return answer(turn)

    async def notified(turn: Turn) -> Answer:
        await eventually(partial(was_notified, db, turn.inbox_no))
        return answer(turn)

    async def quick(turn: Turn) -> Answer:
        await anyio.sleep(0.1)  # time for a notice that must not be
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler, settings=settings)):
            with pytest.MonkeyPatch.context() as patch:
                # On a busy machine the message may wait long enough for this notice.
                patch.setattr(inbox, "notify_delayed", lambda *_, **__: 0)
                await eventually(partial(was_notified, db, 1))
            assert await inbox_states(db) == {"e1": "claimed"}
            await say(db, "e2")  # notified while it waits, and not again while it is worked on
            await eventually(partial(was_notified, db, 2))
            release.set()
            await eventually(partial(nothing_open, db))
        async with running(partial(db.run_lane, "main", notified, settings=settings)):
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


async def test_what_a_turn_appends_has_a_receipt_and_what_it_resets_an_epoch(tmp_db: Path) -> None:
    found: list[Any] = []

    async def handler(turn: Turn) -> Answer:
        found.append(await turn.append(reply("thinking")))
        found.append(await turn.reset("new", keep_from=found[0].entry_id))
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(nothing_open, db))
        session = await db.session(KEY)
        first = (await session.entries(limit=2))[1]
        receipt, epoch = found
        assert (receipt.entry_id, receipt.entry_no) == (first.entry_id, first.entry_no)
        assert not receipt.duplicate
        assert epoch == (await session.info()).epoch == 1
