"""`query`: the reader's own SQL, in the output formats of sqlite-utils, strictly read-only.

Which SQLite runs it? sqlite-utils would open the file for writing, with the SQLite of the
standard library. On many machines (Debian 12's 3.40 is one) that has the WAL-reset bug. So
the statement runs in sessiondb's own engine, on a read-only connection behind an
authorizer (`sqlite/user_query.py`). sqlite-utils gets the rows and formats them. Its module
is imported, but its SQLite never gets a file.

A snapshot keeps a gateway's WAL from being reset, and the reader of this output may be a
pager that stands still. So one thread writes the rows at full speed into an unlinked
temporary file, and another prints from it at the reader's pace. Memory stays small and the
first rows appear at once. The snapshot ends with the query, at the latest after
`--timeout`. A single function call that runs too long cannot be interrupted. It ends with
the process, `QUERY_STOP_S` later. Tables (`--table`, `--fmt`) need every row before the
first line can be laid out, and keep the rows in memory.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, BinaryIO

import click

from sessiondb import database
from sessiondb.clock import monotonic
from sessiondb.errors import InvalidInput
from sessiondb.limits import (
    QUERY_MEMORY_BYTES_MAX,
    QUERY_OUTPUT_BYTES_MAX,
    QUERY_STOP_S,
    QUERY_TABLE_ROWS_MAX,
    QUERY_TIMEOUT_S,
)

from .program import (
    BUSY,
    USAGE,
    Failure,
    FiniteRange,
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    refuse,
)
from .terminal import (
    GAP,
    Column,
    escape_json,
    escape_lines,
    print_bytes,
    table_lines,
    terminal_width,
)

CHUNK_BYTES = 64 * 1024


class Spool:
    """Bytes that one thread writes at its own speed and another reads at its own.

    `_changed` guards the three fields below it. No I/O happens under it: positions only
    grow, and the reader never reads past the position of the writer.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self._changed = threading.Condition()
        self._written = 0
        self._done = False
        self._unwanted = False

    def write(self, data: bytes) -> bool:
        """Add bytes. Return False when nobody will read them.

        Raises:
            InvalidInput: the output is longer than `QUERY_OUTPUT_BYTES_MAX`.
        """
        if self._written + len(data) > QUERY_OUTPUT_BYTES_MAX:
            raise InvalidInput(
                f"the output is longer than {QUERY_OUTPUT_BYTES_MAX:,} bytes. Query it in parts."
            )
        start = 0
        while start < len(data):
            start += os.pwrite(self._descriptor, data[start:], self._written + start)
        with self._changed:
            self._written += len(data)
            self._changed.notify()
            return not self._unwanted

    def finish(self) -> None:
        """Note that no more bytes will come."""
        with self._changed:
            self._done = True
            self._changed.notify()

    def abandon(self) -> None:
        """Note that nobody will read the rest."""
        with self._changed:
            self._unwanted = True

    def is_unwanted(self) -> bool:
        """Return whether the reader has gone."""
        return self._unwanted

    def read(self, give_up: float) -> Iterator[bytes]:
        """Yield bytes as they come, to the end.

        Raises:
            Failure: at `give_up`, by the monotonic clock, the writer is neither done nor
                ahead of the reader.
        """
        position = 0
        while True:
            with self._changed:
                while self._written <= position and not self._done:
                    if (
                        not self._changed.wait(max(0.0, give_up - monotonic()))
                        and monotonic() >= give_up
                    ):
                        raise Failure(
                            "query: it could not be stopped, because a single function call "
                            "takes this long. Narrow the query.",
                            BUSY,
                        )
                available = self._written
            while position < available:
                data = os.pread(self._descriptor, min(CHUNK_BYTES, available - position), position)
                position += len(data)
                yield data
            with self._changed:
                if self._done and position == self._written:
                    return


@command(
    examples=(
        "sessiondb query gateway.db 'select * from session_overview' --table",
        "sessiondb query gateway.db 'select * from inbox where state = :s' -p s dead",
    ),
)
@database_argument
@click.argument("sql", metavar="SQL")
@click.option(
    "-p",
    "--param",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="A parameter, named :NAME in the SQL.",
)
@click.option("--nl", is_flag=True, help="One JSON object per line.")
@click.option("--arrays", is_flag=True, help="JSON arrays instead of objects.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV.")
@click.option("--tsv", "as_tsv", is_flag=True, help="TSV.")
@click.option(
    "--no-headers", is_flag=True, help="CSV, TSV and tables without a line of column names."
)
@click.option(
    "-t", "--table", "as_table", is_flag=True, help="A table. On a terminal, cut to its width."
)
@click.option(
    "--fmt",
    metavar="FORMAT",
    help="A table in one of tabulate's formats, such as github or outline.",
)
@click.option("--json-cols", is_flag=True, help="Decode columns that hold JSON.")
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=FiniteRange(0, 86400, min_open=True),
    default=QUERY_TIMEOUT_S,
    show_default=True,
    help="Stop the query after this.",
)
@json_option("The default: a JSON array of objects.")
@debug_option
def query(
    db: str,
    sql: str,
    param: tuple[tuple[str, str], ...],
    timeout_s: float,
    as_json: bool,
    **shape: Any,
) -> None:
    """Run a read-only SQL query and print its rows."""
    chosen = [
        name for name in ("as_csv", "as_tsv", "as_table", "fmt", "nl", "arrays") if shape[name]
    ]
    fits = len(chosen) < 2 or set(chosen) in ({"nl", "arrays"}, {"as_table", "fmt"})
    if not fits or (as_json and set(chosen) - {"nl", "arrays"}):
        refuse("choose one output format.")
    # Opening it reports what is wrong with the file. An error's hint names its tables.
    with look_into(db) as opened:
        try:
            _run(db, sql, dict(param), timeout_s, shape)
        except InvalidInput as error:
            hint = ""
            if "no such table" in str(error):
                relations = opened.read("query.relations", lambda tx: tx.all("status.relations"))
                views = ", ".join(row.name for row in relations if row.type == "view")
                tables = ", ".join(row.name for row in relations if row.type == "table")
                hint = f"; the views are {views}, and the tables {tables}"
            raise Failure(f"query: {error}{hint}", USAGE) from error


