"""Packs stay within their limits, whatever the files."""

from __future__ import annotations

from pathlib import Path

from sessiondb.limits import IMPORT_BATCH_ENTRIES, MIB
from sessiondb.transfer.folder_scan import scan
from sessiondb.transfer.import_packs import BatchRead, read_packs
from sessiondb.transfer.import_plan import FilePlan
from tests.support.transfer import (
    transcript,
    write,
)


def test_a_pack_never_exceeds_its_limits(tmp_path: Path) -> None:
    files = {f"{at:03}.jsonl": transcript(at % 40, f"s-{at}") for at in range(60)} | {
        "big.jsonl": transcript(700, text="x" * 20_000)
    }
    source = write(tmp_path / "in", files)
    found = scan(str(source))
    packs = list(read_packs([FilePlan(file) for file in found.transcripts]))
    for pack in packs:
        batches = [event.batch for event in pack if isinstance(event, BatchRead)]
        assert sum(len(batch.items) for batch in batches) <= IMPORT_BATCH_ENTRIES
        assert len(batches) == 1 or sum(batch.size for batch in batches) <= MIB
        assert sum(batch.size for batch in batches) <= MIB + 40_000
    items = sum(
        len(event.batch.items) for pack in packs for event in pack if isinstance(event, BatchRead)
    )
    assert items == sum(content.count(b"\n") for content in files.values())
