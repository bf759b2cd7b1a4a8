"""Progress: what a turn notes for whoever takes its message over.

One small JSON document for each turn, on the turn's own row and replaced in place. The next
attempt at the message begins with it. So a crash between two attempts loses nothing, and neither
does an attempt that notes nothing. A handler that streams its answer notes the id of the
channel's message, and whoever comes after it goes on in that message.

If nobody takes the message over, because it is dead, stopped, withdrawn, or answered by the turn
of a newer one, the event for its sender has the document as `progress`.
"""

from __future__ import annotations

from typing import Any

from sessiondb.backend import ReadTx
from sessiondb.errors import InvalidInput, StoreDamaged
from sessiondb.json_text import dumps, loads
from sessiondb.limits import TURN_PROGRESS_BYTES_MAX


def encode(turn_no: int, details: Any) -> str:
    """Encode what a turn notes.

    Raises:
        InvalidInput: it is no JSON, or too large.
    """
    try:
        text = dumps(details)
    except InvalidInput as error:
        raise InvalidInput(
            f"the progress of turn {turn_no} is no JSON, and nothing was noted: {error.__cause__}",
        ) from error
    size = len(text.encode())
    if size > TURN_PROGRESS_BYTES_MAX:
        raise InvalidInput(
            f"the progress of turn {turn_no} has {size:,} bytes, and at most "
            f"{TURN_PROGRESS_BYTES_MAX:,} fit. Nothing was noted. Append what is longer, and note "
            "where it is",
        )
    return text


def last_noted(tx: ReadTx, inbox_no: int) -> dict[str, Any]:
    """Return what the turns of a message noted, as a part of an event's data. Empty: nothing.

    A message is given up also because its rows are damaged. Then this is not a reason to keep it.
    """
    try:
        row = tx.first("turns.progress_of_message", inbox_no=inbox_no)
        noted = loads(row.progress) if row is not None and row.progress is not None else None
    except StoreDamaged:
        return {}
    return {} if noted is None else {"progress": noted}
