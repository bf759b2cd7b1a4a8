"""The command for a damaged file: salvage."""

from __future__ import annotations

import sys

import click

from sessiondb import database
from sessiondb.errors import SessionDBError
from sessiondb.salvage.report import SalvageReport

from .program import (
    OK,
    PROBLEMS,
    USAGE,
    Failure,
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    on_interrupt,
)
from .session_ids import session_column
from .terminal import (
    Column,
    as_record,
    counted,
    escape,
    print_json,
    print_table,
    size,
    terminal_width,
    wrap,
)

COULD_NOT_START = USAGE
# Lines that are listed one by one. --json has more.
SHOWN = 20


@command(
    short_help="Salvage what can be read of a damaged file.",
    examples=("sessiondb salvage gateway.db salvaged.db",),
)
@database_argument
@click.argument("new", metavar="NEW")
@click.option(
    "--without-wal",
    is_flag=True,
    help="Leave out the -wal beside DB, because it is another database's.",
)
@json_option()
@debug_option
def salvage(db: str, new: str, without_wal: bool, as_json: bool) -> int:
    """Salvage the damaged file DB into the new database NEW, and report what is missing.

    Stop the gateway first. DB is read page by page and never written, so it may be damaged
    anywhere. NEW appears when it is complete and verified. A lost entry is replaced by a mark.
    Exit codes: 0 everything was salvaged, 1 something is missing or was changed, 2 the salvage
    could not start and NEW was not created.
    """
    on_interrupt(lambda: f"{new} was not created, and {db} was not changed. Start it again.")
    try:
        report = database.salvage(db, new, use_wal=not without_wal, progress=_print_step)
    except (SessionDBError, OSError) as error:
        raise Failure(str(error), COULD_NOT_START) from error
    if as_json:
        print_json(
            {
                **as_record(report),
                "missing_entries": report.missing_entries,
                "complete": report.complete,
            }
        )
    else:
        _print(report)
    return OK if report.complete else PROBLEMS


def _print_step(name: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"sessiondb: {escape(name)} ...", err=True)


def _print(report: SalvageReport) -> None:
    wal = (
        f"{report.wal} ({counted(report.wal_frames, 'page')})" if report.wal_frames else report.wal
    )
    click.echo(f"{counted(report.pages, 'page')} of {size(report.page_size)}, WAL: {wal}")
    columns = [
        Column("table"),
        *(
            Column(name, "right")
            for name in ("found", "expected", "broken", "left out", "recreated")
        ),
    ]
    rows: list[list[object]] = []
    for table in report.tables:
        expected = "" if table.expected is None else f"{table.expected:,}"
        rows.append(
            [
                table.table,
                f"{table.found:,}",
                expected,
                *map(_some, (table.broken, table.left_out, table.created)),
            ]
        )
    print_table(columns, rows, empty="no rows")
    _print_sessions(report)
    pages = counted(len({spot.page for spot in report.unreadable}), "page")
    lines = [
        f"page {spot.page}, {spot.table or 'no table'}: {spot.what}" for spot in report.unreadable
    ]
    _list(f"{pages} that could not be read whole", lines)
    _list("lost or changed", report.lost)
    _list("notes", report.notes)
    _list("verify", [finding.message for finding in report.findings])
    if report.more:
        click.echo(f"... and {report.more:,} more things that are not listed")
    click.echo()
    click.echo(escape(_verdict(report)))


def _some(number: int) -> str:
    return f"{number:,}" if number else ""


def _print_sessions(report: SalvageReport) -> None:
    if not report.damaged_sessions:
        return
    click.echo()
    with look_into(report.destination) as opened:
        sessions = session_column(opened, (one.session_id for one in report.damaged_sessions))
    columns = [
        sessions,
        Column("found", "right"),
        Column("of", "right"),
        Column("missing seq", cut="end", width_min=12),
        Column("outcome"),
    ]
    rows: list[list[object]] = [
        [
            session.session_id,
            f"{session.found:,}",
            f"{session.expected:,}",
            _ranges(session.missing),
            session.outcome,
        ]
        for session in report.damaged_sessions
    ]
    print_table(columns, rows, empty="")


def _ranges(missing: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in missing)


def _list(title: str, lines: list[str]) -> None:
    if not lines:
        return
    click.echo(f"\n{title}:")
    width = terminal_width()
    for line in lines[:SHOWN]:
        for part in wrap(escape(line), width - 4 if width else None):
            click.echo(f"    {part}")
    if len(lines) > SHOWN:
        click.echo(f"    ... and {len(lines) - SHOWN:,} more (--json lists them)")


def _verdict(report: SalvageReport) -> str:
    sessions = counted(report.sessions, "session")
    entries = counted(report.entries, "entry", "entries")
    salvaged = f"{report.destination}: {sessions}, {entries}"
    if report.complete:
        return f"{salvaged}: everything was salvaged"
    if missing := report.missing_entries:
        return f"{salvaged}: {counted(missing, 'entry is', 'entries are')} missing"
    return f"{salvaged}: the changes are listed above"
