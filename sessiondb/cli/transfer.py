"""The commands `import`, `export` and `append`.

`append` stores as it reads. The lines that have arrived on standard input are one batch, at most
`BATCH_LINES` in one transaction. So the line of a slow producer is on disk at once, and the lines
of a fast one share a commit. A batch with a refused line is stored line by line, so a bad line
never keeps a good one out. After a kill, every acknowledged line is stored. With idempotency keys
the same input can be sent again.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

import click

from sessiondb import Item, sync
from sessiondb.errors import ConstraintFailed, InvalidInput, NotFound, SessionDBError
from sessiondb.limits import ENTRY_BYTES_MAX
from sessiondb.models import ExportedFile, ExportReport, FileReceipt, ImportReport, Receipt
from sessiondb.transcript.keys import looks_like_key
from sessiondb.transfer.redaction import Redactor, redactor_from
from sessiondb.words import ExportFormat

from .program import (
    OK,
    PROBLEMS,
    Failure,
    command,
    database_argument,
    debug_option,
    exit_code_of,
    json_option,
    look_into,
    on_interrupt,
    refuse,
    session_argument,
    write_into,
)
from .session_ids import entry_id_of, session_column, session_named
from .terminal import (
    Column,
    counted,
    cut,
    escape,
    print_json,
    print_line,
    print_table,
    size,
    terminal_width,
    to_json,
    wrap,
)

F = TypeVar("F", bound=Callable[..., Any])

BATCH_LINES = 100
READ_BYTES = 256 * 1024
# Up to this many files, each is listed. Above it, only files with a note or a problem.
LISTED_FILES_MAX = 20
# What the lines say that count the files which were not imported, by status.
_NOT_IMPORTED = {
    "failed": "failed",
    "foreign": "conversations of other programs",
    "changed": "changed since their import",
    "skipped": "no conversations",
}

# The kinds of files that have a plural: by their last word, and those that do not end in one.
_NOUNS = ("credential", "database", "file", "folder", "link", "log", "rollout", "skill", "stream")
_PLURALS = {
    "compressed transcript": "compressed transcripts",
    "copy": "copies",
    "index": "indexes",
    "list": "lists",
    "part": "parts",
    "pointer": "pointers",
    "trajectory": "trajectories",
    "transcript elsewhere": "transcripts elsewhere",
    "transcript with an odd name": "transcripts with odd names",
}


class Progress:
    """A progress bar on standard error, if that is a terminal."""

    def __init__(self, label: str, *, quiet: bool) -> None:
        self.done = self.total = 0  # files
        self._label = label
        self._shows = sys.stderr.isatty() and not quiet
        self._bar: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def __call__(
        self, files_done: int, files_total: int, bytes_done: int, bytes_total: int, name: str
    ) -> None:
        self.done, self.total = files_done, files_total
        if not self._shows:
            return
        if self._bar is None:
            bar = click.progressbar(
                length=max(bytes_total, 1),
                label=self._label,
                file=sys.stderr,
                item_show_func=_shown_item,
                width=24,
            )
            self._bar = self._stack.enter_context(bar)
        self._bar.length = max(bytes_total, 1)
        self._bar.update(bytes_done - self._bar.pos, f"{files_done}/{files_total} {escape(name)}")


def _shown_item(item: str | None) -> str | None:
    return cut(item, 24, "middle") if item else None


# -- redaction -------------------------------------------------------------------------------------


def redact_options(verb: str) -> Callable[[F], F]:
    """Return the options that choose rules."""
    options = [
        click.option(
            "--redact",
            is_flag=True,
            help=f"{verb} no secret that has a known shape (keys, tokens, passwords in URLs).",
        ),
        click.option("--redact-emails", is_flag=True, help="... and without e-mail addresses."),
        click.option(
            "--redact-rules",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help=(
                "... and without the matches of the rules in this file: "
                "one a line, `name = regular expression`."
            ),
        ),
    ]

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def redactor_of(redact: bool, emails: bool, rules_file: Path | None) -> Redactor | None:
    """Return the redactor that the options ask for. Each of them implies --redact."""
    return (
        redactor_from(emails=emails, rules_file=rules_file)
        if redact or emails or rules_file is not None
        else None
    )


def _redacted(files: Sequence[FileReceipt | ExportedFile]) -> str:
    """Return how many secrets were redacted, by rule, as the end of a summary."""
    counts: Counter[str] = Counter()
    for file in files:
        counts.update(file.redacted)
    listed = ", ".join(f"{count:,} {rule}" for rule, count in sorted(counts.items()))
    return f"; redacted: {listed}" if counts else ""


# -- import ----------------------------------------------------------------------------------------


@command(
    "import",
    short_help="Import transcripts of pi and OpenClaw.",
    examples=(
        "sessiondb import gateway.db transcripts --dry-run",
        "sessiondb import gateway.db transcripts --verify",
    ),
)
@database_argument
@click.argument(
    "paths",
    metavar="PATH...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option("--dry-run", is_flag=True, help="Report what would be imported, and change nothing.")
@click.option(
    "--verify",
    is_flag=True,
    help="Export every file in memory, and compare its bytes and its context.",
)
@click.option("-v", "--verbose", is_flag=True, help="List every file, and every quarantined line.")
@redact_options("Store")
@json_option()
@debug_option
def import_(
    db: str,
    paths: tuple[Path, ...],
    dry_run: bool,
    verify: bool,
    verbose: bool,
    redact: bool,
    redact_emails: bool,
    redact_rules: Path | None,
    as_json: bool,
) -> int:
    """Import transcripts: files and folders of pi, state folders of OpenClaw.

    The files are only read. A second import adds what is new. A line that is not an entry is kept
    as it is, listed here, and comes back on export. Then the exit code is 1. So it is when a
    conversation was not imported: of another program, say, or in a file that cannot be read.
    """
    redactor = redactor_of(redact, redact_emails, redact_rules)
    reports = []
    with ExitStack() as stack:
        opened = open_for_import(db, stack, dry_run=dry_run)
        for path in paths:
            with Progress("importing", quiet=as_json) as progress:
                if not dry_run:
                    on_interrupt(partial(_about_import, path, progress))
                reports.append(
                    opened.import_path(
                        path, dry_run=dry_run, verify=verify, progress=progress, redactor=redactor
                    )
                )
            if not as_json:
                sessions = session_column(opened, (file.session_id for file in reports[-1].files))
                _print_import(reports[-1], sessions, verbose=verbose)
    if as_json:
        print_json(
            [
                {
                    **dataclasses.asdict(report),
                    "not_imported": report.not_imported,
                    "ok": report.ok,
                }
                for report in reports
            ]
        )
    return OK if all(report.ok and not report.damaged for report in reports) else PROBLEMS


def _about_import(path: Path, progress: Progress) -> str:
    done = f"{progress.done:,} of {counted(progress.total, 'file')} of {path}"
    return f"{done} were read, and what was read is stored. The same command goes on from there."


def open_for_import(db: str, stack: ExitStack, *, dry_run: bool) -> sync.SessionDB:
    """Open the database. A dry run opens it for reading, or a temporary one if there is none."""
    if not dry_run:
        return stack.enter_context(write_into(db, create=True))
    if Path(db).exists():
        return stack.enter_context(look_into(db))
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(write_into(str(Path(folder) / "empty.db"), create=True))


def _print_import(report: ImportReport, sessions: Column, *, verbose: bool) -> None:
    lists_all = verbose or len(report.files) <= LISTED_FILES_MAX
    listed = [file for file in report.files if lists_all or _is_remarkable(file)]
    columns = [
        Column("file", cut="middle", width_min=14),
        Column("status"),
        sessions,
        Column("entries", "right"),
        Column("new", "right"),
        Column("damaged", "right"),
        Column("note", cut="end", width_min=6),
    ]
    rows = [_import_row(file) for file in listed]
    if rows:
        print_table(columns, rows, empty="")
    if len(listed) < len(report.files):
        rest = len(report.files) - len(listed)
        click.echo(f"... and {rest:,} files without a remark; --verbose lists them")
    _print_quarantined(report, verbose=verbose)
    _print_not_imported(report)
    _print_unredacted(report)
    counts: dict[str, int] = {}
    for file in report.files:
        counts[file.status] = counts.get(file.status, 0) + 1
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items()) or "no transcripts"
    verified = [file.verified for file in report.files if file.verified is not None]
    checked = f"; verified: {sum(verified):,} of {len(verified):,} equal" if verified else ""
    new = counted(report.entries_new, "new entry", "new entries")
    damaged = counted(report.damaged, "damaged line")
    print_wrapped(
        f"{escape(report.root)}: {states}; {size(report.bytes)}, {new}, {damaged}"
        f"{checked}{_redacted(report.files)}"
    )


def _is_remarkable(file: FileReceipt) -> bool:
    """Return whether a file is listed among many. What holds no conversation is only counted."""
    return file.status != "skipped" and bool(
        file.notes
        or file.damaged
        or file.verified is False
        or file.status in ("failed", "foreign", "changed")
    )


def _print_not_imported(report: ImportReport) -> None:
    """Say why the conversations of some files are not here, and count all by kind."""
    names: dict[str, list[str]] = {}
    for file in report.files:
        if file.status in ("failed", "foreign", "changed"):
            names.setdefault(file.note, []).append(file.name)
    for note, files in list(names.items())[:LISTED_FILES_MAX]:
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        print_wrapped(f"not imported: {escape(files[0])}{more}: {escape(note)}")
    if len(names) > LISTED_FILES_MAX:
        click.echo(f"... and {len(names) - LISTED_FILES_MAX:,} more reasons; --json has them")
    for status, kinds in report.not_imported.items():
        print_wrapped(f"{_NOT_IMPORTED[status]}: {kinds_counted(dict(sorted(kinds.items())))}")


def kinds_counted(kinds: Mapping[str, int]) -> str:
    """Show how many files there are of each kind."""
    return ", ".join(
        counted(count, escape(kind), escape(_plural(kind))) for kind, count in kinds.items()
    )


def _plural(kind: str) -> str:
    """Return the name of several files of a kind. A program's name, say, has none of its own."""
    noun, of, rest = kind.partition(" of ")
    if of:
        return _plural(noun) + of + rest
    return _PLURALS.get(kind, f"{kind}s" if kind.endswith(_NOUNS) else kind)


