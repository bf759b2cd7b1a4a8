"""Every place where the disk can fail, one after another, under a mixed load.

A sweep fails the nth call of one kind, once or from then on until the disk is healed,
for n = 1, 2, ... until a run of the load no longer makes that many calls.
`proofs/crash/faults_workload.py` says what each run requires. In short: reads continue,
errors are sessiondb's and say what to do, the ledger holds, the engine recovers by
itself, and nothing is left open. Further tests fill disks, real ones too.

The short version makes one run for each of ten faults (`SHORT`), at a place that differs
by kind, with one of the larger jobs beside the conversations. Only the long version
covers the thirteen faults of `REST`, more than one place for each fault, each fault
both once and lasting, all jobs at once, and the disk that is full for a minute. It is
`SESSIONDB_FAULTS=n`: n runs for each kind, once and lasting, spread over all its places
(`SESSIONDB_FAULTS=all`: at every place). `SESSIONDB_FAULTS_SEED` chooses another
course. The thread that makes the nth call differs from run to run. So a failure is
repeated by its seed and place, if need be several times.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
from sessiondb.errors import (
    NotExecuted,
    OpenError,
    SessionDBError,
    StoreBusy,
    StoreDamaged,
    StoreFailed,
    StoreFull,
)
from sessiondb.gateway import retry
from sessiondb.gateway.running_turn import Answer, Turn
from sessiondb.sqlite import (
    SqliteBackend,
    backup,
    notifier,
    opening,
    readers,
    throttle,
    transaction,
    write_connection,
)
from sessiondb.sqlite.transaction import Prepared
from sessiondb.sqlite.writer import Batch, Writer
from tests.proofs.crash.faults import Disk, Fault, How, Kind, Level, faulty_disk
from tests.proofs.crash.faults_workload import (
    CHATS,
    CHECKOUT,
    LIMITS,
    PATIENCE_S,
    Examiner,
    Run,
    make_template,
    marked,
)
from tests.support.engine import opened, until

LONG = os.environ.get("SESSIONDB_FAULTS", "")
SEED = int(os.environ.get("SESSIONDB_FAULTS_SEED", "20261120"))

# A VFS written in Python cannot raise where SQLite has nobody to tell. Apsw reports
# that to sys.unraisablehook.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SHORT: tuple[tuple[Kind, How], ...] = (
    ("open", "io"),
    ("read", "io"),
    ("write", "io"),
    ("write", "half"),
    ("write", "full"),
    ("sync", "io"),
    ("truncate", "io"),
    ("shm_map", "io"),
    ("shm_lock", "io"),
    ("pwrite()", "ENOSPC"),
)
REST: tuple[tuple[Kind, How], ...] = (
    ("write", "readonly"),
    ("delete", "io"),
    ("size", "io"),
    ("access", "io"),
    ("pread()", "EIO"),
    ("sync", "full"),
    ("open()", "EMFILE"),
    ("pwrite()", "EIO"),
    ("pwrite()", "EDQUOT"),
    ("ftruncate()", "EIO"),
    ("unlink()", "EIO"),
    ("fstat()", "EIO"),
    ("mmap()", "ENOMEM"),
)
SWEEPS = (*SHORT, *REST) if LONG else SHORT
# No read needs any of these. (A reader, too, makes the -shm longer with pwrite(). But
# only for 4,096 frames more, which no run reaches.)
READS_NEED_NONE: tuple[Kind, ...] = (
    "write",
    "sync",
    "truncate",
    "delete",
    "ftruncate()",
    "unlink()",
    "pwrite()",
)
JOBS = ("import", "gc", "backup")

STATEMENTS = {
    "faults.unsettled": """SELECT (SELECT count(*) FROM inbox WHERE state NOT IN ('done', 'dead'))
                                + (SELECT count(*) FROM outbox
                                  WHERE state IN ('pending', 'sending')) AS n""",
    "faults.open": """SELECT 'inbox' AS what, inbox_no AS no, lane, state, attempts, reason
                      FROM inbox WHERE state NOT IN ('done', 'dead')
                      UNION ALL SELECT 'outbox', outbox_no, target, state, attempts, reason
                        FROM outbox
                      WHERE state IN ('pending', 'sending')
                      UNION ALL SELECT 'turn', turn_no, '', state, expires_at_ms, '' FROM turn
                        WHERE state = 'running'""",
}


# -- one run ---------------------------------------------------------------------------


class Field:
    """Where runs take place.

    It has the database that they begin with, the examiner, and how often a healthy run
    makes each call.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "template").mkdir()
        self.folder = folder
        self.template = make_template(folder / "template")
        self.examiner = Examiner()
        self.runs = 0

    def run(
        self,
        arm: Callable[[Disk], None],
        *,
        level: Level = "vfs",
        stutters_every: int = 0,
        **options: Any,
    ) -> Run:
        """Make one run and examine what it leaves."""
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        folder.mkdir()
        shutil.copy(self.template, folder / "gateway.db")
        # The last resort: close() is shielded from the patience below.
        faulthandler.dump_traceback_later(3 * PATIENCE_S, exit=True)
        try:
            with faulty_disk(level, stutters_every=stutters_every) as disk:
                run = Run(folder, self.template, disk, arm=arm, **{"seed": SEED, **options})
                anyio.run(self._live, run)
                run.look_for_leaks()
        finally:
            faulthandler.cancel_dump_traceback_later()
        backups = [name for name, call in run.backups.items() if call.acknowledged]
        run.compare(self.examiner.look(run.path, backups=backups), "after close()")
        run.check_backups()
        shutil.rmtree(folder)
        return run

    async def _live(self, run: Run) -> None:
        with anyio.move_on_after(PATIENCE_S) as patience:
            await run.live()
        if patience.cancelled_caught:
            faulthandler.dump_traceback(sys.stderr)
            run.wrong(
                f"it hangs: not settled after {PATIENCE_S:g} s; {await run.why_unsettled()}; "
                f"{dict(run.errors)}"
            )
        else:
            copy_to = run.folder / "killed"
            run.compare(
                await anyio.to_thread.run_sync(
                    lambda: self.examiner.look(run.path, copy_to=copy_to)
                ),
                "as after kill -9",
            )
        await run.close()


