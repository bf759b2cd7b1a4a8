"""A check that could not be finished is no check: `verify` names it, and is not `ok`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.cli.program import PROBLEMS, UNFINISHED
from sessiondb.errors import (
    NewerSchema,
    ReadTooLong,
    SessionDBError,
    StoreBusy,
    StoreClosed,
    StoreFailed,
)
from sessiondb.maintenance import verify, verify_reads
from sessiondb.models import VerifyReport
from tests.support.command_line import run
from tests.support.core import change
from tests.support.maintenance import archive_session, eventful_session
from tests.support.world import world_file

pytestmark = pytest.mark.one_loop

PARTS = {
    "the schema",
    "the file",
    "the references between tables",
    "the numbers",
    "the name of the file",
    "the lanes",
    "the processes",
    "the pauses of channels",
    "the events",
    "the archives",
    "the bindings",
    "the foreign ids",
    "the rules of the tables",
    "the receipts of imports",
    "the owners of entries",
    "the inbox",
    "the turns",
    "the outbox",
    "the consumers of events",
    "the search index",
    "the list of sessions",
}
ERRORS: list[tuple[Exception, str]] = [
    (ReadTooLong("verify: its snapshot is too old"), "--read-s 600"),
    (StoreBusy("too much to do", retry_after_ms=1), "when the database is less busy"),
    (StoreFailed("I/O error from the disk"), "Check the disk"),
    (OSError(5, "Input/output error"), "Check the disk"),
    (MemoryError(), "Free memory"),
    (AssertionError("this cannot be"), "report this message"),
    (KeyError("nothing"), "report this message"),
]


class Failing:
    """A backend whose reads fail when they are counted out."""

    def __init__(self, backend: Any, fails: Callable[[int], Exception | None]) -> None:
        self._backend = backend
        self._fails = fails
        self.reads = 0

    def stats(self) -> Any:
        return self._backend.stats()

    async def read(self, fn: Any, *, op: str) -> Any:
        self.reads += 1
        error = self._fails(self.reads)
        if error is not None:
            raise error
        return await self._backend.read(fn, op=op)


async def verified(path: Path, fails: Callable[[int], Exception | None]) -> VerifyReport:
    """Verify a file through readers that fail."""
    async with sessiondb.open(path, readonly=True) as db:
        return await verify.run(Failing(db.backend, fails), None, deep=True)


@pytest.fixture(autouse=True)
def a_read_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that share a read share it for as long as the machine takes: nothing to count."""
    monkeypatch.setattr(verify_reads, "SHARED_S", 0.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_reads, "BUSY_WAIT_S_MAX", 0.0)


@pytest.mark.anyio
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("error", "way_on"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS]
)
async def test_a_check_that_ends_early_is_named_with_its_reason_and_what_to_do(
    sound: Path, error: Exception, way_on: str
) -> None:
    report = await verified(sound, lambda read: error if read == 2 else None)
    [finding] = report.findings
    assert finding.severity == "unfinished"
    assert report.unfinished == (finding,)
    assert finding.message.startswith("the check of the file was not finished: ")
    assert str(error) in finding.message
    assert way_on in finding.message
    assert not report.ok
    assert report.errors == ()
    assert report.sessions == 11  # the other checks went on


@pytest.mark.anyio
@pytest.mark.usefixtures("impatient")
async def test_every_check_is_named_when_none_can_be_finished(sound: Path) -> None:
    report = await verified(sound, lambda _: StoreFailed("the disk is gone"))
    assert not report.ok
    told = {finding.message for finding in report.unfinished}
    for part in PARTS:
        assert any(message.startswith(f"the check of {part} was not") for message in told), part
    assert len(told) == len(PARTS)


@pytest.mark.anyio
@pytest.mark.usefixtures("impatient")
async def test_a_session_that_could_not_be_checked_to_its_end_is_named(sound: Path) -> None:
    async with sessiondb.open(sound, readonly=True) as db:
        whole = Failing(db.backend, lambda _: None)
        await verify.run(whole, None, deep=True)
        last = Failing(
            db.backend, lambda read: StoreFailed("bad sector") if read == whole.reads - 1 else None
        )
        report = await verify.run(last, None, deep=True)
    [finding] = report.unfinished
    assert finding.session_id is not None
    assert "the session was not checked to its end: bad sector" in finding.message
    assert report.sessions == 11


