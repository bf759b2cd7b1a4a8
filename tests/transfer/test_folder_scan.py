"""A file is what its name says, and a scan follows nothing out of its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import sessiondb
from sessiondb.transfer.folder_scan import agent_of, kind_of, stem_of
from sessiondb.transfer.recognition import Other
from tests.support.transfer import (
    by_name,
    transcript,
    write,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

ID = "11111111-2222-4333-8444-555555555555"
UUID = "99999999-8888-4777-8666-555555555555"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sessions.json", "index"),
        (f"{ID}.jsonl", "live"),
        (f"{ID}.jsonl.zst", "live"),
        (f"{ID}.jsonl.reset.2026-05-17T07-35-46.420Z", "reset"),
        (f"{ID}.jsonl.deleted.2026-05-17T07-35-46Z", "deleted"),
        (
            f"{ID}.jsonl.deleted.2026-11-20T09-25-24.075Z.ef99e97393be4afd80f7f2736a7c5810.zst",
            "deleted",
        ),
        (f"{ID}.jsonl.bak.1763631205123", "bak"),
        (f"{ID}.jsonl.bak", "bak"),
        (f"{ID}.jsonl.imported-1763631205123", "bak"),
        (f"{ID}.checkpoint.{UUID}.jsonl", "checkpoint"),
        (f"{ID}.corrupt-2026-05-17T07-35-46.420Z-0badf00d.jsonl", "corrupt"),
        (f"{ID}.jsonl.lock", "a lock file"),
        (f"{ID}.trajectory.jsonl", "a trajectory, not a transcript"),
        (f"{ID}.trajectory-path.json", "a trajectory's pointer"),
        ("sessions.json.bak.1763631205123", "a copy of the index"),
        ("sessions.json.tmp", "a copy of the index"),
        ("openclaw-agent.sqlite-wal", "a part of the database beside it"),
        (f"{ID}.acp-stream.jsonl", "a stream of ACP events, not a transcript"),
        (f"{ID}.jsonl.reset.2026-05-17T07-35-46.420Z.context.json", "not a transcript by its name"),
        ("notes.txt", "not a transcript by its name"),
        (".jsonl", "not a transcript by its name"),
    ],
)
def test_a_file_is_what_its_name_says(name: str, kind: str) -> None:
    found = kind_of(name, in_openclaw=True)
    assert (found.sentence if isinstance(found, Other) else found) == kind


def test_a_session_id_from_a_file_name_can_be_one() -> None:
    assert (
        stem_of(f"{ID}.jsonl.reset.2026-05-17T07-35-46.420Z")
        == f"{ID}.reset.2026-05-17T07-35-46.420Z"
    )
    assert stem_of("a.jsonl.b.jsonl") == "a.b.jsonl"
    assert stem_of("a:b\x01c\\d.jsonl.zst") == "a-b-c-d"
    assert agent_of("/home/x/.openclaw/agents/Ops/sessions") == "ops"
    assert agent_of("/home/x/.openclaw/agents/Ops/session-sqlite-import-archive") == "ops"
    assert agent_of("/home/x/sessions") is None


async def test_symbolic_links_are_listed_and_never_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "elsewhere", {"secret.jsonl": transcript(2, "secret")})
    folder = write(tmp_path / "in", {"a.jsonl": transcript(2), "sub/b.jsonl": transcript(2, "s-2")})
    (folder / "out.jsonl").symlink_to(secret / "secret.jsonl")
    (folder / "folder").symlink_to(secret)
    (folder / "within.jsonl").symlink_to(folder / "a.jsonl")
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.jsonl").symlink_to(folder / "missing")
    async with sessiondb.open(tmp_path / "one.db") as db:
        files = by_name(await db.import_path(folder))
        found = sorted([info.session_id async for info in db.sessions()])
    assert found == ["s-1", "s-2"]
    for name in ("out.jsonl", "folder"):
        assert "out of the folder; it was not followed" in files[name].note
        assert files[name].status == "failed"
    for name in ("within.jsonl", "loop", "nowhere.jsonl"):
        assert "within the folder" in files[name].note
        assert files[name].status == "skipped"


async def test_an_entry_that_is_not_a_file_is_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a.jsonl": transcript(1)})
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "folder.jsonl").mkdir()
    write(folder, {os.fsdecode(b"\xff/b.jsonl"): transcript(1, "s-2")})
    async with sessiondb.open(tmp_path / "one.db") as db:
        files = by_name(await db.import_path(folder))
    assert (files["pipe.jsonl"].status, files["pipe.jsonl"].note) == (
        "skipped",
        "not a regular file",
    )
    assert (files["\\xff/b.jsonl"].status, files["\\xff/b.jsonl"].note) == (
        "failed",
        "its name is not UTF-8; rename it and import again",
    )
    assert files["a.jsonl"].status == "imported"


async def test_files_of_openclaws_other_folders_fail_no_import(tmp_path: Path) -> None:
    home = write(
        tmp_path / ".openclaw",
        {
            "agents/main/sessions/s-1.jsonl": transcript(2),
            "agents/ops/sessions/s-2.jsonl": transcript(2, "s-2"),
            "cron/runs/a.jsonl": b'{"ts":1,"jobId":"a","action":"finished"}\n',
            "logs/audit.jsonl": b'{"ts":"x","event":"config.write"}\n',
            "workspace/events.jsonl": b'{"type":"click","id":"1","parentId":null}\n',
            "workspace-ops/.git/HEAD": b"ref",
        },
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(home, verify=True)
    assert report.ok
    assert report.count("imported") == 2
    assert report.not_imported == {"skipped": {"cron run log": 1, "log": 1, "workspace file": 2}}


async def test_a_named_file_that_is_no_transcript_fails(tmp_path: Path) -> None:
    write(tmp_path, {"in/notes.txt": b"x", "in/a.jsonl": transcript(1)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        assert (await db.import_path(tmp_path / "in")).ok
        report = await db.import_path(tmp_path / "in/notes.txt")
    assert not report.ok
    assert report.not_imported == {"failed": {"other file": 1}}


@pytest.mark.parametrize("name", ["s-1.jsonl.gz", "s-1.jsonl.old", "s-1.jsonl~"])
async def test_a_transcript_under_an_odd_name_is_not_left_out_in_silence(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path / "in", {name: transcript(1), "a.jsonl.notes": b"none\n"})
    async with sessiondb.open(tmp_path / "one.db") as db:
        files = by_name(await db.import_path(tmp_path / "in"))
    assert {name: file.status for name, file in files.items()} == {
        name: "failed",
        "a.jsonl.notes": "skipped",
    }
