"""Delete: no text of it stays in any table or file page, and its neighbours are as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import Answer, InvalidInput, NotFound, SessionArchived, SessionBusy
from sessiondb.gateway import outbox
from sessiondb.gateway.running_turn import LaneSettings, Turn
from tests.support import warm
from tests.support.core import one_loop, reply, texts, user
from tests.support.engine import PATIENCE_S
from tests.support.gateway import (
    claimed,
    complete,
    eventually,
    fail,
    kinds,
    running,
)
from tests.support.gateway import say as accept
from tests.support.maintenance import ALL_TABLES, Dying, Killed, archive_session, dump

pytestmark = pytest.mark.anyio

ONE, TWO = "agent:main:web:guest:1", "agent:main:web:guest2:1"
SECRET = "swordfish"


def holding(path: Path, text: str = SECRET) -> dict[str, int]:
    """Return how many rows of each table hold a text."""
    found = {
        table: sum(text in repr(row) for row in rows)
        for table, rows in dump(path, *ALL_TABLES).items()
    }
    return {table: count for table, count in found.items() if count}


async def conversation(db: sessiondb.SessionDB, key: str, word: str) -> sessiondb.Session:
    """Make a session with text in every table that has some."""
    for number in range(3):
        await accept(db, f"{word} {number} done", key)
        await complete(db, (await claimed(db)).turn_no, f"{word} yes")
    await accept(db, f"{word} dead", key)
    await fail(db, (await claimed(db)).turn_no, retry=False)
    session = await db.session(key)
    await session.append({"type": "session_info", "name": f"about {word}"})
    await session.set_details({"likes": word})
    await session.append_many([user(f"long {word} " * 50), reply(f"talk {word} " * 900)])
    async with session.compact(keep_recent_tokens=1) as job:
        await job.commit(f"they spoke of {word}")
    await session.pop()
    late = session.compact(trigger="manual", keep_recent_tokens=1)
    await session.append_many([user(f"more {word} " * 50), reply(f"talk {word} " * 900)])
    async with late as job:
        await session.reset("new")
        await job.commit(f"too late, of {word}")
    return session


async def test_no_table_holds_a_text_of_it_and_its_neighbours_are_as_they_were(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await conversation(db, ONE, SECRET)
        await conversation(db, TWO, "herring")
        await db.accept(ONE, user(SECRET), channel="web", event_id="heard", answer=False)
        await session.pin()
        before = holding(tmp_db, "herring")
        assert set(holding(tmp_db)) >= {"entry", "inbox", "session", "compaction"}
        report = await db.delete(session)
        assert report.deleted == (session.id,)
        assert (report.kept, report.archived, report.ok) == ((), (), True)
        assert (report.rows["inbox"], report.rows["turn"]) == (4, 4)
        assert holding(tmp_db) == {}
        assert holding(tmp_db, ONE) == {}
        assert holding(tmp_db, "herring") == before
        assert any("WAL" in sentence for sentence in report.left)
        assert any("Backups" in sentence for sentence in report.left)
        assert (await db.verify()).findings == ()
        with pytest.raises(SessionArchived):
            await session.append(user("more"))
        fresh = await db.session(ONE)
        assert fresh.id != session.id
        await fresh.append(user("anew"))
    pages = b"".join(file.read_bytes() for file in tmp_db.parent.glob(f"{tmp_db.name}*"))
    assert b"herring" in pages
    assert SECRET.encode() not in pages, "not in a page of the file either"


async def test_a_running_turn_refuses_it_or_is_stopped(tmp_db: Path) -> None:
    thinks = anyio.Event()

    async def handler(turn: Turn) -> Answer:
        thinks.set()
        await anyio.sleep_forever()
        raise AssertionError

    settings = LaneSettings(lease_s=10_000, timeout_s=100_000)
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        await accept(db, f"{SECRET} runs", ONE)
        await accept(db, f"{SECRET} waits", ONE)
        with anyio.fail_after(2 * PATIENCE_S):
            async with running(partial(db.run_lane, "main", handler, settings=settings)):
                await thinks.wait()
                session = await other.session(ONE)
                with pytest.raises(SessionBusy, match="turn 1, pid"):
                    await other.delete(session)
                assert texts(await session.context()) == [f"{SECRET} runs"]
                report = await other.delete(session, abort_running=True)
                assert report.ok
        assert holding(tmp_db) == {}
        assert await kinds(db, "user") == ["turn_aborted", "message_withdrawn"]
        assert (await db.verify()).findings == ()


async def test_replies_that_wait_are_never_sent_and_messages_are_taken_back(tmp_db: Path) -> None:
    sent: list[str] = []

    async def sender(message: sessiondb.Reply) -> None:
        sent.append(message.target)

    async with sessiondb.open(tmp_db) as db:
        for key in (ONE, TWO):
            await accept(db, f"{SECRET} {key}", key)
            started = await claimed(db)
            await complete(db, started.turn_no, replies=[(f"web:{key}", SECRET)])
        for key in (ONE, TWO):
            await accept(db, f"{SECRET} waits in {key}", key)
        await db.delete(await db.session(ONE))
        with anyio.fail_after(2 * PATIENCE_S):
            async with running(partial(db.run_outbox, sender)):

                async def done() -> bool:
                    return bool(sent)

                await eventually(done)
        assert sent == [f"web:{TWO}"]
        assert [message.event_id async for message in db.inbox()] == [f"{SECRET} waits in {TWO}"]
        assert (await claimed(db)).inbox_no == 4
        assert (await db.verify()).findings == ()


async def test_a_reply_that_is_being_sent_refuses_it_for_that_long(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await accept(db, "question", ONE)
        await complete(db, (await claimed(db)).turn_no, "yes", replies=[("web:1", "yes")])
        session = await db.session(ONE)
        sending = await db.write("begin", partial(outbox.begin_sending, lease_ms=10_000))
        assert sending is not None
        with pytest.raises(SessionBusy, match="sender of reply 1") as busy:
            await db.delete(session)
        assert busy.value.retry_after_ms > 0
        assert texts(await session.context()) == ["question", "yes"]
        await db.write("sent", lambda tx: outbox.sent(tx, sending, None))
        assert (await db.delete(session)).ok


# -- who shares its history ------------------------------------------------------------------


async def test_a_fork_keeps_the_session_that_it_shares_entries_with(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await conversation(db, ONE, SECRET)
        await accept(db, "waits", ONE)
        fork = await session.fork(key=TWO)
        before = dump(tmp_db, *ALL_TABLES)
        report = await db.delete(session)
        assert not report.ok
        assert report.kept == (
            (session.id, f"session {fork.id} was forked from it and shares its entries"),
        )
        assert dump(tmp_db, *ALL_TABLES) == before, "nothing was changed"
        report = await db.delete(key_prefix="agent:main:web:guest")
        assert set(report.deleted) == {session.id, fork.id}
        assert holding(tmp_db) == {}
        assert (await db.verify()).findings == ()


async def test_an_archived_fork_keeps_it_and_an_archived_session_is_deleted(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(ONE)
        await session.append_many([user(SECRET), reply("yes")])
        fork = await session.fork(key=TWO)
        await fork.append(user(SECRET))
        await archive_session(db, fork)
        assert [why for _, why in (await db.delete(session)).kept] == [
            f"session {fork.id} was forked from it and shares its entries"
        ]
        assert (await db.delete(key_prefix=TWO)).deleted == (fork.id,), "found by its archive"
        await archive_session(db, session)
        assert (await db.delete(session)).deleted == (session.id,)
        assert holding(tmp_db) == {}
        assert holding(tmp_db, "guest") == {}
        assert dump(tmp_db, "archive_chunk") == {"archive_chunk": []}
        with pytest.raises(NotFound, match="cannot be restored"):
            await db.unarchive(session.id)
        assert (await db.verify()).findings == ()


async def test_a_prefix_reaches_what_begins_with_it_and_nothing_else(tmp_db: Path) -> None:
    names = ("a:1", "a:2", "ab:1", "b:1", "A:1")
    async with sessiondb.open(tmp_db) as db:
        sessions = {}
        for name in names:
            sessions[name] = await db.session(f"agent:main:x:direct:{name}")
            await sessions[name].append(user(name))
        report = await db.delete(key_prefix="agent:main:x:direct:a:")
        assert set(report.deleted) == {sessions["a:1"].id, sessions["a:2"].id}
        for name in names[2:]:
            assert texts(await sessions[name].context()) == [name]
        for nothing in ("agent:main:x:direct:a:", "agent:other:", "%"):
            with pytest.raises(NotFound, match="Nothing was deleted"):
                await db.delete(key_prefix=nothing)
        for wrong in (
            {},
            {"key_prefix": ""},
            {"namespace": ""},
            {"session": sessions["b:1"], "key_prefix": "a"},
        ):
            with pytest.raises(InvalidInput):
                await db.delete(**wrong)


async def test_a_namespace_is_deleted_with_all_of_its_sessions(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for namespace in ("ann", "bob"):
            for number in range(3):
                session = await db.session_for(namespace, f"{namespace} {number}")
                await session.append(user(f"of {namespace}"))
        await archive_session(db, await db.session_for("ann", "ann 1"))
        before = holding(tmp_db, "bob")
        dying = Dying(db.backend, 6)
        db._backend = dying  # type: ignore[assignment]
        with pytest.raises(Killed):
            await db.delete(namespace="ann")
        db._backend = dying.backend
        assert (await db.delete(namespace="ann")).ok
        assert holding(tmp_db, "ann") == {}
        assert holding(tmp_db, "bob") == before
        assert (await db.verify()).findings == ()
        with pytest.raises(NotFound, match="namespace 'ann'"):
            await db.delete(namespace="ann")


async def test_with_an_archive_it_can_come_back(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, other = await db.session(ONE), await db.session(TWO)
        await session.append(user(SECRET))
        await accept(db, "waits", TWO)
        report = await db.delete(session, archive=True)
        assert (report.archived, report.deleted) == ((session.id,), ())
        assert "unarchive" in report.left[0]
        kept = (await db.delete(other, archive=True)).kept
        assert kept == ((other.id, "it has messages that wait or that a turn works on"),)
        await db.unarchive(session.id)
        assert texts(await session.context()) == [SECRET]
        assert (await db.verify()).findings == ()


# -- imports, processes, kills ---------------------------------------------------------------


async def test_an_import_does_not_bring_it_back(tmp_db: Path, tmp_path: Path) -> None:
    lines = [
        {"type": "session", "version": 3, "id": "s1", "timestamp": "2026-01-01T00:00:00.000Z"},
        {
            "type": "message",
            "id": "e1",
            "parentId": None,
            "timestamp": "2026-01-01T00:00:00.000Z",
            "message": user(SECRET),
        },
    ]
    file = tmp_path / "s1.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + f"{SECRET} torn\n")
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(file)
        session = await db.session_by_id("s1")
        assert set(holding(tmp_db)) == {"entry", "quarantine"}
        report = await db.delete(session)
        assert report.rows["quarantine"] == 1
        assert holding(tmp_db) == {}
        assert (await db.verify()).findings == ()
        await db.import_path(file)
        assert holding(tmp_db) == {}
        assert (await db.verify()).findings == ()


async def make(path: Path) -> tuple[str, str]:
    async with sessiondb.open(path) as db:
        session = await conversation(db, ONE, SECRET)
        other = await conversation(db, TWO, "herring")
        await accept(db, f"{SECRET} waits", ONE)
        return session.id, other.id


@one_loop
async def test_killed_after_any_step_the_same_call_goes_on(tmp_path: Path) -> None:
    ops: list[str] = []
    for writes in range(200):
        path = tmp_path / f"{writes}.db"
        await make(path)
        before = holding(path, "herring")
        async with sessiondb.open(path) as db:
            dying = Dying(db.backend, writes)
            db._backend = dying  # type: ignore[assignment]
            try:
                await db.delete(key_prefix="agent:main:web:guest:")
                finished = True
            except Killed:
                finished = False
            db._backend = dying.backend
        async with sessiondb.open(path) as db:
            assert (await db.verify()).findings == (), (writes, dying.ops)
            if not finished:
                assert (await db.delete(key_prefix="agent:main:web:guest:")).ok, dying.ops
            assert holding(path) == {}, dying.ops
            assert holding(path, "herring") == before
            assert (await db.verify()).findings == (), (writes, dying.ops)
        if finished:
            ops = dying.ops
            break
    else:
        pytest.fail("it never came to its end")
    assert {"archive.begin", "archive.delete", "archive.finish", "delete.rows"} <= set(ops)


CHILD = """
import sys, sessiondb, sessiondb.sync
with sessiondb.sync.open(sys.argv[1]) as db:
    print("ready", flush=True)
    appended = 0
    while True:
        try:
            db.session_by_id(sys.argv[2]).append({"role": "user", "content": "swordfish"})
        except sessiondb.SessionArchived:
            break
        appended += 1
    print(appended, flush=True)
