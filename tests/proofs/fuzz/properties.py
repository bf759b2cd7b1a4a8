"""The properties that every fuzzer of the importer checks, and a bench that checks them quickly.

`Bench` is a database in memory. An input is imported by the importer's own steps
(`jsonl_reader.read_batches`, `source.store_batch`), checked from every side, and rolled back. That
makes some 100 inputs a second, on one thread, without an event loop. The bench leaves out threads,
group commit, files that appear and vanish, and the index. `proofs/fuzz/test_import.py` and
`proofs/fuzz/test_hostile_files.py` cover these with whole folders and real databases.

The judge shares no code with the importer: `sort_lines` reads a file with `bytes.split` and
`json.loads`, and says which lines are entries. Each of these must be stored verbatim and in order,
and every other byte must be kept beside them.
"""

from __future__ import annotations

import faulthandler
import hashlib
import itertools
import json
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from sessiondb.cli.show import parts_of
from sessiondb.cli.terminal import _UNSAFE_IN_LINES, at, escape, escape_lines
from sessiondb.errors import SessionDBError
from sessiondb.json_text import LINE_NESTING_MAX
from sessiondb.maintenance import verify
from sessiondb.models import Entry
from sessiondb.sqlite import schema
from sessiondb.sqlite.connection import _common, drain
from sessiondb.sqlite.transaction import Snapshot, WriteTransaction
from sessiondb.transcript import append, compaction, paths, registry
from sessiondb.transcript.context import read_context
from sessiondb.transcript.entries import draft_entry
from sessiondb.transcript.pieces import entry_json, title_of, written_at_ms
from sessiondb.transfer import early_lines, jsonl_reader, roundtrip, source
from sessiondb.transfer.folder_scan import SourceFile
from sessiondb.transfer.jsonl_writer import imported_bytes
from tests.support.compaction import begin_in

T = TypeVar("T")

INPUTS = int(os.environ.get("SESSIONDB_FUZZ", "0"))
"""How many inputs each fuzzer tries in a long run. 0 is a short run."""
SEED = int(os.environ.get("SESSIONDB_FUZZ_SEED", "20261120"))
HANG_CPU_S = 30.0
"""An input of some kilobytes takes milliseconds. One that takes so much processor time hangs. A
busy machine does not move that clock."""
HANG_WALL_S = 300.0
"""Waiting for ever, for a pipe without a writer or for a lock, uses no processor time. So there is
this limit, too. No machine is so busy that an input takes so long."""
CLEAN_UP_S = 60.0
"""A clean-up may wait for the hanging thread. After this long the process ends, with the
tracebacks of all threads."""
EPOCHS_READ_MAX = 20
GOING_ON_STEPS = 6
NOW_MS = 1_767_225_600_000
BOM = b"\xef\xbb\xbf"

# The sequences that a command itself may send to a terminal: bold and its end, and those of click's
# progress bar (hide and show the cursor, clear the line).
MEANT = re.compile(r"\x1b\[(?:1m|0m|K)|\r\x1b\[\?25l|\x1b\[\?25h")
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


class Broken(AssertionError):
    """A promise did not hold for an input. The message says which."""


def require(holds: bool, promise: str, *about: object) -> None:
    """Raise when a promise does not hold."""
    if not holds:
        raise Broken(promise + "".join(f"\n    {item!r:.600}" for item in about))


class Hung(BaseException):
    """An input took too long. Not an Exception, so that no code in between handles it."""


