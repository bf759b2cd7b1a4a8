"""Named steps at which a process can die or stop.

They are hooked into the library from outside.

`install(steps)` wraps functions of the library, and puts a VFS under SQLite, in this
process only. Whenever the process arrives at a step, `steps.arrive(name)` counts it,
and at the chosen arrival at the chosen step sends a signal to the process itself:
SIGKILL, or SIGSTOP for a process that freezes. It is delivered before the call that
sends it returns, so the process is at exactly that step. Steps are named for where they
lie:

    begun, ran OP, before COMMIT of OP, after COMMIT of OP, returned OP
        around every write of the library, by its operation
    between two batches in a turn
        the writer holds nothing, and a handler runs (if the scenario says so)
    between two batches in a call
        likewise, while a channel is called
    statement NAME
        after every statement of a write transaction, by its name in the .sql files
    write/sync/truncate FILE
        before each of these on the main file, the WAL or another file, checkpoints included
    read wal
        likewise: in the recovery of a WAL, and in ordinary reads
    torn FILE
        in the middle of such a write: half of it is in the file
    before/after checkpoint, last checkpoint, schema, link, replace, fsync
    schema statement, backup step, vacuum step, file made, ...

What is written stays in the page cache when a process dies, so this says nothing about
power cuts.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any

import apsw

from sessiondb.sqlite import backup, opening, schema, write_connection
from sessiondb.sqlite.checkpoint import Checkpointer
from sessiondb.sqlite.engine import SqliteBackend
from sessiondb.sqlite.transaction import Snapshot, WriteTransaction
from sessiondb.sqlite.write_connection import WriteConnection
from sessiondb.sqlite.writer import Writer


class Steps:
    """Counts arrivals, and sends the signal at one of them."""

    def __init__(self, step: str = "", nth: int = 1, how: str = "SIGKILL") -> None:
        self.step, self.nth, self.how = step, nth, how
        self.counts: Counter[str] = Counter()
        self.turns = 0
        """Handlers that say that they run now."""
        self.calls = 0
        """Calls of a channel that say so."""
        self._lock = threading.Lock()

    def arrive(self, name: str) -> None:
        """Count an arrival.

        At the chosen one this does not return (or returns when the process is
        continued).
        """
        if self.is_next(name):
            self.die()

    def die(self) -> None:
        """Send the signal to this thread.

        Another thread could take one to the process, and this one would run on for a
        while.
        """
        signal.pthread_kill(threading.get_ident(), getattr(signal, self.how))

    def is_next(self, name: str) -> bool:
        """Count an arrival, and say whether it is the chosen one."""
        with self._lock:
            self.counts[name] += 1
            return name == self.step and self.counts[name] == self.nth


_kept: list[object] = []  # SQLite knows the VFS only as long as somebody holds it


def install(steps: Steps) -> None:
    """Hook every step. For a process that is thrown away afterwards: nothing is undone."""
    _writer(steps)
    _opening(steps)
    _maintenance(steps)
    _kept.append(StepVFS(steps))


def around(
    owner: Any, name: str, before: Callable[[], object], after: Callable[[], object]
) -> None:
    """Wrap a function of a class or module."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapper(*args: Any, **options: Any) -> Any:
        before()
        value = original(*args, **options)
        after()
        return value

    setattr(owner, name, wrapper)


def _nothing() -> None:
    """Stand for no step."""


def _writer(steps: Steps) -> None:
    arrive = steps.arrive
    begin, execute, commit, write, start = (
        Writer._begin,
        Writer._execute,
        Writer._commit,
        SqliteBackend.write,
        Snapshot._start,
    )

    def _begin(self: Writer, *which: Any) -> Any:
        connection = begin(self, *which)
        if connection is not None:
            arrive("begun")
        return connection

    def _execute(self: Writer, connection: Any, request: Any, batch: Any) -> None:
        execute(self, connection, request, batch)
        arrive(f"ran {request.op}")

    def _commit(self: Writer, connection: Any, batch: Any) -> None:
        ops = sorted({request.op for request in batch.succeeded})
        for op in ops:
            arrive(f"before COMMIT of {op}")
        commit(self, connection, batch)
        for op in ops:
            arrive(f"after COMMIT of {op}")

    async def _write(self: SqliteBackend, fn: Any, *, op: str, **options: Any) -> Any:
        value = await write(self, fn, op=op, **options)
        arrive(f"returned {op}")
        return value

    def _start(self: Any, statement: str, params: Any) -> Any:
        found = start(self, statement, params)
        arrive(f"statement {statement}")
        return found

    wait_for_work = Writer._wait_for_work

    def _wait_for_work(self: Writer) -> bool:
        if steps.turns:
            arrive("between two batches in a turn")
        if steps.calls:
            arrive("between two batches in a call")
        return wait_for_work(self)

    patched: Any = Writer
    patched._wait_for_work = _wait_for_work
    patched._begin, patched._execute, patched._commit = _begin, _execute, _commit
    SqliteBackend.write = _write  # type: ignore[method-assign]
    WriteTransaction._start = _start  # type: ignore[method-assign]


