"""Damaged databases for tests: one of every shape, the rows on each of its pages, ways to break it.

`Truth` reads a sound database through SQLite itself (`dbstat` says which row lies on which
pages). So the code under test has no part in what it must bring out.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import apsw

import sessiondb
from sessiondb import database, sync
from sessiondb.maintenance import archive, archive_small
from sessiondb.salvage.rebuild import MARK
from sessiondb.salvage.report import NO_HEADER_KNOWN, SalvageReport
from tests import ROOT
from tests.support import warm
from tests.support.core import reply, user
from tests.support.every_shape import fill
from tests.support.gateway import say

PAGE = 4096
TIMES = int(os.environ.get("SESSIONDB_DAMAGE", "15"))
SEED = int(os.environ.get("SESSIONDB_DAMAGE_SEED", "1"))
# Tables whose rows never change once they are written, so a salvage brings them out unchanged.
IMMUTABLE = {
    "entry": "entry_no",
    "inbox": "inbox_no",
    "outbox": "outbox_no",
    "event": "event_no",
    "turn": "turn_no",
}
# The columns that a salvage never changes. The message is promised, not its state.
KEPT = {
    "entry": ("entry_no", "entry_id", "payload"),
    "inbox": ("inbox_no", "channel", "event_id", "session_no", "payload"),
    "outbox": ("outbox_no", "session_no", "target", "payload"),
    "event": ("event_no", "kind", "text", "data"),
    "turn": ("turn_no", "inbox_no", "attempt", "started_at_ms"),
}


async def _more(path: Path, sessions: int) -> None:
    async with sessiondb.open(path) as db:
        for number in range(sessions):
            session = await db.session(f"agent:main:more:{number}")
            for turn in range(20):
                await session.append(user(f"question {turn} of {number} " * (1 + 7 * turn % 40)))
                await session.append(
                    reply(f"answer {turn} of {number} " * (1 + 11 * turn % 60), tokens=100 + turn)
                )
            if number % 2:
                async with session.compact(keep_recent_tokens=200) as job:
                    await job.commit(f"summary of {number} " * 20)
            await session.append(user("long " * 2_000))  # a chain of pages
            await session.append(reply("and on"))
        for number in range(3):
            old = await db.create_session(f"old-{number}")
            named = await db.session_for(("app", "other app")[number % 2], f"thread {number}")
            await named.append(user(f"named {number}"))
            await old.append_many([user(f"old {number} {turn} " * 50) for turn in range(15)])
            if number == 1:  # as one chunk
                wanted = archive_small.Wanted(old.ref.session_no, "old")
                assert await archive_small.archive_one(db.backend, wanted) is None
                continue
            assert await archive.begin(db.backend, old.ref.session_no, "old") == (number + 1, None)
            await archive.advance(db.backend, number + 1)
        for number in range(40):
            await say(
                db,
                f"waiting-{number}",
                f"agent:main:more:{number % max(1, sessions)}",
                text=f"waiting {number} " * 30,
            )


HEADER = {
    "type": "session",
    "version": 3,
    "id": "imported",
    "timestamp": "2026-01-01T00:00:00.000Z",
    "cwd": "/",
}
IMPORTED = "".join(
    [json.dumps(HEADER) + "\n"]
    + [
        json.dumps(
            {
                "type": "message",
                "id": f"m{n}",
                "parentId": f"m{n - 1}" if n else None,
                "message": user(f"imported {n}"),
            }
        )
        + "\n"
        + ("\n" if n % 9 == 0 else '{"torn": \n' if n % 7 == 0 else "")
        for n in range(40)
    ]
)


def make(path: Path, *, sessions: int = 4) -> Path:
    """Make a database with sessions of every shape, some archived or imported, and an inbox."""
    anyio.run(fill, path)
    anyio.run(_more, path, sessions)
    file = path.with_name("imported.jsonl")
    file.write_text(IMPORTED)
    with sync.open(path) as db:
        assert db.import_path(file).damaged > 0
    return path


# -- the truth


@dataclass
class Truth:
    """Every row of a sound database that a salvage must bring out, and its pages."""

    path: Path
    rows: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    pages: dict[tuple[str, int], frozenset[int]] = field(default_factory=dict)
    count: int = 0
    tables: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Truth:
        truth = cls(path)
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
            truth.count = db.pragma("page_count")
            truth.tables = {
                page: name for name, page in db.execute("SELECT name, pageno FROM dbstat")
            }
            for table, key in IMMUTABLE.items():
                truth._read(db, table, key)
        return truth

    def _read(self, db: apsw.Connection, table: str, key: str) -> None:
        keys = [number for (number,) in db.execute(f"SELECT {key} FROM {table} ORDER BY {key}")]
        leaves = db.execute(
            "SELECT path, pageno, ncell FROM dbstat"
            " WHERE name = ? AND pagetype = 'leaf' ORDER BY path",
            (table,),
        ).fetchall()
        assert sum(cells for _, _, cells in leaves) == len(keys)
        at = 0
        for path, page, cells in leaves:
            for cell in range(cells):
                # The pages of a long row follow their leaf in the path: the fourth row of
                # "/00a/" has "/00a/003+000000".
                chain = db.execute(
                    "SELECT pageno FROM dbstat WHERE name = ? AND path GLOB ?",
                    (table, f"{path}{cell:03x}+*"),
                ).fetchall()
                self.pages[table, keys[at]] = frozenset([page, *(number for (number,) in chain)])
                at += 1
        cursor = db.execute(f"SELECT {', '.join(KEPT[table])} FROM {table}")
        for row in cursor:
            self.rows[table, row[0]] = dict(zip(KEPT[table], row, strict=True))


def rows_of(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the same columns of a salvaged database."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        for table, columns in KEPT.items():
            for row in db.execute(f"SELECT {', '.join(columns)} FROM {table}"):
                found[table, row[0]] = dict(zip(columns, row, strict=True))
    return found


def is_mark(row: dict[str, Any]) -> bool:
    """Tell whether an entry replaces a lost one."""
    return json.loads(row["payload"]).get("customType") == MARK


def reported(report: SalvageReport) -> set[int]:
    """Return the numbers of all entries that a report says are missing."""
    ranges = (
        (session.session_no << 32, *ends)
        for session in report.damaged_sessions
        for ends in session.missing
    )
    return {first | seq for first, low, high in ranges for seq in range(low, high + 1)}


def complaints(truth: Truth, touched: set[int], new: Path, report: SalvageReport) -> list[str]:
    """Compare a salvage with the truth. Return a sentence for each promise that it broke."""
    found, missing = rows_of(new), reported(report)
    # Losses that a report need not name by number: all entries of a session that was left out,
    # and the headers of imported files that may have had none.
    unknown = {
        session.session_no << 32
        for session in report.damaged_sessions
        if NO_HEADER_KNOWN in session.notes
    }
    left_out = {
        session.session_no for session in report.damaged_sessions if session.outcome == "left out"
    }
    wrong: list[str] = []
    for (table, number), row in truth.rows.items():
        now = found.get((table, number))
        if table == "inbox" and now is not None and row["payload"] is None:
            now = now | {"payload": None}  # its text is in its entry, which may be lost
        if now == row:
            continue
        spared = not truth.pages[table, number] & touched
        if spared:
            where = sorted(truth.pages[table, number])
            wrong.append(
                f"{table} {number} lies on pages {where}, which are whole, "
                f"and came out as {str(now)[:200]}"
            )
        elif (
            table == "entry"
            and (now is None or is_mark(now))
            and number not in missing | unknown
            and number >> 32 not in left_out
        ):
            wrong.append(f"entry {number} is lost and nothing says so")
        elif table != "entry" and now is None and report.complete:
            wrong.append(f"{table} {number} is lost and nothing says so")
    wrong += [f"verify: {finding.message}" for finding in report.findings]
    if report.complete and wrong:
        wrong.append("the report says that everything was salvaged")
    return wrong


def salvaged(path: Path, new: Path, **options: Any) -> SalvageReport:
    """Salvage into a name, which is freed first."""
    new.unlink(missing_ok=True)
    return database.salvage(path, new, **options)


def page_of(path: Path, number: int) -> bytearray:
    return bytearray(path.read_bytes()[(number - 1) * PAGE : number * PAGE])


def put_page(path: Path, number: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE)
        file.write(content)


def zero_pages(path: Path, *numbers: int) -> None:
    """Overwrite pages with nothing."""
    for number in numbers:
        put_page(path, number, bytes(PAGE))


def tables_that_differ(one: Path, other: Path, tables: Iterable[str]) -> list[str]:
    """Return the tables whose rows differ between two closed databases."""
    with closing(apsw.Connection(str(one))) as a, closing(apsw.Connection(str(other))) as b:
        return [
            table
            for table in tables
            if a.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            != b.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        ]


def pages_of(truth: Truth, table: str) -> set[int]:
    return {page for page, name in truth.tables.items() if name == table}


def first_leaf(truth: Truth, table: str = "entry") -> int:
    with closing(apsw.Connection(str(truth.path))) as db:
        [(number,)] = db.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path LIMIT 1",
            (table,),
        )
    return int(number)


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
    """Leave a database as kill -9 leaves it: the last commits are in its WAL only."""
    done = warm.run(
        [sys.executable, "-c", DIE_WITH_WAL, str(path), str(turns)],
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    assert Path(f"{path}-wal").stat().st_size > 32
    return path


LIMITED = """
import dataclasses, json, resource, sys
from sessiondb import database
resource.setrlimit(resource.RLIMIT_AS, (600 * 2**20, 600 * 2**20))
print(json.dumps(dataclasses.asdict(database.salvage(sys.argv[1], sys.argv[2]))))
"""


def limited(path: Path, new: Path) -> dict[str, Any]:
    """Salvage in a process with 600 MiB of address space."""
    command = [sys.executable, "-c", LIMITED, str(path), str(new)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


# -- damage


@dataclass(frozen=True)
class Damage:
    """One way to break a file."""

    what: str
    pages: frozenset[int]

    def __str__(self) -> str:
        some = ", ".join(map(str, sorted(self.pages)[:8]))
        more = ", ..." if len(self.pages) > 8 else ""
        return f"{self.what} on {len(self.pages)} pages ({some}{more})"


def copy_of(path: Path, to: Path) -> Path:
    """Copy a closed database, with its -wal and -shm when the WAL holds anything.

    Whoever reads a database with a read-only connection leaves an empty WAL beside it.
    """
    wal = Path(f"{path}-wal")
    holds_rows = wal.exists() and wal.stat().st_size > 0
    for suffix in ("", "-wal", "-shm"):
        Path(f"{to}{suffix}").unlink(missing_ok=True)
        if suffix == "" or (holds_rows and Path(f"{path}{suffix}").exists()):
            shutil.copy(f"{path}{suffix}", f"{to}{suffix}")
    return to


def flip(path: Path, rng: random.Random, pages: int, *, bits: int = 1) -> Damage:
    """Flip bits, each on a random page."""
    data = bytearray(path.read_bytes())
    touched = set()
    for _ in range(bits):
        page, at, bit = rng.randrange(pages), rng.randrange(PAGE), rng.randrange(8)
        data[page * PAGE + at] ^= 1 << bit
        touched.add(page + 1)
    path.write_bytes(data)
    return Damage(f"{bits} bits flipped", frozenset(touched))


def flip_structure(path: Path, rng: random.Random, pages: int) -> Damage:
    """Flip a bit in a page's header or in the places of its rows."""
    data = bytearray(path.read_bytes())
    page = rng.randrange(pages)
    at = page * PAGE + rng.randrange(100 if page == 0 else 0, 140 if page == 0 else 40)
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return Damage(f"a bit of a page's header flipped (byte {at % PAGE})", frozenset({page + 1}))


