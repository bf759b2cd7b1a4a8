"""The report of a salvage: its parts, and the words for a row or a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.models import Finding

# Losses and pages that are listed one by one. The rest is counted.
REPORTED_MAX: Final = 1_000

NO_HEADER_KNOWN: Final = "whether its file had a header, seq 0, is not known"


@dataclass(slots=True)
class TableReport:
    """What became of one table's rows."""

    table: str
    found: int = 0
    """Rows that were read and are in the new database."""
    expected: int | None = None
    """How many rows there should be, where a counter tells."""
    broken: int = 0
    """Rows that are there and could not be read whole."""
    left_out: int = 0
    """Rows that were read and contradict others."""
    created: int = 0
    """Lost rows that were created again from others."""


@dataclass(frozen=True, slots=True)
class SessionReport:
    """A session that came out changed, or not at all."""

    session_no: int
    session_id: str
    expected: int
    """Entries, the header included, by its counter and its gaps."""
    found: int
    missing: tuple[tuple[int, int], ...]
    """Ranges of seq, both ends included."""
    outcome: str
    """rebuilt, archive opened, left out, ..."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A page that could not be read, or a row on one."""

    page: int
    table: str | None
    what: str


@dataclass(slots=True)
class SalvageReport:
    """What was salvaged from a damaged file, and what is missing."""

    source: str
    destination: str
    pages: int = 0
    page_size: int = 0
    wal: str = "none"
    """none, empty, whole, torn (read up to its damage), unusable, foreign (another
    database's), or ignored."""
    wal_frames: int = 0
    notes: list[str] = field(default_factory=list)
    tables: list[TableReport] = field(default_factory=list)
    sessions: int = 0
    entries: int = 0
    damaged_sessions: list[SessionReport] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Things that are lost or were changed, a sentence each."""
    more: int = 0
    """Things that are not listed, because there are too many."""
    findings: list[Finding] = field(default_factory=list)
    """Errors that `verify` finds in the new database: none, unless there is a bug."""

    @property
    def missing_entries(self) -> int:
        """The number of entries that are known to be missing."""
        return sum(
            high - low + 1 for session in self.damaged_sessions for low, high in session.missing
        )

    @property
    def complete(self) -> bool:
        """Whether every row was salvaged, unchanged."""
        damage = (self.unreadable, self.lost, self.damaged_sessions, self.more, self.findings)
        return (
            not any(damage)
            and self.wal not in ("torn", "unusable", "foreign")
            and not any(t.broken or t.left_out for t in self.tables)
        )


def name_row(table: str, values: dict[str, Any]) -> str:
    """Return a row's name for a person: its number, or another key."""
    if table == "inbox" and values.get("channel") is not None:
        return f"message {values.get('inbox_no')}, {values['channel']} {values.get('event_id')}"
    number = values.get("entry_no")
    if table == "entry" and isinstance(number, int):
        return f"session number {number >> SEQ_BITS}, seq {number & SEQ_MAX}"
    first = next((str(value) for value in values.values() if value is not None), "unknown")
    return first[:80]


def describe_spot(spot: Any) -> str:
    """Describe which rows an unreadable page may have held."""
    if spot.low is None and spot.high is None:
        return f"{spot.reason}. It may have held any row"
    entries = spot.table == "entry"
    low, high = (
        None
        if number is None
        else f"{number >> SEQ_BITS}/{number & SEQ_MAX}"
        if entries
        else str(number)
        for number in (spot.low, spot.high)
    )
    return (
        f"{spot.reason}. It may have held {'entries' if entries else 'rows'} "
        f"after {low or 'the first'} up to {high or 'the last'}"
        f"{' (session number/seq)' if entries else ''}"
    )
