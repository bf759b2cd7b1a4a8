"""Commands about the work of a gateway: its queues, its leases, its failures and decisions.

A command that only shows something opens the file read-only. A decision of an operator
(`dead --requeue`, `outbox --sent`, `resume --run`, a named consumer of `events`) is one
short write transaction. A gateway may run meanwhile, and notices the decision at once.
`held` asks the kernel whether a holder is alive, by the lock that it holds, so a gateway in
a container is as much alive as any other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal

import click

from sessiondb import clock, sync
from sessiondb import events as event_rules
from sessiondb.backend import ReadTx
from sessiondb.clock import pause
from sessiondb.gateway import inbox as inbox_rules
from sessiondb.gateway import outbox as outbox_rules
from sessiondb.gateway import restored
from sessiondb.gateway import stopping as stopping_rules
from sessiondb.gateway.recovery import Decision, ResumePolicy
from sessiondb.maintenance.status import LISTED_MAX, Stuck
from sessiondb.models import DeadLetter, Event, Holding, Lane, OpenMessage, Reply
from sessiondb.openclaw_settings import resume_policy

from .program import (
    FOLLOW_S,
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
    repeat_while_busy,
    write_into,
)
from .queue_texts import PAGE as TEXTS_AT_ONCE
from .queue_texts import age, text_of, texts_of
from .session_ids import session_column, shown_id
from .terminal import (
    Column,
    as_record,
    at,
    duration,
    escape,
    print_json,
    print_json_array,
    print_line,
    print_table,
    terminal_width,
    to_json,
    wrap,
)

PAGE = 200


class NumberOrAll(click.ParamType[int | None]):
    """A message's number, or None for the word "all"."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if value in ("all", None):
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor the word all.", param, ctx)


NUMBER_OR_ALL = NumberOrAll()
ReplyState = Literal["pending", "sending", "unknown", "failed", "sent"]
OPEN_REPLIES: tuple[ReplyState, ...] = ("pending", "sending", "unknown", "failed")


# -- events ----------------------------------------------------------------------------------------


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
    audience: event_rules.Audience | None,
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


def _page(
    tx: ReadTx, *, seen: int, audience: event_rules.Audience | None
) -> tuple[list[Event], int]:
    """Read a page of events after number `seen`, in one snapshot.

    Returns the page, and the number up to which there is nothing else to print.
    """
    page = event_rules.after(tx, event_no=seen, audience=audience, limit=PAGE)
    return page.rows, page.rows[-1].event_no if page.more else max(seen, event_rules.last(tx))


