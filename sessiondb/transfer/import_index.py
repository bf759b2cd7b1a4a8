"""The import of an OpenClaw index (`sessions.json`): its keys are bound, and the file is kept.

Keys come first and the file last, in transactions of bounded size. So an import that dies in
between binds the same keys again, which changes nothing. A long file is kept in pieces
(`index_content`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from sessiondb import threads
from sessiondb.errors import SessionDBError
from sessiondb.limits import IMPORT_BATCH_BYTES, IMPORT_BATCH_ENTRIES

from . import index_content
from .import_packs import REDACTED_BEFORE
from .import_plan import known_files
from .import_run import FATAL, FileState, ImportRun
from .index_content import IndexReceipt, StoredIndex
from .openclaw_index import (
    Binding,
    Index,
    IndexEntry,
    KeyPlan,
    Target,
    Targets,
    agent_in,
    plan_keys,
)
from .redaction import Mark, mark_in
from .source import Overtaken, bind_keys, shortened, unbind_keys


async def import_index(run: ImportRun, index: Index) -> None:
    """Bind the keys of an index, and keep the index itself. May be repeated."""
    file = index.file
    state = run.files[file.path] = FileState(file)
    await _import(run, index, state)
    run.report(file)


async def _import(run: ImportRun, index: Index, state: FileState) -> None:
    state.notes += [note for note in (index.failure, index.note) if note is not None]
    state.notes += index.remarks
    if index.failure is not None:
        state.status = "failed"
        return
    state.damaged = int(index.note is not None)
    state.bytes, state.sha256 = index.size, index.sha256
    before = await index_content.load(run.backend, index.file.path, op="import.index")
    if run.redactor is None and before is not None and mark_in(before.note) is not None:
        if before.sha256 != index.sha256:
            state.status = "failed"
            state.notes.append(REDACTED_BEFORE)
            return
        assert before.content is not None, "it has a mark once it is stored"
        await threads.run(index.take, before.content)
    state.lines, state.entries = index.content.count(b"\n"), len(index.entries)
    agent_id = index.file.agent_id or agent_in(index.entries)
    planned = await _plan_keys(run, index, before, agent_id)
    state.notes += planned.notes
    if run.dry_run:
        is_known = before is not None and before.sha256 == state.sha256
        state.status = "unchanged" if is_known else "would-import"
        return
    for page in _pages(planned.bindings):
        bound, notes = await _bind(run, page)
        state.entries_new += bound
        state.notes += notes
    for gone in _pages_of_gone(planned.gone):
        state.entries_new += await run.write(partial(unbind_keys, rows=gone))
    if before is not None and before.is_unfinished:
        await index_content.tidy(run, index.file.path)
    if (
        before is None
        or before.sha256 != state.sha256
        or (run.redactor is not None and before.content != index.content)
    ):
        state.redacted = index.redacted
        mark = (
            [str(Mark(0, index.redacted, run.redactor.fingerprint))]
            if run.redactor is not None
            else []
        )
        note = shortened([*mark, *state.notes])
        await _save(run, index, state, agent_id, note)
        return
    if not state.entries_new:
        state.status = "unchanged"


async def _plan_keys(
    run: ImportRun, index: Index, before: StoredIndex | None, agent_id: str
) -> KeyPlan:
    folder = index.file.folder
    stored = [
        Target(row.path, row.kind, row.session_no, row.session_id)
        for row in await run.backend.read(
            lambda tx: tx.all("import_file.in_folder", folder=folder), op="import.index"
        )
    ]
    stored += [
        Target(row.path, row.kind, row.session_no, row.session_id)
        for row in await known_files(run.backend, sorted(set(index.leads.values())))
        if row.session_no is not None
    ]
    targets = Targets([*_targets_of(run), *stored], index.leads, folder)
    new_ids = {
        state.session_id
        for state in run.files.values()
        if state.entries_new and state.session_id is not None
    }
    content = before.content if before is not None else None
    return await threads.run(plan_keys, index, content, targets, agent_id, new_ids)


def _targets_of(run: ImportRun) -> list[Target]:
    """Return the transcripts that a dry run would store."""
    return [
        Target(path, state.kind, -1, None)
        for path, state in run.files.items()
        if run.dry_run and state.status == "would-import"
    ]


async def _bind(run: ImportRun, page: list[Binding]) -> tuple[int, list[str]]:
    """Bind keys in one transaction. If it fails, bind each in its own, to spare the others."""
    try:
        return await run.write(
            lambda tx: bind_keys(tx, page), size=sum(len(binding.details) for binding in page)
        )
    except FATAL:
        raise
    except SessionDBError as error:
        if len(page) == 1:
            return 0, [f"{page[0].key.text}: not bound: {error}"]
    results = [await _bind(run, [binding]) for binding in page]
    return sum(bound for bound, _ in results), [note for _, notes in results for note in notes]


async def _save(
    run: ImportRun, index: Index, state: FileState, agent_id: str, note: str | None
) -> None:
    receipt = IndexReceipt(
        path=index.file.path,
        name=index.file.name,
        agent_id=agent_id,
        bytes=state.bytes,
        lines=state.lines,
        entries=state.entries,
        sha256=state.sha256,
        inode=index.file.inode,
        note=note,
    )
    try:
        await index_content.save(run, index.content, receipt)
    except Overtaken as error:
        state.status = "failed"
        state.notes.append(str(error))


def _pages_of_gone(rows: dict[str, IndexEntry]) -> Iterator[dict[str, IndexEntry]]:
    keys = list(rows)
    for at in range(0, len(keys), IMPORT_BATCH_ENTRIES):
        yield {key: rows[key] for key in keys[at : at + IMPORT_BATCH_ENTRIES]}


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
