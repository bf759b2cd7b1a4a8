"""The inbox: an accepted message is a row, once and in order. A refused one is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import paging
from sessiondb.backend import ReadTx
from sessiondb.gateway import claims, inbox, outbox
from sessiondb.gateway.running_turn import Answer, Turn
from sessiondb.limits import SESSION_KEY_CHARS_MAX
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.sqlite import writer
from tests.support.core import query, user
from tests.support.engine import other_process
from tests.support.gateway import (
    KEY,
    Clock,
    answer,
    claim,
    claimed,
    complete,
    eventually,
    fail,
    inbox_states,
    interrupt,
    kinds,
    look,
    nothing_open,
    running,
    say,
)

pytestmark = pytest.mark.anyio


async def test_a_message_delivered_often_is_accepted_once(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        first = await say(db, "e1")
        again = [await say(db, "e1") for _ in range(3)]
        other = await db.accept(
            KEY, user("another channel's own numbering"), channel="discord", event_id="e1"
        )
        assert [row.event_id for row in await look(db, "inbox")] == ["e1", "e1"]
    assert (first.state, first.duplicate, first.ahead) == ("queued", False, 0)
    assert {(one.inbox_no, one.session_id, one.duplicate) for one in again} == {
        (first.inbox_no, first.session_id, True)
    }
    assert (other.duplicate, other.ahead) == (False, 1)


async def test_a_duplicate_gets_the_state_of_the_first(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        assert (await say(db, "e1")).state == "claimed"
        await complete(db, turn.turn_no, "answer")
        assert (await say(db, "e1")).state == "done"


CHILD = """
import os, signal, sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        for number in range(50):
            message = {"role": "user", "content": f"m{number}"}
            event = {"channel": "web", "event_id": f"e{number}"}
            accepted = await db.accept("agent:main:web:1", message, **event)
            print(accepted.inbox_no, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main, backend=sys.argv[2])
"""


async def test_what_was_accepted_survives_kill_9(tmp_db: Path, anyio_backend: str) -> None:
    with other_process(CHILD, tmp_db, anyio_backend) as child:
        out, err = child.communicate(timeout=60)
        assert child.returncode == -9, err
    assert out.split() == [str(number) for number in range(1, 51)]
    async with sessiondb.open(tmp_db) as db:
        assert [row.event_id for row in await look(db, "inbox")] == [
            f"e{number}" for number in range(50)
        ]
        assert (await say(db, "e49", text="m49")).duplicate
        assert (await db.verify()).ok


async def test_a_full_session_names_its_holder_and_a_time_to_retry(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "SESSION_WAITING_MAX", 3)
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db, lease_ms=20_000)
        await say(db, "e2")
        assert (await say(db, "e3")).ahead == 2
        with pytest.raises(sessiondb.SessionBusy) as caught:
            await say(db, "e4")
        assert isinstance(caught.value, sessiondb.StoreBusy), (
            "an adapter that knows only StoreBusy still NACKs"
        )
        assert f"turn {turn.turn_no}" in caught.value.holder
        assert "message from web" in str(caught.value)
        assert 0 < caught.value.retry_after_ms <= 1_000, "nothing has ended yet: a second"
        assert (await say(db, "e4b", "agent:main:web:2")).ahead == 0, "other conversations go on"
        assert (await say(db, "e1")).duplicate, "a duplicate is answered even now"
        await complete(db, turn.turn_no, "done")
        assert (await say(db, "e4")).state == "queued"


async def test_limits_count_a_session_and_a_lane(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred heartbeats that nobody runs refuse no person."""
    monkeypatch.setattr(inbox, "SESSION_WAITING_MAX", 2)
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, "agent:main:web:2"):
            for number in range(2):
                await say(db, f"beat {number} of {key}", key, lane="cron")
            with pytest.raises(sessiondb.SessionBusy, match="2 messages of lane cron are waiting"):
                await say(db, f"one more of {key}", key, lane="cron")
            assert (await say(db, f"a person of {key}", key)).ahead == 0