def overwrite(path: Path, rng: random.Random, pages: int) -> Damage:
    """Overwrite whole pages: with nothing, with noise, or with another page."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(["zeros", "noise", "another page"])
    chosen = rng.sample(range(pages), k=min(pages, rng.choice([1, 1, 2, 5])))
    for page in chosen:
        other = rng.randrange(pages)
        content = {
            "zeros": bytes(PAGE),
            "noise": rng.randbytes(PAGE),
            "another page": bytes(data[other * PAGE : (other + 1) * PAGE]),
        }[kind]
        data[page * PAGE : (page + 1) * PAGE] = content
    path.write_bytes(data)
    return Damage(kind, frozenset(page + 1 for page in chosen))


def cut_off(path: Path, rng: random.Random, pages: int) -> Damage:
    """Cut the file short, at a page or inside one."""
    left = rng.randrange(PAGE, pages * PAGE)
    left -= left % PAGE if rng.random() < 0.5 else 0
    with path.open("r+b") as file:
        file.truncate(left)
    return Damage(f"cut off after {left} bytes", frozenset(range(left // PAGE + 1, pages + 1)))


DAMAGES = (flip, flip_structure, overwrite, cut_off)


def break_it(path: Path, rng: random.Random, pages: int) -> Damage:
    """Break a file in one of the ways above."""
    way = rng.choice(DAMAGES)
    return (
        flip(path, rng, pages, bits=rng.choice([1, 1, 3, 20]))
        if way is flip
        else way(path, rng, pages)
    )
