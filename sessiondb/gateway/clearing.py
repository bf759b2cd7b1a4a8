"""End what is open of a session that is to be deleted: its turn, its messages, its replies.

    queued | interrupted | heard --> done     taken back, with an event that its sender can see
    dead                 --> (gone)   its sender was told when it was given up
    pending | unknown | failed --> (gone)   replies: they are not sent

A reply that a process is sending at this moment cannot be stopped, so it refuses the deletion
for that long. A turn that runs does so as well, or is stopped.
"""

from __future__ import annotations

from sessiondb.backend import Tx
from sessiondb.errors import SessionBusy
from sessiondb.limits import RETRY_PAUSE_MS, STEP_ROWS
from sessiondb.transcript import compaction, registry

from . import changes, stopping


def clear(tx: Tx, session_no: int) -> bool:
    """End what is open of a session in which no turn runs. True: there is more.

    Raises:
        SessionBusy: a reply of it is being sent.
    """
    sending = tx.first("deletion.sending", session_no=session_no)
    if sending is not None:
        session_id = tx.one("context.pointers", session_no=session_no).session_id
        holder = f"the sender of reply {sending.outbox_no}"
        raise SessionBusy(
            f"session {session_id} cannot be deleted: {holder} is at work. Nothing was deleted; "
            f"retry in {RETRY_PAUSE_MS} ms",
            session_id=session_id,
            holder=holder,
            retry_after_ms=RETRY_PAUSE_MS,
        )
    running = tx.first("compaction.running", session_no=session_no)
    if running is not None:
        compaction.give_up(tx, running.compaction_id, "cancelled", "its session is deleted")
    waiting = tx.all("deletion.waiting", session_no=session_no, limit=STEP_ROWS)
    for row in waiting:
        stopping.withdraw_row(tx, row)
    dead = tx.run("deletion.drop_dead", session_no=session_no, limit=STEP_ROWS)
    unsent = tx.run("deletion.drop_unsent", session_no=session_no, limit=STEP_ROWS)
    registry.unpin(tx, session_no)
    changes.line_up(tx, session_no)
    return STEP_ROWS in (len(waiting), dead, unsent)
