"""What an import does with each file: read it, continue it, follow it to a new name, or link it.

The decision compares the files found with the records of earlier imports, by path and by inode.
A file under a known path is continued. A file under a new path was renamed, if its beginning is
what was imported under a path that no longer exists: of the same inode, or of the transcript or an
archive that it has its name from. (OpenClaw compresses what it deletes, takes it out of its
database, and unpacks what it restores.) A file whose
inode has another name here is a hard link, and is read under the first name only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from sessiondb import threads
from sessiondb.backend import Backend, ReadTx
from sessiondb.errors import OpenError

from .folder_scan import AGENT_DATABASE, SourceFile, file_name
from .jsonl_reader import Links, PrefixChanged, UnreadableFile, link_of, read_batches
from .jsonl_writer import kept_lines
from .source import place_of

if TYPE_CHECKING:
    from sessiondb import statements

R = TypeVar("R")

_PATHS_PAGE: Final = 500


@dataclass(slots=True)
class FilePlan:
    """A file, and the record at which reading it continues."""

    file: SourceFile
    known: statements.ImportFileKnown | None = None
    renamed_from: statements.ImportFileKnown | None = None
    links: Links = field(default_factory=dict)
    """Of the damaged lines that earlier imports kept."""
    first_path: str | None = None  # this is a further name of that file, and is not read again


async def plan_files(backend: Backend, files: Sequence[SourceFile]) -> list[FilePlan]:
    """Compare files with the records of earlier imports, and return a plan for each."""
    paths = [file.path for file in files]
    known = {row.path: row for row in await known_files(backend, paths)}
    unknown = [file.inode for file in files if file.path not in known]
    by_inode: dict[str, list[str]] = {}
    named = [(row.inode, row.path) for row in await _rows(backend, _by_inode_page, unknown)]
    named += [(row.inode, row.path) for row in known.values()]
    for inode, path in named:
        if inode is not None:
            by_inode.setdefault(inode, []).append(path)
    elsewhere = {path for paths in by_inode.values() for path in paths if path not in known}
    names = {name for file in files if file.path not in known for name in _names_before(file)}
    of_name: dict[str, list[str]] = {}
    for row in await _rows(backend, _of_name_page, sorted(names)):
        of_name.setdefault(_beginning(row.path), []).append(row.path)
    elsewhere |= {path for paths in of_name.values() for path in paths} - known.keys()
    records = {row.path: row for row in await known_files(backend, sorted(elsewhere))} | known
    plans = await threads.run(_plan_files, files, known, by_inode, of_name, records)
    for plan in plans:
        earlier = plan.known or plan.renamed_from
        if earlier is not None and earlier.quarantined:
            plan.links = await _links_of(backend, earlier.first_import_file_no)
    return plans


async def _links_of(backend: Backend, import_file_no: int) -> Links:
    """Return the links of the lines of a file that are kept because they are no entries."""
    links: dict[str, str | None] = {}
    async for line in kept_lines(backend, import_file_no):
        links |= await threads.run(link_of, line)
    return links


async def known_files(backend: Backend, paths: Sequence[str]) -> list[statements.ImportFileKnown]:
    """Return the records of files, by their paths."""
    return await _rows(backend, _known_page, paths)


def _known_page(paths: str) -> Callable[[ReadTx], list[statements.ImportFileKnown]]:
    return lambda tx: tx.all("import_file.known", paths=paths)


def _of_name_page(names: str) -> Callable[[ReadTx], list[statements.ImportFileOfName]]:
    return lambda tx: tx.all("import_file.of_name", names=names)


def _by_inode_page(inodes: str) -> Callable[[ReadTx], list[statements.ImportFileByInode]]:
    return lambda tx: tx.all("import_file.by_inode", inodes=inodes)


async def _rows(
    backend: Backend, page: Callable[[str], Callable[[ReadTx], list[R]]], values: Sequence[str]
) -> list[R]:
    """Return what `page` reads for the values. It gets them as JSON, a bounded number at a time."""
    found: list[R] = []
    for at in range(0, len(values), _PATHS_PAGE):
        listed = json.dumps(values[at : at + _PATHS_PAGE])
        found += await backend.read(page(listed), op="import.plan")
    return found


def _plan_files(
    files: Sequence[SourceFile],
    known: dict[str, statements.ImportFileKnown],
    by_inode: dict[str, list[str]],
    of_name: dict[str, list[str]],
    records: dict[str, statements.ImportFileKnown],
) -> list[FilePlan]:
    """Decide for each file, on a worker thread, because it looks at the disk."""
    first_of: dict[str, str] = {}  # inode -> the path under which it is read
    plans = []
    for file in files:
        row = known.get(file.path)
        if row is not None and row.first_import_file_no == row.import_file_no:
            first_of.setdefault(file.inode, file.path)
    for file in files:
        row = known.get(file.path)
        plan = FilePlan(file, known=row)
        plans.append(plan)
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
            plan.first_path = first_path
        elif row is None:
            named = [path for name in _names_before(file) for path in of_name.get(name, [])]
            missing = [
                records[path]
                for path in dict.fromkeys([*by_inode.get(file.inode, []), *named])
                if path in records and path not in known and not os.path.lexists(path)
            ]
            plan.renamed_from = next(
                (record for record in missing if _is_same_file(file, record)), None
            )
            first_of[file.inode] = file.path
    return plans


def _names_before(file: SourceFile) -> list[str]:
    """Return how the path began that a file of OpenClaw may have had before.

    A transcript, its archives and their compressed files begin alike, in the folder or in the
    database of their agent.
    """
    if file.kind not in ("live", "reset", "deleted", "bak"):
        return []
    name = file_name(_beginning(file.path))
    database = f"/agent/{AGENT_DATABASE}"
    agent = file.folder.removesuffix("/sessions").removesuffix(database)
    folders = dict.fromkeys([file.folder, f"{agent}/sessions", f"{agent}{database}"])
    return [f"{folder}/{name}" for folder in folders]


def _beginning(path: str) -> str:
    """Return a path without what OpenClaw adds to the name of a transcript."""
    name = file_name(path)
    return f"{path.removesuffix(name)}{name.partition('.jsonl')[0]}.jsonl"


def _still_at(path: str, inode: str) -> bool:
    try:
        found = Path(path).lstat()
    except OSError:
        return False
    return f"{found.st_dev}:{found.st_ino}" == inode


def _is_same_file(file: SourceFile, row: statements.ImportFileKnown) -> bool:
    """Return whether a file begins with the bytes that were imported under another name."""
    try:
        next(read_batches(file.path, place_of(row), opened=file.opened), None)
    except (OpenError, PrefixChanged, UnreadableFile, OSError):
        return False
    return bool(row.bytes)
