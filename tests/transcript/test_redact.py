"""Redact: what an entry says goes for good, and all that is built on it stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sessiondb
import sessiondb.sync
from sessiondb import InvalidInput, Item, NotFound, SessionArchived
from sessiondb.models import MessageFormat
from tests.support.core import reply, result, texts, user, whole_path
from tests.support.gateway import claimed, complete
from tests.support.gateway import say as accept
from tests.support.maintenance import ALL_TABLES, archive_session, dump

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

SECRET = "swordfish"
KEY = "agent:main:web:1"

PI: list[dict[str, Any]] = [
    user(SECRET),
    {"role": "user", "content": [{"type": "image", "data": SECRET, "mimeType": "image/png"}]},
    {**reply(SECRET, calls=["1", "2"], tokens=70), "stopReason": "toolUse"},
    result("1", SECRET),
    {**result("2", SECRET), "isError": True, "details": {"path": SECRET}},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": SECRET, "thinkingSignature": SECRET},
            {"type": "text", "text": SECRET},
        ],
        "usage": {"totalTokens": 90},
    },
    {"role": "bashExecution", "command": SECRET, "output": SECRET, "exitCode": 0},
    {**user(SECRET), "excludeFromContext": True},
    {"type": "custom_message", "customType": "n", "content": SECRET, "display": True},
    {"type": "custom", "customType": "n", "data": {"x": SECRET}},
    {"type": "session_info", "name": SECRET},
    {"type": "branch_summary", "summary": SECRET, "fromId": "x"},
]
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": SECRET},
    {"role": "user", "content": [{"type": "text", "text": SECRET}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "1",
                "type": "function",
                "function": {"name": "f", "arguments": json.dumps({"q": SECRET})},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": SECRET},
    {"role": "assistant", "content": SECRET},
]
RESPONSES: list[dict[str, Any]] = [
    {"role": "user", "content": SECRET},
    {"role": "user", "content": [{"type": "input_text", "text": SECRET}]},
    {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": SECRET}]},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": json.dumps([SECRET])},
    {"type": "function_call_output", "call_id": "1", "output": SECRET},
    {
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "id": "m",
        "content": [{"type": "output_text", "text": SECRET, "annotations": []}],
    },
]
ANTHROPIC: list[dict[str, Any]] = [
    {"role": "user", "content": SECRET},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": SECRET, "signature": SECRET},
            {"type": "text", "text": SECRET},
            {"type": "tool_use", "id": "1", "name": "f", "input": {"q": SECRET}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "1",
                "content": [{"type": "text", "text": SECRET}],
            },
            {"type": "text", "text": SECRET},
        ],
    },
    {"role": "assistant", "content": [{"type": "text", "text": SECRET}]},
]
FORMATS: list[tuple[MessageFormat, list[dict[str, Any]]]] = [
    ("pi", PI),
    ("openai-chat", CHAT),
    ("openai-responses", RESPONSES),
    ("anthropic", ANTHROPIC),
]


def holds(path: Path, text: str = SECRET) -> set[str]:
    return {
        table
        for table, rows in dump(path, *ALL_TABLES).items()
        if any(text in repr(row) for row in rows)
    }


def shape(message: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a message is: who speaks, and the ids of its calls and results."""
    blocks = message.get("content")
    tied = [
        block.get("id") or block.get("tool_use_id")
        for block in (blocks if isinstance(blocks, list) else [])
        if block.get("id") or block.get("tool_use_id")
    ]
    calls = [call["id"] for call in message.get("tool_calls", [])]
    names = ("role", "type", "toolCallId", "tool_call_id", "call_id")
    return (*(message.get(name) for name in names), tied, calls)


