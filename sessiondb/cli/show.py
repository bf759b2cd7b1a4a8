"""Transcripts for people: `show` prints the current path, `tail` its end and new entries.

Everything in an entry was written by a person, a model or a tool, so all of it is escaped.
Long thinking, tool calls, tool results and summaries are shortened, unless `--full` is
given. A path is read in pages, each in its own short snapshot, so a pager may stand still
in the middle of a transcript for any time.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import click

from sessiondb import sync
from sessiondb.backend import ReadTx
from sessiondb.clock import pause
from sessiondb.limits import PAGE_ENTRIES_MAX, PAGE_ROWS, SEQ_MAX
from sessiondb.models import Entry
from sessiondb.paging import handed_on
from sessiondb.transcript.paths import (
    context_start,
    entry_number,
    require_readable,
    segments,
    session_of,
)
from sessiondb.transcript.pieces import Piece, entry_json, pieces_of, title_of, written_at_ms

from .program import (
    FOLLOW_S,
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    repeat_while_busy,
    session_argument,
)
from .session_ids import EntryNames, session_named
from .terminal import (
    at,
    cells,
    counted,
    cut,
    escape,
    escape_json,
    escape_lines,
    print_json_array,
    print_line,
    size,
    terminal_width,
    wrap,
)

# Lines that are shown of a tool's result, of thinking, of a summary.
RESULT_LINES, THINKING_LINES, SUMMARY_LINES = 4, 2, 12
CALL_CELLS = 160
BRANCHES_SHOWN_MAX = 1_000


# -- the text of an entry --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an entry as a terminal shows it: its mark, and how many lines a short form has."""

    text: str
    mark: str = ""
    lines_max: int | None = None


def parts_of(entry: Entry) -> Iterator[Part]:
    """Yield the parts of an entry's text, in order."""
    for piece in pieces_of(entry):
        part = _part(piece)
        yield replace(part, lines_max=RESULT_LINES) if piece.of_result else part


def _part(piece: Piece) -> Part:
    match piece.kind:
        case "thinking":
            return Part(piece.text, "thinking:", THINKING_LINES)
        case "call":
            return Part(f"{piece.name} {cut(piece.text, CALL_CELLS)}", "->")
        case "image" if piece.data is not None:
            return Part(f"[image {piece.name}, {size(piece.data_bytes)}]")
        case "image":
            return Part(f"[image {piece.text}]")
        case "other":
            return Part(f"[{piece.name}]" if piece.name else cut(piece.text, CALL_CELLS))
        case "summary":
            return Part(piece.text, lines_max=SUMMARY_LINES)
        case "command":
            return Part(piece.text, "$")
        case "error":
            return Part(piece.text, "!")
        case "damaged":
            return Part(piece.text, "damaged, run `sessiondb verify`:", RESULT_LINES)
        case _:
            return Part(piece.text)


# -- show ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Places on the path that a reader wants to see."""

    session_no: int
    start_no: int | None
    """Where the current context begins. None: at the root."""
    left_at: dict[int, int]
    """How many other branches leave the path at an entry, by its number."""