@pytest.mark.anyio
async def test_a_busy_moment_is_waited_for(sound: Path) -> None:
    busy = StoreBusy("a moment", retry_after_ms=1)
    report = await verified(sound, lambda read: busy if read % 3 else None)
    assert report.ok
    assert report.findings == ()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error", [StoreClosed("it was closed"), NewerSchema("a newer one", found=9, known=1)]
)
async def test_a_database_that_cannot_be_read_any_more_ends_the_walk(
    sound: Path, error: SessionDBError
) -> None:
    with pytest.raises(type(error)):
        await verified(sound, lambda read: error if read == 3 else None)


class Moving(Failing):
    """A backend whose second read is followed by something else."""

    def __init__(self, backend: Any, move: Callable[[], Awaitable[object]]) -> None:
        super().__init__(backend, lambda _: None)
        self._move = move

    async def read(self, fn: Any, *, op: str) -> Any:
        found = await super().read(fn, op=op)
        if self.reads == 2:
            await self._move()
        return found


@pytest.mark.anyio
async def test_a_session_that_is_archived_or_restored_meanwhile_is_checked_anew(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
        number = session.ref.session_no
        moving = Moving(db.backend, lambda: archive_session(db, session))
        assert (await verify.run(moving, number, deep=True)).findings == ()
        assert (await session.info()).archived_at_ms is not None
        # What is wrong is found, although the first walk read of the archive.
        moving = Moving(db.backend, lambda: restored_and_broken(db, session))
        report = await verify.run(moving, number, deep=True)
    assert {finding.check for finding in report.findings} == {"context_tokens"}


@pytest.mark.anyio
async def test_a_file_that_is_imported_again_and_again_meanwhile_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []

    class Moving(verify.ReceiptWalk):
        def _end(self, tx: Any) -> None:
            super()._end(tx)
            ends.append(self._owner.path)
            self.moved = True

    monkeypatch.setattr(verify, "ReceiptWalk", Moving)
    async with sessiondb.open(world_file(tmp_path / "world.db")) as db:
        report = await db.verify()
    assert len(report.unfinished) == len(set(ends)) == 7
    assert len(ends) == verify.MOVES_MAX * 7
    assert {finding.check for finding in report.findings} == {"source"}
    assert "was imported further again and again" in report.findings[0].message


async def restored_and_broken(db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
    await db.unarchive(session.id)
    number = session.ref.session_no
    await db.write(
        "break",
        lambda tx: tx.run("salvage.set_tokens", session_no=number, context_tokens=7),
    )


@pytest.mark.anyio
async def test_a_missing_package_is_a_check_that_is_not_finished(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zstandard")
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
        await archive_session(db, session)
        await db.session("agent:main:web:2")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    async with sessiondb.open(tmp_db) as db:
        report = await db.verify()
    [finding] = report.unfinished
    assert finding.session_id == session.id
    assert "pip install 'sessiondb[zstd]'" in finding.message
    assert not report.ok


def test_the_command_has_an_exit_code_of_its_own(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise StoreFailed("the disk is gone")

    monkeypatch.setattr(verify.Walk, "_cursors", gone)
    result = run("verify", broken)
    assert result.exit_code == UNFINISHED not in (0, PROBLEMS)
    assert "0 errors, 0 warnings, 1 check not finished" in result.stdout
    assert "the check of the consumers of events was not finished" in " ".join(
        result.stdout.split()
    )
    told = json.loads(run("verify", broken, "--json").stdout)
    assert (told["ok"], told["finished"]) == (False, False)
    assert [finding["severity"] for finding in told["findings"]] == ["unfinished"]
    change(broken, "UPDATE session SET last_seq = 18 WHERE session_no = 1")
    assert run("verify", broken).exit_code == PROBLEMS


def test_a_read_may_be_given_more_time(sound: Path) -> None:
    assert run("verify", sound, "--read-s", "600").exit_code == 0
    assert run("verify", sound, "--read-s", "0").exit_code == 2
