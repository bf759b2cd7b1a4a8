"""What a test may find left over: open files below a folder, and threads of sessiondb."""

from __future__ import annotations

import threading
from pathlib import Path


def open_files(folder: Path) -> list[str]:
    """Return the files of a folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue  # the listing's own descriptor
        if target.startswith(str(folder)):
            found.append(target)
    return found


def our_threads() -> set[threading.Thread]:
    """Return the threads that sessiondb started for an open database.

    Two kinds belong to the process: they hold no file, and nothing waits for them.
    """
    return {
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("sessiondb")
        and thread.name not in ("sessiondb-timers", "sessiondb-worker")
    }