@pytest.mark.parametrize(("named", "items"), FORMATS, ids=[name for name, _ in FORMATS])
async def test_every_kind_of_entry_is_redacted_and_stays_what_it_is(
    tmp_db: Path, named: MessageFormat, items: list[dict[str, Any]]
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, other = [await db.create_session(name, format=named) for name in ("s", "t")]
        for one in (session, other):
            await one.append_many(items)
        fork = await session.fork(session_id="fork")
        info, context = await session.info(), await session.context(raw=True)
        before = [shape(message) for message in context.messages]
        for entry in await whole_path(session):
            done = await session.redact(entry)
            assert (done.entry_id, done.already) == (entry.entry_id, False)
            assert (await db.verify()).findings == (), entry.payload
            again = await session.redact(entry.entry_id)
            assert again.already
        after = await session.context(raw=True)
        assert [shape(message) for message in after.messages] == before
        assert (await session.info()).context_tokens == info.context_tokens
        assert SECRET not in repr((await session.context()).messages)
        assert SECRET not in repr((await fork.context()).messages)
        assert SECRET in repr((await other.context()).messages)
        # What is appended behind it is as it would have been.
        await session.append_many([items[0]])
        assert (await db.verify()).findings == ()
        for one in (other, fork):
            await one.append(items[0])
        await db.delete(fork)
        for entry in await whole_path(other):
            await other.redact(entry)
        for entry in (await whole_path(session))[-1:]:
            await session.redact(entry)
        assert holds(tmp_db) == set()
        assert (await db.verify()).findings == ()
    pages = b"".join(file.read_bytes() for file in tmp_db.parent.glob(f"{tmp_db.name}*"))
    assert SECRET.encode() not in pages


async def test_a_summary_and_the_name_of_a_session_are_redacted(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        for name in (SECRET, "a name"):
            await session.append({"type": "session_info", "name": name})
        first, last = await whole_path(session)
        await session.redact(first)
        assert (await session.info()).name == "a name"
        await session.redact(last)
        assert (await session.info()).name == "[redacted]"
        await session.append_many([user("long " * 90), reply("talk " * 900)])
        async with session.compact(keep_recent_tokens=1) as job:
            await job.commit(f"they spoke of {SECRET}")
        summary = next(entry for entry in await whole_path(session) if entry.type == "compaction")
        await session.redact(summary)
        assert texts(await session.context())[0] == "<[redacted]>"
        assert holds(tmp_db) == set()
        assert (await db.verify()).findings == ()


async def test_a_message_of_the_inbox_is_redacted_in_its_entry(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for key in (KEY, "agent:main:web:2"):
            await accept(db, key, key, text=SECRET)
            await complete(db, (await claimed(db)).turn_no, "yes")
        session, other = await db.session(KEY), await db.session("agent:main:web:2")
        await session.redact((await whole_path(session))[0])
        assert holds(tmp_db) == {"entry"}
        assert texts(await other.context()) == [SECRET, "yes"]
        again = await accept(db, KEY, KEY, text=SECRET)
        assert again.duplicate, "a late delivery is still known"
        await other.redact((await whole_path(other))[0])
        assert holds(tmp_db) == set()
        assert (await db.verify()).findings == ()


def line(number: int, text: str) -> str:
    fields = {
        "type": "message",
        "id": f"e{number}",
        "parentId": f"e{number - 1}" if number > 1 else None,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "message": user(text),
    }
    return json.dumps(fields) + "\n"


async def test_an_imported_entry_is_redacted_and_its_file_may_grow(
    tmp_db: Path, tmp_path: Path
) -> None:
    header = {"type": "session", "version": 3, "id": "s", "timestamp": "2026-01-01T00:00:00.000Z"}
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps(header) + "\n" + line(1, SECRET) + line(2, "b"))
    async with sessiondb.open(tmp_db) as db:
        assert (await db.import_path(file)).ok
        session = await db.session_by_id("s")
        await session.redact("e1")
        assert holds(tmp_db) == set()
        assert (await db.verify()).findings == ()
        assert (await db.import_path(file)).ok
        with file.open("a") as more:
            more.write(line(3, "c"))
        assert (await db.import_path(file)).ok
        assert texts(await session.context()) == ["[redacted]", "b", "c"]
        assert holds(tmp_db) == set()
        assert (await db.verify()).findings == ()


async def test_bytes_that_are_kept_beside_an_entry_go_with_its_text(
    tmp_db: Path, tmp_path: Path
) -> None:
    """A line that is not UTF-8 is stored twice, and an export writes its bytes."""
    header = {"type": "session", "version": 3, "id": "s", "timestamp": "2026-01-01T00:00:00.000Z"}
    odd = [line(at, f"{text} CAFE").encode().replace(b"CAFE", b"caf\xe9")
           for at, text in ((1, SECRET), (2, "b"))]  # fmt: skip
    file = tmp_path / "s.jsonl"
    file.write_bytes(json.dumps(header).encode() + b"\n" + b"".join(odd))
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(file)
        session = await db.session_by_id("s")
        await session.redact("e1")
        assert holds(tmp_db) == set()
        await db.export(tmp_path / "out")
        exported = (tmp_path / "out" / "s.jsonl").read_bytes()
        assert SECRET.encode() not in exported
        assert exported.endswith(odd[1]), "the other one is as it was"
        assert texts(await session.context()) == ["[redacted]", "b caf\ufffd"]
        assert (await db.verify()).findings == ()


async def test_an_edit_can_be_redacted_too(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        first, second = await session.append_many([user("a"), user("b")])
        edit = await session.edit(first.entry_id, SECRET)
        gone = await session.edit(second.entry_id, None)
        for one in (edit, gone):
            await session.redact(one.entry_id)
        assert holds(tmp_db) == set()
        assert texts(await session.context()) == ["[redacted]"]
        assert (await db.verify()).findings == ()


async def test_what_cannot_be_redacted_is_refused(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, other = await db.create_session("s"), await db.create_session("t")
        await session.append_many([user("a"), Item(user("b"), key="b")])
        await session.append({"type": "thinking_level_change", "thinkingLevel": "high"})
        before = dump(tmp_db, "entry")
        fork = await session.fork()
        foreign = await other.append(user("x"))
        header, *_, setting = await session.all_entries()
        with pytest.raises(InvalidInput, match="nothing that could be redacted"):
            await session.redact(setting)
        for missing in ("nowhere", foreign, header):
            with pytest.raises(NotFound):
                await session.redact(missing)
        with pytest.raises(InvalidInput, match="redact it there"):
            await fork.redact((await whole_path(session))[0])
        rows = set(dump(tmp_db, "entry")["entry"])
        assert set(before["entry"]) <= rows
        await db.delete(fork)
        await archive_session(db, session)
        with pytest.raises(SessionArchived):
            await session.redact("nowhere")


def test_two_processes_and_the_synchronous_face_redact(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db, sessiondb.sync.open(tmp_db) as elsewhere:
        session = db.create_session("s")
        first, _ = session.append_many([user(SECRET), reply("yes")])
        done = elsewhere.session_by_id("s").redact(first)
        assert any("WAL" in sentence for sentence in done.left)
        assert texts(session.context()) == ["[redacted]", "yes"]
        assert session.redact(first).already
