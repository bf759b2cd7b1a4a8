"""Hostile values in a database whose structure is sound: the values, the calls, and the verdict.

    python values.py DB FOLDER LIMIT_MIB SEED FIRST COUNT

This runs cases in a process that may use LIMIT_MIB more memory than at its start. It prints each
broken promise as a JSON list on a line. A case is a copy of a database in which some values are
replaced by others of the column's type, with the rules of the schema switched off. A stranger can
hand on such a file. Every call then answers, or raises an error of ours. A command ends with a code
of the table, and never with the code of a bug.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
from click.testing import CliRunner

from sessiondb import Limits, database, sync
from sessiondb.cli import program
from sessiondb.errors import SessionDBError
from sessiondb.maintenance import archive_format
from sessiondb.maintenance.archive_dictionary import DICTIONARY
from tests.support.damage import copy_of

CODES = frozenset(range(6))
INTEGERS = (
    0,
    -1,
    1,
    2,
    9,
    2**31,
    2**32,
    2**32 + 1,
    2**53,
    253_402_300_800_000,
    2**62,
    2**63 - 1,
    -(2**63),
)
OBJECTS: tuple[Any, ...] = (
    {},
    {"type": "message"},
    {"type": 5, "id": 5, "parentId": 5},
    {"type": "message", "id": [], "parentId": {}, "message": []},
    {"type": "message", "id": "x", "message": {"role": 5, "content": 5}},
    {"type": "message", "id": "x", "message": {"role": "user", "content": {"text": 1}}},
    {
        "type": "message",
        "id": "x",
        "message": {
            "role": "user",
            "content": [5, None, [], {"type": []}, {"type": "text", "text": {}}],
        },
    },
    {
        "type": "message",
        "message": {
            "role": "assistant",
            "content": [{"type": "toolCall", "id": [], "name": {}}],
            "usage": "x",
        },
    },
    {
        "type": "message",
        "message": {
            "role": "assistant",
            "provider": [],
            "model": {},
            "usage": {"totalTokens": -(10**40)},
        },
    },
    {
        "type": "compaction",
        "summary": [1],
        "firstKeptEntryId": {},
        "tokensBefore": "x",
        "timestamp": 10**30,
    },
    {"type": "branch_summary", "summary": 5},
    {"type": "custom_message", "content": 5},
    {"type": "session", "version": "x", "id": []},
    {"type": "session_info", "name": []},
    {"type": "model_change"},
    {"type": "thinking_level_change", "thinkingLevel": {}},
    {"role": 5},
    {"role": [], "content": {}},
)
TEXTS = (
    "",
    " ",
    "x",
    "\0",
    "a\0b",
    "null",
    "true",
    "5",
    '"x"',
    "[]",
    "[null]",
    "[1, 2]",
    "{",
    "NaN",
    '{"x": NaN}',
    '"\\ud83d"',
    "9" * 5_000,
    '{"n": ' + "9" * 5_000 + "}",
    '{"n": 1e999}',
    "[" * 100_000,
    '{"a":' * 5_000 + "1" + "}" * 5_000,
    "\x1b[2J\x9b\u202e\u2028",
    "x" * 100_000,
    "漢🙂" * 1_000,
    "agent:main:web:1",
    "agent:::",
    "../../x",
    "/etc/passwd",
    "a/b",
    ".",
    "main",
    *(json.dumps(value) for value in OBJECTS),
)
BLOBS = (
    b"",
    b"x",
    b"\xff\xfe",
    b"{}",
    b"[" * 100_000,
    b"x" * 100_000,
    zlib.compress(bytes(2**20)),
    b"\x28\xb5\x2f\xfd" + b"\xff" * 20,
)
NOT_UTF8 = object()
TABLES = (
    "session",
    "binding",
    "foreign_id",
    "session_details",
    "named_details",
    "branch",
    "entry",
    "epoch",
    "compaction",
    "import_file",
    "quarantine",
    "lane",
    "turn",
    "inbox",
    "outbox",
    "channel_pause",
    "event",
    "event_cursor",
    "archive",
    "archive_chunk",
    "instance",
    "wal_link",
)
# Where a value says something to more than one reader, dice fall more often.
FAVOURED = (
    ("entry", "payload"),
    ("archive_chunk", "content"),
    ("archive", "session_keys"),
    ("event", "data"),
    ("binding", "details"),
    ("session_details", "document"),
    ("named_details", "document"),
    ("import_file", "content"),
    ("compaction", "summary"),
    ("inbox", "payload"),
    ("outbox", "payload"),
    ("inbox", "lane"),
    ("import_file", "name"),
)


# -- the stored values -----------------------------------------------------------------------------


def spoil(path: Path, rng: random.Random) -> str:
    """Replace some values of a closed database, and return their names."""
    done = []
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on").fetchall()
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            table, column = rng.choice(FAVOURED) if rng.random() < 0.4 else (rng.choice(TABLES), "")
            info = {
                name: (kind, key)
                for name, kind, key in db.execute(
                    "SELECT name, type, pk FROM pragma_table_info(?)", (table,)
                )
            }
            column = column or rng.choice(sorted(info))
            keys = [name for name in info if info[name][1]]
            rows = db.execute(
                f"SELECT {', '.join(keys)} FROM {table} ORDER BY {', '.join(keys)}"
            ).fetchall()
            if not rows:
                continue
            where = " AND ".join(f"{name} = ?" for name in keys)
            for row in rng.sample(rows, k=min(len(rows), rng.choice([1, 1, 3, 1_000]))):
                shown = _put(db, rng, table, column, info[column][0], where, row)
                done.append(f"{table}.{column} of {row}: {shown}"[:140])
    return "; ".join(done[:5])


def _put(
    db: apsw.Connection,
    rng: random.Random,
    table: str,
    column: str,
    kind: str,
    where: str,
    row: tuple[Any, ...],
) -> str:
    value: Any
    expression = "?"
    if table == "archive_chunk" and column == "content":
        value = _batch(db, rng, where, row)
    elif rng.random() < 0.1:
        value = None
    elif kind == "TEXT" and rng.random() < 0.1:
        value, expression = b'{"\xff\xfe": 1}', "CAST(? AS TEXT)"
    else:
        value = rng.choice({"INTEGER": INTEGERS, "TEXT": TEXTS, "BLOB": BLOBS}[kind])
    # The rules of a type, of NOT NULL and of a key cannot be switched off.
    with suppress(apsw.ConstraintError, apsw.MismatchError):
        db.execute(
            f"UPDATE {table} SET {column} = {expression} WHERE {where}", (value, *row)
        ).fetchall()
    return repr(value)[:60]


def _batch(db: apsw.Connection, rng: random.Random, where: str, row: tuple[Any, ...]) -> bytes:
    """Return a chunk of an archive with a hostile value in it, and with a matching hash."""
    [(content, encoding, what)] = db.execute(
        "SELECT c.content, a.encoding, c.what FROM archive_chunk AS c "
        f"JOIN archive AS a USING (archive_no) WHERE {where}",
        row,
    ).fetchall()
    dictionary = DICTIONARY if what == "whole" else b""
    try:
        text = bytes(archive_format._unpacked(content, encoding, 2**30, dictionary))
        lines: list[Any] = [json.loads(line) for line in text.splitlines()]
    except (archive_format.Wrong, ValueError, RecursionError):
        return rng.choice(BLOBS)  # a value before this one has spoiled it
    if rng.random() < 0.3 or not all(line and isinstance(line, list | dict) for line in lines):
        text = rng.choice(TEXTS).encode() + b"\n"
    else:
        line = rng.choice(lines)
        at = rng.choice([*line]) if isinstance(line, dict) else rng.randrange(len(line))
        line[at] = rng.choice((*INTEGERS, *TEXTS, None, [], {}, 1.5, True, 2**70, "\ud83d"))
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if rng.random() < 0.9:
        db.execute(
            f"UPDATE archive_chunk SET sha256 = ? WHERE {where}",
            (hashlib.sha256(text).hexdigest(), *row),
        ).fetchall()
    return archive_format._compressed(text, encoding, dictionary)


# -- the calls -------------------------------------------------------------------------------------


def _sessions(db: sync.SessionDB) -> list[str]:
    found = []
    with suppress(SessionDBError):
        found = [info.session_id for info in db.sessions(with_ended=True)]
    return found


def _uses(db: sync.SessionDB, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what a program does, each under its name."""
    yield "verify", db.verify
    yield "verify a little", lambda: db.verify(deep=False)
    yield "status", db.status
    yield "sessions", lambda: list(db.sessions(with_ended=True))
    yield "dead letters", lambda: list(db.dead_letters())
    yield (
        "replies",
        lambda: [
            list(db.replies(state)) for state in ("pending", "sending", "unknown", "failed", "sent")
        ],
    )
    yield "held", db.held
    yield "resumes", db.plan_resumes
    yield "compactions", lambda: list(db.compactions())
    for session_id in _sessions(db):
        with suppress(SessionDBError):
            session = db.session_by_id(session_id)
            yield f"context of {session_id}", session.context
            yield (
                f"entries of {session_id}",
                lambda session=session: list(session.entries(limit=500)),
            )
            yield (
                f"all entries of {session_id}",
                lambda session=session: list(session.all_entries(limit=500)),
            )
            yield f"epochs of {session_id}", session.epochs
            yield f"info of {session_id}", session.info
    yield "export", lambda: db.export(folder / "out")


