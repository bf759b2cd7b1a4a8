"""File systems that cannot keep a WAL database are refused by name."""

# ruff: noqa: ASYNC240  # tests look at files as they please

from __future__ import annotations

from pathlib import Path

import pytest

from sessiondb.errors import UnsafeFilesystem
from sessiondb.sqlite import SqliteBackend
from sessiondb.sqlite.filesystem import mount_of, refuse_unsafe_filesystem
from tests.support.engine import insert, opened

pytestmark = pytest.mark.anyio


MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:30 / /mnt/nfs rw,relatime shared:1 - nfs4 server:/export rw,vers=4.2
31 27 0:31 / /mnt/c rw,noatime - 9p C:\134 rw
32 27 0:32 / /mnt/share rw - cifs //server/share rw
33 27 0:33 / /mnt/host rw - virtiofs myfs rw
34 27 0:34 / /mnt/ssh rw - fuse.sshfs user@host:/ rw
35 27 0:35 / /mnt/usb rw - fuseblk /dev/sdb1 rw
36 27 0:36 / /mnt/layers rw - overlay overlay rw
37 27 0:37 / /mnt/memory rw - tmpfs tmpfs rw
38 30 254:0 /x /mnt/nfs/local rw - ext4 /dev/vda rw
39 27 0:39 / /mnt/with\040blank rw - nfs server:/a rw
40 27 0:40 / /mnt/twice rw - ext4 /dev/vdb rw
41 40 0:41 / /mnt/twice rw - glusterfs cluster:/v rw
42 27 0:42 / /mnt/mac rw - fuse.grpcfuse grpcfuse rw
43 27 0:43 / /mnt/rootless rw - fuse.fuse-overlayfs fuse-overlayfs rw
this line is damaged
"""


@pytest.mark.parametrize(
    ("path", "filesystem"),
    [
        ("/mnt/nfs/a/gateway.db", "nfs4"),
        ("/mnt/c/Users/me/gateway.db", "9p"),
        ("/mnt/share/gateway.db", "cifs"),
        ("/mnt/host/gateway.db", "virtiofs"),
        ("/mnt/ssh/gateway.db", "fuse.sshfs"),
        ("/mnt/mac/gateway.db", "fuse.grpcfuse"),
        ("/mnt/with blank/gateway.db", "nfs"),
        ("/mnt/twice/gateway.db", "glusterfs"),
    ],
)
def test_shared_and_network_file_systems_are_refused_by_name(path: str, filesystem: str) -> None:
    with pytest.raises(UnsafeFilesystem, match="WAL mode loses data there") as refused:
        refuse_unsafe_filesystem(path, MOUNTINFO)
    assert refused.value.filesystem == filesystem
    assert refused.value.mount in str(refused.value)
    assert "local disk" in str(refused.value)


@pytest.mark.parametrize(
    "path",
    [
        "/home/me/gateway.db",
        "/mnt/nfsx/gateway.db",
        "/mnt/nfs/local/gateway.db",
        "/mnt/usb/gateway.db",
        "/mnt/layers/gateway.db",
        "/mnt/memory/gateway.db",
        "/mnt/rootless/gateway.db",
    ],
)
def test_local_file_systems_pass(path: str) -> None:
    refuse_unsafe_filesystem(path, MOUNTINFO)
    assert mount_of(path, MOUNTINFO) is not None


async def test_opening_looks_at_the_file_system_unless_told_not_to(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_db.with_name("mountinfo")
    table.write_text("27 1 254:0 / / rw,relatime - nfs server:/ rw\n")
    monkeypatch.setattr("sessiondb.sqlite.filesystem._MOUNTINFO", table)
    with pytest.raises(UnsafeFilesystem):
        await SqliteBackend.open(tmp_db)
    assert not tmp_db.exists()
    async with opened(tmp_db, allow_unsafe_filesystem=True) as backend:
        await backend.write(insert("x"), op="append")
