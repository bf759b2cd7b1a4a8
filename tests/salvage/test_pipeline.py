"""`sessiondb salvage` brings back every row that lies on whole pages, says what is missing, and ends with a database that verifies.

A sound database is broken in one way after another (`support.damage.break_it`, seeded), salvaged, and compared with what
SQLite itself said of it before. SESSIONDB_DAMAGE is how many times, SESSIONDB_DAMAGE_SEED where the dice begin; a failure names
both. Teeth: a salvage that leaves out a page in silence, that drops the WAL, or that lies about what is missing is found out.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
from click.testing import CliRunner

import sessiondb
from sessiondb import sync
from sessiondb.cli import program
from sessiondb.errors import InvalidInput, NewerSchema, NotASessionDB, StoreBusy
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.salvage import pipeline, repair, workspace
from sessiondb.sqlite import damaged_file, damaged_wal, file_format
from sessiondb.sqlite.damaged_file import DamagedFile
from sessiondb.sqlite.schema import migrations, schema_text
from sessiondb.sqlite.transaction import statements
from tests import ROOT
from tests.support.core import change, user
from tests.support.damage import (
    PAGE,
    Truth,
    break_it,
    complaints,
    copy_of,
    is_mark,
    make,
    reported,
    rows_of,
    salvaged,
)
from tests.support.gateway import claimed, complete

TIMES = int(os.environ.get("SESSIONDB_DAMAGE", "15"))
SEED = int(os.environ.get("SESSIONDB_DAMAGE_SEED", "1"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """Return a sound database and what is in it."""
    return Truth.of(make(tmp_path_factory.mktemp("sound") / "sound.db"))


@pytest.fixture
def broken(sound: Truth, tmp_path: Path) -> Path:
    """Return a copy to break."""
    return copy_of(sound.path, tmp_path / "broken.db")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "new.db"


def page_of(path: Path, number: int) -> bytearray:
    return bytearray(path.read_bytes()[(number - 1) * PAGE : number * PAGE])


def put_page(path: Path, number: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE)
        file.write(content)


def pages_of(truth: Truth, table: str) -> set[int]:
    return {page for page, name in truth.tables.items() if name == table}


# -- whatever the damage -------------------------------------------------------------------------------------


def try_one(truth: Truth, path: Path, new: Path, name: str) -> tuple[str, list[str]]:
    """Break a copy as the dice of this name say; return what was done, and which promises the salvage broke."""
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


def test_whatever_page_is_damaged_every_row_on_the_others_comes_out_and_what_is_missing_is_said(
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
        f"\nsalvage: seed {SEED}, {TIMES} damaged files of {sound.count} pages, {len(sound.rows)} rows each: {dict(kinds)}"
    )
    assert failures == []


def test_a_sound_database_comes_out_as_it_is_row_for_row(
    sound: Truth, broken: Path, new: Path
) -> None:
    report = salvaged(broken, new)
    assert report.complete
    assert (report.notes, report.lost, report.unreadable, report.damaged_sessions) == (
        [],
        [],
        [],
        [],
    )
    with (
        closing(apsw.Connection(str(broken))) as before,
        closing(apsw.Connection(str(new))) as after,
    ):
        for table in file_format.TABLES:
            statement = f"SELECT * FROM {table} ORDER BY 1, 2"
            assert after.execute(statement).fetchall() == before.execute(statement).fetchall(), (
                table
            )
        assert after.pragma("integrity_check") == "ok"
        for name in ("page_size", "auto_vacuum", "application_id", "user_version", "journal_mode"):
            assert after.pragma(name) == before.pragma(name), name
    assert new.stat().st_mode & 0o777 == 0o600


def test_every_table_and_every_column_of_the_schema_is_salvaged() -> None:
    """A table or a column that a later schema adds cannot be forgotten."""
    with closing(apsw.Connection(":memory:")) as db:
        db.execute(schema_text()).fetchall()
        tables = {
            name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        }
        assert tables == set(file_format.TABLES)
        for table in tables - {"sqlite_sequence"}:
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


# -- one page after another ----------------------------------------------------------------------------------


def test_without_its_first_page_a_file_gives_everything(
    sound: Truth, broken: Path, new: Path
) -> None:
    put_page(broken, 1, bytes(PAGE))
    report = salvaged(broken, new)
    assert complaints(sound, {1}, new, report) == []
    assert report.entries == sum(table == "entry" for table, _ in sound.rows)
    assert (report.damaged_sessions, report.unreadable) == ([], [])


def test_without_schema_and_map_rows_are_known_by_their_shape(
    sound: Truth, broken: Path, new: Path
) -> None:
    lost = {1, 2, *pages_of(sound, "sqlite_schema")}
    for number in lost:
        put_page(broken, number, bytes(PAGE))
    report = salvaged(broken, new)
    assert complaints(sound, lost, new, report) == []
    with (
        closing(apsw.Connection(str(sound.path))) as before,
        closing(apsw.Connection(str(new))) as after,
    ):
        for table in ("session", "binding", "branch", "epoch", "compaction", "lane", "instance"):
            statement = f"SELECT * FROM {table} ORDER BY 1, 2"
            assert after.execute(statement).fetchall() == before.execute(statement).fetchall(), (
                table
            )


ONE_BY_ONE = [
    "session",
    "branch",
    "epoch",
    "binding",
    "compaction",
    "turn",
    "inbox",
    "outbox",
    "event",
    "instance",
    "lane",
]


@pytest.mark.parametrize("table", ONE_BY_ONE)
def test_without_one_table_the_others_come_out_and_the_result_verifies(
    sound: Truth, broken: Path, new: Path, table: str
) -> None:
    lost = pages_of(sound, table)
    for number in lost:
        put_page(broken, number, bytes(PAGE))
    report = salvaged(broken, new)
    assert complaints(sound, lost, new, report) == []
    assert not report.complete
    assert any(spot.table == table for spot in report.unreadable)


def test_a_lost_entry_leaves_a_mark_with_its_number_its_id_and_the_path_of_its_successors(
    broken: Path, new: Path
) -> None:
    with sync.open(broken) as db:
        session = db.create_session("cut")
        receipts = [session.append(user(f"message {number} " * 60)) for number in range(30)]
    truth = Truth.of(broken)
    lost_pages = truth.pages["entry", receipts[14].entry_no]
    for number in lost_pages:
        put_page(broken, number, bytes(PAGE))
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


def test_a_user_message_that_only_the_inbox_still_has_is_told_again(
    tmp_path: Path, new: Path
) -> None:
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


def test_numbers_that_were_given_out_are_not_given_out_again(
    sound: Truth, broken: Path, new: Path
) -> None:
    for number in pages_of(sound, "inbox") | pages_of(sound, "sqlite_sequence"):
        put_page(broken, number, bytes(PAGE))
    with closing(apsw.Connection(str(sound.path))) as db:
        [(last,)] = db.execute(
            "SELECT max(CAST(substr(idempotency_key, 7) AS INTEGER)) FROM entry WHERE idempotency_key GLOB 'inbox:*'"
        )
    salvaged(broken, new)
    with sync.open(new) as db:
        taken = db.accept("web", "later", "agent:main:more:0", user("later"))
    assert taken.inbox_no > last  # else its entry would be taken for one that is there already


def test_a_page_of_the_schema_that_leads_into_another_tree_takes_none_of_its_rows(
    sound: Truth, broken: Path, new: Path
) -> None:
    with closing(apsw.Connection(str(sound.path))) as db:
        [(inner,)] = db.execute(
            "SELECT pageno FROM dbstat WHERE name = 'entry' AND pagetype = 'internal'"
        )
        leaves = db.execute(
            "SELECT pageno FROM dbstat WHERE name = 'sqlite_schema' AND pagetype = 'leaf'"
        ).fetchall()
    for (leaf,) in leaves:
        put_page(copy_of(sound.path, broken), leaf, page_of(sound.path, inner))
        assert complaints(sound, {leaf}, new, salvaged(broken, new)) == []


def test_the_lost_header_of_an_imported_session_is_missed(
    sound: Truth, broken: Path, new: Path
) -> None:
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


# -- archives ------------------------------------------------------------------------------------------------


@pytest.fixture
def archived(tmp_path: Path) -> tuple[Path, Truth]:
    """Return a database whose only session is in an archive, and what was in it before."""
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


def test_an_archive_that_is_whole_stays_an_archive(archived: tuple[Path, Truth], new: Path) -> None:
    path, truth = archived
    assert salvaged(path, new).complete
    with sync.open(new) as db:
        [info] = db.sessions(with_ended=True)
        assert info.archived_at_ms is not None
        db.restore(info.session_id)
    assert {
        number: row for number, row in rows_of(new).items() if number[0] == "entry"
    } == truth.rows


@pytest.mark.parametrize("lost", ["a chunk", "the archive's row"])
def test_a_damaged_archive_is_opened_and_what_it_still_holds_is_put_back(
    archived: tuple[Path, Truth], new: Path, lost: str
) -> None:
    path, truth = archived
    if lost == "a chunk":
        with closing(apsw.Connection(str(path))) as db:
            statement = "SELECT chunk_no, content FROM archive_chunk WHERE what = 'entry' ORDER BY chunk_no LIMIT 1"
            [(number, content)] = db.execute(statement).fetchall()
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


# -- the WAL -------------------------------------------------------------------------------------------------

DIE_WITH_WAL = """
import os, signal, sys
from sessiondb import sync
db = sync.open(sys.argv[1]).__enter__()
for number in range(3):
    session = db.session(f"agent:main:wal:{number}")
    for turn in range(int(sys.argv[2])):
        session.append({"role": "user", "content": f"in the WAL {number} {turn} " * 20})
