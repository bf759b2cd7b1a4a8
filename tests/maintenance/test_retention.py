"""What retention lets go and why, what it leaves alone, and that nobody waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.errors import InvalidInput, StoreBusy
from sessiondb.gateway.running_turn import Answer
from sessiondb.maintenance import archive, retention
from sessiondb.maintenance.retention_plan import DAY_MS, RetentionPolicy
from sessiondb.openclaw_settings import parse_bytes, parse_days, retention_policy
from sessiondb.sqlite import throttle
from tests.maintenance.test_archive import Dying, dump
from tests.support.core import change, query, reply, user

ALL_TABLES = (
    "session",
    "binding",
    "branch",
    "entry",
    "epoch",
    "compaction",
    "import_file",
    "quarantine",
    "lane",
    "turn",
    "inbox",
    "outbox",
    "event",
    "event_cursor",
    "archive",
    "archive_chunk",
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def aged(
    db: sessiondb.SessionDB, name: str, days: float, *, agent: str = "main", size: int = 10
) -> sessiondb.Session:
    """Make a session that has not changed for so many days."""
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
            "import_file.date_session", session_no=number, created_at_ms=ms, updated_at_ms=ms
        ),
    )


async def run(db: sessiondb.SessionDB, **limits: Any) -> dict[str, tuple[str, str, str]]:
    """Run retention; return action, outcome and reason by key's last part, for sessions that a decision names."""
    names = {}
    async for info in db.sessions(with_ended=True):
        if info.keys:
            names[info.session_id] = info.keys[0].rpartition(":")[2]
    report = await db.gc(RetentionPolicy(**limits), every=True)
    assert report.ok
    assert (await db.verify()).findings == ()
    return {
        names.get(created.session_id, created.session_id): (
            created.action,
            created.outcome,
            created.reason,
        )
        for created in report.decisions
    }


def gone(decisions: dict[str, tuple[str, str, str]]) -> list[str]:
    return sorted(name for name, (_, outcome, _) in decisions.items() if outcome == "done")


# -- limits -------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_without_a_limit_nothing_goes(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await aged(db, "old", 4_000)
        assert await run(db) == {"old": ("keep", "kept", "within every limit")}


