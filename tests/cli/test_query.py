"""`query`: its formats, its refusal of all but reads, and its limits."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.support.command_line import fails, ok, run


def test_query_prints_in_every_format(db: Path) -> None:
    sql = "select 1 as a, 'x,\"y' as b union all select 2, null"
    assert json.loads(ok("query", db, sql)) == [{"a": 1, "b": 'x,"y'}, {"a": 2, "b": None}]
    assert json.loads(ok("query", db, sql, "--json", "--arrays")) == [[1, 'x,"y'], [2, None]]
    assert [json.loads(line)["a"] for line in ok("query", db, sql, "--nl").splitlines()] == [1, 2]
    assert list(csv.reader(io.StringIO(ok("query", db, sql, "--csv")))) == [
        ["a", "b"],
        ["1", 'x,"y'],
        ["2", ""],
    ]
    assert list(
        csv.reader(io.StringIO(ok("query", db, sql, "--tsv", "--no-headers")), "excel-tab")
    ) == [["1", 'x,"y'], ["2", ""]]
    assert ok("query", db, sql, "--fmt", "github").startswith("|   a | b")
    assert ok("query", db, sql, "--table").splitlines()[0].split() == ["a", "b"]
    assert json.loads(ok("query", db, "select '[1]' as a", "--json-cols")) == [{"a": [1]}]
    assert json.loads(ok("query", db, "select :n as a", "-p", "n", "it's")) == [{"a": "it's"}]


def test_every_view_can_be_queried(db: Path) -> None:
    names = json.loads(
        ok("query", db, "select name from sqlite_schema where type = 'view'", "--arrays")
    )
    assert len(names) >= 8
    for [name] in names:
        json.loads(ok("query", db, f"select * from {name}"))


@pytest.mark.parametrize(
    "sql",
    [
        "delete from entry",
        "update session set name = 'x'",
        "insert into binding values ('a', 1, 'b', 1, null)",
        "create table x(a)",
        "create temp table x(a)",
        "create temp view v as select 1",
        "drop view stuck",
        "attach 'other.db' as other",
        "vacuum",
        "vacuum into 'copy.db'",
        "reindex",
        "analyze",
        "begin",
        "savepoint s",
        "select load_extension('x')",
        "pragma user_version = 9",
        "pragma query_only = off",
        "pragma journal_mode = delete",
        "pragma wal_checkpoint(truncate)",
        "pragma writable_schema = on",
        "delete from entry returning *",
        "explain delete from entry",
        "select 1; delete from entry",
        "select 1; -- and\ndelete from entry",
        "select 1 /* ; */; /* */ delete from entry",
        "",
        "-- nothing",
    ],
)
def test_query_does_nothing_but_read(
    db: Path, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    looks = ("select * from entry", "select * from session", "pragma user_version")
    dump = [ok("query", db, look) for look in looks]
    files = sorted(path.name for path in tmp_path.iterdir())
    fails(2, "query", db, sql)
    assert [ok("query", db, look) for look in looks] == dump
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_text_that_is_no_unicode_is_printed_too(tmp_db: Path, tmp_path: Path) -> None:
    header = (
        '{"type":"session","version":3,"id":"one",'
        '"timestamp":"2026-01-01T00:00:00.000Z","cwd":""}\n'
    )
    message = [b"whole", b"half \\ud83d", b"after"]
    line = (
        b'{"type":"message","id":"%d","parentId":null,"message":{"role":"user","content":"%s"}}\n'
    )
    body = b"".join(line % pair for pair in enumerate(message))
    (tmp_path / "one.jsonl").write_bytes(header.encode() + body + b"\xff\xfe not a line\n")
    run("import", tmp_db, tmp_path / "one.jsonl")
    sql = (
        "select text, text, 5 as n, x'00' as b from transcript where seq > 0 "
        "order by seq desc; -- a comment"
    )
    rows = json.loads(ok("query", tmp_db, sql, "--arrays"))
    assert [row[0] for row in rows] == ["after", "half \ud83d", "whole"]
    assert [row[1:3] for row in rows] == [[row[0], 5] for row in rows]
    assert {row[3]["encoded"] for row in rows} == {"AA=="}
    assert "not a line" in ok("query", tmp_db, "select * from quarantine_log")
    for ending in ("", ";", " ;; ", "; -- ;", " -- ;", "; /* ; */ ;"):
        found = json.loads(
            ok(
                "query",
                tmp_db,
                f"select text, ';--x' as s from transcript where seq = 2 and ';--' = ';--'{ending}",
            )
        )
        assert found == [{"text": "half \ud83d", "s": ";--x"}]
        found = json.loads(
            ok(
                "query",
                tmp_db,
                f"select text from transcript where text glob 'h*' and 'x' <> ';--x'{ending}",
            )
        )
        assert [row["text"][:4] for row in found] == ["half"]
    for shape in ("--csv", "--table", "--nl"):
        assert "half \\ud83d" in ok("query", tmp_db, "select * from transcript", shape)


def test_a_wrong_name_is_answered_with_the_right_ones(db: Path) -> None:
    assert "the views are archive_log, compaction_log" in fails(
        2, "query", db, "select * from overview"
    )
    assert "no such column: nope" in fails(2, "query", db, "select nope from session_overview")
    fails(2, "query", db, "select :missing")
    assert "no table format 'x'" in fails(2, "query", db, "select 1", "--fmt", "x")
    fails(2, "query", db, "select 1", "--csv", "--nl")


def test_a_query_that_runs_too_long_is_stopped(db: Path) -> None:
    endless = (
        "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    )
    assert "stopped after 0.05 s" in fails(1, "query", db, endless, "--timeout", "0.05")


def test_a_large_result_comes_out_whole(db: Path) -> None:
    sql = (
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000) "
        "select i, 'text ' || i as t from n"
    )
    lines = ok("query", db, sql, "--nl").splitlines()
    assert len(lines) == 50_000
    assert json.loads(lines[-1]) == {"i": 50_000, "t": "text 50000"}
