"""schema.sql as Markdown: each table and view under its own heading, every line verbatim."""

from __future__ import annotations

import re
from pathlib import Path

SCHEMA = Path(__file__).resolve().parents[2] / "schema.sql"

_CREATED = re.compile(r"^CREATE (?:TABLE|VIEW) (\w+)", re.MULTILINE)


def reference() -> str:
    """Return the whole schema: its code blocks, joined by blank lines, are the file."""
    parts = []
    for block in SCHEMA.read_text(encoding="utf-8").strip().split("\n\n"):
        names = _CREATED.findall(block)
        if names:
            parts.append(f"### {', '.join(names)}")
        elif block.startswith("PRAGMA"):
            parts.append("## Tables")
        elif block.startswith("-- Views"):
            parts.append("## Views")
        parts.append(f"```sql\n{block}\n```")
    return "\n\n".join(parts)
