"""What `top` shows of a database, and of a session, read in a few short snapshots each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sessiondb.maintenance import session_list
from sessiondb.maintenance.session_list import Choice, Listed
from sessiondb.maintenance.status import DatabaseStatus
from sessiondb.models import Entry, EpochInfo, SessionInfo
from sessiondb.transcript.pieces import title_of, written_at_ms

from .overview import status_lines
from .session_ids import shown_id
from .show import parts_of
from .terminal import at, escape, escape_lines

if TYPE_CHECKING:
    from sessiondb import sync

SESSIONS = 50
ENTRIES = 100
"""So many sessions, and entries of one, are read for a look."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is shown of a database."""

    status: DatabaseStatus
    sessions: list[Listed]
    """The last changed ones."""
    names: dict[str, str]
    """Ids of sessions with compactions that run, as a terminal shows them."""

    def health(self) -> Iterator[str]:
        """Yield the lines of `status`, safe for a terminal."""
        for name, value in status_lines(self.status, self.names):
            yield f"{name + ':' if name else '':<14}{escape(value)}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is shown of a session."""

    info: SessionInfo
    epochs: list[EpochInfo]
    entries: list[Entry]
    """The last ones of its path, oldest first."""

    def lines(self) -> Iterator[str]:
        """Yield its last entries as lines, safe for a terminal."""
        for entry in self.entries:
            yield escape(f"{at(written_at_ms(entry))}  {title_of(entry)}")
            for part in parts_of(entry):
                shown = escape_lines(part.text).strip("\n").split("\n")
                mark = f"{part.mark} " if part.mark else ""
                most = part.lines_max or len(shown)
                yield from (
                    f"    {mark if not at_no else ''}{line}".rstrip()
                    for at_no, line in enumerate(shown[:most])
                )
                if len(shown) > most:
                    yield f"    ... {len(shown) - most:,} more lines"
            yield ""


def look(opened: sync.SessionDB) -> Look:
    """Read what is shown of a database, in a few short snapshots."""
    status = opened.status()
    numbers = partial(
        session_list.numbers, choice=Choice(), after=session_list.FIRST, limit=SESSIONS
    )
    places = opened.read("top.sessions", numbers)
    sessions = opened.read("top.about", partial(session_list.page, places=places))
    names = {job.session_id: shown_id(opened, job.session_id) for job in status.running}
    return Look(status, sessions, names)


def read_conversation(opened: sync.SessionDB, session_id: str) -> Conversation:
    """Read what is shown of a session, in a few short snapshots."""
    session = opened.session_by_id(session_id)
    entries = session.entries(limit=ENTRIES, newest_first=True)
    return Conversation(session.info(), list(session.epochs()), list(entries)[::-1])
