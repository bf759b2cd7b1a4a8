"""Writers and readers of one database, for `proofs/crash/test_process_storm.py`.

    python tests/proofs/crash/process_storm.py SETTINGS...

The program imports sessiondb once and forks before anything is open, so that sixteen
processes cost one start. Each of them opens `FOLDER/gateway.db` itself, races for
creating it, and keeps a ledger (`FOLDER/writer3.jsonl`) of its acknowledgements.
Several settings are several storms, one after the other.

**Writers** append numbered entries to shared sessions: one after the other in each
session, some in batches, some a second time. They compact the sessions, accept messages
that another process accepts as well, and run the lane and the outbox. One also
archives. One imports files that grow. Half of them wait for the write lock for 20 ms
only, so that they are refused. Those retry with the same key.

**Readers** (half of them `readonly=True`) check each snapshot: see `check_session`.
Acknowledgements stand on a *board*, memory that all processes share. A reader reads the
board before a snapshot begins, and the snapshot must show as much. So an
acknowledgement that comes before COMMIT, or a commit that others do not see, is found
while it happens.

`Settings.broken` names a way to break the build (`BREAKAGES`). It proves that the storm
finds what it is for. No process is killed here. `proofs/crash/test_gateway_kills.py`
does that.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

import sessiondb
from sessiondb.backend import ReadTx
from sessiondb.errors import CompactionRefused, SessionEnded, StoreBusy, TurnLost
from sessiondb.gateway import changes, claims
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.limits import KIB, SEQ_BITS, SEQ_MAX, Limits
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.models import Receipt, Reply
from sessiondb.sqlite import transaction
from sessiondb.sqlite.connection import drain
from sessiondb.sqlite.transaction import Prepared, Snapshot, WriteTransaction
from sessiondb.sqlite.writer import Writer
from sessiondb.transcript.compaction import GivenUp
from sessiondb.transcript.context import Context, read_context
from sessiondb.transfer import roundtrip
from tests.proofs.crash.breakage import counts_an_append_twice

T = TypeVar("T")

CHATS = 3
LANE_CONCURRENCY = 3
KEEP_TOKENS = 200
# Nothing here takes this long unless something is wrong. On a crowded machine nothing
# may be cut off by a clock.
LONG_S = 600.0
# Each reader looks at least this often while the writers write.
LOOKS_MIN = 3
# A broken build's work may be stuck for ever: so often is looked whether it is done, a
# tenth of a second apart at most.
BROKEN_LOOKS = 300
TIMESTAMP = "2026-01-01T00:00:00.000Z"
# A reader stops counting violations here: a broken build makes many of one kind.
VIOLATIONS_MAX = 20

STATEMENTS = {
    "storm.session": """SELECT s.*, (SELECT count(*) FROM compaction AS c
                                WHERE c.session_no = s.session_no
                                  AND c.state = 'committed') AS committed,
                               (SELECT count(*) FROM epoch AS e
                                 WHERE e.session_no = s.session_no) AS epochs,
                               (SELECT count(*) FROM epoch AS e WHERE e.session_no = s.session_no
                                 AND e.closed_at_ms IS NULL) AS epochs_open
                        FROM session AS s WHERE s.session_id = :session_id""",
    "storm.epoch": "SELECT * FROM epoch WHERE session_no = :session_no AND epoch = :epoch",
    "storm.entries": """SELECT entry_no, branch_no, position, idempotency_key, payload FROM entry
                        WHERE entry_no BETWEEN :low_no AND :high_no ORDER BY entry_no""",
    "storm.view": "SELECT count(*) AS messages FROM live_context WHERE session_id = :session_id",
    "storm.work": """SELECT (SELECT count(*) FROM turn WHERE state = 'running') AS running,
                            (SELECT count(*) FROM inbox WHERE state = 'claimed') AS claimed,
                            (SELECT count(*) FROM inbox AS i JOIN turn AS t ON t.turn_no = i.turn_no
                             WHERE i.state = 'claimed'
                               AND t.state <> 'running') AS claimed_by_nobody,
                            (SELECT count(*) - count(DISTINCT inbox_no) FROM turn
                              WHERE state = 'completed') AS twice,
                            (SELECT count(*) FROM inbox WHERE state = 'done') AS done,
                            (SELECT count(*) FROM turn WHERE state = 'completed') AS completed,
                            (SELECT count(*) FROM outbox) AS replies""",
    "storm.open": """SELECT (SELECT count(*) FROM inbox
                          WHERE state IN ('queued', 'claimed', 'interrupted'))
                          + (SELECT count(*) FROM outbox
                          WHERE state IN ('pending', 'sending')) AS work""",
    "storm.gone": "SELECT session_key FROM binding WHERE agent_id = 'gone' ORDER BY session_key",
}
transaction.statements().update({name: Prepared(name, sql) for name, sql in STATEMENTS.items()})


@dataclass(frozen=True)
class Settings:
    """How large the storm is.

    It is over when `entries` were acknowledged, each writer has its share of messages
    accepted, and each reader has looked a few times while all that went on.
    """

    folder: str
    seed: int = 0
    entries: int = 900
    sessions: int = 3
    writers: int = 8
    readers: int = 8
    messages: int = 6  # accepted by each writer. Each is accepted by two
    maintenance: bool = True  # archive and import, too
    comers: int = 0
    visits: int = 0  # of each comer
    broken: str = ""

    @property
    def path(self) -> Path:
        return Path(self.folder) / "gateway.db"

    def key(self, session: int) -> str:
        return f"agent:talk:storm:channel:{session}"


class Board:
    """Numbers that all processes see, in memory shared by the fork.

    Each number has one process that writes it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        width = settings.sessions + 2
        self._readers_at = 1 + settings.writers * width
        self._memory = memoryview(mmap.mmap(-1, 8 * (self._readers_at + settings.readers))).cast(
            "q"
        )
        self._width = width

    def acknowledged(self, session: int) -> list[int]:
        """Return how many entries each writer knows to be in a session."""
        return [
            self._memory[1 + writer * self._width + session]
            for writer in range(self._settings.writers)
        ]

    def acknowledge(self, writer: int, session: int, count: int) -> None:
        self._memory[1 + writer * self._width + session] += count

    @property
    def total(self) -> int:
        return sum(sum(self.acknowledged(session)) for session in range(self._settings.sessions))

    def finish(self, writer: int) -> None:
        """Say that a writer brings nothing new any more."""
        self._memory[1 + writer * self._width + self._settings.sessions] = 1

    @property
    def finished(self) -> bool:
        at = self._settings.sessions
        return all(
            self._memory[1 + writer * self._width + at] for writer in range(self._settings.writers)
        )

    def close(self, writer: int) -> None:
        """Say that a writer leaves."""
        self._memory[2 + writer * self._width + self._settings.sessions] = 1

    @property
    def closed(self) -> bool:
        at = 1 + self._settings.sessions
        return all(
            self._memory[1 + writer * self._width + at] for writer in range(self._settings.writers)
        )

    def looked(self, reader: int) -> None:
        """Say that a reader has looked once more."""
        self._memory[self._readers_at + reader] += 1

    @property
    def looks_least(self) -> int:
        """How often the slowest reader has looked."""
        readers = range(self._settings.readers)
        return min(
            (self._memory[self._readers_at + reader] for reader in readers), default=LOOKS_MIN
        )

    @property
    def aborted(self) -> bool:
        return bool(self._memory[0])

    def abort(self) -> None:
        """Tell everybody to stop: a process has failed."""
        self._memory[0] = 1


