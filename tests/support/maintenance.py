"""Shared by the tests of maintenance: sessions to archive, a backend that dies, tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

import sessiondb
import sessiondb.sync
from sessiondb.maintenance import archive
from sessiondb.maintenance.retention_plan import DAY_MS, RetentionPolicy
from tests.support.core import reply, result, user

KEY = "agent:main:web:1"
# All tables but those of archives, and `instance`, which has a row for each opening.
TABLES = (
    "session",
    "binding",
    "foreign_id",
    "session_details",
    "named_details",
    "branch",
    "entry",
    "epoch",
    "compaction",
    "import_file",
    "quarantine",
    "turn",
    "inbox",
    "outbox",
)
ALL_TABLES = (*TABLES, "lane", "event", "event_cursor", "channel_pause", "archive", "archive_chunk")
# A policy that keeps nothing.
EVERYTHING = RetentionPolicy(max_sessions=0, idle_days=0)


class Killed(BaseException):
    """Stands for `kill -9`: no handler of the library catches it."""


class Dying:
    """A backend that dies before its next write, after this many."""

    def __init__(self, backend: Any, writes: int) -> None:
        self.backend = backend
        self.left = writes
        self.ops: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    async def step(self, fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
        if self.left == 0:
            raise Killed
        self.left -= 1
        self.ops.append(op)
        return await self.backend.step(fn, op=op, **options)


def dump(path: Path, *tables: str) -> dict[str, list[Any]]:
    """Return all rows of some tables, sorted."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
            for table in tables or TABLES
        }


async def eventful_session(
    db: sessiondb.SessionDB, key: str = KEY, *, length: int = 30
) -> sessiondb.Session:
    """Make a session with branches, a reset, committed and failed compactions, and two keys."""
    session = await db.session(key)
    for number in range(length):
        await session.append(
            user(f"question {number} \x00 é 😀"), idempotency_key=f"{key}:{number}"
        )
        await session.append(reply(f"answer {number}", calls=["c"], tokens=100 + number))
        await session.append(result("c", "x" * 50 * number))
    await session.append({"type": "session_info", "name": "a name"})
    async with session.compact(keep_recent_tokens=50) as job:
        await job.commit("what was said")
    await session.append(reply("after the compaction"))
    first = (await session.entries(limit=5))[4]
    await session.branch(first.entry_id)
    await session.append(user("another way"))
    await session.reset("new")
    await session.append(user("anew"))
    late = session.compact(trigger="manual", keep_recent_tokens=0)
    await session.append(reply("yes"))
    async with late as job:
        await db.fail_compaction(job.id, "it took too long")
    await db.unbind(key)
    await db.bind(key, session)
    await db.bind(key + ":other", session)
    return session


async def archive_session(
    db: sessiondb.SessionDB, session: sessiondb.Session, **options: Any
) -> Any:
    """Archive a session, and return its archive's row, or the reason why it was left alone."""
    number = session.ref.session_no
    archive_no, protected = await archive.begin(db.backend, number, "for the test", **options)
    assert (archive_no is None) != (protected is None)
    return protected if archive_no is None else await archive.advance(db.backend, archive_no)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def aged(
    db: sessiondb.SessionDB, name: str, days: float, *, agent: str = "main", size: int = 10
) -> sessiondb.Session:
    """Make a session that has not changed for this many days."""
    session = await db.session(f"agent:{agent}:web:{name}")
    await session.append(user("x" * size))
    await session.append(reply("yes"))
    await set_age(db, session, now_ms() - round(days * DAY_MS))
    return session


async def set_age(db: sessiondb.SessionDB, session: sessiondb.Session, ms: int) -> None:
    number = session.ref.session_no
    await db.write(
        "test.age",
        lambda tx: tx.run(
            "import_file.date_session", session_no=number, created_at_ms=None, updated_at_ms=ms
        ),
    )


async def retained(db: sessiondb.SessionDB, **limits: Any) -> dict[str, tuple[str, str, str]]:
    """Run retention, and return the action, outcome and reason of each decision.

    By the last part of the session's key, or by its id if it has no key.
    """
    names = {}
    async for info in db.sessions(with_ended=True):
        if info.keys:
            names[info.session_id] = info.keys[0].rpartition(":")[2]
    report = await db.gc(RetentionPolicy(**limits), every=True)
    assert report.ok
    assert (await db.verify()).findings == ()
    return {
        names.get(decision.session_id, decision.session_id): (
            decision.action,
            decision.outcome,
            decision.reason,
        )
        for decision in report.decisions
    }


def removed(decisions: dict[str, tuple[str, str, str]]) -> list[str]:
    """Return the sessions that went."""
    return sorted(name for name, (_, outcome, _) in decisions.items() if outcome == "done")
