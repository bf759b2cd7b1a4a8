"""Maintenance without a pause, in a process that a test kills.

    python tests/support/maintenance_child.py [--keep-the-lock] DATABASE FOLDER KEY...

The sessions of the keys are pinned. Each round imports a transcript of 2,000 entries,
makes a backup, archives all sessions but a few and those that are pinned (retention),
and returns pages to the file system. Before each step it prints a line ("import 1").
These steps are those that kept a lock in file-based gateways. With `--keep-the-lock` it
only does what maintenance must not: it keeps the write lock, for 2 s at a time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

import sessiondb
from sessiondb import StoreBusy
from sessiondb.maintenance.retention import RetentionPolicy

ENTRIES = 2_000
KEEP_SESSIONS = 2


def transcript(number: int) -> str:
    """Return a transcript as a file-based gateway writes one."""
    at = "2026-05-04T08:12:03.110Z"
    lines = [{"type": "session", "version": 3, "id": f"imported-{number}", "timestamp": at}]
    for entry in range(ENTRIES):
        message = {
            "role": "user",
            "content": (
                f"line {entry} of file {number}, which somebody may want to read again one day"
            ),
        }
        parent = f"e{entry - 1}" if entry else None
        lines.append(
            {
                "type": "message",
                "id": f"e{entry}",
                "parentId": parent,
                "timestamp": at,
                "message": message,
            }
        )
    return "".join(json.dumps(line) + "\n" for line in lines)


async def insist(step: Callable[[], Awaitable[object]]) -> None:
    """Take a step of maintenance.

    When the gateway is writing just then it is maintenance that waits, and tries again.
    """
    while True:
        try:
            await step()
            return
        except StoreBusy as busy:
            await anyio.sleep(busy.retry_after_ms / 1000)


async def keep_the_lock(db: sessiondb.SessionDB) -> None:
    sys.stdout.write("keeping\n")
    sys.stdout.flush()
    while True:
        await insist(lambda: db.write("keep", lambda tx: time.sleep(2.0)))
        await anyio.sleep(0.3)


async def main(path: str, folder: Path, keep: list[str], greedy: bool) -> None:
    async with sessiondb.open(path, program="maintenance") as db:
        for key in keep:
            await (await db.session(key)).pin()
        if greedy:
            await keep_the_lock(db)
        number = 0
        while True:
            number += 1

            async def begin(what: str, number: int = number) -> None:
                sys.stdout.write(f"{what} {number}\n")
                sys.stdout.flush()

            source, copy = folder / f"imported-{number}.jsonl", folder.parent / f"copy-{number}.db"
            await anyio.Path(source).write_text(transcript(number))
            await begin("import")
            await insist(lambda source=source: db.import_path(source))
            await begin("backup")
            # `backup` and `incremental_vacuum` are the engine's own.
            await insist(lambda copy=copy: db.backend.backup(copy))  # type: ignore[attr-defined]
            await anyio.Path(copy).unlink()
            await begin("archive")
            await insist(lambda: db.gc(RetentionPolicy(max_sessions=KEEP_SESSIONS, idle_days=0)))
            await begin("vacuum")
            await insist(lambda: db.backend.incremental_vacuum(1_000))  # type: ignore[attr-defined]


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--keep-the-lock"]
    anyio.run(
        main, arguments[0], Path(arguments[1]), arguments[2:], len(arguments) < len(sys.argv) - 1
    )