async def test_a_refused_sender_is_told_the_pace_of_the_queue(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    monkeypatch.setattr(inbox, "SESSION_WAITING_MAX", 3)
    monkeypatch.setattr(inbox, "LANE_WAITING_MAX", 9)
    slow, quick = "agent:main:web:slow", "agent:main:web:quick"
    async with sessiondb.open(tmp_db) as db:

        async def answer_one(key: str, took_ms: int) -> None:
            await say(db, f"{key} {clock()}", key)
            turn = await claimed(db, lease_ms=30_000)
            clock.pass_ms(took_ms)
            await complete(db, turn.turn_no, "x")

        for _ in range(2):
            await answer_one(slow, 8_000)
            await answer_one(quick, 400)
        for key in (slow, quick):
            await say(db, f"runs of {key}", key)
            await claimed(db, lease_ms=30_000)
            for number in range(2):
                await say(db, f"{number} waits in {key}", key)
        told = {}
        for after_ms in (0, 300, 10_000):
            clock.pass_ms(after_ms)
            for key in (slow, quick):
                with pytest.raises(sessiondb.SessionBusy) as caught:
                    await say(db, "refused", key)
                told[key, after_ms] = caught.value.retry_after_ms
        assert told == {
            (slow, 0): 8_000,
            (quick, 0): 400,
            (slow, 300): 7_700,
            (quick, 300): 100,
            (slow, 10_000): 8_000,
            (quick, 10_000): 400,
        }, "what a turn takes, less what this one has taken; not the end of a lease"
        for number in range(5):
            await say(db, f"fills the lane {number}", f"agent:main:web:{number}")
        with pytest.raises(sessiondb.SessionBusy, match="lane main") as caught:
            await say(db, "refused", "agent:main:web:new")
        assert caught.value.retry_after_ms == (2 * 8_000 + 2 * 400) // 4 // 4, "four at once"


async def test_a_dead_letter_that_is_requeued_runs_as_it_was_accepted(tmp_db: Path) -> None:
    """Also one that died as a resume: nobody may run that lane, and its time is short."""
    async with sessiondb.open(tmp_db) as db:
        for event, key in (("e1", KEY), ("e2", "agent:main:web:2")):
            await say(db, event, key)
            await interrupt(db, (await claimed(db)).turn_no)
            await db.resume()
            await db.write("hurry", lambda tx: tx.run("look.hurry"))
            await fail(db, (await claimed(db, "resume")).turn_no, retry=False)
        assert await inbox_states(db) == {"e1": "dead", "e2": "dead"}
        await db.requeue(1)
        [first, second] = await look(db, "inbox")
        assert (first.state, first.lane, first.timeout_ms) == ("queued", "main", None)
        assert (second.state, second.lane) == ("dead", "resume")
        turn = await claimed(db)
        assert (turn.inbox_no, turn.kind, turn.attempt) == (1, "message", 1)
        await (await db.session("agent:main:web:2")).end()
        with pytest.raises(sessiondb.SessionEnded, match="cannot be requeued"):
            await db.requeue(2)
        assert (await inbox_states(db))["e2"] == "dead"


async def test_a_session_with_dead_letters_is_not_archived(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for event, key in (("e1", KEY), ("e2", "agent:main:web:2")):
            await say(db, event, key)
            await fail(db, (await claimed(db)).turn_no, retry=False)
        policy = RetentionPolicy(max_sessions=0, idle_days=0)
        report = await db.gc(policy)
        assert report.count("done") == 0
        await db.drop(1)
        assert (await db.gc(policy)).count("done") == 1, "the one whose letter was dropped"
        await db.requeue(2)
        assert (await claimed(db)).inbox_no == 2


async def test_a_full_lane_is_busy_and_stores_nothing(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "LANE_WAITING_MAX", 2)
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", "agent:main:web:1")
        await say(db, "e2", "agent:main:web:2")
        with pytest.raises(sessiondb.SessionBusy) as caught:
            await say(db, "e3", "agent:main:web:3")
        assert caught.value.holder == "lane main"
        assert caught.value.retry_after_ms > 0
        assert (await say(db, "c1", "agent:main:web:3", lane="cron")).state == "queued", (
            "each lane has its own limit"
        )
        with pytest.raises(sessiondb.SessionBusy):
            await say(db, "e4", "agent:main:web:4")
        with pytest.raises(sessiondb.NotFound):
            await db.session("agent:main:web:4", create=False)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ([user("in a list")], "a message is a dict, a typed message, or JSON text, not list"),
        (None, "not NoneType"),
        ({"content": "no role"}, "role"),
        ({"type": "session_info", "name": "n"}, "are appended to their session, not accepted"),
        ("{not json", "the entry is"),
        ('{"role": "user",\n"content": "two lines"}', "one line"),
        ('{"role": "user", "content": "\ud800"}', "not valid Unicode"),
        ({"role": "user", "content": float("nan")}, "JSON"),
    ],
)
async def test_accept_refuses_what_a_transcript_would_refuse(
    tmp_db: Path, message: Any, says: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(sessiondb.InvalidInput, match=says):
            await db.accept(KEY, message, channel="web", event_id="e1")
        assert await look(db, "inbox") == []


async def test_bad_addresses_are_refused(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(sessiondb.NotFound, match=r"no lane 'fast'; make it with db\.set_lane"):
            await say(db, "e1", lane="fast")
        with pytest.raises(
            sessiondb.InvalidInput, match="lane 'resume' is for interrupted messages"
        ):
            await say(db, "e1", lane="resume")
        with pytest.raises(sessiondb.InvalidKey):
            await say(db, "e1", "discord:1")
        unfit: tuple[Any, ...] = ("", "x" * (SESSION_KEY_CHARS_MAX + 1), 4711)
        for bad in unfit:
            with pytest.raises(sessiondb.InvalidInput, match=r"event_id is .*a text"):
                await say(db, bad, text="x")
            with pytest.raises(sessiondb.InvalidInput, match=r"channel is .*a text"):
                await db.accept(KEY, user("x"), channel=bad, event_id="e1")
        assert await look(db, "inbox") == []
        await db.accept(
            KEY,
            user("x"),
            channel="c" * SESSION_KEY_CHARS_MAX,
            event_id="e" * SESSION_KEY_CHARS_MAX,
        )
        assert len(await look(db, "inbox")) == 1


async def test_an_ended_session_takes_no_message_and_drops_its_queue(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        session = await db.session(KEY)
        await session.end()
        with pytest.raises(sessiondb.SessionEnded, match="unbind the key"):
            await say(db, "e2")
        candidate = await db.read("peek", lambda tx: claims.peek(tx, "main", 2**60))
        assert candidate is not None, "it waits; the claim finds out"
    async with sessiondb.open(tmp_db) as db:
        assert await claim(db) is None
        assert await inbox_states(db) == {"e1": "dead"}
        assert await kinds(db) == ["message_dead", "message_dead"]
        await db.unbind(KEY)
        assert (await say(db, "e2")).state == "queued"


async def test_a_message_of_hundreds_of_kilobytes_is_kept_as_it_is(tmp_db: Path) -> None:
    text = '{ "role": "user",  "content": ' + json.dumps("long " * 100_000) + "}"
    async with sessiondb.open(tmp_db) as db:
        await db.accept(KEY, text, channel="web", event_id="e1")
        turn = await claimed(db)
        session = await db.session(KEY)
        assert (await session.entries(last=1))[0].entry_id == turn.entry_id
    [payload] = query(tmp_db, "SELECT payload FROM entry WHERE role = 'user'")
    assert text in payload


async def test_first_come_first_served_also_behind_a_retry(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        for event in ("e1", "e2", "e3"):
            await say(db, event)
        await say(db, "other", "agent:main:web:2")
        first = await claimed(db)
        assert first.inbox_no == 1
        assert (await claimed(db)).inbox_no == 4, "the session is busy; another one is not"
        await fail(db, first.turn_no)
        assert await claim(db) is None, "e2 must not overtake e1, which waits for its retry"
        clock.pass_ms(1_000)
        again = await claimed(db)
        assert (again.inbox_no, again.attempt) == (1, 2)
        await complete(db, again.turn_no, "one")
        for number in (2, 3):
            turn = await claimed(db)
            assert turn.inbox_no == number
            await complete(db, turn.turn_no, str(number))
        message = [
            json.loads(row.payload)["message"]["content"]
            for row in await look(db, "user_entries")
            if row.session_no == 1
        ]
    assert message == ["e1", "e2", "e3"]


async def test_dead_letters_are_listed_requeued_and_dropped(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for event in ("e1", "e2"):
            await say(db, event)
            await fail(db, (await claimed(db)).turn_no, "the model refused", retry=False)
        letters = [letter async for letter in db.dead_letters()]
        assert [(letter.inbox_no, letter.event_id, letter.reason) for letter in letters] == [
            (2, "e2", "the model refused"),
            (1, "e1", "the model refused"),
        ]
        await db.drop(2)
        await db.requeue(1)
        assert await inbox_states(db) == {"e1": "queued", "e2": "done"}
        turn = await claimed(db)
        assert (turn.inbox_no, turn.attempt) == (1, 1)
        for number in (1, 2, 77):
            with pytest.raises(sessiondb.NotFound, match="not a dead letter"):
                await db.requeue(number)
            with pytest.raises(sessiondb.NotFound, match="not a dead letter"):
                await db.drop(number)
        assert (await say(db, "e2")).duplicate, "a dropped event is never accepted again"
        assert (await db.verify()).ok


async def test_a_bounded_list_reads_no_more_than_its_bound(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(5):
            await say(db, f"dead {number}")
            turn = await claimed(db)
            await fail(db, turn.turn_no, retry=False)
            await say(db, f"answered {number}", "agent:main:web:2")
            await complete(db, (await claimed(db)).turn_no, "x", replies=[("web:2", str(number))])
        read: list[int] = []

        def spied(whole: Callable[..., Any]) -> Callable[..., Any]:
            def spy(tx: Any, cursor: Any, limit: int, **where: Any) -> Any:
                read.append(limit)
                return whole(tx, cursor, limit, **where)

            return spy

        monkeypatch.setattr(inbox, "dead_letters", spied(inbox.dead_letters))
        monkeypatch.setattr(outbox, "replies", spied(outbox.replies))
        monkeypatch.setattr(paging, "PAGE_ROWS", 2)
        assert [letter.event_id async for letter in db.dead_letters(limit=3)] == [
            "dead 4",
            "dead 3",
            "dead 2",
        ]
        assert [json.loads(reply.payload) async for reply in db.replies("pending", limit=3)] == [
            "0",
            "1",
            "2",
        ]
        assert read == [2, 1, 2, 1]
        assert [letter async for letter in db.dead_letters(limit=0)] == []
        assert (
            len([letter async for letter in db.dead_letters()])
            == len([reply async for reply in db.replies("pending")])
            == 5
        )


async def test_a_message_that_waits_long_has_one_notice(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await say(db, "e2")
        await claimed(db)
        assert (
            await db.write("t", lambda tx: inbox.notify_delayed(tx, "main", after_ms=10_000)) == 0
        )
        clock.pass_ms(10_000)
        assert (
            await db.write("t", lambda tx: inbox.notify_delayed(tx, "main", after_ms=10_000)) == 1
        ), "e1 is being worked on"
        assert (
            await db.write("t", lambda tx: inbox.notify_delayed(tx, "main", after_ms=10_000)) == 0
        )
        [event] = await look(db, "events")
    assert (event.kind, event.audience) == ("message_delayed", "user")
    assert json.loads(event.data) == {"inbox_no": 2, "waited_ms": 10_000}


@pytest.mark.parametrize(("set_back_ms", "after_ms"), [(5_000, 15_000), (11_000, 0), (10**8, 0)])
async def test_a_clock_that_was_set_back_delays_a_notice_for_as_long_again_at_most(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, set_back_ms: int, after_ms: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)

    async def told() -> int:
        return await db.write("t", lambda tx: inbox.notify_delayed(tx, "main", after_ms=10_000))

    async def next_ms() -> int | None:
        def due(tx: ReadTx) -> int | None:
            return inbox.next_notice_ms(tx, "main", clock(), after_ms=10_000)

        return await db.read("t", due)

    async with sessiondb.open(tmp_db) as db:
        for number in (1, 2):
            await say(db, f"e{number}", f"agent:main:web:{number}")
        clock.pass_ms(-set_back_ms)
        if after_ms:
            clock.pass_ms(after_ms - 1)
            assert await told() == 0
            assert await next_ms() == clock() + 1
            clock.pass_ms(1)
        assert await next_ms() == clock()
        assert await told() == 2
        assert await next_ms() is None
        waited = [json.loads(event.data)["waited_ms"] for event in await look(db, "events")]
    assert waited == [max(0, after_ms - set_back_ms)] * 2


# -- identity ---------------------------------------------------------------------------------


async def test_one_event_id_of_two_conversations_is_an_error_that_names_both(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        alice, bob = "agent:main:telegram:direct:alice", "agent:main:telegram:direct:bob"
        await say(db, "17", alice, text="hi")
        for text in ("hi", "something else"):
            with pytest.raises(sessiondb.IdentityConflict) as caught:
                await say(db, "17", bob, text=text)
            assert alice in str(caught.value)
            assert bob in str(caught.value)
            assert caught.value.inbox_no == 1
        assert len(await look(db, "inbox")) == 1, "nothing was stored"
        with pytest.raises(sessiondb.NotFound):
            await db.session(bob, create=False)
        assert (await say(db, "17", alice, text="hi")).duplicate


async def test_one_event_id_with_two_texts_is_an_error_in_every_state(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", text="one")
        await say(db, "e2", "agent:main:web:2", text="two")

        async def refused() -> None:
            with pytest.raises(sessiondb.IdentityConflict, match=r"call db\.edit"):
                await say(db, "e1", text="another")
            assert (await say(db, "e1", text="one")).duplicate

        await refused()
        turn = await claimed(db)
        await refused()
        await complete(db, turn.turn_no, "answer")
        await refused()
        assert (await say(db, "e2", "agent:main:web:2", text="two")).state == "queued"


async def test_a_repeated_delivery_may_be_stamped_and_laid_out_anew(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for message in (
            {"role": "user", "content": [{"type": "text", "text": "é"}], "timestamp": 1},
            {"timestamp": 2, "content": [{"text": "é", "type": "text"}], "role": "user"},
            '{ "role": "user", "content": [{"type": "text", "text": "\\u00e9"}] }',
        ):
            accepted = await db.accept(KEY, message, channel="web", event_id="e1")
            assert accepted.inbox_no == 1


async def test_a_repetition_is_known_after_its_key_was_bound_anew(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        first = await say(db, "e1")
        await db.unbind(KEY)
        await say(db, "e2")
        again = await say(db, "e1")
        assert (again.inbox_no, again.session_id, again.duplicate) == (1, first.session_id, True)


# -- edits ------------------------------------------------------------------------------------


async def edit(
    db: sessiondb.SessionDB, text: str, version: int, event_id: str = "e1", key: str = KEY
) -> sessiondb.Edited:
    return await db.edit(key, user(text), channel="web", event_id=event_id, version=version)


async def read_by(db: sessiondb.SessionDB, started: claims.Started) -> list[Any]:
    """Return what a turn's handler reads: the contents of its context."""
    context = await (await db.session_by_id(started.session_id)).context()
    return [message["content"] for message in context.messages if message["role"] == "user"]


async def test_an_edit_of_a_waiting_message_takes_its_place(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", text="old")
        await say(db, "e2", text="behind")
        edited = await edit(db, "new", 1)
        assert (edited.inbox_no, edited.outcome, edited.duplicate) == (1, "replaced", False)
        assert edited.answering_turn_no is None
        assert (await say(db, "e1", text="old")).duplicate, "the first delivery is still known"
        turn = await claimed(db)
        assert (turn.inbox_no, turn.edit_of) == (1, None)
        assert await read_by(db, turn) == ["new"]
        await complete(db, turn.turn_no, "answer")
        assert (await claimed(db)).inbox_no == 2
        assert (await db.verify()).ok


@pytest.mark.parametrize("state", ["claimed", "done", "dead", "interrupted", "retry", "dropped"])
async def test_an_edit_of_a_text_that_was_read_is_a_message_of_its_own(
    tmp_db: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("fast", concurrency=1, priority=0)
        await say(db, "e1", text="old", lane="fast")
        first = await claimed(db, "fast")
        if state == "done":
            await complete(db, first.turn_no, "answer")
        elif state in ("dead", "dropped"):
            await fail(db, first.turn_no, retry=False)
        elif state == "interrupted":
            await interrupt(db, first.turn_no)
        elif state == "retry":
            await fail(db, first.turn_no)
        if state == "dropped":
            await db.drop(1)
        edited = await edit(db, "new", 5)
        assert (edited.inbox_no, edited.outcome) == (2, "queued")
        assert edited.answering_turn_no == (first.turn_no if state == "claimed" else None)
        again = await edit(db, "new", 5)
        assert (again.inbox_no, again.outcome, again.duplicate) == (2, "queued", True)
        assert await claim(db, "main") is None, "it waits in the message's own lane"
        if state == "claimed":
            assert await claim(db, "fast") is None, "the turn goes on"
            await db.abort_turn(first.turn_no, "its message was edited")
        if state == "retry":
            clock.pass_ms(1_000)
            await complete(db, (await claimed(db, "fast")).turn_no, "late")
        turn = await claimed(db, "fast")
        assert (turn.inbox_no, turn.edit_of) == (2, 1)
        assert await read_by(db, turn) == ["old", "new"]
        await complete(db, turn.turn_no, "answer to the new text")
        assert (await db.verify()).ok


async def test_edits_in_any_order_leave_the_newest_text(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", text="one")
        await edit(db, "three", 3)
        for version in (2, 3):
            late = await edit(db, "two", version)
            assert (late.inbox_no, late.outcome, late.duplicate) == (1, "replaced", True)
        turn = await claimed(db)
        assert await read_by(db, turn) == ["three"]
        assert (await edit(db, "four", 4)).inbox_no == 2
        assert (await edit(db, "six", 6)).outcome == "replaced", "nobody has read the fourth text"
        assert (await edit(db, "five", 5)).duplicate
        await complete(db, turn.turn_no, "answer")
        assert await read_by(db, await claimed(db)) == ["three", "six"]
        assert await claim(db) is None


async def test_an_edit_that_changes_nothing_asks_no_turn_again(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", text="see https://example.org")
        await complete(db, (await claimed(db)).turn_no, "answer")
        preview = await edit(db, "see https://example.org", 1)
        assert (preview.outcome, preview.inbox_no, preview.duplicate) == ("unchanged", 1, False)
        with pytest.raises(sessiondb.IdentityConflict):
            await say(db, "e1", text="another text")
        assert len(await look(db, "inbox")) == 1


async def test_an_edit_that_cannot_be_taken_leaves_no_trace(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "SESSION_WAITING_MAX", 2)
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(sessiondb.NotFound, match="accept the edited text as a message"):
            await edit(db, "new", 1)
        await say(db, "e1", text="old")
        turn = await claimed(db)
        await say(db, "e2")
        with pytest.raises(sessiondb.SessionBusy):
            await edit(db, "new", 1)
        with pytest.raises(sessiondb.IdentityConflict, match="agent:main:web:2"):
            await edit(db, "new", 1, key="agent:main:web:2")
        for version in (0, -1, True, "2", 2**63):
            with pytest.raises(sessiondb.InvalidInput, match=r"number of at least 1|whole number"):
                await edit(db, "new", version)  # type: ignore[arg-type]
        await complete(db, turn.turn_no, "answer")
        assert (await edit(db, "new", 1)).outcome == "queued", "the same edit again"
        assert (await db.verify()).ok


async def test_an_edit_follows_its_conversation_to_a_new_session(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        first = await say(db, "e1", text="old")
        await complete(db, (await claimed(db)).turn_no, "answer")
        await db.unbind(KEY)
        edited = await edit(db, "new", 1)
        assert edited.session_id != first.session_id
        assert await read_by(db, await claimed(db)) == ["new"]


async def test_a_handler_is_told_that_its_message_is_an_edit(tmp_db: Path) -> None:
    seen: list[int | None] = []

    async def handler(turn: Turn) -> Answer:
        seen.append(turn.edit_of)
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1", text="old")
        await complete(db, (await claimed(db)).turn_no, "answer")
        await edit(db, "new", 1)
        async with running(lambda: db.run_lane("main", handler)):
            await eventually(lambda: nothing_open(db))
    assert seen == [1]
