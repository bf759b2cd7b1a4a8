"""Workloads for power cuts: each part of the library, in dozens of commits.

Small WAL limits, so that checkpoints and resets of the WAL lie between. Whatever is
random comes from the ledger's dice. The file is long and one list: a workload has no
part in another.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import anyio
import anyio.to_thread
import apsw

import sessiondb
from sessiondb import database
from sessiondb.errors import NotExecuted, OutcomeUnknown, StoreBusy, StoreFailed
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.gateway.running_turn import Answer, Turn
from sessiondb.limits import KIB, Limits
from sessiondb.maintenance import archive_format
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.models import Reply
from sessiondb.sqlite import write_connection
from tests.conftest import SAMPLE
from tests.proofs.power.harness import Copy, Ledger, Workload
from tests.support.core import reply, user
from tests.support.engine import Hold, until
from tests.support.old_schema import as_first_release

# No workload waits this long unless something hangs.
PATIENCE_S = 120.0
SMALL = Limits(wal_bytes_max=64 * KIB, wal_reset_ms_max=5.0, wal_retry_ms=0.0)

ENTRY = "SELECT count(*) FROM entry WHERE payload LIKE ?"
HEADER = (
    "SELECT count(*) FROM entry JOIN session ON entry_no = session_no << 32 WHERE session_id = ?"
)
EPOCH = "SELECT count(*) FROM epoch WHERE session_no = ? AND epoch = ? AND reason = ?"


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[sessiondb.SessionDB]:
    """Open with a small WAL, guarded against ourselves: nothing here may touch the files."""
    async with sessiondb.open(
        path, **{"limits": SMALL, "guard": "raise", "program": "power", **options}
    ) as db:
        yield db


def says(text: str) -> str:
    """Return a pattern for an entry that says exactly this."""
    return f'%"{text}"%'


async def append(
    ledger: Ledger, session: sessiondb.Session, text: str, *, key: str | None = None
) -> sessiondb.Receipt:
    """Append one message. It is there once, with its content and its key."""
    with ledger.operation(f"append {text[:40]}") as operation:
        receipt = await session.append(user(text), idempotency_key=key)
        operation.shows(
            f"{ENTRY} AND entry_no = ? AND idempotency_key IS ?", says(text), receipt.entry_no, key
        )
        operation.shows(ENTRY, says(text))
    return receipt


# -- creation --------------------------------------------------------------------------


async def create(path: Path, ledger: Ledger, **options: Any) -> None:
    """Make a database in folders that are not there, close it at once, open it again and use it."""
    for life in range(3):
        with ledger.operation(f"open {life}") as operation:
            context = opened(path, **options)
            db = await context.__aenter__()
            operation.shows("SELECT count(*) >= ? FROM instance", life + 1)
        try:
            for number in range(life * 3):
                with ledger.operation(f"session {life}.{number}") as operation:
                    session = await db.session(f"agent:main:web:{life}.{number}")
                    operation.shows("SELECT count(*) FROM session WHERE session_id = ?", session.id)
                    operation.shows(
                        "SELECT count(*) FROM binding WHERE session_key = ?",
                        f"agent:main:web:{life}.{number}",
                    )
                    operation.shows(HEADER, session.id)
                await append(ledger, session, f"in life {life}, message {number}")
        finally:
            await context.__aexit__(None, None, None)


# -- appending -------------------------------------------------------------------------


async def talk(path: Path, ledger: Ledger, **options: Any) -> None:
    """Append one by one, concurrently, and several in one call.

    Concurrent appends share commits.

    With and without keys.
    """
    async with opened(path, **options) as db:
        sessions = [await db.session(f"agent:main:web:{number}") for number in range(3)]
        for step in range(12):
            session = ledger.dice.choice(sessions)
            match step % 4:
                case 0:
                    await _alone(ledger, session, step)
                case 1:
                    async with anyio.create_task_group() as group:
                        for number in range(ledger.dice.randrange(2, 12)):
                            group.start_soon(
                                append,
                                ledger,
                                ledger.dice.choice(sessions),
                                f"together {step}.{number}",
                            )
                case 2:
                    await _several(ledger, session, step)
                case _:
                    await _beside_a_reader(db, ledger, session, step)


async def _alone(ledger: Ledger, session: sessiondb.Session, step: int) -> None:
    size = ledger.dice.choice((1, 100, 3_000, 20_000))
    text = f"alone {step} {'x' * size}"
    receipt = await append(ledger, session, text, key=f"key {step}")
    again = await session.append(user(text), idempotency_key=f"key {step}")
    assert (again.duplicate, again.entry_no) == (True, receipt.entry_no)


async def _several(ledger: Ledger, session: sessiondb.Session, step: int) -> None:
    texts = [
        f"several {step}.{number} {'y' * 500}" for number in range(ledger.dice.randrange(2, 20))
    ]
    with ledger.operation(f"append_many {step}") as operation:
        await session.append_many([user(text) for text in texts])
        for text in texts:
            operation.shows(ENTRY, says(text))


async def _beside_a_reader(
    db: sessiondb.SessionDB, ledger: Ledger, session: sessiondb.Session, step: int
) -> None:
    """Append while a snapshot keeps the WAL from being reset: checkpoints get half way."""
    hold = Hold(lambda tx: tx.all("status.file"))
    async with anyio.create_task_group() as group:
        group.start_soon(partial(db.read, "hold", _held(hold)))
        try:
            await until(hold.begun.is_set)
            for number in range(6):
                await append(ledger, session, f"beside {step}.{number} {'z' * 8_000}")
        finally:
            hold.release.set()
    await append(ledger, session, f"after {step}")


def _held(hold: Hold) -> Callable[[Any], Any]:
    def body(tx: Any) -> Any:
        tx.all("status.file")  # the snapshot begins here
        return hold(tx)

    return body


# -- contexts --------------------------------------------------------------------------


async def contexts(path: Path, ledger: Ledger) -> None:
    """Compact in time, late and in vain. Undo, reset, branch, fork. Appends come in between."""
    async with opened(path) as db:
        session = await db.session("agent:main:web:1")
        for turn in range(2):
            for number in range(ledger.dice.randrange(2, 5)):
                await append(
                    ledger,
                    session,
                    f"question {turn}.{number} {'q' * ledger.dice.choice((300, 6_000))}",
                )
                await session.append(reply(f"answer {turn}.{number} {'a' * 400}"))
            await _compact(db, ledger, session, f"summary {turn}", late=turn == 1)
            await append(ledger, session, f"after summary {turn}")
        await _compact(db, ledger, session, "", late=False)
        with ledger.operation("undo") as operation:
            epoch = await session.undo_compaction()
            operation.shows(EPOCH, session.ref.session_no, epoch, "undo")
        await append(ledger, session, "after the undo")
        entries = await session.entries(limit=5)
        with ledger.operation("branch") as operation:
            epoch = await session.branch(entries[2].entry_id)
            operation.shows(EPOCH, session.ref.session_no, epoch, "branch")
            operation.shows(
                "SELECT count(*) FROM session WHERE session_no = ? AND epoch = ?",
                session.ref.session_no,
                epoch,
            )
        await append(ledger, session, "on the other branch")
        with ledger.operation("fork") as operation:
            fork = await session.fork(key="agent:main:web:2")
            operation.shows(
                "SELECT count(*) FROM session WHERE session_id = ? AND origin = 'fork'", fork.id
            )
            # By its id: the number of a session whose making was cut off is given to the next one.
            of_fork = "JOIN session AS s USING (session_no) WHERE s.session_id = ?"
            operation.shows(f"SELECT count(*) FROM binding {of_fork}", fork.id)
            operation.shows(
                f"SELECT count(*) FROM epoch AS e {of_fork} AND e.epoch = 0 AND e.reason = 'fork'",
                fork.id,
            )
        await append(ledger, fork, "in the fork")
        with ledger.operation("reset") as operation:
            epoch = await session.reset("new")
            operation.shows(EPOCH, session.ref.session_no, epoch, "reset")
        await append(ledger, session, "after the reset")
        with ledger.operation("end") as operation:
            await fork.end()
            operation.shows(
                "SELECT count(*) FROM session WHERE session_id = ? AND ended_at_ms IS NOT NULL",
                fork.id,
            )


async def _compact(
    db: sessiondb.SessionDB, ledger: Ledger, session: sessiondb.Session, summary: str, *, late: bool
) -> None:
    began = ledger.now()
    async with session.compact(keep_recent_tokens=50) as job:
        ledger.known(f"compaction begun: {summary}", since=began).shows(
            "SELECT count(*) FROM compaction WHERE compaction_id = ?", job.id
        )
        await append(ledger, session, f"while '{summary}' is thought of")
        if late:
            with ledger.operation("give up") as operation:
                await db.fail_compaction(job.id, "it took too long")
                operation.shows(
                    (
                        "SELECT count(*) FROM compaction WHERE compaction_id = ? AND state <> "
                        "'running'"
                    ),
                    job.id,
                )
        else:
            await _commit(db, ledger, session, job.id, summary)
            job.result = await db.commit_compaction(job.id, summary)
    if late:
        await append(ledger, session, f"before '{summary}' comes late")
        await _commit(db, ledger, session, job.id, summary)


async def _commit(
    db: sessiondb.SessionDB,
    ledger: Ledger,
    session: sessiondb.Session,
    compaction_id: str,
    summary: str,
) -> None:
    """Commit, twice: the answer is the same, and the second time changes nothing."""
    with ledger.operation(f"compaction: {summary}") as operation:
        result = await db.commit_compaction(compaction_id, summary)
        job = "SELECT count(*) FROM compaction WHERE compaction_id = ? AND state = ?"
        operation.shows(job, compaction_id, "committed" if summary else "rejected")
        if summary:
            operation.shows(ENTRY, says(summary))
            operation.shows(EPOCH, session.ref.session_no, result.epoch, "compaction")
    assert await db.commit_compaction(compaction_id, summary) == result


# -- a gateway -------------------------------------------------------------------------


class Gateway:
    """A gateway with a scripted model: what it sees is what must be on disk by then."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.accepted: dict[str, int] = {}
        self.sent: set[str] = set()
        self.attempts: set[int] = set()
        self.hang = False
        self.hung = anyio.Event()

    async def accept(self, db: sessiondb.SessionDB, event_id: str, talk: str) -> None:
        key = f"agent:main:web:{talk}"
        self.accepted[event_id] = self.ledger.now()
        with self.ledger.operation(f"accept {event_id}") as operation:
            receipt = await db.accept(key, user(event_id), channel="web", event_id=event_id)
            operation.shows(
                (
                    "SELECT count(*) FROM inbox AS i LEFT JOIN entry AS e USING (entry_no) WHERE "
                    "channel = 'web' AND event_id = ? AND ifnull(i.payload, e.payload) LIKE ?"
                ),
                event_id,
                says(event_id),
            )
        again = await db.accept(key, user(event_id), channel="web", event_id=event_id)
        assert (again.duplicate, again.inbox_no) == (True, receipt.inbox_no)

    async def think(self, turn: Turn) -> Answer:
        event_id = turn.message["content"]
        since = self.accepted[event_id]
        claimed = self.ledger.known(f"claim {turn.turn_no}", since=since)
        claimed.shows("SELECT count(*) FROM turn WHERE turn_no = ?", turn.turn_no)
        claimed.shows(
            (
                "SELECT count(*) FROM inbox WHERE turn_no = ? AND state <> 'queued' AND entry_no "
                "IS NOT NULL"
            ),
            turn.turn_no,
        )
        if turn.attempt == 1:
            claimed.shows(ENTRY, says(event_id))
        if self.ledger.dice.random() < 0.5:
            text = f"looking into {event_id}, {turn.turn_no}"
            with self.ledger.operation(text) as operation:
                await turn.append(reply(text))
                operation.shows(ENTRY, says(text))
        if self.hang and turn.attempt == 1:
            self.hung.set()
            await anyio.sleep_forever()
        text = f"answer to {event_id}"
        return Answer(
            [reply(text)],
            [
                ("web:someone", {"re": event_id, "turn": turn.turn_no, "part": part})
                for part in (1, 2)
            ],
        )

    async def send(self, outgoing: Reply) -> str:
        message = json.loads(outgoing.payload)
        assert outgoing.outbox_no not in self.attempts, "a reply was sent twice"
        self.attempts.add(outgoing.outbox_no)
        since = self.accepted[message["re"]]
        if message["part"] == 1:
            # Its turn is complete: answer, replies and the end of the turn, or nothing of it.
            complete = self.ledger.known(f"turn {message['turn']} complete", since=since)
            complete.shows(
                "SELECT count(*) FROM turn WHERE turn_no = ? AND state = 'completed'",
                message["turn"],
            )
            complete.shows("SELECT count(*) / 2 FROM outbox WHERE turn_no = ?", message["turn"])
            complete.shows(
                "SELECT count(*) FROM inbox WHERE turn_no = ? AND state = 'done'", message["turn"]
            )
            complete.shows(ENTRY, says(f"answer to {message['re']}"))
        # Known to be under way before the channel is called: after a cut it is never
        # simply sent again.
        sending = self.ledger.known(f"sending {outgoing.outbox_no}", since=since)
        sending.shows(
            "SELECT count(*) FROM outbox WHERE outbox_no = ? AND state <> 'pending'",
            outgoing.outbox_no,
        )
        self.sent.add(f"{message['re']} {message['part']}")
        return "receipt"

    async def listen(self, db: sessiondb.SessionDB) -> None:
        """Follow events.

        One that was handled is not told again once the next has been asked for.
        """
        events = db.events("operator", from_start=True)
        async with aclosing(events) as report:  # type: ignore[type-var]
            before = 0
            async for event in report:
                if before:
                    cursor = self.ledger.known(f"event {before} handled", since=0)
                    cursor.shows(
                        (
                            "SELECT count(*) FROM event_cursor WHERE consumer = 'operator' AND "
                            "event_no >= ?"
                        ),
                        before,
                    )
                before = event.event_no


