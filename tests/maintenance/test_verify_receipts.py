"""`verify` compares the receipts of imports with what an export would write."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import sessiondb
from sessiondb.maintenance import verify_receipts, verify_search, verify_steps, verify_text
from tests.support.core import change
from tests.support.world import world_file

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


@pytest.mark.parametrize("rows", [1, 2])
async def test_pages_of_few_rows_find_what_one_page_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    path = world_file(tmp_path / "world.db")
    async with sessiondb.open(path) as db:
        await db.build_search()
    change(
        path,
        "UPDATE import_file SET sha256 = 'no' WHERE name = 'west/odd.jsonl'",
        "INSERT INTO search (rowid, text) VALUES (7, 'nobody'), (8, 'nobody')",
        "DELETE FROM search_session WHERE session_no > 5",
    )
    async with sessiondb.open(path, readonly=True) as db:
        whole = await db.verify(deep=True)
        for module in (verify_receipts, verify_search, verify_steps, verify_text):
            monkeypatch.setattr(module, "PAGE_ROWS", rows)
        assert (await db.verify(deep=True)).findings == whole.findings
    found = Counter(finding.check for finding in whole.findings)
    assert found["source"] == 1
    assert found["search"] > 3


@pytest.mark.parametrize("redacted", ["west/clean.jsonl", "west/clean.jsonl.link"])
async def test_receipts_of_redacted_bytes_are_not_compared(tmp_path: Path, redacted: str) -> None:
    """Neither a redacted one, nor any whose session's first one is."""
    path = world_file(tmp_path / "world.db")
    change(
        path,
        "UPDATE import_file SET sha256 = 'no' WHERE name GLOB 'west/clean*'",
        f"UPDATE import_file SET note = 'redacted at import' WHERE name = '{redacted}'",
    )
    async with sessiondb.open(path) as db:
        found = (await db.verify()).findings
    is_first = redacted == "west/clean.jsonl"
    assert [one.message.split()[3] for one in found] == (
        [] if is_first else ["/imports/west/clean.jsonl"]
    )
