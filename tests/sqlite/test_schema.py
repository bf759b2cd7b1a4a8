"""schema.sql is what the migrations arrive at, and the distribution's sqlite3 can read it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import apsw
import pytest

from sessiondb.sqlite import schema
from sessiondb.sqlite.connection import drain
from sessiondb.sqlite.layout import objects

MIGRATIONS = Path(schema.__file__).parent / "migrations"


def from_schema() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    drain(connection, schema.schema_text())
    return connection


def from_migrations() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    for _, script in schema.migrations():
        drain(connection, script)
    return connection


def test_all_migrations_on_an_empty_file_give_exactly_the_schema() -> None:
    expected, found = objects(from_schema()), objects(from_migrations())
    differing = sorted(
        key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
    )
    assert not differing, (
        f"schema.sql and the migrations disagree on {differing}. Write the next numbered "
        "migration, and never touch a released one."
    )


def test_a_difference_would_be_noticed() -> None:
    changed = from_schema()
    drain(changed, "CREATE INDEX one_more ON instance (pid)")
    assert objects(changed) != objects(from_schema())


@pytest.mark.parametrize("pragma", ["application_id", "user_version"])
def test_both_mark_the_file_alike(pragma: str) -> None:
    expected = {"application_id": schema.APPLICATION_ID, "user_version": schema.SCHEMA_VERSION}[
        pragma
    ]
    assert from_schema().pragma(pragma) == expected
    assert from_migrations().pragma(pragma) == expected


def test_migrations_have_no_gap_and_each_sets_its_version() -> None:
    numbers = [number for number, _ in schema.migrations()]
    assert numbers == list(range(1, schema.SCHEMA_VERSION + 1))
    assert sorted(file.name for file in MIGRATIONS.glob("*.sql")) == sorted(
        file.name
        for file in MIGRATIONS.glob("*.sql")
        if re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", file.name)
    )
    connection = apsw.Connection(":memory:")
    for number, script in schema.migrations():
        drain(connection, script)
        assert connection.pragma("user_version") == number


def test_an_older_file_is_brought_up_to_date_step_by_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection = apsw.Connection(str(tmp_path / "old.db"))
    drain(connection, schema.schema_text())
    version = schema.SCHEMA_VERSION
    steps = [
        (
            version + 1,
            f"CREATE TABLE later (x INTEGER) STRICT; PRAGMA user_version = {version + 1}",
        ),
        (
            version + 2,
            f"ALTER TABLE later ADD COLUMN y INTEGER; PRAGMA user_version = {version + 2}",
        ),
    ]
    monkeypatch.setattr(schema, "migrations", lambda: steps)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 2)
    schema.create_or_migrate(connection, "old.db")
    schema.create_or_migrate(connection, "old.db")
    assert [row[1] for row in drain(connection, "PRAGMA table_info(later)")] == ["x", "y"]


OLD_ROWS = """
INSERT INTO session (session_no, session_id, origin, version, created_at_ms, updated_at_ms, entries)
VALUES (1, 'one', 'import', 3, 1, 2, 7), (2, 'two', 'native', 3, 1, 2, 9);
INSERT INTO source (source_no, path, name, kind, session_no, lines, entries, imported_at_ms, state)
VALUES (4, '/a', 'a', 'pi', 1, 9, 7, 5, 'done'), (6, '/b', 'b', 'index', NULL, 1, 0, 5, 'done');
INSERT INTO quarantine
VALUES (4, 3, 100, 2, 'torn', 'damaged', x'00ff'),
       (4, 5, 300, 4, 'blank line', 'blank', x'0a');
INSERT INTO inbox (inbox_no, source, event_id, session_no, lane, state, accepted_at_ms,
                   available_at_ms, attempts, payload)
VALUES (1, 'web', 'e1', 1, 'main', 'held', 5, 6, 2, '{}'),
       (2, 'cron', 'e2', 2, 'cron', 'dead', 5, 6, 5, '{}'),
       (9, 'web', 'e9', 2, 'main', 'queued', 5, 6, 0, '{}');
