"""A channel that says when to try again waits that long: itself, and nobody else."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb import clock as wall
from sessiondb.gateway import channels, inbox, outbox, retry
from sessiondb.limits import (
    CHANNEL_PAUSE_MS_MAX,
    CHANNEL_PAUSE_MS_MIN,
    CHANNEL_QUIET_MS,
    REPLY_RETRY_MS_MAX,
    RETRY_PAUSE_MS_MAX,
)
from sessiondb.sqlite import writer
from tests.support.core import user
from tests.support.engine import other_process
from tests.support.gateway import (
    Clock,
    claimed,
    complete,
    eventually,
    kinds,
    look,
    read_as,
    running,
    say,
)

pytestmark = pytest.mark.anyio

HOUR_MS = 60 * 60 * 1000
HUGE = 10**5000  # Python refuses to show so long a number


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The wall clock of the writer and of the loops, which look at it often."""
    made = Clock()
    monkeypatch.setattr(writer, "_now_ms", made)
    monkeypatch.setattr(wall, "now_ms", made)
    monkeypatch.setattr(retry, "SLEEP_S_MAX", 0.02)
    return made


async def replies_to(db: sessiondb.SessionDB, *targets: str, session: str) -> None:
    """Write a reply to each target, all of one session."""
    await say(db, f"for {targets} of {session}", f"agent:main:web:{session}")
    started = await claimed(db)
    await complete(db, started.turn_no, replies=[(target, target) for target in targets])


async def begin(db: sessiondb.SessionDB) -> outbox.Sending | None:
    return await db.write("begin", partial(outbox.begin_sending, lease_ms=30_000))


async def taken(db: sessiondb.SessionDB) -> outbox.Sending:
    reply = await begin(db)
    assert reply is not None
    return reply


async def refuse(
    db: sessiondb.SessionDB, reply: outbox.Sending, retry_after_ms: int | None = None
) -> None:
    rule = partial(
        outbox.refused, reply=reply, reason="429", retry=True, retry_after_ms=retry_after_ms
    )
    assert await db.write("refused", rule)


async def targets(db: sessiondb.SessionDB, state: str) -> list[str]:
    return [row.target for row in await look(db, "outbox") if row.state == state]


async def outwaited(db: sessiondb.SessionDB, clock: Clock) -> list[Any]:
    return await db.read(
        "look", lambda tx: channels.outwaited(tx, clock(), channels.in_force(tx, clock()))
    )


async def waits_ms(db: sessiondb.SessionDB, clock: Clock, channel: str = "telegram") -> int:
    """Return how long a channel still waits."""
    rows = await db.read("pauses", lambda tx: channels.in_force(tx, clock()))
    return next((row.until_ms - clock() for row in rows if row.channel == channel), 0)


