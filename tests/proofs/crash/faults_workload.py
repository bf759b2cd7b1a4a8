"""A mixed load on a disk that fails, judged by what its client was told.

`Run` is one life of a gateway. It opens a copy of `make_template`'s database. Then it
does everything at the same time: it appends to two conversations, compacts a third,
accepts messages, answers and sends replies, imports, archives, backs up and reads.
Every call goes into a ledger with all that its client was told: acknowledged, or for
each attempt `outcome_of(error)`. Some calls stop at their first error. The others are
retried under the same idempotency key until they are acknowledged. Then the disk is
healed, and each retry must succeed, without reopening anything.

`Examiner` is another process, which never had the file open. It examines two states.
The first is a copy of database and WAL made while the gateway runs and is idle, as
after a kill -9. The second is the file after close(). `compare` holds both against the
ledger:

    acknowledged, at any attempt             exactly once
    every attempt "not_executed"             absent
    some attempt "unknown", none succeeded   once or not at all

Violations are collected in `Run.violations`, not raised. The harness's own tests break
the engine and expect them there.
"""

from __future__ import annotations

import gc
import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import apsw

import sessiondb
import sessiondb.sync
from sessiondb.clock import iso_from_ms, now_ms
from sessiondb.errors import CompactionRefused, SessionDBError, StoreDamaged, outcome_of
from sessiondb.gateway.recovery import ResumePolicy
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from sessiondb.limits import Limits
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.models import Reply
from tests import ROOT as CHECKOUT
from tests.proofs.crash.faults import Disk, Fault
from tests.support.leaks import open_files, our_threads

# A run that takes longer than this hangs. It takes a fraction of a second on a quiet machine.
PATIENCE_S = 60.0
# What a client tries before it waits for the disk to be healed, and the most it ever
# tries afterwards.
TRIES_ILL, TRIES_WELL = 3, 200
LIMITS = Limits(wal_bytes_max=64 * 1024, wal_retry_ms=0, read_age_s_max=30.0)
# Long enough for a turn on a loaded machine. After an unknown claim its message is
# taken over when it is up.
LEASE_S = 3.0
ADVICE = re.compile(
    r"retry|read again|check|free space|restore|run |start again|move |open |choose|restart",
    re.IGNORECASE,
)
MARK = re.compile(r"<<([^<>]+)>>")

CHATS = tuple(f"agent:main:test:direct:{name}" for name in ("one", "two", "three"))
OLD = ("old-1", "old-2")


# -- before ----------------------------------------------------------------------------


def make_template(folder: Path) -> Path:
    """Make the database that every run begins with, on a healthy disk."""
    path = folder / "template.db"
    with sessiondb.sync.open(path) as db:
        for key in CHATS:
            session = db.session(key)
            session.append_many(
                [
                    marked(f"{key} {at}", "x" * 300, role="user" if at % 2 else "assistant")
                    for at in range(12)
                ]
            )
            session.pin()
        for name in OLD:
            old = db.create_session(name)
            old.append_many([marked(f"{name} {at}", "y" * 900) for at in range(20)])
    with closing(apsw.Connection(str(path))) as connection:
        month_ago = 30 * 86_400_000
        connection.execute(
            (
                "UPDATE session SET updated_at_ms = updated_at_ms - ?, created_at_ms = "
                "created_at_ms - ? WHERE session_id GLOB 'old-*'"
            ),
            (month_ago, month_ago),
        )
    # The retention of `_gc` is not to take it away: it goes by the times of the entries.
    now = iso_from_ms(now_ms())
    lines = [
        json.dumps(
            {
                "type": "session",
                "version": 3,
                "id": "imported",
                "timestamp": now,
                "cwd": "/x",
            }
        )
    ]
    lines += [
        json.dumps(
            {
                "type": "message",
                "id": f"m{at}",
                "parentId": f"m{at - 1}" if at else None,
                "timestamp": now,
                "message": marked(f"import {at}", "z" * 200),
            }
        )
        for at in range(IMPORTED)
    ]
    (folder / "import").mkdir()
    (folder / "import" / "imported.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


IMPORTED = 110


def marked(mark: str, text: str = "", role: str = "user") -> dict[str, Any]:
    """Return a message that carries a mark, so that it can be counted wherever it ends up."""
    body = f"<<{mark}>> {text}"
    if role == "user":
        return {"role": "user", "content": body}
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": body}],
        "provider": "p",
        "model": "m",
        "stopReason": "stop",
    }