DELETE FROM inbox WHERE inbox_no = 9;
"""


def test_rows_of_the_second_schema_survive_under_new_names() -> None:
    connection = apsw.Connection(":memory:")
    scripts = dict(schema.migrations())
    for number in (1, 2):
        drain(connection, scripts[number])
    drain(connection, OLD_ROWS)
    drain(connection, scripts[3])
    assert drain(connection, "SELECT session_no, session_id, last_seq FROM session") == [
        (1, "one", 7),
        (2, "two", 9),
    ]
    files = (
        "SELECT import_file_no, path, kind, session_no, lines, entries, state, final_newline"
        " FROM import_file ORDER BY 1"
    )
    assert drain(connection, files) == [
        (4, "/a", "pi", 1, 9, 7, "done", 1),
        (6, "/b", "index", None, 1, 0, "done", 1),
    ]
    lines = (
        "SELECT import_file_no, line, byte_offset, after_seq, severity, content"
        " FROM quarantine ORDER BY line"
    )
    assert drain(connection, lines) == [
        (4, 3, 100, 2, "damaged", b"\x00\xff"),
        (4, 5, 300, 4, "blank", b"\n"),
    ]
    messages = (
        "SELECT inbox_no, channel, event_id, session_no, lane, state, accepted_at_ms,"
        " available_at_ms, attempts FROM inbox ORDER BY 1"
    )
    assert drain(connection, messages) == [
        (1, "web", "e1", 1, "main", "interrupted", 5, 6, 2),
        (2, "cron", "e2", 2, "cron", "dead", 5, 6, 5),
    ]
    drain(
        connection,
        "INSERT INTO inbox (channel, event_id, session_no, lane, state, accepted_at_ms,"
        " available_at_ms, payload) "
        "VALUES ('web', 'e10', 1, 'main', 'queued', 7, 7, '{}')",
    )
    assert drain(connection, "SELECT max(inbox_no) FROM inbox") == [(10,)], (
        "the number of a message that was deleted is not given out again"
    )
    assert drain(connection, "PRAGMA foreign_key_check") == []
    assert drain(connection, "PRAGMA integrity_check") == [("ok",)]


THIRD_ROWS = """
INSERT INTO session (session_no, session_id, origin, version, created_at_ms, updated_at_ms)
VALUES (1, 'one', 'native', 3, 1, 2);
INSERT INTO instance (instance_no, host, boot_id, pid, pid_started, program, opened_at_ms)
VALUES (1, 'host', 'boot', 1, 1, 'gateway', 1);
INSERT INTO turn (turn_no, session_no, lane, kind, state, inbox_no, attempt, operation, instance_no,
                  started_at_ms, renewed_at_ms, expires_at_ms, deadline_ms, finished_at_ms)
VALUES (1, 1, 'main', 'message', 'completed', 1, 1, '', 1, 1, 1, 1, 1, 2),
       (2, 1, 'main', 'message', 'interrupted', 2, 1, '', 1, 1, 1, 1, 1, 2),
       (3, 1, 'main', 'message', 'failed', 3, 5, '', 1, 1, 1, 1, 1, 2),
       (4, 1, 'main', 'message', 'failed', 4, 5, '', 1, 1, 1, 1, 1, 2);
INSERT INTO inbox (inbox_no, channel, event_id, session_no, lane, state, accepted_at_ms,
                   available_at_ms, turn_no, lane_before, reason, payload)
VALUES (1, 'web', 'answered', 1, 'main', 'done', 5, 6, 1, NULL, NULL, '{"a": 1}'),
       (2, 'web', 'overtaken', 1, 'resume', 'done', 5, 6, 2, 'main',
        'a newer message of the session went on from here', '{}'),
       (3, 'web', 'dead', 1, 'main', 'dead', 5, 6, 3, NULL, 'no luck', '{}'),
       (4, 'web', 'dropped', 1, 'main', 'done', 5, 6, 4, NULL, 'dropped by an operator', '{}'),
       (5, 'web', 'waiting', 1, 'cron', 'queued', 5, 6, NULL, NULL, NULL, '{}'),
       (9, 'web', 'pruned', 1, 'main', 'done', 5, 6, NULL, NULL, NULL, '{}');
