"""The list of sessions for a person: what each is about, what was said last, what it does.

A page of it costs the same however many sessions there are: the newest are found by an index.
Another order reads the row of each session once, which is small, and no entry. What a session
is about is looked for among its first `LOOK` entries, and what was said last among as many
before its head. So a session of a million entries costs no more than one of a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sessiondb.backend import ReadTx
from sessiondb.errors import StoreDamaged
from sessiondb.models import SessionInfo
from sessiondb.transcript import registry

State = Literal["idle", "running", "waiting", "ended", "archived"]
Wanted = Literal["any", "live", "running", "waiting", "ended", "archived"]
Sort = Literal["updated", "created", "entries", "tokens"]

LOOK = 50
"""So many entries are looked at for a title, and as many for the last message."""
TEXT_CHARS = 200
"""Of a text so much is kept. `show` has more."""
DAMAGED = "(damaged: `sessiondb verify DB` says what, `sessiondb salvage DB NEW` repairs it)"


@dataclass(frozen=True, slots=True)
class Listed:
    """A session as the list shows it."""

    info: SessionInfo
    state: State
    title: str | None
    """Its name, or the beginning of a person's first message. None: neither is there."""
    last_message: str | None
    """The beginning of what was said last. None: nothing, or it is archived."""
    last_role: str | None
    """Who said it: user or assistant."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sessions are listed, and in which order."""

    state: Wanted = "live"
    sort: Sort = "updated"
    agent_id: str | None = None
    since_ms: int = 0
    """Only sessions that changed then or later."""
    checkpoints: bool = False
    """With the copies of a session that OpenClaw made beside it."""


class Place(NamedTuple):
    """Where a session stands in the list. The next page begins behind it."""

    value: int
    session_no: int


FIRST = Place(2**62, 2**62)


def numbers(tx: ReadTx, choice: Choice, after: Place, limit: int) -> list[Place]:
    """Return the places of the sessions that follow, `limit` at most."""
    if choice.sort == "updated":
        newest = tx.all(
            "session_list.by_update",
            before=after.value,
            before_no=after.session_no,
            since_ms=choice.since_ms,
            agent_id=choice.agent_id,
            checkpoints=int(choice.checkpoints),
            state=choice.state,
            limit=limit,
        )
        return [Place(row.place, row.session_no) for row in newest]
    largest = tx.all(
        "session_list.by_value",
        sort=choice.sort,
        before=after.value,
        before_no=after.session_no,
        since_ms=choice.since_ms,
        agent_id=choice.agent_id,
        checkpoints=int(choice.checkpoints),
        state=choice.state,
        limit=limit,
    )
    return [Place(row.place, row.session_no) for row in largest]


def page(tx: ReadTx, places: Sequence[Place]) -> list[Listed]:
    """Describe the sessions at these places."""
    return [listed(tx, place.session_no) for place in places]


def listed(tx: ReadTx, session_no: int) -> Listed:
    """Describe one session. A damaged part is shown as such: the list goes on."""
    info = registry.info(tx, session_no)
    try:
        about = tx.one("session_list.about", session_no=session_no, look=LOOK)
        title = info.name or _text(tx, about.first_message_no).text
        last = _text(tx, about.last_message_no)
    except StoreDamaged:
        return Listed(info, _state(info), info.name or DAMAGED, DAMAGED, None)
    state = _state(info, running=bool(about.is_running), waiting=bool(about.is_waiting))
    return Listed(info, state, title, last.text, last.role)


def _state(info: SessionInfo, *, running: bool = False, waiting: bool = False) -> State:
    if info.archived_at_ms is not None:
        return "archived"
    if info.ended_at_ms is not None:
        return "ended"
    return "running" if running else "waiting" if waiting else "idle"


class _Text(NamedTuple):
    text: str | None
    role: str | None


def _text(tx: ReadTx, entry_no: int | None) -> _Text:
    if entry_no is None:
        return _Text(None, None)
    row = tx.one("session_list.text", entry_no=entry_no, chars=TEXT_CHARS)
    text = row.content.decode("utf-8", "replace") if row.content is not None else None
    return _Text(text, row.role)
