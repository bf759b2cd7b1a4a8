"""A populated world: two and more of everything, so that a change of one row too many is seen.

`World` is a database in memory. It has rows in every table, and for each statement that
changes rows it has some that the statement hits and others that it must not. The rules
themselves make the rows: a rule is a plain function over a transaction, so no thread, file
or event loop is needed. The world is built once per process.

`World.changes(rule)` runs a rule, compares all rows of all tables with those before, and
rolls back. What it returns is for reading:

    {"inbox dead": {"state": "queued", "attempts": 0}, "+event message_dead/user": {...}}

A row that changed has its label and its new values. A new one has a `+` and its values,
but those that are NULL or their column's default. A deleted one has a `-`.
Numbers that point at rows are shown as the labels of those rows. So a test that compares
the whole result fails for every row that it did not name.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from sessiondb.sqlite.schema import schema_text
from sessiondb.sqlite.transaction import WriteTransaction
from tests.support.world_build import NOW, Direct, template

Row = dict[str, Any]
Changes = dict[str, Any]
Rule = Callable[[WriteTransaction], object]

# Columns that hold an entry's number, and those that hold the key of another table's row.
ENTRIES = {
    "entry_no",
    "head_no",
    "boundary_no",
    "first_kept_no",
    "parent_no",
    "fork_no",
    "forked_at_no",
    "first_no",
    "first_message_no",
    "last_message_no",
    "closed_head_no",
    "cut_no",
    "model_no",
    "thinking_no",
}
POINTERS = {
    "session_no": "session",
    "forked_from_no": "session",
    "branch_no": "branch",
    "parent_branch_no": "branch",
    "instance_no": "instance",
    "turn_no": "turn",
    "inbox_no": "inbox",
    "outbox_no": "outbox",
    "edit_of": "inbox",
    "superseded_by": "inbox",
    "told_no": "event",
    "import_file_no": "import_file",
    "archive_no": "archive",
}


NEW = 9_000
# What a copy of a row needs to be another row.
FRESH: dict[str, dict[str, Any]] = {
    "instance": {"instance_no": NEW},
    "wal_link": {"link_no": 1},  # there is no other row
    "search_state": {"state_no": 1},  # the same
    "search_session": {"session_no": 8},  # twin-undone, of which nothing is in the index
    "session": {"session_no": NEW, "session_id": "new"},
    "binding": {"session_key": "agent:main:new"},
    "session_details": {"session_no": 8},  # twin-undone, which has none
    "named_details": {"details_no": NEW, "name": "new"},
    "foreign_id": {"external_id": "new", "session_no": 8},  # twin-undone, which has none
    "branch": {"branch_no": NEW},
    "entry": {"entry_no": NEW << 32, "entry_id": "new", "idempotency_key": None},
    "epoch": {"epoch": NEW},
    "compaction": {"compaction_no": NEW, "compaction_id": "new"},
    "import_file": {"import_file_no": NEW, "path": "/new"},
    "quarantine": {"byte_offset": NEW},
    "lane": {"lane": "new"},
    "turn": {"turn_no": NEW},
    "inbox": {"inbox_no": NEW, "event_id": "new"},
    "outbox": {"outbox_no": NEW},
    "channel_pause": {"channel": "new"},
    "event": {"event_no": NEW},
    "event_cursor": {"consumer": "new"},
    "archive": {"archive_no": NEW},
    "archive_chunk": {"chunk_no": NEW},
}


class Recorder(WriteTransaction):
    """A `Tx` that remembers which statements it ran."""

    __slots__ = ("ran",)

    def __init__(self, connection: apsw.Connection, now_ms: int, instance_no: int) -> None:
        super().__init__(connection, now_ms, instance_no)
        self.ran: set[str] = set()

    def _start(self, statement: str, params: Any) -> Any:
        self.ran.add(statement)
        return super()._start(statement, params)


@dataclass
class World:
    """Every row of a database, by its label, and what a rule changes in it."""

    connection: apsw.Connection
    now_ms: int = NOW
    instance_no: int = 0
    ran: set[str] = field(default_factory=set)

    @functools.cached_property
    def before(self) -> Rows:
        """The rows as they were built. Every change is rolled back, so they stay."""
        return Rows.read(self.connection)

    # -- finding rows

    def row(self, label: str) -> Row:
        """Return a row by its label, such as "inbox dead"."""
        return self.before.by_label[label]

    def no(self, label: str) -> Any:
        """Return the number of a row, or of an entry, by its label."""
        table, _, _ = label.partition(" ")
        return self.row(label)[f"{table}_no"]

    def rows(self, table: str) -> Iterator[tuple[str, Row]]:
        """Yield the rows of a table with their labels."""
        for label, row in self.before.by_label.items():
            if label.startswith(f"{table} "):
                yield label, row

    # -- running rules

    def tx(self) -> Recorder:
        """Return a handle of the gateway's."""
        return Recorder(self.connection, self.now_ms, self.instance_no)

    def direct(self, stop_before: str | None = None) -> Direct:
        """Return a backend for rules that take several transactions."""
        return Direct(self._recording_tx, stop_before)

    def _recording_tx(self) -> Recorder:
        tx = self.tx()
        tx.ran = self.ran
        return tx

    @contextmanager
    def undone(self) -> Iterator[Recorder]:
        """Give a transaction, and roll it back."""
        assert self.before  # read while nothing has changed
        self.connection.execute("SAVEPOINT world")
        try:
            self.ran = set()
            yield self._recording_tx()
        finally:
            self.connection.execute("ROLLBACK TO world; RELEASE world")

    def changes(self, rule: Rule) -> Changes:
        """Run a rule and return every row that it changed. Everything is rolled back."""
        with self.undone() as tx:
            rule(tx)
            return self.changed()

    def changed(self) -> Changes:
        """Return every row that is not as it was."""
        return self.before.changes_to(Rows.read(self.connection))


