"""A session goes into its archive and comes back exactly as it was, however often the process is killed on the way."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessiondb
import sessiondb.sync
from sessiondb.batching import BatchSize
from sessiondb.errors import (
    InvalidInput,
    NotFound,
    SessionArchived,
    SessionEnded,
    StoreBusy,
    StoreDamaged,
)
from sessiondb.limits import ARCHIVE_CHUNK_ROWS, STEP_BYTES, STEP_MS, STEP_ROWS, STEP_ROWS_MIN
from sessiondb.maintenance import archive, archive_rows, retention
from sessiondb.maintenance.archive_format import ENTRY
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.transcript.paths import entry_number
from tests import ROOT
from tests.support.core import change, query, reply, result, texts, user

KEY = "agent:main:web:1"
# Whatever is not about the archive itself; `instance` has a row more for each opening.
TABLES = (
    "session",
    "binding",
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
EVERYTHING = RetentionPolicy(max_sessions=0, idle_days=0)
DAY_MS = 86_400_000


class Killed(BaseException):
    """Stands for kill -9: no handler of the library catches it."""


class Dying:
    """A backend of which nothing is left after so many writes."""

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
    """Return the content of tables, whole."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
            for table in tables or TABLES
        }


async def a_life(db: sessiondb.SessionDB, key: str = KEY, *, length: int = 30) -> sessiondb.Session:
    """Make a session to which everything has happened."""
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


async def put_away(db: sessiondb.SessionDB, session: sessiondb.Session, **options: Any) -> Any:
    archive_no, held = await archive.begin(
        db.backend, session.ref.session_no, "for the test", **options
    )
    assert (archive_no is None) != (held is None)
    return held if archive_no is None else await archive.advance(db.backend, archive_no)


@pytest.mark.anyio
async def test_archiving_and_restoring_leaves_every_row_of_every_table_as_it_was(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db)
        context = await session.context()
        await a_life(db, "agent:main:web:2", length=3)
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        row = await put_away(db, session := await db.session_by_id(session.id))
        assert (row.state, row.finished_at_ms is not None) == ("archived", True)
        assert (await db.verify()).findings == ()
        assert [info.session_id async for info in db.sessions()] != []
    during = dump(tmp_db)
    low = session.ref.session_no << 32
    assert [entry for entry in during["entry"] if entry[0] >> 32 == session.ref.session_no] == []
    assert [entry for entry in before["entry"] if entry[0] >> 32 != low >> 32] == during["entry"]
    assert during["compaction"] == before["compaction"]
    async with sessiondb.open(tmp_db) as db:
        restored = await db.restore(session.id[:12])
        assert (restored.session_id, restored.keys_bound, restored.keys_taken) == (
            session.id,
            (KEY, KEY + ":other"),
            (),
        )
        assert (await db.verify()).findings == ()
        assert await (await db.session(KEY)).context() == context
    assert dump(tmp_db) == before
    assert query(tmp_db, "SELECT count(*) FROM archive_chunk") == [0]


