"""The registry: keys and bindings, finding a session, listing, and races between creators."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

import sessiondb
from sessiondb import InvalidInput, InvalidKey, NotFound, Session
from sessiondb.transcript.registry import SessionRef
from tests.support.core import query, texts, user

KEY = "agent:main:discord:channel:1"


@pytest.mark.anyio
async def test_a_key_makes_its_session_once(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY, cwd="/work")
        assert (await db.session("Agent:MAIN:discord:Channel:1")).id == session.id
        info = await session.info()
        assert (info.keys, info.agent_id, info.origin, info.version, info.entries) == (
            (KEY,),
            "main",
            "native",
            3,
            0,
        )
        [header] = await session.all_entries()
        assert json.loads(header.payload) == {
            "type": "session",
            "version": 3,
            "id": session.id,
            "timestamp": json.loads(header.payload)["timestamp"],
            "cwd": "/work",
        }
    async with sessiondb.open(tmp_db) as db:
        assert (await db.session(KEY)).id == session.id
    with pytest.raises(InvalidKey):
        async with sessiondb.open(tmp_db) as db:
            await db.session("discord:channel:1")


@pytest.mark.anyio
async def test_rebinding_a_key_keeps_the_old_session(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        old = await db.session(KEY)
        await old.append(user("old"))
        new = await db.create_session("new")
        await db.bind(KEY, new)
        await db.bind(KEY, new)
        assert (await db.session(KEY)).id == "new"
        assert ((await old.info()).keys, (await new.info()).keys) == ((), (KEY,))
        assert texts(await (await db.session_by_id(old.id)).context()) == ["old"]
        assert await db.unbind(KEY)
        assert not await db.unbind(KEY)
        assert (await db.session(KEY)).id not in (old.id, "new"), "a key that was forgotten is new"


@pytest.mark.anyio
async def test_a_fork_can_take_over_a_key(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append(user("a"))
        fork = await session.fork(key=KEY)
        assert (await db.session(KEY)).id == fork.id
        assert (await fork.info()).agent_id == "main"
        assert (await session.fork(session_id="plain")).id == "plain"
        with pytest.raises(InvalidInput, match="already a session plain"):
            await session.fork(session_id="plain")
        with pytest.raises(InvalidInput, match="not at both"):
            await session.fork(entry="x", epoch=0)


@pytest.mark.anyio
async def test_the_library_finds_a_session_by_its_whole_id_only(tmp_db: Path) -> None:
    """A program that asks for "abc" would otherwise write into "abcdef"."""
    async with sessiondb.open(tmp_db) as db:
        for session_id in ("abcdef", "abd", "abd-longer", "日本", "%", "a_"):
            await db.create_session(session_id)
        bound = await db.session(KEY)
        for session_id in ("abcdef", "abd", "abd-longer", "日本", "%", "a_", bound.id):
            assert (await db.session_by_id(session_id)).id == session_id
            found = await db.find(session_id)
            assert found is not None
            assert found.id == session_id
        for text in ("", "abc", "ABCDEF", "abcdef ", "abd-", "日", "a%", bound.id[:13], "nope"):
            with pytest.raises(NotFound, match="no session has the id"):
                await db.session_by_id(text)
            assert await db.find(text) is None
            with pytest.raises(NotFound):
                await db.export(tmp_db.parent / "out", session=text)
            with pytest.raises(NotFound, match="no session has the id"):
                await db.unarchive(text)
        with pytest.raises(NotFound):
            await db.session_by_id(KEY)


@pytest.mark.anyio
async def test_a_key_is_looked_up_without_making_anything(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, two = await db.session(KEY), await db.session("agent:main:web:direct:Bo")
        assert (await db.session(KEY.upper(), create=False)).id == one.id
        for key, session in ((KEY, one), ("agent:main:web:direct:Bo", two)):
            found = await db.find(key)
            assert found is not None
            assert found.id == session.id
        counts = "SELECT count(*) FROM session UNION ALL SELECT count(*) FROM binding"
        before = query(tmp_db, counts)
        for key in ("agent:main:web:direct:bo", "agent:main:web:direct:B", f"{KEY}0", KEY[:-1]):
            with pytest.raises(NotFound, match=f"no session is bound to the key {key}"):
                await db.session(key, create=False)
            assert await db.find(key) is None
        assert query(tmp_db, counts) == before
        result = {"role": "toolResult", "toolCallId": "a", "toolName": "t", "content": []}
        await one.append(result)
        with pytest.raises(InvalidInput, match="of the format pi"):
            await db.session(KEY, create=False, format="anthropic")
    async with sessiondb.open(tmp_db, readonly=True) as db:
        assert (await db.session(KEY, create=False)).id == one.id


@pytest.mark.anyio
@pytest.mark.parametrize("session_id", ["", "a:b", "a\nb", "x" * 256])
async def test_some_texts_cannot_be_session_ids(tmp_db: Path, session_id: str) -> None:
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(InvalidInput):
            await db.create_session(session_id)


@pytest.mark.anyio
async def test_an_id_is_taken_once(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.create_session("s")
        with pytest.raises(InvalidInput, match="already a session s"):
            await db.create_session("s")
        assert [info.session_id async for info in db.sessions()] == ["s"]


@pytest.mark.anyio
async def test_sessions_are_listed_last_changed_first_in_pages(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        async with anyio.create_task_group() as tasks:
            for number in range(450):
                tasks.start_soon(
                    lambda number=number: db.create_session(
                        f"s{number}", agent_id="even" if number % 2 == 0 else "odd"
                    )
                )
        ended = await db.session_by_id("s7")
        await ended.end()
        listed = [info async for info in db.sessions()]
        assert len(listed) == len({info.session_id for info in listed}) == 449
        assert [info.updated_at_ms for info in listed] == sorted(
            (info.updated_at_ms for info in listed), reverse=True
        )
        assert len([info async for info in db.sessions(with_ended=True)]) == 450
        assert len([info async for info in db.sessions(agent_id="even")]) == 225


@pytest.mark.anyio
async def test_tasks_that_ask_for_a_new_key_get_one_session(tmp_db: Path) -> None:
    ids: set[str] = set()

    async def ask(db: sessiondb.SessionDB) -> None:
        ids.add((await db.session(KEY)).id)

    async with sessiondb.open(tmp_db) as one, sessiondb.open(tmp_db) as two:
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(ask, (one, two)[number % 2])
    assert len(ids) == 1
    assert query(tmp_db, "SELECT count(*) FROM session") == [1]


ASKER = """
import sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1]) as db:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(20):
            print((await db.session(f"agent:main:chat:{number}")).id)
        print("end", flush=True)
