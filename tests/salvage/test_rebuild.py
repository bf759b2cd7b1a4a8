"""A damaged session is rebuilt: marks replace lost entries, and paths stay whole."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import anyio
import apsw

import sessiondb
from sessiondb import sync
from tests.support.core import change, user
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
from tests.support.gateway import claimed, complete


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


def test_a_lost_user_message_is_restored_from_the_inbox(tmp_path: Path, new: Path) -> None:
    path = tmp_path / "gateway.db"
    anyio.run(work_on_one_message, path)
    with closing(apsw.Connection(str(path))) as db:
        [(number, entry_id)] = db.execute(
            "SELECT entry_no, entry_id FROM entry WHERE idempotency_key = 'inbox:1'"
        ).fetchall()
    change(path, "DELETE FROM entry WHERE idempotency_key = 'inbox:1'")
    report = salvaged(path, new)
    assert not report.findings
    row = rows_of(new)["entry", number]
    assert row["entry_id"] == entry_id
    assert json.loads(row["payload"])["message"]["content"] == "please do it"
    with closing(apsw.Connection(str(new))) as db:
        assert db.execute(
            "SELECT idempotency_key FROM entry WHERE entry_no = ?", (number,)
        ).fetchall() == [("inbox:1",)]


async def work_on_one_message(path: Path) -> None:
    async with sessiondb.open(path) as db:
        await db.accept("web", "one", "agent:main:web:1", user("please do it"))
        await complete(db, (await claimed(db)).turn_no, "done")


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
