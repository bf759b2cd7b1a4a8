"""What OpenClaw demands of the files in its home, for an export that it reads as its own.

A transcript lies in `agents/<agent>/sessions`, under a name that is a session id of OpenClaw with
the ending of its kind. A row of the index names it without a folder: OpenClaw follows a path that
leads into another home, and writes there. The time of a row decides about daily and idle resets.
So a row whose conversation went on here has the time of its last entry, and every other one keeps
its own.

Sources: openclaw `src/config/sessions/paths.ts`, `artifacts.ts`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sessiondb.json_text import dumps_again, loads

from .folder_scan import agent_of, file_name, kind_of
from .openclaw_index import IndexEntry, UnreadableIndex, key_of, read_index, write_index

if TYPE_CHECKING:
    from sessiondb import statements

_SESSION_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ID_CHARS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class HomeFile:
    """A transcript in the home."""

    name: str
    """Relative to the home."""
    went_on: bool
    """It has entries that did not come from OpenClaw."""


def name_in_home(name: str, agent_id: str | None, *, is_live: bool) -> str:
    """Return where a file lies in a home. OpenClaw reads a live transcript by its name, too."""
    folder, _, last = name.rpartition("/")
    agent = agent_of(f"/{folder}") or re.sub(r"[^a-z0-9_-]", "-", (agent_id or "main").lower())
    if is_live:
        stem = last.removesuffix(".zst").removesuffix(".jsonl")
        if not _is_session_id(stem):
            digest = hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            safe = re.sub(r"[^A-Za-z0-9_-]", "-", stem).lstrip("-_")[:_ID_CHARS_MAX]
            stem = f"{safe or 'session'}-{digest}"
        last = f"{stem}.jsonl"
    return f"agents/{agent}/sessions/{last}"


def _is_session_id(text: str) -> bool:
    """Return whether OpenClaw takes a text for a session id, and its file for a transcript."""
    return (
        bool(_SESSION_ID.fullmatch(text)) and kind_of(f"{text}.jsonl", in_openclaw=True) == "live"
    )


def rows_in_home(
    content: bytes,
    agent_id: str,
    bindings: Mapping[str, statements.ImportFileBindingsOfAgent],
    files: Mapping[int, HomeFile],
    home: str,
) -> bytes:
    """Return an index whose rows name files of this home, with times that hold."""
    try:
        text, entries = read_index(content)
    except UnreadableIndex:
        return content
    changes: dict[int, str | None] = {}
    for entry in entries:
        key = key_of(entry, agent_id)
        binding = bindings.get(key) if key is not None else None
        file = files.get(binding.session_no) if binding is not None else None
        row = _row(entry, binding, file, f"agents/{agent_id}/sessions", home)
        if row is not None:
            changes[entry.start] = row
    return write_index(text, entries, changes, {}).encode() if changes else content


def _row(
    entry: IndexEntry,
    binding: statements.ImportFileBindingsOfAgent | None,
    file: HomeFile | None,
    folder: str,
    home: str,
) -> str | None:
    """Return the new text of a row, or None if it may stay as it is."""
    before = loads(entry.text)
    if not isinstance(before, dict):
        return None
    row: dict[str, Any] = dict(before)
    if file is not None and binding is not None:
        stem = file_name(file.name).removesuffix(".jsonl")
        is_id = entry.session_id is not None and _is_session_id(entry.session_id)
        row["sessionId"] = entry.session_id if is_id else stem
        is_here = file.name.rpartition("/")[0] == folder
        # Another agent's transcript has to be named in full.
        row["sessionFile"] = file_name(file.name) if is_here else f"{home}/{file.name}"
        if file.went_on:
            row["updatedAt"] = binding.updated_at_ms
    elif entry.file_name is not None:
        row["sessionFile"] = file_name(entry.file_name)
    return dumps_again(row) if row != before else None