class Process:
    """What writers and readers have in common: a number, chance, the board, and a ledger."""

    role = ""

    async def run(self, begin: Callable[[], None]) -> None:
        """Open the database, call `begin` when it may be called, work, and close."""
        raise NotImplementedError

    def __init__(self, settings: Settings, board: Board, number: int) -> None:
        self.settings = settings
        self.board = board
        self.number = number
        self.chance = random.Random(f"{settings.seed}:{self.role}:{number}")
        self._ledger = (Path(settings.folder) / f"{self.role}{number}.jsonl").open(
            "w", encoding="utf-8", buffering=1
        )
        self._violations = 0

    def note(self, saw: str, **fields: Any) -> None:
        self._ledger.write(json.dumps({"saw": saw, **fields}) + "\n")

    def violation(self, what: str) -> None:
        self._violations += 1
        if self._violations <= VIOLATIONS_MAX:
            self.note("violation", what=f"{self.role} {self.number}: {what}")

    async def patiently(self, op: str, call: Callable[[], Awaitable[T]]) -> tuple[T, int]:
        """Call until it is not refused any more.

        Return the result and how often it was refused.

        The only refusal is StoreBusy, which says when to come back and who is in the
        way.
        """
        refused = 0
        while True:
            try:
                return await call(), refused
            except StoreBusy as busy:
                refused += 1
                self.refused(op, busy)
                await anyio.sleep(min(busy.retry_after_ms / 1000 * 2**refused, 0.2))

    def refused(self, op: str, busy: StoreBusy) -> None:
        self.note("refused", op=op, holder=busy.holder, retry_after_ms=busy.retry_after_ms)
        if busy.retry_after_ms <= 0 or busy.holder in ("", "unknown"):
            self.violation(f"{op} was refused without a time or a holder: {busy}")

    async def open(self, **options: Any) -> sessiondb.SessionDB:
        """Return the database, open: opening writes a row, and may be refused like any write."""

        async def enter() -> sessiondb.SessionDB:
            db = sessiondb.open(self.settings.path, program=f"{self.role} {self.number}", **options)
            return await db.__aenter__()

        return (await self.patiently("open", enter))[0]


@asynccontextmanager
async def closing(db: sessiondb.SessionDB) -> AsyncIterator[sessiondb.SessionDB]:
    """Close a database that is open already."""
    try:
        yield db
    finally:
        await db.close()


