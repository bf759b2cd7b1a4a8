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

Everything in a waiter happens on its own event loop's thread, so nothing here is locked.
trio is looked up in `sys.modules`, never imported: a program that runs under trio has
imported it.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import anyio
import anyio.lowlevel


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

    async def wait(self, timeout_s: float, try_cancel: Callable[[], bool]) -> bool:
        """Wait until notified, out of time or cancelled (see the module)."""


def new_waiter() -> Waiter:
    """Return a waiter for the event loop that the calling task runs on."""
    trio = sys.modules.get("trio")
    # trio first, because it may run as a guest on top of an asyncio loop.
    if trio is not None and trio.lowlevel.in_trio_task():
        return TrioWaiter(trio)
    return AsyncioWaiter()


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

    async def wait(self, timeout_s: float, try_cancel: Callable[[], bool]) -> bool:
        timer = self.loop.call_later(timeout_s, self._resume)
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

    async def wait(self, timeout_s: float, try_cancel: Callable[[], bool]) -> bool:
        trio = self._trio

        def give_up(_raise_cancel: object) -> Any:
            if not try_cancel():
                return trio.lowlevel.Abort.FAILED
            self._task = None  # a notification that is already under way finds no task
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.CancelScope(deadline=trio.current_time() + timeout_s) as scope:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(give_up)
        return not scope.cancelled_caught
