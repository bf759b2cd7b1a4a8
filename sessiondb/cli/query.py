"""`query`: SQL of one's own, in the output formats of sqlite-utils, without any chance to write.

Which SQLite? sqlite-utils would open the file with the standard library's, which on many machines (Debian 12's 3.40
among them) has the WAL-reset bug, and would open it for writing. So the statement runs in sessiondb's own engine, on a
read-only connection behind an authorizer (`sqlite/user_query.py`), and sqlite-utils gets the rows and does what it is good
at: formatting them. Its module is imported, its SQLite is never given a file.

A snapshot keeps a gateway's WAL from being reset, and the reader of this output may be a pager that stands still.
So one thread takes the rows at full speed into an unlinked temporary file, and another prints from it at the reader's
own pace; memory stays small, the first rows appear at once, and the snapshot ends when the query does, at the latest
after `--timeout`. What neither can interrupt, one function call that goes on and on, ends with the process a little later.
Tables (`--table`, `--fmt`) need every row before the first line can be laid out, and keep them in memory.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import click

from sessiondb import database
from sessiondb.errors import InvalidInput
from sessiondb.limits import (
    QUERY_MEMORY_BYTES_MAX,
    QUERY_OUTPUT_BYTES_MAX,
    QUERY_STOP_S,
    QUERY_TABLE_ROWS_MAX,
)

from .program import (
    BUSY,
    USAGE,
    Failure,
    FiniteRange,
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

    `_changed` guards the three numbers below it. No I/O happens under it: positions only grow, and the
    reader never reads past what has been written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self._changed = threading.Condition()
        self._written = 0
        self._done = False
        self._unwanted = False

    def write(self, data: bytes) -> bool:
        """Add bytes; False when nobody will read them.

        Raises:
            InvalidInput: there are too many.
        """
        if self._written + len(data) > QUERY_OUTPUT_BYTES_MAX:
            raise InvalidInput(
                f"the output is longer than {QUERY_OUTPUT_BYTES_MAX:,} bytes; ask for it in parts"
            )
        start = 0
        while start < len(data):
            start += os.pwrite(self._descriptor, data[start:], self._written + start)
        with self._changed:
            self._written += len(data)
            self._changed.notify()
            return not self._unwanted

    def finish(self) -> None:
        """No more bytes will come."""
        with self._changed:
            self._done = True
            self._changed.notify()

    def abandon(self) -> None:
        """Nobody will read the rest."""
        with self._changed:
            self._unwanted = True

    def is_unwanted(self) -> bool:
        """Tell whether the reader has gone."""
        return self._unwanted

    def read(self, give_up: float) -> Iterator[bytes]:
        """Yield bytes as they come, to the end.

        Raises:
            Failure: the writer has added nothing more and is not done at `give_up`, by the monotonic clock.
        """
        position = 0
        while True:
            with self._changed:
                while self._written <= position and not self._done:
                    if (
                        not self._changed.wait(max(0.0, give_up - time.monotonic()))
                        and time.monotonic() >= give_up
                    ):
                        raise Failure(
                            "query: it could not be stopped: a single function of it takes this long. Narrow it.",
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


@click.command()
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
@click.option("--nl", is_flag=True, help="One JSON object a line.")
@click.option("--arrays", is_flag=True, help="JSON arrays instead of objects.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV.")
@click.option("--tsv", "as_tsv", is_flag=True, help="TSV.")
@click.option(
    "--no-headers", is_flag=True, help="CSV, TSV and tables without a line of column names."
)
@click.option(
    "-t", "--table", "as_table", is_flag=True, help="A table; on a terminal, cut to fit it."
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
    type=FiniteRange(0, 86400, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds allowed.",
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
    """Run a read-only SQL query and print its rows.

    \b
    sessiondb query gateway.db 'select * from session_overview' --table
    sessiondb query gateway.db "select * from transcript where session_id = :s" -p s 0199...
    """  # noqa: D301  # click's mark for lines that must not be wrapped is the backspace, not its escape
    chosen = [
        name for name in ("as_csv", "as_tsv", "as_table", "fmt", "nl", "arrays") if shape[name]
    ]
    fits = len(chosen) < 2 or set(chosen) in ({"nl", "arrays"}, {"as_table", "fmt"})
    if not fits or (as_json and set(chosen) - {"nl", "arrays"}):
        refuse("choose one output format.")
    with look_into(
        db
    ) as opened:  # says what is wrong with the file, and knows the names for an error's help
        try:
            _run(db, sql, dict(param), timeout_s, shape)
        except InvalidInput as error:
            hint = ""
            if "no such table" in str(error):
                relations = opened.read("query.relations", lambda tx: tx.all("status.relations"))
                hint = (
                    f"; the views are {', '.join(row.name for row in relations if row.type == 'view')}, and the tables "
                    + ", ".join(row.name for row in relations if row.type == "table")
                )
            raise Failure(f"query: {error}{hint}", USAGE) from error


def _run(
    db: str, sql: str, parameters: dict[str, str], timeout_s: float, shape: dict[str, Any]
) -> None:
    failed: list[BaseException] = []
    database.bound_query_memory(QUERY_MEMORY_BYTES_MAX)
    made_safe = _made_safe(shape) if sys.stdout.isatty() else str

    def produce(spool: Spool) -> None:
        try:
            with database.query(
                db, sql, parameters, timeout_s=timeout_s, is_unwanted=spool.is_unwanted
            ) as (columns, rows):
                waiting = io.StringIO()
                for line in _lines(columns, rows, shape):
                    waiting.write(made_safe(line))
                    if waiting.tell() >= CHUNK_BYTES:
                        if not spool.write(waiting.getvalue().encode(errors="backslashreplace")):
                            return
                        waiting = io.StringIO()
                spool.write(waiting.getvalue().encode(errors="backslashreplace"))
        except BaseException as error:  # noqa: BLE001  # handed to the other thread, which raises it
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
            for data in spool.read(time.monotonic() + timeout_s + QUERY_STOP_S):
                print_bytes(data)
        finally:
            spool.abandon()
            thread.join(QUERY_STOP_S)  # a daemon: one that does not come back ends with the process
    if failed:
        raise failed[0]


def _made_safe(shape: dict[str, Any]) -> Callable[[str], str]:
    """Return what keeps a line from driving the terminal: JSON stays JSON, the rest gets visible escapes."""
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
        from sqlite_utils import cli as sqlite_utils_cli

        format_rows: Callable[..., Iterator[str]] = sqlite_utils_cli.output_rows

        for line in format_rows(rows, columns, shape["nl"], shape["arrays"], shape["json_cols"]):
            # Of no rows sqlite-utils makes an empty array; one object a line of no rows is no line.
            if line != "[]" or not shape["nl"]:
                yield line + "\n"


def _all(rows: Iterator[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return every row, for a table: its columns are as wide as the widest of them."""
    found = list(itertools.islice(rows, QUERY_TABLE_ROWS_MAX + 1))
    if len(found) > QUERY_TABLE_ROWS_MAX:
        raise InvalidInput(
            f"a table holds at most {QUERY_TABLE_ROWS_MAX:,} rows; narrow the query, or ask for --csv or --nl"
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
        refuse(f"there is no table format {fmt!r}; one of {', '.join(tabulate.tabulate_formats)}.")
    return tabulate.tabulate(_all(rows), headers=columns if with_headers else (), tablefmt=fmt)
