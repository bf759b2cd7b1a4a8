"""The verdict on a database: each rule with what is just enough for it, and just not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessiondb import sync
from sessiondb.limits import MIB, OUTBOX_WAITING_MAX
from sessiondb.maintenance import health
from sessiondb.maintenance.status import ChannelStatus, DatabaseStatus, Stuck, WorkStatus
from sessiondb.models import Lane
from tests.support.command_line import ok, on_terminal, run
from tests.support.gateway_commands import accept, dead_letter

NOW = 1_800_000_000_000
MINUTE = 60_000
WORK = WorkStatus(*([0] * len(dataclasses.fields(WorkStatus))))
LANE = Lane(
    lane="main",
    concurrency=4,
    priority=0,
    people=True,
    running=1,
    waiting=3,
    oldest_waiting_ms=NOW - 1000,
    interrupted=0,
    dead=0,
    paused_at_ms=None,
    settings=None,
)
WELL = DatabaseStatus(
    path="/data/gate way.db",
    at_ms=NOW,
    schema_version=4,
    file_bytes=100 * MIB,
    free_bytes=0,
    wal_bytes=16 * MIB,
    wal_bytes_max=16 * MIB,
    sessions=1,
    sessions_ended=None,
    keys=None,
    entries=None,
    compactions=None,
    running=(),
    stuck=(),
    import_files=0,
    lines_damaged=None,
    lines_blank=None,
    processes=(),
    processes_open=0,
    gateway=WORK,
    lanes=(LANE, dataclasses.replace(LANE, lane="cron", people=False, oldest_waiting_ms=None)),
    channels=(ChannelStatus("web", OUTBOX_WAITING_MAX - 1, None, None),),
    disk_free_bytes=1024 * MIB,
)


def stuck(what: str, problem: str, name: str = "7") -> Stuck:
    return Stuck(
        what, name, problem, None, None, f"2026-01-0{name}", None, None, None, "why", "do this"
    )


def waiting(minutes: float, *, people: bool = True) -> dict[str, Any]:
    oldest = NOW - round(minutes * MINUTE)
    return {"lanes": (dataclasses.replace(LANE, people=people, oldest_waiting_ms=oldest),)}


def judged(**changes: Any) -> list[tuple[str, str]]:
    alarms = health.judge(dataclasses.replace(WELL, **changes))
    return [(alarm.level, alarm.rule) for alarm in alarms]


def test_nothing_is_said_when_all_is_well() -> None:
    assert judged() == []
    assert WELL.verdict == "green"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (waiting(5), []),
        (waiting(5.1), [("yellow", "lane: backlog")]),
        (waiting(30), [("yellow", "lane: backlog")]),
        (waiting(30.1), [("red", "lane: backlog")]),
        (waiting(30.1, people=False), [("yellow", "lane: backlog")]),
        ({"wal_bytes": 16 * MIB + 1}, [("yellow", "wal: over its limit")]),
        ({"wal_bytes": 64 * MIB + 1}, [("red", "wal: over its limit")]),
        ({"disk_free_bytes": 1024 * MIB - 1}, [("yellow", "disk: little room")]),
        ({"disk_free_bytes": 64 * MIB - 1}, [("red", "disk: little room")]),
        ({"disk_free_bytes": None}, []),
        ({"file_bytes": 20_000 * MIB}, [("yellow", "disk: little room")]),
        ({"concerns": ("others can read it",)}, [("yellow", "access")]),
        (
            {"channels": (ChannelStatus("web", OUTBOX_WAITING_MAX, None, None),)},
            [("red", "channel: full")],
        ),
        ({"stuck": (stuck("lane", "not run"),)}, [("red", "lane: not run")]),
        ({"stuck": (stuck("turn", "past its lease"),)}, [("red", "turn: past its lease")]),
        ({"stuck": (stuck("message", "dead"),)}, [("yellow", "message: dead")]),
        ({"stuck": (stuck("reply", "unknown"),)}, [("yellow", "reply: unknown")]),
        ({"stuck": (stuck("of a later release", "odd"),)}, [("yellow", "of a later release: odd")]),
    ],
)
def test_a_rule_speaks_when_its_bound_is_passed(
    changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert judged(**changes) == expected


def test_the_worst_comes_first_and_is_the_verdict() -> None:
    several = (stuck("message", "dead"), stuck("channel", "nothing is sent"))
    alarms = health.judge(dataclasses.replace(WELL, stuck=several, concerns=("open",)))
    assert [alarm.level for alarm in alarms] == ["red", "yellow", "yellow"]
    assert dataclasses.replace(WELL, alarms=alarms).verdict == "red"
    assert dataclasses.replace(WELL, alarms=alarms[1:]).verdict == "yellow"


def test_many_of_one_kind_are_one_line_with_their_number() -> None:
    several = tuple(stuck("reply", "unknown", name) for name in "325")
    work = dataclasses.replace(WORK, replies_unknown=120)
    for gateway, number in ((WORK, "3 replies"), (work, "120 replies")):
        (alarm,) = health.judge(dataclasses.replace(WELL, stuck=several, gateway=gateway))
        assert alarm.text == f"{number}: unknown, the first since 2026-01-02"
        assert alarm.next_step == "sessiondb stuck '/data/gate way.db'"
    (alone,) = health.judge(dataclasses.replace(WELL, stuck=several[:1]))
    assert (alone.text, alone.next_step) == ("reply 3: unknown, since 2026-01-03", "do this")


# -- the command ---------------------------------------------------------------------------


def calm(monkeypatch: pytest.MonkeyPatch, free_bytes: int = 2**40) -> None:
    """Let the disk have room, whatever this machine's has."""
    monkeypatch.setattr("sessiondb.maintenance.status._disk_free_bytes", lambda _path: free_bytes)


