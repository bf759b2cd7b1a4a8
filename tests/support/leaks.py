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
    """Return the threads that sessiondb started.

    anyio's own workers live for a while and are not ours.
    """
    return {thread for thread in threading.enumerate() if thread.name.startswith("sessiondb")}
