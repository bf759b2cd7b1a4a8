"""A process whose real disk gets full, or whose system runs out of something, and gets
it back.

    python tests/proofs/crash/faults_child.py MODE FOLDER

    tmpfs        a ballast file fills the file system under FOLDER, and is then removed
    file-size    no file may grow past a limit (RLIMIT_FSIZE), then any may
    open-files   no further file can be opened (RLIMIT_NOFILE), then more can
    count        FOLDER is a database: print what a fresh process finds in it

Nothing is injected here: the errors are the kernel's. It prints what its client was
told, as one line of JSON.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import apsw

import sessiondb
import sessiondb.sync
from sessiondb.errors import SessionDBError, outcome_of
from sessiondb.limits import Limits
from tests.proofs.crash.faults_workload import MARK, marked

KEY = "agent:main:test:direct:one"
# More than what is left anywhere when the disk is full, so that refusals come soon.
PADDING = "x" * 20_000
REFUSALS = 6
TRIES = 200


class Exhaustion:
    """Something that runs out, and comes back."""

    def __init__(self, take: Callable[[], None], release: Callable[[], None]) -> None:
        self.take, self.release = take, release


def full_file_system(folder: Path) -> Exhaustion:
    ballast = folder / "ballast"

    def take() -> None:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    return Exhaustion(take, ballast.unlink)


def limit_of(what: int, soft: int) -> Exhaustion:
    before = resource.getrlimit(what)
    return Exhaustion(
        lambda: resource.setrlimit(what, (soft, before[1])),
        lambda: resource.setrlimit(what, before),
    )


async def write_until_refused(
    session: sessiondb.Session, report: dict[str, list[str]], errors: Counter[str]
) -> None:
    refused = at = 0
    while refused < REFUSALS:
        mark = f"m {at}"
        report[mark] = []
        try:
            await session.append(marked(mark, PADDING), idempotency_key=mark)
            report[mark].append("acknowledged")
        except SessionDBError as error:
            refused += 1
            report[mark].append(outcome_of(error) or "none")
            errors[f"append: {type(error).__name__}, retry {error.retry}"] += 1
            await anyio.sleep(
                min(0.05, getattr(error, "retry_after_ms", 0) / 1000)
                if hasattr(error, "retry_after_ms")
                else 0
            )
        at += 1


async def insist(session: sessiondb.Session, report: dict[str, list[str]]) -> int:
    """Say again, under the same key, every second one of what was not acknowledged.

    Return how many tries that took.
    """
    tries = 0
    for mark in [mark for mark, outcomes in report.items() if "acknowledged" not in outcomes][::2]:
        for _ in range(TRIES):
            tries += 1
            try:
                await session.append(marked(mark, PADDING), idempotency_key=mark)
            except SessionDBError as error:
                report[mark].append(outcome_of(error) or "none")
                await anyio.sleep(getattr(error, "retry_after_ms", 10) / 1000)
            else:
                report[mark].append("acknowledged")
                break
    return tries


async def read(session: sessiondb.Session, readers: int, errors: Counter[str]) -> int:
    """Read from several tasks at once. Return how many reads succeeded."""
    done = 0

    async def once() -> None:
        nonlocal done
        try:
            await session.entries(last=5)
            done += 1
        except SessionDBError as error:
            errors[f"read: {type(error).__name__}, retry {error.retry}"] += 1

    async with anyio.create_task_group() as group:
        for _ in range(readers):
            group.start_soon(once)
    return done


async def grow(path: Path, exhaustion: Exhaustion) -> dict[str, Any]:
    report: dict[str, list[str]] = {}
    errors: Counter[str] = Counter()
    async with sessiondb.open(path, limits=Limits(wal_bytes_max=256 * 1024, wal_retry_ms=0)) as db:
        session = await db.session(KEY)
        await session.append(marked("first"))
        before = await read(session, 6, errors)
        exhaustion.take()
        try:
            await write_until_refused(session, report, errors)
            during = await read(session, 6, errors)
        finally:
            exhaustion.release()
        tries = await insist(session, report)
        after = await read(session, 6, errors)
        stats = db.backend.stats()["writer"]
    return {
        "outcomes": report,
        "errors": errors,
        "reads": [before, during, after],
        "tries": tries,
        "reopened": stats["reopened"],
    }


async def open_files(path: Path) -> dict[str, Any]:
    errors: Counter[str] = Counter()
    report: dict[str, list[str]] = {}
    async with sessiondb.open(path) as db:
        session = await db.session(KEY)
        # From here on no descriptor is free. The hard limit stays.
        free = os.dup(0)
        os.close(free)
        exhaustion = limit_of(resource.RLIMIT_NOFILE, free)
        exhaustion.take()
        try:
            for at in range(5):
                mark = f"m {at}"
                await session.append(marked(mark), idempotency_key=mark)
                report[mark] = ["acknowledged"]
            during = await read(session, 1, errors)
            try:
                await db.backend.backup(path.parent / "copy.db")  # type: ignore[attr-defined]
            except SessionDBError as error:
                errors[f"backup: {type(error).__name__}"] += 1
        finally:
            exhaustion.release()
        await db.backend.backup(path.parent / "copy.db")  # type: ignore[attr-defined]
        after = await read(session, 6, errors)
    return {
        "outcomes": report,
        "errors": errors,
        "reads": [during, after],
        "left": sorted(file.name for file in path.parent.iterdir()),
    }


def count(path: Path) -> dict[str, Any]:
    with sessiondb.sync.open(path) as db:
        report = db.verify()
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        integrity = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        marks = Counter(
            mark
            for (payload,) in connection.execute("SELECT payload FROM entry")
            for mark in MARK.findall(payload)
        )
    return {
        "found": marks,
        "integrity": integrity,
        "findings": [str(finding) for finding in report.findings],
    }


def main(mode: str, where: Path) -> dict[str, Any]:
    if mode == "count":
        return count(where)
    path = where / "gateway.db"
    if mode == "open-files":
        said_so = anyio.run(open_files, path)
    elif mode == "tmpfs":
        said_so = anyio.run(grow, path, full_file_system(where))
    else:
        said_so = anyio.run(grow, path, limit_of(resource.RLIMIT_FSIZE, 512 * 1024))
    fresh = subprocess.run(
        [sys.executable, __file__, "count", str(path)], stdout=subprocess.PIPE, check=True
    )
    return {**said_so, **json.loads(fresh.stdout)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
