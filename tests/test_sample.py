"""The sample is what its README says: copies of real files, each with its program's context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

LARGEST_ALLOWED = 500_000  # bytes: it is cloned and shipped in the source distribution


def transcripts_in(folder: Path) -> list[Path]:
    """Return every transcript: live, checkpoint twin or archive. No index, no expectation."""
    held = [path for path in folder.rglob("*") if path.is_file() and ".jsonl" in path.name]
    return sorted(path for path in held if "expected" not in path.parts)


def test_every_transcript_has_the_context_its_program_reads(sample: Path) -> None:
    found = transcripts_in(sample)
    expected = {path.name for path in sample.glob("*/expected/**/*.context.json")}
    assert len(found) == 24
    assert {f"{path.name}.context.json" for path in found} == expected
    for path in sample.glob("*/expected/**/*.context.json"):
        context = json.loads(path.read_text(encoding="utf-8"))
        assert len(context["messages"]) == context["messageCount"], path.name


def test_every_file_is_a_verbatim_copy_from_the_corpus(sample: Path, corpus: Path) -> None:
    copies = [path for path in sample.rglob("*") if path.is_file() and path != sample / "README.md"]
    assert [
        path
        for path in copies
        if path.read_bytes() != (corpus / path.relative_to(sample)).read_bytes()
    ] == []


def test_the_sample_stays_small(sample: Path) -> None:
    assert (
        sum(path.stat().st_size for path in sample.rglob("*") if path.is_file()) < LARGEST_ALLOWED
    )


def test_the_torn_file_is_still_torn(sample: Path) -> None:
    """An editor that adds a final newline would heal it."""
    torn = (sample / "pi-0.74.2/sessions/damaged-torn-tail.jsonl").read_bytes()
    assert not torn.endswith(b"\n")
    with pytest.raises(json.JSONDecodeError):
        json.loads(torn.splitlines()[-1])


def test_the_index_names_one_transcript_that_was_left_out(sample: Path) -> None:
    folder = sample / "openclaw-2026.5.18/agents/lab/sessions"
    index = json.loads((folder / "sessions.json").read_text(encoding="utf-8"))
    assert [
        key for key, entry in index.items() if not (folder / f"{entry['sessionId']}.jsonl").exists()
    ] == ["agent:lab:huge"]
