"""The path from an entry to its root as ranges over the primary key, and its pages.

A *branch* is an unbroken run of entries, each the parent of the next. A path is one range per
branch, so finding it costs one lookup for each of its branches, whatever its length, and reading
it is reading ranges. Numbers grow along a path.

`append.py` puts entries there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sessiondb import paging
from sessiondb.backend import ReadTx
from sessiondb.errors import InvalidInput, NotFound, SessionArchived, StoreDamaged
from sessiondb.limits import (
    PAGE_BYTES,
    PAGE_ENTRIES_MAX,
    SEQ_BITS,
    SEQ_MAX,
    TYPED_ENTRIES_LOOKED_AT,
)
from sessiondb.paging import Page

if TYPE_CHECKING:
    from sessiondb import statements

    TreeEntry = statements.TranscriptById | statements.TranscriptByNo
    """An entry with what it passes on to the next one."""


class _Numbered(Protocol):
    """A row with an entry's number."""

    @property
    def entry_no(self) -> int: ...


R = TypeVar("R", bound=_Numbered)


def entry_number(session_no: int, seq: int) -> int:
    """Pack a session's number and an entry's seq into the entry's primary key."""
    return session_no << SEQ_BITS | seq


def seq_of(entry_no: int) -> int:
    """Return an entry's seq within its session."""
    return entry_no & SEQ_MAX


def session_of(entry_no: int) -> int:
    """Return the number of the session that an entry was appended to."""
    return entry_no >> SEQ_BITS


def context_start(boundary_no: int | None, first_kept_no: int | None) -> int | None:
    """Return the entry that a context begins at. None is the root.

    It is the first entry that the boundary kept, else the boundary.
    """
    return first_kept_no if first_kept_no is not None else boundary_no


@dataclass(frozen=True, slots=True)
class Segment:
    """One branch's part of a path: its entries from low_no to high_no, both included."""

    branch_no: int
    low_no: int
    high_no: int


def require_entries(session_id: str, archived_at_ms: int | None) -> None:
    """Refuse to read or continue a session whose entries are in an archive.

    Raises:
        SessionArchived: they are.
    """
    if archived_at_ms is not None:
        raise SessionArchived(
            f"session {session_id} is archived; "
            f"bring it back with `sessiondb unarchive DB {session_id}` or db.unarchive()",
            session_id=session_id,
        )


def require_readable(tx: ReadTx, session_no: int) -> None:
    """As `require_entries`, for a caller that has only the session's number."""
    row = tx.first("transcript.archived", session_no=session_no)
    if row is not None:
        require_entries(row.session_id, row.archived_at_ms)


def segments(tx: ReadTx, head_no: int | None, *, stop_no: int | None = None) -> list[Segment]:
    """Return the path to `head_no` as ranges, root first.

    With `stop_no`, which is on the path, only the part from that entry on.
    """
    if head_no is None:
        return []
    found: list[Segment] = []
    branch_no, high_no = tx.one("transcript.by_no", entry_no=head_no).branch_no, head_no
    while branch_no is not None:
        branch = tx.one("transcript.branch", branch_no=branch_no)
        # Numbers grow along a path: `stop_no` lies in the first branch that begins no later.
        if stop_no is not None and stop_no >= branch.first_no:
            found.append(Segment(branch_no, stop_no, high_no))
            break
        found.append(Segment(branch_no, branch.first_no, high_no))
        branch_no, high_no = _left_at(branch_no, branch)
    found.reverse()
    return found


def _left_at(branch_no: int, branch: statements.TranscriptBranch) -> tuple[int | None, int]:
    """Return a branch's parent, and the entry at which it left that.

    A parent is always older. Otherwise a path might never end.
    """
    parent_no, fork_no = branch.parent_branch_no, branch.fork_no
    if parent_no is not None and (fork_no is None or parent_no >= branch_no):
        raise StoreDamaged(
            f"branch {branch_no} is damaged: it cannot have left branch {parent_no} at entry "
            f"{fork_no}. Run `sessiondb verify DB`; then `sessiondb salvage DB NEW`."
        )
    return parent_no, fork_no or 0


def on_path(tx: ReadTx, entry: TreeEntry, head_no: int) -> bool:
    """Tell whether an entry lies on the path to `head_no`, itself included."""
    head = tx.one("transcript.by_no", entry_no=head_no)
    branch_no, high_no = head.branch_no, head_no
    while branch_no is not None:
        if branch_no == entry.branch_no:
            return entry.entry_no <= high_no
        branch_no, high_no = _left_at(branch_no, tx.one("transcript.branch", branch_no=branch_no))
    return False


def read_path(
    tx: ReadTx,
    head_no: int | None,
    *,
    after_no: int | None,
    before_no: int | None,
    limit: int,
    backward: bool,
) -> list[statements.TranscriptSpanForward]:
    """Read one page of the path to `head_no`, strictly between two entries. Empty: none is left.

    Forward pages begin after `after_no` (None: at the root). Backward pages begin before
    `before_no` (None: at the head).

    Raises:
        NotFound: a given entry is not on the path.
        InvalidInput: a limit that no page can have.
    """
    limit = page_limit(limit)
    ranges = ranges_between(tx, head_no, after_no=after_no, before_no=before_no)

    def span(segment: Segment, left: int, room: int) -> Page[statements.TranscriptSpanForward]:
        if backward:
            return tx.page(
                "transcript.span_backward",
                branch_no=segment.branch_no,
                low_no=segment.low_no,
                high_no=segment.high_no,
                limit=left,
                bytes_max=room,
            )
        return tx.page(
            "transcript.span_forward",
            branch_no=segment.branch_no,
            low_no=segment.low_no,
            high_no=segment.high_no,
            limit=left,
            bytes_max=room,
        )

    return paging.fill_from(reversed(ranges) if backward else ranges, span, limit).rows


