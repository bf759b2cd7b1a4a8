"""The reading half of an import: files to packs, each of which fits one transaction.

A pack holds at most `IMPORT_BATCH_ENTRIES` entries and about `IMPORT_BATCH_BYTES`. It may hold
batches of several files, and says where each file ends. A file that cannot be read ends with
its reason, and the next file is read.

Runs in worker threads. Holds no lock, and one file open at a time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sessiondb.errors import OpenError
from sessiondb.limits import IMPORT_BATCH_BYTES, IMPORT_BATCH_ENTRIES
from sessiondb.words import (
    FileStatus,
)

from .folder_scan import SourceFile, is_of_agents_tools
from .import_plan import FilePlan
from .jsonl_reader import (
    FileBatch,
    Opener,
    PrefixChanged,
    UnreadableFile,
    read_batches,
)
from .recognition import CODEX, CODEX_OF_OPENCLAW, Other, recognise
from .redaction import Redactor, mark_in
from .source import place_of

REDACTED_BEFORE: Final = (
    "its imported part is redacted; to import the new part too, import with --redact again"
)


@dataclass(slots=True)
class BatchRead:
    """A batch, with the file that it belongs to."""

    file: SourceFile
    batch: FileBatch


@dataclass(slots=True)
class FileEnd:
    """A file has been read to its end, or as far as it could be."""

    file: SourceFile
    status: FileStatus | None = None  # None: its batches decide
    note: str | None = None
    kind: str | None = None  # what it is, if it is no transcript
    replaced: bool = False  # what was imported of it is not in it any more


Pack = list[BatchRead | FileEnd]


def read_packs(
    plans: Sequence[FilePlan], redactor: Redactor | None = None
) -> Generator[Pack, None, None]:
    """Read files in their order, and yield packs."""
    pack: Pack = []
    entries = size = 0
    for event in (event for plan in plans for event in _read_file(plan, redactor)):
        more = (
            (len(event.batch.items), event.batch.size) if isinstance(event, BatchRead) else (1, 0)
        )
        if pack and (
            entries + more[0] > IMPORT_BATCH_ENTRIES or size + more[1] > IMPORT_BATCH_BYTES
        ):
            yield pack
            pack, entries, size = [], 0, 0
        pack.append(event)
        entries, size = entries + more[0], size + more[1]
    if pack:
        yield pack


def _recognised(plan: FilePlan, open_at: Opener) -> Other | None:
    """Return what a file is that is no transcript. What was imported before is one."""
    earlier = plan.known or plan.renamed_from
    if earlier is not None and earlier.bytes:
        return None
    with open_at(0) as stream:
        found = recognise(stream.read)
    if found is CODEX and is_of_agents_tools(plan.file.path):
        return CODEX_OF_OPENCLAW
    return found


def _read_file(plan: FilePlan, redactor: Redactor | None) -> Iterator[BatchRead | FileEnd]:
    file = plan.file
    try:
        with file.hold() as open_at:
            yield from _read_held(plan, redactor, open_at)
    except PrefixChanged as error:
        advice = (
            "the imported content is kept; to have the new content too, "
            "copy the file to a new name and import that"
        )
        yield FileEnd(file, "changed", f"{error}; {advice}", replaced=True)
    except UnreadableFile as error:
        yield FileEnd(file, "failed", str(error))
    except FileNotFoundError:
        yield FileEnd(file, "failed", "it vanished while the import was running; import again")
    except OpenError as error:
        yield FileEnd(file, "failed", str(error))
    except OSError as error:
        yield FileEnd(file, "failed", f"it cannot be read: {error.strerror or error}")


def _read_held(
    plan: FilePlan, redactor: Redactor | None, open_at: Opener
) -> Iterator[BatchRead | FileEnd]:
    """Read a file that stays open meanwhile, so that all of its parts are of one file."""
    file, row = plan.file, plan.known
    earlier = plan.known or plan.renamed_from
    other = _recognised(plan, open_at)
    if other is not None:
        yield FileEnd(file, "foreign" if other.foreign else "skipped", other.sentence, other.kind)
        return
    for batch in read_batches(
        file.path, place_of(earlier), redactor, opened=open_at, links=plan.links
    ):
        mark = mark_in(earlier.note) if earlier is not None else None
        if redactor is None and mark is not None and not mark.is_by_hand:
            # A secret that came in by oversight would have to be redacted by hand.
            yield FileEnd(file, "failed", REDACTED_BEFORE)
            return
        if row is not None and row.first_import_file_no != row.import_file_no:
            reason = "it was a hard link and is a file of its own now"
            yield FileEnd(file, "changed", f"{reason}; copy it to a new name and import that")
            return
        yield BatchRead(file, batch)
    if _was_replaced(file):
        yield FileEnd(file, "failed", "another file took its place while it was read; import again")
        return
    yield FileEnd(file)


def _was_replaced(file: SourceFile) -> bool:
    """Return whether another file has the path now. One that was renamed is followed later."""
    try:
        found = Path(file.path).lstat()
    except OSError:
        return False
    return file.opened is None and file.inode != f"{found.st_dev}:{found.st_ino}"
