"""The size of a step follows the duration of the last, within bounds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from sessiondb.batching import BatchSize, last_fitting
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


@pytest.mark.parametrize(
    ("before", "held_ms", "after"),
    [
        (STEP_ROWS, STEP_MS * 1.01, STEP_ROWS // 2),
        (STEP_ROWS, STEP_MS, STEP_ROWS),
        (STEP_ROWS_MIN, STEP_MS / 2, STEP_ROWS_MIN),
        (STEP_ROWS_MIN, STEP_MS * 0.49, STEP_ROWS_MIN * 2),
    ],
)
def test_one_step_halves_or_doubles_the_rows_or_leaves_them(
    before: int, held_ms: float, after: int
) -> None:
    batch_size = BatchSize(before)
    batch_size.learn(held_ms)
    assert batch_size.rows == after


@dataclass
class Sized:
    """A row with a size."""

    bytes: int


@pytest.mark.parametrize(
    ("sizes", "last"),
    [([5], 0), ([50, 1], 0), ([5, 5], 1), ([5, 6, 1], 0), ([1, 2, 3, 4], 3), ([4, 3, 2, 2, 1], 2)],
)
def test_the_last_row_that_fits_is_found_and_the_first_always_fits(
    sizes: list[int], last: int
) -> None:
    rows = [Sized(size) for size in sizes]
    assert last_fitting(rows, 10) is rows[last]
