"""What the walks of `verify` share: steps, pages of rows, and the findings of one session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from sessiondb.backend import ReadTx
from sessiondb.errors import InvalidInput, ReadTooLong, StoreBusy, StoreDamaged, StoreFailed
from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.transcript.paths import Segment

if TYPE_CHECKING:
    from sessiondb import statements

K = TypeVar("K", int, str)
R = TypeVar("R")
Step = Callable[[ReadTx], None]
Steps = Generator[Step, None, None]
Severity = Literal["error", "unfinished", "warning"]

PAGE_ROWS: Final = 256
# A database that is broken everywhere must not fill the memory with equal findings.
SESSION_FINDINGS_MAX: Final = 100

# Reading a damaged page can raise these. Tables are STRICT, so a value of another type than
# its column's is damage too: the page was overwritten with one of another table.
UNREADABLE: Final = (
    StoreDamaged,
    UnicodeDecodeError,
    TypeError,
    ValueError,
    RecursionError,
    MemoryError,
)

# Why a check could not be finished, and what to do about it. Everything else is a bug.
_WAYS_ON: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (
        ReadTooLong,
        "Give its read more time, when little is written: `sessiondb verify DB --read-s 600`",
    ),
    (StoreBusy, "Verify again when the database is less busy"),
    (StoreFailed, "Check the disk and the system's log, and verify again"),
    (OSError, "Check the disk and the system's log, and verify again"),
    (MemoryError, "Free memory, and verify again"),
    (InvalidInput, "Then verify again"),
    (RecursionError, "Verify again from a thread with a larger stack"),
)


def is_damage(error: Exception) -> bool:
    """Tell whether an error that ended a check says that the file is damaged.

    Any other says only that the check was not finished. Memory can run out on a whole file.
    """
    return isinstance(error, UNREADABLE) and not isinstance(error, MemoryError)


def why_unfinished(error: Exception) -> str:
    """Return why a check could not be finished, and what to do, without the last full stop."""
    said = str(error).rstrip(".")
    for kind, way_on in _WAYS_ON:
        if isinstance(error, kind):
            return f"{said or type(error).__name__}. {way_on}"
    return f"{type(error).__name__}: {said}. This is a bug of sessiondb: report this message"


class SessionFindings:
    """The findings of one session, bounded. Of each severity, so that none hides another."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, Severity]] = []
        self._counts: Counter[Severity] = Counter()

    def add(self, check: str, what: str, severity: Severity = "error") -> None:
        """Record a finding, unless the session has too many already."""
        self._counts[severity] += 1
        if self._counts[severity] <= SESSION_FINDINGS_MAX:
            self.found.append((check, what, severity))
        elif self._counts[severity] == SESSION_FINDINGS_MAX + 1:
            message = (
                f"more than {SESSION_FINDINGS_MAX} findings in this session; the rest is left out"
            )
            self.found.append((check, message, severity))

    def unfinished(self, check: str, what: str, error: Exception) -> None:
        """Record that a check could not be finished. `what` is a sentence without full stop."""
        self.add(check, f"{what}: {why_unfinished(error)}", "unfinished")

    def of(self, row: statements.VerifyEntries, check: str, what: str) -> None:
        """Record a finding about one entry. `what` is a predicate."""
        self.add(check, f"entry {at(row.entry_no)} {what}")


def single(step: Step) -> Steps:
    """Yield one step."""
    yield step


def pages(
    read: Callable[[ReadTx, K, int], list[R]],
    key: Callable[[R], K],
    check: Callable[[ReadTx, R], None],
    *,
    first: K,
) -> Steps:
    """Yield steps, each of which reads and checks one page of a table, in the order of `key`.

    `read` returns so many rows behind a key. `first` sorts before every key.
    """
    last: K | None = first

    def step(tx: ReadTx) -> None:
        nonlocal last
        assert last is not None, "it is None behind the last page only"
        rows = read(tx, last, PAGE_ROWS)
        for row in rows:
            check(tx, row)
        last = key(rows[-1]) if len(rows) == PAGE_ROWS else None

    while last is not None:
        yield step


def at(entry_no: int | None) -> str:
    """Name an entry for a person, as session number and seq."""
    return "none" if entry_no is None else f"{entry_no >> SEQ_BITS}/{entry_no & SEQ_MAX}"


def path_to(tx: ReadTx, branch_no: int | None, high_no: int, low_no: int = 0) -> list[Segment]:
    """Return the path to an entry as ranges, root first, from `low_no` on.

    Empty if it is broken. Then that is reported with the branches.
    """
    path: list[Segment] = []
    while branch_no is not None and high_no >= low_no:
        branch = tx.first("transcript.branch", branch_no=branch_no)
        if branch is None or not (branch.fork_no or 0) < branch.first_no <= high_no:
            return []
        path.append(Segment(branch_no, max(low_no, branch.first_no), high_no))
        branch_no, high_no = branch.parent_branch_no, branch.fork_no or 0
    return path[::-1]


def is_part(path: list[Segment], branch_no: int | None, entry_no: int) -> bool:
    """Tell whether an entry lies on a path."""
    for part in path:  # of most sessions one part, and each entry asks: no generator
        if part.branch_no == branch_no and part.low_no <= entry_no <= part.high_no:
            return True
    return False


def is_on_path(
    tx: ReadTx, entry_no: int, entry_branch_no: int | None, branch_no: int | None, high_no: int
) -> bool:
    """Return whether an entry lies on the path that ends at `high_no` on `branch_no`."""
    while branch_no is not None and entry_no <= high_no:  # entry numbers only grow along a path
        if branch_no == entry_branch_no:
            return True
        branch = tx.first("transcript.branch", branch_no=branch_no)
        if branch is None or branch.fork_no is None or branch.fork_no >= high_no:
            return False
        branch_no, high_no = branch.parent_branch_no, branch.fork_no
    return False
