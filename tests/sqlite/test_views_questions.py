"""The questions of docs/how-to/operators-questions.md, in the distribution's sqlite3 shell.

The world is two days of a gateway. It is moved to the present here, so that some of it lies in
the last hour and some before.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sessiondb.clock import iso_from_ms
from tests.sqlite.test_view_plans import scans
from tests.support import pages
from tests.support.world import Row, World, make_world
from tests.support.world_build import HOUR, NOW

QUESTIONS = {
    int(number): block.text.strip().rstrip(";")
    for block in pages.blocks(pages.DOCS / "how-to" / "operators-questions.md", "sql")
    for number in re.findall(r"^-- (\d+)\. ", block.text, re.MULTILINE)
}
KEY = "agent:main:web:direct:42"

pytestmark = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 shell here")


@pytest.fixture(scope="module")
def world() -> World:
    """Return the world as it would be now. The page's conversation is `twin`'s."""
    world = make_world()
    later_ms = int(time.time() * 1000) - NOW
    connection = world.connection
    for table, column in connection.execute(
        "SELECT m.name, c.name FROM sqlite_schema AS m, pragma_table_info(m.name) AS c"
        " WHERE m.type = 'table' AND c.name LIKE '%_at_ms'"
    ).fetchall():
        connection.execute(
            f"UPDATE {table} SET {column} = {column} + ? WHERE {column} > 0", (later_ms,)
        )
    connection.execute(
        "UPDATE binding SET session_key = ? WHERE session_key = 'agent:main:web:twin'", (KEY,)
    )
    # The messages of two other sessions, one of them answered, become this conversation's.
    connection.execute(
        "UPDATE inbox SET session_no = (SELECT session_no FROM session WHERE session_id = 'twin')"
        " WHERE event_id IN ('m-sent', 'told')"
    )
    # Replies of a moment ago.
    connection.execute(
        "UPDATE entry SET appended_at_ms = ? WHERE role = 'assistant' AND payload LIKE '%usage%'"
        " AND entry_no >> 32 IN (SELECT session_no FROM session WHERE session_id = 'twin')",
        (later_ms + NOW - 1000,),
    )
    connection.execute(
        "UPDATE turn SET started_at_ms = ?, finished_at_ms = ? WHERE state = 'failed'"
        " AND inbox_no = (SELECT inbox_no FROM inbox WHERE event_id = 'dead')",
        (later_ms + NOW - 2000, later_ms + NOW - 1000),
    )
    connection.execute(
        "UPDATE instance SET opened_at_ms = ? WHERE program IN ('gateway', 'other')",
        (later_ms + NOW - HOUR,),
    )
    return world


@pytest.fixture(scope="module")
def path(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "world.db"
    path.write_bytes(world.connection.serialize("main"))
    return path


def ask(path: Path, number: int) -> list[Row]:
    done = subprocess.run(
        ["sqlite3", "-readonly", "-json", str(path)],
        input=f"{QUESTIONS[number]};",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: list[Row] = json.loads(done.stdout or "[]")
    return found


def rows(world: World, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    return world.connection.execute(sql, params).fetchall()


@pytest.mark.parametrize("number", range(1, 11))
def test_each_question_is_one_statement_with_an_answer(path: Path, number: int) -> None:
    assert ";" not in QUESTIONS[number]
    assert ask(path, number)


@pytest.mark.parametrize("number", sorted({*range(1, 11)} - {2}))
def test_no_question_reads_a_whole_table(number: int) -> None:
    """Question 2 is `stuck`: each of its kinds has its own index (`test_plans.py`)."""
    assert scans(QUESTIONS[number]) == []


def test_there_are_ten_questions() -> None:
    assert sorted(QUESTIONS) == list(range(1, 11))


def test_lanes_are_those_that_wait(world: World, path: Path) -> None:
    found = {row["lane"]: row["queued"] for row in ask(path, 1)}
    waiting = rows(
        world,
        "SELECT l.lane, count(i.inbox_no) FROM lane AS l LEFT JOIN inbox AS i"
        " ON i.lane = l.lane AND i.state = 'queued' GROUP BY 1",
    )
    assert found == dict(waiting)
    assert list(found) == [
        lane for (lane,) in rows(world, "SELECT lane FROM lane ORDER BY priority")
    ]


def test_messages_of_a_conversation_are_its_own(path: Path) -> None:
    found = {row["event_id"]: row for row in ask(path, 4)}
    assert found.keys() == {"m-sent", "told"}
    assert found["m-sent"]["reply_state"] == "sent"
    assert found["m-sent"]["accepted_at"] < found["m-sent"]["sent_at"]
    assert found["told"]["state"] == "queued"


def test_the_last_hour_is_no_more_than_that(world: World, path: Path) -> None:
    since_ms = int(time.time() * 1000) - HOUR
    shown = [row["event_id"] for row in ask(path, 5)]
    late = {
        event_id
        for (event_id,) in rows(
            world, "SELECT event_id FROM inbox WHERE accepted_at_ms > ?", since_ms
        )
    }
    assert len(shown) == min(20, len(late))
    assert set(shown) <= late
    assert 0 < len(late) < len(rows(world, "SELECT 1 FROM inbox"))


def test_turns_that_failed_lately_are_shown_with_their_messages(path: Path) -> None:
    assert {row["event_id"]: row["state"] for row in ask(path, 6)} == {
        "retried": "failed",
        "retried-too": "failed",
        "dead": "failed",
    }


def test_processes_of_the_last_day_are_shown(path: Path) -> None:
    assert {row["program"]: row["state"] for row in ask(path, 3)} == {
        "gateway": "open",
        "other": "draining",
    }


def test_replies_that_did_not_arrive_are_all_shown(world: World, path: Path) -> None:
    expected = rows(
        world, "SELECT outbox_no FROM outbox WHERE state IN ('failed', 'unknown') ORDER BY 1"
    )
    assert [(row["outbox_no"],) for row in ask(path, 7)] == expected


def test_usage_of_the_last_hour_is_summed_by_model(world: World, path: Path) -> None:
    (sums,) = ask(path, 8)
    replies = [
        json.loads(payload)["message"]
        for (payload,) in rows(
            world,
            "SELECT payload FROM entry WHERE role = 'assistant' AND payload LIKE '%\"usage\"%'"
            " AND entry_no >> 32 = (SELECT session_no FROM session WHERE session_id = 'twin')",
        )
    ]
    assert (sums["agent_id"], sums["model"], sums["replies"]) == ("west", "m", len(replies))


def test_heavy_conversations_are_those_of_the_last_day(world: World, path: Path) -> None:
    since = iso_from_ms(int(time.time() * 1000) - 24 * HOUR)
    found = ask(path, 9)
    young = rows(world, "SELECT max(bytes) FROM session_overview WHERE updated_at > ?", since)
    old = rows(world, "SELECT max(bytes) FROM session_overview WHERE updated_at <= ?", since)
    assert found[0]["bytes"] == young[0][0] < old[0][0]


def test_what_left_the_path_is_what_another_branch_has(path: Path) -> None:
    found = ask(path, 10)
    assert [row["seq"] for row in found] == [15]
    assert all(row["text"] for row in found)


def test_a_scan_in_a_question_is_noticed() -> None:
    asked = QUESTIONS[5].replace("accepted_at_ms > 1000", "accepted_at_ms + 0 > 1000")
    assert scans(asked) != []
