"""The details of a message reach its handler and its sender, whatever happens, and no model."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import apsw
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import Answer, Turn, database
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.limits import DETAILS_BYTES_MAX
from sessiondb.maintenance.retention import RetentionPolicy
from tests.support.core import query, reply, user
from tests.support.engine import other_process
from tests.support.gateway import (
    answer,
    claimed,
    complete,
    eventually,
    fail,
    interrupt,
    kinds,
    look,
    nothing_open,
    running,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

ONE, TWO, THREE = "agent:main:web:1", "agent:west:web:2", "agent:main:web:3"
DETAILS = {"chat": 4711, "thread": "für alle", "tags": ["a", {"b": None}]}


class Gateway:
    """A handler and a sender that note what they were told."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        self.prompts: list[str] = []
        self.sent: dict[str, Any] = {}

    async def handle(self, turn: Turn) -> Answer:
        self.seen[turn.message["content"]] = turn.details
        context = await turn.session.context()
        self.prompts.append(json.dumps(context.messages))
        target = f"web:{turn.message['content']}"
        return Answer(entries=[reply("re")], replies=[(target, {"text": "re"})])

    async def send(self, outgoing: sessiondb.Reply) -> None:
        self.sent[outgoing.target] = outgoing.details

    async def work(self, db: sessiondb.SessionDB, *messages: str, lanes: str = "main") -> None:
        """Run until these were answered and sent."""
        loops = [partial(db.run_lane, lane, self.handle) for lane in lanes.split()]

        async def done() -> bool:
            return {f"web:{text}" for text in messages} <= set(self.sent)

        async with running(*loops, partial(db.run_outbox, self.send)):
            await eventually(done)


async def accept(
    db: sessiondb.SessionDB, event_id: str, key: str = ONE, details: Any = DETAILS
) -> sessiondb.Accepted:
    return await db.accept(key, user(event_id), channel="web", event_id=event_id, details=details)


async def test_details_reach_the_handler_and_the_sender_and_no_model(tmp_db: Path) -> None:
    gateway = Gateway()
    async with sessiondb.open(tmp_db) as db:
        await accept(db, "a")
        await accept(db, "b", TWO, {"chat": 12})
        await accept(db, "c", TWO, None)
        await gateway.work(db, "a", "b", "c")
    assert gateway.seen == {"a": DETAILS, "b": {"chat": 12}, "c": {}}
    assert gateway.sent == {"web:a": DETAILS, "web:b": {"chat": 12}, "web:c": {}}
    assert not any("4711" in prompt or "chat" in prompt for prompt in gateway.prompts)
    assert query(tmp_db, "SELECT 1 FROM entry WHERE payload LIKE '%4711%'") == []


async def test_a_turn_says_where_its_message_came_from(tmp_db: Path) -> None:
    seen: list[Any] = []

    async def handle(turn: Turn) -> Answer:
        where = (turn.channel, turn.event_id, turn.lane, turn.key, turn.agent_id, turn.kind)
        seen.append((*where, turn.text, turn.accepted_at_ms))
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        second = await db.accept(TWO, user("b"), channel="cron", event_id="e2", lane="cron")
        await interrupt(db, (await claimed(db, "cron")).turn_no)
        first = await db.accept(ONE, user("a"), channel="discord:bot1", event_id="e1")
        await db.resume()
        async with running(
            partial(db.run_lane, "main", handle), partial(db.run_lane, "resume", handle)
        ):
            await eventually(partial(nothing_open, db))
    assert sorted(seen) == [
        ("cron", "e2", "cron", TWO, "west", "resume", "b", second.accepted_at_ms),
        ("discord:bot1", "e1", "main", ONE, "main", "message", "a", first.accepted_at_ms),
    ]


def test_the_public_face_of_a_turn_is_what_a_handler_may_use() -> None:
    assert {name for name in dir(Turn) if not name.startswith("_")} == {
        *(
            "session",
            "message",
            "text",
            "details",
            "append",
            "reset",
            "renew",
            "progress",
            "previous",
        ),
        *("turn_no", "attempt", "inbox_no", "kind", "edit_of", "accepted_at_ms"),
        *("expires_at_ms", "deadline_ms"),
        *("channel", "event_id", "lane", "key", "agent_id"),
    }


# -- whatever happens ------------------------------------------------------------------------


async def retried(db: sessiondb.SessionDB, _: Path) -> str:
    await fail(db, (await claimed(db)).turn_no)
    return "main"


