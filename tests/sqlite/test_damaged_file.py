"""The reader of damaged files: lost schemas, pages of other trees, and claims that are not true."""

from __future__ import annotations

import json
import struct
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

from sessiondb import sync
from sessiondb.errors import NewerSchema, NotASessionDB
from sessiondb.sqlite import damaged_file
from sessiondb.sqlite.damaged_cells import Cells
from sessiondb.sqlite.damaged_pages import Pages
from sessiondb.sqlite.file_format import BadCell
from sessiondb.sqlite.schema import migrations
from tests.support.damage import (
    TIMES,
    Truth,
    complaints,
    copy_of,
    first_leaf,
    limited,
    page_of,
    pages_of,
    put_page,
    salvaged,
    tables_that_differ,
    zero_pages,
)


def test_without_its_first_page_everything_comes_out(sound: Truth, broken: Path, new: Path) -> None:
    zero_pages(broken, 1)
    report = salvaged(broken, new)
    assert complaints(sound, {1}, new, report) == []
    assert report.entries == sum(table == "entry" for table, _ in sound.rows)
    assert (report.damaged_sessions, report.unreadable) == ([], [])


def test_without_schema_and_map_rows_are_known_by_shape(
    sound: Truth, broken: Path, new: Path
) -> None:
    lost = {1, 2, *pages_of(sound, "sqlite_schema")}
    zero_pages(broken, *lost)
    report = salvaged(broken, new)
    assert complaints(sound, lost, new, report) == []
    tables = ("session", "binding", "branch", "epoch", "compaction", "lane", "instance")
    assert tables_that_differ(sound.path, new, tables) == []


@pytest.mark.parametrize(
    ("rows", "are_lanes"),
    [
        ([["cron", 1, 10, 0], ["main", 4, 0, 1]], True),
        ([["main", 15, 48]], False),  # a message that is queued, of session 15
        ([["main", 4, 0, 1], ["cron", 2, 10]], False),
        ([["web:1", 0, 0, 1]], False),  # the first reply that is pending
        ([["web:1", 1, 0, 17]], False),  # one that waits for another
        ([["web:1", 1, 0, 2], ["web:1", 1, 0, 3]], False),
    ],
)
def test_rows_of_an_index_are_not_taken_for_lanes(rows: list[list[Any]], are_lanes: bool) -> None:
    """A lane with a session's number for its places would run that many turns at once."""
    assert damaged_file._are_lanes(rows) is are_lanes


