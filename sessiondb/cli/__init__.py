"""The command line: `sessiondb COMMAND DB ...`, a thin front over `sessiondb.sync`.

    program.py    the group, options that every command has, errors and exit codes
    terminal.py   escaping, tables that fit, times, JSON
    gateway.py    events, held, inbox, dead, outbox, resume
    keep.py       gc, restore, pin, unpin
    look.py       sessions, context, compactions, status, verify
    show.py       show, tail: transcripts for people
    transfer.py   import, export, append
    query.py      query: SQL of one's own
    salvage.py    salvage: what can be read of a damaged file

Commands that only look open the file read-only and hold no snapshot while they print, so a slow terminal or a pager
never keeps a gateway's WAL from being reset. What comes out of the database is escaped before it reaches a
terminal. Nothing is written but by `import`, `append`, `gc` and its kin, and an operator's decisions about what a gateway
left behind.
"""

from __future__ import annotations

from .gateway import dead, events, held, inbox, outbox, resume
from .overview import compactions, context, sessions, status, verify
from .program import program
from .query import query
from .retention import gc, pin, restore, unpin
from .salvage import salvage
from .show import show, tail
from .transfer import append, export, import_

__all__ = ["main", "program"]

for _command in (
    import_,
    export,
    sessions,
    show,
    context,
    tail,
    append,
    compactions,
    query,
    verify,
    status,
):
    program.add_command(_command)
for _command in (events, held, inbox, dead, outbox, resume):
    program.add_command(_command)
for _command in (gc, restore, pin, unpin, salvage):
    program.add_command(_command)


def main() -> None:
    """Run the command line; end the process with its exit code."""
    program.main(prog_name="sessiondb")
