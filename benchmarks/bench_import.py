"""Import: how fast transcripts come in, beside decoding each of their lines once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from time import perf_counter

import pytest
from measure import ASSISTANT_MESSAGE, USER_MESSAGE, Bench, size

import sessiondb

FILES = size(16, 2)
LINES = size(4_000, 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Transcripts as pi writes them: a header, then messages, each the child of the one before."""
    created = tmp_path / "sessions"
    created.mkdir()
    for number in range(FILES):
        session_id = f"00000000-0000-4000-8000-{number:012d}"
        lines = [
            {
                "type": "session",
                "version": 3,
                "id": session_id,
                "timestamp": "2026-01-01T00:00:00.000Z",
                "cwd": "/work",
            }
        ]
        parent = None
        for line in range(LINES):
            entry_id = f"{number:04x}{line:04x}"
            message = USER_MESSAGE if line % 2 == 0 else ASSISTANT_MESSAGE
            entry = {
                "type": "message",
                "id": entry_id,
                "parentId": parent,
                "timestamp": "2026-01-01T00:00:01.000Z",
            }
            lines.append({**entry, "message": message})
            parent = entry_id
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        (created / f"2026-01-01T00-00-00-000Z_{session_id}.jsonl").write_text(
            text, encoding="utf-8"
        )
    return created


def test_importing_beside_decoding_each_line(bench: Bench, folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.iterdir())
    megabytes = sum(file.stat().st_size for file in files) / 1e6

    async def decode() -> float:
        began = perf_counter()
        _decode(files)
        return megabytes / (perf_counter() - began)

    async def ours() -> float:
        place = tmp_path / "import"
        place.mkdir()
        async with sessiondb.open(place / "gateway.db") as db:
            began = perf_counter()
            await db.import_path(folder)
            rate = megabytes / (perf_counter() - began)
            assert [info.entries async for info in db.sessions()] == [LINES] * FILES
        shutil.rmtree(place)
        return rate

    bench.say("import, beside json.loads of each line", bench.rounds(decode, ours, 3), unit="MB/s")


def _decode(files: list[Path]) -> None:
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                json.loads(line)
