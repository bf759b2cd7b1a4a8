"""The transaction handles: void after their body, named statements, rows, typed errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessiondb.backend import load_statements
from sessiondb.errors import ConstraintFailed, StoreDamaged
from sessiondb.sqlite import transaction
from sessiondb.sqlite.transaction import Prepared
from tests.support.engine import count, insert, opened

pytestmark = pytest.mark.anyio


async def test_a_handle_is_void_after_its_body(tmp_db: Path) -> None:
    kept: list[Any] = []
    async with opened(tmp_db) as backend:
        await backend.write(kept.append, op="keep")
        await backend.read(kept.append, op="keep")
        for tx in kept:
            with pytest.raises(RuntimeError, match="the transaction has ended"):
                tx.all("test.programs")
        with pytest.raises(RuntimeError, match="the transaction has ended"):
            kept[0].run("test.insert", program="stowaway")


async def test_an_async_body_is_refused(tmp_db: Path) -> None:
    async def body(tx: Any) -> None:
        tx.run("test.insert", program="x")

    async with opened(tmp_db) as backend:
        with pytest.raises(TypeError, match="must be a plain function"):
            await backend.write(body, op="append")
        assert await count(backend, "x") == 0


async def test_a_broken_rule_is_named_and_the_body_may_continue(tmp_db: Path) -> None:
    def body(tx: Any) -> str:
        tx.run("test.insert_at", instance_no=50, program="first")
        try:
            tx.run("test.insert_at", instance_no=50, program="second")
        except ConstraintFailed as error:
            return str(error.constraint)
        return "accepted"

    async with opened(tmp_db) as backend:
        assert await backend.write(body, op="append") == "instance.instance_no"
        assert (await count(backend, "first"), await count(backend, "second")) == (1, 0)
        with pytest.raises(ConstraintFailed, match=r"test\.insert_at.*instance\.instance_no"):
            await backend.write(
                lambda tx: tx.run("test.insert_at", instance_no=50, program="x"), op="append"
            )


async def test_statements_are_checked(tmp_db: Path) -> None:
    async with opened(tmp_db) as backend:
        with pytest.raises(LookupError, match=r"no statement named 'test\.absent'"):
            await backend.read(lambda tx: tx.all("test.absent"), op="read")
        with pytest.raises(TypeError, match=r"test\.count has no parameter programme"):
            await backend.read(
                lambda tx: tx.all("test.count", program="x", programme="x"), op="read"
            )
        with pytest.raises(KeyError, match="program"):
            await backend.read(lambda tx: tx.all("test.count"), op="read")
        with pytest.raises(ValueError, match=r"test\.nameless: a column needs a name"):
            await backend.read(lambda tx: tx.all("test.nameless"), op="read")


async def test_rows_have_names_tuples_do_not_and_run_counts_changes(tmp_db: Path) -> None:
    def body(tx: Any) -> Any:
        first = tx.first("test.insert_returning", program="a")
        assert tx.run("test.insert_returning", program="b") == 1
        assert tx.run("test.rename", before="a", after="b") == 1
        assert tx.run("test.rename", before="b", after="c") == 2
        assert tx.run("test.rename", before="nobody", after="c") == 0
        assert tx.first("test.count", program="nobody").n == 0
        return (
            first.program,
            first.instance_no,
            tx.tuples("test.programs"),
            tx.all("test.programs")[1].program,
        )

    async with opened(tmp_db) as backend:
        program, number, tuples, last = await backend.write(body, op="append")
        assert (program, tuples, last) == ("a", [("c",), ("c",)], "c")
        assert number > 1


@pytest.mark.parametrize(
    ("allowed", "run", "met"),
    [
        ((1, 1), lambda tx: tx.run("test.rename", before="twin", after="x"), 2),
        ((1, 1), lambda tx: tx.run("test.rename", before="nobody", after="x"), 0),
        ((0, 1), lambda tx: tx.run("test.rename", before="twin", after="x"), 2),
        ((0, 1), lambda tx: tx.all("test.rename_returning", before="twin", after="x"), 2),
        ((1, 1), lambda tx: tx.first("test.rename_returning", before="nobody", after="x"), 0),
        ((0, 1), lambda tx: tx.tuples("test.rename_returning", before="twin", after="x"), 2),
    ],
    ids=["two", "none", "two_not_one_or_none", "all", "first", "tuples"],
)
async def test_a_statement_is_held_to_its_number_of_rows(
    tmp_db: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: tuple[int, float],
    run: Callable[[Any], Any],
    met: int,
) -> None:
    rename = transaction.statements()["test.rename"].sql
    for name, sql in {
        "test.rename": rename,
        "test.rename_returning": f"{rename} RETURNING program",
    }.items():
        monkeypatch.setitem(transaction.statements(), name, Prepared(name, sql, allowed))
    async with opened(tmp_db) as backend:
        for program in ("twin", "twin", "other"):
            await backend.write(insert(program), op="append")
        message = rf"statement test\.rename.* met {met} in {tmp_db}.*Nothing was changed"
        with pytest.raises(StoreDamaged, match=message):
            await backend.write(run, op="rename")
        assert [await count(backend, one) for one in ("twin", "other", "x")] == [2, 1, 0]
        assert await backend.write(
            lambda tx: tx.run("test.rename", before="other", after="x"), op="rename"
        )
        assert [await count(backend, one) for one in ("twin", "other", "x")] == [2, 0, 1]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("-- name: end\n-- End it.\nUPDATE session SET name = 'x';\n", "This one says nothing"),
        ("-- name: end, a row\n-- End it.\nDELETE FROM lane;\n", "This one says a row"),
        ("-- name: get, one row\n-- Get it.\nSELECT 1 AS one;\n", "This one says one row"),
    ],
)
def test_a_statement_says_how_many_rows_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, says: str
) -> None:
    package = tmp_path / tmp_path.name  # a name that no other test imports
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "toy.sql").write_text(sql)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=rf"statement toy\.\w+: .*{says}"):
        load_statements(package.name)


def toy_package(folder: Path, monkeypatch: pytest.MonkeyPatch, sql: str) -> str:
    """Make a package with one file of statements. Return its name, which no other test imports."""
    package = folder / f"toys_of_{folder.name}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "notes.txt").write_text("-- name: not_sql\n")
    (package / "toy.sql").write_text(sql)
    monkeypatch.syspath_prepend(folder)
    return package.name


def test_a_statement_has_its_name_its_promise_and_its_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = toy_package(
        tmp_path,
        monkeypatch,
        """-- Statements of the test.

-- name: get
-- Get it.
SELECT 1 AS one;

-- name: end, one row or none
-- End it,
-- once.
UPDATE session SET name = 'x'
WHERE name = ';';

-- name: sweep, any rows
-- Sweep.
DELETE FROM lane;
""",
    )
    found = load_statements(name)
    assert {key: (one.name, one.promise, one.changes) for key, one in found.items()} == {
        "toy.get": ("toy.get", "Get it.", None),
        "toy.end": ("toy.end", "End it, once.", (0, 1)),
        "toy.sweep": ("toy.sweep", "Sweep.", (0, math.inf)),
    }
    assert found["toy.end"].sql == "UPDATE session SET name = 'x'\nWHERE name = ';'"


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("-- name: get\nSELECT 1 AS one;\n", "no comment line under its name, or no semicolon"),
        ("-- name: get\n-- Get it.\nSELECT 1 AS one\n", "or no semicolon"),
        ("-- name: a\n-- A.\nSELECT 1;\n-- name: a\n-- A.\nSELECT 2;\n", "statements are named a"),
    ],
)
def test_a_file_of_statements_holds_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, says: str
) -> None:
    name = toy_package(tmp_path, monkeypatch, sql)
    with pytest.raises(ValueError, match=says):
        load_statements(name)
