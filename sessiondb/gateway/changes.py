"""Changes of state: what all of them have in common.

A change finds the one row that it is about, or its transaction is refused.
A statement that finds no row only where another process was faster says so by its result.
All others go through `require_one`.
"""

from __future__ import annotations

from sessiondb.backend import Tx
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


def line_up(tx: Tx, session_no: int) -> None:
    """Mark which of a session's waiting messages certainly wait, after a change of its queue.

    Each rule that begins or ends a turn of the session, or that takes a message out of its queue
    or puts one back, calls this in its transaction. So a look reads only messages that may run.
    It asks about these, too: a mark that is missing costs time. One that is left behind would
    make a message wait for ever, so `verify` looks for those.
    """
    tx.run("inbox.line_up", session_no=session_no)


def line_up_replies(tx: Tx, outbox_no: int) -> None:
    """Do the same for the replies of the session and the channel of one reply that changed."""
    tx.run("outbox.line_up", outbox_no=outbox_no)
