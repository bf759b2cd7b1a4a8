"""Threads for what would hold up the event loop: large JSON, files, questions to the kernel.

They are daemons. An interpreter that ends waits for threads that are none, and a database that
was not closed would then keep it from ending for ever. A thread that has nothing to do for
`IDLE_S` ends.

Their number is bounded for each event loop, by a limiter of the library's own. anyio's default
limiter is the application's. When its own blocking work has taken all of that (forty endpoints
that call `anyio.from_thread.run`, say), a call that waited for one more would wait for ever: what
holds the forty waits for the call.

An application's own functions that the library calls, such as the handlers of `sync.run_lane`,
are not among them for the same reason: they wait for the library. `Foreign` makes their calls.

Locks: none. `_idle` is a deque, and a worker is in it or has a call, never both. A fork's child
has no workers, and begins with an empty one.
"""

from __future__ import annotations

import contextvars
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.lowlevel

from .limits import LEFT_BEHIND_MAX, THREADS_MAX
from .waiter import name_library, new_waiter, notify_all

A = TypeVar("A")
B = TypeVar("B")
Args = TypeVarTuple("Args")

IDLE_S = 10.0

_limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("sessiondb threads")


async def run(
    function: Callable[[Unpack[Args]], A], *args: *Args, abandon_on_cancel: bool = False
) -> A:
    """Call a function in a thread. At most `THREADS_MAX` at a time on one event loop.

    A cancelled caller waits for the function's end. With `abandon_on_cancel` it does not.
    """
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS_MAX)
        _limiter.set(limiter)
    await anyio.lowlevel.checkpoint()
    async with limiter:
        call = _Call(partial(function, *args))
        _hand_over(call)
        await call.waiter.wait(math.inf, lambda: abandon_on_cancel)
        return call.outcome()


class Foreign:
    """Calls of an application's own functions, each in a thread of the library's.

    They may block for as long as they like. Whoever calls bounds how many are awaited at once: a
    lane by its concurrency. Nothing can interrupt a thread, so a caller that is cancelled leaves
    its call behind, and does not wait. At most `LEFT_BEHIND_MAX` go on like that.

    Locks: none. The event loop's thread does everything but the end of a call, which takes one
    thing out of a set.
    """

    def __init__(self, what: str, too_many: type[Exception]) -> None:
        self._what = what
        self._too_many = too_many
        self._running: set[object] = set()
        self._awaited = 0

    async def call(self, function: Callable[[B], A], argument: B) -> A:
        """Call a function in a thread. Raises whatever it raises, as an exception."""
        left = len(self._running) - self._awaited
        if left >= LEFT_BEHIND_MAX:
            raise self._too_many(
                f"{left} calls of the {self._what} were given up and go on, which is the limit: "
                "it hangs, and nothing can interrupt a thread. Give what it waits for a timeout, "
                "and start this process again"
            )
        mine = object()

        def work() -> A:
            try:
                return function(argument)
            except Exception:
                raise
            except BaseException as error:
                # `sys.exit()` ends a thread, and an event loop would take it for its own end.
                raise RuntimeError(f"the {self._what} raised {error!r}") from error
            finally:
                self._running.discard(mine)

        call = _Call(work)
        self._running.add(mine)
        try:
            _hand_over(call, or_here=False)
        except BaseException:
            self._running.discard(mine)
            raise
        self._awaited += 1
        try:
            await call.waiter.wait(math.inf, lambda: True)
            return call.outcome()
        finally:
            self._awaited -= 1


class _Call(Generic[A]):
    """A function that is called in a thread, and the task that waits for it."""

    def __init__(self, function: Callable[[], A]) -> None:
        self.waiter = new_waiter()
        self._function = function
        self._context = contextvars.copy_context()
        self._context.run(name_library, None)
        self._returned: list[A] = []
        self._raised: BaseException | None = None

    def run(self) -> None:
        """Call the function, and wake the task. Never raises."""
        try:
            self._returned.append(self._context.run(self._function))
        except BaseException as error:  # noqa: BLE001  # it is raised in the task that asked
            self._raised = error
        notify_all([self.waiter])

    def outcome(self) -> A:
        """Return what the function returned, or raise what it raised. On the task's event loop."""
        if self.waiter.cancellation is not None:
            raise self.waiter.cancellation
        if self._raised is not None:
            raise self._raised
        return self._returned[0]


class _Worker:
    """One thread, which makes one call after another."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[_Call[Any]] = SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._run, name="sessiondb-worker", daemon=True).start()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            call.run()
            del call  # its arguments may be large
            _idle.append(self)

    def _next(self) -> _Call[Any] | None:
        """Return the next call. None: there was none for a while, and there will be none."""
        try:
            return self.calls.get(timeout=IDLE_S)
        except Empty:
            pass
        try:
            _idle.remove(self)
        except ValueError:
            return self.calls.get()  # it was taken out this moment, to be given a call
        return None


_idle: deque[_Worker] = deque()  # the one that became idle last is on the right


def _hand_over(call: _Call[Any], *, or_here: bool = True) -> None:
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
        try:
            worker.start()
        except RuntimeError:
            # Since Python 3.12 an `atexit` function may start no thread. The program ends, so
            # nothing else waits for the event loop, and the call may hold it up.
            if not or_here or threading.main_thread().is_alive():
                raise
            call.run()
            return
    worker.calls.put(call)


os.register_at_fork(after_in_child=_idle.clear)
