"""Figures for a monitor: each is what the database says, and counters never go back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sessiondb import Limits, Metric, sync
from sessiondb.sqlite.writer import WriterStats
from tests.support.command_line import ok
from tests.support.gateway_commands import accept, dead_letter, hold

OTHER = "agent:main:web:direct:2"


def values(metrics: Sequence[Metric]) -> dict[tuple[str, ...], float]:
    """Return each value by the name of its figure and its labels."""
    return {(one.name, *labels): value for one in metrics for labels, value in one.samples}


def test_figures_are_those_of_the_database(tmp_db: Path) -> None:
    _, given_up = accept(tmp_db, "one", "two")
    accept(tmp_db, "three", key=OTHER, lane="cron")
    dead_letter(tmp_db, given_up, "no luck")
    # No fold of the WAL between the two looks: it changes the size of the file.
    with sync.open(tmp_db, limits=Limits(wal_fold_s=3600)) as db:
        db.pause_lane("cron")
        found, status = values(db.metrics()), db.status()
    waiting = {lane.lane: lane.waiting for lane in status.lanes}
    assert sum(waiting.values()) >= 2
    for lane in status.lanes:
        assert found["lane_waiting", lane.lane] == lane.waiting
        assert found["lane_dead", lane.lane] == lane.dead
        assert found["lane_concurrency", lane.lane] == lane.concurrency
        assert (found["lane_oldest_waiting_seconds", lane.lane] > 0) == (lane.waiting > 0)
        assert found["lane_paused", lane.lane] == (lane.lane == "cron")
    assert found["messages", "dead"] == status.gateway.messages_dead == 1
    assert found["messages", "queued"] == status.gateway.messages_waiting
    assert found["events",] == status.gateway.events
    assert found["file_bytes",] == status.file_bytes
    assert found["verdict",] == {"green": 0, "yellow": 1, "red": 2}[status.verdict]
    assert sum(value for name, value in found.items() if name[0] == "alarms") == len(status.alarms)


@pytest.mark.parametrize(("free_bytes", "value"), [(2**40, 0), (2**29, 1), (1, 2)])
def test_a_verdict_is_a_number_and_a_state_without_compactions_is_shown(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, value: int
) -> None:
    monkeypatch.setattr("sessiondb.maintenance.status._disk_free_bytes", lambda _path: free_bytes)
    with sync.open(tmp_db) as db:
        found = values(db.metrics())
    assert found["verdict",] == value
    assert {state: found["compactions", state] for state in ("committed", "failed", "running")} == {
        "committed": 0,
        "failed": 0,
        "running": 0,
    }


def test_turns_are_counted_by_outcome_and_numbers_never_go_back(tmp_db: Path) -> None:
    accept(tmp_db, "one", "two", "three")
    with sync.open(tmp_db) as db:
        before = values(db.metrics())
    hold(tmp_db, "four", failing=True)
    with sync.open(tmp_db) as db:
        after = values(db.metrics())
        turns = dict(db.query("SELECT state, count(*) FROM turn GROUP BY state").rows)
    assert before["messages_accepted",] == 3
    assert before["turns",] == 0
    assert after["messages_accepted",] == 5
    assert after["turns",] == sum(turns.values()) > 0
    assert {
        labels[1]: value for labels, value in after.items() if labels[0] == "turns_recent" and value
    } == turns


def test_a_process_that_only_reads_has_no_figures_of_a_writer(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        db.session("agent:main:main").append({"role": "user", "content": "x"})
        own = values(db.metrics())
        stats = db.stats()["writer"]
    assert own["writer_commits",] >= 1
    assert own["writer_requests",] >= own["writer_commits",]
    assert own["writer_held_seconds",] > 0
    assert stats["transaction_ms_total"] >= stats["transaction_ms_longest"]
    assert stats.keys() >= WriterStats.__dataclass_fields__.keys()
    with sync.open(tmp_db, readonly=True) as db:
        read = values(db.metrics())
    assert {name[0] for name in own} - {name[0] for name in read} == {
        name[0] for name in own if name[0].startswith("writer_")
    }


def test_no_label_is_what_somebody_wrote(tmp_db: Path) -> None:
    said = "a secret of a person"
    [given_up] = accept(tmp_db, said)
    dead_letter(tmp_db, given_up, said)
    assert said not in ok("metrics", tmp_db, "--json")
    assert "agent:main" not in ok("metrics", tmp_db, "--json")
    assert all("help" in figure for figure in json.loads(ok("metrics", tmp_db, "--json")))


def test_search_and_disk_are_figures(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        session = db.session("agent:main:main")
        session.append({"role": "user", "content": "one"})
        found = values(db.metrics())
        assert (found["search_built",], found["search_behind_entries",]) == (0, 0)
        db.build_search()
        for text in ("two", "three"):
            session.append({"role": "user", "content": text})
        found = values(db.metrics())
        assert (found["search_built",], found["search_behind_entries",]) == (1, 2)
    names = {figure["name"] for figure in json.loads(ok("metrics", tmp_db, "--json"))}
    [figure] = [
        figure
        for figure in json.loads(ok("metrics", tmp_db, "--disk", "--json"))
        if figure["name"] not in names
    ]
    assert figure["name"] == "disk_bytes"
    sizes = {labels[0]: value for labels, value in figure["samples"]}
    parts = json.loads(ok("disk", tmp_db, "--json"))["parts"]
    assert sizes == {part["what"]: part["bytes"] for part in parts}
    assert sizes["search index"] > 0
