"""Changes of state: each finds the one row that it is about, or its transaction is refused.

A statement that finds no row only where another process was faster says so by its result.
All others go through `require_one`.
"""

from __future__ import annotations

from sessiondb.errors import StoreDamaged


def require_one(changed: int, what: str) -> None:
    """Check that a change of state found its one row.

    This transaction has seen the row, or the schema's rules require it.

    Raises:
        StoreDamaged: it did not. Nothing is written.
    """
    if changed != 1:
        raise StoreDamaged(
            f"{what}, as the turn's rules require, and is not: the file is damaged, or was changed "
            "by another program. Nothing was written. Run `sessiondb verify DB`; then "
            "`sessiondb salvage DB NEW`."
        )
