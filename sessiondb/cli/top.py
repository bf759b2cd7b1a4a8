"""The command `top`: health, lanes and sessions, live, and a session's transcript and epochs.

A look (`top_look.py`) is a few short snapshots of a database that is opened read-only. None is
held between two looks, so a gateway's WAL is reset meanwhile. What is drawn, and by which keys,
is in `top_app.py`, which alone imports textual.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sessiondb.errors import InvalidInput

from .program import (
    FiniteRange,
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    refuse,
)
from .terminal import as_record, print_json
from .top_look import look

if TYPE_CHECKING:
    from sessiondb import sync


@command(
    short_help="Show all that goes on, live, and open a session.",
    examples=("sessiondb top gateway.db --json",),
)
@database_argument
@click.option(
    "--every",
    type=FiniteRange(0.5, 3_600),
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="Look so often.",
)
@json_option("Print one look as JSON, and end.")
@debug_option
def top(db: str, every: float, as_json: bool) -> None:
    """Show all that goes on, live, and open a session.

    Enter opens a session: its epochs, and what was said last. Escape goes back, r looks at once,
    q ends. It needs the extra `tui`. The gateway is not disturbed.
    """
    if not as_json and not (sys.stdin.isatty() and sys.stdout.isatty()):
        refuse("top needs a terminal. --json prints one look, and `status --watch 2` many.")
    with look_into(db) as opened:
        if as_json:
            found = look(opened)
            print_json(
                {
                    "status": {**as_record(found.status), "verdict": found.status.verdict},
                    "sessions": [as_record(one) for one in found.sessions],
                }
            )
            return
        run_app(opened, db, every)


def run_app(opened: sync.SessionDB, db: str, every: float) -> None:
    """Draw until a person ends it.

    Raises:
        InvalidInput: textual is not installed.
    """
    try:
        from .top_app import TopApp
    except ImportError as error:
        raise InvalidInput(
            "top is drawn by textual, which is not installed. Install the extra: pip install "
            "'sessiondb[tui]'. `sessiondb status DB --watch 2` needs none"
        ) from error
    TopApp(opened, db, every).run()