# -- all rows, and how they are shown ------------------------------------------------------


class Table(NamedTuple):
    """The columns of a table, those of its key, and the value of each that has a default."""

    columns: tuple[str, ...]
    key: tuple[str, ...]
    defaults: dict[str, int]


@functools.cache
def tables() -> dict[str, Table]:
    """Return the tables of the schema, by name."""
    connection = apsw.Connection(":memory:")
    connection.execute(schema_text()).fetchall()
    # An index for a search is a virtual table, over tables of its own.
    names = connection.execute(
        "SELECT name FROM pragma_table_list "
        "WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    found = {}
    for (name,) in names:
        columns = connection.execute(
            "SELECT name, pk, dflt_value FROM pragma_table_info(?) ORDER BY cid", (name,)
        ).fetchall()
        keys = sorted((pk, column) for column, pk, _ in columns if pk)
        found[name] = Table(
            tuple(column for column, _, _ in columns),
            tuple(column for _, column in keys),
            {column: int(default) for column, _, default in columns if default is not None},
        )
    return found


class Rows:
    """All rows of all tables, by table and key."""

    def __init__(self, values: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]) -> None:
        self.values = values

    @classmethod
    def read(cls, connection: apsw.Connection) -> Rows:
        found = {}
        for table, (columns, key, _) in tables().items():
            places = [columns.index(name) for name in key]
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # the schema's
            found[table] = {tuple(row[place] for place in places): row for row in rows}
        return cls(found)

    def row(self, table: str, key: tuple[Any, ...]) -> Row | None:
        """Return a row by its key."""
        values = self.values[table].get(key)
        return dict(zip(tables()[table].columns, values, strict=True)) if values else None

    @functools.cached_property
    def by_label(self) -> dict[str, Row]:
        found: dict[str, Row] = {}
        for table, rows in self.values.items():
            for key in rows:
                row = self.row(table, key)
                assert row is not None
                label = f"{table} {self.label(table, row)}"
                assert label not in found, f"two rows have the label {label}"
                found[label] = row
        return found

    def label(self, table: str, row: Row) -> str:
        """Return what a row is called in tests."""
        return str(LABELS[table](self, row))

    def name(self, table: str, number: Any) -> str:
        """Return the label of the row that a number points at."""
        if isinstance(number, int) and number < 0:
            return f"-{self.name(table, -number)}"  # set aside by a salvage
        row = self.row(table, (number,))
        return f"no {number}" if row is None else self.label(table, row)

    def shown(self, column: str, value: Any) -> Any:
        """Return a value as tests write it: numbers of rows become labels."""
        if value is None:
            return None
        if column in ENTRIES:
            return self.entry(value)
        if column in POINTERS:
            return self.name(POINTERS[column], value)
        return value

    def entry(self, number: int) -> str:
        if number < 0:
            return f"-{self.entry(-number)}"
        return f"{self.name('session', number >> 32)}/{number & 0xFFFFFFFF}"

    def changes_to(self, after: Rows) -> Changes:
        """Return every row that differs in `after`, with its new values."""
        found: Changes = {}
        for table, rows in self.values.items():
            later = after.values[table]
            if rows == later:
                continue
            _, key, defaults = tables()[table]
            for number in sorted(rows.keys() | later.keys()):
                if rows.get(number) == later.get(number):
                    continue
                old, new = self.row(table, number), after.row(table, number)
                if new is None:
                    assert old is not None
                    _put(found, f"-{table} {self.label(table, old)}", {})
                elif old is None:
                    values = {
                        column: after.shown(column, value)
                        for column, value in new.items()
                        if value is not None and column not in key and value != defaults.get(column)
                    }
                    _put(found, f"+{table} {after.label(table, new)}", values)
                else:
                    values = {
                        column: after.shown(column, value)
                        for column, value in new.items()
                        if value != old[column]
                    }
                    _put(found, f"{table} {self.label(table, old)}", values)
        return found