def limits(*, impatient: bool) -> Limits:
    """Return limits for a crowded machine.

    Waits are long, the WAL is reset again and again, and half of the processes have a
    short patience.
    """
    return Limits(
        wal_bytes_max=256 * KIB,
        write_timeout_s=LONG_S,
        read_age_s_max=LONG_S,
        busy_timeout_s=0.02 if impatient else LONG_S,
        queue_items_max=12 if impatient else 4_096,
    )


def question(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "provider": "p",
        "model": "m",
    }


# -- writers ---------------------------------------------------------------------------


class WritingProcess(Process):
    """A writer: several tasks of one event loop, as in a gateway."""

    role = "writer"

    async def run(self, begin: Callable[[], None]) -> None:
        # Who runs turns must not be impatient: its handlers would fail, and be tried
        # again, which is right and not the subject.
        self.impatient = self.number % 2 == 1
        self.db = await self.open(limits=limits(impatient=self.impatient))
        begin()
        try:
            async with anyio.create_task_group() as loops:
                if not self.impatient:
                    await self.patiently(
                        "lane",
                        lambda: self.db.set_lane("main", concurrency=LANE_CONCURRENCY, priority=0),
                    )
                    settings = LaneSettings(lease_s=LONG_S, timeout_s=LONG_S)
                    loops.start_soon(
                        lambda: self.db.run_lane("main", self.think, settings=settings)
                    )
                    loops.start_soon(lambda: self.db.run_outbox(self.send, lease_s=LONG_S))
                async with anyio.create_task_group() as work:
                    for session in range(self.settings.sessions):
                        work.start_soon(self.talk, session)
                    for task in self.maintenance_tasks():
                        work.start_soon(task)
                self.board.finish(self.number)
                await self.settle()
                loops.cancel_scope.cancel()
        finally:
            self.note("stats", **self.stats())
            await self.db.close()

    def maintenance_tasks(self) -> Iterable[Callable[[], Awaitable[None]]]:
        yield self.accept
        yield self.compact
        if self.impatient:
            yield self.burst
        if self.settings.maintenance:
            if not self.impatient:
                yield self.talk_to_the_old
            if self.number == 0:
                yield self.collect
            if self.number == 2:
                yield self.import_files

    @property
    def over(self) -> bool:
        done = self.board.total >= self.settings.entries and self.board.looks_least >= LOOKS_MIN
        return done or self.board.aborted

    def stats(self) -> dict[str, Any]:
        writer = self.db.backend.stats()["writer"]
        return {
            "busy_waits": writer["busy_waits"],
            "commits": writer["commits"],
            **{
                f"checkpoint_{name}": writer["checkpoint"][name]
                for name in ("ok", "blocked", "failed")
            },
        }

    async def talk(self, number: int) -> None:
        """Append to one shared session, one call after the other.

        What returned is on the board at once.
        """
        session, _ = await self.patiently(
            "session", lambda: self.db.session(self.settings.key(number))
        )
        self.note("session", session=number, session_id=session.id)
        message = 0
        while not self.over:
            count = self.chance.choice([1, 1, 1, 2, 5])
            keys = [f"{self.number}:{message + index}" for index in range(count)]
            items = [
                (question if (message + index) % 2 else answer)(f"entry {key} of session {number}")
                for index, key in enumerate(keys)
            ]

            async def append(items: list[Any] = items, keys: list[str] = keys) -> list[Receipt]:
                if len(items) == 1:
                    return [await session.append(items[0], idempotency_key=keys[0])]
                return await session.append_many(
                    [sessiondb.Item(item, key=key) for item, key in zip(items, keys, strict=True)]
                )

            receipts, refused = await self.patiently("append", append)
            self.board.acknowledge(self.number, number, count)
            message += count
            self.note(
                "appended",
                session=number,
                keys=keys,
                numbers=[receipt.entry_no for receipt in receipts],
            )
            if any(receipt.duplicate for receipt in receipts):
                self.violation(
                    f"append {keys} is there already; it was refused {refused} times and had "
                    "never returned"
                )
            if self.chance.random() < 0.1:  # the acknowledgement was lost, so it is said again
                again, _ = await self.patiently("append again", append)
                if [(receipt.entry_no, receipt.duplicate) for receipt in again] != [
                    (receipt.entry_no, True) for receipt in receipts
                ]:
                    self.violation(f"append {keys} repeated: {again}, first {receipts}")

    async def burst(self) -> None:
        """Append more at once than may wait.

        The queue of a process refuses, too, and says what it is busy with.
        """
        session, _ = await self.patiently("session", lambda: self.db.session(self.settings.key(0)))
        for number in range(3):
            async with anyio.create_task_group() as group:
                for index in range(16):
                    group.start_soon(
                        self.append_loose, session, f"burst {self.number}:{number}:{index}"
                    )

    async def append_loose(self, session: sessiondb.Session, key: str) -> None:
        """Append something whose place does not matter. It must be there once."""
        receipt, _ = await self.patiently(
            "burst", lambda: session.append(answer(key), idempotency_key=key)
        )
        self.note("loose", session_id=session.id, key=key, number=receipt.entry_no)

    async def compact(self) -> None:
        """Compact shared sessions, in competition with every other writer.

        Now and then only after the job was given up.
        """
        number = 0
        while not self.over:
            number += 1
            key = self.settings.key(self.chance.randrange(self.settings.sessions))
            session, _ = await self.patiently("session", lambda: self.db.session(key))  # noqa: B023
            summary, late = f"S{self.number}.{number}", self.chance.random() < 0.2
            job = session.compact(
                trigger="threshold", keep_recent_tokens=KEEP_TOKENS, timeout_s=LONG_S
            )
            try:
                await self.complete(job, summary, late=late)
            except CompactionRefused as refusal:
                self.note("no compaction", why=type(refusal).__name__)
                seen = self.db.backend.change_count
                await self.db.backend.wait_change(seen, 0.05)
            except StoreBusy as busy:
                self.refused("compaction", busy)

    async def complete(self, job: sessiondb.CompactionJob, summary: str, *, late: bool) -> None:
        async with job:
            await anyio.lowlevel.checkpoint()
            if late:
                state: GivenUp = "cancelled"
                await self.patiently(
                    "give up",
                    lambda: self.db.fail_compaction(job.id, "it takes too long", state=state),
                )
                await anyio.lowlevel.checkpoint()
            result, _ = await self.patiently("commit", lambda: job.commit(summary))
        again, _ = await self.patiently(
            "commit again", lambda: self.db.commit_compaction(job.id, summary)
        )
        # A superseded job's answer names the current epoch, which may have moved on.
        if (again.outcome, again.late, again.entry_id) != (
            result.outcome,
            result.late,
            result.entry_id,
        ):
            self.violation(f"compaction {job.id} repeated: {again}, first {result}")
        self.note(
            "compacted",
            session_id=result.session_id,
            outcome=result.outcome,
            epoch=result.epoch,
            late=result.late,
            summary=summary,
        )

    # -- messages ----------------------------------------------------------------------

    async def accept(self) -> None:
        """Accept messages. Each comes in through this process and the next one."""
        for number in range(self.settings.messages):
            for source in (self.number, (self.number + 1) % self.settings.writers):
                if self.board.aborted:
                    return
                event_id = f"{source}:{number}"
                key, message = (
                    f"agent:chat:storm:channel:{(source + number) % CHATS}",
                    question(f"event {event_id}"),
                )
                accepted, _ = await self.patiently(
                    "accept",
                    partial(self.db.accept, key, message, channel="storm", event_id=event_id),
                )
                self.note(
                    "accepted",
                    event_id=event_id,
                    inbox_no=accepted.inbox_no,
                    duplicate=accepted.duplicate,
                )

    async def think(self, turn: Turn) -> Answer:
        inbox_no = turn.inbox_no
        self.note(
            "turn",
            turn_no=turn.turn_no,
            inbox_no=inbox_no,
            attempt=turn.attempt,
            event=turn.message["content"],
        )
        try:
            await turn.append(answer(f"looking into {inbox_no}"))
        except TurnLost as lost:
            self.violation(f"a running turn was lost, and nobody took it over: {lost}")
            raise
        return Answer([answer(f"an answer to {inbox_no}")], [(turn.session.id, {"re": inbox_no})])

    async def send(self, reply: Reply) -> str:
        self.note("sent", outbox_no=reply.outbox_no, payload=json.loads(reply.payload))
        return f"receipt {reply.outbox_no}"

    async def settle(self) -> None:
        """Stay until no writer brings anything new, and what was brought is done.

        A broken build may never be.
        """
        looks_left = BROKEN_LOOKS if self.settings.broken else math.inf
        while looks_left > 0 and not self.board.aborted:
            seen = self.db.backend.change_count
            finished = self.board.finished
            if (
                await self.db.read("settle", lambda tx: tx.one("storm.open"))
            ).work == 0 and finished:
                return
            looks_left -= finished
            await self.db.backend.wait_change(seen, 0.1)

    # -- archives, imports -------------------------------------------------------------

    async def collect(self) -> None:
        """Begin conversations, and archive all but the newest few.

        Others may be writing to them meanwhile.
        """
        policy = RetentionPolicy(max_bindings_per_agent=4, idle_days=0.0)
        number = 0
        while not self.over or number == 0:
            for _ in range(6):
                number += 1
                session, _ = await self.patiently(
                    "session",
                    lambda: self.db.session(f"agent:gone:storm:channel:{number:04}"),  # noqa: B023
                )
                for index in range(5):
                    await self.append_if_live(session, f"gone {self.number}:{number}:{index}")
            report, _ = await self.patiently("gc", lambda: self.db.gc(policy))
            self.note(
                "collected",
                done=report.count("done"),
                failed=[
                    str(created) for created in report.decisions if created.outcome == "failed"
                ],
            )

    async def talk_to_the_old(self) -> None:
        """Append to what may be archived at this moment."""
        number = 0
        while not self.over:
            keys = await self.db.read(
                "gone", lambda tx: [row.session_key for row in tx.all("storm.gone")]
            )
            if not keys:
                await self.db.backend.wait_change(self.db.backend.change_count, 0.1)
                continue
            number += 1
            # The oldest: its turn is next.
            session, _ = await self.patiently(
                "session",
                lambda: self.db.session(keys[0]),  # noqa: B023  # called at once
            )
            await self.append_if_live(session, f"gone {self.number}:{number}")

    async def append_if_live(self, session: sessiondb.Session, key: str) -> None:
        try:
            await self.append_loose(session, key)
        except SessionEnded:  # archived meanwhile: the one refusal that is final, and says so
            self.note("ended", session_id=session.id, key=key)

    async def import_files(self) -> None:
        """Import files that grow. The last time compared with their export."""
        folder = Path(self.settings.folder) / "sources"
        folder.mkdir()
        files = [
            folder / f"2026-01-0{number}_{number:08}-0000-4000-8000-000000000000.jsonl"
            for number in range(1, 4)
        ]
        for number, file in enumerate(files):
            session_id = f"{number + 1:08}-0000-4000-8000-000000000000"
            head = {
                "type": "session",
                "version": 3,
                "id": session_id,
                "timestamp": TIMESTAMP,
                "cwd": "/",
            }
            file.write_text(json.dumps(head) + "\n")
        lines = 0
        while not self.over or lines == 0:
            lines = self.grow(files, lines)
            report, _ = await self.patiently("import", lambda: self.db.import_path(folder))
            self.note(
                "imported",
                files=[(receipt.path, receipt.status, receipt.entries) for receipt in report.files],
            )
        report, _ = await self.patiently("import", lambda: self.db.import_path(folder, verify=True))
        for receipt in report.files:
            if receipt.entries != lines or receipt.damaged or receipt.verified is False:
                self.violation(
                    f"import of {receipt.name}: {receipt.entries} of {lines} entries, "
                    f"{receipt.status}, {receipt.note}"
                )

    def grow(self, files: list[Path], lines: int) -> int:
        for file in files:
            with file.open("a") as out:
                for number in range(lines, lines + 20):
                    parent = json.dumps(f"e{number - 1}") if number else "null"
                    message = json.dumps(
                        (question if number % 2 == 0 else answer)(f"line {number}")
                    )
                    out.write(
                        f'{{"type":"message","id":"e{number}","parentId":{parent},'
                        f'"timestamp":"{TIMESTAMP}","message":{message}}}\n'
                    )
        return lines + 20


