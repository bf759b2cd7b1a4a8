"""The path of an archived session, read out of its archive. Nothing is restored.

A path leads through branches. Those of an archived session are in its archive, and so are its
entries. A fork begins with entries of the session that it was forked from, which may be archived
as well, or not. So a path is read session by session, oldest first, each from where it is.

An archive's chunks are read in order and once, and one of them is in memory. An archive that is
put back or dropped meanwhile ends the reading with an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from sessiondb.backend import Backend, ReadTx
from sessiondb.errors import SessionArchived
from sessiondb.limits import PAGE_ROWS
from sessiondb.models import Entry
from sessiondb.transcript.paths import Segment, context_start, session_of

from .archive_format import BRANCH, ENTRY, SESSION, damaged
from .archive_rows import read_chunk

if TYPE_CHECKING:
    from sessiondb import statements

_READABLE: Final = ("deleting", "archived")
"""States of an archive in which it is whole, and its session's rows are not."""
_FIELDS: Final = Entry.__dataclass_fields__.keys()


@dataclass(frozen=True, slots=True)
class ArchivedPath:
    """Where the path of an archived session ends, and where it leads through."""

    head_no: int | None
    start_no: int | None
    """Where its last context began. None: at the root."""
    segments: tuple[Segment, ...]
    archives: dict[int, statements.ArchiveGet]
    """The archives of those sessions on the path that are archived, by session."""

    @property
    def session_nos(self) -> tuple[int, ...]:
        """Return the sessions that the path leads through."""
        return tuple(sorted({session_of(part.high_no) for part in self.segments}))

    async def pages(self, backend: Backend) -> AsyncIterator[list[Entry]]:
        """Yield the entries of the path, oldest first.

        Raises:
            SessionArchived: an archive was put back or dropped meanwhile.
            StoreDamaged: an archive is not what was written.
        """
        for session_no, parts in groupby(self.segments, lambda part: session_of(part.high_no)):
            row = self.archives.get(session_no)
            if row is None:
                for part in parts:
                    async for page in _from_table(backend, part):
                        yield page
            else:
                async for page in _from_archive(backend, row, list(parts)):
                    yield page


async def path_of(backend: Backend, session_no: int) -> ArchivedPath | None:
    """Return the path of an archived session. None: it is not archived.

    Raises:
        SessionArchived: its archive cannot be read: it was dropped, or is being put back.
        StoreDamaged: the archive is not what was written.
    """
    archives = await backend.read(lambda tx: _archives(tx, session_no), op="archive.look")
    if session_no not in archives:
        return None
    branches: dict[int, dict[str, Any]] = {}
    own: dict[str, Any] = {}
    for row in archives.values():
        session, found = await _heads(backend, row)
        branches |= found
        own = session if row.session_no == session_no else own
    head_no, branch_no = own["head_no"], own["branch_no"]
    if head_no is not None and branch_no is None:  # the head was moved back
        branch_no = await _branch_of(backend, head_no, archives)
    segments = await backend.read(
        lambda tx: _segments(tx, branch_no, head_no, branches), op="archive.look"
    )
    start_no = context_start(own["boundary_no"], own["first_kept_no"])
    return ArchivedPath(head_no, start_no, tuple(segments), archives)


def _archives(tx: ReadTx, session_no: int) -> dict[int, statements.ArchiveGet]:
    """Return the archives of a session and of those that it was forked from, by session."""
    found: dict[int, statements.ArchiveGet] = {}
    at_no: int | None = session_no
    while at_no is not None:
        session = tx.one("archive.session", session_no=at_no)
        if session.archived_at_ms is not None:
            open_row = tx.first("archive.of_session", session_no=at_no)
            if open_row is None or open_row.state not in _READABLE:
                raise _unreadable(session.session_id)
            found[at_no] = tx.one("archive.get", archive_no=open_row.archive_no)
        at_no = session.forked_from_no
    return found


def _unreadable(session_id: str) -> SessionArchived:
    return SessionArchived(
        f"session {session_id}: its archive was dropped, or is being put back. "
        "`sessiondb sessions DB --all` shows which. If it is put back, export it again",
        session_id=session_id,
    )


