"""`query` reads, within limits. No statement of it writes, attaches, loads or acts."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import database, limits
from sessiondb.cli import query
from sessiondb.errors import InvalidInput, ReadTooLong, SessionDBError
from sessiondb.sqlite import connection, user_query
from sessiondb.transcript import entries
from tests import ROOT
from tests.support import warm
from tests.support.attacks import ATTACKS, ENDLESS, SEED, content_of, run

WRITES = [
    (
        "insert into event (kind, audience, at_ms, text, data)"
        " values ('x', 'user', 0, '', '{{}}') returning 1"
    ),
    "delete from entry returning entry_id",
    "update session set epoch = 99 returning session_id",
    "replace into lane values ('main', 9, 9) returning lane",
    "with x as (select 1) delete from entry returning 1",
    "select 1; delete from entry",
    "create table planted (x)",
    "create temp table planted (x)",
    "create view planted as select 1",
    "create trigger planted after insert on entry begin select 1; end",
    "create virtual table planted using fts5(x)",
    "drop table entry",
    "alter table entry rename to other",
    "attach '{home}/attached.db' as planted",
    "vacuum into '{home}/vacuumed.db'",
    "vacuum",
    "reindex",
    "analyze",
    "begin immediate",
    "commit",
    "savepoint x",
    "detach main",
    "select load_extension('{home}/x.so')",
    "select writefile('{home}/written', 'x')",
    "select edit('x', 'touch {home}/edited')",
    "select fts3_tokenizer('simple')",
    "select fts3_tokenizer('x', x'0000000000000000')",
    "select sqlite_log(1, 'forged')",
    "select readfile('/etc/passwd')",
    "select * from fsdir('/')",
    "select * from sqlite_dbpage('main')",
    "update sqlite_dbpage set data = zeroblob(4096) where pgno = 1 returning 1",
    "insert into sqlite_schema values ('table', 'x', 'x', 2, 'create table x (y)') returning 1",
    "explain delete from entry",
    "select * from pragma_journal_mode('delete')",
    "select * from pragma_wal_checkpoint('truncate')",
    "select * from pragma_query_only(0)",
]
HARMLESS_ROWS = {"explain delete from entry"}  # it explains the statement and does nothing


def pragma_attacks() -> list[str]:
    with closing(apsw.Connection(":memory:")) as opened:
        names = [name for (name,) in opened.execute("pragma pragma_list")]
    forms = (
        "pragma {name} = 1",
        "pragma {name}(1)",
        "pragma {name} = off",
        "pragma main.{name} = delete",
        "select * from pragma_{name}(1)",
    )
    return [form.format(name=name) for name in sorted(names) for form in forms] + [
        f"pragma {name}" for name in sorted(names)
    ]


def footprint(home: Path) -> dict[str, bytes]:
    """Return every file of a folder with its content."""
    return {path.name: path.read_bytes() for path in sorted(home.iterdir())}


def attack(db: Path, sql: str) -> list[str]:
    """Run a statement as `query` does, and return its effects that are not allowed.

    They are changed or new files, rows of a write, and errors that are not ours.
    """
    before = footprint(db.parent)
    message = []
    try:
        with database.query(
            db, sql.format(home=db.parent) if "{" in sql else sql, timeout_s=5.0
        ) as (_, rows):
            found = list(rows)
        if sql in WRITES and sql not in HARMLESS_ROWS and found:
            message.append(f"it was run, and returned {found[0]!r}")
    except SessionDBError:
        pass
    except Exception as error:  # noqa: BLE001  # any error is reported
        message.append(f"{type(error).__name__}: {error}")
    after = footprint(db.parent)
    message += [
        f"{name} changed"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    return message


def test_no_statement_of_query_writes_attaches_loads_or_acts(db: Path) -> None:
    assert {sql: message for sql in WRITES if (message := attack(db, sql))} == {}


def test_no_pragma_given_to_query_changes_anything(db: Path) -> None:
    attacks = pragma_attacks()
    assert len(attacks) > 300
    assert {sql: message for sql in attacks if (message := attack(db, sql))} == {}


def test_no_statement_of_a_gateways_own_acts_either(db: Path) -> None:
    """`SessionDB.query`, in a process that has the database open for writing."""
    answered = set()
    with sessiondb.sync.open(db) as opened:
        opened.query("select 1")
        before, names = content_of(db), sorted(path.name for path in db.parent.iterdir())
        settings = "select * from pragma_query_only, pragma_temp_store, pragma_cache_size"
        for sql in [*WRITES, *pragma_attacks()]:
            try:
                found = opened.query(
                    sql.format(home=db.parent) if "{" in sql else sql, allow_cut=True
                )
            except InvalidInput:
                continue
            if sql in WRITES and found.rows:
                answered.add(sql)
        with pytest.raises(InvalidInput, match="does more than read"):
            opened.query(settings)
        assert content_of(db) == before
        assert sorted(path.name for path in db.parent.iterdir()) == names
        session = opened.create_session()  # its own connections have what they had
        session.append({"role": "user", "content": "hello"})
    assert answered <= HARMLESS_ROWS


def test_an_allowed_pragma_leaves_the_settings_alone(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (
        "query_only",
        "temp_store",
        "cache_size",
        "mmap_size",
        "trusted_schema",
        "writable_schema",
        "busy_timeout",
        "journal_mode",
    )
    opened: list[apsw.Connection] = []
    connect = user_query.connect_visitor

    def visitor(path: str) -> apsw.Connection:
        opened.append(connect(path))
        return opened[-1]

    monkeypatch.setattr(user_query, "connect_visitor", visitor)
    for name in settings:
        for sql in (f"select * from pragma_{name}(1)", f"pragma {name} = 1", f"pragma {name}"):
            try:
                with database.query(db, sql) as (_, rows):
                    list(rows)
                    changed = opened[-1]
                    changed.authorizer = None
                    assert changed.pragma("query_only") == 1, sql
                    assert changed.pragma("writable_schema") == 0, sql
            except SessionDBError:
                continue


def test_without_the_authorizer_all_but_writes_succeed(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_query, "_authorize", lambda *_: apsw.SQLITE_OK)
    reported = {sql for sql in WRITES if attack(db, sql)}
    assert any(sql.startswith("select sqlite_log") for sql in reported) or any(
        "fts3_tokenizer('simple')" in sql for sql in reported
    )
    assert "delete from entry returning entry_id" not in reported  # query_only refuses it


def test_without_authorizer_and_query_only_writes_succeed(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_query, "_authorize", lambda *_: apsw.SQLITE_OK)
    monkeypatch.setattr(connection, "_query_only", lambda opened: None)
    reported = {sql for sql in WRITES if attack(db, sql)}
    assert {
        "delete from entry returning entry_id",
        "update session set epoch = 99 returning session_id",
    } <= reported


VOCABULARY = """
    select from where with recursive union all values insert into delete update set returning
    attach pragma vacuum create temp table view trigger drop explain query plan begin immediate
    commit as entry session sqlite_schema pragma_table_info json_each dbstat query_only
    journal_mode writable_schema main load_extension hex zeroblob randomblob count ( ) , ; = *
    'x' 1 -1 null x . -- /* */