@asynccontextmanager
async def _serving(db: sessiondb.SessionDB, gateway: Gateway) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        for lane in ("main", "resume"):
            group.start_soon(db.run_lane, lane, gateway.think)
        group.start_soon(db.run_outbox, gateway.send)
        group.start_soon(gateway.listen, db)
        try:
            yield
        finally:
            group.cancel_scope.cancel()


async def gateway(path: Path, ledger: Ledger) -> None:
    """Accept, claim, answer, send. Stop in the middle of a turn. Start again, recover, resume."""
    server = Gateway(ledger)
    async with opened(path) as db:
        async with _serving(db, server):
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(server.accept, db, f"event {number}", str(number % 3))
            await _settled(db, server)
            server.hang = True
            await server.accept(db, "event 90", "0")
            await server.hung.wait()
    server.hang = False
    async with opened(path) as db:
        await db.recover()
        with ledger.operation("resume") as operation:
            decisions = await db.resume(ResumePolicy())
            assert [decision.action for decision in decisions] == ["resume"]
            operation.shows(
                "SELECT count(*) FROM inbox WHERE lane = 'resume' AND event_id = 'event 90'"
            )
        async with _serving(db, server):
            await server.accept(db, "event 91", "1")
            await _settled(db, server)
            # The last answers are recorded as sent before the loops are stopped.
            with anyio.fail_after(PATIENCE_S):
                while [reply async for reply in db.replies("sending")]:
                    await db.backend.wait_change(db.backend.change_count, 0.05)


