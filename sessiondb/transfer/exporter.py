"""Export transcripts: sessions to files that pi and OpenClaw read.

What it promises. An imported file comes back under its name byte for byte, quarantined lines
included. Entries that were appended since follow its own. A native session becomes
`<session id>.jsonl`. If it belongs to an agent, its file is in `agents/<agent>/sessions` and its
keys in that folder's `sessions.json`. A fork's file holds the path that it shares, then its own
entries. An imported index comes back byte for byte if no key has been bound elsewhere since.
Otherwise only the rows that differ are rewritten. A compressed archive is compressed again: the
promise is its content, not its compressed bytes.

Asked for another format, it writes a file for each session that a person or a program reads, and
that no import takes back (`reading/`).

A file appears under its name when it is complete and synced, never before. An existing file with
other content is left alone and reported, unless `overwrite` is set. Files are created 0600 and
folders 0700. Names come from a database that anybody may have written: none leads out of the
destination.

What it does not do. The undoing of a compaction is not part of the file format. So an exported
session reads as if its compaction had not been undone.

Each session is read in short snapshots of bounded size, and no snapshot is held while a file is
written. An entry that is appended while an export runs may or may not be in it. Files are written
on worker threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import anyio

from sessiondb import clock, threads
from sessiondb.backend import Backend, ReadTx
from sessiondb.durable_files import NO_LINKS, lacks_links, make_folder, sync_folder
from sessiondb.errors import InvalidInput, SessionArchived
from sessiondb.json_text import dumps
from sessiondb.limits import MIB, PAGE_ROWS
from sessiondb.models import (
    ExportedFile,
    ExportReport,
)
from sessiondb.transcript.formats import PI
from sessiondb.transcript.registry import FORMAT_FIELD, header_fields
from sessiondb.words import ExportFormat, ExportStatus

from . import index_content
from .folder_scan import INDEX_NAME, agent_of, file_name, inodes_of, stem_of
from .jsonl_reader import UnreadableFile, open_transcript
from .jsonl_writer import appended_lines, imported_bytes, own_entries, shared_lines
from .openclaw_home import HomeFile, name_in_home, rows_in_home
from .openclaw_index import keys_in, new_row, renew_index, write_index
from .progress import Progress
from .reading import ENDINGS, require_library
from .reading import content as reading_content
from .reading.path import FindArchived
from .redaction import LineShape, Redactor, counted

if TYPE_CHECKING:
    from sessiondb import statements

TRANSCRIPT: Final = "transcript"
"""The format in which a session came, and in which an import takes it back."""
FOLDERS_MAX: Final = 100
"""A name in a database may claim any number of folders, and each would be created and synced."""
NAME_BYTES_MAX: Final = 255  # of one name, in common file systems


# -- which files -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Plan:
    """One file to write."""

    name: str
    session_no: int | None
    session_id: str | None
    agent_id: str | None
    bytes: int
    source: statements.ImportFileFiles | None = None
    is_fork: bool = False
    formats: int = PI.bit
    note: str | None = None


async def export(
    backend: Backend,
    dest: str | os.PathLike[str],
    *,
    session_no: int | None = None,
    one_file: bool = False,
    openclaw: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    protect: Sequence[str] = (),
    redactor: Redactor | None = None,
    format: ExportFormat = TRANSCRIPT,  # noqa: A002  # the word of the option
    branch: str | None = None,
    find_archived: FindArchived | None = None,
) -> ExportReport:
    """Write sessions as files. Each is on disk when it appears. May be repeated.

    With `session_no` only that session is written, and no index. Then `dest` may also be the name
    of a `.jsonl` file, and with `one_file` it is a file's name. With `openclaw` it is a home of
    OpenClaw. `protect` are the database's own files, which are never replaced. In another `format`
    than that of transcripts, a file's name ends as that one's do, and there is no index. `branch`
    is the id of the entry at which the path of the one session ends that is then written.
    `find_archived` reads the path of an archived session out of its archive, for another format.

    Raises:
        InvalidInput: the destination cannot be created, or is not a folder. The
            format's library is not installed. A branch without a session and a format.
            A home of OpenClaw with one of them.
        NotFound: no such entry.
    """
    if format != TRANSCRIPT:
        await threads.run(require_library, format)  # an import of tens of milliseconds
    if branch is not None and (session_no is None or format == TRANSCRIPT):
        raise InvalidInput(
            "a branch is one of a session, and a transcript's file has all of them: "
            "name the session, and a format that is for reading"
        )
    if openclaw and (session_no is not None or format != TRANSCRIPT):
        raise InvalidInput(
            "a home of OpenClaw has the transcripts of all sessions: name neither a session nor "
            "another format"
        )
    ending = ENDINGS.get(format, ".jsonl")
    try:
        folder, single = await threads.run(
            _destination, os.fspath(dest), session_no is not None, one_file, ending
        )
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        why = getattr(error, "strerror", None) or error
        raise InvalidInput(
            f"{os.fspath(dest)}: cannot export there: {why}. Choose another folder.",
            path=os.fspath(dest),
        ) from error
    plans = await _plan(backend, session_no, openclaw=openclaw)
    if format != TRANSCRIPT:
        plans = _to_read(plans, ending)
    if single is not None:
        del plans[1:]
        for plan in plans:
            plan.name = single
    writer = _Files(
        folder,
        overwrite=overwrite,
        protect=frozenset(protect),
        redactor=redactor if format == TRANSCRIPT else None,
    )
    report: list[ExportedFile] = []
    total = sum(plan.bytes for plan in plans)
    done = 0
    for count, plan in enumerate(plans):
        if progress is not None:
            progress(count, len(plans), done, total, plan.name)
        redacted: Counter[str] = Counter()
        parts = (
            _content(backend, plan)
            if format == TRANSCRIPT
            else _to_be_read(
                backend,
                plan,
                format,
                branch=branch,
                redactor=redactor,
                redacted=redacted,
                find_archived=find_archived,
            )
        )
        file = await writer.write(plan.name, parts, session_id=plan.session_id, note=plan.note)
        report.append(replace(file, redacted=counted(redacted)) if redacted else file)
        done += plan.bytes
    if session_no is None and format == TRANSCRIPT:
        names = {
            plan.session_no: plan.name for plan in reversed(plans) if plan.session_no is not None
        }
        taken: set[str] = set()
        indexes = await _indexes(backend, names)
        if openclaw:
            indexes = await _for_openclaw(backend, folder, indexes, plans)
        for name, index in indexes:
            plan = _Plan(name, None, None, None, len(index))
            _name_safely(plan, taken, ending=".json")
            report.append(
                await writer.write(plan.name, _whole(index), session_id=None, note=plan.note)
            )
    if progress is not None:
        progress(len(plans), len(plans), total, total, "")
    return ExportReport(folder, tuple(report))


def _to_read(plans: list[_Plan], ending: str) -> list[_Plan]:
    """Return a plan for each session, once, whatever files it came from."""
    chosen: dict[int, _Plan] = {}
    taken: set[str] = set()
    for plan in plans:
        if plan.session_no is not None and plan.session_id is not None:
            folder = plan.name.rpartition("/")[0]
            name = f"{folder}/{stem_of(plan.session_id)}{ending}".lstrip("/")
            chosen.setdefault(plan.session_no, replace(plan, name=name, note=None))
    for plan in chosen.values():
        _name_safely(plan, taken, ending=ending)
    return list(chosen.values())


async def _to_be_read(
    backend: Backend,
    plan: _Plan,
    name: str,
    *,
    branch: str | None,
    redactor: Redactor | None,
    redacted: Counter[str],
    find_archived: FindArchived | None,
) -> AsyncIterator[bytes]:
    """Yield the bytes of one file that is for reading.

    Raises:
        UnreadableFile: its session is archived, or went into an archive while it was read.
    """
    assert plan.session_no is not None, "a conversation is one of a session"
    parts = reading_content(
        backend,
        plan.session_no,
        name,
        branch=branch,
        redactor=redactor,
        redacted=redacted,
        find_archived=find_archived,
    )
    try:
        async for part in parts:
            yield part
    except SessionArchived as error:
        raise UnreadableFile(str(error)) from error


async def _content(backend: Backend, plan: _Plan) -> AsyncIterator[bytes]:
    """Yield the bytes of one file.

    Raises:
        UnreadableFile: its session is archived, or went into an archive while it was read.
    """
    async for part in _readable_content(backend, plan):
        yield part
    if plan.session_no is not None and await backend.read(
        _is_archived(plan.session_no), op="export.archived"
    ):
        raise UnreadableFile(
            "its session is archived; "
            f"bring it back with `sessiondb unarchive DB {plan.session_id}`, then export again"
        )


def _is_archived(session_no: int) -> Callable[[ReadTx], bool]:
    return lambda tx: (
        tx.one("transcript.archived", session_no=session_no).archived_at_ms is not None
    )


def _with_format(header: bytes, formats: int) -> bytes:
    """Return a header that names the message format, which was not known when it was written."""
    added = header_fields(formats)
    if not added or FORMAT_FIELD.encode() in header:
        return header
    return header.rstrip()[:-1] + b"," + dumps(added)[1:].encode()


async def _readable_content(backend: Backend, plan: _Plan) -> AsyncIterator[bytes]:
    source = plan.source
    if source is None:
        assert plan.session_no is not None, "a file comes from an imported file or a session"
        async for _, header in own_entries(backend, plan.session_no, 0, 0):
            yield _with_format(header, plan.formats) + b"\n"
        if plan.is_fork:
            async for line in shared_lines(backend, plan.session_no):
                yield line
        async for line in appended_lines(backend, plan.session_no, 0):
            yield line
        return
    ends = True
    async for part in imported_bytes(
        backend,
        source.first_import_file_no,
        source.session_no,
        source.entries,
        final_newline=bool(source.final_newline),
    ):
        ends = part.endswith(b"\n")
        yield part
    if source.session_no is not None:
        async for line in appended_lines(backend, source.session_no, source.entries):
            yield line if ends else b"\n" + line
            ends = True


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _plan(backend: Backend, session_no: int | None, *, openclaw: bool) -> list[_Plan]:
    """List the files of an export, each under a name of its own."""
    plans: list[_Plan] = []
    after_no = 0
    while rows := await backend.read(_files_page(after_no, session_no), op="export.plan"):
        plans += [
            _Plan(row.name, row.session_no, row.session_id, row.agent_id, row.bytes, source=row)
            for row in rows
        ]
        after_no = rows[-1].import_file_no
    folders = await _agent_folders(backend)
    after_no = 0
    while sessions := await backend.read(_sessions_page(after_no, session_no), op="export.plan"):
        for session in sessions:
            folder = (
                folders.get(session.agent_id, f"agents/{stem_of(session.agent_id)}/sessions")
                if session.agent_id is not None
                else ""
            )
            name = f"{folder}/{stem_of(session.session_id)}.jsonl".lstrip("/")
            plans.append(
                _Plan(
                    name,
                    session.session_no,
                    session.session_id,
                    session.agent_id,
                    0,
                    is_fork=session.origin == "fork",
                    formats=session.formats,
                )
            )
        after_no = sessions[-1].session_no
    taken: set[str] = set()
    agents = await _agents(backend) if openclaw else {}
    for plan in plans:
        if openclaw:
            is_live = plan.source is None or plan.source.kind in ("live", "pi")
            agent_id = agents.get(plan.session_no or 0, plan.agent_id)
            plan.name = name_in_home(plan.name, agent_id, is_live=is_live)
        _name_safely(plan, taken)
    return plans


def _files_page(
    after_no: int, session_no: int | None
) -> Callable[[ReadTx], list[statements.ImportFileFiles]]:
    return lambda tx: tx.all(
        "import_file.files", after_no=after_no, session_no=session_no, limit=PAGE_ROWS
    )


def _sessions_page(
    after_no: int, session_no: int | None
) -> Callable[[ReadTx], list[statements.ImportFileSessionsWithoutFile]]:
    return lambda tx: tx.all(
        "import_file.sessions_without_file",
        after_no=after_no,
        session_no=session_no,
        limit=PAGE_ROWS,
    )


async def _agent_folders(backend: Backend) -> dict[str, str]:
    """Return the folder of each agent's imported index: its native sessions go there, too."""
    rows = await backend.read(lambda tx: tx.all("import_file.indexes"), op="export.plan")
    return {
        row.agent_id: safe_name(row.name).rpartition("/")[0]
        for row in reversed(rows)
        if row.agent_id is not None
    }


