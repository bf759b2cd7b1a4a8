"""Every row on whole pages is salvaged, the others are reported, and the result verifies.

A sound database is broken in one way after another (`support.damage.break_it`, seeded), salvaged,
and compared with what SQLite itself read from it before. SESSIONDB_DAMAGE is how many times,
SESSIONDB_DAMAGE_SEED the seed. A failure names both. A salvage that skips a page in silence, that
drops the WAL, or that does not report what is missing is caught.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from sessiondb.errors import NotASessionDB
from sessiondb.salvage import workspace
from sessiondb.sqlite import file_format
from sessiondb.sqlite.damaged_file import DamagedFile
from sessiondb.sqlite.schema import schema_text
from sessiondb.sqlite.transaction import statements
from tests.support.core import change
from tests.support.damage import (
    SEED,
    TIMES,
    Truth,
    break_it,
    complaints,
    copy_of,
    first_leaf,
    pages_of,
    reported,
    salvaged,
    tables_that_differ,
    zero_pages,
)

pytestmark = pytest.mark.damaged_values


def try_one(truth: Truth, path: Path, new: Path, name: str) -> tuple[str, list[str]]:
    """Break a copy, seeded by this name. Return the damage, and the promises that broke."""
    rng = random.Random(name)
    damage = break_it(copy_of(truth.path, path), rng, truth.count)
    before = path.read_bytes()
    touched = set(damage.pages)
    try:
        report = salvaged(path, new)
    except NotASessionDB as error:
        left = [key for key, pages in truth.pages.items() if not pages & touched]
        return str(damage), [f"refused, though {len(left)} rows are whole: {error}"] if left else []
    wrong = complaints(truth, touched, new, report)
    wrong += [
        f"{one.session_id} was left out: {one.notes}"
        for one in report.damaged_sessions
        if one.outcome == "left out"
    ]
    wrong += ["the damaged file was written"] if path.read_bytes() != before else []
    return str(damage), wrong


def test_rows_on_whole_pages_come_out_and_losses_are_reported(
    sound: Truth, broken: Path, new: Path
) -> None:
    failures, kinds = [], Counter[str]()
    for number in range(TIMES):
        name = f"{SEED}/{number}"
        damage, wrong = try_one(sound, broken, new, name)
        kinds[damage.split(" on ")[0].split(" (")[0].split(" after")[0]] += 1
        if wrong:
            failures.append(f"SESSIONDB_DAMAGE_SEED={SEED}, number {number}, {damage}: {wrong[:3]}")
    print(
        f"\nsalvage: seed {SEED}, {TIMES} damaged files of {sound.count} pages, "
        f"{len(sound.rows)} rows each: {dict(kinds)}"
    )
    assert failures == []


def test_a_sound_database_comes_out_row_for_row(sound: Truth, broken: Path, new: Path) -> None:
    report = salvaged(broken, new)
    assert report.complete
    assert (report.notes, report.lost, report.unreadable, report.damaged_sessions) == (
        [],
        [],
        [],
        [],
    )
    same = [name for name in file_format.TABLES if name != "wal_link"]  # it has a name of its own
    assert tables_that_differ(broken, new, same) == []
    with (
        closing(apsw.Connection(str(broken))) as before,
        closing(apsw.Connection(str(new))) as after,
    ):
        assert after.pragma("integrity_check") == "ok"
        for name in ("page_size", "auto_vacuum", "application_id", "user_version", "journal_mode"):
            assert after.pragma(name) == before.pragma(name), name
    assert new.stat().st_mode & 0o777 == 0o600


def test_every_table_and_column_of_the_schema_is_salvaged() -> None:
    """A table or a column that a later schema adds cannot be forgotten."""
    with closing(apsw.Connection(":memory:")) as db:
        db.execute(schema_text()).fetchall()
        tables = {
            name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        }
        derived = {name for name in tables if name == "search" or name.startswith("search_")}
        assert tables == set(file_format.TABLES) | derived  # an index is built anew
        for table in (
            tables - {"sqlite_sequence", "wal_link"} - derived
        ):  # read, and never copied as rows
            columns = {
                name for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))
            }
            assert statements()[f"salvage.put_{table}"].parameters == columns, table
        numbered = {
            name
            for (name,) in db.execute(
                "SELECT name FROM sqlite_schema WHERE sql LIKE '%AUTOINCREMENT%'"
            )
        }
        assert numbered == set(workspace.NUMBERED)


ONE_BY_ONE = [
    "session",
    "branch",
    "epoch",
    "binding",
    "foreign_id",
    "compaction",
    "turn",
    "inbox",
    "outbox",
    "event",
    "instance",
    "lane",
]


@pytest.mark.parametrize("table", ONE_BY_ONE)
def test_without_one_table_the_others_come_out_and_verify(
    sound: Truth, broken: Path, new: Path, table: str
) -> None:
    lost = pages_of(sound, table)
    zero_pages(broken, *lost)
    report = salvaged(broken, new)
    assert complaints(sound, lost, new, report) == []
    assert not report.complete
    assert any(spot.table == table for spot in report.unreadable)


def test_a_salvage_that_skips_a_page_in_silence_is_caught(
    sound: Truth, broken: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, skipped = DamagedFile._leaves, first_leaf(sound)

    def forgetful(self: DamagedFile, tree: Any) -> Any:
        return (leaf for leaf in read(self, tree) if leaf[0] != skipped)

    monkeypatch.setattr(DamagedFile, "_leaves", forgetful)
    report = salvaged(broken, new)
    assert any(
        f"lies on pages [{skipped}], which are whole" in sentence
        for sentence in complaints(sound, set(), new, report)
    )
    # The salvage itself noticed, from the numbers that are missing.
    assert not report.complete
    assert reported(report)


def test_a_report_without_what_is_missing_is_caught(sound: Truth, broken: Path, new: Path) -> None:
    zero_pages(broken, first_leaf(sound))
    report = salvaged(broken, new)
    assert complaints(sound, {first_leaf(sound)}, new, report) == []
    sessions = report.damaged_sessions[:]
    report.damaged_sessions[:] = [dataclasses.replace(session, missing=()) for session in sessions]
    assert any(
        "nothing says so" in sentence
        for sentence in complaints(sound, {first_leaf(sound)}, new, report)
    )
    [*first, (low, high)] = sessions[0].missing  # one number too few is caught, too
    report.damaged_sessions[:] = [
        dataclasses.replace(
            sessions[0], missing=(*first, *([(low, high - 1)] if high > low else []))
        ),
        *sessions[1:],
    ]
    assert any(
        "nothing says so" in sentence
        for sentence in complaints(sound, {first_leaf(sound)}, new, report)
    )


def test_a_salvage_that_changes_a_text_is_caught(sound: Truth, broken: Path, new: Path) -> None:
    report = salvaged(broken, new)
    change(
        new,
        "UPDATE entry SET payload = replace(payload, 'question', 'answer')"
        " WHERE payload GLOB '*question 3 of 1*'",
    )
    assert any("came out as" in sentence for sentence in complaints(sound, set(), new, report))


def test_each_step_is_named_before_it_begins(broken: Path, new: Path) -> None:
    steps: list[str] = []
    salvaged(broken, new, progress=steps.append)
    assert steps == [
        "reading pages",
        "mending references",
        "checking sessions",
        "settling messages, turns and replies",
        "verifying the new database",
    ]