async def _settled(db: sessiondb.SessionDB, server: Gateway) -> None:
    """Wait until everything that was accepted has been answered."""
    wanted = {f"{event_id} {part}" for event_id in server.accepted for part in (1, 2)}
    with anyio.fail_after(PATIENCE_S):
        while not wanted <= server.sent:
            await db.backend.wait_change(db.backend.change_count, 0.05)


# -- retention -------------------------------------------------------------------------


async def keep(path: Path, ledger: Ledger) -> None:
    """Archive what is old, delete some of it for good, restore, give space back.

    Nobody's entries are ever in neither place.
    """
    async with opened(path) as db:
        sessions = await three_sessions(db, ledger)
        with ledger.operation("gc") as operation:
            report = await db.gc(RetentionPolicy(max_sessions=1, idle_days=0))
            assert report.ok
            operation.shows(f"{_GONE} AND session_id = ?", sessions[0].id)
        # The second goes in the same call, in transactions of its own.
        second = ledger.known("gc, the second", since=operation.begun)
        second.shows(f"{_GONE} AND session_id = ?", sessions[1].id)
        with ledger.operation("restore") as operation:
            await db.unarchive(sessions[0].id)
            operation.shows(_RESTORED, sessions[0].id, 1 + ENTRIES_KEPT)
        await append(ledger, sessions[0], "alive again")
        ledger.no_longer("every entry of older can be had")
        with ledger.operation("drop the archive") as operation:
            report = await db.gc(RetentionPolicy(archive_days=0))
            operation.shows(
                (
                    "SELECT count(*) FROM archive JOIN session USING (session_no) WHERE "
                    "session_id = ? AND state = 'deleted'"
                ),
                sessions[1].id,
            )
        await db.backend.incremental_vacuum(1_000)
        await append(ledger, sessions[2], "at the end")