def calls_of_the_api(path: Path, folder: Path) -> Iterator[str]:
    """Use a database as a program does. Yield each error that is not one of ours."""
    limits = Limits(read_age_s_max=5.0, busy_timeout_s=1.0)
    for readonly in (True, False):
        try:
            with sync.open(path, readonly=readonly, limits=limits) as db:
                for name, use in _uses(db, folder) if readonly else _changes(db):
                    try:
                        use()
                    except SessionDBError:
                        pass
                    except Exception as error:  # noqa: BLE001  # any exception is a finding
                        yield f"{name}: {said(error)}"
        except SessionDBError:
            pass
        except Exception as error:  # noqa: BLE001  # likewise
            yield f"open: {said(error)}"


def _changes(db: sync.SessionDB) -> Iterator[tuple[str, Callable[[], Any]]]:
    for session_id in _sessions(db):
        yield f"restore {session_id}", lambda session_id=session_id: db.unarchive(session_id)


def said(error: Exception) -> str:
    """Say what was raised, and where."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "sessiondb" in frame.filename
    ]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:-4:-1])
    return f"{type(error).__name__}: {str(error)[:200]} ({where})"


def commands(path: Path, folder: Path, rng: random.Random) -> Iterator[str]:
    """Run commands. Yield those that end with the code of a bug, or with no code of the table."""
    with sync_ids(path) as ids:
        one = rng.choice(ids) if ids else "none"
    calls = [
        ["verify", path],
        ["status", path],
        ["sessions", path, "--all"],
        ["show", path, one],
        ["show", path, one, "--json"],
        ["context", path, one],
        ["events", path],
        ["inbox", path],
        ["outbox", path],
        ["held", path],
        ["compactions", path],
        ["tail", path, one],
        ["export", path, folder / "cli"],
        ["unarchive", path, one],
    ]
    for call in [*rng.sample(calls, k=5), ["salvage", path, folder / "cli.db"]]:
        done = CliRunner().invoke(program, [str(part) for part in call])
        if done.exit_code not in CODES or not isinstance(done.exception, SystemExit | None):
            last = (done.output.strip() or repr(done.exception)).splitlines()[-1]
            yield f"sessiondb {call[0]}: exit {done.exit_code}: {last[:300]}"


class sync_ids:  # noqa: N801  # a function in all but name
    """The ids of a database's sessions, read past all that is ours."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> list[str]:
        with closing(apsw.Connection(str(self.path))) as db, suppress(UnicodeDecodeError):
            rows = db.execute(
                "SELECT session_id FROM session WHERE session_id NOT GLOB '*' || char(0) || '*'"
            ).fetchall()
            return [
                session_id
                for (session_id,) in rows
                if session_id and not session_id.startswith("-")
            ]
        return []

    def __exit__(self, *_: object) -> None:
        return None


