"""The real transcripts beside a checkout, and the small cases: each with its own reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests import ROOT

from .transcripts import Transcript

SHARED: Final = ROOT.parent / "shared"
_PROGRAMS: Final = {"pi ": "pi", "OpenClaw ": "openclaw", "@earendil-works/pi-agent-core ": "sdk"}


def real() -> list[Transcript]:
    """Return every transcript of the corpus that one of the readers can read."""
    corpus = SHARED / "corpus"
    found = []
    for folder, by in (("pi-0.74.2/sessions", "pi"), ("openclaw-2026.5.18", "openclaw")):
        for path in sorted(Path(corpus, folder).rglob("*.jsonl*")):
            name = path.relative_to(corpus).as_posix()
            if "/expected/" not in name:
                found.append(Transcript(name, by, path.read_bytes(), frozenset()))
    return found


def cases() -> list[Transcript]:
    """Return the small cases, with the readers that their expectations name."""
    found = []
    for expected in sorted(Path(SHARED, "cases/transcripts").glob("*/*.expected.json")):
        by = json.loads(expected.read_bytes())["by"]
        reader = next(reader for start, reader in _PROGRAMS.items() if by.startswith(start))
        path = expected.with_name(expected.name.replace(".expected.json", ".jsonl"))
        name = f"{path.parent.name}/{path.name}"
        found.append(Transcript(name, reader, path.read_bytes(), frozenset()))
    return found