# What each of the sessions above says at least.
ENTRIES_KEPT = 12


async def three_sessions(db: sessiondb.SessionDB, ledger: Ledger) -> list[sessiondb.Session]:
    """Make two sessions that are old and one that is not.

    From now on their entries must be somewhere.
    """
    sessions = []
    for age, name in enumerate(("old", "older", "present")):
        session = await db.session(f"agent:main:web:{name}")
        for number in range(4):
            await append(ledger, session, f"{name} {number} {'x' * 700}")
        count = ledger.dice.choice((8, 30, 120))
        await session.append_many(
            [reply(f"{name} reply {number} {'y' * (12_000 // count)}") for number in range(count)]
        )
        ledger.always(
            f"every entry of {name} can be had",
            partial(_all_there, session.ref.session_no, 5 + count),
        )
        if name != "present":
            await db.write(
                "test.age", partial(_date, number=session.ref.session_no, at_ms=1_000 + age)
            )
        sessions.append(session)
    return sessions


_GONE = """SELECT count(*) FROM session WHERE archived_at_ms IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM entry WHERE entry_no >> 32 = session_no)"""
_RESTORED = """SELECT count(*) FROM session JOIN archive USING (session_no) WHERE session_id = ?
               AND state = 'restored'
               AND (SELECT count(*) FROM entry WHERE entry_no >> 32 = session_no) >= ?"""