def _print_unredacted(report: ImportReport) -> None:
    """Say which secrets an earlier import stored, because this one did not take them out."""
    files = [file for file in report.files if file.unredacted]
    for file in files[:LISTED_FILES_MAX]:
        print_wrapped(f"not redacted: {escape(file.name)}: {escape(file.note)}")
    if len(files) > LISTED_FILES_MAX:
        click.echo(f"... and {len(files) - LISTED_FILES_MAX:,} more files; --json has them")


def _import_row(file: FileReceipt) -> list[object]:
    status = file.status + (" DIFFERS" if file.verified is False else "")
    return [
        file.name,
        status,
        file.session_id,
        f"{file.entries:,}",
        f"{file.entries_new:,}",
        file.damaged or "",
        file.note,
    ]


def _print_quarantined(report: ImportReport, *, verbose: bool) -> None:
    """Print each damaged line: file, line, byte offset, size and reason."""
    shown_max = None if verbose else LISTED_FILES_MAX
    lines = [(file, line) for file in report.files for line in file.quarantined]
    for file, line in lines[:shown_max]:
        where = (
            f"{escape(file.name)}, line {line.line}, byte {line.byte_offset}, {size(line.bytes)}"
        )
        print_line(f"damaged: {where}: {escape(line.reason)}")
    if shown_max is not None and len(lines) > shown_max:
        click.echo(
            f"... and {len(lines) - shown_max:,} more; "
            "--verbose lists them, and so does the view `quarantine_log`"
        )


