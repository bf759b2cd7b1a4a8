"""The outbox: a reply is sent once, in order, or is unknown. Never sent twice by itself."""

from __future__ import annotations

import json
import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb.errors import StoreDamaged
from sessiondb.gateway import outbox
from sessiondb.limits import (
    LEASE_GRACE_MS,
    REPLY_ATTEMPTS_MIN,
    REPLY_RETRY_MS_MAX,
    SESSION_KEY_CHARS_MAX,
)
from sessiondb.sqlite import transaction, writer
from tests.support.engine import other_process
from tests.support.gateway import (
    Clock,
    change_statement,
    claimed,
    complete,
    eventually,
    kinds,
    look,
    running,
    say,
)

pytestmark = pytest.mark.anyio


async def write_replies(
    db: sessiondb.SessionDB,
    *payloads: str,
    key: str = "agent:main:web:1",
    target: str = "web:1",
) -> None:
    """Complete a turn with these replies."""
    await say(db, f"for {payloads}", key)
    await complete(
        db, (await claimed(db)).turn_no, "x", replies=[(target, payload) for payload in payloads]
    )


async def begin(db: sessiondb.SessionDB, lease_ms: int = 30_000) -> outbox.Sending:
    reply = await db.write("begin", partial(outbox.begin_sending, lease_ms=lease_ms))
    assert reply is not None
    return reply


async def states(db: sessiondb.SessionDB) -> list[str]:
    return [row.state for row in await look(db, "outbox")]