@pytest.fixture(scope="module")
def module_field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    found = Field(tmp_path_factory.mktemp("faults"))
    yield found
    found.examiner.stop()


@pytest.fixture
def field(
    module_field: Field, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Field:
    """Return the field, with the load's statements and short pauses."""
    for name, sql in STATEMENTS.items():
        monkeypatch.setitem(transaction.statements(), name, Prepared(name, sql))
    caplog.set_level(logging.CRITICAL, logger="sessiondb")  # it has much to say about such a disk
    monkeypatch.setattr(write_connection, "REOPEN_PAUSE_S", (0.001, 0.02))
    monkeypatch.setattr(retry, "BUSY_PAUSE_S", 0.01)
    monkeypatch.setattr(throttle, "PAUSE_S_MAX", 0.02)  # retention waits for the callers' loops
    return module_field


@pytest.fixture(scope="module")
def calls_of_a_healthy_run(module_field: Field) -> dict[str, Counter[str]]:
    """How often each kind is called: filled in by whoever asks first, once for each set of jobs."""
    return {}


def healthy_calls(
    field: Field, known: dict[str, Counter[str]], jobs: tuple[str, ...], level: Level
) -> Counter[str]:
    name = f"{jobs} {level}"
    if name not in known:
        run = field.run(lambda disk: None, heavy=jobs, reads_are_safe=True, level=level)
        assert run.violations == []
        assert all(call.acknowledged for call in run.calls)
        known[name] = run.disk.calls
    return known[name]


# -- the sweeps ------------------------------------------------------------------------


def places(calls: int, index: int) -> list[tuple[int, bool]]:
    """Choose (n, lasting): in the short version one place, by the sweep's number.

    Else many, up to past the last.
    """
    if not LONG:
        # One of seven parts of the run, never the same for neighbours. Every second one
        # lasts.
        return [(1 + calls * (index * 3 % 7) // 7, index % 2 == 1)]
    if LONG == "all":
        return [(n, lasting) for lasting in (False, True) for n in range(1, calls + calls // 4 + 3)]
    wanted = min(int(LONG), calls)
    return [
        (1 + calls * at // wanted, lasting) for lasting in (False, True) for at in range(wanted)
    ]


@pytest.mark.parametrize(("kind", "how"), SWEEPS, ids=[f"{kind}-{how}" for kind, how in SWEEPS])
def test_wherever_a_call_fails_every_outcome_told_is_true(
    field: Field, calls_of_a_healthy_run: dict[str, Counter[str]], kind: Kind, how: How
) -> None:
    index = SWEEPS.index((kind, how))
    jobs = JOBS if LONG else (JOBS[index % 3],)
    level: Level = (
        "memory" if kind.startswith("shm") else "kernel" if kind.endswith("()") else "vfs"
    )
    # The short version saves a run: it strikes no later than the conversations alone would take it.
    calls = healthy_calls(field, calls_of_a_healthy_run, jobs if LONG else (), level)[kind]
    seen: Counter[str] = Counter()
    struck = runs = 0
    wrong: list[str] = []
    chosen = places(calls, index)
    if not LONG:
        chosen.append(
            (1, True)
            # Only if the first place was not reached: a run makes fewer calls when its
            # batches are larger
        )
    for n, lasting in chosen:
        if struck and not LONG:
            break
        fault = Fault(kind, n, how, lasting)

        def arm(disk: Disk, fault: Fault = fault) -> None:
            disk.fault = fault

        run = field.run(
            arm,
            seed=SEED + n,
            heavy=jobs,
            reads_are_safe=kind in READS_NEED_NONE,
            level=level,
            looks_like_damage=kind == "pread()",
            at_close=Fault(kind, 1, how, lasting=True) if lasting else None,
        )
        runs += 1
        struck += run.disk.injected > 0
        seen.update(run.errors)
        wrong += [f"{fault}, seed {SEED + n}: {violation}" for violation in run.violations]
    print(
        f"\n{kind} {how}: {calls} calls in a healthy run; {runs} runs, {struck} struck, seed "
        f"{SEED}; told: {dict(seen)}"
    )
    assert not wrong, f"{len(wrong)} violations:\n" + "\n".join(wrong)
    assert struck > 0


def test_a_disk_that_is_full_for_a_while_stops_only_writes(field: Field) -> None:
    for round_no in range(int(LONG) if LONG.isdigit() else 1):

        def fill(disk: Disk) -> None:
            disk.is_full = True

        run = field.run(fill, seed=SEED + round_no, reads_are_safe=True, strikes_late=True)
        assert run.violations == []
        assert run.disk.injected > 0
        assert run.reads > 3


# With the pauses that the library has, up to five seconds, and not the short ones of
# the other runs.
FULL_S = 60.0


@pytest.mark.skipif(not LONG, reason="a minute of waiting; `make crash` runs it (SESSIONDB_FAULTS)")
def test_a_disk_that_was_full_for_a_minute_is_soon_written_to(
    tmp_path: Path,
) -> None:
    report: Counter[str] = Counter()

    async def fill_and_free(disk: Disk) -> None:
        async with (
            sessiondb.open(tmp_path / "gateway.db", limits=LIMITS) as db,
            anyio.create_task_group() as group,
        ):
            session = await db.session(CHATS[0])
            await session.append(marked("first"))

            async def read() -> None:
                while True:
                    assert (await session.entries(last=1))[0].payload
                    report["reads"] += 1
                    await anyio.sleep(0.02)

            async def append(mark: str) -> int:
                """Append. Return how long to wait before the next try in ms, 0 if it is stored."""
                try:
                    await session.append(marked(mark, "x" * 20_000), idempotency_key=mark)
                except SessionDBError as error:
                    report[type(error).__name__] += 1
                    return max(1, getattr(error, "retry_after_ms", 1))
                report["acknowledged"] += 1
                return 0

            group.start_soon(read)
            disk.is_full = True
            with anyio.move_on_after(FULL_S):
                while True:
                    pause_ms = await append(f"full {report.total()}")
                    report["longest pause, ms"] = max(report["longest pause, ms"], pause_ms)
                    await anyio.sleep(min(pause_ms, 500) / 1000)
            acknowledged, read_meanwhile = report["acknowledged"], report["reads"]
            disk.heal()
            # Refused at most once more, with the time that is left of the pause. Then
            # it is stored.
            if pause_ms := await append("freed"):
                assert pause_ms <= 1000 * write_connection.REOPEN_PAUSE_S[1]
                await anyio.sleep(pause_ms / 1000)
                assert await append("freed") == 0
            assert report["acknowledged"] == acknowledged + 1
            assert read_meanwhile > 20
            assert report["StoreBusy"] > 3
            group.cancel_scope.cancel()

    with faulty_disk("vfs") as disk:
        anyio.run(fill_and_free, disk)
    print(f"\nfull for {FULL_S:g} s: {dict(report)}")
    with sessiondb.sync.open(tmp_path / "gateway.db") as db:
        assert db.verify().ok


@pytest.mark.parametrize("late", [True, False], ids=["while it is open", "when it is opened"])
def test_a_file_system_that_is_read_only_stops_only_writes(field: Field, late: bool) -> None:
    def remount(disk: Disk) -> None:
        disk.is_readonly = True

    run = field.run(remount, reads_are_safe=late, strikes_late=late, heavy=("backup",))
    assert run.violations == []
    assert run.disk.injected > 0 or not late
    assert any("Store" in error or "Open" in error for error in run.errors)


def test_short_reads_of_the_wal_are_reported_and_harm_nothing(
    field: Field,
) -> None:
    def cut(disk: Disk) -> None:
        disk.fault = Fault("read", 2, "short", lasting=True, threads="sessiondb-reader")

    run = field.run(cut, strikes_late=True, heavy=())
    assert run.violations == []
    assert run.disk.injected > 0


def test_short_and_interrupted_system_calls_go_unnoticed(
    field: Field,
) -> None:
    run = field.run(
        lambda disk: None, level="kernel", stutters_every=3, reads_are_safe=True, heavy=("backup",)
    )
    assert run.violations == []
    assert run.errors == {}
    assert (
        min(
            run.disk.stutters[f"{name} {how}"]
            for name in ("pread", "pwrite")
            for how in ("cut short", "interrupted")
        )
        > 10
    )


# -- the real thing --------------------------------------------------------------------

MOUNT = 'mount -t tmpfs -o size=2m,mode=700 none "$1" && exec "$2" "$3" tmpfs "$1"'
CHILD = CHECKOUT / "tests/proofs/crash/faults_child.py"


def child(mode: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(CHILD), mode, str(folder)]
    if mode == "tmpfs":
        command = [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            MOUNT,
            "sh",
            str(folder),
            sys.executable,
            str(CHILD),
        ]
    done = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, timeout=3 * PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs none /mnt",
    ]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("mode", ["tmpfs", "file-size"])
def test_a_real_disk_that_was_full_needs_no_restart(tmp_path: Path, mode: str) -> None:
    if mode == "tmpfs" and not may_mount():
        pytest.skip(
            "this system lets nobody mount a file system of their own; the limit of file sizes "
            "is tested instead"
        )
    found = child(mode, tmp_path)
    assert (found["integrity"], found["findings"]) == (["ok"], [])
    assert found["reads"] == [6, 6, 6]
    assert all(
        error.startswith("append: ") and error.endswith("retry True") for error in found["errors"]
    ), found["errors"]
    for mark, report in found["outcomes"].items():
        may_be = {1} if "acknowledged" in report else {0, 1} if "unknown" in report else {0}
        assert found["found"].get(mark, 0) in may_be, (mark, report)
    refused = [report for report in found["outcomes"].values() if report != ["acknowledged"]]
    # What was said again under its key succeeded on the same connection, of which the
    # user never heard.
    assert (
        len([report for report in refused if report[-1] == "acknowledged"])
        == (len(refused) + 1) // 2
    )
    assert len(refused) >= 6
    assert found["reopened"] >= 1


def test_a_process_without_free_descriptors_keeps_working(tmp_path: Path) -> None:
    found = child("open-files", tmp_path)
    assert (found["integrity"], found["findings"]) == (["ok"], [])
    assert found["outcomes"] == {f"m {at}": ["acknowledged"] for at in range(5)}
    assert all(found["found"][f"m {at}"] == 1 for at in range(5))
    assert found["errors"].keys() <= {
        "backup: StoreFailed",
        "backup: OpenError",
        "read: StoreFailed, retry True",
    }
    assert any(error.startswith("backup") for error in found["errors"])
    assert found["reads"][1] == 6
    assert found["left"] == ["copy.db", "gateway.db", "gateway.db-alive"]


# -- teeth: each of these builds is broken, and a run says so --------------------------


def fail_writes(disk: Disk) -> None:
    disk.fault = Fault("write", 1, "io", lasting=True)


# The writer of this broken build may roll back a connection that is closed by then, and stop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_teeth_a_build_that_swallows_the_error_of_commit(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(self: Writer, connection: apsw.Connection, batch: Batch) -> None:
        if not batch.succeeded:
            self._connection.roll_back(connection)
            return
        try:
            connection.execute("COMMIT")
        except apsw.Error:
            self._connection.roll_back(connection)
        for request in batch.succeeded:
            request.outcome = "committed"
        self.stats.commits += 1

    monkeypatch.setattr(Writer, "_commit", commit)
    run = field.run(fail_writes, strikes_late=True, heavy=(), tries_well=5)
    assert [
        found for found in run.violations if "acknowledged True, and is there [0] times" in found
    ]


def test_teeth_a_build_that_calls_an_unknown_not_executed(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Writer._commit  # the build is broken here

    def commit(self: Writer, connection: apsw.Connection, batch: Batch) -> None:
        real(self, connection, batch)
        # As if the disk had reported an error when everything was written.
        for request in batch.succeeded:
            if request.op == "append":
                request.fail(
                    NotExecuted(f"{request.op}: an I/O error. Nothing was changed; retry.")
                )

    monkeypatch.setattr(Writer, "_commit", commit)
    run = field.run(lambda disk: None, heavy=(), tries_well=5)
    report = (
        "append 'proof' was told ['not_executed', 'not_executed', 'not_executed', "
        "'not_executed', 'not_executed'], acknowledged False"
    )
    assert f"as after kill -9: {report}, and is there [1] times" in run.violations


def test_teeth_a_build_that_does_not_open_the_connection_again(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Writer) -> None:
        self._fail_queued(
            lambda op: StoreBusy(f"{op}: the connection is gone; retry.", retry_after_ms=1)
        )

    monkeypatch.setattr(Writer, "_reopen", refuse)
    run = field.run(fail_writes, strikes_late=True, heavy=(), tries_well=5)
    assert "after the fault nothing can be appended" in run.violations


def test_teeth_a_build_that_lets_the_drivers_errors_out(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leak(error: apsw.Error, *_context: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(readers, "reraise", leak)
    monkeypatch.setattr(transaction, "reraise", leak)

    def fail_reads(disk: Disk) -> None:
        disk.fault = Fault("shm_lock", 1, "io", lasting=True)

    run = field.run(fail_reads, strikes_late=True, heavy=(), tries_well=5, level="memory")
    assert [
        found
        for found in run.violations
        if "raised apsw.IOError, which is none of sessiondb's" in found
    ]


def test_teeth_a_build_that_stops_reading_while_writes_fail(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = readers._Reader._begin  # the build is broken here
    run_of: list[Disk] = []

    def begin(self: Any, connection: apsw.Connection, request: Any, snapshot: Any) -> None:
        if run_of and run_of[0].injected and run_of[0].is_ill:
            raise StoreFailed("the disk is failing; retry")
        real(self, connection, request, snapshot)

    def arm(disk: Disk) -> None:
        run_of.append(disk)
        fail_writes(disk)

    monkeypatch.setattr(readers._Reader, "_begin", begin)
    run = field.run(arm, strikes_late=True, heavy=(), tries_well=5, reads_are_safe=True)
    assert [
        found
        for found in run.violations
        if "a read failed, though the fault is none of reading" in found
    ]


def test_teeth_a_build_that_leaves_a_failed_connection_open(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[apsw.Connection | None] = []

    def keep(connection: apsw.Connection | None) -> None:
        if len(kept) == 1 and connection is not None:
            connection.close(True)
        else:
            kept.append(connection)

    real = write_connection.close_quietly
    monkeypatch.setattr(
        write_connection,
        "close_quietly",
        lambda connection: keep(connection) if not kept else real(connection),
    )
    run = field.run(fail_writes, strikes_late=True, heavy=(), tries_well=50)
    found = [
        violation
        for violation in run.violations
        if violation.startswith(("connections left open", "descriptors left open"))
    ]
    for connection in kept:
        if connection is not None:
            connection.close(True)
    assert len(found) == 2


# -- what this found: each a defect that was there -------------------------------------


@pytest.mark.parametrize(
    ("fault", "raised", "said_so"),
    [
        (
            Fault("read", 1),
            StoreFailed,
            "opening .*: I/O error from the disk .* Check it, then retry",
        ),
        (Fault("write", 1, "full"), StoreFull, "the disk is full"),
        (Fault("size", 1), StoreFailed, "I/O error from the disk"),
        (Fault("open", 1), OpenError, "Check their owner and permissions"),
    ],
    ids=str,
)
@pytest.mark.anyio
async def test_opening_on_a_disk_that_fails_raises_an_error_of_ours(
    tmp_db: Path, fault: Fault, raised: type[Exception], said_so: str
) -> None:
    async with opened(tmp_db):
        pass
    with faulty_disk() as disk:
        disk.fault = fault
        with pytest.raises(raised, match=said_so):
            await SqliteBackend.open(tmp_db)
        disk.heal()
        async with opened(tmp_db):
            pass


@pytest.mark.anyio
async def test_a_read_that_needs_a_connection_more_may_be_repeated(tmp_db: Path) -> None:
    with faulty_disk() as disk:
        async with opened(tmp_db) as backend:
            disk.fault = Fault("open", disk.calls["open"] + 1)
            with pytest.raises(StoreFailed, match=r"ulimit -n.*Retry") as failed:
                await backend.read(lambda tx: tx.all("test.programs"), op="look")
            assert failed.value.retry
            assert await backend.read(lambda tx: tx.all("test.programs"), op="look") == []


@pytest.mark.anyio
async def test_a_backup_that_cannot_open_its_copy_leaves_nothing(tmp_db: Path) -> None:
    with faulty_disk() as disk:
        async with opened(tmp_db) as backend:
            disk.fault = Fault("open", disk.calls["open"] + 1)
            with pytest.raises(
                StoreFailed,
                match=r"backup: a file that SQLite needs cannot be opened .* then retry",
            ):
                await backend.backup(tmp_db.parent / "copy.db")
            assert not list(tmp_db.parent.glob("copy.db*"))
            assert await backend.backup(tmp_db.parent / "copy.db") > 0


@pytest.mark.anyio
async def test_a_backup_whose_connection_fails_is_cleaned_up(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun, release = backup.backup, threading.Event(), threading.Event()

    def held(connection: apsw.Connection, destination: str) -> backup.MaintenanceTask:
        task = real(connection, destination)
        try:
            next(task)
            begun.set()
            assert release.wait(PATIENCE_S)
            yield
            return (yield from task)
        finally:
            task.close()

    monkeypatch.setattr(backup, "STEP_PAGES", 1)
    with faulty_disk() as disk:
        async with opened(tmp_db) as backend:
            monkeypatch.setattr(backup, "backup", held)
            raised: list[BaseException] = []

            async def back_up() -> None:
                try:
                    await backend.backup(tmp_db.parent / "copy.db")
                except StoreFailed as error:
                    raised.append(error)

            async def fail_a_write() -> None:
                # A body runs between two steps of the backup. Its COMMIT fails, and
                # with it the connection that both use.
                def body(tx: Any) -> None:
                    tx.run("test.insert", program="x")
                    disk.fault = Fault("sync", disk.calls["sync"] + 1)

                with pytest.raises(sessiondb.OutcomeUnknown):
                    await backend.write(body, op="write")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(back_up)
                await until(begun.is_set)
                tasks.start_soon(fail_a_write)
                await until(lambda: backend.stats()["writer"]["queue_items"] == 1)
                release.set()
            assert str(raised[0]).startswith("backup: the disk failed between two steps")
            assert not list(tmp_db.parent.glob("copy.db*"))
            monkeypatch.setattr(backup, "backup", real)
            assert await backend.backup(tmp_db.parent / "copy.db") > 0


@pytest.mark.anyio
async def test_a_vacuum_on_a_failing_disk_drops_its_connection(
    tmp_db: Path,
) -> None:
    with faulty_disk() as disk:
        async with opened(tmp_db) as backend:
            await backend.write(lambda tx: tx.run("test.insert_large", size=400_000), op="fill")
            await backend.write(lambda tx: tx.run("test.delete_large"), op="empty")
            disk.fault = Fault("write", disk.calls["write"] + 1)
            with pytest.raises(StoreFailed, match="incremental_vacuum: I/O error"):
                await backend.incremental_vacuum(1_000)
            assert await backend.incremental_vacuum(1_000) > 0
            assert backend.stats()["writer"]["reopened"] == 1


@pytest.mark.anyio
async def test_the_watcher_of_other_processes_outlives_a_lock(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = opening.connect_reader, iter(range(2))

    def connect(path: str) -> apsw.Connection:
        if (
            threading.current_thread().name == "sessiondb-changes"
            and next(refusals, None) is not None
        ):
            raise StoreBusy(
                f"opening {path}: another process holds the lock; retry", retry_after_ms=1
            )
        return real(path)

    monkeypatch.setattr(opening, "connect_reader", connect)
    monkeypatch.setattr(notifier, "FOREIGN_POLL_S", 0.001)
    async with opened(tmp_db) as backend:
        seen = backend.change_count
        other = apsw.Connection(str(tmp_db))
        with anyio.fail_after(PATIENCE_S):
            while backend.change_count == seen:
                other.execute("UPDATE instance SET program = program || 'x'")
                await backend.wait_change(seen, 0.05)
        other.close()
    assert next(refusals, None) is None  # it was refused, and went on


@pytest.mark.parametrize(
    ("op", "error"),
    [
        ("lane.look", StoreFailed("the disk failed; retry")),
        ("lane.look", StoreDamaged("a page could not be read; check the disk and retry")),
    ],
    ids=["its first read fails", "a page cannot be read"],
)
@pytest.mark.anyio
async def test_a_lane_continues_when_the_disk_recovers(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, op: str, error: Exception
) -> None:
    async with sessiondb.open(tmp_db) as db:
        real, errors, answered = db.read, iter([error]), anyio.Event()

        async def read(name: str, fn: Callable[[Any], Any]) -> Any:
            if name == op and (raised := next(errors, None)) is not None:
                raise raised
            return await real(name, fn)

        async def think(turn: Turn) -> Answer:
            answered.set()
            return Answer([{"role": "assistant", "content": []}])

        monkeypatch.setattr(db, "read", read)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(db.run_lane, "main", think)
            await db.accept(
                "agent:main:test:direct:one",
                {"role": "user", "content": "hello"},
                channel="test",
                event_id="1",
            )
            with anyio.fail_after(PATIENCE_S):
                await answered.wait()
            tasks.cancel_scope.cancel()
        assert next(errors, None) is None  # the read did fail
