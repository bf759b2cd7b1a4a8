"""Numbers that were assigned are not assigned again, whatever is lost."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import anyio
import apsw
import pytest

import sessiondb
from sessiondb import sync
from sessiondb.gateway import dead_letters
from tests.support.core import change, query, texts, user
from tests.support.damage import (
    Truth,
    pages_of,
    salvaged,
    zero_pages,
)
from tests.support.gateway import claimed, complete, interrupt, say


def test_messages_line_up_behind_what_was_salvaged(sound: Truth, broken: Path, new: Path) -> None:
    """The message, or the turn, that others waited for may be lost."""
    zero_pages(broken, *pages_of(sound, "turn"))
    with closing(apsw.Connection(str(broken))) as db:
        db.execute("UPDATE inbox SET waits = 1 - waits WHERE state = 'queued'").fetchall()
    salvaged(broken, new)
    with sync.open(new) as opened:
        assert opened.write("test", lambda tx: tx.run("inbox.line_up_all")) == 0
        assert "queue" not in {finding.check for finding in opened.verify().findings}


def test_assigned_numbers_are_not_assigned_again(sound: Truth, broken: Path, new: Path) -> None:
    zero_pages(broken, *pages_of(sound, "inbox") | pages_of(sound, "sqlite_sequence"))
    with closing(apsw.Connection(str(sound.path))) as db:
        [(last,)] = db.execute(
            "SELECT max(CAST(substr(idempotency_key, 7) AS INTEGER)) FROM entry"
            " WHERE idempotency_key GLOB 'inbox:*'"
        )
    salvaged(broken, new)
    with sync.open(new) as db:
        taken = db.accept("agent:main:more:0", user("later"), channel="web", event_id="later")
    assert taken.inbox_no > last  # a number of before would find the entry that has its key


@pytest.mark.parametrize(
    ("session_id", "kept"), [("x" * 255, True), ("x" * 256, False), ("", False), ("own", True)]
)
def test_a_lost_session_has_the_id_of_its_header_if_that_can_be_one(
    tmp_path: Path, new: Path, session_id: str, kept: bool
) -> None:
    path = tmp_path / "gateway.db"
    with sync.open(path) as db:
        for name in ("one", "two"):
            db.create_session(name).append(user(f"in {name}"))
    [number] = query(path, "SELECT session_no FROM session WHERE session_id = 'one'")
    change(
        path,
        f"DELETE FROM session WHERE session_no = {number}",
        f"UPDATE entry SET payload = json_set(payload, '$.id', '{session_id}') "
        f"WHERE entry_no = {number << 32}",
    )
    report = salvaged(path, new)
    wanted = session_id if kept else f"salvaged-{number}"
    assert query(new, "SELECT session_id FROM session ORDER BY 1") == sorted([wanted, "two"])
    assert any(f"It is created again as {wanted} for its entries" in one for one in report.lost)
    assert not report.findings
    with sync.open(new) as db:
        assert texts(db.session_by_id(wanted).context()) == ["in one"]


def test_what_nothing_is_left_of_is_dropped_and_reported(tmp_path: Path, new: Path) -> None:
    """Of a session without its row and its entries, no row that refers to it can stay."""
    path = tmp_path / "gateway.db"
    with sync.open(path) as db:
        for name in ("gone", "there"):
            session = db.session(f"agent:main:web:{name}")
            first = session.append(user("a " * 300))
            session.append(user("b"))
            with session.compact(keep_recent_tokens=1) as job:
                job.commit("so far")
            session.branch(first.entry_id)
            session.append(user("another way"))
            with session.compact(trigger="manual", keep_recent_tokens=0) as job:
                db.fail_compaction(job.id, "too late")
        [number] = query(
            path, "SELECT session_no FROM binding WHERE session_key = 'agent:main:web:gone'"
        )
    change(
        path,
        f"DELETE FROM session WHERE session_no = {number}",
        f"DELETE FROM entry WHERE entry_no >> 32 = {number}",
    )
    tables = ("binding", "branch", "epoch", "compaction")
    mine = {
        table: query(path, f"SELECT count(*) FROM {table} WHERE session_no = {number}")[0]
        for table in tables
    }
    assert min(mine.values()) > 0
    report = salvaged(path, new)
    assert not report.findings
    left_out = {table.table: table.left_out for table in report.tables}
    for table in tables:
        assert query(new, f"SELECT count(*) FROM {table} WHERE session_no = {number}") == [0]
        assert left_out[table] > 0, table
    assert any("key agent:main:web:gone was bound to session" in one for one in report.lost)
    with sync.open(new) as db:
        assert texts(db.session("agent:main:web:there").context())[-1] == "another way"


def test_a_lost_lane_is_made_again_with_a_word_about_its_settings(
    tmp_path: Path, new: Path
) -> None:
    path = tmp_path / "gateway.db"
    with sync.open(path) as db:
        for lane in ("nightly", "weekly"):
            db.set_lane(lane, concurrency=3, priority=5)
            db.accept(
                f"agent:main:web:{lane}", user("work"), channel="web", event_id=lane, lane=lane
            )
    change(path, "DELETE FROM lane WHERE lane = 'nightly'")
    report = salvaged(path, new)
    [told] = [one for one in report.lost if "lane" in one]
    assert told.startswith("the settings of lane 'nightly' are lost. It runs one turn at a time")
    lanes = "SELECT lane, concurrency FROM lane WHERE lane IN ('nightly', 'weekly') ORDER BY 1"
    assert query(new, lanes) == [("nightly", 1), ("weekly", 3)]
    [table] = [table for table in report.tables if table.table == "lane"]
    assert table.created == 1


def test_a_message_that_has_ended_is_not_begun_again(tmp_path: Path, new: Path) -> None:
    """One that was refused has no entry, as one that waits. Only open ones can wait again."""
    path = tmp_path / "gateway.db"
    anyio.run(leave_messages, path)
    change(path, "UPDATE inbox SET attempts = 0 WHERE event_id = 'odd'")
    states = "SELECT event_id, state FROM inbox ORDER BY inbox_no"
    before = dict(query(path, states))
    assert before == {
        "refused": "dead",
        "answered": "done",
        "odd": "interrupted",
        "cut": "interrupted",
        "waiting": "queued",
    }
    report = salvaged(path, new)
    assert dict(query(new, states)) == {**before, "odd": "queued"}
    assert not report.findings


@pytest.mark.parametrize("wrong", [1 << 62, 100, "other"])
def test_a_message_goes_back_to_the_session_of_its_turn(
    tmp_path: Path, new: Path, wrong: int | str
) -> None:
    """In another session it would be answered again, and without its context."""
    path = tmp_path / "gateway.db"
    anyio.run(leave_messages, path)
    rows = "SELECT event_id, session_no, state, turn_no, entry_no FROM inbox ORDER BY inbox_no"
    begun = [row for row in query(path, rows) if row[3] is not None]
    turns = query(path, "SELECT * FROM turn ORDER BY turn_no")
    assert len({row[1] for row in begun}) == len(begun) == len(turns) == 3
    [other] = query(path, "SELECT session_no FROM inbox WHERE event_id = 'waiting'")
    number = other if wrong == "other" else wrong
    change(path, f"UPDATE inbox SET session_no = {number} WHERE turn_no IS NOT NULL")
    report = salvaged(path, new)
    assert [row for row in query(new, rows) if row[3] is not None] == begun
    assert query(new, "SELECT * FROM turn ORDER BY turn_no") == turns
    assert not report.findings
    told = [one for one in report.lost if f"named session number {number}. It is in" in one]
    assert len(told) == len(begun)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE inbox SET session_no = 1 << 62, turn_no = NULL WHERE event_id = 'answered'",
        (
            "UPDATE turn SET session_no = i.session_no FROM inbox AS i "
            "WHERE i.event_id = 'waiting' AND turn.state = 'completed'"
        ),
        (
            "UPDATE turn SET inbox_no = i.inbox_no FROM inbox AS i "
            "WHERE i.event_id = 'waiting' AND turn.state = 'completed'"
        ),
    ],
)
def test_a_turn_forgets_a_message_of_another_session(
    tmp_path: Path, new: Path, statement: str
) -> None:
    path = tmp_path / "gateway.db"
    anyio.run(leave_messages, path)
    turns = "SELECT turn_no, state, inbox_no FROM turn ORDER BY turn_no"
    states = "SELECT event_id, state FROM inbox ORDER BY inbox_no"
    before, states_before = query(path, turns), query(path, states)
    change(path, statement)
    report = salvaged(path, new)
    assert query(new, turns) == [
        (turn_no, state, 0 if state == "completed" else inbox_no)
        for turn_no, state, inbox_no in before
    ]
    assert query(new, states) == states_before
    assert not report.findings
    assert any("Its own message is not known any more" in one for one in report.lost)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE wal_link SET current = 'x'",
        "UPDATE wal_link SET previous = char(27)",
        "UPDATE wal_link SET link_no = 2",
        "DELETE FROM wal_link",
    ],
)
def test_a_new_database_has_a_name_that_owes_nothing_to_the_damaged_one(
    broken: Path, new: Path, statement: str
) -> None:
    names = "SELECT previous, current FROM wal_link"
    [old] = query(broken, names)
    change(broken, statement)
    report = salvaged(broken, new)
    [named] = query(new, names)
    assert named[1] not in old
    assert named[0] != old[1]
    assert not report.findings


async def leave_messages(path: Path) -> None:
    async with sessiondb.open(path) as db:
        await say(db, "refused", "agent:main:web:1")
        [number] = query(path, "SELECT session_no FROM session")
        assert await db.write("refuse", lambda tx: dead_letters.refuse(tx, 1, number, "no use"))
        for name in ("answered", "odd", "cut"):
            await say(db, name, f"agent:main:web:{name}")
            turn = await claimed(db)
            if name == "answered":
                await complete(db, turn.turn_no, "done")
            else:
                await interrupt(db, turn.turn_no)
        await say(db, "waiting", "agent:main:web:1")
