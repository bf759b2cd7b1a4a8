"""Mutants of the named statements, and of the rules in schema.sql."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .mutant import Edit, Mutant, line_of, numbered, one_line
from .sql import Change, Sql, Token

STATEMENT = re.compile(
    r"^-- name: (?P<name>\w+)[^\n]*\n(?:--[^\n]*\n)+(?P<sql>.*?);[ \t]*$", re.DOTALL | re.MULTILINE
)
OBJECT = re.compile(
    r"^CREATE (?P<kind>TABLE|INDEX|UNIQUE INDEX|VIEW) (?P<name>\w+)(?: ON (?P<table>\w+))?"
    r"(?:--[^\n]*|'[^']*'|-(?!-)|[^;'-])*;",  # the first semicolon that is neither text nor comment
    re.MULTILINE,
)


def of_statements(path: str, text: str) -> Iterator[Mutant]:
    """Yield the mutants of a file of named statements. `where` is `file.statement`."""
    file = path.rpartition("/")[2].removesuffix(".sql")
    found = []
    for match in STATEMENT.finditer(text):
        sql = Sql(text, match.start("sql"), match.end("sql"))
        hint = without_hint(sql.tokens)
        found += [
            _mutant(path, text, f"{file}.{match['name']}", change, hint) for change in sql.changes()
        ]
    yield from numbered(found)


def of_schema(path: str, text: str) -> Iterator[Mutant]:
    """Yield the mutants of schema.sql. `where` is the object: `table entry`."""
    found = []
    for match in OBJECT.finditer(text):
        sql = Sql(text, match.start(), match.end())
        where = f"{match['kind'].lower()} {match['name']}"
        if match["table"]:
            where += f" of {match['table']}"
        rules = {"TABLE": _of_table, "VIEW": Sql.changes}.get(match["kind"], _of_index)
        found += [_mutant(path, text, where, change) for change in rules(sql)]
    yield from numbered(found)


def _mutant(
    path: str, text: str, where: str, change: Change, more: tuple[Edit, ...] = ()
) -> Mutant:
    lines = line_of(text, change.start), line_of(text, change.end)
    piece = one_line(text[change.start : change.end])
    return Mutant(path, where, change.kind, piece, change.edits + more, lines)


def _of_table(sql: Sql) -> Iterator[Change]:
    """Yield a table without one of its rules, and what is inside its checks."""
    for index, token in enumerate(sql.tokens):
        if token.text == "CHECK":
            yield from sql.whole_condition("CHECK dropped", index + 1)
            yield from sql.inside(index + 1)
        elif token.text == "UNIQUE":
            yield _of_unique(sql, index)
        elif token.text == "REFERENCES":
            end = sql.tokens[sql.closing[index + 2]].end
            yield Change("foreign key dropped", token.start, end, (Edit(token.start, end, ""),))
        elif token.text == "AUTOINCREMENT":
            yield _without("AUTOINCREMENT dropped", sql, index)
        elif token.text == "DEFAULT":
            value = sql.tokens[index + 1]
            edit = Edit(value.start, value.end, f"({value.text} + 1)")
            yield Change("DEFAULT changed", token.start, value.end, (edit,))


def _of_unique(sql: Sql, index: int) -> Change:
    """Return a table without a UNIQUE. A check that always holds takes its place and name."""
    token = sql.tokens[index]
    last = sql.closing[index + 1] if sql.tokens[index + 1].text == "(" else index
    end = sql.tokens[last].end
    return Change("UNIQUE dropped", token.start, end, (Edit(token.start, end, "CHECK (1)"),))


def _of_index(sql: Sql) -> Iterator[Change]:
    """Yield no index, one that is not unique, and one of more or fewer rows."""
    start, end = sql.tokens[0].start, sql.tokens[-1].end
    yield Change("index dropped", start, end, (Edit(start, end, ""),))
    for index, token in enumerate(sql.tokens):
        if token.text == "UNIQUE":
            yield _without("UNIQUE dropped", sql, index)
    where = next((i for i, token in enumerate(sql.tokens) if token.text == "WHERE"), None)
    if where is not None:
        yield from sql.changes(where)


def _without(kind: str, sql: Sql, index: int) -> Change:
    token, following = sql.tokens[index], sql.tokens[index + 1]
    return Change(kind, token.start, following.end, (Edit(token.start, token.end, ""),))


def without_hint(tokens: Iterable[Token]) -> tuple[Edit, ...]:
    """Return the edits that leave out INDEXED BY.

    With the hint a dropped conjunct of the index would fail to compile, which any run notices.
    """
    listed = list(tokens)
    return tuple(
        Edit(listed[i].start, listed[i + 2].end, "")
        for i in range(len(listed) - 2)
        if (listed[i].text, listed[i + 1].text) == ("INDEXED", "BY")
    )
