"""What `verify` says to do about a corruption exists and helps: afterwards no error is left."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

import sessiondb.sync
from sessiondb.maintenance import verify
from tests.maintenance.test_planted_corruptions import PLANTS, Plant, plant
from tests.support.command_line import ok, run
from tests.support.world import world_file

SALVAGED = [
    planted
    for planted in PLANTS
    if planted.check
    in ("schema", "numbers", "time", "tokens", "open_calls", "body", "order", "asked")
    or planted.says
    in (
        "the entries add up to",
        "has another hash than what an export would write",
        "undoes no",
        "is followed by entry",
        "a session that it does not come from",
        "live-first began with",
    )
]


def planted_file(path: Path, planted: Plant) -> Path:
    world_file(path)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA journal_mode = wal").fetchall()
        plant(connection, planted.sql)
    return path


@pytest.mark.parametrize(
    "planted",
    [one for one in SALVAGED if "application_id" not in one.sql and "user_version" not in one.sql],
    ids=lambda planted: planted.says,
)
def test_a_salvage_leaves_no_error(tmp_path: Path, planted: Plant) -> None:
    damaged = planted_file(tmp_path / "damaged.db", planted)
    run("salvage", damaged, tmp_path / "new.db")
    with sessiondb.sync.open(tmp_path / "new.db", readonly=True) as db:
        report = db.verify()
    assert report.errors == ()
    assert report.unfinished == ()


@pytest.mark.parametrize(
    "planted", [one for one in PLANTS if one.check == "queue"], ids=lambda planted: planted.says
)
def test_lining_up_marks_again_who_waits(tmp_path: Path, planted: Plant) -> None:
    path = planted_file(tmp_path / "gateway.db", planted)
    assert "inbox DB --line-up" in verify.ADVICE["queue"]
    assert run("verify", path).exit_code == 1
    ok("inbox", path, "--line-up")
    ok("verify", path)
