"""The group of commands, what all of them share, and how anything that goes wrong ends.

An error is one line, `sessiondb: <what>, <which>, <what to do>`, and an exit code (the table in the help's last
paragraph); `--debug` shows the traceback above it. A reader that goes away (`| head`) ends a command without a word,
with the code of a program that SIGPIPE stopped. Ctrl-C cancels what is being done, waits for its outcome (at most
one transaction) and ends with 130.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from sessiondb.errors import (
    InvalidKey,
    NotFound,
    OpenError,
    SessionDBError,
    StoreDamaged,
    outcome_of,
)

from .lazy import LazyGroup
from .terminal import escape, escape_lines

# The library itself is imported by the functions that use it, so that `--help` does not wait for it.
if TYPE_CHECKING:
    from sessiondb import sync

F = TypeVar("F", bound=Callable[..., Any])

OK, PROBLEMS, USAGE, NOT_FOUND, CANNOT_OPEN, BUSY = range(6)
BUG = 70
INTERRUPTED = 130
PIPE_CLOSED = 141

EPILOG = """\b
Exit codes:
    0  done
    1  verify found problems, or some input was refused
    2  wrong usage: options, arguments, or the SQL of a query
    3  no such session, key, entry or epoch
    4  the database cannot be opened: missing, damaged, foreign, newer
    5  busy, or the disk is full: the same command can succeed later
   70  a bug in sessiondb; --debug shows where
  130  interrupted by Ctrl-C
  141  whoever read the output stopped reading

\b
SESSION is a session id, a unique prefix of one, or a session key such as
agent:main:discord:channel:1. Times are UTC.
"""

# What writing a file or a pipe can fail with for no fault of the command.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_DEBUG = "sessiondb.debug"
_DB = "sessiondb.db"


class Failure(click.ClickException):
    """An error with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def exit_code_of(error: SessionDBError) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, OpenError | StoreDamaged):
        return CANNOT_OPEN
    if isinstance(error, InvalidKey):
        return USAGE
    return BUSY if error.retry else PROBLEMS