def _opening(steps: Steps) -> None:
    around(opening, "make_file", _nothing, lambda: steps.arrive("file made"))
    around(write_connection, "connect_writer", _nothing, lambda: steps.arrive("connected"))
    around(
        WriteConnection,
        "_register",
        lambda: steps.arrive("before registering"),
        lambda: steps.arrive("registered"),
    )
    create = write_connection.create_or_migrate

    def create_or_migrate(connection: apsw.Connection, path: str) -> None:
        def trace(_cursor: object, _sql: str, _bindings: object) -> bool:
            steps.arrive("schema statement")
            return True

        steps.arrive("before schema")
        connection.exec_trace = trace
        try:
            create(connection, path)
        finally:
            connection.exec_trace = None
        steps.arrive("after schema")

    write_connection.create_or_migrate = create_or_migrate  # type: ignore[attr-defined]
    assert schema.create_or_migrate is create


def _maintenance(steps: Steps) -> None:
    arrive = steps.arrive
    around(
        Checkpointer,
        "_reset",
        lambda: arrive("before checkpoint"),
        lambda: arrive("after checkpoint"),
    )
    around(
        write_connection,
        "truncate",
        lambda: arrive("before last checkpoint"),
        lambda: arrive("after last checkpoint"),
    )
    around(
        write_connection,
        "close_quietly",
        lambda: arrive("before the last close"),
        lambda: arrive("after the last close"),
    )
    for name in ("link", "replace", "fsync"):
        around(
            os,
            name,
            lambda name=name: arrive(f"before {name}"),
            lambda name=name: arrive(f"after {name}"),
        )
    for name, step in (("backup", "backup step"), ("incremental_vacuum", "vacuum step")):
        setattr(backup, name, _stepping(getattr(backup, name), lambda step=step: arrive(step)))


def _stepping(
    task: Callable[..., backup.MaintenanceTask], arrive: Callable[[], None]
) -> Callable[..., backup.MaintenanceTask]:
    @wraps(task)
    def wrapper(*args: Any) -> Generator[None, None, int]:
        steps = task(*args)
        try:
            while True:
                next(steps)
                arrive()
                yield
        except StopIteration as finished:
            return int(finished.value)
        finally:
            steps.close()

    return wrapper


class StepVFS(apsw.VFS):
    """The operating system's files, with a step before each change of one."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        super().__init__("steps", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  # SQLite's name
        return StepFile(self.steps, name, flags)


class StepFile(apsw.VFSFile):
    """One open file."""

    def __init__(self, steps: Steps, name: Any, flags: list[int]) -> None:
        self.steps = steps
        self.kind = _kind(name, flags[0])
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> Any:  # noqa: N802
        if self.kind == "wal":
            self.steps.arrive("read wal")
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self.steps.arrive(f"write {self.kind}")
        if self.steps.is_next(f"torn {self.kind}"):
            super().xWrite(bytes(data)[: max(1, len(data) // 2)], offset)
            self.steps.die()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.steps.arrive(f"sync {self.kind}")
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self.steps.arrive(f"truncate {self.kind}")
        super().xTruncate(size)


def _kind(name: Any, flags: int) -> str:
    path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
    if flags & apsw.SQLITE_OPEN_WAL:
        return "wal"
    if flags & apsw.SQLITE_OPEN_MAIN_DB:
        return "copy" if path.endswith(".partial") else "main"
    return "other"
