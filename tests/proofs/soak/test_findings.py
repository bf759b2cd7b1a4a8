"""What the soak found, each as small as it gets."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import sessiondb
import sessiondb.sqlite.queries
import sessiondb.sync
from sessiondb.backend import load_statements
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.sqlite.schema import schema_text
from sessiondb.sqlite.transaction import Prepared
from tests.support.core import query, texts, user
from tests.support.transfer import by_name, transcript, write

STATEMENTS = load_statements(sessiondb.sqlite.queries.__name__)
EVERYTHING = RetentionPolicy(max_sessions=0, idle_days=0)


@pytest.mark.anyio
async def test_an_archive_can_be_restored_beside_newer_sessions(
    tmp_db: Path, anyio_backend: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        first = await db.session("agent:main:web:1")
        await first.append(user("hello"))
        assert (await db.gc(EVERYTHING)).count("done") == 1
        second = await db.session("agent:main:web:2")
        await second.append(user("good morning"))
        await db.unarchive(first.id)
        assert [texts(await first.context()), texts(await second.context())] == [
            ["hello"],
            ["good morning"],
        ]
        assert (await db.verify()).ok
    assert query(tmp_db, "SELECT count(DISTINCT branch_no) FROM branch") == [2]


# Instructions of SQLite's machine. A lookup takes some dozens, a row that is looked at
# and left some five to ten.
LOOKUP_STEPS_MAX = 2_000
OLD = 5_000

ENDED_PROCESSES = """
    WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    INSERT INTO instance (host, boot_id, pid, pid_started, program, opened_at_ms, closed_at_ms)
    SELECT 'h', 'b', i, 0, 'sessiondb', i, i + 1 FROM n"""
DONE_MESSAGES = """
    WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    INSERT INTO inbox (channel, event_id, session_no, lane, state, accepted_at_ms, available_at_ms,
      payload)
    SELECT 's', i, 1 + i % 10, 'main', 'done', i, i, '{}' FROM n"""


def steps_of(path: Path, statement: str, history: str, **values: int) -> int:
    """Return how many instructions a statement takes behind a history of so many rows.

    Nothing stays changed.
    """
    with sessiondb.sync.open(path):
        pass
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA foreign_keys = off")
        connection.config(
            apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1
        )  # as the engine's connections: the plan depends on no value
        connection.execute(history, (OLD,)).fetchall()
        prepared = Prepared(statement, STATEMENTS[statement].sql)
        args = dict.fromkeys(prepared.parameters, 0) | values
        steps = 0

        def count() -> bool:
            nonlocal steps
            steps += 1
            return False

        with connection:
            connection.execute(prepared.sql, args).fetchall()  # prepared, and the schema is known
            connection.set_progress_handler(count, 1)
            connection.execute(prepared.sql, args).fetchall()
            connection.set_progress_handler(None)
        return steps


@pytest.mark.parametrize("statement", ["recovery.open_instances", "recovery.unclean_starts"])
def test_a_start_does_not_read_processes_that_ended_long_ago(tmp_db: Path, statement: str) -> None:
    steps = steps_of(tmp_db, statement, ENDED_PROCESSES, limit=50)
    assert 0 < steps < LOOKUP_STEPS_MAX, f"{steps:,} steps with {OLD:,} processes that ended"


def test_an_end_does_not_read_messages_done_long_ago(tmp_db: Path) -> None:
    steps = steps_of(tmp_db, "inbox.interrupted_before", DONE_MESSAGES, session_no=3, inbox_no=OLD)
    assert 0 < steps < LOOKUP_STEPS_MAX, f"{steps:,} steps with {OLD:,} messages that are done"


def test_no_statement_walks_a_table_by_number_without_a_limit() -> None:
    """A plan that says SEARCH may still read all rows before a number, or after one."""
    found = []
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(schema_text()).fetchall()
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        for name, statement in STATEMENTS.items():
            prepared = Prepared(name, statement.sql)
            rows = connection.execute(
                "EXPLAIN QUERY PLAN " + prepared.sql, dict.fromkeys(prepared.parameters)
            ).fetchall()
            walks = [
                row[3]
                for row in rows
                if ("rowid<?)" in row[3] and "rowid>? AND" not in row[3]) or "(rowid>?)" in row[3]
            ]
            if walks and "LIMIT" not in prepared.sql:
                found.append(f"{name}: {walks}")
    assert found == []


@pytest.mark.anyio
async def test_a_restore_binds_the_key_that_an_index_names(
    tmp_db: Path, tmp_path: Path, anyio_backend: str
) -> None:
    folder = write(tmp_path / "sessions", {"s-1.jsonl": transcript(3)})
    index = {"agent:main:web:1": {"sessionId": "s-1", "sessionFile": "s-1.jsonl", "updatedAt": 1}}
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(folder)
        assert (await db.gc(EVERYTHING)).count("done") == 1
        write(folder, {"sessions.json": json.dumps(index).encode()})
        notes = by_name(await db.import_path(folder))["sessions.json"].notes
        assert notes == (
            "agent:main:web:1 is not bound: its session is archived; restoring it binds the key",
        )
        await db.unarchive("s-1")
        await db.import_path(folder)
    assert query(tmp_db, "SELECT session_key FROM binding") == ["agent:main:web:1"]
