"""The times of what is imported: those of the messages, and not that of the import.

What a file says was said when its lines say so, and people ask for that: which session is the
newest, which may be archived, what was said last May. So an imported entry is stamped with its own
time. Without one it has the latest time before it. A time in the future counts as now. Only a
file that names no time at all is as old as the file is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sessiondb.backend import Tx
from sessiondb.transcript.entries import Draft


class OwnTimes:
    """Stamps the entries that a transaction stores of one file."""

    def __init__(self, tx: Tx, latest_ms: int) -> None:
        self._tx = tx
        self._now_ms = tx.stamp_ms
        tx.stamp_ms = min(latest_ms, self._now_ms)
        self._latest_ms = tx.stamp_ms

    def stamp(self, draft: Draft) -> None:
        """Let what is stored next have the time of an entry."""
        own_ms = draft.at_ms if draft.at_ms is not None else self._latest_ms
        self._tx.stamp_ms = min(own_ms, self._now_ms)
        self._latest_ms = max(self._latest_ms, self._tx.stamp_ms)

    def stamp_latest(self) -> None:
        """Let what is stored next have the latest time so far."""
        self._tx.stamp_ms = self._latest_ms


@contextmanager
def own_times(tx: Tx, latest_ms: int) -> Iterator[OwnTimes]:
    """Stamp what is stored with the times of entries. `latest_ms` is that of what is stored."""
    now_ms = tx.stamp_ms
    try:
        yield OwnTimes(tx, latest_ms)
    finally:
        tx.stamp_ms = now_ms  # other files may share the transaction


def first_time(items: Iterable[object]) -> int | None:
    """Return the time of the first entry that has one."""
    return next(
        (item.at_ms for item in items if isinstance(item, Draft) and item.at_ms is not None), None
    )