"""
WORDS = VOCABULARY.split()


def test_random_statements_change_nothing_either(db: Path) -> None:
    chosen = random.Random(SEED)
    print(f"random statements: {ATTACKS}, seed {SEED}")
    seeds = [*WRITES, *pragma_attacks()[:50]]
    for number in range(ATTACKS):
        words = (
            chosen.choices(WORDS, k=chosen.randint(1, 14))
            if number % 2
            else chosen.choice(seeds).split()
        )
        for _ in range(chosen.randint(0, 3)):
            words.insert(chosen.randint(0, len(words)), chosen.choice(WORDS))
        sql = (
            " ".join(words)
            .replace("{home}", str(db.parent))
            .replace("{{", "{")
            .replace("}}", "}")
            .replace("{", "(")
            .replace("}", ")")
        )
        assert attack(db, sql) == [], sql


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS + "select count(*) from c",
        ENDLESS + "select n from c where n < 0",
        f"select count(*) from {', '.join(f'entry {alias}' for alias in 'abcdefghijkl')}",
        "select * from (" + ENDLESS + "select n from c) order by 1 limit 1 offset 100000000",
    ],
)
def test_a_query_that_never_ends_is_ended(db: Path, sql: str) -> None:
    with pytest.raises(ReadTooLong), database.query(db, sql, timeout_s=0.05) as (_, rows):
        list(rows)


@pytest.mark.parametrize(
    "sql",
    [
        "select zeroblob(2147483647)",
        "select zeroblob(900000000)",
        "select randomblob(1000000000)",
        "select printf('%*d', 1000000000, 1)",
        "select printf('%.*c', 1000000000, 'x')",
        "select hex(zeroblob(100000000))",
        "select replace(hex(zeroblob(100000)), '0', hex(zeroblob(1000)))",
        ENDLESS + "select group_concat(hex(zeroblob(1000000))) from (select n from c limit 200)",
        "select json_group_array(hex(zeroblob(1000000))) from ("
        + ENDLESS
        + "select n from c limit 200)",
    ],
)
def test_a_value_of_a_gigabyte_is_refused_before_it_is_made(db: Path, sql: str) -> None:
    apsw.memory_high_water(True)
    before = apsw.memory_used()
    with pytest.raises(InvalidInput), database.query(db, sql, timeout_s=20.0) as (_, rows):
        list(rows)
    # The JSON of an array is copied as it grows. The value itself is never made.
    assert apsw.memory_high_water() - before < 5 * limits.QUERY_VALUE_BYTES_MAX


def test_the_largest_entry_that_can_be_stored_can_be_queried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.QUERY_VALUE_BYTES_MAX >= 2 * limits.ENTRY_BYTES_MAX
    monkeypatch.setattr(entries, "ENTRY_BYTES_MAX", 300_000)
    monkeypatch.setattr(user_query, "QUERY_VALUE_BYTES_MAX", 600_000)
    with sessiondb.sync.open(tmp_path / "large.db") as opened:
        opened.create_session().append({"role": "user", "content": "x" * 299_500})
    with database.query(
        tmp_path / "large.db", "select max(length(hex(payload))), max(payload) from entry"
    ) as (_, rows):
        assert next(rows)[0] > 599_000


def in_a_process(
    db: Path, sql: str, *options: str, changed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `sessiondb query` in a process of its own, after a change to the module `query`."""
    code = (
        "import sys\nfrom sessiondb.__main__ import main\n"
        "from sessiondb.cli import query\n"
        f"{changed}\nsys.argv[0] = 'sessiondb'\nmain()"
    )
    return warm.run(
        [sys.executable, "-c", code, "query", str(db), sql, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )


def test_a_sort_that_would_fill_memory_or_disk_is_refused(db: Path) -> None:
    sql = (
        "select count(*) from ("
        + ENDLESS
        + "select n, hex(randomblob(2000)) as r from c limit 100000000) order by r"
    )
    found = in_a_process(
        db,
        sql.replace("count(*)", "r"),
        changed="query.QUERY_MEMORY_BYTES_MAX = 32 << 20",
    )
    assert (found.returncode, "needs more memory than a query may have" in found.stderr) == (
        2,
        True,
    ), found.stderr


def test_an_uninterruptible_function_ends_with_the_process(db: Path) -> None:
    found = in_a_process(
        db,
        "select instr(zeroblob(60000000), cast(zeroblob(30000000) || '1' as blob))",
        "--timeout",
        "0.2",
        changed="query.QUERY_STOP_S = 0.2",
    )
    assert (found.returncode, "it could not be stopped" in found.stderr) == (5, True), found.stderr


def test_output_without_end_and_tables_without_end_are_refused(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "QUERY_OUTPUT_BYTES_MAX", 1_000_000)
    monkeypatch.setattr(query, "QUERY_TABLE_ROWS_MAX", 1_000)
    # The limit is one of the whole process, which runs other tests.
    monkeypatch.setattr(database, "bound_query_memory", lambda limit_bytes: None)
    for option, message in (
        ("--csv", "the output is longer than 1,000,000 bytes"),
        ("--table", "a table holds at most 1,000 rows"),
    ):
        result = run("query", db, ENDLESS + "select n from c", option)
        assert result.exit_code in (1, 2)
        assert message in result.output
