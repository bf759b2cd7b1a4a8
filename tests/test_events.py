"""Events: with their change or not at all. At least once. From a cursor that only moves forward."""

from __future__ import annotations

import json
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb import events
from sessiondb.backend import Tx
from sessiondb.gateway import outbox
from sessiondb.limits import CONSUMER_CHARS_MAX
from sessiondb.words import (
    Audience,
)
from tests.support.compaction import begin_in
from tests.support.core import reply, user
from tests.support.engine import other_process
from tests.support.gateway import KEY, claimed, complete, interrupt, kinds, look, read_as, say

pytestmark = pytest.mark.anyio


def emit(text: str, audience: Audience = "operator") -> Any:
    return lambda tx: events.emit(tx, "test", audience, text, number=1)


async def take(db: sessiondb.SessionDB, consumer: str, count: int, **options: Any) -> list[str]:
    """Take `count` events, and stop before the last one counts as handled."""
    found: list[str] = []
    with anyio.fail_after(30):
        async with aclosing(db.events(consumer, **options)) as stream:
            async for event in stream:
                found.append(event.text)
                if len(found) == count:
                    break
    return found


async def test_an_event_and_its_change_are_written_together_or_not(
    tmp_db: Path,
) -> None:
    def both(tx: Tx) -> None:
        events.emit(tx, "test", "operator", "said")
        raise ZeroDivisionError

    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(ZeroDivisionError):
            await db.write("both", both)
        assert await look(db, "events") == []
        await say(db, "e1")
        turn = await claimed(db)
        original = events.emit

        def broken(*args: Any, **options: Any) -> None:
            raise ZeroDivisionError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(events, "emit", broken)
            with pytest.raises(ZeroDivisionError):
                await interrupt(db, turn.turn_no)
        assert events.emit is original
        assert [row.state for row in await look(db, "turns")] == ["running"]


