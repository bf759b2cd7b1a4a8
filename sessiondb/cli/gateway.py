"""Commands about the work of a gateway: its leases, its failures, and what is resumed.

A command that only shows something opens the file read-only. A decision of an operator
(`abort`, `resume --run`) is a few short write transactions. A gateway may run
meanwhile, and notices the decision at once. `held` asks the kernel whether a holder is alive,
by the lock that it holds, so a gateway in a container is as much alive as any other.
"""

from __future__ import annotations

from typing import Any

import click

from sessiondb import clock
from sessiondb.gateway.recovery import Decision, ResumePolicy
from sessiondb.maintenance.status import LISTED_MAX, Stuck
from sessiondb.models import Holding
from sessiondb.openclaw_settings import resume_policy

from .program import (
    OK,
    PROBLEMS,
    FiniteRange,
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    read_settings,
    refuse,
    write_into,
)
from .queue_texts import age, texts_of, with_text
from .session_ids import session_column
from .terminal import (
    Column,
    at,
    duration,
    escape,
    print_json,
    print_json_array,
    print_table,
    say,
    terminal_width,
    to_json,
    wrap,
)

# -- held ------------------------------------------------------------------------------------------


@command(
    examples=("sessiondb held gateway.db",),
    watch_without=(),
)
@database_argument
@json_option("Print a JSON array.")
@debug_option
def held(db: str, as_json: bool) -> None:
    """Show who holds what, and whether the holder is alive.

    Lists turns, compactions and replies that are being sent, with the times at which each
    lease began and ends. The next start of a gateway releases what a dead process holds. A
    turn is also released when its lease expires. `sessiondb abort` stops a turn by its number.
    """
    with look_into(db) as opened:
        found = opened.held()
        sessions = session_column(opened, (holding.session_id for holding in found))
    if as_json:
        print_json_array(to_json(holding) for holding in found)
        return
    columns = [
        Column("what"),
        sessions,
        Column("operation", cut="end", width_min=10),
        Column("owner", cut="end", width_min=9),
        Column("alive?"),
        Column("since (UTC)", spare=1),
        Column("until (UTC)"),
    ]
    print_table(columns, [_held_row(holding) for holding in found], empty="nothing is held")


def _held_row(holding: Holding) -> list[object]:
    yes = "yes" if holding.draining_since_ms is None else "drains"
    alive = {True: yes, False: "DEAD", None: "unknown"}[holding.alive]
    owner = f"pid {holding.pid} on {holding.host}, {holding.program}"
    what = f"{holding.what} {holding.name}"
    return [
        what,
        holding.session_id,
        holding.operation,
        owner,
        alive,
        at(holding.since_ms),
        at(holding.until_ms),
    ]


@command(
    short_help="Stop a turn: its message is not answered.",
    examples=(
        "sessiondb abort gateway.db 2",
        "sessiondb abort gateway.db 2 --reason 'the tool hangs'",
    ),
)
@database_argument
@click.argument("turns", metavar="TURN...", type=int, nargs=-1, required=True)
@click.option(
    "--reason",
    metavar="TEXT",
    default="stopped by an operator",
    show_default=True,
    help="Why. It is kept with the turn, and in its event.",
)
@json_option("Print an object.")
@debug_option
def abort(db: str, turns: tuple[int, ...], reason: str, as_json: bool) -> None:
    """Stop a turn: its message is not answered, and its sender is told.

    Whatever the turn still tries to write is refused, in its process too. `sessiondb held DB`
    lists the turns that run, each with its number.
    """
    with write_into(db, create=False) as opened:
        for number in turns:
            opened.abort_turn(number, reason)
            say(f"turn {number} is stopped", quiet=as_json)
    if as_json:
        print_json({"aborted": turns})


# -- stuck -----------------------------------------------------------------------------------------


@command(
    examples=("sessiondb stuck gateway.db  # exits with 1 when anything is stuck",),
    watch_without=(),
)
@database_argument
@json_option("Print a JSON array.")
@debug_option
def stuck(db: str, as_json: bool) -> int:
    """Show what does not go on by itself, and what to do.

    Exit with 1 when there is anything. Lists turns, compactions and replies whose process died
    or whose time is up, lanes and channels that nobody serves, interrupted messages, readers
    of events that are behind, unfinished imports and archives, and what waits for a person's
    decision. A gateway that does its work shows nothing here.
    """
    with look_into(db) as opened:
        found = opened.status().stuck
    if as_json:
        print_json_array(to_json(one) for one in found)
        return PROBLEMS if found else OK
    width = terminal_width()
    for one in found:
        for line in wrap(escape(one.headline + _since(one)), width):
            click.echo(line)
        for text in filter(None, (_whose(one), one.why)):
            for line in wrap(escape(text), width - 4 if width else None):
                click.echo(f"    {line}")
        click.echo(f"    > {escape(one.next_step)}")  # whole, so that it can be copied
    if len(found) == LISTED_MAX:
        click.echo(f"these are the first {LISTED_MAX}: there may be more behind them")
    elif not found:
        click.echo("nothing is stuck", err=True)
    return PROBLEMS if found else OK


def _since(one: Stuck) -> str:
    since_ms = clock.ms_from_iso(one.since)
    if since_ms is None:
        return ""
    until = f", until {at(clock.ms_from_iso(one.until))}" if one.until is not None else ""
    return f", since {at(since_ms)}{until} ({duration(clock.now_ms() - since_ms)})"


