"""The layout of transcript folders: OpenClaw's state folders and pi's session folders.

A file's kind follows from its name and its place. Whether a file with the name of a transcript is
one is for its content to say (`recognition`). Files are listed in an order that gives a live
transcript its own id before an archive of it asks for the same. Nothing is followed out of the
folder: symbolic links are listed and left alone. Paths are plain texts here, because they go
into the database as texts. Runs in worker threads. Knows no database.

Sources: openclaw `src/config/sessions/artifacts.ts`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from .jsonl_reader import Opener, UnreadableFile, held_open, open_transcript
from .recognition import ACP_STREAM, CRON_RUNS, Other, begins_as_transcript

INDEX_NAME: Final = "sessions.json"
AGENT_DATABASE: Final = "openclaw-agent.sqlite"
Kind = Literal["live", "reset", "deleted", "bak", "checkpoint", "corrupt", "index", "pi"]
_DATABASE = re.compile(r".+\.(?:sqlite3?|db)", re.DOTALL)
ENDED_KINDS: Final = frozenset({"reset", "deleted", "bak", "checkpoint", "corrupt"})

# A live transcript takes its own id first, then its archives.
_ORDER: Final = {
    kind: place
    for place, kind in enumerate(("live", "pi", "reset", "deleted", "bak", "checkpoint", "corrupt"))
}

# DOTALL, because a file's name may hold a line feed.
# Behind the kind stands a time, such as `.reset.2026-05-17T07-35-46.420Z`, or a plain number, or
# nothing. Newer versions add a random part and `.zst`.
_ARCHIVE = re.compile(
    r".+\.jsonl\.(?P<kind>reset|deleted|bak|imported)"
    r"(?:[.-][0-9][0-9TZ.:_-]*(?:\.[0-9a-f]{8,})?)?(?:\.zst)?",
    re.IGNORECASE | re.DOTALL,
)
_ARCHIVE_KINDS: Final[dict[str, Kind]] = {
    "reset": "reset",
    "deleted": "deleted",
    "bak": "bak",
    "imported": "bak",
}
_CHECKPOINT = re.compile(r".+\.checkpoint\.[^.]+\.jsonl(?:\.zst)?", re.DOTALL)
_CORRUPT = re.compile(r".+\.corrupt-[^/]*\.jsonl(?:\.zst)?", re.DOTALL)
_LIVE = re.compile(r".+\.jsonl(?:\.zst)?", re.DOTALL)
_LEFT_ALONE = (
    (re.compile(r".*\.lock", re.DOTALL), Other("lock file", "a lock file")),
    (
        re.compile(r".*\.trajectory\.jsonl(?:\.zst)?", re.DOTALL),
        Other("trajectory", "a trajectory, not a transcript"),
    ),
    (
        re.compile(r".*-path\.json", re.DOTALL),
        Other("pointer of a trajectory", "a trajectory's pointer"),
    ),
    (re.compile(r".+\.acp-stream\.jsonl(?:\.zst)?", re.DOTALL), ACP_STREAM),
    (
        re.compile(r"sessions\.json\..+", re.DOTALL),
        Other("copy of an index", "a copy of the index"),
    ),
    (
        re.compile(r".*\.(?:sqlite3?|db)-(?:wal|shm|journal)", re.DOTALL),
        Other("part of a database", "a part of the database beside it"),
    ),
)
_OTHER_FILE: Final = Other("other file", "not a transcript by its name")

# What lies in a folder of OpenClaw's state folder, whatever its name and content.
_LOG: Final = Other("log", "a log of OpenClaw, not a transcript")
_PLUGIN: Final = Other("plugin file", "a file of a plugin, not a transcript")
_WORKSPACE: Final = Other("workspace file", "a file of a workspace, not a transcript")
_PLACES: Final = {
    "audit": _LOG,
    "browser": Other("browser file", "a file of OpenClaw's browser, not a transcript"),
    "credentials": Other("credential", "a credential, not a transcript"),
    "cron": CRON_RUNS,
    "extensions": _PLUGIN,
    "logs": _LOG,
    "media": Other("media file", "a file that was sent or received, not a transcript"),
    "plugin": _PLUGIN,
    "plugins": _PLUGIN,
    "sandboxes": _WORKSPACE,
    "skills": Other("skill", "a file of a skill, not a transcript"),
    "workspace": _WORKSPACE,
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that an import reads."""

    path: str
    name: str
    """Relative to the imported folder, with slashes."""
    kind: Kind
    agent_id: str | None
    bytes: int
    inode: str
    modified_at_ms: int
    folder: str
    index_id: str | None = None
    """The session id that the folder's index gives this file."""
    opened: Opener | None = field(default=None, compare=False, repr=False)
    """Opens it, if it is a part of a database and not the file at the path."""

    def hold(self) -> AbstractContextManager[Opener]:
        """Open it once, for what is read of it. It must be the file that was listed."""
        if self.opened is not None:
            return nullcontext(self.opened)
        return held_open(self.path, inode=self.inode)