def _run(
    db: str, sql: str, parameters: dict[str, str], timeout_s: float, shape: dict[str, Any]
) -> None:
    failed: list[BaseException] = []
    database.bound_query_memory(QUERY_MEMORY_BYTES_MAX)
    make_safe = _escaping(shape) if sys.stdout.isatty() else str

    def produce(spool: Spool) -> None:
        try:
            with database.query(
                db, sql, parameters, timeout_s=timeout_s, is_unwanted=spool.is_unwanted
            ) as (columns, rows):
                waiting = io.StringIO()
                for line in _lines(columns, rows, shape):
                    waiting.write(make_safe(line))
                    if waiting.tell() >= CHUNK_BYTES:
                        if not spool.write(waiting.getvalue().encode(errors="backslashreplace")):
                            return
                        waiting = io.StringIO()
                spool.write(waiting.getvalue().encode(errors="backslashreplace"))
        except BaseException as error:  # noqa: BLE001  # the other thread raises it
            failed.append(error)
        finally:
            spool.finish()

    with tempfile.TemporaryFile() as file:
        spool = Spool(file)
        thread = threading.Thread(
            target=produce, args=(spool,), name="sessiondb-query", daemon=True
        )
        thread.start()
        try:
            for data in spool.read(monotonic() + timeout_s + QUERY_STOP_S):
                print_bytes(data)
        finally:
            spool.abandon()
            thread.join(QUERY_STOP_S)  # a daemon: if it does not end, it ends with the process
    if failed:
        raise failed[0]


def _escaping(shape: dict[str, Any]) -> Callable[[str], str]:
    """Return the function that keeps a line from driving the terminal.

    JSON stays JSON. The other formats get visible escapes.
    """
    is_text = any(shape[name] for name in ("as_csv", "as_tsv", "as_table", "fmt"))
    return (
        (lambda line: escape_lines(line))
        if is_text
        else (lambda line: escape_json(line.rstrip("\n")) + "\n")
    )


def _lines(
    columns: list[str], rows: Iterator[tuple[Any, ...]], shape: dict[str, Any]
) -> Iterator[str]:
    """Yield the output, a line or more at a time."""
    if shape["as_csv"] or shape["as_tsv"]:
        yield from _separated(
            columns,
            rows,
            "excel-tab" if shape["as_tsv"] else "excel",
            with_headers=not shape["no_headers"],
        )
    elif shape["as_table"] or shape["fmt"]:
        width = terminal_width()
        if width is not None and not shape["fmt"]:
            width_min = min(4, max(1, width // len(columns) - GAP))
            lines = table_lines(
                [Column(column, cut="end", width_min=width_min) for column in columns],
                _all(rows),
                width,
            )
            yield from (
                line + "\n"
                for index, line in enumerate(lines)
                if index > 1 or not shape["no_headers"]
            )
        else:
            yield (
                _table(
                    columns, rows, shape["fmt"] or "simple", with_headers=not shape["no_headers"]
                )
                + "\n"
            )
    else:
        format_rows = _rows_formatter()
        for line in format_rows(rows, columns, shape["nl"], shape["arrays"], shape["json_cols"]):
            # For no rows, sqlite-utils yields an empty array. One object per line is then no line.
            if line != "[]" or not shape["nl"]:
                yield line + "\n"


def _rows_formatter() -> Callable[..., Iterator[str]]:
    """Return what makes JSON of rows, of sqlite-utils.

    Its command line reads docstrings when it is imported, and `python -OO` has none.
    """
    from sqlite_utils import recipes

    for recipe in vars(recipes).values():
        if isinstance(recipe, FunctionType) and recipe.__doc__ is None:
            recipe.__doc__ = ""
    from sqlite_utils import cli as sqlite_utils_cli

    formatter: Callable[..., Iterator[str]] = sqlite_utils_cli.output_rows
    return formatter


def _all(rows: Iterator[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return every row, for a table: a column is as wide as its widest cell."""
    found = list(itertools.islice(rows, QUERY_TABLE_ROWS_MAX + 1))
    if len(found) > QUERY_TABLE_ROWS_MAX:
        raise InvalidInput(
            f"a table holds at most {QUERY_TABLE_ROWS_MAX:,} rows. Narrow the query, or use "
            "--csv or --nl."
        )
    return found


def _separated(
    columns: list[str], rows: Iterator[tuple[Any, ...]], dialect: str, *, with_headers: bool
) -> Iterator[str]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, dialect=dialect)
    if with_headers:
        writer.writerow(columns)
    for row in rows:
        writer.writerow(row)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _table(
    columns: list[str], rows: Iterator[tuple[Any, ...]], fmt: str, *, with_headers: bool
) -> str:
    import tabulate

    if fmt not in tabulate.tabulate_formats:
        formats = ", ".join(tabulate.tabulate_formats)
        refuse(f"there is no table format {fmt!r}. Choose one of {formats}.")
    return tabulate.tabulate(_all(rows), headers=columns if with_headers else (), tablefmt=fmt)
