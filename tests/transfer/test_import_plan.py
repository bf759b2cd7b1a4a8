"""A file is recognised under a new name, and further names of one file are one session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import sessiondb
from tests.support.transfer import (
    by_name,
    differing,
    message,
    transcript,
    write,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


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


async def test_a_renamed_file_stays_the_same_session(tmp_path: Path) -> None:
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
