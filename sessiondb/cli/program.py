"""The group of commands, the options that all of them share, and the ends of errors.

An error is one line, `sessiondb: <what>, <which>, <what to do>`, and an exit code from the
table in the help's last paragraph. `--debug` shows the traceback above it. A reader that
stops (`| head`) ends a command silently, with the code of a program that SIGPIPE stopped.
Ctrl-C cancels the call, waits for its outcome (at most one transaction) and ends with 130.
A command that had begun to change something says in one line what is done, and how to go
on (`on_interrupt`).
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from .watch import SECONDS, remember, run_watched

# The functions that use the library import it, so that `--help` does not wait for it.
if TYPE_CHECKING:
    from sessiondb import sync

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

# How often `events -f` and `tail -f` read. A read is one search of a primary key that finds
# nothing: microseconds, in a snapshot that ends at once. SQLite does not notify a process of
# another one's commit. Its change counter (PRAGMA data_version) would be polled just the
# same, and would only report that something changed, somewhere.
FOLLOW_S = 0.1

OK, PROBLEMS, USAGE, NOT_FOUND, CANNOT_OPEN, BUSY, UNFINISHED = range(7)
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
    6  verify found nothing wrong, and could not finish every check
   70  a bug in sessiondb; --debug shows where
  130  interrupted by Ctrl-C
  141  the reader of the output stopped reading

\b
SESSION is a session id, a unique prefix of one, or a session key such as
agent:main:discord:channel:1. ENTRY is an entry's number, as `show` prints it,
or its id. Times are UTC. With SESSIONDB=FILE in the environment, DB may be
left out.
"""

# Errors of a write to a file or a pipe that are no fault of the command.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_DEBUG = "sessiondb.debug"
_DB = "sessiondb.db"
_STORED = "sessiondb.stored"
DEFAULT_DB = "SESSIONDB"
"""The environment variable that names the database of a command that is given none."""


class Failure(click.ClickException):
    """An error with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(click.Abort):
    """Ctrl-C, and what the command says about it."""

    def __init__(self, stored: Callable[[], str] | None) -> None:
        super().__init__()
        self.stored = stored


def repeat_while_busy(step: Callable[[], T]) -> T:
    """Run a step of a command that follows, again while its error says "retry".

    Each error is a line on standard error. The step must be one that may be repeated.
    """
    from sessiondb.clock import pause  # help is printed without it

    while True:
        try:
            return step()
        except SessionDBError as error:
            if not error.retry:
                raise
            _complain(f"{str(error).rstrip('.')}. This command goes on.")
            pause(max(FOLLOW_S, getattr(error, "retry_after_ms", 0) / 1000))


def exit_code_of(error: SessionDBError) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, OpenError | StoreDamaged):
        return CANNOT_OPEN
    if isinstance(error, InvalidKey):
        return USAGE
    return BUSY if error.retry else PROBLEMS


class Command(click.Command):
    """A command whose help ends with examples, and that takes DB from the environment."""

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str],
        watch_without: Sequence[str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(*args, **extra)
        self.examples = tuple(examples)
        self.changing = tuple(watch_without or ())
        if watch_without is not None:
            names = [param.name for param in self.params]
            self.params.insert(names.index("as_json"), _watch_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Add the database that the environment names to too few arguments, at its place."""
        default = os.environ.get(DEFAULT_DB)
        if default and self._lacks_an_argument(ctx, args):
            required = [param for param in self.params if isinstance(param, click.Argument)]
            args = [default, *args] if required[0].name == "db" else [*args, default]
        return super().parse_args(ctx, args)

    def _lacks_an_argument(self, ctx: click.Context, args: list[str]) -> bool:
        required = [
            param.name
            for param in self.params
            if isinstance(param, click.Argument) and param.required
        ]
        try:
            found = self.make_parser(ctx).parse_args(list(args))[0]
        except click.UsageError:
            return False  # click itself parses once more, and reports it
        return not all(
            name and isinstance(found.get(name), (str, tuple)) and found[name] for name in required
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run. An error is reported once, by the command: the library's log shows it again."""
        if not ctx.meta.get(_DEBUG):
            logging.getLogger("sessiondb").addHandler(logging.NullHandler())
        run = super().invoke
        return run_watched(ctx, self.changing, lambda: run(ctx))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the examples. Lines are not wrapped, so that they can be copied."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def command(
    name: str | None = None,
    *,
    examples: Sequence[str],
    short_help: str | None = None,
    watch_without: Sequence[str] | None = None,
) -> Callable[[Callable[..., Any]], Command]:
    """Return the decorator of a command.

    `examples` are command lines about `gateway.db`. A test runs each of them. `watch_without`
    gives it `--watch`. It names the options with which the command would change something.
    """
    return click.command(
        name, cls=Command, examples=examples, short_help=short_help, watch_without=watch_without
    )


