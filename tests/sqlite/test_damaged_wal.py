"""Rows that only the WAL holds come out, as far as SQLite itself would read them.

SESSIONDB_DAMAGE is how many damaged WALs are tried, SESSIONDB_DAMAGE_SEED the seed.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from sessiondb.sqlite import damaged_file, damaged_wal
from tests.support.damage import (
    SEED,
    TIMES,
    Truth,
    complaints,
    copy_of,
    die_with_wal,
    salvaged,
)

pytestmark = pytest.mark.damaged_values


@pytest.fixture(scope="module")
def killed(sound: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database whose last process was killed."""
    return die_with_wal(copy_of(sound.path, tmp_path_factory.mktemp("killed") / "killed.db"))


def as_sqlite_sees(path: Path, scratch: Path) -> Truth:
    """Return what SQLite itself reads from a database and its WAL, on a copy."""
    return Truth.of(copy_of(path, scratch))


def test_rows_that_only_the_wal_holds_come_out(killed: Path, tmp_path: Path, new: Path) -> None:
    path = copy_of(killed, tmp_path / "broken.db")
    truth = as_sqlite_sees(path, tmp_path / "scratch.db")
    before = [Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal")]
    report = salvaged(path, new)
    assert (report.wal, complaints(truth, set(), new, report), report.complete) == (
        "whole",
        [],
        True,
    )
    assert any(
        "in the WAL" in row["payload"] for (table, _), row in truth.rows.items() if table == "entry"
    )
    assert [Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal")] == before


def test_a_salvage_that_drops_the_wal_is_caught(
    killed: Path, tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(killed, tmp_path / "broken.db")
    truth = as_sqlite_sees(path, tmp_path / "scratch.db")
    monkeypatch.setattr(damaged_file, "read_wal", lambda path, page_size: damaged_wal.Wal())
    assert complaints(truth, set(), new, salvaged(path, new)) != []


def test_rows_before_the_damage_of_a_wal_come_out(killed: Path, tmp_path: Path, new: Path) -> None:
    path, times = tmp_path / "broken.db", max(8, TIMES // 5)
    whole = as_sqlite_sees(killed, tmp_path / "scratch.db")
    for number in range(times):
        rng = random.Random(f"{SEED}/wal/{number}")
        wal = Path(f"{copy_of(killed, path)}-wal")
        data = bytearray(wal.read_bytes())
        at = rng.randrange(32) if number % 4 == 0 else rng.randrange(len(data))
        if number % 4 == 1:
            data = data[:at]
        else:
            data[at] ^= 1 << rng.randrange(8)
        wal.write_bytes(data)
        truth = as_sqlite_sees(path, tmp_path / "scratch.db")
        report = salvaged(path, new)
        wrong = complaints(truth, set(), new, report)
        # Whole transactions at the end of a WAL may be cut off without a trace. And frames from
        # before the last reset may follow.
        if number % 4 != 1 and report.wal != "torn":
            wrong += complaints(whole, set(), new, report)
        assert wrong == [], f"SESSIONDB_DAMAGE_SEED={SEED}, WAL number {number}, byte {at}"
    print(f"\nsalvage: seed {SEED}, {times} damaged WALs")


def test_a_damaged_wal_header_costs_no_transactions(
    killed: Path, tmp_path: Path, new: Path
) -> None:
    path = copy_of(killed, tmp_path / "broken.db")
    truth = as_sqlite_sees(path, tmp_path / "scratch.db")
    with Path(f"{path}-wal").open("r+b") as wal:
        wal.write(bytes(32))
    assert complaints(truth, set(), new, salvaged(path, new)) == []


def test_the_wal_of_another_database_is_left_out_and_reported(
    sound: Truth, tmp_path: Path, new: Path
) -> None:
    path = copy_of(sound.path, tmp_path / "broken.db")
    other = die_with_wal(tmp_path / "other.db")
    shutil.copy(f"{other}-wal", f"{path}-wal")
    report = salvaged(path, new)
    assert (report.wal, report.complete) == ("foreign", False)
    assert complaints(sound, set(), new, report) == []
    ignored = salvaged(path, new, use_wal=False)
    assert (ignored.wal, ignored.complete) == ("ignored", True)


def test_a_wal_without_a_name_is_known_by_its_first_process_and_session(
    sound: Truth, killed: Path, tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Databases of older releases have no names for their WALs."""
    monkeypatch.setattr(damaged_file, "_continues_another", lambda _: False)
    path = copy_of(sound.path, tmp_path / "broken.db")
    other = die_with_wal(tmp_path / "other.db")
    shutil.copy(f"{other}-wal", f"{path}-wal")
    assert salvaged(path, new).wal == "foreign"
    own = copy_of(killed, tmp_path / "own.db")
    assert salvaged(own, new).wal not in ("foreign", "ignored")


@pytest.mark.parametrize(("at", "count"), [(4, 4), (8, 4), (12, 4), (16, 8), (24, 8)])
def test_whatever_is_damaged_in_a_wals_header_its_transactions_are_read(
    killed: Path, tmp_path: Path, at: int, count: int
) -> None:
    path = copy_of(killed, tmp_path / "broken.db")
    wal = Path(f"{path}-wal")
    whole = read(path)
    content = bytearray(wal.read_bytes())
    content[at : at + count] = bytes(byte ^ 0xFF for byte in content[at : at + count])
    wal.write_bytes(content)
    found = read(path)
    assert (whole.state, found.state) == ("whole", "torn")
    assert (found.pages, found.size, found.loose) == (whole.pages, whole.size, whole.loose)


def read(path: Path) -> damaged_wal.Wal:
    """Read a WAL, and close it again."""
    found = damaged_wal.read_wal(str(path), 4096)
    assert found.fd is not None
    os.close(found.fd)
    return found
