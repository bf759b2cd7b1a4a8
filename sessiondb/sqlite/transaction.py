"""The transaction handles that rules receive, and the translation of SQLite's errors.

A handle runs named statements on the connection of the thread that made it. It is void as
soon as the body that received it returns: a later use raises, instead of writing into
another body's transaction.

Rows are named tuples with the statement's column names. Each statement has one row class,
made when it first returns a row. `tuples` skips the class for bulk reads. Every statement
is run to its end, or closed, before its method returns: a statement left halfway would keep
the transaction open (and a script left halfway is simply not run).
"""

from __future__ import annotations

import functools
import re
from collections import namedtuple
from collections.abc import Callable, Iterator
from types import CoroutineType
from typing import Any, Final, NoReturn

import apsw

from sessiondb import errors, paging
from sessiondb.backend import Row, SqlValue, Word, load_statements
from sessiondb.limits import PAGE_BYTES
from sessiondb.paging import Page

from . import layout

# After these errors a connection is closed and opened again: its cache of the file may be wrong.
SPOILING = (apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError)

# As the table `search` of schema.sql has it.
TOKENIZER: Final = "unicode61"
TOKENIZER_OPTIONS: Final = ("remove_diacritics", "2")

_PARAMETER = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)")


class Prepared:
    """One named statement, its parameters, and its row class once it has returned a row."""

    __slots__ = ("changes", "make_row", "name", "parameters", "sql")

    def __init__(self, name: str, sql: str, changes: tuple[int, float] | None = None) -> None:
        self.name = name
        self.sql = sql
        self.changes = changes
        """The least and the most rows that it may change. None: it is not checked."""
        self.parameters = frozenset(_PARAMETER.findall(sql))
        self.make_row: Callable[[Any], Row] | None = None

    def describe(self, cursor: apsw.Cursor) -> None:
        """Make the row class from the columns of the row just read.

        Raises:
            ValueError: a column is no Python name, which is a bug of the statement.
        """
        columns = [column[0] for column in cursor.get_description()]
        try:
            # The columns are data, so this can be neither checked nor a class.
            name = self.name.replace(".", "_")
            row_class: Any = namedtuple(name, columns)  # type: ignore[misc]  # noqa: PYI024
        except ValueError as error:
            raise ValueError(
                f"statement {self.name}: a column needs a name of its own (AS ...): {error}"
            ) from error
        self.make_row = row_class._make


@functools.cache
def statements() -> dict[str, Prepared]:
    """Return every statement of this engine by name. Read once per process."""
    return {
        name: Prepared(name, found.sql, found.changes)
        for name, found in load_statements("sessiondb.sqlite.queries").items()
    }


