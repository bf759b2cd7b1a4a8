"""The command that prints and follows events.

It opens the file read-only, unless a named consumer's position is to be stored. That is one
short write transaction for each page.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click

from sessiondb import events as event_rules
from sessiondb import sync
from sessiondb.backend import ReadTx
from sessiondb.clock import pause
from sessiondb.errors import StoreDamaged
from sessiondb.models import (
    Event,
)
from sessiondb.words import (
    Audience,
)

from .program import (
    FOLLOW_S,
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    refuse,
    repeat_while_busy,
    write_into,
)
from .session_ids import shown_id
from .terminal import as_record, at, escape, print_json, print_line, to_json

PAGE = 200


@command(
    examples=(
        "sessiondb events gateway.db -n 5",
        "sessiondb events gateway.db --audience operator --json",
    ),
)
@database_argument
@click.option(
    "-n",
    "--last",
    metavar="N",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Begin with this many events.",
)
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Print new events of any process until Ctrl-C.",
)
@click.option(
    "--audience",
    type=click.Choice(["operator", "user"]),
    help="Only events for an operator, or only those for a user.",
)
@click.option(
    "--consumer",
    metavar="NAME",
    help="Continue where NAME stopped, and store its position.",
)
@click.option(
    "--forget",
    is_flag=True,
    help="With --consumer, forget its position instead: nobody reads under NAME any more.",
)
@json_option("Print one JSON object per line.")
@debug_option
def events(
    db: str,
    last: int,
    follow: bool,
    audience: Audience | None,
    consumer: str | None,
    forget: bool,
    as_json: bool,
) -> None:
    """Print events, and follow new ones with -f.

    Each event is one line, the oldest first. With --consumer, the database keeps the
    position of that consumer. The position is stored after a page is printed, so a page
    can be printed again after a crash, but none is skipped. It moves past events for the
    other audience, too. A new consumer begins with the last events (-n). Without
    --consumer, nothing is stored.
    """
    if consumer is not None and not consumer.strip():
        refuse("--consumer needs a name.")
    if forget:
        _forget(db, consumer, as_json=as_json)
        return
    with look_into(db) if consumer is None else write_into(db, create=False) as opened:
        seen = stored = _begin(opened, consumer, audience, last)
        while True:
            look = partial(opened.read, "events", partial(_page, seen=seen, audience=audience))
            page, seen = repeat_while_busy(look) if follow else look()
            for event in page:
                _print_event(opened, event, as_json=as_json)
            sys.stdout.flush()
            ends = not page and not follow
            # Events for the other audience are not read again. Where only such were read, the
            # position is stored once per PAGE of them, and at the end.
            if page or seen - stored >= PAGE or (ends and seen > stored):
                stored = seen
                store = partial(_store_position, opened, consumer, stored)
                if follow:
                    repeat_while_busy(store)
                else:
                    store()
            if ends:
                return
            if not page:
                pause(FOLLOW_S)


def _forget(db: str, consumer: str | None, *, as_json: bool) -> None:
    if consumer is None:
        refuse("--forget needs --consumer NAME.")
    with write_into(db, create=False) as opened:
        opened.write("events.forget", partial(event_rules.forget, consumer=consumer))
    if as_json:
        print_json({"forgotten": consumer})
    else:
        click.echo(f"consumer {escape(consumer)} is forgotten; under this name a reader begins now")


def _page(tx: ReadTx, *, seen: int, audience: Audience | None) -> tuple[list[Event], int]:
    """Read a page of events after number `seen`, in one snapshot.

    Returns the page, and the number up to which there is nothing else to print.
    """
    page = event_rules.after(tx, event_no=seen, audience=audience, limit=PAGE)
    return page.rows, page.rows[-1].event_no if page.more else max(seen, event_rules.last(tx))


def _begin(
    opened: sync.SessionDB, consumer: str | None, audience: Audience | None, last: int
) -> int:
    """Return the event before the first one to print."""
    known = (
        opened.read("events.cursor", lambda tx: event_rules.cursor(tx, consumer))
        if consumer is not None
        else None
    )
    if known is not None:
        return known
    begin = opened.read(
        "events.begin", lambda tx: event_rules.before_last(tx, count=last, audience=audience)
    )
    _store_position(opened, consumer, begin)
    return begin


def _store_position(opened: sync.SessionDB, consumer: str | None, event_no: int) -> None:
    if consumer is not None:
        name = consumer
        opened.write(
            "events.cursor",
            lambda tx: event_rules.move_cursor(tx, consumer=name, event_no=event_no),
        )


def _details(event: Event) -> dict[str, Any] | None:
    """Return an event's details. None: they are damaged, and `payload` has what is there."""
    try:
        return event.data
    except StoreDamaged:
        return None


def _print_event(opened: sync.SessionDB, event: Event, *, as_json: bool) -> None:
    if as_json:
        shown = as_record(event)
        click.echo(to_json({**shown, "data": _details(event)}))
        return
    whose = f"  {shown_id(opened, event.session_id)}" if event.session_id else ""
    about = f"{event.audience:<8}  {escape(event.kind)}{escape(whose)}"
    print_line(f"#{event.event_no:<5} {at(event.at_ms)}  {about}: {escape(event.text)}")