DELETE FROM inbox WHERE inbox_no = 9;
"""


def test_messages_of_the_third_schema_keep_how_they_ended() -> None:
    connection = apsw.Connection(":memory:")
    scripts = dict(schema.migrations())
    for number in (1, 2, 3):
        drain(connection, scripts[number])
    drain(connection, THIRD_ROWS)
    before = drain(
        connection,
        "SELECT inbox_no, event_id, lane, state, turn_no, lane_before, reason, payload FROM inbox",
    )
    drain(connection, scripts[4])
    assert before == drain(
        connection,
        "SELECT inbox_no, event_id, lane, state, turn_no, lane_before, reason, payload FROM inbox",
    )
    ends = "SELECT event_id, superseded_by, told_no, session_key, digest, edited FROM inbox"
    assert drain(connection, ends) == [
        ("answered", None, None, None, None, 0),
        ("overtaken", 0, 0, None, None, 0),
        ("dead", None, 0, None, None, 0),
        ("dropped", None, 0, None, None, 0),
        ("waiting", None, None, None, None, 0),
    ]
    assert drain(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'inbox'") == [(9,)]
    assert drain(connection, "SELECT count(*) FROM inbox_open") == [(2,)]
    assert drain(connection, "PRAGMA foreign_key_check") == []
    assert drain(connection, "PRAGMA integrity_check") == [("ok",)]


APPENDED_ROWS = """
INSERT INTO session (session_no, session_id, origin, version, created_at_ms, updated_at_ms,
                     archived_at_ms)
VALUES (2, 'in an archive', 'native', 3, 1, 2, 3);
INSERT INTO entry (entry_no, position, type, role, projection, body_at, body_bytes, appended_at_ms,
                   entry_id, idempotency_key, payload)
VALUES ((1 << 32) + 1, 1, 'message', 'user', 1, 13, 11, 1, 'e1', 'inbox:11',
        '{"é":0,"x": {"a": "é"}}');
INSERT INTO inbox (inbox_no, channel, event_id, session_no, lane, state, accepted_at_ms,
                   available_at_ms, attempts, entry_no, payload)
VALUES (11, 'web', 'appended', 1, 'main', 'interrupted', 5, 6, 1, (1 << 32) + 1, '{"a": "é"}'),
       (12, 'web', 'in an archive', 2, 'main', 'done', 5, 6, 1, (2 << 32) + 1, '{"a": 2}'),
       (13, 'web', 'never appended', 2, 'main', 'dead', 5, 6, 0, NULL, '{"a": 3}'),
       (14, 'web', 'its entry is lost', 1, 'main', 'dead', 5, 6, 1, (1 << 32) + 5, '{"a": 4}');
