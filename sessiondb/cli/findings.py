"""The findings of `verify`, for a person: what they share is said once.

Findings of one check have the same advice, and those of a damaged file the same
explanation. Printed with each of them it hides what differs. Findings are shown by check,
in the order of their first one. `--json` has each finding whole, and all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from sessiondb.models import Finding

from .terminal import escape, naming, terminal_width, wrap

SHOWN_MAX = 20
"""Findings of one check that are shown. A broken index alone can make hundreds."""

_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")


def print_findings(findings: Sequence[Finding], db: str) -> None:
    """Print findings by check. The commands in their advice name the database."""
    checks: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        checks.setdefault((finding.severity, finding.check), []).append(finding)
    for (severity, check), alike in checks.items():
        click.echo(f"{severity}: {check}")
        texts = [_sentences(finding.message, db) for finding in alike]
        shared = _shared_end(texts)
        for finding, text in list(zip(alike, texts, strict=True))[:SHOWN_MAX]:
            whose = f"session {finding.session_id}: " if finding.session_id else ""
            _print(whose + " ".join(text[: len(text) - shared]), "    ")
        if len(alike) > SHOWN_MAX:
            click.echo(f"    ... and {len(alike) - SHOWN_MAX:,} more (--json lists all)")
        if shared:
            _print(" ".join(texts[0][len(texts[0]) - shared :]), "    > ")


def _sentences(message: str, db: str) -> list[str]:
    """Split a finding's message. A sentence that it says twice is kept once."""
    found = _SENTENCE.split(re.sub(r"(?<!\.)\.\.(?!\.)", ".", naming(message, db)))
    return list(dict.fromkeys(found))


def _shared_end(texts: list[list[str]]) -> int:
    """Count the sentences with which every text ends. What a finding is about stays with it."""
    shared = 0
    shortest = min(len(text) for text in texts)
    while shared < shortest - 1 and len({text[-1 - shared] for text in texts}) == 1:
        shared += 1
    return shared


def _print(text: str, indent: str) -> None:
    width = terminal_width()
    for number, line in enumerate(wrap(escape(text), width - len(indent) if width else None)):
        click.echo((indent if number == 0 else " " * len(indent)) + line)
