"""File names that survive a power cut.

Syncing a file does not sync its name. A name is on disk when the folder that holds it
has been synced, and a folder's own name when the folder above it has been. SQLite syncs
the folder in which it creates a WAL, and no other.

A finished file gets its name by a hard link: unlike a rename, that fails when the name is
taken. FAT and exFAT have no hard links.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

# A folder may take new files and not be readable. Some file systems (those that a host
# shares with a virtual machine) do not sync single folders. Then everything that this
# machine has not written yet is synced.
_NOT_ONE_BY_ONE = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)

# The error for a file system without hard links: EPERM on Linux; one of the rest on other
# systems and in user-space drivers.
_WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
NO_LINKS = "this file system has no hard links; choose another destination"


def lacks_links(error: OSError) -> bool:
    """Tell whether a hard link failed because there are none on that file system."""
    return error.errno in _WITHOUT_LINKS


def make_folder(folder: Path) -> None:
    """Create a folder and missing ones above it, each for its owner only. May be repeated.

    Their names are on disk on return. That includes a folder whose creator was killed
    before it had synced it: a folder is synced before anything is created in it, so
    only an empty one can still lack that.

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
    """Sync the names that a folder holds.

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
