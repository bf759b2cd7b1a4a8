"""Import transcripts: files to sessions, in short transactions, as often as wanted.

What it promises. A source is only ever read. Nothing is refused as a whole because of one bad line or one bad
file. What is stored, exported again, is the file byte for byte. Importing the same files again changes nothing;
a file that has grown gives what is new; an import that was killed goes on at the last chunk that was committed,
because what was stored and how far it goes (`source`) are one transaction. A file whose imported part has
changed, or whose session has gone on inside sessiondb, is reported and left as it is: to have the new content
too, give the file another name and import that.

How it runs. Files are listed, read, unpacked, hashed and parsed on worker threads; while one pack of chunks is
committed, the next is parsed. A pack holds at most `IMPORT_BATCH_ENTRIES` entries and about
`IMPORT_BATCH_BYTES`, so an append that arrives meanwhile waits for one of them at most. No lock is held
between packs: two imports of one file at once are told apart by the place that each expects to go on from.

What it does not do. It does not follow a live file, and it does not read OpenClaw's SQLite stores.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from sessiondb.backend import Backend, ReadTx, Row, Tx
from sessiondb.errors import (
    InvalidInput,
    NotExecuted,
    OutcomeUnknown,
    SessionDBError,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreFull,
    StoreReadOnly,
)
from sessiondb.limits import IMPORT_BATCH_BYTES, IMPORT_BATCH_ENTRIES
from sessiondb.models import FileReceipt, FileStatus, ImportReport, QuarantinedLine
from sessiondb.transcript.entries import Draft

from .folder_scan import Found, file_name, scan
from .jsonl_reader import FileBatch, PrefixChanged, UnreadableFile, read_batches
from .openclaw_index import Binding, Index, Targets, agent_in, ids_by_file, plan_keys, read_indexes
from .redaction import Mark, Redactor, counted, mark_in
from .roundtrip import compare_with_file
from .source import GoneOn, Overtaken, Stored, bind_keys, place_of, shortened, store_batch

T = TypeVar("T")
Progress = Callable[[int, int, int, int, str], None]
"""Called on the event loop with files done, files in all, bytes done, bytes in all, and the current file's name."""

LISTED_MAX: Final = 100  # damaged lines and notes that a receipt spells out; the rest is counted
RETRIES_MAX: Final = 200
_PATHS_PAGE: Final = 500
_REDACTED_BEFORE: Final = (
    "what was imported of it is redacted; to import what is new too, import with --redact again"
)
# These end the import: the next file would meet them too.
_FATAL = (OutcomeUnknown, StoreClosed, StoreDamaged, StoreFull, StoreReadOnly)


@dataclass(slots=True)
class _Piece:
    """A chunk with the file that it belongs to."""

    file: Found
    batch: FileBatch


@dataclass(slots=True)
class _Outcome:
    """A file has been read to its end, or as far as it could be."""

    file: Found
    status: FileStatus | None = None  # None: as its chunks say
    note: str | None = None


_Pack = list[_Piece | _Outcome]


# -- reading: on a worker thread ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Job:
    """A file to read, and from where on."""

    file: Found
    known: Row | None = None
    renamed_from: Row | None = None
    first_path: str | None = None  # a further name of this file: it is not read again


def _packs(jobs: Sequence[_Job], redactor: Redactor | None = None) -> Generator[_Pack, None, None]:
    """Read files; yield what fits one transaction each."""
    pack: _Pack = []
    entries = size = 0
    for event in (event for job in jobs for event in _events(job, redactor)):
        more = (len(event.batch.items), event.batch.size) if isinstance(event, _Piece) else (1, 0)
        if pack and (
            entries + more[0] > IMPORT_BATCH_ENTRIES or size + more[1] > IMPORT_BATCH_BYTES
        ):
            yield pack
            pack, entries, size = [], 0, 0
        pack.append(event)
        entries, size = entries + more[0], size + more[1]
    if pack:
        yield pack


