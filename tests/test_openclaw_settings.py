"""OpenClaw's settings become policies, and an impossible value is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from sessiondb.errors import InvalidInput
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.maintenance.retention_plan import RetentionPolicy
from sessiondb.openclaw_settings import (
    parse_bytes,
    parse_days,
    reset_policy,
    resume_policy,
    retention_policy,
)
from sessiondb.transcript.keys import parse_key
from sessiondb.transcript.reset_policy import ResetPolicy


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        ({}, ResetPolicy()),
        ({"reset": {"mode": "none"}}, ResetPolicy()),
        ({"reset": {"mode": "daily"}}, ResetPolicy(mode="daily", at_hour=4)),
        ({"reset": {"mode": "daily", "atHour": 0}}, ResetPolicy(mode="daily", at_hour=0)),
        (
            {"reset": {"mode": "daily", "atHour": 5, "idleMinutes": 120}},
            ResetPolicy(mode="daily", at_hour=5, idle_minutes=120),
        ),
        (
            {"reset": {"mode": "idle", "idleMinutes": 120}},
            ResetPolicy(mode="idle", idle_minutes=120),
        ),
        ({"reset": {"atHour": 6}}, ResetPolicy(mode="daily", at_hour=6)),
        ({"reset": {"idleMinutes": 7}}, ResetPolicy(mode="idle", idle_minutes=7)),
        ({"idleMinutes": 30}, ResetPolicy(mode="idle", idle_minutes=30)),
        ({"idleMinutes": 30, "reset": {"mode": "none"}}, ResetPolicy()),
        (
            {
                "resetByType": {
                    "dm": {"mode": "idle", "idleMinutes": 240},
                    "thread": {"mode": "daily"},
                }
            },
            ResetPolicy(
                by_type={
                    "direct": ResetPolicy(mode="idle", idle_minutes=240),
                    "thread": ResetPolicy(mode="daily"),
                }
            ),
        ),
        ({"resetByType": {"group": None}, "resetByChannel": {"web": None}}, ResetPolicy()),
        (
            {"resetByChannel": {"Discord": {"mode": "idle", "idleMinutes": 10_080}}},
            ResetPolicy(by_channel={"discord": ResetPolicy(mode="idle", idle_minutes=10_080)}),
        ),
    ],
)
def test_reset_settings_map_from_the_file_or_its_session_part(
    session: dict[str, Any], expected: ResetPolicy
) -> None:
    assert reset_policy(session) == expected
    assert reset_policy({"agents": {"list": []}, "session": session}) == expected


def test_a_time_zone_holds_for_every_part() -> None:
    session = {
        "reset": {"mode": "daily"},
        "resetByType": {"group": {"mode": "daily"}},
        "resetByChannel": {"web": {"mode": "daily"}},
    }
    policy = reset_policy(session, time_zone="Asia/Tokyo")
    for key in ("agent:main:main", "agent:main:irc:group:1", "agent:main:web:channel:1"):
        assert policy.for_key(parse_key(key)).time_zone == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("threads", "expected"),
    [
        (None, ResumePolicy()),
        ({}, ResumePolicy()),
        (
            {"enabled": True, "maxAgeHours": 0, "idleHours": 24},
            ResumePolicy(max_age_hours=0, idle_hours=24),
        ),
        ({"maxAgeHours": 1.5}, ResumePolicy(max_age_hours=1.5)),
    ],
)
def test_ages_of_threads_become_the_resume_policys(
    threads: dict[str, Any] | None, expected: ResumePolicy
) -> None:
    assert resume_policy({"session": {"threadBindings": threads}}) == expected


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"session": {"reset": {"mode": "weekly"}}}, "session.reset.mode"),
        ({"session": {"reset": {"mode": "daily", "atHour": 24}}}, "session.reset.atHour"),
        ({"session": {"reset": {"mode": "daily", "atHour": "four"}}}, "session.reset.atHour"),
        ({"session": {"reset": {"mode": "idle"}}}, "needs idle_minutes"),
        ({"session": {"reset": {"mode": "idle", "idleMinutes": -1}}}, "session.reset.idleMinutes"),
        ({"session": {"reset": {"idleMinuets": 5}}}, "session.reset.idleMinuets"),
        (
            {"session": {"reset": {"idleMinutes": True}}},
            "session.reset.idleMinutes: must be a number, not true",
        ),
        ({"session": {"reset": "daily"}}, "session.reset is an object, not str"),
        ({"session": {"resetByType": {"dm": {"mode": "x"}}}}, "session.resetByType.dm.mode"),
        (
            {"session": {"resetByType": {"channel": {"mode": "daily"}}}},
            "session.resetByType.channel",
        ),
        (
            {"session": {"resetByChannel": {"discord": ["daily"]}}},
            "session.resetByChannel.discord is an object, not list",
        ),
        ({"session": []}, "session is an object, not list"),
    ],
)
def test_an_impossible_reset_setting_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        reset_policy(settings)
    assert named in str(caught.value)


@pytest.mark.parametrize("threads", [{"maxAgeHours": -1}, {"idleHours": "a day"}, ["maxAgeHours"]])
def test_an_impossible_resume_setting_is_named(threads: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^session\.threadBindings( is|\.(maxAge|idle)Hours)"):
        resume_policy({"session": {"threadBindings": threads}})


# -- retention -------------------------------------------------------------------------


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
def test_empty_settings_limit_nothing(settings: dict[str, Any]) -> None:
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


@pytest.mark.parametrize("mark", ["2gb", "101%", "0%", 0])
def test_a_high_water_mark_of_nothing_or_above_the_limit_is_an_error(mark: Any) -> None:
    with pytest.raises(InvalidInput, match=r"session\.maintenance\.highWaterBytes.*not between"):
        retention_policy(
            {"session": {"maintenance": {"maxDiskBytes": "1gb", "highWaterBytes": mark}}}
        )


def test_the_high_water_mark_may_be_the_limit_itself() -> None:
    policy = retention_policy({"maintenance": {"maxDiskBytes": "1gb", "highWaterBytes": "1gb"}})
    assert policy.high_water == 1


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
        ("12b", 12),
        ("1 tb", 1024**4),
    ],
)
def test_a_size_has_a_unit_or_is_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size
