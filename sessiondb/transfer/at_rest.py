"""Whether a home of OpenClaw is at rest: no gateway runs on it, and no source changes.

A gateway has a lock file in the folder for temporary files, which names its process and its
configuration. Before 2026.8 whoever writes a transcript has a lock file beside it. A lock of a
process that is dead says nothing. A gateway in a container has a temporary folder of its own, and
its lock is not found. So every source is looked at before and after, too: size, time, inode.

Reads small files only. Runs in worker threads.

Sources: openclaw `src/infra/gateway-lock.ts`, `src/agents/session-write-lock.ts`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sessiondb.process import is_running

from .folder_scan import Scan, scan

NAMED_MAX: Final = 3
LOCK_BYTES_MAX: Final = 65536


class AtRest:
    """The sources of a home, as they were when a run began."""

    def __init__(self, home: str | os.PathLike[str], protect: Sequence[str]) -> None:
        self._home = os.fspath(home)
        self._protect = protect
        self._before = self._states()

    def problems(self) -> list[str]:
        """Return why this home is not at rest, in sentences. Empty: it is."""
        found = []
        scanned = scan(self._home, self._protect)
        for lock, pid in _live_locks(scanned):
            found.append(
                f"process {pid} has {lock}: OpenClaw is running. Stop the gateway, and run this "
                "again"
            )
        after = self._states()
        changed = sorted(
            path
            for path in self._before.keys() | after.keys()
            if self._before.get(path) != after.get(path)
        )
        if changed:
            named = ", ".join(os.path.relpath(path, scanned.root) for path in changed[:NAMED_MAX])
            more = f" and {len(changed) - NAMED_MAX:,} more" if len(changed) > NAMED_MAX else ""
            found.append(
                f"{named}{more} changed while this ran. Stop what writes there, and run this again"
            )
        return found

    def _states(self) -> dict[str, tuple[int, ...]]:
        """Return what says of each source whether it was written."""
        scanned = scan(self._home, self._protect)
        paths = [file.path for file in (*scanned.transcripts, *scanned.indexes)]
        for database in scanned.databases:
            paths += [database.path, f"{database.path}-wal"]
        states: dict[str, tuple[int, ...]] = {}
        for path in paths:
            try:
                found = Path(path).lstat()
            except FileNotFoundError:
                continue  # there is no -wal, or the file went away: it is missing on one side
            states[path] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return states


def _live_locks(scanned: Scan) -> Iterator[tuple[str, int]]:
    """Yield the lock files of OpenClaw whose processes live."""
    folder = Path(tempfile.gettempdir()) / f"openclaw-{os.getuid()}"
    for path in sorted(folder.glob("gateway.*.lock")):
        lock = _lock(path)
        config = lock.get("configPath")
        is_of_home = isinstance(config, str) and os.path.realpath(config).startswith(
            f"{scanned.root.rstrip('/')}/"
        )
        if is_of_home and (pid := _live_pid(lock)) is not None:
            yield str(path), pid
    for left in scanned.skipped:
        if left.path.endswith(".lock"):
            pid = _live_pid(_lock(Path(left.path)))
            if pid is not None:
                yield left.name, pid


def _lock(path: Path) -> dict[str, Any]:
    """Return what a lock file says. One that cannot be read names no process."""
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(LOCK_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _live_pid(lock: dict[str, Any]) -> int | None:
    pid = lock.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return None
    started = lock.get("startTime", lock.get("starttime"))
    return pid if is_running(pid, started if isinstance(started, int) else None) else None
