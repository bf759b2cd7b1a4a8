"""Write sessiondb/statements.pyi: what each named statement takes, and a class for its rows.

    python tools/typed_rows.py            write the file
    python tools/typed_rows.py --check    exit with 1 when it is not what the statements say

SQLite compiles each statement against schema.sql, and names the column of a table that each
result comes from. The schema knows that column's type, and whether it may be NULL. An expression
has no such origin. Its type is in `EXPRESSIONS`. The tests compare the rows that they read with
the classes (`tests/conftest.py`), so a wrong type there is found.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import apsw
import apsw.ext

from sessiondb import backend
from sessiondb.backend import Statement, load_statements
from sessiondb.sqlite.schema import schema_text

TARGET = Path(__file__).resolve().parent.parent / "sessiondb" / "statements.pyi"
PYTHON = {"INTEGER": "int", "TEXT": "str", "BLOB": "bytes", "REAL": "float"}
WORDS = re.compile(r"CHECK\s*\(\s*(\w+)\s+IN\s*\(([^()]*)\)\s*\)")
"""A rule of a column that may have these words only."""
_WORD = re.compile("'[^']*'")
OUTER = re.compile(r"\bLEFT JOIN\s+\w+\s+AS\s+(\w+)")

# Expressions count, compare or add: they are integers, but for these. By the column's name, or
# by `file.statement.column`.
EXPRESSIONS = {
    "compaction.reply.content": "bytes | None",
    "content": "bytes",  # texts that are handed on, or may not be UTF-8
    "payload": "bytes",
    "inbox.dead.payload": "str",  # its own, or what its entry says
    "inbox.open.payload": "str",
    "inbox.open_of_session.payload": "str",
    "inbox.payload.payload": "str",
    "disk.objects.name": "str",
    "disk.objects.table_name": "str",
    "search.matches.content": "bytes | None",
    "search.texts.content": "bytes | None",
    "search.indexed.after_no": "int | None",
    "search.indexed.indexed_no": "int | None",
    "keys": "str",  # a JSON array
    "retention.newest.keys": "int",
    "retention.oldest.keys": "int",
    "status.counts.keys": "int",
    "what": "str",
    "status.stuck.name": "str",
    "status.stuck.problem": "str",
    "status.stuck.session_id": "str | None",
    "status.stuck.place": "str | None",
    "status.stuck.since": "str",
    "status.stuck.until": "str | None",
    "status.stuck.why": "str",
    "status.stuck.next_step": "str",
    "session_list.text.content": "bytes | None",
    "status.relations.name": "str",  # of sqlite_schema
    "status.relations.type": "str",
    "verify.broken_rules.rule": "str",
    "verify.session.header_version": "int | None",
    "verify.session.origin_epoch": "int | None",
    "verify.after_epoch.next_no": "int | None",
    "verify.numbers.name": "str",
    "verify.foreign_keys.parent_name": "str",
    "verify.foreign_keys.row_no": "int | None",  # of a table without a rowid
    "verify.foreign_keys.table_name": "str",
    "recovery.held.what": 'Literal["turn", "compaction", "reply"]',
    "recovery.held.turn_no": "int | None",  # one of three names
    "recovery.held.outbox_no": "int | None",
    "problem": "str",  # what a PRAGMA reports
    "owner": "str | None",
    "agent_id": "str | None",
    "compaction_id": "str | None",
    "since": "str | None",
    "until": "str | None",
    "tail_reason": "str | None",
    "tail_at": "int | None",
    "early_lines.next.parent_seq": "int | None",  # of a line behind another one of the page
    "early_lines.next.entry_id": "str",  # the lines wait
    "early_lines.of_file.head_id": "str | None",
    "context.then.context_tokens": "None",  # it is counted again
    # The least or the most of rows that need not be there.
    "at_ms": "int | None",
    "events.last.event_no": "int | None",
    "holder_no": "int | None",
    "is_own": "int | None",  # of an entry that may be lost
    "last_epoch": "int | None",
    "last_line": "int | None",
    "verify.session.last_no": "int | None",
    "restored_at_ms": "int | None",
}


@dataclass(frozen=True)
class Column:
    """One column of a statement's rows."""

    name: str
    type: str


@dataclass(frozen=True)
class Signature:
    """What a statement takes and returns."""

    statement: Statement
    parameters: tuple[str, ...]
    columns: tuple[Column, ...]
    """None if it returns no rows."""

    @property
    def row(self) -> str:
        """The name of its row class: `InboxByEvent` of `inbox.by_event`."""
        return "".join(word.capitalize() for word in re.split(r"[._]", self.statement.name))


def new_database() -> apsw.Connection:
    """Return an empty database with the schema."""
    connection = apsw.Connection(":memory:")
    connection.execute(schema_text()).fetchall()
    return connection


def stored_types(connection: apsw.Connection) -> dict[tuple[str, str], str]:
    """Return the type of each column of each table, as Python has it."""
    found = {}
    tables = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    for table, sql in connection.execute(tables).fetchall():
        words = {
            column: f"Literal[{', '.join(re.findall(_WORD, listed))}]".replace("'", '"')
            for column, listed in WORDS.findall(sql)
        }
        for _, name, kind, required, _, key in connection.execute(
            f"PRAGMA table_info({table})"
        ).fetchall():
            if not kind:
                continue  # of a table of FTS5's, which have no types
            never_null = required or (key and kind == "INTEGER")
            found[table, name] = words.get(name, PYTHON[kind]) + ("" if never_null else " | None")
    return found