class Program(LazyGroup):
    """The group: turns errors into lines and exit codes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take no arguments at all for a question: what is there?"""
        return super().parse_args(ctx, args or ["--help"])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Before click sees it. click would end with 1, which here means refused input.
            silence_stdout()
            ctx.exit(PIPE_CLOSED)
        except KeyboardInterrupt as interrupt:
            # click would print a line of its own first.
            raise Interrupted(ctx.meta.get(_STORED)) from interrupt
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
            cause = f"{type(error).__name__}: {error}"
            db = ctx.meta.get(_DB)
            damage = _damage_of(db) if db is not None else None
            if damage is not None:
                raise Failure(
                    f"{db}: the file is damaged, and {ctx.invoked_subcommand} cannot go on "
                    f"({cause}). {damage} Keep it as it is, and run `sessiondb salvage {db} NEW`, "
                    "or restore a backup.",
                    CANNOT_OPEN,
                ) from error
            raise Failure(
                f"this is a bug: {cause}. Run it again with --debug, and report what that prints.",
                BUG,
            ) from error

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any
    ) -> NoReturn:
        """Run, and end the process with the exit code. In a test, raise SystemExit."""
        extra["standalone_mode"] = (
            False  # click would print errors in its own way and end with its own codes
        )
        code = self._run(args, prog_name, extra)
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            # Reported already. The interpreter would report it again at exit, and end with
            # a code of its own.
            silence_stdout()
        sys.exit(code)

    def _run(self, args: Sequence[str] | None, prog_name: str | None, extra: dict[str, Any]) -> int:
        """Run, and return the exit code."""
        if sys.stdout is None or sys.stderr is None:
            return PIPE_CLOSED  # `>&-`: there is nobody to print for
        _escape_unprintable_characters()
        try:
            with _ctrl_c_raises():
                code = super().main(args, prog_name, **extra)
                sys.stdout.flush()
        except click.UsageError as error:
            context = error.ctx
            path = context.command_path if context is not None else "sessiondb"
            command = path.removeprefix("sessiondb").strip() or "usage"
            _complain(f"{command}: {_about_usage(error)} See `{path} --help`.")
            return USAGE
        except click.ClickException as error:
            _complain(error.format_message())
            return error.code if isinstance(error, Failure) else error.exit_code
        except click.Abort as abort:
            _report_outcome(abort)
            return INTERRUPTED
        except BrokenPipeError:
            silence_stdout()
            return PIPE_CLOSED
        except OSError as error:
            # The rest of the buffer could not be written: a full disk behind `> file`.
            silence_stdout()
            _complain(_unwritten(error))
            return PROBLEMS
        return code if isinstance(code, int) else OK


@contextmanager
def _ctrl_c_raises() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt meanwhile, if it ends the process before and after.

    Then an interrupt has no traceback at start-up, and none at the interpreter's end.
    """
    ends_the_process = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    )
    try:
        if ends_the_process:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        if ends_the_process:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _about_usage(error: click.UsageError) -> str:
    """Return what is wrong with a command line, as whole sentences."""
    text = error.format_message().strip()
    text = text if text.endswith((".", "?", "!")) else f"{text}."
    if isinstance(error, click.MissingParameter) and error.param and error.param.name == "db":
        text += f" Name the database, or set {DEFAULT_DB} to its path."
    return text


def _unwritten(error: OSError) -> str:
    """Return the error text for output that could not be written.

    Errors of the database's own disk are reported elsewhere.
    """
    where = f" to {error.filename}" if error.filename else ""
    way_out = "Free space there, or send it elsewhere; what the command has stored stays stored."
    return f"the output could not be written{where}: {error.strerror}. {way_out}"


def _escape_unprintable_characters() -> None:
    """Print a character that the terminal's encoding lacks as an escape.

    The alternative is to stop in the middle of a transcript.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _complain(message: str) -> None:
    click.echo(f"sessiondb: {escape(' '.join(message.split()))}", err=True)


