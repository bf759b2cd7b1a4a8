"""A file is opened once, is one file while it is read, and is stored in its true size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.limits import HOLE_BYTES_MAX
from sessiondb.transfer import import_packs, jsonl_reader
from sessiondb.transfer.folder_scan import SourceFile
from tests.support.transfer import by_name, transcript, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Return one loop: this is an import, whose tests run under both."""
    return "asyncio"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {f"{name}.jsonl": transcript(3, name) for name in ("one", "two")}
    return write(tmp_path / "in", files)


async def test_a_file_is_opened_once(
    folder: Path, tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = os.open

    def counting(path: Any, *args: Any, **options: Any) -> int:
        opened.append(os.fsdecode(path).rpartition("/")[2])
        return real(path, *args, **options)

    async with sessiondb.open(tmp_db) as db:
        monkeypatch.setattr(jsonl_reader.os, "open", counting)
        for _ in range(2):
            assert (await db.import_path(folder)).ok
            with (folder / "one.jsonl").open("ab") as file:
                file.write(b"\n")
            assert sorted(name for name in opened if name.endswith(".jsonl")) == [
                "one.jsonl",
                "two.jsonl",
            ]
            opened.clear()


@pytest.mark.parametrize("moment", ["before it is read", "while it is read"])
async def test_a_file_that_is_replaced_meanwhile_is_noticed(
    folder: Path, tmp_db: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    new = write(folder.parent, {"new.jsonl": transcript(5, "one", "another")}) / "new.jsonl"
    recognise, hold = import_packs.recognise, SourceFile.hold

    def replace() -> None:
        if new.exists():
            new.rename(folder / "one.jsonl")

    def held(file: SourceFile) -> Any:
        if file.name == "one.jsonl":
            replace()
        return hold(file)

    def recognised(*args: Any) -> Any:
        replace()
        return recognise(*args)

    if moment == "before it is read":
        monkeypatch.setattr(SourceFile, "hold", held)
    else:
        monkeypatch.setattr(import_packs, "recognise", recognised)
    async with sessiondb.open(tmp_db) as db:
        report = await db.import_path(folder)
        assert not report.ok
        files = by_name(report)
        assert files["two.jsonl"].status == "imported"
        assert files["one.jsonl"].status == "failed"
        assert "took its place while" in files["one.jsonl"].note
        assert "import again" in files["one.jsonl"].note
        # Of the two files no mixture is stored: what there is is the whole of one.
        texts = [
            (await (await db.session_by_id(info.session_id)).context()).messages
            async for info in db.sessions()
            if info.session_id == "one"
        ]
        assert [len(messages) for messages in texts] in ([], [3])


async def test_a_sparse_file_is_refused_and_a_small_hole_is_kept(
    folder: Path, tmp_db: Path
) -> None:
    size = os.path.getsize(folder / "one.jsonl")  # noqa: ASYNC240, PTH202 - a test's own file
    for name, more in (("one.jsonl", 3 << 30), ("two.jsonl", HOLE_BYTES_MAX // 2)):
        with (folder / name).open("r+b") as file:
            file.truncate(size + more)
            if os.lseek(file.fileno(), 0, os.SEEK_HOLE) >= size + more:
                pytest.skip("the file system of temporary files makes no holes")
    async with sessiondb.open(tmp_db) as db:
        files = by_name(await db.import_path(folder))
    assert files["one.jsonl"].status == "failed"
    assert "a sparse file" in files["one.jsonl"].note
    assert (files["two.jsonl"].entries, files["two.jsonl"].damaged) == (3, 1)
    assert os.path.getsize(tmp_db) < 8 << 20  # noqa: ASYNC240, PTH202
