"""Where the rows of an index lead: to a file of the import, or out of it.

A row may name its transcript by a path. OpenClaw reads the file at that path, wherever it lies:
in the folder of another agent, or in another home. A file that is imported is bound from there. One
outside of the import is not read, as a symbolic link is not followed out of it. It is reported, and
the import does not succeed. A path that leads to nothing has no say: a home that was moved is full
of those, and its rows are matched by file name.

Runs in worker threads. Knows no database.

Sources: openclaw `src/config/sessions/paths.ts`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from sessiondb.limits import MIB

from .folder_scan import SkippedFile, SourceFile, inodes_of
from .openclaw_index import Index
from .recognition import Other

_KIND: Final = "transcript elsewhere"


def follow_rows(
    indexes: Sequence[Index], files: Iterable[SourceFile], base: str, own: Iterable[str]
) -> list[SkippedFile]:
    """Note where the rows of indexes lead. Return the files outside of the import.

    `own` are the database's files, which are not opened here.
    """
    by_path = {file.path: file for file in files}
    inodes = {file.inode for file in by_path.values()} | inodes_of(own)
    found: dict[str, SkippedFile] = {}
    for index in indexes:
        if index.file.opened is not None:
            continue  # in its databases OpenClaw goes by session ids alone
        folder = index.file.folder
        for entry in index.entries:
            path = _target(entry.session_file, folder)
            if path is None:
                continue
            if path in by_path:
                index.leads[entry.session_file or ""] = path
                continue
            namesake = f"{folder}/{entry.file_name}"
            has_namesake = namesake in by_path
            why = _why_missed(path, inodes, namesake if has_namesake else None)
            if why is None:
                continue
            if not has_namesake:
                index.outside.add(entry.session_file or "")
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            found[path] = SkippedFile(
                shown, os.path.relpath(shown, base), Other(_KIND, why, foreign=True), "failed"
            )
    return list(found.values())


def _target(session_file: str | None, folder: str) -> str | None:
    """Return the file that a row names by a path, if that leads out of the index's folder."""
    text = (session_file or "").strip()
    if "/" not in text or "\0" in text:
        return None
    try:
        path = os.path.realpath(os.path.join(folder, text))  # noqa: PTH118 - a text, as all paths
    except (OSError, UnicodeEncodeError):
        return None
    return path if path.rpartition("/")[0] != folder else None


def _why_missed(path: str, inodes: set[str], namesake: str | None) -> str | None:
    """Return why a file outside of the import is missed, or None if it is not.

    `namesake` is the file of that name which was imported from the index's folder.
    """
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if namesake is not None:
            return None  # of a home that was copied: OpenClaw cannot read the original, either
        return f"a row of the index leads there, and it cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode) or f"{status.st_dev}:{status.st_ino}" in inodes:
        return None
    if namesake is None:
        return (
            "a row of the index leads there, out of what was imported, and it was not followed. "
            "Copy the file into the folder of the index, and import again"
        )
    if _have_same_bytes(path, namesake):
        return None
    return (
        "a row of the index leads there, out of what was imported, and the file of that name in "
        "the folder of the index is another one. OpenClaw goes on with the one outside. Put it in "
        "the place of the other, or import it by itself"
    )


def _have_same_bytes(left: str, right: str) -> bool:
    try:
        if Path(left).stat().st_size != Path(right).stat().st_size:
            return False
        with Path(left).open("rb") as one, Path(right).open("rb") as two:
            while block := one.read(MIB):
                if block != two.read(MIB):
                    return False
    except OSError:
        return False
    return True
