"""The command `migrate`: a whole home of OpenClaw moves in.

The report is written when the run ends, under its name or not at all. A run that was interrupted
leaves none, and the same command goes on and writes one about all of the home.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from sessiondb.clock import iso_from_ms, random_bits
from sessiondb.models import MigrationReport, SourceReceipt

from .program import (
    OK,
    PROBLEMS,
    command,
    database_argument,
    debug_option,
    json_option,
    on_interrupt,
    refuse,
)
from .terminal import Column, counted, escape, print_json, print_table, size, to_json
from .transfer import (
    LISTED_FILES_MAX,
    Progress,
    kinds_counted,
    open_for_import,
    print_wrapped,
    redact_options,
    redactor_of,
)


@command(
    short_help="Move a home of OpenClaw in, with a receipt.",
    examples=(
        "sessiondb migrate openclaw gateway.db --dry-run",
        "sessiondb migrate openclaw gateway.db --report moved",
        "sessiondb migrate openclaw gateway.db --final --report moved.md",
    ),
)
@click.argument(
    "home",
    metavar="OPENCLAW_HOME",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@database_argument
@click.option("--dry-run", is_flag=True, help="Print what is there, and change nothing.")
@click.option(
    "--final",
    is_flag=True,
    help="The last run: the gateway is stopped. Compare all again, ask whether anything changes.",
)
@click.option(
    "--report",
    "reports",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Write the report: PATH.md or PATH.json. Without such an ending, both.",
)
@redact_options("Store")
@json_option("Print the report as JSON.")
@debug_option
def migrate(
    home: Path,
    db: str,
    dry_run: bool,
    final: bool,
    reports: tuple[Path, ...],
    redact: bool,
    redact_emails: bool,
    redact_rules: Path | None,
    as_json: bool,
) -> int:
    """Import all transcripts of a home of OpenClaw, and account for every file in it.

    Each transcript is compared with its source. Run it beside the gateway, as often as you like:
    it takes what is new, and goes on after an interrupt. Stop the gateway, and run it with --final.
    The exit code is 1 if anything of a conversation is not here as it is there.
    """
    if dry_run and final:
        refuse("--dry-run imports nothing, and --final is the last import. Choose one.")
    outputs = _outputs(reports, home)
    redactor = redactor_of(redact, redact_emails, redact_rules)
    with ExitStack() as stack:
        opened = open_for_import(db, stack, dry_run=dry_run)
        with Progress("migrating", quiet=as_json) as progress:
            if not dry_run:
                on_interrupt(partial(_about_interrupt, home, progress))
            report = opened.migrate(
                home, dry_run=dry_run, final=final, progress=progress, redactor=redactor
            )
    for path in outputs:
        text = _markdown(report) if path.suffix == ".md" else f"{to_json(_as_json(report))}\n"
        _write(path, text)
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report, outputs)
    return OK if report.ok else PROBLEMS


def _about_interrupt(home: Path, progress: Progress) -> str:
    done = f"{progress.done:,} of {counted(progress.total, 'source')} of {home}"
    return f"{done} were read, and what was read is stored. The same command goes on from there."


# -- the report as files ---------------------------------------------------------------------------


def _outputs(reports: Sequence[Path], home: Path) -> list[Path]:
    """Return the files to write. Refuse what could not be written at the end."""
    found = []
    for path in reports:
        named = path.suffix in (".md", ".json")
        found += [path] if named else [Path(f"{path}.md"), Path(f"{path}.json")]
    for path in found:
        folder = path.parent.resolve()
        if not folder.is_dir():
            refuse(f"the report cannot be {path}: there is no folder {path.parent}. Make it first.")
        if folder.is_relative_to(home.resolve()):
            refuse(f"the report cannot be {path}: nothing is written in {home}. Choose elsewhere.")
    return found


def _write(path: Path, text: str) -> None:
    """Write a file for its owner only. It has its name when it is whole."""
    partial_path = path.with_name(f".{path.name}.{random_bits(64):016x}.tmp")
    descriptor = os.open(
        partial_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)


def _as_json(report: MigrationReport) -> dict[str, Any]:
    return {
        **dataclasses.asdict(report),
        "finished_at": iso_from_ms(report.finished_at_ms),
        "not_imported": report.not_imported,
        "damaged": report.damaged,
        "entries_new": report.entries_new,
        "ok": report.ok,
    }


def _markdown(report: MigrationReport) -> str:
    return "\n".join([*_head(report), *_kind_table(report), *_rest(report), *_receipts(report), ""])


def _head(report: MigrationReport) -> Iterator[str]:
    yield f"# Migration of {_cell(report.home)}"
    yield ""
    run = "A dry run" if report.dry_run else "The final run" if report.final else "A run"
    yield f"{run} that ended at {iso_from_ms(report.finished_at_ms)}. {_verdict(report)}"
    yield ""


def _kind_table(report: MigrationReport) -> Iterator[str]:
    yield "| kind | sources | bytes | entries | equal | kept | would be imported | not as there |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind, sources in _by_kind(report).items():
        cells = [
            _cell(kind),
            f"{len(sources):,}",
            f"{sum(source.bytes for source in sources):,}",
            f"{sum(source.entries for source in sources):,}",
            *(f"{_count(sources, verdict):,}" for verdict in ("equal", "kept", "would-import")),
            f"{_count(sources, 'not-imported', 'differs'):,}",
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _rest(report: MigrationReport) -> Iterator[str]:
    if report.problems:
        yield from ("## Not at rest", "", *(f"- {_cell(text)}." for text in report.problems), "")
    lost = [source for source in report.sources if source.reason]
    if lost:
        yield from ("## Not imported", "")
        yield from (f"- {_cell(source.path)}: {_cell(source.reason)}" for source in lost)
        yield ""
    torn = [source for source in report.sources if source.damaged]
    if torn:
        yield from ("## Damaged lines, kept as bytes", "")
        yield from (f"- {_cell(source.path)}: {source.damaged:,}" for source in torn)
        yield ""
    if report.others:
        yield from ("## No conversations", "")
        yield from (f"- {kinds_counted({kind: count})}" for kind, count in report.others.items())
        yield ""


def _receipts(report: MigrationReport) -> Iterator[str]:
    yield from ("## Receipts", "")
    yield "| source | verdict | session | entries | bytes | SHA-256 | notes |"
    yield "|---|---|---|---|---|---|---|"
    for source in report.sources:
        cells = [
            _cell(source.path),
            source.verdict,
            _cell(source.session_id or ""),
            f"{source.entries:,}",
            f"{source.bytes:,}",
            source.sha256 or "",
            _cell("; ".join(source.notes)),
        ]
        yield f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Return text that Markdown shows as it is: names and keys are of strangers."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", escape(text))


# -- the report on a terminal ----------------------------------------------------------------------


def _print(report: MigrationReport, outputs: Sequence[Path]) -> None:
    columns = [
        Column("kind"),
        *(Column(name, "right") for name in ("sources", "size", "entries", "new", "equal", "kept")),
        Column("not imported", "right"),
    ]
    rows = [
        [
            kind,
            f"{len(sources):,}",
            size(sum(source.bytes for source in sources)),
            f"{sum(source.entries for source in sources):,}",
            f"{sum(source.entries_new for source in sources):,}",
            _count(sources, "equal") or "",
            _count(sources, "kept") or "",
            _count(sources, "not-imported", "differs") or "",
        ]
        for kind, sources in _by_kind(report).items()
    ]
    print_table(columns, rows, empty="no transcripts")
    _print_lost(report)
    torn = [source for source in report.sources if source.damaged]
    for source in torn[:LISTED_FILES_MAX]:
        lines = counted(source.damaged, "damaged line")
        print_wrapped(f"{escape(source.path)}: {lines}, kept as bytes; see view quarantine_log")
    if len(torn) > LISTED_FILES_MAX:
        click.echo(f"... and {len(torn) - LISTED_FILES_MAX:,} more sources with damaged lines")
    _print_remarks(report)
    if report.others:
        print_wrapped(f"no conversations: {kinds_counted(report.others)}")
    for problem in report.problems:
        print_wrapped(f"not at rest: {escape(problem)}.")
    for path in outputs:
        click.echo(f"report: {escape(str(path))}")
    print_wrapped(f"{escape(report.home)}: {_verdict(report)}")


def _print_lost(report: MigrationReport) -> None:
    """Say why sources are not here, each reason once, and count them by kind."""
    paths: dict[str, list[str]] = {}
    for source in report.sources:
        if source.reason:
            paths.setdefault(source.reason, []).append(source.path)
    for reason, named in list(paths.items())[:LISTED_FILES_MAX]:
        more = f" and {len(named) - 1:,} more" if len(named) > 1 else ""
        print_wrapped(f"not imported: {escape(named[0])}{more}: {escape(reason)}")
    if len(paths) > LISTED_FILES_MAX:
        click.echo(f"... and {len(paths) - LISTED_FILES_MAX:,} more reasons; --report has them")
    if report.not_imported:
        print_wrapped(f"not imported: {kinds_counted(report.not_imported)}")


def _print_remarks(report: MigrationReport) -> None:
    """Print what there is to say about indexes: above all, which keys point at nothing here."""
    remarks = [
        (source.path, note)
        for source in report.sources
        if source.kind == "index"
        for note in source.notes
    ]
    for path, note in remarks[:LISTED_FILES_MAX]:
        print_wrapped(f"{escape(path)}: {escape(note)}")
    if len(remarks) > LISTED_FILES_MAX:
        click.echo(f"... and {len(remarks) - LISTED_FILES_MAX:,} more; --report has them")


def _by_kind(report: MigrationReport) -> dict[str, list[SourceReceipt]]:
    found: dict[str, list[SourceReceipt]] = {}
    for source in sorted(report.sources, key=lambda source: source.kind):
        found.setdefault(source.kind, []).append(source)
    return found


def _count(sources: Sequence[SourceReceipt], *verdicts: str) -> int:
    return sum(source.verdict in verdicts for source in sources)


def _verdict(report: MigrationReport) -> str:
    """Return what became of the home, in a sentence or two."""
    sources = counted(len(report.sources), "source")
    if report.dry_run:
        would = report.count("would-import")
        text = f"{sources}, of which {would:,} would be imported"
    else:
        text = f"{sources}, {report.count('equal'):,} of them found equal"
    lost = sum(report.not_imported.values())
    text += f", {lost:,} not imported" if lost else ""
    new = counted(report.entries_new, "new entry", "new entries")
    text += f". {new}, {counted(report.damaged, 'damaged line')}."
    if report.ok and report.final:
        text += " Nothing is missing, and nothing changes there any more."
    return text
