"""Damaged archives are opened, whole ones stay as they are."""

from __future__ import annotations

import random
import struct
import zlib
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from sessiondb import sync
from sessiondb.maintenance import archive
from sessiondb.maintenance.retention import RetentionPolicy
from tests.support.core import change, user
from tests.support.damage import (
    Truth,
    limited,
    rows_of,
    salvaged,
)


@pytest.fixture
def archived(tmp_path: Path) -> tuple[Path, Truth]:
    """Return a database whose only session is in an archive, and its content before that."""
    path = tmp_path / "archived.db"
    with sync.open(path) as db:
        session = db.session("agent:main:web:1")
        for number in range(60):
            session.append(
                user(f"question {number} " + random.Random(number).randbytes(6_000).hex())
            )
    truth = Truth.of(path)
    with sync.open(path) as db:
        db.gc(RetentionPolicy(max_sessions=0, idle_days=0))
    return path, truth


def test_a_whole_archive_stays_an_archive(archived: tuple[Path, Truth], new: Path) -> None:
    path, truth = archived
    assert salvaged(path, new).complete
    with sync.open(new) as db:
        [info] = db.sessions(with_ended=True)
        assert info.archived_at_ms is not None
        db.unarchive(info.session_id)
    assert {
        number: row for number, row in rows_of(new).items() if number[0] == "entry"
    } == truth.rows


@pytest.mark.parametrize("lost", ["a chunk", "the archive's row"])
def test_the_whole_rows_of_a_damaged_archive_are_put_back(
    archived: tuple[Path, Truth], new: Path, lost: str
) -> None:
    path, truth = archived
    if lost == "a chunk":
        with closing(apsw.Connection(str(path))) as db:
            [(number, content)] = db.execute(
                "SELECT chunk_no, content FROM archive_chunk"
                " WHERE what = 'entry' ORDER BY chunk_no LIMIT 1"
            ).fetchall()
            cut = content[: len(content) * 2 // 3]
            db.execute(
                "UPDATE archive_chunk SET content = ? WHERE chunk_no = ?", (cut, number)
            ).fetchall()
    else:
        change(path, "DELETE FROM archive")
    report = salvaged(path, new)
    assert (report.findings, report.complete) == ([], False)
    entries = [
        row
        for (table, _), row in rows_of(new).items()
        if table == "entry" and row in truth.rows.values()
    ]
    assert (
        len(entries) == len(truth.rows)
        if lost != "a chunk"
        else len(truth.rows) / 2 < len(entries) < len(truth.rows)
    )
    with sync.open(new) as db:
        [info] = db.sessions(with_ended=True)
        assert info.archived_at_ms is None
        assert len(db.session_by_id(info.session_id).entries(limit=1000)) >= len(entries) - 1


@pytest.mark.parametrize("encoding", ["zlib", "zstd"])
def test_a_damaged_archive_of_one_chunk_loses_only_what_it_held(
    tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    if encoding == "zstd":
        pytest.importorskip("zstandard", reason="the extra `zstd` is not installed")
    monkeypatch.setattr(archive, "best_encoding", lambda: encoding)
    path = tmp_path / "small.db"
    with sync.open(path) as db:
        for number in range(3):
            db.session(f"agent:main:web:{number}").append_many(
                [user(random.Random(number * 100 + at).randbytes(600).hex()) for at in range(20)]
            )
        ids = [info.session_id for info in db.sessions()]
        entries = {one: db.session_by_id(one).all_entries(limit=100) for one in ids}
        db.gc(RetentionPolicy(max_sessions=0, idle_days=0))
    with closing(apsw.Connection(str(path))) as connection:
        [(archive_no, what, content, damaged)] = connection.execute(
            "SELECT archive_no, what, content, session_id FROM archive_chunk "
            "JOIN archive USING (archive_no) JOIN session USING (session_no) WHERE archive_no = 2"
        ).fetchall()
        assert what == "whole"
        connection.execute(
            "UPDATE archive_chunk SET content = ? WHERE archive_no = ?",
            (content[: len(content) * 2 // 3], archive_no),
        ).fetchall()
    report = salvaged(path, new)
    assert (report.findings, report.complete) == ([], False)
    assert [(one.session_id, one.outcome) for one in report.damaged_sessions] == [
        (damaged, "archive opened")
    ]
    with sync.open(new) as db:
        for one in ids:
            if one != damaged:
                db.unarchive(one)
                assert db.session_by_id(one).all_entries(limit=100) == entries[one]
        left = {entry.payload for entry in db.session_by_id(damaged).all_entries(limit=100)}
        texts = {entry.payload for entry in entries[damaged]}
        # A frame of zstd is read block by block, and a small text is one block.
        assert len(left & texts) > (len(texts) / 3 if encoding == "zlib" else 0)
        assert len(left & texts) < len(texts)
        assert db.verify(deep=True).findings == ()


def test_a_chunk_that_claims_a_terabyte_is_damaged(archived: tuple[Path, Truth], new: Path) -> None:
    path, _ = archived
    with closing(apsw.Connection(str(path))) as db:
        [(encoding,)] = db.execute("SELECT encoding FROM archive").fetchall()
        [(number, content)] = db.execute(
            "SELECT chunk_no, content FROM archive_chunk WHERE what = 'epoch'"
        ).fetchall()
        if encoding == "zstd":
            claim = content[:4] + bytes([0b11100000]) + struct.pack("<Q", 1 << 40) + content[7:]
        else:
            claim = zlib.compress(bytes(64 * 2**20), 9)
        db.execute(
            "UPDATE archive_chunk SET content = ? WHERE chunk_no = ?", (claim, number)
        ).fetchall()
    report = limited(path, new)
    assert (report["findings"], report["damaged_sessions"][0]["outcome"]) == ([], "archive opened")
