"""The command `doctor`: it shows, and with --fix it releases what nobody works on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sessiondb import sync
from tests.support.command_line import ok, run
from tests.support.gateway_commands import GatewayStart, accept, dead_letter, kill, says


def examined(db: Path, *options: str) -> dict[str, Any]:
    result = run("doctor", db, *options, "--json")
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (1 if found["findings"] else 0)
    return found


def rules(found: dict[str, Any]) -> set[str]:
    return {one["rule"] for one in found["findings"]}


def stored(db: Path) -> list[Any]:
    """Return what a fix would change."""
    with sync.open(db, readonly=True) as opened:
        return [
            list(opened.query(f"SELECT * FROM {table}").rows)
            for table in ("turn", "inbox", "outbox", "event", "instance")
        ]


def test_nothing_is_wrong_with_a_new_database(tmp_db: Path) -> None:
    with sync.open(tmp_db):
        pass
    assert ok("doctor", tmp_db) == "nothing is wrong\n"
    assert examined(tmp_db, "--fix")["fixed"]["turns"] == 0


def test_what_a_dead_gateway_held_is_shown_and_with_fix_released(
    tmp_db: Path, gateway: GatewayStart
) -> None:
    [given_up] = accept(tmp_db, "the dead letter")
    dead_letter(tmp_db, given_up, "no luck")
    accept(tmp_db, "hang", key="agent:main:web:direct:2")
    accept(tmp_db, "hang", key="agent:main:web:direct:3")
    started = gateway()
    says(started, "hanging", "hanging")
    kill(started)
    before = stored(tmp_db)
    found = examined(tmp_db)
    assert {"turn: left by a dead process", "process: died", "message: dead"} <= rules(found)
    shown = run("doctor", tmp_db).stdout
    assert "so: Its sender gets no answer" in shown
    assert f"do: sessiondb dead {tmp_db} --requeue {given_up}" in shown
    assert "--fix releases" in shown
    assert stored(tmp_db) == before

    left = examined(tmp_db, "--fix")
    assert left["fixed"]["turns"] == 2
    assert rules(left) == {"message: dead"}
    with sync.open(tmp_db, readonly=True) as opened:
        events = [
            row[0]
            for row in opened.query("SELECT kind FROM event WHERE audience = 'operator'").rows
        ]
        states = [row[0] for row in opened.query("SELECT state FROM turn").rows]
    assert states == ["interrupted", "interrupted"]
    assert events.count("turn_interrupted") == 2
    assert examined(tmp_db, "--fix")["fixed"]["turns"] == 0
