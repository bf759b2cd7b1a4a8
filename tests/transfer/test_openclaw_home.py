"""An export that OpenClaw takes for its own home: names, rows of the index, times."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from tests.support.openclaw_home import make_home
from tests.support.transfer import transcript, write

pytestmark = pytest.mark.anyio

# What OpenClaw's `validateSessionId` and `isPrimarySessionTranscriptFileName` accept.
SESSION_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.IGNORECASE)
NO_TRANSCRIPT = re.compile(r"\.checkpoint\.|\.trajectory\.|\.jsonl\.|\.corrupt-|\.acp-stream\.")


@pytest.fixture
def anyio_backend() -> str:
    """Return one loop: an export's tests run under both."""
    return "asyncio"


def indexes(home: Path) -> dict[Path, dict[str, dict[str, Any]]]:
    return {
        path.parent: json.loads(path.read_text())
        for path in sorted(home.glob("agents/*/sessions/sessions.json"))
    }


def accepted(home: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of all indexes, each as OpenClaw's check of paths wants it."""
    found: dict[str, dict[str, Any]] = {}
    for folder, rows in indexes(home).items():
        for key, row in rows.items():
            path = folder / row["sessionFile"]
            assert path.parent == folder, f"{key} leads out of its folder"
            assert path.is_file(), key
            assert SESSION_ID.fullmatch(row["sessionId"]), key
            assert path.suffix == ".jsonl", key
            assert not NO_TRANSCRIPT.search(path.name), key
        found |= rows
    return found


async def contexts(db: sessiondb.SessionDB) -> dict[str, list[Any]]:
    return {
        key: (await (await db.session_by_id(info.session_id)).context()).messages
        async for info in db.sessions(with_ended=True)
        for key in info.keys
    }


async def test_there_and_back_is_the_same_home(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    sessions = home / "agents/main/sessions"
    rows = {
        f"agent:main:{name}": {
            "sessionId": name,
            "updatedAt": 5,
            "sessionFile": f"/old/.openclaw/agents/main/sessions/{name}.jsonl",
            "label": name,
        }
        for name in "ab"
    }
    lost = {"sessionId": "lost", "sessionFile": "/old/.openclaw/agents/main/sessions/lost.jsonl"}
    (sessions / "sessions.json").write_text(json.dumps(rows | {"agent:main:lost": lost}))
    async with sessiondb.open(tmp_path / "one.db") as db:
        assert (await db.migrate(home)).ok
        await (await db.session("agent:main:b")).append({"role": "user", "content": "here"})
        now = (await (await db.session("agent:main:b")).info()).updated_at_ms
        assert (await db.export(tmp_path / "back", openclaw=True)).ok
        wanted = await contexts(db)
    back = tmp_path / "back"
    [main, ops] = indexes(back).values()
    assert main.pop("agent:main:lost")["sessionFile"] == "lost.jsonl"
    assert main == {
        "agent:main:a": rows["agent:main:a"] | {"sessionFile": "a.jsonl"},
        "agent:main:b": rows["agent:main:b"] | {"sessionFile": "b.jsonl", "updatedAt": now},
    }
    assert {(row["sessionId"], row["updatedAt"]) for row in ops.values()} == {("x", 5), ("y", 5)}
    for path in sessions.glob("*.jsonl*"):
        if path.name.startswith(("a.jsonl.", "a.traj", "b.")):
            continue
        assert (back / path.relative_to(home)).read_bytes() == path.read_bytes()
    async with sessiondb.open(tmp_path / "two.db") as db:
        report = await db.migrate(back)
        assert report.ok
        assert await contexts(db) == wanted


IDS = ["plain", "ünï", "a~1", "x.checkpoint.1", "x.jsonl.reset.1", "-dash", "i" * 200]


async def test_any_id_reads_back_as_a_live_transcript(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        for at, name in enumerate([*IDS, "x.trajectory"]):
            session = await db.create_session(name)
            await db.bind(f"agent:{('main', 'Two')[at % 2]}:{at}", session)
            await session.append({"role": "user", "content": name})
        assert (await db.export(tmp_path / "home", openclaw=True)).ok
        wanted = await contexts(db)
    assert len(wanted) == len(IDS) + 1
    assert accepted(tmp_path / "home").keys() == wanted.keys()
    async with sessiondb.open(tmp_path / "two.db") as db:
        report = await db.migrate(tmp_path / "home")
        assert report.ok
        assert {source.kind for source in report.sources} == {"live", "index"}
        assert await contexts(db) == wanted


async def test_a_transcript_of_two_agents_is_named_in_full(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        session = await db.create_session("both")
        await session.append({"role": "user", "content": "hello"})
        for agent in ("one", "two"):
            await db.bind(f"agent:{agent}:main", session)
        await db.export(tmp_path / "home", openclaw=True)
    [found] = (tmp_path / "home").rglob("*.jsonl")
    for folder, rows in indexes(tmp_path / "home").items():
        [row] = rows.values()
        assert folder / row["sessionFile"] == found
        assert ".." not in row["sessionFile"]


async def test_transcripts_from_elsewhere_go_to_an_agent(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in", {"deep/er/one.jsonl": transcript(2), "two.jsonl": transcript(3)}
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
        await db.export(tmp_path / "home", openclaw=True)
    found = sorted((tmp_path / "home").rglob("*.jsonl"))
    assert [str(path.relative_to(tmp_path / "home")) for path in found] == [
        "agents/main/sessions/one.jsonl",
        "agents/main/sessions/two.jsonl",
    ]
    assert [path.read_bytes() for path in found] == [transcript(2), transcript(3)]


async def test_a_home_has_all_sessions_as_transcripts(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        session = await db.session("agent:main:main")
        await session.append({"role": "user", "content": "hello"})
        with pytest.raises(sessiondb.InvalidInput, match="all sessions"):
            await db.export(tmp_path / "home", openclaw=True, session=session)
        with pytest.raises(sessiondb.InvalidInput, match="another format"):
            await db.export(tmp_path / "home", openclaw=True, format="csv")
    assert not (tmp_path / "home").exists()
