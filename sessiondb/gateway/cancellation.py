"""Cancellations: which of them somebody asked for, and which came out of nowhere.

A cancellation ends a task in silence, because whoever asked for it knows. Code that
nobody cancelled can raise one all the same. It awaited a task, a client or a result that
somebody else had cancelled. Let through, such a stray one ends a loop, and nobody is told:
a task group takes it for the end of a child that it cancelled itself.

A loop of the gateway was asked to stop in two cases. A cancel scope around it is cancelled
(asyncio and trio). Or `task.cancel()` was called for its own task (asyncio). What was
asked of one of its child tasks alone was asked of the wrong one, and is stray.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio

from sessiondb.clock import monotonic
from sessiondb.errors import StrayCancellation
from sessiondb.waiter import running_trio

A = TypeVar("A")

logger = logging.getLogger("sessiondb")


class Watch:
    """Knows whether somebody asked a loop to stop. Made by the loop's own task."""

    def __init__(self, unsigned: list[str] | None = None) -> None:
        self._unsigned = unsigned
        self.stopped_at: float | None = None
        """When the loop began to stop (monotonic clock). None: it goes on."""
        self._task = _asyncio_task()
        # A cancellation of long ago may never have been taken back.
        self._before = self._task.cancelling() if self._task is not None else 0

    @contextmanager
    def noting_stop(self) -> Iterator[None]:
        """Note when the loop leaves the block: its tasks still write how their work ended."""
        try:
            yield
        finally:
            self.stopped_at = monotonic()

    def is_asked(self) -> bool:
        """Tell whether it was. From any task of the loop: it sees the scopes around itself, too."""
        if anyio.current_effective_deadline() == -math.inf:
            return True
        return self._task is not None and self._task.cancelling() > self._before

    def note_unsigned(self, what: str) -> None:
        """Note what could not be recorded, if the loop was asked to stop.

        A loop that goes on deals with it later.
        """
        if self._unsigned is not None and self.is_asked():
            self._unsigned.append(what)


class Tasks:
    """Counts the tasks of a loop, which waits for them while it may still be stopped itself.

    A task group waits for its tasks, too, but a loop that is stopped there cannot note it.
    """

    def __init__(self) -> None:
        self._left = 0
        self._ended = anyio.Event()

    def add(self) -> None:
        """Count a task that is about to begin."""
        self._left += 1

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Note the end of a task at the end of the block."""
        try:
            yield
        finally:
            self._left -= 1
            if not self._left:
                self._ended.set()

    async def all_ended(self) -> None:
        """Wait until every task has ended. No other one may be added meanwhile."""
        while self._left:
            self._ended = anyio.Event()
            await self._ended.wait()


def _asyncio_task() -> asyncio.Task[Any] | None:
    return asyncio.current_task() if running_trio() is None else None


@contextmanager
def strays_raise(name: str, watch: Watch | None = None) -> Iterator[None]:
    """Make a stray cancellation that leaves the block an error that says so.

    Raises:
        StrayCancellation: a cancellation came out of the block, and nobody had asked for it.
    """
    watch = watch or Watch()
    try:
        yield
    except BaseException as error:
        if not is_cancellation(error) or watch.is_asked():
            raise
        raise stray(name, error) from error


def must_not_end(name: str, watch: Watch) -> None:
    """Raise at a place that a loop reaches only when its task group took a stray cancellation.

    Raises:
        StrayCancellation: nobody had asked the loop to stop.
    """
    if not watch.is_asked():
        raise stray(name, None)


def stray(name: str, error: BaseException | None) -> StrayCancellation:
    """Return the error that a stray cancellation becomes."""
    return StrayCancellation(
        f"{name}: a cancellation that nobody asked for ended it"
        f"{f' ({type(error).__name__}: {error})' if error is not None else ''}. "
        "It awaited a task, a client or a result that somebody else cancelled. Start it again."
    )


async def call(function: Callable[[A], Awaitable[Any]], argument: A, watch: Watch) -> Any:
    """Await a function that is not ours. Its stray cancellation is an error like any other.

    Raises:
        StrayCancellation: a cancellation came out of it that nobody had asked for.
    """
    try:
        return await function(argument)
    except BaseException as error:
        if not is_cancellation(error) or watch.is_asked():
            raise
        forget_cancellation()
        raise StrayCancellation(
            "a cancellation that nobody asked for came out of it "
            f"({type(error).__name__}: {error}); it awaited a task, a client or a result that "
            "somebody else cancelled"
        ) from error


def forget_cancellation() -> None:
    """Take back what `task.cancel()` asked of this task: it has been dealt with."""
    task = _asyncio_task()
    while task is not None and task.cancelling():
        task.uncancel()


def is_cancellation(error: BaseException) -> bool:
    """Tell whether an error is a cancellation, or a group of one and of plain exceptions."""
    cancelled = anyio.get_cancelled_exc_class()
    if not isinstance(error, BaseExceptionGroup):
        return isinstance(error, cancelled)
    found, others = error.split(cancelled)
    return found is not None and (others is None or isinstance(others, Exception))
