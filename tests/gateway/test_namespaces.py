"""A gateway in namespaces of its own lives for everybody, until it dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import sessiondb
from tests import ROOT
from tests.support import warm
from tests.support.core import query

UNSHARE = shutil.which("unshare")
# A PID namespace, a mount namespace with a /proc of its own, and a host name of its own.
CONTAINER = ["unshare", "-rpfmu", "--kill-child", "--mount-proc"]


def _has_namespaces() -> bool:
    if UNSHARE is None:
        return False
    tried = subprocess.run([*CONTAINER, "hostname", "tried"], capture_output=True, check=False)
    return tried.returncode == 0


pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not _has_namespaces(), reason="namespaces are not allowed here (unshare -rpfmu fails)"
    ),
]

GATEWAY = """
import os, sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1], program="gateway") as db:
        await db.recover()
        if sys.argv[2] == "work":
            message = {"role": "user", "content": "a question"}
            await db.accept("agent:main:web:1", message, channel="web", event_id="1")
            async def handler(turn):
                print("working as pid", os.getpid(), flush=True)
                await anyio.to_thread.run_sync(sys.stdin.readline)
                return sessiondb.Answer(replies=[("web:1", "an answer")])
            async with anyio.create_task_group() as group:
                group.start_soon(db.run_lane, "main", handler)
                while (await db.status()).gateway.replies_pending == 0:
                    await db.backend.wait_change(db.backend.change_count, 1.0)
                group.cancel_scope.cancel()
            print("answered", flush=True)
        else:
            print("open", flush=True)
            await anyio.to_thread.run_sync(sys.stdin.readline)
anyio.run(main)
"""


@contextmanager
def container(path: Path, what: str, *, name: str = "pod-1") -> Iterator[subprocess.Popen[str]]:
    """Run a gateway in a container: its folder is mounted elsewhere, and its pid is small."""
    inside = path.parent.parent / "inside"
    inside.mkdir(exist_ok=True)
    script = 'hostname "$1"; mount --bind "$2" "$3"; shift 3; exec "$@"'
    child = subprocess.Popen(
        [
            *CONTAINER,
            *("sh", "-c", script, "sh", name, path.parent, inside),
            *(sys.executable, "-c", GATEWAY, inside / path.name, what),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            kill(child)
        child.communicate()


def kill(child: subprocess.Popen[str]) -> None:
    """Kill the gateway in a container. On return it has ended: `unshare` has waited for it."""
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text(encoding="ascii")
    for pid in [*map(int, children.split())] or [child.pid]:
        os.kill(pid, signal.SIGKILL)
    child.wait()


def hears(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def says(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def command(*arguments: object) -> str:
    """Run a command of the host beside the container."""
    done = warm.run(
        [sys.executable, "-m", "sessiondb", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def database(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder / "gateway.db"


def test_a_gateway_in_a_container_keeps_its_turn_beside_commands_of_the_host(
    database: Path,
) -> None:
    with container(database, "work") as gateway:
        working = hears(gateway)
        assert working.startswith("working as pid ")
        assert int(working.split()[-1]) < 100, "it is in a PID namespace of its own"
        held = command("held", database)
        assert "pod-1, gateway" in held
        assert "DEAD" not in held
        assert " yes " in held
        assert command("resume", "--run", database) == "no message was interrupted\n"
        assert query(database, "SELECT state FROM turn") == ["running"]
        says(gateway)
        assert hears(gateway) == "answered\n", "nobody took its turn"
        gateway.wait()
    assert query(database, "SELECT state FROM turn") == ["completed"]
    assert query(database, "SELECT count(*) FROM event WHERE kind = 'turn_interrupted'") == [0]


async def test_a_gateway_of_the_host_leaves_the_work_of_a_container_until_that_dies(
    database: Path,
) -> None:
    with container(database, "work") as gateway:
        assert hears(gateway).startswith("working")
        async with sessiondb.open(database, program="gateway") as db:
            assert await db.recover() == sessiondb.Recovered()
            assert [holding.alive for holding in await db.held()] == [True]
            kill(gateway)
            assert [holding.alive for holding in await db.held()] == [False], "free at once"
            assert await db.recover() == sessiondb.Recovered(instances=1, turns=1)


def test_a_command_in_a_container_sees_the_gateway_of_the_host(database: Path) -> None:
    """And does not call it dead, although no pid of it is to be seen there."""
    with container(database, "wait", name="first") as one:
        assert hears(one) == "open\n"
        with container(database, "wait", name="second") as two:
            assert hears(two) == "open\n"  # it has called recover()
            assert query(database, "SELECT count(*) FROM instance WHERE closed_at_ms IS NULL") == [
                2
            ]
            assert query(database, "SELECT DISTINCT host FROM instance ORDER BY 1") == [
                "first",
                "second",
            ]


def test_containers_with_a_new_name_at_each_start_leave_one_registration(database: Path) -> None:
    for number in range(3):
        with container(database, "wait", name=f"pod-{number}") as gateway:
            assert hears(gateway) == "open\n"
            hosts = query(database, "SELECT host FROM instance WHERE closed_at_ms IS NULL")
            assert hosts == [f"pod-{number}"], "the successor has closed those before it"