class Network:
    """Channels that send, refuse with a time while they are banned, and count the calls."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.banned_until_ms: dict[str, int] = {}
        self.into_ban: Counter[str] = Counter()
        self.sent: list[str] = []
        self.calls_together = 0
        self._all_called = {"telegram": anyio.Event(), "signal": anyio.Event()}

    async def send(self, reply: sessiondb.Reply) -> None:
        left_ms = self.banned_until_ms.get(reply.channel, 0) - self.clock()
        if left_ms > 0:
            self.into_ban[reply.channel] += 1
            if self.into_ban[reply.channel] == self.calls_together:
                self._all_called[reply.channel].set()
            if self.into_ban[reply.channel] <= self.calls_together:
                await self._all_called[reply.channel].wait()
            raise sessiondb.RefusedBySender("429", retry_after_s=left_ms / 1000)
        self.sent.append(f"{reply.target} of {reply.session_no}")


async def test_a_banned_channel_waits_as_long_as_it_said_and_no_other_does(
    tmp_db: Path, clock: Clock
) -> None:
    """Several calls are under way when the ban comes. They are the only ones into it."""
    network = Network(clock)
    network.banned_until_ms = {"telegram": clock() + 40_000, "signal": clock() + 70_000}
    network.calls_together = 3
    async with sessiondb.open(tmp_db) as db:
        for number in range(20):
            name = str(number)
            await replies_to(db, "telegram:a", "telegram:b", "signal:a", session=name)
            await replies_to(db, "discord:a", "discord:b", session=f"other {name}")
        before = [(row.target, row.available_at_ms) for row in await look(db, "outbox")]

        async def sent(number: int) -> bool:
            return len(await targets(db, "sent")) == number

        async with running(partial(db.run_outbox, network.send, at_once_per_channel=3)):
            await eventually(partial(sent, 40))
            await eventually(lambda: _waits(db, clock, "telegram", "signal"))
            assert network.into_ban == {"telegram": 3, "signal": 3}
            clock.pass_ms(39_999)
            assert await begin(db) is None, "the ban is not over"
            clock.pass_ms(1)
            await eventually(partial(sent, 80))
            clock.pass_ms(30_000)
            await eventually(partial(sent, 100))
        assert network.into_ban == {"telegram": 3, "signal": 3}, "nobody was called into a ban"
        rows = await look(db, "outbox")
        assert Counter(row.attempts for row in rows) == {1: 94, 2: 6}
        assert before == [(row.target, row.available_at_ms) for row in rows], "none lost its place"
        for number in range(1, 40):
            of_session = [target for target in network.sent if target.endswith(f" of {number}")]
            for channel in ("telegram", "discord"):
                order = [target for target in of_session if target.startswith(channel)]
                assert order == sorted(order)
        assert Counter(await kinds(db)) == {"reply_delayed": 2}
        assert await look(db, "pauses") == [], "both take replies again"
        assert (await db.verify()).ok


async def _waits(db: sessiondb.SessionDB, clock: Clock, *names: str) -> bool:
    return all([await waits_ms(db, clock, name) for name in names])


async def test_a_ban_that_is_prolonged_costs_one_call(tmp_db: Path, clock: Clock) -> None:
    network = Network(clock)
    network.banned_until_ms = {"telegram": clock() + HOUR_MS}
    async with sessiondb.open(tmp_db) as db:
        for number in range(10):
            await replies_to(db, "telegram:a", session=str(number))
        async with running(partial(db.run_outbox, network.send, at_once_per_channel=1)):
            for hour in range(1, 6):
                await eventually(partial(_called, network, hour))
                await eventually(lambda: _waits(db, clock, "telegram"))
                network.banned_until_ms["telegram"] += HOUR_MS
                clock.pass_ms(HOUR_MS)
            await eventually(partial(_called, network, 6))
            network.banned_until_ms.clear()
            await eventually(lambda: _waits(db, clock, "telegram"))
            clock.pass_ms(HOUR_MS)
            await eventually(lambda: _none_pending(db))
        assert network.into_ban == {"telegram": 6}
        assert len(network.sent) == 10
        assert await kinds(db) == ["reply_delayed"] * 6


async def _called(network: Network, number: int) -> bool:
    return network.into_ban["telegram"] == number


async def _none_pending(db: sessiondb.SessionDB) -> bool:
    return {row.state for row in await look(db, "outbox")} <= {"sent", "failed"}


CHILD = """
import sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        async def sender(reply):
            print(reply.target, flush=True)
        async with anyio.create_task_group() as group:
            group.start_soon(db.run_outbox, sender)
            while [1 async for reply in db.replies("pending") if reply.target == "discord:a"]:
                await anyio.sleep(0.01)
            while [1 async for reply in db.replies("sending")]:
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
anyio.run(main)
"""


async def test_another_process_and_a_restart_keep_the_ban(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", "telegram:b", session="1")
        await refuse(db, await taken(db), 40 * HOUR_MS)
        await replies_to(db, "telegram:c", session="2")
        await replies_to(db, "discord:a", session="3")
        with other_process(CHILD, tmp_db) as child:
            out, err = child.communicate(timeout=60)
        assert (child.returncode, out) == (0, "discord:a\n"), err
    async with sessiondb.open(tmp_db) as db:
        assert await begin(db) is None
        assert await targets(db, "pending") == ["telegram:a", "telegram:b", "telegram:c"]
        [told] = [row.text for row in await look(db, "events")]
        assert told.startswith("Channel telegram takes no reply until ")


async def test_a_process_that_saw_no_ban_takes_none_of_its_replies(
    tmp_db: Path, clock: Clock
) -> None:
    """Another process recorded it after this one had looked."""
    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", session="1")
        await replies_to(db, "discord:a", session="2")
        found = await db.read("look", lambda tx: outbox.next_no(tx, clock()))
        assert found == 1
        await db.write("ban", lambda tx: channels.pause(tx, "telegram", 1_000, "429"))
        assert (await taken(db)).target == "discord:a"
        assert await begin(db) is None


@pytest.mark.parametrize("set_back_ms", [0, 200, 7 * HOUR_MS])
async def test_a_clock_that_is_set_back_makes_no_ban_longer(
    tmp_db: Path, clock: Clock, set_back_ms: int
) -> None:
    """It stands still after that, so only another clock can end the ban."""
    network = Network(clock)
    network.banned_until_ms = {"telegram": clock() + 500}
    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", session="1")
        async with running(partial(db.run_outbox, network.send)):
            await eventually(lambda: _waits(db, clock, "telegram"))
            network.banned_until_ms.clear()
            clock.pass_ms(300 - set_back_ms)
            await eventually(lambda: _none_pending(db))
        assert network.into_ban == {"telegram": 1}


async def test_a_call_that_began_before_a_ban_does_not_end_it(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(4):
            await replies_to(db, "telegram:a", session=str(number))
        slow, refused = await taken(db), await taken(db)
        await refuse(db, refused, 40_000)
        clock.pass_ms(1_000)
        assert await db.write("sent", lambda tx: outbox.sent(tx, slow, None))
        assert await waits_ms(db, clock) == 39_000
        assert await begin(db) is None


async def test_calls_that_are_refused_together_wait_for_the_longest(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(3):
            await replies_to(db, "telegram:a", session=str(number))
        together = [await taken(db) for _ in range(3)]
        for reply, retry_after_ms in zip(together, (5_000, 40_000, 1_000), strict=True):
            await refuse(db, reply, retry_after_ms)
        assert await waits_ms(db, clock) == 40_000
        assert await kinds(db) == ["reply_delayed"]


async def test_waiting_for_a_ban_is_no_attempt(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", "telegram:b", session="1")
        for _ in range(20):
            reply = await taken(db)
            assert (reply.target, reply.tries) == ("telegram:a", 1)
            await refuse(db, reply, HOUR_MS)
            clock.pass_ms(HOUR_MS)
        await refuse(db, await taken(db))
        assert (await look(db, "outbox"))[0].available_at_ms - clock() == 1_000, "its first"
        assert await targets(db, "pending") == ["telegram:a", "telegram:b"]


async def test_an_endless_ban_ends_with_failed_replies_and_events(
    tmp_db: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """After a day. Of those that wait behind the first none is tried."""
    network = Network(clock)
    network.banned_until_ms = {"telegram": clock() + 100 * REPLY_RETRY_MS_MAX}
    async with sessiondb.open(tmp_db) as db:
        waiting = 2 * channels.GIVEN_UP_AT_ONCE + 5
        for number in range(waiting):
            await replies_to(db, f"telegram:{number}", session=str(number))
        await replies_to(db, "discord:a", "telegram:behind", session="0")
        async with running(partial(db.run_outbox, network.send, at_once_per_channel=1)):
            await eventually(lambda: _waits(db, clock, "telegram"))
            clock.pass_ms(REPLY_RETRY_MS_MAX // 2)
            await replies_to(db, "telegram:young", session="young")
            clock.pass_ms(REPLY_RETRY_MS_MAX // 2)
            await eventually(partial(_failed, db, waiting + 1))
        assert network.into_ban == {"telegram": 2}, "once a day"
        assert await targets(db, "pending") == ["telegram:young"]
        assert await targets(db, "sent") == ["discord:a"]
        assert Counter(await kinds(db, "operator"))["reply_failed"] == waiting + 1
        reasons = [row.reason for row in await look(db, "outbox") if row.state == "failed"]
        assert all("429" in reason for reason in reasons)
        assert (await db.verify()).ok
        # An operator who asks for one again gives it another day.
        await db.settle_reply(2, "pending")
        assert await outwaited(db, clock) == []


async def _failed(db: sessiondb.SessionDB, number: int) -> bool:
    return len(await targets(db, "failed")) == number


async def test_an_old_reply_is_not_given_up_at_the_first_ban(tmp_db: Path, clock: Clock) -> None:
    """A gateway was off for days. Before that its channel had refused, too."""
    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", "telegram:b", session="1")
        await refuse(db, await taken(db), 1_000)
        clock.pass_ms(3 * REPLY_RETRY_MS_MAX)
        await refuse(db, await taken(db), 1_000)
        assert await targets(db, "pending") == ["telegram:a", "telegram:b"]
        assert await outwaited(db, clock) == []
        clock.pass_ms(1_000)
        assert (await taken(db)).target == "telegram:a"


async def test_a_channel_that_says_0_again_and_again_is_not_called_in_a_loop(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", session="1")
        pauses = []
        for _ in range(12):
            await refuse(db, await taken(db), 0)
            pauses.append(await waits_ms(db, clock))
            clock.pass_ms(pauses[-1])
        assert pauses[:4] == [CHANNEL_PAUSE_MS_MIN * 2**number for number in range(4)]
        assert pauses[-1] == RETRY_PAUSE_MS_MAX
        assert await db.write("sent", partial(_sent_again, reply=await taken(db)))
        assert await waits_ms(db, clock) == 0
        await replies_to(db, "telegram:b", session="1")
        await refuse(db, await taken(db), 0)
        assert await waits_ms(db, clock) == CHANNEL_PAUSE_MS_MIN, "it had taken a reply"


def _sent_again(tx: Any, reply: outbox.Sending) -> bool:
    """Settle a reply, as a task that does not know whether it had."""
    settled = outbox.sent(tx, reply, None)
    outbox.sent(tx, reply, None)
    return settled


async def test_a_channel_that_was_quiet_begins_a_new_row_of_refusals(
    tmp_db: Path, clock: Clock
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", session="1")
        for quiet_ms, pauses in ((0, 1), (CHANNEL_QUIET_MS, 2), (CHANNEL_QUIET_MS + 1, 1)):
            clock.pass_ms(quiet_ms)
            await refuse(db, await taken(db), 1_000)
            [row] = await look(db, "pauses")
            assert row.pauses == pauses
            clock.pass_ms(1_000)


@pytest.mark.parametrize(
    "said",
    [math.nan, math.inf, -1, -0.1, "40", True, [40], -HUGE],
    ids=["nan", "inf", "-1", "-0.1", "text", "True", "list", "huge"],
)
async def test_a_time_that_is_none_is_said_and_not_used(
    tmp_db: Path, clock: Clock, said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """That the channel did not send the reply is certain all the same."""
    calls: Counter[str] = Counter()

    async def sender(reply: sessiondb.Reply) -> None:
        calls[reply.channel] += 1
        if reply.channel == "telegram" and calls["telegram"] == 1:
            raise sessiondb.RefusedBySender("429", retry_after_s=said)

    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", session="1")
        async with running(partial(db.run_outbox, sender)):
            await eventually(lambda: _refused_once(db))
            [row] = await look(db, "outbox")
            assert row.available_at_ms - clock() == 1_000, "its own pause"
            assert row.reason is not None
            assert "a number of seconds, 0 or more" in row.reason
            await replies_to(db, "telegram:b", session="2")
            await eventually(lambda: _is_sent(db, "telegram:b"))
            clock.pass_ms(1_000)
            await eventually(lambda: _is_sent(db, "telegram:a"))
    assert "a number of seconds, 0 or more" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


async def _refused_once(db: sessiondb.SessionDB) -> bool:
    return [(row.state, row.attempts) for row in await look(db, "outbox")] == [("pending", 1)]


async def _is_sent(db: sessiondb.SessionDB, target: str) -> bool:
    return target in await targets(db, "sent")


@pytest.mark.parametrize(
    ("said", "wait_ms", "told"),
    [
        (0.25, 250, ""),
        (0.0001, CHANNEL_PAUSE_MS_MIN, ""),
        (86_400, CHANNEL_PAUSE_MS_MAX, ""),
        (86_401, CHANNEL_PAUSE_MS_MAX, "it said 86401 s, and is asked again after 86,400 s"),
        (HUGE, CHANNEL_PAUSE_MS_MAX, "is asked again after 86,400 s"),
    ],
    ids=["short", "shortest", "longest", "longer", "huge"],
)
async def test_a_wait_has_bounds_and_the_longest_is_told(
    tmp_db: Path, clock: Clock, said: float, wait_ms: int, told: str
) -> None:
    async def sender(reply: sessiondb.Reply) -> None:
        raise sessiondb.RefusedBySender("429", retry_after_s=said)

    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", session="1")
        async with running(partial(db.run_outbox, sender)):
            await eventually(lambda: _waits(db, clock, "telegram"))
        assert await waits_ms(db, clock) == wait_ms
        [event] = await look(db, "events")
        assert told in event.text
        assert json.loads(event.data)["until_ms"] == clock() + wait_ms
        assert (json.loads(event.data)["channel"], event.audience) == ("telegram", "operator")


async def test_a_final_refusal_with_a_time_fails_the_reply_and_the_channel_waits(
    tmp_db: Path, clock: Clock
) -> None:
    async def sender(reply: sessiondb.Reply) -> None:
        raise sessiondb.RefusedBySender("429", retry=False, retry_after_s=40)

    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", "telegram:b", session="1")
        async with running(partial(db.run_outbox, sender)):
            await eventually(lambda: _waits(db, clock, "telegram"))
        assert await targets(db, "failed") == ["telegram:a"]
        assert sorted(await kinds(db)) == ["reply_delayed", "reply_failed"]
        assert await begin(db) is None


async def test_status_and_stuck_show_which_channel_waits(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await replies_to(db, "telegram:a", session="1")
        await replies_to(db, "signal:a", session="2")
        assert not (await db.status()).needs_attention
        await refuse(db, await taken(db), HOUR_MS)
        [stuck] = (await db.status()).stuck
        assert (stuck.session_id, stuck.headline) == (None, "channel telegram: waits")
        assert stuck.until is not None
        [event] = await look(db, "events")
        assert stuck.until in event.text
        until_ms = json.loads(event.data)["until_ms"]
        assert {
            (row.channel, row.replies_waiting, row.waits_until_ms, row.reason)
            for row in (await db.status()).channels
        } == {("telegram", 1, until_ms, "429"), ("signal", 1, None, None)}


# -- too many replies


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three replies fill a channel, and six are all that it takes."""
    for module in (channels, inbox):
        monkeypatch.setattr(module, "OUTBOX_WAITING_MAX", 3)
    monkeypatch.setattr(channels, "OUTBOX_CHANNEL_MAX", 6)