os.kill(os.getpid(), signal.SIGKILL)
"""


def die_with_wal(path: Path, turns: int = 12) -> Path:
    """Leave a database as kill -9 leaves it: what was committed last is in its WAL only."""
    done = subprocess.run(
        [sys.executable, "-c", DIE_WITH_WAL, str(path), str(turns)],
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    assert Path(f"{path}-wal").stat().st_size > 32
    return path


@pytest.fixture(scope="module")
def killed(sound: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database whose last process was killed."""
    return die_with_wal(copy_of(sound.path, tmp_path_factory.mktemp("killed") / "killed.db"))


def as_sqlite_sees(path: Path, scratch: Path) -> Truth:
    """Return what SQLite itself makes of a database and its WAL, on a copy."""
    return Truth.of(copy_of(path, scratch))


def test_what_is_in_the_wal_only_comes_out(killed: Path, tmp_path: Path, new: Path) -> None:
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


def test_a_salvage_that_drops_the_wal_is_found_out(
    killed: Path, tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(killed, tmp_path / "broken.db")
    truth = as_sqlite_sees(path, tmp_path / "scratch.db")
    monkeypatch.setattr(damaged_file, "read_wal", lambda path, page_size: damaged_wal.Wal())
    assert complaints(truth, set(), new, salvaged(path, new)) != []


def test_wherever_a_wal_is_damaged_all_that_stands_before_comes_out_and_the_rest_is_not_passed_over(
    killed: Path, tmp_path: Path, new: Path
) -> None:
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
        # Whole transactions at the end of a WAL may be cut off without a trace; and it may end with what an earlier round left.
        if number % 4 != 1 and report.wal != "torn":
            wrong += complaints(whole, set(), new, report)
        assert wrong == [], f"SESSIONDB_DAMAGE_SEED={SEED}, WAL number {number}, byte {at}"
    print(f"\nsalvage: seed {SEED}, {times} damaged WALs")


def test_a_damaged_header_of_the_wal_does_not_cost_its_transactions(
    killed: Path, tmp_path: Path, new: Path
) -> None:
    path = copy_of(killed, tmp_path / "broken.db")
    truth = as_sqlite_sees(path, tmp_path / "scratch.db")
    with Path(f"{path}-wal").open("r+b") as wal:
        wal.write(bytes(32))
    assert complaints(truth, set(), new, salvaged(path, new)) == []


def test_the_wal_of_another_database_is_left_out_and_said(
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


# -- claims --------------------------------------------------------------------------------------------------


def first_leaf(truth: Truth, table: str = "entry") -> int:
    with closing(apsw.Connection(str(truth.path))) as db:
        [(number,)] = db.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path LIMIT 1",
            (table,),
        )
    return int(number)


def varint(value: int) -> bytes:
    """Write a number as SQLite does, up to 2^56."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def test_a_row_that_claims_two_gigabytes_costs_no_memory(
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
def test_a_page_that_counts_fewer_rows_than_it_holds_is_noticed(
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


def test_a_chain_of_pages_that_comes_back_to_itself_ends(
    sound: Truth, broken: Path, new: Path
) -> None:
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


LIMITED = """
import dataclasses, json, resource, sys
from sessiondb import database
resource.setrlimit(resource.RLIMIT_AS, (600 * 2**20, 600 * 2**20))
print(json.dumps(dataclasses.asdict(database.salvage(sys.argv[1], sys.argv[2]))))
"""


def limited(path: Path, new: Path) -> dict[str, Any]:
    """Salvage in a process that may not have much memory."""
    command = [sys.executable, "-c", LIMITED, str(path), str(new)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


# -- who may, and when ---------------------------------------------------------------------------------------


def test_a_database_that_this_process_has_open_is_refused(
    sound: Truth, broken: Path, new: Path
) -> None:
    with sync.open(broken) as db:
        with pytest.raises(StoreBusy, match="has the database open"):
            salvaged(broken, new)
        db.create_session("still-mine")
    assert not new.exists()


HOLD_OPEN = """
import sys
from sessiondb import sync
with sync.open(sys.argv[1], readonly=sys.argv[2] == "r") as db:
    list(db.sessions())
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["r+", "r"])
def test_a_database_that_another_process_has_open_is_refused_by_name(
    broken: Path, new: Path, mode: str
) -> None:
    command = [sys.executable, "-c", HOLD_OPEN, str(broken), mode]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreBusy, match=f"pid {process.pid}"):
            salvaged(broken, new)
        process.stdin.close()
    assert salvaged(broken, new).complete