def salvage(path: Path, folder: Path) -> Iterator[str]:
    """Salvage a database. Yield each error that is not one of ours, and its own findings."""
    try:
        report = database.salvage(path, folder / "new.db")
    except SessionDBError as error:
        yield f"salvage gave up: {error}"
    except Exception as error:  # noqa: BLE001  # any exception is a finding
        yield f"salvage: {said(error)}"
    else:
        yield from (
            f"salvage: verify says of the new database: {finding.message}"
            for finding in report.findings[:3]
        )


def broken_by(base: Path, folder: Path, name: str) -> tuple[str, list[str]]:
    """Run the case of this name, and return the stored values and the broken promises."""
    rng = random.Random(name)
    folder.mkdir(parents=True)
    path = copy_of(base, folder / "hostile.db")
    stored = spoil(path, rng)
    found = list(salvage(path, folder))
    found += calls_of_the_api(copy_of(path, folder / "library.db"), folder)
    found += commands(path, folder, rng)
    return stored, found


def main(base: str, folder: str, limit_mib: str, seed: str, first: str, count: str) -> None:
    used = (
        int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        * resource.getpagesize()
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + int(limit_mib) * 2**20,) * 2)
    for number in range(int(first), int(first) + int(count)):
        stored, found = broken_by(Path(base), Path(folder) / str(number), f"{seed}/{number}")
        if found:
            print(json.dumps([number, stored, found]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
