"""The commands about a gateway's work: their lists and decisions, beside a real gateway."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest

from sessiondb import clock, sync
from sessiondb.cli.queue_texts import text_of
from sessiondb.cli.terminal import cells
from sessiondb.gateway import claims, dead_letters, draining, turns
from sessiondb.maintenance import status
from sessiondb.transcript.entries import draft_entry
from tests.support.command_line import fails, ok, on_terminal, run
from tests.support.core import change, query
from tests.support.gateway_commands import KEY, GatewayStart, accept, found, kill, lines, says

EVIL = "\x1b[2Jred\u202e"


def dead_letter(db: Path, inbox_no: int, reason: str) -> None:
    with sync.open(db) as opened:
        session_no = opened.session(KEY).ref.session_no
        opened.write(
            "test.dead_letter",
            lambda tx: dead_letters.dead_letter(tx, inbox_no, session_no, reason),
        )


def hold(db: Path, text: str, *, failing: bool = False) -> None:
    """Leave an interrupted message, of a session whose previous turn failed if `failing`."""
    key = f"agent:main:web:direct:{text}"
    for number in range(1 + failing):
        accept(db, f"{text} {number}", key=key)
        with sync.open(db) as opened:
            turn_no = _claim(opened).turn_no
            if number < failing:
                opened.write(
                    "test.fail", partial(turns.fail, turn_no=turn_no, reason="no luck", retry=False)
                )
            else:
                opened.write(
                    "test.interrupt",
                    partial(turns.interrupt, turn_no=turn_no, reason="by the test"),
                )


def _claim(opened: sync.SessionDB) -> claims.Started:
    candidate = opened.read(
        "test.peek", lambda tx: claims.peek(tx, "main", time.time_ns() // 1_000_000)
    )
    assert candidate is not None
    draft = draft_entry(candidate.payload, now_ms=0)
    started = opened.write(
        "test.claim",
        lambda tx: claims.claim(tx, "main", candidate, draft, lease_ms=30_000, timeout_ms=60_000),
    )
    assert started is not None
    return started


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
    monkeypatch.setattr("sessiondb.cli.gateway.PAGE", 3)
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
    assert [json.loads(event["data"])["inbox_no"] for event in told] == [2, 1, 3]
    ok("verify", tmp_db)


# -- who holds what, and what becomes of it --------------------------------------------------------


def test_held_tells_a_live_gateway_from_a_dead_one(tmp_db: Path, gateway: GatewayStart) -> None:
    accept(tmp_db, "hang")
    accept(tmp_db, "stick", key="agent:main:web:direct:2")
    running = gateway()
    says(running, "hanging", "sticking")
    holdings = found("held", tmp_db)
    assert {(holding["what"], holding["pid"], holding["alive"]) for holding in holdings} == {
        ("turn", running.pid, True),
        ("reply", running.pid, True),
    }
    [turn] = [holding for holding in holdings if holding["what"] == "turn"]
    assert turn["operation"].startswith("thinking about ")
    assert turn["since_ms"] < turn["until_ms"]
    table = ok("held", tmp_db)
    assert "test gateway" in table
    assert "DEAD" not in table
    status = found("status", tmp_db)["gateway"]
    assert (status["turns_running"], status["replies_sending"], status["messages_waiting"]) == (
        1,
        1,
        0,
    )

    kill(running)
    assert {holding["alive"] for holding in found("held", tmp_db)} == {False}
    assert ok("held", tmp_db).count("DEAD") == 2
    [planned] = found("resume", tmp_db, "--plan")
    assert (planned["action"], planned["attempts"]) == ("resume", 1), "as recovery will hold it"
    assert f"its process (test gateway, pid {running.pid}) died" in planned["reason"]
    assert [
        decision["action"] for decision in found("resume", tmp_db, "--plan", "--breaker", 1)
    ] == ["breaker"]
    assert {holding["alive"] for holding in found("held", tmp_db)} == {False}, (
        "a plan changes nothing"
    )

    [decision] = found("resume", tmp_db, "--run")
    assert decision == planned
    assert found("held", tmp_db) == []
    assert [(message["state"], message["lane"]) for message in found("inbox", tmp_db)] == [
        ("queued", "resume")
    ]
    after = found("status", tmp_db)["gateway"]
    assert (after["messages_waiting"], after["replies_unknown"], after["turns_running"]) == (
        1,
        1,
        0,
    )
    assert "1 unknown" in ok("status", tmp_db)
    assert [event["kind"] for event in lines("events", tmp_db, "--audience", "operator")].count(
        "recovery_done"
    ) == 1


def test_held_aborts_one_turn_of_several(tmp_db: Path, gateway: GatewayStart) -> None:
    for number in range(2):
        accept(tmp_db, "hang", key=f"agent:main:web:direct:{number}")
    running = gateway()
    says(running, "hanging", "hanging")
    first, second = sorted(turn["number"] for turn in found("held", tmp_db))
    assert ok("held", tmp_db, "--abort", first) == f"turn {first} is stopped\n"
    assert [turn["number"] for turn in found("held", tmp_db)] == [second]
    assert f"turn {first} of session" in fails(1, "held", tmp_db, "--abort", first)
    assert json.loads(ok("held", tmp_db, "--abort", second, "--json")) == {"aborted": [second]}
    assert found("held", tmp_db) == []
    kill(running)


def test_held_and_status_show_a_process_that_drains(tmp_db: Path) -> None:
    accept(tmp_db, "one")
    with sync.open(tmp_db, program="test gateway") as opened:
        _claim(opened)
        assert "drains" not in ok("held", tmp_db)
        assert not opened.drain(timeout_s=0.1).complete
        opened.write("drain", draining._mark)  # whatever the machine is busy with
        assert "drains" in ok("held", tmp_db)
        assert "draining" in ok("status", tmp_db)
        assert [one["draining_since_ms"] is None for one in found("held", tmp_db)] == [False]


def test_a_plan_has_a_reason_per_decision_and_changes_nothing(
    tmp_db: Path, gateway: GatewayStart
) -> None:
    for number in range(3):
        accept(tmp_db, "hang", key=f"agent:main:web:direct:{number}")
    running = gateway()
    says(running, "hanging", "hanging", "hanging")
    kill(running)
    with sync.open(tmp_db) as opened:
        assert opened.recover().turns == 3

    def plan(*options: object) -> list[tuple[str, str]]:
        return [
            (decision["action"], decision["reason"])
            for decision in found("resume", tmp_db, "--plan", *options)
        ]

    assert [action for action, _ in plan()] == ["resume", "later", "later"]
    assert [action for action, _ in plan("--max-concurrent", 9)] == ["resume"] * 3
    assert [action for action, _ in plan("--max-concurrent", 9, "--budget", 2)] == [
        "resume",
        "resume",
        "later",
    ]
    assert all(reason for _, reason in plan())
    assert {action for action, _ in plan("--attempts", 1)} == {"skip"}
    assert {action for action, _ in plan("--breaker", 1)} == {"breaker"}
    assert [action for action, _ in plan("--breaker", 1, "--breaker-window", "0.001")] == [
        "resume",
        "later",
        "later",
    ]
    assert all("attempt" in reason for _, reason in plan("--attempts", 1))
    table = ok("resume", tmp_db, "--plan")
    assert table.count("later") >= 2
    assert [message["state"] for message in found("inbox", tmp_db)] == ["interrupted"] * 3
    assert found("status", tmp_db)["gateway"]["messages_interrupted"] == 3


def test_resume_without_saying_what_is_refused_with_the_reason(tmp_db: Path) -> None:
    accept(tmp_db, "one")
    for options in ([], ["--plan", "--run"]):
        complaint = fails(2, "resume", tmp_db, *options)
        assert "choose --plan or --run" in complaint
        assert "A gateway resumes by itself" in complaint
    with sync.open(tmp_db, readonly=True) as opened:
        assert opened.status().gateway.messages_waiting == 1


def test_options_override_the_ages_of_openclaws_settings(tmp_db: Path, tmp_path: Path) -> None:
    hold(tmp_db, "one")
    file = tmp_path / "openclaw.json"
    file.write_text(json.dumps({"session": {"threadBindings": {"maxAgeHours": 1e-9}}}))
    [decision] = found("resume", tmp_db, "--plan", "--openclaw", file)
    assert (decision["action"], decision["reason"][:8]) == ("skip", "accepted")
    assert [
        decision["action"]
        for decision in found("resume", tmp_db, "--plan", "--openclaw", file, "--max-age-hours", 1)
    ] == ["resume"]
    file.write_text(json.dumps({"session": {"threadBindings": {"maxAgeHours": "never"}}}))
    assert "session.threadBindings.maxAgeHours" in fails(
        1, "resume", tmp_db, "--plan", "--openclaw", file
    )
    file.write_text("{")
    assert "is not JSON" in fails(2, "resume", tmp_db, "--plan", "--openclaw", file)


def test_resume_takes_what_to_skip_and_a_deadline(tmp_db: Path) -> None:
    hold(tmp_db, "one")
    hold(tmp_db, "two", failing=True)

    def plan(*options: object) -> list[str]:
        return [
            decision["action"]
            for decision in found("resume", tmp_db, "--plan", "--max-concurrent", 9, *options)
        ]

    assert plan() == ["skip", "resume"]
    assert plan("--skip", "failed") == ["skip", "resume"]
    assert plan("--skip", "damaged") == ["resume", "resume"]
    assert plan("--skip", "none") == ["resume", "resume"]
    assert "excludes every other" in fails(
        2, "resume", tmp_db, "--plan", "--skip", "none", "--skip", "failed"
    )
    assert "--deadline" in fails(2, "resume", tmp_db, "--plan", "--deadline", 0)
    found("resume", tmp_db, "--run", "--deadline", 7, "--skip", "none")
    assert found("query", tmp_db, "select timeout_ms from inbox where lane = 'resume'") == [
        {"timeout_ms": 7_000}
    ]


def test_nothing_is_an_empty_array_or_a_hint(tmp_db: Path) -> None:
    with sync.open(tmp_db):
        pass
    for command in (["held"], ["inbox"], ["dead"], ["outbox"], ["resume", "--plan"]):
        assert found(command[0], tmp_db, *command[1:]) == []
        result = run(command[0], tmp_db, *command[1:])
        assert (result.stdout, result.exit_code) == ("", 0)
        assert result.stderr.strip()
    assert lines("events", tmp_db) == []


def test_status_counts_what_waits_and_what_a_person_must_decide(tmp_db: Path) -> None:
    first, _ = accept(tmp_db, "one", "two")
    with sync.open(tmp_db, readonly=True) as opened:
        before = opened.status()
        assert (
            before.gateway.messages_waiting,
            before.gateway.messages_dead,
            before.needs_attention,
        ) == (2, 0, False)
    dead_letter(tmp_db, first, "test")
    with sync.open(tmp_db, readonly=True) as opened:
        after = opened.status()
        assert (
            after.gateway.messages_waiting,
            after.gateway.messages_dead,
            after.needs_attention,
        ) == (1, 1, True)
        assert after.gateway.events == 2
    assert "1 waiting, 0 interrupted, 1 dead" in ok("status", tmp_db)


def test_status_says_which_channel_is_full_and_which_waits(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sync.open(tmp_db):
        pass
    monkeypatch.setattr(status, "OUTBOX_WAITING_MAX", 2)
    reply = (
        "INSERT INTO outbox (session_no, channel, target, state, created_at_ms, available_at_ms,"
        f" payload) VALUES (1, '{{}}', 't', '{{}}', {clock.now_ms()}, 0, '{{{{}}}}')"
    ).format
    change(
        tmp_db,
        "INSERT INTO session (session_id, origin, version, created_at_ms, updated_at_ms)"
        " VALUES ('s', 'native', 3, 1, 1)",
        reply("telegram", "pending"),
        reply("telegram", "sending"),
        reply("discord", "pending"),
    )
    with sync.open(tmp_db, readonly=True) as opened:
        assert not opened.status().needs_attention
    assert "channel telegram" not in ok("status", tmp_db)
    change(
        tmp_db,
        reply("telegram", "pending"),
        "INSERT INTO channel_pause VALUES ('discord', 1, 1, 1, 4102444800000, '429: slow down')",
        "INSERT INTO channel_pause VALUES ('telegram', 1, 1, 1, 2, 'it is over')",
    )
    said = ok("status", tmp_db)
    assert "4 to send" in said
    assert (
        "channel telegram: 2 replies to send (full: its messages are refused until some are sent)"
        in said
    )
    assert (
        "channel discord: waits until 2100-01-01 00:00:00, because it said so: 429: slow down"
        in said
    )
    assert "over" not in said.replace("overdue", "")
    assert "channel discord: waits, since 1970-01-01" in said
    with sync.open(tmp_db, readonly=True) as opened:
        found = opened.status()
        assert found.needs_attention
        assert [(row.channel, row.replies_waiting, row.full) for row in found.channels] == [
            ("telegram", 2, True),
            ("discord", 1, False),
        ]


@pytest.mark.slow
def test_on_a_terminal_the_tables_fit_its_width(tmp_db: Path, gateway: GatewayStart) -> None:
    name = "a-very-long-name-of-a-conversation-" * 4
    first, _ = accept(tmp_db, "x" * 200, EVIL * 5, key=f"agent:main:web:direct:{name}", lane="cron")
    dead_letter(tmp_db, first, "a long reason " * 20 + EVIL)
    accept(tmp_db, "hang", key="agent:main:web:direct:held")
    running = gateway()
    says(running, "hanging")
    for args in (
        ["held"],
        ["inbox"],
        ["dead"],
        ["outbox"],
        ["events"],
        ["status"],
        ["resume", "--plan"],
    ):
        output, code = on_terminal(args[0], tmp_db, *args[1:])
        assert code == 0, output
        assert max(map(cells, output.splitlines())) <= 80, args
        assert "\x1b[2J" not in output


# -- what messages say, and how old they are -------------------------------------------


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


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ('{"role":"user","content":"plain"}', "plain"),
        ('{"role":"user","content":[{"type":"text","text":"a"},{"type":"image"}]}', "a [image]"),
        ('{"text":"of a reply"}', "of a reply"),
        ('"bare"', "bare"),
        ('{"blocks":1}', '{"blocks": 1}'),
        ("{torn", "{torn"),
        ("7", ""),
    ],
)
def test_the_text_of_a_message_is_what_it_says_to_a_person(payload: str, text: str) -> None:
    assert text_of(payload) == text


def test_a_text_cannot_drive_the_terminal(tmp_db: Path) -> None:
    accept(tmp_db, f"hello {EVIL}")
    assert "\x1b" not in ok("inbox", tmp_db)
    assert "\\x1b[2Jred" in ok("inbox", tmp_db)


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
