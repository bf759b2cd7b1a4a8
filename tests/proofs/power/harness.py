"""Judge power cuts.

Acknowledged operations must be there. Others are there wholly or not at all.

A workload runs through the real library on a recorded disk (`proofs/power/disk.py`) and
keeps a `Ledger`. The ledger has each operation, when it was begun and acknowledged, and
how the database shows that it has happened. From the record follow the *states* that
the database went through, one per commit, read with every write kept. Each state must
be sound (SQLite's own check and `verify`). No operation may be half in it, or twice, or
before it was begun. So the first state with a given operation is known.

Then the power is cut, again and again. The rebuilt file must open, be sound, and equal
one of the states row for row, in every table. That state may not be earlier than that
of the last acknowledged operation, nor one that had not been written. It follows which
of the unfinished operations are in it.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import random
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread
import apsw

import sessiondb
from sessiondb.maintenance import verify
from sessiondb.sqlite.schema import SCHEMA_VERSION
from sessiondb.sqlite.transaction import Snapshot
from tests.proofs.power.disk import (
    FOLDER,
    LOSSES,
    Believe,
    Disk,
    Log,
    Loss,
    Mark,
    Name,
    Recorder,
    Sync,
    SyncFolder,
    commits,
    draw_loss,
    lay_out,
)

DATABASE = "gateway.db"
EVERYTHING = Loss("everything kept", lambda event, piece: True)
# One test shows no more problems than these. The rest is counted.
SHOWN = 12

# -- what the client knows -------------------------------------------------------------


@dataclass
class Operation:
    """Something that was asked for. Each condition is a count: 0 it has not happened, 1 it has."""

    name: str
    begun: int
    """Position in the log when it was begun."""
    done: int | None = None
    """... and when it was acknowledged."""
    conditions: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    first: int | None = None
    """The first state that shows it: from then on it stays at least until it is acknowledged."""

    def shows(self, sql: str, *values: Any) -> Self:
        """Say how it is seen that it has happened, when it has and not before.

        Several conditions come true together.
        """
        self.conditions.append((sql, values))
        return self

    def counts(self, connection: apsw.Connection) -> list[int]:
        return [connection.execute(sql, values).fetchall()[0][0] for sql, values in self.conditions]


@dataclass(frozen=True)
class Copy:
    """A file that the library makes beside the database, complete whenever it has its name."""

    path: str
    """Below the root."""
    content: bytes | None
    """None: a database, equal to a state between `begun` and `done`."""
    begun: int
    done: int


@dataclass
class Rule:
    """What must hold in every state of a stretch of the log."""

    name: str
    since: int
    holds: Callable[[apsw.Connection], bool]
    until: float = math.inf


class Ledger:
    """What a client began and what was acknowledged to it, in the log's own order."""

    def __init__(self, recorder: Recorder, seed: int) -> None:
        self.recorder = recorder
        self.root = Path(recorder.root)
        self.dice = random.Random(seed)
        self.operations: list[Operation] = []
        self.copies: list[Copy] = []
        self.rules: list[Rule] = []

    @contextmanager
    def operation(self, name: str, *, retry: bool = False) -> Iterator[Operation]:
        """Surround a call: begun on entering, acknowledged on leaving.

        The block says by what it is seen.

        With `retry` it is the same operation as an earlier one of that name, perhaps of
        a process that was killed.
        """
        begun = self.recorder.mark(f"begun: {name}")
        operation = next(
            (earlier for earlier in self.operations if retry and earlier.name == name), None
        )
        if operation is None:
            operation = Operation(name, begun)
            self.operations.append(operation)
        operation.conditions.clear()
        yield operation
        done = self.recorder.mark(f"acknowledged: {name}")
        operation.done = done if operation.done is None else operation.done

    def now(self) -> int:
        """Return the present position in the log."""
        return len(self.recorder.log.events)

    def known(self, name: str, *, since: int) -> Operation:
        """Note something that must be on disk by now, whoever did it.

        The caller says by what it is seen.
        """
        operation = Operation(name, since, self.recorder.mark(f"known: {name}"))
        self.operations.append(operation)
        return operation

    def always(self, name: str, holds: Callable[[apsw.Connection], bool]) -> None:
        """From now on something must hold in every state."""
        self.rules.append(Rule(name, self.now(), holds))

    def no_longer(self, name: str) -> None:
        """From now on it need not."""
        for rule in self.rules:
            if rule.name == name:
                rule.until = self.now()


Run = Callable[[Path, Ledger], Awaitable[None]]


