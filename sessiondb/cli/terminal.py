"""Output: text that cannot harm a terminal, tables that fit one, times, and JSON for programs.

On a terminal a table is fitted to its width: columns that may be cut become narrower, the
widest first. Output to a file or a pipe is neither cut nor coloured, because a program or a
search reads it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import click

GAP = 2
CUT_MARK = "\u2026"

# C0, DEL and C1 controls drive a terminal. Bidirectional marks reorder the text. Line
# separators and lone surrogates break lines and encoders. A transcript is written by
# strangers, so all of them are shown as escapes.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
_UNSAFE_IN_LINES = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
_JSON_SPACE = {ord(char): " " for char in "\t\r\n"}
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    """Return text as one line that a terminal shows and does not obey."""
    return _UNSAFE.sub(_escaped, text)


def escape_lines(text: str) -> str:
    """Return text that a terminal shows and does not obey. Lines stay, tabs become spaces."""
    return _UNSAFE_IN_LINES.sub(_escaped, text.replace("\r\n", "\n")).expandtabs(4)


def escape_json(text: str) -> str:
    """Return the same JSON as one line, with every character that a terminal obeys escaped."""
    # A JSON string cannot hold a bare tab or line end, so these are between values.
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text.translate(_JSON_SPACE))


def naming(text: str, db: str) -> str:
    """Return text whose commands name the database, so that they can be copied."""
    path = shlex.quote(db)
    return re.sub(r"(sessiondb [\w-]+) DB\b", lambda match: f"{match[1]} {path}", text)


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return _SHORT.get(char) or (
        f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"
    )


# -- width -----------------------------------------------------------------------------------------


def terminal_width() -> int | None:
    """Return the columns of the terminal. None when the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def cells(text: str) -> int:
    """Count the terminal cells of one line.

    Most characters take one, East Asian wide ones two, and combining marks none.
    """
    if text.isascii():
        return len(text)
    return sum(_cells_of(char) for char in text)


def _cells_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def head_of(text: str, width: int) -> str:
    """Return as many characters from the front as fit."""
    used = 0
    for index, char in enumerate(text):
        used += _cells_of(char)
        if used > width:
            return text[:index]
    return text


def cut(text: str, width: int, where: Literal["end", "middle", "prefix"] = "end") -> str:
    """Shorten a line to a width. A prefix gets no mark, so that it can be copied and used."""
    if cells(text) <= width:
        return text
    if where == "prefix" or width < 3:
        return head_of(text, width)
    if where == "end":
        return head_of(text, width - 1) + CUT_MARK
    back = (width - 1) // 2
    return head_of(text, width - 1 - back) + CUT_MARK + head_of(text[::-1], back)[::-1]


def print_line(text: str) -> None:
    """Print one line: cut to the terminal's width, or whole if the output goes elsewhere."""
    width = terminal_width()
    click.echo(cut(text, width) if width is not None else text)


def say(text: str, *, quiet: bool) -> None:
    """Print what a command did, unless its JSON says so. A terminal gets whole words."""
    if not quiet:
        for line in wrap(text, terminal_width()):
            click.echo(line)


def wrap(text: str, width: int | None) -> Iterator[str]:
    """Break text into lines. Long words are cut, indents kept.

    Without a width, text is broken at its own line ends only.
    """
    for line in text.split("\n"):
        if width is None or cells(line) <= width:
            yield line.rstrip()
        else:
            yield from _wrap_line(line, width)


