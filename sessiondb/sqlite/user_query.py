r"""SQL that a person wrote, run so that it can do no harm: for `sessiondb query` and `db.query`.

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
  stays within that bound. A gateway has other work in its process, so nothing bounds its
  memory. There (`answer`) values are smaller, columns are few, and the rows and bytes of
  the answer are counted. A sort spills into a temporary file, for as long as the time limit
  allows.

In a gateway the statement runs on a reader thread that no read of the gateway needs (`parts.py`).
So one that cannot be stopped occupies that thread, and nothing else.

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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from typing import Any

import apsw

from sessiondb.backend import SqlValue
from sessiondb.clock import monotonic
from sessiondb.errors import (
    InvalidInput,
    ReadTooLong,
    SessionDBError,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
)
from sessiondb.limits import (
    QUERY_ANSWER_BYTES_MAX,
    QUERY_ANSWER_S_MAX,
    QUERY_COLUMNS_MAX,
    QUERY_PATTERN_BYTES_MAX,
    QUERY_ROWS_MAX,
    QUERY_SQL_BYTES_MAX,
    QUERY_VALUE_BYTES_MAX,
    QUERY_VALUE_BYTES_MIN,
    duration_ms,
)
from sessiondb.models import QueryResult
from sessiondb.words import Cut

from .connection import connect_visitor, drain, when_unlocked
from .filesystem import refuse_second_place
from .permissions import refuse_planted
from .stray_wal import look_beside, refuse_lone_wal
from .transaction import SPOILING, Snapshot

# Steps of SQLite's machine between two reads of the clock: well under a millisecond.
STEPS_PER_LOOK = 10_000
# Waiting for the file: a process that recovers the WAL, or closes as the last one, locks it
# for milliseconds.
LOCKED_S_MAX = 2.0

Parameters = Mapping[str, SqlValue] | Sequence[SqlValue]
"""By name, or in order."""

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


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one statement may use, and what its caller does to allow more."""

    path: str
    timeout_s: float
    value_bytes_max: int
    to_allow_more_time: str
    to_allow_more_bytes: str
    is_closed: Callable[[], bool] = lambda: False


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
    bounds = Bounds(path, timeout_s, QUERY_VALUE_BYTES_MAX, "allow more with --timeout", "")
    connection = connect_visitor(path)
    try:
        if apsw.hard_heap_limit(-1):
            # In memory, where the limit holds. A temporary file would have none.
            drain(connection, "PRAGMA temp_store = memory")
        # One snapshot, in case the statement has to run twice. It ends with the connection.
        drain(connection, "BEGIN")
        give_up = monotonic() + timeout_s
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, bounds.value_bytes_max)
        with _only_reading(connection, lambda: is_unwanted() or monotonic() >= give_up):
            with _explained(sql, bounds):
                only, columns = when_unlocked(
                    lambda: _compile(connection, sql, parameters),
                    timeout_s=LOCKED_S_MAX,
                    what="querying",
                    path=path,
                )
            yield columns, _rows(connection, only, parameters, bounds, len(columns))
    finally:
        connection.close(True)


def answer(
    snapshot: Snapshot,
    sql: str,
    parameters: Sequence[SqlValue],
    bounds: Bounds,
    *,
    give_up: float,
    rows_max: int,
    bytes_max: int,
    allow_cut: bool,
) -> QueryResult:
    """Run one statement in a gateway's process, and return what it found.

    The body of a read. See `SessionDB.query`. `give_up` is by the monotonic clock.
    """
    if bounds.is_closed():
        raise _closed(bounds)
    if monotonic() >= give_up:
        raise not_begun(bounds.timeout_s)
    connection = snapshot.usable("query")
    for limit, value in (
        (apsw.SQLITE_LIMIT_LENGTH, bounds.value_bytes_max),
        (apsw.SQLITE_LIMIT_COLUMN, QUERY_COLUMNS_MAX),
        (apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, QUERY_PATTERN_BYTES_MAX),
        (apsw.SQLITE_LIMIT_SQL_LENGTH, QUERY_SQL_BYTES_MAX),
    ):
        connection.limit(limit, value)

    def must_end() -> bool:
        return bool(snapshot.interrupted) or bounds.is_closed() or monotonic() >= give_up

    try:
        with _only_reading(connection, must_end):
            with _explained(sql, bounds):
                only, columns = _compile(connection, sql, parameters)
            with closing(_rows(connection, only, parameters, bounds, len(columns))) as found:
                rows, cut = _take(found, rows_max, bytes_max)
    except SessionDBError as error:
        if isinstance(error.__cause__, SPOILING):
            snapshot.failure = error.__cause__
        raise
    if cut is not None and not (allow_cut and rows):
        raise _too_much(sql, cut, rows_max if cut == "rows" else bytes_max, len(rows))
    return QueryResult(tuple(columns), tuple(rows), cut)