def _events(job: _Job, redactor: Redactor | None) -> Iterator[_Piece | _Outcome]:
    file, row = job.file, job.known
    earlier = job.known or job.renamed_from
    try:
        for batch in read_batches(file.path, place_of(earlier), redactor):
            if redactor is None and earlier is not None and mark_in(earlier.note) is not None:
                # Entries are never changed, so a secret that comes in by oversight could not be taken out again.
                yield _Outcome(file, "failed", _REDACTED_BEFORE)
                return
            if row is not None and row.first_import_file_no != row.import_file_no:
                yield _Outcome(
                    file,
                    "changed",
                    "it was a hard link and is a file of its own now; copy it to a new name and import that",
                )
                return
            yield _Piece(file, batch)
        yield _Outcome(file)
    except PrefixChanged as error:
        advice = "what was imported is kept; to have the new content too, copy the file to a new name and import that"
        yield _Outcome(file, "changed", f"{error}; {advice}")
    except UnreadableFile as error:
        yield _Outcome(file, "failed", str(error))
    except FileNotFoundError:
        yield _Outcome(file, "failed", "it vanished while the import was running; import again")
    except OSError as error:
        yield _Outcome(file, "failed", f"it cannot be read: {error.strerror or error}")


def _still_at(path: str, inode: str) -> bool:
    try:
        found = Path(path).lstat()
    except OSError:
        return False
    return f"{found.st_dev}:{found.st_ino}" == inode


def _is_same_file(path: str, row: Row) -> bool:
    """Tell whether a file begins with what was imported under another name."""
    try:
        next(read_batches(path, place_of(row)), None)
    except (PrefixChanged, UnreadableFile, OSError):
        return False
    return bool(row.bytes)


def _with_index_ids(files: Sequence[Found], indexes: Sequence[Index]) -> list[Found]:
    names: dict[str, list[str]] = {}
    for file in files:
        names.setdefault(file.folder, []).append(file_name(file.path))
    args = {
        index.file.folder: ids_by_file(index.entries, names.get(index.file.folder, []))
        for index in indexes
    }
    return [
        replace(file, index_id=args.get(file.folder, {}).get(file_name(file.path)))
        for file in files
    ]


# -- the driver -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """A receipt in the making."""

    file: Found
    known: Row | None = None
    status: FileStatus = "imported"
    session_id: str | None = None
    bytes: int = 0
    lines: int = 0
    entries: int = 0
    entries_new: int = 0
    sha256: str | None = None
    damaged: int = 0
    blank: int = 0
    redacted: Counter[str] = field(default_factory=Counter)
    last_kept: tuple[int, str] = (-1, "")
    listed: list[QuarantinedLine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batches: int = 0
    failed: bool = False
    verified: bool | None = None

    def count(self, batch: FileBatch, *, dry_run: bool) -> None:
        """Take in a chunk that was stored, or that would be."""
        self.batches += 1
        self.bytes, self.lines, self.sha256 = batch.bytes, batch.lines, batch.sha256
        self.redacted.update(batch.redacted or {})
        for item in batch.items:
            if isinstance(item, Draft):
                is_header = item.type == "session" and self.entries == 0 and self.session_id is None
                self.entries += dry_run and not is_header
                self.entries_new += dry_run and not is_header
            elif (
                item.line,
                item.severity,
            ) != self.last_kept:  # once, however many pieces it is kept in
                self.last_kept = item.line, item.severity
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
            kind=self.file.kind,
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
            verified=self.verified,
        )