class Snapshot:
    """A `ReadTx`: one snapshot of the database, on one thread, while its body runs."""

    __slots__ = ("_connection", "failure", "interrupted")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection: apsw.Connection | None = connection
        self.interrupted = ""
        """Why this body must stop. Set by another thread. Checked before each statement,
        because an interrupt that arrives between two statements is lost."""
        self.failure: apsw.Error | None = None
        """An error that spoils the connection, kept even when the body swallows it."""

    def first(self, statement: str, /, **params: SqlValue) -> Row | None:
        rows = self.all(statement, **params)
        return rows[0] if rows else None

    def one(self, statement: str, /, **params: SqlValue) -> Row:
        row = self.first(statement, **params)
        if row is None:
            path = self._connection.filename if self._connection is not None else "DB"
            raise errors.StoreDamaged(
                f"statement {statement}: {path} is damaged: there is no row for {params}, which "
                f"the schema's rules require. Run `sessiondb verify {path}`. Then `sessiondb "
                f"salvage {path} NEW` gets out what can be read."
            )
        return row

    def all(self, statement: str, /, **params: SqlValue) -> list[Row]:
        prepared, cursor = self._start(statement, params)
        try:
            if prepared.make_row is None:
                first = cursor.fetchone()
                if first is not None:
                    prepared.describe(cursor)  # now: at its end a cursor knows no columns
                rows = [] if first is None else [first, *cursor.fetchall()]
            else:
                rows = cursor.fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            self._fail(error, statement)
        if prepared.changes is not None:  # it has a RETURNING clause
            self._check_count(prepared, len(rows), params)
        make_row = prepared.make_row
        if make_row is None:
            return []  # no row has ever come, so its columns are not known
        return list(map(make_row, rows))

    def page(
        self,
        statement: str,
        /,
        *,
        limit: int,
        bytes_max: int = PAGE_BYTES,
        **params: SqlValue,
    ) -> Page[Row]:
        prepared, cursor = self._start(statement, {**params, "limit": limit})
        try:
            return paging.fill(self._named(prepared, cursor), limit, bytes_max)
        except (apsw.Error, UnicodeDecodeError) as error:
            self._fail(error, statement)
        finally:
            cursor.close(True)  # a full page leaves its statement halfway

    @staticmethod
    def _named(prepared: Prepared, cursor: apsw.Cursor) -> Iterator[Row]:
        """Yield each row when it is asked for. SQLite reads none ahead."""
        for row in cursor:
            if prepared.make_row is None:
                prepared.describe(cursor)
                assert prepared.make_row is not None
            yield prepared.make_row(row)

    def tuples(self, statement: str, /, **params: SqlValue) -> list[tuple[Any, ...]]:
        prepared, cursor = self._start(statement, params)
        try:
            rows = cursor.fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            self._fail(error, statement)
        if prepared.changes is not None:
            self._check_count(prepared, len(rows), params)
        return rows

    def words(self, text: str) -> list[Word]:
        connection = self.usable("the words of a text")
        tokenize = connection.fts5_tokenizer(TOKENIZER, list(TOKENIZER_OPTIONS))
        encoded = text.encode("utf-8", "surrogatepass")
        return [Word(*found) for found in tokenize(encoded, apsw.FTS5_TOKENIZE_DOCUMENT, None)]

    def layout_faults(self) -> list[str]:
        connection = self.usable("the schema")
        try:
            return list(layout.faults(connection))
        except (apsw.Error, UnicodeDecodeError) as error:
            self._fail(error, "of the schema")

    def usable(self, statement: str) -> apsw.Connection:
        """Return the connection, for a statement that runs now. For the engine's own modules."""
        connection = self._connection
        if connection is None:
            raise RuntimeError(
                f"{statement}: the transaction has ended. A body must not keep its handle"
            )
        if self.interrupted:
            raise errors.ReadTooLong(f"{self.interrupted} (before statement {statement})")
        return connection

    def _start(self, statement: str, params: dict[str, SqlValue]) -> tuple[Prepared, apsw.Cursor]:
        connection = self.usable(statement)
        try:
            prepared = statements()[statement]
        except KeyError:
            raise LookupError(
                f"there is no statement named {statement!r} in sessiondb/sqlite/queries"
            ) from None
        if not params.keys() <= prepared.parameters:
            unknown = ", ".join(sorted(params.keys() - prepared.parameters))
            raise TypeError(f"statement {statement} has no parameter {unknown}")
        try:
            cursor = connection.execute(prepared.sql, params)
        except apsw.Error as error:
            self._fail(error, statement)
        except (UnicodeEncodeError, OverflowError) as error:
            # A lone surrogate, or an integer of more than 64 bits.
            raise errors.InvalidInput(
                f"statement {statement}: a value cannot be stored: {error}"
            ) from error
        return prepared, cursor

    def _check_count(self, prepared: Prepared, changed: int, params: dict[str, SqlValue]) -> None:
        """Hold a statement to the number of rows that it says beside its name.

        The error rolls the body back. So a condition that was lost in an edit, or a key that a
        damaged index holds twice, does not change the rows of others.

        Raises:
            StoreDamaged: it changed more rows, or fewer.
        """
        assert prepared.changes is not None
        least, most = prepared.changes
        if least <= changed <= most:
            return
        path = self._connection.filename if self._connection is not None else "DB"
        numbers = {name: value for name, value in params.items() if isinstance(value, int)}
        raise errors.StoreDamaged(
            f"statement {prepared.name}: it changes one row, and met {changed} in {path} (with "
            f"{numbers}). Nothing was changed. Either the file is damaged, or sessiondb has a bug. "
            f"Run `sessiondb verify {path}`. If it finds nothing, report this message."
        )

    def _fail(self, error: apsw.Error | UnicodeDecodeError, statement: str) -> NoReturn:
        path = self._connection.filename if self._connection is not None else ""
        if isinstance(error, UnicodeDecodeError):  # every text was UTF-8 when it was stored
            raise errors.StoreDamaged(
                f"statement {statement}: a text in {path} is damaged: {error}. Run "
                f"`sessiondb verify {path}`. Then `sessiondb salvage {path} NEW` gets out what "
                "can be read."
            ) from error
        if isinstance(error, apsw.ReadOnlyError) and not isinstance(self, WriteTransaction):
            # A body passed to read() tried to write: a bug of the body, not of the disk.
            error.add_note(f"sessiondb: statement {statement}")
            raise error
        if isinstance(error, apsw.CorruptError) and statement.startswith("search."):
            _fail_search(error, statement, path)
        if isinstance(error, SPOILING):
            self.failure = error
        reraise(error, f"statement {statement}", self.interrupted, path)

    def end(self) -> None:
        """Make the handle void."""
        self._connection = None