# -- readers ---------------------------------------------------------------------------


class ReadingProcess(Process):
    """A reader, which goes on from look to look until the writers have left."""

    role = "reader"

    async def run(self, begin: Callable[[], None]) -> None:
        begin()
        looks = (self.look, self.page, self.ask_for_status, self.verify)
        chosen = looks[self.number % len(looks)]
        readonly = self.number % 2 == 1 or self.number == 0
        self.seen: dict[int, tuple[int, int]] = {}
        self.wal_bytes_most = 0
        db = await self.open(limits=limits(impatient=False), readonly=readonly)
        rounds = 0
        try:
            while not (self.board.closed or self.board.aborted):
                change = db.backend.change_count
                await chosen(db)
                rounds += 1
                self.board.looked(self.number)
                await db.backend.wait_change(
                    change, 0.1
                )  # two cores: readers that never pause leave the writers none
                self.wal_bytes_most = max(self.wal_bytes_most, db.backend.stats()["wal_file_bytes"])
            await self.look(db)  # ... and everything that was ever acknowledged
        finally:
            self.note(
                "read",
                what=chosen.__name__,
                rounds=rounds,
                readonly=readonly,
                wal_bytes_most=self.wal_bytes_most,
            )
            await db.close()

    async def find(self, db: sessiondb.SessionDB, number: int) -> sessiondb.Session | None:
        """Return a shared session. None while nobody has begun it (a reader must not)."""
        begun = any(self.board.acknowledged(number))
        try:
            return await db.session(self.settings.key(number), create=False)
        except sessiondb.NotFound:
            if begun:
                self.violation(
                    f"session {number} is not there, and entries of it were acknowledged"
                )
            return None

    async def look(self, db: sessiondb.SessionDB) -> None:
        """Look at each shared session in one snapshot."""
        for number in range(self.settings.sessions):
            session = await self.find(db, number)
            if session is None:
                continue
            # Before the snapshot begins: what is on the board by now is committed.
            floor = self.board.acknowledged(number)
            seen = await db.read("look", lambda tx: look_at_session(tx, session.id))  # noqa: B023
            for what in check_session(seen, floor):
                self.violation(f"session {number}: {what}")
            before, now = self.seen.get(number, (0, 0)), (seen.row.last_seq, seen.row.epoch)
            if now[0] < before[0] or now[1] < before[1]:
                self.violation(
                    f"session {number} went back from {before} to {now} entries and epochs"
                )
            self.seen[number] = now

    async def page(self, db: sessiondb.SessionDB) -> None:
        """Page through a transcript, back from the end.

        Nothing is held between the pages, and nothing is left out.
        """
        number = self.chance.randrange(self.settings.sessions)
        session = await self.find(db, number)
        if session is None:
            return
        floor = sum(self.board.acknowledged(number))
        page = await session.entries(newest_first=True, limit=100)
        positions: list[int] = []
        while page:
            positions += [entry.position for entry in page]
            page = await session.entries(newest_first=True, limit=100, before=page[-1])
        if positions != list(range(len(positions), 0, -1)) or len(positions) < floor:
            self.violation(
                f"session {number}: its pages hold {len(positions)} entries of {floor} or more, "
                f"from {positions[:3]} on"
            )

    async def ask_for_status(self, db: sessiondb.SessionDB) -> None:
        """Ask what an operator asks: the status, who holds what, and the work in one snapshot."""
        floor = self.board.total
        status = await db.status(counts=True)
        if (status.entries or 0) < floor or status.gateway.turns_running > LANE_CONCURRENCY:
            self.violation(
                f"the status tells of {status.entries} entries of {floor}, and "
                f"{status.gateway.turns_running} running turns"
            )
        for holding in await db.held():
            if holding.alive is not True:
                self.violation(f"{holding} is held by nobody")
        for what in await db.read("work", look_at_work):
            self.violation(what)

    async def verify(self, db: sessiondb.SessionDB) -> None:
        """Verify a session, or all there is, while it is being written to."""
        session = (
            await self.find(db, self.chance.randrange(self.settings.sessions))
            if self.chance.random() < 0.8
            else None
        )
        report = await db.verify(session)
        for finding in report.findings:
            self.violation(f"verify: {finding.check}: {finding.message}")
        await self.look(db)


