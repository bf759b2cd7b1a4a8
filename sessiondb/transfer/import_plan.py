"""What an import does with each file: read it, continue it, follow it to a new name, or link it.

The decision compares the files found with the records of earlier imports, by path and by inode.
A file under a known path is continued. A file under a new path, whose inode was imported under
a path that no longer exists, was renamed if its beginning is what was imported. A file whose
inode has another name here is a hard link, and is read under the first name only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread

from sessiondb.backend import Backend, ReadTx, Row

from .folder_scan import SourceFile
from .jsonl_reader import PrefixChanged, UnreadableFile, read_batches
from .source import place_of

_PATHS_PAGE: Final = 500


@dataclass(slots=True)
class FilePlan:
    """A file, and the record at which reading it continues."""

    file: SourceFile
    known: Row | None = None
    renamed_from: Row | None = None
    first_path: str | None = None  # this is a further name of that file, and is not read again


async def plan_files(backend: Backend, files: Sequence[SourceFile]) -> list[FilePlan]:
    """Compare files with the records of earlier imports, and return a plan for each."""
    paths = [file.path for file in files]
    known = {row.path: row for row in await _rows(backend, "import_file.known", "paths", paths)}
    unknown = [file.inode for file in files if file.path not in known]
    by_inode: dict[str, list[str]] = {}
    for row in await _rows(backend, "import_file.by_inode", "inodes", unknown):
        by_inode.setdefault(row.inode, []).append(row.path)
    for row in known.values():
        by_inode.setdefault(row.inode, []).append(row.path)
    elsewhere = {path for paths in by_inode.values() for path in paths if path not in known}
    records = {
        row.path: row
        for row in await _rows(backend, "import_file.known", "paths", sorted(elsewhere))
    } | known
    return await anyio.to_thread.run_sync(_plan_files, files, known, by_inode, records)


async def _rows(backend: Backend, statement: str, name: str, values: Sequence[str]) -> list[Row]:
    found: list[Row] = []
    for at in range(0, len(values), _PATHS_PAGE):
        page = json.dumps(values[at : at + _PATHS_PAGE])
        found += await backend.read(_all(statement, name, page), op="import.plan")
    return found


def _all(statement: str, name: str, value: str) -> Callable[[ReadTx], list[Row]]:
    return lambda tx: tx.all(statement, **{name: value})


def _plan_files(
    files: Sequence[SourceFile],
    known: dict[str, Row],
    by_inode: dict[str, list[str]],
    records: dict[str, Row],
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
            missing = [
                records[path]
                for path in by_inode.get(file.inode, [])
                if path not in known and not os.path.lexists(path)
            ]
            plan.renamed_from = next(
                (record for record in missing if _is_same_file(file.path, record)), None
            )
            first_of[file.inode] = file.path
    return plans


def _still_at(path: str, inode: str) -> bool:
    try:
        found = Path(path).lstat()
    except OSError:
        return False
    return f"{found.st_dev}:{found.st_ino}" == inode


def _is_same_file(path: str, row: Row) -> bool:
    """Return whether a file begins with the bytes that were imported under another name."""
    try:
        next(read_batches(path, place_of(row)), None)
    except (PrefixChanged, UnreadableFile, OSError):
        return False
    return bool(row.bytes)
