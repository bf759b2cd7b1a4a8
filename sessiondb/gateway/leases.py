"""Leases: a turn's holder promises to renew in time, and loses the turn when it does not.

    running --> interrupted    its lease ran out: by a loop of any lane, or by the holder itself

Invariants, enforced by the database and so across processes:

* A lease ends at the turn's deadline. A holder that only renews cannot keep a session for
  ever.
* A turn is taken over once: one compare-and-set on its row (`turns.interrupt`).
* A lease that ran out, and that nobody has taken, is still its holder's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessiondb.backend import ReadTx, Tx

from . import turns

if TYPE_CHECKING:
    from sessiondb import statements

TAKE_OVER_AT_ONCE = 50
LEASE_OVER = "its lease ran out"


def renew(tx: Tx, turn_no: int, *, lease_ms: int, operation: str | None) -> int:
    """Renew the lease. Return when it runs out. Never past the deadline.

    Raises:
        TurnLost: the turn is not running any more.
    """
    row = tx.first(
        "turns.renew",
        turn_no=turn_no,
        now_ms=tx.now_ms,
        expires_at_ms=tx.now_ms + lease_ms,
        operation=operation,
    )
    if row is None:
        turns.require_running(tx, turn_no)
    return tx.one("turns.get", turn_no=turn_no).expires_at_ms


def take_over_expired(tx: Tx, *, alive: str = "[]") -> int:
    """Interrupt turns of any lane whose lease ran out, `TAKE_OVER_AT_ONCE` at most.

    Return how many. Any loop does so, because nobody may run the lane of a turn any more, and its
    session would stay blocked. `alive` is a JSON array of turns that the caller knows to be alive
    by another clock than that of the leases.
    """
    rows = expired(tx, tx.now_ms, alive)
    return sum(turns.interrupt(tx, row.turn_no, LEASE_OVER) for row in rows)


def expired(tx: ReadTx, now_ms: int, alive: str = "[]") -> list[statements.TurnsExpired]:
    """Read the turns of any lane whose lease ran out, `TAKE_OVER_AT_ONCE` at most."""
    return tx.all("turns.expired", now_ms=now_ms, alive=alive, limit=TAKE_OVER_AT_ONCE)


def take_over(tx: Tx, turn_no: int) -> bool:
    """Interrupt one turn if its lease ran out. False if it did not, or the turn has ended."""
    turn = tx.one("turns.get", turn_no=turn_no)
    return turn.expires_at_ms <= tx.now_ms and turns.interrupt(tx, turn_no, LEASE_OVER)