@dataclass(frozen=True, slots=True)
class DatabaseFile:
    """A file with the name of a database. Some have transcripts in them."""

    path: str
    name: str
    inode: str
    modified_at_ms: int


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is listed and left alone."""

    path: str
    name: str
    other: Other
    status: Literal["skipped", "foreign", "failed"] = "skipped"
    """The last two: it holds a conversation, or may hold one."""


@dataclass(slots=True)
class Scan:
    """The files at a path."""

    root: str
    base: str = ""
    """The folder that names are relative to."""
    is_of_one_file: bool = False
    """Somebody named a file, and not a folder."""
    databases: list[DatabaseFile] = field(default_factory=list)
    transcripts: list[SourceFile] = field(default_factory=list)
    indexes: list[SourceFile] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)


def file_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def folder_of(path: str) -> str:
    """Return a path without its last part."""
    return path.rpartition("/")[0] or "/"


def kind_of(name: str, *, in_openclaw: bool) -> Kind | Other:
    """Return a file's kind by its name, or what else it is."""
    if name == INDEX_NAME:
        return "index"
    for pattern, other in _LEFT_ALONE:
        if pattern.fullmatch(name):
            return other
    if _CHECKPOINT.fullmatch(name):
        return "checkpoint"
    if _CORRUPT.fullmatch(name):
        return "corrupt"
    if archive := _ARCHIVE.fullmatch(name):
        return _ARCHIVE_KINDS[archive["kind"].lower()]
    if _LIVE.fullmatch(name):
        return "live" if in_openclaw else "pi"
    return _OTHER_FILE


def stem_of(name: str) -> str:
    """Return a file's name as a session id.

    `.jsonl` and `.zst` go, and so do characters that an id cannot hold.
    """
    stem = name.removesuffix(".zst")
    stem = stem.replace(".jsonl", "", 1) if ".jsonl" in stem else stem
    return re.sub(r"[:/\\\x00-\x1f\x7f]", "-", stem) or "unnamed"


def agent_of(folder: str) -> str | None:
    """Return the agent that owns a folder: `.../agents/<agent>/sessions`, or one below it.

    OpenClaw moves the files that its own database took over to a folder beside that one.
    """
    match = re.search(r"/agents/([^/]+)/(?:sessions|session-sqlite-import-archive)(?:/|$)", folder)
    return match[1].lower() if match else None


def is_of_agents_tools(path: str) -> bool:
    """Return whether a file is one that an agent of OpenClaw has for its own tools."""
    return re.search(r"/agents/[^/]+/agent/.*/", path) is not None


def inodes_of(paths: Iterable[str]) -> frozenset[str]:
    """Return the device and inode of each file that exists: they identify it under any name."""
    found = set()
    for path in paths:
        try:
            status = Path(path).stat()
        except OSError:
            continue
        found.add(f"{status.st_dev}:{status.st_ino}")
    return frozenset(found)


def scan(path: str, own: Iterable[str] = ()) -> Scan:
    """List the files that an import reads, and the files that it leaves alone, with the reason.

    `own` are the database's files. A hard link can give one of them the name of a transcript. To
    open and close it would drop the locks that keep the database's writers apart.

    Raises:
        OSError: there is nothing at the path, or it may not be read.
    """
    root = os.path.realpath(path)
    if file_name(root) == INDEX_NAME:
        root = folder_of(root)
    found = Scan(root)
    status = Path(root).stat()
    if stat.S_ISDIR(status.st_mode):
        base, folders = root, _walk(root, found)
    else:
        base, folders = folder_of(root), [(folder_of(root), [(file_name(root), status)])]
    found.base = base
    homes = _homes(folder for folder, _ in folders)
    for folder, files in folders:
        _classify(base, folder, files, found, inodes_of(own), _place_in(folder, homes))
    if stat.S_ISREG(status.st_mode):
        # Whoever names a file means that file.
        found.is_of_one_file = True
        found.skipped = [replace(left, status="failed") for left in found.skipped]
    found.transcripts = in_order(found.transcripts)
    found.indexes.sort(key=lambda file: file.name)
    return found