class _Chunk(NamedTuple):
    """What `chunks` decodes."""

    chunk_no: int
    what: str
    rows: int
    sha256: str
    content: bytes


def _date(tx: Any, number: int, at_ms: int) -> None:
    tx.run("import_file.date_session", session_no=number, created_at_ms=None, updated_at_ms=at_ms)


def _all_there(session_no: int, entries: int, connection: apsw.Connection) -> bool:
    """Tell whether all entries of a session are in the table, or in an archive that can be read."""
    count = "SELECT count(*) FROM entry WHERE entry_no >> 32 = ?"
    if connection.execute(count, (session_no,)).fetchall()[0][0] >= entries:
        return True
    archives = (
        "SELECT archive_no, encoding FROM archive WHERE session_no = ? AND state IN "
        "('deleting', 'archived', 'restoring')"
    )
    found = 0
    for archive_no, encoding in connection.execute(archives, (session_no,)).fetchall():
        stored = (
            "SELECT chunk_no, what, rows, sha256, content FROM archive_chunk WHERE "
            "archive_no = ? AND what IN ('entry', 'whole')"
        )
        for values in connection.execute(stored, (archive_no,)).fetchall():
            sections = archive_format.decode(
                _Chunk(*values), encoding, session_no, _id_of(connection, session_no)
            )
            found += sum(len(one.rows) for one in sections if one.what == archive_format.ENTRY)
    return found >= entries


def _id_of(connection: apsw.Connection, session_no: int) -> str:
    [(session_id,)] = connection.execute(
        "SELECT session_id FROM session WHERE session_no = ?", (session_no,)
    ).fetchall()
    return str(session_id)


# -- copies ----------------------------------------------------------------------------


