"""What the soak found, each as small as it gets."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

import sessiondb
import sessiondb.sqlite.queries
import sessiondb.sync
from core_support import query, texts, user
from sessiondb.backend import load_statements
from sessiondb.retention import RetentionPolicy
from sessiondb.sqlite.transaction import Prepared

STATEMENTS = load_statements(sessiondb.sqlite.queries.__name__)
EVERYTHING = RetentionPolicy(max_sessions=0, idle_days=0)


@pytest.mark.anyio
async def test_an_archive_can_be_restored_although_new_sessions_have_begun_since(tmp_db: Path, anyio_backend: str) -> None:
    async with sessiondb.open(tmp_db) as db:
        first = await db.session("agent:main:web:1")
        await first.append(user("hello"))
        assert (await db.gc(EVERYTHING)).count("done") == 1
        second = await db.session("agent:main:web:2")
        await second.append(user("good morning"))
        await db.restore(first.id)
        assert [texts(await first.context()), texts(await second.context())] == [["hello"], ["good morning"]]
        assert (await db.verify()).ok
    assert query(tmp_db, "SELECT count(DISTINCT branch_no) FROM branch") == [2]


# Instructions of SQLite's machine; a lookup takes some dozens, a row that is looked at and left some five to ten.
LOOKUP_STEPS_MAX = 2_000
CLOSED = 5_000


@pytest.mark.xfail(reason="instance rows are never deleted, and no index finds the few that are open or unclean", strict=True)
@pytest.mark.parametrize("statement", ["resume.open_instances", "resume.unclean_starts"])
def test_a_start_does_not_read_the_registrations_of_processes_that_ended_long_ago(tmp_db: Path, statement: str) -> None:
    with sessiondb.sync.open(tmp_db):
        pass
    with closing(apsw.Connection(str(tmp_db))) as connection:
        connection.execute(
            """WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
               INSERT INTO instance (host, boot_id, pid, pid_started, program, opened_at_ms, closed_at_ms)
               SELECT 'h', 'b', i, 0, 'sessiondb', i, i + 1 FROM n""",
            (CLOSED,),
        ).fetchall()
        prepared = STATEMENTS[statement]
        values = dict.fromkeys(Prepared(statement, prepared.sql).parameters, 0) | {"limit": 50}
        connection.execute(prepared.sql, values).fetchall()  # prepared, and the schema is known
        steps = 0

        def count() -> bool:
            nonlocal steps
            steps += 1
            return False

        connection.set_progress_handler(count, 1)
        connection.execute(prepared.sql, values).fetchall()
        connection.set_progress_handler(None)
    assert 0 < steps < LOOKUP_STEPS_MAX, f"{steps:,} steps with {CLOSED:,} processes that ended"
