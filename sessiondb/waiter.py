"""How a task on an event loop waits for a thread: one wakeup per batch, one rule for giving up.

A request is made on an event loop and executed on a thread of the engine. The task waits
on a `Waiter`. The thread calls `notify_all` with the waiters of all that it finished,
which crosses to each event loop once, however many tasks it wakes there.

`Waiter.wait` ends in one of three ways:

* It returns True: it was notified, so the request is done.
* It returns False: the time was up, and `try_cancel()` took the request back, so it will
  never be executed.
* It raises the cancellation, and `try_cancel()` took the request back.

When `try_cancel()` answers False, the request has begun and its outcome must not be lost.
The wait then continues, shielded, until the notification. From there on the two kinds of
cancellation differ. A cancel scope (anyio, trio) cancels by *level*: the task is cancelled
again at its next checkpoint, so `wait` returns True and the caller gets its result.
asyncio's `task.cancel()` cancels by *edge*: swallowed once, it would be lost. So it is
kept in `cancellation`, and the caller of `wait` raises it, marked with the outcome. Under
scopes, therefore, "cancelled" always means "not executed".

The time is real time (`timers.py`), also while a test has stopped the clock that the event loop
goes by. `sleep` and `Deadline` are the library's own for the same reason.

Everything in a waiter happens on its own event loop's thread, so nothing here is locked.
trio is looked up in `sys.modules`, never imported: a program that runs under trio has
imported it.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

import anyio
import anyio.lowlevel

from .clock import Clock, Timer
from .timers import SYSTEM


class Waiter(Protocol):
    """One task's place to wait."""

    cancellation: BaseException | None
    """An asyncio cancellation that came after the request had begun. The caller must raise it."""

    @property
    def loop(self) -> Any:
        """The event loop. Waiters with an equal one are notified together."""

    def send(self, waiters: list[Any]) -> None:
        """Call `notify` of all these waiters of one event loop, on it. From any thread."""

    def notify(self) -> None:
        """Note that the request is done. On the event loop's thread."""

    async def wait(
        self, timeout_s: float, try_cancel: Callable[[], bool], *, by: Clock = SYSTEM
    ) -> bool:
        """Wait until notified, out of time or cancelled (see the module). `by` tells the time."""


def new_waiter() -> Waiter:
    """Return a waiter for the event loop that the calling task runs on."""
    trio = running_trio()
    return TrioWaiter(trio) if trio is not None else AsyncioWaiter()


def running_trio() -> Any:
    """Return the module if the running task is trio's.

    It is looked at first, because it may run as a guest on top of an asyncio loop.
    """
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_task() else None


def name_library(name: str | None) -> None:
    """Say which event loop the code of this context runs on. None: on no loop's thread.

    anyio asks sniffio, where that is installed. A context that was copied to another thread has
    the answer of the thread that it came from.
    """
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        sniffio.current_async_library_cvar.set(name)


async def sleep(seconds: float, *, by: Clock = SYSTEM) -> None:
    """Sleep, by a clock that no host stops. Yields once if it is not for longer."""
    if seconds <= 0:
        await anyio.lowlevel.checkpoint()
        return
    await new_waiter().wait(seconds, lambda: True, by=by)


