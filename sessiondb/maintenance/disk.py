"""What takes the space of a database, and what would free it.

Pages are counted for each table and index, one after the other, in a snapshot each. So a large
file is not one long snapshot, which would keep a gateway's WAL from being reset. The table of
entries is never read for it: its pages are what is left when all others are counted.

A SQLite that cannot count pages (it lacks dbstat) gives estimates, and the report says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sessiondb.backend import ReadTx

ENTRIES: Final = "entry"
REST: Final = "messages"
# What a person knows, and its tables. An index belongs to its table, but for those of entries.
PARTS: Final = {
    "archives": ("archive", "archive_chunk"),
    "search index": ("search_data", "search_idx", "search_docsize", "search_config"),
    "queue": ("inbox", "outbox", "turn", "channel_pause", "lane"),
    "events": ("event", "event_cursor"),
    "imports": ("import_file", "quarantine"),
    "details": ("session_details", "named_details"),
}
_INDEXES: Final = "indexes of messages"
_SESSIONS: Final = "sessions"
_SCHEMA: Final = "schema"

# What frees a part. All of it, or as much as is old enough: then `--dry-run` says how much.
_FREES: Final = {
    REST: "sessiondb gc DB --max-age 30d",
    _INDEXES: "sessiondb gc DB --max-age 30d",
    "archives": "sessiondb gc DB --drop-archives 365d",
    "search index": "sessiondb search DB --drop",
    "queue": "sessiondb gc DB --prune 90d",
    "events": "sessiondb gc DB --prune 90d",
    "free pages": "sessiondb gc DB",
}
_ALL_OF: Final = frozenset({"search index", "free pages"})


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the database, and its bytes on disk."""

    what: str
    bytes: int
    estimated: bool
    """True: not counted, because this SQLite cannot."""
    frees: str | None
    """The command that frees it. None: none does."""
    frees_all: bool
    """False: it frees what is old. Its `--dry-run` says how much."""


@dataclass(frozen=True, slots=True)
class Object:
    """A table or an index."""

    name: str
    part: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be counted."""

    can_count: bool
    objects: tuple[Object, ...]


def plan(tx: ReadTx) -> Plan:
    """Return what is to be counted, without the table of entries."""
    rows = tx.all("disk.objects")
    objects = tuple(
        Object(row.name, _part_of(row.table_name)) for row in rows if row.name != ENTRIES
    )
    # The table of the schema is not in itself.
    objects += (Object("sqlite_schema", _SCHEMA),)
    return Plan(tx.one("disk.can_measure").can == 1, objects)


def _part_of(table: str) -> str:
    if table == ENTRIES:
        return _INDEXES
    return next((part for part, tables in PARTS.items() if table in tables), _SESSIONS)


def count(tx: ReadTx, one: Object) -> int:
    """Return the bytes of a table or an index."""
    return tx.one("disk.pages", name=one.name).bytes


def estimate(tx: ReadTx) -> dict[str, int]:
    """Return what is known without counting, by part."""
    return {"archives": tx.one("disk.archived").bytes}


def report(
    counted: dict[str, int], *, used: int, free: int, wal: int, estimated: bool
) -> Sequence[Part]:
    """Return the parts, the largest first. `used` is the file without its free pages."""
    rest = used - sum(counted.values())
    # Another process wrote meanwhile, or an estimate is too high.
    parts = [Part(REST, max(rest, 0), estimated, _FREES[REST], frees_all=False)]
    parts += [
        Part(what, size, estimated, _FREES.get(what), what in _ALL_OF)
        for what, size in counted.items()
    ]
    parts.append(Part("free pages", free, False, _FREES["free pages"], frees_all=True))
    parts.append(Part("WAL", wal, False, None, frees_all=False))
    return sorted(parts, key=lambda part: -part.bytes)
