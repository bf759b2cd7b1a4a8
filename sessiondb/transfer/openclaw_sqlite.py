"""The database of an OpenClaw agent (`openclaw-agent.sqlite`) as the files that it stands for.

Since 2026.8 an agent keeps its transcripts and its index in one SQLite file. A row of a
transcript is the line that the JSONL file had. So each transcript becomes a file of an import,
`<agent's folder>/sessions/<session id>.jsonl`, and the nodes become the index beside them. The
importer reads them as it reads files: with receipts, in packs, from where it ended the last time.
An export writes them as files, which OpenClaw takes back.

What is read: the rows of each transcript, compressed ones too, in their order. Transcripts in cold
storage, out of their envelope. Archives that lie in the database and not beside it. A key is bound
if its node names a transcript and was not deleted. Earlier transcripts of a key, and those of
deleted keys, are imported without one.

What is not carried over: participants, owners, projects, pins and read marks of a node, and what
OpenClaw derives from the rows. Messages that OpenClaw accepted and has put into no transcript are
counted, and the import does not succeed.

The shape of a file decides whether it is read, not the number of its schema. Runs in worker
threads.

Sources: openclaw `src/config/sessions/session-accessor.sqlite-*.ts`, `session-cold-storage-*.ts`,
compared with what OpenClaw 2026.9.6 (schema 23) itself reads.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

from sessiondb.errors import OpenError
from sessiondb.json_text import DamagedLine, decode_object, storable
from sessiondb.limits import ENTRY_BYTES_MAX, MIB, PAGE_ROWS

from .folder_scan import (
    AGENT_DATABASE,
    INDEX_NAME,
    DatabaseFile,
    Scan,
    SkippedFile,
    SourceFile,
    file_name,
    folder_of,
    kind_of,
)
from .jsonl_reader import Stream, UnreadableFile, open_transcript, raw_lines, unpacked
from .openclaw_index import Index, index_of
from .recognition import HERMES, Other
from .redaction import Redactor

PAGE_BYTES: Final = 8 * MIB
SCHEMA_COMPARED: Final = 23
"""The newest schema of an agent whose contexts were compared with OpenClaw's own."""

_OTHER_DATABASE: Final = Other("database", "a database without transcripts that are known")
_NO_DATABASE: Final = Other("database", "no SQLite database, whatever its name says")
_DAMAGED: Final = Other(
    "OpenClaw database",
    "the database of an agent by its name, and no SQLite database: it is damaged, and nothing of "
    "it was imported. Restore it from a backup",
    foreign=True,
)
_NO_TRANSCRIPTS: Final = Other("OpenClaw database", "a database of OpenClaw without transcripts")
_OLD_SCHEMA: Final = Other(
    "OpenClaw database",
    "a database of an early OpenClaw, whose tables are not those of 2026.8 and later: nothing of "
    "it was imported. Start a newer OpenClaw once, which renews it, and import again",
    foreign=True,
)
_SESSIONDB: Final = Other(
    "sessiondb database",
    "a database of sessiondb: nothing of it was imported. To have its sessions here, export it "
    "with `sessiondb export`, and import that folder",
    foreign=True,
)


class ForeignFile(Protocol):
    """Another program's database at one moment: `sqlite.foreign_file.ForeignFile`."""

    is_database: bool
    tables: dict[str, frozenset[str]]

    def all(self, statement: str, /, **params: Any) -> list[Any]:
        """Return the rows of a statement."""

    def close(self) -> None:
        """Close it."""


OpenForeign = Callable[[str, str], ForeignFile]
"""Opens a file, with a scratch folder for a copy of it."""


@dataclass(slots=True)
class Stores:
    """What the databases of a scan stand for."""

    transcripts: list[SourceFile] = field(default_factory=list)
    indexes: list[Index] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)


def read_stores(
    scanned: Scan,
    open_foreign: OpenForeign,
    scratch: Callable[[], str],
    closing: ExitStack,
    redactor: Redactor | None,
) -> Stores:
    """Look into every database of a scan. Those with transcripts stay open until `closing` ends.

    Files that a database names are taken out of the scan.
    """
    found = Stores()
    for database in scanned.databases:
        try:
            file = open_foreign(database.path, scratch())
        except OpenError as error:
            found.skipped.append(_unreadable(database, error))
            continue
        other = _other(file, database.path)
        if other is not None:
            file.close()
            found.skipped.append(_left_alone(database, other, is_named=scanned.is_of_one_file))
            continue
        closing.callback(file.close)
        try:
            _AgentStore(file, database, scanned, found).read(redactor)
        except OpenError as error:
            found.skipped.append(_unreadable(database, error))
    return found


