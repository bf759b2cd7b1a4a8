"""A view that is asked for one session, or for the last hour, reads the rows of that only."""

from __future__ import annotations

import re
import shutil
import subprocess

import apsw
import pytest

from sessiondb.sqlite.schema import schema_text
from tests import ROOT

SHELL = shutil.which("sqlite3")
"""The distribution's shell, whose planner an operator meets. Without it, that of apsw."""

OF_SESSION = "session_id = 'x'"
LATELY = "1000 * (strftime('%s', 'now') - 3600)"
ASKED = {
    "archive_log": OF_SESSION,
    "compaction_log": OF_SESSION,
    "conversation": OF_SESSION,
    "conversation of a key": "session_key = 'x'",
    "conversation lately": f"updated_at_ms > {LATELY}",
    "epoch_log": OF_SESSION,
    "event_log": OF_SESSION,
    "held": "1",
    "import_log": OF_SESSION,
    "inbox_open": OF_SESSION,
    "inbox_open of all": "1",
    "lane_load": "1",
    "live_context": OF_SESSION,
    "message_log": OF_SESSION,
    "message_log lately": f"accepted_at_ms > {LATELY}",
    "outbox_open": "1",
    "process_log lately": f"opened_at_ms > {LATELY}",
    "quarantine_log": "path = 'x'",
    "search_text": "entry_no = 1",
    "session_overview": OF_SESSION,
    "session_overview lately": f"updated_at_ms > {LATELY}",
    "transcript": OF_SESSION,
    "turn_log": OF_SESSION,
    "turn_log lately": f"started_at_ms > {LATELY}",
    "usage_log": OF_SESSION,
    "usage_log lately": f"appended_at_ms > {LATELY}",
}
# What a plan may read from one end to the other, and why that is little.
SMALL = {
    "SCAN t USING INDEX turn_by_expiry": "a partial index of what runs now",
    "SCAN c USING INDEX compaction_one_running": "a partial index of what runs now",
    "SCAN inbox USING INDEX inbox_of_session": "a partial index of what is open",
    "SCAN n": "lanes: a handful of rows, made by hand",
    "SCAN CONSTANT ROW": "the clock",
}
# Rows that the view itself has made, or that a payload has.
OWN = re.compile(r"SCAN (?:p|c|part|held|live_context|path|\(\S+\)|.* VIRTUAL TABLE .*)$")


def steps(question: str) -> list[str]:
    """Return the steps of a question's plan."""
    explained = f"EXPLAIN QUERY PLAN {question}"
    if SHELL is None:
        connection = apsw.Connection(":memory:")
        connection.execute(schema_text()).fetchall()
        return [str(row[3]) for row in connection.execute(explained)]
    done = subprocess.run(
        [SHELL, ":memory:"],
        input=f"{schema_text()}\n{explained};",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [line.lstrip("|-` ") for line in done.stdout.splitlines()]


def scans(question: str) -> list[str]:
    """Return the steps that read a whole table or index, or build an index first."""
    return [
        step
        for step in steps(question)
        if (step.startswith("SCAN ") or "AUTOMATIC" in step)
        and step not in SMALL
        and not OWN.match(step)
    ]


@pytest.mark.parametrize("asked", ASKED)
def test_a_view_finds_the_rows_that_it_is_asked_for(asked: str) -> None:
    assert scans(f"SELECT * FROM {asked.split()[0]} WHERE {ASKED[asked]}") == []


def test_a_scan_of_a_view_is_noticed() -> None:
    assert scans("SELECT * FROM turn_log WHERE started_at > '2026'") == ["SCAN t"]
    assert scans("SELECT * FROM transcript WHERE text LIKE '%x%'") != []


def test_every_view_is_asked() -> None:
    """`stuck` looks at everything, each kind by its index (`status.stuck` in test_plans.py)."""
    views = set(re.findall(r"^CREATE VIEW (\w+)", (ROOT / "schema.sql").read_text(), re.MULTILINE))
    assert views - {"stuck"} == {asked.split()[0] for asked in ASKED}


# Indexes that only a person's question searches.
INDEXES = {
    "instance_by_opening": "process_log lately",
    "entry_replies": "usage_log lately",
    "turn_by_start": "turn_log lately",
    "inbox_by_session": "message_log",
    "inbox_by_acceptance": "message_log lately",
    "outbox_by_turn": "message_log",
    "event_by_session": "event_log",
}


@pytest.mark.parametrize("index", INDEXES)
def test_an_index_for_people_is_searched(index: str) -> None:
    asked = INDEXES[index]
    found = steps(f"SELECT * FROM {asked.split()[0]} WHERE {ASKED[asked]}")
    assert any(f"INDEX {index} " in f"{step} " for step in found)
