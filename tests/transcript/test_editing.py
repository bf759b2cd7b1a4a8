"""An edit of a message: what the model is sent, what stays, and what begins anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import InvalidInput, NotFound, SessionEnded
from tests.support.core import load_lines, reply, result, user

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


def said(context: sessiondb.Context) -> list[Any]:
    """Return the texts of a context, or the summary where a message is one."""
    found = []
    for message in context.messages:
        content = message.get("content", message.get("summary"))
        found.append(content if isinstance(content, str) else [b.get("text") for b in content])
    return found


async def talk(db: sessiondb.SessionDB, key: str) -> tuple[sessiondb.Session, list[str]]:
    session = await db.session(key)
    items = [user("my password is swordfish"), reply("noted"), user("and now?"), reply("well")]
    return session, [(await session.append(item)).entry_id for item in items]


async def test_an_edit_changes_what_the_model_is_sent_and_nothing_else(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, ids = await talk(db, "agent:main:web:1")
        other, _ = await talk(db, "agent:main:web:2")
        before = await other.context()
        entries = await session.entries()
        receipt = await session.edit(ids[0], "(removed)")
        assert (receipt.epoch, receipt.duplicate) == (1, False)
        assert said(await session.context())[0] == "(removed)"
        assert said(await session.context(epoch=0))[0] == "my password is swordfish"
        assert (await session.entries())[:4] == entries
        again = await session.edit(ids[0], None)
        assert again.epoch == 2
        assert "swordfish" not in (await session.context()).as_json().decode()
        assert len((await session.context()).messages) == 4, "a prompt begins with a user's message"
        assert len((await session.context(raw=True)).messages) == 3
        await session.edit(ids[0], "back again")
        assert said(await session.context())[0] == "back again", "the last edit counts"
        assert [epoch.reason for epoch in await session.epochs()] == ["start", *["edit"] * 3]
        assert await other.context() == before
        assert (await db.verify()).ok


async def test_a_reply_that_is_left_out_takes_its_results_along(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:web:1")
        await session.append(user("look"))
        call = await session.append(reply("", calls=["c1"]))
        answer = await session.append(result("c1"))
        await session.append(reply("there"))
        await session.edit(answer.entry_id, "[cleared]")
        assert said(await session.context())[2] == ["[cleared]"], "a result's text is in a block"
        await session.edit(call.entry_id, None)
        assert [one["role"] for one in (await session.context()).messages] == ["user", "assistant"]
        assert (await db.verify()).ok


async def test_a_summary_is_made_of_what_was_edited_and_its_epoch(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, ids = await talk(db, "agent:main:web:1")
        await session.edit(ids[0], "(removed)")
        async with session.compact(keep_recent_tokens=1) as job:
            assert "swordfish" not in json.dumps(job.messages)
            assert "(removed)" in json.dumps(job.messages)
            late = await session.edit(ids[3], "still there")
            assert (await job.commit("a summary")).outcome == "superseded"
        async with session.compact(keep_recent_tokens=1) as job:
            assert (await job.commit("a summary")).outcome == "committed"
        assert said(await session.context())[0] == "a summary"
        with pytest.raises(NotFound, match="in its current context"):
            await session.edit(ids[0], "too late")
        assert late.epoch == 2
        assert (await db.verify()).ok


async def test_an_edit_belongs_to_its_branch(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, ids = await talk(db, "agent:main:web:1")
        edit = await session.edit(ids[0], "(removed)")
        await session.branch(ids[3])
        assert said(await session.context())[0] == "my password is swordfish"
        await session.branch(edit.entry_id)
        assert said(await session.context())[0] == "(removed)"
        fork = await session.fork()
        await fork.append(user("go on"))
        assert said(await fork.context())[0] == "(removed)"
        assert (await db.verify()).ok


async def test_what_cannot_be_edited_is_refused_and_changes_nothing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, ids = await talk(db, "agent:main:web:1")
        note = await session.append({"type": "custom", "customType": "state", "data": {}})
        before = await session.info()
        for entry_id, content, error in (
            (note.entry_id, "new", InvalidInput),
            (note.entry_id, None, InvalidInput),
            ("nowhere", "new", NotFound),
            (ids[0], 7, InvalidInput),
            (ids[0], ["text"], InvalidInput),
            (7, "new", InvalidInput),
        ):
            with pytest.raises(error):
                await session.edit(entry_id, content)  # type: ignore[arg-type]
        assert await session.info() == before
        await session.end()
        with pytest.raises(SessionEnded):
            await session.edit(ids[0], "new")


async def test_items_of_other_formats_are_edited_in_their_shape(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session(format="openai-responses")
        call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
        output = {"type": "function_call_output", "call_id": "c", "output": "far too long"}
        asked = await session.append({"role": "user", "content": "look"})
        await session.append(call)
        answered = await session.append(output)
        await session.edit(asked.entry_id, "look again")
        with pytest.raises(InvalidInput, match="without a content that can be replaced"):
            await session.edit(answered.entry_id, "short")
        sent = (await session.context()).messages
        assert sent[0] == {"role": "user", "content": "look again"}
        assert len(sent) == 3


# -- system messages of pi's format --------------------------------------------------------


def system(content: str, **fields: Any) -> dict[str, Any]:
    return {"role": "system", "content": content, "timestamp": 1, **fields}


async def test_instructions_outlive_the_history_that_they_were_in(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session(format="pi")
        other = await db.create_session(format="pi")
        for one in (session, other):
            await one.append(system("be kind", sections={"cwd": "/a", "skills": "all"}))
            for number in range(6):
                await one.append(user(f"question {number} " * 40))
                await one.append(reply(f"answer {number} " * 40))
        patch = await session.append(system("and brief", sections={"cwd": "/b", "skills": None}))
        await session.append(user("last"))
        await session.append(reply("done"))
        for summary in ("first", "second"):
            async with session.compact(keep_recent_tokens=1) as job:
                assert all(message["role"] != "system" for message in job.messages)
                assert (await job.commit(summary)).outcome == "committed"
            instructions, told, *rest = (await session.context()).messages
            assert instructions["role"] == "system"
            assert instructions["content"] == "be kind\n\nand brief"
            assert instructions["sections"] == {"cwd": "/b"}
            assert told["summary"] == summary
            assert all(message["role"] != "system" for message in rest)
            for number in range(4):
                await session.append(user(f"more {number} " * 40))
                await session.append(reply(f"again {number} " * 40))
        assert patch.epoch == 0
        assert (await other.context()).messages[0]["content"] == "be kind"
        assert (await db.verify()).ok


async def test_a_message_without_content_is_read_as_an_empty_one(tmp_db: Path) -> None:
    lines = [
        {"type": "session", "version": 3, "id": "s", "timestamp": "t", "cwd": "/"},
        *(
            {"type": "message", "id": f"m{at}", "parentId": f"m{at - 1}" if at else None,
             "timestamp": "2026-01-01T00:00:00.000Z", "message": message}
            for at, message in enumerate(
                (
                    {"role": "user", "content": None},
                    {"role": "assistant", "content": "a text"},
                    {"role": "toolResult", "toolCallId": "c"},
                    {"role": "system"},
                    {"role": "custom", "content": None},
                )
            )
        ),
    ]  # fmt: skip
    async with sessiondb.open(tmp_db) as db:
        session, notes = await load_lines(db, "s", [json.dumps(line) for line in lines])
        assert notes == []
        context = await session.context(raw=True)
        assert [message.get("content") for message in context.messages] == [
            [],
            [{"type": "text", "text": "a text"}],
            [],
            "",
            None,
        ]
        assert (await db.verify()).ok
