"""Every statement finds its rows by a key or an index, however large the tables are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import apsw
import pytest

import sessiondb.sqlite.queries
from sessiondb.backend import load_statements
from sessiondb.sqlite.schema import schema_text
from sessiondb.sqlite.transaction import Prepared
from tests.sqlite import test_view_plans

STATEMENTS = load_statements(sessiondb.sqlite.queries.__name__)

# A statement that may read a whole table or index, and why that is right.
ALLOWED = {
    "early_lines.next": "the lines that it has found so far: a page at most",
    "redact.forget_order": "the session's forks, found by an index; a person redacts an entry",
    "deletion.indexes": "a row for each imported file, until some; a person asked for a deletion",
    "status.lanes": "lanes: a handful of rows, made by hand; a person asked",
    "restored.suspend_queued": "the partial index of queued messages; nobody else has the file",
    "restored.skip_events": "a row for each reader of events; nobody else has the file",
    "compaction.still_asked": "the one row that its search returns",
    "inbox.ahead": "what it counts is bounded by a limit, and found by an index",
    "inbox.accept": "lanes: a handful of rows, made by hand",
    "inbox.line_up": "lanes: a handful of rows, made by hand",
    "outbox.line_up": "the two rows that its search returns",
    "inbox.line_up_all": "the partial index of waiting messages; a lane got another priority",
    "turns.open_in_lane": "the partial index of running turns; a person drops a lane",
    "turns.pace_of_session": "the few rows that its search returns; a sender is refused",
    "turns.pace_of_lane": "the last turns, bounded by a limit; a sender is refused",
    "inbox.waiting_in_lane": "what it counts is bounded by a limit, and found by an index",
    "inbox.waiting_in_session": "what it counts is bounded by a limit, and found by an index",
    "instance.by_pid": "one row per process that ever wrote; only when a lock is held for seconds",
    "inbox.open": "the partial index of open messages: the rows it returns; a person asked",
    "outbox.due": "the channels that have a waiting reply, each found by a search",
    "outbox.next": "the channels that have a waiting reply, each found by a search",
    "channels.in_force": "channels that refused with a time, and took no reply since: few",
    "channels.forget_old": "the same; once for each pause",
    "recovery.held": "the partial indexes of what runs now: the rows it returns; a person asked",
    "inbox.interrupted_by": "the partial index of running turns; for a plan with dead processes",
    "recovery.idle": "partial indexes of what runs now; for processes of which nothing is known",
    "recovery.overdue_compactions": "the partial index of running jobs, once per recovery",
    "recovery.running_compactions": "the partial index of running jobs, once per dead process",
    "recovery.unclean_starts": "counts the rows of two searches: processes that died lately",
    "salvage.cap_cursors": "consumers of events: a handful of rows; once for each salvage",
    "import_file.agents": "bindings, once per export",
    "import_file.indexes": "receipts of index files, once per export",
    "disk.objects": "the names of tables and indexes",
    "disk.archived": "one row per archive; a person asked",
    "search.count_entries": "one row per session; a person asked",
    "search.mark_all_behind": "one row per session; the index was emptied",
    "search.ask_purge": "one row",
    "search.end_purge": "one row",
    "search.put": "the texts of a step's entries, which a search has found",
    "search.state": "one row",
    "search.take_out": "the texts of a step's entries, which a search has found",
    "status.channels": "counts the partial index of waiting replies; a person asked",
    "status.compactions": "counts every job, by its nature; a person asked",
    "status.processes": "one row per process that ever wrote, newest first; a person asked",
    "status.relations": "the names of tables and views",
    "status.running": "the partial index of running jobs: as many rows as it returns",
    "status.stuck": "the partial index of running jobs, and the rows it returns; a person asked",
    "status.work": "counts, each over a partial index of exactly these rows; a person asked",
    "status.totals": "the partial index of processes that have the file open; a person asked",
    "status.counts": "counts small tables, by its nature; never entries; a person asked for it",
    "verify.broken_rules": "small tables, once SQLite has found a broken rule in one of them",
    "verify.comes_from": "the sessions that a fork comes from: each is found by its key",
    "verify.named_before": "the sessions that a fork comes from: each is found by its key",
    "verify.numbers": "five constant rows",
    "verify.odd_instances": "one row per process that ever wrote; a person asked",
    "verify.odd_pauses": "channels that refused with a time, and took no reply since: few",
    "verify.wal_link": "one row",
    "verify.cursors": "consumers of events: a handful of rows; a person asked",
    "inbox.heard_weight": "what one session has heard and waits, up to a limit: 100",
    "inbox.open_of_session": "the numbers of one page, which are found in two indexes",
    "turns.lanes_before": "lanes: a handful of rows, made by hand",
    "turns.of_instance": "the partial index of running turns, once for each process that died",
}


@pytest.fixture(scope="module")
def connection() -> Iterator[apsw.Connection]:
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(schema_text()).fetchall()
        yield connection


def plan(connection: apsw.Connection, name: str) -> list[str]:
    """Return the steps of a statement's plan. Every parameter is NULL, which does not change it."""
    prepared = Prepared(name, STATEMENTS[name].sql)
    rows = connection.execute(
        "EXPLAIN QUERY PLAN " + prepared.sql, dict.fromkeys(prepared.parameters)
    ).fetchall()
    return [str(row[3]) for row in rows]


