"""Commands about what is kept: gc, restore, pin, unpin.

`gc` without a limit changes nothing, and with one it says for every session that a limit asks for what became of it
and why. A gateway may go on meanwhile: every step is a short transaction.
"""

from __future__ import annotations

from typing import Any

import click

from sessiondb.errors import InvalidInput
from sessiondb.maintenance.retention import RetentionReport
from sessiondb.maintenance.retention_plan import RetentionDecision, RetentionPolicy
from sessiondb.openclaw_settings import parse_bytes, parse_days, retention_policy

from .program import (
    OK,
    PROBLEMS,
    FiniteRange,
    database_argument,
    debug_option,
    json_option,
    look_into,
    read_settings,
    session_argument,
    write_into,
)
from .terminal import Column, as_record, at, counted, escape, print_json, print_table, size


def _days(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    return None if value is None else _parsed(parse_days, value, param)


def _bytes(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else _parsed(parse_bytes, value, param)


def _parsed(parse: Any, value: str, param: click.Parameter) -> Any:
    try:
        return parse(value, param.opts[0])
    except InvalidInput as error:
        raise click.BadParameter(str(error), param=param) from error


@click.command(short_help="Archive what need not be kept; --dry-run only says what.")
@database_argument
@click.option("--dry-run", is_flag=True, help="Decide and report; change nothing.")
@click.option(
    "--max-age",
    metavar="TIME",
    callback=_days,
    help="Archive sessions that have not changed for longer, such as 30d or 12h.",
)
@click.option(
    "--idle",
    metavar="TIME",
    callback=_days,
    help="Leave alone what changed, or was restored, more recently.  [default: 1d]",
)
@click.option(
    "--max-sessions",
    metavar="N",
    type=click.IntRange(min=0),
    help="Archive the oldest beyond so many sessions.",
)
@click.option(
    "--max-bindings",
    metavar="N",
    type=click.IntRange(min=0),
    help="... beyond so many keys of one agent.",
)
@click.option(
    "--max-bytes",
    metavar="SIZE",
    callback=_bytes,
    help="... while the database is larger, such as 10gb.",
)
@click.option(
    "--high-water",
    metavar="SHARE",
    type=FiniteRange(0, 1, min_open=True),
    help="Of --max-bytes: go down to that.  [default: 0.8]",
)
@click.option(
    "--drop-archives",
    metavar="TIME",
    callback=_days,
    help="Delete archives that are older, for good.",
)
@click.option(
    "--prune",
    metavar="TIME",
    callback=_days,
    help="Delete done messages, sent replies, ended turns, events that are older.",
)
@click.option(
    "--delete", is_flag=True, help="Delete instead of archiving: nothing can be restored."
)
@click.option(
    "--openclaw",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Take the limits from OpenClaw's settings.",
)
@click.option("--all", "every", is_flag=True, help="List sessions within every limit too.")
@json_option()
@debug_option
def gc(
    db: str, dry_run: bool, openclaw: str | None, every: bool, as_json: bool, **limits: Any
) -> int:
    """Archive sessions that a limit asks for, and give their space back.

    Without a limit nothing is archived; what an interrupted run began is brought to its end. Pinned sessions, and those with
    something running or waiting, always stay. `sessiondb restore` brings an archived session back.
    """
    policy = _policy(openclaw, limits)
    dry_run = dry_run or not policy.enforce
    with look_into(db) if dry_run else write_into(db, create=False) as opened:
        report = opened.gc(policy, dry_run=dry_run, every=every)
    if as_json:
        print_json({**as_record(report), "ok": report.ok})
    else:
        _print_report(report)
    return OK if report.ok else PROBLEMS


def _policy(openclaw: str | None, limits: dict[str, Any]) -> RetentionPolicy:
    """Return the policy of the settings' file, with what the command line says in its place."""
    policy = RetentionPolicy()
    if openclaw is not None:
        policy = retention_policy(read_settings(openclaw))
    names = {
        "max_age": "max_age_days",
        "idle": "idle_days",
        "max_sessions": "max_sessions",
        "max_bindings": "max_bindings_per_agent",
        "max_bytes": "max_bytes",
        "high_water": "high_water",
        "drop_archives": "archive_days",
        "prune": "prune_days",
    }
    message = {name: limits[option] for option, name in names.items() if limits[option] is not None}
    return policy.model_copy(update=message | ({"archive": False} if limits["delete"] else {}))


_ROWS = {"outbox": "replies", "inbox": "messages", "turn": "turns", "event": "events"}


def _print_report(report: RetentionReport) -> None:
    columns = [
        Column("action"),
        Column("session", cut="prefix", width_min=8),
        Column("changed (UTC)"),
        Column("entries", "right", spare=2),
        Column("size", "right", spare=1),
        Column("reason", cut="end", width_min=20),
    ]
    shown = sorted(report.decisions, key=lambda created: created.action == "keep")
    print_table(
        columns, [_row(created) for created in shown], empty="no limit asks for any session"
    )
    resumed_archives = (
        f"; {counted(report.resumed_archives, 'archive')} of an earlier run finished"
        if report.resumed_archives
        else ""
    )
    going = report.count("planned") if report.dry_run else report.count("done")
    verb = "would go" if report.dry_run else "done"
    failed = f", {report.count('failed'):,} failed" if report.count("failed") else ""
    click.echo(
        f"{counted(report.sessions, 'session')}: {going:,} {verb}{failed}, {report.kept:,} kept{resumed_archives}",
        err=True,
    )
    if report.pruned:
        rows = ", ".join(f"{_ROWS[table]} {count:,}" for table, count in report.pruned.items())
        click.echo(
            f"rows of finished work {'that would go' if report.dry_run else 'deleted'}: {rows}",
            err=True,
        )
    if report.dry_run:
        click.echo(f"database: {size(report.bytes_before)}; nothing was changed", err=True)
    else:
        click.echo(
            f"database: {size(report.bytes_before)} before, {size(report.bytes_after)} after",
            err=True,
        )


def _row(created: RetentionDecision) -> list[object]:
    action = (
        created.action
        if created.outcome in ("planned", "done") or created.action == "keep"
        else f"{created.action}: {created.outcome}"
    )
    note = f"; {created.note}" if created.note else ""
    held = size(created.bytes) if created.bytes else ""
    return [
        action,
        created.session_id,
        at(created.updated_at_ms)[:16],
        f"{created.entries:,}",
        held,
        created.reason + note,
    ]


@click.command()
@database_argument
@session_argument
@json_option()
@debug_option
def restore(db: str, session: str, as_json: bool) -> None:
    """Bring an archived session back, exactly as it was.

    Keys that point at another session by now are left so. `sessiondb sessions DB --all` lists archived sessions too.
    """
    with write_into(db, create=False) as opened:
        report = opened.restore(session)
    if as_json:
        print_json(report)
        return
    keys = f", reached by {', '.join(report.keys_bound)}" if report.keys_bound else ""
    click.echo(
        escape(f"{report.session_id} is back: {counted(report.entries, 'entry', 'entries')}{keys}")
    )
    for key in report.keys_taken:
        click.echo(escape(f"{key} points at another session by now, and was left so"), err=True)
    for parent in report.parents:
        click.echo(escape(f"{parent}, which it was forked from, came back with it"), err=True)


@click.command()
@database_argument
@session_argument
@json_option()
@debug_option
def pin(db: str, session: str, as_json: bool) -> None:
    """Have retention leave a session alone."""
    _set_pin(db, session, as_json, pinned=True)


@click.command()
@database_argument
@session_argument
@json_option()
@debug_option
def unpin(db: str, session: str, as_json: bool) -> None:
    """Let retention have a session again."""
    _set_pin(db, session, as_json, pinned=False)


def _set_pin(db: str, session: str, as_json: bool, *, pinned: bool) -> None:
    with write_into(db, create=False) as opened:
        found = opened.session_by_id(session)
        if pinned:
            found.pin()
        else:
            found.unpin()
    if as_json:
        print_json({"session_id": found.id, "pinned": pinned})
    else:
        click.echo(escape(f"{found.id} is {'pinned' if pinned else 'no longer pinned'}"))
