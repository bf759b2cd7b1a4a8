"""What an operation costs, counted in pages, rows and preparations: the reasons behind the times in benchmarks/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
from sessiondb import compaction
from sessiondb.backend import Row
from sessiondb.entries import draft_entry
from sessiondb.limits import CUT_SCAN_ROWS_FIRST
from sessiondb.sqlite.connection import connect_reader, connect_visitor, connect_writer

PAGE_BYTES = 4096
QUESTION = {"role": "user", "content": "a question of ordinary length " * 10}
ANSWER = {"role": "assistant", "content": "an answer of ordinary length " * 10}


@pytest.mark.anyio
async def test_an_append_writes_six_pages_at_most_on_average(tmp_db: Path) -> None:
    """Entry, its index by id, the session's row and its index by update; now and then a new page and what names it."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:costs:1")
        await session.append(QUESTION)
        before = (await db.stats())["writer"]["wal_bytes"]
        for _ in range(100):
            await session.append(QUESTION)
        pages = ((await db.stats())["writer"]["wal_bytes"] - before) / PAGE_BYTES / 100
    assert 3 < pages <= 6


class CountingTx:
    """A transaction that counts the rows each statement returned."""

    def __init__(self, tx: Any) -> None:
        self._tx = tx
        self.rows: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    def all(self, statement: str, /, **params: Any) -> list[Row]:
        found: list[Row] = self._tx.all(statement, **params)
        self.rows[statement] = self.rows.get(statement, 0) + len(found)
        return found


@pytest.mark.anyio
async def test_beginning_a_compaction_reads_about_what_it_keeps_and_nothing_of_the_history(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:costs:1")
        await session.append_many([QUESTION, ANSWER] * 300)

        def begin(tx: Any) -> int:
            counting = CountingTx(tx)
            compaction.begin(counting, session.ref.session_no, trigger="threshold", keep_recent_tokens=500, timeout_ms=60_000)
            return counting.rows["compaction.cut_page"]

        assert await db.write("begin", begin) == CUT_SCAN_ROWS_FIRST


@pytest.mark.anyio
async def test_no_connection_prepares_a_statement_anew_because_a_parameter_changed(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db):
        connections = [
            connect_writer(str(tmp_db), "full", 1.0, is_new=lambda _: False),
            connect_reader(str(tmp_db)),
            connect_visitor(str(tmp_db)),
        ]
        stable = [connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) for connection in connections]
        for connection in connections:
            connection.close()
    assert stable == [1, 1, 1]


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    script = """if True:
        import os
        from sessiondb.entries import new_id
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, new_id().encode())
            os._exit(0)
        os.wait()
        print(os.read(reader, 16).decode(), new_id())
    """
    child, parent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert len(child) == len(parent) == 16
    assert child != parent


@pytest.mark.parametrize("content", ["plain text", 'it says "message" and {"message": {"role": "user"}}', '"message":{'])
def test_a_message_that_speaks_of_messages_is_still_a_message(content: str) -> None:
    """A message is looked into as an entry only when its text could be one; looking must not change what it is."""
    draft = draft_entry({"role": "user", "content": content}, now_ms=0)
    assert (draft.type, draft.role) == ("message", "user")