class WriteTransaction(Snapshot):
    """A `Tx`: one request's part of a write transaction."""

    __slots__ = ("instance_no", "now_ms", "stamp_ms")

    def __init__(
        self,
        connection: apsw.Connection,
        now_ms: int,
        instance_no: int,
        stamp_ms: int | None = None,
    ) -> None:
        super().__init__(connection)
        self.now_ms = now_ms
        self.stamp_ms = now_ms if stamp_ms is None else stamp_ms
        self.instance_no = instance_no

    def run(self, statement: str, /, **params: SqlValue) -> int:
        prepared, cursor = self._start(statement, params)
        try:
            cursor.fetchall()  # a RETURNING clause yields rows
            assert self._connection is not None
            changed = self._connection.changes()
        except apsw.Error as error:
            self._fail(error, statement)
        if prepared.changes is not None:
            self._check_count(prepared, changed, params)
        return changed


def _fail_search(error: apsw.CorruptError, statement: str, path: str) -> NoReturn:
    """Tell damage of the search index from damage of what it is made from.

    Messages are as they were, and the connection has read nothing wrong of them.
    """
    raise errors.SearchDamaged(
        f"statement {statement}: the search index of {path or 'DB'} is damaged ({error}). Messages "
        f"are as they were. Build it anew with `sessiondb search {path or 'DB'} --rebuild`."
    ) from error


def plain_result(value: Any, op: str) -> Any:
    """Return what a body returned. Refuse a coroutine, which would have to be awaited."""
    if isinstance(value, CoroutineType):
        value.close()
        raise TypeError(
            f"{op}: a transaction body must be a plain function, not a coroutine: "
            "nothing may wait inside a transaction"
        )
    return value


def reraise(error: apsw.Error, during: str, interrupted: str = "", path: str = "") -> NoReturn:
    """Raise SQLite's `error` as sessiondb's, so that no code above the engine needs apsw."""
    translated = translate(error, during, interrupted, path)
    if translated is error:
        raise error
    raise translated from error


def translate(error: apsw.Error, during: str, interrupted: str = "", path: str = "") -> Exception:
    """Return what sessiondb raises for SQLite's `error`.

    An error that is a bug of sessiondb is returned as it is, with a note.
    """
    message = str(error)
    match error:
        case apsw.ConstraintError():
            # SQLite says "UNIQUE constraint failed: entry.entry_no", and for a CHECK its name.
            rule = message.partition("constraint failed: ")[2] or message
            return errors.ConstraintFailed(
                f"{during}: the schema refused the change: {message}", constraint=rule
            )
        case apsw.FullError():
            return errors.StoreFull(
                f"{during}: the disk is full ({message}). Rolled back. Free space, then retry."
            )
        case apsw.CorruptError() | apsw.NotADBError():
            # SQLite also reports damage for a page that the kernel cannot read (EIO) in a
            # running statement.
            return errors.StoreDamaged(
                f"{during}: the database file {path or 'DB'} is damaged, or the disk could not "
                f"read it ({message}). If the system's log shows I/O errors, check the disk and "
                "retry. Otherwise stop the gateway, keep the file as it is, and run "
                f"`sessiondb salvage {path or 'DB'} NEW` to get out what can be read, or restore "
                "a backup."
            )
        case apsw.IOError():
            code = getattr(error, "extendedresult", "unknown")  # a VFS written in Python gives none
            return errors.StoreFailed(
                f"{during}: I/O error from the disk ({message}, SQLite code {code}). Rolled back. "
                "Check it, then retry."
            )
        case apsw.MismatchError():
            return errors.InvalidInput(
                f"{during}: a value has the wrong type ({message}). Nothing was changed."
            )
        case apsw.CantOpenError():
            return errors.StoreFailed(
                f"{during}: a file that SQLite needs cannot be opened ({message}). Rolled back. "
                "Check the folder, its permissions and the limit of open files (ulimit -n), then "
                "retry."
            )
        case apsw.ReadOnlyError():
            return errors.StoreFailed(
                f"{during}: the file can only be read at present ({message}). Rolled back. Check "
                "whether its file system was remounted read-only, then retry."
            )
        case apsw.BusyError() | apsw.LockedError() | apsw.ProtocolError():
            return errors.StoreBusy(
                f"{during}: another process holds a lock ({message}). Nothing was changed. Retry.",
                retry_after_ms=100,
            )
        case apsw.NoMemError():
            return errors.StoreFailed(
                f"{during}: SQLite could not get memory ({message}). Rolled back. "
                "Free some, then retry."
            )
        case apsw.InterruptError() if interrupted:
            return errors.ReadTooLong(f"{interrupted} (during {during})")
        case _:
            error.add_note(f"sessiondb: {during}")
            return error
