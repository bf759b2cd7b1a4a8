"""A row of an index is followed to where OpenClaw reads its transcript, or the import says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from tests.support.openclaw_home import index_of, make_home
from tests.support.transfer import transcript, write

pytestmark = pytest.mark.anyio

MAIN, OPS = "agents/main/sessions", "agents/ops/sessions"
KEY = "agent:main:far"


@pytest.fixture
def anyio_backend() -> str:
    """Return one loop: this is an import, whose tests run under both."""
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def add_row(home: Path, path: str | Path, session_id: str = "far", key: str = KEY) -> None:
    """Add a key whose transcript lies at a path."""
    index = home / MAIN / "sessions.json"
    rows = json.loads(index.read_text())
    rows[key] = {"sessionId": session_id, "sessionFile": str(path)}
    index.write_text(json.dumps(rows))


async def keys_of(db: sessiondb.SessionDB) -> dict[str, str]:
    return {key: info.session_id async for info in db.sessions() for key in info.keys}


async def migrated(db: Path, home: Path, **options: Any) -> sessiondb.MigrationReport:
    async with sessiondb.open(db) as opened:
        return await opened.migrate(home, **options)


@pytest.mark.parametrize("place", ["another home", "beside the home", "a link"])
async def test_a_transcript_outside_of_the_home_is_never_passed_over(
    home: Path, tmp_path: Path, tmp_db: Path, place: str
) -> None:
    folder = {"another home": "old/agents/main/sessions"}.get(place, "kept")
    path = write(tmp_path / folder, {"far.jsonl": transcript(2, "far")}) / "far.jsonl"
    named: str | Path = path
    if place == "beside the home":
        named = "../../../../kept/far.jsonl"
    if place == "a link":
        named = home / MAIN / "shared" / "far.jsonl"
        named.parent.symlink_to(path.parent)
    add_row(home, named)
    for options in ({"dry_run": True}, {}):
        report = await migrated(tmp_db, home, **options)
        assert not report.ok
        assert report.not_imported["transcript elsewhere"] == 1
        [lost] = [source for source in report.sources if source.kind == "transcript elsewhere"]
        assert (home / lost.path).resolve() == path
        assert lost.sha256 is not None
        assert "Copy the file into the folder" in lost.reason
        [note] = [note for one in report.sources for note in one.notes if KEY in note]
        assert "lies outside of what was imported" in note
    # What the reason says is enough.
    write(home / MAIN, {"far.jsonl": path.read_bytes()})
    if place == "a link":
        named.parent.unlink()  # type: ignore[union-attr]  # it is reported by itself
    assert (await migrated(tmp_db, home)).ok
    async with sessiondb.open(tmp_db) as db:
        assert (await keys_of(db))[KEY] == "far"


async def test_a_namesake_is_not_taken_for_a_transcript_elsewhere(
    home: Path, tmp_path: Path, tmp_db: Path
) -> None:
    elsewhere = write(tmp_path / "old" / MAIN, {"b.jsonl": (home / MAIN / "b.jsonl").read_bytes()})
    add_row(home, elsewhere / "b.jsonl", "b", "agent:main:b")
    assert (await migrated(tmp_db, home)).ok, "a home that was copied: they are the same"
    write(elsewhere, {"b.jsonl": transcript(5, "b", "went on there")})
    report = await migrated(tmp_db, home)
    assert report.not_imported == {"transcript elsewhere": 1}
    assert "is another one" in "".join(source.reason for source in report.sources)


async def test_a_row_that_leads_to_another_folder_of_the_home_binds_its_key(
    home: Path, tmp_path: Path, tmp_db: Path
) -> None:
    """Of one index for all agents, say (`session.store`)."""
    write(home / OPS, {"far.jsonl": transcript(2, "far"), "b.jsonl": transcript(2, "b")})
    add_row(home, "../../ops/sessions/b.jsonl", "b2")
    report = await migrated(tmp_db, home)
    assert report.ok
    ids = {source.path: source.session_id for source in report.sources}
    async with sessiondb.open(tmp_db) as db:
        keys = await keys_of(db)
        assert keys[KEY] == ids[f"{OPS}/b.jsonl"]
        assert keys["agent:main:b"] == ids[f"{MAIN}/b.jsonl"]
        assert (await db.export(tmp_path / "back", openclaw=True)).ok
    again = await migrated(tmp_path / "2.db", tmp_path / "back")
    assert again.ok
    async with sessiondb.open(tmp_path / "2.db") as db:
        there = await keys_of(db)
        assert there.keys() == keys.keys()
        assert there[KEY] != there["agent:main:b"]


async def test_a_key_without_a_transcript_begins_anew(home: Path, tmp_db: Path) -> None:
    (home / MAIN / "sessions.json").write_bytes(index_of({"agent:main:a": "a", KEY: "far"}))
    add_row(home, "/gone/agents/main/sessions/far2.jsonl", "far2", "agent:main:far2")
    for options in ({"dry_run": True}, {}):
        report = await migrated(tmp_db, home, **options)
        assert report.ok, "there is no conversation that could be missing"
        notes = [note for source in report.sources for note in source.notes]
        assert len(notes) == 2, "of a dry run, too: it does not miss what it would import"
        assert any(
            f"{KEY}: not bound: OpenClaw has no transcript far.jsonl" in one for one in notes
        )


async def test_the_databases_own_file_is_not_opened(home: Path, tmp_db: Path) -> None:
    add_row(home, tmp_db)
    write(home / MAIN, {tmp_db.name: b""})
    report = await migrated(tmp_db, home)
    assert "transcript elsewhere" not in report.not_imported
