"""What the steps of a salvage share: the source, the new database, what is known so far, the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

from sessiondb.backend import Row, Tx
from sessiondb.clock import now_ms
from sessiondb.limits import SEQ_BITS
from sessiondb.maintenance import verify

from .report import REPORTED_MAX, SalvageReport, TableReport, Unreadable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Rows of one transaction, and of one page.
BATCH_ROWS: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
# Below this no number can be; tables are read from here on. (Entries that are set aside have negative numbers.)
FIRST_NUMBER: Final = -(1 << 62)
# A missing number is marked only where the file is large enough to have held so many rows.
GAP_FLOOR: Final = 10_000
# Of a lost entry's text that can be read, so much is kept for its mark.
FRAGMENT_CHARS: Final = 64 * 1024

# The tables whose numbers are never given out twice, and the column that holds them.
NUMBERED: Final = {
    "branch": "branch_no",
    "turn": "turn_no",
    "inbox": "inbox_no",
    "outbox": "outbox_no",
    "event": "event_no",
}


class Source(Protocol):
    """What rows come from: `sqlite.damaged_file.DamagedFile`."""

    path: str
    bytes: int
    page_size: int
    count: int
    notes: list[str]
    spots: list[Any]
    spots_more: int
    wal: Any

    def rows(self) -> Iterator[Any]:
        """Yield what could be read and what could not."""

    def evidence(self) -> Iterator[Any]:
        """Yield what the indexes know of rows."""


class Target(Protocol):
    """Where they go: `sqlite.new_database.NewDatabase`."""

    path: str

    def write(self, fn: Callable[[Any], T], *, now_ms: int) -> T:
        """Run a transaction."""

    def read(self, fn: Callable[[Any], T]) -> T:
        """Run a read."""

    def raise_sequence(self, table: str, number: int) -> int:
        """See that numbers are not given out again."""

    def finish(self) -> None:
        """Give the database its name."""


class Workspace:
    """The open source and target of one salvage, and what its steps leave for one another."""

    def __init__(self, source: Source, target: Target) -> None:
        self.source, self.target = source, target
        self.now_ms = now_ms()
        self.report = SalvageReport(source.path, target.path)
        self.tables: dict[str, TableReport] = {}
        # The highest number given out, by table, and the tables whose last number could be read.
        self.numbers: Counter[str] = Counter()
        self.sequences: set[str] = set()
        # By entry number: what could be read of a broken entry.
        self.fragments: dict[int, dict[str, Any]] = {}
        self.fragment_chars = 0
        # Entry number -> message, for entries that are not there.
        self.lost_inputs: dict[int, int] = {}
        # By session, by seq: the ids that the index still has.
        self.lost_entries: dict[int, dict[int, str]] = {}
        # By number: the ids of sessions whose row is lost.
        self.lost_sessions: dict[int, str] = {}
        self.made_sessions: set[int] = set()
        # The session of what names none that can be.
        self.homeless_no: int | None = None
        self.entries_expected = 0
        # However many numbers are missing in a row, the file had room for no more rows than this.
        self.gap_max = GAP_FLOOR + source.count * source.page_size // 64

    # -- the report

    def table(self, name: str) -> TableReport:
        """Return the report of one table."""
        return self.tables.setdefault(name, TableReport(name))

    def lose(self, sentence: str) -> None:
        """Remember one thing that is gone, or changed."""
        if len(self.report.lost) < REPORTED_MAX:
            self.report.lost.append(sentence)
        else:
            self.report.more += 1

    def unreadable(self, page: int, table: str | None, what: str) -> None:
        """Remember a page that could not be read, or a row on one."""
        if len(self.report.unreadable) < REPORTED_MAX:
            self.report.unreadable.append(Unreadable(page, table, what))
        else:
            self.report.more += 1

    def note_number(self, table: Any, number: Any) -> None:
        """Remember a number that was given out."""
        if table in NUMBERED and isinstance(number, int) and 0 < number < 1 << 62:
            self.numbers[table] = max(self.numbers[table], number)

    # -- the new database

    def write(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> T:
        """Run `fn(tx, *args)` in a transaction."""
        return self.target.write(lambda tx: fn(tx, *args), now_ms=self.now_ms)

    def change(self, statement: str, **params: Any) -> int:
        """Run one statement of `queries/salvage.sql`; return how many rows it changed."""
        return self.write(lambda tx: tx.run(f"salvage.{statement}", **params))

    def first(self, statement: str, **params: Any) -> Row | None:
        """Return the first row of a statement, or None."""
        return self.target.read(lambda tx: tx.first(statement, **params))

    def one(self, statement: str, **params: Any) -> Row:
        """Return the only row of a statement."""
        return self.target.read(lambda tx: tx.one(statement, **params))

    def all(self, statement: str, **params: Any) -> list[Row]:
        """Return the rows of a statement: one page of them."""
        rows: list[Row] = self.target.read(lambda tx: tx.all(statement, **params))
        return rows

    def pages(self, statement: str, key: str, first: Any = FIRST_NUMBER - 1) -> Iterator[Row]:
        """Yield every row of a paged statement; the table may change meanwhile."""
        after = first
        while True:
            rows = self.all(f"salvage.{statement}", after=after, limit=BATCH_ROWS)
            yield from rows
            if len(rows) < BATCH_ROWS:
                return
            after = getattr(rows[-1], key)

    def owners(self, statement: str, key: str) -> Iterator[Row]:
        """Yield the rows of a statement that finds the next owner of something."""
        after = FIRST_NUMBER - 1
        while (row := self.first(f"salvage.{statement}", after=after)) is not None:
            yield row
            after = getattr(row, key)

    def verify(self, steps: verify.Steps) -> None:
        """Run the steps of a walk; what cannot be read is handed to the walk, as `verify.run` does."""
        failure: Exception | None = None
        while True:
            try:
                step = steps.throw(failure) if failure is not None else next(steps)
            except StopIteration:
                return
            failure = None
            try:
                self.target.read(step)
            except verify.UNREADABLE as error:
                failure = error

    def had_header(self, session_no: int) -> bool:
        """Tell whether an imported session is known to have had a header: its file may have come without one."""
        if 0 in self.lost_entries.get(session_no, ()) or session_no << SEQ_BITS in self.fragments:
            return True
        return self.first("salvage.counted_header", session_no=session_no) is not None


def batches(rows: Iterable[T]) -> Iterator[list[T]]:
    """Cut a stream into transactions, bounded in rows and in bytes."""
    iterator = iter(rows)
    while batch := list(islice(iterator, 1)):
        size = _size(batch[0])
        while len(batch) < BATCH_ROWS and size < BATCH_BYTES:
            following = next(iterator, None)
            if following is None:
                break
            batch.append(following)
            size += _size(following)
        yield batch


def _size(row: Any) -> int:
    """Return about how many bytes a row of any of the streams here holds: the payload stands last."""
    item = row[1] if isinstance(row, tuple) and len(row) == 2 else row
    values = item if isinstance(item, dict) else getattr(item, "values", None)
    last = (
        next(reversed(values.values()), None)
        if isinstance(values, dict) and values
        else getattr(item, "payload", None)
    )
    return len(last) if isinstance(last, str | bytes) else 64


def decode_object(text: Any) -> dict[str, Any]:
    """Decode a JSON object; {} for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
