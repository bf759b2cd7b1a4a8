"""Each rule of schema.sql refuses a bad row, and takes the good ones beside it.

A case copies a row of the populated world under a new key. Good changes of the copy are
stored, and bad ones are refused with the rule's name. So a rule that is lost, or that
refuses too much, is seen. NOT NULL and the types of STRICT tables need no case: they are
tried on every column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apsw
import pytest

from sessiondb.sqlite.schema import schema_text
from tests.support.world import FRESH, NEW, World, make_world, tables

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """A rule, the row that is copied, and changes of the copy."""

    name: str
    row: str
    bad: Sequence[Values]
    good: Sequence[Values]
    message: str | None = None
    """What SQLite says about a bad row. None: the rule's name."""

    def __str__(self) -> str:
        return self.name


def one_of(name: str, row: str, column: str, values: str, **more: Any) -> Rule:
    """Return the rule of a column that takes only some words."""
    good = [{column: value, **more} for value in values.split()]
    return Rule(name, row, [{column: "other", **more}, {column: "", **more}], good)


EVENT = "event compaction_started/operator/1"
ENDED = ("superseded", "rejected", "failed", "cancelled", "expired", "abandoned")
DONE = {"state": "failed", "finished_at_ms": 1}
CHECKS = [
    Rule("wal_link_once", "wal_link", [{"link_no": 2}, {"link_no": 0}], []),
    Rule("search_state_once", "search_state", [{"state_no": 2}, {"state_no": 0}], []),
    Rule(
        "session_no_fits_entry_no",
        "session live",
        [{"session_no": 0}, {"session_no": -1}, {"session_no": 2**31}],
        [{"session_no": 2**31 - 1}],
    ),
    one_of("session_origin_known", "session live", "origin", "native import fork"),
    Rule(
        "session_formats_known",
        "session live",
        [{"formats": 0}, {"formats": 16}, {"formats": -1}],
        [{"formats": value} for value in (1, 2, 4, 8, 15)],
    ),
    Rule(
        "binding_details_json",
        "binding agent:main:web:live",
        [{"details": "{"}, {"details": ""}],
        [{"details": None}, {"details": "{}"}],
    ),
    Rule(
        "session_details_json",
        "session_details live",
        [{"document": "{"}, {"document": ""}],
        [{"document": "{}"}],
    ),
    Rule(
        "named_details_json",
        "named_details app/a",
        [{"document": "{"}, {"document": ""}],
        [{"document": "{}"}],
    ),
    Rule(
        "branch_parent_and_fork_together",
        "branch live/17",
        [{"parent_branch_no": None}, {"fork_no": None}],
        [{"parent_branch_no": None, "fork_no": None}, {}],
    ),
    Rule(
        "entry_projection_known",
        "entry live/3",
        [{"projection": -1}, {"projection": 5}],
        [{"projection": value} for value in range(5)],
    ),
    one_of(
        "epoch_reason_known",
        "epoch live/0",
        "reason",
        "start compaction reset branch undo fork",
    ),
    Rule(
        "compaction_state_known",
        "compaction live-first",
        [{"state": "other", "epoch": None}, {"state": "", "epoch": None}],
        [
            *(
                {"state": state, "epoch": None}
                for state in [
                    "superseded",
                    "rejected",
                    "failed",
                    "cancelled",
                    "expired",
                    "abandoned",
                ]
            ),
            {},
        ],
    ),
    Rule(
        "compaction_committed_is_complete",
        "compaction live-first",
        [{"epoch": None}, {"entry_no": None}, {"state": "failed"}],
        [{}, {"state": "failed", "entry_no": None}, {"state": "failed", "epoch": None}],
    ),
    Rule(
        "compaction_finished_when_not_running",
        "compaction live-first",
        [{"finished_at_ms": None}, {"state": "running", "epoch": None}],
        [{"state": "running", "epoch": None, "finished_at_ms": None}],
    ),
    one_of(
        "import_file_kind_known",
        "import_file main/odd.jsonl",
        "kind",
        "live reset deleted bak checkpoint corrupt index pi",
    ),
    one_of(
        "import_file_state_known", "import_file main/odd.jsonl", "state", "reading done changed"
    ),
    one_of(
        "quarantine_severity_known",
        "quarantine main/odd.jsonl@261",
        "severity",
        "blank damaged early",
    ),
    Rule(
        "lane_concurrency_positive",
        "lane main",
        [{"concurrency": 0}, {"concurrency": -1}],
        [{"concurrency": 1}],
    ),
    Rule(
        "lane_settings_json",
        "lane main",
        [{"settings": "{torn"}, {"settings": ""}],
        [{"settings": '{"lease_s":5}'}, {"settings": None}],
    ),
    one_of("turn_kind_known", "turn done#1", "kind", "message resume"),
    one_of("turn_state_known", "turn done#1", "state", "completed failed aborted interrupted"),
    Rule(
        "turn_progress_json",
        "turn done#1",
        [{"progress": "{torn"}, {"progress": ""}],
        [{"progress": '{"message_id":1}'}, {"progress": "null"}, {"progress": None}],
    ),
    Rule(
        "turn_finished_when_not_running",
        "turn done#1",
        [{"state": "running"}, {"finished_at_ms": None}],
        [{"state": "running", "finished_at_ms": None}],
    ),
    Rule(
        "inbox_state_known",
        "inbox dead",
        [{"state": "other"}, {"state": ""}],
        [
            *({"state": name} for name in ("queued", "claimed", "interrupted", "done", "dead")),
            {"state": "heard", "heard": 1, "turn_no": None},
        ],
    ),
    Rule(
        "inbox_end_is_told",
        "inbox dead",
        [{"told_no": None}, {"state": "queued", "superseded_by": 1, "told_no": None}],
        [{"state": "queued", "told_no": None}, {"superseded_by": 1}],
    ),
    Rule(
        "inbox_text_is_kept",
        "inbox dead",
        [{"entry_no": None}, {"entry_no": None, "payload": None}],
        [{"payload": ""}, {"entry_no": None, "payload": "{}"}],
    ),
    Rule(
        "inbox_heard_never_runs",
        "inbox dead",
        [
            {"heard": 1},
            {"heard": 1, "turn_no": None},
            {"state": "heard"},
            {"heard": 1, "state": "heard"},
            {"heard": 1, "state": "done"},
        ],
        [
            {"heard": 1, "state": "heard", "turn_no": None},
            {"heard": 1, "state": "done", "turn_no": None},
        ],
    ),
    *(
        Rule(
            f"{table}_details_object",
            row,
            [{"details": value} for value in ("{", "", "[]", "1", "null")],
            [{"details": None}, {"details": "{}"}],
        )
        for table, row in (("inbox", "inbox dead"), ("outbox", "outbox web:sent"))
    ),
    one_of("outbox_state_known", "outbox web:sent", "state", "pending sending sent unknown failed"),
    Rule(
        "outbox_event_and_reader_together",
        "outbox web:sent",
        [{"event_no": 7}, {"consumer": "pager"}],
        [{"event_no": 9, "consumer": "pager"}, {}],
    ),
    Rule(
        "channel_pause_ends_later",
        "channel_pause irc",
        [{"until_ms": 1, "begun_at_ms": 2}],
        [{"until_ms": 2, "begun_at_ms": 2}],
    ),
    one_of("event_audience_known", EVENT, "audience", "operator user"),
    Rule(
        "event_data_json",
        EVENT,
        [{"data": "{"}, {"data": ""}],
        [{"data": "{}"}],
    ),
    one_of(
        "archive_state_known",
        "archive old/3",
        "state",
        "writing complete deleting archived restoring restored deleted",
        session_no=1,
    ),
    one_of("archive_encoding_known", "archive old/3", "encoding", "zstd zlib none", session_no=1),
]