@contextmanager
def watched(*, cpu: bool = True) -> Iterator[None]:
    """Raise `Hung` in a body that takes too much processor time (if `cpu`), or does not end."""

    def stop(number: int, _: object) -> None:
        raise Hung(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGVTALRM, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_CPU_S if cpu else 0)
    signal.setitimer(signal.ITIMER_REAL, HANG_WALL_S)
    faulthandler.dump_traceback_later(HANG_WALL_S + CLEAN_UP_S, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


# -- the judge -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file, its end included, and what it is."""

    content: bytes
    kind: str  # entry, blank or damaged


def sort_lines(content: bytes) -> list[Line]:
    """Cut a file at line feeds and return the kind of each line.

    A byte order mark in front is a line of its own, and blank.
    """
    lines: list[Line] = []
    if content.startswith(BOM):
        lines.append(Line(BOM, "blank"))
        content = content[len(BOM) :]
    pieces = content.split(b"\n")
    for number, piece in enumerate(pieces, 1):
        whole = piece + (b"\n" if number < len(pieces) else b"")
        if whole:
            kind = _kind_of(piece)
            if kind == "damaged" and whole != piece and len(whole) <= jsonl_reader.PIECE_BYTES:
                # What is damaged by no more than its bytes is read all the same, and kept, too.
                readable = _kind_of(piece.decode(errors="replace").encode()) == "entry"
                kind = "entry in other bytes" if readable else kind
            lines.append(Line(whole, kind))
    return lines


def _kind_of(line: bytes) -> str:
    if not line.strip(b" \t\r\n"):
        return "blank"
    try:
        text = line.decode()
        if _levels(text) > LINE_NESTING_MAX:
            return "damaged"
        value = json.loads(text, parse_constant=_refuse, parse_int=len)
    except ValueError:
        return "damaged"
    return (
        "entry"
        if isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"]
        else "damaged"
    )


def _refuse(name: str) -> None:
    raise ValueError(name)


def _levels(text: str) -> int:
    """Return how deep a text is nested. Brackets in strings do not count."""
    depth = deepest = 0
    inside = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif inside:
            escaped, inside = char == "\\", char != '"'
        elif char == '"':
            inside = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


# -- the bench -------------------------------------------------------------------------------------


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waited for something")


class Direct:
    """A backend on one connection. Bodies run on the caller's thread, in its open transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    async def read(self, fn: Callable[[Any], T], *, op: str) -> T:
        return self.look(fn)

    def stats(self) -> dict[str, Any]:
        return {}

    def look(self, fn: Callable[[Any], T]) -> T:
        tx = Snapshot(self.connection)
        try:
            return fn(tx)
        finally:
            tx.end()

    def change(self, fn: Callable[[Any], T]) -> T:
        tx = WriteTransaction(self.connection, NOW_MS, 1)
        try:
            return fn(tx)
        finally:
            tx.end()


class Bench:
    """A database in memory with a session in it that no import may touch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connection = apsw.Connection(":memory:", statementcachesize=256)
        _common(self.connection)
        drain(self.connection, "PRAGMA auto_vacuum = incremental")
        self.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
        drain(self.connection, schema.schema_text())
        columns = "host, boot_id, pid, pid_started, program, opened_at_ms"
        insert = f"INSERT INTO instance ({columns}) VALUES ('h', 'b', 1, 1, 'fuzz', 1)"
        drain(self.connection, insert)
        self.backend = Direct(self.connection)
        self.tried = 0
        self.entries = 0
        self.kept = 0
        self.counter = itertools.count(1)
        neighbour = (
            b'{"type":"session","version":3,"id":"neighbour"}\n'
            b'{"type":"message","id":"a","message":{"role":"user","content":"x"}}\n'
        )
        self._store(self._found("neighbour.jsonl", neighbour))
        self.neighbour = self._rows_of_neighbour()

    def close(self) -> None:
        self.connection.close(True)

    def _rows_of_neighbour(self) -> list[Any]:
        queries = (
            "SELECT * FROM session WHERE session_no = 1",
            "SELECT * FROM entry WHERE entry_no >> 32 = 1",
            "SELECT * FROM epoch WHERE session_no = 1",
            "SELECT * FROM branch WHERE session_no = 1",
            "SELECT * FROM import_file WHERE import_file_no = 1",
            "SELECT * FROM quarantine WHERE import_file_no = 1",
        )
        return [self.connection.execute(query).fetchall() for query in queries]

    def _found(self, name: str, content: bytes) -> SourceFile:
        path = self.folder / name
        path.write_bytes(content)
        status = path.stat()
        inode = f"{status.st_dev}:{status.st_ino}"
        return SourceFile(
            str(path), name, "pi", None, len(content), inode, NOW_MS, str(self.folder)
        )

    def _store(self, file: SourceFile) -> None:
        for batch in jsonl_reader.read_batches(file.path, self._place(file)):
            self.backend.change(lambda tx, batch=batch: source.store_batch(tx, file, batch))
        self._place_early(file)

    def _place_early(self, file: SourceFile) -> None:
        """Place the entries that stand before their parents, as an import does at a file's end."""
        roots: early_lines.Roots | None = None
        change, look = self.backend.change, self.backend.look
        while True:
            lines = look(lambda tx: early_lines.next_lines(tx, file.path))
            if lines is not None:
                step = partial(
                    source.store_early, file=file, lines=lines, drafts=early_lines.parse(lines)
                )
                change(step)
                continue
            late = look(lambda tx: early_lines.next_late(tx, file.path))
            if late is not None:
                after_no: int | None = min(late.branches)
                while after_no is not None:
                    after_no = look(
                        partial(early_lines.next_branches, late=late, after_no=after_no)
                    )
                change(partial(source.repeat_late, file=file, late=late))
                while not late.is_over():
                    change(partial(source.repeat_late, file=file, late=late))
                continue
            roots = look(partial(early_lines.next_roots, path=file.path, before=roots))
            if roots is None:
                break
            change(partial(early_lines.become_roots, roots=roots))
        change(partial(source.end_early, file=file, last=True))

    def _place(self, file: SourceFile) -> jsonl_reader.Place:
        known = self.backend.look(
            lambda tx: tx.all("import_file.known", paths=json.dumps([file.path]))
        )
        return source.place_of(known[0] if known else None)

    def row(self, file: SourceFile) -> Any:
        return self.backend.look(lambda tx: tx.one("import_file.by_path", path=file.path))

    # -- one input ---------------------------------------------------------------------------------

    def check(self, content: bytes, *, cut: int | None = None) -> None:
        """Import a file and check everything. With `cut`, import the part before it first.

        Raises:
            Broken: a promise does not hold. Any other exception is one too.
        """
        self.tried += 1
        drain(self.connection, "BEGIN")
        try:
            if cut is not None:
                self._check_growth(content, cut)
            else:
                file = self._found("one.jsonl", content)
                self._store(file)
                self._check_stored(file, content)
                self._check_session(file, content)
                self._go_on(file, random.Random(len(content)))
            require(self._rows_of_neighbour() == self.neighbour, "another session was touched")
        finally:
            drain(self.connection, "ROLLBACK")

    def _check_growth(self, content: bytes, cut: int) -> None:
        self._store(self._found("one.jsonl", content[:cut]))
        file = self._found("one.jsonl", content)
        self._store(file)
        require(
            self.exported(file) == content, "the export of a file that has grown is not the file"
        )
        row = self.row(file)
        require(
            (row.bytes, row.sha256) == (len(content), hashlib.sha256(content).hexdigest()),
            "the receipt is not the file's",
            row,
        )
        if content[cut - 1 : cut] in (b"", b"\n"):
            self._check_stored(file, content)
        self._check_database()

    def _check_stored(self, file: SourceFile, content: bytes) -> None:
        """Check the entries in order and verbatim, the other bytes, the receipt and the export."""
        lines, row = sort_lines(content), self.row(file)
        wanted = [
            line.content.removesuffix(b"\n").decode(errors="replace").encode()
            for line in lines
            if line.kind.startswith("entry")
        ]
        stored = self._payloads(row.session_no)
        early = self.connection.execute(
            "SELECT entry_seq, byte_offset < 0 FROM quarantine"
            " WHERE import_file_no = ? AND severity = 'early'",
            (row.import_file_no,),
        ).fetchall()
        repeated = [seq for seq, is_repeated in early if is_repeated]
        if early:  # these have other places. An export puts them where they were
            first = len(stored) - row.entries
            for seq in sorted(repeated, reverse=True):
                del stored[seq - 1 + first]
            stored, wanted = sorted(stored), sorted(wanted)
        require(
            stored == wanted,
            "the entries are not the intact lines",
            _first_difference(stored, wanted),
        )
        kept = self.connection.execute(
            "SELECT content FROM quarantine WHERE import_file_no = ? AND severity <> 'early'"
            " ORDER BY byte_offset",
            (row.import_file_no,),
        ).fetchall()
        beside = [line.content for line in lines if line.kind != "entry"]
        require(
            bool(early) or b"".join(piece for (piece,) in kept) == b"".join(beside),
            "what is no entry was not kept as it is",
            beside,
            kept,
        )
        has_header = bool(wanted) and row.session_no is not None and self._is_header(row.session_no)
        counts = (row.bytes, row.lines, row.entries, row.sha256)
        # A byte order mark belongs to the first line, unless it is all of the file.
        expected = (
            len(content),
            len(lines) - (content[:3] == BOM and len(lines) > 1),
            len(wanted) - has_header + len(repeated),
            hashlib.sha256(content).hexdigest(),
        )
        require(counts == expected, "the receipt does not add up", counts, expected)
        require(self.exported(file) == content, "the export is not the file")
        require(
            not list(jsonl_reader.read_batches(file.path, self._place(file))),
            "a second import reads something",
        )
        self.entries += len(wanted)
        self.kept += len(beside)

    def _payloads(self, session_no: int | None) -> list[bytes]:
        query = "SELECT CAST(payload AS BLOB) FROM entry WHERE entry_no >> 32 = ? ORDER BY entry_no"
        return [payload for (payload,) in self.connection.execute(query, (session_no,))]

    def _is_header(self, session_no: int) -> bool:
        return bool(
            self.connection.execute(
                "SELECT 1 FROM entry WHERE entry_no = ?", (session_no << 32,)
            ).fetchall()
        )

    def exported(self, file: SourceFile) -> bytes:
        """Return what an export writes for a file."""
        row = self.row(file)

        async def collect() -> bytes:
            parts = imported_bytes(
                self.backend,
                row.first_import_file_no,
                row.session_no,
                row.entries,
                final_newline=bool(row.final_newline),
            )
            return b"".join([part async for part in parts])

        return at_once(collect())

    def _check_session(self, file: SourceFile, content: bytes) -> None:
        """Check that contexts and entries can be read, and that an independent reader agrees."""
        row = self.row(file)
        if row.session_no is not None:
            epoch = self._epoch(row.session_no)
            for past in {0, epoch, *range(max(0, epoch - EPOCHS_READ_MAX), epoch)}:
                self._check_context(row.session_no, past)
            self._check_shown(row.session_no)
            self._check_with_independent_reader(row.session_no, content)
        self._check_database()

    def _epoch(self, session_no: int) -> int:
        [(epoch,)] = self.connection.execute(
            "SELECT epoch FROM session WHERE session_no = ?", (session_no,)
        )
        return int(epoch)

    def _go_on(self, file: SourceFile, chance: random.Random) -> None:
        """Append, branch, reset, fork and compact, as a gateway does. Each works or raises."""
        session_no = self.row(file).session_no
        if session_no is None:
            return
        names = [
            name
            for (name,) in self.connection.execute(
                "SELECT entry_id FROM entry WHERE entry_no >> 32 = ?", (session_no,)
            )
        ]
        sessions_made = [session_no]
        for step in range(GOING_ON_STEPS):
            drain(self.connection, "SAVEPOINT step")
            try:
                self._step(
                    chance,
                    chance.choice(sessions_made),
                    chance.choice(names),
                    f"fork-{step}",
                    sessions_made,
                )
            except SessionDBError:
                drain(self.connection, "ROLLBACK TO step")
            drain(self.connection, "RELEASE step")
        for number in sessions_made:
            self._check_context(number, self._epoch(number))
        self._check_database()

    def _step(
        self, chance: random.Random, number: int, entry_id: str, new_id: str, created: list[int]
    ) -> None:
        stamp = "2026-01-01T00:00:00.000Z"
        match chance.randrange(6):
            case 0:
                self.backend.change(lambda tx: registry.branch(tx, number, entry_id, stamp))
            case 1:
                self.backend.change(
                    lambda tx: registry.reset(
                        tx, number, reason="reset", keep_from=entry_id, timestamp=stamp
                    )
                )
            case 2:
                fork = {
                    "session_id": new_id,
                    "entry": entry_id,
                    "epoch": None,
                    "key": None,
                    "cwd": None,
                }
                created.append(
                    self.backend.change(lambda tx: registry.fork(tx, number, **fork)).session_no
                )
            case 3:
                self.backend.change(lambda tx: compaction.undo(tx, number))
            case 4:
                options = {
                    "trigger": "manual",
                    "keep_recent_tokens": chance.choice((0, 1, 100)),
                    "timeout_ms": 1_000,
                }
                job = self.backend.change(lambda tx: begin_in(tx, number, **options))
                self.backend.look(
                    lambda tx: (
                        compaction.read_kept(tx, job)
                        if job.cut_no is None
                        else compaction.read_span(tx, job)
                    )
                )
                self.backend.change(
                    lambda tx: compaction.commit(
                        tx, job.compaction_id, compaction.Summary.of("short"), stamp
                    )
                )
            case _:
                role = chance.choice(("user", "assistant", "toolResult"))
                draft = draft_entry(
                    {"role": role, "content": "and on", "toolCallId": entry_id}, now_ms=NOW_MS
                )
                self.backend.change(lambda tx: append.append(tx, number, [draft]))

    def _check_context(self, session_no: int, epoch: int) -> None:
        context = self.backend.look(lambda tx: read_context(tx, session_no, epoch))
        require(
            all(isinstance(message, dict) for message in context.messages),
            "a context holds something else than messages",
        )
        require(
            len(json.loads(context.as_json(), parse_int=len)) == len(context.messages),
            "a context as JSON is another one",
        )
        require(
            # A thinking level that an entry does not name is none of pi's either.
            {"messages", "model"}
            <= set(json.loads(context.as_pi_json(), parse_int=len))
            <= {"messages", "thinkingLevel", "model"},
            "pi's context is not one",
        )

    def _check_shown(self, session_no: int) -> None:
        rows = self.backend.look(
            lambda tx: paths.read_all_entries(tx, session_no, after_no=None, limit=1_000)
        )
        for entry in (Entry(**row._asdict()) for row in rows):
            message = [
                escape(title_of(entry)),
                at(written_at_ms(entry)),
                *(escape_lines(part.text) for part in parts_of(entry)),
            ]
            require(
                not any(_UNSAFE_IN_LINES.search(text) for text in message),
                "a control character reaches the terminal",
                message,
            )
            json.loads(entry_json(entry), parse_int=len)

    def _check_with_independent_reader(self, session_no: int, content: bytes) -> None:
        # It would also read a line that is nested more deeply than sessiondb accepts.
        read = roundtrip._context_of(
            b"".join(line.content for line in sort_lines(content) if line.kind.startswith("entry"))
        )
        require(read is not None, "the independent reader finds no entry")
        assert read is not None
        context = self.backend.look(lambda tx: read_context(tx, session_no))
        differences = roundtrip._differences(
            roundtrip._decoded(context.parts), context.model, context.thinking_level, *read
        )
        require(not differences, "an independent reader sees another context", differences)

    def _check_database(self) -> None:
        backend: Any = self.backend  # as much of a backend as `verify` needs
        report = at_once(verify.run(backend, None, deep=True))
        errors = [finding for finding in report.findings if finding.severity == "error"]
        require(not errors, "verify finds broken invariants", errors)


def _first_difference(found: list[bytes], wanted: list[bytes]) -> object:
    pairs = itertools.zip_longest(found, wanted)
    return next(((place, *pair) for place, pair in enumerate(pairs) if pair[0] != pair[1]), None)
