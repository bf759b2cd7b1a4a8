"""A session is whole, or rebuilt and reported entry for entry, or left out and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiondb import sync
from sessiondb.salvage import judge
from sessiondb.salvage.report import NO_HEADER_KNOWN, SalvageReport, SessionReport
from tests.support.core import change, query, texts, user
from tests.support.damage import salvaged

pytestmark = pytest.mark.damaged_values


def damaged(report: SalvageReport, session_id: str) -> SessionReport:
    [found] = [one for one in report.damaged_sessions if one.session_id == session_id]
    return found


def number_of(path: Path, session_id: str) -> int:
    [number] = query(path, "SELECT session_no FROM session WHERE session_id = ?", session_id)
    return int(number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a database of two sessions with ten entries each, and a fork of each."""
    path = tmp_path / "gateway.db"
    with sync.open(path) as db:
        for name in ("one", "two"):
            session = db.create_session(name)
            for number in range(10):
                session.append(user(f"{name} {number}"))
            fork = session.fork(session_id=f"fork-of-{name}")
            fork.append(user("in the fork"))
            fork.append(user("and on"))
    return path


def test_what_is_missing_is_counted_entry_by_entry(path: Path, new: Path) -> None:
    """A lost row and a damaged text are both missing. The header counts as an entry."""
    one = number_of(path, "one") << 32
    change(
        path,
        f"DELETE FROM entry WHERE entry_no IN ({one + 3}, {one + 4}, {one + 8})",
        f"UPDATE entry SET payload = 'torn' WHERE entry_no IN ({one + 5}, {one + 10})",
    )
    report = salvaged(path, new)
    found = damaged(report, "one")
    assert (found.expected, found.found, found.outcome) == (11, 6, "rebuilt")
    assert found.missing == ((3, 5), (8, 8), (10, 10))
    assert not report.findings
    [entries] = [table for table in report.tables if table.table == "entry"]
    assert (entries.expected, report.entries) == (11 + 11 + 3 + 3, 6 + 11 + 3 + 3)
    with sync.open(new) as db:
        assert texts(db.session_by_id("one").context()) == [
            f"one {number}" for number in (0, 1, 5, 6, 8)
        ]
        assert texts(db.session_by_id("fork-of-one").context())[-2:] == ["in the fork", "and on"]


def test_a_header_whose_text_is_damaged_is_missing(path: Path, new: Path) -> None:
    one = number_of(path, "one") << 32
    change(path, f"UPDATE entry SET payload = 'torn' WHERE entry_no = {one}")
    found = damaged(salvaged(path, new), "one")
    assert (found.missing, found.expected, found.found) == (((0, 0),), 11, 10)


def test_a_damaged_fork_still_continues_its_parent(path: Path, new: Path) -> None:
    fork = number_of(path, "fork-of-two") << 32
    change(path, f"UPDATE entry SET payload = 'torn' WHERE entry_no = {fork + 1}")
    report = salvaged(path, new)
    assert damaged(report, "fork-of-two").missing == ((1, 1),)
    with sync.open(new) as db:
        context = db.session_by_id("fork-of-two").context()
    assert texts(context) == [*(f"two {number}" for number in range(10)), "and on"]
    assert query(new, "SELECT forked_from_no FROM session WHERE session_id = 'fork-of-two'") == [
        number_of(new, "two")
    ]


def test_a_fork_whose_parent_is_lost_is_a_session_of_its_own(path: Path, new: Path) -> None:
    two = number_of(path, "two")
    change(
        path,
        f"DELETE FROM session WHERE session_no = {two}",
        f"DELETE FROM entry WHERE entry_no >> 32 = {two}",
        f"DELETE FROM branch WHERE session_no = {two}",
        f"DELETE FROM epoch WHERE session_no = {two}",
    )
    report = salvaged(path, new)
    told = "session {}: the session that it was forked from is lost"
    assert told.format("fork-of-two") in report.lost
    assert told.format("fork-of-one") not in report.lost
    assert not report.findings
    with sync.open(new) as db:
        assert texts(db.session_by_id("fork-of-two").context()) == ["in the fork", "and on"]
        assert len(texts(db.session_by_id("fork-of-one").context())) == 12
        assert not [info for info in db.sessions() if info.session_id == "two"]


def test_a_session_that_cannot_be_rebuilt_is_left_out_and_its_row_stays(
    path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No damage is known that leads here, so the verdict is put in its place."""
    names = ("one", "fork-of-two")
    unsound = {number_of(path, name) for name in names}
    # A session whose row is lost, too, is known to be a fork by its branch only.
    change(path, "DELETE FROM session WHERE session_id = 'fork-of-two'")
    errors = judge._errors
    monkeypatch.setattr(
        judge,
        "_errors",
        lambda work, number: ["x: wrong"] if number in unsound else errors(work, number),
    )
    report = salvaged(path, new)
    for name in names:
        found = damaged(report, name)
        assert (found.outcome, "x: wrong" in found.notes) == ("left out", True)
    assert {one.session_no for one in report.damaged_sessions} >= unsound
    assert not report.findings
    with sync.open(new) as db:
        for name in names:
            session = db.session_by_id(name)
            assert texts(session.context()) == []
            session.append(user("anew"))
            assert texts(session.context()) == ["anew"]
        assert len(texts(db.session_by_id("two").context())) == 10
        assert db.verify().ok


@pytest.mark.parametrize(("lost", "is_said"), [(1, True), (2, False)])
def test_only_a_lost_beginning_may_have_been_a_header(
    tmp_path: Path, new: Path, lost: int, is_said: bool
) -> None:
    """A file may be imported without a header. Nothing in the rows tells, once it is gone."""
    path, file = tmp_path / "gateway.db", tmp_path / "file.jsonl"
    lines = [
        {
            "type": "message",
            "id": f"m{number}",
            "parentId": f"m{number - 1}" if number else None,
            "message": user(f"{number}"),
        }
        for number in range(5)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with sync.open(path) as db:
        [receipt] = db.import_path(file).files
    number = number_of(path, receipt.session_id or "") << 32
    change(path, f"DELETE FROM entry WHERE entry_no = {number + lost}")
    change(path, "DELETE FROM import_file")
    found = damaged(salvaged(path, new), receipt.session_id or "")
    assert found.missing == ((lost, lost),)
    assert (NO_HEADER_KNOWN in found.notes) is is_said


@pytest.mark.parametrize(
    ("ranges", "numbers", "joined"),
    [
        ([], [], []),
        ([], [3, 1], [(1, 1), (3, 3)]),
        ([(1, 2), (6, 7)], [3, 9], [(1, 3), (6, 7), (9, 9)]),
        ([(1, 9)], [4], [(1, 9)]),
        ([(5, 6)], [4, 7], [(4, 7)]),
    ],
)
def test_ranges_are_joined_where_they_touch(
    ranges: list[tuple[int, int]], numbers: list[int], joined: list[tuple[int, int]]
) -> None:
    assert judge._with(ranges, numbers) == joined
