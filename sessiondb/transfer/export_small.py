"""Several small files of an export in one read, and in one call of a thread.

A small session costs an export four ways to a reader thread and back, and four to a worker thread:
more than its bytes. So the bytes of several are read in one snapshot, until that is `READ_S` old
or has `PAGE_BYTES`. They are written in one call. A session that does not fit into a snapshot of
its own is read in pages, as any large one is.

What is promised of each file is the same: it is synced before it has its name. Its folder is
synced before the call returns, once for all files of the call that are in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from sessiondb.backend import Backend, ReadTx
from sessiondb.clock import monotonic
from sessiondb.limits import PAGE_BYTES

from .export_content import transcript_content
from .export_plan import Plan
from .jsonl_reader import UnreadableFile

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

READ_S: Final = 0.005
"""A snapshot that is older is given up, with the file that was read in it."""
FILES_MAX: Final = 64
"""Files of one call. A cancelled export waits for the end of the call, and each file is synced."""

Content = list[bytes] | UnreadableFile
"""The bytes of a file, or why it has none."""


class _OneRead:
    """As much of a backend as the content of a file needs: its reads share one snapshot."""

    def __init__(self, tx: ReadTx) -> None:
        self._tx = tx

    async def read(self, fn: Callable[[ReadTx], T], *, op: str) -> T:
        del op
        return fn(self._tx)


def read_small(plans: Sequence[Plan]) -> Callable[[ReadTx], list[Content]]:
    """Return a read of the bytes of the first files of a list: of as many as are small.

    Of none, if the first is large. The list has `FILES_MAX` at most.
    """

    def read(tx: ReadTx) -> list[Content]:
        found: list[Content] = []
        until = monotonic() + READ_S
        room = PAGE_BYTES
        for plan in plans:
            if plan.bytes > room:
                break
            try:
                parts = _at_once(tx, plan, room, until)
            except UnreadableFile as error:
                found.append(error)
                continue
            except Exception:
                if not found:
                    raise
                break  # it ends the export when its turn comes, and not before
            if parts is None:
                break
            found.append(parts)
            room -= sum(map(len, parts))
        return found

    return read


def _at_once(tx: ReadTx, plan: Plan, room: int, until: float) -> list[bytes] | None:
    """Return the bytes of a file. None: they are too many, or take too long."""
    content = transcript_content(cast("Backend", _OneRead(tx)), plan)
    parts: list[bytes] = []
    try:
        while (part := _next(content)) is not None:
            parts.append(part)
            room -= len(part)
            if room < 0 or monotonic() >= until:
                return None
    finally:
        _finished(content.aclose())  # type: ignore[attr-defined]  # it is a generator
    return parts


def _next(content: AsyncIterator[bytes]) -> bytes | None:
    try:
        return _finished(cast("Coroutine[Any, Any, bytes]", anext(content)))
    except StopAsyncIteration:
        return None


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    raise RuntimeError("the content of a file waited for something other than its reads")