class Printer:
    """Prints entries, and the marks between them."""

    def __init__(self, landmarks: Landmarks, names: EntryNames, *, full: bool) -> None:
        self.landmarks = landmarks
        self.names = names
        self.full = full
        self.width = terminal_width()
        self._inside = landmarks.start_no is None
        self._last: Entry | None = None

    def entry(self, entry: Entry) -> None:
        """Print one entry."""
        self._between(entry)
        self._last = entry
        number = self.names(entry)
        time_shown = at(written_at_ms(entry))
        title = escape(title_of(entry))
        room = (self.width or 80) - len(time_shown) - 2
        left = cut(f"{number}  {title}", room) if self.width is not None else f"{number}  {title}"
        click.secho(left + " " * max(2, room + 2 - cells(left)) + time_shown, bold=True)
        for part in parts_of(entry):
            self._part(part)
        click.echo()

    def _part(self, part: Part) -> None:
        indent = "    " + (f"{part.mark} " if part.mark else "")
        text = escape_lines(part.text).strip("\n")
        if not text.strip():
            return
        room = self.width - cells(indent) if self.width is not None else None
        lines = list(wrap(text, max(room, 20) if room is not None else None))
        hidden = 0
        if part.lines_max is not None and not self.full and len(lines) > part.lines_max + 1:
            lines, hidden = lines[: part.lines_max], len(lines) - part.lines_max
        for index, line in enumerate(lines):
            click.echo(((indent if index == 0 else " " * cells(indent)) + line).rstrip())
        if hidden:
            click.echo(f"{' ' * cells(indent)}... {counted(hidden, 'more line')}")

    def _between(self, entry: Entry) -> None:
        """Print the marks that belong before an entry."""
        marks, last = self.landmarks, self._last
        self._branches_after(last)
        if last is not None and session_of(last.entry_no) != session_of(entry.entry_no):
            owner = (
                "this session's own"
                if session_of(entry.entry_no) == marks.session_no
                else "of a fork in between"
            )
            self._rule(f"forked here; what follows is {owner}")
        if not self._inside and marks.start_no is not None and entry.entry_no >= marks.start_no:
            self._inside = True
            self._rule("the current context begins here", "=")

    def finish(self) -> None:
        """Print the mark that belongs after the last entry."""
        self._branches_after(self._last)

    def _branches_after(self, entry: Entry | None) -> None:
        if entry is not None and (count := self.landmarks.left_at.get(entry.entry_no)):
            self._rule(f"{counted(count, 'other branch', 'other branches')} left here")

    def _rule(self, text: str, line: str = "-") -> None:
        click.echo(f"{line * 4} {text} ".ljust(self.width or 72, line))
        click.echo()


@command(
    examples=(
        "sessiondb show gateway.db agent:main:discord:channel:1",
        "sessiondb show gateway.db agent:main:discord:channel:1 --last 20 --full",
    ),
)
@database_argument
@session_argument
@click.option(
    "-n",
    "--last",
    metavar="N",
    type=click.IntRange(min=1, max=PAGE_ENTRIES_MAX),
    help="Only the last N entries of the path.",
)
@click.option("--full", is_flag=True, help="Do not shorten thinking, tool results and summaries.")
@json_option("Print a JSON array of entries, each with its stored text as `payload`.")
@debug_option
def show(db: str, session: str, last: int | None, full: bool, as_json: bool) -> None:
    """Print a transcript for people to read.

    Prints the current path, oldest entry first.
    """
    with look_into(db) as opened:
        chosen = session_named(opened, session)
        entries = _last(chosen, last) if last is not None else _path(chosen)
        if as_json:
            print_json_array(map(_shown_json, entries))
            return
        _print_header(chosen)
        printer = Printer(
            opened.read("show", lambda tx: _landmarks(tx, chosen.ref.session_no)),
            EntryNames(opened, chosen),
            full=full,
        )
        for entry in entries:
            printer.entry(entry)
        printer.finish()


def _path(session: sync.Session, after_no: int | None = None) -> Iterator[Entry]:
    while page := session.entries(after=after_no, limit=PAGE_ROWS):
        after_no = page[-1].entry_no
        yield from handed_on(page)


def _last(session: sync.Session, count: int) -> Iterator[Entry]:
    """Yield the last entries of the path, oldest first. Holds one page of them."""
    newest = session.entries(limit=count, newest_first=True)
    if len(newest) == count or not newest or newest[-1].parent_no is None:
        return handed_on(newest[::-1])
    # A page does not hold them. So the first is looked for, and then they are read forward.
    found, oldest = len(newest), newest[-1]
    while found < count and oldest.parent_no is not None:
        del newest
        newest = session.entries(before=oldest, limit=count - found, newest_first=True)
        found, oldest = found + len(newest), newest[-1]
    return itertools.islice(_path(session, oldest.parent_no), found)


