"""What is damaged is set aside by itself, so that its neighbours are not held up.

Several rows are ended in one transaction. When one of them cannot be, because its session's
rows are damaged, each is ended in a transaction of its own. The damaged one is then ended
without its session: its events are about no session, and only operators see them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sessiondb.backend import Database, Tx
from sessiondb.errors import ConstraintFailed, StoreDamaged

from . import claims, dead_letters, outbox, retry

T = TypeVar("T")

logger = logging.getLogger("sessiondb")

OF_ONE_SESSION = (StoreDamaged, ConstraintFailed)
"""What damage of a session looks like. An event about a session that is gone breaks a rule."""


async def set_aside_message(db: Database, stuck: claims.CannotBegin) -> None:
    """Give up a message with which no turn can begin."""
    reason = retry.text_of(stuck)
    name = f"inbox item {stuck.inbox_no}"
    logger.error("%s is set aside: %s", name, reason)
    refuse = partial(dead_letters.refuse, inbox_no=stuck.inbox_no, reason=reason)
    alone = partial(refuse, session_no=None)
    if stuck.session_no is None:
        await db.write("set_aside", alone)
    else:
        await _either(db, partial(refuse, session_no=stuck.session_no), alone, name)


async def end_turn(
    db: Database, turn_no: int, inbox_no: int, end: Callable[[Tx], bool], reason: str
) -> bool:
    """End a running turn, whether or not its session can be read. Return what `end` returns."""
    alone = partial(dead_letters.set_aside, turn_no=turn_no, inbox_no=inbox_no, reason=reason)
    return await _either(db, end, alone, f"turn {turn_no}")


async def lose_reply(
    db: Database, outbox_no: int, session_no: int, attempt: int, reason: str
) -> bool:
    """Make a reply `unknown`, whether or not its session can be read."""
    lose = partial(outbox.lose_track, outbox_no=outbox_no, attempt=attempt, reason=reason)
    return await _either(
        db,
        partial(lose, session_no=session_no),
        partial(lose, session_no=None),
        f"reply {outbox_no}",
    )


async def _either(db: Database, end: Callable[[Tx], T], alone: Callable[[Tx], T], name: str) -> T:
    try:
        return await db.write("set_aside", end)
    except OF_ONE_SESSION as error:
        logger.error("%s is ended without its session: %s", name, error)  # noqa: TRY400
    return await db.write("set_aside", alone)
