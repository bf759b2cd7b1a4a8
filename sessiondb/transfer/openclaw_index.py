"""An OpenClaw index (`sessions.json`): which session each key points at.

It is read with the exact text of every row. So a binding keeps OpenClaw's own fields
(`binding.details`), and an export returns the file byte for byte, except for the rows whose key
is bound elsewhere now. A row is matched with a transcript of its folder by the file name that it
gives, whatever folder it names, else by its session id. Rows that name no session, keys outside
the grammar and missing transcripts are noted and kept. A key whose row is gone since the last
import is unbound, if it is still bound as that import left it.

Nothing here reads the database: its rows are arguments.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sessiondb.errors import InvalidKey
from sessiondb.json_text import DamagedLine, decode_object, dumps_again, loads, storable
from sessiondb.limits import ENTRY_BYTES_MAX, MIB
from sessiondb.transcript.keys import SessionKey, parse_key

from .folder_scan import SourceFile, file_name, kind_of
from .jsonl_reader import UnreadableFile, open_transcript
from .redaction import Redactor

if TYPE_CHECKING:
    from sessiondb import statements


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
        """The file name of the transcript that the row names, without its folder."""
        return re.split(r"[/\\]", self.session_file)[-1] or None if self.session_file else None


class UnreadableIndex(ValueError):
    """An index that is not one JSON object. The message says how."""


def read_index(content: bytes) -> tuple[str, list[IndexEntry]]:
    """Decode an index file into its text and rows, in their order.

    Raises:
        UnreadableIndex: not UTF-8, not JSON, or not an object of objects.
    """
    try:
        text = content.decode("utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "utf-8")
        # Of many sessions: an entry's limit of values is too low for it. Its size is limited.
        decode_object(text, values_max=ENTRY_BYTES_MAX)
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
        yield IndexEntry(
            storable(key),
            text[start:end],
            lead,
            start,
            end,
            _text(values.get("sessionId")),
            _text(values.get("sessionFile")),
        )
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
    """Return the session ids that an index gives the transcripts of its folder, by file name."""
    present = set(names)
    ids: dict[str, str] = {}
    for entry in entries:
        name = file_for(entry, present)
        if name is not None and entry.session_id is not None:
            ids.setdefault(name, entry.session_id)
    return ids


def file_for(entry: IndexEntry, names: set[str]) -> str | None:
    """Return the transcript that an index row names: by its file name, else by its session id."""
    for name in (entry.file_name, f"{entry.session_id}.jsonl" if entry.session_id else None):
        if name is not None and name in names:
            return name
    return None


def write_index(
    text: str, entries: Sequence[IndexEntry], changes: dict[int, str | None], added: dict[str, str]
) -> str:
    """Return an index with some rows replaced, and others added.

    `changes` are new rows by where the old ones start, or None to leave a row out. All other
    rows, and the space between them, stay as they are.
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
    return (
        ("{" if not entries else text[: text.index("{") + 1])
        + ",".join(rows)
        + (text[end:] if entries else "\n}\n")
    )


# -- the keys that an import binds -----------------------------------------------------------------


@dataclass(slots=True)
class Index:
    """An index file and its rows."""

    file: SourceFile
    content: bytes = b""
    """With a redactor, without its secrets."""
    size: int = 0
    sha256: str = ""
    """Of the file on the disk."""
    redacted: Counter[str] = field(default_factory=Counter)
    entries: list[IndexEntry] = field(default_factory=list)
    failure: str | None = None
    note: str | None = None
    remarks: list[str] = field(default_factory=list)
    """What else there is to say about it."""
    held: set[str] = field(default_factory=set)
    """Keys that OpenClaw still has, and that no row can be had of."""
    leads: dict[str, str] = field(default_factory=dict)
    """Paths of rows that lead to an imported file of another folder, and that file's path."""
    outside: set[str] = field(default_factory=set)
    """Paths of rows that lead to a file that was not imported."""

    def take(self, content: bytes) -> None:
        """Set the content. Content that is not an index has no rows, and a note."""
        self.content, self.entries, self.note = content, [], None
        try:
            _, self.entries = read_index(content)
        except UnreadableIndex as error:
            self.note = f"not an index: {error}; no key was bound, and the file is kept as it is"


