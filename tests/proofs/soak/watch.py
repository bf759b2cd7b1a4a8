"""Samples of each second: the file, its tables, the processes. Nothing here judges."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

Sample = tuple[float, float]  # when, in seconds of the run. What


@dataclass
class Series:
    """Named values over time."""

    values: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, name: str, when_s: float, value: float) -> None:
        self.values.setdefault(name, []).append((round(when_s, 2), value))

    def of(self, name: str, low_s: float = 0.0, high_s: float = float("inf")) -> list[float]:
        """Return the values of one name in a span of time."""
        return [value for when_s, value in self.values.get(name, []) if low_s <= when_s < high_s]

    def names(self, prefix: str) -> list[str]:
        return sorted(name for name in self.values if name.startswith(prefix))

    def highest(self, name: str) -> Sample:
        """Return when a value was highest, and how high."""
        return max(self.values.get(name, [(0.0, 0.0)]), key=lambda sample: sample[1])


def process(pid: int) -> dict[str, float] | None:
    """Ask the kernel how a process is. None if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if "VmRSS" not in lines:  # a zombie
        return None
    return {
        "rss": int(lines["VmRSS"].split()[0]) * 1024.0,
        "descriptors": float(descriptors),
        "threads": float(lines["Threads"]),
    }


SPACE = (
    "SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM "
    "pragma_freelist_count)"
)
WAITING = (
    "SELECT count(*), min(accepted_at_ms) FROM inbox WHERE state IN ('queued', 'claimed', "
    "'interrupted') AND lane <> 'attic'"
)
UNSENT = "SELECT count(*) FROM outbox WHERE state IN ('pending', 'sending')"


class Looker:
    """A reading connection of this process, for one short snapshot at a time.

    Any thread may ask, one after the other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self.connection.set_busy_timeout(60_000)
        self.tables = [
            row[0]
            for row in self.ask(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]

    def ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.lock:
            return self.connection.execute(sql, values).fetchall()

    def space(self, now_s: float) -> dict[str, float]:
        """Return pages, free pages, what waits and for how long."""
        [(pages, free)] = self.ask(SPACE)
        [(waiting, oldest_ms)] = self.ask(WAITING)
        [(unsent,)] = self.ask(UNSENT)
        oldest_s = 0.0 if oldest_ms is None else max(0.0, now_s - oldest_ms / 1000)
        return {
            "bytes": pages * 4096.0,
            "free_bytes": free * 4096.0,
            "waiting": waiting,
            "oldest_s": oldest_s,
            "unsent": unsent,
        }

    def rows(self) -> dict[str, int]:
        """Count every table's rows."""
        return {name: self.ask(f"SELECT count(*) FROM {name}")[0][0] for name in self.tables}

    def close(self) -> None:
        self.connection.close()


def wal_bytes(path: Path) -> int:
    """Return the size of the log's file. A stat, never an open: that would drop SQLite's locks."""
    try:
        return Path(f"{path}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def hold_snapshot(path: Path) -> closing[apsw.Connection]:
    """Return a connection that holds a snapshot until it is closed."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(60_000)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM instance").fetchall()
    return closing(connection)
