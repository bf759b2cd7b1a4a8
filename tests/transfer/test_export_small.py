"""Small files of an export share a read and a call of a thread, and are the same files."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessiondb
from sessiondb.errors import StoreDamaged
from sessiondb.transfer import export_files, export_small
from sessiondb.transfer.jsonl_reader import UnreadableFile
from tests.support.core import user
from tests.support.transfer import header, message, transcript, write

NAMES = ("a.jsonl", "b.jsonl", "sub/c.jsonl")
EARLY = "\n".join(
    (header("s-2"), message("3", "2"), "not JSON", "", message("1", None), message("2", "1"))
).encode()


@pytest.fixture
async def filled(tmp_path: Path, tmp_db: Path) -> Path:
    """Return a closed database: imported files, native sessions, and a fork."""
    write(
        tmp_path / "in",
        {"a.jsonl": transcript(12), "b.jsonl": EARLY, "sub/c.jsonl": transcript(3, "s-3")},
    )
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(tmp_path / "in")
        session = await db.session("agent:main:chat:1")
        await session.append_many([user(f"{number} é🙂") for number in range(300)])
        await (await session.fork()).append(user("in the fork"))
        await db.create_session("lone")
        late = await db.session("agent:other:chat:1")
        await late.append(user("the other agent's"))
    return tmp_db


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Reads:
    """The names of the reads of an open database."""

    def __init__(self, db: sessiondb.SessionDB, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ops: list[str] = []
        real = db.backend.read

        async def read(fn: Callable[[Any], Any], *, op: str) -> Any:
            self.ops.append(op)
            return await real(fn, op=op)

        monkeypatch.setattr(db.backend, "read", read)


@pytest.mark.anyio
async def test_shared_reads_give_the_same_files_as_reads_of_their_own(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(filled) as db:
        reads = Reads(db, monkeypatch)
        monkeypatch.setattr(export_small, "READ_S", 0.0)
        alone = await db.export(tmp_path / "alone")
        assert "export.entries" in reads.ops
        reads.ops.clear()
        monkeypatch.setattr(export_small, "READ_S", math.inf)
        together = await db.export(tmp_path / "together")
    assert reads.ops.count("export.small") == 1
    assert "export.entries" not in reads.ops
    assert together.ok
    assert [(file.name, file.status, file.bytes, file.sha256) for file in together.files] == [
        (file.name, file.status, file.bytes, file.sha256) for file in alone.files
    ]
    assert len(together.files) == 9
    assert content_of(tmp_path / "together") == content_of(tmp_path / "alone")
    assert content_of(tmp_path / "together")["b.jsonl"] == EARLY


@pytest.mark.anyio
async def test_a_file_that_does_not_fit_is_read_in_pages_between_the_others(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_small, "READ_S", math.inf)
    async with sessiondb.open(filled) as db:
        whole = await db.export(tmp_path / "whole")
        reads = Reads(db, monkeypatch)
        monkeypatch.setattr(export_small, "PAGE_BYTES", 9_000)  # the session of 300 has more
        report = await db.export(tmp_path / "pages")
    assert [file.name for file in report.files] == [file.name for file in whole.files]
    assert content_of(tmp_path / "pages") == content_of(tmp_path / "whole")
    assert reads.ops.count("export.entries") >= 2
    assert reads.ops.count("export.small") >= 2


@pytest.mark.anyio
async def test_each_file_has_its_own_outcome(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_small, "READ_S", math.inf)
    real = export_small.transcript_content

    def content(backend: Any, plan: Any) -> Any:
        if plan.name == "b.jsonl":
            raise UnreadableFile("its session is archived")
        return real(backend, plan)

    monkeypatch.setattr(export_small, "transcript_content", content)
    write(tmp_path / "out", {"a.jsonl": b"another\n"})
    seen: list[int] = []
    async with sessiondb.open(filled) as db:
        report = await db.export(tmp_path / "out", progress=lambda done, *_: seen.append(done))
    found = {file.name: file for file in report.files}
    assert [found[name].status for name in NAMES] == ["refused", "failed", "written"]
    assert found["b.jsonl"].notes == ("its session is archived",)
    assert (tmp_path / "out/a.jsonl").read_bytes() == b"another\n"
    assert not (tmp_path / "out/b.jsonl").exists()
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert seen == list(range(len(seen)))


@pytest.mark.anyio
async def test_damage_ends_the_export_behind_the_files_before_it(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_small, "READ_S", math.inf)
    real = export_small.transcript_content

    def content(backend: Any, plan: Any) -> Any:
        if plan.name == "sub/c.jsonl":
            raise StoreDamaged("a page of it is damaged")
        return real(backend, plan)

    monkeypatch.setattr(export_small, "transcript_content", content)
    async with sessiondb.open(filled) as db:
        with pytest.raises(StoreDamaged):
            await db.export(tmp_path / "out")
    assert set(content_of(tmp_path / "out")) == {"a.jsonl", "b.jsonl"}


@pytest.mark.anyio
async def test_files_are_synced_before_their_names_and_a_folder_once_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out/in").mkdir(parents=True)
    synced: set[int] = set()
    order: list[str] = []
    sync, link, folder = os.fsync, Path.hardlink_to, export_files.sync_folder

    def record_sync(descriptor: int) -> None:
        sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def record_name(path: Path, temporary: Path) -> None:
        assert temporary.stat().st_ino in synced
        order.append("name")
        link(path, temporary)

    def record_folder(path: Path) -> None:
        order.append(path.name)
        folder(path)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "hardlink_to", record_name)
    monkeypatch.setattr(export_files, "sync_folder", record_folder)
    made = export_files.Files(
        str(tmp_path / "out"), overwrite=False, protect=frozenset(), redactor=None
    )
    found = await made.write_whole(
        [(name, [b"line\n"], None, None) for name in ("a", "b", "in/c", "in/d")]
    )
    assert [file.status for file in found] == ["written"] * 4
    assert order == ["name", "name", "name", "name", "out", "in"]


@pytest.mark.anyio
async def test_files_in_a_folder_that_cannot_be_synced_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    real = export_files.sync_folder

    def broken(folder: Path) -> None:
        if folder.name == "bad":
            raise OSError(errno.EIO, "Input/output error")
        real(folder)

    monkeypatch.setattr(export_files, "sync_folder", broken)
    made = export_files.Files(
        str(tmp_path / "out"), overwrite=False, protect=frozenset(), redactor=None
    )
    found = await made.write_whole(
        [(name, [b"line\n"], "s", None) for name in ("bad/a", "good/a", "bad/b")]
    )
    assert [file.status for file in found] == ["failed", "written", "failed"]
    assert found[0].notes == ("it cannot be written: Input/output error",)


@pytest.mark.anyio
async def test_an_export_of_more_files_than_a_call_may_have(
    tmp_path: Path, tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_small, "READ_S", math.inf)
    write(
        tmp_path / "in", {f"{number:03}.jsonl": transcript(1, f"s-{number}") for number in range(7)}
    )
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(tmp_path / "in")
        reads = Reads(db, monkeypatch)
        monkeypatch.setattr("sessiondb.transfer.exporter.FILES_MAX", 3)
        report = await db.export(tmp_path / "out")
    assert reads.ops.count("export.small") == 3
    assert [file.status for file in report.files] == ["written"] * 7
    assert content_of(tmp_path / "out") == content_of(tmp_path / "in")


def test_content_that_waits_for_anything_else_is_a_bug() -> None:
    async def waits() -> None:
        await anyio.lowlevel.checkpoint()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="waited for something"):
            export_small._finished(waits())  # type: ignore[arg-type]

    anyio.run(main)
