"""A turn asks other agents in the transaction that completes it. Anybody waits for an answer."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import Answer, Ask, Turn
from sessiondb.gateway import inbox
from sessiondb.gateway.recovery import ResumePolicy
from tests.support import pages
from tests.support.core import reply, user
from tests.support.engine import PATIENCE_S, other_process
from tests.support.gateway import (
    answer,
    claimed,
    complete,
    eventually,
    fail,
    interrupt,
    look,
    nothing_open,
    running,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

ONE, TWO = "agent:main:web:1", "agent:research:task:1"


def said(outcome: sessiondb.Outcome) -> list[str]:
    messages = [json.loads(entry.payload)["message"] for entry in outcome.entries]
    return [message["content"][0]["text"] for message in messages]


# -- waiting -----------------------------------------------------------------------------------


async def test_a_waiter_gets_what_a_turn_of_the_message_appended(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        first, second = await say(db, "a"), await say(db, "b")
        other = await say(db, "x", TWO)
        for text in ("re a", "re b", "re x"):
            turn = await claimed(db)
            await db.write("t", lambda tx: None)
            await complete(db, turn.turn_no, f"on the way to {turn.inbox_no}", text)
        found = {one.inbox_no: await db.wait(one.inbox_no) for one in (first, second, other)}
    assert {no: (one.state, one.reason) for no, one in found.items()} == dict.fromkeys(
        (1, 2, 3), ("answered", None)
    )
    assert [said(one)[0] for one in found.values()] == [
        "on the way to 1",
        "on the way to 2",
        "on the way to 3",
    ]
    assert all(len(one.entries) == 2 for one in found.values())
    assert found[1].session_id == first.session_id != found[3].session_id


async def _given_up(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    await fail(db, (await claimed(db)).turn_no, "no luck", retry=False)


async def _withdrawn(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    await db.withdraw("web", "a")


async def _stopped(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    await claimed(db)
    await session.abort("its user said stop")


async def _incomplete(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    await complete(db, (await claimed(db)).turn_no, incomplete="nothing came")


async def _dropped(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    turn = await claimed(db)
    await fail(db, turn.turn_no, retry=False)
    await db.drop(turn.inbox_no)


async def _withdrawn_after_a_failure(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    await fail(db, (await claimed(db)).turn_no)
    await db.withdraw("web", "a")


@pytest.mark.parametrize(
    ("end", "state", "reason"),
    [
        (_given_up, "given_up", "no luck"),
        (_withdrawn, "withdrawn", "its sender took it back"),
        (_stopped, "stopped", "its user said stop"),
        (_incomplete, "incomplete", "nothing came"),
        (_dropped, "given_up", "dropped by an operator"),
        (_withdrawn_after_a_failure, "withdrawn", "its sender took it back"),
    ],
)
async def test_a_waiter_is_told_why_there_is_no_answer(
    tmp_db: Path, end: Any, state: str, reason: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        accepted = await say(db, "a")
        session = await db.session(ONE)
        await end(db, session)
        await say(db, "b", TWO)  # of another conversation, and still open
        found = await db.wait(accepted.inbox_no)
        assert (found.state, found.reason, found.entries) == (state, reason, ())


async def test_a_message_that_was_superseded_has_the_answer_of_the_newer_one(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        first = await say(db, "a")
        await interrupt(db, (await claimed(db)).turn_no)
        second = await say(db, "b")
        await complete(db, (await claimed(db)).turn_no, "re both")
        found = await db.wait(first.inbox_no)
        assert (found.state, found.superseded_by, said(found)) == (
            "answered",
            second.inbox_no,
            ["re both"],
        )


async def test_what_has_not_ended_is_waited_for(tmp_db: Path) -> None:
    """Also through a failed turn, an interrupted one and its resume."""
    found: list[sessiondb.Outcome] = []

    async with sessiondb.open(tmp_db) as db:
        accepted = await say(db, "a")
        with pytest.raises(TimeoutError, match="has not ended after 0 s"):
            await db.wait(accepted.inbox_no, timeout_s=0)
        with pytest.raises(sessiondb.NotFound, match="no inbox item 99"):
            await db.wait(99)

        async def wait() -> None:
            found.append(await db.wait(accepted.inbox_no))

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await interrupt(db, (await claimed(db)).turn_no)
                await db.resume(ResumePolicy())
                turn = await claimed(db, "resume")
                assert found == []
                await complete(db, turn.turn_no, "at last")
        assert [said(one) for one in found] == [["at last"]]


CHILD = """
import sys, anyio, sessiondb
async def handle(turn):
    text = "re " + turn.message["content"]
    return sessiondb.Answer([{"role": "assistant", "content": [{"type": "text", "text": text}],
                              "provider": "p", "model": "m"}])
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        await db.run_lane("main", handle)
anyio.run(main, backend=sys.argv[2])
"""


async def test_another_process_answers_and_wakes_the_waiter(
    tmp_db: Path, anyio_backend: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        with other_process(CHILD, tmp_db, anyio_backend) as child:
            with anyio.fail_after(2 * PATIENCE_S):
                for text, key in (("a", ONE), ("b", TWO)):
                    accepted = await say(db, text, key)
                    assert said(await db.wait(accepted.inbox_no)) == [f"re {text}"]
            child.kill()
            child.communicate(timeout=60)


def test_waiting_of_the_synchronous_face(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        accepted = db.accept(ONE, user("a"), channel="web", event_id="a")
        with pytest.raises(TimeoutError):
            db.wait(accepted.inbox_no, timeout_s=0)
        db.withdraw("web", "a")
        assert db.wait(accepted.inbox_no).state == "withdrawn"


# -- asking ------------------------------------------------------------------------------------


async def test_a_turn_asks_in_the_transaction_that_completes_it(tmp_db: Path) -> None:
    async def handle(turn: Turn) -> Answer:
        if turn.key == ONE:
            ask = Ask(TWO, user("find out"), lane="cron", details={"for": turn.key})
            return Answer([reply("I have asked")], accept=[ask, (TWO, user("and this"))])
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "question", ONE)
        async with running(
            partial(db.run_lane, "main", handle), partial(db.run_lane, "cron", handle)
        ):
            await eventually(partial(nothing_open, db))
            assert [said(await db.wait(no)) for no in (1, 2, 3)] == [
                ["I have asked"],
                ["re find out"],
                ["re and this"],
            ]
        rows = await look(db, "inbox")
        assert [(row.event_id, row.lane) for row in rows] == [
            ("question", "main"),
            ("turn 1 ask 1", "cron"),
            ("turn 1 ask 2", "main"),
        ]
        assert (await db.verify()).findings == ()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (("no key", user("a")), "InvalidKey"),
        ((TWO, {"no": "role"}), "InvalidInput"),
        (Ask(TWO, user("a"), lane="unknown"), "NotFound"),
        (Ask(TWO, user("a"), details={"a": float("nan")}), "InvalidInput"),
        ("neither", "TypeError"),
    ],
)
async def test_what_cannot_be_asked_fails_the_turn_and_writes_nothing(
    tmp_db: Path, asked: Any, why: str
) -> None:
    async def handle(turn: Turn) -> Answer:
        return Answer([reply("I have asked")], accept=[(TWO, user("first")), asked])

    async with sessiondb.open(tmp_db) as db:
        accepted = await say(db, "question", ONE)
        async with running(partial(db.run_lane, "main", handle)):
            found = await db.wait(accepted.inbox_no, timeout_s=PATIENCE_S)
        assert found.state == "given_up"
        assert why in (found.reason or "")
        assert len(await look(db, "inbox")) == 1


async def test_a_turn_whose_question_finds_a_full_session_completes_when_there_is_room(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "SESSION_WAITING_MAX", 1)

    async def handle(turn: Turn) -> Answer:
        return Answer([reply("I have asked")], accept=[(TWO, user("find out"))])

    async with sessiondb.open(tmp_db) as db:
        await say(db, "in the way", TWO)
        turn = await claimed(db)
        accepted = await say(db, "question", ONE)
        async with running(partial(db.run_lane, "main", handle)):

            async def is_claimed() -> bool:
                return [row.state for row in await look(db, "inbox")] == ["claimed", "claimed"]

            await eventually(is_claimed)
            await complete(db, turn.turn_no, "done")
            found = await db.wait(accepted.inbox_no, timeout_s=PATIENCE_S)
        assert found.state == "answered"


# -- the example of the guide --------------------------------------------------------------------


async def test_the_sub_agent_of_the_guide_answers(tmp_db: Path) -> None:
    [block] = [
        block
        for block in pages.blocks(pages.DOCS / "gateway.md", "python")
        if "db.wait(" in block.text
    ]
    code: dict[str, Any] = {"user": user}
    exec(compile(block.text, "docs/gateway.md", "exec"), code)  # our own page
    asked: list[str] = []

    async def handle(turn: Turn) -> Answer:
        if turn.lane == "agents":
            return answer(turn)
        entry = await code["ask_researcher"](db, turn, "what is new?")
        asked.append(json.loads(entry.payload)["message"]["content"][0]["text"])
        return Answer([reply("told")])

    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("agents", concurrency=2, priority=5)
        accepted = await say(db, "question", ONE)
        async with running(
            partial(db.run_lane, "main", handle), partial(db.run_lane, "agents", handle)
        ):
            found = await db.wait(accepted.inbox_no, timeout_s=PATIENCE_S)
    assert (found.state, asked) == ("answered", ["re what is new?"])