@pytest.mark.anyio
async def test_what_has_not_changed_for_too_long_goes(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in (2, 29, 31, 90):
            await aged(db, f"d{days}", days)
        decisions = await run(db, max_age_days=30)
        assert gone(decisions) == ["d31", "d90"]
        assert decisions["d90"] == ("archive", "done", "has not changed for 90 days (limit 30)")
        assert [info.keys async for info in db.sessions()] == [
            ("agent:main:web:d2",),
            ("agent:main:web:d29",),
        ]


@pytest.mark.anyio
async def test_of_too_many_sessions_those_that_changed_longest_ago_go(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in (2, 3, 4, 5):
            await aged(db, f"d{days}", days)
        decisions = await run(db, max_sessions=2)
        assert gone(decisions) == ["d4", "d5"]
        assert decisions["d4"][2] == "it is number 3 by last change (limit 2)"
        assert gone(await run(db, max_sessions=2)) == []


@pytest.mark.anyio
async def test_of_an_agents_keys_those_that_were_used_longest_ago_go(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in (2, 3, 4):
            await aged(db, f"m{days}", days)
            await aged(db, f"o{days}", days + 10, agent="other")
        unbound = await aged(db, "unbound", 50)
        await db.unbind("agent:main:web:unbound")
        decisions = await run(db, max_bindings_per_agent=2)
        assert gone(decisions) == ["m4", "o4"]
        assert decisions[unbound.id][0] == "keep"
        assert "agent other has more than 2 keys" in decisions["o4"][2]


@pytest.mark.anyio
async def test_a_database_that_is_too_large_loses_its_oldest_until_it_is_at_the_high_water_mark(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in range(2, 12):
            session = await aged(db, f"d{days:02}", days)
            await session.append_many([user("the same words again and again " * 300)] * 20)
            ms = now_ms() - days * DAY_MS
            await set_age(db, session, ms)
        used = (await db.status()).file_bytes
        decisions = await run(db, max_bytes=used * 3 // 4, high_water=0.8)
        after = await db.status()
    going = gone(decisions)
    assert going == [f"d{days:02}" for days in range(12 - len(going), 12)]
    assert 4 <= len(going) <= 7
    assert after.file_bytes - after.free_bytes <= used * 3 // 4
    assert decisions["d11"][2].startswith("the database holds ")
    assert "limit" in decisions["d11"][2]


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
        [event] = await db.read(
            "events",
            lambda tx: tx.all("events.after_for", after_no=0, audience="operator", limit=9),
        )
        assert (event.kind, "1 archived" in event.text) == ("retention_done", True)


@pytest.mark.anyio
async def test_that_no_page_can_be_given_back_now_does_not_undo_what_was_archived(
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
async def test_archives_go_when_they_are_old_enough(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)
        policy = RetentionPolicy(max_age_days=30, archive_days=10)
        await db.gc(policy)
        assert (await db.gc(policy)).decisions == ()
        report = await retention.gc(db.backend, policy, now_ms=now_ms() + 11 * DAY_MS)
        [created] = report.decisions
        assert (created.action, created.outcome, created.reason) == (
            "drop",
            "done",
            "archived 11 days ago (limit 10)",
        )
        with pytest.raises(sessiondb.NotFound, match="cannot be restored"):
            await db.restore(session.id)
        assert (await db.verify()).findings == ()
    assert query(tmp_db, "SELECT count(*) FROM archive_chunk") == [0]
    assert query(tmp_db, "SELECT state FROM archive WHERE finished_at_ms IS NOT NULL") == [
        "deleted"
    ]


@pytest.mark.anyio
async def test_deleting_without_an_archive_happens_only_when_asked_for(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await aged(db, "old", 90)
        decisions = await run(db, max_age_days=30, archive=False)
        assert decisions["old"][:2] == ("delete", "done")
    assert query(tmp_db, "SELECT count(*) FROM archive_chunk") == [0]


# -- protection ---------------------------------------------------------------------------------------------


async def pinned(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    await session.pin()
    return "pinned"


async def active(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    await session.append(user("just now"))
    return "it changed within 1 day"


async def with_a_message(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    await db.accept("web", "1", "agent:main:web:old", user("hello"))
    return "messages of it wait or are being worked on"


async def with_a_fork(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    fork = await session.fork()
    return f"session {fork.id} was forked from it and uses its entries"


async def restored(db: sessiondb.SessionDB, session: sessiondb.Session) -> str:
    archive_no, _ = await archive.begin(db.backend, session.ref.session_no, "for the test")
    assert archive_no is not None
    await archive.advance(db.backend, archive_no)
    await db.restore(session.id)
    return "it was restored within 1 day"


@pytest.mark.parametrize("protect", [pinned, active, with_a_message, with_a_fork, restored])
@pytest.mark.anyio
async def test_what_is_protected_stays_whatever_the_limits_say(
    tmp_db: Path, protect: Callable[..., Any]
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)
        await aged(db, "other", 91)
        why = await protect(db, session)
        entries = await session.arrivals()
        decisions = await run(db, max_age_days=30, max_sessions=0)
        assert decisions["other"][1] == "done"
        action, outcome, reason = decisions["old"]
        assert (action, outcome, reason.partition(", but ")[2]) == ("keep", "kept", why)
        assert await session.arrivals() == entries


@pytest.mark.anyio
async def test_a_running_compaction_a_running_turn_and_open_replies_protect_their_session(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)

        async def reason() -> str:
            [created] = (await db.gc(RetentionPolicy(max_sessions=0, idle_days=0))).decisions
            assert (created.session_id, created.outcome) == (session.id, "kept")
            return created.reason.partition(", but ")[2]

        async with session.compact(keep_recent_tokens=0) as job:
            assert await reason() == "a compaction of it is running"
            await job.commit("said")
        seen: list[str] = []

        async def handler(turn: Any) -> Answer:
            seen.append(await reason())
            return Answer(entries=[reply("yes")], replies=[("web:1", {"text": "yes"})])

        await db.accept("web", "1", "agent:main:web:old", user("hello"))
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
        assert await reason() == "nobody knows whether a reply of it was sent; settle that first"
        await db.settle_reply(unknown[0].outbox_no, "sent")
        [created] = (await db.gc(RetentionPolicy(max_sessions=0, idle_days=0))).decisions
        assert created.outcome == "done"
        assert (await db.verify()).findings == ()


def test_what_is_still_being_imported_stays(tmp_path: Path, sample: Path) -> None:
    path = tmp_path / "gateway.db"
    with sessiondb.sync.open(path) as db:
        db.import_path(str(sample))
        ref = next(iter(db.sessions(with_ended=True)))

    of_it = f"session_no = (SELECT session_no FROM session WHERE session_id = '{ref.session_id}')"
    change(path, f"UPDATE import_file SET state = 'reading' WHERE {of_it}")
    with sessiondb.sync.open(path) as db:
        report = db.gc(RetentionPolicy(max_sessions=0, idle_days=0))
    [kept] = [created for created in report.decisions if created.outcome == "kept"]
    assert kept.session_id == ref.session_id
    assert kept.reason.endswith("an import of it has not come to its end")


@pytest.mark.anyio
async def test_an_unpinned_session_may_go(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await aged(db, "old", 90)
        await session.pin()
        await session.pin()
        await session.unpin()
        assert gone(await run(db, max_age_days=30)) == ["old"]


# -- a dry run, and beside the gateway ----------------------------------------------------------------------


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
        (created.session_id, created.action, created.reason, created.bytes)
        for created in dry.decisions
    ] == [
        (created.session_id, created.action, created.reason, created.bytes)
        for created in wet.decisions
    ]
    assert (dry.count("planned"), wet.count("done"), dry.kept, wet.kept) == (2, 2, 2, 2)


@pytest.mark.anyio
async def test_appends_and_turns_go_on_between_the_steps_of_a_large_session(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        throttle, "SHARE_BESIDE_CALLERS", 0.25
    )  # what is shown here needs no long pauses
    monkeypatch.setattr(archive, "COMPARE_PAUSE_S", 0.01)
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
                await db.accept("web", str(steps), "agent:main:web:user", user("hello"))
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


@pytest.mark.anyio
async def test_a_plan_reads_sessions_a_page_at_a_time_and_no_entry_of_those_that_stay(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for number in range(450):
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
        assert rows["retention.newest"] == [200, 200, 51]
        assert rows["import_file.entry_sizes"] == [3]
        assert rows["archive.protection"] == [1]


@pytest.mark.anyio
async def test_a_decision_names_the_limit_that_asks_for_it(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for days in (0, 5, 40):
            await aged(db, f"d{days}", days)

        async def rules(**limits: Any) -> list[tuple[str, str]]:
            report = await retention.gc(
                db.backend, RetentionPolicy(**limits), dry_run=True, every=True
            )
            return [(created.action, created.rule) for created in report.decisions]

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
        assert [(created.action, created.rule) for created in report.decisions] == [
            ("drop", "archive_age")
        ]


# -- settings -----------------------------------------------------------------------------------------------


def test_openclaws_settings_become_a_policy() -> None:
    maintenance = {
        "mode": "warn",
        "pruneAfter": "30d",
        "maxEntries": 500,
        "maxDiskBytes": "10gb",
        "highWaterBytes": "8gb",
        "resetArchiveRetention": "12w",
        "preserveRecent": "36h",
        "archiveDashboardAfter": "7d",
    }
    expected = RetentionPolicy(
        enforce=False,
        max_age_days=30,
        max_sessions=500,
        max_bytes=10 * 1024**3,
        high_water=0.8,
        archive_days=84,
        idle_days=1.5,
        prune_days=30,
    )
    assert retention_policy({"session": {"maintenance": maintenance}}) == expected
    assert retention_policy({"maintenance": maintenance}) == expected


@pytest.mark.parametrize("settings", [{}, {"session": {}}, {"session": {"maintenance": {}}}])
def test_settings_that_say_nothing_limit_nothing(settings: dict[str, Any]) -> None:
    assert retention_policy(settings) == RetentionPolicy()


def test_a_limit_that_is_false_or_zero_is_off() -> None:
    off = {
        "pruneAfter": False,
        "maxEntries": 0,
        "maxDiskBytes": False,
        "resetArchiveRetention": False,
        "preserveRecent": False,
    }
    assert retention_policy({"session": {"maintenance": off}}) == RetentionPolicy(idle_days=0)


@pytest.mark.parametrize(("message", "share"), [("80%", 0.8), (512, 0.5), ("0.5kb", 0.5)])
def test_the_high_water_mark_is_a_size_or_a_share(message: Any, share: float) -> None:
    policy = retention_policy({"maintenance": {"maxDiskBytes": 1024, "highWaterBytes": message}})
    assert policy.high_water == share


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pruneAfter", "30 fortnights", "the unit 'fortnights'"),
        ("pruneAfter", "soon", "not a number with a unit"),
        ("pruneAfter", True, "not True"),
        ("maxDiskBytes", "10 gallons", "the unit 'gallons'"),
        ("maxDiskBytes", [], r"not \[\]"),
        ("maxEntries", "many", "a number of sessions"),
        ("maxEntries", -1, "a number of sessions"),
        ("mode", "maybe", '"enforce" or "warn"'),
        ("pruneafter", "30d", "no such setting"),
    ],
)
def test_an_impossible_setting_is_an_error_that_names_it(
    key: str, value: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        retention_policy({"session": {"maintenance": {key: value}}})
    assert f"session.maintenance.{key}" in str(caught.value)


def test_a_high_water_mark_above_the_limit_is_an_error() -> None:
    with pytest.raises(InvalidInput, match=r"session\.maintenance\.highWaterBytes"):
        retention_policy(
            {"session": {"maintenance": {"maxDiskBytes": "1gb", "highWaterBytes": "2gb"}}}
        )


@pytest.mark.parametrize(
    ("text", "days"),
    [("30d", 30), ("36h", 1.5), ("1w", 7), ("7", 7), (" 1.5 D ", 1.5), ("90m", 0.0625), ("0", 0)],
)
def test_a_length_of_time_has_a_unit_or_is_days(text: str, days: float) -> None:
    assert parse_days(text) == days


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10gb", 10 * 1024**3),
        ("500MB", 500 * 1024**2),
        ("1.5kb", 1536),
        ("12", 12),
        ("1 tb", 1024**4),
    ],
)
def test_a_size_has_a_unit_or_is_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size