async def test_a_sessions_replies_are_in_order_others_side_by_side(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1", "a2")
        await write_replies(db, "b1", key="agent:main:web:2")
        first, other = await begin(db), await begin(db)
        assert [json.loads(reply.payload) for reply in (first, other)] == ["a1", "b1"]
        assert await db.write("begin", partial(outbox.begin_sending, lease_ms=1)) is None, (
            "a2 waits for a1"
        )
        assert await db.write("sent", lambda tx: outbox.sent(tx, first, "id-1"))
        assert json.loads((await begin(db)).payload) == "a2"
        assert [(row.state, row.receipt) for row in await look(db, "outbox")] == [
            ("sent", "id-1"),
            ("sending", None),
            ("sending", None),
        ]


async def refuse_once(db: sessiondb.SessionDB, clock: Clock) -> int:
    """Take the next reply, have it refused, and advance to its retry. Return the pause."""
    reply = await begin(db)
    assert json.loads(reply.payload) == "a1"
    await db.write(
        "refused", partial(outbox.refused, reply=reply, reason="not connected", retry=True)
    )
    row, *behind = await look(db, "outbox")
    pause_ms = row.available_at_ms - clock()
    if row.state == "pending":
        assert all(other.waits for other in behind), "what cannot be sent yet is not looked at"
        assert await db.write("begin", partial(outbox.begin_sending, lease_ms=1)) is None, (
            "a2 waits behind the retry"
        )
    clock.at_ms = max(clock(), row.available_at_ms)
    return pause_ms


async def test_a_refused_reply_is_retried_for_a_day(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1", "a2")
        pauses = [await refuse_once(db, clock) for _ in range(20)]
        assert pauses == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, *[60_000] * 14], (
            "a channel that is away needs no decision"
        )
        clock.pass_ms(REPLY_RETRY_MS_MAX)
        await refuse_once(db, clock)
        assert await states(db) == ["failed", "pending"]
        assert await kinds(db) == ["reply_failed"]
        assert json.loads((await begin(db)).payload) == "a2", "a reply that failed holds nothing up"


async def test_a_reply_to_be_sent_again_is_retried_like_a_new_one(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1")
        for _ in range(REPLY_ATTEMPTS_MIN):
            await refuse_once(db, clock)
        clock.pass_ms(REPLY_RETRY_MS_MAX)
        await refuse_once(db, clock)
        assert await states(db) == ["failed"]
        await db.settle_reply(1, "pending")
        assert [await refuse_once(db, clock) for _ in range(10)] == [
            1_000,
            2_000,
            4_000,
            8_000,
            16_000,
            32_000,
            *[60_000] * 4,
        ]
        clock.pass_ms(REPLY_RETRY_MS_MAX)
        await refuse_once(db, clock)
        assert await states(db) == ["failed"]
        assert (await look(db, "outbox"))[0].attempts == 9 + 11, (
            "counted on: an older attempt must not be taken for a new one"
        )


async def test_an_old_reply_is_not_given_up_at_the_first_refusal(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1")
        clock.pass_ms(3 * REPLY_RETRY_MS_MAX)
        for _ in range(REPLY_ATTEMPTS_MIN - 1):
            await refuse_once(db, clock)
            assert await states(db) == ["pending"]
        await refuse_once(db, clock)
        assert await states(db) == ["failed"]


async def test_a_reply_refused_for_good_is_failed_at_once(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1")
        reply = await begin(db)
        assert await db.write(
            "refused", partial(outbox.refused, reply=reply, reason="blocked", retry=False)
        )
        assert await states(db) == ["failed"]
        assert not await db.write(
            "refused", partial(outbox.refused, reply=reply, reason="blocked", retry=False)
        )
        assert await kinds(db) == ["reply_failed"], "one event"


CHILD = """
import os, signal, sys, anyio, sessiondb
async def sender(reply):
    print(reply.payload, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        await db.run_outbox(sender)
anyio.run(main)
"""


async def test_a_reply_of_a_killed_sender_is_unknown_and_not_resent(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1", "a2")
    with other_process(CHILD, tmp_db) as child:
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out) == (-9, '"a1"\n'), err
    sent: list[str] = []

    async def sender(reply: sessiondb.Reply) -> None:
        sent.append(json.loads(reply.payload))

    async with sessiondb.open(tmp_db) as db:
        assert await states(db) == ["sending", "pending"]
        assert await db.recover() == sessiondb.Recovered(instances=1, replies=1)
        assert await kinds(db) == ["reply_unknown", "recovery_done"]
        async with running(partial(db.run_outbox, sender)):
            await eventually(lambda: _all_settled(db))
        assert sent == ["a2"]
        assert [reply.outbox_no async for reply in db.replies("unknown")] == [1]
        await db.settle_reply(1, "pending")
        async with running(partial(db.run_outbox, sender)):
            await eventually(lambda: _all_settled(db))
        assert sent == ["a2", "a1"], "an operator decided"
        with pytest.raises(sessiondb.NotFound, match="neither unknown nor failed"):
            await db.settle_reply(1, "sent")
        assert (await db.verify()).ok


async def _all_settled(db: sessiondb.SessionDB) -> bool:
    return set(await states(db)) <= {"sent", "unknown", "failed"}


@pytest.mark.parametrize("set_back_ms", [1, 30_000, 60_000, 86_400_000])
async def test_no_reply_waits_for_a_clock_that_was_set_back(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, set_back_ms: int
) -> None:
    """Not a new one, not one that was taken and not sent, and not one that is to be sent again."""
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2):
            key = f"agent:main:web:{number}"
            for target in ("web", "mail"):
                texts = [f"{target} {number} {place}" for place in (1, 2)]
                await write_replies(db, *texts, key=key, target=f"{target}:{number}")
        taken, again = await begin(db), await begin(db)
        await db.write("release", partial(outbox.release, reply=taken, reason="not sent"))
        await db.write("lost", partial(outbox.lost, reply=again, reason="no answer"))
        await db.settle_reply(again.outbox_no, "pending")
        clock.pass_ms(-set_back_ms)
        sent = []
        while (reply := await db.write("b", partial(outbox.begin_sending, lease_ms=1))) is not None:
            await db.write("sent", partial(outbox.sent, reply=reply, receipt=None))
            sent.append(reply.outbox_no)
    assert sent == [1, 2, 3, 4, 5, 6, 7, 8], "all at once, in the order in which they were written"


async def test_the_loop_reads_no_text_of_a_reply_under_the_write_lock(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be tens of megabytes. Another process was never faster here."""
    ran: list[str] = []
    start = transaction.Snapshot._start

    def noting(self: Any, statement: str, params: Any) -> Any:
        if isinstance(self, transaction.WriteTransaction):
            ran.append(statement)
        return start(self, statement, params)

    sent: list[str] = []

    async def send(reply: sessiondb.Reply) -> str | None:
        sent.append(reply.payload)
        return None

    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2):
            await write_replies(db, f"a{number}", "b", key=f"agent:main:web:{number}")
        monkeypatch.setattr(transaction.Snapshot, "_start", noting)
        async with running(lambda: db.run_outbox(send)):
            await eventually(partial(_all_settled, db))
    assert sorted(sent) == ['"a1"', '"a2"', '"b"', '"b"']
    assert "outbox.candidate" in ran
    assert "outbox.payload" not in ran


async def test_a_late_result_settles_an_unknown_reply(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1")
        reply = await begin(db, lease_ms=1_000)
        clock.pass_ms(1_000)
        assert await db.write("overdue", outbox.give_up_overdue) == 0, (
            "its sender may still be writing"
        )
        clock.pass_ms(LEASE_GRACE_MS)
        assert await db.write("overdue", outbox.give_up_overdue) == 1
        assert await states(db) == ["unknown"]
        assert await db.write("sent", lambda tx: outbox.sent(tx, reply, "42"))
        assert await states(db) == ["sent"]

        await write_replies(db, "a2")
        old = await begin(db, lease_ms=1_000)
        clock.pass_ms(1_000 + LEASE_GRACE_MS)
        await db.write("overdue", outbox.give_up_overdue)
        await db.settle_reply(old.outbox_no, "pending")
        new = await begin(db)
        assert not await db.write("sent", lambda tx: outbox.sent(tx, old, "late")), (
            "an older attempt says nothing about this one"
        )
        assert not await db.write("lost", lambda tx: outbox.lost(tx, old, "late"))
        assert await db.write("sent", lambda tx: outbox.sent(tx, new, "43"))
        assert await states(db) == ["sent", "sent"]


async def test_the_loop_records_the_answer_of_the_channel(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "sessiondb")
    monkeypatch.setattr(outbox, "retry_pause_ms", lambda *_: 1)
    tries: list[str] = []

    async def sender(reply: sessiondb.Reply) -> str | None:
        what = json.loads(reply.payload)
        tries.append(what)
        if what == "refused once" and reply.attempts == 1:
            raise sessiondb.RefusedBySender("rate limit")
        if what == "refused":
            raise sessiondb.RefusedBySender("blocked", retry=False)
        if what == "who knows":
            raise ConnectionResetError("in the middle")
        if what == "hangs":
            await anyio.sleep_forever()
        return "receipt"

    async with sessiondb.open(tmp_db) as db:
        for number, what in enumerate(["fine", "refused once", "refused", "who knows", "hangs"]):
            await write_replies(db, what, key=f"agent:main:web:{number}")
        async with running(partial(db.run_outbox, sender, lease_s=0.3)):
            await eventually(lambda: _all_settled(db))
        assert await states(db) == ["sent", "sent", "failed", "unknown", "unknown"]
        assert sorted(tries) == sorted(
            ["fine", "refused once", "refused once", "refused", "who knows", "hangs"]
        )
        reasons = [row.reason for row in await look(db, "outbox")]
        assert reasons[2:] == ["blocked", "ConnectionResetError: in the middle", "TimeoutError: "]
        assert sorted(await kinds(db)) == ["reply_failed", "reply_unknown", "reply_unknown"]


async def test_a_slow_reply_does_not_hold_up_those_of_other_sessions(
    tmp_db: Path,
) -> None:
    busy, most, released = 0, 0, anyio.Event()

    async def sender(reply: sessiondb.Reply) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        if json.loads(reply.payload) == "slow":
            await released.wait()
        busy -= 1

    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "slow", "behind the slow one")
        for number in range(2, 8):
            await write_replies(db, f"quick {number}", key=f"agent:main:web:{number}")
        async with running(partial(db.run_outbox, sender, at_once=2, at_once_per_channel=2)):
            await eventually(lambda: _count(db, "sent", 6))
            assert (await states(db))[:2] == ["sending", "pending"]
            released.set()
            await eventually(lambda: _count(db, "sent", 8))
    assert most == 2


async def replies_to(db: sessiondb.SessionDB, *targets: str, session: str = "1") -> None:
    """Write a reply to each target, all of one session."""
    key = f"agent:main:web:{session}"
    await say(db, f"for {targets} of {session}", key)
    started = await claimed(db)
    await complete(db, started.turn_no, replies=[(target, target) for target in targets])


async def test_channels_that_hang_hold_up_no_other(tmp_db: Path) -> None:
    """However many conversations wait for them."""
    calls: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def sender(reply: sessiondb.Reply) -> None:
        calls[reply.channel] += 1
        most[reply.channel] = max(most[reply.channel], calls[reply.channel])
        try:
            if reply.channel in ("telegram", "signal"):
                await anyio.sleep_forever()
        finally:
            calls[reply.channel] -= 1

    async def at_their_limit() -> bool:
        return calls["telegram"] == calls["signal"] == 2

    async def all_sent_to(*channels: str) -> bool:
        rows = await look(db, "outbox")
        return {row.state for row in rows if row.target.partition(":")[0] in channels} == {"sent"}

    async with sessiondb.open(tmp_db) as db:
        for number in range(12):
            for channel in ("telegram", "signal"):
                await replies_to(db, f"{channel}:{number}", session=f"{channel}{number}")
        async with running(partial(db.run_outbox, sender, lease_s=1_000, at_once=8)):
            await eventually(at_their_limit)
            for number in range(12):
                await replies_to(db, f"discord:bot1:{number}", session=f"discord{number}")
            await replies_to(db, "web", session="web")
            await eventually(partial(all_sent_to, "discord", "web"))
            assert await at_their_limit()
        assert (most["telegram"], most["signal"]) == (2, 2)
        assert (await states(db)).count("pending") == 20


async def test_replies_of_one_session_are_in_order_in_each_channel(tmp_db: Path) -> None:
    """One channel is away. What the same conversation has for another goes out."""
    sent: list[str] = []
    is_back = False

    async def sender(reply: sessiondb.Reply) -> None:
        if reply.channel == "away" and not is_back:
            raise sessiondb.RefusedBySender("not connected")
        sent.append(reply.target)

    targets = ["away:1", "here:1", "away:2", "here:2", "away:3", "here:3"]
    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, *targets)
        async with running(partial(db.run_outbox, sender)):
            await eventually(lambda: _count(db, "sent", 3))
            assert sent == ["here:1", "here:2", "here:3"]
            await db.write("hurry", lambda tx: tx.run("look.hurry_replies"))
            is_back = True
            await eventually(lambda: _count(db, "sent", 6))
        assert sent[3:] == ["away:1", "away:2", "away:3"]


async def test_a_channel_that_gave_no_answer_is_probed_by_one_call_at_a_time(
    tmp_db: Path,
) -> None:
    """So that few replies become unknown while it hangs. When it answers, all go on."""
    together: list[int] = []
    calls = 0
    hangs = True
    release = anyio.Event()

    async def sender(reply: sessiondb.Reply) -> None:
        nonlocal calls
        calls += 1
        together.append(calls)
        try:
            if hangs:
                raise ConnectionResetError("in the middle")
            if len(together) > probes + 1:
                await release.wait()
        finally:
            calls -= 1

    async def all_wait() -> bool:
        return calls == 3

    async with sessiondb.open(tmp_db) as db:
        for number in range(4):
            await replies_to(db, f"web:{number}", session=str(number))
        run = partial(db.run_outbox, sender, lease_s=1_000, at_once_per_channel=3)
        async with running(run):
            await eventually(lambda: _count(db, "unknown", 4))
            probes = len(together)
            hangs = False
            for number in range(4, 9):
                await replies_to(db, f"web:{number}", session=str(number))
            await eventually(all_wait)
            release.set()
            await eventually(lambda: _count(db, "sent", 5))
    assert max(together[probes:]) == 3


async def _count(db: sessiondb.SessionDB, state: str, wanted: int) -> bool:
    return (await states(db)).count(state) == wanted


async def test_a_loop_stopped_while_sending_leaves_the_reply_unknown(tmp_db: Path) -> None:
    begun = anyio.Event()

    async def sender(reply: sessiondb.Reply) -> None:
        begun.set()
        await anyio.sleep_forever()

    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1")
        async with running(partial(db.run_outbox, sender)):
            with anyio.fail_after(30):
                await begun.wait()
        assert await states(db) == ["unknown"]
        assert (await look(db, "outbox"))[0].reason == "the gateway stopped while it was being sent"


async def test_a_reply_taken_but_not_sent_is_pending_again(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []

    async def sender(reply: sessiondb.Reply) -> None:
        handed.append(reply.payload)

    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1")
        async with anyio.create_task_group() as group:
            real_write = db.write

            async def write_and_cancel(op: str, fn: object, **options: object) -> object:
                result = await real_write(op, fn, **options)  # type: ignore[arg-type]
                if op == "outbox.begin" and result is not None:
                    group.cancel_scope.cancel()
                return result

            monkeypatch.setattr(db, "write", write_and_cancel)
            group.start_soon(db.run_outbox, sender)
        assert handed == []
        assert await states(db) == ["pending"]


@pytest.mark.parametrize(("at_once", "wanted"), [(3, 1), (4, 1), (8, 2), (11, 2)])
async def test_a_channel_gets_a_part_of_the_calls_and_one_at_least(
    tmp_db: Path, at_once: int, wanted: int
) -> None:
    """The room of a call that ends is given out again, once."""
    calls: Counter[str] = Counter()
    most: Counter[str] = Counter()
    places = anyio.Semaphore(0)

    async def sender(reply: sessiondb.Reply) -> None:
        calls[reply.channel] += 1
        most[reply.channel] = max(most[reply.channel], calls[reply.channel])
        if reply.channel == "web":
            await places.acquire()
        calls[reply.channel] -= 1

    async def at_its_limit() -> bool:
        return calls["web"] == wanted

    async with sessiondb.open(tmp_db) as db:
        for number in range(6):
            await replies_to(db, f"web:{number}", session=str(number))
        async with running(partial(db.run_outbox, sender, lease_s=1_000, at_once=at_once)):
            for ended in range(6):
                await replies_to(db, f"mail:{ended}", session=f"mail{ended}")
                await eventually(lambda ended=ended: _count(db, "sent", 2 * ended + 1))
                if ended + wanted <= 6:
                    await eventually(at_its_limit)
                places.release()
                await eventually(lambda ended=ended: _count(db, "sent", 2 * ended + 2))
    assert most["web"] == wanted


async def test_a_channel_that_hangs_again_takes_one_call(tmp_db: Path) -> None:
    """An error in the middle of a call says as little about its outcome as a time that is over."""
    calls: list[str] = []

    async def sender(reply: sessiondb.Reply) -> None:
        calls.append(reply.target)
        if len(calls) == 1:
            raise ConnectionResetError("in the middle")
        await anyio.sleep_forever()

    async def again() -> bool:
        return len(calls) == 2

    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "web:0", session="0")
        run = partial(db.run_outbox, sender, lease_s=1_000, at_once=9, at_once_per_channel=3)
        async with running(run):
            await eventually(lambda: _count(db, "unknown", 1))
            for number in range(1, 4):
                await replies_to(db, f"web:{number}", session=str(number))
            await replies_to(db, "mail:1", session="mail")
            await eventually(lambda: _has_begun(calls, "mail:1"))
            await eventually(lambda: _count(db, "pending", 2))
            assert calls[:2] == ["web:0", "web:1"]
            assert sorted(calls) == ["mail:1", "web:0", "web:1"]


async def _has_begun(calls: list[str], target: str) -> bool:
    return target in calls


async def test_a_reply_is_released_and_settled_once(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits behind it waits for it, and what does not is left alone."""
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1", "a2")
        await write_replies(db, "b1", key="agent:main:web:2")
        reply = await begin(db)

        async def release() -> bool:
            return await db.write(
                "release", partial(outbox.release, reply=reply, reason="away", pause_ms=4_000)
            )

        assert [await release(), await release()] == [True, False]
        rows = await look(db, "outbox")
        assert [max(0, row.available_at_ms - clock()) for row in rows] == [4_000, 0, 0]
        assert [row.waits for row in rows] == [0, 1, 0]
        other = await begin(db)
        assert json.loads(other.payload) == "b1"
        settled = [
            await db.write("sent", partial(outbox.sent, reply=other, receipt=receipt))
            for receipt in ("r", "again")
        ]
        assert settled == [True, False]
        assert [row.receipt for row in await look(db, "outbox")] == [None, None, "r"]


async def test_a_reply_that_is_taken_by_no_change_is_damage(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1")
        with monkeypatch.context() as patch:
            change_statement(
                patch, "outbox.begin_sending", "WHERE outbox_no =", "WHERE 0 AND outbox_no ="
            )
            with pytest.raises(StoreDamaged, match="reply 1 was pending"):
                await begin(db)
        assert await states(db) == ["pending"]


async def test_a_replys_target_has_bounds() -> None:
    longest = "x" * SESSION_KEY_CHARS_MAX
    assert outbox.encoded_reply(longest, "hi") == ((longest, '"hi"'), 4)
    with pytest.raises(sessiondb.InvalidInput, match="at most"):
        outbox.encoded_reply(f"{longest}x", "hi")
    with pytest.raises(sessiondb.InvalidInput, match="a reply's target is a str, not int"):
        outbox.encoded_reply(4711, "hi")  # type: ignore[arg-type]


async def test_a_reply_that_cannot_be_read_is_set_aside_while_it_waits(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await write_replies(db, "a1")
        await write_replies(db, "b1", key="agent:main:web:2")
        reply = await begin(db)
        assert reply.outbox_no == 1

        async def set_aside(outbox_no: int) -> bool:
            return await db.write(
                "set aside", partial(outbox.set_aside, outbox_no=outbox_no, reason="damaged")
            )

        assert [await set_aside(number) for number in (1, 2, 2, 3)] == [False, True, False, False]
        assert await states(db) == ["sending", "failed"]
        assert await kinds(db, "operator") == ["reply_failed"]
