"""The command `follow`: a live home of OpenClaw has a second home here, about a second behind.

A pass imports what is new in the home, as `migrate` does, and compares nothing. The kernel says
when a file there changes, through the library `watchfiles`. Where it cannot, or loses count, a
pass is made every so many seconds. After a pass the command rests for three times as long as
that took, so it uses a quarter of one core at most. The home is only read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sessiondb.clock import iso_from_ms, monotonic, now_ms, pause
from sessiondb.errors import InvalidInput
from sessiondb.models import MigrationReport, SourceReceipt

from .program import (
    OK,
    PROBLEMS,
    FiniteRange,
    command,
    database_argument,
    debug_option,
    json_option,
    on_interrupt,
    repeat_while_busy,
)
from .terminal import at, counted, escape, to_json
from .transfer import (
    LISTED_FILES_MAX,
    Progress,
    open_for_import,
    print_wrapped,
    redact_options,
    redactor_of,
)

if TYPE_CHECKING:
    from sessiondb import sync

# Changes that follow each other so closely are one pass, up to a limit. A turn of a gateway writes
# several lines and an index.
TOGETHER_MS, TOGETHER_MS_MAX = 50, 500
# So often the watch returns, to see whether a pass is due in any case.
LOOK_MS = 1_000
# A rest is so many times as long as the pass before it, and no longer than this.
REST, REST_S_MAX = 3, 60.0
# Transcripts of both eras, what SQLite writes of a commit, and the index.
TRANSCRIPT = re.compile(r"\.jsonl(\.[^/]*)?$|\.sqlite(-wal)?$|/sessions\.json$")


@command(
    short_help="Keep a copy of a live home of OpenClaw.",
    examples=("sessiondb follow openclaw gateway.db --once",),
)
@click.argument(
    "home",
    metavar="OPENCLAW_HOME",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@database_argument
@click.option("--once", is_flag=True, help="Copy what is new, and end.")
@click.option(
    "--every",
    type=FiniteRange(1, 86_400),
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    help="Also look so often, whatever the kernel says. On a network it may say nothing.",
)
@redact_options("Store")
@json_option("Print one JSON object a pass that found something.")
@debug_option
def follow(
    home: Path,
    db: str,
    once: bool,
    every: float,
    redact: bool,
    redact_emails: bool,
    redact_rules: Path | None,
    as_json: bool,
) -> int:
    """Keep a copy of a live home of OpenClaw, about a second behind, until Ctrl-C.

    The copy outlives the home: what is reset, compacted or deleted there stays readable here. The
    home is only read. If the database has a search index, new entries are put there. The exit code
    of --once is 1 if something of a conversation could not be copied.
    """
    redactor = redactor_of(redact, redact_emails, redact_rules)
    with ExitStack() as stack:
        opened = open_for_import(db, stack, dry_run=False)
        copy = Copy(as_json=as_json)
        on_interrupt(copy.about_interrupt)
        for _ in once_now() if once else wakeups(home, every):
            with Progress("copying", quiet=as_json or copy.passes > 0) as progress:
                run = partial(
                    opened.migrate, home, compare=False, progress=progress, redactor=redactor
                )
                begun = monotonic()
                report = run() if once else repeat_while_busy(run)
            copy.take(report)
            _index(opened)
            if copy.passes > 1:  # the first one copied all that there was
                pause(min(REST * (monotonic() - begun), REST_S_MAX))
        return OK if copy.is_whole else PROBLEMS


def once_now() -> Iterator[None]:
    """Ask for one pass."""
    yield None


def wakeups(home: Path, every_s: float) -> Iterator[None]:
    """Ask for a pass at once, after each change of a transcript, and every `every_s` seconds.

    Changes during a pass ask for the next one. The watch begins before the first pass, so nothing
    falls between the two.

    Raises:
        InvalidInput: watchfiles is not installed.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise InvalidInput(
            "follow hears of changes through the library `watchfiles`, which is not installed. "
            "Install the extra: pip install 'sessiondb[follow]'. --once needs none"
        ) from error
    due_s = monotonic()
    for changes in watch(
        home,
        watch_filter=None,
        debounce=TOGETHER_MS_MAX,
        step=TOGETHER_MS,
        rust_timeout=LOOK_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    ):
        if monotonic() >= due_s or any(TRANSCRIPT.search(path) for _, path in changes):
            yield
            due_s = monotonic() + every_s


def _index(opened: sync.SessionDB) -> None:
    """Put new entries into the search index, if somebody has built one."""
    indexed = opened.search_indexed()
    if indexed.built and indexed.behind:
        repeat_while_busy(opened.build_search)


class Copy:
    """What the passes have copied, and what has been said about it."""

    def __init__(self, *, as_json: bool) -> None:
        self.passes = self.entries = 0
        self.is_whole = True
        self._as_json = as_json
        self._said: set[tuple[str, str]] = set()

    def take(self, report: MigrationReport) -> None:
        """Print what a pass has found. What it has found before is not said again."""
        self.passes += 1
        self.entries += report.entries_new
        self.is_whole = report.ok
        remarks = {(source.path, remark) for source in report.sources for remark in _about(source)}
        new = sorted(remarks - self._said)
        self._said = remarks
        transcripts = [source for source in report.sources if source.kind != "index"]
        grown = [source for source in transcripts if source.entries_new]
        if not (grown or new or self.passes == 1):
            return
        if self._as_json:
            click.echo(to_json(_record(report, grown, new)))
        else:
            self._print(report, grown, new)
        sys.stdout.flush()

    def _print(
        self,
        report: MigrationReport,
        grown: Sequence[SourceReceipt],
        new: Sequence[tuple[str, str]],
    ) -> None:
        entries = counted(report.entries_new, "new entry", "new entries")
        sources = counted(len(grown), "transcript")
        print_wrapped(f"{at(now_ms())}  {entries}, {sources}")
        for path, remark in new[:LISTED_FILES_MAX]:
            print_wrapped(f"{escape(path)}: {escape(remark)}")
        if len(new) > LISTED_FILES_MAX:
            click.echo(f"... and {len(new) - LISTED_FILES_MAX:,} more remarks; --json has them")

    def about_interrupt(self) -> str:
        """Return what is done, for Ctrl-C."""
        entries = counted(self.entries, "entry", "entries")
        return f"{entries} were copied, and are stored. The same command goes on from there."


def _about(source: SourceReceipt) -> Iterator[str]:
    """Yield what a person is to know about a source. A damaged line is kept as bytes."""
    if source.reason:
        yield f"not copied: {source.reason}"
    if source.damaged:
        yield f"{counted(source.damaged, 'damaged line')}, kept as bytes"


def _record(
    report: MigrationReport, grown: Sequence[SourceReceipt], new: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    return {
        "at": iso_from_ms(report.finished_at_ms),
        "entries_new": report.entries_new,
        "ok": report.ok,
        "sources": {source.path: source.entries_new for source in grown},
        "remarks": [{"path": path, "remark": remark} for path, remark in new],
    }