async def test_an_event_is_delivered_again_until_it_has_been_handled(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(4):
            await db.write("emit", emit(str(number)))
        assert await take(db, "reader", 3, from_start=True) == ["0", "1", "2"]
        assert await take(db, "reader", 2) == ["2", "3"], "2 was handed out but not handled"
    async with sessiondb.open(tmp_db) as db:
        assert await take(db, "reader", 1) == ["3"], "the cursor is in the database"
        assert await take(db, "another", 4, from_start=True) == ["0", "1", "2", "3"]


async def test_a_new_consumer_begins_now_and_an_old_one_where_it_was(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.write("emit", emit("before"))
        found: list[str] = []
        listening = anyio.Event()

        async def listen() -> None:
            async with aclosing(db.events("reader")) as stream:
                listening.set()
                async for event in stream:
                    found.append(event.text)
                    if len(found) == 2:
                        return

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                await listening.wait()
                while not await look(db, "cursors"):  # noqa: ASYNC110
                    await anyio.sleep(0.002)
                await db.write("emit", emit("after"))
                await db.write("emit", emit("and after that"))
        assert found == ["after", "and after that"]
        await db.write("emit", emit("while it was away"))
        assert await take(db, "reader", 2) == ["and after that", "while it was away"]


async def test_a_cursor_never_moves_back(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for event_no in (5, 3, 7, 7, 1):
            await db.write(
                "move", lambda tx, n=event_no: events.move_cursor(tx, consumer="reader", event_no=n)
            )
        assert await db.read("cursor", lambda tx: events.cursor(tx, "reader")) == 7


async def test_each_audience_gets_its_own_events_and_reads_them_once(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAGE", 10)
    asked: list[int] = []
    after = events.after

    def counted(tx: Any, *, event_no: int, **options: Any) -> Any:
        asked.append(event_no)
        return after(tx, event_no=event_no, **options)

    monkeypatch.setattr(events, "after", counted)
    async with sessiondb.open(tmp_db) as db:
        await db.write("emit", lambda tx: [emit(f"o{number}")(tx) for number in range(25)])
        await db.write("emit", emit("for the user", "user"))
        await db.write("emit", lambda tx: [emit(f"o{number}")(tx) for number in range(25)])
        found: list[str] = []

        async def listen() -> None:
            async with aclosing(db.events("channel", audience="user", from_start=True)) as stream:
                async for event in stream:
                    found.append(event.text)
                    if event.text == "last":
                        return

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                while (await _cursor(db)) < 51:  # noqa: ASYNC110
                    await anyio.sleep(0.002)
                await db.write("emit", emit("last", "user"))
        assert found == ["for the user", "last"]
        assert asked[-1] >= 51, "it does not read the operators' events again"


async def _cursor(db: sessiondb.SessionDB) -> int:
    return sum(row.event_no for row in await look(db, "cursors"))


async def test_a_busy_database_ends_no_reader(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = {"events": 2, "events.cursor": 0}
    async with sessiondb.open(tmp_db) as db:
        for number in range(3):
            await db.write("emit", emit(str(number)))
        real_read, real_write = db.read, db.write

        async def read(op: str, *args: Any) -> Any:
            return await _or_busy(failures, op, real_read, *args)

        async def write(op: str, *args: Any) -> Any:
            return await _or_busy(failures, op, real_write, *args)

        with anyio.fail_after(30):
            async with aclosing(db.events("reader", from_start=True)) as stream:
                assert (await anext(stream)).text == "0"
                monkeypatch.setattr(db, "read", read)
                monkeypatch.setattr(db, "write", write)
                failures["events.cursor"] = 2
                assert [(await anext(stream)).text for _ in range(2)] == ["1", "2"]
                await real_write("emit", emit("3"))
                assert (await anext(stream)).text == "3"
    assert failures == {"events": 0, "events.cursor": 0}
    assert caplog.text.count("full") == 2, (
        "logged once for the reads and once for the cursor, not at each attempt"
    )


async def _or_busy(failures: dict[str, int], op: str, call: Any, *args: Any) -> Any:
    if failures.get(op, 0) > 0:
        failures[op] -= 1
        raise sessiondb.StoreBusy("full", retry_after_ms=1)
    return await call(op, *args)


EMIT = """
import sys, anyio, sessiondb
from sessiondb import events
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        print("open", flush=True)
        for line in sys.stdin:
            await db.write("emit", lambda tx: events.emit(tx, "test", "operator", line.strip()))
anyio.run(main)
"""


async def test_an_event_of_another_process_wakes_a_reader(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        with other_process(EMIT, tmp_db) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            found: list[str] = []
            with anyio.fail_after(30):
                async with aclosing(db.events("reader", from_start=True)) as stream:
                    for number in range(3):
                        child.stdin.write(f"{number}\n")
                        child.stdin.flush()
                        found.append((await anext(stream)).text)
    assert found == ["0", "1", "2"]


# -- compaction -----------------------------------------------------------------------------


async def talk(db: sessiondb.SessionDB) -> sessiondb.Session:
    session = await db.session(KEY)
    for number in range(6):
        await session.append_many(
            [user(f"question {number} " * 30), reply(f"answer {number} " * 30)]
        )
    return session


async def begin(
    db: sessiondb.SessionDB,
    session: sessiondb.Session,
    trigger: str = "threshold",
    timeout_ms: int = 60_000,
) -> str:
    job = await db.write(
        "begin",
        lambda tx: begin_in(
            tx,
            session.ref.session_no,
            trigger=trigger,
            keep_recent_tokens=50,
            timeout_ms=timeout_ms,
        ),
    )
    return job.compaction_id


async def test_a_compaction_says_that_it_began_and_how_it_ended(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await talk(db)
        job = await begin(db, session)
        for _ in range(3):
            await db.commit_compaction(job, "summary")
        assert await kinds(db) == ["compaction_started", "compaction_committed"], (
            "a commit that is repeated says nothing more"
        )
        committed = (await look(db, "events"))[1]
        assert json.loads(committed.data) == {
            "compaction_id": job,
            "trigger": "threshold",
            "epoch": 1,
        }
        assert committed.session_no == session.ref.session_no


@pytest.mark.parametrize(
    ("trigger", "report"), [("threshold", []), ("manual", ["compaction_failed", "compaction_late"])]
)
async def test_a_late_commit_has_events_also_for_a_user_who_waits(
    tmp_db: Path, trigger: str, report: list[str]
) -> None:
    async with sessiondb.open(tmp_db) as db:
        job = await begin(db, await talk(db), trigger)
        assert await db.fail_compaction(job, "the deadline passed", state="expired")
        assert not await db.fail_compaction(job, "again")
        assert (await db.commit_compaction(job, "summary")).late
        assert await kinds(db, "operator") == [
            "compaction_started",
            "compaction_failed",
            "compaction_late",
        ]
        assert await kinds(db, "user") == report


@pytest.mark.parametrize("trigger", ["manual", "threshold"])
@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("committed", "has been compacted"),
        ("superseded", "moved on"),
        ("rejected", "any shorter"),
        ("cancelled", "was stopped"),
        ("failed", "could not be compacted"),
        ("expired", "in time"),
        ("abandoned", "could not be compacted"),
    ],
)
async def test_a_compaction_by_hand_has_one_event_for_its_user(
    tmp_db: Path, trigger: str, outcome: Any, words: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await talk(db)
        job = await begin(db, session, trigger)
        if outcome == "superseded":
            await session.reset()
        if outcome in ("committed", "superseded", "rejected"):
            for _ in range(2):
                assert (
                    await db.commit_compaction(job, " " if outcome == "rejected" else "summary")
                ).outcome == outcome
        else:
            await db.fail_compaction(job, "for a reason", state=outcome)
        report = [event for event in await look(db, "events") if event.audience == "user"]
        if trigger == "manual":
            [event] = report
            assert event.kind == (
                f"compaction_{outcome}"
                if outcome in ("committed", "superseded", "rejected")
                else "compaction_failed"
            )
            assert words in event.text
            assert event.session_no == session.ref.session_no
        else:
            assert report == [], "nobody waits for it"


async def test_a_late_commit_that_changes_nothing_has_no_new_event(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await talk(db)
        job = await begin(db, session, "manual")
        await db.fail_compaction(job, "too slow", state="expired")
        await session.reset()
        assert (await db.commit_compaction(job, "summary")).outcome == "superseded"
        assert await kinds(db, "user") == ["compaction_failed"]


async def test_a_superseded_and_a_rejected_one_say_so_once(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await talk(db)
        job = await begin(db, session)
        await session.reset()
        for _ in range(2):
            assert (await db.commit_compaction(job, "summary")).outcome == "superseded"
        await talk(db)
        job = await begin(db, session)
        for _ in range(2):
            assert (await db.commit_compaction(job, " ")).outcome == "rejected"
        assert await kinds(db) == [
            "compaction_started",
            "compaction_superseded",
            "compaction_started",
            "compaction_rejected",
        ]


async def test_an_overdue_job_has_its_event_when_the_next_begins(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await talk(db)
        await begin(db, session, timeout_ms=0)
        await begin(db, session)
        assert await kinds(db) == ["compaction_started", "compaction_failed", "compaction_started"]


async def test_importing_old_compactions_says_nothing(tmp_db: Path, sample: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(sample)
        assert [job.state async for job in db.compactions()].count("committed") > 0
        assert await look(db, "events") == []


# -- forwarded to a channel -----------------------------------------------------------------


async def user_event(db: sessiondb.SessionDB, text: str) -> sessiondb.Event:
    """Emit an event for the user of a session, and return it as a reader has it."""
    session = await db.session(KEY)
    await db.write(
        "emit", lambda tx: events.emit(tx, "test", "user", text, session_no=session.ref.session_no)
    )
    return (await session.events())[-1]


async def test_events_are_forwarded_in_any_order_once_for_each_reader(tmp_db: Path) -> None:
    """Handled side by side, the last may be first. A crash in between delivers them again."""
    async with sessiondb.open(tmp_db) as db:
        found = [await user_event(db, f"event {number}") for number in range(5)]
        await read_as(db, "notices", "copies")
        for reader in ("notices", "copies"):
            for event in reversed(found):
                assert await db.forward_event(
                    event, consumer=reader, target="web:1", message={"text": event.text}
                )
        for reader in ("notices", "copies"):
            for event in found:
                assert not await db.forward_event(
                    event, consumer=reader, target="web:1", message={"text": event.text}
                )
        texts = [json.loads(row.payload)["text"] async for row in db.replies("pending")]
        assert texts == [f"event {number}" for number in (4, 3, 2, 1, 0)] * 2
        async with aclosing(db.events("notices", from_start=True)) as stream:
            assert [(await anext(stream)).text for _ in found] == [event.text for event in found]
        assert (await db.verify()).ok


async def test_many_processes_forward_an_event_once(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        first, second = await user_event(db, "one"), await user_event(db, "two")
        await read_as(db, "notices")
        assert await db.forward_event(
            first, consumer="notices", target="web:1", message={"text": "one"}
        )
        assert not await other.forward_event(
            first, consumer="notices", target="web:1", message={"text": "one"}
        )
        assert await other.forward_event(
            second, consumer="notices", target="web:1", message={"text": "two"}
        )
        assert not await db.forward_event(
            second, consumer="notices", target="web:1", message={"text": "two"}
        )
        assert not await db.forward_event(
            first, consumer="notices", target="web:1", message={"text": "one"}
        ), "the event before it was forwarded before it"
        found = [
            (reply.turn_no, reply.target, json.loads(reply.payload)["text"])
            async for reply in db.replies("pending")
        ]
        assert found == [(None, "web:1", "one"), (None, "web:1", "two")]
        assert [row.event_no for row in await look(db, "cursors")] == [0], (
            "they have not asked for the next event"
        )
        assert (await db.verify()).ok


async def test_an_event_that_cannot_be_forwarded_moves_no_cursor(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.write("emit", emit("of no session"))
        [without_session] = [event async for event in _one(db)]
        event = await user_event(db, "one")
        await read_as(db, "notices")
        for refused, message in (
            (without_session, {}),
            (event, object()),
            (event, "x" * (65 * 1024 * 1024)),
        ):
            with pytest.raises(sessiondb.InvalidInput):
                await db.forward_event(refused, consumer="notices", target="web:1", message=message)
        with pytest.raises(sessiondb.NotFound, match="under the name 'notice'") as unknown:
            await db.forward_event(event, consumer="notice", target="web:1", message={})
        assert unknown.value.consumer == "notice"
        assert {row.consumer: row.event_no for row in await look(db, "cursors")} == {
            "notices": 0,
            "one": 0,
        }
        assert await look(db, "outbox") == []


async def _one(db: sessiondb.SessionDB) -> Any:
    async with aclosing(db.events("one", from_start=True)) as stream:
        async for event in stream:
            yield event
            return


async def test_a_sessions_newest_events_are_read_oldest_first(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(4):
            await user_event(db, f"number {number}")
            await db.write("emit", emit("somebody else's"))
        session = await db.session(KEY)
        assert [event.text for event in await session.events()] == [
            f"number {number}" for number in range(4)
        ]
        assert [event.text for event in await session.events(limit=2)] == ["number 2", "number 3"]
        assert await session.events(audience="operator") == []
        monkeypatch.setattr(events, "LOOK_BACK", 2)
        assert [event.text for event in await session.events()] == ["number 2", "number 3"]


# -- one row a fact and an audience ------------------------------------------------------------


async def facts(db: sessiondb.SessionDB, *expected: str) -> list[dict[str, Any]]:
    """Return the data of all events. Their kinds and audiences are the expected ones."""
    rows = await look(db, "facts")
    assert [f"{row.kind} {row.audience}" for row in rows] == list(expected)
    return [json.loads(row.data) for row in rows]


async def test_a_turn_that_begins_and_is_answered_is_two_events(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, f"{KEY}0"):
            await say(db, f"of {key}", key)
        for incomplete in (None, "no words"):
            turn = await claimed(db)
            await complete(db, turn.turn_no, replies=[("web:1", "hi")], incomplete=incomplete)
            with pytest.raises(sessiondb.TurnLost):
                await complete(db, turn.turn_no)
        data = await facts(
            db,
            *("turn_started operator", "turn_completed operator"),
            *("turn_started operator", "turn_completed operator", "turn_incomplete user"),
        )
        began, answered, _, unanswered, _ = data
        assert began == {
            "turn_no": 1,
            "inbox_no": 1,
            "lane": "main",
            "turn_kind": "message",
            "attempt": 1,
        }
        assert answered.pop("took_ms") >= 0
        assert answered == {
            "turn_no": 1,
            "inbox_no": 1,
            "attempt": 1,
            "incomplete": False,
            "replies": 1,
        }
        assert (unanswered["turn_no"], unanswered["incomplete"]) == (2, True)
        assert len({row.session_no for row in await look(db, "facts")}) == 2


async def test_a_turn_that_is_stopped_is_an_event_for_both(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await db.abort_turn((await claimed(db)).turn_no, "enough")
        _, of_user, of_operator = await facts(
            db, "turn_started operator", "turn_aborted user", "turn_aborted operator"
        )
        assert of_user == {"turn_no": 1, "inbox_no": 1, "reason": "enough"}
        assert of_operator == {"turn_no": 1, "inbox_no": 1, "attempt": 1}
        assert (await db.verify()).ok


async def test_a_reply_that_is_sent_is_an_event_once(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        await complete(db, turn.turn_no, replies=[("web:1", "one"), ("sms:1", "two")])
        replies = [
            await db.write("begin", lambda tx: outbox.begin_sending(tx, lease_ms=1000))
            for _ in range(2)
        ]
        assert replies[0] is not None
        assert replies[1] is not None
        for _ in range(2):
            await db.write("sent", partial(outbox.sent, reply=replies[0], receipt="m7"))
        await db.write("lost", partial(outbox.lost, reply=replies[1], reason="silence"))
        await db.settle_reply(2, "sent")
        data = await facts(
            db,
            *("turn_started operator", "turn_completed operator", "reply_sent operator"),
            *("reply_unknown operator", "reply_sent operator"),
        )
        assert data[2] == {
            "outbox_no": 1,
            "turn_no": 1,
            "target": "web:1",
            "receipt": "m7",
            "by_operator": False,
        }
        assert (data[4]["outbox_no"], data[4]["by_operator"]) == (2, True)


async def test_a_reader_that_forwards_what_was_sent_forwards_not_itself(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await user_event(db, "first")
        async with aclosing(_one(db)) as stream:
            event = await anext(stream)
        await read_as(db, "pager")
        for _ in range(2):
            await db.forward_event(event, consumer="pager", target="pager:1", message=event.text)
        reply = await db.write("begin", lambda tx: outbox.begin_sending(tx, lease_ms=1000))
        assert reply is not None
        assert await db.write("sent", partial(outbox.sent, reply=reply, receipt=None))
        assert [row.state for row in await look(db, "outbox")] == ["sent"]
        assert [row.text for row in await look(db, "facts")] == ["first"]


async def test_a_reset_and_an_end_are_an_event_each_time(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, other = await db.session(KEY), await db.session(f"{KEY}0")
        await one.append(user("hello"))
        epoch = await one.reset("new")
        assert [await one.end(), await one.end(), await other.end()] == [True, False, True]
        data = await facts(
            db,
            *("session_reset operator", "session_ended operator", "session_ended operator"),
        )
        assert data == [{"reason": "new", "epoch": epoch}, {"why": "ended"}, {"why": "ended"}]
        with pytest.raises(sessiondb.SessionEnded):
            await one.reset("new")
        assert len(await look(db, "facts")) == 3


async def test_a_lane_that_changes_is_an_event_and_one_that_stays_is_none(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for concurrency in (2, 2, 3):
            await db.set_lane("slow", concurrency=concurrency, priority=5)
        await db.set_lane("main", concurrency=4, priority=0)
        created, changed = await facts(db, "lane_changed operator", "lane_changed operator")
        assert (created["lane"], created["change"]) == ("slow", "created")
        assert changed == created | {"change": "changed", "concurrency": 3}


async def test_facts_of_operators_hide_no_event_of_a_user(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are several for each message. A page that opens late still shows what it should."""
    monkeypatch.setattr(events, "LOOK_BACK", 3)
    async with sessiondb.open(tmp_db) as db:
        await user_event(db, "for the user")
        for number in range(4):
            await say(db, f"e{number}", f"{KEY}0")
            await complete(db, (await claimed(db)).turn_no)
        assert [event.text for event in await (await db.session(KEY)).events()] == ["for the user"]


@pytest.mark.parametrize("length", [1, CONSUMER_CHARS_MAX])
async def test_a_consumers_name_has_a_bounded_length(tmp_db: Path, length: int) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.write("emit", emit("first"))
        assert await take(db, "c" * length, 1, from_start=True) == ["first"]
        for wrong in ("", "c" * (CONSUMER_CHARS_MAX + 1)):
            with pytest.raises(sessiondb.InvalidInput, match="the name of a consumer has 1 to"):
                await take(db, wrong, 1, from_start=True)
        assert await look(db, "cursors")


async def test_the_last_events_begin_behind_the_one_before_them(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:

        async def last(count: int, audience: Audience | None = None) -> list[int]:
            def read(tx: Any) -> list[int]:
                after = events.before_last(tx, count=count, audience=audience)
                page = events.after(tx, event_no=after, audience=audience)
                return [one.event_no for one in page.rows]

            return await db.read("look", read)

        assert await last(0) == []
        assert await last(3) == []
        audiences: list[Audience] = ["operator", "user", "operator", "user", "user"]
        for number, audience in enumerate(audiences, 1):
            await db.write("emit", emit(str(number), audience))
        assert [await last(count) for count in (0, 1, 2, 5, 9)] == [
            [],
            [5],
            [4, 5],
            [1, 2, 3, 4, 5],
            [1, 2, 3, 4, 5],
        ]
        assert [await last(count, "operator") for count in (0, 1, 2, 9)] == [
            [],
            [3],
            [1, 3],
            [1, 3],
        ]
        assert [await last(count, "user") for count in (1, 2, 3)] == [[5], [4, 5], [2, 4, 5]]


async def test_a_database_that_is_not_open_says_so(tmp_db: Path) -> None:
    db = sessiondb.open(tmp_db)
    assert db.unsigned() == []
    with pytest.raises(sessiondb.InvalidInput, match="is not open; use `async with"):
        _ = db.backend
    with pytest.raises(sessiondb.InvalidInput, match="is not open"):
        await db.read("look", lambda tx: None)


@pytest.mark.parametrize("audience", [None, "user"])
async def test_without_following_the_reader_ends_after_the_last_event(
    tmp_db: Path, audience: events.Audience | None
) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:

        async def read(consumer: str, **options: Any) -> list[str]:
            found = []
            with anyio.fail_after(30):
                async with aclosing(
                    db.events(consumer, audience=audience, follow=False, **options)
                ) as stream:
                    async for event in stream:
                        found.append(event.text)
                        await other.write("emit", emit("later", "user"))
            return found

        assert await read("new") == []
        for number in range(3):
            await other.write("emit", emit(f"number {number}", "user"))
        await other.write("emit", emit("the last", "operator"))
        all_of_them = [f"number {number}" for number in range(3)]
        all_of_them += ["the last"] if audience is None else []
        assert await read("old", from_start=True) == all_of_them
        assert await read("old") == ["later"] * len(all_of_them), "it goes on where it ended"