async def copies(path: Path, ledger: Ledger) -> None:
    """Back up and export while others append. A file that has its name is complete, and stays."""
    async with opened(path) as db:
        sessions = [await db.session(f"agent:{agent}:web:1") for agent in ("main", "coder")]
        for number in range(6):
            await append(ledger, sessions[number % 2], f"before {number} {'x' * 2_000}")
        for folder in ("", "backups/daily/"):
            begun = ledger.now()
            async with anyio.create_task_group() as group:
                group.start_soon(db.backend.backup, path.parent / f"{folder}copy.db")
                group.start_soon(append, ledger, sessions[0], f"during the backup to {folder}copy")
            ledger.copies.append(
                Copy(f"{folder}copy.db", None, begun, ledger.recorder.mark("backed up"))
            )
        begun = ledger.now()
        report = await db.export(path.parent / "exported" / "today")
        done = ledger.recorder.mark("exported")
        assert len(report.files) == 4, report
        ledger.copies += [
            Copy(str(file.relative_to(path.parent)), file.read_bytes(), begun, done)
            for file in sorted((path.parent / "exported").rglob("*"))
            if file.is_file()
        ]
        await append(ledger, sessions[1], "after the copies")


def talked(path: Path) -> None:
    """Make a database in which something has been said."""

    async def talk() -> None:
        async with sessiondb.open(path, program="before") as db:
            for name in ("1", "2"):
                session = await db.session(f"agent:main:web:{name}")
                for number in range(10):
                    await session.append(user(f"of old {name}.{number}"))
                async with session.compact(keep_recent_tokens=20) as job:
                    await job.commit("what was said")

    anyio.run(talk)


async def save(path: Path, ledger: Ledger) -> None:
    """Get what is readable out of a database into a new one."""
    begun = ledger.now()
    await anyio.to_thread.run_sync(database.salvage, path, path.with_name("saved.db"))
    done = ledger.recorder.mark("saved")
    ledger.copies.append(Copy("saved.db", path.with_name("saved.db").read_bytes(), begun, done))


# -- an older file ---------------------------------------------------------------------


def version_1(path: Path) -> None:
    """Make a database as the release before the gateway's tables left it."""
    present = path.with_name("present.db")
    talked(present)
    as_first_release(present, path)
    present.unlink()


async def migrate(path: Path, ledger: Ledger) -> None:
    """Open a file of schema 1, twice, and use what is new."""
    for life in range(2):
        with ledger.operation(f"open {life}") as operation:
            context = opened(path)
            db = await context.__aenter__()
            operation.shows("SELECT count(*) > ? FROM instance WHERE program = 'power'", life)
        try:
            await append(ledger, await db.session("agent:main:web:1"), f"in life {life}")
            with ledger.operation(f"accept {life}") as operation:
                await db.accept(
                    "agent:main:web:2", user("hello"), channel="web", event_id=str(life)
                )
                operation.shows("SELECT count(*) FROM inbox WHERE event_id = ?", str(life))
        finally:
            await context.__aexit__(None, None, None)


# -- import ----------------------------------------------------------------------------


async def bring_in(path: Path, ledger: Ledger) -> None:
    """Import real transcripts while somebody talks.

    Stop in the middle, go on, and once more for nothing.
    """
    async with opened(path) as db:
        session = await db.session("agent:main:web:1")
        folder = SAMPLE / "openclaw-2026.5.18"
        with anyio.CancelScope() as scope:
            stops, stop_at = itertools.count(), ledger.dice.randrange(1, 6)

            def stop(*progress: object) -> None:
                if next(stops) == stop_at:
                    scope.cancel()

            await db.import_path(folder / "agents" / "lab", progress=stop)
        assert scope.cancelled_caught
        begun = ledger.now()
        async with anyio.create_task_group() as group:
            group.start_soon(append, ledger, session, "during the import")
            report = await db.import_path(folder / "agents" / "lab")
        done = ledger.recorder.mark("imported")
        assert report.ok
        for file in report.files:
            operation = ledger.known(f"import {file.name}", since=0)
            operation.begun, operation.done = (
                (0, done) if file.status == "unchanged" else (begun, done)
            )
            operation.shows(
                "SELECT count(*) FROM import_file WHERE path = ? AND state = 'done' AND bytes = ?",
                file.path,
                file.bytes,
            )
        again = await db.import_path(folder / "agents" / "lab")
        assert {file.status for file in again.files} == {"unchanged"}


