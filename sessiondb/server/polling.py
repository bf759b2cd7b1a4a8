"""Requests that wait: for a message to work on, for a reply to send, for an answer.

A client that goes away ends its wait, and what was claimed for it in that moment is given back.
A server that stops ends all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from sessiondb.clock import monotonic

from .table import Call

T = TypeVar("T")

LOOK_S: Final = 1.0
"""How often to look without a commit: a retry's pause ends without one."""


async def poll(call: Call, wait_s: float, look: Callable[[], Awaitable[T | None]]) -> T | None:
    """Return what `look` finds, at once or within `wait_s`. None: nothing, or nobody asks now."""
    if wait_s == 0:
        return await look()
    found: T | None = None
    error: Exception | None = None
    async with anyio.create_task_group() as tasks:
        line = Line()
        tasks.start_soon(line.watch, call)
        try:
            found = await _poll(call, line, monotonic() + wait_s, look)
        except Exception as raised:  # noqa: BLE001  # raised below: a group would wrap it
            error = raised
        tasks.cancel_scope.cancel()
    if error is not None:
        raise error
    return found


class Line:
    """Whether the client of a request is still there."""

    def __init__(self) -> None:
        self.is_gone = False

    async def watch(self, call: Call) -> None:
        """Wait for the end of the client's connection, and wake what waits for a commit."""
        while (await call.request.receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        call.db.backend.wake()


async def _poll(
    call: Call, line: Line, until: float, look: Callable[[], Awaitable[T | None]]
) -> T | None:
    while True:
        seen = call.db.backend.change_count
        if line.is_gone or call.state.stopping:
            return None
        found = await look()
        left_s = until - monotonic()
        if found is not None or left_s <= 0:
            return found
        await call.db.backend.wait_change(seen, min(LOOK_S, left_s))


async def is_gone(call: Call) -> bool:
    """Tell whether the client has gone, as far as that is known."""
    return await call.request.is_disconnected()
