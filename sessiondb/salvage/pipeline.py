"""Get every readable entry out of a damaged file, into a new database, and say what is missing.

    read       rows as they lie, from whatever pages can be read (`sqlite/damaged_file.py`), into the tables of a new database
    mend       rows that others refer to and that are lost are made again, as far as the others tell
    judge      each session is verified; one that is whole stays exactly as it was read
    rebuild    one that is not is told again from the texts of its entries, by the code that appends and imports
    settle     messages, turns, replies, receipts: each gets the state that what is left allows
    verify     the new database, all of it; only then it gets its name

What is kept: session and entry numbers, ids, the exact texts, order of arrival. Where an entry is lost, a `custom` entry
stands in its place, with its id if a later entry names it and whatever could be read of its text: so the path of its successors
holds together, and whoever reads the transcript sees the gap. Such an entry never reaches a model. A lost user message
that the inbox still has is told from there.

An accepted message is never dropped, whatever else of its session is lost: a session is made for it, if need be. Numbers
that were given out (of turns, of messages) are not given out again.

Nothing is added up that could be derived: sums, positions, branches, epochs and counters of a rebuilt session come from its
texts alone. A compaction that was undone stays undone if its epochs could be read.

A crash leaves the temporary file of the new database and nothing else; the damaged file is never written. In memory are a
transaction's rows, what is reported (bounded), and the ids of entries that the index has and the table has not.

The file is long and one idea, in the order above: what a row must agree with, and what becomes of it when it cannot.
"""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from sessiondb.backend import Row, Tx
from sessiondb.clock import iso_from_ms, now_ms
from sessiondb.errors import ConstraintFailed, InvalidInput, InvalidKey, NotASessionDB
from sessiondb.json_text import DamagedLine, dumps
from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.maintenance import archive_format, verify
from sessiondb.models import Finding
from sessiondb.transcript import append, paths
from sessiondb.transcript.entries import Draft, new_id, parse_line
from sessiondb.transcript.keys import parse_key
from sessiondb.transcript.replay import replay

T = TypeVar("T")

# Rows of one transaction, and of one page.
BATCH_ROWS: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
SESSION_NO_MAX: Final = (1 << 31) - 1
# Below this no number can be; tables are read from here on. (Entries that are set aside have negative numbers.)
FIRST_NUMBER: Final = -(1 << 62)
# What is told one by one; the rest is counted.
TOLD_MAX: Final = 1_000
# A missing number is marked only where the file is large enough to have held so many rows.
GAP_FLOOR: Final = 10_000
# Of a lost entry's text that can be read, so much is kept for its mark.
FRAGMENT_CHARS: Final = 64 * 1024
FRAGMENTS_CHARS: Final = 16 * 1024 * 1024
# How far behind a lost entry its successor is looked for.
LOOK_AHEAD: Final = 1_000

NO_HEADER_KNOWN: Final = "whether its file had a header, seq 0, is not known"

MARK: Final = "sessiondb.salvage.pipeline"
"""The `customType` of the entry that stands for a lost one."""

_INBOX_KEY: Final = re.compile(r"inbox:(\d{1,18})")
_NUMBERED: Final = {
    "branch": "branch_no",
    "turn": "turn_no",
    "inbox": "inbox_no",
    "outbox": "outbox_no",
    "event": "event_no",
}


class Source(Protocol):
    """What rows come from: `sqlite.damaged.DamagedFile`."""

    path: str
    bytes: int
    page_size: int
    count: int
    notes: list[str]
    spots: list[Any]
    spots_more: int
    wal: Any

    def rows(self) -> Iterator[Any]:
        """Yield what could be read and what could not."""

    def evidence(self) -> Iterator[Any]:
        """Yield what the indexes know of rows."""


class Target(Protocol):
    """Where they go: `sqlite.rebuild.NewDatabase`."""

    path: str

    def write(self, fn: Callable[[Any], T], *, now_ms: int) -> T:
        """Run a transaction."""

    def read(self, fn: Callable[[Any], T]) -> T:
        """Run a read."""

    def raise_sequence(self, table: str, number: int) -> int:
        """See that numbers are not given out again."""

    def finish(self) -> None:
        """Give the database its name."""


# -- the report ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class TableReport:
    """What became of one table's rows."""

    table: str
    found: int = 0
    """Read, and in the new database."""
    expected: int | None = None
    """How many there should be, where a counter tells."""
    broken: int = 0
    """There, but they could not be read whole."""
    left_out: int = 0
    """Read, but they contradict what else is there."""
    created: int = 0
    """Made again from what others say."""


@dataclass(frozen=True, slots=True)
class SessionReport:
    """A session that is not as it was."""

    session_no: int
    session_id: str
    expected: int
    """Entries, the header included, as its counter and its gaps say."""
    found: int
    missing: tuple[tuple[int, int], ...]
    """Ranges of seq, both ends included."""
    outcome: str
    """rebuilt, archive opened, left out, ..."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A page that could not be read, or a row on one."""

    page: int
    table: str | None
    what: str


