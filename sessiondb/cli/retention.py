"""Commands of retention: gc, unarchive, pin, unpin.

`gc` without a limit archives nothing. With one it prints the outcome and the reason for
every session over a limit. A gateway may run meanwhile: every step is a short transaction.
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
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    on_interrupt,
    read_settings,
    refuse,
    session_argument,
    write_into,
)
from .session_ids import session_column, session_id_named, session_named
from .terminal import Column, as_record, at, counted, escape, print_json, print_table, size


def _days(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    return None if value is None else _parsed(parse_days, value, param)


def _bytes(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else _parsed(parse_bytes, value, param)


def _parsed(parse: Any, value: str, param: click.Parameter) -> Any:
    try:
        return parse(value, param.opts[0])
    except InvalidInput as error:
        refuse(str(error))


@command(
    short_help="Archive old sessions by limits, and free space.",
    examples=(
        "sessiondb gc gateway.db --max-age 30d --dry-run",
        "sessiondb gc gateway.db --max-age 30d --prune 90d",
    ),
)
@database_argument
@click.option("--dry-run", is_flag=True, help="Decide and report, but change nothing.")
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
    help="Keep sessions that changed, or were restored, more recently.  [default: 1d]",
)
@click.option(
    "--max-sessions",
    metavar="N",
    type=click.IntRange(min=0),
    help="Archive the oldest sessions beyond this number.",
)
@click.option(
    "--max-bindings",
    metavar="N",
    type=click.IntRange(min=0),
    help="Archive the oldest sessions beyond this number of keys of one agent.",
)
@click.option(
    "--max-bytes",
    metavar="SIZE",
    callback=_bytes,
    help="Archive the oldest sessions while the database is larger, such as 10gb.",
)
@click.option(
    "--high-water",
    metavar="SHARE",
    type=FiniteRange(0, 1, min_open=True),
    help="With --max-bytes, stop at this share of it.  [default: 0.8]",
)
@click.option(
    "--drop-archives",
    metavar="TIME",
    callback=_days,
    help="Delete archives older than this, for good.",
)
@click.option(
    "--prune",
    metavar="TIME",
    callback=_days,
    help="Delete done messages, sent replies, ended turns and events older than this.",
)
@click.option(
    "--delete", is_flag=True, help="Delete instead of archiving. Nothing can be restored."
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
    """Archive the sessions over a limit, and free their space.

    Without a limit nothing is archived, but archives that an interrupted run began are
    finished. Pinned sessions, and those with running or waiting work, always stay.
    `sessiondb unarchive` brings an archived session back.
    """
    policy = _policy(openclaw, limits)
    dry_run = dry_run or not policy.enforce
    if not dry_run:
        on_interrupt(lambda: "What was archived or deleted stays so. Run it again for the rest.")
    with look_into(db) if dry_run else write_into(db, create=False) as opened:
        report = opened.gc(policy, dry_run=dry_run, every=every)
        sessions = session_column(opened, (made.session_id for made in report.decisions))
    if as_json:
        print_json({**as_record(report), "ok": report.ok})
    else:
        _print_report(report, sessions)
    return OK if report.ok else PROBLEMS


def _policy(openclaw: str | None, limits: dict[str, Any]) -> RetentionPolicy:
    """Return the policy of the settings file, overridden by the options."""
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
    options = {name: limits[option] for option, name in names.items() if limits[option] is not None}
    return policy.model_copy(update=options | ({"archive": False} if limits["delete"] else {}))


_ROWS = {"outbox": "replies", "inbox": "messages", "turn": "turns", "event": "events"}


def _print_report(report: RetentionReport, sessions: Column) -> None:
    columns = [
        Column("action"),
        sessions,
        Column("changed (UTC)"),
        Column("entries", "right", spare=2),
        Column("size", "right", spare=1),
        Column("reason", cut="end", width_min=20),
    ]
    shown = sorted(report.decisions, key=lambda decision: decision.action == "keep")
    print_table(
        columns, [_row(decision) for decision in shown], empty="no limit asks for any session"
    )
    earlier = (
        f"; {counted(report.resumed_archives, 'archive')} of an earlier run finished"
        if report.resumed_archives
        else ""
    )
    done = "would go" if report.dry_run else "done"
    going = f"{report.count('planned' if report.dry_run else 'done'):,} {done}"
    failed = f", {report.count('failed'):,} failed" if report.count("failed") else ""
    click.echo(
        f"{counted(report.sessions, 'session')}: {going}{failed}, {report.kept:,} kept{earlier}",
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


def _row(decision: RetentionDecision) -> list[object]:
    action = (
        decision.action
        if decision.outcome in ("planned", "done") or decision.action == "keep"
        else f"{decision.action}: {decision.outcome}"
    )
    note = f" ({decision.note})" if decision.note else ""
    held = size(decision.bytes) if decision.bytes else ""
    return [
        action,
        decision.session_id,
        at(decision.updated_at_ms)[:16],
        f"{decision.entries:,}",
        held,
        decision.reason + note,
    ]


@command(
    examples=("sessiondb unarchive gateway.db archived-one",),
)
@database_argument
@session_argument
@json_option()
@debug_option
def unarchive(db: str, session: str, as_json: bool) -> None:
    """Bring an archived session back, exactly as it was.

    Keys that point at another session by now are left alone. `sessiondb sessions DB --all`
    lists archived sessions too.
    """
    on_interrupt(lambda: f"{session} may be half-way back. The same command goes on from there.")
    with write_into(db, create=False) as opened:
        report = opened.unarchive(session_id_named(opened, session))
    if as_json:
        print_json(report)
        return
    keys = f", reached by {', '.join(report.keys_bound)}" if report.keys_bound else ""
    click.echo(
        escape(f"{report.session_id} is back: {counted(report.entries, 'entry', 'entries')}{keys}")
    )
    for key in report.keys_taken:
        click.echo(escape(f"{key} points at another session by now, and was left alone"), err=True)
    for parent in report.parents:
        click.echo(escape(f"{parent}, which it was forked from, was restored with it"), err=True)


@command(
    examples=("sessiondb pin gateway.db agent:main:discord:channel:1",),
)
@database_argument
@session_argument
@json_option()
@debug_option
def pin(db: str, session: str, as_json: bool) -> None:
    """Protect a session from retention."""
    _set_pin(db, session, as_json, pinned=True)


@command(
    examples=("sessiondb unpin gateway.db agent:main:discord:channel:1",),
)
@database_argument
@session_argument
@json_option()
@debug_option
def unpin(db: str, session: str, as_json: bool) -> None:
    """End the protection of a session from retention."""
    _set_pin(db, session, as_json, pinned=False)


def _set_pin(db: str, session: str, as_json: bool, *, pinned: bool) -> None:
    with write_into(db, create=False) as opened:
        found = session_named(opened, session)
        if pinned:
            found.pin()
        else:
            found.unpin()
    if as_json:
        print_json({"session_id": found.id, "pinned": pinned})
    else:
        click.echo(escape(f"{found.id} is {'pinned' if pinned else 'no longer pinned'}"))
