"""Time travel: epochs, diff, undo, reset, branch, fork.

Transcripts are immutable, and only pointers move, so each of these can be taken back: an
undo, a reset and a switch of branches by `branch` or `fork --epoch`. A gateway may run
meanwhile. A turn that is running goes on with the context that it has read.
"""

from __future__ import annotations

import click

from sessiondb import sync
from sessiondb.models import ContextDiff, Entry, EpochInfo
from sessiondb.transcript.pieces import entry_json, title_of

from .program import (
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    session_argument,
    write_into,
)
from .session_ids import EntryNames, entry_id_of, session_named
from .show import parts_of
from .terminal import (
    Column,
    at,
    counted,
    cut,
    duration,
    escape,
    print_json,
    print_json_array,
    print_line,
    print_table,
    say,
    terminal_width,
    to_json,
    wrap,
)

ROOT = "root"

entry_argument = click.argument("entry", metavar="ENTRY")


# -- epochs and their differences ----------------------------------------------------------


@command(examples=("sessiondb epochs gateway.db agent:main:discord:channel:1",))
@database_argument
@session_argument
@json_option("Print a JSON array.")
@debug_option
def epochs(db: str, session: str, as_json: bool) -> None:
    """List the generations of a session's context.

    A compaction, a reset, an undo and a switch of branches each begin one. `diff`,
    `context --epoch` and `fork --epoch` take the numbers.
    """
    with look_into(db) as opened:
        found = session_named(opened, session).epochs()
    if as_json:
        print_json_array(to_json(epoch) for epoch in found)
        return
    columns = [
        Column("epoch", "right"),
        Column("begun by"),
        Column("from (UTC)"),
        Column("to (UTC)"),
        Column("for", "right", spare=1),
    ]
    print_table(columns, [_epoch_row(epoch) for epoch in found], empty="no epochs")


def _epoch_row(epoch: EpochInfo) -> list[object]:
    closed_ms = epoch.closed_at_ms
    lasted = duration(closed_ms - epoch.opened_at_ms) if closed_ms is not None else ""
    return [
        epoch.epoch,
        epoch.reason,
        at(epoch.opened_at_ms),
        at(closed_ms) if closed_ms is not None else "now",
        lasted,
    ]


@command(
    examples=(
        "sessiondb diff gateway.db agent:main:discord:channel:1 0 1",
        "sessiondb diff gateway.db agent:main:discord:channel:1 0 1 --json",
    ),
)
@database_argument
@session_argument
@click.argument("before", metavar="N", type=click.IntRange(min=0))
@click.argument("after", metavar="M", type=click.IntRange(min=0))
@click.option("--full", is_flag=True, help="Print the whole text of each entry.")
@json_option("Print an object with the entries that left and came.")
@debug_option
def diff(db: str, session: str, before: int, after: int, full: bool, as_json: bool) -> None:
    """Show what left a context between two epochs.

    It also shows what came. It compares the contexts at the end of epoch N and of epoch M.
    Between the epochs before and after a compaction, - is what it removed and + the summary
    that replaced it. Messages that arrived meanwhile are + too. Nothing of - is deleted:
    `context --epoch N` has it.
    """
    with look_into(db) as opened:
        chosen = session_named(opened, session)
        found = chosen.diff(before, after)
        if as_json:
            _print_json(found)
            return
        names = EntryNames(opened, chosen)
        for sign, entries in (("-", found.removed), ("+", found.added)):
            for entry in entries:
                _print_change(sign, f"{names(entry)}  {title_of(entry)}", entry, full=full)
    say(_summary(found), quiet=False)


def _print_json(found: ContextDiff) -> None:
    removed = ", ".join(map(entry_json, found.removed))
    added = ", ".join(map(entry_json, found.added))
    head = f'"before": {found.before}, "after": {found.after}, "kept": {found.kept}'
    click.echo(f'{{{head}, "removed": [{removed}], "added": [{added}]}}')


def _print_change(sign: str, title: str, entry: Entry, *, full: bool) -> None:
    title = f"{sign} {title}"
    text = " ".join(f"{part.mark} {part.text}".strip() for part in parts_of(entry))
    if not full and sign == "-":
        print_line(escape(f"{title}: {text}"))
        return
    width = terminal_width()
    click.echo(escape(cut(title, width) if width else title))
    for part in parts_of(entry):
        for line in part.text.split("\n"):
            for row in wrap(escape(line), width - 4 if width else None):
                click.echo(f"{sign}   {row}".rstrip())


