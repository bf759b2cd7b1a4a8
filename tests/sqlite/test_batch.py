"""What the threads of an open database count: from nothing on."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from sessiondb.errors import StoreBusy
from sessiondb.limits import Limits
from sessiondb.sqlite.batch import Batch, WriterStats
from sessiondb.sqlite.checkpoint import CheckpointStats
from sessiondb.sqlite.held_files import HeldFiles
from sessiondb.sqlite.readers import Readers, ReadRequest


def refuse(_: str) -> Any:
    """Connect never: no thread is started here."""
    raise AssertionError


def counts_of_readers() -> dict[str, Any]:
    return Readers("x.db", Limits(), refuse, lambda: HeldFiles("", ())).snapshot()


@pytest.mark.parametrize(
    "counts",
    [asdict(WriterStats()), asdict(CheckpointStats()), counts_of_readers()],
    ids=["writer", "checkpoint", "readers"],
)
def test_every_count_begins_at_nothing(counts: dict[str, Any]) -> None:
    assert {name: value for name, value in counts.items() if value not in (0, "", None)} == {}


def test_a_batch_is_counted_by_its_requests_and_the_longest_is_named() -> None:
    stats = WriterStats()
    for took_ms, op, items, in_background in (
        (5.0, "append", 3, False),
        (9.0, "import", 1, True),
        (2.0, "accept", 2, False),
        (7.0, "gc", 1, True),
    ):
        batch = Batch(0.0, 0, slowest_op=op, in_background=in_background)
        assert (batch.is_over, batch.size, batch.slowest_ms) == (False, 0, 0)
        requests: list[Any] = [SimpleNamespace(waited_ms=0.5)] * items
        batch.finished.extend(requests)
        stats.note_batch(batch, took_ms)
    assert (stats.requests, stats.batch_items_last, stats.batch_items_longest) == (7, 1, 3)
    assert (stats.transaction_ms_last, stats.transaction_ms_longest) == (7.0, 9.0)
    assert (stats.transaction_ms_total, stats.wait_ms_total) == (23.0, 2.5)
    assert (stats.transaction_longest_op, stats.step_longest_op) == ("import", "import")
    assert (stats.steps, stats.step_ms_longest) == (2, 9.0)


def test_reads_that_are_refused_are_counted() -> None:
    readers = Readers("x.db", Limits(read_queue_max=2), refuse, lambda: HeldFiles("", ()))
    waiter: Any = None
    for _ in range(2):
        readers.put(ReadRequest(None, "read", waiter))
    for count in (1, 2):
        with pytest.raises(StoreBusy, match=r"read was refused: 2 reads wait \(limit 2\)"):
            readers.put(ReadRequest(None, "read", waiter))
        counts = readers.snapshot()
        assert (counts["requests_refused"], counts["queue_items"]) == (count, 2)