def test_status_shows_a_verdict_and_what_waits(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm(monkeypatch)
    accept(tmp_db, "one", "two")
    text = ok("status", tmp_db)
    assert "verdict:      green: nothing needs a person" in text
    assert "main: 0 of 4 running, 2 waiting, the oldest for " in text
    assert "disk:         1.0 TiB free" in text
    found = json.loads(ok("status", tmp_db, "--json"))
    assert (found["verdict"], found["alarms"]) == ("green", [])
    assert found["lanes"][0]["waiting"] == 2


def make_yellow(path: Path, _: pytest.MonkeyPatch) -> None:
    first, _second = accept(path, "one", "two")
    dead_letter(path, first, "test")


def make_red(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_yellow(path, monkeypatch)
    calm(monkeypatch, free_bytes=1)


@pytest.mark.parametrize(
    ("make", "verdict", "code"),
    [(lambda *_: None, "green", 0), (make_yellow, "yellow", 1), (make_red, "red", 2)],
)
def test_a_monitor_gets_a_line_and_an_exit_code(
    tmp_db: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path, pytest.MonkeyPatch], None],
    verdict: str,
    code: int,
) -> None:
    calm(monkeypatch)
    with sync.open(tmp_db):
        pass
    make(tmp_db, monkeypatch)
    checked = run("status", tmp_db, "--check")
    assert checked.exit_code == code
    (line,) = checked.stdout.splitlines()
    assert line.startswith(verdict.upper())
    as_json = run("status", tmp_db, "--check", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["verdict"]) == (code, verdict)
    assert run("status", tmp_db).exit_code == 0
    assert run("status", tmp_db.with_name("none.db"), "--check").exit_code == 4


def test_an_alarm_says_what_to_do(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm(monkeypatch)
    make_yellow(tmp_db, monkeypatch)
    lines = ok("status", tmp_db).splitlines()
    assert lines[0] == "verdict:      yellow"
    assert "yellow: message 1: dead, since " in lines[1]
    assert f"sessiondb dead {tmp_db} --requeue 1" in lines[2]


def test_a_busy_status_is_one_screen(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_red(tmp_db, monkeypatch)
    with sync.open(tmp_db) as opened:
        for number in range(8):
            opened.accept(
                f"agent:main:web:direct:{number}",
                {"role": "user", "content": "x"},
                channel="web",
                event_id=f"more {number}",
            )
        text, _ = on_terminal("status", tmp_db, columns=80)
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
