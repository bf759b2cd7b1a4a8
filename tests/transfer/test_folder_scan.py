"""OpenClaw's state folders as they are found: indexes, archives, twins, wrong names, links, stubs, and what is not a transcript."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.transfer.folder_scan import agent_of, kind_of, stem_of
from tests.support.transfer import by_name, differing, header, message, tables, transcript, write

pytestmark = pytest.mark.anyio

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
        ("openclaw-agent.sqlite-wal", "an OpenClaw database, not a transcript"),
        (f"{ID}.jsonl.reset.2026-05-17T07-35-46.420Z.context.json", "not a transcript by its name"),
        ("notes.txt", "not a transcript by its name"),
        (".jsonl", "not a transcript by its name"),
    ],
)
def test_a_file_is_what_its_name_says(name: str, kind: str) -> None:
    assert kind_of(name, in_openclaw=True) == kind


def test_a_session_id_from_a_file_name_can_be_one() -> None:
    assert (
        stem_of(f"{ID}.jsonl.reset.2026-05-17T07-35-46.420Z")
        == f"{ID}.reset.2026-05-17T07-35-46.420Z"
    )
    assert stem_of("a:b\x01c\\d.jsonl.zst") == "a-b-c-d"
    assert agent_of("/home/x/.openclaw/agents/Ops/sessions") == "ops"
    assert agent_of("/home/x/sessions") is None


def state_folder(folder: Path) -> Path:
    """Make an OpenClaw state folder with two agents and everything that has been seen in one."""
    index = {
        "agent:main:discord:channel:1": {
            "sessionId": "live",
            "updatedAt": 5,
            "sessionFile": "/gone/agents/main/sessions/live.jsonl",
        },
        "agent:main:discord:channel:2": {
            "sessionId": "other-name",
            "sessionFile": "C:\\gone\\wrong.jsonl",
        },
        "agent:main:by-header": {"sessionId": "by-header"},
        "agent:main:cron:stub": {"updatedAt": 7, "label": "no session"},
        "agent:main:missing": {"sessionId": "missing"},
        "main": {"sessionId": "old-key"},
        "not a key": {"sessionId": "live"},
        "agent:main:odd": ["not", "an", "object"],
    }
    sessions = {
        "sessions.json": json.dumps(index, indent=2).encode(),
        "live.jsonl": transcript(3, "live"),
        "wrong.jsonl": transcript(2, "header-says-this"),
        "renamed-by-hand.jsonl": transcript(2, "by-header"),
        "old-key.jsonl": transcript(2, "old-key"),
        "orphan.jsonl": transcript(2, "orphan"),
        "live.jsonl.reset.2026-05-17T07-35-46.420Z": transcript(4, "live", "older"),
        "live.jsonl.bak.1763631205123": transcript(1, "live", "oldest"),
        "gone.jsonl.deleted.2026-05-17T07-35-46.420Z": transcript(1, "gone"),
        f"live.checkpoint.{UUID}.jsonl": transcript(2, "live", "twin"),
        "live.corrupt-2026-05-17T07-35-46.420Z-0badf00d.jsonl": b"{torn\n"
        + transcript(1, "live", "bad"),
        "live.jsonl.lock": b'{"pid":1}',
        "live.trajectory.jsonl": b"{}\n",
        "live.trajectory-path.json": b"{}",
    }
    write(folder / "agents/main/sessions", sessions)
    ops_index = b'{"agent:ops:main":{"sessionId":"live"}}'
    write(
        folder / "agents/ops/sessions",
        {"live.jsonl": transcript(2, "live", "ops"), "sessions.json": ops_index},
    )
    write(folder, {"openclaw.json": b"{}", "agents/ops/agent/openclaw-agent.sqlite": b"not opened"})
    return folder


async def test_a_state_folder_comes_in_with_its_keys_and_goes_out_as_it_was(tmp_path: Path) -> None:
    folder = state_folder(tmp_path / "state")
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder, verify=True)
        files = by_name(report)
        sessions = "agents/main/sessions"
        ids = {name: file.session_id for name, file in files.items() if file.session_id is not None}
        assert ids == {
            f"{sessions}/live.jsonl": "live",
            f"{sessions}/wrong.jsonl": "other-name",
            f"{sessions}/renamed-by-hand.jsonl": "by-header",
            f"{sessions}/old-key.jsonl": "old-key",
            f"{sessions}/orphan.jsonl": "orphan",
            f"{sessions}/live.jsonl.reset.2026-05-17T07-35-46.420Z": "live.reset.2026-05-17T07-35-46.420Z",
            f"{sessions}/live.jsonl.bak.1763631205123": "live.bak.1763631205123",
            f"{sessions}/gone.jsonl.deleted.2026-05-17T07-35-46.420Z": "gone",
            f"{sessions}/live.checkpoint.{UUID}.jsonl": f"live.checkpoint.{UUID}",
            f"{sessions}/live.corrupt-2026-05-17T07-35-46.420Z-0badf00d.jsonl": "live.corrupt-2026-05-17T07-35-46.420Z-0badf00d",
            "agents/ops/sessions/live.jsonl": ids["agents/ops/sessions/live.jsonl"],
        }
        assert ids["agents/ops/sessions/live.jsonl"].startswith("live~")
        assert "stored as other-name, as the index says" in files[f"{sessions}/wrong.jsonl"].note
        assert "which is not its file name" in files[f"{sessions}/renamed-by-hand.jsonl"].note
        for key, session_id in {
            "agent:main:discord:channel:1": "live",
            "agent:main:discord:channel:2": "other-name",
            "agent:main:by-header": "by-header",
            "agent:main:main": "old-key",
            "agent:ops:main": ids["agents/ops/sessions/live.jsonl"],
        }.items():
            assert (await db.session(key)).id == session_id, key
        notes = files[f"{sessions}/sessions.json"].notes
        for expected in (
            "agent:main:cron:stub: not bound: the row names no session",
            "agent:main:missing: not bound: its transcript missing.jsonl is missing",
            "agent:main:odd: not bound: the row names no session",
        ):
            assert expected in notes
        assert any(note.startswith("not a key: not bound: ") for note in notes)
        assert len(notes) == 4
        skipped = {
            name.rsplit("/", 1)[-1]: file.note
            for name, file in files.items()
            if file.status == "skipped"
        }
        assert skipped == {
            "live.jsonl.lock": "a lock file",
            "live.trajectory.jsonl": "a trajectory, not a transcript",
            "live.trajectory-path.json": "a trajectory's pointer",
            "openclaw.json": "not a transcript by its name",
            "openclaw-agent.sqlite": "an OpenClaw database, not a transcript",
        }
        ended = {
            info.session_id
            async for info in db.sessions(with_ended=True)
            if info.ended_at_ms is not None
        }
        assert ended == {
            file.session_id
            for file in files.values()
            if file.kind in ("reset", "bak", "deleted", "checkpoint", "corrupt")
        }
        await db.export(tmp_path / "out")
        assert (await db.verify()).ok
    assert {Path(name).name for name in differing(folder, tmp_path / "out")} == set(skipped)
    before = tables(tmp_path / "one.db")
    async with sessiondb.open(tmp_path / "one.db") as db:
        again = await db.import_path(folder, verify=True)
    assert {file.status for file in again.files} == {"unchanged", "skipped"}
    assert tables(tmp_path / "one.db") == before


@pytest.mark.parametrize(
    "args",
    [
        "agents/main/sessions",
        "agents/main/sessions/live.jsonl",
        "agents/main/sessions/sessions.json",
    ],
)
async def test_a_part_of_a_state_folder_is_known_when_the_whole_comes(
    tmp_path: Path, args: str
) -> None:
    folder = state_folder(tmp_path / "state")
    async with sessiondb.open(tmp_path / "one.db") as db:
        part = await db.import_path(folder / args)
        whole = by_name(await db.import_path(folder))
    assert part.entries_new > 0
    for file in part.files:
        if file.status == "imported":
            relative = str(Path(file.path).relative_to(folder))
            assert whole[relative].status == "unchanged", relative


async def test_an_index_that_changed_moves_only_the_keys_that_it_changed(tmp_path: Path) -> None:
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
    assert "is missing" in first.files[0].note


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
    assert files["main/sessions/s-1.jsonl"].status == "imported"
    assert (tmp_path / "out/main/sessions/sessions.json").read_bytes() == content


async def test_half_a_character_in_a_key_or_an_id_does_not_end_the_import(tmp_path: Path) -> None:
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


async def test_a_key_in_two_spellings_is_bound_once_and_exported_as_it_was(tmp_path: Path) -> None:
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


async def test_hard_links_are_one_session_under_both_names(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a.jsonl": transcript(3)})
    os.link(folder / "a.jsonl", folder / "b.jsonl")
    async with sessiondb.open(tmp_path / "one.db") as db:
        files = by_name(await db.import_path(folder, verify=True))
        assert [info.session_id async for info in db.sessions()] == ["s-1"]
        assert files["b.jsonl"].session_id == "s-1"
        assert "a hard link to" in files["b.jsonl"].note
        with (folder / "b.jsonl").open("ab") as file:
            file.write(b'{"torn"')
        assert {file.status for file in (await db.import_path(folder, verify=True)).files} == {
            "grown"
        }
        assert {file.status for file in (await db.import_path(folder, verify=True)).files} == {
            "unchanged"
        }
        await db.export(tmp_path / "out")
        assert (await db.verify()).ok
    assert differing(folder, tmp_path / "out") == []


async def test_a_link_that_became_a_file_of_its_own_is_reported(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a.jsonl": transcript(3)})
    os.link(folder / "a.jsonl", folder / "b.jsonl")
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        (folder / "b.jsonl").unlink()
        write(folder, {"b.jsonl": transcript(5)})
        files = by_name(await db.import_path(folder))
        assert (files["a.jsonl"].status, files["b.jsonl"].status) == ("unchanged", "changed")
        assert (await (await db.session_by_id("s-1")).info()).entries == 3


async def test_a_renamed_file_stays_the_same_session_and_becomes_an_archive(tmp_path: Path) -> None:
    folder = write(tmp_path / "agents/main/sessions", {"s-1.jsonl": transcript(3)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        archive = folder / "s-1.jsonl.reset.2026-05-17T07-35-46.420Z"
        (folder / "s-1.jsonl").rename(archive)
        with archive.open("ab") as file:
            file.write((message("new", "m2") + "\n").encode())
        files = by_name(await db.import_path(folder, verify=True))
        info = await (await db.session_by_id("s-1")).info()
        await db.export(tmp_path / "out")
    assert (
        files[archive.name].session_id,
        files[archive.name].status,
        files[archive.name].verified,
    ) == ("s-1", "grown", True)
    assert files[archive.name].note.startswith("renamed from ")
    assert (info.entries, info.ended_at_ms is not None) == (4, True)
    assert differing(folder, tmp_path / "out") == []


async def test_when_the_old_name_is_used_again_nothing_is_guessed(tmp_path: Path) -> None:
    folder = write(tmp_path / "agents/main/sessions", {"s-1.jsonl": transcript(3)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        (folder / "s-1.jsonl").rename(folder / "s-1.jsonl.bak.1763631205123")
        write(folder, {"s-1.jsonl": transcript(2, text="rewritten")})
        files = by_name(await db.import_path(folder))
        assert (files["s-1.jsonl"].status, files["s-1.jsonl"].session_id) == ("changed", "s-1")
        assert (
            files["s-1.jsonl.bak.1763631205123"].status,
            files["s-1.jsonl.bak.1763631205123"].entries,
        ) == ("imported", 3)


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
    assert "out of the folder; it was not followed" in files["out.jsonl"].note
    assert "out of the folder; it was not followed" in files["folder"].note
    for name in ("within.jsonl", "loop", "nowhere.jsonl"):
        assert "within the folder" in files[name].note


async def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
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


async def test_pi_folders_are_read_at_every_depth_and_copies_get_ids_of_their_own(
    tmp_path: Path,
) -> None:
    name = f"2026-01-01T00-00-00-000Z_{ID}.jsonl"
    copies = {f"--home-ana-{at}--/{name}": transcript(2, ID, f"copy {at}") for at in "ab"}
    folder = write(tmp_path / "sessions", copies)
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder)
        await db.export(tmp_path / "out")
    first, second = (file.session_id for file in report.files)
    assert first == ID
    assert second == name.removesuffix(".jsonl")
    assert differing(folder, tmp_path / "out") == []


async def test_compressed_files_need_the_extra_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "zstandard", None)
    folder = write(
        tmp_path / "in",
        {f"{ID}.jsonl.deleted.2026-05-17T07-35-46Z.zst": b"x", "b.jsonl": transcript(1)},
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder)
    assert "pip install 'sessiondb[zstd]'" in next(
        file.note for file in report.files if file.status == "failed"
    )
    assert report.count("imported") == 1


async def test_a_compressed_archive_can_grow_and_be_torn(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    whole = transcript(400)
    name = f"{ID}.jsonl.deleted.2026-05-17T07-35-46Z.zst"
    for content, status in (
        (whole[:1000], "imported"),
        (whole[:5001], "grown"),
        (whole, "grown"),
        (whole, "unchanged"),
    ):
        write(tmp_path / "in", {name: zstandard.ZstdCompressor().compress(content)})
        async with sessiondb.open(tmp_path / "one.db") as db:
            [receipt] = (await db.import_path(tmp_path / "in", verify=True)).files
            assert (receipt.status, receipt.verified, receipt.bytes) == (status, True, len(content))


async def test_a_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zstandard = pytest.importorskip("zstandard")
    monkeypatch.setattr("sessiondb.transfer.jsonl_reader.UNPACKED_BYTES_MAX", 50_000)
    bomb = zstandard.ZstdCompressor().compress((header() + "\n").encode() + b"\n" * 10_000_000)
    write(tmp_path / "in", {f"{ID}.jsonl.deleted.2026-05-17T07-35-46Z.zst": bomb})
    async with sessiondb.open(tmp_path / "one.db") as db:
        [receipt] = (await db.import_path(tmp_path / "in")).files
    assert receipt.status == "failed"
    assert "unpacks to more than 50,000 bytes" in receipt.note