async def requeued(db: sessiondb.SessionDB, _: Path) -> str:
    turn = await claimed(db)
    await fail(db, turn.turn_no, retry=False)
    [letter] = [letter async for letter in db.dead_letters()]
    assert letter.details == DETAILS
    await db.requeue(turn.inbox_no)
    return "main"


async def resumed(db: sessiondb.SessionDB, _: Path) -> str:
    await interrupt(db, (await claimed(db)).turn_no)
    await db.resume(ResumePolicy())
    return "main resume"


async def edited(db: sessiondb.SessionDB, _: Path) -> str:
    await db.edit(ONE, user("a"), channel="web", event_id="a", version=1)
    await db.edit(ONE, user("new"), channel="web", event_id="a", version=2)
    await db.edit(ONE, user("a"), channel="web", event_id="a", version=3)
    return "main"


@pytest.mark.parametrize("trouble", [retried, requeued, resumed, edited])
async def test_details_stay_with_a_message_that_waits(
    tmp_db: Path, trouble: Callable[[sessiondb.SessionDB, Path], Awaitable[str]]
) -> None:
    gateway = Gateway()
    async with sessiondb.open(tmp_db) as db:
        await accept(db, "a")
        lanes = await trouble(db, tmp_db)
        await accept(db, "b", TWO, {"chat": 12})
        await gateway.work(db, "a", "b", lanes=lanes)
        assert (await db.verify()).ok
    assert gateway.seen == {"a": DETAILS, "b": {"chat": 12}}
    assert gateway.sent == {"web:a": DETAILS, "web:b": {"chat": 12}}


@pytest.mark.parametrize(
    ("new", "expected"), [(None, DETAILS), ({"chat": 1}, {"chat": 1}), ({}, {})]
)
@pytest.mark.parametrize("begun", [False, True])
async def test_an_edit_keeps_the_details_unless_it_has_its_own(
    tmp_db: Path, new: Any, expected: Any, *, begun: bool
) -> None:
    gateway = Gateway()
    async with sessiondb.open(tmp_db) as db:
        await accept(db, "a")
        await accept(db, "b", TWO, {"chat": 12})
        turn = await claimed(db) if begun else None
        await db.edit(ONE, user("edited"), channel="web", event_id="a", version=1, details=new)
        if turn is not None:
            await complete(db, turn.turn_no, "re")
        await gateway.work(db, "edited", "b")
    assert gateway.seen == {"edited": expected, "b": {"chat": 12}}
    assert gateway.sent["web:edited"] == expected


CHILD = """
import os, signal, sys, anyio, sessiondb
async def handle(turn):
    os.kill(os.getpid(), signal.SIGKILL)
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        for text, key in (("a", "agent:main:web:1"), ("b", "agent:west:web:2")):
            message = {"role": "user", "content": text}
            await db.accept(key, message, channel="web", event_id=text, details={"of": text})
        await db.run_lane("main", handle)
anyio.run(main, backend=sys.argv[2])
"""


async def test_details_survive_the_death_of_their_process(tmp_db: Path, anyio_backend: str) -> None:
    with other_process(CHILD, tmp_db, anyio_backend) as child:
        _, err = child.communicate(timeout=60)
        assert child.returncode == -9, err
    gateway = Gateway()
    async with sessiondb.open(tmp_db) as db:
        await db.recover()
        await db.resume(ResumePolicy())
        await gateway.work(db, "a", "b", lanes="main resume")
    assert gateway.sent == {"web:a": {"of": "a"}, "web:b": {"of": "b"}}


async def backed_up(path: Path) -> Path:
    async with sessiondb.open(path) as db:
        await db.backup(path.with_name("copy.db"))
    return path.with_name("copy.db")


async def salvaged(path: Path) -> Path:
    report = await anyio.to_thread.run_sync(database.salvage, path, path.with_name("new.db"))
    assert report.lost == []
    return path.with_name("new.db")