def _summary(found: ContextDiff) -> str:
    def told(entries: tuple[Entry, ...], verb: str) -> str:
        tokens = sum(entry.tokens for entry in entries)
        return f"{counted(len(entries), 'entry', 'entries')} {verb} (about {tokens:,} tokens)"

    changed = f"{told(found.removed, 'left')}, {told(found.added, 'came')}"
    return f"epoch {found.before} to {found.after}: {changed}, {found.kept:,} stayed"


# -- going back ----------------------------------------------------------------------------


@command(examples=("sessiondb undo gateway.db agent:main:discord:channel:1",))
@database_argument
@session_argument
@json_option()
@debug_option
def undo(db: str, session: str, as_json: bool) -> None:
    """Undo a session's last compaction.

    The context is that before it again. Messages that arrived since stay. A second undo
    takes back the compaction before.
    """
    with write_into(db, create=False) as opened:
        chosen = session_named(opened, session)
        epoch = chosen.undo_compaction()
    _tell(chosen, epoch, "the compaction is undone", as_json=as_json)


@command(
    examples=(
        "sessiondb reset gateway.db agent:main:discord:channel:1",
        "sessiondb reset gateway.db agent:main:discord:channel:1 --keep-from 24",
    ),
)
@database_argument
@session_argument
@click.option("--keep-from", metavar="ENTRY", help="Keep the conversation from this entry on.")
@json_option()
@debug_option
def reset(db: str, session: str, keep_from: str | None, as_json: bool) -> None:
    """Begin a session's context anew.

    The session stays the same. Nothing is deleted. `branch` to an entry before the reset
    takes it back.
    """
    with write_into(db, create=False) as opened:
        chosen = session_named(opened, session)
        kept = entry_id_of(opened, chosen, keep_from) if keep_from is not None else None
        epoch = chosen.reset(keep_from=kept)
    _tell(chosen, epoch, "the context begins anew", as_json=as_json)


@command(
    examples=(
        "sessiondb branch gateway.db agent:main:discord:channel:1 4",
        "sessiondb branch gateway.db agent:main:discord:channel:1 root",
    ),
)
@database_argument
@session_argument
@entry_argument
@json_option()
@debug_option
def branch(db: str, session: str, entry: str, as_json: bool) -> None:
    """Go to an entry: the next message follows it.

    What came after it stays on a branch of its own, and `branch` to one of its entries goes
    back. ENTRY is a number as `show` prints it, an entry's id, or root.
    """
    with write_into(db, create=False) as opened:
        chosen = session_named(opened, session)
        entry_id = None if entry == ROOT else entry_id_of(opened, chosen, entry)
        epoch = chosen.branch(entry_id)
    _tell(chosen, epoch, f"the next message follows {entry}", as_json=as_json)


@command(
    examples=(
        "sessiondb fork gateway.db agent:main:discord:channel:1 --entry 4",
        "sessiondb fork gateway.db agent:main:discord:channel:1 --epoch 0",
    ),
)
@database_argument
@session_argument
@click.option("--entry", metavar="ENTRY", help="Continue from this entry.  [default: the last]")
@click.option("--epoch", type=click.IntRange(min=0), help="Continue from the end of this epoch.")
@click.option("--key", metavar="KEY", help="Bind this key to the new session.")
@click.option("--id", "session_id", metavar="ID", help="The new session's id.")
@json_option()
@debug_option
def fork(
    db: str,
    session: str,
    entry: str | None,
    epoch: int | None,
    key: str | None,
    session_id: str | None,
    as_json: bool,
) -> None:
    """Make a session that continues from another one.

    No entry is copied. The other session stays as it is, and may have ended. Prints the new
    session's id.
    """
    with write_into(db, create=False) as opened:
        chosen = session_named(opened, session)
        entry_id = entry_id_of(opened, chosen, entry) if entry is not None else None
        made = chosen.fork(entry=entry_id, epoch=epoch, key=key, session_id=session_id)
    if as_json:
        print_json({"session_id": made.id, "forked_from": chosen.id})
    else:
        click.echo(escape(made.id))


def _tell(session: sync.Session, epoch: int, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"session_id": session.id, "epoch": epoch})
    else:
        say(escape(f"{session.id}: {text}; this is epoch {epoch}"), quiet=False)
