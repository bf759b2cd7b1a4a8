"""Import transcripts, and compare contexts and exports with the real readers and the files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

import sessiondb

from .readers import Readers, decoded
from .transcripts import Transcript

PARTS = ("messages", "thinkingLevel", "model")


@dataclass(frozen=True)
class Difference:
    """What an import made of a transcript that its program does not make of it."""

    transcript: Transcript
    what: str
    ours: Any = None
    theirs: Any = None

    def __str__(self) -> str:
        moves = ", ".join(sorted(self.transcript.moves)) or "nothing odd"
        return f"{self.transcript.name} ({moves}): {self.what}"


async def judge(transcripts: Sequence[Transcript], readers: Readers) -> list[Difference]:
    """Return every difference between an import of transcripts and their own readers."""
    judged = [transcript for transcript in transcripts if transcript.by in readers.found]
    ours, differences = await import_all(judged)
    files = [(transcript.by, transcript.content) for transcript in judged]
    theirs = await anyio.to_thread.run_sync(readers.read, files)
    for transcript, context, read in zip(judged, ours, theirs, strict=True):
        if context is not None:
            differences += compare(transcript, context, read)
    return differences


async def import_all(
    transcripts: Sequence[Transcript],
) -> tuple[list[dict[str, Any] | None], list[Difference]]:
    """Return the context of each after an import, and what import, export and verify got wrong.

    The context of one that was not imported is None.
    """
    # Names of a corpus have folders and endings that say what a file is. Its content is judged.
    named = {f"{number:05}.jsonl": one for number, one in enumerate(transcripts)}
    contexts: dict[str, dict[str, Any]] = {}
    differences = []
    with tempfile.TemporaryDirectory(prefix="sessiondb-oracle-") as folder:
        source, out = Path(folder, "in"), Path(folder, "out")
        _write(source, named)
        async with sessiondb.open(Path(folder, "oracle.db")) as db:
            report = await db.import_path(source, verify=True)
            await db.export(out)
            verified = await db.verify()
            for receipt in report.files:
                transcript = named[receipt.name]
                if receipt.session_id is None:
                    differences.append(Difference(transcript, f"not imported: {receipt.note}"))
                    continue
                if receipt.verified is False:
                    differences.append(Difference(transcript, f"--verify: {receipt.note}"))
                session = await db.session_by_id(receipt.session_id)
                contexts[receipt.name] = decoded((await session.context()).as_pi_json())
                if _content(out, receipt.name) != transcript.content:
                    differences.append(Difference(transcript, "its export differs from the file"))
        assert verified.ok, verified
    return [contexts.get(name) for name in named], differences


def _write(folder: Path, files: dict[str, Transcript]) -> None:
    folder.mkdir()
    for name, transcript in files.items():
        Path(folder, name).write_bytes(transcript.content)


def _content(folder: Path, name: str) -> bytes | None:
    path = Path(folder, name)
    return path.read_bytes() if path.is_file() else None


def compare(
    transcript: Transcript, ours: dict[str, Any], theirs: dict[str, Any]
) -> list[Difference]:
    """Return how two contexts of one transcript differ."""
    if "error" in theirs:
        return [Difference(transcript, f"its reader: {theirs['error']}", ours, None)]
    differences = []
    for part in PARTS:
        mine, real = ours.get(part), theirs.get(part)
        if mine == real and (part in ours) == (part in theirs):
            continue
        what = f"its {part} differs"
        if part == "messages" and len(mine) != len(real):
            what = f"{len(mine)} messages, and its reader has {len(real)}"
        elif part == "messages":
            at = next(i for i, (a, b) in enumerate(zip(mine, real, strict=True)) if a != b)
            what, mine, real = f"message {at} differs", mine[at], real[at]
        differences.append(Difference(transcript, what, mine, real))
    return differences