def test_while_a_salvage_reads_nobody_else_opens_the_file(broken: Path) -> None:
    code = "import sys; from sessiondb import sync, Limits\nsync.open(sys.argv[1], limits=Limits(busy_timeout_s=0.2)).__enter__()"
    with DamagedFile(str(broken)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(broken)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert "StoreBusy" in done.stderr


def test_a_name_that_is_taken_is_refused_and_nothing_is_left_behind(
    broken: Path, new: Path
) -> None:
    new.write_text("mine")
    with pytest.raises(InvalidInput, match="there is a file already"):
        sessiondb.database.salvage(broken, new)
    assert new.read_text() == "mine"
    new.unlink()
    new.with_name(new.name + ".partial").write_text("another run's")
    with pytest.raises(InvalidInput, match="interrupted"):
        sessiondb.database.salvage(broken, new)
    assert sorted(file.name for file in new.parent.iterdir()) == ["broken.db", "new.db.partial"]


def test_a_salvage_to_a_file_system_without_hard_links_is_refused_before_anything_is_read(
    broken: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(pipeline, "run", None)
    with pytest.raises(InvalidInput, match="no hard links; choose another destination"):
        sessiondb.database.salvage(broken, new)
    assert list(new.parent.glob("new*")) == []


def test_a_name_that_is_taken_while_a_salvage_runs_is_left_alone(broken: Path, new: Path) -> None:
    def take(_: str) -> None:
        new.write_text("mine")

    with pytest.raises(InvalidInput, match="there is a file already"):
        sessiondb.database.salvage(broken, new, progress=take)
    assert new.read_text() == "mine"
    assert [file.name for file in new.parent.glob("new*")] == ["new.db"]


def test_a_salvage_that_fails_in_the_middle_leaves_nothing(
    broken: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(repair, "settle_states", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        salvaged(broken, new)
    assert [file.name for file in new.parent.iterdir()] == ["broken.db"]


def test_a_file_of_an_older_schema_comes_out_in_the_present_one(tmp_path: Path, new: Path) -> None:
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


def test_a_chunk_that_claims_to_unpack_to_a_terabyte_is_taken_for_damaged(
    archived: tuple[Path, Truth], new: Path
) -> None:
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


def test_a_newer_schema_and_another_program_s_database_are_no_damage(
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


# -- teeth ---------------------------------------------------------------------------------------------------


def test_a_salvage_that_passes_over_a_page_in_silence_is_found_out(
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
    assert (
        not report.complete
    )  # and the salvage noticed by itself, from the numbers that are not there
    assert reported(report)


def test_a_report_that_does_not_say_what_is_missing_is_found_out(
    sound: Truth, broken: Path, new: Path
) -> None:
    put_page(broken, first_leaf(sound), bytes(PAGE))
    report = salvaged(broken, new)
    assert complaints(sound, {first_leaf(sound)}, new, report) == []
    message = report.damaged_sessions[:]
    report.damaged_sessions[:] = [dataclasses.replace(session, missing=()) for session in message]
    assert any(
        "nothing says so" in sentence
        for sentence in complaints(sound, {first_leaf(sound)}, new, report)
    )
    [*first, (low, high)] = message[0].missing  # nor does one number too few pass
    report.damaged_sessions[:] = [
        dataclasses.replace(
            message[0], missing=(*first, *([(low, high - 1)] if high > low else []))
        ),
        *message[1:],
    ]
    assert any(
        "nothing says so" in sentence
        for sentence in complaints(sound, {first_leaf(sound)}, new, report)
    )


def test_a_salvage_that_changes_a_text_is_found_out(sound: Truth, broken: Path, new: Path) -> None:
    report = salvaged(broken, new)
    change(
        new,
        "UPDATE entry SET payload = replace(payload, 'question', 'answer') WHERE payload GLOB '*question 3 of 1*'",
    )
    assert any("came out as" in sentence for sentence in complaints(sound, set(), new, report))


# -- the command ---------------------------------------------------------------------------------------------


def run(*args: object) -> Any:
    result = CliRunner().invoke(program, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command_says_what_it_got_and_ends_with_0_1_or_2(
    sound: Truth, broken: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run("salvage", broken, new)
    assert (done.exit_code, "everything was salvaged" in done.stdout) == (0, True)
    done = run("salvage", broken, new)
    assert (
        done.exit_code,
        done.stderr.startswith("sessiondb: "),
        "a file already" in done.stderr,
    ) == (2, True, True)
    new.unlink()
    put_page(broken, first_leaf(sound), bytes(PAGE))
    done = run("salvage", broken, new, "--json")
    assert done.exit_code == 1
    message = json.loads(done.stdout)
    assert (message["complete"], message["missing_entries"] > 0, message["findings"]) == (
        False,
        True,
        [],
    )
    new.unlink()
    done = run("salvage", broken, new)
    assert done.exit_code == 1
    assert "missing" in done.stdout
    assert run("verify", new).exit_code == 0
    done = run("salvage", broken.with_name("nowhere.db"), new.with_name("other.db"))
    assert (done.exit_code, "no such file" in done.stderr) == (2, True)


def test_on_a_terminal_of_80_columns_nothing_runs_over(
    sound: Truth, broken: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sessiondb.cli.terminal", "sessiondb.cli.salvage"):
        monkeypatch.setattr(sys.modules[module], "terminal_width", lambda: 80)
    for number in (first_leaf(sound), first_leaf(sound, "session")):
        put_page(broken, number, bytes(PAGE))
    lines = run("salvage", broken, new).stdout.splitlines()
    assert [line for line in lines if len(line) > 80 and str(new) not in line] == []