@pytest.mark.anyio
async def test_an_archived_session_says_that_it_is_one_and_how_to_get_it_back(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
        await put_away(db, session)

        async def compact() -> None:
            async with session.compact():
                pytest.fail("there is nothing to compact")

        for refused in (
            session.context,
            session.entries,
            session.tail,
            session.arrivals,
            session.epochs,
            session.fork,
            session.reset,
            session.undo_compaction,
            compact,
            lambda: session.append(user("one more")),
            lambda: session.branch(None),
            lambda: db.bind("agent:main:web:9", session),
            lambda: session.context(epoch=0),
        ):
            with pytest.raises(SessionEnded) as caught:
                await refused()
            assert (type(caught.value), caught.value.session_id) == (SessionArchived, session.id)
            assert f"sessiondb restore DB {session.id}" in str(caught.value)
        assert (await session.info()).entries > 0


@pytest.mark.anyio
async def test_a_key_of_an_archived_session_begins_a_new_one_and_keeps_it_after_the_restore(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
        await put_away(db, session)
        accepted = await db.accept("web", "1", KEY, user("hello again"))
        assert accepted.session_id != session.id
        restored = await db.restore(session.id)
        assert (restored.keys_bound, restored.keys_taken) == ((KEY + ":other",), (KEY,))
        assert (await db.session(KEY)).id == accepted.session_id
        assert (await db.session(KEY + ":other")).id == session.id
        await (await db.session_by_id(session.id)).append(user("it goes on"))
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_summary_that_comes_when_its_session_is_archived_still_gets_its_answer(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
        [lost] = [
            info.compaction_id async for info in db.compactions(session) if info.state == "failed"
        ]
        [done] = [
            info.compaction_id
            async for info in db.compactions(session)
            if info.state == "committed"
        ]
        await put_away(db, session)
        late = await db.commit_compaction(lost, "far too late")
        assert (late.outcome, late.reason) == ("superseded", "the session has ended")
        assert await db.commit_compaction(lost, "again") == late
        assert (await db.commit_compaction(done, "again")).outcome == "committed"
        await db.restore(session.id)
        assert await db.commit_compaction(lost, "again") == late
        assert (await db.verify()).findings == ()


# -- interruptions ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_killed_after_any_write_the_database_is_whole_and_the_next_run_ends_what_was_begun(
    tmp_path: Path,
) -> None:
    ops: list[str] = []
    for writes in range(200):
        path = tmp_path / f"{writes}.db"
        async with sessiondb.open(path) as db:
            session = await a_life(db, length=4)
        before = dump(path)
        async with sessiondb.open(path) as db:
            dying = Dying(db.backend, writes)
            try:
                await retention.gc(dying, EVERYTHING)
                finished = True
            except Killed:
                finished = False
        async with sessiondb.open(path) as db:
            assert (await db.verify()).findings == (), (writes, dying.ops)
            report = await retention.gc(db.backend, EVERYTHING)
            ended = report.sessions - report.kept + report.resumed_archives
            assert (report.ok, ended) == (True, int("archive.finish" not in dying.ops)), (
                writes,
                dying.ops,
            )
            assert query(path, "SELECT state, finished_at_ms IS NULL FROM archive") == [
                ("archived", 0)
            ]
            assert query(path, "SELECT count(*) FROM entry") == [0]
            assert (await db.verify()).findings == ()
            await db.restore(session.id)
        assert dump(path) == before, writes
        if finished:
            break
        ops = dying.ops
    else:
        pytest.fail("it never came to its end")
    assert {
        "archive.begin",
        "archive.chunk",
        "archive.complete",
        "archive.release",
        "archive.delete",
        "archive.finish",
    } <= set(ops)


@pytest.mark.anyio
async def test_killed_after_any_write_of_a_restore_it_goes_on_when_asked_again_or_with_the_next_run(
    tmp_path: Path,
) -> None:
    for writes in range(200):
        path = tmp_path / f"{writes}.db"
        async with sessiondb.open(path) as db:
            session = await a_life(db, length=4)
        before = dump(path)
        async with sessiondb.open(path) as db:
            await put_away(db, session)
            dying = Dying(db.backend, writes)
            try:
                await archive.restore(dying, session.ref.session_no)
                finished = True
            except Killed:
                finished = False
        async with sessiondb.open(path) as db:
            assert (await db.verify()).findings == (), (writes, dying.ops)
            is_back = query(path, "SELECT count(*) FROM session WHERE archived_at_ms IS NULL") == [
                1
            ]
            if writes % 2 and "restore.begin" in dying.ops:
                await retention.finish(db.backend)
            elif not is_back:
                await db.restore(session.id)
            await retention.finish(db.backend)
            assert query(path, "SELECT count(*) FROM archive_chunk") == [0]
        assert dump(path) == before, (writes, dying.ops)
        if finished:
            break
    else:
        pytest.fail("it never came to its end")
    assert {"restore.begin", "restore.rows", "restore.finish", "archive.forget"} <= set(dying.ops)


@pytest.mark.anyio
@pytest.mark.parametrize("writes", [1, 2, 4, 5, 6, 7])
async def test_an_archive_that_was_begun_can_be_restored_at_any_point(
    tmp_db: Path, writes: int
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=4)
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(Killed):
            await retention.gc(Dying(db.backend, writes), EVERYTHING)
        await db.restore(session.id)
        assert (await db.verify()).findings == ()
    assert dump(tmp_db) == before


CHILD = """
import os, sys, anyio, sessiondb
from sessiondb.maintenance import retention
from sessiondb.maintenance.retention import RetentionPolicy
path, writes = sys.argv[1], int(sys.argv[2])
class Dying:
    def __init__(self, backend): self.backend, self.left = backend, writes
    def __getattr__(self, name): return getattr(self.backend, name)
    async def step(self, fn, **options):
        if not self.left: os.kill(os.getpid(), 9)
        self.left -= 1
        return await self.backend.step(fn, **options)
async def main():
    async with sessiondb.open(path) as db:
        await retention.gc(Dying(db.backend), RetentionPolicy(max_sessions=0, idle_days=0))
anyio.run(main)
"""


@pytest.mark.parametrize("writes", [1, 3, 5, 7])
def test_a_process_that_is_killed_while_it_archives_leaves_nothing_held(
    tmp_db: Path, writes: int
) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        session = db.session(KEY)
        session.append_many([user(f"{number}") for number in range(600)])
    before = dump(tmp_db)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_db), str(writes)], cwd=ROOT, check=False
    )
    assert child.returncode == -9
    with sessiondb.sync.open(tmp_db) as db:
        assert db.verify().findings == ()
        db.session("agent:main:web:new").append(user("nothing waits"))
        db.restore(session.id)
        assert db.verify().findings == ()
    after = dump(tmp_db)
    assert [
        entry for entry in after["entry"] if entry[0] >> 32 == session.ref.session_no
    ] == before["entry"]
    assert set(before["session"]) <= set(after["session"])


