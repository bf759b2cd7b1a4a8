"""Backups: backup, restore-backup.

Both verify before a file gets its name, and both leave no file behind that was not. A
backup is made from one snapshot of a read-only connection, so the database is not changed
and a gateway may run. A restored database has nothing that goes on by itself
(`gateway/restored.py`).
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sessiondb import database, sync
from sessiondb.gateway import restored
from sessiondb.limits import Limits

from .findings import print_findings
from .program import (
    OK,
    PROBLEMS,
    Failure,
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    on_interrupt,
    refuse,
    write_into,
)
from .terminal import counted, escape, print_json, say, size

if TYPE_CHECKING:
    from sessiondb.models import VerifyReport

VERIFY_READ_S = 86_400.0
"""So long may one read of a copy take. Nobody writes there, so it keeps no WAL from being reset.
The check of a large file is one read, and a copy whose check did not end is no backup."""


@command(
    examples=(
        "sessiondb backup gateway.db backups",
        "sessiondb backup gateway.db backups --zstd --keep 14",
        "sessiondb backup gateway.db before-upgrade.db",
    ),
)
@database_argument
@click.argument("dest", metavar="DEST")
@click.option("--zstd", is_flag=True, help="Compress the backup, and read it back.")
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=1),
    help="Delete the oldest backups of DB in the folder DEST, beyond the newest N.",
)
@click.option("--quick", is_flag=True, help="Verify without decoding every entry.")
@json_option()
@debug_option
def backup(db: str, dest: str, zstd: bool, keep: int | None, quick: bool, as_json: bool) -> None:
    """Back up a database in use, and verify the backup.

    If DEST is a folder, the backup gets a name in it: that of the database, and the time.
    Otherwise DEST is the backup's own name, which must be free. The name appears when the
    backup is complete, verified and on disk. A cancelled or failed run leaves none.
    """
    folder = Path(dest).is_dir()
    if keep is not None and not folder:
        refuse(f"--keep counts the backups in a folder, and {dest} is none. Make it first.")
    with look_into(db) as opened:
        target = database.backup_name(dest, opened.path, compress=zstd) if folder else dest
        on_interrupt(lambda: f"{target} was not made, and nothing is left of it. Start it again.")
        with database.backup_file(target, compress=zstd) as file:
            opened.backup(file.copy)
            report = _verified(file.copy, db, deep=not quick)
            written = file.finish()
    removed = database.old_backups(dest, db, keep) if keep is not None else []
    for path in removed:
        path.unlink()
    if as_json:
        print_json(
            {
                "backup": target,
                "bytes": written,
                "sessions": report.sessions,
                "entries": report.entries,
                "removed": [str(path) for path in removed],
            }
        )
        return
    say(
        escape(f"{target}: {size(written)}, {_counts(report)}, verified and on disk")
        + (f"; {counted(len(removed), 'older backup')} deleted" if removed else ""),
        quiet=False,
    )


@command(
    "restore-backup",
    examples=("sessiondb restore-backup restored.db copy.db",),
)
@database_argument
@click.argument("backup", metavar="BACKUP")
@click.option("--quick", is_flag=True, help="Verify without decoding every entry.")
@json_option()
@debug_option
def restore_backup(db: str, backup: str, quick: bool, as_json: bool) -> int:
    """Make a database from a backup, verified.

    Nothing in it is sent or answered again by itself. DB must not exist: stop the gateway,
    and move the old file away with its -wal and -shm. Messages that were open become
    `interrupted`, and replies that were to be sent become `unknown`, because they may have
    been answered and sent since. `sessiondb stuck DB` lists them with the commands that
    decide. Readers of events begin with the next one.
    """
    on_interrupt(lambda: f"{db} was not made, and {backup} was not changed. Start it again.")
    with database.restoring(backup, db) as file:
        report = _verified(file.copy, backup, deep=not quick)
        with write_into(file.copy, create=False) as opened:
            settled: restored.Settled = opened.write("restore.settle", restored.settle)
        file.finish()
    if as_json:
        print_json(
            {
                "database": db,
                "sessions": report.sessions,
                "entries": report.entries,
                "messages": settled.messages,
                "replies": settled.replies,
            }
        )
        return OK
    say(escape(f"{db}: {_counts(report)}, verified and on disk"), quiet=False)
    if settled.messages or settled.replies:
        waiting = (
            f"{counted(settled.messages, 'message')} and "
            f"{counted(settled.replies, 'reply', 'replies')} wait for your decision:"
        )
        click.echo(f"{waiting} see `sessiondb stuck {shlex.quote(db)}`")
    return OK


def _verified(path: str, name: str, *, deep: bool) -> VerifyReport:
    """Verify a copy under its temporary name. What is wrong is printed with the name it came from.

    Raises:
        Failure: it is not whole.
    """
    with sync.open(path, readonly=True, limits=Limits(read_age_s_max=VERIFY_READ_S)) as copy:
        report = copy.verify(deep=deep)
    if not report.ok:
        print_findings(report.findings, name)
        raise Failure(
            f"{name}: its copy does not pass verify, so no file was made of it. "
            f"`sessiondb verify {shlex.quote(name)}` shows whether the original does.",
            PROBLEMS,
        )
    return report


def _counts(report: VerifyReport) -> str:
    sessions = counted(report.sessions, "session")
    return f"{sessions}, {counted(report.entries, 'entry', 'entries')}"
