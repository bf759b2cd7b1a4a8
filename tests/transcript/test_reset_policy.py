"""When a conversation is stale, through time zones and clock changes, and how it is reset."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import anyio
import apsw
import pytest

import sessiondb
from sessiondb.gateway import dead_letters
from sessiondb.transcript.keys import parse_key
from sessiondb.transcript.reset_policy import (
    ResetPolicy,
    channel_of,
    conversation_of,
    day_began_at_ms,
    reset_due,
)
from tests.support.gateway import claimed, complete, interrupt, look, say

KEY = "agent:main:discord:channel:1"
HOUR_MS = 3_600_000


def ms(text: str, zone: str = "UTC") -> int:
    """Return a local time as milliseconds. With a time zone of its own in the text, that one."""
    stamp = datetime.fromisoformat(text)
    return round(
        (stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=ZoneInfo(zone))).timestamp()
        * 1000
    )


# -- the rule --------------------------------------------------------------------------

DAILY = {"mode": "daily", "at_hour": 4, "time_zone": "UTC"}
IDLE = {"mode": "idle", "idle_minutes": 60}
BOTH = {**DAILY, "idle_minutes": 60}


@pytest.mark.parametrize(
    ("policy", "began", "heard", "now", "expected"),
    [
        # daily: what counts is when it began, whoever spoke since
        (DAILY, "2026-05-01T05:00", "2026-05-01T05:00", "2026-05-02T03:59:59.999", None),
        (DAILY, "2026-05-01T05:00", "2026-05-02T03:59", "2026-05-02T04:00", "daily"),
        (DAILY, "2026-05-02T03:59", "2026-05-02T03:59", "2026-05-02T04:00", "daily"),
        (DAILY, "2026-05-02T04:00", "2026-05-02T04:00", "2026-05-02T04:00", None),
        (DAILY, "2026-05-02T04:00", "2026-05-02T04:00", "2026-05-02T23:59", None),
        (DAILY, "2026-01-01T12:00", "2026-01-01T12:00", "2026-05-02T12:00", "daily"),
        (
            {**DAILY, "at_hour": 0},
            "2026-05-01T23:59",
            "2026-05-01T23:59",
            "2026-05-02T00:00",
            "daily",
        ),
        (
            {**DAILY, "at_hour": 23},
            "2026-05-01T22:59",
            "2026-05-01T22:59",
            "2026-05-01T23:30",
            "daily",
        ),
        # idle: what counts is who was heard last
        (IDLE, "2026-05-01T05:00", "2026-05-01T12:00", "2026-05-01T13:00", None),
        (IDLE, "2026-05-01T05:00", "2026-05-01T12:00", "2026-05-01T13:00:00.001", "idle"),
        (IDLE, "2026-05-01T12:30", "2026-05-01T12:00", "2026-05-01T13:15", None),
        (
            {**IDLE, "idle_minutes": 0.5},
            "2026-05-01T12:00",
            "2026-05-01T12:00",
            "2026-05-01T12:00:31",
            "idle",
        ),
        # both: whichever comes first
        (BOTH, "2026-05-01T05:00", "2026-05-01T05:00", "2026-05-01T07:00", "idle"),
        (BOTH, "2026-05-01T05:00", "2026-05-02T03:50", "2026-05-02T04:10", "daily"),
        (BOTH, "2026-05-02T04:05", "2026-05-02T04:05", "2026-05-02T04:50", None),
        # none: never, whatever else is set
        (
            {"mode": "none", "idle_minutes": 1},
            "2020-01-01T00:00",
            "2020-01-01T00:00",
            "2026-05-01T00:00",
            None,
        ),
        # a clock that was set back makes nothing stale
        (IDLE, "2026-05-01T12:00", "2026-05-01T12:00", "2026-05-01T11:00", None),
        (
            {**DAILY, "at_hour": 12},
            "2026-05-01T12:00",
            "2026-05-01T12:00",
            "2026-05-01T11:00",
            None,
        ),
    ],
)
def test_a_conversation_is_stale_by_the_table(
    policy: dict, began: str, heard: str, now: str, expected: str | None
) -> None:
    found = reset_due(
        ResetPolicy(**policy), began_at_ms=ms(began), heard_at_ms=ms(heard), now_ms=ms(now)
    )
    assert found == expected


@pytest.mark.parametrize(
    ("zone", "hour", "now", "expected"),
    [
        ("UTC", 4, "2026-05-02T04:00+00:00", "2026-05-02T04:00+00:00"),
        ("UTC", 4, "2026-05-02T03:59+00:00", "2026-05-01T04:00+00:00"),
        # the same moment belongs to different days
        ("Asia/Tokyo", 4, "2026-05-01T19:00+00:00", "2026-05-02T04:00+09:00"),
        ("America/Los_Angeles", 4, "2026-05-02T10:59+00:00", "2026-05-01T04:00-07:00"),
        ("Asia/Kolkata", 4, "2026-05-01T22:30+00:00", "2026-05-02T04:00+05:30"),
        # Vienna, spring: 02:00 to 03:00 does not exist on 29 March. The day turns one real hour
        # after 01:00.
        ("Europe/Vienna", 4, "2026-03-29T04:00+02:00", "2026-03-29T04:00+02:00"),
        ("Europe/Vienna", 4, "2026-03-29T03:59+02:00", "2026-03-28T04:00+01:00"),
        ("Europe/Vienna", 2, "2026-03-29T01:59+01:00", "2026-03-28T02:00+01:00"),
        ("Europe/Vienna", 2, "2026-03-29T03:30+02:00", "2026-03-29T03:00+02:00"),
        # Vienna, autumn: 02:00 to 03:00 comes twice on 25 October. The day turns at the first.
        ("Europe/Vienna", 2, "2026-10-25T01:59+02:00", "2026-10-24T02:00+02:00"),
        ("Europe/Vienna", 2, "2026-10-25T02:30+02:00", "2026-10-25T02:00+02:00"),
        ("Europe/Vienna", 2, "2026-10-25T02:00+01:00", "2026-10-25T02:00+02:00"),
        ("Europe/Vienna", 2, "2026-10-26T01:59+01:00", "2026-10-25T02:00+02:00"),
        ("Europe/Vienna", 4, "2026-10-25T03:59+01:00", "2026-10-24T04:00+02:00"),
    ],
)
def test_the_local_day_follows_its_zone_and_clock_changes(
    zone: str, hour: int, now: str, expected: str
) -> None:
    policy = ResetPolicy(mode="daily", at_hour=hour, time_zone=zone)
    assert day_began_at_ms(policy, ms(now)) == ms(expected)


@pytest.fixture
def vienna(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("vienna")
def test_without_a_time_zone_the_machines_rules_hold() -> None:
    local, named = (
        ResetPolicy(mode="daily", at_hour=4, time_zone=zone) for zone in (None, "Europe/Vienna")
    )
    for day in (
        "2026-01-15",
        "2026-07-15",
        "2026-03-28",
        "2026-03-29",
        "2026-03-30",
        "2026-10-24",
        "2026-10-25",
        "2026-10-26",
    ):
        for hour in range(24):
            now_ms = ms(f"{day}T{hour:02}:30+00:00")
            assert day_began_at_ms(local, now_ms) == day_began_at_ms(named, now_ms), (day, hour)


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd", "/etc/localtime"])
def test_a_time_zone_that_does_not_exist_is_refused_with_a_hint(zone: str) -> None:
    with pytest.raises(ValueError, match="such as Europe/Vienna"):
        ResetPolicy(mode="daily", time_zone=zone)


def test_idle_without_minutes_is_refused() -> None:
    with pytest.raises(ValueError, match="needs idle_minutes"):
        ResetPolicy(mode="idle")


@pytest.mark.parametrize(
    ("key", "conversation", "channel"),
    [
        ("agent:main:main", "direct", None),
        ("agent:main:discord:direct:42", "direct", "discord"),
        ("agent:main:discord:channel:1", "group", "discord"),
        ("agent:main:telegram:group:-100", "group", "telegram"),
        ("agent:main:telegram:group:-100:thread:7", "thread", "telegram"),
        ("agent:main:telegram:bot2:direct:5", "direct", "telegram"),
        ("agent:main:cron:backup", "direct", None),
        ("agent:main:cron:backup:nightly", "direct", None),
        ("agent:main:cron:backup:of:direct", "direct", None),
    ],
)
def test_a_key_says_its_type_of_conversation_and_its_channel(
    key: str, conversation: str, channel: str | None
) -> None:
    assert (conversation_of(parse_key(key)), channel_of(parse_key(key))) == (conversation, channel)


def test_a_channels_policy_precedes_a_types_policy() -> None:
    rest, types, channels = (
        ResetPolicy(mode="idle", idle_minutes=minutes) for minutes in (1, 2, 3)
    )
    policy = rest.model_copy(
        update={"by_type": {"group": types}, "by_channel": {"discord": channels}}
    )
    assert policy.for_key(parse_key("agent:main:discord:channel:1")) == channels
    assert policy.for_key(parse_key("agent:main:telegram:group:1")) == types
    assert policy.for_key(parse_key("agent:main:main")) == policy


# -- the reset -------------------------------------------------------------------------


def age(path: Path, hours: float) -> None:
    """Move everything that a closed database remembers into the past."""
    connection = apsw.Connection(str(path))
    for table, column in (
        ("epoch", "opened_at_ms"),
        ("entry", "appended_at_ms"),
        ("session", "updated_at_ms"),
        ("session", "heard_at_ms"),
    ):
        connection.execute(
            f"UPDATE {table} SET {column} = {column} - {round(hours * HOUR_MS)}"
        ).fetchall()
    connection.close()


HALF_AN_HOUR = ResetPolicy(mode="idle", idle_minutes=30)


@pytest.mark.anyio
async def test_a_stale_conversation_begins_anew_once(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append({"role": "user", "content": "yesterday's question"})
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) is None
    age(tmp_db, 1)
    async with sessiondb.open(tmp_db) as db:
        assert await db.reset_if_due(KEY, ResetPolicy()) is None
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) == "idle"
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) is None
        session = await db.session(KEY)
        context = await session.context()
        assert (context.messages, context.epoch) == ([], 1)
        assert (await db.verify()).ok
    age(tmp_db, 48)
    async with sessiondb.open(tmp_db) as db:
        for policy in (HALF_AN_HOUR, ResetPolicy(mode="daily")):
            assert await db.reset_if_due(KEY, policy) is None, (
                "nothing was said since the last reset: another would say nothing"
            )


@pytest.mark.anyio
async def test_daily_counts_from_the_beginning(
    tmp_db: Path,
) -> None:
    daily = ResetPolicy(
        mode="daily", at_hour=datetime.now(tz=ZoneInfo("UTC")).hour, time_zone="UTC"
    )
    async with sessiondb.open(tmp_db) as db:
        await (await db.session(KEY)).append({"role": "user", "content": "before the hour"})
    age(tmp_db, 2)
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append({"role": "user", "content": "just now"})
        assert await db.reset_if_due(KEY, daily) == "daily"
        assert [epoch.reason for epoch in await session.epochs()] == ["start", "reset"]


@pytest.mark.anyio
async def test_replies_compactions_and_cron_keep_nothing_alive(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        for number in range(6):
            await session.append({"role": "user", "content": f"question {number}"})
            await session.append(
                {"role": "assistant", "content": [{"type": "text", "text": "answer " * 60}]}
            )
    age(tmp_db, 1)
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        async with session.compact(keep_recent_tokens=100) as job:
            await job.commit("they talked")
        await session.append({"role": "assistant", "content": "a late thought"})
        await say(db, "tick", KEY, lane="cron")
        await complete(db, (await claimed(db, "cron")).turn_no)
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) == "idle"
    async with sessiondb.open(tmp_db) as db:
        await (await db.session(KEY)).append({"role": "user", "content": "a person"})
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) is None


@pytest.mark.anyio
async def test_a_resumed_cron_message_keeps_nothing_alive(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await (await db.session(KEY)).append({"role": "user", "content": "a person"})
    age(tmp_db, 1)
    async with sessiondb.open(tmp_db) as db:
        await say(db, "tick", KEY, lane="cron")
        await interrupt(db, (await claimed(db, "cron")).turn_no)
        for again in (True, False):  # the second time it is a resume that was interrupted
            await db.resume(sessiondb.ResumePolicy(skip_states=frozenset()))
            [waiting] = await look(db, "inbox")
            assert (waiting.lane, waiting.delayed) == ("resume", 1), (
                "its sender is not told late that it waits"
            )
            turn = await claimed(db, "resume")
            if again:
                await interrupt(db, turn.turn_no)
        await complete(db, turn.turn_no, "tock")
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) == "idle"


@pytest.mark.anyio
async def test_a_conversation_in_which_messages_wait_is_left_alone(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await (await db.session(KEY)).append({"role": "user", "content": "old"})
    age(tmp_db, 1)
    async with sessiondb.open(tmp_db) as db:
        accepted = await db.accept(
            KEY, {"role": "user", "content": "waits"}, channel="web", event_id="1"
        )
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) is None
        await interrupt(db, (await claimed(db)).turn_no)
    age(tmp_db, 1)
    async with sessiondb.open(tmp_db) as db:
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) is None, "it may be resumed"
        await db.write(
            "test.dead_letter",
            lambda tx: dead_letters.dead_letter(
                tx, accepted.inbox_no, tx.one("registry.by_key", session_key=KEY).session_no, "test"
            ),
        )
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) == "idle"


@pytest.mark.anyio
async def test_a_person_is_heard_however_much_a_turn_writes_since(tmp_db: Path) -> None:
    """Of two conversations, one was spoken to lately. Both have written more than anyone reads."""
    other = "agent:main:web:other"
    async with sessiondb.open(tmp_db, durability="normal") as db:
        for key in (KEY, other):
            await (await db.session(key)).append({"role": "user", "content": "old"})
    age(tmp_db, 1)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        await (await db.session(KEY)).append({"role": "user", "content": "and now?"})
        for key in (KEY, other):
            session = await db.session(key)
            for _ in range(3):
                await session.append_many(
                    [{"role": "toolResult", "toolCallId": "c", "content": "r"}] * 1_000
                )
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) is None
        assert await db.reset_if_due(other, HALF_AN_HOUR) == "idle"


@pytest.mark.anyio
@pytest.mark.parametrize("lane", ["main", "cron"])
async def test_only_a_person_is_heard_in_the_inbox(tmp_db: Path, lane: str) -> None:
    async with sessiondb.open(tmp_db) as db:
        await (await db.session(KEY)).append({"role": "user", "content": "old"})
    age(tmp_db, 1)
    async with sessiondb.open(tmp_db) as db:
        await db.accept(
            KEY, {"role": "user", "content": "hm"}, channel="web", event_id="1", lane=lane
        )
        await complete(db, (await claimed(db, lane)).turn_no, "yes")
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) == (None if lane == "main" else "idle")


@pytest.mark.anyio
async def test_a_session_that_has_ended_is_left_as_it_is(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await session.append({"role": "user", "content": "bye"})
        await session.end()
    age(tmp_db, 1)
    async with sessiondb.open(tmp_db) as db:
        assert await db.reset_if_due(KEY, HALF_AN_HOUR) is None


@pytest.mark.anyio
async def test_two_processes_that_ask_at_once_reset_once(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await (await db.session(KEY)).append({"role": "user", "content": "old"})
    age(tmp_db, 1)
    async with sessiondb.open(tmp_db) as one, sessiondb.open(tmp_db) as other:
        found: list[str | None] = []

        async def ask(db: sessiondb.SessionDB) -> None:
            found.append(await db.reset_if_due(KEY, HALF_AN_HOUR))

        async with anyio.create_task_group() as group:
            for db in (one, other, one, other):
                group.start_soon(ask, db)
        assert sorted(map(str, found)) == ["None", "None", "None", "idle"]
        assert [epoch.reason for epoch in await (await one.session(KEY)).epochs()] == [
            "start",
            "reset",
        ]


@pytest.mark.anyio
async def test_an_unknown_key_has_nothing_to_reset_and_is_not_created(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        assert await db.reset_if_due("agent:main:nobody", HALF_AN_HOUR) is None
        assert [info async for info in db.sessions()] == []
        with pytest.raises(sessiondb.InvalidKey):
            await db.reset_if_due("nobody", HALF_AN_HOUR)
