"""Lanes: classes of turns that share a limit of how many run at once, and a priority.

A lane is a row that any process may change. The claim reads it again each time
(`claims.py`), so a new limit or priority holds from the next claim on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import InvalidInput, NotFound
from sessiondb.limits import LANE_CHARS_MAX

if TYPE_CHECKING:
    from sessiondb import statements

MAIN_LANE, RESUME_LANE = "main", "resume"
"""A turn in this lane is a resume. Only the resume plan puts messages there."""

MOVED_AT_ONCE = 500
"""Messages that one transaction of a drop moves."""

Change = Literal["created", "changed", "paused", "resumed", "dropped"]


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
    before = find_lane(tx, lane)
    tx.run("turns.set_lane", lane=lane, concurrency=concurrency, priority=priority, people=people)
    if before is not None and before.priority != priority:
        tx.run("inbox.line_up_all")
    notify_changed(tx, lane, before)


def notify_changed(
    tx: Tx, lane: str, before: statements.TurnsLane | None, change: Change = "changed"
) -> None:
    """Emit the event of a lane that is not as it was `before`. None: it was not there."""
    now = require_lane(tx, lane)
    if now == before:
        return
    _notify(tx, now, "created" if before is None else change)


def _notify(tx: Tx, row: statements.TurnsLane, change: Change) -> None:
    text = {
        "created": "is new",
        "changed": "has other settings",
        "paused": "is paused",
        "resumed": "runs again",
        "dropped": "is dropped",
    }[change]
    events.emit(
        tx,
        "lane_changed",
        "operator",
        f"Lane {row.lane} {text}: {row.concurrency} at once, priority {row.priority}"
        + (", for people" if row.people else ""),
        lane=row.lane,
        change=change,
        concurrency=row.concurrency,
        priority=row.priority,
        people=bool(row.people),
    )


def pause(tx: Tx, lane: str) -> bool:
    """Let nothing be claimed from a lane. Return False if it was paused.

    Raises:
        NotFound: there is no such lane.
    """
    return _pause(tx, lane, tx.now_ms, "paused")


def resume(tx: Tx, lane: str) -> bool:
    """Let a paused lane run again. Return False if it was not paused.

    Raises:
        NotFound: there is no such lane.
    """
    return _pause(tx, lane, None, "resumed")


def _pause(tx: Tx, lane: str, at_ms: int | None, change: Change) -> bool:
    before = require_lane(tx, lane)
    changed = tx.run("turns.pause_lane", lane=lane, at_ms=at_ms) == 1
    notify_changed(tx, lane, before, change)
    return changed


def set_settings(tx: Tx, lane: str, settings: str | None) -> None:
    """Say how a lane's turns are run, as JSON. None: as each of its loops was given.

    Raises:
        NotFound: there is no such lane.
    """
    before = require_lane(tx, lane)
    tx.run("turns.set_lane_settings", lane=lane, settings=settings)
    notify_changed(tx, lane, before)


def check_drop(lane: str, into: str | None) -> None:
    """Check that a lane may be dropped at all, and that its messages have another one to go to.

    Raises:
        InvalidInput: they have not, or every database has the lane.
    """
    if lane in (MAIN_LANE, RESUME_LANE):
        raise InvalidInput(f"every database has lane {lane!r}: pause it instead")
    if into in (lane, RESUME_LANE):
        raise InvalidInput(f"the messages of lane {lane!r} cannot go to lane {into!r}")


def drop(tx: Tx, lane: str, into: str | None) -> bool:
    """Drop a lane, with its messages moved to another. `MOVED_AT_ONCE` at most: else False.

    Turns that run go on, and their messages are of the other lane from then on. May be repeated
    until it is done.

    Raises:
        NotFound: there is no such lane, or no lane for the messages.
        InvalidInput: it has messages that are not done, and they have nowhere to go.
    """
    before = require_lane(tx, lane)
    if into is not None:
        require_lane(tx, into)
    rows = tx.all("turns.open_in_lane", lane=lane, limit=MOVED_AT_ONCE)
    if rows:
        if into is None:
            raise InvalidInput(
                f"lane {lane!r} has messages that are not done, the first is inbox item "
                f"{rows[0].inbox_no}. Nothing was changed. Say where they go with `into`, or drop "
                "the lane when they are done"
            )
        numbers = json.dumps([row.inbox_no for row in rows])
        tx.run("turns.move_messages", lane=lane, into=into, numbers=numbers)
        tx.run("inbox.line_up_all")
    if len(rows) == MOVED_AT_ONCE:
        return False
    tx.run("turns.drop_lane", lane=lane, now_ms=tx.now_ms)
    _notify(tx, before, "dropped")
    return True


def make_room(tx: Tx, lane: str, concurrency: int) -> None:
    """Let at least so many turns of a lane run at once."""
    before = require_lane(tx, lane)
    if tx.run("turns.make_room", lane=lane, concurrency=concurrency):
        notify_changed(tx, lane, before)


def find_lane(tx: ReadTx, lane: str) -> statements.TurnsLane | None:
    """Return a lane as `require_lane` does. None: there is none, or it was dropped."""
    row = tx.first("turns.lane", lane=lane)
    return row if row is not None and row.dropped_at_ms is None else None


def was_dropped(tx: ReadTx, lane: str) -> bool:
    """Tell whether a lane of this name was dropped, and was not made anew since."""
    row = tx.first("turns.lane", lane=lane)
    return row is not None and row.dropped_at_ms is not None


def lane_of_edit(tx: ReadTx, lane: str) -> str:
    """Return the lane for an edit of a message: its lane, or `main` if that was dropped since."""
    return MAIN_LANE if was_dropped(tx, lane) else lane


def require_lane(tx: ReadTx, lane: str) -> statements.TurnsLane:
    """Return a lane's settings, and how many of its turns run.

    Raises:
        NotFound: there is no such lane.
    """
    row = find_lane(tx, lane)
    if row is None:
        raise NotFound(f"there is no lane {lane!r}; make it with db.set_lane()", lane=lane)
    return row
