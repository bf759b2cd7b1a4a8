"""`--watch SECONDS`: a command that is run again and again, until Ctrl-C.

On a terminal each run is drawn over the one before, as much of it as fits. Elsewhere the runs
follow one another, with the time between them, so that a log has them all. JSON documents follow
one another without it.

Every run is a call of its own: it opens the file read-only, reads, and closes it. So nothing is
held while it waits, and a gateway, an upgrade or a restored file is seen as it is then.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import click

from .terminal import at, cut

_WATCH = "sessiondb.watch"
SECONDS = (0.5, 86_400.0)
"""How often, at most and at least."""
# To the first cell, the rest of a line, the rest of the screen.
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


class _Screen(io.StringIO):
    """What a run prints for a terminal, before it is drawn."""

    def isatty(self) -> bool:
        return True


def remember(ctx: click.Context, _param: click.Parameter, value: float | None) -> None:
    """Keep the value of `--watch` for `run_watched`. The callback of the option."""
    ctx.meta[_WATCH] = value


def run_watched(ctx: click.Context, changing: Sequence[str], run: Callable[[], Any]) -> Any:
    """Run a command once, or with `--watch` until Ctrl-C.

    `changing` are the options with which it would change something each time.
    """
    seconds = ctx.meta.get(_WATCH)
    if seconds is None:
        return run()
    for option in ctx.command.params:
        if option.name in changing and ctx.params[option.name] not in (None, False, ()):
            raise click.UsageError(
                f"--watch would do what {option.opts[0]} asks for again and again. Use one of them."
            )
    from sessiondb.clock import now_ms, pause  # help is printed without them

    draw = _redrawn if sys.stdout.isatty() else _in_turn
    while True:
        with draw(f"{at(now_ms())} UTC, every {seconds:g} s", ctx.params.get("as_json") is True):
            run()
        sys.stdout.flush()
        pause(seconds)


@contextmanager
def _in_turn(title: str, as_json: bool) -> Iterator[None]:
    """Print a run behind the one before."""
    if not as_json:
        click.echo(f"== {title}")
    yield
    if not as_json:
        click.echo("")


@contextmanager
def _redrawn(title: str, _as_json: bool) -> Iterator[None]:
    """Draw a run over the one before. An error leaves the last one as it is."""
    screen = _Screen()
    with redirect_stdout(screen), redirect_stderr(screen):
        yield
    size = shutil.get_terminal_size()
    lines = [cut(line, size.columns) for line in (title, "", *screen.getvalue().splitlines())]
    room = max(size.lines - 1, 1)
    if len(lines) > room:
        lines[room - 1 :] = [f"({len(lines) - room + 1:,} more lines)"]
    drawn = "\n".join(line + _CLEAR_LINE for line in lines)
    click.echo(f"{_HOME}{drawn}\n{_CLEAR_REST}", nl=False)