def _name_safely(plan: _Plan, taken: set[str], *, ending: str = ".jsonl") -> None:
    """Give a file a name below the destination that no other file of this export has."""
    wanted = safe_name(plan.name)
    if wanted != plan.name:
        plan.note = (
            f"its recorded name {plan.name!r} is not one that can be written; written as {wanted}"
        )
    name = wanted
    # A transcript never gets the name of an index: it would be read as one.
    while name.casefold() in taken or (file_name(name) == INDEX_NAME and ending == ".jsonl"):
        stem, dot, rest = wanted.partition(ending)
        digest = hashlib.sha256(f"{plan.session_id}{name}".encode()).hexdigest()[:8]
        name = f"{stem}~{digest}{dot}{rest}"
        plan.note = f"another file of this export has the name {wanted}; written as {name}"
    taken.add(name.casefold())
    plan.name = name


def safe_name(name: str) -> str:
    """Return a relative path that stays below the destination, whatever was recorded."""
    parts = [
        _shortened(part.replace("\0", "-"))
        for part in name.split("/")
        if part not in ("", ".", "..")
    ]
    return "/".join(parts[-FOLDERS_MAX:]) or "unnamed.jsonl"


def _shortened(part: str) -> str:
    """Return a name that a file system accepts: a long one is cut, and gets a digest of itself."""
    if len(part.encode()) <= NAME_BYTES_MAX:
        return part
    ending = ".jsonl" if part.endswith(".jsonl") else ""
    tail = f"~{hashlib.sha256(part.encode()).hexdigest()[:8]}{ending}"
    return part.encode()[: NAME_BYTES_MAX - len(tail)].decode(errors="ignore") + tail


