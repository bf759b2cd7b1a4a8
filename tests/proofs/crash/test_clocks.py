"""The wall clock jumps by a day, a pid is used again, the machine restarts.

The clock labels rows and ends leases. It orders nothing. So entries, epochs, messages
and events keep their order whatever the clock does. No accepted message is lost or
waits for a time that has been. Claims of a dead process are released by asking the
kernel, not the clock. Only limits of age follow the clock, by their nature (retention,
resumes).
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessiondb
from sessiondb import CompactionCoolDown, process
from sessiondb.gateway import leases, outbox
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.limits import COOL_DOWN_AFTER, INBOX_ATTEMPTS_MAX, RETRY_PAUSE_MS_MAX
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.sqlite import transaction
from sessiondb.sqlite.alive_file import SUFFIX, name_of
from tests.proofs.crash.harness import Templates, Zygote, zygote
from tests.support.core import change, query, reply, texts, user
from tests.support.engine import PATIENCE_S
from tests.support.gateway import (
    KEY,
    LEASE_MS,
    claim,
    claimed,
    complete,
    eventually,
    fail,
    held_message,
    look,
    running,
    say,
)

DAY_S = 86_400.0
JUMPS = (-DAY_S, DAY_S)


class Wall:
    """The machine's wall clock, as somebody sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset_s = 0.0
        real, real_ns, real_clock_ns = time.time, time.time_ns, time.clock_gettime_ns
        monkeypatch.setattr(time, "time", lambda: real() + self.offset_s)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + self._offset_ns())
        # The library reads the wall clock by its number, the coarse one as well.
        monkeypatch.setattr(
            time,
            "clock_gettime_ns",
            lambda number: (
                real_clock_ns(number) + (0 if number == time.CLOCK_MONOTONIC else self._offset_ns())
            ),
        )

    def jump(self, seconds: float) -> None:
        self.offset_s += seconds

    def _offset_ns(self) -> int:
        return round(self.offset_s * 1_000_000_000)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop is enough: this is about rows and times, not about waiting."""
    return "asyncio"


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


@pytest.fixture(name="zygote")
def first_zygote() -> Zygote:
    return zygote()


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("templates"))


# -- transcripts -----------------------------------------------------------------------


@pytest.mark.anyio
async def test_jumps_of_the_clock_change_no_order_in_a_transcript(tmp_db: Path, wall: Wall) -> None:
    message = [f"message {number}" for number in range(12)]
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        for number, text in enumerate(message):
            wall.jump((-DAY_S, 2 * DAY_S, -DAY_S)[number % 3])
            await session.append(user(text) if number % 2 == 0 else reply(text))
        assert texts(await session.context()) == message
        assert [entry.seq for entry in await session.all_entries(limit=100)] == list(
            range(len(message) + 1)
        )
        for _ in range(2):
            async with session.compact(trigger="manual", keep_recent_tokens=5) as job:
                wall.jump(-DAY_S)
                await job.renew(60.0)
                assert (await job.commit("They talked.")).outcome == "committed"
            wall.jump(DAY_S * 3)
            await session.append(user("more"))
            await session.append(reply("and more"))
        await session.undo_compaction()
        wall.jump(-10 * DAY_S)
        await session.reset()
        assert [epoch.reason for epoch in await session.epochs()] == [
            "start",
            "compaction",
            "compaction",
            "undo",
            "reset",
        ]
        report = await db.verify()
        assert report.ok, report.findings
    times = query(tmp_db, "SELECT appended_at_ms FROM entry ORDER BY entry_no")
    assert times != sorted(times), "the clock did jump"


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", JUMPS)
async def test_a_summary_begun_before_a_jump_is_committed(
    tmp_db: Path, wall: Wall, seconds: float
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append_many([user("question " * 50), reply("answer " * 50)])
        async with session.compact(trigger="manual", keep_recent_tokens=1, timeout_s=30.0) as job:
            wall.jump(seconds)
            await session.append(user("meanwhile"))
            assert (await job.commit("They talked.")).outcome == "committed"
        assert texts(await session.context())[-1] == "meanwhile"
        assert (await db.verify()).ok


@pytest.mark.anyio
async def test_a_clock_set_back_does_not_prolong_a_cool_down(tmp_db: Path, wall: Wall) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append_many([user("question " * 50), reply("answer " * 50)])
        for _ in range(COOL_DOWN_AFTER):
            async with session.compact(trigger="threshold", keep_recent_tokens=1) as job:
                assert (await job.commit("")).outcome == "rejected"
        with pytest.raises(CompactionCoolDown):
            async with session.compact(trigger="threshold", keep_recent_tokens=1):
                pytest.fail("it is in cool-down")
        wall.jump(-DAY_S)
        async with session.compact(trigger="threshold", keep_recent_tokens=1) as job:
            assert (await job.commit("They talked.")).outcome == "committed"


# -- inbox and outbox ------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", JUMPS)
async def test_messages_are_claimed_in_order_across_a_jump(
    tmp_db: Path, wall: Wall, seconds: float
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "first")
        wall.jump(seconds)
        await say(db, "second")
        for wanted in ("first", "second"):
            started = await claimed(db)
            assert (await look(db, "inbox"))[started.inbox_no - 1].event_id == wanted
            await complete(db, started.turn_no, "yes")
        assert (await db.verify()).ok


@pytest.mark.anyio
async def test_a_clock_set_back_does_not_delay_the_retry_of_a_turn(
    tmp_db: Path, wall: Wall
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "first")
        await fail(db, (await claimed(db)).turn_no)
        assert await claim(db) is None, "it has a pause first"
        wall.jump(-DAY_S)
        wall.jump(RETRY_PAUSE_MS_MAX / 1000)
        assert (await claimed(db)).attempt == 2


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", JUMPS)
async def test_replies_are_sent_in_order_across_a_jump(
    tmp_db: Path, wall: Wall, seconds: float
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "first")
        await complete(
            db, (await claimed(db)).turn_no, "yes", replies=[("web:1", "one"), ("web:1", "two")]
        )
        wall.jump(seconds)
        sent: list[str] = []

        async def sender(outgoing: sessiondb.Reply) -> str:
            if not sent:
                wall.jump(-seconds / 2)
            sent.append(outgoing.payload)
            return "receipt"

        async def both() -> bool:
            return [row.state for row in await look(db, "outbox")] == ["sent", "sent"]

        async with running(partial(db.run_outbox, sender)):
            await eventually(both)
        assert sent == ['"one"', '"two"']


@pytest.mark.anyio
async def test_a_clock_set_back_does_not_delay_the_retry_of_a_reply(
    tmp_db: Path, wall: Wall
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "first")
        await complete(db, (await claimed(db)).turn_no, "yes", replies=[("web:1", "one")])
        begin = partial(outbox.begin_sending, lease_ms=LEASE_MS)
        outgoing = await db.write("begin", begin)
        assert outgoing is not None
        await db.write(
            "refused", lambda tx: outbox.refused(tx, outgoing, "over its rate", retry=True)
        )
        assert await db.write("begin", begin) is None, "it has a pause first"
        wall.jump(-DAY_S)
        wall.jump(RETRY_PAUSE_MS_MAX / 1000)
        assert (await db.write("begin", begin)) is not None


@pytest.mark.parametrize("statement", ["outbox.due", "inbox.due"])
def test_the_statements_know_the_longest_pause_that_there_is(statement: str) -> None:
    assert f":now_ms + {RETRY_PAUSE_MS_MAX}" in transaction.statements()[statement].sql


# -- leases ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_lease_renewed_after_a_jump_back_is_as_short_as_any(
    tmp_db: Path, wall: Wall
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "first")
        started = await claimed(db)
        wall.jump(-DAY_S)
        await db.write(
            "renew",
            lambda tx: leases.renew(tx, started.turn_no, lease_ms=LEASE_MS, operation=None),
        )
        [turn] = await look(db, "turns")
        assert turn.expires_at_ms - wall.now_ms() <= LEASE_MS


@pytest.mark.anyio
async def test_a_lane_keeps_its_turns_when_the_clock_jumps_forward(
    tmp_db: Path, wall: Wall
) -> None:
    begun, release = anyio.Event(), anyio.Event()
    looks = 0

    async def handler(turn: Turn) -> Answer:
        begun.set()
        await release.wait()
        return Answer([reply("yes")])

    async def ended() -> bool:
        return [turn.state for turn in await look(db, "turns")] != ["running"]

    async with sessiondb.open(tmp_db) as db:
        read = db.backend.read

        async def counted(fn: Any, *, op: str) -> Any:
            nonlocal looks
            found = await read(fn, op=op)
            looks += op == "lane.look"
            return found

        db.backend.read = counted  # type: ignore[method-assign]
        await say(db, "first")
        async with running(
            partial(db.run_lane, "main", handler, settings=LaneSettings(lease_s=60.0))
        ):
            with anyio.fail_after(PATIENCE_S):
                await begun.wait()
                wall.jump(DAY_S)
                before = looks
                while looks < before + 3:  # it has looked, and done what it thought right
                    await db.set_lane("another", concurrency=1, priority=1)
                    await anyio.lowlevel.checkpoint()
                release.set()
            await eventually(ended)
        assert [(turn.state, turn.attempt) for turn in await look(db, "turns")] == [
            ("completed", 1)
        ]


@pytest.mark.parametrize("seconds", JUMPS)
def test_claims_of_the_dead_are_released_whatever_the_clock(
    seconds: float, templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    world = templates.world("recover", tmp_path / "world")
    death = world.hear(zygote.live(world.order(options={"clock_s": seconds})))
    [recovered] = [line for line in death.lines if line["saw"] == "recovered"]
    assert (recovered["turns"], recovered["replies"], recovered["compactions"]) == (3, 1, 1)
    world.check()


@pytest.mark.anyio
async def test_unclean_ends_in_the_future_do_not_stop_resumes(tmp_db: Path, wall: Wall) -> None:
    async with sessiondb.open(tmp_db, program="gone") as db:
        await held_message(db, "first")
        me = process.identity()
        for _ in range(3):
            now_ms = wall.now_ms()
            await db.write(
                "dead",
                lambda tx, now_ms=now_ms: tx.one(
                    "look.dead_process",
                    host=me.host,
                    boot_id="",
                    now_ms=now_ms,
                    closed_at_ms=now_ms,
                    unclean=1,
                ),
            )
        assert [created.action for created in await db.plan_resumes()] == ["breaker"]
        wall.jump(-DAY_S)
        assert [created.action for created in await db.plan_resumes()] == ["resume"]


@pytest.mark.anyio
async def test_a_message_too_old_to_resume_is_a_dead_letter(tmp_db: Path, wall: Wall) -> None:
    """How old is too old follows the clock. That it is said, and can be undone, does not."""
    async with sessiondb.open(tmp_db) as db:
        inbox_no = await held_message(db, "first")
        wall.jump(2 * DAY_S)
        [decision] = await db.resume(ResumePolicy(max_age_hours=24))
        assert (decision.action, decision.inbox_no) == ("skip", inbox_no)
        assert [letter.inbox_no async for letter in db.dead_letters()] == [inbox_no]
        report = {(row.kind, row.audience) for row in await look(db, "events")}
        assert {("message_dead", "user"), ("message_dead", "operator")} <= report
        wall.jump(-2 * DAY_S)
        await db.requeue(inbox_no)
        assert (await claimed(db)).inbox_no == inbox_no
        assert INBOX_ATTEMPTS_MAX > 1


@pytest.mark.anyio
@pytest.mark.parametrize("days", [-40, -1, 1, 40])
async def test_retention_after_a_jump_of_the_clock_loses_nothing(
    tmp_db: Path, wall: Wall, days: int
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append_many([user("question"), reply("answer")])
        before = await session.context()
        wall.jump(days * DAY_S)
        report = await db.gc(RetentionPolicy(max_age_days=30, max_sessions=0))
        missing = days >= 1  # not within `idle_days` any more, says the clock
        assert report.count("done") == missing
        if missing:
            wall.jump(-days * DAY_S)
            await db.unarchive(session.id)
        assert (await session.context()).as_json() == before.as_json()
        assert (await db.verify()).ok


# -- who lives -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "given_back"),
    [
        ("its number and start time belong to another process", True),
        ("its host has another name, as a container has at each start", True),
        ("the machine was started again, and its lock file is gone", True),
        ("its file was copied, and opened elsewhere", True),
        ("its lock file is gone", False),
    ],
)
def test_the_dead_are_known_by_their_lock_alone(
    now: str, given_back: bool, templates: Templates, tmp_path: Path
) -> None:
    """A dead process's row is made to look like that of this test's process, which lives."""
    world = templates.world("recover", tmp_path / "world")
    me = process.identity()
    change(
        world.path,
        (
            f"UPDATE instance SET host = '{me.host}', boot_id = '{me.boot_id}', "
            f"pid = {os.getpid()}, pid_started = {me.pid_started}, "
            f"database_file = '{name_of(str(world.path))}'"
        ),
        {
            "its number and start time belong to another process": "SELECT 1",
            "its host has another name, as a container has at each start": (
                "UPDATE instance SET host = 'a container', boot_id = 'before'"
            ),
            "the machine was started again, and its lock file is gone": (
                "UPDATE instance SET boot_id = 'before', lock_file = '1:1'"
            ),
            "its file was copied, and opened elsewhere": (
                "UPDATE instance SET database_file = '1:1', lock_file = '1:2'"
            ),
            "its lock file is gone": "UPDATE instance SET lock_file = '1:1'",
        }[now],
        f"UPDATE instance SET lock_file = '{made(world.path)}' WHERE lock_file NOT LIKE '1:%'",
    )

    async def recover() -> tuple[int, int]:
        async with sessiondb.open(world.path) as db:
            recovered = await db.recover()
            return recovered.turns, len(await db.held())

    turns, held = anyio.run(recover)
    assert (turns, held) == ((3, 0) if given_back else (0, 5)), (
        "three turns, a compaction and a reply that is being sent"
    )


def made(path: Path) -> str:
    """Return what identifies a database's lock file. Make it if it is not there."""
    lock_file = Path(f"{path}{SUFFIX}")
    lock_file.touch(0o600)
    return name_of(str(lock_file))


