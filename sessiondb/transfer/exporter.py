"""Export transcripts: sessions to files that pi and OpenClaw read.

What it promises. An imported file comes back under its name byte for byte, quarantined lines
included. Entries that were appended since follow its own. A native session becomes
`<session id>.jsonl`. If it belongs to an agent, its file is in `agents/<agent>/sessions` and its
keys in that folder's `sessions.json`. A fork's file holds the path that it shares, then its own
entries. An imported index comes back byte for byte if no key has been bound elsewhere since.
Otherwise only the rows that differ are rewritten. A compressed archive is compressed again: the
promise is its content, not its compressed bytes.

Asked for another format, it writes a file for each session that a person or a program reads, and
that no import takes back (`reading/`).

A file appears under its name when it is complete and synced, never before. An existing file with
other content is left alone and reported, unless `overwrite` is set. Files are created 0600 and
folders 0700. Names come from a database that anybody may have written: none leads out of the
destination.

What it does not do. The undoing of a compaction is not part of the file format. So an exported
session reads as if its compaction had not been undone.

Each session is read in short snapshots of bounded size, and no snapshot is held while a file is
written. An entry that is appended while an export runs may or may not be in it. Files are written
on worker threads.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sessiondb import threads
from sessiondb.backend import Backend
from sessiondb.errors import InvalidInput
from sessiondb.models import (
    ExportedFile,
    ExportReport,
)
from sessiondb.words import ExportFormat

from .export_content import content_to_read, transcript_content
from .export_files import Files, destination
from .export_index import agents_of, indexes_for_openclaw, indexes_of
from .export_plan import Plan, name_safely, plan_all, plans_to_read
from .export_small import FILES_MAX, read_small
from .progress import Progress
from .reading import ENDINGS, require_library
from .reading.path import FindArchived
from .redaction import Redactor, counted

TRANSCRIPT: Final = "transcript"
"""The format in which a session came, and in which an import takes it back."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an export was asked for."""

    session_no: int | None
    one_file: bool
    openclaw: bool
    format: ExportFormat
    branch: str | None
    redactor: Redactor | None
    find_archived: FindArchived | None

    @property
    def is_transcript(self) -> bool:
        return self.format == TRANSCRIPT

    @property
    def ending(self) -> str:
        return ENDINGS.get(self.format, ".jsonl")

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            InvalidInput: it does not.
        """
        if self.branch is not None and (self.session_no is None or self.is_transcript):
            raise InvalidInput(
                "a branch is one of a session, and a transcript's file has all of them: "
                "name the session, and a format that is for reading"
            )
        if self.openclaw and (self.session_no is not None or not self.is_transcript):
            raise InvalidInput(
                "a home of OpenClaw has the transcripts of all sessions: name neither a session "
                "nor another format"
            )


async def export(
    backend: Backend,
    dest: str | os.PathLike[str],
    *,
    session_no: int | None = None,
    one_file: bool = False,
    openclaw: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    protect: Sequence[str] = (),
    redactor: Redactor | None = None,
    format: ExportFormat = TRANSCRIPT,  # noqa: A002  # the word of the option
    branch: str | None = None,
    find_archived: FindArchived | None = None,
) -> ExportReport:
    """Write sessions as files. Each is on disk when it appears. May be repeated.

    With `session_no` only that session is written, and no index. Then `dest` may also be the name
    of a `.jsonl` file, and with `one_file` it is a file's name. With `openclaw` it is a home of
    OpenClaw. `protect` are the database's own files, which are never replaced. In another `format`
    than that of transcripts, a file's name ends as that one's do, and there is no index. `branch`
    is the id of the entry at which the path of the one session ends that is then written.
    `find_archived` reads the path of an archived session out of its archive, for another format.

    Raises:
        InvalidInput: the destination cannot be created, or is not a folder. The
            format's library is not installed. A branch without a session and a format.
            A home of OpenClaw with one of them.
        NotFound: no such entry.
    """
    asked = _Asked(session_no, one_file, openclaw, format, branch, redactor, find_archived)
    if not asked.is_transcript:
        await threads.run(require_library, format)  # an import of tens of milliseconds
    asked.check()
    folder, single = await _destined(dest, asked)
    plans = await _planned(backend, asked, single)
    writer = Files(
        folder,
        overwrite=overwrite,
        protect=frozenset(protect),
        redactor=redactor if asked.is_transcript else None,
    )
    total = sum(plan.bytes for plan in plans)
    done = 0
    report: list[ExportedFile] = []
    while len(report) < len(plans):
        rest = plans[len(report) : len(report) + FILES_MAX] if asked.is_transcript else []
        small = await backend.read(read_small(rest), op="export.small") if rest else []
        now = plans[len(report) : len(report) + max(1, len(small))]
        for count, plan in enumerate(now, len(report)):
            if progress is not None:
                progress(count, len(plans), done, total, plan.name)
            done += plan.bytes
            if plan is not now[0]:
                continue  # written with the first one
            if small:
                report += await writer.write_whole(
                    [
                        (plan.name, content, plan.session_id, plan.note)
                        for plan, content in zip(now, small, strict=True)
                    ]
                )
            else:
                report.append(await _written(backend, writer, plan, asked))
    if session_no is None and asked.is_transcript:
        for plan, content in await _index_plans(backend, folder, plans, openclaw=openclaw):
            report.append(
                await writer.write(plan.name, _whole(content), session_id=None, note=plan.note)
            )
    if progress is not None:
        progress(len(plans), len(plans), total, total, "")
    return ExportReport(folder, tuple(report))


async def _destined(dest: str | os.PathLike[str], asked: _Asked) -> tuple[str, str | None]:
    """Create the folder of an export. Return it, and a name if the destination is one file.

    Raises:
        InvalidInput: it cannot be created, or is not a folder.
    """
    try:
        return await threads.run(
            destination,
            os.fspath(dest),
            asked.session_no is not None,
            asked.one_file,
            asked.ending,
        )
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        why = getattr(error, "strerror", None) or error
        raise InvalidInput(
            f"{os.fspath(dest)}: cannot export there: {why}. Choose another folder.",
            path=os.fspath(dest),
        ) from error


async def _planned(backend: Backend, asked: _Asked, single: str | None) -> list[Plan]:
    """List the files to write. `single` is the name of the only one."""
    agents = await agents_of(backend) if asked.openclaw else None
    plans = await plan_all(backend, asked.session_no, agents=agents)
    if not asked.is_transcript:
        plans = plans_to_read(plans, asked.ending)
    if single is not None:
        del plans[1:]
        for plan in plans:
            plan.name = single
    return plans


async def _written(backend: Backend, writer: Files, plan: Plan, asked: _Asked) -> ExportedFile:
    """Write one file, and return what became of it."""
    if asked.is_transcript:
        parts = transcript_content(backend, plan)
        return await writer.write(plan.name, parts, session_id=plan.session_id, note=plan.note)
    redacted: Counter[str] = Counter()
    parts = content_to_read(
        backend,
        plan,
        asked.format,
        branch=asked.branch,
        redactor=asked.redactor,
        redacted=redacted,
        find_archived=asked.find_archived,
    )
    file = await writer.write(plan.name, parts, session_id=plan.session_id, note=plan.note)
    return replace(file, redacted=counted(redacted)) if redacted else file


async def _index_plans(
    backend: Backend, folder: str, plans: list[Plan], *, openclaw: bool
) -> list[tuple[Plan, bytes]]:
    """Return the index files to write, each with its content."""
    names = {plan.session_no: plan.name for plan in reversed(plans) if plan.session_no is not None}
    indexes = await indexes_of(backend, names)
    if openclaw:
        indexes = await indexes_for_openclaw(backend, folder, indexes, plans)
    taken: set[str] = set()
    found: list[tuple[Plan, bytes]] = []
    for name, content in indexes:
        plan = Plan(name, None, None, None, len(content))
        name_safely(plan, taken, ending=".json")
        found.append((plan, content))
    return found


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
