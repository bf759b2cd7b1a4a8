"""A home of OpenClaw moves in: every source has a receipt, what is done is not done again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard

import sessiondb
from sessiondb.transfer import importer
from sessiondb.transfer.at_rest import AtRest
from sessiondb.transfer.roundtrip import compare_with_file
from tests.support import warm
from tests.support.openclaw_home import (
    ARCHIVED,
    FOREIGN,
    OTHERS,
    grow,
    index_of,
    make_home,
    with_store,
)
from tests.support.openclaw_store import OpenClawStore, transcript_lines
from tests.support.transfer import message, tables, transcript

pytestmark = pytest.mark.anyio

SESSIONS = "agents/main/sessions"
STORE = "agents/ops/agent/openclaw-agent.sqlite"
TRANSCRIPTS = {
    f"{SESSIONS}/a.jsonl": ("live", "a", 4),
    f"{SESSIONS}/b.jsonl": ("live", "b", 5),
    f"{SESSIONS}/{ARCHIVED}": ("reset", "old", 3),
    f"{STORE}/x.jsonl": ("live", "x", 3),
    f"{STORE}/y.jsonl": ("live", "y", 3),
}
INDEXES = {f"{SESSIONS}/sessions.json", f"{STORE}/sessions.json"}


@pytest.fixture
def anyio_backend() -> str:
    """Return one loop: a migration is an import, whose tests run under both."""
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


async def migrate(db: Path, home: Path, **options: Any) -> sessiondb.MigrationReport:
    async with sessiondb.open(db) as opened:
        return await opened.migrate(home, **options)


def by_path(report: sessiondb.MigrationReport) -> dict[str, sessiondb.SourceReceipt]:
    return {source.path: source for source in report.sources}


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# -- receipts --------------------------------------------------------------------------------------


async def test_every_source_has_a_receipt_and_the_rest_is_counted(home: Path, tmp_db: Path) -> None:
    before = files_of(home)
    report = await migrate(tmp_db, home)
    assert report.ok
    assert report.others == OTHERS
    found = by_path(report)
    assert found.keys() == TRANSCRIPTS.keys() | INDEXES
    for path, (kind, session_id, entries) in TRANSCRIPTS.items():
        source = found[path]
        assert (source.kind, source.session_id, source.verdict) == (kind, session_id, "equal")
        assert source.entries == source.entries_new == entries
        if (home / path).is_file():
            content = (home / path).read_bytes()
            assert source.bytes == len(content)
            assert source.sha256 == hashlib.sha256(content).hexdigest()
    assert {found[path].verdict for path in INDEXES} == {"kept"}
    assert report.entries_new == sum(entries for _, _, entries in TRANSCRIPTS.values())
    assert files_of(home) == before, "nothing is written in the home"


async def test_a_dry_run_finds_the_same_and_changes_nothing(home: Path, tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.session("agent:main:main")
    before = tables(tmp_db)
    dry = await migrate(tmp_db, home, dry_run=True)
    assert tables(tmp_db) == before
    assert {source.verdict for source in dry.sources} == {"would-import"}
    real = await migrate(tmp_db, home)
    assert dry.others == real.others
    assert by_path(dry).keys() == by_path(real).keys()
    for path, source in by_path(real).items():
        told = by_path(dry)[path]
        assert (told.kind, told.bytes, told.sha256) == (source.kind, source.bytes, source.sha256)


async def test_what_is_not_imported_is_named_by_kind_with_its_hash(
    home: Path, tmp_db: Path
) -> None:
    sessions = home / SESSIONS
    (sessions / "claude.jsonl").write_text(FOREIGN)
    (sessions / "c.jsonl.gz").write_bytes(b"packed")
    report = await migrate(tmp_db, home)
    assert not report.ok
    assert report.not_imported == {"Claude Code": 1, "compressed transcript": 1}
    found = by_path(report)
    for name in ("claude.jsonl", "c.jsonl.gz"):
        source, content = found[f"{SESSIONS}/{name}"], (sessions / name).read_bytes()
        assert (source.verdict, source.session_id) == ("not-imported", None)
        assert (source.bytes, source.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert "imported" in source.reason
    (sessions / "claude.jsonl").unlink()
    (sessions / "c.jsonl.gz").unlink()
    assert (await migrate(tmp_db, home)).ok


async def test_damaged_lines_are_counted_in_every_run(home: Path, tmp_db: Path) -> None:
    path = home / SESSIONS / "b.jsonl"
    path.write_bytes(path.read_bytes() + b'torn {\n"more"\n' + message("n", "m4").encode() + b"\n")
    for _ in range(2):
        report = await migrate(tmp_db, home)
        assert not report.ok
        assert report.damaged == 2
        source = by_path(report)[f"{SESSIONS}/b.jsonl"]
        assert (source.damaged, source.verdict) == (2, "equal")


async def test_waiting_messages_of_a_gateway_are_not_imported(tmp_path: Path, tmp_db: Path) -> None:
    store = with_store(tmp_path / "home")
    store.accept(2)
    store.close()
    report = await migrate(tmp_db, tmp_path / "home")
    assert report.not_imported == {"waiting messages": 1}
    assert by_path(report)[STORE].sha256 is None


@pytest.mark.parametrize("name", ["nothing", "empty", "transcripts", "a.jsonl"])
async def test_a_folder_that_is_no_home_is_refused(name: str, tmp_path: Path, tmp_db: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "transcripts").mkdir()
    (tmp_path / "transcripts" / "a.jsonl").write_bytes(transcript())
    (tmp_path / "a.jsonl").write_bytes(transcript())
    with pytest.raises(
        sessiondb.InvalidInput, match=f"{name}: no home of OpenClaw.*sessiondb import"
    ):
        await migrate(tmp_db, tmp_path / name)


@pytest.mark.parametrize("version", ["openclaw-2026.9.6", "openclaw-2026.5.18"])
async def test_real_homes_move_in_whole(corpus: Path, tmp_db: Path, version: str) -> None:
    home = corpus / version
    first = await migrate(tmp_db, home)
    assert first.ok
    assert first.not_imported == {}
    assert {source.verdict for source in first.sources if source.kind != "index"} == {"equal"}
    last = await migrate(tmp_db, home, final=True)
    assert last.ok
    assert last.entries_new == 0
    expected = {path.name for path in (home / "expected").rglob("*.context.json")}
    assert len(expected) == sum(source.kind != "index" for source in last.sources) - (
        2 if version.endswith("9.6") else 0
    ), "the archives of 2026.9.6 have no expectation"


# -- again and again -------------------------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are compared, as they are."""
    names: list[str] = []

    async def compare(backend: Any, path: str, *args: Any, **options: Any) -> list[str]:
        names.append(path.rpartition("/")[2])
        return await compare_with_file(backend, path, *args, **options)

    monkeypatch.setattr(importer, "compare_with_file", compare)
    return names