def _print_header(session: sync.Session) -> None:
    info = session.info()
    tokens = f"{'' if info.tokens_fresh else 'about '}{info.context_tokens:,} tokens"
    counts = (
        f"{counted(info.entries, 'entry', 'entries')}, {counted(info.compactions, 'compaction')}"
    )
    facts = [
        f"session {info.session_id}",
        *(f"key     {key}" for key in info.keys),
        *([f"name    {info.name}"] if info.name else []),
        f"format  {info.format or 'not decided: its items fit several'}",
        *([f"fork of {info.forked_from}"] if info.forked_from else []),
        f"epoch {info.epoch}, {counts}, context of {tokens}"
        + (f", ended {at(info.ended_at_ms)}" if info.ended_at_ms is not None else ""),
    ]
    for fact in facts:
        print_line(escape(fact))
    click.echo()


def _landmarks(tx: ReadTx, session_no: int) -> Landmarks:
    """Find the places on the current path that get a mark, in one snapshot."""
    require_readable(tx, session_no)
    pointers = tx.first("context.pointers", session_no=session_no)
    assert pointers is not None, (
        "the session was found a moment ago, and sessions are never deleted"
    )
    path = segments(tx, pointers.head_no)
    on_path = {segment.branch_no for segment in path}
    left_at: dict[int, int] = {}
    for branch in tx.all("status.branches", session_no=session_no, limit=BRANCHES_SHOWN_MAX):
        if branch.fork_no is not None and branch.branch_no not in on_path:
            left_at[branch.fork_no] = left_at.get(branch.fork_no, 0) + 1
    for segment in path:
        # A branch can continue after the entry at which the path leaves it. The head was moved
        # back to that entry.
        if session_of(segment.high_no) == session_no:
            beyond = tx.first(
                "transcript.first_in_span",
                branch_no=segment.branch_no,
                low_no=segment.high_no + 1,
                high_no=entry_number(session_no, SEQ_MAX),
            )
            if beyond is not None:
                left_at[segment.high_no] = left_at.get(segment.high_no, 0) + 1
    return Landmarks(
        session_no, context_start(pointers.boundary_no, pointers.first_kept_no), left_at
    )


# -- tail ------------------------------------------------------------------------------------------


@command(
    examples=("sessiondb tail gateway.db agent:main:discord:channel:1 -n 5",),
)
@database_argument
@session_argument
@click.option(
    "-n",
    "--last",
    metavar="N",
    type=click.IntRange(min=0, max=PAGE_ENTRIES_MAX),
    default=20,
    show_default=True,
    help="Begin with this many entries.",
)
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Print new entries of any process until Ctrl-C.",
)
@json_option("Print one JSON object per line and entry, with its stored text as `payload`.")
@debug_option
def tail(db: str, session: str, last: int, follow: bool, as_json: bool) -> None:
    """Print the last entries, and follow new ones with -f.

    Each entry is one line. The last entries are those of the current path. New entries are
    printed in the order of their arrival, on all branches.
    """
    with look_into(db) as opened:
        chosen = session_named(opened, session)
        names = EntryNames(opened, chosen)
        # Read first. An entry that arrives between the two reads is printed by the loop below
        # only.
        seen = entry_number(chosen.ref.session_no, chosen.info().entries)
        for entry in _last(chosen, last) if last else ():
            if (
                session_of(entry.entry_no) != chosen.ref.session_no
                or entry.entry_no <= seen
                or not follow
            ):
                _print_line(entry, names, as_json=as_json)
        while follow:
            page = repeat_while_busy(
                functools.partial(chosen.all_entries, after=seen, limit=PAGE_ROWS)
            )
            if not page:
                pause(FOLLOW_S)
            for entry in handed_on(page):
                seen = entry.entry_no
                _print_line(entry, names, as_json=as_json)


def _print_line(entry: Entry, names: EntryNames, *, as_json: bool) -> None:
    if as_json:
        click.echo(_shown_json(entry))
    else:
        message = " ".join(f"{part.mark} {part.text}".strip() for part in parts_of(entry))
        role = entry.role or entry.type
        print_line(
            f"{names(entry):<6} {at(written_at_ms(entry))}  {escape(role)}: {escape(message)}"
        )
    sys.stdout.flush()


def _shown_json(entry: Entry) -> str:
    """Return an entry as JSON. On a terminal, the characters that it obeys are escaped."""
    return escape_json(entry_json(entry)) if sys.stdout.isatty() else entry_json(entry)
