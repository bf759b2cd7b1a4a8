"""Commands about a gateway's queue: its inbox, its dead letters, its outbox and its lanes.

A list opens the file read-only. A decision of an operator (`dead --requeue`, `outbox --sent`)
is one short write transaction. A gateway may run meanwhile, and notices the decision at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import click

from sessiondb import sync
from sessiondb.gateway import inbox as inbox_rules
from sessiondb.gateway import outbox as outbox_rules
from sessiondb.gateway import restored
from sessiondb.gateway import stopping as stopping_rules
from sessiondb.models import DeadLetter, Lane, OpenMessage, Reply

from .program import (
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    refuse,
    write_into,
)
from .queue_texts import age, text_of, with_text
from .session_ids import session_column, session_named
from .terminal import Column, at, print_json, print_json_array, print_table, say, to_json


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


# -- inbox -----------------------------------------------------------------------------------------


@command(
    examples=(
        "sessiondb inbox gateway.db -n 20",
        "sessiondb inbox gateway.db --session agent:main:discord:channel:1",
    ),
    watch_without=("withdraw", "line_up", "requeued", "given_up"),
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
        say(f"{changed:,} messages and replies had a wrong mark", quiet=as_json)
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
                say(f"inbox item {number} is withdrawn", quiet=as_json)
        if as_json:
            print_json({"withdrawn": withdraw})
        return
    with look_into(db) as opened:
        whose = session_named(opened, session) if session is not None else None
        found = opened.inbox(session=whose, limit=limit)
        if as_json:
            print_json_array(with_text(message, text_of(message.payload)) for message in found)
            return
        rows = [_inbox_row(message) for message in found]
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
            say(f"inbox item {number} waits in its lane again", quiet=as_json)
        dead_now = list(_restored(opened, given_up))
        for number in dead_now:
            opened.write("inbox.give_up", partial(restored.give_up, inbox_no=number))
            say(f"inbox item {number} is a dead letter, and its sender is told", quiet=as_json)
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


def _inbox_row(message: OpenMessage) -> list[object]:
    whose = f"{message.channel} {message.event_id}"
    accepted = at(message.accepted_at_ms)
    return [
        message.inbox_no,
        message.session_id,
        message.state,
        message.lane,
        age(message.accepted_at_ms),
        text_of(message.payload),
        whose,
        accepted,
        message.attempts,
        message.reason,
    ]


# -- dead letters ----------------------------------------------------------------------------------


@command(
    examples=(
        "sessiondb dead gateway.db",
        "sessiondb dead gateway.db --requeue 2",
    ),
    watch_without=("requeue", "drop"),
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
                say(f"inbox item {number} waits in its lane again", quiet=as_json)
            for number in drop:
                opened.drop(number)
                say(f"inbox item {number} is dropped", quiet=as_json)
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
    watch_without=("sent", "resend"),
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
                say(f"reply {number} is noted as sent", quiet=as_json)
            for number in resend:
                opened.settle_reply(number, "pending")
                say(f"reply {number} will be sent again", quiet=as_json)
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
    examples=(
        "sessiondb lanes gateway.db",
        "sessiondb lanes gateway.db --drop reports --into main",
    ),
    watch_without=("pause", "resume", "drop", "into"),
)
@database_argument
@click.option("--pause", metavar="LANE", help="Let no process claim from LANE.")
@click.option("--resume", metavar="LANE", help="Let LANE run again.")
@click.option("--drop", metavar="LANE", help="Drop LANE. Its loops return, in all processes.")
@click.option(
    "--into", metavar="LANE", help="With --drop: the lane for its messages that are not done."
)
@json_option("Print a JSON array.")
@debug_option
def lanes(
    db: str,
    pause: str | None,
    resume: str | None,
    drop: str | None,
    into: str | None,
    as_json: bool,
) -> None:
    """List the lanes: their limits, what runs, and what waits.

    A lane with a lower priority number goes first. `oldest` is how long the message has waited
    that waits longest. Interrupted and dead messages are those that the lane accepted. From a
    paused lane nothing is claimed, while messages are accepted and turns go on.
    """
    changes = sum(name is not None for name in (pause, resume, drop))
    if changes > 1:
        refuse("--pause, --resume and --drop are calls of their own.")
    if into is not None and drop is None:
        refuse("--into needs --drop LANE.")
    with write_into(db, create=False) if changes else look_into(db) as opened:
        if pause is not None:
            opened.pause_lane(pause)
        if resume is not None:
            opened.resume_lane(resume)
        if drop is not None:
            opened.drop_lane(drop, into=into)
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
        Column("paused", "right"),
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
        age(lane.paused_at_ms),
    ]