UNIQUES = [
    Rule(
        "session_id_unique",
        "session live",
        [{"session_id": "twin"}],
        [{}, {"session_id": "TWIN"}],
        "session.session_id",
    ),
    Rule(
        "compaction_id_unique",
        "compaction live-first",
        [{"compaction_id": "twin-first"}],
        [{}],
        "compaction.compaction_id",
    ),
    Rule(
        "import_file_path_unique",
        "import_file main/odd.jsonl",
        [{"path": "/imports/west/odd.jsonl"}],
        [{}],
        "import_file.path",
    ),
    Rule(
        "named_details_once",
        "named_details app/b",
        [{"name": "a"}],
        [{}, {"name": "b", "namespace": "app 2"}],
        "named_details.namespace, named_details.name",
    ),
    Rule(
        "inbox_event_once",
        "inbox dead",
        [{"event_id": "told"}],
        [{"event_id": "told", "channel": "telegram"}, {}],
        "inbox.channel, inbox.event_id",
    ),
    Rule(
        "outbox_event_once",
        "outbox web:failed",
        [{}, {"consumer": "mailer"}],
        [{"event_no": 8}, {"consumer": "other"}, {"event_no": None, "consumer": None}],
        "outbox.event_no, outbox.consumer",
    ),
    Rule(
        "entry_by_idempotency_key",
        "entry twin-undone/3",
        [{"entry_no": (8 << 32) + NEW, "idempotency_key": "c"}],
        [
            {"entry_no": (8 << 32) + NEW, "idempotency_key": "other"},
            {"entry_no": (8 << 32) + NEW, "idempotency_key": None},
            {"idempotency_key": "c"},
        ],
    ),
    Rule(
        "compaction_one_running",
        "compaction busy",
        [{}],
        [DONE, {"session_no": 1}],
        "compaction.session_no",
    ),
    Rule(
        "foreign_id_of_session",
        "foreign_id app/thread 1",
        [{"session_no": 1}, {"session_no": 1, "namespace": "third app"}],
        [{}, {"namespace": "third app", "external_id": "thread 1"}],
        "foreign_id.session_no",
    ),
    Rule(
        "turn_one_running",
        "turn running#1",
        [{"claim_id": None}],
        [DONE, {"session_no": 1, "claim_id": None}],
        "turn.session_no",
    ),
    Rule(
        "turn_claimed_as",
        "turn running#1",
        [{"session_no": 1}],
        [
            DONE,
            {"session_no": 1, "lane": "slow"},
            {"session_no": 1, "claim_id": "claim 3"},
            {"session_no": 1, "claim_id": None},
        ],
        "turn.lane, turn.claim_id",
    ),
    Rule(
        "outbox_claimed_as",
        "outbox web:sending",
        [{}],
        [
            {"claim_id": "claim of another"},
            {"claim_id": None},
            *({"state": one} for one in ("pending", "sent", "unknown", "failed")),
        ],
        "outbox.claim_id",
    ),
    Rule(
        "archive_one_open",
        "archive old/3",
        [{}, {"state": "deleted"}, {"state": "writing", "finished_at_ms": None}],
        [{"state": "restored"}, {"session_no": 1}],
        "archive.session_no",
    ),
]


