"""The command `disk`: what takes the space, and which command frees how much of it."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sessiondb.maintenance import disk as rules
from sessiondb.maintenance.disk import Part

from .program import command, database_argument, debug_option, json_option, look_into
from .terminal import Column, as_record, naming, print_json, print_table, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessiondb import sync

READ_S = 300.0
"""So long may it take to count the pages of one table."""


@command(examples=("sessiondb disk gateway.db", "sessiondb disk gateway.db --json"))
@database_argument
@json_option()
@debug_option
def disk(db: str, as_json: bool) -> None:
    """Show what takes the space, and what frees it.

    Messages are what is left when everything else is counted. A command that frees what is old
    says with --dry-run how much that is. The WAL is reused, and goes when the database is closed.
    """
    with look_into(db, read_s=READ_S) as opened:
        parts = parts_of(opened, db)
    if as_json:
        print_json({"parts": [as_record(part) for part in parts]})
        return
    total = sum(part.bytes for part in parts)
    rows = [_row(part, total, db) for part in parts if part.bytes]
    columns = [
        Column("part"),
        Column("size", "right"),
        Column("share", "right"),
        Column("what frees it", cut="end", width_min=20),
    ]
    print_table(columns, rows, empty="nothing")
    click.echo(f"{size(total)} in all")
    if any(part.estimated for part in parts):
        click.echo("This SQLite cannot count pages (it lacks dbstat), so ~ marks estimates.")


def parts_of(opened: sync.SessionDB, db: str) -> Sequence[Part]:
    """Count what takes the space, one table after the other, each in a snapshot of its own."""
    plan = opened.read("disk.plan", rules.plan)
    counted: Counter[str] = Counter()
    if plan.can_count:
        for one in plan.objects:
            counted[one.part] += opened.read("disk.count", partial(rules.count, one=one))
    else:
        counted.update(opened.read("disk.estimate", rules.estimate))
    file = opened.read("disk.file", lambda tx: tx.one("status.file"))
    free = file.pages_free * file.page_bytes
    return rules.report(
        dict(counted),
        used=file.pages * file.page_bytes - free,
        free=free,
        wal=_bytes_of(f"{db}-wal"),
        estimated=not plan.can_count,
    )


def _bytes_of(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


def _row(part: Part, total: int, db: str) -> list[object]:
    what = "" if part.frees is None else naming(f"{part.frees}", db)
    if part.frees is not None and not part.frees_all:
        what = f"{what} --dry-run"
    mark = "~" if part.estimated else ""
    return [part.what, f"{mark}{size(part.bytes)}", f"{100 * part.bytes / total:.0f} %", what]
