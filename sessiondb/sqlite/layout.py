"""What a file of this release is made of: the objects of its schema, and its settings.

A file that another program changed may have lost an index, so that a rule is not kept any more,
or gained a trigger. So the objects are compared with those that schema.sql makes, by their text
without comments and layout.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import apsw

from .connection import drain
from .schema import APPLICATION_ID, SCHEMA_VERSION, schema_text

Objects = dict[tuple[str, str], str]
"""The text of each object, by its kind and name."""

# A string, a name in quotes, a comment, or layout. Only the last two may differ.
_PIECES: Final = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|\s+|\w+|.", re.DOTALL)

_INCREMENTAL: Final = 2
# The journal mode is not among them: opening a file sets it, or refuses one that is not in WAL.
_SETTINGS: Final = {
    "application_id": APPLICATION_ID,
    "user_version": SCHEMA_VERSION,
    "encoding": "UTF-8",
    "auto_vacuum": _INCREMENTAL,
}


def faults(connection: apsw.Connection) -> Iterator[str]:
    """Yield how a file's schema and settings differ from what this release makes."""
    expected, found = _expected(), objects(connection)
    for kind, name in sorted(expected.keys() | found.keys()):
        wanted, text = expected.get((kind, name)), found.get((kind, name))
        if text is None:
            yield f"the {kind} {name} is not there"
        elif wanted is None:
            yield f"the {kind} {name} is none of sessiondb's"
        elif text != wanted:
            yield f"the {kind} {name} is not as schema.sql makes it"
    for name, due in _SETTINGS.items():
        value = connection.pragma(name)
        if value != due:
            yield f"its {name} is {value} instead of {due}"


def objects(connection: apsw.Connection) -> Objects:
    """Return the objects of a schema. Those that SQLite makes for itself have no text."""
    rows = drain(connection, "SELECT type, name, coalesce(sql, '') FROM sqlite_schema")
    return {(kind, name): normal(text) for kind, name, text in rows}


def normal(text: str) -> str:
    """Return the text of an object without comments and layout."""
    pieces = (piece for piece in _PIECES.findall(text) if not piece.startswith(("--", "/*")))
    return " ".join(piece for piece in pieces if not piece.isspace())


@functools.cache
def _expected() -> Objects:
    with closing(apsw.Connection(":memory:")) as connection:
        drain(connection, schema_text())
        return objects(connection)