def index_of(file: SourceFile, content: bytes, redactor: Redactor | None) -> Index:
    """Return an index by its content."""
    index = Index(file, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    index.take(
        redactor.line(content, index.redacted, shape="index") if redactor is not None else content
    )
    return index


def read_indexes(files: Sequence[SourceFile], redactor: Redactor | None = None) -> list[Index]:
    """Read index files. One that cannot be read has the reason in `failure` or `note`."""
    found = []
    for file in files:
        try:
            found.append(index_of(file, _bytes_of(file.path), redactor))
        except UnreadableFile as error:
            found.append(Index(file, failure=str(error)))
        except OSError as error:
            found.append(Index(file, failure=f"it cannot be read: {error.strerror or error}"))
    return found


def with_index_ids(files: Sequence[SourceFile], indexes: Sequence[Index]) -> list[SourceFile]:
    """Return transcripts, each with the session id that its folder's index gives it."""
    names: dict[str, list[str]] = {}
    for file in files:
        names.setdefault(file.folder, []).append(file_name(file.path))
    ids = {
        index.file.folder: ids_by_file(index.entries, names.get(index.file.folder, []))
        for index in indexes
    }
    return [
        replace(file, index_id=ids.get(file.folder, {}).get(file_name(file.path))) for file in files
    ]


def _bytes_of(path: str) -> bytes:
    """Return a whole file up to a bound. It may have changed since it was listed."""
    parts, size = [], 0
    with open_transcript(path) as file:
        while block := file.read(MIB):
            parts.append(block)
            size += len(block)
            if size > ENTRY_BYTES_MAX:
                raise UnreadableFile(
                    f"an index of more than {ENTRY_BYTES_MAX:,} bytes, the most that can be read"
                )
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Binding:
    """A key that an index binds, and the session an earlier import of it had bound the key to."""

    key: SessionKey
    session_no: int
    details: str
    before_no: int | None
    before: IndexEntry | None = None
    """The row that an earlier import of the index had for the key."""
    replaced: frozenset[int] = frozenset()
    """The sessions of what the transcript's file was before it was replaced."""
    only_follows: bool = False
    """Nothing is new but the session: bind it if the key is still bound to one of those."""


@dataclass(frozen=True, slots=True)
class Target:
    """A transcript that a row of an index can point at."""

    path: str
    kind: str
    session_no: int
    session_id: str | None
    """None: it is not stored, because nothing is in a dry run."""


class Targets:
    """The transcripts that the rows of an index can point at: of its folder, and where they lead.

    `leads` are the paths of rows that lead elsewhere.
    """

    def __init__(self, rows: Sequence[Target], leads: Mapping[str, str], folder: str) -> None:
        self.leads = leads
        self.by_path = {row.path: row for row in rows}
        here = [row for row in rows if row.path.startswith(f"{folder}/")]
        self.by_name = {file_name(row.path): row for row in here if row.kind in ("live", "pi")}
        self.by_id = {row.session_id: row for row in here if row.kind in ("live", "pi")}
        self.names = set(self.by_name)
        self.replaced: dict[str, set[int]] = {}
        for row in rows:
            if row.kind == "bak":
                was = row.path.rpartition(".bak.")[0]
                self.replaced.setdefault(was, set()).add(row.session_no)

    def before(self, target: Target) -> frozenset[int]:
        """Return the sessions of what was replaced under a transcript's name."""
        return frozenset(self.replaced.get(target.path.removesuffix(".zst"), ()))

    def of(self, entry: IndexEntry) -> Target | None:
        """Return the transcript that a row names: by path, by file name, then by session id."""
        there = self.by_path.get(self.leads.get(entry.session_file or "", ""))
        if there is not None:
            return there
        name = file_for(entry, self.names)
        return self.by_name[name] if name is not None else self.by_id.get(entry.session_id or "")


@dataclass(slots=True)
class KeyPlan:
    """The keys to bind for an index, and notes on those that are not bound."""

    bindings: list[Binding] = field(default_factory=list)
    gone: dict[str, IndexEntry] = field(default_factory=dict)
    """By key, the earlier rows of keys that the index has no more, or whose row leads nowhere."""
    notes: list[str] = field(default_factory=list)


def plan_keys(
    index: Index, before: bytes | None, targets: Targets, agent_id: str, new_ids: set[str]
) -> KeyPlan:
    """Compare an index with its earlier content. Plan the keys whose row or transcript is new."""
    plan = KeyPlan()
    rows = _rows_of(before)
    earlier = _key_rows(rows, targets, agent_id, [])
    known = {key_of(entry, agent_id): entry for entry in rows}
    current_rows = _key_rows(index.entries, targets, agent_id, plan.notes, index.outside)
    if index.note is None:
        stays = current_rows.keys() | {_key_text(key, agent_id) for key in index.held}
        plan.gone = {key: row for key, row in known.items() if key is not None and key not in stays}
    for text, current in current_rows.items():
        old = earlier.get(text)
        replaced = targets.before(current.target)
        is_new = old is None or old.row != current.row or current.target.session_id in new_ids
        if is_new or replaced:
            plan.bindings.append(
                Binding(
                    current.key,
                    current.target.session_no,
                    current.row,
                    old.target.session_no if old is not None else None,
                    known.get(text),
                    replaced,
                    only_follows=not is_new,
                )
            )
    return plan


def _rows_of(content: bytes | None) -> list[IndexEntry]:
    """Return the rows of an index as an earlier import had it."""
    try:
        return read_index(content)[1] if content is not None else []
    except UnreadableIndex:
        return []  # nothing was bound from it


@dataclass(frozen=True, slots=True)
class _KeyRow:
    """A key, the transcript that its row points at, and the text of the row."""

    key: SessionKey
    target: Target
    row: str


def _key_rows(
    entries: Iterable[IndexEntry],
    targets: Targets,
    agent_id: str,
    notes: list[str],
    outside: Container[str] = (),
) -> dict[str, _KeyRow]:
    """Return the rows of an index by key. Of several spellings of one key the last row counts."""
    found: dict[str, _KeyRow] = {}
    for entry in entries:
        try:
            key = parse_key(entry.key, agent_id=agent_id)
        except InvalidKey as error:
            notes.append(f"{entry.key}: not bound: {error}")
            continue
        target = targets.of(entry)
        if target is None:
            notes.append(_about_missing(entry, outside))
            continue
        if entry.session_id is not None and target.session_id not in (None, entry.session_id):
            notes.append(
                f"{entry.key}: the index says session {entry.session_id}; "
                f"its file is stored as {target.session_id}"
            )
        if key.text in found:
            notes.append(f"{key.text}: in the index more than once; the last one is bound")
        found[key.text] = _KeyRow(key, target, entry.text)
    return found


def _about_missing(entry: IndexEntry, outside: Container[str]) -> str:
    if entry.session_id is None and entry.session_file is None:
        return f"{entry.key}: not bound: the row names no session"
    if entry.session_file in outside:
        return (
            f"{entry.key}: not bound: its transcript {entry.session_file} lies outside of what was "
            "imported"
        )
    # OpenClaw writes a transcript with the first answer. Its key begins anew there, too.
    name = entry.file_name or f"{entry.session_id}.jsonl"
    return (
        f"{entry.key}: not bound: OpenClaw has no transcript {name}. Its next message begins a "
        "conversation, as it would there"
    )


def agent_in(entries: Sequence[IndexEntry]) -> str:
    """Return the agent of most keys of an index. Old indexes name none: their agent is `main`."""
    owners = Counter(
        parts[1].lower()
        for entry in entries
        if len(parts := entry.key.split(":")) > 2 and parts[0].lower() == "agent"
    )
    return owners.most_common(1)[0][0] if owners else "main"


# -- the index that an export writes ---------------------------------------------------------------


def renew_index(
    content: bytes,
    agent_id: str | None,
    bindings: dict[str, statements.ImportFileBindingsOfAgent],
    names: dict[int, str],
    folder: str,
    *,
    with_new: bool,
) -> bytes:
    """Return an imported index. Only rows whose key is bound elsewhere now, or unbound, change."""
    try:
        text, entries = read_index(content)
    except UnreadableIndex:
        return content
    by_key: dict[str, list[IndexEntry]] = {}
    for entry in entries:
        if (key := key_of(entry, agent_id)) is not None:
            by_key.setdefault(key, []).append(entry)
    # Only a live transcript is ever bound. A row that names an archive is left as it is.
    found = {file_name(name) for name in names.values() if name.rpartition("/")[0] == folder}
    beside = {name for name in found if kind_of(name, in_openclaw=True) == "live"}
    changes: dict[int, str | None] = {}
    spelled = _spelled_since(by_key, bindings)
    for key, rows in by_key.items():
        binding = bindings.get(spelled.get(key, key))
        if binding is None:
            # A row whose transcript is here was bound by the import: the key was unbound since.
            changes |= {entry.start: None for entry in rows if file_for(entry, beside) is not None}
        elif not any(_means(entry, binding, names) for entry in rows):
            changes[rows[-1].start] = new_row(binding, rows[-1], names, folder)
    own = {
        key: row
        for key, row in bindings.items()
        if key not in by_key
        and key not in spelled.values()
        and key.startswith(f"agent:{agent_id}:")
    }
    added = {key: new_row(row, None, names, folder) for key, row in own.items() if with_new}
    if not changes and not added:
        return content
    return write_index(text, entries, changes, added).encode()


def _spelled_since(
    known: Container[str], bindings: dict[str, statements.ImportFileBindingsOfAgent]
) -> dict[str, str]:
    """Return the keys of an index that have the case of their ids by now, and their new texts.

    Those came with a row of the index. A conversation that began here did not.
    """
    return {
        lowered: key
        for key, row in bindings.items()
        if row.details is not None
        and key not in known
        and (lowered := key.lower()) in known
        and lowered not in bindings
    }


def keys_in(content: bytes, agent_id: str | None) -> list[SessionKey]:
    """Return the keys that an index names. Keys without an agent belong to `agent_id`."""
    try:
        entries = read_index(content)[1]
    except UnreadableIndex:
        return []
    return [key for entry in entries if (key := _parsed_key(entry.key, agent_id)) is not None]


def _parsed_key(text: str, agent_id: str | None) -> SessionKey | None:
    try:
        return parse_key(text, agent_id=agent_id)
    except InvalidKey:
        return None  # a key outside the grammar is never bound, and its row stays as it is


def key_of(entry: IndexEntry, agent_id: str | None) -> str | None:
    """Return the key of a row. None: it is outside the grammar."""
    return _key_text(entry.key, agent_id)


def _key_text(text: str, agent_id: str | None) -> str | None:
    key = _parsed_key(text, agent_id)
    return key.text if key is not None else None


def _means(
    entry: IndexEntry, binding: statements.ImportFileBindingsOfAgent, names: dict[int, str]
) -> bool:
    """Return whether an index row still names the session that its key is bound to."""
    name = file_name(names.get(binding.session_no, ""))
    return binding.session_id == entry.session_id or name in (
        entry.file_name,
        f"{entry.session_id}.jsonl",
    )


def new_row(
    binding: statements.ImportFileBindingsOfAgent,
    entry: IndexEntry | None,
    names: dict[int, str],
    folder: str,
) -> str:
    """Return an index row for a binding. The other fields of the old row stay."""
    before = loads(entry.text) if entry is not None else {}
    row: dict[str, Any] = before if isinstance(before, dict) else {}
    row |= {"sessionId": binding.session_id, "updatedAt": binding.updated_at_ms}
    name = names.get(binding.session_no)
    if entry is not None and entry.session_file is not None and name is not None:
        row["sessionFile"] = entry.session_file.removesuffix(entry.file_name or "") + file_name(
            name
        )
    elif name is not None and name != f"{folder}/{binding.session_id}.jsonl":
        row["sessionFile"] = os.path.relpath(name, folder or ".")
    return dumps_again(row)