@pytest.mark.parametrize("copied", [backed_up, salvaged])
async def test_details_are_part_of_a_copy(
    tmp_db: Path, copied: Callable[[Path], Awaitable[Path]]
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await accept(db, "a")
        await accept(db, "b", TWO, {"chat": 12})
        await accept(db, "c", THREE, {"chat": 13})
        for _ in range(3):
            turn = await claimed(db)
            if turn.inbox_no == 3:
                await complete(db, turn.turn_no, "re", replies=[("web:c", "re")])
            else:
                await fail(db, turn.turn_no, retry=False)
    copy = await copied(tmp_db)
    async with sessiondb.open(copy) as db:
        assert [letter.details async for letter in db.dead_letters()] == [{"chat": 12}, DETAILS]
        replies = [reply.details async for reply in db.replies("pending")]
        assert replies == [{"chat": 13}]


async def test_details_outlive_an_archive_of_their_session(tmp_db: Path) -> None:
    gateway = Gateway()
    async with sessiondb.open(tmp_db) as db:
        await accept(db, "a")
        await accept(db, "b", TWO, {"chat": 12})
        await gateway.work(db, "a", "b")
        sessions = [await db.session(key) for key in (ONE, TWO)]
        for session in sessions:
            await session.end()
        await db.gc(RetentionPolicy(max_age_days=0, idle_days=0))
        for session in sessions:
            assert (await session.info()).archived_at_ms is not None
            await db.unarchive(session.id)
        sent = {reply.target: reply.details async for reply in db.replies("sent")}
    assert sent == {"web:a": DETAILS, "web:b": {"chat": 12}}
    assert len(query(tmp_db, "SELECT 1 FROM inbox WHERE details IS NOT NULL")) == 2


async def test_a_reply_keeps_its_details_when_its_message_is_pruned(tmp_db: Path) -> None:
    gateway = Gateway()
    async with sessiondb.open(tmp_db) as db:
        await accept(db, "a")
        turn = await claimed(db)
        await complete(db, turn.turn_no, "re", replies=[("web:a", "re")])
        await db.gc(RetentionPolicy(prune_days=0))
        assert await look(db, "inbox") == []
        await gateway.work(db, "a")
    assert gateway.sent == {"web:a": DETAILS}


# -- what is refused -------------------------------------------------------------------------


def test_details_of_the_synchronous_face(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        db.accept(ONE, user("a"), channel="web", event_id="a", details=DETAILS)
        again = db.accept(ONE, user("a"), channel="web", event_id="a", details={"other": 1})
        assert again.duplicate, "details are no part of what a message says"
        wrong: Any = ["a list"]
        with pytest.raises(
            sessiondb.InvalidInput, match="details is a list, and must be a mapping"
        ):
            db.accept(ONE, user("b"), channel="web", event_id="b", details=wrong)
    assert query(tmp_db, "SELECT event_id, details FROM inbox") == [
        ("a", json.dumps(DETAILS, ensure_ascii=False, separators=(",", ":")))
    ]


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("details", "why"),
    [
        ("text", "details is 'text', and must be a mapping"),
        ([("a", 1)], "details is a list, and must be a mapping"),
        ({1: "a"}, "mapping of names"),
        ({"a": float("nan")}, "cannot be stored as JSON"),
        ({"a": object()}, "cannot be stored as JSON"),
        (_nested(600), "cannot be stored as JSON"),
        ({"a": "ü" * (DETAILS_BYTES_MAX // 2)}, "at most 16,384 fit"),
    ],
)
async def test_details_that_cannot_be_stored_are_refused(
    tmp_db: Path, details: Any, why: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(sessiondb.InvalidInput, match=why):
            await accept(db, "a", details=details)
        await accept(db, "b", details={"a": "x" * (DETAILS_BYTES_MAX - len('{"a":""}'))})
        assert [row.event_id for row in await look(db, "inbox")] == ["b"]


async def test_details_of_another_program_stop_neither_lane_nor_outbox(tmp_db: Path) -> None:
    """They are JSON and no object. The message is a dead letter, the reply failed."""
    gateway = Gateway()
    async with sessiondb.open(tmp_db) as db:
        await accept(db, "a")
        await accept(db, "b", TWO, {"chat": 12})
        await accept(db, "c", THREE, {"chat": 13})
        turns = [await claimed(db), await claimed(db)]
        await complete(db, turns[1].turn_no, "re", replies=[("web:b", "re")])
        await fail(db, turns[0].turn_no)
    with closing(apsw.Connection(str(tmp_db))) as connection:
        connection.execute("PRAGMA ignore_check_constraints = on")
        connection.execute("UPDATE inbox SET details = '[]', available_at_ms = 0 WHERE attempts")
        connection.execute("UPDATE outbox SET details = '[]'")
    async with sessiondb.open(tmp_db) as db:
        await gateway.work(db, "c")
        assert gateway.seen == {"c": {"chat": 13}}

        async def settled() -> bool:
            told = await kinds(db, "operator")
            return "reply_failed" in told and "message_dead" in told

        async with running(partial(db.run_lane, "main", gateway.handle)):
            await eventually(settled)
        found = " ".join(finding.message for finding in (await db.verify()).findings)
        assert "inbox_details_object" in found
        assert "outbox_details_object" in found