@dataclass(slots=True)
class SalvageReport:
    """What was got out of a damaged file, and what is missing."""

    source: str
    destination: str
    pages: int = 0
    page_size: int = 0
    wal: str = "none"
    """none, empty, whole, torn (read up to its damage), unusable, foreign (another database's), or ignored."""
    wal_frames: int = 0
    notes: list[str] = field(default_factory=list)
    tables: list[TableReport] = field(default_factory=list)
    sessions: int = 0
    entries: int = 0
    damaged_sessions: list[SessionReport] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Single things that are gone or were changed, a sentence each."""
    more: int = 0
    """Things that are not listed because there are too many."""
    findings: list[Finding] = field(default_factory=list)
    """What `verify` says of the new database: nothing, unless there is a bug."""

    @property
    def missing_entries(self) -> int:
        """How many entries are known to be missing."""
        return sum(
            high - low + 1 for session in self.damaged_sessions for low, high in session.missing
        )

    @property
    def complete(self) -> bool:
        """Whether everything is out, and as it was."""
        damage = (self.unreadable, self.lost, self.damaged_sessions, self.more, self.findings)
        return (
            not any(damage)
            and self.wal not in ("torn", "unusable", "foreign")
            and not any(t.broken or t.left_out for t in self.tables)
        )


# -- the whole -------------------------------------------------------------------------------------------------


def run(
    source: Source, target: Target, *, progress: Callable[[str], None] = lambda _: None
) -> SalvageReport:
    """Build the new database and say what is in it. `progress` hears what is being done.

    Raises:
        NotASessionDB: there is not one row in the file that sessiondb could have written.
    """
    return _Salvage(source, target, progress).run()


class _Salvage:
    def __init__(self, source: Source, target: Target, progress: Callable[[str], None]) -> None:
        self.source, self.target, self.progress = source, target, progress
        self.now_ms = now_ms()
        self.report = SalvageReport(source.path, target.path)
        self.tables: dict[str, TableReport] = {}
        self.numbers: Counter[str] = Counter()  # the highest number given out, by table
        self.sequences: set[str] = set()  # tables whose last number could be read
        self.fragments: dict[int, dict[str, Any]] = {}
        self.fragment_chars = 0
        self.lost_inputs: dict[
            int, int
        ] = {}  # entry number -> message, for entries that are not there
        self.entries_expected = 0
        self.made_sessions: set[int] = set()
        self.homeless_no: int | None = None  # the session of what names none that can be
        self.lost_entries: dict[
            int, dict[int, str]
        ] = {}  # by session, by seq: the ids that the index still has
        self.lost_sessions: dict[int, str] = {}
        # However many numbers are missing in a row, the file had room for no more rows than this.
        self.gap_max = GAP_FLOOR + source.count * source.page_size // 64

    def run(self) -> SalvageReport:
        self.progress("reading pages")
        self._read()
        if not any(
            table.found for name, table in self.tables.items() if name not in ("lane", "instance")
        ):
            raise NotASessionDB(
                f"{self.source.path}: no row that sessiondb wrote was found in this file. Nothing was made."
            )
        self.progress("mending references")
        self._mend()
        self.progress("checking sessions")
        self._raise_numbers()  # before branches are made again
        self._judge()
        self.progress("settling messages, turns and replies")
        self._settle()
        self._raise_numbers()
        if count := self.change("cap_cursors"):
            self.lose(
                f"{count} consumers of events had handled events that were never written; they go on with the next one"
            )
        self.progress("verifying the new database")
        self._verify()
        self._tell()
        self.target.finish()
        return self.report

    # -- small things

    def table(self, name: str) -> TableReport:
        return self.tables.setdefault(name, TableReport(name))

    def lose(self, sentence: str) -> None:
        """Remember one thing that is gone, or changed."""
        if len(self.report.lost) < TOLD_MAX:
            self.report.lost.append(sentence)
        else:
            self.report.more += 1

    def write(self, fn: Callable[[Any], T]) -> T:
        return self.target.write(fn, now_ms=self.now_ms)

    def change(self, statement: str, **params: Any) -> int:
        changed: int = self.write(lambda tx: tx.run(f"salvage.{statement}", **params))
        return changed

    def pages(self, statement: str, key: str, first: Any = FIRST_NUMBER - 1) -> Iterator[Row]:
        """Yield every row of a paged statement; the table may change meanwhile."""
        after = first
        while True:
            rows = self.target.read(
                lambda tx: tx.all(f"salvage.{statement}", after=after, limit=BATCH_ROWS)  # noqa: B023  # run at once
            )
            yield from rows
            if len(rows) < BATCH_ROWS:
                return
            after = getattr(rows[-1], key)

    def owners(self, statement: str, key: str) -> Iterator[Row]:
        """Yield the rows of a statement that finds the next owner of something."""
        after = FIRST_NUMBER - 1
        while True:
            row = self.target.read(lambda tx: tx.first(f"salvage.{statement}", after=after))  # noqa: B023  # run at once
            if row is None:
                return
            yield row
            after = getattr(row, key)

    # -- read

    def _read(self) -> None:
        for batch in _batches(self.source.rows()):
            self.write(lambda tx: self._take_all(tx, batch))  # noqa: B023  # run at once
        for batch in _batches(self.source.evidence()):
            self.write(lambda tx: self._compare_all(tx, batch))  # noqa: B023  # run at once
        for spot in self.source.spots:
            self._unreadable(spot.page, spot.table, _where(spot))
        self.report.more += self.source.spots_more

    def _take_all(self, tx: Tx, batch: list[Any]) -> None:
        for row in batch:
            self._take(tx, row)

    def _take(self, tx: Tx, row: Any) -> None:
        if hasattr(row, "reason"):
            self._take_broken(row)
            return
        values = row.values
        if row.table == "sqlite_sequence":
            self._given_out(values["name"], values["seq"])
            self.sequences.add(values["name"])
            return
        number = _NUMBERED.get(row.table)
        first = next(iter(values.values()))
        # What stands behind the last number that SQLite can count to leaves none to give out.
        if isinstance(first, int) and (
            first < FIRST_NUMBER or (number is not None and first >= -FIRST_NUMBER)
        ):
            self.table(row.table).left_out += 1
            self.lose(
                f"a row of {row.table} ({_name(row.table, values)}) was left out: its number was never given out"
            )
            return
        try:
            added = tx.run(f"salvage.put_{row.table}", **values)
        except (ConstraintFailed, InvalidInput) as error:
            if not row.stray:
                self.table(row.table).left_out += 1
                self.lose(
                    f"a row of {row.table} ({_name(row.table, values)}) was left out: {error}"
                )
            return
        if not added:
            if not row.stray:
                self.table(row.table).left_out += 1
                self.lose(
                    f"a row of {row.table} ({_name(row.table, values)}) was left out: another row has the same key"
                )
            return
        self.table(row.table).found += 1
        if number is not None:
            self._given_out(row.table, values[number])
        if row.table == "entry" and (
            match := _INBOX_KEY.fullmatch(values["idempotency_key"] or "")
        ):
            self._given_out("inbox", int(match[1]))
        if row.table == "inbox":
            self._given_out("turn", values["turn_no"])

    def _given_out(self, table: Any, number: Any) -> None:
        if table in _NUMBERED and isinstance(number, int) and 0 < number < 1 << 62:
            self.numbers[table] = max(self.numbers[table], number)

    def _compare_all(self, tx: Tx, batch: list[Any]) -> None:
        for known in batch:
            getattr(self, f"_compare_{known.table}")(tx, **known.values)

    def _compare_session(self, tx: Tx, session_id: Any, session_no: Any) -> None:
        if (
            isinstance(session_id, str)
            and isinstance(session_no, int)
            and tx.first("salvage.session", session_no=session_no) is None
        ):
            self.lost_sessions[session_no] = session_id

    def _compare_entry(self, tx: Tx, session_no: Any, entry_id: Any, entry_no: Any) -> None:
        sound = (
            isinstance(entry_id, str)
            and isinstance(entry_no, int)
            and entry_no >> SEQ_BITS == session_no
        )
        if sound and tx.first("verify.place", entry_no=entry_no) is None:
            self.lost_entries.setdefault(session_no, {})[entry_no & SEQ_MAX] = entry_id

    def _compare_inbox(self, tx: Tx, channel: Any, event_id: Any, inbox_no: Any) -> None:
        if (
            not isinstance(inbox_no, int)
            or tx.first("salvage.inbox_payload", inbox_no=inbox_no) is not None
        ):
            return
        self._given_out("inbox", inbox_no)
        self.lose(
            f"message {inbox_no} was accepted from {channel} as {event_id}, and its text is lost: have it sent again"
        )

    def _compare_binding(self, tx: Any, session_no: Any, session_key: Any) -> None:
        if not isinstance(session_no, int) or not isinstance(session_key, str):
            return
        if tx.first("registry.by_key", session_key=session_key) is not None:
            return
        try:
            agent_id = parse_key(session_key).agent_id
        except InvalidKey:
            return
        bound = {
            "session_key": session_key,
            "session_no": session_no,
            "agent_id": agent_id,
            "bound_at_ms": self.now_ms,
        }
        if tx.run("salvage.put_binding", **bound, details=None):
            self.table("binding").created += 1
            self.lose(
                f"the row of key {session_key} is lost; bound again to session number {session_no}, as the index says"
            )

    def _take_broken(self, row: Any) -> None:
        self.table(row.table).broken += 1
        name = _name(row.table, {**row.values, **({} if row.key is None else {"": row.key})})
        if row.table == "entry" and row.key is not None:
            name = f"session number {row.key >> SEQ_BITS}, seq {row.key & SEQ_MAX}"
            self._keep_fragment(row)
        self._unreadable(row.page, row.table, f"{name}: {row.reason}")

    def _keep_fragment(self, row: Any) -> None:
        text = row.values.get("payload")
        text = (
            text.decode("utf-8", "replace")
            if isinstance(text, bytes)
            else text
            if isinstance(text, str)
            else ""
        )
        text = text[:FRAGMENT_CHARS]
        if self.fragment_chars + len(text) > FRAGMENTS_CHARS:
            return
        self.fragment_chars += len(text) + 64
        entry_id = row.values.get("entry_id")
        self.fragments[row.key] = {
            "reason": row.reason,
            "id": entry_id if isinstance(entry_id, str) else None,
            "text": text,
        }

    def _unreadable(self, page: int, table: str | None, what: str) -> None:
        if len(self.report.unreadable) < TOLD_MAX:
            self.report.unreadable.append(Unreadable(page, table, what))
        else:
            self.report.more += 1

    # -- mend: rows that others refer to

    def _mend(self) -> None:
        self._open_chunks_without_archive()
        for session_no in sorted(self.lost_sessions.keys() | self.lost_entries.keys()):
            self._make_session(session_no, "entry in an index")
        for row in self._entry_owners():
            if self.target.read(lambda tx: tx.first("verify.exists", session_no=row)) is None:  # noqa: B023  # run at once
                self._make_session(row, "entries")
        for row in self.pages("inbox", "inbox_no"):
            if row.found_session_no is None and not self._make_session(
                row.session_no, f"message {row.inbox_no}"
            ):
                self._take_in("inbox", row.inbox_no, row.session_no)
            if row.found_lane is None:
                self._make_lane(row.lane)
            if (
                row.entry_no is not None
                and row.found_entry_no is None
                and row.archived_at_ms is None
            ):
                self.lost_inputs[row.entry_no] = row.inbox_no
        for row in self.pages("outbox", "outbox_no"):
            if row.found_session_no is None and not self._make_session(
                row.session_no, f"reply {row.outbox_no}"
            ):
                self._take_in("outbox", row.outbox_no, row.session_no)
        for row in self.pages("archives", "archive_no"):
            if row.found_session_no is None:
                self._make_session(row.session_no, f"archive {row.archive_no}")
        for row in self.pages("turns", "turn_no"):
            self._mend_turn(row)
        self._drop_what_hangs()

    def _entry_owners(self) -> Iterator[int]:
        owner: int | None = 0
        while owner is not None:
            after = owner << SEQ_BITS | SEQ_MAX
            row = self.target.read(lambda tx: tx.first("verify.next_owner", after_entry_no=after))  # noqa: B023  # run at once
            owner = row.owner_no if row is not None else None
            if owner is not None:
                yield owner

    def _make_session(self, session_no: int, why: str) -> bool:
        """Make the row of a lost session; its entries, if there are any, say the rest."""
        if not 1 <= session_no <= SESSION_NO_MAX:
            return False
        if (
            self.target.read(lambda tx: tx.first("salvage.session", session_no=session_no))
            is not None
        ):
            return True
        header = self.target.read(
            lambda tx: tx.first("salvage.header", entry_no=session_no << SEQ_BITS)
        )
        fields = _object(header.payload) if header is not None else {}
        message, version = fields.get("id"), fields.get("version")
        if session_no in self.lost_sessions:
            message = self.lost_sessions[session_no]
        session_id = (
            message
            if isinstance(message, str) and 0 < len(message) <= 255
            else f"salvaged-{session_no}"
        )
        if (
            self.target.read(lambda tx: tx.first("salvage.taken", session_id=session_id))
            is not None
        ):
            session_id = f"salvaged-{session_no}"
        version = version if isinstance(version, int) and 1 <= version <= 4 else 3
        at_ms = header.appended_at_ms if header is not None else self.now_ms
        self.change(
            "make_session",
            session_no=session_no,
            session_id=session_id,
            version=version,
            at_ms=at_ms,
        )
        self.table("session").created += 1
        self.made_sessions.add(session_no)
        self.lose(
            f"the row of session number {session_no} is lost; made again as {session_id} for its {why}"
        )
        return True

    def _take_in(self, table: str, number: int, session_no: int) -> None:
        """Give a message or a reply another session: the number of its own cannot be one's."""
        if self.homeless_no is None:
            last_no = self.target.read(lambda tx: tx.one("verify.last_session")).session_no
            self.homeless_no = last_no + 1 if last_no < SESSION_NO_MAX else last_no
            self._make_session(self.homeless_no, "messages and replies that have no other")
        self.change(f"move_{table}", number=number, session_no=self.homeless_no)
        self.lose(
            f"row {number} of {table} named session number {session_no}, which cannot be one; it has number {self.homeless_no} now"
        )

    def _make_lane(self, lane: str) -> None:
        if self.change("make_lane", lane=lane):
            self.table("lane").created += 1
            self.lose(
                f"the settings of lane {lane!r} are lost; it runs one turn at a time now (see db.set_lane())"
            )

    def _make_instance(self, instance_no: int) -> None:
        if self.change(
            "make_instance", instance_no=instance_no, host=socket.gethostname(), now_ms=self.now_ms
        ):
            self.table("instance").created += 1

    def _mend_turn(self, row: Row) -> None:
        if row.found_session_no is None:
            self.change("drop_turn", turn_no=row.turn_no)
            self.table("turn").left_out += 1
            self.lose(
                f"turn {row.turn_no} was left out: nothing else is left of its session, number {row.session_no}"
            )
            return
        if row.found_lane is None:
            self._make_lane(row.lane)
        if row.found_instance_no is None:
            self._make_instance(row.instance_no)
        if row.expires_at_ms > row.deadline_ms:
            self.change("set_turn_lease", turn_no=row.turn_no)

    def _drop_what_hangs(self) -> None:
        for row in self.pages("bindings", "session_key", ""):
            if row.found_session_no is None:
                self.change("drop_binding", session_key=row.session_key)
                self.table("binding").left_out += 1
                self.lose(
                    f"key {row.session_key} was bound to session number {row.session_no}, of which nothing is left"
                )
        for row in self.pages("branches", "branch_no"):
            if row.found_session_no is None:
                self.change("drop_branches", session_no=row.session_no)
                self.table("branch").left_out += 1
        for row in self.owners("next_epoch_owner", "session_no"):
            if row.found_session_no is None:
                self.change("drop_epochs", session_no=row.session_no)
                self.table("epoch").left_out += 1
                self.lose(
                    f"epochs of session number {row.session_no} were left out: nothing else is left of it"
                )
        for row in self.pages("compactions", "compaction_no"):
            if row.found_session_no is None:
                self.change("forget_job", compaction_no=row.compaction_no)
                self.table("compaction").left_out += 1
                self.lose(
                    f"compaction {row.compaction_no} was left out: nothing else is left of its session"
                )
            elif row.instance_no is not None and row.found_instance_no is None:
                self.change("set_compaction", compaction_no=row.compaction_no)
        for row in self.owners("next_quarantined", "import_file_no"):
            if row.found_import_file_no is None:
                self.table("quarantine").left_out += self.change(
                    "drop_quarantine", import_file_no=row.import_file_no
                )
                self.lose(
                    f"quarantined lines of import {row.import_file_no} were left out: its receipt is lost"
                )

    # -- judge, and rebuild

    def _judge(self) -> None:
        after_no = 0
        while rows := self.target.read(
            lambda tx: tx.all("salvage.sessions", after_no=after_no, limit=BATCH_ROWS)  # noqa: B023
        ):
            for row in rows:
                if row.forked_from_no is not None and row.found_forked_from_no is None:
                    self.change("lose_parent", session_no=row.session_no)
                    self.lose(
                        f"session {row.session_id}: the session that it was forked from is lost"
                    )
                self._judge_one(row)
            after_no = rows[-1].session_no

    def _judge_one(self, row: Row) -> None:
        outcome = "rebuilt"
        if row.archived_at_ms is not None:
            found = [one for one in self._findings(row.session_no) if one[2] == "error"]
            if not found:
                return
            self._open_archive(row.session_no, row.session_id)
            outcome = "archive opened"
        seen, missing = self._gaps(row)
        expected = seen + sum(high - low + 1 for low, high in missing)
        self.entries_expected += expected
        inputs = {no for no in self.lost_inputs if no >> SEQ_BITS == row.session_no}
        inputs |= {
            row.session_no << SEQ_BITS | seq
            for seq in self.lost_entries.get(row.session_no, ())
            if self._may_be(row, seq)
        }
        errors = [
            what for _, what, severity in self._findings(row.session_no) if severity == "error"
        ]
        if not errors and not missing and outcome == "rebuilt":
            self.report.entries += seen
            return
        rebuild = _Rebuild(self, row.session_no, inputs)
        notes = rebuild.run()
        if rebuild.damaged:
            seen, missing = seen - len(rebuild.damaged), _with(missing, rebuild.damaged)
        if (
            row.origin == "import"
            and any(low <= 1 for low, _ in missing)
            and not self.had_header(row.session_no)
        ):
            notes = [NO_HEADER_KNOWN, *notes]
        still = [
            f"{check}: {what}"
            for check, what, severity in self._findings(row.session_no)
            if severity == "error"
        ]
        if still:
            self._leave_out(row)
            outcome, notes = "left out", [*notes, *still[:10]]
        else:
            self.report.entries += seen
        self.report.damaged_sessions.append(
            SessionReport(
                row.session_no,
                row.session_id,
                expected,
                seen,
                tuple(missing),
                outcome,
                tuple(notes[:20]),
            )
        )

    def _findings(self, session_no: int) -> list[tuple[str, str, Any]]:
        walk = verify.SessionWalk(session_no, deep=True)
        try:
            _take_steps(self.target, walk.steps())
        except verify.UNREADABLE as error:
            walk.add("file", f"{type(error).__name__}: {error}")
        return walk.found

    def _gaps(self, row: Row) -> tuple[int, list[tuple[int, int]]]:
        """Return how many entries of a session are there, and which are not, its counter's included."""
        seen, missing = 0, []
        due = -1 if row.origin == "import" and not self.had_header(row.session_no) else 0
        low_no, high_no = row.session_no << SEQ_BITS, row.session_no << SEQ_BITS | SEQ_MAX
        while True:
            page = self.target.read(
                lambda tx: tx.tuples(
                    "salvage.numbers",
                    low_no=low_no,  # noqa: B023  # run at once
                    high_no=high_no,
                    limit=BATCH_ROWS,
                )
            )
            for (number,) in page:
                seq = number & SEQ_MAX
                if due == -1:
                    due = min(seq, 1)
                if seq > due:
                    missing.append((due, seq - 1))
                seen, due = seen + 1, seq + 1
            if len(page) < BATCH_ROWS:
                break
            low_no = page[-1][0] + 1
        last = max(
            row.last_seq,
            *(seq for seq in self.lost_entries.get(row.session_no, ()) if self._may_be(row, seq)),
            0,
        )
        if last >= max(due, 1):
            missing.append((max(due, 1) if due == -1 else due, last))
        elif due == 0:
            missing.append((0, 0))
        return seen, missing

    def had_header(self, session_no: int) -> bool:
        """Tell whether an imported session is known to have had a header: its file may have come without one."""
        if 0 in self.lost_entries.get(session_no, ()) or session_no << SEQ_BITS in self.fragments:
            return True
        return (
            self.target.read(lambda tx: tx.first("salvage.counted_header", session_no=session_no))
            is not None
        )

    def _may_be(self, row: Any, seq: int) -> bool:
        """Tell whether a number that an index names can have been given out: the index may be damaged itself."""
        return seq <= row.last_seq or (row.session_no in self.made_sessions and seq <= self.gap_max)

    def _leave_out(self, row: Row) -> None:
        low_no, high_no = row.session_no << SEQ_BITS, row.session_no << SEQ_BITS | SEQ_MAX

        def body(tx: Tx) -> None:
            tx.run("salvage.drop_entries", low_no=low_no, high_no=high_no)
            tx.run("salvage.drop_compactions", session_no=row.session_no)
            tx.run("salvage.drop_branches", session_no=row.session_no)
            tx.run("salvage.drop_epochs", session_no=row.session_no)
            tx.run(
                "salvage.restart",
                session_no=row.session_no,
                head_no=None,
                boundary_no=None,
                first_kept_no=None,
            )

        self.write(body)
        _Rebuild(self, row.session_no, []).run()

    # -- archives

    def _open_archive(self, session_no: int, session_id: str) -> None:
        """Put back what can be read of an archive that is damaged: rows are better than an archive that cannot be restored."""
        archive = self.target.read(lambda tx: tx.first("salvage.archive_of", session_no=session_no))
        self.change("unarchive", session_no=session_no)
        if archive is None:
            self.lose(f"session {session_id}: its archive is lost")
            return
        rows = self._put_chunks(archive.archive_no, session_no, session_id)
        self._drop_archive(archive.archive_no)
        self.lose(
            f"session {session_id}: its archive was damaged; {rows:,} rows were put back into their tables"
        )

    def _drop_archive(self, archive_no: int) -> None:
        self.change("drop_chunks", archive_no=archive_no)
        self.change("drop_archive", archive_no=archive_no)

    def _open_chunks_without_archive(self) -> None:
        for row in self.owners("next_chunk_owner", "archive_no"):
            if row.found_archive_no is None:
                rows = self._put_chunks(row.archive_no, None, None)
                self.change("drop_chunks", archive_no=row.archive_no)
                self.lose(
                    f"archive {row.archive_no}: its row is lost; {rows:,} rows were put back into their tables"
                )

    def _put_chunks(self, archive_no: int, session_no: int | None, session_id: str | None) -> int:
        """Put back the rows of an archive that are whole, and its session's; where its row is lost, those of any."""
        after, count = -1, 0
        while (
            chunk := self.target.read(
                lambda tx: tx.first("salvage.chunk", archive_no=archive_no, after=after)  # noqa: B023  # noqa: B023
            )
        ) is not None:
            after = chunk.chunk_no
            for batch in _batches(self._sound_rows(chunk, session_no, session_id)):
                count += self.write(
                    lambda tx: sum(self._put_row(tx, table, values) for table, values in batch)  # noqa: B023
                )
        return count

    def _sound_rows(
        self, chunk: Row, session_no: int | None, session_id: str | None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for values in archive_format.rows_of(chunk):
            try:
                archive_format.check_row(chunk.what, values, session_no, session_id)
            except archive_format.Wrong as error:
                self.table(chunk.what).left_out += 1
                self.lose(f"a row of {chunk.what} in an archive was left out: it {error}")
            else:
                yield chunk.what, dict(zip(archive_format.COLUMNS[chunk.what], values, strict=True))

    def _put_row(self, tx: Tx, table: str, values: dict[str, Any]) -> int:
        try:
            return tx.run(f"salvage.put_{table}", **values)
        except (ConstraintFailed, InvalidInput, LookupError, TypeError) as error:
            self.table(table).left_out += 1
            self.lose(f"a row of {table} in an archive was left out: {error}")
            return 0

    # -- settle: what a gateway works with

    def _settle(self) -> None:
        for row in self.pages("archives", "archive_no"):
            if row.found_session_no is None:
                self._drop_archive(row.archive_no)
        for row in self.pages("inbox", "inbox_no"):
            self._settle_message(row)
        for row in self.pages("turns", "turn_no"):
            mine = (
                row.found_inbox_no is not None
                and row.inbox_turn_no == row.turn_no
                and row.inbox_state == "claimed"
            )
            if row.state == "running" and not mine:
                self.change(
                    "interrupt_turn",
                    turn_no=row.turn_no,
                    reason="salvaged: its message is lost or was settled",
                )
                self.lose(
                    f"turn {row.turn_no} was running; what it worked on is lost, so it is interrupted now"
                )
        for row in self.pages("outbox", "outbox_no"):
            self._settle_reply(row)
        for row in self.pages("events", "event_no"):
            if row.session_no is not None and row.found_session_no is None:
                self.change("set_event", event_no=row.event_no)
        for row in self.pages("import_files", "import_file_no"):
            self._settle_receipt(row)

    def _settle_message(self, row: Row) -> None:
        state, turn_no, entry_no = row.state, row.turn_no, row.entry_no
        own_turn = (
            row.found_turn_no is not None
            and row.turn_inbox_no == row.inbox_no
            and row.turn_session_no == row.session_no
        )
        if turn_no is not None and not own_turn:
            turn_no = None
        if entry_no is not None and row.archived_at_ms is None:
            lost = row.found_entry_no is None or (row.is_users and row.found_role != "user")
            if lost or entry_no >> SEQ_BITS != row.session_no:
                entry_no = None
        if entry_no is not None and entry_no >> SEQ_BITS != row.session_no:
            entry_no = None
        running = own_turn and row.turn_state == "running"
        if state == "claimed" and not running:
            state = "interrupted"
        if state in ("claimed", "interrupted") and (entry_no is None or row.attempts < 1):
            state, turn_no = "queued", None
        if running and state != "claimed":
            self.change(
                "interrupt_turn", turn_no=row.turn_no, reason="salvaged: its message was settled"
            )
        reason = "salvaged"
        if not row.is_json and state in ("queued", "claimed", "interrupted"):
            # No turn can work on it. Dead, it is shown to a person, who can still read it.
            state, turn_no, reason = "dead", None, "salvaged: its text is damaged"
        if (state, turn_no, entry_no) != (row.state, row.turn_no, row.entry_no):
            self.change(
                "set_inbox",
                inbox_no=row.inbox_no,
                state=state,
                turn_no=turn_no,
                entry_no=entry_no,
                reason=reason,
            )
            self.lose(
                f"message {row.inbox_no} was {row.state}; with what is left of its turn and its entry it is {state} now"
            )

    def _settle_reply(self, row: Row) -> None:
        state, turn_no, instance_no, finished = (
            row.state,
            row.turn_no,
            row.instance_no,
            row.finished_at_ms,
        )
        if row.found_session_no is None:
            return  # its number cannot be a session's: reported by the schema's rules
        if turn_no is not None and (
            row.turn_state != "completed" or row.turn_session_no != row.session_no
        ):
            turn_no = None
        if instance_no is not None and row.found_instance_no is None:
            instance_no = None
        if state == "sending" and (instance_no is None or row.expires_at_ms is None):
            state = "unknown"  # it may have been sent: shown to a person, never sent twice
        if state in ("pending", "sending"):
            finished = None
        elif finished is None:
            finished = row.created_at_ms
        now = (state, turn_no, instance_no, finished)
        if now != (row.state, row.turn_no, row.instance_no, row.finished_at_ms):
            self.change(
                "set_outbox",
                outbox_no=row.outbox_no,
                state=state,
                turn_no=turn_no,
                instance_no=instance_no,
                finished_at_ms=finished,
                reason="salvaged",
            )
            self.lose(
                f"reply {row.outbox_no} was {row.state}; with what is left of its turn and its sender it is {state} now"
            )

    def _settle_receipt(self, row: Row) -> None:
        session_no = row.session_no if row.found_session_no is not None else None
        lines = max(row.lines, row.last_line or 0)
        entries = (
            min(row.entries, row.session_last_seq + 1)
            if row.session_last_seq is not None
            else row.entries
        )
        if (session_no, lines, entries, row.found_quarantined) == (
            row.session_no,
            row.lines,
            row.entries,
            row.quarantined,
        ):
            return
        self.change(
            "set_import_file",
            import_file_no=row.import_file_no,
            session_no=session_no,
            lines=lines,
            entries=entries,
            quarantined=row.found_quarantined,
            note="salvaged: part of what was imported is lost",
        )
        self.lose(
            f"import {row.import_file_no}: of {row.quarantined} quarantined lines there are {row.found_quarantined}"
        )

    def _raise_numbers(self) -> None:
        """See that what was given out stays given out; a restored archive brings its branches' numbers back."""
        if "branch" not in self.sequences:
            for row in self.pages("archives", "archive_no"):
                self._archived_branches(row.archive_no)
        for table in _NUMBERED:
            self.target.raise_sequence(table, self.numbers[table])

    def _archived_branches(self, archive_no: int) -> None:
        after = -1
        while (
            chunk := self.target.read(
                lambda tx: tx.first("salvage.chunk", archive_no=archive_no, after=after)  # noqa: B023
            )
        ) is not None:
            after = chunk.chunk_no
            if chunk.what == "branch":
                for values in archive_format.rows_of(chunk):
                    self._given_out("branch", values[archive_format.KEY[archive_format.BRANCH]])

    # -- verify, and tell

    def _verify(self) -> None:
        walk = verify.Walk(None, deep=True)
        _take_steps(self.target, walk.steps())
        self.report.findings = [finding for finding in walk.findings if finding.severity == "error"]
        self.report.sessions = walk.sessions

    def _tell(self) -> None:
        report, source = self.report, self.source
        report.pages, report.page_size = source.count, source.page_size
        report.wal, report.wal_frames = source.wal.state, source.wal.frames
        report.notes = list(source.notes)
        if source.wal.state == "torn":
            report.notes.append(
                "the WAL is damaged, or ends inside a transaction: only whole rows were taken from behind that"
            )
        if source.wal.state == "unusable":
            report.notes.append(
                "the WAL beside the file cannot be read: what was committed and not yet checkpointed is lost"
            )
        self.table("entry").expected = self.entries_expected
        report.tables = list(self.tables.values())


# -- one session, told again -----------------------------------------------------------------------------------


class _Rebuild:
    """Tells a session again from the texts of its entries, each under its number."""

    def __init__(self, salvage: _Salvage, session_no: int, inputs: Iterable[int]) -> None:
        self.salvage = salvage
        self.session_no = session_no
        self.low_no, self.high_no = session_no << SEQ_BITS, session_no << SEQ_BITS | SEQ_MAX
        self.inputs = sorted(inputs)
        self.notes: list[str] = []
        self.odd: list[str] = []
        self.damaged: list[
            int
        ] = []  # by seq: entries that were read, and whose text is not what it was
        self.session: Any = None
        self.state: Any = None
        self.undone: list[int] = []

    def run(self) -> list[str]:
        """Do it; return what was odd."""
        self.salvage.write(self._begin)
        for batch in _batches(self._places()):
            self.salvage.write(lambda tx: self._place_all(tx, batch))  # noqa: B023  # run at once
        self.salvage.write(self._end)
        if self.undone:
            self.notes.append(
                f"{len(self.undone)} undone compactions are in force again: where they were undone is lost"
            )
        return [*self.notes, *self.odd]

    # -- before the first entry

    def _begin(self, tx: Any) -> None:
        session_no = self.session_no
        self.session = tx.one("salvage.session", session_no=session_no)
        self.undone = [
            row.closed_head_no
            for row in tx.all("salvage.undone_at", session_no=session_no)
            if row.closed_head_no is not None
        ]
        head, boundary = self._fork(tx)
        tx.run("salvage.set_aside_entries", low_no=self.low_no, high_no=self.high_no)
        tx.run("salvage.set_aside_compactions", session_no=session_no)
        tx.run("salvage.drop_branches", session_no=session_no)
        tx.run("salvage.drop_epochs", session_no=session_no)
        kept_no = boundary.first_kept_no if boundary is not None else None
        pointers = {
            "boundary_no": boundary.entry_no if boundary is not None else None,
            "first_kept_no": kept_no,
        }
        tx.run(
            "salvage.restart",
            session_no=session_no,
            head_no=head.entry_no if head is not None else None,
            **pointers,
        )
        tx.now_ms = self.session.created_at_ms
        reason = "fork" if head is not None else "start"
        tx.run(
            "transcript.open_epoch",
            session_no=session_no,
            epoch=0,
            reason=reason,
            now_ms=tx.now_ms,
            **pointers,
        )
        self.state = append.load_state(tx, session_no)
        tx.run(
            "salvage.set_tokens",
            session_no=session_no,
            context_tokens=append.estimate_context(tx, self.state),
        )
        self.state = append.load_state(tx, session_no)

    def _fork(self, tx: Any) -> tuple[Any, Any]:
        """Return where a fork left its origin, and where its context began; None if it is none, or that is lost."""
        session = self.session
        point = tx.first("salvage.fork_point", session_no=self.session_no, low_no=self.low_no)
        if session.forked_from_no is None and (
            point is None or self.session_no not in self.salvage.made_sessions
        ):
            return None, None
        head_no = (
            point.fork_no
            if point is not None
            else session.head_no
            if (session.head_no or self.low_no) < self.low_no
            else None
        )
        head = tx.first("transcript.by_no", entry_no=head_no) if head_no is not None else None
        if head is None or head.branch_no is None:
            self.notes.append("where it was forked from is lost; it stands alone")
            return None, None
        epoch = tx.first("salvage.fork_epoch", session_no=self.session_no)
        boundary_no = epoch.boundary_no if epoch is not None else head.boundary_no
        boundary = (
            tx.first("transcript.by_no", entry_no=boundary_no) if boundary_no is not None else None
        )
        if boundary is not None and not (
            boundary.type in ("compaction", "reset") and paths.on_path(tx, boundary, head.entry_no)
        ):
            boundary = None
        if session.forked_from_no is None:
            tx.run(
                "salvage.set_origin",
                session_no=self.session_no,
                forked_from_no=head.entry_no >> SEQ_BITS,
            )
        return head, boundary

    # -- entry by entry

    def _places(self) -> Iterator[tuple[int, Any]]:
        """Yield each number that an entry had, in order, with what was read of it; None where it is lost."""
        due = 0
        inputs = list(self.inputs)
        for row in self._aside():
            while inputs and inputs[0] < row.entry_no:
                yield from self._up_to(due, inputs[0] & SEQ_MAX)
                due = max(due, (inputs.pop(0) & SEQ_MAX) + 1)
            seq = row.entry_no & SEQ_MAX
            beyond = (
                seq > max(due, self.session.last_seq)
                and self.session_no not in self.salvage.made_sessions
            )
            if beyond or seq - due > self.salvage.gap_max:
                self.salvage.table("entry").left_out += 1
                self.notes.append(
                    f"an entry with seq {seq} was left out: the last one can have had {max(due - 1, self.session.last_seq)}"
                )
                continue
            yield from self._up_to(due, seq - 1)
            yield seq, row
            due = seq + 1
        for number in inputs:
            yield from self._up_to(due, number & SEQ_MAX)
            due = max(due, (number & SEQ_MAX) + 1)
        if due == 0:
            yield 0, None  # nothing is left but the session's row; a header can be made from that

    def _up_to(self, due: int, last: int) -> Iterator[tuple[int, Any]]:
        if last - due > self.salvage.gap_max:
            return
        for seq in range(due, last + 1):
            yield seq, None

    def _aside(self) -> Iterator[Row]:
        high_no = -self.low_no
        while True:
            page = self.salvage.target.read(
                lambda tx: tx.all(
                    "salvage.aside",
                    low_no=-self.high_no,
                    high_no=high_no,  # noqa: B023  # run at once
                    limit=BATCH_ROWS,
                )
            )
            yield from page
            if len(page) < BATCH_ROWS:
                return
            high_no = -page[-1].entry_no - 1

    def _place_all(self, tx: Any, batch: list[tuple[int, Any]]) -> None:
        for seq, row in batch:
            if seq == 0:
                self._place_header(tx, row)
            else:
                self._place(tx, seq, row)
        tx.now_ms = self.session.updated_at_ms
        append.save_state(tx, self.state)

    def _place_header(self, tx: Any, row: Any) -> None:
        draft = self._draft(tx, row) if row is not None else None
        if draft is not None and draft.type == "session":
            tx.now_ms = row.appended_at_ms
        elif (
            row is None
            and self.session.origin == "import"
            and not self.salvage.had_header(self.session_no)
        ):
            return  # an imported file may have come without one
        else:
            if row is not None:
                self.damaged.append(0)
            tx.now_ms = self.session.created_at_ms
            draft = self._made_header()
        # A fork's head lies in its ancestor: the header still is seq 0.
        head_no, self.state.head_no = self.state.head_no, None
        replay(tx, self.state, draft, self.odd)
        self.state.head_no = head_no

    def _made_header(self) -> Draft:
        version, at = self.session.version, iso_from_ms(self.session.created_at_ms)
        fields = {
            "type": "session",
            "version": version,
            "id": self.session.session_id,
            "timestamp": at,
            "cwd": "",
        }
        self.salvage.table("entry").created += 1
        return parse_line(dumps(fields), version)

    def _place(self, tx: Any, seq: int, row: Any) -> None:
        state, number = self.state, self.low_no | seq
        draft = self._draft(tx, row) if row is not None else None
        if draft is None:
            if row is not None:
                self.damaged.append(seq)
            draft = self._made(tx, number, row)
        first = draft.type == "session" and state.last_seq == 0 and state.head_no is None
        if (
            first and tx.first("transcript.by_no", entry_no=self.low_no) is None
        ):  # it would be taken for the header
            replay(tx, state, self._made_header(), self.odd)
        tx.now_ms = row.appended_at_ms if row is not None else tx.now_ms
        receipt = replay(tx, state, draft, self.odd)
        assert receipt.entry_no == number, f"entry {number} was given number {receipt.entry_no}"
        while self.undone and state.head_no == self.undone[0]:
            self.undone.pop(0)
            self._undo(tx)

    def _undo(self, tx: Any) -> None:
        state = self.state
        if state.boundary_no is None:
            return
        job = tx.first(
            "compaction.by_entry", session_no=self.session_no, entry_no=state.boundary_no
        )
        if job is None:
            return
        before = tx.one("transcript.epoch", session_no=self.session_no, epoch=job.epoch - 1)
        append.advance_epoch(tx, state, "undo", before.boundary_no, before.first_kept_no)
        state.context_tokens, state.tokens_fresh = append.estimate_context(tx, state), 0

    def _draft(self, tx: Any, row: Any) -> Draft | None:
        """Read an entry's text again; None when it is damaged."""
        try:
            draft = parse_line(row.payload, self.session.version)
        except DamagedLine:
            return None
        message = _object(row.payload).get("id")
        if not (isinstance(message, str) and message):
            draft.entry_id = row.entry_id
        elif (
            draft.entry_id != row.entry_id
            and self._named_by_child(tx, row.entry_no) == row.entry_id
        ):
            return None  # the text is the damaged one of the two
        draft.idempotency_key = row.idempotency_key
        return draft

    def _named_by_child(self, tx: Any, number: int) -> str | None:
        """Return the id that the text of an entry's successor calls it by."""
        low_no = max(-self.high_no, -number - LOOK_AHEAD)
        child = tx.first(
            "salvage.aside_child", low_no=low_no, high_no=-number - 1, parent_no=number
        )
        message = _object(child.payload).get("parentId") if child is not None else None
        return message if isinstance(message, str) and message else None

    # -- what stands for an entry that is lost

    def _made(self, tx: Any, number: int, row: Any) -> Draft:
        """Return the entry that takes a lost one's place: the message from the inbox, or a mark."""
        self.salvage.table("entry").created += 1
        known = self.salvage.fragments.get(number, {})
        indexed = self.salvage.lost_entries.get(self.session_no, {}).get(number & SEQ_MAX)
        wanted = (
            indexed
            or self._named_by_child(tx, number)
            or (row.entry_id if row is not None else known.get("id"))
        )
        taken = wanted is None or self._is_taken(tx, wanted, number)
        entry_id = new_id() if wanted is None or taken else wanted
        head = {
            "id": entry_id,
            "parentId": self.state.head_id,
            "timestamp": iso_from_ms(self._at_ms(row)),
        }
        return self._from_inbox(tx, number, head) or self._mark(head, row, known)

    def _at_ms(self, row: Any) -> int:
        at_ms = row.appended_at_ms if row is not None else self.session.created_at_ms
        return int(at_ms) if 0 <= at_ms < 253_000_000_000_000 else 0

    def _is_taken(self, tx: Any, entry_id: str, number: int) -> bool:
        found = tx.first("salvage.aside_by_id", aside_no=-self.session_no - 1, entry_id=entry_id)
        return found is not None and found.entry_no != -number

    def _from_inbox(self, tx: Any, number: int, head: dict[str, Any]) -> Draft | None:
        inbox_no = self.salvage.lost_inputs.get(number)
        row = tx.first("salvage.inbox_payload", inbox_no=inbox_no) if inbox_no is not None else None
        if row is None or "role" not in _object(row.payload):
            return None
        text = dumps({"type": "message", **head})[:-1] + ',"message":' + row.payload.strip() + "}"
        try:
            draft = parse_line(text, self.session.version)
        except DamagedLine:
            return None
        draft.idempotency_key = f"inbox:{inbox_no}"
        self.notes.append(
            f"the user message with seq {number & SEQ_MAX} was told again from the inbox"
        )
        return draft

    def _mark(self, head: dict[str, Any], row: Any, known: dict[str, Any]) -> Draft:
        data = {
            "missing": True,
            "reason": known.get("reason")
            or ("its text is damaged" if row is not None else "it could not be read"),
        }
        text = row.payload[:FRAGMENT_CHARS] if row is not None else known.get("text")
        if text:
            data["text"] = text
        return parse_line(
            dumps({"type": "custom", **head, "customType": MARK, "data": data}),
            self.session.version,
        )

    # -- after the last entry

    def _end(self, tx: Any) -> None:
        for job in tx.all("salvage.jobs_aside", session_no=self.session_no):
            self._job(tx, job)
        tx.run("salvage.forget_aside", low_no=-self.high_no, high_no=-self.low_no)
        tx.run(
            "salvage.set_updated",
            session_no=self.session_no,
            updated_at_ms=self.session.updated_at_ms,
        )

    def _job(self, tx: Any, job: Any) -> None:
        if job.state != "committed":
            cut = tx.first("verify.place", entry_no=job.cut_no) if job.cut_no is not None else None
            cut_no = job.cut_no if cut is not None and cut.branch_no is not None else None
            tx.run(
                "salvage.put_job_back",
                compaction_no=job.compaction_no,
                epoch=self.state.epoch,
                cut_no=cut_no,
            )
            return
        tx.run("salvage.forget_job", compaction_no=job.compaction_no)
        values = {name: getattr(job, name) for name in _JOB}
        if not tx.run(
            "salvage.name_job", session_no=self.session_no, entry_no=job.entry_no, **values
        ):
            self.salvage.table("compaction").left_out += 1
            self.notes.append(
                f"compaction {job.compaction_id} is lost: its summary could not be read"
            )


_JOB: Final = (
    "compaction_id",
    "trigger",
    "tokens_before",
    "instance_no",
    "begun_at_ms",
    "deadline_ms",
    "deadline_max_ms",
    "finished_at_ms",
    "reason",
)


# -- small functions -------------------------------------------------------------------------------------------


def _with(ranges: list[tuple[int, int]], numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Add single numbers to ranges; return them in order, joined where they touch."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted([*ranges, *((number, number) for number in numbers)]):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def _batches(rows: Iterable[T]) -> Iterator[list[T]]:
    """Cut a stream into transactions, bounded in rows and in bytes."""
    iterator = iter(rows)
    while batch := list(islice(iterator, 1)):
        size = _size(batch[0])
        while len(batch) < BATCH_ROWS and size < BATCH_BYTES:
            following = next(iterator, None)
            if following is None:
                break
            batch.append(following)
            size += _size(following)
        yield batch


def _size(row: Any) -> int:
    """Return about how many bytes a row of any of the streams here holds: the payload stands last."""
    item = row[1] if isinstance(row, tuple) and len(row) == 2 else row
    values = item if isinstance(item, dict) else getattr(item, "values", None)
    last = (
        next(reversed(values.values()), None)
        if isinstance(values, dict) and values
        else getattr(item, "payload", None)
    )
    return len(last) if isinstance(last, str | bytes) else 64


def _take_steps(target: Target, steps: Any) -> None:
    """Run the steps of a walk; what cannot be read is handed to the walk, as `verify.run` does."""
    failure: Exception | None = None
    while True:
        try:
            step = steps.throw(failure) if failure is not None else next(steps)
        except StopIteration:
            return
        failure = None
        try:
            target.read(step)
        except verify.UNREADABLE as error:
            failure = error


def _object(text: Any) -> dict[str, Any]:
    """Decode a JSON object; {} for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _name(table: str, values: dict[str, Any]) -> str:
    """Name a row for a person: its number, or what else it is known by."""
    if table == "inbox" and values.get("channel") is not None:
        return f"message {values.get('inbox_no')}, {values.get('source')} {values.get('event_id')}"
    number = values.get("entry_no")
    if table == "entry" and isinstance(number, int):
        return f"session number {number >> SEQ_BITS}, seq {number & SEQ_MAX}"
    first = next((str(value) for value in values.values() if value is not None), "unknown")
    return first[:80]


def _where(spot: Any) -> str:
    """Say which rows a page may have held."""
    if spot.low is None and spot.high is None:
        return f"{spot.reason}; it may have held any row"
    if spot.table == "entry":
        low, high = (
            None if number is None else f"{number >> SEQ_BITS}/{number & SEQ_MAX}"
            for number in (spot.low, spot.high)
        )
        return f"{spot.reason}; it may have held entries after {low or 'the first'} up to {high or 'the last'} (session number/seq)"
    low, high = (None if number is None else str(number) for number in (spot.low, spot.high))
    return f"{spot.reason}; it may have held rows after {low or 'the first'} up to {high or 'the last'}"
