r"""SQL that a person typed, run so that it can do no harm: for `sessiondb query`.

Three dangers, and the defence against each:

* **Changing something.** The connection is a visitor's (`query_only`, never checkpoints).
  An authorizer allows reading, functions and the pragmas that only show something.
  Everything else is refused while the statement is compiled, including ATTACH, temporary
  tables and the loading of extensions. One statement runs, not a script.
* **Disturbing a live gateway.** A snapshot keeps the WAL from being reset. So a statement
  has a time limit, enforced while it runs, and the reader of the rows must not let a slow
  consumer (a pager) delay them. A single function call cannot be interrupted. Values are
  bounded in size, and the command line ends the process when that is not enough.
* **Filling the machine.** A value has a largest size. The command line also calls
  `bound_memory`, which bounds the memory of SQLite in the whole process. Sorting then
  stays within that bound.

The rows come from apsw's SQLite. The standard library's SQLite has the WAL-reset bug on
many machines, and it must never meet a file that is open through apsw in the same
process. sqlite-utils, which formats the rows, opens nothing.

Text that is not Unicode. A transcript can hold half an emoji (a JSON escape such as
\ud83d, from a text that was cut), and a damaged line can hold any bytes. SQLite returns
both as they are, and apsw refuses to make a string of them. Then the statement runs once
more, in the same snapshot, with every text as bytes (`user_query.sql`), and continues at
the row that failed. This is the one place where a statement is put together: the
person's own, inside one of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from itertools import islice
from typing import Any

import apsw
import apsw.ext

from sessiondb.clock import monotonic
from sessiondb.errors import InvalidInput, ReadTooLong, StoreBusy, StoreDamaged
from sessiondb.limits import MIB, QUERY_VALUE_BYTES_MAX

from .connection import connect_visitor, drain, when_unlocked
from .filesystem import refuse_second_place
from .permissions import refuse_planted
from .stray_wal import look_beside, refuse_lone_wal

# Steps of SQLite's machine between two reads of the clock: well under a millisecond.
STEPS_PER_LOOK = 10_000
# Waiting for the file: a process that recovers the WAL, or closes as the last one, locks it
# for milliseconds.
LOCKED_S_MAX = 2.0

_COMMENT = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)

_READING = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_RECURSIVE}
# Pragmas that only show something, also with an argument: it names a table, an index or a
# number of errors.
_SHOWING = frozenset(
    {
        "application_id",
        "collation_list",
        "compile_options",
        "data_version",
        "database_list",
        "encoding",
        "foreign_key_check",
        "foreign_key_list",
        "freelist_count",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "module_list",
        "page_count",
        "page_size",
        "pragma_list",
        "quick_check",
        "schema_version",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
    }
)
# Of these pragmas, the ones that an argument would set.
_SETTABLE = frozenset({"application_id", "encoding", "page_size", "schema_version", "user_version"})
# Functions that do more than compute. SQLite's shell has some of them, and apsw's SQLite
# has none. A host program may add its own.
_FORBIDDEN_FUNCTIONS = frozenset(
    {"edit", "fts3_tokenizer", "load_extension", "readfile", "sqlite_log", "writefile"}
)


def bound_memory(limit_bytes: int) -> None:
    """Bound the memory of SQLite in this process, all connections together.

    For a program that is the only one in its process.
    """
    apsw.hard_heap_limit(limit_bytes)


def versions() -> dict[str, str]:
    """Return the versions of the driver and of its SQLite."""
    return {"apsw": apsw.apsw_version(), "SQLite": apsw.sqlite_lib_version()}


@contextmanager
def query(
    path: str,
    sql: str,
    parameters: Mapping[str, str],
    *,
    timeout_s: float,
    is_unwanted: Callable[[], bool],
) -> Iterator[tuple[list[str], Iterator[tuple[Any, ...]]]]:
    """Compile one statement, and yield its columns and its rows. See `sessiondb.database.query`."""
    refuse_planted(path, path)
    refuse_second_place(path)
    refuse_lone_wal(path)
    look_beside(path)
    connection = connect_visitor(path)
    try:
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, QUERY_VALUE_BYTES_MAX)
        if apsw.hard_heap_limit(-1):
            # In memory, where the limit holds. A temporary file would have none.
            drain(connection, "PRAGMA temp_store = memory")
        # One snapshot, in case the statement has to run twice. It ends with the connection.
        drain(connection, "BEGIN")
        connection.authorizer = _authorize
        give_up = monotonic() + timeout_s
        connection.set_progress_handler(
            lambda: is_unwanted() or monotonic() >= give_up, STEPS_PER_LOOK
        )
        with _explained(path, sql, timeout_s):
            only, columns = when_unlocked(
                lambda: _compile(connection, sql, parameters),
                timeout_s=LOCKED_S_MAX,
                what="querying",
                path=path,
            )
        yield columns, _rows(connection, only, parameters, timeout_s, len(columns))
    finally:
        connection.close(True)


def _compile(
    connection: apsw.Connection, sql: str, parameters: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Compile without running. Return the one statement and its columns."""
    found = apsw.ext.query_info(connection, sql, dict(parameters))
    second = _COMMENT.sub("", found.query_remaining or "").strip(" \t\r\n;")[:40]
    if second:
        raise InvalidInput(
            f"one statement at a time. A second one begins at {second!r}. Run them one by one."
        )
    if not found.description:
        raise InvalidInput(f"{sql.strip()[:60]!r} returns no rows. Only queries are run here.")
    return _without_semicolon(connection, sql, parameters), [
        column[0] for column in found.description
    ]