@dataclass(frozen=True)
class Seen:
    """What one snapshot showed of a session."""

    row: Any
    entries: list[Any]
    epoch: Any
    context: Context
    view: int


def look_at_session(tx: ReadTx, session_id: str) -> Seen:
    """Read a session, several statements long.

    Nothing is worked out before the snapshot has ended.
    """
    row = tx.one("storm.session", session_id=session_id)
    context = read_context(tx, row.session_no)
    epoch = tx.first("storm.epoch", session_no=row.session_no, epoch=row.epoch)
    view = tx.one("storm.view", session_id=session_id).messages
    low_no = row.session_no << SEQ_BITS
    return Seen(
        row, tx.all("storm.entries", low_no=low_no, high_no=low_no + SEQ_MAX), epoch, context, view
    )


def check_session(seen: Seen, floor: list[int]) -> list[str]:
    """Return what is wrong with a session as one snapshot showed it.

    The row must agree with the entries, the epochs with the compactions, the context
    with an independent reading of the texts, and the view with the context. Each
    writer's entries are its numbers from 0 on, in order, and no fewer than were
    acknowledged.
    """
    row, entries, context = seen.row, seen.entries, seen.context
    wrong: list[str] = []
    last = entries[-1].entry_no & SEQ_MAX
    if row.last_seq != last or len(entries) != last + 1:
        wrong.append(
            f"its row says {row.last_seq} entries; there are {len(entries) - 1}, the last is {last}"
        )
    on_branch = [
        entry.entry_no
        for entry in entries
        if entry.branch_no is not None and entry.branch_no == row.branch_no
    ]
    if row.head_no != max(on_branch, default=None):
        wrong.append(
            f"its head is {row.head_no}, the last entry of its branch "
            f"{max(on_branch, default=None)}"
        )
    positions = [entry.position for entry in entries if entry.position]
    if positions != list(range(1, len(positions) + 1)):
        wrong.append(f"its positions are not 1 to {len(positions)}")
    wrong += _check_numbers(
        [entry.idempotency_key for entry in entries if entry.idempotency_key], floor
    )

    if not row.epoch == row.committed == row.epochs - 1 or row.epochs_open != 1:
        wrong.append(
            f"epoch {row.epoch}, {row.committed} committed compactions, {row.epochs} epochs, "
            f"{row.epochs_open} of them open"
        )
    if seen.epoch is None or (seen.epoch.boundary_no, seen.epoch.first_kept_no) != (
        row.boundary_no,
        row.first_kept_no,
    ):
        wrong.append(
            f"its pointers {row.boundary_no}, {row.first_kept_no} are not those of epoch "
            f"{row.epoch}: {seen.epoch}"
        )

    replayed = roundtrip._context_of("\n".join(entry.payload for entry in entries).encode())
    if replayed is None or [json.loads(part) for part in context.parts] != replayed[0]:
        wrong.append(
            f"its context has {len(context.parts)} messages at epoch {context.epoch}; replayed "
            "from the texts it is another"
        )
    if context.epoch != row.epoch:
        wrong.append(f"its context is of epoch {context.epoch}, its row of {row.epoch}")
    if seen.view != len(context.parts):
        wrong.append(
            f"the view live_context has {seen.view} messages, the context {len(context.parts)}"
        )
    return wrong