async def ask(db: sessiondb.SessionDB, channel: str, number: int) -> sessiondb.Accepted:
    """Accept a message that a person sent through a bot of a channel."""
    key = f"agent:main:{channel}:direct:{number}"
    return await db.accept(
        key, {"role": "user", "content": "?"}, channel=f"{channel}:bot1", event_id=str(number)
    )


@pytest.mark.usefixtures("few")
async def test_a_channel_that_is_down_and_full_stops_no_other(tmp_db: Path) -> None:
    """Its senders are told. What it had accepted is answered. The others notice nothing."""
    is_back = False

    async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
        return sessiondb.Answer(replies=[(f"{turn.message['content']}:bot1:1", "yes")])

    async def sender(reply: sessiondb.Reply) -> None:
        if reply.channel == "telegram" and not is_back:
            raise sessiondb.RefusedBySender("not connected")

    async def all_answered(number: int) -> bool:
        status = (await db.status()).gateway
        return (status.messages_waiting, status.turns_running) == (0, 0) and len(
            await look(db, "outbox")
        ) == number

    async def sent(channel: str, number: int) -> bool:
        return sum(target.startswith(channel) for target in await targets(db, "sent")) == number

    async def say_to(db: sessiondb.SessionDB, channel: str, number: int) -> sessiondb.Accepted:
        return await db.accept(
            f"agent:main:{channel}:direct:{number}",
            {"role": "user", "content": channel},
            channel=f"{channel}:bot1",
            event_id=str(number),
        )

    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        # Five are accepted before any is answered.
        for number in range(5):
            await say_to(db, "telegram", number)
        async with running(
            partial(db.run_lane, "main", handler),
            partial(db.run_outbox, sender, at_once_per_channel=1),
            partial(other.run_lane, "main", handler),
            partial(other.run_outbox, sender, at_once_per_channel=1),
        ):
            await eventually(partial(all_answered, 5))
            for gateway in (db, other):
                with pytest.raises(sessiondb.SessionBusy, match="channel telegram: 3 rep") as busy:
                    await say_to(gateway, "telegram", 5)
                assert 1_000 <= busy.value.retry_after_ms <= RETRY_PAUSE_MS_MAX
                assert busy.value.holder == "channel telegram"
            assert (await say_to(db, "telegram", 4)).duplicate, "its receipt is known"
            for number in range(8):
                await say_to(other, "discord", number)
                await eventually(partial(sent, "discord", number + 1))
            [channel] = (await db.status()).channels
            assert channel.channel == "telegram"
            assert 3 <= channel.replies_waiting <= 5, "one of each gateway may be under way"
            is_back = True
            await db.write("hurry", lambda tx: tx.run("look.hurry_replies"))
            await eventually(partial(sent, "telegram", 5))
            assert not (await say_to(db, "telegram", 5)).duplicate
            await eventually(partial(sent, "telegram", 6))
        assert (await db.verify()).ok


