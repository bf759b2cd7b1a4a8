"""The commands about a gateway's queue: their lists and decisions, beside a real gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import sync
from sessiondb.cli.terminal import cells
from tests.support.command_line import fails, ok, on_terminal, run
from tests.support.core import change, query
from tests.support.gateway_commands import (
    EVIL,
    KEY,
    GatewayStart,
    accept,
    dead_letter,
    found,
    hold,
    kill,
    lines,
    says,
)

# -- waiting and dead messages ---------------------------------------------------------------------


def test_inbox_lists_what_waits_oldest_first(tmp_db: Path) -> None:
    accept(tmp_db, "one", "two")
    accept(tmp_db, "three", key="agent:main:web:direct:2", lane="cron")
    waiting = found("inbox", tmp_db)
    assert [
        (message["event_id"].split()[-1], message["state"], message["lane"]) for message in waiting
    ] == [
        ("one", "queued", "main"),
        ("two", "queued", "main"),
        ("three", "queued", "cron"),
    ]
    assert [message["inbox_no"] for message in found("inbox", tmp_db, "-n", "2")] == [1, 2]
    table = ok("inbox", tmp_db)
    assert table.count("queued") == 3
    assert len(ok("inbox", tmp_db, "-n", "1").splitlines()) == 3


def test_inbox_reads_more_than_a_page(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessiondb.cli.queue_texts.PAGE", 3)
    accept(tmp_db, *map(str, range(8)))
    assert [message["inbox_no"] for message in found("inbox", tmp_db)] == list(range(1, 9))
    assert len(found("inbox", tmp_db, "-n", "7")) == 7


def test_a_wrong_mark_is_found_and_made_anew(tmp_db: Path) -> None:
    first, behind = accept(tmp_db, "one", "behind")
    [other] = accept(tmp_db, "two", key="agent:main:web:direct:2")
    assert query(tmp_db, "SELECT inbox_no FROM inbox WHERE waits") == [behind]
    change(tmp_db, f"UPDATE inbox SET waits = inbox_no IN ({first}, {other})")
    assert f"inbox {tmp_db} --line-up" in run("verify", tmp_db).output
    assert "3 messages and replies had a wrong mark" in ok("inbox", tmp_db, "--line-up")
    assert query(tmp_db, "SELECT inbox_no FROM inbox WHERE waits") == [behind]
    assert found("inbox", tmp_db, "--line-up") == {"changed": 0}
    ok("verify", tmp_db)


def test_inbox_of_one_session_has_no_other_message(tmp_db: Path) -> None:
    other = "agent:main:web:direct:2"
    accept(tmp_db, "one", "two")
    accept(tmp_db, "three", key=other)
    assert [row["inbox_no"] for row in found("inbox", tmp_db, "--session", KEY)] == [1, 2]
    assert [row["inbox_no"] for row in found("inbox", tmp_db, "--session", other)] == [3]
    assert [row["inbox_no"] for row in found("inbox", tmp_db, "--session", KEY, "-n", 1)] == [1]
    assert "agent:main:web:direct:3" in fails(
        3, "inbox", tmp_db, "--session", "agent:main:web:direct:3"
    )


def test_inbox_withdraws_what_waits_and_says_what_does_not(tmp_db: Path) -> None:
    accept(tmp_db, "one", "two", "three")
    assert ok("inbox", tmp_db, "--withdraw", 2) == "inbox item 2 is withdrawn\n"
    assert [row["inbox_no"] for row in found("inbox", tmp_db)] == [1, 3]
    assert "inbox item 2 does not wait (it is done)" in fails(3, "inbox", tmp_db, "--withdraw", 2)
    assert "inbox item 9 does not wait (it is not there)" in fails(
        3, "inbox", tmp_db, "--withdraw", 9
    )
    said = ok("inbox", tmp_db, "--withdraw", 1, "--withdraw", 3, "--json")
    assert json.loads(said) == {"withdrawn": [1, 3]}
    assert found("inbox", tmp_db) == []
    told = [event for event in lines("events", tmp_db) if event["kind"] == "message_withdrawn"]
    assert [event["data"]["inbox_no"] for event in told] == [2, 1, 3]
    ok("verify", tmp_db)


def test_dead_letters_are_listed_requeued_and_dropped(tmp_db: Path) -> None:
    first, second, third = accept(tmp_db, "one", "two", "three")
    dead_letter(tmp_db, first, f"the model {EVIL} refused")
    dead_letter(tmp_db, second, "cut off")
    letters = found("dead", tmp_db)
    assert [(letter["inbox_no"], letter["reason"]) for letter in letters] == [
        (second, "cut off"),
        (first, f"the model {EVIL} refused"),
    ]
    table = ok("dead", tmp_db)
    assert "cut off" in table
    assert "\x1b" not in table
    assert "waits in its lane again" in ok("dead", tmp_db, "--requeue", first)
    assert found("dead", tmp_db, "--drop", second) == {"requeued": [], "dropped": [second]}
    assert found("dead", tmp_db) == []
    assert sorted(message["inbox_no"] for message in found("inbox", tmp_db)) == [first, third]


def test_a_number_of_no_dead_letter_is_code_3_with_a_hint(tmp_db: Path) -> None:
    [waiting] = accept(tmp_db, "one")
    for option in ("--requeue", "--drop"):
        for number in (waiting, 999):
            assert "sessiondb dead DB" in fails(3, "dead", tmp_db, option, number)
    assert [message["state"] for message in found("inbox", tmp_db)] == ["queued"]


# -- replies ---------------------------------------------------------------------------------------


def test_an_unknown_reply_is_shown_and_settled_only_by_hand(
    tmp_db: Path, gateway: GatewayStart
) -> None:
    def in_state(state: str) -> list[int]:
        return [reply["outbox_no"] for reply in found("outbox", tmp_db, "--state", state)]

    def die_while_sending(count: int) -> None:
        sending = gateway()
        says(sending, *["sticking"] * count)
        kill(sending)
        with sync.open(tmp_db) as opened:
            assert opened.recover().replies == count

    accept(tmp_db, "stick")
    accept(tmp_db, "stick", key="agent:main:web:direct:2")
    die_while_sending(2)
    first, second = in_state("unknown")
    assert ok("outbox", tmp_db).count("unknown") == 2
    assert "will be sent again" in ok("outbox", tmp_db, "--resend", first)
    assert "outbox DB" in fails(3, "outbox", tmp_db, "--sent", first)
    assert (in_state("pending"), in_state("unknown")) == ([first], [second])

    die_while_sending(1)
    assert in_state("unknown") == [first, second]
    decision = found("outbox", tmp_db, "--sent", first, "--sent", second)
    assert decision == {"sent": [first, second], "resent": []}
    assert in_state("sent") == [first, second]


# -- lanes -----------------------------------------------------------------------------------------


def test_lanes_lists_limits_and_what_is_in_each(tmp_db: Path) -> None:
    accept(tmp_db, "one", "two")
    accept(tmp_db, "nightly", key="agent:main:web:direct:2", lane="cron")
    accept(tmp_db, "a dead one", key="agent:main:web:direct:3")
    dead_letter(tmp_db, 4, "the model refused")
    with sync.open(tmp_db) as opened:
        opened.set_lane("reports", concurrency=2, priority=-5, people=True)
    lanes = {lane["lane"]: lane for lane in found("lanes", tmp_db)}
    assert list(lanes) == ["reports", "main", "cron", "resume"]
    counts = {
        name: (lane["waiting"], lane["running"], lane["dead"]) for name, lane in lanes.items()
    }
    assert counts == {
        "reports": (0, 0, 0),
        "main": (2, 0, 1),
        "cron": (1, 0, 0),
        "resume": (0, 0, 0),
    }
    assert (lanes["reports"]["concurrency"], lanes["reports"]["people"]) == (2, True)
    assert lanes["reports"]["oldest_waiting_ms"] is None
    shown, _ = on_terminal("lanes", tmp_db)
    assert max(map(cells, shown.splitlines())) <= 80
    assert shown.splitlines()[2].split()[:4] == ["reports", "-5", "0", "2"]


def test_a_lane_is_paused_and_resumed_by_its_name(tmp_db: Path) -> None:
    accept(tmp_db, "one")

    def paused(*options: str) -> list[str]:
        lanes = found("lanes", tmp_db, *options)
        return [lane["lane"] for lane in lanes if lane["paused_at_ms"] is not None]

    assert paused() == []
    assert paused("--pause", "main") == ["main"]
    assert paused("--pause", "cron") == ["main", "cron"]
    assert paused("--resume", "main") == ["cron"]
    assert paused() == ["cron"]


def test_a_lane_is_dropped_and_its_messages_go_elsewhere(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        for lane in ("reports", "empty"):
            opened.set_lane(lane, concurrency=1, priority=7)
    accept(tmp_db, "one", "two", lane="reports")
    assert "reports" in fails(1, "lanes", tmp_db, "--drop", "reports")
    assert "no lane" in fails(3, "lanes", tmp_db, "--drop", "reports", "--into", "nowhere")
    assert "two" not in fails(2, "lanes", tmp_db, "--into", "cron")
    assert "calls of their own" in fails(2, "lanes", tmp_db, "--drop", "empty", "--pause", "cron")
    left = found("lanes", tmp_db, "--drop", "reports", "--into", "cron")
    assert {lane["lane"]: lane["waiting"] for lane in left} == {
        "main": 0,
        "cron": 2,
        "resume": 0,
        "empty": 0,
    }
    assert "empty" not in ok("lanes", tmp_db, "--drop", "empty")
    assert "main" in fails(1, "lanes", tmp_db, "--drop", "main", "--into", "cron")


# -- what messages say, and how old they are -------------------------------------------------------


def test_every_list_of_the_queue_shows_text_and_age(tmp_db: Path) -> None:
    hold(tmp_db, "was it Tuesday?")
    accept(tmp_db, "please water the plants", "and feed the cat")
    [number] = accept(tmp_db, "a dead one", key="agent:main:web:direct:2")
    dead_letter(tmp_db, number, "the model refused")
    change(tmp_db, "UPDATE inbox SET accepted_at_ms = accepted_at_ms - 7200000 WHERE inbox_no <> 3")
    for command, text in (
        (["inbox"], "please water the plants"),
        (["inbox"], "was it Tuesday? 0"),
        (["dead"], "a dead one"),
        (["resume", "--plan"], "was it Tuesday? 0"),
    ):
        for shown in (
            ok(command[0], tmp_db, *command[1:]),
            on_terminal(command[0], tmp_db, *command[1:])[0],
        ):
            [line] = [line for line in shown.splitlines() if text[:9] in line]
            assert " 2 h " in line
            assert max(map(cells, shown.splitlines())) <= 80 or "accepted" in shown
    assert {message["text"] for message in found("inbox", tmp_db)} >= {"please water the plants"}
    assert {made["text"] for made in found("resume", tmp_db, "--plan")} == {"was it Tuesday? 0"}


def test_a_text_cannot_drive_the_terminal(tmp_db: Path) -> None:
    accept(tmp_db, f"hello {EVIL}")
    assert "\x1b" not in ok("inbox", tmp_db)
    assert "\\x1b[2Jred" in ok("inbox", tmp_db)
