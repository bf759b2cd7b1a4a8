"""The files of an export: each is complete and synced when it has its name.

An existing file with other content is left alone, unless `overwrite` is set. Files are created
0600 and folders 0700. Everything here that touches a file runs on a worker thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Any

import anyio

from sessiondb import clock, threads
from sessiondb.durable_files import NO_LINKS, lacks_links, make_folder, sync_folder
from sessiondb.limits import MIB
from sessiondb.models import ExportedFile
from sessiondb.words import ExportStatus

from .folder_scan import inodes_of
from .jsonl_reader import UnreadableFile, open_transcript
from .redaction import LineShape, Redactor, counted


def destination(
    dest: str, one_session: bool, one_file: bool, ending: str
) -> tuple[str, str | None]:
    """Create the folder of an export. Return it, and a name if the destination is one file."""
    path = Path(dest).absolute()
    if one_file and path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder, and not a file's name")
    named = one_file or path.name.removesuffix(".zst").endswith(ending)
    single = path.name if one_session and not path.is_dir() and named else None
    folder = path.parent if single is not None else path
    make_folder(folder)
    return str(folder.resolve(strict=True)), single


class Files:
    """Writes complete files below one folder."""

    def __init__(
        self, folder: str, *, overwrite: bool, protect: frozenset[str], redactor: Redactor | None
    ) -> None:
        self.folder = folder
        self.redactor = redactor
        self.overwrite = overwrite
        self.protect = protect

    async def write(
        self, name: str, content: AsyncIterator[bytes], *, session_id: str | None, note: str | None
    ) -> ExportedFile:
        """Write one file. A failure is reported, and does not end the export."""
        made = _Made(self, name, session_id, note)
        try:
            made.output = await threads.run(Output.begin, self, made.path)
            waiting: list[bytes] = []
            size = 0
            async for part in content:
                waiting.append(part)
                size += len(part)
                if size >= MIB:
                    await threads.run(made.output.add, waiting)
                    waiting, size = [], 0
            await threads.run(made.output.add, waiting)
            return made.placed(await threads.run(made.output.place))
        except (UnreadableFile, OSError) as error:
            return made.failed(error)
        finally:
            if made.output is not None:
                with anyio.CancelScope(shield=True):
                    await threads.run(made.output.discard)

    async def write_whole(self, files: Sequence[WholeFile]) -> list[ExportedFile]:
        """Write several files in one call of a thread. Failures are reported, file by file."""
        return await threads.run(self._write_now, files)

    def _write_now(self, files: Sequence[WholeFile]) -> list[ExportedFile]:
        found: list[ExportedFile] = []
        unsynced: dict[Path, list[tuple[int, _Made]]] = {}
        folders: dict[Path, Path] = {}
        for name, content, session_id, note in files:
            made = _Made(self, name, session_id, note)
            try:
                if isinstance(content, UnreadableFile):
                    raise content
                made.output = Output.begin(self, made.path, folders)
                made.output.add(content)
                status = made.output.place(sync_name=False)
                if status == "written":
                    unsynced.setdefault(made.output.path.parent, []).append((len(found), made))
                found.append(made.placed(status))
            except (UnreadableFile, OSError) as error:
                found.append(made.failed(error))
            finally:
                if made.output is not None:
                    made.output.discard()
        for folder, placed in unsynced.items():
            try:
                sync_folder(folder)
            except OSError as error:
                for at, made in placed:
                    found[at] = made.failed(error)
        return found


WholeFile = tuple[str, list[bytes] | UnreadableFile, str | None, str | None]
"""A file's name, its bytes or why it has none, its session's id, and a note."""


class _Made:
    """What becomes of one file."""

    def __init__(self, files: Files, name: str, session_id: str | None, note: str | None) -> None:
        self.path = f"{files.folder.rstrip('/')}/{name}"
        self.output: Output | None = None
        self._name = name
        self._session_id = session_id
        self._notes = (note,) if note is not None else ()

    def placed(self, status: ExportStatus) -> ExportedFile:
        """Report a file that is there."""
        output = self.output
        assert output is not None, "what was placed was begun"
        return ExportedFile(
            self.path,
            self._name,
            self._session_id,
            status,
            output.bytes,
            output.digest.hexdigest(),
            self._notes,
            counted(output.redacted),
        )

    def failed(self, error: UnreadableFile | OSError) -> ExportedFile:
        """Report why a file was not written."""
        if isinstance(error, FileExistsError):
            refusal = (
                "a different file is there already; it was left alone "
                "(choose another folder, or ask to overwrite)"
            )
            size = self.output.bytes if self.output is not None else 0
            return self._told("refused", refusal, size)
        why = (
            f"it cannot be written: {error.strerror or error}"
            if isinstance(error, OSError)
            else str(error)
        )
        return self._told("failed", why, 0)

    def _told(self, status: ExportStatus, why: str, size: int) -> ExportedFile:
        return ExportedFile(
            self.path, self._name, self._session_id, status, size, notes=(*self._notes, why)
        )


class Output:
    """One file in the making, under a temporary name in its final folder."""

    def __init__(self, path: Path, temporary: Path, file: IO[bytes], files: Files) -> None:
        self.path = path
        self.temporary = temporary
        self.file = file
        self.sink: Any = _compressor(file) if path.name.endswith(".zst") else file
        self.overwrite = files.overwrite
        self.own = inodes_of(files.protect)
        self.redactor = files.redactor
        self.shape: LineShape = "index" if path.name.endswith(".json") else "entry"
        self.redacted: Counter[str] = Counter()
        self.digest = hashlib.sha256()
        self.bytes = 0

    @classmethod
    def begin(cls, files: Files, name: str, folders: dict[Path, Path] | None = None) -> Output:
        """Create the folder and a temporary file in it.

        `folders` has those that this call of a thread has made and looked at, with where they are.
        Each is looked at once in a call: that is a dozen questions to the kernel for a file.

        Raises:
            OSError: it would lead out of the destination or onto the database, or cannot be
                created.
            UnreadableFile: it has to be compressed, and the extra `zstd` is missing.
        """
        path = Path(name)
        folder = folders.get(path.parent) if folders is not None else None
        if folder is None:
            _make_below(Path(files.folder), path.parent)
            folder = path.parent.resolve()
            if folders is not None:
                folders[path.parent] = folder
        if str(folder / path.name) in files.protect:
            raise PermissionError(1, "this is the database's own file")
        temporary = path.parent / f".sessiondb-{clock.random_bits(64):016x}.tmp"
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        file = os.fdopen(descriptor, "wb")
        try:
            return cls(path, temporary, file, files)
        except BaseException:
            file.close()
            temporary.unlink()
            raise

    def add(self, parts: list[bytes]) -> None:
        """Write the next bytes: lines, or pieces of a line that is not an entry."""
        for part in parts:
            content = (
                part
                if self.redactor is None
                else self.redactor.line(part, self.redacted, shape=self.shape)
            )
            self.digest.update(content)
            self.bytes += len(content)
            self.sink.write(content)

    def place(self, *, sync_name: bool = True) -> ExportStatus:
        """Sync the file, give it its name, and return what happened. Durable on return.

        Without `sync_name` the caller syncs the folder.

        Raises:
            FileExistsError: a different file has the name.
            OSError: it cannot be given one, for example because the file system has no hard links.
        """
        if self.sink is not self.file:
            self.sink.close()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        try:
            self.path.hardlink_to(self.temporary)  # unlike a rename, it never replaces
        except FileExistsError:
            if self._is_there_already():
                return "unchanged"
            if not self.overwrite:
                raise
            self.temporary.replace(self.path)
        except OSError as error:
            if lacks_links(error):
                raise OSError(error.errno, NO_LINKS) from error
            raise
        if sync_name:
            sync_folder(self.path.parent)
        return "written"

    def discard(self) -> None:
        """Close the temporary file, and remove it if it is still there. May be repeated."""
        self.file.close()
        self.temporary.unlink(missing_ok=True)

    def _is_there_already(self) -> bool:
        """Return whether the existing file holds the same content."""
        there = self.path.lstat()
        if not stat.S_ISREG(there.st_mode) or f"{there.st_dev}:{there.st_ino}" in self.own:
            return False  # to open and close a file of the database would drop its locks
        digest = hashlib.sha256()
        try:
            with open_transcript(str(self.path)) as file:
                while block := file.read(MIB):
                    digest.update(block)
        except UnreadableFile:
            return False
        return digest.digest() == self.digest.digest()


def _make_below(top: Path, folder: Path) -> None:
    """Create a folder below another. A symbolic link that leads out is refused."""
    current = top
    for part in folder.relative_to(top).parts:
        current = current / part
        make_folder(current)
        if not current.resolve().is_relative_to(top):
            raise PermissionError(1, "its folder is a symbolic link out of the destination")


def _compressor(file: IO[bytes]) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise UnreadableFile(
            "compressed; to write it, install the extra: pip install 'sessiondb[zstd]'"
        ) from error
    return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