def key_rule(table: str) -> Rule:
    """Return the rule that a table's key is unique: a copy of a row is refused under its key."""
    key = tables()[table].key
    old: Values = {"__old__": key}
    if table == "foreign_id":  # a session has one at most, which is another rule
        old = {**old, "session_no": FRESH[table]["session_no"]}
    good: list[Values] = [] if table in ("wal_link", "search_state") else [{}]
    return Rule(f"{table} key", table, [old], good, f"{table}.{key[-1]}")


KEYS = [key_rule(table) for table in FRESH]


def pointer(name: str, row: str, missing: Any = 777_777, *, nullable: bool = False) -> Rule:
    """Return the rule that a column points at a row that exists."""
    column = name.partition(".")[2].partition(" ")[0]
    good: list[Values] = [{}, *([{column: None}] if nullable else [])]
    return Rule(name, row, [{column: missing}], good, "FOREIGN KEY")


POINTERS = [
    pointer("session.forked_from_no -> session", "session live-fork", nullable=True),
    pointer("binding.session_no -> session", "binding agent:main:web:live"),
    pointer("foreign_id.session_no -> session", "foreign_id app/thread 1"),
    pointer("session_details.session_no -> session", "session_details live"),
    pointer("branch.session_no -> session", "branch live/17"),
    pointer("branch.parent_branch_no -> branch", "branch live/17"),
    pointer("epoch.session_no -> session", "epoch live/0"),
    pointer("compaction.session_no -> session", "compaction live-first"),
    pointer("compaction.instance_no -> instance", "compaction live-first", nullable=True),
    pointer("import_file.session_no -> session", "import_file main/odd.jsonl", nullable=True),
    pointer("quarantine.import_file_no -> import_file", "quarantine main/odd.jsonl@261"),
    pointer("turn.session_no -> session", "turn done#1"),
    pointer("turn.lane -> lane", "turn done#1", "no lane"),
    pointer("turn.instance_no -> instance", "turn done#1"),
    pointer("inbox.session_no -> session", "inbox dead"),
    pointer("inbox.lane -> lane", "inbox dead", "no lane"),
    pointer("outbox.session_no -> session", "outbox web:sent"),
    pointer("outbox.instance_no -> instance", "outbox web:sent", nullable=True),
    pointer("event.session_no -> session", EVENT, nullable=True),
    pointer("archive.session_no -> session", "archive old/1"),
    pointer("search_session.session_no -> session", "search_session live"),
    pointer("archive_chunk.archive_no -> archive", "archive_chunk old/3/0"),
]
CASES = [*CHECKS, *UNIQUES, *KEYS, *POINTERS]

