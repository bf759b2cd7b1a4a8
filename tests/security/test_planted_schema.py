"""A database that an attacker made runs nothing of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import database
from sessiondb.errors import InvalidInput, SessionDBError
from sessiondb.limits import Limits
from sessiondb.sqlite import connection, user_query
from tests.support.attacks import ENDLESS, content_of, run

PLANTS = {
    "a trigger that deletes what is stored": (
        "CREATE TRIGGER t AFTER INSERT ON instance BEGIN DELETE FROM entry; END"
    ),
    "a trigger on every append": (
        "CREATE TRIGGER t AFTER INSERT ON entry "
        "BEGIN DELETE FROM entry WHERE entry_no < new.entry_no; END"
    ),
    "a trigger that never ends": (
        "CREATE TRIGGER t AFTER INSERT ON entry BEGIN SELECT count(*) FROM ("
        + ENDLESS
        + "SELECT n FROM c); END"
    ),
    "a view that never ends in place of ours": "DROP VIEW stuck; CREATE VIEW stuck AS "
    + ENDLESS
    + "SELECT n, n, n, n, n, n FROM c WHERE n < 0",
    "a view that loads an extension": (
        "DROP VIEW stuck; CREATE VIEW stuck AS SELECT load_extension('/tmp/x.so'), 1, 1, 1, 1, 1"
    ),
    "a view that registers a tokenizer": (
        "DROP VIEW stuck; CREATE VIEW stuck AS SELECT fts3_tokenizer('x', x'00'), 1, 1, 1, 1, 1"
    ),
    "a view that reads pages": (
        "DROP VIEW stuck; CREATE VIEW stuck AS SELECT data, 1, 1, 1, 1, 1 FROM sqlite_dbpage"
    ),
    "views that double forty times": "DROP VIEW stuck; CREATE VIEW v0 AS SELECT 1 AS x"
    + "".join(
        f"; CREATE VIEW v{n} AS SELECT a.x FROM v{n - 1} AS a, v{n - 1} AS b" for n in range(1, 40)
    )
    + "; CREATE VIEW stuck AS SELECT x, x, x, x, x, x FROM v39",
    "a virtual table": (
        "CREATE VIRTUAL TABLE planted USING fts5(x); INSERT INTO planted VALUES ('x')"
    ),
    "an index on an expression": "CREATE INDEX planted ON entry (length(hex(payload)))",
}


def plant(path: Path, script: str) -> None:
    with closing(apsw.Connection(str(path))) as opened:
        opened.execute(script).fetchall()


def read_all_and_append(path: Path, tmp_path: Path) -> None:
    """Make every call that only reads, then append. Errors of ours are answers."""
    short = Limits(read_age_s_max=0.2)
    steps: list[Callable[[sessiondb.sync.SessionDB], object]] = [
        lambda db: db.status(),
        lambda db: list(db.sessions()),
        lambda db: [
            session.context()
            for session in (db.session_by_id(info.session_id) for info in db.sessions())
        ],
        lambda db: db.verify(),
        lambda db: db.export(tmp_path / "out"),
        lambda db: list(db.compactions()),
    ]
    for readonly in (True, False):
        with sessiondb.sync.open(path, readonly=readonly, limits=short) as db:
            for step in steps:
                try:
                    step(db)
                except (SessionDBError, apsw.Error):
                    continue
            if not readonly:
                db.session("agent:main:web:direct:jo").append(
                    {"role": "user", "content": "said after"}
                )
    for sql in ("select * from stuck limit 5", "select count(*) from entry"):
        try:
            with database.query(path, sql, timeout_s=0.2) as (_, rows):
                list(rows)
        except SessionDBError:
            continue


def damage_by(script: str, db: Path, tmp_path: Path) -> list[str]:
    """Run a script on a database, use it, and return the damage to entries and other files."""
    before = content_of(db)["entry"]
    plant(db, script)
    others = {
        path: path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.parent != db.parent
    }
    read_all_and_append(db, tmp_path)
    after = content_of(db)["entry"]
    message = (
        []
        if set(before) < set(after) and len(after) == len(before) + 1
        else ["the entries are not those that were stored"]
    )
    message += [
        f"{path} changed" for path, content in others.items() if path.read_bytes() != content
    ]
    with closing(apsw.Connection(str(db), flags=apsw.SQLITE_OPEN_READONLY)) as opened:
        message += [
            "the head was moved"
            for (count,) in opened.execute(
                "select count(*) from session where head_no is null and last_seq > 1"
            )
            if count
        ]
    return message


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_schema_is_not_run_or_is_interrupted(name: str, db: Path, tmp_path: Path) -> None:
    assert damage_by(PLANTS[name], db, tmp_path) == []


@pytest.mark.parametrize(
    "name", ["a trigger that deletes what is stored", "a trigger on every append"]
)
def test_with_triggers_on_that_attack_succeeds(
    name: str, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_no_triggers", lambda opened: None)
    assert damage_by(PLANTS[name], db, tmp_path) != []


def test_a_planted_schema_calls_nothing_without_the_authorizer(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(db, PLANTS["a view that registers a tokenizer"])
    monkeypatch.setattr(user_query, "_authorize", lambda *_: apsw.SQLITE_OK)
    with (
        pytest.raises(InvalidInput, match="unsafe use of fts3_tokenizer"),
        database.query(db, "select * from stuck"),
    ):
        pass


@pytest.mark.parametrize(
    "content",
    [b"", b"SQLite format 3\x00", b"\x00" * 8192, b"#!/bin/sh\nrm -rf /\n", os.urandom(20_000)],
    ids=len,
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "gateway.db"
    path.write_bytes(content)
    for arguments in (
        ("status", path),
        ("verify", path),
        ("query", path, "select 1"),
        ("sessions", path),
        ("export", path, tmp_path / "out"),
    ):
        assert run(*arguments).exit_code in (4, 2)
    assert path.read_bytes() == content