# -- what stands in its way ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_moves_or_is_pinned_while_it_is_archived_goes_on_as_it_was(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        archive_no, _ = await archive.begin(db.backend, session.ref.session_no, "for the test")
        assert archive_no is not None
        with pytest.raises(SessionEnded):
            await (session := await db.session_by_id(session.id)).append(user("too late"))
        assert len(await session.entries()) > 3  # not a row is missing yet
        fork = await session.fork()
        row = await archive.advance(db.backend, archive_no)
        assert row.state == "restored"
        assert texts(await fork.context()) == texts(await session.context())
        held = await put_away(db, session)
        assert held == f"session {fork.id} was forked from it and uses its entries"
    after = dump(tmp_db)
    assert after["binding"] == before["binding"]
    assert before["session"][0] in after["session"]


@pytest.mark.anyio
async def test_a_fork_and_its_parent_go_in_turn_and_come_back_together(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        parent = await a_life(db, length=3)
        bare = await parent.fork()  # without an entry of its own it lives from its parent's alone
        child = await bare.fork(key="agent:main:web:child")
        await child.append(user("on my own"))
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        parent, bare, child = [
            await db.session_by_id(handle.id) for handle in (parent, bare, child)
        ]
        assert "was forked from it" in await put_away(db, parent)
        assert "was forked from it" in await put_away(db, bare)
        for session in (child, bare, parent):
            assert (await put_away(db, session)).state == "archived"
            assert (await db.verify()).findings == ()
        assert await put_away(db, parent) == "its archive is archived already"
        restored = await db.restore(child.id)
        assert restored.parents == (bare.id, parent.id)
        assert (await db.verify()).findings == ()
    assert dump(tmp_db) == before


@pytest.mark.anyio
async def test_a_parent_is_not_deleted_for_good_while_an_archived_fork_needs_it(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        parent = await a_life(db, length=3)
        child = await parent.fork()
        await put_away(db, child)
        assert (
            await put_away(db, parent, keep_archive=False)
            == f"the archived session {child.id} was forked from it"
        )
        row = await put_away(db, parent)
        assert (
            await archive.drop(db.backend, row)
            == f"the archived session {child.id} was forked from it"
        )
        await db.restore(child.id)
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_two_processes_at_one_archive_do_not_harm_it(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as one, sessiondb.open(tmp_db) as two:
        session = await one.session(KEY)
        await session.append_many([user(f"{number}") for number in range(700)])
        entries = await session.arrivals(limit=1_000)
        archive_no, _ = await archive.begin(one.backend, session.ref.session_no, "for the test")
        assert archive_no is not None
        # The second one writes a chunk just before the first one would.
        dying = Dying(two.backend, 1)

        class Racing(Dying):
            async def step(self, fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
                if op == "archive.chunk" and not dying.ops:
                    with pytest.raises(Killed):
                        await archive.advance(dying, archive_no)
                return await self.backend.step(fn, op=op, **options)

        with pytest.raises(StoreBusy, match="another process"):
            await archive.advance(Racing(one.backend, -1), archive_no)
        assert (await archive.advance(one.backend, archive_no)).state == "archived"
        await two.restore(session.id)
        assert await session.arrivals(limit=1_000) == entries
        assert (await one.verify()).findings == ()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE archive_chunk SET content = CAST(x'00' || substr(content, 2) AS BLOB) WHERE what = 'entry'",
        "UPDATE archive_chunk SET sha256 = replace(sha256, substr(sha256, 1, 1), 'z') WHERE what = 'entry'",
        "UPDATE archive_chunk SET rows = rows + 1 WHERE what = 'entry'",
        "UPDATE archive SET rows = rows + 1",
    ],
)
async def test_a_damaged_archive_is_noticed_and_nothing_is_opened(
    tmp_db: Path, damage: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
        await put_away(db, session)
    change(tmp_db, damage)
    async with sessiondb.open(tmp_db) as db:
        assert {
            (finding.check, finding.session_id) for finding in (await db.verify()).findings
        } == {("archive", session.id)}
        with pytest.raises(StoreDamaged, match=session.id):
            await db.restore(session.id)
        with pytest.raises(SessionArchived):
            await (await db.session_by_id(session.id)).context()
        assert list((await db.gc(EVERYTHING)).decisions) == []  # it is archived, as before
    change(
        tmp_db, "UPDATE archive SET state = 'restoring', finished_at_ms = NULL"
    )  # as if it had been damaged in the middle
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(StoreDamaged, match=session.id):
            await db.restore(session.id)
        with pytest.raises(SessionArchived):
            await (await db.session_by_id(session.id)).context()
        report = await db.gc(EVERYTHING)
        assert [(created.session_id, created.outcome) for created in report.decisions] == [
            (session.id, "failed")
        ]


@pytest.mark.anyio
async def test_an_archive_that_is_not_what_the_tables_hold_is_given_up_before_anything_is_deleted(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(Killed):
            await retention.gc(Dying(db.backend, 4), EVERYTHING)
        assert query(tmp_db, "SELECT state FROM archive") == ["writing"]
    change(tmp_db, "UPDATE archive_chunk SET rows = rows + 1 WHERE what = 'epoch'")
    async with sessiondb.open(tmp_db) as db:
        report = await db.gc(RetentionPolicy())
        assert (report.ok, report.decisions[0].session_id) == (False, session.id)
        await db.gc(RetentionPolicy())
        assert (await db.verify()).findings == ()
    assert dump(tmp_db) == before


@pytest.mark.anyio
async def test_without_an_archive_the_entries_are_gone_for_good(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
        row = await put_away(db, session, keep_archive=False)
        assert (row.state, row.encoding) == ("deleted", "none")
        assert (await db.verify()).findings == ()
        with pytest.raises(NotFound, match="cannot be restored"):
            await db.restore(session.id)
    for table in ("entry", "branch", "epoch", "compaction", "binding", "archive_chunk"):
        assert query(tmp_db, f"SELECT count(*) FROM {table}") == [0]
    assert query(tmp_db, "SELECT name FROM session") == [None]


@pytest.mark.anyio
async def test_only_what_is_archived_can_be_restored(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
        with pytest.raises(InvalidInput, match="is not archived"):
            await db.restore(session.id)
        with pytest.raises(NotFound):
            await db.restore("no-such-session")


@pytest.mark.anyio
async def test_each_transaction_handles_few_rows_and_bytes(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        for _ in range(3):
            await session.append_many([user("x" * 100)] * 500)
        await session.append_many([user("y" * 300_000)] * 5)
        changed: dict[str, list[tuple[int, int]]] = {}

        class Counting(Dying):
            async def step(self, fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
                def counting(tx: Any) -> Any:
                    connection = tx._connection
                    low = session.ref.session_no << 32
                    held = "SELECT count(*), coalesce(sum(length(payload)), 0) FROM entry WHERE entry_no >= ?"
                    [before] = connection.execute(held, (low,)).fetchall()
                    value = fn(tx)
                    [after] = connection.execute(held, (low,)).fetchall()
                    changed.setdefault(op, []).append(
                        (abs(after[0] - before[0]), abs(after[1] - before[1]))
                    )
                    return value

                return await self.backend.step(counting, op=op, **options)

        counting = Counting(db.backend, -1)
        archive_no, _ = await archive.begin(counting, session.ref.session_no, "for the test")
        assert archive_no is not None
        await archive.advance(counting, archive_no)
        await archive.restore(counting, session.ref.session_no)
    for op, total in (("archive.delete", 1_506), ("restore.rows", 1_506)):
        assert sum(rows for rows, _ in changed[op]) == total
        assert max(rows for rows, _ in changed[op]) <= STEP_ROWS
        assert max(size for _, size in changed[op]) <= STEP_BYTES
    assert all(
        rows == 0
        for op, counts in changed.items()
        if op not in ("archive.delete", "restore.rows")
        for rows, _ in counts
    )


class Watched:
    """A backend that says whether callers are beside it, and notes when an archive was read to be compared."""

    def __init__(self, backend: Any, *, is_busy: bool) -> None:
        self.backend = backend
        self.is_busy = is_busy
        self.compared_at: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    async def read(self, fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
        if op == "archive.compare":
            self.compared_at.append(anyio.current_time())
        return await self.backend.read(fn, op=op, **options)


@pytest.mark.anyio
@pytest.mark.parametrize(("is_busy", "pause_s"), [(True, 0.05), (False, 3_600.0)])
async def test_a_comparison_pauses_after_each_chunk_beside_callers_only(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, is_busy: bool, pause_s: float
) -> None:
    """It takes no steps that could be paced, and for a million entries it reads five thousand pages."""
    monkeypatch.setattr(archive_rows, "COMPARE_PAUSE_S", pause_s)
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append_many([user(f"{number}") for number in range(700)])
        watched = Watched(db.backend, is_busy=is_busy)
        assert await archive.begin(db.backend, session.ref.session_no, "old") == (1, None)
        with anyio.fail_after(30):
            await archive.advance(watched, 1)  # type: ignore[arg-type]
        gaps = [later - earlier for earlier, later in pairwise(watched.compared_at)]
        assert len(gaps) >= 4
        if is_busy:
            # Of branches, epochs and entries each page is followed by a pause; then come three reads of what is behind the last ones.
            assert min(gaps[: -len(archive_rows.PAGED)]) >= 0.05
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_page_of_entries_is_read_in_pieces_and_is_what_one_read_gives(tmp_db: Path) -> None:
    """SQLite's rows become Python's with the interpreter's lock held: 200 at once kept every accept beside them waiting."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append_many([user(f"{number}") for number in range(300)])
        number = session.ref.session_no
        first = entry_number(number, 0)

        def read(tx: Any) -> tuple[list[Any], list[Any], list[int]]:
            counted: list[int] = []

            class Counting:
                def all(self, statement: str, **params: Any) -> list[Any]:
                    rows: list[Any] = tx.all(statement, **params)
                    if statement == "archive.entries":
                        counted.append(len(rows))
                    return rows

            page = archive_rows.read_page(Counting(), ENTRY, number, first - 1, 0.0)  # type: ignore[arg-type]
            return (
                page,
                tx.all("archive.entries", low_no=page[0].entry_no, high_no=page[-1].entry_no),
                counted,
            )

        page, at_once, counted = await db.read("look", read)
        assert page == at_once
        assert len(page) == ARCHIVE_CHUNK_ROWS
        assert max(counted) == archive_rows.READ_ROWS


@pytest.mark.anyio
async def test_without_zstd_an_archive_is_compressed_with_zlib(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
    before = dump(tmp_db)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    async with sessiondb.open(tmp_db) as db:
        assert (await put_away(db, session)).encoding == "zlib"
        await db.restore(session.id)
    assert dump(tmp_db) == before


@pytest.mark.anyio
async def test_without_zstd_its_archives_say_what_to_install(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zstandard", reason="the extra `zstd` is not installed")
    async with sessiondb.open(tmp_db) as db:
        session = await a_life(db, length=3)
        assert (await put_away(db, session)).encoding == "zstd"
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(InvalidInput, match=r"sessiondb\[zstd\]"):
            await db.restore(session.id)


# -- imports and exports ------------------------------------------------------------------------------------


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_imported_folder_comes_back_byte_for_byte_after_it_was_archived(
    tmp_path: Path, sample: Path
) -> None:
    path = tmp_path / "gateway.db"
    with sessiondb.sync.open(path) as db:
        db.import_path(str(sample))
        assert db.export(str(tmp_path / "before")).ok
    before = dump(path)
    with sessiondb.sync.open(path) as db:
        report = db.gc(EVERYTHING)
        assert report.ok
        archived = [created.session_id for created in report.decisions if created.outcome == "done"]
        assert len(archived) > 3
        assert db.verify().findings == ()
        refused = db.export(str(tmp_path / "during"))
        assert sum("sessiondb restore DB" in file.note for file in refused.files) >= len(archived)
        again = db.import_path(str(sample))
        assert (again.entries_new, again.count("imported"), again.count("failed")) == (0, 0, 0)
        for session_id in archived:
            db.restore(session_id)
        assert db.export(str(tmp_path / "after")).ok
        assert db.verify().findings == ()
    assert files_in(tmp_path / "after") == files_in(tmp_path / "before")
    after = dump(path)
    assert {table: rows for table, rows in after.items() if table != "source"} == {
        table: rows for table, rows in before.items() if table != "source"
    }


# -- any history --------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.text(max_size=40).filter(lambda text: text.isprintable())),
        st.tuples(st.just("answer"), st.integers(0, 10**9)),
        st.tuples(st.just("branch"), st.integers(0, 30)),
        st.tuples(st.just("reset"), st.just(0)),
        st.tuples(st.just("compact"), st.integers(0, 30)),
        st.tuples(st.just("undo"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("archive"), st.just(0)),
    ),
    max_size=25,
)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_archive_and_restore_together_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "gateway.db"
    with sessiondb.sync.open(path) as db:
        session = db.session(KEY)
        for step, value in steps:
            if step == "archive":
                live(db, session, step, value)
                continue
            with contextlib.suppress(
                sessiondb.SessionDBError
            ):  # not every step is possible everywhere
                live(db, session, step, value)
        before = dump(path)
        assert db.gc(EVERYTHING).count("done") == 1
        assert db.verify().findings == ()
        db.restore(session.id)
        assert db.verify().findings == ()
        assert dump(path) == before


def live(
    db: sessiondb.sync.SessionDB, session: sessiondb.sync.Session, step: str, value: Any
) -> None:
    if step == "say":
        session.append(user(value))
    elif step == "answer":
        session.append(reply("yes", tokens=value))
    elif step == "branch":
        found = session.arrivals(limit=40)
        session.branch(found[value % len(found)].entry_id)
    elif step == "compact":
        with session.compact(keep_recent_tokens=value) as job:
            job.commit("so far")
    elif step == "archive":
        db.gc(EVERYTHING)
        db.restore(session.id)
    else:
        {"reset": session.reset, "undo": session.undo_compaction, "end": session.end}[step]()


def test_a_step_that_took_long_makes_the_next_ones_smaller_and_quick_ones_larger_within_bounds() -> (
    None
):
    batch_size = BatchSize()
    for _ in range(10):
        batch_size.learn(STEP_MS * 2)
    assert batch_size.rows == STEP_ROWS_MIN
    batch_size.learn(STEP_MS * 0.8)  # neither long nor quick
    assert batch_size.rows == STEP_ROWS_MIN
    for _ in range(10):
        batch_size.learn(0.1)
    assert batch_size.rows == STEP_ROWS