# Numbers of these are never given out again: archives, adapters and consumers keep them.
NEVER_AGAIN = {"branch", "turn", "inbox", "outbox", "event"}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def source(world: World, row: str) -> tuple[str, dict[str, Any]]:
    """Return a row's table and its values. The label of a table alone means its first row."""
    table = row.partition(" ")[0]
    if " " in row:
        return table, dict(world.row(row))
    return table, dict(next(iter(world.rows(table)))[1])


def copied(world: World, row: str, changes: Values) -> tuple[str, dict[str, Any]]:
    """Return the copy of a row with changes."""
    table, values = source(world, row)
    if "__old__" in changes:
        return table, {column: changes.get(column, value) for column, value in values.items()}
    return table, values | FRESH[table] | changes


def insert(world: World, table: str, values: Values) -> None:
    columns = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    world.connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)


@contextmanager
def refused(message: str) -> Iterator[None]:
    with pytest.raises(apsw.ConstraintError) as caught:
        yield
    assert message in str(caught.value)


@pytest.mark.parametrize("rule", CASES, ids=str)
def test_a_bad_row_is_refused_and_good_ones_are_stored(world: World, rule: Rule) -> None:
    for changes in rule.bad:
        with world.undone(), refused(rule.message or rule.name):
            insert(world, *copied(world, rule.row, changes))
    for changes in rule.good:
        with world.undone():
            insert(world, *copied(world, rule.row, changes))
            [label] = world.changed()
            assert label.startswith("+")


@pytest.mark.parametrize(
    "rule", [rule for rule in CHECKS if not rule.row.startswith("entry ")], ids=str
)
def test_verify_names_a_row_that_breaks_a_rule_and_no_other(world: World, rule: Rule) -> None:
    """A program that does not ask for the rules, or a bad disk, can store such a row."""
    for changes in (*rule.bad, *rule.good):
        with world.undone() as tx:
            world.connection.execute("PRAGMA ignore_check_constraints = on")
            insert(world, *copied(world, rule.row, changes))
            world.connection.execute("PRAGMA ignore_check_constraints = off")
            found = [row.rule for row in tx.all("verify.broken_rules", limit=9)]
            assert found == [rule.name] * (changes in rule.bad)


