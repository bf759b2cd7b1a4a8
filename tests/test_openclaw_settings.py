"""OpenClaw's settings become policies; an impossible value is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from sessiondb.errors import InvalidInput
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.openclaw_settings import reset_policy, resume_policy
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
def test_reset_settings_map_whether_the_whole_file_or_its_session_part_is_given(
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