"""


def test_a_message_of_the_third_schema_leaves_its_text_to_its_entry() -> None:
    connection = apsw.Connection(":memory:")
    scripts = dict(schema.migrations())
    for number in (1, 2, 3):
        drain(connection, scripts[number])
    drain(connection, THIRD_ROWS)
    drain(connection, APPENDED_ROWS)
    drain(connection, scripts[4])
    found = drain(connection, "SELECT event_id, payload FROM inbox WHERE inbox_no > 10")
    assert found == [
        ("appended", None),
        ("in an archive", None),
        ("never appended", '{"a": 3}'),
        ("its entry is lost", '{"a": 4}'),
    ]
    shown = "SELECT begins_with FROM {} WHERE event_id = 'appended'"
    for view in ("inbox_open", "message_log"):
        assert drain(connection, shown.format(view)) == [('{"a": "é"}',)]


def test_sessions_of_the_third_schema_with_entries_are_pis() -> None:
    connection = apsw.Connection(":memory:")
    scripts = dict(schema.migrations())
    for number in (1, 2, 3):
        drain(connection, scripts[number])
    made = (
        "INSERT INTO session (session_id, origin, version, created_at_ms, updated_at_ms, last_seq) "
        "VALUES ('empty', 'native', 3, 0, 0, 0), ('used', 'native', 3, 0, 0, 2)"
    )
    drain(connection, made)
    drain(connection, scripts[4])
    formats = drain(connection, "SELECT session_id, formats FROM session ORDER BY session_id")
    assert formats == [("empty", 15), ("used", 1)]
    shown = drain(connection, "SELECT session_id, format FROM session_overview ORDER BY session_id")
    assert shown == [("empty", None), ("used", "pi")]


def test_archives_of_the_third_schema_keep_their_chunks() -> None:
    connection = apsw.Connection(":memory:")
    scripts = dict(schema.migrations())
    for number in (1, 2, 3):
        drain(connection, scripts[number])
    drain(connection, THIRD_ROWS)
    drain(connection, ARCHIVES)
    found = "SELECT * FROM archive_chunk ORDER BY archive_no, chunk_no"
    before = drain(connection, found)
    assert [row[:3] for row in before] == [
        (1, 0, "session"),
        (1, 1, "entry"),
        (2, 0, "session"),
    ]
    drain(connection, scripts[4])
    assert drain(connection, found) == before
    assert drain(connection, "PRAGMA foreign_key_check") == []
    assert drain(connection, "PRAGMA integrity_check") == [("ok",)]


ARCHIVES = """
INSERT INTO archive (archive_no, session_no, state, reason, encoding, begun_at_ms, finished_at_ms,
                     rows, bytes, bytes_stored, session_keys)
VALUES (1, 1, 'restored', 'old', 'zlib', 1, 2, 3, 30, 6, '[]'),
       (2, 1, 'archived', 'old', 'zstd', 3, 4, 1, 10, 5000, '[]');
INSERT INTO archive_chunk (archive_no, chunk_no, what, rows, sha256, content)
VALUES (2, 0, 'session', 1, 'c', zeroblob(5000)),
       (1, 1, 'entry', 2, 'b', x'00ff01'),
       (1, 0, 'session', 1, 'a', x'00ff00');
"""


def test_a_migration_that_fails_leaves_the_version_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection = apsw.Connection(str(tmp_path / "old.db"))
    drain(connection, schema.schema_text())
    version = schema.SCHEMA_VERSION
    broken = (
        f"CREATE TABLE half (x INTEGER) STRICT; PRAGMA user_version = {version + 1};"
        " INSERT INTO nowhere VALUES (1)"
    )
    monkeypatch.setattr(schema, "migrations", lambda: [(version + 1, broken)])
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 1)
    with pytest.raises(apsw.SQLError, match="nowhere"):
        schema.create_or_migrate(connection, "old.db")
    assert connection.pragma("user_version") == version
    assert ("table", "half") not in objects(connection)
    assert not connection.in_transaction


def test_the_distributions_shell_reads_schema_and_views(tmp_path: Path) -> None:
    shell = shutil.which("sqlite3")
    if shell is None:
        pytest.skip("no sqlite3 command on this machine")
    path = tmp_path / "gateway.db"
    connection = apsw.Connection(str(path))
    drain(connection, "PRAGMA journal_mode = wal")
    drain(connection, schema.schema_text())
    readable = (
        "SELECT name FROM sqlite_schema"
        " WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    )
    names = [name for (name,) in drain(connection, readable)]
    script = "".join(f'SELECT count(*) FROM "{name}";\n' for name in names)
    read = subprocess.run(
        [shell, "-readonly", "-bail", str(path)],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (read.returncode, read.stderr) == (0, "")
    assert len(read.stdout.split()) == len(names)
    load = subprocess.run(
        [shell, "-bail", ":memory:"],
        input=schema.schema_text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (load.returncode, load.stderr) == (0, "")
    connection.close()
