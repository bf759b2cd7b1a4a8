"""Ids of sessions as a terminal shows them: short, and accepted by every command.

The library takes whole ids only: a program must not find another session than the one that it
means. A person types the beginning of one.

A prefix names a session while no other id begins with it. Twins (a session and its
checkpoints, a fork with a chosen id) share more than the usual eight characters, and are
shown with a head and a tail. Output to a file or a pipe has whole ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from sessiondb.errors import NotFound
from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.transcript import registry
from sessiondb.transcript.append import find_entry
from sessiondb.transcript.keys import looks_like_key
from sessiondb.transcript.paths import entry_number, require_entries
from sessiondb.transcript.registry import SessionRef
from sessiondb.transcript.state import load_state, no_entry

from .terminal import Column, terminal_width

if TYPE_CHECKING:
    from sessiondb import statements, sync
    from sessiondb.backend import ReadTx
    from sessiondb.models import Entry

SHORTEST = 8
# Ids of one snapshot. Each takes two searches of an index.
PAGE = 500
_ENTRY_NUMBER = re.compile(r"#?(\d{1,10})(?:@(.+))?", re.DOTALL)
CUT_MARK = "\u2026"
# Of a twin's id so many characters are shown behind the mark, at least.
TAIL_MIN = 4
# Ids that begin alike, beyond which a longer prefix is shown instead.
TWINS_MAX = 200


# -- finding what a person names -----------------------------------------------------------


def session_named(opened: sync.SessionDB, text: str) -> sync.Session:
    """Return the session that a person names, in any way that `resolve` takes.

    Raises:
        NotFound: none, or more than one.
    """
    return opened.session_by_id(session_id_named(opened, text))


def session_id_named(opened: sync.SessionDB, text: str) -> str:
    """Return the whole id of the session that a person names.

    Raises:
        NotFound: none, or more than one.
    """
    return opened.read("session.find", lambda tx: resolve(tx, text)).session_id


def resolve(tx: ReadTx, text: str) -> SessionRef:
    """Find a session by key, by id, or by what a table shows of its id (`shorten`).

    That is a unique prefix, or a head and a tail around an ellipsis.

    Raises:
        NotFound: none, or more than one. The message says which.
    """
    whole = registry.by_key_or_id(tx, text)
    if whole is not None:
        return whole
    head, _, tail = text.replace("...", CUT_MARK).partition(CUT_MARK)
    matches = _beginning_with(tx, head, tail, 2) if head else []
    if len(matches) == 1:
        return SessionRef(matches[0].session_no, matches[0].session_id)
    if matches:
        raise NotFound(
            f"more than one session id begins with {text!r}, "
            f"such as {matches[0].session_id} and {matches[1].session_id}"
        )
    missing = "key is bound to a session"
    if not looks_like_key(text):
        missing = "session has this id or begins with it"
    raise NotFound(f"{text!r}: no {missing}; list them with `sessiondb sessions DB`", session=text)


def entry_named(tx: ReadTx, session_no: int, text: str) -> str:
    """Return the id of the entry that a person names.

    By its id, or by its number. A number alone is one of the session itself. `7@SESSION` is
    one of a session that it was forked from.

    Raises:
        NotFound: no such entry, or no such session.
    """
    state = load_state(tx, session_no)
    require_entries(state.session_id, state.archived_at_ms)
    found = find_entry(tx, state, text)
    if found is not None:
        return found.entry_id
    match = _ENTRY_NUMBER.fullmatch(text)
    if match is not None and 0 < int(match[1]) <= SEQ_MAX:
        owner_no = session_no if match[2] is None else resolve(tx, match[2]).session_no
        row = tx.first("transcript.by_no", entry_no=entry_number(owner_no, int(match[1])))
        if row is not None:
            return row.entry_id
    raise no_entry(state.session_id, text, "; `sessiondb show` prints their numbers")


def entry_id_of(opened: sync.SessionDB, session: sync.Session, text: str) -> str:
    """Return the id of the entry that a person names: by id, or by number as `show` prints it.

    A number alone is one of the session itself. `7@SESSION` is one that a fork begins with.

    Raises:
        NotFound: there is no such entry.
    """
    return opened.read("entry.find", lambda tx: entry_named(tx, session.ref.session_no, text))


# -- what a terminal shows -----------------------------------------------------------------


def _beginning_with(
    tx: ReadTx, head: str, tail: str, limit: int
) -> list[statements.SessionIdsByPrefix]:
    return tx.all(
        "session_ids.by_prefix", prefix=head, prefix_end=head + "\U0010ffff", tail=tail, limit=limit
    )


def shorten(tx: ReadTx, session_id: str, least: int) -> str:
    """Return a short text, of at least `least` characters, by which `resolve` finds an id.

    It is a prefix, while that is short. Twins differ late, so theirs have a head and a tail.
    """
    length = max(least, _unique_length(tx, session_id))
    if length <= least + TAIL_MIN:
        return session_id[:length]
    head = session_id[:least]
    rows = _beginning_with(tx, head, "", TWINS_MAX)
    twins = [row.session_id for row in rows if row.session_id != session_id]
    if len(rows) < TWINS_MAX:
        for count in range(TAIL_MIN, length - least - 1):
            tail = session_id[-count:]
            if not any(twin.endswith(tail) for twin in twins):
                return f"{head}{CUT_MARK}{tail}"
    return session_id[:length]


def _unique_length(tx: ReadTx, session_id: str) -> int:
    """Return how many of its first characters no other id has. All, if another begins with it."""
    near = tx.one("session_ids.id_neighbours", session_id=session_id)
    shared = [
        _shared_length(session_id, other)
        for other in (near.previous, near.following)
        if other is not None
    ]
    return min(len(session_id), max(shared, default=0) + 1)


def _shared_length(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def session_column(opened: sync.SessionDB, session_ids: Iterable[str | None]) -> Column:
    """Return the column of these ids. Where one does not fit, it is shown short."""
    return Column("session", shorts=_shorts(opened, session_ids) if terminal_width() else {})


def shown_id(opened: sync.SessionDB, session_id: str) -> str:
    """Return an id as a line of text has it: short on a terminal, whole elsewhere."""
    return _shorts(opened, [session_id])[session_id] if terminal_width() else session_id


def _shorts(opened: sync.SessionDB, session_ids: Iterable[str | None]) -> dict[str, str]:
    def read(tx: ReadTx, page: list[str]) -> dict[str, str]:
        return {session_id: shorten(tx, session_id, SHORTEST) for session_id in page}

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
        read = partial(registry.info, session_no=session_no)
        return self._opened.read("session.info", read).session_id