def _wrap_line(line: str, width: int) -> Iterator[str]:
    indent = line[: len(line) - len(line.lstrip())][: width // 2]
    current = indent
    for word in line.split():
        joined = f"{current} {word}" if current.strip() else current + word
        if cells(joined) <= width:
            current = joined
            continue
        if current.strip():
            yield current
        current = indent + word
        while cells(current) > width:
            piece = head_of(current, width)
            yield piece
            current = indent + current[len(piece) :]
    yield current


# -- tables ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and how it shrinks on a narrow terminal."""

    title: str
    align: Literal["left", "right"] = "left"
    cut: Literal["end", "middle", "prefix"] | None = None
    width_min: int = 8
    shorts: Mapping[str, str] | None = None
    """Not None: what a cell shows instead where it does not fit, so that it still names it."""
    spare: int = 0
    """Columns are left out when even the narrowest table is too wide, the highest number first.

    A column with 0 always stays.
    """


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print a table. On a terminal, fit it to the width.

    Cells are measured as a terminal shows them, East Asian text included.
    """
    if not rows:
        click.echo(empty, err=True)
        return
    for line in table_lines(columns, rows, terminal_width()):
        click.echo(line)


def table_lines(
    columns: Sequence[Column], rows: Sequence[Sequence[object]], width: int | None
) -> Iterator[str]:
    """Yield the lines of a table. Without a width, nothing is cut."""
    texts = [["" if value is None else escape(str(value)) for value in row] for row in rows]
    if width is not None:
        columns, texts = _without_spare(columns, texts, width)
    widths = [
        max([cells(column.title), *(cells(row[index]) for row in texts)])
        for index, column in enumerate(columns)
    ]
    if width is not None:
        least = [
            _narrowest(column, (row[index] for row in texts))
            for index, column in enumerate(columns)
        ]
        widths = fit(columns, widths, least, width)
    for row in ([column.title for column in columns], ["-" * width for width in widths], *texts):
        shown = (
            _padded(_cut_cell(text, widths[i], columns[i]), widths[i], columns[i].align)
            for i, text in enumerate(row)
        )
        yield (" " * GAP).join(shown).rstrip()


def _cut_cell(text: str, width: int, column: Column) -> str:
    if cells(text) > width and column.shorts is not None:
        return cut(escape(column.shorts.get(text, text)), width, "prefix")
    return cut(text, width, column.cut or "end")


def _narrowest(column: Column, texts: Iterable[str]) -> int:
    """Return the width that a column keeps at least."""
    texts = [column.title, *texts]
    widest = max(map(cells, texts))
    if column.shorts is not None:
        return max(cells(column.shorts.get(text, column.title)) for text in texts)
    return min(widest, column.width_min) if column.cut else widest


def _without_spare(
    columns: Sequence[Column], rows: list[list[str]], width: int
) -> tuple[Sequence[Column], list[list[str]]]:
    """Leave out the least important columns until the rest fits, each at its narrowest."""
    while True:
        narrowest = GAP * (len(columns) - 1)
        for index, column in enumerate(columns):
            narrowest += _narrowest(column, (row[index] for row in rows))
        least = max(range(len(columns)), key=lambda i: columns[i].spare)
        if narrowest <= width or columns[least].spare == 0:
            return columns, rows
        columns = [column for index, column in enumerate(columns) if index != least]
        rows = [[text for index, text in enumerate(row) if index != least] for row in rows]


def _padded(text: str, width: int, align: str) -> str:
    padding = " " * (width - cells(text))
    return padding + text if align == "right" else text + padding


def fit(columns: Sequence[Column], widths: list[int], least: list[int], width: int) -> list[int]:
    """Narrow columns until the table fits, none below its least.

    Ids come first, because what is left still names them. Then the widest column is next.
    """
    widths = list(widths)
    for _ in range(sum(widths) + GAP * (len(columns) - 1) - width):
        giving = [i for i in range(len(columns)) if widths[i] > least[i]]
        if not giving:
            break
        widths[max(giving, key=lambda i: (columns[i].shorts is not None, widths[i]))] -= 1
    return widths


# -- values ----------------------------------------------------------------------------------------


def at(ms: int | None) -> str:
    """Show a time: UTC, to the second.

    A file can hold a time that no calendar has. Such a time is shown in milliseconds.
    """
    try:
        return (
            datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
            if ms is not None
            else ""
        )
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def duration(ms: float) -> str:
    """Show a length of time with its two largest units."""
    if abs(ms) < 1000:
        return f"{abs(ms):.0f} ms"
    seconds = round(abs(ms) / 1000)
    for size, unit, smaller, lesser in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {lesser}" if rest else "")
    return f"{seconds} s"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Show a number of things."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size(count: int) -> str:
    """Show a number of bytes."""
    value, units = float(count), ("B", "KiB", "MiB", "GiB", "TiB")
    index = 0
    while value >= 1024 and index < len(units) - 1:
        value, index = value / 1024, index + 1
    return f"{count} B" if index == 0 else f"{value:.1f} {units[index]}"


# -- bytes -----------------------------------------------------------------------------------------


def print_bytes(data: bytes) -> None:
    """Write all bytes to standard output.

    Under `python -u` the stream is a bare descriptor. It writes as much as fits into a pipe
    and returns that number. Only the next write reports that the reader has gone.
    """
    left = memoryview(data)
    while left:
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.buffer.flush()


# -- JSON ------------------------------------------------------------------------------------------


def as_record(value: Any) -> Any:
    """Turn a frozen record into a dict, for JSON."""
    return (
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
    )


def to_json(value: Any) -> str:
    """Encode a record on one line, without a character that a terminal obeys."""
    return escape_json(json.dumps(as_record(value), ensure_ascii=False, default=str))


def print_json(value: Any) -> None:
    """Print one JSON document, without a character that a terminal obeys."""
    for line in json.dumps(as_record(value), ensure_ascii=False, indent=2, default=str).split("\n"):
        click.echo(escape_json(line))


def print_json_array(items: Iterable[str]) -> None:
    """Print one JSON array, one item per line, as the items come."""
    opened = False
    for item in items:
        click.echo((",\n " if opened else "[") + item, nl=False)
        opened = True
    click.echo("]" if opened else "[]")
