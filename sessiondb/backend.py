"""The seam between sessiondb's rules and the engine that stores them.

Rules (sessions, transcript, context, compaction, ...) are synchronous functions over a
transaction handle, `Tx`, and run *named* statements. They know no SQL text, no
connection and no driver, so a second engine needs only its own `.sql` files and its own
`Backend`.

A `Backend` offers few verbs: `read`, `write`, `step`, `query`, `wait_change`, `wake`, `liveness`,
`stats` and `close` (opening migrates). A whole transaction body is one request, `fn(tx) -> result`:

* `read(fn)` runs on a reader thread inside one short snapshot.
* `write(fn)` runs on the writer thread inside one `BEGIN IMMEDIATE ... COMMIT`, which it may
  share with its neighbours (group commit). A savepoint around each body means that one
  failure spares the others. The result is delivered only after COMMIT.
* `step(fn)` is a write of background work. It has a transaction of its own, and gives way to
  every `write`.

A body contains SQL and arithmetic, nothing else: no await, no I/O, no JSON decoding that could
have been done before. It may run only once, and it must not keep `tx` after it returns.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NewType, Protocol, TypeVar

from .clock import Clock
from .limits import PAGE_BYTES
from .models import QueryResult
from .paging import Page
from .process import Registered

T = TypeVar("T")

SqlValue = int | float | str | bytes | None

AnyStatement = NewType("AnyStatement", str)
"""A name that is put together, or kept in a table of names.

mypy knows neither the parameters nor the columns of such a statement. It knows both of a literal.
"""

Row = Any
"""A row of any statement, for code that handles all alike. A row of a known statement has the class
that sessiondb/statements.pyi gives it, e.g. `statements.InboxByEvent`."""

if TYPE_CHECKING:
    # One overload for each statement: mypy knows its parameters and its row's columns.
    from .statements import Reads, Writes
else:  # sessiondb/statements.pyi does not exist at run time: no start makes its 300 classes

    class Reads(Protocol):
        """How a body runs the statements that return rows."""

        def first(self, statement: str, /, **params: SqlValue) -> Row | None:
            """Return the first row of a named statement, or None."""

        def one(self, statement: str, /, **params: SqlValue) -> Row:
            """Return the first row of a named statement that an invariant guarantees.

            Raises:
                StoreDamaged: there is none: the file is damaged, or was changed by another program.
            """

        def all(self, statement: str, /, **params: SqlValue) -> list[Row]:
            """Return every row of a named statement, materialised.

            For few or small rows. A list of texts is read with `page`.
            """

        def page(
            self,
            statement: str,
            /,
            *,
            limit: int,
            bytes_max: int = PAGE_BYTES,
            **params: SqlValue,
        ) -> Page[Row]:
            """Return a page of rows: `limit` at most, or until they have `bytes_max` (`paging.py`).

            The statement has a parameter `:limit`, and reads its rows in order, without a sort.
            """

    class Writes(Protocol):
        """How a body runs the statements that change rows."""

        def run(self, statement: str, /, **params: SqlValue) -> int:
            """Run a named statement that changes rows. Return how many it changed."""


class Word(NamedTuple):
    """A word of a text, as the search index compares it: small letters, without accents."""

    start: int
    """Where it begins in the text's UTF-8, in bytes."""
    end: int
    word: str


class ReadTx(Reads, Protocol):
    """One snapshot of the database."""

    def tuples(self, statement: str, /, **params: SqlValue) -> list[tuple[Any, ...]]:
        """Return every row as a plain tuple: for bulk reads, where named rows would cost time."""

    def words(self, text: str) -> list[Word]:
        """Return the words of a text, as the search index has them."""

    def layout_faults(self) -> list[str]:
        """Return how the schema and the settings of the file differ from what the engine makes.

        Each is a sentence without its full stop.
        """


class Tx(ReadTx, Writes, Protocol):
    """One write transaction, or this request's part of it."""

    now_ms: int
    """Wall clock at the start of the transaction. It labels rows. Nothing is ordered by it.

    It is real, whatever a host program's tests do with the clock: processes compare it.
    """

    stamp_ms: int
    """The application's wall clock when it asked for the write: for the times of transcripts."""

    instance_no: int
    """This process's row in `instance`."""


class Step(NamedTuple, Generic[T]):
    """The result of a step of background work, and how long it held the write lock."""

    value: T
    held_ms: float
    """From BEGIN to the end of COMMIT."""


