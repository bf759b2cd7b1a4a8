"""Lanes: classes of turns that share a limit of how many run at once, and a priority.

A lane is a row that any process may change. The claim reads it again each time
(`claims.py`), so a new limit or priority holds from the next claim on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import InvalidInput, NotFound
from sessiondb.limits import LANE_CHARS_MAX

if TYPE_CHECKING:
    from sessiondb import statements

MAIN_LANE, RESUME_LANE = "main", "resume"
"""A turn in this lane is a resume. Only the resume plan puts messages there."""


def check_lane(lane: str, concurrency: object, priority: object) -> None:
    """Check a lane's settings.

    Raises:
        InvalidInput: an empty or too long name, a concurrency below 1, or no number.
    """
    if (
        not 0 < len(lane) <= LANE_CHARS_MAX
        or not isinstance(concurrency, int)
        or not isinstance(priority, int)
        or concurrency < 1
    ):
        raise InvalidInput(
            f"a lane needs a name of 1 to {LANE_CHARS_MAX} characters, a concurrency of at least "
            "1, and a number as its priority"
        )


def set_lane(
    tx: Tx, lane: str, concurrency: int, priority: int, people: bool | None = None
) -> None:
    """Create a lane or change it. May be repeated.

    Another priority changes who waits for whom, so the marks of all that wait are made anew.
    """
    before = tx.first("turns.lane", lane=lane)
    tx.run("turns.set_lane", lane=lane, concurrency=concurrency, priority=priority, people=people)
    if before is not None and before.priority != priority:
        tx.run("inbox.line_up_all")
    notify_changed(tx, lane, before)


def notify_changed(tx: Tx, lane: str, before: statements.TurnsLane | None) -> None:
    """Emit the event of a lane that is not as it was `before`. None: it was not there."""
    now = require_lane(tx, lane)
    if now == before:
        return
    events.emit(
        tx,
        "lane_changed",
        "operator",
        f"Lane {lane} {'is new' if before is None else 'has other settings'}: "
        f"{now.concurrency} at once, priority {now.priority}"
        + (", for people" if now.people else ""),
        lane=lane,
        change="created" if before is None else "changed",
        concurrency=now.concurrency,
        priority=now.priority,
        people=bool(now.people),
    )


def make_room(tx: Tx, lane: str, concurrency: int) -> None:
    """Let at least so many turns of a lane run at once."""
    before = require_lane(tx, lane)
    if tx.run("turns.make_room", lane=lane, concurrency=concurrency):
        notify_changed(tx, lane, before)


def require_lane(tx: ReadTx, lane: str) -> statements.TurnsLane:
    """Return a lane's settings, and how many of its turns run.

    Raises:
        NotFound: there is no such lane.
    """
    row = tx.first("turns.lane", lane=lane)
    if row is None:
        raise NotFound(f"there is no lane {lane!r}; make it with db.set_lane()", lane=lane)
    return row