def scans(steps: list[str]) -> list[str]:
    """Return the steps that read a whole table or index, or build an index first.

    json_each is a list of the caller's, so it does not count.
    """
    real = [step for step in steps if "VIRTUAL TABLE" not in step and step != "SCAN CONSTANT ROW"]
    return [step for step in real if step.startswith("SCAN ") or "AUTOMATIC" in step]


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_a_statement_finds_its_rows_by_a_key_or_an_index(
    connection: apsw.Connection, name: str
) -> None:
    found = scans(plan(connection, name))
    if name in ALLOWED:
        assert found, f"{name} no longer needs its exception"
    else:
        assert found == []


def test_every_exception_names_a_statement() -> None:
    assert ALLOWED.keys() <= STATEMENTS.keys()


def test_nothing_reads_all_entries(connection: apsw.Connection) -> None:
    """No exception reads all entries either: the gigabytes are in that table."""
    for name, statement in STATEMENTS.items():
        # `entry AS e` is scanned as `e`.
        names = {"entry", *re.findall(r"\bentry AS (\w+)", statement.sql)}
        assert not any(step.split()[1] in names for step in scans(plan(connection, name))), name


def test_a_scan_is_noticed(connection: apsw.Connection) -> None:
    rows = connection.execute(
        "EXPLAIN QUERY PLAN SELECT entry_no FROM entry AS e WHERE role = 'user'"
    ).fetchall()
    assert scans([row[3] for row in rows]) == ["SCAN e"]