@dataclass(frozen=True)
class Workload:
    name: str
    run: Run
    prepare: Callable[[Path], None] = lambda path: None
    """Makes what is there, durably, before the recording begins."""
    folder: str = ""
    """Where the database is, below the root."""


@dataclass
class Record:
    """One run of a workload."""

    workload: Workload
    log: Log
    ledger: Ledger

    @property
    def database(self) -> str:
        return str(Path(self.workload.folder) / DATABASE)


def record(
    workload: Workload, root: Path, seed: int, *, believe: Believe = lambda kind, path: True
) -> Record:
    """Run a workload on a recorded disk."""
    root.mkdir(parents=True, exist_ok=True)
    workload.prepare(root / workload.folder / DATABASE)
    recorder = Recorder(root, believe=believe)
    return _recorded(workload, recorder, Ledger(recorder, seed))


def _recorded(workload: Workload, recorder: Recorder, ledger: Ledger) -> Record:
    with recorder:
        anyio.run(workload.run, ledger.root / workload.folder / DATABASE, ledger)
    disk = Disk(recorder.log)
    disk.run_to(len(recorder.log.events))
    real = {
        str(file.relative_to(ledger.root)): file.read_bytes()
        for file in ledger.root.rglob("*")
        if file.is_file()
    }
    assert disk.after(EVERYTHING) == real, (
        "the record is incomplete: with everything kept it is not what lies on the disk"
    )
    return Record(workload, recorder.log, ledger)


# -- looking at a database -------------------------------------------------------------


class Unsound(Exception):
    """The file cannot be read, or contradicts itself."""


EMPTY = "empty"


def look(
    path: Path,
    then: Callable[[apsw.Connection], None] = lambda connection: None,
    *,
    check: bool = True,
) -> str:
    """Open a database after a cut, check it, and return its digest.

    Call `then` while it is open.

    Raises:
        Unsound: SQLite finds it damaged.
    """
    if not path.exists():
        return EMPTY
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            connection.config(
                apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1
            )  # it is thrown away afterwards
            digest = _digest(connection)
            damage = connection.execute("PRAGMA integrity_check").fetchall() if check else [("ok",)]
            if damage != [("ok",)]:
                raise Unsound(f"integrity_check: {damage[:3]}")
            if digest != EMPTY:
                then(connection)
    except (apsw.Error, UnicodeDecodeError) as error:
        raise Unsound(repr(error)) from error
    return digest


def _digest(connection: apsw.Connection) -> str:
    schema = connection.execute(
        "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
    ).fetchall()
    if not schema:
        return EMPTY
    hashed = hashlib.blake2b(
        repr((schema, connection.pragma("user_version"))).encode(), digest_size=16
    )
    for kind, name, _ in schema:
        # The name of a WAL (`wal_link`) says nothing about the content. A copy has one of its own.
        if kind == "table" and name != "wal_link":
            hashed.update(
                repr(connection.execute(f'SELECT * FROM "{name}"').fetchall()).encode(
                    "utf-8", "backslashreplace"
                )
            )
    return hashed.hexdigest()


def verify_here(connection: apsw.Connection) -> None:
    """Do what `SessionDB.verify` does, on this connection and thread.

    Raises:
        Unsound: it found something.
    """
    if connection.pragma("user_version") != SCHEMA_VERSION:
        return  # not migrated yet: the library opens it first
    walk = verify.Walk(None, deep=True)
    for step in walk.steps():
        snapshot = Snapshot(connection)
        step(snapshot)
        snapshot.end()
    if not walk.report().ok:
        raise Unsound(f"verify: {walk.report().findings[:3]}")


# -- the states that a database went through -------------------------------------------


@dataclass
class State:
    """What the database held from one commit to the next."""

    position: int
    """In the log, when its commit was in the WAL."""
    digest: str


@dataclass
class History:
    """Every state of a recorded database, and which of them must have survived when."""

    states: list[State]
    operations: list[Operation]
    problems: list[str]
    _known: dict[str, list[int]] = field(default_factory=dict)
    _acknowledged: list[tuple[int, int, str]] = field(default_factory=list)
    """Positions at which the acknowledged state moves on: position, state, the operation's name."""

    def settle(self) -> None:
        for number, state in enumerate(self.states):
            self._known.setdefault(state.digest, []).append(number)
        done = sorted(
            (operation.done, operation.first, operation.name)
            for operation in self.operations
            if operation.done is not None and operation.first is not None
        )
        newest = -1
        for position, number, name in done:
            if number > newest:
                newest = number
                self._acknowledged.append((position, number, name))

    def required(self, position: int) -> tuple[int, str]:
        """Return the earliest state that a cut here may leave, and why.

        The reason is the acknowledgement that requires it.
        """
        at = bisect.bisect_left(self._acknowledged, (position,))
        return (
            (self._acknowledged[at - 1][1], self._acknowledged[at - 1][2]) if at else (0, "nothing")
        )

    def written(self, position: int) -> int:
        """Return the latest state that may be found after a cut here.

        One event before its last page is in the WAL: after a sync that failed, the same
        page may lie there already.
        """
        return bisect.bisect_right(self.states, position + 1, key=lambda state: state.position) - 1

    def numbers(self, digest: str) -> list[int]:
        return self._known.get(digest, [])


