"""Messages that are heard and not answered: in order, in front of the next claimed one, once."""

from __future__ import annotations

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
from sessiondb.gateway import claims, heard, inbox
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.transcript.entries import prepare
from tests.support.core import query, reply, result, texts, user
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
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

ONE, TWO = "agent:main:group:1", "agent:west:group:2"


async def hear(
    db: sessiondb.SessionDB, text: str, key: str = ONE, **fields: Any
) -> sessiondb.Accepted:
    return await db.accept(key, user(text), channel="web", event_id=text, answer=False, **fields)


async def waiting(db: sessiondb.SessionDB, key: str | None = None) -> list[tuple[str, str]]:
    session = await db.session(key) if key is not None else None
    return [(one.event_id, one.state) async for one in db.inbox(session=session)]


async def said(db: sessiondb.SessionDB, key: str = ONE) -> list[str]:
    return texts(await (await db.session(key)).context())


async def ask(db: sessiondb.SessionDB, text: str, key: str = ONE) -> int:
    """Ask the agent, and begin the turn."""
    await say(db, text, key)
    return (await claimed(db)).turn_no


async def test_what_was_heard_stands_in_front_of_the_next_question(tmp_db: Path) -> None:
    seen: dict[str, list[str]] = {}

    async def handle(turn: Turn) -> Answer:
        seen[turn.message["content"]] = texts(await turn.session.context())
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        first = await hear(db, "a")
        assert (first.state, first.ahead, first.duplicate) == ("heard", 0, False)
        await hear(db, "x", TWO)
        await hear(db, "b")
        await say(db, "question", ONE)
        await hear(db, "c")
        assert await waiting(db) == [
            *(("a", "heard"), ("x", "heard"), ("b", "heard"), ("question", "queued")),
            ("c", "heard"),
        ]
        assert await waiting(db, TWO) == [("x", "heard")]

        async def answered() -> bool:
            return [state for _, state in await waiting(db)] == ["heard", "heard"]

        async with running(partial(db.run_lane, "main", handle)):
            await eventually(answered)
            await say(db, "another", ONE)
            await eventually(lambda: _is(db, [("x", "heard")]))
        assert (await hear(db, "a")).state == "done"
        assert seen == {
            "question": ["a", "b", "question"],
            "another": ["a", "b", "question", "re question", "c", "another"],
        }
        assert await said(db, TWO) == []
        assert await kinds(db) == []
        assert (await db.verify()).findings == ()


async def _is(db: sessiondb.SessionDB, expected: list[tuple[str, str]]) -> bool:
    return await waiting(db) == expected


