"""`verify` compares what a session notes about the order of its context with its texts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
from sessiondb.models import Finding
from tests.support.core import reply, result, user

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

Item = dict[str, Any]
ORDERED = [user("q"), reply("", calls=["x"]), result("x"), reply("a")]
LATE = [user("q"), reply("", calls=["x"]), user("and?"), result("x"), reply("a")]
OPEN = [user("q"), reply("", calls=["x", "y"]), result("x")]


async def noted(path: Path, items: list[Item], values: str, *, forked: bool) -> list[Finding]:
    """Return what is found after the note of one of two equal sessions was changed."""
    async with sessiondb.open(path) as db:
        for name in ("s", "other"):
            session = await db.create_session(f"{name}-origin" if forked else name)
            await session.append_many(items)
            if forked:
                fork = await session.fork(session_id=name)
                await fork.append({"type": "custom", "customType": "note"})
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"UPDATE session SET {values} WHERE session_id = 's'")
    async with sessiondb.open(path) as db:
        return list((await db.verify()).findings)


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize(
    ("items", "values", "says"),
    [
        (LATE, "ordered_from_no = 0", "entry 1/3 does not stand where a prompt may have it"),
        (OPEN, "open_marks = ''", "marks the calls '' as open at its head"),
        (ORDERED, "open_marks = 'aa'", "marks the calls 'aa' as open at its head"),
        (OPEN, "open_marks = NULL", None),
        (OPEN, "open_marks = 'unknown'", None),
        (LATE, "ordered_from_no = NULL", None),
        (ORDERED, "ordered_from_no = head_no + 1", None),
        (ORDERED, "ordered_from_no = head_no + 2", "which lies behind its head"),
    ],
)
async def test_a_wrong_note_is_found_and_a_modest_one_is_not_wrong(
    tmp_db: Path, items: list[Item], values: str, says: str | None, forked: bool
) -> None:
    found = await noted(tmp_db, items, values, forked=forked)
    if says is None:
        assert found == []
        return
    assert [(one.check, one.session_id, one.severity) for one in found] == [("order", "s", "error")]
    assert says in found[0].message


async def test_a_note_is_right_whatever_became_of_the_context(tmp_db: Path) -> None:
    """A reset, an undo, a branch and a fork among calls that are open."""
    async with sessiondb.open(tmp_db) as db:
        for name in ("s", "t"):
            session = await db.create_session(name)
            receipts = await session.append_many([*LATE, *OPEN])
            foreign = {"type": "compaction", "summary": "s", "firstKeptEntryId": "nowhere"}
            await session.append({**foreign, "tokensBefore": 1})
            await session.append(user("more"))
            assert (await db.verify()).findings == ()
            await session.undo_compaction()
            fork = await session.fork()
            await fork.append(result("y"))
            await session.reset(keep_from=receipts[-1].entry_id)
            await session.append(result("y"))
            assert (await db.verify()).findings == ()
            await session.branch(receipts[4].entry_id)
            await session.append(user("again"))
            await fork.reset()
            await fork.append_many(OPEN)
            assert (await db.verify()).findings == ()


async def test_it_costs_a_quick_check_nothing(tmp_db: Path) -> None:
    await noted(tmp_db, LATE, "ordered_from_no = 0", forked=False)
    async with sessiondb.open(tmp_db) as db:
        assert (await db.verify(deep=False)).findings == ()