# -- the index -------------------------------------------------------------------------------------


async def _indexes(backend: Backend, names: dict[int, str]) -> list[tuple[str, bytes]]:
    """Return the index files to write: the imported ones, renewed, and those of other agents."""
    found: list[tuple[str, bytes]] = []
    seen: set[str] = set()
    imported_keys: set[str] = set()
    for row in await backend.read(lambda tx: tx.all("import_file.indexes"), op="export.index"):
        stored = await index_content.load(backend, row.path, op="export.index")
        assert stored is not None, "a receipt stays"
        assert stored.content is not None, "its first import has come to its end"
        content = stored.content
        owner = {row.agent_id} if row.agent_id is not None else set()
        first_of_agent = bool(owner - seen)
        # One index may hold the keys of several agents, in whatever folder it is.
        keys = await threads.run(keys_in, content, row.agent_id)
        bindings: dict[str, statements.ImportFileBindingsOfAgent] = {}
        for agent_id in sorted(owner | {key.agent_id for key in keys}):
            bindings |= await _bindings(backend, agent_id)
        imported_keys |= {key.text for key in keys}
        folder = safe_name(row.name).rpartition("/")[0]
        renewed = partial(
            renew_index, content, row.agent_id, bindings, names, folder, with_new=first_of_agent
        )
        found.append((safe_name(row.name), await threads.run(renewed)))
        seen |= owner
    for (agent_id,) in await backend.read(
        lambda tx: tx.tuples("import_file.agents"), op="export.index"
    ):
        if agent_id not in seen:
            folder = f"agents/{stem_of(agent_id)}/sessions"
            bindings = {
                key: row
                for key, row in (await _bindings(backend, agent_id)).items()
                if key not in imported_keys
                and (row.details is None or key.lower() not in imported_keys)
            }
            rows = {key: new_row(row, None, names, folder) for key, row in bindings.items()}
            if rows:
                found.append((f"{folder}/{INDEX_NAME}", write_index("", [], {}, rows).encode()))
    return found


