"""A damaged session is rebuilt: marks replace lost entries, and paths stay whole."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

import sessiondb
from sessiondb import sync
from sessiondb.salvage import workspace
from tests.support.core import change, query, texts, user
from tests.support.damage import (
    Truth,
    complaints,
    is_mark,
    page_of,
    pages_of,
    put_page,
    reported,
    rows_of,
    salvaged,
    zero_pages,
)
from tests.support.gateway import claimed, complete, interrupt, say


def test_a_mark_replaces_a_lost_entry_and_keeps_the_path_whole(broken: Path, new: Path) -> None:
    with sync.open(broken) as db:
        session = db.create_session("cut")
        receipts = [session.append(user(f"message {number} " * 60)) for number in range(30)]
    truth = Truth.of(broken)
    lost_pages = truth.pages["entry", receipts[14].entry_no]
    zero_pages(broken, *lost_pages)
    report = salvaged(broken, new)
    assert complaints(truth, set(lost_pages), new, report) == []
    [damage] = [one for one in report.damaged_sessions if one.session_id == "cut"]
    lost = [seq for low, high in damage.missing for seq in range(low, high + 1)]
    assert receipts[14].seq in lost
    with sync.open(new) as db:
        session = db.session_by_id("cut")
        entries = {entry.seq: entry for entry in session.entries()}
        assert [entry.position for entry in entries.values()] == list(range(1, 31))
        for seq, entry in entries.items():
            assert (entry.type == "custom" and is_mark({"payload": entry.payload})) == (seq in lost)
        # The id that the next entry calls its parent by.
        assert entries[lost[-1]].entry_id == receipts[lost[-1] - 1].entry_id
        context = session.context()
        assert len(context.messages) == 30 - len(lost)
        assert session.append(user("and on")).seq == 31


@pytest.mark.parametrize("state", ["done", "interrupted"])
def test_a_message_whose_entry_is_lost_has_no_text(tmp_path: Path, new: Path, state: str) -> None:
    """A mark takes the place of its entry. If it was open, a person decides about it."""
    path = tmp_path / "gateway.db"
    anyio.run(work_on_messages, path, state)
    [number] = query(path, "SELECT entry_no FROM inbox WHERE event_id = 'one'")
    change(path, "DELETE FROM entry WHERE idempotency_key = 'inbox:1'")
    report = salvaged(path, new)
    assert not report.findings
    assert is_mark(rows_of(new)["entry", number])
    found = query(new, "SELECT event_id, state, entry_no IS NULL, payload FROM inbox")
    ended = "done" if state == "done" else "dead"
    assert found == [("one", ended, 1, ""), ("another", state, 0, None)]
    with sync.open(new) as db:
        assert [letter.payload for letter in db.dead_letters()] == [""] * (ended == "dead")


async def work_on_messages(path: Path, state: str) -> None:
    async with sessiondb.open(path) as db:
        for number, event_id in enumerate(("one", "another")):
            await say(db, event_id, f"agent:main:web:{number}")
            turn = await claimed(db)
            if state == "done":
                await complete(db, turn.turn_no, "done")
            else:
                await interrupt(db, turn.turn_no)


def test_a_message_that_has_both_keeps_the_text_of_its_own_entry(tmp_path: Path, new: Path) -> None:
    """As in a file of an older schema. If the entry is another message's, it keeps its own text."""
    path = tmp_path / "gateway.db"
    anyio.run(work_on_messages, path, "interrupted")
    change(path, 'UPDATE inbox SET payload = \'{"role": "user", "content": "own"}\'')
    change(path, "UPDATE entry SET idempotency_key = 'other' WHERE idempotency_key = 'inbox:2'")
    report = salvaged(path, new)
    assert not report.findings
    found = query(new, "SELECT event_id, state, entry_no IS NULL, payload FROM inbox")
    own = '{"role": "user", "content": "own"}'
    assert found == [("one", "interrupted", 0, None), ("another", "queued", 1, own)]


