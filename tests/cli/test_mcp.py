"""mcp: an agent can search, list and read, page by page, and change nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

import sessiondb
from sessiondb import sync
from sessiondb.cli import mcp_tools
from tests.support.command_line import command, fails, ok
from tests.support.transfer import tables

pytestmark = pytest.mark.anyio
LONG = "".join(f"{number} " for number in range(9_000))


@pytest.fixture
def db(tmp_db: Path) -> Path:
    """Make two conversations of two agents, an old one, and a fork of the first."""
    with sync.open(tmp_db) as opened:
        for agent in ("one", "two"):
            session = opened.session(f"agent:{agent}:web:1")
            for number in range(5):
                session.append({"role": "user", "content": f"{agent} asks for lamp {number}"})
                session.append({"role": "assistant", "content": f"lamp {number} is lit"})
        first = opened.session("agent:one:web:1")
        first.append({"role": "user", "content": LONG})
        first.fork(key="agent:one:web:fork").append({"role": "user", "content": "only here"})
        opened.create_session("gone").append({"role": "user", "content": "long ago"})
        opened.session_by_id("gone").end()
    return tmp_db


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Client]:
    async with (
        sessiondb.open(path, readonly=True) as opened,
        Client(mcp_tools.server(opened, "g.db")) as client,
    ):
        yield client


async def call(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    found = result.structured_content
    assert isinstance(found, dict)
    assert json.loads(result.content[0].text) == found, "an older client reads the text"
    return found


async def refused(client: Client, tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)


async def test_a_search_goes_on_page_by_page(db: Path) -> None:
    async with connected(db) as client:
        found: list[tuple[str, str]] = []
        before = None
        for _ in range(3):
            page = await call(client, "search", words="lamp asks", limit=4, before=before)
            found += [(hit["agent"], hit["snippet"]) for hit in page["hits"]]
            before = page["next"]
        assert before is None
        assert sorted(found) == [
            (agent, f"{agent} asks for lamp {number}")
            for agent in ("one", "two")
            for number in range(5)
        ]
        only = await call(client, "search", words="lamp", agent="two", role="assistant", since="1h")
        assert {hit["agent"] for hit in only["hits"]} == {"two"}
        assert len(only["hits"]) == 5


async def test_sessions_are_listed_page_by_page(db: Path) -> None:
    async with connected(db) as client:
        keys, after = [], None
        for _ in range(2):
            page = await call(client, "list_sessions", limit=2, after=after)
            keys += [one["keys"][0] for one in page["sessions"]]
            after = page["next"]
        assert after is None
        assert keys == ["agent:one:web:fork", "agent:one:web:1", "agent:two:web:1"]
        ended = await call(client, "list_sessions", state="ended")
        assert [one["session"] for one in ended["sessions"]] == ["gone"]
        assert ended["sessions"][0]["title"] == "long ago"


async def test_a_session_is_read_from_its_end_both_ways(db: Path) -> None:
    async with connected(db) as client:
        last = await call(client, "read_session", session="agent:one:web:fork", limit=2)
        assert [one["text"][:9] for one in last["entries"]] == [LONG[:9], "only here"]
        assert last["entries"][0]["left_out"] == len(LONG) - mcp_tools.ENTRY_CHARS
        assert last["after"] is None
        texts: list[str] = []
        page = last
        while page["before"] is not None:
            page = await call(
                client, "read_session", session=last["session"], before=page["before"], limit=3
            )
            texts = [one["text"] for one in page["entries"]] + texts
        assert texts[0] == "one asks for lamp 0"
        assert len(texts) == 10
        assert page["after"] == page["entries"][-1]["entry"]  # there are later ones
        forth = await call(
            client, "read_session", session=last["session"], after=page["entries"][0]["entry"]
        )
        assert [one["text"] for one in forth["entries"][:9]] == texts[1:]


async def test_an_answer_is_bounded_and_loses_nothing(db: Path) -> None:
    with sync.open(db) as opened:
        session = opened.session("agent:two:web:1")
        for number in range(15):
            session.append({"role": "user", "content": f"{number} {LONG}"})
    async with connected(db) as client:
        page = await call(client, "read_session", session="agent:two:web:1", limit=15)
        assert len(page["entries"]) == mcp_tools.PAGE_CHARS // mcp_tools.ENTRY_CHARS
        assert page["entries"][-1]["text"].startswith("14 ")
        earlier = await call(
            client, "read_session", session="agent:two:web:1", limit=5, before=page["before"]
        )
        assert [one["text"].split()[0] for one in earlier["entries"]] == list("01234")
        entry, text, offset = page["entries"][-1]["entry"], "", 0
        left = 1
        while left:
            part = await call(
                client, "read_entry", session="agent:two:web:1", entry=entry, offset=offset
            )
            text, offset, left = text + part["text"], len(text + part["text"]), part["left_out"]
        assert text == f"14 {LONG}"


async def test_what_cannot_be_done_is_a_sentence(db: Path) -> None:
    async with connected(db) as client:
        assert "list them with" in await refused(client, "read_session", session="nobody")
        assert "not both" in await refused(
            client, "read_session", session="agent:one:web:1", before="x", after="y"
        )
        assert "is not a length of time" in await refused(client, "search", words="a", since="soon")
        assert "is no place of the list" in await refused(client, "list_sessions", after="7")
        assert "no word" in await refused(client, "search", words="!")
        assert "x" in await refused(client, "read_entry", session="agent:one:web:1", entry="x")


async def test_every_tool_says_that_it_only_reads_and_none_writes(db: Path) -> None:
    before = tables(db)
    async with connected(db) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == {
            "search", "list_sessions", "read_session", "read_entry"
        }  # fmt: skip
        for tool in tools:
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint is True
        await call(client, "search", words="lamp")
        await call(client, "list_sessions")
        await call(client, "read_session", session="agent:one:web:1")
    assert tables(db) == before


async def test_a_program_starts_it_beside_a_gateway(db: Path) -> None:
    program, *arguments = command("mcp", db)
    async with (
        sessiondb.open(db) as gateway,
        Client(StdioServerParameters(command=program, args=arguments)) as client,
    ):
        for number in range(2):
            session = await gateway.session("agent:new:web:1")
            await session.append({"role": "user", "content": f"zebra {number}"})
            found = await call(client, "search", words="zebra")
            assert len(found["hits"]) == number + 1
        assert client.instructions is not None
        assert "not a task" in client.instructions


def test_it_ends_with_its_input_and_prints_its_tools(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = ok("mcp", db, "--tools")
    assert "read_entry(session, entry, offset): Read what one entry says" in shown
    assert "no such file" in fails(4, "mcp", db.with_name("none.db"), "--tools")
    monkeypatch.setattr("sessiondb.cli.mcp.is_for_a_person", lambda: True)
    assert "--tools prints" in fails(2, "mcp", db)
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    monkeypatch.delitem(sys.modules, "sessiondb.cli.mcp_tools")
    assert "pip install 'sessiondb[mcp]'" in fails(1, "mcp", db, "--tools")
