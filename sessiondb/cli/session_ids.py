"""Ids of sessions as a terminal shows them: short, and accepted by every command.

A prefix names a session while no other id begins with it. Twins (a session and its
checkpoints, a fork with a chosen id) share more than the usual eight characters, and are
shown with a head and a tail. Output to a file or a pipe has whole ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from .terminal import Column, terminal_width

if TYPE_CHECKING:
    from sessiondb import sync
    from sessiondb.backend import ReadTx

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