def columns(kind: str) -> list[tuple[str, str]]:
    """Return the table and name of each column that may not be NULL, or of each with a type."""
    connection = apsw.Connection(":memory:")
    connection.execute(schema_text()).fetchall()
    found: list[tuple[str, str]] = []
    for table in tables():
        for name, type_name, required, pk in connection.execute(
            'SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (table,)
        ):
            is_rowid = pk and type_name == "INTEGER" and len(tables()[table].key) == 1
            if kind == "NOT NULL":
                if required and not is_rowid:
                    found.append((table, name))
            elif type_name == kind:
                found.append((table, name))
    return found


@pytest.mark.parametrize(("table", "column"), columns("NOT NULL"))
def test_a_required_column_is_never_null(world: World, table: str, column: str) -> None:
    with world.undone(), refused(f"NOT NULL constraint failed: {table}.{column}"):
        insert(world, *copied(world, table, {column: None}))


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        *((*column, "text") for column in columns("INTEGER")),
        *((*column, b"blob") for column in columns("TEXT")),
        *((*column, "text") for column in columns("BLOB")),
    ],
)
def test_a_value_of_another_type_is_refused(
    world: World, table: str, column: str, value: Any
) -> None:
    with world.undone(), pytest.raises(apsw.Error) as caught:
        insert(world, *copied(world, table, {column: value}))
    wrong = f"cannot store {'TEXT' if value == 'text' else 'BLOB'} value in"
    assert wrong in str(caught.value) or "datatype mismatch" in str(caught.value)


@pytest.mark.parametrize("table", sorted(NEVER_AGAIN))
def test_the_number_of_a_deleted_row_is_never_given_out_again(world: World, table: str) -> None:
    _, values = source(world, table)
    del values[f"{table}_no"]
    values |= {name: value for name, value in FRESH[table].items() if name in values}
    with world.undone():
        world.connection.execute("PRAGMA defer_foreign_keys = on")
        [(last,)] = world.connection.execute(f"SELECT max({table}_no) FROM {table}").fetchall()
        world.connection.execute(f"DELETE FROM {table} WHERE {table}_no = ?", (last,))
        insert(world, table, values)
        assert world.connection.last_insert_rowid() > last


# -- no rule is without a case ---------------------------------------------------------------


def objects() -> list[tuple[str, str]]:
    """Return the name and the text of each object of the schema, without comments."""
    connection = apsw.Connection(":memory:")
    connection.execute(schema_text()).fetchall()
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return [(name, re.sub(r"--[^\n]*", "", sql)) for name, sql in rows]


def test_every_check_and_every_unique_rule_has_a_case() -> None:
    text = "\n".join(sql for _, sql in objects())
    named = re.findall(r"CONSTRAINT (\w+)\s+(?:CHECK|UNIQUE)", text)
    assert len(named) == len(re.findall(r"\bCHECK\b|(?<!CREATE )\bUNIQUE\b", text)), (
        "a CHECK or UNIQUE has no name: an error could not say which it is"
    )
    unique_indexes = [name for name, sql in objects() if sql.startswith("CREATE UNIQUE INDEX")]
    assert {rule.name for rule in (*CHECKS, *UNIQUES)} == {*named, *unique_indexes}


def test_every_pointer_has_a_case() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(schema_text()).fetchall()
    found = {
        f"{table}.{column} -> {to}"
        for table in tables()
        for column, to in connection.execute(
            'SELECT "from", "table" FROM pragma_foreign_key_list(?)', (table,)
        )
    }
    assert {rule.name for rule in POINTERS} == found


def test_every_table_is_strict_and_has_a_fresh_key() -> None:
    assert FRESH.keys() == tables().keys()
    strict = {name for name, sql in objects() if re.search(r"\bSTRICT\b", sql)}
    assert strict >= tables().keys()


def test_the_tables_whose_numbers_only_grow_are_these() -> None:
    growing = {name for name, sql in objects() if "AUTOINCREMENT" in sql}
    assert growing == NEVER_AGAIN


def test_there_is_no_trigger() -> None:
    """A trigger would be a rule without a case here."""
    assert [name for name, sql in objects() if sql.startswith("CREATE TRIGGER")] == []
