"""An OpenClaw index (`sessions.json`): which session each key points at.

Read with the exact text of every row, so that a binding keeps what OpenClaw knew (`binding.details`) and an export
returns the file byte for byte, or with nothing changed but the rows whose key is bound elsewhere now. A row is
matched with a transcript of its folder by the file name that it gives, whatever folder it believes in, else by its
session id. Rows that name no session, keys outside the grammar and missing transcripts are noted and kept.

Pure functions: nothing here reads the database; `Row`s are handed in.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .backend import Row
from .entries import DamagedLine, decode_object, dumps, storable
from .errors import InvalidKey
from .keys import SessionKey, parse_key
from .limits import ENTRY_BYTES_MAX
from .openclaw import Found, file_name


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One row of an index, and where its text stands in the file."""

    key: str
    text: str
    key_at: int
    start: int
    end: int
    session_id: str | None
    session_file: str | None

    @property
    def file_name(self) -> str | None:
        """The name of the transcript that the row names, whatever folder it thinks it is in."""
        return re.split(r"[/\\]", self.session_file)[-1] or None if self.session_file else None


class UnreadableIndex(ValueError):
    """An index that is not one JSON object; the message says how."""


def read_index(content: bytes) -> tuple[str, list[IndexEntry]]:
    """Decode an index file into its text and rows, in their order.

    Raises:
        UnreadableIndex: not UTF-8, not JSON, or not an object of objects.
    """
    try:
        text = content.decode("utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "utf-8")
        decode_object(text)
    except (UnicodeDecodeError, DamagedLine) as error:
        raise UnreadableIndex(str(error)) from error
    return text, list(_rows(text))


def _rows(text: str) -> Iterator[IndexEntry]:
    """Walk the top level of an object that is known to be valid."""
    decoder = json.JSONDecoder(parse_int=float)
    at = _past_space(text, text.index("{") + 1)
    while text[at] != "}":
        lead = at
        key, at = decoder.raw_decode(text, at)
        start = _past_space(text, _past_space(text, at) + 1)
        row, end = decoder.raw_decode(text, start)
        values = row if isinstance(row, dict) else {}
        yield IndexEntry(storable(key), text[start:end], lead, start, end, _text(values.get("sessionId")), _text(values.get("sessionFile")))
        at = _past_space(text, end)
        if text[at] == ",":
            at = _past_space(text, at + 1)


def _text(value: Any) -> str | None:
    return storable(value) if isinstance(value, str) and value else None


def _past_space(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def ids_by_file(entries: Iterable[IndexEntry], names: Iterable[str]) -> dict[str, str]:
    """Return the session id that an index gives each transcript of its folder, by the transcript's name."""
    present = set(names)
    given: dict[str, str] = {}
    for entry in entries:
        name = file_for(entry, present)
        if name is not None and entry.session_id is not None:
            given.setdefault(name, entry.session_id)
    return given


def file_for(entry: IndexEntry, names: set[str]) -> str | None:
    """Return which of a folder's transcripts an index row means: by the name it gives, else by its session id."""
    for name in (entry.file_name, f"{entry.session_id}.jsonl" if entry.session_id else None):
        if name is not None and name in names:
            return name
    return None


def write_index(text: str, entries: Sequence[IndexEntry], changes: dict[int, str | None], added: dict[str, str]) -> str:
    """Return an index with some rows replaced, by where they start (None: left out), and others added.

    All other rows, and the space between them, stay as they are.
    """
    rows = []
    space, end = "\n  ", text.index("{") + 1 if entries else 0
    for place, entry in enumerate(entries):
        between = text[end : entry.key_at].replace(",", "")
        space = between if place == 0 else space
        row = changes.get(entry.start, entry.text)
        if row is not None:
            rows.append(between + text[entry.key_at : entry.start] + row)
        end = entry.end
    rows += [f"{space}{json.dumps(key, ensure_ascii=False)}: {row}" for key, row in added.items()]
    return ("{" if not entries else text[: text.index("{") + 1]) + ",".join(rows) + (text[end:] if entries else "\n}\n")


# -- what an import binds -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Index:
    """An index file as it lies on the disk."""

    file: Found
    content: bytes = b""
    entries: list[IndexEntry] = field(default_factory=list)
    failure: str | None = None
    note: str | None = None


def read_indexes(files: Sequence[Found]) -> list[Index]:
    """Read index files; what cannot be read is said in its `failure` or `note`."""
    found = []
    for file in files:
        index = Index(file)
        found.append(index)
        try:
            if file.bytes > ENTRY_BYTES_MAX:
                index.failure = f"an index of {file.bytes:,} bytes; at most {ENTRY_BYTES_MAX:,} can be read"
                continue
            index.content = Path(file.path).read_bytes()
            _, index.entries = read_index(index.content)
        except OSError as error:
            index.failure = f"it cannot be read: {error.strerror or error}"
        except UnreadableIndex as error:
            index.note = f"not an index: {error}; no key was bound, and the file is kept as it is"
    return found


@dataclass(frozen=True, slots=True)
class Binding:
    """A key that an index binds, and where an earlier import of that index had bound it."""

    key: SessionKey
    session_no: int
    details: str
    before_no: int | None


class Targets:
    """What the rows of one folder's index can point at."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.by_name = {file_name(row.path): row for row in rows if row.kind in ("live", "pi")}
        self.by_id = {row.session_id: row for row in rows if row.kind in ("live", "pi")}
        self.names = set(self.by_name)

    def of(self, entry: IndexEntry) -> Row | None:
        """Return the transcript that a row means: by file name, then by session id."""
        name = file_for(entry, self.names)
        return self.by_name[name] if name is not None else self.by_id.get(entry.session_id or "")


@dataclass(slots=True)
class Planned:
    """What an index asks for."""

    bindings: list[Binding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_keys(index: Index, before: bytes | None, targets: Targets, agent_id: str, is_new: set[str]) -> Planned:
    """Compare an index with what was imported of it before; plan the keys whose row, or whose transcript, is new."""
    planned = Planned()
    earlier: dict[str, IndexEntry] = {}
    if before is not None:
        try:
            earlier = {entry.key: entry for entry in read_index(before)[1]}
        except UnreadableIndex:
            earlier = {}  # nothing was bound from it
    chosen: dict[str, Binding] = {}
    for entry in index.entries:
        try:
            key = parse_key(entry.key, agent_id=agent_id)
        except InvalidKey as error:
            planned.notes.append(f"{entry.key}: not bound: {error}")
            continue
        target, old = targets.of(entry), earlier.get(entry.key)
        if target is None:
            planned.notes.append(_about_missing(entry))
            continue
        if entry.session_id is not None and entry.session_id != target.session_id:
            planned.notes.append(f"{entry.key}: the index says session {entry.session_id}; its file is stored as {target.session_id}")
        if old is not None and old.text == entry.text and target.session_id not in is_new:
            continue
        old_target = targets.of(old) if old is not None else None
        if key.text in chosen:
            planned.notes.append(f"{key.text}: in the index more than once; the last one is bound")
        chosen[key.text] = Binding(key, target.session_no, entry.text, old_target.session_no if old_target is not None else None)
    planned.bindings = list(chosen.values())
    return planned


def _about_missing(entry: IndexEntry) -> str:
    if entry.session_id is None and entry.session_file is None:
        return f"{entry.key}: not bound: the row names no session"
    return f"{entry.key}: not bound: its transcript {entry.file_name or f'{entry.session_id}.jsonl'} is missing"


def agent_in(entries: Sequence[IndexEntry]) -> str:
    """Return the agent that most keys of an index belong to; old indexes name none, and their agent is `main`."""
    owners = Counter(parts[1].lower() for entry in entries if len(parts := entry.key.split(":")) > 2 and parts[0].lower() == "agent")
    return owners.most_common(1)[0][0] if owners else "main"


# -- what an export writes ------------------------------------------------------------------------------------------


def renew_index(
    content: bytes, agent_id: str | None, bindings: dict[str, Row], names: dict[int, str], folder: str, *, with_new: bool
) -> bytes:
    """Return an imported index, changed only in the rows whose key is bound elsewhere now, or no longer."""
    try:
        text, entries = read_index(content)
    except UnreadableIndex:
        return content
    by_key: dict[str, list[IndexEntry]] = {}
    for entry in entries:
        if (key := _key_of(entry, agent_id)) is not None:
            by_key.setdefault(key, []).append(entry)
    beside = {file_name(name) for name in names.values() if name.rpartition("/")[0] == folder}
    changes: dict[int, str | None] = {}
    for key, rows in by_key.items():
        binding = bindings.get(key)
        if binding is None:
            # A row whose transcript is here was bound when it was imported: the key has been given up since.
            changes |= {entry.start: None for entry in rows if file_for(entry, beside) is not None}
        elif not any(_means(entry, binding, names) for entry in rows):
            changes[rows[-1].start] = new_row(binding, rows[-1], names, folder)
    added = {key: new_row(row, None, names, folder) for key, row in bindings.items() if with_new and key not in by_key}
    if not changes and not added:
        return content
    return write_index(text, entries, changes, added).encode()


def _key_of(entry: IndexEntry, agent_id: str | None) -> str | None:
    try:
        return parse_key(entry.key, agent_id=agent_id).text
    except InvalidKey:
        return None  # a key outside the grammar is bound to nothing; its row stays as it is


def _means(entry: IndexEntry, binding: Row, names: dict[int, str]) -> bool:
    """Tell whether an index row still says what its key is bound to."""
    name = file_name(names.get(binding.session_no, ""))
    return binding.session_id == entry.session_id or name in (entry.file_name, f"{entry.session_id}.jsonl")


def new_row(binding: Row, entry: IndexEntry | None, names: dict[int, str], folder: str) -> str:
    """Return an index row for a binding; with the old row, its other fields stay."""
    row: dict[str, Any] = json.loads(entry.text) if entry is not None else {}
    row |= {"sessionId": binding.session_id, "updatedAt": binding.updated_at_ms}
    name = names.get(binding.session_no)
    if entry is not None and entry.session_file is not None and name is not None:
        row["sessionFile"] = entry.session_file.removesuffix(entry.file_name or "") + file_name(name)
    elif name is not None and name != f"{folder}/{binding.session_id}.jsonl":
        row["sessionFile"] = os.path.relpath(name, folder or ".")
    return dumps(row)
