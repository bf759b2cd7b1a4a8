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