def _print_traceback() -> None:
    """Print the traceback, escaped: an error's message can quote text that strangers wrote."""
    click.echo(escape_lines(traceback.format_exc()), err=True, nl=False)


def on_interrupt(stored: Callable[[], str]) -> None:
    """Set what Ctrl-C reports from here on: what is done, and how to go on."""
    click.get_current_context().meta[_STORED] = stored


def _report_outcome(abort: Interrupted | click.Abort) -> None:
    """Report what Ctrl-C left behind. A command that only reads leaves nothing."""
    outcome = outcome_of(abort.__cause__) if abort.__cause__ is not None else None
    stored = abort.stored if isinstance(abort, Interrupted) else None
    if outcome == "unknown":
        _complain(
            "interrupted, and it is unknown whether the last write was stored. "
            "Look before you repeat it."
        )
    elif stored is not None:
        _complain(f"interrupted. {stored()}")
    elif sys.stderr.isatty():
        click.echo("", err=True)


def silence_stdout() -> None:
    """Point standard output at nothing.

    The interpreter flushes it once more when it exits, and would complain.
    """
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, sys.stdout.fileno())
    except (AttributeError, OSError):
        # This standard output has no descriptor (a test runner's has none), so no flush of one
        # can fail at exit.
        return
    finally:
        os.close(nothing)


# -- options ---------------------------------------------------------------------------------------


def _remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG] = True


def _remember_db(ctx: click.Context, _param: click.Parameter, value: str) -> str:
    ctx.meta[_DB] = value
    return value


def _damage_of(db: str) -> str | None:
    """Return what is wrong with a database after an unexpected error.

    None if it is sound. Then the error is a bug of ours.
    """
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
    """A finite number in a range.

    "nan" would pass every comparison with a bound, and "inf" is no number of seconds or hours.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def _watch_option() -> click.Option:
    """Return the `--watch` option of a command that can only look."""
    return click.Option(
        ["--watch"],
        type=FiniteRange(*SECONDS),
        metavar="SECONDS",
        expose_value=False,
        callback=remember,
        help="Show it again every so many seconds, until Ctrl-C.",
    )


def json_option(description: str = "Print JSON.") -> Callable[[F], F]:
    """Return the `--json` option, with a description of what it prints."""
    return click.option("--json", "as_json", is_flag=True, help=description)


@click.group(
    cls=Program,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
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
    """Read, fill and check a sessiondb database."""


# -- opening ---------------------------------------------------------------------------------------


def look_into(db: str, *, read_s: float | None = None) -> sync.SessionDB:
    """Open a database for reading, beside a gateway that may have it open.

    `read_s` is how long one read may take. None: as long as the library's default.
    """
    from sessiondb import sync
    from sessiondb.limits import Limits
    from sessiondb.process import COMMAND_LINE

    limits = Limits() if read_s is None else Limits(read_age_s_max=read_s)
    return sync.open(db, readonly=True, program=COMMAND_LINE, limits=limits)


def write_into(db: str, *, create: bool) -> sync.SessionDB:
    """Open a database for writing."""
    from sessiondb import sync
    from sessiondb.process import COMMAND_LINE

    return sync.open(db, create=create, program=COMMAND_LINE)


def read_settings(path: str) -> Any:
    """Read a settings file of OpenClaw. One that is not JSON is wrong usage."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        refuse(f"{path} is not JSON: {error}")


def refuse(message: str) -> NoReturn:
    """End the command: wrong usage."""
    raise click.UsageError(message)