def test_the_lost_header_of_an_import_is_reported(sound: Truth, broken: Path, new: Path) -> None:
    change(broken, "DELETE FROM entry WHERE entry_id = 'imported'")
    [number] = [
        key
        for (table, key), row in sound.rows.items()
        if table == "entry" and row["entry_id"] == "imported"
    ]
    for page in pages_of(sound, "entry_by_id"):  # the index as it was: it still knows of the header
        put_page(broken, page, bytes(page_of(sound.path, page)))
    report = salvaged(broken, new)
    assert number in reported(report)


def test_an_undone_compaction_stays_undone_and_the_one_before_stays_in_force(
    tmp_path: Path, new: Path
) -> None:
    path = tmp_path / "gateway.db"
    with sync.open(path) as db:
        session = db.create_session("undone")
        for round_no in range(2):
            for number in range(4):
                session.append(user(f"{round_no} {number} " * 50))
            with session.compact(keep_recent_tokens=1) as job:
                assert job.commit(f"summary {round_no}").outcome == "committed"
        session.append(user("seen"))
        session.undo_compaction()
        lost = session.append(user("lost"))
        session.append(user("last"))
        before = texts(session.context())
    change(path, f"DELETE FROM entry WHERE entry_no = {lost.entry_no}")
    report = salvaged(path, new)
    assert [one.missing for one in report.damaged_sessions] == [((lost.seq, lost.seq),)]
    assert not report.findings
    with sync.open(new) as db:
        after = texts(db.session_by_id("undone").context())
    assert "<summary 0>" in before
    assert after == [text for text in before if text != "lost"]
    reasons = "SELECT reason FROM epoch JOIN session USING (session_no) ORDER BY epoch.epoch"
    assert query(new, reasons) == ["start", "compaction", "compaction", "undo"]


def test_a_mark_never_takes_the_id_of_an_entry_that_is_there(tmp_path: Path, new: Path) -> None:
    """The text of a lost entry's child is damaged, too: it names another entry."""
    path = tmp_path / "gateway.db"
    with sync.open(path) as db:
        session = db.create_session("one")
        entries = [session.append(user(f"{number}")) for number in range(5)]
    change(
        path,
        f"DELETE FROM entry WHERE entry_no = {entries[2].entry_no}",
        f"UPDATE entry SET payload = replace(payload, '{entries[2].entry_id}', "
        f"'{entries[0].entry_id}') WHERE entry_no = {entries[3].entry_no}",
    )
    report = salvaged(path, new)
    assert not report.findings
    ids = query(new, "SELECT entry_id FROM entry ORDER BY entry_no")
    assert len(set(ids)) == len(ids)
    assert ids[1] == entries[0].entry_id
    with sync.open(new) as db:
        assert texts(db.session_by_id("one").context()) == ["0", "3", "4"]


def test_only_a_gap_that_the_file_had_no_room_for_ends_a_session(
    tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long sessions have large numbers: only how many are missing in a row counts."""
    path = tmp_path / "gateway.db"
    with sync.open(path) as db:
        session = db.create_session("one")
        for number in range(60):
            session.append(user(f"{number}"))
        number = session.ref.session_no << 32
    room = path.stat().st_size // 64
    monkeypatch.setattr(workspace, "GAP_FLOOR", 10 - room)
    change(
        path,
        f"DELETE FROM entry WHERE entry_no = {number + 20}",
        f"DELETE FROM entry WHERE entry_no BETWEEN {number + 40} AND {number + 49}",
    )
    report = salvaged(path, new)
    [damage] = report.damaged_sessions
    assert damage.missing == ((20, 20), (40, 49))
    with sync.open(new) as db:
        assert texts(db.session_by_id("one").context())[-1] == "59"
    change(path, f"DELETE FROM entry WHERE entry_no = {number + 50}")
    [damage] = salvaged(path, new).damaged_sessions
    assert any("was left out" in note for note in damage.notes)
    with sync.open(new) as db:
        assert texts(db.session_by_id("one").context())[-1] == "38"
