"""Which sessions a policy keeps, which go, and the reason that a decision gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.gateway.running_turn import Answer
from sessiondb.maintenance import archive, retention, retention_plan
from sessiondb.maintenance.retention_plan import DAY_MS, RetentionPolicy
from tests import ROOT
from tests.support.core import change, one_loop, query, reply, user
from tests.support.maintenance import (
    Dying,
    aged,
    now_ms,
    removed,
    retained,
    set_age,
)

# -- limits ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_without_a_limit_nothing_goes(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await aged(db, "old", 4_000)
        assert await retained(db) == {"old": ("keep", "kept", "within every limit")}


@pytest.mark.anyio
async def test_a_session_unchanged_for_too_long_goes(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in (2, 29, 31, 90):
            await aged(db, f"d{days}", days)
        decisions = await retained(db, max_age_days=30)
        assert removed(decisions) == ["d31", "d90"]
        assert decisions["d90"] == ("archive", "done", "has not changed for 90 days (limit 30)")
        assert [info.keys async for info in db.sessions()] == [
            ("agent:main:web:d2",),
            ("agent:main:web:d29",),
        ]


@pytest.mark.anyio
async def test_of_too_many_sessions_the_oldest_go(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in (2, 3, 4, 5):
            await aged(db, f"d{days}", days)
        decisions = await retained(db, max_sessions=2)
        assert removed(decisions) == ["d4", "d5"]
        assert decisions["d4"][2] == "it is number 3 by last change (limit 2)"
        assert removed(await retained(db, max_sessions=2)) == []


@pytest.mark.anyio
async def test_of_too_many_keys_of_an_agent_the_oldest_go(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in (2, 3, 4):
            await aged(db, f"m{days}", days)
            await aged(db, f"o{days}", days + 10, agent="other")
        unbound = await aged(db, "unbound", 50)
        await db.unbind("agent:main:web:unbound")
        decisions = await retained(db, max_bindings_per_agent=2)
        assert removed(decisions) == ["m4", "o4"]
        assert decisions[unbound.id][0] == "keep"
        assert "agent other has more than 2 keys" in decisions["o4"][2]


@pytest.mark.anyio
@one_loop
async def test_a_too_large_database_shrinks_to_its_high_water_mark(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in range(2, 12):
            session = await aged(db, f"d{days:02}", days)
            await session.append_many([user("the same words again and again " * 300)] * 20)
            ms = now_ms() - days * DAY_MS
            await set_age(db, session, ms)
        used = (await db.status()).file_bytes
        decisions = await retained(db, max_bytes=used * 3 // 4, high_water=0.8)
        after = await db.status()
    going = removed(decisions)
    assert going == [f"d{days:02}" for days in range(12 - len(going), 12)]
    assert 4 <= len(going) <= 7
    assert after.file_bytes - after.free_bytes <= used * 3 // 4
    assert decisions["d11"][2].startswith("the database holds ")
    assert "limit" in decisions["d11"][2]


@pytest.mark.anyio
async def test_a_decision_names_the_limit_that_the_session_is_over(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in (0, 5, 40):
            await aged(db, f"d{days}", days, size=20_000)

        async def rules(**limits: Any) -> list[tuple[str, str]]:
            report = await retention.gc(
                db.backend, RetentionPolicy(**limits), dry_run=True, every=True
            )
            return [(decision.action, decision.rule) for decision in report.decisions]

        assert await rules() == [("keep", "none")] * 3
        assert await rules(max_age_days=30) == [
            ("archive", "age"),
            ("keep", "none"),
            ("keep", "none"),
        ]
        assert await rules(max_age_days=30, max_sessions=1) == [
            ("archive", "age"),
            ("archive", "count"),
            ("keep", "none"),
        ]
        assert await rules(max_bindings_per_agent=0) == [
            ("archive", "bindings"),
            ("archive", "bindings"),
            ("keep", "bindings"),
        ]
        assert await rules(max_age_days=30, max_bytes=1) == [
            ("archive", "age"),
            ("archive", "bytes"),
            ("keep", "bytes"),
        ]
        await db.gc(RetentionPolicy(max_age_days=30))
        report = await retention.gc(
            db.backend, RetentionPolicy(archive_days=1), dry_run=True, now_ms=now_ms() + 2 * DAY_MS
        )
        assert [(decision.action, decision.rule) for decision in report.decisions] == [
            ("drop", "archive_age")
        ]


@pytest.mark.anyio
async def test_a_plan_reads_pages_of_sessions_and_no_entry_that_stays(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_plan, "PAGE_ROWS", 2)
    async with sessiondb.open(tmp_db) as db:
        for number in range(4):
            await db.create_session(f"s{number}")
        await aged(db, "old", 90)
        rows: dict[str, list[int]] = {}

        class Counting(Dying):
            async def read(self, fn: Callable[[Any], Any], *, op: str) -> Any:
                def counting(tx: Any) -> Any:
                    asked = tx.all

                    class Asking:
                        def __getattr__(self, name: str) -> Any:
                            return getattr(tx, name)

                        def all(self, statement: str, /, **params: Any) -> Any:
                            found = asked(statement, **params)
                            rows.setdefault(statement, []).append(len(found))
                            return found

                        def one(self, statement: str, /, **params: Any) -> Any:
                            rows.setdefault(statement, []).append(1)
                            return tx.one(statement, **params)

                        def tuples(self, statement: str, /, **params: Any) -> Any:
                            found = tx.tuples(statement, **params)
                            rows.setdefault(statement, []).append(len(found))
                            return found

                    return fn(Asking())

                return await self.backend.read(counting, op=op)

        report = await retention.gc(
            Counting(db.backend, -1), RetentionPolicy(max_age_days=30), dry_run=True
        )
        assert report.count("planned") == 1
        assert rows["retention.newest"] == [2, 2, 1]
        assert rows["retention.sizes"] == [1]
        assert rows["archive.protection"] == [1]


@pytest.mark.anyio
@pytest.mark.parametrize("at_once", [1, 4, 7, 5_000])
async def test_sizes_are_those_of_the_texts_however_many_are_read_at_once(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(retention_plan, "SIZE_ROWS", at_once)
    async with sessiondb.open(tmp_db) as db:
        for number in range(5):
            session = await db.session(f"agent:main:web:{number}")
            await session.append_many([user("é" * number)] * (number + 1))
        report = await retention.gc(
            db.backend, RetentionPolicy(max_sessions=1, idle_days=0), dry_run=True
        )
    sizes = query(
        tmp_db,
        "SELECT entry_no >> 32, sum(octet_length(payload)) FROM entry "
        "GROUP BY 1 ORDER BY 1 LIMIT 4",
    )
    assert [(one.session_no, one.bytes) for one in report.decisions] == sizes


# -- protection ------------------------------------------------------------------------


async def pinned(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    await session.pin()
    return "pinned"


async def active(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    await session.append(user("just now"))
    return "it changed within 1 day"


async def with_a_message(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    await db.accept("agent:main:web:old", user("hello"), channel="web", event_id="1")
    return "it has messages that wait or that a turn works on"


async def with_a_fork(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    fork = await session.fork()
    return f"session {fork.id} was forked from it and uses its entries"


async def restored(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    archive_no, _ = await archive.begin(db.backend, session.ref.session_no, "for the test")
    assert archive_no is not None
    await archive.advance(db.backend, archive_no)
    await db.unarchive(session.id)
    return "it was restored within 1 day"


@pytest.mark.parametrize("protect", [pinned, active, with_a_message, with_a_fork, restored])
@pytest.mark.anyio
async def test_a_protected_session_stays_whatever_the_limits_say(
    tmp_db: Path, protect: Callable[..., Any]
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)
        await aged(db, "other", 91)
        why = await protect(db, session)
        entries = await session.all_entries()
        decisions = await retained(db, max_age_days=30, max_sessions=0)
        assert decisions["other"][1] == "done"
        action, outcome, reason = decisions["old"]
        assert (action, outcome, reason.partition(", but ")[2]) == ("keep", "kept", why)
        assert await session.all_entries() == entries


@pytest.mark.anyio
async def test_running_work_and_open_replies_protect_their_session(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)

        async def reason() -> str:
            [decision] = (await db.gc(RetentionPolicy(max_sessions=0, idle_days=0))).decisions
            assert (decision.session_id, decision.outcome) == (session.id, "kept")
            return decision.reason.partition(", but ")[2]

        async with session.compact(keep_recent_tokens=0) as job:
            assert await reason() == "a compaction of it is running"
            await job.commit("said")
        seen: list[str] = []

        async def handler(turn: Any) -> Answer:
            seen.append(await reason())
            return Answer(entries=[reply("yes")], replies=[("web:1", {"text": "yes"})])

        await db.accept("agent:main:web:old", user("hello"), channel="web", event_id="1")
        async with anyio.create_task_group() as group:
            group.start_soon(db.run_lane, "main", handler)
            while not [row async for row in db.replies("pending")]:
                await db.backend.wait_change(db.backend.change_count, 0.1)
            group.cancel_scope.cancel()
        assert seen == ["a turn of it is running"]
        assert await reason() == "replies of it are still to be sent"

        sending = anyio.Event()

        async def sender(_: Any) -> str:
            sending.set()
            raise OSError("the line went dead")

        async with anyio.create_task_group() as group:
            group.start_soon(db.run_outbox, sender)
            await sending.wait()
            while not (unknown := [row async for row in db.replies("unknown")]):
                await db.backend.wait_change(db.backend.change_count, 0.1)
            group.cancel_scope.cancel()
        assert await reason() == "it is unknown whether a reply of it was sent (settle that first)"
        await db.settle_reply(unknown[0].outbox_no, "sent")
        [decision] = (await db.gc(RetentionPolicy(max_sessions=0, idle_days=0))).decisions
        assert decision.outcome == "done"
        assert (await db.verify()).findings == ()


def test_a_session_that_is_being_imported_stays(tmp_path: Path, sample: Path) -> None:
    path = tmp_path / "gateway.db"
    with sessiondb.sync.open(path) as db:
        db.import_path(str(sample))
        ref = next(iter(db.sessions(with_ended=True)))

    of_it = f"session_no = (SELECT session_no FROM session WHERE session_id = '{ref.session_id}')"
    change(path, f"UPDATE import_file SET state = 'reading' WHERE {of_it}")
    with sessiondb.sync.open(path) as db:
        report = db.gc(RetentionPolicy(max_sessions=0, idle_days=0))
    [kept] = [decision for decision in report.decisions if decision.outcome == "kept"]
    assert kept.session_id == ref.session_id
    assert kept.reason.endswith("an import of it has not finished")


@pytest.mark.anyio
async def test_an_unpinned_session_may_go(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)
        await session.pin()
        await session.pin()
        await session.unpin()
        assert removed(await retained(db, max_age_days=30)) == ["old"]


@pytest.mark.anyio
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5_000])
async def test_every_entry_is_weighed_however_many_are_read_at_a_time(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(retention_plan, "SIZE_ROWS", rows)
    async with sessiondb.open(tmp_db) as db:
        for name in ("one", "two"):
            session = await db.session(f"agent:main:web:{name}")
            await session.append_many([user("x" * 10 ** (number % 4)) for number in range(7)])
        report = await db.gc(RetentionPolicy(max_sessions=0, idle_days=0), dry_run=True)
    weighed = {decision.session_no: decision.bytes for decision in report.decisions}
    assert weighed == dict(
        query(
            tmp_db,
            "SELECT entry_no >> 32, sum(octet_length(payload)) FROM entry GROUP BY 1",
        )
    )


@pytest.mark.anyio
async def test_what_an_archive_would_not_make_smaller_is_not_planned_for_space(
    tmp_db: Path,
) -> None:
    """Small sessions: an archive of one takes more than it frees. A deletion frees all of it."""
    async with sessiondb.open(tmp_db) as db:
        for number in range(10):
            await aged(db, f"small-{number}", 5 + number, size=300)
        large = await aged(db, "large", 3, size=100_000)
        before = await db.status()
        planned = await retention.gc(db.backend, RetentionPolicy(max_bytes=1), dry_run=True)
        report = await retention.gc(db.backend, RetentionPolicy(max_bytes=1))
        assert [one.session_id for one in report.decisions if one.outcome == "done"] == [large.id]
        assert [one.session_id for one in planned.decisions if one.outcome == "planned"] == [
            large.id
        ]
        kept = [one for one in report.decisions if one.outcome == "kept"]
        assert len(kept) == 10
        assert all("would free nothing" in one.reason for one in kept)
        assert (await db.status()).file_bytes < before.file_bytes
        again = await retention.gc(db.backend, RetentionPolicy(max_bytes=1))
        assert again.count("done") == 0
        assert again.bytes_after == again.bytes_before
        deleted = await retention.gc(db.backend, RetentionPolicy(max_bytes=1, archive=False))
        assert deleted.count("done") == 10


GROWN = (
    "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name GLOB '*archive*' OR name GLOB '*event*'"
)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("entries", "size"), [(2, 100), (2, 1_000), (4, 500), (8, 500), (16, 300), (30, 800)]
)
async def test_archives_take_no_more_than_a_plan_counts_for_them(
    tmp_db: Path, entries: int, size: int
) -> None:
    sessions = 40
    async with sessiondb.open(tmp_db) as db:
        for number in range(sessions):
            session = await db.session(f"agent:main:web:{number}")
            at = number * 900
            for _ in range(entries):
                await session.append(user(PROSE[at : at + size]))
                at = (at + size) % (len(PROSE) - size)
        [before] = query(tmp_db, GROWN)
        report = await retention.gc(db.backend, RetentionPolicy(max_sessions=0, idle_days=0))
        [after] = query(tmp_db, GROWN)
    texts = sum(one.bytes for one in report.decisions) / sessions
    counted = retention_plan.ARCHIVE_RATIO * texts + retention_plan.ARCHIVE_BYTES
    assert 0.2 * counted < (after - before) / sessions < counted


PROSE = (ROOT / "docs" / "design.md").read_text().encode("ascii", "replace").decode()


@pytest.mark.anyio
async def test_small_sessions_go_for_space_together_with_their_neighbours(tmp_db: Path) -> None:
    """One alone frees no whole page. Twelve side by side halve what they took."""
    async with sessiondb.open(tmp_db) as db:
        names = [f"cold-{number}" for number in range(12)]
        for number, name in enumerate(names):
            session = await db.session(f"agent:main:web:{name}")
            for turn in range(8):
                at = number * 4_000 + turn * 400
                await session.append(user(PROSE[at : at + 400]))
            await set_age(db, session, now_ms() - 30 * DAY_MS)
        # Of two more, each is between two sessions that stay.
        for name in ("alone", "alone-too"):
            await aged(db, f"{name}-before", 1)
            session = await db.session(f"agent:main:web:{name}")
            await session.append_many([user(PROSE[:400])] * 8)
            await set_age(db, session, now_ms() - 40 * DAY_MS)
        await aged(db, "last", 1)
        before = (await retention_plan.measure(db.backend)).used
        decisions = await retained(db, max_bytes=1, idle_days=2)
        assert removed(decisions) == sorted(names)
        assert "would free nothing" in decisions["alone"][2]
        assert "would free nothing" in decisions["alone-too"][2]
        after = (await retention_plan.measure(db.backend)).used
        assert before - after > 12 * 1_500
        assert (await db.verify()).findings == ()
