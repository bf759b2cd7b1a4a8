"""Details of a session: a JSON object that an application keeps about it, with a revision.

It is no part of the transcript: no model sees it, and a branch, a reset or a compaction leaves it
as it is. A fork begins without any, because what is true of one session need not be of another.
An archived session keeps its details, and a deleted one loses them. An export writes transcripts,
and no details.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import DetailsChanged, InvalidInput
from sessiondb.json_text import dumps, loads, stored_text
from sessiondb.limits import DETAILS_BYTES_MAX
from sessiondb.models import Details

from .paths import require_entries
from .state import no_session


def encoded(details: Mapping[str, Any]) -> str:
    """Return details as they are stored.

    Raises:
        InvalidInput: no object, without a JSON form, or larger than `DETAILS_BYTES_MAX`.
    """
    if not isinstance(details, Mapping):
        raise InvalidInput(f"details are a JSON object, a dict, not {type(details).__name__}")
    text = dumps(dict(details))
    size = len(text.encode())
    if size > DETAILS_BYTES_MAX:
        raise InvalidInput(
            f"details of {size:,} bytes; {DETAILS_BYTES_MAX:,} at most. Keep what is large in "
            "entries, or in a file"
        )
    return text


@stored_text()
def read(tx: ReadTx, session_no: int) -> Details:
    """Return the details of a session. Without any: an empty object of revision 0.

    Raises:
        NotFound: no such session.
    """
    if tx.first("transcript.archived", session_no=session_no) is None:
        raise no_session(session_no)
    row = tx.first("details.of_session", session_no=session_no)
    if row is None:
        return Details({}, 0, None)
    return Details(loads(row.document), row.revision, row.changed_at_ms)


def put(tx: Tx, session_no: int, document: str, expect: int | None) -> int:
    """Store the details of a session, and return their revision.

    Raises:
        NotFound: no such session.
        DetailsChanged: their revision is not `expect`.
        SessionArchived: it is in an archive, or was deleted.
    """
    session = tx.first("transcript.archived", session_no=session_no)
    if session is None:
        raise no_session(session_no)
    require_entries(session.session_id, session.archived_at_ms)
    row = tx.first("details.of_session", session_no=session_no)
    revision = row.revision if row is not None else 0
    if expect is not None and expect != revision:
        raise DetailsChanged(
            f"the details of session {session.session_id} have revision {revision}, not {expect}: "
            "somebody has changed them. Nothing was changed; read them again, and decide anew",
            session_id=session.session_id,
            expected=expect,
            revision=revision,
        )
    tx.run(
        "details.set",
        session_no=session_no,
        revision=revision + 1,
        now_ms=tx.stamp_ms,
        document=document,
    )
    return revision + 1
