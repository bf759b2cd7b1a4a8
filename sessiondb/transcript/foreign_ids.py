"""Foreign ids: the names that other programs give to their sessions.

A program that has ids of its own (a framework's thread, an application's conversation) asks for
its session by them. Such an id is any text. It is compared byte by byte: no case is folded, no
white space is cut off, and no prefix matches. The namespace says whose ids they are, so two
programs, or two users of one, may use the same ids.

A session has one foreign id at most, from its beginning to its end. It is a name and no address:
unlike a key it never points elsewhere, and an archived session keeps it. A fork is another session
and has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import InvalidInput, NotFound
from sessiondb.limits import EXTERNAL_ID_BYTES_MAX, NAMESPACE_BYTES_MAX

from . import formats
from .registry import SessionRef, agree, create

if TYPE_CHECKING:
    from sessiondb import statements


class ForeignId(NamedTuple):
    """An id of another program, in that program's namespace."""

    namespace: str
    external_id: str


def foreign_id(namespace: str, external_id: str) -> ForeignId:
    """Return a foreign id that can be stored and found again.

    Raises:
        InvalidInput: a part is no text, is empty or too long, or has half of a surrogate pair.
    """
    return ForeignId(
        check_part("a namespace", namespace, NAMESPACE_BYTES_MAX),
        check_part("an external id", external_id, EXTERNAL_ID_BYTES_MAX),
    )


def check_part(what: str, text: str, bytes_max: int) -> str:
    """Return a text of 1 to `bytes_max` bytes of UTF-8.

    Raises:
        InvalidInput: it is something else.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"{what} is a text, not {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{text[:80]!r} cannot be {what}: it has half of a surrogate pair, "
            "which is no text of UTF-8"
        ) from error
    if not 1 <= size <= bytes_max:
        raise InvalidInput(
            f"{what} has 1 to {bytes_max:,} bytes of UTF-8, and this one has {size:,}"
        )
    return text


def find(tx: ReadTx, wanted: ForeignId) -> statements.ForeignIdsFind | None:
    """Return the session with exactly this foreign id, or None."""
    return tx.first("foreign_ids.find", namespace=wanted.namespace, external_id=wanted.external_id)


def missing(wanted: ForeignId) -> NotFound:
    """Return the error for a foreign id that no session has."""
    return NotFound(
        f"no session has the external id {wanted.external_id[:80]!r} in namespace "
        f"{wanted.namespace!r}; list its sessions with db.sessions(namespace=..., with_ended=True)",
        namespace=wanted.namespace,
        external_id=wanted.external_id,
    )


def open_for(
    tx: Tx,
    wanted: ForeignId,
    *,
    session_id: str | None,
    agent_id: str | None = None,
    cwd: str | None = None,
    may_be: int = formats.ANY,
) -> SessionRef:
    """Return the session of a foreign id, or create one with the id `session_id`.

    May be repeated. Without a `session_id` none is created.

    Raises:
        NotFound: there is none, and none is to be created.
        InvalidInput: its items have none of the message formats of `may_be`.
    """
    found = find(tx, wanted)
    if found is not None:
        if found.formats & may_be != found.formats:
            agree(tx, found.session_no, may_be, "its caller")
        return SessionRef(found.session_no, found.session_id)
    if session_id is None:
        raise missing(wanted)
    ref = create(tx, session_id, agent_id=agent_id, cwd=cwd, may_be=may_be)
    tx.run(
        "foreign_ids.add",
        namespace=wanted.namespace,
        external_id=wanted.external_id,
        session_no=ref.session_no,
        now_ms=tx.stamp_ms,
    )
    return ref