def _begin(
    opened: sync.SessionDB, consumer: str | None, audience: event_rules.Audience | None, last: int
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


def _print_event(opened: sync.SessionDB, event: Event, *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json(event))
        return
    whose = f"  {shown_id(opened, event.session_id)}" if event.session_id else ""
    about = f"{event.audience:<8}  {escape(event.kind)}{escape(whose)}"
    print_line(f"#{event.event_no:<5} {at(event.at_ms)}  {about}: {escape(event.text)}")


# -- held ------------------------------------------------------------------------------------------


@command(
    examples=("sessiondb held gateway.db",),
)
@database_argument
@click.option(
    "--abort",
    type=int,
    multiple=True,
    metavar="N",
    help="Stop turn N: its message is not answered, and its sender is told.",
)
@json_option("Print a JSON array, or an object about --abort.")
@debug_option
def held(db: str, abort: tuple[int, ...], as_json: bool) -> None:
    """Show who holds what, and whether the holder is alive.

    Lists turns, compactions and replies that are being sent, with the times at which each
    lease began and ends. The next start of a gateway releases what a dead process holds. A
    turn is also released when its lease expires.
    """
    if abort:
        with write_into(db, create=False) as opened:
            for number in abort:
                opened.abort_turn(number, "stopped by an operator")
                _say(f"turn {number} is stopped", quiet=as_json)
        if as_json:
            print_json({"aborted": abort})
        return
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
    what = f"{holding.what} {holding.number}"
    return [
        what,
        holding.session_id,
        holding.operation,
        owner,
        alive,
        at(holding.since_ms),
        at(holding.until_ms),
    ]


# -- stuck -----------------------------------------------------------------------------------------


@command(
    examples=("sessiondb stuck gateway.db  # exits with 1 when anything is stuck",),
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
        print_json_array(_with_text(made, texts.get(made.inbox_no)) for made in decisions)
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


def _with_text(record: Decision | OpenMessage, text: str | None) -> str:
    return to_json({**as_record(record), "text": text})


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


# -- inbox and dead letters ------------------------------------------------------------------------


@command(
    examples=(
        "sessiondb inbox gateway.db -n 20",
        "sessiondb inbox gateway.db --session agent:main:discord:channel:1",
    ),
)
@database_argument
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(min=1), help="At most this many messages."
)
@click.option("--session", metavar="SESSION", help="Only of this session: an id, or a key.")
@click.option(
    "--withdraw",
    type=int,
    multiple=True,
    metavar="N",
    help="Take inbox item N back, which waits: no turn works on it, and its sender is told.",
)
@click.option(
    "--line-up",
    is_flag=True,
    help="Mark again which messages and replies wait for others, if `verify` finds a wrong mark.",
)
@click.option(
    "--requeue",
    "requeued",
    type=NUMBER_OR_ALL,
    multiple=True,
    metavar="N|all",
    help="Put message N of a restored backup back into its lane. all: every such message.",
)
@click.option(
    "--give-up",
    "given_up",
    type=NUMBER_OR_ALL,
    multiple=True,
    metavar="N|all",
    help="Make message N of a restored backup a dead letter, and tell its sender.",
)
@json_option("Print a JSON array, or an object about a decision or --line-up.")
@debug_option
def inbox(
    db: str,
    limit: int | None,
    session: str | None,
    withdraw: tuple[int, ...],
    line_up: bool,
    requeued: tuple[int | None, ...],
    given_up: tuple[int | None, ...],
    as_json: bool,
) -> None:
    """List accepted messages that are not done.

    Such a message waits, is being worked on, or was interrupted. The oldest comes first.
    """
    if line_up:
        with write_into(db, create=False) as opened:
            changed = opened.write("inbox.line_up", inbox_rules.line_up_all)
            changed += opened.write("outbox.line_up", outbox_rules.line_up_all)
        _say(f"{changed:,} messages and replies had a wrong mark", quiet=as_json)
        if as_json:
            print_json({"changed": changed})
        return
    if requeued or given_up:
        _decide_restored(db, requeued, given_up, as_json=as_json)
        return
    if withdraw:
        with write_into(db, create=False) as opened:
            for number in withdraw:
                body = partial(stopping_rules.withdraw_one, inbox_no=number)
                opened.write("inbox.withdraw", body)
                _say(f"inbox item {number} is withdrawn", quiet=as_json)
        if as_json:
            print_json({"withdrawn": withdraw})
        return
    with look_into(db) as opened:
        whose = opened.session_by_id(session) if session is not None else None
        found = _with_texts(opened, opened.inbox(session=whose, limit=limit))
        if as_json:
            print_json_array(_with_text(message, text) for message, text in found)
            return
        rows = [_inbox_row(message, text) for message, text in found]
        sessions = session_column(opened, (str(row[1]) for row in rows))
    columns = [
        Column("inbox", "right"),
        sessions,
        Column("state"),
        Column("lane", cut="end", width_min=4, spare=1),
        Column("age", "right"),
        Column("text", cut="end", width_min=16),
        Column("from", cut="middle", width_min=8, spare=3),
        Column("accepted (UTC)", spare=5),
        Column("attempts", "right", spare=4),
        Column("reason", cut="end", width_min=10, spare=2),
    ]
    print_table(columns, rows, empty="nothing waits; `sessiondb dead DB` lists what was given up")


def _decide_restored(
    db: str, requeued: tuple[int | None, ...], given_up: tuple[int | None, ...], *, as_json: bool
) -> None:
    """Decide about messages of a restored backup, in their order. None stands for all."""
    with write_into(db, create=False) as opened:
        back = list(_restored(opened, requeued))
        for number in back:
            opened.write("inbox.requeue", partial(restored.requeue, inbox_no=number))
            _say(f"inbox item {number} waits in its lane again", quiet=as_json)
        dead_now = list(_restored(opened, given_up))
        for number in dead_now:
            opened.write("inbox.give_up", partial(restored.give_up, inbox_no=number))
            _say(f"inbox item {number} is a dead letter, and its sender is told", quiet=as_json)
    if as_json:
        print_json({"requeued": back, "given_up": dead_now})


def _restored(opened: sync.SessionDB, numbers: tuple[int | None, ...]) -> Iterator[int]:
    """Yield the messages that an option names: those numbers, or every one that waits."""
    if None not in numbers:
        yield from (number for number in numbers if number is not None)
        return
    after_no = 0
    while page := opened.read("inbox.restored", partial(restored.waiting, after_no=after_no)):
        yield from page
        after_no = page[-1]


def _with_texts(
    opened: sync.SessionDB, messages: Iterator[OpenMessage]
) -> Iterator[tuple[OpenMessage, str | None]]:
    """Yield messages, each with what it says."""
    while page := list(islice(messages, TEXTS_AT_ONCE)):
        texts = texts_of(opened, (message.inbox_no for message in page))
        yield from ((message, texts.get(message.inbox_no)) for message in page)


def _inbox_row(message: OpenMessage, text: str | None) -> list[object]:
    whose = f"{message.channel} {message.event_id}"
    accepted = at(message.accepted_at_ms)
    return [
        message.inbox_no,
        message.session_id,
        message.state,
        message.lane,
        age(message.accepted_at_ms),
        text,
        whose,
        accepted,
        message.attempts,
        message.reason,
    ]


@command(
    examples=(
        "sessiondb dead gateway.db",
        "sessiondb dead gateway.db --requeue 2",
    ),
)
@database_argument
@click.option(
    "--requeue",
    type=int,
    multiple=True,
    metavar="N",
    help="Put inbox item N back into its lane, with 0 attempts.",
)
@click.option("--drop", type=int, multiple=True, metavar="N", help="Drop inbox item N for good.")
@json_option("Print a JSON array, or an object about a decision.")
@debug_option
def dead(db: str, requeue: tuple[int, ...], drop: tuple[int, ...], as_json: bool) -> None:
    """List dead letters, or requeue or drop some.

    A dead letter is a message that was given up. The newest comes first, with its reason.
    """
    if requeue or drop:
        with write_into(db, create=False) as opened:
            for number in requeue:
                opened.requeue(number)
                _say(f"inbox item {number} waits in its lane again", quiet=as_json)
            for number in drop:
                opened.drop(number)
                _say(f"inbox item {number} is dropped", quiet=as_json)
        if as_json:
            print_json({"requeued": requeue, "dropped": drop})
        return
    with look_into(db) as opened:
        if as_json:
            print_json_array(to_json(letter) for letter in opened.dead_letters())
            return
        rows = [_dead_row(letter) for letter in opened.dead_letters()]
        sessions = session_column(opened, (str(row[1]) for row in rows))
    columns = [
        Column("inbox", "right"),
        sessions,
        Column("lane", cut="end", width_min=4, spare=2),
        Column("age", "right"),
        Column("text", cut="end", width_min=16),
        Column("from", cut="middle", width_min=8, spare=3),
        Column("accepted (UTC)", spare=5),
        Column("attempts", "right", spare=4),
        Column("reason", cut="end", width_min=12),
    ]
    print_table(columns, rows, empty="no dead letters")


def _dead_row(letter: DeadLetter) -> list[object]:
    whose = f"{letter.channel} {letter.event_id}"
    return [
        letter.inbox_no,
        letter.session_id,
        letter.lane,
        age(letter.accepted_at_ms),
        text_of(letter.payload),
        whose,
        at(letter.accepted_at_ms),
        letter.attempts,
        letter.reason,
    ]


# -- outbox ----------------------------------------------------------------------------------------


@command(
    examples=(
        "sessiondb outbox gateway.db --state unknown",
        "sessiondb outbox gateway.db --sent 1",
    ),
)
@database_argument
@click.option(
    "--state",
    type=click.Choice([*OPEN_REPLIES, "sent"]),
    help="Only replies in this state.  [default: all but sent]",
)
@click.option(
    "--sent",
    type=int,
    multiple=True,
    metavar="N",
    help="Reply N (unknown or failed) has reached its reader.",
)
@click.option(
    "--resend",
    type=int,
    multiple=True,
    metavar="N",
    help="Reply N (unknown or failed) is to be sent again.",
)
@json_option("Print a JSON array, or an object about a decision.")
@debug_option
def outbox(
    db: str, state: ReplyState | None, sent: tuple[int, ...], resend: tuple[int, ...], as_json: bool
) -> None:
    """List replies that are not sent, or settle some by hand.

    They are listed by state, oldest first. `unknown` means that the sender died, or could
    not tell, after it began to send. Such a reply is never sent again by itself. Look into
    the channel, then use --sent or --resend.
    """
    if sent or resend:
        with write_into(db, create=False) as opened:
            for number in sent:
                opened.settle_reply(number, "sent")
                _say(f"reply {number} is noted as sent", quiet=as_json)
            for number in resend:
                opened.settle_reply(number, "pending")
                _say(f"reply {number} will be sent again", quiet=as_json)
        if as_json:
            print_json({"sent": sent, "resent": resend})
        return
    with look_into(db) as opened:
        found = (
            reply for one in ((state,) if state else OPEN_REPLIES) for reply in opened.replies(one)
        )
        if as_json:
            print_json_array(to_json(reply) for reply in found)
            return
        rows = [_reply_row(reply) for reply in found]
        sessions = session_column(opened, (str(row[1]) for row in rows))
    columns = [
        Column("reply", "right"),
        sessions,
        Column("state"),
        Column("to", cut="middle", width_min=8),
        Column("age", "right"),
        Column("text", cut="end", width_min=12),
        Column("written (UTC)", spare=2),
        Column("attempts", "right", spare=1),
        Column("reason", cut="end", width_min=8),
    ]
    print_table(columns, rows, empty="no such replies" if state else "every reply is sent")


def _reply_row(reply: Reply) -> list[object]:
    return [
        reply.outbox_no,
        reply.session_id,
        reply.state,
        reply.target,
        age(reply.created_at_ms),
        text_of(reply.payload),
        at(reply.created_at_ms),
        reply.attempts,
        reply.reason,
    ]


# -- lanes -----------------------------------------------------------------------------------------


@command(
    examples=("sessiondb lanes gateway.db",),
)
@database_argument
@json_option("Print a JSON array.")
@debug_option
def lanes(db: str, as_json: bool) -> None:
    """List the lanes: their limits, what runs, and what waits.

    A lane with a lower priority number goes first. `oldest` is how long the message has waited
    that waits longest. Interrupted and dead messages are those that the lane accepted.
    """
    with look_into(db) as opened:
        found = opened.lanes()
    if as_json:
        print_json_array(to_json(lane) for lane in found)
        return
    columns = [
        Column("lane", cut="end", width_min=8),
        Column("priority", "right"),
        Column("running", "right"),
        Column("at most", "right"),
        Column("waiting", "right"),
        Column("oldest", "right"),
        Column("interrupted", "right"),
        Column("dead", "right"),
    ]
    print_table(columns, [_lane_row(lane) for lane in found], empty="no lanes")


def _lane_row(lane: Lane) -> list[object]:
    return [
        lane.lane,
        lane.priority,
        f"{lane.running:,}",
        f"{lane.concurrency:,}",
        f"{lane.waiting:,}",
        age(lane.oldest_waiting_ms),
        f"{lane.interrupted:,}",
        f"{lane.dead:,}",
    ]


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        click.echo(text)
