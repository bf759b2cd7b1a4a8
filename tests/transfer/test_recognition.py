"""A conversation of another program is named, left alone, and never taken for an import."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.transfer.recognition import UNKNOWN, recognise
from tests.support.transfer import by_name, header, message, transcript, write

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

TIME = "2026-09-01T10:00:00.000Z"


def lines(*fields: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in fields)


FOREIGN = {
    "Claude Code": lines(
        {"type": "summary", "summary": "Talk", "leafUuid": "u2"},
        {"type": "user", "uuid": "u1", "parentUuid": None, "sessionId": "s", "message": {}},
    ),
    "Claude Code, begun with its own records": lines(
        {"type": "file-history-snapshot", "messageId": "m", "snapshot": {}},
        {"type": "queue-operation", "operation": "enqueue", "sessionId": "s", "timestamp": TIME},
    ),
    "Codex": lines(
        {"timestamp": TIME, "type": "session_meta", "payload": {"id": "c", "cwd": "/x"}},
        {"timestamp": TIME, "type": "response_item", "payload": {"type": "message"}},
    ),
    "Codex, in its first format": lines(
        {"id": "c", "timestamp": TIME, "instructions": None},
        {"type": "message", "role": "user", "content": []},
    ),
    "oh-my-pi": lines(
        {"type": "title", "v": 1, "title": "T", "source": "auto", "updatedAt": TIME},
        {"type": "session", "version": 3, "id": "s", "timestamp": TIME, "cwd": "/x"},
    ),
    "tau": lines(
        {"type": "session_info", "id": "a", "parent_id": None, "timestamp": 1.0, "cwd": "/x"},
        {"type": "message", "id": "b", "parent_id": "a", "message": {"role": "user"}},
    ),
    "tau, with a header": lines(
        {"type": "session", "version": 1, "id": "s", "timestamp": TIME},
        {"type": "message", "id": "b", "parent_id": None, "message": {"role": "user"}},
    ),
    "nanobot": lines(
        {"_type": "metadata", "key": "cli:direct", "created_at": TIME, "metadata": {}},
        {"role": "user", "content": "hi", "timestamp": TIME},
    ),
    "hermes-agent": lines(
        {"role": "session_meta", "tools": [], "model": "m"}, {"role": "user", "content": "hi"}
    ),
    "list of messages": lines({"role": "user", "content": "hi"}),
    "unknown JSON lines": lines({"kind": "turn", "said": "hi"}, {"kind": "turn", "said": "yo"}),
    "cold storage": lines(
        {"kind": "header", "version": 1, "sessionId": "s", "generation": "g"},
        {"kind": "event", "row": {"seq": 0, "event_json": "{}", "created_at": 1}},
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("place", ["one.jsonl", ".openclaw/agents/main/sessions/one.jsonl"])
async def test_a_conversation_of_another_program_is_never_in_silence(
    tmp_path: Path, name: str, place: str
) -> None:
    own = "beside.jsonl"
    source = write(tmp_path / "in", {place: FOREIGN[name], own: transcript(2)})
    before = (source / place).read_bytes()
    async with sessiondb.open(tmp_path / "one.db") as db:
        dry = by_name(await db.import_path(source, dry_run=True))
        report = await db.import_path(source, verify=True)
        again = await db.import_path(source, verify=True)
        assert [info.session_id async for info in db.sessions()] == ["s-1"]
    kind = name.partition(",")[0]
    for found in (dry, by_name(report), by_name(again)):
        assert (found[place].status, found[place].kind) == ("foreign", kind)
        assert found[place].verified is None
        assert "imported" in found[place].note
    assert by_name(report)[own].verified is True
    assert (report.ok, again.ok) == (False, False)
    assert report.not_imported == {"foreign": {kind: 1}}
    assert (source / place).read_bytes() == before


OWN = {
    "a header": [header()],
    "a header with a blank line before": ["", header()],
    "a tree without a header": [message("a", None)],
    "entries without ids": [json.dumps({"type": "compaction", "summary": "x"})],
    "an unknown entry of a tree": [json.dumps({"type": "new", "id": "a", "parentId": None})],
    "a damaged header": [header()[:30], message("a", None)],
    "a header whose type is lost": ['{"version":3,"id":"s"}', message("a", None)],
    "nothing but damage": ["{", "not JSON"],
    "damage among unknown lines": ["{", '{"said":"hi"}'],
    "nothing": [],
    "the header of the agent kit": [json.dumps({"kind": "header", "version": 4, "id": "s"})],
    "an entry with a session's id": [
        header(),
        json.dumps({"type": "custom", "id": "a", "parentId": None, "sessionId": "s"}),
    ],
    "a message that quotes another program": [
        message("a", None, json.dumps({"type": "user", "uuid": "u", "parentUuid": None})),
    ],
}


@pytest.mark.parametrize("name", OWN)
def test_a_transcript_is_read_however_damaged_it_is(name: str) -> None:
    content = "".join(line + "\n" for line in OWN[name]).encode()
    assert recognise(BytesIO(content).read) is None
    assert recognise(BytesIO(b"\xef\xbb\xbf" + content).read) is None


def test_only_the_beginning_of_a_file_is_read() -> None:
    class Endless:
        given = 0

        def read(self, count: int) -> bytes:
            self.given += count
            return (b'{"said":"' + b"x" * 1000 + b'"}\n') * (count // 1012 + 1)

    stream = Endless()
    assert recognise(stream.read) is UNKNOWN
    assert stream.given <= 4 * 1024 * 1024


async def test_a_codex_rollout_of_an_agent_of_openclaw_is_no_conversation(tmp_path: Path) -> None:
    rollout = "agents/main/agent/codex-home/sessions/2026/09/01/rollout-1.jsonl"
    source = write(
        tmp_path / ".openclaw",
        {
            rollout: FOREIGN["Codex"],
            "agents/main/sessions/s-1.jsonl": transcript(2),
            "agents/main/sessions/rollout-2.jsonl": FOREIGN["Codex"],
        },
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(source)
    assert report.not_imported == {"skipped": {"Codex rollout": 1}, "foreign": {"Codex": 1}}


async def test_an_empty_file_that_becomes_a_foreign_one_is_seen(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.jsonl": b"", "b.jsonl": b""})
    async with sessiondb.open(tmp_path / "one.db") as db:
        assert (await db.import_path(source)).ok
        (source / "a.jsonl").write_bytes(FOREIGN["tau"])
        (source / "b.jsonl").write_bytes(transcript(2))
        files = by_name(await db.import_path(source, verify=True))
    assert (files["a.jsonl"].status, files["b.jsonl"].status) == ("foreign", "imported")


async def test_nothing_is_called_equal_that_has_no_entry(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in",
        {"empty.jsonl": header("s-2").encode() + b"\n", "full.jsonl": transcript(1)},
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        files = by_name(await db.import_path(source, verify=True))
    assert (files["empty.jsonl"].verified, files["full.jsonl"].verified) == (None, True)