def _check_numbers(keys: list[str], floor: list[int]) -> list[str]:
    wrong = []
    for writer, least in enumerate(floor):
        numbers = [int(key.partition(":")[2]) for key in keys if key.startswith(f"{writer}:")]
        if numbers != list(range(len(numbers))):
            wrong.append(
                f"the entries of writer {writer} are out of order, twice or missing: "
                f"{numbers[-10:]}"
            )
        if len(numbers) < least:
            wrong.append(
                f"writer {writer} was told of {least} entries, and {len(numbers)} are there: "
                "acknowledged and not there"
            )
    return wrong


def look_at_work(tx: ReadTx) -> list[str]:
    """Check what one snapshot shows of inbox, turns and outbox."""
    work = tx.one("storm.work")
    wrong = []
    if work.running > LANE_CONCURRENCY:
        wrong.append(f"{work.running} turns run in a lane of {LANE_CONCURRENCY}")
    if work.claimed != work.running or work.claimed_by_nobody:
        wrong.append(
            f"{work.claimed} messages are claimed ({work.claimed_by_nobody} by a turn that "
            f"ended), {work.running} turns run"
        )
    if work.twice or work.done != work.completed or work.replies != work.completed:
        wrong.append(
            f"{work.done} messages are done, {work.completed} turns are, with {work.replies} "
            f"replies; {work.twice} answered twice"
        )
    return wrong