@pytest.mark.usefixtures("few")
async def test_a_full_channel_is_refused_until_it_has_room(tmp_db: Path, clock: Clock) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(2):
            await replies_to(db, "web:a", "telegram:a", session=str(number))
        await ask(db, "telegram", 1)
        await complete(db, (await claimed(db)).turn_no, replies=[("telegram:b", 0)])
        with pytest.raises(sessiondb.SessionBusy) as busy:
            await ask(db, "telegram", 2)
        assert busy.value.retry_after_ms == 1_000, "its replies can be sent at once"
        with pytest.raises(sessiondb.SessionBusy):
            await db.edit(
                "agent:main:telegram:direct:1",
                user("!"),
                channel="telegram:bot1",
                event_id="1",
                version=1,
            )
        await ask(db, "web", 3)
        reply = await taken_of(db, "telegram")
        await refuse(db, reply, 40_000)
        with pytest.raises(sessiondb.SessionBusy) as busy:
            await ask(db, "telegram", 2)
        assert busy.value.retry_after_ms == 40_000, "it said so"
        clock.pass_ms(40_000)
        assert await db.write("sent", partial(_sent_again, reply=await taken_of(db, "telegram")))
        assert not (await ask(db, "telegram", 2)).duplicate


async def taken_of(db: sessiondb.SessionDB, channel: str) -> outbox.Sending:
    """Take the next reply of a channel."""
    others = ["web", "telegram"]
    others.remove(channel)
    reply = await db.write("begin", partial(outbox.begin_sending, lease_ms=30_000, full=others))
    assert reply is not None
    return reply


