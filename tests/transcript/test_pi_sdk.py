"""The lines of pi's SDK: lanes, records, facts, and compactions that hold their own tail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.transcript.pi_sdk import as_pi
from tests.support.core import reply, texts, user

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


class File:
    """A file of the SDK in the making."""

    def __init__(self, session_id: str) -> None:
        self.lines: list[dict[str, Any]] = [
            {"kind": "header", "version": 4, "id": session_id, "createdAt": 1_795_973_165_207}
        ]

    def add(self, kind: str, **fields: Any) -> None:
        """Add a line with the next number."""
        self.lines.append({"kind": kind, **fields, "seq": len(self.lines)})

    def entry(self, entry_id: str, parent: str | None, lane: str | None, **fields: Any) -> None:
        """Add an entry to a lane."""
        lanes = {} if lane is None else {"lane": lane}
        self.add(
            "entry", **lanes, id=entry_id, parentId=parent, timestamp=1_795_973_165_300, **fields
        )

    def say(self, entry_id: str, parent: str | None, message: Any, lane: str = "main") -> None:
        """Add a message to a lane."""
        self.entry(entry_id, parent, lane, type="message", message=message)

    def write(self, path: Path) -> bytes:
        """Write the file, and return its bytes."""
        content = "".join(json.dumps(line) + "\n" for line in self.lines).encode()
        path.write_bytes(content)
        return content


def conversation() -> File:
    """Return a file with two lanes, a compaction, a switch of the main lane, and records."""
    file = File("sdk")
    file.say("a1", None, user("one"))
    file.say("a2", "a1", reply("two"))
    file.add("record", type="operation_started", id="r1", lane="main", intent={"kind": "run"})
    file.add("lane", lane="aside", leafId="a1")
    file.say("s1", "a1", user("not here"), lane="aside")
    file.entry("n1", None, None, type="message", message=user("in no lane"))
    file.entry(
        "c1",
        "a2",
        "main",
        type="compaction",
        summary="so far",
        tokensBefore=9,
        retainedTail=[user("one again")],
    )
    file.say("a3", "c1", user("three"))
    file.add("fact", fact="name", name="a talk")
    file.say("a4", "a3", {**reply("later"), "stopReason": "deferred"})
    file.add("fact", fact="label", targetId="a3", label="here")
    return file


async def read(tmp_db: Path, path: Path) -> tuple[sessiondb.Context, sessiondb.SessionInfo]:
    """Import a file and compare it with the independent reader. Return what it says."""
    async with sessiondb.open(tmp_db) as db:
        [receipt] = (await db.import_path(path, verify=True)).files
        assert (receipt.verified, receipt.damaged, receipt.notes) == (True, 0, ()), receipt
        session = await db.session_by_id("sdk")
        assert (await db.verify()).findings == ()
        await db.export(path.parent / "out")
        return await session.context(raw=True), await session.info()


async def test_lane_main_is_the_conversation(tmp_db: Path, tmp_path: Path) -> None:
    path = tmp_path / "sdk.jsonl"
    content = conversation().write(path)
    context, info = await read(tmp_db, path)
    assert context.messages[0]["timestamp"] == 1_795_973_165_300
    assert texts(context) == ["<so far>", "one again", "three"]
    assert (info.name, info.version, info.created_at_ms) == ("a talk", 4, 1_795_973_165_207)
    assert (tmp_path / "out" / path.name).read_bytes() == content


async def test_a_lane_that_moves_takes_the_head_along(tmp_db: Path, tmp_path: Path) -> None:
    file = conversation()
    file.add("lane", lane="aside", leafId="a3")
    file.add("lane", lane="main", leafId="a2")
    file.say("a5", "a2", user("otherwise"))
    path = tmp_path / "sdk.jsonl"
    file.write(path)
    context, _ = await read(tmp_db, path)
    assert texts(context) == ["one", "two", "otherwise"]


@pytest.mark.parametrize(
    "line",
    [
        {"type": "usage", "id": "u", "kind": "record", "provider": "p"},
        {"type": "message", "id": "m", "kind": "entry", "message": {}},
        {"type": "session", "kind": "header", "version": 3},
        {"type": "custom", "kind": 7},
    ],
)
def test_a_line_of_pi_itself_is_left_as_it_is(line: dict[str, Any]) -> None:
    assert as_pi(line) is line
