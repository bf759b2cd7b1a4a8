"""The command `sessions`: what each session is about, what was said last, and what it does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, get_args

import click

from sessiondb import clock
from sessiondb.errors import InvalidInput
from sessiondb.maintenance import session_list
from sessiondb.maintenance.session_list import Choice, Listed, Sort, Wanted

from .program import command, database_argument, debug_option, json_option, look_into
from .session_ids import session_column
from .terminal import (
    Column,
    as_record,
    duration,
    naming,
    print_json_array,
    print_table,
    say,
    to_json,
)

if TYPE_CHECKING:
    from sessiondb import sync

NEWEST = 50
"""So many are listed unless more are asked for."""
# Sessions of one snapshot, and the places of one. Another order reads every session for a page.
PAGE, PLACES = 50, 10_000
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def span_s(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """Return a length of time in seconds. The callback of an option."""
    try:
        return None if text is None else span_in_s(text)
    except InvalidInput as error:
        raise click.BadParameter(str(error)) from error


def span_in_s(text: str) -> float:
    """Return a length of time in seconds.

    Raises:
        InvalidInput: it is none.
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(
            f"{text!r} is not a length of time. Give a number with its unit, such as 30m, 2h or 7d"
        )
    return float(found[1]) * _SECONDS[found[2]]


@command(
    examples=(
        "sessiondb sessions gateway.db",
        "sessiondb sessions gateway.db --active 1h --agent main",
        "sessiondb sessions gateway.db --state running",
        "sessiondb sessions gateway.db --sort tokens -n 10",
        "sessiondb sessions gateway.db --all --json",
    ),
    watch_without=(),
)
@database_argument
@click.option("--agent", metavar="ID", help="Only sessions of this agent.")
@click.option(
    "--active",
    metavar="TIME",
    callback=span_s,
    help="Only sessions that changed in this time, such as 30m, 2h or 7d.",
)
@click.option(
    "--state",
    type=click.Choice(get_args(Wanted)),
    help="Only sessions in this state.  [default: live, which is all that have not ended]",
)
@click.option(
    "--sort",
    type=click.Choice(get_args(Sort)),
    default="updated",
    show_default=True,
    help="What goes first: the last changed, the newest, the longest, the largest context.",
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    help=f"At most this many.  [default: {NEWEST}, or no limit with --all]",
)
@click.option("--checkpoints", is_flag=True, help="Include the copies that OpenClaw made of some.")
@click.option(
    "--all", "everything", is_flag=True, help="All of them: ended, archived, checkpoints."
)
@json_option("Print a JSON array, one session a line.")
@debug_option
def sessions(
    db: str,
    agent: str | None,
    active: float | None,
    state: Wanted | None,
    sort: Sort,
    limit: int | None,
    checkpoints: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """List sessions, last changed first.

    The title is a session's name, or how a person's first message begins. A session is running
    while a turn runs, and waiting while messages wait for one. A terminal shows as much of each
    id as names its session. Every command accepts that.
    """
    choice = Choice(
        state=state or ("any" if everything else "live"),
        sort=sort,
        agent_id=agent,
        since_ms=0 if active is None else clock.now_ms() - round(active * 1000),
        checkpoints=checkpoints or everything,
    )
    most = limit if limit is not None or everything else NEWEST
    with look_into(db) as opened:
        found = islice(_each(opened, choice, most), most)
        if as_json:
            print_json_array(to_json(_record(one)) for one in found)
            return
        rows = [_row(one, db) for one in found]
        ids = session_column(opened, (str(row[0]) for row in rows))
    print_table([ids, *COLUMNS], rows, empty=_nothing(everything=everything))
    if limit is None and len(rows) == most:
        say(f"The first {most}. --limit N lists more, --all lists all.", quiet=False)


COLUMNS = (
    Column("title", cut="end", width_min=14),
    Column("last message", cut="end", width_min=12),
    Column("age", "right"),
    Column("entries", "right"),
    Column("tokens", "right", spare=1),
    Column("state"),
    Column("key", cut="middle", width_min=16, spare=2),
    Column("format", spare=3),
)


def _each(opened: sync.SessionDB, choice: Choice, most: int | None) -> Iterator[Listed]:
    """Yield the sessions of the list, and read no more of them than are wanted."""
    rows_max = PAGE if choice.sort == "updated" else PLACES
    after = session_list.FIRST
    while True:
        rows = rows_max if most is None else min(most, rows_max)
        places = opened.read(
            "sessions.list",
            partial(session_list.numbers, choice=choice, after=after, limit=rows),
        )
        for start in range(0, len(places), PAGE):
            page = places[start : start + PAGE]
            yield from opened.read("sessions.about", partial(session_list.page, places=page))
        if len(places) < rows:
            return
        after = places[-1]


def _record(one: Listed) -> dict[str, object]:
    """Return a session as JSON has it: what the API says of it, and what the list adds."""
    added = {name: value for name, value in as_record(one).items() if name != "info"}
    return {**as_record(one.info), **added}


def _row(one: Listed, db: str) -> list[object]:
    info = one.info
    about, keys = "" if info.tokens_fresh else "~", ", ".join(info.keys)
    return [
        info.session_id,
        _line(one.title, db) or keys,
        _line(one.last_message, db),
        _age(info.updated_at_ms),
        f"{info.entries:,}",
        f"{about}{info.context_tokens:,}",
        one.state,
        keys,
        info.format,
    ]


def _line(text: str | None, db: str) -> str:
    if text == session_list.DAMAGED:
        return naming(text, db)
    return " ".join(text.split()) if text is not None else ""


def _age(since_ms: int) -> str:
    """Show how long ago that was, by its largest unit."""
    return " ".join(duration(max(0, clock.now_ms() - since_ms)).split()[:2])


def _nothing(*, everything: bool) -> str:
    if everything:
        return "no sessions. `sessiondb import DB PATH` imports some"
    return "no such sessions. --all lists ended ones and checkpoints, too"
