"""Threads for what would hold up the event loop: large JSON, files, questions to the kernel.

The threads come from anyio's pool, and their number is bounded by a limiter of the library's
own. anyio's default limiter is the application's. When its own blocking work has taken all
of that (forty endpoints that call `anyio.from_thread.run`, say), a call that waited for one
more would wait for ever: what holds the forty waits for the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import anyio.lowlevel
import anyio.to_thread

from .limits import THREADS_MAX

A = TypeVar("A")
Args = TypeVarTuple("Args")

_limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("sessiondb threads")


async def run(
    function: Callable[[Unpack[Args]], A], *args: *Args, abandon_on_cancel: bool = False
) -> A:
    """Call a function in a thread. At most `THREADS_MAX` at a time on one event loop.

    With `abandon_on_cancel` a cancelled caller does not wait for the function's end.
    """
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS_MAX)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(
        function, *args, abandon_on_cancel=abandon_on_cancel, limiter=limiter
    )
