"""A run of retention archives, deletes and frees space while the gateway works, and reports it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.errors import (
    StoreBusy,
)
from sessiondb.gateway.running_turn import Answer
from sessiondb.maintenance import archive_rows, retention
from sessiondb.maintenance.retention_plan import DAY_MS, RetentionPolicy
from sessiondb.sqlite import throttle
from tests.support.core import query, reply, user
from tests.support.maintenance import (
    ALL_TABLES,
    Dying,
    aged,
    dump,
    now_ms,
    retained,
    set_age,
)


@pytest.mark.anyio
async def test_space_comes_back_and_the_report_says_how_much(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)
        await session.append_many([user("word " * 2_000)] * 200)
        report = await retention.gc(
            db.backend, RetentionPolicy(max_age_days=1), now_ms=now_ms() + 9 * DAY_MS
        )
        assert report.bytes_after < report.bytes_before / 4
        assert report.bytes_free == 0
        status = await db.status()
        assert status.file_bytes == report.bytes_after
        ended, event = await db.read(
            "events",
            lambda tx: tx.all("events.after_for", after_no=0, audience="operator", limit=9),
        )
        assert (ended.kind, ended.data) == ("session_ended", '{"why":"archived"}')
        assert (event.kind, "1 archived" in event.text) == ("retention_done", True)


@pytest.mark.anyio
async def test_a_busy_vacuum_does_not_undo_what_was_archived(
    tmp_db: Path,
) -> None:
    class Locked(Dying):
        async def incremental_vacuum(self, pages: int) -> int:
            raise StoreBusy("another process is writing", retry_after_ms=1)

    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)
        await session.append_many([user("word " * 2_000)] * 50)
        report = await retention.gc(
            Locked(db.backend, -1), RetentionPolicy(max_sessions=0, idle_days=0)
        )
        assert report.count("done") == 1
        assert report.bytes_free > report.bytes_before / 2
        assert (await db.gc(RetentionPolicy())).bytes_free == 0


@pytest.mark.anyio
async def test_free_pages_do_not_let_a_second_run_archive_more(tmp_db: Path) -> None:
    """A limit in bytes is about what sessions hold. Free pages hold nothing."""

    class Locked(Dying):
        async def incremental_vacuum(self, pages: int) -> int:
            raise StoreBusy("another process is writing", retry_after_ms=1)

    async def fill(db: sessiondb.SessionDB, name: str, days: float) -> None:
        session = await aged(db, name, days)
        await session.append_many([user("the same words again and again " * 300)] * 20)
        await set_age(db, session, now_ms() - round(days * DAY_MS))

    async def went(backend: Any) -> set[str]:
        """Run retention. Its plan names more sessions than are needed: archives are small."""
        planned = await retention.gc(backend, policy, dry_run=True)
        report = await retention.gc(backend, policy)
        assert report.ok
        assert [one.session_id for one in report.decisions] == [
            one.session_id for one in planned.decisions
        ]
        found = {one.session_id for one in report.decisions if one.outcome == "done"}
        notes = {one.note for one in report.decisions if one.session_id not in found}
        assert notes == ({"enough space has been freed"} if found else set())
        return found

    async with sessiondb.open(tmp_db) as db:
        for days in range(2, 12):
            await fill(db, f"d{days:02}", days)
        limit = (await db.status()).file_bytes * 3 // 4
        policy = RetentionPolicy(max_bytes=limit)
        locked = Locked(db.backend, -1)
        first = await went(locked)
        assert first
        status = await db.status()
        assert status.file_bytes > limit > status.file_bytes - status.free_bytes
        assert await went(locked) == set()
        # New sessions use the pages. Then it is too much again, and the oldest go.
        for days in range(12, 18):
            await fill(db, f"d{days}", days)
        second = await went(locked)
        assert second
        assert second & first == set()
        assert await went(locked) == set()
        assert await went(db.backend) == set()
        assert (await db.status()).free_bytes == 0
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_archives_go_when_they_are_old_enough(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)
        policy = RetentionPolicy(max_age_days=30, archive_days=10)
        await db.gc(policy)
        assert (await db.gc(policy)).decisions == ()
        report = await retention.gc(db.backend, policy, now_ms=now_ms() + 11 * DAY_MS)
        [decision] = report.decisions
        assert (decision.action, decision.outcome, decision.reason) == (
            "drop",
            "done",
            "archived 11 days ago (limit 10)",
        )
        with pytest.raises(sessiondb.NotFound, match="cannot be restored"):
            await db.unarchive(session.id)
        assert (await db.verify()).findings == ()
    assert query(tmp_db, "SELECT count(*) FROM archive_chunk") == [0]
    assert query(tmp_db, "SELECT state FROM archive WHERE finished_at_ms IS NOT NULL") == [
        "deleted"
    ]


@pytest.mark.anyio
async def test_sessions_are_deleted_without_an_archive_on_request(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await aged(db, "old", 90)
        decisions = await retained(db, max_age_days=30, archive=False)
        assert decisions["old"][:2] == ("delete", "done")
    assert query(tmp_db, "SELECT count(*) FROM archive_chunk") == [0]


@pytest.mark.parametrize("options", [{"dry_run": True}, {}])
@pytest.mark.anyio
async def test_a_dry_run_decides_the_same_and_changes_nothing(
    tmp_db: Path, options: dict[str, bool]
) -> None:
    policy = RetentionPolicy(max_age_days=30, max_sessions=2, enforce="dry_run" in options)
    async with sessiondb.open(tmp_db) as db:
        for days in (2, 3, 4, 40):
            await aged(db, f"d{days}", days)
    before = dump(tmp_db, *ALL_TABLES)
    async with sessiondb.open(tmp_db) as db:
        dry = await db.gc(policy, **options)
    assert dump(tmp_db, *ALL_TABLES) == before
    async with sessiondb.open(tmp_db) as db:
        wet = await db.gc(policy.model_copy(update={"enforce": True}))
    assert dry.dry_run
    assert [
        (decision.session_id, decision.action, decision.reason, decision.bytes)
        for decision in dry.decisions
    ] == [
        (decision.session_id, decision.action, decision.reason, decision.bytes)
        for decision in wet.decisions
    ]
    assert (dry.count("planned"), wet.count("done"), dry.kept, wet.kept) == (2, 2, 2, 2)


@pytest.mark.anyio
async def test_appends_and_turns_proceed_between_the_steps(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        throttle, "SHARE_BESIDE_CALLERS", 0.25
    )  # what is shown here needs no long pauses
    monkeypatch.setattr(archive_rows, "COMPARE_PAUSE_S", 0.01)
    async with sessiondb.open(tmp_db) as db:
        old = await aged(db, "old", 90)
        for _ in range(3):
            await old.append_many([user("word " * 50)] * 1_000)
        user_session = await db.session("agent:main:web:user")
        steps = 0

        class Interleaved(Dying):
            """Between any two steps somebody appends, and a message is answered."""

            async def step(self, fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
                nonlocal steps
                await user_session.append(user(f"between {steps}"))
                await db.accept(
                    "agent:main:web:user", user("hello"), channel="web", event_id=str(steps)
                )
                steps += 1
                return await self.backend.step(fn, op=op, **options)

        answered = 0

        async def handler(turn: Any) -> Answer:
            nonlocal answered
            answered += 1
            return Answer(entries=[reply("yes")])

        async with anyio.create_task_group() as group:
            group.start_soon(db.run_lane, "main", handler)
            report = await retention.gc(
                Interleaved(db.backend, -1), RetentionPolicy(max_sessions=1, idle_days=0)
            )
            while answered < steps:
                await db.backend.wait_change(db.backend.change_count, 0.1)
            group.cancel_scope.cancel()
        assert report.count("done") == 1
        assert steps > 20
        assert (await db.verify()).findings == ()
    assert query(tmp_db, "SELECT count(*) FROM entry WHERE payload LIKE '%between%'") == [steps]


class _Vacuum:
    """A backend whose steps of freeing pages are given."""

    def __init__(self, steps: list[int | StoreBusy]) -> None:
        self.steps = steps

    async def incremental_vacuum(self, pages: int) -> int:
        step = self.steps.pop(0)
        if isinstance(step, StoreBusy):
            raise step
        return min(step, pages)


FULL = retention.VACUUM_PAGES
BUSY = StoreBusy("another process reads an older state", retry_after_ms=1)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("steps", "freed"),
    [
        ([0], 0),
        ([3], 3),
        ([FULL, FULL, 0], 2 * FULL),
        ([FULL, FULL, 7], 2 * FULL + 7),
        ([BUSY], 0),
        ([FULL, BUSY], FULL),
    ],
)
async def test_pages_are_freed_in_steps_until_one_is_not_full(
    steps: list[int | StoreBusy], freed: int
) -> None:
    backend: Any = _Vacuum([*steps])
    assert await retention.free_pages(backend) == freed
    assert backend.steps == []


def test_a_run_for_space_ends_when_it_is_enough_or_when_nothing_helps() -> None:
    def ends(used: list[int]) -> list[str | None]:
        space = retention._Space(RetentionPolicy(max_bytes=1_000, high_water=0.5), 2_000)
        return [space.ends_because(bytes_) for bytes_ in used]

    assert ends([2_000, 1_900, 501]) == [None] * 3
    assert ends([2_000, 1_900, 500])[2] == "enough space has been freed"
    grows = list(range(2_000, 2_000 + retention.IN_VAIN_MAX + 1))
    assert ends(grows) == [*[None] * retention.IN_VAIN_MAX, "the sessions before it freed no space"]
    # One that frees a page after many that freed none goes on.
    assert ends([*grows[:-1], 1_999, *grows[:-1]]) == [None] * (2 * len(grows) - 1)
