"""The commands about a gateway's work: what is held and resumed, beside a real gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import sync
from sessiondb.cli.terminal import cells
from sessiondb.gateway import draining
from tests.support.command_line import fails, ok, on_terminal, run
from tests.support.gateway_commands import (
    EVIL,
    GatewayStart,
    accept,
    claim,
    dead_letter,
    found,
    hold,
    kill,
    lines,
    says,
)


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


def test_abort_stops_one_turn_of_several(tmp_db: Path, gateway: GatewayStart) -> None:
    for number in range(2):
        accept(tmp_db, "hang", key=f"agent:main:web:direct:{number}")
    running = gateway()
    says(running, "hanging", "hanging")
    first, second = sorted(turn["turn_no"] for turn in found("held", tmp_db))
    said = ok("abort", tmp_db, first, "--reason", "the tool hangs")
    assert said == f"turn {first} is stopped\n"
    assert [turn["turn_no"] for turn in found("held", tmp_db)] == [second]
    assert f"turn {first} of session" in fails(1, "abort", tmp_db, first)
    assert json.loads(ok("abort", tmp_db, second, "--json")) == {"aborted": [second]}
    assert found("held", tmp_db) == []
    every = lines("events", tmp_db, "--audience", "operator")
    told = [one for one in every if one["kind"] == "turn_aborted"]
    assert [one["data"]["turn_no"] for one in told] == [first, second]
    assert ["the tool hangs" in json.dumps(one) for one in told] == [True, False]
    kill(running)


def test_held_and_status_show_a_process_that_drains(tmp_db: Path) -> None:
    accept(tmp_db, "one")
    with sync.open(tmp_db, program="test gateway") as opened:
        claim(opened)
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
