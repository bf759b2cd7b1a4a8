"""An export is a folder that pi and OpenClaw read: complete files, under safe names."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
from sessiondb.transfer import export_files
from sessiondb.transfer.export_plan import safe_name
from sessiondb.transfer.jsonl_reader import UnreadableFile
from sessiondb.transfer.roundtrip import _context_of
from tests.support.transfer import (
    differing,
    export_of,
    header,
    message,
    transcript,
    write,
)

pytestmark = pytest.mark.anyio


async def messages_in(content: bytes) -> list[Any]:
    """Return the context of a file, as pi and OpenClaw read it."""
    read = _context_of(content)
    assert read is not None
    return read[0]


async def same_context(session: sessiondb.Session, content: bytes) -> bool:
    context = await session.context()
    return json.loads(context.as_pi_json())["messages"] == await messages_in(content)


async def test_a_native_session_is_a_file_beside_its_agents_index(
    tmp_path: Path, tmp_db: Path
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:discord:channel:1", cwd="/work")
        for at in range(5):
            await session.append({"role": "user", "content": f"{at} é🙂"})
        lone = await db.create_session("lone")
        report = await db.export(tmp_path / "out")
        assert await same_context(
            session, (tmp_path / f"out/agents/main/sessions/{session.id}.jsonl").read_bytes()
        )
        arrivals = await session.all_entries()
    assert report.ok
    assert {file.name for file in report.files} == {
        f"agents/main/sessions/{session.id}.jsonl",
        "lone.jsonl",
        "agents/main/sessions/sessions.json",
    }
    content = (tmp_path / f"out/agents/main/sessions/{session.id}.jsonl").read_text(
        encoding="utf-8"
    )
    assert content == "".join(entry.payload + "\n" for entry in arrivals)
    index = json.loads(
        (tmp_path / "out/agents/main/sessions/sessions.json").read_text(encoding="utf-8")
    )
    assert {key: row["sessionId"] for key, row in index.items()} == {
        "agent:main:discord:channel:1": session.id
    }
    assert json.loads((tmp_path / "out/lone.jsonl").read_text(encoding="utf-8"))["id"] == lone.id


async def test_an_export_imports_into_the_same_sessions(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        for number in range(3):
            session = await db.session(f"agent:main:discord:channel:{number}")
            await session.append_many([{"role": "user", "content": f"{at}"} for at in range(10)])
            async with session.compact(keep_recent_tokens=1) as job:
                await job.commit("ok")
            await session.append(
                {"role": "assistant", "content": [{"type": "text", "text": "after"}]}
            )
        await db.export(tmp_path / "out")
        keys = [f"agent:main:discord:channel:{number}" for number in range(3)]
        contexts = {key: await (await db.session(key)).context() for key in keys}
    async with sessiondb.open(tmp_path / "two.db") as db:
        report = await db.import_path(tmp_path / "out", verify=True)
        assert report.ok
        for key, context in contexts.items():
            again = await (await db.session(key)).context()
            assert (again.session_id, again.as_pi_json()) == (
                context.session_id,
                context.as_pi_json(),
            )
        await db.export(tmp_path / "out2")
    assert differing(tmp_path / "out", tmp_path / "out2") == []


async def test_an_append_follows_a_file_without_a_final_newline(
    tmp_path: Path,
) -> None:
    head, good = header().encode(), message("a", None, "first").encode()
    for name, content in {
        "whole": b"\n".join([head, good]),
        "torn": b"\n".join([head, good, b'{"type":']),
    }.items():
        folder = write(tmp_path / name, {"one.jsonl": content})
        async with sessiondb.open(tmp_path / f"{name}.db") as db:
            await db.import_path(folder)
            await (await db.session_by_id("s-1")).append({"role": "user", "content": "new"})
            exported = await export_of(db, "s-1", tmp_path)
        assert exported.startswith(content + b"\n")
        last = json.loads(exported[len(content) + 1 :])
        assert (last["message"]["content"], last["parentId"]) == ("new", "a")


async def test_a_fork_holds_the_path_that_it_shares_and_then_its_own(
    tmp_path: Path, tmp_db: Path
) -> None:
    async with sessiondb.open(tmp_db) as db:
        first = await db.session("agent:main:a")
        receipts = [
            await first.append({"role": "user", "content": f"first {at}"}) for at in range(6)
        ]
        await first.branch(receipts[1].entry_id)
        await first.append({"role": "user", "content": "side"})
        second = await first.fork(entry=receipts[3].entry_id, session_id="second")
        assert await same_context(second, await export_of(db, "second", tmp_path))
        await second.append({"role": "user", "content": "second"})
        third = await second.fork(session_id="third")
        await third.append({"role": "user", "content": "third"})
        await third.branch(receipts[0].entry_id)
        await third.append({"role": "user", "content": "third, from the first's beginning"})
        for session in (first, second, third):
            content = await export_of(db, session.id, tmp_path)
            assert await same_context(session, content), session.id
            lines = [json.loads(line) for line in content.splitlines()]
            ids = [line["id"] for line in lines]
            assert len(ids) == len(set(ids))
            for at, line in enumerate(lines[1:], start=1):
                assert line["parentId"] is None or line["parentId"] in ids[1:at]
        assert [
            line["message"]["content"]
            for line in map(json.loads, (await export_of(db, "second", tmp_path)).splitlines()[1:])
        ] == [
            "first 0",
            "first 1",
            "first 2",
            "first 3",
            "second",
        ]


async def test_a_fork_of_an_old_transcript_has_the_current_version(
    sample: Path, tmp_path: Path, tmp_db: Path
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(sample / "pi-0.74.2/sessions/legacy-v1-handwritten.jsonl")
        fork = await (await db.session_by_id("legacy-1")).fork(session_id="fork")
        await fork.append({"role": "user", "content": "goes on"})
        content = await export_of(db, "fork", tmp_path)
        assert await same_context(fork, content)
    lines = [json.loads(line) for line in content.splitlines()]
    assert lines[0]["version"] == 3
    assert all(
        line["id"] and "parentId" in line and "firstKeptEntryIndex" not in line
        for line in lines[1:]
    )


async def test_an_index_changes_only_where_a_key_was_rebound(
    tmp_path: Path,
) -> None:
    index = (
        '{\n  "agent:main:a" : {"sessionId": "s1", "sessionFile": "/x/s1.jsonl", "label": "é"},\n'
        '  "agent:main:b": { "sessionId":"s2" }  ,\n'
        '  "agent:main:gone": {"sessionId": "missing"},\n'
        '  "agent:main:c": {"sessionId": "s1", "kept": [1, 2]}\n}\n'
    )
    folder = write(
        tmp_path / "in/agents/main/sessions",
        {
            "s1.jsonl": transcript(1, "s1"),
            "s2.jsonl": transcript(1, "s2"),
            "sessions.json": index.encode(),
        },
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(tmp_path / "in")
        await db.bind("agent:main:a", await db.session_by_id("s2"))
        await db.unbind("agent:main:b")
        new = await db.session("agent:main:new")
        await db.export(tmp_path / "out")
    written = (tmp_path / "out/agents/main/sessions/sessions.json").read_text(encoding="utf-8")
    rows = json.loads(written)
    assert rows["agent:main:a"] == {
        "sessionId": "s2",
        "sessionFile": "/x/s2.jsonl",
        "label": "é",
        "updatedAt": rows["agent:main:a"]["updatedAt"],
    }
    assert list(rows) == ["agent:main:a", "agent:main:gone", "agent:main:c", "agent:main:new"]
    assert rows["agent:main:new"]["sessionId"] == new.id
    assert (
        '  "agent:main:gone": {"sessionId": "missing"},\n'
        '  "agent:main:c": {"sessionId": "s1", "kept": [1, 2]},\n' in written
    )
    assert (tmp_path / "out/agents/main/sessions" / f"{new.id}.jsonl").is_file()
    assert (folder / "sessions.json").read_text(encoding="utf-8") == index


async def test_files_and_folders_are_their_owners_only(tmp_path: Path, tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.session("agent:main:a")
        await db.export(tmp_path / "new/out")
    for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


async def test_a_different_file_is_left_alone_unless_asked(tmp_path: Path, tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await db.export(tmp_path / "out")
        await session.append({"role": "user", "content": "more"})
        refused = await db.export(tmp_path / "out")
        assert [(file.status, "was left alone" in file.note) for file in refused.files] == [
            ("refused", True)
        ]
        assert not refused.ok
        assert (tmp_path / "out/s.jsonl").read_bytes().count(b"\n") == 1
        written = await db.export(tmp_path / "out", overwrite=True)
        assert written.ok
        assert (tmp_path / "out/s.jsonl").read_bytes().count(b"\n") == 2
        (tmp_path / "out/s.jsonl").unlink()
        (tmp_path / "out/s.jsonl").symlink_to(tmp_path / "victim")
        (tmp_path / "victim").write_text("precious")
        assert not (await db.export(tmp_path / "out")).ok
        assert (await db.export(tmp_path / "out", overwrite=True)).ok
    assert (tmp_path / "victim").read_text() == "precious"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s.jsonl"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a/b.jsonl", "a/b.jsonl"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("a/../../b", "a/b"),
        ("..", "unnamed.jsonl"),
        ("", "unnamed.jsonl"),
        ("a\0b", "a-b"),
    ],
)
def test_no_recorded_name_leads_out_of_the_destination(name: str, safe: str) -> None:
    assert safe_name(name) == safe


HOSTILE = [
    "../escaped.jsonl",
    "/tmp/sessiondb-escaped.jsonl",
    "../../in/one.jsonl",
    "link/escaped.jsonl",
    "one.db",
    "one.db-wal",
]


def outside_of(out: Path, top: Path) -> dict[Path, bytes]:
    """Return the files beside the destination, and the one that an absolute name leads to."""
    paths = [*top.rglob("*"), Path("/tmp/sessiondb-escaped.jsonl")]
    return {
        path: path.read_bytes() for path in paths if path.is_file() and not path.is_relative_to(out)
    }


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_database_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    write(tmp_path / "in", {"one.jsonl": transcript(2)})
    out = tmp_path / "deep/out"
    out.mkdir(parents=True)
    (out / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    database = out / "one.db"
    async with sessiondb.open(database) as db:
        await db.import_path(tmp_path / "in")
    connection = apsw.Connection(str(database))
    connection.execute("update import_file set name = ?", (name,))
    connection.close()
    outside = outside_of(out, tmp_path)
    async with sessiondb.open(database) as db:
        await db.export(out, overwrite=True)
        assert (await db.verify()).ok
    async with sessiondb.open(database) as db:  # this file is still the database
        assert (await (await db.session_by_id("s-1")).info()).entries == 2
    assert outside_of(out, tmp_path) == outside


async def test_files_of_one_name_from_two_imports_do_not_meet(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write(tmp_path / folder, {"one.jsonl": transcript(2, folder)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        for folder in ("x", "y"):
            await db.import_path(tmp_path / folder)
        report = await db.export(tmp_path / "out")
        again = await db.export(tmp_path / "out")
    assert report.ok
    assert {file.status for file in again.files} == {"unchanged"}
    assert {path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        transcript(2, "x"),
        transcript(2, "y"),
    }
    assert any(
        "another file of this export has the name one.jsonl" in file.note for file in report.files
    )


async def test_indexes_of_one_name_from_two_imports_do_not_meet(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        index = json.dumps({f"agent:{folder}:main": {"sessionId": folder}}).encode()
        write(tmp_path / folder, {f"{folder}.jsonl": transcript(2, folder), "sessions.json": index})
    async with sessiondb.open(tmp_path / "one.db") as db:
        for folder in ("x", "y"):
            await db.import_path(tmp_path / folder)
        report = await db.export(tmp_path / "out", overwrite=True)
    assert report.ok
    indexes = sorted((tmp_path / "out").glob("sessions*.json"))
    assert [json.loads(path.read_bytes()) for path in indexes] == [
        {"agent:x:main": {"sessionId": "x"}},
        {"agent:y:main": {"sessionId": "y"}},
    ]


async def test_one_session_is_exported_by_id_or_key(tmp_path: Path, tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:a")
        await db.session("agent:main:b")
        for at, name in enumerate((session.id, "agent:main:a", session)):
            report = await db.export(tmp_path / f"{at}", session=name)
            assert [file.session_id for file in report.files] == [session.id]
        report = await db.export(tmp_path / "file.jsonl", session=session)
        assert [file.path for file in report.files] == [str(tmp_path / "file.jsonl")]
        for nobody in ("nobody", session.id[:8]):
            with pytest.raises(sessiondb.NotFound):
                await db.export(tmp_path / "x", session=nobody)


async def test_a_destination_that_cannot_be_a_folder_is_refused(
    tmp_path: Path, tmp_db: Path
) -> None:
    (tmp_path / "file").write_text("")
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(
            sessiondb.InvalidInput, match=r"cannot export there.*Choose another folder"
        ):
            await db.export(tmp_path / "file/out")


async def test_long_sessions_and_large_entries_are_read_in_pages(tmp_path: Path) -> None:
    big = "\n".join(
        [
            header(),
            *(message(f"m{at}", f"m{at - 1}" if at else None, "x" * 900_000) for at in range(12)),
            "",
        ]
    ).encode()
    blanks = (
        (header("s-2") + "\n").encode()
        + b"\n" * 1_200
        + message("a", None).encode()
        + b"\n"
        + b"\xff\n" * 700
    )
    write(
        tmp_path / "in",
        {"big.jsonl": big, "blanks.jsonl": blanks, "long.jsonl": transcript(1_300, "s-3")},
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(tmp_path / "in", verify=True)
        await db.export(tmp_path / "out")
    assert report.ok
    assert [file.verified for file in report.files] == [True] * 3
    assert differing(tmp_path / "in", tmp_path / "out") == []


async def test_a_file_system_without_hard_links_is_reported(
    tmp_path: Path, tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    async with sessiondb.open(tmp_db) as db:
        await db.create_session("lone")
        monkeypatch.setattr(os, "link", refuse)
        report = await db.export(tmp_path / "out")
    [file] = report.files
    assert (file.status, file.note) == (
        "failed",
        "it cannot be written: this file system has no hard links; choose another destination",
    )
    assert not list((tmp_path / "out").iterdir())


async def test_a_cancelled_export_leaves_no_half_file(tmp_path: Path) -> None:
    write(tmp_path / "in", {f"{at}.jsonl": transcript(300, f"s{at}") for at in range(5)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(tmp_path / "in")
        with anyio.CancelScope() as scope:
            await db.export(
                tmp_path / "out", progress=lambda done, *_: scope.cancel() if done == 2 else None
            )
        assert scope.cancelled_caught
    left = list((tmp_path / "out").iterdir())
    assert left
    assert all(path.read_bytes() == (tmp_path / "in" / path.name).read_bytes() for path in left)


async def test_an_archive_is_compressed_again_under_its_name(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    name = "s-1.jsonl.deleted.2026-05-17T07-35-46Z.zst"
    write(tmp_path / "in", {name: zstandard.ZstdCompressor(level=19).compress(transcript(50))})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(tmp_path / "in")
        await db.export(tmp_path / "out")
        again = await db.export(tmp_path / "out")
    assert [file.status for file in again.files] == ["unchanged"]
    unpacked = (
        zstandard.ZstdDecompressor().stream_reader((tmp_path / "out" / name).read_bytes()).read()
    )
    assert unpacked == transcript(50)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


class Unwritable:
    """A compressor that is missing."""

    def __init__(self, *_: object) -> None:
        raise UnreadableFile("compressed; to write it, install the extra")


@pytest.fixture
def files(tmp_path: Path) -> export_files.Files:
    (tmp_path / "out").mkdir()
    return export_files.Files(
        str(tmp_path / "out"), overwrite=False, protect=frozenset(), redactor=None
    )


def test_a_file_that_cannot_be_begun_leaves_nothing(
    files: export_files.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_files, "_compressor", Unwritable)
    with pytest.raises(UnreadableFile, match="install the extra"):
        export_files.Output.begin(files, str(tmp_path / "out/a.jsonl.zst"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_discarded_is_closed_and_gone(
    files: export_files.Files, tmp_path: Path
) -> None:
    for is_placed in (False, True):
        output = export_files.Output.begin(files, str(tmp_path / "out/a.jsonl"))
        output.add([b"line\n"])
        assert not output.file.closed
        if is_placed:
            assert output.place() == "written"
        for _ in range(2):  # it may be repeated
            output.discard()
        assert output.file.closed
        names = [path.name for path in (tmp_path / "out").iterdir()]
        assert names == (["a.jsonl"] if is_placed else [])


async def test_a_fork_takes_lines_as_they_are_if_they_are_of_the_current_version(
    tmp_path: Path,
) -> None:
    """A line without an id, or without its parent's, could not be found under its new parents."""
    kept = [message("a", None, "first"), message("b", "a", "second")]
    body = {"role": "user", "content": "third"}
    lacking = [
        json.dumps({"type": "message", "parentId": "b", "message": body}),
        json.dumps({"type": "message", "id": "d", "message": body}),
    ]
    source = write(
        tmp_path / "in", {"one.jsonl": "\n".join([header(), *kept, *lacking, ""]).encode()}
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
        session = await db.session_by_id("s-1")
        entries = await session.all_entries()
        for at, entry in enumerate(entries[2:]):
            await session.fork(entry=entry.entry_id, session_id=f"fork-{at}")
        lines = [
            (await export_of(db, f"fork-{at}", tmp_path)).decode().splitlines() for at in (0, 1)
        ]
        for at in (0, 1, 2):
            content = await export_of(db, f"fork-{at}", tmp_path)
            assert await same_context(await db.session_by_id(f"fork-{at}"), content)
    assert lines[0][1:] == kept
    assert lines[1][1:3] == kept
    third = json.loads(lines[1][3])
    assert (third["parentId"], third["id"]) == ("b", entries[3].entry_id)


@pytest.mark.anyio
async def test_one_session_is_written_to_the_file_that_is_named(
    tmp_db: Path, tmp_path: Path
) -> None:
    async with sessiondb.open(tmp_db) as db:
        one, other = [await db.create_session(name) for name in ("one", "other")]
        for session in (one, other):
            await session.append({"role": "user", "content": f"in {session.id}"})
        file = tmp_path / "new" / "talk.txt"
        receipt = await db.export_one(one, file)
        assert [path.name for path in file.parent.iterdir()] == ["talk.txt"]
        assert (receipt.session_id, receipt.bytes) == ("one", file.stat().st_size)
        assert "in one" in file.read_text()
        before = file.read_bytes()
        refused = await db.export_one(other, file)
        assert file.read_bytes() == before
        assert refused.status not in ("written", "unchanged"), refused
        await db.export_one(other, file, overwrite=True)
        assert "in other" in file.read_text()
        with pytest.raises(sessiondb.InvalidInput):
            await db.export_one(one, tmp_path)
        own = await db.export_one(one, tmp_db, overwrite=True)
        assert own.status == "failed", "the database itself is never replaced"