def _walk(root: str, found: Scan) -> list[tuple[str, list[tuple[str, os.stat_result]]]]:
    """List a folder and the folders below it. A folder that may not be read is reported."""
    listed: list[tuple[str, list[tuple[str, os.stat_result]]]] = []
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        files: list[tuple[str, os.stat_result]] = []
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    try:
                        if entry.is_symlink():
                            found.skipped.append(_left_link(root, entry.path))
                        elif entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        else:
                            files.append((entry.name, entry.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        continue  # removed since the folder was listed
        except OSError as error:
            found.skipped.append(
                _failed(root, folder, "folder", f"this folder cannot be read: {error.strerror}")
            )
        listed.append((folder, files))
    return listed


def in_order(files: Iterable[SourceFile]) -> list[SourceFile]:
    """Return transcripts in the order of their import: who takes its own id first.

    What OpenClaw has in its database goes before files that it may have left behind.
    """
    return sorted(files, key=lambda file: (_ORDER[file.kind], file.opened is None, file.name))


def _homes(folders: Iterable[str]) -> list[str]:
    """Return the state folders of OpenClaw among some folders: `<home>/agents/<agent>/...`."""
    found = (re.fullmatch(r"(.*)/agents/[^/]+/(?:agent|sessions)", folder) for folder in folders)
    return sorted({match[1] for match in found if match is not None})


def _place_in(folder: str, homes: Iterable[str]) -> Other | None:
    """Return what every file of a folder is, if the folder is one of OpenClaw's for other files."""
    for home in homes:
        if folder.startswith(f"{home}/"):
            first = folder.removeprefix(f"{home}/").partition("/")[0]
            return _PLACES.get(first.partition("-")[0])  # workspace-<agent>, plugin-state
    return None


def _left_alone(base: str, path: str, other: Other) -> SkippedFile:
    status: Literal["skipped", "failed"] = "failed" if other.foreign else "skipped"
    return SkippedFile(_shown(path), _shown(os.path.relpath(path, base)), other, status)


def _failed(base: str, path: str, kind: str, sentence: str) -> SkippedFile:
    return _left_alone(base, path, Other(kind, sentence, foreign=True))


def _shown(path: str) -> str:
    """Return a path as text. Bytes that are not UTF-8 are spelled out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _left_link(root: str, path: str) -> SkippedFile:
    """Report a symbolic link. One to a folder or a transcript elsewhere may hold conversations."""
    target = os.path.realpath(path)
    if target == root or target.startswith(root + os.sep):
        return _left_alone(
            root,
            path,
            Other(
                "symbolic link",
                "a symbolic link within the folder; its target is imported under its own name",
            ),
        )
    # os.path, because Path.exists raises in a folder that may not be searched.
    leads_on = os.path.isdir(target) or not isinstance(  # noqa: PTH112
        kind_of(file_name(path), in_openclaw=True), Other
    )
    return _left_alone(
        root,
        path,
        Other(
            "symbolic link",
            "a symbolic link out of the folder; it was not followed (to have it, import its "
            "target)",
            foreign=leads_on and os.path.exists(target),  # noqa: PTH110
        ),
    )


def _classify(
    base: str,
    folder: str,
    files: list[tuple[str, os.stat_result]],
    found: Scan,
    own: frozenset[str],
    place: Other | None,
) -> None:
    """Sort the files of one folder. With a place, they are what the place says."""
    if place is not None:
        found.skipped += [_left_alone(base, f"{folder}/{name}", place) for name, _ in files]
        return
    agent_id = agent_of(folder)
    # In a folder that may not be searched, os.path.exists returns False. Path.exists would raise,
    # and end the import.
    in_openclaw = agent_id is not None or os.path.exists(f"{folder}/{INDEX_NAME}")  # noqa: PTH110
    in_openclaw = in_openclaw or any(
        _ARCHIVE.fullmatch(name) or _CHECKPOINT.fullmatch(name) for name, _ in files
    )
    for name, status in files:
        path = f"{folder.rstrip('/')}/{name}"
        kind = kind_of(name, in_openclaw=in_openclaw)
        inode = f"{status.st_dev}:{status.st_ino}"
        is_file = stat.S_ISREG(status.st_mode) and _shown(path) == path
        if _DATABASE.fullmatch(name) and is_file and inode not in own:
            found.databases.append(
                DatabaseFile(
                    path, os.path.relpath(path, base), inode, status.st_mtime_ns // 1_000_000
                )
            )
        elif isinstance(kind, Other):
            found.skipped.append(_left_alone(base, path, _odd_name(path, kind)))
        elif _shown(path) != path:
            found.skipped.append(
                _failed(base, path, kind, "its name is not UTF-8; rename it and import again")
            )
        elif not stat.S_ISREG(status.st_mode):
            found.skipped.append(
                _left_alone(base, path, Other("special file", "not a regular file"))
            )
        elif inode in own:
            found.skipped.append(
                _failed(
                    base,
                    path,
                    "database's own file",
                    "this is the database's own file under another name",
                )
            )
        else:
            file = SourceFile(
                path=path,
                name=os.path.relpath(path, base),
                kind=kind,
                agent_id=agent_id,
                bytes=status.st_size,
                inode=inode,
                modified_at_ms=status.st_mtime_ns // 1_000_000,
                folder=folder,
            )
            (found.indexes if kind == "index" else found.transcripts).append(file)


def _odd_name(path: str, other: Other) -> Other:
    """Return what a file is that has not the name of a transcript. It may still be one."""
    if other is not _OTHER_FILE or ".jsonl" not in file_name(path):
        return other
    if path.endswith((".gz", ".bz2", ".xz", ".zip")):
        return Other(
            "compressed transcript",
            "compressed in a way that sessiondb does not unpack, and so not imported; "
            "unpack it, and import the result",
            foreign=True,
        )
    try:
        with open_transcript(path) as stream:
            is_transcript = begins_as_transcript(stream.read)
    except (UnreadableFile, OSError):
        return other
    if not is_transcript:
        return other
    return Other(
        "transcript with an odd name",
        "a transcript by its content, under a name that no program gives, and so not imported; "
        "copy it to a name that ends in .jsonl, and import that",
        foreign=True,
    )