async def import_path(
    backend: Backend,
    path: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
    redactor: Redactor | None = None,
    protect: Sequence[str] = (),
) -> ImportReport:
    """Import a file or a folder; see the module's beginning. Durable on return; may be repeated and interrupted.

    Raises:
        InvalidInput: there is nothing at the path, or it may not be read.
        StoreFull, OutcomeUnknown, ...: the database failed; import again to go on.
    """
    try:
        scanned = await anyio.to_thread.run_sync(scan, os.fspath(path), protect)
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        why = getattr(error, "strerror", None) or error
        raise InvalidInput(
            f"{os.fspath(path)}: cannot be imported: {why}. Check the path.", path=os.fspath(path)
        ) from error
    indexes = await anyio.to_thread.run_sync(read_indexes, scanned.indexes, redactor)
    files = _with_index_ids(scanned.transcripts, indexes)
    everything = [*files, *scanned.indexes]
    total = (len(everything), sum(file.bytes for file in everything))
    run = _Import(backend, dry_run=dry_run, progress=progress, total=total, redactor=redactor)
    await run.transcripts(files)
    for index in indexes:
        await run.index(index)
    if verify and not dry_run:
        await run.verify()
    receipts = [run.open[file.path].receipt() for file in everything]
    receipts += [
        FileReceipt(
            left.path,
            left.name,
            "other",
            "failed" if left.failed else "skipped",
            notes=(left.reason,),
        )
        for left in scanned.skipped
    ]
    return ImportReport(
        scanned.root, tuple(sorted(receipts, key=lambda receipt: receipt.name)), dry_run
    )


