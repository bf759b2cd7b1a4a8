"""The state of one import: a receipt in the making per file, and the rest that they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from sessiondb.backend import Backend, Tx
from sessiondb.errors import (
    NotExecuted,
    OutcomeUnknown,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreFull,
    StoreReadOnly,
)
from sessiondb.models import (
    FileReceipt,
    QuarantinedLine,
)
from sessiondb.transcript.entries import Draft
from sessiondb.waiter import sleep
from sessiondb.words import (
    FileStatus,
)

from .folder_scan import SourceFile
from .jsonl_reader import FileBatch
from .progress import Progress
from .redaction import Redactor, counted
from .source import BatchResult

if TYPE_CHECKING:
    from sessiondb import statements

    Receipt = statements.ImportFileKnown | statements.ImportFileByPath

T = TypeVar("T")

LISTED_MAX: Final = 100  # damaged lines and notes that a receipt lists: more are only counted
RETRIES_MAX: Final = 200
# These end the import, because the next file would meet them too.
FATAL: Final = (OutcomeUnknown, StoreClosed, StoreDamaged, StoreFull, StoreReadOnly)


@dataclass(slots=True)
class FileState:
    """What this import has done with one file: its receipt in the making."""

    file: SourceFile
    known: Receipt | None = None
    status: FileStatus = "imported"
    kind: str = ""
    session_id: str | None = None
    bytes: int = 0
    lines: int = 0
    entries: int = 0
    entries_new: int = 0
    sha256: str | None = None
    damaged: int = 0
    blank: int = 0
    redacted: Counter[str] = field(default_factory=Counter)
    unredacted: Counter[str] = field(default_factory=Counter)
    last_kept: tuple[int, str] = (-1, "")
    listed: list[QuarantinedLine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batches: int = 0
    failed: bool = False
    waiting: bool = False
    """Some of its lines wait for their parents."""
    verified: bool | None = None

    def __post_init__(self) -> None:
        self.kind = self.file.kind
        if self.known is not None:
            self.begin_with(self.known)

    def begin_with(self, row: Receipt) -> None:
        """Begin the receipt with the record of an earlier import."""
        self.known = row
        self.session_id, self.entries = row.session_id, row.entries
        self.bytes, self.lines, self.sha256 = row.bytes, row.lines, row.sha256

    def take(self, result: BatchResult) -> None:
        """Add what a transaction stored."""
        self.session_id, self.entries = result.session_id, result.entries
        self.entries_new = result.entries - (self.known.entries if self.known is not None else 0)
        self.notes += result.notes[: max(0, LISTED_MAX - len(self.notes))]
        self.waiting = result.waiting

    def count(self, batch: FileBatch, *, dry_run: bool) -> None:
        """Add a batch that was stored, or that would be."""
        self.batches += 1
        self.bytes, self.lines, self.sha256 = batch.bytes, batch.lines, batch.sha256
        self.redacted.update(batch.redacted or {})
        for item in batch.items:
            if isinstance(item, Draft):
                is_header = item.type == "session" and self.entries == 0 and self.session_id is None
                self.entries += dry_run and not is_header
                self.entries_new += dry_run and not is_header
                continue
            kept = (item.line, item.severity)
            if kept == self.last_kept:  # a line counts once, however many pieces it is kept in
                continue
            self.last_kept = kept
            self.damaged += item.severity == "damaged"
            self.blank += item.severity == "blank"
            if item.severity == "damaged" and len(self.listed) < LISTED_MAX:
                self.listed.append(
                    QuarantinedLine(item.line, item.byte_offset, len(item.content), item.reason)
                )

    def receipt(self) -> FileReceipt:
        return FileReceipt(
            path=self.file.path,
            name=self.file.name,
            kind=self.kind,
            status=self.status,
            session_id=self.session_id,
            bytes=self.bytes,
            lines=self.lines,
            entries=self.entries,
            entries_new=self.entries_new,
            sha256=self.sha256,
            damaged=self.damaged,
            blank=self.blank,
            quarantined=tuple(self.listed),
            notes=tuple(list(dict.fromkeys(self.notes))[:LISTED_MAX]),
            redacted=counted(self.redacted),
            unredacted=counted(self.unredacted),
            verified=self.verified,
        )


class ImportRun:
    """One import: the options, the files by path, and the progress so far."""

    def __init__(
        self,
        backend: Backend,
        *,
        dry_run: bool,
        progress: Progress | None,
        total: tuple[int, int],
        redactor: Redactor | None,
    ) -> None:
        self.backend = backend
        self.redactor = redactor
        self.dry_run = dry_run
        self.progress = progress
        self.files_total, self.bytes_total = total
        self.files_done = self.bytes_done = 0
        self.files: dict[str, FileState] = {}

    def report(self, file: SourceFile, bytes_of_file: int | None = None) -> None:
        """Report the progress to the caller. None means that this file is done."""
        if bytes_of_file is None:
            self.files_done += 1
            self.bytes_done += file.bytes
        if self.progress is not None:
            within = min(bytes_of_file or 0, file.bytes)
            self.progress(
                self.files_done,
                self.files_total,
                self.bytes_done + within,
                self.bytes_total,
                file.name,
            )

    def report_compared(self, file: SourceFile) -> None:
        """Report that a file was read once more. The files were all counted before."""
        self.bytes_done += file.bytes
        if self.progress is not None:
            self.progress(
                self.files_done, self.files_total, self.bytes_done, self.bytes_total, file.name
            )

    async def write(self, fn: Callable[[Tx], T], *, size: int = 0) -> T:
        """Write as a step of background work, when the database has room."""
        for attempt in range(RETRIES_MAX):
            try:
                return (await self.backend.step(fn, op="import", size=size)).value
            except StoreBusy as busy:
                if attempt == RETRIES_MAX - 1:
                    raise
                await sleep(busy.retry_after_ms / 1000)
            except NotExecuted:
                if attempt == RETRIES_MAX - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")