# -- who comes and goes ----------------------------------------------------------------


class ComingProcess(Process):
    """Open the database, write, close it, and repeat, as a command does.

    Often it is the only process, or the last one.

    The last one to close folds the WAL into the database and deletes it, while the next
    one is opening it.
    """

    role = "comer"

    async def run(self, begin: Callable[[], None]) -> None:
        begin()
        message: list[str] = []
        for visit in range(self.settings.visits):
            if self.chance.random() < 0.3 and message:
                await self.look_in(message)
            async with closing(await self.open(limits=limits(impatient=False))) as db:
                session, _ = await self.patiently(
                    "session", lambda: db.session(self.settings.key(self.number))
                )
                receipt, _ = await self.patiently(
                    "append",
                    lambda: session.append(  # noqa: B023  # awaited at once
                        question(f"visit {visit}"),  # noqa: B023  # awaited at once
                        idempotency_key=f"{self.number}:{visit}",  # noqa: B023  # awaited at once
                    ),
                )
                message.append(receipt.entry_id)
                self.note(
                    "appended",
                    session=self.number,
                    keys=[f"{self.number}:{visit}"],
                    numbers=[receipt.entry_no],
                )
                await self.check(session, message)

    async def look_in(self, message: list[str]) -> None:
        async with closing(await self.open(limits=limits(impatient=False), readonly=True)) as db:
            key = self.settings.key(self.number)
            await self.check(await db.session(key, create=False), message)
        self.note("looked in")

    async def check(self, session: sessiondb.Session, message: list[str]) -> None:
        found = [entry.entry_id for entry in await session.entries(limit=1_000)]
        if found != message:
            self.violation(
                f"{len(message)} entries were acknowledged and not there, or not in order: "
                f"{found} of {message}"
            )


# -- broken builds ---------------------------------------------------------------------


def _claim_without_compare() -> None:
    """Let a claim trust what was read before its transaction.

    Its UPDATE takes the row in whatever state it is.

    The schema would still refuse a second running turn of a session, and the lane would
    say so. That index is gone, too. So is what a turn's end asks: whether its message
    is still claimed by it.
    """
    claim, choose, candidates = claims.claim, claims._choose, threading.local()
    sql = transaction.statements()["inbox.claim"].sql.replace(" AND state = 'queued'", "")
    transaction.statements()["inbox.claim"] = Prepared("inbox.claim", sql)

    def trusting_claim(tx: Any, lane: str, candidate: Any, *rest: Any, **options: Any) -> Any:
        candidates.chosen = candidate
        drain(tx._connection, "DROP INDEX IF EXISTS turn_one_running")
        return claim(tx, lane, candidate, *rest, **options)

    def trusting_choice(tx: Any, lane: str, now_ms: int) -> Any:
        return candidates.chosen if isinstance(tx, WriteTransaction) else choose(tx, lane, now_ms)

    claims.claim, claims._choose = trusting_claim, trusting_choice  # type: ignore[assignment]
    changes.require_one = lambda _changed, _what: None


