"""The state that the steps of a salvage share: source, new database, findings so far, report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

from sessiondb.backend import AnyStatement, Row, Tx
from sessiondb.clock import now_ms
from sessiondb.limits import SEQ_BITS
from sessiondb.maintenance.verify_steps import UNREADABLE, Steps
from sessiondb.paging import Page, handed_on

from .report import REPORTED_MAX, SalvageReport, TableReport, Unreadable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Rows of one transaction, and of one page.
BATCH_ROWS: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
# No row has a smaller number, so tables are read from here on. (Entries that are set aside
# have negative numbers.)
FIRST_NUMBER: Final = -(1 << 62)
# A lost entry gets a mark only if the file is large enough to have held so many rows. This
# many are allowed to any file.
GAP_FLOOR: Final = 10_000
# The part of a lost entry's text that its mark keeps.
FRAGMENT_CHARS: Final = 64 * 1024

# The tables whose numbers are never assigned twice, each with its column.
NUMBERED: Final = {
    "branch": "branch_no",
    "turn": "turn_no",
    "inbox": "inbox_no",
    "outbox": "outbox_no",
    "event": "event_no",
}


class Source(Protocol):
    """Where rows come from: `sqlite.damaged_file.DamagedFile`."""

    path: str
    bytes: int
    page_size: int
    count: int
    notes: list[str]
    spots: list[Any]
    spots_more: int
    wal: Any

    def rows(self) -> Iterator[Any]:
        """Yield each row that could be read, and each that could not."""

    def evidence(self) -> Iterator[Any]:
        """Yield the keys of rows that the indexes name."""


class Target(Protocol):
    """Where rows go: `sqlite.new_database.NewDatabase`."""

    path: str

    def write(self, fn: Callable[[Any], T], *, now_ms: int) -> T:
        """Run `fn` in a transaction."""

    def read(self, fn: Callable[[Any], T]) -> T:
        """Run `fn` over the database as it is."""

    def raise_sequence(self, table: str, number: int) -> None:
        """Never assign numbers up to this one again."""

    def finish(self) -> None:
        """Sync the database and give it its name."""


class Workspace:
    """One salvage: its open source and target, and the results of the steps before."""

    def __init__(self, source: Source, target: Target) -> None:
        self.source, self.target = source, target
        self.now_ms = now_ms()
        self.report = SalvageReport(source.path, target.path)
        self.tables: dict[str, TableReport] = {}
        # By table: the highest number that was assigned.
        self.numbers: Counter[str] = Counter()
        # Tables whose row in `sqlite_sequence`, the last number, could be read.
        self.sequences: set[str] = set()
        # By entry number: the readable parts of broken entries.
        self.fragments: dict[int, dict[str, Any]] = {}
        self.fragment_chars = 0
        # The numbers of lost entries that messages of the inbox still name.
        self.lost_inputs: set[int] = set()
        # By session and seq: the ids of lost entries that the index still has.
        self.lost_entries: dict[int, dict[int, str]] = {}
        # By number: the ids of lost sessions that the index still has.
        self.lost_sessions: dict[int, str] = {}
        self.recreated_sessions: set[int] = set()
        # The session for messages and replies whose own session number is impossible.
        self.catch_all_no: int | None = None
        self.unfinished: list[str] = []
        """Checks of the new database that could not be finished."""
        self.entries_expected = 0
        # The most rows that the file had room for. A longer gap in the numbers is not real.
        self.gap_max = GAP_FLOOR + source.count * source.page_size // 64

    # -- the report

    def table(self, name: str) -> TableReport:
        """Return the report of one table."""
        return self.tables.setdefault(name, TableReport(name))

    def note_loss(self, sentence: str) -> None:
        """Report one thing that is lost, or was changed."""
        if len(self.report.lost) < REPORTED_MAX:
            self.report.lost.append(sentence)
        else:
            self.report.more += 1

    def note_unreadable(self, page: int, table: str | None, what: str) -> None:
        """Report a page that could not be read, or a row on one."""
        if len(self.report.unreadable) < REPORTED_MAX:
            self.report.unreadable.append(Unreadable(page, table, what))
        else:
            self.report.more += 1

    def note_number(self, table: Any, number: Any) -> None:
        """Remember that a number was assigned."""
        if table in NUMBERED and isinstance(number, int) and 0 < number < 1 << 62:
            self.numbers[table] = max(self.numbers[table], number)

    # -- the new database

    def write(self, fn: Callable[[Tx, *Ts], T], *args: *Ts) -> T:
        """Run `fn(tx, *args)` in a transaction."""
        return self.target.write(lambda tx: fn(tx, *args), now_ms=self.now_ms)

    def change(self, statement: str, **params: Any) -> int:
        """Run one statement of `queries/salvage.sql`. Return how many rows it changed."""
        return self.write(lambda tx: tx.run(AnyStatement(f"salvage.{statement}"), **params))

    # The rows stay `Row`: a walk gets the statement's name without its file, and the columns
    # of a damaged database may hold what no class allows.

    def first(self, statement: str, **params: Any) -> Row | None:
        """Return the first row of a statement, or None."""
        return self.target.read(lambda tx: tx.first(AnyStatement(statement), **params))

    def one(self, statement: str, **params: Any) -> Row:
        """Return the only row of a statement."""
        return self.target.read(lambda tx: tx.one(AnyStatement(statement), **params))

    def all(self, statement: str, **params: Any) -> list[Row]:
        """Return the rows of a statement."""
        rows: list[Row] = self.target.read(lambda tx: tx.all(AnyStatement(statement), **params))
        return rows

    def page(self, statement: str, **params: Any) -> Page[Row]:
        """Return one page of the rows of a statement."""
        page: Page[Row] = self.target.read(lambda tx: tx.page(AnyStatement(statement), **params))
        return page

    def pages(self, statement: str, key: str, first: Any = FIRST_NUMBER - 1) -> Iterator[Row]:
        """Yield every row of a paged statement. The table may change meanwhile."""
        after, more = first, True
        while more:
            rows, more = self.page(f"salvage.{statement}", after=after, limit=BATCH_ROWS)
            if rows:
                after = getattr(rows[-1], key)
            yield from handed_on(rows)

    def owners(self, statement: str, key: str) -> Iterator[Row]:
        """Yield the rows of a statement that finds the next owner of something."""
        after = FIRST_NUMBER - 1
        while (row := self.first(f"salvage.{statement}", after=after)) is not None:
            yield row
            after = getattr(row, key)

    def verify(self, steps: Steps) -> None:
        """Run the steps of a walk. Errors of reading go to the walk, as in `verify.run`."""
        failure: Exception | None = None
        while True:
            try:
                step = steps.throw(failure) if failure is not None else next(steps)
            except StopIteration:
                return
            failure = None
            try:
                self.target.read(step)
            except UNREADABLE as error:
                failure = error

    def had_header(self, session_no: int) -> bool:
        """Tell whether an imported session is known to have had a header.

        A file may be imported without one.
        """
        if 0 in self.lost_entries.get(session_no, ()) or session_no << SEQ_BITS in self.fragments:
            return True
        return self.first("salvage.counted_header", session_no=session_no) is not None


def batches(rows: Iterable[T]) -> Iterator[list[T]]:
    """Cut a stream into batches for one transaction each, bounded in rows and in bytes."""
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
    """Return about how many bytes a row of any stream holds. Its payload is the last value."""
    item = row[1] if isinstance(row, tuple) and len(row) == 2 else row
    values = item if isinstance(item, dict) else getattr(item, "values", None)
    last = (
        next(reversed(values.values()), None)
        if isinstance(values, dict) and values
        else getattr(item, "payload", None)
    )
    return len(last) if isinstance(last, str | bytes) else 64


def decode_object(text: Any) -> dict[str, Any]:
    """Decode a JSON object. Anything else becomes {}."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
