"""What the loops of a gateway share: how they wait, back off, and write what has happened.

`worker`, `dispatcher`, `consumer` and `recovery` hold one loop each.

Waiting does not poll. A commit of this process wakes a loop at once, a commit of another
process within 100 ms. Otherwise the loop sleeps until the next retry, lease or notice is due,
`SLEEP_S_MAX` at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import anyio
import anyio.lowlevel
from pydantic import TypeAdapter, ValidationError

from sessiondb.backend import Database, Tx
from sessiondb.clock import monotonic
from sessiondb.errors import InvalidInput, ReadTooLong, SessionDBError, StoreDamaged, outcome_of
from sessiondb.limits import RetryPauses
from sessiondb.waiter import sleep

from .cancellation import Watch

logger = logging.getLogger("sessiondb")

# The longest that a loop sleeps before it reads again, and the shortest.
SLEEP_S_MAX = 5.0
SLEEP_S_MIN = 0.01
# A reason is kept with its turn or reply, and shown to a person.
REASON_CHARS_MAX = 2_000
# The first delay after the database could not take a loop's request.
BUSY_PAUSE_S = 0.2


def sleep_s(now_ms: int, due_ms: Iterable[int | None]) -> float:
    """Return how long a loop may sleep until the first of some times, None meaning never."""
    due_s = [(at_ms - now_ms) / 1000 for at_ms in due_ms if at_ms is not None]
    return min(SLEEP_S_MAX, max(SLEEP_S_MIN, min(due_s, default=SLEEP_S_MAX)))


_PAUSES: TypeAdapter[tuple[float, ...]] = TypeAdapter(RetryPauses)


def checked_pauses(pauses_s: object) -> tuple[float, ...]:
    """Return the pauses between attempts.

    Raises:
        InvalidInput: none, or one that is no time of a minute at most.
    """
    try:
        return _PAUSES.validate_python(pauses_s)
    except ValidationError as error:
        raise InvalidInput(
            f"retry_pauses_s is {pauses_s!r:.80}, and must be one or more numbers of seconds "
            "from 0 to 60"
        ) from error


class Backoff:
    """A loop's errors: each logged once, not at each attempt, with delays that grow.

    The delays double up to `SLEEP_S_MAX`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._logged = ""
        self._delay_s = 0.0

    def reset(self) -> None:
        """Note that an attempt succeeded."""
        self._logged, self._delay_s = "", 0.0

    def next_delay(self, error: SessionDBError) -> float:
        """Return how long to wait before the next attempt, after an error that passes.

        Raise any other error. A page that cannot be read looks like damage, and may be
        readable the next time. If it is damage, the other sessions still go on.
        """
        is_damage = isinstance(error, StoreDamaged)
        if not is_damage and not error.retry and not isinstance(error, ReadTooLong):
            raise error
        if str(error) != self._logged:
            self._logged = str(error)
            logger.log(logging.ERROR if is_damage else logging.WARNING, "%s: %s", self.name, error)
        doubled = max(BUSY_PAUSE_S, self._delay_s * 2)
        self._delay_s = SLEEP_S_MAX if is_damage else min(SLEEP_S_MAX, doubled)
        return self._delay_s


async def write_with_retry(
    db: Database,
    op: str,
    body: Callable[[Tx], object],
    *,
    for_s: float,
    name: str,
    size: int = 0,
    watch: Watch | None = None,
) -> None:
    """Write what has happened already. Shielded, and retried after errors that pass.

    It is given up after `for_s`. With `watch`, that time begins when its loop stops: while
    the disk is full nobody else can write either, and what has happened stays true.

    The body may run again after it was committed. asyncio's task.cancel() passes
    through a shield, once per call. A write that it stopped is tried again. The
    cancellation is raised when that is done.
    """
    begun = monotonic()

    def is_over() -> bool:
        since = begun if watch is None else watch.stopped_at
        return since is not None and monotonic() >= max(begun, since) + for_s

    backoff = Backoff(name)
    cancelled: BaseException | None = None
    delay_s = 0.0
    with anyio.CancelScope(shield=True):
        while True:
            try:
                if delay_s:
                    await sleep(delay_s)
                await db.write(op, body, size=size)
                break
            except SessionDBError as error:
                if not error.retry or is_over():
                    if cancelled is None:
                        raise
                    logger.warning("%s: while it was being cancelled: %s", name, error)
                    break
                delay_s = backoff.next_delay(error)
            except anyio.get_cancelled_exc_class() as again:
                cancelled, delay_s = again, 0.0
                if outcome_of(again) == "committed":
                    break
    if cancelled is not None:
        raise cancelled


async def reraise_cancellation(mixed: BaseExceptionGroup[BaseException], name: str) -> None:
    """Re-raise the cancellation. Log the other errors."""
    _, others = mixed.split(anyio.get_cancelled_exc_class())
    if others is not None and not isinstance(others, Exception):
        raise mixed
    logger.warning(
        "%s: while it was being cancelled: %s",
        name,
        others and unwrap_group(others),
        exc_info=others,
    )
    await anyio.lowlevel.checkpoint()


def described(error: BaseException) -> str:
    """Return an error's kind and text, as a reason that can be stored."""
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """Return an error's text, in a form that can be stored.

    The error is somebody else's, and its text may be anything.
    """
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001  # whatever it is, it has a name
        text = f"(its text raised {type(broken).__name__})"
    return storable(text[:REASON_CHARS_MAX])


def storable(text: str) -> str:
    """Return a text with what is no Unicode escaped, such as half an emoji of a file's name."""
    return text.encode("utf-8", "backslashreplace").decode()


def unwrap_group(error: BaseException) -> BaseException:
    """Return the error inside of groups that hold one error each."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
