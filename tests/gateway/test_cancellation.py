"""Cancellations: what counts as one. Where they come from is in `test_stray.py`."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from sessiondb.gateway.cancellation import is_cancellation

pytestmark = pytest.mark.anyio


async def cancellation() -> BaseException:
    """Return a cancellation as the running event loop raises it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            found: BaseException = cancelled
            raise
    return found


@pytest.mark.parametrize(
    ("beside", "wanted"),
    [
        ([], True),
        ([ValueError("no")], True),
        ([ValueError("no"), KeyError("a")], True),
        ([KeyboardInterrupt()], False),
        ([ValueError("no"), SystemExit(1)], False),
    ],
)
async def test_a_group_counts_unless_it_ends_the_program(
    beside: Sequence[BaseException], wanted: bool
) -> None:
    one = await cancellation()
    assert is_cancellation(one)
    for _ in range(2):  # also in a group of a group
        one = BaseExceptionGroup("all of them", [one, *beside])
        assert is_cancellation(one) == wanted


async def test_an_error_is_no_cancellation() -> None:
    for error in (ValueError("no"), KeyboardInterrupt(), ExceptionGroup("all", [ValueError()])):
        assert not is_cancellation(error)