@pytest.mark.usefixtures("few")
async def test_a_reply_that_has_no_room_is_failed_with_an_event(tmp_db: Path) -> None:
    """A cron job's messages come through another channel than its replies go to."""
    async with sessiondb.open(tmp_db) as db:
        for number in range(8):
            to_signal = ["signal:a"] if number < 5 else []
            await replies_to(db, "telegram:a", *to_signal, session=str(number))
        assert Counter(await targets(db, "pending")) == {"telegram:a": 6, "signal:a": 5}
        assert await targets(db, "failed") == ["telegram:a", "telegram:a"]
        told = [row for row in await look(db, "events") if row.kind == "reply_failed"]
        assert [json.loads(row.data)["outbox_no"] for row in told] == [12, 13]
        assert "6 replies wait for channel telegram, which is the limit" in told[0].text
        async with aclosing(db.events("pager", from_start=True)) as notices:
            event = await anext(notices)
        await read_as(db, "pager", "mailer")
        assert await db.forward_event(
            event, consumer="pager", target="telegram:pager", message="look"
        )
        assert await db.forward_event(event, consumer="mailer", target="mail:pager", message="look")
        assert (await targets(db, "failed"))[-1] == "telegram:pager"
        assert len(await kinds(db)) == 2, "a notice about a notice would have no end"
        await db.settle_reply(12, "pending")
        assert (await targets(db, "pending")).count("telegram:a") == 7, "an operator asked for it"
        assert (await db.verify()).ok
