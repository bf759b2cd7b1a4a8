"""The command that prints and follows events, beside a real gateway."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sessiondb import events, sync
from sessiondb.backend import ReadTx
from sessiondb.errors import StoreBusy
from sessiondb.gateway import turns
from sessiondb.models import (
    Event,
)
from sessiondb.paging import Page
from sessiondb.words import (
    Audience,
)
from tests import ROOT
from tests.support import warm
from tests.support.command_line import TIMEOUT_S, fails, ok, run
from tests.support.gateway_commands import EVIL, GatewayStart, accept, emit, found, lines, says


def test_events_prints_the_last_ones_for_whom_one_asks(tmp_db: Path) -> None:
    emit(tmp_db, "first", f"evil {EVIL}", "third")
    emit(tmp_db, "please wait", audience="user")
    assert [event["text"] for event in lines("events", tmp_db)] == [
        "first",
        f"evil {EVIL}",
        "third",
        "please wait",
    ]
    assert [event["text"] for event in lines("events", tmp_db, "-n", "2")] == [
        "third",
        "please wait",
    ]
    assert [
        event["text"] for event in lines("events", tmp_db, "-n", "2", "--audience", "operator")
    ] == [f"evil {EVIL}", "third"]
    assert [event["text"] for event in lines("events", tmp_db, "--audience", "user")] == [
        "please wait"
    ]
    assert ok("events", tmp_db, "-n", "0") == ""
    shown = ok("events", tmp_db)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert len(shown.splitlines()) == 4


def test_a_position_is_stored_for_a_named_consumer_only(tmp_db: Path) -> None:
    emit(tmp_db, "one", "two", "three")
    for _ in range(2):
        assert len(lines("events", tmp_db)) == 3
    assert found("query", tmp_db, "select * from event_cursor") == []
    assert [event["text"] for event in lines("events", tmp_db, "--consumer", "ops", "-n", "2")] == [
        "two",
        "three",
    ]
    assert lines("events", tmp_db, "--consumer", "ops") == []
    emit(tmp_db, "four")
    assert [event["text"] for event in lines("events", tmp_db, "--consumer", "ops", "-n", "0")] == [
        "four"
    ], "-n is for a new one only"
    assert [event["text"] for event in lines("events", tmp_db, "--consumer", "pager")] == [
        "one",
        "two",
        "three",
        "four",
    ]
    assert fails(2, "events", tmp_db, "--consumer", " ")


def test_a_position_moves_past_events_of_the_other_audience(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit(tmp_db, "for a person", audience="user")
    emit(tmp_db, *(f"for operators {number}" for number in range(5)))
    assert [
        event["text"]
        for event in lines("events", tmp_db, "--audience", "user", "--consumer", "pages")
    ] == ["for a person"]
    assert found("query", tmp_db, "select event_no from event_cursor") == [{"event_no": 6}]

    looked: list[int] = []
    after = events.after

    def noted(tx: ReadTx, *, event_no: int, audience: Audience | None, limit: int) -> Page[Event]:
        looked.append(event_no)
        return after(tx, event_no=event_no, audience=audience, limit=limit)

    rounds = 0

    def pause(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            raise KeyboardInterrupt
        emit(tmp_db, "another for operators")

    monkeypatch.setattr(events, "after", noted)
    monkeypatch.setattr("sessiondb.cli.events.pause", pause)
    monkeypatch.setattr("sessiondb.cli.events.PAGE", 2)
    assert (
        run(
            "events", tmp_db, "-f", "-n", "1", "--audience", "user", "--consumer", "follower"
        ).exit_code
        == 130
    )
    assert looked == [0, 6, 6, 7], "each look begins where the one before it ended"
    assert found(
        "query", tmp_db, "select event_no from event_cursor where consumer = 'follower'"
    ) == [{"event_no": 8}]


@pytest.mark.parametrize("op", ["events", "events.cursor"], ids=["its read", "its position"])
def test_events_f_goes_on_after_a_busy_database(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    accept(tmp_db, "hang")
    emit(tmp_db, "first")
    busy = iter([StoreBusy("another process holds the lock; retry", retry_after_ms=1)] * 2)
    real_read, real_write, rounds = sync.SessionDB.read, sync.SessionDB.write, 0

    def refused(name: str) -> None:
        # Its start is not meant: what is busy then ends the command, as any other.
        if name == op and rounds and (error := next(busy, None)) is not None:
            raise error

    def read(self: sync.SessionDB, name: str, *args: Any) -> Any:
        refused(name)
        return real_read(self, name, *args)

    def write(self: sync.SessionDB, name: str, *args: Any) -> Any:
        refused(name)
        return real_write(self, name, *args)

    def pause(_seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            emit(tmp_db, "second")
        if rounds == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(sync.SessionDB, "read", read)
    monkeypatch.setattr(sync.SessionDB, "write", write)
    monkeypatch.setattr("sessiondb.cli.events.pause", pause)
    done = run("events", tmp_db, "-f", "-n", "1", "--consumer", "follower")
    assert done.exit_code == 130
    assert [done.stdout.count(word) for word in ("first", "second")] == [1, 1]
    assert done.stderr.count("another process holds the lock; retry. This command goes on.") == 2
    assert found("query", tmp_db, "select event_no from event_cursor") == found(
        "query", tmp_db, "select max(event_no) as event_no from event"
    )


def test_events_f_follows_a_gateway_in_another_process(tmp_db: Path, gateway: GatewayStart) -> None:
    accept(tmp_db, "hang")
    running = gateway()
    says(running, "hanging")
    emit(tmp_db, "before")
    command = [
        sys.executable,
        "-m",
        "sessiondb",
        "events",
        str(tmp_db),
        "-f",
        "--json",
        "-n",
        "1",
        "--audience",
        "operator",
    ]
    following = warm.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert following.stdout is not None
    try:
        assert json.loads(following.stdout.readline())["text"] == "before"
        emit(tmp_db, "from a third process")
        assert json.loads(following.stdout.readline())["text"] == "from a third process"
        with sync.open(tmp_db) as opened:
            [holding] = opened.held()
            opened.write(
                "test.interrupt", lambda tx: turns.interrupt(tx, holding.turn_no, "by the test")
            )
        interrupted = json.loads(following.stdout.readline())
        assert interrupted["kind"] == "turn_interrupted"
        assert "by the test" in interrupted["text"]
    finally:
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=TIMEOUT_S)
    assert following.returncode == 130