def _left_alone(database: DatabaseFile, other: Other, *, is_named: bool) -> SkippedFile:
    of_another_program = other in (HERMES, _SESSIONDB)
    fails = other.foreign or is_named
    status: Any = "foreign" if of_another_program else "failed" if fails else "skipped"
    return SkippedFile(database.path, database.name, other, status)


def _unreadable(database: DatabaseFile, error: OpenError) -> SkippedFile:
    sentence = str(error).removeprefix(f"{database.path}: ")
    return SkippedFile(database.path, database.name, Other("database", sentence), "failed")


def _other(file: ForeignFile, path: str) -> Other | None:
    """Return what a database is, or None if it has the transcripts of an agent of OpenClaw."""
    if not file.is_database:
        return _DAMAGED if file_name(path) == AGENT_DATABASE else _NO_DATABASE
    tables = file.tables
    if "schema_meta" in tables and {"role", "schema_version"} <= tables["schema_meta"]:
        if not file.all("openclaw.meta"):
            return _NO_TRANSCRIPTS
        needed = {
            "session_nodes": {"session_key", "current_session_id", "entry_json", "entry_valid"},
            "session_windows": {"session_id", "updated_at"},
            "transcript_events": {"session_id", "seq", "event_json"},
        }
        fits = all(columns <= tables.get(table, set()) for table, columns in needed.items())
        return None if fits else _OLD_SCHEMA
    if {"source", "parent_session_id", "started_at"} <= tables.get("sessions", set()) and (
        {"session_id", "role", "content"} <= tables.get("messages", set())
    ):
        return HERMES
    return _SESSIONDB if {"entry", "import_file", "binding"} <= tables.keys() else _OTHER_DATABASE


