"""The command line: `sessiondb COMMAND DB ...`, a thin front over `sessiondb.sync`.

    program.py    the group, options that every command has, errors and exit codes
    lazy.py       a group that imports a command when it is used
    terminal.py   escaping, tables that fit, times, JSON
    queue.py      inbox, dead, outbox, lanes
    queue_texts.py  what messages of the queue say, and how old they are
    gateway.py    held, abort, stuck, resume
    events.py     events
    disk.py       disk: what takes the space
    retention.py  gc, unarchive, pin, unpin
    deletion.py   delete, redact
    sessions.py   sessions
    overview.py   context, compactions, status, verify
    search.py     search: words in what was said, and the index for them
    show.py       show, tail: transcripts for people
    history.py    epochs, diff, undo, reset, branch, fork
    transfer.py   import, export, append
    migrate.py    migrate
    follow.py     follow: a copy of a live home of OpenClaw
    mcp.py        mcp. mcp_tools.py has what an agent can do, with the library `mcp`
    backups.py    backup, restore-backup
    query.py      query: the reader's own SQL
    metrics.py    metrics
    watch.py      `--watch`: a command again and again
    top.py        top. top_look.py reads what it shows, top_app.py draws it, with textual
    session_ids.py  ids as a terminal shows them
    findings.py   the findings of verify
    doctor.py     doctor
    serve.py      serve: the public API over HTTP. `sessiondb/server` does it
    salvage.py    salvage: what can be read of a damaged file

Commands that read open the file read-only and hold no snapshot while they print, so a slow
terminal or a pager never keeps a gateway's WAL from being reset. Text from the database is
escaped before it reaches a terminal. The commands that write are `import`, `migrate`, `follow`,
`append`, `gc`, `unarchive`, `pin`, `unpin`, `doctor --fix`, `delete`, `redact`, `restore-backup`,
`undo`, `reset`, `branch`, `fork`, `search --build`, `serve`, and an operator's decisions about
what a gateway left behind.
"""

from __future__ import annotations

from .lazy import LazyCommand
from .program import program

__all__ = ["COMMANDS", "TASKS", "program"]


# The commands by task, in the order in which the help lists them. The line of each command
# is its own short help. A test compares the two.
TASKS = {
    "Look": {
        "status": LazyCommand("overview", "Show whether all is well, what waits, and space."),
        "sessions": LazyCommand("sessions", "List sessions, last changed first."),
        "show": LazyCommand("show", "Print a transcript for people to read."),
        "tail": LazyCommand("show", "Print the last entries, and follow new ones with -f."),
        "context": LazyCommand("overview", "Print the context that is sent to the model."),
        "compactions": LazyCommand("overview", "List compactions and their outcomes."),
        "epochs": LazyCommand("history", "List the generations of a session's context."),
        "diff": LazyCommand("history", "Show what left a context between two epochs."),
        "metrics": LazyCommand("metrics", "Print the figures of a database for Prometheus."),
        "search": LazyCommand("search", "Find words in what was said, the newest session first."),
        "query": LazyCommand("query", "Run a read-only SQL query and print its rows."),
    },
    "A gateway's queue": {
        "top": LazyCommand("top", "Show all that goes on, live, and open a session."),
        "stuck": LazyCommand("gateway", "Show what does not go on by itself, and what to do."),
        "lanes": LazyCommand("queue", "List the lanes: their limits, what runs, and what waits."),
        "inbox": LazyCommand("queue", "List accepted messages that are not done."),
        "dead": LazyCommand("queue", "List dead letters, or requeue or drop some."),
        "outbox": LazyCommand("queue", "List replies that are not sent, or settle some by hand."),
        "held": LazyCommand("gateway", "Show who holds what, and whether the holder is alive."),
        "abort": LazyCommand("gateway", "Stop a turn: its message is not answered."),
        "resume": LazyCommand("gateway", "Show what a start would resume, and why."),
        "events": LazyCommand("events", "Print events, and follow new ones with -f."),
        "serve": LazyCommand("serve", "Serve a database to programs in other languages."),
    },
    "Go back": {
        "undo": LazyCommand("history", "Undo a session's last compaction."),
        "reset": LazyCommand("history", "Begin a session's context anew."),
        "branch": LazyCommand("history", "Go to an entry: the next message follows it."),
        "fork": LazyCommand("history", "Make a session that continues from another one."),
    },
    "Move in and out": {
        "import": LazyCommand("transfer", "Import transcripts of pi and OpenClaw.", "import_"),
        "migrate": LazyCommand("migrate", "Move a home of OpenClaw in, with a receipt."),
        "follow": LazyCommand("follow", "Keep a copy of a live home of OpenClaw."),
        "export": LazyCommand("transfer", "Write transcripts back as files, byte for byte."),
        "append": LazyCommand("transfer", "Append JSON lines from standard input."),
    },
    "For other programs": {
        "mcp": LazyCommand("mcp", "Let an agent search and read, over MCP."),
    },
    "Back up": {
        "backup": LazyCommand("backups", "Back up a database in use, and verify the backup."),
        "restore-backup": LazyCommand(
            "backups", "Make a database from a backup, verified.", "restore_backup"
        ),
    },
    "Free space": {
        "disk": LazyCommand("disk", "Show what takes the space, and what frees it."),
        "gc": LazyCommand("retention", "Archive old sessions by limits, and free space."),
        "unarchive": LazyCommand("retention", "Bring an archived session back, exactly as it was."),
        "pin": LazyCommand("retention", "Protect a session from retention."),
        "unpin": LazyCommand("retention", "End the protection of a session from retention."),
    },
    "Delete": {
        "delete": LazyCommand("deletion", "Delete a session for good, or those of a key prefix."),
        "redact": LazyCommand("deletion", "Delete what one entry says, for good."),
    },
    "Repair": {
        "doctor": LazyCommand("doctor", "Show all that is wrong, what it means, and what to do."),
        "verify": LazyCommand("overview", "Check every invariant of a database."),
        "salvage": LazyCommand("salvage", "Salvage what can be read of a damaged file."),
    },
}
COMMANDS = {name: place for offered in TASKS.values() for name, place in offered.items()}
program.offer(TASKS)