# -- export ----------------------------------------------------------------------------------------


@command(
    short_help="Write transcripts back as files, byte for byte.",
    examples=(
        "sessiondb export gateway.db copies",
        "sessiondb export gateway.db home --openclaw",
        "sessiondb export gateway.db copies --session agent:main:discord:channel:1",
        "sessiondb export gateway.db ended.html --format html --session ended-one",
        "sessiondb export gateway.db tables --format csv",
    ),
)
@database_argument
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--session", metavar="SESSION", help="Only this session. Default: all.")
@click.option(
    "--openclaw",
    is_flag=True,
    help="DEST is a home of OpenClaw: lay the files out as it takes them for its own.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(ExportFormat)),
    default="transcript",
    show_default=True,
    help="transcript: as pi and OpenClaw read it. The others are for people and their programs.",
)
@click.option(
    "--branch",
    metavar="ENTRY",
    help="With --session and --format: the path to this entry.  [default: the current path]",
)
@click.option(
    "--archived", is_flag=True, help="With --format: archived sessions too, out of their archives."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files that have other content.")
@redact_options("Write")
@json_option()
@debug_option
def export(
    db: str,
    dest: Path,
    session: str | None,
    openclaw: bool,
    format_: ExportFormat,
    branch: str | None,
    archived: bool,
    overwrite: bool,
    redact: bool,
    redact_emails: bool,
    redact_rules: Path | None,
    as_json: bool,
) -> int:
    """Write transcripts back as files under DEST, as they were imported, byte for byte.

    With --format, write each conversation as one page of HTML, as Markdown, or as a table (csv,
    ndjson, parquet) with a row for each entry. With --session, DEST may be the name of the file,
    if it ends as the format's files do (.jsonl, .html, .md, .csv, .ndjson, .parquet).

    An existing file with other content is left alone, unless --overwrite is given. Then the exit
    code is 1.
    """
    redactor = redactor_of(redact, redact_emails, redact_rules)
    with look_into(db) as opened:
        chosen = session_named(opened, session) if session is not None else None
        if branch is not None and chosen is None:
            refuse("--branch is an entry of one session; name it with --session.")
        if branch is not None and format_ == "transcript":
            refuse("a transcript's file has all branches; --branch goes with another --format.")
        if archived and format_ == "transcript":
            refuse("a transcript is not written out of an archive; see `sessiondb unarchive`.")
        end = entry_id_of(opened, chosen, branch) if chosen is not None and branch else None
        with Progress("exporting", quiet=as_json) as progress:
            on_interrupt(partial(_about_export, dest, progress))
            report = opened.export(
                dest,
                session=chosen,
                openclaw=openclaw,
                overwrite=overwrite,
                progress=progress,
                redactor=redactor,
                format=format_,
                branch=end,
                archived=archived,
            )
        sessions = session_column(opened, (file.session_id for file in report.files))
    if as_json:
        print_json({**dataclasses.asdict(report), "ok": report.ok})
    else:
        _print_export(report, sessions)
    return OK if report.ok else PROBLEMS


def _about_export(dest: Path, progress: Progress) -> str:
    done = f"{progress.done:,} of {counted(progress.total, 'file')}"
    return f"{done} are in {dest}, each of them whole. The same command writes the rest."


def _print_export(report: ExportReport, sessions: Column) -> None:
    listed = [
        file
        for file in report.files
        if len(report.files) <= LISTED_FILES_MAX
        or file.notes
        or file.status in ("refused", "failed")
    ]
    columns = [
        Column("file", cut="middle", width_min=14),
        Column("status"),
        sessions,
        Column("size", "right"),
        Column("note", cut="end", width_min=6),
    ]
    if listed:
        print_table(
            columns,
            [
                [file.name, file.status, file.session_id, size(file.bytes), file.note]
                for file in listed
            ],
            empty="",
        )
    counts: dict[str, int] = {}
    for file in report.files:
        counts[file.status] = counts.get(file.status, 0) + 1
    states = (
        ", ".join(f"{count:,} {state}" for state, count in counts.items()) or "nothing to export"
    )
    print_wrapped(f"{escape(report.dest)}: {states}; {size(report.bytes)}{_redacted(report.files)}")


def print_wrapped(text: str) -> None:
    for line in wrap(text, terminal_width()):
        click.echo(line)


# -- append ----------------------------------------------------------------------------------------


@command(
    short_help="Append JSON lines from standard input.",
    examples=("sessiondb append gateway.db agent:main:discord:channel:1 < lines.jsonl",),
)
@database_argument
@session_argument
@click.option(
    "--create",
    is_flag=True,
    help="Create the database and, for a key that is not bound, the session.",
)
@click.option(
    "--idempotency-prefix",
    metavar="PREFIX",
    help="Line N gets the key PREFIX:N unless it has one, so the same input may be sent again.",
)
@json_option("Print a receipt for each line: one JSON object a line.")
@debug_option
def append(
    db: str, session: str, create: bool, idempotency_prefix: str | None, as_json: bool
) -> int:
    """Append JSON lines from standard input: messages (with a role) or entries (with a type).

    A line's `idempotencyKey` makes it safe to send twice. A line that cannot be stored is reported
    with its number and does not stop the others. Then the exit code is 1.
    """
    if create and not looks_like_key(session):
        refuse(
            f"--create makes a session for a key, such as agent:main:main; {session!r} is not one."
        )
    if sys.stdin is None:
        refuse("standard input is closed; the lines to append come from there.")
    counts = Counts(as_json=as_json)
    on_interrupt(counts.about_interrupt)
    with write_into(db, create=create) as opened:
        chosen = opened.session(session) if create else _existing(opened, session)
        for batch in _batches(sys.stdin.buffer, counts.refused):
            try:
                _store(chosen, batch, idempotency_prefix, counts)
            except SessionDBError as error:
                raise Failure(
                    f"line {counts.next_line(batch)} and those after it were not stored: {error}",
                    exit_code_of(error),
                ) from error
    if not as_json:
        click.echo(
            f"{counts.appended:,} appended, {counts.duplicates:,} stored before, "
            f"{counts.refusals:,} refused"
        )
    return PROBLEMS if counts.refusals else OK


def _existing(db: sync.SessionDB, text: str) -> sync.Session:
    try:
        return session_named(db, text)
    except NotFound as error:
        if looks_like_key(text):
            raise NotFound(f"{error}, or add --create to make one") from error
        raise


Line = tuple[int, bytes]


class Counts:
    """How many lines were appended, stored before, and refused so far."""

    def __init__(self, *, as_json: bool) -> None:
        self.appended = self.duplicates = self.refusals = 0
        self._as_json = as_json
        self._settled = 0

    def stored(self, line: int, receipt: Receipt) -> None:
        self._settled = line
        self.duplicates += receipt.duplicate
        self.appended += not receipt.duplicate
        if self._as_json:
            click.echo(to_json({"line": line, "seq": receipt.seq, **dataclasses.asdict(receipt)}))

    def refused(self, line: int, reason: str) -> None:
        self._settled = max(self._settled, line)
        self.refusals += 1
        click.echo(f"sessiondb: line {line} was refused: {escape(reason)}", err=True)

    def about_interrupt(self) -> str:
        """Return what is stored, and how to go on after an interrupt."""
        stored = self.appended + self.duplicates
        return (
            f"{counted(stored, 'line is', 'lines are')} stored, up to line {self._settled}. "
            "Send the lines after it again."
        )

    def next_line(self, batch: list[Line]) -> int:
        """Return the first line of a batch that is neither stored nor refused."""
        return max(self._settled + 1, batch[0][0])


def _batches(stream: Any, refuse_line: Callable[[int, str], None]) -> Iterator[list[Line]]:
    """Yield the lines that have arrived, numbered, without blank ones.

    A line that is too long is refused, and not held in memory.
    """
    number, skipping, carried = 0, False, bytearray()
    batch: list[Line] = []
    while data := stream.read1(READ_BYTES):
        *whole, rest = data.split(b"\n")
        for piece in whole:
            number += 1
            line = bytes(carried) + piece
            carried.clear()
            if not skipping and line.strip():
                batch.append((number, line))
            skipping = False
            if len(batch) == BATCH_LINES:
                yield batch
                batch = []
        carried += b"" if skipping else rest
        if len(carried) > ENTRY_BYTES_MAX:
            refuse_line(
                number + 1,
                f"longer than {ENTRY_BYTES_MAX:,} bytes, the most that fits in one entry",
            )
            carried.clear()
            skipping = True
        if batch:
            yield batch
            batch = []
    if carried.strip():
        yield [(number + 1, bytes(carried))]


def _store(session: sync.Session, batch: list[Line], prefix: str | None, counts: Counts) -> None:
    """Store a batch in one transaction. If that is refused, nothing was stored: go line by line."""
    keys = [_idempotency_key(number, line, prefix) for number, line in batch]
    try:
        receipts = session.append_many(
            [Item(line, key=key) for (_, line), key in zip(batch, keys, strict=True)]
        )
    except (InvalidInput, NotFound, ConstraintFailed):
        for (number, line), key in zip(batch, keys, strict=True):
            try:
                counts.stored(number, session.append(line, idempotency_key=key))
            except (InvalidInput, NotFound, ConstraintFailed) as error:
                counts.refused(number, str(error))
        return
    for (number, _), receipt in zip(batch, receipts, strict=True):
        counts.stored(number, receipt)


def _idempotency_key(number: int, line: bytes, prefix: str | None) -> str | None:
    """Return a line's own key, or one made from its number."""
    created = f"{prefix}:{number}" if prefix is not None else None
    if b'"idempotencyKey"' not in line:
        return created
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None  # it will be refused, with the reason
    key = fields.get("idempotencyKey") if isinstance(fields, dict) else None
    if key is None and isinstance(fields, dict) and isinstance(fields.get("message"), dict):
        key = fields["message"].get("idempotencyKey")
    return key if isinstance(key, str) and key else created
