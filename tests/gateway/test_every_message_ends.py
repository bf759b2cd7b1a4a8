"""A gateway whose handlers, senders and sessions give trouble of every kind: every message ends.

All loops run, until no message is open and no reply waits. None of them may have ended, no
conversation may have been held up by another one's trouble, and `verify` finds nobody who
waits in vain. Then one old rule at a time is put back, and this must notice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb import events
from sessiondb.gateway import cancellation, claims, damage, dispatcher, outbox, running_turn, turns
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from tests.gateway.test_damage import head_is_lost
from tests.gateway.test_stray import of_a_group, of_a_scope
from tests.support.core import one_loop, reply
from tests.support.gateway import (
    answer,
    eventually,
    inbox_states,
    look,
    nothing_open,
    read_as,
    running,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("quick_retries")]

POLICY = sessiondb.ResumePolicy(max_concurrent_resumes=2, breaker_unclean_starts=1_000)
SETTINGS = LaneSettings(lease_s=1_000, timeout_s=10_000)

# What becomes of the message, by the trouble that its handler makes. The others are answered.
DEAD = {"stray", "group", "text", "object", "damaged"}
ANSWERED = {"fine", "stopped", "sent to a stray", "sent to a dict", "sent to a slow one"}


class Troubled:
    """A gateway's handler and senders, and what they were asked."""

    def __init__(self) -> None:
        self.release = anyio.Event()
        self.begun = anyio.Event()
        self.stopping = True
        self.sent: list[str] = []

    async def handler(self, turn: Turn) -> Any:
        match turn.message["content"]:
            case "stray":
                await of_a_scope()
            case "group":
                await of_a_group()
            case "text":
                return "an answer"
            case "object":
                return object()
            case "stopped" if self.stopping:
                self.begun.set()
                await anyio.sleep_forever()
            case content if content.startswith("sent to"):
                return Answer(entries=[reply("yes")], replies=[(f"{content[8:]}:1", content)])
        return answer(turn)

    async def sender(self, sending: sessiondb.Reply) -> Any:
        self.sent.append(sending.target)
        match sending.target.partition(":")[0]:
            case "a stray":
                await of_a_scope()
            case "a dict":
                return {"id": 1}
            case "a slow one":
                await self.release.wait()
        return "a receipt"