class _Import:
    """One run of an import."""

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
        self.open: dict[str, _Open] = {}

    def _report(self, file: Found, bytes_of_file: int | None = None) -> None:
        """Tell the caller how far the import is; None: this file is done."""
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

    async def _write(self, fn: Callable[[Tx], T], *, size: int = 0) -> T:
        """Write as a step of background work, when the database has room."""
        for attempt in range(RETRIES_MAX):
            try:
                return (await self.backend.step(fn, op="import", size=size)).value
            except StoreBusy as busy:
                if attempt == RETRIES_MAX - 1:
                    raise
                await anyio.sleep(busy.retry_after_ms / 1000)
            except NotExecuted:
                if attempt == RETRIES_MAX - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    # -- transcripts ----------------------------------------------------------------------------------------

    async def transcripts(self, files: Sequence[Found]) -> None:
        """Import transcripts in their order, reading ahead by one pack."""
        jobs = await self._plan(files)
        self.open = {job.file.path: _Open(job.file, job.known or job.renamed_from) for job in jobs}
        for state in self.open.values():
            _recall(state)
        await self._adopt([job for job in jobs if job.renamed_from is not None])
        with contextlib.closing(
            _packs([job for job in jobs if job.first_path is None], self.redactor)
        ) as packs:  # it holds a file open
            pack = await anyio.to_thread.run_sync(next, packs, None)
            while pack is not None:
                pack = await self._commit_and_read_on(pack, packs)
        for job in jobs:
            if job.first_path is not None:
                await self._link(job)

    async def _commit_and_read_on(self, pack: _Pack, packs: Iterator[_Pack]) -> _Pack | None:
        """Commit a pack while the next one is read; return that one."""
        following: list[_Pack | None] = []
        failure: SessionDBError | None = None

        async def read_on() -> None:
            following.append(await anyio.to_thread.run_sync(next, packs, None))

        async with anyio.create_task_group() as group:
            group.start_soon(read_on)
            try:
                await self._commit(pack)
            except (
                SessionDBError
            ) as error:  # raised outside of the group, so that it arrives as itself
                failure = error
        if failure is not None:
            raise failure
        return following[0]

    async def _commit(self, pack: _Pack) -> None:
        pieces = [
            event
            for event in pack
            if isinstance(event, _Piece) and not self.open[event.file.path].failed
        ]
        for path, result in (await self._store(pieces)).items():
            state = self.open[path]
            state.session_id, state.entries = result.session_id, result.entries
            state.entries_new = result.entries - (
                state.known.entries if state.known is not None else 0
            )
            state.notes += result.notes[: max(0, LISTED_MAX - len(state.notes))]
        for event in pack:
            state = self.open[event.file.path]
            if isinstance(event, _Outcome):
                await self._close(state, event)
            elif not state.failed:
                state.count(event.batch, dry_run=self.dry_run)
                self._report(event.file, event.batch.bytes)

    async def _store(self, pieces: list[_Piece]) -> dict[str, Stored]:
        """Store pieces in one transaction; if it fails, each in its own, so that one bad file spares the others."""
        if self.dry_run or not pieces:
            return {}
        try:
            return await self._store_together(pieces)
        except _FATAL:
            raise
        except (Overtaken, GoneOn, SessionDBError) as error:
            if len(pieces) == 1:
                self._fail(pieces[0].file, error)
                return {}
        stored: dict[str, Stored] = {}
        for piece in pieces:
            if not self.open[piece.file.path].failed:
                for path, result in (await self._store([piece])).items():
                    notes = stored[path].notes if path in stored else []
                    stored[path] = replace(result, notes=notes + result.notes)
        return stored

    async def _store_together(self, pieces: list[_Piece]) -> dict[str, Stored]:
        def body(tx: Tx) -> dict[str, Stored]:
            stored: dict[str, Stored] = {}
            for piece in pieces:
                result = store_batch(tx, piece.file, piece.batch)
                notes = stored[piece.file.path].notes if piece.file.path in stored else []
                stored[piece.file.path] = replace(result, notes=notes + result.notes)
            return stored

        return await self._write(body, size=sum(piece.batch.size for piece in pieces))

    def _fail(self, file: Found, error: Exception) -> None:
        state = self.open[file.path]
        state.failed = True
        state.status = "changed" if isinstance(error, GoneOn) else "failed"
        state.notes.append(str(error))

    async def _close(self, state: _Open, outcome: _Outcome) -> None:
        """Settle how a file ended, once all of its chunks are stored."""
        file, known = state.file, state.known
        if not state.failed:
            was_read_before = known is not None and known.state != "reading" and known.bytes > 0
            state.status = outcome.status or _status(
                state, was_read_before=was_read_before, dry_run=self.dry_run
            )
            if outcome.note is not None:
                state.notes.append(outcome.note)
        if not self.dry_run and known is not None:
            mark = mark_in(known.note)
            note = shortened(
                [
                    *([str(mark)] if mark is not None else []),
                    *(state.notes if state.status == "changed" else []),
                ]
            )
            if state.status == "changed" and (known.state, known.note) != ("changed", note):
                await self._write(
                    lambda tx: tx.run("import_file.mark_changed", path=file.path, note=note)
                )
            elif state.status == "unchanged" and known.state == "changed":
                await self._write(
                    lambda tx: tx.run("import_file.mark_done", path=file.path, note=note)
                )
        self._report(file)

    # -- names ----------------------------------------------------------------------------------------------

    async def _plan(self, files: Sequence[Found]) -> list[_Job]:
        """Find out what earlier imports know of each file, and which files are other names of one."""
        known = {
            row.path: row
            for row in await self._rows("import_file.known", "paths", [file.path for file in files])
        }
        unknown = [file.inode for file in files if file.path not in known]
        by_inode: dict[str, list[str]] = {}
        for row in await self._rows("import_file.by_inode", "inodes", unknown):
            by_inode.setdefault(row.inode, []).append(row.path)
        for row in known.values():
            by_inode.setdefault(row.inode, []).append(row.path)
        elsewhere = {path for paths in by_inode.values() for path in paths if path not in known}
        records = {
            row.path: row
            for row in await self._rows("import_file.known", "paths", sorted(elsewhere))
        } | known
        return await anyio.to_thread.run_sync(_plan_jobs, files, known, by_inode, records)

    async def _rows(self, statement: str, name: str, values: Sequence[str]) -> list[Row]:
        found: list[Row] = []
        for at in range(0, len(values), _PATHS_PAGE):
            page = json.dumps(values[at : at + _PATHS_PAGE])
            found += await self.backend.read(_all(statement, name, page), op="import.plan")
        return found

    async def _adopt(self, jobs: Sequence[_Job]) -> None:
        """Follow files that were renamed since they were imported."""
        for job in jobs:
            file, row = job.file, job.renamed_from
            assert row is not None
            self.open[file.path].notes.append(f"renamed from {row.path}")
            if not self.dry_run:
                await self._write(_move(row.import_file_no, file))

    async def _link(self, job: _Job) -> None:
        """Record a further name of a file that has been imported."""
        state = self.open[job.file.path]
        first = self.open.get(job.first_path or "")
        note = f"a hard link to {job.first_path}: the same transcript, imported once"
        state.notes.append(note)
        if self.dry_run:
            state.status = "unchanged" if state.known is not None else "would-import"
        else:
            changed = await self._write(_link(job, note))
            state.status = (
                ("grown" if state.known is not None else "imported") if changed else "unchanged"
            )
            row = await self.backend.read(
                lambda tx: tx.first("import_file.by_path", path=job.file.path), op="import.link"
            )
            if row is None:
                state.status = "failed"
                state.notes.append(f"{job.first_path} was not imported")
            else:
                state.known = row
                _recall(state)
        if first is not None and first.status in ("failed", "changed"):
            state.status = first.status
        self._report(job.file)

    # -- index ----------------------------------------------------------------------------------------------

    async def index(self, index: Index) -> None:
        """Bind the keys of an index, and keep the index itself. Keys first: an interrupted import does them again."""
        file = index.file
        state = self.open[file.path] = _Open(file)
        state.notes += [note for note in (index.failure, index.note) if note is not None]
        if index.failure is not None:
            state.status = "failed"
            self._report(file)
            return
        state.bytes, state.sha256 = index.size, index.sha256
        before = await self.backend.read(
            lambda tx: tx.first("import_file.index_content", path=file.path), op="import.index"
        )
        if self.redactor is None and before is not None and mark_in(before.note) is not None:
            if before.sha256 != index.sha256:
                state.status = "failed"
                state.notes.append(_REDACTED_BEFORE)
                self._report(file)
                return
            await anyio.to_thread.run_sync(index.take, before.content)
        state.lines, state.entries = index.content.count(b"\n"), len(index.entries)
        targets = Targets(
            await self.backend.read(
                _all("import_file.in_folder", "folder", file.folder), op="import.index"
            )
        )
        is_new = {
            opened.session_id
            for opened in self.open.values()
            if opened.entries_new and opened.session_id is not None
        }
        agent_id = file.agent_id or agent_in(index.entries)
        content = before.content if before is not None else None
        planned = await anyio.to_thread.run_sync(
            plan_keys, index, content, targets, agent_id, is_new
        )
        state.notes += planned.notes
        if self.dry_run:
            state.status = (
                "unchanged"
                if before is not None and before.sha256 == state.sha256
                else "would-import"
            )
            self._report(file)
            return
        for page in _pages(planned.bindings):
            bound, notes = await self._bind(page)
            state.entries_new += bound
            state.notes += notes
        if (
            before is None
            or before.sha256 != state.sha256
            or (self.redactor is not None and before.content != index.content)
        ):
            state.redacted = index.redacted
            mark = [str(Mark(0, index.redacted))] if self.redactor is not None else []
            note = shortened([*mark, *state.notes])
            await self._write(_save_index(index, state, agent_id, note), size=len(index.content))
        elif not state.entries_new:
            state.status = "unchanged"
        self._report(file)

    async def _bind(self, page: list[Binding]) -> tuple[int, list[str]]:
        try:
            return await self._write(
                lambda tx: bind_keys(tx, page), size=sum(len(binding.details) for binding in page)
            )
        except _FATAL:
            raise
        except SessionDBError as error:
            if len(page) == 1:
                return 0, [f"{page[0].key.text}: not bound: {error}"]
        results = [await self._bind([binding]) for binding in page]
        return sum(bound for bound, _ in results), [note for _, notes in results for note in notes]

    # -- verify ---------------------------------------------------------------------------------------------

    async def verify(self) -> None:
        """Compare every transcript that was imported with its file: the bytes of an export, and the context."""
        for state in self.open.values():
            if (
                state.file.kind != "index"
                and state.session_id is not None
                and state.status in ("imported", "grown", "unchanged")
            ):
                differences = await compare_with_file(self.backend, state.file.path, self.redactor)
                state.verified = not differences
                state.notes += differences