def _whose(one: Stuck) -> str:
    alive = {True: "lives", False: "DEAD", None: "not known to live"}[one.owner_alive]
    parts = [
        f"session {one.session_id}" if one.session_id is not None else "",
        one.place or "",
        f"{one.owner}: {alive}" if one.owner is not None else "",
    ]
    return ", ".join(filter(None, parts))


# -- resume ----------------------------------------------------------------------------------------

_DEFAULTS = ResumePolicy()


@command(
    examples=(
        "sessiondb resume gateway.db --plan",
        "sessiondb resume gateway.db --run",
    ),
)
@database_argument
@click.option("--plan", is_flag=True, help="Show every decision with its reason. Change nothing.")
@click.option(
    "--run",
    is_flag=True,
    help="Recover what dead processes held, end what is past its lease, queue the resumes.",
)
@click.option(
    "--openclaw",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Take the ages from OpenClaw's settings.",
)
@click.option(
    "--max-concurrent",
    "max_concurrent_resumes",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"Resumes that are queued or run at once. [default: {_DEFAULTS.max_concurrent_resumes}]",
)
@click.option(
    "--budget",
    "budget_per_start",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"Resumes per start, and in the hour after it. [default: {_DEFAULTS.budget_per_start}]",
)
@click.option(
    "--max-age-hours",
    metavar="HOURS",
    type=FiniteRange(min=0),
    help=f"Give up older messages. 0: no limit. [default: {_DEFAULTS.max_age_hours:g}]",
)
@click.option(
    "--idle-hours",
    metavar="HOURS",
    type=FiniteRange(min=0),
    help="Give up messages of sessions that did not change for so long. 0: no limit. "
    f"[default: {_DEFAULTS.idle_hours:g}]",
)
@click.option(
    "--attempts",
    "attempts_max",
    metavar="N",
    type=click.IntRange(min=1),
    help=f"Give up messages after so many attempts. [default: {_DEFAULTS.attempts_max}]",
)
@click.option(
    "--skip",
    "skip_states",
    type=click.Choice(["failed", "damaged", "none"]),
    multiple=True,
    help="Give up messages of sessions whose previous turn failed, or whose import was "
    "damaged. [default: both]",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help=f"Cancel a resume that makes no progress for so long. [default: {_DEFAULTS.deadline_s:g}]",
)
@click.option(
    "--breaker",
    "breaker_unclean_starts",
    metavar="N",
    type=click.IntRange(min=1),
    help="Resume nothing after so many unclean ends of one program. "
    f"[default: {_DEFAULTS.breaker_unclean_starts}]",
)
@click.option(
    "--breaker-window",
    "breaker_window_s",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help=f"Count the unclean ends of so many seconds. [default: {_DEFAULTS.breaker_window_s:g}]",
)
@json_option("Print a JSON array of decisions.")
@debug_option
def resume(
    db: str, plan: bool, run: bool, openclaw: str | None, as_json: bool, **policy: Any
) -> None:
    """Show what a start would resume, and why.

    Lists every interrupted message with the decision about it. Messages that dead
    processes were working on count as interrupted. A gateway resumes by itself when it
    starts, with its own policy. The options here answer "what if".
    """
    if plan == run:
        refuse(
            "choose --plan or --run. --plan shows what would be resumed, and why, and changes "
            "nothing. --run queues the resumes for a gateway that is running. A gateway "
            "resumes by itself when it starts."
        )
    chosen = _resume_policy(openclaw, policy)
    with look_into(db) if plan else write_into(db, create=False) as opened:
        if run:
            opened.recover()
            opened.release_expired()
        decisions = opened.resume(chosen) if run else opened.plan_resumes(chosen)
        texts = texts_of(opened, (decision.inbox_no for decision in decisions))
        sessions = session_column(opened, (decision.session_id for decision in decisions))
    if as_json:
        print_json_array(with_text(made, texts.get(made.inbox_no)) for made in decisions)
        return
    columns = [
        Column("inbox", "right"),
        sessions,
        Column("decision"),
        Column("age", "right"),
        Column("text", cut="end", width_min=12),
        Column("accepted (UTC)", spare=2),
        Column("attempts", "right", spare=1),
        Column("reason", cut="end", width_min=12),
    ]
    print_table(
        columns,
        [_decision_row(made, texts.get(made.inbox_no)) for made in decisions],
        empty="no message was interrupted",
    )


def _resume_policy(openclaw: str | None, options: dict[str, Any]) -> ResumePolicy:
    """Return the policy of the settings' file, overridden by the command line's options."""
    policy = resume_policy(read_settings(openclaw)) if openclaw is not None else _DEFAULTS
    skip = set(options.pop("skip_states"))
    if "none" in skip and len(skip) > 1:
        refuse("--skip none excludes every other --skip. Leave one of them out.")
    given = {name: value for name, value in options.items() if value is not None}
    return policy.model_copy(
        update=given | ({"skip_states": frozenset(skip - {"none"})} if skip else {})
    )


def _decision_row(decision: Decision, text: str | None) -> list[object]:
    return [
        decision.inbox_no,
        decision.session_id,
        decision.action,
        age(decision.accepted_at_ms),
        text,
        at(decision.accepted_at_ms),
        decision.attempts,
        decision.reason,
    ]