async def _agents(backend: Backend) -> dict[int, str]:
    """Return the agent of each session that has a key: its transcript is in that agent's folder."""
    agents = await backend.read(lambda tx: tx.tuples("import_file.agents"), op="export.index")
    return {
        row.session_no: agent_id
        for (agent_id,) in agents
        for row in (await _bindings(backend, agent_id)).values()
    }


async def _for_openclaw(
    backend: Backend, folder: str, indexes: list[tuple[str, bytes]], plans: Sequence[_Plan]
) -> list[tuple[str, bytes]]:
    """Return the indexes as OpenClaw takes them in a home: names of files, and times that hold."""
    files = {
        plan.session_no: HomeFile(
            plan.name,
            went_on=plan.source is None
            or (plan.source.session_last_seq or 0) > plan.source.entries,
        )
        for plan in plans
        if plan.session_no is not None
    }
    found = []
    for name, content in indexes:
        agent = agent_of(f"/{name.rpartition('/')[0]}") or "main"
        keys = await threads.run(keys_in, content, agent)
        bindings: dict[str, statements.ImportFileBindingsOfAgent] = {}
        for agent_id in sorted({agent, *(key.agent_id for key in keys)}):
            bindings |= await _bindings(backend, agent_id)
        rows = partial(rows_in_home, content, agent, bindings, files, folder)
        found.append((name_in_home(name, agent, is_live=False), await threads.run(rows)))
    return found