def test_a_schema_page_that_leads_into_a_tree_takes_no_rows(
    sound: Truth, broken: Path, new: Path
) -> None:
    with closing(apsw.Connection(str(sound.path))) as db:
        [(inner,)] = db.execute(
            "SELECT pageno FROM dbstat WHERE name = 'entry' AND pagetype = 'internal'"
        )
        leaves = db.execute(
            "SELECT pageno FROM dbstat WHERE name = 'sqlite_schema' AND pagetype = 'leaf'"
        ).fetchall()
    # The outer ones and one between. A long run takes all.
    chosen = leaves if TIMES > 100 else {leaves[0], leaves[len(leaves) // 2], leaves[-1]}
    for (leaf,) in chosen:
        put_page(copy_of(sound.path, broken), leaf, page_of(sound.path, inner))
        assert complaints(sound, {leaf}, new, salvaged(broken, new)) == []


def varint(value: int) -> bytes:
    """Write a number as SQLite does, up to 2^56."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def test_a_row_that_claims_two_gigabytes_takes_no_memory(
    sound: Truth, broken: Path, new: Path
) -> None:
    number = first_leaf(sound)
    page = page_of(broken, number)
    [at] = struct.unpack(">H", page[8:10])
    claim = (
        varint(2_000_000_000) + varint(1 << 32 | 3) + bytes([4]) + varint(2 * (1_999_999_000) + 13)
    )
    page[at : at + len(claim)] = claim
    put_page(broken, number, bytes(page))
    report = limited(broken, new)
    assert report["entries"] > 0
    assert any(spot["page"] == number for spot in report["unreadable"])


@pytest.mark.parametrize(
    "table", ["entry", "event", "outbox", "turn", "branch", "epoch", "binding"]
)
def test_a_page_that_counts_too_few_rows_is_reported(
    sound: Truth, broken: Path, new: Path, table: str
) -> None:
    number = first_leaf(sound, table)
    page = page_of(broken, number)
    [count] = struct.unpack(">H", page[3:5])
    page[3:5] = struct.pack(">H", count - 1)
    put_page(broken, number, bytes(page))
    report = salvaged(broken, new)
    assert complaints(sound, {number}, new, report) == []
    assert [spot.page for spot in report.unreadable] == [number]
    assert not report.complete


def test_a_chain_of_pages_that_loops_ends(sound: Truth, broken: Path, new: Path) -> None:
    chain = max((pages for (table, _), pages in sound.pages.items() if table == "entry"), key=len)
    touched = set()
    for number in chain:
        page = page_of(broken, number)
        if page[0] != 13:
            page[:4] = struct.pack(">I", number)
            put_page(broken, number, bytes(page))
            touched.add(number)
    report = salvaged(broken, new)
    assert touched
    assert complaints(sound, touched, new, report) == []
    assert any("chain of pages" in spot.what for spot in report.unreadable)


def test_a_file_of_an_older_schema_gets_the_present_one(tmp_path: Path, new: Path) -> None:
    path = tmp_path / "older.db"
    [script] = [text for number, text in migrations() if number == 1]
    texts = [
        '{"type":"session","version":3,"id":"old"}',
        '{"type":"message","id":"a","parentId":null,"message":{"role":"user"}}',
    ]
    with closing(apsw.Connection(str(path))) as db:
        db.execute(script).fetchall()
        columns = "session_no, session_id, origin, version, created_at_ms, updated_at_ms, entries"
        db.execute(
            f"INSERT INTO session ({columns}) VALUES (1, 'old', 'native', 3, 0, 0, 1)"
        ).fetchall()
        db.execute(
            "INSERT INTO epoch (session_no, epoch, reason, opened_at_ms) VALUES (1, 0, 'start', 0)"
        ).fetchall()
        for number, text in enumerate(texts):
            fields = json.loads(text)
            columns = "entry_no, type, entry_id, payload, position, projection, appended_at_ms"
            values = (1 << 32 | number, fields["type"], fields["id"], text)
            db.execute(
                f"INSERT INTO entry ({columns}) VALUES (?, ?, ?, ?, 0, 0, 0)", values
            ).fetchall()
    report = salvaged(path, new)
    assert (report.findings, report.notes, report.missing_entries) == ([], [], 0)
    with sync.open(new) as db:
        assert [entry.entry_id for entry in db.session_by_id("old").entries()] == ["a"]


def test_newer_and_foreign_databases_are_not_damage(
    broken: Path, new: Path, tmp_path: Path
) -> None:
    with closing(apsw.Connection(str(broken))) as db:
        db.execute("PRAGMA user_version = 99").fetchall()
    with pytest.raises(NewerSchema, match="Upgrade sessiondb"):
        salvaged(broken, new)
    foreign = tmp_path / "foreign.db"
    with closing(apsw.Connection(str(foreign))) as db:
        db.execute("CREATE TABLE customer (name); INSERT INTO customer VALUES ('x')").fetchall()
    with pytest.raises(NotASessionDB, match="another program, with the tables customer"):
        salvaged(foreign, new)
    assert not new.exists()


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        ({}, True),
        ({"kind": "index"}, True),
        ({"sql": None}, True),
        ({"kind": "view"}, False),
        ({"kind": 7}, False),
        ({"name": None}, False),
        ({"name": b"entry"}, False),
        ({"owner": None}, False),
        ({"root": "5"}, False),
        ({"root": None}, False),
        ({"root": 1}, False),
        ({"root": 11}, False),
        ({"sql": b"CREATE"}, False),
        ({"sql": 5}, False),
    ],
)
def test_a_row_of_the_schema_is_taken_if_it_is_one(change: dict[str, Any], is_taken: bool) -> None:
    row = {"kind": "table", "name": "entry", "owner": "entry", "root": 5, "sql": "CREATE"}
    reader: Any = SimpleNamespace(_pages=SimpleNamespace(in_range=lambda number: 1 < number <= 10))
    roots = {"session": 3}
    damaged_file.DamagedFile._add_root(reader, roots, list((row | change).values()))
    assert roots == {"session": 3, **({"entry": 5} if is_taken else {})}
    for cell in (BadCell("torn"), ["table", "entry", "entry", 5]):
        taken = dict(roots)
        damaged_file.DamagedFile._add_root(reader, taken, cell)
        assert taken == roots


@pytest.mark.parametrize(
    ("pointers", "root"),
    [
        ({3: (1, 0)}, 3),
        ({3: (5, 7), 7: (5, 8), 8: (1, 0)}, 8),
        ({3: (5, 1)}, 1),  # the schema's, whose root no map names
        ({3: (5, 7), 7: (5, 1)}, 1),
        ({3: (5, 7)}, None),  # the map ends
        ({3: (5, 7), 7: (2, 0)}, None),  # a free page
        ({3: (4, 1)}, None),  # in a chain
        ({3: (5, 99)}, None),  # the number of no page
        ({3: (5, 7), 7: (5, 3)}, None),  # in a circle
        ({}, None),
    ],
)
def test_the_map_leads_from_a_page_to_the_root_of_its_tree(
    pointers: dict[int, tuple[int, int]], root: int | None
) -> None:
    pages: Any = SimpleNamespace(pointer=pointers.get, in_range=lambda number: 1 < number <= 10)
    assert Pages.root_of(pages, 3) == root


@pytest.mark.parametrize(
    ("low", "high", "keys"),
    [
        (None, None, [1, 2, 3, 4, 5, 6]),
        (0, 6, [1, 2, 3, 4, 5, 6]),
        (1, 5, [None, 2, 3, 4, 5, None]),
        (3, None, [None, None, None, 4, 5, 6]),
        # Most rows lie outside of the bounds, so these are the damaged ones.
        (4, None, [1, 2, 3, 4, 5, 6]),
        (1_000, 2_000, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_bounds_that_most_rows_contradict_are_not_believed(
    tmp_path: Path, low: int | None, high: int | None, keys: list[int | None]
) -> None:
    path = tmp_path / "one.db"
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA page_size = 4096; CREATE TABLE t (x)").fetchall()
        db.execute("INSERT INTO t VALUES ('a'), ('b'), ('c'), ('d'), ('e'), ('f')").fetchall()
    pages: Any = SimpleNamespace(usable=4096, page_size=4096, count=2)
    rows = list(Cells(pages, 1).row_leaf(bytes(page_of(path, 2)), 2, low, high))
    assert [key for key, _ in rows] == keys
    assert [values for _, values in rows] == [[letter] for letter in "abcdef"]
