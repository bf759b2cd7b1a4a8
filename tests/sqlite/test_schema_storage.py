"""What schema.sql stores by itself: defaults, and the rows that a partial index holds."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sessiondb.sqlite.schema import schema_text
from tests.support.world import World, make_world

# A partial index is small, whatever its table grows to: it holds the rows of this condition.
PARTIAL = {
    "instance_open": "closed_at_ms IS NULL",
    "instance_unclean": "unclean = 1",
    "session_by_fork": "forked_from_no IS NOT NULL",
    "branch_by_parent": "parent_branch_no IS NOT NULL",
    "entry_by_idempotency_key": "idempotency_key IS NOT NULL",
    "entry_results": "role = 'toolResult'",
    "entry_instructions": "role = 'system' OR type = 'context_edit'",
    "entry_replies": "role = 'assistant'",
    "entry_asked": "role = 'user'"
    " AND (idempotency_key IS NULL OR idempotency_key NOT GLOB 'inbox:[0-9]*')",
    "compaction_one_running": "state = 'running'",
    "compaction_in_vain": "in_vain = 1",
    "import_file_by_session": "session_no IS NOT NULL",
    "import_file_reading": "state = 'reading'",
    "import_file_by_inode": "inode IS NOT NULL",
    "quarantine_damaged": "severity = 'damaged'",
    "turn_one_running": "state = 'running'",
    "turn_claimed_as": "claim_id IS NOT NULL AND state = 'running'",
    "turn_by_expiry": "state = 'running'",
    "turn_running": "state = 'running'",
    "session_search_behind": "search_behind = 1 AND archived_at_ms IS NULL",
    "session_by_agent": "agent_id IS NOT NULL",
    "inbox_waiting": "state = 'queued' AND waits = 0",
    "inbox_queued": "state = 'queued'",
    "inbox_of_session": "state IN ('queued', 'claimed', 'interrupted')",
    "inbox_untold": "state = 'queued' AND delayed = 0",
    "inbox_interrupted": "state IN ('interrupted', 'dead')",
    "quarantine_waiting": "entry_id IS NOT NULL",
    "quarantine_parent": "waits_for IS NOT NULL",
    "quarantine_ready": "parent_seq IS NOT NULL",
    "quarantine_placed": "entry_seq IS NOT NULL",
    "inbox_edits": "edit_of IS NOT NULL",
    "inbox_heard": "state = 'heard'",
    "inbox_told": "told_no IS NOT NULL",
    "outbox_unsent": "state IN ('pending', 'sending', 'unknown', 'failed')",
    "outbox_of_session": "state IN ('pending', 'sending')",
    "outbox_claimed_as": "claim_id IS NOT NULL AND state = 'sending'",
    "outbox_waiting": "state = 'pending'",
    "outbox_event_once": "event_no IS NOT NULL",
    "outbox_by_turn": "turn_no IS NOT NULL",
    "event_by_session": "session_no IS NOT NULL",
    "archive_one_open": "state <> 'restored'",
    "archive_unfinished": "finished_at_ms IS NULL",
}
# Rows that the world has none of.
ADDED = (
    "UPDATE entry SET role = 'system' WHERE entry_no % 7 = 1 AND role = 'user'",
    "UPDATE import_file SET inode = NULL WHERE name LIKE '%.link'",
    (
        "UPDATE quarantine SET entry_id = 'one', waits_for = 'two', parent_seq = 3, entry_seq = 4 "
        "WHERE byte_offset = (SELECT min(byte_offset) FROM quarantine)"
    ),
    "UPDATE inbox SET edit_of = 1 WHERE inbox_no > 50",
    (
        "UPDATE inbox SET heard = 1, state = 'heard', turn_no = NULL "
        "WHERE inbox_no IN (SELECT inbox_no FROM inbox WHERE state = 'done' LIMIT 2)"
    ),
    "UPDATE session SET agent_id = NULL WHERE session_id LIKE 'twin%'",
    "UPDATE outbox SET turn_no = NULL WHERE outbox_no > 20",
)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def count(w: World, sql: str, *values: Any) -> int:
    [(number,)] = w.connection.execute(sql, values).fetchall()
    return int(number)


@pytest.mark.parametrize("index", PARTIAL)
def test_a_partial_index_holds_the_rows_of_its_condition(world: World, index: str) -> None:
    with world.undone():
        for sql in ADDED:
            world.connection.execute(sql).fetchall()
        table = world.connection.execute(
            "SELECT tbl_name FROM sqlite_schema WHERE name = ?", (index,)
        ).fetchall()[0][0]
        held = count(world, "SELECT sum(ncell) FROM dbstat WHERE name = ?", index)
        # A scan of the table, so that the index does not count itself.
        wanted = f"SELECT count(*) FROM {table} NOT INDEXED WHERE {PARTIAL[index]}"
        assert held == count(world, wanted)
        assert 0 < held < count(world, f"SELECT count(*) FROM {table}")


def test_every_partial_index_is_listed_here() -> None:
    assert set(re.findall(r"INDEX (\w+) ON [^;]*\sWHERE", schema_text())) == PARTIAL.keys()


DEFAULTS = {
    "search_state": {"purging": 0},
    "instance": {"unclean": 0},
    "session": {
        "last_seq": 0,
        "epoch": 0,
        "context_tokens": 0,
        "tokens_fresh": 0,
        "formats": 15,
        "search_behind": 1,
    },
    "entry": {"tokens": 0, "tokens_total": 0, "open_calls": 0, "body_at": 0, "body_bytes": 0},
    "compaction": {"late": 0, "in_vain": 0},
    "import_file": {"bytes": 0, "lines": 0, "entries": 0, "quarantined": 0, "final_newline": 1},
    "lane": {"people": 0},
    "turn": {"incomplete": 0},
    "inbox": {
        "edited": 0,
        "by_person": 0,
        "heard": 0,
        "queued_at_ms": 0,
        "waits": 0,
        "attempts": 0,
        "stops": 0,
        "delayed": 0,
        "restored": 0,
    },
    "outbox": {"attempts": 0, "attempts_before": 0, "waits": 0},
    "archive": {"rows": 0, "bytes": 0, "bytes_stored": 0},
}
# What a copy of a row needs to be another row.
FRESH: dict[str, dict[str, Any]] = {
    "session": {"session_id": "new"},
    "entry": {"entry_no": 999 << 32},
    "compaction": {"compaction_id": "new", "state": "failed", "finished_at_ms": 1},
    "import_file": {"path": "new"},
    "lane": {"lane": "new"},
    "turn": {"state": "failed", "finished_at_ms": 1},
    "inbox": {"event_id": "new", "payload": "{}"},
    "archive": {"state": "restored"},
}
UNIQUE_OR_OPTIONAL = {"epoch", "entry_no", "idempotency_key", "event_no", "consumer"}


@pytest.mark.parametrize("table", DEFAULTS)
def test_a_column_that_is_left_out_has_its_default(world: World, table: str) -> None:
    left_out = {f"{table}_no", *DEFAULTS[table], *UNIQUE_OR_OPTIONAL}
    _, like = next(world.rows(table))
    row = {name: value for name, value in like.items() if name not in left_out}
    row |= FRESH.get(table, {})
    names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    with world.undone():
        found = world.connection.execute(
            f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({values}) RETURNING "
            + ", ".join(DEFAULTS[table]),
            row,
        ).fetchall()
    assert found == [tuple(DEFAULTS[table].values())]


def test_every_default_is_listed_here() -> None:
    text = re.sub(r"--[^\n]*", "", schema_text())
    assert text.count(" DEFAULT ") == sum(map(len, DEFAULTS.values()))
