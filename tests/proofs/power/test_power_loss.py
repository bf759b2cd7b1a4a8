"""The power is cut at any moment.

Acknowledged writes are there, once and whole, and nothing is damaged.

`disk.py` is the disk, `harness.py` the judge, `workloads.py` what runs. The second half
of this file breaks the build, or the disk, in one way each and expects the judge to say
so.

`SESSIONDB_POWER_CUTS` chooses how many disks are rebuilt in all, `SESSIONDB_POWER_SEED`
another course. `make crash` runs tens of thousands.
"""

from __future__ import annotations

import errno
import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
from sessiondb import durable_files
from sessiondb.backend import Tx
from sessiondb.limits import Limits
from sessiondb.maintenance import archive, archive_small
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.sqlite import connection, files, stray_wal, transaction, writer
from sessiondb.transcript import session as session_module
from sessiondb.transfer import export_files
from tests.proofs.crash.breakage import miscounting
from tests.proofs.power.disk import (
    Believe,
    Disk,
    FailedSync,
    Log,
    Loss,
    Mark,
    Name,
    Sync,
    SyncFolder,
    Truncate,
    Write,
    commits,
)
from tests.proofs.power.harness import (
    EVERYTHING,
    Ledger,
    Verdict,
    Workload,
    after_a_cut,
    after_a_kill,
    judge,
    record,
)
from tests.proofs.power.workloads import (
    SMALL,
    WORKLOADS,
    again,
    append,
    copies,
    create,
    insisting,
    opened,
    save,
    talk,
    talked,
    three_sessions,
)
from tests.support.core import user
from tests.support.engine import PATIENCE_S

