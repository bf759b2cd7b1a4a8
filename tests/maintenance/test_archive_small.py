"""Small sessions go into their archives several at a time, each as it was or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.errors import StoreDamaged
from sessiondb.limits import STEP_ROWS_FIRST
from sessiondb.maintenance import archive, archive_small, retention
from sessiondb.maintenance.archive_small import Wanted, archive_some
from tests.support.core import change, query, reply, user
from tests.support.maintenance import (
    EVERYTHING,
    Dying,
    Killed,
    dump,
    eventful_session,
)

STEP = "archive.small"


class Between(Dying):
    """A backend in which something happens after the rows were read, before the step."""

    def __init__(self, backend: Any, happens: Callable[[], Any]) -> None:
        super().__init__(backend, -1)
        self.happens = happens

    async def step(self, fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
        if op == STEP and STEP not in self.ops:
            await self.happens()
        return await super().step(fn, op=op, **options)


async def small_sessions(db: sessiondb.SessionDB, count: int) -> list[sessiondb.Session]:
    return [
        await eventful_session(db, f"agent:main:web:{number}", length=2 + number)
        for number in range(count)
    ]


def wanted(*sessions: sessiondb.Session) -> list[Wanted]:
    return [Wanted(session.ref.session_no, "it is old") for session in sessions]


@pytest.mark.anyio
async def test_small_sessions_share_a_step_and_a_large_one_has_its_own(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        small = await small_sessions(db, 2)
        large = await db.session("agent:main:web:large")
        await large.append_many([user("long")] * 250)
        small += [await eventful_session(db, "agent:main:web:last", length=1)]
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        counting = Dying(db.backend, -1)
        report = await retention.gc(counting, EVERYTHING)
        assert [one.outcome for one in report.decisions] == ["done"] * 4
        assert counting.ops.count(STEP) == 2
        assert counting.ops.count("archive.begin") == counting.ops.count("archive.release") == 1
        assert (await db.verify(deep=True)).findings == ()
        assert query(tmp_db, "SELECT count(*) FROM entry") == [0]
        for session in [large, *small]:
            await db.unarchive(session.id)
        assert (await db.verify()).findings == ()
    assert dump(tmp_db) == before


@pytest.mark.anyio
async def test_both_ways_archive_the_same_rows(tmp_path: Path) -> None:
    found = []
    for number, rows_max in enumerate((archive_small.ARCHIVE_CHUNK_ROWS, 0)):
        path = tmp_path / f"{number}.db"
        async with sessiondb.open(path) as db:
            session = await db.session_by_id((await db.session("agent:main:web:1")).id)
            await session.append_many([user("a"), reply("b")])
            if rows_max:
                await archive_small.archive_one(db.backend, *wanted(session))
            else:
                archive_no, _ = await archive.begin(db.backend, session.ref.session_no, "it is old")
                assert archive_no is not None
                await archive.advance(db.backend, archive_no)
        found.append(
            (
                query(path, "SELECT sum(rows) FROM archive_chunk"),
                query(path, "SELECT state, reason, rows, session_keys FROM archive"),
                query(path, "SELECT kind, text GLOB '*is archived*' FROM event"),
                query(path, "SELECT ended_at_ms IS NULL, archived_at_ms IS NULL FROM session"),
                query(path, "SELECT count(*) FROM binding"),
            )
        )
    assert found[0] == found[1]


@pytest.mark.anyio
async def test_a_step_takes_as_many_sessions_as_its_bound_allows(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        sessions = []
        for number in range(30):
            sessions.append(await db.session(f"agent:main:web:{number}"))
            await sessions[-1].append_many([user("a"), reply("b")] * 3)
        rows = [*query(tmp_db, "SELECT count(*) + 4 FROM entry GROUP BY entry_no >> 32")]
        few = wanted(*sessions[-4:])
        done = await archive_some(db.backend, few, rows_max=sum(rows[-4:-1]))
        assert [*done.outcomes] == [one.session_no for one in few[:3]]
        del sessions[-4:-1], rows[-4:-1]
        done = await archive_some(db.backend, wanted(*sessions), rows_max=STEP_ROWS_FIRST)
        assert (
            sum(rows[: len(done.outcomes)]) <= STEP_ROWS_FIRST < sum(rows[: len(done.outcomes) + 1])
        )
        assert [*done.outcomes] == [one.session_no for one in wanted(*sessions)][
            : len(done.outcomes)
        ]
        # Their texts have a bound, too.
        heavy = [await db.session(f"agent:main:web:heavy{number}") for number in range(3)]
        for session in heavy:
            await session.append(user("x" * 200_000))
        done = await archive_some(db.backend, wanted(*heavy))
        assert len(done.outcomes) == 2
        await heavy[2].append_many([user("x" * 200_000)] * 3)
        assert (await archive_some(db.backend, wanted(heavy[2]))).outcomes == {}
        assert await archive_small.archive_one(db.backend, *wanted(heavy[2])) is None
        assert (await db.verify(deep=True)).findings == ()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("append", "it has just changed"),
        ("redact", "it has just changed"),
        ("pin", "it has just changed"),
        ("bind", "it has just changed"),
        ("compact", "it has just changed"),
        ("accept", "it has messages that wait or that a turn works on"),
        ("fork", "session forked was forked from it and uses its entries"),
        ("archive", "its archive is archived already"),
    ],
)
async def test_a_session_that_changed_is_left_out_and_named(
    tmp_db: Path, what: str, why: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        first, second, third = await small_sessions(db, 3)
        entry = (await second.entries(last=1))[0].entry_id

        async def fork() -> None:
            forked = await second.fork(session_id="forked")
            await forked.append(user("on its own"))

        async def accept() -> None:
            key = "agent:main:web:1"
            await db.accept(key, user("more"), channel="web", event_id="1")

        async def compact() -> None:
            async with second.compact(trigger="manual", keep_recent_tokens=0) as job:
                await job.commit("what was said")

        happens = {
            "append": lambda: second.append(user("more")),
            "redact": lambda: second.redact(entry),
            "pin": second.pin,
            "bind": lambda: db.bind("agent:main:web:new", second),
            "compact": compact,
            "accept": accept,
            "fork": fork,
            "archive": lambda: archive_small.archive_one(db.backend, *wanted(second)),
        }
        before: dict[str, Any] = {}

        async def happen() -> None:
            await happens[what]()
            before.update(dump(tmp_db))

        done = await archive_some(Between(db.backend, happen), wanted(first, second, third))
        assert done.outcomes == {
            first.ref.session_no: None,
            second.ref.session_no: why,
            third.ref.session_no: None,
        }
        after = dump(tmp_db)
        number = second.ref.session_no
        for table in ("entry", "session", "epoch", "branch", "binding"):
            assert _of(after, table, number) == _of(before, table, number), table
            if table != "session":
                assert not _of(after, table, first.ref.session_no), table
        assert (await db.verify(deep=True)).findings == ()


def _of(rows: dict[str, list[Any]], table: str, session_no: int) -> list[Any]:
    at = {"entry": 0, "session": 0, "epoch": 0, "branch": 1, "binding": 1}[table]
    return [row for row in rows[table] if (row[at] >> 32 or row[at]) == session_no]


@pytest.mark.anyio
async def test_a_session_that_changed_since_the_plan_stays(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        first, second = await small_sessions(db, 2)
        one, other = wanted(first, second)
        done = await archive_some(db.backend, [one._replace(updated_at_ms=1), other])
        assert done.outcomes == {
            one.session_no: "it has changed since the plan",
            other.session_no: None,
        }


@pytest.mark.anyio
async def test_a_kill_before_a_step_leaves_all_and_after_it_none(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        sessions = await small_sessions(db, 3)
    before = dump(tmp_db)

    class DyingAfter(Dying):
        async def step(self, fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
            await self.backend.step(fn, op=op, **options)
            raise Killed

    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(Killed):
            await retention.gc(Dying(db.backend, 0), EVERYTHING)
    assert dump(tmp_db) == before
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(Killed):
            await retention.gc(DyingAfter(db.backend, 0), EVERYTHING)
    async with sessiondb.open(tmp_db) as db:
        assert (await db.verify(deep=True)).findings == ()
        assert query(tmp_db, "SELECT count(*) FROM entry") == [0]
        assert (await retention.gc(db.backend, EVERYTHING)).resumed_archives == 0
        for session in sessions:
            await db.unarchive(session.id)
    assert dump(tmp_db) == before


@pytest.mark.anyio
async def test_a_damaged_session_fails_alone(tmp_db: Path) -> None:
    """A restore would refuse such an epoch, so it goes into no archive."""
    async with sessiondb.open(tmp_db) as db:
        first, second, third = await small_sessions(db, 3)
    change(
        tmp_db,
        f"UPDATE epoch SET reason = 'nonsense' WHERE session_no = {second.ref.session_no}",
    )
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(StoreDamaged, match="impossible number or reason"):
            await archive_some(db.backend, wanted(first, second))
        report = await retention.gc(db.backend, EVERYTHING)
        assert {one.session_id: one.outcome for one in report.decisions} == {
            first.id: "done",
            second.id: "failed",
            third.id: "done",
        }
        assert query(tmp_db, "SELECT DISTINCT entry_no >> 32 FROM entry") == [second.ref.session_no]


@pytest.mark.anyio
async def test_words_of_small_sessions_leave_the_search_index(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        sessions = [await db.session(f"agent:main:web:{number}") for number in range(3)]
        for session in sessions:
            await session.append(user("peculiar"))
        await db.build_search()
        done = await archive_some(db.backend, wanted(*sessions[:2]))
        assert [*done.outcomes.values()] == [None, None]
        assert query(tmp_db, "SELECT session_no FROM search_session") == [
            sessions[2].ref.session_no
        ]
        assert [hit.session_id for hit in (await db.search("peculiar")).hits] == [sessions[2].id]
        assert (await db.verify(deep=True)).findings == ()
        await db.unarchive(sessions[0].id)
        hits = (await db.search("peculiar")).hits
        assert [hit.session_id for hit in hits] == [sessions[2].id, sessions[0].id]
        assert (await db.build_search()).behind == 0
        assert (await db.verify(deep=True)).findings == ()


# -- one chunk for a small session -----------------------------------------------------


def chunks(path: Path) -> dict[int, tuple[str, bytes]]:
    """Return the chunks by session: their kind, and their bytes."""
    found = query(
        path, "SELECT session_no, what, content FROM archive_chunk JOIN archive USING (archive_no)"
    )
    return {session_no: (what, content) for session_no, what, content in found}


@pytest.mark.anyio
@pytest.mark.parametrize("encoding", ["zlib", "zstd"])
async def test_a_small_session_is_one_chunk_and_comes_back_again_and_again(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    if encoding == "zstd":
        pytest.importorskip("zstandard", reason="the extra `zstd` is not installed")
    monkeypatch.setattr(archive, "best_encoding", lambda: encoding)
    async with sessiondb.open(tmp_db) as db:
        sessions = await small_sessions(db, 2)
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        for _ in range(2):
            assert (await retention.gc(db.backend, EVERYTHING)).ok
            assert [what for what, _ in chunks(tmp_db).values()] == ["whole", "whole"]
            assert (await db.verify(deep=True)).findings == ()
            for session in sessions:
                await db.unarchive(session.id)
            assert chunks(tmp_db) == {}
            assert dump(tmp_db) == before


@pytest.mark.anyio
async def test_a_deleted_archive_leaves_its_neighbour_and_nothing_of_itself(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        sessions = await small_sessions(db, 2)
        gone, kept = (session.ref.session_no for session in sessions)
        before = await sessions[1].all_entries(limit=100)
        await retention.gc(db.backend, EVERYTHING)
        old = chunks(tmp_db)
        # Both are on one page, so it stays, and its bytes with it.
        assert query(tmp_db, "SELECT count(*) FROM dbstat WHERE name = 'archive_chunk'") == [1]
        report = await db.delete(sessions[0])
        assert report.deleted == (sessions[0].id,)
        assert chunks(tmp_db) == {kept: old[kept]}
        assert (await db.verify(deep=True)).findings == ()
    found = [content in held_by(tmp_db) for content in (old[gone][1], old[kept][1])]
    assert found == [False, True]
    async with sessiondb.open(tmp_db) as db:
        await db.unarchive(sessions[1].id)
        assert await sessions_entries(db, sessions[1].id) == before


def held_by(path: Path) -> bytes:
    return path.read_bytes()


async def sessions_entries(db: sessiondb.SessionDB, session_id: str) -> Any:
    return await (await db.session_by_id(session_id)).all_entries(limit=100)


@pytest.mark.anyio
async def test_small_archives_share_pages(tmp_db: Path) -> None:
    """Each took more than a page: its entries a page of their own, and its other rows 1.5 KB."""
    sessions = 60
    async with sessiondb.open(tmp_db) as db:
        for number in range(sessions):
            session = await db.session(f"agent:main:web:{number}")
            for turn in range(4):
                words = " ".join(
                    WORDS[(number * 31 + turn * 7 + at * at) % len(WORDS)] for at in range(60)
                )
                await session.append_many([user(words[:150]), reply(words[150:])])
        await retention.gc(db.backend, EVERYTHING)
    [pages] = query(tmp_db, "SELECT count(*) FROM dbstat WHERE name LIKE '%archive_chunk%'")
    assert pages < 0.6 * sessions


WORDS = (Path(archive.__file__).read_text() + Path(retention.__file__).read_text()).split()