def check(
    sql: object,
    parameters: Sequence[object],
    rows_max: object,
    bytes_max: object,
    timeout_s: object,
) -> None:
    """Refuse what can be no query in a gateway's process, before a thread is asked.

    Raises:
        InvalidInput: says which argument is what.
    """
    if not isinstance(sql, str):
        raise InvalidInput(f"query: the SQL is a {type(sql).__name__}, and must be a text")
    for number, value in enumerate(parameters, 1):
        if not isinstance(value, str | int | float | bytes | None):
            raise InvalidInput(
                f"query: parameter {number} is a {type(value).__name__}. One is a text, a number, "
                "bytes or None, and each `?` of the SQL takes one"
            )
    for name, given, most in (
        ("rows_max", rows_max, QUERY_ROWS_MAX),
        ("bytes_max", bytes_max, QUERY_ANSWER_BYTES_MAX),
        ("timeout_s", timeout_s, QUERY_ANSWER_S_MAX),
    ):
        if not isinstance(given, int | float) or not 0 < given <= most:
            raise InvalidInput(f"query: {name} is {given!r}. It is above 0 and at most {most:,}")


def answer_bounds(
    path: str, timeout_s: float, bytes_max: int, is_closed: Callable[[], bool]
) -> Bounds:
    """Return the bounds of a statement in a gateway's process.

    A value that an answer has no room for is not made either.
    """
    return Bounds(
        path,
        timeout_s,
        max(bytes_max, QUERY_VALUE_BYTES_MIN),
        "raise timeout_s",
        f", or raise bytes_max (at most {QUERY_ANSWER_BYTES_MAX:,})",
        is_closed,
    )


def not_begun(timeout_s: float) -> StoreBusy:
    """Return the error of a query that got no thread in its time."""
    return StoreBusy(
        f"query: it did not begin within its {timeout_s:g} s, because other queries ran, or the "
        "machine is busy. Retry.",
        retry_after_ms=duration_ms(timeout_s),
        holder="query",
    )


def unstoppable(sql: str, timeout_s: float) -> ReadTooLong:
    """Return the error of a query that goes on after it was told to stop."""
    return ReadTooLong(
        f"{_shown(sql)} could not be stopped after {timeout_s:g} s, because a single call of a "
        "function takes this long. Its thread goes on, and other queries wait for it. Narrow it."
    )


def _closed(bounds: Bounds) -> StoreClosed:
    return StoreClosed(
        f"{bounds.path}: the database was closed before the query had ended. Open it again.",
        path=bounds.path,
    )


def _shown(sql: str) -> str:
    return repr(sql.strip()[:60])