async def _heads(
    backend: Backend, row: statements.ArchiveGet
) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Return the row of an archived session, and its branches by number."""
    session: dict[str, Any] = {}
    branches: dict[int, dict[str, Any]] = {}
    chunk_no = 0
    while (found := await read_chunk(backend, row, chunk_no)) and found[0].what != ENTRY:
        for what, columns, rows in found:
            if what == SESSION and rows:
                session = dict(zip(columns, rows[0], strict=True))
            elif what == BRANCH:
                branches |= {values[0]: dict(zip(columns, values, strict=True)) for values in rows}
        chunk_no += 1
    if not session:
        raise damaged(row.session_id, f"the archive of session {row.session_id} has no first chunk")
    return session, branches


async def _branch_of(
    backend: Backend, entry_no: int, archives: dict[int, statements.ArchiveGet]
) -> int | None:
    """Return the branch of an entry, wherever it is."""
    row = archives.get(session_of(entry_no))
    if row is None:
        found = await backend.read(
            lambda tx: tx.one("transcript.by_no", entry_no=entry_no), op="archive.look"
        )
        return found.branch_no
    async for named in _entries(backend, row):
        for fields in named:
            if fields["entry_no"] == entry_no:
                branch_no: int | None = fields["branch_no"]
                return branch_no
    raise damaged(row.session_id, f"the archive of session {row.session_id} lacks its last entry")


def _segments(
    tx: ReadTx, branch_no: int | None, head_no: int | None, archived: dict[int, dict[str, Any]]
) -> list[Segment]:
    """Return the path to the head as ranges, root first. As `paths.segments` does.

    A parent is always older, as archives and `verify` check. So a path ends.
    """
    found: list[Segment] = []
    high_no = head_no
    while branch_no is not None and high_no is not None:
        branch = archived.get(branch_no)
        if branch is None:
            branch = tx.one("transcript.branch", branch_no=branch_no)._asdict()
        found.append(Segment(branch_no, branch["first_no"], high_no))
        parent_no = branch["parent_branch_no"]
        branch_no = parent_no if parent_no is None or parent_no < branch_no else None
        high_no = branch["fork_no"]
    found.reverse()
    return found


async def _from_table(backend: Backend, part: Segment) -> AsyncIterator[list[Entry]]:
    low_no = part.low_no
    while rows := await backend.read(_page(part, low_no), op="archive.read"):
        yield [Entry(**row._asdict()) for row in rows]
        low_no = rows[-1].entry_no + 1


def _page(part: Segment, low_no: int) -> Any:
    return lambda tx: (
        tx.page(
            "transcript.span_forward",
            branch_no=part.branch_no,
            low_no=low_no,
            high_no=part.high_no,
            limit=PAGE_ROWS,
        ).rows
    )


async def _from_archive(
    backend: Backend, row: statements.ArchiveGet, parts: list[Segment]
) -> AsyncIterator[list[Entry]]:
    """Yield the entries of an archive that lie on the path, a chunk at a time."""
    wanted = {part.branch_no: part for part in parts}
    async for named in _entries(backend, row):
        page = [_entry(fields) for fields in named if _lies_on(wanted, fields)]
        if page:
            yield page
    state = await backend.read(
        lambda tx: tx.one("archive.get", archive_no=row.archive_no).state, op="archive.look"
    )
    if state not in _READABLE:
        raise _unreadable(row.session_id)


async def _entries(
    backend: Backend, row: statements.ArchiveGet
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the entries of an archive, a chunk at a time."""
    chunk_no = 0
    while (found := await read_chunk(backend, row, chunk_no)) is not None:
        chunk_no += 1
        for what, columns, rows in found:
            if what == ENTRY:
                yield [dict(zip(columns, values, strict=True)) for values in rows]


def _lies_on(wanted: dict[int, Segment], fields: dict[str, Any]) -> bool:
    part = wanted.get(fields["branch_no"])
    return part is not None and part.low_no <= fields["entry_no"] <= part.high_no


def _entry(fields: dict[str, Any]) -> Entry:
    return Entry(**{name: fields[name] for name in _FIELDS})