def _busy_is_success() -> None:
    """Drop a batch of appends that met another process's lock.

    Its callers are told that it is committed.
    """
    commit, waits = Writer._commit, {"seen": 0}

    def careless_commit(self: Writer, connection: Any, batch: Any) -> None:
        met_a_lock = self.stats.busy_waits > waits["seen"]
        waits["seen"] = self.stats.busy_waits
        if (
            not met_a_lock
            or not batch.succeeded
            or any(request.op != "append" for request in batch.succeeded)
        ):
            commit(self, connection, batch)
            return
        connection.execute("ROLLBACK")
        for request in batch.succeeded:
            request.outcome = "committed"

    Writer._commit = careless_commit  # type: ignore[method-assign]


def _early_acknowledgement() -> None:
    """Callers are told before COMMIT, and the disk takes its time."""
    commit, deliver = Writer._commit, Writer._deliver

    def slow_commit(self: Writer, connection: Any, batch: Any) -> None:
        early = list(batch.succeeded)
        deliver(self, early)
        time.sleep(0.005)
        commit(self, connection, batch)
        batch.finished[:] = [request for request in batch.finished if request not in early]

    Writer._commit = slow_commit  # type: ignore[method-assign]


def _split_snapshot() -> None:
    """Give each statement of a read a snapshot of its own.

    Some of them leave time for a commit in between.
    """
    start = Snapshot._start

    def start_anew(self: Snapshot, statement: str, params: Any) -> Any:
        connection = self._connection
        if not isinstance(self, WriteTransaction) and connection is not None:
            drain(connection, "ROLLBACK")
            before = connection.pragma("data_version")
            for _ in range(10):
                if connection.pragma("data_version") != before:
                    break
                time.sleep(0.002)
            drain(connection, "BEGIN")
        return start(self, statement, params)

    Snapshot._start = start_anew  # type: ignore[method-assign]


def _lost_lock() -> None:
    """Open and close the -shm file in the middle of every transaction.

    That drops the write lock.
    """
    commit = Writer._commit

    def unlocked_commit(self: Writer, connection: Any, batch: Any) -> None:
        Path(f"{self.path}-shm").read_bytes()
        time.sleep(0.002)
        commit(self, connection, batch)

    Writer._commit = unlocked_commit  # type: ignore[method-assign]


BREAKAGES: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "claim without compare": _claim_without_compare,
    "busy is success": _busy_is_success,
    "early acknowledgement": _early_acknowledgement,
    "lost lock": _lost_lock,
    "split snapshot": _split_snapshot,
    "counted twice": counts_an_append_twice,
}


# -- processes -------------------------------------------------------------------------


def live(process: Process, report: int, start: int) -> int:
    """Be one process of the storm, from opening to closing. Return its exit code.

    A writer says when it has opened the database (or failed), and begins when `start`
    is closed: when all of them have. A reader opens after the first of them.
    """

    def begin() -> None:
        if process.role == "writer":
            os.write(report, b"w")
        os.read(start, 1)

    try:
        anyio.run(process.run, begin)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the others must hear of it
        process.board.abort()
        os.write(report, b"f")
        process.note(
            "failed", what=f"{process.role} {process.number} failed: {_innermost(error)!r}"
        )
        os.write(2, "".join(traceback.format_exception(error)).encode())
        return 1
    finally:
        if process.role == "writer":
            process.board.finish(process.number)
            process.board.close(process.number)
    return 0


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def storm(settings: Settings) -> int:
    """Be the parent of a storm's processes. Return the worst of their exit codes."""
    BREAKAGES[settings.broken]()
    board = Board(settings)
    told_out, told_in = os.pipe()
    starts = {role: os.pipe() for role in ("writer", "reader", "comer")}
    processes: list[Process] = [
        WritingProcess(settings, board, number) for number in range(settings.writers)
    ]
    processes += [ReadingProcess(settings, board, number) for number in range(settings.readers)]
    processes += [ComingProcess(settings, board, number) for number in range(settings.comers)]
    children: dict[int, Process] = {}
    for process in processes:
        pid = os.fork()
        if pid == 0:
            for _, hold in starts.values():
                os.close(hold)
            os._exit(live(process, told_in, starts[process.role][0]))
        children[pid] = process
    for opened in range(settings.writers):
        if os.read(told_out, 1) == b"f":
            break  # the rest sees on the board that it is over
        if opened == 0:
            os.close(starts.pop("reader")[1])
    for _, hold in starts.values():
        os.close(hold)
    worst = 0
    while children:
        pid, status = os.wait()
        process, code = children.pop(pid), os.waitstatus_to_exitcode(status)
        worst = max(worst, abs(code))
        if code < 0 and process.role == "writer":
            # Without its locks a writer may die of SIGBUS. The readers must not wait for it.
            board.finish(process.number)
            board.close(process.number)
    return worst


def _wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(storms: list[Settings]) -> None:
    """Run the storms.

    A broken build stays in the process that it was made in. Prints an exit code for
    each.
    """
    for settings in storms:
        pid = os.fork()
        if pid == 0:
            os._exit(storm(settings))
        print(_wait_for(pid), flush=True)


if __name__ == "__main__":
    main([Settings(**json.loads(text)) for text in sys.argv[1:]])