"""


def test_a_process_that_appends_meanwhile_is_told(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        session = db.create_session("s")
        child = [sys.executable, "-c", CHILD, str(tmp_db), "s"]
        with warm.Popen(child, stdout=subprocess.PIPE, text=True) as appender:
            assert appender.stdout is not None
            assert appender.stdout.readline() == "ready\n"
            while not session.entries(limit=1):
                assert appender.poll() is None
            report = db.delete(session)
            while not report.ok:  # it has just changed, again and again
                report = db.delete(session)
            assert int(appender.stdout.readline()) > 0
        assert holding(tmp_db) == {}
        assert db.verify().findings == ()


def test_the_synchronous_face_deletes(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        one, two = db.session(ONE), db.session(TWO)
        for session in (one, two):
            session.append(user(SECRET))
        assert db.delete(one).deleted == (one.id,)
        assert db.delete(key_prefix=TWO).deleted == (two.id,)
        assert holding(tmp_db) == {}


async def test_what_is_left_is_said(tmp_db: Path, tmp_path: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, _ = await db.session(ONE), await db.session(TWO)
        left = (await db.delete(session)).left

        def found(word: str) -> bool:
            return any(word in sentence for sentence in left)

        for word in ("WAL file", "Backups", "imported", "row without texts"):
            assert found(word), word
        assert not found("unarchive")