class _AgentStore:
    """The database of one agent."""

    def __init__(
        self, file: ForeignFile, database: DatabaseFile, scanned: Scan, found: Stores
    ) -> None:
        self.file, self.database, self.scanned, self.found = file, database, scanned, found
        self.meta = file.all("openclaw.meta")[0]
        self.has_zstd = "event_zstd" in file.tables["transcript_events"]
        parts = re.fullmatch(r"(?P<agent>.*/agents/(?P<id>[^/]+))/agent/[^/]+", database.path)
        self.agent_id = storable(self.meta.agent_id or (parts["id"] if parts else "main")).lower()
        self.sessions = f"{parts['agent'] if parts else folder_of(database.path)}/sessions"
        relative = os.path.relpath(self.sessions, scanned.base)
        outside = parts is None or relative.startswith("..")
        self.folder = f"agents/{self.agent_id}/sessions" if outside else relative

    def read(self, redactor: Redactor | None) -> None:
        [[encoding]] = self.file.all("shape.encoding")
        if encoding != "UTF-8":
            raise OpenError(
                f"its texts are {encoding}, and only UTF-8 is read. Keep the file, and report it."
            )
        cold = self._cold()
        windows = self.file.all(self._named("openclaw.windows"))
        remarks = self._remarks(windows, cold)
        windows = [row for row in windows if row.events or row.session_id in cold]
        names = {row.session_id: _file_name(row.session_id) for row in windows}
        for row in windows:
            stored = cold.get(row.session_id) if not row.events else None
            self.found.transcripts.append(
                self._source(
                    f"{self.database.path}/{names[row.session_id]}",
                    names[row.session_id],
                    kind="live",
                    size=row.bytes if stored is None else stored.bytes,
                    modified_at_ms=row.updated_at_ms,
                    opened=partial(self._open_rows, row.session_id)
                    if stored is None
                    else partial(self._open_cold, stored),
                )
            )
        if "session_transcript_archives" in self.file.tables:
            self._add_archives()
        index = self._index(names, remarks, redactor)
        index.remarks += remarks
        self.found.indexes.append(index)
        self._add_pending()

    def _named(self, statement: str) -> str:
        return statement if self.has_zstd else f"{statement}_before_zstd"

    def _source(
        self,
        path: str,
        name: str,
        *,
        kind: Any,
        size: int,
        modified_at_ms: int,
        opened: Callable[[int], Any],
    ) -> SourceFile:
        return SourceFile(
            path=path,
            name=f"{self.folder}/{name}",
            kind=kind,
            agent_id=self.agent_id,
            bytes=size,
            inode=f"{self.database.inode}:{name}",
            modified_at_ms=modified_at_ms,
            folder=path.rpartition("/")[0],
            opened=opened,
        )

    def _remarks(self, windows: list[Any], cold: dict[str, Any]) -> list[str]:
        remarks = []
        if self.meta.schema_version > SCHEMA_COMPARED:
            remarks.append(
                f"its schema is {self.meta.schema_version}; the newest that was compared with "
                f"OpenClaw's own reader is {SCHEMA_COMPARED}"
            )
        for row in windows:
            if row.events and row.events != row.last_seq + 1:
                missing = row.last_seq + 1 - row.events
                remarks.append(
                    f"session {row.session_id}: {missing:,} of its rows are missing in OpenClaw"
                )
            if not row.events and row.session_id not in cold:
                remarks.append(f"session {row.session_id} has no rows in OpenClaw")
        return remarks

    # -- transcripts -------------------------------------------------------------------------------

    @contextmanager
    def _open_rows(self, session_id: str, at: int) -> Iterator[Stream]:
        yield Chunks(self._lines(session_id), skip=at)

    def _lines(self, session_id: str) -> Iterator[bytes]:
        """Yield the lines of a transcript, a bounded page of rows at a time."""
        after_seq = -1
        while sizes := self.file.all(
            self._named("openclaw.sizes"),
            session_id=session_id,
            after_seq=after_seq,
            limit=PAGE_ROWS,
        ):
            last_seq, total = sizes[0].seq, 0
            for row in sizes:
                total += row.bytes or 0
                if total > PAGE_BYTES and row.seq != sizes[0].seq:
                    break
                last_seq = row.seq
            rows = self.file.all(
                self._named("openclaw.texts"),
                session_id=session_id,
                after_seq=after_seq,
                last_seq=last_seq,
            )
            for row in rows:
                yield (row.text if row.text is not None else _unpacked_row(row)) + b"\n"
            after_seq = last_seq

    def _cold(self) -> dict[str, Any]:
        """Return the transcripts in cold storage, and take their files out of the scan."""
        if "session_transcript_cold_archives" not in self.file.tables:
            return {}
        rows = {row.session_id: row for row in self.file.all("openclaw.cold")}
        paths = {f"{self.sessions}/cold/{row.archive_name}" for row in rows.values()}
        self._take_out(
            paths,
            Other("cold storage", "cold storage, which is read as the transcript that it holds"),
        )
        return rows

    @contextmanager
    def _open_cold(self, row: Any, at: int) -> Iterator[Stream]:
        yield Chunks(_cold_lines(row, self._cold_content(row)), skip=at)

    def _cold_content(self, row: Any) -> bytes:
        if row.storage == "sqlite":
            [found] = self.file.all("openclaw.cold_content", session_id=row.session_id)
            content: bytes = found.content or b""
        else:
            if re.fullmatch(r"[0-9a-f]{64}\.jsonl\.zst", row.archive_name) is None:
                raise UnreadableFile(f"its cold storage has the odd name {row.archive_name!r}")
            with open_transcript(f"{self.sessions}/cold/{row.archive_name}", packed=True) as file:
                content = b"".join(iter(partial(file.read, MIB), b""))
        return _verified(content, row.archive_sha256, "its cold storage")

    def _add_archives(self) -> None:
        """Add the archives of which no file lies beside the database."""
        published = {file.path for file in self.scanned.transcripts}
        for row in self.file.all("openclaw.archives"):
            path = f"{self.sessions}/{row.archive_name}"
            if path in published or "/" in row.archive_name:
                continue
            kind = kind_of(row.archive_name, in_openclaw=True)
            self.found.transcripts.append(
                self._source(
                    path,
                    row.archive_name,
                    kind="deleted" if isinstance(kind, Other) else kind,
                    size=row.bytes,
                    modified_at_ms=row.created_at_ms,
                    opened=partial(self._open_archive, row.archive_no),
                )
            )

    @contextmanager
    def _open_archive(self, archive_no: int, at: int) -> Iterator[Stream]:
        [row] = self.file.all("openclaw.archive", archive_no=archive_no)
        content = _verified(row.content, row.archive_sha256, "its archive")
        with ExitStack() as stack:
            stream: Stream = io.BytesIO(content)
            if row.encoding == "zstd":
                stream = stack.enter_context(unpacked(stream, len(content)))
            yield Chunks(iter(partial(stream.read, MIB), b""), skip=at)

    def _take_out(self, paths: Iterable[str], other: Other) -> None:
        taken = set(paths)
        for file in self.scanned.transcripts:
            if file.path in taken:
                self.found.skipped.append(SkippedFile(file.path, file.name, other))
        self.scanned.transcripts = [
            file for file in self.scanned.transcripts if file.path not in taken
        ]

    # -- keys --------------------------------------------------------------------------------------

    def _index(self, names: dict[str, str], remarks: list[str], redactor: Redactor | None) -> Index:
        """Return the nodes as the index that OpenClaw had before: its rows are theirs."""
        rows, held = [], set()
        for node in self.file.all("openclaw.nodes"):
            text, reason = _index_row(node, names)
            if reason is not None:
                remarks.append(f"{storable(node.session_key)}: not bound: {reason}")
                if node.entry_valid != -1:
                    held.add(storable(node.session_key))
            if text is not None:
                rows.append(f"  {json.dumps(node.session_key)}: {text}")
        content = ("{\n" + ",\n".join(rows) + "\n}\n").encode()
        file = self._source(
            f"{self.database.path}/{INDEX_NAME}",
            INDEX_NAME,
            kind="index",
            size=len(content),
            modified_at_ms=self.database.modified_at_ms,
            opened=lambda at: _opened_bytes(content, at),
        )
        index = index_of(replace(file, inode=self.database.inode), content, redactor)
        index.held = held
        return index

    def _add_pending(self) -> None:
        if "session_pending_inputs" not in self.file.tables:
            return
        [row] = self.file.all("openclaw.pending")
        if not row.messages:
            return
        one = row.messages == 1
        sentence = (
            f"{row.messages:,} accepted message{'' if one else 's'} {'is' if one else 'are'} in no "
            "transcript yet, and so not imported; let OpenClaw answer, then import again"
        )
        self.found.skipped.append(
            SkippedFile(
                self.database.path,
                self.database.name,
                Other("waiting messages", sentence),
                "failed",
            )
        )