def ranges_between(
    tx: ReadTx, head_no: int | None, *, after_no: int | None, before_no: int | None
) -> list[Segment]:
    """Return the path to `head_no`, strictly between two entries, as ranges, root first.

    Raises:
        NotFound: a given entry is not on the path.
    """
    if before_no is not None:
        _require_on_path(tx, head_no, before_no)
    if after_no is not None:
        _require_on_path(tx, head_no, after_no)
    if after_no is not None and before_no is not None and after_no >= before_no:
        return []  # numbers grow along a path: nothing lies between them
    return [
        Segment(
            segment.branch_no,
            segment.low_no + (segment.low_no == after_no),
            segment.high_no - (segment.high_no == before_no),
        )
        for segment in segments(tx, head_no if before_no is None else before_no, stop_no=after_no)
    ]


@dataclass(slots=True)
class TypedSearch:
    """A search for entries of some types, along ranges that are still to be looked at.

    A step reads a bounded number of entries, whatever their types are. Those that were found lie
    in the order of the search.
    """

    ranges: list[Segment]
    """What is left, in the order of the path."""
    types: str
    """The types, as a JSON array."""
    backward: bool
    limit: int
    found: list[statements.TranscriptSpanForward] = field(default_factory=list)
    room: int = PAGE_BYTES

    @property
    def is_over(self) -> bool:
        """True: the page is full, or nothing is left."""
        return not self.ranges or self.room <= 0 or len(self.found) >= self.limit

    def step(self, tx: ReadTx) -> None:
        """Look at the next entries."""
        left = TYPED_ENTRIES_LOOKED_AT
        while left > 0 and not self.is_over:
            part = self._next(left)
            left -= part.high_no - part.low_no + 1
            rows = self._read(tx, part)
            self.found += rows
            self.room -= sum(map(paging.memory_of, rows))

    def _next(self, most: int) -> Segment:
        """Take a part of the next range: so many numbers at most."""
        segment = self.ranges.pop(-1 if self.backward else 0)
        if segment.high_no - segment.low_no < most:
            return segment
        if self.backward:
            cut_no = segment.high_no - most
            self.ranges.append(replace(segment, high_no=cut_no))
            return replace(segment, low_no=cut_no + 1)
        cut_no = segment.low_no + most
        self.ranges.insert(0, replace(segment, low_no=cut_no))
        return replace(segment, high_no=cut_no - 1)

    def _read(self, tx: ReadTx, part: Segment) -> list[statements.TranscriptSpanForward]:
        limit = self.limit - len(self.found)
        if self.backward:
            return tx.page(
                "transcript.typed_backward",
                branch_no=part.branch_no,
                low_no=part.low_no,
                high_no=part.high_no,
                types=self.types,
                limit=limit,
                bytes_max=self.room,
            ).rows
        return tx.page(
            "transcript.typed_forward",
            branch_no=part.branch_no,
            low_no=part.low_no,
            high_no=part.high_no,
            types=self.types,
            limit=limit,
            bytes_max=self.room,
        ).rows


def read_entry(tx: ReadTx, entry_no: int) -> statements.TranscriptAllEntries:
    """Return one entry by its number, which exists."""
    return tx.page("transcript.all_entries", low_no=entry_no, high_no=entry_no, limit=1).rows[0]


def page_limit(limit: Any) -> int:
    """Return a number of entries that a page can hold.

    Raises:
        InvalidInput: it is none, or more than `PAGE_ENTRIES_MAX`.
    """
    if not isinstance(limit, int) or not 0 <= limit <= PAGE_ENTRIES_MAX:
        raise InvalidInput(
            f"a page cannot hold {limit!r} entries: 0 to {PAGE_ENTRIES_MAX:,}. "
            "For more, ask for the next page"
        )
    return limit


def _require_on_path(tx: ReadTx, head_no: int | None, entry_no: int) -> None:
    entry = tx.first("transcript.by_no", entry_no=entry_no)
    if entry is None or head_no is None or not on_path(tx, entry, head_no):
        raise NotFound(
            f"entry {seq_of(entry_no)} is not on the current path; page again from an end",
            entry_no=entry_no,
        )


def read_all_entries(
    tx: ReadTx, session_no: int, *, after_no: int | None, limit: int
) -> list[statements.TranscriptAllEntries]:
    """Read one page of all of a session's entries, in order of arrival. Empty: none is left.

    None begins with the header.

    Raises:
        NotFound: `after_no` is an entry of another session.
        SessionArchived: its entries are in an archive.
    """
    require_readable(tx, session_no)
    if after_no is not None and session_of(after_no) != session_no:
        raise NotFound(
            f"entry {after_no} is of another session; page again from the beginning",
            entry_no=after_no,
        )
    return tx.page(
        "transcript.all_entries",
        low_no=entry_number(session_no, 0) if after_no is None else after_no + 1,
        high_no=entry_number(session_no, SEQ_MAX),
        limit=page_limit(limit),
    ).rows


def walk_back(
    tx: ReadTx, head_no: int | None, stop_no: int | None, page: Callable[[Segment, int], list[R]]
) -> Iterator[R]:
    """Yield rows of the path from the head towards the root, a page at a time.

    `page(segment, high_no)` reads one.
    """
    for segment in reversed(segments(tx, head_no, stop_no=stop_no)):
        high_no = segment.high_no
        while high_no >= segment.low_no:
            rows = page(segment, high_no)
            yield from rows
            if not rows:
                break
            high_no = rows[-1].entry_no - 1