def give_its_number_away(path: Path) -> None:
    """Give processes that are not closed this process's pid and start time."""
    me = process.identity()
    change(
        path,
        (
            f"UPDATE instance SET pid = {me.pid}, pid_started = {me.pid_started} WHERE "
            "closed_at_ms IS NULL"
        ),
    )


@pytest.mark.parametrize("boot", ["first", "second"])
def test_claims_of_the_dead_are_freed_although_their_pid_is_alive(
    boot: str, templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    """On the same start of the machine as after the next one."""
    world = templates.world("gateway", tmp_path / "world")
    world.scenario = "recover"
    assert world.hear(
        zygote.live(world.order("holding", scenario="hold", options={"boot": "first"}))
    ).killed
    give_its_number_away(world.path)
    death = world.hear(zygote.live(world.order(options={"boot": boot})))
    assert death.code == 0
    [report] = [line for line in death.lines if line["saw"] == "recovered"]
    assert (report["turns"], report["compactions"], report["replies"]) == (3, 1, 1)
    # The machine starts once more in the middle of what it had begun to do about it.
    options = {"boot": boot, "accept": False}
    assert world.hear(
        zygote.live(
            world.order("before COMMIT of turn.end", 2, scenario="gateway", options=options)
        )
    ).killed
    give_its_number_away(world.path)
    assert (
        world.hear(
            zygote.live(world.order(scenario="gateway", options={**options, "boot": "third"}))
        ).code
        == 0
    )
    world.check_end()  # the summary of the first start's compaction comes last, and counts
    assert set(query(world.path, "SELECT DISTINCT boot_id FROM instance")) >= {
        "first",
        boot,
        "third",
    }


@pytest.mark.parametrize(
    "step", ["compacting", "before COMMIT of compaction.commit", "after COMMIT of compaction.begin"]
)
def test_a_conversation_and_its_compaction_survive_a_reboot(
    step: str, templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    world = templates.world("talk", tmp_path / "world")
    assert world.hear(zygote.live(world.order(step, options={"boot": "first"}))).killed
    give_its_number_away(world.path)
    death = world.hear(zygote.live(world.order(options={"boot": "second"})))
    assert death.code == 0, death
    world.check_end()
    # The first start's job was given back, not waited for. The second's has the
    # compaction.
    states = query(
        world.path,
        (
            "SELECT state, boot_id FROM compaction JOIN instance USING (instance_no) ORDER BY "
            "compaction_no"
        ),
    )
    assert [boot for _, boot in states] == ["first", "second"]
    assert states[-1] == ("committed", "second")
    assert states[0][0] != "running"


def test_claims_of_the_unknown_end_with_their_leases(
    templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    """Nothing can be known about a process whose lock file has gone.

    So its leases run out first, and then are taken over once.
    """
    world = templates.world("recover", tmp_path / "world")
    change(
        world.path,
        (
            "UPDATE instance SET lock_file = '1:1', "
            f"database_file = '{name_of(str(world.path))}', boot_id = '{process.boot_id()}'"
        ),
        (
            "UPDATE turn SET expires_at_ms = renewed_at_ms, deadline_ms = renewed_at_ms WHERE "
            "state = 'running'"
        ),
        "UPDATE outbox SET expires_at_ms = created_at_ms WHERE state = 'sending'",
    )
    death = world.hear(zygote.live(world.order(scenario="gateway")))
    assert death.code == 0
    assert query(world.path, "SELECT DISTINCT reason FROM turn WHERE state = 'interrupted'") == [
        "its lease ran out"
    ]
    assert query(world.path, "SELECT what FROM held") == ["compaction"], (
        "it ends when the next one begins, after its deadline"
    )
    assert query(world.path, "SELECT state, reason FROM outbox WHERE outbox_no = 1") == [
        ("unknown", "its sender was not heard of in time")
    ]
