"""The slow-operation log: who waited, who held the writer, and not a word of a message."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from sessiondb import sync
from sessiondb.limits import Limits

SECRET = "a secret of a person"


def slow_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "sessiondb.slow"]


def test_a_slow_write_names_who_waited_and_who_held(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holding, go = threading.Event(), threading.Event()

    def hold(tx: object) -> None:
        holding.set()
        assert go.wait(60)

    with sync.open(tmp_db, limits=Limits(slow_ms=0)) as db:
        session = db.session("agent:main:main")
        caplog.clear()
        holder = threading.Thread(target=lambda: db.write("hold.for_long", hold))
        holder.start()
        assert holding.wait(60)
        waiter = threading.Thread(
            target=lambda: session.append({"role": "user", "content": SECRET})
        )
        waiter.start()
        while db.stats()["writer"]["queue_items"] == 0:
            pass  # until it is queued behind the other
        go.set()
        holder.join(60)
        waiter.join(60)
        slow = db.stats()["writer"]["slow"]
    lines = slow_lines(caplog)
    assert slow >= 1
    by_op = {record.slowest_operation: record for record in lines}  # type: ignore[attr-defined]
    assert "hold.for_long" in by_op
    held = by_op["hold.for_long"]
    assert held.held_ms >= held.slowest_ms > 0  # type: ignore[attr-defined]
    assert any(record.waited_ms > 0 for record in lines)  # type: ignore[attr-defined]
    said = "\n".join(f"{record.getMessage()} {vars(record)}" for record in lines)
    assert "append" in said
    assert str(tmp_db) in said
    assert SECRET not in said
    assert "agent:main:main" not in said


@pytest.mark.parametrize("slow_ms", [None, 600_000.0])
def test_nothing_is_logged_of_what_is_fast_or_not_asked_for(
    tmp_db: Path, caplog: pytest.LogCaptureFixture, slow_ms: float | None
) -> None:
    with sync.open(tmp_db, limits=Limits(slow_ms=slow_ms)) as db:
        db.session("agent:main:main").append({"role": "user", "content": SECRET})
        assert db.stats()["writer"]["slow"] == 0
    assert slow_lines(caplog) == []