def history(taken: Record, folder: Path, *, verify_every: int = 1) -> History:
    """Read every state of a record, with all writes kept.

    Look for operations that are half in one, or twice.
    """
    states: list[State] = []
    problems: list[str] = []
    disk = Disk(taken.log)
    waiting = sorted(taken.ledger.operations, key=lambda operation: operation.begun)
    positions = [
        0,
        *commits(taken.log, str(taken.ledger.root / taken.database)),
        len(taken.log.events),
    ]
    for number, position in enumerate(positions):
        disk.run_to(position)
        # What begins before the next commit is looked for already: it must not be there yet.
        until = positions[number + 1] if number + 1 < len(positions) else position
        with laid_out(disk.after(EVERYTHING), folder) as place:
            state = State(position, EMPTY)

            def examine(
                connection: apsw.Connection,
                number: int = number,
                state: State = state,
                until: int = until,
            ) -> None:
                if number % verify_every == 0:
                    verify_here(connection)
                for operation in [operation for operation in waiting if operation.begun <= until]:
                    if _find(operation, connection, number, state, problems):
                        waiting.remove(operation)
                for rule in taken.ledger.rules:
                    if rule.since <= state.position <= rule.until and not rule.holds(connection):
                        problems.append(f"no longer so at {state.position}: {rule.name}")

            try:
                state.digest = look(
                    place / taken.database, examine, check=number % verify_every == 0
                )
            except Unsound as unsound:
                problems.append(f"unsound although nothing was lost, at {position}: {unsound}")
            states.append(state)
    never = [
        operation for operation in waiting if operation.first is None and operation.done is not None
    ]
    problems += [f"acknowledged, and never there: {operation.name}" for operation in never]
    found = History(states, taken.ledger.operations, problems)
    found.settle()
    return found


def _find(
    operation: Operation,
    connection: apsw.Connection,
    number: int,
    state: State,
    problems: list[str],
) -> bool:
    """Look for an operation in a state.

    Return whether it is settled: there, and acknowledged by then.
    """
    assert operation.conditions, f"{operation.name}: nothing says how it is seen"
    try:
        counts = operation.counts(connection)
    except apsw.SQLError:
        return False  # before a migration that brings its table
    if all(count == 0 for count in counts):
        operation.first = None  # a commit whose outcome nobody knew, and which was overwritten
        return False
    if any(count != 1 for count in counts):
        problems.append(f"half there, or twice, at {state.position}: {operation.name}: {counts}")
        return True
    if operation.first is None:
        operation.first = number
    if state.position < operation.begun:
        problems.append(f"there before it was begun, at {state.position}: {operation.name}")
    # One that was never acknowledged is allowed to go again.
    return operation.done is not None and state.position >= operation.done


@contextmanager
def laid_out(files: Mapping[str, bytes], folder: Path) -> Iterator[Path]:
    """Write a rebuilt disk to a folder for a while."""
    folder.mkdir(parents=True)
    try:
        lay_out(files, folder)
        yield folder
    finally:
        shutil.rmtree(folder)


# -- cutting the power -----------------------------------------------------------------