# What `NOT IN (SELECT value FROM json_each(:alive))` adds: the caller's list of a few numbers.
GIVEN_LIST = ["LIST SUBQUERY 1", "SCAN json_each VIRTUAL TABLE INDEX 1:", "CREATE BLOOM FILTER"]
# The channels that have a waiting reply: one search for each, however many wait.
WAITING_CHANNELS = [
    "CO-ROUTINE waiting",
    "SETUP",
    "SEARCH outbox USING COVERING INDEX outbox_waiting",
    "RECURSIVE STEP",
    "SCAN waiting",
    "CORRELATED SCALAR SUBQUERY 2",
    "SEARCH o USING COVERING INDEX outbox_waiting (channel>?)",
]
HOT = {
    # the path of an append
    "transcript.state": [
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH h USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
    ],
    "transcript.save_state": ["SEARCH session USING INTEGER PRIMARY KEY (rowid=?)"],
    "transcript.by_no": ["SEARCH entry USING INTEGER PRIMARY KEY (rowid=?)"],
    "transcript.by_id": ["SEARCH entry USING INDEX entry_by_id (<expr>=? AND entry_id=?)"],
    "transcript.by_idempotency_key": [
        "SEARCH entry USING INDEX entry_by_idempotency_key (<expr>=? AND idempotency_key=?)"
    ],
    "transcript.branch": ["SEARCH branch USING INTEGER PRIMARY KEY (rowid=?)"],
    # pages of history, and what a model is sent
    "transcript.span_forward": ["SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "transcript.span_backward": ["SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "transcript.newest_in_span": ["SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "transcript.typed_forward": [
        "SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        *GIVEN_LIST,
    ],
    "transcript.typed_backward": [
        "SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        *GIVEN_LIST,
    ],
    "context.span_backward": ["SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "transcript.all_entries": ["SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "context.pointers": ["SEARCH s USING INTEGER PRIMARY KEY (rowid=?)"],
    "context.span": ["SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "context.ids": ["SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "context.instructions": [
        "SEARCH entry USING INDEX entry_instructions (branch_no=? AND entry_no>? AND entry_no<?)"
    ],
    "context.boundary": ["SEARCH entry USING INTEGER PRIMARY KEY (rowid=?)"],
    # begin and commit of a compaction
    "compaction.running": [
        "SEARCH c USING INDEX compaction_one_running (session_no=?)",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
    ],
    "compaction.recent": ["SEARCH compaction USING INDEX compaction_by_session (session_no=?)"],
    "compaction.results": [
        "SEARCH entry USING INDEX entry_results (branch_no=? AND entry_no>? AND entry_no<?)"
    ],
    "compaction.cut_page": [
        "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "SEARCH t USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
    ],
    # what a gateway's loops read after every commit
    "inbox.next": [
        "SEARCH i USING INDEX inbox_waiting (lane=? AND available_at_ms>? AND available_at_ms<?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH t USING COVERING INDEX turn_one_running (session_no=?)",
        "SEARCH own USING PRIMARY KEY (lane=?)",
        "CORRELATED SCALAR SUBQUERY 2",
        "SEARCH o USING INDEX inbox_of_session (session_no=?)",
        "SEARCH before USING PRIMARY KEY (lane=?)",
    ],
    "inbox.candidate": [
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "inbox.due": [
        (
            "SEARCH inbox USING COVERING INDEX inbox_waiting"
            " (lane=? AND available_at_ms>? AND available_at_ms<?)"
        )
    ],
    "inbox.late": [
        "SEARCH i USING INDEX inbox_untold (lane=?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "turns.expired": [
        "SEARCH turn USING INDEX turn_by_expiry (expires_at_ms<?)",
        *GIVEN_LIST,
    ],
    "turns.next_expiry": ["SEARCH turn USING COVERING INDEX turn_by_expiry", *GIVEN_LIST],
    "outbox.next": [
        *WAITING_CHANNELS,
        "SCAN w",
        "LIST SUBQUERY 6",
        *GIVEN_LIST[1:],
        "SEARCH o USING INTEGER PRIMARY KEY (rowid=?)",
        "CORRELATED SCALAR SUBQUERY 5",
        (
            "SEARCH o USING INDEX outbox_waiting"
            " (channel=? AND waits=? AND available_at_ms>? AND available_at_ms<?)"
        ),
        "CORRELATED SCALAR SUBQUERY 4",
        "SEARCH e USING INDEX outbox_of_session (session_no=? AND channel=? AND outbox_no<?)",
        "USE TEMP B-TREE FOR ORDER BY",
    ],
    "outbox.candidate": [
        "SEARCH o USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "outbox.due": [
        *WAITING_CHANNELS,
        "SEARCH w",
        "LIST SUBQUERY 5",
        *GIVEN_LIST[1:],
        "CORRELATED SCALAR SUBQUERY 4",
        (
            "SEARCH o USING COVERING INDEX outbox_waiting"
            " (channel=? AND waits=? AND available_at_ms>? AND available_at_ms<?)"
        ),
    ],
    "channels.full": ["SEARCH outbox USING COVERING INDEX outbox_waiting (channel=?)"],
    "events.after": [
        "SEARCH e USING INTEGER PRIMARY KEY (rowid>?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
    ],
    "events.after_for": [
        "SEARCH e USING INDEX event_by_audience (audience=? AND event_no>?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
    ],
    "events.last": ["SEARCH event"],
    # what a start reads: what is open, never what is done
    "inbox.interrupted": [
        "SEARCH i USING INDEX inbox_interrupted (state=? AND inbox_no<?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH t USING INDEX turn_by_session (session_no=? AND rowid<?)",
        "CORRELATED SCALAR SUBQUERY 2",
        "SEARCH r USING COVERING INDEX import_file_by_session (session_no=?)",
        "SEARCH q USING COVERING INDEX quarantine_damaged (import_file_no=?)",
        "CORRELATED SCALAR SUBQUERY 3",
        "SEARCH l USING PRIMARY KEY (lane=?)",
    ],
    "turns.of_instance": ["SCAN turn USING INDEX turn_one_running", "USE TEMP B-TREE FOR ORDER BY"],
    "outbox.of_instance": ["SEARCH outbox USING INDEX outbox_unsent (state=?)"],
    "recovery.running_compactions": ["SCAN compaction USING INDEX compaction_one_running"],
    "recovery.overdue_compactions": ["SCAN compaction USING INDEX compaction_one_running"],
    "transcript.close_epoch": ["SEARCH epoch USING PRIMARY KEY (session_no=? AND epoch=?)"],
    # an import's question about files whose path is new
    "import_file.by_inode": [
        "SEARCH import_file USING INDEX import_file_by_inode (inode=?)",
        "LIST SUBQUERY 1",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
        "USE TEMP B-TREE FOR ORDER BY",
    ],
    # finding a session
    "registry.by_id": [
        "SEARCH session USING COVERING INDEX sqlite_autoindex_session_1 (session_id=?)"
    ],
    "foreign_ids.find": [
        "SEARCH f USING PRIMARY KEY (namespace=? AND external_id=?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "listing.of_namespace": ["SEARCH foreign_id USING PRIMARY KEY (namespace=?)"],
    "listing.of_keys": ["SEARCH binding USING PRIMARY KEY (session_key>? AND session_key<?)"],
    "registry.by_key": [
        "SEARCH b USING PRIMARY KEY (session_key=?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "verify.entries": [
        "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "SEARCH b USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH q USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
    ],
}


@pytest.mark.parametrize("name", HOT)
def test_the_plan_of_a_hot_statement_is_pinned(connection: apsw.Connection, name: str) -> None:
    assert plan(connection, name) == HOT[name]


# Indexes that a statement must use. Without one it would return the same, and walk a table.
# Many repeat the condition of a partial index, so that SQLite searches in its few rows.
# One that is named several times is used in so many parts.
INDEXES = {
    "search.behind": ["session_search_behind"],
    "search.count_behind": ["session_search_behind"],
    "early_lines.found": ["quarantine_parent"],
    "early_lines.next": ["quarantine_ready", "quarantine_parent"],
    "early_lines.waiting": ["quarantine_waiting"],
    "import_file.payloads": ["quarantine_placed"],
    "archive.branches": ["branch_by_session"],
    "compaction.still_asked": ["entry_asked", "entry_by_idempotency_key", "inbox_of_session"],
    "archive.of_session": ["archive_one_open"],
    "archive.open_of": ["archive_one_open"],
    "archive.protection": [
        "inbox_of_session",
        "inbox_interrupted",
        "outbox_of_session",
        "outbox_unsent",
        "session_by_fork",
        "archive_by_session",
    ],
    "archive.unfinished": ["archive_unfinished"],
    "registry.info": ["foreign_id_of_session", "binding_by_session", "compaction_by_session"],
    "listing.newest": ["session_by_update", "foreign_id_of_session", "binding_by_session"],
    "listing.oldest": ["session_by_update", "foreign_id_of_session", "binding_by_session"],
    "listing.of_agent": ["session_by_agent"],
    "retention.oldest": ["session_by_update"],
    "pruning.event": ["inbox_told"],
    "recovery.open_instances": ["instance_open"],
    "recovery.unclean_starts": ["instance_unclean"],
    "inbox.newest_text": ["inbox_edits"],
    "inbox.heard": ["inbox_heard"],
    "inbox.heard_weight": ["inbox_heard"],
    "turns.lane": ["turn_running"],
    "inbox.waiting_in_session": ["inbox_of_session"],
    "inbox.open_in_session": ["inbox_of_session"],
    "inbox.ahead": ["inbox_of_session"],
    "inbox.wait_behind": ["inbox_of_session", "inbox_queued"],
    "inbox.waiting_in_lane": ["inbox_queued"],
    "inbox.accept": ["inbox_queued", "turn_one_running"],
    "inbox.line_up": ["inbox_queued", "turn_one_running"],
    "inbox.line_up_all": ["inbox_queued", "turn_one_running", "inbox_of_session"],
    "inbox.interrupted_before": ["inbox_of_session"],
    "inbox.interrupted": ["inbox_interrupted"],
    "inbox.restored": ["inbox_interrupted"],
    "inbox.dead": ["inbox_interrupted"],
    "channels.full": ["outbox_waiting"],
    "outbox.add": ["outbox_of_session"],
    "outbox.line_up": ["outbox_of_session"],
    "outbox.overdue": ["outbox_unsent"],
    "outbox.claimed_as": ["outbox_claimed_as"],
    "turns.claimed_as": ["turn_claimed_as"],
    "outbox.of_instance": ["outbox_unsent"],
    "outbox.list": ["outbox_unsent"],
    "recovery.idle": ["outbox_unsent"],
    "verify.inbox": ["inbox_of_session"],
    "status.stuck": [
        *["turn_by_expiry", "turn_by_session", "turn_one_running", "inbox_of_session"],
        *["turn_running"] * 2,
        *["inbox_queued"] * 3,
        *["inbox_interrupted"] * 2,
        *["outbox_unsent"] * 3,
        *["outbox_waiting"] * 6,
        *["event_by_audience"] * 2,
        *["compaction_by_session"] * 2,
        *["compaction_in_vain", "import_file_reading"],
        *["outbox_of_session", "compaction_one_running", "archive_unfinished"],
    ],
    "status.lanes": ["turn_running", *["inbox_queued"] * 2, *["inbox_interrupted"] * 2],
    "status.work": ["inbox_interrupted"] * 2 + ["outbox_unsent"] * 4,
    "recovery.held": ["turn_by_expiry", "compaction_one_running", "outbox_unsent"],
}


# Indexes that no statement searches.
UNNAMED = {
    "branch_by_parent": "SQLite searches it for children when a branch is deleted",
    "outbox_event_once": "it refuses a second reply about one event to one consumer",
}


@pytest.mark.parametrize("name", INDEXES)
def test_a_statement_uses_its_indexes(connection: apsw.Connection, name: str) -> None:
    steps = plan(connection, name)
    for index in INDEXES[name]:
        used = sum(bool(re.search(rf"\bINDEX {index}\b", step)) for step in steps)
        assert used >= INDEXES[name].count(index), index


def test_every_index_has_a_statement_that_must_use_it() -> None:
    named = re.findall(r"^CREATE (?:UNIQUE )?INDEX (\w+)", schema_text(), re.MULTILINE)
    pinned = " ".join(step for steps in HOT.values() for step in steps)
    used = {index for indexes in INDEXES.values() for index in indexes}
    used |= {index for index in named if re.search(rf"\b{index}\b", pinned)}
    assert set(named) == used | UNNAMED.keys() | test_view_plans.INDEXES.keys()
    assert not used & UNNAMED.keys()
