"""Import transcripts: files to sessions, in short transactions, as often as wanted.

What it promises. A file is only read. One bad line or one bad file keeps nothing else out. What
is stored, exported again, is the file byte for byte. Importing the same files again changes
nothing. A file that has grown adds its new part. A killed import continues after the last batch
that was committed, because the entries and how far the file was read (the table `import_file`)
are one transaction. Two kinds of files are reported and left as they were imported: one whose
imported part has changed, and one whose session has been appended to inside sessiondb. To have
the new content too, give the file another name and import that.

How it runs. Files are listed, read, unpacked, hashed and parsed on worker threads. While one
pack of batches is committed, the next is read (`import_packs`). An append that arrives meanwhile
waits for one pack at most. No lock is held between packs: each batch names the place at which it
expects to continue, so of two imports of one file only one does.

The databases of OpenClaw's agents are read as the files that they stand for (`openclaw_sqlite`).

What it does not do. It does not follow a live file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final, Literal

import anyio

from sessiondb import threads
from sessiondb.backend import Backend, Tx
from sessiondb.errors import InvalidInput, SessionDBError
from sessiondb.models import (
    FileReceipt,
    ImportReport,
)
from sessiondb.words import (
    FileStatus,
)

from .early_lines import (
    Late,
    Roots,
    become_roots,
    next_branches,
    next_late,
    next_lines,
    next_roots,
    parse,
)
from .folder_scan import Scan, SourceFile, in_order, scan
from .import_index import import_index
from .import_packs import BatchRead, FileEnd, Pack, read_packs
from .import_plan import FilePlan, plan_files
from .import_run import FATAL, FileState, ImportRun
from .index_paths import follow_rows
from .openclaw_index import read_indexes, with_index_ids
from .openclaw_sqlite import OpenForeign, Stores, read_stores
from .progress import Progress
from .redaction import Redactor, mark_in
from .roundtrip import compare_with_file
from .source import (
    BatchResult,
    Overtaken,
    SessionDiverged,
    end_early,
    move,
    repeat_late,
    set_aside,
    shortened,
    store_batch,
    store_early,
)
from .unredacted import look_for_secrets

_VERIFIED: Final = ("imported", "grown", "unchanged")
VERDICTS_MAX: Final = 50  # that are recorded in one transaction
Verdicts = Literal["none", "use", "renew"]


async def import_path(
    backend: Backend,
    path: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    verify: bool = False,
    verdicts: Verdicts = "none",
    keep_replaced: bool = False,
    progress: Progress | None = None,
    redactor: Redactor | None = None,
    protect: Sequence[str] = (),
    open_foreign: OpenForeign,
) -> ImportReport:
    """Import a file or a folder. Durable on return. May be interrupted and repeated.

    With `verify`, what is stored is compared with its file. With `verdicts`, what is found equal
    is recorded, and "use" compares no file that has not changed since. With `keep_replaced`, a
    file that is not the one that was imported becomes a session of its own, and the other one an
    archive.

    `protect` are the database's own files: they are never read, whatever name leads to them.
    `open_foreign` opens another program's database.

    Raises:
        InvalidInput: there is nothing at the path, or it may not be read.
        StoreFull, OutcomeUnknown, ...: the database failed. Import again to continue.
    """
    try:
        scanned = await threads.run(scan, os.fspath(path), protect)
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        why = getattr(error, "strerror", None) or error
        raise InvalidInput(
            f"{os.fspath(path)}: cannot be imported: {why}. Check the path.", path=os.fspath(path)
        ) from error
    with ExitStack() as closing:
        stores = await threads.run(
            read_stores, scanned, open_foreign, _Scratch(closing).path, closing, redactor
        )
        run = await _import(
            backend,
            scanned,
            stores,
            dry_run=dry_run,
            verify=verify,
            verdicts=verdicts,
            keep_replaced=keep_replaced,
            progress=progress,
            redactor=redactor,
            protect=protect,
        )
    receipts = [state.receipt() for state in run.files.values()]
    receipts += [
        FileReceipt(
            left.path,
            left.name,
            left.other.kind,
            left.status,
            notes=(left.other.sentence,),
        )
        for left in (*scanned.skipped, *stores.skipped)
    ]
    return ImportReport(
        scanned.root, tuple(sorted(receipts, key=lambda receipt: receipt.name)), dry_run
    )


class _Scratch:
    """A folder for copies of databases, which is made when one is needed."""

    def __init__(self, closing: ExitStack) -> None:
        self._closing = closing
        self._path: str | None = None

    def path(self) -> str:
        if self._path is None:
            # It holds conversations, and nobody else may enter it.
            folder = tempfile.TemporaryDirectory(prefix="sessiondb-import-")
            self._path = self._closing.enter_context(folder)
        return self._path


async def _import(
    backend: Backend,
    scanned: Scan,
    stores: Stores,
    *,
    dry_run: bool,
    verify: bool,
    verdicts: Verdicts,
    keep_replaced: bool,
    progress: Progress | None,
    redactor: Redactor | None,
    protect: Sequence[str],
) -> ImportRun:
    """Import what was found: transcripts, then the keys that point at them."""
    # The first index to bind a key wins. OpenClaw's database is newer than a file beside it.
    indexes = [
        *stores.indexes,
        *await threads.run(read_indexes, scanned.indexes, redactor),
    ]
    files = with_index_ids(in_order([*stores.transcripts, *scanned.transcripts]), indexes)
    scanned.skipped += await threads.run(follow_rows, indexes, files, scanned.base, protect)
    everything = [*files, *(index.file for index in indexes)]
    compares = verify and not dry_run
    read_twice = sum(file.bytes for file in files) if compares else 0
    total = (len(everything), sum(file.bytes for file in everything) + read_twice)
    run = ImportRun(backend, dry_run=dry_run, progress=progress, total=total, redactor=redactor)
    await _Transcripts(run).import_files(files, keep_replaced=keep_replaced)
    for index in indexes:
        await import_index(run, index)
    if redactor is not None:
        for state in run.files.values():
            await look_for_secrets(run, redactor, state)
    if verdicts == "use":
        _keep_verdicts(run)
    if compares:
        await _verify(run, records=verdicts != "none")
    return run


def _keep_verdicts(run: ImportRun) -> None:
    """Take over that a file was found equal, if neither the file nor its record changed since."""
    for state in run.files.values():
        known = state.known
        if (
            known is not None
            and state.status == "unchanged"
            and state.sha256 is not None
            and state.sha256 == known.compared_sha256
            and mark_in(known.note) is None
        ):
            state.verified = True


async def _verify(run: ImportRun, *, records: bool) -> None:
    """Compare each imported transcript with its file: the bytes of an export, and the context.

    That a file is equal is recorded every `VERDICTS_MAX` files, so that a run which was killed
    leaves little to compare again.
    """
    equal: list[FileState] = []
    for state in [state for state in run.files.values() if state.file.kind != "index"]:
        if state.verified is None and state.session_id is not None and state.status in _VERIFIED:
            differences = await compare_with_file(
                run.backend, state.file.path, run.redactor, opened=state.file.opened
            )
            # Of a file without an entry there is nothing that could be equal.
            state.verified = False if differences else True if state.entries else None
            state.notes += differences
            equal += [state] if state.verified and records else []
        if len(equal) >= VERDICTS_MAX:
            await run.write(_record(equal))
            equal = []
        run.report_compared(state.file)
    if equal:
        await run.write(_record(equal))


def _record(equal: Sequence[FileState]) -> Callable[[Tx], None]:
    found = [(state.file.path, state.sha256) for state in equal]

    def body(tx: Tx) -> None:
        for path, sha256 in found:
            tx.run("import_file.note_compared", path=path, sha256=sha256)

    return body


class _Transcripts:
    """The import of the transcripts of one run."""

    def __init__(self, run: ImportRun) -> None:
        self.run = run
        self.keep_replaced = False
        self.replaced: list[SourceFile] = []

    async def import_files(self, files: Sequence[SourceFile], *, keep_replaced: bool) -> None:
        """Import transcripts in their order, reading ahead by one pack."""
        self.keep_replaced = keep_replaced and not self.run.dry_run
        await self._import(files)
        replaced, self.replaced = self.replaced, []
        self.keep_replaced = False
        if replaced:
            await self._import(replaced)

    async def _import(self, files: Sequence[SourceFile]) -> None:
        plans = await plan_files(self.run.backend, files)
        self.run.files |= {
            plan.file.path: FileState(plan.file, plan.known or plan.renamed_from) for plan in plans
        }
        await self._adopt([plan for plan in plans if plan.renamed_from is not None])
        for plan in plans:
            if plan.known is not None and plan.known.head_seq is not None:
                # Early lines were being placed when the import before this one ended.
                await self._place_early(self.run.files[plan.file.path], has_begun=True)
        to_read = [plan for plan in plans if plan.first_path is None]
        # Closed at the end, because it holds a file open.
        with contextlib.closing(read_packs(to_read, self.run.redactor)) as packs:
            pack = await threads.run(next, packs, None)
            while pack is not None:
                pack = await self._commit_and_read_on(pack, packs)
        for plan in plans:
            if plan.first_path is not None:
                await self._link(plan)

    async def _commit_and_read_on(self, pack: Pack, packs: Iterator[Pack]) -> Pack | None:
        """Commit a pack while the next one is read. Return the next one."""
        following: list[Pack | None] = []
        failure: SessionDBError | None = None

        async def read_on() -> None:
            following.append(await threads.run(next, packs, None))

        async with anyio.create_task_group() as group:
            group.start_soon(read_on)
            try:
                await self._commit(pack)
            except SessionDBError as error:
                failure = error  # raised outside of the group, so that no group wraps it
        if failure is not None:
            raise failure
        return following[0]

    async def _commit(self, pack: Pack) -> None:
        run = self.run
        batches = [
            event
            for event in pack
            if isinstance(event, BatchRead) and not run.files[event.file.path].failed
        ]
        for path, result in (await self._store(batches)).items():
            state = run.files[path]
            state.take(result)
        for event in pack:
            state = run.files[event.file.path]
            if isinstance(event, FileEnd):
                await self._finish(state, event)
            elif not state.failed:
                state.count(event.batch, dry_run=run.dry_run)
                run.report(event.file, event.batch.bytes)
                if state.waiting:
                    await self._place_early(state, last=event.batch.last)

    async def _store(self, batches: list[BatchRead]) -> dict[str, BatchResult]:
        """Store batches in one transaction. If it fails, store each in one, to spare the others."""
        if self.run.dry_run or not batches:
            return {}
        try:
            return await self._store_together(batches)
        except FATAL:
            raise
        except (Overtaken, SessionDiverged, SessionDBError) as error:
            if len(batches) == 1:
                self._fail(batches[0].file, error)
                return {}
        stored: dict[str, BatchResult] = {}
        for read in batches:
            if not self.run.files[read.file.path].failed:
                for path, result in (await self._store([read])).items():
                    notes = stored[path].notes if path in stored else []
                    stored[path] = replace(result, notes=notes + result.notes)
        return stored

    async def _place_early(
        self, state: FileState, *, last: bool = False, has_begun: bool = False
    ) -> None:
        """Place the lines of a file whose parents are entries by now. At its end, all of them."""
        run, file = self.run, state.file
        roots: Roots | None = None
        try:
            while True:
                lines = await run.backend.read(
                    lambda tx: next_lines(tx, file.path), op="import.early"
                )
                if lines is not None:
                    drafts = await threads.run(parse, lines)
                    step = partial(store_early, file=file, lines=lines, drafts=drafts)
                    state.take(await run.write(step, size=sum(draft.size for draft in drafts)))
                    has_begun = True
                    continue
                late = await run.backend.read(
                    lambda tx: next_late(tx, file.path), op="import.early"
                )
                if late is not None:
                    await self._repeat_late(file, late)
                    has_begun = True
                    continue
                if not last:
                    break
                roots = await run.backend.read(
                    partial(next_roots, path=file.path, before=roots), op="import.early"
                )
                if roots is None:
                    break
                await run.write(partial(become_roots, roots=roots))
            if has_begun or last:
                await run.write(partial(end_early, file=file, last=last))
        except FATAL:
            raise
        except (Overtaken, SessionDiverged, SessionDBError) as error:
            self._fail(file, error)

    async def _repeat_late(self, file: SourceFile, late: Late) -> None:
        """Let what follows a line be placed again, behind the line's parent, which came late."""
        after_no: int | None = min(late.branches)
        while after_no is not None:
            after_no = await self.run.backend.read(
                partial(next_branches, late=late, after_no=after_no), op="import.early"
            )
        while True:
            await self.run.write(partial(repeat_late, file=file, late=late))
            if late.is_over():
                return

    async def _store_together(self, batches: list[BatchRead]) -> dict[str, BatchResult]:
        def body(tx: Tx) -> dict[str, BatchResult]:
            stored: dict[str, BatchResult] = {}
            for read in batches:
                result = store_batch(tx, read.file, read.batch)
                notes = stored[read.file.path].notes if read.file.path in stored else []
                stored[read.file.path] = replace(result, notes=notes + result.notes)
            return stored

        return await self.run.write(body, size=sum(read.batch.size for read in batches))

    def _fail(self, file: SourceFile, error: Exception) -> None:
        state = self.run.files[file.path]
        state.failed = True
        state.status = "changed" if isinstance(error, SessionDiverged) else "failed"
        state.notes.append(str(error))

    async def _finish(self, state: FileState, end: FileEnd) -> None:
        """Decide and record the status of a file, once all of its batches are stored."""
        run, file, known = self.run, state.file, state.known
        if end.replaced and self.keep_replaced and not state.failed:
            assert known is not None, "it is not what was imported"
            if await run.write(partial(set_aside, file=file)):
                self.replaced.append(file)
                return
        if not state.failed:
            was_read_before = known is not None and known.state != "reading" and known.bytes > 0
            state.status = end.status or _status(
                state, was_read_before=was_read_before, dry_run=run.dry_run
            )
            if end.note is not None:
                state.notes.append(end.note)
            if end.kind is not None:
                state.kind = end.kind
        if not run.dry_run and known is not None:
            mark = mark_in(known.note)
            note = shortened(
                [
                    *([str(mark)] if mark is not None else []),
                    *(state.notes if state.status == "changed" else []),
                ]
            )
            if state.status == "changed" and (known.state, known.note) != ("changed", note):
                await run.write(
                    lambda tx: tx.run("import_file.mark_changed", path=file.path, note=note)
                )
            elif state.status == "unchanged" and known.state == "changed":
                await run.write(
                    lambda tx: tx.run("import_file.mark_done", path=file.path, note=note)
                )
        run.report(file)

    async def _adopt(self, plans: Sequence[FilePlan]) -> None:
        """Record the new names of files that were renamed since they were imported."""
        for plan in plans:
            file, row = plan.file, plan.renamed_from
            assert row is not None
            self.run.files[file.path].notes.append(f"renamed from {row.path}")
            if not self.run.dry_run:
                await self.run.write(partial(move, file=file, row=row))

    async def _link(self, plan: FilePlan) -> None:
        """Record a further name of a file that has been imported."""
        run, path = self.run, plan.file.path
        state = run.files[path]
        first = run.files.get(plan.first_path or "")
        note = f"a hard link to {plan.first_path}: the same transcript, imported once"
        state.notes.append(note)
        if run.dry_run:
            state.status = "unchanged" if state.known is not None else "would-import"
        else:
            changed = await run.write(_link(plan, note))
            state.status = (
                ("grown" if state.known is not None else "imported") if changed else "unchanged"
            )
            row = await run.backend.read(
                lambda tx: tx.first("import_file.by_path", path=path), op="import.link"
            )
            if row is None:
                state.status = "failed"
                state.notes.append(f"{plan.first_path} was not imported")
            else:
                state.begin_with(row)
        if first is not None and first.status in ("failed", "changed"):
            state.status = first.status
        run.report(plan.file)


def _link(plan: FilePlan, note: str) -> Callable[[Tx], int]:
    file = plan.file
    return lambda tx: tx.run(
        "import_file.link",
        path=file.path,
        name=file.name,
        kind=file.kind,
        agent_id=file.agent_id,
        inode=file.inode,
        first_path=plan.first_path,
        now_ms=tx.now_ms,
        note=note,
    )


def _status(state: FileState, *, was_read_before: bool, dry_run: bool) -> FileStatus:
    if not state.batches:
        return "unchanged"
    if dry_run:
        return "would-import"
    return "grown" if was_read_before else "imported"