def _put(found: Changes, label: str, values: Row) -> None:
    """Add a change. Of several new rows with one label, each keeps a place."""
    for count in itertools.count(1):
        place = label if count == 1 else f"{label} {count}"
        if place not in found:
            found[place] = values
            return


def _event_label(_: Rows, row: Row) -> str:
    """Return a label that does not move when the world gets more rows: its kind and audience.

    Events of the world itself have their number in it.
    """
    label = f"{row['kind']}/{row['audience']}"
    return f"{label}/{row['event_no']}" if row["at_ms"] != NOW else label


def _turn_label(rows: Rows, row: Row) -> str:
    return f"{rows.name('inbox', row['inbox_no'])}#{row['attempt']}"


LABELS: dict[str, Callable[[Rows, Row], object]] = {
    "instance": lambda _, row: row["program"],
    "session": lambda _, row: row["session_id"],
    "binding": lambda _, row: row["session_key"],
    "session_details": lambda rows, row: rows.name("session", row["session_no"]),
    "named_details": lambda _, row: f"{row['namespace']}/{row['name']}",
    "foreign_id": lambda _, row: f"{row['namespace']}/{row['external_id']}",
    "branch": lambda rows, row: rows.entry(row["first_no"]),
    "entry": lambda rows, row: rows.entry(row["entry_no"]),
    "epoch": lambda rows, row: f"{rows.name('session', row['session_no'])}/{row['epoch']}",
    "compaction": lambda _, row: row["compaction_id"],
    "import_file": lambda _, row: row["name"],
    "quarantine": lambda rows, row: (
        f"{rows.name('import_file', row['import_file_no'])}@{row['byte_offset']}"
    ),
    "lane": lambda _, row: row["lane"],
    "turn": _turn_label,
    "inbox": lambda _, row: row["event_id"],
    "outbox": lambda _, row: row["target"],
    "channel_pause": lambda _, row: row["channel"],
    "event": _event_label,
    "event_cursor": lambda _, row: row["consumer"],
    "wal_link": lambda _, row: row["link_no"],
    "search_session": lambda rows, row: rows.name("session", row["session_no"]),
    "search_state": lambda _, row: row["state_no"],
    "archive": lambda rows, row: f"{rows.name('session', row['session_no'])}/{row['archive_no']}",
    "archive_chunk": lambda rows, row: (
        f"{rows.name('archive', row['archive_no'])}/{row['chunk_no']}"
    ),
}


def make_world() -> World:
    """Return a world of one's own."""
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", template())
    connection.execute("PRAGMA foreign_keys = on")
    world = World(connection)
    world.instance_no = world.no("instance gateway")
    return world


def world_file(path: Path) -> Path:
    """Write a world to a file, for rules that open one."""
    path.write_bytes(template())
    path.chmod(0o600)
    return path