async def test_nothing_that_is_heard_comes_between_a_call_and_its_result(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        handled = await ask(db, "question")
        session = await db.session(ONE)
        await session.append(reply("let me see", calls=["c1"]))
        await hear(db, "chatter")
        await session.append(result("c1"))
        await complete(db, handled, "re")
        assert "chatter" not in " ".join(await said(db))
        second = await ask(db, "next")
        assert (await said(db))[-2:] == ["chatter", "next"]
        await complete(db, second, "re")
        assert (await db.verify()).findings == ()


async def test_a_resume_brings_no_chatter_in(tmp_db: Path) -> None:
    """What was heard since the first claim waits for the next message, and counts no attempt."""
    async with sessiondb.open(tmp_db) as db:
        await hear(db, "before")
        await interrupt(db, await ask(db, "question"))
        await hear(db, "after")
        await db.resume(ResumePolicy())
        resumed = await claimed(db, "resume")
        assert await said(db) == ["before", "question"]
        await complete(db, resumed.turn_no, "re")
        failed = await ask(db, "third")
        assert await said(db) == ["before", "question", "re", "after", "third"]
        await fail(db, failed)
        rows = {row.event_id: row for row in await look(db, "inbox")}
        assert {rows[name].attempts for name in ("before", "after")} == {0}
        assert [kind for kind in await kinds(db) if "dead" in kind] == []
        assert (await db.verify()).findings == ()


async def test_only_what_is_older_than_the_message_is_put_in_front(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await hear(db, "a")
        first = await ask(db, "one")
        await say(db, "two", ONE)
        await hear(db, "b")
        await complete(db, first, "re one")
        second = await claimed(db)
        assert await said(db) == ["a", "one", "re one", "two"]
        await complete(db, second.turn_no, "re two")
        assert await waiting(db) == [("b", "heard")]


# -- edits, and what is taken back -------------------------------------------------------------


async def test_an_edit_takes_the_place_of_what_waits_and_follows_what_was_read(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await hear(db, "a")
        await hear(db, "b")
        edited = await db.edit(ONE, user("a2"), channel="web", event_id="a", version=1)
        assert edited.outcome == "replaced"
        turn_no = await ask(db, "question")
        assert await said(db) == ["a2", "b", "question"]
        edited = await db.edit(ONE, user("a3"), channel="web", event_id="a", version=2)
        assert (edited.outcome, edited.answering_turn_no) == ("queued", None)
        await complete(db, turn_no, "re")
        assert [state for _, state in await waiting(db)] == ["heard"]
        await complete(db, await ask(db, "more"), "re")
        assert await said(db) == ["a2", "b", "question", "re", "a3", "more", "re"]
        assert (await db.verify()).findings == ()


async def test_what_was_heard_can_be_taken_back_and_tells_nobody(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await hear(db, "a")
        await hear(db, "b")
        assert (await db.withdraw("web", "a")).outcome == "withdrawn"
        assert (await db.withdraw("web", "a")).outcome == "done"
        await complete(db, await ask(db, "question"), "re")
        assert await said(db) == ["b", "question", "re"]
        assert await kinds(db) == []
        assert (await db.verify()).findings == ()


async def test_a_claim_that_was_chosen_before_an_edit_does_not_bring_the_old_text(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await hear(db, "a")
        await say(db, "question", ONE)
        chosen = await db.read("peek", lambda tx: claims.peek(tx, "main", 2**50))
        assert chosen is not None
        draft = await prepare(chosen.payload, now_ms=1)
        in_front = await heard.prepare_all(chosen.heard, now_ms=1)
        await db.edit(ONE, user("a2"), channel="web", event_id="a", version=1)
        stale = await db.write(
            "claim",
            lambda tx: claims.claim(
                tx, "main", chosen, draft, in_front, lease_ms=1_000, timeout_ms=1_000
            ),
        )
        assert stale is None
        await claimed(db)
        assert await said(db) == ["a2", "question"]


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["messages", "bytes"])
async def test_a_group_that_asks_nothing_does_not_pile_up(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(inbox, "HEARD_WAITING_MAX", 3 if limit == "messages" else 100)
    monkeypatch.setattr(inbox, "HEARD_BYTES_MAX", 150 if limit == "bytes" else 10_000)
    async with sessiondb.open(tmp_db) as db:
        for number in range(20):
            assert (await hear(db, f"m{number}")).state == "heard"
            await hear(db, f"x{number}", TWO)
            assert len(await waiting(db, ONE)) <= 5
        await complete(db, await ask(db, "question"), "re")
        assert await said(db) == [*(f"m{number}" for number in range(20)), "question", "re"]
        assert (await db.verify()).findings == ()


async def test_a_session_that_is_busy_hears_up_to_a_limit(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "HEARD_WAITING_MAX", 3)
    async with sessiondb.open(tmp_db) as db:
        turn_no = await ask(db, "question")
        for number in range(3):
            await hear(db, f"m{number}")
        with pytest.raises(sessiondb.SessionBusy, match="Not accepted; retry in") as caught:
            await hear(db, "one more")
        assert f"turn {turn_no}" in caught.value.holder
        assert caught.value.retry_after_ms > 0
        await hear(db, "of another conversation", TWO)
        await say(db, "a question is accepted", ONE)
        await complete(db, turn_no, "re")
        await hear(db, "one more")
        assert (await said(db))[-3:] == ["m0", "m1", "m2"]


# -- whatever happens ----------------------------------------------------------------------------


CHILD = """
import os, signal, sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        for number in range(20):
            message = {"role": "user", "content": f"m{number}"}
            await db.accept("agent:main:group:1", message, channel="web", event_id=f"m{number}",
                            answer=False)
            print(number, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main, backend=sys.argv[2])
"""


async def test_what_was_heard_survives_a_kill_and_another_process_appends_it(
    tmp_db: Path, anyio_backend: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        with other_process(CHILD, tmp_db, anyio_backend) as child:
            out, err = child.communicate(timeout=60)
            assert child.returncode == -9, err
        assert len(out.split()) == 20
        await complete(db, await ask(db, "question"), "re")
        assert await said(db) == [*(f"m{number}" for number in range(20)), "question", "re"]


async def test_what_was_heard_is_part_of_a_backup_and_of_what_is_salvaged(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await hear(db, "a")
        await complete(db, await ask(db, "question"), "re")
        await hear(db, "b")
        await db.backup(tmp_db.with_name("copy.db"))

    new = tmp_db.with_name("new.db")
    report = await anyio.to_thread.run_sync(database.salvage, tmp_db, new)
    assert report.lost == []
    for copy in (tmp_db.with_name("copy.db"), new):
        async with sessiondb.open(copy) as db:
            assert await waiting(db) == [("b", "heard")]
            await complete(db, await ask(db, "next"), "re")
            assert await said(db) == ["a", "question", "re", "b", "next", "re"]
            assert (await db.verify()).findings == ()


async def test_a_text_of_another_program_is_given_up_and_holds_up_nobody(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await hear(db, "a")
        await hear(db, "b")
        await say(db, "question", ONE)
    with closing(apsw.Connection(str(tmp_db))) as connection:
        connection.execute("UPDATE inbox SET payload = '[]' WHERE event_id = 'a'")
    async with sessiondb.open(tmp_db) as db:
        async with running(partial(db.run_lane, "main", lambda turn: _answer(turn))):
            await eventually(partial(nothing_open, db))
        assert await said(db) == ["b", "question", "re question"]
        [given_up] = query(tmp_db, "SELECT reason FROM inbox WHERE event_id = 'a'")
        assert given_up.startswith("not a message: ")
        assert (await db.verify()).findings == ()


async def _answer(turn: Turn) -> Answer:
    return answer(turn)


async def test_what_nobody_asked_about_is_archived_and_pruned(tmp_db: Path) -> None:
    """Chatter keeps no session, and is deleted with what is done."""
    async with sessiondb.open(tmp_db) as db:
        await hear(db, "a")
        await hear(db, "b", TWO)
        await complete(db, await ask(db, "question", TWO), "re")
        await hear(db, "c", TWO)
        sessions = [await db.session(key) for key in (ONE, TWO)]
        for session in sessions:
            await session.end()
        await db.gc(RetentionPolicy(max_age_days=0, idle_days=0, prune_days=0))
        assert [(await session.info()).archived_at_ms is None for session in sessions] == [
            False,
            False,
        ]
        assert await look(db, "inbox") == []
        assert (await db.verify()).findings == ()


def test_hearing_of_the_synchronous_face(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        heard = db.accept(ONE, user("a"), channel="web", event_id="a", answer=False)
        assert heard.state == "heard"
        assert [one.state for one in db.inbox()] == ["heard"]
