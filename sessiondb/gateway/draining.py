"""Draining: the loops of one open database return once their work is done.

    working --> ending turns       no turn is claimed, and nothing resumed. Those that run go on
    ending turns --> ending readers    every turn and compaction has ended: readers of events
                                   handle what there is, and return
    ending readers --> ending replies  what they forwarded is sent, too, and all that may be sent.
                                   A compaction that began meanwhile is awaited as well

A drain is of one open database (`SessionDB`), and of its registration. Other processes on
the same file go on, and take what this one did not. Nothing is interrupted: a loop returns
when its tasks have ended. A drain goes one way. It may be asked for again, after a time
limit, and to work on one opens the database anew.

Critical section "drain". No lock: a loop reads the stage and registers the turn or the reply
that it takes in one task. Invariant: a loop that has returned holds nothing, and takes
nothing. So when the last loop of a stage has returned, that stage's work is done, whatever
the loops of the next stages still do.

A crash in the middle is a crash as any other: `recover` releases what the process held.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING

from sessiondb import events
from sessiondb.backend import Database, Tx
from sessiondb.errors import SessionDBError
from sessiondb.waiter import Deadline

from . import retry, running_turn

if TYPE_CHECKING:
    from .running_turn import Turn

logger = logging.getLogger("sessiondb")


class Stage(IntEnum):
    """How far a drain has come: which loops are to return once their work is done."""

    WORKING = 0
    TURNS = 1
    """Lanes, and whoever resumes."""
    READERS = 2
    """Of events: what they forward becomes replies."""
    REPLIES = 3


class Loops:
    """The loops of one open database in this process, and what they share.

    Loops may run in several threads, each on an event loop of its own.
    """

    def __init__(self) -> None:
        self.running: dict[int, Turn] = {}
        """The turns of all lanes whose handlers run here, by number."""
        self.unsigned: list[str] = []
        """What could not be signed off when a loop was stopped."""
        self.last_event_no = 0
        """Readers that end handle no event after this one."""
        self.last_reply_no = 0
        """A sender that ends takes no reply after this one."""
        self._stage = Stage.WORKING
        self._names: dict[object, tuple[Stage, str]] = {}

    @contextmanager
    def entered(self, db: Database, stage: Stage, name: str) -> Iterator[None]:
        """Count a loop that ends in a stage, for the length of the block."""
        mine = object()
        self._names[mine] = stage, name
        try:
            yield
        finally:
            del self._names[mine]
            db.backend.wake()

    def stop(self, turn_no: int | None) -> None:
        """Cancel the handler of a turn that has ended in the database, if it runs here."""
        # Another thread's loop may end it meanwhile.
        turn = self.running.get(turn_no) if turn_no is not None else None
        if turn is not None and not running_turn.is_ending(turn):
            running_turn.stop(turn)

    def working(self) -> list[int]:
        """Return the turns whose handlers work here, and whose end is not being written."""
        return [
            number
            for number, turn in self.running.copy().items()
            if not running_turn.is_ending(turn)
        ]

    def ends(self, stage: Stage) -> bool:
        """Tell whether the loops of a stage are to return."""
        return self._stage >= stage

    def reach(self, db: Database, stage: Stage) -> None:
        """Let the loops of a stage return. Never goes back."""
        self._stage = max(self._stage, stage)
        db.backend.wake()

    def names(self, stage: Stage = Stage.REPLIES) -> list[str]:
        """Name the loops that run and end in this stage, or in one before it."""
        return sorted(name for until, name in self._names.copy().values() if until <= stage)


async def drain(db: Database, loops: Loops, instance_no: int | None, timeout_s: float) -> None:
    """Let every loop return once its work is done, for `timeout_s` at most.

    `loops` then says which of them have not. See `SessionDB.drain`.
    """
    with Deadline(timeout_s):
        loops.reach(db, Stage.TURNS)
        await _tell_others(db)
        await _wait(db, partial(_turns_ended, db, loops, instance_no))
        loops.last_event_no = await db.read("drain", events.last)
        await _end(db, loops, Stage.READERS)
        loops.last_reply_no = await db.read("drain", lambda tx: tx.one("draining.last").outbox_no)
        await _end(db, loops, Stage.REPLIES)
        # The application may have begun a compaction when a turn ended, and after the look above.
        await _wait(db, partial(_turns_ended, db, loops, instance_no))


async def pause(db: Database, loops: Loops, stage: Stage, pause_s: float) -> None:
    """Sleep, but no longer than until the loops of a stage are to return."""
    over = db.clock.monotonic() + pause_s
    while True:
        seen, left_s = db.backend.change_count, over - db.clock.monotonic()
        if left_s <= 0 or loops.ends(stage):
            return
        await db.backend.wait_change(seen, left_s)


async def _tell_others(db: Database) -> None:
    """Record that this process drains, for `status`, `held` and `stuck` of any process."""
    try:
        await db.write("drain", _mark)
    except SessionDBError as error:
        if not error.retry:
            raise
        # It drains all the same: what cannot be written now is only said to operators.
        logger.warning("the database does not show that this process drains: %s", error)


def _mark(tx: Tx) -> None:
    tx.run("draining.mark", instance_no=tx.instance_no, now_ms=tx.now_ms)


async def _turns_ended(db: Database, loops: Loops, instance_no: int | None) -> bool:
    """Tell whether lanes and resumes have returned, and no compaction of this process runs."""
    if loops.names(Stage.TURNS):
        return False
    jobs = await db.read(
        "drain",
        lambda tx: tx.all("recovery.running_compactions", instance_no=instance_no, limit=1),
    )
    return not jobs


async def _end(db: Database, loops: Loops, stage: Stage) -> None:
    async def ended() -> bool:
        return not loops.names(stage)

    loops.reach(db, stage)
    await _wait(db, ended)


async def _wait(db: Database, ended: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is over that a commit, or the end of a loop, makes so."""
    while True:
        seen = db.backend.change_count
        if await ended():
            return
        await db.backend.wait_change(seen, retry.SLEEP_S_MAX)
