"""The size of a step follows the duration of the last, within bounds."""

from __future__ import annotations

from sessiondb.batching import BatchSize
from sessiondb.limits import STEP_MS, STEP_ROWS, STEP_ROWS_MIN


def test_long_steps_shrink_and_quick_steps_grow_the_next_ones() -> None:
    batch_size = BatchSize()
    for _ in range(10):
        batch_size.learn(STEP_MS * 2)
    assert batch_size.rows == STEP_ROWS_MIN
    batch_size.learn(STEP_MS * 0.8)  # neither long nor quick
    assert batch_size.rows == STEP_ROWS_MIN
    for _ in range(10):
        batch_size.learn(0.1)
    assert batch_size.rows == STEP_ROWS
