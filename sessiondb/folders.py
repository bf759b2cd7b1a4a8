"""Names that a power cut cannot take away again.

Syncing a file says nothing about its name. A name is on disk when the folder that holds it has been synced, and a
folder's own name when the folder above it has. SQLite syncs the folder in which it makes a WAL, and no other.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

# A folder may take new files and not be readable, and some file systems (those that a host shares with a virtual machine) do not
# sync single folders. Then all that this machine has not written yet goes to its disks.
_NOT_ONE_BY_ONE = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each for its owner only. May be repeated.

    Their names are on disk when it returns, also of one that a process made which was killed before it had synced it: each
    is synced before anything is made in it, so only one that is empty can still lack that.

    Raises:
        OSError: one of them cannot be made.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    elif not _may_be_empty(folder):
        return
    sync_folder(folder.parent)


def _may_be_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as inside:
            return next(inside, None) is None
    except PermissionError:
        return True


def sync_folder(folder: Path) -> None:
    """Put on disk which names a folder holds.

    Raises:
        OSError: it is not there, or the disk failed.
    """
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _NOT_ONE_BY_ONE:
            raise
        os.sync()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