class Home:
    """The event loop of the task that makes it, for calls from other threads."""

    def __init__(self) -> None:
        trio = running_trio()
        self.send: Callable[..., object] = (
            trio.lowlevel.current_trio_token().run_sync_soon
            if trio is not None
            else asyncio.get_running_loop().call_soon_threadsafe
        )

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the event loop, soon. It has been closed: then not at all."""
        with suppress(RuntimeError):  # "loop is closed", and trio.RunFinishedError
            self.send(function)


class Deadline:
    """A block that is cancelled at its time, by a clock that no host stops. Infinite: never.

    It can be moved inside the block. Everything in it happens on the event loop's thread.
    """

    def __init__(self, seconds: float, *, by: Clock = SYSTEM) -> None:
        self._clock = by
        self.at = by.monotonic() + seconds
        self._scope: anyio.CancelScope | None = None
        self._home: Home | None = None
        self._timer: Timer | None = None

    def __enter__(self) -> Self:
        self._home, self._scope = Home(), anyio.CancelScope()
        self._scope.__enter__()
        self._start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        self._stop()
        assert self._scope is not None, "a block is left after it was entered"
        return self._scope.__exit__(exc_type, exc, tb)

    def move(self, at: float) -> None:
        """Let it pass at another time, by the monotonic clock. It has passed: no effect.

        A time that is over cancels the block at once.
        """
        self.at = at
        if self._timer is not None and self._scope is not None:
            self._start()
            if at <= self._clock.monotonic():
                self._scope.cancel()

    @property
    def has_passed(self) -> bool:
        """Whether it has cancelled the block."""
        return self._scope is not None and self._scope.cancel_called

    @property
    def cancelled_caught(self) -> bool:
        """Whether the block ended because of it."""
        return self._scope is not None and self._scope.cancelled_caught

    def _start(self) -> None:
        self._stop()
        home, scope = self._home, self._scope
        assert home is not None, "it is started inside its block"
        assert scope is not None, "it is started inside its block"

        def cancel() -> None:
            # It may have been moved, or left, since its timer fired.
            if self._timer is timer:
                scope.cancel()

        timer = self._clock.start(self.at - self._clock.monotonic(), lambda: home.send(cancel))
        self._timer = timer

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def notify_all(waiters: Iterable[Waiter]) -> int:
    """Wake every waiter, crossing to each event loop once. Return how many were lost.

    A waiter is lost when its event loop has been closed: its task was destroyed with the loop.
    """
    by_loop: dict[Any, list[Waiter]] = {}
    for waiter in waiters:
        by_loop.setdefault(waiter.loop, []).append(waiter)
    lost = 0
    for group in by_loop.values():
        try:
            group[0].send(group)
        except RuntimeError:  # asyncio's "loop is closed", and trio.RunFinishedError
            lost += len(group)
    return lost


def _notify_each(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        waiter.notify()


class AsyncioWaiter:
    """Waits on a future of the running asyncio loop."""

    __slots__ = ("_future", "_notified", "cancellation", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.cancellation: BaseException | None = None
        self._future: asyncio.Future[None] | None = None
        self._notified = False

    def send(self, waiters: list[Waiter]) -> None:
        self.loop.call_soon_threadsafe(_notify_each, waiters)

    def notify(self) -> None:
        self._notified = True
        self._resume()

    def _resume(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def _pause(self) -> None:
        self._future = self.loop.create_future()
        await self._future

    async def wait(
        self, timeout_s: float, try_cancel: Callable[[], bool], *, by: Clock = SYSTEM
    ) -> bool:
        timer = by.start(timeout_s, partial(self.loop.call_soon_threadsafe, self._resume))
        try:
            await self._pause()
            if not self._notified and try_cancel():
                return False
        except asyncio.CancelledError as cancelled:
            if try_cancel():
                raise
            if anyio.current_effective_deadline() != -math.inf:
                self.cancellation = cancelled  # no scope will repeat it: an edge
        finally:
            timer.cancel()
        if not self._notified:
            await self._outlast()
        return True

    async def _outlast(self) -> None:
        """Wait for the notification, whatever happens.

        The request has begun, so this takes at most one transaction.
        """
        with anyio.CancelScope(shield=True):
            while not self._notified:
                try:
                    await self._pause()
                except asyncio.CancelledError as cancelled:
                    # The shield stops scopes, so this is an edge.
                    self.cancellation = cancelled


class TrioWaiter:
    """Waits by being descheduled. At a cancellation trio asks once whether the wait may end."""

    __slots__ = ("_task", "_trio", "cancellation", "loop")

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self.loop = trio.lowlevel.current_trio_token()
        self.cancellation: BaseException | None = None  # trio cancels by level only
        self._task: Any = None

    def send(self, waiters: list[Waiter]) -> None:
        self.loop.run_sync_soon(_notify_each, waiters)

    def notify(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._trio.lowlevel.reschedule(task)

    async def wait(
        self, timeout_s: float, try_cancel: Callable[[], bool], *, by: Clock = SYSTEM
    ) -> bool:
        trio = self._trio

        def give_up(_raise_cancel: object) -> Any:
            if not try_cancel():
                return trio.lowlevel.Abort.FAILED
            self._task = None  # a notification that is already under way finds no task
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.CancelScope() as scope:
            timer = by.start(timeout_s, partial(self.loop.run_sync_soon, scope.cancel))
            try:
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(give_up)
            finally:
                timer.cancel()
        return not scope.cancelled_caught