class Program(LazyGroup):
    """The group: turns errors into lines and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Before click sees it: click would end with 1, which here means that input was refused.
            silence_stdout()
            ctx.exit(PIPE_CLOSED)
        except KeyboardInterrupt as interrupt:
            raise click.Abort from interrupt  # click would print a line of its own first
        except (SessionDBError, OSError) as error:
            if ctx.meta.get(_DEBUG):
                _print_traceback()
            code = exit_code_of(error) if isinstance(error, SessionDBError) else PROBLEMS
            raise Failure(
                _unwritten(error)
                if isinstance(error, OSError) and error.errno in _DISK
                else str(error),
                code,
            ) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.meta.get(_DEBUG):
                _print_traceback()
            what = f"{type(error).__name__}: {error}"
            db = ctx.meta.get(_DB)
            damage = _damage_of(db) if db is not None else None
            if damage is not None:
                message = f"{db}: the file is damaged, and {ctx.invoked_subcommand} cannot go on ({what}). {damage}"
                way_out = (
                    f"Keep it as it is, and run `sessiondb salvage {db} NEW`, or restore a backup."
                )
                raise Failure(f"{message} {way_out}", CANNOT_OPEN) from error
            raise Failure(
                f"this is a bug: {what}. Run it again with --debug, and report what that prints.",
                BUG,
            ) from error

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any
    ) -> NoReturn:
        """Run, and end the process (or, in a test, raise SystemExit) with the exit code."""
        extra["standalone_mode"] = (
            False  # click would print errors in its own way and end with its own codes
        )
        code = self._run(args, prog_name, extra)
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            silence_stdout()  # said already; the interpreter would say it again at exit, with a code of its own
        sys.exit(code)

    def _run(self, args: Sequence[str] | None, prog_name: str | None, extra: dict[str, Any]) -> int:
        """Run, and return the exit code."""
        if sys.stdout is None or sys.stderr is None:
            return PIPE_CLOSED  # `>&-`: there is nobody to print for
        _print_whatever_comes()
        try:
            code = super().main(args, prog_name, **extra)
            sys.stdout.flush()
        except click.UsageError as error:
            context = error.ctx
            path = context.command_path if context is not None else "sessiondb"
            _complain(
                f"{path.removeprefix('sessiondb').strip() or 'usage'}: {error.format_message()} See `{path} --help`."
            )
            return USAGE
        except click.ClickException as error:
            _complain(error.format_message())
            return error.code if isinstance(error, Failure) else error.exit_code
        except click.Abort as abort:
            _say_what_became_of_it(abort)
            return INTERRUPTED
        except BrokenPipeError:
            silence_stdout()
            return PIPE_CLOSED
        except OSError as error:
            # What was still in the buffer could not be written: a full disk behind `> file`.
            silence_stdout()
            _complain(_unwritten(error))
            return PROBLEMS
        return code if isinstance(code, int) else OK


def _unwritten(error: OSError) -> str:
    """Say that output (the database's own disk has errors of its own) found no room, or a disk that fails."""
    where = f" to {error.filename}" if error.filename else ""
    way_out = "Free space there, or send it elsewhere; what the command has stored stays stored."
    return f"the output could not be written{where}: {error.strerror}. {way_out}"


def _print_whatever_comes() -> None:
    """A terminal that cannot show a character gets its escape; the alternative is to stop in mid-transcript."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _complain(message: str) -> None:
    click.echo(f"sessiondb: {escape(' '.join(message.split()))}", err=True)


def _print_traceback() -> None:
    """An error's message quotes what it is about, and that was written by strangers."""
    click.echo(escape_lines(traceback.format_exc()), err=True, nl=False)


def _say_what_became_of_it(abort: click.Abort) -> None:
    """Ctrl-C in mid-write: say whether the write happened, if it did or may have."""
    outcome = outcome_of(abort.__cause__) if abort.__cause__ is not None else None
    if outcome == "unknown":
        _complain(
            "interrupted, and whether the last write was stored is unknown: look before you repeat it"
        )
    elif sys.stderr.isatty():
        click.echo("", err=True)


def silence_stdout() -> None:
    """Point standard output at nothing: the interpreter flushes it once more when it exits, and would complain."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, sys.stdout.fileno())
    except (AttributeError, OSError):
        # Standard output has no descriptor (a test runner's, for one), so there is none to fail at exit.
        return
    finally:
        os.close(nothing)


# -- options ------------------------------------------------------------------------------------------------


def _remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG] = True


def _remember_db(ctx: click.Context, _param: click.Parameter, value: str) -> str:
    ctx.meta[_DB] = value
    return value


def _damage_of(db: str) -> str | None:
    """Say what is wrong with a database in which something unexpected happened; None if it is sound, so the bug is ours."""
    try:
        with look_into(db) as opened:
            report = opened.verify(deep=False)
    except (SessionDBError, OSError) as error:
        return str(error)
    return next(
        (finding.message for finding in report.findings if finding.severity == "error"), None
    )


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    from sessiondb import database

    parts = {"sessiondb": version("sessiondb"), **database.versions()}
    click.echo(", ".join(f"{name} {number}" for name, number in parts.items()))
    ctx.exit()


debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_remember_debug,
    is_eager=True,
    help="Show the traceback of an error.",
)
database_argument = click.argument("db", metavar="DB", callback=_remember_db)
session_argument = click.argument("session", metavar="SESSION")


class FiniteRange(click.FloatRange):
    """A number in a range. "nan" is in every range that compares, and "inf" is no number of seconds or hours."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def json_option(what: str = "Print JSON.") -> Callable[[F], F]:
    """Return the `--json` option, with what it prints."""
    return click.option("--json", "as_json", is_flag=True, help=what)


@click.group(
    cls=Program,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print versions and exit.",
)
@debug_option
def program() -> None:
    """Look into, fill and check a sessiondb database."""


# -- opening ------------------------------------------------------------------------------------------------


def look_into(db: str) -> sync.SessionDB:
    """Open a database for reading, beside a gateway that may have it open."""
    from sessiondb import sync
    from sessiondb.process import COMMAND_LINE

    return sync.open(db, readonly=True, program=COMMAND_LINE)


def write_into(db: str, *, create: bool) -> sync.SessionDB:
    """Open a database for writing."""
    from sessiondb import sync
    from sessiondb.process import COMMAND_LINE

    return sync.open(db, create=create, program=COMMAND_LINE)


def read_settings(path: str) -> Any:
    """Read a settings' file of OpenClaw; wrong usage if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        refuse(f"{path} is not JSON: {error}")


def refuse(message: str) -> NoReturn:
    """End the command: wrong usage."""
    raise click.UsageError(message)