async def unending(loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop. It ends only when it is cancelled."""
    await loop()
    raise AssertionError("a loop of the gateway returned")


async def all_is_over(db: sessiondb.SessionDB, troubled: Troubled) -> bool:
    """Tell whether nothing is open but the calls of the slow channel. Then let these end, too."""
    waiting = [row for row in await look(db, "outbox") if row.state in ("pending", "sending")]
    if not await nothing_open(db) or {row.target for row in waiting} - {"a slow one:1"}:
        return False
    troubled.release.set()
    return not waiting


async def live(path: Path, troubled: Troubled) -> None:
    """Accept a message for each trouble, in a conversation of its own, and end them all."""
    async with sessiondb.open(path) as db:
        for name in sorted(DEAD | ANSWERED):
            session = await db.session(f"agent:main:web:{name}")
            await session.append(reply("hello"))
        damaged = (await db.session("agent:main:web:damaged")).ref.session_no
        await say(db, "stopped", "agent:main:web:stopped", text="stopped")
        for _ in range(4):  # more often than a message may be interrupted by a death
            troubled.begun = anyio.Event()
            async with running(*loops(db, troubled)):
                with anyio.fail_after(PATIENCE):
                    await troubled.begun.wait()
        troubled.stopping = False
        for name in sorted(DEAD | ANSWERED - {"stopped"}):
            for number in range(3 if name == "sent to a slow one" else 1):
                key = f"agent:main:web:{name}{number or ''}"
                await say(db, f"{name}{number or ''}", key, text=name)
    head_is_lost(path, damaged)
    async with sessiondb.open(path) as db:
        async with running(*loops(db, troubled)):
            await eventually(partial(all_is_over, db, troubled), within_s=PATIENCE)
        await check(db)


PATIENCE = 60.0


def loops(db: sessiondb.SessionDB, troubled: Troubled) -> list[Callable[[], Awaitable[None]]]:
    lane = partial(db.run_lane, handler=troubled.handler, settings=SETTINGS)
    return [
        partial(unending, loop)
        for loop in (
            partial(lane, "main"),
            partial(lane, "cron"),
            partial(lane, "resume"),
            partial(db.run_outbox, troubled.sender, at_once=2),
            partial(db.run_recovery, POLICY, every_s=0.05),
        )
    ]


async def check(db: sessiondb.SessionDB) -> None:
    """Check that each message ended as it should, and that each sender was told."""
    states = await inbox_states(db)
    dead = {event_id for event_id, state in states.items() if state == "dead"}
    assert dead == DEAD
    reasons = {row.event_id: row.reason for row in await look(db, "inbox")}
    for name in ("text", "object"):
        assert "Answer" in reasons[name], "it says what was expected"
    found = {row.target: row.state for row in await look(db, "outbox")}
    assert (found["a stray:1"], found["a dict:1"], found["a slow one:1"]) == (
        "unknown",
        "unknown",
        "sent",
    )
    report = await db.verify()
    assert [item for item in report.findings if item.check in ("unanswered", "inbox")] == []
    await forward_all(db)


async def forward_all(db: sessiondb.SessionDB) -> None:
    """Tell the people of all that they should know, the last event first."""
    user = (await db.read("events", lambda tx: events.after(tx, event_no=0, audience="user"))).rows
    about = [event for event in user if event.session_id is not None]
    await read_as(db, "notices")
    for event in reversed(about):
        assert await db.forward_event(
            event, consumer="notices", target="web:1", message={"text": event.text}
        )
        assert not await db.forward_event(
            event, consumer="notices", target="web:1", message={"text": event.text}
        )
    told = {event.data.get("inbox_no") for event in user}
    assert {row.inbox_no for row in await look(db, "inbox") if row.state == "dead"} <= told


async def test_every_message_ends_whatever_handlers_and_senders_do(tmp_db: Path) -> None:
    await live(tmp_db, Troubled())


# -- old rules put back -----------------------------------------------------------------------


def a_stray_cancellation_ends_a_loop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cancellation.Watch, "is_asked", lambda self: True)


def a_wrong_answer_is_not_named(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(running_turn, "_checked_answer", lambda returned: returned)


def a_wrong_receipt_is_stored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dispatcher, "_checked_receipt", lambda returned: "a receipt")


def damage_stops_its_lane(patch: pytest.MonkeyPatch) -> None:
    async def stop(db: Any, stuck: claims.CannotBegin) -> None:
        raise stuck

    patch.setattr(damage, "set_aside_message", stop)


def a_slow_channel_holds_up_the_others(patch: pytest.MonkeyPatch) -> None:
    full = dispatcher._Calls.full

    def of_all(self: Any) -> list[str]:
        busy = sum(self._calls.values()) >= self._at_once
        return ["a slow one", "a stray", "a dict", "web"] if busy else full(self)

    patch.setattr(dispatcher._Calls, "full", of_all)


def a_cursor_fences_what_is_forwarded(patch: pytest.MonkeyPatch) -> None:
    forward = outbox.forward_event

    def fenced(tx: Any, event: Any, consumer: str, *where: str) -> bool:
        if event.event_no <= (events.cursor(tx, consumer) or 0):
            return False
        events.move_cursor(tx, consumer=consumer, event_no=event.event_no)
        return forward(tx, event, consumer, *where)

    patch.setattr(outbox, "forward_event", fenced)


def an_orderly_stop_is_a_strike(patch: pytest.MonkeyPatch) -> None:
    interrupt = turns.interrupt
    patch.setattr(
        turns,
        "interrupt",
        lambda tx, turn_no, reason, **_: interrupt(tx, turn_no, reason),
    )


@one_loop
@pytest.mark.parametrize(
    "old_rule",
    [
        a_stray_cancellation_ends_a_loop,
        a_wrong_answer_is_not_named,
        a_wrong_receipt_is_stored,
        damage_stops_its_lane,
        a_slow_channel_holds_up_the_others,
        a_cursor_fences_what_is_forwarded,
        an_orderly_stop_is_a_strike,
    ],
    ids=lambda rule: rule.__name__,
)
async def test_an_old_rule_put_back_is_noticed(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, old_rule: Callable[[pytest.MonkeyPatch], None]
) -> None:
    monkeypatch.setattr(f"{__name__}.PATIENCE", 10.0)  # what never ends is waited for this long
    old_rule(monkeypatch)
    with pytest.raises(BaseException) as noticed:  # it is judged below
        await live(tmp_db, Troubled())
    assert all(isinstance(error, NOTICED) for error in flat(noticed.value)), noticed.value


# A check that failed, a loop that ended, or a wait in vain. Anything else is a mistake here.
NOTICED = (AssertionError, TimeoutError, sessiondb.SessionDBError, claims.CannotBegin)


def flat(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in flat(inner)]
    return [error]
