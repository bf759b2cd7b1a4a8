"""The command `doctor`: all that is wrong, what it means, and what to do."""

from __future__ import annotations

from typing import Any

import click

from sessiondb import sync
from sessiondb.gateway.recovery import Recovered
from sessiondb.maintenance.doctor import Diagnosis, diagnose

from .program import (
    OK,
    PROBLEMS,
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    write_into,
)
from .terminal import as_record, counted, escape, naming, print_json, terminal_width, wrap

SHOWN_MAX = 20
"""As many diagnoses as a person reads. --json has all of them."""


@command(
    examples=("sessiondb doctor gateway.db", "sessiondb doctor gateway.db --fix --json"),
)
@database_argument
@click.option("--fix", is_flag=True, help="First release what nobody works on any more.")
@json_option()
@debug_option
def doctor(db: str, fix: bool, as_json: bool) -> int:
    """Show all that is wrong, what it means, and what to do.

    It gathers what `status` and `verify --quick` know, and changes nothing. With --fix, what dead
    processes held and what is past its lease is released first, as a start of a gateway does it:
    each in a transaction, with an event. What needs a decision stays.

    The exit code is 1 when something is left.
    """
    fixed = None
    if fix:
        with write_into(db, create=False) as opened:
            fixed = opened.recover().plus(opened.release_expired())
    with look_into(db) as opened:
        found = _examine(opened)
    if as_json:
        print_json(
            {
                "fixed": as_record(fixed) if fixed is not None else None,
                "findings": [as_record(one) for one in found],
            }
        )
    else:
        _print(found, fixed, db)
    return PROBLEMS if found else OK


def _examine(opened: sync.SessionDB) -> tuple[Diagnosis, ...]:
    return diagnose(opened.status(), opened.verify(deep=False))


def _print(found: tuple[Diagnosis, ...], fixed: Recovered | None, db: str) -> None:
    if fixed is not None:
        click.echo(f"fixed: {_released(fixed)}")
    for one in found[:SHOWN_MAX]:
        _say(f"{one.severity}: {one.rule}", "")
        _say(naming(one.evidence, db), "    ")
        _say(one.consequence, "    so: ")
        if one.command is not None:
            _say(naming(one.command, db), "    do: ")
    if len(found) > SHOWN_MAX:
        click.echo(f"... and {len(found) - SHOWN_MAX:,} more (--json lists all)")
    fixable = sum(one.fixable for one in found)
    hint = f"; --fix releases {counted(fixable, 'of them', 'of them')}" if fixable else ""
    click.echo(f"{counted(len(found), 'finding')}{hint}" if found else "nothing is wrong")


def _released(fixed: Recovered) -> str:
    counts: list[tuple[int, Any]] = [
        (fixed.instances, ("process", "processes")),
        (fixed.turns, ("turn", "turns")),
        (fixed.compactions, ("compaction", "compactions")),
        (fixed.replies, ("reply", "replies")),
    ]
    told = [counted(count, *names) for count, names in counts if count]
    return f"released {', '.join(told)}" if told else "nothing was to be released"


def _say(text: str, mark: str) -> None:
    width = terminal_width()
    for number, line in enumerate(wrap(escape(text), width - len(mark) if width else None)):
        click.echo((mark if number == 0 else " " * len(mark)) + line)
