"""No view fails, whatever the texts and times in a file are: in 3.40's shell and in apsw."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import apsw
import pytest

from tests import ROOT
from tests.support.world import make_world, world_file

VIEWS = re.findall(r"^CREATE VIEW (\w+)", (ROOT / "schema.sql").read_text(), re.MULTILINE)
HUGE = 2**62

# An expression in SQL, and what it is.
ODD = {
    "''": "nothing",
    "'{'": "torn",
    "'null'": "null",
    "'[1]'": "an array",
    "'\"text\"'": "a text",
    "CAST(x'7b22ff' AS TEXT)": "not UTF-8",
    "CAST(x'7b0022' AS TEXT)": "a NUL",
    "replace(hex(zeroblob(3000)), '0', '[')": "deep",
    """'{"message":1}'""": "a number as message",
    """'{"message":{"content":{"a":1},"usage":[1],"model":{},"tool_calls":1}}'""": "wrong types",
    """'{"message":{"content":[[],null,{"type":[]},{"type":"toolCall"}],"usage":{}}}'""": "blocks",
    """'{"message":{"tool_calls":[1,{"function":7}],"usage":{"input":{},"cost":[]}}}'""": "parts",
    """'{"message":{"usage":{"input":9223372036854775807,"output":1e999,"cacheRead":1e400,
       "cacheRead":9223372036854775808,"cost":{"total":-1e999}}}}'""": "too large",
}


def spoil(connection: apsw.Connection, text: str) -> None:
    """Put a text wherever a payload or a key's row may be, as a damaged file has it."""
    connection.execute("PRAGMA ignore_check_constraints = on")
    for table, column in (
        *(("entry", "payload"), ("inbox", "payload"), ("outbox", "payload")),
        *(("event", "data"), ("binding", "details"), ("archive", "session_keys")),
        *(("inbox", "reason"), ("turn", "reason"), ("session", "name")),
    ):
        # A message that was appended has its text in its entry.
        where = "WHERE payload IS NOT NULL" if column == "payload" else ""
        connection.execute(f"UPDATE {table} SET {column} = {text} {where}")  # names of this file


def read_all(connection: apsw.Connection) -> None:
    for view in VIEWS:
        for _ in connection.execute(f"SELECT * FROM {view}"):
            pass
    connection.execute(
        "SELECT sum(tokens_in), sum(tokens_cached), sum(tokens_out), sum(cost) FROM usage_log"
    ).fetchall()


@pytest.mark.parametrize("text", [text for text in ODD if "7b22ff" not in text], ids=repr)
def test_an_odd_text_makes_no_view_fail(text: str) -> None:
    """What is not UTF-8 is read by the views, and Python's text cannot hold it."""
    world = make_world()
    spoil(world.connection, text)
    read_all(world.connection)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 shell on this machine")
@pytest.mark.parametrize("text", ODD, ids=ODD.values())
def test_an_odd_text_makes_no_view_fail_in_the_shell(tmp_path: Path, text: str) -> None:
    path = world_file(tmp_path / "world.db")
    connection = apsw.Connection(str(path))
    spoil(connection, text)
    connection.close()
    done = subprocess.run(
        ["sqlite3", "-readonly", str(path)],
        input="".join(f"SELECT * FROM {view};" for view in VIEWS).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("time_ms", [0, -1, -HUGE, HUGE])
def test_an_odd_time_makes_no_view_fail(time_ms: int) -> None:
    world = make_world()
    connection = world.connection
    connection.execute("PRAGMA ignore_check_constraints = on")
    for table, column in connection.execute(
        "SELECT m.name, c.name FROM sqlite_schema AS m, pragma_table_info(m.name) AS c"
        " WHERE m.type = 'table' AND c.name LIKE '%_at_ms'"
    ).fetchall():
        connection.execute(f"UPDATE {table} SET {column} = ?", (time_ms,))
    read_all(connection)


def test_a_damaged_payload_is_shown_as_it_is() -> None:
    world = make_world()
    spoil(world.connection, "'{torn'")
    shown = world.connection.execute("SELECT DISTINCT text FROM transcript").fetchall()
    assert shown == [("{torn",)]
