"""Lists of sessions, in the order of their last change.

A filter that names few sessions (an agent, a namespace, a prefix of keys) is answered by its own
index, and those few are sorted. A filter that names many is a walk in the order of changes,
which soon has a page of them. So a list costs about as much as it returns, and an append pays
for no index of a list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sessiondb.backend import ReadTx
from sessiondb.errors import InvalidInput
from sessiondb.limits import (
    NAMESPACE_BYTES_MAX,
    PAGE_BYTES,
    SESSION_KEY_CHARS_MAX,
    SESSIONS_SORTED_MAX,
)
from sessiondb.models import SessionInfo
from sessiondb.paging import fill

from .foreign_ids import check_part
from .registry import described

if TYPE_CHECKING:
    from sessiondb.statements import ListingAmong, ListingNewest, ListingOldest

    Found = ListingAmong | ListingNewest | ListingOldest

_ANY_TIME = 2**62


def _is_time(value: object) -> bool:
    return isinstance(value, int) and abs(value) <= _ANY_TIME


class Cursor(NamedTuple):
    """The last session of a page: when it was last changed, and its number."""

    updated_at_ms: int
    session_no: int


@dataclass(frozen=True, slots=True)
class Filters:
    """Which sessions a list has, and in which order."""

    agent_id: str | None = None
    namespace: str | None = None
    key_prefix: str | None = None
    updated_before: int | None = None
    with_ended: bool = False
    newest_first: bool = True

    def __post_init__(self) -> None:
        if self.namespace is not None:
            check_part("a namespace", self.namespace, NAMESPACE_BYTES_MAX)
        if self.key_prefix is not None:
            check_part("a prefix of keys", self.key_prefix, 4 * SESSION_KEY_CHARS_MAX)
        before = self.updated_before
        if before is not None and not _is_time(before):
            raise InvalidInput(
                f"updated_before is a time in milliseconds since 1970, not {str(before)[:40]!r}"
            )

    @property
    def before_ms(self) -> int:
        """The time before which a session of the list was last changed."""
        return _ANY_TIME if self.updated_before is None else self.updated_before

    @property
    def keys_from(self) -> str | None:
        """The first key with the prefix."""
        return self.key_prefix

    @property
    def keys_before(self) -> str | None:
        """A text behind every key with the prefix: none is as long, and no character is greater."""
        prefix = self.key_prefix
        return None if prefix is None else prefix + "\U0010ffff" * SESSION_KEY_CHARS_MAX


def page(
    tx: ReadTx, past: Cursor | None, limit: int, *, filters: Filters
) -> tuple[list[SessionInfo], Cursor | None]:
    """Return a page of a list behind a cursor, and the next cursor, or None at the end."""
    few = _few(tx, filters)
    found, more = (
        _walked(tx, filters, past, limit) if few is None else _sorted(tx, filters, few, past, limit)
    )
    infos = (tx.one("registry.info", session_no=row.session_no) for row in found)
    rows, _ = fill(infos, limit, PAGE_BYTES)
    more = more or len(rows) < len(found)
    last = found[len(rows) - 1] if rows else None
    cursor = Cursor(last.updated_at_ms, last.session_no) if last is not None and more else None
    return [described(row) for row in rows], cursor


def _few(tx: ReadTx, filters: Filters) -> set[int] | None:
    """Return the few sessions that the filters name, or None if each filter names many."""
    few: set[int] | None = None
    for named in (_of_agent(tx, filters), _of_namespace(tx, filters), _of_keys(tx, filters)):
        if named is not None and len(named) <= SESSIONS_SORTED_MAX:
            few = set(named) if few is None else few & set(named)
    return few


def _of_agent(tx: ReadTx, filters: Filters) -> list[int] | None:
    if filters.agent_id is None:
        return None
    limit = SESSIONS_SORTED_MAX + 1
    return [
        row.session_no for row in tx.all("listing.of_agent", agent_id=filters.agent_id, limit=limit)
    ]


def _of_namespace(tx: ReadTx, filters: Filters) -> list[int] | None:
    if filters.namespace is None:
        return None
    rows = tx.all(
        "listing.of_namespace", namespace=filters.namespace, limit=SESSIONS_SORTED_MAX + 1
    )
    return [row.session_no for row in rows]


def _of_keys(tx: ReadTx, filters: Filters) -> list[int] | None:
    if filters.key_prefix is None:
        return None
    rows = tx.all(
        "listing.of_keys",
        keys_from=filters.keys_from,
        keys_before=filters.keys_before,
        limit=SESSIONS_SORTED_MAX + 1,
    )
    return [row.session_no for row in rows]


def _sorted(
    tx: ReadTx, filters: Filters, few: set[int], past: Cursor | None, limit: int
) -> tuple[list[Found], bool]:
    """Return a page of a few sessions, and whether others follow."""
    rows: list[Found] = [
        *tx.all(
            "listing.among",
            among=json.dumps(sorted(few)),
            updated_before=filters.before_ms,
            agent_id=filters.agent_id,
            with_ended=int(filters.with_ended),
            namespace=filters.namespace,
            keys_from=filters.keys_from,
            keys_before=filters.keys_before,
        )
    ]
    rows.sort(key=_place, reverse=filters.newest_first)
    if past is not None:
        rows = [row for row in rows if _is_behind(row, past, filters)]
    return rows[:limit], len(rows) > limit


def _place(row: Found) -> Cursor:
    return Cursor(row.updated_at_ms, row.session_no)


def _is_behind(row: Found, past: Cursor, filters: Filters) -> bool:
    return _place(row) < past if filters.newest_first else _place(row) > past


def _walked(
    tx: ReadTx, filters: Filters, past: Cursor | None, limit: int
) -> tuple[list[Found], bool]:
    """Return a page of all sessions that the filters leave, and whether others may follow."""
    if filters.newest_first:
        start = past or Cursor(filters.before_ms, -1)
        newest = tx.page(
            "listing.newest",
            past_ms=start.updated_at_ms,
            past_no=start.session_no,
            agent_id=filters.agent_id,
            with_ended=int(filters.with_ended),
            namespace=filters.namespace,
            keys_from=filters.keys_from,
            keys_before=filters.keys_before,
            limit=limit,
        )
        return [*newest.rows], newest.more
    start = past or Cursor(-_ANY_TIME, -1)
    oldest = tx.page(
        "listing.oldest",
        past_ms=start.updated_at_ms,
        past_no=start.session_no,
        updated_before=filters.before_ms,
        agent_id=filters.agent_id,
        with_ended=int(filters.with_ended),
        namespace=filters.namespace,
        keys_from=filters.keys_from,
        keys_before=filters.keys_before,
        limit=limit,
    )
    return [*oldest.rows], oldest.more