anyio.run(main)
"""


@pytest.mark.anyio
async def test_processes_that_ask_for_new_keys_get_the_same_sessions(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db):
        pass
    answers: list[list[str]] = []

    async def finish(process: Process, output: BufferedByteReceiveStream) -> None:
        assert process.stdin is not None
        await process.stdin.send(b"go\n")
        await process.stdin.aclose()
        answers.append((await output.receive_until(b"end", 10_000)).decode().split())
        assert await process.wait() == 0

    command = [sys.executable, "-c", ASKER, str(tmp_db)]
    async with (
        await anyio.open_process(command, stderr=None) as one,
        await anyio.open_process(command, stderr=None) as two,
    ):
        async with anyio.create_task_group() as tasks:
            outputs = [
                BufferedByteReceiveStream(process.stdout)
                for process in (one, two)
                if process.stdout is not None
            ]
            for output in outputs:  # both have opened the database before either asks
                await output.receive_until(b"ready\n", 100)
            for process, output in zip((one, two), outputs, strict=True):
                tasks.start_soon(finish, process, output)
    assert answers[0] == answers[1]
    assert len(answers[0]) == len(set(answers[0])) == 20
    assert query(tmp_db, "SELECT count(*) FROM session") == [20]


@pytest.mark.anyio
async def test_not_found_names_the_command_that_lists_what_exists(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("here")
        await session.append(user("a"))
        foreign = Session(db, SessionRef(7, "of-another-database"))
        side = {
            "type": "custom",
            "customType": "note",
            "id": "e9",
            "parentId": "nowhere",
            "timestamp": "2026-01-01T00:00:00.000Z",
        }
        calls: list[tuple[Callable[[], Awaitable[object]], str]] = [
            (lambda: db.session_by_id("nobody"), "`sessiondb sessions DB --all`"),
            (foreign.info, "`sessiondb sessions DB --all`"),
            (foreign.context, "`sessiondb sessions DB --all`"),
            (lambda: foreign.append(user("x")), "`sessiondb sessions DB --all`"),
            (lambda: session.branch("nowhere"), "`sessiondb show DB here --json`"),
            (lambda: session.append(side), "`sessiondb show DB here --json`"),
            (lambda: session.fork(entry="nowhere"), "`sessiondb show DB here --json`"),
            (lambda: session.reset(keep_from="nowhere"), "`sessiondb show DB here --json`"),
            (lambda: session.context(epoch=9), "its current epoch is 0"),
            (lambda: db.commit_compaction("none", "summary"), "`sessiondb compactions DB`"),
            (lambda: db.abort_turn(5, "stop"), "`sessiondb held DB`"),
            (lambda: db.requeue(5), "`sessiondb dead DB`"),
            (lambda: db.settle_reply(5, "sent"), "`sessiondb outbox DB`"),
        ]
        for call, hint in calls:
            with pytest.raises(NotFound) as caught:
                await call()
            assert hint in str(caught.value)


@pytest.mark.anyio
async def test_a_reset_keeps_from_an_entry_of_the_current_path_only(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        one, two = [await session.append({"role": "user", "content": text}) for text in "ab"]
        await session.branch(one.entry_id)
        leaf = (await session.all_entries())[-1]
        assert leaf.type == "leaf"
        for elsewhere in (two.entry_id, leaf.entry_id, "nowhere"):
            with pytest.raises(NotFound, match="on its current path to keep from"):
                await session.reset("new", keep_from=elsewhere)
        await session.branch(None)
        with pytest.raises(NotFound, match="on its current path to keep from"):
            await session.reset("new", keep_from=one.entry_id)
        assert (await session.info()).epoch == 2, "two branches, and no reset"
