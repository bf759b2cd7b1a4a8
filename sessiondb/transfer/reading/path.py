"""Which entries a conversation has, for an export that is read: one path, from its root.

The path to an entry never changes. So its end is chosen in one snapshot, and each page is read
in a short snapshot of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from sessiondb.backend import Backend, ReadTx
from sessiondb.errors import InvalidInput
from sessiondb.limits import PAGE_ROWS
from sessiondb.models import Entry, SessionInfo
from sessiondb.transcript import registry
from sessiondb.transcript.append import find_entry
from sessiondb.transcript.paths import (
    context_start,
    read_path,
    require_readable,
    segments,
    seq_of,
    session_of,
)
from sessiondb.transcript.state import load_state, no_entry


class ArchivedPath(Protocol):
    """The path of an archived session, as `maintenance` reads it."""

    @property
    def head_no(self) -> int | None: ...
    @property
    def start_no(self) -> int | None: ...
    @property
    def session_nos(self) -> Collection[int]: ...
    def pages(self, backend: Backend) -> AsyncIterator[list[Entry]]: ...


FindArchived = Callable[[Backend, int], Awaitable[ArchivedPath | None]]
"""What finds it, by the session's number. None: the session is not archived."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above a conversation, and where it ends."""

    title: str
    info: SessionInfo
    session_no: int
    head_no: int | None
    """The last entry of the path. None: the path is empty."""
    start_no: int | None
    """Where the current context begins. None: at the root, or this is another branch."""
    owners: dict[int, str]
    """The ids of the sessions that the path leads through, by number."""

    def name_of(self, entry: Entry) -> str:
        """Return an entry's number. Of an entry that a fork begins with: with its session's."""
        owner_no = session_of(entry.entry_no)
        own = str(seq_of(entry.entry_no))
        return own if owner_no == self.session_no else f"{own}@{self.owners[owner_no]}"


def heading(tx: ReadTx, session_no: int, branch: str | None) -> Heading:
    """Choose the path to an entry, or to the head, and describe the session.

    Raises:
        NotFound: no such entry.
        InvalidInput: the entry is on no path.
        SessionArchived: the entries are in an archive.
    """
    require_readable(tx, session_no)
    info = registry.info(tx, session_no)
    title = info.name or next(iter(info.keys), info.session_id)
    if branch is None:
        pointers = tx.one("context.pointers", session_no=session_no)
        start_no = context_start(pointers.boundary_no, pointers.first_kept_no)
        owners = _owners(tx, pointers.head_no)
        return Heading(title, info, session_no, pointers.head_no, start_no, owners)
    found = find_entry(tx, load_state(tx, session_no), branch)
    if found is None:
        raise no_entry(info.session_id, branch)
    if found.branch_no is None:
        raise InvalidInput(
            f"session {info.session_id}: entry {branch} is a {found.type} record, which is on no "
            "path. Name an entry of the conversation",
            session_id=info.session_id,
        )
    return Heading(title, info, session_no, found.entry_no, None, _owners(tx, found.entry_no))


def archived_heading(tx: ReadTx, session_no: int, found: ArchivedPath) -> Heading:
    """Describe an archived session."""
    info = registry.info(tx, session_no)
    owners = {number: registry.info(tx, number).session_id for number in found.session_nos}
    title = info.name or info.session_id
    return Heading(title, info, session_no, found.head_no, found.start_no, owners)


async def pages(
    backend: Backend, session_no: int, head_no: int | None
) -> AsyncIterator[list[Entry]]:
    """Yield the entries of a path, oldest first.

    Raises:
        SessionArchived: they went into an archive meanwhile.
    """
    after_no: int | None = None
    while entries := await backend.read(
        next_page(session_no, head_no, after_no), op="export.reading"
    ):
        after_no = entries[-1].entry_no
        yield entries


def _owners(tx: ReadTx, head_no: int | None) -> dict[int, str]:
    numbers = {session_of(segment.high_no) for segment in segments(tx, head_no)}
    return {number: registry.info(tx, number).session_id for number in sorted(numbers)}


def next_page(
    session_no: int, head_no: int | None, after_no: int | None
) -> Callable[[ReadTx], list[Entry]]:
    """Return a read of the next entries of a path, oldest first. Empty: none is left."""

    def read(tx: ReadTx) -> list[Entry]:
        require_readable(tx, session_no)
        rows = read_path(
            tx, head_no, after_no=after_no, before_no=None, limit=PAGE_ROWS, backward=False
        )
        return [Entry(**row._asdict()) for row in rows]

    return read
