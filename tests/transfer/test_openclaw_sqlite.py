"""The database of an OpenClaw agent is read as the transcripts and the index that it stands for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
from sessiondb.errors import StoreFull
from sessiondb.transfer import importer
from tests.support.openclaw_store import OpenClawStore, transcript_lines
from tests.support.transfer import by_name, tables, transcript, write

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

SESSIONS = "agents/main/sessions"


def content(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def home_with_two(folder: Path, **options: Any) -> OpenClawStore:
    """Return an agent with two keys, of which one has a row that is compressed."""
    store = OpenClawStore(folder / ".openclaw", **options)
    for name, session_id, packed in (("main", "s-1", ()), ("discord:channel:1", "s-2", (2,))):
        store.window(session_id, name)
        store.append(session_id, transcript_lines(session_id), packed=packed)
        store.key(name, session_id, displayName=name)
    return store


async def texts_of(db: sessiondb.SessionDB, session: str) -> list[str]:
    context = await (await db.session_by_id(session)).context()
    return [message["content"] for message in context.messages]


# -- whole agents ----------------------------------------------------------------------------------


async def test_transcripts_and_keys_come_in_and_go_out_as_files(tmp_path: Path) -> None:
    home_with_two(tmp_path).close()
    other = OpenClawStore(tmp_path / ".openclaw", "ops")
    other.window("s-3")
    other.append("s-3", transcript_lines("s-3", 450), packed=range(100, 300))
    other.key("main", "s-3")
    other.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(tmp_path / ".openclaw", verify=True)
        assert report.ok, report
        assert [file.verified for file in report.files if file.kind != "index"] == [True] * 3
        for key, session_id in {
            "agent:main:main": "s-1",
            "agent:main:discord:channel:1": "s-2",
            "agent:ops:main": "s-3",
        }.items():
            assert (await db.session(key)).id == session_id
        assert await texts_of(db, "s-2") == ["text é 0", "text é 1", "text é 2"]
        assert len(await texts_of(db, "s-3")) == 450
        await db.export(tmp_path / "out")
        assert (await db.verify()).ok
    out = tmp_path / "out"
    assert (out / SESSIONS / "s-1.jsonl").read_bytes() == content(transcript_lines("s-1"))
    assert (out / SESSIONS / "s-2.jsonl").read_bytes() == content(transcript_lines("s-2"))
    exported = (out / "agents/ops/sessions/s-3.jsonl").read_bytes()
    assert exported == content(transcript_lines("s-3", 450))
    index = json.loads((out / SESSIONS / "sessions.json").read_text())
    assert index["agent:main:discord:channel:1"]["displayName"] == "discord:channel:1"
    before = tables(tmp_path / "one.db")
    async with sessiondb.open(tmp_path / "one.db") as db:
        again = await db.import_path(tmp_path / ".openclaw", verify=True)
    assert {file.status for file in again.files} == {"unchanged"}
    assert tables(tmp_path / "one.db") == before


async def test_what_openclaw_appends_is_added_and_a_key_follows(tmp_path: Path) -> None:
    store = home_with_two(tmp_path)
    lines = transcript_lines("s-1", 6)
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(tmp_path / ".openclaw")
        store.append("s-1", lines[4:], packed=(0,))
        store.window("s-4", "discord:channel:1", "s-2")
        store.append("s-4", transcript_lines("s-4"))
        store.key("discord:channel:1", "s-4")
        files = by_name(await db.import_path(tmp_path / ".openclaw", verify=True))
        assert {name.rpartition("/")[2]: file.status for name, file in files.items()} == {
            "s-1.jsonl": "grown",
            "s-2.jsonl": "unchanged",
            "s-4.jsonl": "imported",
            "sessions.json": "imported",
        }
        assert files[f"{SESSIONS}/s-1.jsonl"].entries_new == 3
        assert len(await texts_of(db, "s-1")) == 6
        assert (await db.session("agent:main:discord:channel:1")).id == "s-4"
        assert (await (await db.session_by_id("s-2")).info()).keys == ()
    store.close()


async def test_an_interrupted_import_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = OpenClawStore(tmp_path / ".openclaw")
    for session_id in ("s-1", "s-2"):
        store.window(session_id)
        store.append(session_id, transcript_lines(session_id, 350), packed=(150,))
    store.close()

    store_batch, stored = importer.store_batch, []

    def stopping(*args: Any) -> Any:
        if len(stored) == 3:
            raise StoreFull("no room")
        stored.append(args)
        return store_batch(*args)

    async with sessiondb.open(tmp_path / "one.db") as db:
        with monkeypatch.context() as patched:
            patched.setattr(importer, "store_batch", stopping)
            with pytest.raises(StoreFull):
                await db.import_path(tmp_path / ".openclaw")
        report = await db.import_path(tmp_path / ".openclaw", verify=True)
        assert report.ok
        assert [file.verified for file in report.files if file.kind == "live"] == [True, True]
        assert len(await texts_of(db, "s-1")) == len(await texts_of(db, "s-2")) == 350


async def test_earlier_and_deleted_transcripts_come_without_a_key(tmp_path: Path) -> None:
    store = home_with_two(tmp_path)
    store.window("s-0", "main")
    store.append("s-0", transcript_lines("s-0"))
    store.key("discord:channel:1", "s-2", valid=-1)
    store.window("s-9", "empty")
    store.key("empty", "s-9")
    store.window("s-8", "odd")
    store.append("s-8", transcript_lines("s-8"))
    store.key("odd", "s-8", sessionId="another")
    store.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        files = by_name(await db.import_path(tmp_path / ".openclaw"))
        keys = {info.session_id: info.keys async for info in db.sessions()}
    assert keys == {"s-0": (), "s-1": ("agent:main:main",), "s-2": (), "s-8": ()}
    assert set(files[f"{SESSIONS}/sessions.json"].notes) == {
        "agent:main:discord:channel:1: not bound: it was deleted in OpenClaw",
        "session s-9 has no rows in OpenClaw",
        "agent:main:empty: not bound: its transcript s-9 has no rows in OpenClaw",
        "agent:main:odd: not bound: OpenClaw's row and its entry name two sessions",
    }


async def test_resets_and_leaves_are_entries_like_any_other(tmp_path: Path) -> None:
    def entry(kind: str, entry_id: str, parent_id: str, **fields: Any) -> str:
        return json.dumps({"type": kind, "id": entry_id, "parentId": parent_id, **fields})

    store = home_with_two(tmp_path)
    lines = transcript_lines("s-1", 6)
    lines[4:] = [entry("leaf", "l", "s-1-2", targetId="s-1-0"), *lines[4:]]
    store.append("s-1", lines[4:5])
    store.append("s-2", [entry("reset", "r", "s-2-2", reason="new")])
    store.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        assert (await db.import_path(tmp_path / ".openclaw", verify=True)).ok
        assert await texts_of(db, "s-1") == ["text é 0"]
        assert await texts_of(db, "s-2") == []


# -- archives and cold storage ---------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["zstd", "identity"])
async def test_an_archive_is_read_once_in_the_database_or_beside_it(
    tmp_path: Path, encoding: str
) -> None:
    store = home_with_two(tmp_path)
    ending = ".zst" if encoding == "zstd" else ""
    name = f"s-7.jsonl.deleted.2026-11-20T09-25-20.282Z.{'ab' * 16}{ending}"
    store.archive("s-7", transcript_lines("s-7"), name, encoding=encoding)
    [(blob,)] = store.connection.execute("SELECT archive_blob FROM session_transcript_archives")
    store.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        first = by_name(await db.import_path(tmp_path / ".openclaw", verify=True))
        (store.folder / "sessions" / name).write_bytes(blob)
        second = by_name(await db.import_path(tmp_path / ".openclaw", verify=True))
        info = await (await db.session_by_id("s-7")).info()
        assert len([info async for info in db.sessions(with_ended=True)]) == 3
    archive = first[f"{SESSIONS}/{name}"]
    assert (archive.kind, archive.status, archive.verified) == ("deleted", "imported", True)
    assert (second[f"{SESSIONS}/{name}"].status) == "unchanged"
    assert info.ended_at_ms is not None


@pytest.mark.parametrize("storage", ["file", "sqlite"])
async def test_cold_storage_is_read_out_of_its_envelope(tmp_path: Path, storage: str) -> None:
    store = home_with_two(tmp_path)
    store.append("s-1", transcript_lines("s-1", 40)[4:])
    store.freeze("s-1", storage=storage)
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(tmp_path / ".openclaw", verify=True)
        assert report.ok, report
        assert by_name(report)[f"{SESSIONS}/s-1.jsonl"].verified is True
        assert len(await texts_of(db, "s-1")) == 40
        assert (await db.session("agent:main:main")).id == "s-1"
        store.thaw("s-1", transcript_lines("s-1", 40))
        again = by_name(await db.import_path(tmp_path / ".openclaw"))
    assert again[f"{SESSIONS}/s-1.jsonl"].status == "unchanged"
    store.close()
    expected = {"skipped": {"cold storage": 1}} if storage == "file" else {}
    assert report.not_imported == expected


def spoil_row(store: OpenClawStore) -> None:
    store.run("UPDATE transcript_events SET event_zstd = x'00' WHERE event_zstd IS NOT NULL")


def shorten_row(store: OpenClawStore) -> None:
    store.run(
        "UPDATE transcript_events SET event_utf8_bytes = event_utf8_bytes - 1"
        " WHERE event_zstd IS NOT NULL"
    )


def spoil_cold(store: OpenClawStore) -> None:
    store.freeze("s-1", storage="sqlite")
    store.run("UPDATE session_transcript_cold_archives SET archive_blob = x'00'")


def lose_cold(store: OpenClawStore) -> None:
    path = store.freeze("s-1", storage="file")
    assert path is not None
    path.unlink()


def swap_cold(store: OpenClawStore) -> None:
    store.freeze("s-1", storage="sqlite")
    store.run("UPDATE session_transcript_cold_archives SET event_count = event_count + 1")


def spoil_archive(store: OpenClawStore) -> None:
    store.archive("s-7", transcript_lines("s-7"), "s-7.jsonl.reset.2026", encoding="identity")
    store.run("UPDATE session_transcript_archives SET archive_blob = x'00'")


@pytest.mark.parametrize(
    ("damage", "broken", "why"),
    [
        (spoil_row, "s-2.jsonl", "compression is damaged"),
        (shorten_row, "s-2.jsonl", "where OpenClaw stored"),
        (spoil_cold, "s-1.jsonl", "its SHA-256 differs"),
        (lose_cold, "s-1.jsonl", "vanished"),
        (swap_cold, "s-1.jsonl", "OpenClaw recorded"),
        (spoil_archive, "s-7.jsonl.reset.2026", "its SHA-256 differs"),
    ],
)
async def test_a_damaged_transcript_fails_and_keeps_no_other_out(
    tmp_path: Path, damage: Callable[[OpenClawStore], None], broken: str, why: str
) -> None:
    store = home_with_two(tmp_path)
    damage(store)
    store.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(tmp_path / ".openclaw", verify=True)
    assert not report.ok
    for name, file in by_name(report).items():
        failed = name == f"{SESSIONS}/{broken}"
        assert file.status == ("failed" if failed else "imported"), file
        assert not failed or why in file.note


async def test_messages_that_are_in_no_transcript_yet_are_counted(tmp_path: Path) -> None:
    store = home_with_two(tmp_path)
    store.accept(2)
    store.accept(1, state="cancelled")
    store.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(tmp_path / ".openclaw")
    assert not report.ok
    [waiting] = [file for file in report.files if file.status == "failed"]
    assert waiting.note.startswith("2 accepted messages are in no transcript yet")
    assert report.not_imported == {"failed": {"waiting messages": 1}}


async def test_the_database_goes_before_the_files_it_replaced(tmp_path: Path) -> None:
    store = home_with_two(tmp_path)
    store.close()
    left = content(transcript_lines("s-1", 1))
    index = json.dumps({"agent:main:main": {"sessionId": "left", "updatedAt": 1}}).encode()
    write(store.folder / "sessions", {"sessions.json": index, "left.jsonl": transcript(1, "left")})
    write(store.folder, {"session-sqlite-import-archive/s-1.jsonl.imported-1788300000000": left})
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(tmp_path / ".openclaw", verify=True)
        assert report.ok
        assert (await db.session("agent:main:main")).id == "s-1"
        assert len(await texts_of(db, "s-1")) == 3
    [archived] = [file for file in report.files if file.kind == "bak"]
    assert archived.session_id == "s-1.imported-1788300000000"


# -- other schemas and other databases -------------------------------------------------------------


async def test_a_newer_schema_is_read_by_its_shape_with_a_note(tmp_path: Path) -> None:
    store = home_with_two(tmp_path, schema=24)
    store.run("ALTER TABLE session_nodes ADD COLUMN snapshot_revision INTEGER")
    store.run("CREATE TABLE session_entry_snapshots (session_key TEXT, value_json TEXT)")
    store.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(tmp_path / ".openclaw", verify=True)
        assert (await db.session("agent:main:main")).id == "s-1"
    assert report.ok
    assert "its schema is 24" in by_name(report)[f"{SESSIONS}/sessions.json"].note


async def test_a_schema_from_before_compression_is_read(tmp_path: Path) -> None:
    store = OpenClawStore(tmp_path / ".openclaw", schema=20)
    store.window("s-1")
    store.append("s-1", transcript_lines("s-1"))
    for column in ("event_zstd", "event_utf8_bytes", "navigation_json"):
        store.run(f"ALTER TABLE transcript_events DROP COLUMN {column}")
    store.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(tmp_path / ".openclaw", verify=True)
    assert report.ok
    assert by_name(report)[f"{SESSIONS}/s-1.jsonl"].verified is True


def database(path: Path, sql: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = apsw.Connection(str(path))
    connection.execute(sql).fetchall()
    connection.close()
    return path


NO_DATABASE = b"not a database, and long enough" * 99
META = "CREATE TABLE schema_meta (meta_key, role, schema_version, agent_id, app_version);"
AGENT = (
    "INSERT INTO schema_meta VALUES (1, 'agent', 23, 'main', 'x');"
    "CREATE TABLE session_nodes (session_key, current_session_id, entry_json, entry_valid);"
    "CREATE TABLE session_windows (session_id, updated_at);"
    "CREATE TABLE transcript_events (session_id, seq, event_json);"
)
HERMES = (
    "CREATE TABLE sessions (id, source, parent_session_id, started_at);"
    "CREATE TABLE messages (id, session_id, role, content);"
)


@pytest.mark.parametrize(
    ("name", "sql", "status", "kind"),
    [
        (".hermes/state.db", HERMES, "foreign", "hermes-agent"),
        ("a/openclaw-agent.sqlite", META, "skipped", "OpenClaw database"),
        (
            "old/openclaw-agent.sqlite",
            f"{META} INSERT INTO schema_meta VALUES (1, 'agent', 9, 'main', 'x');",
            "failed",
            "OpenClaw database",
        ),
        ("notes.sqlite3", "CREATE TABLE note (text)", "skipped", "database"),
        ("utf16.db", "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (x)", "skipped", "database"),
        (
            "utf16/openclaw-agent.sqlite",
            f"PRAGMA encoding = 'UTF-16le'; {META}{AGENT}",
            "failed",
            "database",
        ),
    ],
)
async def test_another_database_is_named_by_its_tables(
    tmp_path: Path, name: str, sql: str, status: str, kind: str
) -> None:
    path = database(tmp_path / "in" / name, sql)
    write(tmp_path / "in", {"a.jsonl": transcript(1)})
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(tmp_path / "in")
    found = by_name(report)[name]
    assert (found.status, found.kind) == (status, kind)
    assert report.ok is (status == "skipped")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [entry.name for entry in path.parent.iterdir() if path.name in entry.name] == [path.name]


async def test_a_database_of_sessiondb_is_named_and_the_own_one_left_alone(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "in" / "other.db") as db:
        await (await db.session("agent:main:main")).append({"role": "user", "content": "x"})
    write(tmp_path / "in", {"empty.db": b"", "no.sqlite": NO_DATABASE})
    write(tmp_path / "in/agents/main/agent", {"openclaw-agent.sqlite": NO_DATABASE})
    async with sessiondb.open(tmp_path / "in" / "one.db") as db:
        files = by_name(await db.import_path(tmp_path / "in"))
    found = {name: (file.status, file.kind) for name, file in files.items() if "." in name}
    assert found["other.db"] == ("foreign", "sessiondb database")
    assert found["empty.db"] == ("skipped", "database")
    assert found["no.sqlite"] == ("skipped", "database")
    agent = "agents/main/agent/openclaw-agent.sqlite"
    assert found[agent] == ("failed", "OpenClaw database")
    assert all(status != "imported" for status, _ in found.values())


async def test_the_database_itself_may_be_named(tmp_path: Path) -> None:
    store = home_with_two(tmp_path)
    store.close()
    notes = database(tmp_path / "notes.sqlite", "CREATE TABLE note (text)")
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(store.path, verify=True)
        assert report.ok
        assert sorted(by_name(report)) == [
            f"{SESSIONS}/s-1.jsonl",
            f"{SESSIONS}/s-2.jsonl",
            f"{SESSIONS}/sessions.json",
        ]
        whole = await db.import_path(tmp_path / ".openclaw")
        assert {file.status for file in whole.files} == {"unchanged"}
        assert not (await db.import_path(notes)).ok, "whoever names a file means that file"


# -- the corpus ------------------------------------------------------------------------------------


async def test_every_context_of_the_corpus_is_openclaws_own(corpus: Path, tmp_path: Path) -> None:
    source = corpus / "openclaw-2026.9.6"
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(source / "agents", verify=True)
        assert report.ok
        compared = 0
        for path in (source / "expected").iterdir():
            wanted = json.loads(path.read_text(encoding="utf-8"))
            session = await db.session_by_id(wanted["sessionId"])
            read = json.loads((await session.context()).as_pi_json())
            for name in ("messages", "model", "thinkingLevel"):
                assert read[name] == wanted[name], (path.name, name)
            compared += 1
    assert compared == 12
