"""Ids of sessions as a terminal shows them: short, and accepted by every command.

A prefix names a session while no other id begins with it. Twins (a session and its
checkpoints, a fork with a chosen id) share more than the usual eight characters, and are
shown with a head and a tail. Output to a file or a pipe has whole ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from sessiondb.limits import SEQ_BITS

from .terminal import Column, terminal_width

if TYPE_CHECKING:
    from sessiondb import sync
    from sessiondb.backend import ReadTx
    from sessiondb.models import Entry

SHORTEST = 8
# Ids of one snapshot. Each takes two searches of an index.
PAGE = 500


def session_column(opened: sync.SessionDB, session_ids: Iterable[str | None]) -> Column:
    """Return the column of these ids. Where one does not fit, it is shown short."""
    return Column("session", shorts=_shorts(opened, session_ids) if terminal_width() else {})


def shown_id(opened: sync.SessionDB, session_id: str) -> str:
    """Return an id as a line of text has it: short on a terminal, whole elsewhere."""
    return _shorts(opened, [session_id])[session_id] if terminal_width() else session_id


def _shorts(opened: sync.SessionDB, session_ids: Iterable[str | None]) -> dict[str, str]:
    from sessiondb.transcript import registry

    def read(tx: ReadTx, page: list[str]) -> dict[str, str]:
        return {session_id: registry.shorten(tx, session_id, SHORTEST) for session_id in page}

    wanted = sorted({session_id for session_id in session_ids if session_id})
    found: dict[str, str] = {}
    for start in range(0, len(wanted), PAGE):
        found |= opened.read("sessions.short", partial(read, page=wanted[start : start + PAGE]))
    return found


class EntryNames:
    """The names by which a person finds entries: `12`, and `7@SESSION` of a fork's origin."""

    def __init__(self, opened: sync.SessionDB, session: sync.Session) -> None:
        self._opened = opened
        self._own_no = session.ref.session_no
        self._of_others: dict[int, str] = {}

    def __call__(self, entry: Entry) -> str:
        """Return the name of an entry. `branch`, `fork` and `reset` take it."""
        session_no = entry.entry_no >> SEQ_BITS
        if session_no == self._own_no:
            return str(entry.seq)
        if session_no not in self._of_others:
            self._of_others[session_no] = shown_id(self._opened, self._id_of(session_no))
        return f"{entry.seq}@{self._of_others[session_no]}"

    def _id_of(self, session_no: int) -> str:
        from sessiondb.transcript import registry

        read = partial(registry.info, session_no=session_no)
        return self._opened.read("session.info", read).session_id