def _take(
    found: Iterator[tuple[Any, ...]], rows_max: int, bytes_max: int
) -> tuple[list[tuple[Any, ...]], Cut | None]:
    """Take the rows that an answer has room for, and the bound that ended it."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    for row in found:
        size += sum(map(_bytes_of, row))
        if size > bytes_max:
            return rows, "bytes"
        if len(rows) == rows_max:
            return rows, "rows"
        rows.append(row)
    return rows, None


def _bytes_of(value: SqlValue) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
    return len(value) if isinstance(value, bytes) else 8


def _too_much(sql: str, cut: Cut, most: int, fitting: int) -> InvalidInput:
    if cut == "rows":
        return InvalidInput(
            f"{_shown(sql)} has more than {most:,} rows (rows_max). Add a LIMIT or a WHERE, raise "
            "rows_max, or pass allow_cut=True to get those that fit."
        )
    if not fitting:
        return InvalidInput(
            f"{_shown(sql)}: its first row has more than {most:,} bytes (bytes_max). Select fewer "
            "columns, or raise bytes_max."
        )
    return InvalidInput(
        f"{_shown(sql)} has more than {most:,} bytes (bytes_max), after {fitting:,} rows. Select "
        "fewer columns or rows, raise bytes_max, or pass allow_cut=True to get those that fit."
    )


@contextmanager
def _only_reading(connection: apsw.Connection, must_end: Callable[[], bool]) -> Iterator[None]:
    """Let a connection run nothing but queries, and end what runs when it must."""
    connection.authorizer = _authorize
    connection.set_progress_handler(must_end, STEPS_PER_LOOK)
    try:
        yield
    finally:
        connection.set_progress_handler(None)
        connection.authorizer = None


def _query_info(connection: apsw.Connection, sql: str, parameters: Parameters) -> Any:
    from apsw import ext  # at the first query: it takes longer to import than the engine

    return ext.query_info(connection, sql, parameters)


def _compile(
    connection: apsw.Connection, sql: str, parameters: Parameters
) -> tuple[str, list[str]]:
    """Compile without running. Return the one statement and its columns."""
    found = _query_info(connection, sql, parameters)
    second = _COMMENT.sub("", found.query_remaining or "").strip(" \t\r\n;")[:40]
    if second:
        raise InvalidInput(
            f"one statement at a time. A second one begins at {second!r}. Run them one by one."
        )
    if not found.description:
        raise InvalidInput(f"{_shown(sql)} returns no rows. Only queries are run here.")
    return _without_semicolon(connection, sql, parameters), [
        column[0] for column in found.description
    ]


def _without_semicolon(connection: apsw.Connection, sql: str, parameters: Parameters) -> str:
    """Cut off a final semicolon and the comments after it.

    The rest still compiles, so the semicolon was not in a string.
    """
    at = len(sql)
    while (at := sql.rfind(";", 0, at)) >= 0:
        if _COMMENT.sub("", sql[at:]).strip(" \t\r\n;"):
            continue  # more than comments follow: this semicolon is in a comment or a string
        try:
            _query_info(connection, sql[:at], parameters)
        except apsw.SQLError:
            continue
        return _without_semicolon(connection, sql[:at], parameters)
    return sql


def _rows(
    connection: apsw.Connection, sql: str, parameters: Parameters, bounds: Bounds, count: int
) -> Generator[tuple[Any, ...]]:
    # No statement of a person's displaces one of ours from the connection's cache.
    cursor = connection.cursor()
    with _explained(sql, bounds), closing(cursor):
        done = 0
        try:
            for row in cursor.execute(sql, parameters, can_cache=False):
                yield row
                done += 1
        except UnicodeDecodeError:
            # The same snapshot and the same table expression, read once, so the rows come in
            # the same order.
            again = cursor.execute(_with_text_as_bytes(sql, count), parameters, can_cache=False)
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
def _explained(sql: str, bounds: Bounds) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except (apsw.AuthError, apsw.ReadOnlyError) as error:
        raise InvalidInput(
            f"{_shown(sql)} does more than read. Only queries are run here. "
            "Use the API to change things."
        ) from error
    except apsw.InterruptError as error:
        if bounds.is_closed():
            raise _closed(bounds) from error
        raise ReadTooLong(
            f"the query was stopped after {bounds.timeout_s:g} s, because its snapshot keeps the "
            f"WAL from being reset. Narrow it, or {bounds.to_allow_more_time}."
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreBusy(
            "the database is locked by a process that is closing or recovering it. Retry.",
            retry_after_ms=1_000,
        ) from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.IOError) as error:
        raise StoreDamaged(
            f"{bounds.path}: the file cannot be read: {error}. Keep it as it is, and run "
            f"`sessiondb salvage {bounds.path} NEW`, or restore a backup."
        ) from error
    except (apsw.NoMemError, apsw.TooBigError, MemoryError) as error:
        raise InvalidInput(
            f"{_shown(sql)} needs more memory than a query may have, or a value of more "
            f"than {bounds.value_bytes_max:,} bytes. Narrow it{bounds.to_allow_more_bytes}."
        ) from error
    except (apsw.Error, KeyError, UnicodeEncodeError, OverflowError, ValueError) as error:
        raise InvalidInput(f"SQLite does not accept {_shown(sql)}: {error}") from error
