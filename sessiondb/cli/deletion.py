"""The commands that delete for good: delete, redact.

A gateway may run meanwhile: every step is a short transaction. What was deleted stays so when the
command is interrupted, and the same command goes on.
"""

from __future__ import annotations

import click

from sessiondb.models import DeleteReport

from .history import entry_argument
from .program import (
    OK,
    PROBLEMS,
    command,
    database_argument,
    debug_option,
    json_option,
    on_interrupt,
    refuse,
    session_argument,
    write_into,
)
from .session_ids import entry_id_of, session_named
from .terminal import as_record, counted, escape, print_json, print_line


@command(
    examples=(
        "sessiondb delete gateway.db --session agent:main:web:guest",
        "sessiondb delete gateway.db --prefix agent:main:web:guest: --abort",
    ),
)
@database_argument
@click.option("--session", metavar="SESSION", help="Delete this session.")
@click.option(
    "--prefix",
    metavar="PREFIX",
    help="Delete the sessions whose keys begin with this, archived ones as well.",
)
@click.option("--namespace", metavar="NAME", help="Delete the sessions of this namespace of ids.")
@click.option("--archive", is_flag=True, help="Archive them instead. `unarchive` brings them back.")
@click.option("--abort", is_flag=True, help="Stop their turns that run.")
@json_option()
@debug_option
def delete(
    db: str,
    session: str | None,
    prefix: str | None,
    namespace: str | None,
    archive: bool,
    abort: bool,
    as_json: bool,
) -> int:
    """Delete a session for good, or those of a key prefix.

    Its transcript goes, and its messages, replies, turns, events and archive. Nothing can be
    restored. A session that a fork shares entries with is kept. Prints what may still hold
    its texts: the WAL, backups, and others.
    """
    if sum(one is not None for one in (session, prefix, namespace)) != 1:
        refuse("name either --session or --prefix or --namespace")
    on_interrupt(lambda: "What was deleted stays so. Run it again for the rest.")
    with write_into(db, create=False) as opened:
        chosen = session_named(opened, session) if session is not None else None
        report = opened.delete(
            chosen,
            key_prefix=prefix,
            namespace=namespace,
            archive=archive,
            abort_running=abort,
        )
    if as_json:
        print_json({**as_record(report), "ok": report.ok})
    else:
        _print_report(report)
    return OK if report.ok else PROBLEMS


@command(
    examples=("sessiondb redact gateway.db agent:main:discord:channel:1 2",),
)
@database_argument
@session_argument
@entry_argument
@json_option()
@debug_option
def redact(db: str, session: str, entry: str, as_json: bool) -> None:
    """Delete what one entry says, for good.

    Its texts, arguments and images go. Its place, its role and its calls stay, so the
    conversation goes on. ENTRY is a number as `show` prints it, or an entry's id. Prints what
    may still hold its text.
    """
    with write_into(db, create=False) as opened:
        chosen = session_named(opened, session)
        done = chosen.redact(entry_id_of(opened, chosen, entry))
    if as_json:
        print_json(as_record(done))
        return
    what = "was redacted before" if done.already else "is redacted"
    print_line(f"entry {escape(done.entry_id)} {what}")
    for sentence in done.left:
        click.echo(escape(sentence), err=True)


def _print_report(report: DeleteReport) -> None:
    for session_id in report.deleted:
        print_line(f"{escape(session_id)} is deleted")
    for session_id in report.archived:
        print_line(f"{escape(session_id)} is archived")
    for session_id, why in report.kept:
        print_line(f"{escape(session_id)} is kept: {escape(why)}")
    rows = ", ".join(f"{count:,} of {table}" for table, count in report.rows.items() if count)
    click.echo(
        f"{counted(len(report.deleted), 'session')} deleted. Rows: {rows or 'none'}", err=True
    )
    for sentence in report.left:
        click.echo(escape(sentence), err=True)
