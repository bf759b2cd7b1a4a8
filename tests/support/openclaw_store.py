"""A small database of an OpenClaw agent, made from its documented schema.

The tables are those of agent schema 23 that hold transcripts, keys and archives, with the columns
that a reader needs and some that it must leave alone. A test chooses how each row is stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import zstandard

from tests.support.transfer import header, message

SCHEMA = """
CREATE TABLE schema_meta (
  meta_key TEXT NOT NULL PRIMARY KEY, role TEXT NOT NULL, schema_version INTEGER NOT NULL,
  agent_id TEXT, app_version TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE session_nodes (
  session_key TEXT NOT NULL PRIMARY KEY, current_session_id TEXT NOT NULL,
  entry_json TEXT NOT NULL, entry_valid INTEGER NOT NULL DEFAULT 0,
  updated_at INTEGER NOT NULL, label TEXT, pinned_at INTEGER, archived_at INTEGER
) STRICT;
CREATE TABLE session_windows (
  session_id TEXT NOT NULL PRIMARY KEY, session_key TEXT NOT NULL, previous_session_id TEXT,
  reason TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  transcript_updated_at INTEGER
) STRICT;
CREATE TABLE transcript_events (
  session_id TEXT NOT NULL, seq INTEGER NOT NULL, event_json TEXT, created_at INTEGER NOT NULL,
  event_zstd BLOB, event_utf8_bytes INTEGER, navigation_json TEXT,
  PRIMARY KEY (session_id, seq)
) STRICT;
CREATE TABLE session_transcript_archives (
  session_id TEXT NOT NULL, generation TEXT NOT NULL, session_key TEXT NOT NULL,
  reason TEXT NOT NULL, encoding TEXT NOT NULL, archive_blob BLOB NOT NULL,
  archive_sha256 TEXT NOT NULL, archive_name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL,
  published_at INTEGER, PRIMARY KEY (session_id, generation)
) STRICT;
CREATE TABLE session_transcript_cold_archives (
  session_id TEXT NOT NULL PRIMARY KEY, generation TEXT NOT NULL, archive_name TEXT NOT NULL,
  archive_sha256 TEXT NOT NULL, event_count INTEGER NOT NULL, raw_bytes INTEGER NOT NULL,
  archive_bytes INTEGER NOT NULL, last_seq INTEGER NOT NULL, archived_at INTEGER NOT NULL,
  storage TEXT NOT NULL, archive_blob BLOB
) STRICT;
CREATE TABLE session_pending_inputs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, input_id TEXT NOT NULL UNIQUE,
  session_key TEXT NOT NULL, session_id TEXT NOT NULL, message_json TEXT NOT NULL,
  state TEXT NOT NULL, accepted_at INTEGER NOT NULL, consumed_event_id TEXT
) STRICT;
"""


def transcript_lines(session_id: str, count: int = 3, *, version: int = 4) -> list[str]:
    """Return the lines of a transcript: a header, and so many messages in a row."""
    return [
        header(session_id, version=version),
        *(
            message(f"{session_id}-{at}", f"{session_id}-{at - 1}" if at else None, f"text é {at}")
            for at in range(count)
        ),
    ]


class OpenClawStore:
    """The database of one agent below a state folder. It stays open, as a gateway's does."""

    def __init__(
        self, home: Path, agent: str = "main", *, schema: int = 23, wal: bool = False
    ) -> None:
        self.agent = agent
        self.folder = home / "agents" / agent
        (self.folder / "agent").mkdir(parents=True)
        (self.folder / "sessions").mkdir()
        self.path = self.folder / "agent" / "openclaw-agent.sqlite"
        self.connection = apsw.Connection(str(self.path))
        if wal:
            self.connection.pragma("journal_mode", "wal")
        self.connection.execute(SCHEMA).fetchall()
        self.run(
            "INSERT INTO schema_meta VALUES ('primary', 'agent', ?, ?, '2026.9.6', 1, 1)",
            schema,
            agent,
        )

    @classmethod
    def again(cls, home: Path, agent: str) -> OpenClawStore:
        """Open a database that was made before."""
        store = cls.__new__(cls)
        store.agent, store.folder = agent, home / "agents" / agent
        store.path = store.folder / "agent" / "openclaw-agent.sqlite"
        store.connection = apsw.Connection(str(store.path))
        return store

    def run(self, sql: str, *values: Any) -> None:
        self.connection.execute(sql, values).fetchall()

    def close(self) -> None:
        self.connection.close()

    def key(self, name: str, session_id: str, *, valid: int = 1, **fields: Any) -> None:
        """Point a key at a transcript, with OpenClaw's own fields of it."""
        entry = json.dumps({"sessionId": session_id, "updatedAt": 5, **fields})
        self.run(
            "INSERT INTO session_nodes (session_key, current_session_id, entry_json, entry_valid,"
            " updated_at) VALUES (?1, ?2, ?3, ?4, 5) ON CONFLICT (session_key) DO UPDATE SET"
            " current_session_id = ?2, entry_json = ?3, entry_valid = ?4",
            f"agent:{self.agent}:{name}",
            session_id,
            entry,
            valid,
        )

    def window(self, session_id: str, name: str = "main", previous: str | None = None) -> None:
        self.run(
            "INSERT INTO session_windows VALUES (?, ?, ?, 'initial', 1, 1000, 2000)",
            session_id,
            f"agent:{self.agent}:{name}",
            previous,
        )

    def append(self, session_id: str, lines: Sequence[str], *, packed: Sequence[int] = ()) -> None:
        """Append rows to a transcript. Those at the places in `packed` are compressed."""
        [(after,)] = self.connection.execute(
            "SELECT coalesce(max(seq), -1) FROM transcript_events WHERE session_id = ?",
            (session_id,),
        )
        for at, line in enumerate(lines):
            text = line.encode()
            compressed = zstandard.ZstdCompressor().compress(text) if at in packed else None
            self.run(
                "INSERT INTO transcript_events VALUES (?, ?, ?, 1, ?, ?, ?)",
                session_id,
                after + 1 + at,
                None if compressed else line,
                compressed,
                len(text) if compressed else None,
                "{}" if compressed else None,
            )

    def archive(self, session_id: str, lines: Sequence[str], name: str, *, encoding: str) -> None:
        content = "".join(f"{line}\n" for line in lines).encode()
        stored = zstandard.ZstdCompressor().compress(content) if encoding == "zstd" else content
        self.run(
            "INSERT INTO session_transcript_archives"
            " VALUES (?, 'g', 'k', 'deleted', ?, ?, ?, ?, 7, NULL)",
            session_id,
            encoding,
            stored,
            hashlib.sha256(stored).hexdigest(),
            name,
        )

    def freeze(self, session_id: str, *, storage: str) -> Path | None:
        """Move a transcript into cold storage. Return its file, if it becomes one."""
        rows = list(
            self.connection.execute(
                "SELECT seq, event_json FROM transcript_events WHERE session_id = ? ORDER BY seq",
                (session_id,),
            )
        )
        records: list[dict[str, Any]] = [
            {"kind": "header", "version": 1, "sessionId": session_id, "generation": "g"}
        ]
        records += [
            {"kind": "event", "row": {"seq": seq, "event_json": text, "created_at": 1}}
            for seq, text in rows
        ]
        records += [{"kind": "active", "row": {"active_position": 0, "event_seq": 1}}]
        content = zstandard.ZstdCompressor().compress(
            "".join(json.dumps(record) + "\n" for record in records).encode()
        )
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / "sessions" / "cold" / f"{sha256}.jsonl.zst"
        if storage == "file":
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        self.run(
            "INSERT INTO session_transcript_cold_archives"
            " VALUES (?, 'g', ?, ?, ?, ?, ?, ?, 9, ?, ?)",
            session_id,
            path.name,
            sha256,
            len(rows),
            sum(len(text.encode()) for _, text in rows) + len(rows) - 1,
            len(content),
            rows[-1][0],
            storage,
            content if storage == "sqlite" else None,
        )
        self.run("DELETE FROM transcript_events WHERE session_id = ?", session_id)
        return path if storage == "file" else None

    def thaw(self, session_id: str, lines: Sequence[str]) -> None:
        """Bring a transcript back from cold storage."""
        self.run("DELETE FROM session_transcript_cold_archives WHERE session_id = ?", session_id)
        self.append(session_id, lines)

    def accept(self, count: int, *, state: str = "queued") -> None:
        for at in range(count):
            self.run(
                "INSERT INTO session_pending_inputs (input_id, session_key, session_id,"
                " message_json, state, accepted_at) VALUES (?, 'k', 's', '{}', ?, 1)",
                f"{state}-{at}",
                state,
            )
