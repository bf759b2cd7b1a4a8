"""Refuse places in which WAL mode loses data: file systems, mount points, files with two names.

WAL needs two things from a file system: POSIX locks that every process sees, and memory
mapped from one file and shared by all of them (the -shm index). Network file systems, and
those that pass a host's folder into a virtual machine or container, lack one or both. The
only sign is a corrupt file, some day.

SQLite keeps the -wal beside the name under which the database is opened. A file that is
itself mounted into a container (`-v ./gateway.db:/data/gateway.db`) has its -wal in the
container's own layer, and loses it with the container. Of a file with two names (hard
links) each name has a -wal and locks of its own. Both are refused.

The type comes from /proc/self/mountinfo: the mount with the longest prefix of the
resolved path. FUSE is refused too (sshfs, gcsfuse, rclone, a desktop's shared folders),
except for two drivers that serve a local disk through the kernel's own page cache.
Overlay, tmpfs and every ordinary disk file system pass. Without a mountinfo (macOS)
nothing is checked.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from sessiondb.errors import OpenError, UnsafeFilesystem

_MOUNTINFO = Path("/proc/self/mountinfo")

_NETWORK = (
    "NFS-like: its locks and shared memory do not reach other machines, and caching hides writes"
)
_HOST = "a folder of the host machine: memory mapped on one side is not shared with the other"
_CLUSTER = "a cluster file system: memory mapped on one node is not shared with the others"
_FUSE = "served by a user-space driver, which rarely offers shared memory and often is a network"

UNSAFE = {
    **dict.fromkeys(
        ["nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "davfs"], _NETWORK
    ),
    **dict.fromkeys(
        ["9p", "virtiofs", "drvfs", "vboxsf", "prl_fs", "vmhgfs", "osxfs", "grpcfuse"], _HOST
    ),
    **dict.fromkeys(
        ["ceph", "glusterfs", "lustre", "gpfs", "beegfs", "gfs2", "ocfs2", "orangefs"], _CLUSTER
    ),
    "fuse": _FUSE,
}
# Local disks through FUSE: ntfs-3g and exfat, and the overlay of rootless containers.
SAFE_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs"})

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    point: str
    type: str
    source: str


def refuse_unsafe_filesystem(path: str, mountinfo: str | None = None) -> None:
    """Refuse `path` when it lies on a file system that cannot keep a WAL database.

    Raises:
        UnsafeFilesystem: the message names the mount and its type, and says what to do.
    """
    mount = _mount_of(path, mountinfo)
    if mount is None or (reason := _reason(mount.type)) is None:
        return
    raise UnsafeFilesystem(
        f"{path} lies on {mount.point}, a {mount.type} file system ({mount.source}): {reason}. "
        "SQLite's WAL mode loses data there. Move the database to a local disk (in a container: "
        "a named volume, not a shared folder). If you know that only one process on one machine "
        "will ever open it, allow_unsafe_filesystem=True accepts the risk.",
        mount=mount.point,
        filesystem=mount.type,
    )


def refuse_second_place(path: str, mountinfo: str | None = None) -> None:
    """Refuse a database that can be reached by two paths, each with a -wal of its own.

    Raises:
        OpenError: `path` (resolved) is a mount point, or has another name. Says what to do.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  # as file_id does
    except OSError:
        return
    if not stat.S_ISREG(found.st_mode):
        return
    mount = _mount_of(path, mountinfo)
    if mount is not None and mount.point == path:
        raise OpenError(
            f"{path}: this file is itself a mount point, as with `docker -v "
            f"./gateway.db:{path}`. Its last commits would be in {path}-wal, which lies outside "
            "of what is mounted, and is lost with the container. Mount its folder instead: "
            f"-v ./data:{Path(path).parent}."
        )
    if found.st_nlink > 1:
        raise OpenError(
            f"{path}: this file has {found.st_nlink} names (hard links). A process that opens "
            f"another one sees neither the last commits, which are in {path}-wal, nor the locks. "
            f"Find the names with `find DIR -samefile {path}`, and remove all but one of them. "
            "Or copy the file, and open the copy."
        )


def _mount_of(path: str, mountinfo: str | None) -> Mount | None:
    return mount_here(path) if mountinfo is None else mount_of(os.path.realpath(path), mountinfo)


def mount_here(path: str) -> Mount | None:
    """Return the mount that `path` lies on. None when the system does not tell."""
    if not _MOUNTINFO.exists():
        return None
    mountinfo = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    return mount_of(os.path.realpath(path), mountinfo)


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """Return the mount that `path` (resolved) lies on."""
    best: Mount | None = None
    for line in mountinfo.splitlines():
        mount = _parse(line)
        # Of two mounts at one point the later line covers the earlier one, hence >=.
        if (
            mount is not None
            and _is_under(path, mount.point)
            and (best is None or len(mount.point) >= len(best.point))
        ):
            best = mount
    return best


def _parse(line: str) -> Mount | None:
    """Parse one line: "36 35 98:0 /root /mnt/point rw,noatime master:1 - ext4 /dev/root rw"."""
    left, separator, right = line.partition(" - ")
    left_fields, right_fields = left.split(" "), right.split(" ")
    if not separator or len(left_fields) < 6 or len(right_fields) < 2:
        return None
    return Mount(_unescape(left_fields[4]), right_fields[0], _unescape(right_fields[1]))


def _unescape(field: str) -> str:
    """Decode blanks and backslashes, which are written as 3 octal digits."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def _is_under(path: str, point: str) -> bool:
    return point == "/" or path == point or path.startswith(point + "/")


def _reason(filesystem: str) -> str | None:
    if filesystem in SAFE_FUSE:
        return None
    driver = filesystem.removeprefix("fuse.")
    return UNSAFE.get(driver) or (_FUSE if filesystem.startswith("fuse") else None)