@dataclass
class Verdict:
    """What became of so many cuts."""

    workload: str
    seed: int
    states: int = 0
    operations: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Cuts by outcome: ok, unsound, mixed (no state that ever was), lost, early (not
    yet written), copy.
    """
    wrong: int = 0
    """What was wrong before the power was cut."""
    losses: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    reopened: int = 0
    disks: int = 0
    """Different ones among those that were rebuilt."""

    @property
    def cuts(self) -> int:
        return self.counts.total()

    @property
    def bad(self) -> int:
        return self.wrong + self.cuts - self.counts["ok"]

    def note(self, outcome: str, where: str, what: str = "") -> None:
        self.counts[outcome] += 1
        if outcome != "ok" and len(self.problems) < SHOWN:
            self.problems.append(f"{outcome}: {where}: {what}")

    def __str__(self) -> str:
        message = (
            f"{self.workload}: {self.cuts} cuts (seed {self.seed}, {self.disks} different disks), "
        )
        message += f"{self.operations} operations, {self.states} states: {dict(self.counts)}"
        message += f"; {self.wrong} wrong before; opened by the library: {self.reopened}"
        return "\n  ".join([message, *self.problems])


def cut_points(log: Log, count: int, dice: random.Random, since: int = 0) -> list[int]:
    """Choose where to cut.

    Just before a sync or a name, just after one or after an acknowledgement, or
    anywhere.
    """
    events = list(enumerate(log.events))[since:]
    before = [number for number, event in events if isinstance(event, Sync | SyncFolder | Name)]
    after = [
        number + 1 for number, event in events if isinstance(event, Sync | SyncFolder | Name | Mark)
    ]
    anywhere = range(since, len(log.events) + 1)
    return sorted(
        dice.choice(dice.choices((before, after, anywhere), (4, 1, 5))[0]) for _ in range(count)
    )


def judge(
    taken: Record,
    cuts: int,
    seed: int,
    folder: Path,
    *,
    since: int = 0,
    reopen_every: int = 0,
    verify_every: int = 1,
) -> Verdict:
    """Cut the power `cuts` times in a record, and return what was found.

    With a position, only in the part after it.

    Every so many of them the library itself opens what was left and goes on. Every so
    many states are verified.
    """
    past = history(taken, folder / "state", verify_every=verify_every)
    verdict = Verdict(
        taken.workload.name,
        seed,
        len(past.states),
        len(taken.ledger.operations),
        problems=past.problems[:SHOWN],
    )
    verdict.wrong = len(past.problems)
    dice = random.Random(f"{seed} {taken.workload.name}")
    disk = Disk(taken.log)
    seen: dict[bytes, dict[str, str | Unsound]] = {}
    for number, position in enumerate(cut_points(taken.log, cuts, dice, since)):
        disk.run_to(position)
        pending = disk.pending()
        name = dice.choice(LOSSES) if pending else "all kept"
        files = disk.after(draw_loss(name, list(pending), pending, dice))
        if dice.random() < 0.3 and taken.database in files:
            files[taken.database + "-shm"] = dice.randbytes(
                32_768
            )  # of the life before. SQLite makes it anew
        verdict.losses[name] += 1
        where = f"cut {number} at {position} of {len(taken.log.events)}, {name}"
        key = hashlib.blake2b(repr(sorted(files.items())).encode()).digest()
        if key not in seen:
            seen[key] = _look_at_all(taken, files, folder / "cut")
        _judge_cut(taken, past, position, files, seen[key], where, verdict)
        if reopen_every and number % reopen_every == 0:
            _judge_life_after(taken, files, folder / "life", where, verdict)
    verdict.disks = len(seen)
    return verdict


def _look_at_all(
    taken: Record, files: Mapping[str, bytes], folder: Path
) -> dict[str, str | Unsound]:
    """Look at the database, and at its copies that are there. Return digests, or what is wrong."""
    found: dict[str, str | Unsound] = {}
    with laid_out(files, folder) as place:
        for name in [
            taken.database,
            *(
                copy.path
                for copy in taken.ledger.copies
                if copy.content is None and copy.path in files
            ),
        ]:
            try:
                found[name] = look(place / name)
            except Unsound as unsound:
                found[name] = unsound
    return found


def _judge_cut(
    taken: Record,
    past: History,
    position: int,
    files: Mapping[str, bytes],
    seen: Mapping[str, str | Unsound],
    where: str,
    verdict: Verdict,
) -> None:
    """Say what became of one cut: the first thing that is wrong with it, or that nothing is."""
    outcome, what = _judge_database(past, position, seen[taken.database])
    for copy in taken.ledger.copies:
        if outcome == "ok" and (what := _judge_copy(copy, past, position, files, seen)):
            outcome = "copy"
    verdict.note(outcome, where, what)


def _judge_database(past: History, position: int, digest: str | Unsound) -> tuple[str, str]:
    if isinstance(digest, Unsound):
        return "unsound", str(digest)
    numbers, written, (required, whose) = (
        past.numbers(digest),
        past.written(position),
        past.required(position),
    )
    if not numbers:
        return (
            "mixed",
            f"a database as it never was; expected one of the states {required} to {written}",
        )
    if max(numbers) < required:
        return "lost", f"state {max(numbers)} of {required}, which '{whose}' acknowledged"
    if min(numbers) > written:
        return "early", f"state {min(numbers)}, but only {written} had been written"
    return "ok", ""


def _judge_copy(
    copy: Copy,
    past: History,
    position: int,
    files: Mapping[str, bytes],
    seen: Mapping[str, str | Unsound],
) -> str:
    """Return what is wrong with a copy, if anything is."""
    if copy.path not in files:
        return f"{copy.path} was acknowledged and is not there" if position > copy.done else ""
    if copy.content is not None:
        return "" if files[copy.path] == copy.content else f"{copy.path} is there, but not complete"
    digest = seen[copy.path]
    if isinstance(digest, Unsound):
        return f"{copy.path}: {digest}"
    if not any(
        past.written(copy.begun) <= number <= past.written(copy.done)
        for number in past.numbers(digest)
    ):
        return f"{copy.path} equals no state of the time in which it was made"
    return ""


def _judge_life_after(
    taken: Record, files: Mapping[str, bytes], folder: Path, where: str, verdict: Verdict
) -> None:
    """Open what a cut left with the library."""
    try:
        with laid_out(files, folder) as place:  # a copy: looking at it folds the WAL away
            version, entries = _glance(place / taken.database)
    except Unsound:
        return  # has been said
    verdict.reopened += 1
    with laid_out(files, folder) as place:
        try:
            anyio.run(live_on, place / taken.database, version == SCHEMA_VERSION, entries)
        except (sessiondb.SessionDBError, AssertionError) as error:
            verdict.note("unsound", where, f"the library after the cut: {error!r}")


async def live_on(path: Path, is_current: bool, entries: frozenset[Any]) -> None:
    """Read it as a visitor does, then work on as the next start does.

    That is: recover, append, verify.

    Every entry stays.
    """
    if is_current:
        async with sessiondb.open(path, readonly=True) as db:
            report = await db.verify()
            assert report.ok, report.findings[:3]
    async with sessiondb.open(path, program="after the cut") as db:
        await db.recover()
        session = await db.session("agent:main:after:1")
        receipt = await session.append({"role": "user", "content": "the power is back"})
        report = await db.verify()
        assert report.ok, report.findings[:3]
    _, after = _glance(path)
    assert entries < after, "an entry that was there after the cut is gone after the next start"
    assert receipt.entry_no in {entry_no for entry_no, _ in after}


def _glance(path: Path) -> tuple[int, frozenset[Any]]:
    """Return a database's version and its entries. 0 and none when it is not made yet."""
    found: list[tuple[int, frozenset[Any]]] = [(0, frozenset())]

    def glance(connection: apsw.Connection) -> None:
        entries = connection.execute("SELECT entry_no, payload FROM entry").fetchall()
        found.append((connection.pragma("user_version"), frozenset(entries)))

    look(path, glance)
    return found[-1]


