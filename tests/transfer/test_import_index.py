"""An index binds its keys, keeps its rows verbatim, and never ends an import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.transcript.keys import parse_key
from sessiondb.transfer import import_index
from sessiondb.transfer.openclaw_index import Binding, read_index, write_index
from tests.support.transfer import (
    by_name,
    differing,
    transcript,
    write,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


async def test_the_index_binds_keys_and_keeps_each_row_verbatim(sample: Path, tmp_db: Path) -> None:
    folder = sample / "openclaw-2026.5.18"
    text = (folder / "agents/lab/sessions/sessions.json").read_text(encoding="utf-8")
    index = json.loads(text)
    async with sessiondb.open(tmp_db) as db:
        report = await db.import_path(folder)
        receipt = by_name(report)["agents/lab/sessions/sessions.json"]
        for key, row in index.items():
            if key == "agent:lab:huge":
                continue
            assert (await db.session(key)).id == row["sessionId"]
            details = await db.backend.read(
                lambda tx, key=key: tx.first("import_file.details", session_key=key).details,
                op="test",
            )
            assert details in text
            assert json.loads(details) == row
    assert receipt.entries_new == len(index) - 1
    assert "agent:lab:huge: not bound: OpenClaw has no transcript" in receipt.note


async def test_a_changed_index_moves_only_the_keys_that_changed(tmp_path: Path) -> None:
    sessions = tmp_path / "agents/main/sessions"
    rows: dict[str, Any] = {f"agent:main:k{at}": {"sessionId": f"s{at}"} for at in range(4)}
    write(
        sessions,
        {f"s{at}.jsonl": transcript(1, f"s{at}") for at in range(4)}
        | {"sessions.json": json.dumps(rows).encode()},
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(tmp_path)
        mine = await db.create_session("mine")
        await db.bind("agent:main:k2", mine)
        await db.bind("agent:main:k3", mine)
        write(sessions, {"s9.jsonl": transcript(1, "s9")})
        rows |= {
            "agent:main:k1": {"sessionId": "s9"},
            "agent:main:k3": {"sessionId": "s9"},
            "agent:main:k9": {"sessionId": "s9"},
        }
        write(sessions, {"sessions.json": json.dumps(rows).encode()})
        receipt = by_name(await db.import_path(tmp_path))["agents/main/sessions/sessions.json"]
        bound = {key: (await db.session(key)).id for key in rows}
    assert bound == {
        "agent:main:k0": "s0",
        "agent:main:k1": "s9",
        "agent:main:k2": "mine",
        "agent:main:k3": "mine",
        "agent:main:k9": "s9",
    }
    assert receipt.status == "imported"
    assert receipt.entries_new == 2
    assert "agent:main:k3 is bound to session mine in this database; left so" in receipt.notes


async def test_a_transcript_that_arrives_after_its_index_is_bound(tmp_path: Path) -> None:
    sessions = write(
        tmp_path / "agents/main/sessions",
        {"sessions.json": b'{"agent:main:x":{"sessionId":"late"}}'},
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        first = await db.import_path(tmp_path)
        write(sessions, {"late.jsonl": transcript(1, "late")})
        await db.import_path(tmp_path)
        assert (await db.session("agent:main:x")).id == "late"
    assert "OpenClaw has no transcript" in first.files[0].note


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"agent:main:x":NaN}',
        b"\xff",
        b"null",
        b'{"agent:main:x":{"sessionId":"s-1"}} trailing',
        b"[" * 100_000,
    ],
)
async def test_a_broken_index_is_kept_and_binds_nothing(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "agents/main/sessions", {"sessions.json": content, "s-1.jsonl": transcript(1)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        files = by_name(await db.import_path(tmp_path / "agents"))
        await db.export(tmp_path / "out")
        assert (await (await db.session_by_id("s-1")).info()).keys == ()
    assert "not an index" in files["main/sessions/sessions.json"].note
    assert files["main/sessions/sessions.json"].damaged == 1, "its keys are lost, and that is said"
    assert files["main/sessions/s-1.jsonl"].status == "imported"
    assert (tmp_path / "out/main/sessions/sessions.json").read_bytes() == content


async def test_half_a_character_in_a_key_does_not_end_the_import(tmp_path: Path) -> None:
    rows = {
        "agent:main:cut \ud83d": {"sessionId": "s\ud83d"},
        "agent:main:b": {"sessionId": "cut \ud83d"},
        "\ud83d": {},
    }
    sessions = {
        "sessions.json": json.dumps(rows).encode(),
        "b.jsonl": transcript(1, "cut \ud83d"),
        "s-2.jsonl": transcript(1, "s-2"),
    }
    folder = write(tmp_path / "agents/main/sessions", sessions)
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder, verify=True)
        await db.export(tmp_path / "out")
        assert (await db.session("agent:main:b")).id == "cut \\ud83d"
    assert report.ok
    assert differing(folder, tmp_path / "out") == []


async def test_a_key_in_two_spellings_is_bound_once(tmp_path: Path) -> None:
    rows = {
        "agent:main:discord:channel:A": {"sessionId": "s1"},
        "agent:main:discord:channel:a": {"sessionId": "s2"},
    }
    folder = write(
        tmp_path / "agents/main/sessions",
        {
            "s1.jsonl": transcript(1, "s1"),
            "s2.jsonl": transcript(1, "s2"),
            "sessions.json": json.dumps(rows).encode(),
        },
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder)
        assert (await db.session("agent:main:discord:channel:a")).id == "s2"
        await db.export(tmp_path / "out")
    assert "more than once" in by_name(report)["sessions.json"].note
    assert differing(folder, tmp_path / "out") == []


@pytest.mark.parametrize(
    ("folder", "rows", "bound"),
    [
        # The folder tells the agent, whatever agent most of its keys have.
        ("agents/lab/sessions", {"main": "s1", "agent:ops:a": "s2", "agent:ops:b": "s2"}, "lab"),
        # Without such a folder it is the agent of most keys, or main.
        ("copied", {"main": "s1", "agent:ops:a": "s2", "agent:ops:b": "s2"}, "ops"),
        ("copied", {"main": "s1", "discord:channel:9": "s2"}, "main"),
    ],
)
async def test_a_key_without_an_agent_belongs_to_the_agent_of_its_index(
    tmp_path: Path, folder: str, rows: dict[str, str], bound: str
) -> None:
    index = {key: {"sessionId": session_id} for key, session_id in rows.items()}
    write(
        tmp_path / folder,
        {f"{name}.jsonl": transcript(1, name) for name in ("s1", "s2")}
        | {"sessions.json": json.dumps(index).encode()},
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(tmp_path / folder)
        keys = {key for name in ("s1", "s2") for key in (await one(db, name)).keys}
    assert keys == {key if key.startswith("agent:") else f"agent:{bound}:{key}" for key in rows}


async def one(db: sessiondb.SessionDB, session_id: str) -> sessiondb.SessionInfo:
    return await (await db.session_by_id(session_id)).info()


@pytest.mark.parametrize(
    ("sizes", "pages"),
    [
        ([], []),
        ([40, 40, 40], [2, 1]),
        ([50, 50, 1], [2, 1]),
        ([500, 1, 500], [1, 1, 1]),
        ([1] * 7, [3, 3, 1]),
    ],
)
def test_keys_are_bound_in_pages_of_bounded_size(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], pages: list[int]
) -> None:
    monkeypatch.setattr(import_index, "IMPORT_BATCH_BYTES", 100)
    monkeypatch.setattr(import_index, "IMPORT_BATCH_ENTRIES", 3)
    bindings = [
        Binding(parse_key(f"agent:main:{at}"), 1, "x" * size, None) for at, size in enumerate(sizes)
    ]
    found = list(import_index._pages(bindings))
    assert [len(page) for page in found] == pages
    assert [binding for page in found for binding in page] == bindings


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('{"a":{}}', '{"a":{},"b": 1}'),
        ('{\n    "a": {}\n}\n', '{\n    "a": {},\n    "b": 1\n}\n'),
        ('{ "a":{},\n\n"c":{}}', '{ "a":{},\n\n"c":{}, "b": 1}'),
    ],
)
def test_a_new_row_stands_as_the_first_one_does(text: str, written: str) -> None:
    _, entries = read_index(text.encode())
    assert write_index(text, entries, {}, {"b": "1"}) == written
    assert write_index(text, entries, {}, {}) == text


def test_an_index_without_rows_is_written_anew() -> None:
    assert write_index("", [], {}, {"a": "1", "b": "2"}) == '{\n  "a": 1,\n  "b": 2\n}\n'


# -- keys that lost the case of their ids ----------------------------------------------------------

SPACE = "agent:main:googlechat:group:spaces/AbC"
LOWERED = SPACE.lower()
PROVED = {"sessionId": "s1", "deliveryContext": {"to": "spaces/AbC"}}
UNPROVED = {"sessionId": "s1"}


def home(folder: Path, rows: dict[str, Any]) -> Path:
    """Write an index with three transcripts. Return its folder."""
    return write(
        folder / "agents/main/sessions",
        {f"s{at}.jsonl": transcript(1, f"s{at}") for at in (1, 2, 3)}
        | {"sessions.json": json.dumps(rows).encode()},
    )


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("row", [PROVED, UNPROVED])
async def test_a_lowered_key_stays_with_its_conversation(tmp_path: Path, row: Any) -> None:
    folder = home(tmp_path, {LOWERED: row, "agent:main:web:direct:x": {"sessionId": "s2"}})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        found = await db.find(SPACE)
        assert found is not None
        assert found.id == "s1", "looking changes nothing"
        assert (await one(db, "s1")).keys == (LOWERED,)
        accepted = await db.accept(SPACE, user("hello"), channel="googlechat", event_id="1")
        assert accepted.session_id == "s1"
        assert (await one(db, "s1")).keys == (SPACE,)
        assert (await db.session(SPACE)).id == "s1"
        await db.export(tmp_path / "out")
        again = by_name(await db.import_path(folder))["sessions.json"]
    assert again.status == "unchanged"
    assert differing(folder, tmp_path / "out") == []


@pytest.mark.parametrize("row", [PROVED, UNPROVED])
async def test_two_spellings_of_a_lowered_key_never_share_a_session(
    tmp_path: Path, row: Any
) -> None:
    second = SPACE.replace("AbC", "abC")
    folder = home(tmp_path, {LOWERED: row})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        ids = [(await db.session(key)).id for key in (SPACE, second, LOWERED)]
    assert ids[0] == "s1"
    assert len(set(ids)) == 3


async def test_an_address_in_another_case_is_somebody_elses(tmp_path: Path) -> None:
    second = SPACE.replace("AbC", "abC")
    folder = home(tmp_path, {LOWERED: PROVED})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        assert (await db.session(second)).id != "s1"
        assert (await db.session(SPACE)).id == "s1", "who comes second is found all the same"


async def test_a_key_that_is_spelled_by_now_follows_its_row(tmp_path: Path) -> None:
    folder = home(tmp_path, {LOWERED: UNPROVED})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        await db.session(SPACE)
        home(tmp_path, {LOWERED: {"sessionId": "s3"}})
        await db.import_path(folder)
        assert (await one(db, "s3")).keys == (SPACE,)
        assert (await one(db, "s1")).keys == ()
        assert (await db.session(SPACE.replace("AbC", "ABc"))).id not in ("s1", "s3")


async def test_both_spellings_of_an_index_stay_apart_and_come_out_again(tmp_path: Path) -> None:
    exact = {"sessionId": "s2", "deliveryContext": {"to": "spaces/AbC"}}
    folder = home(tmp_path, {LOWERED: UNPROVED, SPACE: exact})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        assert (await db.session(SPACE)).id == "s2"
        assert (await one(db, "s1")).keys == (LOWERED,)
        await db.export(tmp_path / "out")
    assert differing(folder, tmp_path / "out") == []


@pytest.mark.parametrize("change", ["bind", "unbind"])
async def test_a_change_by_hand_is_made_to_the_lowered_key(tmp_path: Path, change: str) -> None:
    folder = home(tmp_path, {LOWERED: UNPROVED})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        if change == "unbind":
            assert await db.unbind(SPACE)
            assert not await db.unbind(SPACE)
        else:
            await db.bind(SPACE, await db.create_session("mine"))
        for key in (SPACE, SPACE.replace("AbC", "ABC"), LOWERED):
            assert (await db.session(key)).id != "s1"


async def test_a_key_of_this_database_is_never_taken_over(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        first = await db.accept(LOWERED, user("my PIN is 1234"), channel="googlechat", event_id="1")
        second = await db.accept(SPACE, user("what is my PIN?"), channel="googlechat", event_id="2")
        assert first.session_id != second.session_id
        third = await db.accept(LOWERED, user("my PIN is 1234"), channel="googlechat", event_id="1")
        assert third.duplicate
