"""Rows come out as they are. What cannot be put is reported, and what indexes know is used."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

from sessiondb import sync
from sessiondb.salvage import intake
from sessiondb.salvage.workspace import NUMBERED
from tests.support.core import change, query, user
from tests.support.damage import (
    Truth,
    is_mark,
    pages_of,
    rows_of,
    salvaged,
    zero_pages,
)

pytestmark = pytest.mark.damaged_values


def test_the_last_numbers_that_were_assigned_stay_assigned(broken: Path, new: Path) -> None:
    """The rows that had them may have been pruned: only their table of numbers knows."""
    change(broken, "UPDATE sqlite_sequence SET seq = seq + 1000 * rowid")
    numbers = "SELECT name, seq FROM sqlite_sequence"
    before = dict(query(broken, numbers))
    assert set(NUMBERED) <= set(before)
    salvaged(broken, new)
    after = dict(query(new, numbers))
    assert {name: after[name] for name in NUMBERED} == {name: before[name] for name in NUMBERED}


def test_a_row_that_cannot_be_one_is_left_out_and_named(broken: Path, new: Path) -> None:
    change(
        broken,
        f"UPDATE event SET event_no = {-(1 << 62) - 1} WHERE event_no = 1",
        f"UPDATE event SET event_no = {1 << 62} WHERE event_no = 2",
        "UPDATE turn SET state = 'asleep' WHERE turn_no IN (1, 2)",
    )
    report = salvaged(broken, new)
    left_out = {table.table: table.left_out for table in report.tables if table.left_out}
    assert (left_out["event"], left_out["turn"]) == (2, 2)
    assert sum("its number was never assigned" in sentence for sentence in report.lost) == 2
    for number in (1, 2):
        assert any(
            sentence.startswith("a row of turn (") and f"{number}" in sentence
            for sentence in report.lost
        ), report.lost
    assert not report.complete
    assert not report.findings
    assert query(new, "SELECT count(*) FROM event WHERE event_no IN (1, 2)") == [0]


def test_a_lost_session_keeps_the_id_that_its_index_has(
    sound: Truth, broken: Path, new: Path
) -> None:
    zero_pages(broken, *pages_of(sound, "session"))
    report = salvaged(broken, new)
    ids = "SELECT session_no, session_id FROM session"
    before, after = dict(query(sound.path, ids)), dict(query(new, ids))
    assert {number: after.get(number) for number in before} == before
    assert not report.findings


def test_the_readable_part_of_a_lost_text_is_in_its_mark(
    sound: Truth, broken: Path, new: Path
) -> None:
    """A text on a chain of pages, of which the last is lost."""
    numbers = [
        number
        for (table, number), row in sound.rows.items()
        if table == "entry" and row["payload"].count("long ") == 2_000
    ]
    assert len(numbers) >= 2
    chain = "SELECT max(pageno) FROM dbstat WHERE name = 'entry' AND pagetype = 'overflow'"
    with closing(apsw.Connection(str(sound.path))) as db:
        last = {
            number: db.execute(
                f"{chain} AND pageno IN ({', '.join(map(str, sound.pages['entry', number]))})"
            ).fetchall()[0][0]
            for number in numbers
        }
    zero_pages(broken, *last.values())
    report = salvaged(broken, new)
    assert not report.findings
    rows = rows_of(new)
    for number in numbers:
        assert is_mark(rows["entry", number])
        data = json.loads(rows["entry", number]["payload"])["data"]
        assert data["text"].startswith('{"type":"message"'), data
        assert "long long" in data["text"]


def broken_entry(key: int, payload: Any) -> SimpleNamespace:
    return SimpleNamespace(key=key, reason="torn", values={"entry_id": "e", "payload": payload})


@pytest.mark.parametrize("payload", ["x" * 100, b"x" * 100])
def test_the_parts_that_are_kept_for_marks_are_bounded(
    monkeypatch: pytest.MonkeyPatch, payload: str | bytes
) -> None:
    """Each costs its text and 64 characters more, so many empty ones are bounded, too."""
    work: Any = SimpleNamespace(fragment_chars=0, fragments={})
    monkeypatch.setattr(intake, "FRAGMENTS_CHARS", 164 + 100)
    for key in range(3):
        intake._keep_fragment(work, broken_entry(key, payload))
    assert work.fragments == {
        key: {"reason": "torn", "id": "e", "text": "x" * 100} for key in range(2)
    }
    work.fragments.clear()
    intake._keep_fragment(work, broken_entry(7, None))
    assert work.fragments == {}, "nothing more fits"


def test_an_index_of_entries_that_are_there_says_nothing_new(broken: Path, new: Path) -> None:
    with sync.open(broken) as db:
        db.session("agent:main:more:0").append(user("the last"))
    report = salvaged(broken, new)
    assert report.complete, report
