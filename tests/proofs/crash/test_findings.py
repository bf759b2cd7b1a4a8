"""What the crash tests found beside crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

import sessiondb
from sessiondb.maintenance.retention import RetentionPolicy
from tests.support.core import user
from tests.support.transfer import transcript, write

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


async def test_an_export_succeeds_after_deletions_without_an_archive(
    tmp_path: Path,
) -> None:
    """The export called them archived, to be restored first.

    That was impossible, so no export ever succeeded again.
    """
    files = write(tmp_path / "files", {"imported.jsonl": transcript(3, "imported")})
    async with sessiondb.open(tmp_path / "gateway.db") as db:
        await db.import_path(files)
        await (await db.create_session("native")).append(user("hello"))
        missing = await db.gc(RetentionPolicy(max_sessions=0, idle_days=0, archive=False))
        assert missing.count("done") == 2
        await (await db.create_session("stays")).append(user("hello"))
        report = await db.export(tmp_path / "out")
        assert report.ok, report
        assert [file.name for file in report.files] == ["stays.jsonl"]


async def test_an_export_names_archived_sessions_and_how_to_restore(
    tmp_path: Path,
) -> None:
    async with sessiondb.open(tmp_path / "gateway.db") as db:
        await (await db.create_session("archived")).append(user("hello"))
        await db.gc(RetentionPolicy(max_sessions=0, idle_days=0))
        [file] = (await db.export(tmp_path / "out")).files
        assert file.status == "failed"
        assert "sessiondb unarchive DB archived" in file.note