# -- twice -----------------------------------------------------------------------------


def after_a_cut(taken: Record, run: Run, dice: random.Random) -> Workload:
    """Return a workload that begins with what a cut somewhere in a record has left, durably."""
    disk = Disk(taken.log)
    disk.run_to(dice.randrange(len(taken.log.events) // 3, len(taken.log.events)))
    pending = disk.pending()
    files = disk.after(draw_loss(dice.choice(LOSSES), list(pending), pending, dice))
    levels = len(Path(taken.workload.folder).parts)

    def prepare(path: Path) -> None:
        lay_out(files, path.parents[levels])

    return Workload(
        f"{taken.workload.name}, cut at {disk.position}, again", run, prepare, taken.workload.folder
    )


def after_a_kill(taken: Record, run: Run, at: int, seed: int) -> Record:
    """Kill the process of a record at a position.

    Another one continues in the same folder.

    Then the power may be cut.

    The second process finds all that the first had written, synced or not: it is still
    in the system's memory.
    """
    disk = Disk(taken.log)
    disk.run_to(at)
    root = taken.ledger.root
    shutil.rmtree(root)
    root.mkdir()
    lay_out(disk.after(EVERYTHING), root)
    for path, number in disk.now.items():
        if number == FOLDER:
            Path(path).mkdir(parents=True, exist_ok=True)
    recorder = Recorder(root, after=disk)
    ledger = Ledger(recorder, seed)
    for operation in taken.ledger.operations:
        if operation.begun < at:
            done = operation.done if operation.done is not None and operation.done < at else None
            ledger.operations.append(
                Operation(operation.name, operation.begun, done, list(operation.conditions))
            )
    ledger.rules = [rule for rule in taken.ledger.rules if rule.since < at <= rule.until]
    ledger.copies = [copy for copy in taken.ledger.copies if copy.done < at]
    again = Workload(
        f"{taken.workload.name}, killed at {at}, again", run, folder=taken.workload.folder
    )
    return _recorded(again, recorder, ledger)
