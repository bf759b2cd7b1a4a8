"""Places that cannot keep a WAL database are refused by name."""

# ruff: noqa: ASYNC240  # tests look at files as they please

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sessiondb.sync
from sessiondb.errors import OpenError, UnsafeFilesystem
from sessiondb.sqlite import SqliteBackend
from sessiondb.sqlite.filesystem import (
    mount_of,
    refuse_second_place,
    refuse_unsafe_filesystem,
)
from tests import ROOT
from tests.support.engine import insert, names_in, opened

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
    with pytest.raises(UnsafeFilesystem):
        async with sessiondb.open(tmp_db):
            pass
    assert not tmp_db.exists()
    async with opened(tmp_db, allow_unsafe_filesystem=True) as backend:
        await backend.write(insert("x"), op="append")


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_file_with_a_second_name_is_refused(tmp_db: Path, readonly: bool) -> None:
    second = tmp_db.with_name("second.db")
    async with opened(tmp_db) as backend:
        await backend.write(insert("x"), op="append")
    second.hardlink_to(tmp_db)
    for name in (tmp_db, second):
        with pytest.raises(OpenError, match=r"this file has 2 names \(hard links\)") as refused:
            await SqliteBackend.open(name, readonly=readonly)
        assert f"find DIR -samefile {name}" in str(refused.value)
    second.unlink()
    async with opened(tmp_db, readonly=readonly):
        pass


IN_A_CONTAINER = """
set -e
touch "$1/container/gateway.db"
mount --bind "$1/volume/gateway.db" "$1/container/gateway.db"
cd "$2"
for command in sessions query; do
  if [ $command = query ]; then set -- "$1" "$2" "$3" "SELECT 1"; else set -- "$1" "$2" "$3"; fi
  "$3" -m sessiondb $command "$1/container/gateway.db" ${4:+"$4"} 2>&1 || echo "exit $?"
done
"$3" - "$1/container/gateway.db" <<'END' 2>&1 || true
import sys, sessiondb.sync
with sessiondb.sync.open(sys.argv[1]):
    print("opened")
END
ls "$1/container"
"""


def namespaces() -> bool:
    """Return whether this user may make a mount namespace here."""
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "mount", "--bind", "/tmp", "/tmp"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not namespaces(), reason="no mount namespaces here (unshare -rm)")
def test_a_database_that_is_itself_a_mount_point_is_refused(tmp_path: Path) -> None:
    """As `docker run -v ./gateway.db:/data/gateway.db` mounts it."""
    for folder in ("volume", "container"):
        (tmp_path / folder).mkdir()
    with sessiondb.sync.open(tmp_path / "volume" / "gateway.db"):
        pass
    before = (tmp_path / "volume" / "gateway.db").read_bytes()
    command = ["unshare", "-rm", "sh", "-c", IN_A_CONTAINER, "sh", tmp_path, ROOT, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.count("this file is itself a mount point") == 3, done.stdout + done.stderr
    assert "-v ./data:" in done.stdout
    assert "opened" not in done.stdout
    assert done.stdout.splitlines()[-1] == "gateway.db", "no -wal lies in the container's layer"
    assert (tmp_path / "volume" / "gateway.db").read_bytes() == before
    assert names_in(tmp_path / "volume") == ["gateway.db", "gateway.db-alive"]


def test_a_mount_point_is_told_from_what_lies_below_one(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.touch()
    table = "27 1 254:0 / / rw - ext4 /dev/vda rw\n36 27 254:0 /x {} rw - ext4 /dev/vda rw\n"
    refuse_second_place(str(path), table.format(tmp_path))
    refuse_second_place(str(path), table.format(str(path) + "x"))
    with pytest.raises(OpenError, match="is itself a mount point"):
        refuse_second_place(str(path), table.format(path))
