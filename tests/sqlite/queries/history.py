"""Cases of queries/history.sql."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.statement_cases import Page, Read, set_columns
from tests.support.world import World

PAGES: list[Page] = []


def in_context(low: int, high: int, found: Sequence[int], limit: int = 99) -> Read:
    """Return the read of a range of the first branch. Its entry 8 is a message of a fourth kind."""

    def params(w: World) -> dict[str, int]:
        return {
            "low_no": w.no(f"entry live/{low}"),
            "high_no": w.no(f"entry live/{high}"),
            "branch_no": w.no("branch live/1"),
            "boundary_no": w.no("entry live/10"),
            "limit": limit,
        }

    return Read(
        "history.in_context",
        f"from {low} to {high}, {limit} at most",
        params,
        [{"entry_no": f"live/{seq}"} for seq in found],
        set_columns("entry live/8", projection=4),
    )


READS = [
    in_context(5, 15, (5, 6, 8, 9, 10, 11, 13, 15)),
    in_context(5, 15, (5, 6), limit=2),
    in_context(13, 18, (13, 15)),
    in_context(10, 10, (10,)),
    in_context(12, 12, ()),
]