# -- what the driver asks and decides -------------------------------------------------------------------------------


def _all(statement: str, name: str, value: str) -> Callable[[ReadTx], list[Row]]:
    return lambda tx: tx.all(statement, **{name: value})


def _move(import_file_no: int, file: Found) -> Callable[[Tx], int]:
    return lambda tx: tx.run(
        "import_file.move",
        import_file_no=import_file_no,
        path=file.path,
        name=file.name,
        kind=file.kind,
        agent_id=file.agent_id,
    )


def _link(job: _Job, note: str) -> Callable[[Tx], int]:
    file = job.file
    return lambda tx: tx.run(
        "import_file.link",
        path=file.path,
        name=file.name,
        kind=file.kind,
        agent_id=file.agent_id,
        inode=file.inode,
        first_path=job.first_path,
        now_ms=tx.now_ms,
        note=note,
    )


def _save_index(
    index: Index, state: _Open, agent_id: str | None, note: str | None
) -> Callable[[Tx], int]:
    return lambda tx: tx.run(
        "import_file.save_index",
        path=index.file.path,
        name=index.file.name,
        agent_id=agent_id,
        bytes=state.bytes,
        lines=state.lines,
        entries=state.entries,
        sha256=state.sha256,
        inode=index.file.inode,
        now_ms=tx.now_ms,
        note=note,
        content=index.content,
    )