# -- the ledger ------------------------------------------------------------------------


@dataclass
class Call:
    """One call of the client, under one idempotency key, and all that it was told."""

    op: str
    marks: tuple[str, ...]
    make: Callable[[], Awaitable[Any]]
    insists: bool
    outcomes: list[str] = field(default_factory=list)
    acknowledged: bool = False
    final: bool = False
    """The database refused it for a reason of its own (the rules), so it is not tried again."""

    @property
    def may_be_found(self) -> set[int]:
        """How often each of its marks may be found."""
        if self.acknowledged:
            return {1}
        return {0, 1} if "unknown" in self.outcomes else {0}


@dataclass
class Run:
    """One life of a gateway on a disk that fails."""

    folder: Path
    template: Path
    disk: Disk
    seed: int
    reads_are_safe: bool = False
    """The fault does not touch what a read needs, so no read may fail."""
    strikes_late: bool = False
    """The fault is armed when the database is open and has been read, instead of before
    it is opened.
    """
    arm: Callable[[Disk], None] = lambda disk: None
    heavy: tuple[str, ...] = ("import", "gc", "backup")
    """Which of the larger jobs run beside the conversations."""
    tries_well: int = TRIES_WELL
    looks_like_damage: bool = False
    """SQLite takes the fault for damage of the file, in a running statement.

    Then so may a client, who is told to check the disk first.
    """
    at_close: Fault | None = None
    """What fails while it is closed."""
    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    reads_failed: int = 0
    delivered: Counter[str] = field(default_factory=Counter)
    compactions: dict[str, Call] = field(default_factory=dict)
    backups: dict[str, Call] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    _over: bool = False

    def __post_init__(self) -> None:
        self.path = self.folder / "gateway.db"
        self.chance = random.Random(self.seed)  # a course, not a secret

    # -- what is said to the client ----------------------------------------------------

    def wrong(self, what: str) -> None:
        self.violations.append(what)

    def note(self, op: str, error: Exception) -> None:
        """Judge an error that a client saw."""
        if isinstance(error, SystemError) and "apsw.Backup" in str(error):
            # apsw's own: finishing a backup during which a VFS written in Python
            # raised. The real VFS raises nothing.
            self.errors[f"{op}: SystemError of apsw"] += 1
            return
        self.errors[f"{op}: {type(error).__name__} {outcome_of(error)}"] += 1
        if not isinstance(error, SessionDBError):
            self.wrong(
                f"{op} raised {type(error).__module__}.{type(error).__name__}, which is none of "
                f"sessiondb's: {error}"
            )
        elif not ADVICE.search(str(error)):
            self.wrong(f"{op}: the error does not say what to do: {type(error).__name__}: {error}")

    def _passes(self, error: Exception) -> bool:
        """Return whether an error says that the same call may succeed later."""
        if isinstance(error, StoreDamaged):
            return self.looks_like_damage
        return (
            not isinstance(error, SessionDBError) or error.retry
        )  # errors that are none of ours were noted already

    async def attempt(self, call: Call, tries: int) -> Any:
        """Make a call, again after errors if it is one that insists.

        Everything it is told goes into the ledger.
        """
        for _ in range(tries if call.insists else 1):
            try:
                value = await call.make()
            except CompactionRefused as refused:
                call.outcomes.append(outcome_of(refused) or "unknown")
                call.final = True
                return None
            except Exception as error:  # noqa: BLE001  # it is judged and noted
                call.outcomes.append(outcome_of(error) or "unknown")
                self.note(call.op, error)
                if not self._passes(error):
                    self.wrong(
                        f"{call.op}: {type(error).__name__} says that the same call cannot "
                        f"succeed later: {error}"
                    )
                await anyio.sleep(
                    min(0.05, getattr(error, "retry_after_ms", 0) / 1000)
                    if isinstance(error, SessionDBError)
                    else 0
                )
            else:
                call.acknowledged = True
                return value
        return None

    async def call(
        self,
        op: str,
        marks: tuple[str, ...],
        make: Callable[[], Awaitable[Any]],
        *,
        insists: bool | None = None,
    ) -> Call:
        """Put a call into the ledger and make it."""
        created = Call(op, marks, make, self.chance.random() < 0.6 if insists is None else insists)
        self.calls.append(created)
        await self.attempt(created, TRIES_ILL)
        return created

    # -- the life ----------------------------------------------------------------------

    async def live(self) -> None:
        """Open, work, be healed, settle, and leave the rest to `close`.

        Returns with the database open and idle.
        """
        if not self.strikes_late:
            self.arm(self.disk)
        self.db = db = await self._open()
        if self.strikes_late:
            for _ in range(3):
                await self._read_once()
            self.arm(self.disk)
        async with anyio.create_task_group() as loops:
            for loop in (self._lane, self._resume_lane, self._outbox, self._resume):
                loops.start_soon(self._loop, loop)
            loops.start_soon(self._reader)
            async with anyio.create_task_group() as patient:
                if "import" in self.heavy:
                    patient.start_soon(
                        self._import
                    )  # it waits for a better disk by itself, for long
                async with anyio.create_task_group() as work:
                    for task in (
                        self._append_singly,
                        self._append_together,
                        self._compact,
                        self._accept,
                    ):
                        work.start_soon(task)
                    for name, job in (("gc", self._gc), ("backup", self._backup)):
                        if name in self.heavy:
                            work.start_soon(job)
                if self.disk.fault is None or self.disk.fault.lasting:
                    self.disk.heal()
            await self._settle()
            self._over = True
            loops.cancel_scope.cancel()
        self.stats = db.backend.stats()

    async def _open(self) -> sessiondb.SessionDB:
        failures = 0
        while True:
            db = sessiondb.open(self.path, program="faults", limits=LIMITS)
            try:
                return await db.__aenter__()
            except Exception as error:  # noqa: BLE001  # it is judged and noted
                self.note("open", error)
            failures += 1
            if failures >= TRIES_ILL:
                self.disk.heal()
            if failures >= TRIES_ILL + 3:
                self.wrong("the database cannot be opened on a healthy disk")
                raise RuntimeError("cannot go on")

    async def _append_singly(self) -> None:
        session = await self._session(CHATS[0])
        for at in range(8):
            size = self.chance.choice([50, 2_000, 12_000])
            message = marked(mark := f"single {at}", "a" * size)
            await self.call(
                "append",
                (mark,),
                lambda message=message, mark=mark: session.append(message, idempotency_key=mark),
            )

    async def _append_together(self) -> None:
        session = await self._session(CHATS[1])
        for at in range(5):
            marks = tuple(f"together {at}.{part}" for part in range(3))
            items = [sessiondb.Item(marked(mark, "b" * 700), key=mark) for mark in marks]
            await self.call(
                "append_many",
                marks,
                lambda items=items: session.append_many(items),
            )

    async def _session(self, key: str) -> sessiondb.Session:
        """A read on the way to a write.

        Tried until it answers, because the client cannot go on without it.
        """
        for _ in range(TRIES_WELL):
            try:
                return await self.db.session(key)
            except Exception as error:  # noqa: BLE001  # it is judged and noted
                self._note_read("session", error)
                if self.reads_failed > TRIES_ILL:
                    self.disk.heal()
        self.wrong(f"session {key} cannot be found on a healthy disk")
        raise RuntimeError("cannot go on")

    async def _compact(self) -> None:
        session = await self._session(CHATS[2])
        begun: list[Any] = []

        async def compact() -> None:
            async with session.compact(keep_recent_tokens=100) as job:
                begun.append(job)
                self.compactions[job.id] = created
                await job.commit("They talked.")

        created = Call("compaction", (), compact, insists=False)
        self.calls.append(created)
        await self.attempt(created, 1)
        if begun and not created.acknowledged:
            # The job is known, so its commit can be repeated, however late.
            compaction_id = begun[-1].id
            created.make = lambda: self.db.commit_compaction(compaction_id, "They talked.")
            created.insists, created.final = True, False
            await self.attempt(created, TRIES_ILL)

    async def _accept(self) -> None:
        for at in range(4):
            mark = f"in {at}"
            key = f"agent:main:test:direct:accept-{at % 2}"
            await self.call(
                "accept",
                (mark,),
                lambda mark=mark, key=key: self.db.accept(
                    key, marked(mark), channel="test", event_id=mark
                ),
            )

    async def _import(self) -> None:
        folder = self.template.parent / "import"

        async def bring() -> None:
            report = await self.db.import_path(folder)
            [file] = report.files
            if file.status not in ("imported", "unchanged", "grown"):
                # Part of a receipt and not an exception: the batches before the error
                # are in, the rest is not.
                self.errors[f"import: {file.status}"] += 1
                raise sessiondb.OutcomeUnknown(
                    f"{file.note}; import again, or check the disk (retry)"
                )

        await self.call(
            "import", tuple(f"import {at}" for at in range(IMPORTED)), bring, insists=True
        )

    async def _gc(self) -> None:
        policy = RetentionPolicy(max_age_days=7, idle_days=1)

        async def collect() -> None:
            report = await self.db.gc(policy)
            if report.count("failed"):
                notes = "; ".join(
                    str(decision.note)
                    for decision in report.decisions
                    if decision.outcome == "failed"
                )
                self.errors["gc: failed"] += 1
                raise sessiondb.OutcomeUnknown(f"{notes} (retry)")

        await self.call("gc", (), collect, insists=True)

    async def _backup(self) -> None:
        for at in range(2):
            target = str(self.folder / f"backup-{at}.db")
            created = await self.call(
                "backup", (), lambda target=target: self.db.backend.backup(target), insists=False
            )  # type: ignore[attr-defined]
            self.backups[target] = created

    # -- loops -------------------------------------------------------------------------

    async def _loop(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop of a gateway. It must continue whatever the disk does.

        That holds from its first read of the database until it is cancelled.
        """
        try:
            await loop()
        except Exception as error:  # noqa: BLE001  # it is judged and noted
            self.note(loop.__name__, error)
            self.wrong(f"{loop.__name__} ended by itself: {type(error).__name__}: {error}")
            self.disk.heal()  # so that the run comes to an end
            await loop()

    async def _lane(self) -> None:
        await self.db.run_lane("main", self._think, settings=LaneSettings(lease_s=LEASE_S))

    async def _resume_lane(self) -> None:
        # A message whose claim was committed without anybody hearing of it comes back
        # here when its lease has run out.
        await self.db.run_lane("resume", self._think, settings=LaneSettings(lease_s=LEASE_S))

    async def _think(self, turn: Turn) -> Answer:
        [mark] = MARK.findall(turn.message["content"])
        number = mark.split()[-1]
        return Answer(
            [marked(f"answer {number}", role="assistant")], [("test", marked(f"reply {number}"))]
        )

    async def _outbox(self) -> None:
        async def deliver(reply: Reply) -> str:
            [mark] = MARK.findall(reply.payload)
            self.delivered[mark] += 1
            return f"receipt {mark}"

        await self.db.run_outbox(deliver, lease_s=LEASE_S)

    async def _resume(self) -> None:
        policy = ResumePolicy(breaker_unclean_starts=1_000_000, budget_per_start=1_000)
        while True:
            await anyio.sleep(0.2)
            try:
                await self.db.resume(policy)
            except SessionDBError as error:
                self.note("resume", error)

    async def _reader(self) -> None:
        while not self._over:
            await self._read_once()
            await anyio.sleep(0.001)

    async def _read_once(self) -> None:
        try:
            session = await self.db.session(CHATS[self.reads % 3], create=False)
            entries, context = await session.entries(last=5), await session.context()
        except Exception as error:  # noqa: BLE001  # it is judged and noted
            self._note_read("read", error)
            return
        self.reads += 1
        if [len(MARK.findall(entry.payload)) for entry in entries if entry.type == "message"].count(
            1
        ) < min(4, len(entries)):
            self.wrong(
                f"a read returned what nobody wrote: {[entry.payload[:80] for entry in entries]}"
            )
        if not context.messages:
            self.wrong("a read returned an empty context")

    def _note_read(self, op: str, error: Exception) -> None:
        self.reads_failed += 1
        self.note(op, error)
        if self.reads_are_safe:
            self.wrong(
                f"a read failed, though the fault is none of reading: {type(error).__name__}: "
                f"{error}"
            )
        elif not self._passes(error):
            self.wrong(
                f"a read's {type(error).__name__} says that the same call cannot succeed later: "
                f"{error}"
            )

    # -- after the fault ---------------------------------------------------------------

    async def _settle(self) -> None:
        """Settle everything on a healthy disk.

        What is retried succeeds, what was accepted is answered, what was answered is
        sent.
        """
        # A write comes first: what insists has to succeed once the disk is well, and not before
        # a failed connection was opened again.
        proof = Call("append", ("proof",), self._prove, insists=True)
        self.calls.append(proof)
        await self.attempt(proof, self.tries_well)
        if not proof.acknowledged:
            self.wrong("after the fault nothing can be appended")
            return
        for call in self.calls:
            if call.insists and not call.acknowledged and not call.final:
                await self.attempt(call, self.tries_well)
                if not call.acknowledged and not call.final:
                    self.wrong(
                        f"{call.op} {call.marks[:1]} never succeeded on a healthy disk: "
                        f"{dict(self.errors)}"
                    )
        while True:
            seen = self.db.backend.change_count
            try:
                if not await self._unsettled():
                    return
            except SessionDBError as error:
                self._note_read("unsettled", error)
            await self.db.backend.wait_change(seen, 0.05)

    async def _prove(self) -> None:
        session = await self._session(CHATS[0])
        await session.append(marked("proof"), idempotency_key="proof")

    async def _unsettled(self) -> bool:
        return await self.db.read("unsettled", lambda tx: tx.one("faults.unsettled").n > 0)

    async def why_unsettled(self) -> str:
        """Say what a run that does not end is waiting for."""
        calls = [
            (call.op, call.marks[:1], call.outcomes)
            for call in self.calls
            if not (call.acknowledged or call.final or call.outcomes)
        ]
        try:
            rows = await self.db.read(
                "unsettled", lambda tx: [tuple(row) for row in tx.all("faults.open")]
            )
        except SessionDBError as error:
            rows = [("unreadable", str(error))]
        return f"rows {rows}, calls without an end {calls}, healed {not self.disk.is_ill}"

    async def close(self) -> None:
        """Close. What the disk does meanwhile is no reason for close() to fail."""
        self.disk.fault = self.at_close or self.disk.fault
        try:
            await self.db.close()
        except Exception as error:  # noqa: BLE001  # it is judged and noted
            self.wrong(f"close() raised {type(error).__name__}: {error}")

    def look_for_leaks(self) -> None:
        """After close(): no connection, thread or descriptor of ours is left."""
        gc.collect()
        left = [
            str(connection.filename)
            for connection in apsw.connections()
            if str(self.folder) in str(connection.filename)
        ]
        if left:
            self.wrong(f"connections left open: {left}")
        threads = sorted(thread.name for thread in our_threads())
        if threads:
            self.wrong(f"threads left: {threads}")
        files = open_files(self.folder)
        if files:
            self.wrong(f"descriptors left open: {files}")
        partial = [file.name for file in self.folder.iterdir() if file.name.endswith(".partial")]
        if partial:
            self.wrong(f"files left behind: {partial}")

    # -- the verdict -------------------------------------------------------------------

    def compare(self, found: dict[str, Any], when: str) -> None:
        """Hold what the examiner found against the ledger."""
        for finding in found["findings"]:
            self.wrong(f"{when}: {finding}")
        marks = found["marks"]
        for call in self.calls:
            counts = {marks.get(mark, 0) for mark in call.marks}
            partly = call.op == "import"  # in transactions of its own, one after another
            if call.marks and (not counts <= call.may_be_found or (len(counts) > 1 and not partly)):
                self.wrong(
                    f"{when}: {call.op} {call.marks[0]!r} was told {call.outcomes}, acknowledged "
                    f"{call.acknowledged}, "
                    f"and is there {sorted(counts)} times"
                )
        self._compare_compactions(found, when)
        for mark, count in marks.items():
            if count > 1 and mark.split()[0] in ("answer", "reply"):
                self.wrong(f"{when}: {mark!r} is there {count} times")
        for mark, states in found["replies"].items():
            sent = self.delivered[mark]
            if sent > 1 or (states == ["sent"] and sent != 1) or (states == ["pending"] and sent):
                self.wrong(f"{when}: {mark!r} is {states} and was delivered {sent} times")
        lost = [mark for mark in self.delivered if mark not in found["replies"]]
        if lost:
            self.wrong(f"{when}: delivered, and not in the outbox: {lost}")

    def _compare_compactions(self, found: dict[str, Any], when: str) -> None:
        committed = [
            compaction_id
            for compaction_id, state in found["compactions"].items()
            if state == "committed"
        ]
        if found["compaction_epochs"] != len(committed):
            self.wrong(
                f"{when}: {len(committed)} compactions committed and "
                f"{found['compaction_epochs']} epochs begun by one"
            )
        for compaction_id, call in self.compactions.items():
            state = found["compactions"].get(compaction_id)
            if call.acknowledged and state != "committed":
                self.wrong(f"{when}: compaction acknowledged as committed is {state}")
            if not call.acknowledged and "unknown" not in call.outcomes and state == "committed":
                self.wrong(f"{when}: compaction told {call.outcomes} is committed")

    def check_backups(self) -> None:
        """A backup that was acknowledged is a whole database. One that was not is not there."""
        for target, call in self.backups.items():
            there = Path(target).exists()
            if call.acknowledged != there:
                self.wrong(
                    f"backup: acknowledged {call.acknowledged}, told {call.outcomes}, and it is "
                    f"{'there' if there else 'not there'}"
                )


# -- the examiner ----------------------------------------------------------------------


class Examiner:
    """Another process that looks at databases. It never uses the faulty disk."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.proofs.crash.faults_workload"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )

    def look(
        self, path: Path, *, copy_to: Path | None = None, backups: list[str] | None = None
    ) -> dict[str, Any]:
        """Examine a database, or a copy of it and its WAL made by the examiner."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        request = {
            "path": str(path),
            "copy_to": str(copy_to) if copy_to else None,
            "backups": backups or [],
        }
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError("the examiner died; its traceback is on stderr")
        found: dict[str, Any] = json.loads(answer)
        return found

    def stop(self) -> None:
        """End the process."""
        self._child.communicate("")


def examine(path: Path) -> dict[str, Any]:
    """Open a database as a gateway that starts does, and count everything in it."""
    findings: list[str] = []
    with sessiondb.sync.open(path, program="examiner") as db:
        report = db.verify()
        findings += [
            f"verify: {finding}" for finding in report.findings if finding.severity == "error"
        ]
        for name in OLD:
            try:
                db.unarchive(name)
            except sessiondb.InvalidInput:
                continue  # it was not archived
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        said_ok = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        if said_ok != ["ok"]:
            findings += [f"integrity_check: {line}" for line in said_ok]
        findings += [
            f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")
        ]
        marks: Counter[str] = Counter()
        for (payload,) in connection.execute("SELECT payload FROM entry"):
            marks.update(MARK.findall(payload))
        inbox: Counter[str] = Counter()
        for event_id, entry_no in connection.execute(
            "SELECT event_id, entry_no FROM inbox WHERE channel = 'test'"
        ):
            inbox[event_id] += 1
            in_transcript = marks.pop(event_id, 0)
            if in_transcript != (1 if entry_no is not None else 0):
                findings.append(
                    f"message {event_id!r} is {in_transcript} times in the transcript, entry "
                    f"{entry_no}"
                )
        marks.update(inbox)
        findings += [
            f"{mark!r} of the template is there {marks[mark]} times"
            for mark in template_marks()
            if marks[mark] != 1
        ]
        replies: dict[str, list[str]] = {}
        for payload, state in connection.execute("SELECT payload, state FROM outbox"):
            [mark] = MARK.findall(payload)
            replies.setdefault(mark, []).append(state)
            marks[mark] += 1
        compactions = dict(
            connection.execute("SELECT compaction_id, state FROM compaction").fetchall()
        )
        epochs = connection.execute(
            "SELECT count(*) FROM epoch WHERE reason = 'compaction'"
        ).fetchall()[0][0]
    return {
        "findings": findings,
        "marks": marks,
        "replies": replies,
        "compactions": compactions,
        "compaction_epochs": epochs,
    }


def template_marks() -> list[str]:
    """Return the marks that every database has from the beginning."""
    return [f"{key} {at}" for key in CHATS for at in range(12)] + [
        f"{name} {at}" for name in OLD for at in range(20)
    ]


def _serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        path = Path(request["path"])
        if request["copy_to"] is not None:
            folder = Path(request["copy_to"])
            folder.mkdir()
            for suffix in ("", "-wal"):
                if Path(f"{path}{suffix}").exists():
                    shutil.copy(f"{path}{suffix}", folder / f"{path.name}{suffix}")
            path = folder / path.name
        found = examine(path)
        for backup in request["backups"]:
            found["findings"] += [
                f"backup: {finding}" for finding in examine(Path(backup))["findings"]
            ]
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    _serve()