def _file_name(session_id: str) -> str:
    """Return a name for the file of a transcript. An id is any text."""
    name = re.sub(r"[/\\\x00-\x1f\x7f]", "-", storable(session_id))[:150]
    if name != session_id:
        name += "~" + hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name}.jsonl"


def _index_row(node: Any, names: dict[str, str]) -> tuple[str | None, str | None]:
    """Return the text of an index's row for a node, and why its key is not bound."""
    if node.entry_valid == -1:
        return None, "it was deleted in OpenClaw"
    try:
        text = node.entry.decode()
        fields, _ = decode_object(text)
    except (UnicodeDecodeError, DamagedLine, RecursionError) as error:
        return None, f"its row in OpenClaw is damaged ({error})"
    if fields.get("sessionId") != node.current_session_id:
        return None, "OpenClaw's row and its entry name two sessions"
    if node.current_session_id not in names:
        return None, f"its transcript {node.current_session_id} has no rows in OpenClaw"
    return text.replace("\n", " ").replace("\r", " "), None


# -- bytes -----------------------------------------------------------------------------------------


class Chunks:
    """A stream of bytes that come in pieces, without the first `skip` of them."""

    def __init__(self, pieces: Iterator[bytes], *, skip: int = 0) -> None:
        self._pieces = pieces
        self._skip = skip
        self._buffer = bytearray()

    def read(self, count: int, /) -> bytes:
        while len(self._buffer) < count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            if self._skip:
                skipped = min(self._skip, len(piece))
                self._skip -= skipped
                piece = piece[skipped:]
            self._buffer += piece
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


@contextmanager
def _opened_bytes(content: bytes, at: int) -> Iterator[Stream]:
    yield io.BytesIO(content[at:])


def _verified(content: bytes, sha256: str, what: str) -> bytes:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UnreadableFile(
            f"{what} is not what OpenClaw stored (its SHA-256 differs); restore it from a backup"
        )
    return content


def _unpacked_row(row: Any) -> bytes:
    """Return the text of a compressed row."""
    size = row.bytes or 0
    with unpacked(io.BytesIO(row.packed or b""), size, bytes_max=ENTRY_BYTES_MAX) as stream:
        text = b"".join(iter(partial(stream.read, MIB), b""))
    if len(text) != size:
        raise UnreadableFile(
            f"row {row.seq} has {len(text):,} bytes where OpenClaw stored {size:,}; "
            "restore the database from a backup"
        )
    return text


def _cold_lines(row: Any, content: bytes) -> Iterator[bytes]:
    """Yield the lines of a transcript out of its envelope, and compare it with its record."""
    events, last_seq, header = 0, None, None
    with unpacked(io.BytesIO(content), len(content)) as stream:
        for line, _, is_whole in raw_lines(stream.read):
            record = _record(line) if is_whole else {}
            if record.get("kind") == "header":
                header = (record.get("sessionId"), record.get("generation"))
            if record.get("kind") == "event":
                event = record.get("row")
                event = event if isinstance(event, dict) else {}
                text = event.get("event_json")
                if not isinstance(text, str):
                    raise UnreadableFile("an event of its cold storage is damaged")
                events, last_seq = events + 1, event.get("seq")
                yield text.encode("utf-8", "surrogatepass") + b"\n"
    if (header, events, last_seq) != (
        (row.session_id, row.generation),
        row.event_count,
        row.last_seq,
    ):
        raise UnreadableFile(
            f"its cold storage has {events:,} events, and not the {row.event_count:,} of this "
            "session that OpenClaw recorded; restore it from a backup"
        )


def _record(line: bytes) -> dict[str, Any]:
    try:
        return decode_object(line.decode(), values_max=ENTRY_BYTES_MAX)[0]
    except (UnicodeDecodeError, DamagedLine, RecursionError) as error:
        raise UnreadableFile(f"a record of its cold storage is damaged ({error})") from error