def _recall(state: _Open) -> None:
    """Begin a receipt with what earlier imports know."""
    row = state.known
    if row is not None:
        state.session_id, state.entries = row.session_id, row.entries
        state.bytes, state.lines, state.sha256 = row.bytes, row.lines, row.sha256


def _status(state: _Open, *, was_read_before: bool, dry_run: bool) -> FileStatus:
    if not state.batches:
        return "unchanged"
    if dry_run:
        return "would-import"
    return "grown" if was_read_before else "imported"


def _plan_jobs(
    files: Sequence[Found],
    known: dict[str, Row],
    by_inode: dict[str, list[str]],
    records: dict[str, Row],
) -> list[_Job]:
    """Decide for each file whether it is read, continued, a renamed one, or a further name of another."""
    first_of: dict[str, str] = {}  # inode -> the path under which it is read
    jobs = []
    for file in files:
        row = known.get(file.path)
        if row is not None and row.first_import_file_no == row.import_file_no:
            first_of.setdefault(file.inode, file.path)
    for file in files:
        row = known.get(file.path)
        job = _Job(file, known=row)
        jobs.append(job)
        if row is not None and row.first_import_file_no == row.import_file_no:
            continue
        first_path = first_of.get(file.inode) or next(
            (
                path
                for path in by_inode.get(file.inode, [])
                if path != file.path and _still_at(path, file.inode)
            ),
            None,
        )
        if first_path is not None and first_path != file.path:
            job.first_path = first_path
        elif row is None:
            missing = [
                records[path]
                for path in by_inode.get(file.inode, [])
                if path not in known and not os.path.lexists(path)
            ]
            job.renamed_from = next(
                (record for record in missing if _is_same_file(file.path, record)), None
            )
            first_of[file.inode] = file.path
    return jobs


def _pages(bindings: Sequence[Binding]) -> Iterator[list[Binding]]:
    page: list[Binding] = []
    size = 0
    for binding in bindings:
        if page and (
            len(page) >= IMPORT_BATCH_ENTRIES or size + len(binding.details) > IMPORT_BATCH_BYTES
        ):
            yield page
            page, size = [], 0
        page.append(binding)
        size += len(binding.details)
    if page:
        yield page