CUTS = int(os.environ.get("SESSIONDB_POWER_CUTS", "160"))
SEED = int(os.environ.get("SESSIONDB_POWER_SEED", "20261120"))
IS_LONG = CUTS >= 5_000
# One record of a workload is cut this often. Then it is run again, with other dice.
CUTS_PER_RECORD = 500
# A second process after a cut or a kill: so many times a workload, each cut this often.
AGAIN, AGAIN_CUTS = max(1, CUTS // 2_000), 40 if IS_LONG else 15
# Enough for every defect below to be found many times over.
TEETH_CUTS = 30


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for hundreds of short-lived disks.

    It is in memory, where the system has such a place.
    """
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="sessiondb-power-", dir=memory) as folder:
        yield Path(folder)


def tried(verdict: Verdict) -> Verdict:
    print(f"\n{verdict}\n  {dict(verdict.losses)}")
    return verdict


def run(
    workload: Workload,
    folder: Path,
    *,
    cuts: int = TEETH_CUTS,
    believe: Believe = lambda kind, path: True,
) -> Verdict:
    taken = record(workload, folder / "live", SEED, believe=believe)
    return tried(judge(taken, cuts, SEED, folder, verify_every=1_000))


# -- the library on an honest disk -----------------------------------------------------


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_power_cut_loses_and_halves_nothing_acknowledged(workload: Workload, disk: Path) -> None:
    left = -(-CUTS // len(WORKLOADS))
    round_ = 0
    while left > 0:
        cuts = min(left, CUTS_PER_RECORD)
        seed = SEED + round_
        folder = disk / str(round_)
        taken = record(workload, folder / "live", seed)
        verdict = tried(
            judge(taken, cuts, seed, folder, reopen_every=25, verify_every=1 if IS_LONG else 5)
        )
        assert verdict.bad == 0, verdict
        assert len(taken.ledger.operations) >= 6
        left -= cuts
        round_ += 1


@pytest.mark.parametrize(
    "workload", WORKLOADS if IS_LONG else WORKLOADS[3:5], ids=lambda workload: workload.name
)
def test_a_second_power_cut_during_recovery_loses_nothing(workload: Workload, disk: Path) -> None:
    dice = random.Random(SEED)
    taken = record(workload, disk / "live", SEED)
    for number in range(AGAIN):
        second = after_a_cut(taken, again, dice)
        folder = disk / str(number)
        verdict = tried(
            judge(
                record(second, folder / "live", SEED + number),
                AGAIN_CUTS,
                SEED + number,
                folder,
                verify_every=5,
            )
        )
        assert verdict.bad == 0, verdict


@pytest.mark.parametrize(
    "workload", WORKLOADS if IS_LONG else WORKLOADS[:2], ids=lambda workload: workload.name
)
def test_unsynced_writes_of_the_killed_do_not_count_as_durable(
    workload: Workload, disk: Path
) -> None:
    """The system still holds what the dead process wrote.

    Its successor finds it, builds on it, and the power goes.
    """
    dice = random.Random(SEED)
    for number in range(AGAIN):
        folder, seed = disk / str(number), SEED + number
        taken = record(workload, folder / "live", seed)
        second = after_a_kill(taken, again, dice.randrange(len(taken.log.events)), seed)
        verdict = tried(judge(second, AGAIN_CUTS, seed, folder, verify_every=5))
        assert verdict.bad == 0, verdict


def _is_of_journal(event: object) -> bool:
    return isinstance(event, Name) and any("-journal" in path for path, _ in event.changes)


def test_the_next_process_syncs_the_folders_of_a_killed_one(
    disk: Path,
) -> None:
    workload = Workload("create", create, folder="new/deeper")
    created = [
        at
        for at, event in enumerate(record(workload, disk / "0", SEED).log.events)
        if isinstance(event, Name)
    ][:3]
    for number, at in enumerate(created):
        folder = disk / f"killed {number}"
        second = after_a_kill(record(workload, folder / "live", SEED), again, at + 1, SEED)
        # Until the file is in WAL mode nothing was acknowledged. Its journals come and go.
        made = max(at for at, event in enumerate(second.log.events) if _is_of_journal(event))
        verdict = tried(
            judge(second, 2 * AGAIN_CUTS, SEED, folder, since=made + 1, verify_every=1_000)
        )
        assert verdict.bad == 0, verdict


def failed_and_killed(disk: Path, courses: int) -> Iterator[Verdict]:
    """Let a commit's sync fail, kill the process, continue, cut the power.

    The process dies at that instant. The next one works on a healthy disk.
    """
    workload = next(workload for workload in WORKLOADS if workload.name == "failing")
    for number in range(courses):
        folder, seed = disk / str(number), SEED + number
        taken = record(workload, folder / "live", seed)
        committed = commits(taken.log, str(taken.ledger.root / taken.database))
        at = (
            random.Random(seed).choice(
                [at for at in committed if isinstance(taken.log.events[at], FailedSync)]
            )
            + 1
        )
        # In turns: one that resets its WAL every few commits, and one that goes on in it.
        limits = (SMALL, Limits())[number % 2]
        second = after_a_kill(taken, partial(insisting, limits=limits), at, seed)
        yield tried(judge(second, AGAIN_CUTS, seed, folder, since=at, verify_every=5))


def test_a_commit_whose_sync_failed_is_not_built_upon(
    disk: Path,
) -> None:
    for verdict in failed_and_killed(disk, 2 * AGAIN):
        assert verdict.bad == 0, verdict


def test_a_retry_after_a_kill_is_on_disk_once(disk: Path) -> None:
    dice = random.Random(SEED)
    workload = Workload("said again", insisting)
    for number in range(2 * AGAIN):
        folder, seed = disk / str(number), SEED + number
        taken = record(workload, folder / "live", seed)
        # Often between the writing of a commit and its sync: the next process finds it,
        # and nobody has synced it.
        at = dice.choice(
            [at for at, event in enumerate(taken.log.events) if isinstance(event, Sync)]
        )
        verdict = tried(
            judge(
                after_a_kill(taken, insisting, at, seed), AGAIN_CUTS, seed, folder, verify_every=5
            )
        )
        assert verdict.bad == 0, verdict


def test_durability_normal_may_lose_the_end_and_damages_nothing(
    disk: Path,
) -> None:
    verdict = run(
        Workload("normal", partial(talk, durability="normal")),
        disk,
        cuts=max(2 * TEETH_CUTS, CUTS // 10),
    )
    assert verdict.counts["lost"] > 0
    assert set(verdict.counts) == {"ok", "lost"}


def test_a_salvaged_file_is_durable_and_complete_on_return(
    disk: Path,
) -> None:
    verdict = run(Workload("salvage", save, prepare=talked), disk, cuts=max(TEETH_CUTS, CUTS // 20))
    assert verdict.bad == 0, verdict


@pytest.mark.parametrize(("call", "code"), [("open", errno.EACCES), ("fsync", errno.EINVAL)])
def test_where_a_folder_cannot_be_synced_everything_is(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def refuse(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "sync", lambda: synced.append("everything"))
    monkeypatch.setattr(os, call, refuse)
    durable_files.sync_folder(tmp_path)
    assert synced == ["everything"]


def test_a_folder_that_the_disk_fails_to_sync_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk failed"):
        durable_files.make_folder(tmp_path / "new")


# -- teeth: broken builds and broken disks ---------------------------------------------


def test_found_a_build_that_does_not_sync(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(opened: apsw.Connection, durability: str) -> None:
        connection.drain(opened, "PRAGMA synchronous = off")

    monkeypatch.setattr(connection, "_synchronous", off)
    verdict = run(Workload("synchronous=off", talk), disk, cuts=2 * TEETH_CUTS)
    assert verdict.bad > 0, "damaged, or without what was acknowledged"


@pytest.mark.parametrize(
    ("lies_about", "outcomes"),
    [
        ({"wal"}, {"lost"}),
        ({"database"}, {"lost", "unsound", "mixed"}),
        ({"folder"}, {"lost"}),
        ({"wal", "database", "journal", "folder"}, {"lost", "unsound", "mixed"}),
    ],
    ids=lambda value: "+".join(sorted(value)),
)
def test_found_a_disk_that_says_synced_when_it_is_not(
    lies_about: set[str], outcomes: set[str], disk: Path
) -> None:
    workload = (
        Workload("a lying disk", create, folder="new")
        if lies_about == {"folder"}
        else Workload("a lying disk", talk)
    )
    verdict = run(workload, disk, believe=lambda kind, path: kind not in lies_about)
    assert outcomes & verdict.counts.keys()


def test_found_a_disk_that_drops_a_single_sync_of_the_wal(disk: Path) -> None:
    """The next one covers what it should have.

    Until then one acknowledged append is not on disk.
    """
    is_next = threading.Event()
    since: list[int] = []
    dropped: list[str] = []

    def believe(kind: str, path: str) -> bool:
        if kind != "wal" or not is_next.is_set():
            return True
        is_next.clear()
        dropped.append(path)
        return False

    async def appends(path: Path, ledger: Ledger) -> None:
        async with opened(path, limits=Limits()) as db:
            session = await db.session("agent:main:web:1")
            for number in range(6):
                if number == 4:
                    since.append(ledger.now())
                    is_next.set()
                await append(ledger, session, f"message {number}")

    taken = record(Workload("one sync dropped", appends), disk / "live", SEED, believe=believe)
    verdict = tried(judge(taken, 4 * TEETH_CUTS, SEED, disk, since=since[0], verify_every=1_000))
    assert len(dropped) == 1
    assert verdict.counts["lost"] > 0
    assert verdict.bad == verdict.counts["lost"]
    assert all("'append message 4' acknowledged" in problem for problem in verdict.problems), (
        verdict
    )


def test_found_a_build_that_counts_an_append_twice(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(transaction.statements(), "transcript.save_state", miscounting())

    async def appends(path: Path, ledger: Ledger) -> None:
        async with opened(path) as db:
            await append(ledger, await db.session("agent:main:web:1"), "a message")

    taken = record(Workload("counted twice", appends), disk / "live", SEED)
    verdict = tried(judge(taken, TEETH_CUTS, SEED, disk))
    assert any(
        "the session's last seq is 2, but its last entry has 1" in problem
        for problem in verdict.problems
    ), verdict


def test_found_a_build_that_answers_before_commit(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = writer.Writer._commit
    heard = threading.Event()

    def commit_late(self: writer.Writer, connection: apsw.Connection, batch: writer.Batch) -> None:
        for request in batch.succeeded:
            request.outcome = "committed"
        heard.clear()
        self._deliver(batch.finished)
        batch.finished = []
        assert heard.wait(PATIENCE_S)
        commit(self, connection, batch)

    async def appends(path: Path, ledger: Ledger) -> None:
        async with opened(path) as db:
            session = await db.session("agent:main:web:1")
            with monkeypatch.context() as broken:
                broken.setattr(writer.Writer, "_commit", commit_late)
                for number in range(20):
                    await append(ledger, session, f"message {number}")
                    heard.set()

    verdict = run(Workload("answers early", appends), disk)
    assert verdict.counts["lost"] > 0
    assert verdict.bad == verdict.counts["lost"]


def test_found_a_build_that_splits_a_call_into_transactions(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def in_parts(self: session_module.Session, items: list[Any], **_: Any) -> list[Any]:
        return [await self.append(item) for item in items]

    monkeypatch.setattr(session_module.Session, "append_many", in_parts)
    verdict = run(Workload("in parts", talk), disk)
    assert any("half there" in problem and "append_many" in problem for problem in verdict.problems)


def test_found_a_build_that_stores_a_message_twice(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = session_module.append.append

    def twice(tx: Tx, session_no: int, drafts: list[Any], **asked: Any) -> list[Any]:
        once(tx, session_no, drafts, **asked)
        return once(tx, session_no, drafts, **asked)

    async def appends(path: Path, ledger: Ledger) -> None:
        async with opened(path) as db:
            await append(ledger, await db.session("agent:main:web:1"), "a message")

    monkeypatch.setattr(session_module.append, "append", twice)
    verdict = run(Workload("twice", appends), disk)
    assert any("twice" in problem for problem in verdict.problems)


def test_found_a_build_that_deletes_before_it_archives(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(backend: Any, row: Any) -> None:
        pass

    async def retention(path: Path, ledger: Ledger) -> None:
        async with opened(path) as db:
            await three_sessions(db, ledger)
            await db.gc(RetentionPolicy(max_sessions=1, idle_days=0))

    monkeypatch.setattr(archive_small, "ARCHIVE_CHUNK_ROWS", 0)  # it goes in many steps
    monkeypatch.setattr(archive, "write_chunks", nothing)
    monkeypatch.setattr(archive, "compare", nothing)
    verdict = run(Workload("archives nothing", retention), disk)
    assert any("every entry of old can be had" in problem for problem in verdict.problems)


def test_found_a_build_that_trusts_a_commit_that_was_not_synced(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stray_wal, "reread_wal", lambda path: None)
    # Where a course is cut depends on how its threads met. Most courses find it, not each.
    assert any(verdict.bad for verdict in failed_and_killed(disk, 40))


def test_found_folders_that_are_made_and_not_synced(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sync the WAL's folder only, as until version 0.1.0.

    SQLite syncs that folder. Its own name in its parent was not synced.
    """
    monkeypatch.setattr(files, "make_folder", lambda folder: folder.mkdir(parents=True))
    verdict = run(Workload("folders", create, folder="new/deeper"), disk)
    assert verdict.counts["lost"] > 0


@pytest.mark.parametrize(
    ("module", "what"), [(files, "copy.db"), (export_files, "exported/")], ids=["backup", "export"]
)
def test_found_copies_whose_names_are_not_synced(
    module: Any, what: str, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "sync_folder", lambda folder: None)
    taken = record(Workload("copies", copies), disk / "live", SEED)
    acknowledged = [copy.done for copy in taken.ledger.copies if what in copy.path]
    verdict = tried(
        judge(taken, TEETH_CUTS, SEED, disk, since=min(acknowledged), verify_every=1_000)
    )
    assert verdict.counts["copy"] > 0
    assert all(what in problem for problem in verdict.problems)


# -- the model of the disk itself ------------------------------------------------------


def replay(*events: Any, initial: dict[str, bytes] | None = None) -> Disk:
    played = Disk(
        Log(
            "/disk",
            {f"/disk/{name}": content for name, content in (initial or {}).items()},
            list(events),
        )
    )
    played.run_to(len(events))
    return played


NOTHING = Loss("nothing kept", lambda event, piece: False, grows=False)


def test_a_write_is_safe_once_its_file_and_its_name_are_synced() -> None:
    name, write = Name((("/disk/a", 0),)), Write(0, 0, b"content")
    assert replay(name, write).after(NOTHING) == {}
    assert replay(name, write, Sync(0, 2)).after(NOTHING) == {}
    assert replay(name, write, SyncFolder("/disk")).after(NOTHING) == {"a": b""}
    assert replay(name, write, Sync(0, 2), SyncFolder("/disk")).after(NOTHING) == {"a": b"content"}
    assert replay(name, write).after(EVERYTHING) == {"a": b"content"}


def test_a_folder_is_a_name_in_the_folder_above_it() -> None:
    created = (Name((("/disk/new", -1),)), Name((("/disk/new/a", 0),)), SyncFolder("/disk/new"))
    assert replay(*created).after(NOTHING) == {}
    assert replay(*created, SyncFolder("/disk")).after(NOTHING) == {"new/a": b""}


def test_a_removed_name_may_come_back_until_a_folder_sync() -> None:
    missing, renamed = Name((("/disk/a", None),)), Name((("/disk/b", 0), ("/disk/a", None)))
    assert replay(missing, initial={"a": b"x"}).after(NOTHING) == {"a": b"x"}
    assert replay(missing, SyncFolder("/disk"), initial={"a": b"x"}).after(NOTHING) == {}
    assert replay(renamed, initial={"a": b"x"}).after(NOTHING) == {"a": b"x"}
    assert replay(renamed, initial={"a": b"x"}).after(EVERYTHING) == {"b": b"x"}


def test_a_write_is_torn_at_sectors_and_keeps_its_length() -> None:
    played = replay(Write(0, 500, b"n" * 1_000), initial={"a": b"o" * 600})
    second = Loss("the second sector", lambda event, piece: piece == 1, sector=512)
    assert played.after(second) == {"a": b"o" * 512 + b"n" * 512 + bytes(476)}
    shorter = Loss("the first sector", lambda event, piece: piece == 0, sector=512, grows=False)
    assert played.after(shorter) == {"a": b"o" * 500 + b"n" * 12 + b"o" * 88}
    assert played.after(Loss("whole", lambda event, piece: True)) == {
        "a": b"o" * 500 + b"n" * 1_000
    }


def test_writes_and_truncations_are_kept_or_lost_one_by_one() -> None:
    played = replay(Truncate(0, 2), Write(0, 2, b"new"), initial={"a": b"old content"})
    keeps: Callable[[int], Loss] = lambda kept: Loss(  # noqa: E731
        "one", lambda event, piece: event == kept, grows=False
    )
    assert played.after(keeps(0)) == {"a": b"ol"}
    assert played.after(keeps(1)) == {"a": b"olnewontent"}
    assert played.after(EVERYTHING) == {"a": b"olnew"}


def test_a_file_that_grew_may_show_what_was_there_before() -> None:
    played = replay(Truncate(0, 0), Sync(0, 1), Write(0, 4, b"new!"), initial={"a": b"secret"})
    assert played.after(Loss("lost", lambda event, piece: False, fill="stale")) == {
        "a": b"secret\0\0"
    }
    again = replay(
        Name((("/disk/a", None),)),
        Name((("/disk/a", 7),)),
        Write(7, 2, b"x"),
        SyncFolder("/disk"),
        initial={"a": b"abc"},
    )
    assert again.after(Loss("lost", lambda event, piece: False, fill="stale")) == {"a": b"abc"}


def test_sqlite_syncs_the_folder_of_a_new_wal_before_commit(
    disk: Path,
) -> None:
    taken = record(Workload("create", create), disk, SEED)
    events = taken.log.events
    acknowledged = next(
        at
        for at, event in enumerate(events)
        if isinstance(event, Mark) and "acknowledged" in str(event.what)
    )
    wal = next(
        at
        for at, event in enumerate(events)
        if isinstance(event, Name) and event.changes[0][0].endswith("-wal")
    )
    assert any(event == SyncFolder(taken.log.root) for event in events[wal:acknowledged])


def test_a_recording_restores_sqlites_own_file_layer(disk: Path) -> None:
    async def nothing(path: Path, ledger: Ledger) -> None:
        async with sessiondb.open(path) as db:
            with ledger.operation("append") as operation:
                await (await db.session("agent:main:web:1")).append(user("hello"))
                operation.shows("SELECT count(*) FROM entry WHERE role = 'user'")

    before = apsw.vfs_names(), os.open, os.fsync
    record(Workload("short", nothing), disk, SEED)
    assert (apsw.vfs_names(), os.open, os.fsync) == before
    anyio.run(_open_once, disk / "other.db")


async def _open_once(path: Path) -> None:
    async with sessiondb.open(path):
        pass
