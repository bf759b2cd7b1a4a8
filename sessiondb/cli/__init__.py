"""The command line: `sessiondb COMMAND DB ...`, a thin front over `sessiondb.sync`.

    program.py    the group, options that every command has, errors and exit codes
    lazy.py       a group that imports a command when it is used
    terminal.py   escaping, tables that fit, times, JSON
    gateway.py    events, held, inbox, dead, outbox, resume, stuck
    retention.py  gc, unarchive, pin, unpin
    overview.py   sessions, context, compactions, status, verify
    show.py       show, tail: transcripts for people
    transfer.py   import, export, append
    query.py      query: the reader's own SQL
    salvage.py    salvage: what can be read of a damaged file

Commands that read open the file read-only and hold no snapshot while they print, so a slow
terminal or a pager never keeps a gateway's WAL from being reset. Text from the database is
escaped before it reaches a terminal. The commands that write are `import`, `append`, `gc`,
`unarchive`, `pin`, `unpin`, and an operator's decisions about what a gateway left behind.
"""

from __future__ import annotations

from .lazy import LazyCommand
from .program import program

__all__ = ["main", "program"]

# The line of each command is its own short help. A test compares the two.
_APART = {"import": "import_"}  # a keyword cannot name a function
COMMANDS = {
    name: LazyCommand(module, _APART.get(name, name), short_help)
    for module, short_helps in {
        "sessiondb.cli.gateway": {
            "dead": "List dead letters, or requeue or drop some.",
            "events": "Print events, oldest first, and follow new ones with -f.",
            "held": "Show who holds what, and whether the holder is alive.",
            "inbox": "List accepted messages that are not done.",
            "outbox": "List replies that are not sent, or settle some by hand.",
            "resume": "Show what a start would resume, and why.",
            "stuck": "Show what does not go on by itself, and the command that goes on.",
        },
        "sessiondb.cli.overview": {
            "compactions": "List compactions and their outcomes.",
            "context": "Print the context that is sent to the model.",
            "sessions": "List sessions, last changed first.",
            "status": "Show counts, jobs, processes and space.",
            "verify": "Check every invariant of a database.",
        },
        "sessiondb.cli.query": {
            "query": "Run a read-only SQL query and print its rows.",
        },
        "sessiondb.cli.retention": {
            "gc": "Archive old sessions by limits. --dry-run only lists them.",
            "pin": "Protect a session from retention.",
            "unarchive": "Bring an archived session back, exactly as it was.",
            "unpin": "End the protection of a session from retention.",
        },
        "sessiondb.cli.salvage": {
            "salvage": "Salvage what can be read of a damaged file.",
        },
        "sessiondb.cli.show": {
            "show": "Print a transcript for people to read.",
            "tail": "Print the last entries, and follow new ones with -f.",
        },
        "sessiondb.cli.transfer": {
            "append": "Append JSON lines from standard input.",
            "export": "Write transcripts back as files, byte for byte.",
            "import": "Import transcripts of pi and OpenClaw.",
        },
    }.items()
    for name, short_help in short_helps.items()
}
program.offer(COMMANDS)


def main() -> None:
    """Run the command line; end the process with its exit code."""
    program.main(prog_name="sessiondb")