def _without_semicolon(connection: apsw.Connection, sql: str, parameters: Mapping[str, str]) -> str:
    """Cut off a final semicolon and the comments after it.

    The rest still compiles, so the semicolon was not in a string.
    """
    at = len(sql)
    while (at := sql.rfind(";", 0, at)) >= 0:
        if _COMMENT.sub("", sql[at:]).strip(" \t\r\n;"):
            continue  # more than comments follow: this semicolon is in a comment or a string
        try:
            apsw.ext.query_info(connection, sql[:at], dict(parameters))
        except apsw.SQLError:
            continue
        return _without_semicolon(connection, sql[:at], parameters)
    return sql


def _rows(
    connection: apsw.Connection,
    sql: str,
    parameters: Mapping[str, str],
    timeout_s: float,
    count: int,
) -> Iterator[tuple[Any, ...]]:
    with _explained(connection.filename, sql, timeout_s):
        done = 0
        try:
            for row in connection.execute(sql, dict(parameters)):
                yield row
                done += 1
        except UnicodeDecodeError:
            # The same snapshot and the same table expression, read once, so the rows come in
            # the same order.
            again = connection.execute(_with_text_as_bytes(sql, count), dict(parameters))
            yield from map(_decoded, islice(again, done, None))


def _with_text_as_bytes(sql: str, count: int) -> str:
    template = (resources.files("sessiondb.sqlite") / "user_query.sql").read_text(encoding="utf-8")
    names = [f"c{number}" for number in range(count)]
    values = [
        f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END, typeof({name})"
        for name in names
    ]
    statement = "".join(
        line for line in template.splitlines(keepends=True) if not line.startswith("--")
    )
    return statement.format(names=", ".join(names), values=", ".join(values), statement=sql)


def _decoded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Join values with their types again."""
    return tuple(
        _text_of(value) if kind == "text" else value
        for value, kind in zip(row[::2], row[1::2], strict=True)
    )


def _text_of(value: bytes) -> str:
    try:
        return value.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return value.decode(errors="backslashreplace")


def _authorize(
    operation: int,
    first: str | None,
    second: str | None,
    _database: str | None,
    _trigger: str | None,
) -> int:
    """Allow what reads. Anything unknown is refused."""
    if operation in _READING:
        return apsw.SQLITE_OK
    if operation == apsw.SQLITE_FUNCTION:
        return (
            apsw.SQLITE_DENY if (second or "").lower() in _FORBIDDEN_FUNCTIONS else apsw.SQLITE_OK
        )
    if operation == apsw.SQLITE_PRAGMA:
        name = (first or "").lower()
        return (
            apsw.SQLITE_OK
            if name in _SHOWING and (second is None or name not in _SETTABLE)
            else apsw.SQLITE_DENY
        )
    return apsw.SQLITE_DENY


@contextmanager
def _explained(path: str, sql: str, timeout_s: float) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except (apsw.AuthError, apsw.ReadOnlyError) as error:
        raise InvalidInput(
            f"{sql.strip()[:60]!r} does more than read. Only queries are run here. "
            "Use the API to change things."
        ) from error
    except apsw.InterruptError as error:
        raise ReadTooLong(
            f"the query was stopped after {timeout_s:g} s, because its snapshot keeps the WAL "
            "from being reset. Narrow it, or allow more with --timeout."
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreBusy(
            "the database is locked by a process that is closing or recovering it. Retry.",
            retry_after_ms=1_000,
        ) from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.IOError) as error:
        raise StoreDamaged(
            f"{path}: the file cannot be read: {error}. Keep it as it is, and run "
            f"`sessiondb salvage {path} NEW`, or restore a backup."
        ) from error
    except (apsw.NoMemError, apsw.TooBigError, MemoryError) as error:
        raise InvalidInput(
            f"{sql.strip()[:60]!r} needs more memory than a query may have, or a value of more "
            f"than {QUERY_VALUE_BYTES_MAX // MIB} MiB. Narrow it."
        ) from error
    except (apsw.Error, KeyError, UnicodeEncodeError) as error:
        raise InvalidInput(f"SQLite does not accept {sql.strip()[:60]!r}: {error}") from error