# -- two writers -----------------------------------------------------------------------


async def two(path: Path, ledger: Ledger) -> None:
    """Two gateways on one file, each with a writer of its own: both append, both reset the WAL."""
    async with opened(path) as first, opened(path) as second:
        async with anyio.create_task_group() as group:
            for number, db in enumerate((first, second)):
                group.start_soon(
                    _appends,
                    ledger,
                    await db.session(f"agent:main:web:{number}"),
                    f"writer {number}",
                )
        await append(ledger, await second.session("agent:main:web:0"), "into the other's session")
    async with opened(path) as db:
        await _appends(ledger, await db.session("agent:main:web:1"), "the one that is left")


async def _appends(ledger: Ledger, session: sessiondb.Session, who: str) -> None:
    for number in range(8):
        await append(ledger, session, f"{who} {number} {'x' * ledger.dice.choice((10, 5_000))}")


# -- a disk that fails -----------------------------------------------------------------


async def failing(path: Path, ledger: Ledger) -> None:
    """Append although now and then a sync fails, at a commit or a checkpoint.

    Retry with the same key until it is taken.
    """
    async with opened(path) as db:
        session = await db.session("agent:main:web:1")
        ledger.recorder.fails = lambda kind: ledger.dice.random() < 0.25
        try:
            # Nothing is gained by waiting before a failed connection is opened again:
            # this disk's luck is drawn anew each time.
            with mock.patch.object(write_connection, "REOPEN_PAUSE_S", (0.0, 0.001)):
                await _all(ledger, session)
        finally:
            ledger.recorder.fails = lambda kind: False
        await _insist(ledger, session, "when the disk is well again")


async def insisting(path: Path, ledger: Ledger, **options: Any) -> None:
    """Repeat all calls under the same keys, as a killed gateway's client does."""
    async with opened(path, **options) as db:
        await db.recover()
        await _all(ledger, await db.session("agent:main:web:1"))


async def _all(ledger: Ledger, session: sessiondb.Session) -> None:
    for number in range(20):
        await _insist(ledger, session, f"number {number} {'x' * (10 if number % 3 else 9_000)}")


async def _insist(ledger: Ledger, session: sessiondb.Session, text: str) -> None:
    with ledger.operation(f"append {text[:20]}", retry=True) as operation:
        operation.shows(ENTRY, says(text))
        operation.shows("SELECT count(*) FROM entry WHERE idempotency_key = ?", text[:20])
        taken = False
        with anyio.fail_after(PATIENCE_S):
            while not taken:
                taken = await _try(session, text)


async def _try(session: sessiondb.Session, text: str) -> bool:
    try:
        await session.append(user(text), idempotency_key=text[:20])
    except StoreBusy as busy:
        await anyio.sleep((busy.retry_after_ms or 1) / 1_000)  # what a client is told to wait
        return False
    except (OutcomeUnknown, StoreFailed, NotExecuted):
        return False
    return True


# -- after a cut -----------------------------------------------------------------------


async def again(path: Path, ledger: Ledger) -> None:
    """Start after a cut as a gateway does: recover, finish what retention had begun, and go on."""
    async with opened(path) as db:
        await db.recover()
        await db.gc(RetentionPolicy())
        for number in range(3):
            await append(
                ledger,
                await db.session(f"agent:main:again:{number}"),
                f"again {number} {'x' * 3_000}",
            )
            with ledger.operation(f"accept again {number}") as operation:
                await db.accept(
                    "agent:main:again:0", user("hello"), channel="web", event_id=f"again {number}"
                )
                operation.shows("SELECT count(*) FROM inbox WHERE event_id = ?", f"again {number}")


WORKLOADS = [
    Workload("create", create, folder="new/deeper"),
    Workload("talk", talk),
    Workload("contexts", contexts),
    Workload("gateway", gateway),
    Workload("keep", keep),
    Workload("copies", copies),
    Workload("migrate", migrate, prepare=version_1),
    Workload("import", bring_in),
    Workload("two", two),
    Workload("failing", failing),
]
