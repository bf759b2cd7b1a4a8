"""Real transcripts import with the context that their own program reads, and export unchanged."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.clock import ms_from_iso
from tests.support.transfer import (
    differing,
    tables,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


def sets_in(transcripts: Path) -> dict[str, tuple[Path, Path]]:
    """Return each collection of transcripts: what to import, and the folder of its expectations."""
    return {
        "pi": (transcripts / "pi-0.74.2/sessions", transcripts / "pi-0.74.2/expected"),
        "openclaw": (
            transcripts / "openclaw-2026.5.18",
            transcripts / "openclaw-2026.5.18/expected",
        ),
    }


def expectation(folder: Path, name: str) -> Path:
    """Return the expectation of a transcript by its name in the import."""
    parts = [part for part in name.split("/") if part not in ("agents", "sessions")]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.context.json")


def sha256_of(message: Any) -> str:
    return hashlib.sha256(
        json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    ).hexdigest()


@pytest.mark.parametrize("kind", ["pi", "openclaw"])
async def test_contexts_are_those_that_the_writing_program_reads(
    transcripts: Path, tmp_db: Path, kind: str
) -> None:
    source, expected = sets_in(transcripts)[kind]
    async with sessiondb.open(tmp_db) as db:
        report = await db.import_path(source, verify=True)
        compared = 0
        for receipt in report.files:
            if receipt.session_id is None:
                continue
            assert (receipt.status, receipt.verified) == ("imported", True), receipt
            if receipt.name == "damaged-no-header.jsonl":
                continue
            context = await (await db.session_by_id(receipt.session_id)).context()
            read = json.loads(context.as_pi_json())
            wanted = json.loads(expectation(expected, receipt.name).read_text(encoding="utf-8"))
            assert read["model"] == wanted["model"], receipt.name
            assert read["thinkingLevel"] == wanted["thinkingLevel"], receipt.name
            if "messagesSha256" in wanted:
                assert [sha256_of(message) for message in read["messages"]] == wanted[
                    "messagesSha256"
                ], receipt.name
            else:
                assert read["messages"] == wanted["messages"], receipt.name
            compared += 1
    assert compared == sum(
        1 for path in expected.rglob("*.context.json") if "no-header" not in path.name
    )


@pytest.mark.parametrize("kind", ["pi", "openclaw"])
async def test_export_is_exact_and_a_second_import_changes_nothing(
    transcripts: Path, tmp_db: Path, tmp_path: Path, kind: str
) -> None:
    source, _ = sets_in(transcripts)[kind]
    async with sessiondb.open(tmp_db) as db:
        first = await db.import_path(source)
        exported = await db.export(tmp_path / "out")
    before = tables(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        second = await db.import_path(source)
        again = await db.export(tmp_path / "out")
    assert first.ok
    assert exported.ok
    assert differing(source, tmp_path / "out") == []
    assert {file.status for file in second.files} <= {"unchanged", "skipped"}
    assert second.entries_new == 0
    assert tables(tmp_db) == before
    assert {file.status for file in again.files} == {"unchanged"}


async def test_a_file_without_a_header_keeps_its_good_lines(sample: Path, tmp_db: Path) -> None:
    source = sample / "pi-0.74.2/sessions/damaged-no-header.jsonl"
    async with sessiondb.open(tmp_db) as db:
        receipt = (await db.import_path(source, verify=True)).files[0]
        context = await (await db.session_by_id("damaged-no-header")).context()
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    assert receipt.verified
    assert receipt.entries == len(lines)
    assert context.messages == [line["message"] for line in lines if line["type"] == "message"]
    assert "no header" in receipt.note


async def test_a_torn_tail_is_quarantined_with_line_offset_and_reason(
    sample: Path, tmp_db: Path, tmp_path: Path
) -> None:
    source = sample / "pi-0.74.2/sessions/damaged-torn-tail.jsonl"
    content = source.read_bytes()
    async with sessiondb.open(tmp_db) as db:
        receipt = (await db.import_path(source)).files[0]
        await db.export(tmp_path / "out")
    [line] = receipt.quarantined
    assert line.line == len(content.splitlines())
    assert line.byte_offset == content.rindex(b"\n") + 1
    assert line.bytes == len(content) - line.byte_offset
    assert line.reason.startswith("torn: the file ends inside this line")
    assert (tmp_path / "out/damaged-torn-tail.jsonl").read_bytes() == content


async def test_compressed_archives_come_back_with_their_content(
    corpus: Path, tmp_db: Path, tmp_path: Path
) -> None:
    zstandard = pytest.importorskip("zstandard")
    source = corpus / "openclaw-2026.9.6/agents/ops/sessions"
    async with sessiondb.open(tmp_db) as db:
        report = await db.import_path(source, verify=True)
        await db.export(tmp_path / "out")
        archives = [file for file in report.files if file.name.endswith(".zst")]
        assert [(file.kind, file.status, file.verified) for file in archives] == [
            ("deleted", "imported", True)
        ] * 2
        infos = [await (await db.session_by_id(file.session_id or "")).info() for file in archives]
    assert all(info.ended_at_ms is not None and info.version == 4 for info in infos)
    for file in archives:
        unpacked = [
            zstandard.ZstdDecompressor().stream_reader((folder / file.name).read_bytes()).read()
            for folder in (source, tmp_path / "out")
        ]
        assert unpacked[0] == unpacked[1]
        assert unpacked[0]


def latest_ms(path: str) -> int:
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    stamps = [re.search(r'"timestamp":"([^"]+)"', line) for line in lines]
    return max(ms_from_iso(stamp[1]) or 0 for stamp in stamps if stamp is not None)


async def test_imported_archives_are_ended_and_dated_by_their_messages(
    sample: Path, tmp_db: Path
) -> None:
    async with sessiondb.open(tmp_db) as db:
        report = await db.import_path(sample / "openclaw-2026.5.18")
        for receipt in report.files:
            if receipt.session_id is None:
                continue
            info = await (await db.session_by_id(receipt.session_id)).info()
            assert (info.ended_at_ms is not None) == (receipt.kind in ("reset", "checkpoint")), (
                receipt.name
            )
            assert info.updated_at_ms == latest_ms(receipt.path)
            assert info.origin == "import"
