"""Cases of named statements in the populated world: what they change, and what they return.

Each file of `tests/sqlite/queries/` has such tables, for the statements of the `.sql` file
of that name:

* `Change`: a rule, and every row that it changes. Or the statement by itself, where the rule
  takes several transactions or more than the world has.
* `Guard`: a statement that changes one row if that row is in the right state. It is run with
  the key of every row of its table.
* `Page`: a statement that returns a page. It is read with pages of one row and of two.
* `Read`: any other statement that returns rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sessiondb.backend import AnyStatement
from tests.support.world import Changes, Recorder, Row, Rows, World

Params = Mapping[str, Any] | Callable[[World], Mapping[str, Any]]
Given = Callable[[World, Recorder], object]
ROWS_MAX = 500


def nothing(_world: World, _tx: Recorder) -> None:
    """Leave the world as it is."""


def without(table: str) -> Given:
    """Return the loss of a table's rows. What points at them stays, as in a damaged file."""

    def lose(world: World, _tx: Recorder) -> None:
        world.connection.execute("PRAGMA defer_foreign_keys = on")
        world.connection.execute(f"DELETE FROM {table}")  # a table's name, from a case

    return lose


def _params(given: Params, world: World) -> dict[str, Any]:
    return dict(given(world) if callable(given) else given)


def run(statement: str, **params: Any) -> Callable[[World, Recorder], object]:
    """Return a rule that is the statement by itself. The label of a row stands for its number."""

    def value(world: World, given: Any) -> Any:
        is_label = isinstance(given, str) and given in world.before.by_label
        return world.no(given) if is_label else given

    return lambda world, tx: tx.run(
        AnyStatement(statement), **{name: value(world, given) for name, given in params.items()}
    )


@dataclass(frozen=True)
class Change:
    """A rule that runs a statement, and every row that is another one afterwards."""

    statement: str
    what: str
    rule: Callable[[World, Recorder], object]
    rows: Changes | Callable[[World], Changes]

    def __str__(self) -> str:
        return f"{self.statement}: {self.what}"

    def made(self, world: World) -> Changes:
        """Run the rule, and return what changed."""
        with world.undone() as tx:
            self.rule(world, tx)
            assert self.statement in world.ran, f"the rule does not run {self.statement}"
            return world.changed()

    def expected(self, world: World) -> Changes:
        """Return what `made` must return."""
        return self.rows(world) if callable(self.rows) else self.rows


@dataclass(frozen=True)
class Guard:
    """A statement that changes the row of its key, if `holds` is true of that row."""

    statement: str
    table: str
    params: Callable[[Row], Mapping[str, Any]]
    holds: Callable[[Row], bool]
    fences: tuple[str, ...] = ()
    """Parameters that must agree with the row: with any other value nothing changes."""

    def __str__(self) -> str:
        return self.statement

    def found(self, world: World) -> dict[str, list[str]]:
        """Run the statement with the key of each row. Return the rows that changed, by row."""
        found: dict[str, list[str]] = {}
        for label, row in world.rows(self.table):
            for what, params in self._tries(label, row):
                with world.undone() as tx:
                    if tx.run(AnyStatement(self.statement), **params):
                        found[what] = list(world.changed())
        return found

    def _tries(self, label: str, row: Row) -> Sequence[tuple[str, dict[str, Any]]]:
        params = dict(self.params(row))
        tries = [(label, params)]
        for fence in self.fences:
            value = params[fence]
            other = f"{value}?" if isinstance(value, str) else (value or 0) + 1
            tries.append((f"{label} with another {fence}", params | {fence: other}))
        return tries

    def expected(self, world: World) -> dict[str, list[str]]:
        """Return what `found` must return."""
        return {label: [label] for label, row in world.rows(self.table) if self.holds(row)}


@dataclass(frozen=True)
class Page:
    """A statement that returns rows a page at a time, and all of them in their order."""

    statement: str
    params: Params
    cursor: Callable[[Any], Mapping[str, Any]]
    """The parameters of the page behind a row."""
    column: str | tuple[str, ...]
    rows: Sequence[Any] | Callable[[World], Sequence[Any]]
    """This column's value in each row, or a tuple of these columns' values."""
    key: str | None = None
    given: Given = nothing
    """Rows that this walk alone needs, or that it must do without."""

    def __str__(self) -> str:
        return f"{self.statement} {self.key or ''}".strip()

    def expected(self, world: World) -> list[Any]:
        """Return what `read` must return, whatever the limit."""
        return list(self.rows(world) if callable(self.rows) else self.rows)

    def read(self, world: World, limit: int) -> list[Any]:
        """Read all pages. A reader of a page that is not full stops, as the rules do."""
        found: list[Any] = []
        params = _params(self.params, world)
        with world.undone() as tx:
            self.given(world, tx)
            while len(found) < ROWS_MAX:
                rows = tx.all(AnyStatement(self.statement), **params, limit=limit)
                assert len(rows) <= limit
                found += [self._shown(world, row) for row in rows]
                if len(rows) < limit:
                    break
                params |= self.cursor(rows[-1])
        return found

    def _shown(self, world: World, row: Any) -> Any:
        names = (self.column,) if isinstance(self.column, str) else self.column
        values = tuple(shown(world.before, row, names).values())
        return values[0] if isinstance(self.column, str) else values


@dataclass(frozen=True)
class Read:
    """A statement that returns rows, and what they hold in the columns that are named here."""

    statement: str
    what: str
    params: Params
    rows: Sequence[Row] | Callable[[World], Sequence[Row]]
    given: Given = nothing
    """Rows that this statement alone needs."""

    def __str__(self) -> str:
        return f"{self.statement}: {self.what}"

    def expected(self, world: World) -> list[Row]:
        """Return what `found` must return."""
        return list(self.rows(world) if callable(self.rows) else self.rows)

    def found(self, world: World) -> list[Row]:
        """Return the named columns of every row."""
        with world.undone() as tx:
            self.given(world, tx)
            rows = tx.all(AnyStatement(self.statement), **_params(self.params, world))
        expected = self.expected(world)
        names = expected[0].keys() if expected else ()
        return [shown(world.before, row, names) for row in rows]


def shown(rows: Rows, row: Any, names: Any) -> Row:
    """Return columns of a row as tests write them."""
    return {name: rows.shown(name, _value(row, name)) for name in names}


def _value(row: Any, column: str) -> Any:
    return getattr(row, column)


def lost(page: Page, table: str, column: str) -> Page:
    """Return a walk that goes on when the rows that its own point at are lost.

    `column` is found in these rows, and is NULL now.
    """
    key = page.column[0] if isinstance(page.column, tuple) else page.column

    def rows(world: World) -> list[Any]:
        found = page.expected(world)
        return [(row[0] if isinstance(row, tuple) else row, None) for row in found]

    return replace(
        page, column=(key, column), rows=rows, key=f"without any {table}", given=without(table)
    )


def set_columns(label: str, **columns: Any) -> Given:
    """Return the change of columns of a row, by plain SQL. The label of a row is its number."""

    def change(world: World, _tx: Recorder) -> None:
        world.connection.execute("PRAGMA defer_foreign_keys = on")
        table, _, _ = label.partition(" ")
        values = [
            world.no(value) if isinstance(value, str) and value in world.before.by_label else value
            for value in columns.values()
        ]
        assigned = ", ".join(f"{column} = ?" for column in columns)  # names, from a case
        world.connection.execute(
            f"UPDATE {table} SET {assigned} WHERE {table}_no = ?", (*values, world.no(label))
        )

    return change