async def test_what_was_found_equal_is_not_compared_again(
    home: Path, tmp_db: Path, compared: list[str]
) -> None:
    await migrate(tmp_db, home)
    assert sorted(compared) == sorted(path.rpartition("/")[2] for path in TRANSCRIPTS)
    compared.clear()
    rows = tables(tmp_db)
    assert (await migrate(tmp_db, home)).count("equal") == len(TRANSCRIPTS)
    assert compared == []
    assert tables(tmp_db) == rows
    grow(home / SESSIONS / "b.jsonl", "b", 5)
    report = await migrate(tmp_db, home)
    assert compared == ["b.jsonl"]
    assert report.ok
    assert report.entries_new == 1
    compared.clear()
    assert (await migrate(tmp_db, home, final=True)).ok
    assert len(compared) == len(TRANSCRIPTS)


async def test_a_source_that_differs_is_named_in_every_run(
    home: Path, tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compare(backend: Any, path: str, *args: Any, **options: Any) -> list[str]:
        found = await compare_with_file(backend, path, *args, **options)
        return [*found, "message 1 differs"] if path.endswith("/a.jsonl") else found

    monkeypatch.setattr(importer, "compare_with_file", compare)
    for _ in range(2):
        report = await migrate(tmp_db, home)
        assert not report.ok
        assert report.not_imported == {"live": 1}
        source = by_path(report)[f"{SESSIONS}/a.jsonl"]
        assert (source.verdict, source.reason) == ("differs", "message 1 differs")


CHILD = """
import os, signal, sys
import anyio, sessiondb

async def main(database, home, steps):
    done = 0
    def progress(*step):
        nonlocal done
        done += 1
        if done == steps:
            os.kill(os.getpid(), signal.SIGKILL)
    async with sessiondb.open(database) as db:
        await db.migrate(home, progress=progress)

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""
KILLS = int(os.environ.get("SESSIONDB_MIGRATION_KILLS", "2"))
SEED = int(os.environ.get("SESSIONDB_MIGRATION_SEED", "14"))


def test_a_killed_migration_goes_on_and_ends_like_a_whole_one(home: Path, tmp_path: Path) -> None:
    """SESSIONDB_MIGRATION_KILLS is how often it is killed, SESSIONDB_MIGRATION_SEED where."""
    places = random.Random(SEED)
    whole, killed = tmp_path / "whole.db", tmp_path / "killed.db"
    with sessiondb.sync.open(whole) as db:
        db.migrate(home)
    # Each source is read, and each transcript is compared, also if nothing is new.
    steps_min = len(TRANSCRIPTS) * 2 + len(INDEXES)
    for _ in range(KILLS):
        steps = places.randint(1, steps_min)
        child = warm.run(
            [sys.executable, "-c", CHILD, str(killed), str(home), str(steps)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert child.returncode == -9, f"SESSIONDB_MIGRATION_SEED={SEED}: {child.stderr}"
    with sessiondb.sync.open(killed) as db:
        report = db.migrate(home)
        assert report.ok, f"SESSIONDB_MIGRATION_SEED={SEED}"
        assert db.verify().ok
    assert tables(killed, times=False) == tables(whole, times=False)


# -- beside a gateway ------------------------------------------------------------------------------


State = list[tuple[str, tuple[str, ...], bool, list[Any]]]


async def state_of(db: Path) -> State:
    """Return the sessions: id, keys, whether it has ended, and the context."""
    async with sessiondb.open(db, readonly=True) as opened:
        return sorted(
            [
                (
                    info.session_id,
                    info.keys,
                    info.ended_at_ms is not None,
                    (await (await opened.session_by_id(info.session_id)).context()).messages,
                )
                async for info in opened.sessions(with_ended=True)
            ]
        )


def reset(home: Path, how: str) -> None:
    """Do what OpenClaw does when a conversation begins anew: key a, from a.jsonl to new.jsonl."""
    sessions = home / SESSIONS
    archive = sessions / "a.jsonl.reset.2026-05-17T07-35-46.420Z"
    content = (sessions / "a.jsonl").read_bytes()
    if how == "rename":
        (sessions / "a.jsonl").rename(archive)
    else:
        packed = zstandard.ZstdCompressor().compress(content)
        Path(f"{archive}.zst").write_bytes(packed)
        (sessions / "a.jsonl").unlink()
    (sessions / "new.jsonl").write_bytes(transcript(2, "new", "begun anew"))
    rows = json.loads((sessions / "sessions.json").read_text())
    rows["agent:main:a"] |= {"sessionId": "new", "updatedAt": 6}
    (sessions / "sessions.json").write_text(json.dumps(rows))


def delete(home: Path) -> None:
    """Do what OpenClaw does when key b and its conversation are deleted."""
    sessions = home / SESSIONS
    (sessions / "b.jsonl").rename(sessions / "b.jsonl.deleted.2026-05-17T07-35-46.420Z")
    (sessions / "sessions.json").write_bytes(index_of({"agent:main:a": "a"}))


def delete_in_store(home: Path) -> None:
    """Do the same since 2026.8, with key y."""
    with contextlib.closing(OpenClawStore.again(home, "ops")) as store:
        name = "y.jsonl.deleted.2026-05-17T07-35-46.420Z.0123456789abcdef.zst"
        store.archive("y", transcript_lines("y"), name, encoding="zstd")
        store.run("DELETE FROM transcript_events WHERE session_id = 'y'")
        store.run("DELETE FROM session_windows WHERE session_id = 'y'")
        store.run("UPDATE session_nodes SET entry_valid = -1 WHERE current_session_id = 'y'")


@pytest.mark.parametrize(
    "changes",
    [(partial(reset, how="rename"), delete_in_store), (delete, partial(reset, how="zstd"))],
    ids=["reset, deleted in a database", "deleted, reset and compressed"],
)
async def test_a_run_after_each_change_ends_like_one_run(
    home: Path, tmp_path: Path, changes: tuple[Callable[[Path], None], ...]
) -> None:
    assert (await migrate(tmp_path / "often.db", home)).ok
    for change in changes:
        change(home)
        assert (await migrate(tmp_path / "often.db", home)).ok
    assert (await migrate(tmp_path / "once.db", home)).ok
    often, once = await state_of(tmp_path / "often.db"), await state_of(tmp_path / "once.db")
    assert often == once
    assert (await migrate(tmp_path / "often.db", home)).entries_new == 0
    assert await state_of(tmp_path / "often.db") == once


def replace(home: Path) -> None:
    (home / SESSIONS / "a.jsonl").write_bytes(transcript(6, "a", "rewritten"))


def replace_in_store(home: Path) -> None:
    with contextlib.closing(OpenClawStore.again(home, "ops")) as store:
        store.run("DELETE FROM transcript_events WHERE session_id = 'x'")
        header, *lines = transcript_lines("x", 6)
        store.append("x", [header, *(line.replace("text", "rewritten") for line in lines)])


@pytest.mark.parametrize(
    ("change", "key", "name", "killed"),
    [(replace, "agent:main:a", "a", False), (replace_in_store, "agent:ops:x", "x", True)],
    ids=["file", "database, and killed before the keys"],
)
async def test_of_a_source_that_was_replaced_both_are_kept(
    home: Path,
    tmp_path: Path,
    tmp_db: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    key: str,
    name: str,
    killed: bool,
) -> None:
    await migrate(tmp_db, home)
    [before] = [one for one in await state_of(tmp_db) if one[0] == name]
    change(home)
    if killed:
        # It dies between the transcripts and the keys.
        with monkeypatch.context() as dying:
            dying.setattr(importer, "import_index", None)
            with pytest.raises(TypeError):
                await migrate(tmp_db, home)
    report = await migrate(tmp_db, home)
    assert report.ok
    state = await state_of(tmp_db)
    assert [one for one in state if one[0] == name] == [(name, (), True, before[3])]
    [new] = [one for one in state if key in one[1]]
    assert not new[2]
    assert len(new[3]) == 6
    assert len(state) == len(TRANSCRIPTS) + 1
    assert (await migrate(tmp_db, home, final=True)).ok
    assert await state_of(tmp_db) == state
    async with sessiondb.open(tmp_db) as db:
        assert (await db.export(tmp_path / "out")).ok
    if name == "a":
        out = tmp_path / "out" / SESSIONS
        assert (out / "a.jsonl").read_bytes() == (home / SESSIONS / "a.jsonl").read_bytes()
        [archive] = out.glob("a.jsonl.bak.*")
        assert archive.read_bytes() == transcript(4, "a")


async def test_a_conversation_that_went_on_here_is_not_set_aside(home: Path, tmp_db: Path) -> None:
    await migrate(tmp_db, home)
    async with sessiondb.open(tmp_db) as db:
        await (await db.session("agent:main:a")).append({"role": "user", "content": "here"})
    state = await state_of(tmp_db)
    replace(home)
    report = await migrate(tmp_db, home)
    assert report.not_imported == {"live": 1}
    assert await state_of(tmp_db) == state


async def test_a_key_whose_row_is_damaged_now_stays(tmp_path: Path, tmp_db: Path) -> None:
    home = tmp_path / "home"
    store = with_store(home)
    name = "matrix:channel:!Room:Server.org"
    store.window("z", name)
    store.append("z", transcript_lines("z"))
    store.key(name, "z")
    await migrate(tmp_db, home)
    keys = {session_id: keys for session_id, keys, _, _ in await state_of(tmp_db)}
    store.run("UPDATE session_nodes SET entry_json = '{' WHERE current_session_id <> 'y'")
    store.run("UPDATE session_nodes SET entry_valid = -1 WHERE current_session_id = 'y'")
    store.close()
    await migrate(tmp_db, home)
    assert {session_id: keys for session_id, keys, _, _ in await state_of(tmp_db)} == keys | {
        "y": ()
    }
    assert keys["z"] == (f"agent:ops:{name}",)


async def test_a_key_that_was_bound_here_stays_when_its_row_goes(home: Path, tmp_db: Path) -> None:
    await migrate(tmp_db, home)
    async with sessiondb.open(tmp_db) as db:
        other = await db.create_session("mine")
        await db.bind("agent:main:b", other)
    delete(home)
    await migrate(tmp_db, home)
    keys = {session_id: keys for session_id, keys, _, _ in await state_of(tmp_db)}
    assert keys["mine"] == ("agent:main:b",)
    assert keys["a"] == ("agent:main:a",)


# -- the last run ----------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which a gateway has its lock file."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"openclaw-{os.getuid()}"
    folder.mkdir()
    return folder


def started() -> int:
    fields = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19])


async def test_a_final_run_finds_the_gateway_that_runs(
    home: Path, tmp_path: Path, tmp_db: Path, temporary: Path
) -> None:
    lock = temporary / "gateway.0123abcd.lock"

    def lock_of(config: Path, pid: int, **more: int) -> None:
        lock.write_text(json.dumps({"pid": pid, "configPath": str(config), **more}))

    make_home(tmp_path / "other")
    lock_of(home / "openclaw.json", os.getpid())
    report = await migrate(tmp_db, home, final=True)
    assert report.count("equal") == len(TRANSCRIPTS)
    [problem] = report.problems
    assert f"process {os.getpid()} has {lock}" in problem
    assert not report.ok
    assert (await migrate(tmp_db, home)).ok, "an earlier run may be beside it"
    at_rest = AtRest(home, ())
    lock_of(tmp_path / "other" / "openclaw.json", os.getpid())
    assert at_rest.problems() == [], "it is another home's"
    lock_of(home / "openclaw.json", 999_999_999)
    assert at_rest.problems() == [], "it is dead"
    if sys.platform == "linux":
        lock_of(home / "openclaw.json", os.getpid(), startTime=started() + 1)
        assert at_rest.problems() == [], "another process has its pid"
        lock_of(home / "openclaw.json", os.getpid(), startTime=started())
        assert at_rest.problems() != []
    lock.write_text("no lock {")
    assert at_rest.problems() == []


async def test_a_final_run_finds_who_writes_a_transcript(home: Path, tmp_db: Path) -> None:
    lock = home / SESSIONS / "b.jsonl.lock"
    lock.write_text(json.dumps({"pid": os.getpid()}))
    [problem] = (await migrate(tmp_db, home, final=True)).problems
    assert f"{SESSIONS}/b.jsonl.lock" in problem
    lock.unlink()
    written: list[int] = []

    def write(*_: object) -> None:
        if not written:
            written.append(1)
            grow(home / SESSIONS / "a.jsonl", "a", 4)

    [problem] = (await migrate(tmp_db, home, final=True, progress=write)).problems
    assert problem.startswith(f"{SESSIONS}/a.jsonl changed while this ran")
    report = await migrate(tmp_db, home, final=True)
    assert report.ok
    assert report.problems == ()