class Backend(Protocol):
    """A storage engine. The only implementation today is `sessiondb.sqlite.SqliteBackend`."""

    async def read(self, fn: Callable[[ReadTx], T], *, op: str) -> T:
        """Run `fn` in one short snapshot on a reader thread.

        Raises:
            StoreBusy: every reader is occupied and the queue is full.
            StoreClosed: the database has been closed.
        """

    async def write(
        self, fn: Callable[[Tx], T], *, op: str, size: int = 0, timeout_s: float | None = None
    ) -> T:
        """Run `fn` in a write transaction. Return once it is committed and durable.

        `op` names the operation in errors, metrics and logs. `size` is the payload in bytes,
        for the queue's limit. A write that is cancelled or times out before it began is not
        executed. Later, its outcome is awaited, which takes at most one transaction.
        `errors.outcome_of` says which, for any exception raised from here.

        Raises:
            StoreBusy: the queue is full, or another process holds the write lock. Not executed.
            NotExecuted: the deadline passed before the transaction began.
            OutcomeUnknown: an I/O error came back from COMMIT. Read again, or retry with an
                idempotency key.
        """

    async def step(self, fn: Callable[[Tx], T], *, op: str, size: int = 0) -> Step[T]:
        """Run `fn` as one step of background work, paced so that callers of `write` do not notice.

        It has a transaction of its own. While others write, steps get a small part of the
        writer's time. Each gets its turn in any case. The caller keeps a step to a few
        milliseconds, by `held_ms`. Otherwise like `write`.
        """

    async def query(
        self,
        sql: str,
        parameters: Sequence[SqlValue],
        *,
        rows_max: int,
        bytes_max: int,
        timeout_s: float,
        allow_cut: bool,
    ) -> QueryResult:
        """Run a statement of the application's own, which may only read. See `SessionDB.query`.

        In one snapshot, on threads that no `read` needs.
        """

    @property
    def is_busy(self) -> bool:
        """Whether somebody called `write` a moment ago.

        Background work on other threads then pauses more often, too.
        """

    @property
    def change_count(self) -> int:
        """How many commits have been noticed so far, of this process or another.

        Only good for comparing.
        """

    async def wait_change(self, seen: int, timeout_s: float) -> None:
        """Wait for a commit after `seen`, an earlier `change_count`. `timeout_s` at most.

        A commit of this process is noticed at once, one of another process within 100 ms.
        Neither by busy reading.
        """

    def wake(self) -> None:
        """Wake whoever waits for a commit: something else has changed that they look at.

        From any thread of this process.
        """

    async def backup(self, destination: str | os.PathLike[str]) -> int:
        """Copy the database to a new file while it is in use. Return its size in pages.

        Others write in between.

        Raises:
            InvalidInput: the destination exists.
        """

    async def incremental_vacuum(self, pages: int) -> int:
        """Return up to `pages` free pages to the file system, and how many those were.

        Others write in between.
        """

    def liveness(self, registrations: Sequence[Registered]) -> list[bool | None]:
        """Tell of each instance whether its process lives. None: it cannot be known.

        Exact for every process of this machine, whatever its PID namespace, its container or
        its host name. None when the file with its lock was moved or deleted, and on a file
        system without locks. Then the end of its leases decides. Asks the kernel, outside
        any transaction: use a thread.
        """

    def stats(self) -> dict[str, Any]:
        """Return counters and gauges, keys with their units."""

    async def close(self) -> None:
        """Finish queued writes, checkpoint, and close. May be repeated."""

    def close_now(self) -> None:
        """As `close`. This thread waits meanwhile."""


class Database(Protocol):
    """An open database, as handles and loops use it. `SessionDB` is one."""

    @property
    def backend(self) -> Backend:
        """The engine. Its commits wake the loops."""

    @property
    def clock(self) -> Clock:
        """What rules, turns, leases and loops go by. To move it wakes the loops, too."""

    async def read(self, op: str, fn: Callable[[ReadTx], T]) -> T:
        """As `SessionDB.read`."""

    async def write(
        self, op: str, fn: Callable[[Tx], T], *, size: int = 0, timeout_s: float | None = None
    ) -> T:
        """As `SessionDB.write`."""

    async def change_session(
        self,
        op: str,
        session_no: int,
        fn: Callable[[Tx, int | None], T],
        *,
        own_turn_no: int | None = None,
        abort: str | None = None,
        size: int = 0,
    ) -> T:
        """As `SessionDB.change_session`."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One named statement of a `.sql` file."""

    name: str
    promise: str
    sql: str
    changes: tuple[int, float] | None
    """The least and the most rows that it may change. None if it only reads."""


CHANGES = {"one row": (1, 1), "one row or none": (0, 1), "any rows": (0, math.inf)}
"""What a statement that changes rows says beside its name. The transaction handle holds it to it:
a condition that is lost in an edit would otherwise change the rows of others, unnoticed."""

_STATEMENT = re.compile(
    r"^-- name: (?P<name>[a-z_]+)(?:, (?P<changes>[a-z ]+))?\n"
    r"(?P<promise>(?:--[^\n]*\n)+)(?P<sql>.*?);\s*$",
    re.DOTALL | re.MULTILINE,
)


def load_statements(package: str) -> Mapping[str, Statement]:
    """Read every `.sql` file in `package`, as `{"file.name": Statement}`.

    The format: `-- name: insert_entry, one row`, then comment lines with the statement's promise,
    then one statement that ends in a semicolon at the end of a line. A statement that changes
    rows says how many beside its name, in the words of `CHANGES`.

    Raises:
        ValueError: two statements of a file share a name, a file holds text outside of a
            statement, or a statement changes rows and does not say how many.
    """
    found: dict[str, Statement] = {}
    for file in sorted(resources.files(package).iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".sql"):
            continue
        concept, text = file.name.removesuffix(".sql"), file.read_text(encoding="utf-8")
        for match in _STATEMENT.finditer(text):
            name = f"{concept}.{match['name']}"
            if name in found:
                raise ValueError(f"{file.name}: two statements are named {match['name']}")
            promise = " ".join(
                line.removeprefix("--").strip() for line in match["promise"].splitlines()
            )
            sql = match["sql"].strip()
            found[name] = Statement(name, promise, sql, _changes(name, match["changes"], sql))
        if text.count("-- name:") != sum(1 for name in found if name.startswith(f"{concept}.")):
            raise ValueError(
                f"{file.name}: a statement has no comment line under its name, or no semicolon"
            )
    return found


def _changes(name: str, mark: str | None, sql: str) -> tuple[int, float] | None:
    """Return how many rows a statement may change, by the words beside its name."""
    changing = sql.startswith(("INSERT ", "UPDATE ", "DELETE "))
    if changing != (mark is not None) or (mark is not None and mark not in CHANGES):
        raise ValueError(
            f"statement {name}: a statement that changes rows says how many beside its name "
            f"({', '.join(CHANGES)}), and no other does. This one says {mark or 'nothing'}"
        )
    return None if mark is None else CHANGES[mark]