async def _bindings(
    backend: Backend, agent_id: str
) -> dict[str, statements.ImportFileBindingsOfAgent]:
    found: dict[str, statements.ImportFileBindingsOfAgent] = {}
    after_key = ""
    while rows := await backend.read(_bindings_page(agent_id, after_key), op="export.index"):
        found |= {row.session_key: row for row in rows}
        after_key = rows[-1].session_key
    return found


def _bindings_page(
    agent_id: str, after_key: str
) -> Callable[[ReadTx], list[statements.ImportFileBindingsOfAgent]]:
    return lambda tx: (
        tx.page(
            "import_file.bindings_of_agent", agent_id=agent_id, after_key=after_key, limit=PAGE_ROWS
        ).rows
    )


# -- writing: on a worker thread -------------------------------------------------------------------


def _destination(
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


class _Files:
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
        path = f"{self.folder.rstrip('/')}/{name}"
        notes = (note,) if note is not None else ()
        output: _Output | None = None
        try:
            output = await threads.run(_Output.begin, self, path)
            waiting: list[bytes] = []
            size = 0
            async for part in content:
                waiting.append(part)
                size += len(part)
                if size >= MIB:
                    await threads.run(output.add, waiting)
                    waiting, size = [], 0
            await threads.run(output.add, waiting)
            status = await threads.run(output.place)
        except UnreadableFile as error:
            return ExportedFile(path, name, session_id, "failed", notes=(*notes, str(error)))
        except FileExistsError:
            refusal = (
                "a different file is there already; it was left alone "
                "(choose another folder, or ask to overwrite)"
            )
            return ExportedFile(
                path,
                name,
                session_id,
                "refused",
                output.bytes if output else 0,
                notes=(*notes, refusal),
            )
        except OSError as error:
            return ExportedFile(
                path,
                name,
                session_id,
                "failed",
                notes=(*notes, f"it cannot be written: {error.strerror or error}"),
            )
        finally:
            if output is not None:
                with anyio.CancelScope(shield=True):
                    await threads.run(output.discard)
        redacted = counted(output.redacted)
        return ExportedFile(
            path, name, session_id, status, output.bytes, output.digest.hexdigest(), notes, redacted
        )


class _Output:
    """One file in the making, under a temporary name in its final folder."""

    def __init__(self, path: Path, temporary: Path, file: IO[bytes], files: _Files) -> None:
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
    def begin(cls, files: _Files, name: str) -> _Output:
        """Create the folder and a temporary file in it.

        Raises:
            OSError: it would lead out of the destination or onto the database, or cannot be
                created.
            UnreadableFile: it has to be compressed, and the extra `zstd` is missing.
        """
        path = Path(name)
        _make_below(Path(files.folder), path.parent)
        if str(path.parent.resolve() / path.name) in files.protect:
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

    def place(self) -> ExportStatus:
        """Sync the file, give it its name, and return what happened. Durable on return.

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