def signature(
    connection: apsw.Connection, stored: Mapping[tuple[str, str], str], statement: Statement
) -> Signature:
    """Compile a statement. Return what SQLite says that it takes and returns."""
    info = apsw.ext.query_info(connection, statement.sql)
    outer = "|".join(OUTER.findall(statement.sql)) or "no outer join"
    found = []
    for name, _, _, table, origin in info.description_full or ():
        given = EXPRESSIONS.get(f"{statement.name}.{name}")
        if given is not None or (table, origin) not in stored:
            kind = given or EXPRESSIONS.get(name, "int")
        else:
            kind = stored[table, origin]
            # A row of an outer join, or of a subquery, need not be there.
            alias = "" if name == origin else rf"\s+AS\s+{name}"
            optional = rf"\b(?:{outer})\.{origin}{alias}\s*(?:,|FROM\b)|\)\s+AS\s+{name}\b"
            if re.search(optional, statement.sql) and "None" not in kind:
                kind += " | None"
        found.append(Column(name, kind))
    return Signature(statement, tuple(map(str, info.bindings_names)), tuple(found))


NO_SUCH_STATEMENT = "no statement has this name and takes these parameters"

HEAD = '''\
"""What each named statement takes, and a class for its rows.

For type checkers only: at run time there is no such module. Written by `make statements` from
schema.sql and sessiondb/sqlite/queries/*.sql; a test compares them.
"""

from typing import Any, Literal, NamedTuple, Protocol, overload

from typing_extensions import deprecated

from .backend import AnyStatement, SqlValue
from .paging import Page
'''


def module(statements: Mapping[str, Statement]) -> str:
    """Return the text of a module for `statements`."""
    connection = new_database()
    stored = stored_types(connection)
    known = [signature(connection, stored, one) for one in statements.values()]
    connection.close()
    reading = [one for one in known if one.columns]
    changing = [one for one in known if not one.columns or "RETURNING" in one.statement.sql]
    parts = [HEAD, *row_classes(reading)]
    parts.append(protocol("Reads"))
    parts += overloads("first", reading, lambda row: f"{row} | None")
    parts += overloads("one", reading, lambda row: row)
    parts += overloads("all", reading, lambda row: f"list[{row}]")
    paged = [one for one in reading if "limit" in one.parameters]
    parts += overloads("page", paged, lambda row: f"Page[{row}]")
    parts.append(protocol("Writes"))
    parts += overloads("run", changing, lambda _: "int")
    return "".join(parts)


def row_classes(reading: Iterable[Signature]) -> Iterator[str]:
    """Yield the class of each statement's rows.

    Statements of one file that return the same columns share one: a rule picks one of them, and
    reads either's rows.
    """
    known: dict[tuple[str, tuple[Column, ...]], str] = {}
    for one in reading:
        name = one.statement.name
        shape = name.partition(".")[0], one.columns
        if shape in known:
            yield f"\n\n{one.row} = {known[shape]}  # {name}\n"
            continue
        known[shape] = one.row
        promise = one.statement.promise.replace("\\", "\\\\").replace('"', r"\"")
        fields = "".join(f"    {column.name}: {column.type}\n" for column in one.columns)
        yield f'\n\nclass {one.row}(NamedTuple):\n    """{name}: {promise}"""\n\n{fields}'


def protocol(name: str) -> str:
    """Return the head of one of the two protocols, with the docstring that it has at run time."""
    return f'\n\nclass {name}(Protocol):\n    """{getattr(backend, name).__doc__}"""\n\n'


def overloads(
    method: str, signatures: Iterable[Signature], result: Callable[[str], str]
) -> Iterator[str]:
    """Yield one overload for each statement, and two for other names.

    The last takes what no statement does. It is deprecated, so mypy reports the call in one line.
    Without it mypy would list every overload. The first has the docstring that the method has at
    run time, in sessiondb/backend.py.
    """
    protocol = backend.Writes if method == "run" else backend.Reads
    doc = inspect.getdoc(getattr(protocol, method))
    assert doc is not None, method
    body = '\n        """' + doc.replace("\n", "\n        ") + '"""'
    if "\n" in doc:
        body = body.removesuffix('"""') + '\n        """'
    body = "\n".join(line.rstrip() for line in body.split("\n"))
    for one in signatures:
        kinds = {"limit": "int"} if method == "page" else {}
        keywords = "".join(f", {name}: {kinds.get(name, 'SqlValue')}" for name in one.parameters)
        keywords += ", bytes_max: int = ..." if method == "page" else ""
        yield (
            "    @overload\n"
            f'    def {method}(self, statement: Literal["{one.statement.name}"], /'
            f"{', *' if keywords else ''}{keywords}) -> {result(one.row)}:{body}\n"
        )
        body = " ..."
    others = "*, limit: int, bytes_max: int = ..., " if method == "page" else ""
    for kind, mark in (("AnyStatement", ""), ("str", f'    @deprecated("{NO_SUCH_STATEMENT}")\n')):
        yield (
            f"    @overload\n{mark}"
            f"    def {method}(self, statement: {kind}, /, {others}**params: SqlValue)"
            f" -> {result('Any')}:{body}\n"
        )


def main(arguments: list[str]) -> int:
    """Write the file, or check it. Return the exit code."""
    text = module(load_statements("sessiondb.sqlite.queries"))
    if "--check" in arguments:
        return 0 if TARGET.exists() and TARGET.read_text("utf-8") == text else 1
    TARGET.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
