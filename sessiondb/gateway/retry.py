"""What the loops of a gateway have in common: how they wait trouble out, and how they write what has happened already.

`lanes`, `sending` and `following` hold one loop each; that of the resumes is a few lines in `gateway`.

Waiting does not poll: a commit of this process wakes a loop at once, a commit of another within 100 ms, and otherwise it
sleeps until the next retry, lease or notice is due, `LOOK_S` at most.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import anyio
import anyio.lowlevel

from sessiondb.backend import Database, Tx
from sessiondb.errors import ReadTooLong, SessionDBError, StoreDamaged, outcome_of

logger = logging.getLogger("sessiondb")

# The longest that a loop sleeps without looking, whatever it was told.
LOOK_S = 5.0
# What a loop waits before it tries again when the database could not take its request.
BUSY_PAUSE_S = 0.2


class Backoff:
    """What goes wrong in a loop: said once, not at each attempt, and waited out longer each time, up to `LOOK_S`."""

    def __init__(self, who: str) -> None:
        self.who = who
        self._said = ""
        self._pause_s = 0.0

    def reset(self) -> None:
        """Note that an attempt succeeded."""
        self._said, self._pause_s = "", 0.0

    def next_delay(self, error: SessionDBError) -> float:
        """Say how long to wait before trying again after an error that passes; raise any other.

        A page that cannot be read looks like damage, and may be read the next time; and if it is damage, the other sessions go on.
        """
        is_damage = isinstance(error, StoreDamaged)
        if not is_damage and not error.retry and not isinstance(error, ReadTooLong):
            raise error
        if str(error) != self._said:
            self._said = str(error)
            logger.log(logging.ERROR if is_damage else logging.WARNING, "%s: %s", self.who, error)
        self._pause_s = LOOK_S if is_damage else min(LOOK_S, max(BUSY_PAUSE_S, self._pause_s * 2))
        return self._pause_s


async def write_with_retry(
    db: Database, op: str, body: Callable[[Tx], object], *, for_s: float, who: str, size: int = 0
) -> None:
    """Write what has happened already; shielded, and tried again for a while after errors that pass.

    The body may run again after it was committed. asyncio's task.cancel() passes through a shield, once per call: what was not
    executed is tried again, and the cancellation goes on when that is done.
    """
    give_up = time.monotonic() + for_s
    backoff = Backoff(who)
    cancelled: BaseException | None = None
    pause_s = 0.0
    with anyio.CancelScope(shield=True):
        while True:
            try:
                if pause_s:
                    await anyio.sleep(pause_s)
                await db.write(op, body, size=size)
                break
            except SessionDBError as error:
                if not error.retry or time.monotonic() >= give_up:
                    if cancelled is None:
                        raise
                    logger.warning("%s: while it was being cancelled: %s", who, error)
                    break
                pause_s = backoff.next_delay(error)
            except anyio.get_cancelled_exc_class() as again:
                cancelled, pause_s = again, 0.0
                if outcome_of(again) == "committed":
                    break
    if cancelled is not None:
        raise cancelled


async def reraise_cancellation(mixed: BaseExceptionGroup[BaseException], who: str) -> None:
    """Let a cancellation go on that came with errors of the one who was cancelled; they are logged, and stop nobody."""
    _, others = mixed.split(anyio.get_cancelled_exc_class())
    if others is not None and not isinstance(others, Exception):
        raise mixed
    logger.warning(
        "%s: while it was being cancelled: %s",
        who,
        others and unwrap_group(others),
        exc_info=others,
    )
    await anyio.lowlevel.checkpoint()


def unwrap_group(error: BaseException) -> BaseException:
    """Return the error that groups of one were put around."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
