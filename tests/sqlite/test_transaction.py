"""The transaction handles: void after their body, named statements, rows, typed errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sessiondb.errors import ConstraintFailed
from tests.support.engine import count, opened

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
