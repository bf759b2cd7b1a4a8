"""`verify` compares an import with its file, and finds any difference between them."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

import sessiondb
from tests.support.transfer import (
    by_name,
    transcript,
    write,
)

pytestmark = pytest.mark.anyio


async def test_verify_compares_no_context_that_was_changed_here(
    sample: Path, tmp_path: Path
) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        source = sample / "pi-0.74.2/sessions/compaction-1.jsonl"
        [receipt] = (await db.import_path(source)).files
        await (await db.session_by_id(receipt.session_id or "")).undo_compaction()
        [again] = (await db.import_path(source, verify=True)).files
    assert (again.status, again.verified, again.notes) == ("unchanged", True, ())


async def test_verify_finds_what_was_changed_behind_its_back(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"one.jsonl": transcript(3), "two.jsonl": transcript(3, "s-2")})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
    connection = apsw.Connection(str(tmp_path / "one.db"))
    connection.execute(
        "update entry set payload = replace(payload, '漢 🙂 1', 'oops') where entry_no >> 32 = 1"
    )
    connection.execute("update entry set projection = 0 where entry_no = (2 << 32) + 1")
    connection.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(source, verify=True)
    files = by_name(report)
    assert "its export differs from the file" in files["one.jsonl"].notes
    assert "its context has 2 messages here and 3 in the file" in files["two.jsonl"].notes
    assert not report.ok
