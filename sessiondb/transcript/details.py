"""Details: a JSON object that an application keeps about a session, with a revision.

It is no part of the transcript: no model sees it, and a branch, a reset or a compaction leaves it
as it is. A fork begins without any, because what is true of one session need not be of another.
An archived session keeps its details, and a deleted one loses them. An export writes transcripts,
and no details.

Details of a name are of no session: the state of an application, or of one of its users. A pair of
texts names them, `(namespace, name)`, compared byte by byte. They have the same rules. They stay
until they are deleted, by their name or with their namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import DetailsChanged, InvalidInput
from sessiondb.json_text import dumps, loads, stored_text
from sessiondb.limits import EXTERNAL_ID_BYTES_MAX, KEPT_DETAILS_BYTES_MAX, NAMESPACE_BYTES_MAX
from sessiondb.models import Details, NamedDetails

from .foreign_ids import check_part
from .paths import require_entries
from .state import no_session


def encoded(details: Mapping[str, Any]) -> str:
    """Return details as they are stored.

    Raises:
        InvalidInput: no object, without a JSON form, or larger than `KEPT_DETAILS_BYTES_MAX`.
    """
    if not isinstance(details, Mapping):
        raise InvalidInput(f"details are a JSON object, a dict, not {type(details).__name__}")
    text = dumps(dict(details))
    size = len(text.encode())
    if size > KEPT_DETAILS_BYTES_MAX:
        raise InvalidInput(
            f"details of {size:,} bytes; {KEPT_DETAILS_BYTES_MAX:,} at most. Keep what is large in "
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
            _changed(f"session {session.session_id}", revision, expect),
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


def _changed(whose: str, revision: int, expect: int) -> str:
    return (
        f"the details of {whose} have revision {revision}, not {expect}: somebody has changed "
        "them. Nothing was changed; read them again, and decide anew"
    )


# -- of a name -----------------------------------------------------------------------------


class Name(NamedTuple):
    """What names details that are of no session. Both parts are checked."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.name[:80]!r} in namespace {self.namespace!r}"


def checked_name(namespace: str, name: str) -> Name:
    """Return a name that details can have.

    Raises:
        InvalidInput: a part is no text, is empty or too long, or has half of a surrogate pair.
    """
    return Name(
        check_part("a namespace", namespace, NAMESPACE_BYTES_MAX),
        check_part("a name of details", name, EXTERNAL_ID_BYTES_MAX),
    )


@stored_text()
def read_named(tx: ReadTx, of: Name) -> Details:
    """Return the details of a name. Without any: an empty object of revision 0."""
    row = tx.first("details.named", namespace=of.namespace, name=of.name)
    if row is None:
        return Details({}, 0, None)
    return Details(loads(row.document), row.revision, row.changed_at_ms)


def put_named(tx: Tx, of: Name, document: str, expect: int | None) -> int:
    """Store the details of a name, and return their revision.

    Raises:
        DetailsChanged: their revision is not `expect`.
    """
    revision = _expected(tx, of, expect)
    tx.run(
        "details.set_named",
        namespace=of.namespace,
        name=of.name,
        revision=revision + 1,
        now_ms=tx.stamp_ms,
        document=document,
    )
    return revision + 1


def forget_named(tx: Tx, of: Name, expect: int | None) -> bool:
    """Delete the details of a name. Return False if it has none.

    Raises:
        DetailsChanged: their revision is not `expect`.
    """
    _expected(tx, of, expect)
    return tx.run("details.forget_named", namespace=of.namespace, name=of.name) == 1


def _expected(tx: Tx, of: Name, expect: int | None) -> int:
    """Return the revision of a name's details, if it is the one that is expected."""
    row = tx.first("details.named", namespace=of.namespace, name=of.name)
    revision = row.revision if row is not None else 0
    if expect is not None and expect != revision:
        raise DetailsChanged(
            _changed(str(of), revision, expect),
            namespace=of.namespace,
            name=of.name,
            expected=expect,
            revision=revision,
        )
    return revision


@stored_text()
def page_named(
    tx: ReadTx, after_name: str | None, limit: int, *, namespace: str
) -> tuple[list[NamedDetails], str | None]:
    """List the details of a namespace, by name. Also return the next page's cursor."""
    rows, more = tx.page(
        "details.in_namespace", namespace=namespace, after_name=after_name or "", limit=limit
    )
    found = [
        NamedDetails(row.namespace, row.name, loads(row.document), row.revision, row.changed_at_ms)
        for row in rows
    ]
    return found, found[-1].name if more else None
